"""Introductions: writing what they found, and what was learnt of each endpoint by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

import psycopg

from mcp_registry.aws import observability
from mcp_registry.aws.db import Database
from mcp_registry.edge.background import Record
from mcp_registry.health import messages, results
from mcp_registry.health.messages import Introduced, Introductions

# What is kept of one introduction, as JSON. A client reads no more of a server's own words in one answer either.
MAX_INTRODUCTION = 64 * 1024

# What was learnt where a server is up or gated; where it is not, what was learnt before still holds when it comes back.
# An introduction that is older than the last one, or was asked for before the endpoint moved, says nothing. Of a gated
# server the last introduction that succeeded is kept. The next introduction is due from this one on, whoever asked
# for it: a new endpoint is not introduced once more because nothing had been learnt of it when it was sent out. Who
# says how long its list will do is asked then, or in a day. Who was found otherwise after it is left due when it is. Of
# one that offers what it did no introduction comes: the old one stays where it is, and is not written anew.
LEARN = """
WITH learnt AS (
    SELECT l.*, COALESCE(%(sent_at)s::timestamptz, now()) - l.age_ms * interval '1 millisecond' AS at
      FROM unnest(%(endpoint_ids)s::bigint[], %(ages_ms)s::integer[], %(pulses)s::text[], %(eras)s::text[],
                  %(introductions)s::text[], %(auths)s::text[], %(offered)s::text[], %(ttls_ms)s::integer[])
        AS l (endpoint_id, age_ms, pulse, era, introduction, auth, seen, ttl_ms)
), kept AS (
    UPDATE registry.endpoints AS e
       SET pulse = learnt.pulse,
           auth = learnt.auth::json,
           learnt_at = learnt.at,
           introduce_at = CASE WHEN EXISTS (SELECT
                                              FROM registry.endpoint_health AS h
                                             WHERE h.endpoint_id = e.id
                                               AND h.since > learnt.at)
                               THEN e.introduce_at
                               ELSE learnt.at
                                    + GREATEST(%(minutes)s * interval '1 minute' * (1 + e.id %% 61 / 600.0),
                                               LEAST(COALESCE(learnt.ttl_ms, 0), 86400000) * interval '1 millisecond')
                          END,
           era = COALESCE(learnt.era, e.era),
           introduced_at = CASE WHEN learnt.introduction IS NULL AND learnt.seen IS NULL THEN e.introduced_at
                                ELSE learnt.at END,
           introduction = COALESCE(learnt.introduction::json, e.introduction),
           seen_digest = COALESCE(decode(learnt.seen, 'hex'), e.seen_digest)
      FROM learnt
     WHERE e.id = learnt.endpoint_id
       AND COALESCE(e.learnt_at < learnt.at, true)
       AND e.moved_at <= %(asked_at)s::timestamptz
       AND e.retired_at IS NULL
    RETURNING e.id
)
SELECT count(*)::integer
  FROM kept
"""


def record(database: Database, message: Record) -> Introductions:
    """Write what the introductions of a message found and what was learnt of each endpoint; log what changed.

    Returns the introductions. They may be written any number of times, and in any order with others. Raises Malformed
    where the message holds none, Unavailable where the database cannot answer.
    """
    introductions = messages.introductions(message.body)
    findings = [one.finding for one in introductions.introduced]
    written = results.write_introduced(database, findings, introductions.asked_at, message.sent_at)
    learnt = _learn(database, message, introductions.asked_at, introductions.introduced)
    for change in written.changes:
        observability.log_change(*change)
    observability.log_introduced(len(findings), learnt, written.recovered, written.failed)
    return introductions


def _learn(database: Database, message: Record, asked_at: datetime, introduced: list[Introduced]) -> int:
    """Keep what was learnt of those that are up or gated; of how many it is new."""
    told = [one for one in introduced if one.finding.verdict in ("healthy", "gated")]
    try:
        return _keep(database, message, asked_at, told)
    except psycopg.DataError:  # of one of them, which is not to take the others along
        kept = 0
        for one in told:
            try:
                kept += _keep(database, message, asked_at, [one])
            except psycopg.DataError:
                reason = f"what was learnt of endpoint {one.finding.endpoint_id} is nothing that Postgres takes"
                observability.log_malformed(message.id, reason)
        return kept


def _keep(database: Database, message: Record, asked_at: datetime, told: list[Introduced]) -> int:
    if not told:
        return 0
    row = database.write(
        LEARN,
        {
            "asked_at": asked_at,
            "minutes": messages.introduce_minutes(),
            "sent_at": message.sent_at,
            "endpoint_ids": messages.array([one.finding.endpoint_id for one in told]),
            "ages_ms": messages.array([one.finding.age_ms for one in told]),
            "pulses": messages.texts([one.pulse for one in told]),
            "eras": messages.texts([one.era for one in told]),
            "introductions": messages.texts([_kept(message, one, one.introduction) for one in told]),
            "auths": messages.texts([_kept(message, one, one.auth) for one in told]),
            "offered": messages.texts([one.seen for one in told]),
            "ttls_ms": messages.array([one.ttl_ms for one in told]),
        },
    )
    assert row is not None
    return row[0]


def _kept(message: Record, introduced: Introduced, said: Mapping[str, object] | None) -> str | None:
    """What a server said, as JSON; None, and a line in the log, where it is too long to be kept."""
    if said is None:
        return None
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    length = len(text.encode())
    if length > MAX_INTRODUCTION:
        reason = f"what was learnt of endpoint {introduced.finding.endpoint_id} has {length:,} bytes"
        observability.log_malformed(message.id, f"{reason}, more than {MAX_INTRODUCTION:,}")
        return None
    return text
