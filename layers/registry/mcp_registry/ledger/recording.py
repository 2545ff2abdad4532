"""Recording: what servers declare and what introductions found of them, as snapshots and changes.

A server that offers what it did costs a look at the ledger and no row. Only of another offer is the one before read,
the changes between the two are graded, and everything is written by one statement that compares the revision of the
ledger's row: of two that record at once the second reads again.

What an introduction sends was made by a function that talks to strangers. It is held against the bounds that such an
introduction has, and its digests are computed here once more.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString, NamedTuple, cast

import psycopg

from mcp_registry.aws import observability
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import canonical, fingerprint, offers
from mcp_registry.catalogue.offers import CURRENT, DECIDED
from mcp_registry.edge.background import Record
from mcp_registry.errors import Malformed, Unavailable
from mcp_registry.health import messages
from mcp_registry.health.messages import Introduced, Introductions
from mcp_registry.ledger import grades, policies
from mcp_registry.ledger.grades import Change, Offer

# The bounds of an introduction (`dial.introduction`), which this does not load.
MAX_ITEMS: Final = 2_000
MAX_DEPTH: Final = 64
# Change rows of one comparison. Where there are more, a row for each kind says how many of each grade.
MAX_CHANGES: Final = 500
MAX_SUBJECT: Final = 2_048
MAX_VERSION: Final = 255
# Flux: one more for each look that finds another offer than the look before, four less for each that finds the same.
# From six on a server is unstable: six changes in six looks, or two in one (`Introduced.wavers`).
MAX_FLUX: Final = 8
UNSTABLE: Final = 6
CALMER: Final = 4
UNSTEADY: Final = "Its offer was another one at nearly each look: nothing is recorded before it stays the same"
# A name that more servers have than this is nobody's: `search` is not taken from anybody.
MAX_SHARED: Final = 3
# Servers whose declared offer is recorded with a message, besides those of the message.
MAX_DECLARED: Final = 50
# Each lost race means that another one has written.
MAX_RACES: Final = 20
# In the place of the id that a snapshot is about to get.
NEW: Final = 0
# By what each list is known, and the kind of its changes.
LISTS: Final = fingerprint.KEYS

# Where the servers of endpoints stand that were introduced, those left out of which a later introduction was kept, or
# whose server uses another endpoint; and whether somebody gave headers for the server.
STANDING = """
WITH introduced AS (
    SELECT i.place, i.endpoint_id,
           COALESCE(%(sent_at)s::timestamptz, now()) - i.age_ms * interval '1 millisecond' AS at
      FROM unnest(%(endpoint_ids)s::bigint[], %(ages_ms)s::integer[])
           WITH ORDINALITY AS i (endpoint_id, age_ms, place)
)
SELECT json_agg(json_build_array(i.place - 1, s.id, i.at, l.state, l.reason, l.flux, encode(n.digest, 'hex'),
                                 EXISTS (SELECT
                                           FROM registry.probe_headers AS p
                                          WHERE p.server_id = s.id
                                            AND p.given_at IS NOT NULL
                                            AND p.ended_at IS NULL)))
  FROM introduced AS i
  JOIN registry.endpoints AS e ON e.id = i.endpoint_id
  JOIN registry.mcp_servers AS s ON s.endpoint_id = e.id
  LEFT JOIN registry.ledger AS l ON l.server_id = s.id
  LEFT JOIN registry.snapshots AS n ON n.id = l.observed_id
 WHERE e.retired_at IS NULL
   AND e.learnt_at <= i.at
   AND e.moved_at <= %(asked_at)s::timestamptz
"""

# Which servers of a message, and some more, declare another offer than the ledger has.
UNDECLARED = """
SELECT array_agg(id)
  FROM (SELECT id
          FROM registry.mcp_servers
         WHERE offer_digest IS DISTINCT FROM ledger_digest
         ORDER BY id = ANY (%(ids)s::bigint[]) DESC, id
         LIMIT %(limit)s + cardinality(%(ids)s::bigint[])) AS undeclared
