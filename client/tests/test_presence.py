"""A server is announced once it answers itself over HTTP: on whatever port, by whatever name, and under TLS."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import trustme
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from client.tests.conftest import Registry, Script, Scripted, answers
from client.tests.programs import settings
from mcp_registry_client import RegistryMiddleware, _listening, _presence, _settings, register
from mcp_registry_client._presence import WELL_KNOWN, NotServing, Presence, Toolless

Start = Callable[[Script], Scripted]
TOOLS = [{"name": "now", "inputSchema": {"type": "object"}}]
ENDPOINT = "https://mcp.example.com/clock/mcp"


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch, scripted: Start) -> Scripted:
    """A registry to which this process announces what it serves."""
    required, created = answers(428), answers(201, {"result": "created"})
    registry = scripted(lambda handler, asked: (created if asked.body else required)(handler, asked))
    for name, value in settings(registry.url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MCP_ENDPOINT_URL", raising=False)
    return registry


@pytest.fixture
def serve() -> Iterator[Callable[..., uvicorn.Server]]:
    """Serves ASGI applications in threads."""
    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Any, **options: Any) -> uvicorn.Server:
        options = {"host": "127.0.0.1", "port": 0, "log_config": None, **options}
        server = uvicorn.Server(uvicorn.Config(app, **options))
        thread = threading.Thread(target=server.run, daemon=True)
        started.append((server, thread))
        thread.start()
        return server

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join(10)


def port_of(app: RegistryMiddleware) -> int:
    assert app.registration.wait(20), (app.registration.state, app.registration.error)
    answered = app._presence._answered
    assert answered is not None and answered.address.port is not None
    return answered.address.port


def get(url: str) -> tuple[int, bytes]:
    try:
        with urlopen(Request(url), timeout=10) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


async def endpoint(request: Any) -> JSONResponse:
    return JSONResponse({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}})


def plain(*routes: Any, path: str = "/mcp", **options: Any) -> Starlette:
    """An application that has something like an MCP endpoint."""
    return Starlette(routes=[Route(path, endpoint, methods=["POST"]), *routes], **options)


def sent(registry: Scripted) -> dict[str, Any]:
    return json.loads(registry.wait_for(2)[1].body)


def test_an_application_announces_itself_by_the_port_it_got(serve: Callable[..., Any], announced: Scripted):
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    assert app.registration.state in ("waiting", "announcing")
    serve(app)
    port = port_of(app)
    assert sent(announced)["endpoint_url"] == f"http://127.0.0.1:{port}/mcp"
    assert sent(announced)["tools"] == [{"name": "now", "input_schema": {"type": "object"}}]


def test_an_application_that_is_not_served_announces_nothing(announced: Scripted):
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    # Something else of this process listens, as in a test run: the registry itself.
    assert not app.registration.wait(0.5)
    assert app.registration.state == "waiting" and announced.asked == []


def test_what_a_stranger_learns_from_the_health_route_is_that_all_is_well(
    serve: Callable[..., Any], announced: Scripted
):
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    serve(app)
    root = f"http://127.0.0.1:{port_of(app)}"
    assert get(root + WELL_KNOWN) == get(root + "/mcp/health") == (200, b'{"status":"ok"}')
    assert get(root + "/mcp/other")[0] == 404


def test_a_health_route_of_the_applications_own_stays(serve: Callable[..., Any], announced: Scripted):
    async def health(request: Any) -> PlainTextResponse:
        return PlainTextResponse("sick", 503)

    app = RegistryMiddleware(plain(Route("/mcp/health", health)), name="clock", tools=TOOLS)
    serve(app)
    assert get(f"http://127.0.0.1:{port_of(app)}/mcp/health") == (503, b"sick")


def test_tools_may_come_from_a_function_that_needs_the_event_loop(serve: Callable[..., Any], announced: Scripted):
    async def tools() -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return TOOLS

    app = RegistryMiddleware(plain(), name="clock", tools=tools)
    serve(app)
    assert app.registration.wait(20) and len(sent(announced)["tools"]) == 1


def test_a_server_that_answers_to_one_name_only_is_asked_by_it(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MCP_ENDPOINT_URL", ENDPOINT)
    inner = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    serve(TrustedHostMiddleware(inner, allowed_hosts=["mcp.example.com"]))  # pyright: ignore[reportArgumentType]
    assert inner.registration.wait(20) and sent(announced)["endpoint_url"] == ENDPOINT


def test_a_server_under_a_path_of_a_larger_application_is_found(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MCP_ENDPOINT_URL", ENDPOINT)
    inner = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    outer = plain()
    outer.mount("/clock", inner)
    serve(outer)
    assert inner.registration.wait(20)


def test_one_application_may_be_inside_of_another(serve: Callable[..., Any], announced: Scripted):
    inner = RegistryMiddleware(plain(), name="inner", tools=TOOLS)
    outer = RegistryMiddleware(inner, name="outer", tools=TOOLS)
    serve(outer)
    assert outer.registration.wait(20) and inner.registration.wait(20)


class StreamableHTTPASGIApp:
    """What stands at the endpoint in the SDK and in fastmcp, by the same name."""

    def __init__(self, low: object) -> None:
        self.session_manager = SimpleNamespace(app=low)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (await endpoint(None))(scope, receive, send)


class Framework:
    """What takes routes as the SDK's servers do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tools = TOOLS
        self.routes: list[Any] = []
        self._mcp_server = object()

    def custom_route(self, path: str, methods: list[str], include_in_schema: bool = True) -> Callable[..., Any]:
        return lambda endpoint: self.routes.append(Route(path, endpoint, methods=methods))

    def app(self, path: str = "/mcp", *more: Any) -> Starlette:
        return Starlette(routes=[Route(path, StreamableHTTPASGIApp(self._mcp_server)), *self.routes, *more])


