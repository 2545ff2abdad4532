"""Whether this process serves: a route that answers for the server, and a question to ourselves over loopback.

Nothing else tells a server that runs from one that was only imported, by a test say. Lifespan hooks come before the
port is open or once for every session, and which of the two depends on the framework. A server that takes no routes is
asked over MCP, and known by its name.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from mcp_registry_client import _document, _listening, _settings, _stdio, _tools, _transport
from mcp_registry_client._json import mapping, parsed, text
from mcp_registry_client._numbers import QUESTION_ID

if TYPE_CHECKING:
    from mcp_registry_client.introspect import Introspection

# The route that we ask ourselves; it answers whatever the endpoint's path is.
WELL_KNOWN = "/.well-known/mcp-registry"
# Where frameworks serve unless told otherwise.
USUAL_PATHS = ("/mcp", "/sse")
# By this header we know our own question, and an answer that comes from a server of ours.
INSTANCE = "x-mcp-registry-instance"
# What a health check is told, and whoever else asks.
HEALTHY = b'{"status":"ok"}'
# For the tools, and for the answer of a socket that answered before.
SECONDS = 10.0
# For a socket of which nothing is known: one that waits for its client to say more must not hold up the others.
FIRST_SECONDS = 1.0
# From a request for the tools that was not answered in time to the next one.
APART_SECONDS = 60.0
# The pauses between two questions to a socket double. What is not HTTP is somebody else's, and soon left alone.
SHORTEST, SHORTEST_UNHEARD, LONGEST = 0.05, 1.0, 60.0
MAX_TRIES = 3

# What a server is asked that takes no routes, and every server once whether it is at the path that is registered. The
# session exists nowhere, for a server of an older protocol would otherwise open one, and keep it.
DISCOVER = {
    "jsonrpc": "2.0",
    "id": QUESTION_ID,
    "method": "server/discover",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "mcp-registry-client", "version": "0.1.0"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}
DISCOVER_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "server/discover",
    "Mcp-Session-Id": "mcp-registry-client",
}
GATED = (401, 403)

# What a socket did when it was asked: `known` is another server with this client, `http` something else of HTTP,
# `unasked` a socket in the file system, where no URL leads.
Kind = Literal["known", "http", "gated", "certificate", "tls", "closed", "garbage", "timeout", "refused", "unasked"]
NOT_HTTP: frozenset[Kind] = frozenset({"tls", "closed", "garbage", "certificate", "unasked"})

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class NotServing(Exception):
    """Nothing in this process answers for the server, yet or any more."""

    def __init__(self, hint: str | None = None, *, told: bool = False, over_stdio: bool = False) -> None:
        """`hint`: what to do if it stays so. `told`: whether `refresh` will say when it does not.

        `over_stdio`: whether the process serves over stdio.
        """
        super().__init__()
        self.hint = hint
        self.told = told
        self.over_stdio = over_stdio


class Included(Exception):
    """The server is a part of another one that is registered, and has no endpoint of its own."""


class Missing(Exception):
    """Nothing answers where the endpoint should be."""


class Unlisted(Exception):
    """The tools did not come in time."""


class Toolless(Exception):
    """The server answers, and its tools cannot be listed."""

    def __init__(self, document: dict[str, Any], reason: str, *, lasts: bool = False) -> None:
        """`document`: the registration without tools. `lasts`: whether another try would bring the same."""
        super().__init__(reason)
        self.document = document
        self.reason = reason
        self.lasts = lasts


class Seen:
    """What is known of a socket, and when it may be asked again."""

    def __init__(self) -> None:
        self.kind: Kind | None = None
        self._tries = 0
        self._unheard = 0
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it may be asked."""
        return time.monotonic() >= self._due

    @property
    def seconds(self) -> float:
        """How long it may take to answer: little at first, and twice as long each time."""
        return min(SECONDS, FIRST_SECONDS * 2 ** min(self._tries, 8))

    def note(self, kind: Kind) -> None:
        """Keep what it did. The next question comes after twice the pause of the last."""
        self.kind = kind
        shortest = SHORTEST if kind in ("known", "http", "gated") else SHORTEST_UNHEARD
        pause = min(LONGEST, shortest * 2 ** min(self._tries, 16))
        self._tries += 1
        # One that has answered over HTTP may well have hung up once.
        self._unheard = self._unheard + 1 if kind in NOT_HTTP else 0
        self._due = math.inf if self._unheard >= MAX_TRIES else time.monotonic() + pause


