"""Introductions: who is visited and when, and what is kept of it, whatever comes twice, late or out of order."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from local import queues as local_queues
from mcp_registry.aws import queues
from mcp_registry.aws.db import Database
from mcp_registry.edge.background import Record
from mcp_registry.errors import Malformed, Unavailable
from mcp_registry.health import introductions, invitations, messages, results
from mcp_registry.health.messages import Introduced, Introductions, Visit
from tests.conftest import PATIENCE
from tests.integration.test_results import endpoint, finding, made, registered, rows, status, told, transitions

ASKED = datetime.now(UTC).replace(microsecond=0)
OFFER = {"protocol_versions": ["2025-11-25"], "server_info": {"name": "Ünïcode"}, "tools_count": 3}
AUTH = {"status": 401, "schemes": ["bearer"]}


def introduced(server: tuple[int, int], verdict: messages.Verdict = "healthy", **learnt) -> Introduced:
    """What an introduction found: `server` and its endpoint, by their ids."""
    return Introduced(finding(server[0], verdict, endpoint_id=server[1]), **learnt)


def record(database: Database, *told: Introduced, seconds: float = 0) -> None:
    """Write introductions that were asked for, and made, so many seconds after ASKED."""
    moment = ASKED + timedelta(seconds=seconds)
    body = messages.encode(Introductions(moment, list(told)))
    sent = {"SentTimestamp": str(int(moment.timestamp() * 1000))}
    introductions.record(database, Record({"messageId": "1", "body": body, "attributes": sent}, 60.0))


def kept(database: Database, endpoint_id: int):
    """What is kept of an endpoint."""
    statement = "SELECT pulse, era, introduced_at, introduction, auth FROM registry.endpoints"
    return rows(database, f"{statement} WHERE id = {endpoint_id}")[0]


@pytest.fixture
def server(database):
    """The ids of a server and of its endpoint."""
    (id_,) = registered(database, "http://first.example/mcp")
    return id_, endpoint(database, id_)


# ------------------------------------------------------------------ what is kept


def test_an_introduction_is_a_check_and_what_it_taught_is_kept(database, server):
    record(database, introduced(server, pulse="[1]", era="legacy", introduction=OFFER))
    assert kept(database, server[1]) == ("[1]", "legacy", ASKED, OFFER, None)
    assert told(database, server[0]) == [(server[1], "verdict", None, "healthy")]
    statement = f"SELECT verdict::text, checked_at, up_at FROM registry.endpoint_health WHERE endpoint_id = {server[1]}"
    assert rows(database, statement) == [("healthy", ASKED, ASKED)]
    # It is part of no sweep.
    for table in ("metrics.server_health_metrics", "metrics.sweep_shards"):
        assert rows(database, f"SELECT count(*) FROM {table}") == [(0,)]


def test_an_introduction_calls_a_server_down_and_up_again_and_it_is_told(database, server, monkeypatch):
    lines: list[tuple[str, ...]] = []
    monkeypatch.setattr(introductions.observability, "log_change", lambda *change: lines.append(change))
    record(database, introduced(server, "refused"))
    assert status(database, server[0]) == "error"
    record(database, introduced(server), seconds=1)
    assert transitions(database, server[0]) == [("active", "error", "refused"), ("error", "active", "healthy")]
    assert [line[:3] for line in lines] == [("fleet-0", "active", "error"), ("fleet-0", "error", "active")]


def test_introductions_that_are_delivered_twice_or_out_of_order_end_in_the_newest(database, server):
    older = introduced(server, pulse="[1]", era="legacy", introduction=OFFER)
    newer = introduced(server, pulse="[2]", era="modern", introduction={"tools_count": 4})
    for one, seconds in ((newer, 5), (older, 0), (newer, 5)):
        record(database, one, seconds=seconds)
    assert kept(database, server[1]) == ("[2]", "modern", ASKED + timedelta(seconds=5), {"tools_count": 4}, None)
    assert len(told(database, server[0])) == 1


def test_an_introduction_that_failed_teaches_nothing(database, server):
    record(database, introduced(server, pulse="[1]", era="legacy", introduction=OFFER))
    before = kept(database, server[1])
    record(database, introduced(server, "refused"), seconds=1)
    record(database, introduced(server, "limited"), seconds=2)
    assert kept(database, server[1]) == before


def test_of_a_gated_server_it_is_kept_how_one_gets_in_and_what_it_was_before(database, server):
    record(database, introduced(server, pulse="[1]", era="legacy", introduction=OFFER))
    record(database, introduced(server, "gated", pulse="[401]", auth=AUTH), seconds=1)
    assert kept(database, server[1]) == ("[401]", "legacy", ASKED, OFFER, AUTH)
    record(database, introduced(server, pulse="[1]", era="legacy", introduction=OFFER), seconds=2)
    assert kept(database, server[1]) == ("[1]", "legacy", ASKED + timedelta(seconds=2), OFFER, None)


@pytest.mark.parametrize("column", ["moved_at", "retired_at"])
def test_what_was_asked_before_an_endpoint_moved_or_retired_says_nothing(database, server, column):
    rows(database, f"UPDATE registry.endpoints SET {column} = '{ASKED}'::timestamptz + interval '1 second'")
    record(database, introduced(server, "gated", pulse="[1]", era="legacy", auth=AUTH))
    assert kept(database, server[1]) == (None, None, None, None, None)
    assert told(database, server[0]) == []


def test_what_is_too_long_to_be_kept_is_refused_by_name_and_takes_nothing_else_along(database, server, monkeypatch):
    lines: list[tuple[str, str]] = []
    monkeypatch.setattr(introductions.observability, "log_malformed", lambda *line: lines.append(line))
    said = {"server_info": {str(n): "x" * 200 for n in range(400)}}
    record(database, introduced(server, pulse="[1]", era="legacy", introduction=said))
    reason = f"what was learnt of endpoint {server[1]} has 83,507 bytes, more than 65,536"
    assert lines == [("1", reason)]
    assert kept(database, server[1])[:4] == ("[1]", "legacy", None, None)


def test_what_postgres_does_not_take_of_one_takes_no_other_along(new_database, monkeypatch):
    """Whatever gets past the form of a message: here a number that is none in JSON."""
    database = Database(new_database()).begin(PATIENCE)
    database.read("SELECT 1")
    lines: list[tuple[str, str]] = []
    monkeypatch.setattr(introductions.observability, "log_malformed", lambda *line: lines.append(line))
    ids = registered(database, "http://first.example/mcp", "http://second.example/mcp")
    first, second = ((id_, endpoint(database, id_)) for id_ in ids)
    broken = introduced(first, pulse="[1]", era="legacy", introduction={"tools_count": float("inf")})
    one = Record({"messageId": "1"}, 60.0)
    assert introductions._learn(database, one, ASKED, [broken, introduced(second, pulse="[2]", era="modern")]) == 1
    assert lines == [("1", f"what was learnt of endpoint {first[1]} is nothing that Postgres takes")]
    assert kept(database, second[1])[:2] == ("[2]", "modern")
    database.close()


def test_the_words_of_an_escape_are_no_nul(database, server):
    record(database, introduced(server, introduction={"server_info": {"name": "\\u0000"}}))
    assert kept(database, server[1])[3] == {"server_info": {"name": "\\u0000"}}


def test_who_was_up_a_while_ago_and_is_away_is_called_down_by_a_sweep_alone(database, server):
    """An introduction asks too few hosts to know a fault of ours."""
    record(database, introduced(server))
    record(database, introduced(server, "timeout"), seconds=60)
    assert status(database, server[0]) == "active"
    assert told(database, server[0])[1:] == [(server[1], "verdict", "healthy", "timeout")]
    sweep = messages.Findings(ASKED + timedelta(seconds=90), 0, [finding(server[0], "timeout", endpoint_id=server[1])])
    assert results.write(database, sweep, sweep.slot).failed == 1


def test_who_never_was_up_and_is_away_is_called_down_at_once(database, server):
    record(database, introduced(server, "dns"))
    assert status(database, server[0]) == "error"


@pytest.mark.parametrize("body", ["", "null", "{}", '{"asked_at":"2026-11-30T00:00:00Z","introduced":[{}]}'])
def test_a_message_that_is_none_is_refused(database, body):
    with pytest.raises(Malformed):
        introductions.record(database, Record({"messageId": "1", "body": body}, 60.0))


# ------------------------------------------------------------------ who is visited


@pytest.fixture
def alone(database):
    """The database, of which no endpoint is due."""
    rows(database, "UPDATE registry.endpoints SET introduce_at = now() + interval '1 day'")
    return database


def due(database: Database, id_: int) -> Visit:
    """An endpoint of a new server, which is due because its first visit was lost; as it is visited."""
    name, url = f"due-{id_}", f"http://due-{id_}.example/mcp"
    server_id = made(database, name, endpoint_url=url)
    visit = Visit(server_id, endpoint(database, server_id), url, None, None, None)
    rows(database, f"UPDATE registry.endpoints SET introduce_at = now() WHERE id = {visit.id}")
    return visit


def checked(database: Database, visit: Visit, verdict: str) -> None:
    statement = "INSERT INTO registry.endpoint_health (endpoint_id, verdict, checked_at, since) VALUES"
    rows(database, f"{statement} ({visit.id}, '{verdict}', now(), now())")


def claim(database: Database, limit: int = 100, minutes: int = 60) -> list[Visit]:
    return invitations.claim(database, limit, minutes).endpoints


def minutes_until(database: Database, endpoint_id: int) -> float:
    statement = "SELECT extract(epoch FROM introduce_at - now())::float / 60 FROM registry.endpoints"
    return rows(database, f"{statement} WHERE id = {endpoint_id}")[0][0]


def test_a_new_endpoint_is_visited_and_visited_again_in_an_hour_or_so_or_soon_where_nothing_came_of_it(alone):
    one, other = due(alone, 1), due(alone, 2)
    rows(alone, f"UPDATE registry.endpoints SET learnt_at = now() - interval '1 hour' WHERE id = {other.id}")
    assert claim(alone) == [one, other]
    assert claim(alone) == []
    assert 2 <= minutes_until(alone, one.id) <= 2.2
    assert 60 <= minutes_until(alone, other.id) <= 66


def test_who_has_just_been_learnt_is_visited_again_in_an_hour_or_so(database, server):
    rows(database, f"UPDATE registry.endpoints SET introduce_at = now() + interval '30 s' WHERE id = {server[1]}")
    record(database, introduced(server, pulse="[1]", era="legacy"))
    statement = "SELECT extract(epoch FROM introduce_at - learnt_at)::float / 60 FROM registry.endpoints"
    assert 60 <= rows(database, f"{statement} WHERE id = {server[1]}")[0][0] <= 66
    # What an older introduction says moves nothing.
    rows(database, f"UPDATE registry.endpoints SET introduce_at = now() WHERE id = {server[1]}")
    record(database, introduced(server, pulse="[1]", era="legacy"))
    assert minutes_until(database, server[1]) <= 0


@pytest.mark.parametrize(("ttl_hours", "hours"), [(0, 1.0), (2, 2.0), (500, 24.0)])
def test_who_says_how_long_its_list_will_do_is_asked_then_and_within_a_day(database, server, ttl_hours, hours):
    record(database, introduced(server, pulse="[1]", era="modern", ttl_ms=ttl_hours * 3_600_000))
    statement = "SELECT extract(epoch FROM introduce_at - learnt_at)::float / 3600 FROM registry.endpoints"
    assert hours <= rows(database, f"{statement} WHERE id = {server[1]}")[0][0] <= max(hours, 1.1)


def test_who_was_found_otherwise_after_it_was_introduced_is_due_all_the_same(database, server):
    record(database, introduced(server, "gated", auth=AUTH), seconds=5)
    rows(database, f"UPDATE registry.endpoints SET introduce_at = now(), learnt_at = NULL WHERE id = {server[1]}")
    record(database, introduced(server, pulse="[1]", era="legacy"))
    assert minutes_until(database, server[1]) <= 0


def test_a_visit_says_what_is_known_of_the_endpoint(alone):
    one = due(alone, 1)
    known = '["no JSON",400,"application/json","{}",5.0]'
    rows(alone, f"UPDATE registry.endpoints SET health_url = '/up', era = 'sse', pulse = '{known}' WHERE id = {one.id}")
    checked(alone, one, "gated")
    assert claim(alone) == [one._replace(health_url="/up", era="sse", verdict="gated", pulse=known)]


@pytest.mark.parametrize("verdict", ["limited", "refused", "mcp_error"])
def test_who_is_down_or_limited_is_left_to_the_sweep(alone, verdict):
    one = due(alone, 1)
    checked(alone, one, verdict)
    assert claim(alone) == []
    assert minutes_until(alone, one.id) > 1


def test_neither_who_has_retired_nor_who_is_out_of_service_is_visited(alone):
    retired, inactive = due(alone, 1), due(alone, 2)
    rows(alone, f"UPDATE registry.endpoints SET retired_at = now() WHERE id = {retired.id}")
    rows(alone, f"UPDATE registry.mcp_servers SET status = 'inactive' WHERE id = {inactive.server_id}")
    assert claim(alone) == []


def test_so_many_are_taken_at_once_the_longest_due_first_and_those_of_a_host_are_neighbours(alone):
    visits = [due(alone, number) for number in range(3)]
    for visit, seconds in zip(visits, (10, 30, 20), strict=True):
        rows(
            alone, f"UPDATE registry.endpoints SET introduce_at = now() - interval '{seconds} s' WHERE id = {visit.id}"
        )
    assert claim(alone, limit=2) == [visits[1], visits[2]]
    assert claim(alone, limit=2) == [visits[0]]


def test_whoever_asks_at_the_same_time_an_endpoint_is_visited_once(new_database):
    url = new_database()
    setup = Database(url).begin(PATIENCE)
    setup.read("SELECT 1")
    visits = [due(setup, number) for number in range(40)]
    setup.close()

    def ask(_: int) -> list[Visit]:
        own = Database(url).begin(PATIENCE)
        try:
            return claim(own, limit=10)
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        taken = [visit for part in pool.map(ask, range(8)) for visit in part]
    assert sorted(taken) == sorted(visits)


# ------------------------------------------------------------------ sending


_numbers = itertools.count(1)


@pytest.fixture
def inbox(queue_service, monkeypatch):
    """What lies in the queue of introductions."""
    client = local_queues.connect(queue_service)
    url = client.create_queue(QueueName=f"introduce-{next(_numbers)}")["QueueUrl"]
    monkeypatch.setattr(queues, "_client", client)
    monkeypatch.setenv("INTRODUCE_QUEUE_URL", url)

    def read() -> list[messages.Visits]:
        found: list[messages.Visits] = []
        while more := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in more:
                found.append(messages.visits(message.get("Body", "")))
                client.delete_message(QueueUrl=url, ReceiptHandle=message.get("ReceiptHandle", ""))
        return found

    return read


def test_visits_are_sent_in_messages_of_fifty(alone, inbox):
    visits = [due(alone, number) for number in range(51)]
    assert invitations.dispatch(alone) == 51
    found = inbox()
    assert sorted(len(each.endpoints) for each in found) == [1, 50]
    assert sorted(visit for each in found for visit in each.endpoints) == sorted(visits)
    assert {each.asked_at for each in found} == set(itertools.chain(*rows(alone, "SELECT now()")))
    assert (invitations.dispatch(alone), inbox()) == (0, [])


def test_a_message_of_visits_fits_into_the_queue_however_long_the_urls_are():
    long = Visit(1, 1, "http://long.example/" + "x" * 2000, "/" + "y" * 2047, None, None)
    parts = invitations._parts(messages.Visits(ASKED, [long._replace(url=long.url + "é" * 2000)] * 120))
    assert max(len(messages.encode(part).encode()) for part in parts) <= queues.MAX_BODY
    assert sum(len(part.endpoints) for part in parts) == 120


def test_visits_that_the_queue_does_not_take_are_due_again(alone, inbox, monkeypatch):
    one = due(alone, 1)
    with monkeypatch.context() as broken:
        broken.setenv("INTRODUCE_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/000000000000/nowhere")
        with pytest.raises(Unavailable):
            invitations.dispatch(alone)
    assert invitations.dispatch(alone) == 1
    assert inbox()[0].endpoints == [one]
