"""Everything that is promised of reliability, measured, in one table: `make prove [SCALE=50] [ARGS=name ...]`.

`make prove ARGS=fleet MINUTES=60` is an hour of the real fleet; with all others it has five minutes.

What a proof does and how far it goes is in its module. The last are tests of `make test` that are proofs as they stand;
they are run again here, so that one table holds all of it.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys

from tests import proof
from tests.conftest import ROOT
from tests.faults.__main__ import PROOFS as FAULTS
from tests.fuzz.__main__ import PROOFS as FUZZ
from tests.load.__main__ import PROOFS as LOAD
from tests.proof import Line, Proof, at_most
from tests.real import hour
from tests.redaction.__main__ import PROOFS as REDACTION

# By a word for the command line: what is promised, and the tests that hold it.
SUITES = {
    "corpus": ("negative corpus, against the running stack", ("tests/api/test_corpus.py",)),
    "upgrades": (
        "migrations that fail, meet others, or are behind a reader",
        ("tests/integration/test_migrations.py",),
    ),
    "endpoints": (
        "every URL and answer of a resolver that is known to be dangerous",
        ("tests/unit/test_guard.py", "tests/integration/test_register_guard.py"),
    ),
    "probes": (
        "hostile answers to a check: within its time, 64 KiB of a pulse, 256 KiB of an introduction",
        ("tests/integration/test_probe_hostile.py",),
    ),
    "verdicts": (
        "every kind of server, without a pulse and by what was learnt of it",
        ("tests/integration/test_probe_verdicts.py",),
    ),
    "oracle": (
        "what a server is: the introduction, and all stock clients on all shapes and the real fleet",
        ("tests/integration/test_introduction.py", "tests/real/test_oracle.py"),
    ),
    "harm": (
        "the real fleet: 10,000 pulses, 100 introductions and a day of sweeps leave each server as it was",
        ("tests/real/test_probe_real.py", "tests/real/test_harm.py"),
    ),
    "jobs": (
        "failures in the background: batches, ten minutes without a database",
        ("tests/unit/test_background.py", "tests/integration/test_health_events.py", "tests/integration/test_shard.py"),
    ),
    "shares": (
        "one author's share: of a sweep, of what is suspected, of what is stored",
        ("tests/integration/test_results.py", "tests/integration/test_sweeps.py", "tests/integration/test_quota.py"),
    ),
    "secrets": ("credentials that change, and a secret that cannot be read", ("tests/unit/test_secret.py",)),
}
# What tests/conftest.py says at the end of a run of the corpus, and the bar for it. No test asserts this one: a busy
# machine would fail it.
SLOWEST = re.compile(r"^corpus: (\d+) answers, the slowest after ([\d.]+) s", re.MULTILINE)
CORPUS_SECONDS = 1.0


def suite(name: str) -> list[Line]:
    """Run the tests behind a promise; one line with how many passed and failed, and what else they have measured."""
    what, paths = SUITES[name]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    # In a session of its own: Ctrl-C comes to us, and we pass it on and wait until the tests' stacks have ended.
    # Some tests have a long way that they go for this only.
    env = {**os.environ, "PROVE": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        try:
            output, _ = run.communicate()
        except KeyboardInterrupt:
            run.send_signal(signal.SIGINT)
            run.communicate()
            raise
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", output)}
    if run.returncode:
        print(output[-3000:], file=sys.stderr)
    failed = counts.get("failed", 0) + counts.get("error", 0)
    passed = counts.get("passed", 0)
    told = f"{failed} of {passed + failed} tests failed"
    lines = [Line(what, "0", told, run.returncode == 0 and passed > 0)]
    if name == "corpus":
        slowest = SLOWEST.search(output)
        seconds = float(slowest[2]) if slowest else math.inf
        lines.append(
            at_most(f"{what}: slowest of {slowest[1] if slowest else 0} answers", CORPUS_SECONDS, seconds, "s")
        )
    return lines


def proofs() -> dict[str, Proof]:
    """Every proof by its name: what it is given is how far to go."""
    suites: dict[str, Proof] = {name: lambda _, name=name: suite(name) for name in SUITES}
    return {**FAULTS, **FUZZ, **LOAD, **REDACTION, **suites, "fleet": hour.prove}


if __name__ == "__main__":
    sys.exit(proof.run("tests.prove", __doc__, proofs(), proof.WHOLE))
