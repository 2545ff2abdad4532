"""`pytest tests/api --api-url URL`, as a team runs it after deploying: on a stack that it knows by its URL only.

The stack is the local run made like one in the cloud: behind a stage, with the loopback closed, with credentials and a
cron secret of its own, swept, and with servers of other people in it, who are at work meanwhile.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from mcp_registry.aws import db
from mcp_registry.catalogue import registration, servers
from tests.api.transport import Remote, over_http
from tests.conftest import ADMIN, REGISTER, ROOT, SERVERS, Api, Local

USERNAME, PASSWORD, CRON_SECRET = "platform-team", "it's: a $ecret – ünd more", "Another-Secret"
# More than the largest page of a list has.
UNRELATED = 1010
# The suite sends 1,300 requests to a stack that others use (2026-11-30); of API Gateway's quota that is 0.2 seconds.
MOST_REQUESTS = 2000

# The local run opens the loopback, as no deployment does. This one is closed by taking away what it opens.
CLOSED = "import sys; from local import run; run.LOOPBACK = ''; sys.exit(run.main())"


class Stage(ThreadingHTTPServer):
    """A stage of API Gateway before a stack: the URL has a first segment, and too many requests are refused."""

    daemon_threads = True

    def __init__(self, stack: str) -> None:
        super().__init__(("127.0.0.1", 0), StageHandler)
        self.stack = urlsplit(stack).netloc
        self.host = f"http://127.0.0.1:{self.server_address[1]}"
        self.url = f"{self.host}/v1"
        self.refuse = {100, 101}  # which requests are answered 429
        self.hold = 0  # which registration is answered only when `release` is set
        self.held, self.release = threading.Event(), threading.Event()
        self.counting = threading.Lock()
        self.requests = self.registered = 0
        self.outside: list[str] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self.shutdown()
        self.server_close()


class StageHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement of its headers
    server: Stage  # pyright: ignore[reportIncompatibleVariableOverride]

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.forward
        raise AttributeError(name)

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.counting:
            self.server.requests += 1
            refused = self.server.requests in self.server.refuse
        if not self.path.startswith("/v1/"):
            self.server.outside.append(self.path)
            self.answer(403, [("content-type", "application/json")], b'{"message": "Forbidden"}')
        elif refused:
            self.answer(429, [("retry-after", "1")], b'{"error": "Too many", "code": "TOO_MANY_REQUESTS"}')
        else:
            self.answer(*self.ask(body))

    def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.stack, timeout=60)
        try:
            connection.putrequest(self.command, self.path[len("/v1") :], skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders(body or None)
            response = connection.getresponse()
            answer = response.status, response.getheaders(), response.read()
        finally:
            connection.close()
        if answer[0] == 201:
            with self.server.counting:
                self.server.registered += 1
                hold = self.server.registered == self.server.hold
            if hold:
                self.server.held.set()
                assert self.server.release.wait(60)
        return answer

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked may have gone
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


# ------------------------------------------------------------------ the stack, and who else is there


@pytest.fixture(scope="module")
def stack_database(new_database) -> str:
    return new_database(migrated=False)


@pytest.fixture(scope="module")
def url(stack_database, tmp_path_factory) -> Iterator[str]:
    """The stack itself, without its stage."""
    environment = {
        "CRON_SECRET": CRON_SECRET,
        "DATABASE_URL": stack_database,
        "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "HEALTH_SWEEPS": "on",
        "PORT": "0",
        "REGISTRY_PASSWORD": PASSWORD,
        "REGISTRY_USERNAME": USERNAME,
    }
    local = Local(environment, ("-c", CLOSED))
    try:
        yield local.wait_until_ready()
    finally:
        assert local.stop() == 0


@pytest.fixture(scope="module")
def owner(url: str, stack_database: str) -> Api:
    """Whom the stack belongs to, and whose servers are in it."""
    owner = Api(
        over_http(url),
        in_process=False,
        shared=True,
        basic="Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode(),
        endpoint="https://unrelated.example",
        prefix="unrelated",
    )
    refused = owner("POST", REGISTER, owner.registration(endpoint_url="http://localhost:8080"))
    assert refused.json()["details"][0]["type"] == "blocked", "the loopback is closed, as in the cloud"
    # They were there before, and are not introduced one by one while the suite runs.
    catalogued = db.Database(stack_database)
    made: list[dict[str, Any]] = []
    for number in range(UNRELATED):
        sent = registration.parse(owner.registration(version=str(number)))
        made.append(servers.register(catalogued, ADMIN, sent))
    catalogued.close()
    for server in made[:10]:
        assert owner("PATCH", f"{SERVERS}/{server['id']}", {"status": "inactive"}).status == 200
    return owner


@pytest.fixture
def stage(url: str) -> Iterator[Stage]:
    stage = Stage(url)
    yield stage
    stage.close()


def catalogue(owner: Api) -> dict[int, dict[str, Any]]:
    """Every server, but for what the sweeps change."""
    found: dict[int, dict[str, Any]] = {}
    query = "limit=1000"
    while query:
        page = owner("GET", f"{SERVERS}?{query}").json()
        for server in page["servers"]:
            found[server["id"]] = owner.unswept(server) | {"inactive": server["status"] == "inactive"}
        query = f"limit=1000&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    return found


@contextmanager
def at_work(owner: Api) -> Generator[None]:
    """Somebody registers, changes and removes servers meanwhile."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.5):
            created = owner.register(server_type="official")
            assert owner("PATCH", f"{SERVERS}/{created['id']}", {"status": "inactive"}).status == 200
            assert owner("DELETE", f"{SERVERS}/{created['id']}").status == 204

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield
        finally:
            stop.set()
        working.result()


