"""Checks: how an endpoint is found as it was or in doubt, and how many are checked side by side without haste or lie.

The pulse that was learnt of an endpoint is asked first. Where its answer is as before, so is the verdict; whatever else
comes is looked at once more, and then by a brief introduction, which alone decides. A wrong rule about an answer costs
a handshake and never a verdict (docs/decisions/0010-pulse.md).

The worst that this product can say is that a server is down which is not. So the engine measures its own lateness: a
check that fails while we were late is repeated, and when that was no fairer the server is *not checked*, never down.
The owner of uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from mcp_registry.aws import observability
from mcp_registry.dial import exchange, guard, reach, urls
from mcp_registry.dial.exchange import Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import GRACE_SECONDS, Evidence, Introducer
from mcp_registry.dial.lookup import Names, Resolver, System
from mcp_registry.dial.reach import Finding, Site
from mcp_registry.health import asking, pulse
from mcp_registry.health.asking import Heard
from mcp_registry.health.pulse import HEALTH_URL, Pulse, Question

if sys.platform == "win32":  # for which there is no uvloop
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

# What an endpoint is waited for at its pulse where no other patience is learnt; a time-out that took less says nothing.
DEADLINE: Final = pulse.MIN_SECONDS
# Nobody who was up is called down for silence that was shorter, at its pulse and its introduction together: somebody
# who takes 6 s for each answer works.
SILENT_SECONDS: Final = 8.0
# Of what is left of a sweep, what one question of a pulse may take: the second look and the introduction need the rest.
PULSE_SHARE: Final = 0.4
# Between the two looks at an answer that is not as before.
PAUSE_SECONDS: Final = 2.0
# After the spread, when all but those who hang have had their second look and their introduction.
EARLY_SECONDS: Final = 4.0
# An introduction that has less than this could only fail; its session is deleted in the grace after it.
LEAST_SECONDS: Final = 3.0
# Of what an introduction may take, how much where a plain HTTP service may have to be asked for its health after it.
UNKNOWN_SHARE: Final = 0.75
# How many introductions are under way together in a sweep: each may read 256 KiB. Those who are down already have half
# as many places of their own: many that hang must not keep the others from their turn.
INTRODUCTIONS: Final = 200

# How often the engine looks at the clock, and when it was late: a tick that came so much later than it was due counts,
# and so many seconds of that while an endpoint was looked at, or such a share of it, make its failure ours. Less is
# what threads and neighbours on a machine cost all the time: counting 50 ms left servers that really hang unjudged on
# two busy cores (2026-11-22).
TICK_SECONDS: Final = 0.05
SLIP_SECONDS: Final = 0.1
UNFAIR_SECONDS: Final = 0.25
UNFAIR_SHARE: Final = 0.05
ATTEMPTS: Final = 2
# Of the checks that one address may have in a sweep, so many are under way together.
HOST_AT_ONCE: Final = 0.4
# Checks that start in one go. Between two goes answers are read: a thousand dials at once would take 100 ms, in which
# none is.
STEP: Final = 32
# Descriptors that are not for checks: the loop's, the resolver's, and what the process opens meanwhile.
SPARE_DESCRIPTORS: Final = 64
MAX_EVIDENCE: Final = 3

TOO_BUSY: Final = "The registry was too busy to check fairly"
OUT_OF_TIME: Final = "The sweep ran out of time before this server's turn"
BROKEN: Final = "The check failed inside the registry"
CROWDED: Final = "As many servers of its host were checked in this sweep as may be"
LIMITS: Final = "The server limits how often it may be asked (429)"

UP: Final = frozenset({"healthy", "gated", "limited"})
# Verdicts that no lateness of ours can have caused.
SETTLED: Final = UP | {"blocked"}
AS_BEFORE: Final = frozenset({"healthy", "gated"})
# What an introduction asks first, in each of its ways. Who is asked anything else has answered.
FIRST: Final = frozenset({"initialize", "server/discover", "GET"})
# By which statuses somebody asks for credentials (dial.introduction).
GATES: Final = frozenset({401, 402, 403, *range(300, 400)})
# After which findings a plain HTTP service may have to be asked for its health: it has been heard.
PLAIN_MAY_SAY: Final = frozenset({"not_mcp", "mcp_error", "http_error", "timeout"})
# Findings that took their time.
WAITED: Final = frozenset({"timeout", "dns"})


class Target(NamedTuple):
    """An endpoint to check: what is known of it (messages.Endpoint).

    `id`: None where the release before asks, which knows no endpoints. `health_url` is absolute, or a path on the
    origin of `url`.
    """

    server_id: int
    id: int | None
    url: str
    health_url: str | None = None
    pulse: str | None = None
    era: str | None = None
    verdict: str | None = None


class Result(NamedTuple):
    """What one check found.

    `verdict`: one of messages.Verdict; None where the endpoint was not checked, which says nothing about it.
    `status_code` is the HTTP status that decided. `response_time_ms` is what the answer took that decided, or all of an
    introduction. `error` is a sentence of ours, never of the server. `ended` is the time.monotonic() of the verdict.
    `retry_after`, `in_doubt` and `evidence` are those of messages.Finding.
    """

    server_id: int
    id: int | None
    verdict: str | None
    status_code: int | None
    response_time_ms: int | None
    error: str | None
    ended: float
    retry_after: int | None = None
    in_doubt: bool = False
    evidence: tuple[Evidence, ...] = ()


class Found(NamedTuple):
    """What a check has come to, but for whose it is and when that was."""

    verdict: str | None
    status: int | None = None
    error: str | None = None
    took_ms: int | None = None
    retry_after: int | None = None
    in_doubt: bool = False
    evidence: tuple[Evidence, ...] = ()


def sweep(
    targets: Sequence[Target],
    *,
    seconds: float,
    spread: float = 0.0,
    policy: Policy | None = None,
    at_once: int = 1000,
    per_host: int | None = None,
    first: int = 0,
    introductions: int = INTRODUCTIONS,
    early: Callable[[list[Result]], None] | None = None,
) -> list[Result]:
    """Check endpoints on an event loop of our own; one result for each, in any order.

    `seconds`: after so many everything is over; what could not be started in time to be introduced is not checked.
    `spread`: the dials are spread over so many seconds, each endpoint at a moment that follows from its id, so that it
    is checked at about the same distance from the start of every sweep; those that may need long come before those with
    a pulse. `at_once`: how many checks are under way together, at most; of them so many `introductions`. `per_host`:
    how many checks one address has in this sweep, at most (None: no bound); whoever is beyond that is not checked.
    `first`: so many of the targets, from the beginning, have their turn before all others and in this order. `early` is
    called once, in a thread, with the results that are there EARLY_SECONDS after the spread, where not all are: those
    of servers of which all endpoints are settled. It must not raise.
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
                introductions=introductions,
                early=early,
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
    introductions: int = INTRODUCTIONS,
    early: Callable[[list[Result]], None] | None = None,
    resolver: Resolver | None = None,
) -> list[Result]:
    """What `sweep` does, on the loop that runs. `resolver` takes the place of the system's."""
    if not targets:
        return []
    if any(target.url[:6].lower() == "https:" for target in targets):
        exchange.verified()  # before the clock runs: nothing is read while it is made
    system = System()
    due = _turns(targets, spread, first)
    engine = _Engine(due, seconds, policy or guard.policy(), at_once, per_host, introductions, resolver or system)
    if early is not None:
        engine.tell(early, spread + EARLY_SECONDS)
    try:
        return await engine.run()
    finally:
        await system.close()


