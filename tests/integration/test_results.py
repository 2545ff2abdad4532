"""Writing what the probes found: one row a check, one status a server, whatever comes twice, late or out of order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.dial import reach
from mcp_registry.edge.background import Record
from mcp_registry.errors import Malformed, ServerNotFound
from mcp_registry.health import messages, results
from mcp_registry.health.messages import Finding, Findings
from tests.conftest import ADMIN, PATIENCE
from tests.conftest import registration as document

SLOT = datetime.now(UTC).replace(microsecond=0)
REFUSED = "Nothing listens there: the connection was refused"


def slot(number: int) -> datetime:
    return SLOT + timedelta(seconds=30 * number)


def finding(server_id: int, verdict: messages.Verdict = "healthy", **fields) -> Finding:
    up = verdict in ("healthy", "gated")
    usual = Finding(server_id, verdict, 200 if up else None, 12, None if up else REFUSED, 0)
    return usual._replace(**fields)


def made(database: Database, name: str, **fields: object) -> int:
    """The id of a new server."""
    servers.register(database, ADMIN, registration.parse(document(name, **fields)))
    return rows(database, f"SELECT id FROM registry.mcp_servers WHERE name = '{name}'")[0][0]


def write(database: Database, number: int, *findings: Finding, shard: int = 0):
    """Write findings as the sweep of a slot, sent at that slot's second; what came of it, without the changes."""
    return results.write(database, Findings(slot(number), shard, list(findings)), slot(number))[:4]


def rows(database: Database, statement: str):
    assert database._connection is not None
    cursor = database._connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def status(database: Database, id_: int) -> str:
    return rows(database, f"SELECT status::text FROM registry.mcp_servers WHERE id = {id_}")[0][0]


def last_check(database: Database, id_: int):
    statement = "SELECT h.verdict::text, h.checked_at FROM registry.endpoint_health AS h JOIN registry.mcp_servers AS s"
    found = rows(database, f"{statement} USING (endpoint_id) WHERE s.id = {id_}")
    return found[0] if found else None


def endpoint(database: Database, id_: int) -> int:
    """The endpoint that a server uses."""
    return rows(database, f"SELECT endpoint_id FROM registry.mcp_servers WHERE id = {id_}")[0][0]


def transitions(database: Database, id_: int) -> list[tuple[str, str, str | None]]:
    statement = "SELECT from_status::text, to_status::text, verdict::text FROM metrics.status_transitions"
    return rows(database, f"{statement} WHERE server_id = {id_} ORDER BY id")


@pytest.fixture
def fleet(database):
    """Twenty servers, each on a host of its own."""
    return registered(database, *(f"http://fleet-{number}.example/mcp" for number in range(20)))


def registered(database: Database, *endpoints: str) -> list[int]:
    """The ids of servers at these endpoints, which have been there for a while; with tables for the days around now."""
    rows(database, "SELECT metrics.add_days(current_date - 3, current_date + 3)")
    ids = [made(database, f"fleet-{number}", endpoint_url=endpoint) for number, endpoint in enumerate(endpoints)]
    settle(database)
    return ids


def settle(database: Database) -> None:
    """Every server has been where it is for a while: a sweep of this second may speak of it."""
    rows(database, "UPDATE registry.endpoints SET moved_at = now() - interval '1 hour'")


def test_a_check_is_one_row_with_everything_that_was_seen(database, fleet):
    write(database, 0, finding(fleet[0], "http_error", status_code=503, error='He said "no", \\ and left', age_ms=1500))
    (row,) = rows(database, f"SELECT * FROM metrics.server_health_metrics WHERE server_id = {fleet[0]}")
    seen = SLOT - timedelta(seconds=1.5)
    assert row == (fleet[0], SLOT, "http_error", 12, 503, 'He said "no", \\ and left', seen)
    assert last_check(database, fleet[0]) == ("http_error", seen)


def test_a_failed_check_calls_a_server_down_and_the_first_good_one_brings_it_back(database, fleet):
    assert write(database, 0, finding(fleet[0], "timeout")) == (1, 0, 1, False)
    assert status(database, fleet[0]) == "error"
    assert write(database, 1, finding(fleet[0], "timeout")) == (1, 0, 0, False)
    assert write(database, 2, finding(fleet[0], "gated", status_code=401)) == (1, 1, 0, False)
    assert status(database, fleet[0]) == "active"
    assert transitions(database, fleet[0]) == [("active", "error", "timeout"), ("error", "active", "gated")]


@pytest.mark.parametrize("verdict", ["not_mcp", "http_error", "timeout", "refused", "dns", "tls", "blocked"])
def test_every_verdict_but_healthy_and_gated_means_error(database, fleet, verdict):
    write(database, 0, finding(fleet[0], verdict))
    assert status(database, fleet[0]) == "error"


def test_a_transition_has_its_reason_and_its_moment(database, fleet):
    write(database, 0, finding(fleet[0], "refused", age_ms=2000))
    found = rows(database, f"SELECT reason, occurred_at FROM metrics.status_transitions WHERE server_id = {fleet[0]}")
    assert found == [(REFUSED, SLOT - timedelta(seconds=2))]


def test_who_is_called_down_and_who_comes_back_is_told_by_name_with_the_reason(database, fleet):
    def changes(number: int, *findings: Finding):
        return results.write(database, Findings(slot(number), 0, list(findings)), slot(number)).changes

    rest = [finding(id_) for id_ in fleet[1:]]
    assert changes(0, finding(fleet[0], "refused"), *rest) == [("fleet-0", "active", "error", REFUSED)]
    assert changes(1, finding(fleet[0], "refused"), *rest) == []
    assert changes(2, finding(fleet[0]), *rest) == [("fleet-0", "error", "active", "The server answered the check")]


