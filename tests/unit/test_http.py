"""The edge: what becomes of errors, and what a log line may hold."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from datetime import UTC

import pytest
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from mcp_registry.aws import observability
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.errors import (
    DuplicateServer,
    Fault,
    NotConfigured,
    PayloadTooLarge,
    RegistrationRequired,
    ServerNotFound,
    Unavailable,
    UnsupportedMediaType,
    ValidationFailed,
    WrongCronSecret,
)

SECRET = "hunter2-secret"


def event(**fields):
    return {
        "httpMethod": "GET",
        "resource": "/api/registry/servers",
        "requestContext": {"requestId": "request-1"},
        "headers": {"Authorization": f"Basic {SECRET}", "X-Mixed": "Case"},
        "multiValueQueryStringParameters": {"search": [SECRET]},
        "body": SECRET,
        "isBase64Encoded": False,
    } | fields


@pytest.fixture
def logged(monkeypatch):
    """The log lines of the functions, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(observability.logger.registered_formatter)
    logger = observability.logger._logger
    monkeypatch.setattr(logger, "handlers", [handler])
    logger.setLevel(logging.DEBUG)

    def lines():
        assert SECRET not in stream.getvalue()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return lines


def answer(behave, **fields):
    result = endpoint(behave)(event(**fields), None)
    return result["statusCode"], json.loads(result["body"]), result["headers"]


def raising(error: Exception):
    def handler(request: Request) -> Response:
        raise error

    return handler


def test_a_response_is_rendered_for_api_gateway():
    assert endpoint(lambda request: Response({"a": "é"}))(event(), None) == {
        "statusCode": 200,
        "headers": {
            "Content-Type": "application/json",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
        "body": '{"a":"é"}',
        "isBase64Encoded": False,
    }


def test_a_text_is_a_body_as_it_stands():
    assert Response('{"a": 1}').proxy()["body"] == '{"a": 1}'


def test_an_answer_without_a_body_says_so_and_has_the_usual_headers():
    assert Response.empty().proxy() == {
        "statusCode": 204,
        "headers": Response({}).headers,
        "body": "",
        "isBase64Encoded": False,
    }


@pytest.mark.parametrize(
    "behave",
    [
        lambda request: Response({"a": 1}, headers={"X-Own": "1"}),
        lambda request: Response.empty(),
        lambda request: Response([request.query]),
        lambda request: raising(ServerNotFound())(request),
        lambda request: raising(Unavailable("57P03"))(request),
        lambda request: raising(RuntimeError())(request),
    ],
)
def test_head_is_answered_as_get_is_but_without_the_body(behave):
    def asked(method: str):
        return endpoint(behave)(event(httpMethod=method), None)

    assert asked("HEAD") == asked("GET") | {"body": ""}


SAME, OTHER = {"Host": "Registry.example:3000"}, "A page of another site can change nothing here"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, None),
        ({"Sec-Fetch-Site": "same-origin"}, None),
        ({"Sec-Fetch-Site": "none"}, None),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, None),
        ({"Origin": "http://registry.example:3000"}, None),
        ({"Sec-Fetch-Site": "cross-site"}, OTHER),
        ({"Sec-Fetch-Site": "same-site"}, OTHER),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://registry.example:3000"}, OTHER),
        ({"Origin": "https://evil.example"}, OTHER),
        ({"Origin": "http://registry.example:3001"}, OTHER),
        ({"Origin": "null"}, OTHER),
    ],
)
def test_a_page_of_another_site_changes_nothing_and_may_read(method, headers, said):
    done: list[str] = []

    def handler(request: Request) -> Response:
        done.append(request.method)
        return Response({"error": None})

    status, told, _ = answer(handler, httpMethod=method, headers=SAME | headers)
    assert (status, told["error"], done) == ((400, said, []) if said else (200, None, [method]))
    assert answer(handler, httpMethod="GET", headers=SAME | headers)[0] == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ValidationFailed(), 400, "VALIDATION_ERROR"),
        (WrongCronSecret(), 401, "UNAUTHORIZED"),
        (ServerNotFound(), 404, "SERVER_NOT_FOUND"),
        (DuplicateServer(), 409, "DUPLICATE_SERVER"),
        (PayloadTooLarge(), 413, "PAYLOAD_TOO_LARGE"),
        (UnsupportedMediaType(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (RegistrationRequired(), 428, "REGISTRATION_REQUIRED"),
        (NotConfigured(), 500, "INTERNAL_ERROR"),
        (Unavailable("57P03"), 503, "UNAVAILABLE"),
    ],
)
def test_each_error_is_answered_with_its_status_and_logged_with_its_code(logged, error, status, code):
    answered, body, headers = answer(raising(error))
    assert (answered, body["code"]) == (status, code)
    assert headers["Content-Type"] == "application/json"
    line = logged()[-1]
    assert (line["status"], line["code"]) == (status, code)


def test_an_error_has_its_sentence_its_code_and_its_status():
    status, body, headers = answer(raising(DuplicateServer()))
    assert (status, body) == (409, {"error": "Server with this name already exists", "code": "DUPLICATE_SERVER"})
    assert "Retry-After" not in headers


def test_faults_become_details():
    fault = Fault("tools.0.name", "This field is required", "missing")
    _, body, _ = answer(raising(ValidationFailed(faults=[fault])))
    assert body["details"] == [{"path": "tools.0.name", "message": "This field is required", "type": "missing"}]


