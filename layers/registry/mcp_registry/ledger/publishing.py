"""What somebody should know at once goes to an event bus: each change that breaks or alarms, and of a status or review.

At least once, and those of a server in their order. How far a bus was told is a row of its own, which is written after
the events of a page were taken: who dies before that repeats the page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from mcp_registry.aws import events, observability
from mcp_registry.aws.db import Database
from mcp_registry.aws.events import Event
from mcp_registry.errors import Unavailable

SOURCE: Final = "mcp-registry"
KINDS: Final = {"status": "Server status changed", "review": "Server review changed"}
# Changes of a page. What is repeated where a run dies is a page at most.
PAGE: Final = 100
# So long a run begins with another page. The next one, a minute later, goes on.
SECONDS: Final = 30.0
# An event that the bus has not taken is sent again, so often in all, before the run is given up.
TRIES: Final = 3

# As the feed does: up to which number there are all changes that ever will be. 17224 is in the table's trigger as well.
SETTLED = "SELECT registry.settled_entry('registry.changes', 17224)"

# A bus that is new is told what comes from now on, and not all that ever was.
BEGIN = """
WITH begun AS (
    INSERT INTO registry.published (bus, through)
    VALUES (%(bus)s, %(through)s)
        ON CONFLICT (bus) DO NOTHING
    RETURNING through
)
SELECT through FROM begun
 UNION ALL
SELECT through FROM registry.published WHERE bus = %(bus)s
 LIMIT 1
"""

# Of a tool there is its name, and nothing else that a stranger wrote; ten of the longest are less than PutEvents takes.
UNPUBLISHED = """
SELECT COALESCE(json_agg(told ORDER BY (told->>'sequence')::bigint), '[]')
  FROM (SELECT json_build_object('sequence', id, 'at', registry.rfc3339(occurred_at), 'server_id', server_id,
                                 'server', name, 'owner', owner, 'source', source, 'kind', kind, 'subject', subject,
                                 'grade', grade,
                                 'reasons', ARRAY(SELECT left(reason, 300)
                                                    FROM unnest(reasons) WITH ORDINALITY AS one (reason, place)
                                                   ORDER BY place
                                                   LIMIT 5),
                                 'before', CASE kind WHEN 'status' THEN before->>'status'
                                                     WHEN 'review' THEN before->>'state' END,
                                 'after', CASE kind WHEN 'status' THEN after->>'status'
                                                    WHEN 'review' THEN after->>'state' END) AS told
          FROM registry.changes
         WHERE id > %(after)s
           AND id <= %(settled)s
           AND (grade >= 'breaking' OR kind IN ('status', 'review'))
         ORDER BY id
         LIMIT %(limit)s) AS page
"""

# Of two runs at once the one that comes second takes nothing back.
NOTE = """
UPDATE registry.published
   SET through = %(through)s,
       published_at = now()
 WHERE bus = %(bus)s
   AND through < %(through)s
RETURNING through
"""


class Change(NamedTuple):
    """A change that is to be published: its number, its server, and the event."""

    sequence: int
    server: int
    event: Event


def run(database: Database, bus: str, registry_url: str) -> int:
    """Put what was not published yet on the bus, and say how many changes that were.

    `registry_url` is where links begin. Raises Unavailable where the bus does not take an event after some tries, or
    the database does not answer; all before that event is noted, and the next run begins with it.
    """
    settled = _one(database.read(SETTLED))
    through = _one(database.write(BEGIN, {"bus": bus, "through": settled}))
    published = 0
    begun = time.monotonic()
    while through < settled and time.monotonic() - begun < SECONDS:
        found = database.begin().read(UNPUBLISHED, {"after": through, "settled": settled, "limit": PAGE})
        page = [_change(told, registry_url) for told in _one(found)]
        waiting = _put(bus, page)
        # A page that is not full is the last one.
        through = page[-1].sequence if len(page) == PAGE else settled
        if waiting:
            through = waiting[0].sequence - 1
        database.begin().write(NOTE, {"bus": bus, "through": through})
        published += len(page) - len(waiting)
        if waiting:
            raise Unavailable("EventBridge refused an event")
    observability.log_published(published, through)
    return published


def _put(bus: str, page: Sequence[Change]) -> list[Change]:
    """Put changes on the bus, those of a server one after the other, and give those that it has not taken, in order."""
    waiting = list(page)
    refusals = 0
    while waiting and refusals < TRIES:
        # The first of each server: a later one would overtake it if it alone were taken.
        first: dict[int, Change] = {}
        for change in waiting:
            first.setdefault(change.server, change)
        sent = list(first.values())[: events.MOST]
        try:
            taken = events.put(bus, SOURCE, [change.event for change in sent])
        except Unavailable:
            if waiting == page:
                raise  # which says why
            taken = [False] * len(sent)
            refusals = TRIES
        refusals += not all(taken)
        gone = {change.sequence for change, is_taken in zip(sent, taken, strict=True) if is_taken}
        waiting = [change for change in waiting if change.sequence not in gone]
    return waiting


def _change(told: dict[str, Any], registry_url: str) -> Change:
    """What is said of a change. The texts of a stranger are not in it: who wants them follows the link."""
    sequence, server = told["sequence"], told["server_id"]
    links = {
        "server": f"{registry_url}/api/registry/servers/{server}",
        "change": f"{registry_url}/api/registry/changes?after={sequence - 1}&limit=1",
    }
    kind = KINDS.get(told["kind"], "Server offer changed")
    detail = {key: value for key, value in told.items() if value is not None} | {"links": links}
    return Change(sequence, server, Event(told["at"], kind, json.dumps(detail, ensure_ascii=False)))


def _one(row: tuple[Any, ...] | None) -> Any:
    assert row is not None
    return row[0]
