"""Say which token or which issuer's rules the database knows, for the authorizer, which has no way to it."""

from __future__ import annotations

from typing import Any

from mcp_registry.access import identity
from mcp_registry.aws.db import database
from mcp_registry.edge.background import job


@job
def lambda_handler(question: Any) -> object:
    return identity.answer(database(), question)
