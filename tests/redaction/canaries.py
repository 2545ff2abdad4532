"""Canaries: secrets planted in settings, headers, bodies, queries and errors of the database, and looked for later.

Each canary is a text that nobody else writes. It is looked for as it stands, in base64 and in percent-encoding, in all
that the local run printed at LOG_LEVEL=DEBUG, in each answer with its headers, in what Postgres logged, and in what the
client's command and library print. The only ones that may come back are those that were stored to be read: the
description of a tool.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from local import queues, template
from local.queues import QueueService
from local.runtime import Runtime
from tests.api.transport import Answer, Headers, over_http
from tests.conftest import REGISTER, ROOT, SERVERS, Local, registration
from tests.faults import stage
from tests.proof import Line, at_most

USERNAME = "admin"
JOB = "/api/jobs/health-check"

# The words of lines that have their names: see test_redaction.py.
READY_BLOCK = "redaction: passwords in the ready block of the local run"
LAMBDA_LEVEL = "redaction: secrets in the log of functions at the level that the template sets in Lambda"

# What belongs into no log and no answer besides secrets: SQL, and where the database is. A log names the class of an
# exception and the places that it came through; an answer does not even do that.
INTERNALS = re.compile(rb"\b(?:SELECT|INSERT INTO|UPDATE registry|DELETE FROM)\b|postgres(?:ql)?://|DETAIL:")
INTERNALS_OF_ANSWERS = re.compile(INTERNALS.pattern + rb'|psycopg|Traceback|File "|\.py\b')


class Canaries:
    """The planted texts, with what each is."""

    def __init__(self) -> None:
        self.planted: list[tuple[str, str]] = []

    def plant(self, what: str, value: str | None = None) -> str:
        """A new one; or a given one, as far as it is unlike anything else."""
        canary = value or f"canary{secrets.token_hex(8)}"
        self.planted.append((what, canary))
        return canary

    def found(self, text: bytes, but: Collection[str] = ()) -> list[str]:
        """Which of them stand in a text, in any of their forms; but those whose name begins with one of these."""
        found: list[str] = []
        for what, value in self.planted:
            place = next((text.find(form) for form in _forms(value) if form in text), None)
            if place is not None and not what.startswith(tuple(but)):
                around = text[max(place - 80, 0) : place + 60].decode(errors="replace").replace("\n", " ")
                found.append(f"{what}: ...{around}...")
        return found


def _forms(value: str) -> set[bytes]:
    """A text as it stands, escaped, and in base64 wherever in a longer text it begins."""
    raw = value.encode()
    forms = {raw, quote(value, safe="").encode(), raw.hex().encode()}
    for shift in range(3):
        # What of the encoding depends on this text alone, whatever stands before and after it.
        forms.add(b64encode(b"\0" * shift + raw)[(shift * 4 + 2) // 3 : (shift + len(raw)) * 4 // 3 - 1])
    return {form for form in forms if len(form) >= 8}


def basic(username: str, password: str) -> str:
    """The header of the credentials."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


# ------------------------------------------------------------------ the proof


