"""Servers on the loopback that answer in every wrong way: the modes of corpus/probe_responses.json, and more.

All on one asyncio loop in a thread, so that a thousand hanging connections cost nothing. Each visit is counted: how
many connections there were, and how many bytes the kernels took on their way to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Awaitable, Callable, Generator
from typing import Self

# In everything that a server says which a person must never read.
CANARY = "canary-of-the-remote"
# What the kernel keeps for us before a client has taken it; small, so that what we have sent is what it took.
SEND_BUFFER = 4_096

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

# Answers without end, by what it is of which there is no end: how they begin, and what comes again and again.
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = 0x10000
_packing = zlib.compressobj(0, zlib.DEFLATED, 16 + zlib.MAX_WBITS)


def packed(data: bytes) -> bytes:
    """A part of one gzip stream that never ends: of blocks that are whole, so that one may come again and again."""
    return _packing.compress(data) + _packing.flush(zlib.Z_FULL_FLUSH)


FLOODS = {
    "a head": (HEAD, b"a: b\r\n" * 4_000),
    "a line of a head": (HEAD + b"X: ", b"a" * PIECE),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
    "interim answers of bare lines": (b"", b"HTTP/1.1 100 \n\n" * 4_000),
    "a body": (HEAD + b"\r\n", b"a" * PIECE),
    "a body of a length": (HEAD + b"Content-Length: 999999999999\r\n\r\n", b"a" * PIECE),
    "chunks": (CHUNKED, b"8000\r\n" + b"a" * 0x8000 + b"\r\n"),
    "chunks of a byte": (CHUNKED, b"1\r\na\r\n" * 10_000),
    "a chunk": (CHUNKED + b"fffffffffff\r\n", b"a" * PIECE),
    "empty lines between chunks": (CHUNKED, b"\r\n" * 20_000),
    "packed bytes": (HEAD + b"Content-Encoding: gzip\r\n\r\n" + packed(b"a"), packed(bytes(PIECE))),
    "packed bytes in chunks of a byte": (
        HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"".join(b"1\r\n%c\r\n" % byte for byte in gzip.compress(random.Random(0).randbytes(40_000), 0)),
    ),
    "an event": (HEAD + b"Content-Type: text/event-stream\r\n\r\n", b"data: a\n" * 8_000),
}


class Visit:
    """One connection with one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.method = self.path = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.sent = 0
        self._reader = reader
        self._writer = writer

    @property
    def mode(self) -> str:
        return self.path.split("/")[1]

    async def receive(self) -> bool:
        """Read the request; False where it is none, as a TLS handshake is."""
        head = await self._reader.readexactly(1)
        if not head.isalpha():
            return False
        head += await self._reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        self.method, self.path, _ = line.split(" ")
        self.headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        self.body = await self._reader.readexactly(int(self.headers.get("content-length", "0")))
        return True

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        self.sent += len(data)
        await self._writer.drain()

    async def pour(self, piece: bytes) -> None:
        """Send the same again and again, for as long as the client takes it."""
        while True:
            await self.send(piece)

    async def drip(self, *pieces: bytes, seconds: float = 1.0) -> None:
        for piece in pieces:
            await self.send(piece)
            await asyncio.sleep(seconds)

    async def hold(self) -> None:
        """Say nothing until the client goes away."""
        await self._reader.read()

    def reset(self) -> None:
        """Close with a reset, so that what is on its way is lost."""
        client: socket.socket = self._writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def settle(self) -> None:
        """Count what never left."""
        self.sent -= self._writer.transport.get_write_buffer_size()


Manner = Callable[[Visit], Awaitable[None]]


class Farm:
    """A server on a free port of the loopback that treats every visit in one manner."""

    def __init__(self, manner: Manner, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.visits: list[Visit] = []
        self.connections = 0
        self._gates: dict[str, asyncio.Event] = {}
        self._manner = manner
        self._tls = tls
        self._host = host
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="farm", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def paths(self) -> list[tuple[str, str]]:
        """What was asked for, in order."""
        return [(visit.method, visit.path) for visit in self.visits]

    def gate(self, name: str) -> asyncio.Event:
        """Something to wait for in a manner, until it is opened."""
        return self._gates.setdefault(name, asyncio.Event())

    def open(self, name: str) -> None:
        """Open a gate, from any thread."""
        self._loop.call_soon_threadsafe(self.gate(name).set)

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        # A client that goes away in the middle of a handshake or an answer is what is being tested.
        self._loop.set_exception_handler(lambda *_: None)
        listener = socket.create_server(
            (self._host, 0), family=socket.AF_INET6 if ":" in self._host else socket.AF_INET, backlog=4_096
        )
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.port: int = listener.getsockname()[1]
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._visit, sock=listener, ssl=self._tls)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        writer.transport.set_write_buffer_limits(0)
        visit = Visit(reader, writer)
        try:
            # A client that only connects has made no request.
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                if not await visit.receive():
                    await visit.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    return
                self.visits.append(visit)
                try:
                    await self._manner(visit)
                finally:
                    visit.settle()
        finally:
            self._tasks.discard(task)
            writer.close()


