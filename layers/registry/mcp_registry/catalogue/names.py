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
# A separator counts between two digits only. To the eye, l and o may be digits.
UNCOUNTED = re.compile(r"(?<![0-9])-|-(?![0-9])")
UNCOUNTED_IN_FIGURES = re.compile(r"(?<![0-9lo])-|-(?![0-9lo])")
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
    """What a reader takes a name for, in three ways. Two names are one where any of the three is equal.

    By `read`, case does not count: WIKI is wiki. By `look`, a capital I is the l that it looks like: heIlo is hello. By
    `figure`, l and o are the digits that they look like: vl.lo is v1.10. One key cannot say it all, for mariax and
    marlax are two names, and so are v1.10 and v11.0.
    """

    read: str
    look: str
    figure: str


def keys(name: str) -> Keys:
    """The keys by which a legal name is unique; no longer than the name.

    0 is o, and 1 is l. Separators do not count, but between two digits (v1.10 is not v11.0) and before the slash, where
    co-op is not coop; of which kind they are never counts. The functions of the same names in sql/ say the same.
    """
    spelled = SEPARATORS.sub("-", name)
    seen = spelled.replace("I", "l").lower()
    look = _spelling(seen, UNCOUNTED)
    # Nearly all are written without a capital I.
    read = _spelling(spelled.lower(), UNCOUNTED) if "I" in name else look
    return Keys(read, look, _spelling(seen, UNCOUNTED_IN_FIGURES))


def _spelling(name: str, uncounted: re.Pattern[str]) -> str:
    """One spelling of a name whose separators are all `-`."""
    namespace, slash, rest = name.rpartition("/")
    return f"{namespace.strip('-')}{slash}{uncounted.sub('', rest)}".translate(LOOK_ALIKE)


def _readings(name: str) -> set[str]:
    """What a reader may take a name for: case does not count, and a capital I looks like an l."""
    return {name.lower().translate(FOLD), name.replace("I", "l").lower().translate(FOLD)}


# Of each word what either case looks like: ADM1N is ADMIN to the eye.
RESERVED = frozenset(reading for word in RESERVED_WORDS for reading in _readings(word) | _readings(word.upper()))
RESERVED_NAMESPACES = _readings(RESERVED_NAMESPACE) | _readings(RESERVED_NAMESPACE.upper())


def fault(name: str) -> str | None:
    """Why a name cannot be registered, in one sentence; None where it can. See `number_fault`."""
    if not LEGAL.fullmatch(name):
        return RULE
    namespace, slash, _ = name.rpartition("/")
    if not RESERVED.isdisjoint(_readings(name)) or (slash and not RESERVED_NAMESPACES.isdisjoint(_readings(namespace))):
        return "This name is reserved: choose another"
    return None


def number_fault(name: str) -> str | None:
    """Why a name cannot be given to a new server although it is legal; None where it can.

    Apart from `fault`, because servers of such names may be there from before this was a rule, and go on registering.
    """
    return NUMBER if name.isdigit() else None
