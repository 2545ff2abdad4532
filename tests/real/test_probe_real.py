"""What the registry asks of real servers: each has a pulse, and gets the verdict that it deserves."""

from __future__ import annotations

import os
import time

import pytest

from mcp_registry.health.probe import Result, Target
from tests.real.conftest import ASKED
from tests.real.fixtures import FLEET, SERVERS, RealServer, together
from tests.real.watch import PATIENCE, introduced, question, sweep

# Who answers what nobody else answers at no path of its own: a POST beside the stream of an SSE server in Express is
# 404 as anywhere else, and Playwright's speaks MCP at every path. They are introduced in every sweep.
WITHOUT_PULSE = {"typescript-everything-sse", "typescript-playwright", "bridge-sse"}


@pytest.fixture(scope="module")
def known(fleet) -> dict[str, Target]:
    """What the registry knows of each server, once it was introduced."""
    return introduced(fleet.values())


def swept(known: dict[str, Target], **changes: str | None) -> dict[str, Result]:
    """Of each server. Who is late is asked again: other programs may keep the machine busy."""
    found: dict[str, Result] = {}
    deadline = time.monotonic() + PATIENCE
    while late := [name for name in known if name not in found or found[name].verdict in ("timeout", None)]:
        found |= zip(late, sweep([known[name]._replace(**changes) for name in late]), strict=True)
        if time.monotonic() > deadline:
            break
    return found


def verdicts(known: dict[str, Target], **changes: str | None) -> dict[str, str | None]:
    return {name: result.verdict for name, result in swept(known, **changes).items()}


DESERVED = {name: FLEET[name].verdict for name in ASKED}


def test_an_introduction_finds_of_each_server_what_it_deserves_and_teaches_its_pulse(known):
    assert {name: target.verdict for name, target in known.items()} == DESERVED
    assert {name for name in known if question(known[name]) is None} == WITHOUT_PULSE & known.keys()


def test_a_pulse_says_of_each_server_that_it_is_as_before(known):
    found = swept(known)
    assert {name: result.verdict for name, result in found.items()} == DESERVED
    assert {name for name, result in found.items() if result.in_doubt} == set()


def test_a_server_of_which_nothing_is_known_gets_its_verdict_by_an_introduction(known):
    assert verdicts(known, pulse=None, era=None, verdict=None) == DESERVED


def test_a_server_on_127_0_0_1_is_found_as_localhost(known):
    """`localhost` may mean ::1 first, where this server does not listen."""
    target: Target = known["example"]
    (result,) = sweep([target._replace(url=target.url.replace("127.0.0.1", "localhost"))])
    assert result.verdict == "healthy", result


def test_a_stopped_server_is_refused_and_gets_its_verdict_back_after_a_restart(fleet, known):
    """In `make test` those in Python: the others take as long to start, and the hour of the fleet stops them all."""
    stopped = {name: target for name, target in known.items() if name in SERVERS or "PROVE" in os.environ}
    servers: list[RealServer] = [fleet[name] for name in stopped]
    deserved = {name: DESERVED[name] for name in stopped}
    together(RealServer.stop, servers)
    try:
        found = swept(stopped)
        assert {name: result.verdict for name, result in found.items()} == dict.fromkeys(stopped, "refused")
    finally:
        together(RealServer.start, servers)
    assert verdicts(stopped, verdict="refused") == deserved
    # And where nobody noticed that it was away.
    assert verdicts(stopped) == deserved


@pytest.mark.skipif("PROVE" not in os.environ, reason="it takes all the time that a sweep has: make prove freezes some")
def test_a_frozen_server_is_late_and_well_again_when_it_goes_on(fleet, known):
    servers: list[RealServer] = [fleet[name] for name in ASKED if FLEET[name].sample or FLEET[name].counts_sessions]
    targets = {server.name: known[server.name] for server in servers}
    together(RealServer.freeze, servers)
    try:
        found = sweep(list(targets.values()))
        assert {one.verdict for one in found} == {"timeout"} and all(one.evidence for one in found), found
    finally:
        together(RealServer.thaw, servers)
    assert verdicts(targets, verdict="timeout") == {name: FLEET[name].verdict for name in targets}
