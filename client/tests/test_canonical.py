"""The digest has to be the registry's own, or every start sends everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from client.tests.conftest import BASIC, Registry
from mcp_registry_client import _transport
from mcp_registry_client._canonical import canonical, digest

# What RFC 8785 covers: integers up to 2**53, and text without lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LIMIT = 2**53 - 1
NUMBERS = st.integers(-LIMIT, LIMIT) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
@example({"\ufb33": 1, "\U0001f600": 2, "a": [1e21, 1e-7, -0.0, 5e-324, 1e16, 123456789012345680.0, 0.1]})
@example({"": '\x7f\x00\u2028\\"/\b', "é": 333333333.33333329})
def test_the_canonical_form_is_that_of_rfc_8785(value: Any):
    assert canonical(value) == rfc8785.dumps(value)


def test_integers_beyond_what_the_rfc_covers_keep_all_their_digits():
    assert canonical({"maximum": 2**63}) == b'{"maximum":9223372036854775808}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"a": {1}}, {1: "a"}, object()])
def test_what_is_not_json_has_no_canonical_form(value: Any):
    with pytest.raises((ValueError, TypeError)):
        canonical([value])


def test_the_registry_knows_a_registration_by_this_digest(registry: Registry):
    name = registry.new_name("digest")
    schema = {"type": "object", "maximum": 1e300, "minimum": -0.0, "default": 2**60, "\U0001f600": 1, "\ufb33": 1.5}
    sent = {
        "name": name,
        "display_name": "Größe – “all”",
        "server_type": "mock",
        "endpoint_url": "http://127.0.0.1:8080/mcp",
        "tools": [{"name": "zoo", "input_schema": schema}, {"name": "ant", "input_schema": {"enum": [1.0, 0.1, 1e16]}}],
    }
    url = f"{registry.url}/api/registry/register"
    headers = {"Content-Type": "application/json", "Authorization": BASIC}
    # In another spelling than the canonical one: the digest is of what it means.
    body = json.dumps(sent, indent=2).encode()
    assert _transport.request("PUT", url, headers=headers, body=body, deadline_seconds=20).status == 201
    known = {"X-Registration-Digest": digest(sent), "Authorization": BASIC}
    assert _transport.request("PUT", url, headers=known, deadline_seconds=20).status == 204
