"""Endpoints as registrations make them: set by hand, announced with a lease, disputed, held; and what is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from hashlib import sha256
from typing import Any, LiteralString

import psycopg
import pytest

from mcp_registry.aws import db
from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.catalogue import registration, servers
from mcp_registry.catalogue.servers import MAX_ENDPOINTS, Registered
from mcp_registry.dial import urls
from mcp_registry.edge.http import error_response
from mcp_registry.errors import (
    ConflictingServer,
    HeldName,
    QuotaExceeded,
    RegistrationRequired,
    ServerNotFound,
    ValidationFailed,
)
from mcp_registry.health import pulse
from tests.conftest import ADMIN, PATIENCE
from tests.conftest import registration as document
from tests.integration.test_servers import while_waiting

LEASE = 600
ONE, TWO, THREE = (f"http://localhost:{port}/mcp" for port in (8081, 8082, 8083))


def sent(name: str, url: str, **fields: Any) -> registration.Registration:
    return registration.parse(document(name, endpoint_url=url, **fields))


def rows(database: Database, statement: str) -> list[Any]:
    assert database._connection is not None
    cursor = database._connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def now(database: Database) -> datetime:
    """By the clock that every moment of an endpoint is of: a check that was asked before it moved says nothing."""
    ((moment,),) = rows(database, "SELECT now()")
    return moment


def announce(database: Database, name: str, url: str, **fields: Any) -> Registered:
    return servers.replace(database, ADMIN, sent(name, url, **fields), lease=LEASE)


def by_hand(database: Database, name: str, url: str, **fields: Any) -> Registered:
    return servers.replace(database, ADMIN, sent(name, url, **fields))


def found(database: Database, url: str, verdict: str) -> None:
    """A check of an endpoint found this."""
    rows(
        database,
        "INSERT INTO registry.endpoint_health (endpoint_id, verdict, checked_at, since)"
        f" SELECT id, '{verdict}', now(), now() FROM registry.endpoints WHERE url = '{url}'"
        "     ON CONFLICT (endpoint_id) DO UPDATE SET verdict = excluded.verdict",
    )


def endpoints(database: Database, *columns: str) -> list[Any]:
    """These columns of each endpoint, oldest first."""
    return rows(database, f"SELECT {', '.join(columns)} FROM registry.endpoints ORDER BY created_at, id")


def changes(database: Database) -> list[tuple[str, str]]:
    return rows(database, "SELECT change, url FROM metrics.endpoint_changes ORDER BY id")


def version(database: Database, id_: int) -> str:
    return json.loads(servers.detail(database, id_))["version"]


def in_use(database: Database, id_: int) -> str:
    (row,) = rows(
        database,
        "SELECT s.endpoint_url, e.url FROM registry.mcp_servers AS s"
        f" JOIN registry.endpoints AS e ON e.id = s.endpoint_id WHERE s.id = {id_}",
    )
    assert row[0] == row[1]
    return row[0]


def unwritten(database: Database) -> list[Any]:
    """What is another after any write."""
    return [
        rows(database, f"SELECT ctid, xmin, cmin, id FROM {table} ORDER BY id")
        for table in ("registry.mcp_servers", "registry.endpoints", "metrics.endpoint_changes")
    ]


def move_back(database: Database, url: str, column: str, interval: str) -> None:
    rows(database, f"UPDATE registry.endpoints SET {column} = now() - interval '{interval}' WHERE url = '{url}'")


@pytest.fixture
def catalogue(database: Database) -> Database:
    rows(database, "DELETE FROM registry.mcp_servers")
    rows(database, "DELETE FROM registry.held_names")
    return database


def test_a_new_server_has_the_endpoint_that_it_registered_and_is_looked_at(catalogue):
    created = servers.register(catalogue, ADMIN, sent("new", ONE, health_url="/up"))
    ((number, *kept),) = endpoints(catalogue, "id", "url", "health_url", "declared", "lease_until")
    assert kept == [ONE, "/up", True, None]
    assert created.visit == (now(catalogue), created["id"], number, ONE, "/up", None, None)
    assert in_use(catalogue, created["id"]) == ONE
    # A message that is lost is made good.
    assert endpoints(catalogue, "introduce_at = now() + interval '30 seconds'") == [(True,)]


def test_the_longest_address_fits_the_index(catalogue):
    """Which takes no more than a third of a page, and compresses what is shorter by that."""
    noise = "".join(sha256(bytes([n])).hexdigest() for n in range(32))
    url = f"{ONE}/{noise}"[: urls.MAX_LENGTH]
    assert announce(catalogue, "long", url)["result"] == "created"


def test_a_new_server_that_announces_itself_has_a_lease(catalogue):
    created = announce(catalogue, "new", ONE)
    assert created["result"] == "created"
    assert created.visit is not None
    assert endpoints(catalogue, "declared", "extract(epoch FROM lease_until - now())::integer") == [(False, LEASE)]


def test_each_replica_adds_its_endpoint_and_leaves_the_others_alone(catalogue):
    id_ = announce(catalogue, "replicas", ONE)["id"]
    found(catalogue, ONE, "healthy")
    rows(catalogue, "UPDATE registry.mcp_servers SET updated_at = '2026-01-01'")
    added = announce(catalogue, "replicas", TWO)
    assert added["result"] == "updated"
    assert added.visit is not None and added.visit[3] == TWO
    assert endpoints(catalogue, "url", "declared", "conflict_at") == [(ONE, False, None), (TWO, False, None)]
    assert changes(catalogue) == [("added", TWO)]
    # Which one is used is for the checks to say, and what is registered has not changed.
    assert in_use(catalogue, id_) == ONE
    assert rows(catalogue, "SELECT updated_at = '2026-01-01' FROM registry.mcp_servers") == [(True,)]


def test_a_server_that_moved_is_used_where_it_is_once_it_is_known_to_be_down_where_it_was(catalogue):
    id_ = announce(catalogue, "moved", ONE)["id"]
    found(catalogue, ONE, "refused")
    announce(catalogue, "moved", TWO)
    assert in_use(catalogue, id_) == TWO


def test_an_announcement_of_an_endpoint_that_is_up_writes_nothing(catalogue):
    announce(catalogue, "still", ONE)
    announce(catalogue, "still", TWO)
    for url in (ONE, TWO):
        found(catalogue, url, "healthy")
    before = unwritten(catalogue)
    for url in (ONE, TWO):
        again = announce(catalogue, "still", url)
        assert (again["result"], again.visit) == ("unchanged", None)
        assert servers.shake_hands(catalogue, ADMIN, sent("still", url).body_digest, LEASE) is None
    assert unwritten(catalogue) == before


def test_what_changes_nothing_is_one_statement(catalogue, monkeypatch):
    announce(catalogue, "counted", ONE)
    found(catalogue, ONE, "healthy")
    run = []
    real = psycopg.Cursor.execute

    def execute(self, query, *arguments, **keywords):
        run.append(query)
        return real(self, query, *arguments, **keywords)

    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    announce(catalogue, "counted", ONE)
    servers.shake_hands(catalogue, ADMIN, sent("counted", ONE).body_digest, LEASE)
    assert run == [db._numbered(statement)[0] for statement in (servers.FIND, servers.ANNOUNCED)]


@pytest.mark.parametrize("shakes_hands", [True, False])
def test_a_lease_that_is_over_is_renewed_by_the_next_announcement(catalogue, shakes_hands):
    announce(catalogue, "renewed", ONE)
    found(catalogue, ONE, "healthy")
    move_back(catalogue, ONE, "lease_until", "1 second")
    if shakes_hands:
        assert servers.shake_hands(catalogue, ADMIN, sent("renewed", ONE).body_digest, LEASE) is None
    else:
        assert announce(catalogue, "renewed", ONE)["result"] == "unchanged"
    assert endpoints(catalogue, "lease_until > now()") == [(True,)]


@pytest.mark.parametrize("shakes_hands", [True, False])
def test_who_announces_itself_and_is_down_is_looked_at_at_once(catalogue, shakes_hands):
    id_ = announce(catalogue, "back", ONE)["id"]
    found(catalogue, ONE, "refused")
    move_back(catalogue, ONE, "visited_at", "3 seconds")
    rows(catalogue, "UPDATE registry.endpoints SET era = 'legacy', introduce_at = 'infinity'")
    if shakes_hands:
        visit = servers.shake_hands(catalogue, ADMIN, sent("back", ONE).body_digest, LEASE)
    else:
        visit = announce(catalogue, "back", ONE).visit
    ((number,),) = endpoints(catalogue, "id")
    assert visit == (now(catalogue), id_, number, ONE, None, "legacy", "refused")
    assert endpoints(catalogue, "introduce_at = now() + interval '30 seconds'") == [(True,)]


@pytest.mark.parametrize("verdict", ["refused", None])
@pytest.mark.parametrize("shakes_hands", [True, False])
def test_who_is_looked_at_is_not_looked_at_for_each_worker_that_announces_it(catalogue, verdict, shakes_hands):
    digest = sent("workers", ONE).body_digest

    def visit() -> servers.Visit | None:
        if shakes_hands:
            return servers.shake_hands(catalogue, ADMIN, digest, LEASE)
        return announce(catalogue, "workers", ONE).visit

    assert announce(catalogue, "workers", ONE).visit is not None
    if verdict:
        found(catalogue, ONE, verdict)
    assert visit() is None
    move_back(catalogue, ONE, "visited_at", "3 seconds")
    assert visit() is not None
    assert visit() is None


def test_who_moves_to_and_fro_is_visited_once_and_then_looked_at_by_the_dispatcher(catalogue):
    by_hand(catalogue, "restless", ONE)
    rows(catalogue, "UPDATE registry.endpoints SET introduce_at = now() + interval '1 hour'")
    move_back(catalogue, ONE, "visited_at", "1 second")
    for health_url in ("/one", "/two"):
        assert by_hand(catalogue, "restless", ONE, health_url=health_url).visit is None
        assert endpoints(catalogue, "introduce_at = now() + interval '30 seconds'") == [(True,)]
    rows(catalogue, "UPDATE registry.endpoints SET introduce_at = now()")  # nobody can put it off by moving on
    assert by_hand(catalogue, "restless", ONE).visit is None
    assert endpoints(catalogue, "introduce_at = now()") == [(True,)]


def test_a_server_that_is_taken_out_and_put_back_again_and_again_is_visited_once(catalogue):
    id_ = announce(catalogue, "switched", ONE)["id"]
    move_back(catalogue, ONE, "visited_at", "3 seconds")
    visits = []
    for _ in range(3):
        servers.set_status(catalogue, ADMIN, id_, "inactive")
        visits.append(servers.set_status(catalogue, ADMIN, id_, "active").visit)
    assert [visit is not None for visit in visits] == [True, False, False]
    assert endpoints(catalogue, "introduce_at = now()") == [(True,)]


def test_nobody_looks_at_a_server_that_an_operator_took_out(catalogue):
    id_ = announce(catalogue, "out", ONE)["id"]
    servers.set_status(catalogue, ADMIN, id_, "inactive")
    found(catalogue, ONE, "refused")
    assert announce(catalogue, "out", ONE).visit is None
    assert announce(catalogue, "out", TWO).visit is None
    assert announce(catalogue, "out", ONE, version="2").visit is None
    assert servers.shake_hands(catalogue, ADMIN, sent("out", ONE, version="2").body_digest, LEASE) is None


def test_a_registration_by_hand_sets_the_one_address_and_keeps_what_is_known_of_it(catalogue):
    announce(catalogue, "set", ONE)
    announce(catalogue, "set", TWO)
    found(catalogue, TWO, "healthy")
    rows(catalogue, "UPDATE registry.endpoints SET pulse = 'known'")
    answer = by_hand(catalogue, "set", TWO)
    assert (answer["result"], answer.visit) == ("updated", None)
    assert in_use(catalogue, answer["id"]) == TWO
    assert endpoints(catalogue, "url", "declared", "lease_until", "pulse") == [(TWO, True, None, "known")]
    assert rows(catalogue, "SELECT verdict::text FROM registry.endpoint_health") == [("healthy",)]
    assert changes(catalogue) == [("added", TWO), ("removed", ONE)]
    before = unwritten(catalogue)
    assert by_hand(catalogue, "set", TWO)["result"] == "unchanged"
    assert unwritten(catalogue) == before


def test_an_address_that_is_set_by_hand_and_announces_itself_stays_the_declared_one(catalogue):
    by_hand(catalogue, "both", ONE)
    assert announce(catalogue, "both", ONE)["result"] == "unchanged"
    assert endpoints(catalogue, "declared", "lease_until > now()") == [(True, True)]
    assert by_hand(catalogue, "both", ONE)["result"] == "unchanged"
    assert announce(catalogue, "both", ONE, version="2")["result"] == "updated"
    assert endpoints(catalogue, "declared") == [(True,)]


def test_a_digest_is_enough_for_the_spelling_that_was_announced_last(catalogue):
    announce(catalogue, "spelled", ONE)
    found(catalogue, ONE, "healthy")
    assert announce(catalogue, "spelled", ONE, version=None)["result"] == "unchanged"
    servers.shake_hands(catalogue, ADMIN, sent("spelled", ONE, version=None).body_digest, LEASE)


@pytest.mark.parametrize("register", [announce, by_hand])
def test_another_health_url_takes_nothing_from_a_server_but_the_pulse_that_asked_the_one_before(catalogue, register):
    signature = pulse.Signature(200, "application/json", '{"status":str}')
    learnt = {question: pulse.write(pulse.Pulse(question, signature, 5.0)) for question in ("health_url", "no JSON")}
    id_ = register(catalogue, "other-health", ONE, health_url="/up")["id"]
    found(catalogue, ONE, "healthy")
    rows(catalogue, "UPDATE registry.endpoints SET era = 'legacy'")
    checked = json.loads(servers.detail(catalogue, id_))["last_check"]
    for health_url, question, kept in (
        ("/well", "no JSON", learnt["no JSON"]),
        ("/up", "health_url", None),
        (None, "no JSON", learnt["no JSON"]),
        ("/up", "no JSON", learnt["no JSON"]),
        (None, "health_url", None),
    ):
        statement = f"UPDATE registry.endpoints SET pulse = '{learnt[question]}', moved_at = '2026-01-01'"
        rows(catalogue, f"{statement}, visited_at = NULL")
        moved = register(catalogue, "other-health", ONE, health_url=health_url)
        assert (moved["result"], moved["status"]) == ("updated", "active")
        # It is looked at as one that was up, which is called down by a second look only.
        assert moved.visit is not None and moved.visit[4:] == (health_url, "legacy", "healthy")
        # What was asked at the health URL before says nothing any more.
        assert endpoints(catalogue, "health_url", "pulse", "moved_at = now()") == [(health_url, kept, True)]
        detail = json.loads(servers.detail(catalogue, id_))
        assert (detail["health_url"], detail["verdict"], detail["last_check"]) == (health_url, "healthy", checked)


def test_a_retired_endpoint_that_announces_itself_is_back_and_the_youngest(catalogue):
    for url in (ONE, TWO):
        announce(catalogue, "returns", url)
        move_back(catalogue, url, "created_at", "1 hour")
        move_back(catalogue, url, "visited_at", "1 hour")
    found(catalogue, ONE, "healthy")  # never mind of what: a digest is not enough
    move_back(catalogue, ONE, "retired_at", "1 minute")
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("returns", ONE).body_digest, LEASE)
    back = announce(catalogue, "returns", ONE)
    assert back["result"] == "updated" and back.visit is not None
    assert endpoints(catalogue, "url", "retired_at") == [(TWO, None), (ONE, None)]
    assert rows(catalogue, "SELECT FROM registry.endpoint_health") == []
    assert changes(catalogue) == [("added", TWO), ("added", ONE)]


def test_who_retired_over_a_day_ago_makes_room_for_the_next(catalogue):
    announce(catalogue, "pruned", ONE)
    announce(catalogue, "pruned", TWO)
    announce(catalogue, "pruned", THREE)
    for url, ago in ((ONE, "25 hours"), (TWO, "23 hours")):
        move_back(catalogue, url, "retired_at", ago)
    announce(catalogue, "pruned", "http://localhost:8084/mcp")
    assert endpoints(catalogue, "url") == [(TWO,), (THREE,), ("http://localhost:8084/mcp",)]


@pytest.mark.parametrize("fields", [{}, {"version": "2"}])
def test_of_those_that_retired_the_newest_hundred_are_kept(catalogue, fields):
    announce(catalogue, "pruned", ONE)
    rows(
        catalogue,
        "INSERT INTO registry.endpoints (server_id, url, declared, retired_at)"
        " SELECT server_id, 'http://localhost/' || n, false, now() - n * interval '1 minute'"
        "   FROM registry.endpoints CROSS JOIN generate_series(1, 150) AS n",
    )
    announce(catalogue, "pruned", TWO, **fields)
    kept = rows(catalogue, "SELECT count(*), max(url) FILTER (WHERE url LIKE '%/100') FROM registry.endpoints")
    assert kept == [(102, "http://localhost/100")]
    announce(catalogue, "pruned", "http://localhost/1", **fields)
    assert endpoints(catalogue, "count(*) OVER ()")[0] == (102,)


def test_a_server_has_a_hundred_endpoints_at_most_and_those_it_has_go_on(catalogue):
    announce(catalogue, "many", ONE)
    rows(
        catalogue,
        "INSERT INTO registry.endpoints (server_id, url, declared, body_digest, offer_digest)"
        f" SELECT server_id, 'http://localhost/' || n, false, '', offer_digest"
        f"   FROM registry.endpoints CROSS JOIN generate_series(2, {MAX_ENDPOINTS}) AS n",
    )
    for fields in ({}, {"version": "2"}):
        with pytest.raises(QuotaExceeded, match="100 endpoints"):
            announce(catalogue, "many", TWO, **fields)
    assert announce(catalogue, "many", ONE, version="2")["result"] == "updated"
    rows(catalogue, "UPDATE registry.endpoints SET retired_at = now() WHERE url = 'http://localhost/2'")
    assert announce(catalogue, "many", TWO, version="2")["result"] == "updated"


def test_a_new_release_is_what_its_first_replica_says_and_the_others_follow(catalogue):
    id_ = announce(catalogue, "release", ONE, version="1")["id"]
    announce(catalogue, "release", TWO, version="1")
    for url in (ONE, TWO):
        found(catalogue, url, "healthy")
    assert announce(catalogue, "release", TWO, version="2")["result"] == "updated"
    assert version(catalogue, id_) == "2"
    assert announce(catalogue, "release", ONE, version="2")["result"] == "unchanged"
    assert endpoints(catalogue, "url", "conflict_at") == [(ONE, None), (TWO, None)]
    for url in (ONE, TWO):
        assert servers.shake_hands(catalogue, ADMIN, sent("release", url, version="2").body_digest, LEASE) is None


@pytest.fixture
def disputed(catalogue: Database) -> int:
    """A server of two endpoints that are up and offer different things, of which the younger spoke last."""
    id_ = announce(catalogue, "disputed", ONE, version="first")["id"]
    found(catalogue, ONE, "healthy")
    announce(catalogue, "disputed", TWO, version="second")
    found(catalogue, TWO, "healthy")
    rows(catalogue, f"SELECT registry.use_endpoints(ARRAY[{id_}])")
    for url, ago in ((ONE, "2 hours"), (TWO, "1 hour")):
        move_back(catalogue, url, "created_at", ago)
    assert (version(catalogue, id_), in_use(catalogue, id_)) == ("second", TWO)
    return id_


def test_of_two_servers_under_one_name_the_first_keeps_it(catalogue, disputed):
    put_back = announce(catalogue, "disputed", ONE, version="first")
    assert put_back["result"] == "updated"
    assert version(catalogue, disputed) == "first"
    assert in_use(catalogue, disputed) == ONE
    assert endpoints(catalogue, "url", "conflict_at IS NULL") == [(ONE, True), (TWO, False)]
    assert changes(catalogue) == [("added", TWO), ("conflict", TWO)]
    # A handshake would hide it.
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("disputed", TWO, version="second").body_digest, LEASE)
    with pytest.raises(ConflictingServer, match=ONE) as refused:
        announce(catalogue, "disputed", TWO, version="second")
    answer = error_response(refused.value)
    assert (answer.status, json.loads(answer.body)["details"][0]["type"]) == (409, "conflict")
    assert version(catalogue, disputed) == "first"
    assert changes(catalogue) == [("added", TWO), ("conflict", TWO)]


@pytest.mark.parametrize("verdict", ["healthy", None])
def test_what_was_registered_by_hand_is_not_taken_over_by_an_announcement_from_elsewhere(catalogue, verdict):
    id_ = by_hand(catalogue, "owned", ONE, version="first")["id"]
    if verdict:
        found(catalogue, ONE, verdict)
    announce(catalogue, "owned", TWO, version="first")
    before = unwritten(catalogue)
    with pytest.raises(ConflictingServer, match=ONE):
        announce(catalogue, "owned", THREE, version="second")
    assert unwritten(catalogue) == before
    with pytest.raises(ConflictingServer, match=ONE):
        announce(catalogue, "owned", TWO, version="second")
    assert version(catalogue, id_) == "first"
    assert endpoints(catalogue, "url", "conflict_at IS NULL") == [(ONE, True), (TWO, False)]
    # What it said before would be the server's again; but a handshake would not end the conflict.
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("owned", TWO, version="first").body_digest, LEASE)
    assert announce(catalogue, "owned", TWO, version="first")["result"] == "updated"
    assert endpoints(catalogue, "conflict_at") == [(None,), (None,)]


def test_what_was_registered_by_hand_announces_its_new_release_from_its_own_address(catalogue):
    id_ = by_hand(catalogue, "owned", ONE, version="first")["id"]
    announce(catalogue, "owned", TWO, version="first")
    for url in (ONE, TWO):
        found(catalogue, url, "healthy")
        move_back(catalogue, url, "created_at", "1 hour")
    move_back(catalogue, TWO, "created_at", "2 hours")
    for release in ("second", "first", "second"):
        assert announce(catalogue, "owned", ONE, version=release)["result"] == "updated"
        assert version(catalogue, id_) == release


def test_what_was_registered_by_hand_and_is_down_may_be_replaced(catalogue):
    id_ = by_hand(catalogue, "owned", ONE, version="first")["id"]
    found(catalogue, ONE, "refused")
    assert announce(catalogue, "owned", TWO, version="second")["result"] == "updated"
    assert version(catalogue, id_) == "second"


TOOLS = [{"name": name, "description": "x", "input_schema": {"type": "object"}} for name in ("a", "c", "d")]


@pytest.mark.parametrize("verdict", ["healthy", None])
def test_who_is_new_and_has_no_tool_of_the_server_that_answers_is_another_server(catalogue, verdict):
    id_ = announce(catalogue, "tooled", ONE, tools=TOOLS[:2])["id"]
    if verdict:
        found(catalogue, ONE, verdict)
    before = unwritten(catalogue)
    for tools in (TOOLS[2:], []):
        with pytest.raises(ConflictingServer, match=ONE):
            announce(catalogue, "tooled", TWO, tools=tools)
    assert unwritten(catalogue) == before
    assert announce(catalogue, "tooled", TWO, tools=[TOOLS[0], TOOLS[2]])["result"] == "updated"
    # Who is known under this name may well have other tools now.
    assert announce(catalogue, "tooled", TWO, tools=TOOLS[2:])["result"] == "updated"
    assert json.loads(servers.detail(catalogue, id_))["tools"][0]["name"] == "d"


def test_who_has_no_tool_of_a_server_that_does_not_answer_takes_its_place(catalogue):
    announce(catalogue, "tooled", ONE, tools=TOOLS[:2])
    found(catalogue, ONE, "refused")
    assert announce(catalogue, "tooled", TWO, tools=TOOLS[2:])["result"] == "updated"


def test_a_server_without_tools_may_come_to_have_some(catalogue):
    announce(catalogue, "tooled", ONE, tools=[])
    found(catalogue, ONE, "healthy")
    assert announce(catalogue, "tooled", TWO, tools=TOOLS)["result"] == "updated"


def test_who_has_retired_has_given_the_name_up(catalogue, disputed):
    move_back(catalogue, ONE, "retired_at", "1 minute")
    assert announce(catalogue, "disputed", ONE, version="first")["result"] == "updated"
    assert endpoints(catalogue, "url", "conflict_at IS NULL") == [(TWO, True), (ONE, True)]


def test_who_has_retired_is_in_no_conflict(catalogue, disputed):
    announce(catalogue, "disputed", THREE, version="second")
    move_back(catalogue, THREE, "retired_at", "1 minute")
    announce(catalogue, "disputed", ONE, version="first")
    assert endpoints(catalogue, "url", "conflict_at IS NULL") == [(ONE, True), (TWO, False), (THREE, True)]


def test_who_comes_second_is_told_so_where_the_first_has_not_heard_of_it_yet(catalogue, disputed):
    rows(catalogue, "UPDATE registry.mcp_servers SET offer_digest = (SELECT offer_digest FROM registry.endpoints"
                    f" WHERE url = '{ONE}'), endpoint_url = '{TWO}', endpoint_id = (SELECT id FROM registry.endpoints"
                    f" WHERE url = '{TWO}')")  # fmt: skip
    with pytest.raises(ConflictingServer, match=ONE):
        announce(catalogue, "disputed", TWO, version="second")
    assert endpoints(catalogue, "url", "conflict_at IS NULL") == [(ONE, True), (TWO, False)]
    assert in_use(catalogue, disputed) == ONE
    assert changes(catalogue) == [("added", TWO), ("conflict", TWO)]


def test_a_conflict_is_over_where_the_other_offers_the_same(catalogue, disputed):
    announce(catalogue, "disputed", ONE, version="first")
    assert announce(catalogue, "disputed", TWO, version="first")["result"] == "updated"
    assert endpoints(catalogue, "conflict_at") == [(None,), (None,)]


def test_a_conflict_is_over_where_the_first_comes_to_offer_what_the_other_does(catalogue, disputed):
    announce(catalogue, "disputed", ONE, version="first")
    announce(catalogue, "disputed", ONE, version="second")
    assert endpoints(catalogue, "conflict_at") == [(None,), (None,)]


def test_a_conflict_is_over_where_the_first_is_down(catalogue, disputed):
    announce(catalogue, "disputed", ONE, version="first")
    found(catalogue, ONE, "refused")
    assert announce(catalogue, "disputed", TWO, version="second")["result"] == "updated"
    assert version(catalogue, disputed) == "second"
    assert endpoints(catalogue, "conflict_at") == [(None,), (None,)]


def test_a_registration_by_hand_ends_a_conflict(catalogue, disputed):
    announce(catalogue, "disputed", ONE, version="first")
    by_hand(catalogue, "disputed", TWO, version="second")
    assert endpoints(catalogue, "url", "conflict_at") == [(TWO, None)]


def test_a_digest_by_hand_is_enough_where_the_server_has_that_address_alone(catalogue):
    digest = sent("by-hand", ONE).body_digest
    by_hand(catalogue, "by-hand", ONE)
    servers.shake_hands(catalogue, ADMIN, digest)
    announce(catalogue, "by-hand", TWO)
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, digest)
    by_hand(catalogue, "by-hand", ONE)
    servers.shake_hands(catalogue, ADMIN, digest)


def test_a_digest_with_a_lease_is_enough_for_each_replica_and_for_no_stranger(catalogue):
    for url in (ONE, TWO):
        announce(catalogue, "digests", url)
    for url in (ONE, TWO):
        servers.shake_hands(catalogue, ADMIN, sent("digests", url).body_digest, LEASE)
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("digests", THREE).body_digest, LEASE)


def test_a_server_that_is_put_back_into_service_is_looked_at_at_once_and_unknown_until_then(catalogue):
    id_ = announce(catalogue, "returned", ONE)["id"]
    announce(catalogue, "returned", TWO)
    announce(catalogue, "returned", THREE)
    for url in (ONE, TWO, THREE):
        found(catalogue, url, "refused")
    rows(
        catalogue, "UPDATE registry.endpoints SET moved_at = '2026-01-01', introduce_at = 'infinity', visited_at = NULL"
    )
    move_back(catalogue, THREE, "retired_at", "1 minute")
    assert servers.set_status(catalogue, ADMIN, id_, "inactive").visit is None
    visit = servers.set_status(catalogue, ADMIN, id_, "active").visit
    assert visit is not None and (*visit[:2], *visit[3:]) == (now(catalogue), id_, ONE, None, None, None)
    assert rows(catalogue, "SELECT count(*) FROM registry.endpoint_health") == [(1,)]  # of who retired
    # Postgres 15 takes nothing off infinity.
    in_seconds = "CASE WHEN isfinite(introduce_at) THEN extract(epoch FROM introduce_at - now())::integer END"
    asked = endpoints(catalogue, "url", in_seconds, "moved_at = now()")
    assert asked == [(ONE, 30, True), (TWO, 0, True), (THREE, None, False)]
    assert servers.set_status(catalogue, ADMIN, id_, "active").visit is None


def test_a_server_in_error_is_looked_at_when_an_operator_says_that_it_is_there(catalogue):
    id_ = announce(catalogue, "mended", ONE)["id"]
    found(catalogue, ONE, "refused")
    rows(catalogue, "UPDATE registry.mcp_servers SET status = 'error'")
    move_back(catalogue, ONE, "visited_at", "3 seconds")
    answer = servers.set_status(catalogue, ADMIN, id_, "active")
    assert answer["status"] == "error"
    assert answer.visit is not None and answer.visit[6] == "refused"
    assert rows(catalogue, "SELECT verdict::text FROM registry.endpoint_health") == [("refused",)]


def test_a_name_is_held_and_said_for_how_long(catalogue):
    id_ = announce(catalogue, "held", ONE)["id"]
    servers.delete(catalogue, ADMIN, id_, hold=3600)
    assert endpoints(catalogue, "id") == []
    for register in (servers.register, servers.replace):
        with pytest.raises(HeldName, match="3600 seconds more") as refused:
            register(catalogue, ADMIN, sent("HELD", ONE))
        answer = error_response(refused.value)
        assert (answer.status, answer.headers["Retry-After"]) == (409, "3600")
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("held", ONE).body_digest, LEASE)
    assert announce(catalogue, "another", ONE)["result"] == "created"
    rows(catalogue, "UPDATE registry.held_names SET held_until = now() - interval '1 second'")
    assert announce(catalogue, "held", ONE)["result"] == "created"


def test_a_hold_that_is_over_goes_with_the_next_one(catalogue):
    for name in ("one", "two"):
        servers.delete(catalogue, ADMIN, announce(catalogue, name, ONE)["id"], hold=60)
        rows(catalogue, "UPDATE registry.held_names SET held_until = now() - interval '1 second' WHERE name = 'one'")
    assert rows(catalogue, "SELECT name FROM registry.held_names") == [("two",)]


@pytest.mark.parametrize(("held", "look_alike"), [("hello", "heIlo"), ("port-10", "port-1O")])
def test_what_reads_like_a_name_is_held_with_it(catalogue, held, look_alike):
    servers.delete(catalogue, ADMIN, announce(catalogue, held, ONE)["id"], hold=3600)
    for register in (servers.register, announce_registration):
        with pytest.raises(HeldName, match="3600 seconds more"):
            register(catalogue, ADMIN, sent(look_alike, ONE))


def announce_registration(database: Database, caller: Caller, given: registration.Registration) -> Registered:
    return servers.replace(database, caller, given, lease=LEASE)


def test_a_hold_is_ended_by_its_name_and_the_name_can_be_registered(catalogue):
    servers.delete(catalogue, ADMIN, announce(catalogue, "held", ONE)["id"], hold=3600)
    servers.end_hold(catalogue, ADMIN, "Held")
    id_ = announce(catalogue, "held", ONE)["id"]
    # What is not held has no hold that ends; and no server goes with one.
    for name in ("held", "other", id_):
        with pytest.raises(ServerNotFound):
            servers.end_hold(catalogue, ADMIN, name)
    assert servers.identify(catalogue, "held") == id_


def test_no_server_is_no_hold(catalogue):
    with pytest.raises(ServerNotFound):
        servers.delete(catalogue, ADMIN, 1, hold=60)


@pytest.mark.parametrize(
    "query", [{"hold": text} for text in ("", "59", "604801", "1e3", "٦٠٠", "-60")] + [{"held": "60"}]
)
def test_a_hold_is_a_minute_to_a_week(query):
    with pytest.raises(ValidationFailed):
        servers.parse_hold(query)


def test_a_hold_that_is_well_said_is_read():
    queries = ({}, {"hold": "0"}, {"hold": "60"}, {"hold": "604800"})
    assert [servers.parse_hold(query) for query in queries] == [None, 0, 60, 604_800]


# ------------------------------------------------------------------ at the same moment


@pytest.fixture
def racing(database_url: str) -> Iterator[tuple[Database, Database]]:
    """Two sessions, of which the first has a transaction open, and a server `raced` with the endpoint ONE."""
    first, second = (Database(database_url).begin(PATIENCE) for _ in range(2))
    announce(first, "raced", ONE)
    yield first, second
    rows(first, "DELETE FROM registry.mcp_servers WHERE name_key = 'raced'")
    rows(first, "DELETE FROM registry.held_names")
    for database in (first, second):
        database.close()


def after(racing: tuple[Database, Database], one: Callable[[Database], object], two: Callable[[Database], Any]) -> Any:
    """What comes of the second where it had to wait for the first: its answer, or its error."""
    first, second = racing
    second.read("SELECT")
    assert first._connection is not None
    with first._connection.transaction():
        one(first)
        thread, outcome = while_waiting(first._connection, second, lambda: two(second))
    thread.join()
    return outcome[0]


def of_raced(database: Database, *columns: str) -> list[Any]:
    return rows(
        database,
        f"SELECT {', '.join(columns)} FROM registry.endpoints AS e JOIN registry.mcp_servers AS s ON s.id = server_id"
        " WHERE s.name = 'raced' ORDER BY e.url",
    )


@pytest.mark.parametrize("second", [TWO, THREE])
def test_two_replicas_that_announce_themselves_at_once_are_both_there(racing, second):
    answer = after(racing, lambda one: announce(one, "raced", TWO), lambda two: announce(two, "raced", second))
    assert answer["result"] == "updated"
    assert of_raced(racing[0], "e.url") == [(url,) for url in sorted({ONE, TWO, second})]


def test_of_two_workers_that_announce_themselves_at_once_one_has_the_endpoint_visited(racing):
    found(racing[0], ONE, "refused")
    move_back(racing[0], ONE, "visited_at", "3 seconds")
    answers = []
    answer = after(
        racing,
        lambda one: answers.append(announce(one, "raced", ONE).visit),
        lambda two: announce(two, "raced", ONE),
    )
    assert answers[0] is not None
    assert answer.visit is None


def test_of_two_that_are_each_the_hundredth_at_once_one_has_room(racing):
    rows(
        racing[0],
        "INSERT INTO registry.endpoints (server_id, url, declared, body_digest, offer_digest)"
        " SELECT s.id, 'http://localhost/' || n, false, '', offer_digest"
        f"  FROM registry.mcp_servers AS s CROSS JOIN generate_series(3, {MAX_ENDPOINTS}) AS n WHERE s.name = 'raced'",
    )
    answer = after(racing, lambda one: announce(one, "raced", TWO), lambda two: announce(two, "raced", THREE))
    assert isinstance(answer, QuotaExceeded)
    assert len(of_raced(racing[0], "e.id")) == MAX_ENDPOINTS


@pytest.mark.parametrize("second", [TWO, THREE])
def test_two_that_take_the_place_of_one_that_is_down_at_once_are_both_there(racing, second):
    found(racing[0], ONE, "refused")
    after(racing, lambda one: announce(one, "raced", TWO), lambda two: announce(two, "raced", second))
    ((used,),) = rows(racing[0], "SELECT endpoint_id FROM registry.mcp_servers WHERE name = 'raced'")
    assert used in {number for (number,) in of_raced(racing[0], "e.id")}
    assert [url for (url,) in of_raced(racing[0], "e.url")] == sorted({ONE, TWO, second})


def test_an_announcement_that_waited_for_a_registration_by_hand_adds_itself_to_it(racing):
    answer = after(racing, lambda one: by_hand(one, "raced", THREE), lambda two: announce(two, "raced", TWO))
    assert answer["result"] == "updated"
    assert of_raced(racing[0], "e.url", "e.declared") == [(TWO, False), (THREE, True)]


def test_an_announcement_that_waited_for_another_content_replaces_that(racing):
    after(
        racing,
        lambda one: announce(one, "raced", THREE, version="2"),
        lambda two: announce(two, "raced", TWO),
    )
    assert of_raced(racing[0], "e.url", "e.offer_digest = s.offer_digest") == [(ONE, True), (TWO, True), (THREE, False)]


def test_an_announcement_that_waited_for_another_content_by_hand_is_refused(racing):
    answer = after(
        racing,
        lambda one: by_hand(one, "raced", THREE, version="2"),
        lambda two: announce(two, "raced", TWO),
    )
    assert isinstance(answer, ConflictingServer)
    assert of_raced(racing[0], "e.url", "e.offer_digest = s.offer_digest") == [(THREE, True)]


def test_a_registration_by_hand_that_waited_for_an_announcement_removes_it(racing):
    answer = after(racing, lambda one: announce(one, "raced", TWO), lambda two: by_hand(two, "raced", THREE))
    assert answer["result"] == "updated"
    assert of_raced(racing[0], "e.url", "e.declared") == [(THREE, True)]


def test_an_announcement_that_waited_for_a_delete_makes_the_server_anew(racing):
    (number,) = {id_ for (id_,) in of_raced(racing[0], "s.id")}
    answer = after(racing, lambda one: servers.delete(one, ADMIN, number), lambda two: announce(two, "raced", TWO))
    assert (answer["result"], answer["id"] > number) == ("created", True)
    assert of_raced(racing[0], "e.url") == [(TWO,)]


def test_a_delete_that_waited_for_an_announcement_takes_its_endpoint_along(racing):
    (number,) = {id_ for (id_,) in of_raced(racing[0], "s.id")}
    answer = after(racing, lambda one: announce(one, "raced", TWO), lambda two: servers.delete(two, ADMIN, number))
    assert answer is None
    assert rows(racing[0], f"SELECT FROM registry.endpoints WHERE server_id = {number}") == []


def test_a_registration_that_waited_for_a_removal_sees_the_hold(racing):
    (number,) = {id_ for (id_,) in of_raced(racing[0], "s.id")}
    answer = after(
        racing, lambda one: servers.delete(one, ADMIN, number, hold=60), lambda two: announce(two, "raced", TWO)
    )
    assert isinstance(answer, HeldName)
    assert of_raced(racing[0], "e.id") == []


def test_nobody_waits_for_a_removal_of_a_server_that_there_is_not(racing):
    first, second = racing
    second.read("SELECT")
    assert first._connection is not None
    with first._connection.transaction():
        announce(first, "raced", TWO)
        rows(second, "SET lock_timeout = '1ms'")
        with pytest.raises(ServerNotFound):
            servers.delete(second, ADMIN, 2**62, hold=60)


def test_a_new_server_that_waited_for_a_removal_sees_the_hold(racing):
    """It looked the name up before, or did not have to."""
    (number,) = {id_ for (id_,) in of_raced(racing[0], "s.id")}
    columns = (
        servers._columns(sent("raced", TWO)) | servers.NO_QUOTA.parameters() | ADMIN.parameters() | {"lease": None}
    )
    answer = after(
        racing,
        lambda one: servers.delete(one, ADMIN, number, hold=60),
        lambda two: two.write(servers.REGISTER, columns),
    )
    assert answer is None


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda one: by_hand(one, "raced", TWO),
        lambda one: move_back(one, ONE, "retired_at", "1 second"),
        lambda one: announce(one, "raced", ONE, version="2"),
    ],
    ids=["it was removed", "it retired", "it announced another offer"],
)
def test_a_digest_that_waited_for_a_change_of_its_endpoint_asks_for_the_registration(racing, meanwhile):
    move_back(racing[0], ONE, "lease_until", "1 second")
    digest = sent("raced", ONE).body_digest
    answer = after(racing, meanwhile, lambda two: servers.shake_hands(two, ADMIN, digest, LEASE))
    assert isinstance(answer, RegistrationRequired)


def test_many_replicas_of_a_new_server_that_start_at_once_are_one_server(racing, database_url):
    rows(racing[0], "DELETE FROM registry.mcp_servers WHERE name = 'raced'")
    replicas = [f"http://localhost:{port}/mcp" for port in range(8100, 8120)]

    def run(url: str) -> str:
        database = Database(database_url).begin(PATIENCE)
        try:
            return announce(database, "raced", url)["result"]
        finally:
            database.close()

    with ThreadPoolExecutor(len(replicas)) as pool:
        results = sorted(pool.map(run, replicas))
    assert results == ["created"] + ["updated"] * (len(replicas) - 1)
    assert of_raced(racing[0], "e.url") == [(url,) for url in replicas]


# ------------------------------------------------------------------ beside the release before

# How the release before registered and replaced (shortened to what concerns addresses and digests).
OLD_REGISTER = """
INSERT INTO registry.mcp_servers (name, canonical_name, display_name, server_type, endpoint_url, body_digest,
                                  content_digest)
