"""Introductions in the function that makes them: what is sent on, how many at once, and what is left out."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from local import queues as local_queues
from mcp_registry.aws import queues
from mcp_registry.catalogue import fingerprint, registration, servers
from mcp_registry.dial import introduction
from mcp_registry.dial.guard import Policy
from mcp_registry.edge.background import Record
from mcp_registry.errors import Malformed, Unavailable
from mcp_registry.health import history, introductions, messages, pulse, visits
from mcp_registry.health.messages import Introduced, Introductions, Visits
from mcp_registry.health.probe import new_event_loop
from tests import shapes
from tests.conftest import ADMIN
from tests.conftest import registration as document
from tests.contract.test_openapi import schema
from tests.hostile import Farm, Visit
from tests.shapes import JSON, SHAPES, TOOLS, Answer, fixed, hand, initialized, message, reply, result, says, send, text

_numbers = itertools.count(1)
OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
ASKED = datetime(2026, 11, 30, 18, 0, tzinfo=UTC)
# Beyond what any of these takes, on a busy machine too.
ENOUGH = 600.0


def endpoint(url: str, number: int = 1, **fields: Any) -> messages.Visit:
    known = {"health_url": None, "era": None, "verdict": None} | fields
    return messages.Visit(server_id=number, id=100 + number, url=url, **known)


def introduced(
    *endpoints: messages.Visit,
    each: float = introduction.SECONDS,
    seconds: float = ENOUGH,
    at_once: int = visits.AT_ONCE,
) -> dict[int, Introduced]:
    """What is found of these endpoints, as it is sent, by the number of each."""

    async def run() -> list[visits.Made]:
        return await visits.introduce_all(endpoints, seconds=seconds, at_once=at_once, each=each, policy=OPEN)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        made = runner.run(run())
    sent = Introductions(ASKED, [visits._introduced(one, time.monotonic()) for one in made])
    # As whoever reads the queue reads it: it refuses the whole where anything in it is not as it should be.
    read = messages.introductions(messages.encode(sent))
    return {one.finding.server_id: one for one in read.introduced}


@pytest.fixture(scope="module")
def every_shape() -> tuple[dict[str, Introduced], dict[str, set[str]]]:
    """What is sent of each shape, and the sessions that were left."""
    for sessions in shapes.SESSIONS.values():
        sessions.clear()  # what other files of tests have left
    with shapes.serving() as farm, pytest.MonkeyPatch.context() as patch:
        patch.setattr(visits, "HOST_AT_ONCE", len(SHAPES))
        # A hundred at once on a machine that does other things too: that it is late is not what this is about.
        patch.setattr(visits, "UNFAIR_SECONDS", float("inf"))
        numbered = dict(enumerate(SHAPES, 1))
        asked = (endpoint(shapes.url(farm, name), number) for number, name in numbered.items())
        found = introduced(*asked, at_once=len(SHAPES), each=10.0)
        return {numbered[number]: one for number, one in found.items()}, {
            name: {*sessions} for name, sessions in shapes.SESSIONS.items() if sessions
        }


def test_every_shape_is_sent_on_as_the_introduction_finds_it_and_no_session_is_left(every_shape):
    found, left = every_shape
    verdicts = {"up": "healthy", "gated": "gated", "limited": "limited"}
    for name, shape in SHAPES.items():
        one = found[name]
        assert one.finding.verdict == verdicts.get(shape.verdict, one.finding.verdict), name
        assert (one.finding.verdict in ("healthy", "gated", "limited")) == (shape.verdict != "down"), name
        assert (one.era, one.finding.endpoint_id) == (shape.era, 100 + one.finding.server_id), name
        assert (one.introduction is not None) == (shape.verdict == "up"), name
        assert (one.auth is not None) == (shape.verdict == "gated"), name
        assert bool(one.finding.evidence) == (shape.verdict != "up"), name
    assert left == {}


def test_what_is_told_of_every_shape_is_what_the_document_of_the_api_says(every_shape, database):
    ids: dict[str, int] = {}
    known: list[Introduced] = []
    for number, (name, one) in enumerate(every_shape[0].items()):
        parsed = registration.parse(document(f"shape-{number}", endpoint_url=f"http://localhost:{number + 1024}/mcp"))
        ids[name] = servers.register(database, ADMIN, parsed)["id"]
        row = database.read("SELECT endpoint_id FROM registry.mcp_servers WHERE id = %(id)s", {"id": ids[name]})
        assert row is not None
        finding = one.finding._replace(server_id=ids[name], endpoint_id=row[0])
        known.append(msgspec.structs.replace(one, finding=finding))
    body = messages.encode(Introductions(datetime.now(UTC), known))
    introductions.record(database, Record({"messageId": "1", "body": body}, 60.0))
    for name, id_ in ids.items():
        one = every_shape[0][name]
        told = servers.detail(database, id_)
        assert len(told.encode()) < 64 * 1024, name
        detail = json.loads(told)
        schema("ServerDetail").validate(detail)
        assert (detail["verdict"], detail["frozen"]) == (one.finding.verdict, False), name
        # The ledger may stand somewhere with a server that never let anybody in.
        said = (detail["observed"] or {}).get("server_info")
        assert (said is not None, detail["auth"] is not None) == (
            one.introduction is not None,
            one.auth is not None,
        ), name
        assert (detail["endpoints"][0]["evidence"] is not None) == (detail["status"] == "error"), name
        told = history.of_server(database, id_, "24h")
        schema("ServerHealth").validate(json.loads(told))
        # JSON has one spelling, without blanks, whoever's words are in it.
        for text_ in (told, servers.detail(database, id_)):
            assert text_ == json.dumps(json.loads(text_), ensure_ascii=False, separators=(",", ":")), name


def test_what_was_as_bad_before_brings_no_evidence_again():
    with Farm(hand(initialize=fixed(text(500, "")))) as farm:
        found = introduced(endpoint(farm.url, 1, verdict="http_error"), endpoint(farm.url, 2, verdict="healthy"))
    assert {one.finding.verdict for one in found.values()} == {"http_error"}
    assert not found[1].finding.evidence and found[2].finding.evidence


def test_of_a_server_that_is_up_counts_and_digests_are_kept():
    with Farm(hand()) as farm:
        (one,) = introduced(endpoint(farm.url)).values()
    digests = fingerprint.tools([fingerprint.fingerprint(tool) for tool in TOOLS])
    assert one.introduction == {
        "protocol_versions": ["2025-11-25"],
        "server_info": {"name": "shape", "version": "1"},
        "capabilities": {"tools": {}},
        "tools_count": 2,
        "prompts_count": 0,
        "resources_count": 0,
        "templates_count": 0,
        "incomplete": {},
        "digest": {name: digest.hex() for name, digest in digests._asdict().items()},
    }


def test_what_a_stranger_says_of_itself_is_bounded_and_shown():
    """A megabyte of names, escapes for a terminal, what is no JSON, and numbers beyond all measure."""
    info = {"name": "\x1b[31mred\u202e", "version": "v" * 10_000, "deep": {"a": {"b": {"c": {"d": {"e": 1}}}}}}
    capabilities = {
        "tools": {},
        "big": 10**400,
        "half": "\ud800",
        "nan": float("nan"),
        **dict.fromkeys(map(str, range(10_000)), "x" * 100),
    }
    tools = [{"name": "a", "inputSchema": {"type": "object", "x": float("inf")}}]
    manner = hand(serverInfo=info, capabilities=capabilities, tools=says(lambda _: {"tools": tools}))
    with Farm(manner) as farm:
        (one,) = introduced(endpoint(farm.url)).values()
    told: dict[str, Any] = {**(one.introduction or {})}
    assert one.finding.verdict == "healthy"
    assert (
        told["server_info"]["name"] == "\\x1b[31mred\\u202e" and len(told["server_info"]["version"]) == visits.MAX_WORD
    )
    assert len(json.dumps(told)) < 30_000
    assert told["capabilities"]["tools"] == {} and told["capabilities"]["big"] is None
    # What is no JSON has no canonical form, and so no digest.
    assert told["tools_count"] == 1 and told["digest"] is None


def test_how_a_server_is_asked_from_then_on_is_learnt(every_shape):
    known = pulse.read(every_shape[0]["csharp-2-stateful"].pulse or "")
    assert known is not None and known.question in pulse.BY_NAME
    assert every_shape[0]["modern-only"].pulse != every_shape[0]["csharp-2-stateful"].pulse


def plain(state: bytes) -> Callable[[Visit], Awaitable[None]]:
    """A service that speaks no MCP, and says this of its health."""

    async def answer(visit: Visit) -> None:
        is_health = visit.method == "GET" and visit.path.endswith("/health")
        await send(visit, Answer(200, JSON, state) if is_health else text(404, "Not Found"))

    return answer


def test_a_plain_service_that_is_well_is_healthy_and_has_a_pulse():
    with Farm(plain(b'{"status":"UP"}')) as farm:
        found = introduced(endpoint(farm.url, 1), endpoint(farm.url, 2, health_url="/health"))
        # Of whom it was once known what it is, that is not enough.
        found |= introduced(endpoint(farm.url, 3, era="legacy"))
    assert {number: one.finding.verdict for number, one in found.items()} == {1: "healthy", 2: "healthy", 3: "not_mcp"}
    assert found[1].pulse and found[2].pulse and not found[3].pulse
    for number in (1, 2):
        assert (found[number].finding.error, found[number].era, found[number].introduction) == (None, None, None)


def test_a_server_whose_health_url_calls_it_down_is_down_although_it_speaks():
    served = hand(get=lambda visit: send(visit, Answer(200, JSON, b'{"status":"DOWN"}')))
    with Farm(served) as farm:
        (one,) = introduced(endpoint(farm.url, health_url="/health")).values()
    assert one.finding.verdict == "http_error" and "DOWN" in (one.finding.error or "")


def test_half_a_list_has_no_digest():
    manner = hand(tools=says(lambda visit: {"tools": TOOLS, "nextCursor": "again"}))
    with Farm(manner) as farm:
        (one,) = introduced(endpoint(farm.url)).values()
    told: dict[str, Any] = {**(one.introduction or {})}
    assert told["incomplete"] == {"tools": "The cursors lead in a circle"}
    assert (told["tools_count"], told["digest"]) == (4, None)


# ------------------------------------------------------------------ how many at once, and for how long


def most_at_once(host_at_once: int, at_once: int, servers: int = 6) -> int:
    """How many of these servers of one host are introduced together, where so many may be."""
    under_way, most = 0, 0

    async def begin(visit: Visit) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        # Until as many as may be are here, or nobody else comes: who is not let in has no way to open the gate.
        if under_way >= min(host_at_once, at_once, servers):
            farm.open("full")
        await farm.gate("full").wait()
        await asyncio.sleep(0)
        under_way -= 1
        await reply(visit, result(visit, initialized(visit)))

    with Farm(hand(initialize=begin)) as farm, pytest.MonkeyPatch.context() as patch:
        patch.setattr(visits, "HOST_AT_ONCE", host_at_once)
        found = introduced(
            *(endpoint(f"{farm.url}/{number}", number) for number in range(1, servers + 1)), at_once=at_once
        )
    assert {one.finding.verdict for one in found.values()} == {"healthy"} and len(found) == servers
    return most


def test_a_host_is_asked_by_few_at_once_and_so_are_all_together():
    assert most_at_once(host_at_once=3, at_once=100) == 3
    assert most_at_once(host_at_once=100, at_once=2) == 2


def test_whom_there_is_no_time_for_is_left_out_and_not_called_down():
    with Farm(hand()) as farm:
        assert introduced(endpoint(farm.url), seconds=introduction.SECONDS + visits.LEARN_SECONDS) == {}
        assert farm.visits == []


def test_an_introduction_that_failed_while_we_were_late_is_made_once_more(monkeypatch):
    """The loop is held up in the middle of the first one, as by a neighbour that takes all of the CPU."""
    monkeypatch.setattr(visits, "UNFAIR_SECONDS", 0.3)
    began: list[asyncio.AbstractEventLoop] = []

    async def begin(visit: Visit) -> None:
        if not any(other is not visit and message(other).get("method") == "initialize" for other in farm.visits):
            began[0].call_soon_threadsafe(time.sleep, 0.6)
            await send(visit, text(404, "Not Found"))
            return
        await reply(visit, result(visit, initialized(visit)))

    async def run() -> list[visits.Made]:
        began.append(asyncio.get_running_loop())
        return await visits.introduce_all([endpoint(farm.url)], seconds=ENOUGH, policy=OPEN)

    with Farm(hand(initialize=begin)) as farm, asyncio.Runner(loop_factory=new_event_loop) as runner:
        (made,) = runner.run(run())
    assert made.found.verdict == "up"


# ------------------------------------------------------------------ the messages


@pytest.fixture(scope="module")
def client(queue_service):
    return local_queues.connect(queue_service)


@pytest.fixture
def sent(client, monkeypatch):
    """Reads what lies in the queue of introductions."""
    url = client.create_queue(QueueName=f"introduced-{next(_numbers)}")["QueueUrl"]
    monkeypatch.setattr(queues, "_client", client)
    monkeypatch.setenv("INTRODUCED_QUEUE_URL", url)

    def read() -> list[Introductions]:
        found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [messages.introductions(message["Body"]) for message in found]

    return read


def record(*endpoints: messages.Visit, remaining: float = ENOUGH, **attributes: str) -> Record:
    body = messages.encode(Visits(ASKED, [*endpoints]))
    return Record({"messageId": "1", "body": body, "attributes": attributes}, remaining)


def test_what_was_found_is_sent_on(sent):
    with Farm(hand()) as farm:
        visits.make(record(endpoint(farm.url, 7)))
    (found,) = sent()
    assert found.asked_at == ASKED
    (one,) = found.introduced
    assert (one.finding.server_id, one.finding.endpoint_id, one.finding.verdict, one.era) == (
        7,
        107,
        "healthy",
        "legacy",
    )
    assert 0 <= one.finding.age_ms < 60_000


def test_what_is_too_long_for_a_message_is_sent_in_halves(sent, monkeypatch):
    with Farm(hand()) as farm:
        monkeypatch.setattr(queues, "MAX_BODY", 700)
        visits.make(record(*(endpoint(farm.url, number) for number in (1, 2, 3))))
    assert sorted(one.finding.server_id for found in sent() for one in found.introduced) == [1, 2, 3]


def test_where_nothing_was_found_nothing_is_sent(sent):
    visits.make(record())
    assert sent() == []


def test_a_message_that_comes_again_is_made_with_few_at_a_time(sent, monkeypatch):
    """A function has died of it: of thirty servers that mean it ill, or of one."""
    given: list[int] = []
    monkeypatch.setattr(visits, "introduce", lambda *_, at_once, **__: given.append(at_once) or [])
    for times in ("1", "2"):
        visits.make(record(ApproximateReceiveCount=times))
    assert given == [visits.AT_ONCE, visits.CAREFUL]


def test_of_a_message_that_waited_too_long_those_are_left_out_who_are_asked_for_again_soon(sent, monkeypatch):
    given: list[list[int]] = []
    monkeypatch.setattr(visits, "introduce", lambda asked, **_: given.append([one.server_id for one in asked]) or [])
    asked = endpoint("http://one.example/", 1), endpoint("http://two.example/", 2, pulse="[1]", era="legacy")
    for milliseconds in (60_000, 60_001):
        visits.make(record(*asked, SentTimestamp="0", ApproximateFirstReceiveTimestamp=str(milliseconds)))
    assert given == [[1, 2], [2]]


def test_a_queue_that_does_not_take_what_was_found_is_unavailable(sent, monkeypatch):
    monkeypatch.setenv("INTRODUCED_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/000000000000/nowhere")
    with Farm(hand()) as farm, pytest.raises(Unavailable):
        visits.make(record(endpoint(farm.url)))


def test_what_is_no_message_of_visits_is_malformed():
    with pytest.raises(Malformed):
        visits.make(Record({"messageId": "1", "body": '{"slot":1}'}, ENOUGH))
