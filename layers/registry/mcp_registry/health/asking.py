"""One question of a pulse, asked: the request as it is sent, and of the answer what its signature needs and no more."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple

from mcp_registry.dial import exchange, reach, urls
from mcp_registry.dial.exchange import Answer, Dialler
from mcp_registry.dial.introduction import (
    GRACE_SECONDS,
    MAX_EXCERPT,
    MAX_WORD,
    NAME,
    SESSION_ID,
    VERSION,
    Evidence,
    Introduction,
    retry_after,
    shown,
)
from mcp_registry.dial.reach import Finding, Site
from mcp_registry.dial.reply import Reply
from mcp_registry.health import pulse
from mcp_registry.health.pulse import NONSENSE, PLAIN, Question, Signature

# Of an answer in words, what evidence shows: enough bytes for 500 characters, whatever they are.
SAMPLE: Final = 2_000
MAX_ASKED: Final = 100
# What messages.Sentence takes.
MAX_SENTENCE: Final = 300
# How a JSON value may begin: what begins otherwise is none, however long it is.
JSON_BEGINNING: Final = frozenset(b'{["-0123456789tfn')
COMMON: Final = f"User-Agent: {NAME}/{VERSION}\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
# Enough of a text to see that it is no word for a service that does not work.
MAX_DOWN: Final = 64
# Who does not answer at a path that cannot exist does not answer as at its health page.
NONSENSE_SECONDS: Final = 2.0
# What `reach.dial` says of an address that swallows packets, where another one is tried.
SILENT: Final = Finding("timeout", None, "No connection within 2 seconds")
# The forms of all questions, with room for the path and the host.
FORMS: Final = {
    question.name: "".join(
        [
            f"{question.method} %s HTTP/1.1\r\nHost: %s\r\n",
            *(f"{name}: {value}\r\n".replace("%", "%%") for name, value in question.headers.items()),
            COMMON,
            f"Content-Length: {len(question.body)}\r\n" if question.body else "",
            "\r\n",
            question.body.decode("ascii").replace("%", "%%"),
        ]
    )
    for question in pulse.BY_NAME.values()
}


class Beat(Answer):
    """The answer to a question: its status and what its signature is made of, 64 KiB at most.

    `media_type` is without parameters and in lower case. `session`: one that it names. `wait`: the seconds of its
    Retry-After.
    """

    __slots__ = ("media_type", "session", "wait")

    def __init__(self) -> None:
        super().__init__()
        self.media_type = ""
        self.session: bytes | None = None
        self.wait: int | None = None

    @property
    def body(self) -> bytes:
        """The body as far as it was read; of a stream, up to the end of the event that answers."""
        if self.status is None or not hasattr(self, "_text"):
            return b""
        return bytes(self._text[: self._line] if self._events else self._text)

    @property
    def signature(self) -> Signature | None:
        """What is compared; None where no answer came."""
        return None if self.status is None else pulse.signature(self.status, self.media_type, self.body)

    @property
    def complaint(self) -> str | None:
        """What a health page calls the service, where that means that it does not work.

        Whatever it says that it is: many that are written by hand say nothing.
        """
        return exchange.down_state(self.body)

    @property
    def is_good(self) -> bool:
        """Whether it is 2xx, and does not say that the service does not work."""
        return self.status is not None and 200 <= self.status < 300 and not self.complaint

    @property
    def is_page(self) -> bool:
        """Whether it is a page for people."""
        return self.media_type in ("text/html", "application/xhtml+xml") or self.body[:1] == b"<"

    def _headers(self, head: bytes | bytearray, start: int, end: int) -> dict[bytes, bytes]:
        headers = super()._headers(head, start, end)
        self.media_type = _media_type(headers.get(b"content-type", b""))
        self.session = headers.get(b"mcp-session-id")
        if b"retry-after" in headers:
            self.wait = retry_after(headers[b"retry-after"].decode("latin-1"))
        return headers

    def _take_text(self, data: bytes) -> None:
        if self._events:
            self._take_lines(data)
            return
        if self._text:
            text = self._text = bytearray(self._text) if isinstance(self._text, bytes) else self._text
            text += data
        else:
            self._text = data.lstrip(exchange.BEFORE_JSON)
        if self._text and self._text[0] not in JSON_BEGINNING and not exchange.may_be_down_word(self._text[:MAX_DOWN]):
            self.done = True

    def _take_line(self, line: bytes) -> None:
        """Take a line of an event: one that looks like a response ends it, and nothing that follows changes that."""
        if line:
            if line[:5] == b"data:":
                self._data.append(line)
        elif self._data:
            data = b"".join(self._data)
            self._data = []
            self.done = b'"jsonrpc"' in data and (b'"result"' in data or b'"error"' in data)


class Heard(NamedTuple):
    """What came of a question: its answer, or why there is none, and which address it was asked at."""

    beat: Beat
    failure: Finding | None
    address: str
    seconds: float


async def ask(
    dialler: Dialler, site: Site, addresses: tuple[str, ...], question: Question, path: str | None = None
) -> Heard:
    """Ask a question at a site, or at another path of it. Redirects within the origin are followed.

    Waits for as long as it takes: the deadline is the caller's. A session that was opened for it is not deleted here.
    """
    began = time.monotonic()
    asked = path or site.path
    form = FORMS[question.name]
    beat = Beat()
    failure, address = await reach.dial(
        dialler, site, addresses, (form % (asked, site.authority)).encode(), beat, SILENT
    )
    seen = {asked}
    while failure is None and beat.status in reach.REDIRECTS and len(seen) <= reach.MAX_REDIRECTS:
        onward = reach.redirected(site, asked, beat.location)
        if onward is None or onward in seen:
            break  # who leads in a circle leads nowhere, however often that is asked
        seen.add(onward)
        asked, beat = onward, Beat()
        request = (form % (asked, site.authority)).encode()
        failure, address = await reach.dial(dialler, site, (address,), request, beat, SILENT)
    if failure is None and beat.fault == exchange.CLOSED:
        failure = reach.CLOSED
    return Heard(beat, failure, address, time.monotonic() - began)


async def plain(dialler: Dialler, site: Site, addresses: tuple[str, ...]) -> Heard | None:
    """What a plain HTTP service says of its health below its address; None where nothing there says that it works.

    A page for people says nothing, nor does what is answered in the same way at a path that cannot exist.
    """
    heard = await ask(dialler, site, addresses, PLAIN, path_of(PLAIN, site))
    if not says_well(heard):
        return None
    nonsense: Heard | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(NONSENSE_SECONDS):
            nonsense = await ask(dialler, site, (heard.address,), PLAIN, path_of(PLAIN, site, nonsense=True))
    return None if is_alike(heard, nonsense) else heard


def says_well(heard: Heard) -> bool:
    """Whether a health page says that its service works, if it says anything: a page for people never does."""
    return heard.failure is None and heard.beat.is_good and not heard.beat.is_page


def is_alike(heard: Heard, nonsense: Heard | None) -> bool:
    """Whether a path that cannot exist answers as a health page does, so that the page tells of no service."""
    return nonsense is not None and nonsense.beat.signature == heard.beat.signature


def complaint(heard: Heard) -> Finding | None:
    """What a declared health URL has against its server: it answers 5xx, or calls it down."""
    status, state = heard.beat.status, heard.beat.complaint
    if heard.failure is not None or status is None:
        return None
    if state:
        return Finding("http_error", status, f"The health URL answered {status} and calls the server {state}")
    return Finding("http_error", status, f"The health URL answered {status}") if status >= 500 else None


def judged(found: Introduction) -> Finding:
    """What a check finds by an introduction."""
    verdict = {"up": "healthy", "down": found.cause}.get(found.verdict or "", found.verdict)
    if verdict in ("healthy", "gated") or found.reason is None:
        return Finding(verdict, found.status_code)
    # What a server has named in it may be of any letters.
    sentence = found.reason.encode("ascii", "backslashreplace").decode()[:MAX_SENTENCE]
    return Finding(verdict, found.status_code, sentence)


def evidence(question: Question, url: str, heard: Heard) -> Evidence:
    """A question to a URL and its answer, to be kept where it changes a verdict."""
    asked = f"GET {url}"[:MAX_ASKED] if question.method == "GET" else question.name
    beat = heard.beat
    excerpt = shown(beat.body[:SAMPLE].decode("utf-8", "replace")[:MAX_EXCERPT])[:MAX_EXCERPT]
    media_type = shown(beat.media_type)[:MAX_WORD] or None
    return Evidence(asked, beat.status, media_type, excerpt, round(heard.seconds * 1000))


async def leave(dialler: Dialler, site: Site, heard: Heard) -> None:
    """Delete the session that a question has opened, where it has. What is answered to that changes nothing."""
    session = (heard.beat.session or b"").decode("latin-1")
    opened = heard.beat.status is not None and 200 <= heard.beat.status < 300
    if not opened or not SESSION_ID.fullmatch(session):
        return
    head = f"DELETE {site.path} HTTP/1.1\r\nHost: {site.authority}\r\nMcp-Session-Id: {session}\r\n{COMMON}\r\n"
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await reach.dial(dialler, site, (heard.address,), head.encode("ascii"), Reply(None, exchange.LIMIT), SILENT)


def url_of(question: Question, url: str, health_url: str | None) -> str:
    """Where a question is asked of an endpoint: there, at its health URL, or at the path below it for its health."""
    if question.declared and health_url is not None:
        return urls.origin(url) + health_url if health_url.startswith("/") else health_url
    return url


def path_of(question: Question, site: Site, *, nonsense: bool = False) -> str:
    """The path at which a question is asked of a site; `nonsense`: one beside it that cannot exist."""
    if question is PLAIN:
        return below(site, NONSENSE if nonsense else pulse.HEALTH)
    return beside(site) if nonsense else site.path


def below(site: Site, name: str) -> str:
    """A path below that of a site."""
    return f"{site.path.partition('?')[0].rstrip('/')}/{name}"


def beside(site: Site) -> str:
    """A path beside that of a site which cannot exist."""
    return f"{site.path.partition('?')[0].rstrip('/').rpartition('/')[0]}/{NONSENSE}"


@lru_cache(maxsize=256)
def _media_type(value: bytes) -> str:
    return value.partition(b";")[0].strip().lower().decode("latin-1")
