"""Asking servers what they are: real ones of every era, and strangers on loopback that answer whatever they like."""

from __future__ import annotations

import gzip
import http.client
import json
import queue
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trustme

from mcp_registry_client import _handshake, _numbers, _transport, introspect
from mcp_registry_client.introspect import Failed
from tests.real.fixtures import SERVERS, TOKEN, RealServer

TOOLS = {
    "inventory": ["count", "take"],
    "library": ["find", "title"],
    "mcp-time": ["get_current_time", "convert_time"],
    "FastMCPProxy": ["get_current_time", "convert_time"],
    "rates": ["convert"],
    "tickets": ["open_ticket", "read_ticket"],
    "weather": ["forecast"],
}
STREAMABLE = [name for name, server in SERVERS.items() if server.path == "/mcp"]
GATED = [name for name, server in SERVERS.items() if server.token]
# Enough for a loopback, and short enough to be waited for.
SHORT = 1.0


# ------------------------------------------------------------------ strangers


class Asked(NamedTuple):
    """A request that a stranger got."""

    method: str
    path: str
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The JSON-RPC message in it."""
        return json.loads(self.body) if self.body else {}

    @property
    def what(self) -> str:
        """The method of MCP, or that of HTTP where there is none."""
        return self.message.get("method", self.method)


Answer = Callable[[Asked], Iterable[bytes]]
# In place of a piece: the connection is reset there.
RESET = b"reset"


class Stranger(socketserver.ThreadingTCPServer):
    """A server that sends what a test says, and keeps what it was asked."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.arrived = threading.Condition()
        self.over = threading.Event()
        self._answer = answer
        self._tls = tls
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_address[1]}/mcp"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Read one request and send the pieces of the answer, until there are no more or nobody takes them."""
        with suppress(OSError):
            connection: socket.socket = self._tls.wrap_socket(request, server_side=True) if self._tls else request
            with connection, connection.makefile("rb") as file:
                words = file.readline().decode("latin-1").split()
                if len(words) < 2:
                    return
                headers = http.client.parse_headers(file)
                body = file.read(int(headers.get("content-length", "0")))
                with self.arrived:
                    self.asked.append(Asked(words[0], words[1], headers, body))
                    self.arrived.notify_all()
                for piece in self._answer(self.asked[-1]):
                    if piece is RESET:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    connection.sendall(piece)

    def wait_for(self, what: str, seconds: float = 10) -> None:
        """Wait until something was asked."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: what in self.methods(), seconds), self.methods()

    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [asked.what for asked in self.asked]


@contextmanager
def stranger(answer: Answer, tls: ssl.SSLContext | None = None) -> Generator[Stranger]:
    """A stranger that listens."""
    with Stranger(answer, tls) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()


def respond(
    status: int, body: bytes | str | dict[str, Any], kind: str = "application/json", *headers: str
) -> list[bytes]:
    """A response over HTTP."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    lines = (f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(data)}", *headers, "", "")
    return ["\r\n".join(lines).encode(), data]


def stream(*headers: str) -> bytes:
    """The head of an event stream whose end is that of the connection."""
    return "\r\n".join(("HTTP/1.1 200 X", "Content-Type: text/event-stream", *headers, "", "")).encode()


def event(message: dict[str, Any]) -> bytes:
    """A message as the event of a stream."""
    return b"event: message\r\ndata: " + json.dumps(message).encode() + b"\r\n\r\n"


def result(asked: Asked, value: dict[str, Any]) -> dict[str, Any]:
    """A response of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": asked.message["id"], "result": value}


def error(asked: Asked, code: int, message: str, **more: Any) -> dict[str, Any]:
    """A refusal of JSON-RPC."""
    return {"jsonrpc": "2.0", "id": asked.message["id"], "error": {"code": code, "message": message, **more}}


def tool(name: str, **fields: Any) -> dict[str, Any]:
    """A tool as MCP has it."""
    return {"name": name, "inputSchema": {"type": "object"}, **fields}


def scripted(defaults: dict[str, Answer], given: dict[str, Answer]) -> Answer:
    """Answers by what is asked."""
    answers = defaults | given

    def answer(asked: Asked) -> Iterable[bytes]:
        found = answers.get(asked.what)
        return found(asked) if found else respond(405, "Method Not Allowed", "text/plain")

    return answer


def older(**given: Answer) -> Answer:
    """A server with sessions; `given` are other answers, with `_` for `/`."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "old", "version": "1"}}
    return scripted(
        {
            "server/discover": lambda asked: respond(400, error(asked, -32600, "Bad Request")),
            "initialize": lambda asked: respond(200, result(asked, hello), "application/json", "Mcp-Session-Id: s-1"),
            "notifications/initialized": lambda _: respond(202, ""),
            "tools/list": lambda asked: respond(200, result(asked, {"tools": [tool("one")]})),
            "DELETE": lambda _: respond(200, ""),
        },
        {name.replace("_", "/"): answer for name, answer in given.items()},
    )


