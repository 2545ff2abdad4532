"""API Gateway's REST API (v1) with Lambda proxy integrations, free of sockets.

A request goes the way it goes in AWS: routing, then the authorizer, then the integration. Whatever the gateway answers
by itself comes from the template's gateway responses. How a function is run is the caller's affair (`InvokeFunction`).

Where behaviour looks arbitrary it is API Gateway's; the comments name the page of the developer guide.
"""

import asyncio
import base64
import json
import logging
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, unquote

import msgspec

from local.template import ACCOUNT_ID, PARTITION, REGION, Api, Authorizer, Invoke, Mock, Route

# "Quotas for configuring and running a REST API"
MAX_BODY = 10 * 1024 * 1024
INTEGRATION_TIMEOUT = 29.0
# "Lambda quotas", for a synchronous invocation. A body is measured exactly only where it could come near: written as
# JSON, a byte takes six at most (\u0000).
MAX_EVENT = 6 * 1024 * 1024
_SMALL_BODY = MAX_EVENT // 8

_CACHED_DECISIONS = 1000

# "Amazon API Gateway important notes", the table of headers, column "Response direction (Lambda)".
_REMAPPED_HEADERS = frozenset(
    {
        "authorization",
        "connection",
        "content-md5",
        "date",
        "max-forwards",
        "server",
        "user-agent",
        "www-authenticate",
    }
)
_DROPPED_HEADERS = frozenset(
    # content-length is not in that table: the gateway computes it from the body.
    {"content-length", "expect", "host", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"}
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")

# "Gateway response types": the status and the message of each type that can come from here.
_REFUSALS = {
    "ACCESS_DENIED": (403, "User is not authorized to access this resource with an explicit deny"),
    "AUTHORIZER_CONFIGURATION_ERROR": (500, "Internal server error"),
    "AUTHORIZER_FAILURE": (500, "Internal server error"),
    "INTEGRATION_FAILURE": (504, "Internal server error"),
    "INTEGRATION_TIMEOUT": (504, "Endpoint request timed out"),
    "MISSING_AUTHENTICATION_TOKEN": (403, "Missing Authentication Token"),
    "REQUEST_TOO_LARGE": (413, "Request Too Long"),
    "UNAUTHORIZED": (401, "Unauthorized"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "Unsupported Media Type"),
    "DEFAULT_5XX": (500, "Internal server error"),
}

_logger = logging.getLogger(__name__)

Json = dict[str, Any]


class FunctionError(Exception):
    """A function did not return: its handler raised, its code did not load, or its process died."""

    def __init__(self, error_type: str, message: str, trace: tuple[str, ...] = ()) -> None:
        super().__init__(f"{error_type}: {message}")
        self.error_type = error_type
        self.message = message
        self.trace = trace


class FunctionTimeout(Exception):
    """A function took longer than its timeout in the template."""


class InvokeFunction(Protocol):
    """Runs one function with one event and returns what its handler returned."""

    async def __call__(self, function: str, event: Json, /) -> object:
        """Raise FunctionError or FunctionTimeout where there is no result."""
        ...


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came over the wire: `path` is not decoded, `query` is without its question mark."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    source_ip: str = "127.0.0.1"
    protocol: str = "HTTP/1.1"

    def header(self, name: str) -> str | None:
        """The last value of a header, whatever its case."""
        return next((value for key, value in reversed(self.headers) if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response, complete but for what the wire adds (Content-Length, Date)."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Gateway:
    """One stage of one REST API."""

    def __init__(self, api: Api, invoke: InvokeFunction, clock: Callable[[], float] = time.monotonic) -> None:
        """Play `api`, calling its functions by `invoke`; `clock` times the authorizer's cache."""
        self._api = api
        self._invoke = invoke
        self._routes = _Routes(api.routes)
        self._door = _Door(api.authorizer, invoke, clock) if api.authorizer else None
        self._is_binary = _media_type_matcher(api.binary_media_types)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one request. Never raises: what fails is a gateway response."""
        request_id = str(uuid.uuid4())
        try:
            response = await self._answer(request, request_id)
        except _Refusal as refusal:
            response = self._refuse(refusal.kind, request_id)
        except Exception:
            # The last line: even a fault of this module keeps the one shape that errors have.
            _logger.exception("The gateway failed at %s %s", request.method, request.path)
            response = self._refuse("DEFAULT_5XX", request_id)
        return replace(
            response,
            headers=(*response.headers, ("x-amzn-RequestId", request_id)),
            body=b"" if request.method == "HEAD" else response.body,
        )

    async def _answer(self, request: HttpRequest, request_id: str) -> HttpResponse:
        if len(request.body) > MAX_BODY:
            raise _Refusal("REQUEST_TOO_LARGE")
        route, path_parameters = self._routes.find(request.method, request.path)
        event = self._event(request, request_id, route, path_parameters)
        if route.authorized and self._door:
            identity = await self._door.admit(request, event, self._method_arn(request))
            event["requestContext"]["authorizer"] = identity
        if isinstance(route.integration, Mock):
            # "Integration passthrough behaviors": never refuses what no request template is there for.
            if not _media_type_matcher(route.integration.media_types)(_content_type(request)):
                raise _Refusal("UNSUPPORTED_MEDIA_TYPE")
            return _mock_response(route.integration)
        event["body"], event["isBase64Encoded"] = self._body(request)
        return await self._integrate(route.integration, event, len(request.body))

    async def _integrate(self, integration: Invoke, event: Json, size: int) -> HttpResponse:
        if size > _SMALL_BODY and len(msgspec.json.encode(event)) > MAX_EVENT:
            raise _Refusal("REQUEST_TOO_LARGE")
        try:
            async with asyncio.timeout(INTEGRATION_TIMEOUT):
                result = await self._invoke(integration.function, event)
        except (TimeoutError, FunctionTimeout):
            raise _Refusal("INTEGRATION_TIMEOUT") from None
        except FunctionError:
            raise _Refusal("INTEGRATION_FAILURE") from None
        try:
            return _proxy_response(result)
        except ValueError as error:
            _logger.error("%s answered no valid proxy response: %s", integration.function, error)
            raise _Refusal("INTEGRATION_FAILURE") from None

    def _event(
        self, request: HttpRequest, request_id: str, route: Route, path_parameters: Mapping[str, str] | None
    ) -> Json:
        """The proxy event but for the body ("Input format of a Lambda function for proxy integration", version 1.0)."""
        query = parse_qsl(request.query, keep_blank_values=True)
        now = time.time()
        context: Json = {
            "accountId": ACCOUNT_ID,
            "apiId": self._api.api_id,
            "httpMethod": request.method,
            "identity": {"sourceIp": request.source_ip, "userAgent": request.header("user-agent")},
            # As behind a domain of one's own: this run is asked without the stage, which that address would begin with.
            "path": request.path,
            "protocol": request.protocol,
            "requestId": request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "requestTimeEpoch": int(now * 1000),
            "resourcePath": route.path,
            "stage": self._api.stage,
        }
        return {
            "resource": route.path,
            "path": request.path,
            "httpMethod": request.method,
            "headers": dict(request.headers),
            "multiValueHeaders": _gather(request.headers),
            "queryStringParameters": dict(query) or None,
            "multiValueQueryStringParameters": _gather(query) or None,
            "pathParameters": path_parameters,
            "stageVariables": None,
            "requestContext": context,
        }

    def _body(self, request: HttpRequest) -> tuple[str | None, bool]:
        if not request.body:
            return None, False
        if self._is_binary(_content_type(request)):
            return base64.b64encode(request.body).decode("ascii"), True
        return request.body.decode("utf-8", errors="replace"), False

    def _method_arn(self, request: HttpRequest) -> str:
        api = f"arn:{PARTITION}:execute-api:{REGION}:{ACCOUNT_ID}:{self._api.api_id}"
        return f"{api}/{self._api.stage}/{request.method}{request.path}"

    def _refuse(self, kind: str, request_id: str) -> HttpResponse:
        """A gateway response, from the template where it has one for `kind` or for its class."""
        default_status, message = _REFUSALS[kind]
        fallback = "DEFAULT_4XX" if default_status < 500 else "DEFAULT_5XX"
        response = self._api.gateway_responses.get(kind) or self._api.gateway_responses.get(fallback)
        template = response.template if response else None
        values = {
            "$context.error.messageString": json.dumps(message),
            "$context.error.message": message,
            "$context.error.responseType": kind,
            "$context.requestId": request_id,
        }
        body = re.sub(
            r"\$context\.[A-Za-z.]+",
            lambda match: values.get(match[0], ""),
            template or '{"message":$context.error.messageString}',
        )
        headers = response.headers.items() if response else ()
        status = response.status if response and response.status else default_status
        return HttpResponse(status, (("Content-Type", "application/json"), *headers), body.encode())


class _Refusal(Exception):
    """The gateway itself answers, with its response of this type."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


# ------------------------------------------------------------------ routing


class _Routes:
    """Finds the route of a raw path.

    Segments are compared as they were sent and decoded only as values, so that no %2F and no %2e%2e leads to another
    route. Nothing is normalised; case counts.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        resources: dict[str, dict[str, Route]] = {}
        for route in routes:
            resources.setdefault(route.path, {})[route.method] = route
        # "The most specific match wins": a literal segment before {a parameter}, that before {everything+}.
        self._resources = sorted(
            ((path.split("/"), methods) for path, methods in resources.items()),
            key=lambda resource: [(_is_greedy(part), _is_parameter(part)) for part in resource[0]],
        )

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str] | None]:
        segments = path.split("/")
        # One slash at the end is ignored for the match and kept in the event, as by API Gateway.
        if len(segments) > 2 and segments[-1] == "" and segments[-2] != "":
            segments.pop()
        for pattern, methods in self._resources:
            parameters = _match(pattern, segments)
            if parameters is None:
                continue
            route = methods.get(method) or methods.get("ANY")
            if route is None:
                break
            return route, parameters or None
        # API Gateway's words for a route that does not exist.
        raise _Refusal("MISSING_AUTHENTICATION_TOKEN")


def _is_parameter(part: str) -> bool:
    return part.startswith("{")


def _is_greedy(part: str) -> bool:
    return part.endswith("+}")


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    """The path parameters where `segments` fit `pattern`. A parameter takes one segment, and never an empty one."""
    greedy = _is_greedy(pattern[-1])
    if len(segments) < len(pattern) or (len(segments) > len(pattern) and not greedy):
        return None
    if greedy:
        segments = [*segments[: len(pattern) - 1], "/".join(segments[len(pattern) - 1 :])]
    parameters: dict[str, str] = {}
    for part, segment in zip(pattern, segments, strict=True):
        if _is_parameter(part):
            if not segment:
                return None
            parameters[part.strip("{+}")] = unquote(segment, errors="replace")
        elif part != segment:
            return None
    return parameters


# ------------------------------------------------------------------ the authorizer


class _Statement(msgspec.Struct, forbid_unknown_fields=True):
    """What is forbidden here (a Condition, say) would be ignored otherwise, and the policy permit too much."""

    Effect: Literal["Allow", "Deny"]
    Action: str | list[str]
    Resource: str | list[str]
    Sid: str = ""


class _Policy(msgspec.Struct):
    Statement: list[_Statement]


class _Decision(msgspec.Struct, rename="camel"):
    principal_id: str
    policy_document: _Policy
    context: dict[str, str | int | float | bool | None] = {}

    def identity(self) -> Json:
        """requestContext.authorizer. The context arrives as text, whatever it was."""
        values = {key: _text(value) for key, value in self.context.items() if value is not None}
        return {"principalId": self.principal_id, **values}

    def permits(self, method_arn: str) -> bool:
        """IAM's rule: a Deny that matches wins, else an Allow that matches, else no."""
        effects = {
            statement.Effect
            for statement in self.policy_document.Statement
            if any(_matches(action, "execute-api:Invoke") for action in _listed(statement.Action))
            and any(_matches(resource, method_arn) for resource in _listed(statement.Resource))
        }
        return effects == {"Allow"}


# The values of an authorizer's headers, by which a decision is remembered.
_Sources = tuple[str, ...]


class _Door:
    """A Lambda authorizer of type REQUEST, with its cache of decisions."""

    def __init__(self, authorizer: Authorizer, invoke: InvokeFunction, clock: Callable[[], float]) -> None:
        self._authorizer = authorizer
        self._invoke = invoke
        self._clock = clock
        self._cache: OrderedDict[_Sources, tuple[float, _Decision]] = OrderedDict()

    async def admit(self, request: HttpRequest, event: Json, method_arn: str) -> Json:
        """The caller's identity; refuses a caller without one. `event` is what the route's function will be told."""
        sources = tuple(request.header(name) or "" for name in self._authorizer.headers)
        # "Configure a Lambda authorizer": nobody is asked where an identity source is missing or empty.
        if not all(sources):
            raise _Refusal("UNAUTHORIZED")
        decision = self._remembered(sources)
        if decision is None:
            decision = await self._decide(event, method_arn)
            self._remember(sources, decision)
        # A remembered policy is evaluated anew: it was made for the caller, this question is about the method.
        if not decision.permits(method_arn):
            raise _Refusal("ACCESS_DENIED")
        return decision.identity()

    async def _decide(self, event: Json, method_arn: str) -> _Decision:
        try:
            answer = await self._invoke(
                self._authorizer.function, {"type": "REQUEST", "methodArn": method_arn, **event}
            )
            return msgspec.convert(answer, _Decision)
        except FunctionError as error:
            # "Output from an API Gateway Lambda authorizer": this one word, exactly, is a 401.
            raise _Refusal("UNAUTHORIZED" if error.message == "Unauthorized" else "AUTHORIZER_FAILURE") from None
        except FunctionTimeout:
            raise _Refusal("AUTHORIZER_FAILURE") from None
        except msgspec.ValidationError as error:
            _logger.error("%s answered no valid policy: %s", self._authorizer.function, error)
            raise _Refusal("AUTHORIZER_CONFIGURATION_ERROR") from None

    def _remembered(self, sources: _Sources) -> _Decision | None:
        until, decision = self._cache.get(sources, (0.0, None))
        if decision is None or self._clock() >= until:
            return None
        self._cache.move_to_end(sources)
        return decision

    def _remember(self, sources: _Sources, decision: _Decision) -> None:
        if self._authorizer.ttl <= 0:
            return
        self._cache[sources] = (self._clock() + self._authorizer.ttl, decision)
        self._cache.move_to_end(sources)
        if len(self._cache) > _CACHED_DECISIONS:
            self._cache.popitem(last=False)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@lru_cache(maxsize=1000)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


def _matches(pattern: str, text: str) -> bool:
    """IAM's wildcards: * is any run of characters, ? is one."""
    return _pattern(pattern).fullmatch(text) is not None


# ------------------------------------------------------------------ headers, bodies, responses


def _gather(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    return values


def _media_type_matcher(kinds: Iterable[str]) -> Callable[[str], bool]:
    patterns = tuple(kind.lower() for kind in kinds)

    def matches(content_type: str) -> bool:
        media_type = content_type.partition(";")[0].strip().lower()
        return any(_matches(pattern, media_type) for pattern in patterns)

    return matches


def _content_type(request: HttpRequest) -> str:
    # "Content type conversions in API Gateway": none counts as application/json.
    return request.header("content-type") or "application/json"


def _mock_response(mock: Mock) -> HttpResponse:
    return HttpResponse(mock.status, (("Content-Type", "application/json"), *mock.headers.items()), mock.body.encode())


class _ProxyResult(msgspec.Struct, rename="camel"):
    """What a proxied function returns ("Output format of a Lambda function for proxy integration")."""

    status_code: int | str
    headers: dict[str, Any] | None = None
    multi_value_headers: dict[str, list[Any]] | None = None
    body: str | None = None
    is_base64_encoded: bool = False

    def pairs(self) -> list[tuple[str, str]]:
        """Both maps of headers as one list; of a pair that stands in both, the one in multiValueHeaders is kept."""
        single, multiple = self.headers or {}, self.multi_value_headers or {}
        pairs = [(name, _text(value)) for name, values in multiple.items() for value in values]
        known = {(name.lower(), value) for name, value in pairs}
        return pairs + [
            (name, _text(value)) for name, value in single.items() if (name.lower(), _text(value)) not in known
        ]


def _proxy_response(result: object) -> HttpResponse:
    """A function's result as a response; raises ValueError where it is none."""
    try:
        answer = msgspec.convert(result, _ProxyResult)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    status = int(answer.status_code)
    if not 200 <= status <= 599:
        raise ValueError(f"there is no status {status}")
    body = answer.body or ""
    # Base64 that is none raises binascii.Error, which is a ValueError.
    content = base64.b64decode(body, validate=True) if answer.is_base64_encoded else body.encode()
    pairs = answer.pairs()
    for name, value in pairs:
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError(f"{name!r} is no valid header")
    headers = [
        (f"x-amzn-Remapped-{name}" if name.lower() in _REMAPPED_HEADERS else name, value)
        for name, value in pairs
        if name.lower() not in _DROPPED_HEADERS
    ]
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return HttpResponse(status, tuple(headers), content)


def _text(value: object) -> str:
    """A value as API Gateway writes it: true, not True."""
    return value if isinstance(value, str) else json.dumps(value)
