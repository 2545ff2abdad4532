"""The query of a list."""

import json
from base64 import urlsafe_b64encode
from zlib import crc32

import pytest

from mcp_registry.catalogue import cursor, listing
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import ValidationFailed


def paths(query: dict[str, str]) -> list[str]:
    with pytest.raises(ValidationFailed) as refused:
        listing.parse(query)
    return [fault.path for fault in refused.value.faults]


def test_nothing_asked_is_the_first_hundred():
    assert listing.parse({}) == (Filters(), 100, 0)


def test_empty_filters_are_no_filters():
    assert listing.parse({"status": "", "type": "", "search": ""}).filters == Filters()


@pytest.mark.parametrize("limit", ["1", "100", "1000"])
def test_a_page_may_have_one_to_a_thousand_servers(limit):
    assert listing.parse({"limit": limit}).limit == int(limit)


@pytest.mark.parametrize("limit", ["", "0", "-1", "+1", "1001", "1e3", "1.5", "0x10", "１", " 1", "01", "9" * 30])
def test_other_limits_are_refused(limit):
    assert paths({"limit": limit}) == ["limit"]


@pytest.mark.parametrize("value", ["bogus", "ACTIVE", "active ", "active\0", "active,error", "null"])
def test_unknown_filters_are_refused(value):
    assert paths({"status": value, "type": value}) == ["status", "type"]


@pytest.mark.parametrize("search", ["a" * 201, "\0", "a\nb", "\ufffd", chr(0xD800)])
def test_a_search_that_can_match_nothing_is_refused(search):
    assert paths({"search": search}) == ["search"]


@pytest.mark.parametrize("text", ["\n", "\x1f", "abc\n", "\x1ca", "\ta"])
@pytest.mark.parametrize("name", ["search", "tag", "owner"])
def test_a_control_character_is_refused_wherever_it_stands(name, text):
    with pytest.raises(ValidationFailed) as refused:
        listing.parse({name: text})
    assert [fault.path for fault in refused.value.faults] == [name]


@pytest.mark.parametrize("text", ["", " ", "\u3000 "])
def test_blanks_alone_are_no_filter(text):
    assert listing.parse({"search": text, "tag": text, "owner": text}) == listing.parse({})


def test_an_owner_is_a_filter_and_no_longer_than_the_name_of_a_team():
    assert listing.parse({"owner": "payments"}).filters == Filters(owner="payments")
    assert listing.parse({"owner": "a" * 63}).filters.owner == "a" * 63
    assert paths({"owner": "a" * 64}) == ["owner"]


def test_every_fault_is_told_at_once():
    assert paths({"offset": "1", "status": "x", "limit": "0", "cursor": "abc"}) == [
        "offset",
        "status",
        "limit",
        "cursor",
    ]


def test_a_cursor_brings_its_filters_along():
    filters = Filters("active", None, "weather", owner="payments")
    issued = cursor.encode(7, filters)
    assert listing.parse({"cursor": issued}) == (filters, 100, 7)
    repeated = {"cursor": issued, "status": "active", "search": "weather", "owner": "payments"}
    assert listing.parse(repeated) == (filters, 100, 7)


@pytest.mark.parametrize(
    "filters",
    [Filters("bogus"), Filters(None, "x"), Filters(search="a\0b"), Filters(search="\ud800"), Filters(search="a" * 201)],
)
def test_a_forged_cursor_with_filters_that_nobody_could_ask_for_is_refused(filters):
    payload = json.dumps([1, *filters]).encode()
    forged = urlsafe_b64encode(crc32(payload).to_bytes(4, "big") + payload).rstrip(b"=").decode()
    assert paths({"cursor": forged}) == ["cursor"]


def test_a_forged_cursor_that_is_nested_too_deeply_is_refused():
    payload = b"[" * 1_500
    assert paths({"cursor": urlsafe_b64encode(crc32(payload).to_bytes(4, "big") + payload).rstrip(b"=").decode()})


def test_a_cursor_of_other_filters_is_refused():
    assert paths({"cursor": cursor.encode(7, Filters("active")), "status": "error"}) == ["cursor"]