def test_a_hundred_changes_are_told_and_all_are_counted(database, fleet):
    more = [made(database, f"more-{number}") for number in range(90)]
    settle(database)
    findings = Findings(SLOT, 0, [finding(id_, "refused") for id_ in fleet + more])
    written = results.write(database, findings, SLOT)
    assert (written.failed, len(written.changes)) == (110, 100)


def test_a_late_finding_is_kept_and_overwrites_nothing_newer(database, fleet):
    write(database, 1, finding(fleet[0], "healthy"))
    write(database, 0, finding(fleet[0], "refused"))
    assert status(database, fleet[0]) == "active"
    assert last_check(database, fleet[0]) == ("healthy", slot(1))
    assert rows(database, "SELECT count(*) FROM metrics.server_health_metrics") == [(2,)]
    assert transitions(database, fleet[0]) == []


def test_an_inactive_server_is_left_alone(database, fleet):
    servers.set_status(database, ADMIN, fleet[0], "inactive")
    assert write(database, 0, finding(fleet[0], "refused"))[0] == 0
    assert status(database, fleet[0]) == "inactive"
    assert last_check(database, fleet[0]) is None
    # Neither checked nor unchecked: it is gone.
    assert rows(database, "SELECT checked, up, gone FROM metrics.sweep_shards") == [(0, 0, 1)]


def test_a_server_that_is_gone_takes_no_other_along(database, fleet):
    servers.delete(database, ADMIN, fleet[0])
    findings = [finding(fleet[0]), finding(fleet[1], "refused"), finding(fleet[2])]
    assert write(database, 0, *findings) == (2, 0, 1, False)
    assert last_check(database, fleet[0]) is None
    assert rows(database, "SELECT checked, up, gone FROM metrics.sweep_shards") == [(2, 1, 1)]


@pytest.fixture
def up(database, fleet):
    """The fleet, which the sweep before has found up."""
    write(database, 0, *[finding(id_) for id_ in fleet])
    return fleet


# What a fault of ours can look like: our way out, our resolver, our routes.
AWAY = {
    "timeout": ("timeout", "No answer within 5 seconds"),
    "dns": ("dns", "The host name does not resolve"),
    "refused": ("refused", reach.UNREACHABLE.error),
}


@pytest.mark.parametrize(("verdict", "error"), AWAY.values(), ids=AWAY)
def test_most_hosts_away_at_once_calls_nobody_down_and_is_marked(database, up, verdict, error):
    failing = [finding(id_, verdict, error=error) for id_ in up[:15]]
    assert write(database, 1, *failing, *[finding(id_) for id_ in up[15:]]) == (20, 0, 0, True)
    assert {status(database, id_) for id_ in up} == {"active"}
    marked = f"SELECT checked, up, suspect FROM metrics.sweep_shards WHERE slot = '{slot(1)}'"
    assert rows(database, marked) == [(20, 5, True)]
    # What was seen is kept, and told as the last check.
    assert last_check(database, up[0]) == (verdict, slot(1))


def test_an_outage_of_minutes_calls_nobody_down_and_one_that_stays_is_believed(database, up):
    for number in range(1, 20):
        assert write(database, number, *[finding(id_, "timeout") for id_ in up])[2:] == (0, True)
    assert write(database, 21, *[finding(id_, "timeout") for id_ in up]) == (20, 0, 20, False)


@pytest.mark.parametrize("verdict", ["refused", "not_mcp", "http_error", "tls", "blocked"])
def test_what_no_fault_of_ours_looks_like_is_believed_of_any_number(database, up, verdict):
    """Who refuses a connection, hangs up, or answers anything has been reached."""
    assert write(database, 1, *[finding(id_, verdict) for id_ in up]) == (20, 0, 20, False)


@pytest.mark.parametrize(
    "host",
    [
        "http://one.example/{}",
        "http://one.example:80{}/mcp",
        "https://One.Example.:80{}",
        "http://[2606:4700::1111]:80{}/",
    ],
)
def test_a_hundred_servers_of_one_host_are_one_voice(database, host):
    """Eleven that are away together hide nobody's outage, whatever their paths, ports and spellings."""
    ids = registered(database, "http://victim.example/mcp", *(host.format(number) for number in range(11)))
    write(database, 0, *[finding(id_) for id_ in ids])
    assert write(database, 1, *[finding(id_, "timeout") for id_ in ids]) == (12, 0, 12, False)


def test_a_host_of_which_any_server_has_been_reached_is_not_away(database, fleet):
    """Each has a second server, which refuses: the way there is open."""
    ids = [made(database, f"more-{n}", endpoint_url=f"http://fleet-{n}.example/x") for n in range(20)]
    settle(database)
    write(database, 0, *[finding(id_) for id_ in fleet + ids])
    findings = [*[finding(id_, "timeout") for id_ in fleet], *[finding(id_, "refused") for id_ in ids]]
    assert write(database, 1, *findings) == (40, 0, 40, False)


def test_hosts_that_take_turns_in_being_away_hide_nobodys_outage_for_longer_than_ten_minutes(database, up):
    """Of eighteen hosts two thirds are away at each sweep, so that each sweep is suspect, for as long as they like."""
    victim, *turns = up[:19]
    told = []
    for number in range(1, 24):
        findings = [finding(id_, "timeout" if (place + number) % 3 else "healthy") for place, id_ in enumerate(turns)]
        told.append((*write(database, number, finding(victim, "refused"), *findings)[2:], status(database, victim)))
    spared, blamed = (0, True, "active"), (0, True, "error")
    # It was up at slot 0; twenty slots are ten minutes.
    assert told == [*[spared] * 19, (1, True, "error"), *[blamed] * 3]


