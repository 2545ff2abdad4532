"""An upgrade of a catalogue that is there: its rows stay valid, and the release before goes on while this one comes."""

from __future__ import annotations

import json
import random
import shutil
import string
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.catalogue import registration, servers
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import DuplicateServer, Forbidden, HeldName, ValidationFailed
from mcp_registry.health import messages, results, sweeps
from mcp_registry.health.messages import Findings
from tests.conftest import ADMIN, PATIENCE, migrate
from tests.conftest import registration as document

# How the release before 0003 registered, found and searched.
OLD_REGISTER = """
INSERT INTO registry.mcp_servers (name, canonical_name, display_name, server_type, endpoint_url, body_digest,
                                  content_digest)
VALUES (%(name)s, %(canonical)s, %(display)s, 'mock', 'http://localhost', '', '')
    ON CONFLICT (canonical_name) DO NOTHING
RETURNING id
"""
OLD_FIND = "SELECT name FROM registry.mcp_servers WHERE canonical_name = %(canonical)s"
OLD_SEARCH = "SELECT name FROM registry.mcp_servers WHERE search_text LIKE lower(%(pattern)s) ORDER BY id"

OLD_TAGS = """
INSERT INTO registry.server_metadata (server_id, tags)
SELECT id, %(tags)s::jsonb
  FROM registry.mcp_servers
 WHERE name = %(name)s
    ON CONFLICT (server_id) DO UPDATE
   SET tags = excluded.tags
"""
# That release had no limit on tags.
LONG = "".join(random.Random(1).choices(string.ascii_letters, k=100_000))

NAMES = ["mariax", "shard-1-11", "io.github.co-op/notes", "2048", "plain"]


def old_canonical(name: str) -> str:
    return name.lower().translate(str.maketrans({"0": "o", "1": "l", "i": "l", ".": None, "_": None, "-": None}))


def old_register(url: str, name: str, display: str = "Δείγμα ΟΔΥΣΣΕΥΣ") -> int | None:
    with psycopg.connect(url, autocommit=True) as connection:
        parameters = {"name": name, "canonical": old_canonical(name), "display": display}
        row = connection.execute(OLD_REGISTER, parameters).fetchone()
        return row[0] if row else None


def old_find(url: str, name: str) -> str | None:
    with psycopg.connect(url) as connection:
        row = connection.execute(OLD_FIND, {"canonical": old_canonical(name)}).fetchone()
        return row[0] if row else None


