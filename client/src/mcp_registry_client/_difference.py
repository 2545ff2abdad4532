"""What differs between two offers of a server: which tools, which words of their texts, which of their parameters.

An offer is what a registry answers of a server's tools: `tools`, `prompts`, `resources`, `templates`, `instructions`,
`server_info`, `protocol_versions` and `capabilities`, each as the server sent it. Nothing is left out here because it
is thought to be harmless, and texts and schemas of strangers cost no more than the bounds allow.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from mcp_registry_client._json import mapping, mappings, strings, text

# The lists of an offer: what one of each is called, and the field that tells it from the others.
LISTS: Final = {
    "tools": ("tool", "name"),
    "prompts": ("prompt", "name"),
    "resources": ("resource", "uri"),
    "templates": ("template", "uriTemplate"),
}
# What a server has one of.
SINGLE: Final = ("instructions", "server_info", "protocol_versions", "capabilities")
SCHEMAS: Final = ("inputSchema", "outputSchema")
# Of a schema so many parameters are told one by one, and so many levels; what lies beyond is compared as JSON.
MAX_PARAMETERS: Final = 500
MAX_LEVELS: Final = 8
# What references may add to a schema, in characters: each that means a long definition would be that definition again.
MAX_GROWTH: Final = 1 << 20
# difflib compares each word with all that are like it, and may do so once more for each place that differs. Of 25 pairs
# of random texts of 2 to 1,000 words, up to 7,000 long, none took more than 0.2 s within this bound (2026-12-01).
MAX_PAIRS: Final = 50_000
WORDS: Final = re.compile(r"\s+|\w+|[^\w\s]")
LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")
# Names that stand in a path as they are.
NAME: Final = re.compile(r"[\w-]+", re.ASCII)
# What says how a schema is written, and the definitions, of which those that are not used are told with the whole.
WRITING: Final = frozenset({"$schema", "$id", "$defs", "definitions"})


class Difference(NamedTuple):
    """One thing that differs, as it was and as it is; None: it was or is not there.

    `subject`: its name or URI; None for what a server has one of.
    """

    kind: str
    subject: str | None
    before: Any
    after: Any


class Words(NamedTuple):
    """A stretch of a text: in both (`=`), in the former only (`-`) or in the new one only (`+`)."""

    sign: Literal["=", "-", "+"]
    text: str


class Parameter(NamedTuple):
    """A value that a schema describes, by its path in it: filter.from, items[].id; "" for the whole.

    `facts`: everything else that the schema says of it, by keyword, as JSON.
    """

    type: str
    required: bool
    description: str
    facts: dict[str, str]


# ------------------------------------------------------------------ offers


def between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What differs between two offers. Of a list that is not known in one of them nothing is said."""
    found = [Difference("instructions", None, *pair) for pair in _pair(before, after, "instructions")]
    for field, (kind, key) in LISTS.items():
        if isinstance(before.get(field), list) and isinstance(after.get(field), list):
            was, now = (_by_name(mappings(offer[field]), key) for offer in (before, after))
            names = [*now, *(name for name in was if name not in now)]
            pairs = [(name[0], was.get(name), now.get(name)) for name in names]
            found += [Difference(kind, *each) for each in pairs if not is_same(each[1], each[2])]
    for field in SINGLE[1:]:
        found += [Difference(field, None, *pair) for pair in _pair(before, after, field)]
    return found


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, whatever the order of their keys; 1, 1.0 and true are three."""
    return _json(one) == _json(other)


def fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The fields in which two objects differ, in the order in which the new one has them."""
    return [field for field in {**after, **before} if not is_same(before.get(field), after.get(field))]


def _pair(before: Mapping[str, Any], after: Mapping[str, Any], field: str) -> Iterator[tuple[Any, Any]]:
    was, now = (offer.get(field) or None for offer in (before, after))
    if not is_same(was, now):
        yield was, now


