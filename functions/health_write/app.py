"""Write what the probes found: a row for each check, the status of each server."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.edge.background import Record, batch
from mcp_registry.health import results


@batch
def lambda_handler(message: Record) -> None:
    results.record(database(), message)
