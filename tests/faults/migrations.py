"""Migrations: twelve at once, one killed at each of its statements, and readers while one has to wait for its lock."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from local.postgres import Postgres
from local.schema import dump
from tests.conftest import ROOT, migrate
from tests.faults import stage, within
from tests.proof import FAR, Line, at_most, some

RUNS = 12
PATIENCE_SECONDS = 60.0  # for a run that nobody stops
KILLS = 3  # in the bounded run, beside those at the last statement of each transaction
# Of kills at the same time: each has a database of its own, and mostly waits for a process to start.
KILLERS = 2
READERS = 4
PAUSE_SECONDS = 0.005  # of a reader between two SELECTs, so that the readers are not the load
LONGEST_WAIT_SECONDS = 0.6
# A reader that took this long has stood behind the migration; without one it takes 0.3 ms.
STOOD_SECONDS = 0.05
# So often the migration is seen to wait before the long reader ends: it has stepped back and come again. One that never
# steps back is let through after a while, and by then the readers have waited for too long.
ATTEMPTS = 2
STANDS_SECONDS = 8.0
FREE_AFTER_SECONDS = 0.4  # of the half second that an attempt has

# Makes a run of the migrations stop at its nth statement, where its connection has set faults.place: there it waits
# for an advisory lock that the test holds. CREATE, ALTER, DROP, GRANT and REVOKE count when they are done, and so do
# INSERT, UPDATE and DELETE in the tables that the run has made, the ledger among them. What CREATE EXTENSION runs is
# part of that one statement. SET fires no trigger, nor does CREATE ROLE in the DO of roles.sql: those are no places.
PLACES = """
CREATE SCHEMA faults;
CREATE SEQUENCE faults.places;
CREATE TABLE faults.passed (place bigint, transaction xid8, statement text);

-- The lock is waited for as long as the test likes: the half second of the migrator is for its own locks.
CREATE FUNCTION faults.pass(statement text) RETURNS void LANGUAGE plpgsql SET lock_timeout = 0 AS $$
DECLARE
    place bigint := nextval('faults.places');
BEGIN
    INSERT INTO faults.passed VALUES (place, pg_current_xact_id(), statement);
    IF place = current_setting('faults.place', true)::bigint THEN
        PERFORM pg_advisory_xact_lock(1);
    END IF;
END
$$;

CREATE FUNCTION faults.change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM faults.pass(TG_OP || ' ' || TG_TABLE_NAME);
    RETURN NULL;
END
$$;

CREATE FUNCTION faults.define() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    made text;
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                WHERE in_extension OR object_identity LIKE 'faults on %') THEN
        RETURN;
    END IF;
    FOR made IN SELECT object_identity FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
        EXECUTE 'CREATE TRIGGER faults AFTER INSERT OR UPDATE OR DELETE ON ' || made
             || ' FOR EACH STATEMENT EXECUTE FUNCTION faults.change()';
    END LOOP;
    PERFORM faults.pass(TG_TAG);
END
$$;

CREATE EVENT TRIGGER faults ON ddl_command_end EXECUTE FUNCTION faults.define();
"""
PASSED = "SELECT place, place = max(place) OVER (PARTITION BY transaction), statement FROM faults.passed ORDER BY place"

# What is in the schemas registry and metrics, with its rights and the number of its rows: as much as pg_dump tells, in
# 10 ms. Without the triggers of PLACES.
CONTENT = """
WITH ours AS (SELECT * FROM pg_namespace WHERE nspname IN ('registry', 'metrics')),
relations AS (SELECT c.* FROM pg_class AS c JOIN ours ON ours.oid = c.relnamespace)
SELECT concat_ws(' ', 'schema', nspname, ARRAY(SELECT unnest(nspacl)::text ORDER BY 1))
  FROM ours
 UNION ALL
SELECT concat_ws(' ', 'relation', oid::regclass, relkind, relpersistence, relreplident, relispartition, reloptions,
                 pg_get_partkeydef(oid), CASE WHEN relkind IN ('i', 'I') THEN pg_get_indexdef(oid) END,
                 ARRAY(SELECT unnest(relacl)::text ORDER BY 1))
  FROM relations
 UNION ALL
