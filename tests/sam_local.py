"""`make test-sam-local`: every route asked and every event invoked by `sam local`, on a machine that has Docker.

    PYTHONPATH=layers/registry python -m tests.sam_local

It starts the embedded Postgres in a temporary folder, where containers reach it, migrates it, starts
`sam local start-api` on a free port, asks every route with credentials, without, and with wrong ones, then runs
`sam local invoke` for every file in events/, says what is not as expected, and stops everything. It takes two to four
minutes, and longer where the runtime's image has to be fetched first. Exit code 1 where something was not as expected.

What has been run and what has not (2026-11-22, SAM CLI 1.170.0): in `make test`, test_sam_local.py of the integration
tests runs `routes` against SAM's own service class with the handlers in process, and `events` with the handlers. No
image of the runtime could be fetched where this was written: the containers, their way to the database, and how
`sam local invoke` prints an answer have not been run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from local import sam
from mcp_registry.aws import db
from mcp_registry.catalogue import servers
from mcp_registry.catalogue.registration import parse
from tests.conftest import ADMIN
from tests.integration.test_events import AUTHORIZER, BACKGROUND, EVENTS, EXPECTED, MIGRATION, QUESTIONS

ROOT = Path(__file__).parent.parent
USERNAME, PASSWORD = "admin", "password"
BASIC = "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
WRONG = "Basic " + b64encode(f"{USERNAME}:wrong".encode()).decode()
READY_WITHIN = 600.0  # seconds; the image of the runtime is fetched first, 300 MB
ANSWERED_WITHIN = 120.0  # seconds; the first request to a function builds an image with its layers

# What `sam local` says where API Gateway has a gateway response: it knows none of ours.
NO_CREDENTIALS = (401, {"message": "Unauthorized"})
WRONG_CREDENTIALS = (
    403,
    {"message": "User is not authorized to access this resource"},
)  # where API Gateway answers 401
NO_ROUTE = (403, {"message": "Missing Authentication Token"})  # where API Gateway answers 404, and 405 to a method

# It has no queues. These send to one, and say so: by 503, or by a failure after which Lambda would try again.
NEED_A_QUEUE = {
    "start-sweep": 503,
    "health-check-now": None,
    "health-check-late": None,
    "health-sweep": None,
    "introduce": None,
    # Nor is there a function to ask, or one that writes what servers offer.
    "server-tools": 404,
    "probe-headers-give": 503,
    "probe-headers-withdraw": 503,
}

DOCUMENT = {
    "name": "sam-local",
    "display_name": "SAM local",
    "server_type": "mock",
    "endpoint_url": "http://localhost:8080",
    "tools": [{"name": "forecast", "description": "Weather", "input_schema": {"type": "object"}}],
}


TRUST = {
    "issuer": "https://token.actions.githubusercontent.com",
    "audience": "https://registry.example.com",
    "claims": {"repository": "octo-org/tools"},
    "team": "tools",
    "role": "publisher",
}


@dataclass(frozen=True)
class Ask:
    """A request to a route, and the status that it is answered with. {id} is the id of the first answer."""

    method: str
    path: str
    status: int
    body: Any = None
    open: bool = False


# In an order in which each finds what it needs. The server is inactive when the sweep starts, which then has nothing
# for the queue that is not there.
ROUTES = [
    Ask("POST", "/api/registry/register", 201, DOCUMENT),
    Ask("PUT", "/api/registry/register", 200, DOCUMENT),
    Ask("GET", "/api/registry/servers", 200),
    Ask("HEAD", "/api/registry/servers", 200),
    Ask("GET", "/api/registry/servers/{id}", 200),
    Ask("HEAD", "/api/registry/servers/{id}", 200),
    Ask("GET", "/api/registry/servers/{id}/changes", 200),
    Ask("HEAD", "/api/registry/servers/{id}/changes", 200),
    # Nothing brings what is declared into the ledger here.
    Ask("GET", "/api/registry/servers/{id}/tools", 404),
    Ask("HEAD", "/api/registry/servers/{id}/tools", 404),
    Ask("PUT", "/api/registry/servers/{id}/policy", 200, {"policy": "manual"}),
    Ask("GET", "/api/registry/servers/{id}/approvals", 200),
    Ask("HEAD", "/api/registry/servers/{id}/approvals", 200),
    Ask("POST", "/api/registry/servers/{id}/approvals", 404, {"digest": "0" * 64, "decision": "approve"}),
    # Nor is there a function to ask.
    Ask("PUT", "/api/registry/servers/{id}/probe-headers", 503, {"headers": {"X-Key": "x"}}),
    Ask("DELETE", "/api/registry/servers/{id}/probe-headers", 503),
    Ask("PATCH", "/api/registry/servers/{id}", 200, {"status": "inactive"}),
    Ask("POST", "/api/registry/servers/{id}/observations", 409),
    Ask("GET", "/api/registry/changes", 200),
    Ask("HEAD", "/api/registry/changes", 200),
    Ask("GET", "/api/registry/servers/{id}/health", 200),
    Ask("HEAD", "/api/registry/servers/{id}/health", 200),
    Ask("GET", "/api/metrics/health", 200),
    Ask("HEAD", "/api/metrics/health", 200),
    Ask("GET", "/api/registry/whoami", 200),
    Ask("HEAD", "/api/registry/whoami", 200),
    Ask("PUT", "/api/registry/teams/{team}", 201, {"contact": "tools@example.com"}),
    Ask("GET", "/api/registry/teams", 200),
    Ask("HEAD", "/api/registry/teams", 200),
    Ask("GET", "/api/registry/teams/{team}", 200),
    Ask("HEAD", "/api/registry/teams/{team}", 200),
    Ask("POST", "/api/registry/servers/{id}/transfer", 200, {"team": "tools"}),
    Ask("POST", "/api/registry/servers/{id}/transfer", 200, {"team": "default"}),
    Ask("PUT", "/api/registry/issuers/{id}", 201, TRUST),
    Ask("GET", "/api/registry/issuers", 200),
    Ask("HEAD", "/api/registry/issuers", 200),
    Ask("GET", "/api/registry/issuers/{id}", 200),
    Ask("HEAD", "/api/registry/issuers/{id}", 200),
    Ask("DELETE", "/api/registry/issuers/{id}", 204),
    Ask("POST", "/api/registry/tokens", 201, {"name": "sam", "team": "tools", "role": "reader"}),
    Ask("GET", "/api/registry/tokens", 200),
    Ask("HEAD", "/api/registry/tokens", 200),
    Ask("GET", "/api/registry/tokens/{id}", 200),
    Ask("HEAD", "/api/registry/tokens/{id}", 200),
    Ask("DELETE", "/api/registry/tokens/{id}", 204),
    Ask("DELETE", "/api/registry/teams/{team}", 204),
    Ask("GET", "/api/registry/audit", 200),
    Ask("HEAD", "/api/registry/audit", 200),
    Ask("POST", "/api/jobs/health-check", 202, open=True),
    Ask("GET", "/health", 200, open=True),
    Ask("HEAD", "/health", 200, open=True),
    Ask("GET", "/", 200, open=True),
    Ask("HEAD", "/", 200, open=True),
    Ask("GET", "/openapi.yaml", 200, open=True),
    Ask("HEAD", "/openapi.yaml", 200, open=True),
    Ask("DELETE", "/api/registry/servers/{id}", 204),
]

MOST_REFUSED = 15

# (method, path, headers, body) -> (status, body)
Send = Callable[[str, str, Mapping[str, str], bytes], tuple[int, bytes]]
# (function, file) -> what it returned, as JSON; an error has errorMessage
Invoke = Callable[[str, Path], Any]


# ------------------------------------------------------------------ what is expected


def routes(send: Send) -> Iterator[str]:
    """Ask every route; yields a line for each answer that is not as expected."""
    ids = {"issuers": "tools-ci"}
    # Wrong credentials are counted, and more than twenty a minute are not looked at: one for each of so many paths.
    refused: set[str] = set()
    for ask in ROUTES:
        kind = ask.path.split("/")[3] if ask.path.startswith("/api/registry/") else ""
        kind = "servers" if kind == "register" else kind
        path = ask.path.replace("{id}", ids.get(kind, "0")).replace("{team}", "tools")
        headers = {"x-cron-secret": "cron"}
        body = b""
        if ask.body is not None:
            headers["content-type"] = "application/json"
            body = json.dumps(ask.body).encode()
        if not ask.open:
            yield from _fault(ask, send(ask.method, path, headers, body), NO_CREDENTIALS)
            if ask.path not in refused and len(refused) < MOST_REFUSED:
                refused.add(ask.path)
                wrong = send(ask.method, path, headers | {"authorization": WRONG}, body)
                yield from _fault(ask, wrong, WRONG_CREDENTIALS)
            headers["authorization"] = BASIC
        status, text = send(ask.method, path, headers, body)
        if status != ask.status:
            yield f"{ask.method} {path}: {status} and not {ask.status}: {text.decode()}"
        elif status == 201 and "id" in (made := json.loads(text)):
            ids[kind] = str(made["id"])
    for method, path in (("GET", "/nothing"), ("DELETE", "/api/registry/servers")):
        yield from _fault(Ask(method, path, 0), send(method, path, {"authorization": BASIC}, b""), NO_ROUTE)


def events(invoke: Invoke, database_url: str) -> Iterator[str]:
    """Invoke a function with every event; yields a line for each answer that is not as expected.

    What the events say of server 1 is true before each of them: it is registered.
    """
    for name, function, status in EXPECTED:
        _begin(database_url)
        answer = invoke(function, EVENTS / f"{name}.json")
        wanted = NEED_A_QUEUE.get(name, status)
        if not isinstance(answer, dict) or answer.get("statusCode") != wanted:
            yield f"{name}: not {wanted}: {answer}"
    for name, function, outcomes in BACKGROUND:
        _begin(database_url)
        answer = invoke(function, EVENTS / f"{name}.json")
        if not _is_dealt_with(answer, outcomes, fails=name in NEED_A_QUEUE):
            yield f"{name}: {answer}"
    for name in AUTHORIZER:
        answer = invoke("AuthorizerFunction", EVENTS / f"{name}.json")
        wanted = "Allow" if name == "authorizer-allow" else "Deny"
        if [statement["Effect"] for statement in answer["policyDocument"]["Statement"]] != [wanted]:
            yield f"{name}: {answer}"
    for name, wanted in QUESTIONS.items():
        if (answer := invoke("IdentifyFunction", EVENTS / f"{name}.json")) != wanted:
            yield f"{name}: {answer}"
    if (answer := invoke("MigrateFunction", EVENTS / f"{MIGRATION}.json")) is not None:
        yield f"{MIGRATION}: {answer}"


def _fault(ask: Ask, answer: tuple[int, bytes], wanted: tuple[int, Any]) -> Iterator[str]:
    status, body = answer
    if status != wanted[0] or (body and json.loads(body)) != (b"" if ask.method == "HEAD" else wanted[1]):
        yield f"{ask.method} {ask.path}: {status} {body.decode()} and not {wanted[0]} {json.dumps(wanted[1])}"


def _is_dealt_with(answer: Any, outcomes: list[str] | None, *, fails: bool) -> bool:
    if fails:
        return isinstance(answer, dict) and ("errorMessage" in answer or answer.get("batchItemFailures") != [])
    if outcomes is None:
        return set(answer) == {"added", "folded", "dropped", "deleted"}
    if isinstance(answer, dict):
        return answer == {"batchItemFailures": outcomes}
    return [sweep["result"] for sweep in answer] == outcomes


def _begin(database_url: str) -> None:
    """A catalogue whose one server has the id 1."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM registry.mcp_servers")
        connection.execute("DELETE FROM registry.held_names")
        connection.execute("DELETE FROM metrics.sweeps")
        connection.execute("ALTER TABLE registry.mcp_servers ALTER COLUMN id RESTART WITH 1")
        connection.execute("SELECT metrics.add_days('2026-11-22', '2026-11-22')")  # the day of the events
    database = db.Database(database_url)
    servers.register(database, ADMIN, parse({**DOCUMENT, "name": "first"}))
    database.close()


