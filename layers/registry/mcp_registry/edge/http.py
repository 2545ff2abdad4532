"""The edge between API Gateway and the domain: proxy events in, proxy responses out, errors to statuses.

Shapes: AWS documentation, "Lambda proxy integrations in API Gateway", input and output format (payload 1.0).
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from mcp_registry.aws import observability
from mcp_registry.caller import Caller, parse_routes
from mcp_registry.errors import Fault, Forbidden, NotConfigured, RegistryError, Unavailable, ValidationFailed

# The one table of codes and statuses.
STATUSES: Mapping[str, HTTPStatus] = {
    "VALIDATION_ERROR": HTTPStatus.BAD_REQUEST,
    "UNAUTHORIZED": HTTPStatus.UNAUTHORIZED,
    "FORBIDDEN": HTTPStatus.FORBIDDEN,
    "QUOTA_EXCEEDED": HTTPStatus.FORBIDDEN,
    "SERVER_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "SNAPSHOT_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "TEAM_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "TOKEN_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ISSUER_NOT_FOUND": HTTPStatus.NOT_FOUND,
    "DUPLICATE_SERVER": HTTPStatus.CONFLICT,
    "CONFLICTING_SERVER": HTTPStatus.CONFLICT,
    "HELD_NAME": HTTPStatus.CONFLICT,
    "INACTIVE_SERVER": HTTPStatus.CONFLICT,
    "NOT_UNDER_REVIEW": HTTPStatus.CONFLICT,
    "TEAM_IN_USE": HTTPStatus.CONFLICT,
    "DUPLICATE_PREFIX": HTTPStatus.CONFLICT,
    "PAYLOAD_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "UNSUPPORTED_MEDIA_TYPE": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "REGISTRATION_REQUIRED": HTTPStatus.PRECONDITION_REQUIRED,
    "INTERNAL_ERROR": HTTPStatus.INTERNAL_SERVER_ERROR,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
}

HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
# The largest bigint of Postgres.
MAX_ID = 2**63 - 1
# Of a server's name, in characters.
MAX_NAME = 100

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Request:
    """One HTTP request, as API Gateway hands it over.

    `headers` have lower-case names; `path` holds the path parameters, decoded.
    """

    __slots__ = ("_event", "headers", "id", "method", "path", "resource")

    def __init__(self, event: Mapping[str, Any]) -> None:
        self._event = event
        self.method: str = event["httpMethod"]
        self.resource: str = event["resource"]
        self.id: str = event["requestContext"]["requestId"]
        self.headers: dict[str, str] = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
        self.path: dict[str, str] = event.get("pathParameters") or {}

    @property
    def whole_path(self) -> str:
        """The path as the client asked for it, with the stage or with what a domain of one's own has in its place."""
        return self._event["requestContext"]["path"]

    @property
    def caller(self) -> Caller:
        """Who sent it. Raises NotConfigured where this route asks nobody for credentials."""
        return Caller.of(self._event["requestContext"])

    @property
    def is_open(self) -> bool:
        """Whether no authorizer was asked for this route."""
        return not self._event["requestContext"].get("authorizer")

    @property
    def query(self) -> dict[str, str]:
        """The query parameters, decoded. Raises ValidationFailed where one is given twice."""
        parameters: Mapping[str, list[str]] = self._event.get("multiValueQueryStringParameters") or {}
        repeated = [
            Fault(name, "Given more than once", "repeated") for name, values in parameters.items() if values[1:]
        ]
        if repeated:
            raise ValidationFailed(faults=repeated)
        return {name: values[0] for name, values in parameters.items()}

    @property
    def server(self) -> int | str:
        """The path parameter `id`: the id of a server where it is all digits, and else the name of one.

        Raises ValidationFailed where it can be neither: an id is a positive integer of the column's range.
        """
        text = self.path.get("id", "")
        # A gateway may hand over the slash of a name as it was sent. No name holds a percent sign.
        text = text.replace("%2F", "/").replace("%2f", "/")
        if not (text.isascii() and text.isprintable() and 0 < len(text) <= MAX_NAME):
            raise ValidationFailed("Neither the id nor the name of a server")
        if not text.isdigit():
            return text
        if text[0] == "0" or len(text) > len(str(MAX_ID)):
            raise ValidationFailed("Invalid server ID: it is a positive integer")
        if int(text) > MAX_ID:
            raise ValidationFailed(f"Invalid server ID: the largest is {MAX_ID}")
        return int(text)

    @property
    def body(self) -> bytes:
        """The body as it was sent; empty where there is none. Raises ValidationFailed where its base64 is broken."""
        body: str = self._event.get("body") or ""
        if not self._event.get("isBase64Encoded"):
            return body.encode("utf-8", "surrogatepass")
        try:
            return b64decode(body, validate=True)
        except ValueError:
            raise ValidationFailed("The body is not the base64 that it is said to be") from None


