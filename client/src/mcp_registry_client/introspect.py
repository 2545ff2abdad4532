"""What a running MCP server says of itself, asked as a client of its era asks, and what a health check sees of it.

A server of the specification of 2026-07-28 is asked `server/discover` and `tools/list`, each request by itself. An
older one is asked `initialize`, told `notifications/initialized`, asked `tools/list`, and its session is deleted.

The bytes come from strangers. One deadline covers everything from the look-up of the name to the last page, one number
of bytes all answers together, and whatever is wrong comes out as one sentence that says what to do.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import ssl
import time
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import urljoin, urlsplit

from mcp_registry_client import _transport
from mcp_registry_client._transport import AGENT, Deadline, Target

PROTOCOL_VERSION: Final = "2026-07-28"
# What `initialize` offers; a server answers with this one or with the latest that it has.
HANDSHAKE_VERSION: Final = "2025-11-25"
# From here on there is no `initialize`. Versions are dates, so that they are in order as texts.
FIRST_WITHOUT_SESSIONS: Final = "2026-07-28"
CLIENT: Final = {"name": "mcp-registry", "version": "1.0"}
META: Final = {
    "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
# A session that nobody has. A request without the header opens one on servers of the SDK for Python before 1.30, which
# then refuse the request and keep the session for good (2026-11-22). Current servers don't read it.
NO_SESSION: Final = {"Mcp-Session-Id": "mcp-registry-check"}

# All answers together. The registry takes 1 MiB; icons and the like, which it does not keep, may well be more.
MAX_BYTES: Final = 8 << 20
# The registry takes 2,000 tools. A page of fewer than twenty is a server that does not end.
MAX_PAGES: Final = 100
PIECE: Final = 0x10000
# What deleting a session may take beyond the deadline: a server that was too slow for us must not pay with its memory.
GRACE_SECONDS: Final = 2.0
# How long a stream of the transport before streamable HTTP may take to introduce itself.
STREAM_SECONDS: Final = 3.0
# What a health check of the registry may take.
CHECK_SECONDS: Final = 5.0

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE: Final = re.compile(r"[\t -~]*")
# Headers that say how a request is framed, who it is for, and what of MCP it is: ours alone.
OWN_HEADERS: Final = frozenset(
    (
        *("connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"),
        *("accept", "accept-encoding", "content-type"),
        *("mcp-method", "mcp-protocol-version", "mcp-session-id"),
    )
)
SESSION_ID: Final = re.compile(r"[!-~]+")
PRINTABLE: Final = re.compile(r"[!-~]+")
LINE_END: Final = re.compile(rb"\r\n|\n|\r(?=[^\n])")
METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022
# How older servers say in plain words that a session or a version is none of theirs.
REFUSAL: Final = re.compile(
    r"session[ -]?id|session not found|invalid session|protocol version|unexpected message, expect", re.IGNORECASE
)
MAX_REFUSAL: Final = 512
MAX_QUOTE: Final = 200
# What OpenSSL says to bytes that are no TLS.
NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}
)

Kind = Literal[
    "url",  # no address that can be asked
    "dns",
    "refused",
    "timeout",
    "tls",
    "credentials",
    "moved",
    "http_error",
    "not_mcp",
    "sse",  # the transport before streamable HTTP, which nobody can ask by single requests
    "version",
    "invalid",  # it speaks MCP, and what it says cannot be used
    "too_large",
]


class Failed(Exception):
    """A server could not be asked: of which kind the fault is, and one sentence on it for people."""

    def __init__(self, kind: Kind, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.status = status


class Introspection(NamedTuple):
    """What a server says of itself. `tools` are in the spelling of a registration, without what it does not keep."""

    name: str | None
    title: str | None
    version: str | None
    description: str | None
    instructions: str | None
    protocol_version: str
    tools: list[dict[str, Any]]


class Sight(NamedTuple):
    """What a health check sees, in the words of the registry."""

    verdict: str
    status_code: int | None
    response_time_ms: int
    error_message: str | None


def introspect(url: str, *, headers: Mapping[str, str] | None = None, deadline_seconds: float = 30.0) -> Introspection:
    """Ask a running server for what a registration needs. Raises Failed.

    A session that had to be opened is deleted whatever happens, within two seconds beyond the deadline.
    """
    server = _Server(url, headers or {}, deadline_seconds)
    try:
        return _ask_current(server) or _ask_older(server)
    finally:
        server.leave()


def check(url: str, *, health_url: str | None = None, deadline_seconds: float = CHECK_SECONDS) -> Sight:
    """What the registry's health check would see of a server from here: one request, without credentials.

    Raises Failed where a URL is none.
    """
    if fault := url_fault(url):
        raise Failed("url", fault)
    target = urljoin(url, health_url) if health_url else url
    if fault := url_fault(target):
        raise Failed("url", fault)
    if _origin(target) != _origin(url):
        raise Failed("url", "The health URL must have the scheme, host and port of the server")
    server = _Server(target, {}, deadline_seconds)
    began = time.monotonic()
    try:
        verdict, status, message = _see_health(server) if health_url else _see_mcp(server)
    except Failed as failed:
        verdict, status, message = failed.kind, failed.status, failed.message
        if verdict not in ("dns", "refused", "timeout", "tls"):
            verdict = "http_error" if health_url else "not_mcp"
    return Sight(verdict, status, round((time.monotonic() - began) * 1000), message)


def url_fault(url: str) -> str | None:
    """Why a URL cannot be that of a server, in one sentence; None where it can."""
    if not PRINTABLE.fullmatch(url):
        return "A URL has printable ASCII characters only: percent-encode others"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "The host or the port of the URL is not valid"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "A URL starts with http:// or https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "The URL may not hold a user name or a password"
    if port == 0:
        return "The port must be a number from 1 to 65535"
    return None


def header_fault(name: str, value: str) -> str | None:
    """Why a header cannot be sent, in one sentence; None where it can."""
    if not TOKEN.fullmatch(name):
        return "A header is written as 'Name: value', its name without spaces"
    if not HEADER_VALUE.fullmatch(value):
        return f"The value of the header {name} has characters that a header cannot have"
    if name.lower() in OWN_HEADERS:
        return f"The header {name} is set by this program"
    return None


# ------------------------------------------------------------------ what is asked


def _ask_current(server: _Server) -> Introspection | None:
    """Ask as the specification of 2026-07-28 has it; None where the server is older, or no server of MCP at all."""
    method = "server/discover"
    reply = server.call(method, {"_meta": META}, _current_headers(method) | NO_SESSION)
    supported = _strings(reply.result.get("supportedVersions")) if reply.result else reply.supported
    if not reply.result or PROTOCOL_VERSION not in supported:
        if supported and all(version > FIRST_WITHOUT_SESSIONS for version in supported):
            raise Failed("version", f"The server speaks MCP {', '.join(supported)} only: update mcp-registry-client")
        return None
    meta = _mapping(reply.result.get("_meta"))
    info = _mapping(meta.get(SERVER_INFO) or reply.result.get("serverInfo"))
    tools = _list_tools(server, {"_meta": META}, _current_headers("tools/list"))
    return _introspection(info, reply.result.get("instructions"), PROTOCOL_VERSION, tools)


def _ask_older(server: _Server) -> Introspection:
    """Ask as the specifications before have it. The session is left to `leave`."""
    offer = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": CLIENT}
    reply = server.call("initialize", offer, {}, opens_session=True)
    version = reply.result.get("protocolVersion") if reply.result else None
    if not reply.result or not isinstance(version, str) or not HEADER_VALUE.fullmatch(version):
        raise _not_mcp(server, reply)
    server.session["MCP-Protocol-Version"] = version
    server.notify("notifications/initialized", server.session)
    tools = _list_tools(server, {}, server.session)
    return _introspection(_mapping(reply.result.get("serverInfo")), reply.result.get("instructions"), version, tools)


def _list_tools(server: _Server, params: Mapping[str, Any], headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tools of all pages."""
    tools: list[dict[str, Any]] = []
    cursors: set[str] = set()
    page: Mapping[str, Any] = params
    while True:
        reply = server.call("tools/list", page, headers)
        if not reply.result:
            # A server that has no tools need not know how to list them.
            if reply.code == METHOD_NOT_FOUND and not cursors:
                return []
            raise Failed("invalid", _no_list(reply), reply.status)
        listed = reply.result.get("tools")
        if not isinstance(listed, list):
            raise Failed("invalid", "The server's answer to tools/list has no list of tools")
        tools += (_tool(tool, len(tools) + place) for place, tool in enumerate(cast("list[Any]", listed)))
        cursor = reply.result.get("nextCursor")
        if cursor is None:
            return tools
        if not isinstance(cursor, str) or cursor in cursors or len(cursors) + 1 >= MAX_PAGES:
            raise Failed("invalid", "The server's list of tools does not end: its cursors lead nowhere")
        cursors.add(cursor)
        page = {**params, "cursor": cursor}


