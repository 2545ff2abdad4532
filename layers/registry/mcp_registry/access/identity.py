"""What the database knows of who calls: which token somebody holds, and what is asked of an issuer's tokens."""

from __future__ import annotations

from typing import Any

from mcp_registry.aws.db import Database

# As registry.issuers has it.
MAX_ISSUER = 500

# Whose a token is, where it is valid; when it was used last, to five minutes, so that using one is not writing a row
# each time. The age is asked of the row that is written: who waited for another to write it finds nothing to do.
HOLDER = """
  WITH valid AS (
           SELECT id, role, team
             FROM registry.tokens
            WHERE id = %(token)s
              AND digest = %(digest)s
              AND revoked_at IS NULL
              AND expires_at > now()
       ),
       noted AS (
           UPDATE registry.tokens
              SET last_used_at = now()
             FROM valid
            WHERE tokens.id = valid.id
              AND (tokens.last_used_at IS NULL OR tokens.last_used_at < now() - interval '5 minutes')
       )
SELECT json_build_object('name', 'token:' || id, 'role', role, 'team', team)
  FROM valid
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
            row = database.write(HOLDER, {"token": id_, "digest": bytes.fromhex(digest)})
            return {"caller": row[0] if row else None}
        case {"issuer": str() as issuer}:
            # Of what no issuer is called the database is not asked: it would refuse some characters.
            is_one = len(issuer) <= MAX_ISSUER and issuer.isprintable()
            row = database.read(RULES, {"issuer": issuer}) if is_one else None
            return {"rules": row[0] if row else []}
        case _:
            raise ValueError("not a question of the authorizer's")


def _is_of_a_token(id_: str, digest: str) -> bool:
    return id_.isascii() and id_.isalnum() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
