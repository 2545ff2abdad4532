"""Checks: what a server is asked, how its answer is judged, and how many are checked side by side without haste or lie.

The worst that this product can say is that a server is down which is not. So the engine measures its own lateness: a
check that fails while we were late is repeated, and when that was no fairer the server is *not checked*, never down.
The owner of uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mcp_registry.aws import observability
from mcp_registry.dial import exchange, guard, reach, urls
from mcp_registry.dial.exchange import Answer, Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.lookup import Names, Resolver, System
from mcp_registry.dial.reach import Finding, Site

if sys.platform == "win32":  # for which there is no uvloop
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

# What a check may take: look-up, connection, TLS and each of its requests together.
DEADLINE = 5.0

# How often the engine looks at the clock, and when it was late: a look that came so much later than it was due counts,
# and so many seconds of that in the life of a check make its failure ours. Less is what threads and neighbours on a
# machine cost all the time: counting 50 ms left servers that really hang unjudged on two busy cores (2026-11-22).
TICK_SECONDS = 0.05
SLIP_SECONDS = 0.1
UNFAIR_SECONDS = 0.25
ATTEMPTS = 2
# Of the checks that one address may have in a sweep, so many are under way together: where each takes its deadline, all
# of them still have their turn within the time of a sweep (three rounds of 5 s, of 22).
HOST_AT_ONCE = 0.4
# Checks that start in one go. Between two goes answers are read: a thousand dials at once would take 100 ms, in which
# none is.
STEP = 32
# Descriptors that are not for checks: the loop's, the resolver's, and what the process opens meanwhile.
SPARE_DESCRIPTORS = 64

NAME, VERSION = "mcp-registry", "1.0"
PROTOCOL_VERSION = "2026-07-28"
DISCOVER = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
                "io.modelcontextprotocol/clientInfo": {"name": NAME, "version": VERSION},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        },
    },
    separators=(",", ":"),
)
# A session that nobody has. Without the header, servers on the SDK for Python before 1.30 open a session for the
# request before they refuse it, and keep 32 KB of it for good: 90 MB a day (measured from 1.8 to 1.29, 2026-11-22).
# With it they look the session up and refuse at once; current servers, which know no sessions, do not read it.
SESSION = f"{NAME}-check"
COMMON = f"User-Agent: {NAME}/{VERSION}\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
POST: Final = (
    "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    f"MCP-Protocol-Version: {PROTOCOL_VERSION}\r\nMcp-Method: server/discover\r\n"
    f"Mcp-Session-Id: {SESSION}\r\n{COMMON}"
    f"Content-Length: {len(DISCOVER)}\r\n\r\n{DISCOVER}"
)
GET: Final = f"GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n{COMMON}\r\n"
GATED = frozenset({401, 403})

TOO_BUSY = "The registry was too busy to check fairly"
OUT_OF_TIME = "The sweep ran out of time before this server's turn"
BROKEN = "The check failed inside the registry"
CROWDED = "As many servers of its host were checked in this sweep as may be"


class Target(NamedTuple):
    """A server to check. `health_url` is absolute, or a path on the origin of `endpoint_url`."""

    id: int
    endpoint_url: str
    health_url: str | None


class Result(NamedTuple):
    """What one check found.

    `verdict`: healthy, gated, not_mcp, http_error, timeout, refused, dns, tls or blocked; None where the server was not
    checked, which says nothing about it. `status_code` is the HTTP status that decided. `response_time_ms` counts from
    the dial, or from the start of the check where it came to none. `error` is a sentence of ours, never of the server.
    `ended` is the time.monotonic() of the verdict.
    """

    id: int
    verdict: str | None
    status_code: int | None
    response_time_ms: int | None
    error: str | None
    ended: float


def sweep(
    targets: Sequence[Target],
    *,
    seconds: float,
    spread: float = 0.0,
    policy: Policy | None = None,
    at_once: int = 1000,
    per_host: int | None = None,
    first: int = 0,
) -> list[Result]:
    """Check servers on an event loop of our own; one result for each, in any order.

    `seconds`: after so many everything is over; what could not be started a deadline before is not checked. `spread`:
    the dials are spread over so many seconds, each server at a moment that follows from its id, so that it is checked
    at the same distance from the start of every sweep. `at_once`: how many checks are under way together, at most.
    `per_host`: how many checks one address has in this sweep, at most (None: no bound); whoever is beyond that is not
    checked. `first`: so many of the targets, from the beginning, have their turn before all others and in this order.
    """
    # What the collector of cycles takes is 6 % of a sweep (2026-11-22), and a sweep leaves it next to nothing.
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            checks = check_all(
                targets,
                seconds=seconds,
                spread=spread,
                policy=policy,
                at_once=at_once,
                per_host=per_host,
                first=first,
            )
            return runner.run(checks)
    finally:
        gc.enable()


async def check_all(
    targets: Sequence[Target],
    *,
    seconds: float,
    spread: float = 0.0,
    policy: Policy | None = None,
    at_once: int = 1000,
    per_host: int | None = None,
    first: int = 0,
    resolver: Resolver | None = None,
) -> list[Result]:
    """What `sweep` does, on the loop that runs. `resolver` takes the place of the system's."""
    if not targets:
        return []
    if any(target.endpoint_url[:6].lower() == "https:" for target in targets):
        exchange.verified()  # before the clock runs: nothing is read while it is made
    system = System()
    due = _turns(targets, spread, first)
    engine = _Engine(due, seconds, policy or guard.policy(), at_once, per_host, resolver or system)
    try:
        return await engine.run()
    finally:
        await system.close()