class Response:
    """An answer: JSON text or a value to be rendered as JSON, a status, and headers besides the usual ones."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body if isinstance(body, str) else _json(body)
        self.status = status
        self.headers = {**HEADERS, **headers} if headers else HEADERS

    @classmethod
    def empty(cls) -> Response:
        """204, without a body."""
        return cls("", HTTPStatus.NO_CONTENT)

    def proxy(self) -> dict[str, Any]:
        """The form that API Gateway expects."""
        return {
            "statusCode": int(self.status),
            "headers": self.headers,
            "body": self.body,
            "isBase64Encoded": False,
        }


def _check_site(request: Request) -> None:
    """Raise ValidationFailed where a page of another site has a browser change something.

    The browser may add credentials by itself that its user gave for this registry. It says whose page it is by
    Sec-Fetch-Site (W3C, "Fetch Metadata Request Headers"), an older one by Origin alone.
    """
    if request.method in ("GET", "HEAD"):
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = request.headers.get("origin")
        is_ours = origin is None or origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
    else:
        is_ours = site in ("same-origin", "none")
    if not is_ours:
        raise ValidationFailed("A page of another site can change nothing here")


def _check_role(request: Request) -> None:
    """Raise Forbidden where the template wants a higher role for this route; NotConfigured where it says none."""
    if request.is_open:
        return
    method = "GET" if request.method == "HEAD" else request.method
    needed = parse_routes(os.environ.get("ROLES", "")).get(f"{method} {request.resource}")
    if needed is None:
        raise NotConfigured
    caller = request.caller
    if not caller.may(needed):
        raise Forbidden(f"This takes the role {needed}, and {caller.name} has the role {caller.role}")


def error_response(error: RegistryError) -> Response:
    """Render an error: its sentence, its code, and the faults where the input is to blame."""
    body: dict[str, Any] = {"error": str(error), "code": error.code}
    if error.faults:
        body["details"] = [fault._asdict() for fault in error.faults]
    headers = None if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(body, STATUSES[error.code], headers)


def endpoint(handler: Callable[[Request], Response]) -> Callable[[Mapping[str, Any], object], dict[str, Any]]:
    """Make a Lambda handler of a function from Request to Response.

    A caller whose role is too low for the route is refused before. Errors of the registry become the answers that
    `STATUSES` names; anything else is a defect: logged, and answered 500 with nothing about it. HEAD is answered as GET
    is, without the body. Each request leaves one line in the log.
    """

    def lambda_handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
        started = time.perf_counter()
        request = Request(event)
        code: str | None = None
        try:
            _check_site(request)
            _check_role(request)
            response = handler(request)
        except RegistryError as error:
            if isinstance(error, Unavailable):
                observability.log_unavailable(request.id, error.cause)
            code, response = error.code, error_response(error)
        except Exception as error:  # noqa: BLE001 - the last stop: what gets past it is a bare 502
            observability.log_defect(request.id, error)
            code, response = RegistryError.code, error_response(RegistryError())
        elapsed = (time.perf_counter() - started) * 1000
        observability.log_request(request.id, request.method, request.resource, response.status, elapsed, code)
        answer = response.proxy()
        if request.method == "HEAD":
            # API Gateway would drop it, but not before Lambda has carried it, and refused one of more than 6 MB.
            answer["body"] = ""
        return answer

    return lambda_handler
