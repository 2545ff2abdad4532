"""The edge: what becomes of errors, and what a log line may hold."""

from __future__ import annotations

import io
import json
import logging

import pytest

from mcp_registry import observability
from mcp_registry.errors import DuplicateServer, Fault, Unavailable, ValidationFailed
from mcp_registry.http import Request, Response, endpoint

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
    assert logged()[0]["cause"] == "57P03"


def test_a_defect_is_answered_with_nothing_about_it_and_logged_with_its_place(logged):
    status, body, _ = answer(raising(RuntimeError(f"password={SECRET}")))
    assert (status, body) == (500, {"error": "Internal server error", "code": "INTERNAL_ERROR"})
    defect, request = logged()
    assert defect["exception_class"] == "builtins.RuntimeError"
    assert "test_http.py" in defect["exception_frames"][-1]
    assert (request["status"], request["code"]) == (500, "INTERNAL_ERROR")


def test_a_request_leaves_one_line_with_its_correlation_id_and_nothing_that_it_carried(logged):
    answer(lambda request: Response({"echo": SECRET}))
    (line,) = logged()
    assert line["correlation_id"] == "request-1"
    assert (line["method"], line["resource"], line["status"]) == ("GET", "/api/registry/servers", 200)
    assert line["duration_ms"] >= 0


def test_header_names_are_found_in_lower_case():
    assert Request(event()).headers["x-mixed"] == "Case"
    assert Request(event(headers=None)).headers == {}


def test_a_query_parameter_given_twice_is_refused():
    with pytest.raises(ValidationFailed) as refused:
        assert Request(event(multiValueQueryStringParameters={"a": ["1"], "b": ["1", "2"]})).query
    assert [fault.path for fault in refused.value.faults] == ["b"]
    assert Request(event(multiValueQueryStringParameters=None)).query == {}


@pytest.mark.parametrize("id_", ["1", "42", str(2**63 - 1)])
def test_a_server_id_is_a_positive_integer(id_):
    assert Request(event(pathParameters={"id": id_})).server_id == int(id_)


@pytest.mark.parametrize(
    "id_", ["0", "-1", "+1", " 1", "1\n", "1.0", "1e3", "١", "²", "", str(2**63), "9" * 5000, "01"]
)
def test_anything_else_is_no_server_id(id_):
    with pytest.raises(ValidationFailed, match="Invalid server ID"):
        assert Request(event(pathParameters={"id": id_})).server_id