SELECT concat_ws(' ', 'column', attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull,
                 attidentity, attgenerated, attstorage, attcollation, pg_get_expr(adbin, adrelid),
                 ARRAY(SELECT unnest(attacl)::text ORDER BY 1))
  FROM relations AS r
  JOIN pg_attribute AS a ON a.attrelid = r.oid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attnum > 0
 UNION ALL
SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
  FROM pg_constraint
 WHERE connamespace IN (SELECT oid FROM ours)
 UNION ALL
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), tgenabled)
  FROM relations AS r
  JOIN pg_trigger AS t ON t.tgrelid = r.oid
 WHERE NOT tgisinternal AND tgname <> 'faults'
 UNION ALL
SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), ARRAY(SELECT unnest(proacl)::text ORDER BY 1))
  FROM pg_proc
 WHERE pronamespace IN (SELECT oid FROM ours) AND prokind <> 'a'
 UNION ALL
SELECT concat_ws(' ', 'type', oid::regtype, typtype, ARRAY(SELECT unnest(typacl)::text ORDER BY 1),
                 ARRAY(SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder))
  FROM pg_type AS t
 WHERE typnamespace IN (SELECT oid FROM ours)
 UNION ALL
SELECT concat_ws(' ', 'extension', extname, extversion, extnamespace::regnamespace)
  FROM pg_extension
"""

TABLES = """
SELECT c.oid::regclass::text
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE nspname IN ('registry', 'metrics') AND relkind IN ('r', 'p')
"""

CONNECTED = """
SELECT pid
  FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# Of pg_stat_activity a transaction sees what it was at first; of the locks it sees what is.
WAITING = """
SELECT count(*)
  FROM pg_locks
 WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND locktype = %(kind)s AND NOT granted
"""

READ = "SELECT count(*) FROM registry.mcp_servers"
# Since when a migration has been waiting for the table; the moment tells one attempt from the next.
STANDS = """
SELECT waitstart::text
  FROM pg_locks
 WHERE relation = 'registry.mcp_servers'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted
   AND waitstart IS NOT NULL
"""

TABLES_READ = ("registry.mcp_servers", "registry.tools")

Content = frozenset[str]

_numbers = count(1)