def _tool(value: Any, place: int) -> dict[str, Any]:
    """A tool as a registration has it."""
    tool = _mapping(value)
    name = tool.get("name")
    if not isinstance(name, str):
        raise Failed("invalid", f"Tool {place} of the server has no name")
    kept: dict[str, Any] = {"name": name}
    for theirs, ours, kind in (
        ("title", "title", str),
        ("description", "description", str),
        ("inputSchema", "input_schema", dict),
        ("outputSchema", "output_schema", dict),
        ("annotations", "annotations", dict),
    ):
        found = tool.get(theirs)
        if found is not None:
            if not isinstance(found, kind):
                wanted = "a string" if kind is str else "an object"
                raise Failed("invalid", f"The {theirs} of the server's tool {_quoted(name)} is not {wanted}")
            kept[ours] = found
    if "input_schema" not in kept:
        raise Failed("invalid", f"The server's tool {_quoted(name)} has no inputSchema, which MCP requires")
    return kept


def _introspection(info: dict[str, Any], instructions: Any, version: str, tools: list[dict[str, Any]]) -> Introspection:
    name, title, its_version, description = (_text(info.get(k)) for k in ("name", "title", "version", "description"))
    return Introspection(name, title, its_version, description, _text(instructions), version, tools)


def _no_list(reply: _Reply) -> str:
    if reply.error:
        return f"The server refuses to list its tools: {reply.error}"
    return f"The server answered tools/list with {reply.status} and without a result: look into its log"


