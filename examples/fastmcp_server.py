"""A FastMCP server that is in the registry whenever it runs: `python fastmcp_server.py`."""

import os

from fastmcp import FastMCP
from mcp_registry_client import register

server = FastMCP("rates", version="1.0.0", instructions="Rates of exchange of the European Central Bank.")
register(server, tags=["finance"])


@server.tool(annotations={"readOnlyHint": True})
def rate(currency: str) -> float:
    """What a euro is worth."""
    return {"CHF": 0.94, "USD": 1.08}[currency]


if __name__ == "__main__":
    server.run(transport="http", port=int(os.environ.get("PORT", "8000")))