def prove(scale: int) -> list[Line]:
    """All of it once; in longer runs the requests are sent `scale` times."""
    known = Canaries()
    password = known.plant("REGISTRY_PASSWORD")
    cron = known.plant("CRON_SECRET")
    known.plant("the credentials", basic(USERNAME, password).removeprefix("Basic "))
    environment = {
        "AWS_ACCESS_KEY_ID": known.plant("AWS_ACCESS_KEY_ID"),
        "AWS_SECRET_ACCESS_KEY": known.plant("AWS_SECRET_ACCESS_KEY"),
        "AWS_SESSION_TOKEN": known.plant("AWS_SESSION_TOKEN"),
        "CRON_SECRET": cron,
        "HEALTH_SWEEPS": "on",
        "LOG_LEVEL": "DEBUG",
        "PORT": "0",
        "REGISTRY_USERNAME": USERNAME,
        "REGISTRY_PASSWORD": password,
    }
    answers: list[Answer] = []
    with stage.postgres(durable=False) as server:
        known.plant("the password of DATABASE_URL", str(conninfo_to_dict(server.url)["password"]))
        with tempfile.TemporaryDirectory(prefix="registry-redaction-") as folder:
            local = Local({**environment, "DATABASE_URL": server.url, "DATA_DIR": folder})
            try:
                url = local.wait_until_ready()
                for _ in range(scale):
                    answers += _asked(url, known, basic(USERNAME, password), cron)
                    _ask_badly(url, known)
                    answers += _with_a_broken_database(url, known, basic(USERNAME, password), server.url)
                client = _command(url, known, password) + _library(url, known)
            finally:
                code = local.stop()
        refused = _refused_to_start(known, server.url)
        log = Path(server._beside("log")).read_bytes()
    assert code == 0, "\n".join(local.output[-20:])
    printed, ready = _without_the_ready_block(local.output, url)
    replies = [_whole(answer) for answer in answers]
    stored = {"the description of a tool", "a display name"}  # they may be read again
    echoed = [told for reply in replies for told in known.found(reply, stored)]
    internals = [line for line in printed.splitlines() if INTERNALS.search(line)]
    internals += [reply for reply in replies if INTERNALS_OF_ANSWERS.search(reply)]
    for line in internals[:5]:
        print(f"redaction: internals: {line[:400].decode(errors='replace')}", file=sys.stderr)
    at_lambdas_level, size = _at_lambdas_level(known)
    # Of requests that the database itself refuses it logs what it likes; credentials are in none of that.
    of_requests = {"a body", "a query", "an error"} | stored
    statuses = sorted({answer.status for answer in answers})
    met = {200, 201, 202, 400, 401, 404, 409, 413, 415, 428, 500, 503} <= {*statuses}
    return [
        Line("redaction: kinds of answers provoked", "every documented one", ", ".join(map(str, statuses)), met),
        _line("printed by the local run", known.found(printed), len(printed)),
        _line("sent in answers", echoed, sum(map(len, replies))),
        _line("printed by a local run that does not start", known.found(refused), len(refused)),
        _line("logged by its Postgres", known.found(log, of_requests), len(log)),
        _line("printed by the client's command and library", known.found(client, stored), len(client)),
        at_most("redaction: SQL, drivers and DSNs in logs and answers", 0, len(internals)),
        at_most(READY_BLOCK, 0, len(known.found(ready))),
        at_most(f"{LAMBDA_LEVEL} ({size} bytes)", 0, len(at_lambdas_level)),
    ]


def _line(where: str, found: list[str], size: int) -> Line:
    for told in found[:5]:
        print(f"redaction: {where}: {told}", file=sys.stderr)
    line = at_most(f"redaction: canaries {where}, {size} bytes", 0, len(found))
    return line if size else line._replace(met=False)


def _whole(answer: Answer) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    return headers.encode() + answer.body


def _without_the_ready_block(output: list[str], url: str) -> tuple[bytes, bytes]:
    """What was printed, and apart from it the block that tells a person what to try."""
    first = next(number for number, line in enumerate(output) if line.startswith("MCP Registry ready on"))
    last = max(number for number, line in enumerate(output) if line.endswith(f"{url}{SERVERS}/1"))
    ready = output[first : last + 1]
    return "\n".join(output[:first] + output[last + 1 :]).encode(), "\n".join(ready).encode()


# ------------------------------------------------------------------ requests


