"""Fingerprints: has what a server offers changed, and in which sense?

Three digests of a tool, SHA-256 over canonical JSON, from the widest to the narrowest: `raw`, of the object as it came;
`prompt`, of what a model reads and a client decides by; `contract`, of that without any text. SDKs write one schema in
several notations, from one release to the next and from one protocol to the other. `prompt` has one form for all of
them; `python -m benchmarks grades` says how often that matters.

Nothing is normalised in a text: an invisible character is a change. Nothing that a model reads is taken for notation
either: a title that says more than the name, an example, a comment, or a definition that nothing refers to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

from mcp_registry.catalogue import canonical

# What is of a transport or of an SDK, and not of the tool.
INCIDENTAL: Final = frozenset({"_meta", "execution"})
# What a model reads, and a client decides by.
READ: Final = ("name", "title", "description", "annotations", "icons", "inputSchema", "outputSchema")
SCHEMAS: Final = frozenset({"inputSchema", "outputSchema"})
TEXTS: Final = frozenset({"title", "description", "icons"})
# In these the keys are names of the schema's author, not words of JSON Schema.
NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies", "definitions"})
# In these there are values, not schemas.
VALUES: Final = frozenset({"const", "default", "enum", "examples", "required", "type", "dependentRequired"})
UNORDERED: Final = frozenset({"required", "type", "enum"})
ALTERNATIVES: Final = frozenset({"anyOf", "oneOf", "allOf"})
# What says nothing of the values that are valid. Of `$defs` these are the definitions that nothing refers to; where
# references could not be inlined, all of them stand under `definitions` instead.
UNTOLD: Final = TEXTS | {"$comment", "$defs", "$id", "examples"}
DIALECT: Final = re.compile(r"https?://json-schema\.org/[a-z0-9/.-]*#?")
# What SDKs put behind the name of a tool or function, for a title of its schema.
ENDINGS: Final = ("", "arguments", "args", "input", "output", "params", "request", "response", "result", "schema")
SEPARATORS: Final = str.maketrans("", "", " _-.")
# Thirty definitions of which each names the next twice would be a billion of the last. Beyond so many values and
# characters, and ten for each that the schema has by itself, no reference is inlined.
MAX_SIZE: Final = 10_000
MAX_GROWTH: Final = 10
# How deep a schema may become by inlining. A message has 64 levels at most; a chain of definitions has no such end.
MAX_DEPTH: Final = 100
# What an SDK writes for any integer: those that JavaScript holds exactly.
SAFE: Final = {"maximum": 2**53 - 1, "minimum": 1 - 2**53}
# By what the items of each list of an offer are known.
KEYS: Final = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}


class Digests(NamedTuple):
    """The digests of one tool, 32 bytes each."""

    raw: bytes
    prompt: bytes
    contract: bytes


def fingerprint(tool: Mapping[str, Any]) -> Digests:
    """The digests of a tool as `tools/list` answers it. Raises ValueError where it holds NaN or half a character."""
    read = prompt(tool)
    return Digests(digest(_raw(tool)), digest(read), digest(contract(read)))


def prompt(tool: Mapping[str, Any]) -> dict[str, Any]:
    """What a model reads of a tool and a client decides by, in one notation.

    Raises ValueError where the tool holds what is no JSON.
    """
    raw = _raw(tool)
    read = {key: raw[key] for key in READ if key in raw}
    if read.get("annotations") == {}:
        del read["annotations"]
    name = read.get("name")
    names = _titles(name) if isinstance(name, str) else ()
    for key in SCHEMAS & read.keys():
        read[key] = _Schema(read[key]).plain(names)
    if isinstance(asked := read.get("inputSchema"), dict) and asked.get("type") == "object":
        del asked["type"]  # which arguments are, whether a schema says so or not
    return read


def contract(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """What `prompt` returned of a tool, without any text."""
    told = {key: untold(value) if key in SCHEMAS else value for key, value in prompt.items() if key not in TEXTS}
    if isinstance(annotations := told.get("annotations"), dict):
        # The title of annotations is a text like that of the tool.
        hints = cast("dict[str, Any]", annotations)
        del told["annotations"]
        if gated := {key: value for key, value in hints.items() if key not in TEXTS}:
            told["annotations"] = gated
    return told


def listing(items: Iterable[Mapping[str, Any]]) -> bytes:
    """The digest of a list of prompts, resources or templates, in whichever order the server has them."""
    found = [_dropped({key: value for key, value in item.items() if key != "_meta"}) for item in items]
    return hashlib.sha256(b"".join(sorted(map(digest, found)))).digest()


def tools(digests: Sequence[Digests]) -> Digests:
    """The digests of a list of tools, in whichever order the server has them: the SDK for Go has another each time."""
    return Digests(*(hashlib.sha256(b"".join(sorted(one[place] for one in digests))).digest() for place in range(3)))


def text(words: str | None) -> bytes | None:
    """The digest of a text, as of a server's instructions. Raises ValueError where it holds half a character."""
    return None if words is None else digest(words)


