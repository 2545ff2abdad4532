"""Two JSON Schemas of one tool: which calls, or which answers, are valid now that were not, and the other way round.

What they are compared in is the form of `catalogue.fingerprint.prompt`. No schema is solved here: each keyword is
compared by itself, and where that does not tell which way a change goes, it is taken for one that breaks.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple, cast

from mcp_registry.catalogue import fingerprint

LOWER: Final = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"}
UPPER: Final = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"}
# What narrows where it is there, and is not compared by its value.
CONDITIONS: Final = {"pattern", "format", "multipleOf", "uniqueItems", "contentEncoding", "contentMediaType"} | {
    *("propertyNames", "contains", "not", "dependentRequired", "dependentSchemas", "dependencies", "if"),
}
# What is true where it is left out.
OPEN: Final = {"items", "unevaluatedProperties", "unevaluatedItems", "additionalItems"}
# What decides about validity, and not by itself which way.
ENTANGLED: Final = {"then", "else", "contentSchema", "prefixItems", "patternProperties", "additionalProperties"} | {
    *("definitions", "$ref", "$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "$vocabulary"),
}
HANDLED: Final = {"type", "enum", "properties", "required", "anyOf", "oneOf", "allOf", "default"}
TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
PLAIN: Final = re.compile(r"[A-Za-z0-9_.$\[\]/-]{1,80}")
MAX_NAME: Final = 80


class Finding(NamedTuple):
    """One thing that changed, its grade and our sentence about it."""

    grade: str
    reason: str


class Direction(NamedTuple):
    """What it means for a schema that fewer values are valid, and that more are."""

    word: str  # what a property is called
    whole: str
    narrower: str
    wider: str


INPUT: Final = Direction("parameter", "input", "breaking", "compatible")
# Of a result less can be expected where more is valid.
OUTPUT: Final = Direction("field", "output", "compatible", "breaking")


def called(name: str) -> str:
    """A stranger's name in our sentence: ASCII, cut, and in quotes where it could be taken for words of ours."""
    if PLAIN.fullmatch(name):
        return name
    return json.dumps(name[:MAX_NAME] + ("..." if len(name) > MAX_NAME else ""))


def compare(before: Any, after: Any, direction: Direction) -> list[Finding]:
    """What changed from one schema of a tool to the next. Either is None where the tool has none."""
    if fingerprint.digest(before) == fingerprint.digest(after):
        return []
    if before is None or after is None:
        grade = direction.narrower if before is None else direction.wider
        return [
            Finding(grade, f"The {direction.whole} has {'a schema now' if before is None else 'no schema any more'}")
        ]
    comparison = _Comparison(direction)
    comparison.schemas(before, after, "")
    return comparison.findings


