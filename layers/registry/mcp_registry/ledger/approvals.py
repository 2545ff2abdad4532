"""Approvals: what curators decide about what servers offer, and which policy a server is under.

A decision is about a review digest, and is made of one snapshot that has it (STANDING). What comes of it is worked out
here by `policies` and written by one statement that compares the revision of the ledger's row: of two that decide at
once, or of one that decides while another offer is recorded, the second reads again.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, LiteralString, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from mcp_registry import forms
from mcp_registry.access.rules import UNREADABLE
from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller
from mcp_registry.catalogue import offers, servers
from mcp_registry.catalogue.offers import CURRENT, DECIDED, SERVED, Decision, Policy, policy
from mcp_registry.errors import Fault, NotUnderReview, ServerNotFound, SnapshotNotFound, Unavailable, ValidationFailed

__all__ = ["SERVED", "decide", "parse_decision", "parse_policy", "policy", "set_policy", "show"]

# Decisions that are told, the newest first; and of the changes that wait, the last ones.
MAX_DECISIONS: Final = 100
MAX_CHANGES: Final = 500
# Bytes of these changes: Lambda answers with 6 MB at most, and the client reads 4 MiB.
MAX_BYTES: Final = 2_000_000
# Each lost race means that another decision, or another offer, was written.
MAX_RACES: Final = 50
MAX_REASON: Final = 500

DIGEST: Final = re.compile("[0-9a-f]{64}")


class Wish(Struct, forbid_unknown_fields=True, kw_only=True):
    """A decision about a review digest."""

    digest: str
    decision: Decision
    reason: Annotated[str, Meta(min_length=1, max_length=MAX_REASON)] | None = None


class Ruling(Struct, forbid_unknown_fields=True, kw_only=True):
    """The policy that a server is to be under; None: that of the deployment."""

    policy: Policy | None = None


# Where a server stands. `wanted`: of the digest that is decided about, the snapshot to look at - what the server offers
# now, where that has it, else the one that was approved of, and else the newest. `before`: of the other digests that
# are approved, the snapshot of the one that was approved last.
STANDING: LiteralString = f"""
SELECT s.name, s.owner, l.revision, l.policy::text, now.id, now.prompt, {DECIDED}, l.compatible_id, compatible.prompt,
       l.approved_id, approved.prompt, wanted.id, before.snapshot_id, before.prompt
  FROM registry.mcp_servers AS s
  LEFT JOIN registry.ledger AS l ON l.server_id = s.id
  LEFT JOIN registry.snapshots AS now ON now.id = {CURRENT}
  LEFT JOIN registry.snapshots AS compatible ON compatible.id = l.compatible_id
  LEFT JOIN registry.snapshots AS approved ON approved.id = l.approved_id
  LEFT JOIN LATERAL (SELECT n.id
                       FROM registry.snapshots AS n
                      WHERE n.server_id = s.id
                        AND n.prompt = %(digest)s
                      ORDER BY n.id IS NOT DISTINCT FROM now.id DESC,
                               n.id IS NOT DISTINCT FROM (SELECT a.snapshot_id
                                                            FROM registry.approvals AS a
                                                           WHERE a.server_id = s.id
                                                             AND a.digest = %(digest)s
                                                             AND a.decision = 'approve'
                                                           ORDER BY a.id DESC
                                                           LIMIT 1) DESC,
                               n.id DESC
                      LIMIT 1) AS wanted ON true
  LEFT JOIN LATERAL (SELECT a.snapshot_id, n.prompt
                       FROM (SELECT DISTINCT ON (digest) id, snapshot_id, decision
                               FROM registry.approvals
                              WHERE server_id = s.id
                                AND digest <> %(digest)s
                              ORDER BY digest, id DESC) AS a
                       JOIN registry.snapshots AS n ON n.id = a.snapshot_id
                      WHERE a.decision = 'approve'
                      ORDER BY a.id DESC
                      LIMIT 1) AS before ON true
 WHERE s.id = %(id)s
