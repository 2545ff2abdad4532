"""What is handed out of a server, by the policy it is under and by what curators decided. Pure.

A policy says which changes are handed out before somebody has approved of them: `auto` all, `compatible` those that
break nothing and alarm nobody, `manual` none. The ledger keeps for each server the snapshot that each of the last two
hands out (`compatible_id`, `approved_id`) whatever its policy is, so that another policy holds at once.

A decision is about a review digest (`snapshots.prompt`), which is of what a model reads. Two snapshots that have it in
common are the same to a decision, however differently they are written down. The last decision about a digest counts.
"""

from __future__ import annotations

from typing import Final, Literal

from mcp_registry.errors import NotConfigured

Policy = Literal["auto", "compatible", "manual"]
Decision = Literal["approve", "reject"]
State = Literal["approved", "review_needed", "awaiting", "rejected"]

POLICIES: Final[tuple[Policy, ...]] = ("auto", "compatible", "manual")
DECISIONS: Final[tuple[Decision, ...]] = ("approve", "reject")
# Changes of these grades wait for a curator under `compatible`.
WAITING: Final = ("breaking", "alarming")


def parse(setting: str | None) -> Policy:
    """The policy that a setting of a deployment (APPROVAL_POLICY) names; `auto` where it is empty or not set.

    Raises NotConfigured where it names none.
    """
    for policy in POLICIES:
        if policy == (setting or "auto"):
            return policy
    raise NotConfigured


def advance(
    policy: Policy,
    *,
    served: int | None,
    new: int,
    worst: str | None,
    decided: Decision | None,
    is_first: bool,
) -> int | None:
    """The compatible_id of a server of which the snapshot `new` has become the current one.

    `served`: the compatible_id so far. `worst`: the worst grade of the changes from `served` to `new`; None where there
    is none. `decided`: the last decision about the review digest of `new`. `is_first`: there was no current snapshot
    before; nobody relies on a server that was not there, so that this one is no change. Where nothing is served and it
    is not the first, curators rejected what was served: then another one is not served before one is approved.
    """
    if policy == "auto" or decided == "approve":
        return new
    if decided == "reject":
        return served
    if served is None:
        return new if is_first else None
    return served if worst in WAITING else new


def approved(*, served: int | None, new: int, decided: Decision | None) -> int | None:
    """The approved_id of a server of which the snapshot `new` has become the current one.

    `served`: the approved_id so far. `decided`: the last decision about the review digest of `new`.
    """
    return new if decided == "approve" else served


def state(policy: Policy, *, served: bytes | None, current: bytes | None, decided: Decision | None) -> State:
    """Where a server stands: `review_needed` where what it offers now waits for a curator, and another one is served.

    `served` and `current`: the review digests of the snapshot that its policy hands out and of the current one; None
    where there is none. `decided`: the last decision about `current`. `awaiting`: nothing is handed out yet.
    """
    if policy == "auto" or (current is not None and served == current):
        return "approved"
    if decided == "reject":
        return "rejected"
    return "awaiting" if served is None else "review_needed"
