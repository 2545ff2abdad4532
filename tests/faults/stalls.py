"""Everything short of a crash: silence, slowness, locks, limits, a read-only server, a full disk.

Each fault is put on while a client asks every route at once, so that each route has a process to itself: in the cloud
no request waits for another one's. What is promised is 503 within 5 s, and success as soon as the fault is over,
without a restart of anything.
"""

from __future__ import annotations

import math
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from local.postgres import Postgres
from mcp_registry.aws import db
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.errors import Unavailable
from tests.api.transport import Answer
from tests.conftest import ADMIN, REGISTER, SERVERS, Local
from tests.faults import ANSWER_SECONDS, stage, within
from tests.faults.ledger import Client, Fate, Ledger, document
from tests.faults.proxy import BLACKHOLE, FORGET, PASS, REFUSE, RESET, Fault, Proxy
from tests.proof import FAR, Line, interrupted, not_tried, some

PASSWORD = "first"
# The registry as somebody who has nothing but CREATE on the database: a superuser is above every limit.
LOGIN = f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON DATABASE registry TO app"
HIS_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'"
WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'"
# Held by nobody's statement: an entry of the audit has one until it is written.
SESSION_LOCKS = (
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND state = 'idle'"
)
FREEZES = 10  # times scale
LOCK_SECONDS = 2.0  # for which a statement waits for a lock; in the cloud a frozen function keeps its locks for longer
FREEZE_WITHIN = 0.02  # seconds; a write takes ten milliseconds
# A body that fills a disk: what is in it does not compress.
BULK_BYTES = 400_000  # in two schemas, of which each may have 256 KiB

SUCCESSES = (200, 201, 204)
# Parts of statements by which the proxy knows them.
REGISTERS, REPLACES, DELETES = "INSERT INTO registry.mcp_servers", "revision = revision + 1", "DELETE FROM registry.mcp"
STATEMENTS = 7  # cases of _cut_at_statements
# Replies are cut after each number of bytes up to this one: that of the look-up has 700, and that of the write follows.
LONGEST_CUT = 900
SETS_STATUS, LISTS, SHOWS = "FOR NO KEY UPDATE", "concat('{\"id\":'", "row_to_json(server)"


class Asked(NamedTuple):
    """An answer, and the route that gave it."""

    route: str
    answer: Answer


