"""DELETE /api/registry/servers/{id} -- remove a server and all that is kept of it."""

from __future__ import annotations

from mcp_registry import servers
from mcp_registry.db import database
from mcp_registry.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    servers.delete(database(), request.server_id)
    return Response.empty()