TIMEOUT = Finding("timeout", None, f"No answer within {DEADLINE:.0f} seconds")
NAME_TIMEOUT = Finding("dns", None, f"The host name did not resolve within {DEADLINE:.0f} seconds")
OWN_BOUND = Finding(None, None, CROWDED)
# Not a finding yet: the check waits until another one of its host has ended.
WAITS = Finding(None)

# Verdicts that no lateness of ours can have caused.
SETTLED = frozenset({"healthy", "gated", "blocked"})


class _Host:
    """What one address is asked in a sweep: the checks that it has had, those under way, and those that wait."""

    __slots__ = ("checks", "under_way", "waiting")

    def __init__(self) -> None:
        self.checks = self.under_way = 0
        self.waiting: deque[_Check] = deque()


class _Check:
    """A check under way."""

    __slots__ = (
        "addresses",
        "attempt",
        "began",
        "dialled",
        "expired",
        "hosts",
        "if_late",
        "redirected",
        "slipped",
        "target",
    )

    def __init__(self, target: Target, attempt: int = 1) -> None:
        self.target = target
        self.attempt = attempt
        # When it began; 0 where it has not yet. `slipped`: how late the engine had been by then.
        self.began = self.slipped = 0.0
        self.dialled = 0.0
        self.addresses: tuple[str, ...] = ()
        # Those that count it, of each address that it may dial: who has two could else have the second one asked for
        # nothing. Empty where it waits.
        self.hosts: list[_Host] = []
        self.redirected = False
        self.expired = False
        # What the deadline would make of it.
        self.if_late = TIMEOUT


