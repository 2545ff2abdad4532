"""How often an address may be wrong, by a clock that is played."""

from __future__ import annotations

import pytest

from mcp_registry.access import limits

HOME, AWAY = "192.0.2.1", "198.51.100.7"
MINE, OTHER = b"mine", b"other"


@pytest.fixture(autouse=True)
def fresh():
    limits.forget()
    yield
    limits.forget()


def wrong(times: int, address: str = HOME, now: float = 1000.0) -> None:
    for _ in range(times):
        limits.note_wrong(address, now)


def test_twenty_wrong_credentials_a_minute_are_looked_at_and_no_more():
    wrong(19)
    assert not limits.is_closed(HOME, MINE, 1000.0)
    wrong(1)
    assert limits.is_closed(HOME, MINE, 1000.0)
    assert limits.is_closed(HOME, MINE, 1059.9)
    assert not limits.is_closed(HOME, MINE, 1060.0)


def test_it_is_the_last_minute_that_counts():
    for second in range(100):
        limits.note_wrong(HOME, 1000.0 + 3 * second)  # twenty in a minute
        assert not limits.is_closed(HOME, MINE, 1003.0 + 3 * second)
    for second in range(19):
        limits.note_wrong(HOME, 1297.0 + second / 10)
    assert limits.is_closed(HOME, MINE, 1300.0)


def test_nobody_else_is_kept_out():
    wrong(100)
    assert not limits.is_closed(AWAY, MINE, 1000.0)


def test_what_was_right_goes_on_being_looked_at_for_an_hour():
    limits.note_right(MINE, 1000.0)
    wrong(20, now=4590.0)
    assert not limits.is_closed(HOME, MINE, 4599.9)
    assert limits.is_closed(HOME, MINE, 4600.0)
    assert limits.is_closed(HOME, OTHER, 4599.9)


def test_what_is_right_again_is_remembered_anew():
    limits.note_right(MINE, 1000.0)
    limits.note_right(MINE, 3000.0)
    wrong(20, now=6590.0)
    assert not limits.is_closed(HOME, MINE, 6599.9)


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0::1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("no:address", "nor:this", False),
        ("no:address\0", "no:address", False),
        ("", "192.0.2.1", False),
    ],
)
def test_an_address_of_ipv6_counts_by_its_network(one, another, same):
    wrong(20, one)
    assert limits.is_closed(one, MINE, 1000.0)
    assert limits.is_closed(another, MINE, 1000.0) == same


def test_the_addresses_are_bounded_and_those_go_that_were_wrong_longest_ago(monkeypatch):
    monkeypatch.setattr(limits, "MAX_ADDRESSES", 2)
    wrong(20, "a")
    wrong(20, "b")
    wrong(1, "a")
    wrong(20, "c")
    assert [limits.is_closed(each, MINE, 1000.0) for each in "abc"] == [True, False, True]
    assert len(limits._wrong) == 2 and max(map(len, limits._wrong.values())) == 20


def test_what_was_right_is_bounded_and_that_goes_which_was_right_longest_ago(monkeypatch):
    monkeypatch.setattr(limits, "MAX_RIGHT", 2)
    wrong(20)
    for credential in (b"a", b"b", b"a", b"c"):
        limits.note_right(credential, 1000.0)
    assert [limits.is_closed(HOME, each, 1000.0) for each in (b"a", b"b", b"c")] == [False, True, False]