def current(**given: Answer) -> Answer:
    """A server of the specification of 2026-07-28; `given` are other answers, with `_` for `/`."""
    info = {_handshake.SERVER_INFO: {"name": "new", "version": "2"}}
    hello = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "_meta": info}
    return scripted(
        {
            "server/discover": lambda asked: respond(200, result(asked, hello)),
            "tools/list": lambda asked: respond(200, result(asked, {"tools": [tool("one")]})),
        },
        {name.replace("_", "/"): answer for name, answer in given.items()},
    )


def fault(url: str, seconds: float = 5, **headers: str) -> Failed:
    """Why a server could not be asked."""
    with pytest.raises(Failed) as caught:
        introspect.introspect(url, headers=headers, deadline_seconds=seconds)
    assert "\n" not in caught.value.message
    return caught.value


# ------------------------------------------------------------------ real servers


@pytest.mark.parametrize("name", STREAMABLE)
def test_a_real_server_says_what_it_is_and_all_its_tools(real, name):
    server: RealServer = real[name]
    headers = {"Authorization": f"Bearer {server.server.token}"} if server.server.token else {}
    found = introspect.introspect(server.url, headers=headers, deadline_seconds=20)
    assert found.name
    assert [tool["name"] for tool in found.tools] == TOOLS[
        found.name.partition("-")[0] if "Proxy" in found.name else found.name
    ]
    assert all(tool["input_schema"]["type"] == "object" and tool["description"] for tool in found.tools)
    assert found.version
    # A server of both eras is asked in the older way, as most clients do.
    assert found.protocol_version in _handshake.LEGACY


@pytest.mark.parametrize("name", GATED)
def test_a_gated_server_wants_a_header_and_refuses_a_wrong_one(real, name):
    without, wrong = fault(real[name].url), fault(real[name].url, Authorization="Bearer wrong")
    assert (without.kind, wrong.kind) == ("credentials", "credentials")
    assert "--header 'Authorization: Bearer ...'" in without.message
    assert TOKEN not in wrong.message and "check them" in wrong.message


def test_a_server_over_sse_is_asked_over_its_stream(real):
    found = introspect.introspect(real["older-sse"].url, deadline_seconds=20)
    assert found.name and found.tools
    assert fault(f"{real['older-sdk'].root}/nothing").kind == "not_mcp"


@pytest.mark.parametrize("name", ["older-sdk", "current-sdk"])
def test_no_session_is_left_behind(real, name):
    """Not for the SDK before 1.30, which keeps what is left of a session that was deleted."""
    server: RealServer = real[name]
    before = server.sessions()
    introspect.introspect(server.url, deadline_seconds=20)
    introspect.check(server.url)
    assert server.sessions() == before


def test_an_early_server_gets_a_session_for_each_question_and_no_other(real):
    server: RealServer = real["early-sdk"]
    before = server.sessions()
    introspect.check(server.url)
    assert server.sessions() == before + 1
    introspect.introspect(server.url, deadline_seconds=20)
    assert server.sessions() == before + 2


@pytest.mark.parametrize("name", SERVERS)
def test_a_check_sees_of_a_real_server_what_a_stock_client_would(real, name):
    sight = introspect.check(real[name].url)
    assert sight[:2] == (("gated", 401) if SERVERS[name].token else ("healthy", 200))
    assert (sight.auth is not None) == bool(SERVERS[name].token)


def test_what_a_gated_server_names_is_read_on_its_own_host_or_over_https_alone():
    with stranger(lambda _: respond(200, {"authorization_servers": ["https://a.example"]})) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        for where, issuer in ((elsewhere, None), (other.url, "https://a.example")):
            challenge = f'WWW-Authenticate: Bearer resource_metadata="{where}"'
            with stranger(lambda _, challenge=challenge: respond(401, "", "text/plain", challenge)) as server:
                auth = introspect.check(server.url).auth
            assert auth is not None and (auth.resource_metadata, auth.issuer) == (where, issuer)
        assert len(other.asked) == 1


def test_a_declared_health_url_that_works_or_fails_decides_alone(real):
    url = real["older-sse"].url
    assert introspect.check(url, health_url="/health").verdict == "healthy"
    with pytest.raises(Failed, match="must have the host"):
        introspect.check(url, health_url="http://127.0.0.2/health")
    with stranger(lambda asked: respond(503, "") if asked.method == "GET" else older()(asked)) as server:
        assert introspect.check(server.url, health_url="/health")[:2] == ("http_error", 503)
        assert server.methods() == ["GET"]


