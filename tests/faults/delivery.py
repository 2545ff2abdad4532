"""Schedule events and queue messages that come twice, late and out of order: each server once in a slot.

The handlers, the statements and the queues are the real ones. The clock of the database is played, so that a day passes
in seconds: `now()` in the registry's statements is a function of the test's own, which a search path puts before
Postgres's.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from local import queues as local_queues
from local.queues import QueueService
from mcp_registry.aws import db, observability, queues
from mcp_registry.catalogue import registration, servers
from mcp_registry.health import messages, probe, shard, sweeps
from mcp_registry.health.messages import Finding, Findings
from tests.conftest import ADMIN, ROOT, load_module, migrate
from tests.conftest import registration as document
from tests.faults import stage
from tests.integration.test_sweeps import Inbox
from tests.proof import FAR, Line, at_most

SERVERS = 6
SHARD = 3  # servers in a shard, instead of a thousand
# A day is played in spans, so that slots have neighbours.
SPAN = 4  # minutes
SPANS = 4  # in the bounded run
SWEEP = timedelta(seconds=30)
EDGE_SECONDS = 2.0  # the clock of the database runs on while a handler works
MESSAGES = 300  # of findings, in the bounded run; a day has 2,880 slots
BATCH = 10  # the largest that the template's queues hand over

CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.hand (shift interval NOT NULL);
INSERT INTO clock.hand VALUES ('0');
CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.now() + (SELECT shift FROM clock.hand)';
ALTER TABLE metrics.sweeps ALTER claimed_at SET DEFAULT clock.now(), ALTER listed_at SET DEFAULT clock.now();
ALTER DATABASE registry SET search_path = clock, pg_catalog, public;
"""
SET_CLOCK = "UPDATE clock.hand SET shift = %s - pg_catalog.now()"

WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'worker' AND wait_event_type = 'Lock'"
GONE = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'worker'"
WRITTEN = "SELECT server_id, slot FROM metrics.server_health_metrics WHERE server_id = ANY (%s)"

# A worker as a process of its own: the handler, with the event from its input.
WORKER = "import json, sys; import app; print(json.dumps(app.lambda_handler(json.load(sys.stdin), None)))"

Message = dict[str, Any]


def prove(scale: int) -> list[Line]:
    """Sixteen minutes and 300 messages, times `scale`, up to eight hours and a whole day; and a killed worker."""
    service = QueueService()
    url = service.start()
    try:
        with stage.postgres(durable=False) as server, _handlers(server.url, url) as patch:
            migrate.migrate(server.url)
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute(CLOCK)
                return [
                    *_day(admin, server.url, Inbox(local_queues.connect(url), patch), scale),
                    *_findings(admin, server.url, min(MESSAGES * scale, 2_880)),
                    _killed_worker(admin, server.url),
                ]
    finally:
        service.stop()


@contextmanager
def _handlers(database_url: str, queue_url: str) -> Generator[pytest.MonkeyPatch]:
    """An environment in which the handlers can be called in this process."""
    level = observability.logger.log_level
    # The metrics that the handlers write to their log are nobody's here.
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("DATABASE_URL", database_url)
        patch.setattr(db, "_database", None)
        patch.setattr(queues, "_client", local_queues.connect(queue_url))
        patch.setattr(sweeps, "MAX_SHARD", SHARD)
        patch.setattr(shard, "SPREAD_SECONDS_EACH", 0.001)  # the spread spares networks; here is one server
        patch.setattr(probe, "PAUSE_SECONDS", 0.05)  # what is down here is so at a second look, however soon
        observability.logger.setLevel(logging.CRITICAL)
        try:
            yield patch
        finally:
            observability.logger.setLevel(level)
            if db._database is not None:
                db._database.close()


def _handler(function: str) -> Callable[[Any], Any]:
    module = load_module(ROOT / "functions" / function / "app.py", f"faults_{function}")
    return lambda event: module.lambda_handler(json.loads(json.dumps(event)), None)


# ------------------------------------------------------------------ a day of sweeps


