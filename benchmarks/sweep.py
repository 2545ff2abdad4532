"""A full sweep through the local run: 10,000 servers of a farm, from the job that starts it to the last row written.

The stack is the one that `make run` starts, with its queues, its functions in processes of their own and its Postgres,
all of them on this machine together with the farm. The schedule is off, so that each sweep is one that we asked for. Of
each: the time from its slot to its last verdict written, verdicts that are not the farm's truth, servers that were not
checked, and how far above a prober that probes one server the largest prober grew.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psycopg

from benchmarks.catalogue import database
from benchmarks.farm import Server, farm, mixed, raise_descriptor_limit
from benchmarks.report import Result, table
from benchmarks.throughput import local_run

SERVERS = 10_000
SWEEPS = 3
SHARDS = 10
BAR_SECONDS, BAR_MEGABYTES = 25.0, 30.0
CRON_SECRET = "cron"

FILL = """
INSERT INTO registry.mcp_servers
       (name, display_name, server_type, endpoint_url, body_digest, content_digest)
SELECT 'farm-' || n, 'Farm ' || n, 'mock', url, '', ''
  FROM unnest(%(urls)s::text[]) WITH ORDINALITY AS t (url, n)
 ORDER BY n
RETURNING id
"""
WRITTEN = """
SELECT count(*)::integer, (extract(epoch FROM max(s.finished_at) - %(slot)s))::float
  FROM metrics.sweep_shards AS s
 WHERE s.slot = %(slot)s
"""
VERDICTS = "SELECT server_id, metrics.is_up(verdict) FROM metrics.server_health_metrics WHERE slot = %(slot)s"


class Sweep(NamedTuple):
    """What one sweep came to."""

    seconds: float
    checked: int
    false_down: int
    false_up: int


def run(server_url: str) -> list[Result]:
    """Sweep the farm some times and print what came of it."""
    raise_descriptor_limit(SERVERS + 2_000)
    url = database(server_url, "sweep")
    with (
        farm(own_namespace=False) as made,
        TemporaryDirectory(prefix="registry-bench-") as folder,
        local_run(url, Path(folder), CRON_SECRET=CRON_SECRET) as port,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        servers = mixed(made.ports, SERVERS)
        alone = _fill(connection, servers[:1])
        _sweep(connection, port, alone, 60)
        single = max(_memory().values())
        connection.execute("DELETE FROM registry.mcp_servers")
        truth = _fill(connection, servers)
        sweeps = [_sweep(connection, port, truth, 120) for _ in range(SWEEPS)]
        grown = max(_memory().values()) - single
    rows = [("sweep", "seconds", "checked", "not checked", "called down, up", "called up, down")]
    rows += [
        (
            str(number),
            f"{sweep.seconds:.1f}",
            f"{sweep.checked:,}",
            str(SERVERS - sweep.checked),
            str(sweep.false_down),
            str(sweep.false_up),
        )
        for number, sweep in enumerate(sweeps, start=1)
    ]
    print(table(rows))
    print(f"\nprober with one server: {single:.0f} MB; with a shard of {SERVERS // SHARDS:,}: +{grown:.0f} MB at most")
    false = sum(sweep.false_down + sweep.false_up for sweep in sweeps)
    missing = sum(SERVERS - sweep.checked for sweep in sweeps)
    return [
        Result("sweep: slot to last verdict", statistics.median(s.seconds for s in sweeps), BAR_SECONDS, "s", 1.0),
        Result("sweep: prober's memory", max(grown, 0.0), BAR_MEGABYTES, "MB", 1.0),
        Result("sweep: false verdicts", false, 1, "", 0.0),
        Result("sweep: not checked", missing, 1, "", 0.0),
    ]


def _fill(connection: psycopg.Connection[Any], servers: Sequence[Server]) -> dict[int, bool]:
    """Register servers of the farm; which of them is up, by id."""
    urls = [f"http://{server.address}:{server.port}{server.path}" for server in servers]
    ids = [id_ for (id_,) in connection.execute(FILL, {"urls": urls})]
    connection.execute("VACUUM ANALYZE registry.mcp_servers, registry.endpoints")
    return {id_: server.up for id_, server in zip(ids, servers, strict=True)}


def _sweep(connection: psycopg.Connection[Any], port: int, truth: dict[int, bool], patience: float) -> Sweep:
    """Start a sweep and wait until every shard is written."""
    started = _start(port)
    deadline = time.monotonic() + patience
    while True:
        row = connection.execute(WRITTEN, {"slot": started["slot"]}).fetchone()
        assert row is not None
        if row[0] == started["shards"]:
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"{row[0]} of {started['shards']} shards were written after {patience:.0f} s")
        time.sleep(0.1)
    found = dict(connection.execute(VERDICTS, {"slot": started["slot"]}).fetchall())
    return Sweep(
        seconds=row[1],
        checked=len(found),
        false_down=sum(truth[id_] and not up for id_, up in found.items()),
        false_up=sum(up and not truth[id_] for id_, up in found.items()),
    )


def _start(port: int) -> dict[str, Any]:
    """Ask for a sweep until it is one of its own: two within 5 s are the same."""
    while True:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/jobs/health-check", method="POST", headers={"x-cron-secret": CRON_SECRET}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            started = json.load(response)
        if started["result"] == "started":
            return started
        time.sleep(1)


def _memory() -> dict[int, float]:
    """The most that each prober has ever had in memory, in MB, by process id."""
    if not sys.platform.startswith("linux"):
        return {0: 0.0}
    found: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"AWS_LAMBDA_FUNCTION_NAME=HealthSweepFunction" not in (folder / "environ").read_bytes():
                continue
            status = (folder / "status").read_text()
        except OSError:  # it ended, or is not ours
            continue
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        found[int(folder.name)] = int(peak.split()[1]) / 1024
    return found
