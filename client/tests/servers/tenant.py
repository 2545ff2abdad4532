"""A fastmcp server that lists its tools by who asks, so that nobody lists them without a request.

`python tenant.py PORT [--deaf]`; where it is deaf, whoever does not say who he is gets none.
"""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own; the checker sees the development environment only.

from __future__ import annotations

import argparse

from fastmcp import FastMCP
from fastmcp.server.dependencies import get_http_request
from fastmcp.server.middleware import Middleware

from mcp_registry_client import register

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--name", default="by tenant")
parser.add_argument("--deaf", action="store_true")
arguments = parser.parse_args()
server = FastMCP(arguments.name, version="1.0")
register(server)


@server.tool
def add(a: int, b: int) -> int:
    """A sum."""
    return a + b


@server.tool
def audit(year: int) -> str:
    """For one tenant only."""
    return ""


class ByTenant(Middleware):
    """What a tenant may see."""

    async def on_list_tools(self, context, call_next):
        """Ask the request who it is."""
        headers = get_http_request().headers
        tenant = headers["x-tenant"] if arguments.deaf else headers.get("x-tenant", "public")
        return [tool for tool in await call_next(context) if tool.name != "audit" or tenant == "auditor"]


server.add_middleware(ByTenant())
server.run(transport="http", host="127.0.0.1", port=arguments.port, show_banner=False)