def test_a_server_that_came_or_moved_in_a_suspect_sweep_is_spared_for_as_long(database, up):
    moved = f"'{slot(0)}'::timestamptz"
    rows(database, f"DELETE FROM registry.endpoint_health WHERE endpoint_id = {endpoint(database, up[0])}")
    rows(database, f"UPDATE registry.endpoints SET moved_at = {moved} WHERE server_id = {up[0]}")
    others = [finding(id_, "timeout") for id_ in up[1:]]
    assert write(database, 1, finding(up[0], "timeout"), *others)[2:] == (0, True)
    rows(
        database,
        f"UPDATE registry.endpoints SET moved_at = {moved} - interval '10 minutes' WHERE server_id = {up[0]}",
    )
    assert write(database, 2, finding(up[0], "timeout"), *others)[2:] == (1, True)


def test_servers_that_no_check_has_found_up_are_believed_to_be_down(database, fleet):
    """Twenty registrations with a wrong address freeze nobody's status."""
    assert write(database, 0, *[finding(id_, "timeout") for id_ in fleet]) == (20, 0, 20, False)


def test_an_answer_of_the_address_that_a_server_has_left_changes_no_status(database, fleet):
    """It was dispatched to the old address, and comes back when the server is at the new one."""
    moved = f"'{slot(0)}'::timestamptz + interval '1 second'"
    rows(database, f"UPDATE registry.endpoints SET moved_at = {moved} WHERE server_id = {fleet[0]}")
    assert write(database, 0, finding(fleet[0], "refused")) == (0, 0, 0, False)
    assert last_check(database, fleet[0]) is None
    assert write(database, 1, finding(fleet[0], "refused")) == (1, 0, 1, False)


def test_half_of_the_hosts_away_is_believed(database, up):
    failing = [finding(id_, "timeout") for id_ in up[:10]]
    assert write(database, 1, *failing, *[finding(id_) for id_ in up[10:]]) == (20, 0, 10, False)


def test_a_handful_of_hosts_away_together_is_believed(database, up):
    assert write(database, 1, *[finding(id_, "timeout") for id_ in up[:9]]) == (9, 0, 9, False)


def test_servers_that_were_down_already_make_no_failure_suspect(database, up):
    write(database, 1, *[finding(id_, "timeout") for id_ in up[:9]])
    write(database, 1, *[finding(id_, "timeout") for id_ in up[9:18]], shard=1)
    assert write(database, 2, *[finding(id_, "timeout") for id_ in up[:19]], finding(up[19])) == (20, 0, 1, False)


def test_a_server_that_answers_comes_back_in_a_suspect_sweep_too(database, up):
    write(database, 1, finding(up[0], "refused"))
    checks = [finding(up[0]), *[finding(id_, "timeout") for id_ in up[1:]]]
    assert write(database, 2, *checks) == (20, 1, 0, True)


def test_a_check_from_before_an_operators_change_does_not_undo_it(database, fleet):
    servers.set_status(database, ADMIN, fleet[0], "inactive")
    servers.set_status(database, ADMIN, fleet[0], "active")
    assert write(database, -1, finding(fleet[0], "refused"))[2] == 0
    assert status(database, fleet[0]) == "active"


def test_an_operators_change_is_a_transition_with_its_reason(database, fleet):
    servers.set_status(database, ADMIN, fleet[0], "inactive")
    servers.set_status(database, ADMIN, fleet[0], "inactive")
    servers.set_status(database, ADMIN, fleet[0], "active")
    assert transitions(database, fleet[0]) == [("active", "inactive", None), ("inactive", "active", None)]


def test_a_check_is_told_by_the_list_and_by_the_detail(database, fleet):
    write(database, 0, finding(fleet[0], "refused"))
    detail = messages.msgspec.json.decode(servers.detail(database, fleet[0]))
    moment = SLOT.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert (detail["status"], detail["last_health_check"]) == ("error", moment)
    assert detail["last_check"] == {
        "verdict": "refused",
        "status_code": None,
        "response_time_ms": 12,
        "error_message": REFUSED,
        "checked_at": moment,
        "since": moment,
        "times": 1,
    }


def test_findings_of_another_week_are_not_written(database, fleet):
    old = Findings(SLOT - timedelta(days=7), 0, [finding(fleet[0], "refused")])
    assert results.write(database, old, SLOT) == (0, 0, 0, False, [])
    assert status(database, fleet[0]) == "active"


def test_response_times_are_counted_in_buckets_of_those_that_are_up(database, fleet):
    times = [finding(fleet[0], response_time_ms=1), finding(fleet[1], response_time_ms=1), finding(fleet[2], "refused")]
    write(database, 0, *times)
    assert rows(database, "SELECT buckets, counts FROM metrics.sweep_shards") == [([0], [2])]


def test_the_day_that_is_missing_is_made(new_database):
    url = new_database()
    database = Database(url).begin(PATIENCE)
    id_ = made(database, "first")
    settle(database)
    assert write(database, 0, finding(id_)) == (1, 0, 0, False)
    assert write(database, 1, finding(id_)) == (1, 0, 0, False)
    database.close()


def test_ids_go_on_past_what_32_bits_hold(new_database):
    database = Database(new_database()).begin(PATIENCE)
    servers.register(database, ADMIN, registration.parse(document("early")))
    for schema, sequence in rows(database, "SELECT schemaname, sequencename FROM pg_sequences"):
        rows(database, f"SELECT setval('{schema}.{sequence}', {2**31 - 1})")
    id_ = made(database, "late")
    assert id_ == 2**31
    settle(database)
    write(database, 0, finding(id_, "refused"))
    for table in ("metrics.status_transitions", "registry.tools"):
        assert rows(database, f"SELECT server_id, id >= {2**31} FROM {table} ORDER BY id DESC LIMIT 1") == [(id_, True)]
    assert f'"id":{id_},' in servers.detail(database, id_)
    servers.delete(database, ADMIN, id_)
    database.close()


