"""What is known of health: of one server over a period, and of all of them over the last day.

Postgres renders the JSON, by row_to_json: json_agg and json_build_object would put blanks into it, which nothing else
of the registry does. A day is read check by check; a week and a month from the hourly roll-ups and, for the days that
are not folded yet, from their checks. So no answer costs more after a year than on the first day.

Moments are compared with sub-selects and not by a join: that is what lets Postgres leave out the days that are not
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final, LiteralString, NamedTuple

from mcp_registry.aws.db import Database
from mcp_registry.errors import Fault, ServerNotFound, ValidationFailed


class Period(NamedTuple):
    """How far back to look, and how long each point of the series is."""

    length: LiteralString
    point: LiteralString


PERIODS: Final[Mapping[str, Period]] = {
    "24h": Period("24 hours", "15 minutes"),
    "7d": Period("7 days", "1 hour"),
    "30d": Period("30 days", "6 hours"),
}
DEFAULT_PERIOD = "24h"

# As servers.DETAIL has it, which the function that reads all servers does not load.
_LAST_CHECK: LiteralString = """CASE WHEN h.endpoint_id IS NOT NULL
                    THEN (SELECT row_to_json(seen)
                            FROM (SELECT h.verdict, h.status_code, h.response_time_ms, h.error_message,
                                         registry.rfc3339(h.checked_at) AS checked_at,
                                         registry.rfc3339(h.since) AS since, h.times) AS seen) END AS last_check"""

# What became of the endpoints of a server. It is longer than a list of transitions, because it holds what was asked and
# answered.
_CHANGES: LiteralString = """changes AS (
    SELECT registry.rfc3339(c.occurred_at) AS at, c.url, c.change, c.from_verdict AS "from", c.verdict, c.reason,
           c.evidence, c.more
      FROM metrics.endpoint_changes AS c
     WHERE c.server_id = %(id)s
       AND c.occurred_at >= (SELECT since FROM bounds)
     ORDER BY c.occurred_at DESC, c.id DESC
     LIMIT 100"""

# Uptime is cut off, not rounded: one failure in a million checks must not read as 100 %. Percentiles are of the checks
# that found the server up: a refused connection is quick, and says nothing of how fast a server is. (trim_scale: 97.6,
# and not 97.600.)
CHECKS: LiteralString = f"""
WITH bounds AS (
    SELECT now() - %(length)s::interval AS since, now() AS until
), checks AS MATERIALIZED (
    SELECT m.slot, m.response_time_ms, metrics.is_up(m.verdict) AS up
      FROM metrics.server_health_metrics AS m
     WHERE m.server_id = %(id)s
       AND m.slot >= (SELECT since FROM bounds)
), whole AS (
    SELECT count(*) AS checks, count(*) FILTER (WHERE up) AS up,
           percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY response_time_ms) FILTER (WHERE up) AS percentiles,
           max(response_time_ms) FILTER (WHERE up) AS max_ms
      FROM checks
), points AS (
    SELECT date_bin(%(point)s::interval, slot, '2000-01-01Z') AS at, count(*) AS checks,
           count(*) FILTER (WHERE up) AS up,
           percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY response_time_ms) FILTER (WHERE up) AS percentiles
      FROM checks
     GROUP BY 1
), series AS (
    SELECT registry.rfc3339(moment) AS at, COALESCE(points.checks, 0) AS checks, COALESCE(points.up, 0) AS up,
           points.percentiles[1] AS p50_ms, points.percentiles[2] AS p95_ms
      FROM bounds
     CROSS JOIN generate_series(date_bin(%(point)s::interval, bounds.since, '2000-01-01Z'), bounds.until,
                                %(point)s::interval) AS moment
      LEFT JOIN points ON points.at = moment
     ORDER BY moment
), transitions AS (
    SELECT registry.rfc3339(t.occurred_at) AS at, t.from_status AS "from", t.to_status AS "to", t.verdict, t.reason
      FROM metrics.status_transitions AS t
     WHERE t.server_id = %(id)s
       AND t.occurred_at >= (SELECT since FROM bounds)
     ORDER BY t.occurred_at DESC, t.id DESC
     LIMIT 100
), {_CHANGES}
)
SELECT row_to_json(answer)::text
  FROM (SELECT s.id AS server_id, s.name, s.status, %(period)s::text AS period,
               registry.rfc3339(bounds.since) AS since, registry.rfc3339(bounds.until) AS until,
               whole.checks, whole.up,
               trim_scale(trunc(100.0 * whole.up / NULLIF(whole.checks, 0), 3)) AS uptime_percent,
               whole.percentiles[1] AS p50_ms, whole.percentiles[2] AS p95_ms, whole.max_ms,
               {_LAST_CHECK},
               ARRAY(SELECT transitions FROM transitions) AS transitions, ARRAY(SELECT changes FROM changes) AS changes,
               ARRAY(SELECT series FROM series) AS series
          FROM registry.mcp_servers AS s
          LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = s.endpoint_id
         CROSS JOIN bounds
         CROSS JOIN whole
         WHERE s.id = %(id)s) AS answer
