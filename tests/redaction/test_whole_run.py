"""What the stack that all tests share has printed by the end of the run, after every request of theirs."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import BASIC, SERVERS, Local
from tests.redaction.canaries import INTERNALS, Canaries

# The line of a request has its path, which is the client's own.
OF_A_REQUEST = re.compile(r"\d\d:\d\d:\d\d  [A-Z]+ +\S")


def test_the_stack_that_the_tests_shared_has_printed_no_secret():
    # The fixture gives its URL only, and must not be started here. Every other stack has ended with its own test.
    running = [each for each in gc.get_objects() if type(each) is Local and each.process.poll() is None and each.url]
    if not running:
        pytest.skip("no test of this run has started the stack")
    for local in running:
        known = Canaries()
        known.plant("the credentials", BASIC.removeprefix("Basic "))
        if (environment := Path(f"/proc/{local.process.pid}/environ")).exists():
            settings = [each.partition("=") for each in environment.read_text().split("\0")]
            (database_url,) = (value for name, _, value in settings if name == "DATABASE_URL")
            known.plant("the database's password", str(conninfo_to_dict(database_url)["password"]))
        printed = [line for line in list(local.output) if not OF_A_REQUEST.match(line) and SERVERS not in line]
        text = "\n".join(printed).encode()
        assert known.found(text) == []
        assert [line for line in printed if INTERNALS.search(line.encode())] == []
