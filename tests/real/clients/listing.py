"""What the stock client of the SDK for Python lists of servers: whole tools, with the fields that each server sent.

python listing.py   < one JSON string a line: the URL
                    > one JSON object a line: url, tools (null where they could not be listed)
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from typing import Any

SECONDS = 30.0
AT_ONCE = 8

logging.disable(logging.CRITICAL)
# By name: the environment that checks these tests has no SDK.
mcp: Any = importlib.import_module("mcp")
transport: Any = importlib.import_module("mcp.client.streamable_http")


async def listed(url: str) -> list[Any]:
    """The tools of a server, over all pages."""
    found: list[Any] = []
    async with transport.streamablehttp_client(url) as streams, mcp.ClientSession(*streams[:2]) as session:
        await session.initialize()
        cursor: str | None = None
        while True:
            page = await session.list_tools(cursor)
            found += [tool.model_dump(mode="json", by_alias=True, exclude_unset=True) for tool in page.tools]
            cursor = page.nextCursor
            if not cursor:
                return found


async def main() -> None:
    """Answer every line."""
    places = asyncio.Semaphore(AT_ONCE)

    async def answer(url: str) -> None:
        tools: list[Any] | None = None
        async with places:
            try:
                async with asyncio.timeout(SECONDS):
                    tools = await listed(url)
            except Exception as error:  # whatever it is, the test says it
                print(repr(error), file=sys.stderr)
        print(json.dumps({"url": url, "tools": tools}), flush=True)

    await asyncio.gather(*(answer(json.loads(line)) for line in sys.stdin))


asyncio.run(main())
