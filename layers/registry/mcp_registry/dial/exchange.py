"""One HTTP/1.1 request on one connection, and what comes back, read as far as somebody needs it and no further.

A parser of our own, because the bytes come from strangers and most of them do not matter: the status line, a few
headers, and of the body what `dial.reply` and `health.asking` make of it. How the bytes are split into packets never
changes what is found.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import zlib
from typing import Any, cast

# All that is read of one answer: head, body, and what a compressed body grows to.
LIMIT = 0x10000

STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})[ \r\n]")
# As far as an answer must be there before its status line can be told from another protocol.
STATUS_LINE_LENGTH = len(b"HTTP/1.1 200 ")
VERSION = b"HTTP/1."
HEADERS = re.compile(
    rb"\n(content-type|content-length|content-encoding|transfer-encoding|location|mcp-session-id|retry-after)[ \t]*:"
    rb"[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)
LENGTH = re.compile(rb"[0-9]{1,18}")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
# The empty line that ends a head. Bare line feeds end lines too.
BLANK_LINE = re.compile(rb"\n\r?\n")
MAX_CHUNK_LINE = 256
# A carriage return at the end may be half of a line end.
LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")

# White space, and the bytes of a byte order mark, which some servers on Windows put before their JSON.
BEFORE_JSON = b" \t\r\n\xef\xbb\xbf"
# How a server says in plain words that it does not know our session, or our version of the protocol.
REFUSAL = re.compile(
    rb"session[ -]?id|session not found|invalid session|protocol version|unexpected message, expect", re.IGNORECASE
)
MAX_REFUSAL = 512

# What a health page calls a service that does not work, in whatever case and with hyphens or low lines for blanks:
# Spring Boot Actuator's Status, the values of "fail" in draft-inadarei-api-health-check, section 3.1, and what ASP.NET,
# Consul and people write by hand.
DOWN = frozenset(
    {
        "critical",
        "down",
        "error",
        "fail",
        "failed",
        "failing",
        "not ok",
        "out of service",
        "unavailable",
        "unhealthy",
    }
)
# Which names in a page have such a word, or an object in which one of these has; and which are false where it is ill.
STATES = frozenset({"status", "state", "health"})
STATES_WITHIN = frozenset({"status", "code"})
FLAGS = frozenset({"healthy", "ok"})
HYPHENS = str.maketrans("_-", "  ")

# Where an answer is none.
NOT_HTTP = "not HTTP"
TOO_LONG = "too long"
CLOSED = "closed"

# Answers without a body, whatever their headers say (RFC 9110, sections 6.4.1 and 15).
BODILESS = frozenset({101, 204, 205, 304})
GZIP = frozenset({b"gzip", b"x-gzip"})
# How the first byte of zlib's format (RFC 1950) and of gzip's ends. Some call bare deflate (RFC 1951) "deflate"; no
# compressor begins that so, and all clients read it.
HEADED = frozenset({0x08, 0x0F})


class Answer:
    """What came back on one connection: bytes go in, and what is made of them is that of whoever extends this.

    `status` is the HTTP status once the head is complete; `fault` says why there is none. `done`: nothing that could
    still come would change anything.
    """

    __slots__ = (
        "_chunked",
        "_data",
        "_events",
        "_head",
        "_inflate",
        "_left",
        "_limit",
        "_line",
        "_packed",
        "_place",
        "_room",
        "_searched",
        "_size",
        "_text",
        "done",
        "fault",
        "location",
        "room",
        "status",
    )

    def __init__(self, limit: int = LIMIT) -> None:
        """`limit`: bytes read at most."""
        self.status: int | None = None
        self.fault: str | None = None
        self.location: bytes | None = None
        self.done = False
        self.room = self._limit = limit
        self._head: bytes | bytearray = b""
        self._place = self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived; more than there is room for is not looked at."""
        if self.done:
            return
        if len(data) > self.room:
            data = data[: self.room]
        self.room -= len(data)
        if self.status is None:
            self._take_head(data)
        else:
            self._take_body(data)
        if not self.room and not self.done:
            self._overflow()

    def end(self) -> None:
        """Take note that nothing more will come."""
        if self.done:
            return
        if self.status is None:
            self.fault = CLOSED
            self.done = True
        else:
            self._finish()

    # ------------------------------------------------------------------ the head

    def _take_head(self, data: bytes) -> None:
        """Look for the end of the head, and for that of each interim answer (1xx) before it."""
        head: bytes | bytearray
        if self._head:
            # A bytearray grows in place: 64 KiB that come byte by byte would else be copied 65,536 times.
            head = self._head = bytearray(self._head) if isinstance(self._head, bytes) else self._head
            head += data
        else:
            head = self._head = data
        while True:
            line = STATUS_LINE.match(head, self._place)
            if line is None:
                beginning = head[self._place : self._place + STATUS_LINE_LENGTH]
                if len(beginning) == STATUS_LINE_LENGTH or beginning[:7] != VERSION[: len(beginning)]:
                    self.fault = NOT_HTTP
                    self.done = True
                return
            end = self._head_end(head)
            if end < 0:
                return
            status = int(line[1])
            if status >= 200 or status == 101:
                break
            self._place = self._searched = end
        self.status = status
        headers = self._headers(head, line.end() - 1, end)
        rest = bytes(head[end:])
        self._head = b""
        self.location = headers.get(b"location")
        if status in BODILESS:
            self.done = True
            return
        self._begin_body(headers)
        self._take_body(rest)

    def _headers(self, head: bytes | bytearray, start: int, end: int) -> dict[bytes, bytes]:
        """The headers that matter, between two places of the head: the first of each name, in lower case."""
        headers: dict[bytes, bytes] = {}
        for name, value in HEADERS.findall(head, start, end):
            headers.setdefault(name.lower(), value.strip())
        return headers

    def _head_end(self, head: bytes | bytearray) -> int:
        """Where the body begins, or -1. Bare line feeds end lines too."""
        start = max(self._searched - 3, self._place)
        blank = BLANK_LINE.search(head, start)
        self._searched = len(head)
        return blank.end() if blank else -1

    # ------------------------------------------------------------------ the body

    def _begin_body(self, headers: dict[bytes, bytes]) -> None:
        self._events = headers.get(b"content-type", b"")[:17].lower() == b"text/event-stream"
        self._chunked = b"chunked" in headers.get(b"transfer-encoding", b"").lower()
        length = headers.get(b"content-length")
        # What is left of the body, or of a chunk; -1 where only the end of the connection ends it.
        self._left = 0 if self._chunked else int(length) if length and LENGTH.fullmatch(length) else -1
        self._size = b""
        encoding = headers.get(b"content-encoding", b"").lower()
        # Asked for or not, some servers and proxies always compress.
        self._packed = encoding in GZIP or encoding == b"deflate"
        self._inflate: zlib._Decompress | None = None
        self._room = self._limit
        self._text: bytes | bytearray = b""
        self._line = self._searched = 0
        self._data: list[bytes] = []

    def _take_body(self, data: bytes) -> None:
        ended = False
        if self._chunked:
            data, ended = self._dechunk(data)
        elif self._left >= 0:
            data = data[: self._left]
            self._left -= len(data)
            ended = not self._left
        if self._packed and data:
            data, over = self._inflated(data)
            ended = ended or over
        if data:
            self._take_text(data)
        if self.done:
            return
        if not self._room:
            self._overflow()
        elif ended:
            self._finish()

    def _dechunk(self, data: bytes) -> tuple[bytes, bool]:
        """The payload of chunks, and whether they have ended, by the last one or by one that is none."""
        pieces: list[bytes] = []
        place = 0
        while place < len(data):
            if self._left:
                piece = data[place : place + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                place += len(piece)
                continue
            end = data.find(b"\n", place)
            self._size += data[place : end if end >= 0 else len(data)]
            if len(self._size) > MAX_CHUNK_LINE:
                return b"".join(pieces), True
            if end < 0:
                break
            place = end + 1
            line, self._size = self._size.strip(), b""
            # The empty line is the end of the chunk before.
            if not line:
                continue
            size = CHUNK_SIZE.fullmatch(line)
            if size is None or not (left := int(size[1], 16)):
                return b"".join(pieces), True
            self._left = left
        return b"".join(pieces), False

    def _inflated(self, data: bytes) -> tuple[bytes, bool]:
        """What compressed bytes mean, at most as much as there is room for, and whether they end or break there."""
        if self._inflate is None:
            # 32 reads the format off the first bytes.
            headed = data[0] & 0x0F in HEADED
            self._inflate = zlib.decompressobj(32 + zlib.MAX_WBITS if headed else -zlib.MAX_WBITS)
        before = self._inflate.copy()
        try:
            text = self._inflate.decompress(data, self._room)
            broken = False
        except zlib.error:
            # What was sound before the break is lost with it, unless it is fed once more in single bytes.
            text, broken = _sound(before, data, self._room), True
        self._room -= len(text)
        return text, broken or self._inflate.eof

    def _take_text(self, data: bytes) -> None:
        if self._events:
            self._take_lines(data)
            return
        text = self._text = bytearray(self._text) if isinstance(self._text, bytes) else self._text
        text += data

    def _finish(self) -> None:
        """Take note of a body that is complete, or will never be."""
        self.done = True

    def _overflow(self) -> None:
        """Take note of an answer that is longer than we read."""
        if self.status is None:
            self.fault = TOO_LONG
        self.done = True

    # ------------------------------------------------------------------ server-sent events

    def _take_lines(self, data: bytes) -> None:
        text = self._text = bytearray(self._text) if isinstance(self._text, bytes) else self._text
        text += data
        while not self.done:
            end = LINE_END.search(text, self._searched)
            if end is None:
                self._searched = max(len(text) - 1, self._line)
                return
            line = bytes(text[self._line : end.start()])
            self._line = self._searched = end.end()
            self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        """Take a line of an event; the blank one ends it."""


def _sound(inflate: zlib._Decompress, data: bytes, room: int) -> bytes:
    """What broken compressed bytes mean up to where they break."""
    text = b""
    try:
        for byte in data:
            text += inflate.decompress(bytes((byte,)), room - len(text))
            if len(text) == room:
                break
    except zlib.error:
        pass
    return text


def is_refusal(status: int | None, text: bytes | bytearray) -> bool:
    """Whether a text refuses a session or a version of the protocol, as only MCP servers do, in plain words.

    So the SDKs for Python (1.8 to 1.25), Go and Rust say that our session is none of theirs.
    """
    refused = status is not None and 400 <= status < 500
    may_refuse = refused and len(text) <= MAX_REFUSAL and text[:1] != b"{" and b"<" not in text
    return may_refuse and REFUSAL.search(text) is not None


def down_state(text: bytes | bytearray) -> str | None:
    """What a health page calls its service, where that means that it does not work: a word of DOWN, or "not healthy".

    It says so by its status or by a flag, where it is a JSON object, or by being nothing but the word. The client has
    the same rule (`_health.down_state`).
    """
    # Bytes that are no UTF-8 stand in somebody's message; they say nothing against the rest.
    told = text.decode("utf-8-sig", "replace")
    try:
        value: Any = json.loads(told)
    except (ValueError, RecursionError):
        value = told
    if not isinstance(value, dict):
        return _down_word(value)
    for name, found in cast("dict[str, Any]", value).items():
        key = name.lower()
        if key in FLAGS and found is False:
            return f"not {key}"
        if key in STATES and isinstance(found, dict):
            within = cast("dict[str, Any]", found)
            words = [_down_word(one) for part, one in within.items() if part.lower() in STATES_WITHIN]
        else:
            words = [_down_word(found)] if key in STATES else []
        for word in words:
            if word is not None:
                return word
    return None


def may_be_down_word(text: bytes | bytearray) -> bool:
    """Whether a text that is no JSON may become a word of DOWN by what still comes."""
    beginning = _spelt(text.decode("latin-1"))
    return any(word.startswith(beginning) for word in DOWN)


def _down_word(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) and _spelt(value) in DOWN else None


def _spelt(word: str) -> str:
    word = word.strip()
    # Some letters that are none of ASCII have a small one that is.
    return word.lower().translate(HYPHENS) if word.isascii() else word


class Exchange(asyncio.BufferedProtocol):
    """A connection that sends one request and reads the answer to it.

    Buffered, because the loop then asks how much may be read: uvloop takes 256 KiB at once otherwise.
    """

    __slots__ = ("_answer", "_buffer", "_done", "_request", "_transport", "error")

    def __init__(self, request: bytes, answer: Answer, buffer: memoryview, done: asyncio.Future[None]) -> None:
        """`buffer` has `LIMIT` bytes. All exchanges of one loop may share it: it is read before it is filled again."""
        self.error: Exception | None = None
        self._request = request
        self._answer = answer
        self._buffer = buffer
        self._done = done
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where the next bytes go: no more of them than the answer may still have.

        At least one: uvloop asks once more after the last, and complains in the log about a buffer without room.
        """
        room = self._answer.room or 1
        return self._buffer if room >= LIMIT else self._buffer[:room]

    def buffer_updated(self, nbytes: int) -> None:
        """Read the bytes that came."""
        answer = self._answer
        answer.feed(bytes(self._buffer[:nbytes]))
        if answer.done:
            self._settle()

    def eof_received(self) -> None:
        """The other side has said all that it will say."""
        self._answer.end()
        self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whoever."""
        if not self._done.done():
            # A refusal of TLS 1.3, as of a client without a certificate, comes after the handshake.
            self.error = exc if isinstance(exc, ssl.SSLError) else None
            self._answer.end()
            self._settle()

    def close(self) -> None:
        """Close the connection at once; what the other side still sends is refused."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _settle(self) -> None:
        self.close()
        if not self._done.done():
            self._done.set_result(None)


class Dialler:
    """Makes the exchanges of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buffer = memoryview(bytearray(LIMIT))

    async def ask(
        self,
        address: str,
        port: int,
        request: bytes,
        answer: Answer,
        tls: ssl.SSLContext | None,
        host: str,
        patience: float | None = None,
    ) -> None:
        """Send a request to an address and fill in the answer.

        Raises OSError where there is no connection, ssl.SSLError among them, and TimeoutError where there is none after
        `patience` seconds. `host` is the name in the certificate.
        """
        done = self._loop.create_future()
        exchange = Exchange(request, answer, self._buffer, done)
        try:
            connecting = self._loop.create_connection(
                lambda: exchange, address, port, ssl=tls, server_hostname=None if tls is None else host
            )
            await (connecting if patience is None else asyncio.wait_for(connecting, patience))
            await done
        finally:
            exchange.close()
        if exchange.error is not None:
            raise exchange.error


_context: ssl.SSLContext | None = None


def verified() -> ssl.SSLContext:
    """The TLS context of all checks, made at first use: loading the bundle of authorities takes 30 ms."""
    global _context
    if _context is None:
        _context = ssl.create_default_context()
        # The only protocol that we speak; servers that speak more than one then do not have to guess.
        _context.set_alpn_protocols(["http/1.1"])
    return _context
