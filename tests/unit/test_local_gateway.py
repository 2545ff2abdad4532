"""API Gateway as the local run plays it, with functions that are called in this process."""

import asyncio
import base64
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from local import gateway as gateway_module
from local.gateway import FunctionError, FunctionTimeout, Gateway, HttpRequest, HttpResponse
from local.template import Api, Authorizer, GatewayResponse, Invoke, Mock, Route

Handler = Callable[[dict[str, Any]], Any]

API = Api(
    api_id="api",
    stage="v1",
    routes=(
        Route("GET", "/open", Invoke("Open"), authorized=False),
        Route(
            "ANY",
            "/open",
            Mock(("application/json",), 405, {"Allow": "GET"}, '{"error": "GET only"}'),
            authorized=False,
        ),
        Route("GET", "/things/{id}", Invoke("Open"), authorized=False),
        Route("GET", "/things/first", Invoke("First"), authorized=False),
        Route("GET", "/files/{name+}", Invoke("Open"), authorized=False),
        Route("POST", "/closed", Invoke("Open"), authorized=True),
        Route("PUT", "/closed", Invoke("Open"), authorized=True),
    ),
    authorizer=Authorizer("Door", ("Authorization",), ttl=300),
    gateway_responses={
        "DEFAULT_4XX": GatewayResponse(None, {}, '{"error": "4", "id": "$context.requestId"}'),
        "DEFAULT_5XX": GatewayResponse(None, {}, '{"error": $context.error.messageString}'),
        "MISSING_AUTHENTICATION_TOKEN": GatewayResponse(404, {}, '{"error": "no route"}'),
        "UNAUTHORIZED": GatewayResponse(401, {"WWW-Authenticate": "Basic"}, '{"error": "who"}'),
        "INTEGRATION_FAILURE": GatewayResponse(503, {"Retry-After": "1"}, '{"error": "later"}'),
    },
    binary_media_types=("application/json",),
)
OK = {"statusCode": 200, "body": "ok"}


def policy(effect: str = "Allow", resource: str = "*", **more: Any) -> dict[str, Any]:
    statement = {"Effect": effect, "Action": "execute-api:Invoke", "Resource": resource}
    return {"principalId": "me", "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}, **more}


class Stage:
    """A gateway whose functions are the given callables; it remembers every event."""

    def __init__(self, api: Api = API, **functions: Handler):
        self.functions: dict[str, Handler] = {"Open": lambda event: OK, "Door": lambda event: policy(), **functions}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.now = 0.0
        self._gateway = Gateway(api, self._invoke, clock=lambda: self.now)

    async def _invoke(self, function: str, event: dict[str, Any], /) -> object:
        self.events.append((function, copy.deepcopy(event)))
        return self.functions[function](event)

    def ask(self, method: str, path: str, query: str = "", body: bytes = b"", **headers: str) -> HttpResponse:
        pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return asyncio.run(self._gateway.handle(HttpRequest(method, path, query, pairs, body)))

    def event(self, method: str, path: str, query: str = "", body: bytes = b"", **headers: str) -> dict[str, Any]:
        self.ask(method, path, query, body, **headers)
        return self.events[-1][1]

    def called(self, function: str) -> int:
        return sum(name == function for name, _ in self.events)


def header(response: HttpResponse, name: str) -> str | None:
    return HttpRequest("", "", headers=response.headers).header(name)


def raising(error: Exception) -> Handler:
    def handler(event: dict[str, Any]) -> Any:
        raise error

    return handler


# ------------------------------------------------------------------ routing


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/things/7", {"id": "7"}),
        ("/things/7/", {"id": "7"}),
        ("/things/a%2Fb", {"id": "a/b"}),
        ("/things/%2e%2e", {"id": ".."}),
        ("/things/..", {"id": ".."}),
        ("/things/%252e", {"id": "%2e"}),
        ("/things/%FF", {"id": "\ufffd"}),
        ("/things/a+b", {"id": "a+b"}),
        ("/files/a/b%20c", {"name": "a/b c"}),
        ("/open/", None),
    ],
)
def test_a_path_is_matched_raw_and_its_parameters_are_decoded_once(path: str, parameters: dict[str, str] | None):
    event = Stage().event("GET", path)
    assert event["pathParameters"] == parameters
    assert event["path"] == path


