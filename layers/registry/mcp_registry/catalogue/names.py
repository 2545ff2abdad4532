"""Names of servers: which are legal, which are the same, which are taken."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_LENGTH = 100

PART = r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*"
LEGAL = re.compile(rf"{PART}(?:/{PART})?", re.ASCII)
RULE = "A name has ASCII letters, digits, '.', '_', '-' and at most one '/', with a letter or digit on each side of it"
# In a path, /servers/42 is the server with the id 42.
NUMBER = "A name is not all digits, because those are the id of a server: put a letter into it"

SEPARATORS = re.compile(r"[._-]+")
# A separator that counts stands between two digits; to the eye, l and o may be digits.
UNREAD = re.compile(r"(?<![0-9])-|-(?![0-9])")
UNSEEN = re.compile(r"(?<![0-9lo])-|-(?![0-9lo])")
LOOK_ALIKE = str.maketrans("01", "ol")

# What does not count where a word is reserved: separators, 0 for o, 1 for l.
FOLD = str.maketrans({"0": "o", "1": "l", ".": None, "_": None, "-": None})

# Names that would be mistaken for something else: words of our own routes and of ourselves, words that programs print
# for nothing at all, and device names that Windows opens instead of a file of that name.
RESERVED_WORDS = (
    *("api", "health", "jobs", "metrics", "register", "registry", "servers", "tools"),
    *("admin", "administrator", "mcp-registry", "root", "system"),
    *("false", "nan", "none", "null", "true", "undefined"),
    *("aux", "con", "nul", "prn"),
    *(f"{device}{number}" for device in ("com", "lpt") for number in range(10)),
)
# The namespace of the protocol itself.
RESERVED_NAMESPACE = "io.modelcontextprotocol"


class Keys(NamedTuple):
    """What a reader takes a name for. Two names are one where either of the two is equal.

    By `read`, case does not count: WIKI is wiki. By `look`, a capital I is the l that it looks like: heIlo is hello.
    One key cannot say both, for mariax and marlax are two names.
    """

    read: str
    look: str


def keys(name: str) -> Keys:
    """The keys by which a legal name is unique; no longer than the name.

    0 is o, and 1 is l. Separators do not count, but between two digits (v1.10 is not v11.0) and before the slash, where
    co-op is not coop; of which kind they are never counts. registry.name_key and registry.look_key say the same.
    """
    return Keys(_spelling(name.lower(), UNREAD), _spelling(name.replace("I", "l").lower(), UNSEEN))


def _spelling(name: str, uncounted: re.Pattern[str]) -> str:
    namespace, slash, rest = name.rpartition("/")
    read = uncounted.sub("", SEPARATORS.sub("-", rest))
    if slash:
        read = f"{SEPARATORS.sub('-', namespace).strip('-')}/{read}"
    return read.translate(LOOK_ALIKE)


def _readings(name: str) -> set[str]:
    """What a reader may take a name for: case does not count, and a capital I looks like an l."""
    return {name.lower().translate(FOLD), name.replace("I", "l").lower().translate(FOLD)}


RESERVED = frozenset(word.translate(FOLD) for word in RESERVED_WORDS)


def fault(name: str) -> str | None:
    """Why a name cannot be registered, in one sentence; None where it can. See `number_fault`."""
    if not LEGAL.fullmatch(name):
        return RULE
    namespace, slash, _ = name.rpartition("/")
    reserved_namespace = RESERVED_NAMESPACE.translate(FOLD)
    if not RESERVED.isdisjoint(_readings(name)) or (slash and reserved_namespace in _readings(namespace)):
        return "This name is reserved: choose another"
    return None


def number_fault(name: str) -> str | None:
    """Why a name cannot be given to a new server although it is legal; None where it can.

    Apart from `fault`, because servers of such names may be there from before this was a rule, and go on registering.
    """
    return NUMBER if name.isdigit() else None
