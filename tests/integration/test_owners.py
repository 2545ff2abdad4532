"""Whose a server is: each statement that writes decides whether this caller may, and writes down who it was."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from operator import eq
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st

from mcp_registry.aws import db
from mcp_registry.aws.db import Database
from mcp_registry.caller import ROLES, Caller
from mcp_registry.catalogue import names, registration, servers
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import (
    ConflictingServer,
    Forbidden,
    HeldName,
    QuotaExceeded,
    RegistrationRequired,
    RegistryError,
    ServerNotFound,
    TeamNotFound,
)
from tests.conftest import ADMIN, PATIENCE, REGISTER, SERVERS, InProcess
from tests.conftest import registration as document
from tests.integration.test_announcements import after, rows
from tests.integration.test_servers import statements, while_waiting

PAYMENTS = Caller("token:payments", "publisher", "payments", "request-1", "192.0.2.1")
SEARCH = Caller("token:search", "publisher", "search", "request-2", "192.0.2.2")
OTHERS = [SEARCH, SEARCH._replace(role="curator"), SEARCH._replace(team="default")]
ONE, TWO, STRANGER = "http://localhost:8001/mcp", "http://localhost:8002/mcp", "http://localhost:8003/mcp"
LEASE = 600
TEAMS = """
WITH team AS (
    INSERT INTO registry.teams (name, contact) VALUES ('payments', 'payments@example.com'), ('search', NULL)
)
INSERT INTO registry.team_prefixes (prefix, team)
VALUES ('payments/', 'payments'), ('bills_', 'payments'), ('payments/search-', 'search')
"""
BELONGS = "payments/refunds belongs to the team payments: ask payments@example.com"
KEPT = (
    *("registry.mcp_servers", "registry.endpoints", "registry.held_names", "registry.tools"),
    *("registry.server_metadata", "registry.audit", "registry.teams", "registry.team_prefixes"),
    *("registry.tokens", "registry.issuers"),
    *("metrics.status_transitions", "metrics.endpoint_changes"),
)


@pytest.fixture
def catalogue(database: Database) -> Database:
    rows(database, "DELETE FROM registry.mcp_servers")
    rows(database, "DELETE FROM registry.held_names")
    rows(database, TEAMS)
    return database


def sent(name: str = "payments/refunds", url: str = ONE, tool: str = "forecast", **fields: Any):
    tools = [{"name": tool, "input_schema": {"type": "object"}}]
    return registration.parse(document(name, endpoint_url=url, tools=tools, **fields))


def everything(database: Database) -> dict[str, Any]:
    return {table: rows(database, f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in KEPT}


class Entry(NamedTuple):
    """A row of the audit."""

    actor: str
    role: str
    team: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str
    address: str


@pytest.fixture
def told(catalogue: Database) -> Callable[[], list[Entry]]:
    """What the audit has told since it was last asked, in order."""
    last = 0

    def entries() -> list[Entry]:
        nonlocal last
        statement = "SELECT actor, role::text, team, action, target, before, after, request_id, address"
        found = rows(catalogue, f"{statement}, id FROM registry.audit WHERE id > {last} ORDER BY id")
        last = found[-1][-1] if found else last
        return [Entry(*row[:-1]) for row in found]

    entries()
    return entries


def owner(database: Database, name: str = "payments/refunds") -> str | None:
    found = rows(database, f"SELECT owner FROM registry.mcp_servers WHERE name = '{name}'")
    return found[0][0] if found else None


def prepared(database: Database) -> int:
    """The id of the server of the team payments, which has announced itself."""
    return servers.replace(database, PAYMENTS, sent(version="1"), lease=LEASE)["id"]


def expire(database: Database, _: int) -> None:
    rows(database, "UPDATE registry.endpoints SET lease_until = now() - interval '1 second'")


def retire(database: Database, id_: int) -> None:
    expire(database, id_)
    rows(database, "UPDATE registry.endpoints SET retired_at = now()")


def remove_and_hold(database: Database, id_: int) -> None:
    servers.delete(database, ADMIN, id_, hold=3600)


def set_by_hand(database: Database, id_: int) -> None:
    servers.replace(database, PAYMENTS, sent(url=TWO, version="1"))


class Way(NamedTuple):
    """A way to change something: what is there before, what is done, and the actions that the audit tells of it."""

    begin: Callable[[Database, int], object]
    go: Callable[[Database, Caller, int], object]
    actions: list[str]


def as_it_is(*_: object) -> None:
    pass


WAYS = {
    "replaced by hand": Way(as_it_is, lambda d, c, _: servers.replace(d, c, sent(url=STRANGER)), ["server.updated"]),
    "replaced by another release": Way(
        as_it_is, lambda d, c, _: servers.replace(d, c, sent(version="2"), lease=LEASE), ["server.updated"]
    ),
    "joined by an endpoint": Way(
        as_it_is, lambda d, c, _: servers.replace(d, c, sent(url=TWO, version="1"), lease=LEASE), ["server.endpoint"]
    ),
    "moved to another health URL": Way(
        as_it_is,
        lambda d, c, _: servers.replace(d, c, sent(version="1", health_url="/up"), lease=LEASE),
        ["server.endpoint"],
    ),
    "announced as it is": Way(as_it_is, lambda d, c, _: servers.replace(d, c, sent(version="1"), lease=LEASE), []),
    "renewed": Way(expire, lambda d, c, _: servers.replace(d, c, sent(version="1"), lease=LEASE), []),
    "back from retirement": Way(
        retire, lambda d, c, _: servers.replace(d, c, sent(version="1"), lease=LEASE), ["server.endpoint"]
    ),
    "set as it is": Way(set_by_hand, lambda d, c, _: servers.replace(d, c, sent(url=TWO, version="1")), []),
    "taken out": Way(as_it_is, lambda d, c, id_: servers.set_status(d, c, id_, "inactive"), ["server.status"]),
    "put in as it is": Way(as_it_is, lambda d, c, id_: servers.set_status(d, c, id_, "active"), []),
    "removed": Way(as_it_is, lambda d, c, id_: servers.delete(d, c, id_), ["server.removed"]),
    "removed and held": Way(
        as_it_is, lambda d, c, id_: servers.delete(d, c, id_, hold=60), ["server.removed", "name.held"]
    ),
    "transferred": Way(as_it_is, lambda d, c, id_: servers.transfer(d, c, id_, "search"), ["server.transferred"]),
    "transferred to its owner": Way(as_it_is, lambda d, c, id_: servers.transfer(d, c, id_, "payments"), []),
    "released": Way(remove_and_hold, lambda d, c, _: servers.end_hold(d, c, "payments/refunds"), ["name.released"]),
}
REFUSED_TO_NEW = {
    "registered although it is there": Way(as_it_is, lambda d, c, _: servers.register(d, c, sent()), []),
    "registered in another spelling": Way(
        as_it_is, lambda d, c, _: servers.register(d, c, sent("Payments/Refunds")), []
    ),
    "replaced in another spelling": Way(as_it_is, lambda d, c, _: servers.replace(d, c, sent("payments/Refunds")), []),
    "registered although it is held": Way(remove_and_hold, lambda d, c, _: servers.register(d, c, sent()), []),
    "announced although it is held": Way(
        remove_and_hold, lambda d, c, _: servers.replace(d, c, sent(), lease=LEASE), []
    ),
}
CURATORS_MAY = {"taken out", "put in as it is"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("caller", [PAYMENTS, PAYMENTS._replace(role="curator"), ADMIN])
def test_who_owns_a_server_and_an_administrator_may_change_it_and_the_audit_tells(catalogue, told, caller, way):
    id_ = prepared(catalogue)
    WAYS[way].begin(catalogue, id_)
    told()
    WAYS[way].go(catalogue, caller, id_)
    entries = told()
    assert [entry.action for entry in entries] == WAYS[way].actions
    for entry in entries:
        assert entry[:3] == (caller.name, caller.role, caller.team)
        assert entry[-2:] == (caller.request_id, caller.address)
        assert entry.target == ("name:" if entry.action.startswith("name.") else "server:") + "payments/refunds"
        assert entry.before or entry.after


@pytest.mark.parametrize("way", WAYS | REFUSED_TO_NEW)
@pytest.mark.parametrize("caller", OTHERS)
def test_what_is_another_teams_is_refused_with_whom_to_ask_and_nothing_is_changed(catalogue, caller, way):
    id_ = prepared(catalogue)
    tried = (WAYS | REFUSED_TO_NEW)[way]
    tried.begin(catalogue, id_)
    before = everything(catalogue)
    if caller.role == "curator" and way in CURATORS_MAY:
        tried.go(catalogue, caller, id_)
        return
    with pytest.raises(Forbidden) as refused:
        tried.go(catalogue, caller, id_)
    assert str(refused.value) == BELONGS
    assert refused.value.faults == (("name", "Owned by the team payments", "owner"),)
    assert everything(catalogue) == before


@pytest.mark.parametrize("lease", [None, LEASE])
def test_a_digest_is_no_registration_of_another_teams(catalogue, lease):
    given = sent(version="1")
    servers.replace(catalogue, PAYMENTS, given, lease=lease)
    expire(catalogue, 0)
    before = everything(catalogue)
    with pytest.raises(RegistrationRequired):
        servers.shake_hands(catalogue, SEARCH, given.body_digest, lease)
    assert everything(catalogue) == before
    servers.shake_hands(catalogue, PAYMENTS, given.body_digest, lease)


@pytest.mark.parametrize("statement", ["RENEW", "ADD_ENDPOINT", "REPLACE", "DISPUTE"])
def test_the_statement_itself_finds_nothing_of_another_team(catalogue, statement):
    """As if the server had gone to another team between the look and the change."""
    id_ = prepared(catalogue)
    ((endpoint,),) = rows(catalogue, "SELECT id FROM registry.endpoints")
    given = sent(version="1")
    place = {
        "id": id_, "revision": 1, "endpoint": endpoint, "lease": LEASE, "is_moved": False, "is_looked_for": True,
        "is_back": False, "is_put_back": False, "is_one_more": False,
    }  # fmt: skip
    place |= servers._columns(given) | servers.NO_QUOTA.parameters()
    ((place["revision"],),) = rows(catalogue, "SELECT revision FROM registry.mcp_servers")
    before = everything(catalogue)
    assert catalogue.write(getattr(servers, statement), place | SEARCH.parameters()) is None
    assert everything(catalogue) == before
    assert catalogue.write(getattr(servers, statement), place | PAYMENTS.parameters()) is not None


# ------------------------------------------------------------------ whose a new server is


@pytest.mark.parametrize(
    ("name", "caller", "wanted"),
    [
        ("weather", SEARCH, "search"),
        ("weather", SEARCH._replace(team="default"), "default"),
        ("weather", ADMIN, "default"),
        ("payments/refunds", PAYMENTS, "payments"),
        ("payments/refunds", ADMIN, "payments"),  # an administrator registers for whom the prefix is
        ("PAYMENTS/refunds", PAYMENTS, "payments"),
        ("bills-refunds", PAYMENTS, "payments"),
        ("billing", SEARCH, "search"),
        ("bills", SEARCH, "search"),  # nothing follows the prefix
        ("billsx/a", SEARCH, "search"),  # a namespace keeps its separators
        ("payments", SEARCH, "search"),
        ("payments/search-index", SEARCH, "search"),  # the longer prefix
        ("payments/search_index", ADMIN, "search"),
    ],
)
@pytest.mark.parametrize("lease", [None, LEASE])
def test_a_new_server_is_its_prefixs_teams_and_else_the_callers(catalogue, told, name, caller, wanted, lease):
    servers.replace(catalogue, caller, sent(name), lease=lease)
    assert owner(catalogue, name) == wanted
    (entry,) = told()
    assert (entry.actor, entry.action, entry.target) == (caller.name, "server.registered", f"server:{name}")
    assert entry.before is None
    assert entry.after is not None
    assert entry.after.pop("offer_digest") == sent(name).offer_digest.hex()
    assert entry.after == {
        "health_url": None,
        "version": None,
        "owner": wanted, "endpoint_url": ONE, "server_type": "mock", "tools_count": 1, "status": "active",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "caller", "whose"),
    [
        ("payments/refunds", SEARCH, "payments: ask payments@example.com"),
        ("Payments/Refunds", SEARCH, "payments: ask payments@example.com"),
        ("bills-refunds", SEARCH, "payments: ask payments@example.com"),
        ("bills.refunds", SEARCH._replace(role="curator"), "payments: ask payments@example.com"),
        ("bills-eu/refunds", SEARCH, "payments: ask payments@example.com"),
        # What the registry takes for a name within a prefix, spelled around it.
        ("-payments/a1", SEARCH, "payments: ask payments@example.com"),
        ("._payments_/a2", SEARCH, "payments: ask payments@example.com"),
        ("billsx3", SEARCH, "payments: ask payments@example.com"),
        ("-bI11s.a3", SEARCH, "payments: ask payments@example.com"),
        ("b-i-l-l-s-4", SEARCH, "payments: ask payments@example.com"),
        ("payments/refunds", SEARCH._replace(team="default"), "payments: ask payments@example.com"),
        ("payments/search-index", PAYMENTS, "search: ask its administrator"),
    ],
)
@pytest.mark.parametrize("write", [servers.register, servers.replace])
def test_a_name_in_another_teams_prefix_is_refused_with_whom_to_ask(catalogue, write, name, caller, whose):
    before = everything(catalogue)
    with pytest.raises(Forbidden) as refused:
        write(catalogue, caller, sent(name))
    assert str(refused.value) == f"{name} belongs to the team {whose}"
    assert everything(catalogue) == before


@pytest.mark.parametrize("name", ["paI/refunds", "pal/refunds", "PAI/refunds", "pa1/refunds"])
def test_a_prefix_that_reads_like_another_teams_is_that_one(catalogue, name):
    rows(catalogue, "INSERT INTO registry.team_prefixes (prefix, team) VALUES ('pal/', 'payments')")
    with pytest.raises(Forbidden):
        servers.register(catalogue, SEARCH, sent(name))


def team_of(database: Database, name: str) -> str | None:
    """The team in whose prefix a name is."""
    keys = names.keys(name)._asdict()
    given = dict(zip(("name_key", "look_key", "figure_key"), keys.values(), strict=True))
    row = database.read(f"SELECT {servers._PREFIX_TEAM}", given | {"name": name})
    assert row is not None
    return row[0]


@pytest.fixture
def prefixes(catalogue) -> Database:
    rows(catalogue, "DELETE FROM registry.team_prefixes")
    given = ", ".join(f"('{prefix}', 'payments')" for prefix in PREFIXES)
    rows(catalogue, f"INSERT INTO registry.team_prefixes (prefix, team) VALUES {given}")
    return catalogue


PREFIXES = ("payments/", "bills-", "team-1-", "tool_", "ai.lab/b1-")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(PREFIXES),
    st.text("abl1o02Ii._-", min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["", *".-_01loIA"])), max_size=4),
)
@example("bills-", "x", [(5, "")])
@example("team-1-", "1x", [(4, ""), (4, "l")])
def test_whatever_is_taken_for_a_name_within_a_prefix_is_within_it(prefixes, prefix, rest, changes):
    within = prefix + rest
    other = list(within)
    for place, character in changes:
        other[place % len(other)] = character
    name = "".join(other)
    # A name with separators alone after the prefix is read as if it ended before them.
    assume(rest.strip("._-") and names.LEGAL.fullmatch(within) and names.LEGAL.fullmatch(name))
    assert team_of(prefixes, within) == "payments"
    is_same = any(map(eq, names.keys(name), names.keys(within)))
    event(f"taken for it: {is_same}")
    if is_same:
        assert team_of(prefixes, name) == "payments", (within, name)


@pytest.mark.parametrize(
    "name", ["team-2", "team-12", "team-2-x", "team12x", "tool", "toolx/a", "ai-lab/b2", "ailab/b1-x"]
)
def test_what_is_another_word_or_number_is_in_no_prefix(prefixes, name):
    assert team_of(prefixes, name) is None


def test_a_prefix_that_is_given_later_leaves_a_server_to_its_owner(catalogue):
    servers.register(catalogue, SEARCH, sent("maps/tiles"))
    rows(catalogue, "INSERT INTO registry.team_prefixes (prefix, team) VALUES ('maps/', 'payments')")
    assert servers.replace(catalogue, SEARCH, sent("maps/tiles", version="2"))["result"] == "updated"
    with pytest.raises(Forbidden, match="belongs to the team search: ask its administrator"):
        servers.replace(catalogue, PAYMENTS, sent("maps/tiles"))
    assert owner(catalogue, "maps/tiles") == "search"


@pytest.mark.parametrize("write", [servers.register, servers.replace])
def test_a_caller_whose_team_has_gone_is_told_so(catalogue, write):
    before = everything(catalogue)
    gone = SEARCH._replace(team="dissolved")
    with pytest.raises(Forbidden, match="The team dissolved of this credential does not exist any more"):
        write(catalogue, gone, sent("weather"))
    assert everything(catalogue) == before


# ------------------------------------------------------------------ holds and transfers


@pytest.mark.parametrize("caller", [PAYMENTS, ADMIN])
def test_a_name_is_held_for_the_team_of_its_server_which_is_told_for_how_long(catalogue, caller):
    servers.delete(catalogue, ADMIN, prepared(catalogue), hold=3600)
    assert rows(catalogue, "SELECT name, owner FROM registry.held_names") == [("payments/refunds", "payments")]
    with pytest.raises(HeldName, match="3600 seconds more"):
        servers.register(catalogue, caller, sent())


def test_a_team_has_so_many_names_held_and_a_server_stays_that_would_be_one_more(catalogue, monkeypatch):
    monkeypatch.setattr(servers, "MAX_HELD", 1)
    id_ = prepared(catalogue)
    other = servers.register(catalogue, PAYMENTS, sent("payments/other"))["id"]
    last = servers.register(catalogue, SEARCH, sent("weather"))["id"]
    servers.delete(catalogue, PAYMENTS, other, hold=60)
    before = everything(catalogue)
    for caller in (PAYMENTS, ADMIN):
        with pytest.raises(QuotaExceeded, match="1 names are held for the team of this server"):
            servers.delete(catalogue, caller, id_, hold=60)
    assert everything(catalogue) == before
    servers.delete(catalogue, SEARCH, last, hold=60)  # of another team
    rows(catalogue, "UPDATE registry.held_names SET held_until = now() - interval '1 second' RETURNING name")
    servers.delete(catalogue, PAYMENTS, id_, hold=60)  # what is over counts no more
    assert rows(catalogue, "SELECT name FROM registry.held_names") == [("payments/refunds",)]


def test_where_two_holds_meet_the_other_teams_counts(catalogue):
    for name, team, seconds in (("heIlo", "payments", 3600), ("hello", "search", 60)):
        rows(
            catalogue,
            "INSERT INTO registry.held_names (name_key, look_key, figure_key, name, held_until, owner)"
            " SELECT registry.name_key(name), registry.look_key(name), registry.figure_key(name), name,"
            f" now() + make_interval(secs => {seconds}), '{team}' FROM (VALUES ('{name}')) AS held (name)",
        )
    with pytest.raises(Forbidden, match="hello belongs to the team search"):
        servers.register(catalogue, PAYMENTS, sent("hello"))
    with pytest.raises(Forbidden, match="heIlo belongs to the team payments"):
        servers.register(catalogue, SEARCH, sent("hello"))
    with pytest.raises(HeldName, match="3600 seconds"):
        servers.register(catalogue, ADMIN, sent("hello"))


def test_a_transfer_gives_the_rights_with_the_server(catalogue, told):
    id_ = prepared(catalogue)
    told()
    assert servers.transfer(catalogue, PAYMENTS, id_, "search") == {
        "id": id_, "name": "payments/refunds", "owner": "search",
    }  # fmt: skip
    (entry,) = told()
    assert (entry.action, entry.before, entry.after) == (
        "server.transferred", {"owner": "payments"}, {"owner": "search"},
    )  # fmt: skip
    with pytest.raises(Forbidden, match="belongs to the team search: ask its administrator"):
        servers.replace(catalogue, PAYMENTS, sent(version="1"), lease=LEASE)
    with pytest.raises(Forbidden):
        servers.transfer(catalogue, PAYMENTS, id_, "payments")
    assert servers.replace(catalogue, SEARCH, sent(version="2"), lease=LEASE)["result"] == "updated"
    assert servers.transfer(catalogue, ADMIN, id_, "payments")["owner"] == "payments"


def test_a_transfer_says_what_there_is_not(catalogue):
    id_ = prepared(catalogue)
    before = everything(catalogue)
    with pytest.raises(TeamNotFound):
        servers.transfer(catalogue, PAYMENTS, id_, "nobody")
    with pytest.raises(Forbidden):  # whoever may not is not told which teams there are
        servers.transfer(catalogue, SEARCH, id_, "nobody")
    for caller in (PAYMENTS, ADMIN):
        with pytest.raises(ServerNotFound):
            servers.transfer(catalogue, caller, id_ + 1, "search")
    assert everything(catalogue) == before


@pytest.mark.parametrize("caller", [SEARCH, PAYMENTS])
def test_what_is_not_there_is_not_found_whoever_asks(catalogue, caller):
    with pytest.raises(ServerNotFound):
        servers.delete(catalogue, caller, 10**9)
    with pytest.raises(ServerNotFound):
        servers.delete(catalogue, caller, 10**9, hold=60)
    with pytest.raises(ServerNotFound):
        servers.set_status(catalogue, caller, 10**9, "inactive")
    with pytest.raises(ServerNotFound):
        servers.end_hold(catalogue, caller, "payments/refunds")


# ------------------------------------------------------------------ the audit


def test_the_audit_tells_the_story_in_order_and_of_each_change_what_changed(catalogue, told):
    id_ = servers.register(catalogue, PAYMENTS, sent(version="1"))["id"]
    servers.replace(catalogue, PAYMENTS, sent(url=TWO, version="1", health_url="/up"))
    servers.replace(catalogue, PAYMENTS, sent(url=TWO, version="1", tool="other", health_url="/up"))
    servers.replace(catalogue, PAYMENTS, sent(url=ONE, version="1", tool="other"), lease=LEASE)
    servers.replace(catalogue, PAYMENTS, sent(url=TWO, version="1", tool="other"))
    servers.set_status(catalogue, SEARCH._replace(role="curator"), id_, "inactive")
    servers.transfer(catalogue, ADMIN, id_, "search")
    servers.delete(catalogue, SEARCH, id_, hold=60)
    servers.end_hold(catalogue, SEARCH, "payments/refunds")
    entries = told()
    first, second = (sent(tool=tool, version="1").offer_digest.hex() for tool in ("forecast", "other"))
    seen = [(entry.actor, entry.action, entry.before, entry.after) for entry in entries]
    whole = {"server_type": "mock", "tools_count": 1, "version": "1", "health_url": None}
    held_until = entries[-1].before and entries[-1].before.pop("held_until")
    assert isinstance(held_until, str) and held_until.endswith("Z")
    assert seen == [
        (
            PAYMENTS.name, "server.registered", None,
            whole | {"endpoint_url": ONE, "owner": "payments", "status": "active", "offer_digest": first},
        ),
        (
            PAYMENTS.name, "server.updated",
            {"endpoint_url": ONE, "health_url": None, "removed_endpoints": [ONE]},
            {"endpoint_url": TWO, "health_url": "/up", "added_endpoint": TWO},
        ),
        (PAYMENTS.name, "server.updated", {"offer_digest": first}, {"offer_digest": second}),
        (
            PAYMENTS.name, "server.endpoint", None,
            {"endpoint": ONE, "declared": False, "offer_digest": second},
        ),
        (
            PAYMENTS.name, "server.updated", {"health_url": "/up", "removed_endpoints": [ONE]}, {"health_url": None},
        ),
        (SEARCH.name, "server.status", {"status": "active"}, {"status": "inactive"}),
        (ADMIN.name, "server.transferred", {"owner": "payments"}, {"owner": "search"}),
        (
            SEARCH.name, "server.removed",
            whole | {"endpoint_url": TWO, "owner": "search", "status": "inactive", "offer_digest": second}, None,
        ),
        (SEARCH.name, "name.held", None, {"owner": "search", "seconds": 60}),
        (SEARCH.name, "name.released", {"owner": "search"}, None),
    ]  # fmt: skip


def test_a_registration_by_hand_at_the_address_of_an_announcement_tells_that_it_is_declared(catalogue, told):
    servers.replace(catalogue, PAYMENTS, sent(), lease=LEASE)
    told()
    servers.replace(catalogue, PAYMENTS, sent())
    servers.replace(catalogue, PAYMENTS, sent())  # changes nothing more
    assert [(entry.action, entry.before, entry.after) for entry in told()] == [
        ("server.updated", {"declared": False}, {"declared": True})
    ]


@pytest.mark.parametrize("column", ["retired_at", "conflict_at"])
def test_a_registration_by_hand_tells_that_an_endpoint_is_back_or_in_conflict_no_more(catalogue, told, column):
    servers.replace(catalogue, PAYMENTS, sent())
    moment = "2026-12-01T10:00:00.000000Z"
    rows(catalogue, f"UPDATE registry.endpoints SET {column} = '{moment}' RETURNING id")
    told()
    servers.replace(catalogue, PAYMENTS, sent(tool="other"))
    (entry,) = told()
    assert entry.before is not None and entry.after is not None
    assert {*entry.before} == {"offer_digest", column} and column not in entry.after
    assert entry.before[column].startswith("2026-12-01T10:00:00")


def test_an_announcement_that_moves_a_server_to_its_address_tells_where_it_was(catalogue, told):
    servers.replace(catalogue, PAYMENTS, sent(url=ONE), lease=LEASE)
    servers.replace(catalogue, PAYMENTS, sent(url=TWO), lease=LEASE)
    refused = "INSERT INTO registry.endpoint_health (endpoint_id, verdict, checked_at, since) SELECT id, 'refused',"
    rows(catalogue, f"{refused} now(), now() FROM registry.endpoints RETURNING endpoint_id")
    told()
    servers.replace(catalogue, PAYMENTS, sent(url=STRANGER), lease=LEASE)  # is new
    servers.replace(catalogue, PAYMENTS, sent(url=TWO, health_url="/up"), lease=LEASE)  # was there
    new, again = told()
    assert (new.action, new.before) == ("server.endpoint", {"endpoint_url": ONE})
    assert new.after is not None
    assert (new.after["endpoint"], new.after["endpoint_url"]) == (STRANGER, STRANGER)
    assert (again.before, again.after) == ({"health_url": None}, {"endpoint": TWO, "health_url": "/up"})


def test_an_announcement_tells_which_endpoints_come_into_conflict_by_it_and_which_are_out_of_it(catalogue, told):
    first, second = (sent(version=version).offer_digest.hex() for version in ("1", "2"))
    servers.replace(catalogue, PAYMENTS, sent(url=ONE, version="1"), lease=LEASE)
    servers.replace(catalogue, PAYMENTS, sent(url=TWO, version="1"), lease=LEASE)
    servers.replace(catalogue, PAYMENTS, sent(url=TWO, version="2"), lease=LEASE)
    told()
    servers.replace(catalogue, PAYMENTS, sent(url=ONE, version="1"), lease=LEASE)  # was first, and goes on as it was
    servers.replace(catalogue, PAYMENTS, sent(url=ONE, version="2"), lease=LEASE)  # a release after the other's
    assert [(entry.before, entry.after) for entry in told()] == [
        (
            {"version": "2", "offer_digest": second, "conflicting_endpoints": None},
            {"version": "1", "offer_digest": first, "conflicting_endpoints": [TWO]},
        ),
        (
            {"version": "1", "offer_digest": first, "conflicting_endpoints": [TWO]},
            {"version": "2", "offer_digest": second, "conflicting_endpoints": None},
        ),
    ]


def test_a_dispute_is_told_once(catalogue, told):
    servers.replace(catalogue, PAYMENTS, sent(url=ONE))
    rows(
        catalogue,
        "INSERT INTO registry.endpoint_health (endpoint_id, verdict, checked_at, since)"
        " SELECT id, 'healthy', now(), now() FROM registry.endpoints",
    )
    servers.replace(catalogue, PAYMENTS, sent(url=TWO), lease=LEASE)
    told()
    for _ in range(2):
        with pytest.raises(ConflictingServer):
            servers.replace(catalogue, PAYMENTS, sent(url=TWO, tool="another"), lease=LEASE)
    (entry,) = told()
    assert (entry.action, entry.target, entry.before) == ("server.endpoint", "server:payments/refunds", None)
    assert entry.after is not None and entry.after.keys() == {"endpoint", "conflict_at"}


# What changes something of these on a caller's behalf writes an entry in the same statement.
WATCHED = "mcp_servers|endpoints|held_names|teams|team_prefixes|tokens|issuers"
WRITES = re.compile(
    rf"\b(?:INSERT INTO|DELETE FROM|UPDATE) registry\.(?:{WATCHED})\b|\bregistry\.(?:remove_and_hold|use_endpoints)\("
)
# What nobody asked for by name: what checks and sweeps find, and that somebody goes on as they are.
NOBODYS_DOING = {
    "access.identity.NOTE",  # when a token was used last
    "catalogue.servers.RENEW",  # who is there already goes on
    "catalogue.servers.USE_ENDPOINT",  # which of its endpoints a server is asked at, by what was found of them
    "health.introductions.LEARN",  # what an introduction found
    "health.invitations.CLAIM",  # who is introduced next
    "health.invitations.PUT_BACK",
    "health.maintenance.DROP_RETIRED",  # endpoints that retired long ago
    "health.results.RECONCILE",  # what checks found
    "health.results.USE_ENDPOINTS",
    "health.results.WRITE",
    "health.results.WRITE_AGAIN",
    "ledger.recording.NOTE",  # what was observed and declared
    "ledger.recording.SETTLE",
    "ledger.recording.WRITE",
    "ledger.reading.LOOK",  # that somebody is sent; what is found then is nobody's doing
    "health.sweeps.RETIRE",  # endpoints whose lease is over, and that are down
    "health.sweeps.USE_ENDPOINTS",
}


def test_no_statement_changes_anything_for_a_caller_and_leaves_no_entry():
    silent = {
        name
        for name, statement in statements().items()
        if WRITES.search(statement) and "INSERT INTO registry.audit" not in statement
    }
    assert silent == NOBODYS_DOING


def test_what_is_nobodys_doing_knows_no_caller_but_to_ask_whose_it_is():
    for name in NOBODYS_DOING:
        assert "%(caller)s" not in statements()[name]


def test_an_entry_tells_of_every_statement_who_it_was():
    entries = [statement for statement in statements().values() if "INSERT INTO registry.audit" in statement]
    assert len(entries) >= 9
    wanted = ("caller", "caller_role", "caller_team", "request_id", "address")
    assert all(f"%({name})s" in statement for statement in entries for name in wanted)


# ------------------------------------------------------------------ list and detail


def test_a_list_and_a_detail_tell_the_owner_and_a_list_is_narrowed_to_one(catalogue):
    id_ = prepared(catalogue)
    servers.register(catalogue, SEARCH, sent("weather"))
    servers.register(catalogue, PAYMENTS, sent("payments/invoices"))
    assert json.loads(servers.detail(catalogue, id_))["owner"] == "payments"

    def listed(filters: Filters, limit: int = 100, after: int = 0):
        page = servers.list_page(catalogue, filters, limit, after)
        return [(one["name"], one["owner"]) for one in json.loads(page.servers)], page.total, page.exact

    assert listed(Filters()) == (
        [("payments/refunds", "payments"), ("weather", "search"), ("payments/invoices", "payments")], 3, True,
    )  # fmt: skip
    of_payments = [("payments/refunds", "payments"), ("payments/invoices", "payments")]
    assert listed(Filters(owner="payments")) == (of_payments, 2, True)
    assert listed(Filters(owner="payments"), 1) == (of_payments[:1], 2, True)
    assert listed(Filters(owner="payments"), 1, id_) == (of_payments[1:], 2, True)
    assert listed(Filters(owner="payments", search="invo")) == (of_payments[1:], 1, True)
    assert listed(Filters(owner="default")) == ([], 0, True)
    assert listed(Filters(owner="PAYMENTS")) == ([], 0, True)


# ------------------------------------------------------------------ through the functions


def ask(
    in_process: InProcess, function: str, caller: Caller, method: str, resource: str, body: Any = None, **more: Any
) -> dict[str, Any]:
    """What a function answers to a request of this caller, as API Gateway hands it over."""
    event = {
        "resource": resource,
        "path": resource,
        "httpMethod": method,
        "headers": {"content-type": "application/json"},
        "pathParameters": None,
        "requestContext": {
            "path": resource,
            "requestId": caller.request_id,
            "identity": {"sourceIp": caller.address},
            "authorizer": {"principalId": caller.name, "role": caller.role, "team": caller.team},
        },
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }
    answer = asyncio.run(in_process.invoke(function, event | more))
    assert isinstance(answer, dict)
    return answer | {"body": json.loads(answer["body"]) if answer["body"] else None}


ONE_SERVER = SERVERS + "/{id}"


@pytest.fixture
def asked(catalogue: Database, in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(db, "_database", catalogue)
    # Beside other tests a check of the connection may fail, and another connection would be outside the transaction.
    monkeypatch.setattr(db, "TRUSTED_SECONDS", PATIENCE)
    return lambda *given, **more: ask(in_process, *given, **more)


def test_a_takeover_by_put_is_refused_and_the_server_stays_what_it_was(asked, catalogue):
    """What the issue tried: PUT with another team's name moved its address to a stranger and dropped 98 tools."""
    tools = [{"name": f"tool-{number}", "input_schema": {"type": "object"}} for number in range(98)]
    given = document("payments/refunds", endpoint_url=ONE, tools=tools)
    answer = asked("RegisterFunction", PAYMENTS, "PUT", REGISTER, given)
    assert answer["statusCode"] == 201, answer["body"]
    before = everything(catalogue)
    stolen = document("payments/refunds", endpoint_url=STRANGER, tools=[])
    for headers in ({}, {"x-registration-lease": "600"}):
        answer = asked(
            "RegisterFunction", SEARCH, "PUT", REGISTER, stolen, headers=headers | {"content-type": "application/json"}
        )
        assert answer["statusCode"] == 403
        assert answer["body"] == {
            "error": BELONGS,
            "code": "FORBIDDEN",
            "details": [{"path": "name", "message": "Owned by the team payments", "type": "owner"}],
        }
    assert everything(catalogue) == before


