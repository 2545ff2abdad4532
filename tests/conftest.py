"""What tests stand on: a Postgres 18 of their own, the handlers in process, and the running local stack."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from local import queues, template
from local.gateway import FunctionError, Gateway, HttpRequest
from local.postgres import Postgres
from local.queues import QueueService
from local.run import LOOPBACK
from mcp_registry import db

ROOT = Path(__file__).parent.parent
USERNAME, PASSWORD = "admin", "password"
CRON_SECRET = "cron"
BASIC = "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
READY = "MCP Registry ready on "

# What is tested in this process may register and dial loopback, as the local run may.
os.environ["GUARD_OPEN_CIDRS"] = LOOPBACK


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--api-url", help="run the API suite against this URL instead of the two stacks it starts")


# How long the answers to the corpus took.
SLOWEST = pytest.StashKey[list[tuple[float, str]]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if taken := config.stash.get(SLOWEST, []):
        seconds, case = max(taken)
        terminalreporter.write_line(f"corpus: {len(taken)} answers, the slowest after {seconds:.2f} s ({case})")


def load_module(path: Path, name: str) -> ModuleType:
    """Import a file under a name of its own: every function's module is called `app`."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


migrate = load_module(ROOT / "sql" / "migrate.py", "migrate")


# ------------------------------------------------------------------ databases


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Postgres server, without the name of a database."""
    with Postgres(tmp_path_factory.mktemp("postgres") / "data", durable=False) as url:
        yield url.rpartition("/")[0]


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Callable[..., str]:
    """Makes a database and returns its URL: empty, or with the schema."""
    numbers = count(1)

    def create(*, migrated: bool = True) -> str:
        name = f"test_{next(numbers)}"
        with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        url = f"{postgres}/{name}"
        if migrated:
            migrate.migrate(url)
        return url

    return create


@pytest.fixture(scope="session")
def database_url(new_database: Callable[..., str]) -> str:
    """A migrated database that the tests in process share."""
    return new_database()


@pytest.fixture
def database(database_url: str) -> Iterator[db.Database]:
    """Access to a database in which nothing stays: one transaction around the test, rolled back at its end."""
    database = db.Database(database_url)
    database.read(db.VERIFY)
    connection = database._connection
    assert connection is not None
    with connection.transaction(force_rollback=True):
        yield database
    database.close()


# ------------------------------------------------------------------ queues


@pytest.fixture(scope="session")
def queue_service() -> Iterator[str]:
    """The URL of an SQS of the tests' own. All of them share its queues, so that each needs names of its own."""
    service = QueueService()
    yield service.start()
    service.stop()


# ------------------------------------------------------------------ the API, twice