def test_a_health_url_that_is_not_there_counts_where_nobody_can_begin(real):
    assert introspect.check(real["older-sse"].url, health_url="/nothing").verdict == "healthy"
    with stranger(lambda _: respond(404, "", "text/plain")) as server:
        sight = introspect.check(server.url, health_url="/status")
    assert sight[:2] == ("http_error", 404) and sight.error_message == "The health URL answered 404"
    assert sight.evidence[0].asked == f"GET {server.url.replace('/mcp', '/status')}"


# ------------------------------------------------------------------ sessions


def test_every_request_of_a_session_names_it_and_its_version():
    with stranger(older()) as server:
        found = introspect.introspect(server.url, headers={"X-Key": "k"}, deadline_seconds=5)
    assert found[:3] == ("old", None, "1") and found.protocol_version == "2025-06-18"
    assert server.methods() == ["initialize", "notifications/initialized", "tools/list", "DELETE"]
    for asked in server.asked[1:]:
        assert (asked.headers["mcp-session-id"], asked.headers["mcp-protocol-version"]) == ("s-1", "2025-06-18")
    assert {asked.headers["x-key"] for asked in server.asked} == {"k"}
    assert server.asked[0].headers["mcp-session-id"] is None


def hang(head: bytes) -> Answer:
    """Send a beginning, and then nothing for longer than anybody waits."""

    def answer(asked: Asked) -> Iterator[bytes]:
        yield head
        threading.Event().wait(20)

    return answer


SESSION_HEAD = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nMcp-Session-Id: s-1\r\n"
BROKEN = {
    "the answer to initialize hangs": {"initialize": hang(SESSION_HEAD + b"Content-Length: 99\r\n\r\n")},
    "the answer to initialize is garbage": {
        "initialize": lambda _: respond(200, "{", "application/json", "Mcp-Session-Id: s-1")
    },
    "the answer to initialize breaks off": {"initialize": lambda _: [SESSION_HEAD + b"Content-Length: 99\r\n\r\n{"]},
    "the server fails": {"tools_list": lambda _: respond(500, "")},
    "the list is garbage": {"tools_list": lambda _: respond(200, "nonsense")},
    "the list hangs": {"tools_list": hang(b"")},
    "the list breaks off": {"tools_list": lambda _: []},
    "the list wants credentials": {"tools_list": lambda _: respond(401, "")},
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_session_is_deleted_whatever_happens_after_it_was_opened(case):
    with stranger(older(**BROKEN[case])) as server:
        fault(server.url, SHORT)
        (deleted,) = (asked for asked in server.asked if asked.what == "DELETE")
        assert deleted.headers["mcp-session-id"] == "s-1"
        assert "mcp-session-id" not in server.asked[-1].headers or server.asked[-1] is deleted


def test_a_delete_that_hangs_costs_its_grace_and_no_answer(monkeypatch):
    monkeypatch.setattr(_handshake, "GRACE_SECONDS", SHORT)
    with stranger(older(DELETE=hang(b""))) as server:
        assert introspect.introspect(server.url, deadline_seconds=5).name == "old"


def test_a_server_without_sessions_is_told_of_no_deletion():
    hello = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "old", "version": "1"}}
    with stranger(older(initialize=lambda asked: respond(200, result(asked, hello)))) as server:
        introspect.introspect(server.url, deadline_seconds=5)
        assert "DELETE" not in server.methods()


# ------------------------------------------------------------------ what servers say


def test_the_pages_of_a_list_are_joined_in_their_order():
    def page(asked: Asked) -> Iterable[bytes]:
        cursor = asked.message["params"].get("cursor", "0")
        more = {"nextCursor": str(int(cursor) + 1)} if cursor != "3" else {}
        return respond(200, result(asked, {"tools": [tool(f"t{cursor}")], **more}))

    for era in (current, older):
        with stranger(era(tools_list=page)) as server:
            found = introspect.introspect(server.url, deadline_seconds=5)
        assert [tool["name"] for tool in found.tools] == ["t0", "t1", "t2", "t3"]


def test_a_current_server_is_sent_what_the_specification_asks_for():
    with stranger(current()) as server:
        introspect.introspect(server.url, deadline_seconds=5)
    assert server.methods() == ["initialize", "server/discover", "tools/list"]
    for asked in server.asked[1:]:
        assert asked.headers["mcp-session-id"] is None
        assert asked.headers["mcp-protocol-version"] == "2026-07-28"
        assert asked.headers["mcp-method"] == asked.what
        assert asked.message["params"]["_meta"] == _handshake.META


