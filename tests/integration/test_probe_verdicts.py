"""What a check makes of an endpoint: by its pulse, by a second look, by an introduction, and by whatever was learnt."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from mcp_registry.dial import exchange
from mcp_registry.dial.exchange import Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import MAX_BRIEF_BYTES, Introducer, Introduction
from mcp_registry.dial.lookup import Names, System
from mcp_registry.health import learning, messages, probe, pulse
from mcp_registry.health.asking import Beat
from mcp_registry.health.probe import Result, Target, sweep
from mcp_registry.health.pulse import Pulse, Signature
from tests import shapes
from tests.hostile import Farm, Manner, Visit, closed_port, silent_port
from tests.shapes import HTML, JSON, MOVED, SHAPES, Answer, doc, fixed, hand, jr, message, send, text

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
# Enough for a loopback on a machine that does other things too.
PATIENCE = 20.0

# What a server of `shapes.hand` answers to the question of this name.
QUESTION = "unknown session"
ANSWER = Signature(200, JSON, '{"error":{"code":int,"message":str},"id":int,"jsonrpc":str}')
PULSE = pulse.write(Pulse(QUESTION, ANSWER, 5.0))

Found = TypeVar("Found")


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Between two looks is no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "PAUSE_SECONDS", 0.05)
        yield


def on_our_loop(making: Coroutine[Any, Any, Found]) -> Found:
    with asyncio.Runner(loop_factory=probe.new_event_loop) as runner:
        return runner.run(making)


def check(
    url: str,
    verdict: str | None = "healthy",
    *,
    known: str | None = PULSE,
    era: str | None = "legacy",
    health: str | None = None,
    seconds: float = PATIENCE,
) -> Result:
    """One check of an endpoint that was found so before; asked again where this machine was too busy."""
    target = Target(7, 1, url, health, known, era, verdict)
    while True:
        (result,) = sweep([target], seconds=seconds, policy=OPEN)
        if result.error != probe.TOO_BUSY:
            return result


def asked(farm: Farm) -> list[str]:
    """What a server was asked: the method of MCP, the name of a question, or the method and path of HTTP."""
    return [_asked(visit) for visit in farm.visits]


def _asked(visit: Visit) -> str:
    if visit.headers.get("mcp-session-id") == pulse.UNKNOWN_SESSION:
        return QUESTION
    if visit.method == "POST":
        return message(visit).get("method", "no JSON")
    return f"{visit.method} {visit.path}"


HANDSHAKE = ["initialize", "notifications/initialized", "tools/list"]


def in_turn(*manners: Manner) -> Manner:
    """The first visitor is met in the first manner, and so on; whoever comes later in the last."""
    met = iter(manners[:-1])

    async def answer(visit: Visit) -> None:
        await next(met, manners[-1])(visit)

    return answer


async def drop(visit: Visit) -> None:
    visit.reset()


async def hold(visit: Visit) -> None:
    await visit.hold()


# ------------------------------------------------------------------ every shape

VERDICTS = {"up": "healthy", "gated": "gated", "limited": "limited"}


class Sweeps:
    """All shapes, checked without a pulse, introduced, and checked by what was learnt."""

    def __init__(self, farm: Farm) -> None:
        urls = [shapes.url(farm, name) for name in SHAPES]
        for sessions in shapes.SESSIONS.values():
            sessions.clear()  # what other files of tests have left
        self.first = self._swept([Target(n, n, url) for n, url in enumerate(urls)])
        learnt = on_our_loop(self._introduced(urls))
        self.pulses = dict(zip(SHAPES, (found for _, found in learnt), strict=True))
        known = [
            Target(
                n,
                n,
                url,
                None,
                found and pulse.write(found),
                introduction.era,
                VERDICTS.get(introduction.verdict or "", introduction.cause),
            )
            for n, (url, (introduction, found)) in enumerate(zip(urls, learnt, strict=True))
        ]
        before = len(farm.visits)
        self.second = self._swept(known)
        self.asked = Counter(visit.path.split("/")[1] for visit in farm.visits[before:])
        self.sessions = {name for name, sessions in shapes.SESSIONS.items() if sessions}

    def _swept(self, targets: list[Target]) -> dict[str, Result]:
        found: dict[int, Result] = {}
        while left := [target for target in targets if target.server_id not in found]:
            results = sweep(left, seconds=PATIENCE, policy=OPEN)
            found |= {result.server_id: result for result in results if result.error != probe.TOO_BUSY}
        return {name: found[n] for n, name in enumerate(SHAPES)}

    async def _introduced(self, urls: list[str]) -> list[tuple[Introduction, Pulse | None]]:
        names = Names(System(), OPEN)
        dialler = Dialler(asyncio.get_running_loop())
        introducer = Introducer(dialler, names, OPEN)

        async def learn(url: str) -> tuple[Introduction, Pulse | None]:
            introduction = await introducer.introduce(url, seconds=PATIENCE)
            target = Target(1, 1, url)
            return introduction, await learning.learn(dialler, names, OPEN, target, introduction, PATIENCE)

        try:
            return await asyncio.gather(*map(learn, urls))
        finally:
            await introducer.close()


@pytest.fixture(scope="module")
def sweeps() -> Iterator[Sweeps]:
    with shapes.serving() as farm:
        yield Sweeps(farm)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_what_a_stock_client_finds_without_a_pulse_and_by_it(sweeps, name):
    shape, first, second = SHAPES[name], sweeps.first[name], sweeps.second[name]
    down = {"not_mcp", "mcp_error", "http_error", "refused", "timeout"}
    assert first.verdict in ({VERDICTS[shape.verdict]} if shape.verdict in VERDICTS else down), first
    assert second.verdict == first.verdict, second
    assert first.in_doubt == (shape.verdict in ("up", "gated")) and not second.in_doubt
    assert (first.evidence == ()) == (shape.verdict == "up") and second.evidence == ()


# The transport of 2024-11-05 refuses any POST to its stream in the same way as a path that does not exist.
WITHOUT = {"java-sse", "401-for-tools"}


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.verdict in ("up", "gated")])
def test_of_who_is_up_or_gated_one_question_is_learnt_and_asked(sweeps, name):
    assert (sweeps.pulses[name] is None) == (name in WITHOUT)
    assert name in WITHOUT or sweeps.asked[name] == 1 + MOVED.get(name, 0)


def test_neither_learning_nor_a_sweep_leaves_a_session_behind(sweeps):
    assert sweeps.sessions == set()


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.verdict in ("down", "limited")])
def test_nothing_is_learnt_of_who_is_not_there(sweeps, name):
    assert sweeps.pulses[name] is None


# ------------------------------------------------------------------ the pulse


@pytest.mark.parametrize("verdict", ["healthy", "gated", "limited"])
def test_an_answer_as_before_means_the_verdict_as_before(verdict):
    with Farm(hand()) as farm:
        result = check(f"{farm.url}/mcp", verdict)
        assert asked(farm) == [QUESTION]
    expected = "gated" if verdict == "gated" else "healthy"
    assert (result.verdict, result.status_code, result.error) == (expected, 200, None)
    assert not result.in_doubt and result.evidence == () and (result.response_time_ms or 0) < 5_000


@pytest.mark.parametrize("other", [fixed(text(502, "<h1>Bad Gateway</h1>", HTML)), drop])
def test_a_second_look_is_taken_at_another_answer_and_may_be_as_before(other):
    with Farm(in_turn(other, hand())) as farm:
        result = check(f"{farm.url}/mcp")
        assert asked(farm) == [QUESTION, QUESTION]
    assert (result.verdict, result.in_doubt) == ("healthy", False)


def test_whoever_answers_otherwise_twice_is_introduced_and_is_up_in_doubt():
    with Farm(hand(other=jr(404, -32601, "Method not found"))) as farm:
        result = check(f"{farm.url}/mcp")
        assert asked(farm) == [QUESTION, QUESTION, *HANDSHAKE]
    assert (result.verdict, result.in_doubt, result.evidence) == ("healthy", True, ())


def test_whoever_does_not_answer_is_asked_no_second_pulse_but_introduced():
    async def no_pulse(visit: Visit) -> None:
        await (hold if _asked(visit) == QUESTION else hand())(visit)

    with Farm(no_pulse) as farm:
        result = check(f"{farm.url}/mcp", known=pulse.write(Pulse(QUESTION, ANSWER, 1.0)))
        assert asked(farm) == [QUESTION, *HANDSHAKE]
    assert (result.verdict, result.in_doubt) == ("healthy", True)


def test_who_was_let_in_before_is_gated_by_a_bare_403_and_its_way_in_is_to_be_found_out():
    with Farm(fixed(text(403, "no"))) as farm:
        result = check(f"{farm.url}/mcp")
    assert (result.verdict, result.status_code, result.in_doubt) == ("gated", 403, True)
    assert [(one.asked, one.status) for one in result.evidence] == [("initialize", 403), ("server/discover", 403)]


def test_who_is_gone_is_down_with_what_was_heard_there():
    with Farm(fixed(text(200, "<title>For\u200bsale</title>", HTML))) as farm:
        result = check(f"{farm.url}/mcp")
    assert (result.verdict, result.status_code) == ("not_mcp", 200)
    assert [one.asked for one in result.evidence] == ["initialize", "server/discover"]
    assert result.evidence[0].media_type == HTML and "For\\u200bsale" in result.evidence[0].excerpt
    evidence = [messages.Evidence(*one) for one in result.evidence]
    finding = messages.Finding(7, "not_mcp", 200, 1, result.error, 1, 1, evidence=evidence)
    body = messages.encode(messages.Findings(datetime.now(UTC), 0, [finding]))
    assert messages.findings(body).findings == [finding]


@pytest.mark.parametrize("version", ["\u00e9\u6771\U0001f600", "x\x1b[31m\x00\n", "y" * 5_000])
def test_whatever_a_server_names_the_sentence_about_it_is_one_that_the_writer_takes(version):
    with Farm(hand(protocolVersion=version)) as farm:
        result = check(f"{farm.url}/mcp", "timeout")
    assert result.verdict == "mcp_error" and "version" in (result.error or "")
    evidence = [messages.Evidence(*one) for one in result.evidence]
    finding = messages.Finding(7, "mcp_error", 200, 1, result.error, 1, 1, evidence=evidence)
    assert messages.findings(messages.encode(messages.Findings(datetime.now(UTC), 0, [finding]))).findings == [finding]


def test_what_is_as_it_was_found_before_brings_no_evidence():
    with Farm(fixed(text(200, "", HTML))) as farm:
        assert check(f"{farm.url}/mcp", "not_mcp").evidence == ()


def test_a_pulse_that_opens_a_session_is_none_and_the_session_is_closed():
    async def opens(visit: Visit) -> None:
        if _asked(visit) == QUESTION:
            await send(visit, jr(200, -32601, "Method not found"), "Mcp-Session-Id: new")
        else:
            await hand()(visit)

    with Farm(opens) as farm:
        result = check(f"{farm.url}/mcp")
        assert asked(farm) == [QUESTION, "DELETE /mcp"] * 2 + HANDSHAKE
    assert (result.verdict, result.in_doubt) == ("healthy", True)


# ------------------------------------------------------------------ who is limited


def test_who_limits_us_is_not_asked_again_and_says_when_to():
    with Farm(fixed(text(429, "", None, "Retry-After: 60"))) as farm:
        result = check(f"{farm.url}/mcp")
        assert asked(farm) == [QUESTION]
    assert (result.verdict, result.status_code, result.retry_after) == ("limited", 429, 60)
    assert [(one.asked, one.status) for one in result.evidence] == [(QUESTION, 429)]


def test_nobody_is_left_alone_for_more_than_five_minutes():
    with Farm(fixed(text(429, "", None, "Retry-After: 86400"))) as farm:
        assert check(f"{farm.url}/mcp").retry_after == check(f"{farm.url}/mcp", None, known=None).retry_after == 300


# ------------------------------------------------------------------ without a pulse


def test_who_is_down_is_introduced_at_once_and_only_once():
    with Farm(fixed(text(503, ""))) as farm:
        result = check(f"{farm.url}/mcp", "timeout")
        assert asked(farm) == ["initialize", "server/discover"]
    assert (result.verdict, result.status_code) == ("http_error", 503)


def test_who_was_down_is_up_again_by_an_introduction_only_and_in_doubt():
    with Farm(hand()) as farm:
        result = check(f"{farm.url}/mcp", "timeout")
        assert asked(farm) == HANDSHAKE
    assert (result.verdict, result.in_doubt) == ("healthy", True)


@pytest.mark.parametrize("verdict", ["healthy", "gated", "limited", None])
def test_who_has_no_pulse_and_was_not_down_is_looked_at_twice(verdict):
    with Farm(in_turn(drop, drop, hand())) as farm:
        result = check(f"{farm.url}/mcp", verdict, known=None)
        assert asked(farm) == ["initialize", "server/discover", *HANDSHAKE]
    assert (result.verdict, result.in_doubt) == ("healthy", False)


def test_who_was_introduced_in_another_way_before_is_in_doubt():
    with Farm(hand()) as farm:
        assert check(f"{farm.url}/mcp", known=None, era="modern").in_doubt
        assert check(f"{farm.url}/mcp", known=None, era=None).in_doubt


def test_a_list_that_is_longer_than_a_check_reads_is_up_and_so_many_bytes_are_read(monkeypatch):
    read: list[int] = []
    feed = exchange.Answer.feed

    def counting(answer: exchange.Answer, data: bytes) -> None:
        read.append(len(data))
        feed(answer, data)

    monkeypatch.setattr(exchange.Answer, "feed", counting)
    many = [{"name": f"t{n}", "description": "x" * 1_000, "inputSchema": {"type": "object"}} for n in range(2_000)]
    with Farm(hand(tools=shapes.says(lambda _: {"tools": many}))) as farm:
        result = check(f"{farm.url}/mcp", known=None)
        assert result.verdict == "healthy" and asked(farm) == HANDSHAKE
    assert 0x10000 < sum(read) <= MAX_BRIEF_BYTES


def test_an_answer_that_only_a_check_finds_too_long_is_no_verdict():
    with Farm(hand(instructions="x" * 0x48000)) as farm:
        result = check(f"{farm.url}/mcp", known=None)
    assert (result.verdict, result.error) == (None, "The answer is longer than a check reads")


def test_only_the_first_page_of_the_tools_is_asked_for_and_the_session_is_deleted():
    with Farm(hand(session=True, capabilities={"tools": {}, "prompts": {}, "resources": {}})) as farm:
        assert check(f"{farm.url}/mcp", known=None).verdict == "healthy"
        assert asked(farm) == [*HANDSHAKE, "DELETE /mcp"]


# ------------------------------------------------------------------ plain HTTP services


def service(health: Answer) -> Manner:
    """A plain HTTP service with its health below its address."""

    async def answer(visit: Visit) -> None:
        await send(visit, health if visit.path.endswith("/health") else text(404, "Not Found"))

    return answer


@pytest.mark.parametrize("path", ["", "/", "/api", "/api/"])
@pytest.mark.parametrize("health", [text(200, "ok"), doc(200, {"status": "UP"}), Answer(204)])
def test_a_plain_service_to_which_nobody_was_introduced_is_healthy_by_its_health(health, path):
    with Farm(service(health)) as farm:
        result = check(farm.url + path, None, known=None, era=None)
        assert asked(farm)[-2:] == [f"GET {path.rstrip('/')}/health", f"GET {path.rstrip('/')}/{pulse.NONSENSE}"]
    assert (result.verdict, result.status_code, result.in_doubt) == ("healthy", health.status, False)


NO_HEALTH = {
    "a page": service(text(200, "<html>", HTML)),
    "a page without a type": service(text(200, "<!doctype html>", None)),
    "down": service(doc(200, {"status": "DOWN"})),
    "down without a type": service(text(200, '{"status": "DOWN"}', None)),
    "a refusal": service(text(503, "")),
    "the same anywhere": fixed(text(200, "ok")),
    "the same JSON anywhere": fixed(doc(200, {"status": "ok"})),
}


@pytest.mark.parametrize("kind", NO_HEALTH)
def test_what_says_nothing_of_a_service_is_no_health(kind):
    with Farm(NO_HEALTH[kind]) as farm:
        assert check(f"{farm.url}/api", "not_mcp", known=None, era=None).verdict in ("not_mcp", "http_error")


def test_who_was_introduced_once_is_not_up_by_a_health_page():
    with Farm(service(text(200, "ok"))) as farm:
        result = check(f"{farm.url}/mcp", known=None)
        assert "GET /mcp/health" not in asked(farm)
    assert (result.verdict, result.status_code) == ("not_mcp", 404)


def test_the_health_of_a_plain_service_is_its_pulse():
    with Farm(service(text(200, "ok"))) as farm:
        found = learn(f"{farm.url}/api")
        assert found is not None and found.question == "plain health"
        farm.visits.clear()
        known = pulse.write(found)
        result = check(f"{farm.url}/api", known=known, era=None)
        assert (result.verdict, asked(farm)) == ("healthy", ["GET /api/health"])
    with Farm(service(doc(200, {"status": "DOWN"}))) as farm:
        result = check(f"{farm.url}/api", known=known, era=None)
        assert asked(farm)[:2] == ["GET /api/health"] * 2 and result.verdict == "not_mcp"


def test_a_plain_service_that_says_down_in_the_shape_of_up_is_down():
    with Farm(service(doc(200, {"status": "UP"}))) as farm:
        found = learn(f"{farm.url}/api")
        assert found is not None and found.question == "plain health"
    with Farm(service(doc(200, {"status": "DOWN"}))) as farm:
        assert check(f"{farm.url}/api", known=pulse.write(found), era=None).verdict == "not_mcp"


def learn(url: str, health: str | None = None, era: str | None = None, known: str | None = None) -> Pulse | None:
    """What is learnt of an endpoint by introducing oneself."""

    async def run() -> Pulse | None:
        names = Names(System(), OPEN)
        dialler = Dialler(asyncio.get_running_loop())
        introducer = Introducer(dialler, names, OPEN)
        introduction = await introducer.introduce(url, seconds=PATIENCE)
        await introducer.close()
        target = Target(1, 1, url, health, known, era)
        return await learning.learn(dialler, names, OPEN, target, introduction, PATIENCE)

    return on_our_loop(run())


def placed(manner: Manner) -> Manner:
    """A server that is at /mcp, and whose handler dies of what is no JSON."""

    async def answer(visit: Visit) -> None:
        found = drop if _asked(visit) == "no JSON" else manner
        await (found if visit.path == "/mcp" else fixed(text(404, "")))(visit)

    return answer


def test_who_breaks_at_a_question_breaks_once_and_not_each_time_that_is_learnt():
    with Farm(placed(hand())) as farm:
        found = learn(f"{farm.url}/mcp")
        assert found is not None and found.question == QUESTION and "no JSON" in asked(farm)
        farm.visits.clear()
        again = learn(f"{farm.url}/mcp", known=pulse.write(found))
        assert again is not None and again[:2] == found[:2]
        assert asked(farm) == [*HANDSHAKE, "tools/list", *[QUESTION] * 3]


def test_what_does_not_tell_any_more_is_asked_once_and_then_the_cheapest_first():
    with Farm(placed(hand())) as farm:
        known = pulse.write(Pulse("server/discover", ANSWER, 5.0))
        of_another_era = learn(f"{farm.url}/mcp", known=known)
        assert of_another_era == learn(f"{farm.url}/mcp") and "server/discover" not in asked(farm)
    with Farm(placed(in_turn(*[hand()] * 4, drop, hand()))) as farm:
        found = learn(f"{farm.url}/mcp", known=PULSE)
        assert found is not None and found.question == "no stream"
        assert [(visit.method, _asked(visit)) for visit in farm.visits[4:8]] == [
            ("POST", QUESTION),
            ("POST", QUESTION),  # no request, in the session that nobody has
            ("POST", "no JSON"),
            ("GET", QUESTION),  # a stream, in the same session that nobody has
        ]


def test_a_declared_health_url_is_asked_before_what_told_before():
    async def answer(visit: Visit) -> None:
        healthy = fixed(doc(200, {"status": "UP"})) if visit.path == "/up" else fixed(text(404, ""))
        await (hand() if visit.path == "/mcp" else healthy)(visit)

    with Farm(answer) as farm:
        found = learn(f"{farm.url}/mcp", "/up", known=PULSE)
    assert found is not None and found.question == "health_url"


# ------------------------------------------------------------------ a declared health URL


def declared(health: Answer, mcp: Manner | None = None) -> Manner:
    async def answer(visit: Visit) -> None:
        if visit.path == "/up?full=1":
            await send(visit, health)
        elif visit.path == f"/{pulse.NONSENSE}":
            await send(visit, text(404, ""))
        else:
            await (mcp or fixed(text(404, "")))(visit)

    return answer


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("status", [200, 204])
def test_a_declared_health_url_is_the_only_thing_asked_where_it_is_good(status, absolute):
    with Farm(declared(Answer(status))) as farm:
        health = (farm.url if absolute else "") + "/up?full=1"
        for verdict in (None, "healthy", "http_error"):
            result = check(f"{farm.url}/mcp", verdict, known=None, era=None, health=health)
            assert (result.verdict, result.status_code, result.in_doubt) == ("healthy", status, False)
        assert asked(farm) == ["GET /up?full=1", f"GET /{pulse.NONSENSE}"] * 3
        learnt = learn(f"{farm.url}/mcp", "/up?full=1")
        assert learnt is not None and learnt.question == "health_url"
        farm.visits.clear()
        for era in (None, "legacy"):
            result = check(f"{farm.url}/mcp", known=pulse.write(learnt), era=era, health=health)
            assert (result.verdict, result.in_doubt, asked(farm)) == ("healthy", False, ["GET /up?full=1"])
            farm.visits.clear()


SAYS_NOTHING = {
    "a page": declared(text(200, "<html>", HTML)),
    "a page without a type": declared(text(200, "<!doctype html>", None)),
    "the same anywhere": fixed(doc(200, {"status": "ok"})),
}


@pytest.mark.parametrize("kind", SAYS_NOTHING)
def test_a_health_url_that_tells_of_no_service_calls_nobody_up_nor_is_it_learnt(kind):
    with Farm(SAYS_NOTHING[kind]) as farm:
        assert learn(f"{farm.url}/mcp", "/up?full=1") is None
        for verdict in (None, "healthy", "not_mcp"):
            result = check(f"{farm.url}/mcp", verdict, known=None, era=None, health="/up?full=1")
            assert (result.verdict, result.in_doubt) == ("not_mcp", False)


def test_a_health_url_that_has_become_a_page_is_not_as_before():
    with Farm(declared(doc(200, {"status": "UP"}))) as farm:
        learnt = learn(f"{farm.url}/mcp", "/up?full=1")
    assert learnt is not None
    for era in (None, "legacy"):
        with Farm(declared(text(200, "<html>", HTML))) as farm:
            result = check(f"{farm.url}/mcp", known=pulse.write(learnt), era=era, health="/up?full=1")
        assert result.verdict == "not_mcp"


def test_a_health_url_whose_answer_has_another_shape_is_a_plain_service_well_and_learnt_anew():
    with Farm(declared(doc(200, {"status": "UP"}))) as farm:
        learnt = learn(f"{farm.url}/mcp", "/up?full=1")
    assert learnt is not None
    with Farm(declared(doc(200, {"status": "UP", "since": 1}))) as farm:
        result = check(f"{farm.url}/mcp", known=pulse.write(learnt), era=None, health="/up?full=1")
        assert (result.verdict, result.in_doubt) == ("healthy", True)
        # Of who was introduced it says nothing any more.
        assert check(f"{farm.url}/mcp", known=pulse.write(learnt), health="/up?full=1").verdict == "not_mcp"


def test_what_an_introduction_and_a_sweep_say_of_a_plain_service_is_the_same_where_its_health_changes():
    shapes_in_turn = [fixed(doc(200, {"status": "UP", str(number): 1})) for number in range(9)]
    turns = in_turn(*shapes_in_turn)

    async def answer(visit: Visit) -> None:
        await (turns if visit.path == "/up" else fixed(text(404, "")))(visit)

    with Farm(answer) as farm:
        known = None
        for _ in range(2):
            learnt = learn(f"{farm.url}/mcp", "/up")
            assert learnt is not None and learnt.question == "health_url"
            assert check(f"{farm.url}/mcp", known=known, era=None, health="/up").verdict == "healthy"
            known = pulse.write(learnt)


@pytest.mark.parametrize("verdict", [None, "not_mcp", "timeout"])
def test_a_limit_calls_nobody_up_whom_no_introduction_does(verdict):
    limit = text(429, "later", "text/plain", "Retry-After: 60")
    with Farm(declared(limit)) as farm:
        result = check(f"{farm.url}/mcp", verdict, known=None, era=None, health="/up?full=1")
        assert (result.verdict, result.status_code, result.retry_after) == ("http_error", 429, None)
        assert asked(farm)[:2] == ["GET /up?full=1", "initialize"]
        assert check(f"{farm.url}/mcp", known=None, era=None, health="/up?full=1").verdict == "limited"
    with Farm(fixed(limit)) as farm:
        result = check(f"{farm.url}/mcp", verdict, known=None, era=None, health="/up?full=1")
        assert (result.verdict, result.retry_after) == ("limited", 60)


@pytest.mark.parametrize(
    ("health", "sentence"),
    [
        (text(503, ""), "The health URL answered 503"),
        (doc(200, {"status": "DOWN"}), "The health URL answered 200 and calls the server DOWN"),
        (text(200, '{"status": "DOWN"}'), "The health URL answered 200 and calls the server DOWN"),
        (doc(500, {"status": "fail"}), "The health URL answered 500 and calls the server fail"),
        (text(200, "Unhealthy"), "The health URL answered 200 and calls the server Unhealthy"),
        (doc(200, {"ok": False}), "The health URL answered 200 and calls the server not ok"),
    ],
)
@pytest.mark.parametrize("verdict", ["healthy", None])
def test_a_health_url_that_complains_twice_decides_whatever_mcp_answers(health, sentence, verdict):
    with Farm(declared(health, hand())) as farm:
        result = check(f"{farm.url}/mcp", verdict, known=None, health="/up?full=1")
        assert asked(farm) == ["GET /up?full=1"] * 2
        assert (result.verdict, result.status_code, result.error) == ("http_error", health.status, sentence)
        assert [one.asked for one in result.evidence] == [f"GET {farm.url}/up?full=1"]
        # Who is down already is not asked twice.
        assert check(f"{farm.url}/mcp", "http_error", known=None, health="/up?full=1").verdict == "http_error"
        assert asked(farm) == ["GET /up?full=1"] * 3


def test_a_word_for_a_sick_service_is_the_same_in_pieces_and_any_other_text_is_not_read_on():
    for page, complaint, is_over in (("Unhealthy", "Unhealthy", False), ("Up", None, True), ("Downtown", None, True)):
        beat = Beat()
        for byte in f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{page}".encode():
            beat.feed(bytes((byte,)))
        assert beat.done == is_over
        beat.end()
        assert beat.complaint == complaint


def test_a_health_url_that_says_nothing_leaves_it_to_an_introduction():
    with Farm(declared(text(404, ""), hand())) as farm:
        result = check(f"{farm.url}/mcp", known=None, health="/up?full=1")
        assert asked(farm) == ["GET /up?full=1"] * 2 + HANDSHAKE
    assert (result.verdict, result.in_doubt) == ("healthy", False)


@pytest.mark.parametrize("status", [302, 401, 404])
def test_of_a_plain_service_its_health_url_says_what_is_wrong(status):
    with Farm(declared(text(status, ""))) as farm:
        result = check(f"{farm.url}/mcp", known=None, era=None, health="/up?full=1")
    told = f"The health URL answered {status}"
    assert (result.verdict, result.status_code, result.error) == ("http_error", status, told)


def test_who_was_down_is_not_called_up_by_a_health_url_alone_where_it_was_introduced_once():
    with Farm(declared(Answer(204))) as farm:
        assert check(f"{farm.url}/mcp", "not_mcp", known=None, health="/up?full=1").verdict == "not_mcp"


def test_a_health_url_at_another_port_of_the_host_is_asked_there():
    with Farm(declared(Answer(204))) as health, Farm(hand()) as farm:
        result = check(f"{farm.url}/mcp", known=None, health=f"{health.url}/up?full=1")
        assert (result.verdict, asked(farm)) == ("healthy", [])
        assert asked(health) == ["GET /up?full=1", f"GET /{pulse.NONSENSE}"]


def test_a_health_url_that_says_the_same_as_a_path_that_cannot_exist_is_no_pulse():
    async def answer(visit: Visit) -> None:
        await (hand() if visit.path == "/mcp" else fixed(text(200, "ok")))(visit)

    with Farm(answer) as farm:
        found = learn(f"{farm.url}/mcp", "/up")
    assert found is not None and found.question == QUESTION


# ------------------------------------------------------------------ time


def test_who_hangs_for_all_the_time_there_is_is_down_and_who_could_not_be_waited_for_is_not_checked():
    seconds = 10.9
    with silent_port() as silent:
        url = f"http://127.0.0.1:{silent}/"
        # The pulse of the second is waited for 4.4 s, which leaves an introduction too little to call anybody down.
        targets = [
            Target(1, 1, url, None, None, "legacy", "healthy"),
            Target(2, 2, url, None, PULSE, "legacy", "healthy"),
        ]
        began = time.monotonic()
        results = sorted(sweep(targets, seconds=seconds, policy=OPEN))
        took = time.monotonic() - began
    found = [(result.verdict, result.error) for result in results]
    if found[0] != (None, probe.TOO_BUSY):
        verdict, sentence = found[0]
        assert verdict == "timeout" and re.fullmatch(
            r"No answer to initialize within [78](\.[0-9])? seconds", sentence or ""
        )
    assert found[1] == (None, probe.OUT_OF_TIME) and took < seconds + 1.5


@pytest.mark.parametrize("hung", ["notifications/initialized", "tools/list"])
def test_who_was_up_has_begun_and_is_too_slow_for_a_sweep_is_what_it_was_in_doubt(hung):
    async def slow(visit: Visit) -> None:
        await (hold if _asked(visit) == hung else hand())(visit)

    with Farm(slow) as farm:
        targets = [
            Target(n, n, f"{farm.url}/mcp", None, None, "legacy", verdict)
            for n, verdict in enumerate(["healthy", "gated", "limited", "timeout"])
        ]
        found = {result.id: result for result in sweep(targets, seconds=7.9, policy=OPEN)}
    told = [(found[n].verdict, found[n].in_doubt) for n in range(4)]
    assert told[:3] == [("healthy", True), ("gated", True), ("healthy", True)]
    # Who is down already is not called up by half a handshake.
    assert told[3] in (("timeout", False), (None, False))


def test_those_who_wait_to_be_introduced_have_their_turn_and_nobody_waits_for_who_is_down():
    now, most = Counter[str](), Counter[str]()

    async def slow(visit: Visit) -> None:
        kind = visit.path[1:]
        now[kind] += 1
        most[kind] = max(most[kind], now[kind])
        await asyncio.sleep(0.02)  # so that those that come together are there together
        now[kind] -= 1
        await hand()(visit)

    with Farm(slow) as farm:
        kinds = ["up" if number % 2 else "down" for number in range(40)]
        targets = [
            Target(n, n, f"{farm.url}/{kind}", None, None, "legacy", None if kind == "up" else "timeout")
            for n, kind in enumerate(kinds)
        ]
        results = sweep(targets, seconds=PATIENCE, policy=OPEN, introductions=5)
    assert {result.verdict for result in results} == {"healthy"}
    assert 0 < most["up"] <= 5 and 0 < most["down"] <= 2


def test_those_that_may_take_long_come_first_and_those_who_are_down_last():
    slow = pulse.write(Pulse(QUESTION, ANSWER, 6.0))
    kinds = {"none": (None, "healthy"), "slow": (slow, "gated"), "quick": (PULSE, "healthy"), "down": (PULSE, "dns")}
    targets = [
        Target(n, n, "http://127.0.0.1/", None, known, "legacy", verdict)
        for n, (known, verdict) in enumerate([*kinds.values()] * 25)
    ]
    turns = probe._turns(targets, 8.0, 0)
    order = [[*kinds][target.server_id % 4] for _, target in turns]
    assert {*order[:50]} == {"none", "slow"} and {*order[50:75]} == {"quick"} and {*order[75:]} == {"down"}
    assert [after for after, _ in turns] == sorted(after for after, _ in turns) and turns[-1][0] < 8.0


def test_nobody_listens_is_said_after_two_looks_and_an_introduction():
    result = check(f"http://127.0.0.1:{closed_port()}/mcp")
    assert (result.verdict, result.error) == ("refused", "Nothing listens there: the connection was refused")
