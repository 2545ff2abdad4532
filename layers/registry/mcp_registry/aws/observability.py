"""Structured logs: the owner of Powertools.

One JSON line a request. What stands in it is chosen here, field by field: never a header, a body, a query string, a
credential or a driver's message.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from json import JSONEncoder
from typing import Any

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

# What logging collects for each record and no line of ours shows (Python's Logging HOWTO, "Optimization"): 8 of 45 us
# (2026-11-30). `location=None` alone leaves the key away, and walks up the stack for it all the same.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None  # pyright: ignore[reportAttributeAccessIssue] - as the HOWTO says

# What every record of `logging` has, and what other formatters leave in one. What else is in one are our fields.
_OF_RECORDS = frozenset(logging.makeLogRecord({}).__dict__) | {"asctime", "message"}


class Lines(LambdaPowertoolsFormatter):
    """Powertools' lines, put together by ourselves: a line takes 13 us of CPU, and took 27 (2026-11-30).

    Powertools looks into each record for what none of ours has: arguments, an exception with its stack, JSON in the
    message, keys that were added to the logger or to the context of a thread.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, the same as Powertools would make of this record."""
        if record.args or record.exc_info:
            return super().format(record)
        line: dict[str, Any] = {
            "level": record.levelname,
            "message": record.msg,
            "timestamp": self.formatTime(record),
            "service": self.log_format["service"],
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _OF_RECORDS and value is not None}
        trace_id = self._get_latest_trace_id()
        if trace_id is not None:
            line["xray_trace_id"] = trace_id
        return self.serialize(line)  # pyright: ignore[reportArgumentType] - a dictionary, whatever it is said to be


# Times in UTC. A message of ours is a few words, and never JSON: Powertools would try to read it as that.
logger = Logger(
    logger_formatter=Lines(
        location=None,
        utc=True,
        use_rfc3339=True,
        json_deserializer=str,
        # json.dumps would make an encoder for each line.
        json_serializer=JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode,
    )
)

# Powertools' key for it. Given with each line rather than set on the logger, which is twice as dear (67 against 28 us,
# 2026-11-22) and would outlive the request.
CORRELATION_ID = "correlation_id"


def log_request(
    request_id: str, method: str, resource: str, status: int, milliseconds: float, code: str | None
) -> None:
    """Log one answered request; `code` is the error's code, None for a success."""
    fields = {"method": method, "resource": resource, "status": status, "duration_ms": round(milliseconds, 1)}
    if code is not None:
        fields["code"] = code
    logger.info("request", extra={CORRELATION_ID: request_id, **fields})


def log_unavailable(request_id: str, cause: str) -> None:
    """Log that the database could not be used; `cause` is an SQLSTATE or an exception's class."""
    logger.warning("database unavailable", extra={CORRELATION_ID: request_id, "cause": cause})


