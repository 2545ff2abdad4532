"""Events of the schedule and the queues that are not as they should be: the corpus, and what AWS does on a bad day."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta

import pytest

from local import queues as local_queues
from local.gateway import FunctionError
from mcp_registry.aws import db, queues
from mcp_registry.catalogue import registration, servers
from mcp_registry.health import messages, shard
from mcp_registry.health.messages import Finding, Findings
from tests.conftest import ADMIN, ROOT
from tests.conftest import registration as document

SAMPLE = ROOT / "tests" / "corpus" / "events.json"
WHOLE = ROOT.parent / "shared" / "corpus" / "events.json"
CASES = json.loads((WHOLE if WHOLE.is_file() else SAMPLE).read_text())
QUEUE_FUNCTIONS = (
    *("HealthCheckFunction", "HealthSweepFunction", "HealthWriteFunction"),
    *("IntroduceFunction", "RememberFunction"),
)


def cases(kind):
    return [pytest.param(case, id=case["id"]) for case in CASES if kind(case)]


def is_request(case) -> bool:
    return isinstance(case["accept"][0], int)


def is_batch(case) -> bool:
    return isinstance(case["event"], dict) and "Records" in case["event"]


@pytest.fixture(scope="module")
def client(queue_service):
    return local_queues.connect(queue_service)


@pytest.fixture
def stack(in_process, database, client, monkeypatch):
    """The functions in process, on queues that are new and in a transaction that leaves nothing."""
    local_queues.create(client, in_process.stack.queues)
    for queue in in_process.stack.queues.values():  # a new one has forgotten what it was sent in this second
        client.delete_queue(QueueUrl=queue.url)
    local_queues.create(client, in_process.stack.queues)
    monkeypatch.setattr(queues, "_client", client)
    monkeypatch.setattr(db, "_database", database)
    monkeypatch.setattr(shard, "_probed", shard.deque(maxlen=1_000))
    rows(database, "DELETE FROM registry.mcp_servers")
    rows(database, "DELETE FROM metrics.sweeps")
    rows(database, "SELECT metrics.add_days(current_date - 1, current_date + 1)")
    return in_process


def rows(database, statement: str):
    cursor = database._connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def invoke(stack, function: str, event):
    return asyncio.run(stack.invoke(function, event))


def waiting(stack, client, name: str) -> list[str]:
    found = client.receive_message(QueueUrl=stack.stack.queues[name].url, MaxNumberOfMessages=10).get("Messages", [])
    return [message["Body"] for message in found]


def outcome_of(stack, function: str, event) -> str:
    """The corpus's word for what a function makes of an event."""
    try:
        answer = invoke(stack, function, event)
    except FunctionError:
        return "rejected"
    if isinstance(answer, dict):
        return "partial" if answer["batchItemFailures"] else "ok"
    outcomes = {sweep["result"] for sweep in answer}
    return "duplicate" if outcomes == {"duplicate"} else "ok"


