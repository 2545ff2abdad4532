"""What the registry's health check would see of a server, from here: one request, without credentials.

The rules are those of the registry's `health.probe` and `health.exchange`, byte for byte where something is sent and
word for word where something is said. A test asks both about the same servers; who changes one side changes the other.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urljoin

from mcp_registry_client import _transport, _urls
from mcp_registry_client._answer import Answer, Closed, Lines, NotHttp, Room, TooLong
from mcp_registry_client._fault import NO_TLS, Failed
from mcp_registry_client._transport import Deadline

# What a health check may take: look-up, connection, TLS and each of its requests together.
SECONDS: Final = 5.0
# What an address that swallows packets may take of that, where there is another one to try.
CONNECT_SECONDS: Final = 2.0
# All that is read of one answer: head, body, and what a compressed body grows to.
LIMIT: Final = 0x10000

NAME, VERSION = "mcp-registry", "1.0"
PROTOCOL_VERSION: Final = "2026-07-28"
DISCOVER: Final = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
                "io.modelcontextprotocol/clientInfo": {"name": NAME, "version": VERSION},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        },
    },
    separators=(",", ":"),
)
COMMON: Final = f"User-Agent: {NAME}/{VERSION}\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
POST: Final = (
    "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    f"MCP-Protocol-Version: {PROTOCOL_VERSION}\r\nMcp-Method: server/discover\r\n"
    # A session that nobody has: without it, servers of the SDK for Python before 1.30 open one and keep it for good.
    f"Mcp-Session-Id: {NAME}-check\r\n{COMMON}"
    f"Content-Length: {len(DISCOVER)}\r\n\r\n{DISCOVER}"
)
GET: Final = f"GET %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n{COMMON}\r\n"
GATED: Final = frozenset((401, 403))
REDIRECTS: Final = frozenset((307, 308))
BODILESS: Final = frozenset((204, 205))

# White space, and the bytes of a byte order mark, which some servers on Windows put before their JSON.
BEFORE_JSON: Final = b" \t\r\n\xef\xbb\xbf"
# A JSON-RPC response that is longer than is read: how it begins is enough.
BEGINNING: Final = re.compile(
    rb'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*|"id"\s*:\s*(?:"[^"\\]*"|-?[0-9.]+|null)\s*,\s*)*"(?:result|error)"\s*:\s*\{'
)
# How a server says in plain words that it does not know our session, or our version of the protocol.
REFUSAL: Final = re.compile(
    rb"session[ -]?id|session not found|invalid session|protocol version|unexpected message, expect", re.IGNORECASE
)
MAX_REFUSAL: Final = 512
# What a health page calls a service that does not work, in whatever case: Spring Boot Actuator's Status, and the values
# of "fail" in draft-inadarei-api-health-check, section 3.1.
DOWN: Final = frozenset(("down", "out_of_service", "fail", "error"))

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


class Sight(NamedTuple):
    """What a health check sees, in the words of the registry.

    `verdict`: healthy, gated, not_mcp, http_error, timeout, refused, dns, tls or blocked. `response_time_ms` counts
    from the dial. `address` is the one that was dialled last; None where it came to none.
    """

    verdict: str
    status_code: int | None
    response_time_ms: int
    error_message: str | None
    address: str | None


class Finding(NamedTuple):
    """What a check came to: the first fields of a sight."""

    verdict: str
    status: int | None = None
    error: str | None = None


NO_NAME: Final = Finding("dns", None, "The host name does not resolve")
REFUSED: Final = Finding("refused", None, "Nothing listens there: the connection was refused")
UNREACHABLE: Final = Finding("refused", None, "The host cannot be reached")
OWN_NETWORK: Final = Finding("refused", None, "This machine has no route to the server's address")
CLOSED: Final = Finding("refused", None, "The connection was closed before an answer came")


def check(url: str, *, health_url: str | None = None, deadline_seconds: float = SECONDS) -> Sight:
    """What the registry's health check would see of a server from here. Raises Failed where a URL is none."""
    if fault := _urls.endpoint_fault(url) or (health_url and _urls.health_fault(health_url, url)):
        raise Failed("url", fault)
    target = url if not health_url else _urls.origin(url) + health_url if health_url[0] == "/" else health_url
    if fault := _urls.port_fault(target):
        return Sight("blocked", None, 0, fault, None)
    under_way = _Check(target, deadline_seconds)
    began = time.monotonic()
    try:
        finding = under_way.find_health() if health_url else under_way.find_mcp()
    except _Unanswered as unanswered:
        finding = unanswered.finding
    took = time.monotonic() - (under_way.dialled or began)
    return Sight(finding.verdict, finding.status, round(took * 1000), finding.error, under_way.address)


def is_public(address: str) -> bool:
    """Whether an address is one that a registry in another network may reach."""
    return ip_address(address.partition("%")[0]).is_global