def test_findings_that_are_delivered_twice_are_written_once(new_database):
    database = Database(new_database()).begin(PATIENCE)
    ids = [made(database, f"twice-{n}") for n in range(3)]
    settle(database)
    write(database, 0, finding(ids[0], "refused"), finding(ids[1]))
    assert write(database, 0, finding(ids[0], "refused"), finding(ids[1])) == (0, 0, 0, False)
    # Nor is what comes with them: a part of a shard that was sent again in another cut.
    assert write(database, 0, finding(ids[1]), finding(ids[2])) == (1, 0, 0, False)
    assert rows(database, "SELECT count(*) FROM metrics.server_health_metrics") == [(3,)]
    assert len(transitions(database, ids[0])) == 1
    assert rows(database, "SELECT checked, up FROM metrics.sweep_shards") == [(3, 2)]
    database.close()


def test_findings_that_waited_and_newer_ones_written_side_by_side_end_in_the_newer_status(new_database):
    """Each statement sees the statuses from before the other: the one that waited looks again."""
    url = new_database()
    setup = Database(url).begin(PATIENCE)
    setup.read("SELECT metrics.add_days(current_date - 1, current_date + 1)")
    id_ = made(setup, "torn")
    settle(setup)
    write(setup, -3, finding(id_))
    older, newer = Database(url).begin(PATIENCE), Database(url).begin(PATIENCE)
    older.read("SELECT 1")
    assert older._connection is not None
    with ThreadPoolExecutor(1) as pool:
        with older._connection.transaction():
            write(older, -2, finding(id_, "refused"))
            findings = Findings(slot(-1), 0, [finding(id_)])
            writing = pool.submit(lambda: results.write(newer, findings, slot(-1)))
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not writing.done() and setup.begin(PATIENCE).read(blocked) == (0,):
                pass
        assert writing.result(20).changes == [("torn", "error", "active", "The server answered the check")]
    assert (status(setup, id_), last_check(setup, id_)) == ("active", ("healthy", slot(-1)))
    for database in (setup, older, newer):
        database.close()


def test_the_same_findings_written_at_the_same_time_are_written_once(new_database):
    url = new_database()
    database = Database(url).begin(PATIENCE)
    ids = [made(database, f"race-{n}") for n in range(5)]
    settle(database)
    database.read("SELECT metrics.add_days(current_date - 1, current_date + 1)")

    def once(_: int):
        own = Database(url).begin(PATIENCE)
        try:
            return write(own, 0, *[finding(id_, "refused") for id_ in ids])[0]
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(once, range(8)))
    assert sorted(written) == [0] * 7 + [5]
    assert rows(database, "SELECT count(*) FROM metrics.status_transitions") == [(5,)]
    database.close()


def test_a_delete_while_findings_are_written_fails_neither(new_database):
    url = new_database()
    setup = Database(url).begin(PATIENCE)
    setup.read("SELECT metrics.add_days(current_date - 1, current_date + 1)")
    for round_ in range(5):
        id_ = servers.register(setup.begin(PATIENCE), ADMIN, registration.parse(document(f"doomed-{round_}")))["id"]
        with psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool:
            other.execute("DELETE FROM registry.mcp_servers WHERE id = %s", [id_])  # and not committed yet
            own = Database(url)
            writing = pool.submit(lambda: write(own.begin(PATIENCE), round_, finding(id_, "refused")))  # noqa: B023
            with psycopg.connect(url, autocommit=True) as watch:
                blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                while not writing.done() and watch.execute(blocked).fetchone() == (0,):
                    pass
            other.commit()
            writing.result(20)
            own.close()
        with pytest.raises(ServerNotFound):
            servers.detail(setup.begin(PATIENCE), id_)
        assert rows(setup, f"SELECT count(*) FROM registry.endpoints WHERE server_id = {id_}") == [(0,)]
    setup.close()


def record(body: str, **attributes: str) -> Record:
    return Record({"messageId": "1", "body": body, "attributes": attributes}, 60.0)


def test_when_a_check_was_is_told_by_the_queues_clock(database, fleet):
    """Neither the clock of the function that probed nor that of this one is asked: they may be wrong."""
    body = messages.encode(Findings(SLOT, 0, [finding(fleet[0], age_ms=250)]))
    results.record(database, record(body, SentTimestamp=str(int(SLOT.timestamp() * 1000) + 4000)))
    assert last_check(database, fleet[0]) == ("healthy", SLOT + timedelta(seconds=3.75))


@pytest.mark.parametrize(
    "body",
    ["", "null", "x", "{}", '{"kind":"other"}', '{"slot":"yesterday","shard":0,"findings":[]}', '{"a":' * 50_000],
    ids=lambda body: body[:40],
)
def test_a_message_that_is_none_is_refused(database, body):
    with pytest.raises(Malformed):
        results.record(database, record(body))


# ------------------------------------------------------------------ endpoints


def added(database: Database, id_: int, url: str) -> int:
    """The id of one more endpoint of a server, which has been there for a while."""
    statement = "INSERT INTO registry.endpoints (server_id, url, declared, moved_at) VALUES"
    return rows(database, f"{statement} ({id_}, '{url}', false, now() - interval '1 hour') RETURNING id")[0][0]


def of(server_id: int, endpoint_id: int, verdict: messages.Verdict = "healthy", **fields) -> Finding:
    return finding(server_id, verdict, endpoint_id=endpoint_id, **fields)


def told(database: Database, id_: int) -> list[tuple[int, str, str | None, str | None]]:
    """The changes of a server's endpoints, oldest first."""
    statement = "SELECT endpoint_id, change, from_verdict::text, verdict::text FROM metrics.endpoint_changes"
    return rows(database, f"{statement} WHERE server_id = {id_} AND change = 'verdict' ORDER BY id")


def metrics_of(database: Database, id_: int) -> list[tuple[datetime, str]]:
    statement = "SELECT slot, verdict::text FROM metrics.server_health_metrics"
    return rows(database, f"{statement} WHERE server_id = {id_} ORDER BY slot")


