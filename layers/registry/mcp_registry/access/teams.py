"""Teams: who they are, whose names they may keep for themselves, and what a caller is told of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from mcp_registry.access import audit
from mcp_registry.aws.db import Database
from mcp_registry.caller import DEFAULT_TEAM, Caller
from mcp_registry.errors import DuplicatePrefix, Fault, TeamInUse, TeamNotFound, Unavailable

if TYPE_CHECKING:
    from mcp_registry.access.rules import Team

# A change that lost every race for this long is told to come back; each lost race means that another one won.
MAX_RACES = 20

WHO = """
SELECT (SELECT contact FROM registry.teams WHERE name = %(caller_team)s),
       (SELECT registry.rfc3339(expires_at) FROM registry.tokens WHERE id = %(token)s)
"""

_ITEM: LiteralString = """t.name, t.contact,
               ARRAY(SELECT prefix FROM registry.team_prefixes WHERE team = t.name ORDER BY prefix) AS prefixes,
               COALESCE(owned.servers, 0) AS servers, registry.rfc3339(t.created_at) AS created_at,
               registry.rfc3339(t.updated_at) AS updated_at"""

TEAMS: LiteralString = f"""
SELECT json_agg(team ORDER BY team.name)
  FROM (SELECT {_ITEM}
          FROM registry.teams AS t
          LEFT JOIN (SELECT owner, count(*) AS servers
                       FROM registry.mcp_servers
                      GROUP BY owner) AS owned ON owned.owner = t.name) AS team
"""  # noqa: S608 - of literals

# Its members are who may act for it: tokens that are good, a thousand at most, and rules of trusted issuers.
TEAM: LiteralString = f"""
SELECT row_to_json(team)
  FROM (SELECT {_ITEM},
               CASE WHEN %(is_told_members)s
                    THEN (SELECT COALESCE(json_agg(member), '[]')
                            FROM (SELECT row_to_json(held) AS member
                                    FROM (SELECT 'token' AS kind, id, name, role,
                                                 registry.rfc3339(expires_at) AS expires_at,
                                                 registry.rfc3339(last_used_at) AS last_used_at
                                            FROM registry.tokens
                                           WHERE team = t.name
                                             AND revoked_at IS NULL
                                             AND expires_at > now()
                                           ORDER BY id
                                           LIMIT 1000) AS held
                                   UNION ALL
                                  SELECT row_to_json(trusted)
                                    FROM (SELECT 'issuer' AS kind, id, issuer, role
                                            FROM registry.issuers
                                           WHERE team = t.name
                                           ORDER BY id
                                           LIMIT 1000) AS trusted) AS members) END AS members
          FROM registry.teams AS t
         CROSS JOIN (SELECT count(*) AS servers FROM registry.mcp_servers WHERE owner = %(team)s) AS owned
         WHERE t.name = %(team)s) AS team
"""  # noqa: S608 - of literals

# A team as it is, and who has one of the prefixes that it is to have.
FIND = """
SELECT t.updated_at, t.contact, ARRAY(SELECT prefix FROM registry.team_prefixes WHERE team = t.name ORDER BY prefix),
       taken.wanted, taken.team
  FROM (SELECT 1) AS one
  LEFT JOIN registry.teams AS t ON t.name = %(team)s
  LEFT JOIN LATERAL (SELECT wanted, p.team
                       FROM unnest(%(prefixes)s::text[]) AS wanted
                       JOIN registry.team_prefixes AS p ON p.key = registry.name_key(wanted)
                      WHERE p.team <> %(team)s
                      ORDER BY wanted
                      LIMIT 1) AS taken ON true
"""

# No row where another team has one of the prefixes, or the team is not as it was found. One that another team takes at
# this very moment breaks the unique key, which undoes the statement, and it is repeated.
_FREE: LiteralString = """
free AS (
    SELECT
     WHERE NOT EXISTS (SELECT
                         FROM registry.team_prefixes AS p
                        WHERE p.team <> %(team)s
                          AND p.key = ANY (ARRAY(SELECT registry.name_key(wanted)
                                                   FROM unnest(%(prefixes)s::text[]) AS wanted)))
)"""
# Those that go do so first: one that comes may read like one of them.
_PREFIXES: LiteralString = """
dropped AS (
    DELETE FROM registry.team_prefixes AS p
     USING changed
     WHERE p.team = changed.name
       AND p.prefix <> ALL (%(prefixes)s::text[])
    RETURNING p.prefix
), given AS (
    INSERT INTO registry.team_prefixes (prefix, team)
    SELECT wanted, changed.name
      FROM changed
     CROSS JOIN unnest(%(prefixes)s::text[]) AS wanted
     WHERE (SELECT count(*) FROM dropped) >= 0
       AND NOT EXISTS (SELECT FROM registry.team_prefixes AS p WHERE p.prefix = wanted)
)"""

MAKE: LiteralString = f"""
WITH {_FREE}, changed AS (
    INSERT INTO registry.teams (name, contact)
    SELECT %(team)s, %(contact)s
      FROM free
        ON CONFLICT DO NOTHING
    RETURNING name
), {_PREFIXES}, {audit.entry()}
SELECT name
  FROM changed
"""  # noqa: S608 - of literals

# Compare-and-set on the moment of the last change, which therefore never comes twice. Two changes that race would
# otherwise mix their prefixes: the second does not see those that the first has just given.
SET: LiteralString = f"""
WITH {_FREE}, changed AS (
    UPDATE registry.teams AS t
       SET contact = %(contact)s,
           updated_at = GREATEST(clock_timestamp(), t.updated_at + interval '1 microsecond')
      FROM free
     WHERE t.name = %(team)s
       AND t.updated_at = %(seen)s
    RETURNING t.name
), {_PREFIXES}, {audit.entry()}
SELECT name
  FROM changed