class _Unanswered(Exception):
    """What kept an answer from coming."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)
        self.finding = finding


class _Head(NamedTuple):
    """What a verdict needs of an answer. `status` is None where what came is none, and `fault` then says why."""

    status: int | None
    location: str = ""
    speaks: bool = False
    fault: str | None = None
    state: str | None = None


class _Check:
    """A check under way: where it goes, what is left of its time, and whether it was led on already."""

    def __init__(self, url: str, seconds: float) -> None:
        self.dialled: float | None = None
        self.address: str | None = None
        self._url = url
        self._seconds = seconds
        self._deadline = Deadline(seconds)
        self._redirected = False
        self._addresses: list[tuple[int, Any]] = []
        # As the owner wrote it, without the port that the scheme implies.
        secure = _urls.is_secure(url)
        self._authority = url.split("/", 3)[2].partition("?")[0].removesuffix(":443" if secure else ":80")
        self._origin = f"{'https' if secure else 'http'}://{self._authority}"

    def find_health(self) -> Finding:
        """Judge the health URL that a server declares, by status and by what it says in JSON. Raises _Unanswered."""
        found = self._exchange(GET, _urls.path(self._url))
        if found.status is None:
            return Finding("http_error", None, found.fault)
        if found.state:
            told = f"The health URL answered {found.status} and calls the server {found.state}"
            return Finding("http_error", found.status, told)
        if 200 <= found.status < 300:
            return Finding("healthy", found.status)
        return Finding("http_error", found.status, f"The health URL answered {found.status}")

    def find_mcp(self) -> Finding:
        """Judge an MCP endpoint, or a plain HTTP service that has its health below it. Raises _Unanswered."""
        path = _urls.path(self._url)
        found = self._exchange(POST, path)
        status = found.status
        if status is None:
            return Finding("not_mcp", None, found.fault)
        if found.speaks:
            return Finding("healthy", status)
        if status in GATED:
            return Finding("gated", status)
        if status == 429 or 500 <= status < 600:
            finding = Finding("http_error", status, f"The server answered {status}")
        else:
            finding = Finding("not_mcp", status, f"The endpoint answered {status} and does not speak MCP")
        try:
            health = self._exchange(GET, path.rstrip("/") + "/health")
        except _Unanswered:
            return finding
        works = health.status is not None and 200 <= health.status < 300 and not health.state
        return Finding("healthy", health.status) if works else finding

    def _exchange(self, form: str, path: str) -> _Head:
        """The answer to a request. One redirect within the origin is followed. Raises _Unanswered."""
        while True:
            found = self._ask((form % (path, self._authority)).encode(), wants_response=form is POST)
            if found.status not in REDIRECTS or self._redirected:
                return found
            self._redirected = True
            onward = self._led_on(path, found.location)
            if onward is None:
                return found
            path = onward

    def _led_on(self, path: str, location: str) -> str | None:
        """The path to which a redirect leads, where it stays within the origin."""
        try:
            url = urljoin(self._origin + path, location)
        except ValueError:
            return None
        if not location or _urls.link_fault(url) or _urls.origin(url) != _urls.origin(self._url):
            return None
        return _urls.path(url)

    def _ask(self, request: bytes, *, wants_response: bool) -> _Head:
        """Send a request to the first address that takes it, and read the answer as far as a verdict needs it."""
        try:
            self._addresses = self._addresses or self._looked_up()
            with self._connected() as sock:
                try:
                    sock.settimeout(self._deadline.left())
                    sock.sendall(request)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it may have answered before it had read everything
                return _read(sock, self._deadline, wants_response=wants_response)
        except (TimeoutError, _transport.Failed):
            raise _Unanswered(self._too_late()) from None
        except ssl.SSLError as error:
            raise _Unanswered(_tls_finding(error)) from None
        except OSError as error:
            raise _Unanswered(_connection_finding(error)) from None

    def _too_late(self) -> Finding:
        return Finding("timeout", None, f"No answer within {self._seconds:g} seconds")

    def _looked_up(self) -> list[tuple[int, Any]]:
        """The addresses that are dialled, at most two: of each family one, where there are both, IPv4 first."""
        name, port = _urls.host(self._url), _urls.port(self._url)
        if name.rpartition(".")[2] == "localhost":  # RFC 6761, section 6.3: no resolver is asked
            return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        try:
            found = _transport._resolved(name, port, self._deadline)
        except _transport.Failed as failed:
            late = f"The host name did not resolve within {self._seconds:g} seconds"
            raise _Unanswered(Finding("dns", None, late) if failed.kind == "timeout" else NO_NAME) from None
        first = next((one for one in found if one[0] == socket.AF_INET), None)
        second = next((one for one in found if one[0] == socket.AF_INET6), None)
        return found[:2] if first is None or second is None else [first, second]

    def _connected(self) -> socket.socket:
        """A connection, under TLS where that is wanted. What is asked next goes to the same address."""
        failure: Finding = NO_NAME
        for place, (family, address) in enumerate(self._addresses):
            self.dialled = self.dialled or time.monotonic()
            self.address = str(address[0])
            is_last = place == len(self._addresses) - 1
            left = self._deadline.left()
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.settimeout(left if is_last else min(left, CONNECT_SECONDS))
                sock.connect(address)
                if _urls.is_secure(self._url):
                    sock = _transport.secured(sock, _urls.host(self._url), self._deadline)
            except BaseException as error:
                if sock is not None:
                    sock.close()
                if isinstance(error, TimeoutError):
                    failure = self._too_late()
                elif isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                    failure = _connection_finding(error)
                    if failure not in (REFUSED, UNREACHABLE, OWN_NETWORK):
                        raise
                else:
                    raise
            else:
                self._addresses = [(family, address)]
                return sock
        raise _Unanswered(failure)


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


def _read(sock: socket.socket, deadline: Deadline, *, wants_response: bool) -> _Head:
    def receive(most: int) -> bytes:
        sock.settimeout(deadline.left())
        return sock.recv(most)

    try:
        return head_of(Answer(receive, Room(LIMIT), Room(LIMIT)), wants_response=wants_response)
    except NotHttp:
        return _Head(None, fault="What answers there is not HTTP")
    except TooLong:
        return _Head(None, fault="The headers of the answer are longer than 64 KiB")
    except Closed:
        raise _Unanswered(CLOSED) from None


def head_of(answer: Answer, *, wants_response: bool) -> _Head:
    """Read of an answer what a verdict needs, and no more: a body that decides nothing may be long, or never end."""
    status, location = answer.status, answer.header("location")
    succeeded = 200 <= status < 300 and status not in BODILESS
    if not wants_response:
        is_page = succeeded and _is_json(answer.header("content-type"))
        return _Head(status, location, state=_down_state(answer.pieces()) if is_page else None)
    if not (succeeded or 400 <= status < 500) or status in GATED:
        return _Head(status, location)
    speaks = _streams_response(answer.pieces()) if answer.is_stream else _is_answer(status, answer.pieces())
    return _Head(status, location, speaks)


def _is_answer(status: int, pieces: Iterator[bytes]) -> bool:
    """Whether a body is a JSON-RPC response, or a refusal in plain words."""
    text = bytearray()
    try:
        for piece in pieces:
            text += piece if text else piece.lstrip(BEFORE_JSON)
            # What is neither is told by its first byte: neither its length nor its pace matters.
            if text and text[0] != ord("{") and not _may_refuse(status, text):
                return False
    except TooLong:
        return _is_response(text) or BEGINNING.match(text.lstrip(BEFORE_JSON)) is not None
    return _is_response(text) or (_may_refuse(status, text) and REFUSAL.search(text) is not None)


def _streams_response(pieces: Iterator[bytes]) -> bool:
    """Whether an event of a stream is a JSON-RPC response. Notifications and empty events may precede it."""
    lines = Lines(pieces)
    data: list[bytes] = []
    try:
        for line in lines:
            field, _, value = line.partition(b":")
            if field.lstrip(b"\xef\xbb\xbf") == b"data":
                data.append(value)
            elif not line and data:
                if _is_response(b"\n".join(data)):
                    return True
                data = []
    except TooLong:
        field, _, value = bytes(lines.pending).partition(b":")
        text = value if field == b"data" and not data else b""
        return _is_response(text) or BEGINNING.match(text.lstrip(BEFORE_JSON)) is not None
    # The last event may lack its blank line.
    return _is_response(b"\n".join(data))


def _is_json(media_type: str) -> bool:
    """Whether a media type is one of JSON, such as application/health+json (RFC 6839, section 3.1)."""
    essence = media_type.partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


def _down_state(pieces: Iterator[bytes]) -> str | None:
    """What the JSON object of a health page gives as its `status`, where that means that the service does not work."""
    text = bytearray()
    try:
        for piece in pieces:
            text += piece if text else piece.lstrip(BEFORE_JSON)
            if text and text[0] != ord("{"):
                return None
    except TooLong:
        return None
    state = _object(text).get("status")
    return state if isinstance(state, str) and state.lower() in DOWN else None


def _may_refuse(status: int, text: bytearray) -> bool:
    return 400 <= status < 500 and len(text) <= MAX_REFUSAL and not text.startswith(b"{") and b"<" not in text


def _is_response(text: bytes | bytearray) -> bool:
    """Whether a text is a JSON-RPC 2.0 response: a result or an error, to whatever id."""
    message = _object(text)
    return message.get("jsonrpc") == "2.0" and ("result" in message or "error" in message)


def _object(text: bytes | bytearray) -> dict[str, Any]:
    """The JSON object that a text is; an empty one where it is none."""
    try:
        # Bytes that are no UTF-8 stand in somebody's message; they say nothing against the protocol.
        value: Any = json.loads(text.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
