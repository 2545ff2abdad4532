"""Cursors: opaque, safe in a URL, and refused when changed."""

import re
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.catalogue import cursor
from mcp_registry.catalogue.cursor import Filters

FILTERS = st.builds(
    Filters,
    st.none() | st.sampled_from(["active", "error"]),
    st.none() | st.just("mock"),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
)
IDS = st.integers(1, 2**63 - 1)


@given(IDS, FILTERS)
def test_a_cursor_gives_back_its_place_and_its_filters(after, filters):
    assert cursor.decode(cursor.encode(after, filters)) == (after, filters)


@given(IDS, FILTERS)
def test_a_cursor_needs_no_encoding_in_a_url(after, filters):
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor.encode(after, filters))


@given(IDS, FILTERS, st.data())
def test_a_cursor_with_one_character_changed_is_refused(after, filters, data):
    issued = cursor.encode(after, filters)
    place = data.draw(st.integers(0, len(issued) - 1))
    other = data.draw(st.sampled_from("ABab01-_=%é\0").filter(lambda character: character != issued[place]))
    with pytest.raises(ValueError):  # noqa: PT011 - which kind of ValueError does not matter to the caller
        cursor.decode(issued[:place] + other + issued[place + 1 :])


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: urlsafe_b64encode(raw).decode()))
def test_what_was_never_issued_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011
        cursor.decode(text)


@pytest.mark.parametrize(
    "payload", [b"[0,null,null,null]", b"[1]", b"{}", b"[true,null,null,null]", b'["1",null,null,null]']
)
def test_a_cursor_with_a_checksum_but_another_content_is_refused(payload):
    from zlib import crc32

    forged = urlsafe_b64encode(crc32(payload).to_bytes(4, "big") + payload).rstrip(b"=").decode()
    with pytest.raises(ValueError):  # noqa: PT011
        cursor.decode(forged)
