"""The tokens that were given to people and jobs: made, shown without their secret, and revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from mcp_registry.access import audit, tokens
from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.errors import Fault, TeamNotFound, TokenNotFound

if TYPE_CHECKING:
    from mcp_registry.access.rules import Grant, TokenPage

# No row where there is no such team.
MAKE: LiteralString = f"""
WITH changed AS (
    INSERT INTO registry.tokens (id, digest, name, team, role, created_by, expires_at)
    SELECT %(token)s, %(digest)s, %(name)s, t.name, %(role)s::registry.role, left(%(caller)s::text, 200),
           now() + make_interval(days => %(days)s)
      FROM registry.teams AS t
     WHERE t.name = %(team)s
    RETURNING id, created_at, expires_at
), {audit.entry(became="%(became)s::jsonb || jsonb_build_object('expires_at', registry.rfc3339(expires_at))")}
SELECT registry.rfc3339(created_at), registry.rfc3339(expires_at)
  FROM changed
"""  # noqa: S608 - of literals

_ITEM: LiteralString = """id, name, team, role, created_by, registry.rfc3339(created_at) AS created_at,
               registry.rfc3339(expires_at) AS expires_at, registry.rfc3339(last_used_at) AS last_used_at,
               registry.rfc3339(revoked_at) AS revoked_at"""

# One more than is asked for says whether another page follows.
TOKENS: LiteralString = f"""
SELECT COALESCE(json_agg(token ORDER BY token.id), '[]')
  FROM (SELECT {_ITEM}
          FROM registry.tokens
         WHERE id > %(after)s::text
           AND (%(team)s::text IS NULL OR team = %(team)s)
         ORDER BY id
         LIMIT %(limit)s + 1) AS token
"""  # noqa: S608 - of literals

TOKEN: LiteralString = f"""
SELECT row_to_json(token)
  FROM (SELECT {_ITEM}
          FROM registry.tokens
         WHERE id = %(token)s) AS token
"""  # noqa: S608 - of literals

REVOKE: LiteralString = f"""
WITH changed AS (
    UPDATE registry.tokens
       SET revoked_at = now()
     WHERE id = %(token)s
       AND revoked_at IS NULL
    RETURNING revoked_at
), {audit.entry(became="jsonb_build_object('revoked_at', registry.rfc3339(revoked_at))")}
SELECT EXISTS (SELECT FROM registry.tokens WHERE id = %(token)s)
"""  # noqa: S608 - of literals


def make(database: Database, caller: Caller, grant: Grant) -> dict[str, Any]:
    """Make a token and tell it, this once. Raises TeamNotFound."""
    token = tokens.make()
    told = {"name": grant.name, "team": grant.team, "role": grant.role}
    entry = audit.parameters(caller, "token.made", f"token:{token.id}", None, told)
    secret = {"token": token.id, "digest": tokens.digest(token.text)}
    row = database.write(MAKE, {**entry, **told, **secret, "days": grant.expires_in_days})
    if row is None:
        raise no_team(grant.team)
    return {"id": token.id, "token": token.text, **told, "created_at": row[0], "expires_at": row[1]}


def list_page(database: Database, page: TokenPage) -> dict[str, Any]:
    """One page of tokens in the order of their ids, and after which the next one starts (None: there is none)."""
    row = database.read(TOKENS, page._asdict(), plan_anew=True)
    assert row is not None
    found = row[0][: page.limit]
    return {"tokens": found, "next_after": found[-1]["id"] if row[0][page.limit :] else None}


def show(database: Database, id_: str) -> dict[str, Any]:
    """One token, without its secret, which nobody has. Raises TokenNotFound."""
    row = database.read(TOKEN, {"token": id_})
    if row is None:
        raise TokenNotFound
    return row[0]


def revoke(database: Database, caller: Caller, id_: str) -> None:
    """End a token, if it is not ended yet. Raises TokenNotFound."""
    entry = audit.parameters(caller, "token.revoked", f"token:{id_}", {"revoked_at": None}, None)
    row = database.write(REVOKE, {**entry, "token": id_})
    if row is None or not row[0]:
        raise TokenNotFound


def no_team(name: str) -> TeamNotFound:
    """The refusal of a field that names a team which is not there."""
    return TeamNotFound(f"{TeamNotFound.__doc__}: {name}", [Fault("team", f"There is no team {name}", "value")])