def urls(registry: Scripted) -> dict[str, str]:
    """The endpoints that were registered, by name."""
    documents = [json.loads(asked.body) for asked in registry.asked if asked.body]
    return {document["name"]: document["endpoint_url"] for document in documents}


def test_a_server_that_is_mounted_in_a_registered_one_is_not_registered_by_itself(
    serve: Callable[..., Any], announced: Scripted, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    parent, child = Framework("parent"), Framework("child")
    of_parent, of_child = register(parent), register(child)
    # As fastmcp does: the child's routes come after the parent's, and its tools are the parent's.
    serve(parent.app("/mcp", *child.routes))
    assert of_parent.wait(20) and not of_child.wait(20) and of_child.state == "refused"
    assert list(urls(announced)) == ["parent"]
    (line,) = [record for record in caplog.records if "by itself" in record.getMessage()]
    assert line.levelname == "INFO" and "part of parent" in line.getMessage()


def test_two_servers_with_endpoints_of_their_own_may_share_an_application(
    serve: Callable[..., Any], announced: Scripted
):
    first, second = Framework("first"), Framework("second")
    handles = [register(first), register(second)]
    serve(Starlette(routes=[*first.app("/a").routes, *second.app("/b").routes]))
    assert all(handle.wait(20) for handle in handles)
    assert {name: url.rpartition("/")[2] for name, url in urls(announced).items()} == {"first": "a", "second": "b"}


@pytest.mark.parametrize("path", ["/mcp/health", "/{rest:path}"])
@pytest.mark.parametrize("first", [True, False])
def test_a_health_route_of_the_servers_author_goes_first(
    path: str, first: bool, serve: Callable[..., Any], announced: Scripted
):
    server = Framework("sick")

    async def health(request: Any) -> PlainTextResponse:
        return PlainTextResponse(f"sick {request.path_params}", 503)

    handle = register(Framework("sick") if first else server)
    server.custom_route("/.well-known/other" if first and "{" in path else path, methods=["GET"])(health)
    if first:
        handle.stop()
        handle = register(server)
    more = [Route(path, health)] if first and "{" in path else []
    serve(server.app("/mcp", *more))
    assert handle.wait(20)
    status, body = get(f"{urls(announced)['sick']}/health")
    assert status == 503 and body.startswith(b"sick")
    assert b"rest" in body or "{" not in path


def test_without_a_registry_an_application_is_as_it_was(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MCP_REGISTRY_URL")
    server = Framework("quiet")
    before = threading.active_count()
    assert register(server).state == "off" and server.routes == []
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    assert threading.active_count() == before
    started = serve(app)
    while not started.started:
        threading.Event().wait(0.01)
    (port,) = [sock.getsockname()[1] for one in started.servers for sock in one.sockets]
    assert get(f"http://127.0.0.1:{port}/mcp/health")[0] == get(f"http://127.0.0.1:{port}{WELL_KNOWN}")[0] == 404


# ------------------------------------------------------------------ where the endpoint is


def test_the_prefix_that_a_proxy_takes_away_is_no_part_of_the_local_address(
    serve: Callable[..., Any], announced: Scripted
):
    server = Framework("behind-a-proxy")
    handle = register(server)
    serve(server.app(), root_path="/api")
    assert handle.wait(20)
    url = urls(announced)["behind-a-proxy"]
    assert url.endswith("/mcp") and "/api" not in url and answered(url)


@pytest.mark.filterwarnings("ignore:The `root_path` parameter")
def test_an_application_that_knows_its_own_prefix_is_at_the_local_address(
    serve: Callable[..., Any], announced: Scripted
):
    app = FastAPI(root_path="/api")  # deprecated since, and in use
    app.post("/mcp")(lambda: {"jsonrpc": "2.0"})
    wrapped = RegistryMiddleware(app, name="fast", tools=TOOLS)
    serve(wrapped)
    assert wrapped.registration.wait(20) and answered(urls(announced)["fast"])


@pytest.mark.parametrize("inner", ["/", "/mcp"])
@pytest.mark.parametrize("said", ["endpoint_url", "path"])
def test_a_server_that_is_mounted_below_a_path_is_found(
    inner: str, said: str, serve: Callable[..., Any], announced: Scripted
):
    server = Framework("mounted")
    whole = "/analytics" + inner
    if said == "path":
        handle = register(server, path=whole)
    else:
        handle = register(server, endpoint_url=f"https://mcp.example.com{whole}")
    serve(Starlette(routes=[Mount("/analytics", app=server.app(inner))]))
    assert handle.wait(20), (handle.state, handle.error)
    url = urls(announced)["mounted"]
    assert url.endswith(whole) and (said == "endpoint_url" or answered(url))


def test_an_endpoint_over_sse_is_found_by_its_route(serve: Callable[..., Any], announced: Scripted):
    async def sse_endpoint(request: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    server = Framework("events")
    handle = register(server)
    serve(Starlette(routes=[Route("/events", sse_endpoint), *server.routes]))
    assert handle.wait(20) and urls(announced)["events"].endswith("/events")


def test_an_endpoint_of_which_nobody_knows_the_path_is_not_guessed(
    serve: Callable[..., Any], announced: Scripted, caplog: pytest.LogCaptureFixture
):
    server = Framework("somewhere")
    handle = register(server)
    serve(plain(*server.routes, path="/secret"))
    assert not handle.wait(20) and "give path=" in str(handle.error) and announced.asked == []
    assert len(caplog.records) == 1


def test_a_path_where_nothing_answers_is_not_registered_until_something_does(
    serve: Callable[..., Any], announced: Scripted
):
    inner = plain(path="/elsewhere")
    app = RegistryMiddleware(inner, name="clock", tools=TOOLS)
    serve(app)
    with app.registration._changed:
        assert app.registration._changed.wait_for(lambda: app.registration.error, 20)
    assert "nothing answers at" in str(app.registration.error) and announced.asked == []
    # As where a server is made ready while it runs.
    inner.router.routes.append(Route("/mcp", endpoint, methods=["POST"]))
    assert app.registration.wait(20)
    assert sent(announced)["endpoint_url"].endswith("/mcp")


def test_a_server_that_knows_no_such_session_by_a_bare_404_is_registered(
    serve: Callable[..., Any], announced: Scripted
):
    """As the specification has it of sessions that a server does not know."""
    ended: list[str] = []

    async def strict(request: Any) -> Any:
        session = request.headers.get("mcp-session-id")
        if request.method == "DELETE":
            ended.append(session)
            return PlainTextResponse("", 204)
        if session is not None:
            return PlainTextResponse("", 404)
        return JSONResponse({"jsonrpc": "2.0", "id": 1, "result": {}}, headers={"Mcp-Session-Id": "s-1"})

    app = RegistryMiddleware(
        Starlette(routes=[Route("/mcp", strict, methods=["POST", "DELETE"])]), name="strict", tools=TOOLS
    )
    serve(app)
    port_of(app)
    assert sent(announced)["name"] == "strict"
    # What the second question opened is closed.
    assert ended == ["s-1"]


def test_a_server_that_takes_its_time_to_answer_is_given_more_each_time(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_presence, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(_presence, "SHORTEST_UNHEARD", 0.01)
    inner = RegistryMiddleware(plain(), name="slow", tools=TOOLS)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.4)  # longer than it is given at first
        await inner(scope, receive, send)

    serve(slow)
    assert inner.registration.wait(30), inner.registration.error


def test_what_never_answers_in_time_is_told_of(announced: Scripted):
    presence = Presence(None, TOOLS, {"name": "slow"}, _settings.from_environment(), "/mcp")
    presence._seen = {_listening.Address(socket.AF_INET, ("127.0.0.1", 1)): _presence.Seen()}
    for seen in presence._seen.values():
        seen.note("timeout")
    assert presence._hint() is not None


def test_a_socket_that_has_answered_may_hang_up_now_and_then():
    seen = _presence.Seen()
    for kind in ("known", "closed", "known", "closed", "closed", "http", "closed"):
        seen.note(cast("_presence.Kind", kind))
    assert not math.isinf(seen._due)
    seen.note("closed")
    seen.note("closed")
    assert math.isinf(seen._due)


def test_a_path_may_be_given_without_its_slash(serve: Callable[..., Any], announced: Scripted):
    app = RegistryMiddleware(plain(path="/clock"), name="clock", tools=TOOLS, path="clock")
    serve(app)
    assert sent(announced)["endpoint_url"] == f"http://127.0.0.1:{port_of(app)}/clock"


def answered(url: str) -> bool:
    """Whether something answers a POST there."""
    with urlopen(Request(url, b"{}", {"Content-Type": "application/json"}), timeout=10) as answer:
        return answer.status == 200


# ------------------------------------------------------------------ what must not reach the host


@pytest.mark.parametrize("url", ["http://[::1/mcp", "https://h:port/mcp", "h/mcp"])
def test_an_endpoint_url_that_is_none_is_said_once_and_raises_nothing(
    url: str, announced: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("MCP_ENDPOINT_URL", url)
    handles = [RegistryMiddleware(plain(), name="clock", tools=TOOLS).registration, register(Framework("clock"))]
    assert not any(handle.wait(20) for handle in handles)
    assert all("MCP_ENDPOINT_URL" in str(handle.error) for handle in handles) and len(caplog.records) == 2
    monkeypatch.delenv("MCP_REGISTRY_URL")
    RegistryMiddleware(plain(), name="clock", tools=TOOLS)


def test_settings_that_warn_whoever_looks_at_them_are_not_looked_at(
    announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    class FastMCP(Framework):
        @property
        def settings(self) -> Any:
            raise DeprecationWarning

    FastMCP.__module__ = "fastmcp.server.server"
    assert register(FastMCP("old")).state == "waiting"


def test_a_function_that_takes_its_time_does_not_hold_up_the_server(serve: Callable[..., Any], announced: Scripted):
    asked, released = threading.Event(), threading.Event()

    def tools() -> list[dict[str, Any]]:
        asked.set()
        assert released.wait(20)
        return TOOLS

    app = RegistryMiddleware(plain(), name="clock", tools=tools)
    serve(app)
    assert asked.wait(20)
    # The server answers while its tools are not yet known.
    answered = app._presence._answered
    assert answered is not None and get(f"http://{answered.address.authority}/mcp/health")[0] == 200
    released.set()
    assert app.registration.wait(20)


def test_tools_that_never_come_are_given_up_and_cancelled(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_presence, "SECONDS", 0.1)
    cancelled = threading.Event()

    async def tools() -> list[dict[str, Any]]:
        if cancelled.is_set():
            return TOOLS
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return []

    app = RegistryMiddleware(plain(), name="clock", tools=tools)
    serve(app)
    assert cancelled.wait(20) and app.registration.wait(20)


def test_tools_of_a_generator_are_there_at_every_announcement(serve: Callable[..., Any], announced: Scripted):
    app = RegistryMiddleware(plain(), name="clock", tools=iter(TOOLS))
    serve(app)
    assert app.registration.wait(20)
    app.registration.refresh()
    assert len(json.loads(announced.wait_for(4)[3].body)["tools"]) == 1


def test_a_single_word_is_one_tag(serve: Callable[..., Any], announced: Scripted):
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS, tags="geo")
    serve(app)
    assert sent(announced)["metadata"] == {"tags": ["geo"]}


def test_an_application_that_nobody_holds_leaves_no_thread(announced: Scripted):
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    thread = app.registration._thread
    assert thread is not None and thread.is_alive()
    del app
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


# ------------------------------------------------------------------ tools that only a request can list


class Tenant:
    """A server object that lists its tools by who asks."""

    name = "tenant"

    async def list_tools(self) -> Any:
        raise RuntimeError("No active HTTP request found.")


def tools_missed(presence: Presence) -> Toolless:
    """How the tools of a server that serves could not be listed."""
    while True:
        with suppress(NotServing):
            with pytest.raises(Toolless) as missed:
                presence.draft()
            return missed.value


@pytest.mark.parametrize("how", ["plain", "TLS", "a socket in the file system"])
def test_tools_that_only_a_request_can_list_are_those_that_anybody_sees(
    how: str, serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    options: dict[str, Any] = {}
    if how == "TLS":
        certificate = trustme.CA().issue_cert("mcp.example.com")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
        options = {"ssl_certfile": str(tmp_path / "both.pem")}
    elif how != "plain":
        monkeypatch.setenv("MCP_ENDPOINT_URL", ENDPOINT)
        options = {"uds": str(tmp_path / "socket")}
    asked: list[str] = []
    bad = {"name": "bad", "description": "It has no schema."}
    app = RegistryMiddleware(speaking("tenant", [*TOOLS, bad], asked), server=Tenant())
    serve(app, **options)
    assert app.registration.wait(20), app.registration.error
    assert sent(announced)["tools"] == [{"name": "now", "input_schema": {"type": "object"}}]
    assert [one.name for one in app.registration.tools_left_out] == ["bad"]
    assert asked.count("tools/list") == 1


def test_a_server_behind_a_path_that_a_proxy_adds_is_asked_where_it_is(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MCP_ENDPOINT_URL", ENDPOINT)  # at /clock/mcp, of which nobody here knows
    app = RegistryMiddleware(speaking("tenant", TOOLS), server=Tenant())
    serve(app)
    assert app.registration.wait(20) and len(sent(announced)["tools"]) == 1


@pytest.mark.parametrize("says", [401, 403, 500, 404])
def test_a_server_that_tells_nobody_its_tools_says_so_with_what_was_tried(
    says: int, serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MCP_ENDPOINT_URL", ENDPOINT)

    async def refuse(request: Any) -> PlainTextResponse:
        return PlainTextResponse("", says)

    app = RegistryMiddleware(Starlette(routes=[Route("/mcp", refuse, methods=["POST"])]), server=Tenant())
    app.registration.stop()
    serve(app)
    absent = tools_missed(app._presence)
    assert absent.document["name"] == "tenant" and absent.document["tools"] == []
    assert absent.reason.startswith("RuntimeError: No active HTTP request found.; and over HTTP ")
    # Credentials will not be had by asking again.
    assert absent.lasts == (says in (401, 403)) and "tools=[...]" in absent.reason


def test_tools_that_an_author_gives_are_not_asked_for_over_http(serve: Callable[..., Any], announced: Scripted):
    def fails() -> Any:
        raise OSError("the list is away")

    asked: list[str] = []
    app = RegistryMiddleware(speaking("tenant", TOOLS, asked), server=Tenant(), tools=fails)
    app.registration.stop()
    serve(app)
    assert tools_missed(app._presence).reason == "OSError: the list is away" and "tools/list" not in asked


def test_a_server_whose_list_hangs_is_not_asked_for_it_by_a_request(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    """A server that is told to stop waits for its requests, however long one hangs."""
    monkeypatch.setattr(_presence, "SECONDS", 0.2)

    class Hanging(Tenant):
        async def list_tools(self) -> Any:
            await asyncio.Event().wait()

    asked: list[str] = []
    app = RegistryMiddleware(speaking("tenant", TOOLS, asked), server=Hanging())
    app.registration.stop()
    serve(app)
    assert "did not come within" in tools_missed(app._presence).reason and "tools/list" not in asked


def test_a_server_that_has_listed_its_tools_itself_does_not_lose_any_to_what_anybody_sees(
    serve: Callable[..., Any], announced: Scripted
):
    class Failing(Tenant):
        listed = False

        async def list_tools(self) -> Any:
            if self.listed:
                raise OSError("the list is away")
            self.listed = True
            return [*TOOLS, {**TOOLS[0], "name": "secret"}]

    asked: list[str] = []
    app = RegistryMiddleware(speaking("tenant", TOOLS, asked), server=Failing())
    serve(app)
    assert app.registration.wait(20) and len(sent(announced)["tools"]) == 2
    assert tools_missed(app._presence).reason == "OSError: the list is away" and "tools/list" not in asked


def test_a_server_that_does_not_answer_in_time_is_not_asked_for_its_tools_again_within_the_window(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MCP_ENDPOINT_URL", ENDPOINT)
    monkeypatch.setattr(_presence, "SECONDS", 0.2)
    asked: list[str] = []

    async def hang(request: Any) -> PlainTextResponse:
        asked.append((await request.json())["method"])
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return PlainTextResponse("")

    app = RegistryMiddleware(Starlette(routes=[Route("/mcp", hang, methods=["POST"])]), server=Tenant())
    app.registration.stop()
    serve(app)
    reason = tools_missed(app._presence).reason
    assert "; and over HTTP no complete answer came to initialize within 0.1 seconds: is the server" in reason
    first = len(asked)
    assert first > 0 and tools_missed(app._presence).reason == reason and len(asked) == first
    monkeypatch.setattr(_presence, "APART_SECONDS", 0.0)
    tools_missed(app._presence)
    assert len(asked) > first


# ------------------------------------------------------------------ others that listen in this process


def test_the_question_of_another_worker_is_answered_as_that(serve: Callable[..., Any], announced: Scripted):
    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse("<html>")

    app = RegistryMiddleware(plain(Route("/{rest:path}", page)), name="clock", tools=TOOLS)
    serve(app)
    request = Request(f"http://127.0.0.1:{port_of(app)}{WELL_KNOWN}", headers={_presence.INSTANCE: "another"})
    with urlopen(request, timeout=10) as answer:
        assert json.loads(answer.read()) == {"status": "ok", "known": True}


@pytest.mark.parametrize("status", [200, 401, 503])
def test_at_a_health_check_the_question_of_another_worker_means_nothing(
    status: int, serve: Callable[..., Any], announced: Scripted
):
    async def own(request: Any) -> PlainTextResponse:
        return PlainTextResponse("theirs", status)

    app = RegistryMiddleware(plain(Route("/mcp/health", own)), name="clock", tools=TOOLS)
    serve(app)
    server = Framework("routed")
    handle = register(server)
    serve(server.app())
    assert handle.wait(20)
    answered = cast("Presence", handle._source)._answered
    assert answered is not None and answered.address.port is not None
    healthy = (200, b'{"status":"ok"}')
    for port, said in ((port_of(app), (status, b"theirs")), (answered.address.port, healthy)):
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/mcp/health", headers={_presence.INSTANCE: "a stranger's"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == said
        connection.close()


def test_whoever_is_answered_by_another_worker_need_not_worry(serve: Callable[..., Any], announced: Scripted):
    server = Framework("twice")
    handle = register(server)
    # The module runs a second time, as __main__ does under uvicorn.run("main:app"): this one is never served.
    second = Presence(Framework("twice"), None, {}, _settings.from_environment(), None)
    serve(server.app())
    assert handle.wait(20)
    with pytest.raises(NotServing) as absent:
        second.draft()
    assert absent.value.hint is None and {seen.kind for seen in second._seen.values()} >= {"known"}


def looked_for(presence: Presence, kinds: set[str]) -> NotServing:
    """How a server was not found, once sockets have done all of this."""
    while True:
        with pytest.raises(NotServing) as absent:
            presence.draft()
        if kinds <= {seen.kind for seen in presence._seen.values()}:
            return absent.value


class Listener:
    """Something else in this process that listens: what it hears, and what it says to it."""

    def __init__(self, says: bytes | None) -> None:
        self.heard: list[bytes] = []
        self._says = says
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.heard.append(connection.recv(100))
                if self._says is None:
                    self._held.append(connection)
                else:
                    connection.sendall(self._says)
                    connection.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends the accept that waits
        self._listener.close()
        for connection in self._held:
            connection.close()


@pytest.fixture
def listener() -> Iterator[Callable[[bytes | None], Listener]]:
    """Starts listeners: with what they say, or None for those that say nothing."""
    started: list[Listener] = []

    def start(says: bytes | None) -> Listener:
        started.append(Listener(says))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize(
    ("says", "tls"), [(b"SSH-2.0-OpenSSH_9.6\r\n", 0), (b"", 3), (b"\x15\x03\x01\x00\x02\x02\x46", 3)]
)
def test_what_is_not_http_is_asked_a_few_times_and_then_left_alone(
    says: bytes, tls: int, announced: Scripted, listener: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_presence, "SHORTEST_UNHEARD", 0.0)
    other = listener(says)
    presence = Presence(Framework("clock"), None, {}, _settings.from_environment(), None)
    for _ in range(10):
        with pytest.raises(NotServing):
            presence.draft()
    plain = [heard for heard in other.heard if heard.startswith(b"GET ")]
    # TLS only where it looks like that: where nothing was answered, or an alert.
    assert len(plain) == 3 and len(other.heard) - len(plain) == tls


def test_the_pauses_between_questions_grow_to_a_minute(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(_presence, "time", SimpleNamespace(monotonic=lambda: now))
    seen, asked = _presence.Seen(), 0
    while now < 3600:
        if seen.is_due:
            asked += 1
            seen.note("http")
        now += 0.05
    assert asked < 75


def test_what_keeps_silent_delays_nothing_but_itself(
    serve: Callable[..., Any], announced: Scripted, listener: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_presence, "FIRST_SECONDS", 0.2)
    other = listener(None)
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    serve(app)
    assert app.registration.wait(20) and len(other.heard) <= 3


def test_the_helpers_of_multiprocessing_are_not_asked(tmp_path: Path):
    (tmp_path / "pymp-x").mkdir()
    with socket.socket(socket.AF_UNIX) as helper:
        helper.bind(str(tmp_path / "pymp-x" / "listener-1"))
        helper.listen()
        assert not [one for one in _listening.addresses() if one.port is None and "pymp-x" in str(one.address)]


def test_who_wants_a_certificate_of_us_is_told_what_to_do(
    serve: Callable[..., Any], announced: Scripted, tmp_path: Path
):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    files = {"ssl_certfile": tmp_path / "both.pem", "ssl_ca_certs": tmp_path / "ca.pem"}
    serve(plain(), **files, ssl_cert_reqs=ssl.CERT_REQUIRED)
    presence = Presence(Framework("clock"), None, {}, _settings.from_environment(), None)
    assert "certificate" in str(looked_for(presence, {"certificate"}).hint)


# ------------------------------------------------------------------ a server that takes no routes


class Low:
    """A low-level server, as far as it is looked at."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.request_handlers: dict[type, Any] = {}


def speaking(name: str, tools: list[dict[str, Any]] | None, asked_for: list[str] | None = None) -> Starlette:
    """An MCP endpoint of this name. None: it lists no tools. `asked_for`: what it was asked is added to that."""

    async def answer(request: Any) -> JSONResponse:
        asked = await request.json()
        if asked_for is not None:
            asked_for.append(asked["method"])
        if tools is None and asked["method"] == "tools/list":
            return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32603, "message": "Down"}})
        info = {"io.modelcontextprotocol/serverInfo": {"name": name, "version": "1"}}
        discovered = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "_meta": info}
        result = discovered if asked["method"] == "server/discover" else {"tools": tools}
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": result})

    return Starlette(routes=[Route("/mcp", answer, methods=["POST"])])


def test_a_server_without_routes_is_known_by_its_name_and_has_the_tools_of_the_wire(
    serve: Callable[..., Any], announced: Scripted
):
    handle = register(Low("low"))
    serve(speaking("low", TOOLS))
    assert handle.wait(20), handle.error
    assert sent(announced)["tools"] == [{"name": "now", "input_schema": {"type": "object"}}]


def test_a_server_without_routes_that_cannot_list_its_tools_is_known_all_the_same(
    serve: Callable[..., Any], announced: Scripted
):
    serve(speaking("low", None))
    presence = Presence(Low("low"), None, {}, _settings.from_environment(), None, routed=False)
    absent = tools_missed(presence)
    assert absent.document["name"] == "low" and absent.document["endpoint_url"].endswith("/mcp")
    assert absent.reason.endswith("refuses to list its tools: Down") and not absent.lasts


def test_a_server_without_routes_and_without_tools_is_registered_with_none(
    serve: Callable[..., Any], announced: Scripted
):
    handle = register(Low("low"))
    serve(speaking("low", []))
    assert handle.wait(20) and sent(announced)["tools"] == []


def test_nobody_else_is_taken_for_a_server_without_routes(serve: Callable[..., Any], announced: Scripted):
    async def refuse(request: Any) -> PlainTextResponse:
        return PlainTextResponse("", 403)

    serve(speaking("other", TOOLS))
    serve(Starlette(routes=[Route("/mcp", refuse, methods=["POST"])]))
    presence = Presence(Low("low"), None, {}, _settings.from_environment(), None, routed=False)
    assert "RegistryMiddleware" in str(looked_for(presence, {"http", "gated"}).hint) and announced.asked == []


def test_whatever_an_object_is_register_raises_nothing(announced: Scripted, caplog: pytest.LogCaptureFixture):
    class Odd:
        def custom_route(self, *arguments: Any, **options: Any) -> Any:
            raise RuntimeError("no routes today")

    handle = register(Odd())
    assert handle.state == "refused" and "no routes today" in str(handle.error)
    assert len(caplog.records) == 1


def test_a_server_that_speaks_tls_is_found(serve: Callable[..., Any], announced: Scripted, tmp_path: Path):
    certificate = trustme.CA().issue_cert("mcp.example.com")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    serve(app, ssl_certfile=str(tmp_path / "both.pem"))
    assert sent(announced)["endpoint_url"] == f"https://127.0.0.1:{port_of(app)}/mcp"


def test_a_server_behind_a_socket_in_the_file_system_is_found(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MCP_ENDPOINT_URL", ENDPOINT)
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    serve(app, uds=str(tmp_path / "socket"))
    assert app.registration.wait(20)


def test_nobody_knows_where_a_server_is_unless_it_is_said(
    serve: Callable[..., Any], announced: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("MCP_REGISTRY_URL", "https://registry.example")
    app = RegistryMiddleware(plain(), name="clock", tools=TOOLS)
    serve(app)
    assert not app.registration.wait(20)
    assert "MCP_ENDPOINT_URL" in str(app.registration.error) and len(caplog.records) == 1


def test_looking_for_sockets_leaves_them_as_they_are():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as unconnected:
        port = listener.getsockname()[1]
        socket.setdefaulttimeout(5)
        try:
            found = [address.port for address in _listening.addresses()]
        finally:
            socket.setdefaulttimeout(None)
        assert found.count(port) == 1 and listener.getblocking() and unconnected.fileno() >= 0
        # A blocking accept still waits: the flag of the descriptor itself was put back.
        assert os.get_blocking(listener.fileno())


def test_a_socket_bound_to_every_address_is_asked_on_loopback():
    with socket.create_server(("0.0.0.0", 0)) as listener:
        (found,) = [one for one in _listening.addresses() if one.port == listener.getsockname()[1]]
        assert found.address[0] == "127.0.0.1" and found.authority == f"127.0.0.1:{found.port}"


def test_where_the_system_does_not_say_the_usual_ports_are_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_listening, "DESCRIPTORS", "/nowhere")
    assert [address.port for address in _listening.addresses(9000)] == [9000, 8000, 8080, 3000]


# ------------------------------------------------------------------ against the running registry


def test_an_application_that_starts_again_writes_nothing_and_a_changed_tool_is_an_update(
    serve: Callable[..., Any], registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    for name, value in settings(registry.url, MCP_ENDPOINT_URL="http://127.0.0.1:8099/mcp").items():
        monkeypatch.setenv(name, value)
    name = registry.new_name("middleware")
    rows: list[Any] = []
    for description in ("The time.", "The time.", "The time of day."):
        tools = [{"name": "now", "description": description, "inputSchema": {"type": "object"}}]
        app = RegistryMiddleware(plain(), name=name, tools=tools)
        serve(app)
        assert app.registration.wait(20), app.registration.error
        app.registration.stop()
        rows += registry.named(name)
    lines = [record.getMessage() for record in caplog.records if "Registered" in record.getMessage()]
    said = [line.removesuffix(", as the user admin").rpartition(" ")[2] for line in lines]
    assert said == ["(created)", "(unchanged)", "(updated)"] and rows[0] == rows[1]
    assert [tool["description"] for row in rows for tool in row["tools"]] == ["The time."] * 2 + ["The time of day."]