VALUES ('older', 'older', 'Older', 'mock', %(url)s, %(body)s, %(body)s)
RETURNING id
"""
OLD_REPLACE = """
UPDATE registry.mcp_servers
   SET version = %(version)s,
       endpoint_url = %(url)s,
       body_digest = %(body)s,
       content_digest = %(body)s,
       moved_at = CASE WHEN endpoint_url = %(url)s::varchar AND health_url IS NOT DISTINCT FROM NULL THEN moved_at
                       ELSE clock_timestamp() END,
       revision = revision + 1
 WHERE name = 'older'
RETURNING id
"""


def old(database: Database, statement: LiteralString, url: str, **fields: Any) -> None:
    body = sent("older", url, **fields).body_digest
    assert database.write(statement, {"url": url, "body": body, "version": fields.get("version")})


def test_what_the_release_before_registers_is_one_address_until_somebody_says_more_of_it(catalogue):
    old(catalogue, OLD_REGISTER, ONE)
    (kept,) = endpoints(catalogue, "url", "declared", "lease_until = now() + interval '1 day'")
    assert kept == (ONE, False, True)
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("older", ONE).body_digest)
    assert by_hand(catalogue, "older", ONE)["result"] == "updated"
    assert endpoints(catalogue, "declared", "lease_until") == [(True, None)]
    assert by_hand(catalogue, "older", ONE)["result"] == "unchanged"
    servers.shake_hands(catalogue, ADMIN, sent("older", ONE).body_digest)
    assert announce(catalogue, "older", ONE)["result"] == "unchanged"
    servers.shake_hands(catalogue, ADMIN, sent("older", ONE).body_digest, LEASE)


def test_what_the_release_before_registers_and_then_announces_itself_has_the_lease_that_it_asks_for(catalogue):
    old(catalogue, OLD_REGISTER, ONE)
    # The endpoint's digests are known from its first announcement on.
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("older", ONE).body_digest, LEASE)
    assert announce(catalogue, "older", ONE)["result"] == "unchanged"
    assert endpoints(catalogue, "extract(epoch FROM lease_until - now())::integer") == [(LEASE,)]
    servers.shake_hands(catalogue, ADMIN, sent("older", ONE).body_digest, LEASE)


def test_an_address_that_a_person_set_stays_so_where_the_release_before_replaces_it(catalogue):
    by_hand(catalogue, "older", ONE)
    old(catalogue, OLD_REPLACE, ONE, version="2")
    assert endpoints(catalogue, "declared", "lease_until") == [(True, None)]


def test_what_the_release_before_replaces_is_no_offer_that_was_announced(catalogue):
    id_ = announce(catalogue, "older", ONE, version="1")["id"]
    found(catalogue, ONE, "healthy")
    old(catalogue, OLD_REPLACE, ONE, version="2")
    assert version(catalogue, id_) == "2"
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, ADMIN, sent("older", ONE, version="1").body_digest, LEASE)
    assert announce(catalogue, "older", ONE, version="1")["result"] == "updated"
    assert version(catalogue, id_) == "1"


def test_an_address_that_the_release_before_sets_is_the_only_one(catalogue):
    id_ = announce(catalogue, "older", ONE)["id"]
    announce(catalogue, "older", TWO)
    old(catalogue, OLD_REPLACE, THREE)
    assert endpoints(catalogue, "url", "declared") == [(THREE, False)]
    assert in_use(catalogue, id_) == THREE
    assert announce(catalogue, "older", ONE)["result"] == "updated"
    assert in_use(catalogue, id_) == THREE
