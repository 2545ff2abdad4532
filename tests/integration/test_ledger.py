"""The ledger: no reader of the feed misses a change, and what a server offers is told as it was received."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest

from mcp_registry.aws import db
from mcp_registry.caller import Caller
from mcp_registry.catalogue import servers
from mcp_registry.errors import Forbidden, InactiveServer, ServerNotFound, SnapshotNotFound, ValidationFailed
from mcp_registry.health import messages
from mcp_registry.ledger import feed, query, reading
from tests.conftest import ADMIN
from tests.integration.test_servers import parsed
from tests.offers import offer, written

READER = Caller("token:reader", "reader", "search")
OWNER = Caller("token:owner", "publisher", "default")
CURATOR = Caller("token:curator", "curator", "search")
CHANGE = """
INSERT INTO registry.changes (server_id, name, owner, source, kind, subject, grade, before, after, reasons)
VALUES (%(server_id)s, %(name)s, %(owner)s, %(source)s, %(kind)s, %(subject)s, %(grade)s, %(before)s::json,
        %(after)s::json, %(reasons)s)
RETURNING id
"""


@pytest.fixture(scope="module")
def url(new_database: Callable[..., str]) -> str:
    """A database of these tests, which commit what they write."""
    return new_database()


@pytest.fixture(scope="module")
def connection(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.Connection.connect(url, autocommit=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def clerk(url: str) -> Iterator[db.Database]:
    """As the function reads, with its rights."""
    database = db.Database(url, "role", "registry_clerk").begin(60)
    yield database
    database.close()


@pytest.fixture(scope="module")
def catalogue(url: str) -> Iterator[db.Database]:
    database = db.Database(url, "role", "registry_writer").begin(60)
    yield database
    database.close()


@pytest.fixture
def server(catalogue: db.Database, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the team `default`."""
    name = request.node.name.partition("[")[0].replace("_", "-")[-60:].strip("-")
    id_ = servers.register(catalogue, ADMIN, parsed(name))["id"]
    yield Server(id_, name)
    catalogue.begin(60)
    servers.delete(catalogue, ADMIN, id_)


class Server(NamedTuple):
    id: int
    name: str


def note(connection: psycopg.Connection, server: Server, **fields: Any) -> int:
    """Write a change of a tool; its number."""
    given = {"source": "observed", "kind": "tool", "subject": "convert", "grade": "breaking", "owner": "default"}
    given |= {"before": None, "after": '{"name":"convert"}', "reasons": ["The tool has come"]}
    row = connection.execute(CHANGE, {**server._asdict(), "server_id": server.id, **given, **fields}).fetchone()
    assert row is not None
    return row[0]


def page(clerk: db.Database, of: int | str | None = None, **asked: object) -> Any:
    """A page of the feed, or of the server that is named."""
    wanted = feed.parse_page({name: str(value) for name, value in asked.items()})
    return json.loads(feed.read(clerk.begin(60), ADMIN, wanted, of))


def numbers(found: Any) -> list[int]:
    return [change["sequence"] for change in found["changes"]]


# ------------------------------------------------------------------ no reader misses a change


def test_a_change_with_a_lower_number_that_is_committed_late_is_not_missed(url, clerk, server):
    begun = page(clerk, limit=1000)["last"]
    with psycopg.Connection.connect(url) as early, psycopg.Connection.connect(url) as late:
        first, second = note(early, server), note(late, server)
        late.commit()
        found = page(clerk, after=begun)
        assert (first < second, numbers(found), found["last"]) == (True, [], first - 1)
        early.commit()
        assert numbers(page(clerk, after=found["last"])) == [first, second]


def test_the_audit_and_the_feed_hold_up_each_other_not(url, clerk, connection, server):
    with psycopg.Connection.connect(url) as other:
        other.execute(
            "INSERT INTO registry.audit (actor, role, team, action, target, request_id, address)"
            " VALUES ('x', 'admin', 'x', 'team.set', 'team:x', '1', '127.0.0.1')"
        )
        number = note(connection, server)
        assert numbers(page(clerk, after=number - 1)) == [number]


def test_who_comes_again_with_the_last_number_has_seen_what_was_filtered_out(clerk, connection, server):
    number = note(connection, server, grade="text")
    found = page(clerk, grade="alarming", server=server.name)
    assert (found["changes"], found["next_after"]) == ([], None)
    assert found["last"] >= number