class Answered(NamedTuple):
    """Where this server answered its own question."""

    address: _listening.Address
    tls: bool
    host: str  # in the Host header
    prefix: str  # what stands before the paths of its application
    path: str | None  # of the endpoint, in its application


class Presence:
    """One server in this process: answers for it, and finds out whether anybody can hear that."""

    def __init__(
        self,
        server: Any,
        tools: Any,
        about: _document.About,
        settings: _settings.Settings,
        path: str | None,
        *,
        routed: bool = True,
        absolute: bool = True,
    ) -> None:
        """`path`: of the endpoint, in this process (`absolute`) or in the application that answers for the server.

        `routed`: whether something answers for the server.
        """
        self._server = server
        self._tools = server if tools is None else tools
        self._about = about
        self._settings = settings
        self._path = path if not path or str(path).startswith("/") else f"/{path}"
        self._routed = routed
        self._absolute = absolute
        self._begin()

    def _begin(self) -> None:
        """Be a process of its own: what a parent knew before a fork is not known of the child."""
        self._process = os.getpid()
        self._instance = os.urandom(16).hex()
        self._answered: Answered | None = None
        self._seen: dict[_listening.Address, Seen] = {}
        self._loop: Any = None
        self._confirmed: str | None = None
        self._is_listed = False  # the tools, by the server object itself
        # When a request for the tools was not answered in time, and what was said of it.
        self._late: tuple[float, str] | None = None

    # -------------------------------------------------------------- answering, in the host's event loop

    def paths(self) -> list[str]:
        """Where a health check may ask, as far as that is known before the server runs."""
        # A server of fastmcp 2 warns whoever looks at its settings, and has none of its own.
        of_fastmcp = type(self._server).__module__.startswith("fastmcp")
        settings = None if of_fastmcp else getattr(self._server, "settings", None)
        fastmcp = getattr(sys.modules.get("fastmcp"), "settings", None)
        try:
            endpoint = endpoint_of(self._about, self._settings)
        except _document.Unusable:
            endpoint = None  # the thread says so
        known = [
            self._path,
            _path(endpoint),
            *(
                getattr(origin, name, None)
                for origin in (settings, fastmcp)
                for name in ("streamable_http_path", "sse_path")
            ),
            *USUAL_PATHS,
        ]
        return list(dict.fromkeys(path.rstrip("/") + "/health" for path in known if isinstance(path, str)))

    def is_meant(self, scope: Scope) -> bool:
        """Whether a request to the well-known path is our own question."""
        return self._process == os.getpid() and _instance_in(scope) == self._instance.encode()

    def answer(self, scope: Scope, host: Presence | None = None) -> bytes:
        """What is said at the well-known path. To our own question, also that it is us, and where the endpoint is.

        `host`: the server whose application is asked, where that is another one.
        """
        if not self.is_meant(scope):
            # Another process serves the same: who asks need not worry that nobody answers for it.
            return b'{"status":"ok","known":true}' if is_question(scope) else HEALTHY
        found = _mcp_path(getattr(scope.get("app"), "routes", ()), self._server)
        if host is not None and not found.own:
            return json.dumps({"status": "ok", "known": True, "within": host._name()}).encode()
        self._loop = _running_loop()
        return json.dumps({"status": "ok", "instance": self._instance, "path": self._path or found.path}).encode()

    # -------------------------------------------------------------- asking, in a thread of ours

    def draft(self) -> _document.Draft:
        """The registration, once the server answers.

        Raises NotServing while it doesn't, Missing where its endpoint doesn't, Unusable where it cannot be registered
        as it is, Included where another server has its tools, and Toolless where they cannot be listed.
        """
        if self._process != os.getpid():
            self._begin()
        endpoint = endpoint_of(self._about, self._settings)
        found = _listening.addresses(endpoint.port if endpoint else None)
        # By a name of our own: whoever else asks meanwhile replaces it.
        known = self._seen = {address: self._seen.get(address) or Seen() for address in found}
        if self._answered is not None and self._answered.address not in self._seen:
            self._answered = None
        last = self._answered.address if self._answered else None
        # What answered before is asked first: others may keep us waiting.
        for address in sorted(found, key=lambda address: (address != last, address.port is None)):
            seen = known[address]
            if address == last or seen.is_due:
                ask = self._ask_route if self._routed else self._ask_mcp
                if (draft := ask(address, seen, endpoint)) is not None:
                    return draft
        self._answered = None
        raise NotServing(self._hint(), over_stdio=_stdio.is_spoken())

    def _ask_route(
        self, address: _listening.Address, seen: Seen, endpoint: _transport.Target | None
    ) -> _document.Draft | None:
        """The registration, where our route answers here: under any of the paths that an application may be under."""
        before = self._answered if self._answered and self._answered.address == address else None
        hosts = dict.fromkeys(
            host for host in (before and before.host, address.authority, endpoint and endpoint.authority) if host
        )
        for prefix in _prefixes(self._path if self._absolute else None, _path(endpoint)):
            for host in hosts:
                headers = {INSTANCE: self._instance, "Host": host}
                seconds, tls = (SECONDS, before.tls) if before else (seen.seconds, False)
                try:
                    heard = _listening.ask(address, "GET", prefix + WELL_KNOWN, headers, seconds=seconds, tls=tls)
                except _transport.Failed as failure:
                    seen.note(_kind(failure))
                    return None
                said = _fields(heard.response)
                if within := text(said.get("within")):
                    raise Included(
                        f"it is a part of {within}, whose tools are registered with its own: "
                        "register it where it has an endpoint of its own"
                    )
                if said.get("instance") == self._instance:
                    self._answered = Answered(address, heard.tls, host, prefix, said.get("path"))
                    return self._draft(self._answered)
                if said.get("known"):
                    if before:  # another worker on the same socket
                        return self._draft(before)
                    seen.note("known")
                    return None
        seen.note("http")
        return None

    def _draft(self, answered: Answered) -> _document.Draft:
        url = endpoint_url(self._about, self._settings) or self._local_url(answered)
        document = _document.document(tagged(self._about), _tools.facts(self._server), url, [])
        if isinstance(self._tools, Iterator):
            self._tools = list(cast("Iterator[Any]", self._tools))  # it has an end, and later announcements
        try:
            tools = _tools.dumped(complete(_tools.read(self._tools), self._loop))
        except Unlisted as late:
            # Nor does it answer a request in time, and that would hold up a server that is told to stop.
            raise Toolless(document, str(late)) from None
        except Exception as error:  # noqa: BLE001 - what a server's own code raises may be anything
            reason = f"{type(error).__name__}: {error}"
            if self._is_listed:
                # It needs no request. What anybody sees over HTTP may be fewer than those that it listed last.
                raise Toolless(document, reason) from None
            found = self._asked_for(answered, document, reason)
            return _document.Draft({**document, "tools": found.tools}, found.tools_left_out)
        self._is_listed = True
        return _document.Draft({**document, "tools": tools})

    def _asked_for(self, answered: Answered, document: dict[str, Any], reason: str) -> Introspection:
        """What anybody sees who asks the server, which could not list its tools without a request.

        `reason`: what it raised. Raises Toolless where they cannot be had in this way either.
        """
        path = self._path_at(answered)
        if self._tools is not self._server or path is None:
            raise Toolless(document, reason)
        # A server that is told to stop waits for its requests, ours too: one that hangs must not hang all the time.
        if self._late is not None and time.monotonic() - self._late[0] < APART_SECONDS:
            raise Toolless(document, self._late[1])
        from mcp_registry_client import introspect  # 30 ms, for few

        def connect(deadline: _transport.Deadline) -> socket.socket:
            return answered.address.connect(deadline, tls=answered.tls)

        url = f"http{'s' if answered.tls else ''}://{answered.host}{path}"
        try:
            return introspect.introspect(url, deadline_seconds=SECONDS, connect=connect)
        except introspect.Failed as failed:
            gated = failed.kind == "credentials"
            why = "it asks for credentials" if gated else failed.message[:1].lower() + failed.message[1:].rstrip(".")
            end = "" if why.endswith("?") else "."
            advice = "Its tools may be given by tools=[...], or by a function"
            reason = f"{reason}; and over HTTP {why}{end} {advice}"
            if failed.kind == "timeout":
                self._late = (time.monotonic(), reason)
            raise Toolless(document, reason, lasts=gated) from None

    def _path_at(self, answered: Answered) -> str | None:
        """The path of the endpoint where the server answers, as far as it is known."""
        if answered.path is None:
            return _path(endpoint_of(self._about, self._settings))
        return answered.path if self._absolute and self._path else answered.prefix + answered.path

    def _local_url(self, answered: Answered) -> str:
        """Where a registry on this machine finds the server.

        Raises Unusable where that is not known, and Missing while nothing answers there.
        """
        self._require_local(answered.address)
        path = self._path_at(answered)
        if path is None:
            raise _document.Unusable(
                "The path of its endpoint is not known: give path='/...' or endpoint_url='https://...'"
            )
        url = f"http{'s' if answered.tls else ''}://{answered.address.authority}{path}"
        if self._confirmed != url:
            if self._is_missing(answered, path):
                raise Missing(
                    f"nothing answers at {url}: give the path of its endpoint as path='/...', or endpoint_url='https://...'"
                )
            self._confirmed = url
        return url

    def _is_missing(self, answered: Answered, path: str) -> bool:
        """Whether there is no MCP endpoint at a path: 404, and not for a session that does not exist.

        A server may say that by a bare 404 ("Session Management" in the specification of 2025-06-18), so it is asked
        once more without one; what session that opens is deleted.
        """
        body = json.dumps(DISCOVER).encode()

        def asked(method: str, headers: dict[str, str], body: bytes = b"") -> _transport.Response | None:
            headers = {**headers, "Host": answered.host}
            try:
                return _listening.ask(
                    answered.address, method, path, headers, body, seconds=SECONDS, tls=answered.tls
                ).response
            except _transport.Failed:
                return None

        response = asked("POST", DISCOVER_HEADERS, body)
        if response is None or response.status != 404 or _speaks_mcp(response):
            return False
        without = {name: value for name, value in DISCOVER_HEADERS.items() if name != "Mcp-Session-Id"}
        response = asked("POST", without, body)
        if response is not None and (session := response.headers.get("mcp-session-id")):
            asked("DELETE", {"Mcp-Session-Id": session})
        return response is not None and response.status == 404 and not _speaks_mcp(response)

    def _require_local(self, address: _listening.Address) -> None:
        registry = urlsplit(self._settings.registry_url or "").hostname or ""
        if address.port is None or not (registry in ("localhost", "::1") or registry.startswith("127.")):
            raise _document.Unusable(
                f"Nobody has said where clients reach this server: set {_settings.ENDPOINT_URL}, or give endpoint_url='https://...'"
            )

    # -------------------------------------------------------------- a server that takes no routes

    def _ask_mcp(
        self, address: _listening.Address, seen: Seen, endpoint: _transport.Target | None
    ) -> _document.Draft | None:
        """The registration, where a server of this name answers here, with the tools that it then has."""
        if address.port is None:
            seen.note("unasked")
            return None
        given = dict.fromkeys(path for path in (self._path, _path(endpoint), USUAL_PATHS[0]) if path)
        # A server that is mounted at /mcp answers at /mcp/.
        paths = [self._path] if self._path else [*given, *(f"{path}/" for path in given if not path.endswith("/"))]
        seconds = SECONDS if self._answered else seen.seconds
        body = json.dumps(DISCOVER).encode()
        kind: Kind = "http"
        for path in paths:
            headers = {**DISCOVER_HEADERS, "Host": address.authority}
            try:
                heard = _listening.ask(address, "POST", path, headers, body, seconds=seconds)
            except _transport.Failed as failure:
                seen.note(_kind(failure))
                return None
            if heard.tls:
                seen.note("tls")
                return None
            if heard.response.status in GATED:
                kind = "gated"
            elif _speaks_mcp(heard.response) and (draft := self._introspected(address, path)) is not None:
                return draft
        seen.note(kind)
        return None

    def _introspected(self, address: _listening.Address, path: str) -> _document.Draft | None:
        """The registration, where it is this server that answers. Raises Toolless where it lists no tools."""
        from mcp_registry_client import introspect  # 30 ms, and what it needs

        url = f"http://{address.authority}{path}"
        failure: introspect.Failed | None = None
        try:
            found = introspect.introspect(url, deadline_seconds=SECONDS)
        except introspect.Failed as failed:
            if failed.server is None and failed.kind in ("timeout", "invalid", "too_large", "version", "http_error"):
                raise Missing(f"it does not say who it is ({failed})") from None
            failure, found = failed, failed.server
        if found is None or found.name != getattr(self._server, "name", None):
            return None
        self._answered = Answered(address, tls=False, host=address.authority, prefix="", path=path)
        given = endpoint_url(self._about, self._settings)
        if not given:
            self._require_local(address)
        document = _document.document(tagged(self._about), _tools.facts(self._server), given or url, [])
        if self._tools is self._server:
            if failure is not None:
                raise Toolless(document, failure.message)
            return _document.Draft({**document, "tools": found.tools}, found.tools_left_out)
        if isinstance(self._tools, Iterator):
            self._tools = list(cast("Iterator[Any]", self._tools))
        try:
            tools = _tools.dumped(complete(_tools.read(self._tools)))
        except Exception as error:  # noqa: BLE001 - what a server's own code raises may be anything
            raise Toolless(document, f"{type(error).__name__}: {error}") from None
        return _document.Draft({**document, "tools": tools})

    # -------------------------------------------------------------- telling

    def _hint(self) -> str | None:
        """What to do where something answers in this process that is not known as this server."""
        kinds = {seen.kind for seen in self._seen.values()}
        if "known" in kinds:
            return None
        if not self._routed:
            if kinds & {"http", "gated", "tls", "certificate", "timeout", "unasked"}:
                return (
                    "nothing that answers in this process is known as this server: give path='/...' where its endpoint "
                    "is not at /mcp, and where it asks for credentials, or is behind TLS or a socket in the file "
                    "system, wrap its application in RegistryMiddleware"
                )
        elif "certificate" in kinds:
            return "it seems to want a certificate of its clients, us too: register it from outside (mcp-registry)"
        elif kinds & {"http", "gated", "timeout"}:
            return (
                "the process serves HTTP, but not the route by which it knows itself: register it before its "
                "application is made, or wrap that in RegistryMiddleware; where it is mounted in another one, give "
                "path='/...', the whole of it"
            )
        return None

    def _name(self) -> str:
        return str(self._about.get("name") or getattr(self._server, "name", None) or "another server")


