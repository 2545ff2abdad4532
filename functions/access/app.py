"""/api/registry/whoami, teams, tokens, issuers and audit -- who may call, and who did what."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from mcp_registry.access import audit, credentials, rules, teams, trust
from mcp_registry.access.rules import parse_name, parse_token_id
from mcp_registry.aws.db import database
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.edge.intake import read_json

# Where nothing is answered it is 204. A pair says first whether what it tells is new.
_ANSWERS: dict[str, Callable[[Request], Any]] = {
    "GET whoami": lambda r: teams.whoami(database(), r.caller),
    "GET teams": lambda _: teams.list_all(database()),
    "GET teams/{team}": lambda r: teams.show(database(), r.caller, parse_name(r.path, "team")),
    "PUT teams/{team}": lambda r: teams.put(
        database(), r.caller, parse_name(r.path, "team"), rules.parse_team(read_json(r))
    ),
    "DELETE teams/{team}": lambda r: teams.remove(database(), r.caller, parse_name(r.path, "team")),
    "GET tokens": lambda r: credentials.list_page(database(), rules.parse_token_page(r.query)),
    "POST tokens": lambda r: (True, credentials.make(database(), r.caller, rules.parse_grant(read_json(r)))),
    "GET tokens/{id}": lambda r: credentials.show(database(), parse_token_id(r.path)),
    "DELETE tokens/{id}": lambda r: credentials.revoke(database(), r.caller, parse_token_id(r.path)),
    "GET issuers": lambda _: trust.list_all(database()),
    "GET issuers/{id}": lambda r: trust.show(database(), parse_name(r.path, "id")),
    "PUT issuers/{id}": lambda r: trust.put(
        database(), r.caller, parse_name(r.path, "id"), rules.parse_trust(read_json(r))
    ),
    "DELETE issuers/{id}": lambda r: trust.remove(database(), r.caller, parse_name(r.path, "id")),
    "GET audit": lambda r: audit.read(database(), rules.parse_audit_page(r.query)),
}


@endpoint
def lambda_handler(request: Request) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    route = f"{method} {request.resource.removeprefix('/api/registry/')}"
    if route not in ("GET tokens", "GET audit"):
        rules.refuse_parameters(request.query)
    told = _ANSWERS[route](request)
    is_new, told = told if isinstance(told, tuple) else (False, told)
    return Response.empty() if told is None else Response(told, HTTPStatus.CREATED if is_new else HTTPStatus.OK)