@dataclass
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body, as strict JSON."""

        def refuse(literal: str) -> None:
            raise AssertionError(f"{literal} is not JSON")

        return json.loads(self.body, parse_constant=refuse)


@dataclass
class Api:
    """The registry's API, whatever carries it. `send` takes (method, path with query, headers, body)."""

    send: Callable[[str, str, list[tuple[str, str]], bytes], Answer]
    in_process: bool
    database_url: str | None = None
    names: Iterator[int] = field(default_factory=lambda: count(int(time.time() * 1000) % 10**9))

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        auth: str | None = BASIC,
    ) -> Answer:
        """Send a request; a `body` that is not bytes is sent as JSON. `auth` None sends no credentials."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None and "content-type" not in given:
            given["content-type"] = "application/json"
        if auth is not None:
            given["authorization"] = auth
        return self.send(method, path, list(given.items()), body or b"")

    def new_name(self, word: str = "server") -> str:
        """A name that nobody has."""
        return f"{word}-{next(self.names)}"

    def register(self, **fields: Any) -> dict[str, Any]:
        """Register a server with a new name and return the answer together with the name."""
        answer = self("POST", "/api/registry/register", registration(self.new_name()) | fields)
        assert answer.status == 201, answer.body
        return answer.json()


def registration(name: str, **fields: Any) -> dict[str, Any]:
    """A small valid registration."""
    return {
        "name": name,
        "display_name": f"Server {name}",
        "server_type": "mock",
        "endpoint_url": "http://localhost:8080",
        "tools": [{"name": "forecast", "description": "Weather", "input_schema": {"type": "object"}}],
    } | fields


class InProcess:
    """The gateway of the local run with the handlers called directly: the template, without sockets."""

    def __init__(self, database_url: str, queue_service: Callable[[], str]) -> None:
        """`queue_service` is called for its URL when a function first needs it."""
        parameters = {
            "CronSecret": CRON_SECRET,
            "DatabaseUrl": database_url,
            "OpenCidrs": LOOPBACK,
            "RegistryPassword": PASSWORD,
            "RegistryUsername": USERNAME,
        }
        self.stack = template.load(ROOT / "template.yaml", parameters)
        self._queue_service = queue_service
        self._queue_url: str | None = None
        self._handlers = {
            name: load_module(function.code_dir / "app.py", f"app_{name}").lambda_handler
            for name, function in self.stack.functions.items()
        }

    def environment(self) -> dict[str, str]:
        """What the template sets for the functions, all together."""
        return {k: v for function in self.stack.functions.values() for k, v in function.environment.items()}

    async def invoke(self, function: str, event: dict[str, Any]) -> object:
        """Call a handler as Lambda does: JSON in, JSON out."""
        with self._reaching_queues(function):
            try:
                # In a thread, because no handler of Lambda finds an event loop running around it.
                answer = await asyncio.to_thread(self._handlers[function], json.loads(json.dumps(event)), None)
                return json.loads(json.dumps(answer))
            except Exception as error:
                raise FunctionError(type(error).__name__, str(error)) from error

    @contextmanager
    def _reaching_queues(self, function: str) -> Generator[None]:
        """Lead boto3 to the tests' queues, while a function runs that sends to one, and no longer."""
        urls = {queue.url for queue in self.stack.queues.values()}
        if urls.isdisjoint(self.stack.functions[function].environment.values()):
            yield
            return
        if self._queue_url is None:
            self._queue_url = self._queue_service()
            queues.create(queues.connect(self._queue_url), self.stack.queues)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self._queue_url)
            patch.setenv("AWS_DEFAULT_REGION", template.REGION)
            for name, value in queues.CREDENTIALS.items():
                patch.setenv(name, value)
            yield

    def send(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        """Answer a request by a gateway that remembers nothing, so that changed credentials count at once."""
        started = time.perf_counter()
        path, _, query = path.partition("?")
        request = HttpRequest(method, path, query, tuple(headers), body)
        response = asyncio.run(Gateway(self.stack.api, self.invoke).handle(request))
        headers_out = {name.lower(): value for name, value in response.headers}
        return Answer(response.status, headers_out, response.body, time.perf_counter() - started)


@pytest.fixture(scope="session")
def in_process(database_url: str, request: pytest.FixtureRequest) -> Iterator[InProcess]:
    """The handlers in process, with the environment that the template gives them."""
    stack = InProcess(database_url, lambda: request.getfixturevalue("queue_service"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment().items():
            patch.setenv(name, value)
        patch.setenv("POWERTOOLS_LOG_LEVEL", "CRITICAL")
        patch.setattr(db, "_database", None)
        yield stack


class Local:
    """`python -m local` as a process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.output: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local"],
            cwd=ROOT,
            env={**os.environ, "AWS_ENDPOINT_URL": "", "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))
            if line.startswith(READY):
                self.url = line.removeprefix(READY).strip()
                self._ready.set()
        self._ready.set()

    def wait_until_ready(self, seconds: float = 60) -> str:
        """The URL of the ready line. Fails with the output where the process ends without one."""
        self._ready.wait(seconds)
        assert self.url, "\n".join(self.output)
        return self.url

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self._reader.join(10)
        return code


@pytest.fixture(scope="session")
def stack_database_url(new_database: Callable[..., str]) -> str:
    """The database of the running local stack."""
    return new_database(migrated=False)


@pytest.fixture(scope="session")
def stack_url(stack_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running local stack, started as a user starts it, but that it checks no server by itself."""
    environment = {
        "CRON_SECRET": CRON_SECRET,
        "HEALTH_SWEEPS": "off",
        "PORT": "0",
        "DATABASE_URL": stack_database_url,
        "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "REGISTRY_USERNAME": USERNAME,
        "REGISTRY_PASSWORD": PASSWORD,
    }
    local = Local(environment)
    try:
        yield local.wait_until_ready()
    finally:
        assert local.stop() == 0


def over_http(url: str) -> Callable[[str, str, list[tuple[str, str]], bytes], Answer]:
    """Send requests to a URL exactly as given: no normalised path, no header that was not asked for."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def send(method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        started = time.perf_counter()
        connection = connect(parts.hostname or "", parts.port, timeout=30)
        try:
            # The rest of the path stays as it is; bytes beyond ASCII cannot stand in a request line.
            target = parts.path + quote(path, safe="!#$%&'()*+,/:;=?@[]~\"<>\\^`{|}")
            connection.putrequest(method, target, skip_accept_encoding=True)
            names = {name.lower() for name, _ in headers}
            for name, value in headers:
                connection.putheader(name, value.encode("utf-8"))
            if "content-length" not in names and (body or method in ("POST", "PUT", "PATCH")):
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            headers_in = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers_in, response.read(), time.perf_counter() - started)
        finally:
            connection.close()

    return send


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "api" in metafunc.fixturenames:
        external = metafunc.config.getoption("--api-url")
        transports = ["external"] if external else ["in-process", "stack"]
        metafunc.parametrize("api", transports, indirect=True, scope="session")


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest) -> Api:
    """The API: in process, as the running local stack, or wherever --api-url says."""
    match request.param:
        case "in-process":
            stack: InProcess = request.getfixturevalue("in_process")
            return Api(stack.send, in_process=True, database_url=request.getfixturevalue("database_url"))
        case "stack":
            url = request.getfixturevalue("stack_url")
            return Api(over_http(url), in_process=False, database_url=request.getfixturevalue("stack_database_url"))
        case _:
            return Api(over_http(str(request.config.getoption("--api-url"))), in_process=False)