"""  # noqa: S608 - of literals

# As CHECKS, but of hours. Percentiles are of the summed buckets, to 2.5 %. A period begins with a whole hour.
HOURS: LiteralString = f"""
WITH bounds AS (
    SELECT date_trunc('hour', now() - %(length)s::interval) AS since, now() AS until,
           -- Not beyond today, whatever a clock once said.
           COALESCE((SELECT max(day) + 1
                       FROM metrics.folded_days
                      WHERE day < (now() AT TIME ZONE 'UTC')::date)::timestamp AT TIME ZONE 'UTC', '-infinity')
           AS folded
), hours AS MATERIALIZED (
    SELECT h.hour, h.checks, h.up, h.max_ms, h.buckets, h.counts
      FROM metrics.server_health_hours AS h
     WHERE h.server_id = %(id)s
       AND h.hour >= (SELECT since FROM bounds)
       AND h.hour < (SELECT folded FROM bounds)
     UNION ALL
    SELECT raw.hour, sum(raw.n)::integer, COALESCE(sum(raw.n) FILTER (WHERE raw.bucket IS NOT NULL), 0)::integer,
           max(raw.max_ms), COALESCE(array_agg(raw.bucket) FILTER (WHERE raw.bucket IS NOT NULL), '{{}}'),
           COALESCE(array_agg(raw.n) FILTER (WHERE raw.bucket IS NOT NULL), '{{}}')
      FROM (SELECT date_trunc('hour', m.slot) AS hour,
                   CASE WHEN metrics.is_up(m.verdict) THEN metrics.bucket(m.response_time_ms) END AS bucket,
                   count(*)::integer AS n,
                   max(CASE WHEN metrics.is_up(m.verdict) THEN m.response_time_ms END) AS max_ms
              FROM metrics.server_health_metrics AS m
             WHERE m.server_id = %(id)s
               AND m.slot >= (SELECT GREATEST(since, folded) FROM bounds)
             GROUP BY 1, 2) AS raw
     GROUP BY raw.hour
), times AS MATERIALIZED (
    SELECT date_bin(%(point)s::interval, hour, '2000-01-01Z') AS at, unnest(buckets) AS bucket, unnest(counts) AS n
      FROM hours
), ranked AS (
    SELECT GROUPING(at) = 1 AS whole, at, bucket, sum(sum(n)) OVER running AS rank,
           sum(sum(n)) OVER (PARTITION BY GROUPING(at), at) AS n
      FROM times
     GROUP BY GROUPING SETS ((at, bucket), (bucket))
    WINDOW running AS (PARTITION BY GROUPING(at), at ORDER BY bucket)
), percentiles AS (
    SELECT whole, at, metrics.bucket_value(min(bucket) FILTER (WHERE rank >= 0.5 * n)) AS p50_ms,
           metrics.bucket_value(min(bucket) FILTER (WHERE rank >= 0.95 * n)) AS p95_ms
      FROM ranked
     GROUP BY whole, at
), points AS (
    SELECT date_bin(%(point)s::interval, hour, '2000-01-01Z') AS at, sum(checks) AS checks, sum(up) AS up
      FROM hours
     GROUP BY 1
), series AS (
    SELECT registry.rfc3339(moment) AS at, COALESCE(points.checks, 0) AS checks, COALESCE(points.up, 0) AS up,
           p.p50_ms, p.p95_ms
      FROM bounds
     CROSS JOIN generate_series(date_bin(%(point)s::interval, bounds.since, '2000-01-01Z'), bounds.until,
                                %(point)s::interval) AS moment
      LEFT JOIN points ON points.at = moment
      LEFT JOIN percentiles AS p ON NOT p.whole AND p.at = moment
     ORDER BY moment
), transitions AS (
    SELECT registry.rfc3339(t.occurred_at) AS at, t.from_status AS "from", t.to_status AS "to", t.verdict, t.reason
      FROM metrics.status_transitions AS t
     WHERE t.server_id = %(id)s
       AND t.occurred_at >= (SELECT since FROM bounds)
     ORDER BY t.occurred_at DESC, t.id DESC
     LIMIT 100
), {_CHANGES}
), whole AS (
    SELECT COALESCE(sum(checks), 0) AS checks, COALESCE(sum(up), 0) AS up, max(max_ms) AS max_ms
      FROM hours
)
SELECT row_to_json(answer)::text
  FROM (SELECT s.id AS server_id, s.name, s.status, %(period)s::text AS period,
               registry.rfc3339(bounds.since) AS since, registry.rfc3339(bounds.until) AS until,
               whole.checks, whole.up,
               trim_scale(trunc(100.0 * whole.up / NULLIF(whole.checks, 0), 3)) AS uptime_percent,
               LEAST(p.p50_ms, whole.max_ms) AS p50_ms, LEAST(p.p95_ms, whole.max_ms) AS p95_ms, whole.max_ms,
               {_LAST_CHECK},
               ARRAY(SELECT transitions FROM transitions) AS transitions, ARRAY(SELECT changes FROM changes) AS changes,
               ARRAY(SELECT series FROM series) AS series
          FROM registry.mcp_servers AS s
          LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = s.endpoint_id
         CROSS JOIN bounds
         CROSS JOIN whole
          LEFT JOIN percentiles AS p ON p.whole
         WHERE s.id = %(id)s) AS answer