class Call(NamedTuple):
    """A request that changes a server, and what who may is answered."""

    function: str
    method: str
    resource: str
    status: int
    body: Any = None
    query: dict[str, list[str]] | None = None


CALLS = {
    "put": Call("RegisterFunction", "PUT", REGISTER, 200, document("payments/refunds", endpoint_url=TWO)),
    "patch": Call("UpdateFunction", "PATCH", ONE_SERVER, 200, {"status": "inactive"}),
    "transfer": Call("TransferFunction", "POST", ONE_SERVER + "/transfer", 200, {"team": "search"}),
    "delete": Call("DeleteFunction", "DELETE", ONE_SERVER, 204),
    "hold": Call("DeleteFunction", "DELETE", ONE_SERVER, 204, query={"hold": ["60"]}),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("team", ["payments", "search", "default"])
def test_each_role_of_each_team_is_answered_what_it_may(asked, catalogue, call, role, team):
    id_ = prepared(catalogue)
    caller = Caller(f"token:{role}", role, team, "request-3", "192.0.2.3")
    function, method, resource, status, body, query = CALLS[call]
    before = everything(catalogue)
    answer = asked(
        function, caller, method, resource, body,
        pathParameters={"id": str(id_)}, multiValueQueryStringParameters=query,
    )  # fmt: skip
    may = role == "admin" or (role != "reader" and (team == "payments" or (role == "curator" and call == "patch")))
    assert answer["statusCode"] == (status if may else 403)
    if not may:
        wanted = "This takes the role publisher" if role == "reader" else BELONGS
        assert answer["body"]["code"] == "FORBIDDEN" and answer["body"]["error"].startswith(wanted)
        assert everything(catalogue) == before


def test_a_transfer_is_answered_as_the_document_says(asked, catalogue):
    prepared(catalogue)

    def transfer(name: str, body: Any):
        resource = ONE_SERVER + "/transfer"
        answer = asked("TransferFunction", PAYMENTS, "POST", resource, body, pathParameters={"id": name})
        return answer["statusCode"], answer["body"].get("code")

    assert transfer("payments%2Frefunds", {}) == (400, "VALIDATION_ERROR")
    assert transfer("payments%2Frefunds", {"team": 7}) == (400, "VALIDATION_ERROR")
    assert transfer("payments%2Frefunds", {"team": "x" * 64}) == (400, "VALIDATION_ERROR")
    assert transfer("payments%2Frefunds", {"team": "search", "by": "me"}) == (400, "VALIDATION_ERROR")
    assert transfer("payments%2Frefunds", {"team": "Search"}) == (404, "TEAM_NOT_FOUND")
    assert transfer("payments%2Fother", {"team": "search"}) == (404, "SERVER_NOT_FOUND")
    assert transfer("payments%2Frefunds", {"team": "search"}) == (200, None)
    assert transfer("payments%2Frefunds", {"team": "payments"}) == (403, "FORBIDDEN")


# ------------------------------------------------------------------ races


@pytest.fixture(scope="module")
def arena(new_database: Callable[..., str]) -> str:
    """A database of these races, where what is committed stays."""
    return new_database()


@pytest.fixture
def racing(arena: str) -> Iterator[tuple[Database, Database]]:
    """Two sessions, of which the first has a transaction open, in a catalogue with two teams and no server."""
    first, second = Database(arena).begin(PATIENCE), Database(arena, "role", "registry_writer").begin(PATIENCE)
    for database in (first, second):
        database.read("SELECT")
    for table in ("mcp_servers", "held_names", "team_prefixes"):
        rows(first, f"DELETE FROM registry.{table}")
    rows(first, "DELETE FROM registry.teams WHERE name <> 'default'")
    rows(first, TEAMS)
    yield first, second
    for database in (first, second):
        database.close()


UPDATES: dict[str, Callable[[Database], object]] = {
    "replaced": lambda d: servers.replace(d, PAYMENTS, sent(url=STRANGER, version="2")),
    "announced": lambda d: servers.replace(d, PAYMENTS, sent(version="2"), lease=LEASE),
    "joined": lambda d: servers.replace(d, PAYMENTS, sent(url=TWO, version="1"), lease=LEASE),
}


@pytest.mark.parametrize("update", UPDATES)
def test_an_update_that_waited_for_a_transfer_is_refused_and_its_content_is_nowhere(racing, update):
    first, second = racing
    id_ = prepared(second)
    ((before,),) = rows(first, "SELECT row_to_json(s) FROM registry.mcp_servers AS s")
    outcome = after(racing, lambda one: servers.transfer(one, PAYMENTS, id_, "search"), UPDATES[update])
    assert isinstance(outcome, Forbidden)
    assert str(outcome) == "payments/refunds belongs to the team search: ask its administrator"
    ((kept,),) = rows(first, "SELECT row_to_json(s) FROM registry.mcp_servers AS s")
    assert kept.pop("revision") == before.pop("revision") + 1
    assert kept.pop("updated_at") != before.pop("updated_at")
    assert kept == before | {"owner": "search"}
    assert rows(first, "SELECT url FROM registry.endpoints") == [(ONE,)]


def test_a_dispute_that_waited_for_a_transfer_is_none(racing):
    first, second = racing
    id_ = prepared(second)
    servers.replace(second, PAYMENTS, sent(url=TWO, version="1"), lease=LEASE)
    servers.replace(second, PAYMENTS, sent(url=ONE, version="2"), lease=LEASE)
    outcome = after(
        racing,
        lambda one: servers.transfer(one, PAYMENTS, id_, "search"),
        lambda two: servers.replace(two, PAYMENTS, sent(url=TWO, version="1"), lease=LEASE),
    )
    assert isinstance(outcome, ConflictingServer)
    assert rows(first, "SELECT FROM registry.endpoints WHERE conflict_at IS NOT NULL") == []
    assert rows(first, "SELECT action FROM registry.audit ORDER BY id DESC LIMIT 1") == [("server.transferred",)]


@pytest.mark.parametrize("update", UPDATES)
def test_a_transfer_that_waited_for_an_update_gives_away_what_that_wrote(racing, update):
    first, second = racing
    id_ = prepared(second)
    outcome = after(racing, UPDATES[update], lambda two: servers.transfer(two, PAYMENTS, id_, "search"))
    assert outcome["owner"] == "search"
    told = rows(first, "SELECT action FROM registry.audit ORDER BY id DESC LIMIT 2")
    assert told == [("server.transferred",), ("server.endpoint" if update == "joined" else "server.updated",)]


def test_of_two_transfers_the_second_is_refused_for_the_server_has_gone(racing):
    id_ = prepared(racing[1])
    outcome = after(
        racing,
        lambda one: servers.transfer(one, PAYMENTS, id_, "search"),
        lambda two: servers.transfer(two, PAYMENTS, id_, "default"),
    )
    assert isinstance(outcome, Forbidden)
    assert owner(racing[0]) == "search"


@pytest.mark.parametrize("write", [servers.register, servers.replace])
def test_of_two_teams_that_register_one_name_the_second_is_told_whose_it_is(racing, write):
    outcome = after(
        racing,
        lambda one: servers.register(one, SEARCH, sent("weather")),
        lambda two: write(two, PAYMENTS, sent("weather", url=STRANGER)),
    )
    assert isinstance(outcome, Forbidden)
    assert str(outcome) == "weather belongs to the team search: ask its administrator"
    assert rows(racing[0], "SELECT owner, endpoint_url FROM registry.mcp_servers") == [("search", ONE)]


def test_many_of_two_teams_at_one_name_end_in_one_server_and_in_no_other_answer(arena, racing):
    barrier, outcomes = threading.Barrier(6), []

    def register(caller: Caller) -> None:
        database = Database(arena, "role", "registry_writer").begin(PATIENCE)
        database.read("SELECT")
        barrier.wait()
        try:
            answer = servers.replace(database, caller, sent("weather", version=caller.team))
            outcomes.append((caller.team, answer["name"]))
        except RegistryError as error:
            outcomes.append((caller.team, error.code))
        database.close()

    threads = [threading.Thread(target=register, args=[caller]) for caller in [SEARCH, PAYMENTS] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((winner, version),) = rows(racing[0], "SELECT owner, version FROM registry.mcp_servers")
    assert winner == version
    assert sorted(outcomes) == sorted(
        (caller.team, "weather" if caller.team == winner else "FORBIDDEN") for caller in [SEARCH, PAYMENTS] * 3
    )


def test_a_prefix_that_is_given_away_while_a_registration_runs_counts_from_the_next_one_on(arena, racing):
    """The registration waits for another one of its name, which does not come to be; it asked for the prefix before."""
    first, second = racing
    assert first._connection is not None
    with psycopg.Connection.connect(arena, autocommit=True) as giver:
        with first._connection.transaction(force_rollback=True):
            servers.register(first, SEARCH, sent("maps/tiles"))
            thread, outcome = while_waiting(
                first._connection, second, lambda: servers.register(second, SEARCH, sent("maps/tiles", url=TWO))
            )
            giver.execute("INSERT INTO registry.team_prefixes (prefix, team) VALUES ('maps/', 'payments')")
        thread.join()
    assert isinstance(outcome[0], dict)
    assert owner(first, "maps/tiles") == "search"
    with pytest.raises(Forbidden, match="belongs to the team payments"):
        servers.register(second, SEARCH, sent("maps/roads"))


def test_who_registers_while_the_team_is_deleted_is_told_that_it_has_gone(racing):
    outcome = after(
        racing,
        lambda one: rows(one, "DELETE FROM registry.teams WHERE name = 'search'"),
        lambda two: servers.register(two, SEARCH, sent("weather")),
    )
    assert isinstance(outcome, Forbidden)
    assert str(outcome).startswith("The team search of this credential does not exist any more")
    assert rows(racing[0], "SELECT FROM registry.mcp_servers") == []


def test_a_transfer_to_a_team_that_is_deleted_meanwhile_finds_no_team(racing):
    id_ = prepared(racing[1])
    outcome = after(
        racing,
        lambda one: rows(one, "DELETE FROM registry.teams WHERE name = 'search'"),
        lambda two: servers.transfer(two, PAYMENTS, id_, "search"),
    )
    assert isinstance(outcome, TeamNotFound)
    assert owner(racing[0]) == "payments"


def test_a_team_that_has_registered_meanwhile_cannot_be_deleted(arena, racing):
    remover = Database(arena).begin(PATIENCE)
    outcome = after(
        (racing[0], remover),
        lambda one: servers.register(one, SEARCH, sent("weather")),
        lambda two: rows(two, "DELETE FROM registry.teams WHERE name = 'search'"),
    )
    remover.close()
    assert isinstance(outcome, psycopg.errors.ForeignKeyViolation)
    assert owner(racing[0], "weather") == "search"
