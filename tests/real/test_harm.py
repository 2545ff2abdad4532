"""No server is harmed by being watched: none ends, restarts, opens or keeps anything because of it.

`make prove` goes the whole way: ten thousand pulses of each server of the fleet, a hundred introductions, and a day of
sweeps over the bridge that a question at the wrong time ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from mcp_registry.health.probe import Target
from tests.real.conftest import ASKED
from tests.real.fixtures import SERVERS, RealServer, running
from tests.real.watch import PATIENCE, introduced, question, sweep

PROVE = "PROVE" in os.environ
PULSES = 10_000 if PROVE else 50
INTRODUCTIONS = 100 if PROVE else 2
# The sweeps of a day, and how often of it the registry introduces itself.
DAY, HOURS = (2_880, 24) if PROVE else (40, 2)
# Under way together at one server: more would say how it bears load, and not what a pulse leaves behind.
AT_ONCE = 8
# What may be left of one, on average, and what an allocator does between two rounds. A session of an early server of
# Python takes 32 KB, and what V8 throws away of a hundred requests 5 MB: of JavaScript, only many of them can tell.
NOTHING = 256
ALLOCATOR = 2 << 20
ROUNDS = 6
# It ends a session that is deleted, and keeps its entry for good, whoever asks (releases up to 1.29 of the SDK).
KEEPS_ENTRIES = {"early-sdk", "early-fastmcp"}


class Held(NamedTuple):
    """What a server holds, as far as it can be seen from outside."""

    processes: tuple[int, ...]
    descriptors: int
    sessions: int | None


def held(server: RealServer) -> Held:
    sessions = server.sessions() if server.server.counts_sessions else None
    return Held(tuple(server.processes()), server.descriptors(), sessions)


def settled(server: RealServer, before: Held) -> Held:
    """What it holds once it is no more than before: a connection, or a process behind a bridge, takes time to end."""
    deadline = time.monotonic() + PATIENCE
    while (after := held(server)) and time.monotonic() < deadline:
        if after.descriptors <= before.descriptors and len(after.processes) <= len(before.processes):
            break
        time.sleep(0.05)
    return after


def unharmed(server: RealServer, before: Held) -> None:
    """Fails where the server has lost or replaced a process, or holds more than it did."""
    after = settled(server, before)
    assert after.processes == before.processes, "a process has ended, or stays"
    assert after.descriptors <= before.descriptors, "it keeps files or connections open"
    assert after.sessions == before.sessions, "it keeps sessions"


def leaves_memory(server: RealServer, action: Callable[[], None], each: int) -> None:
    """Rounds of something, until one took nothing: a leak takes something in every round, an allocator does not."""
    for _ in range(ROUNDS):
        before = server.memory()
        action()
        if server.memory() - before <= ALLOCATOR + each * NOTHING or not (PROVE or server.name in SERVERS):
            return
    raise AssertionError("its memory grows with every round")


def watched(target: Target, times: int, at_once: int) -> None:
    """Let a server be checked so many times with success. A busy machine may be late meanwhile, and nothing else."""
    deadline = time.monotonic() + PATIENCE
    while times > 0:
        assert time.monotonic() < deadline, f"{times} left"
        found = sweep([target] * min(times, 500), at_once=at_once)
        assert {one.verdict for one in found} <= {target.verdict, "timeout", None}, found
        times -= sum(one.verdict == target.verdict for one in found)


@pytest.fixture(scope="module")
def known(fleet) -> dict[str, Target]:
    """What the registry asks of each server, which has had its introduction and a first round of pulses."""
    targets = introduced(fleet.values())
    sweep(list(targets.values()) * 3)
    return targets


@pytest.mark.parametrize("name", ASKED)
def test_pulses_leave_a_server_as_it_was(fleet, known, name):
    server: RealServer = fleet[name]
    target: Target = known[name]
    if question(target) is None:
        pytest.skip("it is introduced in every sweep")
    before = settled(server, held(server))

    def pulses() -> None:
        watched(target, PULSES, 1 if server.server.shares_process else AT_ONCE)

    leaves_memory(server, pulses, PULSES)
    unharmed(server, before)


@pytest.mark.parametrize("name", ASKED)
def test_introductions_leave_a_server_as_it_was(fleet, known, name):
    server: RealServer = fleet[name]
    target: Target = known[name]._replace(pulse=None)
    before = settled(server, held(server))

    def introductions() -> None:
        watched(target, INTRODUCTIONS, 1)

    if name in KEEPS_ENTRIES:
        introductions()
        before = before._replace(sessions=settled(server, before).sessions)
    else:
        leaves_memory(server, introductions, INTRODUCTIONS)
    unharmed(server, before)


def test_a_bridge_that_starts_a_process_for_each_request_starts_none_for_a_pulse(fleet, known):
    bridge: RealServer = fleet["bridge-of-requests"]
    before = bridge.seconds()
    sweep([known["bridge-of-requests"]] * 20, at_once=AT_ONCE)
    # A process takes half a second of the processor's time to start.
    assert bridge.seconds() - before < 1


@pytest.mark.skipif("rust-bridge" not in ASKED, reason="the bridge is a binary for Linux on x86-64")
def test_the_bridge_that_a_check_can_end_lives_through_a_day_of_sweeps():
    """Its process ends of whatever is asked before the first `initialize`; after ten times the bridge gives up."""
    with running("rust-bridge") as started:
        bridge = started["rust-bridge"]
        target = introduced([bridge])["rust-bridge"]
        before = bridge.processes()
        assert len(before) == 2
        for number in range(DAY):
            if number % (DAY // HOURS) == 0:
                target = introduced([bridge])["rust-bridge"]
            watched(target, 1, 1)
        assert bridge.processes() == before


@pytest.mark.skipif("rust-bridge" not in ASKED, reason="the bridge is a binary for Linux on x86-64")
def test_a_bridge_that_was_started_again_between_two_sweeps_is_found_well_by_the_next():
    """Nobody has introduced himself to its new process: what is asked before that may end it, but not for good."""
    with running("rust-bridge") as started:
        bridge = started["rust-bridge"]
        target = introduced([bridge])["rust-bridge"]
        for _ in range(12 if PROVE else 1):
            bridge.stop()
            bridge.start()
            watched(target, 2, 1)
