"""A library on fastmcp 2, 3 and 4. A part of it is another server, mounted; and one tool is switched off."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own; the checker sees the development environment only.

from __future__ import annotations

import argparse
import logging
import sys
from typing import Annotated

import fastmcp
from fastmcp import FastMCP
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from pydantic import Field

from mcp_registry_client import register

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--name", default="The Library")
parser.add_argument("--changed", action="store_true")
parser.add_argument("--silent", action="store_true", help="set up no log")
parser.add_argument("--log-to-stdout", action="store_true")
parser.add_argument("--token")
parser.add_argument("--path", default="/mcp")
parser.add_argument("--transport", default="http")
arguments = parser.parse_args()
if not arguments.silent:
    logging.basicConfig(level="INFO", stream=sys.stdout if arguments.log_to_stdout else None)

gate = StaticTokenVerifier({arguments.token: {"client_id": "reader", "scopes": []}}) if arguments.token else None
server = FastMCP(arguments.name, version="1.4.0", instructions="Books and their readers.", auth=gate)
readers = FastMCP("readers")
register(server, tags=["books"], repository_url="https://example.com/library")


@server.tool(
    title="Find books",
    tags={"search", "books"},
    annotations={"readOnlyHint": True, "openWorldHint": False},
    meta={"example.com/shelf": 3},
)
def find(word: Annotated[str, Field(description="In the title.")], limit: int | None = None) -> list[str]:
    """The numbers of the books whose title has the word."""
    return [word]


@server.tool(description="The title of a book" + (", in capitals." if arguments.changed else "."))
def title(number: str) -> str:
    """Not what clients read."""
    return number


@readers.tool
def lend(number: str, reader: str) -> bool:
    """Lend a book."""
    return True


@server.tool
def burn(number: str) -> None:
    """Nobody sees this."""


if fastmcp.__version__.startswith("2."):
    server.mount(readers, prefix="readers")
    burn.disable()
else:

    @server.tool(name="count", version="2.0")
    def count_anew(word: str, shelf: int) -> int:
        """How many books there are on a shelf."""
        return 0

    @server.tool(name="count", version="2.0rc1")
    def count(word: str) -> int:
        """How many books there are."""
        return 0

    server.mount(readers, namespace="readers")
    server.disable(names={"burn"})

if arguments.transport == "stdio":
    server.run(show_banner=False)
else:
    server.run(transport="http", host="127.0.0.1", port=arguments.port, path=arguments.path, show_banner=False)