def _by_name(items: Sequence[dict[str, Any]], key: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The items by name. A name that comes again is told apart by how often it has come before."""
    often: Counter[str] = Counter()
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for item in items:
        name = text(item.get(key))
        found[name, often[name]] = item
        often[name] += 1
    return found


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


# ------------------------------------------------------------------ texts


def words(before: str, after: str) -> list[Words]:
    """Which words of a text are others now. What is not `-` is the new text, what is not `+` the former.

    Texts that are long and unlike are compared line by line, and as a whole where that is too much as well.
    """
    for pattern in (WORDS, LINES):
        was, now = pattern.findall(before), pattern.findall(after)
        start = _common(was, now)
        end = _common(was[start:][::-1], now[start:][::-1])
        was_left, now_left = was[start : len(was) - end], now[start : len(now) - end]
        if _pairs(was_left, now_left) <= MAX_PAIRS:
            middle = list(_compared(was_left, now_left))
            break
    else:
        middle = [Words("-", "".join(was_left)), Words("+", "".join(now_left))]
    whole = [Words("=", "".join(was[:start])), *middle, Words("=", "".join(was[len(was) - end :]))]
    return [stretch for stretch in whole if stretch.text]


def _compared(was: list[str], now: list[str]) -> Iterator[Words]:
    matcher = difflib.SequenceMatcher(_is_filling, was, now, autojunk=False)
    for what, was_from, was_to, now_from, now_to in matcher.get_opcodes():
        if what == "equal":
            yield Words("=", "".join(was[was_from:was_to]))
        else:
            yield Words("-", "".join(was[was_from:was_to]))
            yield Words("+", "".join(now[now_from:now_to]))


def _is_filling(token: str) -> bool:
    """Whether it is a token that stands everywhere: what is between the words is no sign that two places are one."""
    return not token[0].isalnum() and "\n" not in token[1:]


def _pairs(was: list[str], now: list[str]) -> int:
    often = Counter(token for token in now if not _is_filling(token))
    return sum(number * often[token] for token, number in Counter(was).items() if token in often)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of their first items are the same."""
    for place, (was, now) in enumerate(zip(one, other)):  # noqa: B905 - they end where the shorter one does
        if was != now:
            return place
    return min(len(one), len(other))


# ------------------------------------------------------------------ schemas


def parameters(schema: Any) -> dict[str, Parameter]:
    """What a schema describes, by its path. Local references are followed, but for those that lead in a circle."""
    return _Reader(schema).read()


def kind_of(schema: Mapping[str, Any]) -> str:
    """The type of what a schema describes, in a word or two: string, list of number, string or null."""
    given = schema.get("type")
    types = [given] if isinstance(given, str) else strings(given)
    if types == ["array"]:
        item = mapping(schema.get("items"))
        return f"list of {item['type']}" if isinstance(item.get("type"), str) else "list"
    if types:
        return " or ".join(types)
    for key in ("anyOf", "oneOf"):
        variants = [text(variant.get("type")) or "..." for variant in mappings(schema.get(key))]
        if variants:
            return " or ".join(dict.fromkeys(variants))
    if isinstance(reference := schema.get("$ref"), str):
        return reference.rpartition("/")[2]
    return "one of a list" if "enum" in schema or "const" in schema else "anything"


class _Part(NamedTuple):
    """A value of a schema that is to be told. `above`: the references that were followed to it."""

    path: str
    schema: Any
    required: bool
    level: int
    above: tuple[str, ...] = ()


class _Reader:
    """A schema that is being read. What its bounds cut off is told as JSON, so that nothing of it is hidden."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._growth = MAX_GROWTH
        self._followed: set[str] = set()

    def read(self) -> dict[str, Parameter]:
        """All that the schema describes."""
        found: dict[str, Parameter] = {}
        left = [_Part("", self._root, required=False, level=0)]
        while left:
            part = self._meant(left.pop())
            inner = list(_inner(part)) if part.level < MAX_LEVELS else []
            if len(found) + len(left) + len(inner) >= MAX_PARAMETERS:
                inner = []
            node = mapping(part.schema)
            kind = kind_of(node) if isinstance(part.schema, dict) else "anything"
            facts = _facts(part.schema, is_inner_told=bool(inner))
            found[part.path] = Parameter(kind, part.required, text(node.get("description")), facts)
            left += reversed(inner)
        for key in ("$defs", "definitions"):
            defined = mapping(mapping(self._root).get(key))
            unused = {name: value for name, value in defined.items() if f"#/{key}/{name}" not in self._followed}
            if unused:
                found[""].facts[key] = _json(unused)
        return found

    def _meant(self, part: _Part) -> _Part:
        """The same with what its local reference means beside what stands there; as it is where that leads nowhere."""
        while isinstance(reference := mapping(part.schema).get("$ref"), str) and reference.startswith("#/"):
            target = self._target(reference)
            if reference in part.above or not isinstance(target, dict) or self._growth <= 0:
                break
            self._growth -= len(_json(target)) if reference in self._followed else 0
            self._followed.add(reference)
            beside = {key: value for key, value in part.schema.items() if key != "$ref"}
            merged = {**cast("dict[str, Any]", target), **beside}
            part = part._replace(schema=merged, above=(*part.above, reference))
        return part

    def _target(self, reference: str) -> Any:
        place = self._root
        for name in reference[2:].split("/"):
            place = mapping(place).get(name.replace("~1", "/").replace("~0", "~"))
        return place


def _inner(part: _Part) -> Iterator[_Part]:
    """The values inside of a value: the properties of an object, and what its list holds where that has any."""
    node = mapping(part.schema)
    required = strings(node.get("required"))
    begin = f"{part.path}." if part.path else ""
    for name, schema in mapping(node.get("properties")).items():
        # A name with a point in it would read as two.
        path = begin + (name if NAME.fullmatch(name) else _json(name))
        yield _Part(path, schema, name in required, part.level + 1, part.above)
    if _has_inner(node.get("items")):
        yield _Part(f"{part.path}[]", node["items"], required=False, level=part.level + 1, above=part.above)


def _facts(schema: Any, *, is_inner_told: bool) -> dict[str, str]:
    """What a schema says of a value beside what is told of it otherwise, as JSON."""
    if not isinstance(schema, dict):
        return {} if schema is None else {"schema": _json(schema)}
    node = cast("dict[str, Any]", schema)
    facts: dict[str, str] = {}
    for key, value in node.items():
        if key == "required" and is_inner_told and isinstance(value, list):
            named = mapping(node.get("properties"))
            value = [name for name in cast("list[Any]", value) if not isinstance(name, str) or name not in named]
        if value not in ({}, []) and not _is_told(node, key, is_inner_told=is_inner_told):
            facts[key] = _json(value)
    return facts


def _is_told(node: Mapping[str, Any], key: str, *, is_inner_told: bool) -> bool:
    """Whether what a schema says by a keyword is told otherwise: in a field of its parameter, or by those inside."""
    value = node[key]
    if key == "type":
        # What is no type stands here too.
        return isinstance(value, str) or (isinstance(value, list) and len(strings(value)) == len(value))
    if key == "description":
        return isinstance(value, str)
    if key == "properties":
        return is_inner_told and isinstance(value, dict)
    if key == "items":
        return is_inner_told and _has_inner(value)
    return key in WRITING or (key == "anyOf" and _is_of_types(value))


def _has_inner(items: Any) -> bool:
    """Whether what a list holds has more to tell than its type and its facts, which are told with the list."""
    return bool(mapping(items).keys() & {"properties", "$ref", "items"})


def _is_of_types(variants: Any) -> bool:
    """Whether variants are a type each and nothing else, which is told by the type of the value."""
    return all(variant.keys() == {"type"} and isinstance(variant["type"], str) for variant in mappings(variants))