"""  # noqa: S608 - of literals

# What a team still owns. Tokens that are not good any more are nobody's.
_OWNED: LiteralString = """
owned AS (
    SELECT (SELECT count(*) FROM registry.mcp_servers WHERE owner = %(team)s) AS servers,
           (SELECT count(*) FROM registry.held_names WHERE owner = %(team)s AND held_until > now()) AS held_names,
           (SELECT count(*) FROM registry.tokens
             WHERE team = %(team)s AND revoked_at IS NULL AND expires_at > now()) AS tokens,
           (SELECT count(*) FROM registry.issuers WHERE team = %(team)s) AS issuers
)"""

# What it is given at this very moment breaks a foreign key, which undoes the statement, and it is repeated.
REMOVE: LiteralString = f"""
WITH {_OWNED}, spent AS (
    DELETE FROM registry.tokens AS k
     USING owned
     WHERE k.team = %(team)s
       AND owned.servers + owned.held_names + owned.tokens + owned.issuers = 0
    RETURNING k.id
), changed AS (
    DELETE FROM registry.teams AS t
     USING owned
     WHERE t.name = %(team)s
       AND t.updated_at = %(seen)s
       AND owned.servers + owned.held_names + owned.tokens + owned.issuers = 0
       AND (SELECT count(*) FROM spent) >= 0
    RETURNING t.name
), {audit.entry()}
SELECT EXISTS (SELECT FROM changed), servers, held_names, tokens, issuers
  FROM owned
"""  # noqa: S608 - of literals


def whoami(database: Database, caller: Caller) -> dict[str, Any]:
    """Who the caller is, for which team, whom that team names to ask, and until when its credential is good.

    `expires_at` is known of the registry's own tokens; None of every other credential.
    """
    kind, _, id_ = caller.name.partition(":")
    row = database.read(WHO, {"caller_team": caller.team, "token": id_ if kind == "token" else None})
    assert row is not None
    contact, expires_at = row
    told = {"name": caller.name, "role": caller.role, "team": caller.team}
    return {**told, "contact": contact, "expires_at": expires_at}


def list_all(database: Database) -> dict[str, Any]:
    """Every team, by name."""
    row = database.read(TEAMS)
    assert row is not None
    return {"teams": row[0]}


def show(database: Database, caller: Caller, name: str) -> dict[str, Any]:
    """One team; its members for those of the team and for administrators, else None. Raises TeamNotFound."""
    is_told_members = caller.may("admin") or caller.team == name
    row = database.read(TEAM, {"team": name, "is_told_members": is_told_members})
    if row is None:
        raise TeamNotFound
    return row[0]


def put(database: Database, caller: Caller, name: str, sent: Team) -> tuple[bool, dict[str, Any]]:
    """Make a team, or set it as a whole; whether it is new, and how it is now.

    Raises DuplicatePrefix where another team has one of its prefixes. What changes nothing is not written down.
    """
    wanted = {"contact": sent.contact, "prefixes": sorted(sent.prefixes)}
    for _ in range(MAX_RACES):
        row = database.read(FIND, {"team": name, "prefixes": wanted["prefixes"]})
        assert row is not None
        seen, contact, prefixes, prefix, other = row
        if other is not None:
            raise _duplicate(sent, prefix, other)
        before = None if seen is None else {"contact": contact, "prefixes": prefixes}
        if before != wanted:
            entry = audit.parameters(caller, "team.set", f"team:{name}", before, wanted)
            parameters = {**entry, **wanted, "team": name, "seen": seen}
            if database.write(MAKE if seen is None else SET, parameters, looks_first=True) is None:
                continue  # somebody else was first: look again
        return seen is None, show(database, caller, name)
    raise Unavailable("lost every race")


def remove(database: Database, caller: Caller, name: str) -> None:
    """Remove a team that owns nothing any more, with its prefixes and its tokens that are not good any more.

    Raises TeamNotFound, and TeamInUse with what it still owns.
    """
    if name == DEFAULT_TEAM:
        raise TeamInUse(f"The team {DEFAULT_TEAM} is never removed: what nobody else owns belongs to it")
    for _ in range(MAX_RACES):
        row = database.read(FIND, {"team": name, "prefixes": []})
        assert row is not None
        seen, contact, prefixes, *_ = row
        if seen is None:
            raise TeamNotFound
        entry = audit.parameters(
            caller, "team.removed", f"team:{name}", {"contact": contact, "prefixes": prefixes}, None
        )
        row = database.write(REMOVE, {**entry, "team": name, "seen": seen})
        assert row is not None
        is_removed, *owned = row
        if is_removed:
            return
        if any(owned):
            raise _in_use(name, owned)
    raise Unavailable("lost every race")


def _duplicate(sent: Team, prefix: str, other: str) -> DuplicatePrefix:
    path = f"prefixes.{sent.prefixes.index(prefix)}"
    told = f"The team {other} has a prefix that reads like {prefix}"
    return DuplicatePrefix(f"{DuplicatePrefix.__doc__}: {told}", [Fault(path, told, "taken")])


def _in_use(name: str, owned: list[int]) -> TeamInUse:
    kinds = ("server", "held name", "token", "issuer")
    told = [f"{number} {kind}{'s' * (number != 1)}" for number, kind in zip(owned, kinds, strict=True) if number]
    return TeamInUse(
        f"{TeamInUse.__doc__}: {', '.join(told)}. Transfer or remove, release, or revoke them first",
        [Fault("team", f"{name} owns {each}", "in_use") for each in told],
    )
