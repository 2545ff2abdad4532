"""Say and mark for which servers there are probe headers, for the function that keeps those and has no database."""

from __future__ import annotations

from typing import Any

from mcp_registry.aws.db import database
from mcp_registry.edge.background import job
from mcp_registry.health import marks


@job
def lambda_handler(question: Any) -> object:
    return marks.answer(database(), question)
