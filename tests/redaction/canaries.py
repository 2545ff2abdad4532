"""Canaries: secrets planted in settings, headers, bodies, queries and errors of the database, and looked for later.

Each canary is a text that nobody else writes; the role and the database have such names too. It is looked for as it
stands, in base64 and in percent-encoding, in all that the local run printed at LOG_LEVEL=DEBUG, in all that the
functions print as Lambda starts them, in each answer with its headers, in what Postgres logged, and in what the
client's command and library print. The only ones that may come back are those that were stored to be read, such as the
description of a tool. Besides, each line of a log has to be one of those that we write, field by field.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from mcp_registry.access import tokens
from tests import issuer
from tests.api.transport import Answer, Headers, over_http
from tests.conftest import REGISTER, ROOT, SERVERS, Local, registration
from tests.faults import stage
from tests.proof import FAR, Line, some
from tests.redaction import cloud, search
from tests.redaction.search import Canaries, basic

USERNAME = "admin"
JOB = "/api/jobs/health-check"

# The words of a line that has its name: see test_redaction.py.
READY_BLOCK = "redaction: passwords in the ready block of the local run"
# Of the document, but the one that is API Gateway's alone.
STATUSES = {200, 201, 202, 204, 400, 401, 404, 405, 409, 413, 415, 428, 500, 503}
# What was stored may be read again.
STORED = {"the description of a tool", "a display name", "a server's URL"}
# The evidence for a verdict is what the server said, and is told as that; it is never logged.
EVIDENCE = {*STORED, "the word of a hostile server"}
# What the local run itself says: besides its end, that a queue's or a schedule's function has failed.
OF_THE_LOCAL_RUN = re.compile(
    r"Stopped\.|\w+Function failed (?:when \w+ was due|with \d+ of \d+ messages of \w+)(?:: JobFailed:)?"
)


# ------------------------------------------------------------------ the proof


def prove(scale: int) -> list[Line]:
    """All of it once; in longer runs the requests are sent `scale` times, up to FAR."""
    scale = min(scale, FAR)
    known = Canaries()
    password = known.plant("REGISTRY_PASSWORD")
    cron = known.plant("CRON_SECRET")
    known.plant("the credentials", basic(USERNAME, password).removeprefix("Basic "))
    environment = {
        # Of the person who starts it; the functions have others (cloud.measured).
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
        database_url = _database(server.url, known)
        with tempfile.TemporaryDirectory(prefix="registry-redaction-") as folder:
            local = Local({**environment, "DATABASE_URL": database_url, "DATA_DIR": folder})
            try:
                url = local.wait_until_ready()
                answers += _by_tokens(url, known, basic(USERNAME, password), database_url)
                for _ in range(scale):
                    answers += _asked(url, known, basic(USERNAME, password), cron)
                    _ask_badly(url, known)
                    answers += _with_a_broken_database(url, known, basic(USERNAME, password), database_url)
                client = _command(url, known, password) + _library(url, known)
            finally:
                code = local.stop()
        refused = _refused_to_start(known, database_url)
        functions = cloud.measured(known, database_url)
        log = Path(server._beside("log")).read_bytes()
    assert code == 0, "\n".join(local.output[-20:])
    printed, ready = _without_the_ready_block(local.output, url)
    replies = [(answer.status, dict(answer.headers), answer.body.decode()) for answer in answers] + functions.answers
    told = [search.told(status, headers, body.encode(), basic(USERNAME, password)) for status, headers, body in replies]
    logged = functions.printed.decode().splitlines()
    ours = (search.OF_A_REQUEST, search.OF_A_SERVER, OF_THE_LOCAL_RUN)
    strange = search.strange(printed, *ours) + search.strange(logged)
    # Of requests that the database itself refuses it logs what it likes; credentials are in none of that.
    of_requests = {"a body", "a query", "an error", "a message", "the role", "the database", *STORED}
    statuses = sorted({status for status, _, _ in replies})
    whole = json.dumps(replies).encode()
    return [
        Line(
            "redaction: kinds of answers provoked",
            "each but 429",
            ", ".join(map(str, statuses)),
            {*statuses} >= STATUSES,
        ),
        _line("printed by the local run", "\n".join(printed).encode(), known),
        _line("printed by functions as in Lambda", functions.printed, known),
        _line("sent in answers", whole, known, EVIDENCE),
        _line("found of a hostile server", functions.findings.encode(), known, EVIDENCE),
        _line("sent to a hostile server", functions.sent.encode(), known, STORED),
        # At the terminal of the person who gave them, names are told, and never a password.
        _line("printed by a local run that does not start", refused, known, {"the role", "the database's name"}),
        _line("logged by its Postgres", log, known, of_requests),
        _line("printed by the client's command and library", client, known, STORED),
        _none("redaction: SQL, drivers, DSNs and stacks in answers", filter(None, told)),
        _none("redaction: lines in logs that are none of ours, field by field", strange),
        _none(READY_BLOCK, known.found(ready, {"the database's name"})),
    ]


def _database(url: str, known: Canaries) -> str:
    """The URL of a new database whose name, owner and password are canaries."""
    name, user = known.plant("the database's name"), known.plant("the role")
    password = known.plant("the password of DATABASE_URL")
    known.plant("the password of the Postgres", str(conninfo_to_dict(url)["password"]))
    with psycopg.connect(url, autocommit=True) as database:
        role = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}")
        database.execute(role.format(sql.Identifier(user), sql.Literal(password)))
        database.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(user)))
    parts = urlsplit(url)
    return f"postgresql://{user}:{password}@{parts.hostname}:{parts.port}/{name}"


def _none(what: str, found: Iterable[str]) -> Line:
    """A line for what is not to be found; what is found is told on stderr, whole, and in the figure, shortly."""
    wrong = list(found)
    for each in wrong[:5]:
        print(f"{what}: {each[:400]}", file=sys.stderr)
    return Line(what, "0", f"{len(wrong)}{some([each[:40] for each in wrong], 1)}", not wrong)


def _line(where: str, text: bytes, known: Canaries, but: Collection[str] = ()) -> Line:
    line = _none(f"redaction: canaries {where}", known.found(text, but))
    return line._replace(figure=f"{line.figure} in {len(text)} bytes", met=text != b"") if line.met else line


def _without_the_ready_block(output: list[str], url: str) -> tuple[list[str], bytes]:
    """What was printed, and apart from it the block that tells a person what to try."""
    first = next(number for number, line in enumerate(output) if line.startswith("MCP Registry ready on"))
    last = max(number for number, line in enumerate(output) if line.endswith(f"{url}{SERVERS}/1"))
    return output[:first] + output[last + 1 :], "\n".join(output[first : last + 1]).encode()


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
    ask("PUT", REGISTER, x_registration_lease=known.plant("a lease that is none"))
    # Queries.
    for name in ("search", "status", "type", "limit", "cursor", "unknown"):
        ask("GET", f"{SERVERS}?{name}={known.plant(f'a query of {name}')}")
    ask("GET", f"{SERVERS}?search=%ff%fe{known.plant('a query that is not UTF-8')}")
    ask("GET", f"{SERVERS}/1/health?period={known.plant('a query of a period')}")
    ask("DELETE", f"{SERVERS}/1?hold={known.plant('a query of a hold')}")
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
    # Headers for a server that asks for credentials: kept, refused, and where they were sent to the wrong place.
    place = f"{SERVERS}/{created['id']}/probe-headers"
    kept = {
        "Authorization": f"Bearer {known.plant('a probe header')}",
        "X-Api-Key": known.plant("another probe header"),
    }
    assert ask("PUT", place, {"headers": kept}).status == 204
    for given in (
        {"X-Key": known.plant("a probe header of two lines") + "\r\nX: y"},
        {"Host": known.plant("a probe header that is ours")},
        {known.plant("a probe header in the place of its name") + " ": "x"},
        known.plant("probe headers that are none"),
    ):
        assert ask("PUT", place, {"headers": given}).status == 400
    assert ask("DELETE", place).status == 204
    return answers


def _by_tokens(url: str, known: Canaries, right: str, database_url: str) -> list[Answer]:
    """Requests of who has a token, right or wrong, and of who was wrong too often to be looked at."""
    send = over_http(url, "127.0.0.1")
    answers: list[Answer] = []

    def ask(auth: str, status: int, path: str = SERVERS) -> None:
        answers.append(send("GET", path, [("authorization", auth)], b""))
        assert answers[-1].status == status, answers[-1]

    def token(what: str) -> str:
        made = tokens.make()
        known.plant(f"the digest of {what}", tokens.digest(made.text).hex())
        with psycopg.connect(database_url, autocommit=True) as database:
            database.execute(
                "INSERT INTO registry.tokens (id, digest, name, team, role, created_by, expires_at)"
                " VALUES (%s, %s, 'x', 'default', 'reader', 'x', now() + interval '1 day')",
                [made.id, tokens.digest(made.text)],
            )
        return known.plant(what, made.text)

    ask(right, 200)  # so that it goes on being looked at
    held = token("a token")
    ask(f"Bearer {held}", 200)
    ask(basic("whoever", held), 200)
    ask(f"Bearer {held}", 400, f"{SERVERS}?token={held}")
    ask(f"Bearer {known.plant('an unknown token', tokens.make().text)}", 401)
    ask(f"Bearer {known.plant('a token that was cut', tokens.make().text[:-1])}", 401)
    ask(f"Bearer {'.'.join([known.plant('a token of an issuer')] * 3)}", 401)
    other = token("a token that nobody can look up")
    with psycopg.connect(database_url, autocommit=True) as database, cloud.locked_out(database, database_url):
        ask(f"Bearer {other}", 500)
    with issuer.Server() as played:
        trusted = played.issuer("redaction", issuer.Key.of("ES256", 50))
        away = played.issuer("away", issuer.Key.of("ES256", 51))
        away.is_away = True
        with psycopg.connect(database_url, autocommit=True) as database:
            for each in (trusted, away):
                database.execute(
                    "INSERT INTO registry.issuers (id, issuer, audience, claims, team, role)"
                    " VALUES (%s, %s, 'x', '{\"sub\": \"x\"}', 'default', 'reader')",
                    [f"redaction-{secrets.token_hex(4)}", each.url],
                )
        now = time.time()
        for by, changes, status in (
            (trusted, {}, 200),
            # Two minutes between the clocks, either way.
            (trusted, {"exp": now - 120}, 401),
            (trusted, {"iat": now + 120}, 401),
            (trusted, {"sub": known.plant("the subject of a refused token")}, 401),
            (away, {}, 500),
        ):
            signed = by.sign({"aud": "x", "sub": "x", "exp": now + 300, **changes})
            for part in signed.split(".")[1:]:
                known.plant(f"a part of a token of an issuer ({status})", part)
            ask(f"Bearer {signed}", status)
    for number in range(25):
        ask(basic(USERNAME, known.plant(f"wrong password {number}")), 401)
    return answers


def _ask_badly(url: str, known: Canaries) -> None:
    """What is not HTTP, or hangs up in the middle; the answer, if any, is nobody's concern but the log's."""
    parts = urlsplit(url)
    for head in (
        "GET /health HTTP/1.1\r\nAuthorization Basic %s\r\n\r\n",
        "POST %s HTTP/9.9\r\n\r\n",
        "%s\r\n\r\n",
        "POST /api/registry/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n%s",
        "GET /health HTTP/1.1\r\nHost: %s\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: %s" + "x" * 9_000 + "\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: %s" + "x" * 70_000 + "\r\n\r\n",
    ):
        with socket.create_connection((str(parts.hostname), parts.port or 80), timeout=10) as connection:
            connection.sendall(head.replace("%s", known.plant(f"bytes that begin {head[:12]!r}")).encode())
            if "1000" not in head:  # that one is cut off
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):  # what is too long is not read to its end
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
        name = fields.pop("name", f"redaction-{secrets.token_hex(6)}")
        return ask("PUT", REGISTER, registration(name, **{"description": canary, **fields}))

    with psycopg.connect(database_url, autocommit=True) as database:
        # A second server of one display name, a row that breaks a rule, and one that is too large for an index: none
        # can come by itself, so that the answer is what a defect of ours would have.
        twin = known.plant("a display name")
        database.execute("CREATE UNIQUE INDEX redaction_twin ON registry.mcp_servers (display_name)")
        assert register("first", display_name=twin) == 201
        # Of a new server the statement itself passes over what is not unique, so this one is there already.
        second = f"redaction-{secrets.token_hex(6)}"
        assert register("second", name=second) == 201
        assert register("unique violation", name=second, display_name=twin) == 500
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
        with cloud.locked_out(database, database_url):
            assert register("wrong password") == 503
            assert ask("GET", f"{SERVERS}?search={known.plant('a query of a database that is away')}") == 503
        assert register("again") == 201
        database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
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
    made = tokens.make().text
    held = {"MCP_REGISTRY_URL": url, "MCP_REGISTRY_TOKEN": known.plant("a token of the client's", made)}
    cut = {**held, "MCP_REGISTRY_TOKEN": known.plant("a client's token that was cut", made[:-3])}
    jwt = {**held, "MCP_REGISTRY_TOKEN": ".".join([known.plant("a client's token of an issuer")] * 3)}
    for environment in (held, cut, jwt):
        runs += [(environment, ["whoami"]), (environment, ["list"]), (environment, ["tokens", "list", "--json"])]
    printed = b"".join(_run(["-m", "mcp_registry_client", *arguments], environment) for environment, arguments in runs)
    assert b"mcpr_" not in printed
    return printed


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
    token = {"MCP_REGISTRY_URL": url, "MCP_ENDPOINT_URL": environment["MCP_ENDPOINT_URL"]}
    token["MCP_REGISTRY_TOKEN"] = known.plant("a library's token", tokens.make().text)
    printed = [_run(["-c", SERVING], given) for given in (environment, token)]
    with issuer.Server() as aws:
        role = aws.role("redaction")
        secret = known.plant("the secret of a role")
        session = known.plant("the session of a role")
        key = role._replace(secret_access_key=secret, session_token=session)
        aws.roles[role.access_key_id] = key
        # Nobody trusts the issuer, so that the token which STS signs is refused.
        on_aws = {"AWS_LAMBDA_FUNCTION_NAME": "x", "AWS_REGION": issuer.REGION, "AWS_ENDPOINT_URL_STS": aws.url}
        printed.append(_run(["-c", SERVING], {**environment, **on_aws, **key.environment}))
    for each in printed:
        assert b"mcp_registry_client" in each, each[-2_000:]
    whole = b"".join(printed)
    assert b"eyJ" not in whole, "a JSON Web Token begins so, and one was signed"
    return whole
