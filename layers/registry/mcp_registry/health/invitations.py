"""Invitations: choosing to which endpoints the registry is introduced, and sending those visits out.

An endpoint has a moment when it is to be introduced again. Whoever takes it sets the next one by the same statement, so
that it is visited once however many ask; a visit that is lost comes again by that.
"""

from __future__ import annotations

import os

from mcp_registry.aws import queues
from mcp_registry.aws.db import Database
from mcp_registry.health import messages
from mcp_registry.health.messages import Visit, Visits

# How many are taken in half a minute. When a network comes back so do all servers on it at once: 10,000 of them are
# introduced within five minutes, and not in one moment.
MAX_DUE = 1_000
# What one function makes introductions to.
MAX_VISITS = 50

# Who is down or limited is left to the sweep, which looks each half minute: its next moment is set all the same, so
# that the index is not full of them. One of which nothing was learnt yet is asked for again soon, because its visit may
# be lost. The moments of endpoints that came together drift apart, by a tenth at most.
CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id
      FROM registry.endpoints
     WHERE introduce_at <= now()
       AND retired_at IS NULL
     ORDER BY introduce_at
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE registry.endpoints AS e
       SET introduce_at = now() + CASE WHEN e.learnt_at IS NULL THEN LEAST(interval '2 minutes', after.time)
                                       ELSE after.time END * (1 + e.id %% 61 / 600.0)
      FROM (SELECT %(minutes)s * interval '1 minute' AS time) AS after
     WHERE e.id = ANY (ARRAY(SELECT id FROM due))
    RETURNING e.server_id, e.id, e.url, e.health_url, e.era, e.pulse, e.seen_digest
)
SELECT now(),
       COALESCE(json_agg(json_build_array(c.server_id, c.id, c.url, c.health_url, c.era, h.verdict, c.pulse,
                                          encode(c.seen_digest, 'hex'))
                         ORDER BY c.url), '[]')
  FROM claimed AS c
  JOIN registry.mcp_servers AS s ON s.id = c.server_id
  LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = c.id
 WHERE s.status <> 'inactive'
   AND COALESCE(h.verdict IN ('healthy', 'gated'), true)
"""

# A visit that was not sent: in the next half minute.
PUT_BACK = """
WITH due AS (
    UPDATE registry.endpoints
       SET introduce_at = now()
     WHERE id = ANY (%(ids)s::bigint[])
    RETURNING id
)
SELECT count(*)::integer
  FROM due
"""


def claim(database: Database, limit: int, minutes: int) -> Visits:
    """The endpoints that are to be introduced now, `limit` at most; the next time is in so many minutes.

    Endpoints of one host are neighbours. Raises Unavailable where the database cannot answer.
    """
    row = database.write(CLAIM, {"limit": limit, "minutes": minutes})
    assert row is not None
    asked_at, visits = row
    return Visits(asked_at, [Visit(*visit) for visit in visits])


def dispatch(database: Database) -> int:
    """Send the visits that are due to the queue of introductions; how many those are.

    Raises Unavailable where the database or the queue is not to be had. Visits that were not sent are due again.
    """
    url = os.environ["INTRODUCE_QUEUE_URL"]
    due = claim(database, MAX_DUE, messages.introduce_minutes())
    left = due.endpoints
    try:
        for part in _parts(due):
            queues.send(url, messages.encode(part))
            left = left[len(part.endpoints) :]
    finally:
        if left:
            database.begin().write(PUT_BACK, {"ids": messages.array([visit.id for visit in left])})
    return len(due.endpoints)


def _parts(visits: Visits) -> list[Visits]:
    """The visits in messages of at most MAX_VISITS that each fit into the queue, in their order."""
    parts: list[Visits] = []
    rest = [visits.endpoints[start : start + MAX_VISITS] for start in range(0, len(visits.endpoints), MAX_VISITS)]
    while rest:
        part = Visits(visits.asked_at, rest.pop(0))
        if len(messages.encode(part).encode()) <= queues.MAX_BODY:
            parts.append(part)
        else:
            middle = len(part.endpoints) // 2
            rest[:0] = [part.endpoints[:middle], part.endpoints[middle:]]
    return parts
