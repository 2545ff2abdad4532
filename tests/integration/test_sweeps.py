"""Starting sweeps: once for each slot, with every server that is not inactive, by the clock of the database."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from local import queues as local_queues
from mcp_registry.aws import queues
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.errors import Unavailable
from mcp_registry.health import messages, results, sweeps
from mcp_registry.health.messages import Finding, Findings, Server
from tests.conftest import PATIENCE
from tests.conftest import registration as document

_numbers = itertools.count(1)


class Inbox:
    """Queues of one test's own, and what lies in them."""

    def __init__(self, client, monkeypatch) -> None:
        self._client = client
        number = next(_numbers)
        self.probe = client.create_queue(
            QueueName=f"probe-{number}.fifo",
            Attributes={"FifoQueue": "true", "DeduplicationScope": "messageGroup", "VisibilityTimeout": "600"},
        )["QueueUrl"]
        self.tick = client.create_queue(QueueName=f"tick-{number}")["QueueUrl"]
        monkeypatch.setenv("PROBE_QUEUE_URL", self.probe)
        monkeypatch.setenv("TICK_QUEUE_URL", self.tick)

    def read(self, url: str) -> list[str]:
        bodies: list[str] = []
        while found := self._client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            bodies += [message["Body"] for message in found]
            for message in found:
                self._client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    def shards(self) -> list[messages.Shard]:
        return [messages.shard(body) for body in self.read(self.probe)]

    def ticks(self) -> list[datetime]:
        return [messages.tick(body).slot for body in self.read(self.tick)]


@pytest.fixture(scope="module")
def client(queue_service):
    return local_queues.connect(queue_service)


@pytest.fixture
def inbox(client, monkeypatch):
    monkeypatch.setattr(queues, "_client", client)
    return Inbox(client, monkeypatch)


@pytest.fixture
def catalogue(database):
    """Three servers, of which one is out of service and one in error."""
    rows(database, "DELETE FROM registry.mcp_servers")
    rows(database, "DELETE FROM metrics.sweeps")
    made = [
        servers.register(database, registration.parse(document(f"sweep-{n}", health_url="/up")))["id"] for n in range(3)
    ]
    servers.set_status(database, made[1], "inactive")
    rows(database, f"UPDATE registry.mcp_servers SET status = 'error' WHERE id = {made[2]}")
    return made


def rows(database: Database, statement: str):
    assert database._connection is not None
    cursor = database._connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def checked(database: Database, id_: int, at: datetime) -> None:
    rows(
        database,
        f"INSERT INTO registry.server_health (server_id, verdict, checked_at) VALUES ({id_}, 'healthy', '{at}')",
    )


def came(database: Database, id_: int, at: datetime) -> None:
    rows(database, f"UPDATE registry.mcp_servers SET moved_at = '{at}' WHERE id = {id_}")


def test_a_sweep_hands_over_every_server_that_is_not_inactive(database, catalogue, inbox):
    started = sweeps.start(database, sweeps.now(database))
    assert started[1:] == ("started", 2, 1)
    (shard,) = inbox.shards()
    assert shard.slot == started.slot
    assert shard.servers == [Server(catalogue[n], "http://localhost:8080", "/up") for n in (0, 2)]


def test_who_was_left_out_of_the_sweep_before_comes_first_and_longest_ago_before_all(database, inbox):
    """Checked 10, 60 and 90 s ago; never, and there for 75 and 5 s."""
    now = sweeps.now(database)
    rows(database, "DELETE FROM registry.mcp_servers")
    ids = [servers.register(database, registration.parse(document(f"turn-{n}")))["id"] for n in range(5)]
    for id_, seconds in zip(ids, (10, 60, 90), strict=False):
        checked(database, id_, now - timedelta(seconds=seconds))
    for id_, seconds in zip(ids[3:], (75, 5), strict=True):
        came(database, id_, now - timedelta(seconds=seconds))
    sweeps.start(database, now)
    (shard,) = inbox.shards()
    order = [ids[2], ids[3], ids[1], ids[0], ids[4]]
    assert ([server.id for server in shard.servers], shard.first) == (order, 3)


@pytest.mark.parametrize("age", [0, 20, 40])
def test_servers_that_come_and_go_keep_nobody_who_waits_from_its_turn(database, inbox, age):
    """Each half minute a crowd comes to the host, and the crowd before goes: none of it was ever checked."""
    rows(database, "DELETE FROM registry.mcp_servers")
    now = sweeps.now(database)
    waits = servers.register(database, registration.parse(document("waits")))["id"]
    checked(database, waits, now - timedelta(seconds=60))
    for number in range(8):
        new = servers.register(database, registration.parse(document(f"new-{number}")))["id"]
        came(database, new, now - timedelta(seconds=age))
    sweeps.start(database, now)
    (shard,) = inbox.shards()
    assert (shard.servers[0].id, len(shard.servers)) == (waits, 9)


