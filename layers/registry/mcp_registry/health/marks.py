"""Which secrets hold the headers that were given for servers: what the database knows of them.

It is asked by who makes the secrets, and has no way to the database (`health.probe_headers`). A secret has a row before
it is made and until it has been deleted: whatever fails in between, nothing is marked that is not there, and no secret
is left that nobody knows of.
"""

from __future__ import annotations

from typing import Any, LiteralString

from mcp_registry.access import audit
from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.catalogue import servers
from mcp_registry.errors import RegistryError, Unavailable

# Of secrets that are over, in one answer.
MAX_OVER = 100

_THEIRS: LiteralString = "(%(caller_rules)s OR s.owner = %(caller_team)s)"
_IN_USE: LiteralString = """
           SELECT p.names
             FROM registry.probe_headers AS p
            WHERE p.server_id = %(id)s
              AND p.given_at IS NOT NULL
              AND p.ended_at IS NULL
            ORDER BY p.given_at DESC
            LIMIT 1"""

BEGIN: LiteralString = f"""
  WITH theirs AS (
           SELECT s.id, s.endpoint_url
             FROM registry.mcp_servers AS s
            WHERE s.id = %(id)s
              AND {_THEIRS}
       ), begun AS (
           INSERT INTO registry.probe_headers (secret, server_id, names)
           SELECT %(secret)s::uuid, id, %(names)s::text[]
             FROM theirs
               ON CONFLICT DO NOTHING
       )
SELECT endpoint_url
  FROM theirs
"""  # noqa: S608 - of literals

# No row where the server has another address than when the headers were given for it, or came to another team since.
# Who asks twice is answered as before, and nothing is written twice. The server is introduced anew at once.
GIVE: LiteralString = f"""
  WITH theirs AS MATERIALIZED (
           SELECT s.id, s.name, p.given_at IS NOT NULL AS is_given
             FROM registry.mcp_servers AS s
             JOIN registry.probe_headers AS p ON p.server_id = s.id
            WHERE s.id = %(id)s
              AND p.secret = %(secret)s::uuid
              AND p.ended_at IS NULL
              AND s.endpoint_url = %(endpoint_url)s
              AND {_THEIRS}
       ), was AS MATERIALIZED ({_IN_USE}
       ), changed AS (
           UPDATE registry.probe_headers AS p
              SET given_at = clock_timestamp()
             FROM theirs
            WHERE p.secret = %(secret)s::uuid
              AND p.given_at IS NULL
              AND p.ended_at IS NULL
        RETURNING theirs.name, p.server_id, p.names
       ), due AS (
           UPDATE registry.endpoints
              SET introduce_at = now()
            WHERE server_id IN (SELECT server_id FROM changed)
       ), {
    audit.entry(
        was="(SELECT jsonb_build_object('headers', to_jsonb(names)) FROM was)",
        became="jsonb_build_object('headers', to_jsonb(names), 'origin', %(origin)s::text)",
        target="'server:' || name",
    )
}
SELECT name
  FROM theirs
 WHERE is_given
    OR EXISTS (SELECT FROM changed)
"""  # noqa: S608 - of literals

END: LiteralString = f"""
  WITH theirs AS MATERIALIZED (
           SELECT s.id, s.name
             FROM registry.mcp_servers AS s
            WHERE s.id = %(id)s
              AND {_THEIRS}
       ), was AS MATERIALIZED ({_IN_USE}
       ), ended AS (
           UPDATE registry.probe_headers AS p
              SET ended_at = now()
             FROM theirs
            WHERE p.server_id = theirs.id
              AND p.ended_at IS NULL
        RETURNING theirs.name, p.server_id
       ), changed AS (
           SELECT DISTINCT name, server_id
             FROM ended
            WHERE EXISTS (SELECT FROM was)
       ), due AS (
           UPDATE registry.endpoints
              SET introduce_at = now()
            WHERE server_id IN (SELECT server_id FROM changed)
       ), {
    audit.entry(
        was="(SELECT jsonb_build_object('headers', to_jsonb(names)) FROM was)",
        became="NULL",
        target="'server:' || name",
    )
}
SELECT name
  FROM theirs
"""  # noqa: S608 - of literals

# Of one server, or of all: those that ended, that others took the place of, that were begun and never made, and those
# of servers that have gone.
OVER = """
SELECT COALESCE(json_agg(json_build_array(server_id, secret)), '[]')
  FROM (SELECT p.server_id, p.secret
          FROM registry.probe_headers AS p
         WHERE (%(id)s::bigint IS NULL OR p.server_id = %(id)s)
           AND (p.ended_at IS NOT NULL
                OR (p.given_at IS NULL AND p.begun_at < now() - interval '1 hour')
                OR EXISTS (SELECT
                             FROM registry.probe_headers AS later
                            WHERE later.server_id = p.server_id
                              AND later.given_at > p.given_at)
                OR NOT EXISTS (SELECT FROM registry.mcp_servers WHERE id = p.server_id))
         ORDER BY p.server_id
         LIMIT %(limit)s) AS over
"""

FORGET = """
DELETE FROM registry.probe_headers
 WHERE secret = %(secret)s::uuid
RETURNING secret::text
"""


def answer(database: Database, question: Any) -> dict[str, Any]:
    """The answer to a question of `health.probe_headers`, whose `caller` has the fields of a Caller:

        {"begin": {"server", "secret", "names"}, "caller"}                ->  {"id", "endpoint_url"}
        {"give": {"id", "secret", "endpoint_url", "origin"}, "caller"}    ->  {}
        {"end": {"server"}, "caller"}                                     ->  {"id"}
        {"over": <id of a server>, or null for all}                       ->  {"over": [[<id>, <secret>], ...]}
        {"forget": <secret>}                                              ->  {}

    `server` is an id or a name. Where the caller may not, or there is no such server, it is {"refused": <code>,
    "message", "faults"}. Raises ValueError where it is no such question, and what `database` raises.
    """
    try:
        match question:
            case {"begin": {"server": wanted, "secret": secret, "names": names}, "caller": caller}:
                id_ = servers.identify(database, wanted)
                url = _written(database, BEGIN, Caller(**caller), {"id": id_, "secret": secret, "names": names})
                return {"id": id_, "endpoint_url": url}
            case {"give": {"id": int(), "secret": _, "endpoint_url": _, "origin": _} as given, "caller": caller}:
                _written(database, GIVE, Caller(**caller), given)
                return {}
            case {"end": {"server": wanted}, "caller": caller}:
                id_ = servers.identify(database, wanted)
                _written(database, END, Caller(**caller), {"id": id_})
                return {"id": id_}
            case {"over": int() | None as id_}:
                row = database.read(OVER, {"id": id_, "limit": MAX_OVER})
                assert row is not None
                return {"over": row[0]}
            case {"forget": str() as secret}:
                database.write(FORGET, {"secret": secret})
                return {}
            case _:
                raise ValueError("not a question about probe headers")
    except Unavailable:
        raise
    except RegistryError as error:
        return {"refused": error.code, "message": str(error), "faults": [*error.faults]}


def _written(database: Database, statement: LiteralString, caller: Caller, given: dict[str, Any]) -> str:
    """What a statement tells. Raises ServerNotFound, Forbidden; Unavailable where the server has changed meanwhile."""
    entry = audit.parameters(caller, "server.probe_headers", "")
    row = database.write(statement, entry | given)
    if row is None:
        servers.check_theirs(database, caller, given["id"])
        raise Unavailable("the server has changed meanwhile")
    return row[0]