def prove(scale: int) -> list[Line]:
    """A crowd of migrations, two waits, kills at some statements; in longer runs more of the former, and at each."""
    # No power cut is among these faults, so nothing has to be durable.
    with stage.postgres(durable=False) as server:
        return [_crowds(server, max(1, scale // 5)), _kills(server, scale), *_waits(server, min(scale, FAR))]


def _crowds(server: Postgres, rounds: int) -> Line:
    """Twelve processes on an empty database, which all begin in the same moment."""
    with _database(server) as url, _admin(url) as admin:
        migrate.migrate(url)
        alone, schema = _content(admin), dump(url)
    wrong: list[str] = []
    codes: list[int] = []
    for _ in range(rounds):
        with _database(server) as url, _admin(url) as admin:
            ended, told = _crowd(url, admin)
            codes += ended
            wrong += told
            if _content(admin) != alone or dump(url) != schema:
                wrong.append("another schema than that of one run")
    what = f"{RUNS} migrations at once on an empty database, {rounds} rounds"
    figure = f"{codes.count(0)} of {len(codes)} exit with 0{some(wrong)}"
    return Line(what, "all exit with 0, each applied once, one schema", figure, not wrong and not any(codes))


def _crowd(url: str, admin: psycopg.Connection[Any]) -> tuple[list[int], list[str]]:
    """The exit codes of twelve, and what is wrong with what they said."""
    with ExitStack() as started:
        # Each first asks whether there is a ledger, and has to wait for that until all twelve are there.
        with admin.transaction():
            admin.execute("LOCK TABLE pg_namespace IN ACCESS EXCLUSIVE MODE")
            runs = [started.enter_context(_run(url)) for _ in range(RUNS)]
            stage.until(lambda: _waiting(admin, "relation") >= RUNS or _has_ended(runs))
        told = [run.communicate(timeout=PATIENCE_SECONDS) for run in runs]
    wrong = sorted({" ".join(error.split()) for _, error in told if error})
    applied = sorted(line for out, _ in told for line in out.splitlines() if line != "up to date")
    if applied != [f"applied {migration.name}" for migration in migrate.migrations()]:
        wrong.append(", ".join(applied) or "none was applied")
    return [run.returncode for run in runs], wrong


class Place(NamedTuple):
    """Where a run of the migrations is killed: after its nth statement, which may be the last of a transaction."""

    number: int
    is_last: bool
    statement: str


def _kills(server: Postgres, scale: int) -> Line:
    """`python sql/migrate.py` is killed while it stands at a statement: what is there is whole, and can go on."""
    with _database(server) as template, tempfile.TemporaryDirectory() as folder:
        with _admin(template) as admin:
            admin.execute(PLACES)
        with _database(server, template) as url, _admin(url) as admin:
            wholes = _wholes(url, admin, Path(folder))
        with _database(server, template) as url, _admin(url) as admin:
            migrate.migrate(url)
            places = [Place(*row) for row in admin.execute(PASSED).fetchall()]
        chosen = places
        if scale == 1:
            others = [place for place in places if not place.is_last]
            chosen = [place for place in places if place.is_last] + random.sample(others, KILLS)
        with ThreadPoolExecutor(KILLERS) as pool:
            found = list(pool.map(lambda place: _kill(server, template, place, wholes), chosen))
    wrong = [each for each in found if each]
    what = f"migrator killed at {len(chosen)} of its {len(places)} statements"
    figure = f"{len(chosen) - len(wrong)} of {len(chosen)}{some(wrong)}"
    return Line(what, "all before or after a file, and the next run ends whole", figure, not wrong)


def _wholes(url: str, admin: psycopg.Connection[Any], folder: Path) -> list[Content]:
    """What may be in the database: nothing, the ledger, then one migration after the other, and the rights."""
    wholes = [_content(admin)]
    migrate.migrate(url, folder)
    wholes.append(_content(admin))
    for path in sorted(migrate.MIGRATIONS.glob("*.sql")):
        shutil.copy(path, folder)
        migrate.migrate(url, folder)
        wholes.append(_content(admin))
    migrate.migrate(url)
    wholes.append(_content(admin))
    assert len(set(wholes)) == len(wholes), "the fingerprint does not tell one from the next"
    return wholes


def _kill(server: Postgres, template: str, place: Place, wholes: list[Content]) -> str:
    """What is wrong after a kill at this place; nothing where nothing is."""
    name = f"statement {place.number} ({place.statement})"
    with _database(server, template) as url, _admin(url) as admin:
        admin.execute("SELECT pg_advisory_lock(1)")
        with _run(f"{url}?options=-c%20faults.place%3D{place.number}") as run:
            stage.until(lambda: _waiting(admin, "advisory") or _has_ended([run]))
            if _has_ended([run]):
                return f"{name}: never stood there"
            run.kill()
            run.wait()
        admin.execute("SELECT pg_advisory_unlock(1)")
        # Its backend runs what it was sent, and finds that nobody listens.
        stage.until(lambda: not admin.execute(CONNECTED).fetchall())
        if _content(admin) not in wholes:
            return f"{name}: between"
        try:
            migrate.migrate(url)
        except (migrate.MigrationError, psycopg.Error) as error:
            return f"{name}: the next run fails: {' '.join(str(error).split())}"
        return "" if _content(admin) == wholes[-1] else f"{name}: the next run ends in another schema"


def _waits(server: Postgres, scale: int) -> list[Line]:
    """A migration has to wait for a table that a long transaction has read, and others go on reading.

    In every second round it needs another table too, which another long transaction has read.
    """
    rounds = 2 * scale
    done = threading.Event()
    attempts, wrong = 0, list[str]()
    with _database(server) as url, tempfile.TemporaryDirectory() as folder:
        # The command takes its migrations from beside itself.
        sql = Path(folder) / "sql"
        shutil.copytree(ROOT / "sql", sql)
        migrate.migrate(url)
        last = len(migrate.migrations())
        with ThreadPoolExecutor(READERS) as pool:
            readers = [pool.submit(_read, url, done) for _ in range(READERS)]
            try:
                for number in range(last + 1, last + rounds + 1):
                    tables = TABLES_READ[: 1 + number % 2]
                    statements = [f"ALTER TABLE {table} ADD COLUMN column_{number} integer;" for table in tables]
                    text = "\n".join([f"-- locks: {', '.join(tables)}", *statements])
                    (sql / "migrations" / f"{number:04}_waits.sql").write_text(text)
                    seen, told = _wait(url, sql / "migrate.py", tables)
                    attempts += seen
                    if told != f"applied {number:04}_waits":
                        wrong.append(told)
            finally:
                done.set()
            taken = [seconds for each in readers for seconds in each.result()]
    what = f"migration behind a long reader, {rounds} times"
    stood = sum(seconds > STOOD_SECONDS for seconds in taken)
    figure = f"seen waiting {attempts} times; {stood} of {len(taken)} SELECTs waited for it{some(wrong)}"
    met = attempts >= ATTEMPTS * rounds and stood > 0 and not wrong
    return [
        Line(what, "waits, steps back, is applied after it", figure, met),
        at_most(f"{what}: longest wait of a reader", within(LONGEST_WAIT_SECONDS, scale), max(taken), "s"),
    ]


def _wait(url: str, command: Path, tables: Sequence[str]) -> tuple[int, str]:
    """Let a migration wait behind a long reader of each table; how often it was seen to, and what it said at last."""
    seen: set[str] = set()
    with _admin(url) as admin, ExitStack() as reading:
        long_readers = [reading.enter_context(psycopg.connect(url)) for _ in tables]
        for long_reader, table in zip(long_readers, tables, strict=True):
            long_reader.execute(f"SELECT FROM {table}".encode())
        with _run(url, command) as run:

            def waits(attempts: int) -> bool:
                seen.update(moment for (moment,) in admin.execute(STANDS).fetchall())
                return len(seen) >= attempts or _has_ended([run])

            stage.until(lambda: waits(1))
            deadline = time.monotonic() + STANDS_SECONDS
            stage.until(lambda: waits(ATTEMPTS) or time.monotonic() > deadline)
            if others := long_readers[1:]:
                # In the middle of an attempt the first table becomes free, and the second one does not yet.
                stage.until(lambda: waits(len(seen) + 1))
                time.sleep(FREE_AFTER_SECONDS)
                long_readers[0].rollback()
                # So long a reader of the first table would wait, if that were held while the second is waited for.
                time.sleep(LONGEST_WAIT_SECONDS)
            for long_reader in others or long_readers:
                long_reader.rollback()
            out, error = run.communicate(timeout=PATIENCE_SECONDS)
    return len(seen), " ".join((out + error).split())


def _read(url: str, done: threading.Event) -> list[float]:
    """Read until it is done; how long each SELECT took."""
    taken: list[float] = []
    with _admin(url) as connection:
        while not done.wait(PAUSE_SECONDS):
            asked = time.monotonic()
            connection.execute(READ).fetchall()
            taken.append(time.monotonic() - asked)
    return taken


@contextmanager
def _database(server: Postgres, template: str = "template0") -> Generator[str]:
    """The URL of a database that is a copy of another one, given by its URL, and empty where there is none."""
    place, name = server.url.rpartition("/")[0], f"migrations_{next(_numbers)}"
    with _admin(f"{place}/postgres") as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template.rpartition('/')[2]}".encode())
        try:
            yield f"{place}/{name}"
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _admin(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


@contextmanager
def _run(url: str, command: Path = ROOT / "sql" / "migrate.py") -> Generator[subprocess.Popen[str]]:
    """The command that migrates, in a process of its own, which is killed if it has not ended."""
    arguments = [sys.executable, str(command), url]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            yield run
        finally:
            run.kill()


def _has_ended(runs: list[subprocess.Popen[str]]) -> bool:
    return any(run.poll() is not None for run in runs)


def _waiting(admin: psycopg.Connection[Any], kind: str) -> int:
    """How many wait for a lock of this kind in the database of this connection."""
    (waiting,) = admin.execute(WAITING, {"kind": kind}).fetchone() or (0,)
    return waiting


def _content(admin: psycopg.Connection[Any]) -> Content:
    """What is in the database, one text for each thing."""
    content = {text for (text,) in admin.execute(CONTENT).fetchall()}
    for (table,) in admin.execute(TABLES).fetchall():
        content |= {f"rows {table} {rows}" for (rows,) in admin.execute(f"SELECT count(*) FROM {table}".encode())}
    return frozenset(content)
