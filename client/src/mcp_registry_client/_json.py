"""JSON that strangers wrote: read without what nobody can store, and taken apart without trust in its types."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple, cast


class Fault(NamedTuple):
    """What a registry's refusal names: where something is wrong, what, and of which kind that is."""

    path: str
    message: str
    type: str


def parsed(body: bytes, *, strict: bool = True) -> Any:
    """The value; None where this is no JSON, or is nested without end.

    `strict`: also where it holds NaN or a number beyond all bounds, which Python takes for JSON, or bytes that are no
    UTF-8, which stand in somebody's message and say nothing against the rest.
    """
    hooks: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite} if strict else {}
    try:
        return json.loads(body.decode("utf-8-sig", "strict" if strict else "replace"), **hooks)
    except (ValueError, RecursionError):
        return None


def depth(value: Any) -> int:
    """How many levels of objects and lists a value has: 0 for a plain one. Walked level by level, without recursion."""
    levels = 0
    level = [value]
    while containers := [item for item in level if isinstance(item, (dict, list))]:
        levels += 1
        level = [item for found in containers for item in (found.values() if isinstance(found, dict) else found)]
    return levels


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is an object; an empty one where it is anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """A list of objects, in which whatever is none is empty; an empty list where it is no list."""
    return [mapping(item) for item in cast("list[Any]", value)] if isinstance(value, list) else []


def strings(value: Any) -> list[str]:
    """The strings of a list, or of a tuple of our own; none where it is neither."""
    is_list = isinstance(value, (list, tuple))
    return [item for item in cast("list[Any]", value) if isinstance(item, str)] if is_list else []


def faults(refusal: Any) -> list[Fault]:
    """What the body of a refusal names; none where it is no such body."""
    return [
        Fault(*(text(found.get(field)) for field in ("path", "message", "type")))
        for found in mappings(mapping(refusal).get("details"))
    ]


def text(value: Any) -> str:
    """The value where it is a string; an empty one where it is anything else, which may be too deep to be written."""
    return value if isinstance(value, str) else ""


def _refuse(literal: str) -> None:
    raise ValueError(literal)


def _finite(literal: str) -> float:
    if not math.isfinite(number := float(literal)):
        raise ValueError(literal)
    return number
