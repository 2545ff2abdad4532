"""One message to SQS from a function that somebody waits for: soon, or not at all.

What sends in the background uses boto3 (`queues`), which takes 275 ms of CPU to load. Here one request is signed and
sent: "SendMessage" in the Amazon SQS API Reference, by its JSON protocol. Loaded by the first message, not by a cold
start that sends none.
"""

from __future__ import annotations

import json
import os
import select
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Thread
from typing import Final, NamedTuple
from urllib.parse import urlsplit

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


class Kept(NamedTuple):
    """A connection that waits for the next message, since when, and where it leads."""

    since: float
    origin: str
    connection: HTTPConnection


_kept: Kept | None = None
_context: ssl.SSLContext | None = None


def send(url: str, body: str) -> bool:
    """Send a message to the queue of this URL, and wait for 300 ms at most; whether SQS has taken it by then.

    Never raises: what went wrong is one line in the log. A message that was not taken in time may be delivered all the
    same, and one that was may be delivered twice.
    """
    global _context
    told = [LATE]

    def run() -> None:
        try:
            told[0] = _sent(url, body)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to
            told[0] = type(error).__name__

    try:
        if _context is None:
            # 30 ms of a whole core that are ours, and not a delay of SQS.
            _context = ssl.create_default_context()
        # No resolver takes a deadline, nor does TLS for all its steps together: whoever is late is left behind.
        thread = Thread(target=run, daemon=True)
        thread.start()
        thread.join(DEADLINE)
        fault = told[0]
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


def _sent(url: str, body: str) -> str:
    """What SQS has against the message; empty where it has taken it. Raises OSError, HTTPException, KeyError."""
    global _kept
    content = json.dumps({"QueueUrl": url, "MessageBody": body}, separators=(",", ":")).encode()
    # As boto3: the variables name what stands in for AWS.
    place = urlsplit(os.environ.get("AWS_ENDPOINT_URL_SQS") or os.environ.get("AWS_ENDPOINT_URL") or url)
    origin = f"{place.scheme}://{place.netloc}"
    # Taken away, so that nobody uses it beside us.
    kept, _kept = _kept, None
    if kept is not None:
        if kept.origin == origin and time.monotonic() - kept.since < KEPT_SECONDS and not _stirs(kept.connection):
            try:
                return _asked(kept.connection, origin, place.netloc, content)
            except (OSError, HTTPException):
                pass  # its end was under way; a message that comes twice does no harm
        kept.connection.close()
    if place.scheme == "https":
        connection = HTTPSConnection(place.netloc, timeout=DEADLINE, context=_context)
    else:
        connection = HTTPConnection(place.netloc, timeout=DEADLINE)
    try:
        return _asked(connection, origin, place.netloc, content)
    except BaseException:
        connection.close()
        raise


def _asked(connection: HTTPConnection, origin: str, host: str, content: bytes) -> str:
    """The same on this connection, which is kept where it is of use to the next message."""
    global _kept
    connection.request("POST", "/", content, headers(host, content, os.environ, datetime.now(UTC)))
    answer = connection.getresponse()
    answer.read(MAX_ANSWER)
    if answer.status == 200 and answer.isclosed() and not answer.will_close:
        _kept = Kept(time.monotonic(), origin, connection)
    else:
        connection.close()
    return "" if answer.status == 200 else f"HTTP {answer.status}"


def _stirs(connection: HTTPConnection) -> bool:
    """Whether something arrived on a connection that asked for nothing: its end. Costs no round trip."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])
