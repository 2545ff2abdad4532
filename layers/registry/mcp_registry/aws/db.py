"""The database connection: the owner of psycopg.

One warm autocommit connection for each execution environment, never a pool: an environment serves one request at a
time, and a frozen one must not sit in a transaction. After a freeze nothing that the client side remembers about a
connection proves anything, so one that has idled is verified before it is used and replaced once if it is dead.

Every wait has a deadline, held on this side, because psycopg waits for ever on a silent network:
gateway 29 s > function 10 s > request 4.5 s > statement 3.6 s > connect 3 s > lock 2 s > verification 1 s.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.abc import ConnDict, PQGen
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from mcp_registry.errors import Unavailable

# An answer within 5 s is the promise; half a second of it is for the way there and back (5.01 s at 5.0, 2026-11-22).
REQUEST_SECONDS = 4.5
CONNECT_SECONDS = 3
# psycopg takes any shorter connect_timeout for this one.
MIN_CONNECT_SECONDS = 2
VERIFY_SECONDS = 1.0
# A connection used this recently is trusted; an environment that was frozen has idled longer than this.
TRUSTED_SECONDS = 1.0
WRITE_ATTEMPTS = 3

# Set for the session, so that a statement needs no round trip of its own for them.
#   random_page_cost: what it costs on solid-state disks; at the default of 4 a filter with few matches walks the whole
#   primary key rather than its own index (0.93 against 0.60 ms, 2026-11-22).
#   jit: compiling a 1 ms statement takes 100 ms.
# The statement_timeout is four fifths of the request's deadline: the server's own word comes before ours.
SETTINGS = {
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "5s",
    "TimeZone": "UTC",
    "random_page_cost": "1.1",
    "jit": "off",
}

# SQLSTATE classes that say "not now": connection, resources, operator intervention, system.
UNAVAILABLE_CLASSES = {"08", "53", "57", "58"}
# ... and single states: lock timeout, serialization failure, deadlock, a primary that became read-only, and the two
# timeouts of idle and long transactions. 25006 and 25P0x arrive as InternalError, which is why states decide here.
UNAVAILABLE_STATES = {"55P03", "40001", "40P01", "23503", "25006", "25P03", "25P04"}
# The server undid the whole statement, so that doing it again is safe: serialization failure, deadlock, and a row that
# a foreign key needs and that was deleted while the statement ran.
UNDONE_STATES = {"40001", "40P01", "23503"}
# Likewise: a row with this unique key came while the statement ran. Whether it helps to do it again says who sends it.
COLLISION = "23505"
# The server is fine and said no in time; the connection stays.
KEPT_STATES = {"55P03", "57014"} | UNDONE_STATES

VERIFY = "SELECT 1"

# How a function gets in (DATABASE_ACCESS), and as whom (DATABASE_ROLE; sql/roles.sql says what each role may do):
#   url    as DATABASE_URL says, whoever that is.
#   role   likewise, and then takes the role on; that user has to be a member of it.
#   iam    as the role itself, by a token that the function's own identity signs. No password exists.
#   proxy  likewise through RDS Proxy, which refuses a connection with settings; those of the role apply (roles.sql).
ACCESSES = ("url", "role", "iam", "proxy")

# A parameter of a statement by its name, or a percent sign of its own.
PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|%)")

Result = TypeVar("Result")
Parameters = Mapping[str, Any]


class DeadlineConnection(psycopg.Connection[TupleRow]):
    """A connection whose every wait ends at `deadline`, a moment of time.monotonic."""

    deadline: float = float("inf")

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """Wait as psycopg does, but not beyond the deadline (psycopg.OperationalError)."""
        remaining = max(self.deadline - time.monotonic(), 0.001)
        return super().wait(gen, interval, remaining if timeout is None else min(timeout, remaining))


class Database:
    """Access to one database, by statements that each answer at most one row.

    Its methods raise Unavailable where the database cannot answer in time, and psycopg.Error where a statement is
    wrong. Not for use by two threads at once.
    """

    def __init__(self, conninfo: str, access: str = "url", role: str = "") -> None:
        """`conninfo`: a libpq connection string; `access`: one of ACCESSES, with its `role`. Nothing is opened yet.

        Raises ValueError where the access is none of them.
        """
        if access not in ACCESSES:
            raise ValueError(f"DATABASE_ACCESS must be one of {', '.join(ACCESSES)}, not {access!r}")
        self._conninfo = conninfo
        self._access = access
        self._role = role
        self._connection: DeadlineConnection | None = None
        # One for all statements, of the connection that there is: a new one each time takes 40 us of CPU (2026-11-30).
        self._cursor: psycopg.RawCursor[TupleRow] | None = None
        self._used = 0.0
        self._seconds = REQUEST_SECONDS
        self._deadline = float("inf")

    def begin(self, seconds: float = REQUEST_SECONDS) -> Database:
        """Start the clock of a request: from now, everything together may take so many `seconds`.

        Background work that may take longer says so from its first request on: a connection keeps the statement_timeout
        that it was opened with.
        """
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        return self

    def read(
        self, statement: LiteralString, parameters: Parameters | None = None, *, plan_anew: bool = False
    ) -> TupleRow | None:
        """Run a statement that changes nothing and return its row.

        Postgres keeps the plan of a statement that comes again and again, unless it is to be planned anew each time
        for the parameters that it has. Where the connection is lost meanwhile, tried once more on a new one.
        """
        try:
            try:
                return self._execute(statement, parameters, plan_anew)
            except psycopg.OperationalError:
                if self._connection is not None:
                    raise
                return self._execute(statement, parameters, plan_anew)
        except psycopg.Error as error:
            raise _translated(error) from error

    def write(
        self, statement: LiteralString, parameters: Parameters | None = None, *, looks_first: bool = False
    ) -> TupleRow | None:
        """Run a statement that changes rows and return its row.

        Tried again only where the server itself undid it (`UNDONE_STATES`): after a lost connection
        nobody knows whether it was committed. A statement that looks first whether its unique keys are free is tried
        again where one was taken meanwhile.
        """
        undone = UNDONE_STATES | {COLLISION} if looks_first else UNDONE_STATES
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            try:
                return self._execute(statement, parameters)
            except psycopg.Error as error:
                if error.sqlstate not in undone or attempt == WRITE_ATTEMPTS:
                    raise _translated(error) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection; the next statement opens another."""
        connection, self._connection = self._connection, None
        self._cursor = None
        if connection is not None:
            connection.close()

    def _execute(
        self, statement: LiteralString, parameters: Parameters | None, plan_anew: bool = False
    ) -> TupleRow | None:
        cursor = self._verified()
        raw, names = _numbered(statement)
        given = [parameters[name] for name in names] if parameters is not None else None
        try:
            row = cursor.execute(raw, given, prepare=False if plan_anew else None).fetchone()
        except psycopg.Error as error:
            if error.sqlstate not in KEPT_STATES and _means_unavailable(error):
                self.close()
            raise
        self._used = time.monotonic()
        return row

    def _verified(self) -> psycopg.RawCursor[TupleRow]:
        """The cursor of the warm connection, which is checked if it has idled, or of a new one."""
        now = time.monotonic()
        if self._connection is not None and (now - self._used > TRUSTED_SECONDS or _stirs(self._connection)):
            self._connection.deadline = min(now + VERIFY_SECONDS, self._deadline)
            try:
                self._connection.execute(VERIFY)
            except psycopg.Error:
                self.close()
        if self._connection is None:
            self._connection = self._connect()
            self._cursor = psycopg.RawCursor(self._connection)
        self._connection.deadline = self._deadline
        assert self._cursor is not None
        return self._cursor

    def _connect(self) -> DeadlineConnection:
        """A new connection to the first address that answers, as long as there is time.

        psycopg gives each address of a name a connect_timeout of its own, so the addresses are tried from here.
        """
        failure: psycopg.Error | None = None
        for attempt in conninfo_attempts(conninfo_to_dict(self._conninfo)):
            remaining = self._deadline - time.monotonic()
            if remaining < MIN_CONNECT_SECONDS:
                break
            try:
                return self._connect_to(attempt, int(min(remaining, CONNECT_SECONDS)))
            except psycopg.OperationalError as error:
                failure = error
        raise failure or psycopg.OperationalError("no time left to connect")

    def _connect_to(self, attempt: ConnDict, seconds: int) -> DeadlineConnection:
        settings = {**SETTINGS, "statement_timeout": f"{self._seconds * 0.8:g}s"}
        own = _login(attempt, self._access, self._role)
        if self._access == "role":
            settings["role"] = self._role
        if self._access != "proxy":
            own["options"] = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return DeadlineConnection.connect(
            make_conninfo("", **{**attempt, **own}),
            autocommit=True,
            connect_timeout=seconds,
            tcp_user_timeout=int(REQUEST_SECONDS * 1000),
            application_name=os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "mcp-registry"),
        )