"""

# What recording an offer goes by. `decided`: the last decision about the review digest of the current snapshot.
BASIS: LiteralString = f"""
SELECT l.revision, l.state, l.reason, l.flux, l.policy::text, l.declared_id, l.observed_id,
       declared.digest, observed.digest, declared.tools_prompt, observed.tools_prompt, now.prompt,
       l.compatible_id, compatible.prompt, l.approved_id, approved.prompt, {DECIDED}
  FROM registry.mcp_servers AS s
  LEFT JOIN registry.ledger AS l ON l.server_id = s.id
  LEFT JOIN registry.snapshots AS declared ON declared.id = l.declared_id
  LEFT JOIN registry.snapshots AS observed ON observed.id = l.observed_id
  LEFT JOIN registry.snapshots AS now ON now.id = {CURRENT}
  LEFT JOIN registry.snapshots AS compatible ON compatible.id = l.compatible_id
  LEFT JOIN registry.snapshots AS approved ON approved.id = l.approved_id
 WHERE s.id = %(id)s
"""  # noqa: S608 - of literals

# The last decision about a review digest, and the snapshot that it was made about.
DECISION = """
SELECT decision::text, snapshot_id
  FROM registry.approvals
 WHERE server_id = %(id)s
   AND digest = %(digest)s
 ORDER BY id DESC
 LIMIT 1
"""

# An offer: what is about all of it, and of each list the documents with their digests, as texts. A list that is empty
# is known, unlike one that is null. What was not known then is as it was known last: else who has a list fail at one
# look could change it unseen until the next.
_KNOWN_LAST: LiteralString = """COALESCE(n.{0}, (SELECT past.{0}
                                                     FROM registry.snapshots AS past
                                                    WHERE past.server_id = n.server_id
                                                      AND past.source = n.source
                                                      AND past.id < n.id
                                                      AND past.{0} IS NOT NULL
                                                    ORDER BY past.id DESC
                                                    LIMIT 1))"""
SNAPSHOT: LiteralString = f"""
SELECT n.about, listed[1], listed[2], listed[3], listed[4]
  FROM registry.snapshots AS n
 CROSS JOIN LATERAL (
       SELECT array_agg(documents ORDER BY place) AS listed
         FROM (VALUES (1, n.tools),
                      (2, {_KNOWN_LAST.format("prompts")}),
                      (3, {_KNOWN_LAST.format("resources")}),
                      (4, {_KNOWN_LAST.format("templates")})) AS list (place, digests)
        CROSS JOIN LATERAL (
              SELECT CASE WHEN list.digests IS NOT NULL
                          THEN COALESCE(json_agg(json_build_array(encode(d.digest, 'hex'), encode(d.raw, 'hex'),
                                                                  encode(d.prompt, 'hex'), encode(d.contract, 'hex'),
                                                                  d.document::text) ORDER BY item.place), '[]') END
                     AS documents
                FROM unnest(list.digests) WITH ORDINALITY AS item (digest, place)
                JOIN registry.documents AS d ON d.digest = item.digest) AS item) AS listed
 WHERE n.id = %(id)s
"""  # noqa: S608 - of literals

# What a server declares: its tools in the spelling of a registration.
DECLARED = """
SELECT s.offer_digest, s.version, s.updated_at, tool.tools
  FROM registry.mcp_servers AS s
 CROSS JOIN LATERAL (
       SELECT json_agg(json_build_array(name, title, description, input_schema, output_schema, annotations, category,
                                        extra) ORDER BY position, id) AS tools
         FROM registry.tools
        WHERE server_id = s.id) AS tool
 WHERE s.id = %(id)s
   AND s.offer_digest IS DISTINCT FROM s.ledger_digest
"""

# Which of these names tools of a few other servers have.
SHARED = """
SELECT array_agg(name::text)
  FROM (SELECT name
          FROM registry.tools
         WHERE name = ANY (%(names)s::text[])
           AND server_id <> %(id)s
         GROUP BY name
        HAVING count(*) <= %(limit)s) AS shared
