"""Introductions, as many as a message asks for: made side by side, and what was found sent on.

Knows two queues and no database. The worst that it can say is that a server is down which is not, as for a check
(`probe`): where this process was too late to be fair, the introduction is made once more, and else left out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple, cast

from mcp_registry.aws import observability, queues, secret
from mcp_registry.catalogue import fingerprint
from mcp_registry.dial import exchange, guard, introduction, reach, urls
from mcp_registry.dial.exchange import Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import Introducer, Introduction, shown
from mcp_registry.dial.lookup import Names, Resolver, System
from mcp_registry.edge.background import Record
from mcp_registry.errors import Unavailable
from mcp_registry.health import asking, headers, learning, messages, pulse
from mcp_registry.health.messages import MAX_SENTENCE, Evidence, Finding, Introduced, Introductions, Visit
from mcp_registry.health.probe import SLIP_SECONDS, TICK_SECONDS, new_event_loop
from mcp_registry.health.pulse import Pulse

# What sending the findings may take, of the time that the function has.
SEND_SECONDS: Final = 10.0
# What learning how a server is asked from then on may take.
LEARN_SECONDS: Final = 10.0
# What leaving may take beyond an introduction, and what is read about how one gets in.
LEAVE_SECONDS: Final = 2 * introduction.GRACE_SECONDS
# Introductions under way together. Each may read 4 MiB, which are up to 130 MiB as Python holds JSON: as many as
# that are what a function of 1 GiB does with servers as they are, and not with thirty that mean it ill.
AT_ONCE: Final = 30
# Of a message that comes again, because a function has died of it.
CAREFUL: Final = 2
# Who is not introduced within this time is asked for once more by the dispatcher, each two minutes until something is
# learnt of it: where more come than can be visited, what waits would be visited again and again.
MAX_WAIT_SECONDS: Final = 60.0
HOST_AT_ONCE: Final = 4
# In an introduction of up to 20 s; a check has a quarter of a second in its 5 (`probe.UNFAIR_SECONDS`).
UNFAIR_SECONDS: Final = 1.0
ATTEMPTS: Final = 2
# Nobody who was up is called down at the first look; so long before the second.
SECOND_LOOK_SECONDS: Final = 2.0
UP: Final = frozenset({"healthy", "gated", "limited"})

# What is kept of what a server says about itself, all of it together and of one word.
MAX_VALUES: Final = 100
MAX_WORD: Final = 200
MAX_EVIDENCE: Final = 10
# What a message may say of how long a list will do; `introductions` goes by a day of it at most.
MAX_TTL_MS: Final = 2**31 - 1
# Characters of a packed offer: a message of the queue has 250 KiB, of which the rest is for what is told besides.
MAX_OFFER: Final = 180 * 1024


class Offered(NamedTuple):
    """What a server offers, as `messages.Introduced` has it."""

    seen: str | None = None
    offer: str | None = None
    trouble: str | None = None
    wavers: bool = False
    ttl_ms: int | None = None


NOTHING: Final = Offered()
# What one finds who brings headers: the introduction, or why there is none; and the headers.
_Inside = tuple[Introduction | None, str | None, Mapping[str, str] | None]


class Made(NamedTuple):
    """An introduction that was made: of whom, what was found, since when (time.monotonic()), and what was learnt.

    `finding`: the verdict. It is not the introduction's where a plain HTTP service is well, or a health URL complains.
    `observed` is None where it offers what it did.
    """

    visit: Visit
    found: Introduction
    finding: reach.Finding
    ended: float
    pulse: Pulse | None
    observed: dict[str, Any] | None
    offered: Offered = NOTHING


def make(record: Record) -> None:
    """Introduce the registry to the endpoints of a message and send what was found to the queue of introductions.

    Endpoints that there was no time for, or that were not asked fairly, are left out; so are those of which nothing was
    learnt yet where the message has waited too long. Raises Malformed where the message is not of this kind,
    Unavailable where the queue does not take what was found.
    """
    asked = messages.visits(record.body)
    seconds = record.remaining_seconds - SEND_SECONDS
    due = asked.endpoints
    if record.waited_seconds > MAX_WAIT_SECONDS:
        due = [visit for visit in due if visit.pulse is not None or visit.era is not None]
    made = introduce(due, seconds=seconds, at_once=AT_ONCE if record.received == 1 else CAREFUL)
    sent = time.monotonic()
    introduced = [_introduced(one, sent) for one in made]
    for part in _parts(Introductions(asked.asked_at, introduced)):
        queues.send(os.environ["INTRODUCED_QUEUE_URL"], part)
    outcome = "introduced" if record.received == 1 else "again"
    observability.log_visits(asked.asked_at.isoformat(), outcome, len(introduced), len(asked.endpoints))


def introduce(visits: Sequence[Visit], *, seconds: float, at_once: int = AT_ONCE) -> list[Made]:
    """Make introductions on an event loop of our own, in any order; who is left out is not among them.

    `seconds`: what is not over by then is not begun. `at_once`: so many are under way together, at most.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(introduce_all(visits, seconds=seconds, at_once=at_once))


