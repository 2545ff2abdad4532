"""What one request costs in CPU: the handler's and Postgres', ours against the baseline's.

Both in this process, called as their platform calls them, each on one warm connection to a database of its own with
the same servers. Ours is the authorizer and then the function, with the event of API Gateway, log line included. The
baseline is its ASGI application called directly, with neither a server nor Mangum around it: the way that flatters
FastAPI most. Through Mangum, as it would run on Lambda, it is printed too.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import logging
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from benchmarks.catalogue import CHECK, INTRODUCE, database, execute, registration
from benchmarks.report import Result, alternate, figure, medians, table
from sql.migrate import migrate

ROOT = Path(__file__).parent.parent
SERVERS = 1_000
BATCH = 20  # requests timed together
ROUNDS = 25
BAR = 0.5

USERNAME, PASSWORD = "admin", "password"
AUTHORIZATION = "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
HEADERS = {
    "accept": "application/json",
    "authorization": AUTHORIZATION,
    "content-type": "application/json",
    "host": "registry.example.com",
    "user-agent": "benchmarks",
}


class Call(NamedTuple):
    """One request, in no platform's form."""

    method: str
    resource: str
    id: int | None = None
    query: Mapping[str, str] = {}
    body: str | None = None

    @property
    def path(self) -> str:
        """The path with the id in its place."""
        return self.resource.replace("{id}", str(self.id))

    @property
    def event(self) -> dict[str, Any]:
        """The request as API Gateway hands it over (payload 1.0)."""
        return {
            "version": "1.0",
            "resource": self.resource,
            "path": self.path,
            "httpMethod": self.method,
            "headers": HEADERS,
            "multiValueHeaders": {name: [value] for name, value in HEADERS.items()},
            "queryStringParameters": dict(self.query) or None,
            "multiValueQueryStringParameters": {name: [value] for name, value in self.query.items()} or None,
            "pathParameters": None if self.id is None else {"id": str(self.id)},
            "stageVariables": None,
            "requestContext": {
                "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
                "stage": "v1",
                "httpMethod": self.method,
                "path": self.path,
                "identity": {"sourceIp": "127.0.0.1"},
            },
            "body": self.body,
            "isBase64Encoded": False,
        }


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: str


class Side(NamedTuple):
    """One of the services that are compared: how to call it, and the process of its Postgres connection."""

    call: Callable[[Call], Answer]
    backend: int


class Sample(NamedTuple):
    """CPU of one request in milliseconds."""

    handler: float
    backend: float


def run(server_url: str) -> list[Result]:
    """Measure list, detail and register on both sides and print what they took."""
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(server_url))
        direct, mangum = stack.enter_context(_baseline(server_url))
        sides = {"ours": ours, "baseline": direct, "baseline, Mangum": mangum}
        ids = {name: _fill(side) for name, side in (("ours", ours), ("baseline", direct))}
        ids["baseline, Mangum"] = ids["baseline"]
        # Servers that have been checked for a while. And what was just inserted is not yet as it will be read most of
        # the time.
        execute(_url(server_url, "requests_ours"), INTRODUCE, CHECK)
        for name in ("requests_ours", "requests_baseline"):
            execute(_url(server_url, name), "VACUUM ANALYZE")
        gc.collect()
        gc.freeze()
        kinds: dict[str, dict[str, Iterator[Call]]] = {
            "list of 100": {name: _lists() for name in sides},
            "detail": {name: _details(ids[name]) for name in sides},
            "register": {name: _registrations(place) for place, name in enumerate(sides)},
        }
        rows = [("ms of CPU", "side", "handler", "Postgres", "both", "of the baseline")]
        results: list[Result] = []
        for kind, calls in kinds.items():
            both = _measure(sides, calls)
            for name, sample in both.items():
                total = sum(sample)
                share = total / sum(both["baseline"])
                rows.append((kind, name, figure(sample.handler), figure(sample.backend), figure(total), f"{share:.2f}"))
            results.append(Result(f"CPU of a request: {kind}", sum(both["ours"]), sum(both["baseline"]), "ms", BAR))
        gc.unfreeze()
    print(table(rows))
    return results


def _measure(sides: Mapping[str, Side], calls: Mapping[str, Iterator[Call]]) -> dict[str, Sample]:
    """The median CPU of one request on each side."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}

    def batch(name: str) -> Callable[[], float]:
        def measure() -> float:
            side, requests = sides[name], [next(calls[name]) for _ in range(BATCH)]
            backend, handler = _cpu_of(side.backend), time.process_time()
            answers = [side.call(request) for request in requests]
            sample = Sample(
                (time.process_time() - handler) * 1000 / BATCH, (_cpu_of(side.backend) - backend) * 1000 / BATCH
            )
            assert all(answer.status in (200, 201) for answer in answers), answers[0]
            samples[name].append(sample)
            return sum(sample)

        return measure

    alternate({name: batch(name) for name in sides}, 2)
    for taken in samples.values():  # those were the warming up
        taken.clear()
    alternate({name: batch(name) for name in sides}, ROUNDS)
    handler = medians({name: [sample.handler for sample in taken] for name, taken in samples.items()})
    backend = medians({name: [sample.backend for sample in taken] for name, taken in samples.items()})
    return {name: Sample(handler[name], backend[name]) for name in sides}


def _cpu_of(pid: int) -> float:
    """Seconds of CPU that another process has used, to the nanosecond.

    Linux' clock of a process, as clock_getcpuclockid(3) makes it; /proc counts in steps of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


# ------------------------------------------------------------------ what is asked


