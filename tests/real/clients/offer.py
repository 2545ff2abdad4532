"""What a server over stdio offers, as the stock client of the SDK lists it: one JSON object on stdout.

    python offer.py PROGRAM [ARGUMENT...]

The object has the parts that `mcp_registry.ledger.grades.Offer` has. Each item has the fields that the server sent, and
no others. The server has this process's environment and folder. Exit code 1, and the reason on stderr, where it does
not answer within the deadline.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

# By name: the environment that checks these tests has no SDK.
mcp: Any = importlib.import_module("mcp")
stdio: Any = importlib.import_module("mcp.client.stdio")
METHOD_NOT_FOUND = -32601
SECONDS = 90.0


async def every(ask: Callable[..., Awaitable[Any]], part: str) -> list[Any]:
    """All pages of a list; none where the server does not know it, as many with resources know no templates."""
    found: list[Any] = []
    cursor: str | None = None
    while True:
        try:
            page = await ask(cursor)
        except mcp.McpError as error:
            if error.error.code == METHOD_NOT_FOUND:
                return found
            raise
        found += [item.model_dump(mode="json", by_alias=True, exclude_unset=True) for item in getattr(page, part)]
        cursor = page.nextCursor
        if not cursor:
            return found


async def offer(command: list[str]) -> dict[str, Any]:
    """What the server that the command starts says of itself."""
    parameters = mcp.StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    with Path(os.devnull).open("w") as nowhere:
        async with stdio.stdio_client(parameters, errlog=nowhere) as streams, mcp.ClientSession(*streams) as session:
            begun = await session.initialize()
            can = begun.capabilities
            return {
                "tools": await every(session.list_tools, "tools") if can.tools else [],
                "prompts": await every(session.list_prompts, "prompts") if can.prompts else [],
                "resources": await every(session.list_resources, "resources") if can.resources else [],
                "templates": (
                    await every(session.list_resource_templates, "resourceTemplates") if can.resources else []
                ),
                "instructions": begun.instructions,
                "server_info": begun.serverInfo.model_dump(mode="json", by_alias=True, exclude_unset=True),
                "protocol_versions": [str(begun.protocolVersion)],
                "capabilities": can.model_dump(mode="json", by_alias=True, exclude_unset=True),
            }


async def main() -> None:
    """Print the offer."""
    async with asyncio.timeout(SECONDS):
        print(json.dumps(await offer(sys.argv[1:])))


if __name__ == "__main__":
    asyncio.run(main())
