"""A help desk on MCPServer of the 2.x SDK. `--token` gates it by the SDK's own bearer authentication."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own (environments.py); the checker sees the development environment only.

from __future__ import annotations

import argparse
from typing import Any

from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--token")
arguments = parser.parse_args()
address = f"http://127.0.0.1:{arguments.port}"


class OneToken:
    """Knows one token."""

    async def verify_token(self, token: str) -> AccessToken | None:
        """What the token allows, or None where it is not the one."""
        if token != arguments.token:
            return None
        return AccessToken(token=token, client_id="desk", scopes=[], resource=f"{address}/mcp")


gate: dict[str, Any] = {}
if arguments.token:
    settings = AuthSettings.model_validate({"issuer_url": address, "resource_server_url": f"{address}/mcp"})
    gate = {"auth": settings, "token_verifier": OneToken()}
server = MCPServer("tickets", version="2.0.0", **gate)
tickets: list[str] = []


@server.tool()
def open_ticket(text: str) -> int:
    """Open a ticket; its number."""
    tickets.append(text)
    return len(tickets)


@server.tool()
def read_ticket(number: int) -> str:
    """What a ticket says."""
    return tickets[number - 1]


@server.custom_route("/sessions", methods=["GET"])
async def sessions(request: Request) -> JSONResponse:
    """How many sessions the server keeps."""
    return JSONResponse(len(server.session_manager._server_instances))


server.run(transport="streamable-http", host="127.0.0.1", port=arguments.port)
