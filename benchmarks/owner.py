"""What being watched costs the owner of a server: the processor's time, memory and sessions of the server itself.

Real servers (tests/real) are asked by the engine of the sweeps, as they are every half minute once their pulse is
learnt; against the check of before, kept here, which asked each of them the same (until 2026-11-30: `server/discover`,
with a session that nobody has). An introduction, with what is learnt after it, comes once an hour. The time is that of
the server and of all processes that it has started, also of those that have ended, as the kernel counts it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.report import Result, alternate, figure, medians, table
from mcp_registry.health.probe import Target
from tests.real.fixtures import FLEET, RealServer, available, running
from tests.real.watch import introduced, question, sweep

ROUNDS = 3
AT_ONCE = 4
# How long a server may take to end what it has started for a question.
SETTLE_SECONDS = 60.0
CHECKS_A_DAY, INTRODUCTIONS_A_DAY = 2_880, 24


class Subject(NamedTuple):
    """A server, how often each thing is done to it in a round, and what a pulse may cost of a check."""

    what: str
    name: str
    checks: int
    pulses: int
    introductions: int
    bar: float


SUBJECTS = (
    Subject("bridge, a process a request", "bridge-of-requests", 5, 500, 2, 0.05),
    Subject("SDK for Python 1.x", "older-sdk", 300, 300, 10, 1.0),
    Subject("SDK for Python 1.22", "early-sdk", 300, 300, 10, 1.0),
    Subject("SDK for Python 2.x", "current-sdk", 300, 300, 10, 1.0),
    Subject("SDK for TypeScript 1.x", "typescript-1", 3000, 3000, 20, 1.0),
    Subject("SDK for TypeScript 2.x", "typescript-2", 2000, 2000, 20, 1.0),
)

DISCOVER = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "mcp-registry", "version": "1.0"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        },
    },
    separators=(",", ":"),
)
FIXED = (
    "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
    "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: server/discover\r\n"
    "Mcp-Session-Id: mcp-registry-check\r\nUser-Agent: mcp-registry/1.0\r\nAccept-Encoding: identity\r\n"
    f"Connection: close\r\nContent-Length: {len(DISCOVER)}\r\n\r\n{DISCOVER}"
)


def run() -> list[Result]:
    """Measure and print."""
    subjects = [subject for subject in SUBJECTS if available([subject.name])]
    rows: list[tuple[str, ...]] = [
        (
            "server",
            "asked",
            "check ms",
            "pulse ms",
            "ratio",
            "introduction ms",
            "s a day",
            "before",
            "KB kept",
            "sessions",
        )
    ]
    results: list[Result] = []
    for subject in subjects:
        with running(subject.name) as servers:
            row, result = _measured(subject, servers[subject.name])
        rows.append(row)
        results.append(result)
    print("CPU of the server, of one check, one pulse and one introduction; what 100 pulses leave in it:\n")
    print(table(rows))
    return results


def _measured(subject: Subject, server: RealServer) -> tuple[tuple[str, ...], Result]:
    target = introduced([server])[subject.name]
    idle = len(server.processes())

    def each(times: int, action: Callable[[], None]) -> Callable[[], float]:
        def measure() -> float:
            before = server.seconds()
            action()
            _settle(server, idle)
            return (server.seconds() - before) / times * 1000

        return measure

    def checks() -> None:
        for _ in range(subject.checks):
            _check(server)

    def pulses() -> None:
        _swept(target, subject.pulses)

    def introductions() -> None:
        for _ in range(subject.introductions):
            introduced([server])

    works = {
        "check": each(subject.checks, checks),
        "pulse": each(subject.pulses, pulses),
        "introduction": each(subject.introductions, introductions),
    }
    for warm in works.values():
        warm()
    cost = medians(alternate(works, ROUNDS))
    memory, sessions = server.memory(), _sessions(server)
    pulses()
    kept = max(server.memory() - memory, 0) / 1024 * 100 / subject.pulses
    day = (CHECKS_A_DAY * cost["pulse"] + INTRODUCTIONS_A_DAY * cost["introduction"]) / 1000
    before = CHECKS_A_DAY * cost["check"] / 1000
    result = Result(f"owner: a pulse, {subject.what}", cost["pulse"], cost["check"], "ms", subject.bar)
    row = (
        subject.what,
        question(target) or "introduction",
        *(figure(value) for value in (cost["check"], cost["pulse"])),
        f"{result.ratio:.3f}",
        *(figure(value) for value in (cost["introduction"], day, before, kept)),
        f"{_sessions(server) - sessions}" if FLEET[subject.name].counts_sessions else "-",
    )
    return row, result


def _check(server: RealServer) -> None:
    """The check of before, as far as the server sees it: its answer is read to the end."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=SETTLE_SECONDS) as connection:
        connection.sendall((FIXED % (server.server.path, server.port)).encode())
        while connection.recv(65536):
            pass


def _swept(target: Target, times: int) -> None:
    found = sweep([target] * times, at_once=AT_ONCE)
    late = [one for one in found if (one.verdict, one.in_doubt) != (target.verdict, False)]
    assert not late, late[0]


def _settle(server: RealServer, idle: int) -> None:
    """Wait until it has ended what it started: the time of a process is its parent's once it is gone."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while len(server.processes()) > idle and time.monotonic() < deadline:
        time.sleep(0.02)


def _sessions(server: RealServer) -> int:
    return server.sessions() if server.server.counts_sessions else 0
