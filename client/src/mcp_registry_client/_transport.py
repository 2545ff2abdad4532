"""One HTTP request with one deadline for all of it: name resolution, connecting, TLS, sending, and reading the answer.

A timeout of a socket is for one operation, so that whoever sends a byte a second is never late; and it does not cover
the lookup of a name at all, which can take half a minute. Both have held up servers that only wanted to say hello.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from mcp_registry_client._answer import Answer, Closed, NotHttp, Room, TooLong

Kind = Literal["url", "lookup", "refused", "tls", "timeout", "closed", "garbage", "too_large"]

AGENT = "mcp-registry-client/0.1.0"
# How a server of TLS begins its answer to plain text, where it answers at all.
TLS_ALERT = b"\x15\x03"
# What the registry answers to an announcement has a hundred bytes, or the sentences of a hundred faults.
MAX_ANSWER = 64 * 1024
# Answers without a body, whatever their headers say (RFC 9110, sections 6.4.1 and 15).
BODILESS = frozenset((101, 204, 304))
HEADER_VALUE = re.compile(r"[\t -~\x80-\xff]*")


class Failed(Exception):
    """There is no answer. `kind` says why in one word for programs, the message in a sentence for people."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


class Response(NamedTuple):
    """An answer, whatever its status. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Deadline:
    """A moment that everything has to be done by. `question`: of what an answer is waited for, where that is known."""

    def __init__(self, seconds: float, question: str = "") -> None:
        self.seconds = seconds
        self.question = question
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds that are left. Raises Failed where none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Failed("timeout", f"No answer within {self.seconds:g} s")
        return left

    @property
    def words(self) -> str:
        """What was waited for and for how long, to end a sentence with: ` to initialize within 12 seconds`."""
        to = f" to {self.question}" if self.question else ""
        return f"{to} within {max(round(self.seconds, 1), 0.1):g} seconds"

    def extend(self, other: Deadline) -> None:
        """Go on until another deadline."""
        self.seconds, self._end = other.seconds, other._end


class Target(NamedTuple):
    """Where a URL leads."""

    secure: bool
    host: str
    port: int
    authority: str  # as it stands in the Host header
    path: str  # with the query

    @classmethod
    def of(cls, url: str) -> Target:
        """Take a URL apart. Raises Failed where it is not one of http or https."""
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Failed("url", f"{url!r} is not a URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failed("url", f"{url!r} is not a URL that begins with http:// or https://")
        if not url.isascii() or any(character <= " " for character in url):
            raise Failed("url", f"{url!r} has characters that have to be written as %XX, in a host name as xn--")
        secure = parts.scheme == "https"
        authority = parts.netloc.rpartition("@")[2]
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(secure, parts.hostname, port or (443 if secure else 80), authority, path)


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    deadline_seconds: float,
    authorization: str | None = None,
    room: Room | None = None,
) -> Response:
    """Send a request and read the whole answer. Redirects are answers like others; no proxy is asked.

    `room` is for all bytes of the answer, as they come and, where they are packed, as they are unpacked: 64 KiB unless
    it is given.

    Raises Failed where no answer came within the deadline or the room, and nothing else.
    """
    deadline = Deadline(deadline_seconds)
    target = Target.of(url)
    sent = {"Host": target.authority, "User-Agent": AGENT, "Accept": "application/json", **(headers or {})}
    if authorization is not None:
        sent["Authorization"] = authorization
    room = room or Room(MAX_ANSWER)
    return exchange(lambda: connected(target, deadline), method, target.path, sent, body, deadline, room)


def exchange(
    connect: Callable[[], socket.socket],
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    deadline: Deadline,
    room: Room,
) -> Response:
    """One request and its answer on a connection of its own, all of whose bytes `room` counts.

    Of an error that is longer the body is left out. Raises Failed, and nothing else.
    """
    most = room.left
    sock: socket.socket | None = None
    answer: Answer | None = None

    def receive(number: int) -> bytes:
        assert sock is not None
        sock.settimeout(deadline.left())
        return sock.recv(number)

    try:
        # Without a length, a gateway may wait for the body of a PUT that has none.
        length = {"Content-Length": str(len(body))} if body or method in ("POST", "PUT", "PATCH") else {}
        sent = _head(method, path, {"Accept-Encoding": "identity", **headers, **length, "Connection": "close"}) + body
        sock = connect()
        # Whoever refuses a long body may not have read it: what is said counts, not that nobody listened.
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.settimeout(deadline.left())  # sendall's timeout is for the whole of it
            sock.sendall(sent)
        answer = Answer(receive, room)
        content = b"" if answer.status in BODILESS else b"".join(answer.pieces())
        if answer.broke_off:
            raise Failed("closed", "The connection was closed in the middle of the answer")
        return Response(answer.status, answer.headers, content)
    except TimeoutError:
        raise Failed("timeout", f"No answer within {deadline.seconds:g} s") from None
    except ConnectionRefusedError:
        raise Failed("refused", "Nothing listens there") from None
    except Closed:
        raise Failed("closed", "The connection was closed before an answer came") from None
    except ConnectionError as error:
        raise Failed("closed", f"The connection was closed: {error}") from None
    except NotHttp as error:
        if error.beginning.startswith(TLS_ALERT):
            raise Failed("tls", "What answers there speaks TLS: the URL has to begin with https://") from None
        raise Failed("garbage", "What was answered is not HTTP") from None
    except TooLong:
        # An error says by its status what matters, and what stands between may have a long page for it.
        if answer is not None and answer.status >= 400:
            return Response(answer.status, answer.headers, b"")
        raise Failed("too_large", f"The answer is longer than {most} bytes") from None
    except OSError as error:
        kind: Kind = "tls" if type(error).__module__ == "ssl" else "closed"
        raise Failed(kind, str(error)) from None
    except ValueError as error:
        raise Failed("url", f"This cannot be sent: {error}") from None
    finally:
        if sock is not None:
            sock.close()


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request. Raises ValueError where it holds what would make another one of it."""
    for name, value in headers.items():
        if not HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header {name} has characters that a header cannot have")
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def connected(target: Target, deadline: Deadline) -> socket.socket:
    """A connection to the first address that takes one."""
    addresses = _resolved(target.host, target.port, deadline)
    failure: OSError | None = None
    for place, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # An address that swallows everything must leave time for the next one.
            sock.settimeout(deadline.left() / (len(addresses) - place))
            sock.connect(address)
            return secured(sock, target.host, deadline) if target.secure else sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or Failed("lookup", f"{target.host} has no address")


