"""A fastmcp server whose endpoint is where nobody would guess it: `python placed.py PLACE PORT`."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own; the checker sees the development environment only.

from __future__ import annotations

import logging
import sys

import uvicorn
from fastmcp import FastMCP
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_registry_client import register

place, port = sys.argv[1], int(sys.argv[2])
logging.basicConfig(level="INFO")
server = FastMCP(f"placed-{place}", version="1.0")
register(server, path="/analytics/" if place == "mount" else None)


@server.tool
def count(word: str) -> int:
    """How many there are."""
    return 0


if place == "sse":
    app = server.http_app(transport="sse", path="/events")
elif place == "mount":
    inner = server.http_app(path="/")
    app = Starlette(routes=[Mount("/analytics", app=inner)], lifespan=inner.lifespan)
else:
    app = server.http_app(path="/mcp")
if place != "main":
    uvicorn.run(app, host="127.0.0.1", port=port, root_path="/api" if place == "root_path" else "")
elif __name__ == "__main__":
    # As people write it: the module is imported a second time, and the first is never served.
    uvicorn.run("placed:app", host="127.0.0.1", port=port)
