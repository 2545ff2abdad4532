"""POST and PUT /api/registry/register -- add one MCP server to the catalogue, or make the catalogue agree with it."""

from __future__ import annotations

import os
from http import HTTPStatus

from mcp_registry.aws.db import database
from mcp_registry.catalogue import registration, servers
from mcp_registry.edge import intake
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.errors import RegistrationRequired


@endpoint
def lambda_handler(request: Request) -> Response:
    if request.method == "POST":
        sent = registration.guarded(registration.parse(intake.read_json(request)))
        return Response(servers.register(database(), sent, servers.Quota.of(os.environ)), HTTPStatus.CREATED)
    if "x-registration-digest" in request.headers and not request.body:  # the handshake of PUT
        if servers.has_digest(database(), registration.parse_digest(request.headers["x-registration-digest"])):
            return Response.empty()
        raise RegistrationRequired
    sent = registration.guarded(registration.parse(intake.read_json(request)))
    answer = servers.replace(database(), sent, servers.Quota.of(os.environ))
    return Response(answer, HTTPStatus.CREATED if answer["result"] == "created" else HTTPStatus.OK)