def endpoint_url(about: _document.About, settings: _settings.Settings) -> str | None:
    """Where clients reach the server, as far as anybody has said it."""
    return about.get("endpoint_url") or settings.endpoint_url


def endpoint_of(about: _document.About, settings: _settings.Settings) -> _transport.Target | None:
    """Where clients reach the server, taken apart. Raises Unusable where that is no URL, and says which word is it."""
    url = endpoint_url(about, settings)
    if not url:
        return None
    try:
        return _transport.Target.of(str(url))
    except _transport.Failed as failure:
        word = "endpoint_url" if about.get("endpoint_url") else _settings.ENDPOINT_URL
        raise _document.Unusable(f"{failure}; set {word} right") from None


def tagged(about: _document.About) -> _document.About:
    """The same, with a single word among the tags taken as one, and not as its letters."""
    tags = about.get("tags")
    return {**about, "tags": [tags]} if isinstance(tags, str) else about


def complete(found: Any, loop: Any = None) -> Any:
    """What `_tools.read` found, after an event loop that it may need: the host's, or one of our own.

    Raises Unlisted where that takes longer than ten seconds; it is cancelled then.
    """
    if not isinstance(found, Awaitable):
        return found
    import asyncio  # 40 ms that most never need, or long since there where a host has a loop

    wanted = _awaited(cast("Awaitable[Any]", found))
    try:
        if loop is None:
            return asyncio.run(_limited(wanted))
        # In the loop that serves the tools, because what lists them may hold on to it. Not in a request there: a
        # server that is told to stop waits for its requests, however long one hangs.
        future = asyncio.run_coroutine_threadsafe(wanted, loop)
    except RuntimeError as error:  # the loop has ended, or there are no threads any more
        wanted.close()
        raise Unlisted(str(error)) from None
    # Two classes before Python 3.11.
    from concurrent.futures import CancelledError
    from concurrent.futures import TimeoutError as TooLate

    try:
        return future.result(SECONDS)
    except TooLate:
        if future.done():  # its own
            raise
        if not loop.is_closed():
            future.cancel()
        raise Unlisted(f"they did not come within {SECONDS:g} s") from None
    except CancelledError:
        raise Unlisted("their event loop has ended") from None


