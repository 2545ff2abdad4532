"""A fastmcp server as a function: its ASGI application behind Mangum."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own; the checker sees the development environment only.

from __future__ import annotations

import os

from fastmcp import FastMCP
from mangum import Mangum

from mcp_registry_client import register_lambda

server = FastMCP(os.environ["NAME"], version="1.0")
app = server.http_app(path="/mcp", stateless_http=True, json_response=True)
base = os.environ.get("BASE_PATH", "/")
lambda_handler = register_lambda(Mangum(app, api_gateway_base_path=base), server=server, budget_ms=20_000)


@server.tool
def convert(amount: float) -> float:
    """What it is in another currency."""
    return amount