def log_defect(request_id: str, error: BaseException) -> None:
    """Log an exception that nobody expected: its class and where it came from.

    Not its message and not the values in its frames, which may hold what a client sent or where the database is.
    """
    frames = traceback.extract_tb(error.__traceback__)
    fields = {
        "exception_class": f"{type(error).__module__}.{type(error).__qualname__}",
        "exception_frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    logger.error("unexpected exception", extra={CORRELATION_ID: request_id, **fields})


def log_malformed(message_id: str, reason: str) -> None:
    """Log a message that is not what its queue is for; `reason` says what it is not."""
    logger.error("malformed message", extra={CORRELATION_ID: message_id, "reason": reason})


def log_unsent(queue: str, cause: str) -> None:
    """Log that a message was not sent in time that somebody waited for; `cause` is a status or an exception's class."""
    logger.warning("message not sent", extra={"queue": queue, "cause": cause})


def log_visits(asked_at: str, outcome: str, introduced: int, endpoints: int) -> None:
    """Log what came of introductions: so many of these endpoints have a verdict."""
    log = logger.info if introduced == endpoints else logger.warning
    log("visits", extra={"asked_at": asked_at, "outcome": outcome, "introduced": introduced, "endpoints": endpoints})


def log_sweep(slot: str, outcome: str, servers: int) -> None:
    """Log what came of asking for the sweep of a slot."""
    timely = outcome in ("started", "duplicate")
    log = logger.info if timely else logger.warning
    log("sweep", extra={"slot": slot, "outcome": outcome, "servers": servers})
    if not timely:
        # Where this goes on, events are delayed, or the database's clock is not that of the schedule.
        _count("sweep_untimely", 1)


def log_shard(
    slot: str, shard: int, outcome: str, checked: int, servers: int, unchecked: Mapping[str | None, int] | None = None
) -> None:
    """Log what came of one shard: `checked` of its `servers` have a verdict; why how many of the others have none."""
    log = logger.info if checked == servers or outcome == "duplicate" else logger.warning
    fields = {"slot": slot, "shard": shard, "outcome": outcome, "checked": checked, "servers": servers}
    log("shard", extra={**fields, "unchecked": unchecked} if unchecked else fields)


def log_written(slot: str, shard: int, checked: int, recovered: int, failed: int, *, suspect: bool) -> None:
    """Log one shard's writing: new checks, servers that came back, servers that were called down."""
    fields = {"slot": slot, "shard": shard, "checked": checked, "recovered": recovered, "failed": failed}
    if suspect:
        logger.error("most hosts are away at once: nobody who was up a while ago was called down", extra=fields)
    else:
        logger.info("written", extra=fields)


def log_introduced(found: int, learnt: int, recovered: int, failed: int) -> None:
    """Log what introductions came to: of how many endpoints something was learnt, and which servers changed."""
    fields = {"found": found, "learnt": learnt, "recovered": recovered, "failed": failed}
    logger.info("introduced", extra=fields)


def log_recorded(observed: int, declared: int) -> None:
    """Log of how many servers another offer was recorded, as it was observed and as it is declared."""
    logger.info("recorded", extra={"observed": observed, "declared": declared})


def log_change(server: str, before: str, now: str, reason: str) -> None:
    """Log that a server, by its name, came back or was called down; `reason` is the sentence of its history."""
    logger.info("status changed", extra={"server": server, "from": before, "to": now, "reason": reason})


def log_unfinished(servers: int, sweeps: int) -> None:
    """Log that so many servers of so many sweeps were not checked, and count them as the metric sweep_unfinished."""
    logger.warning("sweep unfinished", extra={"servers": servers, "sweeps": sweeps})
    _count("sweep_unfinished", servers)


def log_suspect(sweeps: int) -> None:
    """Count the sweeps in which most hosts were away at once, as the metric sweep_suspect."""
    _count("sweep_suspect", sweeps)


def log_maintained(added: int, folded: int, dropped: int, deleted: int) -> None:
    """Log a run of the maintenance: partitions made, days folded, partitions dropped, rows deleted."""
    logger.info("maintained", extra={"added": added, "folded": folded, "dropped": dropped, "deleted": deleted})


def log_forgotten(snapshots: int, changes: int, documents: int) -> None:
    """Log what of the ledger was too old, or used by nobody any more, and was deleted."""
    logger.info("forgotten", extra={"snapshots": snapshots, "changes": changes, "documents": documents})


def log_published(changes: int, through: int) -> None:
    """Log how many changes an event bus was told, and up to which number it knows of all."""
    logger.info("published", extra={"changes": changes, "through": through})


def _count(name: str, value: int) -> None:
    """One metric in CloudWatch's embedded metric format, in the namespace MCPRegistry."""
    from aws_lambda_powertools.metrics import MetricUnit, single_metric  # 10 ms, and rarely wanted

    # Printed, and a log that nobody takes any more fails no work. The logger's own lines never do.
    with (
        contextlib.suppress(OSError),
        single_metric(name=name, unit=MetricUnit.Count, value=value, namespace="MCPRegistry") as metric,
    ):
        # Lambda takes a line without both for INFO, and drops it where LogLevel is higher ("Log-level filtering").
        metric.add_metadata("level", "ERROR")
        metric.add_metadata("timestamp", datetime.now(UTC).isoformat(timespec="milliseconds"))