def _asked(url: str, known: Canaries, right: str, cron: str) -> list[Answer]:
    """Requests of every kind, each with a canary where somebody could have a secret."""
    send = over_http(url)
    answers: list[Answer] = []

    def ask(method: str, path: str, body: object = b"", *, auth: str | None = right, **headers: str) -> Answer:
        given: Headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
        given += [("authorization", auth)] if auth is not None else []
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if content and "content_type" not in headers:
            given.append(("content-type", "application/json"))
        answers.append(send(method, path, given, content))
        return answers[-1]

    # Credentials that are wrong, in each part and form.
    wrong = known.plant("a wrong password")
    for header in (
        basic(USERNAME, wrong),
        basic(known.plant("a wrong user name"), "password"),
        f"Bearer {known.plant('a bearer token')}",
        f"Basic {known.plant('credentials that are not base64')}",
        f"Digest username={known.plant('a digest')}",
        known.plant("a header without a scheme"),
    ):
        ask("GET", SERVERS, auth=header)
    ask("GET", SERVERS, auth=None)
    for path, headers in ((JOB, {"x_cron_secret": known.plant("a wrong cron secret")}), (JOB, {"x_cron_secret": cron})):
        ask("POST", path, auth=None, **headers)
    # Headers that pass by.
    for name in ("cookie", "x_api_key", "x_forwarded_for", "user_agent", "referer", "x_amz_security_token", "expect"):
        ask("GET", f"{SERVERS}?limit=1", **{name: known.plant(f"the header {name}")})
    ask("PUT", REGISTER, x_registration_digest=known.plant("a digest that is none"))
    ask("PUT", REGISTER, x_registration_digest="0" * 64)
    # Queries.
    for name in ("search", "status", "type", "limit", "cursor", "unknown"):
        ask("GET", f"{SERVERS}?{name}={known.plant(f'a query of {name}')}")
    ask("GET", f"{SERVERS}?search=%ff%fe{known.plant('a query that is not UTF-8')}")
    ask("GET", f"{SERVERS}/1/health?period={known.plant('a query of a period')}")
    ask("GET", f"/api/metrics/health?x={known.plant('a query of metrics')}")
    ask("GET", f"/nowhere?{known.plant('a query of nowhere')}")
    # Bodies.
    name = f"redaction-{secrets.token_hex(6)}"
    tool = {"name": "t", "description": known.plant("the description of a tool"), "input_schema": {}}
    created = ask("POST", REGISTER, registration(name, tools=[tool])).json()
    ask("GET", f"{SERVERS}/{created['id']}")
    ask("PATCH", f"{SERVERS}/{created['id']}", {"status": known.plant("a body with a wrong status")})
    again = registration(name, description=known.plant("a body of a name that is taken"))
    ask("POST", REGISTER, again)
    for what, fields in (
        ("a wrong type", {"server_type": "%s"}),
        ("a wrong URL", {"endpoint_url": "http://user:%s@example.com/"}),
        ("a closed address", {"endpoint_url": "http://10.0.0.1/%s"}),
        ("a wrong link", {"metadata": {"repository_url": "ftp://%s"}}),
        ("an unknown field", {"password": "%s"}),
        ("text for a number", {"tools": "%s"}),
        ("half a character", {"description": "\ud800%s"}),
        ("NUL", {"description": "\0%s"}),
    ):
        canary = known.plant(f"a body with {what}")
        text = json.dumps(registration("redaction-refused", **fields)).replace("%s", canary)
        ask("POST", REGISTER, text.encode())
    canary = known.plant("a body that is not UTF-8").encode()
    for broken in (b'{"name": "%s\xff"}', b'{"name": "%s"', b"%s", b'{"a": NaN, "b": "%s"}', b'{"a": "%s", "a": 1}'):
        ask("POST", REGISTER, broken.replace(b"%s", canary))
    ask("POST", REGISTER, b'"' + known.plant("a body that is too large").encode() * 60_000 + b'"')
    ask("POST", REGISTER, b"{}", content_type=f"text/{known.plant('a media type')}")
    ask("POST", REGISTER, b"{}", content_type="application/json", content_encoding=known.plant("an encoding"))
    ask("DELETE", SERVERS, known.plant("a body that nobody reads").encode())
    return answers


def _ask_badly(url: str, known: Canaries) -> None:
    """What is not HTTP, or hangs up in the middle; the answer, if any, is nobody's concern but the log's."""
    parts = urlsplit(url)
    for head in (
        "GET /health HTTP/1.1\r\nAuthorization Basic %s\r\n\r\n",
        "POST %s HTTP/9.9\r\n\r\n",
        "%s\r\n\r\n",
        "POST /api/registry/register HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n%s",
        "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: %s" + "x" * 70_000 + "\r\n\r\n",
    ):
        with socket.create_connection((str(parts.hostname), parts.port or 80), timeout=10) as connection:
            connection.sendall(head.replace("%s", known.plant(f"bytes that begin {head[:12]!r}")).encode())
            if "1000" not in head:  # that one is cut off
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass


def _with_a_broken_database(url: str, known: Canaries, right: str, database_url: str) -> list[Answer]:
    """Errors of the database, each provoked by a request that holds a canary."""
    send = over_http(url)
    answers: list[Answer] = []

    def ask(method: str, path: str, body: object = None) -> int:
        content = b"" if body is None else json.dumps(body).encode()
        given: Headers = [("authorization", right)]
        given += [("content-type", "application/json")] if content else []
        answers.append(send(method, path, given, content))
        return answers[-1].status

    def register(what: str, **fields: Any) -> int:
        canary = known.plant(f"an error of the database: {what}")
        return ask(
            "PUT", REGISTER, registration(f"redaction-{secrets.token_hex(6)}", **{"description": canary, **fields})
        )

    with psycopg.connect(database_url, autocommit=True) as database:
        # A second server of one display name, a row that breaks a rule, and one that is too large for an index: none
        # can come by itself, so that the answer is what a defect of ours would have.
        twin = known.plant("a display name")
        database.execute("CREATE UNIQUE INDEX redaction_twin ON registry.mcp_servers (display_name)")
        assert register("first", display_name=twin) == 201
        assert register("unique violation", display_name=twin) == 500
        database.execute("DROP INDEX registry.redaction_twin")
        database.execute("ALTER TABLE registry.mcp_servers ADD CONSTRAINT redaction CHECK (version <> 'no') NOT VALID")
        assert register("check violation", version="no") == 500
        database.execute("ALTER TABLE registry.mcp_servers DROP CONSTRAINT redaction")
        database.execute("CREATE INDEX redaction_large ON registry.mcp_servers (description)")
        large = known.plant("an error of the database: too large") + secrets.token_hex(20_000)
        assert register("oversized", description=large) in (500, 503)
        database.execute("DROP INDEX registry.redaction_large")
        # A migration that is half done.
        database.execute("ALTER TABLE registry.mcp_servers RENAME COLUMN version TO redacted")
        assert register("a missing column") == 500
        database.execute("ALTER TABLE registry.mcp_servers RENAME COLUMN redacted TO version")
        # Every connection lost, and none to be had: the password is another one now.
        parts = conninfo_to_dict(database_url)
        user, password = sql.Identifier(str(parts["user"])), sql.Literal(str(parts["password"]))
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        database.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(user, sql.Literal(secrets.token_hex(8))))
        database.execute(others)
        try:
            assert register("wrong password") == 503
            assert ask("GET", f"{SERVERS}?search={known.plant('a query of a database that is away')}") == 503
        finally:
            database.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(user, password))
        assert register("again") == 201
        database.execute(others)
        assert register("disconnected") in (201, 503)
    return answers


def _refused_to_start(known: Canaries, database_url: str) -> bytes:
    """What local runs print that cannot start for their settings."""
    parts = urlsplit(database_url)
    wrong = known.plant("a wrong password of DATABASE_URL")
    printed: list[str] = []
    for setting in (
        {"DATABASE_URL": database_url.replace(str(parts.password), wrong)},
        {"DATABASE_URL": f"postgresql//{known.plant('a DATABASE_URL that is none')}"},
    ):
        unused = known.plant("a password that nobody is asked for")
        local = Local({**setting, "PORT": "0", "LOG_LEVEL": "DEBUG", "REGISTRY_PASSWORD": unused})
        assert local.process.wait(60) == 1
        local.stop()
        printed += local.output
    return "\n".join(printed).encode()


# ------------------------------------------------------------------ the client


def _command(url: str, known: Canaries, password: str) -> bytes:
    """What the command prints when it is given secrets, right ones and wrong ones, and fails at each step."""
    host = url.removeprefix("http://")
    in_url = known.plant("a password in MCP_REGISTRY_URL")
    token = known.plant("a header for a server")
    right = {"MCP_REGISTRY_URL": url, "MCP_REGISTRY_USERNAME": USERNAME, "MCP_REGISTRY_PASSWORD": password}
    wrong = {**right, "MCP_REGISTRY_PASSWORD": known.plant("a client's wrong password")}
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    runs: list[tuple[dict[str, str], list[str]]] = [
        (right, ["list", "--json"]),
        (right, ["show", "nobody-has-this"]),
        (wrong, ["list"]),
        (wrong, ["show", "1", "--json"]),
        ({"MCP_REGISTRY_URL": f"http://{USERNAME}:{in_url}@{host}"}, ["list"]),
        ({**wrong, "MCP_REGISTRY_URL": f"http://{USERNAME}:{in_url}@127.0.0.1:bad"}, ["list"]),
        ({**wrong, "MCP_REGISTRY_URL": nobody}, ["list"]),
        (right, ["list", "--password", known.plant("a password on the command line")]),
        (right, ["register", "--url", f"http://me:{known.plant('a password in a URL')}@127.0.0.1/mcp"]),
        (right, ["register", "--url", f"{nobody}/mcp", "--header", f"Authorization: Bearer {token}"]),
        (right, ["check", "--url", f"{url}/mcp", "--header", f"Authorization: Bearer {token}"]),
        (right, ["check", "--url", f"{url}/mcp", "--header", f"Authorization Bearer {token}", "--json"]),
    ]
    return b"".join(_run(["-m", "mcp_registry_client", *arguments], environment) for environment, arguments in runs)


def _run(program: list[str], environment: dict[str, str]) -> bytes:
    """What a Python prints, on both streams."""
    given = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT / "client" / "src"), **environment}
    done = subprocess.run(
        [sys.executable, *program], env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False
    )
    return done.stdout


