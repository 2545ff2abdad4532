"""The audit: nothing changes what was written down, no reader misses an entry, and months come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from mcp_registry.access import audit, credentials, teams, trust
from mcp_registry.access.rules import AuditPage, Grant, Team, Trust
from mcp_registry.aws import db
from mcp_registry.caller import Caller
from mcp_registry.catalogue import offers, servers
from mcp_registry.errors import Unavailable
from mcp_registry.health import maintenance, marks
from mcp_registry.ledger import approvals
from tests.conftest import PATIENCE
from tests.integration.test_owners import LEASE, PAYMENTS, TEAMS, WAYS, Way, as_it_is, everything, prepared, sent
from tests.integration.test_roles import ROLES, become
from tests.integration.test_servers import rows
from tests.offered import offer, review_digest, tool

ADMIN = Caller("admin", "admin", "default", "request-1", "203.0.113.7")
ENTRY = """
INSERT INTO registry.audit (occurred_at, actor, role, team, action, target, request_id, address)
VALUES (%s::timestamptz, 'admin', 'admin', 'default', 'team.set', %s, '1', '127.0.0.1')
RETURNING id
"""


@pytest.fixture(scope="module")
def url(new_database: Callable[..., str]) -> str:
    """A database of these tests: what is written down stays in it."""
    return new_database()


@pytest.fixture(scope="module")
def database_url(new_database: Callable[..., str]) -> str:
    """Another one, whose tests leave nothing: what others have written down would keep a month from being made."""
    return new_database()


@pytest.fixture
def walk(url: str) -> Iterator[Walk]:
    """A reader who has seen what there is."""
    database = db.Database(url, "role", "registry_keeper")
    walk = Walk(database, [])
    while walk.on():
        pass
    yield walk
    database.close()


class Writer:
    """A transaction under way."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.Connection.connect(url)

    def number(self) -> int:
        """Of the transaction, which has it from now on."""
        row = self.connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        return row[0]

    def note(self, target: str) -> int:
        """Write an entry; its number."""
        row = self.connection.execute(ENTRY, ["now", target]).fetchone()
        assert row is not None
        return row[0]


class Walk(NamedTuple):
    """What a reader has seen that comes again with the last number that it has seen."""

    database: db.Database
    seen: list[tuple[int, str]]

    def on(self) -> list[str]:
        after = self.seen[-1][0] if self.seen else 0
        page = audit.read(self.database.begin(), AuditPage(after, 100, None, None, None))
        new = [(entry["sequence"], entry["target"]) for entry in page["entries"]]
        self.seen.extend(new)
        return [target for _, target in new]


# ------------------------------------------------------------------ no reader misses an entry


def test_an_entry_with_a_lower_number_that_is_committed_late_is_not_missed(url: str, walk: Walk):
    early, late = Writer(url), Writer(url)
    assert early.note("team:early") < late.note("team:late")
    late.connection.commit()
    assert walk.on() == []
    early.connection.commit()
    assert walk.on() == ["team:early", "team:late"]


def test_nor_is_it_where_its_transaction_is_the_younger_one(url: str, walk: Walk):
    """By the order of transactions alone the first entry would be shown, and the second, of a lower number, never."""
    elder, younger = Writer(url), Writer(url)
    assert elder.number() < younger.number()
    assert younger.note("team:younger") < elder.note("team:elder")
    elder.connection.commit()
    assert walk.on() == []
    younger.connection.commit()
    assert walk.on() == ["team:younger", "team:elder"]


def test_what_is_never_committed_holds_up_nobody_and_who_writes_nothing_neither(url: str, walk: Walk):
    undone, done, idle = Writer(url), Writer(url), Writer(url)
    idle.connection.execute("CREATE TEMPORARY TABLE mine (x int)")
    undone.note("team:undone")
    done.note("team:done")
    done.connection.commit()
    assert walk.on() == []
    undone.connection.rollback()
    assert walk.on() == ["team:done"]


def test_what_was_settled_is_shown_while_others_write(url: str, walk: Walk):
    writer = Writer(url)
    writer.note("team:one")
    writer.connection.commit()
    under_way = Writer(url)
    under_way.note("team:three")
    assert walk.on() == ["team:one"]