"""

# An offer that is another one: the ledger's row, where it is as it was read, and all that hangs on it. Documents go in
# in one order, so that no two who write the same ones wait for each other. 0 stands for the id of the new snapshot.
WRITE = """
WITH next AS MATERIALIZED (
    SELECT nextval('registry.snapshots_id_seq') AS id
), entry AS (
    INSERT INTO registry.ledger AS l
           (server_id, declared_id, observed_id, state, reason, flux, agrees, compatible_id, approved_id)
    SELECT s.id, CASE WHEN %(source)s = 'declared' THEN next.id END,
           CASE WHEN %(source)s = 'observed' THEN next.id END, %(state)s, %(reason)s, %(flux)s, %(agrees)s,
           CASE %(compatible_id)s::bigint WHEN 0 THEN next.id ELSE %(compatible_id)s END,
           CASE %(approved_id)s::bigint WHEN 0 THEN next.id ELSE %(approved_id)s END
      FROM registry.mcp_servers AS s
     CROSS JOIN next
     WHERE s.id = %(id)s
        ON CONFLICT (server_id) DO UPDATE
       SET declared_id = COALESCE(excluded.declared_id, l.declared_id),
           observed_id = COALESCE(excluded.observed_id, l.observed_id),
           state = excluded.state,
           reason = excluded.reason,
           flux = excluded.flux,
           agrees = excluded.agrees,
           compatible_id = excluded.compatible_id,
           approved_id = excluded.approved_id,
           revision = l.revision + 1,
           changed_at = now()
     WHERE l.revision = %(revision)s::integer
    RETURNING l.server_id
), server AS (
    SELECT s.id, s.name, s.owner
      FROM entry
      JOIN registry.mcp_servers AS s ON s.id = entry.server_id
), documents AS (
    INSERT INTO registry.documents (digest, raw, prompt, contract, document)
    SELECT d.digest, d.raw, d.prompt, d.contract, d.document::json
      FROM server
     CROSS JOIN unnest(%(digests)s::bytea[], %(raws)s::bytea[], %(prompts)s::bytea[], %(contracts)s::bytea[],
                       %(documents)s::text[]) AS d (digest, raw, prompt, contract, document)
     ORDER BY d.digest
        ON CONFLICT (digest) DO NOTHING
), superseded AS (
    UPDATE registry.snapshots AS n
       SET last_seen = GREATEST(%(at)s::timestamptz, n.first_seen)
      FROM server
     WHERE n.server_id = server.id
       AND n.id = %(superseded)s::bigint
), snapshot AS (
    INSERT INTO registry.snapshots
           (id, server_id, source, digest, prompt, tools_raw, tools_prompt, tools_contract, first_seen, version, about,
            tools, prompts, resources, templates)
           OVERRIDING SYSTEM VALUE
    SELECT next.id, server.id, %(source)s::registry.source, %(digest)s, %(prompt)s, %(tools_raw)s, %(tools_prompt)s,
           %(tools_contract)s, %(at)s, %(version)s, %(about)s::json, %(tools_list)s::bytea[], %(prompts_list)s::bytea[],
           %(resources_list)s::bytea[], %(templates_list)s::bytea[]
      FROM server
     CROSS JOIN next
), told AS (
    INSERT INTO registry.changes (server_id, name, owner, source, kind, subject, grade, before, after, reasons)
    SELECT server.id, server.name, server.owner, c.source::registry.source, c.kind, c.subject, c.grade::registry.grade,
           c.before::json, c.after::json, ARRAY(SELECT json_array_elements_text(c.reasons::json))
      FROM server
     CROSS JOIN unnest(%(sources)s::text[], %(kinds)s::text[], %(subjects)s::text[], %(grades)s::text[],
                       %(befores)s::text[], %(afters)s::text[], %(reasons)s::text[])
                WITH ORDINALITY AS c (source, kind, subject, grade, before, after, reasons, place)
     ORDER BY c.place
), declared AS (
    UPDATE registry.mcp_servers AS s
       SET ledger_digest = %(offer_digest)s
      FROM server
     WHERE s.id = server.id
       AND %(source)s = 'declared'
)
SELECT id
  FROM server
"""

# What is declared is what the ledger has, although it was registered anew: another description, say.
SETTLE = """
UPDATE registry.mcp_servers
   SET ledger_digest = %(offer_digest)s
 WHERE id = %(id)s
RETURNING id
"""

# How a server was found, where no other offer is to be recorded. `is_asked`: all of it is asked for, at the next visit,
# which is due.
NOTE = """
WITH entry AS (
    INSERT INTO registry.ledger AS l (server_id, state, reason, flux)
    SELECT id, %(state)s, %(reason)s, %(flux)s
      FROM registry.mcp_servers
     WHERE id = %(id)s
        ON CONFLICT (server_id) DO UPDATE
       SET state = excluded.state,
           reason = excluded.reason,
           flux = excluded.flux,
           revision = l.revision + 1,
           changed_at = now()
     WHERE (l.state, l.reason, l.flux) IS DISTINCT FROM (excluded.state, excluded.reason, excluded.flux)
    RETURNING l.server_id
), told AS (
    INSERT INTO registry.changes (server_id, name, owner, source, kind, reasons)
    SELECT s.id, s.name, s.owner, 'observed', 'unstable', ARRAY[%(reason)s::text]
      FROM entry
      JOIN registry.mcp_servers AS s ON s.id = entry.server_id
     WHERE %(becomes_unstable)s
), asked AS (
    UPDATE registry.endpoints AS e
       SET seen_digest = NULL,
           introduce_at = now()
      FROM registry.mcp_servers AS s
     WHERE s.id = %(id)s
       AND e.id = s.endpoint_id
       AND %(is_asked)s
)
SELECT count(*)::integer
  FROM entry