"""  # noqa: S608 - of literals

# Of all servers. Sweeps that are not settled yet are read from their shards. Statuses are counted as they change; what
# the checks find is counted here, by an index that a check which finds a server as before does not touch. Endpoints of
# servers that are out of service are taken off, because these are few. Times are read by the hour, but for the hour
# that the day cuts in two: sweep by sweep they were three quarters of what all of this takes (2026-11-30).
ALL = """
WITH counts AS (
    SELECT status, sum(servers)::bigint AS n
      FROM registry.server_counts
     GROUP BY status
), verdicts AS (
    SELECT verdict, count(*) AS n
      FROM registry.endpoint_verdicts
     GROUP BY verdict
     UNION ALL
    SELECT v.verdict, -count(*)
      FROM registry.mcp_servers AS s
      JOIN registry.endpoints AS e ON e.server_id = s.id
      JOIN registry.endpoint_verdicts AS v ON v.endpoint_id = e.id
     WHERE s.status = 'inactive'
     GROUP BY v.verdict
), endpoints AS (
    SELECT COALESCE(sum(n), 0) AS total, COALESCE(sum(n) FILTER (WHERE metrics.is_up(verdict)), 0) AS up,
           COALESCE(sum(n) FILTER (WHERE NOT metrics.is_up(verdict)), 0) AS down,
           COALESCE(sum(n) FILTER (WHERE verdict IS NULL), 0) AS unknown
      FROM verdicts
), used AS (
    SELECT count(*) FILTER (WHERE checked AND status = 'active') AS frozen,
           count(*) FILTER (WHERE NOT checked AND status IS NOT NULL) AS unknown
      -- A sub-select for each and no join, which would read all servers for the few.
      FROM (SELECT v.checked, (SELECT s.status
                                 FROM registry.mcp_servers AS s
                                WHERE s.endpoint_id = v.endpoint_id) AS status
              FROM (SELECT endpoint_id, true AS checked
                      FROM registry.endpoint_verdicts
                     WHERE verdict = ANY (ARRAY(SELECT one
                                                  FROM unnest(enum_range(NULL::metrics.verdict)) AS one
                                                 WHERE NOT metrics.is_up(one)))
                     UNION ALL
                    SELECT endpoint_id, false
                      FROM registry.endpoint_verdicts
                     WHERE verdict IS NULL) AS v) AS few
), bounds AS (
    SELECT now() - interval '24 hours' AS since,
           date_bin('1 hour', now() - interval '24 hours', '2000-01-01Z') + interval '1 hour' AS whole_hours
), results AS MATERIALIZED (
    SELECT slot, checked, up, gone, suspect, finished_at
      FROM metrics.sweeps
     WHERE slot >= now() - interval '24 hours'
     UNION ALL
    SELECT slot, checked, up, gone, suspect, finished_at
      FROM metrics.sweep_shards
     WHERE slot >= now() - interval '24 hours'
), times AS (
    SELECT bucket, n
      FROM metrics.sweep_times
     WHERE hour >= (SELECT whole_hours FROM bounds)
     UNION ALL
    SELECT unnest(buckets), unnest(counts)
      FROM metrics.sweeps
     WHERE slot >= (SELECT since FROM bounds)
       AND slot < (SELECT whole_hours FROM bounds)
     UNION ALL
    SELECT unnest(buckets), unnest(counts)
      FROM metrics.sweep_shards
     WHERE slot >= (SELECT since FROM bounds)
), ranked AS (
    SELECT bucket, sum(sum(n)) OVER (ORDER BY bucket) AS rank, sum(sum(n)) OVER () AS n
      FROM times
     GROUP BY bucket
), percentiles AS (
    SELECT metrics.bucket_value(min(bucket) FILTER (WHERE rank >= 0.5 * n)) AS p50_ms,
           metrics.bucket_value(min(bucket) FILTER (WHERE rank >= 0.95 * n)) AS p95_ms,
           metrics.bucket_value(min(bucket) FILTER (WHERE rank >= 0.99 * n)) AS p99_ms
      FROM ranked
), whole AS (
    SELECT sum(checked) AS checks, sum(up) AS up
      FROM results
), sweeps AS (
    SELECT count(*) AS n,
           COALESCE(sum(GREATEST(servers - checked - gone, 0)) FILTER (WHERE settled_at IS NOT NULL), 0) AS unchecked
      FROM metrics.sweeps
     WHERE slot >= now() - interval '24 hours'
), last AS (
    SELECT s.slot, s.dispatched_at, s.servers, sum(r.checked) AS checked, sum(r.up) AS up,
           sum(r.gone) AS gone, bool_or(r.suspect) AS suspect, max(r.finished_at) AS finished_at
      FROM metrics.sweeps AS s
      JOIN results AS r USING (slot)
     WHERE s.slot = (SELECT max(slot) FROM results WHERE finished_at IS NOT NULL)
     GROUP BY s.slot
)
SELECT row_to_json(answer)::text
  FROM (SELECT (SELECT row_to_json(c)
                  FROM (SELECT COALESCE(sum(n) FILTER (WHERE status = 'active'), 0) AS active,
                               COALESCE(sum(n) FILTER (WHERE status = 'inactive'), 0) AS inactive,
                               COALESCE(sum(n) FILTER (WHERE status = 'error'), 0) AS error,
                               (SELECT frozen FROM used) AS frozen, (SELECT unknown FROM used) AS unknown,
                               COALESCE(sum(n), 0) AS total
                          FROM counts) AS c) AS servers,
               (SELECT row_to_json(endpoints) FROM endpoints) AS endpoints,
               (SELECT row_to_json(d)
                  FROM (SELECT sweeps.n AS sweeps, COALESCE(whole.checks, 0) AS checks, COALESCE(whole.up, 0) AS up,
                               trim_scale(trunc(100.0 * whole.up / NULLIF(whole.checks, 0), 3)) AS uptime_percent,
                               p.p50_ms, p.p95_ms, p.p99_ms, sweeps.unchecked
                          FROM whole
                         CROSS JOIN percentiles AS p
                         CROSS JOIN sweeps) AS d) AS last_24h,
               (SELECT row_to_json(l)
                  FROM (SELECT registry.rfc3339(slot) AS slot, servers, checked, up, checked - up AS failed,
                               GREATEST(servers - checked - gone, 0) AS unchecked, suspect,
                               registry.rfc3339(dispatched_at) AS dispatched_at,
                               registry.rfc3339(finished_at) AS finished_at
                          FROM last) AS l) AS last_sweep) AS answer