OWN_BOUND = Found(None, None, CROWDED)
# Not a finding yet: the check waits until another one of its host has ended.
WAITS = Found(None)
NO_TIME = Found(None, None, OUT_OF_TIME)
NAME_TIMEOUT = Found("dns", None, f"The host name did not resolve within {DEADLINE:.0f} seconds")
T = TypeVar("T")


class _Host:
    """What one address is asked in a sweep: the checks that it has had, those under way, and those that wait."""

    __slots__ = ("checks", "under_way", "waiting")

    def __init__(self) -> None:
        self.checks = self.under_way = 0
        self.waiting: deque[_Check] = deque()


class _Check:
    """A check under way."""

    __slots__ = ("addresses", "attempt", "began", "ends", "expired", "hosts", "site", "slipped", "target", "waited")

    def __init__(self, target: Target, attempt: int = 1) -> None:
        self.target = target
        self.attempt = attempt
        # When the look began that is under way, and how late the engine had been by then.
        self.began = self.slipped = 0.0
        # When the question that is asked has taken too long; 0 where none is.
        self.ends = 0.0
        # How long it was waited for at its pulse, in vain.
        self.waited = 0.0
        self.expired = False
        # Where the first question goes, and the addresses that it may dial.
        self.site: Site | None = None
        self.addresses: tuple[str, ...] = ()
        # Those that count it, of each address that it may dial: who has two could else have the second one asked for
        # nothing. Empty where it waits.
        self.hosts: list[_Host] = []


