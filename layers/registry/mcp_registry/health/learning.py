"""Learning the pulse of an endpoint: after an introduction, the cheap questions are asked, the cheapest first."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mcp_registry.dial import exchange, reach, urls
from mcp_registry.dial.exchange import Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import Introduction
from mcp_registry.dial.lookup import Names
from mcp_registry.dial.reach import Finding
from mcp_registry.health import asking, pulse
from mcp_registry.health.asking import Heard
from mcp_registry.health.pulse import HEALTH_URL, PLAIN, Pulse, Question, Sample

# What is slower than this is no pulse, and need not be waited for.
WAIT_SECONDS = pulse.QUICK_SECONDS + 1.0


class Endpoint(Protocol):
    """What is known of an endpoint: messages.Visit, messages.Endpoint or probe.Target."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    @property
    def health_url(self) -> str | None:
        """Where its owner says that its health is."""
        ...

    @property
    def era(self) -> str | None:
        """The way of the last introduction that succeeded."""
        ...

    @property
    def pulse(self) -> str | None:
        """What was learnt of it before."""
        ...


async def learn(
    dialler: Dialler, names: Names, policy: Policy, endpoint: Endpoint, introduction: Introduction, seconds: float
) -> Pulse | None:
    """Learn which question tells of an endpoint that it is as the introduction found it; None where none does.

    Of an endpoint that nobody was ever introduced to, a health URL or a plain HTTP service's health below its address
    may tell: where the introduction was in vain, a pulse means that the endpoint is healthy by this. What told before
    is asked before all but a declared health URL: who breaks at a cheaper question is to break once, not every hour.
    Each question is asked twice, and once at a path that cannot exist; after so many seconds it is over. Sessions that
    are opened are deleted. Raises nothing but CancelledError.
    """
    learner = _Learner(dialler, names, policy, endpoint)
    try:
        async with asyncio.timeout(seconds):
            if introduction.verdict in ("up", "gated"):
                era = introduction.era or endpoint.era
                gate = introduction.status_code if introduction.verdict == "gated" else None
                declared = endpoint.health_url is not None
                questions = pulse.questions(declared=declared, era=era, gated=gate is not None)
                known = pulse.read(endpoint.pulse) if endpoint.pulse else None
                if known is not None:
                    told = known.question
                    questions = sorted(questions, key=lambda question: (not question.declared, question.name != told))
                for question in questions:
                    if (found := await learner.tries(question, gate)) is not None:
                        return found
            elif introduction.verdict == "down" and endpoint.era is None:
                return await learner.health(PLAIN if endpoint.health_url is None else HEALTH_URL)
    except TimeoutError:
        pass
    return None


async def complaint(
    dialler: Dialler, names: Names, policy: Policy, endpoint: Endpoint, seconds: float
) -> Finding | None:
    """What the declared health URL of an endpoint has against it, whatever the introduction found; else None."""
    if endpoint.health_url is None:
        return None
    learner = _Learner(dialler, names, policy, endpoint)
    try:
        async with asyncio.timeout(seconds):
            heard = await learner.ask(HEALTH_URL)
            return None if heard is None else asking.complaint(heard)
    except TimeoutError:
        return None


class _Learner:
    """Asks one endpoint."""

    def __init__(self, dialler: Dialler, names: Names, policy: Policy, endpoint: Endpoint) -> None:
        self._dialler = dialler
        self._names = names
        self._policy = policy
        self._endpoint = endpoint

    async def tries(self, question: Question, gate: int | None) -> Pulse | None:
        """Ask a question as often as is needed to know whether it tells of the endpoint."""
        first = await self.ask(question)
        if first is None or (question.is_health and not asking.says_well(first)):
            return None
        samples = [_sample(first)]
        # Who opens a session for it, or does not answer soon, is not asked once more.
        if pulse.learnt({question.name: samples * 2}, {}, gate) is None:
            return None
        second, nonsense = await self.ask(question), await self.ask(question, nonsense=True)
        if second is None:
            return None
        samples.append(_sample(second))
        beside = None if nonsense is None else nonsense.beat.signature
        return pulse.learnt({question.name: samples}, {question.name: beside}, gate)

    async def health(self, question: Question) -> Pulse | None:
        """Ask for the health of a plain HTTP service, which is all that there is to judge it by.

        So it may be slow, and its shape change: a check judges by the same rule (`probe`), and both say the same.
        """
        heard = await self.ask(question, seconds=pulse.MIN_SECONDS)
        if heard is None or not asking.says_well(heard):
            return None
        nonsense = await self.ask(question, nonsense=True)
        signature = heard.beat.signature
        if signature is None or asking.is_alike(heard, nonsense):
            return None
        return Pulse(question.name, signature, pulse.patience([heard.seconds]))

    async def ask(self, question: Question, *, nonsense: bool = False, seconds: float = WAIT_SECONDS) -> Heard | None:
        """Ask once; None where no answer comes in so many seconds."""
        url = asking.url_of(question, self._endpoint.url, self._endpoint.health_url)
        if not urls.PRINTABLE.fullmatch(url):
            return None
        site = reach.site(url, self._policy)
        try:
            async with asyncio.timeout(seconds):
                located = await reach.locate(site, self._names, self._policy)
                if isinstance(located, Finding):
                    return None
                path = asking.path_of(question, site, nonsense=nonsense)
                heard = await asking.ask(self._dialler, site, located, question, path)
        except TimeoutError:
            return None
        await asking.leave(self._dialler, site, heard)
        return None if heard.failure is not None or heard.beat.fault == exchange.CLOSED else heard


def _sample(heard: Heard) -> Sample:
    return Sample(heard.beat.signature, heard.seconds, heard.beat.session is not None)
