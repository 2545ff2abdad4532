"""HTTP on loopback: uvicorn's parser and writer around plain ASGI callables, on sockets that the caller has bound.

Whoever reaches the public port may send what they like, so everything is counted where bytes come in: the head of a
request as API Gateway counts it, the time for a request to be there, the connections, and the bytes of bodies.
"""

import asyncio
import contextlib
import functools
import json
import logging
import math
import resource
import socket
from collections.abc import Callable, Generator
from typing import Any, cast

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

GRACE = 2  # seconds for requests under way when the server stops
# Bytes. "Quotas for configuring and running a REST API": request line and header values together.
MAX_HEAD = 10_240
PATIENCE = 30.0  # seconds for a request to be there, from its first byte or from the connection
MAX_CONNECTIONS = 2000  # about as many as the kernel lets wait (loopback.bind); fewer where descriptors are scarce
MAX_HELD = 256 * 1024 * 1024  # bytes of bodies that are in memory at once

Address = tuple[str, int]

# What uvicorn has to say is about malformed requests and about tasks that end with the server; neither is news here.
logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


class _Bounds:
    """What all connections of a server may take together. Past it, those go first that longest have asked nothing."""

    def __init__(self) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(MAX_CONNECTIONS, descriptors // 2)
        # In the order in which they came, or had their last answer.
        self._unserved: dict[_PublicProtocol, None] = {}
        self._open: set[_PublicProtocol] = set()
        self._held = 0

    def opened(self, connection: "_PublicProtocol") -> None:
        """Count a connection, which is to ask for something."""
        self._open.add(connection)
        self._unserved[connection] = None
        if len(self._open) > self._most:
            self._end_one()

    def asked(self, connection: "_PublicProtocol") -> None:
        """A connection has sent its request, and is served from now on."""
        self._unserved.pop(connection, None)

    def answered(self, connection: "_PublicProtocol") -> None:
        """A connection has its answer, and may send another request."""
        if connection in self._open:
            self._unserved[connection] = None

    def closed(self, connection: "_PublicProtocol") -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._unserved.pop(connection, None)

    def hold(self, count: int) -> None:
        """Count so many bytes of a body; a negative number where they are let go."""
        self._held += count
        if count > 0 and self._held > MAX_HELD:
            self._end_one()

    def _end_one(self) -> None:
        if self._unserved:
            longest = next(iter(self._unserved))
            self.closed(longest)
            longest.give_up()


class _PublicProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded. What is refused here is answered in the shape that all errors have."""

    def __init__(self, bounds: _Bounds, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = False
        # Bytes since the parser was last in a body, or done with a head or a message: what it keeps, or looks through.
        self._head = 0
        # Bytes of the bodies that are kept for the application.
        self._held: dict[RequestResponseCycle, int] = {}

    def give_up(self) -> None:
        """Make room for others."""
        if self._deadline:  # a request is awaited, and is not all there
            self.refuse(503, "Too many requests are on their way", "UNAVAILABLE")
        else:
            self.transport.close()

    def refuse(self, status: int, error: str, code: str = "VALIDATION_ERROR") -> None:
        """Answer with an error, and close."""
        body = json.dumps({"error": error, "code": code}, separators=(",", ":")).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, not ours
        """Refuse what is not HTTP."""
        self.refuse(400, "The request is not valid HTTP")

    # -------------------------------------------------------------- of a connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - uvicorn's own
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._expect_request()
        self._bounds.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        self._end_deadline()
        for cycle, _ in self.pipeline:
            self._let_go(cycle)
        self._bounds.closed(self)

    def data_received(self, data: bytes) -> None:
        """Hand over what came in pieces that a head may have, so that none is parsed which is longer."""
        self._expect_request()
        at = 0
        while at < len(data) and not self.transport.is_closing():
            if self._head == MAX_HEAD:
                self.refuse(431, f"The request line and the headers have more than {MAX_HEAD} bytes")
                return
            piece = data[at : at + MAX_HEAD - self._head]
            at += len(piece)
            self._head += len(piece)
            super().data_received(piece)

    def _expect_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(PATIENCE, self._too_late)

    def _end_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.refuse(408, f"The request was not there within {PATIENCE:.0f} seconds")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def counted(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:  # also where the client did not wait for it
                self._let_go(cycle)

        super()._start_asgi_task(cycle, counted)

    def _let_go(self, cycle: RequestResponseCycle) -> None:
        self._bounds.hold(-self._held.pop(cycle, 0))

    # -------------------------------------------------------------- of a request, as the parser gets on

    def on_message_begin(self) -> None:
        """Begin with a head; the request before it may have come in the same piece."""
        super().on_message_begin()
        self._in_head = True
        self._expect_request()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, and no trailer: whoever checked the head before us has not seen it (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._head, self._in_head = 0, False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count what is kept of a body, until its request is answered."""
        self._head = 0
        super().on_body(body)
        if not self.cycle.response_complete:
            self._held[self.cycle] = self._held.get(self.cycle, 0) + len(body)
            self._bounds.hold(len(body))

    def on_message_complete(self) -> None:
        """The request is there."""
        self._head = 0
        super().on_message_complete()
        self._end_deadline()
        if self.cycle.response_complete:
            # It was refused before its end, whose bytes have ended the patience for the next one.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            self._bounds.asked(self)

    def on_response_complete(self) -> None:
        """The request is answered; one that came behind it is served next."""
        if not self.pipeline:
            self._bounds.answered(self)
        super().on_response_complete()


class PublicServer(Server):
    """The server of the public port. Signals are the affair of the whole run, so it installs no handlers."""

    def __init__(self, app: Any) -> None:
        protocol = cast("Any", functools.partial(_PublicProtocol, _Bounds()))
        super().__init__(_config(app, http=protocol, timeout_keep_alive=75, timeout_graceful_shutdown=GRACE))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class PrivateListener:
    """One more listener in the running loop, on a socket that listens already, for callers that `admits` knows."""

    def __init__(self, app: Any, sock: socket.socket, admits: Callable[[Address, Address], bool]) -> None:
        """`admits` is asked of each connection, by the address of the caller and by our own."""
        # The client keeps its connection while a handler runs, and no handler may run longer than 15 minutes.
        self._config = _config(app, http=HttpToolsProtocol, timeout_keep_alive=1000)
        self._config.load()
        self._sock = sock
        self._admits = admits

    async def open(self) -> None:
        """Take connections, with those that came before this."""
        loop = asyncio.get_running_loop()
        state = ServerState()

        def connect() -> _PrivateProtocol:
            return _PrivateProtocol(self._admits, self._config, state, app_state={}, _loop=loop)

        self._server = await loop.create_server(connect, sock=self._sock)

    def close(self) -> None:
        """Stop listening."""
        self._server.close()


class _PrivateProtocol(HttpToolsProtocol):
    """uvicorn's protocol for connections that are known; others are closed before a byte of theirs is read."""

    def __init__(self, admits: Callable[[Address, Address], bool], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admits = admits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - uvicorn's own
        """Look who it is."""
        super().connection_made(transport)
        if not (self.client and self.server and self._admits(self.client, cast("Address", self.server))):
            transport.abort()


def _config(app: Any, **settings: Any) -> Config:
    return Config(
        app,
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        **settings,
    )


async def read_body(receive: Any, limit: float = math.inf) -> bytes | None:
    """The body of an ASGI request; None where the client is gone before its end.

    Reading stops past `limit` bytes: the body is longer then, and uvicorn discards what follows.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"] or len(body) > limit:
            return bytes(body)


async def respond(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send an ASGI response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
