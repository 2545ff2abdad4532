"""The local run from its first check to "Stopped."; see main().

What a user can put right ends the run with one line on stderr and exit code 1.
"""

import asyncio
import contextlib
import importlib.util
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError
from psycopg.conninfo import conninfo_to_dict

from local import checks, queues, server, template
from local.gateway import MAX_BODY, Gateway, HttpRequest, HttpResponse
from local.loopback import HOST, INNER
from local.postgres import Postgres, PostgresError
from local.queues import QueueService
from local.runtime import Runtime
from local.schedule import Schedules
from local.settings import DEFAULT_PASSWORD, LOG_LEVELS, Settings, StartError
from local.sources import CONCURRENCY, Sources, aside, one_line
from local.terminal import Terminal, say

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "template.yaml"
OLDEST_POSTGRES = 15
WRITERS = ("HealthWriteFunction", "RememberFunction")
# Servers on this machine may be registered and checked, which a deployment refuses.
LOOPBACK = "127.0.0.0/8,::1/128"

# What this machine calls itself. A page whose name leads here (DNS rebinding) would be of our origin to a browser, and
# could do with the catalogue what the user of the browser can.
NAMES = ("localhost", "127.0.0.1", "[::1]")
_MISDIRECTED = HttpResponse(
    421,
    (("Content-Type", "application/json"),),
    b'{"error":"This registry does not answer to that name: REGISTRY_HOSTS can add it","code":"VALIDATION_ERROR"}',
)

# In lines that fit into a terminal of 80 columns, as everything that the ready message says.
EXAMPLE = """\
{"name": "test-server", "display_name": "Test Server",
       "description": "A test MCP server", "server_type": "mock",
       "endpoint_url": "http://localhost:8080", "version": "1.0.0",
       "tools": [{"name": "test_tool", "description": "A test tool",
         "input_schema": {"type": "object"}, "category": "testing"}]}"""

MAY_CREATE = """
SELECT has_database_privilege(current_database(), 'CREATE')
       OR (to_regnamespace('registry') IS NOT NULL AND has_schema_privilege(to_regnamespace('registry'), 'USAGE'))
"""


# Whether this user may be each of the roles of sql/roles.sql.
MAY_TAKE_ROLES = """
SELECT bool_and(COALESCE(pg_has_role(to_regrole(name), 'MEMBER'), false))
  FROM unnest(ARRAY['registry_reader', 'registry_writer', 'registry_sweeper', 'registry_porter',
                    'registry_keeper', 'registry_clerk']) AS name
"""


def main() -> int:
    """Run the registry until Ctrl-C or SIGTERM; returns the exit code."""
    try:
        settings = Settings.of(os.environ)
        # The port first: everything after it takes time, and has to be stopped again.
        with contextlib.closing(checks.take_port(settings.port)) as sock, contextlib.ExitStack() as cleanup:
            if settings.database_url:
                _check_database(settings.database_url)
            service = _open_queues(settings, cleanup)
            database_url = _open_database(settings, cleanup)
            _migrate(database_url, settings)
            _run(_serve(sock, settings, database_url, service))
            # Postgres stops now. It is quick about it, and must not be left half way.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while starting; __main__ makes SIGTERM the same
        pass
    say("\nStopped.")
    return 0


# ------------------------------------------------------------------ checks before the start


def _open_queues(settings: Settings, cleanup: contextlib.ExitStack) -> QueueService | None:
    """The queue service, where there is anything for it to do. It gets ready while the database does."""
    if not settings.endpoint_url and not template.declares(TEMPLATE, "AWS::SQS::Queue"):
        return None
    service = QueueService(settings.endpoint_url)
    cleanup.callback(service.stop)
    service.start()
    return service


def _open_database(settings: Settings, cleanup: contextlib.ExitStack) -> str:
    """The URL of the database: the user's, or one of a Postgres of our own that `cleanup` stops."""
    if settings.database_url:
        return settings.database_url
    postgres = Postgres(settings.data_dir / "postgres")
    cleanup.callback(postgres.stop)
    try:
        return postgres.start()
    except PostgresError as error:
        raise StartError(str(error)) from error


def _check_database(url: str) -> None:
    try:
        where = _database_name(url)
    except psycopg.ProgrammingError as error:
        # libpq's own message quotes what it can't read, which may be the password.
        raise checks.no_connection_string() from error
    try:
        with psycopg.Connection.connect(url, connect_timeout=5, autocommit=True) as connection:
            version = connection.info.server_version // 10000
            may_create = connection.execute(MAY_CREATE).fetchone()
    except psycopg.Error as error:
        raise checks.unusable(where, _reason(error, url)) from error
    if version < OLDEST_POSTGRES:
        raise StartError(
            f"The database {where} is PostgreSQL {version}; the registry needs {OLDEST_POSTGRES} or newer."
        )
    if may_create != (True,):
        raise StartError(
            f"The database {where} does not let this user create schemas: "
            "GRANT CREATE ON DATABASE to it, or choose another user in DATABASE_URL."
        )