@pytest.fixture
def replicas(database):
    """A server and its three endpoints, all found up by the sweep before, which checked another server too."""
    ids = registered(database, "http://first.example/mcp", "http://other.example/mcp")
    endpoints = [endpoint(database, ids[0]), *(added(database, ids[0], f"http://replica-{n}.example/") for n in (2, 3))]
    write(database, 0, *[of(ids[0], id_) for id_ in endpoints], finding(ids[1]))
    return ids[0], endpoints


def test_a_server_of_which_one_endpoint_is_killed_stays_active_throughout(database, replicas):
    id_, endpoints = replicas
    for number in range(1, 5):
        write(database, number, of(id_, endpoints[0], "refused"), *[of(id_, one) for one in endpoints[1:]])
        assert status(database, id_) == "active"
    assert transitions(database, id_) == []
    assert metrics_of(database, id_) == [(slot(number), "healthy") for number in range(5)]
    assert told(database, id_)[3:] == [(endpoints[0], "verdict", "healthy", "refused")]
    # Whoever asks for its address is given that of one that is up, the newest.
    assert endpoint(database, id_) == endpoints[2]
    used = rows(database, f"SELECT endpoint_url FROM registry.mcp_servers WHERE id = {id_}")
    assert used == [("http://replica-3.example/",)]


def test_a_server_is_called_down_when_all_its_endpoints_are_and_comes_back_with_the_first(database, replicas):
    id_, endpoints = replicas
    assert write(database, 1, *[of(id_, one, "refused") for one in endpoints])[2] == 1
    assert (status(database, id_), transitions(database, id_)) == ("error", [("active", "error", "refused")])
    assert sorted(told(database, id_)[3:]) == [(one, "verdict", "healthy", "refused") for one in endpoints]
    assert write(database, 2, of(id_, endpoints[0]), *[of(id_, one, "refused") for one in endpoints[1:]])[1] == 1
    assert (status(database, id_), endpoint(database, id_)) == ("active", endpoints[0])


def test_endpoints_that_go_down_one_after_the_other_call_the_server_down_with_the_last(new_database):
    """Each message knows of the others only what is stored."""
    database = Database(new_database()).begin(PATIENCE)
    id_, endpoints = pair(database)
    called = [write(database, 1, of(id_, one, "refused"), shard=number)[2] for number, one in enumerate(endpoints)]
    assert (called, status(database, id_)) == ([0, 1], "error")
    assert metrics_of(database, id_)[1:] == [(slot(1), "refused")]
    # Of a slot there is one row, whichever message comes first, and a better finding makes it better.
    write(database, 1, of(id_, endpoints[0], age_ms=-1), shard=7)
    assert metrics_of(database, id_)[1:] == [(slot(1), "healthy")]
    figures = "SELECT sum(checked)::int, sum(up)::int FROM metrics.sweep_shards"
    assert rows(database, f"{figures} WHERE slot = '{slot(1)}'") == [(1, 1)]
    assert status(database, id_) == "active"
    database.close()


def test_a_message_that_comes_again_makes_good_what_its_writer_had_no_time_for(new_database):
    """It ended between the statement and the choice of the endpoint to use."""
    database = Database(new_database()).begin(PATIENCE)
    id_, (first, second) = pair(database)
    findings = [of(id_, first, "refused"), of(id_, second)]
    write(database, 1, *findings)
    rows(database, f"UPDATE registry.mcp_servers SET endpoint_id = {first} WHERE id = {id_}")
    assert write(database, 1, *findings)[0] == 0
    assert endpoint(database, id_) == second
    database.close()


def pair(database: Database) -> tuple[int, list[int]]:
    """A server with two endpoints that the sweep before has found up, in a database of its own."""
    database.read("SELECT 1")
    (id_,) = registered(database, "http://first.example/mcp")
    endpoints = [endpoint(database, id_), added(database, id_, "http://second.example/mcp")]
    write(database, 0, *[of(id_, one) for one in endpoints])
    return id_, endpoints


def test_a_server_is_not_called_down_while_an_endpoint_has_not_been_checked(database, replicas):
    id_, endpoints = replicas
    new = added(database, id_, "http://new.example/")
    write(database, 1, *[of(id_, one, "refused") for one in endpoints])
    assert status(database, id_) == "active"
    write(database, 2, *[of(id_, one, "refused") for one in [*endpoints, new]])
    assert status(database, id_) == "error"


def test_the_figures_of_a_sweep_count_servers(database, replicas):
    id_, endpoints = replicas
    write(database, 1, *[of(id_, one, "refused") for one in endpoints[:2]], of(id_, endpoints[2]))
    figures = f"SELECT checked, up, gone FROM metrics.sweep_shards WHERE slot = '{slot(1)}'"
    assert rows(database, figures) == [(1, 1, 0)]


@pytest.mark.parametrize(
    "left",
    [
        "DELETE FROM registry.endpoints WHERE id = {}",
        "UPDATE registry.endpoints SET retired_at = '{at}' WHERE id = {}",
        "WITH moved AS (UPDATE registry.endpoints SET moved_at = '{at}' WHERE id = {} RETURNING id)"
        " DELETE FROM registry.endpoint_health WHERE endpoint_id = (SELECT id FROM moved)",
    ],
)
def test_what_was_found_of_an_endpoint_that_is_gone_or_has_moved_meanwhile_is_dropped(database, replicas, left):
    id_, endpoints = replicas
    rows(database, left.format(endpoints[0], at=slot(1) + timedelta(seconds=1)))
    write(database, 1, of(id_, endpoints[0], "gated"))
    assert rows(database, f"SELECT checked, up, gone FROM metrics.sweep_shards WHERE slot = '{slot(1)}'") == [(0, 0, 1)]
    write(database, 1, of(id_, endpoints[0], "gated"), *[of(id_, one, "refused") for one in endpoints[1:]], shard=1)
    assert metrics_of(database, id_)[1:] == [(slot(1), "refused")]
    assert endpoints[0] not in [one for one, *_ in told(database, id_)[3:]]