# ------------------------------------------------------------------ sam local


@contextlib.contextmanager
def start_api(values: Mapping[str, str]) -> Generator[Send]:
    """`sam local start-api` on a free port of loopback, for as long as it is needed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["start-api", "--port", str(port), "--warm-containers", "LAZY"]
    with sam.command(arguments, values) as (words, environment):
        process = subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True)
        try:
            _wait_for(port, process)
            yield lambda method, path, headers, body: _send(port, method, path, headers, body)
        finally:
            process.send_signal(signal.SIGINT)  # it removes its containers
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise sam.SamError(f"sam local start-api ended with exit code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise sam.SamError(f"sam local start-api did not listen within {READY_WITHIN:.0f} s")


def _send(port: int, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERED_WITHIN)
    try:
        connection.request(method, path, body or None, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def invoker(values: Mapping[str, str]) -> Invoke:
    """Runs `sam local invoke`, which prints the answer as the last line of its output."""

    def invoke(function: str, event: Path) -> Any:
        with sam.command(["invoke", function, "--event", str(event)], values) as (words, environment):
            done = subprocess.run(
                words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=READY_WITHIN, check=False
            )
        try:
            return json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return {"no answer": (done.stdout + done.stderr)[-2000:]}

    return invoke


def main() -> int:
    """Run all of it; returns the exit code."""
    try:
        sam.require_docker()
        with tempfile.TemporaryDirectory() as folder, sam.database(None, Path(folder)) as url:
            values = sam.variables(url, USERNAME, PASSWORD)
            with start_api(values) as send:
                faults = list(routes(send))
            faults += events(invoker(values), url)
    except sam.SamError as error:
        print(error, file=sys.stderr)
        return 1
    for fault in faults:
        print(fault, file=sys.stderr)
    asked = len(EXPECTED) + len(BACKGROUND) + len(AUTHORIZER) + len(QUESTIONS) + 1
    print(f"sam local: {len(ROUTES)} routes and {asked} events, {len(faults)} answers not as expected")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
