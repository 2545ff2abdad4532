"""Postgres is killed under writers in three ways, and functions are; what was acknowledged is there, and whole."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable

import psycopg

from local.postgres import Postgres
from tests.conftest import Local
from tests.faults import stage
from tests.faults.ledger import Ledger
from tests.proof import FAR, Line, at_most

KILLS = 2  # of each kind, in the bounded run
FUNCTION_KILLS = 10

BACKENDS = """
SELECT pid
  FROM pg_stat_activity
 WHERE backend_type = 'client backend'
   AND pid <> pg_backend_pid()
 ORDER BY state = 'active' DESC, random()
"""


def prove(scale: int) -> list[Line]:
    """Two kills of each of three kinds times `scale`, and ten of functions up to FAR times."""
    # Durable, as in the cloud: nothing that a crash could lose is left out.
    with stage.postgres() as server, stage.stack(server.url, **stage.QUIET) as local:
        lines: list[Line] = []
        for word, crash in (
            ("postmaster killed", _kill),
            ("backend killed", _kill_backend),
            ("stopped at once", _stop),
        ):
            lines += _crashes(server, local, word, crash, scale)
        return lines + _function_kills(server, local, scale)


def _crashes(server: Postgres, local: Local, word: str, crash: Callable[[Postgres], None], scale: int) -> list[Line]:
    ledger = Ledger(local.url, word.replace(" ", "-"))
    firsts: list[float] = []
    kills = KILLS * scale
    with ledger.load():
        for _ in range(kills):
            ledger.await_successes(random.randint(10, 40 if scale == 1 else 200))
            crash(server)
            stage.until(lambda: stage.accepts(server.url))
            firsts.append(ledger.first_success(time.monotonic()))
        ledger.await_successes(20)
    return ledger.lines(f"{word}, {kills} times", scale, ledger.compare(server.url), firsts)


def _kill(server: Postgres) -> None:
    """SIGKILL of the postmaster, and a start."""
    server.kill()
    server.start()


def _stop(server: Postgres) -> None:
    """Immediate stop, as by `pg_ctl stop -m immediate`, and a start."""
    os.kill(server.pid, signal.SIGQUIT)
    stage.until(lambda: not stage.runs(server))
    server.start()


def _kill_backend(server: Postgres) -> None:
    """SIGKILL of one backend, of one at work if there is any: the postmaster ends all others and recovers."""
    with psycopg.connect(server.url, autocommit=True) as admin:

        def killed() -> bool:
            for (pid,) in admin.execute(BACKENDS).fetchall():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return True
            return False

        def ended() -> bool:
            try:
                admin.execute("SELECT 1")
            except psycopg.OperationalError:
                return True
            return False

        stage.until(killed)
        stage.until(ended)


def _function_kills(server: Postgres, local: Local, scale: int) -> list[Line]:
    """Processes of functions are killed at random under load: each costs the request that it was at, and no more."""
    ledger = Ledger(local.url, "function")
    kills = FUNCTION_KILLS * min(scale, FAR)
    with ledger.load():
        ledger.await_successes(20)
        for _ in range(kills):
            ledger.await_successes(random.randint(1, 10))
            stage.signal_all([random.choice(stage.functions(local))], signal.SIGKILL)
        ledger.await_successes(20)
    harmed = sum(note.status == 503 for note in ledger.notes)
    what = f"functions killed, {kills} times"
    lines = ledger.lines(what, scale, ledger.compare(server.url))
    return [*lines, at_most(f"{what}: requests that it cost", kills, harmed)]
