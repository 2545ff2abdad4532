"""A function on AWS Lambda: slower by its budget at most, and once; frozen whenever it rests."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from mangum import Mangum
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from client.tests.conftest import Asked, Registry, Script, Scripted, answers
from client.tests.programs import EXAMPLES, Program, free_port, kept, running, settings, wire_tools
from mcp_registry_client import Registration, register_lambda
from mcp_registry_client.aws_lambda import RUNTIME, endpoint_of

Start = Callable[[Script], Scripted]
KNOWN = answers(204)
REQUIRED = answers(428)
CREATED = answers(201, {"result": "created"})
TOOLS = [{"name": "convert", "inputSchema": {"type": "object"}, "_meta": {"x": 1}}]

REST = {
    "httpMethod": "POST",
    "path": "/mcp",
    "headers": {"Host": "evil.example"},
    "requestContext": {
        "domainName": "abc.execute-api.eu-west-1.amazonaws.com",
        "path": "/prod/mcp",
        "httpMethod": "POST",
    },
}
HTTP = {
    "version": "2.0",
    "rawPath": "/prod/mcp",
    "headers": {"host": "evil.example"},
    "requestContext": {"domainName": "mcp.example.com", "http": {"method": "POST", "path": "/prod/mcp"}},
}
FUNCTION_URL = {
    "version": "2.0",
    "rawPath": "/",
    "headers": {"host": "evil.example"},
    "requestContext": {"domainName": "xyz.lambda-url.eu-west-1.on.aws", "http": {"method": "POST", "path": "/"}},
}
ANSWERED = {"statusCode": 200, "body": "{}"}


@pytest.mark.parametrize(
    ("event", "path", "url"),
    [
        (REST, None, "https://abc.execute-api.eu-west-1.amazonaws.com/prod/mcp"),
        (HTTP, None, "https://mcp.example.com/prod/mcp"),
        (FUNCTION_URL, None, "https://xyz.lambda-url.eu-west-1.on.aws/"),
        (FUNCTION_URL, "/mcp", "https://xyz.lambda-url.eu-west-1.on.aws/mcp"),
    ],
)
def test_the_endpoint_is_what_the_gateway_says_and_never_the_host_header(event: Any, path: str | None, url: str):
    assert endpoint_of(event, ANSWERED, path) == url


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        (REST, {"statusCode": 404}),
        (FUNCTION_URL, {"statusCode": 500}),
        ({**HTTP, "requestContext": {"domainName": "h", "http": {"method": "GET"}}}, ANSWERED),
        ({"Records": []}, None),
        ({"requestContext": {"elb": {}}, "httpMethod": "POST", "headers": {"host": "evil.example"}}, ANSWERED),
        ({"requestContext": None}, None),
        ("warm up", None),
        (None, None),
    ],
)
def test_an_event_that_is_no_answered_mcp_request_teaches_nothing(event: Any, answer: Any):
    assert endpoint_of(event, answer) is None


def serve(monkeypatch: pytest.MonkeyPatch, url: str, **more: str) -> None:
    for name, value in settings(url, **{RUNTIME: "127.0.0.1:9", **more}).items():
        monkeypatch.setenv(name, value)


def test_outside_of_lambda_nothing_is_announced(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    registry = scripted(KNOWN)
    serve(monkeypatch, registry.url, MCP_ENDPOINT_URL="https://h/mcp")
    monkeypatch.delenv(RUNTIME)
    handler: Any = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates")
    assert handler(REST, None) is ANSWERED
    assert handler.registration.state == "off" and registry.asked == []


def test_the_first_event_teaches_the_endpoint(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    registry = scripted(lambda h, asked: (CREATED if asked.body else REQUIRED)(h, asked))
    serve(monkeypatch, registry.url)
    handler: Any = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=20_000)
    handler({"Records": []}, None)
    assert registry.asked == [] and handler.registration.state == "waiting"
    handler(HTTP, None)
    assert handler.registration.state == "registered"
    body = json.loads(registry.asked[1].body)
    assert body["endpoint_url"] == "https://mcp.example.com/prod/mcp"
    assert body["tools"] == [{"name": "convert", "input_schema": {"type": "object"}}]


def test_an_endpoint_from_the_environment_is_announced_before_any_event(
    monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    registry = scripted(KNOWN)
    serve(monkeypatch, registry.url, MCP_ENDPOINT_URL="https://h/mcp")
    handler: Any = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates")
    registry.wait_for(1)
    assert handler.registration.wait(10)


def test_what_the_handler_raises_passes_through(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    serve(monkeypatch, scripted(KNOWN).url)

    def broken(event: Any, context: Any) -> Any:
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        register_lambda(broken, tools=TOOLS, name="rates")(REST, None)


def test_an_asgi_application_behind_mangum_is_announced(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    registry = scripted(KNOWN)
    serve(monkeypatch, registry.url)

    async def answer(request: Any) -> JSONResponse:
        return JSONResponse({"jsonrpc": "2.0"})

    app = Starlette(routes=[Route("/mcp", answer, methods=["POST"])])
    handler: Any = register_lambda(Mangum(app), tools=TOOLS, name="rates", budget_ms=20_000)
    event = {
        **HTTP,
        "routeKey": "$default",
        "rawPath": "/mcp",
        "rawQueryString": "",
        "isBase64Encoded": False,
        "requestContext": {
            "domainName": "mcp.example.com",
            "http": {"method": "POST", "path": "/mcp", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"},
        },
    }
    assert handler(event, None)["statusCode"] == 200
    assert handler.registration.state == "registered"


# ------------------------------------------------------------------ a function of a real framework, as a process


def event_for(method: str) -> dict[str, Any]:
    """An MCP request to a function URL, in the shape that awslabs.mcp-lambda-handler reads."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
    headers = {"content-type": "application/json", "accept": "application/json"}
    return {**FUNCTION_URL, "httpMethod": "POST", "headers": headers, "body": json.dumps(message)}


