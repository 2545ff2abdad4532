"""`introspect`, `check` and the registry's introduction find the same of one table of servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from mcp_registry.dial import introduction
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import Introduction

from mcp_registry_client import introspect
from mcp_registry_client.introspect import Failed, Sight
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


OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})


@pytest.fixture(scope="module")
def looks() -> Iterator[dict[str, tuple[Sight, Introduction]]]:
    """What a check and what the introduction of the registry find of every shape."""

    async def introduced(urls: list[str]) -> list[Introduction]:
        return await asyncio.gather(*(introduction.introduce(url, policy=OPEN) for url in urls))

    with shapes.serving() as farm, ThreadPoolExecutor(16) as threads:
        urls = [shapes.url(farm, name) for name in ASKED]
        theirs = threads.submit(asyncio.run, introduced(urls))
        sights = list(threads.map(introspect.check, urls))
        yield dict(zip(ASKED, zip(sights, theirs.result(), strict=True), strict=True))


@pytest.mark.parametrize("name", ASKED)
def test_a_check_finds_word_for_word_what_the_introduction_of_the_registry_finds(looks, name):
    sight, found = looks[name]
    verdict = {"up": "healthy", "down": found.cause}.get(found.verdict, found.verdict)
    reason = None if verdict == "gated" else found.reason
    assert (sight.verdict, sight.status_code, sight.error_message) == (verdict, found.status_code, reason)
    assert found.verdict == SHAPES[name].verdict
    gate = found.gate._asdict() if found.gate else None
    assert (sight.auth._asdict() if sight.auth else None) == gate
    asked = [(one.asked, one.status, one.media_type) for one in found.evidence]
    assert [one[:3] for one in sight.evidence] == asked


@pytest.mark.parametrize("name", [name for name in ASKED if SHAPES[name].client])
def test_introspect_finds_what_the_introduction_of_the_registry_finds(outcomes, name):
    assert outcomes[name] == SHAPES[name].verdict


@pytest.mark.parametrize("name", [name for name in ASKED if not SHAPES[name].client])
def test_where_they_differ_is_known(outcomes, name):
    """A row that agrees by now belongs to the others."""
    assert outcomes[name] != SHAPES[name].verdict
