"""Writing what the probes found: rows, last checks, statuses and transitions of a whole shard in one statement."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import LiteralString

import psycopg

from mcp_registry import observability
from mcp_registry.background import Record
from mcp_registry.db import Database
from mcp_registry.health import messages
from mcp_registry.health.messages import Findings

# Where so many servers or more were up, and more than half of them fail in one shard, the fault is taken to be ours
# (our way out, our resolver): what was seen is kept, and nobody is called down.
SUSPECT_SERVERS = 10

# In the order of its parts: the findings of servers that exist and are not out of service, with the status that each
# should have; the rows of metrics; the last checks that are older than these; the changes of status; and the shard's
# figures. A server that came, went or changed its status meanwhile fails the comparison with what was read, and is left
# for the next sweep. A good answer is never doubted: it cannot come from a fault of ours.
#
# The array in `changed` and the two statements of `latest` are for the planner: it expects few changes then, and a
# plain UPDATE costs half of what ON CONFLICT DO UPDATE does (1.1 against 2.1 ms for 1,000 rows, 2026-11-22).
_FINDINGS: LiteralString = """
WITH sent AS (
    SELECT COALESCE(%(sent_at)s::timestamptz, now()) AS at
), finding AS MATERIALIZED (
    SELECT f.server_id, f.verdict, f.status_code, f.response_time_ms, f.error_message,
           sent.at - f.age_ms * interval '1 millisecond' AS checked_at, s.status, metrics.is_up(f.verdict) AS up
      FROM unnest(%(server_ids)s::bigint[], %(verdicts)s::metrics.verdict[], %(status_codes)s::smallint[],
                  %(response_times_ms)s::integer[], %(errors)s::text[], %(ages_ms)s::integer[])
        AS f (server_id, verdict, status_code, response_time_ms, error_message, age_ms)
      JOIN registry.mcp_servers AS s ON s.id = f.server_id
     CROSS JOIN sent
     WHERE s.status <> 'inactive'
       AND %(slot)s::timestamptz BETWEEN sent.at - interval '1 day' AND sent.at + interval '1 day'
), suspicion AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE status = 'active') >= %(suspect_servers)s
           AND count(*) FILTER (WHERE status = 'active' AND NOT up) * 2 > count(*) FILTER (WHERE status = 'active')
           AS suspect
      FROM finding
), written AS (
    INSERT INTO metrics.server_health_metrics
           (server_id, slot, verdict, response_time_ms, status_code, error_message, checked_at)
    SELECT server_id, %(slot)s::timestamptz, verdict, response_time_ms, status_code, error_message, checked_at
      FROM finding
"""
_STATUSES: LiteralString = """
    RETURNING server_id, verdict, response_time_ms, status_code, error_message, checked_at
), newer AS (
    UPDATE registry.server_health AS h
       SET verdict = written.verdict,
           response_time_ms = written.response_time_ms,
           status_code = written.status_code,
           error_message = written.error_message,
           checked_at = written.checked_at
      FROM written
     WHERE h.server_id = written.server_id
       AND h.checked_at < written.checked_at
    RETURNING h.server_id
), first AS (
    INSERT INTO registry.server_health
           (server_id, verdict, response_time_ms, status_code, error_message, checked_at)
    SELECT server_id, verdict, response_time_ms, status_code, error_message, checked_at
      FROM written
     WHERE NOT EXISTS (SELECT FROM registry.server_health AS h WHERE h.server_id = written.server_id)
        ON CONFLICT (server_id) DO NOTHING
    RETURNING server_id
), change AS MATERIALIZED (
    SELECT finding.*, CASE WHEN up THEN 'active' ELSE 'error' END::registry.server_status AS wanted
      FROM finding
     CROSS JOIN suspicion
     WHERE CASE WHEN up THEN status = 'error' ELSE status = 'active' AND NOT suspicion.suspect END
       AND server_id IN (SELECT server_id FROM newer UNION ALL SELECT server_id FROM first)
), changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = change.wanted,
           updated_at = now()
      FROM change
     WHERE s.id = ANY (ARRAY(SELECT server_id FROM change))
       AND s.id = change.server_id
       AND s.status = change.status
    RETURNING s.id, change.status AS from_status, s.status AS to_status, change.verdict, change.error_message,
              change.checked_at
), transitions AS (
    INSERT INTO metrics.status_transitions (server_id, from_status, to_status, verdict, reason, occurred_at)
    SELECT id, from_status, to_status, verdict, COALESCE(error_message, 'The server answered the check'), checked_at
      FROM changed
), times AS (
    SELECT metrics.bucket(response_time_ms) AS bucket, count(*)::integer AS n
      FROM written
     WHERE metrics.is_up(verdict)
     GROUP BY 1
), shard AS (
    INSERT INTO metrics.sweep_shards AS s (slot, shard, checked, up, suspect, finished_at, buckets, counts)
    SELECT %(slot)s::timestamptz, %(shard)s, cardinality(%(server_ids)s::bigint[]) - (found.n - made.n), made.up,
           suspicion.suspect, now(), hist.buckets, hist.counts
      FROM (SELECT count(*) AS n FROM finding) AS found
     CROSS JOIN (SELECT count(*) AS n, count(*) FILTER (WHERE metrics.is_up(verdict)) AS up FROM written) AS made
     CROSS JOIN (SELECT COALESCE(array_agg(bucket), '{}') AS buckets, COALESCE(array_agg(n), '{}') AS counts
                   FROM times) AS hist
     CROSS JOIN suspicion
        ON CONFLICT (slot, shard) DO UPDATE
       SET checked = s.checked + excluded.checked,
           up = s.up + excluded.up,
           suspect = s.suspect OR excluded.suspect,
           finished_at = excluded.finished_at,
           buckets = s.buckets || excluded.buckets,
           counts = s.counts || excluded.counts
)
SELECT (SELECT count(*) FROM written)::integer,
       (SELECT count(*) FROM changed WHERE to_status = 'active')::integer,
       (SELECT count(*) FROM changed WHERE to_status = 'error')::integer,
       (SELECT suspect FROM suspicion)
