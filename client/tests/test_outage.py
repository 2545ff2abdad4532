"""Whatever the registry does, a server starts and answers as it would without, and the log has one line about it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler

import pytest

from client.tests.conftest import Asked, Script, Scripted, answers
from client.tests.programs import ERAS, Program, free_port, running, settings, wire_tools

Start = Callable[[Script], Scripted]
LINE = "The MCP server is not"


@pytest.fixture(scope="module")
def without() -> Iterator[list[str]]:
    """What the server answers to `tools/list` where no registry is set; and it says nothing."""
    port = free_port()
    with running("current", "python", "sdk.py", str(port), environment={}) as program:
        program.wait_until_listening(port)
        yield [tool["name"] for tool in wire_tools(f"http://127.0.0.1:{port}/mcp")]
        assert not [line for line in program.lines if "mcp_registry_client" in line]


def test_the_server_runs_on_and_says_so_once(scripted: Start, without: list[str]):
    released = threading.Event()

    def hang(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        released.wait(120)

    unused = socket.socket()
    unused.bind(("127.0.0.1", 0))
    registries = {
        "down": f"http://127.0.0.1:{unused.getsockname()[1]}",
        "refuses the credentials": scripted(answers(401, {"error": "Unauthorized"})).url,
        "answers garbage": scripted(answers(200, b"\x00\xff<html>")).url,
        "hangs": scripted(hang).url,
        "has a name that is never resolved": "http://registry.example",
    }
    with unused, ExitStack() as stack:
        started: dict[str, tuple[int, Program]] = {}
        for trouble, url in registries.items():
            port = free_port()
            command = ("python", "unresolved.py", "sdk.py", str(port))
            environment = settings(url, MCP_ENDPOINT_URL="https://mcp.example.com/mcp")
            started[trouble] = port, stack.enter_context(running("current", *command, environment=environment))
        for trouble, (port, program) in started.items():
            program.wait_until_listening(port)
            # It answers before the client has given up, or begun.
            assert [tool["name"] for tool in wire_tools(f"http://127.0.0.1:{port}/mcp")] == without, trouble
        for trouble in ("down", "refuses the credentials", "answers garbage"):
            program = started[trouble][1]
            program.wait_for_line(LINE)
            assert len(program.complaints()) == 1, program.output
        for trouble in ("hangs", "has a name that is never resolved"):
            # Two deadlines of ten seconds go by before it is worth a line: here it is enough that nobody waits.
            assert len(started[trouble][1].complaints()) <= 1
        assert not [line for _, program in started.values() for line in program.lines if "Traceback" in line]
    released.set()


@pytest.mark.parametrize("program", ["sdk.py", "library.py", "lowlevel.py"])
@pytest.mark.parametrize("era", ERAS)
def test_a_server_on_stdio_registers_nothing_says_why_and_is_not_disturbed(era: str, program: str, scripted: Start):
    registry = scripted(answers(204))
    environment = settings(registry.url, MCP_ENDPOINT_URL="https://mcp.example.com/mcp")
    # The log goes to stdout, which on stdio belongs to the protocol: what the client says must not go there.
    command = ("python", program, "0", "--name", "stock room", "--transport", "stdio", "--log-to-stdout")
    with running(era, *command, environment=environment, apart=True) as started:
        assert started.process.stdin is not None
        client = {"name": "test", "version": "1"}
        params = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": client}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        started.process.stdin.write(json.dumps(message) + "\n")
        started.process.stdin.flush()
        assert json.loads(started.wait_for_line(r'^\{"jsonrpc"'))["result"]["serverInfo"]["name"] == "stock room"
        started.wait_for_line("Nothing is registered in the MCP registry: the server runs on stdio")
        started.process.stdin.close()
        assert started.process.wait(20) == 0
        started.stop()
        assert not [line for line in started.printed if "registr" in line]
        assert len([line for line in started.lines if "Nothing is registered" in line]) == 1
    assert registry.asked == []


def test_a_server_that_is_only_imported_registers_nothing_and_ends_at_once(scripted: Start):
    registry = scripted(answers(204))
    code = (
        "from fastmcp import FastMCP; from mcp_registry_client import register; server = FastMCP('a');"
        "handle = register(server); print('waited', handle.wait(0.5), handle.state)"
    )
    environment = settings(registry.url, MCP_ENDPOINT_URL="https://mcp.example.com/mcp")
    with running("current", "python", "-c", code, environment=environment) as program:
        program.wait_for_line("waited False waiting")
        assert program.process.wait(20) == 0
    assert registry.asked == []
