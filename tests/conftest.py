"""What tests stand on: a Postgres 18 of their own, the handlers in process, and the running local stack."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

from local import queues, template
from local.gateway import FunctionError, Gateway, HttpRequest
from local.postgres import LEASH
from local.run import LOOPBACK
from local.runtime import Invocations
from mcp_registry.access import tokens
from mcp_registry.aws import db, invoke
from mcp_registry.caller import DEFAULT_TEAM, Caller
from tests.api.transport import ADDRESSES, Answer, Headers, Remote, Secret, Transport, over_http
from tests.redaction import search

# A run in the background of a shell ignores SIGINT, one under nohup SIGHUP, and so would everything that they start.
# Tests send both. Nohup is heeded here: what is no SIG_IGN is not inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# Hypothesis looks at the clock, which beside other tests tells nothing of ours.
settings.register_profile("beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("beside others")

ROOT = Path(__file__).parent.parent
USERNAME, PASSWORD = "admin", "password"
CRON_SECRET = "cron"
BASIC = "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
# Who registers where it is of no matter who does.
ADMIN = Caller("admin", "admin", DEFAULT_TEAM)
READY = "MCP Registry ready on "

# Seconds that a request may take in a test that is not about deadlines: a busy machine stalls for longer than the 4.5 s
# that a function has.
PATIENCE = 60.0

# What is tested in this process may register and dial loopback, as the local run may.
os.environ["GUARD_OPEN_CIDRS"] = LOOPBACK


# What a server registers with where its endpoint is of no matter. On a machine of one's own that asks no resolver; on
# any other stack the loopback is closed, and this is a name that cannot exist (RFC 2606), so that nobody is dialled.
ENDPOINT = "http://localhost:8080"
FOREIGN_ENDPOINT = "https://api-suite.example"

# The settings of --api-url that hold a secret may stand in these instead of on a command line, which everyone on the
# machine can read.
CREDENTIALS_VARIABLE = "API_CREDENTIALS"
CRON_SECRET_VARIABLE = "API_CRON_SECRET"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("the API suite on a stack that is running")
    group.addoption(
        "--api-url",
        help="run tests/api against this URL, its stage included, instead of the two stacks that the tests start",
    )
    group.addoption(
        "--credentials",
        help=f"USER:PASSWORD of that stack, or @FILE that holds it, or the secret's JSON; else ${CREDENTIALS_VARIABLE}",
    )
    group.addoption(
        "--cron-secret", help=f"its CronSecret, or @FILE; else ${CRON_SECRET_VARIABLE}. Without it no sweep is started"
    )
    group.addoption("--open-cidrs", default="", help="its parameter OpenCidrs, where it is not empty")
    parser.getgroup("general").addoption(
        "--postgres",
        metavar="URL",
        help="test on this server, whose user may make databases, and not on one of our own",
    )
    parser.getgroup("general").addoption(
        "--shuffle", type=int, metavar="SEED", help="run the files, and the tests of each, in an order of chance"
    )


@dataclass(frozen=True)
class Foreign:
    """A stack that the tests did not start: --api-url and what belongs to it."""

    url: str
    basic: str = field(repr=False)
    cron_secret: str | None = field(repr=False)


FOREIGN = pytest.StashKey[Foreign]()
# What the tests of each stack registered, for the end of the run.
REGISTERED = pytest.StashKey[list[str]]()
# What each test has printed in this process, the functions among it, and processes that are no `Local`.
PRINTED: list[tuple[str, str]] = []
# How long the answers to the corpus took.
SLOWEST = pytest.StashKey[list[tuple[float, str]]]()

# What reads all that the others have printed, and comes after them; where workers run those, in the process that
# started the workers.
LAST = "tests/redaction/test_whole_run.py"
LEFT = pytest.StashKey[list[str]]()
# Files that ask the same real servers, which start once for all of them: one worker runs these. To start those servers
# takes 20 s of a processor's time, and each of three workers did so for its part of the files (2026-11-30).
FLEET = (
    "tests/real/test_probe_real.py",
    "tests/real/test_harm.py",
    "tests/real/test_oracle.py",
    "tests/real/test_real_servers.py",
    "client/tests/test_introspect.py",
    "client/tests/test_cli.py",
)
# What takes longest, in the order in which workers begin with it: whoever is done early helps with the small files.
LONGEST = (
    *FLEET,
    "tests/integration/test_local_run.py",
    "tests/faults/test_faults.py",
    "tests/integration/test_any_stack.py",
    "tests/unit/test_lint.py",
    "tests/integration/test_build.py",
    "tests/load/test_load.py",
    "tests/integration/test_local_postgres.py",
    "tests/integration/test_setup.py",
    "tests/fuzz/test_fuzz_proofs.py",
    "tests/redaction/test_redaction.py",
    "tests/integration/test_local_clone.py",
    "tests/api/test_corpus.py",
    "client/tests/test_frameworks.py",
    "client/tests/test_presence.py",
    "tests/api/test_stateful.py",
    "tests/integration/test_probe.py",
    "tests/integration/test_probe_verdicts.py",
    "tests/real/test_environments.py",
    "tests/unit/test_deployment.py",
    "client/tests/test_distribution.py",
    "tests/api/test_outage.py",
    "tests/integration/test_introduction.py",
    "tests/contract/test_readme.py",
    "tests/integration/test_announcements.py",
    "tests/unit/test_preflight.py",
    "client/tests/test_outage.py",
    "tests/integration/test_local_queues.py",
    "tests/integration/test_health_events.py",
    "tests/integration/test_local_runtime.py",
    "tests/contract/test_fuzz.py",
    "tests/integration/test_sam_local.py",
    "client/tests/test_announcer.py",
    "client/tests/test_places.py",
    "tests/integration/test_db.py",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: a case of the whole corpus that its sample does not have")
    # Whoever ends a run from outside sends this one: what was started and registered is removed then as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = config.getoption("--api-url")
    if not given:
        if config.getoption("--credentials") or config.getoption("--cron-secret"):
            raise pytest.UsageError("--credentials and --cron-secret belong to --api-url URL, which is missing.")
        return
    url = str(given).rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        valid = False
    if not valid or "?" in url or "#" in url:
        raise pytest.UsageError("--api-url is the base URL of a registry: https://host/stage, nothing behind it.")
    config.stash[FOREIGN] = Foreign(url, _basic(config), _secret(config, "--cron-secret", CRON_SECRET_VARIABLE))


def _basic(config: pytest.Config) -> str:
    """The header of the credentials."""
    text = _secret(config, "--credentials", CREDENTIALS_VARIABLE)
    if text is None:
        raise pytest.UsageError(
            "--api-url needs --credentials USER:PASSWORD, or --credentials @FILE, or the environment variable"
            f" {CREDENTIALS_VARIABLE}."
        )
    if text.startswith("{"):  # as Secrets Manager gives it
        try:
            pair = json.loads(text)
            text = f"{pair['username']}:{pair['password']}"
        except (ValueError, KeyError):
            raise pytest.UsageError("--credentials: the JSON does not hold username and password.") from None
    if ":" not in text:
        raise pytest.UsageError("--credentials must be USER:PASSWORD: a colon is missing.")
    return Secret("Basic " + b64encode(text.encode()).decode())


def _secret(config: pytest.Config, option: str, variable: str) -> str | None:
    """The value of an option that is a secret: as it stands, from the file that it names, or from the environment."""
    text = config.getoption(option) or os.environ.get(variable)
    if not text:
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise pytest.UsageError(f"{option}: the file {text[1:]} cannot be read: {error}.") from None
    return Secret(text)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    """Leave out what is not for this run, and put the rest in order."""
    if FOREIGN in config.stash:
        # A stack that others use is asked the sample of the corpus: the requests are few, and the same for everyone.
        whole = [item for item in items if item.get_closest_marker("whole")]
        config.hook.pytest_deselected(items=whole)
        items[:] = [item for item in items if item not in set(whole)]
    if (seed := config.getoption("--shuffle")) is not None:
        random.Random(seed).shuffle(items)
        places = {item.path: place for place, item in reversed([*enumerate(items)])}
        items.sort(key=lambda item: places[item.path])  # a file stays together
    yield
    last = [item for item in items if _file(item) == LAST]
    others = [item for item in items if _file(item) != LAST]
    if not is_worker(config):
        items[:] = others + last
        return
    config.stash[LEFT] = [item.nodeid for item in last]
    items[:] = others
    if seed is None:
        items.sort(key=lambda item: LONGEST.index(_file(item)) if _file(item) in LONGEST else len(LONGEST))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def nowhere_else(config: pytest.Config) -> None:
    """Skip what needs a database or queues of the tests' own, where --api-url names a stack that has others."""
    # The client's tests use fixtures of this file where these options do not exist.
    if config.getoption("--api-url", None):
        pytest.skip("needs a database or queues of its own, which a stack behind --api-url does not give")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if taken := config.stash.get(SLOWEST, []):
        seconds, case = max(taken)
        terminalreporter.write_line(f"corpus: {len(taken)} answers, the slowest after {seconds:.2f} s ({case})")
    for line in config.stash.get(REGISTERED, []):
        terminalreporter.write_line(line)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown" and (printed := report.capstdout + report.capstderr + report.caplog):
        PRINTED.append((report.nodeid, printed))


