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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("weather", "WEATHER"),
        ("weather-server", "weatherserver"),
        ("weather-server", "Weather__Server"),
        ("oil-price", "0il-price"),
        ("hello", "he1lo"),
        ("hello", "heIlo"),
    ],
)
def test_look_alikes_are_one_name(one, other):
    assert names.canonical(one) == names.canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("weather", "weather2"), ("a-tool", "b-tool"), ("io.github.ann/x", "io.github.bob/x"), ("a/b", "ab")],
)
def test_different_names_stay_different(one, other):
    assert names.canonical(one) != names.canonical(other)


@given(LEGAL_NAMES)
def test_a_canonical_form_is_its_own_canonical_form_and_no_longer(name):
    canonical = names.canonical(name)
    assert names.canonical(canonical) == canonical
    assert 0 < len(canonical) <= len(name)


@given(LEGAL_NAMES, st.sampled_from([str.lower, str.upper, str.swapcase]))
def test_case_never_makes_a_second_name(name, change):
    assert names.canonical(change(name)) == names.canonical(name)