class _Comparison:
    def __init__(self, direction: Direction) -> None:
        self.findings: list[Finding] = []
        self._direction = direction

    def _subject(self, path: str) -> str:
        return f"The {self._direction.word} {called(path)}" if path else f"The {self._direction.whole}"

    def _say(self, grade: str, path: str, words: str) -> None:
        self.findings.append(Finding(grade, f"{self._subject(path)} {words}"))

    def _narrower(self, path: str, words: str) -> None:
        self._say(self._direction.narrower, path, words)

    def _wider(self, path: str, words: str) -> None:
        self._say(self._direction.wider, path, words)

    def schemas(self, before: Any, after: Any, path: str) -> None:
        """Two schemas in one place. `path`: the names of the properties that lead there."""
        told, tells = fingerprint.untold(before), fingerprint.untold(after)
        if fingerprint.digest(told) == fingerprint.digest(tells):
            if fingerprint.digest(before) != fingerprint.digest(after):
                self._texts(before, after, path)
            return
        one, other = ({} if schema is True else schema for schema in (before, after))
        if one is False or other is False:
            (self._wider if one is False else self._narrower)(
                path, "takes values now" if one is False else "takes no value"
            )
            return
        if not isinstance(one, dict) or not isinstance(other, dict):
            self._say("breaking", path, "has changed in a way that no rule knows")
            return
        self._objects(cast("dict[str, Any]", one), cast("dict[str, Any]", other), path)

    def _texts(self, before: Any, after: Any, path: str) -> None:
        """Where only words changed: those of which property, as far as that can be told."""
        found = [_properties(schema) for schema in (before, after)]
        names = found[0].keys() & found[1].keys()
        changed = [
            name for name in sorted(names) if fingerprint.digest(found[0][name]) != fingerprint.digest(found[1][name])
        ]
        rest = [
            {key: value for key, value in _mapping(schema).items() if key != "properties"} for schema in (before, after)
        ]
        for name in changed:
            self._texts(found[0][name], found[1][name], _below(path, name))
        if not changed or fingerprint.digest(rest[0]) != fingerprint.digest(rest[1]):
            subject = self._subject(path)
            self.findings.append(Finding("text", f"The words of {subject[0].lower()}{subject[1:]} have changed"))

    def _objects(self, before: dict[str, Any], after: dict[str, Any], path: str) -> None:
        words = [
            {key: value for key, value in schema.items() if key in fingerprint.UNTOLD} for schema in (before, after)
        ]
        if fingerprint.digest(words[0]) != fingerprint.digest(words[1]):
            subject = self._subject(path)
            self.findings.append(Finding("text", f"The words of {subject[0].lower()}{subject[1:]} have changed"))
        if self._alternatives(before, after, path):
            return
        self._types(before.get("type"), after.get("type"), path)
        self._values(before, after, path)
        self._parameters(before, after, path)
        for key in sorted((before.keys() | after.keys()) - HANDLED - fingerprint.UNTOLD):
            if fingerprint.digest([before[key]] if key in before else []) != fingerprint.digest(
                [after[key]] if key in after else []
            ):
                self._keyword(key, before, after, path)
        self._defaults(before, after, path)

    def _alternatives(self, before: dict[str, Any], after: dict[str, Any], path: str) -> bool:
        """Whether one of the two is a choice, and has been compared as that."""
        done = False
        for key in ("anyOf", "oneOf", "allOf"):
            if key not in before and key not in after:
                continue
            one, other = _choices(before, key), _choices(after, key)
            gone, come = (
                [item for digest, item in a.items() if digest not in b] for a, b in ((one, other), (other, one))
            )
            if key in before and key in after and len(gone) == len(come) == 1:
                self.schemas(gone[0], come[0], path)
            elif not gone and not come:
                pass
            elif gone and come:
                self._say("breaking", path, f"has other alternatives ({key})")
            elif bool(gone) is (key != "allOf"):
                self._narrower(path, "takes less than before")
            else:
                self._wider(path, "takes more than before")
            # Where only one of them is a choice, the other was compared as one of its alternatives.
            done = done or (key != "allOf" and (key in before) is not (key in after))
        if done:
            self._defaults(before, after, path)
        return done

    def _types(self, before: Any, after: Any, path: str) -> None:
        one, other = _types(before), _types(after)
        if one == other:
            return
        if one is None or other is None or (one - other and other - one):
            self._say("breaking", path, "is of another type")
        elif one > other:
            self._narrower(path, "takes fewer types")
        else:
            self._wider(path, "takes more types")

    def _values(self, before: dict[str, Any], after: dict[str, Any], path: str) -> None:
        if "enum" not in before and "enum" not in after:
            return
        one, other = _enum(before), _enum(after)
        if one == other:
            return
        if one is not None and (other is None or one < other):
            self._wider(path, "takes more values")
        elif other is not None and (one is None or one > other):
            self._narrower(path, "takes fewer values")
        else:
            self._say("breaking", path, "takes other values")

    def _parameters(self, before: dict[str, Any], after: dict[str, Any], path: str) -> None:
        one, other = _properties(before), _properties(after)
        needed, needs = _required(before), _required(after)
        for name in sorted(one.keys() | other.keys() | needed | needs):
            below = _below(path, name)
            if name in one and name not in other:
                self._say("breaking", below, "is gone")
            elif name in other and name not in one:
                required = self._direction is INPUT and name in needs
                self._say("breaking" if required else "compatible", below, f"is new{' and required' * required}")
            else:
                if name in needs and name not in needed:
                    self._narrower(below, "is required now")
                elif name in needed and name not in needs:
                    self._wider(below, "is optional now")
                if name in one:
                    self.schemas(one[name], other[name], below)
        for key, kind in (("properties", dict), ("required", list)):
            sides = [schema.get(key) for schema in (before, after)]
            formless = any(side is not None and not isinstance(side, kind) for side in sides)
            if formless and fingerprint.digest(sides[0]) != fingerprint.digest(sides[1]):
                self._say("breaking", path, f"has changed in a way that no rule knows ({key})")

    def _keyword(self, key: str, before: dict[str, Any], after: dict[str, Any], path: str) -> None:
        one, other = before.get(key), after.get(key)
        if key in LOWER | UPPER and _is_bound(one) and _is_bound(other):
            tighter = one is None or (other is not None and ((other > one) is (key in LOWER)))
            (self._narrower if tighter else self._wider)(
                path, f"has a {'tighter' if tighter else 'wider'} bound ({key})"
            )
        elif key in OPEN:
            inner = [schema.get(key, True) for schema in (before, after)]
            self.schemas(inner[0], inner[1], f"{path}[]" if key == "items" else path)
        elif key in CONDITIONS and (key not in before or key not in after):
            if key in after:
                self._narrower(path, f"has a condition more ({key})")
            else:
                self._wider(path, f"has a condition less ({key})")
        elif key in LOWER | UPPER | CONDITIONS | ENTANGLED:
            self._say("breaking", path, f"has changed in a way that may refuse what was right ({key})")
        else:
            # JSON Schema has unknown keywords ignored: they refuse nothing.
            self._say("compatible", path, f"has another annotation ({called(key)})")

    def _defaults(self, before: dict[str, Any], after: dict[str, Any], path: str) -> None:
        one, other = ([schema["default"]] if "default" in schema else [] for schema in (before, after))
        if fingerprint.digest(one) != fingerprint.digest(other):
            self._say("compatible", path, "has another default")


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _properties(schema: Any) -> dict[str, Any]:
    return _mapping(_mapping(schema).get("properties"))