class _Engine:
    """One sweep. Everything in it runs on one loop, so nothing is ever touched by two at once."""

    def __init__(
        self,
        turns: Sequence[tuple[float, Target]],
        seconds: float,
        policy: Policy,
        at_once: int,
        per_host: int | None,
        introductions: int,
        resolver: Resolver,
    ) -> None:
        """`turns`: the targets with the seconds after which each is due, in the order of their turns."""
        now = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._policy = policy
        self._names = Names(resolver, policy)
        self._dialler = Dialler(self._loop)
        self._introducer = Introducer(self._dialler, self._names, policy)
        self._places = asyncio.Semaphore(introductions)
        self._places_of_those_down = asyncio.Semaphore(max(introductions // 2, 1))
        self._at_once = _affordable(at_once)
        self._over_at = now + seconds
        self._last_start = self._over_at - GRACE_SECONDS - LEAST_SECONDS
        # The last first, so that the next one is popped off the end.
        self._due = [(now + after, target) for after, target in reversed(turns)]
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}
        self._again: deque[_Check] = deque()
        self._checks: dict[_Check, asyncio.Task[None]] = {}
        # When which question has taken too long, the next first; the number tells apart what ends together. Of those
        # that have been answered the entry stays until it is due.
        self._ends: list[tuple[float, int, _Check]] = []
        self._asked = 0
        self._results: list[Result] = []
        self._total = len(turns)
        # Of each server, how many of its endpoints are not settled yet.
        self._unsettled = Counter(target.server_id for _, target in turns)
        self._early: Callable[[list[Result]], None] | None = None
        self._early_at = now
        self._telling: asyncio.Future[None] | None = None
        self._launch_handle: asyncio.Handle | None = None
        self._tick_handle: asyncio.Handle | None = None
        self._tick_due = now
        self._slipped = 0.0

    def tell(self, early: Callable[[list[Result]], None], after: float) -> None:
        """See to it that what is settled after so many seconds is told then."""
        self._early = early
        self._early_at += after

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
            if self._telling is not None:
                await self._telling
            await self._introducer.close()
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
        while self._ends and (self._ends[0][0] <= now or self._ends[0][2].ends != self._ends[0][0]):
            ends, _, check = heappop(self._ends)
            if check.ends == ends:
                # After the loop has once more looked for answers: one that has come in time is read, however late.
                self._loop.call_later(0, self._expire, check, ends)
        if self._ends:
            self._tick_due = min(self._tick_due, self._ends[0][0])
        if now > self._last_start:
            self._give_up(now)
        if self._early is not None and now >= self._early_at and len(self._results) < self._total:
            whole = [result for result in self._results if not self._unsettled[result.server_id]]
            if whole:
                self._telling = self._loop.run_in_executor(None, self._early, whole)
                self._early = None
        self._tick_handle = self._loop.call_later(max(self._tick_due - now, 0.001), self._tick)

    def _expire(self, check: _Check, ends: float) -> None:
        task = self._checks.get(check)
        if task is not None and check.ends == ends:
            check.expired = True
            task.cancel()

    def _give_up(self, now: float) -> None:
        """Settle those for whom there is no time left."""
        for _, target in self._due:
            self._settle(_unchecked(target, OUT_OF_TIME, now))
        self._due.clear()
        for host in self._hosts.values():
            self._turn_away(host, OUT_OF_TIME)
        for check in self._again:
            self._settle(_unchecked(check.target, TOO_BUSY, now))
        self._again.clear()

    def _settle(self, result: Result) -> None:
        self._results.append(result)
        self._unsettled[result.server_id] -= 1
        if len(self._results) == self._total and not self._over.done():
            self._over.set_result(None)

    # ------------------------------------------------------------------ one check

    async def _run(self, check: _Check) -> None:
        target = check.target
        self._begin(check)
        try:
            found = await self._find(check)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the sweep along, nor a server down
            found = Found(None, None, BROKEN)
            observability.log_defect("probe", error)
        now = time.monotonic()
        del self._checks[check]
        self._leave(check)
        if self._launch_handle is None:
            self._launch_handle = self._loop.call_soon(self._launch)
        if found is WAITS:
            return
        verdict = found.verdict
        if found is OWN_BOUND or found is NO_TIME:
            self._settle(_unchecked(target, found.error, now))
        elif verdict not in SETTLED and (verdict is None or self._was_late(check, now)):
            self._repeat(check, found, now)
        else:
            took = round((now - check.began) * 1000) if found.took_ms is None else found.took_ms
            evidence = found.evidence[:MAX_EVIDENCE] if verdict != target.verdict else ()
            self._settle(
                Result(
                    target.server_id,
                    target.id,
                    verdict,
                    found.status,
                    took,
                    found.error,
                    now,
                    found.retry_after,
                    found.in_doubt,
                    evidence,
                )
            )

    def _begin(self, check: _Check) -> None:
        """Take the time of a look that begins."""
        check.began = time.monotonic()
        check.slipped = self._slipped

    def _was_late(self, check: _Check, now: float) -> bool:
        """Whether the engine was so late in the life of a look that its failure may be ours."""
        late = now - self._tick_due
        slipped = self._slipped - check.slipped + (late if late > SLIP_SECONDS else 0.0)
        return slipped > max(UNFAIR_SECONDS, UNFAIR_SHARE * (now - check.began))

    def _hurry(self, check: _Check) -> None:
        """Start a check as soon as there is room, and not only when the next server is due."""
        self._again.append(check)
        if self._launch_handle is not None:
            self._launch_handle.cancel()
        self._launch_handle = self._loop.call_soon(self._launch)

    def _repeat(self, check: _Check, found: Found, now: float) -> None:
        """Check once more, where there is time and it has not been done."""
        if check.attempt < ATTEMPTS and now <= self._last_start:
            self._hurry(_Check(check.target, check.attempt + 1))
            return
        self._settle(_unchecked(check.target, TOO_BUSY if found.verdict else found.error, now))

    async def _find(self, check: _Check) -> Found:
        """Ask for the pulse, look again where it is not as before, and let an introduction decide."""
        target = check.target
        known = pulse.read(target.pulse) if target.pulse else None
        question = _question(target, known)
        if question is None:
            return await self._decide(check, again=not _is_down(target))
        patience = known.patience if known else DEADLINE
        for last in (False, True):
            heard = await self._look(check, question, patience)
            if isinstance(heard, Found):
                return heard
            told = None if heard is None else _told(target, known, question, heard)
            if told is None and heard is not None and question is HEALTH_URL and asking.says_well(heard):
                told = await self._well(check, known, heard)
                if told is None and known is None:
                    break  # it says the same of whatever is there: the introduction is the second look
            if told is not None and (last or told.verdict in UP or _is_down(target)):
                return told
            if last or _is_down(target) or (heard is not None and heard.beat.status == 429):
                break
            if heard is None:
                check.waited = time.monotonic() - check.began
            elif heard.failure is not None and heard.failure.verdict == "dns":
                self._names.forget(reach.site(target.url, self._policy).host)
            late = self._was_late(check, time.monotonic())
            await asyncio.sleep(PAUSE_SECONDS)
            if heard is None and not late:
                break  # another wait would tell no more: the introduction is the second look
            self._begin(check)
        decided = await self._decide(check, again=False)
        if decided.verdict in UP or heard is None or heard.beat.status is None or not question.declared:
            return decided
        # A plain service that declares where its health is: that answer says more than that it speaks no MCP.
        if target.era is not None or decided.verdict is None or heard.beat.is_good:
            return decided
        told = asking.complaint(heard) or Finding("http_error", heard.beat.status, _refusal(heard))
        return Found(*told, _milliseconds(heard), evidence=_evidence(target, question, heard))

    async def _well(self, check: _Check, known: Pulse | None, heard: Heard) -> Found | None:
        """What a health URL says for its server that says it is well, and not as was learnt; None where nothing.

        By this whoever was never introduced is up. Where an introduction is to be had, it decides: of who was
        introduced a page says nothing that is another one than before, and nobody who is down is called up by one.
        """
        target = check.target
        if target.era is not None and (known is not None or target.verdict not in AS_BEFORE):
            return None
        nonsense = await self._look(check, HEALTH_URL, asking.NONSENSE_SECONDS, nonsense=True)
        if isinstance(nonsense, Found):
            return nonsense
        if asking.is_alike(heard, nonsense):
            return None
        verdict = "gated" if target.verdict == "gated" else "healthy"
        return Found(verdict, heard.beat.status, None, _milliseconds(heard), in_doubt=known is not None)

    async def _look(
        self, check: _Check, question: Question, patience: float, *, nonsense: bool = False
    ) -> Heard | Found | None:
        """What is heard to a question; a finding where it may not be asked or we are at fault; None after a while.

        `nonsense`: it is asked at a path that cannot exist.

        Everything that is asked every half minute goes through here, which is why it is written in one piece.
        """
        target = check.target
        url = asking.url_of(question, target.url, target.health_url)
        # Registered URLs are valid. One that came another way must still not write headers of its own.
        if not urls.PRINTABLE.fullmatch(url):
            return Found("blocked", None, "The URL is not valid")
        site = reach.site(url, self._policy)
        self._limit(check, min(patience, PULSE_SHARE * (self._over_at - time.monotonic())))
        try:
            reached = await self._reach(check, site)
            if isinstance(reached, Found):
                # What is not found may be found at the second look.
                no_name = reached.verdict == "dns"
                return Heard(asking.Beat(), Finding(*reached[:3]), "", 0.0) if no_name else reached
            path = asking.path_of(question, site, nonsense=nonsense)
            heard = await asking.ask(self._dialler, site, check.addresses, question, path)
        except asyncio.CancelledError:
            if not self._is_over(check):
                raise
            return None
        finally:
            check.ends = 0.0
        if heard.failure is not None and heard.failure.verdict is None:
            self._note_exhaustion(heard.failure.error)
            return Found(*heard.failure)
        if heard.failure is None:
            # What is asked next goes to the same one.
            check.addresses = (heard.address,)
        if heard.beat.session:
            await asking.leave(self._dialler, site, heard)
        return heard

    async def _reach(self, check: _Check, site: Site) -> Site | Found:
        """Find the addresses of a site and count the check that is about to dial them; what keeps it from that."""
        if check.site is not site:
            located = await reach.locate(site, self._names, self._policy)
            if isinstance(located, Finding):
                return Found(*located)
            check.site, check.addresses = site, located
        return self._bound(check) or site

    def _limit(self, check: _Check, seconds: float) -> None:
        """Give what a check does now so many seconds."""
        check.ends = time.monotonic() + seconds
        self._asked += 1
        heappush(self._ends, (check.ends, self._asked, check))

    def _is_over(self, check: _Check) -> bool:
        """Whether a cancellation was the end of these; it is taken back then."""
        task = asyncio.current_task()
        if not check.expired or task is None:
            return False
        check.expired = False
        task.uncancel()
        return True

    async def _timed(self, check: _Check, what: Coroutine[Any, Any, T], seconds: float) -> T | None:
        """What comes of it; None where that takes too long."""
        self._limit(check, seconds)
        try:
            return await what
        except asyncio.CancelledError:
            if not self._is_over(check):
                raise
            return None
        finally:
            check.ends = 0.0

    async def _decide(self, check: _Check, *, again: bool) -> Found:
        """What an introduction finds; `again`: where it fails, a second look decides."""
        target = check.target
        if not urls.PRINTABLE.fullmatch(target.url):
            return Found("blocked", None, "The URL is not valid")
        site = reach.site(target.url, self._policy)
        first: Found | None = None
        while True:
            found = await self._meet(check, site)
            if found is NO_TIME and first is not None and first.verdict in WAITED:
                return first  # it has had a long look
            if first is not None or not again or found.verdict is None or found.verdict in SETTLED:
                return found
            first = found
            if found.verdict == "dns":
                self._names.forget(site.host)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _meet(self, check: _Check, site: Site) -> Found:
        """What an introduction finds, and of who was never introduced the health of a plain HTTP service."""
        target = check.target
        # Of a health URL elsewhere the check has been counted there alone.
        reached = await self._timed(check, self._reach(check, site), DEADLINE)
        if not isinstance(reached, Site):
            return NAME_TIMEOUT if reached is None else reached
        found = await self._introduce(check)
        if target.era is not None or target.health_url is not None or found.verdict not in PLAIN_MAY_SAY:
            return found
        left = min(DEADLINE, self._over_at - time.monotonic())
        return await self._timed(check, self._plain(site), left) or found

    async def _introduce(self, check: _Check) -> Found:
        target = check.target
        async with self._places_of_those_down if _is_down(target) else self._places:
            self._begin(check)
            left = self._over_at - check.began - GRACE_SECONDS
            if left < LEAST_SECONDS:
                return NO_TIME
            share = UNKNOWN_SHARE if target.era is None and target.health_url is None else 1.0
            seconds = max(left * share // 1, LEAST_SECONDS)
            introduced = await self._introducer.introduce(target.url, seconds=seconds, before=target.era, brief=True)
        verdict, status, error = asking.judged(introduced)
        if verdict is None:
            self._note_exhaustion(error)
        if verdict == "timeout" and target.verdict in UP and any(one.asked not in FIRST for one in introduced.evidence):
            # It has begun, and is slower than a sweep can wait: an introduction that has all its time is to decide.
            as_before = "gated" if target.verdict == "gated" else "healthy"
            return Found(as_before, None, None, introduced.took_ms, in_doubt=True)
        least = SILENT_SECONDS - check.waited if target.verdict in UP else DEADLINE
        if verdict == "timeout" and seconds < max(least, DEADLINE):
            return NO_TIME  # it may only be slower than there was time for
        known = target.pulse is not None
        in_doubt = verdict == "healthy" and (known or introduced.era != target.era)
        in_doubt = in_doubt or (verdict == "gated" and (known or target.verdict != "gated"))
        return Found(verdict, status, error, introduced.took_ms, introduced.retry_after, in_doubt, introduced.evidence)

    async def _plain(self, site: Site) -> Found | None:
        """What the health of a plain HTTP service says for it."""
        located = await reach.locate(site, self._names, self._policy)
        heard = None if isinstance(located, Finding) else await asking.plain(self._dialler, site, located)
        return None if heard is None else Found("healthy", heard.beat.status, None, _milliseconds(heard))

    def _note_exhaustion(self, error: str | None) -> None:
        """Take note of a lack of our own: whatever else fails now may fail by it, as a look-up needs a socket too."""
        if error == reach.OWN_EXHAUSTION.error:
            self._slipped += 2 * UNFAIR_SECONDS

    def _bound(self, check: _Check) -> Found | None:
        """Count a check that is about to dial; what keeps it from that where its host has had enough for now."""
        if self._per_host is None:
            return None
        hosts = [self._hosts.setdefault(address, _Host()) for address in check.addresses]
        if check.hosts:
            hosts = [host for host in hosts if host not in check.hosts]
        if any(host.checks >= self._per_host for host in hosts):
            return OWN_BOUND
        for host in hosts:
            if self._is_full(host):
                host.waiting.append(check)
                return WAITS
        check.hosts += hosts
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
                following.site, following.addresses = waiting.site, waiting.addresses
                bound = self._bound(following)
                if bound is None:
                    self._hurry(following)
                elif bound is OWN_BOUND:
                    self._settle(_unchecked(waiting.target, CROWDED, time.monotonic()))

    def _turn_away(self, host: _Host, reason: str) -> None:
        """Settle those that wait for a host and will have no turn."""
        now = time.monotonic()
        while host.waiting:
            self._settle(_unchecked(host.waiting.popleft().target, reason, now))


def _question(target: Target, known: Pulse | None) -> Question | None:
    """What an endpoint is asked first; None where it is introduced at once.

    A health URL that was declared is asked whatever was learnt, but where it was learnt that something else tells more.
    Who is down is called up by nobody but an introduction; where nobody could be introduced, by its health.
    """
    if target.health_url is not None and (known is None or known.question == HEALTH_URL.name):
        return HEALTH_URL
    if known is None or target.verdict not in UP or known.question == HEALTH_URL.name:
        return None
    return pulse.BY_NAME[known.question]


def _told(target: Target, known: Pulse | None, question: Question, heard: Heard) -> Found | None:
    """What the answer to a question says of an endpoint; None where that is in doubt."""
    beat = heard.beat
    if heard.failure is not None or beat.status is None:
        return None
    if beat.status == 429:
        if target.verdict not in UP:
            return None  # only an introduction calls anybody up
        told = _evidence(target, question, heard)
        return Found("limited", 429, LIMITS, _milliseconds(heard), beat.wait, evidence=told)
    if question is HEALTH_URL:
        complaint = asking.complaint(heard)
        if complaint is not None:
            return Found(*complaint, _milliseconds(heard), evidence=_evidence(target, question, heard))
    as_before = known is not None and beat.signature == known.signature and beat.session is None
    # UP and DOWN are of one shape.
    as_before = as_before and (not question.is_health or asking.says_well(heard))
    if question.declared:
        as_before = as_before and (target.era is None or target.verdict in AS_BEFORE)
    elif known is not None:
        # Of who was limited it is not known what it wanted of its callers before.
        as_before = as_before and not (target.verdict == "limited" and known.signature.status in GATES)
    verdict = "gated" if target.verdict == "gated" else "healthy"
    return Found(verdict, beat.status, None, _milliseconds(heard)) if as_before else None


def _evidence(target: Target, question: Question, heard: Heard) -> tuple[Evidence, ...]:
    site = asking.url_of(question, target.url, target.health_url)
    return (asking.evidence(question, site, heard),)


def _refusal(heard: Heard) -> str:
    return f"The health URL answered {heard.beat.status}"


def _milliseconds(heard: Heard) -> int:
    return round(heard.seconds * 1000)


def _unchecked(target: Target, reason: str | None, now: float) -> Result:
    return Result(target.server_id, target.id, None, None, None, reason, now)


def _turns(targets: Sequence[Target], spread: float, first: int) -> list[tuple[float, Target]]:
    """After how many seconds each target is due, in the order of their turns.

    The first ones take as much of the spread as there are of them, so that no more is dialled in a second than ever. Of
    the rest those come first that may take long, and last those who are down already: they wait for nobody's verdict.
    """
    turns = [(spread * place / len(targets), target) for place, target in enumerate(targets[:first])]
    groups: tuple[list[Target], ...] = ([], [], [])
    for target in targets[first:]:
        groups[_group(target)].append(target)
    begins = first / len(targets)
    for group in groups:
        share = len(group) / len(targets)
        rest = [(spread * (begins + share * moment(target.id or target.server_id)), target) for target in group]
        if spread > 0:
            rest.sort(key=lambda turn: turn[0])
        turns += rest
        begins += share
    return turns


def _is_down(target: Target) -> bool:
    """Whether it was found down before; of whom nothing is known yet that is not said at a first look."""
    return target.verdict is not None and target.verdict not in UP


def _group(target: Target) -> int:
    if _is_down(target):
        return 2
    known = pulse.read(target.pulse) if target.pulse else None
    return 0 if known is None or known.patience > DEADLINE else 1


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