@pytest.mark.parametrize("missed", [0, 1, 5, 12])
def test_the_first_are_the_first_of_each_shard(monkeypatch, missed):
    monkeypatch.setattr(sweeps, "MAX_SHARD", 5)
    all_of_them = some(12)
    shards = [messages.shard(body) for body in sweeps._sharded(datetime.now(UTC), all_of_them, missed)]
    first = {server.id for shard in shards for server in shard.servers[: shard.first]}
    assert first == {server.id for server in all_of_them[:missed]}
    assert [each.shards for each in shards] == [len(shards)] * len(shards)


def test_the_only_shard_of_which_none_was_left_out_reads_as_in_the_release_before():
    (body,) = sweeps._sharded(datetime.now(UTC), some(1))
    assert set(json.loads(body)) == {"slot", "shard", "servers"}


def test_a_sweep_without_servers_hands_over_nothing(database, inbox):
    rows(database, "DELETE FROM registry.mcp_servers")
    assert sweeps.start(database, sweeps.now(database))[1:] == ("started", 0, 0)
    assert inbox.shards() == []


@pytest.mark.usefixtures("catalogue")
def test_a_slot_is_dispatched_once(database, inbox):
    slot = sweeps.now(database)
    assert [sweeps.start(database, slot).outcome for _ in range(3)] == ["started", "duplicate", "duplicate"]
    assert len(inbox.shards()) == 1


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("seconds", [-4, 4])
def test_a_slot_within_five_seconds_of_another_is_the_same_sweep(database, inbox, seconds):
    slot = sweeps.now(database)
    sweeps.start(database, slot)
    assert sweeps.start(database, slot + timedelta(seconds=seconds)).outcome == "duplicate"
    assert len(inbox.shards()) == 1


def test_a_slot_that_is_asked_for_by_many_at_once_is_dispatched_once(new_database, inbox):
    url = new_database()
    first = Database(url).begin(PATIENCE)
    servers.register(first, registration.parse(document("only")))
    slot = sweeps.now(first)
    first.close()

    def ask(_: int) -> str:
        own = Database(url).begin(PATIENCE)
        try:
            return sweeps.start(own, slot).outcome
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(ask, range(8)))
    assert sorted(outcomes) == ["duplicate"] * 7 + ["started"]
    assert len(inbox.shards()) == 1


def test_slots_within_five_seconds_that_are_asked_for_at_once_are_one_sweep(new_database, inbox):
    url = new_database()
    first = Database(url).begin(PATIENCE)
    servers.register(first, registration.parse(document("only")))
    slot = sweeps.now(first)
    first.close()

    def ask(seconds: int) -> str:
        own = Database(url).begin(PATIENCE)
        try:
            return sweeps.start(own, slot + timedelta(seconds=seconds)).outcome
        finally:
            own.close()

    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(ask, range(5)))
    assert sorted(outcomes) == ["duplicate"] * 4 + ["started"]
    assert len(inbox.shards()) == 1


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [
        (-86_400, "late"),
        (-31, "late"),
        (-29, "started"),
        (0, "started"),
        (29, "started"),
        (32, "early"),
        (10**9, "early"),
    ],
)
def test_a_slot_is_for_its_own_half_minute(database, inbox, seconds, outcome):
    slot = sweeps.now(database) + timedelta(seconds=seconds)
    assert sweeps.start(database, slot).outcome == outcome
    assert len(inbox.shards()) == (outcome == "started")


@pytest.mark.usefixtures("catalogue")
def test_a_claim_whose_dispatcher_died_is_taken_over_after_a_while(database, inbox):
    slot = sweeps.now(database)
    rows(database, f"INSERT INTO metrics.sweeps (slot) VALUES ('{slot}')")
    assert sweeps.start(database, slot).outcome == "duplicate"
    rows(database, "UPDATE metrics.sweeps SET claimed_at = now() - interval '16 seconds'")
    assert sweeps.start(database, slot).outcome == "started"
    assert len(inbox.shards()) == 1


@pytest.mark.usefixtures("catalogue", "inbox")
def test_a_queue_that_is_not_there_is_unavailable_and_leaves_the_slot_to_be_started_again(database, monkeypatch):
    monkeypatch.setenv("PROBE_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/000000000000/nowhere.fifo")
    slot = sweeps.now(database)
    with pytest.raises(Unavailable):
        sweeps.start(database, slot)
    assert rows(database, "SELECT dispatched_at FROM metrics.sweeps") == [(None,)]


def event(time: object) -> dict[str, object]:
    return {"detail-type": "Scheduled Event", "source": "aws.events", "time": time}


@pytest.mark.usefixtures("catalogue")
def test_a_minute_is_two_sweeps_half_a_minute_apart(database, inbox):
    slot = sweeps.now(database)
    (first,) = sweeps.minute(database, event(slot.strftime("%Y-%m-%dT%H:%M:%SZ")))
    assert (first.slot, first.outcome) == (slot, "started")
    assert inbox.ticks() == [slot + timedelta(seconds=30)]


@pytest.mark.usefixtures("catalogue")
def test_the_second_sweep_is_asked_for_even_where_the_first_is_a_duplicate(database, inbox):
    """Who was first may have died before he could ask; asking twice starts nothing twice."""
    slot = sweeps.now(database)
    for _ in range(2):
        sweeps.minute(database, event(slot.isoformat()))
    assert inbox.ticks() == [slot + timedelta(seconds=30)] * 2
    assert len(inbox.shards()) == 1


@pytest.mark.usefixtures("catalogue")
def test_an_event_that_is_late_by_less_than_a_minute_starts_the_second_sweep_at_once(database, inbox):
    late = sweeps.now(database) - timedelta(seconds=40)
    assert [s.outcome for s in sweeps.minute(database, event(late.isoformat()))] == ["late", "started"]
    assert [shard.slot for shard in inbox.shards()] == [late + timedelta(seconds=30)]


@pytest.mark.usefixtures("catalogue")
def test_an_event_of_yesterday_starts_nothing(database, inbox):
    late = sweeps.now(database) - timedelta(days=1)
    assert [s.outcome for s in sweeps.minute(database, event(late.isoformat()))] == ["late", "late"]
    assert inbox.shards() == []


@pytest.mark.usefixtures("catalogue")
@pytest.mark.parametrize("sent", [event("yesterday"), event("2026-11-22T12:00:00"), event(7), {}, "x", None])
def test_an_event_without_a_time_means_now(database, inbox, sent):
    now = sweeps.now(database)
    (started,) = sweeps.minute(database, sent)
    assert (started.slot, started.outcome) == (now, "started")
    assert len(inbox.shards()) == 1


# ------------------------------------------------------------------ shards


def some(count: int, url: str = "https://mcp.example.com/") -> list[Server]:
    return [Server(id_, url, None) for id_ in range(1, count + 1)]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (1000, [1000]), (1003, [502, 501]), (2500, [834, 833, 833])])
def test_shards_are_of_equal_size(count, sizes):
    """A rest of three servers would not be protected where most servers seem to fail."""
    shards = [messages.shard(body) for body in sweeps._sharded(datetime.now(UTC), some(count))]
    assert [len(shard.servers) for shard in shards] == sizes
    assert sorted(server for shard in shards for server in shard.servers) == some(count)
    assert [shard.shard for shard in shards] == list(range(len(sizes)))


def test_a_shard_fits_into_a_message_however_long_its_urls_are():
    bodies = sweeps._sharded(datetime.now(UTC), some(1000, "https://mcp.example.com/" + "x" * 2000))
    assert max(len(body) for body in bodies) <= queues.MAX_BODY
    assert sum(len(messages.shard(body).servers) for body in bodies) == 1000


# ------------------------------------------------------------------ settling


def found(slot: datetime, shard: int, ids: list[int], verdict: str = "healthy", milliseconds: int = 10) -> Findings:
    up = verdict == "healthy"
    checks = [Finding(id_, verdict, 200, milliseconds, None if up else "No answer within 5 seconds", 0) for id_ in ids]  # type: ignore[arg-type]
    return Findings(slot, shard, checks)


@pytest.fixture
def swept(database, catalogue):
    """A sweep of four servers, two minutes ago, of which two were checked."""
    rows(database, "SELECT metrics.add_days(current_date - 1, current_date + 1)")
    slot = sweeps.now(database) - timedelta(minutes=2)
    rows(database, f"INSERT INTO metrics.sweeps (slot, dispatched_at, servers, shards) VALUES ('{slot}', now(), 4, 2)")
    results.write(database, found(slot, 0, catalogue[:1]), slot)
    results.write(database, found(slot, 1, catalogue[2:], "timeout", 5000), slot)
    return slot


def settled(database: Database):
    return rows(database, "SELECT checked, up, suspect, buckets, counts, settled_at IS NOT NULL FROM metrics.sweeps")


def test_a_sweep_that_is_over_is_added_up(database, swept):
    sweeps.settle(database)
    bucket = rows(database, "SELECT metrics.bucket(10)")[0][0]
    assert settled(database) == [(2, 1, False, [bucket], [1], True)]
    assert rows(database, "SELECT count(*) FROM metrics.sweep_shards") == [(0,)]


def test_servers_that_a_sweep_did_not_get_to_are_told_once(database, swept, monkeypatch):
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(sweeps.observability, "log_unfinished", lambda *what: told.append(what))
    for _ in range(3):
        sweeps.settle(database)
    assert told == [(2, 1)]


def test_what_comes_after_a_sweep_was_settled_is_added_to_it(database, swept, catalogue):
    sweeps.settle(database)
    servers.set_status(database, catalogue[1], "active")
    results.write(database, found(swept, 2, catalogue[1:2], milliseconds=10), swept)
    sweeps.settle(database)
    bucket = rows(database, "SELECT metrics.bucket(10)")[0][0]
    assert settled(database) == [(3, 2, False, [bucket], [2], True)]


def test_a_sweep_that_is_under_way_is_left_alone(database, catalogue):
    rows(database, "SELECT metrics.add_days(current_date - 1, current_date + 1)")
    slot = sweeps.now(database)
    rows(database, f"INSERT INTO metrics.sweeps (slot, dispatched_at, servers) VALUES ('{slot}', now(), 1)")
    results.write(database, found(slot, 0, catalogue[:1]), slot)
    sweeps.settle(database)
    assert settled(database) == [(0, 0, False, [], [], False)]
