"""A stock room on the SDK's high-level server: FastMCP of 1.x, MCPServer of 2.x. `--changed` changes a tool."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own; the checker sees the development environment only.

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from mcp_registry_client import register

try:
    from mcp.server.mcpserver import MCPServer as Server
    from mcp_types import Icon, ToolAnnotations

    current = True
except ImportError:
    from mcp.server.fastmcp import FastMCP as Server
    from mcp.types import Icon, ToolAnnotations

    current = False

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--name", default="stock room")
parser.add_argument("--changed", action="store_true")
parser.add_argument("--silent", action="store_true", help="set up no log")
parser.add_argument("--log-to-stdout", action="store_true")
parser.add_argument("--transport", default="streamable-http")
arguments = parser.parse_args()
if not arguments.silent:
    logging.basicConfig(level="INFO", stream=sys.stdout if arguments.log_to_stdout else None)

settings: dict[str, Any] = {"host": "127.0.0.1", "port": arguments.port}
server = Server(arguments.name, instructions="What is in stock.", **({} if current else settings))
register(server, tags=["stock"], author="Example")


@server.tool(title="Count items", annotations=ToolAnnotations.model_validate({"title": "Count", "readOnlyHint": True}))
def count(item: str, place: str | None = None, factor: float = 1.0) -> int:
    """How many of an item are in stock, “Größe” too."""
    return 120


@server.tool(
    description="Take items out of stock" + (", and order more." if arguments.changed else "."),
    icons=[Icon.model_validate({"src": "data:image/png;base64,AA==", "mimeType": "image/png"})],
    meta={"example.com/shelf": {"row": 3, "place": None}},
)
def take(item: str, number: int) -> dict[str, int]:
    """Not what clients read."""
    return {item: number}


server.run(arguments.transport, **(settings if current and arguments.transport != "stdio" else {}))
