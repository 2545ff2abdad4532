"""Reading a request's body: JSON and nothing else, strictly.

Stricter than json.loads, because what it lets pass breaks somebody later: NaN is no JSON, 1e400 becomes infinity, of
two equal keys parsers keep different ones, Postgres stores neither NUL nor half a surrogate pair.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from mcp_registry.edge.http import Request
from mcp_registry.errors import MAX_FAULTS, MAX_PATH, Fault, PayloadTooLarge, UnsupportedMediaType, ValidationFailed

MAX_BODY = 1024 * 1024

# Keys have no limit of their own; what is told of one has.
MAX_KEY_SHOWN = 100

MEDIA_TYPE = "application/json"

# Only these escapes can put a NUL or a surrogate into a string; a pair of surrogates (an emoji) is well.
SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class _Refused(ValueError):
    """A JSON text that we refuse although json.loads would not."""


def read_json(request: Request) -> Any:
    """The JSON value in the body of a request.

    Raises UnsupportedMediaType, PayloadTooLarge or ValidationFailed; the message says what is wrong and where.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Nor is a body taken that has no type: a page of another site may have a browser send one without asking first.
    if media_type != MEDIA_TYPE and (media_type or request.body):
        raise UnsupportedMediaType
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Send the body without Content-Encoding")
    body = request.body
    if len(body) > MAX_BODY:
        raise PayloadTooLarge
    return parse(body)


def parse(body: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ValidationFailed."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValidationFailed(f"Invalid JSON: the body is not UTF-8 (byte {error.start})") from None
    if not text.strip():
        raise ValidationFailed("Invalid JSON: the body is empty")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except _Refused as error:
        raise ValidationFailed(f"Invalid JSON: {error}") from None
    except json.JSONDecodeError as error:
        raise ValidationFailed(f"Invalid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ValidationFailed("Invalid JSON: nested too deeply") from None
    except ValueError:  # what int() raises beyond 4,300 digits
        raise ValidationFailed("Invalid JSON: a number has too many digits") from None
    if SUSPECT_ESCAPE.search(text):
        _check_strings(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {key[:MAX_KEY_SHOWN]!r} stands twice in one object")
            seen.add(key)
    return value


def _constant(literal: str) -> float:
    raise _Refused(f"{literal} is not JSON")


def _float(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise _Refused("a number is too large")
    return number


def _check_strings(value: Any) -> None:
    """Refuse NUL and lone surrogates, wherever they are."""
    faults: list[Fault] = []
    waiting: list[tuple[str, Any]] = [("", {"": value})]
    # Paths are cut as they are made: a key of half a megabyte over 200,000 values would fill the memory.
    while waiting and len(faults) < MAX_FAULTS:
        path, container = waiting.pop()
        for key, child in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(key, str) and UNSTORABLE.search(key):
                faults.append(Fault(path, "A key holds NUL or half a surrogate pair", "text"))
            elif isinstance(child, str):
                if UNSTORABLE.search(child):
                    faults.append(Fault(_join(path, key), "Holds NUL or half a surrogate pair", "text"))
            elif isinstance(child, dict | list):
                waiting.append((_join(path, key), child))
    if faults:
        raise ValidationFailed(faults=sorted(faults))


def _join(path: str, key: str | int) -> str:
    part = key[:MAX_PATH] if isinstance(key, str) else str(key)
    return f"{path}.{part}"[:MAX_PATH] if path else part
