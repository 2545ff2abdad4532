"""Which role may call which route, who is told what, and what becomes of changes that are made at the same moment."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, cast

import psycopg
import pytest

from local.template import Invoke
from mcp_registry.access import credentials, teams, trust
from mcp_registry.access.rules import Grant, Team, Trust
from mcp_registry.aws import db
from mcp_registry.caller import ROLES, Caller, parse_routes
from mcp_registry.errors import DuplicatePrefix, Forbidden, IssuerNotFound, RegistryError, TeamInUse, TeamNotFound
from tests.conftest import PATIENCE
from tests.integration.test_servers import rows

ADMIN = Caller("admin", "admin", "default", "request-1", "203.0.113.7")

# ------------------------------------------------------------------ routes and roles


def event(method: str, resource: str, role: str) -> dict[str, Any]:
    """A request for a route by a caller of this role, to whom nothing there belongs; its body is none that is taken."""
    path = {"id": "0" * 12, "team": "never"}
    return {
        "httpMethod": method,
        "resource": resource,
        "headers": {"content-type": "application/json"},
        "pathParameters": {name: value for name, value in path.items() if f"{{{name}}}" in resource},
        "multiValueQueryStringParameters": None,
        "body": "[]",
        "isBase64Encoded": False,
        "requestContext": {
            "requestId": "1",
            "path": resource,
            "identity": {"sourceIp": "203.0.113.7"},
            "authorizer": {"principalId": "token:x", "role": role, "team": "default"},
        },
    }


def routes(in_process) -> list[tuple[str, str, str]]:
    """(method, path, function) of every route that asks for credentials and has a function."""
    api = in_process.stack.api
    return [
        (route.method, route.path, route.integration.function)
        for route in api.routes
        if route.authorized and isinstance(route.integration, Invoke)
    ]


def test_every_route_that_wants_credentials_has_one_line_of_roles_and_no_line_is_of_another(in_process):
    table = in_process.environment()["ROLES"].split()
    lines = list(zip(table[::3], table[1::3], strict=True))
    assert len(lines) == len(set(lines))
    wanted = {(method, path) for method, path, _ in routes(in_process)}
    assert set(lines) == {(method, path) for method, path in wanted if method != "HEAD"}
    # Who may GET may HEAD.
    assert {path for method, path in wanted if method == "HEAD"} == {p for m, p in wanted if m == "GET"}


def test_each_role_may_call_what_the_table_says_and_nothing_else(in_process, monkeypatch, database):
    monkeypatch.setattr(db, "_database", database)
    table = parse_routes(in_process.environment()["ROLES"])
    for (method, path, function), role in product(routes(in_process), ROLES):
        needed = table[f"{'GET' if method == 'HEAD' else method} {path}"]
        answer: Any = asyncio.run(in_process.invoke(function, event(method, path, role)))
        told = json.loads(answer["body"] or "{}") if method != "HEAD" else {}
        if ROLES.index(role) >= ROLES.index(needed):
            assert answer["statusCode"] in (200, 201, 204, 400, 404, 409), (method, path, role, answer)
        else:
            assert answer["statusCode"] == 403, (method, path, role, answer)
            if method != "HEAD":
                assert told.keys() == {"error", "code"}
                assert told["code"] == Forbidden.code and needed in told["error"] and role in told["error"]


def test_a_route_without_a_line_is_nobodys(in_process, monkeypatch):
    monkeypatch.setenv("ROLES", "GET /api/registry/teams reader")
    answer: Any = asyncio.run(in_process.invoke("AccessFunction", event("GET", "/api/registry/whoami", "admin")))
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (500, "INTERNAL_ERROR")


# ------------------------------------------------------------------ who is told what


def test_members_are_told_to_the_team_and_to_administrators(database):
    teams.put(database, ADMIN, "payments", Team())
    credentials.make(database, ADMIN, Grant(name="ci", team="payments", role="reader"))
    for caller, is_told in (
        (ADMIN, True),
        (Caller("token:x", "reader", "payments"), True),
        (Caller("token:x", "curator", "default"), False),
    ):
        members = teams.show(database, caller, "payments")["members"]
        assert (members is not None and len(members) == 1) == is_told


def test_whoami_tells_until_when_a_token_is_good_and_whom_its_team_names(database):
    teams.put(database, ADMIN, "payments", Team(contact="payments@example.com"))
    made = credentials.make(database, ADMIN, Grant(name="ci", team="payments", role="publisher"))
    told = teams.whoami(database, Caller(f"token:{made['id']}", "publisher", "payments"))
    assert told == {
        "name": f"token:{made['id']}",
        "role": "publisher",
        "team": "payments",
        "contact": "payments@example.com",
        "expires_at": made["expires_at"],
    }
    # Of an id that looks like one of ours nothing is told to who has it of somebody else.
    told = teams.whoami(database, Caller(f"oidc:github:{made['id']}", "publisher", "gone"))
    assert (told["contact"], told["expires_at"]) == (None, None)


def test_the_longest_name_of_a_caller_fits_wherever_it_is_written(database):
    caller = Caller("oidc:" + "x" * 595, "admin", "default", "1", "2001:db8:ffff:ffff:ffff:ffff:255.255.255.255")
    made = credentials.make(database, caller, Grant(name="ci", role="reader"))
    assert credentials.show(database, made["id"])["created_by"] == caller.name[:200]
    assert rows(database, "SELECT actor FROM registry.audit ORDER BY id DESC LIMIT 1") == [(caller.name,)]


def test_what_a_team_owns_keeps_it(database):
    teams.put(database, ADMIN, "payments", Team())
    servers = "INSERT INTO registry.held_names (name, name_key, look_key, figure_key, held_until, owner)"
    rows(database, f"{servers} VALUES ('x', 'x', 'x', 'x', now() + interval '1 hour', 'payments') RETURNING name")
    with pytest.raises(TeamInUse, match="1 held name"):
        teams.remove(database, ADMIN, "payments")
    rows(database, "UPDATE registry.held_names SET held_until = now() WHERE name = 'x' RETURNING name")
    teams.remove(database, ADMIN, "payments")
    assert rows(database, "SELECT name FROM registry.held_names WHERE name = 'x'") == []


# ------------------------------------------------------------------ several at once


@pytest.fixture
def shared(database_url: str) -> Iterator[str]:
    """The database that tests share, without what these leave in it but for the audit."""
    yield database_url
    with psycopg.Connection.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM registry.issuers WHERE id LIKE 'race-%'")
        connection.execute("DELETE FROM registry.tokens WHERE team LIKE 'race-%'")
        connection.execute("DELETE FROM registry.teams WHERE name LIKE 'race-%'")


def run(url: str, function: Callable[[db.Database], object]) -> object:
    """What a function of a database returns or raises, on a connection of its own."""
    database = db.Database(url)
    try:
        return function(database.begin(PATIENCE))
    except RegistryError as error:
        return error
    finally:
        database.close()


def at_once(url: str, *functions: Callable[[db.Database], object]) -> list[object]:
    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(lambda function: run(url, function), functions))


def await_blocked(connection: psycopg.Connection) -> None:
    """Until somebody waits for what this connection's transaction holds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        if connection.execute(blocked).fetchone() != (0,):
            return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def chain(url: str, target: str) -> list[tuple[Any, Any]]:
    with psycopg.Connection.connect(url) as connection:
        statement = "SELECT before, after FROM registry.audit WHERE target = %s ORDER BY id"
        return connection.execute(statement, [target]).fetchall()


