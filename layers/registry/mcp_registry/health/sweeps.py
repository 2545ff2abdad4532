"""Sweeps: starting one, and adding up what came of it.

A sweep is known by its slot, the second at which it is due. Whoever starts it claims the slot in the database, so that
it is dispatched once however often the schedule, the queue and people ask for it; its servers are read at that moment.
Which slot it is too late for is decided by the clock of the database: the functions' clocks are not asked.
"""

from __future__ import annotations

import heapq
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import psycopg

from mcp_registry.aws import observability, queues
from mcp_registry.aws.db import Database
from mcp_registry.health import messages
from mcp_registry.health.messages import Endpoint, Shard, Tick

Outcome = Literal["started", "duplicate", "late", "early"]
# What each means, for whoever reads it.
MESSAGES: Mapping[Outcome, str] = {
    "started": "The checks are under way: what they find can be read in some seconds",
    "duplicate": "A sweep of this moment was started already: its checks are under way",
    "late": "The moment of this sweep is more than 30 seconds past: nothing was started",
    "early": "The moment of this sweep is more than 30 seconds ahead: nothing was started",
}

HALF_MINUTE = timedelta(seconds=30)
# What one function probes at a time; the engine has one descriptor for each, of the 1,024 that Lambda gives.
MAX_SHARD = 1_000
# More shards than any sweep has: how long a message gets is known before how many there are.
MOST = 999_999

NOW = "SELECT date_trunc('second', now())"

# The claim of a dispatcher that has died can be taken over after 15 s. Two slots less than 5 s apart are one: a
# schedule that fires twice, or a person who asks while a sweep begins. The URLs of an endpoint come from here and from
# `invitations.CLAIM`, and from nowhere else. Who was left out of the sweep before, because its host had more endpoints
# than are checked at once, comes first, longest ago before all: so each has its turn. Who was never checked waits since
# it came, and who asked to be left alone since that time is over; they go before nobody who waits longer: else new
# servers, registered again and again, would keep the others of their host from being checked.
START = """
WITH moment AS (
    SELECT CASE WHEN %(slot)s::timestamptz <= now() - interval '30 seconds' THEN 'late'
                WHEN %(slot)s::timestamptz > now() + interval '30 seconds' THEN 'early'
                ELSE 'timely' END AS timeliness
), claimed AS (
    INSERT INTO metrics.sweeps AS s (slot)
    SELECT %(slot)s::timestamptz
      FROM moment
     WHERE timeliness = 'timely'
       AND NOT EXISTS (SELECT
                         FROM metrics.sweeps AS near
                        WHERE near.slot > %(slot)s::timestamptz - interval '5 seconds'
                          AND near.slot < %(slot)s::timestamptz + interval '5 seconds'
                          AND near.slot <> %(slot)s::timestamptz)
        ON CONFLICT (slot) DO UPDATE
       SET claimed_at = now()
     WHERE s.dispatched_at IS NULL
       AND s.claimed_at < now() - interval '15 seconds'
    RETURNING slot
), due AS (
    SELECT e.server_id, e.id, e.url, e.health_url, e.pulse, e.era, h.verdict, waits.since,
           waits.since < %(slot)s::timestamptz - interval '35 seconds' AS missed
      FROM registry.endpoints AS e
      JOIN registry.mcp_servers AS s ON s.id = e.server_id
      LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
     CROSS JOIN LATERAL (SELECT GREATEST(COALESCE(h.checked_at, e.moved_at), h.ask_again_at) AS since) AS waits
     WHERE s.status <> 'inactive'
       AND e.retired_at IS NULL
       AND (h.ask_again_at > %(slot)s::timestamptz) IS NOT TRUE
       AND EXISTS (SELECT FROM claimed)
)
SELECT CASE WHEN timeliness <> 'timely' THEN timeliness
            WHEN EXISTS (SELECT FROM claimed) THEN 'started'
            ELSE 'duplicate' END,
       (SELECT COALESCE(json_agg(json_build_array(server_id, id, url, health_url, pulse, era, verdict)
                                 ORDER BY missed DESC, CASE WHEN missed THEN since END, server_id, id),
                        '[]')::text
          FROM due),
       (SELECT count(*) FROM due WHERE missed)
  FROM moment
"""

DISPATCHED = """
UPDATE metrics.sweeps
   SET dispatched_at = now(),
       servers = %(servers)s,
       shards = %(shards)s
 WHERE slot = %(slot)s
RETURNING slot
"""

