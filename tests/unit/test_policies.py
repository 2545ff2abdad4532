"""What is handed out by which policy, as a table."""

from __future__ import annotations

from itertools import product

import pytest

from mcp_registry.errors import NotConfigured
from mcp_registry.ledger import policies
from mcp_registry.ledger.policies import Decision, Policy, State

GRADES = (None, "notation", "text", "compatible", "breaking", "alarming")
OLD, NEW = 1, 2

# policy, served so far, worst grade, decided, whether it is the first: what is served under `compatible` from now on.
ADVANCES: list[tuple[Policy, int | None, str | None, Decision | None, bool, int | None]] = [
    ("compatible", None, None, None, True, NEW),
    ("compatible", OLD, None, None, False, NEW),
    ("compatible", OLD, "notation", None, False, NEW),
    ("compatible", OLD, "text", None, False, NEW),
    ("compatible", OLD, "compatible", None, False, NEW),
    ("compatible", OLD, "breaking", None, False, OLD),
    ("compatible", OLD, "alarming", None, False, OLD),
    ("compatible", OLD, "alarming", "approve", False, NEW),
    ("compatible", OLD, "text", "reject", False, OLD),
    # Rejected before it ever came, by a server that had it once.
    ("compatible", None, None, "reject", True, None),
    # What was served was rejected and nothing was approved: that another one comes makes it no first offer.
    ("compatible", None, None, None, False, None),
    ("compatible", None, None, "approve", False, NEW),
    # Kept for the day on which `compatible` holds: the same rule.
    ("manual", OLD, "text", None, False, NEW),
    ("manual", OLD, "breaking", None, False, OLD),
    ("auto", OLD, "alarming", None, False, NEW),
    ("auto", None, None, None, False, NEW),
]


@pytest.mark.parametrize(("policy", "served", "worst", "decided", "is_first", "expected"), ADVANCES)
def test_what_breaks_or_alarms_waits_and_nothing_else_does(
    policy: Policy,
    served: int | None,
    worst: str | None,
    decided: Decision | None,
    is_first: bool,
    expected: int | None,
) -> None:
    found = policies.advance(policy, served=served, new=NEW, worst=worst, decided=decided, is_first=is_first)
    assert found == expected


@pytest.mark.parametrize(("served", "decided"), [*product((None, OLD), (None, "approve", "reject"))])
def test_only_what_is_approved_is_approved(served: int | None, decided: Decision | None) -> None:
    found = policies.approved(served=served, new=NEW, decided=decided)
    assert found == (NEW if decided == "approve" else served)


@pytest.mark.parametrize(("policy", "worst"), [*product(policies.POLICIES, GRADES)])
def test_an_approval_outweighs_every_grade(policy: Policy, worst: str | None) -> None:
    found = policies.advance(policy, served=OLD, new=NEW, worst=worst, decided="approve", is_first=False)
    assert found == NEW


A, B = b"a" * 32, b"b" * 32
# Review digests of what is served and of what is current, and the decision about that.
STATES: list[tuple[bytes | None, bytes | None, Decision | None, State]] = [
    (A, A, None, "approved"),
    (A, A, "approve", "approved"),
    (B, A, None, "review_needed"),
    (B, A, "approve", "review_needed"),
    (B, A, "reject", "rejected"),
    (None, A, None, "awaiting"),
    (None, A, "reject", "rejected"),
    (None, None, None, "awaiting"),
]


@pytest.mark.parametrize(("served", "current", "decided", "expected"), STATES)
def test_a_server_stands_where_its_current_digest_does(
    served: bytes | None, current: bytes | None, decided: Decision | None, expected: State
) -> None:
    found = [policies.state(policy, served=served, current=current, decided=decided) for policy in policies.POLICIES]
    assert found == ["approved", expected, expected]


def test_a_setting_names_a_policy_or_is_refused() -> None:
    assert [policies.parse(setting) for setting in (None, "", *policies.POLICIES)] == [
        "auto",
        "auto",
        *policies.POLICIES,
    ]
    with pytest.raises(NotConfigured):
        policies.parse("strict")
