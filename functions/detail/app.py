"""GET /api/registry/servers/{id-or-name} -- one server with its metadata and tools."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import servers
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    wanted, db = request.server, database()
    return Response(servers.detail(db, servers.identify(db, wanted)))
