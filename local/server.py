"""HTTP on loopback: uvicorn's parser and writer around plain ASGI callables, on sockets that the caller has bound.

Whoever reaches the public port may send what they like, so everything is counted where bytes come in: the head of a
request as API Gateway counts it, the time for a request to be there and for its answer to be taken, the connections,
the requests that one of them sends ahead, and the bytes of bodies and of answers.
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
# Seconds for a request to be there, from its first byte or from the connection; and for what is sent to be taken.
PATIENCE = 30.0
MAX_CONNECTIONS = 2000  # about as many as the kernel lets wait (loopback.bind); fewer where descriptors are scarce
MAX_AHEAD = 8  # requests of a connection that wait for the answer to the one before them
MAX_HELD = 256 * 1024 * 1024  # bytes of bodies, and of answers that are not taken, that are in memory at once

Address = tuple[str, int]

# What uvicorn has to say is about malformed requests and about tasks that end with the server; neither is news here.
logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


class _Bounds:
    """What all connections of a server may take together. Past it, those go first that longest keep us waiting."""

    def __init__(self) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(MAX_CONNECTIONS, descriptors // 2)
        # Those that are to send a request, or to take what was sent to them, in the order in which that began.
        self._waiting: dict[_PublicProtocol, None] = {}
        self._open: set[_PublicProtocol] = set()
        self._held = 0

    def opened(self, connection: "_PublicProtocol") -> None:
        """Count a connection, which is to ask for something."""
        self._open.add(connection)
        self.turn(connection, ours=False)
        if len(self._open) > self._most:
            self._end(next(iter(self._waiting)))

    def turn(self, connection: "_PublicProtocol", *, ours: bool) -> None:
        """Note whether it is our turn to do something for a connection, or the turn of who is at its other end."""
        if ours:
            self._waiting.pop(connection, None)
        elif connection in self._open:
            self._waiting[connection] = None

    def closed(self, connection: "_PublicProtocol") -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def hold(self, connection: "_PublicProtocol", count: int) -> None:
        """Count so many bytes that are kept for a connection; past the most, end those that keep some."""
        self._held += count
        while self._held > MAX_HELD and connection in self._open:
            self._end(next((other for other in self._waiting if other.held), connection))

    def let_go(self, count: int) -> None:
        """Count so many bytes no more."""
        self._held -= count

    def _end(self, connection: "_PublicProtocol") -> None:
        self.closed(connection)
        connection.give_up()


class _PublicProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded. What is refused here is answered in the shape that all errors have."""

    def __init__(self, bounds: _Bounds, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._deadline: asyncio.TimerHandle | None = None
        # While not all that was sent is taken.
        self._untaken: asyncio.TimerHandle | None = None
        self._refusal: bytes | None = None
        self._in_head = False
        # Bytes since the parser was last in a body, or done with a head or a message: what it keeps, or looks through.
        self._head = 0
        # Bytes of the bodies that are kept for the application, and under None those of an answer that is not taken.
        self._held: dict[RequestResponseCycle | None, int] = {}

    @property
    def held(self) -> int:
        """How many bytes are kept for this connection."""
        return sum(self._held.values())

    def give_up(self) -> None:
        """Make room for others, at once."""
        # Only where a request is awaited that is not all there can nothing be taken for another answer.
        if self._deadline and not self._untaken and not self._serves():
            self.refuse(503, "Too many requests are on their way", "UNAVAILABLE")
        self.transport.close()
        self.transport.abort()  # also where not all of it could be sent
        for kept in list(self._held):
            self._let_go(kept)

    def refuse(self, status: int, error: str, code: str = "VALIDATION_ERROR") -> None:
        """Answer with an error in place of what comes in, after the requests that came before it, and close."""
        if self._refusal is None:
            body = json.dumps({"error": error, "code": code}, separators=(",", ":")).encode()
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self._refusal = STATUS_LINE[status] + head.encode() + body
            self._refuse_in_turn()

    def _refuse_in_turn(self) -> None:
        if self._refusal and not self._serves() and not self.transport.is_closing():
            self.transport.write(self._refusal)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, not ours
        """Refuse what is not HTTP."""
        self.refuse(400, "The request is not valid HTTP")

    def _serves(self) -> bool:
        """Whether there is a whole request that has no answer yet."""
        newest = self.cycle
        return bool(self.pipeline) or bool(newest and not newest.response_complete and not newest.more_body)

    def _take_turn(self) -> None:
        self._bounds.turn(self, ours=self._serves() and not self._untaken)

    # -------------------------------------------------------------- of a connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - uvicorn's own
        """Begin to wait for a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that pause_writing tells of every byte that is not taken
        self._expect_request()
        self._bounds.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        self._end_deadline()
        self._end_untaken()
        for cycle, _ in self.pipeline:
            self._let_go(cycle)
        self._bounds.closed(self)

    def pause_writing(self) -> None:
        """Wait for what was sent to be taken, and not for ever, even where the connection is about to be closed."""
        super().pause_writing()
        self._untaken = self.loop.call_later(PATIENCE, self.transport.abort)
        self._take_turn()
        self._hold(None, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """All that was sent is taken."""
        super().resume_writing()
        self._end_untaken()
        self._take_turn()

    def data_received(self, data: bytes) -> None:
        """Hand over what came in pieces that a head may have, so that none is parsed which is longer."""
        if self._refusal is None:
            self._expect_request()
        at = 0
        while at < len(data) and self._refusal is None and not self.transport.is_closing():
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

    def _end_untaken(self) -> None:
        if self._untaken:
            self._untaken.cancel()
            self._untaken = None
        self._let_go(None)

    def _too_late(self) -> None:
        self.refuse(408, f"The request was not there within {PATIENCE:.0f} seconds")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def counted(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:  # also where the client did not wait for it
                self._let_go(cycle)

        super()._start_asgi_task(cycle, counted)

    def _hold(self, kept: RequestResponseCycle | None, count: int) -> None:
        self._held[kept] = self._held.get(kept, 0) + count
        self._bounds.hold(self, count)

    def _let_go(self, kept: RequestResponseCycle | None) -> None:
        self._bounds.let_go(self._held.pop(kept, 0))

    # -------------------------------------------------------------- of a request, as the parser gets on

    def on_message_begin(self) -> None:
        """Begin with a head; the request before it may have come in the same piece."""
        if len(self.pipeline) >= MAX_AHEAD:
            self.refuse(503, f"More than {MAX_AHEAD} requests wait for the answer to another", "UNAVAILABLE")
            raise OverflowError  # by which the parser stops, and looks at no more of the piece
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
        if not self.transport.is_closing():
            super().on_body(body)
            if not self.cycle.response_complete:
                self._hold(self.cycle, len(body))

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
        self._take_turn()

    def on_response_complete(self) -> None:
        """The request is answered; one that came behind it is served next."""
        super().on_response_complete()
        self._take_turn()
        self._refuse_in_turn()


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