@pytest.mark.parametrize(
    "path",
    [
        *("/", "", "/nowhere", "/OPEN", "//open", "/open//", "/open/x", "/%6fpen"),
        *("/things//", "/things/", "/things/1/2", "/things/../open", "/files", "/files/"),
    ],
)
def test_a_path_without_a_route_is_the_missing_token_of_the_template(path: str):
    response = Stage().ask("GET", path)
    assert (response.status, response.body) == (404, b'{"error": "no route"}')


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("//", 404), ("", 404), ("/.", 404)])
def test_the_root_is_a_path_like_any_other(path: str, status: int):
    api = replace(API, routes=(*API.routes, Route("GET", "/", Invoke("Open"), authorized=False)))
    assert Stage(api).ask("GET", path).status == status


def test_a_literal_segment_wins_over_a_parameter():
    stage = Stage(First=lambda event: {"statusCode": 200, "body": "first"})
    assert stage.ask("GET", "/things/first").body == b"first"


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE"])
def test_another_method_on_a_known_path_is_the_mock_of_the_template(method: str):
    response = Stage().ask(method, "/open")
    assert (response.status, header(response, "allow"), response.body) == (405, "GET", b'{"error": "GET only"}')


def test_another_method_where_the_template_has_no_mock_is_no_route():
    assert Stage().ask("DELETE", "/things/1").status == 404


# ------------------------------------------------------------------ the event


def test_the_event_is_a_proxy_event_of_version_1():
    event = Stage().event("GET", "/things/7", "a=1&b=x+y&a=%C3%A9&empty=", Host="h", x_one="1", user_agent="curl")
    context = event["requestContext"]
    assert (event["resource"], event["httpMethod"], event["stageVariables"]) == ("/things/{id}", "GET", None)
    assert event["queryStringParameters"] == {"a": "é", "b": "x y", "empty": ""}
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "é"], "b": ["x y"], "empty": [""]}
    assert event["headers"] == {"Host": "h", "x-one": "1", "user-agent": "curl"}
    assert event["multiValueHeaders"]["x-one"] == ["1"]
    assert (event["body"], event["isBase64Encoded"]) == (None, False)
    assert (context["stage"], context["path"], context["resourcePath"]) == ("v1", "/things/7", "/things/{id}")
    assert context["identity"] == {"sourceIp": "127.0.0.1", "userAgent": "curl"}
    assert "authorizer" not in context
    json.dumps(event)


def test_a_request_without_query_has_no_query_parameters():
    event = Stage().event("GET", "/open")
    assert event["queryStringParameters"] is None and event["multiValueQueryStringParameters"] is None


def test_of_a_repeated_header_the_last_value_is_the_single_one():
    stage = Stage()
    request = HttpRequest("GET", "/open", headers=(("x", "1"), ("x", "2")))
    asyncio.run(Gateway(API, stage._invoke).handle(request))
    assert stage.events[0][1]["headers"] == {"x": "2"}
    assert stage.events[0][1]["multiValueHeaders"] == {"x": ["1", "2"]}


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", ""])
def test_a_body_of_a_binary_media_type_arrives_as_the_bytes_that_were_sent(content_type: str):
    event = Stage().event("POST", "/closed", "", b"\xff\x00", content_type=content_type, authorization="t")
    assert event["isBase64Encoded"] and base64.b64decode(event["body"]) == b"\xff\x00"


def test_a_body_without_content_type_counts_as_json():
    assert Stage().event("POST", "/closed", "", b"{}", authorization="t")["isBase64Encoded"]


def test_a_body_of_another_type_arrives_as_text_with_what_is_not_utf8_replaced():
    event = Stage().event("POST", "/closed", "", b"a\xff", content_type="text/plain", authorization="t")
    assert (event["body"], event["isBase64Encoded"]) == ("a\ufffd", False)


@pytest.mark.parametrize(("size", "status"), [(4_500_000, 200), (4_800_000, 413), (10 * 1024 * 1024 + 1, 413)])
def test_a_request_that_api_gateway_or_lambda_would_not_take_is_too_large(size: int, status: int):
    assert Stage().ask("POST", "/closed", "", b"x" * size, authorization="t").status == status


# ------------------------------------------------------------------ the authorizer


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}])
def test_without_a_token_the_authorizer_is_not_even_asked(headers: dict[str, str]):
    stage = Stage()
    response = stage.ask("POST", "/closed", "", b"", **headers)
    assert (response.status, header(response, "www-authenticate"), stage.events) == (401, "Basic", [])


