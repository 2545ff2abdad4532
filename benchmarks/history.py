"""Reads of health over 12 million checks: one server's day, week and month, all servers' day, and the end of a day.

1,000 servers, checked every half minute for four days, with their roll-ups of 30 days. The bars are milliseconds,
stated in the table as they are; the baseline of the day's read is the same question without an index.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable

from benchmarks.catalogue import filled
from benchmarks.report import Result, alternate, medians, wall_ms
from mcp_registry.aws.db import Database
from mcp_registry.health import history

SERVERS = 1_000
DAYS = 4
ROUNDS = 40
DAY_BAR_MS, DROP_BAR_MS = 5.0, 50.0

FILL_DAY = """
INSERT INTO metrics.server_health_metrics
       (server_id, slot, verdict, response_time_ms, status_code, checked_at)
SELECT id, at, CASE WHEN (id + n) %% 500 = 0 THEN 'timeout' ELSE 'healthy' END::metrics.verdict, (id * 7 + n) %% 400,
       200, at + interval '2 seconds'
  FROM generate_series(0, 2879) AS n
 CROSS JOIN LATERAL (SELECT (current_date - %(day)s)::timestamptz + n * interval '30 seconds' AS at) AS slot
 CROSS JOIN registry.mcp_servers
 WHERE at < now()
"""
FILL_HOURS = """
INSERT INTO metrics.server_health_hours (server_id, hour, checks, up, p50_ms, p95_ms, max_ms, buckets, counts)
SELECT id, hour, 120, 119, 200, 380, 399, buckets, counts
  FROM generate_series((current_date - 31)::timestamptz, current_date::timestamptz - interval '1 hour',
                       interval '1 hour') AS hour
 CROSS JOIN (SELECT array_agg(b::smallint) AS buckets, array_agg(4) AS counts
               FROM generate_series(60, 89) AS b) AS shape
 CROSS JOIN registry.mcp_servers
"""
FILL_SWEEPS = """
INSERT INTO metrics.sweeps (slot, dispatched_at, servers, shards, settled_at, checked, up, finished_at, buckets, counts)
SELECT at, at, 1000, 1, at, 1000, 998, at, buckets, counts
  FROM generate_series(0, 2879) AS n
 CROSS JOIN LATERAL (SELECT now() - n * interval '30 seconds' AS at) AS slot
 CROSS JOIN (SELECT array_agg(b::smallint) AS buckets, array_agg(12) AS counts
               FROM generate_series(40, 122) AS b) AS shape
"""
# What the uptime and the percentiles of a day are at the least, read without help.
UNINDEXED = """
SELECT count(*) FILTER (WHERE metrics.is_up(verdict)),
       percentile_disc(0.95) WITHIN GROUP (ORDER BY response_time_ms)
  FROM metrics.server_health_metrics
 WHERE server_id + 0 = %(id)s
   AND slot >= now() - interval '24 hours'
"""


def run(server_url: str) -> list[Result]:
    """Fill, measure and print; the figures of one server are of another server each time."""
    database = Database(filled(server_url, "history", SERVERS))
    started = time.perf_counter()
    ids = _fill(database)
    checks = _one(database, "SELECT count(*) FROM metrics.server_health_metrics")
    print(f"{checks:,} checks of {SERVERS:,} servers, filled in {time.perf_counter() - started:.0f} s")
    choose = random.Random(7).choice

    def of_server(period: str) -> Callable[[], object]:
        return lambda: history.of_server(database.begin(60), choose(ids), period)

    subjects = {
        "one server, 24h": wall_ms(of_server("24h")),
        "one server, 7d": wall_ms(of_server("7d")),
        "one server, 30d": wall_ms(of_server("30d")),
        "all servers, 24h": wall_ms(lambda: history.of_all(database.begin(60))),
        "one server, 24h, no index": wall_ms(lambda: database.begin(60).read(UNINDEXED, {"id": choose(ids)})),
    }
    alternate(subjects, 2)
    measured = medians(alternate(subjects, ROUNDS))
    for name, milliseconds in measured.items():
        print(f"{name}: {milliseconds:.2f} ms")
    dropped = [_drop(database, Database(database._conninfo), ids) for _ in range(DAYS)]
    whole, waited = (statistics.median(times) for times in zip(*dropped, strict=True))
    print(f"dropping a day of {2880 * SERVERS:,} checks: {whole:.0f} ms; a reader waited {waited:.1f} ms meanwhile")
    database.close()
    unindexed = measured["one server, 24h, no index"]
    print(f"the day of one server without the index costs {unindexed / measured['one server, 24h']:.0f} times as much")
    return [
        Result("health of one server, 24h", measured["one server, 24h"], DAY_BAR_MS, "ms", 1.0),
        Result("dropping a day of checks", whole, DROP_BAR_MS, "ms", 1.0),
        Result("dropping a day: what a reader waits", waited, DROP_BAR_MS, "ms", 1.0),
    ]


def _drop(database: Database, reading: Database, ids: list[int]) -> tuple[float, float]:
    """Drop the oldest day; what that took, and the longest that a read took meanwhile, in ms."""
    waits: list[float] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            waits.append(wall_ms(lambda: history.of_server(reading.begin(60), ids[0], "24h"))())
        reading.close()

    reader = threading.Thread(target=read)
    reader.start()
    while len(waits) < 3:  # the connection is made
        time.sleep(0.001)
    waits.clear()
    took = wall_ms(lambda: _one(database, "SELECT metrics.drop_day(current_date)"))()
    over.set()
    reader.join()
    return took, max(waits)


def _fill(database: Database) -> list[int]:
    _one(database, f"SELECT metrics.add_days(current_date - {DAYS}, current_date)")
    connection = database._connection
    assert connection is not None
    for day in range(DAYS, -1, -1):
        database.begin(600)
        connection.deadline = float("inf")
        connection.execute(FILL_DAY, {"day": day})
    connection.execute(FILL_HOURS)
    connection.execute(FILL_SWEEPS)
    connection.execute("INSERT INTO metrics.folded_days (day) VALUES (current_date - 1)")
    connection.execute("VACUUM ANALYZE")
    return [id_ for (id_,) in connection.execute("SELECT id FROM registry.mcp_servers")]


def _one(database: Database, statement: str) -> int:
    row = database.begin(600).read(statement)  # pyright: ignore[reportArgumentType] - numbers of ours
    assert row is not None
    return row[0]
