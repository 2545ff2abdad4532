"""Generated input, as far as a run of every test goes; `python -m tests.fuzz --scale N` goes further."""

from __future__ import annotations

import pytest

from tests.conftest import nowhere_else
from tests.fuzz import coverage, guard, requests
from tests.proof import table


def test_no_generated_spelling_leads_the_resolver_to_a_closed_address_past_the_guard():
    lines = guard.prove(1)
    assert all(line.met for line in lines), table(lines)


def test_no_input_that_was_kept_breaks_the_guard_urls_intake_or_what_reads_tokens():
    lines = coverage.prove(1)
    assert all(line.met for line in lines), table(lines)


def test_no_generated_request_is_answered_with_an_error_of_ours(request: pytest.FixtureRequest):
    nowhere_else(request.config)
    lines = requests.prove(1)
    assert all(line.met for line in lines), table(lines)
