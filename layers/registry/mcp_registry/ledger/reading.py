"""What a server offers, as it is handed out, declares it or was seen to, now or at a time; and having it looked at now.

Postgres renders the JSON. What stands in a column of type json is joined as text, as it was received: to look into it
would fail on what Postgres cannot make a text of, such as an escaped NUL, which json holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, LiteralString, NamedTuple

from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.catalogue import offers, servers
from mcp_registry.errors import Fault, Forbidden, InactiveServer, ServerNotFound, SnapshotNotFound
from mcp_registry.health import announcing
from mcp_registry.ledger import query

SOURCES: Final = ("declared", "observed")
PARAMETERS: Final = ("source", "as_of", "after", "limit")
MAX_LIMIT: Final = 10_000
# More than any snapshot has: each of its documents takes two bytes of the 4 MiB that an introduction reads.
MAX_POSITION: Final = 10_000_000
# Bytes of the documents of a page: Lambda answers with 6 MB at most, in which each quotation mark counts twice.
MAX_BYTES: Final = 2_000_000

# RFC 3339, section 5.6.
MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})")

# Of what a server says of itself besides its lists. A longer one is left out.
MAX_ABOUT: Final = 1_000_000


def _list(name: LiteralString) -> LiteralString:
    """A list of a page; null where it is not known."""
    return f"CASE WHEN snapshot.{name} IS NULL THEN 'null' ELSE '[' || COALESCE(page.{name}, '') || ']' END"


# Without a source, what is handed out. Whoever may not decide and does not own the server sees of another source what
# is that word for word, and else nothing.
#
# The documents of all lists are numbered through, tools first, so that one number says where a page begins. A document
# that no answer has room for is counted in its place.
OFFER: LiteralString = f"""
WITH server AS (
    SELECT s.id, s.name, e.introduced_at, {offers.SERVED} AS served_id,
           %(curates)s OR s.owner = %(caller_team)s
           OR COALESCE(l.policy, %(policy)s::registry.policy) = 'auto' AS is_open
      FROM registry.mcp_servers AS s
      LEFT JOIN registry.ledger AS l ON l.server_id = s.id
      LEFT JOIN registry.endpoints AS e ON e.id = s.endpoint_id
     WHERE s.id = %(id)s
), snapshot AS (
    SELECT server.name, n.*,
           is_open
           OR COALESCE(n.digest = (SELECT digest FROM registry.snapshots WHERE id = served_id), false) AS is_told,
           COALESCE(n.last_seen, CASE n.source WHEN 'declared' THEN now() ELSE introduced_at END) AS seen_until
      FROM server
      JOIN registry.snapshots AS n
        ON n.id = CASE WHEN %(source)s::registry.source IS NULL THEN served_id
                       ELSE (SELECT past.id
                               FROM registry.snapshots AS past
                              WHERE past.server_id = server.id
                                AND past.source = %(source)s::registry.source
                                AND past.first_seen <= COALESCE(%(as_of)s::timestamptz, 'infinity')
                              ORDER BY past.first_seen DESC, past.id DESC
                              LIMIT 1) END
), item AS (
    SELECT list, digest, row_number() OVER (ORDER BY list, place) AS position
      FROM (SELECT 1 AS list, t.digest, t.place FROM snapshot, unnest(tools) WITH ORDINALITY AS t (digest, place)
             UNION ALL
            SELECT 2, p.digest, p.place FROM snapshot, unnest(prompts) WITH ORDINALITY AS p (digest, place)
             UNION ALL
            SELECT 3, r.digest, r.place FROM snapshot, unnest(resources) WITH ORDINALITY AS r (digest, place)
             UNION ALL
            SELECT 4, t.digest, t.place FROM snapshot, unnest(templates) WITH ORDINALITY AS t (digest, place)) AS one
), shown AS (
    SELECT list, position, CASE WHEN bytes <= %(bytes)s THEN json END AS json,
           position <= %(after)s + %(limit)s
           AND sum(CASE WHEN bytes <= %(bytes)s THEN bytes ELSE 0 END)
               OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) <= %(bytes)s AS fits
      FROM (SELECT list, position, json, octet_length(json) AS bytes
              FROM (SELECT item.list, item.position, d.document::text AS json
                      FROM (SELECT * FROM item
                             WHERE position > %(after)s
                             ORDER BY position
                             LIMIT %(limit)s + 1) AS item
                      JOIN registry.documents AS d ON d.digest = item.digest) AS found) AS measured
), page AS (
    SELECT string_agg(json, ',' ORDER BY position) FILTER (WHERE list = 1) AS tools,
           string_agg(json, ',' ORDER BY position) FILTER (WHERE list = 2) AS prompts,
           string_agg(json, ',' ORDER BY position) FILTER (WHERE list = 3) AS resources,
           string_agg(json, ',' ORDER BY position) FILTER (WHERE list = 4) AS templates,
           count(*) FILTER (WHERE json IS NULL) AS left_out, max(position) AS last
      FROM shown
     WHERE fits
)
SELECT server.name, snapshot.is_told,
       CASE WHEN is_told
            THEN concat('{{"server":', to_json(server.name), ',"server_id":', server.id,
                        ',"source":"', source, '","digest":"', encode(digest, 'hex'),
                        '","prompt":"', encode(prompt, 'hex'),
                        '","first_seen":"', registry.rfc3339(first_seen),
                        '","last_seen":', COALESCE('"' || registry.rfc3339(seen_until) || '"', 'null'),
                        ',"version":', COALESCE(to_json(version)::text, 'null'),
                        CASE WHEN about::text LIKE '{{"%%' AND octet_length(about::text) <= %(about_bytes)s
                             THEN ',' || substr(left(about::text, -1), 2) END,
                        ',"tools":', {_list("tools")}, ',"prompts":', {_list("prompts")},
                        ',"resources":', {_list("resources")}, ',"templates":', {_list("templates")},
                        ',"left_out":', page.left_out + (octet_length(about::text) > %(about_bytes)s)::integer,
                        ',"next_after":', CASE WHEN EXISTS (SELECT FROM shown WHERE NOT fits)
                                               THEN page.last::text ELSE 'null' END, '}}') END
  FROM server
  LEFT JOIN snapshot ON true
 CROSS JOIN page