def _migrate(database_url: str, settings: Settings) -> None:
    migrations = _load_by_path(ROOT / "sql" / "migrate.py")
    try:
        migrations.migrate(database_url)
    except (migrations.MigrationError, psycopg.Error) as error:
        where = "Use another database" if settings.database_url else f"Move {settings.data_dir} away to start anew"
        raise StartError(
            f"The database can't be brought up to date: {_reason(error, database_url)}. {where}, or run the version of"
            " the registry that it is from."
        ) from error


def _has_roles(database_url: str) -> bool:
    """Whether each function can be of its own role, as in the cloud."""
    with psycopg.Connection.connect(database_url, connect_timeout=5, autocommit=True) as connection:
        row = connection.execute(MAY_TAKE_ROLES).fetchone()
        return row is not None and row[0] is True


def _load_by_path(path: Path) -> ModuleType:
    """sql/ is the folder of a function and no package, so its module is not on the path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _database_name(url: str) -> str:
    """host:port/database, which is what of a URL may be shown."""
    parts = conninfo_to_dict(url)
    return f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def _reason(error: Exception, url: str) -> str:
    """The first line of an error, without the password."""
    line = str(error).strip().partition("\n")[0].rstrip(".")
    password = conninfo_to_dict(url).get("password")
    return line.replace(str(password), "***") if password else line


# ------------------------------------------------------------------ serving


def _run(work: Any) -> None:
    """Run until done or interrupted. The first signal ends it in good order, a second one cuts the waiting short."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:

        async def interruptible() -> None:
            task = asyncio.current_task()
            assert task is not None
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await work

        runner.run(interruptible())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:  # there is none for Windows
        return None
    return uvloop.new_event_loop


async def _serve(sock: socket.socket, settings: Settings, database_url: str, service: QueueService | None) -> None:
    stack = _load_template(settings, database_url)
    # boto3 in a function would look for credentials in the user's files, and then for a metadata service that is not
    # there.
    environment = dict(queues.CREDENTIALS)
    if service:
        environment["AWS_ENDPOINT_URL"] = service.start()
    terminal = Terminal(hidden=LOG_LEVELS[: LOG_LEVELS.index(settings.log_level)])
    async with Runtime(
        _set(stack.functions, settings), environment, concurrency=_concurrency(stack), hear=terminal.hear
    ) as runtime:
        gateway = Gateway(stack.api, runtime.invoke)
        sources, _ = await asyncio.gather(_sources(stack, settings, service, runtime), _check_gateway(gateway))
        schedules = Schedules(stack.schedules if settings.health_sweeps == "on" else (), runtime.invoke)
        public = server.PublicServer(_application(gateway, terminal, settings.hosts))
        serving = asyncio.create_task(public.serve(sockets=[sock]))
        try:
            say(_welcome(sock.getsockname()[1], settings, database_url))
            async with sources, schedules:
                await asyncio.shield(serving)
        finally:
            public.should_exit = True
            await serving


def _set(functions: Mapping[str, template.Function], settings: Settings) -> Mapping[str, template.Function]:
    """The functions, of which two tell who went down and who came back, at whatever level the others log.

    Where no server is to be checked, nobody asks for an introduction either.
    """

    def as_set(name: str, function: template.Function) -> template.Function:
        environment = dict(function.environment)
        if name in WRITERS and environment["POWERTOOLS_LOG_LEVEL"] != "DEBUG":
            environment["POWERTOOLS_LOG_LEVEL"] = "INFO"
        if settings.health_sweeps == "off" and "INTRODUCE_QUEUE_URL" in environment:
            environment["INTRODUCE_QUEUE_URL"] = ""
        return replace(function, environment=environment)

    return {name: as_set(name, function) for name, function in functions.items()}


def _concurrency(stack: template.Stack) -> Mapping[str, int]:
    """How many invocations of each function its queues may cause at once."""
    concurrency: Counter[str] = Counter()
    for source in stack.sources:
        concurrency[source.function] += source.max_concurrency or CONCURRENCY
    return concurrency


async def _sources(
    stack: template.Stack, settings: Settings, service: QueueService | None, runtime: Runtime
) -> contextlib.AbstractAsyncContextManager[object]:
    """The event sources, with every queue of the template there."""
    if not service or not stack.queues:
        return contextlib.nullcontext()
    url = service.start()
    try:
        client = await aside(lambda: queues.connect(url))
        await aside(lambda: queues.create(client, stack.queues))
    except (BotoCoreError, ClientError, ValueError) as error:
        advice = (
            "unset AWS_ENDPOINT_URL and the registry brings queues of its own"
            if settings.endpoint_url
            else "start again"
        )
        raise StartError(
            f"The queues can't be made at {url}: {one_line(error)}. Put that right, or {advice}."
        ) from error

    def revive() -> None:
        service.start()
        queues.create(client, stack.queues)

    return Sources(stack.sources, stack.queues, client, runtime.invoke, revive)


