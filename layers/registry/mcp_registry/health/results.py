"""Writing what the probes found: rows, last checks, statuses and transitions of a whole shard in one statement."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString, NamedTuple

import psycopg

from mcp_registry.aws import observability
from mcp_registry.aws.db import Database
from mcp_registry.edge.background import Record
from mcp_registry.health import messages
from mcp_registry.health.messages import Findings

# Where servers of so many hosts or more were up, and more than half of these hosts are away in one shard, the fault is
# taken to be ours (our way out, our resolver): what was seen is kept, and who was up a while ago is not called down.
# Hosts and not servers: a fault of ours takes every host along, and a hundred servers of one host are one voice. Only
# what a fault of ours can look like counts: no answer, no address, no route. Who refuses a connection, closes it or
# answers anything has been reached. And each server is spared for no longer than this after it was last up (or came, or
# moved), whatever the others do: hosts that take turns in being away hide nobody's outage.
SUSPECT_HOSTS = 10
SUSPECT_MINUTES = 10

# In the order of its parts: the findings of servers that are not out of service; the rows of metrics; the
# last checks that are older than these; the changes of status; and the shard's figures. A server that came, went or
# changed its status meanwhile fails the comparison with what was read, and is left for the next sweep. A finding that
# is written already is no newer than itself, and one from before an operator's change does not undo it. What was asked
# at an address that a server has left since is no finding. A good answer is never doubted: it cannot come from a fault
# of ours.
#
# Some of it is for speed (1,000 rows, 2026-11-22): UPDATE costs half of what ON CONFLICT DO UPDATE does (1.1 against
# 2.1 ms); a server's first check is looked for only where something was not updated (0.5 ms); for the array in
# `changed` the planner expects few rows; of the registrations only those that are not active, or have moved, are read
# (1.5 ms), so that a server which is gone leaves a row in the metrics that nobody can ask for; and who had been up, and
# on which host, is looked up only where enough cannot be reached (0.7 ms).
_FINDINGS: LiteralString = """
WITH sent AS (
    SELECT COALESCE(%(sent_at)s::timestamptz, now()) AS at
), dispatched AS (
    SELECT COALESCE((SELECT listed_at FROM metrics.sweeps WHERE slot = %(slot)s::timestamptz),
                    %(slot)s::timestamptz) AS at
), finding AS MATERIALIZED (
    SELECT f.server_id, f.verdict, f.status_code, f.response_time_ms, f.error_message,
           sent.at - f.age_ms * interval '1 millisecond' AS checked_at, metrics.is_up(f.verdict) AS up,
           f.verdict IN ('timeout', 'dns') OR COALESCE(f.error_message = %(unreachable)s, false) AS away,
           COALESCE(other.status, 'active') AS status
      FROM unnest(%(server_ids)s::bigint[], %(verdicts)s::metrics.verdict[], %(status_codes)s::smallint[],
                  %(response_times_ms)s::integer[], %(errors)s::text[], %(ages_ms)s::integer[])
        AS f (server_id, verdict, status_code, response_time_ms, error_message, age_ms)
      LEFT JOIN registry.mcp_servers AS other ON other.id = f.server_id AND other.status IN ('error', 'inactive')
     CROSS JOIN sent
     WHERE other.status IS DISTINCT FROM 'inactive'
       AND NOT EXISTS (SELECT
                         FROM registry.mcp_servers AS moved
                        WHERE moved.moved_at > (SELECT at FROM dispatched)
                          AND moved.id = f.server_id)
       AND %(slot)s::timestamptz BETWEEN sent.at - interval '1 day' AND sent.at + interval '1 day'
), whole AS MATERIALIZED (
    SELECT n, up,
           CASE WHEN away * 2 > %(suspect_hosts)s
                THEN (SELECT count(*) >= %(suspect_hosts)s AND count(*) FILTER (WHERE host.away) * 2 > count(*)
                        FROM (SELECT bool_and(f.away) AS away
                                FROM finding AS f
                                JOIN registry.server_health AS h USING (server_id)
                                JOIN registry.mcp_servers AS s ON s.id = f.server_id
                               CROSS JOIN sent
                               WHERE f.status = 'active'
                                 AND h.up_at > sent.at - %(suspect_minutes)s * interval '1 minute'
                               -- The host of a URL: between the slashes and the port.
                               GROUP BY regexp_replace(lower(split_part(s.endpoint_url, '/', 3)),
                                                       '\\.?(:[0-9]*)?$', '')) AS host)
                ELSE false END AS suspect
      FROM (SELECT count(*) AS n, count(*) FILTER (WHERE up) AS up, count(*) FILTER (WHERE away) AS away
              FROM finding) AS counted
), written AS (
    INSERT INTO metrics.server_health_metrics
           (server_id, slot, verdict, response_time_ms, status_code, error_message, checked_at)
    SELECT server_id, %(slot)s::timestamptz, verdict, response_time_ms, status_code, error_message, checked_at
      FROM finding
"""
_STATUSES: LiteralString = """
), newer AS (
    UPDATE registry.server_health AS h
       SET verdict = finding.verdict,
           response_time_ms = finding.response_time_ms,
           status_code = finding.status_code,
           error_message = finding.error_message,
           checked_at = finding.checked_at,
           up_at = CASE WHEN finding.up THEN finding.checked_at ELSE h.up_at END
      FROM finding
     WHERE h.server_id = finding.server_id
       AND h.checked_at < finding.checked_at
    RETURNING h.server_id
), first AS (
    INSERT INTO registry.server_health
           (server_id, verdict, response_time_ms, status_code, error_message, checked_at, up_at)
    SELECT server_id, verdict, response_time_ms, status_code, error_message, checked_at,
           CASE WHEN up THEN checked_at END
      FROM finding
     WHERE (SELECT count(*) FROM newer) < (SELECT n FROM whole)
       AND NOT EXISTS (SELECT FROM registry.server_health AS h WHERE h.server_id = finding.server_id)
       AND EXISTS (SELECT FROM registry.mcp_servers AS s WHERE s.id = finding.server_id)
        ON CONFLICT (server_id) DO NOTHING
    RETURNING server_id
), due AS MATERIALIZED (
    SELECT finding.*, CASE WHEN finding.up THEN 'active' ELSE 'error' END::registry.server_status AS wanted
      FROM finding
     CROSS JOIN whole
     WHERE CASE WHEN finding.up THEN status = 'error'
                ELSE status = 'active'
                     AND NOT (whole.suspect
                              AND EXISTS (SELECT
                                            FROM registry.mcp_servers AS s
                                            LEFT JOIN registry.server_health AS h ON h.server_id = s.id
                                           CROSS JOIN sent
                                           WHERE s.id = finding.server_id
                                             AND GREATEST(h.up_at, s.moved_at)
                                                 > sent.at - %(suspect_minutes)s * interval '1 minute')) END
), change AS MATERIALIZED (
    SELECT *
      FROM due
     WHERE (server_id IN (SELECT server_id FROM newer) OR server_id IN (SELECT server_id FROM first))
       AND NOT EXISTS (SELECT
                         FROM metrics.status_transitions AS t
                        WHERE t.server_id = due.server_id
                          AND t.occurred_at > due.checked_at)
), changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = change.wanted,
           updated_at = now()
      FROM change
     WHERE s.id = ANY (ARRAY(SELECT server_id FROM change))
       AND s.id = change.server_id
       AND s.status = change.status
    RETURNING s.id, s.name, change.status AS from_status, s.status AS to_status, change.verdict,
              COALESCE(change.error_message, 'The server answered the check') AS reason, change.checked_at
), transitions AS (
    INSERT INTO metrics.status_transitions (server_id, from_status, to_status, verdict, reason, occurred_at)
    SELECT id, from_status, to_status, verdict, reason, checked_at
      FROM changed
), times AS (
    SELECT metrics.bucket(response_time_ms) AS bucket, count(*)::integer AS n
      FROM made
     GROUP BY 1
), shard AS (
    INSERT INTO metrics.sweep_shards AS s (slot, shard, checked, up, gone, suspect, finished_at, buckets, counts)
    SELECT %(slot)s::timestamptz, %(shard)s, new.n, new.up,
           -- Not once more where the message is one that was written already.
           CASE WHEN new.n > 0 OR whole.n = 0 THEN cardinality(%(server_ids)s::bigint[]) - whole.n ELSE 0 END,
           whole.suspect, now(), hist.buckets, hist.counts
      FROM whole
     CROSS JOIN new
     CROSS JOIN (SELECT COALESCE(array_agg(bucket), '{}') AS buckets, COALESCE(array_agg(n), '{}') AS counts
                   FROM times) AS hist
        ON CONFLICT (slot, shard) DO UPDATE
       SET checked = s.checked + excluded.checked,
           up = s.up + excluded.up,
           gone = s.gone + excluded.gone,
           suspect = s.suspect OR excluded.suspect,
           finished_at = excluded.finished_at,
           buckets = s.buckets || excluded.buckets,
           counts = s.counts || excluded.counts
)
SELECT (SELECT n FROM new)::integer,
       (SELECT count(*) FROM changed WHERE to_status = 'active')::integer,
       (SELECT count(*) FROM changed WHERE to_status = 'error')::integer,
       (SELECT suspect FROM whole),
       (SELECT json_agg(json_build_array(name, from_status, to_status, reason))
          FROM (SELECT name, from_status, to_status, reason FROM changed LIMIT 100) AS told),
       (SELECT at < now() - interval '15 seconds' FROM sent)