# ------------------------------------------------------------------ the suite, as a process


# Where little of the suite is run: plugins that it does not use take most of the 2 s of a start.
FEW = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def suite(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The suite, with nothing of this run in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("API_", "GUARD_", "PYTEST_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/api", *arguments],
        cwd=ROOT,
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_suite_passes_on_a_stack_that_others_use_and_leaves_nothing_behind(owner, stage):
    before = catalogue(owner)
    assert len(before) >= UNRELATED
    with at_work(owner):
        process = suite(
            *("--api-url", stage.url, "--credentials", f"{USERNAME}:{PASSWORD}"), API_CRON_SECRET=CRON_SECRET
        )
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    passed = re.search(r"^(\d+) passed, (\d+) skipped", output, re.MULTILINE)
    assert passed, output
    assert int(passed[1]) > 350, output
    told = re.search(r"^external: (\d+) servers registered as api-suite-\w+-\*, (.*)$", output, re.MULTILINE)
    assert told, output
    assert int(told[1]) > 150
    assert told[2] == f"none left at {stage.url}; {stage.requests} requests, repeated: 2 after 429"
    assert stage.requests < MOST_REQUESTS
    assert stage.outside == [], "a request without the stage before its path"
    assert PASSWORD not in output
    assert CRON_SECRET not in output
    assert catalogue(owner) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_suite_that_is_interrupted_leaves_nothing_behind(owner, stage, number, tmp_path):
    """At the worst moment: a server is registered, and the answer that tells its id has not come."""
    before = catalogue(owner)
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"username": USERNAME, "password": PASSWORD}), encoding="utf-8")
    stage.hold = 5
    process = suite("--api-url", stage.url, "--credentials", f"@{secret}", "-k", "test_register", **FEW)
    assert stage.held.wait(60)
    assert len(catalogue(owner)) > len(before)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert re.search(r"^external: 4 servers registered as .*, none left at ", output, re.MULTILINE), output
    assert catalogue(owner) == before


# ------------------------------------------------------------------ what cannot work ends in one sentence


def sentence(process: subprocess.Popen[str]) -> str:
    """The one sentence of a suite that was started with what cannot work."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.USAGE_ERROR, output
    sentences = re.findall(r"^(?:ERROR: |!+ _pytest\.outcomes\.Exit: )(.*?)(?: !+)?$", output, re.MULTILINE)
    assert len(sentences) == 1, output
    assert "Traceback" not in output
    return sentences[0]


def test_options_that_do_not_fit_together_are_refused_in_one_sentence():
    url = ("--api-url", "https://x.example/v1")
    # All at once, because each takes a second or two to start.
    without = suite(*url, **FEW)
    alone = suite("--credentials", "a:b", **FEW)
    no_url = suite("--api-url", "x.example", "--credentials", "a:b", **FEW)
    no_pair = suite(*url, API_CREDENTIALS="word", **FEW)
    assert sentence(without) == (
        "--api-url needs --credentials USER:PASSWORD, or --credentials @FILE, or the environment variable"
        " API_CREDENTIALS."
    )
    assert sentence(alone) == "--credentials and --cron-secret belong to --api-url URL, which is missing."
    assert sentence(no_url) == "--api-url is the base URL of a registry: https://host/stage, nothing behind it."
    assert sentence(no_pair) == "--credentials must be USER:PASSWORD: a colon is missing."


def test_a_stack_that_cannot_be_tested_is_named_in_one_sentence(stage):
    wrong = suite("--api-url", stage.url, "--credentials", "admin:password", **FEW)
    no_stage = suite("--api-url", stage.host, "--credentials", f"{USERNAME}:{PASSWORD}", **FEW)
    assert sentence(wrong) == f"{stage.url}{SERVERS} answers 401 to these credentials: are they those of this stack?"
    assert sentence(no_stage) == f"{stage.host}/health answers 403: is that the URL of a registry, with its stage?"


# ------------------------------------------------------------------ requests


def test_a_certificate_that_nobody_vouches_for_is_not_accepted():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    # The handshake in the thread of the server, which goes on where one fails.
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        with pytest.raises(ssl.SSLCertVerificationError):
            Remote(f"https://localhost:{server.server_address[1]}")("GET", "/health", [], b"")
    finally:
        server.shutdown()
        server.server_close()
