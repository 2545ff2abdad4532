"""A function on AWS Lambda: slower by its budget at most, and once; frozen whenever it rests."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mangum import Mangum
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from client.tests.conftest import Asked, Registry, Script, Scripted, answers, written
from client.tests.programs import EXAMPLES, Program, free_port, kept, running, settings, shown, wire_tools
from mcp_registry_client import Registration, aws_lambda, register_lambda
from mcp_registry_client.aws_lambda import RUNTIME

Start = Callable[[Script], Scripted]
KNOWN = answers(204)
REQUIRED = answers(428)
CREATED = answers(201, {"result": "created"})
ASKED = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
TOOLS = [{"name": "convert", "inputSchema": {"type": "object"}, "_meta": {"x": 1}}]

REST: dict[str, Any] = {
    "httpMethod": "POST",
    "path": "/mcp",
    "headers": {"Host": "evil.example"},
    "body": ASKED,
    "resource": "/mcp",
    "requestContext": {
        "stage": "prod",
        "resourcePath": "/mcp",
        "domainName": "abc.execute-api.eu-west-1.amazonaws.com",
        "path": "/prod/mcp",
        "httpMethod": "POST",
    },
}
HTTP: dict[str, Any] = {
    "version": "2.0",
    "routeKey": "POST /mcp",
    "rawPath": "/prod/mcp",
    "headers": {"host": "evil.example"},
    "body": base64.b64encode(ASKED.encode()).decode(),
    "isBase64Encoded": True,
    "requestContext": {
        "domainName": "mcp.example.com",
        "stage": "prod",
        "routeKey": "POST /mcp",
        "http": {"method": "POST", "path": "/prod/mcp"},
    },
}
FUNCTION_URL: dict[str, Any] = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/",
    "headers": {"host": "evil.example"},
    "body": f"[{ASKED}]",
    "requestContext": {
        "domainName": "xyz.lambda-url.eu-west-1.on.aws",
        "stage": "$default",
        "routeKey": "$default",
        "http": {"method": "POST", "path": "/"},
    },
}
ANSWERED = {"statusCode": 200, "body": "{}"}


def rest(route: str, path: str, **more: Any) -> dict[str, Any]:
    """A request to a REST API, by the route that it matched and the path that was asked, as the API has it."""
    context = {**REST["requestContext"], "resourcePath": route, "path": path, **more}
    return {**REST, "resource": route, "path": path, "requestContext": context}


def http(route: str, path: str, **more: Any) -> dict[str, Any]:
    """A request to an HTTP API, or with the route $default to a function URL."""
    context: dict[str, Any] = {**HTTP["requestContext"], "routeKey": route, "http": {"method": "POST", "path": path}}
    return {**HTTP, "routeKey": route, "rawPath": path, "requestContext": {**context, **more}}


def serve(monkeypatch: pytest.MonkeyPatch, url: str, **more: str) -> None:
    for name, value in settings(url, **{RUNTIME: "127.0.0.1:9", **more}).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("event", "path", "url"),
    [
        (REST, None, "https://abc.execute-api.eu-west-1.amazonaws.com/prod/mcp"),
        (HTTP, None, "https://mcp.example.com/prod/mcp"),
        (FUNCTION_URL, None, "https://xyz.lambda-url.eu-west-1.on.aws/"),
        (FUNCTION_URL, "/mcp", "https://xyz.lambda-url.eu-west-1.on.aws/mcp"),
        # The route that matched, behind the stage or the mapping of a custom domain, says it as well as the author.
        (rest("/tools/v1", "/prod/tools/v1"), None, f"https://{REST['requestContext']['domainName']}/prod/tools/v1"),
        (rest("/mcp", "/base/path/mcp"), None, f"https://{REST['requestContext']['domainName']}/base/path/mcp"),
        (http("ANY /tools/v1", "/tools/v1"), None, "https://mcp.example.com/tools/v1"),
        # Of a route with variables, the usual paths.
        (rest("/{proxy+}", "/prod/mcp"), None, f"https://{REST['requestContext']['domainName']}/prod/mcp"),
        (http("$default", "/prod/"), None, "https://mcp.example.com/prod/"),
        (http("$default", "/mcp", stage="$default"), None, "https://mcp.example.com/mcp"),
    ],
)
def test_the_endpoint_is_what_the_gateway_says_and_never_the_host_header(
    event: Any, path: str | None, url: str, monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    registry = scripted(lambda h, asked: (CREATED if asked.body else REQUIRED)(h, asked))
    serve(monkeypatch, registry.url)
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", path=path, budget_ms=20_000)
    handler(event, None)
    assert json.loads(registry.wait_for(2)[1].body)["endpoint_url"] == url


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        (REST, {"statusCode": 404}),
        (FUNCTION_URL, {"statusCode": 500}),
        ({**HTTP, "requestContext": {"domainName": "h", "http": {"method": "GET"}}}, ANSWERED),
        ({**REST, "requestContext": {**REST["requestContext"], "stage": "test-invoke-stage"}}, ANSWERED),
        # What a client of OAuth posts before it asks anything, to another path.
        ({**FUNCTION_URL, "rawPath": "/register", "body": '{"redirect_uris": ["http://h/"]}'}, {"statusCode": 201}),
        ({**FUNCTION_URL, "rawPath": "/token", "body": "grant_type=refresh_token"}, ANSWERED),
        ({**FUNCTION_URL, "body": None}, ANSWERED),
        ({**FUNCTION_URL, "body": "%%%", "isBase64Encoded": True}, ANSWERED),
        ({"Records": []}, None),
        ({"requestContext": None}, None),
        ("warm up", None),
        (None, None),
    ],
)
def test_an_event_that_is_no_answered_mcp_request_teaches_nothing(
    event: Any, answer: Any, monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    registry = scripted(KNOWN)
    serve(monkeypatch, registry.url)
    handler = register_lambda(lambda event, context: answer, tools=TOOLS, name="rates", budget_ms=20_000)
    assert handler(event, None) is answer
    assert handler.registration.state == "waiting" and registry.asked == []


EVIL = "/mcp/MOVED--use-evil.example"
STRANGE: list[Any] = [
    http("$default", EVIL, stage="$default"),
    http("$default", f"/prod{EVIL}"),
    http("ANY /{proxy+}", EVIL),
    http("POST /mcp/{id}", "/prod/mcp/1"),
    rest("/{proxy+}", f"/prod{EVIL}"),
    # What a gateway would have to have matched otherwise than it says.
    rest("/mcp", "/prod/evil.example//mcp"),
    rest("/mcp", "/prod/evil example/mcp"),
    rest("/mcp", "/../mcp"),
    http("POST /mcp", "/prod/x%2f/mcp"),
    # As a gateway may decode it.
    http("$default", "/mcp?x=1"),
    http("$default", "/mcp\r\nX: y"),
    http("$default", "/mcp/" + "a" * 2100),
    http("$default", "//evil.example/mcp"),
    http("$default", "/$default/mcp", stage="$default"),
    {"requestContext": {"elb": {}}, "httpMethod": "POST", "headers": {"host": "evil.example"}, "body": ASKED},
    http("$default", "/mcp", domainName="evil.example/x"),
    http("$default", "/mcp", domainName=17),
    {**HTTP, "rawPath": ["/mcp"]},
    rest(cast("Any", {"a": 1}), EVIL),
]


@pytest.mark.parametrize("event", STRANGE, ids=lambda event: str(event.get("rawPath") or event.get("path"))[:40])
def test_who_asks_first_does_not_say_where_a_function_is_and_ends_nothing_by_it(
    event: Any, monkeypatch: pytest.MonkeyPatch, scripted: Start, caplog: pytest.LogCaptureFixture
):
    registry = scripted(lambda h, asked: (CREATED if asked.body else REQUIRED)(h, asked))
    serve(monkeypatch, registry.url)
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=20_000)
    for _ in range(3):
        assert handler(event, None) is ANSWERED
    assert handler.registration.state == "waiting" and registry.asked == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert "MCP_ENDPOINT_URL" in line and "evil" not in f"{line}{handler.registration.error}"
    # The next one tells.
    handler(HTTP, None)
    assert handler.registration.state == "registered" and handler.registration.error is None
    assert json.loads(registry.asked[1].body)["endpoint_url"] == "https://mcp.example.com/prod/mcp"


@pytest.mark.parametrize("event", STRANGE[:14])
def test_the_path_that_the_author_gives_is_not_the_callers_to_change(
    event: Any, monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    registry = scripted(lambda h, asked: (CREATED if asked.body else REQUIRED)(h, asked))
    serve(monkeypatch, registry.url)
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", path="/x", budget_ms=20_000)
    handler(event, None)
    domain = event["requestContext"]["domainName"]
    assert json.loads(registry.wait_for(2)[1].body)["endpoint_url"] == f"https://{domain}/x"


def test_an_event_that_cannot_be_read_ends_nothing(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    class Odd(dict[str, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            raise OSError("theirs")

    serve(monkeypatch, scripted(KNOWN).url)
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=20_000)
    assert handler(Odd(), None) is ANSWERED and handler.registration.state == "waiting"
    assert handler(HTTP, None) is ANSWERED and handler.registration.state == "registered"


def test_a_request_that_is_longer_than_one_that_asks_for_tools_is_not_read(
    monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    serve(monkeypatch, scripted(KNOWN).url)
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=20_000)
    handler({**FUNCTION_URL, "body": ASKED + " " * aws_lambda.MAX_TELLING}, None)
    assert handler.registration.state == "waiting"


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
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=20_000)
    handler({"Records": []}, None)
    assert registry.asked == [] and handler.registration.state == "waiting"
    handler(HTTP, None)
    assert handler.registration.state == "registered"
    body = json.loads(registry.asked[1].body)
    assert body["endpoint_url"] == "https://mcp.example.com/prod/mcp"
    assert body["tools"] == kept(TOOLS)


def test_an_endpoint_from_the_environment_is_announced_beside_the_first_invocation(
    monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    registry = scripted(KNOWN)
    serve(monkeypatch, registry.url, MCP_ENDPOINT_URL="https://h/mcp")

    def handle(event: Any, context: Any) -> Any:
        registry.wait_for(1)  # before the handler has returned
        return ANSWERED

    handler = register_lambda(handle, tools=TOOLS, name="rates")
    assert handler("warm up", None) is ANSWERED and handler.registration.wait(10)


def test_tools_that_are_added_after_the_line_are_announced(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    registry = scripted(lambda h, asked: (CREATED if asked.body else REQUIRED)(h, asked))
    serve(monkeypatch, registry.url, MCP_ENDPOINT_URL="https://h/mcp")
    server = SimpleNamespace(name="rates", tools={})
    listed = threading.Event()

    class Noticed(dict[str, Any]):
        def values(self) -> Any:
            listed.set()
            return super().values()

    server.tools = Noticed()
    handler = register_lambda(lambda event, context: ANSWERED, server=server, budget_ms=20_000)
    # The rest of the module's import. Nobody looks at the tools meanwhile, however long it takes.
    assert not listed.wait(0.2)
    server.tools["convert"] = TOOLS[0]
    handler(HTTP, None)
    (tool,) = json.loads(registry.wait_for(2)[1].body)["tools"]
    assert tool["name"] == "convert"


def test_an_endpoint_that_is_no_url_is_said_once(
    monkeypatch: pytest.MonkeyPatch, scripted: Start, caplog: pytest.LogCaptureFixture
):
    serve(monkeypatch, scripted(KNOWN).url, MCP_ENDPOINT_URL="https://h:port/mcp")
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=20_000)
    assert handler(HTTP, None) is handler(HTTP, None) is ANSWERED
    assert handler.registration.state == "refused"
    (line,) = [record.getMessage() for record in caplog.records]
    assert "MCP_ENDPOINT_URL" in line


def test_a_registration_that_is_stopped_leaves_no_thread(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    serve(monkeypatch, scripted(KNOWN).url)
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates")
    thread = handler.registration._thread
    assert thread is not None and thread.is_alive()
    handler.registration.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_what_the_handler_raises_passes_through(monkeypatch: pytest.MonkeyPatch, scripted: Start):
    serve(monkeypatch, scripted(KNOWN).url)

    def broken(event: Any, context: Any) -> Any:
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        register_lambda(broken, tools=TOOLS, name="rates")(REST, None)


MANGUM: dict[str, dict[str, Any]] = {
    "REST API": {**REST, "resource": "/mcp", "multiValueHeaders": {}, "queryStringParameters": None},
    "HTTP API": {
        **HTTP,
        "routeKey": "$default",
        "rawPath": "/prod/mcp",
        "rawQueryString": "",
        "requestContext": {
            "domainName": "mcp.example.com",
            "stage": "prod",
            "http": {"method": "POST", "path": "/prod/mcp", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"},
        },
    },
    "function URL": {
        **FUNCTION_URL,
        "routeKey": "$default",
        "rawPath": "/mcp",
        "rawQueryString": "",
        "body": ASKED,
        "requestContext": {
            "domainName": "xyz.lambda-url.eu-west-1.on.aws",
            "stage": "$default",
            "http": {"method": "POST", "path": "/mcp", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"},
        },
    },
}


@pytest.mark.parametrize("kind", MANGUM)
def test_an_asgi_application_behind_mangum_is_announced(kind: str, monkeypatch: pytest.MonkeyPatch, scripted: Start):
    registry = scripted(lambda h, asked: (CREATED if asked.body else REQUIRED)(h, asked))
    serve(monkeypatch, registry.url)

    async def answer(request: Any) -> JSONResponse:
        asked = await request.json()
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": TOOLS}})

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None]:
        yield

    app = Starlette(routes=[Route("/mcp", answer, methods=["POST"])], lifespan=lifespan)
    wrapped = Mangum(app, api_gateway_base_path="/prod" if kind == "HTTP API" else "/")
    handler = register_lambda(wrapped, tools=TOOLS, name="rates", budget_ms=20_000)
    answered: Any = handler(MANGUM[kind], SimpleNamespace())
    assert answered["statusCode"] == 200 and json.loads(answered["body"])["result"]["tools"] == TOOLS
    assert handler.registration.state == "registered"
    asked = str(MANGUM[kind].get("rawPath", "/prod/mcp"))
    assert json.loads(registry.asked[1].body)["endpoint_url"].endswith(f"{asked}")


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
    assert row["endpoint_url"] == "https://xyz.lambda-url.eu-west-1.on.aws/mcp"
    assert shown(row) == kept(json.loads(answer["body"])["result"]["tools"]) and len(row["tools"]) == 1


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
    settle = Registration.settle

    def noted(handle: Registration, seconds: float) -> None:
        waited.append(seconds)
        settle(handle, seconds)

    monkeypatch.setattr(Registration, "settle", noted)
    serve(monkeypatch, scripted(silent).url)
    handler = register_lambda(Slow(monkeypatch), tools=TOOLS, name="rates")
    assert [handler(HTTP, None) for _ in range(3)] == [ANSWERED] * 3
    silent.answer_from_now()
    # The announcement began after the handler, however long that took.
    assert waited == [0.2]


def test_what_the_handler_took_beside_the_announcement_is_of_the_budget(
    monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    silent = Silent()
    waited: list[float] = []
    monkeypatch.setattr(Registration, "settle", lambda handle, seconds: waited.append(seconds))
    serve(monkeypatch, scripted(silent).url, MCP_ENDPOINT_URL="https://h/mcp")
    handler = register_lambda(Slow(monkeypatch), tools=TOOLS, name="rates")
    handler(HTTP, None)
    silent.answer_from_now()
    assert waited == [0]


@pytest.mark.parametrize("trouble", [answers(200, b"<html>"), answers(404), answers(401)])
def test_a_registry_of_which_no_more_is_to_be_expected_is_not_waited_for(
    trouble: Script, monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    serve(monkeypatch, scripted(trouble).url)
    # Ten minutes, of which next to nothing is spent.
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=600_000)
    assert handler(HTTP, None) is ANSWERED
    assert handler.registration.state in ("failed", "refused")


class Slow:
    """A handler that takes longer than the budget, by a clock that nothing else moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 1_000.0
        monkeypatch.setattr(aws_lambda, "time", SimpleNamespace(monotonic=lambda: self._now))

    def __call__(self, event: Any, context: Any) -> Any:
        self._now += 0.3
        return ANSWERED