def test_pages_follow_each_other_and_a_number_of_the_future_is_kept(clerk, connection, server):
    written_down = [note(connection, server) for _ in range(3)]
    first = page(clerk, server=server.name, kind="tool", limit=2)
    assert (numbers(first), first["next_after"], first["last"]) == (written_down[:2], written_down[1], written_down[1])
    second = page(clerk, server=server.name, kind="tool", limit=2, after=first["next_after"])
    assert (numbers(second), second["next_after"]) == (written_down[2:], None)
    assert page(clerk, after=feed.MAX_ID)["last"] == feed.MAX_ID


def test_a_page_ends_before_it_is_too_long_to_be_answered(clerk, connection, server):
    text = written({"description": "x" * 900_000})
    for _ in range(3):
        note(connection, server, after=text)
    longest = note(connection, server, after=written({"description": "x" * 3_000_000}))
    pages, after = [], longest - 4
    while after is not None:
        found = page(clerk, after=after, server=server.name)
        pages.append(numbers(found))
        after = found["next_after"]
    assert pages == [[longest - 3, longest - 2], [longest - 1], [longest]]


# ------------------------------------------------------------------ what a change tells


def test_a_change_is_told_whole_and_without_blanks(clerk, connection, server):
    number = note(connection, server, before='{"a":"\\u0000"}', after=None)
    text = feed.read(clerk.begin(60), ADMIN, feed.parse_page({"after": str(number - 1)}))
    told = json.loads(text)["changes"][0]
    assert told.pop("at").endswith("Z")
    assert told == {
        "sequence": number, "server_id": server.id, "server": server.name, "owner": "default", "source": "observed",
        "kind": "tool", "grade": "breaking", "withheld": False, "subject": "convert", "before": {"a": "\0"},
        "after": None, "reasons": ["The tool has come"],
    }  # fmt: skip
    assert '": ' not in text.replace("The tool", "")


def test_a_server_that_has_gone_leaves_a_row_and_is_found_by_its_id_alone(clerk, connection, catalogue):
    gone = Server(servers.register(catalogue.begin(60), ADMIN, parsed("soon-gone"))["id"], "soon-gone")
    note(connection, gone)
    servers.delete(catalogue, ADMIN, gone.id)
    found = page(clerk, gone.id)
    assert [change["kind"] for change in found["changes"]] == ["tool", "removed"]
    assert page(clerk, kind="removed", server="soon-gone")["changes"][0]["server_id"] == gone.id
    for unknown in ("soon-gone", 2**62):
        with pytest.raises(ServerNotFound):
            page(clerk, unknown)


def test_a_change_of_status_is_told_with_its_reason(clerk, catalogue, server):
    servers.set_status(catalogue.begin(60), ADMIN, server.id, "inactive")
    (told,) = page(clerk, server.id, kind="status")["changes"]
    assert (told["before"], told["after"]) == ({"status": "active"}, {"status": "inactive"})
    assert told["reasons"] == ["An operator took the server out of service"]
    assert (told["source"], told["grade"]) == (None, None)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"grade": "notation"}, [0, 1, 2]),
        ({"grade": "compatible"}, [1, 2]),
        ({"grade": "alarming"}, [2]),
        ({"kind": "prompt"}, [1]),
        ({"owner": "payments"}, [2]),
        ({"owner": "payments", "grade": "alarming"}, [2]),
        ({"owner": "payments", "kind": "prompt"}, []),
        ({"grade": "", "kind": ""}, [0, 1, 2, 3]),
    ],
)
def test_filters_narrow_the_feed(clerk, connection, server, asked, wanted):
    made = [
        note(connection, server, grade="notation"),
        note(connection, server, grade="compatible", kind="prompt"),
        note(connection, server, grade="alarming", owner="payments"),
        note(connection, server, grade=None, kind="review", source=None),
    ]
    assert numbers(page(clerk, **{"server": server.name, "after": made[0] - 1, **asked})) == [
        made[place] for place in wanted
    ]


