"""Programs under test: servers of real frameworks in environments of their own, with the client on their path."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

import pytest

from tests.conftest import PASSWORD, USERNAME
from tests.real import environments

CLIENT = Path(__file__).parent.parent
SOURCE = CLIENT / "src"
SERVERS = Path(__file__).parent / "servers"
EXAMPLES = environments.ROOT / "examples"
PATIENCE = 60.0
# What people write new servers with is tested every time, the rest by `make test-client-matrix`.
ERAS = ["current", *(pytest.param(era, marks=pytest.mark.matrix) for era in ("early", "older"))]

# The fields of a tool that the registry calls otherwise than MCP does, and those by which it says something itself.
RENAMED = {"inputSchema": "input_schema", "outputSchema": "output_schema"}
SAID_BY_REGISTRY = ("id", "created_at")


def settings(registry_url: str, **more: str) -> dict[str, str]:
    """The environment by which the client finds a registry."""
    return {
        "MCP_REGISTRY_URL": registry_url,
        "MCP_REGISTRY_USERNAME": USERNAME,
        "MCP_REGISTRY_PASSWORD": PASSWORD,
        **more,
    }


def free_port() -> int:
    """A port that nobody listens on.

    Below those that Linux gives to connections (from 32,768): one of them may be taken before a server has started, as
    it was under load on 2026-11-22.
    """
    while True:
        port = random.randrange(20_000, 32_768)
        with suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


class Program:
    """A process, and the lines that it writes."""

    def __init__(
        self,
        era: str,
        *command: str,
        environment: Mapping[str, str],
        source: Path | None = SOURCE,
        cwd: Path | None = None,
        apart: bool = False,
    ) -> None:
        """`command`: a program of the era's environment and its arguments. `source`: where the client comes from.

        `apart`: whether what it writes to stdout is in `printed`, too.
        """
        folder = environments.programs(era)
        inherited = {name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ}
        self.lines: list[str] = []
        self.printed: list[str] = []
        self.process = subprocess.Popen(
            [str(folder / command[0]), *command[1:]],
            env={
                **inherited,
                "PYTHONUNBUFFERED": "1",
                "FASTMCP_CHECK_FOR_UPDATES": "off",
                **({"PYTHONPATH": str(source)} if source else {}),
                **environment,
            },
            cwd=cwd or SERVERS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._written = threading.Condition()
        streams = [stream for stream in (self.process.stdout, self.process.stderr) if stream is not None]
        self._open = len(streams)
        self._readers = [threading.Thread(target=self._read, args=(stream,), daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._written:
                self.lines.append(line.rstrip("\n"))
                if stream is self.process.stdout:
                    self.printed.append(line.rstrip("\n"))
                self._written.notify_all()
        with self._written:
            self._open -= 1
            self._written.notify_all()

    @property
    def output(self) -> str:
        """All that it has written."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, seconds: float = PATIENCE) -> str:
        """The first line that has the pattern, once it is there."""
        return self.wait_for_lines(pattern, 1, seconds)[0]

    def wait_for_lines(self, pattern: str, number: int, seconds: float = PATIENCE) -> list[str]:
        """The lines that have the pattern, once there are so many."""

        def found() -> list[str]:
            return [line for line in self.lines if re.search(pattern, line)]

        with self._written:
            self._written.wait_for(lambda: len(found()) >= number or not self._open, seconds)
        lines = found()
        assert len(lines) >= number, f"not {number} lines have {pattern!r}:\n{self.output}"
        return lines

    def wait_until_listening(self, port: int, seconds: float = PATIENCE) -> None:
        """Wait until it takes connections."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
            assert self.process.returncode is None, self.output
            assert time.monotonic() < deadline, self.output

    def complaints(self) -> list[str]:
        """The lines that the client wrote as warnings; those of other loggers are none of ours."""
        return [line for line in self.lines if "The MCP server is not" in line]

    def stop(self) -> None:
        """End it, and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join(10)


@contextmanager
def running(era: str, *command: str, **options: Any) -> Generator[Program]:
    """A program for the time of a block."""
    program = Program(era, *command, **options)
    try:
        yield program
    finally:
        program.stop()


def wire_tools(url: str, token: str | None = None) -> list[dict[str, Any]]:
    """What `tools/list` answers to a client of the older protocol, which all of these servers speak."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        **({"Authorization": f"Bearer {token}"} if token else {}),
    }

    def post(message: dict[str, Any]) -> dict[str, Any]:
        request = Request(url, json.dumps({"jsonrpc": "2.0", **message}).encode(), headers)
        with urlopen(request, timeout=30) as answer:
            if session := answer.headers.get("mcp-session-id"):
                headers["Mcp-Session-Id"] = session
            text = answer.read().decode()
        events = re.findall(r"^data: ?(\{.*)$", text, re.MULTILINE)
        return json.loads(events[-1] if events else text or "{}")

    client = {"name": "test", "version": "1"}
    params = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": client}
    post({"id": 1, "method": "initialize", "params": params})
    post({"method": "notifications/initialized"})
    tools: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        listed = {"id": 2, "method": "tools/list", "params": {"cursor": cursor} if cursor else {}}
        result = post(listed)["result"]
        tools += result["tools"]
        cursor = result.get("nextCursor")
        if not cursor:
            return tools


def kept(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools of the wire as the registry has to keep them: whole, in its own spelling."""
    return [
        {RENAMED.get(field, field): value for field, value in tool.items() if field not in SAID_BY_REGISTRY}
        for tool in tools
    ]


def shown(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What the registry shows of the tools of a server, without what it says itself."""
    return [
        {field: value for field, value in tool.items() if value is not None and field not in SAID_BY_REGISTRY}
        for tool in row["tools"]
    ]
