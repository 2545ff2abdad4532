"""Introduce the registry to endpoints, and learn how each is asked from then on. Has no database and no credential."""

from __future__ import annotations

from mcp_registry.edge.background import batch
from mcp_registry.health import visits

lambda_handler = batch(visits.make)
