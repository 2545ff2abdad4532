"""To whom probe headers go: to every question of their origin, and to nobody else; and what comes of that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from local import template
from local.queues import CREDENTIALS
from mcp_registry.aws import secret
from mcp_registry.catalogue import fingerprint
from mcp_registry.dial import introduction
from mcp_registry.dial.introduction import Introduction
from mcp_registry.health import headers
from mcp_registry.health.headers import Given
from mcp_registry.health.messages import Introduced
from mcp_registry.health.probe import new_event_loop
from tests.hostile import Farm, Visit
from tests.integration.test_visits import OPEN, endpoint, introduced
from tests.shapes import CHALLENGE, TEXT, TOOLS, Sdk, doc, hand, over_sse, says, send, text

TOKEN = "Bearer canary-7d2f4be1c933"
GIVEN = {"Authorization": TOKEN, "X-Tenant": "payments"}
Manner = Callable[[Visit], Awaitable[None]]


def is_let_in(visit: Visit) -> bool:
    return visit.headers.get("authorization") == TOKEN and visit.headers.get("x-tenant") == "payments"


def gated(serve: Manner, metadata: str = "https://x.invalid/m") -> Manner:
    """Whom nobody else gets to."""

    async def answer(visit: Visit) -> None:
        if is_let_in(visit):
            await serve(visit)
        else:
            await send(visit, doc(401, {"error": "invalid_token"}, CHALLENGE % metadata))

    return answer


def introduce(url: str, given: dict[str, str] | None = None) -> Introduction:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(introduction.introduce(url, policy=OPEN, headers=given))


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, queue_service: str) -> Iterator[Callable[[str], str]]:
    """Makes a secret of headers for this origin and gives its id."""
    made: list[str] = []
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", queue_service)
    monkeypatch.setenv("AWS_DEFAULT_REGION", template.REGION)
    monkeypatch.setenv("PROBE_HEADERS", "sent/probe-headers/")
    monkeypatch.setattr(secret, "_client", None)
    monkeypatch.setattr(headers, "_kept", {})

    def make(origin: str) -> str:
        made.append(f"00000000-0000-4000-8000-{len(made):012}")
        headers.write(1, made[-1], Given(origin, GIVEN))
        return made[-1]

    yield make
    for id_ in made:
        headers.remove(1, id_)


def look(farm: Farm, id_: str, path: str = "", **fields: Any) -> Introduced:
    """What is sent of a server for which there are headers."""
    (one,) = introduced(endpoint(farm.url + path, headers=id_, **fields)).values()
    return one


# ------------------------------------------------------------------ to whom they go


def test_they_go_along_with_every_question_and_with_the_end_of_the_session():
    with Farm(gated(hand(session=True))) as farm:
        assert introduce(farm.url).verdict == "gated"
        before = len(farm.visits)
        found = introduce(farm.url, GIVEN)
        asked = farm.visits[before:]
    assert (found.verdict, found.tools) == ("up", TOOLS)
    assert "DELETE" in {visit.method for visit in asked} and len(asked) >= 4
    assert all(is_let_in(visit) for visit in asked)


def test_a_stream_of_the_old_transport_and_what_is_posted_beside_it_get_them():
    serve = over_sse(Sdk(), post=text(405, ""), message_unknown=text(404, ""))
    with Farm(gated(serve)) as farm:
        found = introduce(f"{farm.url}/sse", GIVEN)
    assert (found.verdict, found.era) == ("up", "sse")
    assert all(is_let_in(visit) for visit in farm.visits)


def test_a_redirect_within_the_origin_is_followed_with_them():
    serve = hand()

    async def answer(visit: Visit) -> None:
        await (serve(visit) if visit.path == "/mcp/" else send(visit, text(307, "", TEXT, "Location: /mcp/")))

    with Farm(gated(answer)) as farm:
        assert introduce(f"{farm.url}/mcp", GIVEN).verdict == "up"
    assert all(is_let_in(visit) for visit in farm.visits)


@pytest.mark.parametrize("where", ["another port", "another name", "another scheme", "a stream that leads elsewhere"])
def test_nobody_else_is_asked_anything_with_them_wherever_a_server_leads(where: str):
    """Another port of the same host, another name of the same address, and the same address by TLS."""
    with ExitStack() as stack:
        other = stack.enter_context(Farm(hand()))

        def onward(farm: Farm) -> str:
            return {
                "another port": other.url,
                "another name": f"http://localhost:{farm.port}",
                "another scheme": f"https://127.0.0.1:{farm.port}",
            }.get(where, other.url)

        async def answer(visit: Visit) -> None:
            if where == "a stream that leads elsewhere" and visit.method == "GET":
                await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                await visit.send(f"event: endpoint\ndata: {onward(farm)}/message\n\n".encode())
                await visit.hold()
            elif where == "a stream that leads elsewhere":
                await send(visit, text(405, ""))
            else:
                await send(visit, text(307, "", TEXT, f"Location: {onward(farm)}/mcp"))

        farm = stack.enter_context(Farm(answer))
        found = introduce(farm.url, GIVEN)
        assert found.verdict == "down"
        assert not other.visits
        # Of the address by TLS the first bytes would be no request.
        assert farm.connections == len(farm.visits)
        assert {visit.headers["host"] for visit in farm.visits} == {f"127.0.0.1:{farm.port}"}


def test_how_one_gets_in_is_read_without_them():
    """The metadata of another port of the host, and of the origin itself where none is named."""
    with Farm(hand(get=says(lambda _: {}))) as other:
        for metadata in (f"{other.url}/metadata", ""):

            async def refuse(visit: Visit, metadata: str = metadata) -> None:
                challenge = CHALLENGE % metadata if metadata else "WWW-Authenticate: Bearer"
                await send(visit, doc(401, {}, challenge))

            with Farm(refuse) as farm:
                found = introduce(farm.url, GIVEN)
            assert found.verdict == "gated"
            read = other.visits if metadata else [one for one in farm.visits if "well-known" in one.path]
            assert read and not any("authorization" in one.headers or "x-tenant" in one.headers for one in read)


# ------------------------------------------------------------------ what is sent on


def test_a_gated_server_stays_gated_and_what_it_offers_to_who_has_the_headers_is_seen(secrets):
    with Farm(gated(hand(), "https://x.invalid/m")) as farm:
        one = look(farm, secrets(farm.url), verdict="gated")
        (plain,) = introduced(endpoint(farm.url, verdict="gated")).values()
    assert (one.finding.verdict, one.finding.status_code, one.trouble) == ("gated", 401, None)
    told: dict[str, Any] = {**(one.introduction or {})}
    assert told["tools_count"] == len(TOOLS)
    digests = fingerprint.tools([fingerprint.fingerprint(tool) for tool in TOOLS])
    assert told["digest"] == {name: digest.hex() for name, digest in digests._asdict().items()}
    # How it is asked each half minute, and how one gets in, is learnt of what everybody finds.
    assert (one.pulse, one.auth, one.era) == (plain.pulse, plain.auth, plain.era)
    assert plain.introduction is None


def test_a_server_that_lets_everybody_in_is_never_sent_any(secrets):
    with Farm(hand()) as farm:
        one = look(farm, secrets(farm.url))
    assert one.finding.verdict == "healthy"
    assert not any("authorization" in visit.headers for visit in farm.visits)


def test_another_endpoint_of_the_server_is_not_sent_them(secrets):
    with Farm(gated(hand())) as farm, Farm(gated(hand())) as other:
        one = look(other, secrets(farm.url))
    assert one.introduction is None and "another scheme, host or port" in (one.trouble or "")
    assert not any("authorization" in visit.headers for visit in other.visits)


def test_headers_that_are_refused_are_said_to_be(secrets):
    async def refuse(visit: Visit) -> None:
        await send(
            visit, doc(401, {"error": visit.headers.get("authorization", "")}, CHALLENGE % "https://x.invalid/m")
        )

    with Farm(refuse) as farm:
        one = look(farm, secrets(farm.url))
    assert one.finding.verdict == "gated" and one.introduction is None
    assert one.trouble == "With the headers that were given for it, it is gated all the same, 401"
    assert any(is_let_in(visit) for visit in farm.visits)
    assert "canary" not in repr(one)


@pytest.mark.parametrize(
    "tell",
    [
        lambda visit: {"tools": [{**TOOLS[0], "description": f"You are {visit.headers.get('authorization')}"}]},
        lambda visit: {"tools": [{**TOOLS[0], "x": {visit.headers.get("authorization", "")[7:]: [1]}}]},
    ],
    ids=["in a text", "in a name, without the scheme"],
)
def test_a_server_that_repeats_them_is_not_told_of(secrets, tell: Callable[[Visit], dict[str, Any]]):
    with Farm(gated(hand(tools=says(tell)))) as farm:
        one = look(farm, secrets(farm.url))
    assert one.introduction is None and one.trouble is not None and "repeats a header" in one.trouble
    assert "canary" not in repr(one)


def test_headers_that_are_gone_or_cannot_be_read_are_said_to_be(secrets, monkeypatch, caplog):
    with Farm(gated(hand())) as farm:
        id_ = secrets(farm.url)
        headers.remove(1, id_)
        gone = look(farm, id_)
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
            patch.setattr(secret, "_client", None)
            silent = look(farm, id_)
    assert gone.trouble == "The headers that were given for it are gone: give them again"
    assert silent.trouble == "The headers that were given for it cannot be read right now"
    assert (gone.finding.verdict, silent.finding.verdict) == ("gated", "gated")
    assert "canary" not in json.dumps([vars(record) for record in caplog.records], default=repr)
