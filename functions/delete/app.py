"""DELETE /api/registry/servers/{id} -- remove a server and all that is kept of it."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import servers
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    servers.delete(database(), request.server_id)
    return Response.empty()