def test_where_an_endpoint_that_is_up_was_not_asked_its_server_has_no_check(database, replicas):
    """It asked to be left alone for a while: of the others nothing follows for the server."""
    id_, endpoints = replicas
    write(database, 1, of(id_, endpoints[0], "limited"), *[of(id_, one, "refused") for one in endpoints[1:]])
    write(database, 2, *[of(id_, one, "refused") for one in endpoints[1:]])
    assert metrics_of(database, id_)[1:] == [(slot(1), "limited")]
    assert rows(database, f"SELECT checked, up, gone FROM metrics.sweep_shards WHERE slot = '{slot(2)}'") == [(0, 0, 1)]
    assert status(database, id_) == "active"


def test_an_endpoint_in_conflict_is_another_servers_and_neither_used_nor_a_sign_of_life(database, replicas):
    id_, (first, second, third) = replicas
    rows(database, f"UPDATE registry.endpoints SET conflict_at = now() WHERE id = {third}")
    write(database, 1, of(id_, first, "refused"), of(id_, second), of(id_, third))
    assert endpoint(database, id_) == second
    write(database, 2, of(id_, first, "refused"), of(id_, second, "refused"), of(id_, third))
    assert (endpoint(database, id_) in (first, second), status(database, id_)) == (True, "error")
    # Nor does it bring the server back, or stand for it in the metrics.
    write(database, 3, of(id_, first, "refused"), of(id_, second, "refused"), of(id_, third, "gated"))
    assert metrics_of(database, id_)[2:] == [(slot(2), "refused"), (slot(3), "refused")]
    assert transitions(database, id_) == [("active", "error", "refused")]
    assert told(database, id_)[-1] == (third, "verdict", "healthy", "gated")
    rows(database, f"UPDATE registry.endpoints SET conflict_at = NULL WHERE id = {third}")
    write(database, 4, of(id_, first, "refused"), of(id_, second, "refused"), of(id_, third, "gated"))
    assert status(database, id_) == "active"


def test_who_is_written_beside_an_endpoint_in_conflict_is_not_brought_back_by_it(database, replicas):
    id_, (first, second, third) = replicas
    rows(database, f"UPDATE registry.endpoints SET conflict_at = now() WHERE id = {third}")
    write(database, 1, of(id_, first, "refused"), of(id_, second, "refused"), of(id_, third))
    looked = database.write(results.RECONCILE, {"server_ids": f"{{{id_}}}", "falling": "{}"})
    assert (looked, status(database, id_)) == ((0, 0, None), "error")


def test_the_endpoint_to_use_is_chosen_among_those_that_are_there_when_the_server_is_free(new_database):
    """A registration by hand sets another address while it is chosen, and removes the one that would have been."""
    url = new_database()
    setup = Database(url).begin(PATIENCE)
    id_, (first, second) = pair(setup)
    write(setup, 1, of(id_, first, "refused"), of(id_, second))
    rows(setup, f"UPDATE registry.mcp_servers SET endpoint_id = {first} WHERE id = {id_}")
    waits, hand = Database(url).begin(PATIENCE), Database(url).begin(PATIENCE)
    hand.read("SELECT 1")
    assert hand._connection is not None
    with ThreadPoolExecutor(1) as pool:
        with hand._connection.transaction():
            by_hand = registration.parse(document("fleet-0", endpoint_url="http://by-hand.example/mcp"))
            servers.replace(hand, ADMIN, by_hand)
            choosing = pool.submit(lambda: waits.write(results.USE_ENDPOINTS, {"server_ids": f"{{{id_}}}"}))
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not choosing.done() and setup.begin(PATIENCE).read(blocked) == (0,):
                pass
        choosing.result(20)
    (own,) = rows(setup, f"SELECT id, url FROM registry.endpoints WHERE server_id = {id_}")
    assert rows(setup, f"SELECT endpoint_id, endpoint_url FROM registry.mcp_servers WHERE id = {id_}") == [own]
    assert own[1] == "http://by-hand.example/mcp"
    for database in (setup, waits, hand):
        database.close()


def test_a_sweep_that_was_listed_before_an_introduction_called_down_does_not_say_as_before(database, replicas):
    id_, (first, *_) = replicas
    rows(database, f"INSERT INTO metrics.sweeps (slot, listed_at) VALUES ('{slot(1)}', '{slot(1)}')")
    down = [of(id_, first, "mcp_error")]
    introduced = slot(1) + timedelta(seconds=5)
    results.write_introduced(database, down, introduced, introduced)
    verdict = f"SELECT verdict::text FROM registry.endpoint_health WHERE endpoint_id = {first}"
    write(database, 1, of(id_, first, age_ms=-10_000))
    assert rows(database, verdict) == [("mcp_error",)]
    write(database, 2, of(id_, first))
    assert rows(database, verdict) == [("healthy",)]


@pytest.mark.parametrize("server_id", ["other", "none"])
def test_a_finding_is_of_an_endpoint_that_its_server_has_and_takes_no_other_along(database, replicas, server_id):
    id_, (first, second, _) = replicas
    (other,) = [one for (one,) in rows(database, "SELECT id FROM registry.mcp_servers") if one != id_]
    before = told(database, id_)
    stranger = of(other if server_id == "other" else 2**60, first, "refused")
    write(database, 1, stranger, of(id_, second, "gated"))
    assert told(database, id_)[len(before) :] == [(second, "verdict", "healthy", "gated")]
    assert (metrics_of(database, other)[1:], status(database, other)) == ([], "active")


def test_how_long_and_how_often_a_verdict_has_been_found_is_kept(database, replicas):
    id_, (first, *_) = replicas
    kept = f"SELECT since, times, up_at FROM registry.endpoint_health WHERE endpoint_id = {first}"
    for number in (1, 2):
        write(database, number, of(id_, first))
    assert rows(database, kept) == [(slot(0), 3, slot(2))]
    for number in (3, 4):
        write(database, number, of(id_, first, "refused"))
    assert rows(database, kept) == [(slot(3), 2, slot(2))]


