"""A TCP proxy before Postgres whose faults are switched while connections run through it.

It reads as much of what the client sends as it takes to know which statement is about to be executed ("PostgreSQL:
Message Formats", version 3). The project's statements are single and autocommitted: where others would cut at BEGIN or
COMMIT, this cuts before the server has seen the statement, or loses the reply after it was executed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict

HOST = "127.0.0.1"

Kind = Literal[
    "pass",  # forward everything
    "refuse",  # nothing listens; every connection that there was is reset
    "reset",  # every connection is reset, a new one as soon as it is accepted
    "blackhole",  # accept, and swallow what comes; nothing is closed
    "forget",  # likewise for the connections that there were; new ones pass (a NAT that lost its table)
    "stall",  # forward `after` bytes of the server's, then hold everything back
    "slow",  # hold each piece back for `seconds`, either way
    "cut after",  # forward `after` bytes of the server's, then reset that connection; once
    "cut on",  # reset the connection on which a statement with `pattern` comes, before the server sees it; once
    "drop reply",  # have a statement with `pattern` executed, swallow the reply, reset; once
]


@dataclass(frozen=True, eq=False)
class Fault:
    """What the proxy does. `after` counts what the server sends on each connection, from the moment of the switch."""

    kind: Kind
    after: int = 0
    seconds: float = 0.0
    pattern: str = ""


PASS = Fault("pass")
REFUSE = Fault("refuse")
RESET = Fault("reset")
BLACKHOLE = Fault("blackhole")
FORGET = Fault("forget")

# The end of every reply: ReadyForQuery, outside of a transaction. Nothing follows it unasked.
_READY = b"Z\x00\x00\x00\x05I"


class Proxy:
    """A proxy on a free port of 127.0.0.1; `with Proxy(port) as proxy:` starts it and ends it with its connections."""

    def __init__(self, target_port: int) -> None:
        """`target_port` is where Postgres listens on 127.0.0.1; nothing is connected to yet."""
        self._target = target_port
        # Keeps the port while nothing listens: bound, and never listening, beside the one that does.
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self.fired = 0
        self._loop = asyncio.new_event_loop()
        self._fault = PASS
        self._change = asyncio.Event()
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Start to listen."""
        self._thread.start()
        self.set(PASS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Reset every connection and end."""
        self.set(REFUSE)
        asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    def url(self, url: str) -> str:
        """The URL of the same database by way of the proxy."""
        parts = conninfo_to_dict(url)
        return f"postgresql://{parts['user']}:{parts['password']}@{HOST}:{self.port}/{parts['dbname']}"

    def aim(self, target_port: int) -> None:
        """Lead new connections to another port: Postgres was started again, and may have got one."""
        self._target = target_port

    def set(self, fault: Fault) -> None:
        """Do this from now on; returns when it is so. What a fault had held back goes on its way."""
        asyncio.run_coroutine_threadsafe(self._switch(fault), self._loop).result(10)

    # -------------------------------------------------------------- on the loop

    async def _switch(self, fault: Fault) -> None:
        self._become(fault)
        for pair in list(self._pairs):
            pair.old = True
            pair.left = fault.after
            if pair.swallowed or fault.kind in ("refuse", "reset"):
                pair.reset()
        if fault.kind == "refuse" and self._server:
            self._server.close()
            self._server = None
        elif fault.kind != "refuse" and not self._server:
            listener = _bound(self.port)
            listener.listen(256)
            self._server = await asyncio.start_server(self._serve, sock=listener)

    async def _ended(self) -> None:
        while self._pairs:
            await asyncio.sleep(0.01)

    def _become(self, fault: Fault) -> None:
        self._fault = fault
        self._change.set()
        self._change = asyncio.Event()

    def _fire(self) -> None:
        """A fault that happens once has happened."""
        self.fired += 1
        self._become(PASS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(reader, writer, self._fault.after)
        self._pairs.add(pair)
        try:
            if self._fault.kind == "reset":
                return
            if self._fault.kind == "blackhole":
                pair.swallowed = True
                while await reader.read(65536):
                    pass
                return
            pair.server_reader, pair.server_writer = await asyncio.open_connection(HOST, self._target)
            up, down = asyncio.create_task(self._upstream(pair)), asyncio.create_task(self._downstream(pair))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            pair.finish()
        except OSError:
            pass
        finally:
            pair.reset()
            self._pairs.discard(pair)

    async def _upstream(self, pair: _Pair) -> None:
        """From the client to the server."""
        assert pair.server_writer is not None
        while data := await pair.reader.read(65536):
            executed = pair.watch.feed(data)
            if not await self._passes(pair):
                continue
            fault = self._fault
            hit = bool(fault.pattern) and any(fault.pattern in statement for statement in executed)
            if hit and fault.kind == "cut on":
                self._fire()
                pair.reset()
                return
            if hit and fault.kind == "drop reply":
                pair.dropping = True
                self._fire()
            pair.server_writer.write(data)
            await pair.server_writer.drain()

    async def _downstream(self, pair: _Pair) -> None:
        """From the server to the client."""
        assert pair.server_reader is not None
        while data := await pair.server_reader.read(65536):
            if pair.dropping:
                if data.endswith(_READY):
                    pair.reset()
                    return
                continue
            if not await self._passes(pair):
                continue
            fault = self._fault
            if fault.kind in ("cut after", "stall"):
                allowed, pair.left = data[: pair.left], max(pair.left - len(data), 0)
                if len(allowed) < len(data):
                    pair.writer.write(allowed)
                    await pair.writer.drain()
                    if fault.kind == "cut after":
                        self._fire()
                        pair.reset()
                        return
                    await self._while(fault)
                    data = data[len(allowed) :]
            pair.writer.write(data)
            await pair.writer.drain()

    async def _passes(self, pair: _Pair) -> bool:
        """Whether a piece is to be forwarded, after what holds it back; False where it is swallowed."""
        fault = self._fault
        if fault.kind == "blackhole" or (fault.kind == "forget" and pair.old):
            pair.swallowed = True
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        if fault.kind == "stall" and not pair.left:
            await self._while(fault)
        return not pair.swallowed

    async def _while(self, fault: Fault) -> None:
        while self._fault is fault:
            await self._change.wait()


class _Pair:
    """One connection: the client's side and, once it is there, the server's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        self.reader, self.writer = reader, writer
        self.left = left  # bytes of the server's that still pass, under a fault that counts them
        self.server_reader: asyncio.StreamReader | None = None
        self.server_writer: asyncio.StreamWriter | None = None
        self.watch = _Watch()
        self.old = False  # older than the last switch
        self.swallowed = False  # something is missing in it, so that it can never go on
        self.dropping = False

    def finish(self) -> None:
        """Close both sides in good order: one of them has."""
        for writer in (self.writer, self.server_writer):
            if writer and not writer.is_closing():
                writer.close()

    def reset(self) -> None:
        """End both sides by RST."""
        for writer in (self.writer, self.server_writer):
            if writer and not writer.is_closing():
                with contextlib.suppress(OSError):
                    sock: socket.socket = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()


class _Watch:
    """Reads what a client sends, and knows the text behind the name of a prepared statement."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self._texts: dict[bytes, str] = {}

    def feed(self, data: bytes) -> list[str]:
        """The statements that the messages ending in this piece have executed: Query, or Bind of what was parsed."""
        self._buffer += data
        executed: list[str] = []
        while True:
            # Until the startup message, which has the protocol's version, messages have a length and no type.
            head = 1 if self._started else 0
            if len(self._buffer) < head + 4:
                return executed
            length = head + int.from_bytes(self._buffer[head : head + 4])
            if len(self._buffer) < length:
                return executed
            message, self._buffer = self._buffer[:length], self._buffer[length:]
            if not self._started:
                self._started = message[4:6] == b"\x00\x03"
                continue
            content = message[5:]
            if message[:1] == b"P":
                name, _, rest = content.partition(b"\x00")
                self._texts[name] = rest.partition(b"\x00")[0].decode(errors="replace")
            elif message[:1] == b"B":
                name = content.partition(b"\x00")[2].partition(b"\x00")[0]
                executed.append(self._texts.get(name, ""))
            elif message[:1] == b"Q":
                executed.append(content[:-1].decode(errors="replace"))


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((HOST, port))
    sock.setblocking(False)
    return sock
