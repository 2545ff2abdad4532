"""The connection: warm, verified after idling, replaced once, and never waited for without an end."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import snapshot_restore_py
from awslambdaric import lambda_runtime_hooks_runner
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from mcp_registry.aws import db
from mcp_registry.aws.db import Database
from mcp_registry.errors import Unavailable
from tests.conftest import PATIENCE, load_module

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def own(database_url) -> Iterator[Database]:
    database = Database(database_url).begin()
    yield database
    database.close()


@pytest.fixture
def admin(database_url) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def pid(database: Database) -> int:
    row = database.read(PID)
    assert row is not None
    return row[0]


def end(admin: psycopg.Connection, backend: int) -> None:
    """End a server process and wait until it is gone."""
    assert admin.execute("SELECT pg_terminate_backend(%s, 5000)", [backend]).fetchone() == (True,)


class Proxy:
    """A TCP proxy before Postgres that can fall silent: no byte passes, no connection is closed."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        self._open.clear()

    def close(self) -> None:
        self._open.set()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def proxy(database_url) -> Iterator[Proxy]:
    port = conninfo_to_dict(database_url)["port"]
    proxy = Proxy(int(port or 0))
    yield proxy
    proxy.close()


@pytest.fixture
def through(proxy, database_url) -> Iterator[Database]:
    """A database behind the proxy."""
    database = Database(make_conninfo(database_url, port=proxy.port, host="127.0.0.1")).begin()
    yield database
    database.close()


def test_the_connection_stays_warm_between_requests(own):
    first = pid(own)
    assert pid(own.begin()) == first


def test_a_session_has_its_settings(own):
    for name, value in db.SETTINGS.items():
        assert own.read("SELECT current_setting(%(name)s)", {"name": name}) == (value,)


def test_a_connection_that_died_while_it_idled_is_replaced_before_a_write(own, admin, monkeypatch):
    monkeypatch.setattr(db, "TRUSTED_SECONDS", 0.0)
    first = pid(own)
    end(admin, first)
    assert own.begin().write(PID) not in (None, (first,))


@pytest.mark.parametrize("work", ["read", "write"])
def test_a_connection_that_ended_a_moment_ago_is_replaced_before_it_is_used(own, admin, work):
    first = pid(own)
    end(admin, first)
    assert getattr(own, work)(PID) not in (None, (first,))


def test_a_read_whose_connection_is_lost_meanwhile_is_repeated_on_a_new_one(own, admin, monkeypatch):
    first = pid(own)
    end(admin, first)
    monkeypatch.setattr(db, "_stirs", lambda connection: False)  # it ends just after the look
    assert pid(own) != first


def test_a_write_whose_connection_is_lost_meanwhile_is_not_repeated(own):
    """Nobody knows whether it was committed."""
    with pytest.raises(Unavailable):
        own.write("SELECT pg_terminate_backend(pg_backend_pid())")
    assert own.begin().write(PID) is not None


@pytest.mark.parametrize("work", ["read", "write"])
def test_a_silent_network_is_given_up_within_the_deadline(through, proxy, work):
    pid(through)
    proxy.silence()
    started = time.monotonic()
    with pytest.raises(Unavailable):
        getattr(through.begin(1.0), work)(PID)
    # It waited for the deadline, and not for ever: a loose bound, the deadline itself is a second.
    assert 0.9 < time.monotonic() - started < 30


def test_a_connection_that_is_silent_after_idling_is_replaced_in_time(through, proxy, monkeypatch):
    monkeypatch.setattr(db, "TRUSTED_SECONDS", 0.0)
    monkeypatch.setattr(db, "VERIFY_SECONDS", 0.2)
    first = pid(through)
    proxy.silence()
    timer = threading.Timer(0.5, proxy._open.set)
    timer.start()
    assert pid(through.begin()) != first
    timer.join()


def test_a_server_that_takes_no_connection_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unavailable) as raised:
        Database(f"postgresql://registry:secret@127.0.0.1:{port}/x").begin().read(PID)
    assert "secret" not in f"{raised.value} {raised.value.cause}"