def test_a_change_of_verdict_keeps_its_evidence(database, replicas):
    id_, (first, *_) = replicas
    seen = (messages.Evidence("POST initialize", 503, "text/html", 'He said "no", \\ and left', 12),)
    write(database, 1, of(id_, first, "http_error", evidence=seen))
    statement = f"SELECT reason, evidence, occurred_at FROM metrics.endpoint_changes WHERE occurred_at = '{slot(1)}'"
    assert rows(database, statement) == [(REFUSED, [seen[0]._asdict()], slot(1))]


def test_evidence_is_kept_of_twenty_changes_in_an_hour_and_the_changes_are_all_told(database, replicas):
    id_, (first, *_) = replicas
    seen = (messages.Evidence("POST initialize", 503, "text/html", "no", 12),)
    rows(database, "UPDATE metrics.endpoint_changes SET occurred_at = occurred_at - interval '2 hours'")
    for number in range(1, 24):
        write(database, number, of(id_, first, "http_error" if number % 2 else "mcp_error", evidence=seen))
    statement = (
        "SELECT evidence IS NOT NULL FROM metrics.endpoint_changes WHERE occurred_at > now() - interval '1 hour'"
    )
    assert [kept for (kept,) in rows(database, f"{statement} ORDER BY id")] == [True] * 20 + [False] * 3


def test_the_verdicts_that_are_looked_for_are_those_of_the_last_checks_whatever_happens(database, replicas):
    id_, (first, second, third) = replicas
    ((other,),) = rows(database, f"SELECT endpoint_id FROM registry.mcp_servers WHERE id <> {id_}")

    def agree() -> list[tuple[int, str | None]]:
        kept, found = (
            rows(database, f"SELECT {columns}::text FROM {tables} ORDER BY 1")
            for columns, tables in (
                ("endpoint_id, verdict", "registry.endpoint_verdicts"),
                (
                    "e.id, h.verdict",
                    "registry.endpoints AS e LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id"
                    " WHERE e.retired_at IS NULL",
                ),
            )
        )
        assert kept == found
        return [one for one in kept if one[0] != other]

    assert agree() == [(first, "healthy"), (second, "healthy"), (third, "healthy")]
    write(database, 1, of(id_, first, "refused"), of(id_, second), of(id_, third, "gated"))
    assert agree() == [(first, "refused"), (second, "healthy"), (third, "gated")]
    rows(database, f"UPDATE registry.endpoints SET retired_at = now() WHERE id = {first}")
    assert agree() == [(second, "healthy"), (third, "gated")]
    rows(database, f"UPDATE registry.endpoints SET retired_at = NULL WHERE id = {first}")
    assert agree() == [(first, "refused"), (second, "healthy"), (third, "gated")]
    servers.set_status(database, ADMIN, id_, "inactive")
    servers.set_status(database, ADMIN, id_, "active")  # nothing is known of it any more
    assert agree() == [(first, None), (second, None), (third, None)]
    servers.replace(database, ADMIN, registration.parse(document("fleet-0", endpoint_url="http://replica-2.example/")))
    assert agree() == [(second, None)]
    servers.delete(database, ADMIN, id_)
    assert agree() == []


def test_a_check_that_finds_everybody_as_before_writes_no_verdict(database, replicas):
    id_, endpoints = replicas
    written = "SELECT ctid, xmin, cmin FROM registry.endpoint_verdicts ORDER BY endpoint_id"
    before = rows(database, written)
    write(database, 1, *[of(id_, one) for one in endpoints])
    assert rows(database, written) == before
    write(database, 2, of(id_, endpoints[0], "gated"), *[of(id_, one) for one in endpoints[1:]])
    assert len(set(rows(database, written)) - set(before)) == 1


def test_of_an_endpoint_that_changes_all_the_time_so_many_changes_of_a_day_are_kept_and_the_others_counted(
    database, replicas, monkeypatch
):
    monkeypatch.setattr(results, "KEPT", 3)
    id_, (first, second, _) = replicas
    rows(database, "UPDATE metrics.endpoint_changes SET occurred_at = occurred_at - interval '25 hours'")
    seen = [(messages.Evidence("POST initialize", 500 + number, "text/html", "no", 12),) for number in range(7)]
    soon = f"SELECT introduce_at <= now() FROM registry.endpoints WHERE id = {first}"
    for number in range(1, 7):
        verdict = "gated" if number % 2 else "http_error"
        rows(database, "UPDATE registry.endpoints SET introduce_at = now() + interval '1 hour', learnt_at = now()")
        write(database, number, of(id_, first, verdict, evidence=seen[number]), of(id_, second, "healthy"))
    kept = rows(
        database,
        "SELECT occurred_at, from_verdict::text, verdict::text, (evidence->0->>'status')::integer, more"
        f"  FROM metrics.endpoint_changes WHERE endpoint_id = {first} AND occurred_at >= '{slot(1)}' ORDER BY id",
    )
    assert kept == [
        (slot(1), "healthy", "gated", 501, 0),
        (slot(2), "gated", "http_error", 502, 0),
        # The newest is what was found last.
        (slot(6), "gated", "http_error", 506, 3),
    ]
    # It is not introduced at once each time either.
    write(database, 7, of(id_, first, "gated"))
    assert rows(database, soon) == [(False,)]
    rows(database, "UPDATE metrics.endpoint_changes SET occurred_at = occurred_at - interval '25 hours'")
    write(database, 8, of(id_, first, "refused"))
    newest = f"SELECT verdict::text, more FROM metrics.endpoint_changes WHERE endpoint_id = {first}"
    assert rows(database, f"{newest} ORDER BY occurred_at DESC LIMIT 2") == [("refused", 0), ("gated", 4)]