"""
# Either takes every row for new, and fails where one is there already; or asks of each. The first is the rule, because
# a message that comes twice is rare, and asking is dear (3.3 against 1.8 ms).
_ALL_NEW: LiteralString = """
), new AS (
    SELECT n, up
      FROM whole
), made AS (
    SELECT response_time_ms
      FROM finding
     WHERE up
"""
_SOME_NEW: LiteralString = """
        ON CONFLICT (server_id, slot) DO NOTHING
    RETURNING server_id
), new AS (
    SELECT count(*) AS n, count(*) FILTER (WHERE up) AS up
      FROM finding
      JOIN written USING (server_id)
), made AS (
    SELECT response_time_ms
      FROM finding
      JOIN written USING (server_id)
     WHERE up
"""
WRITE: LiteralString = _FINDINGS + _ALL_NEW + _STATUSES
WRITE_AGAIN: LiteralString = _FINDINGS + _SOME_NEW + _STATUSES

# Findings that waited may be written side by side with newer ones of the same servers, and each statement sees the
# statuses from before the other. So what is late looks once more: a server whose last check found it up is up.
RECONCILE = """
WITH back AS (
    UPDATE registry.mcp_servers AS s
       SET status = 'active',
           updated_at = now()
      FROM registry.server_health AS h
     WHERE s.id = ANY (%(server_ids)s::bigint[])
       AND h.server_id = s.id
       AND s.status = 'error'
       AND metrics.is_up(h.verdict)
    RETURNING s.id, s.name, 'error'::registry.server_status AS from_status, s.status AS to_status, h.verdict,
              'The server answered the check' AS reason, h.checked_at
), transitions AS (
    INSERT INTO metrics.status_transitions (server_id, from_status, to_status, verdict, reason, occurred_at)
    SELECT id, from_status, to_status, verdict, reason, checked_at
      FROM back
)
SELECT (SELECT count(*) FROM back)::integer,
       (SELECT json_agg(json_build_array(name, from_status, to_status, reason))
          FROM (SELECT name, from_status, to_status, reason FROM back LIMIT 100) AS told)
"""

ADD_DAY = """
SELECT metrics.add_days(day, day)
  FROM CAST(%(slot)s::timestamptz AT TIME ZONE 'UTC' AS date) AS day
"""


class Change(NamedTuple):
    """A server that came back or was called down: its name, its status before and now, and why."""

    name: str
    before: str
    now: str
    reason: str


class Written(NamedTuple):
    """What came of writing: how many checks are new, how many servers came back, how many were called down.

    `suspect`: so many hosts were away at once that no server was called down which had been up a while ago. `changes`:
    a hundred of the servers that came back or were called down, at most.
    """

    checked: int
    recovered: int
    failed: int
    suspect: bool
    changes: list[Change]


def record(database: Database, message: Record) -> None:
    """Write the findings that a message holds, and log what changed.

    Raises Malformed where it holds none, Unavailable as `write` does.
    """
    findings = messages.findings(message.body)
    *counts, suspect, changes = write(database, findings, message.sent_at)
    for change in changes:
        observability.log_change(*change)
    observability.log_written(findings.slot.isoformat(), findings.shard, *counts, suspect=suspect)


def write(database: Database, findings: Findings, sent_at: datetime | None) -> Written:
    """Write findings that were sent at this moment (of the queue's clock; None: now).

    The same findings may be written any number of times, and in any order with others. Findings of a day other than
    that of their sending and its neighbours are not written. Raises Unavailable where the database cannot answer;
    nothing is written then, or all of it.
    """
    unique = {finding.server_id: finding for finding in findings.findings}.values()
    ids, verdicts, status_codes, times, errors, ages = zip(*(one[:6] for one in unique), strict=True) if unique else ((),) * 6
    parameters = {
        "slot": findings.slot,
        "shard": findings.shard,
        "sent_at": sent_at,
        "suspect_hosts": SUSPECT_HOSTS,
        "suspect_minutes": SUSPECT_MINUTES,
        "unreachable": messages.UNREACHABLE,
        "server_ids": messages.array(ids),
        "verdicts": f"{{{','.join(verdicts)}}}",
        "status_codes": messages.array(status_codes),
        "response_times_ms": messages.array(times),
        "errors": f"{{{','.join('null' if error is None else _quoted(error) for error in errors)}}}",
        "ages_ms": messages.array(ages),
    }
    try:
        row = database.write(WRITE, parameters)
    except psycopg.errors.CheckViolation:  # there is no partition for that day yet
        database.write(ADD_DAY, {"slot": findings.slot})
        row = database.write(WRITE_AGAIN, parameters)
    except psycopg.errors.UniqueViolation:  # delivered twice
        row = database.write(WRITE_AGAIN, parameters)
    assert row is not None
    checked, recovered, failed, suspect, changes, late = row
    told = changes or []
    if late and (again := database.write(RECONCILE, {"server_ids": parameters["server_ids"]})):
        recovered += again[0]
        told += again[1] or []
    return Written(checked, recovered, failed, suspect, [Change(*change) for change in told])


def _quoted(text: str) -> str:
    """A text as an element of an array."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