class Scene:
    """A stack whose way to Postgres leads through the proxy, and what is known of the servers in it."""

    def __init__(self, server: Postgres, proxy: Proxy, local: Local) -> None:
        self.server, self.proxy, self.local = server, proxy, local
        self.ledger = Ledger(local.url, "stall")
        self.numbers = 0
        self.clients = [Client(local.url) for _ in range(12)]
        self._pool = ThreadPoolExecutor(len(self.clients))
        self._spare: list[Fate] = []
        with self.admin() as admin:
            (folder,) = admin.execute("SHOW data_directory").fetchone() or ("",)
        self.data = Path(folder)
        self.top_up()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self._pool.shutdown()

    def admin(self) -> psycopg.Connection[Any]:
        """A superuser's connection, past the proxy, who writes where nobody may."""
        return psycopg.connect(self.server.url, autocommit=True, options="-c default_transaction_read_only=off")

    def logged(self, words: str) -> int:
        """How often Postgres has logged something."""
        return self.data.with_name(f"{self.data.name}.log").read_text(errors="replace").count(words)

    def new(self) -> Fate:
        """A name that nobody has."""
        self.numbers += 1
        fate = self.ledger.fates[f"stall-{self.numbers}"] = Fate(f"stall-{self.numbers}")
        return fate

    def change(self, fate: Fate, method: str, revision: int | None, client: int = 0) -> Answer:
        """Bring a name to a revision; the answer."""
        path = f"{SERVERS}/{fate.id}" if revision is None else REGISTER
        self.ledger.change(self.clients[client], fate, method, path, revision)
        return self.ledger.answers[self.clients[client]]

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, client: int = 0) -> Answer:
        return self.ledger.ask(self.clients[client], method, path, body)

    def top_up(self) -> None:
        """Have servers that a request may change or delete; whether the fault before is over is judged elsewhere."""

        def enough() -> bool:
            fate = self.new()
            if self.change(fate, "POST", 1).status == 201:
                self._spare.append(fate)
            return len(self._spare) >= 6

        stage.until(enough)

    def take(self) -> Fate:
        """A server that is there, for a request that changes it."""
        return self._spare.pop()

    def ask_all(self) -> list[Asked]:
        """Ask every route at once, each by a client of its own."""
        replaced, deleted, patched, created, put = self.take(), self.take(), self._spare[0], self.new(), self.new()
        id_ = patched.id
        routes: list[tuple[str, Callable[[int], Answer]]] = [
            ("list", lambda n: self.ask("GET", f"{SERVERS}?limit=5", client=n)),
            ("detail", lambda n: self.ask("GET", f"{SERVERS}/{id_}", client=n)),
            ("history", lambda n: self.ask("GET", f"{SERVERS}/{id_}/health", client=n)),
            ("metrics", lambda n: self.ask("GET", "/api/metrics/health", client=n)),
            ("health", lambda n: self.ask("GET", "/health", client=n)),
            ("patch", lambda n: self.ask("PATCH", f"{SERVERS}/{id_}", {"status": "inactive"}, client=n)),
            ("delete", lambda n: self.change(deleted, "DELETE", None, client=n)),
            ("post", lambda n: self.change(created, "POST", 1, client=n)),
            ("put", lambda n: self.change(put, "PUT", 1, client=n)),
            ("replace", lambda n: self.change(replaced, "PUT", 2, client=n)),
        ]
        asked = list(self._pool.map(lambda each: each[1][1](each[0]), enumerate(routes)))
        return [Asked(name, answer) for (name, _), answer in zip(routes, asked, strict=True)]

    def warm(self) -> None:
        """Every route has a connection that was used a moment ago. Here a run that is interrupted ends."""
        if interrupted.is_set():
            raise KeyboardInterrupt
        self.top_up()
        for _ in range(2):
            self.ask_all()
            self.top_up()

    def disconnect(self) -> None:
        """End every backend of the registry; returns when the last one is gone."""
        with self.admin() as admin:
            admin.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM ({HIS_BACKENDS}) AS his")


# ------------------------------------------------------------------ faults that are put on and taken off

Putting = Callable[[Scene], AbstractContextManager[None]]


def _by_proxy(fault: Fault, *, cold: bool = False) -> Putting:
    @contextmanager
    def put(scene: Scene) -> Generator[None]:
        if cold:
            scene.disconnect()
        scene.proxy.set(fault)
        try:
            yield
        finally:
            scene.proxy.set(PASS)

    return put


def _by_statement(on: str, off: str, *, cold: bool = False) -> Putting:
    @contextmanager
    def put(scene: Scene) -> Generator[None]:
        with scene.admin() as admin:
            admin.execute(on.encode())
            if cold:
                scene.disconnect()
            try:
                yield
            finally:
                admin.execute(off.encode())

    return put


def _by_lock(statement: str) -> Putting:
    @contextmanager
    def put(scene: Scene) -> Generator[None]:
        with scene.admin() as admin, admin.transaction(force_rollback=True):
            admin.execute(statement.encode())
            yield

    return put


@contextmanager
def _read_only(scene: Scene) -> Generator[None]:
    """As a primary is after a fail-over, for whoever still has a connection to it."""

    def switch(value: str) -> None:
        with scene.admin() as admin:
            admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            admin.execute("SELECT pg_reload_conf()")

        def seen() -> bool:
            with psycopg.connect(scene.server.url) as fresh:
                return fresh.execute("SHOW default_transaction_read_only").fetchone() == (value,)

        stage.until(seen)

    switch("on")
    try:
        yield
    finally:
        switch("off")


