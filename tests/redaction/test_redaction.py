"""No planted secret comes out anywhere, in the bounded run; what all other tests printed is test_whole_run.py's."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from tests.conftest import ROOT, nowhere_else
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


# What a run of one worker is given as a plugin: only there it prints what nothing may.
PLANTED = """
import os, pytest
from tests.conftest import BASIC, Local

@pytest.fixture(autouse=True, scope="session")
def leaks():
    if "PYTEST_XDIST_WORKER" in os.environ:
        print(BASIC)
        stack = Local({"REGISTRY_PASSWORD": "canary-of-a-stack"}, ("-c", "print('canary-of-a-stack')"))
        stack.process.wait()
        stack._reader.join()
"""


def test_what_workers_have_printed_is_searched_when_they_have_ended(tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "planted", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "tests/unit/test_token.py", "tests/redaction/test_whole_run.py"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    for found in ("REGISTRY_PASSWORD: ...canary-of-a-stack", "the credentials: ...Basic", "2 failed, 4 passed"):
        assert found in run.stdout, run.stdout
