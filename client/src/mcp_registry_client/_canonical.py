"""Canonical JSON (RFC 8785), and the digest by which the registry knows a registration again.

The canonical form is also what is sent: the digest is then of the very bytes, and nothing is written twice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any, cast


def canonical(value: Any) -> bytes:
    """The canonical form of a JSON value, in UTF-8.

    Raises ValueError for NaN, infinities and lone surrogates, and TypeError for what is not JSON at all.
    """
    if _is_plain(value):
        # Written in C, which is twenty times faster, wherever that is the same text.
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    else:
        text = "".join(_parts(value))
    return text.encode()


def digest(value: Any) -> str:
    """SHA-256 over the canonical form, in hexadecimal digits: the value of `X-Registration-Digest`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether `json` writes the canonical form: there is no float, and no key whose order UTF-16 changes."""
    if isinstance(value, float):
        return False
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        return all(key <= "\uffff" and _is_plain(item) for key, item in mapping.items() if _is_text(key))
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in cast("list[Any]", value))
    return True


def _is_text(key: object) -> bool:
    if not isinstance(key, str):
        raise TypeError(f"The keys of a JSON object are strings, not {key!r}")
    return True


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, float):
        yield _number(value)
    elif isinstance(value, (list, tuple)):
        yield "["
        for place, item in enumerate(cast("list[Any]", value)):
            if place:
                yield ","
            yield from _parts(item)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        mapping = cast("dict[str, Any]", value)
        for place, key in enumerate(sorted(mapping, key=_utf16)):
            yield ("," if place else "") + json.dumps(key, ensure_ascii=False) + ":"
            yield from _parts(mapping[key])
        yield "}"
    else:
        yield json.dumps(value, ensure_ascii=False)


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    """A number as ECMAScript writes it (RFC 8785, section 3.2.2.3).

    Python's repr has the same shortest digits. Where the point stands and when an exponent is written differs.
    """
    if not math.isfinite(value):
        raise ValueError("NaN and infinities are not JSON")
    if value == 0:
        return "0"  # -0 too
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS times 10 to the power of `scale`.
    scale = int(exponent or 0) + len(digits) - len(fraction)
    digits = digits.rstrip("0")
    if scale > 21 or scale <= -6:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}e{scale - 1:+d}"
    if scale <= 0:
        return f"{sign}0.{'0' * -scale}{digits}"
    if scale >= len(digits):
        return sign + digits + "0" * (scale - len(digits))
    return f"{sign}{digits[:scale]}.{digits[scale:]}"
