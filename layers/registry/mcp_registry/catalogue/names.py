"""Names of servers: which are legal, which are the same, which are taken."""

from __future__ import annotations

import re

MAX_LENGTH = 100

PART = r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*"
LEGAL = re.compile(rf"{PART}(?:/{PART})?", re.ASCII)
RULE = "A name has ASCII letters, digits, '.', '_', '-' and at most one '/', with a letter or digit on each side of it"

# What look-alike names have in common: 0 and o, and 1, l and i (l and I are one glyph in many fonts, and case does
# not count) fold together; separators vanish. The rule is PyPI's ultranormalize_name.
FOLD = str.maketrans({"0": "o", "1": "l", "i": "l", ".": None, "_": None, "-": None})

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


def canonical(name: str) -> str:
    """The form in which a name is unique: two names with the same canonical form are the same name to a reader."""
    return name.lower().translate(FOLD)


RESERVED = frozenset(canonical(word) for word in RESERVED_WORDS)


def fault(name: str) -> str | None:
    """Why a name cannot be registered, in one sentence; None where it can."""
    if not LEGAL.fullmatch(name):
        return RULE
    namespace, slash, _ = name.rpartition("/")
    if canonical(name) in RESERVED or (slash and canonical(namespace) == canonical(RESERVED_NAMESPACE)):
        return "This name is reserved: choose another"
    return None