@pytest.mark.parametrize("case", cases(lambda case: not is_request(case) and not is_batch(case)))
def test_a_scheduled_event_of_whatever_form_starts_each_sweep_once(case, stack, client, database):
    servers.register(database, ADMIN, registration.parse(document("watched")))
    sent = case["event"] if isinstance(case["event"], list) else [case["event"]]
    # The corpus is of a day long past; what it says of one event after another holds for an event of now.
    fresh = rows(database, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")[0][0]
    if len(sent) > 1:
        sent = [{**event, "time": fresh} for event in sent]
    outcomes = [outcome_of(stack, "HealthCheckFunction", event) for event in sent]
    assert outcomes[-1] in case["accept"], case["why"]
    started = rows(database, "SELECT count(*) FROM metrics.sweeps")[0][0]
    assert len(waiting(stack, client, "ProbeQueue")) == started <= 1


@pytest.mark.parametrize("function", QUEUE_FUNCTIONS)
@pytest.mark.parametrize("case", cases(lambda case: not is_request(case) and is_batch(case)))
def test_a_batch_of_strange_messages_is_refused_message_by_message(case, function, stack, client, database):
    assert outcome_of(stack, function, case["event"]) in case["accept"], case["why"]
    assert rows(database, "SELECT count(*) FROM metrics.server_health_metrics") == [(0,)]
    # Nothing was probed, and nobody introduced.
    assert waiting(stack, client, "ResultQueue") == waiting(stack, client, "IntroducedQueue") == []


@pytest.mark.parametrize("case", cases(is_request))
def test_the_cron_secret_guards_the_job(case, stack, monkeypatch):
    for name, value in (case.get("env") or {}).items():
        monkeypatch.setenv(name, value or "")
    headers = [(name, value) for name, value in case["event"]["headers"].items()]
    answer = stack.send(case["event"]["httpMethod"], case["event"]["path"], headers, b"")
    assert answer.status == case["prefer"], case["why"]
    assert set(answer.json()) == {"error", "code"}


# ------------------------------------------------------------------ a bad day


def record(body: str, **attributes: str):
    return {"Records": [{"messageId": "1", "body": body, "attributes": attributes}]}


def milliseconds(moment: datetime) -> str:
    return str(int(moment.timestamp() * 1000))


def test_ten_minutes_without_a_database_lose_no_finding_and_flip_nothing_late(stack, database, monkeypatch):
    """What was seen waits in the queue, and is written as of when it was seen."""
    id_ = servers.register(database, ADMIN, registration.parse(document("patient")))["id"]
    rows(database, "UPDATE registry.endpoints SET moved_at = now() - interval '1 hour'")
    now = datetime.now(UTC).replace(microsecond=0)
    sweeps = [now - timedelta(seconds=30 * n) for n in range(20, 0, -1)]
    failing = {3, 4, 5}
    sent = [
        record(
            messages.encode(
                Findings(slot, 0, [Finding(id_, "timeout" if n in failing else "healthy", None, 9, None, 100)])
            ),
            SentTimestamp=milliseconds(slot + timedelta(seconds=6)),
        )
        for n, slot in enumerate(sweeps)
    ]
    nowhere = db.Database("postgresql://127.0.0.1:1/nowhere")
    with monkeypatch.context() as outage:
        outage.setattr(db, "_database", nowhere)
        for event in sent:
            assert outcome_of(stack, "HealthWriteFunction", event) == "partial"
        assert outcome_of(stack, "HealthCheckFunction", {"time": now.isoformat()}) == "rejected"
    # They come again in whatever order.
    for event in [*sent[10:], *reversed(sent[:10])]:
        assert outcome_of(stack, "HealthWriteFunction", event) == "ok"
    seen = rows(database, "SELECT slot, checked_at, verdict::text FROM metrics.server_health_metrics ORDER BY slot")
    expected = [
        (slot, slot + timedelta(seconds=5.9), "timeout" if n in failing else "healthy") for n, slot in enumerate(sweeps)
    ]
    assert seen == expected
    assert rows(database, f"SELECT status::text FROM registry.mcp_servers WHERE id = {id_}") == [("active",)]
    assert rows(database, "SELECT checked_at FROM registry.endpoint_health") == [(expected[-1][1],)]
    assert outcome_of(stack, "HealthCheckFunction", {"time": now.isoformat()}) == "ok"


def test_two_sweeps_that_overlap_write_two_rows_and_the_newer_status(stack, database):
    id_ = servers.register(database, ADMIN, registration.parse(document("overlapped")))["id"]
    rows(database, "UPDATE registry.endpoints SET moved_at = now() - interval '1 hour'")
    now = datetime.now(UTC).replace(microsecond=0)
    older, newer = now - timedelta(seconds=30), now
    late = messages.encode(Findings(older, 0, [Finding(id_, "refused", None, 1, "x", 0)]))
    prompt = messages.encode(Findings(newer, 0, [Finding(id_, "healthy", 200, 1, None, 0)]))
    # The older sweep's shard was slow: its findings are sent, and written, after those of the newer one.
    invoke(stack, "HealthWriteFunction", record(prompt, SentTimestamp=milliseconds(now + timedelta(seconds=2))))
    invoke(stack, "HealthWriteFunction", record(late, SentTimestamp=milliseconds(now + timedelta(seconds=1))))
    assert rows(database, "SELECT count(*) FROM metrics.server_health_metrics") == [(2,)]
    assert rows(database, "SELECT status::text FROM registry.mcp_servers") == [("active",)]


def test_a_whole_minute_goes_through_every_function(stack, client, database):
    """Schedule, shard, probe, findings, rows: what AWS carries from one to the next is carried here by hand."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}/mcp"
    id_ = servers.register(database, ADMIN, registration.parse(document("whole", endpoint_url=endpoint)))["id"]
    servers.register(database, ADMIN, registration.parse(document("idle")))
    servers.set_status(database, ADMIN, id_ + 1, "inactive")
    moment = datetime.now(UTC)
    invoke(stack, "HealthCheckFunction", {"time": moment.isoformat()})
    (body,) = waiting(stack, client, "ProbeQueue")
    assert invoke(stack, "HealthSweepFunction", record(body)) == {"batchItemFailures": []}
    (findings,) = waiting(stack, client, "ResultQueue")
    sent = milliseconds(moment)
    assert invoke(stack, "HealthWriteFunction", record(findings, SentTimestamp=sent)) == {"batchItemFailures": []}
    assert rows(database, "SELECT verdict::text FROM registry.endpoint_health") == [("refused",)]
    assert rows(database, f"SELECT status::text FROM registry.mcp_servers WHERE id = {id_}") == [("error",)]


def test_a_tick_starts_the_second_sweep(stack, client, database):
    servers.register(database, ADMIN, registration.parse(document("second")))
    moment = rows(database, "SELECT date_trunc('second', now())")[0][0]
    tick = messages.encode(messages.Tick(moment))
    assert invoke(stack, "HealthCheckFunction", record(tick)) == {"batchItemFailures": []}
    assert [messages.shard(body).slot for body in waiting(stack, client, "ProbeQueue")] == [moment]


def test_maintenance_answers_what_it_did(stack):
    assert set(invoke(stack, "MaintainFunction", {})) == {"added", "folded", "dropped", "deleted"}
