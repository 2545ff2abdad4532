"""How much the registry may hold: what is counted, what is refused when it is full, and what goes on all the same."""

from __future__ import annotations

import json
from http import HTTPStatus

import psycopg
import pytest

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.catalogue.servers import Quota
from mcp_registry.edge.http import error_response
from mcp_registry.errors import DuplicateServer, QuotaExceeded
from tests.conftest import ADMIN, migrate
from tests.conftest import registration as document

# What a registration counts without its description.
NO_TOOLS = len("[]")


@pytest.fixture
def catalogue(database):
    rows(database, "DELETE FROM registry.mcp_servers")
    return database


def rows(database: Database, statement: str):
    assert database._connection is not None
    cursor = database._connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def sent(name: str, length: int = 0, **fields):
    return registration.parse(document(name, description="x" * length or None, tools=[], **fields))


def hold(database: Database, name: str, size: int) -> None:
    """A server that holds so many bytes, as far as anybody counts."""
    servers.register(database, ADMIN, sent(name))
    rows(database, f"UPDATE registry.mcp_servers SET bytes = {size} WHERE name = '{name}'")


def held(database: Database) -> tuple[int, int]:
    (row,) = rows(database, "SELECT sum(servers)::bigint, sum(bytes)::bigint FROM registry.server_counts")
    return row


def test_what_is_held_is_counted_through_everything_that_changes_it(catalogue):
    servers.register(catalogue, ADMIN, sent("one", 100))
    id_ = servers.register(catalogue, ADMIN, sent("two", 50))["id"]
    assert held(catalogue) == (2, 150 + 2 * NO_TOOLS)
    servers.replace(catalogue, ADMIN, sent("one", 10))
    assert held(catalogue) == (2, 60 + 2 * NO_TOOLS)
    servers.set_status(catalogue, ADMIN, id_, "inactive")
    rows(catalogue, "UPDATE registry.mcp_servers SET status = 'error' WHERE name = 'one'")
    assert held(catalogue) == (2, 60 + 2 * NO_TOOLS)
    servers.delete(catalogue, ADMIN, id_)
    assert held(catalogue) == (1, 10 + NO_TOOLS)


def test_the_bytes_are_those_of_tools_and_description_as_they_are_stored():
    tool = {"name": "é", "input_schema": {"type": "object"}}
    taken = registration.parse(document("sized", description="ü", tools=[tool | {"name": "e"}]))
    assert taken.size == len(taken.tools_json.encode()) + 2


@pytest.mark.parametrize("write", [servers.register, servers.replace])
def test_beyond_the_number_of_servers_a_new_one_is_refused_and_says_what_to_do(catalogue, write):
    quota = Quota(servers=2)
    write(catalogue, ADMIN, sent("one"), quota)
    write(catalogue, ADMIN, sent("two"), quota)
    with pytest.raises(QuotaExceeded, match=r"holds 2 servers.*remove.*MaxServers") as refused:
        write(catalogue, ADMIN, sent("three"), quota)
    answer = error_response(refused.value)
    assert (answer.status, json.loads(answer.body)["code"]) == (HTTPStatus.FORBIDDEN, "QUOTA_EXCEEDED")
    assert held(catalogue)[0] == 2


@pytest.mark.parametrize("write", [servers.register, servers.replace])
def test_beyond_the_bytes_a_new_server_is_refused_and_says_what_to_do(catalogue, write):
    hold(catalogue, "large", servers.MEGABYTE - 100)
    with pytest.raises(QuotaExceeded, match=r"1 MiB.*shorten.*MaxMegabytes"):
        write(catalogue, ADMIN, sent("two", 100), Quota(megabytes=1))
    write(catalogue, ADMIN, sent("two", 100 - NO_TOOLS), Quota(megabytes=1))


def test_a_server_that_exists_goes_on_being_updated_however_full_the_registry_is(catalogue):
    """It may move, shrink, and change; and what it is stays there where it may not grow."""
    hold(catalogue, "large", 2 * servers.MEGABYTE)
    for name in ("one", "two"):
        servers.register(catalogue, ADMIN, sent(name, 100))
    full = Quota(servers=1, megabytes=1)
    moved = sent("one", 100, endpoint_url="http://localhost:8081")
    answer = servers.replace(catalogue, ADMIN, moved, full)
    assert answer["result"] == "updated"
    assert servers.replace(catalogue, ADMIN, moved, full)["result"] == "unchanged"
    assert servers.replace(catalogue, ADMIN, sent("two", 99), full)["result"] == "updated"
    with pytest.raises(QuotaExceeded):
        servers.replace(catalogue, ADMIN, sent("two", 100), full)
    assert held(catalogue) == (3, 2 * servers.MEGABYTE + 199 + 2 * NO_TOOLS)
    assert '"endpoint_url":"http://localhost:8081"' in servers.detail(catalogue, answer["id"])


def test_a_server_may_grow_as_far_as_there_is_room(catalogue):
    hold(catalogue, "large", servers.MEGABYTE - 200)
    servers.register(catalogue, ADMIN, sent("one", 100))
    assert servers.replace(catalogue, ADMIN, sent("one", 190), Quota(megabytes=1))["result"] == "updated"


def test_a_name_that_is_taken_is_said_before_the_registry_is_full(catalogue):
    servers.register(catalogue, ADMIN, sent("one"))
    with pytest.raises(DuplicateServer):
        servers.register(catalogue, ADMIN, sent("one"), Quota(servers=1))


def test_a_quota_is_what_the_settings_say():
    assert Quota.of({"MAX_SERVERS": "7", "MAX_MEGABYTES": "3"}) == (7, 3)
    assert Quota.of({"MAX_SERVERS": ""}) == Quota()


def test_the_servers_of_the_release_before_are_counted_too(new_database):
    """0007 counts near enough; to the byte it is from the next change."""
    url = new_database()
    database = Database(url).begin(60)
    taken = registration.parse(document("old"))
    servers.register(database, ADMIN, taken)
    rows(database, "UPDATE registry.mcp_servers SET bytes = 0")
    assert held(database) == (1, 0)
    (path,) = migrate.MIGRATIONS.glob("0007_*.sql")
    with psycopg.connect(url) as connection:
        connection.execute(path.read_bytes())
    assert taken.size <= held(database)[1] <= 2 * taken.size + 500
    database.close()
