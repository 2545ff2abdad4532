"""All functions as Lambda starts them, working and failing, with secrets wherever one can be: `measured`.

They run in processes of AWS's runtime client. Lambda hands it the log level as AWS_LAMBDA_LOG_LEVEL, which the local
run does not play; here it is the lowest that may be chosen. Who invokes them is a process too, so that all that they
print is in one pipe.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from local import queues, template
from local.gateway import FunctionError, Gateway, HttpRequest
from local.queues import QueueService
from local.run import LOOPBACK
from local.runtime import Runtime
from tests.conftest import REGISTER, ROOT, SERVERS, registration
from tests.hostile import Farm, Visit
from tests.redaction import search
from tests.redaction.search import basic

USERNAME = "admin"
# Each is a function that fails where nobody waits for an answer, with a column that it cannot do without.
COLUMNS = {
    "HealthCheckFunction": ("metrics", "sweeps", "claimed_at"),
    "HealthWriteFunction": ("registry", "endpoint_health", "up_at"),
    "RememberFunction": ("registry", "endpoints", "moved_at"),
    "MaintainFunction": ("metrics", "folded_days", "day"),
}
# How a hostile server answers.
MODES = ("wrong", "away", "strange", "right")
MALFORMED = (
    *("HealthCheckFunction", "HealthSweepFunction", "HealthWriteFunction"),
    *("IntroduceFunction", "RememberFunction"),
)


@dataclasses.dataclass
class Measured:
    """What came of it: all that the functions printed, answered, found of a hostile server, and sent to it."""

    printed: bytes
    answers: list[tuple[int, dict[str, str], str]]
    findings: str
    sent: str


def measured(known: search.Canaries, database_url: str) -> Measured:
    """Have all functions work and fail on a migrated database whose user is a superuser."""
    given = {
        "DATABASE_URL": database_url,
        "AWS_ACCESS_KEY_ID": known.plant("a function's AWS_ACCESS_KEY_ID"),
        "AWS_SECRET_ACCESS_KEY": known.plant("a function's AWS_SECRET_ACCESS_KEY"),
        "AWS_SESSION_TOKEN": known.plant("a function's AWS_SESSION_TOKEN"),
        "cron": known.plant("a function's CRON_SECRET"),
        "header": known.plant("a password that is tried in Lambda"),
        "message": known.plant("a message that is none"),
        "remote": known.plant("the word of a hostile server"),
        "secret": known.plant("the password in Secrets Manager"),
        "stored": known.plant("a server's URL"),
    }
    known.plant("the credentials in Lambda", basic(USERNAME, given["secret"]).removeprefix("Basic "))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'layers' / 'registry'}",
        queues.KEY: given["AWS_ACCESS_KEY_ID"],  # by which the queues know the functions
    }
    with tempfile.NamedTemporaryFile(prefix="registry-redaction-") as file:
        done = subprocess.run(
            [sys.executable, "-m", "tests.redaction.cloud", file.name],
            input=json.dumps(given).encode(),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2_000:].decode(errors="replace")
        told = json.load(file)
    return Measured(done.stdout, told["answers"], told["findings"], told["sent"])


# ------------------------------------------------------------------ the process


class Cloud:
    """The functions, and what came of them."""

    def __init__(self, given: dict[str, str], url: str) -> None:
        """`url` is that of a queue service."""
        self.given = given
        self.answers: list[tuple[int, dict[str, str], str]] = []
        parameters = {
            "CronSecret": given["cron"],
            "DatabaseUrl": given["DATABASE_URL"],
            "OpenCidrs": LOOPBACK,
            "RegistryPassword": "unused",
            "RegistryUsername": USERNAME,
        }
        self.stack = template.load(ROOT / "template.yaml", parameters)
        authorizer = self.stack.functions["AuthorizerFunction"]
        own = {**authorizer.environment, "REGISTRY_SECRET_ARN": self._secret(url)}
        functions = {**self.stack.functions, "AuthorizerFunction": dataclasses.replace(authorizer, environment=own)}
        self.sqs = queues.connect(url)
        queues.create(self.sqs, self.stack.queues)
        credentials = {name: value for name, value in given.items() if name.startswith("AWS_")}
        self.runtime = Runtime(functions, {**credentials, "AWS_ENDPOINT_URL": url, "AWS_LAMBDA_LOG_LEVEL": "DEBUG"})
        self._gateway = Gateway(self.stack.api, self.runtime.invoke)

    def _secret(self, url: str) -> str:
        """The ARN of the credentials in Secrets Manager."""
        import boto3

        client = boto3.client(
            "secretsmanager",
            endpoint_url=url,
            region_name=template.REGION,
            aws_access_key_id=queues.CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=queues.CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        held = json.dumps({"username": USERNAME, "password": self.given["secret"]})
        return client.create_secret(Name="redaction", SecretString=held)["ARN"]

    async def ask(self, method: str, path: str, body: object = None, password: str | None = None) -> Any:
        """Send a request, keep the answer, and return what its JSON holds."""
        headers = [("authorization", basic(USERNAME, password or self.given["secret"]))]
        headers += [("content-type", "application/json")] if body is not None else []
        headers += [("x-cron-secret", self.given["cron"])] if path.startswith("/api/jobs") else []
        content = b"" if body is None else json.dumps(body).encode()
        response = await self._gateway.handle(HttpRequest(method, path, headers=tuple(headers), body=content))
        self.answers.append((response.status, dict(response.headers), response.body.decode()))
        return json.loads(response.body) if response.body else None

    async def message(self, function: str, body: str) -> bool:
        """Hand over one message; whether it is dealt with."""
        now = str(int(time.time() * 1000))
        attributes = {"SentTimestamp": now, "ApproximateFirstReceiveTimestamp": now, "ApproximateReceiveCount": "1"}
        record = {"messageId": str(uuid.uuid4()), "body": body, "attributes": attributes}
        answer: Any = await self.runtime.invoke(function, {"Records": [record]})
        return not answer["batchItemFailures"]

    async def fails(self, function: str) -> bool:
        """Whether a function that nobody waits for fails at its usual work."""
        if function == "HealthWriteFunction":
            finding = [1, "healthy", 200, 5, None, 0]
            return not await self.message(function, json.dumps({"slot": _now(), "shard": 0, "findings": [finding]}))
        if function == "RememberFunction":
            introduced = [{"finding": [1, "healthy", 200, 5, None, 0, 1]}]
            return not await self.message(function, json.dumps({"asked_at": _now(), "introduced": introduced}))
        try:
            await self.runtime.invoke(function, {"time": _now()})
        except FunctionError as error:
            return error.error_type == "JobFailed"
        return False

    def received(self, function: str, variable: str) -> str:
        """What a function has sent to the queue that this variable names."""
        queue = self.stack.functions[function].environment[variable]
        (message,) = self.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get("Messages", [])
        return message.get("Body", "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _hostile(word: str) -> Any:
    """The manner of a server that puts its word wherever one may stand."""

    async def manner(visit: Visit) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": word}}).encode()
        status = {"wrong": f"503 {word}", "away": f"307 {word}", "strange": f"{word} {word}"}.get(visit.mode, "200 OK")
        host = visit.headers.get("host", "")
        head = f"HTTP/1.1 {status}\r\nLocation: http://{word}:{word}@{host}/{word}\r\nX-{word}: {word}\r\n"
        head += f"Set-Cookie: {word}\r\nContent-Type: application/{word}\r\nContent-Length: {len(body)}\r\n\r\n"
        await visit.send(head.encode() + body)

    return manner


async def _work(cloud: Cloud, farm: Farm) -> str:
    """Each function does its work once; what the probes found of a hostile server is returned."""
    word, stored = cloud.given["remote"], cloud.given["stored"]
    await cloud.ask("GET", "/health")
    await cloud.ask("GET", SERVERS, password=cloud.given["header"])
    servers: list[tuple[int, str]] = []
    for mode in MODES:
        url = f"{farm.url}/{mode}/{stored}"
        created = await cloud.ask("POST", REGISTER, registration(f"cloud-{mode}", endpoint_url=url))
        servers.append((created["id"], url))
    ids = [id_ for id_, _ in servers]
    await asyncio.gather(
        cloud.ask("GET", SERVERS),
        cloud.ask("PATCH", f"{SERVERS}/{ids[-1]}", {"status": word}),
        cloud.ask("GET", "/api/metrics/health"),
        cloud.ask("POST", "/api/jobs/health-check"),
        cloud.runtime.invoke("HealthCheckFunction", {"time": _now()}),
        cloud.runtime.invoke("MaintainFunction", {"time": _now()}),
    )
    with psycopg.connect(cloud.given["DATABASE_URL"], autocommit=True) as database:
        of_server = dict(database.execute("SELECT server_id, id FROM registry.endpoints").fetchall())
    visits = [(id_, of_server[id_], url, None, None, None) for id_, url in servers]
    assert await cloud.message("IntroduceFunction", json.dumps({"asked_at": _now(), "endpoints": visits}))
    introduced = cloud.received("IntroduceFunction", "INTRODUCED_QUEUE_URL")
    assert len(json.loads(introduced)["introduced"]) == len(servers), introduced
    assert await cloud.message("RememberFunction", introduced)
    endpoints = [(id_, of_server[id_], url, None, None, None, None) for id_, url in servers]
    assert await cloud.message("HealthSweepFunction", json.dumps({"slot": _now(), "shard": 0, "endpoints": endpoints}))
    findings = cloud.received("HealthSweepFunction", "RESULT_QUEUE_URL")
    assert len(json.loads(findings)["findings"]) == len(servers), findings
    assert await cloud.message("HealthWriteFunction", findings)
    await asyncio.gather(*(cloud.ask("GET", f"{SERVERS}/{id_}") for id_ in ids))
    await asyncio.gather(*(cloud.ask("GET", f"{SERVERS}/{id_}/health") for id_ in ids))
    await cloud.ask("DELETE", f"{SERVERS}/{ids[0]}")
    return introduced + findings


async def _fail(cloud: Cloud) -> None:
    """Each function that nobody waits for fails, at a message and at the database."""
    message = cloud.given["message"]
    for body in (message, json.dumps({"slot": message}), json.dumps({message: message}), f'{{"{message}'):
        dealt_with = await asyncio.gather(*(cloud.message(function, body) for function in MALFORMED))
        assert dealt_with == [False] * len(MALFORMED), dealt_with
    url = cloud.given["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as database:
        for function, (schema, table, column) in COLUMNS.items():
            with _renamed(database, sql.Identifier(schema, table), column, message):
                assert await cloud.fails(function), function
        with locked_out(database, url):
            failed = await asyncio.gather(*map(cloud.fails, COLUMNS))
            assert failed == [True] * len(COLUMNS), failed
            await cloud.ask("GET", SERVERS)
            await cloud.ask("POST", REGISTER, registration("cloud-away", description=message))


@contextmanager
def _renamed(database: psycopg.Connection[Any], table: sql.Identifier, column: str, other: str) -> Generator[None]:
    """A migration that is half done: a column has another name."""
    for first, second in ((column, other), (other, column)):
        rename = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}")
        database.execute(rename.format(table, sql.Identifier(first), sql.Identifier(second)))
        if first == column:
            yield


@contextmanager
def locked_out(database: psycopg.Connection[Any], url: str) -> Generator[None]:
    """Every connection but this one is lost, and none to be had: the password is another one."""
    parts = conninfo_to_dict(url)
    alter = sql.SQL("ALTER ROLE {} PASSWORD {}")
    user = sql.Identifier(str(parts["user"]))
    database.execute(alter.format(user, sql.Literal(uuid.uuid4().hex)))
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    try:
        yield
    finally:
        database.execute(alter.format(user, sql.Literal(str(parts["password"]))))


async def _main(given: dict[str, str], url: str) -> dict[str, object]:
    cloud = Cloud(given, url)
    with Farm(_hostile(given["remote"])) as farm:
        async with cloud.runtime:
            findings = await _work(cloud, farm)
            await _fail(cloud)
        asked = {visit.mode for visit in farm.visits}
        assert {*MODES} <= asked, asked
        sent = "\n".join(f"{v.method} {v.path} {v.headers} {v.body!r}" for v in farm.visits)
    return {"answers": cloud.answers, "findings": findings, "sent": sent}


def main() -> None:
    """Play everything; the secrets come by standard input, and what came of it goes into the file that is named."""
    given: dict[str, str] = json.load(sys.stdin)
    service = QueueService()
    try:
        told = asyncio.run(_main(given, service.start()))
    finally:
        service.stop()
    Path(sys.argv[1]).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