def test_a_lock_of_somebody_who_adds_nothing_hides_nothing(url: str, walk: Walk):
    reader, writer = Writer(url), Writer(url)
    reader.connection.execute("SET ROLE registry_reader")
    reader.connection.execute("SELECT pg_advisory_lock_shared(16725::bigint << 48)")
    writer.note("team:seen")
    writer.connection.commit()
    assert walk.on() == ["team:seen"]
    reader.connection.close()


def test_a_page_ends_before_it_is_too_long_to_be_answered_and_the_next_one_goes_on(url: str, walk: Walk):
    writer = Writer(url)
    lengths = [100_000] * 30 + [3_000_000, 10]
    writer.connection.execute(
        "INSERT INTO registry.audit (actor, role, team, action, target, after, request_id, address)"
        " SELECT 'admin', 'admin', 'default', 'team.set', 'team:long', jsonb_build_object('url', repeat('x', length)),"
        " '1', '127.0.0.1' FROM unnest(%s::integer[]) AS length",
        [lengths],
    )
    writer.connection.commit()
    after = walk.seen[-1][0] if walk.seen else 0
    pages: list[list[int]] = []
    while after is not None:
        page = audit.read(walk.database.begin(), AuditPage(after, 100, None, None, None))
        pages.append([len(entry["after"]["url"]) for entry in page["entries"]])
        after = page["next_after"]
    assert [length for page in pages for length in page] == lengths
    assert [len(page) for page in pages] == [19, 11, 1, 1]


# ------------------------------------------------------------------ it is only ever added to

CHANGES = (
    "UPDATE {} SET actor = 'somebody else'",
    "DELETE FROM {}",
    "TRUNCATE {}",
)


def tables(connection: psycopg.Connection) -> list[str]:
    found = connection.execute(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = 'registry.audit'::regclass ORDER BY 1"
    ).fetchall()
    return [f"registry.{name}" for name in ("audit", *(name for (name,) in found))]


@pytest.fixture(scope="module")
def written(url: str) -> Iterator[psycopg.Connection]:
    """As the owner of the tests, who may do everything: an entry of a month, and one that is in no month."""
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        connection.execute("SELECT registry.add_audit_months('2020-05-01', '2020-05-01')")
        connection.execute(ENTRY, ["2020-05-01Z", "team:x"])
        connection.execute(ENTRY, ["2001-01-01Z", "team:y"])
        yield connection


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_written_down_is_changed_by_nobody_whatever_rights_they_have(written: psycopg.Connection, change: str):
    assert len(tables(written)) == 3
    for table in tables(written):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only ever added to"):
            written.execute(change.format(table).encode())


@pytest.mark.parametrize("role", ROLES)
def test_no_role_has_the_right_to_change_it_or_to_take_its_guards_away(written: psycopg.Connection, role: str):
    statements = [change.format(table) for table in tables(written) for change in CHANGES]
    statements += [
        f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM registry.audit" for table in tables(written)[1:]
    ]
    statements += [
        "ALTER TABLE registry.audit DISABLE TRIGGER ALL",
        "DROP TABLE registry.audit",
        "SELECT setval('registry.audit_id_seq', 1)",
    ]
    if role != "registry_sweeper":
        statements += ["SELECT registry.drop_audit_month('2001-02-01')"]
        statements += ["SELECT registry.add_audit_months('2026-11-30', '2026-11-30')"]
    for statement in statements:
        refused = pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"permission denied|must be owner")
        with written.transaction(force_rollback=True), refused:
            become(written, role)
            written.execute(statement.encode())


@pytest.mark.parametrize("role", ["registry_writer", "registry_keeper"])
@pytest.mark.parametrize(("column", "value"), [("id", "1"), ("occurred_at", "'2001-01-01Z'")])
def test_whoever_adds_an_entry_gives_it_neither_its_number_nor_its_time(
    written: psycopg.Connection, role: str, column: str, value: str
):
    statement = (
        f"INSERT INTO registry.audit ({column}, actor, role, team, action, target, request_id, address)"
        f" OVERRIDING SYSTEM VALUE VALUES ({value}, 'x', 'admin', 'x', 'team.set', 'team:x', '1', '127.0.0.1')"
    )
    refused = pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied")
    with written.transaction(force_rollback=True), refused:
        become(written, role)
        written.execute(statement.encode())


# ------------------------------------------------------------------ with the change, or not at all