def _not_mcp(server: _Server, reply: _Reply) -> Failed:
    """Why there was no answer to `initialize`."""
    status = reply.status
    if reply.error:
        return Failed("invalid", f"The server refuses to begin a session: {reply.error}", status)
    if status == 429 or status >= 500:
        return Failed("http_error", f"The server answered {status}: look into its log, or try again later", status)
    if server.streams_events():
        message = (
            "The server speaks MCP over SSE only, a transport that was replaced in 2025: serve it over streamable HTTP,"
            " or register it by hand with a health_url"
        )
        return Failed("sse", message, status)
    message = f"What answers there ({status}) does not speak MCP: check the path of the URL, which is often /mcp"
    return Failed("not_mcp", message, status)


def _see_mcp(server: _Server) -> tuple[str, int, str | None]:
    """Judge an MCP endpoint, or a plain HTTP service that has its health below it."""
    method = "server/discover"
    try:
        reply = server.call(method, {"_meta": META}, _current_headers(method) | NO_SESSION)
    except Failed as failed:
        if failed.kind == "credentials" and failed.status:
            return "gated", failed.status, None
        if failed.status is None:
            raise
        reply = _Reply(failed.status, None, None, [], None, "")
    status = reply.status
    if reply.is_response or _is_refusal(reply):
        return "healthy", status, None
    verdict, message = "not_mcp", f"The endpoint answered {status} and does not speak MCP"
    if status == 429 or status >= 500:
        verdict, message = "http_error", f"The server answered {status}"
    server.append("/health")
    with suppress(Failed):
        found = server.status()
        if 200 <= found < 300:
            return "healthy", found, None
    return verdict, status, message


def _see_health(server: _Server) -> tuple[str, int, str | None]:
    """Judge the health URL that a server declares: its status is all that counts."""
    status = server.status()
    if 200 <= status < 300:
        return "healthy", status, None
    return "http_error", status, f"The health URL answered {status}"


