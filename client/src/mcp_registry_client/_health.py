"""What the registry would see of a server at its first look, from here and without credentials.

A declared health URL decides alone. Otherwise a stock client's handshake does: the server is up where one can begin and
list its tools. Where nobody can begin, a plain HTTP service may still have its health below its address. The rules are
those of the registry's `dial.introduction` and `health.probe`, word for word where something is said. A test asks both
about the same servers; who changes one side changes the other.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, cast

from mcp_registry_client import _handshake, _transport, _urls
from mcp_registry_client._answer import Answer, Closed, NotHttp, Room, TooLong
from mcp_registry_client._fault import NO_TLS, Failed, Kind
from mcp_registry_client._handshake import NAME, VERSION, Evidence, Handshake, Refusal, Reply
from mcp_registry_client._json import mapping, parsed, strings
from mcp_registry_client._transport import Deadline

# What a first look may take, and what it takes to read a health page.
SECONDS: Final = 20.0
PAGE_SECONDS: Final = 5.0
# What an address that swallows packets may take of that, where there is another one to try.
CONNECT_SECONDS: Final = 2.0
# All that is read of a health page: head, body, and what a compressed body grows to. Of a handshake: all answers.
LIMIT: Final = 0x10000
MAX_BYTES: Final = 4 << 20
# What finding out how one gets in may take.
GATE_SECONDS: Final = 5.0

GATED: Final = frozenset((401, 403))
JSON: Final = _handshake.JSON
# A path that cannot exist: what is answered there is answered to anything, and tells of no server.
NONSENSE: Final = "b5c1-no-such-path-9e7d"
UP: Final = frozenset(("healthy", "gated", "limited"))
# What an introduction may find of a plain HTTP service.
PLAIN_MAY_SAY: Final = frozenset(("http_error", "mcp_error", "not_mcp", "timeout"))
LIMITS: Final = "The server limits how often it may be asked (429)"
# How a JSON value may begin: what begins otherwise is none, however long it is.
JSON_BEGINNING: Final = b'{["-0123456789tfn'

# What a health page calls a service that does not work, in whatever case and with hyphens or low lines for blanks:
# Spring Boot Actuator's Status, the values of "fail" in draft-inadarei-api-health-check, section 3.1, and what ASP.NET,
# Consul and people write by hand.
DOWN: Final = frozenset(
    (
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
    )
)
# Which names in a page have such a word, or an object in which one of these has; and which are false where it is ill.
STATES: Final = frozenset(("status", "state", "health"))
STATES_WITHIN: Final = frozenset(("status", "code"))
FLAGS: Final = frozenset(("healthy", "ok"))
HYPHENS: Final = str.maketrans("_-", "  ")
# Enough of a text to see that it is no such word.
MAX_DOWN: Final = 64
# Beyond this the shape of a page is not compared.
MAX_DEPTH: Final = 3
MAX_WORD: Final = 200
MAX_WORDS: Final = 64
MAX_ASKED: Final = 100
# How a text names the header that it wants.
HEADER_NAME: Final = re.compile(
    r"(?<![\w-])(Authorization|X-[A-Za-z0-9-]{2,60}|(?:[A-Za-z0-9]+-){1,4}(?:Key|Token|Secret|Auth))(?![\w-])",
    re.IGNORECASE,
)
PARAMETER: Final = re.compile(r'([\w*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*)')
SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,40}")

# OpenSSL's X509_V_ERR_* (x509_vfy.h), in words.
CERTIFICATE_FAULTS: Final = {
    9: "The certificate is not valid yet",
    10: "The certificate has expired",
    18: "The certificate is self-signed",
    19: "The certificate's issuer is not known",
    20: "The certificate's issuer is not known",
    21: "The certificate's issuer is not known",
    23: "The certificate was revoked",
    62: "The certificate is for another host name",
    64: "The certificate is for another address",
}
# No route from here: the registry calls that its own fault and judges nothing. Whoever checks by hand is told.
NO_ROUTE: Final = frozenset((errno.ENETUNREACH, errno.ENETDOWN, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))
UNREACHED: Final = frozenset((errno.EHOSTUNREACH, errno.EHOSTDOWN))


class Gate(NamedTuple):
    """How one gets in, as far as the server says it.

    `schemes` and `realm` of its challenge; `resource_metadata` is the URL of its OAuth metadata (RFC 9728), `issuer`
    and `scopes` what stands there; `header` is one that its answer names, `location` the page on which to log in.
    """

    status: int
    schemes: Sequence[str] = ()
    realm: str | None = None
    resource_metadata: str | None = None
    issuer: str | None = None
    scopes: Sequence[str] = ()
    header: str | None = None
    location: str | None = None


class Sight(NamedTuple):
    """What a look at a server finds, in the words of the registry.

    `verdict`: healthy, gated, limited, not_mcp, mcp_error, http_error, timeout, refused, dns, tls or blocked.
    `response_time_ms` counts from the dial. `address` is the one that was dialled last; None where it came to none.
    `auth`: how one gets into a gated server. `evidence`: the answers that were of no use, of one that is not up.
    """

    verdict: str
    status_code: int | None
    response_time_ms: int
    error_message: str | None
    address: str | None
    auth: Gate | None = None
    evidence: Sequence[Evidence] = ()


class Finding(NamedTuple):
    """What a look came to: the first fields of a sight."""

    verdict: str
    status: int | None = None
    error: str | None = None
    auth: Gate | None = None


NO_NAME: Final = Finding("dns", None, "The host name does not resolve")
REFUSED: Final = Finding("refused", None, "Nothing listens there: the connection was refused")
UNREACHABLE: Final = Finding("refused", None, "The host cannot be reached")
OWN_NETWORK: Final = Finding("refused", None, "This machine has no route to the server's address")
CLOSED: Final = Finding("refused", None, "The connection was closed before an answer came")
NOT_HTTP: Final = Finding("not_mcp", None, "What answers there is not HTTP")
HTTP_2: Final = Finding("not_mcp", None, "What answers there is HTTP/2 only, which few clients speak")
LONG_HEAD: Final = Finding("not_mcp", None, "The headers of the answer are longer than 64 KiB")


def check(url: str, *, health_url: str | None = None, deadline_seconds: float = SECONDS) -> Sight:
    """What the registry would see of a server from here at its first look. Raises Failed where a URL is none."""
    if fault := _urls.endpoint_fault(url) or (health_url and _urls.health_fault(health_url, url)):
        raise Failed("url", fault)
    declared: Finding | None = None
    noted: list[Evidence] = []
    if health_url:
        page_url = _urls.origin(url) + health_url if health_url[0] == "/" else health_url
        if fault := _urls.port_fault(page_url):
            return Sight("blocked", None, 0, fault, None)
        look = _Look(page_url, min(deadline_seconds, PAGE_SECONDS))
        declared, decides = look.find_health()
        if declared is not None and decides:
            return look.sight(declared)
        noted = look.evidence
    if fault := _urls.port_fault(url):
        return Sight("blocked", None, 0, fault, None)
    look = _Look(url, deadline_seconds)
    finding = look.find_mcp(plain=health_url is None)
    look.evidence = [*noted, *look.evidence]
    # Of a plain service that declares where its health is, that says more than that it speaks no MCP.
    return look.sight(finding if declared is None or finding.verdict in UP else declared)


def is_public(address: str) -> bool:
    """Whether an address is one that a registry in another network may reach."""
    return ip_address(address.partition("%")[0]).is_global


class _Look:
    """A look under way: where it goes, what is left of its time and bytes, and what it was answered."""

    def __init__(self, url: str, seconds: float) -> None:
        self.dialled: float | None = None
        self.address: str | None = None
        self.evidence: list[Evidence] = []
        self._url = url
        self._began = time.monotonic()
        self._deadline = Deadline(seconds)
        self._room, self._unpacked = Room(MAX_BYTES), Room(MAX_BYTES)
        self._addresses: list[tuple[int, Any]] = []
        # As the owner wrote it, without the port that the scheme implies.
        secure = _urls.is_secure(url)
        self._authority = url.split("/", 3)[2].partition("?")[0].removesuffix(":443" if secure else ":80")

    def sight(self, finding: Finding) -> Sight:
        """A finding with what else was seen."""
        took = round((time.monotonic() - (self.dialled or self._began)) * 1000)
        evidence = () if finding.verdict == "healthy" else tuple(self.evidence)
        return Sight(finding.verdict, finding.status, took, finding.error, self.address, finding.auth, evidence)

    def find_health(self) -> tuple[Finding | None, bool]:
        """What the health URL that a server declares says, and whether that decides; None where it says nothing.

        It does where it is well, fails, or calls the server down. Another answer, such as 404, only counts where nobody
        can begin at the server's own address. A page for people says nothing, nor does what is answered in the same way
        at a path that cannot exist.
        """
        began = time.monotonic()
        try:
            path = _urls.path(self._url)
            page = self._page(path, self._deadline)
        except Failed:
            self._note(Reply(), began)
            return None, False
        self._note(page, began)
        status, state = page.status or 0, down_state(page.text)
        if state:
            told = f"The health URL answered {status} and calls the server {state}"
            return Finding("http_error", status, told), True
        if not 200 <= status < 300:
            return Finding("http_error", status, f"The health URL answered {status}"), status >= 500
        beside = f"{path.partition('?')[0].rstrip('/').rpartition('/')[0]}/{NONSENSE}"
        tells = not _is_for_people(page) and not self._is_alike(page, beside, Deadline(PAGE_SECONDS))
        return (Finding("healthy", status), True) if tells else (None, False)

    def find_mcp(self, *, plain: bool) -> Finding:
        """Judge an MCP endpoint; `plain`: or a plain HTTP service that has its health below it."""
        handshake = Handshake(self._url, self.open, self._deadline, MAX_BYTES, strict=True)
        try:
            begun = handshake.find()
        finally:
            self._room = self._unpacked = Room(LIMIT)
            handshake.leave()
        self.evidence = handshake.evidence
        if begun is not None:
            return Finding("healthy", 200)
        finding = self._judged(handshake.refusals)
        well = self._plain() if plain and finding.verdict in PLAIN_MAY_SAY else None
        return well or finding

    # ------------------------------------------------------------------ what came of it

    def _judged(self, refusals: Sequence[Refusal]) -> Finding:
        """The verdict where no way to begin worked."""
        if any(refusal.status == 429 for refusal in refusals):
            return Finding("limited", 429, LIMITS)
        for refusal in refusals:
            if refusal.reply is not None and _handshake.is_gated(refusal.reply, begun=refusal.begun is not None):
                gate = self._gate(refusal.reply)
                return Finding("gated", gate.status, None, gate)
        told = [refusal for refusal in refusals if refusal.reason]
        # The last that nobody could be reached for ends it all; else what came furthest, and else what came first.
        worst = next((one for one in told if one.lost), None)
        worst = worst or next((one for one in told if one.begun), None) or told[0]
        return Finding(worst.cause or "mcp_error", worst.status, worst.reason)

    def _plain(self) -> Finding | None:
        """What a plain HTTP service says of its health below its address; None where nothing there says that it works.

        A page for people says nothing, nor does what is answered in the same way at a path that cannot exist.
        """
        base = _urls.path(self._url).partition("?")[0].rstrip("/")
        deadline = Deadline(PAGE_SECONDS)
        try:
            page = self._page(f"{base}/health", deadline)
            status = page.status or 0
            if not 200 <= status < 300 or down_state(page.text) or _is_for_people(page):
                return None
        except Failed:
            return None
        return None if self._is_alike(page, f"{base}/{NONSENSE}", deadline) else Finding("healthy", status)

    def _is_alike(self, page: Reply, path: str, deadline: Deadline) -> bool:
        """Whether a path that cannot exist answers as a health page does; one that does not answer at all does not."""
        try:
            return _shape_of(self._page(path, deadline)) == _shape_of(page)
        except Failed:
            return False

    def _gate(self, reply: Reply) -> Gate:
        """How one gets in, as the answer says it, and the metadata behind it."""
        schemes, parameters = _challenges(reply.header("www-authenticate"))
        named = HEADER_NAME.search(parameters.get("header", "")) or HEADER_NAME.search(
            reply.sample.decode("utf-8", "replace")
        )
        status = reply.status or 0
        gate = Gate(
            status,
            schemes,
            _word(parameters.get("realm")),
            header=named[1] if named else None,
            scopes=_words(parameters.get("scope", "").split()),
            location=_word(reply.header("location")) if 300 <= status < 400 else None,
        )
        if status not in GATED or not {scheme.lower() for scheme in schemes} <= {"bearer", "dpop"}:
            return gate
        given = parameters.get("resource_metadata")
        known = f"{_urls.origin(self._url)}/.well-known/oauth-protected-resource"
        deadline = Deadline(GATE_SECONDS)
        for url in [given] if given else [known + _urls.path(self._url).rstrip("/"), known]:
            document = self._document(url, deadline)
            servers = strings(document.get("authorization_servers"))
            if document:
                return gate._replace(
                    resource_metadata=_word(url),
                    issuer=_word(servers[0]) if servers else None,
                    scopes=gate.scopes or _words(strings(document.get("scopes_supported"))),
                )
        return gate._replace(resource_metadata=_word(given))

    def _document(self, url: str, deadline: Deadline) -> dict[str, Any]:
        """A JSON document; empty where there is none.

        From the server's own host, or over https: what a stranger names is no way into the network of who checks.
        """
        if _urls.link_fault(url) or _urls.port_fault(url):
            return {}
        if _urls.host(url) != _urls.host(self._url) and not _urls.is_secure(url):
            return {}
        try:
            sent = {"User-Agent": f"{NAME}/{VERSION}"}
            found = _transport.request("GET", url, headers=sent, deadline_seconds=deadline.left())
        except _transport.Failed:
            return {}
        return mapping(parsed(found.body, strict=False)) if found.status == 200 else {}

    # ------------------------------------------------------------------ one request

    def _page(self, path: str, deadline: Deadline) -> Reply:
        """The answer to a GET, redirects within the origin followed. Raises Failed."""
        page = self._got(path, deadline)
        seen = {path}
        for _ in range(_handshake.MAX_REDIRECTS):
            led = _handshake.onward(self._url, path, page.header("location"))
            if page.status not in _handshake.REDIRECTS or led is None or led in seen:
                break
            path = led
            seen.add(led)
            page = self._got(path, deadline)
        return page

    def _got(self, path: str, deadline: Deadline) -> Reply:
        """The answer to a GET, of which a body that is no JSON may be long, or never end."""
        self._room, self._unpacked = Room(LIMIT), Room(LIMIT)
        page = Reply()
        with self.open("GET", path, {"Accept": "*/*"}, b"", deadline) as answer:
            page.begin(answer)
            page.take(answer, None, _may_matter)
        return page

    def _note(self, page: Reply, began: float) -> None:
        took = round((time.monotonic() - began) * 1000)
        asked = f"GET {self._url}"[:MAX_ASKED]
        self.evidence.append(Evidence(asked, page.status, page.media_type or None, page.excerpt, took))

    @contextmanager
    def open(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, deadline: Deadline
    ) -> Generator[Answer]:
        """Send a request to the first address that takes it; the answer, whose body is still to be read.

        Raises Failed, whose kind is a verdict.
        """
        sent = {
            "Accept-Encoding": "identity",
            "Connection": "close",
            "Accept": f"{JSON}, {_handshake.EVENTS}",
            **headers,
        }
        if body:
            sent |= {"Content-Type": JSON, "Content-Length": str(len(body))}
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._authority}",
            f"User-Agent: {NAME}/{VERSION}",
            *(f"{name}: {value}" for name, value in sent.items()),
        ]
        request = "\r\n".join([*lines, "", ""]).encode("ascii") + body
        try:
            self._addresses = self._addresses or self._looked_up(deadline)
            with self._connected(deadline) as sock:

                def receive(most: int) -> bytes:
                    sock.settimeout(deadline.left())
                    return sock.recv(most)

                try:
                    sock.settimeout(deadline.left())
                    sock.sendall(request)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it may have answered before it had read everything
                yield Answer(receive, self._room, self._unpacked)
        except (TimeoutError, _transport.Failed):
            raise _failed(_too_late(deadline)) from None
        except NotHttp as error:
            raise _failed(HTTP_2 if _handshake.HTTP_2.match(error.beginning) else NOT_HTTP) from None
        except TooLong:
            raise _failed(LONG_HEAD) from None
        except Closed:
            raise _failed(CLOSED) from None
        except ssl.SSLError as error:
            raise _failed(_tls_finding(error)) from None
        except OSError as error:
            raise _failed(_connection_finding(error)) from None

    def _looked_up(self, deadline: Deadline) -> list[tuple[int, Any]]:
        """The addresses that are dialled, at most two: of each family one, where there are both, IPv4 first."""
        name, port = _urls.host(self._url), _urls.port(self._url)
        if name.rpartition(".")[2] == "localhost":  # RFC 6761, section 6.3: no resolver is asked
            return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        try:
            found = _transport._resolved(name, port, deadline)
        except _transport.Failed as failed:
            late = f"The host name did not resolve within {deadline.seconds:g} seconds"
            raise _failed(Finding("dns", None, late) if failed.kind == "timeout" else NO_NAME) from None
        first = next((one for one in found if one[0] == socket.AF_INET), None)
        second = next((one for one in found if one[0] == socket.AF_INET6), None)
        return found[:2] if first is None or second is None else [first, second]

    def _connected(self, deadline: Deadline) -> socket.socket:
        """A connection, under TLS where that is wanted. What is asked next goes to the same address."""
        failure: Finding = NO_NAME
        for place, (family, address) in enumerate(self._addresses):
            self.dialled = self.dialled or time.monotonic()
            self.address = str(address[0])
            is_last = place == len(self._addresses) - 1
            left = deadline.left()
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.settimeout(left if is_last else min(left, CONNECT_SECONDS))
                sock.connect(address)
                if _urls.is_secure(self._url):
                    sock = _transport.secured(sock, _urls.host(self._url), deadline)
            except BaseException as error:
                if sock is not None:
                    sock.close()
                if isinstance(error, TimeoutError):
                    failure = _too_late(deadline)
                elif isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                    failure = _connection_finding(error)
                    if failure not in (REFUSED, UNREACHABLE, OWN_NETWORK):
                        raise
                else:
                    raise
            else:
                self._addresses = [(family, address)]
                return sock
        raise _failed(failure)


def _failed(finding: Finding) -> Failed:
    failed = Failed(cast("Kind", finding.verdict), finding.error or "")
    # Whoever closes one connection may answer on another.
    failed.lost = failed.lost and finding is not CLOSED
    return failed


def _too_late(deadline: Deadline) -> Finding:
    return Finding("timeout", None, f"No answer{deadline.words}")


def _connection_finding(error: OSError) -> Finding:
    if error.errno == errno.ECONNREFUSED:
        return REFUSED
    if error.errno in NO_ROUTE:
        return OWN_NETWORK
    return UNREACHABLE if error.errno in UNREACHED else CLOSED


def _tls_finding(error: ssl.SSLError) -> Finding:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Finding("tls", None, CERTIFICATE_FAULTS.get(error.verify_code, "The certificate is not valid"))
    if isinstance(error, ssl.SSLEOFError):
        return CLOSED
    if error.reason in NO_TLS:
        return Finding("tls", None, "What answers there is not TLS")
    if "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return Finding("tls", None, "The server asks for a certificate of its clients")
    return Finding("tls", None, "No secure connection could be agreed on")


# ------------------------------------------------------------------ what an answer says


def _challenges(header: str) -> tuple[Sequence[str], dict[str, str]]:
    """The schemes of a WWW-Authenticate header (RFC 9110, section 11.6.1), and the first of each of its parameters."""
    found: dict[str, str] = {}
    for name, value in PARAMETER.findall(header):
        text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        found.setdefault(name.lower(), text)
    schemes = SCHEME.findall(PARAMETER.sub(" ", header))
    return tuple(dict.fromkeys(schemes))[:MAX_WORDS], found


def _word(value: str | None) -> str | None:
    return value[:MAX_WORD] if value else None


def _words(values: Sequence[str]) -> Sequence[str]:
    return tuple(value[:MAX_WORD] for value in values[:MAX_WORDS])


def _is_for_people(page: Reply) -> bool:
    return page.media_type in ("text/html", "application/xhtml+xml") or page.text.startswith(b"<")


def down_state(text: bytes | bytearray) -> str | None:
    """What a health page calls its service, where that means that it does not work: a word of DOWN, or "not healthy".

    Whatever the page says that it is: many that are written by hand say nothing. It says so by its status or by a flag,
    where it is a JSON object, or by being nothing but the word.
    """
    value = parsed(bytes(text), strict=False)
    if not isinstance(value, dict):
        return _down_word(text.decode("utf-8-sig", "replace") if value is None else value)
    for name, found in mapping(value).items():
        key = name.lower()
        if key in FLAGS and found is False:
            return f"not {key}"
        if key in STATES and isinstance(found, dict):
            words = [_down_word(one) for part, one in mapping(found).items() if part.lower() in STATES_WITHIN]
        else:
            words = [_down_word(found)] if key in STATES else []
        for word in words:
            if word is not None:
                return word
    return None


def _may_matter(text: bytearray) -> bool:
    """Whether what still comes of a page can change what it says: it is JSON, or may become a word of DOWN."""
    if text[0] in JSON_BEGINNING:
        return True
    beginning = _spelt(text[:MAX_DOWN].decode("latin-1"))
    return any(word.startswith(beginning) for word in DOWN)


def _down_word(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) and _spelt(value) in DOWN else None


def _spelt(word: str) -> str:
    word = word.strip()
    # Some letters that are none of ASCII have a small one that is.
    return word.lower().translate(HYPHENS) if word.isascii() else word


def _shape_of(page: Reply) -> tuple[int | None, str, str]:
    """A page without its values: status, media type, and of JSON which names and kinds it has."""
    value = parsed(bytes(page.text), strict=False)
    return page.status, page.media_type, "" if value is None else _shape(value, 0)


def _shape(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        if depth == MAX_DEPTH:
            return "{}"
        found = mapping(value)
        return f"{{{','.join(f'{json.dumps(key)}:{_shape(found[key], depth + 1)}' for key in sorted(found))}}}"
    # How many there are of something, and which, is a value.
    return "[]" if isinstance(value, list) else "null" if value is None else type(value).__name__
