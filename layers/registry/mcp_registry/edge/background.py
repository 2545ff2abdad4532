"""The edges that nobody waits at: events of a schedule, and batches of messages from SQS.

Shapes: AWS documentation, "Using Lambda with Amazon SQS" (event) and "Handling errors for an SQS event source" (answer,
ReportBatchItemFailures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mcp_registry.aws import observability
from mcp_registry.errors import Malformed, Unavailable

Handler = Callable[["Record"], None]


class JobFailed(Exception):
    """The job could not be done; the log says why. Lambda calls it again."""


class Record:
    """One message, as SQS hands it over. All its times are of SQS's clock."""

    __slots__ = ("_attributes", "body", "id", "remaining_seconds")

    def __init__(self, record: Mapping[str, Any], remaining_seconds: float) -> None:
        """`remaining_seconds` is how long the function may still run."""
        self.id = str(record.get("messageId", ""))
        self.body = str(record.get("body", ""))
        self.remaining_seconds = remaining_seconds
        self._attributes: Mapping[str, str] = record.get("attributes") or {}

    @property
    def sent_at(self) -> datetime | None:
        """When the message was sent; None where the event does not say."""
        sent = self._milliseconds("SentTimestamp")
        return None if sent is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=sent)

    @property
    def waited_seconds(self) -> float:
        """How long it was in the queue before anybody received it; 0 where the event does not say."""
        sent, received = self._milliseconds("SentTimestamp"), self._milliseconds("ApproximateFirstReceiveTimestamp")
        return 0.0 if sent is None or received is None else max(received - sent, 0) / 1000

    @property
    def received(self) -> int:
        """How often it has been received, this time included."""
        count = self._attributes.get("ApproximateReceiveCount", "1")
        return int(count) if count.isdecimal() else 1

    def _milliseconds(self, name: str) -> int | None:
        text = self._attributes.get(name, "")
        return int(text) if text.isdecimal() and len(text) < 16 else None


def batch(handler: Handler) -> Callable[[Any, Any], dict[str, Any]]:
    """Make a Lambda handler of a function that deals with one message.

    The messages that it raises for come again by themselves, and after some tries go to the dead-letter queue; the
    others are done. A message that is in the batch twice is dealt with once. What is no batch of messages at all is a
    ValueError: nobody sent it by a queue.
    """

    def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
        records: Any = event.get("Records") if isinstance(event, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise ValueError("not an SQS event")
        failed: dict[str, None] = {}
        seen: set[str] = set()
        for each in records:
            record = Record(each, _remaining_seconds(context))
            if record.id in seen:
                continue
            seen.add(record.id)
            if not _succeeds(handler, record):
                failed[record.id] = None
        return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in failed]}

    return lambda_handler


def job(handler: Callable[[Any], object]) -> Callable[[Any, Any], object]:
    """Make a Lambda handler of a function that takes a schedule's event and returns what it did.

    Where it raises, so does the handler (JobFailed), and Lambda calls it again; what went wrong is in the log, without
    a driver's words.
    """

    def lambda_handler(event: Any, context: Any) -> object:
        try:
            return handler(event)
        except Unavailable as error:
            observability.log_unavailable(_request_id(context), error.cause)
        except Exception as error:  # noqa: BLE001 - its message may hold what no log may
            observability.log_defect(_request_id(context), error)
        raise JobFailed

    return lambda_handler


def aside(work: Callable[[], object]) -> None:
    """Do what stands beside a job and must not fail it; what went wrong is in the log."""
    try:
        work()
    except Unavailable as error:
        observability.log_unavailable("", error.cause)
    except Exception as error:  # noqa: BLE001 - its message may hold what no log may
        observability.log_defect("", error)


def _request_id(context: Any) -> str:
    return getattr(context, "aws_request_id", "")


def _succeeds(handler: Handler, record: Record) -> bool:
    try:
        handler(record)
    except Malformed as error:
        observability.log_malformed(record.id, str(error))
    except Unavailable as error:
        observability.log_unavailable(record.id, error.cause)
    except Exception as error:  # noqa: BLE001 - one message must not take the others along
        observability.log_defect(record.id, error)
    else:
        return True
    return False


def _remaining_seconds(context: Any) -> float:
    """What is left of the function's time; endless where no Lambda gives a context."""
    return context.get_remaining_time_in_millis() / 1000 if context is not None else float("inf")
