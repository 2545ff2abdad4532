"""Text as people compare it: what looks the same is the same, in any case and in any form of Unicode.

What is stored is folded when it is written, and what is searched when it is asked for. registry.fold in the database is
for rows of the release before 0003; the characters of a Unicode newer than either's are compared as they are.
"""

from __future__ import annotations

import re

# What nobody sees: Default_Ignorable_Code_Point (Unicode 16, DerivedCoreProperties.txt), a soft hyphen for one.
UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)


def fold(text: str) -> str:
    """The form of a text that is compared: NFKC and full case folding, without characters that nobody sees."""
    if text.isascii():
        return text.lower()
    from unicodedata import normalize  # for few: most text is plain

    seen = re.sub(f"[{UNSEEN}]", "", text)
    return normalize("NFKC", normalize("NFKC", seen).casefold())


def pattern(folded: str) -> str:
    """A LIKE pattern for a folded word, wherever it stands: what LIKE gives a meaning to is an ordinary character here.

    Folded before, because a full-width percent sign becomes a plain one.
    """
    literal = folded.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"
