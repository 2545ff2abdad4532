"""GET /health -- whether the registry can answer, for load balancers and the local run."""

from __future__ import annotations

from mcp_registry.aws.db import VERIFY, database
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    database().read(VERIFY)
    return Response({"status": "ok"})