"""  # noqa: S608 - of literals

# Where a server comes to stand otherwise, the feed tells it; each decision is an entry of the audit.
_TOLD: LiteralString = """
told AS (
    INSERT INTO registry.changes (server_id, name, owner, kind, before, after)
    SELECT id, name, owner, 'review', json_build_object('state', %(state_before)s::text),
           json_build_object('state', %(state_after)s::text)
      FROM changed
     WHERE %(state_before)s::text <> %(state_after)s::text
)"""
_AUDIT: LiteralString = """
    INSERT INTO registry.audit (actor, role, team, request_id, address, action, target, before, after)
    SELECT %(caller)s, %(caller_role)s::registry.role, %(caller_team)s, %(request_id)s, %(address)s,"""

# No row where the ledger's row is not as it was read.
DECIDE: LiteralString = f"""
WITH changed AS (
    UPDATE registry.ledger AS l
       SET compatible_id = %(compatible_id)s::bigint,
           approved_id = %(approved_id)s::bigint,
           revision = l.revision + 1,
           changed_at = now()
      FROM registry.mcp_servers AS s
     WHERE l.server_id = %(id)s
       AND l.revision = %(revision)s
       AND s.id = l.server_id
    RETURNING s.id, s.name, s.owner
), decision AS (
    SELECT changed.id, changed.name, d.place, decode(d.digest, 'hex') AS digest, d.snapshot_id, d.decision
      FROM changed
     CROSS JOIN json_to_recordset(%(decisions)s::json)
        AS d (place integer, digest text, snapshot_id bigint, decision registry.decision)
), approval AS (
    INSERT INTO registry.approvals (server_id, digest, snapshot_id, decision, reason, decided_by)
    SELECT id, digest, snapshot_id, decision, %(reason)s, %(caller)s
      FROM decision
     ORDER BY place
), {_TOLD}, audit AS ({_AUDIT}
           CASE decision WHEN 'approve' THEN 'server.approved' ELSE 'server.rejected' END, 'server:' || name, NULL,
           jsonb_build_object('digest', encode(digest, 'hex'), 'reason', %(reason)s::text)
      FROM decision
     ORDER BY place
)
SELECT id
  FROM changed
"""  # noqa: S608 - of literals

# Likewise. A server that the ledger has not come to yet gets its row here.
SET_POLICY: LiteralString = f"""
WITH written AS (
    INSERT INTO registry.ledger AS l (server_id, policy)
    SELECT id, %(wanted)s::registry.policy
      FROM registry.mcp_servers
     WHERE id = %(id)s
        ON CONFLICT (server_id) DO UPDATE
       SET policy = excluded.policy,
           revision = l.revision + 1,
           changed_at = now()
     WHERE l.revision = %(revision)s::integer
    RETURNING l.server_id
), changed AS (
    SELECT s.id, s.name, s.owner
      FROM written
      JOIN registry.mcp_servers AS s ON s.id = written.server_id
), {_TOLD}, audit AS ({_AUDIT}
           'server.policy', 'server:' || name, jsonb_build_object('policy', %(own)s::text),
           jsonb_build_object('policy', %(wanted)s::text)
      FROM changed
)
SELECT id
  FROM changed
"""  # noqa: S608 - of literals

# What is told of a review. Of the changes those since the snapshot that is handed out; `is_told`: whether the caller
# is told of what nobody has approved of yet.
SHOW: LiteralString = f"""
WITH standing AS (
    SELECT s.id, l.policy, now.prompt AS now_prompt, served.prompt AS served_prompt, served.first_seen,
           {DECIDED} AS decided,
           %(curates)s OR s.owner = %(caller_team)s
           OR COALESCE(l.policy, %(policy)s::registry.policy) = 'auto' AS is_told,
           CASE WHEN now.id IS NOT NULL
                THEN json_build_object('digest', encode(now.prompt, 'hex'), 'source', now.source,
                                       'first_seen', registry.rfc3339(now.first_seen),
                                       'tools_count', cardinality(now.tools)) END AS current,
           CASE WHEN served.id IS NOT NULL
                THEN json_build_object('digest', encode(served.prompt, 'hex'), 'source', served.source,
                                       'first_seen', registry.rfc3339(served.first_seen),
                                       'tools_count', cardinality(served.tools)) END AS approved
      FROM registry.mcp_servers AS s
      LEFT JOIN registry.ledger AS l ON l.server_id = s.id
      LEFT JOIN registry.snapshots AS now ON now.id = {CURRENT}
      LEFT JOIN registry.snapshots AS served ON served.id = {SERVED}
     WHERE s.id = %(id)s
), change AS (
    SELECT c.id, row_to_json(shown)::text AS json
      FROM standing
      JOIN registry.changes AS c
        ON c.server_id = standing.id
       AND c.source IS NOT NULL
       AND c.kind <> 'registered'
       AND c.occurred_at > standing.first_seen
     CROSS JOIN LATERAL (SELECT c.id AS sequence, registry.rfc3339(c.occurred_at) AS at, c.source, c.kind, c.subject,
                                c.grade, c.before, c.after, c.reasons) AS shown
     WHERE is_told
       AND served_prompt IS DISTINCT FROM now_prompt
     ORDER BY c.id DESC
     LIMIT %(limit)s
)
SELECT policy::text, served_prompt, now_prompt, decided, is_told, current, approved,
       (SELECT '[' || COALESCE(string_agg(json, ',' ORDER BY id), '') || ']'
          FROM (SELECT id, json, sum(octet_length(json)) OVER (ORDER BY id DESC) AS so_far FROM change) AS measured
         WHERE so_far <= %(bytes)s),
       (SELECT COALESCE(json_agg(shown ORDER BY shown.id DESC), '[]')
          FROM (SELECT a.id, encode(a.digest, 'hex') AS digest, a.decision, a.reason,
                       CASE WHEN is_told THEN a.decided_by END AS by, registry.rfc3339(a.decided_at) AS at
                  FROM registry.approvals AS a
                 WHERE a.server_id = standing.id
                 ORDER BY a.id DESC
                 LIMIT %(kept)s) AS shown)
  FROM standing
