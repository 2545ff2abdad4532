"""`register_lambda`: for MCP servers that are functions on AWS Lambda.

A function lives in a sandbox that is frozen between invocations, and frozen too is a thread in it. So the announcement
begins while the sandbox starts, where the endpoint is known by then, and one invocation waits for it, once and not for
long: called synchronously, a registry that takes two seconds would cost every cold start two seconds.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mcp_registry_client import _settings, _tools
from mcp_registry_client._announcer import Pace, Registration
from mcp_registry_client._document import document
from mcp_registry_client._presence import NotServing, complete

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mcp_registry_client._document import About

# Set by Lambda itself, and by what runs its image elsewhere; not by tests that only look like Lambda.
RUNTIME = "AWS_LAMBDA_RUNTIME_API"

Result = TypeVar("Result")


class Function:
    """Where the registration of a function comes from: its tools, and the endpoint once that is known."""

    def __init__(self, server: Any, tools: Any, about: About, endpoint_url: str | None) -> None:
        self._server = server
        self._tools = tools
        self._about = about
        self._endpoint_url = endpoint_url
        self._known = threading.Event()
        if endpoint_url:
            self._known.set()

    @property
    def is_known(self) -> bool:
        """Whether the endpoint is known."""
        return self._known.is_set()

    def learn(self, endpoint_url: str) -> None:
        """Take this for the endpoint."""
        self._endpoint_url = endpoint_url
        self._known.set()

    def begin(self) -> None:
        """Nothing: a function does not fork, and what it knows is as true in a child."""

    def document(self) -> dict[str, Any]:
        """The registration. Waits for the endpoint."""
        self._known.wait()
        if not self._endpoint_url:
            raise NotServing
        tools = _tools.dumped(complete(_tools.read(self._tools)))
        return document(self._about, _tools.facts(self._server), self._endpoint_url, tools)


def register_lambda(
    handler: Callable[[Any, Any], Result],
    *,
    server: Any = None,
    tools: Any = None,
    budget_ms: int = 200,
    path: str | None = None,
    **about: Unpack[About],
) -> Callable[[Any, Any], Result]:
    """The handler as it was; the function announces itself to the registry of `MCP_REGISTRY_URL`.

    The first invocation takes up to `budget_ms` longer, once in the life of a sandbox; nothing else costs anything.
    Outside of Lambda it does nothing. What is returned has the handle as `registration`.

    Args:
        handler: What Lambda calls with an event and a context.
        server: The object that has the tools: an MCPLambdaHandler, FastMCP, MCPServer, a low-level Server.
        tools: A list, or a function that returns one, instead of the server's own.
        budget_ms: How long an invocation waits for the announcement.
        path: Of the endpoint, with the stage; otherwise that of the first MCP request that was answered.
        **about: As in `register`. `endpoint_url` or `MCP_ENDPOINT_URL` lets the announcement begin before the first
            event, whose domain and path are the endpoint otherwise.
    """
    settings = _settings.from_environment()
    source = server if tools is None else tools
    function = Function(server, source, about, about.get("endpoint_url") or settings.endpoint_url)
    # A sandbox that is replaced every few hours need not announce itself twice.
    registration = Registration(function, settings, Pace(once=True))
    if os.environ.get(RUNTIME):
        try:
            registration.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the function runs on
            registration.refuse(f"it cannot be prepared ({type(error).__name__}: {error})")
    invocation = _Invocation(function, registration, budget_ms / 1000, path)

    @functools.wraps(handler)
    def lambda_handler(event: Any, context: Any) -> Result:
        started = time.monotonic()
        result = handler(event, context)
        invocation.after(event, result, started)
        return result

    lambda_handler.registration = registration  # pyright: ignore[reportAttributeAccessIssue]
    return lambda_handler


class _Invocation:
    """What an invocation does for the announcement once its own work is done."""

    def __init__(self, function: Function, registration: Registration, budget: float, path: str | None) -> None:
        self._function = function
        self._registration = registration
        self._budget = budget
        self._path = path
        self._over = registration.state == "off"

    def after(self, event: Any, result: Any, started: float) -> None:
        """Learn the endpoint from the event where it is not known, and wait for what is left of the budget."""
        if self._over:
            return
        try:
            if not self._function.is_known:
                endpoint_url = endpoint_of(event, result, self._path)
                if endpoint_url is None:
                    return  # a timer's event, say; the next one may tell
                self._function.learn(endpoint_url)
            self._over = True
            self._registration.wait(max(0.0, self._budget - (time.monotonic() - started)))
        except Exception as error:  # noqa: BLE001 - the answer is more than the announcement
            self._over = True
            self._registration.refuse(f"the event cannot be read ({type(error).__name__}: {error})")


def endpoint_of(event: Any, result: Any = None, path: str | None = None) -> str | None:
    """The URL to which a request was sent: of a REST API, an HTTP API, or a function URL. None where it is neither.

    Only of a POST that was answered well, since that is an MCP server's endpoint. By `domainName`, which the gateway
    says: the Host header is the caller's.
    """
    context = _mapping(_mapping(event).get("requestContext"))
    domain = context.get("domainName")
    http = _mapping(context.get("http"))
    method = http.get("method") or context.get("httpMethod") or _mapping(event).get("httpMethod")
    if not domain or not isinstance(domain, str) or method != "POST":
        return None
    status = _mapping(result).get("statusCode", 200)
    if not isinstance(status, int) or status >= 300:
        return None
    # A REST API's own path has the stage, and a custom domain's the mapping; an HTTP API's raw path has both.
    asked = path or (context.get("path") if not http else _mapping(event).get("rawPath")) or "/"
    return f"https://{domain}/{str(asked).lstrip('/')}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
