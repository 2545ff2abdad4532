"""What the registry does with real servers, without its database: introductions, and sweeps by what they taught."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from mcp_registry.dial.guard import Policy
from mcp_registry.health import probe, pulse, visits
from mcp_registry.health.messages import Visit
from mcp_registry.health.probe import Result, Target
from tests.real.fixtures import RealServer

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
# What introductions may take where something is wrong, and what one sweep has.
PATIENCE = 180.0
SWEEP_SECONDS = 27.0


def introduced(servers: Iterable[RealServer]) -> dict[str, Target]:
    """Introduce the registry to servers: what it asks of each from then on, by name.

    Whoever is late is tried again for as long as anybody is to be patient: a bridge may still be starting another
    server, and other programs may keep the machine busy. Who is late even so is left out.
    """
    left = dict(enumerate(servers, 1))
    targets: dict[str, Target] = {}
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        asked = [Visit(number, number, server.url, None, None, None) for number, server in left.items()]
        for visit, found, known in (
            (one.visit, one.found, one.pulse)
            for one in asyncio.run(visits.introduce_all(asked, seconds=PATIENCE, policy=OPEN))
        ):
            if found.cause == "timeout":
                continue
            verdict = {"up": "healthy", "down": found.cause}.get(found.verdict or "", found.verdict)
            text = None if known is None else pulse.write(known)
            target = Target(visit.server_id, visit.id, visit.url, None, text, found.era, verdict)
            targets[left.pop(visit.id).name] = target
    return targets


def question(target: Target) -> str | None:
    """The name of what is asked of a server in every sweep; None where it is introduced instead."""
    known = pulse.read(target.pulse or "")
    return None if known is None else known.question


def sweep(targets: Sequence[Target], *, at_once: int = 1000) -> list[Result]:
    """One sweep; the results in the order of the targets."""
    placed = [target._replace(id=number) for number, target in enumerate(targets, 1)]
    found = probe.sweep(placed, seconds=SWEEP_SECONDS, policy=OPEN, at_once=at_once)
    return sorted(found, key=lambda result: result.id or 0)
