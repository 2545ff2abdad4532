"""`RegistryMiddleware`: for any ASGI application that serves MCP."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mcp_registry_client import _settings
from mcp_registry_client._announcer import Registration
from mcp_registry_client._presence import (
    HEALTHY,
    INSTANCE,
    WELL_KNOWN,
    Answer,
    Presence,
    Receive,
    Scope,
    Send,
    is_question,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mcp_registry_client._document import About


class RegistryMiddleware:
    """The application as it was; it announces itself to the registry of `MCP_REGISTRY_URL` once it serves.

    It answers `/.well-known/mcp-registry`, and `{path}/health` where the application answers 404; where no registry is
    set, nothing. `registration` is the handle that `register` returns.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        server: Any = None,
        tools: Any = None,
        path: str = "/mcp",
        **about: Unpack[About],
    ) -> None:
        """`server` says name, version and tools, as far as they are not given. `tools` is a list or a function.

        `path` is the endpoint's within the application. The rest is as in `register`.
        """
        self.app = app
        settings = _settings.from_environment()
        given = () if server is None and tools is None else tools
        self._presence = Presence(server, given, about, settings, path, absolute=False)
        self._health: frozenset[str] = frozenset()
        self.registration = Registration(self._presence, settings)
        if settings.registry_url is None:
            return
        try:
            self._health = frozenset(self._presence.paths())
            self.registration.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the application runs on
            self.registration.refuse(f"it cannot be prepared ({type(error).__name__}: {error})")
        # An application that nobody holds any more will not serve: tests make one each.
        weakref.finalize(self, self.registration.stop).atexit = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for the registry, or let the application answer."""
        if self._health and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path: str = scope["path"]
            if root := scope.get("root_path"):
                path = path.removeprefix(root)
            if path == WELL_KNOWN:
                await self._answer_question(scope, receive, send)
                return
            if path in self._health:
                await self._answer_check(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _answer_question(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer our own question and whoever asks none; the question of another server may be for one inside."""
        answer = Answer(self._presence.answer(scope))
        if self._presence.is_meant(scope) or not is_question(scope):
            await answer(scope, receive, send)
            return
        # An application that answers every path with its page has not understood the question.
        await self._unless(_is_ours, answer, scope, receive, send)

    async def _answer_check(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a health check where the application knows of none."""
        await self._unless(_is_known, Answer(HEALTHY), scope, receive, send)

    async def _unless(
        self, is_answer: Callable[[Any], bool], otherwise: Answer, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the application answer, unless its answer is none: then `otherwise`. That is told by how it starts."""
        is_none = False

        async def relay(message: Any) -> None:
            nonlocal is_none
            if message["type"] == "http.response.start":
                is_none = not is_answer(message)
            if not is_none:
                await send(message)

        await self.app(scope, receive, relay)
        if is_none:
            await otherwise(scope, receive, send)


def _is_ours(start: Any) -> bool:
    return any(name == INSTANCE.encode() for name, _ in start.get("headers", ()))


def _is_known(start: Any) -> bool:
    return start["status"] not in (404, 405)