# Adds the shards of every sweep whose half minute has long been over to its row, those that came after it had been
# settled too, and removes them.
SETTLE = """
WITH gone AS (
    DELETE FROM metrics.sweep_shards
     WHERE slot < now() - interval '90 seconds'
    RETURNING slot, checked, up, gone, suspect, finished_at, buckets, counts
), added AS (
    SELECT slot, sum(checked) AS checked, sum(up) AS up, sum(gone) AS gone, bool_or(suspect) AS suspect,
           max(finished_at) AS finished_at
      FROM gone
     GROUP BY slot
), times AS (
    SELECT slot, array_agg(bucket ORDER BY bucket) AS buckets, array_agg(n ORDER BY bucket) AS counts
      FROM (SELECT slot, bucket, sum(count)::integer AS n
              FROM (SELECT slot, unnest(buckets) AS bucket, unnest(counts) AS count
                      FROM gone
                     UNION ALL
                    SELECT s.slot, unnest(s.buckets), unnest(s.counts)
                      FROM metrics.sweeps AS s
                     WHERE s.slot IN (SELECT slot FROM gone)) AS pairs
             GROUP BY slot, bucket) AS summed
     GROUP BY slot
), settled AS (
    UPDATE metrics.sweeps AS s
       SET settled_at = now(),
           checked = s.checked + COALESCE(added.checked, 0),
           up = s.up + COALESCE(added.up, 0),
           gone = s.gone + COALESCE(added.gone, 0),
           suspect = s.suspect OR COALESCE(added.suspect, false),
           finished_at = GREATEST(s.finished_at, added.finished_at),
           buckets = COALESCE(times.buckets, s.buckets),
           counts = COALESCE(times.counts, s.counts)
      FROM metrics.sweeps AS before
      LEFT JOIN added USING (slot)
      LEFT JOIN times USING (slot)
     WHERE before.slot = s.slot
       AND (added.slot IS NOT NULL OR (s.settled_at IS NULL AND s.slot < now() - interval '90 seconds'))
    RETURNING s.servers - s.checked - s.gone AS unfinished, s.suspect, before.settled_at IS NULL AS first
)
SELECT COALESCE(sum(unfinished) FILTER (WHERE unfinished > 0), 0)::integer,
       count(*) FILTER (WHERE unfinished > 0)::integer,
       count(*) FILTER (WHERE suspect)::integer
  FROM settled
 WHERE first
"""

# An endpoint whose lease is over, and that the last check since has not found up. The one that its server uses is never
# retired, so that the last one of a server stays. All that this rests on is locked, and by that looked at once more:
# who has been found up meanwhile, or is the one to use by now, stays. What somebody is writing has a minute more.
RETIRE = """
WITH due AS MATERIALIZED (
    SELECT e.id, h.verdict
      FROM registry.endpoints AS e
      JOIN registry.mcp_servers AS s ON s.id = e.server_id
      JOIN registry.endpoints AS used ON used.id = s.endpoint_id
      JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
     WHERE e.lease_until < now()
       AND e.retired_at IS NULL
       AND used.id <> e.id
       AND used.retired_at IS NULL
       AND h.checked_at > e.lease_until
       AND NOT metrics.is_up(h.verdict)
       FOR NO KEY UPDATE SKIP LOCKED
), retired AS (
    UPDATE registry.endpoints AS e
       SET retired_at = now()
      FROM due
     WHERE e.id = due.id
    RETURNING e.server_id, e.id, e.url, due.verdict
), changes AS (
    INSERT INTO metrics.endpoint_changes (server_id, endpoint_id, url, change, verdict, reason)
    SELECT server_id, id, url, 'retired', verdict,
           'It has not announced itself for the length of its lease, and the last check did not find it up'
      FROM retired
)
SELECT count(*)::integer
  FROM retired
"""

# A server whose endpoint has gone while another one was chosen for it is not to keep that address.
USE_ENDPOINTS = """
SELECT registry.use_endpoints(ARRAY(SELECT s.id
                                      FROM registry.mcp_servers AS s
                                     WHERE NOT EXISTS (SELECT
                                                         FROM registry.endpoints AS e
                                                        WHERE e.id = s.endpoint_id
                                                          AND e.server_id = s.id
                                                          AND e.retired_at IS NULL)))
"""


class Started(NamedTuple):
    """What came of asking for a sweep: `servers` in so many `shards` were handed over where it was started."""

    slot: datetime
    outcome: Outcome
    servers: int = 0
    shards: int = 0

    def report(self) -> dict[str, Any]:
        """The form in which people and programs read it."""
        slot = self.slot.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "slot": slot,
            "result": self.outcome,
            "message": MESSAGES[self.outcome],
            "servers": self.servers,
            "shards": self.shards,
        }


def now(database: Database) -> datetime:
    """The slot of this moment: the database's clock, to the second."""
    row = database.read(NOW)
    assert row is not None
    return row[0]