def _is_refusal(reply: _Reply) -> bool:
    text = reply.text
    return 400 <= reply.status < 500 and len(text) <= MAX_REFUSAL and "<" not in text and bool(REFUSAL.search(text))


def _current_headers(method: str) -> dict[str, str]:
    return {"MCP-Protocol-Version": PROTOCOL_VERSION, "Mcp-Method": method}


# ------------------------------------------------------------------ JSON-RPC


class _Reply(NamedTuple):
    """What came back to a request. `result` is None where it was refused; `text` is kept of what is not JSON-RPC."""

    status: int
    result: dict[str, Any] | None
    code: int | None
    supported: list[str]  # the versions that a refusal names
    error: str | None
    text: str

    @property
    def is_response(self) -> bool:
        """Whether it is one of JSON-RPC."""
        return self.result is not None or self.error is not None


class _Server:
    """A server that is being asked: its address, what is left of the deadline and of the bytes, and its session."""

    def __init__(self, url: str, headers: Mapping[str, str], deadline_seconds: float) -> None:
        if fault := url_fault(url):
            raise Failed("url", fault)
        for name, value in headers.items():
            if fault := header_fault(name, value):
                raise Failed("url", fault)
        # What has to be sent with every request of the session that is open.
        self.session: dict[str, str] = {}
        self._url = url
        self._headers = headers
        self._deadline = Deadline(deadline_seconds)
        self._bytes = MAX_BYTES
        self._number = 0
        self._redirected = False
        self._target = Target.of(url)

    def call(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str], *, opens_session: bool = False
    ) -> _Reply:
        """Send a request and read the response to it. Raises Failed where there is none to read."""
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        with self._exchange("POST", message, headers) as answer:
            if opens_session:
                # Before a byte of the body is read: whatever becomes of it, the session exists.
                session = answer.header("mcp-session-id")
                if SESSION_ID.fullmatch(session):
                    self.session["Mcp-Session-Id"] = session
            if answer.header("content-type").lower().startswith("text/event-stream"):
                return self._reply(answer.status, (data for _, data in _events(self._read(answer))))
            return self._reply(answer.status, (b"".join(self._read(answer)),))

    def notify(self, method: str, headers: Mapping[str, str]) -> None:
        """Send a notification. What is said to it does not matter: the next request tells whether it was taken."""
        with self._exchange("POST", {"jsonrpc": "2.0", "method": method}, headers):
            pass

    def status(self) -> int:
        """The status of a plain GET."""
        with self._exchange("GET", None, {"Accept": "*/*"}, reads_status=True) as answer:
            return answer.status

    def append(self, path: str) -> None:
        """Ask below the path of the endpoint from now on."""
        self._target = self._target._replace(path=self._target.path.partition("?")[0].rstrip("/") + path)

    def streams_events(self) -> bool:
        """Whether the address opens a stream that says where to post to: the transport before streamable HTTP."""
        deadline = self._deadline
        try:
            self._deadline = Deadline(min(STREAM_SECONDS, deadline.left()))
            with self._exchange("GET", None, {"Accept": "text/event-stream"}) as answer:
                if answer.status != 200 or not answer.header("content-type").startswith("text/event-stream"):
                    return False
                return next((name == "endpoint" for name, _ in _events(self._read(answer))), False)
        except (Failed, _transport.Failed):
            return False
        finally:
            self._deadline = deadline

    def leave(self) -> None:
        """Delete the session, where one was opened. It may fail: what an answer to it would say changes nothing."""
        if "Mcp-Session-Id" not in self.session:
            return
        self._deadline = Deadline(GRACE_SECONDS)
        with suppress(Failed), self._exchange("DELETE", None, self.session, reads_status=True):
            pass
        self.session = {}

    @contextmanager
    def _exchange(
        self, method: str, message: object, headers: Mapping[str, str], *, reads_status: bool = False
    ) -> Generator[_Answer]:
        """Send a request; the answer, whose body is still to be read. One redirect within the origin is followed."""
        body = b"" if message is None else json.dumps(message, separators=(",", ":")).encode()
        sent = {
            **({} if any(name.lower() == "user-agent" for name in self._headers) else {"User-Agent": AGENT}),
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **({"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}),
            **headers,
            **self._headers,
        }
        with self._plain_faults():
            answer = _Answer(self._target, method, sent, body, self._deadline)
            try:
                if answer.status in (307, 308) and not self._redirected and self._follows(answer.header("location")):
                    answer.close()
                    answer = _Answer(self._target, method, sent, body, self._deadline)
                if not reads_status:
                    self._refuse(answer)
                yield answer
            finally:
                answer.close()

    def _follows(self, location: str) -> bool:
        """Take on the address that a redirect names, where it is of the same origin: the headers may hold a secret."""
        try:
            url = urljoin(self._url, location)
        except ValueError:
            return False
        if not location or url_fault(url) or _origin(url) != _origin(self._url):
            return False
        self._redirected = True
        self._target = Target.of(url)
        return True

    def _refuse(self, answer: _Answer) -> None:
        """Raise where the status alone says that nobody will answer."""
        status = answer.status
        if status == 401:
            scheme = answer.header("www-authenticate").partition(" ")[0].rstrip(",")
            scheme = scheme if TOKEN.fullmatch(scheme) else "Bearer"
            if any(name.lower() == "authorization" for name in self._headers):
                message = "The server refuses the credentials that --header gives (401): check them"
            else:
                message = f"The server wants credentials (401): give --header 'Authorization: {scheme} ...'"
            raise Failed("credentials", message, status)
        if status == 403:
            message = "The server forbids this (403): give the credentials that it wants by --header"
            raise Failed("credentials", message, status)
        if 300 <= status < 400:
            location = answer.header("location")
            where = (
                f" to {_quoted(location)}: give that address" if location else ", and does not say where: check the URL"
            )
            raise Failed("moved", f"The address leads on ({status}){where}", status)

    def _read(self, answer: _Answer) -> Iterator[bytes]:
        """The body in pieces, as many as there is room for."""
        for piece in answer.pieces():
            self._bytes -= len(piece)
            if self._bytes < 0:
                raise Failed("too_large", f"The server's answers are longer than {MAX_BYTES >> 20} MiB", answer.status)
            yield piece

    def _reply(self, status: int, bodies: Iterable[bytes]) -> _Reply:
        """The response among what came: the first that has our number, or an error that has nobody's."""
        text = ""
        for body in bodies:
            value = _parsed(body)
            if value is None:
                text = body[: MAX_REFUSAL + 1].decode("utf-8", "replace")
            for message in cast("list[Any]", value) if isinstance(value, list) else [value]:
                reply = self._response(status, _mapping(message))
                if reply is not None:
                    return reply
        return _Reply(status, None, None, [], None, text)

    def _response(self, status: int, message: dict[str, Any]) -> _Reply | None:
        if message.get("jsonrpc") != "2.0" or "method" in message:
            return None
        if message.get("id") == self._number and isinstance(message.get("result"), dict):
            return _Reply(status, message["result"], None, [], None, "")
        if "error" not in message:
            return None
        error = _mapping(message["error"])
        code = error.get("code")
        supported = _strings(_mapping(error.get("data")).get("supported")) if code == UNSUPPORTED_VERSION else []
        words = _text(error.get("message")) or "without a reason"
        return _Reply(status, None, code if isinstance(code, int) else None, supported, _quoted(words), "")

    @contextmanager
    def _plain_faults(self) -> Generator[None]:
        """Say in plain words what the network, TLS and HTTP may do wrong."""
        target = self._target
        try:
            yield
        except _transport.Failed as failed:
            if failed.kind == "lookup":
                raise Failed("dns", f"The host name {target.host} does not resolve: check the URL") from None
            raise self._too_late() from None
        except TimeoutError:
            raise self._too_late() from None
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message.rstrip(".")
            advice = "mend it, or name the file of a private CA in SSL_CERT_FILE"
            raise Failed("tls", f"The server's certificate is not valid ({why}): {advice}") from None
        except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, http.client.IncompleteRead):
            advice = "look into the server's log, and check http or https"
            raise Failed("refused", f"The connection was closed before an answer came: {advice}") from None
        except ssl.SSLError as error:
            if error.reason in NO_TLS:
                raise Failed("tls", "What answers there does not speak TLS: try http:// in the URL") from None
            why = error.reason or "without a reason"
            raise Failed("tls", f"No secure connection could be agreed on ({why}): check the server's TLS") from None
        except ConnectionRefusedError:
            advice = "start the server, or check the port"
            raise Failed("refused", f"Nothing listens at {target.authority}: {advice}") from None
        except (http.client.HTTPException, zlib.error):
            raise Failed("not_mcp", "What answers there is not HTTP: check the port of the URL") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise Failed("refused", f"{target.authority} cannot be reached ({why}): check the network") from None

    def _too_late(self) -> Failed:
        took = f"{self._deadline.seconds:g} seconds"
        return Failed("timeout", f"No complete answer came within {took}: is the server overloaded?")


def _parsed(body: bytes) -> Any:
    """JSON without what nobody can store (NaN, and numbers beyond all bounds); None where it is something else."""
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(literal: str) -> None:
    raise ValueError(literal)


def _finite(literal: str) -> float:
    if not math.isfinite(number := float(literal)):
        raise ValueError(literal)
    return number


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _strings(value: Any) -> list[str]:
    return [item for item in cast("list[Any]", value) if isinstance(item, str)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _quoted(words: str) -> str:
    """What a stranger says, short enough for a sentence of ours."""
    return words if len(words) <= MAX_QUOTE else f"{words[:MAX_QUOTE]}..."


def _events(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """The name and the data of each event of a stream. The last may lack its blank line."""
    name, data = "", list[bytes]()
    for line in _lines(pieces):
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


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, however the bytes are split into pieces. A carriage return at the end may be half of a line end."""
    pending = bytearray()
    searched = 0
    for piece in pieces:
        pending += piece
        start = 0
        while end := LINE_END.search(pending, max(searched, start)):
            yield bytes(pending[start : end.start()])
            start = searched = end.end()
        del pending[:start]
        searched = max(len(pending) - 1, 0)
    if pending:
        yield bytes(pending).rstrip(b"\r")


# ------------------------------------------------------------------ HTTP


class _Answer:
    """An answer on a connection of its own: its head, and its body as far as it is wanted.

    The transport reads answers to their end. A server may say what it was asked for at the beginning of a stream that
    never ends, and may name a session in a head whose body never comes.
    """

    def __init__(
        self, target: Target, method: str, headers: Mapping[str, str], body: bytes, deadline: Deadline
    ) -> None:
        head = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
        head += (f"{name}: {value}" for name, value in headers.items())
        self._socket = _transport._connected(target, deadline)
        try:
            timed = _transport._TimedSocket(self._socket, deadline)
            # A server may refuse before it has read everything: what it says counts, not that it did not listen.
            with suppress(BrokenPipeError, ConnectionResetError):
                timed.sendall("\r\n".join([*head, "", ""]).encode("ascii") + body)
            # All that a response does with a socket is makefile().
            self._response = http.client.HTTPResponse(cast("socket.socket", cast("object", timed)), method=method)
            self._response.begin()
        except BaseException:
            self._socket.close()
            raise
        self.status = self._response.status

    def header(self, name: str) -> str:
        """The value of a header; empty where there is none."""
        return self._response.headers.get(name, "").strip()

    def pieces(self) -> Iterator[bytes]:
        """The body, unpacked: some servers and proxies always compress, asked for or not."""
        if self.header("content-encoding").lower() not in ("gzip", "x-gzip", "deflate"):
            yield from self._sent()
            return
        # 32 reads the format off the first bytes. Nothing grows beyond bounds: what is left over is unpacked next.
        inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)
        for packed in self._sent():
            yield inflate.decompress(packed, PIECE)
            while inflate.unconsumed_tail:
                yield inflate.decompress(inflate.unconsumed_tail, PIECE)

    def close(self) -> None:
        """Be done with it."""
        self._response.close()
        self._socket.close()

    def _sent(self) -> Iterator[bytes]:
        """The body as it was sent, counted here: before Python 3.13, read1() waits for more than there is."""
        left = self._response.length
        while left != 0 and (piece := self._response.read1(PIECE if left is None else min(PIECE, left))):
            yield piece
            if left is not None:
                left -= len(piece)


def _origin(url: str) -> tuple[bool, str, int]:
    return Target.of(url)[:3]
