"""Trusted issuers: whose signed tokens let somebody in, what these have to say, and who that is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, LiteralString

from mcp_registry.access import audit
from mcp_registry.access.credentials import no_team
from mcp_registry.access.teams import MAX_RACES
from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.errors import IssuerNotFound, Unavailable

if TYPE_CHECKING:
    from mcp_registry.access.rules import Trust

_ITEM: LiteralString = """id, issuer, audience, claims, team, role, registry.rfc3339(created_at) AS created_at,
               registry.rfc3339(updated_at) AS updated_at"""

ISSUERS: LiteralString = f"""
SELECT COALESCE(json_agg(shown ORDER BY shown.id), '[]')
  FROM (SELECT {_ITEM}
          FROM registry.issuers) AS shown
"""  # noqa: S608 - of literals

ISSUER: LiteralString = f"""
SELECT row_to_json(shown)
  FROM (SELECT {_ITEM}
          FROM registry.issuers
         WHERE id = %(issuer_id)s) AS shown
"""  # noqa: S608 - of literals

# An issuer as it is, and whether the team is there that it is to be for.
FIND = """
SELECT i.updated_at, i.issuer, i.audience, i.claims, i.team, i.role::text,
       EXISTS (SELECT FROM registry.teams WHERE name = %(team)s)
  FROM (SELECT 1) AS one
  LEFT JOIN registry.issuers AS i ON i.id = %(issuer_id)s
"""

# No row where it is not as it was found, or its team has gone meanwhile.
MAKE: LiteralString = f"""
WITH changed AS (
    INSERT INTO registry.issuers (id, issuer, audience, claims, team, role)
    SELECT %(issuer_id)s, %(issuer)s, %(audience)s, %(claims)s::jsonb, t.name, %(role)s::registry.role
      FROM registry.teams AS t
     WHERE t.name = %(team)s
        ON CONFLICT DO NOTHING
    RETURNING id
), {audit.entry()}
SELECT id
  FROM changed
"""  # noqa: S608 - of literals

# Compare-and-set, as of a team: what the audit says was there before was there.
SET: LiteralString = f"""
WITH changed AS (
    UPDATE registry.issuers AS i
       SET issuer = %(issuer)s,
           audience = %(audience)s,
           claims = %(claims)s::jsonb,
           team = t.name,
           role = %(role)s::registry.role,
           updated_at = GREATEST(clock_timestamp(), i.updated_at + interval '1 microsecond')
      FROM registry.teams AS t
     WHERE i.id = %(issuer_id)s
       AND i.updated_at = %(seen)s
       AND t.name = %(team)s
    RETURNING i.id
), {audit.entry()}
SELECT id
  FROM changed
"""  # noqa: S608 - of literals

REMOVE: LiteralString = f"""
WITH changed AS (
    DELETE FROM registry.issuers
     WHERE id = %(issuer_id)s
       AND updated_at = %(seen)s
    RETURNING id
), {audit.entry()}
SELECT id
  FROM changed
"""  # noqa: S608 - of literals


def list_all(database: Database) -> dict[str, Any]:
    """Every trusted issuer, by id."""
    row = database.read(ISSUERS)
    assert row is not None
    return {"issuers": row[0]}


def show(database: Database, id_: str) -> dict[str, Any]:
    """One trusted issuer. Raises IssuerNotFound."""
    row = database.read(ISSUER, {"issuer_id": id_})
    if row is None:
        raise IssuerNotFound
    return row[0]


def put(database: Database, caller: Caller, id_: str, sent: Trust) -> tuple[bool, dict[str, Any]]:
    """Trust an issuer, or set what was trusted as a whole; whether it is new, and how it is now.

    Raises TeamNotFound. What changes nothing is not written down.
    """
    wanted = {field: getattr(sent, field) for field in sent.__struct_fields__}
    for _ in range(MAX_RACES):
        seen, before, is_team = _find(database, id_, sent.team)
        if not is_team:
            raise no_team(sent.team)
        if before != wanted:
            entry = audit.parameters(caller, "issuer.set", f"issuer:{id_}", before, wanted)
            parameters = {**entry, **wanted, "claims": json.dumps(sent.claims), "issuer_id": id_, "seen": seen}
            if database.write(MAKE if seen is None else SET, parameters) is None:
                continue  # somebody else was first: look again
        return seen is None, show(database, id_)
    raise Unavailable("lost every race")


def remove(database: Database, caller: Caller, id_: str) -> None:
    """Trust an issuer no more. Raises IssuerNotFound."""
    for _ in range(MAX_RACES):
        seen, before, _ = _find(database, id_, None)
        if seen is None:
            raise IssuerNotFound
        entry = audit.parameters(caller, "issuer.removed", f"issuer:{id_}", before, None)
        if database.write(REMOVE, {**entry, "issuer_id": id_, "seen": seen}) is not None:
            return
    raise Unavailable("lost every race")


def _find(database: Database, id_: str, team: str | None) -> tuple[Any, dict[str, Any] | None, bool]:
    """When a trusted issuer was last changed, and its fields (None: there is none); whether the team is there."""
    row = database.read(FIND, {"issuer_id": id_, "team": team})
    assert row is not None
    seen, *fields, is_team = row
    names = ("issuer", "audience", "claims", "team", "role")
    return seen, None if seen is None else dict(zip(names, fields, strict=True)), is_team