def start(database: Database, slot: datetime) -> Started:
    """Hand the endpoints of every server that is not inactive to the probe queue, as the sweep of this slot.

    Endpoints that have retired, or asked to be left alone until later, are not among them. Raises Unavailable where the
    database or the queue is not to be had; the same slot may then be started again.
    """
    try:
        row = database.write(START, {"slot": slot})
    except psycopg.errors.ExclusionViolation:  # somebody began another within 5 s, at this very moment
        row = ("duplicate", "[]", 0)
    assert row is not None
    outcome, endpoints_json, missed = row
    if outcome != "started":
        observability.log_sweep(slot.isoformat(), outcome, 0)
        return Started(slot, outcome)
    endpoints = [Endpoint(*endpoint) for endpoint in json.loads(endpoints_json)]
    servers = len({endpoint.server_id for endpoint in endpoints})
    shards = _sharded(slot, endpoints, missed)
    for place, body in enumerate(shards):
        # The group is also what the message is known by: a shard that is sent again is not delivered again.
        queues.send(os.environ["PROBE_QUEUE_URL"], body, group=f"{slot.timestamp():.0f}-{place}")
    database.begin().write(DISPATCHED, {"slot": slot, "servers": servers, "shards": len(shards)})
    observability.log_sweep(slot.isoformat(), outcome, servers)
    return Started(slot, "started", servers, len(shards))


def minute(database: Database, event: object) -> list[Started]:
    """Start the two sweeps of a minute: the one that a schedule's event asks for, and the one half a minute later.

    The later one is asked for by a message that is delayed, and its servers are read when it comes. It is asked for
    first, so that a failure of the one is none of the other; where the event is late, it is started here, or late too.
    An event without a time that can be read means now. Raises Unavailable as `start` does.
    """
    slot = _time_of(event)
    if slot is None:
        slot = now(database)
    queues.send(os.environ["TICK_QUEUE_URL"], messages.encode(Tick(slot + HALF_MINUTE)))
    started = [start(database.begin(), slot)]
    if started[0].outcome == "late":
        started.append(start(database.begin(), slot + HALF_MINUTE))
    settle(database.begin())
    return started


def settle(database: Database) -> None:
    """Add up the sweeps that are over, and report the servers that one of them did not get to."""
    row = database.write(SETTLE)
    assert row is not None
    unfinished, sweeps, suspect = row
    if sweeps:
        observability.log_unfinished(unfinished, sweeps)
    if suspect:
        observability.log_suspect(suspect)


def retire(database: Database) -> int:
    """Check no more the endpoints that nobody announces and no check finds; how many those are.

    A server that uses an endpoint which it does not have is given one that it has. Raises Unavailable where the
    database cannot answer.
    """
    row = database.write(RETIRE)
    assert row is not None
    database.write(USE_ENDPOINTS)
    return row[0]


def _sharded(slot: datetime, endpoints: list[Endpoint], missed: int = 0) -> list[str]:
    """The endpoints as messages that each fit into the queue, all of about the same length.

    A shard is judged by itself when most of its servers seem to fail. So none is a rest of three, which that would not
    protect; and each is a sample of the whole, because neighbours in the order often are on one host. The endpoints of
    a server are in one. The first `missed` endpoints come first in each.
    """
    parts = list(_cut(slot, endpoints, missed, -(-len(endpoints) // MAX_SHARD)))
    return [
        messages.encode(Shard(slot, place, first=first, shards=len(parts), endpoints=part))
        for place, (part, first) in enumerate(parts)
    ]


def _cut(slot: datetime, endpoints: list[Endpoint], missed: int, count: int) -> Iterator[tuple[list[Endpoint], int]]:
    """The endpoints in so many parts, of which those that are too long are halved; how many of each were missed.

    One endpoint that is longer than a message is given up: the others are to be checked.
    """
    for part, first in _dealt(endpoints, missed, count):
        whole = messages.encode(Shard(slot, MOST, first=first, shards=MOST, endpoints=part))
        if len(part) <= MAX_SHARD and len(whole.encode()) <= queues.MAX_BODY:
            yield part, first
        elif len(part) > 1:
            yield from _cut(slot, part, first, 2)


def _dealt(endpoints: list[Endpoint], missed: int, count: int) -> list[tuple[list[Endpoint], int]]:
    """The endpoints in their order, dealt to so many parts: each server to the one that has the least.

    A server alone is taken apart, since its addresses may be longer than a message.
    """
    sizes = Counter(endpoint.server_id for endpoint in endpoints)
    apart = len(sizes) == 1
    emptiest = [(0, place) for place in range(count)]
    places: dict[int, int] = {}
    parts: list[list[Endpoint]] = [[] for _ in range(count)]
    first = [0] * count
    for number, endpoint in enumerate(endpoints):
        one = endpoint.id if apart else endpoint.server_id
        if one not in places:
            size, places[one] = emptiest[0]
            heapq.heapreplace(emptiest, (size + (1 if apart else sizes[one]), places[one]))
        place = places[one]
        parts[place].append(endpoint)
        first[place] += number < missed
    return [(part, first[place]) for place, part in enumerate(parts) if part]


def _time_of(event: object) -> datetime | None:
    """The `time` of a scheduled event ("EventBridge event structure"), or None."""
    time = event.get("time") if isinstance(event, dict) else None
    try:
        moment = datetime.fromisoformat(time) if isinstance(time, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