def conninfo(environment: Mapping[str, str]) -> str:
    """The connection string of a function's environment, for who opens a connection in a way of their own.

    With DATABASE_ACCESS=iam it holds a token, which is good for 15 minutes. Raises KeyError where DATABASE_URL is not
    set.
    """
    given = conninfo_to_dict(environment["DATABASE_URL"])
    login = _login(given, environment.get("DATABASE_ACCESS", "url"), environment.get("DATABASE_ROLE", ""))
    return make_conninfo("", **{**given, **login})


def _login(given: ConnDict, access: str, role: str) -> dict[str, str]:
    """User and password, where they are not in the connection string."""
    if access not in ("iam", "proxy"):
        return {}
    from mcp_registry.aws import token  # what it needs takes 5 ms to import, and only some deployments need it

    try:
        password = token.sign(str(given["host"]), int(given.get("port") or 5432), role)
    except OSError as error:
        raise psycopg.OperationalError("no credentials to sign a token with") from error
    return {"user": role, "password": password}


@cache
def _numbered(statement: LiteralString) -> tuple[bytes, tuple[str, ...]]:
    """A statement as Postgres takes it, with $1, $2 ..., and the names of its parameters in that order.

    psycopg does the same, but for statements of more than 4,096 characters once for each request, which is 100 us of a
    registration (2026-12-01).
    """
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return "%" if name is None else f"${names.setdefault(name, len(names) + 1)}"

    return PLACEHOLDER.sub(number, statement).encode(), tuple(names)


