"""The handshake of an MCP client: the order of its questions, and what a client can read of the answers.

`initialize` comes first, which every server of before 2026-07-28 knows and none is harmed by; then `server/discover`;
at last the stream of 2024-11-05, where a POST was refused by a 4xx. That is the order of the registry's introduction
(docs/decisions/0009-introduction.md), and one table of servers holds both to the same findings (tests/shapes.py).

How a connection is made, and in which words its failure is told, is whose the handshake is: `introspect` or `check`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urljoin

from mcp_registry_client import _kinds, _transport, _urls
from mcp_registry_client._answer import Answer, TooLong, events
from mcp_registry_client._fault import Failed
from mcp_registry_client._json import mapping, parsed, strings
from mcp_registry_client._numbers import first_id
from mcp_registry_client._transport import Deadline

NAME, VERSION = "mcp-registry", "1.0"
MODERN: Final = "2026-07-28"
# What `initialize` offers; a server answers with this one or with another that it has. A stock client takes these.
OFFERED: Final = "2025-11-25"
LEGACY: Final = frozenset(("2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", OFFERED))
CLIENT: Final = {"name": NAME, "version": VERSION}
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022

JSON, EVENTS = "application/json", "text/event-stream"
# Of the time that is left what the first question of each way may take, so that there is time for the next one.
FIRST_SHARE: Final = 0.6
# How long a stream may take to say where to post to.
STREAM_SECONDS: Final = 5.0
# What deleting a session may take beyond the deadline: a server that was too slow for us must not pay with its memory.
GRACE_SECONDS: Final = 2.0
# Pages without a tool that lead on to another one: more of them is a list that does not end.
MAX_EMPTY_PAGES: Final = 100
# What the registry reads of a list; the rest of a longer one changes no verdict.
MAX_PAGES: Final = 50
MAX_ITEMS: Final = 2_000
MAX_EXCERPT: Final = 500
# Questions of the server that are answered.
MAX_ANSWERS: Final = 20
# Ids of requests that we repeat: whoever asks with a longer one would have us say megabytes.
MAX_ID: Final = 200
MAX_NUMBER: Final = 1 << 64
# Redirects within the origin that one question follows, as `mcp` does.
MAX_REDIRECTS: Final = 20
# What the clients of the SDKs send: some servers refuse whoever takes nothing packed, or closes each time.
AS_CLIENTS: Final = {"Accept-Encoding": "gzip, deflate", "Connection": "keep-alive"}
# White space, and the bytes of a byte order mark, which some servers on Windows put before their JSON.
BEFORE_JSON: Final = b" \t\r\n\xef\xbb\xbf"
# Enough bytes for so many characters, whatever they are.
SAMPLE: Final = 2_000
SESSION_ID: Final = re.compile(r"[!-~]{1,1024}")
HEADER_VALUE: Final = re.compile(r"[\t -~]*")
SSE_PATH: Final = re.compile(r"/sse(?:[/?]|$)", re.IGNORECASE)
REDIRECTS: Final = frozenset((307, 308))
# Answers without a body, whatever their headers say (RFC 9110, sections 6.4.1 and 15).
BODILESS: Final = frozenset((101, 204, 205, 304))

# Where a redirect leads that wants somebody to log in.
# One that moves the address for good (301, 308) wants nothing of anybody.
LOGIN_STATUSES: Final = frozenset({302, 303, 307})
# A label of the host or a part of the path by itself: `/welcome?from=login` and `/authors` are no such page.
LOGIN: Final = re.compile(
    r"[/.](?:log[-_]?[io]n|sign[-_]?in|sso|oauth2?|openid|oidc|saml2?|authori[sz]e|authenticate|auth)(?=[/.;:]|$)",
    re.IGNORECASE,
)
# How a server says in plain words that it does not know our session, or our version of the protocol.
REFUSAL: Final = re.compile(
    rb"session[ -]?id|session not found|invalid session|protocol version|unexpected message, expect", re.IGNORECASE
)
MAX_REFUSAL: Final = 512
# The first frame of a server that takes whatever comes for HTTP/2: SETTINGS (RFC 9113, sections 3.4 and 4.1).
HTTP_2: Final = re.compile(rb"\x00\x00.\x04\x00\x00\x00\x00\x00", re.DOTALL)
BROKE_OFF: Final = (
    "The connection was closed in the middle of the answer: look into the server's log, and at what stands between"
)

# Sends a request by its method, path, headers and body, and gives the answer whose body is still to be read. Raises
# Failed, also for what goes wrong while it is read.
Open = Callable[[str, str, Mapping[str, str], bytes, Deadline], AbstractContextManager[Answer]]


class Evidence(NamedTuple):
    """One question that was of no use, and what came back. `status` and `media_type` are None where nothing did."""

    asked: str
    status: int | None
    media_type: str | None
    excerpt: str
    took_ms: int


class Reply:
    """What came back to a request, as far as it was read. `status` is None where no answer came.

    `message` is the response to the request, `text` the body of an answer that is no stream, `sample` the beginning of
    any. `overflowed`: there was no room for the rest; `broke_off`: the connection ended before the answer did.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.message: dict[str, Any] | None = None
        self.text = bytearray()
        self.sample = b""
        self.overflowed = self.broke_off = False
        # Whether the request carried a session, or was one that a server may want a session for.
        self.may_miss_session = True

    @property
    def media_type(self) -> str:
        """The media type without parameters, in lower case; empty where the answer names none."""
        return self.header("content-type").partition(";")[0].strip().lower()

    @property
    def error(self) -> dict[str, Any]:
        """The error of JSON-RPC; empty where there is none."""
        return mapping((self.message or {}).get("error"))

    @property
    def code(self) -> int | None:
        """The code of that error."""
        code = self.error.get("code")
        return code if isinstance(code, int) else None

    def header(self, name: str) -> str:
        """The value of a header, given in lower case; empty where there is none."""
        return self.headers.get(name, "")

    def begin(self, answer: Answer) -> None:
        """Take the head."""
        self.status, self.headers = answer.status, answer.headers

    @property
    def excerpt(self) -> str:
        """The beginning of the body, whatever is in it."""
        return self.sample.decode("utf-8", "replace")[:MAX_EXCERPT]

    def take(
        self,
        answer: Answer,
        number: int | None,
        goes_on: Callable[[bytearray], bool] | None = None,
        on_request: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Take the body, as far as it matters to the request of this number. Raises what `answer` does but TooLong.

        `goes_on`: where it is given, whether a body that has begun like this is read any further. `on_request` is
        called with each request of the server's own that a stream carries before the response.
        """
        if answer.status in BODILESS:
            return
        try:
            if answer.is_stream:
                for name, data in events(self._sampled(answer.pieces())):
                    if number is not None and name in ("", "message"):
                        value = parsed(data, strict=False)
                        self.message = response(value, number, in_stream=True)
                        if self.message is not None:
                            return
                        if on_request is not None:
                            for request in requests(value):
                                on_request(request)
            else:
                for piece in self._sampled(answer.pieces()):
                    self.text += piece if self.text else piece.lstrip(BEFORE_JSON)
                    if goes_on is not None and self.text and not goes_on(self.text):
                        return
        except TooLong:
            self.overflowed = True
        self.broke_off = answer.broke_off
        if number is not None and not answer.is_stream and not self.overflowed:
            self.message = response(parsed(bytes(self.text), strict=False), number)

    def _sampled(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if len(self.sample) < SAMPLE:
                self.sample += piece[: SAMPLE - len(self.sample)]
            yield piece


class Refusal(Exception):
    """A way to begin that came to nothing. `cause`: of which verdict that is, None where it is none of its own.

    `reason`: a sentence, in the registry's words. `failed`: where no answer came. `lost`: nobody can be reached there,
    so that no other question will be answered either. `begun`: what the server had said of itself by then.
    """

    def __init__(
        self, cause: str | None, reason: str, reply: Reply | None = None, *, failed: Failed | None = None
    ) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason
        self.reply = reply
        self.failed = failed
        self.lost = failed is not None and failed.lost
        self.begun: Begun | None = None
        self.method = ""

    @property
    def status(self) -> int | None:
        return None if self.reply is None else self.reply.status


class Begun(NamedTuple):
    """What a server says of itself, by the way that worked: legacy, modern or sse. `tools` are as it lists them."""

    era: str
    versions: Sequence[str]
    info: Mapping[str, Any]
    capabilities: Mapping[str, Any]
    instructions: Any
    tools: list[Any]


# Asks for one thing by its method and parameters; the result, and the answer that it came in. Raises Refusal.
Ask = Callable[[str, Mapping[str, Any]], "tuple[dict[str, Any], Reply]"]


class Handshake:
    """A handshake under way: what is left of its time and of its bytes, its session, and what went wrong so far.

    `strict`: what no stock client can read is refused, as the registry does; otherwise as much as possible is taken.
    """

    def __init__(self, url: str, open_: Open, deadline: Deadline, most: int, *, strict: bool) -> None:
        """`most`: how many bytes all answers may have; who opens them counts."""
        # What has to be sent with every request of the session that is open.
        self.session: dict[str, str] = {}
        self.refusals: list[Refusal] = []
        self.evidence: list[Evidence] = []
        self._url = url
        self._path = _urls.path(url)
        self._open = open_
        self._deadline = deadline
        self._most = most
        self._strict = strict
        self._number = first_id()
        self._answered = 0
        # What was asked last and what came back, until that is kept as evidence.
        self._heard: Evidence | None = None

    def find(self) -> Begun | None:
        """Try the ways to begin one after the other; what the one that worked has found, None where none did."""
        for way in (self._begin_legacy, self._begin_modern, self._begin_stream):
            try:
                return way()
            except Refusal as refusal:
                self.refusals.append(refusal)
                if refusal.lost or refusal.status == 429:
                    return None
            self.leave()
        return None

    def leave(self) -> None:
        """Delete the session, where one was opened. It may fail: what an answer to it would say changes nothing."""
        session, self.session = self.session, {}
        if "Mcp-Session-Id" in session:
            with (
                suppress(Failed),
                self._open("DELETE", self._path, {**AS_CLIENTS, **session}, b"", Deadline(GRACE_SECONDS)),
            ):
                pass

    # ------------------------------------------------------------------ the three ways

    def _begin_legacy(self) -> Begun:
        """`initialize`, `notifications/initialized` and the tools, in a session where the server wants one."""
        result, reply = self._call("initialize", self._offer(), {}, share=FIRST_SHARE)
        version = self._agreed(result, reply)
        self.session["MCP-Protocol-Version"] = version
        self._notify("", self.session)
        begun = _begun("legacy", result, (version,), result.get("serverInfo"))
        return self._listed(begun, lambda method, params: self._call(method, params, self.session))

    def _begin_modern(self) -> Begun:
        """`server/discover` and the tools, each request by itself."""

        def ask(method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], Reply]:
            headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            share = FIRST_SHARE if method == "server/discover" else 1.0
            return self._call(method, {**params, "_meta": META}, headers, share=share)

        result, reply = ask("server/discover", {})
        versions = strings(result.get("supportedVersions"))
        if self._strict or MODERN not in versions:
            self._check("server/discover", _discover_fault(result), reply)
        info = mapping(result.get("_meta")).get(SERVER_INFO) or result.get("serverInfo")
        return self._listed(_begun("modern", result, versions, info), ask)

    def _begin_stream(self) -> Begun:
        """The transport of 2024-11-05: a stream that says where to post to, and carries the answers."""
        if not any(self._takes_no_post(refusal) for refusal in self.refusals):
            raise Refusal(None, "")
        stream = Reply()
        deadline = Deadline(min(STREAM_SECONDS, self._left()))
        began = time.monotonic()
        none = Refusal("not_mcp", "The address opens no stream of an MCP server", stream)
        try:
            with self._open("GET", self._path, {**AS_CLIENTS, "Accept": EVENTS}, b"", deadline) as answer:
                stream.begin(answer)
                if stream.status != 200 or not answer.is_stream:
                    stream.take(answer, None)
                    self.evidence.append(self._evident("GET", stream, began))
                    raise none
                found = events(answer.pieces())
                where = next((data for name, data in found if name == "endpoint"), None)
                if where is None:
                    raise none
                path = onward(self._url, self._path, where.decode("utf-8", "replace"))
                if path is None:
                    raise Refusal("mcp_error", "The stream leads to another origin, where no client goes", stream)
                deadline.extend(self._deadline)

                def ask(method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], Reply]:
                    return self._call_by_stream(found, path, method, params)

                result, reply = ask("initialize", self._offer())
                version = self._agreed(result, reply)
                self._notify(path, {})
                return self._listed(_begun("sse", result, (version,), result.get("serverInfo")), ask)
        except TooLong:
            raise Refusal("mcp_error", self._too_long(), stream) from None
        except Failed as failed:
            if failed.lost or stream.status == 200:
                raise self._unanswered("GET", failed) from None
            self.evidence.append(self._evident("GET", stream, began))
            raise none from None

    def _takes_no_post(self, refusal: Refusal) -> bool:
        """Whether this is how an address answers that is one of a stream."""
        status = refusal.status
        if status is None or status == 401 or is_gated(refusal.reply):
            return False
        return 400 <= status < 500 or SSE_PATH.search(self._path) is not None

    def _call_by_stream(
        self, found: Iterator[tuple[str, bytes]], path: str, method: str, params: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Reply]:
        began = time.monotonic()
        reply = self._ask(method, params, {}, path=path)
        if reply.status is None or not 200 <= reply.status < 300:
            raise self._no_answer(method, reply)
        for _, data in found:
            value = parsed(data, strict=False)
            for request in requests(value):
                self._answer(request, path)
            reply.message = response(value, self._number)
            if reply.message is not None:
                # The answer is what the stream carried, not what was said to the message that asked for it.
                reply.sample = data[:SAMPLE]
                self._heard = self._evident(method, reply, began)
                result = reply.message.get("result")
                if not isinstance(result, dict):
                    raise self._no_answer(method, reply)
                return cast("dict[str, Any]", result), reply
        raise Refusal("timeout", f"The stream carried no answer to {method}", reply)

    def _offer(self) -> dict[str, Any]:
        return {"protocolVersion": OFFERED, "capabilities": {}, "clientInfo": CLIENT}

    def _agreed(self, result: Mapping[str, Any], reply: Reply) -> str:
        """The version that an answer to `initialize` names. Raises Refusal where it is of no use."""
        version = result.get("protocolVersion")
        if self._strict or not isinstance(version, str) or not HEADER_VALUE.fullmatch(version):
            self._check("initialize", _initialize_fault(result), reply)
        return cast("str", version)

    # ------------------------------------------------------------------ the tools

    def _listed(self, begun: Begun, ask: Ask) -> Begun:
        """The same with its tools. Raises Refusal where they cannot be listed."""
        try:
            return begun._replace(tools=self._pages(ask, begun.era) if self._strict else self._all_pages(ask))
        except Refusal as refusal:
            refusal.begun = begun
            # A server that names no tools need not know how to list them.
            knows_none = "tools" not in begun.capabilities if self._strict else _knows_none(refusal)
            if not knows_none or refusal.reply is None or refusal.failed or refusal.status == 429:
                raise
            if is_gated(refusal.reply, begun=True):
                raise
            return begun

    def _pages(self, ask: Ask, era: str) -> list[Any]:
        """The tools as far as the registry reads them: only the first page has to be one that a client reads."""
        table = _kinds.MODERN_TOOLS if era == "modern" else _kinds.TOOLS
        tools: list[Any] = []
        cursors: set[str] = set()
        params: dict[str, Any] = {}
        while True:
            try:
                result, reply = ask("tools/list", params)
                self._check("tools/list", _kinds.fault(result, table), reply)
            except Refusal as refusal:
                # A list that is too long for us is not too long for a client.
                too_long = refusal.reply is not None and refusal.reply.overflowed and refusal.status == 200
                if cursors or too_long:
                    return tools
                raise
            tools += cast("list[Any]", result["tools"])
            cursor = result.get("nextCursor")
            if not cursor or cursor in cursors or len(tools) > MAX_ITEMS or len(cursors) + 1 >= MAX_PAGES:
                return tools
            cursors.add(cursor)
            params = {"cursor": cursor}

    def _all_pages(self, ask: Ask) -> list[Any]:
        """All the tools, whatever they are."""
        tools: list[Any] = []
        cursors: set[str] = set()
        empty = 0
        params: dict[str, Any] = {}
        while True:
            result, reply = ask("tools/list", params)
            listed = result.get("tools")
            if not isinstance(listed, list):
                raise Refusal("mcp_error", "The server's answer to tools/list has no list of tools", reply)
            found = cast("list[Any]", listed)
            tools += found
            cursor = result.get("nextCursor")
            if not cursor:
                return tools
            empty += not found
            if not isinstance(cursor, str) or cursor in cursors or empty >= MAX_EMPTY_PAGES:
                raise Refusal("mcp_error", "The server's list of tools does not end: its cursors lead nowhere", reply)
            cursors.add(cursor)
            params = {"cursor": cursor}

    # ------------------------------------------------------------------ requests and answers

    def _call(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str], *, share: float = 1.0
    ) -> tuple[dict[str, Any], Reply]:
        """The result of a request, and the answer that it came in. Raises Refusal."""
        reply = self._ask(method, params, headers, share=share)
        status = reply.status or 0
        # 202 means that no answer follows here; a client waits for none in another type.
        readable = 200 <= status < 300 and status != 202 and reply.media_type.startswith((JSON, EVENTS))
        if not self._strict:
            readable = status not in (401, 402, 403) and not 300 <= status < 400
        result = (reply.message or {}).get("result")
        if not readable or not isinstance(result, dict):
            raise self._no_answer(method, reply)
        return cast("dict[str, Any]", result), reply

    def _ask(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str], *, path: str = "", share: float = 1.0
    ) -> Reply:
        """Ask something and read the answer. Raises Refusal where none comes."""
        self._number += 1
        return self._post({"id": self._number, "method": method, "params": params}, headers, path, share)

    def _notify(self, path: str, headers: Mapping[str, str]) -> None:
        """Say that it is initialized. What is said to it does not matter: the next request tells if it was taken."""
        try:
            self._post({"method": "notifications/initialized"}, headers, path, 1.0)
        except Refusal as refusal:
            if refusal.lost or refusal.cause == "timeout":
                raise

    def _post(self, message: Mapping[str, Any], headers: Mapping[str, str], path: str, share: float) -> Reply:
        """Send a message and read the answer; redirects within the origin are followed. Raises Refusal."""
        method, number = message["method"], message.get("id")
        body = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode()
        seen = {path or self._path}
        for followed in range(MAX_REDIRECTS + 1):
            reply = Reply()
            reply.may_miss_session = "Mcp-Session-Id" in headers
            began = time.monotonic()
            try:
                sent = {**AS_CLIENTS, **headers}
                with self._open("POST", path or self._path, sent, body, self._part(share, method)) as answer:
                    reply.begin(answer)
                    self._keep(reply)
                    # Of what is said to a notification nobody waits for more than the head.
                    if number is not None:
                        reply.take(answer, number, on_request=lambda request: self._answer(request, ""))
                    if reply.broke_off and reply.message is None and number is not None and not self._strict:
                        raise Failed("closed", BROKE_OFF, reply.status)
            except Failed as failed:
                self._heard = self._evident(method, reply, began)
                self._note()
                raise self._unanswered(method, failed) from None
            self._heard = self._evident(method, reply, began)
            status = reply.status or 0
            if status >= 300 or (reply.message is None and number is not None) or "error" in (reply.message or {}):
                self._note()
            if status not in REDIRECTS or followed == MAX_REDIRECTS:
                return reply
            led = onward(self._url, path or self._path, reply.header("location"))
            if led is None or led in seen:
                return reply  # who leads in a circle leads nowhere, however often that is asked
            seen.add(led)
            if path:
                path = led
            else:
                self._path = led
        raise AssertionError

    def _answer(self, request: Mapping[str, Any], path: str) -> None:
        """Answer a request of the server's own, as stock clients do: a ping, and that we know nothing else.

        It may be waiting for that. What is said to the answer changes nothing, nor whether it arrives.
        """
        if self._answered >= MAX_ANSWERS:
            return
        self._answered += 1
        told = {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
        answer = {"jsonrpc": "2.0", "id": request["id"], **({"result": {}} if request["method"] == "ping" else told)}
        body = json.dumps(answer, separators=(",", ":")).encode()
        with (
            suppress(Failed),
            self._open("POST", path or self._path, {**AS_CLIENTS, **self.session}, body, self._deadline),
        ):
            pass

    def _unanswered(self, method: str, failed: Failed) -> Refusal:
        refusal = Refusal(failed.kind, failed.message, failed=failed)
        refusal.method = method
        return refusal

    def _no_answer(self, method: str, reply: Reply) -> Refusal:
        """What is wrong with an answer without a result, in the registry's words."""
        self._note()
        status = reply.status or 0
        refusal = Refusal("mcp_error", "", reply)
        refusal.method = method
        if reply.overflowed:
            refusal.reason = self._too_long()
        elif status == 429 or status >= 500:
            refusal.cause, refusal.reason = "http_error", f"{method} was answered {status}"
        elif reply.code is not None or reply.error:
            refusal.reason = f"{method} was refused with the JSON-RPC error {reply.code}"
        elif 300 <= status < 400:
            refusal.cause, refusal.reason = "not_mcp", f"The address leads on ({status}), where no client follows"
        elif reply.message is not None:
            kind = reply.media_type or "no media type"
            refusal.reason = f"{method} was answered as {kind}, which no client reads: it wants {JSON}"
        elif status >= 400:
            refusal.cause, refusal.reason = "not_mcp", f"The endpoint answered {status} and does not speak MCP"
        else:
            refusal.cause, refusal.reason = "not_mcp", f"{method} was answered {status}, and not by MCP"
            encoding = reply.header("content-encoding")
            if encoding and encoding.lower() not in ("identity", "gzip", "x-gzip", "deflate"):
                refusal.reason += f": the answer is compressed ({encoding[:20]}), which was not asked for"
        return refusal

    def _too_long(self) -> str:
        return f"The answers are longer than {self._most >> 20} MiB"

    def _check(self, method: str, fault: str | None, reply: Reply) -> None:
        """Raise Refusal where a client cannot read an answer."""
        if fault:
            self._note()
            refusal = Refusal("mcp_error", f"No client can read the answer to {method}: {fault}", reply)
            refusal.method = method
            raise refusal

    def _keep(self, reply: Reply) -> None:
        """Take note of a session before a byte of the body is read: whatever becomes of the answer, it exists.

        Not of one that a refusal names: it may be somebody else's, as where one transport is one session (swift-sdk).
        """
        session = reply.header("mcp-session-id")
        opened = 200 <= (reply.status or 0) < 300
        if opened and "Mcp-Session-Id" not in self.session and SESSION_ID.fullmatch(session):
            self.session["Mcp-Session-Id"] = session

    def _evident(self, asked: str, reply: Reply, began: float) -> Evidence:
        took = round((time.monotonic() - began) * 1000)
        return Evidence(asked, reply.status, reply.media_type or None, reply.excerpt, took)

    def _note(self) -> None:
        """Keep what was heard last as evidence, once."""
        if self._heard is not None:
            self.evidence.append(self._heard)
            self._heard = None

    def _left(self) -> float:
        try:
            return self._deadline.left()
        except _transport.Failed:
            return 0.0

    def _part(self, share: float, method: str) -> Deadline:
        """A deadline of one question, after a part of the time that is left."""
        left = self._left()
        # Whoever keeps to one that is over fails at once, and in plain words.
        return Deadline(left * share, method) if left else self._deadline


def response(value: Any, number: int, *, in_stream: bool = False) -> dict[str, Any] | None:
    """The JSON-RPC response to a request in what came, which may be several messages; None where there is none.

    In a stream that answers one request the id does not matter to the clients of the SDK (2.x for Python), and nowhere
    that of an error, which may be about a request that could not be read. An id may be written as a text.
    """
    for one in cast("list[Any]", value) if isinstance(value, list) else [value]:
        message = mapping(one)
        if message.get("jsonrpc") != "2.0":
            continue
        if isinstance(message.get("error"), dict):
            return message
        if isinstance(message.get("result"), dict) and (in_stream or str(message.get("id")) == str(number)):
            return message
    return None


def requests(value: Any) -> list[dict[str, Any]]:
    """The requests of JSON-RPC in what came, which may be several messages, if they have an id that can be repeated."""
    messages = map(mapping, cast("list[Any]", value) if isinstance(value, list) else [value])
    return [message for message in messages if _is_request(message)]


def _is_request(message: Mapping[str, Any]) -> bool:
    number = message.get("id")
    is_id = len(number) <= MAX_ID if isinstance(number, str) else type(number) is int and abs(number) < MAX_NUMBER
    return message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str) and is_id


