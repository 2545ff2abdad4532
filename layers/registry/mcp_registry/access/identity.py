"""What the database knows of who calls: which token somebody holds, and what is asked of an issuer's tokens."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mcp_registry.aws.db import Database
from mcp_registry.errors import Unavailable

# As registry.issuers has it.
MAX_ISSUER = 500

# For so long a token's holder waits for its use to be noted, in seconds.
NOTE_SECONDS = 1.0

# Whose a token is, where it is valid, and whether its use is to be noted: once in five minutes, so that using one is
# not writing a row each time.
HOLDER = """
SELECT json_build_object('name', 'token:' || id, 'role', role, 'team', team),
       COALESCE(last_used_at < now() - interval '5 minutes', true)
  FROM registry.tokens
 WHERE id = %(token)s
   AND digest = %(digest)s
   AND revoked_at IS NULL
   AND expires_at > now()
"""

# Apart from the statement before: that one is right where nothing can be written, and is repeated where a connection is
# lost. Whoever has the row just now notes it too, or revokes it: nobody waits for that.
NOTE = """
  WITH due AS (
           SELECT id
             FROM registry.tokens
            WHERE id = %(token)s
              AND COALESCE(last_used_at < now() - interval '5 minutes', true)
              FOR NO KEY UPDATE SKIP LOCKED
       )
UPDATE registry.tokens
   SET last_used_at = now()
  FROM due
 WHERE tokens.id = due.id
RETURNING tokens.id
"""

RULES = """
SELECT coalesce(
           json_agg(
               json_build_object('id', id, 'audience', audience, 'claims', claims, 'role', role, 'team', team)
               ORDER BY id
           ),
           '[]'
       )
  FROM registry.issuers
 WHERE issuer = %(issuer)s
"""


def answer(database: Database, question: Any) -> dict[str, Any]:
    """The answer to a question of the authorizer's:

        {"token": {"id": ..., "digest": <hex>}}  ->  {"caller": {"name", "role", "team"}}, or {"caller": null}
        {"issuer": <URL>}                        ->  {"rules": [{"id", "audience", "claims", "role", "team"}, ...]}

    A caller is null where the token is unknown, has expired or was revoked: which of these, nobody is told. Raises
    ValueError where it is no such question, and what `database` raises.
    """
    match question:
        case {"token": {"id": str() as id_, "digest": str() as digest}} if _is_of_a_token(id_, digest):
            row = database.read(HOLDER, {"token": id_, "digest": bytes.fromhex(digest)})
            if row and row[1]:
                _note(database, id_)
            return {"caller": row[0] if row else None}
        case {"issuer": str() as issuer}:
            # Of what no issuer is called the database is not asked: it would refuse some characters.
            is_one = len(issuer) <= MAX_ISSUER and issuer.isprintable()
            row = database.read(RULES, {"issuer": issuer}) if is_one else None
            return {"rules": row[0] if row else []}
        case _:
            raise ValueError("not a question of the authorizer's")


def _note(database: Database, id_: str) -> None:
    """Note the use of a token, if that can be done now. Nobody is refused where it cannot."""
    # A server that is read-only, or full, or away since: the next use is noted.
    with suppress(Unavailable):
        database.begin(NOTE_SECONDS).write(NOTE, {"token": id_})


def _is_of_a_token(id_: str, digest: str) -> bool:
    return id_.isascii() and id_.isalnum() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
