"""Canonical JSON, held against another implementation of RFC 8785."""

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.catalogue import canonical as module
from mcp_registry.catalogue.canonical import survey

SAFE_INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
SCALARS = st.none() | st.booleans() | SAFE_INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def canonical(value) -> bytes:
    return module.canonical(value, plain=survey(value).plain)


def digest(value) -> bytes:
    return module.digest(value, plain=survey(value).plain)


VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(VALUES)
def test_the_form_is_that_of_rfc_8785(value):
    assert canonical(value) == rfc8785.dumps(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_as_ecmascript_writes_them(number):
    assert canonical([number]) == rfc8785.dumps([number])


@given(VALUES)
def test_the_form_of_the_form_is_the_form(value):
    assert canonical(json.loads(canonical(value))) == canonical(value)


def test_integers_beyond_the_doubles_keep_their_digits():
    assert canonical({"a": 2**53 + 1, "b": 0.5}) == b'{"a":9007199254740993,"b":0.5}'


def test_keys_are_in_the_order_of_utf_16():
    assert canonical({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


def test_two_spellings_of_one_value_have_one_digest():
    assert digest(json.loads('{"b": 1.0, "a": "\\u0041"}')) == digest(json.loads('{"a":"A","b":1e0}'))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_json_has_no_form(number):
    with pytest.raises(ValueError, match="not JSON"):
        canonical([number])


def test_half_a_surrogate_pair_has_no_form():
    with pytest.raises(UnicodeEncodeError):
        canonical({"a": "\ud83d"})


@given(VALUES)
def test_what_is_plain_is_written_the_same_either_way(value):
    if survey(value).plain:
        assert module.canonical(value, plain=True) == module.canonical(value, plain=False)


def test_floats_and_keys_beyond_the_plane_are_not_plain():
    assert not survey([{"a": [1.0]}]).plain
    assert not survey([{"\U0001f600": 1}]).plain
    assert survey([{"\uffff": "\U0001f600", "a": [1, None, True]}]).plain


@pytest.mark.parametrize(
    ("value", "depth"), [(1, 0), ({}, 1), ([], 1), ({"a": 1}, 1), ({"a": {}}, 2), ([1, [2, {"a": [3]}], []], 4)]
)
def test_the_depth_counts_containers_inside_one_another(value, depth):
    assert survey(value).depth == depth
