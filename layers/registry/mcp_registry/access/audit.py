"""The audit: what each change writes down, and reading it.

An entry is written by the statement that makes the change, so that there is neither without the other. Nothing changes
it afterwards: no role has the right to, and a trigger refuses whoever has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, LiteralString

from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller

if TYPE_CHECKING:
    from mcp_registry.access.rules import AuditPage

ACTIONS: Final = (
    *("server.registered", "server.updated", "server.endpoint", "server.status", "server.removed"),
    *("server.transferred", "name.held", "name.released"),
    *("team.set", "team.removed", "token.made", "token.revoked", "issuer.set", "issuer.removed"),
)
# Of the columns.
MAX_ACTOR: Final = 600
MAX_TARGET: Final = 200
MAX_SEQUENCE: Final = 2**63 - 1

# The number up to which every entry is there that ever will be. Asked before the page and apart from it: a statement
# does not see what is committed after it began, and this is about what is over by now.
SETTLED = "SELECT registry.settled_entry('registry.audit', 16725)"

# Bytes of the entries of a page: Lambda answers with 6 MB at most, and the client reads 4 MiB.
MAX_BYTES: Final = 2_000_000

# One more than is asked for says whether another page follows. The first entry is told however long it is.
PAGE = """
SELECT COALESCE(json_agg(told ORDER BY sequence) FILTER (WHERE fits), '[]'), count(*) FILTER (WHERE NOT fits) > 0
  FROM (SELECT sequence, told,
               row_number() OVER so_far <= %(limit)s
               AND (row_number() OVER so_far = 1 OR sum(octet_length(told::text)) OVER so_far <= %(bytes)s) AS fits
  FROM (SELECT entry.sequence, to_json(entry) AS told
  FROM (SELECT id AS sequence, registry.rfc3339(occurred_at) AS at, actor, role, team, action, target, before, after,
               request_id, address
          FROM registry.audit
         WHERE id > %(after)s
           AND id <= %(settled)s
           AND (%(actor)s::text IS NULL OR actor = %(actor)s)
           AND (%(target)s::text IS NULL OR target = %(target)s)
           AND (%(action)s::text IS NULL OR action = %(action)s)
         ORDER BY id
         LIMIT %(limit)s + 1) AS entry) AS one
        WINDOW so_far AS (ORDER BY sequence ROWS UNBOUNDED PRECEDING)) AS page
"""


def entry(was: LiteralString = "%(was)s::jsonb", became: LiteralString = "%(became)s::jsonb") -> LiteralString:
    """The part of a statement that writes an entry, where its part `changed` has a row (`parameters` are its own)."""
    return f"""
entry AS (
    INSERT INTO registry.audit (actor, role, team, action, target, before, after, request_id, address)
    SELECT %(caller)s, %(caller_role)s::registry.role, %(caller_team)s, %(action)s, %(target)s, {was}, {became},
           %(request_id)s, %(address)s
      FROM changed
)"""  # noqa: S608 - of literals


def parameters(
    caller: Caller,
    action: str,
    target: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a statement is told of the entry that it writes: who did what to whom, and the fields that differ.

    `before` and `after` are the same fields; None where there was, or is, nothing.
    """
    assert action in ACTIONS, action
    if before is not None and after is not None:
        changed = [field for field in before if before[field] != after[field]]
        before, after = ({field: state[field] for field in changed} for state in (before, after))
    was, became = (None if state is None else json.dumps(state) for state in (before, after))
    return {**caller.parameters(), "action": action, "target": target, "was": was, "became": became}


def read(database: Database, page: AuditPage) -> dict[str, Any]:
    """One page of the audit, oldest entry first, and after which entry the next one starts (None: there is none yet).

    Who comes again with the last number that it has seen misses nothing: no entry comes later with a lower number.
    """
    settled = database.read(SETTLED)
    assert settled is not None
    # Planned anew: the filters are optional.
    row = database.read(PAGE, page._asdict() | {"settled": settled[0], "bytes": MAX_BYTES}, plan_anew=True)
    assert row is not None
    entries, more = row
    return {"entries": entries, "next_after": entries[-1]["sequence"] if more else None}
