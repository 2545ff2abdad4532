"""Fingerprints: has what a server offers changed, and in which sense?

Three digests of a tool, SHA-256 over canonical JSON, from the widest to the narrowest: `raw`, of the object as it came;
`prompt`, of what a model reads and a client decides by; `contract`, of that without any text. SDKs write one schema in
several notations, from one release to the next and from one protocol to the other: of 204 tools in the old and the new
release of 16 packages 179 differ in `raw`, 139 in `prompt` and 70 in `contract`.

Nothing is normalised in a text: an invisible character is a change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from mcp_registry.catalogue import canonical

# What is of a transport or of an SDK, and not of the tool.
INCIDENTAL: Final = frozenset({"_meta", "execution"})
# What a model reads, and a client decides by.
READ: Final = ("name", "title", "description", "annotations", "icons", "inputSchema", "outputSchema")
SCHEMAS: Final = frozenset({"inputSchema", "outputSchema"})
# Notation of a schema: what says nothing of the values that are valid.
NOTATION: Final = frozenset({"$schema", "$id", "$comment", "title", "examples", "$defs", "definitions"})
# In these the keys are names of the schema's author, not words of JSON Schema.
NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
# In these there are values, not schemas.
VALUES: Final = frozenset({"const", "default", "enum", "required", "type", "dependentRequired"})
UNORDERED: Final = frozenset({"required", "type", "enum"})
TEXTS: Final = frozenset({"title", "description", "icons"})
# Thirty definitions of which each names the next twice would be a billion of the last. Beyond so many objects, and ten
# for each that the schema has by itself, a reference stays as it is.
MAX_OBJECTS: Final = 1_000
MAX_GROWTH: Final = 10


class Digests(NamedTuple):
    """The digests of one tool, 32 bytes each."""

    raw: bytes
    prompt: bytes
    contract: bytes


def fingerprint(tool: Mapping[str, Any]) -> Digests:
    """The digests of a tool as `tools/list` answers it. Raises ValueError where it holds NaN or half a character."""
    raw = _dropped({key: value for key, value in tool.items() if key not in INCIDENTAL})
    prompt = {key: raw[key] for key in READ if key in raw}
    for key in SCHEMAS & prompt.keys():
        prompt[key] = _Schema(prompt[key]).plain()
    contract = {key: _untold(value) if key in SCHEMAS else value for key, value in prompt.items() if key not in TEXTS}
    if isinstance(annotations := contract.get("annotations"), dict):
        # The title of annotations is a text like that of the tool.
        hints = cast("dict[str, Any]", annotations)
        contract["annotations"] = {key: value for key, value in hints.items() if key not in TEXTS}
    return Digests(_digest(raw), _digest(prompt), _digest(contract))


def listing(items: Iterable[Mapping[str, Any]]) -> bytes:
    """The digest of a list of prompts, resources or templates, in the order in which the server has them."""
    return _digest([_dropped({key: value for key, value in item.items() if key != "_meta"}) for item in items])


def tools(digests: Sequence[Digests]) -> Digests:
    """The digests of a list of tools. The order is the server's: it is what a model reads."""
    return Digests(*(hashlib.sha256(b"".join(one[place] for one in digests)).digest() for place in range(3)))


def text(words: str | None) -> bytes | None:
    """The digest of a text, as of a server's instructions. Raises ValueError where it holds half a character."""
    return None if words is None else _digest(words)


def _digest(value: Any) -> bytes:
    return canonical.digest(value, plain=canonical.survey(value).plain)


def _dropped(value: Any) -> Any:
    """The same without null and "" in its objects, which SDKs write or leave out."""
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return {key: _dropped(item) for key, item in found.items() if item is not None and item != ""}
    if isinstance(value, list):
        return [_dropped(item) for item in cast("list[Any]", value)]
    return value


class _Schema:
    """A schema that is being taken out of its notation."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._left = MAX_OBJECTS + MAX_GROWTH * _objects(schema)

    def plain(self) -> Any:
        """The schema with its local references inlined, and without what is notation only."""
        return self._plain(self._root, ())

    def _plain(self, schema: Any, above: tuple[str, ...]) -> Any:
        """`above`: the references that are being inlined around it; one of them again is a circle, and stays."""
        if isinstance(schema, list):
            return [self._plain(item, above) for item in cast("list[Any]", schema)]
        if not isinstance(schema, dict):
            return schema
        found = cast("dict[str, Any]", schema)
        self._left -= 1
        reference = found.get("$ref")
        if isinstance(reference, str) and reference not in above and self._left > 0:
            target = self._target(reference)
            if isinstance(target, dict):
                beside = {key: value for key, value in found.items() if key != "$ref"}
                return self._plain({**cast("dict[str, Any]", target), **beside}, (*above, reference))
        plain: dict[str, Any] = {}
        for key, value in found.items():
            if key in NOTATION or (key == "additionalProperties" and isinstance(value, bool)):
                continue
            if key == "const":
                plain["enum"] = [value]
            elif key in UNORDERED and isinstance(value, list):
                plain[key] = sorted(cast("list[Any]", value), key=lambda item: canonical.canonical(item, plain=False))
            elif key in VALUES:
                plain[key] = value
            elif key in NAMED and isinstance(value, dict):
                named = cast("dict[str, Any]", value)
                plain[key] = {name: self._plain(item, above) for name, item in named.items()}
            else:
                plain[key] = self._plain(value, above)
        return plain

    def _target(self, reference: str) -> Any:
        """What a local reference means (RFC 6901 in a fragment); None where it leads elsewhere or nowhere."""
        if not reference.startswith("#/"):
            return None
        place: Any = self._root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(place, dict) or name not in place:
                return None
            place = cast("dict[str, Any]", place)[name]
        return place


def _objects(value: Any) -> int:
    """How many objects there are in a JSON value."""
    count, level = 0, [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            count += 1
            level += cast("dict[str, Any]", item).values()
        elif isinstance(item, list):
            level += cast("list[Any]", item)
    return count


def _untold(schema: Any) -> Any:
    """A plain schema without its texts."""
    if isinstance(schema, list):
        return [_untold(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = cast("dict[str, Any]", schema)
    told: dict[str, Any] = {}
    for key, value in found.items():
        if key in VALUES:
            told[key] = value
        elif key in NAMED and isinstance(value, dict):
            told[key] = {name: _untold(item) for name, item in cast("dict[str, Any]", value).items()}
        elif key not in TEXTS:
            told[key] = _untold(value)
    return told
