"""What is wrong with a JSON value that should have the form of a struct: every fault, by its field, in people's words.

msgspec says whether a value has its form, and stops at the first fault. Whoever sent it wants them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from mcp_registry.errors import Fault

# JSON types, as msgspec names them and as people do.
WORDS = {
    "str": "a string",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
}


def present(mapping: dict[str, Any]) -> dict[str, Any]:
    """A JSON object without its fields that are null: null is as good as absent."""
    return {key: value for key, value in mapping.items() if value is not None}


def faults(value: Any, struct: type[Struct], path: str = "") -> Iterator[Fault]:
    """Every fault of a value that should be a `struct`, which stands at `path`. Null was taken out before."""
    if not isinstance(value, dict):
        yield Fault(path, "Expected an object", "type")
        return
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    for name in (name for name in value if name not in fields):
        yield Fault(_join(path, name), "There is no such field", "unknown")
    for name, field in fields.items():
        if name in value:
            yield from _value_faults(value[name], field.type, _join(path, name))
        elif field.required:
            yield Fault(_join(path, name), "This field is required", "missing")


def _value_faults(value: Any, kind: Any, path: str) -> Iterator[Fault]:
    """Every fault of a value that should be of the type `kind`."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if _is_struct(kind):
            yield from faults(value, kind, path)
        elif get_origin(bare) is list and isinstance(value, list) and _has_length(value, kind):
            (member,) = get_args(bare)
            for place, each in enumerate(value):
                yield from _value_faults(each, member, f"{path}.{place}")
        elif get_origin(bare) is dict and isinstance(value, dict) and _has_length(value, kind):
            for name, each in value.items():
                for part, whole in zip((name, each), get_args(bare), strict=True):
                    yield from _value_faults(part, whole, f"{path}.{name}")
        else:
            message, _, place = str(error).partition(" - at `$")
            yield Fault(path + re.sub(r"\[(\d+)\]", r".\1", place.rstrip("`")), *_plain(message, kind))


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _has_length(value: list[Any] | dict[str, Any], kind: Any) -> bool:
    """Whether so many are what a type lets there be, whatever they are."""
    limits = [meta for meta in get_args(kind)[1:] if isinstance(meta, msgspec.Meta)]
    return all((each.min_length or 0) <= len(value) <= (each.max_length or len(value)) for each in limits)


def _plain(message: str, kind: Any) -> tuple[str, str]:
    """Msgspec's message in a user's words, and the kind of fault that it is."""
    if length := re.fullmatch(r"Expected `(str|array|object)` of length (<=|>=) (\d+)", message):
        unit = {"str": "character", "array": "item", "object": "field"}[length[1]] + "s" * (length[3] != "1")
        return f"Must have {'at most' if length[2] == '<=' else 'at least'} {length[3]} {unit}", "length"
    if bound := re.fullmatch(r"Expected `int` (<=|>=) (\d+)", message):
        return f"Must be {'at most' if bound[1] == '<=' else 'at least'} {bound[2]}", "value"
    if get_origin(kind) is Literal:
        return f"Must be one of {', '.join(get_args(kind))}", "enum"
    message = message.replace("Expected `int`", "Expected a whole number")
    return re.sub(r"`(\w+)`", lambda match: WORDS.get(match[1], match[1]), message), "type"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
