"""The registries that the client's tests announce servers to: the running local stack, and scripted ones."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from mcp_registry_client import _announcer
from tests.conftest import CRON_SECRET, PASSWORD, USERNAME

BASIC = "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


class Registry:
    """The running registry, as a person looks at it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._numbers = count(1)

    def get(self, path: str) -> Any:
        """What it answers to a GET."""
        with urlopen(Request(self.url + path, headers={"Authorization": BASIC}), timeout=30) as answer:
            return json.loads(answer.read())

    def sweep(self) -> None:
        """Have every server checked now."""
        headers = {"x-cron-secret": CRON_SECRET}
        with urlopen(Request(f"{self.url}/api/jobs/health-check", b"", headers), timeout=60) as answer:
            answer.read()

    def named(self, name: str) -> list[dict[str, Any]]:
        """The servers of exactly this name, with everything that is known of them."""
        listed = self.get(f"/api/registry/servers?search={quote(name)}")["servers"]
        return [self.get(f"/api/registry/servers/{row['id']}") for row in listed if row["name"] == name]

    def wait_for(self, name: str, seconds: float = 60) -> list[dict[str, Any]]:
        """The servers of this name, once there is one."""
        deadline = time.monotonic() + seconds
        while not (found := self.named(name)):
            assert time.monotonic() < deadline, f"{name} is not in the registry"
            time.sleep(0.05)  # another process writes it: there is nothing to wait on
        return found

    def new_name(self, word: str = "server") -> str:
        """A name that nobody has."""
        return f"{word}-{next(self._numbers)}"


@pytest.fixture(scope="session")
def registry(stack_url: str) -> Registry:
    """The running local stack."""
    return Registry(stack_url)


# What checks find, and announcements that write nothing else, at any time after a registration.
FOUND = {"status", "verdict", "frozen", "checked_at", "announced_at", "last_check", "last_health_check", "endpoints"}


def written(row: dict[str, Any]) -> dict[str, Any]:
    """What registrations alone write of a server."""
    return {field: value for field, value in row.items() if field not in FOUND | {"observed", "auth"}}


class Asked(NamedTuple):
    """A request that a scripted registry got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


# What a scripted registry does with a request: it writes whatever it wants to the connection.
Script = Callable[[BaseHTTPRequestHandler, Asked], None]


class Scripted:
    """A registry that does what its script says; what it was asked is kept."""

    def __init__(self, script: Script) -> None:
        self.asked: list[Asked] = []
        self.script = script
        self.heard = threading.Condition()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                with scripted.heard:
                    scripted.asked.append(asked)
                    scripted.heard.notify_all()
                scripted.script(self, asked)

            def do_GET(self) -> None:
                # A presence in this process looks for itself on every socket; that is nobody's registry.
                self.send_error(404)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def wait_for(self, number: int, seconds: float = 20) -> list[Asked]:
        """The requests, once there are so many."""
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.asked) >= number, seconds), self.asked
        return self.asked

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def answers(status: int, body: Any = None, **headers: str) -> Script:
    """A script that answers every request alike."""

    def script(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    return script


def in_turn(*scripts: Script) -> Script:
    """A script that is another one at each request; the last one stays."""
    left = list(scripts)

    def script(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler, asked)

    return script


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Nothing that a test has announced goes on announcing itself in the next one."""
    yield
    for registration in list(_announcer._registrations):
        registration.stop()


@pytest.fixture
def scripted() -> Iterator[Callable[[Script], Scripted]]:
    """Starts registries that do what a script says."""
    started: list[Scripted] = []

    def start(script: Script) -> Scripted:
        started.append(Scripted(script))
        return started[-1]

    yield start
    for one in started:
        one.close()
