"""DELETE /api/registry/servers/{id-or-name} -- remove a server and all that is kept of it, or end a hold."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import servers
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    wanted, hold = request.server, servers.parse_hold(request.query)
    db = database()
    if hold == 0:  # a name that is held has no server; a server that has come back meanwhile stays
        servers.end_hold(db, request.caller, wanted)
    else:
        servers.delete(db, request.caller, servers.identify(db, wanted), hold)
    return Response.empty()
