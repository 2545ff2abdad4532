"""Who else is on the machine, and what they get of a local run: other users, other programs, a browser's page.

What comes from the process of the tests comes from the user of the run, and what comes from somebody else from another
user: a port of the loopback is open to both.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from local import loopback, run, server
from local.gateway import FunctionError
from local.postgres import Postgres
from local.queues import CREDENTIALS, QueueService
from local.runtime import Runtime
from local.settings import Settings, StartError
from local.template import Function
from tests.conftest import BASIC, over_http, registration

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\n\r\n"
PATIENCE = 60  # seconds for what comes at once, unless there is a fault
# Sends what it reads to an address, and prints what is answered.
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as connection:
    connection.sendall(sys.stdin.buffer.read())
    try:
        while answered := connection.recv(65536):
            sys.stdout.buffer.write(answered)
    except ConnectionResetError:
        pass
"""


def another_program(address: tuple[str, int], sent: bytes, **who: Any) -> bytes:
    """What somebody is answered who sends this and waits for the end of the connection."""
    python = sys.executable
    if who:
        found = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path=os.defpath)
        may = [
            path
            for path in (python, found)
            if path and subprocess.run(["test", "-x", Path(path).resolve()], check=False, **who).returncode == 0
        ]
        if not may:
            pytest.skip("another user can execute no Python of this version")
        python = may[0]
    sending = subprocess.run(
        [python, "-c", SEND, address[0], str(address[1])],
        input=sent,
        capture_output=True,
        timeout=PATIENCE * 2,
        cwd="/",
        check=True,
        **who,
    )
    return sending.stdout


def another_user(address: tuple[str, int], sent: bytes) -> bytes:
    return another_program(address, sent, user=1, group=1, extra_groups=[])


# What is sent by each is to get nothing.
STRANGERS = pytest.mark.parametrize(
    "stranger",
    [
        another_program,
        pytest.param(
            another_user,
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
        ),
    ],
)
Stranger = Callable[[tuple[str, int], bytes], bytes]


# ------------------------------------------------------------------ the Runtime API


def play(folder: Path, source: str, test: Callable[[Runtime], Awaitable[Any]]) -> Any:
    (folder / "app.py").write_text(textwrap.dedent(source))
    function = Function("Subject", folder, "app.lambda_handler", 10, 128, {}, (), "JSON")

    async def playing() -> Any:
        async with Runtime({"Subject": function}) as runtime:
            return await asyncio.wait_for(test(runtime), PATIENCE)

    return asyncio.run(playing())


async def parked(runtime: Runtime, number: int = 1) -> None:
    """Until so many processes wait for work."""
    while len(runtime._pools["Subject"]._idle) != number:
        await asyncio.sleep(0)


WHERE = """
    import os
    def lambda_handler(event, context):
        return [os.environ["AWS_LAMBDA_RUNTIME_API"], os.getpid(), event]
"""


@STRANGERS
def test_the_runtime_api_serves_its_process_and_nobody_else(tmp_path: Path, stranger: Stranger):
    async def test(runtime: Runtime) -> None:
        answer: Any = await runtime.invoke("Subject", {})
        where, pid, _ = answer
        await parked(runtime)
        host, _, port = where.partition(":")
        asking = asyncio.create_task(asyncio.to_thread(stranger, (host, int(port)), NEXT))
        while not asking.done():
            assert await runtime.invoke("Subject", {"secret": 1}) == [where, pid, {"secret": 1}]
            await parked(runtime)
        assert await asking == b""

    play(tmp_path, WHERE, test)


def test_a_process_may_not_ask_for_work_while_it_has_some_nor_report_that_it_did_not_start(tmp_path: Path):
    source = """
        import http.client, os
        def ask(method, path):
            connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=2)
            connection.request(method, "/2018-06-01/runtime/" + path, b"{")
            return connection.getresponse().status
        def lambda_handler(event, context):
            return [ask("GET", "invocation/next"), ask("POST", "init/error"), ask("POST", "invocation/x/response")]
    """
    assert play(tmp_path, source, lambda runtime: runtime.invoke("Subject", {})) == [403, 400, 400]


