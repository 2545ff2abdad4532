"""What it costs to write the findings of 1,000 probes, against Postgres copying the same rows.

Ours is `results.write`: the message is read already; rows, last checks, changes of endpoints, statuses, transitions and
the sweep's figures by one statement, through one warm connection. The baseline is what a server can do at best with the
same rows when they are there already: `INSERT ... SELECT` of metrics, changes and transitions, `UPDATE ... FROM` of
last checks and statuses, in one transaction. Each server has one endpoint. 1 % of them fail in each sweep, and so 2 %
change their status.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from time import perf_counter

from benchmarks.catalogue import filled
from benchmarks.report import Result, alternate, medians
from mcp_registry.aws.db import Database
from mcp_registry.health import results
from mcp_registry.health.messages import Finding, Findings

SERVERS = 1_000
FAILING = SERVERS // 100
ROUNDS = 60
BAR = 2.0
REFUSED = "Nothing listens there: the connection was refused"

COPY_METRICS = """
INSERT INTO metrics.server_health_metrics
       (server_id, slot, verdict, response_time_ms, status_code, error_message, checked_at)
SELECT server_id, %(slot)s, verdict, response_time_ms, status_code, error_message, checked_at
  FROM template
"""
COPY_CHECKS = """
UPDATE registry.endpoint_health AS h
   SET verdict = t.verdict, response_time_ms = t.response_time_ms, status_code = t.status_code,
       error_message = t.error_message, checked_at = t.checked_at, up_at = t.up_at, since = t.since, times = t.times
  FROM checks AS t
 WHERE t.endpoint_id = h.endpoint_id
"""
COPY_CHANGES = """
INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, from_verdict, verdict, reason, occurred_at)
SELECT server_id, endpoint_id, url, change, from_verdict, verdict, reason, occurred_at
  FROM endpoint_changes
"""
COPY_STATUSES = """
WITH changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = CASE s.status WHEN 'active' THEN 'error' ELSE 'active' END::registry.server_status
      FROM changes AS c
     WHERE s.id = 1 + (c.server_id + %(shift)s) %% 1000
    RETURNING s.id
)
INSERT INTO metrics.status_transitions (server_id, from_status, to_status, verdict, reason, occurred_at)
SELECT 1 + (server_id + %(shift)s) %% 1000, from_status, to_status, verdict, reason, occurred_at
  FROM changes
"""


def run(server_url: str) -> list[Result]:
    """Measure both in turns, each in a catalogue of its own."""
    databases = {name: _prepared(server_url, name) for name in ("ours", "baseline")}
    # Each write is a sweep of its own, one second apart.
    slots = (datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1) + timedelta(seconds=n) for n in count())
    connection = databases["baseline"]._connection
    assert connection is not None

    def ours(database: Database = databases["ours"]) -> float:
        slot = next(slots)
        findings = Findings(slot, 0, [_finding(id_, id_, int(slot.timestamp())) for id_ in range(1, SERVERS + 1)])
        database.begin()
        started = perf_counter()
        written, recovered, failed, *_ = results.write(database, findings, slot)
        elapsed = perf_counter() - started
        assert (written, failed) == (SERVERS, FAILING)
        assert recovered in (0, FAILING)
        return elapsed * 1000

    def baseline() -> float:
        slot = next(slots)
        databases["baseline"].begin()
        started = perf_counter()
        with connection.transaction():
            connection.execute(COPY_METRICS, {"slot": slot})
            connection.execute(COPY_CHECKS)
            connection.execute(COPY_CHANGES)
            # Other servers each time, as in any other sweep.
            connection.execute(COPY_STATUSES, {"shift": int(slot.timestamp())})
        return (perf_counter() - started) * 1000

    # What the baseline copies is what ours would write.
    for _ in range(2):
        ours(databases["baseline"])
    connection.deadline = float("inf")  # it is not asked through `Database` any more, which would set one
    connection.execute(
        "CREATE TEMPORARY TABLE template AS SELECT * FROM metrics.server_health_metrics ORDER BY slot DESC LIMIT 1000"
    )
    connection.execute(
        "CREATE TEMPORARY TABLE changes AS SELECT * FROM metrics.status_transitions ORDER BY id DESC LIMIT 20"
    )
    connection.execute("CREATE TEMPORARY TABLE checks AS SELECT * FROM registry.endpoint_health")
    connection.execute(
        "CREATE TEMPORARY TABLE endpoint_changes AS SELECT * FROM metrics.endpoint_changes ORDER BY id DESC LIMIT 20"
    )
    connection.execute("ANALYZE template, changes, checks, endpoint_changes")
    subjects: dict[str, Callable[[], float]] = {"ours": ours, "baseline": baseline}
    alternate(subjects, 10)
    for database in databases.values():
        assert database._connection is not None
        database._connection.execute(
            "VACUUM ANALYZE registry.mcp_servers, registry.endpoints, registry.endpoint_health,"
            " metrics.server_health_metrics"
        )
    measured = medians(alternate(subjects, ROUNDS))
    for database in databases.values():
        database.close()
    print(f"{SERVERS:,} findings: {measured['ours']:.1f} ms, {SERVERS / measured['ours'] * 1000:,.0f} a second")
    return [Result("write 1,000 findings", measured["ours"], measured["baseline"], "ms", BAR)]


def _prepared(server_url: str, name: str) -> Database:
    """A catalogue whose servers are all active, and have been where they are for longer than the sweeps that follow."""
    database = Database(filled(server_url, f"writing_{name}", SERVERS))
    database.begin(60).read("SELECT metrics.add_days(current_date - 1, current_date + 1)")
    connection = database._connection
    assert connection is not None
    connection.execute("UPDATE registry.mcp_servers SET status = 'active'")
    connection.execute(
        "UPDATE registry.endpoints SET moved_at = now() - interval '1 day', introduce_at = now() + interval '1 hour'"
    )
    connection.execute("VACUUM ANALYZE registry.mcp_servers, registry.endpoints")
    return database


def _finding(server_id: int, endpoint_id: int, number: int) -> Finding:
    if (server_id + number) % 100 < 1:
        return Finding(server_id, "refused", None, 1, REFUSED, 500, endpoint_id)
    return Finding(server_id, "healthy", 200, (endpoint_id * 7 + number) % 400, None, 500, endpoint_id)
