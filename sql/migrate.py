"""Bring a database to the newest schema: `python sql/migrate.py [DATABASE_URL]`.

Each file of `migrations/` is applied once, in the order of its number, in one transaction of its own that also
records it. Then `roles.sql` says anew who may do what, where this user may say it. Killed at any point, the database
holds a migration wholly or not at all, and the next run goes on from there. Any number of runs at once are safe: they
take turns behind a transaction-level advisory lock. (A session-level lock would outlive its statement in a frozen
Lambda sandbox.)
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, TypeVar, cast

import psycopg

Result = TypeVar("Result")

MIGRATIONS = Path(__file__).parent / "migrations"
ROLES = Path(__file__).parent / "roles.sql"

# Transactions that migrate hold this lock; the number is "mcpr" in ASCII.
ADVISORY_LOCK = 0x6D637072
# A migration that waits for a table lock makes every later reader wait behind it. Half a second of that at most,
# then the migration steps back and tries again. That is for each lock, and those that it has are held meanwhile: a
# migration that needs several tables of which others read names them in a line `-- locks: registry.a, registry.b`, and
# gets them all within that half second or none.
LOCK_TIMEOUT_MS = 500
LOCKS = re.compile(r"^-- locks: *(.*?) *$", re.MULTILINE)
TABLES = re.compile(r"[a-z_]+\.[a-z0-9_]+(, *[a-z_]+\.[a-z0-9_]+)*")
STATEMENT_TIMEOUT_MS = 300_000
PATIENCE_SECONDS = 120.0

# In a schema of ours: on a new database `public` is closed to all but its owner.
CREATE_SCHEMA = "CREATE SCHEMA IF NOT EXISTS registry"

CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS registry.migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""

SELECT_LEDGER = "SELECT version, checksum FROM registry.migrations"

LEDGER_EXISTS = "SELECT to_regclass('registry.migrations') IS NOT NULL"

RECORD = "INSERT INTO registry.migrations (version, name, checksum) VALUES (%(version)s, %(name)s, %(checksum)s)"

SET_TIMEOUTS = """
SELECT set_config('lock_timeout', %(lock)s, true),
       set_config('statement_timeout', %(statement)s, true)
"""

# Whoever may not make roles may still say what those may do that somebody has made.
MAY_GRANT = """
SELECT rolsuper OR rolcreaterole
       OR (to_regrole('registry_reader') IS NOT NULL
           AND to_regrole('registry_writer') IS NOT NULL
           AND to_regrole('registry_sweeper') IS NOT NULL)
  FROM pg_roles
 WHERE rolname = current_user