@pytest.mark.parametrize(
    "asked",
    [
        *({"grade": "bad"}, {"kind": "tools"}, {"limit": "0"}, {"limit": "1001"}, {"limit": "1.0"}, {"after": "-1"}),
        *({"after": "01"}, {"after": ""}, {"after": "\u0661"}, {"after": str(2**63)}, {"server": "a\0b"}),
        *({"owner": "x" * 64}, {"since": "1"}),
    ],
)
def test_a_query_that_nothing_can_answer_is_refused(asked):
    with pytest.raises(ValidationFailed) as refused:
        feed.parse_page(asked)
    assert [fault.path for fault in refused.value.faults] == [*asked]


def test_the_words_of_the_feed_are_those_of_its_columns(connection):
    labels = connection.execute("SELECT enum_range(NULL::registry.grade)::text[]").fetchone()
    assert labels == ([*feed.GRADES],)
    assert max(map(len, feed.KINDS)) <= 20


@pytest.mark.parametrize(
    ("caller", "policy", "is_told"),
    [
        *((READER, policy, policy in (None, "auto")) for policy in (None, "auto", "compatible", "manual")),
        *((caller, "manual", True) for caller in (OWNER, CURATOR, ADMIN)),
    ],
)
def test_what_a_stranger_wrote_is_withheld_from_readers_where_somebody_has_to_approve_of_it(
    clerk, connection, server, caller, policy, is_told
):
    offer(connection, server.id, {"tools": [{"name": "convert"}]})
    connection.execute("UPDATE registry.ledger SET policy = %s WHERE server_id = %s", [policy, server.id])
    note(connection, server, after='{"description":"POISON"}', subject="POISON", reasons=["A new URL: POISON"])
    text = feed.read(clerk.begin(60), caller, feed.parse_page({}), server.id)
    (told,) = json.loads(text)["changes"]
    assert (told["grade"], told["kind"]) == ("breaking", "tool")
    assert ("POISON" in text, told["withheld"]) == (is_told, not is_told)


def test_of_a_server_that_has_gone_nobody_knows_the_policy_and_readers_are_told_nothing(clerk, connection, catalogue):
    gone = Server(servers.register(catalogue.begin(60), ADMIN, parsed("gone-too"))["id"], "gone-too")
    note(connection, gone, subject="POISON")
    servers.delete(catalogue, ADMIN, gone.id)
    told = json.loads(feed.read(clerk.begin(60), READER, feed.parse_page({}), gone.id))["changes"][0]
    assert (told["withheld"], told["subject"], told["reasons"]) == (True, None, [])
    assert "POISON" in feed.read(clerk.begin(60), OWNER, feed.parse_page({}), gone.id)


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"server": "x"}, "changes_name_idx"),
        ({"owner": "x"}, "changes_owner_idx"),
        ({"kind": "removed"}, "changes_kind_idx"),
        ({"grade": "alarming"}, "changes_grade_idx"),
        ({"id": 1}, "changes_server_id_idx"),
    ],
)
def test_a_filter_is_served_by_its_index(clerk, connection, asked, index):
    given = feed.parse_page({})._asdict() | {"id": None, "settled": 10, "bytes": 1, "caller_team": "x"}
    given |= {"curates": False, "policy": "auto", **asked}
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        # One table of so few rows is read by any index; only the filter's own spares the sort or the look at each row.
        connection.execute("SET LOCAL enable_bitmapscan = off")
        plan = connection.execute(("EXPLAIN " + feed.PAGE).encode(), given, prepare=False).fetchall()
    assert index in str(plan)


# ------------------------------------------------------------------ what a server offers

TOOLS: list[dict[str, Any]] = [
    {"name": "zeta", "inputSchema": {"type": "object"}, "_meta": {"x": "\0"}, "icons": [{"src": "data:,"}]},
    {
        "name": "alpha",
        "inputSchema": {"type": "object", "properties": {"b": {}, "a": {}}},
        "description": "\u200b\ud83d",
    },
]


def told(clerk: db.Database, server: Server, caller: Caller = ADMIN, **asked: Any) -> Any:
    wanted = reading.parse_offer({name: str(value) for name, value in asked.items()})
    return json.loads(reading.tools(clerk.begin(60), caller, server.id, wanted))


