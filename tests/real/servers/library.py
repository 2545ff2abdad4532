"""A library on the fastmcp package: the same lines run on its releases 2, 3 and 4. `--token` gates it."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own (environments.py); the checker sees the development environment only.

from __future__ import annotations

import argparse

from fastmcp import FastMCP
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--token")
arguments = parser.parse_args()

gate = StaticTokenVerifier({arguments.token: {"client_id": "reader", "scopes": []}}) if arguments.token else None
server = FastMCP("library", version="1.2.0", auth=gate)
books = {"9780140449136": "The Odyssey", "9780141439600": "A Tale of Two Cities"}


@server.tool
def find(word: str) -> list[str]:
    """The numbers of the books whose title has the word."""
    return [number for number, title in books.items() if word.lower() in title.lower()]


@server.tool
def title(number: str) -> str:
    """The title of a book."""
    return books[number]


server.run(transport="http", host="127.0.0.1", port=arguments.port, show_banner=False)