async def introduce_all(
    visits: Sequence[Visit],
    *,
    seconds: float,
    at_once: int = AT_ONCE,
    each: float = introduction.SECONDS,
    policy: Policy | None = None,
    resolver: Resolver | None = None,
) -> list[Made]:
    """What `introduce` does, on the loop that runs.

    `each`: what one introduction may take, in seconds, without learning. `resolver` takes the place of the system's.
    """
    if any(visit.url[:6].lower() == "https:" for visit in visits):
        exchange.verified()  # before the clock runs: nothing is read while it is made
    system = System()
    policy = policy or guard.policy()
    names = Names(resolver or system, policy)
    tour = _Tour(names, policy, time.monotonic() + seconds, at_once, each)
    try:
        return await tour.run(visits)
    finally:
        await tour.close()
        await names.close()
        await system.close()


class _Tour:
    """The introductions of one message. Everything in it runs on one loop, but for the digests."""

    def __init__(self, names: Names, policy: Policy, ends: float, at_once: int, each: float) -> None:
        self._names = names
        self._policy = policy
        self._ends = ends
        self._each = each
        self._dialler = Dialler(asyncio.get_running_loop())
        self._introducer = Introducer(self._dialler, names, policy)
        self._places = asyncio.Semaphore(at_once)
        self._hosts: dict[str, asyncio.Semaphore] = {}
        # Digests of long lists take seconds, in which others' answers would wait.
        self._digesting = asyncio.Semaphore(1)
        # Secrets are read one by one: their client is made by the first.
        self._reading = asyncio.Semaphore(1)
        self._slipped = 0.0

    async def run(self, visits: Sequence[Visit]) -> list[Made]:
        """Make them all."""
        watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            made = await asyncio.gather(*(self._visit(visit) for visit in visits))
        finally:
            watching.cancel()
        return [one for one in made if one is not None]

    async def close(self) -> None:
        """Wait until every session is deleted."""
        await self._introducer.close()

    async def _watch(self) -> None:
        """Add up how late this process is."""
        due = time.monotonic() + TICK_SECONDS
        while True:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            now = time.monotonic()
            if now - due > SLIP_SECONDS:
                self._slipped += now - due
            due = now + TICK_SECONDS

    async def _visit(self, visit: Visit) -> Made | None:
        try:
            async with AsyncExitStack() as places:
                for host in await self._at(visit):
                    await places.enter_async_context(self._hosts.setdefault(host, asyncio.Semaphore(HOST_AT_ONCE)))
                await places.enter_async_context(self._places)
                looked = visit.verdict not in UP
                for _ in range(ATTEMPTS if looked else ATTEMPTS + 1):
                    if time.monotonic() + self._each + LEAVE_SECONDS + 2 * LEARN_SECONDS > self._ends:
                        return None
                    slipped = self._slipped
                    found = await self._introducer.introduce(visit.url, seconds=self._each, before=visit.era)
                    is_fair = found.verdict != "down" or self._slipped - slipped < UNFAIR_SECONDS
                    if found.verdict == "down" and is_fair and not looked:
                        looked = True
                        await asyncio.sleep(SECOND_LOOK_SECONDS)
                    elif is_fair:
                        return await self._made(visit, found) if found.verdict else None
        except Exception as error:  # noqa: BLE001 - a fault of ours must not take the others along, nor a server down
            observability.log_defect("introduction", error)
        return None

    async def _at(self, visit: Visit) -> Sequence[str]:
        """The addresses that it counts for, in an order in which nobody waits for anybody in a circle."""
        if urls.endpoint_fault(visit.url):
            return ()
        try:
            async with asyncio.timeout(introduction.SECONDS):
                located = await reach.locate(reach.site(visit.url, self._policy), self._names, self._policy)
        except TimeoutError:
            return ()
        return () if isinstance(located, reach.Finding) else sorted(located)

    async def _complaint(self, visit: Visit) -> reach.Finding | None:
        """What the health URL that its owner has declared has against it; of who was up, twice."""
        asked = (self._dialler, self._names, self._policy, visit)
        complaint = await learning.complaint(*asked, LEARN_SECONDS / 2)
        if complaint is not None and visit.verdict in UP:
            await asyncio.sleep(SECOND_LOOK_SECONDS)
            complaint = await learning.complaint(*asked, LEARN_SECONDS / 2)
        return complaint

    async def _made(self, visit: Visit, found: Introduction) -> Made:
        endpoint = (self._dialler, self._names, self._policy, visit)
        ended, finding = time.monotonic(), asking.judged(found)
        known = await learning.learn(*endpoint, found, LEARN_SECONDS)
        if found.verdict == "down" and known is not None:
            # Nobody to be introduced to, whose health is well: a plain HTTP service.
            finding = reach.Finding("healthy", known.signature.status)
        elif found.verdict in ("up", "gated"):
            finding = await self._complaint(visit) or finding
        told, trouble, brought = found, None, None
        if found.verdict == "gated" and visit.headers is not None:
            told, trouble, brought = await self._inside(visit, visit.headers)
        observed, offered = None, NOTHING._replace(trouble=trouble)
        if told is not None and told.verdict == "up":
            async with self._digesting:
                offered = await asyncio.to_thread(_offered, visit, told)
                if offered.seen is None or offered.seen != visit.seen:
                    observed = await asyncio.to_thread(_observed, told)
            # Its lists are let go before the next digests are made.
            told = told._replace(tools=(), prompts=(), resources=(), templates=())
            found = told if found.verdict == "up" else found
            if told.ttl_ms is not None:
                offered = offered._replace(ttl_ms=min(max(told.ttl_ms, 0), MAX_TTL_MS))
            if visit.seen is not None and offered.offer is not None:
                offered = offered._replace(wavers=await self._wavers(visit, told.era, offered.seen, brought))
        return Made(visit, found, finding, ended, known, observed, offered)

    async def _inside(self, visit: Visit, secret_id: str) -> _Inside:
        """What a gated server says to who brings the headers that were given for it; or why it is not known.

        And the headers. What everybody else finds is its verdict all the same. Nothing is known where there is no time
        left.
        """
        try:
            async with self._reading:
                given = await asyncio.to_thread(headers.read, visit.server_id, secret_id)
        except secret.Gone:
            return None, "The headers that were given for it are gone: give them again", None
        except Unavailable as error:
            observability.log_unavailable("", error.cause)
            return None, "The headers that were given for it cannot be read right now", None
        if not given.are_for(visit.url):
            reason = "The headers that were given for it are for another scheme, host or port than it has here"
            return None, reason, None
        seconds = min(self._each, self._ends - time.monotonic() - LEAVE_SECONDS)
        if seconds <= 0:
            return None, None, None
        found = await self._introducer.introduce(visit.url, seconds=seconds, before=visit.era, headers=given.headers)
        if found.verdict is None:
            return None, None, None
        if found.verdict != "up":
            status = "" if found.status_code is None else f", {found.status_code}"
            return None, f"With the headers that were given for it, it is {found.verdict} all the same{status}", None
        async with self._digesting:
            repeats = await asyncio.to_thread(given.stand_in, found)
        if repeats:
            return None, "What it offers repeats a header that was given for it, and is not kept", None
        return found, None, given.headers

    async def _wavers(self, visit: Visit, era: str | None, seen: str | None, brought: Mapping[str, str] | None) -> bool:
        """Whether a server that offers something else than before offers yet another thing when it is asked again."""
        if time.monotonic() + self._each + LEAVE_SECONDS > self._ends:
            return False
        found = await self._introducer.introduce(visit.url, seconds=self._each, before=era, headers=brought)
        if found.verdict != "up":
            return False
        async with self._digesting:
            again = await asyncio.to_thread(_offered, visit._replace(seen=seen), found)
        return again.offer is not None