def test_documents_are_told_whole_as_they_were_received_in_the_order_of_the_server(clerk, connection, server):
    about = {"server_info": {"name": "fx"}, "protocol_versions": ["1"], "capabilities": {"a": {}}, "instructions": "Hi"}
    lists = {"tools": TOOLS, "prompts": [{"name": "p"}], "resources": [], "templates": None}
    offer(connection, server.id, lists, about=about)
    connection.execute(
        "UPDATE registry.endpoints SET introduced_at = '2026-12-01T01:00:00Z' WHERE server_id = %s", [server.id]
    )
    found = told(clerk, server)
    assert {name: found[name] for name in lists} == lists
    assert {name: found[name] for name in about} == about
    assert list(found["tools"][1]["inputSchema"]["properties"]) == ["b", "a"]
    assert (found["server"], found["server_id"], found["source"]) == (server.name, server.id, "observed")
    assert found["first_seen"] == "2026-12-01T00:00:00.000000Z"
    assert found["last_seen"] == "2026-12-01T01:00:00.000000Z"
    assert (found["next_after"], found["left_out"], len(found["digest"]), len(found["prompt"])) == (None, 0, 64, 64)


def test_an_offer_is_told_by_source_and_time(clerk, connection, server):
    for source, hour, name in (("declared", 0, "d"), ("observed", 1, "a"), ("observed", 2, "b")):
        offer(connection, server.id, {"tools": [{"name": name}]}, source, f"2026-12-01T0{hour}:00:00Z")

    def names(**asked: Any) -> list[str]:
        return [tool["name"] for tool in told(clerk, server, **asked)["tools"]]

    assert names() == names(source="observed") == ["b"]
    assert names(source="declared") == ["d"]
    assert names(source="observed", as_of="2026-12-01T01:30:00Z") == ["a"]
    assert names(source="observed", as_of="2026-12-01T03:00:00+02:00") == ["a"]
    assert told(clerk, server, source="observed", as_of="2026-12-01T01:00:00Z")["last_seen"] is not None
    with pytest.raises(SnapshotNotFound, match="was seen to offer"):
        told(clerk, server, source="observed", as_of="2026-12-01T00:59:59.999999Z")


def test_what_there_is_not_is_said(clerk, connection, server):
    asked: dict[str, Any]
    for asked, sentence in (
        ({}, f"nothing that {server.name} offers is handed out"),
        ({"source": "declared"}, f"nothing is known of what {server.name} declares"),
        ({"source": "observed"}, f"nothing is known of what {server.name} was seen to offer"),
    ):
        with pytest.raises(SnapshotNotFound, match=sentence):
            told(clerk, server, **asked)
    with pytest.raises(ServerNotFound):
        told(clerk, Server(2**62, "x"))


@pytest.mark.parametrize(
    "asked",
    [
        *({"source": "seen"}, {"limit": "0"}, {"limit": "10001"}, {"after": "x"}, {"as_off": "1"}),
        *({"source": "observed", "as_of": moment} for moment in ("2026-12-01", "now", "2026-13-01T00:00:00Z")),
        *({"source": "observed", "as_of": moment} for moment in ("2026-12-01T00:00:60Z", "2026-12-01T00:00:00 02:00")),
        *({"source": "observed", "as_of": moment} for moment in ("0000-01-01T00:00:00Z", "2026-12-01T00:00:00")),
        {"as_of": "2026-12-01T00:00:00Z"},
    ],
)
def test_a_query_of_an_offer_that_nothing_can_answer_is_refused(asked):
    with pytest.raises(ValidationFailed) as refused:
        reading.parse_offer(asked)
    assert [fault.path for fault in refused.value.faults] == [list(asked)[-1]]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00"])
def test_the_ends_of_time_are_times(clerk, connection, server, moment):
    offer(connection, server.id, {"tools": []})
    if moment.startswith("0"):
        with pytest.raises(SnapshotNotFound):
            told(clerk, server, source="observed", as_of=moment)
    else:
        assert told(clerk, server, source="observed", as_of=moment)["tools"] == []


