"""What is handed out by which policy, as a table."""

from __future__ import annotations

from itertools import product

import pytest

from mcp_registry.catalogue import offers
from mcp_registry.catalogue.offers import Decision, Policy, State
from mcp_registry.errors import NotConfigured
from mcp_registry.ledger import policies

GRADES = (None, "notation", "text", "compatible", "breaking", "alarming")
OLD, REVIEWED, NEW = 1, 2, 3

# policy, served so far, worst grade, decided, whether it is the first: what is served under `compatible` from now on.
ADVANCES: list[tuple[Policy, int | None, str | None, Decision | None, bool, int | None]] = [
    ("compatible", None, None, None, True, NEW),
    ("compatible", OLD, None, None, False, NEW),
    ("compatible", OLD, "notation", None, False, NEW),
    ("compatible", OLD, "text", None, False, NEW),
    ("compatible", OLD, "compatible", None, False, NEW),
    ("compatible", OLD, "breaking", None, False, OLD),
    ("compatible", OLD, "alarming", None, False, OLD),
    ("compatible", OLD, "alarming", "approve", False, REVIEWED),
    ("compatible", OLD, "text", "reject", False, OLD),
    # Rejected before it ever came, by a server that had it once.
    ("compatible", None, None, "reject", True, None),
    # What was served was rejected and nothing was approved: that another one comes makes it no first offer.
    ("compatible", None, None, None, False, None),
    ("compatible", None, None, "approve", False, REVIEWED),
    # Kept for the day on which `compatible` holds: the same rule.
    ("manual", OLD, "text", None, False, NEW),
    ("manual", OLD, "breaking", None, False, OLD),
    ("auto", OLD, "alarming", None, False, NEW),
    ("auto", None, None, None, False, NEW),
    # `auto` hands it out all the same; what was decided holds on the day on which `compatible` does.
    ("auto", OLD, "text", "reject", False, OLD),
    ("auto", None, None, "reject", False, None),
    ("auto", OLD, "alarming", "approve", False, REVIEWED),
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
    reviewed = None if decided is None else REVIEWED
    found = policies.advance(
        policy, served=served, new=NEW, worst=worst, decided=decided, reviewed=reviewed, is_first=is_first
    )
    assert found == expected


@pytest.mark.parametrize(("served", "decided"), [*product((None, OLD), (None, "approve", "reject"))])
def test_only_what_is_approved_is_approved(served: int | None, decided: Decision | None) -> None:
    found = policies.approved(served=served, decided=decided, reviewed=REVIEWED)
    assert found == (REVIEWED if decided == "approve" else served)
    assert policies.approved(served=served, decided=decided, reviewed=None) == served


@pytest.mark.parametrize(("policy", "worst"), [*product(("compatible", "manual"), GRADES)])
def test_an_approval_outweighs_every_grade_and_hands_out_what_was_reviewed(policy: Policy, worst: str | None) -> None:
    found = policies.advance(
        policy, served=OLD, new=NEW, worst=worst, decided="approve", reviewed=REVIEWED, is_first=False
    )
    assert found == REVIEWED


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
    found = [offers.state(policy, served=served, current=current, decided=decided) for policy in offers.POLICIES]
    assert found == ["approved", expected, expected]


def test_a_setting_names_a_policy_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPROVAL_POLICY", raising=False)
    assert offers.policy() == "auto"
    for setting in ("", *offers.POLICIES):
        monkeypatch.setenv("APPROVAL_POLICY", setting)
        assert offers.policy() == (setting or "auto")
    monkeypatch.setenv("APPROVAL_POLICY", "strict")
    with pytest.raises(NotConfigured):
        offers.policy()


ODD = (
    '{ "name" : "a\\u0000", "inputSchema":{"const": 1e999, "n": 1.000000000000000000001, "m": '
    + "9" * 5_000
    + '} , "id": 7, "input_schema": 8, "created_at": 1, "_meta": {"x": [1, {"y": "\\ud800"}]}, "title":null }'
)


def test_a_tool_is_spelled_as_a_detail_does_and_its_values_stay_as_they_are_written() -> None:
    assert offers.respell(ODD) == (
        '{"name":"a\\u0000","title":null,"description":null,"input_schema":{"const": 1e999, "n": '
        "1.000000000000000000001, "
        f'"m": {"9" * 5_000}}},"output_schema":null,"annotations":null,"category":null,"id":null,"created_at":null,'
        '"_meta":{"x": [1, {"y": "\\ud800"}]}}'
    )
    assert offers.respell('{"name":"a"}').startswith('{"name":"a","title":null,"description":null,"input_schema":{},')
