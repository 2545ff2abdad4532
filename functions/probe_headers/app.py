"""PUT and DELETE /api/registry/servers/{id}/probe-headers -- what a server that asks for credentials is looked at with.

Once a day a schedule has those deleted that nobody needs any more.
"""

from __future__ import annotations

from typing import Any

from mcp_registry.edge.background import job
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.edge.intake import read_json
from mcp_registry.health import probe_headers


@endpoint
def _answer(request: Request) -> Response:
    if request.method == "PUT":
        probe_headers.give(request.caller, request.server, probe_headers.parse(read_json(request)))
    else:
        probe_headers.withdraw(request.caller, request.server)
    return Response.empty()


@job
def _clear(_: Any) -> object:
    return {"deleted": probe_headers.clear()}


def lambda_handler(event: Any, context: Any) -> object:
    is_request = "httpMethod" in event
    return _answer(event, context) if is_request else _clear(event, context)
