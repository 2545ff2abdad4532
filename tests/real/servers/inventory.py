"""A stock room on FastMCP of the 1.x SDK: stateful, as it is by default, or `--stateless`."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own (environments.py); the checker sees the development environment only.

from __future__ import annotations

import argparse

from mcp.server.fastmcp import FastMCP
from starlette.requests import Request
from starlette.responses import JSONResponse

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--stateless", action="store_true")
arguments = parser.parse_args()

server = FastMCP(
    "inventory",
    host="127.0.0.1",
    port=arguments.port,
    stateless_http=arguments.stateless,
    json_response=arguments.stateless,
)
stock = {"bolt": 120, "nut": 80}


@server.tool()
def count(item: str) -> int:
    """How many of an item are in stock."""
    return stock.get(item, 0)


@server.tool()
def take(item: str, number: int) -> int:
    """Take items out of stock; how many are left."""
    if stock.get(item, 0) < number:
        raise ValueError(f"only {stock.get(item, 0)} in stock")
    stock[item] -= number
    return stock[item]


@server.custom_route("/sessions", methods=["GET"])
async def sessions(request: Request) -> JSONResponse:
    """How many sessions the server keeps."""
    return JSONResponse(len(server.session_manager._server_instances))


server.run(transport="streamable-http")
