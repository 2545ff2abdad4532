"""What a server object says of itself: its tools as `tools/list` answers them, its name, its version.

No framework is imported, for that takes seconds. What an object can do is asked of the object.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

# What the registry keeps of a tool, by MCP's name and by its own. It refuses names that it does not know, so that a
# misspelt one is noticed; `_meta`, `icons` and `execution` are MCP's, and left out.
KEPT = {
    "name": "name",
    "title": "title",
    "description": "description",
    "inputSchema": "input_schema",
    "outputSchema": "output_schema",
    "annotations": "annotations",
    "input_schema": "input_schema",
    "output_schema": "output_schema",
    "category": "category",
}
# More pages than any server has: one whose pages never end must not hold the thread for ever.
MAX_PAGES = 200
# Names that frameworks give to servers without one. Some of them are new at every start.
UNNAMED = re.compile(r"(\w*FastMCP(-[0-9a-f]{4})?|mcp-server)", re.IGNORECASE)


class Unreadable(Exception):
    """The tools of this object cannot be read."""


def read(source: Any) -> Any | Awaitable[Any]:
    """The tools of a server object, a list or a function, as that holds them, or something to await for them.

    Raises Unreadable where the object is of no kind that is known here.
    """
    if (handler := _handler(source)) is not None:
        return _pages(handler)
    for name in ("list_tools", "get_tools"):
        if callable(method := getattr(source, name, None)):
            return method()
    # awslabs.mcp-lambda-handler keeps a mapping of names to what it answers.
    tools = getattr(source, "tools", None)
    if isinstance(tools, (Mapping, list, tuple)):
        return cast("Any", tools)
    if isinstance(source, (Mapping, Iterable)):
        return cast("Any", source)
    if callable(source):
        return source()
    raise Unreadable(f"The tools of a {type(source).__qualname__} cannot be read: give them as tools=[...]")


def dumped(tools: Any) -> list[dict[str, Any]]:
    """What `read` found, as the registry keeps it: in the order of the list, one for each name.

    Raises Unreadable where something in it is no tool.
    """
    if isinstance(tools, Mapping):
        tools = list(cast("Mapping[str, Any]", tools).values())
    found: dict[str, tuple[list[int], dict[str, Any]]] = {}
    for tool in cast("Iterable[Any]", tools):
        version, fields = _version(tool), _dumped(tool)
        # Several versions of a tool have one name, and the newest is what clients see.
        if fields["name"] not in found or version > found[fields["name"]][0]:
            found[fields["name"]] = version, fields
    return [fields for _, fields in found.values()]


def _version(tool: Any) -> list[int]:
    """The numbers in the version of a tool; none where it has no version."""
    return [int(number) for number in re.findall(r"\d+", str(getattr(tool, "version", None) or ""))]


def _dumped(tool: Any) -> dict[str, Any]:
    if callable(convert := getattr(tool, "to_mcp_tool", None)):
        # Where a server is mounted in another, the key is the name that clients see.
        tool = convert(name=getattr(tool, "key", None) or tool.name) if _has_plain_key(tool) else convert()
    if callable(dump := getattr(tool, "model_dump", None)):
        tool = dump(mode="json", by_alias=True, exclude_none=True)
    if not isinstance(tool, Mapping) or "name" not in tool:
        raise Unreadable(f"{tool!r} is not a tool: a tool is a mapping with name and inputSchema")
    fields = cast("Mapping[str, Any]", tool)
    return {KEPT[name]: value for name, value in fields.items() if name in KEPT and value is not None}


def _has_plain_key(tool: Any) -> bool:
    """Whether the tool's key is a name, as in fastmcp 2; later ones write `tool:name@version`."""
    key = getattr(tool, "key", None)
    return isinstance(key, str) and ":" not in key


# ------------------------------------------------------------------ the SDK's low level


class _Handler(NamedTuple):
    """What answers `tools/list`, and how it is asked for a page."""

    call: Callable[[str | None], Awaitable[Any]]


def _handler(server: Any) -> _Handler | None:
    """What answers `tools/list` on the wire, where that can be called without a request.

    Preferred to the public list of a high-level server of mcp 1, because fastmcp 2 filters and renames on the way
    out. What stands in a high-level server of mcp 2 may ask for the request; its public list is complete.
    """
    if callable(entry_of := getattr(server, "get_request_handler", None)):  # mcp 2
        entry = entry_of("tools/list")
        return None if entry is None else _Handler(_asks_by_method(entry))
    for low in (getattr(server, "_mcp_server", None), server):  # mcp 1
        if isinstance(handlers := getattr(low, "request_handlers", None), dict):
            for kind, handler in cast("dict[type, Any]", handlers).items():
                if kind.__name__ == "ListToolsRequest":
                    return _Handler(_asks_by_type(kind, handler))
    return None


def _asks_by_type(kind: Any, handler: Any) -> Callable[[str | None], Awaitable[Any]]:
    def call(cursor: str | None) -> Awaitable[Any]:
        return handler(kind(method="tools/list", **({"params": {"cursor": cursor}} if cursor else {})))

    return call


def _asks_by_method(entry: Any) -> Callable[[str | None], Awaitable[Any]]:
    def call(cursor: str | None) -> Awaitable[Any]:
        params = entry.params_type.model_validate({"cursor": cursor} if cursor else {})
        # There is no session, and no request: a handler that lists its tools needs none.
        return entry.handler(None, params)

    return call


async def _pages(handler: _Handler) -> list[Any]:
    return [tool async for tool in _walk(handler)]


async def _walk(handler: _Handler) -> AsyncIterator[Any]:
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        result = await handler.call(cursor)
        result = getattr(result, "root", result)  # mcp 1 wraps its results
        fields = cast("Mapping[str, Any]", result if isinstance(result, Mapping) else vars(result))
        for tool in fields["tools"]:
            yield tool
        cursor = fields.get("nextCursor") or fields.get("next_cursor")
        if not cursor:
            return
    raise Unreadable(f"The list of tools has more than {MAX_PAGES} pages")


# ------------------------------------------------------------------ what else a server says


class Facts(NamedTuple):
    """What a server object says of itself besides its tools."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    version: str | None = None
    website_url: str | None = None


def facts(server: Any) -> Facts:
    """What an object says of itself. What it doesn't say, or says only of its framework, is None."""
    name = _text(server, "name")
    version = _text(server, "version")
    fastmcp = sys.modules.get("fastmcp")
    if fastmcp is not None and version == getattr(fastmcp, "__version__", None):
        version = None  # fastmcp names its own where the server has none
    return Facts(
        name=None if name is None or UNNAMED.fullmatch(name) else name,
        title=_text(server, "title"),
        description=_text(server, "description") or _text(server, "instructions"),
        version=version,
        website_url=_text(server, "website_url"),
    )


def _text(server: Any, attribute: str) -> str | None:
    value = getattr(server, attribute, None)
    return value.strip() or None if isinstance(value, str) else None