def _lists() -> Iterator[Call]:
    while True:
        yield Call("GET", "/api/registry/servers", query={"limit": "100"})


def _details(ids: list[int]) -> Iterator[Call]:
    while True:
        for id_ in ids:
            yield Call("GET", "/api/registry/servers/{id}", id_)


def _registrations(place: int) -> Iterator[Call]:
    """Registrations that nobody sent yet; each side has its own, all of them equally large in the middle."""
    number = (place + 1) * 1_000_000
    while True:
        number += 1
        yield _registering(number)


def _registering(number: int) -> Call:
    body = json.dumps(registration(number), separators=(",", ":"))
    return Call("POST", "/api/registry/register", body=body)


def _fill(side: Side) -> list[int]:
    """Register the servers of the comparison; give their ids."""
    ids: list[int] = []
    for number in range(SERVERS):
        answer = side.call(_registering(number))
        assert answer.status == 201, answer
        ids.append(json.loads(answer.body)["id"])
    return ids


# ------------------------------------------------------------------ the sides


def _url(server_url: str, name: str) -> str:
    return f"{server_url.rpartition('/')[0]}/{name}"


@contextmanager
def _ours(server_url: str) -> Generator[Side]:
    url = database(server_url, "requests_ours")
    migrate(url)
    os.environ.update(
        DATABASE_URL=url,
        REGISTRY_USERNAME=USERNAME,
        REGISTRY_PASSWORD=PASSWORD,
        POWERTOOLS_SERVICE_NAME="mcp-registry",
        POWERTOOLS_LOG_LEVEL="INFO",
        ROLES=_roles(),
    )
    authorizer, register, list_, detail = (_handler(name) for name in ("authorizer", "register", "list", "detail"))
    # Log lines are made and thrown away.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, _logging_to(nowhere):
        handlers = {
            "/api/registry/register": register,
            "/api/registry/servers": list_,
            "/api/registry/servers/{id}": detail,
        }

        def call(request: Call) -> Answer:
            arn = f"arn:aws:execute-api:eu-west-1:123456789012:abcdef/v1/{request.method}{request.path}"
            asked = {
                "methodArn": arn,
                "multiValueHeaders": {"Authorization": [AUTHORIZATION]},
                "requestContext": {"identity": {"sourceIp": "192.0.2.1"}},
            }
            policy = authorizer(asked, None)
            assert policy["policyDocument"]["Statement"][0]["Effect"] == "Allow"
            event = request.event
            event["requestContext"]["authorizer"] = {"principalId": policy["principalId"], **policy["context"]}
            answer = handlers[request.resource](event, None)
            return Answer(answer["statusCode"], answer["body"])

        from mcp_registry.aws.db import database as warm

        row = warm().read("SELECT pg_backend_pid()")
        assert row is not None
        yield Side(call, row[0])
        warm().close()


def _roles() -> str:
    """Which roles may call which routes, as the template says it."""
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
    return template["Globals"]["Function"]["Environment"]["Variables"]["ROLES"]


@contextmanager
def _logging_to(stream: TextIO) -> Generator[None]:
    from mcp_registry.aws.observability import logger

    handler = logger.registered_handler
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(stream)
    yield
    handler.setStream(before or sys.stdout)


def _handler(function: str) -> Callable[[dict[str, Any], object], dict[str, Any]]:
    """The Lambda handler of a function. Every file is called app.py, so none can be imported by that name."""
    spec = importlib.util.spec_from_file_location(f"bench_{function}", ROOT / "functions" / function / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lambda_handler


@contextmanager
def _baseline(server_url: str) -> Generator[tuple[Side, Side]]:
    """The baseline on one connection: called directly, and through Mangum."""
    url = database(server_url, "requests_baseline")
    execute(url, (ROOT / "benchmarks" / "baseline.sql").read_text(encoding="utf-8"))  # pyright: ignore[reportArgumentType]
    before = os.environ.get("DATABASE_URL", "")
    os.environ.update(DATABASE_URL=url, POOL_SIZE="1")
    from mangum import Mangum

    from benchmarks.baseline import Pool, app

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        asyncio.set_event_loop(loop)  # Mangum asks for the current one
        life = app.router.lifespan_context(app)
        loop.run_until_complete(life.__aenter__())
        os.environ["DATABASE_URL"] = before
        pool: Pool = app.state.pool
        backend = loop.run_until_complete(_backend_of(pool))
        # Its life would otherwise begin and end with each request, and the pool with it.
        mangum = Mangum(app, lifespan="off")

        def directly(request: Call) -> Answer:
            return loop.run_until_complete(_asgi(app, request))

        def through_mangum(request: Call) -> Answer:
            answer: dict[str, Any] = mangum(request.event, None)  # pyright: ignore[reportArgumentType, reportAssignmentType]
            return Answer(answer["statusCode"], answer["body"])

        yield (
            Side(directly, backend),
            Side(through_mangum, backend),
        )
        loop.run_until_complete(life.__aexit__(None, None, None))
        asyncio.set_event_loop(None)


async def _backend_of(pool: Any) -> int:
    async with pool.connection() as connection:
        return connection.info.backend_pid


async def _asgi(app: Callable[..., Coroutine[Any, Any, None]], request: Call) -> Answer:
    """Call an ASGI application as a server would, with nothing in between."""
    path = request.path
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": "&".join(f"{name}={value}" for name, value in request.query.items()).encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in HEADERS.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    body = (request.body or "").encode()
    status, parts = 0, list[bytes]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return Answer(status, b"".join(parts).decode())
