"""Which names are one: the keys that the catalogue is unique by."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import names
from tests.api.test_stateful import readings
from tests.conftest import ROOT

LEGAL_NAMES = st.from_regex(names.LEGAL, fullmatch=True).filter(lambda name: len(name) <= names.MAX_LENGTH)
# Short, and of what matters here, so that many are alike.
CLOSE_NAMES = st.text("aAiIlLoO019.-_", min_size=1, max_size=6).filter(lambda name: any(map(str.isalnum, name)))
ON_ONE_DATABASE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

ONE = [
    ("weather", "WEATHER"),
    ("WIKI", "wiki"),
    ("weather-server", "weatherserver"),
    ("weather-server", "Weather__Server"),
    ("-weather.", "weather"),
    ("oil-price", "0il-price"),
    ("hello", "he1lo"),
    ("hello", "heIlo"),
    ("hello-world", "heIlo.world"),
    ("v1.10", "vl.lo"),
    ("io.github.ann/x", "io-github-ann/X"),
]
TWO = [
    ("weather", "weather2"),
    ("a-tool", "b-tool"),
    ("io.github.ann/x", "io.github.bob/x"),
    ("a/b", "ab"),
    ("shard-1-11", "shard-11-1"),
    ("grafana-v1.10", "grafana-v11.0"),
    ("python-3.1-0", "python-3.10"),
    ("1.2.3", "12.3"),
    ("io.github.co-op/notes", "io.github.coop/notes"),
    ("io.github.a-b/notes", "io.github.ab/notes"),
    ("mariax", "marlax"),
    ("sql-i", "sql-1"),
    ("api-v2", "apl-v2"),
]


def keys(database: Database, name: str) -> tuple[str, str]:
    row = database.read("SELECT registry.name_key(%(name)s), registry.look_key(%(name)s)", {"name": name})
    assert row is not None
    return row[0], row[1]


def are_one(database: Database, one: str, other: str) -> bool:
    return any(a == b for a, b in zip(keys(database, one), keys(database, other), strict=True))


@pytest.mark.parametrize(("one", "other"), ONE)
def test_what_an_eye_takes_for_one_is_one_name(database, one, other):
    assert are_one(database, one, other)


@pytest.mark.parametrize(("one", "other"), TWO)
def test_what_nobody_confuses_are_two_names(database, one, other):
    assert not are_one(database, one, other)


def test_the_corpus_of_names_is_judged_as_it_says(database):
    cases = json.loads((ROOT / "tests" / "corpus" / "names.json").read_bytes())
    judged = [case for case in cases if case["verdict"] in ("conflict", "allow")]
    assert [are_one(database, case["existing"], case["new"]) for case in judged] == [
        case["verdict"] == "conflict" for case in judged
    ]


@ON_ONE_DATABASE
@given(name=LEGAL_NAMES, change=st.sampled_from([str.lower, str.upper, str.swapcase]))
def test_case_never_makes_a_second_name(database, name, change):
    assert are_one(database, name, change(name))


@ON_ONE_DATABASE
@given(name=CLOSE_NAMES)
def test_the_keys_are_what_a_reader_takes_a_name_for(database, name):
    assert keys(database, name) == readings(name)


@ON_ONE_DATABASE
@given(one=CLOSE_NAMES, other=CLOSE_NAMES)
def test_names_that_are_one_were_one_by_the_rule_before(database, one, other):
    """So an upgrade finds no two rows that are one: the unique indexes of 0004 can be made over any catalogue."""

    def before(name: str) -> str:
        return name.lower().translate(str.maketrans("01i", "oll", "._-"))

    assert before(one) == before(other) or not are_one(database, one, other)
