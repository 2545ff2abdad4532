"""What the local run shows at the terminal: a line a request, a line for a server that changes, the rest of a log."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from local import run
from local.gateway import HttpRequest, HttpResponse
from local.terminal import Terminal, outcome

REGISTER = "/api/registry/register"
SECRET = "hunter2-secret"
ASKS = (("Content-Type", "application/json"), ("WWW-Authenticate", 'Basic realm="MCP Registry"'))
CHANGED = {
    "level": "INFO",
    "message": "status changed",
    "server": "weather",
    "from": "active",
    "to": "error",
    "reason": "The host cannot be reached",
}
# What AWS's runtime client prints where a handler raises.
RAISED = {
    "timestamp": "2026-11-30T12:00:00Z",
    "level": "ERROR",
    "errorMessage": "",
    "errorType": "JobFailed",
    "stackTrace": ['  File "/functions/maintain/app.py", line 23, in lambda_handler\n'],
}


def said(method: str, status: int, answer: Any = None, *, sent: Any = None, path: str = REGISTER) -> str:
    """What stands behind the line of a request that was answered so."""
    text, body = ("" if value is None else json.dumps(value) for value in (answer, sent))
    return outcome(HttpRequest(method, path, body=body.encode()), HttpResponse(status, (), text.encode()))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HEALTH_SWEEPS": "off"},
        {"HEALTH_SWEEPS": "once"},
        {"REGISTRY_PASSWORD": SECRET},
        {"DATABASE_URL": "postgresql://me@127.0.0.1/mine"},
    ],
)
def test_the_ready_message_fits_into_eighty_columns(environment):
    database_url = environment.get("DATABASE_URL", "postgresql://registry@127.0.0.1:54321/registry")
    message = run._welcome(65535, run.Settings.of(environment), database_url)
    assert message.startswith("\nMCP Registry ready on http://127.0.0.1:65535\n")
    assert [line for line in message.splitlines() if len(line) > 80] == []
    assert SECRET not in message


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@pytest.mark.parametrize(
    ("headers", "why"),
    [((), "no credentials"), ((("Authorization", f"Basic {SECRET}"),), "wrong credentials")],
)
def test_a_refused_login_is_said_with_the_reason_and_without_what_was_sent(method, headers, why):
    request = HttpRequest(method, REGISTER, headers=headers)
    assert outcome(request, HttpResponse(401, ASKS, b"")) == f"login refused: {why}"


def test_a_secret_that_is_wrong_is_said_in_the_words_of_the_answer():
    answer = {"error": "The header does not hold the secret", "code": "UNAUTHORIZED"}
    assert said("POST", 401, answer, path="/api/jobs/health-check") == "refused: The header does not hold the secret"


@pytest.mark.parametrize(
    ("method", "status", "answer", "words"),
    [
        ("POST", 201, {"id": 1, "name": "weather", "status": "active"}, "weather created"),
        ("PUT", 201, {"id": 1, "name": "weather", "result": "created"}, "weather created"),
        ("PUT", 200, {"id": 1, "name": "weather", "result": "updated"}, "weather updated"),
        ("PUT", 200, {"id": 1, "name": "weather", "result": "unchanged"}, "weather unchanged"),
        ("PUT", 204, None, "unchanged"),
        ("PUT", 428, {"error": "Send it", "code": "REGISTRATION_REQUIRED"}, "the registration itself was asked for"),
    ],
)
def test_a_registration_is_said_with_its_name_and_result(method, status, answer, words):
    assert said(method, status, answer) == words


@pytest.mark.parametrize(
    ("status", "details", "words"),
    [
        (409, None, "refused: No"),
        (503, None, "failed: No"),
        (400, [("name", "Too long")], "refused: No (name: Too long)"),
        (400, [("tools.0.name", "Too long"), ("x", "y")], "refused: No (tools.0.name: Too long, and 1 more)"),
        (400, [(f"tools.0.{SECRET}", "Unknown")], "refused: No (Unknown)"),
    ],
)
def test_a_registration_that_was_refused_is_said_with_the_reason(status, details, words):
    faults = [{"path": path, "message": message, "type": "value"} for path, message in details or ()]
    answer = {"error": "No", "code": "X"} | ({"details": faults} if faults else {})
    sent = {"name": "io.example/weather", "description": SECRET}
    assert said("PUT", status, answer, sent=sent) == f"io.example/weather {words}"


@pytest.mark.parametrize("name", ["", "a b", "\x1b[2J", "x" * 101, "é", 7, None, "a\n"])
def test_what_can_be_no_name_is_not_shown(name):
    assert said("POST", 400, {"error": "No", "code": "X"}, sent={"name": name}) == "refused: No"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"\xff", b'{"name":"\xff"}', b'{"name":"a","b":' + b"[" * 100_000),
        b'{"name": "a"' + b" " * 1024 * 1024 + b"}",
    ],
    ids=len,
)
def test_what_is_no_registration_is_not_read_for_a_name(body):
    response = HttpResponse(400, (), b'{"error":"No","code":"X"}')
    assert outcome(HttpRequest("POST", REGISTER, body=body), response) == "refused: No"


def test_other_requests_say_nothing_more():
    for method, path, status in (("GET", REGISTER, 405), ("GET", "/health", 200), ("GET", "/nothing", 404)):
        assert said(method, status, {"error": "No", "code": "X"}, path=path) == ""


def test_a_request_is_one_line_that_no_path_can_break(capsys):
    path = "/a\x1b[2J\n" + "x" * 300
    request = HttpRequest("GET", path, query=SECRET, headers=(("x", SECRET),), body=SECRET.encode())
    Terminal().request(request, HttpResponse(404, (), b""), 0.0125)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  GET     '/a\\x1b\[2J\\nx+  404  12 ms", line)


def test_a_server_that_changes_is_one_plain_line_at_any_level(capsys):
    Terminal(hidden=("DEBUG", "INFO", "WARNING")).hear(json.dumps(CHANGED))
    printed = capsys.readouterr()
    assert printed.out[10:] == "HEALTH  weather  active -> error  The host cannot be reached\n"
    assert printed.err == ""


def test_a_reason_that_would_act_on_the_terminal_is_shown_escaped(capsys):
    Terminal().hear(json.dumps(CHANGED | {"reason": "\x1b]0;title\x07\n"}))
    (line,) = capsys.readouterr().out.splitlines()
    assert line[10:].startswith("'HEALTH  ") and "\\x1b]0;title\\x07\\n" in line


def test_what_else_functions_print_stands_beside_unless_its_level_is_hidden(capsys):
    terminal = Terminal(hidden=("DEBUG", "INFO"))
    shown = [json.dumps({"level": "WARNING", "message": "x"}), json.dumps(RAISED), "plain", '{"_aws":{}}', "[1]", ""]
    for line in (*shown, json.dumps({"level": "INFO", "message": "written"}), '{"level":"DEBUG"}'):
        terminal.hear(line)
    assert capsys.readouterr() == ("", "".join(f"{line}\n" for line in shown))
