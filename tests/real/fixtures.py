"""The real MCP servers: what each is, and how it is started, stopped and started again on the same port.

`SERVERS` are written here, on frameworks for Python of every era. `STRANGERS` are other people's, or on other SDKs: as
the package indexes of npm and Python ship them. `FLEET` is both. None takes another interface than loopback, and each
of the strangers has a home of its own, which goes with it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
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
    """A real server. In its command and settings PORT and HOME stand for what they are on this machine."""

    era: str  # whose environment it runs in
    command: tuple[str, ...]  # a program of that environment
    verdict: str = "healthy"  # what a check has to find
    # How it answers server/discover: where the request names no session, and where it names one that does not exist.
    statuses: tuple[int, ...] = ()
    path: str = "/mcp"
    token: str | None = None
    counts_sessions: bool = False
    settings: Mapping[str, str] = {}
    also: tuple[str, ...] = ()  # the environments of what it starts itself
    # Of the strangers, those that are asked in `make test` as well: of each kind one, and what costs least.
    sample: bool = False
    # Whether it starts a process for what it is asked, which ends with the session or the answer.
    starts_processes: bool = False
    # Whether all its clients share one process behind it, which one of them can end for the others.
    shares_process: bool = False


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
    "older-sse": Server("older", program("feed.py"), "healthy", (405, 405), path="/sse"),
    "current-sdk": Server("current", program("tickets.py"), "healthy", (200, 200), counts_sessions=True),
    "current-gated": Server("current", program("tickets.py", "--token", TOKEN), "gated", (401, 401), token=TOKEN),
    "current-fastmcp": Server("current", program("library.py"), "healthy", (200, 200)),
    "current-bridge": Server("current", program("bridge.py"), "healthy", (200, 200)),
    "example": Server("current", ("fastmcp", "run", EXAMPLE, *EXAMPLE_OPTIONS), "healthy", (200, 200)),
}
# Node.js is told to load this first: in quotes, for the folder of a clone may have a blank in its name ("NODE_OPTIONS"
# in the documentation of Node.js).
LOOPBACK = {"NODE_OPTIONS": f"--require={json.dumps(str(PROGRAMS / 'loopback.cjs'))}"}
EVERYTHING = {**LOOPBACK, "PORT": "PORT"}
# Where nobody is: what these servers speak for is not asked.
NOWHERE = "http://127.0.0.1:9"
GRAFANA = {"GRAFANA_URL": NOWHERE, "GRAFANA_SERVICE_ACCOUNT_TOKEN": "demo"}
SLACK = {
    "SLACK_MCP_HOST": "127.0.0.1",
    "SLACK_MCP_PORT": "PORT",
    "SLACK_MCP_XOXC_TOKEN": "demo",
    "SLACK_MCP_XOXD_TOKEN": "demo",
}
AZURE = {
    "ASPNETCORE_URLS": "http://127.0.0.1:PORT",
    "AZURE_MCP_COLLECT_TELEMETRY": "false",
    "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1",
}
CORTEX = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": "PORT"}
ELASTIC = {"ES_URL": NOWHERE, "ES_API_KEY": "demo"}
TIME = "mcp-server-time --local-timezone UTC"


def command(line: str, *more: str) -> tuple[str, ...]:
    """The words of a command, none of which has a blank, and what has."""
    return (*line.split(), *more)


def script(name: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs one of our programs by Node.js, with the packages of its environment."""
    return ("node", str(PROGRAMS / name), str(environments.FOLDER / "node" / "node_modules"), "PORT", *arguments)