# ------------------------------------------------------------------ workers (`pytest -n`)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs a part of the tests, for another one that tells what came of them."""
    return hasattr(config, "workeroutput")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files as `--dist loadfile` hands them to workers, but that those which share what is dear go to one together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # who runs tests without workers need not have it

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shift(nodeid)

    return Scheduling(config, log)


def shift(nodeid: str) -> str:
    """What a test is run together with, by one worker: its file, or the fleet."""
    file = nodeid.partition("::")[0]
    return FLEET[0] if file in FLEET else file


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """A worker ends in peace, and hands over what only it knows. Its reports are there already."""
    config = session.config
    if not is_worker(config):
        if workers := getattr(config.pluginmanager.get_plugin("dsession"), "nodemanager", None):
            workers.EXIT_TIMEOUT = 30  # seconds to end in after Ctrl-C, before they are killed: ten are not enough
        return (yield)
    # Ctrl-C has reached it already, and who started it sends another one after 5 s. That would leave stacks running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    yield
    stacks = [(dict(one.settings), one.output) for one in Local.started]
    told = (config.stash.get(SLOWEST, []), config.stash.get(REGISTERED, []), config.stash.get(LEFT, []), stacks)
    config.workeroutput["told"] = json.dumps(told)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker knows. One that crashed says nothing, and has failed the run."""
    told = getattr(node, "workeroutput", {}).get("told")
    if told is None:
        return
    slowest, registered, left, stacks = json.loads(told)
    stash = node.config.stash
    stash.setdefault(SLOWEST, []).extend((seconds, case) for seconds, case in slowest)
    stash.setdefault(REGISTERED, []).extend(registered)
    stash[LEFT] = left
    Local.started.extend(Printed(settings, output) for settings, output in stacks)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """When the workers have ended, run what they left."""
    done = yield
    config = session.config
    if left := config.stash.get(LEFT, []) if not is_worker(config) else []:
        run = session.testscollected
        items = session.perform_collect([str(config.rootpath / id_) for id_ in left])
        session.testscollected += run
        for item, following in zip(items, [*items[1:], None], strict=True):
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return done


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


# ------------------------------------------------------------------ the API, twice

REGISTER = "/api/registry/register"
SERVERS = "/api/registry/servers"
# What every prefix begins with: `search=api-suite-` finds what a run left that was killed.
SUITE = "api-suite-"


def new_prefix() -> str:
    """What the names of a run begin with, in letters that have no look-alikes."""
    return SUITE + "".join(random.SystemRandom().choices("abcdefghjkmnpqrstuvwxyz", k=10))


@dataclass
class Api:
    """The registry's API, whatever carries it. `transport` takes (method, path with query, headers, body)."""

    transport: Transport
    in_process: bool
    database_url: str | None = None
    # Whether this is a stack that others use as well, and that sweeps: it holds servers that are not the tests', and
    # those that are fall from active to error by themselves.
    shared: bool = False
    basic: str = field(default=BASIC, repr=False)
    cron_secret: str | None = field(default=CRON_SECRET, repr=False)
    endpoint: str = ENDPOINT
    prefix: str = field(default_factory=new_prefix)
    names: Iterator[int] = field(default_factory=lambda: count(1))
    # The servers that are there through these tests, by id; and how many there have been.
    made: dict[int, str] = field(default_factory=dict)
    registered: int = 0

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        auth: str | Literal[True] | None = True,
    ) -> Answer:
        """Send a request; a `body` that is not bytes is sent as JSON. `auth` None sends no credentials."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None and "content-type" not in given:
            given["content-type"] = "application/json"
        if auth is not None:
            given["authorization"] = self.basic if auth is True else auth
        return self.send(method, path, list(given.items()), body or b"")

    def send(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """Send a request as it stands, and keep in mind which servers are there through it."""
        answer = self.transport(method, path, headers, body)
        told = search.told(answer.status, answer.headers, answer.body, self.basic.removeprefix("Basic "))
        assert not told, f"{method} {path[:200]} answers {answer.status} with {told}"
        if answer.status == 201 and path.startswith(REGISTER):
            created = answer.json()
            self.made[created["id"]] = created["name"]
            self.registered += 1
        elif method == "DELETE" and answer.status in (204, 404):
            id_ = path.partition("?")[0].rpartition("/")[2]
            self.made.pop(int(id_) if id_.isdecimal() else 0, None)
        return answer

    def new_name(self, word: str = "server") -> str:
        """A name that nobody has. Of one length, so that none is part of another."""
        return f"{self.prefix}-{word}-{next(self.names):06}"

    def registration(self, name: str | None = None, **fields: Any) -> dict[str, Any]:
        """A small valid registration, under a new name unless one is given."""
        return registration(name or self.new_name(), endpoint_url=self.endpoint) | fields

    def register(self, **fields: Any) -> dict[str, Any]:
        """Register a server with a new name and return the answer together with the name."""
        answer = self("POST", REGISTER, self.registration(**fields))
        assert answer.status == 201, answer.body
        return answer.json()

    def may_be(self, status: str) -> set[str]:
        """What a server's status may be by now that was `status`: a sweep finds nothing at its endpoint."""
        return {status, "error"} if self.shared and status == "active" else {status}

    def unswept(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """What is told of a server, without what a sweep may have changed meanwhile."""
        swept = {"status", "verdict", "frozen", "last_health_check", "checked_at", "last_check", "auth", "observed"}
        swept |= {"endpoints", "updated_at", "review"}
        return {key: value for key, value in told.items() if not (self.shared and key in swept)}

    def remove_what_was_made(self) -> None:
        """Delete the servers that are there through these tests."""
        for id_ in list(self.made):
            self("DELETE", f"{SERVERS}/{id_}")

    def left(self) -> list[dict[str, Any]]:
        """The servers whose names have the prefix, as the API lists them."""
        found: list[dict[str, Any]] = []
        query = f"search={self.prefix}&limit=1000"
        while query:
            answer = self("GET", f"{SERVERS}?{query}")
            assert answer.status == 200, answer.body
            page = answer.json()
            found += page["servers"]
            query = f"limit=1000&cursor={page['next_cursor']}" if page["next_cursor"] else ""
        return found


def registration(name: str, **fields: Any) -> dict[str, Any]:
    """A small valid registration."""
    return {
        "name": name,
        "display_name": f"Server {name}",
        "server_type": "mock",
        "endpoint_url": ENDPOINT,
        "tools": [{"name": "forecast", "description": "Weather", "input_schema": {"type": "object"}}],
    } | fields


def load_stack(database_url: str) -> template.Stack:
    """The template as it is deployed, with the tests' own settings."""
    parameters = {
        "CronSecret": CRON_SECRET,
        "DatabaseUrl": database_url,
        "OpenCidrs": LOOPBACK,
        "RegistryPassword": PASSWORD,
        "RegistryUsername": USERNAME,
    }
    return template.load(ROOT / "template.yaml", parameters)


class InProcess:
    """The gateway of the local run with the handlers called directly: the template, without sockets."""

    def __init__(self, database_url: str, queue_service: Callable[[], str]) -> None:
        """`queue_service` is called for its URL when a function first needs it."""
        self.stack = load_stack(database_url)
        self._queue_service = queue_service
        self._queue_url: str | None = None
        self._invocations: asyncio.AbstractEventLoop | None = None
        self._invocations_url = ""
        self._handlers = {
            name: load_module(function.code_dir / "app.py", f"app_{name}").lambda_handler
            for name, function in self.stack.functions.items()
        }

    def environment(self) -> dict[str, str]:
        """What the template sets for the functions, all together."""
        return {k: v for function in self.stack.functions.values() for k, v in function.environment.items()}

    async def invoke(self, function: str, event: dict[str, Any]) -> object:
        """Call a handler as Lambda does: JSON in, JSON out."""
        with self._reaching_queues(function), self._reaching_functions(function):
            try:
                # In a thread, because no handler of Lambda finds an event loop running around it.
                answer = await asyncio.to_thread(self._handlers[function], json.loads(json.dumps(event)), None)
                return json.loads(json.dumps(answer))
            except Exception as error:
                raise FunctionError(type(error).__name__, str(error)) from error

    @contextmanager
    def _reaching_queues(self, function: str) -> Generator[None]:
        """Lead boto3 to the tests' queues and secrets, while a function runs that uses some, and no longer."""
        urls = {queue.url for queue in self.stack.queues.values()}
        environment = self.stack.functions[function].environment
        if urls.isdisjoint(environment.values()) and "PROBE_HEADERS" not in environment:
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

    @contextmanager
    def _reaching_functions(self, function: str) -> Generator[None]:
        """Lead Lambda's API to these handlers, while a function runs that asks another one, and no longer."""
        if {"IDENTIFY_URL", "MARK_URL"}.isdisjoint(self.stack.functions[function].environment):
            yield
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL_LAMBDA", self._serve_invocations())
            patch.setenv("AWS_DEFAULT_REGION", template.REGION)
            for name, value in queues.CREDENTIALS.items():
                patch.setenv(name, value)
            yield

    def _serve_invocations(self) -> str:
        """The URL of Lambda's API, which a thread serves from the first time on."""
        if self._invocations is None:
            self._invocations = asyncio.new_event_loop()
            threading.Thread(target=self._invocations.run_forever, daemon=True).start()
            api = Invocations(self.invoke, self.stack.functions, lambda *_: True)
            self._invocations_url = asyncio.run_coroutine_threadsafe(api.open(), self._invocations).result(PATIENCE)
        return self._invocations_url

    def send(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        """Answer a request by a gateway that remembers nothing, so that changed credentials count at once."""
        started = time.perf_counter()
        path, _, query = path.partition("?")
        request = HttpRequest(method, path, query, tuple(headers), body, source_ip=next(ADDRESSES))
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
        patch.setattr(invoke, "ANSWER_SECONDS", PATIENCE)
        yield stack


class Printed(NamedTuple):
    """What a local stack has printed so far, and with which settings."""

    settings: Mapping[str, str]
    output: list[str]


class Local:
    """`python -m local` as a process; `program` are other arguments for Python."""

    # All of this run: what they have printed is searched at its end (tests/redaction/test_whole_run.py).
    started: ClassVar[list[Printed]] = []

    def __init__(self, environment: Mapping[str, str], program: Sequence[str] = ("-m", "local")) -> None:
        self.output: list[str] = []
        Local.started.append(Printed(environment, self.output))
        self.process = subprocess.Popen(
            [sys.executable, *program],
            cwd=ROOT,
            env={**os.environ, "AWS_ENDPOINT_URL": "", "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        # Where this process is killed, nobody else ends the stack.
        leash = [*LEASH, str(self.process.pid)]
        self._leash = subprocess.Popen(leash, stdin=subprocess.PIPE, start_new_session=True)
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
        with self._leash:  # before the number of the stack can be another one's
            self._leash.kill()

    def wait_until_ready(self, seconds: float = 60) -> str:
        """The URL of the ready line. Fails with the output where the process ends without one."""
        self._ready.wait(seconds)
        assert self.url, "\n".join(self.output)
        return self.url

    def stop(self) -> int:
        """Ctrl-C, and the exit code. Raises TimeoutExpired where it does not end, after ending it all the same."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        self._reader.join(10)
        return code


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can pass, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="registry-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "api" in metafunc.fixturenames:
        external = metafunc.config.getoption("--api-url")
        transports = ["external"] if external else ["in-process", "stack"]
        metafunc.parametrize("api", transports, indirect=True, scope="session")


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """The API: in process, as the running local stack, or wherever --api-url says. Nothing of the tests stays in it."""
    match request.param:
        case "in-process":
            stack: InProcess = request.getfixturevalue("in_process")
            api = Api(stack.send, in_process=True, database_url=request.getfixturevalue("database_url"))
        case "stack":
            url = request.getfixturevalue("stack_url")
            _wake_identify(url)
            api = Api(over_http(url), in_process=False, database_url=request.getfixturevalue("stack_database_url"))
        case _:
            foreign = request.config.stash[FOREIGN]
            remote = Remote(foreign.url)
            api = Api(
                remote,
                in_process=False,
                shared=True,
                basic=foreign.basic,
                cron_secret=foreign.cron_secret,
                endpoint=FOREIGN_ENDPOINT,
            )
            _await(api, foreign.url)
    yield api
    _leave_nothing(api, request.param, request.config.stash.setdefault(REGISTERED, []))
    if isinstance(api.transport, Remote):
        api.transport.close()


def _await(api: Api, url: str) -> None:
    """Until the stack is warm; ends the run in one sentence where it is none, or takes these credentials for wrong."""
    try:
        # A database that sleeps while nobody asks may take longer than one request waits: 503, which is repeated.
        health = api("GET", "/health", auth=None)
        listed = api("GET", f"{SERVERS}?limit=1")
    except (OSError, http.client.HTTPException) as error:
        pytest.exit(f"No registry can be asked at {url}: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
    if health.status != 200 or b'"status"' not in health.body:
        told = f"{url}/health answers {health.status}: is that the URL of a registry, with its stage?"
        pytest.exit(told, returncode=pytest.ExitCode.USAGE_ERROR)
    if listed.status != 200:
        told = f"{url}{SERVERS} answers {listed.status} to these credentials: are they those of this stack?"
        pytest.exit(told, returncode=pytest.ExitCode.USAGE_ERROR)


def _wake_identify(url: str) -> None:
    """Ask once with a token: starting who knows it may take longer on a busy machine than the authorizer waits."""
    headers = [("authorization", f"Bearer {tokens.make().text}")]
    statuses = (over_http(url)("GET", f"{SERVERS}?limit=1", headers, b"").status for _ in range(10))
    assert 401 in statuses, "nobody can be asked who has a token"


def _leave_nothing(api: Api, stack: str, lines: list[str]) -> None:
    """Remove what is left, look whether anything is, and say so at the end of the run."""
    told = f"{stack}: could not be asked whether anything named {api.prefix}-* is left there"
    try:
        strays = [name for name in api.made.values() if not name.startswith(api.prefix)]
        api.remove_what_was_made()
        # A registration whose answer was lost, by a timeout for instance, is known by its name only.
        for server in api.left():
            api("DELETE", f"{SERVERS}/{server['id']}")
        left = [server["name"] for server in api.left()] + list(api.made.values())
        told = f"{stack}: {api.registered} servers registered as {api.prefix}-*, "
        told += f"{len(left)} LEFT: {', '.join(left)}" if left else "none left"
        if isinstance(api.transport, Remote):
            remote = api.transport
            repeated = ", ".join(f"{number} after {status}" for status, number in sorted(remote.repeated.items()))
            told += f" at {remote.url}; {remote.requests} requests, repeated: {repeated or 'none'}"
    finally:
        lines.append(told)
    assert left == []
    assert strays == [], "a test registers a name without the prefix of the run"