def old_tag(url: str, name: str, *tags: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(OLD_TAGS, {"name": name, "tags": json.dumps(tags)})


def tagged(database: Database, tag: str) -> int:
    return servers.list_page(database, Filters(tag=tag), 100, 0).total


def parsed(name: str, **fields: object) -> registration.Registration:
    return registration.parse(document(name, **fields))


@pytest.fixture
def upgraded(new_database, tmp_path):
    """The URL of a database that the release before has filled, and this one has migrated."""
    url = new_database(migrated=False)
    for path in sorted(migrate.MIGRATIONS.glob("*.sql"))[:2]:
        shutil.copy(path, tmp_path)
    migrate.migrate(url, tmp_path)
    for name in NAMES:
        assert old_register(url, name) is not None
    old_tag(url, "plain", " Géo ", LONG)
    migrate.migrate(url)
    return url


@pytest.fixture
def catalogue(upgraded):
    database = Database(upgraded).begin(PATIENCE)
    yield database
    database.close()


def test_the_rows_that_were_there_are_found_by_name_and_by_search(catalogue):
    for name in NAMES:
        assert servers.identify(catalogue, name) > 0
    assert servers.list_page(catalogue, Filters(search="οδυσσευς"), 100, 0).total == len(NAMES)
    for name in NAMES:
        assert servers.list_page(catalogue, Filters(search=name.upper()), 100, 0).total == 1


def test_the_tags_that_were_there_are_found_but_those_that_nobody_can_ask_for(catalogue):
    assert tagged(catalogue, "GÉO") == 1


def test_while_both_releases_run_tags_are_found_whoever_writes_them(catalogue, upgraded):
    old_tag(upgraded, "mariax", "Older", LONG)
    assert tagged(catalogue, "older") == 1
    old_tag(upgraded, "mariax", "Other")
    assert (tagged(catalogue, "older"), tagged(catalogue, "other")) == (0, 1)
    servers.replace(catalogue, ADMIN, parsed("mariax", metadata={"tags": ["Newer"]}))
    assert (tagged(catalogue, "other"), tagged(catalogue, "newer")) == (0, 1)


def test_a_server_that_was_there_goes_on_registering_whatever_its_name(catalogue):
    for name in NAMES:
        assert servers.replace(catalogue, ADMIN, parsed(name))["result"] == "updated"
    with pytest.raises(ValidationFailed):
        servers.register(catalogue, ADMIN, parsed("4096"))


def test_what_looked_alike_by_the_old_rule_alone_is_registered_beside_it(catalogue):
    for name in ("marlax", "shard-11-1", "io.github.coop/notes"):
        assert servers.replace(catalogue, ADMIN, parsed(name))["result"] == "created"
        assert servers.replace(catalogue, ADMIN, parsed(name))["result"] == "unchanged"
    with pytest.raises(DuplicateServer, match="spelled mariax"):
        servers.register(catalogue, ADMIN, parsed("mar-iax"))


def test_while_both_releases_run_the_old_one_finds_what_the_new_one_writes(catalogue, upgraded):
    servers.register(catalogue, ADMIN, parsed("newer", display_name="Newer One"))
    assert old_find(upgraded, "newer") == "newer"
    assert old_register(upgraded, "NEWER") is None
    with psycopg.connect(upgraded) as connection:
        assert connection.execute(OLD_SEARCH, {"pattern": "%newer one%"}).fetchall() == [("newer",)]


def test_while_both_releases_run_the_new_one_finds_what_the_old_one_writes(catalogue, upgraded):
    old_register(upgraded, "older", "Straße")
    assert servers.list_page(catalogue, Filters(search="STRASSE"), 100, 0).total == 1
    assert servers.replace(catalogue, ADMIN, parsed("older"))["result"] == "updated"
    with pytest.raises(DuplicateServer):
        servers.register(catalogue, ADMIN, parsed("o-lder"))


def test_a_name_that_the_old_rule_refuses_is_still_refused_by_the_old_release(catalogue, upgraded):
    servers.register(catalogue, ADMIN, parsed("marlax"))
    assert old_register(upgraded, "marlax") is None
    assert old_find(upgraded, "marlax") == "mariax"


def test_a_row_that_the_backfill_has_not_reached_is_filled_by_whoever_changes_it(new_database, tmp_path):
    url = new_database(migrated=False)
    files = sorted(migrate.MIGRATIONS.glob("*.sql"))
    for path in files[:2]:
        shutil.copy(path, tmp_path)
    migrate.migrate(url, tmp_path)
    old_register(url, "waiting")
    shutil.copy(files[2], tmp_path)
    migrate.migrate(url, tmp_path)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE registry.mcp_servers SET status = 'error'")
        assert connection.execute("SELECT search_fold FROM registry.mcp_servers").fetchall() != [(None,)]


# ------------------------------------------------------------------ 0010: endpoints

# How the release before wrote what a check had found, as the role of its writer; and moved a server.
OLD_WRITE = """
WITH given AS (
    SELECT %(id)s::bigint AS id, %(verdict)s::metrics.verdict AS verdict, %(at)s::timestamptz AS at,
           CASE %(verdict)s WHEN 'healthy' THEN 'active' ELSE 'error' END::registry.server_status AS wanted
), checked AS (
    INSERT INTO registry.server_health (server_id, verdict, checked_at)
    SELECT id, verdict, at
      FROM given
        ON CONFLICT (server_id) DO UPDATE
       SET verdict = excluded.verdict,
           checked_at = excluded.checked_at
), written AS (
    INSERT INTO metrics.server_health_metrics (server_id, slot, verdict, checked_at)
    SELECT id, at, verdict, at
      FROM given
), changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = given.wanted,
           updated_at = now()
      FROM given
     WHERE s.id = given.id
       AND s.status <> given.wanted
    RETURNING s.id, old.status AS from_status, s.status AS to_status, given.verdict, given.at
)
INSERT INTO metrics.status_transitions (server_id, from_status, to_status, verdict, reason, occurred_at)
SELECT id, from_status, to_status, verdict, 'x', at
  FROM changed
"""
OLD_MOVE = """
UPDATE registry.mcp_servers
   SET endpoint_url = %(url)s,
       moved_at = now()
 WHERE name = %(name)s
"""
DAYS = "SELECT metrics.add_days(current_date - 1, current_date + 1)"


def old_write(url: str, id_: int, verdict: str, at: datetime) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT set_config('role', 'registry_sweeper', false)")
        connection.execute(OLD_WRITE, {"id": id_, "verdict": verdict, "at": at})


def old_move(url: str, name: str, to: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT set_config('role', 'registry_writer', false)")
        connection.execute(OLD_MOVE, {"name": name, "url": to})


def found(id_: int, verdict: messages.Verdict, slot: datetime) -> Findings:
    """What a prober of the release before sends: it knows no endpoints."""
    body = {"slot": slot.isoformat(), "shard": 0, "findings": [[id_, verdict, None, 9, None, 0]]}
    return messages.findings(json.dumps(body))


def everything(url: str, statement: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def test_the_servers_that_were_there_are_checked_where_they_are(catalogue, upgraded):
    where = "SELECT s.id, e.url, s.endpoint_url FROM registry.mcp_servers AS s JOIN registry.endpoints AS e"
    rows = everything(upgraded, f"{where} ON e.id = s.endpoint_id")
    assert len(rows) == len(NAMES) and all(url == used for _, url, used in rows)
    # Nobody knows that a person set them: where they are down and the server is elsewhere, they retire.
    leases = "SELECT DISTINCT declared, lease_until BETWEEN now() + interval '23 hours' AND now() + interval '1 day'"
    assert everything(upgraded, f"{leases} FROM registry.endpoints") == [(False, True)]
    (endpoints,) = [json.loads(row[0]) for row in [catalogue.write(sweeps.START, {"slot": sweeps.now(catalogue)})[1:2]]]
    assert {endpoint[0] for endpoint in endpoints} == {id_ for id_, *_ in rows}


def test_while_both_releases_write_what_was_found_no_check_is_lost_and_the_newest_decides(catalogue, upgraded):
    if everything(upgraded, "SELECT current_setting('server_version_num')::integer < 180000") == [(True,)]:
        pytest.skip("the release before wrote by RETURNING old, which is of Postgres 18")
    catalogue.read(DAYS)
    id_ = servers.identify(catalogue, "plain")
    now = sweeps.now(catalogue) + timedelta(seconds=30)
    slots = [now + timedelta(seconds=30 * number) for number in range(6)]
    assert results.write(catalogue, found(id_, "healthy", slots[0]), slots[0]).checked == 1
    old_write(upgraded, id_, "refused", slots[1])
    assert results.write(catalogue, found(id_, "healthy", slots[2]), slots[2])[:3] == (1, 1, 0)
    # What the old writer wrote, and whose message it had no time to delete, comes to the new one.
    assert results.write(catalogue, found(id_, "refused", slots[1]), slots[1])[:3] == (0, 0, 0)
    # The old writer does not touch the last check of the endpoint, which says healthy throughout.
    old_write(upgraded, id_, "refused", slots[3])
    assert results.write(catalogue, found(id_, "refused", slots[4]), slots[4])[:3] == (1, 0, 0)
    old_write(upgraded, id_, "healthy", slots[5])
    told = "SELECT verdict::text FROM metrics.server_health_metrics ORDER BY slot"
    wanted = ["healthy", "refused", "healthy", "refused", "refused", "healthy"]
    assert [verdict for (verdict,) in everything(upgraded, told)] == wanted
    changes = "SELECT from_status::text, to_status::text FROM metrics.status_transitions ORDER BY id"
    assert everything(upgraded, changes) == [("active", "error"), ("error", "active")] * 2


def test_a_check_of_the_address_that_the_release_before_has_changed_meanwhile_says_nothing(catalogue, upgraded):
    catalogue.read(DAYS)
    id_ = servers.identify(catalogue, "plain")
    slot = sweeps.now(catalogue)
    results.write(catalogue, found(id_, "healthy", slot), slot + timedelta(seconds=1))
    old_move(upgraded, "plain", "http://moved.example/mcp")
    assert results.write(catalogue, found(id_, "refused", slot), slot + timedelta(seconds=2)).checked == 0
    row = "SELECT e.url, h.verdict::text FROM registry.endpoints AS e JOIN registry.mcp_servers AS s"
    row += " ON s.endpoint_id = e.id LEFT JOIN registry.endpoint_health AS h USING (endpoint_id) WHERE s.name = 'plain'"
    assert everything(upgraded, row) == [("http://moved.example/mcp", None)]
    after = slot + timedelta(seconds=30)
    assert results.write(catalogue, found(id_, "refused", after), after)[:3] == (1, 0, 1)


# ------------------------------------------------------------------ 0012: owners

# How the release before removed a server and held its name, and ended that; it wrote no owner.
OLD_REMOVE_AND_HOLD = "SELECT registry.remove_and_hold(%(id)s, %(seconds)s)"
OLD_END_HOLD = "DELETE FROM registry.held_names WHERE name_key = registry.name_key(%(name)s) RETURNING name"
OLD_DELETE = "DELETE FROM registry.mcp_servers WHERE id = %(id)s RETURNING id"
OF_A_TEAM = Caller("token:1", "publisher", "payments")


def old_write_one(url: str, statement: LiteralString, **parameters: object) -> tuple[Any, ...] | None:
    """The row of a statement of the release before, as the role of its function."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT set_config('role', 'registry_writer', false)")
        return connection.execute(statement, parameters).fetchone()


@pytest.fixture
def with_a_team(upgraded):
    with psycopg.connect(upgraded, autocommit=True) as connection:
        connection.execute("INSERT INTO registry.teams (name) VALUES ('payments')")
    return upgraded


def owners(url: str) -> dict[str, str]:
    return dict(everything(url, "SELECT name, owner FROM registry.mcp_servers"))


def test_the_servers_that_were_there_belong_to_the_administrators_team(catalogue, with_a_team):
    assert owners(with_a_team) == dict.fromkeys(NAMES, "default")
    assert servers.replace(catalogue, ADMIN, parsed("plain"))["result"] == "updated"
    with pytest.raises(Forbidden, match="plain belongs to the team default"):
        servers.replace(catalogue, OF_A_TEAM, parsed("plain"))


def test_what_the_release_before_registers_meanwhile_belongs_to_that_team_too(catalogue, with_a_team):
    assert old_register(with_a_team, "meanwhile") is not None
    assert owners(with_a_team)["meanwhile"] == "default"
    with pytest.raises(Forbidden):
        servers.replace(catalogue, OF_A_TEAM, parsed("meanwhile"))
    assert servers.replace(catalogue, ADMIN, parsed("meanwhile"))["result"] == "updated"


def test_the_release_before_serves_and_changes_what_has_owners_and_leaves_them(catalogue, with_a_team):
    id_ = servers.register(catalogue, OF_A_TEAM, parsed("owned"))["id"]
    assert old_find(with_a_team, "owned") == "owned"
    old_move(with_a_team, "owned", "http://moved.example/mcp")
    assert json.loads(servers.detail(catalogue, id_))["endpoint_url"] == "http://moved.example/mcp"
    assert owners(with_a_team)["owned"] == "payments"
    assert old_write_one(with_a_team, OLD_DELETE, id=id_) == (id_,)


def test_a_name_that_the_release_before_holds_is_held_for_its_owner(catalogue, with_a_team):
    for name, caller in (("owned", OF_A_TEAM), ("other", ADMIN)):
        id_ = servers.register(catalogue, caller, parsed(name))["id"]
        assert old_write_one(with_a_team, OLD_REMOVE_AND_HOLD, id=id_, seconds=60) == (True,)
    assert old_write_one(with_a_team, OLD_REMOVE_AND_HOLD, id=10**9, seconds=60) == (False,)
    with pytest.raises(HeldName):
        servers.register(catalogue, OF_A_TEAM, parsed("owned"))
    with pytest.raises(Forbidden):
        servers.register(catalogue, OF_A_TEAM, parsed("other"))
    assert old_write_one(with_a_team, OLD_END_HOLD, name="owned") == ("owned",)
    servers.register(catalogue, OF_A_TEAM, parsed("owned"))
