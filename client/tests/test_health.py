"""A check from the command line sees what the registry's own prober sees: both are asked about the same answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import socketserver
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_registry.dial import exchange, guard, introduction, reach, urls
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.reply import Reply
from mcp_registry.health import asking, probe, pulse

from client.tests.test_introspect import (
    RESET,
    SHORT,
    Answer,
    Asked,
    context,
    endless,
    event,
    hang,
    respond,
    stranger,
    stream,
)
from mcp_registry_client import _answer, _handshake, _health, _urls
from mcp_registry_client._answer import Room
from mcp_registry_client._fault import Failed
from mcp_registry_client._health import check
from tests.unit import test_exchange, test_urls

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})

# Stands for the id of the request that is answered: it is as long as those that are asked with.
ID = test_exchange.ID
RESULT: dict[str, Any] = {"jsonrpc": "2.0", "id": ID, "result": {"supportedVersions": ["2026-07-28"]}}
INITIALIZED: dict[str, Any] = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "s", "version": "1"},
}
ERROR: dict[str, Any] = {"jsonrpc": "2.0", "id": None, "error": {"code": -32603, "message": "Internal server error"}}
HTML = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\n\r\n<html>"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def to(asked: Asked, data: bytes) -> bytes:
    """What is sent, with the id of the request."""
    return data.replace(b"%d" % ID, b"%d" % asked.message.get("id", 0))


def text(status: int, body: str) -> Answer:
    return lambda _: respond(status, body, "text/plain")


def data(status: int, body: bytes | str | dict[str, Any], *headers: str) -> Answer:
    return lambda _: respond(status, body, "application/json", *headers)


def raw(*pieces: bytes) -> Answer:
    return lambda _: pieces


def reset_after(answer: Answer) -> Answer:
    def reset(asked: Asked) -> Iterator[bytes]:
        yield from answer(asked)
        threading.Event().wait(0.05)  # for what was sent to arrive, which nobody says
        yield RESET

    return reset


def packed(body: bytes, end: bytes = b"") -> Answer:
    return data(200, body + end, "Content-Encoding: gzip")


def session(asked: Asked) -> Iterable[bytes]:
    """What a server answers that is one."""
    if asked.method != "POST":
        return respond(405, "", "text/plain")
    method = asked.message["method"]
    found = {"initialize": INITIALIZED, "tools/list": {"tools": []}}.get(method)
    if found is None:
        return respond(202, "") if "id" not in asked.message else respond(404, ERROR)
    return respond(200, {"jsonrpc": "2.0", "id": asked.message["id"], "result": found})


# By path: what a server answers there. Of `/x/health` where it stands here, of a page that is not there elsewhere.
ANSWERS: dict[str, Answer] = {
    "/up": session,
    "/to-up": data(307, "", "Location: up"),
    "/plain": text(404, "no"),
    "/plain/health": data(200, {"status": "ok"}),
    "/page": text(404, "no"),
    "/page/health": lambda _: respond(200, "<h1>Fine", "text/html"),
    "/page-as-text": text(404, "no"),
    "/page-as-text/health": text(200, "\n<h1>Fine"),
    "/any": data(404, {"error": "no"}),
    "/any/health": data(200, {"at": 1}),
    "/any/b5c1-no-such-path-9e7d": data(200, {"at": 2}),
    "/any-in-words": text(200, "ok"),
    "/any-in-words/health": text(200, "fine"),
    "/any-in-words/b5c1-no-such-path-9e7d": text(200, "ok"),
    "/nearly-any": text(404, "no"),
    "/nearly-any/health": data(200, {"at": 1}),
    "/nearly-any/b5c1-no-such-path-9e7d": data(200, {"error": "x"}),
    "/nonsense-drops": text(404, "no"),
    "/nonsense-drops/health": text(200, "ok"),
    "/nonsense-drops/b5c1-no-such-path-9e7d": raw(),
    "/r402": text(402, "pay"),
    "/login": data(302, "", "Location: https://login.example.com/authorize"),
    "/health-429": text(404, "no"),
    "/health-429/health": text(429, "slow"),
    "/html-401": lambda _: respond(401, "<h1>No", "text/html"),
    "/session-401": text(401, "Unauthorized: Session not found"),
    "/challenge": data(401, "", 'WWW-Authenticate: Bearer realm="x"'),
    "/rpc-403": data(403, ERROR),
    "/result": data(200, RESULT),
    "/error": data(400, ERROR),
    "/r500rpc": data(500, ERROR),
    "/r503rpc": data(503, ERROR),
    "/r429": data(429, ERROR),
    "/r401": text(401, "no"),
    "/r403": text(403, "no"),
    "/r404": text(404, "no"),
    "/r204": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/r600": raw(b"HTTP/1.1 600 Odd\r\n\r\nno"),
    "/endless500": hang(HTML % b"500 X"),
    "/endless404": hang(HTML % b"404 X"),
    "/endless200": hang(HTML % b"200 X"),
    "/endless200/health": text(200, "ok"),
    "/hangs": hang(b""),
    "/hangs-in-head": hang(b"HTTP/1.1 200 OK\r\nContent-"),
    "/health-hangs": text(404, "no"),
    "/health-hangs/health": hang(b""),
    "/health-resets": text(404, "no"),
    "/health-resets/health": reset_after(raw()),
    "/other-id": data(200, RESULT | {"id": str(ID)}),
    "/null-result": data(200, '{"jsonrpc":"2.0","id":1234567890,"result":null}'),
    "/nan": data(200, '{"jsonrpc":"2.0","id":1234567890,"result":{"x":NaN}}'),
    "/no-utf8": data(400, b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"ung\xfcltig"}}'),
    "/mark": data(200, b"\xef\xbb\xbf" + json.dumps(RESULT).encode()),
    "/batch": data(200, json.dumps([ERROR])),
    "/array": data(200, "[1]"),
    "/notification": data(200, {"jsonrpc": "2.0", "method": "x"}),
    "/deep": data(200, '{"jsonrpc":"2.0","result":' + "[" * 20_000),
    "/string-refusal": data(400, '"Invalid session ID"'),
    "/plain-refusal": text(400, "Invalid session ID"),
    "/html-refusal": text(400, "<p>Invalid session ID"),
    "/long-refusal": text(400, "x" * 600 + "Invalid session ID"),
    "/refusal-200": text(200, "Invalid session ID"),
    "/big": data(200, '{"jsonrpc":"2.0","id":1234567890,"result":{"x":"' + "a" * 9_000_000 + '"}}'),
    "/big-nothing": data(200, '{"x":"' + "a" * 100_000 + '"}'),
    "/endless-json": endless(JSON + b'\r\n{"jsonrpc":"2.0","id":1234567890,"result":{"x":"', b"a" * 0x1000),
    "/endless-head": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    "/early-hints": lambda _: [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *respond(400, ERROR)],
    "/many-headers": data(400, ERROR, *(f"X-{number}: 1" for number in range(150))),
    "/reset": reset_after(raw(JSON + b"\r\n" + json.dumps(RESULT).encode())),
    "/reset-in-half": reset_after(raw(JSON + b'\r\n{"jsonrpc":')),
    "/reset-at-once": reset_after(raw()),
    "/closed": raw(),
    "/closed-in-head": raw(b"HTTP/1.1 200 OK\r\nContent-"),
    "/cut": raw(JSON + b"Content-Length: 999\r\n\r\n" + json.dumps(RESULT).encode()),
    "/short": raw(JSON + b"Content-Length: 5\r\n\r\n" + json.dumps(RESULT).encode()),
    "/two-lengths": data(400, ERROR, "Content-Length: 5"),
    "/chunked": raw(
        JSON + b"Transfer-Encoding: chunked\r\n\r\n4F\r\n" + json.dumps(RESULT).encode() + b"\r\n0\r\n\r\n"
    ),
    "/broken-chunks": raw(JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + json.dumps(RESULT).encode()),
    "/gzip": lambda asked: packed(gzip.compress(to(asked, json.dumps(RESULT).encode())))(asked),
    "/gzip-and-more": lambda asked: packed(gzip.compress(to(asked, json.dumps(RESULT).encode())), b"\x00" * 99)(asked),
    "/two-gzips": packed(gzip.compress(b'{"jsonrpc":"2.0",') + gzip.compress(b'"result":1}')),
    "/broken-gzip": packed(gzip.compress(b"hello" * 50)[:20] + b"\xff" * 20),
    "/broken-gzip/health": text(200, "ok"),
    "/gzip-of-much": lambda asked: packed(
        gzip.compress(to(asked, b'{"jsonrpc":"2.0","id":1234567890,"result":{"x":"' + b"a" * 1_000_000))
    )(asked),
    "/no-reason": raw(b"HTTP/1.1 400\r\n\r\n" + json.dumps(ERROR).encode()),
    "/http10": raw(b"HTTP/1.0 400 Bad\r\n\r\n" + json.dumps(ERROR).encode()),
    "/line-feeds": raw(b"HTTP/1.1 400 Bad\nContent-Type: application/json\n\n" + json.dumps(ERROR).encode()),
    "/http2": raw(b"HTTP/2.0 400 Bad\r\n\r\n" + json.dumps(ERROR).encode()),
    "/ssh": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "/stream": raw(stream() + event(RESULT)),
    "/stream-other-id": raw(stream() + event(ERROR | {"id": "x"})),
    "/stream-of-notes": raw(stream() + event({"jsonrpc": "2.0", "method": "x"}) + event(RESULT)),
    "/stream-unended": raw(stream() + b"data: " + json.dumps(RESULT).encode()),
    "/stream-held": hang(stream() + event(RESULT)),
    "/stream-endless": endless(stream() + b"data: " + b'{"jsonrpc":"2.0","result":{"x":"', b"a" * 0x1000),
    "/redirected": data(307, "", "Location: /app"),
    "/redirected/health": text(404, "no"),
    "/app": text(404, "no"),
    "/app/health": text(200, "ok"),
    "/to-result": data(308, "", "Location: result"),
    "/to-result-in-two": data(307, "", "Location: /to-result"),
    "/away": data(307, "", "Location: http://127.0.0.2/result"),
    "/nowhere": data(307, ""),
    "/alike": text(404, "no"),
    "/alike/health": text(200, "ok"),
    f"/alike/{pulse.NONSENSE}": text(200, "ok"),
    "/health-led-on": text(404, "no"),
    "/health-led-on/health": data(307, "", "Location: status"),
    "/health-led-on/status": text(200, "ok"),
    "/r302": data(302, "", "Location: /result"),
    "": text(404, "no"),
    "/health": text(200, "ok"),
    "/slash/": text(404, "no"),
    "/slash/health": text(201, "ok"),
    "/actuator": text(404, "no"),
    "/actuator/health": data(200, {"status": "DOWN", "components": {"db": {"status": "DOWN"}}}),
    "/actuator-up": text(404, "no"),
    "/actuator-up/health": data(200, {"status": "UP"}),
    "/out": data(200, {"status": "OUT_OF_SERVICE"}),
    "/fail": raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/health+json; v=1\r\n\r\n" + b'{"status":"fail"}'),
    "/warn": raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/health+json\r\n\r\n" + b'{"status":"warn"}'),
    "/down-503": data(503, {"status": "DOWN"}),
    "/down-in-words": text(200, '{"status":"DOWN"}'),
    "/down-below": data(200, {"database": {"status": "DOWN"}}),
    "/down-in-a-list": data(200, '[{"status":"DOWN"}]'),
    "/down-as-number": data(200, {"status": 0}),
    "/down-flag": data(200, {"healthy": False}),
    "/down-word": text(200, "Unhealthy\n"),
    "/down-word-cut": raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nDOWN"),
    "/down-word-and-more": text(200, "Downloads are up"),
    "/down-cut": raw(JSON + b'Content-Length: 999\r\n\r\n{"status":"DOWN"}'),
    "/down-packed": packed(gzip.compress(b'{"status":"down"}')),
    "/down-after-much": data(200, '{"x":"' + "a" * 100_000 + '","status":"DOWN"}'),
    "/down-hangs": hang(JSON + b'\r\n{"status":'),
}
# What a server declares as its health URL, below the path of an endpoint.
DECLARED = [
    "/alike/health",
    "/plain/health",
    "/page/health",
    "/health-429/health",
    "/r401",
    "/r503rpc",
    "/health",
    "/r404",
    "/r500rpc",
    "/hangs",
    "/ssh",
    "/closed",
    "/to-result",
    "/endless-head",
    "/health?full=1",
    "/actuator/health",
    "/actuator-up/health",
    "/out",
    "/fail",
    "/warn",
    "/down-503",
    "/down-in-words",
    "/down-flag",
    "/down-word",
    "/down-word-cut",
    "/down-word-and-more",
    "/down-below",
    "/down-in-a-list",
    "/down-as-number",
    "/down-cut",
    "/down-packed",
    "/down-after-much",
    "/down-hangs",
    "/mark",
    "/deep",
    "/r204",
]


def answered(asked: Asked) -> Iterator[bytes]:
    found = ANSWERS.get(asked.path.partition("?")[0] if asked.path != "/" else "")
    if found is None:
        yield from respond(404, "not here", "text/plain")
        return
    for piece in found(asked):
        yield piece if piece is RESET else to(asked, piece)


# What is longer than the prober reads of an answer in a sweep.
LONG = ("/big", "/endless-json", "/gzip-of-much", "/stream-endless")
# How often the prober may be too busy to judge.
ROUNDS = 5
# For a check, of which a few here take all; the sweep beside it has as much for each, and what surrounds that.
PATIENCE, SWEEP = 3.0, 11.0


def seen_by_both(targets: list[tuple[str, str | None]]) -> Iterator[tuple[str, Any, Any]]:
    """What the registry's prober and the command's check make of servers, all of them at the same time."""
    # Of who is down there is no second look, as there is none from here.
    asked = [probe.Target(place, place, *target, verdict="refused") for place, target in enumerate(targets, 1)]
    with ThreadPoolExecutor(len(asked)) as pool:
        ours = [
            pool.submit(check, target.url, health_url=target.health_url, deadline_seconds=PATIENCE) for target in asked
        ]
        theirs: dict[int, probe.Result] = {}
        # The prober says of whom it was too busy to judge, as it may be beside these threads: those are asked again.
        for _ in range(ROUNDS):
            again = [one for one in asked if one.id not in theirs or theirs[one.server_id].verdict is None]
            theirs |= {result.server_id: result for result in probe.sweep(again, seconds=SWEEP, policy=OPEN)}
        for target, future in zip(asked, ours, strict=True):
            result, sight = theirs[target.server_id], future.result()
            if sight.verdict == "timeout" != result.verdict:
                # So may these threads be, of which there are a hundred.
                sight = check(target.url, health_url=target.health_url, deadline_seconds=PATIENCE)
            yield (
                f"{target.url} {target.health_url or ''}",
                (result.verdict, result.status_code, timeless(result.error)),
                (sight.verdict, sight.status_code, timeless(sight.error_message)),
            )


def introduced(urls: list[str]) -> list[tuple[str | None, int | None, str | None]]:
    """What introductions that are not those of a sweep find."""

    async def run() -> list[introduction.Introduction]:
        return await asyncio.gather(*(introduction.introduce(url, policy=OPEN) for url in urls))

    return [(one.cause, one.status_code, one.reason) for one in asyncio.run(run())]


def timeless(sentence: str | None) -> str | None:
    """A sentence without how long was waited, which depends on how much time there was."""
    return sentence and re.sub(r"within [0-9.]+ seconds", "within N seconds", sentence)


# What health pages say, and what they call their service where it is ill.
PAGES = {
    '{"status": "DOWN"}': "DOWN",
    '{"status": "fail"}': "fail",
    '{"status": "failed"}': "failed",
    '{"status": "Failing"}': "Failing",
    '{"status": "OUT_OF_SERVICE"}': "OUT_OF_SERVICE",
    '{"status": "out of service"}': "out of service",
    '{"status": "unhealthy"}': "unhealthy",
    '{"status": "critical"}': "critical",
    '{"status": "error"}': "error",
    '{"status": "unavailable"}': "unavailable",
    '{"status": "not ok"}': "not ok",
    '{"Status": "Unhealthy"}': "Unhealthy",
    '{"STATE": "down"}': "down",
    '{"health": "down"}': "down",
    '{"status": {"code": "DOWN"}}': "DOWN",
    '{"status": {"Status": "DOWN", "since": 1}}': "DOWN",
    '{"status": "ok", "state": "error"}': "error",
    '{"healthy": false}': "not healthy",
    '{"Ok": false}': "not ok",
    '\ufeff{"status": "DOWN"}': "DOWN",
    "DOWN": "DOWN",
    '"DOWN"': "DOWN",
    " Unhealthy\r\n": "Unhealthy",
    "not-ok": "not-ok",
    '{"status": "UNKNOWN"}': None,
    '{"status": "UP"}': None,
    '{"status": "down the road"}': None,
    '{"status": "out\\nof\\nservice"}': None,
    '{"status": "not o\u212a"}': None,
    '{"status": 0}': None,
    '{"status": false}': None,
    '{"ok": true, "healthy": null}': None,
    '{"error": "down"}': None,
    '{"database": {"status": "DOWN"}}': None,
    '{"status": {"text": "DOWN"}}': None,
    '{"status": ["DOWN"]}': None,
    '[{"status": "DOWN"}]': None,
    "false": None,
    "ok": None,
    "DOWN for maintenance": None,
    "": None,
}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_health_page_calls_its_service_is_read_alike_on_both_sides(page):
    text = page.encode()
    assert (exchange.down_state(text), _health.down_state(text)) == (PAGES[page], PAGES[page])


def test_a_check_sees_what_the_probe_of_the_registry_sees():
    with stranger(answered) as server:
        root = server.url.removesuffix("/mcp")
        targets: list[tuple[str, str | None]] = [(root + path, None) for path in ANSWERS if path not in LONG]
        targets += [(root + "/result", path) for path in DECLARED] + [(root + "/result", f"{root}/r404")]
        targets += [(root + "/up", path) for path in DECLARED]
        seen = list(seen_by_both(targets))
    assert len(seen) == len(targets)
    different = [one for one in seen if one[1] != one[2]]
    assert not different
    # The table holds every verdict that an answer can lead to, or it would prove little.
    assert {one[1][0] for one in seen} == {
        *("healthy", "gated", "limited"),
        *("not_mcp", "mcp_error", "http_error", "timeout", "refused"),
    }


def test_a_check_sees_of_a_long_answer_what_an_introduction_sees():
    """A sweep reads less, and judges nobody by what it has not read."""
    with stranger(answered) as server:
        urls = [server.url.replace("/mcp", path) for path in LONG]
        with ThreadPoolExecutor(len(urls)) as pool:
            sights = list(pool.map(check, urls))
        assert [(one.verdict, one.status_code, one.error_message) for one in sights] == introduced(urls)


@contextmanager
def greeter() -> Generator[str]:
    """A server that speaks first, as one of mail does; its URL."""

    class Greets(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"220 mail ESMTP\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greets) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/mcp"
        server.shutdown()


def test_a_check_sees_of_tls_and_of_no_server_what_the_probe_sees():
    authority = trustme.CA()
    with (
        stranger(answered) as plain,
        stranger(answered, context(authority, "127.0.0.1")) as unknown,
        greeter() as greeting,
        socket.socket() as taken,
    ):
        taken.bind(("127.0.0.1", 0))
        addresses = [
            f"http://127.0.0.1:{taken.getsockname()[1]}/mcp",
            f"http://localhost:{taken.getsockname()[1]}/mcp",
            f"http://localhost:{plain.server_address[1]}/up",
            unknown.url,
            greeting.replace("http:", "https:"),
            "http://127.0.0.1:9001/mcp",
            "http://127.0.0.1:22/mcp",
        ]
        seen = list(seen_by_both([(url, None) for url in addresses]))
        assert [one for one in seen if one[1] != one[2]] == []
        assert [one[2][0] for one in seen] == ["refused", "refused", "healthy", "tls", "tls", "blocked", "blocked"]


def test_a_certificate_is_judged_as_the_probe_judges_it(tmp_path, monkeypatch):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(exchange, "_context", None)
    with (
        stranger(answered, context(authority, "127.0.0.1")) as good,
        stranger(answered, context(authority, "other.example")) as other,
    ):
        seen = list(seen_by_both([(good.url.replace("/mcp", "/up"), None), (other.url, None)]))
    assert [one for one in seen if one[1] != one[2]] == []
    assert [one[2][0] for one in seen] == ["healthy", "tls"]
    monkeypatch.setattr(exchange, "_context", None)


def test_a_name_that_is_not_found_in_time_is_what_the_probe_calls_it(monkeypatch):
    over = threading.Event()
    found = socket.getaddrinfo

    def hanging(host: str, *rest: Any, flags: int = 0, **more: Any) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return found(host, *rest, flags=flags, **more)
        over.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    sight = check("http://slow.example/mcp", deadline_seconds=SHORT)
    over.set()
    assert sight.verdict == probe.NAME_TIMEOUT.verdict == "dns" and sight.address is None
    assert timeless(sight.error_message) == timeless(probe.NAME_TIMEOUT.error)


def test_what_is_sent_and_looked_for_is_what_the_registry_sends_and_looks_for():
    for name in ("NAME", "VERSION", "MODERN", "OFFERED", "LEGACY", "META", "CLIENT", "SERVER_INFO", "FIRST_SHARE"):
        assert getattr(_handshake, name) == getattr(introduction, name), name
    for name in (
        "LOGIN",
        "HTTP_2",
        "SSE_PATH",
        "SESSION_ID",
        "STREAM_SECONDS",
        "MAX_PAGES",
        "MAX_ITEMS",
        "MAX_EXCERPT",
    ):
        assert getattr(_handshake, name) == getattr(introduction, name), name
    for name in ("HEADER_NAME", "PARAMETER", "SCHEME", "SECONDS", "GATE_SECONDS", "MAX_BYTES"):
        assert getattr(_health, name) == getattr(introduction, name), name
    assert (_handshake.REFUSAL, _handshake.MAX_REFUSAL) == (exchange.REFUSAL, exchange.MAX_REFUSAL)
    assert (_handshake.BEFORE_JSON, _health.LIMIT, _health.DOWN) == (
        exchange.BEFORE_JSON,
        exchange.LIMIT,
        exchange.DOWN,
    )
    for name in ("STATES", "STATES_WITHIN", "FLAGS"):
        assert getattr(_health, name) == getattr(exchange, name), name
    assert (frozenset(_health.JSON_BEGINNING), _health.MAX_DOWN) == (asking.JSON_BEGINNING, asking.MAX_DOWN)
    assert _health.PAGE_SECONDS == probe.DEADLINE and _health.CONNECT_SECONDS == reach.CONNECT_SECONDS
    assert _health.CERTIFICATE_FAULTS == reach.CERTIFICATE_FAULTS and _health.NO_TLS == reach.NO_TLS
    assert (_health.NONSENSE, _health.MAX_DEPTH) == (pulse.NONSENSE, pulse.MAX_DEPTH)
    assert (_health.UP, _health.PLAIN_MAY_SAY) == (probe.UP, probe.PLAIN_MAY_SAY)


# ------------------------------------------------------------------ the bytes of an answer


def read_by_registry(pieces: list[bytes]) -> Any:
    found = Reply(ID, exchange.LIMIT)
    for piece in pieces:
        found.feed(piece)
    found.end()
    if found.status is None:
        return found.fault
    text = b"" if found.overflowed else found.body.lstrip(exchange.BEFORE_JSON)
    return found.status, found.header("location"), found.message, found.overflowed, text


def read_by_client(pieces: list[bytes]) -> Any:
    left = list(pieces)

    def receive(most: int) -> bytes:
        if not left:
            return b""
        piece = left[0][:most]
        left[0] = left[0][most:]
        if not left[0]:
            left.pop(0)
        return piece

    found = _handshake.Reply()
    try:
        answer = _answer.Answer(receive, Room(exchange.LIMIT), Room(exchange.LIMIT))
    except _answer.NotHttp:
        return exchange.NOT_HTTP
    except _answer.TooLong:
        return exchange.TOO_LONG
    except _answer.Closed:
        return exchange.CLOSED
    found.begin(answer)
    found.take(answer, ID)
    text = b"" if found.overflowed else bytes(found.text)
    return found.status, found.header("location"), found.message, found.overflowed, text


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[begin:end] for begin, end in pairwise(ends) if begin < end]


WHOLE = [
    *test_exchange.STREAMS,
    *(
        b"".join(answer(Asked("POST", "/", None, b"")))  # pyright: ignore[reportArgumentType]
        for path, answer in ANSWERS.items()
        if answer is not session
        and "endless" not in path
        and "hang" not in path
        and "held" not in path
        and "reset" not in path
    ),
]


@pytest.mark.parametrize("size", [1, 7, 1 << 24])
def test_an_answer_means_to_both_the_same_however_it_is_cut(size):
    for whole in WHOLE:
        if len(whole) > 1000 * size:
            continue
        pieces = [whole[place : place + size] for place in range(0, len(whole), size)]
        assert read_by_client(pieces) == read_by_registry(pieces), whole[:200]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([whole for whole in WHOLE if len(whole) < 100_000]),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3), st.integers(0, 40)), max_size=4),
    st.lists(st.integers(0, 10**6), max_size=4),
)
def test_a_damaged_answer_means_to_both_the_same(whole, damages, places):
    for place, inserted, removed in damages:
        place %= len(whole) + 1
        whole = whole[:place] + inserted + whole[place + removed :]
    pieces = cut(whole, places)
    assert read_by_client(pieces) == read_by_registry(pieces)


# ------------------------------------------------------------------ URLs

ENDPOINTS = [
    *test_urls.GOOD,
    *test_urls.BAD,
    *(
        "https://h/mcp?a=1",
        "https://h/mcp#a",
        "https://h/../a",
        "https://h/%2e/a",
        "https://h:443/mcp",
        "https://H/%zz",
    ),
    *("http://127.0.0.1:9001/mcp", "https://h/a b", "https://h/\x00", "http://[::1]:3306/"),
]
HEALTH_URLS = [
    *("/health", "//evil/health", "health", "app/health", "", "/a?b=1", "/a#b", "/../a", "/a b", "?a", "/"),
    *(
        "https://h/health",
        "http://h/health",
        "https://h:443/x",
        "https://H/x",
        "https://h:8443/x",
        "ftp://h/",
        "https://h/#a",
    ),
]


def test_a_url_is_one_to_both_or_to_none():
    assert _urls.PORTS == guard.PORTS
    for url in ENDPOINTS:
        assert bool(_urls.endpoint_fault(url)) == bool(urls.endpoint_fault(url)), url
        if not urls.endpoint_fault(url):
            assert (_urls.origin(url), _urls.host(url), _urls.port(url)) == (
                urls.origin(url),
                guard.host(url),
                guard.port(url),
            )
            assert _urls.port_fault(url) == (OPEN.url_fault(url) if guard.port(url) in guard.PORTS else None)
            for health in HEALTH_URLS:
                ours, theirs = _urls.health_fault(health, url), urls.health_fault(health, url)
                assert bool(ours) == bool(theirs), (url, health)
    assert _urls.endpoint_fault("https://h/" + "a" * 2_039) and not _urls.endpoint_fault("https://h/" + "a" * 2_038)


@pytest.mark.parametrize(
    ("url", "health_url"),
    [
        ("http://127.0.0.1:9/mcp?a=1", None),
        ("http://127.0.0.1:9/mcp#a", None),
        ("http://127.0.0.1:9/app", "app2/health"),
    ],
)
def test_what_the_registry_would_not_take_is_refused_before_anything_is_sent(url, health_url):
    with pytest.raises(Failed) as caught:
        check(url, health_url=health_url)
    assert caught.value.kind == "url"


@pytest.mark.parametrize(
    ("address", "public"),
    [("127.0.0.1", False), ("10.1.2.3", False), ("::1", False), ("fe80::1%eth0", False), ("8.8.8.8", True)],
)
def test_an_address_that_a_registry_elsewhere_cannot_reach_is_known(address, public):
    assert _health.is_public(address) == public
