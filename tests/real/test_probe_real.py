"""What the registry asks of real servers: each gets the verdict that it deserves, and is left as it was."""

from __future__ import annotations

import asyncio
import time

import pytest

from mcp_registry.dial import introduction
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import Introduction
from mcp_registry.health.probe import Result, Target, sweep
from tests.real.fixtures import SERVERS, RealServer, together

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
CHECKS = 50
# A session of an early server takes 32 KB. What an allocator does between two rounds stays below this for each check.
NOTHING = 4096


def check(*servers: RealServer, times: int = 1) -> list[Result]:
    """Check servers side by side; the results in the order of the servers."""
    targets = [Target(number, server.url, None) for number, server in enumerate(servers * times)]
    return sorted(sweep(targets, seconds=20, policy=OPEN), key=lambda result: result.id)


def settled(servers: dict[str, RealServer], seconds: float = 60) -> dict[str, Result]:
    """Of each server. What times out is checked again: who asks a bridge first waits until it has started another.

    So is what the prober was too busy to judge.
    """
    deadline = time.monotonic() + seconds
    results: dict[str, Result] = {}
    while late := [name for name in servers if name not in results or results[name].verdict in ("timeout", None)]:
        results |= zip(late, check(*(servers[name] for name in late)), strict=True)
        if time.monotonic() > deadline:
            break
    return results


def verdicts(servers: dict[str, RealServer]) -> dict[str, str | None]:
    return {name: result.verdict for name, result in settled(servers).items()}


@pytest.mark.parametrize("name", SERVERS)
def test_a_real_server_gets_the_verdict_that_it_deserves(real, name):
    result = settled({name: real[name]})[name]
    assert result.verdict == SERVERS[name].verdict, result
    if SERVERS[name].verdict != "not_mcp":
        assert result.status_code in SERVERS[name].statuses


def test_a_server_on_127_0_0_1_is_found_as_localhost(real):
    """`localhost` may mean ::1 first, where this server does not listen."""
    target = Target(1, real["example"].url.replace("127.0.0.1", "localhost"), None)
    (result,) = sweep([target], seconds=20, policy=OPEN)
    assert result.verdict == "healthy", result


def test_a_server_over_sse_is_healthy_by_the_health_url_that_it_declares(real):
    server: RealServer = real["older-sse"]
    (result,) = sweep([Target(1, server.url, f"{server.root}/health")], seconds=20, policy=OPEN)
    assert (result.verdict, result.status_code) == ("healthy", 200)


def test_a_stopped_server_is_refused_and_gets_its_verdict_back_after_a_restart(real):
    together(RealServer.stop, real.values())
    try:
        assert verdicts(real) == dict.fromkeys(SERVERS, "refused")
    finally:
        together(RealServer.start, real.values())
    assert verdicts(real) == {name: server.verdict for name, server in SERVERS.items()}


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if server.counts_sessions])
def test_checks_leave_no_session_behind(real, name):
    server: RealServer = real[name]
    before = server.sessions()
    assert {result.verdict for result in check(server, times=CHECKS)} == {"healthy"}
    assert server.sessions() == before


def test_checks_leave_the_memory_of_a_server_as_it_was(real):
    """Rounds of checks, until one took nothing: a leak takes something in every round, an allocator does not."""
    growing = dict(real)
    for _ in range(6):
        before = {name: server.memory() for name, server in growing.items()}
        check(*growing.values(), times=CHECKS)
        growing = {
            name: server for name, server in growing.items() if server.memory() - before[name] > CHECKS * NOTHING
        }
        if not growing:
            return
    raise AssertionError(f"the memory grows with every check of {', '.join(growing)}")


# ------------------------------------------------------------------ introductions


def introduced(urls: list[str]) -> list[Introduction]:
    async def run() -> list[Introduction]:
        return await asyncio.gather(*(introduction.introduce(url, policy=OPEN) for url in urls))

    return asyncio.run(run())


# The early SDK (1.22) is not among them: it ends a session that is deleted, and keeps its entry for good, whoever asks.
@pytest.mark.parametrize("name", ["older-sdk", "current-sdk"])
def test_introductions_leave_no_session_behind(real, name):
    server: RealServer = real[name]
    before = server.sessions()
    assert {one.verdict for one in introduced([server.url] * 20)} == {"up"}
    assert server.sessions() == before
