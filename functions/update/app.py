"""PATCH /api/registry/servers/{id-or-name} -- take a server out of the health sweeps, or put it back."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import registration, servers
from mcp_registry.edge import intake
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.health import announcing


@endpoint
def lambda_handler(request: Request) -> Response:
    wanted = request.server
    change = registration.parse_change(intake.read_json(request))
    db = database()
    answer = servers.set_status(db, request.caller, servers.identify(db, wanted), change.status)
    if answer.visit is not None:
        announcing.at_once(answer.visit)
    return Response(answer)
