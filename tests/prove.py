"""Everything that is promised of reliability, measured, in one table: `make prove [SCALE=20] [ARGS=name ...]`.

What a proof does and how far it goes is in its module. The last are tests of `make test` that are proofs as they stand;
they are run again here, so that one table holds all of it.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tests import proof
from tests.conftest import ROOT
from tests.faults.__main__ import PROOFS as FAULTS
from tests.fuzz.__main__ import PROOFS as FUZZ
from tests.load.__main__ import PROOFS as LOAD
from tests.proof import Line, Proof
from tests.redaction.__main__ import PROOFS as REDACTION

SCALE = 20

# By a word for the command line: what is promised, and the tests that hold it.
SUITES = {
    "corpus": (
        "negative corpus, against the running stack: answers other than the accepted",
        ("tests/api/test_corpus.py",),
    ),
    "migrations": (
        "12 migrations at once; cut off after each statement; behind a reader",
        ("tests/integration/test_migrations.py",),
    ),
    "endpoints": ("every URL and answer of a resolver that is known to be dangerous", ("tests/unit/test_guard.py",)),
    "probes": (
        "hostile answers to a probe: ended by its deadline, 64 KiB at most",
        ("tests/integration/test_probe_hostile.py",),
    ),
}


def suite(name: str) -> list[Line]:
    """Run the tests behind a promise; one line with how many passed and failed."""
    what, paths = SUITES[name]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    if done.returncode:
        print(done.stdout[-3000:], file=sys.stderr)
    failed = counts.get("failed", 0) + counts.get("error", 0)
    figure = f"{failed} of {counts.get('passed', 0) + failed} tests failed"
    return [Line(what, "0", figure, done.returncode == 0 and counts.get("passed", 0) > 0)]


def proofs() -> dict[str, Proof]:
    """Every proof by its name: what it is given is how far to go."""
    suites: dict[str, Proof] = {name: lambda _, name=name: suite(name) for name in SUITES}
    return {**FAULTS, **FUZZ, **LOAD, **REDACTION, **suites}


if __name__ == "__main__":
    sys.exit(proof.run("tests.prove", __doc__, proofs(), SCALE))
