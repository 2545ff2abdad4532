"""Names: legal, look-alike, reserved."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.catalogue import names
from tests.api.test_stateful import readings
from tests.conftest import ROOT

LEGAL_NAMES = st.from_regex(names.LEGAL, fullmatch=True).filter(lambda name: len(name) <= names.MAX_LENGTH)
# Short, and of what matters here, so that many are alike.
CLOSE_NAMES = st.text("aAiIlLoO019.-_", min_size=1, max_size=6).filter(lambda name: any(map(str.isalnum, name)))


@pytest.mark.parametrize(
    "name",
    ["a", "Weather", "weather-server", "io.github.ann/weather", "a_b.c-d", "3com", "X" * 100, "mcp-server/amap-maps"],
)
def test_ordinary_names_are_legal(name):
    assert names.fault(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        " a",
        "a b",
        "a\n",
        "..",
        ".",
        "-",
        "../x",
        "a/",
        "/a",
        "a/b/c",
        "a//b",
        "café",
        "wеather",
        "a%2fb",
        "a#b",
        "a\0",
    ],
)
def test_other_names_are_refused_with_the_rule(name):
    assert names.fault(name) == names.RULE


@pytest.mark.parametrize(
    "name", ["null", "NULL", "nu-ll", "health", "Register", "com1", "COM1", "mcp_registry", "io.modelcontextprotocol/x"]
)
def test_reserved_names_are_refused_in_every_spelling(name):
    assert "reserved" in (names.fault(name) or "")


@pytest.mark.parametrize(
    "name", ["heaIth", "HEALTH", "he-a1th", "C0N", "too1s", "AP1", "ADM1N", "mcp-reg1stry", "lo.modelcontextprotocol/x"]
)
def test_what_an_eye_takes_for_a_reserved_name_is_reserved(name):
    assert "reserved" in (names.fault(name) or "")


@pytest.mark.parametrize("name", ["heaith", "toois", "nui", "io.modelcontextprotocols/x", "modelcontextprotocol"])
def test_what_nobody_takes_for_a_reserved_name_is_legal(name):
    assert names.fault(name) is None


@pytest.mark.parametrize("name", ["1", "42", "007", "9" * 100])
def test_a_name_of_digits_alone_is_legal_and_not_for_a_new_server(name):
    assert names.fault(name) is None
    assert names.number_fault(name) == names.NUMBER


@pytest.mark.parametrize("name", ["a1", "1-2", "2048.game", "4/2"])
def test_a_name_with_anything_besides_digits_is_for_a_new_server_too(name):
    assert names.number_fault(name) is None


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
    ("cool-logger", "cooIlogger"),
    ("hello-lo", "heIlolo"),
    ("tool-1", "toolI"),
    ("sqll2", "sqlI-2"),
    ("metaI-0s", "metal0s"),
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


def are_one(one: str, other: str) -> bool:
    return any(a == b for a, b in zip(names.keys(one), names.keys(other), strict=True))


@pytest.mark.parametrize(("one", "other"), ONE)
def test_what_an_eye_takes_for_one_is_one_name(one, other):
    assert are_one(one, other)


@pytest.mark.parametrize(("one", "other"), TWO)
def test_what_nobody_confuses_are_two_names(one, other):
    assert not are_one(one, other)


def test_the_corpus_of_names_is_judged_as_it_says():
    cases = json.loads((ROOT / "tests" / "corpus" / "names.json").read_bytes())
    judged = [case for case in cases if case["verdict"] in ("conflict", "allow")]
    assert [are_one(case["existing"], case["new"]) for case in judged] == [
        case["verdict"] == "conflict" for case in judged
    ]


@given(LEGAL_NAMES, st.sampled_from([str.lower, str.upper, str.swapcase]))
def test_case_never_makes_a_second_name(name, change):
    assert are_one(name, change(name))


@given(CLOSE_NAMES)
def test_the_keys_are_what_a_reader_takes_a_name_for(name):
    assert names.keys(name) == readings(name)


@given(LEGAL_NAMES)
def test_a_key_is_no_longer_than_its_name(name):
    assert all(0 < len(key) <= len(name) for key in names.keys(name))


@given(CLOSE_NAMES, CLOSE_NAMES)
def test_names_that_are_one_were_one_by_the_rule_before(one, other):
    """So an upgrade finds no two rows that are one: the unique indexes of 0004 can be made over any catalogue."""

    def before(name: str) -> str:
        return name.lower().translate(str.maketrans("01i", "oll", "._-"))

    assert before(one) == before(other) or not are_one(one, other)


@given(LEGAL_NAMES, st.sampled_from([str.lower, str.upper, str.swapcase]))
def test_a_reserved_name_is_one_in_either_case(name, change):
    assert (names.fault(name) is None) == (names.fault(change(name)) is None)