def test_a_change_that_is_undone_was_never_written_down(database: db.Database):
    teams.put(database, ADMIN, "undone", Team(contact="a"))
    assert len(rows(database, "SELECT FROM registry.audit WHERE target = 'team:undone'")) == 1
    assert database._connection is not None
    with pytest.raises(psycopg.errors.CheckViolation), database._connection.transaction():
        teams.put(database, ADMIN, "undone", Team(contact="b", prefixes=["No prefix"]))
    assert len(rows(database, "SELECT FROM registry.audit WHERE target = 'team:undone'")) == 1


def test_what_changes_nothing_is_not_written_down(database: db.Database):
    for _ in range(2):
        teams.put(database, ADMIN, "same", Team(prefixes=["same-", "same/"]))
    teams.put(database, ADMIN, "same", Team(prefixes=["same/", "same-"]))
    assert len(rows(database, "SELECT FROM registry.audit WHERE target = 'team:same'")) == 1


# What the disk says that is full, to whoever adds an entry.
NO_ROOM = """
CREATE FUNCTION registry.no_room() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION ''no room'' USING ERRCODE = ''53100''; END';
CREATE TRIGGER no_room BEFORE INSERT ON registry.audit FOR EACH ROW EXECUTE FUNCTION registry.no_room()
"""
ROOM = "DROP FUNCTION registry.no_room CASCADE"
EMPTY = """
DELETE FROM registry.mcp_servers; DELETE FROM registry.held_names;
TRUNCATE registry.tokens, registry.issuers, registry.probe_headers
"""

TRUSTED = Trust(issuer="https://x.example", audience="x", claims={"sub": "x"}, team="search", role="reader")
GRANT = Grant(name="ci", team="search", role="reader")
OF_ACCESS = {
    "a team is made": Way(as_it_is, lambda d, c, _: teams.put(d, c, "made", Team(prefixes=["made-"])), ["team.set"]),
    "a team is changed": Way(
        lambda d, _: teams.put(d, ADMIN, "made", Team(prefixes=["made-"])),
        lambda d, c, _: teams.put(d, c, "made", Team(contact="x", prefixes=["other-"])),
        ["team.set"],
    ),
    "a team is removed": Way(as_it_is, lambda d, c, _: teams.remove(d, c, "made"), ["team.removed"]),
    "a token is made": Way(as_it_is, lambda d, c, _: credentials.make(d, c, GRANT), ["token.made"]),
    "a token is revoked": Way(
        lambda d, _: credentials.make(d, ADMIN, GRANT),
        lambda d, c, _: credentials.revoke(d, c, rows(d, "SELECT id FROM registry.tokens")[0][0]),
        ["token.revoked"],
    ),
    "an issuer is trusted": Way(as_it_is, lambda d, c, _: trust.put(d, c, "ci", TRUSTED), ["issuer.set"]),
    "an issuer is trusted no more": Way(
        lambda d, _: trust.put(d, ADMIN, "ci", TRUSTED), lambda d, c, _: trust.remove(d, c, "ci"), ["issuer.removed"]
    ),
}
SECRET = "00000000-0000-4000-8000-000000000000"


def begin_headers(database: db.Database, id_: int) -> None:
    question = {"server": id_, "secret": SECRET, "names": ["X-Key"]}
    marks.answer(database, {"begin": question, "caller": ADMIN._asdict()})


def give_headers(database: db.Database, caller: Caller, id_: int) -> None:
    ((url,),) = rows(database, f"SELECT endpoint_url FROM registry.mcp_servers WHERE id = {id_}")
    given = {"id": id_, "secret": SECRET, "endpoint_url": url, "origin": "x"}
    marks.answer(database, {"give": given, "caller": caller._asdict()})


def have_headers(database: db.Database, id_: int) -> None:
    begin_headers(database, id_)
    give_headers(database, ADMIN, id_)


OF_HEADERS = {
    "headers are given": Way(begin_headers, give_headers, ["server.probe_headers"]),
    "headers are withdrawn": Way(
        have_headers,
        lambda d, c, id_: marks.answer(d, {"end": {"server": id_}, "caller": c._asdict()}),
        ["server.probe_headers"],
    ),
}
TOOLS = [tool("read", "Reads a file")]


def offer_under_review(database: db.Database, id_: int) -> None:
    approvals.set_policy(database, ADMIN, id_, "manual")
    offer(database, id_, TOOLS)


