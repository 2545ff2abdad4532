"""Write what introductions found: what was learnt of each endpoint, and what its server offers."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.edge.background import Record, batch
from mcp_registry.health import introductions
from mcp_registry.ledger import recording


@batch
def lambda_handler(message: Record) -> None:
    told = introductions.record(database(), message)
    recording.record(database(), told, message)
