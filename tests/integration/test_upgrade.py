"""An upgrade of a catalogue that is there: its rows stay valid, and the release before goes on while this one comes."""

from __future__ import annotations

import json
import random
import shutil
import string

import psycopg
import pytest

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import DuplicateServer, ValidationFailed
from tests.conftest import PATIENCE, migrate
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
    servers.replace(catalogue, parsed("mariax", metadata={"tags": ["Newer"]}))
    assert (tagged(catalogue, "other"), tagged(catalogue, "newer")) == (0, 1)


def test_a_server_that_was_there_goes_on_registering_whatever_its_name(catalogue):
    for name in NAMES:
        assert servers.replace(catalogue, parsed(name))["result"] == "updated"
    with pytest.raises(ValidationFailed):
        servers.register(catalogue, parsed("4096"))


def test_what_looked_alike_by_the_old_rule_alone_is_registered_beside_it(catalogue):
    for name in ("marlax", "shard-11-1", "io.github.coop/notes"):
        assert servers.replace(catalogue, parsed(name))["result"] == "created"
        assert servers.replace(catalogue, parsed(name))["result"] == "unchanged"
    with pytest.raises(DuplicateServer, match="spelled mariax"):
        servers.register(catalogue, parsed("mar-iax"))


def test_while_both_releases_run_the_old_one_finds_what_the_new_one_writes(catalogue, upgraded):
    servers.register(catalogue, parsed("newer", display_name="Newer One"))
    assert old_find(upgraded, "newer") == "newer"
    assert old_register(upgraded, "NEWER") is None
    with psycopg.connect(upgraded) as connection:
        assert connection.execute(OLD_SEARCH, {"pattern": "%newer one%"}).fetchall() == [("newer",)]


def test_while_both_releases_run_the_new_one_finds_what_the_old_one_writes(catalogue, upgraded):
    old_register(upgraded, "older", "Straße")
    assert servers.list_page(catalogue, Filters(search="STRASSE"), 100, 0).total == 1
    assert servers.replace(catalogue, parsed("older"))["result"] == "updated"
    with pytest.raises(DuplicateServer):
        servers.register(catalogue, parsed("o-lder"))


def test_a_name_that_the_old_rule_refuses_is_still_refused_by_the_old_release(catalogue, upgraded):
    servers.register(catalogue, parsed("marlax"))
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