"""  # noqa: S608 - of literals

# The endpoint in use, where it may be visited; the row tells all that there is to say where it may not. Each request
# that asks is answered, and one of them in two seconds sends somebody, with the headers that were given for the server.
LOOK = """
WITH server AS (
    SELECT id, name, owner, status, endpoint_id, %(curates)s OR owner = %(caller_team)s AS is_theirs
      FROM registry.mcp_servers
     WHERE id = %(id)s
), asked AS (
    UPDATE registry.endpoints AS e
       SET visited_at = statement_timestamp(),
           introduce_at = now() + interval '30 seconds'
      FROM server
     WHERE e.id = server.endpoint_id
       AND server.is_theirs
       AND server.status <> 'inactive'
       AND COALESCE(e.visited_at < now() - interval '2 seconds', true)
    RETURNING e.id
)
SELECT server.name, server.owner, server.is_theirs, server.status = 'inactive',
       registry.rfc3339(CASE WHEN asked.id IS NULL THEN e.visited_at ELSE statement_timestamp() END),
       asked.id IS NOT NULL, now(), server.id, e.id, e.url, e.health_url, e.era, h.verdict::text, e.pulse,
       encode(e.seen_digest, 'hex'),
       (SELECT p.secret::text
          FROM registry.probe_headers AS p
         WHERE p.server_id = server.id
           AND p.given_at IS NOT NULL
           AND p.ended_at IS NULL
         ORDER BY p.given_at DESC
         LIMIT 1)
  FROM server
  JOIN registry.endpoints AS e ON e.id = server.endpoint_id
  LEFT JOIN registry.endpoint_health AS h ON h.endpoint_id = e.id
  LEFT JOIN asked ON true
