"""A shard in the function that probes: probed once, in time, and what was found sent on. It has no database."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import ClassVar

import pytest

from local import queues as local_queues
from mcp_registry.aws import queues
from mcp_registry.edge.background import Record
from mcp_registry.errors import Malformed, Unavailable
from mcp_registry.health import messages, probe, pulse, shard
from mcp_registry.health.messages import Endpoint, Server, Shard
from mcp_registry.health.pulse import Pulse
from tests.hostile import Farm, Visit
from tests.shapes import JSON, fixed, hand, text

_numbers = itertools.count(1)
SLOT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Counting(BaseHTTPRequestHandler):
    """Answers every GET but at a path that cannot exist, and counts them by path."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        there = not self.path.endswith(pulse.NONSENSE)
        if there:
            self.seen.append(self.path)
        self.send_response(204 if there else 404)
        self.end_headers()

    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def server():
    Counting.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture(scope="module")
def client(queue_service):
    return local_queues.connect(queue_service)


@pytest.fixture
def results(client, monkeypatch):
    """Reads what lies in the result queue."""
    url = client.create_queue(QueueName=f"results-{next(_numbers)}")["QueueUrl"]
    monkeypatch.setattr(queues, "_client", client)
    monkeypatch.setenv("RESULT_QUEUE_URL", url)
    monkeypatch.setattr(shard, "_probed", shard.deque(maxlen=1_000))

    def read() -> list[messages.Findings]:
        found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [messages.findings(message["Body"]) for message in found]

    return read


def message(*servers: Server, place: int = 0, remaining: float = 60.0, **attributes: str) -> Record:
    body = messages.encode(Shard(SLOT, place, list(servers)))
    return Record({"messageId": "1", "body": body, "attributes": attributes}, remaining)


def test_what_was_found_is_sent_on(server, results):
    gone = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    gone.server_close()
    shard.check(message(Server(1, server, "/up"), Server(2, f"http://127.0.0.1:{gone.server_port}", None)))
    (findings,) = results()
    assert (findings.slot, findings.shard) == (SLOT, 0)
    by_id = {finding.server_id: finding for finding in findings.findings}
    # The release before knows no endpoints.
    assert {finding.endpoint_id for finding in findings.findings} == {None}
    assert (by_id[1].verdict, by_id[1].status_code, by_id[1].error) == ("healthy", 204, None)
    assert (by_id[2].verdict, by_id[2].status_code) == ("refused", None)
    assert all(0 <= finding.age_ms < 30_000 for finding in findings.findings)


def test_endpoints_are_checked_as_they_are_known_and_what_was_found_names_them(results):
    answer = pulse.signature(200, JSON, b'{"error":{"code":1,"message":"x"},"id":1,"jsonrpc":"2.0"}')
    known = pulse.write(Pulse("unknown session", answer, 5.0))
    limits = fixed(text(429, "later", "text/plain", "Retry-After: 60"))
    with Farm(hand()) as good, Farm(limits) as limited:
        endpoints = [
            Endpoint(7, 1, f"{good.url}/mcp", None, known, "legacy", "healthy"),
            Endpoint(7, 2, f"{good.url}/new", None, None, None, None),
            Endpoint(8, 3, f"{limited.url}/mcp", None, known, "legacy", "healthy"),
        ]
        body = messages.encode(Shard(SLOT, 0, endpoints=endpoints))
        shard.check(Record({"messageId": "1", "body": body, "attributes": {}}, 60.0))
    (findings,) = results()
    one, two, three = sorted(findings.findings, key=lambda finding: finding.endpoint_id or 0)
    assert (one.server_id, one.endpoint_id, one.verdict, one.in_doubt) == (7, 1, "healthy", False)
    assert (two.server_id, two.endpoint_id, two.verdict, two.in_doubt) == (7, 2, "healthy", True)
    assert (three.server_id, three.verdict, three.retry_after, three.in_doubt) == (8, "limited", 60, False)
    assert [(seen.asked, seen.status, seen.excerpt) for seen in three.evidence] == [("unknown session", 429, "later")]
    assert not one.evidence and not two.evidence


