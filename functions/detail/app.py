"""GET /api/registry/servers/{id} -- one server with its metadata and tools."""

from __future__ import annotations

from mcp_registry import servers
from mcp_registry.db import database
from mcp_registry.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    return Response(servers.detail(database(), request.server_id))
