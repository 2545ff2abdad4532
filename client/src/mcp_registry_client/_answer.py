"""An answer over HTTP/1.1 as it comes in: its head, and its body in pieces, as far as somebody wants them.

A parser of our own, because the bytes come from strangers. A server may say what it was asked for at the beginning of a
stream that never ends, name a session in a head whose body never comes, or send three heads before the one that counts.
It follows the registry's `dial.exchange`, and a test holds both to the same answers: what a check sees here is what
the registry sees.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})[ \r\n]")
# As far as an answer must be there before its status line can be told from another protocol.
STATUS_LINE_LENGTH: Final = len(b"HTTP/1.1 200 ")
VERSION: Final = b"HTTP/1."
HEADER: Final = re.compile(rb"\n([!#-'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([^\r\n]*)")
LENGTH: Final = re.compile(rb"[0-9]{1,18}")
CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
MAX_CHUNK_LINE: Final = 256
BLANK_LINE: Final = re.compile(rb"\n\r?\n")
# A carriage return at the end may be half of a line end.
LINE_END: Final = re.compile(rb"\r\n|\n|\r(?=[^\n])")
PACKED: Final = frozenset((b"gzip", b"x-gzip", b"deflate"))
# How the first byte of zlib's format (RFC 1950) and of gzip's ends. Some call bare deflate (RFC 1951) "deflate"; no
# compressor begins that so, and all clients read it.
HEADED: Final = frozenset((0x08, 0x0F))
PIECE: Final = 0x10000

# Takes a number of bytes, and waits for that many at most; empty where the other side has ended.
Receive = Callable[[int], bytes]


class NotHttp(Exception):
    """What answers there is not HTTP. `beginning` is how it begins."""

    def __init__(self, beginning: bytes = b"") -> None:
        super().__init__()
        self.beginning = beginning


class Closed(Exception):
    """The connection ended before the head of an answer was there."""


class TooLong(Exception):
    """The answer is longer than there is room for. `status` is None where not even its head had room."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__(status)
        self.status = status


class Room:
    """How many bytes may still be read. Several answers may share it."""

    def __init__(self, left: int) -> None:
        self.left = left