"""


class Found(NamedTuple):
    """How a server was found: `state`, `reason` and `flux` as they are in the ledger from now on.

    `records`: its offer is another one. `asks`: the ledger has not what it offers, and is to be told all of it.
    """

    state: str | None
    reason: str | None
    flux: int
    records: bool = False
    asks: bool = False


class Told(NamedTuple):
    """An offer of a server, and what it is by."""

    source: str
    offer: Offer
    digest: bytes
    at: datetime
    version: str | None
    offer_digest: bytes | None = None


class _Basis(NamedTuple):
    """What BASIS finds."""

    revision: int | None
    state: str | None
    reason: str | None
    flux: int | None
    policy: offers.Policy | None
    declared_id: int | None
    observed_id: int | None
    declared_digest: bytes | None
    observed_digest: bytes | None
    declared_tools: bytes | None
    observed_tools: bytes | None
    current: bytes | None
    compatible_id: int | None
    compatible: bytes | None
    approved_id: int | None
    approved: bytes | None
    decided: offers.Decision | None


class _Document(NamedTuple):
    """One object of a list, and its text. `read`: of a tool, its digests `prompt` and `contract`."""

    digest: bytes
    raw: bytes
    read: tuple[bytes, bytes] | None
    text: str


# ------------------------------------------------------------------ what there is to do


def judged(
    one: Introduced, state: str | None, reason: str | None, flux: int, known: str | None, *, has_headers: bool = False
) -> Found | None:
    """What an introduction means for its server; None where everything is as it was.

    `state`, `reason`, `flux`: of the ledger. `known`: the digest of the last observed snapshot. `has_headers`: somebody
    gave headers for it. Pure.
    """
    before = flux
    if one.finding.verdict == "gated" and one.seen is None:  # else it was seen by the headers that were given for it
        # Without a word about the headers there are, it was looked at without them, as by who has just registered it.
        is_outside = has_headers and one.trouble is None
        found = Found(state, reason, flux, asks=True) if is_outside else Found("gated", one.trouble, flux)
    elif one.seen is None:
        if one.trouble is None:  # a plain HTTP service offers nothing
            return None
        found = Found("degraded", one.trouble, flux)
    else:
        # While a server is unstable nothing of it is recorded: it is compared with the look before alone.
        is_another = one.offer is not None and known is not None and (flux >= UNSTABLE or one.seen != known)
        changed = MAX_FLUX if one.wavers else min(flux + 1, MAX_FLUX)
        flux = changed if is_another else max(flux - CALMER, 0)
        if flux >= UNSTABLE:
            found = Found("unstable", UNSTEADY, flux)
        elif one.seen != known and one.offer is None:
            found = Found(state or "observed", reason, flux, asks=True)
        else:
            found = Found("degraded" if one.trouble else "observed", one.trouble, flux, records=one.seen != known)
    is_as_it_was = found[:3] == (state, reason, before) and not found.records and not found.asks
    return None if is_as_it_was else found


def parsed(one: Introduced, at: datetime) -> Told:
    """The offer of an introduction. Raises Malformed where it is none that an introduction makes."""
    assert one.offer is not None
    value = messages.unpack(one.offer)
    if not isinstance(value, dict) or value.keys() != set(Offer._fields):
        raise Malformed("not an offer")
    told = cast("dict[str, Any]", value)
    offer = Offer(**told)
    try:
        is_sound = (
            canonical.survey(told).depth <= MAX_DEPTH + 2
            and told["tools"] is not None
            and all(_is_list(told[name], key) for name, key in LISTS.items())
            and isinstance(told["instructions"], str | None)
            and isinstance(told["server_info"], dict)
            and isinstance(told["capabilities"], dict)
            and _are_texts(told["protocol_versions"])
        )
        digest = fingerprint.whole(told) if is_sound else b""
    except (ValueError, RecursionError) as error:
        raise Malformed("an offer that is no JSON") from error
    if not is_sound or digest.hex() != one.seen:
        raise Malformed("not an offer, or not the one of this digest")
    version = offer.server_info.get("version")
    return Told("observed", offer, digest, at, version if isinstance(version, str) else None)


def _is_list(value: object, key: str) -> bool:
    """Whether a list of an offer is not known, or of at most 2,000 objects that have a name."""
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(cast("list[Any]", value)) <= MAX_ITEMS
        and all(isinstance(item, dict) and isinstance(item.get(key), str) for item in cast("list[Any]", value))
    )


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[Any]", value))


# ------------------------------------------------------------------ what is written


def record(database: Database, told: Introductions, message: Record) -> None:
    """Record what these introductions found, what the servers of them declare, and log how much of it was new.

    It may be done any number of times, and in any order with others. What is no offer is logged, and takes nothing
    else along. Raises Unavailable where the database cannot answer.
    """
    recorded = sum(_observe(database, message, *found) for found in _standing(database, told, message))
    ids = sorted({one.finding.server_id for one in told.introduced})
    declared = sum(declare(database, id_) for id_ in undeclared(database, ids))
    if recorded or declared:
        observability.log_recorded(recorded, declared)


def _standing(
    database: Database, told: Introductions, message: Record
) -> Iterator[tuple[Introduced, Found, int, datetime, str | None]]:
    """The introductions by which something changes: what that means, for which server, since when, and its state."""
    looked = [one for one in told.introduced if one.finding.verdict in ("healthy", "gated") and one.finding.endpoint_id]
    if not looked:
        return
    row = database.read(
        STANDING,
        {
            "sent_at": message.sent_at,
            "asked_at": told.asked_at,
            "endpoint_ids": messages.array([one.finding.endpoint_id for one in looked]),
            "ages_ms": messages.array([one.finding.age_ms for one in looked]),
        },
    )
    assert row is not None
    for place, id_, at, state, reason, flux, known, has_headers in row[0] or ():
        found = judged(looked[place], state, reason, flux or 0, known, has_headers=has_headers)
        if found is not None:
            yield looked[place], found, id_, datetime.fromisoformat(at), state


def _observe(
    database: Database, message: Record, one: Introduced, found: Found, id_: int, at: datetime, state: str | None
) -> bool:
    """Write what an introduction means for its server; whether that is another offer."""
    try:
        if found.records:
            return _write(database, id_, parsed(one, at), found)
        given = found._asdict() | {
            "id": id_,
            "is_asked": found.asks,
            "becomes_unstable": found.state == "unstable" and state != "unstable",
        }
        database.write(NOTE, given)
    except Malformed as error:
        observability.log_malformed(message.id, f"the offer of server {id_} is refused: {error}")
    except psycopg.DataError:
        observability.log_malformed(message.id, f"the offer of server {id_} is nothing that Postgres takes")
    return False


def undeclared(database: Database, ids: Sequence[int]) -> Sequence[int]:
    """The servers among these, and some more, of which the ledger has not what they declare."""
    row = database.read(UNDECLARED, {"ids": messages.array(ids), "limit": MAX_DECLARED})
    return (row and row[0]) or ()


def declare(database: Database, id_: int) -> bool:
    """Record what a server declares; False where the ledger has it, or the server has gone."""
    told = _declared(database, id_)
    return told is not None and _write(database, id_, told)


def _declared(database: Database, id_: int) -> Told | None:
    """What a server declares, in MCP's spelling; None where the ledger has it, or the server has gone."""
    row = database.read(DECLARED, {"id": id_})
    if row is None:
        return None
    offer_digest, version, updated_at, rows = row
    tools: list[dict[str, Any]] = []
    for *values, extra in rows or ():
        names = ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "category")
        tools.append({n: v for n, v in zip(names, values, strict=True) if v is not None} | (extra or {}))
    offer = Offer(tools, None, None, None, None, {"version": version} if version else {}, [], {})
    return Told("declared", offer, fingerprint.whole(offer._asdict()), updated_at, version, offer_digest)


