"""A server is announced once it answers itself over HTTP: on whatever port, by whatever name, and under TLS."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from client.tests.conftest import Script, Scripted, answers
from client.tests.programs import settings
from mcp_registry_client import RegistryMiddleware, _listening, register
from mcp_registry_client._presence import WELL_KNOWN

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
    address = app._presence._answered_at
    assert address is not None and address.port is not None
    return address.port


def get(url: str) -> tuple[int, bytes]:
    try:
        with urlopen(Request(url), timeout=10) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def plain(*routes: Any, **options: Any) -> Starlette:
    return Starlette(routes=list(routes), **options)


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
    import asyncio

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


class Framework:
    """What takes routes as the SDK's servers do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tools = TOOLS
        self.routes: list[Route] = []

    def custom_route(self, path: str, methods: list[str], include_in_schema: bool = True) -> Callable[..., Any]:
        return lambda endpoint: self.routes.append(Route(path, endpoint, methods=methods))


def test_one_server_may_be_mounted_in_another(serve: Callable[..., Any], announced: Scripted):
    first, second = Framework("first"), Framework("second")
    handles = [register(first), register(second)]
    serve(plain(*first.routes, *second.routes))
    assert all(handle.wait(20) for handle in handles)


def test_a_health_route_of_the_servers_author_goes_first(serve: Callable[..., Any], announced: Scripted):
    server = Framework("sick")
    handle = register(server)

    @server.custom_route("/mcp/health", methods=["GET"])
    async def health(request: Any) -> PlainTextResponse:
        return PlainTextResponse("sick", 503)

    serve(plain(*server.routes))
    assert handle.wait(20)
    (root,) = {json.loads(asked.body)["endpoint_url"] for asked in announced.asked if asked.body}
    assert get(f"{root}/health") == (503, b"sick")


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
