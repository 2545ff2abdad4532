"""HTTP on loopback: uvicorn's parser and writer around plain ASGI callables, on sockets that the caller has bound."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Generator
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from local.loopback import HOST

GRACE = 2  # seconds for requests under way when the server stops

# What uvicorn has to say is about malformed requests and about tasks that end with the server; neither is news here.
logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


class _JsonErrors(HttpToolsProtocol):
    """Refuses what is not HTTP in the shape that all errors have; uvicorn's own answer is plain text."""

    _BODY = b'{"error":"The request is not valid HTTP","code":"VALIDATION_ERROR"}'

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, not ours
        head = f"content-type: application/json\r\ncontent-length: {len(self._BODY)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[400] + head.encode() + self._BODY)
        self.transport.close()


class PublicServer(Server):
    """The server of the public port. Signals are the affair of the whole run, so it installs no handlers."""

    def __init__(self, app: Any) -> None:
        # httptools has no limit of its own on headers; a body ends where `app` stops reading.
        super().__init__(_config(app, http=_JsonErrors, timeout_keep_alive=75, timeout_graceful_shutdown=GRACE))

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class PrivateListener:
    """One more listener in the running loop, on a free port, for one client: a function's process."""

    def __init__(self, app: Any) -> None:
        # The client keeps its connection while a handler runs, and no handler may run longer than 15 minutes.
        self._config = _config(app, http=HttpToolsProtocol, timeout_keep_alive=1000)
        self._config.load()

    async def open(self) -> str:
        """Listen; returns host:port."""
        loop = asyncio.get_running_loop()
        state = ServerState()

        def connect() -> HttpToolsProtocol:
            return HttpToolsProtocol(self._config, state, app_state={}, _loop=loop)

        self._server = await loop.create_server(connect, HOST, 0)
        return f"{HOST}:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stop listening."""
        self._server.close()


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