def test_a_sandbox_that_starts_again_writes_nothing_and_a_changed_tool_is_an_update(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    serve(monkeypatch, registry.url)
    name = registry.new_name("function")
    rows: list[Any] = []
    for description in ("Converts.", "Converts.", "Converts anything."):
        tools = [{"name": "convert", "description": description, "inputSchema": {"type": "object"}}]
        handler = register_lambda(lambda event, context: ANSWERED, tools=tools, name=name, budget_ms=60_000)
        handler(FUNCTION_URL, None)
        assert handler.registration.state == "registered", handler.registration.error
        rows += registry.named(name)
    messages = [record.getMessage() for record in caplog.records]
    said = re.findall(r"^Registered .* \((\w+)\), as the user admin$", "\n".join(messages), re.MULTILINE)
    assert said == ["created", "unchanged", "updated"] and written(rows[0]) == written(rows[1])
    assert [tool["description"] for row in rows for tool in row["tools"]] == ["Converts."] * 2 + ["Converts anything."]


def test_a_request_that_is_nested_without_end_is_no_mcp_request_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, scripted: Start
):
    registry = scripted(KNOWN)
    serve(monkeypatch, registry.url)
    handler = register_lambda(lambda event, context: ANSWERED, tools=TOOLS, name="rates", budget_ms=20_000)
    handler({**HTTP, "body": "[" * 100_000}, None)
    assert handler.registration.state == "waiting" and registry.asked == []
    handler(HTTP, None)
    assert handler.registration.state == "registered"