@pytest.mark.parametrize(("caller", "may"), [(READER, False), (OWNER, True), (CURATOR, True), (ADMIN, True)])
def test_what_is_not_handed_out_is_for_those_who_decide_and_who_own_it(clerk, connection, server, caller, may):
    good = offer(connection, server.id, {"tools": [{"name": "good"}]}, at="2026-12-01T00:00:00Z")
    offer(connection, server.id, {"tools": [{"name": "POISON"}]}, at="2026-12-01T01:00:00Z")
    connection.execute(
        "UPDATE registry.ledger SET policy = 'manual', approved_id = %s WHERE server_id = %s", [good, server.id]
    )
    assert told(clerk, server, caller)["tools"] == [{"name": "good"}]
    earlier = told(clerk, server, caller, source="observed", as_of="2026-12-01T00:30:00Z")
    assert earlier["tools"] == [{"name": "good"}]
    if may:
        assert told(clerk, server, caller, source="observed")["tools"] == [{"name": "POISON"}]
    else:
        with pytest.raises(Forbidden, match="waits for an approval"):
            told(clerk, server, caller, source="observed")
    connection.execute("UPDATE registry.ledger SET approved_id = NULL WHERE server_id = %s", [server.id])
    with pytest.raises(SnapshotNotFound):
        told(clerk, server, caller)


def test_two_thousand_tools_of_four_megabytes_are_told_page_by_page(clerk, connection, server):
    tools = [{"name": f"tool-{number}", "description": '"' * 1_000} for number in range(2_000)]
    offer(connection, server.id, {"tools": tools, "prompts": [{"name": "last"}]})
    found: list[Any] = []
    after: int | None = 0
    while after is not None:
        wanted = reading.parse_offer({"after": str(after)})
        text = reading.tools(clerk.begin(60), ADMIN, server.id, wanted)
        # Lambda carries an answer as a JSON string, and lets 6 MB of it out.
        assert len(json.dumps(text)) < 5_000_000
        got = json.loads(text)
        found += got["tools"] + got["prompts"]
        after = got["next_after"]
    assert found == [*tools, {"name": "last"}]


def test_a_page_has_so_many_documents_as_are_asked_for_and_those_of_other_lists_follow(clerk, connection, server):
    offer(connection, server.id, {"tools": TOOLS, "prompts": [{"name": "p"}], "resources": [{"uri": "r"}]})
    first = told(clerk, server, limit=3)
    assert ([len(first[name]) for name in ("tools", "prompts", "resources")], first["next_after"]) == ([2, 1, 0], 3)
    second = told(clerk, server, limit=3, after=3)
    assert (second["tools"], second["resources"], second["next_after"]) == ([], [{"uri": "r"}], None)
    assert told(clerk, server, after=4)["next_after"] is None


def test_a_document_that_no_answer_has_room_for_is_counted_and_the_others_are_told(clerk, connection, server):
    giant = {"name": "giant", "description": "x" * 2_000_000}
    about = {"server_info": {}, "instructions": "x" * 1_000_000}
    offer(connection, server.id, {"tools": [TOOLS[0], giant, TOOLS[1]]}, about=about)
    found = told(clerk, server)
    assert (found["tools"], found["left_out"], found["next_after"]) == (TOOLS, 2, None)
    assert "instructions" not in found


