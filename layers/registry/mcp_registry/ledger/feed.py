"""The feed: what changed in what servers offer, which came, went, rose and fell, in the order of numbers.

Who comes again with the last number that it was told misses nothing: no change comes later with a lower one. Of a
server whose changes have to be approved of, what a stranger wrote is told to those alone who decide about it or own it:
a text that nobody has approved of is to lead nobody's agent, not from here either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from mcp_registry.aws.db import Database
from mcp_registry.caller import MAX_TEAM, Caller
from mcp_registry.catalogue import offers, servers
from mcp_registry.edge.http import MAX_ID, MAX_NAME
from mcp_registry.errors import Fault, ServerNotFound
from mcp_registry.ledger import query

# From the one that matters least.
GRADES: Final = ("notation", "text", "compatible", "breaking", "alarming")
KINDS: Final = (
    *("tool", "prompt", "resource", "template", "instructions", "server_info", "protocol_versions", "capabilities"),
    *("unstable", "registered", "removed", "status", "review"),
)
PARAMETERS: Final = ("after", "limit", "grade", "kind", "server", "owner")
# Where one server is asked for by the path.
OF_ONE: Final = ("after", "limit", "grade", "kind")
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000

# The number up to which every change is there that ever will be. Asked before the page and apart from it: a statement
# does not see what is committed after it began, and this is about what is over by now.
SETTLED = "SELECT registry.settled_entry('registry.changes', 17224)"

# Bytes of the changes of a page: Lambda answers with 6 MB at most, and the client reads 4 MiB.
MAX_BYTES: Final = 2_000_000

# One more than is asked for says whether another page follows. The first change is told however long it is.
#
# What is withheld is decided by the policy alone, and not by what was approved: a text that was rejected and taken back
# would be told else. Nobody knows any more which policy a server had that has gone.
PAGE = """
SELECT '[' || COALESCE(string_agg(json, ',' ORDER BY sequence) FILTER (WHERE fits), '') || ']',
       CASE WHEN count(*) FILTER (WHERE NOT fits) > 0 THEN max(sequence) FILTER (WHERE fits) END,
       %(id)s::bigint IS NULL OR EXISTS (SELECT FROM registry.mcp_servers WHERE id = %(id)s)
                              OR EXISTS (SELECT FROM registry.changes WHERE server_id = %(id)s)
  FROM (SELECT sequence, json, row_number() OVER so_far <= %(limit)s
                               AND (row_number() OVER so_far = 1
                                    OR sum(octet_length(json)) OVER so_far <= %(bytes)s) AS fits
          FROM (SELECT c.id AS sequence, row_to_json(told)::text AS json
                  FROM (SELECT *
                          FROM registry.changes
                         WHERE id > %(after)s
                           AND id <= %(settled)s
                           AND (%(id)s::bigint IS NULL OR server_id = %(id)s)
                           AND (%(server)s::varchar IS NULL OR name = %(server)s)
                           AND (%(owner)s::varchar IS NULL OR owner = %(owner)s)
                           AND (%(kind)s::varchar IS NULL OR kind = %(kind)s)
                           AND (%(grade)s::registry.grade IS NULL OR grade >= %(grade)s::registry.grade)
                         ORDER BY id
                         LIMIT %(limit)s + 1) AS c
                  LEFT JOIN registry.mcp_servers AS s ON s.id = c.server_id
                  LEFT JOIN registry.ledger AS l ON l.server_id = c.server_id
                 CROSS JOIN LATERAL (
                       SELECT c.source IS NOT NULL
                              AND NOT (%(curates)s OR COALESCE(s.owner, c.owner) = %(caller_team)s)
                              AND CASE WHEN l.server_id IS NOT NULL THEN COALESCE(l.policy, %(policy)s::registry.policy)
                                  END IS DISTINCT FROM 'auto' AS withheld) AS w
                 CROSS JOIN LATERAL (
                       SELECT c.id AS sequence, registry.rfc3339(c.occurred_at) AS at, c.server_id, c.name AS server,
                              c.owner, c.source, c.kind, c.grade, w.withheld,
                              CASE WHEN NOT w.withheld THEN c.subject END AS subject,
                              CASE WHEN NOT w.withheld THEN c.before END AS before,
                              CASE WHEN NOT w.withheld THEN c.after END AS after,
                              CASE WHEN w.withheld THEN '{}' ELSE c.reasons END AS reasons) AS told) AS one
        WINDOW so_far AS (ORDER BY sequence ROWS UNBOUNDED PRECEDING)) AS page
"""


class Page(NamedTuple):
    """A checked request for one page of changes: those that follow `after`, of this grade or a worse one."""

    after: int
    limit: int
    grade: str | None
    kind: str | None
    server: str | None
    owner: str | None


def parse_page(asked: Mapping[str, str], parameters: Sequence[str] = PARAMETERS) -> Page:
    """The page that a query asks for, of a route with these parameters. Raises ValidationFailed with every fault."""
    faults: list[Fault] = query.unknown(asked, parameters)
    page = Page(
        query.number(asked, "after", 0, MAX_ID, 0, faults),
        query.number(asked, "limit", 1, MAX_LIMIT, DEFAULT_LIMIT, faults),
        query.word(asked, "grade", GRADES, faults),
        query.word(asked, "kind", KINDS, faults),
        query.text(asked, "server", MAX_NAME, faults),
        query.text(asked, "owner", MAX_TEAM, faults),
    )
    query.refuse(faults)
    return page


def read(database: Database, caller: Caller, page: Page, server: int | str | None = None) -> str:
    """One page of changes as JSON text, of all servers or of one, oldest first.

    `next_after`: after which the next page starts; null where there is none yet. `last`: with which to come again. A
    server that has gone is found by its id. Raises ServerNotFound where there never was one.
    """
    id_ = None if server is None else servers.identify(database, server)
    settled = database.read(SETTLED)
    assert settled is not None
    given = page._asdict() | {
        "id": id_,
        "settled": settled[0],
        "bytes": MAX_BYTES,
        "caller_team": caller.team,
        "curates": caller.may("curator"),
        "policy": offers.policy(),
    }
    # Planned anew: the filters are optional.
    row = database.read(PAGE, given, plan_anew=True)
    assert row is not None
    changes, next_after, is_known = row
    if not is_known:
        raise ServerNotFound
    # Where nothing follows, all is seen up to what is settled, whatever was filtered out.
    last = next_after or max(settled[0], page.after)
    return f'{{"changes":{changes},"next_after":{next_after or "null"},"last":{last}}}'