"""


class Offer(NamedTuple):
    """A checked request for what a server offers: of which source, as it was when, from which document on."""

    source: str | None
    as_of: datetime | None
    after: int
    limit: int


def parse_offer(asked: Mapping[str, str]) -> Offer:
    """What a query asks for. Raises ValidationFailed with every fault."""
    faults: list[Fault] = query.unknown(asked, PARAMETERS)
    source = query.word(asked, "source", SOURCES, faults)
    moment = asked.get("as_of") or None
    as_of = None
    if moment is not None:
        try:
            if not MOMENT.fullmatch(moment):
                raise ValueError
            as_of = datetime.fromisoformat(moment.upper())
        except ValueError:
            faults.append(Fault("as_of", "Must be a time of RFC 3339, as 2026-12-01T00:00:00Z", "value"))
        if source is None:
            faults.append(Fault("as_of", "Belongs to a source: what is handed out is told as it is now", "value"))
    after = query.number(asked, "after", 0, MAX_POSITION, 0, faults)
    limit = query.number(asked, "limit", 1, MAX_LIMIT, MAX_LIMIT, faults)
    query.refuse(faults)
    return Offer(source, as_of, after, limit)


def refuse_parameters(asked: Mapping[str, str]) -> None:
    """Raise ValidationFailed where a route that has no parameters is given some."""
    query.refuse(query.unknown(asked))


def tools(database: Database, caller: Caller, server: int | str, offer: Offer) -> str:
    """What a server offers, as JSON text: its tools and all else that a client would see.

    `next_after`: with which to come again for the documents that follow; null after the last one. `left_out`: how many
    had no room in any answer. Raises ServerNotFound; SnapshotNotFound where there is nothing of this source, was
    nothing at that time, or nothing is handed out; Forbidden where it is not handed out and the caller may not see it.
    """
    given = {
        **offer._asdict(),
        "id": servers.identify(database, server),
        "bytes": MAX_BYTES,
        "about_bytes": MAX_ABOUT,
        "caller_team": caller.team,
        "curates": caller.may("curator"),
        "policy": offers.policy(),
    }
    row = database.read(OFFER, given)
    if row is None:
        raise ServerNotFound
    name, is_told, told = row
    if is_told is None:
        raise SnapshotNotFound(_missing(name, offer))
    if not is_told:
        raise Forbidden(
            f"This credential may not do that: what {name} offers beside what is handed out waits for an approval, and"
            " is for curators, administrators and the team that owns it"
        )
    return told


def _missing(name: str, offer: Offer) -> str:
    """The sentence about an offer that there is none of."""
    nothing = SnapshotNotFound.__doc__
    if offer.source is None:
        return f"{nothing}: nothing that {name} offers is handed out"
    was = "was" if offer.as_of else "is"
    known = f"nothing {was} known of what {name}"
    return f"{nothing}: {known} {'declares' if offer.source == 'declared' else 'was seen to offer'}"


def look_now(database: Database, caller: Caller, server: int | str) -> dict[str, Any]:
    """Have the endpoint that a server uses introduced to now; since when somebody is on the way.

    Raises ServerNotFound, Forbidden where it is another team's and the caller no curator, and InactiveServer.
    """
    given = {
        "id": servers.identify(database, server),
        "caller_team": caller.team,
        "curates": caller.may("curator"),
    }
    row = database.write(LOOK, given)
    if row is None:
        raise ServerNotFound
    name, owner, is_theirs, is_inactive, asked_at, is_asked, *visit = row
    if not is_theirs:
        servers.check_owner(database, caller, name, owner)
    if is_inactive:
        raise InactiveServer
    if is_asked:
        announcing.at_once((visit[0], *visit[1:]))
    return {"server": name, "asked_at": asked_at}
