"""/api/registry/changes, and a server's tools, changes, observations, approvals and policy."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from mcp_registry.aws.db import database
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.edge.intake import read_json
from mcp_registry.ledger import approvals, feed, reading

# A pair says first with which status it is answered.
_ANSWERS: dict[str, Callable[[Request], Any]] = {
    "GET changes": lambda r: feed.read(database(), r.caller, feed.parse_page(r.query)),
    "GET servers/{id}/changes": lambda r: feed.read(
        database(), r.caller, feed.parse_page(r.query, feed.OF_ONE), r.server
    ),
    "GET servers/{id}/tools": lambda r: reading.tools(database(), r.caller, r.server, reading.parse_offer(r.query)),
    "POST servers/{id}/observations": lambda r: (
        HTTPStatus.ACCEPTED,
        reading.look_now(database(), r.caller, r.server),
    ),
    "GET servers/{id}/approvals": lambda r: approvals.show(database(), r.caller, r.server),
    "POST servers/{id}/approvals": lambda r: (
        HTTPStatus.CREATED,
        approvals.decide(database(), r.caller, r.server, approvals.parse_decision(read_json(r))),
    ),
    "PUT servers/{id}/policy": lambda r: approvals.set_policy(
        database(), r.caller, r.server, approvals.parse_policy(read_json(r))
    ),
}
_WITH_PARAMETERS = ("GET changes", "GET servers/{id}/changes", "GET servers/{id}/tools")


@endpoint
def lambda_handler(request: Request) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    route = f"{method} {request.resource.removeprefix('/api/registry/')}"
    if route not in _WITH_PARAMETERS:
        reading.refuse_parameters(request.query)
    told = _ANSWERS[route](request)
    status, told = told if isinstance(told, tuple) else (HTTPStatus.OK, told)
    return Response(told, status)
