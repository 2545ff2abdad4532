"""The cursor of a list: where the next page starts, and which filters it belongs to.

Opaque to clients: unpadded base64url of JSON with a checksum before it. The checksum is no secret; it tells a cursor
that was cut or changed from one that this registry issued, so that the former gets a clear refusal.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple
from zlib import crc32

MAX_LENGTH = 2_048
MAX_ID = 2**63 - 1


class Filters(NamedTuple):
    """What a list is narrowed to; None is no filter."""

    status: str | None = None
    type: str | None = None
    search: str | None = None
    tag: str | None = None
    verdict: str | None = None
    owner: str | None = None


def encode(after: int, filters: Filters) -> str:
    """A cursor for the page that follows the server with the id `after`."""
    payload = json.dumps([after, *filters], ensure_ascii=False, separators=(",", ":")).encode()
    return urlsafe_b64encode(crc32(payload).to_bytes(4, "big") + payload).rstrip(b"=").decode()


def decode(cursor: str) -> tuple[int, Filters]:
    """The id and the filters that a cursor was issued for. Raises ValueError where it is not one of ours."""
    if len(cursor) > MAX_LENGTH:
        raise ValueError("too long")
    raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    checksum, payload = raw[:4], raw[4:]
    if urlsafe_b64encode(raw).rstrip(b"=").decode() != cursor or crc32(payload).to_bytes(4, "big") != checksum:
        raise ValueError("changed")
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise ValueError("not JSON, or nested too deeply") from None
    match value:
        case [int() as after, *filters] if (
            type(after) is int
            and 0 < after <= MAX_ID  # not isinstance: true would pass for 1
            # Fewer are those of a release that had fewer.
            and 3 <= len(filters) <= len(Filters._fields)
            and all(value is None or isinstance(value, str) for value in filters)
        ):
            return after, Filters(*filters)
        case _:
            raise ValueError("not a cursor")