def onward(url: str, path: str, location: str) -> str | None:
    """The path to which a redirect or a stream leads from a path of this URL's origin, where it stays within that."""
    try:
        target = urljoin(_urls.origin(url) + path, location)
    except ValueError:
        return None
    if not location or _urls.link_fault(target) or _urls.origin(target) != _urls.origin(url):
        return None
    return _urls.path(target)


def is_gated(reply: Reply | None, *, begun: bool = False) -> bool:
    """Whether an answer asks for credentials, as the registry sees it.

    A 401 that only says, in plain words, that a session is unknown or missing asks for none (rmcp up to 0.16), but
    where no session could be missed: who asks `initialize` has none yet, and a client reads that as a gate. A 403
    does where it brings a challenge or is JSON-RPC, or where the server had let us in before (`begun`); else it is what
    a firewall says, or a gateway about a route that is not there. 402 wants to be paid. A redirect to a page on which
    somebody is to log in is how a login wall says it.
    """
    if reply is None or reply.status is None:
        return False
    status, challenge = reply.status, bool(reply.header("www-authenticate"))
    if status == 401:
        text = bytes(reply.text)
        may_refuse = len(text) <= MAX_REFUSAL and not text.startswith(b"{") and b"<" not in text
        return challenge or not (may_refuse and reply.may_miss_session) or REFUSAL.search(text) is None
    if status == 403:
        return challenge or reply.message is not None or begun
    if 300 <= status < 400:
        return status in LOGIN_STATUSES and _is_login(reply.header("location"))
    return status == 402


def _is_login(location: str) -> bool:
    """Whether a redirect leads to where somebody is to log in."""
    return LOGIN.search(re.split(r"[?#]", location, maxsplit=1)[0]) is not None


def _begun(era: str, result: Mapping[str, Any], versions: Sequence[str], info: Any) -> Begun:
    return Begun(era, versions, mapping(info), mapping(result.get("capabilities")), result.get("instructions"), [])


def _knows_none(refusal: Refusal) -> bool:
    return refusal.reply is not None and refusal.reply.code == METHOD_NOT_FOUND


# ------------------------------------------------------------------ what keeps a stock client from reading an answer


def _initialize_fault(result: Mapping[str, Any]) -> str | None:
    """What keeps a client from taking the answer to `initialize`, in a few words; None where nothing does."""
    if words := _kinds.fault(result, _kinds.INITIALIZE):
        return words
    version: str = result["protocolVersion"]
    return None if version in LEGACY else f"it names the version {version[:20]}, which has no handshake"


def _discover_fault(result: Mapping[str, Any]) -> str | None:
    """The same of `server/discover`."""
    if words := _kinds.fault(result, _kinds.DISCOVER):
        return words
    return None if MODERN in result["supportedVersions"] else f"it names none of the versions {MODERN}"
