"""What registering costs the MCP server that registers itself, whatever becomes of the registry.

A real server (the SDK's own, in its newest release) is started with and without the added line, in turns: the time from
the start of its process to its first answer, and how long it then takes to answer. The line has a registry that works,
one that is down, and so on. Then a function of Lambda, which has no event loop that goes on while it is frozen: its
init, its first invocation, and all others.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import Result, alternate, figure, table
from tests.real import environments

ROOT = Path(__file__).parent.parent
ROUNDS = 7
# A function's life is short, and its init a tenth of a second: what passes beside it shows more.
LIVES = 21
REQUESTS = 300
INVOCATIONS = 200
WITHOUT = "without the client"
# The longest that an invocation may wait: the default of register_lambda.
BUDGET_MS = 200.0

SERVER = """
import sys
from mcp.server.mcpserver import MCPServer
server = MCPServer("stock")
{line}
@server.tool()
def count(item: str) -> int:
    "How many of an item are in stock."
    return 120
server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]), stateless_http=True)
"""
FUNCTION = """
import json, sys, time
began = time.perf_counter()
from awslabs.mcp_lambda_handler import MCPLambdaHandler
server = MCPLambdaHandler("stock", "1.0")
@server.tool()
def count(item: str) -> int:
    "How many of an item are in stock."
    return 120
handler = server.handle_request
{line}
took = [time.perf_counter() - began]
event = json.loads(sys.stdin.read())
for _ in range(1 + {invocations}):
    began = time.perf_counter()
    assert handler(event, None)["statusCode"] == 200
    took.append(time.perf_counter() - began)
print(json.dumps(took))
"""
# The resolver of the machine answers at once whatever it is asked. This one never does.
UNRESOLVED = """
import socket, threading
real = socket.getaddrinfo
def hang(host, *arguments, **options):
    if host == "registry.example" and not options.get("flags"):
        threading.Event().wait()
    return real(host, *arguments, **options)
