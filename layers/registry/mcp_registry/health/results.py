"""Writing what was found of endpoints: rows, last checks, changes, statuses and transitions in one statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString, NamedTuple

import psycopg

from mcp_registry.aws import observability
from mcp_registry.aws.db import Database
from mcp_registry.edge.background import Record
from mcp_registry.health import messages
from mcp_registry.health.messages import Finding, Findings

# Where endpoints of so many hosts or more were up, and more than half of these hosts are away in one shard, the fault
# is taken to be ours (our way out, our resolver): what was seen is kept, and who was up a while ago is not called down.
# Hosts and not servers: a fault of ours takes every host along, and a hundred servers of one host are one voice. Only
# what a fault of ours can look like counts: no answer, no address, no route. Who refuses a connection, closes it or
# answers anything has been reached. And each server is spared for no longer than this after it was last up (or came, or
# moved), whatever the others do: hosts that take turns in being away hide nobody's outage.
SUSPECT_HOSTS = 10
SUSPECT_MINUTES = 10
# Who is never as it was when it was introduced is introduced again after so many minutes, and not in each half minute.
DOUBT_MINUTES = 5
# Who is found otherwise is introduced again at once, unless it is so all the time: so often within an hour.
SUDDEN = 3
# Evidence is kept of so many changes of an endpoint within an hour: who goes up and down all day fills no table.
TOLD = 20
# So many changes of an endpoint within a day have a row each. After that the newest row tells the change that was last,
# and counts those before it: who goes up and down each half minute would leave a million rows in a year.
KEPT = 100

# In the order of its parts: the findings of endpoints of servers that are not out of service; the last checks that are
# older than these; what of it changed something; a row of metrics for each server, of the best of its endpoints; the
# changes of endpoints; who is to be introduced again; the statuses of servers; and the shard's figures. An endpoint or
# a server that came, went or changed meanwhile fails the comparison with what was read, and is left for the next sweep.
# A finding that is written already is no newer than itself, and one from before an operator's change does not undo it.
# What was asked of an endpoint before it moved or retired is no finding, nor what is said of one that the server has
# not. An endpoint in conflict is the address of another server of the same name (`rival`): it is checked, and whether
# this server is up does not follow from it. A good answer is never doubted: it cannot come from a fault of ours. It is
# dropped all the same where an introduction has called the endpoint down since the sweep was listed: for the sweep
# that was up, so that *as before* is what it says, and knows no better. The next one does.
#
# What an introduction found has no slot: it is no row of metrics and in no shard. It hears of too few hosts to know a
# fault of ours, so that whoever was up a while ago and is away is called down by a sweep alone.
#
# Some of it is for speed (1,000 rows, 2026-11-22): UPDATE costs half of what ON CONFLICT DO UPDATE does (1.1 against
# 2.1 ms); a first check is looked for only where something was not updated (0.5 ms);
# for the array in `changed` the planner expects few rows; of the registrations only those that are not active are read;
# the other endpoints of a server are looked up only where it may fall; and who had been up, and on which host, only
# where enough cannot be reached (0.7 ms).
_FINDINGS: LiteralString = """
WITH sent AS (
    SELECT COALESCE(%(sent_at)s::timestamptz, now()) AS at
), asked AS (
    SELECT COALESCE(%(asked_at)s::timestamptz,
                    (SELECT listed_at FROM metrics.sweeps WHERE slot = %(slot)s::timestamptz),
                    %(slot)s::timestamptz) AS at
), finding AS MATERIALIZED (
    SELECT f.server_id, f.endpoint_id, f.verdict, f.status_code, f.response_time_ms, f.error_message,
           sent.at - f.age_ms * interval '1 millisecond' AS checked_at, f.retry_after, metrics.is_up(f.verdict) AS up,
           f.verdict IN ('timeout', 'dns') OR COALESCE(f.error_message = %(unreachable)s, false) AS away,
           COALESCE(other.status, 'active') AS status, e.conflict_at IS NOT NULL AS rival
      FROM unnest(%(server_ids)s::bigint[], %(endpoint_ids)s::bigint[], %(verdicts)s::metrics.verdict[],
                  %(status_codes)s::smallint[], %(response_times_ms)s::integer[], %(errors)s::text[],
                  %(ages_ms)s::integer[], %(retries)s::integer[])
        AS f (server_id, endpoint_id, verdict, status_code, response_time_ms, error_message, age_ms, retry_after)
      JOIN registry.endpoints AS e ON e.id = f.endpoint_id AND e.server_id = f.server_id
      LEFT JOIN registry.mcp_servers AS other ON other.id = f.server_id AND other.status IN ('error', 'inactive')
     CROSS JOIN sent
     WHERE other.status IS DISTINCT FROM 'inactive'
       AND GREATEST(e.moved_at, e.retired_at) <= (SELECT at FROM asked)
       AND COALESCE(%(slot)s::timestamptz, %(asked_at)s::timestamptz)
           BETWEEN sent.at - interval '1 day' AND sent.at + interval '1 day'
), newer AS (
    UPDATE registry.endpoint_health AS h
       SET verdict = finding.verdict,
           response_time_ms = finding.response_time_ms,
           status_code = finding.status_code,
           error_message = finding.error_message,
           checked_at = finding.checked_at,
           up_at = CASE WHEN finding.up THEN finding.checked_at ELSE h.up_at END,
           was = h.verdict,
           since = CASE WHEN h.verdict = finding.verdict THEN h.since ELSE finding.checked_at END,
           times = CASE WHEN h.verdict = finding.verdict THEN h.times + 1 ELSE 1 END,
           ask_again_at = CASE WHEN finding.verdict = 'limited'
                               THEN finding.checked_at + finding.retry_after * interval '1 second' END
      FROM finding
     WHERE h.endpoint_id = finding.endpoint_id
       AND h.checked_at < finding.checked_at
       AND NOT COALESCE(finding.up AND %(slot)s::timestamptz IS NOT NULL AND NOT metrics.is_up(h.verdict)
                        AND h.since > (SELECT at FROM asked), false)
    RETURNING finding.server_id, finding.endpoint_id, h.was AS before, finding.verdict, finding.up, finding.away,
              finding.rival, finding.status, finding.error_message, finding.checked_at
), counted AS MATERIALIZED (
    SELECT away, (SELECT count(*) FROM newer) = n AS all_newer
      FROM (SELECT count(*) AS n, count(*) FILTER (WHERE away) AS away FROM finding) AS given
), first AS (
    INSERT INTO registry.endpoint_health AS h
           (endpoint_id, verdict, response_time_ms, status_code, error_message, checked_at, up_at, since, ask_again_at)
    SELECT endpoint_id, verdict, response_time_ms, status_code, error_message, checked_at,
           CASE WHEN up THEN checked_at END, checked_at,
           CASE WHEN verdict = 'limited' THEN checked_at + retry_after * interval '1 second' END
      FROM finding
     WHERE NOT (SELECT all_newer FROM counted)
       AND NOT EXISTS (SELECT FROM registry.endpoint_health AS h WHERE h.endpoint_id = finding.endpoint_id)
        ON CONFLICT (endpoint_id) DO NOTHING
    RETURNING h.endpoint_id, metrics.is_up(h.verdict) AS up
), turned AS MATERIALIZED (
    SELECT *
      FROM newer
     WHERE before <> verdict
        OR (up AND NOT rival) = (status = 'error')
     UNION ALL
    SELECT f.server_id, f.endpoint_id, NULL, f.verdict, f.up, f.away, f.rival, f.status, f.error_message, f.checked_at
      FROM first
      JOIN finding AS f USING (endpoint_id)
), best AS MATERIALIZED (
    SELECT *
      FROM (SELECT DISTINCT ON (server_id) server_id, verdict, status_code, response_time_ms, error_message, checked_at,
                   up, status
              FROM finding
             WHERE NOT rival
             ORDER BY server_id, up DESC, response_time_ms) AS one
     -- It is down as far as was asked, and has another endpoint that is up: whether the server is, nobody has seen.
     WHERE up
        OR status = 'error'
        OR NOT EXISTS (SELECT
                         FROM registry.endpoints AS e
                         JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
                        WHERE e.server_id = one.server_id
                          AND e.retired_at IS NULL
                          AND e.conflict_at IS NULL
                          AND metrics.is_up(h.verdict)
                          AND e.id NOT IN (SELECT endpoint_id FROM finding))
), whole AS MATERIALIZED (
    SELECT n, up,
           CASE WHEN away * 2 > %(suspect_hosts)s
                THEN (SELECT count(*) >= %(suspect_hosts)s AND count(*) FILTER (WHERE host.away) * 2 > count(*)
                        FROM (SELECT bool_and(f.away) AS away
                                FROM finding AS f
                                JOIN registry.endpoint_health AS h USING (endpoint_id)
                                JOIN registry.endpoints AS e ON e.id = f.endpoint_id
                               CROSS JOIN sent
                               WHERE f.status = 'active'
                                 AND h.up_at > sent.at - %(suspect_minutes)s * interval '1 minute'
                               -- The host of a URL: between the slashes and the port.
                               GROUP BY regexp_replace(lower(split_part(e.url, '/', 3)), '\\.?(:[0-9]*)?$', ''))
                             AS host)
                ELSE false END AS suspect
      FROM (SELECT count(*) AS n, count(*) FILTER (WHERE up) AS up FROM best) AS servers
     CROSS JOIN counted
), written AS (
    INSERT INTO metrics.server_health_metrics AS m
           (server_id, slot, verdict, response_time_ms, status_code, error_message, checked_at)
    SELECT server_id, %(slot)s::timestamptz, verdict, response_time_ms, status_code, error_message, checked_at
      FROM best
     WHERE %(slot)s::timestamptz IS NOT NULL
"""
_STATUSES: LiteralString = """
), otherwise AS MATERIALIZED (
    SELECT t.*,
           (SELECT count(*)
              FROM (SELECT
                      FROM metrics.endpoint_changes AS c
                     WHERE c.endpoint_id = t.endpoint_id
                       AND c.change = 'verdict'
                       AND c.occurred_at > t.checked_at - interval '1 hour'
                     LIMIT GREATEST(%(told)s, %(sudden)s)) AS last) AS so_often,
           CASE WHEN (SELECT count(*)
                        FROM (SELECT
                                FROM metrics.endpoint_changes AS c
                               WHERE c.endpoint_id = t.endpoint_id
                                 AND c.change = 'verdict'
                                 AND c.occurred_at > t.checked_at - interval '1 day'
                               LIMIT %(kept)s) AS last) = %(kept)s
                THEN (SELECT c.id
                        FROM metrics.endpoint_changes AS c
                       WHERE c.endpoint_id = t.endpoint_id
                         AND c.change = 'verdict'
                       ORDER BY c.occurred_at DESC, c.id DESC
                       LIMIT 1) END AS newest
      FROM turned AS t
     WHERE t.before IS DISTINCT FROM t.verdict
), changes AS (
    INSERT INTO metrics.endpoint_changes
           (server_id, endpoint_id, url, change, from_verdict, verdict, reason, evidence, occurred_at)
    SELECT t.server_id, t.endpoint_id, e.url, 'verdict', t.before, t.verdict,
           COALESCE(t.error_message, 'The server answered the check'),
           CASE WHEN t.so_often < %(told)s THEN seen.evidence::json END, t.checked_at
      FROM otherwise AS t
      JOIN registry.endpoints AS e ON e.id = t.endpoint_id AND e.id = ANY (ARRAY(SELECT endpoint_id FROM otherwise))
      LEFT JOIN unnest(%(evidence_of)s::bigint[], %(evidence)s::text[]) AS seen (endpoint_id, evidence)
        ON seen.endpoint_id = t.endpoint_id
     WHERE t.newest IS NULL
), folded AS (
    UPDATE metrics.endpoint_changes AS c
       SET from_verdict = t.before,
           verdict = t.verdict,
           reason = COALESCE(t.error_message, 'The server answered the check'),
           evidence = seen.evidence::json,
           occurred_at = t.checked_at,
           more = c.more + 1
      FROM otherwise AS t
      LEFT JOIN unnest(%(evidence_of)s::bigint[], %(evidence)s::text[]) AS seen (endpoint_id, evidence)
        ON seen.endpoint_id = t.endpoint_id
     WHERE c.id = ANY (ARRAY(SELECT newest FROM otherwise))
       AND c.id = t.newest
), sudden AS MATERIALIZED (
    SELECT COALESCE(array_agg(endpoint_id), '{}') AS ids,
           COALESCE(array_agg(endpoint_id) FILTER (WHERE so_often <= %(sudden)s AND newest IS NULL), '{}') AS at_once
      FROM otherwise
     WHERE up
       AND before <> verdict
), woken AS (
    UPDATE registry.endpoints AS e
       SET introduce_at = GREATEST(now(), CASE WHEN e.id <> ALL (sudden.at_once)
                                               THEN e.learnt_at + %(doubt_minutes)s * interval '1 minute' END)
      FROM sudden
     WHERE e.id = ANY ((SELECT ids FROM sudden) || %(doubted)s::bigint[])
       AND e.introduce_at > GREATEST(now(), CASE WHEN e.id <> ALL (sudden.at_once)
                                                 THEN e.learnt_at + %(doubt_minutes)s * interval '1 minute' END)
       AND %(slot)s::timestamptz IS NOT NULL
), fresh AS (
    SELECT endpoint_id, up
      FROM newer
     UNION ALL
    SELECT endpoint_id, up
      FROM first
), due AS MATERIALIZED (
    SELECT DISTINCT ON (t.server_id) t.server_id, t.status, t.verdict, t.error_message, t.checked_at,
           CASE WHEN t.up THEN 'active' ELSE 'error' END::registry.server_status AS wanted
      FROM turned AS t
     CROSS JOIN whole
     CROSS JOIN sent
     WHERE NOT t.rival
       AND CASE WHEN t.up THEN t.status = 'error'
                ELSE t.status = 'active'
                     -- None of its endpoints is up, or not checked yet.
                     AND NOT EXISTS (SELECT
                                       FROM registry.endpoints AS e
                                       LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
                                      WHERE e.server_id = t.server_id
                                        AND e.retired_at IS NULL
                                        AND e.conflict_at IS NULL
                                        AND CASE WHEN e.id = t.endpoint_id THEN false
                                                 WHEN e.id IN (SELECT endpoint_id FROM fresh WHERE up) THEN true
                                                 WHEN e.id IN (SELECT endpoint_id FROM fresh) THEN false
                                                 ELSE COALESCE(metrics.is_up(h.verdict), true) END)
                     AND NOT ((whole.suspect OR (t.away AND %(slot)s::timestamptz IS NULL))
                              AND EXISTS (SELECT
                                            FROM registry.endpoints AS e
                                            LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
                                           WHERE e.server_id = t.server_id
                                             AND GREATEST(h.up_at, CASE WHEN whole.suspect THEN e.moved_at END)
                                                 > sent.at - %(suspect_minutes)s * interval '1 minute')) END
     ORDER BY t.server_id, t.checked_at DESC
), change AS MATERIALIZED (
    SELECT *
      FROM due
     WHERE NOT EXISTS (SELECT
                         FROM metrics.status_transitions AS t
                        WHERE t.server_id = due.server_id
                          AND t.occurred_at > due.checked_at)
), changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = change.wanted
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
), several AS MATERIALIZED (
    SELECT t.server_id,
           bool_or(NOT t.up AND NOT (whole.suspect OR (t.away AND %(slot)s::timestamptz IS NULL))) AS may_fall
      FROM turned AS t
     CROSS JOIN whole
     WHERE t.before IS DISTINCT FROM t.verdict
       AND (SELECT count(*) FROM registry.endpoints AS e WHERE e.server_id = t.server_id AND e.retired_at IS NULL) > 1
     GROUP BY t.server_id
), times AS (
    SELECT metrics.bucket(response_time_ms) AS bucket, count(*)::integer AS n
      FROM made
     GROUP BY 1
), shard AS (
    INSERT INTO metrics.sweep_shards AS s (slot, shard, checked, up, gone, suspect, finished_at, buckets, counts)
    SELECT %(slot)s::timestamptz, %(shard)s, new.n, new.up,
           -- Not once more where the message is one that was written already.
           CASE WHEN new.n > 0 OR whole.n = 0 THEN %(servers)s - whole.n ELSE 0 END,
           whole.suspect, now(), hist.buckets, hist.counts
      FROM whole
     CROSS JOIN new
     CROSS JOIN (SELECT COALESCE(array_agg(bucket), '{}') AS buckets, COALESCE(array_agg(n), '{}') AS counts
                   FROM times) AS hist
     WHERE %(slot)s::timestamptz IS NOT NULL
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
       (SELECT at < now() - interval '15 seconds' FROM sent),
       (SELECT COALESCE(json_agg(server_id), '[]') FROM several),
       (SELECT COALESCE(json_agg(server_id), '[]') FROM several WHERE may_fall)
"""
# Either takes every row for new, and fails where one is there already; or asks of each. The first is the rule, because
# a message that comes twice is rare, and asking is dear (3.3 against 1.8 ms). The endpoints of a server may come in two
# messages, where those of a shard did not fit into one: its row is of the best of them all the same.
_ALL_NEW: LiteralString = """
), new AS (
    SELECT n, up
      FROM whole
), made AS (
    SELECT response_time_ms
      FROM best
     WHERE up
"""
_SOME_NEW: LiteralString = """
        ON CONFLICT (server_id, slot) DO NOTHING
    RETURNING m.server_id
), bettered AS (
    UPDATE metrics.server_health_metrics AS m
       SET verdict = best.verdict,
           response_time_ms = best.response_time_ms,
           status_code = best.status_code,
           error_message = best.error_message,
           checked_at = best.checked_at
      FROM best
     WHERE m.slot = %(slot)s::timestamptz
       AND m.server_id = best.server_id
       AND best.up
       AND NOT metrics.is_up(m.verdict)
    RETURNING m.server_id
), either AS (
    SELECT server_id, true AS inserted
      FROM written
     UNION ALL
    SELECT server_id, false
      FROM bettered
), new AS (
    SELECT count(*) FILTER (WHERE inserted) AS n, count(*) FILTER (WHERE up) AS up
      FROM best
      JOIN either USING (server_id)
), made AS (
    SELECT response_time_ms
      FROM best
      JOIN either USING (server_id)
     WHERE up
"""
WRITE: LiteralString = _FINDINGS + _ALL_NEW + _STATUSES
WRITE_AGAIN: LiteralString = _FINDINGS + _SOME_NEW + _STATUSES

# What is written side by side sees neither what the other does: findings that waited beside newer ones of the same
# servers, and those of two endpoints of one server. So it is looked once more: a server with an endpoint whose last
# check found it up is up; and one of `falling`, of which an endpoint has just been found down, is not where none is up
# or unchecked.
RECONCILE = """
WITH doubtful AS MATERIALIZED (
    SELECT id, status
      FROM registry.mcp_servers
     WHERE status = 'error'
       AND id = ANY (%(server_ids)s::bigint[])
     UNION ALL
    SELECT id, status
      FROM registry.mcp_servers
     WHERE status = 'active'
       AND id = ANY (%(falling)s::bigint[])
), wrong AS MATERIALIZED (
    SELECT d.id, d.status, last.verdict, last.up, last.checked_at,
           COALESCE(last.error_message, 'The server answered the check') AS reason
      FROM doubtful AS d
     CROSS JOIN LATERAL (SELECT h.verdict, metrics.is_up(h.verdict) AS up, h.checked_at, h.error_message
                           FROM registry.endpoints AS e
                           LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
                          WHERE e.server_id = d.id
                            AND e.retired_at IS NULL
                            AND e.conflict_at IS NULL
                          ORDER BY COALESCE(metrics.is_up(h.verdict), false) DESC, h.checked_at DESC NULLS FIRST
                          LIMIT 1) AS last
     WHERE last.up = (d.status = 'error')
), changed AS (
    UPDATE registry.mcp_servers AS s
       SET status = CASE WHEN wrong.up THEN 'active' ELSE 'error' END::registry.server_status
      FROM wrong
     WHERE s.id = wrong.id
       AND s.status = wrong.status
    RETURNING s.id, s.name, wrong.status AS from_status, s.status AS to_status, wrong.verdict, wrong.reason,
              wrong.checked_at
), transitions AS (
    INSERT INTO metrics.status_transitions (server_id, from_status, to_status, verdict, reason, occurred_at)
    SELECT id, from_status, to_status, verdict, reason, checked_at
      FROM changed
)
SELECT (SELECT count(*) FROM changed WHERE to_status = 'active')::integer,
       (SELECT count(*) FROM changed WHERE to_status = 'error')::integer,
       (SELECT json_agg(json_build_array(name, from_status, to_status, reason))
          FROM (SELECT name, from_status, to_status, reason FROM changed LIMIT 100) AS told)
"""

# Which of its endpoints a server uses follows from what was found of them.
USE_ENDPOINTS = "SELECT registry.use_endpoints(%(server_ids)s::bigint[])"

# What the prober of the release before found is of the endpoint that its server has.
ENDPOINTS_OF_SERVERS = """
SELECT COALESCE(json_agg(json_build_array(id, endpoint_id)), '[]')
  FROM registry.mcp_servers
 WHERE id = ANY (%(server_ids)s::bigint[])
   AND endpoint_id IS NOT NULL
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
    """What came of writing: how many servers have a new check, how many came back, how many were called down.

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
    return _write(database, findings.findings, sent_at, slot=findings.slot, shard=findings.shard)


def write_introduced(
    database: Database, findings: Sequence[Finding], asked_at: datetime, sent_at: datetime | None
) -> Written:
    """Write what introductions found, as `write` does with what a sweep found, but for metrics and figures of a sweep.

    `asked_at`: when the endpoints were read. None that was up a while ago is called down because it cannot be reached.
    """
    return _write(database, findings, sent_at, asked_at=asked_at)


def _write(
    database: Database,
    findings: Sequence[Finding],
    sent_at: datetime | None,
    *,
    slot: datetime | None = None,
    shard: int | None = None,
    asked_at: datetime | None = None,
) -> Written:
    unique = [*{one.endpoint_id: one for one in _of_endpoints(database, findings)}.values()]
    # Apart, because hardly any finding has it.
    seen = [(one.endpoint_id, [each._asdict() for each in one.evidence]) for one in unique if one.evidence]
    servers = {one.server_id for one in findings}
    server_ids = messages.array([*servers])
    parameters = {
        "slot": slot,
        "shard": shard,
        "servers": len(servers),
        "sent_at": sent_at,
        "asked_at": asked_at,
        "suspect_hosts": SUSPECT_HOSTS,
        "suspect_minutes": SUSPECT_MINUTES,
        "doubt_minutes": DOUBT_MINUTES,
        "sudden": SUDDEN,
        "told": TOLD,
        "kept": KEPT,
        "unreachable": messages.UNREACHABLE,
        "server_ids": messages.array([one.server_id for one in unique]),
        "endpoint_ids": messages.array([one.endpoint_id for one in unique]),
        "verdicts": f"{{{','.join(one.verdict for one in unique)}}}",
        "status_codes": messages.array([one.status_code for one in unique]),
        "response_times_ms": messages.array([one.response_time_ms for one in unique]),
        "errors": messages.texts([one.error for one in unique]),
        "ages_ms": messages.array([one.age_ms for one in unique]),
        "retries": messages.array([one.retry_after for one in unique]),
        "doubted": messages.array([one.endpoint_id for one in unique if one.in_doubt]),
        "evidence_of": messages.array([id_ for id_, _ in seen]),
        # Without blanks, as it is told: Postgres puts it into answers as it stands.
        "evidence": messages.texts([json.dumps(said, ensure_ascii=False, separators=(",", ":")) for _, said in seen]),
    }
    again = False
    try:
        row = database.write(WRITE, parameters)
    except psycopg.errors.CheckViolation:  # there is no partition for that day yet
        database.write(ADD_DAY, {"slot": slot})
        row = database.write(WRITE_AGAIN, parameters)
    except psycopg.errors.UniqueViolation:  # delivered twice, or a server whose other endpoints are written already
        again = True
        row = database.write(WRITE_AGAIN, parameters)
    assert row is not None
    checked, recovered, failed, suspect, changes, late, several, falling = row
    told = changes or []
    if late or falling:
        looked = database.write(
            RECONCILE,
            {"server_ids": server_ids if late else messages.array(several), "falling": messages.array(falling)},
        )
        assert looked is not None
        recovered += looked[0]
        failed += looked[1]
        told += looked[2] or []
    if several or again:  # who wrote it before may have ended in between
        database.write(USE_ENDPOINTS, {"server_ids": server_ids if again else messages.array(several)})
    return Written(checked, recovered, failed, suspect, [Change(*change) for change in told])


def _of_endpoints(database: Database, findings: Sequence[Finding]) -> Sequence[Finding]:
    """The findings with the endpoint that each is of; without those of servers that have none any more."""
    old = [one.server_id for one in findings if one.endpoint_id is None]
    if not old:
        return findings
    row = database.read(ENDPOINTS_OF_SERVERS, {"server_ids": messages.array(old)})
    assert row is not None
    endpoints: dict[int, int] = dict(row[0])
    return [
        one if one.endpoint_id is not None else one._replace(endpoint_id=endpoints[one.server_id])
        for one in findings
        if one.endpoint_id is not None or one.server_id in endpoints
    ]
