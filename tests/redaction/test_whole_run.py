"""What a whole run has printed: every local stack that its tests started, and the functions that tests call.

It comes after all other tests (tests/conftest.py), of all workers where there are several. The answers of the API are
looked at where they arrive (`Api.send`).
"""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import BASIC, PASSWORD, PRINTED, Local
from tests.redaction import search


@pytest.fixture(scope="module")
def known() -> search.Canaries:
    """The secrets of all stacks of this run."""
    known = search.Canaries()
    known.plant("the credentials", BASIC.removeprefix("Basic "))
    for stack in Local.started:
        own = stack.settings.get("REGISTRY_PASSWORD", PASSWORD)
        if own != PASSWORD:  # which the ready block shows: it is the one that everybody knows
            known.plant("REGISTRY_PASSWORD", own)
        try:
            given = conninfo_to_dict(stack.settings.get("DATABASE_URL", "")).get("password")
        except psycopg.ProgrammingError:
            given = None
        if given:
            known.plant("the database's password", str(given))
        # Of the Postgres that a local run brings itself.
        if (file := Path(stack.settings.get("DATA_DIR", ".data")) / "postgres.password").exists():
            known.plant("the password of its own database", file.read_text(encoding="ascii").strip())
    known.planted = list(dict.fromkeys(known.planted))
    return known


def test_no_stack_that_a_test_started_has_printed_a_secret(known: search.Canaries):
    if not Local.started:
        pytest.skip("no test of this run has started a stack")
    for stack in Local.started:
        assert known.found("\n".join(stack.output).encode()) == []
        # With all that it has printed: a line by itself does not say where it comes from.
        assert search.forbidden(stack.output) == [], "\n".join(stack.output)


def test_no_function_that_a_test_called_has_printed_a_secret(known: search.Canaries):
    for test, printed in PRINTED:
        assert known.found(printed.encode()) == [], test
        lines = printed.splitlines()
        if test.startswith("tests/unit/"):  # which log what they make up
            continue
        if not test.startswith("tests/api/"):
            # Other tests print other things as well, on purpose. What the functions log has the name of their service.
            lines = [line for line in lines if '"service":' in line]
        assert search.forbidden(lines) == [], test
