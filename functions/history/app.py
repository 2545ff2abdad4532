"""GET /api/registry/servers/{id}/health -- what the checks of one server found over a period."""

from __future__ import annotations

from mcp_registry.db import database
from mcp_registry.health import history
from mcp_registry.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    return Response(history.of_server(database(), request.server_id, history.parse_period(request.query)))