async def _limited(wanted: Awaitable[Any]) -> Any:
    import asyncio

    try:
        return await asyncio.wait_for(wanted, SECONDS)
    except asyncio.TimeoutError:
        raise Unlisted(f"they did not come within {SECONDS:g} s") from None


async def _awaited(found: Any) -> Any:
    while isinstance(found, Awaitable):
        found = await cast("Awaitable[Any]", found)
    return found


def _running_loop() -> Any:
    """The event loop that runs in this thread, where it is one of asyncio."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.get_running_loop() if asyncio else None
    except RuntimeError:
        return None


def is_question(scope: Scope) -> bool:
    """Whether at the well-known path a server of this process, or of another worker, asks for itself.

    Anywhere else the header is a stranger's, and means nothing.
    """
    return _instance_in(scope) is not None


def _instance_in(scope: Scope) -> bytes | None:
    return dict(cast("Iterable[tuple[bytes, bytes]]", scope["headers"])).get(INSTANCE.encode())


def _kind(failure: _transport.Failed) -> Kind:
    """What a socket did that did not answer."""
    if isinstance(failure, _listening.Shut):
        return "certificate"
    if failure.kind in ("tls", "closed", "timeout", "refused"):
        return failure.kind
    return "garbage"


def _fields(response: _transport.Response) -> Mapping[str, Any]:
    """The fields of an answer in JSON; none where it is something else."""
    return mapping(parsed(response.body)) if response.status == 200 else {}


def _speaks_mcp(response: _transport.Response) -> bool:
    """Whether an answer is one of MCP. The SDK before 1.30 says in plain words that it knows no such session."""
    return b'"jsonrpc"' in response.body or b"session id" in response.body.lower()


def _path(endpoint: _transport.Target | None) -> str | None:
    """The path of a URL, without a query."""
    return endpoint.path.partition("?")[0] if endpoint else None


def _prefixes(*paths: str | None) -> list[str]:
    """What may stand before the paths of an application in which an endpoint is: nothing, and each of its parents."""
    found = [""]
    for path in paths:
        parts = (path or "").strip("/").split("/")
        found += ["/" + "/".join(parts[: place + 1]) for place in range(len(parts)) if parts[place]]
    return list(dict.fromkeys(found))


class _Path(NamedTuple):
    """Where an application has its MCP endpoint, if it was found, and whether it is surely this server's."""

    path: str | None
    own: bool