def test_who_wants_credentials_all_of_a_sudden_is_introduced_again_at_once_but_not_all_day(database, replicas):
    id_, (first, *_) = replicas
    soon = f"SELECT introduce_at <= now() FROM registry.endpoints WHERE id = {first}"
    woken: list[bool] = []
    for number in range(1, 7):
        rows(database, "UPDATE registry.endpoints SET introduce_at = now() + interval '1 hour', learnt_at = now()")
        write(database, number, of(id_, first, "gated" if number % 2 else "healthy", in_doubt=bool(number % 2)))
        woken.append(rows(database, soon)[0][0])
    # The first check was a change too.
    assert woken == [True, True, True, False, False, False]


def test_a_verdict_that_is_as_before_is_no_change_though_its_words_are_others(database, replicas):
    id_, (first, *_) = replicas
    write(database, 1, of(id_, first, "refused"))
    before = told(database, id_)
    write(database, 2, of(id_, first, "refused", error=reach.UNREACHABLE.error))
    assert told(database, id_) == before
    write(database, 3, of(id_, first, "gated"))
    write(database, 4, of(id_, first))
    assert told(database, id_)[len(before) :] == [
        (first, "verdict", "refused", "gated"),
        (first, "verdict", "gated", "healthy"),
    ]


def test_who_asks_to_be_left_alone_is_up_and_until_when_is_kept(database, replicas):
    id_, endpoints = replicas
    limited = [of(id_, one, "limited", status_code=429, retry_after=90) for one in endpoints]
    write(database, 1, *limited)
    until = f"SELECT ask_again_at FROM registry.endpoint_health WHERE endpoint_id = {endpoints[0]}"
    assert (status(database, id_), rows(database, until)) == ("active", [(slot(1) + timedelta(seconds=90),)])
    write(database, 2, *[of(id_, one) for one in endpoints])
    assert rows(database, until) == [(None,)]


def test_who_is_in_doubt_or_comes_back_is_introduced_again_but_not_in_every_half_minute(database, replicas):
    id_, (first, second, third) = replicas
    due = f"SELECT id FROM registry.endpoints WHERE server_id = {id_} AND introduce_at <= now() ORDER BY id"
    rows(database, "UPDATE registry.endpoints SET introduce_at = now() + interval '1 hour'")
    write(database, 1, of(id_, first, in_doubt=True), of(id_, second, "refused"), of(id_, third))
    assert rows(database, due) == [(first,)]
    write(database, 2, of(id_, first), of(id_, second), of(id_, third))
    assert rows(database, due) == [(first,), (second,)]
    rows(database, "UPDATE registry.endpoints SET introduce_at = now() + interval '1 hour', learnt_at = now()")
    write(database, 3, of(id_, first, in_doubt=True), of(id_, second), of(id_, third))
    soon = f"SELECT id FROM registry.endpoints WHERE introduce_at <= now() + interval '5 minutes' AND server_id = {id_}"
    assert (rows(database, due), rows(database, soon)) == ([], [(first,)])


def test_a_check_changes_nothing_of_a_registration_but_its_status(database, replicas):
    id_, endpoints = replicas
    others = f"SELECT to_jsonb(s) - 'status' - 'endpoint_id' FROM registry.mcp_servers AS s WHERE id = {id_}"
    before = rows(database, others)
    write(database, 1, *[of(id_, one, "refused") for one in endpoints])
    assert status(database, id_) == "error"
    assert rows(database, others)[0][0] | {"endpoint_url": ""} == before[0][0] | {"endpoint_url": ""}


def test_a_replica_that_is_away_for_a_while_is_no_reason_to_doubt_ourselves(database):
    """Twelve servers of two endpoints each, of hosts of their own: what is away is one of each."""
    ids = registered(database, *(f"http://left-{n}.example/mcp" for n in range(12)))
    pairs = [(id_, endpoint(database, id_), added(database, id_, f"http://right-{id_}.example/")) for id_ in ids]
    write(database, 0, *[of(id_, one) for id_, *both in pairs for one in both])
    away = [
        of(id_, one, verdict) for id_, *both in pairs for one, verdict in zip(both, ("healthy", "timeout"), strict=True)
    ]
    assert write(database, 1, *away) == (12, 0, 0, False)


def test_findings_of_two_endpoints_written_side_by_side_call_their_server_down(new_database):
    """Neither statement sees that the other endpoint went down: who is second looks again."""
    url = new_database()
    setup = Database(url).begin(PATIENCE)
    id_, (first, second) = pair(setup)
    waits, holder = Database(url).begin(PATIENCE), Database(url).begin(PATIENCE)
    holder.read("SELECT 1")
    assert holder._connection is not None
    with ThreadPoolExecutor(1) as pool:
        with holder._connection.transaction():
            rows(holder, f"SELECT FROM registry.endpoint_health WHERE endpoint_id = {first} FOR UPDATE")
            findings = Findings(slot(1), 0, [of(id_, first, "refused")])
            writing = pool.submit(lambda: results.write(waits, findings, slot(1)))
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not writing.done() and setup.begin(PATIENCE).read(blocked) == (0,):
                pass
            # The one that waits has read the table already.
            assert write(setup, 2, of(id_, second, "refused"))[2] == 0
        assert writing.result(20)[:3] == (0, 0, 1)
    assert (status(setup, id_), transitions(setup, id_)) == ("error", [("active", "error", "refused")])
    for database in (setup, waits, holder):
        database.close()


# ------------------------------------------------------------------ the release before


def test_findings_of_the_release_before_are_of_the_endpoint_that_the_server_uses(database, replicas):
    id_, _ = replicas
    used = endpoint(database, id_)
    write(database, 1, finding(id_, "refused"))
    assert told(database, id_)[3:] == [(used, "verdict", "healthy", "refused")]
    assert status(database, id_) == "active"
    servers.delete(database, ADMIN, id_)
    assert write(database, 2, finding(id_))[0] == 0
