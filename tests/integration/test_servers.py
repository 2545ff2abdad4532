"""The statements of the catalogue against Postgres 18."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import mcp_registry
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import listing, registration, servers
from mcp_registry.catalogue.cursor import Filters
from mcp_registry.errors import DuplicateServer, ServerNotFound
from tests.conftest import ADMIN, PATIENCE
from tests.conftest import registration as document


def parsed(name: str, **fields) -> registration.Registration:
    return registration.parse(document(name, **fields))


def rows(database: Database, statement: str):
    assert database._connection is not None
    return database._connection.execute(statement.encode()).fetchall()


VERBS = {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"}


def statements() -> dict[str, str]:
    """Every statement constant of the package, by module and name."""
    found = {}
    for module in pkgutil.walk_packages(mcp_registry.__path__, "mcp_registry."):
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            constant = name.isupper() and not name.startswith("_") and isinstance(value, str)
            if constant and value.split(None, 1)[:1] and value.split(None, 1)[0] in VERBS:
                found[f"{module.name.removeprefix('mcp_registry.')}.{name}"] = value
    return found


PARAMETERS = {
    "after": 0, "limit": 100, "status": "active", "type": "mock", "word": "x", "words": ["%x%"], "tag": "x", "id": 1,
    "verdict": "gated", "unknown": False, "counted": True,
    "name_key": "x", "look_key": "x", "figure_key": "x", "search_fold": "x", "tags_fold": ["x"],
    "revision": 1, "digest": b"x", "body_digest": b"x", "offer_digest": b"x", "name": "x",
    "display_name": "x", "description": None, "server_type": "mock", "endpoint_url": "http://x", "health_url": None,
    "version": None, "tools_count": 0, "has_metadata": True, "author": None, "repository_url": None,
    "documentation_url": None, "tags": "[]", "tools": "[]",
    "endpoint": None, "lease": 600, "is_moved": False, "is_back": False, "is_looked_for": True, "is_put_back": False,
    "seconds": 60, "names": "{x}", "is_one_more": True, "bytes": 2, "max_servers": 1, "max_bytes": 1, "max_held": 1,
    "slot": "2026-11-22T12:00:00Z", "sent_at": None, "shard": 0, "servers": 1, "shards": 1, "suspect_hosts": 10,
    "suspect_minutes": 10, "unreachable": "The host cannot be reached",
    "token": "x", "issuer": "https://x",
    "asked_at": None, "endpoint_ids": "{1}", "retries": "{NULL}", "doubted": "{}", "evidence_of": "{}",
    "evidence": "{}", "doubt_minutes": 5,
    "sudden": 3, "told": 20, "kept": 100, "falling": "{}", "minutes": 60, "ids": "{1}", "pulses": "{NULL}",
    "eras": "{NULL}", "introductions": "{NULL}", "auths": "{NULL}", "offered": "{NULL}",
    "ttls_ms": "{NULL}", "state": "observed", "flux": 0, "agrees": None, "superseded": None,
    "prompt": b"x", "tools_raw": None,
    "tools_prompt": None, "tools_contract": None, "at": "2026-11-22T12:00:00Z", "about": "{}", "tools_list": [b"x"],
    "prompts_list": None, "resources_list": None, "templates_list": None, "digests": [b"x"], "raws": [b"x"],
    "prompts": [b"x"], "contracts": [b"x"], "documents": ["{}"], "sources": ["observed"], "kinds": ["tool"],
    "subjects": ["x"], "grades": ["text"], "befores": ["{}"], "afters": ["{}"], "reasons": ["[]"],
    "becomes_unstable": False, "is_asked": True,
    "server_ids": "{1}", "verdicts": "{healthy}", "status_codes": "{200}", "response_times_ms": "{1}",
    "errors": "{NULL}", "ages_ms": "{0}", "period": "24h", "length": "24 hours", "point": "15 minutes",
    "hour": "2026-11-22T12:00:00Z", "day": "2026-11-22", "first": "2026-11-22", "last": "2026-11-22",
    "until": "2026-11-22", "owner": "x", **ADMIN.parameters(), "action": "team.set", "target": "team:x", "was": None,
    "became": "{}", "settled": 1, "actor": None, "team": "x", "role": "reader", "days": 90, "contact": None,
    "prefixes": ["x-"], "seen": None, "is_told_members": True, "issuer_id": "x", "audience": "x", "claims": "{}",
    "grade": "breaking", "kind": "status", "server": "x", "curates": True, "policy": "auto", "source": "observed",
    "as_of": None, "about_bytes": 1, "own": None, "wanted": "manual", "decisions": "[]", "compatible_id": None,
    "approved_id": None, "reason": None, "state_before": "awaiting", "state_after": "approved",
    "secret": "00000000-0000-4000-8000-000000000000", "origin": "http://x",
    "slice": 0, "most": 1, "bus": "x", "through": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", statements())
def test_every_statement_fits_the_schema(database, name):
    plan = database.read("EXPLAIN " + statements()[name], PARAMETERS)
    assert plan is not None


def test_the_longest_page_fits_the_literal_limit_of_the_list():
    assert f"LIMIT {listing.MAX_LIMIT + 1})" in servers.LIST


def test_every_statement_was_found():
    assert {
        "catalogue.servers.REGISTER",
        "catalogue.servers.LIST",
        "catalogue.servers.DETAIL",
        "aws.db.VERIFY",
    } <= statements().keys()


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("catalogue.servers.FIND", "mcp_servers_name_key_idx"),
        ("catalogue.servers.FIND", "mcp_servers_look_key_idx"),
        ("catalogue.servers.FIND", "mcp_servers_figure_key_idx"),
        ("catalogue.servers.IDENTIFY", "mcp_servers_name_key_idx"),
        ("catalogue.servers.HAS_DIGEST", "mcp_servers_body_digest_idx"),
        ("catalogue.servers.NARROW", "mcp_servers_search_fold_idx"),
        ("catalogue.servers.NARROW", "server_metadata_tags_idx"),
        ("catalogue.servers.NARROW", "endpoint_verdicts_verdict_idx"),
        ("catalogue.servers.NARROW", "mcp_servers_endpoint_id_idx"),
        ("catalogue.servers.DETAIL", "tools_server_id_name_key"),
        ("catalogue.servers.DETAIL", "endpoints_server_id_url_key"),
        ("catalogue.servers.DETAIL", "endpoint_changes_verdict_idx"),
        ("ledger.reading.OFFER", "snapshots_server_id_idx"),
        ("health.history.CHECKS", "endpoint_changes_server_idx"),
        ("health.history.HOURS", "endpoint_changes_server_idx"),
    ],
)
def test_a_statement_is_served_by_its_index(database, name, index):
    # Of a table without rows every way is cheap: left is the one by a bitmap, which any index can take.
    rows(database, "SELECT set_config(s, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_indexscan']) AS s")
    wanted = {"word": None, "tag": "weather"} if "tags" in index else {"word": "%weather%", "tag": None}
    search = {**wanted, "words": None, "status": None, "type": None, "verdict": None, "owner": None}
    if "verdict" in index or "endpoint_id" in index:
        search |= {"word": None, "verdict": "timeout"}
    # As it is run: planned for the parameters that it has.
    plan = database.read("EXPLAIN (FORMAT JSON) " + statements()[name], PARAMETERS | search, plan_anew=True)
    assert index in str(plan)


def test_a_registration_lands_whole(database):
    created = servers.register(database, ADMIN, parsed("whole", metadata={"author": "Ann", "tags": ["x"]}))
    id_ = created["id"]
    assert rows(database, f"SELECT author, tags FROM registry.server_metadata WHERE server_id = {id_}") == [
        ("Ann", ["x"])
    ]
    assert rows(database, f"SELECT name, position FROM registry.tools WHERE server_id = {id_}") == [("forecast", 0)]


def test_a_refused_registration_leaves_nothing(database):
    servers.register(database, ADMIN, parsed("taken"))
    before = [rows(database, f"SELECT count(*) FROM {table}") for table in ("registry.tools", "registry.mcp_servers")]
    with pytest.raises(DuplicateServer):
        servers.register(database, ADMIN, parsed("TAKEN", metadata={"author": "Eve"}))
    after = [rows(database, f"SELECT count(*) FROM {table}") for table in ("registry.tools", "registry.mcp_servers")]
    assert after == before


def test_a_schema_is_kept_to_the_letter(database):
    schema = {"zeta": 1, "alpha": {"b": [1.0, 9007199254740993, 10**400], "a": "é\u2028😀"}}
    created = servers.register(database, ADMIN, parsed("letter", tools=[{"name": "t", "input_schema": schema}]))
    (stored,) = rows(database, f"SELECT input_schema::text FROM registry.tools WHERE server_id = {created['id']}")
    assert stored == (registration._json(schema),)


def test_deleting_a_server_takes_everything_with_it(database):
    id_ = servers.register(database, ADMIN, parsed("doomed", metadata={"author": "Ann"}))["id"]
    rows(database, "SELECT metrics.add_days(current_date, current_date)")
    rows(
        database,
        f"INSERT INTO metrics.server_health_metrics (server_id, slot, verdict, checked_at) "
        f"VALUES ({id_}, now(), 'healthy', now()) RETURNING 1",
    )
    rows(
        database,
        "INSERT INTO metrics.tool_invocations (server_id, tool_id, success)"
        f" SELECT {id_}, id, true FROM registry.tools WHERE server_id = {id_} RETURNING 1",
    )
    servers.delete(database, ADMIN, id_)
    for table in (
        "registry.tools",
        "registry.server_metadata",
        "metrics.server_health_metrics",
        "metrics.tool_invocations",
    ):
        assert rows(database, f"SELECT count(*) FROM {table} WHERE server_id = {id_}") == [(0,)], table
    with pytest.raises(ServerNotFound):
        servers.detail(database, id_)


def test_an_unchanged_replacement_writes_no_row(database):
    servers.replace(database, ADMIN, parsed("still", metadata={"author": "Ann"}))
    before = rows(database, "SELECT ctid, xmin, * FROM registry.mcp_servers WHERE name = 'still'")
    assert servers.replace(database, ADMIN, parsed("still", metadata={"author": "Ann"}))["result"] == "unchanged"
    assert rows(database, "SELECT ctid, xmin, * FROM registry.mcp_servers WHERE name = 'still'") == before


def test_a_replacement_of_another_revision_changes_nothing(database):
    """What a racing replacement would do: the revision that it read is gone."""
    created = servers.replace(database, ADMIN, parsed("raced"))
    columns = (
        servers._columns(parsed("raced", version="2", tools=[])) | servers.NO_QUOTA.parameters() | ADMIN.parameters()
    )
    place = {"endpoint": None, "lease": None} | dict.fromkeys(
        ("is_moved", "is_back", "is_looked_for", "is_put_back"), False
    )
    assert database.write(servers.REPLACE, {**columns, **place, "id": created["id"], "revision": 7}) is None
    assert rows(database, f"SELECT count(*) FROM registry.tools WHERE server_id = {created['id']}") == [(1,)]


def test_a_server_in_error_stays_in_error_until_a_probe_says_otherwise(database):
    id_ = servers.register(database, ADMIN, parsed("ill"))["id"]
    rows(database, f"UPDATE registry.mcp_servers SET status = 'error' WHERE id = {id_} RETURNING 1")
    assert servers.set_status(database, ADMIN, id_, "active")["status"] == "error"
    assert servers.set_status(database, ADMIN, id_, "inactive")["status"] == "inactive"
    assert servers.set_status(database, ADMIN, id_, "active")["status"] == "active"


def test_the_totals_follow_every_change(database):
    def counted():
        return dict(
            rows(database, "SELECT (status, server_type)::text, sum(servers) FROM registry.server_counts GROUP BY 1")
        )

    def actual():
        return dict(
            rows(
                database,
                "SELECT (status, server_type)::text, count(*) FROM registry.mcp_servers GROUP BY status, server_type",
            )
        )

    ids = [servers.register(database, ADMIN, parsed(f"counted-{n}"))["id"] for n in range(4)]
    servers.replace(database, ADMIN, parsed("counted-0", server_type="official"))
    servers.set_status(database, ADMIN, ids[1], "inactive")
    servers.delete(database, ADMIN, ids[2])
    rows(database, "UPDATE registry.mcp_servers SET status = 'error' RETURNING 1")
    assert {key: n for key, n in counted().items() if n} == actual()
    page = servers.list_page(database, Filters(status="error", type="mock"), 1, 0)
    assert page.total == actual()["(error,mock)"]


@pytest.fixture
def contended(database_url):
    """A server, a session that holds its row, and a database that has to wait for it."""
    with psycopg.connect(database_url, autocommit=True) as holder:
        database = Database(database_url).begin()
        id_ = servers.register(database, ADMIN, parsed("contended"))["id"]
        yield id_, holder, database
        database.close()
        holder.execute("DELETE FROM registry.mcp_servers WHERE id = %s", [id_])


def while_waiting(holder: psycopg.Connection, database: Database, work):
    """Run `work` in a thread until it waits for a lock, then let the block of the holder go on."""
    assert database._connection is not None
    pid = database._connection.info.backend_pid
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while holder.execute("SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", [pid]).fetchone() == (0,):
        assert thread.is_alive()
    return thread, outcome


@pytest.mark.parametrize("status", ["active", "inactive"])
def test_a_change_that_waited_for_another_answers_what_is_true_then(contended, status):
    id_, holder, database = contended
    with holder.transaction():
        holder.execute("UPDATE registry.mcp_servers SET status = 'inactive' WHERE id = %s", [id_])
        thread, outcome = while_waiting(holder, database, lambda: servers.set_status(database, ADMIN, id_, status))
    thread.join()
    assert outcome[0]["status"] == status  # pyright: ignore[reportIndexIssue]
    assert holder.execute("SELECT status::text FROM registry.mcp_servers WHERE id = %s", [id_]).fetchone() == (status,)


def test_a_change_that_waited_for_a_delete_finds_no_server(contended):
    id_, holder, database = contended
    with holder.transaction():
        holder.execute("DELETE FROM registry.mcp_servers WHERE id = %s", [id_])
        thread, outcome = while_waiting(holder, database, lambda: servers.set_status(database, ADMIN, id_, "active"))
    thread.join()
    assert isinstance(outcome[0], ServerNotFound)


def test_a_delete_that_waited_for_a_replacement_leaves_none_of_its_tools(contended, database_url):
    """No foreign key says that a tool has a server."""
    id_, holder, database = contended
    replacing = Database(database_url).begin(PATIENCE)
    replacing.read("SELECT")
    assert replacing._connection is not None
    with replacing._connection.transaction():
        changed = parsed("contended", tools=[{"name": "new", "input_schema": {}}])
        assert servers.replace(replacing, ADMIN, changed)["result"] == "updated"
        thread, outcome = while_waiting(holder, database, lambda: servers.delete(database, ADMIN, id_))
    thread.join()
    replacing.close()
    assert outcome == [None]
    assert holder.execute("SELECT count(*) FROM registry.tools WHERE server_id = %s", [id_]).fetchone() == (0,)


def test_an_open_change_of_one_server_does_not_hold_up_a_registration_of_another_session(contended, database_url):
    id_, holder, _ = contended
    with holder.transaction():
        holder.execute("UPDATE registry.mcp_servers SET status = 'error' WHERE id = %s", [id_])
        mine = holder.info.backend_pid % 8
        # A session of another slot; which one a session gets is up to its process id.
        others = [Database(database_url).begin(PATIENCE) for _ in range(2)]
        pids = [row[0] for other in others if (row := other.read("SELECT pg_backend_pid()"))]
        free = next(other for other, pid in zip(others, pids, strict=True) if pid % 8 != mine)
        created = servers.register(free, ADMIN, parsed("not-held-up"))
        servers.delete(free, ADMIN, created["id"])
        for other in others:
            other.close()


def test_a_search_takes_its_text_literally(database):
    for name, display in (("lit-a", "100% sure"), ("lit-b", "a_b"), ("lit-c", "C:\\temp"), ("lit-d", "axb")):
        servers.register(database, ADMIN, parsed(name, display_name=display))

    def found(search: str) -> int:
        return servers.list_page(database, Filters(search=search), 10, 0).total

    assert {text: found(text) for text in ("0% s", "A_B", "c:\\T", "\\%", "%%", "lit-")} == {
        "0% s": 1,
        "A_B": 1,
        "c:\\T": 1,
        "\\%": 0,
        "%%": 0,
        "lit-": 4,
    }


def test_a_page_is_one_statement_and_detail_is_one_statement(database, monkeypatch):
    id_ = servers.register(database, ADMIN, parsed("counted-statements"))["id"]
    statements_run = []
    real = psycopg.Cursor.execute

    def execute(self, query, *arguments, **keywords):
        statements_run.append(query)
        return real(self, query, *arguments, **keywords)

    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    servers.detail(database, id_)
    servers.list_page(database, Filters(), 10, 0)
    servers.list_page(database, Filters(search="x"), 10, 0)
    servers.register(database, ADMIN, parsed("counted-statements-2"))
    assert len(statements_run) == 4


def test_replacements_that_race_never_mix_their_tools(database_url):
    """Twenty connections replace one server with different tools, again and again."""
    name = "mixed-never"

    def tools(n: int):
        return [{"name": f"t{n}-{i}", "input_schema": {}} for i in range(n % 5 + 1)]

    def run(n: int) -> None:
        database = Database(database_url)
        for round_ in range(5):
            version = n * 10 + round_
            servers.replace(database.begin(PATIENCE), ADMIN, parsed(name, version=str(version), tools=tools(version)))
        database.close()

    parsed(name)  # msgspec may crash where two threads are the first to use a type (0.22.0); no function has threads
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(run, range(20)))
    with psycopg.connect(database_url, autocommit=True) as connection:
        version, count, names = connection.execute(
            "SELECT s.version, s.tools_count, array_agg(t.name ORDER BY t.position)"
            " FROM registry.mcp_servers AS s JOIN registry.tools AS t ON t.server_id = s.id"
            " WHERE s.name = %s GROUP BY s.id",
            [name],
        ).fetchall()[0]
        connection.execute("DELETE FROM registry.mcp_servers WHERE name = %s", [name])
    assert names == [tool["name"] for tool in tools(int(version))]
    assert count == len(names)
