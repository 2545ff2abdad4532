"""What is kept, and for how long: partitions of what is coming, roll-ups of past days, and the end of what is too old.

Every step is a statement of its own that may be repeated, so that a run which is cut short loses nothing and the next
one goes on from there, however many days later that is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, LiteralString, NamedTuple

from mcp_registry.aws import observability
from mcp_registry.aws.db import Database

# A week without maintenance costs nothing; after that the writer makes the day that it misses.
DAYS_AHEAD = 7
# Of the audit this month and the next three; an entry of a month that nobody made is kept all the same, beside them.
AUDIT_DAYS_AHEAD = 92
# A step may take this long. Folding an hour of 10,000 servers takes 3 s.
STEP_SECONDS = 60.0
# Findings may be written two hours late (ResultQueue): a run before that is made good by the next one of the same day.
REFOLDED_DAYS = 1

TODAY = "SELECT (now() AT TIME ZONE 'UTC')::date"

ADD_DAYS = "SELECT metrics.add_days(%(first)s, %(last)s)"

# The first day that is still to be folded: the one after the last that was, but not before the oldest that there is.
UNFOLDED = """
SELECT GREATEST((SELECT max(day) + 1
                   FROM metrics.folded_days
                  WHERE day < (now() AT TIME ZONE 'UTC')::date), metrics.first_day())
"""

FOLD_HOUR = """
WITH checks AS MATERIALIZED (
    SELECT m.server_id, m.response_time_ms, metrics.is_up(m.verdict) AS up
      FROM metrics.server_health_metrics AS m
      JOIN registry.mcp_servers AS s ON s.id = m.server_id
     WHERE m.slot >= %(hour)s::timestamptz
       AND m.slot < %(hour)s::timestamptz + interval '1 hour'
), times AS (
    SELECT server_id, array_agg(bucket ORDER BY bucket) AS buckets, array_agg(n ORDER BY bucket) AS counts
      FROM (SELECT server_id, metrics.bucket(response_time_ms) AS bucket, count(*)::integer AS n
              FROM checks
             WHERE up
             GROUP BY 1, 2) AS pairs
     GROUP BY server_id
), hours AS (
    SELECT server_id, count(*) AS checks, count(*) FILTER (WHERE up) AS up,
           percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY response_time_ms) FILTER (WHERE up) AS percentiles,
           max(response_time_ms) FILTER (WHERE up) AS max_ms
      FROM checks
     GROUP BY server_id
), folded AS (
    INSERT INTO metrics.server_health_hours
           (server_id, hour, checks, up, p50_ms, p95_ms, max_ms, buckets, counts)
    SELECT hours.server_id, %(hour)s::timestamptz, hours.checks, hours.up, hours.percentiles[1], hours.percentiles[2],
           hours.max_ms, COALESCE(times.buckets, '{}'), COALESCE(times.counts, '{}')
      FROM hours
      LEFT JOIN times USING (server_id)
        ON CONFLICT (server_id, hour) DO UPDATE
       SET checks = excluded.checks,
           up = excluded.up,
           p50_ms = excluded.p50_ms,
           p95_ms = excluded.p95_ms,
           max_ms = excluded.max_ms,
           buckets = excluded.buckets,
           counts = excluded.counts
    RETURNING server_id
)
SELECT count(*)::integer
  FROM folded
"""

FOLDED = """
INSERT INTO metrics.folded_days (day)
VALUES (%(day)s)
    ON CONFLICT (day) DO UPDATE
   SET folded_at = now()
RETURNING day
"""

DROP_DAY = "SELECT metrics.drop_day(%(until)s)"

ADD_AUDIT_MONTHS = "SELECT registry.add_audit_months(%(first)s, %(last)s)"

DROP_AUDIT_MONTH = "SELECT registry.drop_audit_month(%(until)s)"

# 50,000 at a time: a statement that deletes a million rows would run into its time limit, and do it all again.
DROP_HOURS = """
WITH gone AS (
    DELETE FROM metrics.server_health_hours
     WHERE ctid = ANY (ARRAY(SELECT ctid
                               FROM metrics.server_health_hours
                              WHERE hour < %(until)s::timestamptz
                              LIMIT 50000))
    RETURNING server_id
)
SELECT count(*)::integer
  FROM gone
"""

DROP_TRANSITIONS = """
WITH gone AS (
    DELETE FROM metrics.status_transitions
     WHERE ctid = ANY (ARRAY(SELECT ctid
                               FROM metrics.status_transitions
                              WHERE occurred_at < %(until)s::timestamptz
                              LIMIT 50000))
    RETURNING id
)
SELECT count(*)::integer
  FROM gone