"""
# Takes every row for new, and fails where one is there already. That is rare, and looking first is dear (3.3 against
# 1.8 ms).
WRITE: LiteralString = _FINDINGS + _STATUSES
WRITE_AGAIN: LiteralString = _FINDINGS + "ON CONFLICT (server_id, slot) DO NOTHING" + _STATUSES

ADD_DAY = """
SELECT metrics.add_days(day, day)
  FROM CAST(%(slot)s::timestamptz AT TIME ZONE 'UTC' AS date) AS day
"""


def record(database: Database, message: Record) -> None:
    """Write the findings that a message holds. Raises Malformed where it holds none, Unavailable as `write` does."""
    findings = messages.findings(message.body)
    checked, recovered, failed, suspect = write(database, findings, message.sent_at)
    observability.log_written(findings.slot.isoformat(), findings.shard, checked, recovered, failed, suspect=suspect)


def write(database: Database, findings: Findings, sent_at: datetime | None) -> tuple[int, int, int, bool]:
    """Write findings that were sent at this moment (of the queue's clock; None: now).

    Returns how many checks are new, how many servers came back, how many were called down, and whether so many failed
    that none was. The same findings may be written any number of times, and in any order with others. Findings of a day
    other than that of their sending and its neighbours are not written. Raises Unavailable where the database cannot
    answer; nothing is written then, or all of it.
    """
    unique = {finding.server_id: finding for finding in findings.findings}.values()
    parameters = {
        "slot": findings.slot,
        "shard": findings.shard,
        "sent_at": sent_at,
        "suspect_servers": SUSPECT_SERVERS,
        "server_ids": _array(finding.server_id for finding in unique),
        "verdicts": _array(finding.verdict for finding in unique),
        "status_codes": _array(finding.status_code for finding in unique),
        "response_times_ms": _array(finding.response_time_ms for finding in unique),
        "errors": _array(finding.error and _quoted(finding.error) for finding in unique),
        "ages_ms": _array(finding.age_ms for finding in unique),
    }
    try:
        row = database.write(WRITE, parameters)
    except psycopg.errors.CheckViolation:  # there is no partition for that day yet
        database.write(ADD_DAY, {"slot": findings.slot})
        row = database.write(WRITE_AGAIN, parameters)
    except psycopg.errors.UniqueViolation:  # delivered twice
        row = database.write(WRITE_AGAIN, parameters)
    assert row is not None
    return row[0], row[1], row[2], row[3]


def _array(values: Iterable[str | int | None]) -> str:
    """An array as Postgres writes it ("Array Input and Output Syntax"): a third of what psycopg takes for a list."""
    return "{" + ",".join("NULL" if value is None else str(value) for value in values) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
