"""What the list, the detail, the history and the metrics tell of endpoints, as the document of the API describes it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, get_args

import pytest

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import cursor, listing, registration, servers
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.health import history, messages
from tests.conftest import ADMIN
from tests.conftest import registration as document
from tests.contract.test_openapi import schema

UP = {"healthy", "gated", "limited"}
EVIDENCE = [{"asked": "POST initialize", "status": 502, "media_type": "text/html", "excerpt": "<p>", "took_ms": 9}]
OBSERVED = {
    "protocol_versions": ["2025-11-25"],
    "server_info": {"name": "Ünï", "version": "1.0"},
    "capabilities": {"tools": {}},
    "tools_count": 3,
    "prompts_count": 0,
    "resources_count": 0,
    "templates_count": 0,
    "incomplete": {},
    "digest": {"raw": "0" * 64, "prompt": "1" * 64, "contract": "2" * 64},
}
GATE = {
    "status": 401,
    "schemes": ["Bearer"],
    "realm": "Ann's",
    "resource_metadata": "https://ann.example/.well-known/oauth-protected-resource",
    "issuer": "https://login.ann.example",
    "scopes": ["read"],
    "header": None,
    "location": None,
}


def run(database: Database, statement: str, *values: Any):
    assert database._connection is not None
    found = database._connection.execute(statement.encode(), values)
    return found.fetchall() if found.description else []


@pytest.fixture
def empty(database: Database) -> Database:
    """A catalogue without servers."""
    run(database, "DELETE FROM registry.mcp_servers")
    return database


def add(database: Database, name: str, **fields: Any) -> int:
    return servers.register(database, ADMIN, registration.parse(document(name, **fields)))["id"]


def used(database: Database, id_: int) -> int:
    return run(database, "SELECT endpoint_id FROM registry.mcp_servers WHERE id = %s", id_)[0][0]


def add_endpoint(database: Database, id_: int, url: str, **columns: str) -> int:
    """Another endpoint of a server; `columns`: expressions of SQL."""
    named = "".join(f", {column}" for column in columns)
    given = "".join(f", {value}" for value in columns.values())
    statement = f"""INSERT INTO registry.endpoints (server_id, url, declared{named})
                    VALUES (%s, %s, false{given}) RETURNING id"""
    return run(database, statement, id_, url)[0][0]


def check(database: Database, endpoint: int, verdict: str, ago: str = "1 minute", evidence: Any = None) -> None:
    """A check that found something else than before, with its change."""
    run(
        database,
        f"""INSERT INTO registry.endpoint_health AS h
                   (endpoint_id, verdict, response_time_ms, status_code, error_message, checked_at, since, times)
            VALUES (%s, %s, 12, 200, NULL, now() - interval '{ago}', now() - interval '{ago}', 1)
                ON CONFLICT (endpoint_id) DO UPDATE
               SET verdict = excluded.verdict, checked_at = excluded.checked_at, since = excluded.since""",
        endpoint,
        verdict,
    )
    change(database, endpoint, "verdict", ago, verdict=verdict, evidence=evidence)


def change(
    database: Database, endpoint: int, kind: str, ago: str, verdict: str | None = None, evidence: Any = None
) -> None:
    run(
        database,
        f"""INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, verdict, reason, evidence,
                                                  occurred_at)
            SELECT server_id, id, url, %s, %s, 'Why', %s, now() - interval '{ago}'
              FROM registry.endpoints WHERE id = %s""",
        kind,
        verdict,
        None if evidence is None else json.dumps(evidence),
        endpoint,
    )


def tell(database: Database, endpoint: int, introduction: str, era: str = "legacy") -> None:
    """What a server said of itself, as JSON text."""
    run(
        database,
        "UPDATE registry.endpoints SET introduction = %s, era = %s, introduced_at = now() WHERE id = %s",
        introduction,
        era,
        endpoint,
    )


def detail(database: Database, id_: int) -> dict[str, Any]:
    told = json.loads(servers.detail(database, id_))
    schema("ServerDetail").validate(told)
    return told


def listed(database: Database, **filters: str) -> list[dict[str, Any]]:
    page = servers.list_page(database, Filters(**filters), 100, 0)
    told = json.loads(page.servers)
    assert (page.total, page.exact) == (len(told), True)
    for server in told:
        schema("ServerListItem").validate(server)
    return told


def history_of(database: Database, id_: int, period: str = "24h") -> dict[str, Any]:
    told = json.loads(history.of_server(database, id_, period))
    schema("ServerHealth").validate(told)
    return told


# ------------------------------------------------------------------ verdicts


def test_of_a_server_without_a_check_nothing_is_known(empty):
    id_ = add(empty, "new")
    told, (shown,) = detail(empty, id_), listed(empty)
    for one in (told, shown):
        assert (one["status"], one["verdict"], one["frozen"]) == ("active", "unknown", False)
        assert one["last_health_check"] is None
    nothing = ("last_check", "checked_at", "auth", "observed")
    assert [told[field] for field in nothing] == [None] * 4
    (endpoint,) = told["endpoints"]
    assert (endpoint["url"], endpoint["status"], endpoint["verdict"]) == (told["endpoint_url"], "unknown", "unknown")
    assert (endpoint["declared"], endpoint["lease_until"], endpoint["last_check"]) == (True, None, None)


@pytest.mark.parametrize("verdict", get_args(messages.Verdict))
def test_a_status_is_frozen_where_the_last_check_found_the_server_not_up(empty, verdict):
    id_ = add(empty, "checked")
    check(empty, used(empty, id_), verdict)
    for status in ("active", "error", "inactive"):
        run(empty, "UPDATE registry.mcp_servers SET status = %s WHERE id = %s", status, id_)
        told, (shown,) = detail(empty, id_), listed(empty)
        for one in (told, shown):
            assert (one["status"], one["verdict"]) == (status, verdict)
            assert one["frozen"] == (status == "active" and verdict not in UP)
            assert one["last_health_check"] == told["last_check"]["checked_at"]
        assert told["last_check"]["verdict"] == verdict
        assert told["endpoints"][0]["status"] == ("active" if verdict in UP else "error")


def test_a_check_and_an_announcement_have_moments_of_their_own(empty):
    id_ = add(empty, "moments")
    before = detail(empty, id_)
    other = add_endpoint(empty, id_, "http://localhost:8081", announced_at="now() + interval '1 hour'")
    check(empty, used(empty, id_), "healthy", "2 hours")
    check(empty, other, "healthy", "1 hour")
    told = detail(empty, id_)
    assert told["updated_at"] == before["updated_at"]
    assert told["checked_at"] == told["endpoints"][1]["last_check"]["checked_at"]
    assert told["last_check"] == told["endpoints"][0]["last_check"]
    assert told["last_check"]["checked_at"] < told["checked_at"] < told["updated_at"] < told["announced_at"]
    assert told["announced_at"] == told["endpoints"][1]["announced_at"]


@pytest.mark.parametrize("verdict", listing.VERDICTS)
def test_the_list_is_narrowed_to_a_verdict(empty, verdict):
    ids = {word: add(empty, f"found-{word}") for word in listing.VERDICTS}
    for word, id_ in ids.items():
        # Another endpoint of a server says nothing of the one that it has.
        check(empty, add_endpoint(empty, id_, "http://localhost:9"), "dns")
        if word != "unknown":
            check(empty, used(empty, id_), word)
    (shown,) = listed(empty, verdict=verdict)
    assert (shown["id"], shown["verdict"]) == (ids[verdict], verdict)
    assert listed(empty, verdict=verdict, search="found", type="mock", status="active") == [shown]
    assert listed(empty, verdict=verdict, status="error") == []
    assert listed(empty, verdict=verdict, search="lost") == []


def test_the_pages_of_a_verdict_hold_each_server_once(empty):
    ids = [add(empty, f"paged-{number}") for number in range(5)]
    for id_ in ids:
        check(empty, used(empty, id_), "gated")
    add(empty, "unchecked")
    pages, after, filters = [], 0, Filters(verdict="gated")
    while after is not None:
        page = servers.list_page(empty, filters, 2, after)
        assert (page.total, page.exact) == (5, True)
        pages.append([server["id"] for server in json.loads(page.servers)])
        after, filters = cursor.decode(page.next_cursor) if page.next_cursor else (None, filters)
    assert pages == [ids[:2], ids[2:4], ids[4:]]


# ------------------------------------------------------------------ endpoints


def test_the_endpoint_in_use_is_told_first_and_retired_ones_last(empty):
    id_ = add(empty, "many")
    first = used(empty, id_)
    check(empty, first, "refused")
    urls = {name: f"http://{name}.example/mcp" for name in ("up", "new", "down", "old", "gone", "long-gone")}
    columns = {
        "up": {"lease_until": "now() + interval '10 minutes'"},
        "down": {"created_at": "now() - interval '2 days'", "conflict_at": "now()"},
        "old": {"retired_at": "now() - interval '23 hours'"},
        "gone": {"retired_at": "now() - interval '1 hour'"},
        "long-gone": {"retired_at": "now() - interval '25 hours'"},
    }
    made = {name: add_endpoint(empty, id_, url, **columns.get(name, {})) for name, url in urls.items()}
    for name in ("up", "down", "old", "gone"):
        check(empty, made[name], "healthy" if name == "up" else "timeout")
    told = detail(empty, id_)
    order = [told["endpoint_url"], *(urls[name] for name in ("up", "down", "new", "gone", "old"))]
    assert [one["url"] for one in told["endpoints"]] == order
    assert [one["status"] for one in told["endpoints"]] == ["error", "active", "error", "unknown", "error", "error"]
    assert [one["retired_at"] is None for one in told["endpoints"]] == [True] * 4 + [False] * 2
    assert [one["lease_until"] is None for one in told["endpoints"]] == [True, False, True, True, True, True]
    assert [one["conflict_at"] is None for one in told["endpoints"]] == [True, True, False, True, True, True]
    assert [one["declared"] for one in told["endpoints"]] == [True] + [False] * 5


def test_what_is_told_of_endpoints_is_bounded(empty):
    id_ = add(empty, "crowd")
    run(
        empty,
        """INSERT INTO registry.endpoints (server_id, url, retired_at)
           SELECT %s, 'http://localhost/' || n, CASE WHEN n > 90 THEN now() END FROM generate_series(1, 200) AS n""",
        id_,
    )
    told = detail(empty, id_)["endpoints"]
    assert len(told) == 100
    assert [one["retired_at"] is None for one in told] == [True] * 91 + [False] * 9


def test_the_evidence_is_that_of_what_an_endpoint_is_now(empty):
    id_ = add(empty, "evident")
    endpoint, other = used(empty, id_), add_endpoint(empty, id_, "http://localhost:8081")
    check(empty, endpoint, "timeout", "3 hours", [{**EVIDENCE[0], "excerpt": "before"}])
    check(empty, endpoint, "http_error", "2 hours", EVIDENCE)
    check(empty, other, "not_mcp", "1 hour", [{**EVIDENCE[0], "excerpt": "elsewhere"}])
    change(empty, endpoint, "conflict", "1 minute")
    told = detail(empty, id_)["endpoints"]
    assert [one["evidence"][0]["excerpt"] for one in told] == ["<p>", "elsewhere"]
    check(empty, endpoint, "healthy", "1 second")
    assert detail(empty, id_)["endpoints"][0]["evidence"] is None


# ------------------------------------------------------------------ what strangers say


def test_what_a_server_said_of_itself_and_how_one_gets_in_are_told(empty):
    id_ = add(empty, "introduced")
    endpoint = used(empty, id_)
    tell(empty, endpoint, json.dumps(OBSERVED))
    run(empty, "UPDATE registry.endpoints SET auth = %s WHERE id = %s", json.dumps(GATE), endpoint)
    # Of another endpoint it is not told.
    tell(empty, add_endpoint(empty, id_, "http://localhost:8081"), json.dumps({**OBSERVED, "tools_count": 9}))
    told = detail(empty, id_)
    assert datetime.fromisoformat(told["observed"].pop("at"))
    assert (told["observed"], told["auth"]) == ({"era": "legacy", **UNRECORDED, **OBSERVED}, GATE)


# Where the ledger stands with a server that it has not come to yet.
UNRECORDED = {"state": None, "reason": None, "snapshot": None, "agreement": "unobserved"}
HOSTILE = {
    "no character": r'"\u0000"',
    "half a character": r'"\ud800"',
    "the end of a string": r'"\"},\"tools\":[\"\\"',
    "a new line": '\n\t"x"\n',
    "very deep": "[" * 500 + "]" * 500,
    "names that come twice": '{"a":1,"a":2,"tools":[]}',
    "a number beyond every number": "1e999999",
    "a sign of SQL": '"%s %% %(id)s {0} $1"',
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_stranger_says_breaks_the_answer(empty, value):
    id_ = add(empty, "hostile")
    endpoint = used(empty, id_)
    text = f'{{"server_info":{value}}}'
    tell(empty, endpoint, text)
    check(empty, endpoint, "not_mcp")
    run(empty, "UPDATE metrics.endpoint_changes SET evidence = %s", f"[{text}]")
    run(empty, "UPDATE registry.endpoints SET auth = %s", text)
    for told in (servers.detail(empty, id_), history.of_server(empty, id_, "24h"), history.of_server(empty, id_, "7d")):
        assert text in told
        assert list(json.loads(told))[-1] in ("tools", "series")
    whole = json.loads(servers.detail(empty, id_))
    assert list(whole["observed"]) == ["at", "era", *UNRECORDED, "server_info"]
    assert [tool["name"] for tool in whole["tools"]] == ["forecast"]


@pytest.mark.parametrize("text", ["{}", "null", "[]", '"{\\""', " {} ", "1"])
def test_what_is_no_introduction_is_none(empty, text):
    id_ = add(empty, "empty")
    tell(empty, used(empty, id_), text)
    assert detail(empty, id_)["observed"] is None


# ------------------------------------------------------------------ history and metrics


@pytest.mark.parametrize("period", history.PERIODS)
def test_what_became_of_endpoints_is_told_newest_first(empty, period):
    id_, other = add(empty, "changing"), add(empty, "quiet")
    run(empty, "DELETE FROM metrics.endpoint_changes")
    endpoint = used(empty, id_)
    change(empty, endpoint, "added", "40 days")
    change(empty, endpoint, "added", "3 hours")
    check(empty, endpoint, "http_error", "2 hours", EVIDENCE)
    change(empty, endpoint, "retired", "1 hour")
    told = history_of(empty, id_, period)
    assert [(one["change"], one["verdict"], one["evidence"]) for one in told["changes"]] == [
        ("retired", None, None),
        ("verdict", "http_error", EVIDENCE),
        ("added", None, None),
    ]
    assert told["last_check"] == detail(empty, id_)["last_check"]
    assert history_of(empty, other, period)["changes"] == []


def test_a_history_holds_the_newest_hundred_changes(empty):
    id_ = add(empty, "flapping")
    run(
        empty,
        """INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, reason, occurred_at)
           SELECT %s, 1, 'http://localhost', 'verdict', n::text, now() - n * interval '1 second'
             FROM generate_series(1, 150) AS n""",
        id_,
    )
    told = [one["reason"] for one in history_of(empty, id_)["changes"]]
    assert [one for one in told if one.isdigit()][-1] in ("99", "100")
    assert len(told) == 100


def test_the_metrics_count_endpoints_and_what_is_frozen_or_unknown(empty):
    ids = [add(empty, f"counted-{number}") for number in range(5)]
    up, frozen, down, out, new = (used(empty, id_) for id_ in ids)
    check(empty, up, "healthy")
    check(empty, frozen, "timeout")
    check(empty, down, "refused")
    check(empty, out, "refused")
    run(empty, "UPDATE registry.mcp_servers SET status = 'error' WHERE id = %s", ids[2])
    run(empty, "UPDATE registry.mcp_servers SET status = 'inactive' WHERE id = %s", ids[3])
    check(empty, add_endpoint(empty, ids[0], "http://localhost:8081"), "refused")
    add_endpoint(empty, ids[0], "http://localhost:8082")
    check(empty, add_endpoint(empty, ids[0], "http://localhost:8083", retired_at="now()"), "refused")
    told = json.loads(history.of_all(empty))
    schema("HealthMetrics").validate(told)
    assert told["servers"] == {"active": 3, "inactive": 1, "error": 1, "frozen": 1, "unknown": 1, "total": 5}
    assert told["endpoints"] == {"total": 6, "up": 1, "down": 3, "unknown": 2}
    assert [server["id"] for server in listed(empty, verdict="unknown")] == [ids[4]] == [ids[-1]]
    assert new
