"""GET / and GET /openapi.yaml -- what this is, and its contract. Open to everybody; there is no database behind it."""

from __future__ import annotations

from mcp_registry.edge import front
from mcp_registry.edge.http import Request, Response, endpoint

_ANSWERS = {"/": front.pointer, "/openapi.yaml": front.contract}


@endpoint
def lambda_handler(request: Request) -> Response:
    return _ANSWERS[request.resource](request)