KUBERNETES = command(
    "kubernetes-mcp-server-linux-amd64 --port PORT --bind-address 127.0.0.1 --kubeconfig",
    str(PROGRAMS / "kubeconfig.yaml"),
)
NOTION = f"notion-mcp-server --transport http --host 127.0.0.1 --port PORT --auth-token {TOKEN}"
BRIDGE = ("supergateway", "--stdio", TIME, "--port", "PORT", "--logLevel", "none", "--outputTransport")
STRANGERS = {
    # go-sdk 1.8.0
    "go-kubernetes": Server("large", KUBERNETES),
    "go-kubernetes-stateless": Server("large", (*KUBERNETES, "--stateless")),
    "go-grafana": Server(
        "binaries", command("mcp-grafana -t streamable-http -address 127.0.0.1:PORT"), settings=GRAFANA
    ),
    # an implementation of its own
    "go-toolbox": Server(
        "large",
        command("toolbox --address 127.0.0.1 --port PORT --prebuilt sqlite --disable-version-check"),
        settings={"SQLITE_DATABASE": "HOME/toolbox.db"},
    ),
    # mcp-go 0.44.0
    "go-slack": Server("node", command("slack-mcp-server-linux-amd64 -t http -no-cache"), settings=SLACK, sample=True),
    "go-slack-sse": Server(
        "node", command("slack-mcp-server-linux-amd64 -t sse -no-cache"), path="/sse", settings=SLACK, sample=True
    ),
    # csharp-sdk 1.0.0
    "csharp-azure": Server(
        "large",
        command(
            "azmcp-linux-x64 server start --transport http --dangerously-disable-http-incoming-auth "
            "--outgoing-auth-strategy UseHostingEnvironmentIdentity --mode namespace"
        ),
        path="/",
        settings=AZURE,
    ),
    # rmcp 1.1.1
    "rust-cortex": Server("node", command("cortex-mcp"), settings=CORTEX, sample=True),
    # rmcp 1.7.0 below a layer of its own
    "rust-biomcp": Server("binaries", command("biomcp serve-http --host 127.0.0.1 --port PORT")),
    # rmcp of June 2025
    "rust-elastic": Server("binaries", command("es-mcp http --address 127.0.0.1:PORT"), settings=ELASTIC, sample=True),
    # rmcp 3.5.1 before a server over stdio
    "rust-compressor": Server(
        "binaries",
        command("mcp-compressor --transport streamable-http --port PORT --server-name cortex -- cortex-mcp"),
        also=("node",),
    ),
    # A bridge whose process dies of what is asked before the first `initialize`, and after ten times stays dead.
    "rust-bridge": Server(
        "binaries",
        command(
            "dcc-mcp-server translate --stdio cortex-mcp --host 127.0.0.1 --port PORT --no-register "
            "--gateway-port 0 --gateway-remote-port 0 --registry-dir HOME/registry"
        ),
        also=("node",),
        sample=True,
        shares_process=True,
    ),
    # The SDK for TypeScript, 1.x and 2.x; what others have written on it
    "typescript-1": Server("node", script("desk.mjs"), counts_sessions=True, sample=True),
    "typescript-1-stateless": Server("node", script("desk.mjs", "--stateless")),
    "typescript-2": Server("node", script("counter.mjs"), sample=True),
    "typescript-everything": Server("node", command("mcp-server-everything streamableHttp"), settings=EVERYTHING),
    "typescript-everything-sse": Server("node", command("mcp-server-everything sse"), path="/sse", settings=EVERYTHING),
    "typescript-notion": Server(
        "node", command(NOTION), verdict="gated", token=TOKEN, settings={"NOTION_TOKEN": "demo"}, sample=True
    ),
    "typescript-playwright": Server("node", command("playwright-mcp --host 127.0.0.1 --port PORT --allowed-hosts *")),
    # Bridges in JavaScript before a server in Python: a process for each request, for each session, or for all.
    "bridge-of-requests": Server(
        "node",
        (*BRIDGE, "streamableHttp"),
        also=("older",),
        settings=LOOPBACK,
        sample=True,
        starts_processes=True,
    ),
    "bridge-of-sessions": Server(
        "node", (*BRIDGE, "streamableHttp", "--stateful"), also=("older",), settings=LOOPBACK, starts_processes=True
    ),
    "bridge-sse": Server(
        "node", (*BRIDGE, "sse"), path="/sse", also=("older",), settings=LOOPBACK, starts_processes=True
    ),
    "bridge-mcp-proxy": Server("node", command(f"mcp-proxy --host 127.0.0.1 --port PORT -- {TIME}"), also=("older",)),
}
FLEET: dict[str, Server] = {**SERVERS, **STRANGERS}
SAMPLE = [*SERVERS, *(name for name, stranger in STRANGERS.items() if stranger.sample)]


def eras(name: str) -> tuple[str, ...]:
    """The environments whose commands a server needs."""
    return (FLEET[name].era, *FLEET[name].also)


def available(names: Iterable[str]) -> list[str]:
    """Those that this machine can run."""
    return [name for name in names if not any(environments.missing(era) for era in eras(name))]


class RealServer:
    """A real server as a process of its own, on a port that stays its own while it is down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.server = FLEET[name]
        self._process: subprocess.Popen[bytes] | None = None
        # Bound and never listened on, this socket refuses whoever connects. Linux lets the server bind beside it, as
        # both allow reuse, and hands the port to nobody else; other systems don't let it, so there it is let go.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: int = self._reservation.getsockname()[1]
        if sys.platform != "linux":
            self._reservation.close()
        self._home = TemporaryDirectory(prefix="real-")
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = self.root + self.server.path

    def start(self, seconds: float = 60) -> str:
        """Start the server and wait until it takes connections; the URL of its endpoint."""
        folders = [str(environments.programs(era)) for era in eras(self.name)]
        command = [self._placed(part) for part in self.server.command]
        # Commands are found in the environments first, also those that a server starts itself.
        settings = {"PATH": os.pathsep.join([*folders, ENVIRONMENT.get("PATH", os.defpath)])}
        folder = PROGRAMS
        if self.name in STRANGERS:
            folder = self._home.name
            settings |= {"HOME": folder, "TMPDIR": folder}
            settings |= {name: self._placed(value) for name, value in self.server.settings.items()}
        with TemporaryFile() as output:
            self._process = subprocess.Popen(
                [str(Path(folders[0]) / command[0]), *command[1:]],
                # fastmcp reads settings from a .env of the working directory; here is none.
                cwd=folder,
                env=ENVIRONMENT | settings,
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
        self._home.cleanup()

    def freeze(self) -> None:
        """Stop the clock of the server and of all that it started: it takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _placed(self, text: str) -> str:
        return text.replace("PORT", str(self.port)).replace("HOME", self._home.name)

    def processes(self) -> list[int]:
        """The server's process and those that stem from it."""
        return [self._process.pid, *descendants(self._process.pid)] if self._process else []

    @property
    def runs(self) -> bool:
        """Whether its process has not ended."""
        return self._process is not None and self._process.poll() is None

    def memory(self) -> int:
        """What the server and the processes that it started hold in memory, in bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """How many files and connections the server and its processes have open."""
        opened = 0
        for pid in self.processes():
            with suppress(OSError):
                opened += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return opened

    def seconds(self) -> float:
        """The processor's time that the server and its processes have taken, those included that have ended."""
        ticks = 0
        for pid in self.processes():
            with suppress(OSError):
                # After the name, which may hold anything: user and system time of the process and of its dead children.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

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