def _observed(found: Introduction) -> dict[str, Any]:
    """What is kept of what a server that is up says of itself: how much there is of it, and its digests."""
    told = _Told()
    observed: dict[str, Any] = {
        "protocol_versions": told.value(found.protocol_versions),
        "server_info": told.value(found.server_info),
        "capabilities": told.value(found.capabilities),
    }
    for name, items in (
        ("tools", found.tools),
        ("prompts", found.prompts),
        ("resources", found.resources),
        ("templates", found.templates),
    ):
        observed[f"{name}_count"] = len(items)
    observed["incomplete"] = {name: shown(reason)[:MAX_SENTENCE] for name, reason in found.incomplete.items()}
    observed["digest"] = None
    # Of half a list it would be another one each time.
    if "tools" not in found.incomplete:
        try:
            digests = fingerprint.tools([fingerprint.fingerprint(tool) for tool in found.tools])
        except ValueError:  # NaN, or half a character: no JSON
            digests = None
        observed["digest"] = digests and {name: one.hex() for name, one in digests._asdict().items()}
    return observed


def _offered(visit: Visit, found: Introduction) -> Offered:
    """All that a server that is up offers; the offer itself where it is another one than the visit knew."""
    trouble = next((f"The list of {name} is not whole: {reason}" for name, reason in found.incomplete.items()), None)
    trouble = trouble and _sentence(shown(trouble))
    if "tools" in found.incomplete:
        return Offered(trouble=trouble)
    offer: dict[str, Any] = {
        # Of half a list nobody knows what has gone.
        name: None if name in found.incomplete else [*items]
        for name, items in (
            ("tools", found.tools),
            ("prompts", found.prompts),
            ("resources", found.resources),
            ("templates", found.templates),
        )
    } | {
        "instructions": found.instructions,
        "server_info": found.server_info,
        "protocol_versions": [*found.protocol_versions],
        "capabilities": found.capabilities,
    }
    try:
        seen = fingerprint.whole(offer).hex()
        if seen == visit.seen:
            return Offered(seen, trouble=trouble)
        packed = messages.pack(offer)
    except (ValueError, RecursionError):
        return Offered(trouble="What it offers is no JSON: it holds NaN, half a character or a hundred levels")
    if len(packed) > MAX_OFFER:
        return Offered(trouble=f"What it offers is too long to be kept: {len(packed):,} bytes compressed")
    return Offered(seen, packed, trouble)


