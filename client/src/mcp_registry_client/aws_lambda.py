"""`register_lambda`: for MCP servers that are functions on AWS Lambda.

A function lives in a sandbox that is frozen between invocations, and frozen too is a thread in it. So the announcement
goes on in a thread, and one invocation waits for it, once and not for long: called synchronously, a registry that takes
two seconds would cost every cold start two seconds. It begins with the first invocation, when the module has been
imported: before that, tools may be missing.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from mcp_registry_client import _settings, _tools, _urls
from mcp_registry_client._announcer import Pace, Registration
from mcp_registry_client._document import Draft, document
from mcp_registry_client._presence import NotServing, Toolless, complete, endpoint_of, endpoint_url, tagged

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mcp_registry_client._document import About

# Set by Lambda itself, and by what runs its image elsewhere; not by tests that only look like Lambda.
RUNTIME = "AWS_LAMBDA_RUNTIME_API"
# The button of the console with which a method of a REST API is tried: its domain leads nowhere.
TEST_STAGE = "test-invoke-stage"
DOMAIN = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]+)?")
# Where servers of MCP answer, behind the stage, where nobody has said otherwise.
USUAL_PATHS = ("", "/", "/mcp", "/mcp/")
# What a gateway lets stand before its routes: a stage, or the mapping of a custom domain.
MAPPED = re.compile(r"(?:/[A-Za-z0-9$_.+!*'()-]+)*")
# What says by which path MCP is asked for is short; a longer request may have much in it, and another one follows.
MAX_TELLING = 64 << 10

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Untold(Exception):
    """An event does not tell the endpoint. The message says why, and what to do."""


class LambdaHandler(Protocol[Result_co]):
    """What Lambda calls, with the handle of its registration."""

    registration: Registration

    def __call__(self, event: Any, context: Any, /) -> Result_co:
        """Handle an event."""
        ...


class Function:
    """Where the registration of a function comes from: its tools, and the endpoint once that is known."""

    def __init__(self, server: Any, tools: Any, about: About, settings: _settings.Settings) -> None:
        self._server = server
        self._tools = server if tools is None else tools
        self._about = about
        self._settings = settings
        self._endpoint_url: str | None = None

    def learn(self, endpoint_url: str) -> None:
        """Take this for the endpoint: `draft` has something to say from now on."""
        self._endpoint_url = endpoint_url

    def draft(self) -> Draft:
        """The registration.

        Raises NotServing before the endpoint is learnt, Unusable where it is no URL, and Toolless where the tools
        cannot be listed.
        """
        if self._endpoint_url is None:
            raise NotServing(told=True)
        endpoint_of(self._about, self._settings)
        if isinstance(self._tools, Iterator):
            self._tools = list(cast("Iterator[Any]", self._tools))  # it has an end, and a failure may follow
        registration = document(tagged(self._about), _tools.facts(self._server), self._endpoint_url, [])
        try:
            tools = _tools.dumped(complete(_tools.read(self._tools)))
        except Exception as error:  # noqa: BLE001 - what a server's own code raises may be anything
            raise Toolless(registration, f"{type(error).__name__}: {error}") from None
        return Draft({**registration, "tools": tools})


def register_lambda(
    handler: Callable[[Any, Any], Result],
    *,
    server: Any = None,
    tools: Any = None,
    budget_ms: int = 200,
    path: str | None = None,
    **about: Unpack[About],
) -> LambdaHandler[Result]:
    """The handler as it was; the function announces itself to the registry of `MCP_REGISTRY_URL`.

    One invocation takes up to `budget_ms` longer, once in the life of a sandbox; nothing else costs anything.
    Outside of Lambda it does nothing. What is returned has the handle as `registration`.

    Args:
        handler: What Lambda calls with an event and a context.
        server: The object that has the tools: an MCPLambdaHandler, FastMCP, MCPServer, a low-level Server.
        tools: A list, or a function that returns one, instead of the server's own.
        budget_ms: How long an invocation waits for the announcement.
        path: Of the endpoint, with the stage. Otherwise it is that of the first MCP request that was answered, where
            that is the path of a route without variables, or `/` or `/mcp`: any other could be the caller's invention.
        **about: As in `register`. With `endpoint_url` or `MCP_ENDPOINT_URL` the announcement begins before the first
            invocation's own work; otherwise after that, for the event's domain and path are the endpoint.
    """
    settings = _settings.from_environment()
    function = Function(server, tools, about, settings)
    # A sandbox that is replaced every few hours need not announce itself twice.
    registration = Registration(function, settings, Pace(once=True))
    if os.environ.get(RUNTIME):
        try:
            registration.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the function runs on
            registration.refuse(f"it cannot be prepared ({type(error).__name__}: {error})")
    invocation = _Invocation(function, registration, budget_ms, path, endpoint_url(about, settings))

    @functools.wraps(handler)
    def lambda_handler(event: Any, context: Any) -> Result:
        invocation.before()
        result = handler(event, context)
        invocation.after(event, result)
        return result

    announced = cast("LambdaHandler[Result]", lambda_handler)
    announced.registration = registration
    return announced


class _Invocation:
    """What an invocation does for the announcement, before its own work and once that is done."""

    def __init__(
        self, function: Function, registration: Registration, budget_ms: int, path: str | None, endpoint: str | None
    ) -> None:
        self._function = function
        self._registration = registration
        self._budget_ms = budget_ms
        self._path = path
        self._endpoint = endpoint
        self._began: float | None = None
        self._over = registration.state == "off"

    def before(self) -> None:
        """Begin the announcement, where the endpoint is known."""
        if self._endpoint is not None and self._began is None and not self._over:
            self._begin(self._endpoint)

    def after(self, event: Any, result: Any) -> None:
        """Begin the announcement otherwise, and wait for what is left of the budget since it began."""
        if self._over:
            return
        try:
            if self._began is None:
                if _is_test(event) or not _is_answered(event, result):
                    return  # a timer's event, say; the next one may tell
                self._begin(asked_at(event, self._path))
            self._over = True
            waited = time.monotonic() - (self._began or 0.0)
            self._registration.settle(max(0.0, self._budget_ms / 1000 - waited))
        # Neither ends anything: who sent this event need not be who sends the next one.
        except Untold as reason:
            self._registration.go_on_waiting(str(reason))
        except Exception as error:  # noqa: BLE001 - the answer is more than the announcement
            self._registration.go_on_waiting(f"the event cannot be read ({type(error).__name__}: {error})")

    def _begin(self, endpoint: str) -> None:
        self._began = time.monotonic()
        self._function.learn(endpoint)
        self._registration.refresh()


def asked_at(event: Any, path: str | None = None) -> str:
    """The URL of the endpoint to which a request was sent: of a REST API, an HTTP API, or a function URL.

    Its domain is the gateway's word (`domainName`), for the Host header is the caller's. So is the path, and what it
    says would stand in the registry: it is taken only from where callers cannot write. Raises Untold.
    """
    context = _mapping(_mapping(event).get("requestContext"))
    domain = context.get("domainName")
    if not isinstance(domain, str) or not DOMAIN.fullmatch(domain):
        raise Untold(
            "its event does not say by which domain it was reached (a load balancer's does not): "
            f"set {_settings.ENDPOINT_URL}"
        )
    found = path or _routed_path(_mapping(event), context)
    advice = f"give path='/...', or set {_settings.ENDPOINT_URL}"
    if found is None:
        raise Untold(f"the path by which it was asked may be the caller's invention: {advice}")
    url = f"https://{domain}/{found.lstrip('/')}"
    if fault := _urls.endpoint_fault(url):
        raise Untold(f"its address cannot be that of a server ({fault}): {advice}")
    return url


def _routed_path(event: Mapping[str, Any], context: Mapping[str, Any]) -> str | None:
    """The path that was asked, with the stage or the mapping of a custom domain; None where a caller may choose it.

    A route without variables is asked by one path only. Behind any other, and a function URL, the usual ones are taken.
    """
    # A REST API's own path has the stage, and a custom domain's the mapping; an HTTP API's raw path has both.
    asked = event.get("rawPath") if _mapping(context.get("http")) else context.get("path")
    if not isinstance(asked, str):
        return None
    key = context.get("resourcePath") or context.get("routeKey") or event.get("routeKey")
    route = key.rpartition(" ")[2] if isinstance(key, str) else ""  # "POST /mcp", and "/mcp" of a REST API
    if len(route) > 1 and route[0] == "/" and "{" not in route and asked.endswith(route):
        return asked if MAPPED.fullmatch(asked.removesuffix(route)) else None
    # $default is the stage of a function URL and of an HTTP API that names none: no path begins with it.
    stage = context.get("stage")
    behind = asked if stage == "$default" else asked.removeprefix(f"/{stage}")
    return asked if behind in USUAL_PATHS else None


def _is_answered(event: Any, result: Any) -> bool:
    """Whether this was a request of MCP that was answered well: it is then the endpoint that was asked.

    An application may have other paths that are posted to: clients of OAuth register before they ask anything.
    """
    fields = _mapping(event)
    context = _mapping(fields.get("requestContext"))
    method = _mapping(context.get("http")).get("method") or context.get("httpMethod") or fields.get("httpMethod")
    status = _mapping(result).get("statusCode", 200)
    if method != "POST" or not isinstance(status, int) or status >= 300:
        return False
    body = fields.get("body")
    if not isinstance(body, (str, bytes)) or len(body) > MAX_TELLING:
        return False
    try:
        if fields.get("isBase64Encoded"):
            from base64 import b64decode

            body = b64decode(body)
        message = json.loads(body)
    except (ValueError, RecursionError):
        return False
    # Before 2025-06-18 there might be several in one request.
    messages = cast("list[Any]", message) if isinstance(message, list) else [message]
    return any("jsonrpc" in _mapping(one) for one in messages)


def _is_test(event: Any) -> bool:
    return _mapping(_mapping(event).get("requestContext")).get("stage") == TEST_STAGE


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
