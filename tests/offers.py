"""What servers offer, written straight into the ledger: for tests that read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

DOCUMENT = """
INSERT INTO registry.documents (digest, raw, document) VALUES (%(digest)s, %(digest)s, %(document)s::json)
    ON CONFLICT DO NOTHING
"""
SNAPSHOT = """
WITH before AS (
    UPDATE registry.snapshots
       SET last_seen = %(at)s::timestamptz
     WHERE server_id = %(server_id)s AND source = %(source)s::registry.source AND last_seen IS NULL
), snapshot AS (
    INSERT INTO registry.snapshots
           (server_id, source, digest, prompt, first_seen, version, about, tools, prompts, resources, templates)
    VALUES (%(server_id)s, %(source)s::registry.source, %(digest)s, %(prompt)s, %(at)s::timestamptz, '1.0.0',
            %(about)s::json, %(tools)s::bytea[], %(prompts)s::bytea[], %(resources)s::bytea[], %(templates)s::bytea[])
    RETURNING id, source
)
INSERT INTO registry.ledger AS l (server_id, declared_id, observed_id, state)
SELECT %(server_id)s, CASE source WHEN 'declared' THEN id END, CASE source WHEN 'observed' THEN id END,
       CASE source WHEN 'observed' THEN 'observed' END
  FROM snapshot
    ON CONFLICT (server_id) DO UPDATE
   SET declared_id = COALESCE(excluded.declared_id, l.declared_id),
       observed_id = COALESCE(excluded.observed_id, l.observed_id),
       state = COALESCE(excluded.state, l.state)
RETURNING COALESCE((SELECT id FROM snapshot), 0)
"""
LISTS = ("tools", "prompts", "resources", "templates")


def written(value: object) -> str:
    """A JSON value as the ledger keeps it: without blanks, in ASCII."""
    return json.dumps(value, separators=(",", ":"))


def offer(
    connection: psycopg.Connection,
    server_id: int,
    lists: Mapping[str, Sequence[Mapping[str, Any]] | None],
    source: str = "observed",
    at: str = "2026-12-01T00:00:00Z",
    about: Mapping[str, Any] | None = None,
) -> int:
    """Write that a server offers this from a time on; the id of the snapshot. A list that is not given is not known."""
    digests: dict[str, list[bytes] | None] = dict.fromkeys(LISTS)
    for name, items in lists.items():
        found: list[bytes] = []
        for item in items or ():
            document = written(item)
            found.append(hashlib.sha256(document.encode()).digest())
            connection.execute(DOCUMENT, {"digest": found[-1], "document": document})
        digests[name] = None if items is None else found
    whole = hashlib.sha256(written([lists, about]).encode()).digest()
    said = {"server_info": {"name": "x"}, "protocol_versions": ["2025-11-25"], "capabilities": {}, "instructions": None}
    given = {"server_id": server_id, "source": source, "at": at, "digest": whole, "prompt": whole, **digests}
    row = connection.execute(SNAPSHOT, given | {"about": written(about or said)}).fetchone()
    assert row is not None
    return row[0]
