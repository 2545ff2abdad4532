"""What is told of health: counts, uptime, percentiles, gaps and transitions, by the day and from the roll-ups."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.errors import ServerNotFound, ValidationFailed
from mcp_registry.health import history, maintenance
from tests.conftest import ADMIN
from tests.conftest import registration as document


def rows(database: Database, statement: str):
    assert database._connection is not None
    cursor = database._connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


@pytest.fixture
def server(database):
    rows(database, "DELETE FROM registry.mcp_servers")
    rows(database, "SELECT metrics.add_days(current_date - 40, current_date + 1)")
    return servers.register(database, ADMIN, registration.parse(document("watched")))["id"]


def check(database: Database, id_: int, ago: str, verdict: str = "healthy", milliseconds: int = 10) -> None:
    rows(
        database,
        f"""INSERT INTO metrics.server_health_metrics (server_id, slot, verdict, response_time_ms, checked_at)
            VALUES ({id_}, now() - interval '{ago}', '{verdict}', {milliseconds}, now() - interval '{ago}')""",
    )


def read(database: Database, id_: int, period: str = "24h"):
    return json.loads(history.of_server(database, id_, period))


@pytest.mark.parametrize("period", history.PERIODS)
def test_a_server_without_checks_has_no_uptime_rather_than_a_perfect_one(database, server, period):
    told = read(database, server, period)
    assert (told["checks"], told["up"], told["uptime_percent"], told["last_check"]) == (0, 0, None, None)
    assert (told["p50_ms"], told["p95_ms"], told["max_ms"], told["transitions"]) == (None, None, None, [])
    assert {point["checks"] for point in told["series"]} == {0}


@pytest.mark.parametrize("period", history.PERIODS)
def test_a_server_that_is_not_there_is_not_found(database, server, period):
    with pytest.raises(ServerNotFound):
        history.of_server(database, server + 1, period)


def test_percentiles_are_of_the_checks_that_found_the_server_up(database, server):
    for number in range(1, 101):
        check(database, server, f"{number} minutes", milliseconds=number)
    check(database, server, "101 minutes", "refused", 0)
    check(database, server, "102 minutes", "timeout", 5000)
    told = read(database, server)
    assert (told["checks"], told["up"], told["uptime_percent"]) == (102, 100, 98.039)
    assert (told["p50_ms"], told["p95_ms"], told["max_ms"]) == (50, 95, 100)


def test_one_failure_among_many_is_not_rounded_away(database, server):
    rows(
        database,
        f"""INSERT INTO metrics.server_health_metrics (server_id, slot, verdict, response_time_ms, checked_at)
            SELECT {server}, now() - n * interval '700 microseconds', 'healthy', 1, now()
              FROM generate_series(1, 110000) AS n""",
    )
    check(database, server, "23 hours", "timeout")
    assert read(database, server)["uptime_percent"] == 99.999


def test_a_check_before_the_period_is_not_counted(database, server):
    check(database, server, "24 hours 1 second")
    check(database, server, "23 hours 59 minutes")
    assert read(database, server)["checks"] == 1


@pytest.mark.parametrize(("period", "points"), [("24h", 97), ("7d", 169), ("30d", 121)])
def test_the_series_has_every_point_of_the_period_and_gaps_are_empty(database, server, period, points):
    check(database, server, "3 hours")
    series = read(database, server, period)["series"]
    assert abs(len(series) - points) <= 1
    moments = [datetime.fromisoformat(point["at"]) for point in series]
    assert len({after - before for before, after in pairwise(moments)}) == 1
    assert sum(point["checks"] for point in series) == 1
    assert sorted({(point["checks"], point["p50_ms"]) for point in series}, key=str) == [(0, None), (1, 10)]


def test_transitions_are_told_newest_first(database, server):
    servers.set_status(database, ADMIN, server, "inactive")
    servers.set_status(database, ADMIN, server, "active")
    told = read(database, server)["transitions"]
    assert [(t["from"], t["to"], t["verdict"]) for t in told] == [
        ("inactive", "active", None),
        ("active", "inactive", None),
    ]
    assert told[0]["reason"] == "An operator put the server back into service"


def fill(database: Database, id_: int, days: int) -> None:
    """A check every ten minutes, of 1 to 144 ms over a day, and one failure a day."""
    rows(
        database,
        f"""INSERT INTO metrics.server_health_metrics (server_id, slot, verdict, response_time_ms, checked_at)
            SELECT {id_}, at, CASE WHEN n % 144 = 7 THEN 'refused' ELSE 'healthy' END::metrics.verdict, n % 144 + 1, at
              FROM generate_series(0, 144 * {days} - 1) AS n,
                   LATERAL (SELECT date_trunc('hour', now()) - n * interval '10 minutes' AS at) AS moment""",
    )


@pytest.mark.parametrize(("period", "days"), [("7d", 7), ("30d", 30)])
def test_what_is_told_is_the_same_before_and_after_folding(database, server, period, days):
    fill(database, server, 35)
    before = read(database, server, period)
    maintenance.run(lambda seconds: database.begin(seconds), 40, 400, 400)
    assert rows(database, "SELECT count(*) FROM metrics.folded_days")[0][0] >= 35
    assert read(database, server, period) == before
    # And once more when the checks themselves are gone.
    maintenance.run(lambda seconds: database.begin(seconds), 2, 400, 400)
    assert read(database, server, period) == before
    assert abs(before["checks"] - days * 144) <= 6
    assert abs(before["p50_ms"] - 72) <= 72 * 0.025 + 1
    assert abs(before["p95_ms"] - 137) <= 137 * 0.025 + 1
    assert before["max_ms"] == 144


def test_a_period_must_be_one_of_three_and_nothing_else_may_be_asked(database):
    assert history.parse_period({}) == "24h"
    for query in ({"period": "1y"}, {"period": ""}, {"since": "x"}):
        with pytest.raises(ValidationFailed):
            history.parse_period(query)


# ------------------------------------------------------------------ all servers


def test_nothing_is_known_before_the_first_sweep(database, server):
    rows(database, "DELETE FROM metrics.sweeps")
    told = json.loads(history.of_all(database))
    assert told["servers"] == {"active": 1, "inactive": 0, "error": 0, "frozen": 0, "unknown": 1, "total": 1}
    assert told["last_24h"]["checks"] == 0
    assert (told["last_24h"]["uptime_percent"], told["last_24h"]["p50_ms"], told["last_sweep"]) == (None, None, None)


def test_the_day_is_the_sum_of_its_sweeps_and_the_last_one_is_told(database, server):
    rows(database, "DELETE FROM metrics.sweeps")
    rows(
        database,
        """INSERT INTO metrics.sweeps
                  (slot, dispatched_at, servers, shards, settled_at, checked, up, finished_at, buckets, counts)
           VALUES (now() - interval '25 hours', now(), 9, 1, now(), 9, 9, now(), '{}', '{}'),
                  (now() - interval '5 minutes', now(), 10, 1, now(), 8, 6, now(), ARRAY[metrics.bucket(10)], '{6}'),
                  (now() - interval '10 seconds', now(), 10, 2, NULL, 0, 0, NULL, '{}', '{}')""",
    )
    rows(
        database,
        """INSERT INTO metrics.sweep_shards (slot, shard, checked, up, gone, suspect, finished_at, buckets, counts)
           VALUES (now() - interval '10 seconds', 0, 5, 4, 0, false, now(), ARRAY[metrics.bucket(100)], '{4}'),
                  (now() - interval '10 seconds', 1, 4, 0, 0, true, now(), '{}', '{}')""",
    )
    told = json.loads(history.of_all(database))
    day, last = told["last_24h"], told["last_sweep"]
    assert (day["sweeps"], day["checks"], day["up"], day["uptime_percent"], day["unchecked"]) == (2, 17, 10, 58.823, 2)
    assert day["p50_ms"] == 10
    assert abs(day["p99_ms"] - 100) <= 2.5
    assert (last["servers"], last["checked"], last["up"], last["failed"], last["unchecked"]) == (10, 9, 4, 5, 1)
    assert last["suspect"] is True


def test_the_times_of_a_day_are_those_of_its_sweeps_to_the_second(database, server):
    """Although they are kept by the hour, one of which the day cuts in two."""
    rows(database, "DELETE FROM metrics.sweeps")
    rows(
        database,
        """INSERT INTO metrics.sweeps (slot, settled_at, checked, up, finished_at, buckets, counts)
           SELECT now() - n * interval '61 seconds', now(), n, n, now(), ARRAY[n % 7, 150 + n % 11],
                  ARRAY[n % 40 + 1, 1]
             FROM generate_series(1, 1600) AS n""",
    )
    # Shards that came after their sweep had been settled.
    rows(
        database,
        """UPDATE metrics.sweeps SET buckets = ARRAY[7::smallint, 8::smallint], counts = ARRAY[checked % 40, 1]
            WHERE checked % 10 = 3""",
    )
    expected = rows(
        database,
        """SELECT percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY bucket)
             FROM (SELECT unnest(buckets) AS bucket, unnest(counts) AS n FROM metrics.sweeps
                    WHERE slot >= now() - interval '24 hours') AS times
            CROSS JOIN LATERAL generate_series(1, n)""",
    )[0][0]
    day = json.loads(history.of_all(database))["last_24h"]
    of_bucket = "SELECT metrics.bucket_value({}::smallint)"
    for name, bucket in zip(("p50_ms", "p95_ms", "p99_ms"), expected, strict=True):
        assert rows(database, of_bucket.format(bucket)) == [(day[name],)]
    kept = rows(database, "SELECT sum(n) FROM metrics.sweep_times")
    assert kept == rows(database, "SELECT sum(n) FROM metrics.sweeps CROSS JOIN unnest(counts) AS n")


# ------------------------------------------------------------------ maintenance


def days(database: Database) -> list[str]:
    found = rows(
        database,
        """SELECT right(child.relname, 8) FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = 'metrics.server_health_metrics'::regclass ORDER BY 1""",
    )
    return [day for (day,) in found]


def today() -> datetime:
    return datetime.now(UTC)


def test_maintenance_keeps_the_days_that_are_to_be_kept_and_makes_the_coming_week(database, server):
    done = maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 400)
    first, last = (today() + timedelta(days=n) for n in (-7, maintenance.DAYS_AHEAD))
    kept = days(database)
    assert (kept[0], kept[-1]) == (f"{first:%Y%m%d}", f"{last:%Y%m%d}")
    assert done.dropped == 33
    assert maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 400)[:1] == (0,)


def test_maintenance_catches_up_after_days_of_being_off(database, server):
    fill(database, server, 20)
    rows(database, "INSERT INTO metrics.folded_days (day) VALUES (current_date - 15)")
    done = maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 400)
    assert done.folded == 14
    hours = rows(database, "SELECT count(*), sum(checks) FROM metrics.server_health_hours")
    assert hours == [(14 * 24, 14 * 144)]


def test_what_is_folded_twice_is_counted_once(database, server):
    fill(database, server, 3)
    for _ in range(2):
        maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 400)
    today = int(rows(database, "SELECT count(*) FROM metrics.server_health_metrics WHERE slot >= current_date")[0][0])
    assert rows(database, "SELECT max(checks), sum(checks) FROM metrics.server_health_hours") == [(6, 3 * 144 - today)]


def test_roll_ups_transitions_and_sweeps_end_when_they_are_too_old(database, server):
    rows(database, "DELETE FROM metrics.sweeps")
    old, kept = (f"date_trunc('hour', now()) - interval '{n} days'" for n in (402, 398))
    for moment in (old, kept):
        rows(
            database,
            f"""INSERT INTO metrics.server_health_hours (server_id, hour, checks, up, buckets, counts)
                VALUES ({server}, {moment}, 120, 120, '{{}}', '{{}}')""",
        )
        rows(
            database,
            f"""INSERT INTO metrics.status_transitions (server_id, from_status, to_status, reason, occurred_at)
                VALUES ({server}, 'active', 'error', 'x', {moment})""",
        )
        rows(
            database,
            f"""INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, reason, occurred_at)
                VALUES ({server}, 1, 'http://x.example', 'retired', 'x', {moment})""",
        )
    rows(database, "INSERT INTO metrics.sweeps (slot) VALUES (now() - interval '9 days'), (now() - interval '6 days')")
    assert maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 400).deleted == 4
    for table in ("server_health_hours", "status_transitions", "endpoint_changes", "sweeps"):
        assert rows(database, f"SELECT count(*) FROM metrics.{table}") == [(1,)], table


def test_endpoints_that_retired_long_ago_are_forgotten(database, server):
    for days in (9, 6):
        rows(
            database,
            f"""INSERT INTO registry.endpoints (server_id, url, retired_at)
                VALUES ({server}, 'http://{days}.example', now() - interval '{days} days')""",
        )
    assert maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 400).deleted == 1
    left = f"SELECT url FROM registry.endpoints WHERE server_id = {server} AND retired_at IS NOT NULL"
    assert rows(database, left) == [("http://6.example",)]


def test_what_was_answered_is_forgotten_with_the_checks_and_that_it_changed_is_kept(database, server):
    change = "INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, reason, evidence, occurred_at)"
    for days_ago in (3, 5):
        values = f"({server}, 1, 'http://x.example/', 'verdict', 'x', '[]', now() - interval '{days_ago} days')"
        rows(database, f"{change} VALUES {values}")
    maintenance.run(database.begin, 4, 30, 400)
    statement = "SELECT evidence IS NOT NULL FROM metrics.endpoint_changes ORDER BY occurred_at"
    assert rows(database, statement) == [(False,), (True,)]


def test_checks_of_a_server_that_is_gone_are_not_folded(database, server):
    check(database, server + 1, "2 days")
    maintenance.run(lambda seconds: database.begin(seconds), 7, 400, 400)
    assert rows(database, "SELECT count(*) FROM metrics.server_health_hours") == [(0,)]
