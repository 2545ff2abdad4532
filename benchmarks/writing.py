"""What it costs to write the findings of 1,000 probes, against Postgres copying the same rows.

Ours is `results.write`: the message is read already; rows, last checks, statuses, transitions and the sweep's figures
by one statement, through one warm connection. The baseline is what a server can do at best with the same rows when they
are there already: `INSERT ... SELECT` of metrics and transitions, `UPDATE ... FROM` of last checks and statuses, in one
transaction. 1 % of the servers fail in each sweep, and so 2 % change their status.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from time import perf_counter

from benchmarks.catalogue import filled
from benchmarks.report import Result, alternate, medians
from mcp_registry.db import Database
from mcp_registry.health import results
from mcp_registry.health.messages import Finding, Findings

SERVERS = 1_000
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
UPDATE registry.server_health AS h
   SET verdict = t.verdict, response_time_ms = t.response_time_ms, status_code = t.status_code,
       error_message = t.error_message, checked_at = t.checked_at
  FROM template AS t
 WHERE t.server_id = h.server_id
"""
COPY_STATUSES = """
WITH changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = c.to_status, updated_at = now()
      FROM changes AS c
     WHERE c.server_id = s.id
    RETURNING s.id
)
INSERT INTO metrics.status_transitions (server_id, from_status, to_status, verdict, reason, occurred_at)
SELECT server_id, from_status, to_status, verdict, reason, occurred_at
  FROM changes
"""


def run(server_url: str) -> list[Result]:
    """Measure both in turns, in one catalogue."""
    database = Database(filled(server_url, "writing", SERVERS))
    database.begin(60).read("SELECT metrics.add_days(current_date - 1, current_date + 1)")
    connection = database._connection
    assert connection is not None
    connection.execute("UPDATE registry.mcp_servers SET status = 'active'")
    ids = [id_ for (id_,) in connection.execute("SELECT id FROM registry.mcp_servers ORDER BY id")]
    # Each write is a sweep of its own, one second apart.
    slots = (datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1) + timedelta(seconds=n) for n in count())

    def ours() -> float:
        slot = next(slots)
        number = int(slot.timestamp())
        findings = Findings(slot, 0, [_finding(id_, number) for id_ in ids])
        database.begin()
        started = perf_counter()
        written, *_ = results.write(database, findings, slot)
        elapsed = perf_counter() - started
        assert written == SERVERS
        return elapsed * 1000

    def baseline() -> float:
        slot = next(slots)
        database.begin()
        started = perf_counter()
        with connection.transaction():
            connection.execute(COPY_METRICS, {"slot": slot})
            connection.execute(COPY_CHECKS)
            connection.execute(COPY_STATUSES)
        return (perf_counter() - started) * 1000

    ours()
    connection.execute("CREATE TEMPORARY TABLE template AS SELECT * FROM metrics.server_health_metrics")
    ours()
    connection.execute("CREATE TEMPORARY TABLE changes AS SELECT * FROM metrics.status_transitions LIMIT 20")
    connection.execute("ANALYZE template, changes")
    subjects: dict[str, Callable[[], float]] = {"ours": ours, "baseline": baseline}
    alternate(subjects, 10)
    connection.execute("VACUUM ANALYZE registry.mcp_servers, registry.server_health, metrics.server_health_metrics")
    measured = medians(alternate(subjects, ROUNDS))
    database.close()
    print(f"{SERVERS:,} findings: {measured['ours']:.1f} ms, {SERVERS / measured['ours'] * 1000:,.0f} a second")
    return [Result("write 1,000 findings", measured["ours"], measured["baseline"], "ms", BAR)]


def _finding(id_: int, number: int) -> Finding:
    if (id_ + number) % 100 < 1:
        return Finding(id_, "refused", None, 1, REFUSED, 500)
    return Finding(id_, "healthy", 200, (id_ * 7 + number) % 400, None, 500)
