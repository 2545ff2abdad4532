"""What it costs to look at 10,000 servers each hour that offer what they did, and how many can be looked at.

Two halves, as they are two functions. Writing: 10,000 servers are introduced for the first time, each with the five
tools of a real one, and then as before, in messages of fifty, through one connection; of each observation the CPU that
Postgres spends, and the rows that are written but for the last check: an introduction is a check as well, and was one
before there was a ledger. Looking: one process of `introduce` asks servers of the farm that are
up, twenty tools each, and knows the digest of what they offer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.catalogue import filled
from benchmarks.farm import farm, mixed
from benchmarks.report import Result, table
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import fingerprint
from mcp_registry.dial.guard import Policy
from mcp_registry.edge.background import Record
from mcp_registry.health import introductions, messages, visits
from mcp_registry.health.messages import Finding, Introduced, Introductions, Visit
from mcp_registry.ledger import recording

SERVERS = 10_000
BATCH = 50
VISITS = 500
# Of Postgres for an unchanged observation, and rows of it (goals.md).
BAR_MILLISECONDS, BAR_ROWS = 1.0, 1.0
AN_HOUR = 10_000

ENDPOINTS = """
SELECT json_agg(json_build_array(s.id, s.endpoint_id, t.tools) ORDER BY s.id)
  FROM registry.mcp_servers AS s
 CROSS JOIN LATERAL (SELECT json_agg(json_build_object('name', name, 'description', description,
                                                       'inputSchema', input_schema) ORDER BY position) AS tools
                       FROM registry.tools
                      WHERE server_id = s.id) AS t
"""
SETTLE = """
WITH settled AS (UPDATE registry.endpoints SET moved_at = now() - interval '9 hours' RETURNING 1)
SELECT count(*) FROM settled
"""
# Rows that this connection has written so far. What it has counted itself is told to nobody else before it is asked to.
WRITTEN = """
SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint, pg_stat_force_next_flush()::text
  FROM pg_stat_user_tables
 WHERE relname <> 'endpoint_health'
"""
BACKEND = "SELECT pg_backend_pid()"


def run(server_url: str) -> list[Result]:
    """Write and look, and print what came of it."""
    database = Database(filled(server_url, "ledger", SERVERS)).begin(3_600)
    _value(database, SETTLE)
    servers = _value(database, ENDPOINTS)
    offers = {id_: _offer(tools) for id_, _, tools in servers}
    start = datetime.now(UTC) - timedelta(hours=8)
    rows = [("observations", "a second", "ms of Postgres each", "rows written each")]
    figures: list[tuple[float, float, float]] = []
    for number, name in enumerate(("first, with what is declared", "as before", "as before, once more")):
        found = list(_messages(servers, offers, start + timedelta(hours=number), is_first=number == 0))
        figures.append(_write(database, found))
        a_second, milliseconds, written = figures[-1]
        rows.append((name, f"{a_second:,.0f}", f"{milliseconds:.2f}", f"{written:.2f}"))
    print(table(rows))
    rate, cpu = _look()
    print(f"\none function that introduces: {rate:,.0f} servers a second, {cpu:.1f} ms of CPU each")
    unchanged = figures[1:]
    return [
        Result("ledger: unchanged, Postgres", max(f[1] for f in unchanged), BAR_MILLISECONDS, "ms", 1.0),
        Result("ledger: unchanged, rows", max(f[2] for f in unchanged), BAR_ROWS, "", 1.0),
        Result("ledger: looked at in an hour", rate * 3_600, AN_HOUR, "", 1.0, more_is_better=True),
        Result(
            "ledger: written in an hour", min(f[0] for f in unchanged) * 3_600, AN_HOUR, "", 1.0, more_is_better=True
        ),
    ]


def _offer(tools: list[dict[str, Any]]) -> dict[str, Any]:
    lists: dict[str, Any] = {"tools": tools, "prompts": [], "resources": [], "templates": []}
    told = {"server_info": {"name": "one", "version": "1"}, "protocol_versions": ["2025-11-25"]}
    return lists | told | {"instructions": None, "capabilities": {"tools": {}}}


def _messages(
    servers: Sequence[tuple[int, int, Any]], offers: dict[int, dict[str, Any]], at: datetime, *, is_first: bool
) -> Iterator[Record]:
    """What introductions of these servers send at a time, as it comes from the queue."""
    for start in range(0, len(servers), BATCH):
        told: list[Introduced] = []
        for id_, endpoint, _ in servers[start : start + BATCH]:
            finding = Finding(id_, "healthy", 200, 40, None, 0, endpoint)
            seen = fingerprint.whole(offers[id_]).hex()
            one = Introduced(finding, pulse='["ping"]', era="legacy", seen=seen)
            if is_first:
                one.offer = messages.pack(offers[id_])
                one.introduction = {"tools_count": 5, "server_info": {"name": "one", "version": "1"}}
            told.append(one)
        body = messages.encode(Introductions(at, told))
        sent = {"SentTimestamp": str(int(at.timestamp() * 1000))}
        yield Record({"messageId": "1", "body": body, "attributes": sent}, 60.0)


def _write(database: Database, found: Sequence[Record]) -> tuple[float, float, float]:
    """Write these messages: observations a second, ms of CPU of Postgres, rows, of each."""
    process = Path(f"/proc/{_value(database, BACKEND)}/stat")
    before, cpu, began = _value(database, WRITTEN), _ticks(process), time.perf_counter()
    for message in found:
        recording.record(database, introductions.record(database, message), message)
    seconds, spent = time.perf_counter() - began, _ticks(process) - cpu
    _value(database, WRITTEN)
    return SERVERS / seconds, spent / SERVERS * 1000, (_value(database, WRITTEN) - before) / SERVERS


def _look() -> tuple[float, float]:
    """How many servers one process introduces the registry to in a second, and its CPU for each, in ms."""
    policy = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8"})
    with farm(own_namespace=False) as made:
        up = [one for one in mixed(made.ports, 2 * VISITS) if one.up][:VISITS]
        asked = [
            Visit(number, number, f"http://{one.address}:{one.port}{one.path}", None, "legacy", "healthy")
            for number, one in enumerate(up, 1)
        ]
        seen = {one.visit.id: one.offered.seen for one in _introduced(asked, policy)}
        known = [visit._replace(seen=seen[visit.id]) for visit in asked if seen.get(visit.id)]
        began, cpu = time.perf_counter(), time.process_time()
        found = _introduced(known, policy)
        seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    if not found or any(one.offered.offer for one in found):
        raise RuntimeError("The farm does not offer the same at each look")
    return len(found) / seconds, spent / len(found) * 1000


def _introduced(asked: Sequence[Visit], policy: Policy) -> list[visits.Made]:
    with asyncio.Runner(loop_factory=visits.new_event_loop) as runner:
        return runner.run(visits.introduce_all(asked, seconds=600.0, policy=policy))


def _value(database: Database, statement: Any) -> Any:
    row = database.write(statement)
    assert row is not None
    return row[0]


def _ticks(process: Path) -> float:
    """Seconds of CPU, user and system, that a process has spent (proc_pid_stat(5), utime and stime)."""
    fields = process.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