def test_the_authorizer_gets_what_the_function_will_get_but_for_the_body_and_who_it_is():
    stage = Stage()
    stage.ask("POST", "/closed", "a=1", b"{}", authorization="secret")
    (_, asked), (_, answered) = stage.events
    assert asked == {
        "type": "REQUEST",
        "methodArn": "arn:aws:execute-api:us-east-1:000000000000:api/v1/POST/closed",
        **{key: value for key, value in answered.items() if key not in ("body", "isBase64Encoded")},
        "requestContext": {k: v for k, v in answered["requestContext"].items() if k != "authorizer"},
    }
    assert asked["multiValueHeaders"] == {"authorization": ["secret"]}
    assert asked["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"


@pytest.mark.parametrize(("given", "asked"), [({"authorization": "a", "x_team": "b"}, 1), ({"authorization": "a"}, 0)])
def test_the_authorizer_is_asked_where_every_header_is_there_that_it_is_remembered_by(
    given: dict[str, str], asked: int
):
    stage = Stage(replace(API, authorizer=Authorizer("Door", ("Authorization", "X-Team"), ttl=300)))
    assert [stage.ask("POST", "/closed", "", b"", **given).status for _ in range(2)] == [200 if asked else 401] * 2
    assert stage.called("Door") == asked


def test_the_function_sees_principal_and_context_as_text():
    stage = Stage(Door=lambda event: policy(context={"admin": True, "level": 3, "name": "x", "none": None}))
    event = stage.event("POST", "/closed", authorization="t")
    assert event["requestContext"]["authorizer"] == {"principalId": "me", "admin": "true", "level": "3", "name": "x"}


def test_a_decision_is_remembered_by_its_token_for_its_time():
    stage = Stage()
    for token, now in [("a", 0), ("a", 299), ("b", 299), ("a", 301)]:
        stage.now = now
        assert stage.ask("POST", "/closed", authorization=token).status == 200
    assert stage.called("Door") == 3


def test_a_refusal_is_remembered_as_a_permission_is():
    stage = Stage(Door=lambda event: policy("Deny"))
    assert [stage.ask("POST", "/closed", authorization="a").status for _ in range(3)] == [403] * 3
    assert stage.called("Door") == 1


def test_the_memory_for_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gateway_module, "_CACHED_DECISIONS", 2)
    stage = Stage()
    for token in ["a", "b", "a", "c", "a", "b"]:
        stage.ask("POST", "/closed", authorization=token)
    assert stage.called("Door") == 4  # b was forgotten for c, as a was used in between


def test_a_remembered_policy_is_evaluated_for_each_method():
    stage = Stage(Door=lambda event: policy(resource=event["methodArn"]))
    assert stage.ask("POST", "/closed", authorization="t").status == 200
    assert stage.ask("PUT", "/closed", authorization="t").status == 403
    assert stage.called("Door") == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (policy("Deny"), 403),
        (policy(resource="arn:*:api/v1/GET/*"), 403),
        (policy(resource="arn:*:api/v1/P?ST/*"), 200),
        (policy(resource="arn:*:api/v1/[P]OST/*"), 403),
        ({**policy(), "policyDocument": {"Statement": []}}, 403),
        ({}, 500),
        (None, 500),
        (policy(context={"a": {"nested": 1}}), 500),
        ({**policy(), "principalId": None}, 500),
    ],
)
def test_a_policy_is_read_as_iam_does(answer: Any, status: int):
    assert Stage(Door=lambda event: answer).ask("POST", "/closed", authorization="t").status == status


def test_a_deny_wins_over_an_allow():
    both = policy()
    both["policyDocument"]["Statement"] += policy("Deny")["policyDocument"]["Statement"]
    assert Stage(Door=lambda event: both).ask("POST", "/closed", authorization="t").status == 403


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FunctionError("Exception", "Unauthorized"), 401),
        (FunctionError("Exception", "unauthorized"), 500),
        (FunctionError("ImportError", "no module"), 500),
        (FunctionTimeout(), 500),
    ],
)
def test_only_the_word_unauthorized_makes_a_failure_of_the_authorizer_a_401(error: Exception, status: int):
    stage = Stage(Door=raising(error))
    assert stage.ask("POST", "/closed", authorization="t").status == status
    stage.functions["Door"] = lambda event: policy()
    assert stage.ask("POST", "/closed", authorization="t").status == 200  # a failure is not remembered


# ------------------------------------------------------------------ responses