def test_who_hangs_up_while_waiting_for_work_is_given_none(tmp_path: Path):
    source = """
        import os, socket
        from awslambdaric import lambda_runtime_client as client

        class HangsUp:
            real = client.runtime_client
            gates = None
            def next(self):
                if self.gates:
                    host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
                    with socket.create_connection((host, int(port))) as connection:
                        connection.sendall(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
                        open(self.gates[0]).close()
                    open(self.gates[1]).close()
                    self.gates = None
                return self.real.next()
            def __getattr__(self, name):
                return getattr(self.real, name)

        client.runtime_client = HangsUp()
        def lambda_handler(event, context):
            client.runtime_client.gates = event.get("gates")
            return os.getpid()
    """
    gates = [str(tmp_path / name) for name in ("leave", "come back")]
    for gate in gates:
        os.mkfifo(gate)

    async def test(runtime: Runtime) -> None:
        pid = await runtime.invoke("Subject", {"gates": gates})
        for gate, waiting in zip(gates, (1, 0), strict=True):
            await parked(runtime, waiting)
            await asyncio.to_thread(Path(gate).write_text, "")
        await parked(runtime)
        assert await runtime.invoke("Subject", {}) == pid

    play(tmp_path, source, test)


@pytest.mark.parametrize("bad", [b"\xff", b"[" * 100_000, b"{"])
def test_an_answer_that_is_no_json_fails_its_invocation_alone(tmp_path: Path, bad: bytes):
    source = f"""
        import http.client, os
        def lambda_handler(event, context):
            if not event:
                return "well"
            connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=5)
            path = f"/2018-06-01/runtime/invocation/{{context.aws_request_id}}/" + event["kind"]
            connection.request("POST", path, {bad[:1]!r} * {len(bad)})
            connection.getresponse()
            os._exit(0)
    """

    async def test(runtime: Runtime) -> None:
        for kind in ("response", "error"):
            with pytest.raises(FunctionError, match=r"Runtime\.MarshalError"):
                await runtime.invoke("Subject", {"kind": kind})
            assert await runtime.invoke("Subject", {}) == "well"

    play(tmp_path, source, test)


def test_a_connection_is_known_by_lsof_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch):
    if not shutil.which("lsof"):
        pytest.skip("there is no lsof")
    with loopback.bind(0) as listening, socket.create_connection(listening.getsockname()) as caller:
        ends = caller.getsockname(), listening.getsockname()
        for table in (loopback.CONNECTIONS, Path("/nowhere")):
            monkeypatch.setattr(loopback, "CONNECTIONS", table)
            assert loopback.belongs_to(os.getpid(), *ends)
            assert not loopback.belongs_to(os.getppid(), *ends)
            assert not loopback.belongs_to(os.getpid(), (ends[0][0], 1), ends[1])


# ------------------------------------------------------------------ what one function asks another