class _Engine:
    """One sweep. Everything in it runs on one loop, so nothing is ever touched by two at once."""

    def __init__(
        self,
        turns: Sequence[tuple[float, Target]],
        seconds: float,
        policy: Policy,
        at_once: int,
        per_host: int | None,
        resolver: Resolver,
    ) -> None:
        """`turns`: the targets with the seconds after which each is due, in the order of their turns."""
        now = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._policy = policy
        self._names = Names(resolver, policy)
        self._dialler = Dialler(self._loop)
        self._at_once = _affordable(at_once)
        self._last_start = now + seconds - DEADLINE
        # The last first, so that the next one is popped off the end.
        self._due = [(now + after, target) for after, target in reversed(turns)]
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}
        self._again: deque[_Check] = deque()
        # Those under way, in the order in which they began.
        self._checks: dict[_Check, asyncio.Task[None]] = {}
        self._results: list[Result] = []
        self._total = len(turns)
        self._launch_handle: asyncio.Handle | None = None
        self._tick_handle: asyncio.Handle | None = None
        self._tick_due = now
        self._slipped = 0.0

    async def run(self) -> list[Result]:
        """Check them all."""
        self._tick()
        self._launch()
        try:
            await self._over
        finally:
            for handle in (self._tick_handle, self._launch_handle):
                if handle is not None:
                    handle.cancel()
            tasks = [*self._checks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._names.close()
        return self._results

    # ------------------------------------------------------------------ whose turn it is

    def _launch(self) -> None:
        """Start checks that are due, a few at a time, and see to it that the rest is not forgotten."""
        self._launch_handle = None
        now = time.monotonic()
        if now > self._last_start:
            return  # the tick settles those that are left
        for _ in range(STEP):
            if len(self._checks) >= self._at_once:
                return  # whichever ends first calls again
            if self._due and self._due[-1][0] <= now:
                check = _Check(self._due.pop()[1])
            elif self._again:
                check = self._again.popleft()
            else:
                break
            self._checks[check] = self._loop.create_task(self._run(check))
        else:
            self._launch_handle = self._loop.call_soon(self._launch)
            return
        if self._due:
            self._launch_handle = self._loop.call_later(self._due[-1][0] - now, self._launch)

    def _tick(self) -> None:
        """See how late it is, and end what is over."""
        now = time.monotonic()
        late = now - self._tick_due
        if late > SLIP_SECONDS:
            self._slipped += late
        self._tick_due = now + TICK_SECONDS
        for check in self._checks:
            if not check.began:
                break
            ends = check.began + DEADLINE
            if ends > now:
                self._tick_due = min(self._tick_due, ends)
                break
            if not check.expired:
                check.expired = True
                # After the loop has once more looked for answers: one that has come in time is read, however late.
                self._loop.call_later(0, self._expire, check)
        if now > self._last_start:
            self._give_up(now)
        self._tick_handle = self._loop.call_later(max(self._tick_due - now, 0.001), self._tick)

    def _expire(self, check: _Check) -> None:
        task = self._checks.get(check)
        if task is not None:
            task.cancel()

    def _give_up(self, now: float) -> None:
        """Settle those for whom there is no time left."""
        for _, target in self._due:
            self._settle(Result(target.id, None, None, None, OUT_OF_TIME, now))
        self._due.clear()
        for host in self._hosts.values():
            self._turn_away(host, OUT_OF_TIME)
        for check in self._again:
            self._settle(Result(check.target.id, None, None, None, TOO_BUSY, now))
        self._again.clear()

    def _settle(self, result: Result) -> None:
        self._results.append(result)
        if len(self._results) == self._total and not self._over.done():
            self._over.set_result(None)

    # ------------------------------------------------------------------ one check

    async def _run(self, check: _Check) -> None:
        check.began = time.monotonic()
        check.slipped = self._slipped
        try:
            finding = await self._find(check)
        except asyncio.CancelledError:
            if not check.expired:
                raise
            finding = check.if_late
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the sweep along, nor a server down
            finding = Finding(None, None, BROKEN)
            observability.log_defect("probe", error)
        now = time.monotonic()
        del self._checks[check]
        self._leave(check)
        if self._launch_handle is None:
            self._launch_handle = self._loop.call_soon(self._launch)
        if finding is WAITS:
            return
        if finding is OWN_BOUND:
            self._settle(Result(check.target.id, None, None, None, finding.error, now))
            return
        if finding.verdict not in SETTLED and (finding.verdict is None or self._was_late(check, now)):
            self._repeat(check, finding, now)
            return
        elapsed = round((now - (check.dialled or check.began)) * 1000)
        self._settle(Result(check.target.id, finding.verdict, finding.status, elapsed, finding.error, now))

    def _was_late(self, check: _Check, now: float) -> bool:
        """Whether the engine was so late in the life of a check that its failure may be ours."""
        late = now - self._tick_due
        return self._slipped - check.slipped + (late if late > SLIP_SECONDS else 0.0) > UNFAIR_SECONDS

    def _hurry(self, check: _Check) -> None:
        """Start a check as soon as there is room, and not only when the next server is due."""
        self._again.append(check)
        if self._launch_handle is not None:
            self._launch_handle.cancel()
        self._launch_handle = self._loop.call_soon(self._launch)

    def _repeat(self, check: _Check, finding: Finding, now: float) -> None:
        """Check once more, where there is time and it has not been done."""
        if check.attempt < ATTEMPTS and now <= self._last_start:
            if finding.verdict == "dns":
                self._names.forget(guard.host(check.target.endpoint_url))
            self._hurry(_Check(check.target, check.attempt + 1))
            return
        reason = TOO_BUSY if finding.verdict else finding.error
        self._settle(Result(check.target.id, None, None, None, reason, now))

    async def _find(self, check: _Check) -> Finding:
        """Ask the server what there is to ask, and judge its answers."""
        _, endpoint, declared = check.target
        url = endpoint if declared is None else declared
        if url.startswith("/"):
            url = urls.origin(endpoint) + url
        # Registered URLs are valid. One that came another way must still not write headers of its own.
        if not urls.PRINTABLE.fullmatch(url):
            return Finding("blocked", None, "The URL is not valid")
        site = reach.site(url, self._policy)
        check.if_late = NAME_TIMEOUT
        # Those for which it has waited, and is counted.
        located = check.addresses or await reach.locate(site, self._names, self._policy)
        check.if_late = TIMEOUT
        if isinstance(located, Finding):
            return located
        check.addresses = located
        if not check.hosts and (bound := self._bound(check)) is not None:
            return bound
        if declared is not None:
            return await self._find_health(check, site)
        return await self._find_mcp(check, site)

    def _bound(self, check: _Check) -> Finding | None:
        """Count a check that is about to dial; what keeps it from that where its host has had enough for now."""
        if self._per_host is None:
            return None
        hosts = [self._hosts.setdefault(address, _Host()) for address in check.addresses]
        if any(host.checks >= self._per_host for host in hosts):
            return OWN_BOUND
        for host in hosts:
            if self._is_full(host):
                host.waiting.append(check)
                return WAITS
        check.hosts = hosts
        for host in hosts:
            host.checks += 1
            host.under_way += 1
            if host.checks >= self._per_host:
                self._turn_away(host, CROWDED)
        return None

    def _is_full(self, host: _Host) -> bool:
        return self._per_host is not None and host.under_way >= max(self._per_host * HOST_AT_ONCE, 1)

    def _leave(self, check: _Check) -> None:
        """Give the places of a check that has ended to those that wait for them.

        Each is counted here and not when it starts: nobody takes its place meanwhile. One that another of its addresses
        has no place for goes on waiting there, and the place is offered to the next.
        """
        for host in check.hosts:
            host.under_way -= 1
        for host in check.hosts:
            while host.waiting and not self._is_full(host):
                waiting = host.waiting.popleft()
                following = _Check(waiting.target, waiting.attempt)
                following.addresses = waiting.addresses
                bound = self._bound(following)
                if bound is None:
                    self._hurry(following)
                elif bound is OWN_BOUND:
                    self._settle(Result(waiting.target.id, None, None, None, CROWDED, time.monotonic()))

    def _turn_away(self, host: _Host, reason: str) -> None:
        """Settle those that wait for a host and will have no turn."""
        now = time.monotonic()
        while host.waiting:
            self._settle(Result(host.waiting.popleft().target.id, None, None, None, reason, now))

    async def _find_health(self, check: _Check, site: Site) -> Finding:
        """Judge the health URL that a server declares: by its status, and by what it says in JSON."""
        answer = await self._exchange(check, site, GET, site.path)
        if isinstance(answer, Finding):
            return answer
        status = answer.status
        if status is None:
            return Finding("http_error", None, reach.FAULTS[answer.fault])
        if answer.state:
            told = f"The health URL answered {status} and calls the server {answer.state}"
            return Finding("http_error", status, told)
        if 200 <= status < 300:
            return Finding("healthy", status)
        return Finding("http_error", status, f"The health URL answered {status}")

    async def _find_mcp(self, check: _Check, site: Site) -> Finding:
        """Judge an MCP endpoint, or a plain HTTP service that has its health below it."""
        answer = await self._exchange(check, site, POST, site.path)
        if isinstance(answer, Finding):
            return answer
        status = answer.status
        if status is None:
            return Finding("not_mcp", None, reach.FAULTS[answer.fault])
        if answer.speaks:
            return Finding("healthy", status)
        if status in GATED:
            return Finding("gated", status)
        if status == 429 or 500 <= status < 600:
            finding = Finding("http_error", status, f"The server answered {status}")
        else:
            finding = Finding("not_mcp", status, f"The endpoint answered {status} and does not speak MCP")
        check.if_late = finding
        health = await self._exchange(check, site, GET, site.path.rstrip("/") + "/health")
        if isinstance(health, Finding):
            return finding if health.verdict else health
        if health.status is not None and 200 <= health.status < 300 and not health.state:
            return Finding("healthy", health.status)
        return finding

    async def _exchange(self, check: _Check, site: Site, form: str, path: str) -> Answer | Finding:
        """The answer to a request, or what kept it from coming. One redirect within the origin is followed."""
        while True:
            answer = Answer(wants_response=form is POST)
            failure = await self._dial(check, site, (form % (path, site.authority)).encode(), answer)
            if failure is not None:
                return failure
            if answer.fault == exchange.CLOSED:
                return reach.CLOSED
            if answer.status not in reach.REDIRECTS or check.redirected:
                return answer
            check.redirected = True
            target = reach.redirected(site, path, answer.location)
            if target is None:
                return answer
            path = target

    async def _dial(self, check: _Check, site: Site, request: bytes, answer: Answer) -> Finding | None:
        """Fill in the answer, from the first address that can be reached; what was wrong where none can."""
        check.dialled = check.dialled or time.monotonic()
        failure, address = await reach.dial(self._dialler, site, check.addresses, request, answer, TIMEOUT)
        # What the check asks next goes to the same one.
        check.addresses = (address,)
        if failure is reach.OWN_EXHAUSTION:
            # Whatever else fails at this time may have failed by that: a look-up needs a socket too.
            self._slipped += 2 * UNFAIR_SECONDS
        return failure


def _turns(targets: Sequence[Target], spread: float, first: int) -> list[tuple[float, Target]]:
    """After how many seconds each target is due, in the order of their turns.

    The first ones take as much of the spread as there are of them, so that no more is dialled in a second than ever.
    """
    share = first / len(targets)
    turns = [(spread * place / len(targets), target) for place, target in enumerate(targets[:first])]
    rest = [(spread * (share + (1 - share) * moment(target.id)), target) for target in targets[first:]]
    if spread > 0:
        rest.sort(key=lambda turn: turn[0])
    return turns + rest


def moment(number: int) -> float:
    """Where in a spread the server with this id has its moment: from 0 up to 1, evenly for ids in a row.

    Multiplication by the golden ratio (Knuth, The Art of Computer Programming, section 6.4), in 64 bits.
    """
    return (number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) / 2**64


def _affordable(at_once: int) -> int:
    """How many checks may be under way, given the descriptors that this process may open."""
    if sys.platform == "win32":
        return at_once
    import resource  # which Windows does not have

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = _descriptors() + SPARE_DESCRIPTORS
    wanted = taken + at_once
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # a system may have a limit of its own below the hard one
            raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(raised, soft), hard))
            soft = max(raised, soft)
        at_once = min(at_once, soft - taken)
    return max(at_once, 1)


def _descriptors() -> int:
    """How many descriptors this process has open, on systems that say so."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return sum(1 for _ in Path(folder).iterdir())
    return 0