class _Told:
    """A stranger's values, bounded and shown: so many of them, and so much of each."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def value(self, value: Any, depth: int = 4) -> Any:
        """The same, or as much of it as there is room for."""
        self._left -= 1
        if isinstance(value, str):
            return shown(value)[:MAX_WORD]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if abs(value) < 2**53 else None
        if isinstance(value, Mapping) and depth:
            named = cast("Mapping[str, Any]", value)
            return {shown(key)[:MAX_WORD]: self.value(one, depth - 1) for key, one in named.items() if self._left > 0}
        if isinstance(value, list | tuple) and depth:
            return [self.value(one, depth - 1) for one in cast("Sequence[Any]", value) if self._left > 0]
        return None


def _introduced(made: Made, sent: float) -> Introduced:
    """What was made, as it is sent at this time.monotonic()."""
    visit, found, (verdict, status, reason), ended, known, observed, offered = made
    evidence = [
        Evidence(one.asked, one.status, one.media_type, one.excerpt, one.took_ms)
        for one in found.evidence[:MAX_EVIDENCE]
    ]
    finding = Finding(
        server_id=visit.server_id,
        verdict=verdict,  # pyright: ignore[reportArgumentType] - one of messages.Verdict
        status_code=status,
        response_time_ms=found.took_ms,
        error=_sentence(reason),
        age_ms=max(round((sent - ended) * 1000), 0),
        endpoint_id=visit.id,
        retry_after=found.retry_after,
        evidence=evidence if verdict != visit.verdict else (),
    )
    return Introduced(
        finding,
        pulse=known and pulse.write(known),
        era=cast("messages.Era | None", found.era),
        introduction=cast("messages.Observed | None", observed),
        auth=cast("messages.Auth | None", found.gate and found.gate._asdict()),
        seen=offered.seen,
        offer=offered.offer,
        trouble=offered.trouble,
        wavers=offered.wavers,
        ttl_ms=offered.ttl_ms,
    )


def _sentence(reason: str | None) -> str | None:
    """A sentence as it may be sent: what a server has named in it may be of any letters."""
    return reason and reason.encode("ascii", "backslashreplace").decode()[:MAX_SENTENCE]


def _parts(found: Introductions) -> list[str]:
    """What was found as one message, or as halves where one is too long; nothing where there is nothing."""
    if not found.introduced:
        return []
    body = messages.encode(found)
    if len(body.encode()) <= queues.MAX_BODY or len(found.introduced) == 1:
        return [body]
    middle = len(found.introduced) // 2
    halves = (found.introduced[:middle], found.introduced[middle:])
    return [part for half in halves for part in _parts(Introductions(found.asked_at, half))]
