"""What the parts of an answer have to be for a stock client to read it: one table for each message.

Measured by giving each part values of every kind (2026-11-30): `mcp` 1.30 and 2.3 for Python, the TypeScript SDK 1.32
and 2.4. What one of them takes is allowed, part by part; of legacy messages that is mostly what `mcp` 1.30 takes.
What is not named here may be anything. The client has the same tables (`mcp_registry_client._kinds`); the rows
`kind-...` of tests/shapes.py hold both to each other and to the stock clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast


class Kind(NamedTuple):
    """What a value that has no parts may be, and in which words that is said."""

    words: str
    takes: Callable[[Any], bool]


def of(words: str, *types: type) -> Kind:
    """Values of these types."""

    def takes(value: Any) -> bool:
        return isinstance(value, types)

    return Kind(words, takes)


def one_of(*texts: str) -> Kind:
    """One of these texts."""

    def takes(value: Any) -> bool:
        return isinstance(value, str) and value in texts

    return Kind(" or ".join(texts), takes)


# How pydantic reads a flag: by these words too, and by the numbers.
FLAGS: Final = frozenset(("0", "1", "f", "t", "n", "y", "no", "yes", "off", "on", "false", "true"))


def _is_flag(value: Any) -> bool:
    return value.lower() in FLAGS if isinstance(value, str) else value in (0, 1)


def _is_whole(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.removeprefix("-").isdigit()
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


TEXT: Final = of("a string", str)
OBJECT: Final = of("an object", dict)
# An empty object as PHP writes it is a list; where nothing is looked for within, the TypeScript SDK 1.x takes one.
LOOSE: Final = of("an object", dict, list)
FLAG: Final = Kind("true or false", _is_flag)
WHOLE: Final = Kind("a whole number", _is_whole)

# A table is an object: each part by its name, with `?` where it may be missing or null. `*` is every part, whatever its
# name. A list has the one kind that its items are of.
Table = dict[str, Any]
ICONS: Final[list[Table]] = [{"src": TEXT, "mimeType?": TEXT, "sizes?": [TEXT]}]
NAMED: Final[Table] = {"name": TEXT, "title?": TEXT, "icons?": ICONS}

_CHANGES: Final[Table] = {"listChanged?": FLAG}
_OFFERS: Final[Table] = {
    "tools?": _CHANGES,
    "prompts?": _CHANGES,
    "resources?": {"subscribe?": FLAG, "listChanged?": FLAG},
}

INITIALIZE: Final[Table] = {
    "protocolVersion": TEXT,
    "capabilities": {
        **_OFFERS,
        "logging?": LOOSE,
        "completions?": LOOSE,
        "experimental?": {"*": LOOSE},
        "tasks?": {"list?": LOOSE, "cancel?": LOOSE, "requests?": {"tools?": {"call?": LOOSE}}},
    },
    "serverInfo": {**NAMED, "version": TEXT, "websiteUrl?": TEXT},
    "instructions?": TEXT,
    "_meta?": OBJECT,
}
DISCOVER: Final[Table] = {
    "supportedVersions": [TEXT],
    "capabilities": {
        **_OFFERS,
        "logging?": OBJECT,
        "completions?": OBJECT,
        "experimental?": {"*": OBJECT},
        "extensions?": {"*": OBJECT},
    },
    "instructions?": TEXT,
    "_meta?": OBJECT,
}

_TOOL: Final[Table] = {
    **NAMED,
    "description?": TEXT,
    "annotations?": {
        "title?": TEXT,
        "readOnlyHint?": FLAG,
        "destructiveHint?": FLAG,
        "idempotentHint?": FLAG,
        "openWorldHint?": FLAG,
    },
    "_meta?": OBJECT,
}
_PAGE: Final[Table] = {"nextCursor?": TEXT, "_meta?": OBJECT}
_FRESH: Final[Table] = {"resultType": TEXT, "ttlMs": WHOLE, "cacheScope": one_of("public", "private")}
_TOOLS: Final[Table] = {
    **_PAGE,
    "tools": [
        {
            **_TOOL,
            "inputSchema": OBJECT,
            "outputSchema?": OBJECT,
            "execution?": {"taskSupport?": one_of("forbidden", "optional", "required")},
        }
    ],
}
_MODERN_TOOLS: Final[Table] = {
    **_PAGE,
    **_FRESH,
    "tools": [
        {
            **_TOOL,
            "inputSchema": {"type": one_of("object"), "$schema?": TEXT},
            "outputSchema?": {"$schema?": TEXT},
        }
    ],
}
# On the other lists no verdict depends: of these is checked what makes an item one.
_ITEM: Final[Table] = {"title?": TEXT, "description?": TEXT, "annotations?": OBJECT, "_meta?": OBJECT}
_PROMPTS: Final[Table] = {**_PAGE, "prompts": [{**_ITEM, "name": TEXT}]}
_RESOURCES: Final[Table] = {**_PAGE, "resources": [{**_ITEM, "name": TEXT, "uri": TEXT}]}
_TEMPLATES: Final[Table] = {**_PAGE, "resourceTemplates": [{**_ITEM, "name": TEXT, "uriTemplate": TEXT}]}


def page(key: str, *, modern: bool) -> Table:
    """The table of a page of a list, by the name that its items have in it."""
    if key == "tools":
        return _MODERN_TOOLS if modern else _TOOLS
    return {"prompts": _PROMPTS, "resources": _RESOURCES, "resourceTemplates": _TEMPLATES}[key]


def fault(value: Any, kind: Table | list[Any] | Kind, place: str = "") -> str | None:
    """What is of another kind than a client reads, in a few words without the value; None where nothing is.

    `tools[0].name is missing`, `capabilities is not an object`.
    """
    if isinstance(kind, Kind):
        return None if kind.takes(value) else f"{place} is not {kind.words}"
    if isinstance(kind, list):
        if not isinstance(value, list):
            return f"{place} is not a list"
        found = (fault(item, kind[0], f"{place}[{n}]") for n, item in enumerate(cast("list[Any]", value)))
        return next((words for words in found if words), None)
    if not isinstance(value, dict):
        return f"{place} is not an object"
    parts = cast("dict[str, Any]", value)
    for name, wanted in kind.items():
        if name == "*":
            found = (fault(part, wanted, f"{place}.*") for part in parts.values())
            words = next((words for words in found if words), None)
        else:
            key = name.removesuffix("?")
            within = f"{place}.{key}" if place else key
            part = parts.get(key)
            if name != key and part is None:
                continue
            words = fault(part, wanted, within) if key in parts else f"{within} is missing"
        if words:
            return words
    return None
