"""The introduction: whom it finds, what it asks for that, what it bounds, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from mcp_registry.dial import introduction
from mcp_registry.dial.__main__ import main
from mcp_registry.dial.exchange import Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import MAX_BYTES, MAX_ITEMS, MAX_PAGES, Introducer, Introduction, challenges, shown
from mcp_registry.dial.lookup import Names, ResolverUnreachable
from mcp_registry.dial.reply import Reply
from mcp_registry.health.probe import new_event_loop
from tests import shapes
from tests.hostile import CANARY, Farm, Visit
from tests.shapes import EVENT, JSON, MOVED, SHAPES, Answer, hand, initialized, jr, message, result, says, send, text

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
# Enough for a loopback on a machine that does other things too; only a fault uses it up.
PATIENCE = 20.0
# What is waited for where nobody answers.
SHORT = 1.0
# The same where something has to be answered before.
SOME = 3.0


Found = TypeVar("Found")


def on_our_loop(making: Coroutine[Any, Any, Found]) -> Found:
    """Run something on a loop as the checks of the registry have it."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(making)


class Zone:
    """A resolver that knows these names."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}

    async def resolve(self, host: str) -> list[str]:
        return self.names.get(host, [])


def introduce(url: str, seconds: float = PATIENCE, before: str | None = None, policy: Policy = OPEN) -> Introduction:
    """One introduction, its session included."""

    async def run() -> Introduction:
        names = Names(Zone(), policy)
        introducer = Introducer(Dialler(asyncio.get_running_loop()), names, policy)
        found = await introducer.introduce(url, seconds=seconds, before=before)
        await introducer.close()
        return found

    return on_our_loop(run())


def asked(farm: Farm) -> list[str]:
    """What a server was asked, in order: the method of MCP, or that of HTTP."""
    return [message(visit).get("method", visit.method) for visit in farm.visits]


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """The server of all shapes."""
    with shapes.serving() as farm:
        yield farm


@pytest.fixture(scope="module")
def introduced(farm) -> tuple[dict[str, Introduction], dict[str, set[str]]]:
    """What an introduction finds of each shape, all at once, on one loop, by one dialler; and the sessions it left."""
    for sessions in shapes.SESSIONS.values():
        sessions.clear()  # what other files of tests have left

    async def run() -> list[Introduction]:
        names = Names(Zone(), OPEN)
        introducer = Introducer(Dialler(asyncio.get_running_loop()), names, OPEN)
        urls = [shapes.url(farm, name) for name in SHAPES]
        try:
            return await asyncio.gather(*(introducer.introduce(url, seconds=PATIENCE) for url in urls))
        finally:
            await introducer.close()

    found = dict(zip(SHAPES, on_our_loop(run()), strict=True))
    return found, {name: {*sessions} for name, sessions in shapes.SESSIONS.items() if sessions}


@pytest.fixture(scope="module")
def found(introduced) -> dict[str, Introduction]:
    """What an introduction finds of each shape."""
    return introduced[0]


# ------------------------------------------------------------------ every shape


def test_there_are_enough_shapes_and_each_names_its_source():
    assert len(SHAPES) >= 60 and all(shape.source for shape in SHAPES.values())


@pytest.mark.parametrize("name", SHAPES)
def test_a_server_is_what_a_stock_client_finds(found, name):
    shape, seen = SHAPES[name], found[name]
    assert (seen.verdict, seen.era) == (shape.verdict, shape.era), seen
    assert (seen.verdict == "up") == (seen.reason is None and not seen.evidence)
    if shape.verdict == "up":
        assert seen.server_info["name"] == "shape" and [tool["name"] for tool in seen.tools][:1] in (["add"], ["a"], [])
        assert not seen.incomplete and seen.gate is None
    else:
        assert seen.evidence and seen.reason and "\n" not in seen.reason


def visits(farm: Farm, name: str) -> list[Visit]:
    return [visit for visit in farm.visits if visit.path.startswith(f"/{name}/")]


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.era == "legacy"])
def test_a_server_that_knows_initialize_is_asked_nothing_else_before_and_no_discovery_ever(farm, name):
    # What is no request nor a notification is an answer to what the server has asked.
    asked = [visit for visit in visits(farm, name) if visit.method != "POST" or "method" in message(visit)]
    methods = [message(visit).get("method", visit.method) for visit in asked]
    # Who has moved is asked the first question at each place on the way.
    methods = methods[MOVED.get(name, 0) :]
    assert methods[:3] == ["initialize", "notifications/initialized", "tools/list"]
    assert not {"server/discover", "GET", "ping"} & {*methods}
    assert "mcp-session-id" not in visits(farm, name)[0].headers


@pytest.mark.usefixtures("found")
def test_requests_have_ids_that_nobody_has_who_counts_from_one_nor_another_introduction(farm):
    begun: list[int] = []
    for name in SHAPES:
        ids = [message(visit)["id"] for visit in visits(farm, name) if {"id", "method"} <= {*message(visit)}]
        assert all(type(one) is int and 10**6 < one < 2**31 for one in ids)
        # A redirect repeats the request.
        assert [*dict.fromkeys(ids)] == list(range(ids[0], ids[0] + len({*ids})))
        begun.append(ids[0])
    assert len({*begun}) == len(begun) and introduction.PULSE_ID not in introduction.FIRST_IDS


@pytest.mark.usefixtures("found")
def test_a_server_that_asks_gets_an_answer_to_a_ping_and_is_told_that_nothing_else_is_known(farm):
    def told(name: str) -> list[dict[str, Any]]:
        answers = [message(visit) for visit in visits(farm, name) if {"id", "jsonrpc"} <= {*message(visit)}]
        return [answer for answer in answers if "method" not in answer]

    # Three for each of two pages.
    assert [answer["result"] for answer in told("asks-ping")] == [{}] * 6
    assert [answer["result"] for answer in told("sse-asks-ping")] == [{}] * 2
    for name in ("asks-for-roots", "asks-for-what-nobody-knows"):
        assert [answer["error"]["code"] for answer in told(name)] == [-32601] * 2
    answer, _ = [visit for visit in visits(farm, "asks-ping-in-a-session") if "result" in message(visit)]
    assert answer.headers["mcp-session-id"] == "one" and answer.headers["mcp-protocol-version"] == "2025-11-25"


def test_a_server_that_asks_again_and_again_is_answered_twenty_times():
    asks = introduction.MAX_ANSWERS * ["ping"]
    more = EVENT.replace("DATA", json.dumps({"jsonrpc": "2.0", "id": "more", "method": "ping"})) * 100 + EVENT
    with Farm(hand(tools=shapes.asking(lambda _: {"tools": []}, *asks, event=more))) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == "up"
    told = [message(visit)["id"] for visit in farm.visits if "result" in message(visit)]
    assert len(told) == introduction.MAX_ANSWERS and "more" not in told


@pytest.mark.parametrize("name", ["x" * 201, 1 << 64, None, True, 1.5, {}])
def test_an_id_that_no_client_repeats_is_not_answered(name):
    ping = EVENT.replace("DATA", json.dumps({"jsonrpc": "2.0", "id": name, "method": "ping"}))
    with Farm(hand(tools=says(lambda _: {"tools": []}, stream=ping + EVENT))) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == "up"
    assert asked(farm) == ["initialize", "notifications/initialized", "tools/list"]


def test_every_session_is_closed_and_nobody_s_else(farm, introduced):
    assert introduced[1] == {}
    opened = [visit for visit in farm.visits if visit.method == "DELETE"]
    assert len(opened) >= 20 and all(visit.headers["mcp-session-id"] for visit in opened)


@pytest.mark.usefixtures("found")
def test_no_credential_and_no_cookie_is_sent(farm):
    sent = {name for visit in farm.visits for name in visit.headers}
    assert sent == {
        *("host", "user-agent", "accept", "accept-encoding", "connection", "content-type", "content-length"),
        *("mcp-session-id", "mcp-protocol-version", "mcp-method"),
    }


# ------------------------------------------------------------------ what is kept


def test_all_lists_are_kept_over_all_their_pages_where_the_server_has_them():
    prompts = [{"name": "ask"}]
    resources = [{"name": "file", "uri": "file:///x"}]

    async def other(visit: Visit) -> None:
        method = message(visit).get("method")
        lists: dict[Any, dict[str, Any]] = {
            "prompts/list": {"prompts": prompts},
            "resources/list": {"resources": resources},
        }
        if method in lists:
            await shapes.reply(visit, result(visit, lists[method]))
        else:
            await hand(capabilities={"tools": {}, "prompts": {}, "resources": {}}, instructions="Be kind.")(visit)

    with Farm(other) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert ([*seen.prompts], [*seen.resources], [*seen.templates]) == (prompts, resources, [])
    assert [tool["name"] for tool in seen.tools] == ["add", "take"]
    assert seen.instructions == "Be kind." and seen.protocol_versions == ("2025-11-25",) and not seen.incomplete
    assert asked(farm).count("tools/list") == 2 and "resources/templates/list" in asked(farm)


def test_a_list_that_no_verdict_depends_on_may_fail():
    with Farm(hand(capabilities={"prompts": {}}, other=text(500, ""))) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert seen.verdict == "up" and seen.incomplete == {"prompts": "prompts/list was answered 500"}
    assert [evidence.asked for evidence in seen.evidence] == ["prompts/list"]


def test_a_modern_server_is_known_by_all_its_versions_and_for_how_long():
    tools = says(lambda _: {"resultType": "complete", "tools": [], "ttlMs": 60_000, "cacheScope": "public"})
    with Farm(shapes.modern_only("2026-07-28", "2025-11-25", tools=tools)) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert seen.era == "modern" and seen.protocol_versions == ("2026-07-28", "2025-11-25") and seen.ttl_ms == 60_000
    last = farm.visits[-1]
    assert last.headers["mcp-protocol-version"] == "2026-07-28" and last.headers["mcp-method"] == "tools/list"
    assert message(last)["params"]["_meta"] == introduction.META


def test_what_worked_the_last_time_is_tried_first():
    with Farm(shapes.modern_only("2026-07-28")) as farm:
        assert introduce(f"{farm.url}/mcp", before="modern").era == "modern"
        assert asked(farm)[0] == "server/discover"
    # ... and one that has become older since is found all the same.
    with Farm(hand()) as farm:
        assert introduce(f"{farm.url}/mcp", before="modern").era == "legacy"
        assert introduce(f"{farm.url}/mcp", before="sse").era == "legacy"


# ------------------------------------------------------------------ how one gets in


def guarded(metadata: str | None, document: object = None) -> Farm:
    """A server that wants a token, with its metadata there, or where the specification has them."""

    async def answer(visit: Visit) -> None:
        if visit.path == (metadata or "/.well-known/oauth-protected-resource/mcp"):
            await send(visit, Answer(200, JSON, json.dumps(document).encode()))
        elif visit.method == "GET":
            await send(visit, text(404, ""))
        else:
            more = f', resource_metadata="http://127.0.0.1:{farm.port}{metadata}"' if metadata else ""
            await send(visit, text(401, "", "text/plain", f'WWW-Authenticate: Bearer realm="The \\"vault\\""{more}'))

    farm = Farm(answer)
    return farm


@pytest.mark.parametrize("metadata", ["/meta", None])
def test_of_a_gated_server_is_kept_how_one_gets_in(metadata):
    document = {"authorization_servers": ["https://login.example"], "scopes_supported": ["read", "write"]}
    with guarded(metadata, document) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert seen.verdict == "gated" and seen.gate is not None and seen.reason == "The server wants credentials (401)"
    assert seen.gate.schemes == ("Bearer",) and seen.gate.realm == 'The "vault"'
    assert seen.gate.issuer == "https://login.example" and seen.gate.scopes == ("read", "write")
    assert seen.gate.resource_metadata == farm.url + (metadata or "/.well-known/oauth-protected-resource/mcp")


@pytest.mark.parametrize("document", [None, [], "x", {"authorization_servers": 7, "scopes_supported": [1]}])
def test_metadata_that_say_nothing_are_none(document):
    with guarded("/meta", document) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert seen.gate is not None and seen.gate.issuer is None and seen.gate.scopes == ()


def test_metadata_are_not_fetched_from_where_the_guard_lets_nobody_go():
    closed = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.1/32"})
    with Farm(shapes.fixed(text(200, ""))) as inside:
        challenge = f'WWW-Authenticate: Bearer resource_metadata="http://127.0.0.2:{inside.port}/meta"'
        with Farm(shapes.fixed(text(401, "", "text/plain", challenge))) as farm:
            seen = introduce(f"{farm.url}/mcp", policy=closed)
    assert seen.verdict == "gated" and not inside.visits


@pytest.mark.parametrize(
    ("header", "schemes", "parameters"),
    [
        ("", (), {}),
        ("Bearer", ("Bearer",), {}),
        ('Basic realm="a, b"', ("Basic",), {"realm": "a, b"}),
        (
            'Negotiate, Bearer realm="x", error=invalid_token',
            ("Negotiate", "Bearer"),
            {"realm": "x", "error": "invalid_token"},
        ),
        ('Bearer realm="x", DPoP algs="ES256", realm="y"', ("Bearer", "DPoP"), {"realm": "x", "algs": "ES256"}),
        ("Bearer,,,= ;;", ("Bearer",), {}),
    ],
)
def test_a_challenge_is_read_as_the_standard_has_it(header, schemes, parameters):
    assert challenges(header) == (schemes, parameters)


def test_a_bare_403_of_who_had_let_us_in_means_that_it_wants_credentials_now():
    with Farm(shapes.fixed(text(403, "Forbidden"))) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == "down"
        assert introduce(f"{farm.url}/mcp", before="legacy").verdict == "gated"


@pytest.mark.parametrize(
    ("words", "verdict"), [("Unauthorized: Session ID is required", "down"), ("Who are you?", "gated")]
)
def test_a_401_that_only_misses_a_session_asks_for_no_credentials(words, verdict):
    """So does rmcp up to 0.16 to a GET."""

    async def answer(visit: Visit) -> None:
        await send(visit, text(401, words, None) if visit.method == "GET" else shapes.RMCP_GARBAGE)

    with Farm(answer) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == verdict


@pytest.mark.parametrize(
    ("header", "seconds"), [("60", 60), ("86400", 300), ("soon", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)]
)
def test_a_limit_says_when_to_come_again_and_never_later_than_in_five_minutes(header, seconds):
    with Farm(shapes.fixed(text(429, "", "text/plain", f"Retry-After: {header}"))) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert (seen.verdict, seen.retry_after, asked(farm)) == ("limited", seconds, ["initialize"])


# ------------------------------------------------------------------ evidence


def test_evidence_shows_what_was_asked_and_what_came_with_what_cannot_be_seen():
    words = f"{CANARY}\u200b\u202e\ufe0f\x00\n<b>" + "x" * 600
    with Farm(shapes.fixed(text(502, words, "text/html; charset=utf-8"))) as farm:
        seen = introduce(f"{farm.url}/mcp")
    first = seen.evidence[0]
    assert (first.asked, first.status, first.media_type) == ("initialize", 502, "text/html")
    assert first.excerpt.startswith(CANARY + r"\u200b\u202e\ufe0f\x00\n<b>xxx") and len(first.excerpt) == 500
    assert [evidence.asked for evidence in seen.evidence] == ["initialize", "server/discover"]
    assert seen.cause == "http_error" and CANARY not in (seen.reason or "")


@pytest.mark.parametrize(
    ("server", "question", "media_type"),
    [
        (hand(capabilities=None), "initialize", JSON),
        (
            hand(initialize=shapes.gives(lambda v: Answer(200, "text/plain", shapes.as_json(v)))),
            "initialize",
            "text/plain",
        ),
        (hand(tools=says(lambda _: {"tools": [{"name": "a"}]})), "tools/list", JSON),
        (shapes.modern_only("2026-07-28", capabilities=None), "server/discover", JSON),
    ],
)
def test_the_answer_that_decided_is_evidence_where_the_fault_is_in_what_it_says_too(server, question, media_type):
    with Farm(server) as farm:
        seen = introduce(f"{farm.url}/mcp")
    noted = [one for one in seen.evidence if one.asked == question]
    assert [(one.status, one.media_type, one.excerpt[:10]) for one in noted] == [(200, media_type, '{"jsonrpc"')]


@pytest.mark.parametrize("text", ["", "plain", "ö中😀", "\u0007\u00ad\u2066\U000e0041\u3164\u2028\ud800"])
def test_what_is_shown_can_be_seen(text):
    assert shown(text).isprintable() and shown(shown(text)) == shown(text)


# ------------------------------------------------------------------ bounds


async def pour_list(visit: Visit) -> None:
    head = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n\r\n"
    await visit.send(head + f'{{"jsonrpc":"2.0","id":{message(visit)["id"]},"result":{{"tools":['.encode())
    await visit.pour(b'{"name":"a","inputSchema":{}},' * 1_000)


async def pour_events(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n")
    await visit.pour(b'data: {"jsonrpc":"2.0","method":"x"}\n\n' * 1_000)


async def bomb(visit: Visit) -> None:
    body = shapes.gzip.compress(b" " * 50_000_000)
    await send(visit, Answer(200, JSON, body, ("Content-Encoding: gzip",)))


@pytest.mark.parametrize("answer", [pour_list, pour_events, bomb])
def test_no_more_is_read_than_four_mebibytes_and_a_client_may_still_read_it(answer):
    with Farm(hand(tools=answer)) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert seen.verdict == "up" and seen.incomplete == {"tools": "The answers are longer than 4 MiB"} and not seen.tools
    # What the kernels hold on their way comes on top.
    assert sum(visit.sent for visit in farm.visits) < 3 * MAX_BYTES


def test_an_introduction_that_never_ends_begins_nothing():
    with Farm(hand(initialize=pour_events)) as farm:
        assert introduce(f"{farm.url}/mcp").cause == "mcp_error"


def pages(make: Callable[[int], dict[str, Any]]) -> Callable[[Visit], Awaitable[None]]:
    return says(lambda visit: make(int((message(visit)["params"]).get("cursor", "0"))))


def named(number: int) -> dict[str, Any]:
    return {"name": f"t{number}", "inputSchema": {}}


BOUNDS: dict[str, tuple[Callable[[int], dict[str, Any]], int, str]] = {
    "pages without end": (
        lambda page: {"tools": [named(page)], "nextCursor": str(page + 1)},
        MAX_PAGES,
        f"More than {MAX_PAGES} pages",
    ),
    "a circle": (lambda page: {"tools": [named(page)], "nextCursor": "1"}, 2, "The cursors lead in a circle"),
    "too many": (
        lambda page: {"tools": [named(page * 1_500 + n) for n in range(1_500)], "nextCursor": str(page + 1)},
        MAX_ITEMS,
        f"More than {MAX_ITEMS}",
    ),
    "a page that is none": (
        lambda page: {"tools": [named(0)], "nextCursor": "1"} if not page else {"tools": 7},
        1,
        "Page 2: No client can read the answer to tools/list: tools is not a list",
    ),
}


@pytest.mark.parametrize("case", BOUNDS)
def test_what_exceeds_a_bound_is_said_and_what_came_before_is_kept(case):
    make, count, said = BOUNDS[case]
    with Farm(hand(tools=pages(make))) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert (seen.verdict, len(seen.tools), seen.incomplete) == ("up", count, {"tools": said})


@pytest.mark.parametrize(("levels", "count"), [(64, 2), (65, 1)])
def test_a_tool_of_more_than_64_levels_is_left_out_and_that_is_said(levels, count):
    schema = json.loads('{"a":' * (levels - 2) + "{}" + "}" * (levels - 2))
    deep = {"name": "deep", "inputSchema": schema}
    with Farm(hand(tools=says(lambda _: {"tools": [deep, named(1)]}))) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert len(seen.tools) == count and bool(seen.incomplete) == (count == 1)


MANY: Any = [[]] * 20_000


@pytest.mark.parametrize(
    ("before", "server"),
    [
        ("legacy", hand(capabilities={"x": MANY}, tools=shapes.hold)),
        ("modern", shapes.modern_only("2026-07-28", x=MANY, capabilities={"y": MANY}, tools=shapes.hold)),
        (None, hand(initialize=shapes.fixed(jr(200, -32603, "no", x=MANY)), discover=shapes.hold)),
        (None, hand(initialize=says(lambda _: {"protocolVersion": "x", "y": MANY}), discover=shapes.hold)),
    ],
)
def test_a_sweep_waits_for_an_answer_without_the_values_of_the_one_before(before, server):
    def empty_lists() -> int:
        return sum(type(one) is list and not one for one in gc.get_objects())

    async def run() -> int:
        # Those of other tests: a run of the whole suite has some ten thousands.
        gc.collect()
        before_it = empty_lists()
        introducer = Introducer(Dialler(asyncio.get_running_loop()), Names(Zone(), OPEN), OPEN)
        making = introducer.introduce(f"{farm.url}/mcp", seconds=PATIENCE, before=before, brief=True)
        task = asyncio.get_running_loop().create_task(making)
        waited_for = "tools/list" if before else "server/discover"
        while not task.done() and waited_for not in asked(farm):
            await asyncio.sleep(0.01)
        kept = empty_lists() - before_it
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await introducer.close()
        return kept

    with Farm(server) as farm:
        assert on_our_loop(run()) < 10_000


def test_an_answer_deeper_than_python_reads_is_none():
    async def deep(visit: Visit) -> None:
        body = f'{{"jsonrpc":"2.0","id":{message(visit).get("id")},"result":{"[" * 100_000}'
        await send(visit, Answer(200, JSON, body.encode()))

    with Farm(shapes.gives(lambda _: Answer(200, JSON, b"[" * 100_000))) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == "down"
    with Farm(deep) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == "down"


# ------------------------------------------------------------------ time, and what is left behind


async def hold(visit: Visit) -> None:
    await visit.hold()


async def holding_body(visit: Visit) -> None:
    """The session is named, and the rest never comes."""
    await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nMcp-Session-Id: one\r\n\r\n")
    await visit.hold()


async def drip(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n")
    await visit.drip(*[b": ping\n\n"] * 1_000, seconds=0.05)


@pytest.mark.parametrize("answer", [hold, drip, holding_body])
def test_one_deadline_covers_everything_and_the_session_is_closed_all_the_same(answer):
    with Farm(hand(initialize=answer, discover=hold)) as farm:
        seen = introduce(f"{farm.url}/mcp", SOME)
    assert (seen.verdict, seen.cause) == ("down", "timeout")
    # The time of the question that was not answered, which is a part of the whole.
    waited = re.fullmatch(r"No answer to initialize within ([0-9.]+) seconds", seen.reason or "")
    assert waited and 0 < float(waited[1]) < SOME
    assert [evidence.asked for evidence in seen.evidence] == ["initialize", "server/discover"]
    assert ("DELETE" in asked(farm)) == (answer is holding_body)


def test_a_session_is_closed_where_the_tools_never_come():
    with Farm(hand(tools=hold, session=True)) as farm:
        seen = introduce(f"{farm.url}/mcp", SOME)
    assert seen.cause == "timeout" and (seen.reason or "").startswith("No answer to tools/list within ")
    assert [visit.headers["mcp-session-id"] for visit in farm.visits if visit.method == "DELETE"] == ["one"]


def test_a_session_is_closed_where_nobody_waits_for_the_introduction_any_more():
    async def run() -> None:
        introducer = Introducer(Dialler(asyncio.get_running_loop()), Names(Zone(), OPEN), OPEN)
        task = asyncio.get_running_loop().create_task(introducer.introduce(f"{farm.url}/mcp", seconds=PATIENCE))
        while "tools/list" not in asked(farm):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await introducer.close()

    with Farm(hand(tools=hold, session=True)) as farm:
        on_our_loop(run())
        assert asked(farm).count("DELETE") == 1


def test_a_session_that_a_refusal_names_is_somebody_else_s():
    """swift-sdk 0.12.0: one transport is one session, and a refusal names the one that is alive."""
    alive = jr(400, -32600, "Server already initialized")._replace(headers=("Mcp-Session-Id: alive",))
    with Farm(shapes.fixed(alive)) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == "down"
    assert "DELETE" not in asked(farm)


def test_no_more_is_asked_when_the_time_is_over():
    with Farm(hold) as farm:
        assert introduce(f"{farm.url}/mcp", 0.0).cause == "timeout"
    assert not asked(farm)


# ------------------------------------------------------------------ the way there


def test_a_redirect_within_the_origin_is_followed_and_the_session_is_closed_there():
    async def answer(visit: Visit) -> None:
        if visit.path == "/mcp":
            await send(visit, text(307, "", "text/plain", "Location: /mcp/"))
        else:
            await hand(session=True)(visit)

    with Farm(answer) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == "up"
    assert [path for _, path in farm.paths()][:3] == ["/mcp", "/mcp/", "/mcp/"]
    assert farm.paths()[-1] == ("DELETE", "/mcp/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_to_another_origin_is_followed(status):
    with Farm(hand()) as other:
        elsewhere = f"Location: {other.url.replace('127.0.0.1', 'localhost')}/mcp"
        with Farm(shapes.fixed(text(status, "", "text/plain", elsewhere))) as farm:
            seen = introduce(f"{farm.url}/mcp")
    assert (seen.verdict, seen.cause, other.visits) == ("down", "not_mcp", [])


@pytest.mark.parametrize(
    ("location", "verdict"),
    [
        ("https://login.example.com/authorize", "gated"),
        ("https://accounts.example.com/oauth2/v1?x", "gated"),
        ("https://idp.example.com/SSO", "gated"),
        ("/auth/login", "gated"),
        ("https://lessons.example.com/", "down"),
        ("https://authors.example.com/blogging", "down"),
    ],
)
def test_a_redirect_to_a_login_page_is_a_gate_and_another_is_none(location, verdict):
    with Farm(shapes.fixed(text(302, "", "text/plain", f"Location: {location}"))) as farm:
        assert introduce(f"{farm.url}/mcp").verdict == verdict


def streaming(*events: str, **results: dict[str, Any]) -> Callable[[Visit], Awaitable[None]]:
    """A server of 2024-11-05 that sends these events, and these results by method, with `_` for `/`."""
    streams: list[Visit] = []

    async def answer(visit: Visit) -> None:
        if visit.method != "GET":
            await send(visit, text(405, "") if visit.path.endswith("/sse") else text(202, ""))
            found = results.get(message(visit).get("method", "").replace("/", "_"))
            if found is not None and not visit.path.endswith("/sse"):
                await streams[-1].send(f"data: {json.dumps(result(visit, found))}\n\n".encode())
        else:
            streams.append(visit)
            await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n")
            for event in events:
                await visit.send(event.encode())
            await visit.hold()

    return answer


def test_a_list_too_long_for_us_comes_by_a_stream_too():
    begin = {
        "protocolVersion": "2024-11-05",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "x", "version": "1"},
    }
    where = "event: endpoint\ndata: /message\n\n"
    listed = {"tools": [], "x": "y" * MAX_BYTES}
    with Farm(streaming(where, initialize=begin, tools_list=listed)) as farm:
        seen = introduce(f"{farm.url}/sse")
    assert (seen.verdict, seen.era) == ("up", "sse")
    assert seen.incomplete == {"tools": "The answers are longer than 4 MiB"}


@pytest.mark.parametrize("events", [(), ("event: endpoint\ndata: /message\n\n",)])
def test_a_stream_that_says_nothing_is_waited_for_and_no_longer(events):
    with Farm(streaming(*events)) as farm:
        seen = introduce(f"{farm.url}/sse", SHORT)
    assert seen.verdict == "down"


def test_a_stream_that_leads_to_another_origin_is_not_followed():
    async def answer(visit: Visit) -> None:
        if visit.method != "GET":
            await send(visit, text(405, ""))
        else:
            await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n")
            await visit.send(f"event: endpoint\ndata: {other.url}/message\n\n".encode())
            await visit.hold()

    with Farm(hand()) as other, Farm(answer) as farm:
        seen = introduce(f"{farm.url}/sse")
    assert seen.verdict == "down" and not other.visits


def test_what_is_closed_is_not_dialled():
    with Farm(hand()) as farm:
        assert introduce(f"{farm.url}/mcp", policy=Policy.of({}))[:2] == ("down", "blocked")
    assert not farm.connections
    assert introduce("http://127.0.0.1/\r\nX: y")[:2] == ("down", "blocked")


def test_who_cannot_be_reached_is_said_as_such():
    with Farm(hand()) as farm:
        port = farm.port
    assert introduce(f"http://127.0.0.1:{port}/mcp")[:2] == ("down", "refused")
    assert introduce("http://nowhere.example/mcp")[:2] == ("down", "dns")
    with Farm(shapes.drop) as farm:
        assert introduce(f"{farm.url}/mcp")[:2] == ("down", "refused")
    with Farm(hand()) as farm:
        assert introduce(f"https://127.0.0.1:{farm.port}/mcp")[:2] == ("down", "tls")

    async def no_http(visit: Visit) -> None:
        await visit.send(b"SSH-2.0-OpenSSH_9.9\r\n")

    with Farm(no_http) as farm:
        seen = introduce(f"{farm.url}/mcp")
    assert seen[:3] == ("down", "not_mcp", "What answers there is not HTTP")
    assert seen.evidence[0].excerpt == r"SSH-2.0-OpenSSH_9.9\r\n"


def test_what_we_do_not_speak_is_named():
    async def http_2(visit: Visit) -> None:
        await visit.send(bytes.fromhex("000012040000000000000300000064000400010000000500004000"))

    with Farm(http_2) as farm:
        assert "HTTP/2" in (introduce(f"{farm.url}/mcp").reason or "")
    packed = Answer(200, JSON, b"\x8b\x03\x80", ("Content-Encoding: br",))
    with Farm(shapes.fixed(packed)) as farm:
        assert "compressed (br)" in (introduce(f"{farm.url}/mcp").reason or "")


def test_what_is_our_own_fault_is_nobody_s_verdict():
    class Broken(Zone):
        async def resolve(self, host: str) -> list[str]:
            raise ResolverUnreachable(host)

    seen = on_our_loop(introduction.introduce("http://a.example/mcp", policy=OPEN, resolver=Broken()))
    assert (seen.verdict, seen.cause) == (None, None) and seen.reason == "The registry's own resolver cannot be reached"


def test_a_name_is_looked_up_once():
    looked: list[str] = []

    class Noted(Zone):
        async def resolve(self, host: str) -> list[str]:
            looked.append(host)
            return await super().resolve(host)

    with Farm(hand(session=True)) as farm:
        url = f"http://a.example:{farm.port}/mcp"
        seen = on_our_loop(introduction.introduce(url, policy=OPEN, resolver=Noted(a_example=["127.0.0.1"])))
    assert seen.verdict == "up" and looked == ["a.example"]
    assert {visit.headers["host"] for visit in farm.visits} == {f"a.example:{farm.port}"}


def test_the_answer_to_initialize_says_which_version_is_sent_from_then_on():
    with Farm(hand(initialize=says(lambda visit: initialized(visit, protocolVersion="2025-03-26")))) as farm:
        assert introduce(f"{farm.url}/mcp").protocol_versions == ("2025-03-26",)
    versions = [visit.headers.get("mcp-protocol-version") for visit in farm.visits]
    assert versions == [None, "2025-03-26", "2025-03-26", "2025-03-26"]


# ------------------------------------------------------------------ by hand, and in pieces


def test_it_can_be_made_by_hand(monkeypatch, capsys):
    monkeypatch.setenv("GUARD_OPEN_CIDRS", "127.0.0.0/8")
    with Farm(hand()) as farm, Farm(shapes.fixed(text(401, ""))) as gated:
        assert main([f"{farm.url}/mcp"]) == 0
        up = json.loads(capsys.readouterr().out)
        assert (up["verdict"], up["tools"], up["server_info"]["name"]) == ("up", 2, "shape")
        assert main([f"{gated.url}/mcp"]) == 1
        assert json.loads(capsys.readouterr().out)["gate"] == {"status": 401} | dict.fromkeys(
            ("realm", "resource_metadata", "issuer", "header", "location")
        ) | {"schemes": [], "scopes": []}
    assert main([]) == 2 and "URL" in capsys.readouterr().err


BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"words": "ö\u2028x"}}).encode()
WHOLE = {
    "by length": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (len(BODY), BODY),
    "to the end": b"HTTP/1.0 200 OK\nContent-Type: application/json\n\n" + BODY,
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "as an event": b"HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    b"event: other\ndata: 1\n\n: ping\n\nid: 1\ndata:\n\nevent: message\rdata: " + BODY + b"\r\r",
    "as an event without an end": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " + BODY,
    "packed": (
        lambda packed: (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(packed), packed)
        )
    )(shapes.gzip.compress(BODY)),
    "a refusal": b"HTTP/1.1 401 X\r\nWWW-Authenticate: Basic\r\nwww-authenticate: Bearer\r\n\r\n"
    + json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": 1}}).encode(),
}


@pytest.mark.parametrize("case", WHOLE)
def test_how_an_answer_is_split_into_packets_changes_nothing(case):
    def read(*pieces: bytes) -> tuple[Any, ...]:
        reply = Reply(1, 0x10000)
        for piece in pieces:
            reply.feed(piece)
        reply.end()
        return reply.status, reply.headers, reply.message, reply.sample, reply.done, reply.overflowed

    whole = WHOLE[case]
    expected = read(whole)
    assert expected[2] and expected[2].get("result", {}).get("words", "ö\u2028x") == "ö\u2028x"
    assert read(*(whole[place : place + 1] for place in range(len(whole)))) == expected
    assert [read(whole[:place], whole[place:]) == expected for place in range(1, len(whole))] == [True] * (
        len(whole) - 1
    )
    assert (case == "a refusal") == (expected[1].get(b"www-authenticate") == b"Basic, Bearer")
