"""GET /api/metrics/health -- what the checks of all servers found over a day."""

from __future__ import annotations

from mcp_registry.aws.db import database
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.health import history


@endpoint
def lambda_handler(request: Request) -> Response:
    history.refuse_unknown(request.query)
    return Response(history.of_all(database()))
