"""Offers in the ledger, written as the recording of them does, for the tests of what is made of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

from mcp_registry.aws.db import Database
from mcp_registry.catalogue import fingerprint
from mcp_registry.catalogue.offers import DECIDED, Policy
from mcp_registry.ledger import policies

WAS = f"""
SELECT l.compatible_id, l.approved_id, COALESCE(l.observed_id, l.declared_id), {DECIDED},
       (SELECT snapshot_id FROM registry.approvals
         WHERE server_id = s.id AND digest = now.prompt ORDER BY id DESC LIMIT 1)
  FROM registry.mcp_servers AS s
 CROSS JOIN (SELECT decode(%(prompt)s, 'hex') AS prompt) AS now
  LEFT JOIN registry.ledger AS l ON l.server_id = s.id
 WHERE s.id = %(id)s
"""
DOCUMENT = """
INSERT INTO registry.documents (digest, raw, prompt, contract, document)
VALUES (decode(%(digest)s, 'hex'), %(raw)s, %(prompt)s, %(contract)s, %(document)s::json)
    ON CONFLICT DO NOTHING
RETURNING 1
"""
SNAPSHOT = """
INSERT INTO registry.snapshots (server_id, source, digest, prompt, first_seen, about, tools)
VALUES (%(id)s, %(source)s::registry.source, sha256(convert_to(%(about)s || %(tools)s::text, 'UTF8')),
        decode(%(prompt)s, 'hex'), clock_timestamp(), %(about)s::json, %(tools)s::bytea[])
RETURNING id
"""
LEDGER = """
INSERT INTO registry.ledger AS l (server_id, declared_id, observed_id, compatible_id, approved_id)
VALUES (%(id)s, CASE %(source)s WHEN 'declared' THEN %(new)s::bigint END,
        CASE %(source)s WHEN 'observed' THEN %(new)s::bigint END, %(compatible_id)s, %(approved_id)s)
    ON CONFLICT (server_id) DO UPDATE
   SET declared_id = COALESCE(excluded.declared_id, l.declared_id),
       observed_id = COALESCE(excluded.observed_id, l.observed_id),
       compatible_id = excluded.compatible_id,
       approved_id = excluded.approved_id,
       revision = l.revision + 1
RETURNING revision
"""
CHANGE = """
INSERT INTO registry.changes (server_id, name, owner, source, kind, subject, grade, before, after, occurred_at)
SELECT id, name, owner, %(source)s::registry.source, 'tool', %(subject)s, %(grade)s::registry.grade, NULL,
       %(after)s::json, clock_timestamp()
  FROM registry.mcp_servers
 WHERE id = %(id)s
RETURNING id
"""


def tool(name: str, description: str, **fields: Any) -> dict[str, Any]:
    """A tool as `tools/list` answers it."""
    return {"name": name, "description": description, "inputSchema": {"type": "object"}} | fields


def review_digest(tools: list[dict[str, Any]]) -> str:
    """A digest of what a model reads of these tools, in 64 hexadecimal digits."""
    return hashlib.sha256(b"".join(sorted(fingerprint.fingerprint(tool).prompt for tool in tools))).hexdigest()


def offer(
    database: Database,
    id_: int,
    tools: list[dict[str, Any]],
    *,
    source: str = "observed",
    worst: str | None = None,
    under: Policy = "manual",
) -> str:
    """Let a server offer these tools from now on; answers their review digest.

    `worst`: the worst grade of what changed, which the feed is told of the first tool. `under`: the server's policy.
    """
    digests: list[str] = []
    for one in tools:
        document = json.dumps(one)
        digests.append(hashlib.sha256(document.encode()).hexdigest())
        known = fingerprint.fingerprint(one)
        given = known._asdict() | {"digest": digests[-1], "document": document}
        database.write(DOCUMENT, given)
    prompt = review_digest(tools)
    array = "{" + ",".join(f'"\\\\x{digest}"' for digest in digests) + "}"
    given = {"id": id_, "source": source, "prompt": prompt, "about": '{"instructions":null}', "tools": array}
    row = database.read(WAS, given)
    assert row is not None
    compatible, approved, current, decided, reviewed = row
    if worst is not None:
        after = json.dumps({"description": tools[0]["description"]})
        database.write(CHANGE, given | {"subject": tools[0]["name"], "grade": worst, "after": after})
    new = cast("tuple[int]", database.write(SNAPSHOT, given))[0]
    compatible = policies.advance(
        under,
        served=compatible,
        new=new,
        worst=worst,
        decided=decided,
        reviewed=reviewed,
        is_first=current is None,
    )
    approved = policies.approved(served=approved, decided=decided, reviewed=reviewed)
    database.write(LEDGER, given | {"new": new, "compatible_id": compatible, "approved_id": approved})
    return prompt