def _write(database: Database, id_: int, told: Told, found: Found | None = None) -> bool:
    """Record an offer of a server; False where the ledger has it, or the server has gone.

    `found`: how the server was found, where the offer was observed. Raises Unavailable where others kept writing.
    """
    for _ in range(MAX_RACES):
        row = database.read(BASIS, {"id": id_})
        if row is None:
            return False
        basis = _Basis(*row)
        if told.digest == (basis.observed_digest if told.source == "observed" else basis.declared_digest):
            if told.source == "declared":
                database.write(SETTLE, {"id": id_, "offer_digest": told.offer_digest})
            return False
        if database.write(WRITE, {"id": id_} | _columns(database, id_, basis, told, found)) is not None:
            return True
    raise Unavailable("lost every race")


def _columns(database: Database, id_: int, basis: _Basis, told: Told, found: Found | None) -> dict[str, Any]:
    """What WRITE is told of an offer."""
    is_observed = told.source == "observed"
    last_id = basis.observed_id if is_observed else basis.declared_id
    last, known = (None, {}) if last_id is None else _snapshot(database, last_id)
    lists = {name: _documents(getattr(told.offer, name), known, is_tool=name == "tools") for name in LISTS}
    digests = fingerprint.tools([fingerprint.Digests(d.raw, *d.read) for d in lists["tools"] or () if d.read])
    prompt = _review_digest(digests, told.offer)
    changes = [] if last is None else grades.compare(last, told.offer, _elsewhere(database, id_, last, told.offer))
    served, before, after = _handed_out(database, id_, basis, told, last, changes, prompt)
    rows: list[tuple[str | None, Change]] = [(told.source, change) for change in _bounded(changes)]
    if last is None and not is_observed:
        rows = [(None, Change("registered", None, "", None, None, ()))]
    if before != after:
        rows.append((None, Change("review", None, "", {"state": before}, {"state": after}, ())))
    other = basis.declared_tools if is_observed else basis.observed_tools
    stored = {d.digest: d for listed in lists.values() for d in listed or () if d.digest not in known}.values()
    about = {
        name: getattr(told.offer, name) for name in ("server_info", "protocol_versions", "capabilities", "instructions")
    }
    now = found or Found(basis.state, basis.reason, basis.flux or 0)
    return {
        "revision": basis.revision,
        "source": told.source,
        "state": now.state,
        "reason": now.reason,
        "flux": now.flux,
        "agrees": None if other is None else other == digests.prompt,
        "compatible_id": served[0],
        "approved_id": served[1],
        "superseded": last_id,
        "digest": told.digest,
        "prompt": prompt,
        "tools_raw": digests.raw,
        "tools_prompt": digests.prompt,
        "tools_contract": digests.contract,
        "at": told.at,
        "version": _column(told.version, MAX_VERSION),
        "about": _json(about),
        **{f"{name}_list": None if listed is None else [d.digest for d in listed] for name, listed in lists.items()},
        "digests": [d.digest for d in stored],
        "raws": [d.raw for d in stored],
        "prompts": [d.read and d.read[0] for d in stored],
        "contracts": [d.read and d.read[1] for d in stored],
        "documents": [d.text for d in stored],
        "sources": [source for source, _ in rows],
        "kinds": [change.kind for _, change in rows],
        "subjects": [_column(change.subject, MAX_SUBJECT) for _, change in rows],
        "grades": [change.grade or None for _, change in rows],
        "befores": [_json(change.before) for _, change in rows],
        "afters": [_json(change.after) for _, change in rows],
        "reasons": [json.dumps(change.reasons) for _, change in rows],
        "offer_digest": told.offer_digest,
    }