def test_an_outage_says_when_to_come_back(logged):
    status, body, headers = answer(raising(Unavailable("57P03")))
    assert (status, body["code"], headers["Retry-After"]) == (503, "UNAVAILABLE", "1")
    assert "57P03" not in json.dumps(body)
    outage, request = logged()
    assert outage["cause"] == "57P03"
    assert outage["correlation_id"] == request["correlation_id"] == "request-1"


def test_a_defect_is_answered_with_nothing_about_it_and_logged_with_its_place(logged):
    status, body, _ = answer(raising(RuntimeError(f"password={SECRET}")))
    assert (status, body) == (500, {"error": "Internal server error", "code": "INTERNAL_ERROR"})
    defect, request = logged()
    assert defect["exception_class"] == "builtins.RuntimeError"
    assert "test_http.py" in defect["exception_frames"][-1]
    assert (request["status"], request["code"]) == (500, "INTERNAL_ERROR")
    assert defect["correlation_id"] == request["correlation_id"] == "request-1"


def test_a_request_leaves_one_line_with_its_correlation_id_and_nothing_that_it_carried(logged):
    answer(lambda request: Response({"echo": SECRET}))
    (line,) = logged()
    assert line["correlation_id"] == "request-1"
    assert (line["method"], line["resource"], line["status"]) == ("GET", "/api/registry/servers", 200)
    assert "code" not in line


def test_a_request_is_logged_with_the_milliseconds_that_it_took(logged):
    def handler(request: Request) -> Response:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.002:
            pass
        return Response({})

    started = time.perf_counter()
    answer(handler)
    (line,) = logged()
    assert 2.0 <= line["duration_ms"] <= (time.perf_counter() - started) * 1000 + 0.1


@pytest.mark.parametrize("trace", ["", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"])
def test_a_line_is_the_one_that_powertools_makes(monkeypatch, trace):
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    theirs = LambdaPowertoolsFormatter(
        location=None, utc=True, use_rfc3339=True, json_deserializer=str, service=observability.logger.service
    )
    logger = observability.logger._logger
    extra = {
        "correlation_id": "1",
        "server": 'naïve \u2028 "x"',
        "status": 200,
        "none": None,
        "at": UTC,
        "many": {"a": [1.5]},
    }
    try:
        raise ValueError("1")
    except ValueError:
        raised = sys.exc_info()
    for record in (
        logger.makeRecord("x", logging.INFO, "", 0, "request", (), None, extra=extra),
        logger.makeRecord("x", logging.WARNING, "", 0, "naïve", (), None),
        logger.makeRecord("x", logging.INFO, "", 0, "%s servers", (7,), None, extra=extra),
        logger.makeRecord("x", logging.ERROR, "", 0, "failed", (), raised, extra=extra),
    ):
        logging.Formatter().format(record)  # what another handler leaves in it
        assert observability.logger.registered_formatter.format(record) == theirs.format(record)


def test_a_handler_is_given_the_request():
    _, body, _ = answer(lambda request: Response([request.method, request.headers["x-mixed"], request.query]))
    assert body == ["GET", "Case", {"search": SECRET}]


def test_header_names_are_found_in_lower_case():
    assert Request(event()).headers["x-mixed"] == "Case"
    assert Request(event(headers=None)).headers == {}


def test_a_query_parameter_given_twice_is_refused():
    with pytest.raises(ValidationFailed) as refused:
        assert Request(event(multiValueQueryStringParameters={"a": ["1"], "b": ["1", "2"]})).query
    assert refused.value.faults == (Fault("b", "Given more than once", "repeated"),)
    assert Request(event(multiValueQueryStringParameters=None)).query == {}


@pytest.mark.parametrize("id_", ["1", "42", str(2**63 - 1)])
def test_all_digits_are_the_id_of_a_server(id_):
    assert Request(event(pathParameters={"id": id_})).server == int(id_)


@pytest.mark.parametrize("name", ["weather", "-1", "1.0", "1e3", "io.github.ann/weather", "x" * 100])
def test_anything_else_that_a_name_may_be_is_a_name(name):
    assert Request(event(pathParameters={"id": name})).server == name


@pytest.mark.parametrize("sent", ["ann%2Fweather", "ann%2fweather"])
def test_the_slash_of_a_name_may_come_as_it_was_sent(sent):
    assert Request(event(pathParameters={"id": sent})).server == "ann/weather"


@pytest.mark.parametrize("id_", ["0", str(2**63), "9" * 50, "01"])
def test_digits_that_are_no_id_are_refused(id_):
    positive, largest = "it is a positive integer", "the largest is 9223372036854775807"
    with pytest.raises(ValidationFailed, match=rf"^Invalid server ID: ({positive}|{largest})$"):
        assert Request(event(pathParameters={"id": id_})).server


@pytest.mark.parametrize("text", ["1\n", "١", "²", "", "9" * 5000, "x" * 101, "a\0"])
def test_what_is_neither_an_id_nor_a_name_is_refused(text):
    with pytest.raises(ValidationFailed, match=r"^Neither the id nor the name of a server$"):
        assert Request(event(pathParameters={"id": text})).server


def test_a_path_without_a_server_has_none():
    with pytest.raises(ValidationFailed, match=r"^Neither the id nor the name of a server$"):
        assert Request(event()).server


def test_a_body_that_is_missing_is_empty():
    assert Request(event(body=None)).body == b""


def test_half_a_surrogate_pair_in_a_body_reaches_the_check_of_its_encoding():
    """What API Gateway hands over as text may hold one; it is refused as not UTF-8 rather than a defect."""
    assert Request(event(body='"\ud83d"')).body == b'"\xed\xa0\xbd"'