def secured(sock: socket.socket, host: str, deadline: Deadline, *, verified: bool = True) -> socket.socket:
    """The same connection under TLS."""
    import ssl  # tens of milliseconds, and many registries are asked over a loopback or a sidecar

    context = ssl.create_default_context()
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    sock.settimeout(deadline.left())
    return context.wrap_socket(sock, server_hostname=host)


class _Lookup:
    """The lookup of one name, in a thread that can be left behind: the resolver knows no deadline."""

    def __init__(self, host: str, port: int) -> None:
        self.addresses: list[tuple[int, Any]] = []
        self.failure: Exception | None = None
        self.ended = threading.Event()
        self._query = (host, port)

    def run(self) -> None:
        try:
            self.addresses = _look_up(*self._query)
        except (OSError, UnicodeError) as error:
            self.failure = error
        finally:
            _lookups.pop((os.getpid(), *self._query), None)
            self.ended.set()


# Those that are under way. Whoever tries again while the first try still hangs waits for that one: threads that hang
# must not add up. Of this process: a fork takes no threads along.
_lookups: dict[tuple[int, str, int], _Lookup] = {}


def _look_up(host: str, port: int, flags: int = 0) -> list[tuple[int, Any]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


def _resolved(host: str, port: int, deadline: Deadline) -> list[tuple[int, Any]]:
    """The addresses of a name, in the resolver's order."""
    try:
        return _look_up(host, port, socket.AI_NUMERICHOST)  # asks nobody
    except (OSError, UnicodeError):
        pass
    key = (os.getpid(), host, port)
    lookup = _lookups.get(key)
    if lookup is None:
        lookup = _lookups[key] = _Lookup(host, port)
        threading.Thread(target=lookup.run, name="mcp-registry-lookup", daemon=True).start()
    if not lookup.ended.wait(deadline.left()):
        raise Failed("timeout", f"The name {host} was not resolved within {deadline.seconds:g} s")
    if lookup.failure is not None:
        raise Failed("lookup", f"The name {host} cannot be resolved: {lookup.failure}")
    return lookup.addresses