class Answer:
    """An answer: its status and headers, and its body as `pieces`, without chunks and unpacked."""

    def __init__(self, receive: Receive, room: Room, unpacked: Room | None = None) -> None:
        """Read the head. Raises NotHttp, Closed, TooLong, and what `receive` raises besides ConnectionError.

        `room` is for the bytes as they come, `unpacked` for what compressed ones grow to.
        """
        self._receive = receive
        self._room = room
        self._unpacked = unpacked or room
        # Whether the body ended before its end, with the connection or by a chunk that is none: what came before may
        # still be all that matters.
        self.broke_off = False
        self.status = 0
        self._headers: dict[bytes, bytes] = {}
        self._rest = b""
        self._read_head()

    @property
    def headers(self) -> dict[str, str]:
        """The headers by their names in lower case; of several by one name the first."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers.items()}

    def header(self, name: str) -> str:
        """The value of a header, which is the first where there are several; empty where there is none."""
        return self._headers.get(name.encode(), b"").decode("latin-1")

    @property
    def is_stream(self) -> bool:
        """Whether the body is one of server-sent events."""
        return self.header("content-type").lower().startswith("text/event-stream")

    def pieces(self) -> Iterator[bytes]:
        """The body. Raises TooLong after the last piece that there is room for."""
        if b"chunked" in self._headers.get(b"transfer-encoding", b"").lower():
            body = self._unchunked()
        else:
            length = self._headers.get(b"content-length", b"")
            body = self._limited(int(length)) if LENGTH.fullmatch(length) else self._sent()
        # Asked for or not, some servers and proxies always compress.
        packed = self._headers.get(b"content-encoding", b"").lower() in PACKED
        return self._inflated(body) if packed else body

    # ------------------------------------------------------------------ the head

    def _read_head(self) -> None:
        """Look for the end of the head, after those of interim answers (1xx)."""
        head = bytearray()
        place = searched = 0
        while True:
            line = STATUS_LINE.match(head, place)
            end = -1
            if line is not None:
                end = _head_end(head, max(searched - 3, place))
                searched = len(head)
            else:
                beginning = head[place : place + STATUS_LINE_LENGTH]
                if len(beginning) == STATUS_LINE_LENGTH or not VERSION.startswith(beginning[:7]):
                    raise NotHttp(bytes(beginning))
            if line is None or end < 0:
                if not (data := self._take()):
                    raise Closed
                head += data
                continue
            status = int(line[1])
            if status >= 200 or status == 101:
                break
            place = searched = end
        self.status = status
        for name, value in HEADER.findall(head, line.end() - 1, end):
            self._headers.setdefault(name.lower(), value.strip())
        self._rest = bytes(head[end:])

    def _take(self) -> bytes:
        """What comes next; nothing where the connection has ended, in whatever way."""
        if self._room.left <= 0:
            raise TooLong(self.status or None)
        try:
            data = self._receive(min(self._room.left, PIECE))
        except ConnectionError:
            # A reset is an end like another: what came before it counts.
            return b""
        self._room.left -= len(data)
        return data

    # ------------------------------------------------------------------ the body

    def _sent(self) -> Iterator[bytes]:
        """The body as it was sent, to the end of the connection."""
        yield self._rest
        while data := self._take():
            yield data

    def _limited(self, left: int) -> Iterator[bytes]:
        """The body as long as it was announced."""
        for data in self._sent():
            piece = data[:left]
            left -= len(piece)
            yield piece
            if not left:
                return
        self.broke_off = True

    def _unchunked(self) -> Iterator[bytes]:
        """The payload of chunks, to the last one, or to one that is none: what came at once in one piece.

        A chunk may have one byte, and a piece costs whoever takes it a hundred times that.
        """
        left = 0
        size = b""
        for data in self._sent():
            place = 0
            ended = False
            payload: list[bytes] = []
            while place < len(data) and not ended:
                if left:
                    piece = data[place : place + left]
                    left -= len(piece)
                    place += len(piece)
                    payload.append(piece)
                    continue
                end = data.find(b"\n", place)
                size += data[place : end if end >= 0 else len(data)]
                if len(size) > MAX_CHUNK_LINE:
                    self.broke_off = ended = True
                if end < 0:
                    break
                place = end + 1
                line, size = size.strip(), b""
                # The empty line is the end of the chunk before.
                if not line or ended:
                    continue
                found = CHUNK_SIZE.fullmatch(line)
                left = int(found[1], 16) if found else 0
                self.broke_off = found is None
                ended = not left
            yield b"".join(payload)
            if ended:
                return
        self.broke_off = True

    def _inflated(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """What compressed bytes mean, to their end or to where they break. What follows their end is not read."""
        inflate = None
        for packed in pieces:
            if inflate is None:
                if not packed:
                    continue
                # 32 reads the format off the first bytes.
                headed = packed[0] & 0x0F in HEADED
                inflate = zlib.decompressobj(32 + zlib.MAX_WBITS if headed else -zlib.MAX_WBITS)
            # Never more than a piece at once, and what is left over of it next: 64 KiB may stand for 64 MiB.
            text, most = b"", 0
            while (packed or len(text) == most) and not inflate.eof:
                before = inflate.copy()
                # Not 0, which zlib takes for no limit: the room for packed bytes may be the same, and used up.
                most = max(min(self._unpacked.left, PIECE), 1)
                try:
                    text = inflate.decompress(packed, most)
                except zlib.error:
                    yield _sound(before, packed, most)
                    return
                self._unpacked.left -= len(text)
                yield text
                if self._unpacked.left <= 0:
                    raise TooLong(self.status)
                packed = inflate.unconsumed_tail
            if inflate.eof:
                return


def _head_end(head: bytearray, start: int) -> int:
    """Where the body begins, or -1. Bare line feeds end lines too."""
    blank = BLANK_LINE.search(head, start)
    return blank.end() if blank else -1


def _sound(inflate: zlib._Decompress, data: bytes, room: int) -> bytes:
    """What broken compressed bytes mean up to where they break, which is found by feeding them one by one."""
    text = bytearray()  # bytes would be copied once for each byte that is fed
    try:
        for byte in data:
            text += inflate.decompress(bytes((byte,)), room - len(text))
            if len(text) == room:
                break
    except zlib.error:
        pass
    return bytes(text)


# ------------------------------------------------------------------ server-sent events


class Lines:
    """Lines, however the bytes are split into pieces. `pending` is what has no end yet."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pending = bytearray()
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        """Each line without its end, and at last what has none."""
        searched = 0
        for piece in self._pieces:
            self.pending += piece
            start = 0
            while end := LINE_END.search(self.pending, max(searched, start)):
                yield bytes(self.pending[start : end.start()])
                start = searched = end.end()
            del self.pending[:start]
            searched = max(len(self.pending) - 1, 0)
        if self.pending:
            yield bytes(self.pending).rstrip(b"\r")


def events(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """The name and the data of each event of a stream. The last may lack its blank line."""
    name, data = "", list[bytes]()
    for line in Lines(pieces):
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field.lstrip(b"\xef\xbb\xbf") == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif not line:
            # An event without data says nothing; servers of 2025-11-25 open a stream with one.
            if any(data):
                yield name, b"\n".join(data)
            name, data = "", []
    if any(data):
        yield name, b"\n".join(data)
