"""No planted secret comes out anywhere, in the bounded run; what all other tests printed is test_whole_run.py's."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from tests.conftest import nowhere_else
from tests.proof import Line, table
from tests.redaction import canaries, search


@pytest.fixture(scope="module")
def lines(request: pytest.FixtureRequest) -> list[Line]:
    nowhere_else(request.config)
    return canaries.prove(1)


def one(lines: list[Line], beginning: str) -> Line:
    (line,) = (line for line in lines if line.what.startswith(beginning))
    return line


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_canary_is_found_in_every_form(before: str):
    known = search.Canaries()
    raw = f"{before}{known.plant('a secret')}xyz".encode()
    for text in (raw, b64encode(raw), urlsafe_b64encode(raw), raw.hex().encode(), quote(raw).encode()):
        assert len(known.found(b"..." + text + b"...")) == 1
        assert known.found(b"..." + text + b"...", {"a sec"}) == []
    assert known.found(b"canary") == []


def test_no_planted_secret_is_printed_logged_or_answered(lines: list[Line]):
    others = [line for line in lines if not line.what.startswith(canaries.READY_BLOCK)]
    assert all(line.met for line in others), "\n" + table(others)


def test_the_ready_block_does_not_print_a_password_of_the_users_own(lines: list[Line]):
    assert one(lines, canaries.READY_BLOCK).met
