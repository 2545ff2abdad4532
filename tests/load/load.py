"""Load that a registry has to bear all day: reads, servers that start and register, and sweeps over all of them.

Some clients send at a bounded rate, each on a connection that stays open. A third of what they do is a cold start: the
digest first, and the body where the registry asks for it (428). Every name belongs to one client, so that what must be
stored at the end is known. The registered servers are real sockets on the loopback, and answer every probe. Before and
after, one client reads in peace.

What a process needs is counted as its anonymous memory (RssAnon): the resident memory of a Postgres backend is mostly
the shared buffers that it has touched so far, and that is no leak.
"""

from __future__ import annotations

import http.client
import json
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from mcp_registry.canonical import digest, survey
from tests.api.transport import Answer, Headers, connect, exchange
from tests.conftest import BASIC, CRON_SECRET, REGISTER, SERVERS, Local
from tests.faults import stage
from tests.hostile import Farm, Visit
from tests.proof import Line, at_most

SECONDS = 20  # of load, times scale
SETTLED_SECONDS = 2  # of reading before and after, times scale up to 10
CLIENTS = 8
RATE = 40  # requests/s of all clients together
CALM_RATE = 20  # requests/s of the one client before and after
SERVERS_AT_FIRST = 200
# Of a client's steps; the others read.
STARTS = 0.3
# Of the starts: of a server that has changed since, and of one that nobody has seen before.
CHANGED, NEW = 0.4, 0.1
# Between sweeps that are asked for, besides those of the schedule. Those within 5 s of another one are refused.
SWEEP_SECONDS = 7.0
# How long a sweep may take to be written, from its slot on: the half minute that it has.
SWEPT_WITHIN = 30.0
SAMPLE_SECONDS = 0.5

# What one process may take on in the second half of the load, after which its caches are full. A minute of load was
# seen to cost none more than 0.3 MB (2026-11-22); what grows by a KB with every request shows in four minutes.
GROWTH_MB = 4.0
# After the load a read may take so many times what it took before. Other work on the machine is no fault of ours.
SLOWER = 3.0

ROWS = "SELECT name, version FROM registry.mcp_servers WHERE starts_with(name, 'load-')"
BACKENDS = """
SELECT pid, application_name
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND backend_type = 'client backend'
   AND pid <> pg_backend_pid()
"""
# Sweeps with what is left of each: servers that have no verdict in any of its shards.
SWEEPS = """
SELECT s.slot, s.servers,
       s.servers - s.checked - s.gone
       - COALESCE((SELECT sum(d.checked + d.gone) FROM metrics.sweep_shards AS d WHERE d.slot = s.slot), 0) AS unchecked
  FROM metrics.sweeps AS s
 WHERE s.dispatched_at IS NOT NULL
"""


# ------------------------------------------------------------------ clients


