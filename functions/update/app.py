"""PATCH /api/registry/servers/{id} -- take a server out of the health sweeps, or put it back."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import registration, servers
from mcp_registry.edge import intake
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    server_id = request.server_id
    change = registration.parse_change(intake.read_json(request))
    return Response(servers.set_status(database(), server_id, change.status))