def test_changes_of_one_team_at_once_are_one_after_the_other(shared: str):
    def change(number: int) -> Callable[[db.Database], object]:
        sent = Team(contact=f"{number}", prefixes=[f"race-{number}-", f"race-{number}/"])
        return lambda database: teams.put(database, ADMIN, "race-one", sent)

    answers = at_once(shared, *map(change, range(5)))
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert sum(is_new for is_new, _ in cast("list[tuple[bool, Any]]", answers)) == 1
    entries = chain(shared, "team:race-one")[-5:]
    assert [before for before, _ in entries] == [None, *(after for _, after in entries[:-1])]
    now = cast("dict[str, Any]", run(shared, lambda database: teams.show(database, ADMIN, "race-one")))
    assert {"contact": now["contact"], "prefixes": now["prefixes"]} == entries[-1][1]


def test_changes_of_one_issuer_at_once_are_one_after_the_other(shared: str):
    def change(number: int) -> Callable[[db.Database], object]:
        claims = {"sub": f"{number}"}
        sent = Trust(issuer="https://x.example", audience="x", claims=claims, team="default", role="reader")
        return lambda database: trust.put(database, ADMIN, "race-one", sent)

    answers = at_once(shared, *map(change, range(5)))
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    entries = chain(shared, "issuer:race-one")[-5:]
    assert entries[0][0] is None
    claims = [after["claims"] for _, after in entries]
    assert [before["claims"] for before, _ in entries[1:]] == claims[:-1]
    assert sorted(claim["sub"] for claim in claims) == ["0", "1", "2", "3", "4"]


