"""POST /api/registry/servers/{id-or-name}/transfer -- give a server to another team."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import registration, servers
from mcp_registry.edge import intake
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    wanted = request.server
    team = registration.parse_transfer(intake.read_json(request)).team
    db = database()
    return Response(servers.transfer(db, request.caller, servers.identify(db, wanted), team))
