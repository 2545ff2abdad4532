"""The reading of an answer: what is in it, where reading stops, and that packets change nothing."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.dial.exchange import CLOSED, LIMIT, NOT_HTTP, TOO_LONG, Answer, is_refusal
from mcp_registry.dial.reply import Reply, response
from mcp_registry.health.asking import Beat

# As long as the ids that we ask with.
ID = 1234567890
RESULT = b'{"jsonrpc":"2.0","id":1234567890,"result":{"supportedVersions":["2026-07-28"]}}'
ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"Method not found"}}'
NOTIFICATION = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'


def answer(status: bytes, headers: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n" + body


def with_length(body: bytes, status: bytes = b"400 Bad Request", more: bytes = b"") -> bytes:
    return answer(status, b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) + more, body)


def chunked(body: bytes, size: int = 7, more: bytes = b"") -> bytes:
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    text = b"".join(b"%X;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: 1\r\n\r\n"
    return answer(b"200 OK", b"Transfer-Encoding: chunked\r\n" + more, text)


def events(text: bytes, more: bytes = b"") -> bytes:
    return answer(b"200 OK", b"Content-Type: text/event-stream; charset=utf-8\r\n" + more, text)


def fed(found: Answer, data: bytes, cuts: list[int], *, ended: bool = True) -> None:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in pairwise(places):
        found.feed(data[begin:end])
    if ended:
        found.end()


def replied(data: bytes, cuts: list[int] | None = None, *, ended: bool = True) -> Reply:
    """What an introduction reads."""
    found = Reply(ID, LIMIT)
    fed(found, data, cuts or [], ended=ended)
    return found


def beaten(data: bytes, cuts: list[int] | None = None, *, ended: bool = True) -> Beat:
    """What a check reads."""
    found = Beat()
    fed(found, data, cuts or [], ended=ended)
    return found


def outcome(data: bytes, cuts: list[int] | None = None) -> tuple[object, ...]:
    """What both make of an answer."""
    reply, beat = replied(data, cuts), beaten(data, cuts)
    assert reply.done and beat.done
    text = reply.message, reply.body, reply.sample, reply.headers, reply.overflowed, reply.is_begun
    told = beat.signature, beat.complaint, beat.is_page, beat.session, beat.wait
    return *((one.status, one.fault, one.location) for one in (reply, beat)), text, told


def plain(body: bytes, status: bytes = b"400 Bad Request") -> bytes:
    return answer(status, b"Content-Length: %d\r\n" % len(body), body)


REFUSALS = {
    "no valid session, SDK for Python 1.8 to 1.25": plain(b"Bad Request: No valid session ID provided"),
    "no such session, SDK for Go": plain(b"session not found\n", b"404 Not Found"),
    "no such version, SDK for Go": plain(b"Bad Request: Unsupported protocol version (supported versions: 2025-06-18)"),
    "unexpected message, SDK for Rust": plain(b"Unexpected message, expect initialize", b"422 Unprocessable Entity"),
}
SPEAKING = {
    "result": with_length(RESULT, b"200 OK"),
    "error in a 400": with_length(ERROR),
    "error in a 404": with_length(ERROR, b"404 Not Found"),
    "error in a 406": with_length(ERROR, b"406 Not Acceptable"),
    "no reason": with_length(RESULT, b"200"),
    "HTTP/1.0 to the end of the connection": b"HTTP/1.0 200 OK\r\n\r\n" + RESULT,
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length:%d\n\n%b" % (len(RESULT), RESULT),
    "after interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
    + with_length(RESULT),
    "chunked": chunked(RESULT),
    "chunks of one byte": chunked(ERROR, 1),
    "a byte order mark": with_length(b"\xef\xbb\xbf" + RESULT),
    "white space around": with_length(b"\r\n\t " + RESULT + b" \n"),
    "no content type": answer(b"200 OK", b"Content-Length: %d\r\n" % len(RESULT), RESULT),
    "bytes that are no UTF-8": with_length(ERROR.replace(b"not found", b"\xff\xfe")),
    "gzip unasked": with_length(gzip.compress(RESULT), more=b"Content-Encoding: gzip\r\n"),
    "deflate unasked": with_length(zlib.compress(ERROR), more=b"Content-Encoding: deflate\r\n"),
    "gzip in chunks": chunked(gzip.compress(RESULT), more=b"content-encoding: x-gzip\r\n"),
    "one event": events(b"event: message\r\ndata: " + RESULT + b"\r\n\r\n"),
    "an event of line feeds": events(b"id: 1\nevent: message\ndata:" + RESULT + b"\n\n"),
    "an event of carriage returns": events(b"data: " + RESULT + b"\r\r"),
    "data in two lines": events(b"data: " + RESULT[:17] + b"\ndata: " + RESULT[17:] + b"\n\n"),
    "after comments and an opening event": events(b": hello\n\nid: 0\nretry: 5\ndata:\n\ndata: " + ERROR + b"\n\n"),
    "after a notification": events(b"data: " + NOTIFICATION + b"\n\ndata: " + RESULT + b"\n\n"),
    "an event without its end": events(b"data: " + RESULT),
    "events in chunks": chunked(b"data: " + RESULT + b"\n\n", more=b"Content-Type: text/event-stream\r\n"),
    "cut off, but complete": answer(b"200 OK", b"Content-Length: 500\r\n", RESULT),
    "JSON-RPC in a 500": with_length(ERROR, b"500 Oh no"),
    "JSON-RPC in a redirect": with_length(ERROR, b"307 There", b"Location: /there\r\n"),
    "gated": with_length(RESULT, b"401 Unauthorized"),
    "a list": with_length(b"[" + RESULT + b"]"),
}
LONG = {
    "longer than is read": with_length(RESULT[:-2] + b',"icons":"' + b"x" * LIMIT + b'"}}'),
    "longer than is read, the result first": with_length(b'{"result":{"x":"' + b"x" * LIMIT + b'"},"jsonrpc":"2.0"}'),
    "an event longer than is read": events(b'data: {"result":{"x":"' + b"x" * LIMIT),
    "a bomb of JSON-RPC": with_length(
        gzip.compress(b'{"jsonrpc":"2.0","id":"1","result":{"x":"' + b"x" * LIMIT), more=b"Content-Encoding: gzip\r\n"
    ),
}
SILENT = {
    "web page": answer(b"200 OK", b"Content-Type: text/html\r\n", b"<html></html>"),
    "bare 404": answer(b"404 Not Found", b"Content-Length: 0\r\n"),
    "JSON that is no JSON-RPC": with_length(b'{"detail":"Not Found"}', b"404 Not Found"),
    "JSON-RPC 1.0": with_length(b'{"result":1,"id":1}'),
    "a request": with_length(NOTIFICATION),
    "no body by its status": with_length(RESULT, b"204 No Content"),
    "half": answer(b"200 OK", b"Content-Length: 500\r\n", RESULT[:-1]),
    "broken chunks": answer(b"200 OK", b"Transfer-Encoding: chunked\r\n", b"5\r\n{\"js\r\nxyz\r\n"),
    "gzip that is none": with_length(RESULT, more=b"Content-Encoding: gzip\r\n"),
    "another coding": with_length(b"\x1b\x00", more=b"Content-Encoding: br\r\n"),
    "nested too deep": with_length(b'{"jsonrpc":' + b"[" * 50_000),
    "a number too long": with_length(b'{"jsonrpc":"2.0","result":' + b"9" * 50_000 + b"}"),
    "events without a response": events(b": nothing\n\ndata: {}\n\ndata: " + NOTIFICATION + b"\n\n"),
    "long, and something else": with_length(b'{"items":{"x":"' + b"x" * LIMIT),
}  # fmt: skip
NO_ANSWERS = {
    "nothing": (b"", CLOSED),
    "half a status line": (b"HTTP/1.1 2", CLOSED),
    "half a head": (answer(b"200 OK", b"X: ")[:-2], CLOSED),
    "only interim": (b"HTTP/1.1 100 Continue\r\n\r\n", CLOSED),
    "HTTP/0.9": (b"<html>", NOT_HTTP),
    "a banner": (b"220 mail ESMTP\r\n", NOT_HTTP),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", NOT_HTTP),
    "a negative status": (answer(b"-200 OK", b""), NOT_HTTP),
    "four digits": (answer(b"2000 OK", b""), NOT_HTTP),
    "two digits": (answer(b"20 OK", b""), NOT_HTTP),
    "a status that starts with zero": (answer(b"099 Odd", b""), NOT_HTTP),
    "letters": (answer(b"OKAY fine", b""), NOT_HTTP),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n", NOT_HTTP),
    "a head without end": (answer(b"200 OK", b"X: y\r\n" * LIMIT), TOO_LONG),
    "a head that ends too late": (answer(b"200 OK", b"X: " + b"y" * LIMIT + b"\r\n"), TOO_LONG),
    "interim answers without end": (b"HTTP/1.1 102 Processing\r\n\r\n" * LIMIT, TOO_LONG),
}
STREAMS = [
    *(data for answers in (REFUSALS, SPEAKING, LONG, SILENT) for data in answers.values()),
    *(data for data, _ in NO_ANSWERS.values()),
]


@pytest.mark.parametrize("data", SPEAKING.values(), ids=SPEAKING)
def test_a_json_rpc_response_is_recognised_in_every_shape(data):
    found = replied(data)
    assert found.message is not None and found.done


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_a_json_rpc_response_that_is_longer_than_is_read_is_known_by_its_beginning(data):
    found = replied(data)
    assert found.done and found.overflowed and found.is_begun and found.message is None


@pytest.mark.parametrize("data", SILENT.values(), ids=SILENT)
def test_anything_else_is_not_json_rpc(data):
    found = replied(data)
    assert found.status is not None and found.done
    assert found.message is None and not (found.overflowed and found.is_begun)


@pytest.mark.parametrize("data", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_in_plain_words_is_one_of_mcp(data):
    found = replied(data)
    assert is_refusal(found.status, found.body)


@pytest.mark.parametrize(
    "data",
    [
        plain(b"Not Found", b"404 Not Found"),
        plain(b"<p>Your session ID has expired</p>", b"400 Bad Request"),
        plain(b'{"error":"Invalid session"}', b"400 Bad Request"),
        plain(b"No valid session ID provided", b"200 OK"),
        plain(b"No valid session ID provided", b"500 Internal Server Error"),
        plain(b"No valid session ID provided" + b"." * 500, b"400 Bad Request"),
    ],
)
def test_what_only_looks_like_a_refusal_of_mcp_is_none(data):
    found = replied(data)
    assert not is_refusal(found.status, found.body)


@pytest.mark.parametrize("read", [replied, beaten])
@pytest.mark.parametrize(("data", "fault"), NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_has_its_reason(read, data, fault):
    found = read(data)
    assert (found.status, found.fault, found.done) == (None, fault, True)


@pytest.mark.parametrize("read", [replied, beaten])
@pytest.mark.parametrize(
    "data",
    [
        with_length(RESULT) + b"HTTP/1.1 200 OK",
        chunked(RESULT),
        events(b"data: " + RESULT + b"\n\n: and on it goes"),
        answer(b"304 Not Modified", b"Content-Length: 1000\r\n"),
        answer(b"404 Not Found", b"Content-Length: 0\r\n"),
        answer(b"101 Switching Protocols", b"Upgrade: websocket\r\n"),
        b"220 mail ESMTP\r\n",
        answer(b"200 OK", b"X: y\r\n" * LIMIT),
    ],
)
def test_reading_ends_where_no_more_can_change_anything(read, data):
    assert read(data, ended=False).done


def test_a_check_reads_no_more_of_what_is_no_json_and_an_introduction_keeps_it():
    page = answer(b"200 OK", b"Content-Length: 1000\r\n", b"<")
    assert beaten(page, ended=False).done and not replied(page, ended=False).done


@pytest.mark.parametrize("read", [replied, beaten])
@pytest.mark.parametrize("data", [events(b": hello\n\n"), with_length(RESULT)[:-1], b"HTTP/1.1 200", b""])
def test_reading_goes_on_where_more_may_come(read, data):
    assert not read(data, ended=False).done


def test_the_reason_and_headers_may_hold_any_byte():
    found = replied(b"HTTP/1.1 503 \x00\x1b[31m\xff\r\nX-\xc3\xa4: \x00\r\nLocation: /a\r\n\r\n")
    assert (found.status, found.location) == (503, b"/a")


@pytest.mark.parametrize("read", [replied, beaten])
def test_a_header_counts_only_at_the_start_of_a_line(read):
    found = read(answer(b"200 OK", b"X-Location: /x\r\nX: location: /y\r\n"))
    assert found.location is None


def test_an_error_is_a_response_whatever_its_id_and_a_result_where_its_id_is_ours_as_a_text_too():
    for identifier in (None, 1, "1", 1.5):
        assert response({"jsonrpc": "2.0", "id": identifier, "error": {}}, ID)
        assert not response({"jsonrpc": "2.0", "id": identifier, "result": {}}, ID)
        assert response({"jsonrpc": "2.0", "id": identifier, "result": {}}, ID, in_stream=True)
    assert response({"jsonrpc": "2.0", "id": str(ID), "result": {}}, ID)


cuts = st.lists(st.integers(0, 4 * LIMIT), max_size=12)


@given(st.sampled_from(STREAMS), cuts)
def test_what_is_read_does_not_depend_on_how_bytes_are_split(data, cuts):
    assert outcome(data, cuts) == outcome(data)


@pytest.mark.parametrize("data", [data for data in STREAMS if len(data) < 1_000])
def test_what_is_read_is_the_same_byte_by_byte(data):
    assert outcome(data, [*range(len(data))]) == outcome(data)


HEADERS = [
    b"Content-Type: text/event-stream\r\n",
    b"Content-Type: application/json\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: deflate\r\n",
    b"Content-Length: 20\r\n",
    b"Content-Length: -1\r\n",
    b"\n",
]
PIECES = [
    *(RESULT, ERROR, NOTIFICATION, RESULT[:20], RESULT[20:], gzip.compress(RESULT), zlib.compress(ERROR)),
    *(
        b"data: ",
        b"data",
        b": ",
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b"\r\n\r\n",
        b"{",
        b"}",
        b" ",
        b"\xef\xbb\xbf",
        b"\xef",
    ),
    *(b"0\r\n\r\n", b"5\r\n", b"4F\r\n", b"%x\r\n%b\r\n" % (len(RESULT), RESULT), b"HTTP/1.1 200 OK\r\n\r\n"),
]
heads = st.builds(
    lambda status, headers: b"HTTP/1.1 " + status + b" X\r\n" + b"".join(headers) + b"\r\n",
    st.sampled_from([b"200", b"100", b"404", b"503", b"307"]),
    st.lists(st.sampled_from(HEADERS), max_size=4),
)
streams = st.builds(
    lambda heads, pieces: b"".join(heads) + b"".join(pieces),
    st.lists(heads, max_size=3),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=30), max_size=8),
)


@given(streams, cuts)
def test_no_bytes_break_the_reading_however_they_are_split(data, cuts):
    assert outcome(data, cuts) == outcome(data)
