"""Names of servers: which are legal, and which are reserved. Which two are one, registry.name_key (sql/) says."""

from __future__ import annotations

import re

MAX_LENGTH = 100

PART = r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*"
LEGAL = re.compile(rf"{PART}(?:/{PART})?", re.ASCII)
RULE = "A name has ASCII letters, digits, '.', '_', '-' and at most one '/', with a letter or digit on each side of it"
# In a path, /servers/42 is the server with the id 42.
NUMBER = "A name is not all digits, because those are the id of a server: put a letter into it"

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