# A server that registers itself, with everything that logs at its most talkative, until it was told no.
SERVING = """
import asyncio, logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import uvicorn
from mcp_registry_client import RegistryMiddleware

told = asyncio.Event()

class Told(logging.Handler):
    def emit(self, record):
        loop.call_soon_threadsafe(told.set)

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})

async def main():
    global loop
    loop = asyncio.get_running_loop()
    handler = Told(logging.INFO)
    logging.getLogger("mcp_registry_client").addHandler(handler)
    tools = [{"name": "t", "inputSchema": {}}]
    middle = RegistryMiddleware(app, name="redaction/library", display_name="x", tools=tools)
    server = uvicorn.Server(uvicorn.Config(middle, host="127.0.0.1", port=0, log_level="debug"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    await asyncio.wait_for(told.wait(), 30)
    print(repr(middle.registration), vars(middle.registration).keys(), file=sys.stderr)
    server.should_exit = True
    await serving

asyncio.run(main())
"""


def _library(url: str, known: Canaries) -> bytes:
    """What a server prints that registers itself with a wrong password, with its logging at DEBUG."""
    in_url = known.plant("a password in the URL of a library")
    environment = {
        "MCP_REGISTRY_URL": url.replace("http://", f"http://someone:{in_url}@"),
        "MCP_REGISTRY_USERNAME": USERNAME,
        "MCP_REGISTRY_PASSWORD": known.plant("a library's password"),
        "MCP_ENDPOINT_URL": "http://127.0.0.1:8080/mcp",
    }
    printed = _run(["-c", SERVING], environment)
    assert b"mcp_registry_client" in printed, printed[-2_000:]
    return printed


# ------------------------------------------------------------------ as in Lambda

# The functions in processes as Lambda starts them, the log level of the template among their settings: Lambda hands it
# to the runtime client as AWS_LAMBDA_LOG_LEVEL, which the local run does not play.
CLOUD = """
import asyncio, json, sys
from tests.redaction.canaries import as_in_lambda
asyncio.run(as_in_lambda(json.loads(sys.stdin.read())))
"""


def _at_lambdas_level(known: Canaries) -> tuple[list[str], int]:
    """The secrets that functions print which read one and which send to a queue, and the size of all they print."""
    given = {
        "secret": known.plant("the password in Secrets Manager"),
        "token": known.plant("the session token of a function"),
        "header": known.plant("a password that is tried in Lambda"),
    }
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'layers' / 'registry'}"}
    done = subprocess.run(
        [sys.executable, "-c", CLOUD],
        input=json.dumps(given).encode(),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2_000:]
    found = known.found(done.stdout)
    for told in found[:5]:
        print(f"redaction: at Lambda's level: {told}", file=sys.stderr)
    return found, len(done.stdout)


async def as_in_lambda(given: dict[str, str]) -> None:
    """Let the authorizer read its credentials from Secrets Manager, at the log level that the template sets."""
    import boto3

    service = QueueService()
    url = service.start()
    try:
        credentials = {**queues.CREDENTIALS, "AWS_SESSION_TOKEN": given["token"]}
        client = boto3.client(
            "secretsmanager",
            endpoint_url=url,
            region_name=template.REGION,
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        )
        held = json.dumps({"username": USERNAME, "password": given["secret"]})
        arn = client.create_secret(Name="redaction", SecretString=held)["ARN"]
        names = ("RegistryUsername", "RegistryPassword", "DatabaseUrl", "CronSecret")
        stack = template.load(ROOT / "template.yaml", dict.fromkeys(names, "unused"))
        function = stack.functions["AuthorizerFunction"]
        environment = {**function.environment, "REGISTRY_SECRET_ARN": arn}
        cloud = {**credentials, "AWS_ENDPOINT_URL": url, "AWS_LAMBDA_LOG_LEVEL": level()}
        functions = {"AuthorizerFunction": dataclasses.replace(function, environment=environment)}
        async with Runtime(functions, cloud) as runtime:
            arn = "arn:aws:execute-api:eu-west-1:123456789012:x/v1/GET/api/registry/servers"
            event = {"type": "TOKEN", "methodArn": arn, "authorizationToken": basic(USERNAME, given["secret"])}
            assert await runtime.invoke("AuthorizerFunction", event)
            event["authorizationToken"] = basic(USERNAME, given["header"])
            await asyncio.gather(runtime.invoke("AuthorizerFunction", event), return_exceptions=True)
    finally:
        service.stop()


def level() -> str:
    """The level that the template has Lambda log at, for all functions."""
    text = (ROOT / "template.yaml").read_text(encoding="utf-8")
    levels = set(re.findall(r"ApplicationLogLevel: (\w+)", text))
    assert len(levels) <= 1, levels
    return levels.pop() if levels else "INFO"