def decide(decision: offers.Decision) -> Callable[[db.Database, Caller, int], object]:
    wish = approvals.Wish(digest=review_digest(TOOLS), decision=decision, reason="x")
    return lambda d, c, id_: approvals.decide(d, c, id_, wish)


OF_REVIEW = {
    "a policy is set": Way(as_it_is, lambda d, c, id_: approvals.set_policy(d, c, id_, "manual"), ["server.policy"]),
    "an offer is approved": Way(offer_under_review, decide("approve"), ["server.approved"]),
    "an offer is rejected": Way(offer_under_review, decide("reject"), ["server.rejected"]),
}
REGISTERED = {
    "registered": Way(as_it_is, lambda d, c, _: servers.register(d, c, sent("payments/new")), ["server.registered"]),
    "put": Way(as_it_is, lambda d, c, _: servers.replace(d, c, sent("payments/new")), ["server.registered"]),
    "announced": Way(
        as_it_is, lambda d, c, _: servers.replace(d, c, sent("payments/new"), lease=LEASE), ["server.registered"]
    ),
}


def test_where_an_entry_cannot_be_written_the_change_is_not_made_and_it_is_made_afterwards(
    new_database: Callable[..., str],
):
    database = db.Database(new_database())
    database.begin(PATIENCE).read(db.VERIFY)
    connection = database._connection
    assert connection is not None
    connection.execute(TEAMS.encode())
    seen: set[str] = set()
    for name, way in {**REGISTERED, **WAYS, **OF_ACCESS, **OF_HEADERS, **OF_REVIEW}.items():
        connection.execute(EMPTY.encode())
        id_ = prepared(database)
        way.begin(database, id_)
        if not way.actions:  # of what changes nothing there is nothing to write down
            continue
        connection.execute(NO_ROOM.encode())
        before = everything(database)
        caller = ADMIN if name in {**OF_ACCESS, **OF_HEADERS, **OF_REVIEW} else PAYMENTS
        with pytest.raises(Unavailable) as refused:
            way.go(database, caller, id_)
        assert refused.value.cause == "53100", name
        # That made the connection a new one.
        database.begin(PATIENCE).read(db.VERIFY)
        connection = database._connection
        assert connection is not None
        assert everything(database) == before, name
        connection.execute(ROOM.encode())
        way.go(database, caller, id_)
        seen.update(way.actions)
        told = connection.execute("SELECT action FROM registry.audit ORDER BY id DESC LIMIT %s", [len(way.actions)])
        assert {action for (action,) in told.fetchall()} == {*way.actions}, name
    assert seen == {*audit.ACTIONS}
    database.close()


# ------------------------------------------------------------------ months


@pytest.fixture
def months(database: db.Database) -> Callable[[], list[str]]:
    """Which months there are."""
    assert database._connection is not None
    return lambda: [name[-6:] for name in tables(database._connection) if name[-6:].isdigit()]  # pyright: ignore[reportArgumentType]


def note(database: db.Database, moment: str) -> None:
    assert database._connection is not None
    database._connection.execute(ENTRY, [moment, "team:x"])


def one(database: db.Database, call: str) -> object:
    ((value,),) = rows(database, f"SELECT registry.{call}")
    return value


def test_months_are_made_once_and_an_entry_lies_in_its_own(database: db.Database, months: Callable[[], list[str]]):
    assert one(database, "add_audit_months('2026-11-30', '2027-02-01')") == 4
    assert one(database, "add_audit_months('2026-11-30', '2027-02-01')") == 0
    assert months() == ["202611", "202612", "202701", "202702"]
    for moment in ("2026-11-30T23:59:59.999999Z", "2026-12-01T00:00:00Z", "2027-03-01T00:00:00Z"):
        note(database, moment)
    found = rows(
        database, "SELECT relname FROM registry.audit AS a JOIN pg_class AS c ON c.oid = a.tableoid ORDER BY id"
    )
    assert found[-3:] == [("audit_202611",), ("audit_202612",), ("audit_rest",)]


def test_a_month_of_which_entries_are_there_before_it_is_made_stays_with_the_rest(
    database: db.Database, months: Callable[[], list[str]]
):
    note(database, "2027-12-24Z")
    assert one(database, "add_audit_months('2027-11-30', '2028-01-01')") == 2
    assert months() == ["202711", "202801"]