def _load_template(settings: Settings, database_url: str) -> template.Stack:
    parameters = {
        "ChecksPerHost": str(settings.checks_per_host),
        "ClosedCidrs": f"{INNER}/32",
        "CronSecret": settings.cron_secret,
        "DatabaseAccess": "role" if _has_roles(database_url) else "url",
        "DatabaseUrl": database_url,
        "LogLevel": settings.log_level,
        "OpenCidrs": LOOPBACK,
        "RegistryPassword": settings.password,
        "RegistryUsername": settings.username,
    }
    try:
        return template.load(TEMPLATE, parameters)
    except template.TemplateError as error:
        raise StartError(f"template.yaml can't be played: {error}.") from error


async def _check_gateway(gateway: Gateway) -> None:
    """One request through everything: who reads the ready line may rely on it."""
    response = await gateway.handle(HttpRequest("GET", "/health"))
    if response.status != 200:
        raise StartError(
            f"The registry does not work yet: GET /health answers {response.status} {response.body.decode()}"
        )


def _application(gateway: Gateway, terminal: Terminal, hosts: Collection[str]) -> Any:
    """The gateway as an ASGI callable that answers to `hosts` and to the names of the loopback."""
    names = {*NAMES, *hosts}

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        started = time.perf_counter()
        is_asked = _is_asked([value for name, value in scope["headers"] if name == b"host"], names)
        body = await server.read_body(receive, MAX_BODY) if is_asked else b""
        if body is None:
            return
        # uvicorn writes the names of headers in lower case; API Gateway keeps them as they were sent.
        request = HttpRequest(
            method=scope["method"],
            path=scope["raw_path"].decode("ascii"),
            query=scope["query_string"].decode("utf-8", errors="replace"),
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
            body=body,
            source_ip=scope["client"][0],
            protocol=f"HTTP/{scope['http_version']}",
        )
        response = await gateway.handle(request) if is_asked else _MISDIRECTED
        await _send(send, request, response)
        terminal.request(request, response, time.perf_counter() - started)

    return application


def _is_asked(named: Sequence[bytes], names: Collection[str]) -> bool:
    """Whether a request is for one of our names, on whatever port: behind a forwarded one it is another than ours."""
    if len(named) != 1:
        return False
    host = re.fullmatch(r"(\[[0-9a-f:]+\]|[^:\[\]]+)(:[0-9]{1,5})?", named[0].decode("latin-1").lower())
    return host is not None and host[1] in names


async def _send(send: Any, request: HttpRequest, response: HttpResponse) -> None:
    headers = [(name.encode("latin-1"), value.encode()) for name, value in response.headers]
    body = response.body
    # RFC 9110: no body, and so no length; for HEAD it would be that of GET, which nobody knows here.
    if response.status in (204, 304) or request.method == "HEAD":
        body = b""
    else:
        headers.append((b"content-length", b"%d" % len(body)))
    await server.respond(send, response.status, headers, body)


def _welcome(port: int, settings: Settings, database_url: str) -> str:
    """The ready line, and what to try first."""
    url = f"http://{HOST}:{port}"
    # A password of the user's own is none for the terminal's memory.
    own = settings.password != DEFAULT_PASSWORD
    password = "$REGISTRY_PASSWORD" if own else settings.password
    user = shlex.quote(settings.username) + (':"$REGISTRY_PASSWORD"' if own else f":{password}")
    database = _database_name(database_url)
    if not settings.database_url:
        database += f"\n               kept in {settings.data_dir}"
    health = {
        "on": "each server when it registers, and every half minute",
        "once": "each server when it registers (HEALTH_SWEEPS=on: and after that)",
        "off": "no server is checked (HEALTH_SWEEPS=on: every half minute)",
    }[settings.health_sweeps]
    return f"""
MCP Registry ready on {url}

  Credentials  {settings.username} / {password}
               (set REGISTRY_USERNAME and REGISTRY_PASSWORD to change them)
  Database     {database}
  Health       {health}
  Stop         Ctrl-C, which stops everything that was started

Try:

curl -u {user} -X POST \\
  {url}/api/registry/register \\
  -H 'Content-Type: application/json' \\
  -d {shlex.quote(EXAMPLE)}

curl -u {user} \\
  {url}/api/registry/servers

curl -u {user} \\
  {url}/api/registry/servers/1
"""