def test_a_tool_is_as_it_is_listed_in_the_spelling_of_a_registration():
    more = {"icons": [1], "_meta": {"a": None}, "new": None, "output_schema": "of nobody"}
    given = tool("t", title="T", description=None, outputSchema={"a": 1}, annotations={"readOnlyHint": True}, **more)
    given |= {"id": 7, "created_at": "today", "deep": json.loads('{"a":' * 201 + "1" + "}" * 201)}
    with stranger(current(tools_list=lambda asked: respond(200, result(asked, {"tools": [given]})))) as server:
        (found,) = introspect.introspect(server.url, deadline_seconds=5).tools
    assert found == {
        "name": "t",
        "title": "T",
        "input_schema": {"type": "object"},
        "output_schema": {"a": 1},
        "annotations": {"readOnlyHint": True},
        "icons": [1],
        "_meta": {"a": None},
        "new": None,
    }


def test_a_server_that_knows_no_tools_has_none():
    refusal: Answer = lambda asked: respond(200, error(asked, -32601, "Method not found"))  # noqa: E731
    with stranger(current(tools_list=refusal)) as server:
        assert introspect.introspect(server.url, deadline_seconds=5).tools == []


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_answer_in_a_stream_is_found_however_it_is_split(size):
    def streamed(asked: Asked) -> Iterator[bytes]:
        note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}
        request = {"jsonrpc": "2.0", "id": asked.message["id"], "method": "ping"}
        text = b"\xef\xbb\xbf: hello\n\nid: 0\ndata:\n\n" + event(note) + event(request)
        text += (
            b"data: "
            + json.dumps(result(asked, {"tools": [tool("one")]})).replace(" ", "\ndata: ", 1).encode()
            + b"\r\r"
        )
        yield stream()
        for place in range(0, len(text), size):
            yield text[place : place + size]

    with stranger(older(tools_list=streamed)) as server:
        assert len(introspect.introspect(server.url, deadline_seconds=5).tools) == 1


def test_the_answer_at_the_beginning_of_an_endless_stream_is_taken_at_once():
    def streamed(asked: Asked) -> Iterator[bytes]:
        yield stream() + event(result(asked, {"tools": [tool("one")]}))
        threading.Event().wait(20)

    with stranger(current(tools_list=streamed)) as server:
        assert len(introspect.introspect(server.url, deadline_seconds=15).tools) == 1


def test_a_compressed_answer_is_read_though_none_was_asked_for():
    def packed(asked: Asked) -> Iterable[bytes]:
        data = gzip.compress(json.dumps(result(asked, {"tools": [tool("one")]})).encode())
        return respond(200, data, "application/json", "Content-Encoding: gzip")

    with stranger(current(tools_list=packed)) as server:
        assert len(introspect.introspect(server.url, deadline_seconds=5).tools) == 1


def test_a_connection_that_stays_open_after_the_answer_is_not_waited_for():
    def answer(asked: Asked) -> Iterator[bytes]:
        yield from current()(asked)
        threading.Event().wait(20)

    with stranger(answer) as server:
        introspect.introspect(server.url, deadline_seconds=15)


def test_a_redirect_within_the_origin_is_followed():
    def answer(asked: Asked) -> Iterable[bytes]:
        if asked.path != "/mcp/":
            return respond(307, "", "text/plain", "Location: /mcp/")
        return current()(asked)

    with stranger(answer) as server:
        assert introspect.introspect(server.url, deadline_seconds=5).name == "new"


def test_a_redirect_elsewhere_takes_no_credentials_along():
    with stranger(current()) as other:
        with stranger(lambda _: respond(307, "", "text/plain", f"Location: {other.url}")) as server:
            failed = fault(server.url, Authorization="Bearer secret")
        assert failed.kind == "moved" and other.url in failed.message
        assert other.asked == []


def test_a_server_that_speaks_newer_versions_only_is_named_as_such():
    newer: Answer = lambda asked: respond(  # noqa: E731
        400, error(asked, -32022, "Unsupported", data={"supported": ["2031-01-01"]})
    )
    unknown: Answer = lambda asked: respond(404, error(asked, -32601, "Method not found"))  # noqa: E731
    with stranger(current(server_discover=newer, initialize=unknown)) as server:
        failed = fault(server.url)
        assert failed.kind == "version" and "2031-01-01" in failed.message
    told: Answer = lambda asked: respond(200, result(asked, {"supportedVersions": ["2031-01-01"]}))  # noqa: E731
    with stranger(current(server_discover=told, initialize=unknown)) as server:
        assert fault(server.url).kind == "version"


# ------------------------------------------------------------------ hostile answers

