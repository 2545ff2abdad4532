"""The real MCP servers: what each is, and how it is started, stopped and started again on the same port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple
from urllib.request import urlopen

from tests.real import environments
from tests.real.environments import ROOT

PROGRAMS = Path(__file__).parent / "servers"
TOKEN = "4f0c9d1e7a"

# Nothing of the caller's but where programs and the home are: a PYTHONPATH or a setting of a framework would change
# the server. fastmcp asks the package registry for newer releases unless told not to.
ENVIRONMENT = {
    **{name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ},
    "FASTMCP_CHECK_FOR_UPDATES": "off",
}


class Server(NamedTuple):
    """A real server, and what a check of it has to find."""

    era: str  # whose environment it runs in
    command: tuple[str, ...]  # a program of that environment, with PORT where the port belongs
    verdict: str
    # How it answers server/discover: where the request names no session, and where it names one that does not exist.
    statuses: tuple[int, int]
    path: str = "/mcp"
    token: str | None = None
    counts_sessions: bool = False


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs one of our programs with the python of an environment."""
    return ("python", str(PROGRAMS / name), "PORT", *arguments)


EXAMPLE = str(ROOT / "examples" / "weather.py")
EXAMPLE_OPTIONS = ("--transport", "http", "--port", "PORT", "--no-banner")
SERVERS = {
    "early-sdk": Server("early", program("inventory.py"), "healthy", (400, 400), counts_sessions=True),
    "early-fastmcp": Server("early", program("library.py"), "healthy", (400, 400)),
    "older-sdk": Server("older", program("inventory.py"), "healthy", (400, 404), counts_sessions=True),
    "older-stateless": Server("older", program("inventory.py", "--stateless"), "healthy", (400, 400)),
    "older-fastmcp": Server("older", program("library.py"), "healthy", (400, 404)),
    "older-gated": Server("older", program("library.py", "--token", TOKEN), "gated", (401, 401), token=TOKEN),
    "older-bridge": Server("older", ("mcp-proxy", "--port", "PORT", "mcp-server-time"), "healthy", (400, 404)),
    "older-lambda": Server("older", program("on_lambda.py"), "healthy", (404, 404)),
    # It answers GET alone, by a stream without end: only a health URL of its own can tell that such a server is well.
    "older-sse": Server("older", program("feed.py"), "not_mcp", (405, 405), path="/sse"),
    "current-sdk": Server("current", program("tickets.py"), "healthy", (200, 200), counts_sessions=True),
    "current-gated": Server("current", program("tickets.py", "--token", TOKEN), "gated", (401, 401), token=TOKEN),
    "current-fastmcp": Server("current", program("library.py"), "healthy", (200, 200)),
    "current-bridge": Server("current", program("bridge.py"), "healthy", (200, 200)),
    "example": Server("current", ("fastmcp", "run", EXAMPLE, *EXAMPLE_OPTIONS), "healthy", (200, 200)),
}


class RealServer:
    """A real server as a process of its own, on a port that stays its own while it is down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.server = SERVERS[name]
        self._process: subprocess.Popen[bytes] | None = None
        # Bound and never listened on, this socket refuses whoever connects. Linux lets the server bind beside it, as
        # both allow reuse, and hands the port to nobody else; other systems don't let it, so there it is let go.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: int = self._reservation.getsockname()[1]
        if sys.platform != "linux":
            self._reservation.close()
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = self.root + self.server.path

    def start(self, seconds: float = 60) -> str:
        """Start the server and wait until it takes connections; the URL of its endpoint."""
        folder = environments.programs(self.server.era)
        command = [str(self.port) if part == "PORT" else part for part in self.server.command]
        # Commands are found in the environment first, also those that a server starts itself.
        path = os.pathsep.join([str(folder), ENVIRONMENT.get("PATH", os.defpath)])
        with TemporaryFile() as output:
            self._process = subprocess.Popen(
                [str(folder / command[0]), *command[1:]],
                # fastmcp reads settings from a .env of the working directory; here is none.
                cwd=PROGRAMS,
                env=ENVIRONMENT | {"PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            deadline = time.monotonic() + seconds
            while not self._listens():
                # The pause between two tries ends at once where the server does.
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.02)
                if self._process.returncode is not None or time.monotonic() > deadline:
                    self.stop()
                    output.seek(0)
                    raise RuntimeError(f"{self.name} did not start:\n{output.read().decode(errors='replace')}")
        return self.url

    def stop(self, seconds: float = 10) -> None:
        """End the server and all that it started. May be called at any time."""
        if self._process is None:
            return
        # A proxy gives the server behind it a process group of its own: it is named here, or nobody would find it.
        behind = self.processes()[1:]
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in behind:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """End the server and give its port back."""
        self.stop()
        self._reservation.close()

    def processes(self) -> list[int]:
        """The server's process and those that stem from it."""
        return [self._process.pid, *descendants(self._process.pid)] if self._process else []

    def memory(self) -> int:
        """What the server and the processes that it started hold in memory, in bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def sessions(self) -> int:
        """How many sessions the server keeps, as it says itself."""
        with urlopen(f"{self.root}/sessions", timeout=10) as answer:
            return int(answer.read())

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


def descendants(pid: int) -> list[int]:
    """The processes that stem from a process; none where the system does not say."""
    children: list[int] = []
    # A child is listed under the thread that started it.
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += [int(child) for child in listed.read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def together(action: Callable[[RealServer], object], servers: Iterable[RealServer]) -> None:
    """Do something to servers side by side; the first error, after all have ended."""
    with ThreadPoolExecutor(32) as threads:
        done = [threads.submit(action, server) for server in servers]
    for one in done:
        one.result()


@contextmanager
def running(*names: str) -> Generator[dict[str, RealServer]]:
    """Real servers, started side by side and ended together."""
    servers = {name: RealServer(name) for name in names}
    try:
        together(RealServer.start, servers.values())
        yield servers
    finally:
        together(RealServer.close, servers.values())
