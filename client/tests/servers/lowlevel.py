"""A clock on the SDK's low-level server, 1.x or 2.x. It takes no routes; its tools come in two pages."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own; the checker sees the development environment only.

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_registry_client import register

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--name", default="clock")
parser.add_argument("--changed", action="store_true")
parser.add_argument("--transport", default="http")
parser.add_argument("--silent", action="store_true", help="set up no log")
parser.add_argument("--log-to-stdout", action="store_true")
arguments = parser.parse_args()
if not arguments.silent:
    logging.basicConfig(level="INFO", stream=sys.stdout if arguments.log_to_stdout else None)

# What MCP has besides the schema, what it may have one day, and a field that the registry keeps for itself.
MORE: dict[str, Any] = {
    "_meta": {"example.com/zones": [None, 1.5]},
    "execution": {"taskSupport": "forbidden"},
    "icons": [{"src": "https://example.com/clock.png"}],
    "hands": {"hour": True, "second": None},
    "id": 12,
}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"zone": {"type": "string", "default": None}}}


def page(types: Any, cursor: str | None) -> Any:
    """One of the two pages."""
    words = "When to wake up." if cursor and arguments.changed else "Time."
    fields = {"name": "alarm" if cursor else "now", "description": words, "inputSchema": SCHEMA, **MORE}
    answer = {"tools": [types.Tool.model_validate(fields)], "nextCursor": None if cursor else "2"}
    return types.ListToolsResult.model_validate(answer)


if hasattr(Server, "streamable_http_app"):
    import mcp_types

    # 2.x tells this to clients of the older protocol only, as the test is one; the client speaks the present one.
    del MORE["execution"]

    async def on_list_tools(context: Any, params: Any) -> Any:
        """What 2.x calls."""
        return page(mcp_types, params.cursor if params else None)

    server = Server(arguments.name, version="3.1", on_list_tools=on_list_tools)
    app = server.streamable_http_app()
else:
    import mcp.types
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    server = Server(arguments.name, version="3.1")

    @server.list_tools()
    async def list_tools(request: mcp.types.ListToolsRequest) -> mcp.types.ListToolsResult:
        """What 1.x calls."""
        return page(mcp.types, request.params.cursor if request.params else None)

    sessions = StreamableHTTPSessionManager(server)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        """Run the sessions."""
        async with sessions.run():
            yield

    app = Starlette(routes=[Mount("/mcp", app=sessions.handle_request)], lifespan=lifespan)


async def over_stdio() -> None:
    """Serve as a client wants it that starts its servers."""
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


register(server, path="/mcp/" if not hasattr(Server, "streamable_http_app") else "/mcp")
if arguments.transport == "stdio":
    asyncio.run(over_stdio())
else:
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