def _snapshot(database: Database, id_: int) -> tuple[Offer, dict[bytes, _Document]]:
    """An offer that the ledger has, and its documents by their digests."""
    row = database.read(SNAPSHOT, {"id": id_})
    assert row is not None
    about, *lists = row
    documents: dict[bytes, _Document] = {}
    parts: dict[str, list[dict[str, Any]] | None] = {}
    for name, listed in zip(LISTS, lists, strict=True):
        parts[name] = None if listed is None else []
        for digest, raw, prompt, contract, text in listed or ():
            read = None if prompt is None else (bytes.fromhex(prompt), bytes.fromhex(contract))
            document = _Document(bytes.fromhex(digest), bytes.fromhex(raw), read, text)
            documents[document.digest] = document
            cast("list[Any]", parts[name]).append(json.loads(text))
    return Offer(**parts, **about), documents


def _documents(
    items: Sequence[dict[str, Any]] | None, known: Mapping[bytes, _Document], *, is_tool: bool
) -> list[_Document] | None:
    """The objects of a list as documents. The digests of those that are known are not made anew."""
    if items is None:
        return None
    found: list[_Document] = []
    for item in items:
        digest = fingerprint.digest(item)
        if (document := known.get(digest)) is None or (is_tool and document.read is None):
            digests = fingerprint.fingerprint(item) if is_tool else None
            raw = digests.raw if digests else fingerprint.listing([item])
            document = _Document(digest, raw, digests and (digests.prompt, digests.contract), _json(item) or "")
        found.append(document)
    return found


