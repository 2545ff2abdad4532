"""The headers that were given for servers that ask for credentials: each in a secret of its own, and nowhere else.

Whoever may read them has no way to the database, and whoever writes them cannot read them. A secret is never changed:
other headers are another secret.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from mcp_registry.aws import secret
from mcp_registry.dial import urls

# Of servers, in the memory of one function.
MAX_KEPT: Final = 200
# What a header says is looked for in answers by so many of its characters. What is shorter stands in many a text by
# chance, and of what is longer a sentence of ours may hold the beginning.
MIN_TOLD: Final = 8
MAX_TOLD: Final = 16
# A part of a header: a word, a cookie, or a parameter of a scheme with its name.
PART: Final = re.compile(r"[^\s;,]+")

_kept: dict[str, Given] = {}


class Given(NamedTuple):
    """Headers, by their names, and the origin that they are for."""

    origin: str
    headers: Mapping[str, str]

    def are_for(self, url: str) -> bool:
        """Whether they may be sent to this URL, which is valid: to that scheme, host and port alone."""
        return urls.origin(url) == self.origin

    def stand_in(self, value: Any) -> bool:
        """Whether a server repeats one of them, anywhere in what it says: a JSON value."""
        words = self._words()
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                if any(word in one for word in words):
                    return True
            elif isinstance(one, Mapping):
                named = cast("Mapping[str, Any]", one)
                waiting += (*named, *named.values())
            elif isinstance(one, Sequence):
                waiting += cast("Sequence[Any]", one)
        return False

    def _words(self) -> set[str]:
        """The values and their parts: a server may repeat a token without its `Bearer`, one cookie, or a password."""
        values = self.headers.values()
        parts = {part for value in values for part in PART.findall(value)}
        words = {*values, *parts, *(part.partition("=")[2].strip('"') for part in parts), *map(_password, values)}
        return {word[:MAX_TOLD] for word in words if len(word) >= MIN_TOLD}


def _password(value: str) -> str:
    """The password in credentials of the scheme Basic (RFC 7617); empty where there is none."""
    scheme, _, written = value.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(written.strip().rstrip("=") + "==").decode().partition(":")[2]
    except ValueError:
        return ""


def name(server_id: int, id_: str) -> str:
    """The name of a secret of a server's headers."""
    return f"{os.environ['PROBE_HEADERS']}{server_id}/{id_}"


def read(server_id: int, id_: str) -> Given:
    """The headers in a secret. Raises `secret.Gone`, and Unavailable where it cannot be read now."""
    if id_ not in _kept:
        found = secret.fetch(name(server_id, id_))
        while len(_kept) >= MAX_KEPT:
            del _kept[next(iter(_kept))]
        _kept[id_] = Given(found["origin"], found["headers"])
    return _kept[id_]


def write(server_id: int, id_: str, given: Given) -> None:
    """Make a secret of headers. Raises Unavailable."""
    secret.make(name(server_id, id_), given._asdict(), "Headers for a server of the registry; made and deleted by it")


def remove(server_id: int, id_: str) -> None:
    """Delete a secret, if it is there. Raises Unavailable."""
    secret.remove(name(server_id, id_))