socket.getaddrinfo = hang
"""
DISCOVER = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}
HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/list",
}
EVENT = {
    "version": "2.0",
    "rawPath": "/mcp",
    "httpMethod": "POST",
    "headers": {"content-type": "application/json", "accept": "application/json"},
    "requestContext": {"domainName": "x.lambda-url.eu-west-1.on.aws", "http": {"method": "POST", "path": "/mcp"}},
    "body": json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}),
}


class Run(NamedTuple):
    """One life of a server: seconds to its first answer, the median of the others, and the slowest twentieth."""

    start: float
    median: float
    slow: float


class Life(NamedTuple):
    """One life of a function: seconds of its init, of its first invocation, and the median of the others."""

    init: float
    first: float
    others: float


def run() -> list[Result]:
    """Measure and print. The frameworks are those of the tests, in their environments."""
    with _registries() as registries:
        results = _servers(environments.programs("current"), registries)
        return results + _functions(environments.programs("older"), registries)


# ------------------------------------------------------------------ a server


def _servers(programs: Path, registries: Mapping[str, str | None]) -> list[Result]:
    runs: dict[str, list[Run]] = {name: [] for name in registries}

    def subject(name: str, url: str | None) -> Callable[[], float]:
        def measure() -> float:
            runs[name].append(_serve(programs, url))
            return runs[name][-1].start

        return measure

    alternate({name: subject(name, url) for name, url in registries.items()}, ROUNDS)
    middle = {name: Run(*map(statistics.median, zip(*lives, strict=True))) for name, lives in runs.items()}
    bare = middle[WITHOUT]
    rows = [("registry", "s to the first answer", "ratio", "ms an answer", "ratio", "ms, slowest 5 %", "ratio")]
    rows += [
        (
            name,
            figure(run.start),
            f"{run.start / bare.start:.2f}",
            figure(run.median * 1000),
            f"{run.median / bare.median:.2f}",
            figure(run.slow * 1000),
            f"{run.slow / bare.slow:.2f}",
        )
        for name, run in middle.items()
    ]
    print(f"a server of the SDK for Python, {ROUNDS} starts each, {REQUESTS} requests after each\n")
    print(table(rows))
    with_client = {name: run for name, run in middle.items() if name != WITHOUT}
    return [
        result
        for name, run in with_client.items()
        for result in (
            Result(f"client: start of a server, registry {name}", run.start, bare.start, "s", 1.1),
            Result(f"client: its answers, registry {name}", run.median * 1000, bare.median * 1000, "ms", 1.1),
        )
    ]


def _serve(programs: Path, registry_url: str | None) -> Run:
    """Start a server, have it answer, and end it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(programs / "python"), "-c", _program(SERVER, registry_url, "register(server)"), str(port)],
        env=_environment(registry_url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        connection = _connected(process, port)
        _ask(connection)
        start = time.perf_counter() - began
        took: list[float] = []
        for _ in range(REQUESTS):
            asked = time.perf_counter()
            _ask(connection)
            took.append(time.perf_counter() - asked)
        connection.close()
    finally:
        process.kill()
        process.wait()
    return Run(start, statistics.median(took), statistics.quantiles(took, n=20)[-1])


def _connected(process: subprocess.Popen[bytes], port: int) -> http.client.HTTPConnection:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        with suppress(ConnectionRefusedError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.connect()
            return connection
        time.sleep(0.005)
    raise TimeoutError("the server does not listen")


def _ask(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", "/mcp", json.dumps(DISCOVER), HEADERS)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200 and b'"count"' in body, (answer.status, body)


# ------------------------------------------------------------------ a function


def _functions(programs: Path, registries: Mapping[str, str | None]) -> list[Result]:
    lives: dict[str, list[Life]] = {name: [] for name in registries}

    def subject(name: str, url: str | None) -> Callable[[], float]:
        def measure() -> float:
            lives[name].append(_live(programs, url))
            return lives[name][-1].init

        return measure

    alternate({name: subject(name, url) for name, url in registries.items()}, LIVES)
    middle = {name: Life(*map(statistics.median, zip(*found, strict=True))) for name, found in lives.items()}
    bare = middle[WITHOUT]
    rows = [("registry", "ms of init", "more", "ms, first invocation", "more", "us, others", "ratio")]
    rows += [
        (
            name,
            figure(life.init * 1000),
            figure((life.init - bare.init) * 1000),
            figure(life.first * 1000),
            figure((life.first - bare.first) * 1000),
            figure(life.others * 1e6),
            f"{life.others / bare.others:.2f}",
        )
        for name, life in middle.items()
    ]
    print(
        f"\na function on awslabs.mcp-lambda-handler, {LIVES} starts each, {INVOCATIONS} invocations after the first\n"
    )
    print(table(rows))
    results: list[Result] = []
    for name, life in middle.items():
        if name == WITHOUT:
            continue
        first = (life.first - bare.first) * 1000
        results += [
            Result(f"client: init of a function, registry {name}", life.init * 1000, bare.init * 1000, "ms", 1.1),
            # Beside the budget itself, what a thread takes to wake up on a machine with two cores.
            Result(f"client: its first invocation, more, registry {name}", first, BUDGET_MS, "ms", 1.1),
            Result(f"client: its others, registry {name}", life.others * 1e6, bare.others * 1e6, "us", 1.1),
        ]
    return results


def _live(programs: Path, registry_url: str | None) -> Life:
    line = "handler = register_lambda(handler, server=server)"
    code = _program(FUNCTION.replace("{invocations}", str(INVOCATIONS)), registry_url, line)
    done = subprocess.run(
        [str(programs / "python"), "-c", code],
        env={**_environment(registry_url), "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9", "MCP_ENDPOINT_URL": ""},
        input=json.dumps(EVENT),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    init, first, *others = json.loads(done.stdout)
    return Life(init, first, statistics.median(others))


# ------------------------------------------------------------------ with the line, and without


def _program(template: str, registry_url: str | None, line: str) -> str:
    """The program with the added line, or without it."""
    if registry_url is None:
        return template.replace("{line}", "")
    name = line.partition("(")[0].rpartition(" ")[2]
    added = f"from mcp_registry_client import {name}\n{line}"
    return (UNRESOLVED if "registry.example" in registry_url else "") + template.replace("{line}", added)


def _environment(registry_url: str | None) -> dict[str, str]:
    environment = {name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ}
    if registry_url is None:
        return environment
    return {
        **environment,
        "PYTHONPATH": str(ROOT / "client" / "src"),
        "MCP_REGISTRY_URL": registry_url,
        "MCP_REGISTRY_USERNAME": "admin",
        "MCP_REGISTRY_PASSWORD": "password",
        # Without it, a registry that is not on this machine gets no registration at all.
        "MCP_ENDPOINT_URL": "https://mcp.example.com/mcp",
    }


# ------------------------------------------------------------------ registries


@contextmanager
def _registries() -> Generator[dict[str, str | None]]:
    """What the added line may meet, by a word for the tables; None where the line is not there."""
    released = threading.Event()

    def known(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(204)
        handler.end_headers()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        released.wait(2)
        known(handler)

    def refuses(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(401)
        handler.send_header("content-length", "0")
        handler.end_headers()

    def hangs(handler: BaseHTTPRequestHandler) -> None:
        released.wait(600)

    def garbage(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\xff<html>" * 1000)

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{unused.getsockname()[1]}"
        scripts = {
            "works": known,
            "is slow (2 s)": slow,
            "hangs": hangs,
            "refuses": refuses,
            "answers garbage": garbage,
        }
        servers = {name: _Scripted(script) for name, script in scripts.items()}
        try:
            yield {
                WITHOUT: None,
                **{name: server.url for name, server in servers.items()},
                "is down": down,
                "is never resolved": "http://registry.example",
            }
        finally:
            released.set()
            for server in servers.values():
                server.close()


class _Scripted:
    """A registry that does one thing to every request."""

    def __init__(self, script: Callable[[BaseHTTPRequestHandler], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                script(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
                pass

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that are killed."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass
