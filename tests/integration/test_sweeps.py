"""Starting sweeps: once for each slot, with every server that is not inactive, by the clock of the database."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from local import queues as local_queues
from mcp_registry.aws import queues
from mcp_registry.aws.db import Database
from mcp_registry.catalogue import registration, servers
from mcp_registry.errors import Unavailable
from mcp_registry.health import messages, results, sweeps
from mcp_registry.health.messages import Endpoint, Finding, Findings
from tests.conftest import ADMIN, PATIENCE
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
    ids = [made(database, f"sweep-{n}", health_url="/up") for n in range(3)]
    servers.set_status(database, ADMIN, ids[1], "inactive")
    rows(database, f"UPDATE registry.mcp_servers SET status = 'error' WHERE id = {ids[2]}")
    return ids


def made(database: Database, name: str, **fields: object) -> int:
    """The id of a new server."""
    servers.register(database, ADMIN, registration.parse(document(name, **fields)))
    return rows(database, f"SELECT id FROM registry.mcp_servers WHERE name = '{name}'")[0][0]


def rows(database: Database, statement: str):
    assert database._connection is not None
    cursor = database._connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def endpoint(database: Database, id_: int) -> int:
    """The endpoint that a server uses."""
    return rows(database, f"SELECT endpoint_id FROM registry.mcp_servers WHERE id = {id_}")[0][0]


def added(database: Database, id_: int, url: str) -> int:
    """The id of one more endpoint of a server."""
    statement = "INSERT INTO registry.endpoints (server_id, url, declared) VALUES"
    return rows(database, f"{statement} ({id_}, '{url}', false) RETURNING id")[0][0]


def checked(database: Database, endpoint_id: int, at: datetime, verdict: str = "healthy") -> None:
    statement = "INSERT INTO registry.endpoint_health (endpoint_id, verdict, checked_at, since) VALUES"
    rows(database, f"{statement} ({endpoint_id}, '{verdict}', '{at}', '{at}')")


def came(database: Database, id_: int, at: datetime) -> None:
    rows(database, f"UPDATE registry.endpoints SET moved_at = '{at}' WHERE server_id = {id_}")


def test_a_sweep_hands_over_every_server_that_is_not_inactive(database, catalogue, inbox):
    started = sweeps.start(database, sweeps.now(database))
    assert started[1:] == ("started", 2, 1)
    (shard,) = inbox.shards()
    assert shard.slot == started.slot
    assert shard.endpoints == [
        Endpoint(catalogue[n], endpoint(database, catalogue[n]), "http://localhost:8080", "/up", None, None, None)
        for n in (0, 2)
    ]


def test_who_was_left_out_of_the_sweep_before_comes_first_and_longest_ago_before_all(database, inbox):
    """Checked 10, 60 and 90 s ago; never, and there for 75 and 5 s."""
    now = sweeps.now(database)
    rows(database, "DELETE FROM registry.mcp_servers")
    ids = [made(database, f"turn-{n}") for n in range(5)]
    for id_, seconds in zip(ids, (10, 60, 90), strict=False):
        checked(database, endpoint(database, id_), now - timedelta(seconds=seconds))
    for id_, seconds in zip(ids[3:], (75, 5), strict=True):
        came(database, id_, now - timedelta(seconds=seconds))
    sweeps.start(database, now)
    (shard,) = inbox.shards()
    order = [ids[2], ids[3], ids[1], ids[0], ids[4]]
    assert ([endpoint.server_id for endpoint in shard.endpoints], shard.first) == (order, 3)


def test_every_endpoint_of_a_server_is_handed_over_with_what_is_known_of_it(database, catalogue, inbox):
    now = sweeps.now(database)
    first, second = endpoint(database, catalogue[0]), added(database, catalogue[0], "http://second.example/mcp")
    rows(database, f"UPDATE registry.endpoints SET pulse = '[1]', era = 'modern' WHERE id = {second}")
    checked(database, second, now, "gated")
    assert sweeps.start(database, now)[1:] == ("started", 2, 1)
    (shard,) = inbox.shards()
    assert shard.endpoints[:2] == [
        Endpoint(catalogue[0], first, "http://localhost:8080", "/up", None, None, None),
        Endpoint(catalogue[0], second, "http://second.example/mcp", None, "[1]", "modern", "gated"),
    ]


def test_neither_who_has_retired_nor_who_asked_to_be_left_alone_is_asked(database, catalogue, inbox):
    now = sweeps.now(database)
    later = endpoint(database, catalogue[0])
    retired = added(database, catalogue[2], "http://retired.example/mcp")
    rows(database, f"UPDATE registry.endpoints SET retired_at = now() WHERE id = {retired}")
    checked(database, later, now, "limited")
    rows(database, f"UPDATE registry.endpoint_health SET ask_again_at = '{now}'::timestamptz + interval '1 second'")
    assert sweeps.start(database, now)[1:] == ("started", 1, 1)
    assert [one.server_id for one in inbox.shards()[0].endpoints] == [catalogue[2]]


def test_who_asked_to_be_left_alone_is_asked_again_when_the_time_is_over_and_was_not_missed(database, catalogue, inbox):
    now = sweeps.now(database)
    checked(database, endpoint(database, catalogue[0]), now - timedelta(minutes=4), "limited")
    rows(database, f"UPDATE registry.endpoint_health SET ask_again_at = '{now}'::timestamptz - interval '1 second'")
    assert sweeps.start(database, now)[1:] == ("started", 2, 1)
    assert inbox.shards()[0].first == 0


# ------------------------------------------------------------------ retiring


@pytest.fixture
def replicas(database, catalogue):
    """The endpoint that a server uses, and another one whose lease ended a minute ago and that is down since."""
    rows(database, "UPDATE registry.endpoints SET lease_until = now() - interval '1 minute'")
    used, other = endpoint(database, catalogue[0]), added(database, catalogue[0], "http://other.example/mcp")
    rows(database, f"UPDATE registry.endpoints SET lease_until = now() - interval '1 minute' WHERE id = {other}")
    for one in (used, other):
        checked(database, one, sweeps.now(database), "refused")
    return used, other


def retired(database: Database) -> list[int]:
    return [id_ for (id_,) in rows(database, "SELECT id FROM registry.endpoints WHERE retired_at IS NOT NULL")]


def test_an_endpoint_that_nobody_announces_and_no_check_finds_is_retired_and_it_is_told(database, replicas):
    assert (sweeps.retire(database), sweeps.retire(database)) == (1, 0)
    assert retired(database) == [replicas[1]]
    changes = "SELECT endpoint_id, url, change, verdict::text FROM metrics.endpoint_changes WHERE change = 'retired'"
    assert rows(database, changes) == [(replicas[1], "http://other.example/mcp", "retired", "refused")]


def test_the_last_endpoint_of_a_server_is_never_retired(database, replicas):
    rows(database, f"DELETE FROM registry.endpoints WHERE id = {replicas[1]}")
    assert sweeps.retire(database) == 0


@pytest.mark.parametrize(
    "still",
    [
        "UPDATE registry.endpoint_health SET verdict = 'gated'",
        "UPDATE registry.endpoint_health SET checked_at = checked_at - interval '2 minutes'",
        "DELETE FROM registry.endpoint_health",
        "UPDATE registry.endpoints SET lease_until = now() + interval '1 minute'",
        "UPDATE registry.endpoints SET lease_until = NULL",
    ],
)
@pytest.mark.usefixtures("replicas")
def test_an_endpoint_that_is_up_or_not_checked_since_or_has_a_lease_or_none_is_not_retired(database, still):
    rows(database, still)
    assert sweeps.retire(database) == 0


def test_an_endpoint_that_somebody_is_writing_of_is_not_retired_on_what_was_known_before(new_database):
    """It has just been found up: what is not committed yet is neither seen nor waited for."""
    url = new_database()
    database, writer = Database(url).begin(PATIENCE), Database(url).begin(PATIENCE)
    database.read("SELECT 1")
    writer.read("SELECT 1")
    id_ = made(database, "replicated")
    other = added(database, id_, "http://other.example/mcp")
    rows(database, "UPDATE registry.endpoints SET lease_until = now() - interval '1 minute'")
    for one in (endpoint(database, id_), other):
        checked(database, one, sweeps.now(database), "refused")
    assert writer._connection is not None
    with writer._connection.transaction():
        rows(writer, f"UPDATE registry.endpoint_health SET verdict = 'healthy' WHERE endpoint_id = {other}")
        assert sweeps.retire(database.begin(PATIENCE)) == 0
    assert sweeps.retire(database.begin(PATIENCE)) == 0
    rows(database, f"UPDATE registry.endpoint_health SET verdict = 'refused' WHERE endpoint_id = {other}")
    assert sweeps.retire(database.begin(PATIENCE)) == 1
    for one in (database, writer):
        one.close()


@pytest.mark.parametrize("lost", ["endpoint_id = 0", "endpoint_id = NULL"])
def test_a_server_that_uses_an_endpoint_which_is_not_its_own_is_given_one_that_is(database, catalogue, lost):
    own = endpoint(database, catalogue[0])
    address = f"SELECT endpoint_url FROM registry.mcp_servers WHERE id = {catalogue[0]}"
    before = rows(database, address)
    changed = f"SET {lost}, endpoint_url = 'http://gone.example/'"
    rows(database, f"UPDATE registry.mcp_servers {changed} WHERE id = {catalogue[0]}")
    sweeps.retire(database)
    assert (endpoint(database, catalogue[0]), rows(database, address)) == (own, before)


@pytest.mark.parametrize("age", [0, 20, 40])
def test_servers_that_come_and_go_keep_nobody_who_waits_from_its_turn(database, inbox, age):
    """Each half minute a crowd comes to the host, and the crowd before goes: none of it was ever checked."""
    rows(database, "DELETE FROM registry.mcp_servers")
    now = sweeps.now(database)
    waits = made(database, "waits")
    checked(database, endpoint(database, waits), now - timedelta(seconds=60))
    for number in range(8):
        came(database, made(database, f"new-{number}"), now - timedelta(seconds=age))
    sweeps.start(database, now)
    (shard,) = inbox.shards()
    assert (shard.endpoints[0].server_id, len(shard.endpoints)) == (waits, 9)


@pytest.mark.parametrize("missed", [0, 1, 5, 12])
def test_the_first_are_the_first_of_each_shard(monkeypatch, missed):
    monkeypatch.setattr(sweeps, "MAX_SHARD", 5)
    all_of_them = some(12)
    shards = [messages.shard(body) for body in sweeps._sharded(datetime.now(UTC), all_of_them, missed)]
    first = {endpoint.id for shard in shards for endpoint in shard.endpoints[: shard.first]}
    assert first == {endpoint.id for endpoint in all_of_them[:missed]}
    assert [each.shards for each in shards] == [len(shards)] * len(shards)


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
    servers.register(first, ADMIN, registration.parse(document("only")))
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
    servers.register(first, ADMIN, registration.parse(document("only")))
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


def some(count: int, url: str = "https://mcp.example.com/", each: int = 1) -> list[Endpoint]:
    """So many endpoints, `each` of one server."""
    return [Endpoint((id_ - 1) // each + 1, id_, url, None, None, None, None) for id_ in range(1, count + 1)]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (1000, [1000]), (1003, [502, 501]), (2500, [834, 833, 833])])
def test_shards_are_of_equal_size(count, sizes):
    """A rest of three servers would not be protected where most servers seem to fail."""
    shards = [messages.shard(body) for body in sweeps._sharded(datetime.now(UTC), some(count))]
    assert [len(shard.endpoints) for shard in shards] == sizes
    assert sorted(endpoint for shard in shards for endpoint in shard.endpoints) == some(count)
    assert [shard.shard for shard in shards] == list(range(len(sizes)))


def test_the_endpoints_of_a_server_are_in_one_shard():
    """2,000 of one endpoint each, and as many of replicas in threes."""
    endpoints = some(2_001) + [
        one._replace(server_id=one.server_id + 10_000, id=one.id + 10_000) for one in some(2_001, each=3)
    ]
    shards = [messages.shard(body).endpoints for body in sweeps._sharded(datetime.now(UTC), endpoints)]
    places = {(one.server_id, place) for place, part in enumerate(shards) for one in part}
    assert len(places) == 2_001 + 667
    assert sorted(one for part in shards for one in part) == sorted(endpoints)
    assert max(map(len, shards)) - min(map(len, shards)) <= 3


def test_the_addresses_of_one_server_may_be_longer_than_a_message():
    endpoints = some(3) + some(100, "https://mcp.example.com/" + "x" * 4000, each=100)
    bodies = sweeps._sharded(datetime.now(UTC), endpoints)
    assert max(len(body) for body in bodies) <= queues.MAX_BODY
    assert sum(len(messages.shard(body).endpoints) for body in bodies) == 103


def test_an_endpoint_that_is_longer_than_a_message_is_given_up_and_takes_no_other_along():
    (long,) = some(1)
    endpoints = [*some(3), long._replace(id=9, server_id=9, pulse="x" * queues.MAX_BODY)]
    bodies = sweeps._sharded(datetime.now(UTC), endpoints)
    assert sorted(one.id for body in bodies for one in messages.shard(body).endpoints) == [one.id for one in some(3)]


def test_a_shard_fits_into_a_message_however_long_its_urls_are():
    bodies = sweeps._sharded(datetime.now(UTC), some(1000, "https://mcp.example.com/" + "x" * 2000))
    assert max(len(body) for body in bodies) <= queues.MAX_BODY
    assert sum(len(messages.shard(body).endpoints) for body in bodies) == 1000


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
    servers.set_status(database, ADMIN, catalogue[1], "active")
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
