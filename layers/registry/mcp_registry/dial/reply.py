"""An answer that is read whole: its headers, and the JSON-RPC response in it, by itself or in a stream of events.

Where a check of every half minute wants to know whether an answer is as before (`health.asking`), an introduction wants
to know what it says. The bytes are parsed by the same code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, cast

from mcp_registry.dial import exchange
from mcp_registry.dial.exchange import Answer

# The headers that somebody asks for. Of all of them 64 KiB of short ones would be 2 MB of objects.
HEADER: Final = re.compile(
    rb"\n(content-type|content-length|content-encoding|transfer-encoding|location|mcp-session-id|retry-after"
    rb"|www-authenticate)[ \t]*:[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)
# What may come in several headers as well as in one (RFC 9110, section 5.3).
REPEATED: Final = frozenset({b"www-authenticate"})
# Enough bytes for 500 characters, whatever they are.
SAMPLE: Final = 2_000
# Errors of JSON-RPC have codes of 32 bits.
MAX_CODE: Final = 1 << 32
# Ids of requests that we repeat: whoever asks with a longer one would have us say megabytes.
MAX_ID: Final = 200
MAX_NUMBER: Final = 1 << 64
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# A JSON-RPC response that is longer than we read: it cannot be parsed, but how it begins is enough. SDKs write `result`
# either first or after `jsonrpc` and `id`, and icons in a result may well have 64 KiB.
BEGINNING: Final = re.compile(
    rb'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*|"id"\s*:\s*(?:"[^"\\]*"|-?[0-9.]+|null)\s*,\s*)*"(?:result|error)"\s*:\s*\{'
)


class Reply(Answer):
    """What came back to a JSON-RPC request.

    `message` is the response to the request with this number, where one came in a form that MCP clients read; `body`
    is the text of an answer that is no stream, `sample` the beginning of any. `overflowed`: there was no room for the
    rest.
    """

    __slots__ = (
        "_gathered",
        "_has_data",
        "_named",
        "_number",
        "headers",
        "may_miss_session",
        "message",
        "on_request",
        "overflowed",
        "sample",
    )

    def __init__(self, number: int | None, limit: int) -> None:
        """`number`: the id of the request; None where there is none, as of a notification or a GET."""
        super().__init__(limit)
        # What is told of each request of the server's own that a stream carries before the response.
        self.on_request: Callable[[dict[str, Any]], None] | None = None
        self.headers: dict[bytes, bytes] = {}
        self.message: dict[str, Any] | None = None
        self.overflowed = False
        self.sample = b""
        # Whether the request carried a session, or was one that a server may want a session for.
        self.may_miss_session = True
        self._number = number
        self._named = b""
        # The data of the event that is being read, in one piece: a list of short lines is many times as large.
        self._gathered = bytearray()
        self._has_data = False

    def forget(self) -> None:
        """Let go of what the answer says, but for its beginning and the code of an error.

        An answer that a verdict may depend on is kept while others are waited for, by a sweep hundreds at once; as
        objects of Python its values have up to 24 times its length.
        """
        if self.message is not None:
            error = self.message.get("error")
            code = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
            kept = {"code": code} if isinstance(code, int) and abs(code) < MAX_CODE else {}
            self.message = {"error": kept} if isinstance(error, dict) else {}
        if self.status is not None and hasattr(self, "_text"):
            self._text, self._line = bytes(self._text[:SAMPLE]), 0
        self._gathered = bytearray()
        self._inflate = None

    @property
    def taken(self) -> int:
        """How many bytes were read, those included that compressed ones grew to."""
        return 2 * self._limit - self.room - getattr(self, "_room", self._limit)

    def header(self, name: str) -> str:
        """The value of a header, given in lower case; empty where there is none."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case; empty where the answer names none."""
        return self.header("content-type").partition(";")[0].strip().lower()

    @property
    def body(self) -> bytes:
        """The body of an answer that is no stream of events, as far as it came."""
        return b"" if self.status is None or not hasattr(self, "_text") or self._events else bytes(self._text)

    @property
    def beginning(self) -> bytes:
        """The beginning of the body; of an answer that is no HTTP, of whatever came instead."""
        return self.sample or (bytes(self._head[:SAMPLE]) if self.status is None else b"")

    @property
    def is_begun(self) -> bool:
        """Whether that for which there was no room has begun as a JSON-RPC response, by itself or in an event."""
        if self.status is None or not hasattr(self, "_text"):
            return False
        text = bytes(self._text)
        if self._events:
            field, _, value = text[self._line :].partition(b":")
            text = value if field == b"data" else b""
        return BEGINNING.match(text.lstrip(exchange.BEFORE_JSON)) is not None

    def parsed(self) -> Any:
        """The body as JSON; None where it is none."""
        return parsed(self.body)

    def _headers(self, head: bytes | bytearray, start: int, end: int) -> dict[bytes, bytes]:
        for name, value in HEADER.findall(head, start, end):
            key = name.lower()
            if key not in self.headers:
                self.headers[key] = value.strip()
            elif key in REPEATED:
                self.headers[key] += b", " + value.strip()
        return self.headers

    def _take_text(self, data: bytes) -> None:
        if len(self.sample) < SAMPLE:
            self.sample += data[: SAMPLE - len(self.sample)]
        super()._take_text(data)

    def _finish(self) -> None:
        if self._events:
            # The last event may lack its blank line, and the last line its end.
            for line in (bytes(self._text[self._line :]), b""):
                self._take_line(line)
        elif self._number is not None:
            self.message = response(self.parsed(), self._number)
        super()._finish()

    def _overflow(self) -> None:
        self.overflowed = True
        super()._overflow()

    def _take_line(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if field.lstrip(BYTE_ORDER_MARK) == b"data":
            if self._has_data:
                self._gathered += b"\n"
            self._gathered += value
            self._has_data = True
        elif field == b"event":
            self._named = value
        elif not line:
            name, data = self._named, bytes(self._gathered)
            self._named, self._gathered, self._has_data = b"", bytearray(), False
            # An event without data says nothing; servers of 2025-11-25 open a stream with one.
            if data:
                self._take_event(name.decode("utf-8", "replace"), data)

    def _take_event(self, name: str, data: bytes) -> None:
        """Take an event: the first that is a response ends the search."""
        if self._number is None or name not in ("", "message"):
            return
        value = parsed(data)
        message = response(value, self._number, in_stream=True)
        if message is not None:
            self.message = message
            self.done = True
        elif self.on_request is not None:
            for request in requests(value):
                self.on_request(request)


class Receipt(Reply):
    """What came back to a message that asks for nothing: its head, and no more of the body than came with it.

    No client of the SDKs waits for the rest.
    """

    __slots__ = ()

    def __init__(self, limit: int) -> None:
        super().__init__(None, limit)

    def _begin_body(self, headers: dict[bytes, bytes]) -> None:
        super()._begin_body(headers)
        self.done = True


class Stream(Reply):
    """A stream of events that stays open: each goes to `take`, by its name and its data."""

    __slots__ = ("_take",)

    def __init__(self, limit: int, take: Callable[[str, bytes], None]) -> None:
        super().__init__(None, limit)
        self._take = take

    def _take_event(self, name: str, data: bytes) -> None:
        self._take(name, data)


def parsed(text: bytes | bytearray) -> Any:
    """A text as JSON; None where it is none, or nests deeper than Python reads."""
    try:
        return json.loads(text.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def response(value: Any, number: int, *, in_stream: bool = False) -> dict[str, Any] | None:
    """The JSON-RPC response to a request in what came, which may be several messages; None where there is none.

    In a stream that answers one request the id does not matter to the clients of the SDK (2.x for Python), and nowhere
    that of an error, which may be about a request that could not be read.
    """
    for message in cast("list[Any]", value) if isinstance(value, list) else [value]:
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            continue
        found = cast("dict[str, Any]", message)
        if isinstance(found.get("error"), dict):
            return found
        if isinstance(found.get("result"), dict) and (in_stream or str(found.get("id")) == str(number)):
            return found
    return None


def requests(value: Any) -> list[dict[str, Any]]:
    """The requests of JSON-RPC in what came, which may be several messages, if they have an id that can be repeated."""
    messages = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [cast("dict[str, Any]", one) for one in messages if isinstance(one, dict) and _is_request(one)]


def _is_request(message: dict[str, Any]) -> bool:
    number = message.get("id")
    is_id = len(number) <= MAX_ID if isinstance(number, str) else type(number) is int and abs(number) < MAX_NUMBER
    return message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str) and is_id