def test_one_that_hangs_does_not_delay_what_was_found_of_the_others(results, monkeypatch):
    monkeypatch.setattr(probe, "EARLY_SECONDS", 0.0)
    let_go = Event()

    async def hanging(visit: Visit) -> None:
        await asyncio.to_thread(let_go.wait)
        await hand()(visit)

    with Farm(hand()) as good, Farm(hanging) as late:
        answer = pulse.signature(200, JSON, b'{"error":{"code":1,"message":"x"},"id":1,"jsonrpc":"2.0"}')
        known = pulse.write(Pulse("unknown session", answer, 20.0))
        endpoints = [
            Endpoint(server, number, f"{farm.url}/mcp", None, known, "legacy", "healthy")
            for number, (server, farm) in enumerate([(7, good), (8, good), (8, late)], 1)
        ]
        body = messages.encode(Shard(SLOT, 0, endpoints=endpoints))
        running = Thread(target=shard.check, args=[Record({"messageId": "1", "body": body, "attributes": {}}, 60.0)])
        running.start()
        try:
            while not (found := results()) and running.is_alive():
                time.sleep(0.01)
        finally:
            let_go.set()
            running.join()
        # Of the server with an endpoint that hangs nothing is said before the whole is known.
        assert [[finding.endpoint_id for finding in one.findings] for one in found] == [[1]]
        (rest,) = results()
    assert (rest.slot, rest.shard) == (found[0].slot, found[0].shard)
    assert sorted(finding.endpoint_id or 0 for finding in rest.findings) == [2, 3]


def test_a_shard_that_is_delivered_twice_is_probed_once(server, results):
    for _ in range(2):
        shard.check(message(Server(1, server, "/up")))
    assert Counting.seen == ["/up"]
    assert len(results()) == 1


@pytest.mark.parametrize(("shards", "checked"), [(1, 4), (2, 4), (3, 2), (8, 1), (100, 1)])
def test_the_shards_of_a_sweep_share_the_checks_that_one_host_may_have(server, results, monkeypatch, shards, checked):
    monkeypatch.setenv("CHECKS_PER_HOST", "4")
    body = messages.encode(Shard(SLOT, 0, [Server(number, server, "/up") for number in range(1, 7)], shards=shards))
    shard.check(Record({"messageId": "1", "body": body, "attributes": {}}, 60.0))
    assert len(Counting.seen) == checked
    (findings,) = results()
    assert len(findings.findings) == checked


def test_another_shard_of_the_same_slot_is_not_taken_for_it(server, results):
    for place in range(2):
        shard.check(message(Server(place + 1, server, "/up"), place=place))
    assert len(results()) == 2


def test_a_shard_that_somebody_gave_up_is_not_probed_again(server, results):
    shard.check(message(Server(1, server, "/up"), ApproximateReceiveCount="2"))
    assert (Counting.seen, results()) == ([], [])


def test_a_shard_that_waited_into_the_next_sweep_is_not_probed(server, results):
    shard.check(message(Server(1, server, "/up"), SentTimestamp="1000", ApproximateFirstReceiveTimestamp="12000"))
    assert (Counting.seen, results()) == ([], [])


def test_servers_that_there_is_no_time_for_are_left_out_and_not_called_down(server, results):
    shard.check(message(Server(1, server, "/up"), remaining=7.0))
    assert [finding.server_id for findings in results() for finding in findings.findings] == []
    assert Counting.seen == []


def test_a_queue_that_does_not_take_what_was_found_is_unavailable(server, results, monkeypatch):
    monkeypatch.setenv("RESULT_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/000000000000/nowhere")
    with pytest.raises(Unavailable):
        shard.check(message(Server(1, server, "/up")))


def test_the_clock_of_the_function_does_not_matter(server, results, monkeypatch):
    skewed = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: skewed)
    now = str(int(SLOT.timestamp() * 1000))
    shard.check(message(Server(1, server, "/up"), SentTimestamp=now, ApproximateFirstReceiveTimestamp=now))
    (findings,) = results()
    assert [finding.verdict for finding in findings.findings] == ["healthy"]


@pytest.mark.parametrize(
    "body",
    ["", "null", '{"kind":"other"}', '{"server_id":1,"url":"http://169.254.169.254/"}', '{"a":' * 50_000],
    ids=lambda body: body[:40],
)
def test_a_message_that_is_no_shard_is_refused_and_nothing_dialled(results, body):
    with pytest.raises(Malformed):
        shard.check(Record({"messageId": "1", "body": body}, 60.0))
    assert results() == []


def test_a_message_cannot_lead_the_probe_to_an_address_that_the_guard_closes(results):
    shard.check(message(Server(1, "http://169.254.169.254/latest/meta-data", None)))
    (findings,) = results()
    assert [finding.verdict for finding in findings.findings] == ["blocked"]


def test_findings_that_are_too_long_for_a_message_are_sent_in_parts(monkeypatch):
    findings = [messages.Finding(id_, "refused", None, 1, "x" * 300, 1, evidence=[]) for id_ in range(1, 1001)]
    parts = shard._parts(messages.Findings(SLOT, 0, findings))
    assert len(parts) == 2
    assert max(len(part) for part in parts) <= queues.MAX_BODY
    assert [finding for part in parts for finding in messages.findings(part).findings] == findings
    # The endpoints of a server stay together.
    of_one = [finding._replace(server_id=min(finding.server_id, 400)) for finding in findings]
    parts = [messages.findings(part).findings for part in shard._parts(messages.Findings(SLOT, 0, of_one))]
    assert [len(part) for part in parts] == [399, 601]