@dataclass
class Book:
    """What was sent and acknowledged, by all clients."""

    # By method and route: status and seconds.
    answers: list[tuple[str, int, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    # The version of each name that was acknowledged last.
    acknowledged: dict[str, str] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)

    def statuses(self) -> Counter[int]:
        return Counter(status for _, status, _ in self.answers)


class Client:
    """One client with a connection that stays open."""

    def __init__(self, url: str, book: Book) -> None:
        self._book = book
        self._connection: http.client.HTTPConnection = connect(urlsplit(url))

    def ask(self, what: str, method: str, path: str, headers: Headers, body: bytes = b"") -> Answer | None:
        """The answer; None where none came, which is noted."""
        try:
            answer = exchange(self._connection, "", method, path, [("authorization", BASIC), *headers], body)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._book.failures.append(f"{what}: {type(error).__name__}: {error}")
            return None
        self._book.answers.append((what, answer.status, answer.seconds))
        return answer

    def read(self, chance: random.Random) -> None:
        """One of the reads of the API."""
        id_ = chance.choice(self._book.ids)
        what, path = chance.choice(
            (
                ("list", f"{SERVERS}?limit=50"),
                ("search", f"{SERVERS}?search=load-{chance.randrange(10)}&limit=20"),
                ("filter", f"{SERVERS}?status=active&type=mock&limit=20"),
                ("detail", f"{SERVERS}/{id_}"),
                ("detail", f"{SERVERS}/{id_}"),
                ("history", f"{SERVERS}/{id_}/health"),
                ("metrics", "/api/metrics/health"),
            )
        )
        self.ask(what, "GET", path, [])

    def start(self, registration: dict[str, Any]) -> None:
        """A server that starts: its digest, and its registration where that is wanted."""
        text = digest(registration, plain=survey(registration).plain).hex()
        answer = self.ask("digest", "PUT", REGISTER, [("x-registration-digest", text)])
        if answer is None or answer.status == 204:
            return
        if answer.status != 428:
            self._book.failures.append(f"digest: {answer.status} {answer.body[:200]!r}")
            return
        body = json.dumps(registration).encode()
        answer = self.ask("register", "PUT", REGISTER, [("content-type", "application/json")], body)
        if answer is not None and answer.status in (200, 201):
            self._book.acknowledged[registration["name"]] = registration["version"]
            if answer.status == 201:
                self._book.ids.append(answer.json()["id"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def play(client: Client, number: int, seconds: float, endpoint: str, names: dict[str, int]) -> None:
    """One client's part: a step at each beat, whatever the last one took."""
    chance = random.Random(number)
    began = time.monotonic()
    beats = int(seconds * RATE / CLIENTS)
    for beat in range(beats):
        pause(began + beat * CLIENTS / RATE + number / RATE)
        if chance.random() > STARTS:
            client.read(chance)
            continue
        name = chance.choice(list(names))
        drawn = chance.random()
        if drawn < NEW:
            name = f"load-{number}-{len(names)}"
            names[name] = 1
        elif drawn < NEW + CHANGED:
            names[name] += 1
        client.start(document(name, names[name], endpoint))


def document(name: str, revision: int, endpoint: str) -> dict[str, Any]:
    """The registration of a server in its nth version, of the size of a small real one."""
    schema = {"type": "object", "properties": {"place": {"type": "string", "description": "x" * 100}}}
    return {
        "name": name,
        "display_name": name,
        "description": f"{name} {revision}",
        "server_type": "mock",
        "endpoint_url": f"{endpoint}/{name}/mcp",
        "version": f"{revision}.0.0",
        "metadata": {"author": "load", "tags": ["load"]},
        "tools": [
            {"name": f"tool-{number}", "description": f"{name} {revision}", "input_schema": schema}
            for number in range(1 + revision % 5)
        ],
    }


def pause(until: float) -> None:
    """Wait for a moment of time.monotonic: a rate is nothing but waiting."""
    left = until - time.monotonic()
    if left > 0:
        time.sleep(left)


# ------------------------------------------------------------------ what processes need


class Watch:
    """Looks at every process of a run, again and again, from another thread."""

    def __init__(self, local: Local, postmaster: int) -> None:
        self.samples: dict[tuple[str, int], list[tuple[float, float]]] = {}
        self._roots = (local.process.pid, postmaster)
        self._local = local
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    @contextmanager
    def watching(self) -> Generator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def growth(self, began: float, ended: float) -> list[tuple[float, float, str]]:
        """(MB that it grew by, MB that it has, name) of each process that was there for the whole second half.

        Those that grew most come first. From the middle of the first third of that half to the middle of its last.
        """
        middle = (began + ended) / 2
        third = (ended - middle) / 3
        found: list[tuple[float, float, str]] = []
        for (name, _), samples in self.samples.items():
            first = [size for moment, size in samples if middle <= moment < middle + third]
            last = [size for moment, size in samples if ended - third < moment <= ended]
            if first and last:
                size = statistics.median(last)
                found.append((size - statistics.median(first), size, name))
        return sorted(found, reverse=True)

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            for name, pid in self._processes():
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue  # it has ended
                for line in status.splitlines():
                    if line.startswith("RssAnon:"):
                        sample = (time.monotonic(), int(line.split()[1]) / 1024)
                        self.samples.setdefault((name, pid), []).append(sample)

    def _processes(self) -> Generator[tuple[str, int]]:
        local, postmaster = self._roots
        yield "the local run", local
        for pid in children(local):
            yield function_of(pid) or "queues", pid
        yield "postmaster", postmaster
        for pid in children(postmaster):
            yield f"postgres{backend(pid)}", pid


def children(pid: int) -> list[int]:
    """The processes that a process has started; none where it has ended."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def function_of(pid: int) -> str | None:
    """The function that a process runs; None where it runs none."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = b"AWS_LAMBDA_FUNCTION_NAME="
    return next((each.removeprefix(prefix).decode() for each in environment if each.startswith(prefix)), None)


def backend(pid: int) -> str:
    """What a process of Postgres is: a backend for a client, or one of its own."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    return " backend" if "127.0.0.1" in title else ""


# ------------------------------------------------------------------ the proof


async def answers(visit: Visit) -> None:
    """What an MCP server says to a probe."""
    body = b'{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":{}}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    await visit.send(head + body)


def prove(scale: int) -> list[Line]:
    """`SECONDS` times scale of load. In the bounded run the latencies are told and not judged."""
    calm_seconds = SETTLED_SECONDS * min(scale, 10)
    with (
        Farm(answers) as farm,
        stage.postgres() as server,
        stage.stack(server.url, CRON_SECRET=CRON_SECRET) as local,
        psycopg.connect(server.url, autocommit=True) as database,
    ):
        book = Book()
        _fill(local.url, book, farm.url)
        # Each function's first answer is that of a cold start.
        _read(local.url, Book(ids=book.ids), 0.5)
        calm, after = Book(ids=book.ids), Book(ids=book.ids)
        _read(local.url, calm, calm_seconds)
        before = len(database.execute(BACKENDS).fetchall())
        watch = Watch(local, server.pid)
        with watch.watching():
            began = time.monotonic()
            _load(local.url, book, SECONDS * scale, farm.url)
            ended = time.monotonic()
        left = _await_sweeps(database)
        sweeps = database.execute(SWEEPS).fetchall()
        _read(local.url, after, calm_seconds)
        backends = Counter(name for _, name in database.execute(BACKENDS).fetchall())
        processes = Counter(filter(None, map(function_of, children(local.process.pid))))
        stored = dict(database.execute(ROWS).fetchall())
    statuses = book.statuses() + calm.statuses() + after.statuses()
    for failure in book.failures[:5]:
        print(f"load: {failure}", file=sys.stderr)
    growth = watch.growth(began, ended)
    for grown, size, name in growth[:8]:
        print(f"load: {name} grew by {grown:.2f} to {size:.1f} MB in the second half", file=sys.stderr)
    lost = [name for name, version in book.acknowledged.items() if stored.get(name) != version]
    starts = sum(what == "register" and status < 300 for what, status, _ in book.answers)
    swept = [servers for _, servers, _ in sweeps if servers]
    more = {name: number for name, number in backends.items() if number > processes[name]}
    told = f"{len(book.answers)} requests in {ended - began:.0f} s"
    return [
        at_most(f"load: registrations lost of {starts} acknowledged", 0, len(lost)),
        at_most(f"load: answers of 5xx in {told}", 0, sum(n for status, n in statuses.items() if status >= 500)),
        at_most("load: requests without an answer, or with one that no client expects", 0, len(book.failures)),
        Line(
            "load: sweeps that left a server unchecked",
            "0 of at least 2",
            f"{len(left)} of {len(swept)}, of up to {max(swept, default=0)} servers",
            not left and len(swept) >= 2,
        ),
        Line(
            "load: connections to Postgres afterwards",
            "<= 1 for each function's process",
            f"{backends.total()} of {processes.total()} processes, {before} before" + (f": {more}" if more else ""),
            not more,
        ),
        Line(
            f"load: memory that one of {len(growth)} processes took on in the second half",
            f"<= {GROWTH_MB:g} MB",
            f"{growth[0][0]:.2f} MB ({growth[0][2]}, of {growth[0][1]:.0f} MB)",
            growth[0][0] <= GROWTH_MB,
        ),
        *_latencies(calm, book, after, judged=scale > 1),
    ]


def _fill(url: str, book: Book, endpoint: str) -> None:
    """Register the servers that are there when the load begins."""

    def register(number: int) -> None:
        client = Client(url, book)
        for place in range(number, SERVERS_AT_FIRST, CLIENTS):
            client.start(document(f"load-{number}-{place // CLIENTS}", 1, endpoint))
        client.close()

    _together([lambda number=number: register(number) for number in range(CLIENTS)])
    assert len(book.ids) == SERVERS_AT_FIRST, book.failures[:3]
    book.answers.clear()


def _read(url: str, book: Book, seconds: float) -> None:
    """One client that reads the same at a calm rate."""
    client = Client(url, book)
    began = time.monotonic()
    for beat in range(int(seconds * CALM_RATE)):
        pause(began + beat / CALM_RATE)
        paths = (("list", f"{SERVERS}?limit=50"), ("detail", f"{SERVERS}/{book.ids[beat % SERVERS_AT_FIRST]}"))
        what, path = paths[beat % 2]
        client.ask(what, "GET", path, [])
    client.close()


def _load(url: str, book: Book, seconds: float, endpoint: str) -> None:
    """All clients for so long, and somebody who wants sweeps."""
    clients = [Client(url, book) for _ in range(CLIENTS)]
    names = [{f"load-{number}-{place}": 1 for place in range(SERVERS_AT_FIRST // CLIENTS)} for number in range(CLIENTS)]

    def sweep() -> None:
        client = Client(url, book)
        began = time.monotonic()
        for beat in range(int(seconds / SWEEP_SECONDS)):
            pause(began + beat * SWEEP_SECONDS)
            client.ask("sweep", "POST", "/api/jobs/health-check", [("x-cron-secret", CRON_SECRET)])
        client.close()

    parts: list[Callable[[], None]] = [
        lambda number=number: play(clients[number], number, seconds, endpoint, names[number])
        for number in range(CLIENTS)
    ]
    _together([*parts, sweep])
    for client in clients:
        client.close()


def _together(parts: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(parts)) as pool:
        for each in [pool.submit(part) for part in parts]:
            each.result()


def _await_sweeps(database: psycopg.Connection[Any]) -> list[Any]:
    """Wait until each sweep is written; those that are not within their half minute."""
    deadline = time.monotonic() + SWEPT_WITHIN
    while True:
        left = [slot for slot, _, unchecked in database.execute(SWEEPS).fetchall() if unchecked > 0]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _latencies(calm: Book, book: Book, after: Book, *, judged: bool) -> list[Line]:
    """Of the same two reads, before, during and after; and how much slower they are in the end."""
    percentiles: list[list[float]] = []
    for each in (calm, book, after):
        seconds = sorted(taken * 1000 for what, _, taken in each.answers if what in ("list", "detail"))
        percentiles.append([seconds[min(int(len(seconds) * share), len(seconds) - 1)] for share in (0.5, 0.95, 0.99)])
    told = ["/".join(f"{each:.0f}" for each in part) for part in percentiles]
    ratio = percentiles[2][0] / percentiles[0][0]
    bar = f"<= {SLOWER:g} x" if judged else "not judged in the bounded run"
    return [
        Line("load: reads, p50/p95/p99 in ms before, during, after", "told", ", ".join(told), True),
        Line("load: p50 of a read after the load, over before", bar, f"{ratio:.2f} x", not judged or ratio <= SLOWER),
    ]
