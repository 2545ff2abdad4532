"""What the database does for the release before 0003, and for rows from before, is what the code does."""

from __future__ import annotations

import sys
import unicodedata

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import folding, names

LEGAL_NAMES = st.from_regex(names.LEGAL, fullmatch=True).filter(lambda name: len(name) <= names.MAX_LENGTH)
# Short, and of what matters here, so that many are alike.
CLOSE_NAMES = st.text("aAiIlLoO019.-_", min_size=1, max_size=6).filter(lambda name: any(map(str.isalnum, name)))
ON_ONE_DATABASE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def keys(database: Database, name: str) -> tuple[str, str, str]:
    statement = "SELECT registry.name_key(%(name)s), registry.look_key(%(name)s), registry.figure_key(%(name)s)"
    row = database.read(statement, {"name": name})
    assert row is not None
    return row[0], row[1], row[2]


@ON_ONE_DATABASE
@given(name=LEGAL_NAMES | CLOSE_NAMES)
def test_the_database_has_the_keys_of_the_code(database, name):
    assert keys(database, name) == names.keys(name)


def test_the_database_folds_text_as_the_code_does(database):
    """Every character that this Python knows. Those of a newer Unicode fold when it does."""
    known = [chr(point) for point in range(1, sys.maxunicode + 1)]
    known = [character for character in known if unicodedata.category(character) not in ("Cn", "Co", "Cs")]
    for start in range(0, len(known), 4096):
        characters = known[start : start + 4096]
        statement = (
            "SELECT array_agg(registry.fold(c) ORDER BY n) FROM unnest(%(c)s::text[]) WITH ORDINALITY AS t (c, n)"
        )
        row = database.read(statement, {"c": characters})
        assert row is not None
        told = zip(characters, row[0], strict=True)
        assert [(character, folded) for character, folded in told if folded != folding.fold(character)] == []
