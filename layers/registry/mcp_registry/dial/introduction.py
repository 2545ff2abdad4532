"""The introduction: the handshake of an MCP client, which alone says what a server is.

A server is `up` where a stock MCP client can begin with it and list its tools, `gated` where that client is asked for
credentials, `limited` where it is told to come again later, and `down` otherwise. What is sent, and in which order, is
what those clients send; what they cannot read is not read here either (docs/decisions/0009-introduction.md).

No credential of ours is ever sent, and headers that somebody gave for a server to its origin alone: redirects are
followed within it only, and what is read elsewhere is asked for without them. Every session that a server opens for us
is deleted, whatever happens, and also where nobody waits for the introduction any more. What a server says is data: it
is bounded, kept as it is, and never followed.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from random import SystemRandom
from typing import Any, Final, NamedTuple, Self, cast

from mcp_registry.dial import exchange, guard, kinds, reach, urls
from mcp_registry.dial.exchange import Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.lookup import Names, Resolver, System
from mcp_registry.dial.reach import Finding, Site
from mcp_registry.dial.reply import SAMPLE, Receipt, Reply, Stream, parsed, requests, response

# All of an introduction but deleting its session; a server may be as slow as that.
SECONDS: Final = 20.0
# Of what is left of that, what the first question of each way to begin may take, so that there is time for the next.
FIRST_SHARE: Final = 0.6
# What a stream may take to say where to post to: some are open to everybody and never say it.
STREAM_SECONDS: Final = 5.0
# What deleting a session may take beyond that: a server that was too slow for us must not pay with its memory.
GRACE_SECONDS: Final = 2.0
# What finding out how one gets in may take, and what is read of each document about it.
GATE_SECONDS: Final = 5.0
MAX_METADATA: Final = 0x10000

# All answers together, what compressed ones grow to included.
MAX_BYTES: Final = 4 << 20
# The same of a brief introduction, of which a sweep makes hundreds at once.
MAX_BRIEF_BYTES: Final = 0x40000
MAX_PAGES: Final = 50
MAX_ITEMS: Final = 2_000
MAX_DEPTH: Final = 64
# Events of a stream that nobody has waited for yet.
MAX_WAITING: Final = 1_000
# Redirects within the origin that one question follows, as `mcp` does.
MAX_REDIRECTS: Final = reach.MAX_REDIRECTS
# Questions of the server that are answered, and what is read of what is said to each answer.
MAX_ANSWERS: Final = 20
MAX_RECEIPT: Final = 4_096
MAX_EXCERPT: Final = 500
MAX_WORD: Final = 200
MAX_WORDS: Final = 64
# Nobody is left unasked for longer than this, whatever `Retry-After` says.
MAX_RETRY_SECONDS: Final = 300

NAME, VERSION = "mcp-registry", "1.0"
MODERN: Final = "2026-07-28"
# What `initialize` offers; a server answers with this one or with another that it has. A client takes these.
OFFERED: Final = "2025-11-25"
LEGACY: Final = frozenset({"2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", OFFERED})
CLIENT: Final = {"name": NAME, "version": VERSION}
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
# The ids of our requests. A bridge may pass on what several clients ask under the ids that they chose, and mix up those
# who chose the same one at the same time; nearly all count from 1. So ours begin where nobody counts to: each
# introduction somewhere in FIRST_IDS, with room to count on, and the question of a pulse, which is the same one each
# time, below that. All are numbers of at most 31 bits, because not everybody reads longer ones, nor texts.
FIRST_IDS: Final = range(1 << 30, 3 << 29)
PULSE_ID: Final = 847_261_935

JSON, EVENTS = "application/json", "text/event-stream"
SESSION_ID: Final = re.compile(r"[!-~]{1,1024}")
# The first frame of a server that takes whatever comes for HTTP/2: SETTINGS (RFC 9113, sections 3.4 and 4.1).
HTTP_2: Final = re.compile(rb"\x00\x00.\x04\x00\x00\x00\x00\x00", re.DOTALL)
SSE_PATH: Final = re.compile(r"/sse(?:[/?]|$)", re.IGNORECASE)
# Where a redirect leads that wants somebody to log in.
# One that moves the address for good (301, 308) wants nothing of anybody.
LOGIN_STATUSES: Final = frozenset({302, 303, 307})
# A label of the host or a part of the path by itself: `/welcome?from=login` and `/authors` are no such page.
LOGIN: Final = re.compile(
    r"[/.](?:log[-_]?[io]n|sign[-_]?in|sso|oauth2?|openid|oidc|saml2?|authori[sz]e|authenticate|auth)(?=[/.;:]|$)",
    re.IGNORECASE,
)
# How a text names the header that it wants.
HEADER_NAME: Final = re.compile(
    r"(?<![\w-])(Authorization|X-[A-Za-z0-9-]{2,60}|(?:[A-Za-z0-9]+-){1,4}(?:Key|Token|Secret|Auth))(?![\w-])",
    re.IGNORECASE,
)
PARAMETER: Final = re.compile(r'([\w*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*)')
SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,40}")
# Printable by Unicode, and nothing to see: fillers, blanks, selectors of variants.
UNSEEN: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
METHOD_NOT_FOUND: Final = -32601


class Evidence(NamedTuple):
    """One question and what came back: enough to see why a verdict is what it is.

    `excerpt` is the beginning of the answer, at most 500 characters, in which what cannot be seen is written out as an
    escape. `status` and `media_type` are None where no answer came.
    """

    asked: str
    status: int | None
    media_type: str | None
    excerpt: str
    took_ms: int


class Gate(NamedTuple):
    """How one gets in, as far as the server says it.

    `schemes` and `realm` of its challenge; `resource_metadata` is the URL of its OAuth metadata (RFC 9728), `issuer`
    and `scopes` what stands there; `header` is one that its answer names.
    """

    status: int
    schemes: tuple[str, ...] = ()
    realm: str | None = None
    resource_metadata: str | None = None
    issuer: str | None = None
    scopes: tuple[str, ...] = ()
    header: str | None = None
    location: str | None = None


class Introduction(NamedTuple):
    """What an introduction found.

    `verdict`: up, gated, limited or down; None where it was our own fault that nothing was found out. `cause`, where it
    is down: dns, refused, timeout, tls, blocked, not_mcp, http_error, or mcp_error where JSON-RPC is spoken and no
    client can begin or list. `reason` is a sentence of ours about it, never the server's words; those are in
    `evidence`, the answers that were no use, in the order in which they came.

    `era`: modern, legacy or sse, the way that worked. `protocol_versions`: all that a modern server names; the one
    that was agreed on with another. Lists are as the server sends them, over all pages; `incomplete` says of a list, by
    its name, why it is not whole. `ttl_ms` is how long a modern server says that its list of tools will do.
    `retry_after` is in seconds.
    """

    verdict: str | None
    cause: str | None = None
    reason: str | None = None
    era: str | None = None
    protocol_versions: tuple[str, ...] = ()
    server_info: Mapping[str, Any] = {}
    capabilities: Mapping[str, Any] = {}
    instructions: str | None = None
    tools: Sequence[dict[str, Any]] = ()
    prompts: Sequence[dict[str, Any]] = ()
    resources: Sequence[dict[str, Any]] = ()
    templates: Sequence[dict[str, Any]] = ()
    incomplete: Mapping[str, str] = {}
    ttl_ms: int | None = None
    gate: Gate | None = None
    retry_after: int | None = None
    evidence: tuple[Evidence, ...] = ()
    status_code: int | None = None
    took_ms: int = 0


class Introducer:
    """Makes the introductions of one event loop, as many at once as are asked for.

    It shares the dialler and the look-ups with the checks of the same loop.
    """

    def __init__(self, dialler: Dialler, names: Names, policy: Policy) -> None:
        self._dialler = dialler
        self._names = names
        self._policy = policy
        self._leaving: set[asyncio.Task[None]] = set()

    async def introduce(
        self,
        url: str,
        *,
        seconds: float = SECONDS,
        before: str | None = None,
        brief: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Introduction:
        """Introduce ourselves to a server, within so many seconds and two more for its session.

        `before` is the era of the last introduction that succeeded: what worked then is tried first, and a bare 403 of
        such a server means that it wants credentials now. `brief`: only the verdict is wanted, as in a sweep. It is the
        same one, of the first page of the tools, and no list is kept, nor how one gets in where that stands elsewhere.
        `headers` go along with every request to the server; none of them is one that we send ourselves
        (`health.probe_headers`). Raises nothing but CancelledError.
        """
        visit = _Visit(self._dialler, self._names, self._policy, url, seconds, before, brief=brief, headers=headers)
        try:
            return await visit.find()
        finally:
            if visit.session:
                task = asyncio.get_running_loop().create_task(visit.leave())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
                await asyncio.shield(task)

    async def close(self) -> None:
        """Wait until the sessions of all introductions are deleted, of those too that were cancelled."""
        await asyncio.gather(*self._leaving, return_exceptions=True)


async def introduce(
    url: str,
    *,
    seconds: float = SECONDS,
    policy: Policy | None = None,
    resolver: Resolver | None = None,
    headers: Mapping[str, str] | None = None,
) -> Introduction:
    """Introduce ourselves to one server, on the loop that runs. `headers`: as `Introducer.introduce`."""
    policy = policy or guard.policy()
    system = System()
    names = Names(resolver or system, policy)
    introducer = Introducer(Dialler(asyncio.get_running_loop()), names, policy)
    try:
        return await introducer.introduce(url, seconds=seconds, headers=headers)
    finally:
        await introducer.close()
        await names.close()
        await system.close()


# ------------------------------------------------------------------ one introduction


class _Failed(Exception):
    """A way to begin that came to nothing: what was wrong, and the answer that said so, where there was one."""

    def __init__(self, cause: str | None, reason: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason
        self.reply = reply
        # Whether it had begun: of several ways that fail, the one that came further is the one to tell of.
        self.begun = False

    def forgotten(self) -> Self:
        """The same without where it came from and what was answered, of which it would keep what nobody needs."""
        self.__traceback__ = self.__context__ = None
        if self.reply is not None:
            self.reply.forget()
        return self

    @property
    def status(self) -> int | None:
        return None if self.reply is None else self.reply.status

    @property
    def code(self) -> int | None:
        """The code of the JSON-RPC error, where the answer is one."""
        error: Any = (self.reply.message or {}).get("error") if self.reply is not None else None
        code = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
        return code if isinstance(code, int) else None


class _Lost(_Failed):
    """Nobody can be reached there, so that no other question will be answered either."""


# What keeps a client from reading a result, in a few words; None where nothing does.
Fault = Callable[[Mapping[str, Any]], str | None]
# Asks for one thing by its method and parameters; the result, where a client can read it. Raises _Failed.
Ask = Callable[[str, Mapping[str, Any], Fault], Awaitable[dict[str, Any]]]


class _Visit:
    """An introduction under way: where it goes, what is left of its time and of its bytes, and its session."""

    def __init__(
        self,
        dialler: Dialler,
        names: Names,
        policy: Policy,
        url: str,
        seconds: float,
        before: str | None,
        *,
        brief: bool,
        headers: Mapping[str, str] | None,
    ) -> None:
        # What somebody gave for this server.
        self._given = headers or {}
        # What has to be sent with every request of the session that is open.
        self.session: dict[str, str] = {}
        self._dialler = dialler
        self._names = names
        self._policy = policy
        self._url = url
        self._before = before
        self._began = time.monotonic()
        self._seconds = seconds
        self._ends = self._began + seconds
        self._brief = brief
        self._left = MAX_BRIEF_BYTES if brief else MAX_BYTES
        # Who is known by one way and is silent now is as silent in the others: a check gives all its time to that one.
        self._share = 1.0 if brief and before else FIRST_SHARE
        self._number = SystemRandom().choice(FIRST_IDS)
        self._path = ""
        self._addresses: tuple[str, ...] = ()
        self._failures: list[_Failed] = []
        self._answers: set[asyncio.Task[None]] = set()
        self._answered = 0
        self._evidence: list[Evidence] = []
        self._late = Finding("timeout", None, f"No answer within {seconds:g} seconds")
        # What was asked last and what came back, until that is kept as evidence.
        self._heard: Evidence | None = None

    async def find(self) -> Introduction:
        """Try the ways to begin one after the other until one works, and say what was found."""
        try:
            await self._locate()
            for way in self._ways():
                try:
                    return self._finished(await way())
                except _Lost:
                    raise
                except _Failed as failed:
                    self._failures.append(failed.forgotten())
                    if failed.status == 429:
                        break
                if self.session:
                    await self.leave()
        except _Failed as failed:
            self._failures.append(failed.forgotten())
        finally:
            for answer in self._answers:
                answer.cancel()
        return self._finished(await self._judged())

    def _ways(self) -> Sequence[Callable[[], Awaitable[Introduction]]]:
        """In which order they are tried: most clients begin by `initialize`, and it harms nobody (decision 9)."""
        ways = [self._begin_legacy, self._begin_modern, self._begin_stream]
        if self._before == "modern":
            ways = [self._begin_modern, self._begin_legacy, self._begin_stream]
        elif self._before == "sse":
            ways = [self._begin_stream, self._begin_legacy, self._begin_modern]
        return ways

    def _finished(self, found: Introduction) -> Introduction:
        took = round((time.monotonic() - self._began) * 1000)
        evidence = () if found.verdict == "up" and not found.incomplete else tuple(self._evidence)
        return found._replace(took_ms=took, evidence=evidence)

    # ------------------------------------------------------------------ the three ways

    async def _begin_legacy(self) -> Introduction:
        """`initialize`, `notifications/initialized`, and the lists, in a session where the server wants one."""
        offer = {"protocolVersion": OFFERED, "capabilities": {}, "clientInfo": CLIENT}
        result = await self._call("initialize", offer, {}, _initialize_fault, share=self._share)
        version = result["protocolVersion"]
        introduced = self._introduced("legacy", result, (version,), result.get("serverInfo"))
        del result
        self.session["MCP-Protocol-Version"] = version
        # What is said to it does not matter to a client: the next request tells whether it was taken.
        await self._exchange("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}, self.session)

        async def ask(method: str, params: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
            return await self._call(method, params, self.session, fault)

        return await self._listed(ask, introduced)

    async def _begin_modern(self) -> Introduction:
        """`server/discover` and the lists, each request by itself."""

        async def ask(method: str, params: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
            headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            share = self._share if method == "server/discover" else 1.0
            return await self._call(method, {**params, "_meta": META}, headers, fault, share=share)

        result = await ask("server/discover", {}, _discover_fault)
        versions = _strings(result.get("supportedVersions"))
        info = _mapping(result.get("_meta")).get(SERVER_INFO) or result.get("serverInfo")
        introduced = self._introduced("modern", result, versions, info)
        del result, versions, info
        return await self._listed(ask, introduced)

    async def _begin_stream(self) -> Introduction:
        """The transport of 2024-11-05: a stream that says where to post to, and carries the answers.

        Asked for where a POST was refused as by somebody who takes none, as the clients of the SDKs do.
        """
        if self._before != "sse" and not any(self._takes_no_post(failed) for failed in self._failures):
            raise _Failed(None, "")
        if self._remaining() <= 0:
            raise self._too_late()
        events: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(MAX_WAITING)
        # Half of what may be read is for the stream, half for what is said to each message.
        self._left //= 2

        path: str | None = None

        def take(name: str, data: bytes) -> None:
            asked = requests(parsed(data)) if path is not None and b'"method"' in data else []
            for request in asked:
                self._answer(request, path)
            # Who pours events while nobody waits for one loses them.
            if not asked and not events.full():
                events.put_nowait((name, data))

        stream = Stream(self._left, take)
        began = time.monotonic()
        request = self._request("GET", self._path, b"", {"Accept": EVENTS})
        dialling = asyncio.get_running_loop().create_task(self._dial(request, stream))
        try:
            where = await self._event(dialling, events, lambda name, _: name == "endpoint", STREAM_SECONDS)
            if where is None or stream.status != 200:
                self._evidence.append(self._evident("GET", stream, began))
                raise _Failed("not_mcp", "The address opens no stream of an MCP server", stream)
            path = reach.redirected(self._site, self._path, where)
            if path is None:
                self._evidence.append(self._evident("GET", stream, began))
                raise _Failed("mcp_error", "The stream leads to another origin, where no client goes", stream)

            to = path

            async def ask(method: str, params: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
                return await self._call_by_stream(dialling, stream, events, to, method, params, fault)

            offer = {"protocolVersion": OFFERED, "capabilities": {}, "clientInfo": CLIENT}
            result = await ask("initialize", offer, _initialize_fault)
            introduced = self._introduced("sse", result, (result["protocolVersion"],), result.get("serverInfo"))
            del result
            await self._exchange("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"}, {}, path=path)
            return await self._listed(ask, introduced)
        finally:
            dialling.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await dialling

    def _takes_no_post(self, failed: _Failed) -> bool:
        """Whether this is how an address answers that is one of a stream."""
        status = failed.status
        if status is None or status == 401 or _is_gated(failed.reply, self._before):
            return False
        return 400 <= status < 500 or SSE_PATH.search(self._path) is not None

    async def _call_by_stream(
        self,
        dialling: asyncio.Task[None],
        stream: Stream,
        events: asyncio.Queue[tuple[str, bytes]],
        path: str,
        method: str,
        params: Mapping[str, Any],
        fault: Fault,
    ) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        began = time.monotonic()
        reply = await self._exchange("POST", message, {}, path=path)
        if reply.status is None or not 200 <= reply.status < 300:
            raise self._no_answer(method, reply)
        data = await self._event(dialling, events, lambda _, data: response(parsed(data), number) is not None)
        if data is None and stream.overflowed:
            raise self._no_answer(method, stream)
        if data is None:
            raise _Failed("timeout", f"The stream carried no answer to {method}", reply)
        reply.message = response(parsed(data), number)
        # The answer is what the stream carried, not what was said to the message that asked for it.
        reply.sample = data[:SAMPLE]
        self._heard = self._evident(method, reply, began)
        return self._read(method, reply, fault)

    async def _event(
        self,
        dialling: asyncio.Task[None],
        events: asyncio.Queue[tuple[str, bytes]],
        wanted: Callable[[str, bytes], bool],
        seconds: float = SECONDS,
    ) -> bytes | None:
        """The data of the first event that is wanted; None where the stream or the time ends before."""
        ends = min(self._ends, time.monotonic() + seconds)
        while True:
            while not events.empty():
                name, data = events.get_nowait()
                if wanted(name, data):
                    return data
            if dialling.done() or (left := ends - time.monotonic()) <= 0:
                return None
            waiting = asyncio.ensure_future(events.get())
            try:
                await asyncio.wait({dialling, waiting}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done() and wanted(*waiting.result()):
                    return waiting.result()[1]
            finally:
                waiting.cancel()

    def _introduced(self, era: str, result: Mapping[str, Any], versions: tuple[str, ...], info: Any) -> Introduction:
        """What a server says of itself; of a brief introduction what the verdict depends on alone.

        The lists are waited for with this, by a sweep hundreds of times, and as objects of Python the values of a
        hostile answer have up to 24 times its length.
        """
        capabilities = _mapping(result.get("capabilities"))
        if self._brief:
            named = {name: {} for name in METHODS if name in capabilities}
            agreed = (MODERN,) if era == "modern" else versions
            return Introduction("up", era=era, protocol_versions=agreed, capabilities=named, status_code=200)
        instructions = result.get("instructions")
        return Introduction(
            "up",
            era=era,
            protocol_versions=versions,
            server_info=_mapping(info),
            capabilities=capabilities,
            instructions=instructions if isinstance(instructions, str) else None,
            status_code=200,
        )

    # ------------------------------------------------------------------ the lists

    async def _listed(self, ask: Ask, introduced: Introduction) -> Introduction:
        """The same with all its lists. Raises _Failed where its tools cannot be listed."""
        incomplete: dict[str, str] = {}
        capabilities = introduced.capabilities
        ttl: list[int] = []
        try:
            tools = await self._pages(ask, "tools", incomplete, ttl, modern=introduced.era == "modern")
        except _Failed as failed:
            failed.begun = True
            # A server that names no tools need not know how to list them.
            if "tools" in capabilities or failed.reply is None or _is_gated(failed.reply, "begun"):
                raise
            if failed.status == 429:
                raise
            tools = []
        if self._brief:
            return introduced
        found = introduced._replace(tools=tools, incomplete=incomplete, ttl_ms=ttl[0] if ttl else None)
        if isinstance(capabilities.get("prompts"), dict):
            found = found._replace(prompts=await self._optional(ask, "prompts", incomplete))
        if isinstance(capabilities.get("resources"), dict):
            found = found._replace(resources=await self._optional(ask, "resources", incomplete))
            found = found._replace(templates=await self._optional(ask, "resourceTemplates", incomplete))
        return found

    async def _optional(self, ask: Ask, key: str, incomplete: dict[str, str]) -> list[dict[str, Any]]:
        """A list that no verdict depends on."""
        try:
            return await self._pages(ask, key, incomplete, [])
        except _Failed as failed:
            # Who has resources need not have templates.
            if key != "resourceTemplates" or failed.code != METHOD_NOT_FOUND:
                incomplete[NAMES[key]] = failed.reason
            return []

    async def _pages(
        self, ask: Ask, key: str, incomplete: dict[str, str], ttl: list[int], *, modern: bool = False
    ) -> list[dict[str, Any]]:
        """A list over all its pages. Raises _Failed where not even the first can be had."""
        method, name, table = METHODS[key], NAMES[key], kinds.page(key, modern=modern)
        items: list[dict[str, Any]] = []
        cursors: set[str] = set()
        params: dict[str, Any] = {}
        while True:
            try:
                result = await ask(method, params, lambda result: kinds.fault(result, table))
            except _Failed as failed:
                if not cursors:
                    # A list that is too long for us is not too long for a client.
                    if failed.reply is not None and failed.reply.overflowed and failed.status == 200:
                        incomplete[name] = failed.reason
                        return []
                    raise
                incomplete[name] = f"Page {len(cursors) + 1}: {failed.reason}"
                return items
            if self._brief:
                return items
            if not cursors and type(result.get("ttlMs")) is int:
                ttl.append(result["ttlMs"])
            for item in cast("list[dict[str, Any]]", result[key]):
                if _depth(item) <= MAX_DEPTH:
                    items.append(item)
                else:
                    incomplete[name] = f"More than {MAX_DEPTH} levels in one of them"
            cursor = result.get("nextCursor")
            if not cursor:
                return items
            if len(items) > MAX_ITEMS or len(cursors) + 1 >= MAX_PAGES or cursor in cursors:
                more = f"More than {MAX_ITEMS}" if len(items) > MAX_ITEMS else f"More than {MAX_PAGES} pages"
                incomplete[name] = "The cursors lead in a circle" if cursor in cursors else more
                return items[:MAX_ITEMS]
            cursors.add(cursor)
            params = {"cursor": cursor}

    # ------------------------------------------------------------------ requests and answers

    async def _locate(self) -> None:
        """Find the addresses, once for all that is asked. Raises _Failed."""
        if urls.endpoint_fault(self._url):
            raise _Lost("blocked", "The URL is not valid")
        self._site: Site = reach.site(self._url, self._policy)
        self._path = self._site.path
        try:
            async with asyncio.timeout(self._seconds):
                located = await reach.locate(self._site, self._names, self._policy)
        except TimeoutError:
            raise _Lost("dns", f"The host name did not resolve within {self._seconds:g} seconds") from None
        if isinstance(located, Finding):
            raise _Lost(located.verdict, located.error or "")
        self._addresses = located

    async def _call(
        self,
        method: str,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        fault: Fault,
        *,
        share: float = 1.0,
    ) -> dict[str, Any]:
        """The result of a request, where a client can read it. Raises _Failed."""
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        reply = await self._exchange("POST", message, headers, share=share)
        status = reply.status
        # 202 means that no answer follows here; a client waits for none in another type.
        readable = (
            status is not None and 200 <= status < 300 and status != 202 and reply.media_type.startswith((JSON, EVENTS))
        )
        if not readable:
            raise self._no_answer(method, reply)
        return self._read(method, reply, fault)

    def _read(self, method: str, reply: Reply, fault: Fault) -> dict[str, Any]:
        """The result in an answer, where a client can read it. Raises _Failed."""
        result = _mapping(reply.message).get("result")
        if not isinstance(result, dict):
            raise self._no_answer(method, reply)
        found = cast("dict[str, Any]", result)
        if words := fault(found):
            self._note()
            raise _Failed("mcp_error", f"No client can read the answer to {method}: {words}", reply)
        # A connection that is closed knows its answer until the next search for cycles.
        reply.forget()
        return found

    def _no_answer(self, method: str, reply: Reply) -> _Failed:
        """What is wrong with an answer without a result, in a sentence of ours."""
        self._note()
        status = reply.status
        if status is None:
            if reply.fault == exchange.CLOSED:
                return _Failed("refused", reach.CLOSED.error or "", reply)
            if HTTP_2.match(reply.beginning):
                return _Failed("not_mcp", "What answers there is HTTP/2 only, which few clients speak", reply)
            return _Failed("not_mcp", reach.FAULTS[reply.fault], reply)
        if reply.overflowed and status == 200 and reply.media_type.startswith((JSON, EVENTS)):
            if self._brief and reply.is_begun:
                # Not too long for a client, nor for an introduction that is not brief.
                return _Failed(None, "The answer is longer than a check reads", reply)
            limit = f"{MAX_BRIEF_BYTES >> 10} KiB" if self._brief else f"{MAX_BYTES >> 20} MiB"
            return _Failed("mcp_error", f"The answers are longer than {limit}", reply)
        failed = _Failed("mcp_error", "", reply)
        if status == 429 or status >= 500:
            failed.cause, failed.reason = "http_error", f"{method} was answered {status}"
        elif failed.code is not None or (reply.message or {}).get("error"):
            failed.reason = f"{method} was refused with the JSON-RPC error {failed.code}"
        elif 300 <= status < 400:
            failed.cause, failed.reason = "not_mcp", f"The address leads on ({status}), where no client follows"
        elif reply.message is not None:
            kind = reply.media_type or "no media type"
            failed.reason = f"{method} was answered as {kind}, which no client reads: it wants {JSON}"
        elif status >= 400:
            failed.cause, failed.reason = "not_mcp", f"The endpoint answered {status} and does not speak MCP"
        else:
            failed.cause, failed.reason = "not_mcp", f"{method} was answered {status}, and not by MCP"
            encoding = reply.header("content-encoding")
            if encoding and encoding.lower() not in ("identity", "gzip", "x-gzip", "deflate"):
                failed.reason += f": the answer is compressed ({shown(encoding)[:20]}), which was not asked for"
        return failed

    async def _exchange(
        self,
        method: str,
        message: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        *,
        path: str | None = None,
        share: float = 1.0,
    ) -> Reply:
        """Send a request and read the answer. Redirects within the origin are followed. Raises _Failed."""
        body = b"" if message is None else json.dumps(message, separators=(",", ":")).encode()
        number = cast("int | None", message.get("id")) if message else None
        asked = str(message["method"]) if message else method
        sent = {**({"Content-Type": JSON} if body else {}), "Accept": f"{JSON}, {EVENTS}", **headers}
        seen = {path or self._path}
        for followed in range(MAX_REDIRECTS + 1):
            if self._remaining() <= 0:
                raise self._too_late()
            began = time.monotonic()
            seconds = self._remaining() * share
            reply = Receipt(max(self._left, 1)) if number is None else Reply(number, max(self._left, 1))
            reply.on_request = partial(self._answer_beside, reply)
            reply.may_miss_session = "Mcp-Session-Id" in headers
            request = self._request(method, path or self._path, body, sent)
            answered = False
            try:
                async with asyncio.timeout(seconds):
                    await self._dial(request, reply)
                answered = True
            except TimeoutError:
                raise _Failed(
                    "timeout", f"No answer to {asked} within {max(round(seconds, 1), 0.1):g} seconds"
                ) from None
            finally:
                self._left = max(self._left - reply.taken, 0)
                self._keep(reply, asked)
                self._heard = self._evident(asked, reply, began)
                # An answer that was of use is no evidence.
                of_use = answered and reply.status is not None and reply.status < 300
                if not of_use or (reply.message is None and number is not None) or "error" in (reply.message or {}):
                    self._note()
            if reply.status not in reach.REDIRECTS or followed == MAX_REDIRECTS:
                return reply
            onward = reach.redirected(self._site, path or self._path, reply.location)
            if onward is None or onward in seen:
                return reply  # who leads in a circle leads nowhere, however often that is asked
            seen.add(onward)
            if path is None:
                self._path = onward
            else:
                path = onward
        raise AssertionError

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._site.authority}",
            f"User-Agent: {NAME}/{VERSION}",
            # What the clients of the SDKs send: some servers refuse whoever takes nothing packed, or closes each time.
            "Accept-Encoding: gzip, deflate",
            "Connection: keep-alive",
            *(f"{name}: {value}" for name, value in (*headers.items(), *self._given.items())),
            *([f"Content-Length: {len(body)}"] if body else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body

    async def _dial(self, request: bytes, reply: Reply) -> None:
        """Fill in the answer. Raises _Lost where nobody can be reached."""
        failure, address = await reach.dial(self._dialler, self._site, self._addresses, request, reply, self._late)
        if failure is not None:
            raise _Lost(failure.verdict, failure.error or "")
        # What is asked next goes to the same one.
        self._addresses = (address,)

    def _answer_beside(self, reply: Reply, request: Mapping[str, Any]) -> None:
        """Answer what a server asks in the stream in which it answers us, whose head may have named our session."""
        self._keep(reply, "")
        self._answer(request, None)

    def _answer(self, request: Mapping[str, Any], path: str | None) -> None:
        """Answer a request of the server's own, as stock clients do: a ping, and that we know nothing else.

        It may be waiting for that, so it is said beside the question that is open.
        """
        if self._answered >= MAX_ANSWERS:
            return
        self._answered += 1
        told = {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}}
        answer = {"jsonrpc": "2.0", "id": request["id"], **({"result": {}} if request["method"] == "ping" else told)}
        task = asyncio.get_running_loop().create_task(self._say(answer, path or self._path, {**self.session}))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _say(self, message: Mapping[str, Any], path: str, headers: Mapping[str, str]) -> None:
        """Send a message that asks for nothing. What is said to it changes nothing, nor whether it arrives."""
        body = json.dumps(message, separators=(",", ":")).encode()
        sent = {"Content-Type": JSON, "Accept": f"{JSON}, {EVENTS}", **headers}
        with suppress(_Failed, TimeoutError):
            async with asyncio.timeout(max(self._remaining(), 0)):
                await self._dial(self._request("POST", path, body, sent), Receipt(MAX_RECEIPT))

    def _keep(self, reply: Reply, asked: str) -> None:
        """Take note of a session, whatever else becomes of the answer: it exists.

        Not of one that a refusal names: it may be somebody else's, as where one transport is one session (swift-sdk).
        """
        session = reply.header("mcp-session-id")
        opened = reply.status is not None and 200 <= reply.status < 300
        if opened and asked != "DELETE" and "Mcp-Session-Id" not in self.session and SESSION_ID.fullmatch(session):
            self.session["Mcp-Session-Id"] = session

    def _evident(self, asked: str, reply: Reply, began: float) -> Evidence:
        text = reply.beginning.decode("utf-8", "replace")[:MAX_EXCERPT]
        media = shown(reply.media_type)[:MAX_WORD] or None
        took = round((time.monotonic() - began) * 1000)
        return Evidence(asked, reply.status, media, shown(text)[:MAX_EXCERPT], took)

    def _note(self) -> None:
        """Keep what was heard last as evidence, once."""
        if self._heard is not None:
            self._evidence.append(self._heard)
            self._heard = None

    def _too_late(self) -> _Failed:
        return _Failed(self._late.verdict, self._late.error or "")

    def _remaining(self) -> float:
        return self._ends - time.monotonic()

    async def leave(self) -> None:
        """Delete the session, where one was opened. It may fail: what an answer to it would say changes nothing."""
        session, self.session = self.session, {}
        if "Mcp-Session-Id" not in session:
            return
        with suppress(_Failed, TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                request = self._request("DELETE", self._path, b"", session)
                await self._dial(request, Receipt(MAX_RECEIPT))

    # ------------------------------------------------------------------ what came of it

    async def _judged(self) -> Introduction:
        """The verdict where no way worked."""
        failures = self._failures
        for failed in failures:
            if failed.status == 429 and failed.reply is not None:
                wait = retry_after(failed.reply.header("retry-after"))
                reason = "The server limits how often it may be asked (429)"
                return Introduction("limited", None, reason, retry_after=wait, status_code=429)
        for failed in failures:
            before = self._before or ("begun" if failed.begun else None)
            if failed.reply is not None and _is_gated(failed.reply, before):
                gate = await self._gate(failed.reply)
                return Introduction("gated", reason=_gate_reason(gate), gate=gate, status_code=gate.status)
        told = [failed for failed in failures if failed.reason]
        # The last that nobody could be reached for ends it all; else what came furthest, and else what came first.
        worst = next((one for one in told if isinstance(one, _Lost)), None)
        worst = worst or next((one for one in told if one.begun), None) or told[0]
        verdict = None if worst.cause is None else "down"
        return Introduction(verdict, worst.cause, worst.reason, status_code=worst.status)

    async def _gate(self, reply: Reply) -> Gate:
        """How one gets in, as the answer says it, and the metadata behind it."""
        schemes, parameters = challenges(reply.header("www-authenticate"))
        text = reply.sample.decode("utf-8", "replace")
        named = HEADER_NAME.search(parameters.get("header", "")) or HEADER_NAME.search(text)
        status = reply.status or 0
        location = shown(reply.header("location"))[:MAX_WORD] or None if 300 <= status < 400 else None
        gate = Gate(
            status,
            schemes,
            _word(parameters.get("realm")),
            header=named[1] if named else None,
            scopes=_words(parameters.get("scope", "").split()),
            location=location,
        )
        if (
            self._brief
            or status not in (401, 403)
            or not ({scheme.lower() for scheme in schemes} <= {"bearer", "dpop"})
        ):
            return gate
        given = parameters.get("resource_metadata")
        known = f"{self._site.origin}/.well-known/oauth-protected-resource"
        ends = min(self._ends + GRACE_SECONDS, time.monotonic() + GATE_SECONDS)
        for url in [given] if given else [known + self._site.path.rstrip("/"), known]:
            document = await self._document(url, ends)
            servers = _strings(document.get("authorization_servers"))
            if document:
                return gate._replace(
                    resource_metadata=_word(url),
                    issuer=_word(servers[0]) if servers else None,
                    scopes=gate.scopes or _words(_strings(document.get("scopes_supported"))),
                )
        return gate._replace(resource_metadata=_word(given))

    async def _document(self, url: str, ends: float) -> dict[str, Any]:
        """A JSON document of the server's own host; empty where there is none.

        RFC 9728 (section 3) has it there. Of another host many servers could have us ask all at once.
        """
        if urls.link_fault(url) or guard.host(url) != self._site.host:
            return {}
        site = reach.site(url, self._policy)
        reply = Reply(None, MAX_METADATA)
        head = f"GET {site.path} HTTP/1.1\r\nHost: {site.authority}\r\nUser-Agent: {NAME}/{VERSION}\r\n"
        request = f"{head}Accept: {JSON}\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
        with suppress(TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(ends - time.monotonic(), 0)):
                located = await reach.locate(site, self._names, self._policy)
                if not isinstance(located, Finding):
                    await reach.dial(self._dialler, site, located, request, reply, self._late)
        return _mapping(reply.parsed()) if reply.status == 200 else {}


# The lists: how each is asked for, and under which name it is kept.
METHODS: Final = {
    "tools": "tools/list",
    "prompts": "prompts/list",
    "resources": "resources/list",
    "resourceTemplates": "resources/templates/list",
}
NAMES: Final = {"tools": "tools", "prompts": "prompts", "resources": "resources", "resourceTemplates": "templates"}


def _initialize_fault(result: Mapping[str, Any]) -> str | None:
    """What keeps a client from taking the answer to `initialize`, in a few words; None where nothing does."""
    if words := kinds.fault(result, kinds.INITIALIZE):
        return words
    version: str = result["protocolVersion"]
    return None if version in LEGACY else f"it names the version {shown(version)[:20]}, which has no handshake"


def _discover_fault(result: Mapping[str, Any]) -> str | None:
    """The same of `server/discover`."""
    if words := kinds.fault(result, kinds.DISCOVER):
        return words
    return None if MODERN in result["supportedVersions"] else f"it names none of the versions {MODERN}"


def _is_gated(reply: Reply | None, before: str | None) -> bool:
    """Whether an answer asks for credentials.

    A 401 that only says, in plain words, that a session is unknown or missing asks for none (rmcp up to 0.16), but
    where no session could be missed: who asks `initialize` has none yet, and a client reads that as a gate. A 403
    does where it brings a challenge or is JSON-RPC, or where the server had let us in before; else it is what a
    firewall says, or a gateway about a route that is not there. 402 wants to be paid. A redirect to a page on which
    somebody is to log in is how a login wall says it.
    """
    if reply is None or reply.status is None:
        return False
    if reply.status == 401:
        return bool(reply.header("www-authenticate")) or not (
            reply.may_miss_session and exchange.is_refusal(401, reply.body)
        )
    if reply.status == 403:
        return bool(reply.header("www-authenticate") or before) or reply.message is not None
    if 300 <= reply.status < 400:
        return reply.status in LOGIN_STATUSES and _is_login(reply.header("location"))
    return reply.status == 402


def _is_login(location: str) -> bool:
    """Whether a redirect leads to where somebody is to log in."""
    return LOGIN.search(re.split(r"[?#]", location, maxsplit=1)[0]) is not None


def _gate_reason(gate: Gate) -> str:
    if gate.status == 402:
        return "The server wants to be paid (402)"
    if gate.location:
        return f"The server sends its callers to a login page ({gate.status})"
    return f"The server wants credentials ({gate.status})"


def challenges(header: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The schemes of a WWW-Authenticate header (RFC 9110, section 11.6.1), and the first of each of its parameters."""
    found: dict[str, str] = {}
    for name, value in PARAMETER.findall(header):
        text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        found.setdefault(name.lower(), text)
    schemes = SCHEME.findall(PARAMETER.sub(" ", header))
    return tuple(dict.fromkeys(schemes))[:MAX_WORDS], found


def retry_after(value: str) -> int | None:
    """The seconds of a Retry-After header, which has a number or a date; five minutes at most."""
    if value.isascii() and value.isdigit():
        return min(int(value[:9]), MAX_RETRY_SECONDS)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(0, min(round(seconds), MAX_RETRY_SECONDS))


def shown(text: str) -> str:
    r"""A stranger's text as a person may read it: what cannot be seen is written as an escape, such as `\u200b`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isprintable() and char not in UNSEEN else char.encode("unicode_escape").decode() for char in text
    )


def _word(value: str | None) -> str | None:
    return shown(value)[:MAX_WORD] if value else None


def _words(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(shown(value)[:MAX_WORD] for value in values[:MAX_WORDS])


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(one for one in cast("list[Any]", value) if isinstance(one, str)) if isinstance(value, list) else ()


def _depth(value: Any) -> int:
    """How many objects and arrays stand inside one another, as far as it matters."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        below: list[Any] = []
        for item in level:
            below += item.values() if isinstance(item, dict) else item
        depth += 1
        level = [item for item in below if isinstance(item, (dict, list))]
    return depth