@contextlib.contextmanager
def silent_port() -> Generator[int]:
    """A port on which connections are made and nobody ever reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield listener.getsockname()[1]


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# ------------------------------------------------------------------ hostility


class Hostile:
    """The manner whose mode is the first part of the path. `canary` is the port that no redirect may lead to."""

    def __init__(self, canary: int) -> None:
        self._canary = f"http://127.0.0.1:{canary}"

    async def __call__(self, visit: Visit) -> None:
        mode = visit.mode.replace("-", "_")
        if mode in PLAIN:
            await visit.send(PLAIN[mode])
        else:
            await getattr(self, mode)(visit)

    @classmethod
    def modes(cls) -> set[str]:
        own = {name for name in vars(cls) if not name.startswith("_") and name != "modes"}
        return {name.replace("_", "-") for name in own | set(PLAIN)}

    # -------------------------------------------------------------- slowness

    async def silent(self, visit: Visit) -> None:
        await visit.hold()

    async def slow_header(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\n")
        await visit.drip(*[f"X-{number}: {CANARY}\r\n".encode() for number in range(30)])

    async def slow_status(self, visit: Visit) -> None:
        await visit.drip(*[bytes((byte,)) for byte in OK], seconds=0.5)

    async def slow_body(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n")
        await visit.drip(*[b"x"] * 30)

    async def slow_json(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 400 No\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n")
        await visit.drip(b"{", *[b" "] * 59)

    async def slow_chunked(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await visit.drip(*[b"1\r\nx\r\n"] * 30, b"0\r\n\r\n")

    async def keepalive_hang(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        await visit.hold()

    async def quiet_events(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await visit.drip(*[b": still there\n\n"] * 30)

    # -------------------------------------------------------------- endlessness

    async def huge_header(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(80):
            await visit.send(b"a" * 0x10000)
        await visit.send(b"\r\n\r\n")

    async def endless_headers(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\n")
        await visit.pour(b"X-Again: and again\r\n" * 512)

    async def endless_interim(self, visit: Visit) -> None:
        await visit.pour(b"HTTP/1.1 102 Processing\r\n\r\n" * 256)

    async def endless_body(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await visit.pour(b"x" * 0x4000)

    async def endless_json(self, visit: Visit) -> None:
        await visit.send(b'HTTP/1.1 404 No\r\nContent-Type: application/json\r\n\r\n{"a":"')
        await visit.pour(b"x" * 0x4000)

    async def endless_chunks(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        await visit.pour(b"1\r\n[\r\n" * 1_024)

    async def endless_events(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await visit.pour(b'data: {"jsonrpc":"2.0","method":"notifications/message"}\n\n' * 64)

    async def gzip_bomb(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB))
        await visit.send(BOMB)

    async def json_bomb(self, visit: Visit) -> None:
        body = b'{"jsonrpc":' + b"[" * 50_000
        await visit.send(b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    # -------------------------------------------------------------- redirects

    async def redirect_imds(self, visit: Visit) -> None:
        await visit.send(
            f"HTTP/1.1 302 Found\r\nLocation: {self._canary}/latest/meta-data/\r\nContent-Length: 0\r\n\r\n".encode()
        )

    async def redirect_runtime(self, visit: Visit) -> None:
        await visit.send(
            f"HTTP/1.1 307 Moved\r\nLocation: {self._canary}/2018-06-01/runtime\r\nContent-Length: 0\r\n\r\n".encode()
        )

    async def redirect_loop(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 308 Moved\r\nLocation: /redirect-loop/on\r\nContent-Length: 0\r\n\r\n")

    # -------------------------------------------------------------- ends

    async def close(self, visit: Visit) -> None:
        pass

    async def reset(self, visit: Visit) -> None:
        visit.reset()

    async def reset_mid_header(self, visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nX-Half: ")
        visit.reset()


BOMB = gzip.compress(bytes(200_000_000), 9)

# Modes that say one thing and close.
PLAIN: dict[str, bytes] = {
    "ok": OK,
    "no_content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "early_hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + OK,
    "many_headers": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(5_000)) + b"\r\n",
    "cookie_bomb": b"HTTP/1.1 200 OK\r\n"
    + b"".join(b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 500) for n in range(90))
    + b"Content-Length: 0\r\n\r\n",
    "http09": f"<html>{CANARY}</html>".encode(),
    "garbage": bytes((37 * n + n // 7) % 256 for n in range(128, 4_096)),
    "status_neg": b"HTTP/1.1 -200 OK\r\n\r\n",
    "status_999": f"HTTP/1.1 999 {CANARY}\r\nContent-Length: 0\r\n\r\n".encode(),
    "status_four": b"HTTP/1.1 2000 OK\r\n\r\n",
    "smtp_banner": f"220 mail.example.com ESMTP {CANARY}\r\n".encode(),
    "ssh_banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "redis": f"-ERR unknown command '{CANARY}'\r\n".encode(),
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "s401": b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm="x"\r\nContent-Length: 0\r\n\r\n',
    "s429": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    "two_lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 20\r\n\r\nok",
    "length_and_chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\n\r\n",
    "bad_chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n",
    "short_body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
    "non_ascii_header": "HTTP/1.1 200 OK\r\nX-Näme: wért ✓\r\nContent-Length: 0\r\n\r\n".encode(),
    "evil_reason": b"HTTP/1.1 503 \x00<script>\x1b[31m"
    + CANARY.encode()
    + b"\r\nX-Evil: \x1b]0;owned\x07\r\nContent-Length: 0\r\n\r\n",
    "evil_error": b"HTTP/1.1 400 Bad\r\nContent-Type: text/html\r\n\r\n<b>\x00"
    + json.dumps({"jsonrpc": "2.0", "error": CANARY}).encode(),
    "broken_deflate": b"HTTP/1.1 404 No\r\nContent-Encoding: deflate\r\n\r\n"
    + zlib.compress(b'{"jsonrpc":')[:-6]
    + b"\xff" * 9,
}