def test_a_month_goes_when_all_of_it_is_too_old(database: db.Database):
    one(database, "add_audit_months('2020-01-01', '2020-03-01')")
    for moment in ("2019-12-31Z", "2020-01-31Z", "2020-02-01Z"):
        note(database, moment)
    assert one(database, "drop_audit_month('2019-12-31')::text") is None
    assert one(database, "drop_audit_month('2020-01-31')::text") == "2019-12-31"  # which was in no month
    assert one(database, "drop_audit_month('2020-01-31')::text") is None
    assert one(database, "drop_audit_month('2020-02-01')::text") == "2020-01-01"
    assert one(database, "drop_audit_month('2020-02-29')::text") is None
    assert rows(database, "SELECT to_char(occurred_at, 'YYYY-MM-DD') FROM registry.audit") == [("2020-02-01",)]
    # What stands beside the months is guarded as before.
    note(database, "2019-12-31Z")
    for change in CHANGES:
        assert database._connection is not None
        with pytest.raises(psycopg.errors.InsufficientPrivilege), database._connection.transaction():
            rows(database, change.format("registry.audit_rest"))


def test_nobody_does_away_with_what_was_just_written_down(database: db.Database, months: Callable[[], list[str]]):
    one(database, "add_audit_months(current_date - 31, current_date)")
    note(database, "now")
    kept = months()
    assert one(database, "drop_audit_month('2999-01-01')") is None
    assert months() == kept
    assert ("team:x",) in rows(database, "SELECT target FROM registry.audit")


def test_what_is_written_down_while_the_rest_is_dropped_stays(new_database: Callable[..., str]):
    """An entry that is not committed yet is not seen by who looks for the newest one."""
    url = new_database()
    dropped: list[Any] = []
    with (
        psycopg.Connection.connect(url, autocommit=True) as watcher,
        psycopg.Connection.connect(url) as writer,
        psycopg.Connection.connect(url, autocommit=True) as keeper,
    ):
        watcher.execute(ENTRY, ["2001-01-01Z", "team:old"])
        writer.execute(ENTRY, ["2015-01-01Z", "team:young"])
        drop = "SELECT registry.drop_audit_month('2010-01-01')::text"
        thread = threading.Thread(target=lambda: dropped.append(keeper.execute(drop).fetchone()))
        thread.start()
        waits = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
        end = time.monotonic() + PATIENCE
        while thread.is_alive() and watcher.execute(waits, [keeper.info.backend_pid]).fetchone() is None:
            assert time.monotonic() < end
        writer.commit()
        thread.join()
        assert watcher.execute("SELECT target FROM registry.audit ORDER BY id").fetchall() == [
            ("team:old",),
            ("team:young",),
        ]
    assert dropped == [(None,)]


def test_what_is_written_down_while_its_month_is_made_is_in_that_month(new_database: Callable[..., str]):
    """Who has chosen the rest for an entry would be refused when the month is there."""
    url = new_database()
    failed: list[Exception] = []

    def write(writer: psycopg.Connection) -> None:
        try:
            writer.execute(ENTRY, ["2015-01-15Z", "team:x"])
        except psycopg.Error as error:
            failed.append(error)

    with (
        psycopg.Connection.connect(url, autocommit=True) as watcher,
        psycopg.Connection.connect(url, autocommit=True) as writer,
        psycopg.Connection.connect(url) as keeper,
    ):
        keeper.execute("SELECT registry.add_audit_months('2015-01-01', '2015-01-01')")
        thread = threading.Thread(target=write, args=[writer])
        thread.start()
        waits = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
        end = time.monotonic() + PATIENCE
        while thread.is_alive() and watcher.execute(waits, [writer.info.backend_pid]).fetchone() is None:
            assert time.monotonic() < end
        keeper.commit()
        thread.join()
        assert failed == []
        assert watcher.execute("SELECT target FROM registry.audit_201501").fetchall() == [("team:x",)]


def test_maintenance_makes_the_coming_months_and_drops_what_is_too_old(
    database: db.Database, months: Callable[[], list[str]]
):
    one(database, "add_audit_months(current_date - 400, current_date - 300)")
    maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 330)
    bounds = rows(database, "SELECT to_char(current_date - 330, 'YYYYMM'), to_char(current_date + 92, 'YYYYMM')")
    assert [(months()[0], months()[-1])] == bounds