class Function:
    """The example's function in a runtime."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._answers = 0
        program.wait_for_line(r'"ready"')

    def invoke(self, method: str = "tools/list") -> dict[str, Any]:
        """Call it; its answer."""
        assert self.program.process.stdin is not None
        self.program.process.stdin.write(json.dumps(event_for(method)) + "\n")
        self.program.process.stdin.flush()
        self._answers += 1
        lines = self.program.wait_for_lines(r'^\{"answer"', self._answers)
        return json.loads(lines[-1])["answer"]


def started(registry_url: str, **more: str) -> Any:
    environment = settings(registry_url, **{RUNTIME: "127.0.0.1:9", **more})
    example = str(EXAMPLES / "lambda_handler.py")
    return running("older", "python", "runtime.py", example, environment=environment)


def test_the_example_is_in_the_registry_after_its_first_request(registry: Registry):
    with started(registry.url) as program:
        answer = Function(program).invoke()
        program.wait_for_line(r"Registered holidays .* \(created\)")
    (row,) = registry.named("holidays")
    assert row["endpoint_url"] == "https://xyz.lambda-url.eu-west-1.on.aws/"
    shown = [{name: tool[name] for name in kept([{}])[0]} for tool in row["tools"]]
    assert shown == kept(json.loads(answer["body"])["result"]["tools"]) and len(shown) == 1


class Silent:
    """A registry that answers nothing before it is told to; then it knows everybody."""

    def __init__(self) -> None:
        self._answers = False
        self._told = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        if self._answers:
            KNOWN(handler, asked)
        else:
            # No answer even then: the connection is gone before a sandbox that was frozen runs again.
            self._told.wait(60)

    def answer_from_now(self) -> None:
        self._answers = True
        self._told.set()


def test_a_function_that_is_frozen_in_the_middle_announces_itself_when_it_is_thawed(scripted: Start):
    silent = Silent()
    registry = scripted(silent)
    with started(registry.url) as program:
        function = Function(program)
        # Both are answered while the registry is silent: neither waits for it.
        assert function.invoke()["statusCode"] == function.invoke()["statusCode"] == 200
        registry.wait_for(1)
        os.kill(program.process.pid, signal.SIGSTOP)
        silent.answer_from_now()
        os.kill(program.process.pid, signal.SIGCONT)
        assert function.invoke()["statusCode"] == 200
        program.wait_for_line("Registered holidays")
    assert len(registry.asked) >= 2


def test_a_server_behind_the_lambda_web_adapter_is_frozen_like_a_function(scripted: Start):
    silent, port = Silent(), free_port()
    registry = scripted(silent)
    # The adapter starts the server in the sandbox, asks it over loopback, and is all that reaches it there.
    environment = settings(
        registry.url, AWS_LAMBDA_RUNTIME_API="127.0.0.1:9", MCP_ENDPOINT_URL="https://mcp.example.com/mcp"
    )
    with running("current", "python", "sdk.py", str(port), environment=environment) as program:
        registry.wait_for(1)
        os.kill(program.process.pid, signal.SIGSTOP)
        silent.answer_from_now()
        os.kill(program.process.pid, signal.SIGCONT)
        program.wait_for_line("Registered stock-room")
        assert len(wire_tools(f"http://127.0.0.1:{port}/mcp")) == 2 and not program.complaints()


def test_one_invocation_waits_once_in_the_life_of_a_sandbox(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    silent = Silent()
    waited: list[float] = []
    wait = Registration.wait

    def noted(handle: Registration, seconds: float | None = None) -> bool:
        assert seconds is not None
        waited.append(seconds)
        return wait(handle, seconds)

    monkeypatch.setattr(Registration, "wait", noted)
    serve(monkeypatch, scripted(silent).url)
    handler: Any = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates")
    assert [handler(HTTP, None) for _ in range(3)] == [ANSWERED] * 3
    silent.answer_from_now()
    assert len(waited) == 1 and 0 < waited[0] <= 0.2
