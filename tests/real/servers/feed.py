"""News over HTTP with SSE, the transport before streamable HTTP, with a health route beside it."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own (environments.py); the checker sees the development environment only.

from __future__ import annotations

import sys

from mcp.server.fastmcp import FastMCP
from starlette.requests import Request
from starlette.responses import JSONResponse

server = FastMCP("feed", host="127.0.0.1", port=int(sys.argv[1]))
headlines = ["Rain expected", "Library reopens"]


@server.tool()
def latest(number: int = 1) -> list[str]:
    """The latest headlines."""
    return headlines[-number:]


@server.custom_route("/health", methods=["GET"])
async def health(request: Request) -> JSONResponse:
    """What a load balancer asks."""
    return JSONResponse({"status": "ok"})


server.run(transport="sse")
