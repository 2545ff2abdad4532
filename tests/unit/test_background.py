"""The edges of schedules and queues: what fails comes again, what does not is done, and no driver's word is logged."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mcp_registry.edge.background import JobFailed, Record, aside, batch, job
from mcp_registry.errors import Malformed, Unavailable


def event(*bodies: str, ids: list[str] | None = None):
    names = ids or [str(number) for number in range(len(bodies))]
    return {"Records": [{"messageId": id_, "body": body} for id_, body in zip(names, bodies, strict=True)]}


def failures(answer) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@pytest.mark.parametrize("error", [Malformed("x"), Unavailable("57P01"), RuntimeError("secret")])
def test_a_message_that_fails_takes_no_other_along(error, capsys):
    done = []

    def handle(record: Record) -> None:
        if record.body == "bad":
            raise error
        done.append(record.body)

    assert failures(batch(handle)(event("a", "bad", "b"), None)) == ["1"]
    assert done == ["a", "b"]
    assert "secret" not in capsys.readouterr().out


def test_a_message_that_is_twice_in_a_batch_is_dealt_with_once():
    done = []
    assert failures(batch(lambda record: done.append(record.body))(event("a", "a", ids=["1", "1"]), None)) == []
    assert done == ["a"]


@pytest.mark.parametrize("sent", [None, "x", {}, {"Records": None}, {"Records": [1]}, []])
def test_what_is_no_batch_is_refused_before_anything_is_done(sent):
    with pytest.raises(ValueError, match="not an SQS event"):
        batch(lambda record: pytest.fail("called"))(sent, None)


def test_an_empty_batch_has_no_failures():
    assert batch(lambda record: None)({"Records": []}, None) == {"batchItemFailures": []}


def test_a_message_knows_how_long_it_waited_and_how_long_there_is_left():
    seen = []
    attributes = {
        "SentTimestamp": "1000",
        "ApproximateFirstReceiveTimestamp": "3500",
        "ApproximateReceiveCount": "2",
    }
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1500)
    records = {"Records": [{"messageId": "1", "body": "x", "attributes": attributes}]}
    batch(seen.append)(records, context)
    (record,) = seen
    assert (record.waited_seconds, record.received, record.remaining_seconds) == (2.5, 2, 1.5)
    assert record.sent_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("attributes", [None, {}, {"SentTimestamp": "x", "ApproximateReceiveCount": "-"}])
def test_an_event_without_attributes_is_a_first_delivery_that_did_not_wait(attributes):
    record = Record({"messageId": "1", "body": "x", "attributes": attributes}, 1.0)
    assert (record.waited_seconds, record.received, record.sent_at) == (0.0, 1, None)


@pytest.mark.parametrize("error", [Unavailable("08006"), RuntimeError("password=hunter2")])
def test_a_job_that_fails_raises_without_a_drivers_words(error, capsys):
    def work(_: object) -> None:
        raise error

    with pytest.raises(JobFailed) as caught:
        job(work)({}, None)
    assert caught.value.__context__ is None
    assert "hunter2" not in capsys.readouterr().out


def test_a_job_answers_what_it_did():
    assert job(lambda sent: {"was": sent})("x", None) == {"was": "x"}


@pytest.mark.parametrize("error", [Unavailable("57P03"), RuntimeError("password=hunter2")])
def test_what_stands_beside_a_job_fails_by_itself_and_without_a_drivers_words(error, capsys, caplog):
    def work() -> None:
        raise error

    aside(work)
    assert caplog.records and "hunter2" not in capsys.readouterr().out
