"""DELETE /api/registry/servers/{id-or-name} -- remove a server and all that is kept of it."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import servers
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    wanted, db = request.server, database()
    servers.delete(db, servers.identify(db, wanted))
    return Response.empty()