def _review_digest(tools: fingerprint.Digests, offer: Offer) -> bytes:
    """The digest of what a model reads of an offer: its tools, its prompts and its instructions."""
    prompts = fingerprint.listing(offer.prompts or ())
    return hashlib.sha256(tools.prompt + prompts + (fingerprint.text(offer.instructions) or bytes(32))).digest()


def _elsewhere(database: Database, id_: int, before: Offer, after: Offer) -> Callable[[str], bool]:
    """Whether a few other servers have a tool of this name, of those that are new here."""
    new = {tool["name"] for tool in after.tools or ()} - {tool["name"] for tool in before.tools or ()}
    names = [name for name in new if "\0" not in name]
    row = database.read(SHARED, {"id": id_, "names": names, "limit": MAX_SHARED}) if names else None
    return frozenset((row and row[0]) or ()).__contains__


def _handed_out(
    database: Database,
    id_: int,
    basis: _Basis,
    told: Told,
    last: Offer | None,
    changes: Sequence[Change],
    prompt: bytes,
) -> tuple[tuple[int | None, int | None], str, str]:
    """What is handed out from now on under `compatible` and `manual`; and the state of the review before and after."""
    pointers = (basis.compatible_id, basis.approved_id)
    if told.source == "declared" and basis.observed_id is not None:  # what it declares is not what it offers
        return pointers, "", ""
    policy = basis.policy or offers.policy()
    is_first = basis.current is None
    decision = database.read(DECISION, {"id": id_, "digest": prompt})
    decided, reviewed = decision or (None, None)
    served, known = basis.compatible_id, last
    if served is not None and served != (basis.observed_id if told.source == "observed" else basis.declared_id):
        known, _ = _snapshot(database, served)
        changes = grades.compare(known, told.offer)
    worst = None if served is None else grades.worst(change.grade for change in changes)
    if served is not None and any(
        getattr(known, name) is not None and getattr(told.offer, name) is None for name in LISTS
    ):
        worst = "breaking"  # nobody knows what has changed in a list that is not whole
    if basis.approved_id is not None and known is not None and grades.speaks(known, told.offer):
        worst = "breaking"  # no rule tells an honest word from another: what was approved has none that nobody has read
    compatible = policies.advance(
        policy, served=served, new=NEW, worst=worst, decided=decided, reviewed=reviewed, is_first=is_first
    )
    approved = policies.approved(served=basis.approved_id, decided=decided, reviewed=reviewed)
    if is_first:
        return (compatible, approved), "", ""
    digests = {basis.compatible_id: basis.compatible, basis.approved_id: basis.approved, None: None}
    pointed = {"auto": (basis.current, prompt)} | {
        under: (digests[old], digests.get(new, prompt))
        for under, old, new in (
            ("compatible", basis.compatible_id, compatible),
            ("manual", basis.approved_id, approved),
        )
    }
    served_before, served_after = pointed[policy]
    before = offers.state(policy, served=served_before, current=basis.current, decided=basis.decided)
    after = offers.state(policy, served=served_after, current=prompt, decided=decided)
    return (compatible, approved), before, after


def _bounded(changes: Sequence[Change]) -> list[Change]:
    """The changes; where they are more than 500, a row for each kind with how many of each grade there are."""
    if len(changes) <= MAX_CHANGES:
        return [*changes]
    kinds: dict[str, Counter[str]] = {}
    for change in changes:
        kinds.setdefault(change.kind, Counter())[change.grade] += 1
    return [
        Change(kind, None, grades.worst(counts) or "", None, dict(counts), (f"{counts.total()} changes at once",))
        for kind, counts in kinds.items()
    ]


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _column(text: str | None, length: int) -> str | None:
    """A text as a column takes it: no longer, and without the one character that Postgres has none of."""
    return text and text.replace("\0", "\\u0000")[:length]
