"""Load that a registry has to bear all day: reads, servers that start and register, and sweeps over all of them.

Some clients send at a bounded rate, each on a connection that stays open. A third of what they do is a cold start: the
digest first, and the body where the registry asks for it (428). Every name belongs to one client, so that what must be
stored at the end is known. The registered servers are real sockets on the loopback, and answer every probe. Before and
after, one client reads in peace.

Of every request it is known what is due: its status, and the little that is looked at in its body. Anything else is a
failure, whichever it is.

What a process needs is counted as its anonymous memory (RssAnon): the resident memory of a Postgres backend is mostly
the shared buffers that it has touched so far, and that is no leak.
"""

from __future__ import annotations

import http.client
import json
import math
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
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg

from mcp_registry.catalogue.canonical import digest, survey
from tests import shapes
from tests.api.transport import Answer, Headers, connect, exchange
from tests.conftest import BASIC, CRON_SECRET, REGISTER, SERVERS, Local
from tests.faults import stage
from tests.hostile import Farm
from tests.proof import Line, interrupted, not_tried

SECONDS = 20  # of load, times scale ...
LONGEST_SECONDS = 240  # ... up to this: all proofs together, as far as they go, take half an hour
SETTLED_SECONDS = 2  # of reading before and after, times scale up to 10
CLIENTS = 8
RATE = 40  # requests/s of all clients together
CALM_RATE = 20  # requests/s of the one client before and after
SERVERS_AT_FIRST = 200
# Of a client's steps; the others read.
STARTS = 0.3
# Of the starts: of a server that has changed since, and of one that nobody has seen before.
CHANGED, NEW = 0.4, 0.1
# Of the registrations that these make, so many have to be acknowledged for the rest to mean something.
LEAST_SHARE = 0.5
# Between sweeps that are asked for, besides those of the schedule. One within 5 s of another is the same (duplicate).
SWEEP_SECONDS = 7.0
# How long a sweep may take to be written, from its slot on: the half minute that it has.
SWEPT_WITHIN = 30.0
SAMPLE_SECONDS = 0.5
ESTABLISHED = "01"  # in /proc/net/tcp

# What one process may take on in the second half of the load, after which its caches are full. Four minutes were seen
# to cost none more than 0.9 MB (2026-11-23).
GROWTH_MB = 4.0
# ... and what all processes of a function may, for each request that they served meanwhile. In four minutes every
# function took on 0.20 to 0.28 KB, which is settling (0.02 to 0.07 KB after 2,000 requests to one process), and one
# that kept 1 KB of each request 1.41 KB. In one minute one process took on 0.4 MB at once: see Growth (2026-11-23).
GROWTH_KB = 0.5
# A function that served fewer is not judged: a page more here and there would weigh too much. That is 500 in the half.
LEAST_REQUESTS = 333
# Which function serves what a client asks for.
FUNCTIONS = {
    "list": "ListFunction",
    "search": "ListFunction",
    "filter": "ListFunction",
    "detail": "DetailFunction",
    "history": "HistoryFunction",
    "metrics": "MetricsFunction",
    "digest": "RegisterFunction",
    "register": "RegisterFunction",
}
# After the load a read may take so many times what it took before. Other work on the machine is no fault of ours.
SLOWER = 3.0