def _required(schema: dict[str, Any]) -> set[str]:
    listed = schema.get("required")
    return {name for name in cast("list[Any]", listed) if isinstance(name, str)} if isinstance(listed, list) else set()


def _types(value: Any) -> frozenset[str] | None:
    """The types that a schema names; None where that is no type. An integer is a number."""
    if value is None:
        return TYPES
    names = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name in TYPES for name in names):
        return None
    found = frozenset(cast("list[str]", names))
    return found | {"integer"} if "number" in found else found


def _enum(schema: dict[str, Any]) -> set[bytes] | None:
    """The values that a schema names, each as a digest; None where it names none."""
    listed = schema.get("enum")
    return {fingerprint.digest(value) for value in cast("list[Any]", listed)} if isinstance(listed, list) else None


def _is_bound(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _choices(schema: dict[str, Any], key: str) -> dict[bytes, Any]:
    """The alternatives of a schema, by the digest of what they say. One without a choice is the one of its own."""
    listed = schema.get(key)
    if isinstance(listed, list):
        found: list[Any] = cast("list[Any]", listed)
    elif key == "allOf":
        found = []
    else:
        # Without the word itself: it is no list of choices here, and the schema would be its own choice without end.
        alone = {word: value for word, value in schema.items() if word not in fingerprint.UNTOLD | {"default", key}}
        types = alone.get("type")
        found = [{**alone, "type": one} for one in cast("list[Any]", types)] if isinstance(types, list) else [alone]
    return {fingerprint.digest(fingerprint.untold(item)): item for item in found}