"""

DROP_CHANGES = """
WITH gone AS (
    DELETE FROM metrics.endpoint_changes
     WHERE ctid = ANY (ARRAY(SELECT ctid
                               FROM metrics.endpoint_changes
                              WHERE occurred_at < %(until)s::timestamptz
                              LIMIT 50000))
    RETURNING id
)
SELECT count(*)::integer
  FROM gone
"""

# That an endpoint changed is kept for as long as the roll-ups; what was answered then, a stranger's words and most of a
# row, for as long as the checks.
DROP_EVIDENCE = """
WITH gone AS (
    UPDATE metrics.endpoint_changes
       SET evidence = NULL
     WHERE ctid = ANY (ARRAY(SELECT ctid
                               FROM metrics.endpoint_changes
                              WHERE occurred_at < %(until)s::timestamptz
                                AND evidence IS NOT NULL
                              LIMIT 50000))
    RETURNING id
)
SELECT count(*)::integer
  FROM gone
"""

# What became of them is in endpoint_changes, which stays: replicas that come and go would fill the table.
DROP_RETIRED = """
WITH gone AS (
    DELETE FROM registry.endpoints
     WHERE id = ANY (ARRAY(SELECT id
                             FROM registry.endpoints
                            WHERE retired_at < %(until)s::timestamptz
                            LIMIT 50000))
    RETURNING id
)
SELECT count(*)::integer
  FROM gone
"""

DROP_SWEEPS = """
WITH times AS (
    DELETE FROM metrics.sweep_times
     WHERE hour < %(until)s::timestamptz
), gone AS (
    DELETE FROM metrics.sweeps
     WHERE slot IN (SELECT slot FROM metrics.sweeps WHERE slot < %(until)s::timestamptz LIMIT 50000)
    RETURNING slot
)
SELECT count(*)::integer
  FROM gone
"""


class Done(NamedTuple):
    """What one run did: partitions made, days folded, partitions dropped, rows of roll-ups and the like deleted."""

    added: int
    folded: int
    dropped: int
    deleted: int


def run(database: Callable[[float], Database], raw_days: int, rollup_days: int, audit_days: int) -> Done:
    """Make the coming days and months, fold the past days, and drop what is older than so many days.

    Checks are kept for `raw_days`, roll-ups and the like for `rollup_days`, the audit for `audit_days`.

    `database` gives the database with so many seconds for a statement (`mcp_registry.aws.db.database`). No day is
    dropped before it is folded. Raises Unavailable where a step could not be done in time; what was done until then
    stays.
    """
    today = _one(database, TODAY)
    added = _one(database, ADD_DAYS, first=today, last=today + timedelta(days=DAYS_AHEAD))
    added += _one(database, ADD_AUDIT_MONTHS, first=today, last=today + timedelta(days=AUDIT_DAYS_AHEAD))
    folded = _fold(database, today)
    dropped = 0
    partitions: tuple[tuple[LiteralString, int], ...] = ((DROP_DAY, raw_days), (DROP_AUDIT_MONTH, audit_days))
    for statement, days in partitions:
        while _one(database, statement, until=today - timedelta(days=days)) is not None:
            dropped += 1
    deleted = 0
    kept: tuple[tuple[LiteralString, int], ...] = (
        (DROP_HOURS, rollup_days),
        (DROP_TRANSITIONS, rollup_days),
        (DROP_CHANGES, rollup_days),
        (DROP_EVIDENCE, raw_days),
        (DROP_RETIRED, raw_days),
        (DROP_SWEEPS, raw_days),
    )
    for statement, days in kept:
        while count := _one(database, statement, until=today - timedelta(days=days)):
            deleted += count
    done = Done(added, folded, dropped, deleted)
    observability.log_maintained(**done._asdict())
    return done


def _fold(database: Callable[[float], Database], today: date) -> int:
    """Fold every day before today that is not, and those again that findings may have reached since."""
    first: date | None = _one(database, UNFOLDED)
    if first is None:
        return 0
    first = min(first, today - timedelta(days=REFOLDED_DAYS))
    days = [first + timedelta(days=n) for n in range((today - first).days)]
    for day in days:
        for hour in range(24):
            _one(database, FOLD_HOUR, hour=f"{day} {hour:02}:00:00Z")
        _one(database, FOLDED, day=day)
    return len(days)


def _one(database: Callable[[float], Database], statement: LiteralString, **parameters: object) -> Any:
    """The one value that a statement answers."""
    row = database(STEP_SECONDS).write(statement, parameters)
    assert row is not None
    return row[0]
