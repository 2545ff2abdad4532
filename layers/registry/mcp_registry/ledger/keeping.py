"""What the ledger keeps, and for how long: snapshots, changes, and the documents that a snapshot has.

As in `health.maintenance`, every step is a statement of its own that may be repeated: a run that is cut short loses
nothing, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString, NamedTuple

from mcp_registry.aws import observability
from mcp_registry.aws.db import Database

# A step may take this long. A sixteenth of a million documents beside 49,000 snapshots took 0.6 s (2026-12-01).
STEP_SECONDS = 60.0
# Documents are looked through by the first digit of their digests (registry.drop_documents).
SLICES = 16
MOST = 50_000

# A snapshot goes where another one of its source had taken its place before the time from which on everything is kept:
# at that time it was not there any more. What is handed out stays, however old it is, and so does what a curator has
# approved of.
DROP_SNAPSHOTS = """
WITH bound AS MATERIALIZED (
    SELECT now() - make_interval(days => %(days)s) AS kept_from
), gone AS (
    DELETE FROM registry.snapshots
     WHERE id = ANY (ARRAY(SELECT s.id
                             FROM registry.snapshots AS s
                            WHERE s.last_seen < (SELECT kept_from FROM bound)
                              AND EXISTS (SELECT
                                            FROM registry.snapshots AS next
                                           WHERE next.server_id = s.server_id
                                             AND next.source = s.source
                                             AND (next.first_seen, next.id) > (s.first_seen, s.id)
                                             AND next.first_seen <= (SELECT kept_from FROM bound))
                              AND NOT EXISTS (SELECT
                                                FROM registry.ledger AS l
                                               WHERE l.server_id = s.server_id
                                                 AND s.id IN (l.declared_id, l.observed_id, l.compatible_id,
                                                              l.approved_id))
                              AND NOT EXISTS (SELECT
                                                FROM registry.approvals AS a
                                               WHERE a.server_id = s.server_id
                                                 AND a.digest = s.prompt
                                                 AND a.decision = 'approve')
                            LIMIT %(most)s))
    RETURNING id
)
SELECT count(*)::integer
  FROM gone
"""

DROP_CHANGES = """
WITH gone AS (
    DELETE FROM registry.changes
     WHERE ctid = ANY (ARRAY(SELECT ctid
                               FROM registry.changes
                              WHERE occurred_at < now() - make_interval(days => %(days)s)
                              LIMIT %(most)s))
    RETURNING id
)
SELECT count(*)::integer
  FROM gone
"""

DROP_DOCUMENTS = "SELECT registry.drop_documents(%(slice)s, %(most)s)"


class Forgotten(NamedTuple):
    """What one run deleted."""

    snapshots: int
    changes: int
    documents: int


def run(database: Callable[[float], Database], days: int) -> Forgotten:
    """Delete what is older than so many days, but for what somebody may still ask for, and documents that nobody has.

    What a server offered can be asked as of any time within these days. `database` gives the database with so many
    seconds for a statement (`mcp_registry.aws.db.database`). Raises Unavailable where a step could not be done in time;
    what was done until then stays.
    """
    forgotten = Forgotten(
        _all(database, DROP_SNAPSHOTS, days=days),
        _all(database, DROP_CHANGES, days=days),
        # Of a server that was removed too, whose snapshots went with it.
        sum(_all(database, DROP_DOCUMENTS, slice=slice_) for slice_ in range(SLICES)),
    )
    observability.log_forgotten(**forgotten._asdict())
    return forgotten


def _all(database: Callable[[float], Database], statement: LiteralString, **parameters: Any) -> int:
    """How many rows a statement deleted that deletes some of them, repeated until none is left."""
    deleted = 0
    while True:
        row = database(STEP_SECONDS).write(statement, {**parameters, "most": MOST})
        assert row is not None
        deleted += row[0]
        if row[0] == 0:
            return deleted
