"""What a running MCP server says of itself, asked as a client asks.

`initialize` comes first, then `server/discover`, then the stream of 2024-11-05, until one of them works; then its
tools. A session that was opened is deleted.

The bytes come from strangers. One deadline covers everything from the look-up of the name to the last page, one number
of bytes all answers together, and whatever is wrong comes out as one sentence that says what to do.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from mcp_registry_client import _fault, _handshake, _tools, _transport, _urls
from mcp_registry_client._answer import Answer, Room
from mcp_registry_client._fault import Failed, Kind
from mcp_registry_client._handshake import HEADER_VALUE, Begun, Handshake, Refusal, Reply
from mcp_registry_client._health import Sight, check
from mcp_registry_client._json import mapping, strings
from mcp_registry_client._transport import AGENT, Deadline, Target
from mcp_registry_client._trimming import LeftOut, name_of, sendable

__all__ = ["Failed", "Introspection", "Kind", "Sight", "check", "introspect"]

# All answers together. The registry takes 1 MiB; what is left out then, pictures for one, may well be more.
MAX_BYTES: Final = 8 << 20

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers that say how a request is framed, who it is for, and what of MCP it is: ours alone.
OWN_HEADERS: Final = frozenset(
    (
        *("connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"),
        *("accept", "accept-encoding", "content-type"),
        *("mcp-method", "mcp-protocol-version", "mcp-session-id"),
    )
)
MAX_QUOTE: Final = 200


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
    server = _Server(url, headers or {}, connect)
    handshake = Handshake(url, server.open, Deadline(deadline_seconds), MAX_BYTES, strict=False)
    try:
        begun = handshake.find()
    finally:
        server.room = Room(MAX_BYTES)
        handshake.leave()
    if begun is None:
        raise _told(handshake.refusals, headers or {})
    return _introspection(begun)


def header_fault(name: str, value: str) -> str | None:
    """Why a header cannot be sent, in one sentence; None where it can."""
    if not TOKEN.fullmatch(name):
        return "A header is written as 'Name: value', its name without spaces"
    if not HEADER_VALUE.fullmatch(value):
        return f"The value of the header {name} has characters that a header cannot have"
    if name.lower() in OWN_HEADERS:
        return f"The header {name} is set by this program"
    return None


# ------------------------------------------------------------------ what it says of itself


def _introspection(begun: Begun) -> Introspection:
    """What a server says of itself, with those of its tools that are some."""
    info = begun.info
    name, title, its_version, description = (_text(info.get(k)) for k in ("name", "title", "version", "description"))
    website = _text(info.get("websiteUrl"))
    if website and _urls.link_fault(website):
        website = None
    version = _handshake.MODERN if begun.era == "modern" else begun.versions[0]
    instructions = _text(begun.instructions)
    found = Introspection(name, title, its_version, description, instructions, version, [], website, [])
    for place, value in enumerate(begun.tools):
        tool, rule = _tool(value)
        if rule is None:
            found.tools.append(tool)
        else:
            found.tools_left_out.append(LeftOut(name_of(value, place), rule))
    return found


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


# ------------------------------------------------------------------ why it cannot be asked


def _told(refusals: list[Refusal], headers: Mapping[str, str]) -> Failed:
    """What is said of a server that no way to begin works with: of several faults the one that came furthest."""
    told = [refusal for refusal in refusals if refusal.reason]
    failures = [refusal for refusal in told if refusal.failed is not None]
    chosen = next((one for one in told if one.lost), None) or next((one for one in told if one.begun), None)
    chosen = chosen or next((one for one in told if _newer(one.reply)), None)
    chosen = chosen or next((one for one in told if one.status in (401, 403)), None)
    # A server of today that was only slow knows no `initialize`: what befell the other question is the reason then.
    slow = [one for one in failures if one.cause in ("closed", "timeout")]
    if chosen is None and slow and told[0].cause in ("mcp_error", "not_mcp"):
        chosen = slow[0]
    chosen = chosen or told[0]
    failed = chosen.failed or _sentence(chosen, headers)
    if chosen.begun is not None:
        failed.server = _introspection(chosen.begun)
    return failed


def _newer(reply: Reply | None) -> list[str]:
    """The versions of a server that speaks newer ones only: it names them in a result, or in a refusal of ours."""
    if reply is None:
        return []
    named = (reply.message or {}).get("result") or {}
    versions = strings(mapping(named).get("supportedVersions"))
    if reply.code == _handshake.UNSUPPORTED_VERSION:
        versions = strings(mapping(reply.error.get("data")).get("supported"))
    return versions if versions and all(version > _handshake.MODERN for version in versions) else []


def _sentence(refusal: Refusal, headers: Mapping[str, str]) -> Failed:
    """Why an answer is of no use, with what to do."""
    reply = refusal.reply
    assert reply is not None
    status = reply.status or 0
    if newer := _newer(reply):
        return Failed("version", f"The server speaks MCP {', '.join(newer)} only: update mcp-registry-client", status)
    if reply.overflowed:
        message = f"The server's answers are longer than {MAX_BYTES >> 20} MiB: serve fewer or shorter tools"
        return Failed("too_large", message, status)
    if (refused := _refused(reply, headers)) is not None:
        return refused
    words = _quoted(_text(reply.error.get("message")) or "without a reason")
    if refusal.begun is not None:
        if reply.error:
            return Failed("invalid", f"The server refuses to list its tools: {words}", status)
        if reply.message is not None:
            return Failed("invalid", f"{refusal.reason}: mend the server", status)
        message = f"The server answered tools/list with {status} and without a result: look into its log"
        return Failed("invalid", message, status)
    if reply.error:
        return Failed("invalid", f"The server refuses to begin a session: {words}", status)
    if refusal.cause == "mcp_error":
        return Failed("invalid", f"{refusal.reason}: mend the server", status)
    if status == 429 or status >= 500:
        return Failed("http_error", f"The server answered {status}: look into its log, or try again later", status)
    message = f"What answers there ({status}) does not speak MCP: check the path of the URL, which is often /mcp"
    return Failed("not_mcp", message, status)


def _refused(reply: Reply, headers: Mapping[str, str]) -> Failed | None:
    """Why a status alone says that nobody will answer; None where it does not."""
    status = reply.status or 0
    if status == 401:
        scheme = reply.header("www-authenticate").partition(" ")[0].rstrip(",")
        scheme = scheme if TOKEN.fullmatch(scheme) else "Bearer"
        if any(name.lower() == "authorization" for name in headers):
            message = "The server refuses the credentials that --header gives (401): check them"
        else:
            message = f"The server wants credentials (401): give --header 'Authorization: {scheme} ...'"
        return Failed("credentials", message, status)
    if status == 403:
        message = "The server forbids this (403): give the credentials that it wants by --header"
        return Failed("credentials", message, status)
    if 300 <= status < 400:
        location = reply.header("location")
        where = f" to {_quoted(location)}: give that address" if location else ", and does not say where: check the URL"
        return Failed("moved", f"The address leads on ({status}){where}", status)
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _quoted(words: str) -> str:
    """What a stranger says, short enough for a sentence of ours."""
    return words if len(words) <= MAX_QUOTE else f"{words[:MAX_QUOTE]}..."


# ------------------------------------------------------------------ the connections


class _Server:
    """A server that is being asked: its address, the headers that it is given, and what is left of the bytes."""

    def __init__(
        self, url: str, headers: Mapping[str, str], connect: Callable[[Deadline], socket.socket] | None
    ) -> None:
        if fault := _urls.endpoint_fault(url):
            raise Failed("url", fault)
        for name, value in headers.items():
            if fault := header_fault(name, value):
                raise Failed("url", fault)
        self.room = Room(MAX_BYTES)
        self._headers = headers
        self._target = Target.of(url)
        self._connect = connect or self._connected

    @contextmanager
    def open(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, deadline: Deadline
    ) -> Generator[Answer]:
        """Send a request on a connection of its own; the answer, whose body is still to be read. Raises Failed."""
        given = {name.lower() for name in self._headers}
        sent = {
            **({} if "user-agent" in given else {"User-Agent": AGENT}),
            "Accept": f"{_handshake.JSON}, {_handshake.EVENTS}",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **({"Content-Type": _handshake.JSON, "Content-Length": str(len(body))} if body else {}),
            **headers,
            **self._headers,
        }
        head = [f"{method} {path} HTTP/1.1", f"Host: {self._target.authority}"]
        head += (f"{name}: {value}" for name, value in sent.items())
        with _fault.plain(self._target, deadline, MAX_BYTES), self._connect(deadline) as sock:

            def receive(most: int) -> bytes:
                sock.settimeout(deadline.left())
                return sock.recv(most)

            # A server may refuse before it has read everything: what it says counts, not that it did not listen.
            with suppress(BrokenPipeError, ConnectionResetError):
                sock.settimeout(deadline.left())
                sock.sendall("\r\n".join([*head, "", ""]).encode("ascii") + body)
            yield Answer(receive, self.room)

    def _connected(self, deadline: Deadline) -> socket.socket:
        return _transport.connected(self._target, deadline)