WRONG: dict[str, Any] = {
    "no list": {},
    "a list that is none": {"tools": {"a": 1}},
    "a cursor that is a number": {"tools": [], "nextCursor": 7},
    "a cursor that leads in a circle": {"tools": [], "nextCursor": "c"},
}
# A tool that is none, what it is called, and what is wrong with it.
BAD: dict[str, tuple[Any, str, str]] = {
    "a number": (7, "number 2", "has no name"),
    "no name": ({"inputSchema": {}}, "number 2", "has no name"),
    "a name that is a number": (tool("t") | {"name": 7}, "number 2", "has no name"),
    "no schema": ({"name": "t"}, "t", "has no inputSchema"),
    "a schema that is a list": (tool("t", inputSchema=[]), "t", "inputSchema is not an object"),
    "a description that is a number": (tool("t", description=7), "t", "description is not a string"),
    "annotations that are a text": (tool("t", annotations="x"), "t", "annotations is not an object"),
    "a value that is no number": (tool("t", inputSchema={"default": float("nan")}), "t", "not JSON"),
    "a value beyond all numbers": (tool("t", inputSchema={"maximum": float("inf")}), "t", "not JSON"),
    "half a surrogate pair": (tool("t", description="\ud800"), "t", "half a surrogate pair"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_list_of_the_wrong_types_is_named_as_such(case):
    with stranger(current(tools_list=lambda asked: respond(200, result(asked, WRONG[case])))) as server:
        assert fault(server.url).kind == "invalid"


def test_a_list_that_never_ends_is_given_up_after_a_hundred_pages_without_a_tool():
    def page(asked: Asked) -> Iterable[bytes]:
        return respond(200, result(asked, {"tools": [], "nextCursor": str(len(server.asked))}))

    with stranger(current(tools_list=page)) as server:
        assert "does not end" in fault(server.url, 20).message
        assert server.methods().count("tools/list") == _handshake.MAX_EMPTY_PAGES


@pytest.mark.parametrize("case", BAD)
def test_a_tool_that_is_none_is_left_out_and_the_others_are_there(case):
    bad, name, rule = BAD[case]
    for era in (current, older):
        page = {"tools": [tool("one"), bad, tool("two")]}
        with stranger(era(tools_list=lambda asked, page=page: respond(200, result(asked, page)))) as server:
            found = introspect.introspect(server.url, deadline_seconds=5)
        assert [tool["name"] for tool in found.tools] == ["one", "two"]
        (left_out,) = found.tools_left_out
        assert left_out.name == name and rule in left_out.rule


def test_who_it_is_that_cannot_list_its_tools_is_known():
    for era, name in ((current, "new"), (older, "old")):
        with stranger(era(tools_list=lambda asked: respond(200, error(asked, -32603, "Down")))) as server:
            failed = fault(server.url)
        assert failed.server is not None and (failed.server.name, failed.server.tools) == (name, [])
    with stranger(lambda _: respond(503, "")) as server:
        assert fault(server.url).server is None


def test_a_server_is_asked_by_the_connections_that_are_given(authority):
    """As where a certificate is made for another name, or the socket is one of the file system."""
    with stranger(current(), context(authority, "other.example")) as server:

        def connect(deadline: _transport.Deadline) -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", server.server_address[1]), deadline.left())
            return _transport.secured(sock, "other.example", deadline, verified=False)

        found = introspect.introspect("https://other.example/mcp", deadline_seconds=5, connect=connect)
        assert found.name == "new" and {asked.headers["host"] for asked in server.asked} == {"other.example"}


def test_pages_are_as_small_as_a_server_likes():
    def page(asked: Asked) -> Iterable[bytes]:
        place = int(asked.message["params"].get("cursor", "0"))
        more = {"nextCursor": str(place + 1)} if place + 1 < 130 else {}
        return respond(200, result(asked, {"tools": [tool(f"t{place}")], **more}))

    with stranger(current(tools_list=page)) as server:
        assert len(introspect.introspect(server.url, deadline_seconds=20).tools) == 130


def test_an_empty_cursor_is_the_end_of_the_list():
    with stranger(
        older(tools_list=lambda asked: respond(200, result(asked, {"tools": [tool("one")], "nextCursor": ""})))
    ) as server:
        assert len(introspect.introspect(server.url, deadline_seconds=5).tools) == 1
        assert server.methods().count("tools/list") == 1


@pytest.mark.parametrize(
    ("levels", "rule"), [(64, None), (200, None), (201, "more than 200 levels"), (400, "more than 200 levels")]
)
def test_a_schema_is_deeper_than_the_registry_takes_it_and_never_deeper_than_it_reads(levels, rule):
    def page(asked: Asked) -> Iterable[bytes]:
        schema = '{"a":' * (levels - 2) + "{}" + "}" * (levels - 2)
        listed = f'{{"tools":[{{"name":"t","inputSchema":{schema}}}]}}'
        return respond(200, f'{{"jsonrpc":"2.0","id":{asked.message["id"]},"result":{listed}}}')

    with stranger(current(tools_list=page)) as server:
        found = introspect.introspect(server.url, deadline_seconds=5)
    assert len(found.tools) == (rule is None)
    assert [rule in one.rule for one in found.tools_left_out] == ([True] if rule else [])


def test_a_schema_deeper_than_python_reads_makes_an_answer_that_is_none():
    schema = '{"a":' * 5_000 + "{}" + "}" * 5_000

    def page(asked: Asked) -> Iterable[bytes]:
        listed = f'{{"tools":[{{"name":"t","inputSchema":{schema}}}]}}'
        return respond(200, f'{{"jsonrpc":"2.0","id":{asked.message["id"]},"result":{listed}}}')

    with stranger(current(tools_list=page)) as server:
        assert fault(server.url).kind == "invalid"


# ------------------------------------------------------------------ the first question


def forbidden(asked: Asked) -> Iterable[bytes]:
    return respond(403, "Forbidden", "text/plain")


@pytest.mark.parametrize("case", ["drops it", "forbids it", "hangs", "answers in no HTTP"])
def test_a_server_that_cannot_take_the_question_of_before_is_asked_the_present_one(case):
    answers = {
        "drops it": lambda _: [],
        "forbids it": forbidden,
        "hangs": hang(b""),
        "answers in no HTTP": lambda _: [b"?" * 99],
    }
    with stranger(current(initialize=answers[case])) as server:
        assert introspect.introspect(server.url, deadline_seconds=2 * SHORT).name == "new"
        assert server.methods() == ["initialize", "server/discover", "tools/list"]


def test_a_server_of_before_is_never_asked_the_present_question():
    with stranger(older()) as server:
        introspect.introspect(server.url, deadline_seconds=5)
        introspect.check(server.url)
        assert "server/discover" not in server.methods()


def test_requests_have_ids_that_nobody_has_who_counts_from_one_nor_another_handshake():
    begun: list[int] = []
    for ask in (introspect.introspect, introspect.check):
        with stranger(older()) as server:
            ask(server.url, deadline_seconds=5)
            ids = [asked.message["id"] for asked in server.asked if "id" in asked.message]
        assert len(ids) > 1 and ids == [*range(ids[0], ids[0] + len(ids))]
        assert all(type(one) is int and 10**6 < one < 2**31 for one in ids)
        begun.append(ids[0])
    assert begun[0] != begun[1] and _numbers.QUESTION_ID not in _numbers.FIRST_IDS


def test_a_server_of_today_that_is_too_slow_is_said_to_be_slow():
    def slow(asked: Asked) -> Iterable[bytes]:
        return respond(200, error(asked, -32601, "Method not found"))

    with stranger(current(server_discover=hang(b""), initialize=slow)) as server:
        assert fault(server.url, SHORT).kind == "timeout"


class Streaming:
    """A server of 2024-11-05: its answers come by the stream that a GET opens."""

    def __init__(self, where: str = "/messages", **given: Answer) -> None:
        self._where = where
        self._answer = older(**given)
        self._events: queue.Queue[bytes] = queue.Queue()

    def __call__(self, asked: Asked) -> Iterator[bytes]:
        if asked.method == "GET":
            # Before anybody is told where to post to: what is posted at once is answered too.
            events = self._events = queue.Queue[bytes]()
            yield b"HTTP/1.1 200 X\r\nContent-Type: Text/Event-Stream\r\n\r\nevent: ping\ndata: 1\n\n"
            yield f"event: endpoint\ndata: {self._where}\n\n".encode()
            while True:
                yield events.get()
        elif asked.path != "/messages":
            yield from respond(404, "", "text/plain")
        else:
            _, *body = self._answer(asked)
            self._events.put(b"data: " + b"".join(body) + b"\n\n")
            yield from respond(202, "Accepted", "text/plain")


def test_a_server_of_the_first_transport_is_asked_over_its_stream():
    with stranger(Streaming()) as server:
        found = introspect.introspect(server.url, deadline_seconds=5)
        assert (found.name, [tool["name"] for tool in found.tools]) == ("old", ["one"])
        assert introspect.check(server.url)[:2] == ("healthy", 200)


def test_a_stream_that_leads_elsewhere_is_not_followed():
    with stranger(older()) as other, stranger(Streaming(other.url)) as server:
        assert fault(server.url).kind in ("invalid", "not_mcp")
        assert introspect.check(server.url).verdict in ("mcp_error", "not_mcp")
        assert other.asked == []


def test_a_stream_that_carries_no_answer_is_waited_for_until_the_deadline():
    with stranger(Streaming(tools_list=lambda _: [b"", b'{"jsonrpc":"2.0","id":99,"result":{}}'])) as server:
        failed = fault(server.url, SHORT)
        assert failed.kind == "timeout"


# ------------------------------------------------------------------ answers in odd shapes


def test_what_follows_the_end_of_a_packed_answer_is_not_read():
    def answer(asked: Asked) -> Iterator[bytes]:
        packed = gzip.compress(json.dumps(result(asked, {"tools": [tool("one")]})).encode())
        yield b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n" + packed
        yield from endless(b"", b"\x00" * 0x10000)(asked)

    with stranger(current(tools_list=answer)) as server:
        assert len(introspect.introspect(server.url, deadline_seconds=20).tools) == 1


def test_packed_bytes_count_though_they_mean_nothing():
    # Empty blocks of deflate, which unpack to nothing.
    head = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Encoding: deflate\r\n\r\n"
    with stranger(current(tools_list=endless(head + b"\x78\x9c", b"\x00\x00\x00\xff\xff" * 13_107))) as server:
        assert fault(server.url, 120).kind == "too_large"


@pytest.mark.parametrize("size", [100, 0x10000, 1_000_000])
def test_a_packed_answer_is_unpacked_whole_however_it_is_cut(size):
    tools = [tool(f"t{number}", description="words and words " * 40) for number in range(1500)]

    def answer(asked: Asked) -> Iterator[bytes]:
        packed = gzip.compress(json.dumps(result(asked, {"tools": tools})).encode())
        yield b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        for place in range(0, len(packed), size):
            yield packed[place : place + size]

    with stranger(current(tools_list=answer)) as server:
        assert len(introspect.introspect(server.url, deadline_seconds=20).tools) == 1500


def test_interim_answers_and_many_headers_are_read_past():
    def answer(asked: Asked) -> Iterable[bytes]:
        many = [f"X-{number}: 1" for number in range(150)]
        return [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", *respond_to(asked, *many)]

    def respond_to(asked: Asked, *headers: str) -> Iterable[bytes]:
        head, body = current()(asked)
        return [head.replace(b"\r\n\r\n", "".join(f"\r\n{one}" for one in headers).encode() + b"\r\n\r\n"), body]

    with stranger(answer) as server:
        assert introspect.introspect(server.url, deadline_seconds=5).name == "new"


def test_an_answer_that_breaks_off_is_not_taken_for_another_protocol():
    with stranger(current(tools_list=lambda _: [HTTP + b"Content-Length: 99\r\n\r\n{"])) as server:
        assert fault(server.url).kind == "closed"


def test_a_website_becomes_the_documentation_where_it_is_a_link():
    for given, kept in (("https://h.example/docs", "https://h.example/docs"), ("docs", None), ("javascript:1", None)):
        info = {_handshake.SERVER_INFO: {"name": "new", "version": "2", "websiteUrl": given}}
        hello = {"supportedVersions": ["2026-07-28"], "_meta": info}
        with stranger(current(server_discover=lambda asked, hello=hello: respond(200, result(asked, hello)))) as server:
            assert introspect.introspect(server.url, deadline_seconds=5).website_url == kept


BODIES = {
    "too deep": '{"jsonrpc":"2.0","id":2,"result":{"tools":' + "[" * 100_000,
    "another number": '{"jsonrpc":"2.0","id":7,"result":{"tools":[]}}',
    "not UTF-8": b"\xff\xfe\x00",
    "empty": "",
}


@pytest.mark.parametrize("case", BODIES)
def test_an_answer_that_cannot_be_read_is_named_as_such(case):
    with stranger(current(tools_list=lambda _: respond(200, BODIES[case]))) as server:
        assert fault(server.url).kind == "invalid"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.9\r\n", b"\x00" * 100_000, b"HTTP/1.1 banana\r\n\r\n"])
def test_what_is_not_http_is_named_as_such(answer):
    with stranger(lambda _: [answer]) as server:
        assert fault(server.url).kind == "not_mcp"
        assert introspect.check(server.url).verdict == "not_mcp"


def test_a_web_page_speaks_no_mcp():
    with stranger(lambda _: respond(200, "<html>", "text/html")) as server:
        assert fault(server.url).kind == "not_mcp"
        # Its page at /mcp/health answers 200, as one does for whatever path.
        assert introspect.check(server.url)[:2] == ("not_mcp", 200)
    with stranger(lambda asked: respond(200 if asked.method == "POST" else 404, "<html>", "text/html")) as server:
        assert introspect.check(server.url)[:2] == ("not_mcp", 200)


def test_a_server_that_fails_is_not_said_to_speak_no_mcp():
    with stranger(lambda _: respond(503, "")) as server:
        assert fault(server.url).kind == "http_error"
        assert introspect.check(server.url)[:2] == ("http_error", 503)


def endless(head: bytes, piece: bytes, pause: float = 0) -> Answer:
    """Send the same without end."""

    def answer(asked: Asked) -> Iterator[bytes]:
        yield head
        while not threading.Event().wait(pause):
            yield piece

    return answer


HTTP = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n"
ENDLESS = {
    "a body": endless(HTTP + b"\r\n", b" " * 0x10000),
    "a line of a stream": endless(stream() + b"data: ", b"x" * 0x10000),
    "events of a stream": endless(stream(), event({"jsonrpc": "2.0", "method": "x"}) * 1000),
    "a small body unpacked": lambda _: respond(200, gzip.compress(b" " * 50_000_000), "a/b", "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_an_answer_without_end_is_given_up_at_8_mib(case):
    with stranger(current(tools_list=ENDLESS[case])) as server:
        assert fault(server.url, 120).kind == "too_large"


DRIPPING = {
    "headers": endless(HTTP, b"X: y\r\n", 0.02),
    "a status line": endless(b"", b"H", 0.02),
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
    "a body": endless(HTTP + b"\r\n", b" ", 0.02),
    "events": endless(stream(), b": ping\n\n", 0.02),
    "nothing": hang(b""),
}


@pytest.mark.parametrize("case", DRIPPING)
def test_an_answer_that_drips_is_given_up_at_the_deadline(case):
    with stranger(DRIPPING[case]) as server:
        assert fault(server.url, SHORT).kind in ("timeout", "not_mcp")


def test_the_deadline_is_one_for_all_requests_together():
    def slow(asked: Asked) -> Iterator[bytes]:
        threading.Event().wait(SHORT * 0.6)
        yield from older()(asked)

    with stranger(slow) as server:
        assert fault(server.url, SHORT).kind == "timeout"
        assert "tools/list" not in server.methods()


# ------------------------------------------------------------------ the network


def test_where_nothing_listens_is_said_as_such():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        assert fault(url).kind == "refused"
        assert introspect.check(url).verdict == "refused"


def test_a_name_that_does_not_resolve_is_said_as_such(monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    failed = fault("http://nowhere.example/mcp")
    assert failed.kind == "dns" and "nowhere.example" in failed.message
    assert introspect.check("http://nowhere.example/mcp").verdict == "dns"


def test_a_resolver_that_hangs_is_covered_by_the_deadline(monkeypatch):
    over = threading.Event()
    found = socket.getaddrinfo

    def hanging(host: str, *rest: Any, flags: int = 0, **more: Any) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return found(host, *rest, flags=flags, **more)
        over.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    assert fault("http://slow.example/mcp", SHORT).kind == "timeout"
    over.set()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context(authority: trustme.CA, host: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(made)
    return made


def test_a_server_over_tls_is_asked_where_its_certificate_is_valid(authority, tmp_path, monkeypatch):
    with stranger(current(), context(authority, "127.0.0.1")) as server:
        failed = fault(server.url)
        assert failed.kind == "tls" and "SSL_CERT_FILE" in failed.message
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert introspect.introspect(server.url, deadline_seconds=5).name == "new"
    with stranger(current(), context(authority, "other.example")) as server:
        assert fault(server.url).kind == "tls"


def test_tls_and_plain_http_are_not_taken_for_each_other(real, authority):
    assert fault(real["example"].url.replace("http:", "https:")).kind == "tls"
    with stranger(current(), context(authority, "127.0.0.1")) as server:
        assert fault(server.url.replace("https:", "http:")).kind in ("not_mcp", "closed")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/mcp",
        "ftp://host",
        "http://",
        "http://u:p@host/",
        "http://host:x/",
        "http://host:0/",
        "http://h/\x1b[m",
        "http://h/ö",
    ],
)
def test_what_is_no_url_of_a_server_is_refused_before_anything_is_sent(url):
    assert fault(url).kind == "url"
    with pytest.raises(Failed):
        introspect.check(url)


@pytest.mark.parametrize(("name", "value"), [("a b", "x"), ("", "x"), ("X", "a\r\nY: b"), ("Host", "x"), ("X", "ö")])
def test_a_header_that_would_change_the_request_is_refused(name, value):
    assert introspect.header_fault(name, value)
    with pytest.raises(Failed):
        introspect.introspect("http://127.0.0.1:9/", headers={name: value})
