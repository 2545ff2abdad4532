"""Which offer of a server is handed out, and its tools in the spelling of a registration.

Where a policy holds offers back, what a registration says is no longer what is handed out: it is one offer of several
that the ledger has, of which one was approved of. Whatever tells of tools asks here which one that is.
"""

from __future__ import annotations

import json
import os
import re
from typing import Final, Literal, LiteralString, NamedTuple

from mcp_registry.aws.db import Database
from mcp_registry.errors import NotConfigured

Policy = Literal["auto", "compatible", "manual"]
Decision = Literal["approve", "reject"]
State = Literal["approved", "review_needed", "awaiting", "rejected"]

# Which changes are handed out before a curator has approved of them: all, those that break nothing and alarm nobody, or
# none.
POLICIES: Final[tuple[Policy, ...]] = ("auto", "compatible", "manual")
# Bytes of the tools that a detail tells of an offer: Lambda answers with 6 MB at most, in which each quotation mark
# counts twice.
MAX_BYTES: Final = 2_000_000

# Of a row `l` of the ledger: the snapshot of what the server offers now, and the one that is handed out.
CURRENT: LiteralString = "COALESCE(l.observed_id, l.declared_id)"
SERVED: LiteralString = f"""CASE COALESCE(l.policy, %(policy)s::registry.policy)
                                WHEN 'auto' THEN {CURRENT}
                                WHEN 'compatible' THEN l.compatible_id ELSE l.approved_id END"""
# The last decision about what a server `s` offers now (`now`); the last one counts.
DECIDED: LiteralString = """(SELECT decision::text
                               FROM registry.approvals
                              WHERE server_id = s.id
                                AND digest = now.prompt
                              ORDER BY id DESC
                              LIMIT 1)"""

# What is handed out of a server that is under a policy, in one row, whether anything is or not. The documents are as
# they were received: to look into them here would fail on what Postgres cannot make a text of, such as \\u0000.
HANDED_OUT: LiteralString = f"""
SELECT served.prompt, now.prompt, {DECIDED}, shown.documents, COALESCE(cardinality(served.tools), 0)
  FROM registry.mcp_servers AS s
  LEFT JOIN registry.ledger AS l ON l.server_id = s.id
  LEFT JOIN registry.snapshots AS served ON served.id = {SERVED}
  LEFT JOIN registry.snapshots AS now ON now.id = {CURRENT}
  LEFT JOIN LATERAL (SELECT array_agg(document ORDER BY place) FILTER (WHERE so_far <= %(bytes)s) AS documents
                       FROM (SELECT d.document::text AS document, tool.place,
                                    sum(octet_length(d.document::text)) OVER (ORDER BY tool.place) AS so_far
                               FROM unnest(served.tools) WITH ORDINALITY AS tool (digest, place)
                               JOIN registry.documents AS d ON d.digest = tool.digest) AS one) AS shown ON true
 WHERE s.id = %(id)s
"""  # noqa: S608 - of literals

# The fields of a tool, as a detail spells them, by MCP's spelling.
_FIELDS: Final = {
    "name": "name",
    "title": "title",
    "description": "description",
    "inputSchema": "input_schema",
    "outputSchema": "output_schema",
    "annotations": "annotations",
    "category": "category",
}
# What the registry itself says of a tool.
_OURS: Final = frozenset({"id", "created_at", *_FIELDS, *_FIELDS.values()})
# A string, a sign, or what else stands between those.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+')


class HandedOut(NamedTuple):
    """Where a server stands, and its tools as the members of a JSON array. `left_out`: how many had no room."""

    state: State
    tools: str
    left_out: int


def policy() -> Policy:
    """The policy of servers that have none of their own (APPROVAL_POLICY). Raises NotConfigured where it names none."""
    setting = os.environ.get("APPROVAL_POLICY") or POLICIES[0]
    for known in POLICIES:
        if known == setting:
            return known
    raise NotConfigured


def state(own: Policy, *, served: bytes | None, current: bytes | None, decided: Decision | None) -> State:
    """Where a server stands: `review_needed` where what it offers now waits for a curator, and another one is served.

    `served` and `current`: the review digests of the snapshot that its policy hands out and of the current one; None
    where there is none. `decided`: the last decision about `current`. `awaiting`: nothing is handed out yet.
    """
    if own == "auto" or (current is not None and served == current):
        return "approved"
    if decided == "reject":
        return "rejected"
    return "awaiting" if served is None else "review_needed"


def handed_out(database: Database, id_: int, own: Policy) -> HandedOut | None:
    """What is handed out of a server whose policy is `own`, which is not `auto`; None where the server has gone."""
    row = database.read(HANDED_OUT, {"id": id_, "policy": own, "bytes": MAX_BYTES})
    if row is None:
        return None
    served, current, decided, documents, count = row
    tools = [respell(document) for document in documents or ()]
    return HandedOut(state(own, served=served, current=current, decided=decided), ",".join(tools), count - len(tools))


def respell(document: str) -> str:
    """A tool as `tools/list` answers it, in the spelling of a detail. The values stay as they are written.

    It has neither an id nor a time of its own: those are of the tools that a registration has.
    """
    members = _members(document)
    told = {ours: members.get(theirs, "null") for theirs, ours in _FIELDS.items()}
    if not told["input_schema"].startswith("{"):
        told["input_schema"] = "{}"
    told |= {"id": "null", "created_at": "null"}
    fields = [f'"{name}":{value}' for name, value in told.items()]
    fields += [f"{json.dumps(name)}:{value}" for name, value in members.items() if name not in _OURS]
    return f"{{{','.join(fields)}}}"


def _members(text: str) -> dict[str, str]:
    """The members of a JSON object: its keys, and its values as they are written. The text is known to be one.

    It is taken apart and not read, because some numbers are longer than Python reads, or another one afterwards.
    """
    found: dict[str, str] = {}
    key, depth, start = "", 0, 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if depth == 1 and sign in (",", "}"):
            if key:
                found[json.loads(key)] = text[start : token.start()].strip()
            key = ""
        elif depth == 1 and sign == ":":
            start = token.end()
        elif depth == 1 and not key:
            key = sign
        depth += (sign in ("{", "[")) - (sign in ("}", "]"))
    return found
