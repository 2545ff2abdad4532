"""Everything that is promised of reliability, measured, in one table: `make prove [SCALE=20] [ARGS=name ...]`.

What a proof does and how far it goes is in its module. The last are tests of `make test` that are proofs as they stand;
they are run again here, so that one table holds all of it.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.conftest import ROOT
from tests.faults.__main__ import PROOFS as FAULTS
from tests.fuzz.__main__ import PROOFS as FUZZ
from tests.load.__main__ import PROOFS as LOAD
from tests.proof import Line, table
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


def proofs() -> dict[str, Callable[[int], list[Line]]]:
    """Every proof by its name: what it is given is how far to go."""
    suites: dict[str, Callable[[int], list[Line]]] = {name: lambda _, name=name: suite(name) for name in SUITES}
    return {**FAULTS, **FUZZ, **LOAD, **REDACTION, **suites}


def main() -> int:
    """Run the named proofs, or all; exit code 1 where a promise is not held."""
    known = proofs()
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(known))
    parser.add_argument("--scale", type=int, default=SCALE, metavar="N", help="1 is as far as make test goes")
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(known)
    if unknown := set(names) - set(known):
        parser.error(f"there is no proof {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    # Whoever ends a run from outside sends this one: what was started is ended then as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lines: list[Line] = []
    for name in names:
        started = time.monotonic()
        lines += known[name](max(arguments.scale, 1))
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(table(lines))
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
