"""Text as people compare it: what looks the same is the same, in any case and in any form of Unicode.

What is stored is folded when it is written, and what is searched when it is asked for. The database has the same as
registry.fold, for rows of the release before 0003.
"""

from __future__ import annotations


def fold(text: str) -> str:
    """The form of a text that is compared: NFKC and full case folding (Unicode 15, section 3.13, toNFKC_Casefold)."""
    if text.isascii():
        return text.lower()
    from unicodedata import normalize  # for few: most text is plain

    return normalize("NFKC", normalize("NFKC", text).casefold())


def pattern(word: str) -> str:
    """A LIKE pattern for a word, wherever it stands: what LIKE gives a meaning to is an ordinary character here."""
    # Folded first, because a full-width percent sign becomes a plain one.
    literal = fold(word).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"