def question(function: str, key: str, body: str = '{"secret": 1}', method: str = "POST") -> bytes:
    return (
        f"{method} /2015-03-31/functions/{function}/invocations HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"authorization: AWS4-HMAC-SHA256 Credential={key}/20261130/x/lambda/aws4_request\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


ENDPOINT = """
    import os
    def lambda_handler(event, context):
        return os.environ["AWS_ENDPOINT_URL_LAMBDA"]
"""


@STRANGERS
def test_functions_are_asked_by_functions_of_the_run_and_by_nobody_else(tmp_path: Path, stranger: Stranger):
    async def test(runtime: Runtime) -> bytes:
        where: Any = await runtime.invoke("Subject", {})
        address = urlsplit(where)
        sent = question("Subject", CREDENTIALS["AWS_ACCESS_KEY_ID"])
        return await asyncio.to_thread(stranger, (address.hostname or "", address.port or 0), sent)

    assert play(tmp_path, ENDPOINT, test) == b""


def test_a_function_asks_another_one_by_the_key_of_the_run(tmp_path: Path):
    """Itself, here: it sends each of the texts, and is asked again by those that are a question."""
    source = """
        import os, socket
        from urllib.parse import urlsplit
        def lambda_handler(event, context):
            if "texts" not in event:
                if event["secret"] == 2:
                    raise ValueError("no")
                return {"heard": event}
            def answered(text):
                address = urlsplit(os.environ["AWS_ENDPOINT_URL_LAMBDA"])
                with socket.create_connection((address.hostname, address.port)) as connection:
                    connection.sendall(text.encode())
                    return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            return [answered(text) for text in event["texts"]]
    """
    key = CREDENTIALS["AWS_ACCESS_KEY_ID"]
    texts = [
        question("Subject", key),
        question("Subject", key, '{"secret": 2}'),
        question("Subject", key, "{"),
        question("Subject", key, "[" * 100_000),
        question("Other", key),
        question("Subject", key, method="GET"),
        question("Subject", "x" * 32),
        question("Subject", ""),
    ]

    async def test(runtime: Runtime) -> Any:
        return await runtime.invoke("Subject", {"texts": [text.decode() for text in texts]})

    answers: list[str] = play(tmp_path, source, test)
    assert [answer.split()[1] for answer in answers] == ["200", "200", "400", "400", "404", "404", "403", "403"]
    assert answers[0].endswith('{"heard":{"secret":1}}') and "x-amz-function-error" not in answers[0]
    assert "x-amz-function-error: Unhandled" in answers[1] and answers[1].endswith('"errorMessage":"ValueError: no"}')


# ------------------------------------------------------------------ the queues


def list_queues(authorization: str) -> bytes:
    return (
        "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: AmazonSQS.ListQueues\r\nconnection: close\r\n"
        f"content-type: application/x-amz-json-1.0\r\n{authorization}content-length: 2\r\n\r\n{{}}"
    ).encode()


@STRANGERS
@pytest.mark.parametrize(
    "key",
    ["", "local", "x" * 32, CREDENTIALS["AWS_ACCESS_KEY_ID"][:-1]],
    ids=["none", "usual", "long", "cut"],
)
def test_the_queues_serve_nobody_without_the_key_of_the_run(queue_service: str, stranger: Stranger, key: str):
    parts = urlsplit(queue_service)
    signed = f"authorization: AWS4-HMAC-SHA256 Credential={key}/20261130/x/sqs/aws4_request\r\n" if key else ""
    answer = stranger((parts.hostname or "", parts.port or 0), list_queues(signed))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"QueueUrls" not in answer


def test_the_port_of_queues_that_died_is_nobody_elses():
    service = QueueService()
    parts = urlsplit(service.start())
    try:
        assert service.pid
        os.kill(service.pid, 9)
        while service.pid:
            pass
        with pytest.raises(OSError, match="in use"):
            loopback.bind(parts.port or 0, parts.hostname or "")
    finally:
        service.stop()


# ------------------------------------------------------------------ Postgres


def test_who_took_the_port_of_a_postgres_that_died_is_not_told_its_password(tmp_path: Path):
    postgres = Postgres(tmp_path / "postgres", durable=False)
    with postgres as url:
        port = postgres.port
    told: list[bytes] = []
    with loopback.bind(port) as listening:

        async def rogue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            word = b""
            while not word.startswith(b"\0\x03"):  # before protocol 3 it may ask whether there is TLS, or GSSAPI
                word = await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
                writer.write(b"N" if word.startswith(b"\x04\xd2") else b"")
            writer.write(b"R\0\0\0\x08\0\0\0\x03")  # AuthenticationCleartextPassword
            told.append(await reader.read(1000))
            writer.close()

        async def test() -> None:
            async with await asyncio.start_server(rogue, sock=listening):
                with pytest.raises(psycopg.OperationalError, match='"scram-sha-256" failed'):
                    await asyncio.to_thread(psycopg.connect, url)
                postgres._port = port
                assert not await asyncio.to_thread(postgres._is_ours)

        asyncio.run(asyncio.wait_for(test(), PATIENCE))
    assert told == [b"", b""]


# ------------------------------------------------------------------ what children are given


def test_a_child_is_given_what_it_needs_of_the_environment_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("SOMETHING_NEW", "canary")
    postgres, service = Postgres(tmp_path / "postgres", durable=False), QueueService()
    needed = {"HOME", "PATH", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "LC_ALL", "TZ"}
    own = {
        *("AWS_CONFIG_FILE", "AWS_DEFAULT_REGION", "AWS_SHARED_CREDENTIALS_FILE", "LOCAL_QUEUES_KEY", "MOTO_ACCOUNT_ID")
    }
    try:
        service.start()
        with postgres:
            children = {
                int(pid) for pid in Path("/proc/self/task").glob("*/children") for pid in pid.read_text().split()
            }
            assert {postgres.pid, service.pid} <= children
            server = postgres._server
            assert server is not None
            for pid in (postgres.pid, service.pid, server._leash.pid):
                given = dict(
                    line.split("=", 1) for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in line
                )
                # PG_GRANDPARENT_PID and the like are what Postgres sets itself; a shell sets PWD.
                names = {name for name in given if not name.startswith("PG")} - {"PWD", "OLDPWD", "SHLVL", "_"}
                assert names <= needed | (own if pid == service.pid else set())
                assert "canary" not in given.values()
    finally:
        service.stop()


# ------------------------------------------------------------------ the public port


Work = Callable[[], Awaitable[Any]]


def talk(test: Callable[[tuple[str, int], list[dict[str, Any]]], Awaitable[Any]], work: Work | None = None) -> Any:
    """Run a test against a public server whose application answers with the body; it is given what was asked.

    `work` is done for each request before its answer.
    """
    seen: list[dict[str, Any]] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = await server.read_body(receive, 100_000)
        if body is not None:
            seen.append(scope)
            if work:
                await work()
            await server.respond(send, 200, [(b"content-length", b"%d" % len(body))], body)

    return serve(application, lambda address: test(address, seen))


def serve(application: Any, test: Callable[[tuple[str, int]], Awaitable[Any]]) -> Any:
    """Run a test against a public server."""

    async def talking() -> Any:
        public = server.PublicServer(application)
        with loopback.bind(0) as sock:
            serving = asyncio.create_task(public.serve(sockets=[sock]))
            try:
                return await asyncio.wait_for(test(sock.getsockname()), PATIENCE)
            finally:
                public.should_exit = True
                await serving

    return asyncio.run(talking())


async def answered(address: tuple[str, int], sent: bytes) -> bytes:
    """What is answered until the connection is closed, which is to be the server's doing."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer


def head(size: int) -> bytes:
    """A head of so many bytes."""
    start, end = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(("size", "status"), [(10_240, 200), (10_241, 431), (65_536, 431)])
def test_a_head_may_have_the_bytes_that_api_gateway_takes(size: int, status: int):
    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        answer = await answered(address, head(size))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert len(seen) == (status == 200)

    talk(test)


POST = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"a"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n"),
        (b"GET /", b"a"),
        (b"", b"\r\n"),
        (POST + b"1\r\na\r\n0\r\n", b"a: b\r\n"),
        (POST + b"1;", b"a"),
        (POST, b"0"),
    ],
    ids=["one header", "headers", "target", "empty lines", "trailers", "a chunk's extension", "a chunk's size"],
)
def test_what_the_parser_looks_through_is_bounded_wherever_it_stands(start: bytes, again: bytes):
    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(start + again * (20_481 // len(again)))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
        assert json.loads(body)["code"] == "VALIDATION_ERROR"
        assert seen == []

    talk(test)


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1", POST + b"1\r\na\r\n0\r\n"]
)
def test_a_request_that_is_not_there_in_time_is_not_awaited(sent: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    whole = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na"

    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        assert (await answered(address, sent)).startswith(b"HTTP/1.1 408 ")
        assert seen == []
        if sent:  # nor is the second one of a connection
            answer = await answered(address, whole + sent)
            assert answer.startswith(b"HTTP/1.1 200 ") and b"\r\n\r\naHTTP/1.1 408 " in answer

    talk(test)


def test_past_the_most_connections_the_one_that_waited_longest_makes_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    request = b"GET / HTTP/1.1\r\nhost: x\r\n"

    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        silent = [await asyncio.open_connection(*address) for _ in range(3)]
        assert (await answered(address, request + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        reader, writer = silent[0]
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        for reader, writer in silent[1:]:
            writer.write(request + b"\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        # One that had its answer waits since then; nothing that it could take for another answer is sent to it.
        busy = await asyncio.open_connection(*address)
        another = await asyncio.open_connection(*address)
        assert await silent[1][0].read() == b""
        for _, writer in (*silent, busy, another):
            writer.close()

    talk(test)


def test_bodies_that_come_slowly_are_held_up_to_a_number_of_bytes_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "MAX_HELD", 1000)
    start = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 600\r\n"

    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        for _ in range(3):  # what is answered is let go
            answer = await answered(address, start + b"connection: close\r\n\r\n" + b"a" * 600)
            assert answer.startswith(b"HTTP/1.1 200 ")
        idle = await asyncio.open_connection(*address)  # it holds nothing, and is left alone
        first = await asyncio.open_connection(*address)
        first[1].write(start + b"\r\n" + b"a" * 599)
        await first[1].drain()
        second = await asyncio.open_connection(*address)
        second[1].write(start + b"\r\n" + b"a" * 599)
        assert (await first[0].read()).startswith(b"HTTP/1.1 503 ")
        second[1].write(b"a")
        idle[1].write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        for reader, _ in (second, idle):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        for _, writer in (idle, first, second):
            writer.close()

    talk(test)


@pytest.mark.parametrize("sent", [b"GET / HT", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1", b"\0"])
def test_a_refusal_never_takes_the_place_of_the_answer_to_the_request_before(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    status = 400 if sent == b"\0" else 408
    whole = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na"

    async def work() -> None:  # It begins when both are parsed, so it ends after the patience with the second one.
        await asyncio.sleep(server.PATIENCE)

    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        answer = await answered(address, whole + sent)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"\r\n\r\naHTTP/1.1 %d " % status in answer
        assert len(seen) == 1

    talk(test, work)


def test_requests_that_are_sent_ahead_are_kept_up_to_a_number():
    request = b"GET / HTTP/1.1\r\nhost: x\r\n"

    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        most = 1 + server.MAX_AHEAD
        answer = await answered(address, (request + b"\r\n") * 1000 + request + b"connection: close\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200 ") == len(seen) == most
        assert answer.count(b"HTTP/1.1 503 ") == 1 and answer.endswith(b'"code":"UNAVAILABLE"}')

    talk(test)


# ------------------------------------------------------------------ those who take no answer

ANSWER = 16 << 20  # bytes: more than the system keeps for a reader that reads nothing


class Answers:
    """An application with a long answer under /long. It counts those sent, and those taken or given up."""

    def __init__(self) -> None:
        self.sent = self.done = 0
        self._news = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] != "/long":
            await server.respond(send, 200, [(b"content-length", b"0")], b"")
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % ANSWER)]})
        await send({"type": "http.response.body", "body": bytes(ANSWER), "more_body": True})
        self.sent += 1
        self._news.set()
        await send({"type": "http.response.body", "body": b""})
        self.done += 1
        self._news.set()

    async def news(self) -> None:
        await self._news.wait()
        self._news.clear()


def ask_and_not_read(address: tuple[str, int]) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(address)
    reader.sendall(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n")
    return reader


def test_an_answer_that_is_not_taken_in_time_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    answers = Answers()

    async def test(address: tuple[str, int]) -> None:
        with ask_and_not_read(address) as reader:
            while not answers.done:
                await answers.news()
            reader.settimeout(PATIENCE)
            taken = await asyncio.to_thread(lambda: sum(map(len, iter(lambda: reader.recv(1 << 20), b""))))
            assert taken < ANSWER

    serve(answers, test)


def test_past_the_most_connections_one_that_takes_no_answer_makes_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    answers = Answers()

    async def test(address: tuple[str, int]) -> None:
        with contextlib.ExitStack() as readers:
            for _ in range(3):
                readers.enter_context(ask_and_not_read(address))
            while answers.sent < 3:
                await answers.news()
            answer = await answered(address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            while not answers.done:
                await answers.news()

    serve(answers, test)


def test_answers_that_are_not_taken_are_held_up_to_a_number_of_bytes_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "MAX_HELD", ANSWER)
    answers = Answers()

    async def test(address: tuple[str, int]) -> None:
        with contextlib.ExitStack() as readers:
            for number in range(1, 9):
                readers.enter_context(ask_and_not_read(address))
                while answers.sent < number:
                    await answers.news()
            assert answers.done

    serve(answers, test)


def test_a_trailer_is_no_header():
    async def test(address: tuple[str, int], seen: list[dict[str, Any]]) -> None:
        start = POST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        assert (await answered(address, start + b"1\r\na\r\n0\r\nauthorization: x\r\n\r\n")).endswith(b"\r\n\r\na")
        assert b"authorization" not in dict(seen[0]["headers"])

    talk(test)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("127.0.0.1:65535", 200),
        ("[::1]:3000", 200),
        ("attacker.example:3000", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("localhost:3000@attacker.example", 421),
        ("", 421),
        ("localhost\r\nHost: attacker.example", 421),
    ],
)
def test_the_registry_answers_to_the_names_of_this_machine_and_to_no_other(stack_url: str, host: str, status: int):
    parts = urlsplit(stack_url)
    with socket.create_connection((parts.hostname, parts.port), PATIENCE) as connection:
        request = (
            f"GET /api/registry/servers HTTP/1.1\r\nHost: {host}\r\nAuthorization: {BASIC}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode())
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    if status != 200:
        assert "REGISTRY_HOSTS" in json.loads(body)["error"]


def test_other_names_are_a_setting():
    names = {*run.NAMES, *Settings.of({"REGISTRY_HOSTS": "forwarded.example, [fd00::1],"}).hosts}
    for host, is_ours in {
        b"Forwarded.example:443": True,
        b"[fd00::1]:80": True,
        b"[fd00::2]:80": False,
        b"example": False,
    }.items():
        assert run._is_asked([host], names) is is_ours
    for wrong in ("forwarded.example:443", "http://forwarded.example", "*", "a b"):
        with pytest.raises(StartError, match="REGISTRY_HOSTS must be host names"):
            Settings.of({"REGISTRY_HOSTS": wrong})


def test_the_prober_may_not_ask_the_parts_of_the_run_itself(stack_url: str):
    body = registration("a-stranger/own-parts", endpoint_url=f"http://{loopback.INNER}:40000/")
    headers = [("authorization", BASIC), ("content-type", "application/json")]
    answer = over_http(stack_url)("POST", "/api/registry/register", headers, json.dumps(body).encode())
    assert answer.status == 400
    assert "the operator of this registry has closed" in answer.json()["details"][0]["message"]
