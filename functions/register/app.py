"""POST and PUT /api/registry/register -- add one MCP server to the catalogue, or make the catalogue agree with it."""

from __future__ import annotations

import os
from http import HTTPStatus

from mcp_registry.aws.db import database
from mcp_registry.catalogue import registration, servers
from mcp_registry.edge import intake
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.health import announcing


@endpoint
def lambda_handler(request: Request) -> Response:
    if request.method == "POST":
        sent = registration.guarded(registration.parse(intake.read_json(request)))
        answer = servers.register(database(), request.caller, sent, servers.Quota.of(os.environ))
        return _announced(answer.visit, Response(answer, HTTPStatus.CREATED))
    lease = registration.parse_lease(request.headers.get("x-registration-lease"))
    if "x-registration-digest" in request.headers and not request.body:  # the handshake of PUT
        digest = registration.parse_digest(request.headers["x-registration-digest"])
        return _announced(servers.shake_hands(database(), request.caller, digest, lease), Response.empty())
    sent = registration.guarded(registration.parse(intake.read_json(request)))
    answer = servers.replace(database(), request.caller, sent, servers.Quota.of(os.environ), lease)
    status = HTTPStatus.CREATED if answer["result"] == "created" else HTTPStatus.OK
    return _announced(answer.visit, Response(answer, status))


def _announced(visit: servers.Visit | None, response: Response) -> Response:
    if visit is not None:
        announcing.at_once(visit)
    return response