"""


def parse_period(query: Mapping[str, str]) -> str:
    """The period that a query asks for. Raises ValidationFailed where it is none of `PERIODS`, or asks for more."""
    refuse_unknown(query, {"period"})
    period = query.get("period", DEFAULT_PERIOD)
    if period not in PERIODS:
        raise ValidationFailed(faults=[Fault("period", f"Must be one of {', '.join(PERIODS)}", "enum")])
    return period


def refuse_unknown(query: Mapping[str, str], known: Set[str] = frozenset()) -> None:
    """Raise ValidationFailed where a query has parameters besides the known ones: they may be misspelt."""
    if faults := [Fault(name, "There is no such parameter", "unknown") for name in query if name not in known]:
        raise ValidationFailed(faults=faults)


def of_server(database: Database, id_: int, period: str) -> str:
    """What the checks of one server found over a period (a key of `PERIODS`), as JSON text. Raises ServerNotFound."""
    length, point = PERIODS[period]
    statement = CHECKS if period == "24h" else HOURS
    row = database.read(statement, {"id": id_, "period": period, "length": length, "point": point}, plan_anew=True)
    if row is None:
        raise ServerNotFound
    return row[0]


def of_all(database: Database) -> str:
    """How many servers have which status, what a day of checks found, and what the last sweep did, as JSON text."""
    row = database.read(ALL)
    assert row is not None
    return row[0]
