"""GET /api/registry/servers/{id-or-name}/health -- what the checks of one server found over a period."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.catalogue import servers
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.health import history


@endpoint
def lambda_handler(request: Request) -> Response:
    wanted, period = request.server, history.parse_period(request.query)
    db = database()
    return Response(history.of_server(db, servers.identify(db, wanted), period))
