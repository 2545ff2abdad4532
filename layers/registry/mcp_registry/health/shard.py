"""One shard of a sweep: probed, and what was found sent on. Knows two queues and no database.

What is found soon is sent on soon: one that hangs would else delay the verdicts of all others until the sweep is over.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque

from mcp_registry.aws import observability, queues
from mcp_registry.edge.background import Record
from mcp_registry.errors import Unavailable
from mcp_registry.health import messages, probe
from mcp_registry.health.messages import Finding, Findings, Shard

# Every verdict is to be written within 25 s of its slot; all that is asked is over by this.
SWEEP_SECONDS = 22.0
# The dials of a shard are spread: 8 ms for each endpoint, so that a hundred take 0.8 s. The last ones are to have time
# for a pulse, a second look and an introduction, each of a deadline.
SPREAD_SECONDS_EACH = 0.008
MAX_SPREAD_SECONDS = 8.0
# The checks of one address in a sweep, unless the setting of this name says otherwise.
CHECKS_PER_HOST = 200
# What sending the findings may take, of the time that the function has.
SEND_SECONDS = 3.0
# A shard that nobody took for this long would run into the next sweep.
MAX_WAIT_SECONDS = 10.0

# The shards that this execution environment has probed. The queue delivers none twice; an event may.
_probed: deque[tuple[float, int]] = deque(maxlen=1_000)


def check(record: Record) -> None:
    """Probe the endpoints of a shard and send what was found to the result queue.

    Endpoints that there was no time for, or that could not be checked fairly, are left out: they are not checked. So is
    a whole shard that comes too late. Raises Malformed where the message is not a shard, Unavailable where the result
    queue does not take what was found.
    """
    shard = messages.shard(record.body)
    total = len(shard.endpoints) + len(shard.servers)
    key = (shard.slot.timestamp(), shard.shard)
    if key in _probed:
        observability.log_shard(shard.slot.isoformat(), shard.shard, "duplicate", 0, total)
        return
    # One that comes again was given up by a function that ended in the middle, longer ago than a half minute
    # (VisibilityTimeout of the queue).
    if record.received > 1 or record.waited_seconds > MAX_WAIT_SECONDS:
        observability.log_shard(shard.slot.isoformat(), shard.shard, "late", 0, total)
        return
    _probed.append(key)
    seconds = min(SWEEP_SECONDS - record.waited_seconds, record.remaining_seconds - SEND_SECONDS)
    spread = min(total * SPREAD_SECONDS_EACH, MAX_SPREAD_SECONDS, max(seconds / 3, 0))
    targets = [probe.Target(*endpoint) for endpoint in shard.endpoints]
    targets += [probe.Target(server.id, None, server.endpoint_url, server.health_url) for server in shard.servers]
    per_host = _share(int(os.environ.get("CHECKS_PER_HOST", CHECKS_PER_HOST)), shard.shards)
    told: list[probe.Result] = []

    def early(results: list[probe.Result]) -> None:
        try:
            _send(shard, results)
        except Unavailable:
            return  # they are sent with the others, at the end
        told.extend(results)

    results = probe.sweep(targets, seconds=seconds, spread=spread, per_host=per_host, first=shard.first, early=early)
    known = {(result.server_id, result.id) for result in told}
    _send(shard, [result for result in results if (result.server_id, result.id) not in known], last=True)
    unchecked = Counter(result.error for result in results if result.verdict is None)
    checked = len(results) - unchecked.total()
    observability.log_shard(shard.slot.isoformat(), shard.shard, "probed", checked, total, dict(unchecked))


def _send(shard: Shard, results: list[probe.Result], *, last: bool = False) -> None:
    """Send what was found; of the `last`, also that it is nothing. Raises Unavailable.

    All endpoints of a server come together: its row of a slot is written once, of the best of them.
    """
    sent = time.monotonic()
    findings = [
        Finding(
            server_id=result.server_id,
            verdict=result.verdict,  # pyright: ignore[reportArgumentType] - one of messages.Verdict
            status_code=result.status_code,
            response_time_ms=result.response_time_ms or 0,
            error=result.error,
            age_ms=max(round((sent - result.ended) * 1000), 0),
            endpoint_id=result.id,
            retry_after=result.retry_after,
            in_doubt=result.in_doubt,
            evidence=[messages.Evidence(*one) for one in result.evidence],
        )
        for result in sorted(results, key=lambda result: result.server_id)
        if result.verdict is not None
    ]
    if findings or last:
        for part in _parts(Findings(shard.slot, shard.shard, findings)):
            queues.send(os.environ["RESULT_QUEUE_URL"], part)


def _share(checks: int, shards: int) -> int:
    """How many of the checks that one address has in a sweep are for one of its shards.

    Servers are dealt to the shards in turn, so that each has about as many of an address. Twice the even share keeps
    an address with no more servers than checks from losing some by chance; of one with more, a sweep makes twice as
    many checks at most, or one in each shard.
    """
    return max(min(checks, 2 * checks // shards), 1)


def _parts(findings: Findings) -> list[str]:
    """The findings as one message, or as halves where one is too long: those of a server stay in one of them."""
    body = messages.encode(findings)
    if len(body.encode()) <= queues.MAX_BODY:
        return [body]
    middle = place = len(findings.findings) // 2
    while place and findings.findings[place].server_id == findings.findings[place - 1].server_id:
        place -= 1
    middle = place or middle
    halves = (findings.findings[:middle], findings.findings[middle:])
    return [part for half in halves for part in _parts(Findings(findings.slot, findings.shard, half))]
