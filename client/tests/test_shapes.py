"""`introspect` and the registry's introduction are asked about the same table of servers, and find the same."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mcp_registry_client import introspect
from mcp_registry_client.introspect import Failed
from tests import shapes
from tests.shapes import SHAPES

# More than anything here takes.
SECONDS = 20.0
# Half of that would be waited for; test_introspect.py has this one.
AWAITED = {"discover-hangs"}
ASKED = [name for name in SHAPES if name not in AWAITED]


def outcome(url: str) -> str:
    """What `introspect` makes of a server, in the words of the table."""
    try:
        introspect.introspect(url, deadline_seconds=SECONDS)
    except Failed as failed:
        return "gated" if failed.kind == "credentials" else "down"
    return "up"


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, str]]:
    """Of every shape that is asked."""
    with shapes.serving() as farm, ThreadPoolExecutor(16) as threads:
        urls = [shapes.url(farm, name) for name in ASKED]
        yield dict(zip(ASKED, threads.map(outcome, urls), strict=True))


@pytest.mark.parametrize("name", [name for name in ASKED if SHAPES[name].client])
def test_introspect_finds_what_the_introduction_of_the_registry_finds(outcomes, name):
    assert outcomes[name] == SHAPES[name].verdict


@pytest.mark.parametrize("name", [name for name in ASKED if not SHAPES[name].client])
def test_where_they_differ_is_known(outcomes, name):
    """A row that agrees by now belongs to the others."""
    assert outcomes[name] != SHAPES[name].verdict