def _mcp_path(routes: Iterable[Any], server: Any) -> _Path:
    """The path of a server's endpoint among the routes of a Starlette application."""
    low = getattr(server, "_mcp_server", None) or getattr(server, "_lowlevel_server", None)
    found: list[str] = []
    over_sse: list[str] = []
    for route in routes:
        app = _inmost(getattr(route, "endpoint", None))
        if type(app).__name__ == "StreamableHTTPASGIApp":
            if low is not None and getattr(getattr(app, "session_manager", None), "app", None) is low:
                return _Path(route.path, own=True)
            found.append(route.path)
        elif getattr(app, "__name__", None) in ("sse_endpoint", "handle_sse"):
            over_sse.append(route.path)
    return _Path(next(iter([*found, *over_sse]), None), own=False)


def _inmost(endpoint: Any) -> Any:
    """What is behind what asks for a token."""
    for _ in range(10):
        if (inner := getattr(endpoint, "app", None)) is None:
            break
        endpoint = inner
    return endpoint


class StarletteRoute:
    """The routes on a server that takes routes of Starlette: called with a request, they answer as a response."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    async def known(self, request: Any) -> Any:
        """Answer to our own question."""
        scope: Scope = request.scope
        if is_question(scope) and not self._presence.is_meant(scope):
            # A server that is mounted in another brings its routes along, and the first of them gets all requests.
            for route in getattr(scope.get("app"), "routes", ()):
                other = _route_of(route)
                if other is not None and other._presence.is_meant(scope):
                    return Answer(other._presence.answer(scope, self._presence))
        return Answer(self._presence.answer(scope))

    async def health(self, request: Any) -> Any:
        """Answer to a health check, unless the server's author has a route for it, before ours or after."""
        scope: Scope = request.scope
        for route in getattr(scope.get("app"), "routes", ()):
            if _route_of(route) is None and hasattr(route, "endpoint"):
                match, more = route.matches(scope)
                if match.value == 2:  # Starlette's Match.FULL: path and method
                    return _PassedOn(route, more)
        return Answer(HEALTHY)


def _route_of(route: Any) -> StarletteRoute | None:
    """What answers at a route, where that is ours."""
    owner = getattr(getattr(route, "endpoint", None), "__self__", None)
    return owner if isinstance(owner, StarletteRoute) else None


class _PassedOn:
    """An ASGI response that another route gives."""

    def __init__(self, route: Any, more: Mapping[str, Any]) -> None:
        self._route = route
        self._more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(self._more)
        await self._route.handle(scope, receive, send)


class Answer:
    """An ASGI response with a JSON body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Send it."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self._body)).encode()),
            (b"cache-control", b"no-store"),
            # Whoever passes it on knows by this that it is ours.
            (INSTANCE.encode(), b"1"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self._body})