# Everything in the catalogue, with the tools that are of the same revision as the server.
STORED = """
SELECT s.name, s.version, s.tools_count,
       (SELECT count(*) FROM registry.tools AS t WHERE t.server_id = s.id),
       (SELECT count(*) FROM registry.tools AS t WHERE t.server_id = s.id AND t.description = s.description)
  FROM registry.mcp_servers AS s
"""
BACKENDS = """
SELECT count(*)
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


class Failure(NamedTuple):
    """A request that was answered otherwise than is due, or not."""

    kind: str
    told: str  # where, and what the answer said


class Note(NamedTuple):
    """One request that was answered."""

    what: str
    moment: float  # of its answer, by time.monotonic
    seconds: float
    well: bool  # whether the answer was the one that was due


@dataclass
class Book:
    """What was sent and acknowledged, by all clients."""

    notes: list[Note] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    # The revision of each name that was sent last, and the one that was acknowledged last.
    sent: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)

    def of_the_same(self) -> Book:
        """A book of its own for requests about the same servers, whose failures are failures here as well."""
        return Book(failures=self.failures, ids=self.ids)


class Read(NamedTuple):
    """A read of the API, and what is right for an answer to say."""

    what: str
    path: str
    right: Callable[[Any], bool]


LIST = Read("list", f"{SERVERS}?limit=50", lambda told: len(told["servers"]) == 50)
FILTER = Read(
    "filter",
    f"{SERVERS}?status=active&type=mock&limit=20",
    lambda told: {(each["status"], each["server_type"]) for each in told["servers"]} == {("active", "mock")},
)
METRICS = Read("metrics", "/api/metrics/health", lambda told: told["servers"]["total"] >= SERVERS_AT_FIRST)


def search(text: str) -> Read:
    """Of servers of which more than a page have this text in their names."""
    path = f"{SERVERS}?search={text}&limit=20"
    return Read("search", path, lambda told: [text in each["name"] for each in told["servers"]] == [True] * 20)


def detail(id_: int) -> Read:
    """Of one server."""
    return Read("detail", f"{SERVERS}/{id_}", lambda told: told["id"] == id_)


def history(id_: int) -> Read:
    """Of the health of one server."""
    return Read("history", f"{SERVERS}/{id_}/health", lambda told: told["server_id"] == id_)


class Client:
    """One client with a connection that stays open."""

    def __init__(self, url: str, book: Book) -> None:
        self._book = book
        self._connection: http.client.HTTPConnection = connect(urlsplit(url))

    def ask(
        self,
        what: str,
        method: str,
        path: str,
        due: int,
        headers: Headers,
        body: bytes = b"",
        right: Callable[[Any], bool] | None = None,
    ) -> Answer | None:
        """The answer where its status is the one that is due, and its body right; else None, and that is noted."""
        try:
            answer = exchange(self._connection, "", method, path, [("authorization", BASIC), *headers], body)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._book.failures.append(Failure(f"{method} {what}: {type(error).__name__}", f"{path}: {error}"))
            return None
        well = answer.status == due and (right is None or says(answer, right))
        self._book.notes.append(Note(what, time.monotonic(), answer.seconds, well))
        if well:
            return answer
        told = f"{answer.status} where {due} is due" if answer.status != due else f"{due} with another body than is due"
        self._book.failures.append(Failure(f"{method} {what}: {told}", f"{path}: {answer.body[:200]!r}"))
        return None

    def read(self, read: Read) -> None:
        """One read."""
        self.ask(read.what, "GET", read.path, 200, [], right=read.right)

    def start(self, name: str, revision: int, endpoint: str) -> None:
        """A server that starts: its digest, and its registration where that is wanted."""
        book = self._book
        registration = document(name, revision, endpoint)
        before = book.acknowledged.get(name)
        book.sent[name] = revision
        text = digest(registration, plain=survey(registration).plain).hex()
        due = 204 if before == revision else 428
        if not self.ask("digest", "PUT", REGISTER, due, [("x-registration-digest", text)]) or due == 204:
            return
        answer = self.ask(
            "register",
            "PUT",
            REGISTER,
            201 if before is None else 200,
            [("content-type", "application/json")],
            json.dumps(registration).encode(),
            lambda told: told["name"] == name and told["id"] > 0 and (before is None or told["result"] == "updated"),
        )
        if answer is None:
            return
        book.acknowledged[name] = revision
        if before is None:
            book.ids.append(answer.json()["id"])

    def sweep(self) -> None:
        """Want a sweep."""
        self.ask(
            "sweep",
            "POST",
            "/api/jobs/health-check",
            202,
            [("x-cron-secret", CRON_SECRET)],
            right=lambda told: told["result"] in ("started", "duplicate"),
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def says(answer: Answer, right: Callable[[Any], bool]) -> bool:
    """Whether an answer is JSON, and right."""
    try:
        return right(answer.json())
    except (AssertionError, LookupError, TypeError, ValueError):
        return False


def play(client: Client, number: int, seconds: float, endpoint: str, book: Book) -> None:
    """One client's part: a step at each beat, whatever the last one took."""
    chance = random.Random(number)
    names = {f"load-{number}-{place}": 1 for place in range(SERVERS_AT_FIRST // CLIENTS)}
    began = time.monotonic() + number / RATE
    for beat in range(int(seconds * RATE / CLIENTS)):
        if not pause(began + beat * CLIENTS / RATE):
            return
        if chance.random() > STARTS:
            id_ = chance.choice(book.ids)
            text = f"load-{chance.randrange(CLIENTS)}-"
            reads = (LIST, search(text), FILTER, detail(id_), detail(id_), history(id_), METRICS)
            client.read(chance.choice(reads))
            continue
        name = chance.choice(list(names))
        drawn = chance.random()
        if drawn < NEW:
            name = f"load-{number}-{len(names)}"
            names[name] = 1
        elif drawn < NEW + CHANGED:
            names[name] += 1
        client.start(name, names[name], endpoint)


def document(name: str, revision: int, endpoint: str) -> dict[str, Any]:
    """The registration of a server in its nth version, of the size of a small real one."""
    schema = {"type": "object", "properties": {"place": {"type": "string", "description": "x" * 100}}}
    return {
        "name": name,
        "display_name": name,
        "description": f"{name} {revision}",
        "server_type": "mock",
        "endpoint_url": f"{endpoint}/{name}/mcp",
        "version": version(revision),
        "metadata": {"author": "load", "tags": ["load"]},
        "tools": [
            {"name": f"tool-{number}", "description": f"{name} {revision}", "input_schema": schema}
            for number in range(tools(revision))
        ],
    }


def version(revision: int) -> str:
    """The version that a revision bears."""
    return f"{revision}.0.0"


def tools(revision: int) -> int:
    """How many tools a revision has."""
    return 1 + revision % 5


def pause(until: float) -> bool:
    """Wait for a moment of time.monotonic: a rate is nothing but waiting. Whether to go on then."""
    return not interrupted.wait(max(until - time.monotonic(), 0))


# ------------------------------------------------------------------ what processes need


# Of a process, by its name and id: moments (time.monotonic) and the MB that it had.
Samples = dict[tuple[str, int], list[tuple[float, float]]]


class Growth(NamedTuple):
    """What a process took on between two moments.

    What was taken on at once, by a process that got its first requests late, is in one half of the time only. A leak
    is in both.
    """

    grown: float  # MB
    size: float  # MB in the end
    name: str
    late: float  # MB of `grown`, in the second half of the time


class Span(NamedTuple):
    """The second half of a load, and the moments of it between which growth is measured.

    What a process has is the median of a third of the half. The moments are the middles of the first and the last.
    """

    middle: float
    third: float
    ended: float

    @classmethod
    def of(cls, began: float, ended: float) -> Span:
        middle = (began + ended) / 2
        return cls(middle, (ended - middle) / 3, ended)

    def growth(self, samples: Samples) -> list[Growth]:
        """Of each process that was there all the time. Those that grew most come first."""
        found: list[Growth] = []
        for (name, _), each in samples.items():
            thirds: list[list[float]] = [[], [], []]
            for moment, size in each:
                if self.middle <= moment < self.ended:
                    thirds[min(int((moment - self.middle) / self.third), 2)].append(size)
            if all(thirds):
                first, second, last = map(statistics.median, thirds)
                found.append(Growth(last - first, last, name, last - second))
        return sorted(found, reverse=True)

    def requests(self, notes: list[Note]) -> Counter[str]:
        """How many each function served between the two moments."""
        first, last = self.middle + self.third / 2, self.ended - self.third / 2
        served = (FUNCTIONS[note.what] for note in notes if note.what in FUNCTIONS and first <= note.moment < last)
        return Counter(served)


class Watch:
    """Looks at every process of a run, again and again, from another thread."""

    def __init__(self, local: Local, postmaster: int) -> None:
        self.samples: Samples = {}
        self._roots = (local.process.pid, postmaster)
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


def connections(pid: int, port: int) -> int:
    """How many connections a process has to a port."""
    sockets: set[str] = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, state, *_, inode = line.split()[:10]
        if remote.endswith(f":{port:04X}") and state == ESTABLISHED:
            sockets.add(f"socket:[{inode}]")
    number = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            number += str(path.readlink()) in sockets
        except OSError:
            continue  # it is closed
    return number


def backend(pid: int) -> str:
    """What a process of Postgres is: a backend for a client, or one of its own."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    return " backend" if "127.0.0.1" in title else ""


# ------------------------------------------------------------------ the proof


def prove(scale: int) -> list[Line]:
    """`SECONDS` times scale of load. In the bounded run the latencies are told and not judged."""
    calm_seconds = SETTLED_SECONDS * min(scale, 10)
    seconds = min(SECONDS * scale, LONGEST_SECONDS)
    with (
        Farm(shapes.hand()) as farm,
        stage.postgres() as server,
        stage.stack(server.url, CRON_SECRET=CRON_SECRET, CHECKS_PER_HOST="1000") as local,
        psycopg.connect(server.url, autocommit=True) as database,
    ):
        book = Book()
        _fill(local.url, book, farm.url)
        # Each function's first answer is that of a cold start.
        _read(local.url, book.of_the_same(), 0.5)
        calm, after = book.of_the_same(), book.of_the_same()
        _read(local.url, calm, calm_seconds)
        watch = Watch(local, server.pid)
        with watch.watching():
            began = time.monotonic()
            _load(local.url, book, seconds, farm.url)
            ended = time.monotonic()
        sweeps = _sweeps(database)
        _read(local.url, after, calm_seconds)
        held = _connections(database, local, server.port)
        stored: dict[str, Stored] = {name: tuple(rest) for name, *rest in database.execute(STORED)}
    span = Span.of(began, ended)
    return [
        registrations(book, stored, seconds),
        _answers(book.failures, len(calm.notes) + len(book.notes) + len(after.notes), seconds),
        sweeps,
        held,
        *memory(span.growth(watch.samples), span.requests(book.notes)),
        *_latencies(calm, book, after, judged=scale > 1),
    ]


def _fill(url: str, book: Book, endpoint: str) -> None:
    """Register the servers that are there when the load begins."""

    def register(number: int) -> None:
        client = Client(url, book)
        for place in range(number, SERVERS_AT_FIRST, CLIENTS):
            if interrupted.is_set():
                break
            client.start(f"load-{number}-{place // CLIENTS}", 1, endpoint)
        client.close()

    _together([lambda number=number: register(number) for number in range(CLIENTS)])
    assert len(book.ids) == SERVERS_AT_FIRST, book.failures[:3]
    book.notes.clear()


def _read(url: str, book: Book, seconds: float) -> None:
    """One client that reads the same at a calm rate."""
    client = Client(url, book)
    began = time.monotonic()
    for beat in range(int(seconds * CALM_RATE)):
        if not pause(began + beat / CALM_RATE):
            break
        client.read((LIST, detail(book.ids[beat % SERVERS_AT_FIRST]))[beat % 2])
    client.close()


def _load(url: str, book: Book, seconds: float, endpoint: str) -> None:
    """All clients for so long, and somebody who wants sweeps."""
    clients = [Client(url, book) for _ in range(CLIENTS)]

    def sweep() -> None:
        client = Client(url, book)
        began = time.monotonic()
        for beat in range(int(seconds / SWEEP_SECONDS)):
            if not pause(began + beat * SWEEP_SECONDS):
                break
            client.sweep()
        client.close()

    parts: list[Callable[[], None]] = [
        lambda number=number: play(clients[number], number, seconds, endpoint, book) for number in range(CLIENTS)
    ]
    _together([*parts, sweep])
    for client in clients:
        client.close()


def _together(parts: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(parts)) as pool:
        try:
            for each in [pool.submit(part) for part in parts]:
                each.result()
        except KeyboardInterrupt:
            interrupted.set()  # pytest's own Ctrl-C does not, and the pool waits for its threads
            raise


# ------------------------------------------------------------------ its lines

Stored = tuple[Any, ...]  # a row of STORED, after the name


def registrations(book: Book, stored: dict[str, Stored], seconds: float) -> Line:
    """Every name in the revision that was sent last, with its tools and no others, and no other name."""
    due = {name: (version(each), *[tools(each)] * 3) for name, each in book.sent.items()}
    wrong = [name for name in due.keys() | stored.keys() if stored.get(name) != due.get(name)]
    for name in wrong[:5]:
        print(f"load: {name} is {stored.get(name)}, where {due.get(name)} is due", file=sys.stderr)
    made = sum(note.what == "register" and note.well for note in book.notes)
    least = int(seconds * RATE * STARTS * (CHANGED + NEW) * LEAST_SHARE)
    return Line(
        "load: names that are not stored as they were sent last",
        f"0, of >= {least} registrations",
        f"{len(wrong)} of {len(due)} names, {made} registrations acknowledged",
        not wrong and made >= least,
    )


def _answers(failures: list[Failure], answered: int, seconds: float) -> Line:
    """Every request of every client, answered as is due."""
    examples = dict(reversed(failures))  # of each kind, the first
    for kind, number in Counter(failure.kind for failure in failures).most_common():
        print(f"load: {number} x {kind}, the first {examples[kind]}", file=sys.stderr)
    return Line(
        "load: requests without an answer, or with another than the one due",
        "0",
        f"{len(failures)} of {answered}, in {seconds:.0f} s of load and in peace",
        not failures,
    )


def _sweeps(database: psycopg.Connection[Any]) -> Line:
    """Wait until each sweep is written, for the half minute that it has."""
    deadline = time.monotonic() + SWEPT_WITHIN
    while True:
        sweeps = [row for row in database.execute(SWEEPS).fetchall() if row[1]]
        left = [slot for slot, _, unchecked in sweeps if unchecked > 0]
        if not left or not pause(min(time.monotonic() + 0.2, deadline)) or time.monotonic() >= deadline:
            break
    most = max((servers for _, servers, _ in sweeps), default=0)
    return Line(
        "load: sweeps that left a server unchecked",
        "0 of at least 2",
        f"{len(left)} of {len(sweeps)}, of up to {most} servers",
        not left and len(sweeps) >= 2,
    )


def _connections(database: psycopg.Connection[Any], local: Local, port: int) -> Line:
    """Those that Postgres counts are those of the functions' processes, of which none has two."""
    what, bar = "load: connections to Postgres of one function's process, afterwards", "<= 1, and none of others"
    if sys.platform != "linux":
        return not_tried(what, bar, "no /proc")
    ((total,),) = database.execute(BACKENDS).fetchall()
    held = {pid: connections(pid, port) for pid in stage.functions(local)}
    for pid, number in held.items():
        if number > 1:
            print(f"load: {function_of(pid)} has {number} connections to Postgres", file=sys.stderr)
    most, own = max(held.values()), sum(held.values())
    figure = f"{most}; {total} in all, {own} of them of {len(held)} processes"
    return Line(what, bar, figure, most <= 1 and total <= own)


def memory(growth: list[Growth], served: Counter[str]) -> list[Line]:
    """What one process took on in the second half, and what each function did for a request."""
    whats = (
        "load: memory that one process took on in the second half",
        "load: memory that one function took on for each request of that time",
    )
    bar, bar_each = f"<= {GROWTH_MB:g} MB", f"<= {GROWTH_KB:g} KB"
    if not growth and sys.platform != "linux":
        return [not_tried(whats[0], bar, "no /proc"), not_tried(whats[1], bar_each, "no /proc")]
    for one in growth[:8]:
        print(f"load: {one.name} grew by {one.grown:.2f} to {one.size:.1f} MB in the second half", file=sys.stderr)
    most, size, name, _ = max(growth)
    lines = [
        Line(whats[0], bar, f"{most:.2f} MB ({name}, of {size:.0f} MB; {len(growth)} processes)", most <= GROWTH_MB)
    ]
    each: list[tuple[float, int, str]] = []
    for name, number in served.items():
        late = sum(one.late for one in growth if one.name == name)
        early = sum(one.grown - one.late for one in growth if one.name == name)
        each.append((2 * min(early, late) * 1024 / number, number, name))
    each.sort(reverse=True)
    for most, number, name in each:
        print(f"load: {name} grew by {most:.2f} KB for each of {number} requests", file=sys.stderr)
    judged = [one for one in each if one[1] >= LEAST_REQUESTS]
    if not judged:
        figure = f"no function served {LEAST_REQUESTS}"
        return [*lines, Line(whats[1], "not judged in the bounded run", figure, met=True)]
    most, number, name = judged[0]
    return [*lines, Line(whats[1], bar_each, f"{most:.2f} KB ({name}, {number} requests)", most <= GROWTH_KB)]


def _latencies(calm: Book, book: Book, after: Book, *, judged: bool) -> list[Line]:
    """Of the same two reads, before, during and after; and how much slower they are in the end."""
    percentiles: list[list[float]] = []
    for each in (calm, book, after):
        taken = (note.seconds * 1000 for note in each.notes if note.well and note.what in ("list", "detail"))
        seconds = sorted(taken) or [math.inf]
        percentiles.append([seconds[min(int(len(seconds) * share), len(seconds) - 1)] for share in (0.5, 0.95, 0.99)])
    told = ["/".join(f"{each:.0f}" for each in part) for part in percentiles]
    ratio = percentiles[2][0] / percentiles[0][0]
    bar = f"<= {SLOWER:g} x" if judged else "not judged in the bounded run"
    return [
        Line("load: reads, p50/p95/p99 in ms before, during, after", "told", ", ".join(told), True),
        Line("load: p50 of a read after the load, over before", bar, f"{ratio:.2f} x", not judged or ratio <= SLOWER),
    ]