# ------------------------------------------------------------------ a look now


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whom the function has sent for."""
    sent: list[Any] = []
    monkeypatch.setattr(reading.announcing, "at_once", sent.append)
    return sent


def test_a_look_brings_the_headers_that_were_given_for_the_server(clerk, connection, server, asked):
    secrets = [f"00000000-0000-4000-8000-{number:012}" for number in range(4)]
    connection.execute("UPDATE registry.endpoints SET visited_at = NULL WHERE server_id = %s", [server.id])
    connection.execute(
        "INSERT INTO registry.probe_headers (secret, server_id, names, given_at, ended_at)"
        " SELECT secret::uuid, %s, '{A}', given, ended"
        "   FROM unnest(%s::text[], ARRAY[now() - interval '1 hour', now() - interval '1 minute', now(), NULL],"
        "               ARRAY[NULL, NULL, now(), NULL]::timestamptz[]) AS made (secret, given, ended)",
        [server.id, secrets],
    )
    reading.look_now(clerk.begin(60), OWNER, server.id)
    assert [messages.Visit(*visit[1:]).headers for visit in asked] == [secrets[1]]


def test_a_look_is_sent_at_once_and_once_in_two_seconds(clerk, connection, server, asked):
    forget = (
        "UPDATE registry.endpoints SET visited_at = now() - interval '3 seconds' WHERE server_id = %s RETURNING id, url"
    )
    endpoint, url = connection.execute(forget, [server.id]).fetchone() or (0, "")
    first = reading.look_now(clerk.begin(60), OWNER, server.name)
    assert first["server"] == server.name
    assert [visit[1:4] for visit in asked] == [(server.id, endpoint, url)]
    assert reading.look_now(clerk.begin(60), CURATOR, server.id) == first
    assert len(asked) == 1


def test_who_looks_at_a_server_now_is_sent_with_the_headers_that_were_given_for_it(clerk, connection, server, asked):
    id_ = str(uuid4())
    row = "INSERT INTO registry.probe_headers (secret, server_id, names, given_at) VALUES (%s, %s, '{X-Key}', now())"
    connection.execute(row, [id_, server.id])
    unvisited(connection, server)
    reading.look_now(clerk.begin(60), OWNER, server.id)
    assert [messages.Visit(*visit[1:]).headers for visit in asked] == [id_]


def unvisited(connection: psycopg.Connection, server: Server) -> None:
    connection.execute("UPDATE registry.endpoints SET visited_at = NULL WHERE server_id = %s", [server.id])


def is_visited(connection: psycopg.Connection, server: Server) -> bool:
    row = connection.execute("SELECT visited_at IS NOT NULL FROM registry.endpoints WHERE server_id = %s", [server.id])
    return row.fetchall() == [(True,)]


def test_a_look_is_for_the_team_curators_and_administrators(clerk, connection, server, asked):
    unvisited(connection, server)
    stranger = Caller("token:x", "publisher", "search")
    with pytest.raises(Forbidden, match=f"{server.name} belongs to the team default"):
        reading.look_now(clerk.begin(60), stranger, server.id)
    with pytest.raises(ServerNotFound):
        reading.look_now(clerk.begin(60), ADMIN, 2**62)
    assert (asked, is_visited(connection, server)) == ([], False)


def test_a_server_that_is_out_of_service_is_not_looked_at(clerk, connection, catalogue, server, asked):
    servers.set_status(catalogue.begin(60), ADMIN, server.id, "inactive")
    unvisited(connection, server)
    with pytest.raises(InactiveServer):
        reading.look_now(clerk.begin(60), ADMIN, server.id)
    assert (asked, is_visited(connection, server)) == ([], False)


# ------------------------------------------------------------------ the detail


@pytest.mark.parametrize(("agrees", "agreement"), [(True, "equal"), (False, "differs"), (None, "unobserved")])
def test_a_detail_tells_where_the_ledger_stands(url, connection, server, agrees, agreement):
    reader = db.Database(url, "role", "registry_reader")

    def observed() -> Any:
        return json.loads(servers.detail(reader.begin(60), server.id))["observed"]

    assert observed() is None
    id_ = offer(connection, server.id, {"tools": TOOLS})
    connection.execute("UPDATE registry.ledger SET agrees = %s WHERE server_id = %s", [agrees, server.id])
    (digest,) = connection.execute(
        "SELECT encode(digest, 'hex') FROM registry.snapshots WHERE id = %s", [id_]
    ).fetchone() or ("",)
    place = {"state": "observed", "reason": None, "snapshot": digest, "agreement": agreement}
    assert observed() == {"at": None, "era": None, **place}
    connection.execute(
        "UPDATE registry.endpoints SET era = 'modern', introduced_at = '2026-12-01T00:00:00Z',"
        """ introduction = '{"tools_count":2,"server_info":{"name":"\\u0000"}}' WHERE server_id = %s""",
        [server.id],
    )
    assert observed() == {
        "at": "2026-12-01T00:00:00.000000Z", "era": "modern", "tools_count": 2, "server_info": {"name": "\0"}, **place,
    }  # fmt: skip
    reader.close()


def test_a_query_has_numbers_and_words_or_says_what_is_wrong_with_them():
    faults: list[Any] = []
    assert query.number({"a": "10"}, "a", 1, 10, 5, faults) == 10
    assert query.text({"a": "é"}, "a", 9, faults) == "é"
    assert [fault.path for fault in faults] == ["a"]