"""  # noqa: S608 - of literals


class _Standing(NamedTuple):
    """What STANDING finds: a server, its snapshots and their review digests."""

    name: str
    owner: str
    revision: int | None
    own: Policy | None
    current: int | None
    current_digest: bytes | None
    decided: Decision | None
    compatible: int | None
    compatible_digest: bytes | None
    approved: int | None
    approved_digest: bytes | None
    wanted: int | None
    before: int | None
    before_digest: bytes | None

    def state(self, under: Policy) -> offers.State:
        """Where the server stands under a policy."""
        served = self.approved_digest if under == "manual" else self.compatible_digest
        return offers.state(under, served=served, current=self.current_digest, decided=self.decided)

    def serving(self, snapshot: int, digest: bytes) -> _Standing:
        """The same where this snapshot is handed out."""
        return self._replace(compatible=snapshot, compatible_digest=digest, approved=snapshot, approved_digest=digest)

    def without(self, digest: bytes) -> _Standing:
        """The same where nothing of this review digest is handed out; in its place is what was approved before."""
        after = self
        if self.compatible_digest == digest:
            after = after._replace(compatible=self.before, compatible_digest=self.before_digest)
        if self.approved_digest == digest:
            after = after._replace(approved=self.before, approved_digest=self.before_digest)
        return after


Sent = TypeVar("Sent", bound=Struct)


def parse_decision(value: Any) -> Wish:
    """Check a JSON value and return it as a decision. Raises ValidationFailed with every fault that was found."""
    wish = _converted(value, Wish, "A decision")
    faults: list[Fault] = []
    if not DIGEST.fullmatch(wish.digest):
        faults.append(Fault("digest", "A SHA-256, in 64 hexadecimal digits", "value"))
    if wish.reason is not None and UNREADABLE.search(wish.reason):
        faults.append(Fault("reason", "Holds control characters", "value"))
    if faults:
        raise ValidationFailed(faults=faults)
    return wish


def parse_policy(value: Any) -> Policy | None:
    """Check a JSON value and return the policy that it names: None where that is null. Raises ValidationFailed.

    Here null is not as good as absent: an empty object names no policy.
    """
    ruling = _converted(value, Ruling, "A policy")
    if "policy" not in value:
        raise ValidationFailed(faults=[Fault("policy", "This field is required", "missing")])
    return ruling.policy


def show(database: Database, caller: Caller, server: int | str) -> str:
    """Where a server stands, as JSON text.

    That is its policy, what it offers now, what is handed out, what changed between these, and what was decided. What
    changed and waits is told to curators and to the owner's team alone: a text that nobody has approved of is to lead
    nobody's agent. Raises ServerNotFound.
    """
    id_, under = servers.identify(database, server), policy()
    given = {
        "id": id_,
        "policy": under,
        "caller_team": caller.team,
        "curates": caller.may("curator"),
        "limit": MAX_CHANGES,
        "kept": MAX_DECISIONS,
        "bytes": MAX_BYTES,
    }
    row = database.read(SHOW, given)
    if row is None:
        raise ServerNotFound
    own, served, now, decided, is_told, current, approved, changes, decisions = row
    told = {
        "policy": own or under,
        "policy_is_own": own is not None,
        "state": offers.state(own or under, served=served, current=now, decided=decided),
        "current": current,
        "approved": approved,
        "withheld": not is_told,
        "decisions": decisions,
    }
    return f'{json.dumps(told, ensure_ascii=False, separators=(",", ":"))[:-1]},"changes":{changes}}}'


def decide(database: Database, caller: Caller, server: int | str, wish: Wish) -> dict[str, Any]:
    """Approve of what a server offers or offered, or reject it; answers where the server stands then.

    What is approved is handed out from now on. Where that is not what the server offers now, this is rejected: to
    approve of an older one is to go back to it. What is rejected is handed out no more; in its place comes what was
    approved last of the others, or nothing. Raises ServerNotFound; SnapshotNotFound where the server never offered
    anything of this digest; NotUnderReview where its policy hands everything out, so that a decision would keep nothing
    from anybody.
    """
    id_, digest = servers.identify(database, server), bytes.fromhex(wish.digest)
    for _ in range(MAX_RACES):
        found = _standing(database, id_, digest)
        if found.wanted is None:
            raise SnapshotNotFound
        under = found.own or policy()
        is_current = digest == found.current_digest
        if under == "auto" and not (wish.decision == "approve" and is_current):
            raise NotUnderReview
        decisions = [(wish.digest, found.wanted, wish.decision)]
        after = found.without(digest) if wish.decision == "reject" else found.serving(found.wanted, digest)
        if is_current:
            after = after._replace(decided=wish.decision)
        elif wish.decision == "approve" and found.current is not None and found.current_digest is not None:
            decisions.insert(0, (found.current_digest.hex(), found.current, "reject"))
            after = after._replace(decided="reject")
        names = ("place", "digest", "snapshot_id", "decision")
        given = {
            **caller.parameters(),
            "id": id_,
            "revision": found.revision,
            "compatible_id": after.compatible,
            "approved_id": after.approved,
            "decisions": json.dumps(
                [dict(zip(names, (place, *one), strict=True)) for place, one in enumerate(decisions)]
            ),
            "reason": wish.reason,
            "state_before": found.state(under),
            "state_after": after.state(under),
        }
        if database.write(DECIDE, given) is not None:
            told = {"digest": wish.digest, "decision": wish.decision, "reason": wish.reason}
            return _answer(id_, found.name, found.own, after.state(under)) | told
    raise Unavailable("lost every race")


def set_policy(database: Database, caller: Caller, server: int | str, wanted: Policy | None) -> dict[str, Any]:
    """Put a server under a policy of its own, or under the deployment's (None); answers where it stands then.

    What changes nothing is not written down. Raises ServerNotFound.
    """
    id_ = servers.identify(database, server)
    for _ in range(MAX_RACES):
        found = _standing(database, id_, b"")
        state = found.state(wanted or policy())
        given = {
            **caller.parameters(),
            "id": id_,
            "revision": found.revision,
            "own": found.own,
            "wanted": wanted,
            "state_before": found.state(found.own or policy()),
            "state_after": state,
        }
        if found.own == wanted or database.write(SET_POLICY, given) is not None:
            return _answer(id_, found.name, wanted, state)
    raise Unavailable("lost every race")


def _converted(value: Any, struct: type[Sent], subject: str) -> Sent:
    if not isinstance(value, dict):
        raise ValidationFailed(f"{subject} is a JSON object")
    normal = forms.present(value)
    try:
        return msgspec.convert(normal, struct)
    except msgspec.ValidationError:
        raise ValidationFailed(faults=forms.faults(normal, struct)) from None


def _standing(database: Database, id_: int, digest: bytes) -> _Standing:
    row = database.read(STANDING, {"id": id_, "digest": digest})
    if row is None:
        raise ServerNotFound
    return _Standing(*row)


def _answer(id_: int, name: str, own: Policy | None, state: offers.State) -> dict[str, Any]:
    return {"id": id_, "name": name, "policy": own or policy(), "policy_is_own": own is not None, "state": state}
