"""What is handed out of a server, by the policy it is under and by what curators decided. Pure.

A policy says which changes are handed out before somebody has approved of them: `auto` all, `compatible` those that
break nothing and alarm nobody, `manual` none. The ledger keeps for each server the snapshot that each of the last two
hands out (`compatible_id`, `approved_id`) whatever its policy is, so that another policy holds at once.

A decision is about a review digest (`snapshots.prompt`), which is of what a model reads; the last one about a digest
counts. What was approved is handed out as it was looked at: where a server writes the same down in another notation,
the snapshot that was reviewed stays the one that is handed out, because notation too can hold words.
"""

from __future__ import annotations

from typing import Final

from mcp_registry.catalogue.offers import Decision, Policy

DECISIONS: Final[tuple[Decision, ...]] = ("approve", "reject")
# Changes of these grades wait for a curator under `compatible`.
WAITING: Final = ("breaking", "alarming")


def advance(
    policy: Policy,
    *,
    served: int | None,
    new: int,
    worst: str | None,
    decided: Decision | None,
    reviewed: int | None,
    is_first: bool,
) -> int | None:
    """The compatible_id of a server of which the snapshot `new` has become the current one.

    `served`: the compatible_id so far. `worst`: the worst grade of the changes from `served` to `new`; None where there
    is none. `decided`: the last decision about the review digest of `new`, and `reviewed` the snapshot that it was made
    about (approvals.snapshot_id); None where there is none. `is_first`: there was no current snapshot before; nobody
    relies on a server that was not there, so that this one is no change. Where nothing is served and it is not the
    first, curators rejected what was served: then another one is not served before one is approved.
    """
    if decided is not None:  # under `auto` too: what was rejected is not to go through once `compatible` holds again
        return approved(served=served, decided=decided, reviewed=reviewed)
    if policy == "auto":
        return new
    if served is None:
        return new if is_first else None
    return served if worst in WAITING else new


def approved(*, served: int | None, decided: Decision | None, reviewed: int | None) -> int | None:
    """The approved_id of a server of which another snapshot has become the current one.

    `served`: the approved_id so far. `decided` and `reviewed`: as for `advance`.
    """
    return reviewed if decided == "approve" and reviewed is not None else served
