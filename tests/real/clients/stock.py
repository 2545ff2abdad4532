"""A stock MCP client of this environment, asked by lines: a URL in, and what the client made of it out.

    python stock.py mcp|mcp-sse|fastmcp [MODE]   < one JSON string a line: the URL
                                                 > one JSON object a line: url, outcome, tools, error

`outcome` is `up` where the client has begun and listed its tools, `gated` where it was asked for credentials (401), and
`down` otherwise. Nothing of the client is changed; its HTTP library tells what it was answered.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from contextlib import AsyncExitStack
from typing import Any

SECONDS = 15.0
AT_ONCE = 16
# Both are the same library under two names: SDK 2.x has taken on the second.
LIBRARIES = ("httpx", "httpx2")

logging.disable(logging.CRITICAL)


def listen(statuses: dict[str, list[int]]) -> None:
    """Note the status of every answer by the host and path that was asked."""
    for name in LIBRARIES:
        try:
            library: Any = importlib.import_module(name)
        except ImportError:
            continue
        send = library.AsyncClient.send

        async def noting(self: Any, request: Any, *args: Any, send: Any = send, **options: Any) -> Any:
            response = await send(self, request, *args, **options)
            if request.method == "POST" or response.status_code == 401:
                statuses.setdefault(str(request.url).partition("?")[0], []).append(response.status_code)
            return response

        library.AsyncClient.send = noting


async def mcp(url: str, mode: str | None) -> int:
    """How many tools the client of the SDK lists: of 2.x the one that negotiates, of 1.x the session over HTTP."""
    package: Any = importlib.import_module("mcp")
    if hasattr(package, "Client"):
        async with package.Client(url, **({"mode": mode} if mode else {})) as client:
            return len((await client.list_tools()).tools)
    transport: Any = importlib.import_module("mcp.client.streamable_http")
    connect = getattr(transport, "streamable_http_client", None) or transport.streamablehttp_client
    async with connect(url) as streams, package.ClientSession(*streams[:2]) as session:
        await session.initialize()
        return len((await session.list_tools()).tools)


async def mcp_sse(url: str, mode: str | None) -> int:
    """The same over the transport of 2024-11-05."""
    package: Any = importlib.import_module("mcp")
    transport: Any = importlib.import_module("mcp.client.sse")
    async with AsyncExitStack() as stack:
        streams = await stack.enter_async_context(transport.sse_client(url))
        session = await stack.enter_async_context(package.ClientSession(*streams[:2]))
        await session.initialize()
        return len((await session.list_tools()).tools)


async def fastmcp(url: str, mode: str | None) -> int:
    """How many tools fastmcp lists; it takes a path that ends with /sse for the older transport."""
    package: Any = importlib.import_module("fastmcp")
    async with package.Client(url) as client:
        return len(await client.list_tools())


CLIENTS = {"mcp": mcp, "mcp-sse": mcp_sse, "fastmcp": fastmcp}


def causes(error: BaseException) -> list[BaseException]:
    """The errors in a group of them, at whatever depth."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return [cause for one in inner for cause in causes(one)] if inner else [error]


async def main(name: str, mode: str | None) -> None:
    """Answer every line."""
    statuses: dict[str, list[int]] = {}
    listen(statuses)
    importlib.import_module(name.partition("-")[0])  # which takes seconds, and those are no server's
    turns = asyncio.Semaphore(AT_ONCE)

    async def answer(url: str) -> None:
        async with turns:
            found: dict[str, Any] = {"url": url, "outcome": "up", "tools": None, "error": None}
            try:
                found["tools"] = await asyncio.wait_for(CLIENTS[name](url, mode), SECONDS)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                asked = 401 in statuses.get(url.partition("?")[0], [])
                found["outcome"] = "gated" if asked else "down"
                found["error"] = "; ".join(f"{type(one).__name__}: {one}"[:300] for one in causes(error))
            print(json.dumps(found), flush=True)

    async with asyncio.TaskGroup() as group:
        for line in sys.stdin:
            group.create_task(answer(json.loads(line)))


asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