class Farm(ThreadingHTTPServer):
    """The servers that are checked: /up/1 to /up/6, of which some are down."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.hits: Counter[str] = Counter()
        self.down: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Farm)
        # What any path answered would tell of no server.
        is_there = self.path.rpartition("/")[2].isdigit()
        if is_there:
            self.server.hits[self.path] += 1
        self.send_response(500 if self.path in self.server.down else 200 if is_there else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


class Day:
    """The agenda of what is delivered when, and the handlers that it is delivered to."""

    def __init__(self, admin: psycopg.Connection[Any], inbox: Inbox, results: str, farm: Farm) -> None:
        self._admin, self._inbox, self._results, self._farm = admin, inbox, results, farm
        self._agenda: list[tuple[datetime, int, str, Any]] = []
        self._numbers = itertools.count()
        self._now = datetime.min.replace(tzinfo=UTC)
        self._check, self._sweep, self._write = map(_handler, ("health_check", "health_sweep", "health_write"))
        # What two execution environments of the prober remember.
        self._environments: list[deque[tuple[float, int]]] = [deque(maxlen=1_000), deque(maxlen=1_000)]
        self.delivered: Counter[str] = Counter()
        self.probed: Counter[tuple[str, datetime]] = Counter()  # how often each server in each slot
        self.found: set[tuple[int, datetime]] = set()  # server and slot of each finding that was sent
        # What has to come of what was delivered in time: sweeps, and servers that are asked in them.
        self.due: set[datetime] = set()
        self.asked: set[tuple[int, datetime]] = set()
        self.sharded: defaultdict[datetime, list[int]] = defaultdict(list)
        self.failed: list[str] = []

    def schedule(self, minute: datetime) -> None:
        """The event of a minute: mostly once and at once, but also again, late, and with another id."""
        for copy in range(random.choice([1, 1, 2, 3])):
            late = random.choice([0.5, 0.5, 2, 20, 45, 300]) if copy or random.random() < 0.3 else 0.5
            self._due(minute + timedelta(seconds=late + random.random()), "schedule", minute)

    def play(self) -> None:
        """Deliver everything, and what comes of it."""
        while self._agenda:
            due, _, kind, what = heapq.heappop(self._agenda)
            # Messages of one queue that are due within a second come in one batch.
            batch = [what]
            while (
                kind in ("tick", "findings")  # a shard has a function to itself, as in the template
                and len(batch) < BATCH
                and self._agenda
                and self._agenda[0][2] == kind
                and self._agenda[0][0] < due + timedelta(seconds=1)
            ):
                batch.append(heapq.heappop(self._agenda)[3])
            self._deliver(due, kind, batch)

    def _due(self, when: datetime, kind: str, what: Any) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), kind, what))

    def _deliver(self, due: datetime, kind: str, batch: list[Any]) -> None:
        self._now = max(due, self._now)
        self._admin.execute(SET_CLOCK, [self._now])
        self.delivered[kind] += len(batch)
        if random.random() < 0.2:
            self._farm.down ^= {f"/up/{random.randint(1, SERVERS)}"}
        match kind:
            case "schedule":
                self._is_due(batch[0])
                self._is_due(batch[0] + SWEEP, early=False)
                for started in self._check({"id": str(uuid.uuid4()), "time": batch[0].isoformat()}):
                    self.delivered[started["result"]] += 1
            case "tick":
                for message in batch:
                    self._is_due(messages.tick(message["body"]).slot)
                self._batch(self._check, batch)
            case "shard":
                before = self._farm.hits.copy()
                again = any(int(message["attributes"]["ApproximateReceiveCount"]) > 1 for message in batch)
                shard._probed = self._environments[random.randrange(2) if again else 0]
                self._batch(self._sweep, batch)
                slot = messages.shard(batch[0]["body"]).slot
                # Who is down is looked at more than once by one check.
                for path, hits in (self._farm.hits - before).items():
                    self.probed[path, slot] += 1 if path in self._farm.down else hits
            case _:
                self._batch(self._write, batch)
        self._collect()

    def _is_due(self, slot: datetime, *, early: bool = True) -> None:
        """A sweep that is asked for now has to be started, if now is in its half minute and not at the edge of it.

        The second one of a minute is asked for by a message of its own, unless its time has come (`early` is False).
        """
        age = (self._now - slot).total_seconds()
        if (-1 if early else 1) < age < SWEEP.total_seconds() - EDGE_SECONDS:
            self.due.add(slot)

    def _batch(self, handler: Callable[[Any], Any], batch: list[Message]) -> None:
        answer = handler({"Records": batch})
        self.failed += [item["itemIdentifier"] for item in answer["batchItemFailures"]]

    def _collect(self) -> None:
        """What the handlers have sent: each message comes some time, and perhaps again."""
        for body in self._inbox.read(self._inbox.tick):
            for _ in range(random.choice([1, 1, 2])):
                # The queue delays it by 30 s.
                self._due(
                    self._now + timedelta(seconds=30 + random.choice([0, 0, 1, 4, 40])), "tick", self._message(body)
                )
        for body in self._inbox.read(self._inbox.probe):
            waited = random.choice([0, 0, 0, 1, 5, 15])
            shard_ = messages.shard(body)
            self.sharded[shard_.slot] += (ids := [endpoint.server_id for endpoint in shard_.endpoints])
            if waited < shard.MAX_WAIT_SECONDS:
                self.asked |= {(id_, shard_.slot) for id_ in ids}
            self._due(self._now + timedelta(seconds=waited), "shard", self._message(body, waited))
            if random.random() < 0.4:  # its function ended in the middle, or the queue lost the deletion
                again = self._message(body, waited, received=2)
                self._due(self._now + timedelta(seconds=waited + random.choice([0, 31, 60])), "shard", again)
        for body in self._inbox.read(self._results):
            message = self._message(body)
            findings = messages.findings(body)
            self.found |= {(finding.server_id, findings.slot) for finding in findings.findings}
            for _ in range(random.choice([1, 1, 2, 3])):
                self._due(self._now + timedelta(seconds=random.choice([0, 0, 1, 20, 40, 7_000])), "findings", message)

    def _message(self, body: str, waited: float = 0.0, received: int = 1) -> Message:
        return record(body, self._now, waited, received)


def record(body: str, sent: datetime, waited: float = 0.0, received: int = 1) -> Message:
    """A message as SQS hands it over."""
    milliseconds = round(sent.timestamp() * 1000)
    attributes = {
        "SentTimestamp": str(milliseconds),
        "ApproximateFirstReceiveTimestamp": str(milliseconds + round(waited * 1000)),
        "ApproximateReceiveCount": str(received),
    }
    return {"messageId": str(uuid.uuid4()), "body": body, "attributes": attributes}


def _day(admin: psycopg.Connection[Any], url: str, inbox: Inbox, scale: int) -> list[Line]:
    results = inbox._client.create_queue(QueueName="faults-results")["QueueUrl"]
    farm = Farm()
    patch = pytest.MonkeyPatch()
    patch.setenv("RESULT_QUEUE_URL", results)
    try:
        ids = [
            register(url, f"day-{number}", endpoint_url=farm.url, health_url=f"/up/{number}")
            for number in range(1, SERVERS + 1)
        ]
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        _settle(admin, midnight)
        day = Day(admin, inbox, results, farm)
        spans = min(SPANS * min(scale, 2 * FAR), 24 * 60 // SPAN)
        minutes = spans * SPAN
        for span in sorted(random.sample(range(24 * 60 // SPAN), spans)):
            for minute in range(SPAN):
                day.schedule(midnight + timedelta(minutes=span * SPAN + minute))
        day.play()
    finally:
        patch.undo()
        farm.shutdown()
        farm.server_close()
    rows = admin.execute(WRITTEN, [ids]).fetchall()
    dispatched = admin.execute("SELECT slot FROM metrics.sweeps WHERE dispatched_at IS NOT NULL").fetchall()
    slots = {slot for (slot,) in dispatched}
    partial = [slot for slot in day.due if sorted(day.sharded[slot]) != sorted(ids)]
    missing = day.asked - set(rows)
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(day.delivered.items()))
    print(f"delivery: {minutes} minutes: {told}", file=sys.stderr)
    what = "events twice, late, in any order"
    return [
        Line(
            f"{what}: sweeps that were due and not started, or not with every server",
            "0",
            f"{len(day.due - slots)}, {len(partial)} of {len(day.due)}",
            bool(day.due) and day.due <= slots and not partial,
        ),
        Line(
            f"{what}: checks that were asked for in time and are not written",
            "0",
            f"{len(missing)} of {len(day.asked)}",
            bool(day.asked) and not missing,
        ),
        Line(
            f"{what}: rows for each server and slot that was probed",
            "1",
            f"{len(rows)} rows of {len(day.found)}, {len(day.failed)} messages failed",
            set(rows) == day.found and len(rows) == len(day.found) and not day.failed,
        ),
        at_most(f"{what}: probes of one server in a slot", 1, max(day.probed.values())),
    ]


def register(url: str, name: str, **fields: Any) -> int:
    """Register a server past the handlers; its id."""
    database = db.Database(url).begin()
    try:
        return servers.register(database, ADMIN, registration.parse(document(name, **fields)))["id"]
    finally:
        database.close()


def _settle(admin: psycopg.Connection[Any], midnight: datetime) -> None:
    """Every server has been where it is since the day before."""
    admin.execute("UPDATE registry.endpoints SET moved_at = %s", [midnight - timedelta(days=1)])


# ------------------------------------------------------------------ a day of findings


def _findings(admin: psycopg.Connection[Any], url: str, count: int) -> list[Line]:
    """Findings of slots all over a day, each once to three times, in any order and any batch."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    admin.execute("UPDATE registry.mcp_servers SET status = 'inactive'")
    ids = [register(url, f"findings-{number}") for number in range(SERVERS)]
    _settle(admin, midnight)
    admin.execute(SET_CLOCK, [midnight + timedelta(hours=26)])
    slots = sorted(midnight + timedelta(seconds=30 * slot) for slot in random.sample(range(2_880), count))
    verdicts = {(id_, slot): random.choice(["healthy", "http_error"]) for id_ in ids for slot in slots}
    sent = [
        _record_of(slot, 0, [_finding(id_, verdicts[id_, slot]) for id_ in ids])
        for slot in slots
        for _ in range(random.choice([1, 1, 2, 3]))
    ]
    random.shuffle(sent)
    write = _handler("health_write")
    failed: list[Any] = []
    for start in range(0, len(sent), BATCH):
        failed += write({"Records": sent[start : start + BATCH]})["batchItemFailures"]
    rows = admin.execute(WRITTEN, [ids]).fetchall()
    newest = {id_: verdicts[id_, slots[-1]] for id_ in ids}
    told = admin.execute(
        "SELECT s.id, h.verdict::text, s.status::text FROM registry.mcp_servers AS s"
        " JOIN registry.endpoint_health AS h USING (endpoint_id) WHERE s.id = ANY (%s)",
        [ids],
    ).fetchall()
    right = {(id_, verdict, "active" if verdict == "healthy" else "error") for id_, verdict in newest.items()}
    wrong = set(told) ^ right
    return [
        Line(
            "findings twice, in any order: rows for each server and slot",
            "1",
            f"{len(rows)} rows of {len(verdicts)} by {len(sent)} messages, {len(failed)} failed",
            set(rows) == verdicts.keys() and len(rows) == len(verdicts) and not failed,
        ),
        Line("findings twice, in any order: servers not as their newest check says", "0", f"{len(wrong)}", not wrong),
    ]


