"""Recording: what a server offers is looked at, compared and written, whatever it offers."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_registry.aws.db import Database
from mcp_registry.dial.guard import Policy
from mcp_registry.edge.background import Record
from mcp_registry.health import introductions, invitations, messages, visits
from mcp_registry.health.messages import Introduced, Introductions
from mcp_registry.health.probe import new_event_loop
from mcp_registry.ledger import recording
from tests import shapes
from tests.hostile import Farm, Visit
from tests.integration.test_results import endpoint, made, rows, settle
from tests.shapes import hand, says

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
START = datetime.now(UTC).replace(microsecond=0)
TOOL = {
    "name": "pay",
    "description": "Pays an amount.",
    "inputSchema": {"type": "object", "properties": {"amount": {"type": "number"}}},
    "annotations": {"readOnlyHint": False},
    "_meta": {"team": "billing"},
    "icons": [{"src": "https://pay.example/icon.png"}],
}


class Server:
    """A server whose offer a test may change. `tools`: what it lists; asked anew each time."""

    def __init__(self) -> None:
        self.tools: list[dict[str, Any]] = [copy.deepcopy(TOOL)]
        self.listed = 0
        self.changes = False
        self.gated = False

    async def answer(self, visit: Visit) -> None:
        if self.gated:
            await shapes.send(visit, shapes.Answer(401, None, b"", ("WWW-Authenticate: Bearer",)))
            return
        await hand(tools=says(self._list), instructions="Pay with care.")(visit)

    def _list(self, _: Visit) -> dict[str, Any]:
        self.listed += 1
        tools = copy.deepcopy(self.tools)
        if self.changes:
            tools[0]["description"] = f"Answer {self.listed}"
        return {"tools": tools}


@pytest.fixture(scope="module")
def farm() -> Generator[tuple[Farm, dict[str, Server]]]:
    """Servers on one port, by the first part of their path."""
    known: dict[str, Server] = {}

    async def manner(visit: Visit) -> None:
        await known[visit.mode].answer(visit)

    with Farm(manner) as running:
        yield running, known


class Ledger:
    """A server that is registered, and the ways to look at it. Each look is an hour after the last one."""

    def __init__(self, database: Database, farm: Farm, server: Server, name: str) -> None:
        self.database, self.server, self.name = database, server, name
        self.url = f"{farm.url}/{name}/mcp"
        self.id = made(database, name, endpoint_url=self.url)
        settle(database)
        self.endpoint = endpoint(database, self.id)
        self.hours = 0

    def look(self) -> Introduced:
        """Look at the server as it is asked for, and write what came of it; what was sent."""
        found = looked(self.visit())
        self.write(found)
        return found

    def visit(self) -> messages.Visit:
        """The visit that the dispatcher makes of it."""
        rows(self.database, "UPDATE registry.endpoints SET introduce_at = now() + interval '9 hours'")
        rows(self.database, f"UPDATE registry.endpoints SET introduce_at = now() WHERE id = {self.endpoint}")
        (visit,) = invitations.claim(self.database, 100, 60).endpoints
        return visit

    def write(self, *found: Introduced) -> None:
        """Write what was found, an hour after what was found before."""
        self.hours += 1
        write(self.database, START + timedelta(hours=self.hours), *found)

    def ledger(self, columns: str) -> Any:
        return rows(self.database, f"SELECT {columns} FROM registry.ledger WHERE server_id = {self.id}")[0]

    def snapshots(self, source: str = "observed") -> list[tuple[Any, ...]]:
        statement = "SELECT id, last_seen IS NULL FROM registry.snapshots"
        return rows(self.database, f"{statement} WHERE server_id = {self.id} AND source = '{source}' ORDER BY id")

    def changes(self, source: str = "observed") -> list[tuple[Any, ...]]:
        """Kind, subject and grade of the changes, in their order."""
        statement = "SELECT kind, subject, grade::text FROM registry.changes"
        return rows(self.database, f"{statement} WHERE server_id = {self.id} AND source = '{source}' ORDER BY id")


def looked(*asked: messages.Visit) -> Introduced:
    (found,) = introduced(*asked)
    return found


def introduced(*asked: messages.Visit, each: float = 10.0) -> list[Introduced]:
    """What introductions send, as it is read from the queue."""

    async def run() -> list[visits.Made]:
        return await visits.introduce_all(asked, seconds=600.0, each=each, policy=OPEN)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        made = runner.run(run())
    sent = Introductions(START, [visits._introduced(one, time.monotonic()) for one in made])
    return messages.introductions(messages.encode(sent)).introduced


def write(database: Database, at: datetime, *found: Introduced) -> None:
    """Write introductions as the function does, which were sent at this time."""
    body = messages.encode(Introductions(at, list(found)))
    sent = {"SentTimestamp": str(int(at.timestamp() * 1000))}
    message = Record({"messageId": "1", "body": body, "attributes": sent}, 60.0)
    recording.record(database, introductions.record(database, message), message)


@pytest.fixture
def ledger(database, farm) -> Ledger:
    running, known = farm
    name = f"pay-{len(known)}"
    known[name] = Server()
    return Ledger(database, running, known[name], name)


# ------------------------------------------------------------------ what is observed


def test_a_server_that_is_looked_at_has_a_snapshot_of_whole_documents_and_a_change_is_told_with_its_grade(ledger):
    ledger.look()
    assert ledger.snapshots() == [(ledger.ledger("observed_id")[0], True)]
    statement = "SELECT d.document FROM registry.documents AS d, registry.snapshots AS n WHERE d.digest = ANY (n.tools)"
    assert rows(ledger.database, f"{statement} AND n.server_id = {ledger.id} AND source = 'observed'") == [(TOOL,)]
    assert ledger.changes() == []
    assert ledger.ledger("state, reason, flux, agrees") == ("observed", None, 0, False)

    ledger.server.tools[0]["inputSchema"]["required"] = ["amount"]
    ledger.look()
    assert ledger.changes() == [("tool", "pay", "breaking")]
    (before, after, reasons) = rows(
        ledger.database,
        f"SELECT before, after, reasons FROM registry.changes WHERE server_id = {ledger.id} AND kind = 'tool'",
    )[0]
    assert before == {"inputSchema": TOOL["inputSchema"]}
    assert after == {"inputSchema": ledger.server.tools[0]["inputSchema"]}
    assert "amount" in reasons[0]
    assert [is_last for _, is_last in ledger.snapshots()] == [False, True]
