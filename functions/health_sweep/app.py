"""Probe the servers of a shard. Has no database and no credential."""

from __future__ import annotations

from mcp_registry.edge.background import batch
from mcp_registry.health import shard

lambda_handler = batch(shard.check)