def whole(offer: Mapping[str, Any]) -> bytes:
    """The digest of all that a server offers, nothing dropped, its lists in the order of their names.

    `offer` has the parts that `mcp_registry.ledger.grades.Offer` has. Raises ValueError where it holds what is no JSON.
    """
    sorted_lists = {
        part: sorted(cast("list[Any]", offer[part]), key=lambda item, key=key: _place(item, key))
        for part, key in KEYS.items()
        if isinstance(offer.get(part), list)
    }
    return digest({**offer, **sorted_lists})


def digest(value: Any) -> bytes:
    """SHA-256 over the canonical form of a JSON value. Raises ValueError for what is none."""
    return canonical.digest(value, plain=canonical.survey(value).plain)


def untold(schema: Any) -> Any:
    """A schema of `prompt` without its texts, and without an order of its alternatives."""
    if isinstance(schema, list):
        return [untold(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = cast("dict[str, Any]", schema)
    told: dict[str, Any] = {}
    for key, value in found.items():
        if key in UNTOLD:
            continue
        if key in VALUES:
            told[key] = value
        elif key in NAMED and isinstance(value, dict):
            told[key] = {name: untold(item) for name, item in cast("dict[str, Any]", value).items()}
        elif key in ALTERNATIVES and isinstance(value, list):
            told[key] = sorted((untold(item) for item in cast("list[Any]", value)), key=digest)
        else:
            told[key] = untold(value)
    return told


def _titles(name: str) -> tuple[str, ...]:
    """What SDKs call the schema of a tool: after it, or after its function, which may lack the name's first words."""
    starts = [0, *(place + 1 for place, character in enumerate(name[:64]) if character in "_.-")]
    return tuple(f"{name[start:]}{ending}" for start in starts for ending in ENDINGS)


def _written(value: Any) -> bytes:
    return canonical.canonical(value, plain=canonical.survey(value).plain)


def _place(item: Any, key: str) -> tuple[str, bytes]:
    """The place of an item in its list. Two of one name are told apart by the rest."""
    name = cast("dict[str, Any]", item).get(key) if isinstance(item, dict) else None
    return name if isinstance(name, str) else "", digest(item)


def _raw(tool: Mapping[str, Any]) -> dict[str, Any]:
    return _dropped({key: value for key, value in tool.items() if key not in INCIDENTAL})


def _dropped(value: Any) -> Any:
    """The same without null and "" in its objects, which SDKs write or leave out. As the one valid value they stay."""
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return {
            key: _dropped(item) for key, item in found.items() if (item is not None and item != "") or key == "const"
        }
    if isinstance(value, list):
        return [_dropped(item) for item in cast("list[Any]", value)]
    return value


class _Kept(Exception):
    """The references of a schema cannot be inlined: what comes of it is too large, or one of them leads away."""


class _Schema:
    """A schema that is being taken out of its notation."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._inlines = True
        self._sizes: dict[int, int] = {}
        self._left = MAX_SIZE + MAX_GROWTH * self._size(schema)
        self._inlined: set[int] = set()
        self._definitions: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def plain(self, names: tuple[str, ...]) -> Any:
        """The schema with its local references inlined, and without what is notation only.

        `names`: what its own title may be that says nothing new. All references are inlined or none. With some of them
        inlined, a text could change in a definition that nobody looks at.
        """
        try:
            plain = self._plain(self._root, names, ("#",), 0)
            while self._definitions:
                self._keep_unused()
        except _Kept:
            self._inlines = False
            plain = self._plain(self._root, names, ("#",), 0)
        return plain

    def _keep_unused(self) -> None:
        """Put the definitions that were not read anywhere else back to where they stood."""
        found, self._definitions = self._definitions, []
        unused = [
            (place, {name: item for name, item in definitions.items() if id(item) not in self._inlined})
            for place, definitions in found
        ]
        for place, definitions in unused:
            for name, item in definitions.items():
                place.setdefault("$defs", {})[name] = self._plain(item, (name,), ("#",), 0)

    def _plain(self, schema: Any, names: tuple[str, ...], above: tuple[str, ...], depth: int) -> Any:
        """`above`: the references that are being inlined around it; one of them again is a circle, and stays."""
        if isinstance(schema, list):
            return [self._plain(item, names, above, depth + 1) for item in cast("list[Any]", schema)]
        if not isinstance(schema, dict):
            return schema
        found = cast("dict[str, Any]", schema)
        if self._inlines and depth > MAX_DEPTH:
            raise _Kept
        reference = found.get("$ref")
        if self._inlines and isinstance(reference, str) and reference not in above:
            return self._referred(found, reference, names, above, depth)
        if isinstance(only := found.get("allOf"), list) and len(cast("list[Any]", only)) == 1:
            # One SDK writes what stands beside a reference so, and its next release beside it.
            inner = cast("list[Any]", only)[0]
            beside = {key: value for key, value in found.items() if key != "allOf"}
            if isinstance(inner, dict) and not inner.keys() & beside.keys():
                return self._plain({**cast("dict[str, Any]", inner), **beside}, names, above, depth + 1)
        plain: dict[str, Any] = {}
        for key, value in found.items():
            if key in ("$defs", "definitions") and isinstance(value, dict):
                self._defined(plain, cast("dict[str, Any]", value), above, depth)
            elif not _is_notation(key, value, names):
                word, told = self._told(key, value, names, above, depth)
                plain[word] = told
        if plain.get("type") == "integer":
            for outside, inside, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
                if type(plain.get(outside)) is int and inside not in plain:
                    plain[inside] = plain.pop(outside) + step
        return plain

    def _told(
        self, key: str, value: Any, names: tuple[str, ...], above: tuple[str, ...], depth: int
    ) -> tuple[str, Any]:
        """One keyword in its one notation."""
        if key == "const":
            return "enum", [value]
        if key in UNORDERED and isinstance(value, list):
            found = sorted(cast("list[Any]", value), key=_written)
            return key, found[0] if key == "type" and len(found) == 1 else found
        if key in VALUES:
            return key, value
        if key in NAMED and isinstance(value, dict):
            named = cast("dict[str, Any]", value)
            return key, {name: self._plain(item, (name,), above, depth + 1) for name, item in named.items()}
        return key, self._plain(value, names if key in ALTERNATIVES else (), above, depth + 1)

    def _defined(self, plain: dict[str, Any], definitions: dict[str, Any], above: tuple[str, ...], depth: int) -> None:
        """Note definitions for later, when it is known which of them are read elsewhere; or keep all of them."""
        if self._inlines:
            self._definitions.append((plain, definitions))
        else:
            kept = plain.setdefault("definitions", {})
            kept |= {name: self._plain(item, (name,), above, depth + 1) for name, item in definitions.items()}

    def _referred(
        self, found: dict[str, Any], reference: str, names: tuple[str, ...], above: tuple[str, ...], depth: int
    ) -> Any:
        """A schema with a reference, as what it refers to together with what stands beside it."""
        target = self._target(reference)
        if not isinstance(target, dict):
            raise _Kept
        self._left -= self._size(target)
        if self._left < 0:
            raise _Kept
        meant = cast("dict[str, Any]", target)
        beside = {key: value for key, value in found.items() if key != "$ref"}
        both = meant.keys() & beside.keys()
        if not both:
            # Else a text of the definition is hidden here, and read by a model all the same.
            self._inlined.add(id(meant))
        if both <= UNTOLD | {"default"}:
            merged = {**meant, **beside}
        else:
            others = beside.get("allOf", [])
            if not isinstance(others, list):
                raise _Kept
            merged = {**beside, "allOf": [meant, *cast("list[Any]", others)]}
        called = unquote(reference).rpartition("/")[2]
        return self._plain(merged, (*names, called), (*above, reference), depth + 1)

    def _target(self, reference: str) -> Any:
        """What a local reference means (RFC 6901 in a fragment); None where it leads elsewhere or nowhere."""
        if not reference.startswith("#/"):
            return None
        place: Any = self._root
        for part in unquote(reference[2:]).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(place, dict) and name in place:
                place = cast("dict[str, Any]", place)[name]
            elif isinstance(place, list) and name.isdecimal() and len(name) < 6 and int(name) < len(place):
                place = cast("list[Any]", place)[int(name)]
            else:
                return None
        return place

    def _size(self, value: Any) -> int:
        """How many values and characters there are in a JSON value."""
        if id(value) not in self._sizes:
            size, level = 0, [value]
            while level:
                item = level.pop()
                size += 1
                if isinstance(item, str):
                    size += len(item)
                elif isinstance(item, dict):
                    size += sum(map(len, cast("dict[str, Any]", item)))
                    level += cast("dict[str, Any]", item).values()
                elif isinstance(item, list):
                    level += cast("list[Any]", item)
            self._sizes[id(value)] = size
        return self._sizes[id(value)]


def _is_notation(key: str, value: Any, names: tuple[str, ...]) -> bool:
    """Whether a keyword says nothing, neither of the values that are valid nor to whoever reads it."""
    if key == "title" and isinstance(value, str):
        said = value.translate(SEPARATORS).casefold()
        return any(said == name.translate(SEPARATORS).casefold() for name in names)
    if key == "$schema":
        return isinstance(value, str) and DIALECT.fullmatch(value) is not None
    if key == "additionalProperties":
        return isinstance(value, bool) or value == {}
    if key in SAFE:
        return not isinstance(value, bool) and value == SAFE[key]
    return key in ("required", "properties") and value in ([], {})
