"""The real fleet under the eyes of the whole local run, while other programs keep every core busy.

`make prove ARGS=fleet MINUTES=60`. Every server is registered and left in peace, but for three at a time: one after the
other is stopped and started again, frozen and let go on. Once a second the list is read as any client reads it. A
server that works and is not shown as what it is, or that does not and is shown as one that does, is a false verdict;
between what happens to a server and when that is seen, nothing is judged of it.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.api.transport import connect, exchange
from tests.conftest import BASIC, REGISTER, SERVERS, Local
from tests.faults import stage
from tests.proof import Line, interrupted, some
from tests.real.fixtures import FLEET, RealServer, available, running

# How long the fleet is watched unless MINUTES says it; the whole way is an hour.
MINUTES = 5.0
# Within which time the registry has to have seen what happened, and how long it is waited for at most.
SEEN_SECONDS = 30.0
PATIENCE_SECONDS = 120.0
# How many servers something happens to at the same time.
LANES = 3
LOOK_SECONDS = 1.0
FIRST_SECONDS = 180.0


class Sight(NamedTuple):
    """What the list shows of a server. `verdict`: that of its last check; None or `unknown` before the first."""

    status: str
    verdict: str | None
    checked_at: str | None

    @property
    def up(self) -> bool:
        """Whether it is shown as a server that works."""
        return self.status == "active"


@dataclass
class Book:
    """What is due of each server, and what was seen of them.

    `due`: True where a server works, False where it does not; not there where something has just happened to it.
    """

    verdicts: Mapping[str, str]
    due: dict[str, bool] = field(default_factory=dict)
    sights: dict[str, Sight] = field(default_factory=dict)
    false: list[str] = field(default_factory=list)
    took: dict[str, list[float]] = field(default_factory=dict)
    looks: int = 0
    unread: int = 0
    _wrong: set[str] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def look(self, sights: Mapping[str, Sight]) -> None:
        """Take note of what the list shows. A false verdict is counted once, however long it stands."""
        with self._changed:
            self.looks += 1
            self.sights.update(sights)
            for name, up in self.due.items():
                sight = self.sights.get(name)
                right = sight is not None and sight.up == up
                if right and up and sight is not None:
                    right = sight.verdict in (None, self.verdicts[name])
                if not right and name not in self._wrong:
                    self.false.append(f"{name}, which {'works' if up else 'does not work'}, is shown as {sight}")
                (self._wrong.discard if right else self._wrong.add)(name)
            self._changed.notify_all()

    def happens(self, name: str, what: str, action: Callable[[], object], *, up: bool) -> bool:
        """Do something to a server, and wait until the list shows what has become of it. False where it never does."""
        with self._changed:
            self.due.pop(name, None)
            self._wrong.discard(name)
        began = time.monotonic()
        action()
        # What it does itself, as starting, is not the registry's.
        began = time.monotonic() if up else began
        with self._changed:
            while not (seen := self._shows(name, up=up)) and time.monotonic() - began < PATIENCE_SECONDS:
                if interrupted.is_set():
                    return False
                self._changed.wait(min(LOOK_SECONDS, PATIENCE_SECONDS))
            self.took.setdefault(what, []).append(time.monotonic() - began if seen else math.inf)
            if seen:
                self.due[name] = up
        if not seen:
            self.false.append(f"{name}: that it {what} was not seen in {PATIENCE_SECONDS:.0f} s")
        return seen

    def _shows(self, name: str, *, up: bool) -> bool:
        sight = self.sights.get(name)
        return sight is not None and sight.up == up and (not up or sight.verdict in (None, self.verdicts[name]))


class Registry:
    """The local run, as a client sees it. One thread uses it."""

    def __init__(self, url: str) -> None:
        self._connection = connect(urlsplit(url))

    def register(self, name: str, url: str) -> None:
        """Register a server by hand."""
        told = {"name": f"fleet-{name}", "display_name": name, "server_type": "community", "endpoint_url": url}
        self._ask("POST", REGISTER, json.dumps(told).encode(), 201)

    def sights(self) -> dict[str, Sight]:
        """What the list shows of each server, by its name in the fleet."""
        listed = self._ask("GET", f"{SERVERS}?limit=1000", b"", 200)["servers"]
        return {
            server["name"].removeprefix("fleet-"): Sight(
                server["status"], server.get("verdict"), server["last_health_check"]
            )
            for server in listed
        }

    def _ask(self, method: str, path: str, body: bytes, status: int) -> Any:
        headers = [("Authorization", BASIC), *([("Content-Type", "application/json")] if body else [])]
        answer = exchange(self._connection, "", method, path, headers, body)
        assert answer.status == status, answer
        return answer.json()


def prove(scale: int) -> list[Line]:
    """So many MINUTES of the fleet, whatever the scale: an hour is the whole way."""
    del scale
    seconds = 60 * float(os.environ.get("MINUTES") or MINUTES)
    names = available(FLEET)
    with (
        running(*names) as servers,
        stage.postgres() as database,
        stage.stack(database.url, CHECKS_PER_HOST="1000") as local,
        _busy(),
    ):
        pids = {name: server.processes()[0] for name, server in servers.items()}
        book = Book({name: FLEET[name].verdict for name in names})
        first = _first_verdicts(local, servers, book)
        with _looking(local, book):
            _disturb(servers, book, time.monotonic() + seconds, pids)
        ended = [name for name, server in servers.items() if server.processes()[:1] != [pids[name]] or not server.runs]
    return [*lines(book, len(names), seconds), *_first(first), _ended(ended)]


def lines(book: Book, servers: int, seconds: float) -> list[Line]:
    """What the book says, against its bars."""
    late = f", {book.unread} without an answer" if book.unread else ""
    told = f"{len(book.false)} in {book.looks} looks{late}{some(book.false)}"
    what = f"the real fleet, {servers} servers for {seconds / 60:g} min on busy cores: false verdicts"
    found = [Line(what, "0 of at least 30 servers", told, not book.false and servers >= 30 and book.looks > 0)]
    for kind in ("is stopped", "is started again", "is frozen", "goes on"):
        took = book.took.get(kind, [])
        figure = f"{max(took):.0f} s, median {statistics.median(took):.0f} s, of {len(took)}" if took else "none"
        bar = f"<= {SEEN_SECONDS:g} s"
        met = bool(took) and max(took) <= SEEN_SECONDS
        found.append(Line(f"the real fleet: that a server {kind} is seen after at most", bar, figure, met))
    return found


def _first(took: list[float]) -> list[Line]:
    told = f"{max(took):.1f} s, median {statistics.median(took):.1f} s" if took else "not all in time"
    what = "the real fleet, registered all at once: first verdict after at most"
    return [Line(what, f"<= {SEEN_SECONDS:g} s", told, bool(took) and max(took) <= SEEN_SECONDS)]


def _ended(names: list[str]) -> Line:
    return Line("the real fleet: servers that ended unasked", "0", f"{len(names)}{some(names)}", not names)


def _first_verdicts(local: Local, servers: Mapping[str, RealServer], book: Book) -> list[float]:
    """Register all of them; how long each waited for its verdict, in seconds. Empty where one never got its own."""
    registry = Registry(local.url)
    began: dict[str, float] = {}
    took: dict[str, float] = {}
    for name, server in servers.items():
        registry.register(name, server.url)
        began[name] = time.monotonic()
    deadline = time.monotonic() + FIRST_SECONDS
    while len(took) < len(servers) and time.monotonic() < deadline and not interrupted.wait(0.2):
        for name, sight in registry.sights().items():
            if sight.checked_at and sight.up and sight.verdict in (None, book.verdicts[name]):
                took.setdefault(name, time.monotonic() - began[name])
    for name in servers:
        if name in took:
            book.due[name] = True
        else:
            book.false.append(f"{name} got no verdict of its own in {FIRST_SECONDS:.0f} s")
    return list(took.values()) if len(took) == len(servers) else []


def _disturb(servers: Mapping[str, RealServer], book: Book, ends: float, pids: dict[str, int]) -> None:
    """Stop and freeze one server after the other, in lanes, until it is over; all of them run in the end."""

    def lane(names: Iterator[str]) -> None:
        for name in names:
            server = servers[name]
            for done, word, undone, then in (
                (server.stop, "is stopped", server.start, "is started again"),
                (server.freeze, "is frozen", server.thaw, "goes on"),
            ):
                if time.monotonic() + SEEN_SECONDS > ends or interrupted.is_set():
                    return
                try:
                    book.happens(name, word, done, up=False)
                finally:
                    book.happens(name, then, undone, up=True)
                pids[name] = server.processes()[0]

    with ThreadPoolExecutor(LANES) as threads:
        done = [threads.submit(lane, _again([*servers][number::LANES])) for number in range(LANES)]
    for one in done:
        one.result()


def _again(names: list[str]) -> Iterator[str]:
    while True:
        yield from names


@contextmanager
def _looking(local: Local, book: Book) -> Generator[None]:
    """Read the list once a second, from another thread. On busy cores an answer may be late, which is no verdict."""
    over = threading.Event()

    def look() -> None:
        registry = Registry(local.url)
        while not over.wait(LOOK_SECONDS):
            try:
                book.look(registry.sights())
            except (AssertionError, OSError, http.client.HTTPException):
                book.unread += 1
                registry = Registry(local.url)

    thread = threading.Thread(target=look, name="look", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _busy() -> Generator[None]:
    """Keep every core busy with programs of no use."""
    command = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()
