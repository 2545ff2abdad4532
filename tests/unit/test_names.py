"""Names: legal, look-alike, reserved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.catalogue import names

LEGAL_NAMES = st.from_regex(names.LEGAL, fullmatch=True).filter(lambda name: len(name) <= names.MAX_LENGTH)


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


@pytest.mark.parametrize("name", ["heaIth", "HEALTH", "he-a1th", "C0N", "too1s"])
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


@given(LEGAL_NAMES, st.sampled_from([str.lower, str.upper, str.swapcase]))
def test_a_reserved_name_is_one_in_either_case(name, change):
    assert (names.fault(name) is None) == (names.fault(change(name)) is None)