@contextmanager
def _no_connection_left(scene: Scene) -> Generator[None]:
    scene.disconnect()
    with ExitStack() as held:
        with_all = True
        while with_all:
            try:
                held.enter_context(psycopg.connect(scene.server.url, autocommit=True))
            except psycopg.OperationalError:
                with_all = False
        yield
    with scene.admin() as admin:
        few = "SELECT count(*) < 20 FROM pg_stat_activity"
        stage.until(lambda: admin.execute(few).fetchone() == (True,))


@contextmanager
def _stopped_backends(scene: Scene) -> Generator[None]:
    """A machine that has stopped in the middle: the connections are there, and nobody is at the other end.

    Nor is anybody who could take a new one: whoever finds that a connection has idled for too long would ask for it.
    """
    with scene.admin() as admin:
        pids = [scene.server.pid, *(pid for (pid,) in admin.execute(HIS_BACKENDS).fetchall())]
    stage.signal_all(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        stage.signal_all(pids, signal.SIGCONT)


@contextmanager
def _thawed(scene: Scene) -> Generator[None]:
    """Execution environments are frozen, lose their connections, and are thawed for a request."""
    frozen = stage.functions(scene.local)
    stage.signal_all(frozen, signal.SIGSTOP)
    try:
        scene.disconnect()
    finally:
        stage.signal_all(frozen, signal.SIGCONT)
    yield


@contextmanager
def _forgotten(scene: Scene) -> Generator[None]:
    """The network has forgotten connections that have idled: what is sent on them disappears."""
    scene.proxy.set(FORGET)
    time.sleep(db.TRUSTED_SECONDS + 0.1)  # what makes them idle is time, which cannot be had otherwise
    try:
        yield
    finally:
        scene.proxy.set(PASS)


SLOW_TRIGGER = """
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT ON registry.server_metadata FOR EACH ROW EXECUTE FUNCTION public.slow()
"""
CONFLICT_TRIGGER = """
CREATE FUNCTION public.conflict() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION ''conflict'' USING ERRCODE = ''40001''; END';
CREATE TRIGGER conflict BEFORE INSERT ON registry.server_metadata FOR EACH ROW EXECUTE FUNCTION public.conflict()
"""

# What is done, how, and which routes answer 503 (all: None; nobody: an empty set).
EVERYONE: frozenset[str] | None = None
NOBODY: frozenset[str] = frozenset()
WRITES = frozenset({"patch", "delete", "post", "put", "replace"})
CHANGES = frozenset({"patch", "delete", "replace"})
INSERTS = frozenset({"post", "put", "replace"})
FAULTS: tuple[tuple[str, Putting, frozenset[str] | None], ...] = (
    ("nothing listens", _by_proxy(REFUSE), EVERYONE),
    ("every connection is reset", _by_proxy(RESET), EVERYONE),
    ("silent network, new connections", _by_proxy(BLACKHOLE, cold=True), EVERYONE),
    ("silent network, in the middle of a reply", _by_proxy(Fault("stall", after=30)), EVERYONE),
    ("postmaster and backends stopped (SIGSTOP)", _stopped_backends, EVERYONE),
    ("slow network, 200 ms each way, warm", _by_proxy(Fault("slow", seconds=0.2)), NOBODY),
    ("slow network, 200 ms each way, new connections", _by_proxy(Fault("slow", seconds=0.2), cold=True), NOBODY),
    ("max_connections reached", _no_connection_left, EVERYONE),
    (
        "connection limit of the role reached",
        _by_statement("ALTER ROLE app CONNECTION LIMIT 0", "ALTER ROLE app CONNECTION LIMIT -1", cold=True),
        EVERYONE,
    ),
    (
        "the password fits no more",
        _by_statement("ALTER ROLE app PASSWORD 'second'", f"ALTER ROLE app PASSWORD '{PASSWORD}'", cold=True),
        EVERYONE,
    ),
    (
        "a table is locked",
        _by_lock("LOCK TABLE registry.mcp_servers IN ACCESS EXCLUSIVE MODE"),
        WRITES | {"list", "detail", "history", "metrics"},
    ),
    ("rows are locked", _by_lock("SELECT FROM registry.mcp_servers FOR UPDATE"), CHANGES),
    (
        "a statement takes too long",
        _by_statement(SLOW_TRIGGER, "DROP FUNCTION public.slow CASCADE"),
        INSERTS,
    ),
    (
        "a transaction takes too long (25P04)",
        _by_statement(
            SLOW_TRIGGER + "; ALTER ROLE app SET transaction_timeout = '300ms'",
            "DROP FUNCTION public.slow CASCADE; ALTER ROLE app RESET transaction_timeout",
            cold=True,
        ),
        INSERTS,
    ),
    (
        "a serialization failure each time",
        _by_statement(CONFLICT_TRIGGER, "DROP FUNCTION public.conflict CASCADE"),
        INSERTS,
    ),
    ("the server is read-only (25006)", _read_only, WRITES),
    ("connections ended while idle", _thawed, NOBODY),
    ("connections forgotten while idle", _forgotten, NOBODY),
)


def prove(scale: int) -> list[Line]:
    """Every fault once; in longer runs twice, with each cut at every byte."""
    rounds = 1 if scale == 1 else 2
    with stage.postgres() as server:
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(LOGIN)
        with Proxy(server.port) as proxy:
            url = proxy.url(server.url.replace("registry:", "app:", 1))
            with stage.stack(_with_login(url), **stage.QUIET) as local:
                scene = Scene(server, proxy, local)
                try:
                    lines = [_fault(scene, scale, rounds, *fault) for fault in FAULTS]
                    proofs = (_failed_over, _deadlock, _serialization, _full_disk, _full_log)
                    lines += [_worst([proof(scene, scale) for _ in range(rounds)]) for proof in proofs]
                    lines += [_frozen(scene, FREEZES * min(scale, FAR)), *_cuts(scene, scale)]
                    scene.proxy.set(PASS)
                    return lines + scene.ledger.lines("all of these", scale, scene.ledger.compare(server.url))
                finally:
                    scene.close()


def _with_login(url: str) -> str:
    head, _, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://app:{PASSWORD}@{tail}"


def _worst(lines: list[Line]) -> Line:
    """Of the same line of several rounds, one that is not met; else the last."""
    return next((line for line in lines if not line.met), lines[-1])


def _fault(scene: Scene, scale: int, rounds: int, what: str, put: Putting, failing: frozenset[str] | None) -> Line:
    during: list[Asked] = []
    after: list[Asked] = []
    for _ in range(rounds):
        scene.warm()
        with put(scene):
            during += scene.ask_all()
        after += scene.ask_all()
    return _judged(what, scale, during, after, failing)


def _judged(
    what: str, scale: int, during: Iterable[Asked], after: Iterable[Asked], failing: frozenset[str] | None
) -> Line:
    during, after = list(during), list(after)
    seconds, bar = max(each.answer.seconds for each in during), within(ANSWER_SECONDS, scale)
    right = all(
        _is_unavailable(answer) if failing is None or route in failing else answer.status in SUCCESSES
        for route, answer in during
    )
    over = all(answer.status in SUCCESSES for _, answer in after)
    expected = "2xx" if failing == NOBODY else "503" if failing is None else f"503 to {', '.join(sorted(failing))}"
    return Line(
        what,
        f"{expected} in {bar:g} s, then 2xx",
        f"{_statuses(during)} in {seconds:.3g} s, then {_statuses(after)}",
        right and over and seconds <= bar,
    )


def _is_unavailable(answer: Answer) -> bool:
    return answer.status == 503 and answer.headers.get("retry-after") == "1"


def _statuses(asked: Iterable[Asked]) -> str:
    return ", ".join(f"{n} x {status}" for status, n in sorted(Counter(each.answer.status for each in asked).items()))


# ------------------------------------------------------------------ two sessions in each other's way


def _failed_over(scene: Scene, scale: int) -> Line:
    """The connections that there are have become read-only, new ones are not: as after a fail-over of the cluster.

    What finds that out is answered 503, and drops its connection: that costs one 503 for each connection. Of several
    processes of a function one may be quick enough to serve two of the requests, so that another finds out later.
    """
    scene.warm()
    with _read_only(scene), scene.admin() as admin:
        held = len(admin.execute(HIS_BACKENDS).fetchall())
        admin.execute("ALTER ROLE app SET default_transaction_read_only = off")
        try:
            during = after = scene.ask_all()
            for _ in range(held):
                after = scene.ask_all()
                if all(each.answer.status in SUCCESSES for each in after):
                    break
                during += after
        finally:
            admin.execute("ALTER ROLE app RESET default_transaction_read_only")
    scene.disconnect()  # those that were made meanwhile
    scene.top_up()
    refused = [each for each in during if each.answer.status not in SUCCESSES]
    others = [each for each in during if each.route not in WRITES]
    line = _judged("a fail-over: connections are read-only, new ones are not", scale, refused + others, after, WRITES)
    found = {each.route for each in refused}
    enough = len(refused) <= held and found >= CHANGES - INSERTS and not found.isdisjoint(INSERTS)
    return line._replace(met=line.met and enough)


def _frozen(scene: Scene, freezes: int) -> Line:
    """Functions are frozen in the middle of a write (SIGSTOP): who writes the same server is not held up by them."""
    waits: list[float] = []
    wrong: list[str] = []
    database = Database(scene.server.url)
    with scene.admin() as admin, ThreadPoolExecutor(1) as pool:
        for number in range(freezes):
            name, client = f"frozen-{number % 20}", Client(scene.local.url)
            writing = pool.submit(client.ask, "PUT", REGISTER, document(name, 2 * number + 1))
            time.sleep(random.random() * FREEZE_WITHIN)  # the freeze may come at any moment of it
            frozen = stage.functions(scene.local)
            stage.signal_all(frozen, signal.SIGSTOP)
            try:
                began = time.monotonic()
                servers.replace(database.begin(), ADMIN, registration.parse(document(name, 2 * number + 2)))
                waits.append(time.monotonic() - began)
                if admin.execute(SESSION_LOCKS).fetchone() != (0,):
                    wrong.append("a session holds an advisory lock")
            except Unavailable as error:
                wrong.append(f"unavailable ({error.cause})")
            finally:
                stage.signal_all(frozen, signal.SIGCONT)
            answer = writing.result()
            if answer.status not in SUCCESSES:
                wrong.append(f"afterwards {answer.status}")
            client.close()
    database.close()
    return Line(
        f"functions frozen in the middle of a write, {freezes} times: others wait",
        f"<= {LOCK_SECONDS:g} s",
        f"{max(waits, default=math.inf):.2g} s{some(wrong)}",
        not wrong and max(waits, default=math.inf) <= LOCK_SECONDS,
    )


def _deadlock(scene: Scene, scale: int) -> Line:
    """A delete holds the server and wants its tools; somebody has the tools and wants the server."""
    scene.warm()
    fate, seen = scene.take(), scene.logged("deadlock detected")
    with scene.admin() as admin, ThreadPoolExecutor(1) as pool:
        admin.execute("SET deadlock_timeout = '60s'")  # so that the other one is ended
        with admin.transaction(force_rollback=True):
            admin.execute("SELECT FROM registry.tools WHERE server_id = %s FOR UPDATE", [fate.id])
            deleting = pool.submit(scene.change, fate, "DELETE", None)
            with scene.admin() as watch:
                stage.until(lambda: watch.execute(WAITING).fetchone() == (True,))
            admin.execute("UPDATE registry.mcp_servers SET display_name = 'x' WHERE id = %s", [fate.id])
        answer = deleting.result()
    during = [Asked("delete", answer)]
    line = _judged("a deadlock: the statement is done again", scale, during, scene.ask_all(), NOBODY)
    provoked = scene.logged("deadlock detected") > seen
    return line._replace(met=line.met and provoked, figure=line.figure if provoked else "no deadlock came of it")


def _serialization(scene: Scene, scale: int) -> Line:
    """A serializable statement waits for a row that somebody changes."""
    what, words = "a serialization failure once: the statement is done again", "could not serialize access"
    serializable = _by_statement(
        "ALTER DATABASE registry SET default_transaction_isolation = 'serializable'",
        "ALTER DATABASE registry RESET default_transaction_isolation",
        cold=True,
    )
    with serializable(scene):
        scene.warm()
        fate, seen = scene.take(), scene.logged(words)
        with scene.admin() as admin, ThreadPoolExecutor(1) as pool:
            with admin.transaction():
                admin.execute("UPDATE registry.mcp_servers SET updated_at = now() WHERE id = %s", [fate.id])
                setting = pool.submit(scene.ask, "PATCH", f"{SERVERS}/{fate.id}", {"status": "inactive"})
                with scene.admin() as watch:
                    stage.until(lambda: watch.execute(WAITING).fetchone() == (True,))
            answer = setting.result()
        provoked = scene.logged(words) > seen
    scene.disconnect()
    line = _judged(what, scale, [Asked("patch", answer)], scene.ask_all(), NOBODY)
    return line._replace(met=line.met and provoked, figure=line.figure if provoked else "no failure came of it")


# ------------------------------------------------------------------ cut at a statement, or at a byte


def _cuts(scene: Scene, scale: int) -> list[Line]:
    rounds = min(scale, FAR)
    before: list[str] = []
    dropped: list[str] = []
    for _ in range(rounds):
        scene.warm()
        before += _cut_at_statements(scene, "cut on")
        scene.warm()
        dropped += _cut_at_statements(scene, "drop reply")
    places = range(1, LONGEST_CUT + 1)
    lengths = random.sample(places, 25) if scale == 1 else places
    torn: list[str] = []
    unavailable = 0
    for length in lengths:
        wrong, status = _cut_after(scene, length)
        torn += wrong
        unavailable += status == 503
    if not unavailable:
        torn.append("no write was cut off")
    cases = STATEMENTS * rounds
    return [
        _counted("cut before the server sees a statement", "a write: 503, not done; a read: 200", before, cases),
        _counted("the reply to a statement is lost", "a write: 503, done; a read: 200", dropped, cases),
        _counted(
            f"a reply is cut after 1 to {LONGEST_CUT} bytes ({unavailable} writes: 503)",
            "a read 200, a write 503 or 2xx, then 2xx",
            torn,
            2 * len(lengths),
        ),
    ]


def _counted(what: str, bar: str, wrong: list[str], cases: int) -> Line:
    return Line(what, bar, f"{len(wrong)} of {cases} other{some(wrong)}", not wrong)


def _cut_at_statements(scene: Scene, kind: Any) -> list[str]:
    """Each kind of statement once; what was not as it should be."""
    wrong: list[str] = []
    done = kind == "drop reply"

    def cut(what: str, pattern: str, send: Callable[[], Answer], status: int) -> None:
        fired = scene.proxy.fired
        scene.proxy.set(Fault(kind, pattern=pattern))
        answer = send()
        scene.proxy.set(PASS)
        if scene.proxy.fired != fired + 1:
            wrong.append(f"{what}: the statement did not come by")
        if answer.status != status or (status == 503 and not _is_unavailable(answer)):
            wrong.append(f"{what}: {answer.status}")

    def check(what: str, found: object, expected: object) -> None:
        if found != expected:
            wrong.append(f"{what}: {found}, not {expected}")

    for method in ("POST", "PUT"):
        fate = scene.new()
        cut(method, REGISTERS, lambda: scene.change(fate, method, 1), 503)  # noqa: B023
        check(f"after {method}", _revision(scene, fate), 1 if done else None)
        check(f"{method} repeated", scene.change(fate, "PUT", 1).status, 200 if done else 201)
    fate = scene.take()
    cut("replace", REPLACES, lambda: scene.change(fate, "PUT", 2), 503)
    check("after replace", _revision(scene, fate), 2 if done else 1)
    check("replace repeated", scene.change(fate, "PUT", 2).json()["result"], "unchanged" if done else "updated")
    fate = scene.take()
    cut("delete", DELETES, lambda: scene.change(fate, "DELETE", None), 503)
    check("after delete", _revision(scene, fate), None if done else 1)
    # Past the book, which knows no 404 to a delete.
    check("delete repeated", scene.clients[0].ask("DELETE", f"{SERVERS}/{fate.id}").status, 404 if done else 204)
    cut("list", LISTS, lambda: scene.ask("GET", f"{SERVERS}?limit=5"), 200)
    fate = scene.take()
    cut("detail", SHOWS, lambda: scene.ask("GET", f"{SERVERS}/{fate.id}"), 200)
    cut("patch", SETS_STATUS, lambda: scene.ask("PATCH", f"{SERVERS}/{fate.id}", {"status": "inactive"}), 503)
    status = scene.ask("GET", f"{SERVERS}/{fate.id}").json()["status"]
    check("after patch", status, "inactive" if done else "active")
    return wrong


def _cut_after(scene: Scene, length: int) -> tuple[list[str], int]:
    """What was not as it should be, and the status of the write."""
    wrong: list[str] = []
    status = 0
    for method in ("GET", "PUT"):
        fired = scene.proxy.fired
        scene.proxy.set(Fault("cut after", after=length))
        fate = scene.new()
        answer = scene.ask("GET", f"{SERVERS}?limit=20") if method == "GET" else scene.change(fate, "PUT", 1)
        scene.proxy.set(PASS)
        status = answer.status
        if scene.proxy.fired != fired + 1:
            wrong.append(f"{method}: nothing was cut after {length} bytes")
        if not (answer.status in SUCCESSES or (method == "PUT" and _is_unavailable(answer))):
            wrong.append(f"{method} cut after {length} bytes: {answer.status}")
        following = scene.ask("GET", f"{SERVERS}?limit=20") if method == "GET" else scene.change(scene.new(), "PUT", 1)
        if following.status not in SUCCESSES:
            wrong.append(f"{method} after one that was cut after {length} bytes: {following.status}")
    return wrong, status


def _revision(scene: Scene, fate: Fate) -> int | None:
    with scene.admin() as admin:
        row = admin.execute("SELECT version FROM registry.mcp_servers WHERE name = %s", [fate.name]).fetchone()
    return int(row[0].partition(".")[0]) if row else None


# ------------------------------------------------------------------ no room


def _full_disk(scene: Scene, scale: int) -> Line:
    """The tools are in a tablespace on a disk that is full."""
    what = "a tablespace is full (53100): reads go on"
    try:
        with stage.small_disk(scene.data.with_name("small"), 24, scene.data) as disk:
            return _on_full_disk(scene, scale, what, disk)
    except stage.NoMount as error:
        return not_tried(what, "503", str(error))


def _on_full_disk(scene: Scene, scale: int, what: str, disk: Path) -> Line:
    ballast = disk / "ballast"
    with scene.admin() as admin:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{disk}'".encode())
        admin.execute("ALTER TABLE registry.tools SET TABLESPACE small")
        ballast.write_bytes(b"\1" * 18_000_000)
        during: list[Asked] = []
        for _ in range(60):
            asked = Asked("bulk", scene.ask("PUT", REGISTER, _bulk(scene)))
            if asked.answer.status != 201:
                during.append(asked)
            if len(during) == 3:
                break
        during += [Asked("list", scene.ask("GET", f"{SERVERS}?limit=5")), Asked("health", scene.ask("GET", "/health"))]
        ballast.unlink()
        after = [Asked("bulk", scene.ask("PUT", REGISTER, _bulk(scene))), *scene.ask_all()]
        scene.top_up()
        admin.execute("ALTER TABLE registry.tools SET TABLESPACE pg_default")
        admin.execute("DROP TABLESPACE small")
        # The next round has as much room.
        admin.execute("DELETE FROM registry.mcp_servers WHERE starts_with(name, 'bulk-')")
        admin.execute("VACUUM FULL registry.tools")
    return _judged(what, scale, during, after, frozenset({"bulk"}))


def _bulk(scene: Scene) -> dict[str, Any]:
    """A registration of half a megabyte, under a name outside of the book."""
    scene.numbers += 1
    sent = document(f"bulk-{scene.numbers}", 1)
    schemas = [{"type": "object", "title": secrets.token_hex(BULK_BYTES // 4)} for _ in range(2)]
    sent["tools"] = [{"name": f"bulk-{n}", "input_schema": schema} for n, schema in enumerate(schemas)]
    return sent


def _full_log(scene: Scene, scale: int) -> Line:
    """The write-ahead log is on a disk that is full: Postgres gives up, and comes back when there is room."""
    what = "the write-ahead log's disk is full: PANIC, and back when there is room"
    log = scene.data / "pg_wal"
    used = sum(path.stat().st_size for path in log.rglob("*") if path.is_file()) // 2**20
    try:
        with stage.small_disk(scene.data.with_name("log"), used + 24, scene.data) as disk:
            scene.server.stop()
            _move(log, disk / "pg_wal")
            try:
                return _on_full_log(scene, scale, what, disk)
            finally:
                scene.server.stop()
                log.unlink()
                stage.enlarge(disk, used + 500)
                _move(disk / "pg_wal", log, link=False)
                scene.server.start()
                scene.proxy.aim(scene.server.port)
    except stage.NoMount as error:
        return not_tried(what, "503", str(error))


def _move(folder: Path, to: Path, *, link: bool = True) -> None:
    """Move a folder to another disk with its owners and modes, and leave a link."""
    stage.run("cp", "-a", str(folder), str(to))
    if link:
        stage.run("rm", "-r", str(folder))
        folder.symlink_to(to)


def _on_full_log(scene: Scene, scale: int, what: str, disk: Path) -> Line:
    scene.server.start()
    scene.proxy.aim(scene.server.port)
    scene.warm()
    panics = scene.logged("PANIC")
    during: list[Asked] = []
    for _ in range(200):
        asked = Asked("put", scene.change(scene.new(), "PUT", 1))
        if asked.answer.status != 201:
            during.append(asked)
            break
        try:
            with scene.admin() as admin:
                admin.execute("SELECT pg_switch_wal()")
        except psycopg.OperationalError:
            continue  # it is down: the next write says so
    during += scene.ask_all()
    stage.enlarge(disk, 1_000)
    # It may have started itself again meanwhile, and may be about to give up once more.
    stage.until(lambda: not stage.runs(scene.server) or stage.accepts(scene.server.url))
    if not stage.runs(scene.server):
        scene.server.start()
        scene.proxy.aim(scene.server.port)
    scene.top_up()
    after = scene.ask_all()
    line = _judged(what, scale, during, after, EVERYONE)
    panicked = scene.logged("PANIC") > panics
    return line._replace(met=line.met and panicked, figure=line.figure if panicked else "no PANIC came of it")
