"""One deadline for everything, whatever the other side does."""

from __future__ import annotations

import gzip
import json
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import trustme

from client.tests.conftest import Script, Scripted, answers
from mcp_registry_client import _announcer, _transport
from mcp_registry_client._answer import Room
from mcp_registry_client._identity import basic
from mcp_registry_client._json import parsed
from mcp_registry_client._transport import MAX_ANSWER, Failed, request
from tests.hostile import CHUNKED, FLOODS

Start = Callable[[Script], Scripted]
SOON = 0.3
KNOWN = answers(204)


def failure(url: str, seconds: float = 5, **options: Any) -> Failed:
    with pytest.raises(Failed) as caught:
        request("PUT", url, deadline_seconds=seconds, **options)
    return caught.value


@pytest.fixture
def served() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a server that does something with one connection and closes it; its URL."""
    listeners: list[socket.socket] = []

    def start(serve: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    serve(connection)
            except OSError:
                pass

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def test_an_answer_comes_back_whole_with_its_status_and_headers(scripted: Start):
    registry = scripted(answers(428, {"code": "REGISTRATION_REQUIRED"}, Retry_After="3"))
    answer = request(
        "PUT",
        f"{registry.url}/a?b=c",
        headers={"X-Registration-Digest": "00"},
        deadline_seconds=5,
        authorization=basic("ädmin", "pass:word"),
    )
    assert answer.status == 428 and answer.headers["retry-after"] == "3"
    assert json.loads(answer.body) == {"code": "REGISTRATION_REQUIRED"}
    (asked,) = registry.asked
    assert asked.path == "/a?b=c" and asked.headers["content-length"] == "0"
    assert asked.headers["host"] == f"127.0.0.1:{registry.port}"
    assert asked.headers["x-registration-digest"] == "00"
    assert asked.headers["authorization"] == "Basic w6RkbWluOnBhc3M6d29yZA=="


def test_a_redirect_is_an_answer_and_is_not_followed(scripted: Start):
    registry = scripted(answers(302, None, Location="/elsewhere"))
    assert request("PUT", registry.url, deadline_seconds=5).status == 302
    assert len(registry.asked) == 1


def test_a_server_that_never_answers_costs_the_deadline(served: Callable[..., str]):
    released = threading.Event()
    url = served(lambda connection: released.wait(10))
    assert failure(url, SOON).kind == "timeout"
    released.set()


def test_a_server_that_sends_a_byte_now_and_then_costs_the_deadline_too(served: Callable[..., str]):
    released = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not released.wait(0.05):
            connection.sendall(b".")

    url = served(drip)
    assert failure(url, SOON).kind == "timeout"
    released.set()


def test_a_name_that_is_never_resolved_costs_the_deadline_and_one_thread(monkeypatch: pytest.MonkeyPatch):
    released = threading.Event()
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def hang(host: str, port: int, *, flags: int = 0, **options: Any) -> Any:
        if flags:
            return real(host, port, flags=flags, **options)
        looked_up.append(host)
        released.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for _ in range(3):
        raised = failure("http://registry.example/", SOON)
        assert raised.kind == "timeout" and "registry.example was not resolved" in str(raised)
    assert looked_up == ["registry.example"]
    released.set()


def test_a_name_that_does_not_exist_says_so(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert failure("http://registry.example/").kind == "lookup"


def test_the_next_address_is_tried_where_the_first_refuses(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    registry = scripted(KNOWN)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = (socket.AF_INET, ("127.0.0.1", unused.getsockname()[1]))
        live = (socket.AF_INET, ("127.0.0.1", registry.port))
        monkeypatch.setattr(_transport, "_resolved", lambda *_: [dead, live])
        assert request("PUT", "http://registry.example/", deadline_seconds=5).status == 204


def test_nobody_listening_is_refused():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert failure(f"http://127.0.0.1:{unused.getsockname()[1]}").kind == "refused"


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "closed"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "garbage"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "tls"),
        (CHUNKED + b"zz\r\n", "closed"),
        # Python's int() takes these for sizes.
        (CHUNKED + b"-1\r\n" + b"a" * 2_000, "closed"),
        (CHUNKED + b"+1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "closed"),
        (CHUNKED + b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n", "closed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "too_large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"a" * 2_000, "too_large"),
    ],
)
def test_what_is_no_answer_fails_with_its_kind(sent: bytes, kind: str, served: Callable[..., str]):
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(sent)

    assert failure(served(serve), room=Room(1_000)).kind == kind


def flood(first: bytes, more: bytes) -> Callable[[socket.socket], None]:
    """What a server does that sends as much as anybody takes."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(first)
        while True:
            connection.sendall(more)

    return serve


