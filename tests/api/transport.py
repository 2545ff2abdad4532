"""How requests reach a registry: one by one to a stack of the tests' own, and with patience to one that others use."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, repeat
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

Headers = list[tuple[str, str]]
Transport = Callable[[str, str, Headers, bytes], "Answer"]

# Of one request. API Gateway waits 29 s for a function, so that whatever it answers arrives.
TIMEOUT = 30.0
# How long a request is repeated in all, and how long at most the stack may ask to wait before the next try.
PATIENCE = 120.0
LONGEST_WAIT = 60.0
# A connection that was idle for longer is not used again: uvicorn closes its own after 5 s, load balancers after 60.
IDLE = 4.0
# What may be sent again after a 503, by the contract. A POST may have been done, and the next would say 409.
REPEATABLE = {"DELETE", "GET", "PATCH", "PUT"}


@dataclass
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body, as strict JSON."""

        def refuse(literal: str) -> None:
            raise AssertionError(f"{literal} is not JSON")

        return json.loads(self.body, parse_constant=refuse)


class Secret(str):
    """A text that pytest does not print: it shows the arguments of whatever fails."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def addresses() -> Iterator[str]:
    """Addresses of the loopback, of which Linux has sixteen million and other systems one.

    The registry limits who is often wrong by address. With one of its own for each request, no test is refused for what
    others have tried.
    """
    with socket.socket() as trying:
        try:
            trying.bind(("127.1.0.0", 0))
        except OSError:
            yield from repeat("127.0.0.1")
    for number in cycle(range(1 << 16)):
        yield f"127.1.{number >> 8}.{number & 255}"


ADDRESSES = addresses()


def over_http(url: str, source: str | None = None) -> Transport:
    """Send requests to a URL exactly as given: no normalised path, no header that was not asked for.

    Each comes from an address of its own, or all from `source`.
    """
    parts = urlsplit(url)

    def send(method: str, path: str, headers: Headers, body: bytes) -> Answer:
        connection = connect(parts, source or next(ADDRESSES))
        try:
            return exchange(connection, parts.path, method, path, headers, body)
        finally:
            connection.close()

    return send


class Remote:
    """A stack that other people use: few connections that stay open, and a request that is refused for now repeated."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests = 0
        self.repeated: Counter[int] = Counter()
        self._parts = urlsplit(url)
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque()
        self._counting = threading.Lock()

    def __call__(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """The answer; one of 429, or of 503 to what may be repeated, only where it is still that after two minutes."""
        if "user-agent" not in {name.lower() for name, _ in headers}:
            # For who reads the access log; and a firewall may refuse who does not say what he is.
            headers = [*headers, ("user-agent", "mcp-registry-api-suite")]
        waited = 0.0
        while True:
            answer = self._ask(method, path, headers, body)
            if not (answer.status == 429 or (answer.status == 503 and method in REPEATABLE)):
                return answer
            seconds = retry_after(answer)
            waited += seconds
            if waited > PATIENCE:
                return answer
            with self._counting:
                self.repeated[answer.status] += 1
            time.sleep(seconds)  # as long as the stack asks for

    def close(self) -> None:
        """Close the connections that stayed open."""
        while self._idle:
            self._idle.pop()[1].close()

    def _ask(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        with self._counting:
            self.requests += 1
        connection = self._connection()
        kept = connection.sock is not None
        try:
            try:
                answer = exchange(connection, self._parts.path, method, path, headers, body)
            except ConnectionError:
                if not kept:
                    raise
                # It was closed from there while it was idle, and nobody has read the request.
                connection.close()
                answer = exchange(connection, self._parts.path, method, path, headers, body)
        except BaseException:
            connection.close()
            raise
        self._idle.append((time.monotonic(), connection))
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        while True:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return connect(self._parts)
            if time.monotonic() - since < IDLE:
                return connection
            connection.close()


def retry_after(answer: Answer) -> float:
    """The seconds that an answer asks to wait; one where it does not say, or gives a date."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() else 1.0


def connect(parts: SplitResult, source: str | None = None) -> http.client.HTTPConnection:
    """A connection to the host of a URL; of https, only where its certificate is valid.

    `source`: the address to come from, where the host is on this machine.
    """
    assert parts.hostname is not None
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT, context=context)
    own = (source, 0) if source and parts.hostname == "127.0.0.1" else None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT, source_address=own)


def exchange(
    connection: http.client.HTTPConnection, prefix: str, method: str, path: str, headers: Headers, body: bytes
) -> Answer:
    """One request and its answer. `prefix` is the path of the base URL, a stage for instance."""
    started = time.perf_counter()
    # The rest of the path stays as it is; bytes beyond ASCII cannot stand in a request line.
    target = prefix + quote(path, safe="!#$%&'()*+,/:;=?@[]~\"<>\\^`{|}")
    connection.putrequest(method, target, skip_accept_encoding=True)
    names = {name.lower() for name, _ in headers}
    for name, value in headers:
        connection.putheader(name, value.encode("utf-8"))
    if "content-length" not in names and (body or method in ("POST", "PUT", "PATCH")):
        connection.putheader("content-length", str(len(body)))
    try:
        connection.endheaders(body or None)
    except (BrokenPipeError, ConnectionResetError):
        if not body:
            raise
        # Who refuses a body may answer before he has all of it: that answer is read below, or the fault found again.
    response = connection.getresponse()
    headers_in = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers_in, response.read(), time.perf_counter() - started)