def test_a_prefix_that_another_team_takes_at_this_moment_is_refused(shared: str):
    with psycopg.Connection.connect(shared) as other, ThreadPoolExecutor(1) as pool:
        other.execute("INSERT INTO registry.teams (name) VALUES ('race-first')")
        other.execute("INSERT INTO registry.team_prefixes (prefix, team) VALUES ('race.', 'race-first')")
        sent = Team(prefixes=["race-"])
        answer = pool.submit(run, shared, lambda database: teams.put(database, ADMIN, "race-second", sent))
        await_blocked(other)
        other.commit()
        refused = answer.result(PATIENCE)
    assert isinstance(refused, DuplicatePrefix) and "race-first" in str(refused)
    assert isinstance(run(shared, lambda database: teams.show(database, ADMIN, "race-second")), TeamNotFound)


def test_a_team_that_is_given_a_token_at_this_moment_stays(shared: str):
    run(shared, lambda database: teams.put(database, ADMIN, "race-kept", Team()))
    with psycopg.Connection.connect(shared) as other, ThreadPoolExecutor(1) as pool:
        other.execute(
            "INSERT INTO registry.tokens (id, digest, name, team, role, created_by, expires_at)"
            " VALUES ('race', sha256(''), 'x', 'race-kept', 'reader', 'x', now() + interval '1 day')"
        )
        answer = pool.submit(run, shared, lambda database: teams.remove(database, ADMIN, "race-kept"))
        await_blocked(other)
        other.commit()
        refused = answer.result(PATIENCE)
    assert isinstance(refused, TeamInUse) and "1 token" in str(refused)
    assert chain(shared, "team:race-kept")[-1][1] is not None


def test_a_token_for_a_team_that_goes_at_this_moment_is_not_made(shared: str):
    run(shared, lambda database: teams.put(database, ADMIN, "race-gone", Team()))
    grant = Grant(name="x", team="race-gone", role="reader")
    with psycopg.Connection.connect(shared) as other, ThreadPoolExecutor(1) as pool:
        other.execute("DELETE FROM registry.teams WHERE name = 'race-gone'")
        answer = pool.submit(run, shared, lambda database: credentials.make(database, ADMIN, grant))
        await_blocked(other)
        other.commit()
        assert isinstance(answer.result(PATIENCE), TeamNotFound)


def test_of_two_who_remove_an_issuer_one_finds_none(shared: str):
    sent = Trust(issuer="https://x.example", audience="x", claims={"sub": "x"}, team="default", role="reader")
    run(shared, lambda database: trust.put(database, ADMIN, "race-two", sent))
    answers = at_once(shared, *[lambda database: trust.remove(database, ADMIN, "race-two")] * 2)
    assert sorted(type(answer).__name__ for answer in answers) == [IssuerNotFound.__name__, "NoneType"]
    assert [after for _, after in chain(shared, "issuer:race-two")[-2:]][-1] is None