def test_a_server_that_accepts_and_says_nothing_is_given_up_within_the_deadline(monkeypatch):
    monkeypatch.setattr(db, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            Database(f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x").begin(PATIENCE).read(PID)
        assert time.monotonic() - started < PATIENCE


def test_a_name_with_several_silent_addresses_is_given_up_within_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = ",".join(f"{one.getsockname()[1]},{two.getsockname()[1]}" for _ in range(4))
        started = time.monotonic()
        with pytest.raises(Unavailable):
            Database(f"host={','.join(['127.0.0.1'] * 8)} port={ports} user=x dbname=x").begin().read(PID)
        # psycopg alone gives each of the eight its three seconds.
        assert time.monotonic() - started < 8 * db.CONNECT_SECONDS


def test_the_second_address_is_taken_where_the_first_refuses(database_url):
    port = conninfo_to_dict(database_url)["port"]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = closed.getsockname()[1]
    both = make_conninfo(database_url, host="127.0.0.1,127.0.0.1", port=f"{refused},{port}")
    database = Database(both).begin()
    assert pid(database)
    database.close()


def test_a_wrong_password_is_unavailable_and_not_told(database_url):
    wrong = make_conninfo(database_url, password="wrong-password")
    try:
        psycopg.connect(wrong).close()
        pytest.skip("this server asks for no password (--postgres)")
    except psycopg.OperationalError:
        pass
    with pytest.raises(Unavailable) as raised:
        Database(wrong).begin().read(PID)
    assert "wrong-password" not in f"{raised.value} {raised.value.cause}"


def test_a_role_out_of_connections_is_unavailable_until_one_is_free(database_url, admin):
    admin.execute("CREATE ROLE crowded LOGIN PASSWORD 'x' CONNECTION LIMIT 1")
    conninfo = make_conninfo(database_url, user="crowded", password="x")
    database = Database(conninfo)
    with psycopg.connect(conninfo), pytest.raises(Unavailable):
        database.begin().read(PID)
    assert database.begin().read(PID) is not None
    database.close()
    admin.execute("DROP ROLE crowded")


@pytest.mark.parametrize(
    ("setting", "state"), [("statement_timeout", "57014"), ("lock_timeout", "55P03")], ids=["statement", "lock"]
)
def test_a_statement_that_waits_too_long_is_unavailable_and_keeps_its_connection(own, admin, setting, state):
    first = pid(own)
    own.write("SELECT set_config(%(name)s, '50ms', false)", {"name": setting})
    with admin.transaction():
        admin.execute("LOCK TABLE registry.server_metadata")
        with pytest.raises(Unavailable) as raised:
            own.write("DELETE FROM registry.server_metadata WHERE server_id = 0 RETURNING 1")
    assert raised.value.cause == state
    assert pid(own) == first


def test_a_primary_that_became_read_only_is_unavailable_and_its_connection_is_dropped(own):
    first = pid(own)
    own.write("SELECT set_config('default_transaction_read_only', 'on', false)")
    with pytest.raises(Unavailable) as raised:
        own.write("DELETE FROM registry.server_metadata RETURNING 1")
    assert raised.value.cause == "25006"
    assert pid(own) != first


def test_a_deadlock_is_undone_and_done_again(own, admin, database_url):
    """Two sessions lock two rows in opposite order; ours is the one that Postgres ends, and it goes through after."""
    admin.execute("CREATE TABLE IF NOT EXISTS public.locks (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    admin.execute("TRUNCATE public.locks")
    admin.execute("INSERT INTO public.locks VALUES (1), (2)")
    # Postgres looks for a deadlock once, so long after a wait has begun: ours closes the circle, and always finds it.
    own.begin(60).write("SELECT set_config('deadlock_timeout', '10ms', false), set_config('lock_timeout', '0', false)")
    admin.execute("SET deadlock_timeout = '60s'")
    both = (
        "WITH one AS MATERIALIZED (UPDATE public.locks SET n = n + 10 WHERE id = 1 RETURNING n),"
        " gate AS MATERIALIZED (SELECT pg_advisory_xact_lock(1) FROM one),"
        " two AS (UPDATE public.locks SET n = n + 10 WHERE id = 2 AND (SELECT count(*) FROM gate) = 1 RETURNING n)"
        " SELECT n FROM two"
    )
    ours, theirs = pid(own), admin.info.backend_pid
    with psycopg.connect(database_url, autocommit=True) as gate, ThreadPoolExecutor(2) as pool:

        def waits(backend: int) -> bool:
            return gate.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", [backend]).fetchone() is not None

        gate.execute("SELECT pg_advisory_lock(1)")
        with admin.transaction():
            admin.execute("UPDATE public.locks SET n = n + 1 WHERE id = 2")
            done = pool.submit(own.write, both)
            while not waits(ours):
                pass
            other = pool.submit(admin.execute, "UPDATE public.locks SET n = n + 1 WHERE id = 1")
            while not waits(theirs):
                pass
            gate.execute("SELECT pg_advisory_unlock(1)")
            other.result()
        assert done.result() == (11,)
    admin.execute("DROP TABLE public.locks")


def test_a_statement_that_is_wrong_is_not_taken_for_an_outage(own):
    with pytest.raises(psycopg.errors.UndefinedTable):
        own.read("SELECT * FROM nowhere")
    assert pid(own)


@pytest.mark.parametrize(
    ("state", "unavailable"),
    [
        ("08006", True), ("53300", True), ("53100", True), ("57P01", True), ("57P03", True), ("57014", True),
        ("58030", True), ("55P03", True), ("40001", True), ("40P01", True), ("25006", True), ("25P03", True),
        ("25P04", True), ("23503", True), ("23505", False), ("22P02", False), ("42P01", False), ("25001", False),
        ("XX000", False),
    ],
)  # fmt: skip
def test_the_state_of_an_error_says_whether_to_come_back(state, unavailable):
    assert db._means_unavailable(psycopg.errors.lookup(state)("")) is unavailable


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (psycopg.OperationalError("host 10.0.0.1"), "OperationalError"),
        (psycopg.InterfaceError("host 10.0.0.1"), "InterfaceError"),
        (psycopg.errors.AdminShutdown("host 10.0.0.1"), "57P01"),
    ],
)
def test_an_outage_is_told_by_its_state_or_else_its_kind_and_never_by_the_drivers_text(error, cause):
    outage = db._translated(error)
    assert isinstance(outage, Unavailable) and outage.cause == cause
    assert "10.0.0.1" not in f"{outage} {outage.cause}"


@pytest.mark.parametrize(
    "error", [psycopg.DataError(""), psycopg.ProgrammingError(""), psycopg.errors.UndefinedTable("")]
)
def test_an_error_that_is_no_outage_stays_what_it_is(error):
    assert db._translated(error) is error


# ------------------------------------------------------------------ snapshots (SnapStart)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's hooks, without those that others have registered."""
    monkeypatch.setattr(snapshot_restore_py, "_before_snapshot_registry", [])
    monkeypatch.setattr(snapshot_restore_py, "_after_restore_registry", [])


@pytest.mark.usefixtures("hooks")
def test_what_is_started_from_a_snapshot_has_no_connection_and_no_dice_of_its_likes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(db, "_database", None)
    db.settle_snapshots()
    before = db.database()
    backend = pid(before)
    connection = before._connection
    lambda_runtime_hooks_runner.run_before_snapshot()
    assert db._database is None and connection is not None and connection.closed
    state = random.getstate()
    registered = [*snapshot_restore_py.get_after_restore()]
    draws: set[float] = set()
    for _ in range(3):
        random.setstate(state)
        snapshot_restore_py._after_restore_registry[:] = registered
        lambda_runtime_hooks_runner.run_after_restore()
        draws.add(random.random())
        assert pid(db.database()) != backend
    assert len(draws) == 3
    db.forget()


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize(("kind", "registered"), [("snap-start", 1), ("on-demand", 0)])
def test_the_hooks_are_registered_where_lambda_takes_a_snapshot(
    kind: str, registered: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
    fresh = load_module(Path(db.__file__), "fresh_db")
    assert len(snapshot_restore_py.get_before_snapshot()) == registered
    # An import opens nothing: what TLS draws there would be the same in all of them.
    assert fresh._database is None


def test_who_cannot_learn_who_it_is_has_no_database_for_now(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/none")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "word")
    with pytest.raises(Unavailable):
        Database("postgresql://127.0.0.1:1/none", "iam", "registry_reader").begin().read(PID)
