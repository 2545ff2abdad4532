"""The book of a run: what was asked of the registry, what it said, and whether the database agrees.

Writers and readers hold their connections open, as clients do. Each name has one writer, so that what must be in the
database at the end is known: what was acknowledged last, or what a request without an answer may have made of it.
Every revision of a server carries its number in its version, its description, its metadata and each of its tools: a
server that has one thing of another revision is half a write.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg

from tests.api.transport import Answer, Headers, connect, exchange
from tests.conftest import BASIC, REGISTER, SERVERS
from tests.faults import ANSWER_SECONDS, SUCCESS_SECONDS, within
from tests.proof import Line, at_most, some

WRITERS = 8
READERS = 2
SETTLERS = 4  # who repeat what is ambiguous, at the end
# What a client waits after an answer that is none, for it must not take the machine away from Postgres. The registry
# asks for a second (Retry-After); that would measure the client's patience.
PAUSE_SECONDS = 0.2
# How long a run waits for what has to come.
PATIENCE_SECONDS = 60.0

LOST = 0  # in place of a status: no answer came

# Every server of a run with all that carries its revision; ordered for nobody.
STORED = """
SELECT s.id, s.name, s.version, s.description, s.tools_count, m.author,
       ARRAY(SELECT t.name || ' ' || t.description FROM registry.tools AS t
              WHERE t.server_id = s.id ORDER BY t.position)
  FROM registry.mcp_servers AS s
  LEFT JOIN registry.server_metadata AS m ON m.server_id = s.id
 WHERE starts_with(s.name, %s)
"""

COUNTED = """
SELECT (SELECT count(*) FROM registry.mcp_servers) = (SELECT COALESCE(sum(servers), 0) FROM registry.server_counts)
"""


class Note(NamedTuple):
    """One request, and what came of it."""

    method: str
    status: int
    well: bool  # whether it is one of the statuses that a client has to expect
    seconds: float


@dataclass
class Fate:
    """What is known of one name. A revision of None means that the server is not there."""

    name: str
    id: int | None = None
    revision: int | None = None
    deleted: bool = False  # a DELETE of it has been sent: from then on it may be gone
    # What a request whose outcome nobody knows would have made of it. The name is left alone from then on.
    ambiguous: list[int | None] = field(default_factory=list)


@dataclass
class Verdict:
    """What the comparison with the database came to."""

    acknowledged: int = 0  # names of which every request was answered
    present: int = 0
    missing: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    ambiguous: int = 0
    done: int = 0  # of the ambiguous ones: it had been done all the same
    unsettled: list[str] = field(default_factory=list)


class Client:
    """One client with a connection that stays open."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._connection = connect(self._parts)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, auth: str = BASIC) -> Answer:
        """The answer; one with the status LOST where none came."""
        headers: Headers = [("authorization", auth)]
        if body is not None:
            headers.append(("content-type", "application/json"))
        started = time.perf_counter()
        content = json.dumps(body).encode() if body is not None else b""
        try:
            return exchange(self._connection, self._parts.path, method, path, headers, content)
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return Answer(LOST, {}, b"", time.perf_counter() - started)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def document(name: str, revision: int) -> dict[str, Any]:
    """The registration of a name in its nth revision."""
    said = f"{name} {revision}"
    return {
        "name": name,
        "display_name": name,
        "description": said,
        "server_type": "mock",
        "endpoint_url": "http://localhost:8080",
        "version": f"{revision}.0.0",
        "metadata": {"author": said},
        "tools": [
            {"name": f"tool-{number}", "description": said, "input_schema": {"type": "object"}}
            for number in range(1 + revision % 3)
        ],
    }


def revision_of(row: tuple[Any, ...]) -> int | None:
    """The revision of a stored server (STORED); None where it is half of one."""
    _, name, version, description, count, author, tools = row
    revision = int(version.partition(".")[0])
    said = f"{name} {revision}"
    whole = [f"tool-{number} {said}" for number in range(1 + revision % 3)]
    return revision if (description, author, tools, count) == (said, said, whole, len(whole)) else None


def _row(detail: dict[str, Any]) -> tuple[Any, ...]:
    """A server as the API shows it, in the form of STORED."""
    tools = [f"{tool['name']} {tool['description']}" for tool in detail["tools"]]
    author = (detail["metadata"] or {}).get("author")
    told = (detail["id"], detail["name"], detail["version"], detail["description"])
    return (*told, len(tools), author, tools)


