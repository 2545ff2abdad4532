"""What a server object says of itself: its tools as `tools/list` answers them, its name, its version.

No framework is imported, for that takes seconds. What an object can do is asked of the object.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple, cast

# The registry's spelling of a field of MCP, where it is another one.
OURS = {"inputSchema": "input_schema", "outputSchema": "output_schema"}
# The fields that have rules of their own in the registry. It keeps every other as it comes, where it is not too old.
KNOWN = frozenset(
    ("name", "title", "description", "input_schema", "output_schema", "annotations", "category"),
)
# What the registry itself says of a tool: it refuses a tool that has them.
SAID_BY_REGISTRY = frozenset(("id", "created_at"))
# More pages than any server has: one whose pages never end must not hold the thread for ever.
MAX_PAGES = 200
# Names that frameworks give to servers without one. Some of them are new at every start.
UNNAMED = re.compile(r"(\w*FastMCP([A-Za-z]*-[0-9a-f]{4})?|mcp-server)", re.IGNORECASE)


class Unreadable(Exception):
    """The tools of this object cannot be read."""


def read(source: Any) -> Any | Awaitable[Any]:
    """The tools of a server object, a list or a function, as that holds them, or something to await for them.

    Raises Unreadable where the object is of no kind that is known here.
    """
    if (handler := _handler(source)) is not None:
        return _pages(handler)
    if _is_low(source):
        return []  # a server that has no tools does not know how to list them
    if callable(method := getattr(source, "list_tools", None)):
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
    """What `read` found, as it is sent: in the order of the list, one for each name.

    A tool that the registry would not take is among them: which that is, and why, is found out when it is sent. Raises
    Unreadable where something in it is no tool at all.
    """
    if isinstance(tools, Mapping):
        tools = cast("Mapping[str, Any]", tools).values()
    listed = list(cast("Iterable[Any]", tools))
    # Several versions of a tool have one name, and the newest is what clients see. What is newer, fastmcp knows.
    versions: Any = sys.modules.get("fastmcp.utilities.versions")
    if versions is not None and all(hasattr(tool, "to_mcp_tool") and hasattr(tool, "version") for tool in listed):
        listed = versions.dedupe_with_versions(listed, attrgetter("name"))
    found: dict[object, dict[str, Any]] = {}
    for place, tool in enumerate(listed):
        fields = _dumped(tool)
        name = fields.get("name")
        found.setdefault(name if isinstance(name, str) else place, fields)
    return list(found.values())


def _dumped(tool: Any) -> dict[str, Any]:
    if callable(convert := getattr(tool, "to_mcp_tool", None)):
        tool = convert()
    if callable(dump := getattr(tool, "model_dump", None)):
        try:
            tool = dump(mode="json", by_alias=True, exclude_none=True)
        except Exception:  # noqa: BLE001 - a value in it that is no JSON must not keep the other tools out
            tool = dump(by_alias=True, exclude_none=True)
    if not isinstance(tool, Mapping):
        raise Unreadable(f"{tool!r} is not a tool: a tool is a mapping with name and inputSchema")
    return sent(cast("Mapping[str, Any]", tool))


def sent(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as it is sent, of one as `tools/list` or the registry answers it: all of it, in the registry's spelling.

    Null is as good as absent where the registry has a rule; what it means in another field is not for us to say.
    """
    fields: dict[str, Any] = {}
    for name, value in tool.items():
        field = OURS.get(name, name)
        if field in SAID_BY_REGISTRY or (value is None and field in KNOWN):
            continue
        if field != name or field not in fields:  # of two spellings of a schema, MCP's goes before
            fields[field] = value
    return fields


# ------------------------------------------------------------------ the SDK's low level


# What is called for a page of the tools, with its cursor.
Handler = Callable[["str | None"], Awaitable[Any]]


def _is_low(server: Any) -> bool:
    """Whether this is a low-level server of the SDK."""
    return callable(getattr(server, "get_request_handler", None)) or isinstance(
        getattr(server, "request_handlers", None), dict
    )


def _handler(server: Any) -> Handler | None:
    """What answers `tools/list` on the wire, where that can be called without a request.

    Preferred to the public list of a high-level server of mcp 1, because fastmcp 2 filters and renames on the way
    out. What stands in a high-level server of mcp 2 may ask for the request; its public list is complete.
    """
    if callable(entry_of := getattr(server, "get_request_handler", None)):  # mcp 2
        entry = entry_of("tools/list")
        return None if entry is None else _asks_by_method(entry)
    for low in (getattr(server, "_mcp_server", None), server):  # mcp 1
        if isinstance(handlers := getattr(low, "request_handlers", None), dict):
            for kind, handler in cast("dict[type, Any]", handlers).items():
                if kind.__name__ == "ListToolsRequest":
                    return _asks_by_type(kind, handler)
    return None


def _asks_by_type(kind: Any, handler: Any) -> Handler:
    def call(cursor: str | None) -> Awaitable[Any]:
        return handler(kind(method="tools/list", **({"params": {"cursor": cursor}} if cursor else {})))

    return call


def _asks_by_method(entry: Any) -> Handler:
    def call(cursor: str | None) -> Awaitable[Any]:
        params = entry.params_type.model_validate({"cursor": cursor} if cursor else {})
        # There is no session, and no request: a handler that lists its tools needs none.
        return entry.handler(None, params)

    return call


async def _pages(call: Handler) -> list[Any]:
    """The tools of all pages."""
    tools: list[Any] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        result = await call(cursor)
        result = getattr(result, "root", result)  # mcp 1 wraps its results
        fields = cast("Mapping[str, Any]", result if isinstance(result, Mapping) else vars(result))
        tools += fields["tools"]
        cursor = fields.get("nextCursor") or fields.get("next_cursor")
        if not cursor:
            return tools
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
