"""Write what introductions found and what was learnt of each endpoint."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.edge.background import Record, batch
from mcp_registry.health import introductions


@batch
def lambda_handler(message: Record) -> None:
    introductions.record(database(), message)
