"""What the ledger keeps: what may still be asked for, and no document that nobody has, whoever writes meanwhile."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import psycopg
import pytest

from mcp_registry.aws.db import Database
from mcp_registry.errors import Unavailable
from mcp_registry.ledger import keeping
from tests.conftest import ADMIN
from tests.integration.test_servers import parsed, rows, servers

DAYS = 400
APPROVAL = """
INSERT INTO registry.approvals (server_id, digest, snapshot_id, decision, decided_by)
VALUES (%(s)s, %(d)s, %(n)s, %(w)s, 'ann')
"""
DOCUMENT = "INSERT INTO registry.documents (digest, raw, document) VALUES (%(digest)s, %(digest)s, '{}')"
SNAPSHOT = """
INSERT INTO registry.snapshots (server_id, source, digest, prompt, first_seen, last_seen, about, tools, prompts)
VALUES (%(server)s, %(source)s, %(digest)s, %(prompt)s, now() - make_interval(days => %(first)s),
        now() - make_interval(days => %(last)s), '{}', %(tools)s, %(prompts)s)
RETURNING id
"""


def change(database: Database, statement: str, parameters: dict[str, object] | None = None) -> None:
    assert database._connection is not None
    database._connection.execute(statement.encode(), parameters)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture
def server(database: Database) -> int:
    return servers.register(database, ADMIN, parsed("kept"))["id"]


def add_documents(database: Database, *texts: str) -> None:
    for text in texts:
        change(database, DOCUMENT, {"digest": digest(text)})


def add_snapshot(
    database: Database,
    server: int,
    first: int,
    last: int | None,
    *documents: str,
    source: str = "observed",
    prompt: str = "x",
    prompts: tuple[str, ...] | None = None,
) -> int:
    """One that was there from so many days ago until so many days ago."""
    row = database.write(
        SNAPSHOT,
        {
            "server": server,
            "source": source,
            "first": first,
            "last": last,
            "digest": digest(f"{first} {source}"),
            "prompt": digest(prompt),
            "tools": [*map(digest, documents)],
            "prompts": None if prompts is None else [*map(digest, prompts)],
        },
    )
    assert row is not None
    return row[0]


def kept(database: Database) -> set[int]:
    return {id_ for (id_,) in rows(database, "SELECT id FROM registry.snapshots")}


def run(database: Database) -> keeping.Forgotten:
    return keeping.run(lambda seconds: database.begin(seconds), DAYS)


def test_what_was_offered_at_any_time_that_is_kept_stays_and_what_came_before_goes(database, server):
    add_snapshot(database, server, 900, 700)
    # The one that was there when the time that is kept began, although it was seen last before that.
    at_the_bound = add_snapshot(database, server, 700, 420)
    later = [add_snapshot(database, server, 390, 300), add_snapshot(database, server, 300, None)]
    # Another source has a time of its own.
    declared = add_snapshot(database, server, 800, None, source="declared")
    assert run(database).snapshots == 1
    assert kept(database) == {at_the_bound, *later, declared}


@pytest.mark.parametrize("pointer", ["declared_id", "observed_id", "compatible_id", "approved_id"])
def test_what_a_server_is_at_or_hands_out_stays_however_old_it_is(database, server, pointer):
    old = add_snapshot(database, server, 900, 800)
    add_snapshot(database, server, 800, None)
    change(database, f"INSERT INTO registry.ledger (server_id, {pointer}) VALUES ({server}, {old})")
    assert run(database).snapshots == 0
    assert old in kept(database)


@pytest.mark.parametrize(("decision", "gone"), [("approve", 0), ("reject", 1)])
def test_what_a_curator_has_approved_of_stays_however_old_it_is(database, server, decision, gone):
    old = add_snapshot(database, server, 900, 800, prompt="decided about")
    add_snapshot(database, server, 800, None)
    change(database, APPROVAL, {"s": server, "d": digest("decided about"), "n": old, "w": decision})
    assert run(database).snapshots == gone


def test_changes_go_when_they_are_too_old_in_steps_of_a_bounded_size(database, server, monkeypatch):
    monkeypatch.setattr(keeping, "MOST", 2)
    change(database, "DELETE FROM registry.changes")
    for days in (399, *range(401, 406)):
        change(
            database,
            f"""INSERT INTO registry.changes (occurred_at, server_id, name, owner, kind)
                VALUES (now() - interval '{days} days', {server}, 'kept', 'default', 'registered')""",
        )
    assert run(database).changes == 5
    assert rows(database, "SELECT count(*) FROM registry.changes") == [(1,)]


def test_a_document_goes_with_the_last_snapshot_that_has_it(database, server, monkeypatch):
    monkeypatch.setattr(keeping, "MOST", 3)
    change(database, "DELETE FROM registry.documents")
    others = [f"no longer used {n}" for n in range(100)]
    add_documents(database, "shared", "prompt", *others)
    add_snapshot(database, server, 900, 800, "shared", *others)
    add_snapshot(database, server, 800, None, "shared", prompts=("prompt",))
    assert run(database) == (1, 0, len(others))
    left = {bytes(found) for (found,) in rows(database, "SELECT digest FROM registry.documents")}
    assert left == {digest("shared"), digest("prompt")}


def test_documents_of_a_server_that_was_removed_go(database, server):
    change(database, "DELETE FROM registry.documents")
    add_documents(database, "a tool")
    add_snapshot(database, server, 1, None, "a tool")
    assert run(database).documents == 0
    servers.delete(database, ADMIN, server)
    assert run(database).documents == 1


# ------------------------------------------------------------------ while somebody else writes


@pytest.fixture(scope="module")
def url(new_database) -> str:
    """A database of its own, because what is written by two has to be committed."""
    return new_database()


@pytest.fixture
def two(url: str) -> Iterator[tuple[psycopg.Connection, psycopg.Connection, int]]:
    """Who records, who drops, and a server of which nothing is known."""
    with psycopg.connect(url) as recording, psycopg.connect(url) as dropping:
        recording.execute("DELETE FROM registry.mcp_servers")
        recording.execute("DELETE FROM registry.documents")
        recording.commit()
        database = Database(url)
        id_ = servers.register(database, ADMIN, parsed("raced"))["id"]
        database.close()
        recording.execute(DOCUMENT, {"digest": digest("a tool")})
        recording.commit()
        yield recording, dropping, id_


# As a recording is written: what it offers and that it does, in one statement.
RECORD = """
WITH documents AS (
    INSERT INTO registry.documents (digest, raw, document) VALUES (%(tool)s, %(tool)s, '{}')
        ON CONFLICT (digest) DO NOTHING
)
INSERT INTO registry.snapshots (server_id, source, digest, prompt, first_seen, about, tools)
VALUES (%(server)s, 'observed', %(tool)s, %(tool)s, now(), '{}', ARRAY[%(tool)s::bytea])
"""


def drop(connection: psycopg.Connection) -> int:
    """All that is in the slice of the tool."""
    row = connection.execute("SELECT registry.drop_documents(%s, 10)", [digest("a tool")[0] >> 4]).fetchone()
    assert row is not None
    return row[0]


def count_of(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM registry.{table}".encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_document_that_a_recording_is_about_to_use_is_left_alone(two):
    recording, dropping, server = two
    recording.execute(RECORD, {"server": server, "tool": digest("a tool")})
    assert drop(dropping) == 0
    dropping.commit()
    recording.commit()
    assert (drop(dropping), count_of(dropping, "documents"), count_of(dropping, "snapshots")) == (0, 1, 1)


# Of one that knows the document from before, and does not send it again.
RECORD_KNOWN = RECORD[RECORD.index("INSERT INTO registry.snapshots") :]


@pytest.mark.parametrize(("statement", "repeated"), [(RECORD, False), (RECORD_KNOWN, True)])
def test_a_recording_whose_document_is_being_dropped_has_it_written_anew_or_fails(two, statement, repeated):
    recording, dropping, server = two
    parameters = {"server": server, "tool": digest("a tool")}
    assert drop(dropping) == 1
    outcome: list[BaseException | None] = []

    def record() -> None:
        try:
            recording.execute(statement.encode(), parameters)
            outcome.append(None)
        except psycopg.Error as error:
            outcome.append(error)

    writer = threading.Thread(target=record)
    writer.start()
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s"
    while dropping.execute(blocked, [recording.info.backend_pid]).fetchone() != (1,):
        assert writer.is_alive()
        dropping.execute("SELECT pg_stat_clear_snapshot()")
    dropping.commit()
    writer.join()
    if repeated:
        assert isinstance(outcome[0], psycopg.errors.SerializationFailure)
        recording.rollback()
        recording.execute(RECORD, parameters)
    else:
        assert outcome == [None]
    recording.commit()
    assert (count_of(dropping, "documents"), count_of(dropping, "snapshots")) == (1, 1)


def test_a_snapshot_of_which_a_document_is_missing_is_not_taken(two, url):
    _, dropping, server = two
    database = Database(url)
    with pytest.raises(Unavailable) as raised:  # which a message of a queue outlives
        add_snapshot(database, server, 1, None, "a tool", "missing")
    database.close()
    assert raised.value.cause == "40001"
    assert count_of(dropping, "snapshots") == 0
