"""One message to SQS from a function that somebody waits for: soon, or not at all.

What sends in the background uses boto3 (`queues`), which takes 275 ms of CPU to load. Here one request is signed and
sent: "SendMessage" in the Amazon SQS API Reference, by its JSON protocol. Loaded by the first message, not by a cold
start that sends none.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Thread
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from mcp_registry.aws import observability, signature

SERVICE: Final = "sqs"
TARGET: Final = "AmazonSQS.SendMessage"
MEDIA_TYPE: Final = "application/x-amz-json-1.0"
# Looking the name up, connecting and the answer, all together.
DEADLINE: Final = 0.3
# A connection that nobody used for so long is not used again: its other end may be gone without a word while we were
# frozen.
KEPT_SECONDS: Final = 20.0
# Of an answer, of which nothing is needed but whether it is one of success.
MAX_ANSWER: Final = 0x10000
LATE: Final = "late"

# Of an answer's head: its status, how long what follows it is, and that nothing follows that (RFC 9112).
STATUS: Final = re.compile(rb"HTTP/1\.[01] ([2-5][0-9][0-9])[ \r]")
LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*\r\n")
IS_LAST: Final = re.compile(rb"(?i)HTTP/1\.0|\r\n(?:connection:[^\r]*close|transfer-encoding:)")


class Kept(NamedTuple):
    """A connection that waits for the next message, since when, and where it leads."""

    since: float
    origin: str
    connection: socket.socket


_kept: Kept | None = None
_context: ssl.SSLContext | None = None


def send(url: str, body: str) -> bool:
    """Send a message to the queue of this URL, and wait for 300 ms at most; whether SQS has taken it by then.

    Never raises: what went wrong is one line in the log. A message that was not taken in time may be delivered all the
    same, and one that was may be delivered twice.
    """
    try:
        fault = _sent(url, body, time.monotonic() + DEADLINE)
    except Exception as error:  # noqa: BLE001 - a request that succeeded does not fail by this
        fault = type(error).__name__
    if fault:
        observability.log_unsent(url.rpartition("/")[2], fault)
    return not fault


def headers(host: str, content: bytes, given: Mapping[str, str], moment: datetime) -> dict[str, str]:
    """The headers of a request to this host with this content, signed as of this moment.

    `given`: an environment with credentials and a region, as Lambda gives them. Raises what `signature.credentials`
    raises, and KeyError where there is no region.
    """
    fields = {"content-type": MEDIA_TYPE, "host": host, "x-amz-target": TARGET}
    return signature.headers(SERVICE, "/", fields, content, given, moment)


def _sent(url: str, body: str, deadline: float) -> str:
    """What SQS has against the message; empty where it has taken it. Raises OSError, ValueError, KeyError."""
    global _kept, _context
    content = json.dumps({"QueueUrl": url, "MessageBody": body}, separators=(",", ":")).encode()
    # As boto3: the variables name what stands in for AWS.
    place = urlsplit(os.environ.get("AWS_ENDPOINT_URL_SQS") or os.environ.get("AWS_ENDPOINT_URL") or url)
    # Taken away, so that nobody uses it beside us.
    kept, _kept = _kept, None
    connection = None if kept is None else kept.connection
    if kept is not None:
        is_old = kept.origin != _origin(place) or time.monotonic() - kept.since >= KEPT_SECONDS
        if is_old or _stirs(kept.connection):
            kept.connection.close()
            connection = None

    def ask(connection: socket.socket) -> str | None:
        try:
            return _asked(connection, place, content, deadline)
        except TimeoutError:
            raise
        except OSError:
            return None  # its end was under way; a message that comes twice does no harm

    # Without a thread, because here each wait has the deadline, unless credentials are to be asked for first.
    if connection is not None and "AWS_ACCESS_KEY_ID" in os.environ:
        answer, connection = ask(connection), None
        if answer is not None:
            return answer
    if _context is None:
        # 30 ms of a whole core that are ours, and not a delay of SQS.
        began = time.monotonic()
        _context = ssl.create_default_context()
        deadline += time.monotonic() - began
    told: list[str | Exception] = [LATE]

    def run() -> None:
        try:
            answer = None if connection is None else ask(connection)
            told[0] = _asked(_connected(place), place, content, deadline) if answer is None else answer
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to
            told[0] = error

    # No resolver takes a deadline, nor does TLS for all its steps together: whoever is late is left behind.
    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(deadline - time.monotonic(), 0))
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]


def _connected(place: SplitResult) -> socket.socket:
    """A new connection. Raises OSError, ValueError where the place is none."""
    if not place.hostname:
        raise ValueError("no host")
    is_secure = place.scheme == "https"
    connection = socket.create_connection((place.hostname, place.port or (443 if is_secure else 80)), DEADLINE)
    if not is_secure:
        return connection
    assert _context is not None
    try:
        return _context.wrap_socket(connection, server_hostname=place.hostname)
    except BaseException:
        connection.close()
        raise


def _asked(connection: socket.socket, place: SplitResult, content: bytes, deadline: float) -> str:
    """What `_sent` says, by this connection, which is kept where it is of use to the next message. Raises OSError.

    Written and read by hand: with http.client, and a thread for each message, one took 0.39 ms of CPU over TLS; now it
    takes 0.10 (2026-11-30).
    """
    global _kept
    try:
        named = headers(place.netloc, content, os.environ, datetime.now(UTC))
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        connection.settimeout(_left(deadline))
        connection.sendall(f"POST / HTTP/1.1\r\n{lines}content-length: {len(content)}\r\n\r\n".encode() + content)
        status, is_of_use = _answer(connection, deadline)
    except BaseException:
        connection.close()
        raise
    if status == "200" and is_of_use:
        _kept = Kept(time.monotonic(), _origin(place), connection)
    else:
        connection.close()
    return "" if status == "200" else f"HTTP {status}"


def _answer(connection: socket.socket, deadline: float) -> tuple[str, bool]:
    """The status of an answer, and whether another may follow it on this connection. Raises OSError."""
    read, head, end, rest = b"", b"", b"", b""
    length: re.Match[bytes] | None = None
    while len(read) < MAX_ANSWER:
        connection.settimeout(_left(deadline))
        part = connection.recv(MAX_ANSWER)
        read += part
        head, end, rest = read.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n") if end else None
        if not part or (end and (length is None or len(rest) >= int(length[1]))):
            break
    status = STATUS.match(head) if end else None
    if status is None:
        raise ConnectionError("no answer")
    is_whole = length is not None and len(rest) == int(length[1])
    return status[1].decode(), is_whole and not IS_LAST.search(head)


def _origin(place: SplitResult) -> str:
    return f"{place.scheme}://{place.netloc}"


def _left(deadline: float) -> float:
    """The seconds that are left. Raises TimeoutError where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _stirs(connection: socket.socket) -> bool:
    """Whether something arrived on a connection that asked for nothing: its end. Costs no round trip."""
    return bool(select.select([connection], [], [], 0)[0])