@pytest.mark.parametrize(("path", "status"), [("/open", 200), ("/closed", 401), ("/nowhere", 404), ("/mock", 405)])
def test_an_answer_to_head_has_no_body_whoever_gives_it(path: str, status: int):
    routes = (
        Route("HEAD", "/open", Invoke("Open"), authorized=False),
        Route("HEAD", "/closed", Invoke("Open"), authorized=True),
        Route("ANY", "/mock", Mock(("application/json",), 405, {"Allow": "GET"}, "{}"), authorized=False),
    )
    response = Stage(replace(API, routes=routes)).ask("HEAD", path)
    assert (response.status, response.body) == (status, b"")
    assert header(response, "content-type") == "application/json"


def test_headers_of_both_maps_are_sent_and_a_pair_in_both_only_once():
    answer = {**OK, "headers": {"X-A": "1", "x-b": 2, "c": True}, "multiValueHeaders": {"x-a": ["1", "3"]}}
    response = Stage(Open=lambda event: answer).ask("GET", "/open")
    sent = [(name, value) for name, value in response.headers if name.lower() in ("x-a", "x-b", "c")]
    assert sent == [("x-a", "1"), ("x-a", "3"), ("x-b", "2"), ("c", "true")]


def test_a_response_has_a_request_id_and_is_json_unless_it_says_otherwise():
    stage = Stage()
    response = stage.ask("GET", "/open")
    assert header(response, "content-type") == "application/json"
    assert header(response, "x-amzn-requestid") == stage.events[0][1]["requestContext"]["requestId"]
    stage.functions["Open"] = lambda event: {**OK, "headers": {"content-type": "text/plain"}}
    assert header(stage.ask("GET", "/open"), "content-type") == "text/plain"


def test_a_base64_body_is_sent_as_bytes():
    answer = {"statusCode": "201", "body": "/wA=", "isBase64Encoded": True}
    response = Stage(Open=lambda event: answer).ask("GET", "/open")
    assert (response.status, response.body) == (201, b"\xff\x00")


def test_headers_that_belong_to_the_gateway_are_renamed_or_dropped():
    answer = {**OK, "headers": {"WWW-Authenticate": "Basic", "Content-Length": "99", "Transfer-Encoding": "chunked"}}
    response = Stage(Open=lambda event: answer).ask("GET", "/open")
    assert header(response, "x-amzn-Remapped-WWW-Authenticate") == "Basic"
    assert not {name.lower() for name, _ in response.headers} & {"www-authenticate", "content-length"}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "text",
        [],
        {},
        {"statusCode": None},
        {"statusCode": "x"},
        {"statusCode": 99},
        {"statusCode": 600},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "headers": "x"},
        {"statusCode": 200, "headers": {"a b": "1"}},
        {"statusCode": 200, "headers": {"a": "1\r\nb: 2"}},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
    ],
)
def test_what_is_no_proxy_response_is_an_integration_failure(answer: Any):
    response = Stage(Open=lambda event: answer).ask("GET", "/open")
    assert (response.status, header(response, "retry-after"), response.body) == (503, "1", b'{"error": "later"}')


def test_a_function_that_fails_is_an_integration_failure():
    assert Stage(Open=raising(FunctionError("ValueError", "x"))).ask("GET", "/open").status == 503


def test_a_function_that_times_out_has_the_default_words_of_its_class():
    response = Stage(Open=raising(FunctionTimeout())).ask("GET", "/open")
    assert (response.status, response.body) == (504, b'{"error": "Endpoint request timed out"}')


def test_no_integration_lasts_longer_than_api_gateway_waits(monkeypatch: pytest.MonkeyPatch):
    async def never(function: str, event: dict[str, Any], /) -> object:
        return await asyncio.Future()

    monkeypatch.setattr(gateway_module, "INTEGRATION_TIMEOUT", 0.01)
    assert asyncio.run(Gateway(API, never).handle(HttpRequest("GET", "/open"))).status == 504


def test_a_gateway_response_may_name_the_request():
    stage = Stage(Door=lambda event: policy("Deny"))
    response = stage.ask("POST", "/closed", authorization="t")
    assert json.loads(response.body) == {"error": "4", "id": header(response, "x-amzn-requestid")}


def test_a_fault_of_the_gateway_itself_keeps_the_shape_of_errors():
    response = Stage(Open=raising(RuntimeError("a bug"))).ask("GET", "/open")
    assert (response.status, response.body) == (500, b'{"error": "Internal server error"}')