def _stirs(connection: DeadlineConnection) -> bool:
    """Whether something arrived on a connection that asked for nothing: most likely its end. Costs no round trip."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


_database: Database | None = None


def database(seconds: float = REQUEST_SECONDS) -> Database:
    """The execution environment's database (DATABASE_URL), with the clock of a request of so many seconds started.

    Raises KeyError where DATABASE_URL is not set, ValueError where DATABASE_ACCESS is none.
    """
    global _database
    if _database is None:
        given = os.environ
        _database = Database(given["DATABASE_URL"], given.get("DATABASE_ACCESS", "url"), given.get("DATABASE_ROLE", ""))
    return _database.begin(seconds)


def forget() -> None:
    """Close the execution environment's connection and forget it: the next request opens one of its own."""
    global _database
    if _database is not None:
        _database.close()
        _database = None


def settle_snapshots() -> None:
    """Have Lambda's runtime see to it that what is started from a snapshot shares nothing with its likes (SnapStart).

    A connection would be one for all of them, and TLS would draw the same random numbers in each; so would `random`, by
    which psycopg picks one of several hosts. Tokens are signed when a connection is opened, and never kept.
    """
    import random
    from importlib import import_module

    # Of the runtime, not of our layers.
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    for name in ("mcp_registry.aws.token", "http.client"):
        import_module(name)  # so that the snapshot has what a login needs
    register_before_snapshot(forget)
    register_after_restore(forget)
    register_after_restore(random.seed)


if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
    settle_snapshots()


def _means_unavailable(error: psycopg.Error) -> bool:
    """Whether an error says that the database cannot answer now, rather than that the statement is wrong.

    Failed and lost connections carry no SQLSTATE.
    """
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in UNAVAILABLE_CLASSES or error.sqlstate in UNAVAILABLE_STATES


def _translated(error: psycopg.Error) -> Exception:
    return Unavailable(error.sqlstate or type(error).__name__) if _means_unavailable(error) else error
