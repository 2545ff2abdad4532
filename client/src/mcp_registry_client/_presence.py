"""Whether this process serves: a route that answers for the server, and a question to ourselves over loopback.

Nothing else tells a server that runs from one that was only imported, by a test say. Lifespan hooks come before the
port is open or once for every session, and which of the two depends on the framework.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, cast
from urllib.parse import urlsplit

from mcp_registry_client import _document, _listening, _settings, _tools, _transport

# The route that we ask ourselves; it answers whatever the endpoint's path is.
WELL_KNOWN = "/.well-known/mcp-registry"
# Where frameworks serve unless told otherwise.
USUAL_PATHS = ("/mcp", "/sse")
# By this header we know our own question, so that nobody else makes us list the tools.
INSTANCE = "x-mcp-registry-instance"
SECONDS = 10.0

# A server without routes is asked what the registry asks. The session exists nowhere, for a server of an older
# protocol would otherwise open one, and keep it.
DISCOVER = {
    "jsonrpc": "2.0",
    "id": 1,
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

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class NotServing(Exception):
    """Nothing in this process answers for the server, yet or any more."""

    def __init__(self, *, elsewhere: bool = False) -> None:
        """`elsewhere`: whether something of HTTP answered, only not we."""
        super().__init__()
        self.elsewhere = elsewhere


class Presence:
    """One server in this process: answers for it, and finds out whether anybody can hear that."""

    def __init__(
        self, server: Any, tools: Any, about: _document.About, settings: _settings.Settings, path: str | None
    ) -> None:
        """`path`: of the endpoint within this process, where it is known before the server runs."""
        self._server = server
        self._tools = server if tools is None else tools
        self._about = about
        self._settings = settings
        self._path = path
        self._endpoint_url = about.get("endpoint_url") or settings.endpoint_url
        # Whether there is a route that answers for us.
        self.routed = True
        self._answered_at: _listening.Address | None = None
        self.begin()

    def begin(self) -> None:
        """Be a process of its own: what a parent knew before a fork is not known of the child."""
        self._instance = os.urandom(16).hex()
        self._listing = False
        self._listed: Any = None
        self._failure: Exception | None = None

    # -------------------------------------------------------------- answering, in the host's event loop

    def paths(self) -> list[str]:
        """Where a health check may ask, as far as that is known before the server runs."""
        settings = getattr(self._server, "settings", None)
        fastmcp = getattr(_module("fastmcp"), "settings", None)
        known = [
            self._path,
            _document.path_of(self._endpoint_url),
            *(
                getattr(origin, name, None)
                for origin in (settings, fastmcp)
                for name in ("streamable_http_path", "sse_path")
            ),
            *USUAL_PATHS,
        ]
        return list(dict.fromkeys(path.rstrip("/") + "/health" for path in known if isinstance(path, str)))

    def is_meant(self, scope: Scope) -> bool:
        """Whether a request is our own question."""
        return _instance_in(scope) == self._instance.encode()

    async def answer(self, scope: Scope) -> bytes:
        """What a health check is told. To our own question, also that it is us."""
        if not self.is_meant(scope):
            return b'{"status":"ok"}'
        # Here, because what lists tools may hold on to the event loop that serves them. Once at a time, because it may
        # also hang.
        if not self._listing:
            self._listing = True
            try:
                self._listed, self._failure = await _awaited(_tools.read(self._tools)), None
            except Exception as error:  # noqa: BLE001 - told to the thread that asked
                self._failure = error
            finally:
                self._listing = False
        path = self._path or _mcp_path(getattr(scope.get("app"), "routes", ()))
        found = {"status": "ok", "instance": self._instance, "path": str(scope.get("root_path", "")) + path}
        return json.dumps(found).encode()

    # -------------------------------------------------------------- asking, in a thread of ours

    def document(self) -> dict[str, Any]:
        """The registration, once the server answers.

        Raises NotServing while it doesn't, Unusable where it cannot be registered as it is, and whatever its tools
        raise.
        """
        hint = urlsplit(self._endpoint_url).port if self._endpoint_url else None
        found = _listening.addresses(hint)
        # What answered before is asked first: others may keep us waiting.
        found.sort(key=lambda address: address != self._answered_at)
        elsewhere = False
        for address in found:
            for heard in self._questions(address):
                if heard is None:
                    break
                elsewhere = True
                if (path := self._recognised(heard.response)) is not None:
                    self._answered_at = address
                    return self._document(address, heard, path)
        raise NotServing(elsewhere=elsewhere)

    def _questions(self, address: _listening.Address) -> Iterable[_listening.Heard | None]:
        """What is answered to the questions that may find us, one after the other."""
        endpoint = _document.path_of(self._endpoint_url)
        hosts = dict.fromkeys(host for host in (address.authority, self._endpoint_host()) if host)
        if not self.routed:
            body = json.dumps(DISCOVER).encode()
            path = endpoint or self._path or USUAL_PATHS[0]
            for host in hosts:
                yield _listening.ask(address, "POST", path, {**DISCOVER_HEADERS, "Host": host}, body, seconds=SECONDS)
            return
        # Under a path of its own where the server is part of a larger application.
        paths = (WELL_KNOWN, *([f"{endpoint}/health"] if endpoint else []))
        for path in paths:
            for host in hosts:
                headers = {INSTANCE: self._instance, "Host": host}
                yield _listening.ask(address, "GET", path, headers, seconds=SECONDS)

    def _endpoint_host(self) -> str | None:
        """The name by which clients call, for servers that answer to no other."""
        return urlsplit(self._endpoint_url).netloc if self._endpoint_url else None

    def _recognised(self, response: _transport.Response) -> str | None:
        """The path of the endpoint, where it was we who answered."""
        if not self.routed:
            # The socket is ours, and speaks the protocol: that is all there is to know of it. The SDK before 1.30 says
            # in plain words that it knows no such session.
            ours = response.status in GATED or b'"jsonrpc"' in response.body or b"session ID" in response.body
            return (self._path or USUAL_PATHS[0]) if ours else None
        try:
            answer = json.loads(response.body) if response.status == 200 else None
        except ValueError:
            return None
        if not isinstance(answer, Mapping):
            return None
        fields = cast("Mapping[str, Any]", answer)
        return fields.get("path") if fields.get("instance") == self._instance else None

    def _document(self, address: _listening.Address, heard: _listening.Heard, path: str) -> dict[str, Any]:
        endpoint_url = self._endpoint_url or self._local_url(address, heard, path)
        if not self.routed:
            self._listed = complete(_tools.read(self._tools))
        elif self._failure is not None:
            raise self._failure
        return _document.document(self._about, _tools.facts(self._server), endpoint_url, _tools.dumped(self._listed))

    def _local_url(self, address: _listening.Address, heard: _listening.Heard, path: str) -> str:
        """Where a registry on this machine finds the server. Raises Unusable where it is on another."""
        registry = urlsplit(self._settings.registry_url or "").hostname or ""
        if address.port is None or not (registry in ("localhost", "::1") or registry.startswith("127.")):
            raise _document.Unusable(
                f"Nobody has said where clients reach this server: set {_settings.ENDPOINT_URL}, or give endpoint_url='https://...'"
            )
        return f"http{'s' if heard.tls else ''}://{address.authority}{path}"


def complete(found: Any) -> Any:
    """What `_tools.read` found, after the event loop of our own that it may need."""
    if not isinstance(found, Awaitable):
        return found
    import asyncio  # 40 ms that most never need

    async def run() -> Any:
        return await asyncio.wait_for(_awaited(cast("Awaitable[Any]", found)), SECONDS)

    return asyncio.run(run())


async def _awaited(found: Any) -> Any:
    while isinstance(found, Awaitable):
        found = await cast("Awaitable[Any]", found)
    return found


def is_question(scope: Scope) -> bool:
    """Whether a server of this process, or of another worker, asks for itself."""
    return _instance_in(scope) is not None


def _instance_in(scope: Scope) -> bytes | None:
    return dict(cast("Iterable[tuple[bytes, bytes]]", scope["headers"])).get(INSTANCE.encode())


def _module(name: str) -> Any:
    import sys

    return sys.modules.get(name)


def _mcp_path(routes: Iterable[Any]) -> str:
    """The path of the MCP endpoint among the routes of a Starlette application."""
    for route in routes:
        endpoint = getattr(route, "endpoint", None)
        while endpoint is not None and type(endpoint).__name__ != "StreamableHTTPASGIApp":
            endpoint = getattr(endpoint, "app", None)  # behind what asks for a token
        if endpoint is not None:
            return route.path
    known = [getattr(route, "path", None) for route in routes]
    return next((path for path in USUAL_PATHS if path in known), USUAL_PATHS[0])


class StarletteRoute:
    """The route on a server that takes routes of Starlette: it is called with a request, and answers as a response."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    async def health(self, request: Any) -> Any:
        """What Starlette calls. A route of the server's author on the same path goes first."""
        scope: Scope = request.scope
        presence = self._presence
        for route in getattr(scope.get("app"), "routes", ()):
            if getattr(route, "path", None) != request.url.path.removeprefix(scope.get("root_path", "")):
                continue
            other = getattr(getattr(route, "endpoint", None), "__self__", None)
            if isinstance(other, StarletteRoute):
                # A server that is mounted in another brings its routes along, and the first of them gets all requests.
                presence = other._presence if other._presence.is_meant(scope) else presence
            elif "GET" in (getattr(route, "methods", None) or ()):
                return route.handle
        return Answer(await presence.answer(scope))


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
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self._body})