def _finding(id_: int, verdict: str) -> Finding:
    up = verdict == "healthy"
    return Finding(id_, verdict, 200 if up else 500, 12, None if up else "It answered 500", 0)  # type: ignore[arg-type]


def _record_of(slot: datetime, place: int, findings: list[Finding]) -> Message:
    return record(messages.encode(Findings(slot, place, findings)), slot + timedelta(seconds=2))


# ------------------------------------------------------------------ a worker that is killed


def _killed_worker(admin: psycopg.Connection[Any], url: str) -> Line:
    """SIGKILL in the middle of a batch of ten: what is redelivered completes it."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    ids = [register(url, f"killed-{number}") for number in range(BATCH)]
    _settle(admin, midnight)
    first = midnight + timedelta(hours=1)
    write = _handler("health_write")
    write({"Records": [_record_of(first, 0, [_finding(id_, "healthy") for id_ in ids])]})
    # Each message has one server; that of the sixth is locked, so that the worker stands there.
    slot = first + timedelta(seconds=30)
    batch = {"Records": [_record_of(slot, place, [_finding(id_, "http_error")]) for place, id_ in enumerate(ids)]}
    with psycopg.connect(url) as holder:
        holder.execute(
            "SELECT FROM registry.endpoint_health AS h JOIN registry.endpoints AS e ON e.id = h.endpoint_id"
            " WHERE e.server_id = %s FOR UPDATE OF h",
            [ids[5]],
        )
        worker = _worker(url)
        assert worker.stdin is not None
        with worker.stdin:
            worker.stdin.write(json.dumps(batch))
        stage.until(lambda: admin.execute(WAITING).fetchone() == (True,))
        worker.send_signal(signal.SIGKILL)
        worker.wait(30)
        assert worker.stdout is not None
        worker.stdout.close()
    stage.until(lambda: admin.execute(GONE).fetchone() == (True,))
    in_slot = "SELECT count(*) FROM metrics.server_health_metrics WHERE slot = %s AND server_id = ANY (%s)"
    (half,) = admin.execute(in_slot, [slot, ids]).fetchone() or (0,)
    again = _worker(url)
    output, _ = again.communicate(json.dumps(batch), timeout=60)
    (whole,) = admin.execute(in_slot, [slot, ids]).fetchone() or (0,)
    (down,) = admin.execute(
        "SELECT count(*) FROM registry.mcp_servers WHERE id = ANY (%s) AND status = 'error'", [ids]
    ).fetchone() or (0,)
    return Line(
        "a worker killed in the middle of a batch of 10: written before, and after redelivery",
        "10 in the end",
        f"{half}, then {whole}",
        0 < half < BATCH
        and whole == down == BATCH
        and json.loads(output.splitlines()[-1]) == {"batchItemFailures": []},
    )


def _worker(url: str) -> subprocess.Popen[str]:
    layer, function = ROOT / "layers" / "registry", ROOT / "functions" / "health_write"
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            "DATABASE_URL": url,
            "AWS_LAMBDA_FUNCTION_NAME": "worker",
            "POWERTOOLS_LOG_LEVEL": "CRITICAL",
            "PYTHONPATH": os.pathsep.join([str(layer), str(function)]),
        },
    )
