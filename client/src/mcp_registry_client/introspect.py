"""What a running MCP server says of itself, asked as a client of its era asks.

A server of the specification of 2026-07-28 is asked `server/discover` and `tools/list`, each request by itself. An
older one is asked `initialize`, told `notifications/initialized`, asked `tools/list`, and its session is deleted.

The bytes come from strangers. One deadline covers everything from the look-up of the name to the last page, one number
of bytes all answers together, and whatever is wrong comes out as one sentence that says what to do.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urljoin

from mcp_registry_client import _fault, _health, _tools, _transport, _urls
from mcp_registry_client._answer import Answer, Room, events
from mcp_registry_client._fault import Failed, Kind
from mcp_registry_client._health import PROTOCOL_VERSION, Sight, check
from mcp_registry_client._json import mapping, parsed, strings
from mcp_registry_client._transport import AGENT, Deadline, Target
from mcp_registry_client._trimming import LeftOut, name_of, sendable

__all__ = ["Failed", "Introspection", "Kind", "Sight", "check", "introspect"]

# What `initialize` offers; a server answers with this one or with the latest that it has.
HANDSHAKE_VERSION: Final = "2025-11-25"
# From here on there is no `initialize`. Versions are dates, so that they are in order as texts.
FIRST_WITHOUT_SESSIONS: Final = "2026-07-28"
CLIENT: Final = {"name": _health.NAME, "version": _health.VERSION}
META: Final = {
    "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
# A session that nobody has. A request without the header opens one on servers of the SDK for Python before 1.30, which
# then refuse the request and keep the session for good (2026-11-22). Current servers don't read it. It is a UUID, as of
# any other form php-sdk up to 0.5 dies.
NO_SESSION: Final = {"Mcp-Session-Id": "8f14e45f-ceea-4e7a-9c4b-0d6e5b1f7a2c"}

# All answers together. The registry takes 1 MiB; what is left out then, pictures for one, may well be more.
MAX_BYTES: Final = 8 << 20
# Pages without a tool that lead on to another one: more of them is a list that does not end.
MAX_EMPTY_PAGES: Final = 100
# What deleting a session may take beyond the deadline: a server that was too slow for us must not pay with its memory.
GRACE_SECONDS: Final = 2.0
# How long a stream of the transport before streamable HTTP may take to introduce itself.
STREAM_SECONDS: Final = 3.0

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
METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022
MAX_QUOTE: Final = 200
# After what has befallen `server/discover` an older server may still know `initialize`. Some drop the connection or
# hang at a method that they don't know, some gateways forbid it (403), and rmcp up to 0.16 answers 401 where it doesn't
# know a session.
WORTH_ANOTHER_TRY: Final = frozenset(("closed", "credentials", "http_error", "not_mcp", "timeout"))


class Introspection(NamedTuple):
    """What a server says of itself. `tools` are as it lists them, in the spelling of a registration.

    `tools_left_out` are none as MCP has them, or cannot be sent as JSON: one of them does not keep the others out.
    """

    name: str | None
    title: str | None
    version: str | None
    description: str | None
    instructions: str | None
    protocol_version: str
    tools: list[dict[str, Any]]
    website_url: str | None
    tools_left_out: list[LeftOut]


def introspect(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    deadline_seconds: float = 30.0,
    connect: Callable[[Deadline], socket.socket] | None = None,
) -> Introspection:
    """Ask a running server for what a registration needs. Raises Failed.

    A session that had to be opened is deleted whatever happens, within two seconds beyond the deadline. `connect`
    makes the connections, where they do not go to where the URL leads.
    """
    server = _Server(url, headers or {}, deadline_seconds, connect)
    try:
        return _ask(server)
    finally:
        server.leave()


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


def _ask(server: _Server) -> Introspection:
    """Ask as the present specification has it, and in the old way whoever does not answer to that."""
    first: Failed | None = None
    try:
        supported, info, instructions = _discovered(server)
    except Failed as failed:
        if failed.kind not in WORTH_ANOTHER_TRY:
            raise
        first, supported, info, instructions = failed, [], {}, None
    if PROTOCOL_VERSION in supported:
        introduced = _introspection(info, instructions, PROTOCOL_VERSION)
        return _with_tools(introduced, server, {"_meta": META}, _current_headers("tools/list"))
    if supported and all(version > FIRST_WITHOUT_SESSIONS for version in supported):
        raise Failed("version", f"The server speaks MCP {', '.join(supported)} only: update mcp-registry-client")
    try:
        return _ask_older(server)
    except Failed as failed:
        # A server of today that was only slow knows no `initialize`: what befell the first request is the reason then.
        if first is not None and first.kind in ("closed", "timeout") and failed.kind in ("invalid", "not_mcp"):
            raise first from None
        raise


def _discovered(server: _Server) -> tuple[list[str], dict[str, Any], Any]:
    """The versions that a server speaks, what it is, and its instructions; no versions where it is an older one."""
    method = "server/discover"
    reply = server.call(method, {"_meta": META}, _current_headers(method) | NO_SESSION, share=0.5)
    if not reply.result:
        # One that refuses our version names those that it has.
        return [version for version in reply.supported if version != PROTOCOL_VERSION], {}, None
    meta = mapping(reply.result.get("_meta"))
    info = mapping(meta.get(SERVER_INFO) or reply.result.get("serverInfo"))
    return strings(reply.result.get("supportedVersions")), info, reply.result.get("instructions")


def _ask_older(server: _Server) -> Introspection:
    """Ask as the specifications before have it. The session is left to `leave`."""
    offer = {"protocolVersion": HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": CLIENT}
    reply = server.call("initialize", offer, {}, opens_session=True)
    version = reply.result.get("protocolVersion") if reply.result else None
    if not reply.result or not isinstance(version, str) or not HEADER_VALUE.fullmatch(version):
        raise _not_mcp(server, reply)
    server.session["MCP-Protocol-Version"] = version
    server.notify("notifications/initialized", server.session)
    introduced = _introspection(mapping(reply.result.get("serverInfo")), reply.result.get("instructions"), version)
    return _with_tools(introduced, server, {}, server.session)


def _with_tools(
    introduced: Introspection, server: _Server, params: Mapping[str, Any], headers: Mapping[str, str]
) -> Introspection:
    """The same, with its tools. Raises Failed, and says by it who it is that cannot list them."""
    try:
        listed = _list_tools(server, params, headers)
    except Failed as failed:
        failed.server = introduced
        raise
    for place, value in enumerate(listed):
        tool, rule = _tool(value)
        if rule is None:
            introduced.tools.append(tool)
        else:
            introduced.tools_left_out.append(LeftOut(name_of(value, place), rule))
    return introduced


def _list_tools(server: _Server, params: Mapping[str, Any], headers: Mapping[str, str]) -> list[Any]:
    """The tools of all pages, as they come."""
    tools: list[Any] = []
    cursors: set[str] = set()
    empty = 0
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
            raise Failed("invalid", "The server's answer to tools/list has no list of tools: mend the server")
        found = cast("list[Any]", listed)
        tools += found
        cursor = reply.result.get("nextCursor")
        if not cursor:
            return tools
        empty += not found
        if not isinstance(cursor, str) or cursor in cursors or empty >= MAX_EMPTY_PAGES:
            raise Failed("invalid", "The server's list of tools does not end: its cursors lead nowhere")
        cursors.add(cursor)
        page = {**params, "cursor": cursor}


def _tool(value: Any) -> tuple[dict[str, Any], str | None]:
    """A tool as a registration has it, and why it is none, in one sentence; None where it is one."""
    tool = mapping(value)
    if not isinstance(tool.get("name"), str):
        return {}, "It has no name, which MCP requires"
    for field, kind in (
        ("title", str),
        ("description", str),
        ("inputSchema", dict),
        ("outputSchema", dict),
        ("annotations", dict),
    ):
        found = tool.get(field)
        if found is not None and not isinstance(found, kind):
            return {}, f"Its {field} is not {'a string' if kind is str else 'an object'}"
    if tool.get("inputSchema") is None:
        return {}, "It has no inputSchema, which MCP requires"
    return sendable(_tools.sent(tool))


def _introspection(info: dict[str, Any], instructions: Any, version: str) -> Introspection:
    name, title, its_version, description = (_text(info.get(k)) for k in ("name", "title", "version", "description"))
    website = _text(info.get("websiteUrl"))
    if website and _urls.link_fault(website):
        website = None
    return Introspection(name, title, its_version, description, _text(instructions), version, [], website, [])


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


def _current_headers(method: str) -> dict[str, str]:
    return {"MCP-Protocol-Version": PROTOCOL_VERSION, "Mcp-Method": method}


# ------------------------------------------------------------------ JSON-RPC


class _Reply(NamedTuple):
    """What came back to a request. `result` is None where it was refused, and `error` too where it was no response."""

    status: int
    result: dict[str, Any] | None = None
    code: int | None = None
    supported: Sequence[str] = ()  # the versions that a refusal names
    error: str | None = None


class _Server:
    """A server that is being asked: its address, what is left of the deadline and of the bytes, and its session."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        deadline_seconds: float,
        connect: Callable[[Deadline], socket.socket] | None,
    ) -> None:
        if fault := _urls.endpoint_fault(url):
            raise Failed("url", fault)
        for name, value in headers.items():
            if fault := header_fault(name, value):
                raise Failed("url", fault)
        # What has to be sent with every request of the session that is open.
        self.session: dict[str, str] = {}
        self._url = url
        self._headers = headers
        self._deadline = Deadline(deadline_seconds)
        self._room = Room(MAX_BYTES)
        self._number = 0
        self._redirected = False
        self._target = Target.of(url)
        self._connect = connect or self._connected

    def call(
        self,
        method: str,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        *,
        opens_session: bool = False,
        share: float = 1.0,
    ) -> _Reply:
        """Send a request and read the response to it, in this share of the time that is left.

        Raises Failed where there is none to read.
        """
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        with self._exchange("POST", message, headers, deadline=self._part(share)) as answer:
            if opens_session:
                # Before a byte of the body is read: whatever becomes of it, the session exists.
                session = answer.header("mcp-session-id")
                if SESSION_ID.fullmatch(session):
                    self.session["Mcp-Session-Id"] = session
            pieces = answer.pieces()
            bodies = (data for _, data in events(pieces)) if answer.is_stream else (b"".join(pieces),)
            reply = self._reply(answer.status, bodies)
            if reply.result is None and reply.error is None and answer.broke_off:
                advice = "look into the server's log, and at what stands between"
                raise Failed("closed", f"The connection was closed in the middle of the answer: {advice}", reply.status)
            return reply

    def notify(self, method: str, headers: Mapping[str, str]) -> None:
        """Send a notification. What is said to it does not matter: the next request tells whether it was taken."""
        with self._exchange("POST", {"jsonrpc": "2.0", "method": method}, headers):
            pass

    def streams_events(self) -> bool:
        """Whether the address opens a stream that says where to post to: the transport before streamable HTTP."""
        with suppress(Failed, _transport.Failed):
            deadline = Deadline(min(STREAM_SECONDS, self._deadline.left()))
            with self._exchange("GET", None, {"Accept": "text/event-stream"}, deadline=deadline) as answer:
                if answer.status == 200 and answer.is_stream:
                    return any(name == "endpoint" for name, _ in events(answer.pieces()))
        return False

    def leave(self) -> None:
        """Delete the session, where one was opened. It may fail: what an answer to it would say changes nothing."""
        if "Mcp-Session-Id" not in self.session:
            return
        self._room = Room(MAX_BYTES)
        with suppress(Failed), self._exchange("DELETE", None, self.session, deadline=Deadline(GRACE_SECONDS)):
            pass
        self.session = {}

    def _part(self, share: float) -> Deadline:
        """A deadline after a part of the time that is left."""
        if share == 1.0:
            return self._deadline
        try:
            return Deadline(self._deadline.left() * share)
        except _transport.Failed:
            return self._deadline  # whoever keeps to it fails at once, and in plain words

    @contextmanager
    def _exchange(
        self, method: str, message: object, headers: Mapping[str, str], *, deadline: Deadline | None = None
    ) -> Generator[Answer]:
        """Send a request; the answer, whose body is still to be read. One redirect within the origin is followed.

        Raises Failed where none came, or where its status alone says that nobody will answer.
        """
        deadline = deadline or self._deadline
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
        with _fault.plain(self._target, deadline, MAX_BYTES):
            with self._sent(method, sent, body, deadline) as answer:
                if answer.status not in (307, 308) or not self._follows(answer.header("location")):
                    self._refuse(answer)
                    yield answer
                    return
            with self._sent(method, sent, body, deadline) as answer:
                self._refuse(answer)
                yield answer

    @contextmanager
    def _sent(self, method: str, headers: Mapping[str, str], body: bytes, deadline: Deadline) -> Generator[Answer]:
        """The answer to one request on a connection of its own."""
        head = [f"{method} {self._target.path} HTTP/1.1", f"Host: {self._target.authority}"]
        head += (f"{name}: {value}" for name, value in headers.items())
        with self._connect(deadline) as sock:

            def receive(most: int) -> bytes:
                sock.settimeout(deadline.left())
                return sock.recv(most)

            # A server may refuse before it has read everything: what it says counts, not that it did not listen.
            with suppress(BrokenPipeError, ConnectionResetError):
                sock.settimeout(deadline.left())
                sock.sendall("\r\n".join([*head, "", ""]).encode("ascii") + body)
            yield Answer(receive, self._room)

    def _connected(self, deadline: Deadline) -> socket.socket:
        return _transport.connected(self._target, deadline)

    def _follows(self, location: str) -> bool:
        """Take on the address that a redirect names, where it is of the same origin: the headers may hold a secret."""
        try:
            url = urljoin(self._url, location)
        except ValueError:
            return False
        if self._redirected or not location or _urls.link_fault(url) or _urls.origin(url) != _urls.origin(self._url):
            return False
        self._redirected = True
        self._target = Target.of(url)
        return True

    def _refuse(self, answer: Answer) -> None:
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

    def _reply(self, status: int, bodies: Iterable[bytes]) -> _Reply:
        """The response among what came: the first that has our number, or an error that has nobody's."""
        for body in bodies:
            value = parsed(body, strict=False)  # what is no JSON in one tool is for that tool to answer for
            for message in cast("list[Any]", value) if isinstance(value, list) else [value]:
                reply = self._response(status, mapping(message))
                if reply is not None:
                    return reply
        return _Reply(status)

    def _response(self, status: int, message: dict[str, Any]) -> _Reply | None:
        if message.get("jsonrpc") != "2.0" or "method" in message:
            return None
        # As text too: a few servers write every id as one, and the clients of the SDKs read that.
        if str(message.get("id")) == str(self._number) and isinstance(message.get("result"), dict):
            return _Reply(status, message["result"])
        if "error" not in message:
            return None
        error = mapping(message["error"])
        code = error.get("code")
        supported = strings(mapping(error.get("data")).get("supported")) if code == UNSUPPORTED_VERSION else []
        words = _text(error.get("message")) or "without a reason"
        return _Reply(status, None, code if isinstance(code, int) else None, supported, _quoted(words))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _quoted(words: str) -> str:
    """What a stranger says, short enough for a sentence of ours."""
    return words if len(words) <= MAX_QUOTE else f"{words[:MAX_QUOTE]}..."