@pytest.mark.parametrize("form", FLOODS)
def test_every_byte_of_an_answer_counts_whatever_it_is_of(form: str, served: Callable[..., str]):
    url = served(flood(*FLOODS[form]))
    room = Room(MAX_ANSWER)
    with pytest.raises(Failed, match="longer than 65536 bytes") as caught:
        request("PUT", url, deadline_seconds=60, room=room)
    assert caught.value.kind == "too_large" and room.left <= 0


def test_what_packed_bytes_grow_to_counts_as_they_do(served: Callable[..., str]):
    packed = gzip.compress(bytes(10_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert len(packed) < MAX_ANSWER / 4
    assert failure(served(flood(head + packed, b"")), 60).kind == "too_large"


BEGINNINGS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 503 x\r\n", b"HTTP/1.0 204\r\n"),
    b"HTTP/2 200\r\n",
]
PIECES = [
    *BEGINNINGS,
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: ", b"Content-Encoding: gzip\r\n", b"Retry-After: "),
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": ", b";x=y", b"\0", b"\xff" * 9),
    *(b"-1\r\n", b"0x10\r\n", b"0\r\n", b"5\r\nhello\r\n", b"f" * 16, b"9" * 20),
    *(b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x15\x03\x01", b"a" * 3_000, b"[" * 3_000, b"{}"),
]


class Bytes:
    """A socket on which these bytes come, so many at once, and then this end."""

    def __init__(self, sent: bytes, at_once: int, end: type[OSError] | None) -> None:
        self._left = sent
        self._at_once = at_once
        self._end = end

    def recv(self, most: int) -> bytes:
        most = min(most, self._at_once)
        data, self._left = self._left[:most], self._left[most:]
        if not data and self._end:
            raise self._end
        return data

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


def test_whatever_comes_is_an_answer_or_fails_with_a_kind():
    chance = random.Random(14)
    kinds: Counter[str] = Counter()
    for _ in range(1_000):
        begun = BEGINNINGS if chance.random() < 0.8 else PIECES
        sent = chance.choice(begun) + b"".join(chance.choices(PIECES, k=chance.randrange(30)))
        end = chance.choice([None, None, None, ConnectionResetError, TimeoutError, OSError])
        sock = cast("socket.socket", Bytes(sent, chance.choice([1, 7, 100, 100_000]), end))
        room = Room(chance.choice([100, 1_000, MAX_ANSWER]))
        try:
            answer = _transport.exchange(
                lambda sock=sock: sock, "PUT", "/", {"Host": "h"}, b"", _transport.Deadline(60), room
            )
        except Failed as failed:
            kinds[failed.kind] += 1
        else:
            kinds["answer"] += 1
            assert len(answer.body) <= MAX_ANSWER
            parsed(answer.body)
            assert 0 <= _announcer._retry_after(answer) <= 3600
    assert {"answer", "closed", "garbage", "timeout", "tls", "too_large"} == {*kinds}


def test_what_is_in_a_trailer_is_no_header(served: Callable[..., str]):
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(CHUNKED + b"2\r\n{}\r\n0\r\nRetry-After: 9\r\nLocation: /x\r\n\r\n")

    answer = request("PUT", served(serve), deadline_seconds=5)
    assert (answer.body, answer.headers) == (b"{}", {"transfer-encoding": "chunked"})


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_that_has_no_body_is_not_waited_for(status: bytes, served: Callable[..., str]):
    released = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 %b\r\nContent-Length: 5\r\n\r\n" % status)
        released.wait(60)  # it keeps the connection open

    answer = request("PUT", served(serve), deadline_seconds=50)
    assert str(answer.status) == status.decode()[:3] and answer.body == b""
    released.set()


def test_who_refuses_a_body_without_reading_it_is_heard(served: Callable[..., str]):
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    assert request("PUT", served(serve), body=bytes(1 << 20), deadline_seconds=20).status == 413


@pytest.mark.parametrize(
    "url", ["registry", "ftp://host/", "http://", "http://host:port/", "http://host/a b", "http://h/ä"]
)
def test_what_is_no_url_fails_as_one(url: str):
    assert failure(url).kind == "url"


def test_a_header_that_cannot_be_sent_fails_like_everything_else(scripted: Start):
    registry = scripted(answers(200))
    assert failure(registry.url, headers={"X": "a\r\nb"}).kind == "url"


def test_a_certificate_is_checked(served: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(65_536)
            secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def url() -> str:
        return served(serve).replace("http://127.0.0.1", "https://localhost")

    assert failure(url()).kind == "tls"
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert request("PUT", url(), deadline_seconds=5).status == 204