class Ledger:
    """The book of one run against a running stack."""

    def __init__(self, url: str, prefix: str) -> None:
        """`prefix`: what the run's names begin with."""
        self.notes: list[Note] = []
        self.fates: dict[str, Fate] = {}
        self.prefix = prefix
        self._url = url
        self.answers: dict[Client, Answer] = {}  # the last one that each client got
        self.read = 0  # servers that were read, one by one
        self.torn: list[str] = []  # those of them that were half of one, or gone without a reason
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._successes: list[float] = []  # when each successful write was answered

    # -------------------------------------------------------------- the load

    @contextmanager
    def load(self) -> Generator[None]:
        """Write and read for as long as the context lasts. Raises what a client failed of."""
        self._stop.clear()
        with ThreadPoolExecutor(WRITERS + READERS) as pool:
            work: list[Future[None]] = [pool.submit(self._write, number) for number in range(WRITERS)]
            work += [pool.submit(self._read) for _ in range(READERS)]
            try:
                yield
            finally:
                self._stop.set()
            for each in work:
                each.result()

    def await_successes(self, number: int) -> None:
        """Wait for so many further writes to be acknowledged."""
        wanted = len(self._successes) + number
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._successes) >= wanted, PATIENCE_SECONDS), "no write succeeds"

    def first_success(self, moment: float) -> float:
        """Wait for the first write that is acknowledged after a moment; the seconds between the two."""
        with self._changed:
            came = self._changed.wait_for(lambda: self._successes and self._successes[-1] >= moment, PATIENCE_SECONDS)
            assert came, "no write succeeds"
            return next(success for success in self._successes if success >= moment) - moment

    def ask(self, client: Client, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Send a request and note it."""
        answer = self.answers[client] = client.ask(method, path, body)
        well = (
            answer.status in (200, 201, 204)
            or (answer.status == 503 and answer.headers.get("retry-after") == "1")
            or (answer.status == 404 and method == "GET")  # `_read` knows whether it was deleted
        )
        self.notes.append(Note(method, answer.status, well, answer.seconds))
        return answer

    def _write(self, writer: int) -> None:
        """Create servers, replace some, delete some; keep to what is one's own."""
        client = Client(self._url)
        own: list[Fate] = []
        number = 0
        done = True
        while not self._stop.is_set():
            # After a failure only new names are tried, or an outage would use up all that was acknowledged.
            kind = random.random() * (1 if done else 0.7)
            if kind < 0.7 or not own:
                number += 1
                fate = Fate(f"{self.prefix}-{writer}-{number}")
                self.fates[fate.name] = fate
                method = "POST" if kind < 0.5 else "PUT"
                done = self.change(client, fate, method, REGISTER, 1)
            else:
                fate = own.pop(random.randrange(len(own)))
                if kind < 0.9:
                    assert fate.revision is not None
                    done = self.change(client, fate, "PUT", REGISTER, fate.revision + 1)
                else:
                    done = self.change(client, fate, "DELETE", f"{SERVERS}/{fate.id}", None)
                    continue
            if done:
                own.append(fate)
        client.close()

    def change(self, client: Client, fate: Fate, method: str, path: str, revision: int | None) -> bool:
        """Bring a name to a revision; whether that is acknowledged."""
        fate.deleted = fate.deleted or revision is None
        answer = self.ask(client, method, path, None if revision is None else document(fate.name, revision))
        if answer.status not in (200, 201, 204):
            fate.ambiguous.append(revision)
            self._stop.wait(PAUSE_SECONDS)
            return False
        fate.revision = revision
        if revision is not None:
            fate.id = answer.json()["id"]
        with self._changed:
            self._successes.append(time.monotonic())
            self._changed.notify_all()
        return True

    def _read(self) -> None:
        """Read the list, a search, and servers that are there."""
        client = Client(self._url)
        while not self._stop.is_set():
            there = [fate for fate in list(self.fates.values())[-200:] if fate.id is not None]
            fate = random.choice(there) if there and random.random() < 0.5 else None
            page = random.choice([f"{SERVERS}?limit=20", f"{SERVERS}?search={self.prefix}-1&limit=5"])
            answer = self.ask(client, "GET", page if fate is None else f"{SERVERS}/{fate.id}")
            if fate is not None and answer.status in (200, 404):
                self.read += 1
                if not (fate.deleted if answer.status == 404 else revision_of(_row(answer.json())) is not None):
                    self.torn.append(f"{fate.name}: {answer.status} {answer.body!r}")
            elif answer.status != 200:
                self._stop.wait(PAUSE_SECONDS)
        client.close()

    # -------------------------------------------------------------- the end of the run

    def compare(self, database_url: str) -> Verdict:
        """Compare the book with the database, read directly; then repeat what is ambiguous, and compare that."""
        verdict = Verdict()
        stored = self._stored(database_url, verdict)
        for fate in self.fates.values():
            found = stored.get(fate.name)
            if not fate.ambiguous:
                verdict.acknowledged += 1
                if found == fate.revision:
                    verdict.present += 1
                else:
                    verdict.missing.append(f"{fate.name}: {fate.revision} was acknowledged, {found} is there")
                continue
            verdict.ambiguous += 1
            verdict.done += found == fate.ambiguous[-1]
            if found not in (fate.revision, *fate.ambiguous):
                verdict.missing.append(f"{fate.name}: {fate.revision} or {fate.ambiguous} expected, {found} is there")
        verdict.half += [f"{name}: nobody wrote it" for name in stored.keys() - self.fates.keys()]
        self._settle(database_url, verdict)
        return verdict

    def _stored(self, database_url: str, verdict: Verdict) -> dict[str, int]:
        with psycopg.connect(database_url, autocommit=True) as connection:
            rows = connection.execute(STORED, [f"{self.prefix}-"]).fetchall()
            if connection.execute(COUNTED).fetchone() != (True,):
                verdict.half.append("the counted servers are not those that are there")
        stored: dict[str, int] = {}
        for row in rows:
            revision = revision_of(row)
            if revision is None:
                verdict.half.append(str(row))
            stored[row[1]] = revision or 0
        return stored

    def _settle(self, database_url: str, verdict: Verdict) -> None:
        """Repeat every request whose outcome is unknown, as the contract says that one may: by PUT, or DELETE again."""
        open_ = [fate for fate in self.fates.values() if fate.ambiguous]

        def repeat(every: int) -> None:
            client = Client(self._url)
            for fate in open_[every::SETTLERS]:
                revision = fate.ambiguous[-1]
                if revision is None:
                    answer, right = client.ask("DELETE", f"{SERVERS}/{fate.id}"), (204, 404)
                else:
                    answer, right = client.ask("PUT", REGISTER, document(fate.name, revision)), (200, 201)
                if answer.status not in right:
                    verdict.unsettled.append(f"{fate.name}: {answer.status} {answer.body!r}")
            client.close()

        with ThreadPoolExecutor(SETTLERS) as pool:
            list(pool.map(repeat, range(SETTLERS)))
        stored = self._stored(database_url, verdict)
        verdict.unsettled += [
            f"{fate.name}: {fate.ambiguous[-1]} was repeated, {stored.get(fate.name)} is there"
            for fate in open_
            if stored.get(fate.name) != fate.ambiguous[-1]
        ]

    def lines(self, what: str, scale: int, verdict: Verdict, firsts: list[float] | None = None) -> list[Line]:
        """The promises about a run, with what came of it; `firsts` are the first successes after each outage."""
        odd = Counter(f"{note.method} {note.status or 'no answer'}" for note in self.notes if not note.well)
        wrong = verdict.missing + verdict.half
        lines = [
            Line(
                f"{what}: servers of which an acknowledged write is lost or half",
                "0",
                f"{len(wrong)} of {verdict.acknowledged} by {len(self._successes)} writes{some(wrong)}",
                not wrong and verdict.acknowledged == verdict.present > 0,
            ),
            Line(
                f"{what}: answers other than 2xx, 404, 503 with Retry-After",
                "0",
                f"{sum(odd.values())} of {len(self.notes)}{some(f'{n} x {kind}' for kind, n in odd.items())}",
                not odd,
            ),
            Line(
                f"{what}: ambiguous writes that repeating does not settle",
                "0",
                f"{len(verdict.unsettled)} of {verdict.ambiguous}, {verdict.done} had been done"
                + some(verdict.unsettled),
                not verdict.unsettled,
            ),
            at_most(
                f"{what}: the longest request",
                within(ANSWER_SECONDS, scale),
                max(note.seconds for note in self.notes),
                "s",
            ),
        ]
        if self.read:
            told = f"{len(self.torn)} of {self.read}{some(self.torn)}"
            lines.append(Line(f"{what}: reads that show half of a server, or none", "0", told, not self.torn))
        if firsts:
            bar = within(SUCCESS_SECONDS, scale)
            lines.append(at_most(f"{what}: first success after Postgres accepts", bar, max(firsts), "s"))
        return lines
