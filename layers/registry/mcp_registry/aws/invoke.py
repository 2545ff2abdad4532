"""One question to another function of ours, by a function that somebody waits for.

"Invoke" in the AWS Lambda API Reference, signed here: boto3 takes 275 ms of CPU to load. Loaded by the first question,
not by a cold start that has none.
"""

from __future__ import annotations

import json
import os
import random
import select
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from mcp_registry.aws import signature

SERVICE: Final = "lambda"
MEDIA_TYPE: Final = "application/json"
CONNECT_SECONDS: Final = 2.0
# A cold start of the other function, and the 4.5 s that it gives its database. Ours ends after 10.
ANSWER_SECONDS: Final = 7.0
# A connection that nobody used for so long is not used again: its other end may be gone without a word while we were
# frozen.
KEPT_SECONDS: Final = 20.0
MAX_ANSWER: Final = 0x100000
# While as many run of the other function as may (429): of a herd that starts at once each comes again, at a moment of
# its own.
THROTTLED_SECONDS: Final = 4.0
PAUSE_SECONDS: Final = 0.25


class Unanswered(Exception):
    """The other function did not answer; the message is a status or an exception's class."""


class Kept(NamedTuple):
    """A connection that waits for the next question, since when, and where it leads."""

    since: float
    origin: str
    connection: HTTPConnection


_kept: Kept | None = None
_context: ssl.SSLContext | None = None


def ask(url: str, question: Mapping[str, Any]) -> Any:
    """What the function answers whose Invoke is at this URL. Raises Unanswered where there is no answer.

    A question may be put twice: the connection for the first one may have been at its end.
    """
    content = json.dumps(question, separators=(",", ":")).encode()
    try:
        give_up = time.monotonic() + THROTTLED_SECONDS
        while (told := _answered(url, content))[0] == 429 and time.monotonic() < give_up:
            time.sleep(random.uniform(0, PAUSE_SECONDS))  # noqa: S311 - no secret
        status, fault, answer = told
        if status != 200 or fault:
            raise Unanswered(fault or f"HTTP {status}")
        return json.loads(answer)
    except (OSError, HTTPException, KeyError, ValueError, RecursionError) as error:
        # Without the cause: its message, or the text that could not be read, is nothing for a log.
        raise Unanswered(type(error).__name__) from None


def headers(host: str, path: str, content: bytes, given: Mapping[str, str], moment: datetime) -> dict[str, str]:
    """The headers of the request, signed as of this moment. As `signature.headers`."""
    fields = {"content-type": MEDIA_TYPE, "host": host}
    return signature.headers(SERVICE, path, fields, content, given, moment)


def _answered(url: str, content: bytes) -> tuple[int, str, bytes]:
    """Status, the kind of failure of the function itself (empty: none), and body."""
    global _context, _kept
    path = urlsplit(url).path
    # As boto3: the variables name what stands in for AWS.
    place = urlsplit(os.environ.get("AWS_ENDPOINT_URL_LAMBDA") or os.environ.get("AWS_ENDPOINT_URL") or url)
    origin = f"{place.scheme}://{place.netloc}"
    # Taken away, so that nobody uses it beside us.
    kept, _kept = _kept, None
    if kept is not None:
        if kept.origin == origin and time.monotonic() - kept.since < KEPT_SECONDS and not _stirs(kept.connection):
            try:
                return _asked(kept.connection, origin, place.netloc, path, content)
            except ConnectionError:
                pass  # its end was under way
        kept.connection.close()
    if place.scheme == "https":
        if _context is None:
            _context = ssl.create_default_context()  # 30 ms of a whole core
        connection = HTTPSConnection(place.netloc, timeout=CONNECT_SECONDS, context=_context)
    else:
        connection = HTTPConnection(place.netloc, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
        connection.sock.settimeout(ANSWER_SECONDS)
        return _asked(connection, origin, place.netloc, path, content)
    except BaseException:
        connection.close()
        raise


def _asked(connection: HTTPConnection, origin: str, host: str, path: str, content: bytes) -> tuple[int, str, bytes]:
    """The same on this connection, which is kept where it is of use to the next question."""
    global _kept
    connection.request("POST", path, content, headers(host, path, content, os.environ, datetime.now(UTC)))
    answer = connection.getresponse()
    body = answer.read(MAX_ANSWER)
    if answer.status == 200 and answer.isclosed() and not answer.will_close:
        _kept = Kept(time.monotonic(), origin, connection)
    else:
        connection.close()
    return answer.status, answer.headers.get("x-amz-function-error", ""), body


def _stirs(connection: HTTPConnection) -> bool:
    """Whether something arrived on a connection that asked for nothing: its end. Costs no round trip."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])