"""

# What roles.sql asks for.
TELL_ROLES = "SELECT set_config('registry.by_token', %(by_token)s, true)"

LOCK = "SELECT pg_try_advisory_xact_lock(%(key)s)"


class MigrationError(Exception):
    """The database cannot be migrated; the message says why in one sentence."""


class DatabaseIsNewer(MigrationError):
    """The database has migrations that this code does not: it was deployed by a newer version."""


@dataclass(frozen=True)
class Migration:
    """One file of `migrations/`: its number, name, text and the SHA-256 of the text."""

    version: int
    name: str
    statements: str
    checksum: str

    @property
    def locks(self) -> str:
        """The tables that it locks before anything else, as `LOCK TABLE` takes them; empty where it names none.

        Raises MigrationError where they are not names of tables with their schema.
        """
        lines = LOCKS.findall(self.statements)
        named = ", ".join(lines)
        if lines and not TABLES.fullmatch(named):
            raise MigrationError(f"{self.name}: write `-- locks: schema.table, schema.table`")
        return named


def migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """Read the migrations of a folder in order.

    Raises MigrationError where a file's name does not start with its place in the order: 0001, 0002, ...
    """
    found: list[Migration] = []
    for place, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        if path.name[:5] != f"{place:04}_":
            raise MigrationError(f"{path.name}: the name must start with {place:04}_, its place in the order")
        text = path.read_text(encoding="utf-8")
        found.append(Migration(place, path.stem, text, hashlib.sha256(text.encode()).hexdigest()))
    return found


def migrate(database_url: str, folder: Path = MIGRATIONS, *, by_token: bool = False) -> list[str]:
    """Apply what is missing, say anew who may do what, and return the names of the migrations that this call applied.

    `database_url` is a libpq connection string whose role may create schemas and extensions. `by_token`: the functions
    log in to RDS by IAM, so that their roles get rds_iam and passwords are refused to them. Raises MigrationError
    where an applied migration was edited afterwards, where the database is newer than this code (DatabaseIsNewer), or
    where the locks could not be had within two minutes; psycopg.Error where the database refuses a statement or is not
    there.
    """
    wanted = migrations(folder)
    with psycopg.connect(database_url, autocommit=True, connect_timeout=10) as connection:
        if not _ledger_exists(connection):
            _locked(connection, lambda: (connection.execute(CREATE_SCHEMA), connection.execute(CREATE_LEDGER)))
        applied = [m.name for m in wanted if m.version not in _applied(connection, wanted) and _apply(connection, m)]
        if folder == MIGRATIONS:
            _grant(connection, by_token=by_token)
        return applied


def _grant(connection: psycopg.Connection, *, by_token: bool) -> None:
    """Apply roles.sql, where this user may."""
    text = ROLES.read_text(encoding="utf-8")

    def statements() -> None:
        connection.execute(TELL_ROLES, {"by_token": "on" if by_token else "off"})
        connection.execute(cast("LiteralString", text))

    row = connection.execute(MAY_GRANT).fetchone()
    if row is not None and row[0]:
        _locked(connection, statements)


def _ledger_exists(connection: psycopg.Connection) -> bool:
    row = connection.execute(LEDGER_EXISTS).fetchone()
    return row is not None and bool(row[0])


def _applied(connection: psycopg.Connection, wanted: list[Migration]) -> set[int]:
    """The versions in the ledger, after checking that they are the files that we have."""
    known = {migration.version: migration for migration in wanted}
    ledger = dict(connection.execute(SELECT_LEDGER).fetchall())
    for version, checksum in ledger.items():
        if version not in known:
            raise DatabaseIsNewer(f"the database is newer than this code: it has migration {version}")
        if known[version].checksum != checksum:
            raise MigrationError(
                f"{known[version].name} was changed after it had been applied: restore it and add a new migration"
            )
    return set(ledger)


def _apply(connection: psycopg.Connection, migration: Migration) -> bool:
    """Apply one migration and record it; False where another run was first."""

    def statements() -> bool:
        recorded = dict(connection.execute(SELECT_LEDGER).fetchall())
        if migration.version in recorded:
            return False
        if migration.locks:
            _lock(connection, migration.locks)
        # A file of the repository, never input; sent without parameters, so that it may hold several statements.
        connection.execute(cast("LiteralString", migration.statements))
        connection.execute(
            RECORD, {"version": migration.version, "name": migration.name, "checksum": migration.checksum}
        )
        return True

    return _locked(connection, statements)


def _lock(connection: psycopg.Connection, tables: str) -> None:
    """Lock tables, all of them within the time for one. Raises LockNotAvailable where they are not to be had in it."""
    _set_timeouts(connection, LOCK_TIMEOUT_MS)
    try:
        connection.execute(cast("LiteralString", f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
    except psycopg.errors.QueryCanceled:
        raise psycopg.errors.LockNotAvailable from None
    _set_timeouts(connection, STATEMENT_TIMEOUT_MS)


def _set_timeouts(connection: psycopg.Connection, statement_ms: int) -> None:
    """How long a lock is waited for, and how long a statement takes, until the end of the transaction."""
    connection.execute(SET_TIMEOUTS, {"lock": str(LOCK_TIMEOUT_MS), "statement": str(statement_ms)})


def _locked(connection: psycopg.Connection, work: Callable[[], Result]) -> Result:
    """Run `work` in a transaction that holds the advisory lock, and return what it returns.

    Tries again where another run holds the lock or a table lock was not to be had in half a second.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with connection.transaction():
                _set_timeouts(connection, STATEMENT_TIMEOUT_MS)
                lock = connection.execute(LOCK, {"key": ADVISORY_LOCK}).fetchone()
                if lock is not None and lock[0]:
                    return work()
        except psycopg.errors.LockNotAvailable:
            pass
        if time.monotonic() > deadline:
            raise MigrationError(
                f"no lock after {PATIENCE_SECONDS:.0f} s: another migration or a long transaction is in the way"
            )
        time.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - so that runs that met do not meet again


def main(arguments: list[str]) -> int:
    """Migrate the database of the first argument, or of DATABASE_URL; exit code 0 where it is up to date."""
    database_url = arguments[0] if arguments else os.environ.get("DATABASE_URL", "")
    if not database_url:
        print("Say which database: python sql/migrate.py postgresql://... (or set DATABASE_URL)", file=sys.stderr)
        return 1
    try:
        applied = migrate(database_url)
    except (MigrationError, psycopg.Error) as error:
        print(f"Not migrated: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"applied {name}" for name in applied) or "up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
