"""`python -m local` as a person meets it: what it prints, how it refuses, what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from local.queues import CREDENTIALS, connect
from local.template import load
from mcp_registry.catalogue.canonical import canonical
from tests.conftest import BASIC, PASSWORD, ROOT, USERNAME, Local, over_http, registration

SERVERS = "/api/registry/servers"


def refuse(environment: dict[str, str]) -> str:
    """Start with an environment that cannot work; the one line that it says."""
    run = subprocess.run(
        [sys.executable, "-m", "local"],
        cwd=ROOT,
        env={**os.environ, "AWS_ENDPOINT_URL": "", "PORT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    return line


def descendants(pid: int) -> set[int]:
    """The processes that stem from a process, by /proc."""
    children = {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return children.union(*(descendants(child) for child in children)) if children else set()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "a folder – with 'any' name"


@pytest.fixture
def start(data_dir) -> Iterator:
    started: list[Local] = []

    def start(**environment: str) -> Local:
        local = Local({"PORT": "0", "DATABASE_URL": "", "DATA_DIR": str(data_dir), **environment})
        started.append(local)
        return local

    yield start
    for local in started:
        if local.process.poll() is None:
            local.stop()


def test_it_prints_where_it_is_and_three_lines_to_try_that_work(start):
    password = "it's a $ecret"
    local = start(REGISTRY_PASSWORD=password)
    url = local.wait_until_ready()
    assert url.startswith("http://127.0.0.1:")
    while f"  {url}{SERVERS}/1" not in local.output:
        assert local.process.poll() is None
    curls = re.findall(r"^curl (?:.+\n)+", "\n".join([*local.output, ""]), re.MULTILINE)
    assert len(curls) == 3
    # As in the shell that the password was given in.
    environment = {**os.environ, "REGISTRY_PASSWORD": password}
    answers = [
        subprocess.run(curl, shell=True, env=environment, capture_output=True, text=True, check=True).stdout
        for curl in curls
    ]
    assert all('"test-server"' in answer for answer in answers), answers
    assert password not in "\n".join(local.output)
    assert local.stop() == 0
    assert local.output[-1] == "Stopped."


def test_what_was_registered_is_there_after_a_restart(start):
    first = start()
    send = over_http(first.wait_until_ready())
    auth = [("authorization", "Basic YWRtaW46cGFzc3dvcmQ="), ("content-type", "application/json")]
    body = json.dumps(registration("kept")).encode()
    assert send("POST", "/api/registry/register", auth, body).status == 201
    assert first.stop() == 0
    second = start()
    assert over_http(second.wait_until_ready())("GET", f"{SERVERS}?search=kept", auth, b"").json()["total"] == 1
    assert second.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_however_it_ends(start, number):
    local = start()
    url = local.wait_until_ready()
    assert over_http(url)("GET", "/health", [], b"").status == 200
    processes = descendants(local.process.pid)
    assert len(processes) > 4  # Postgres with its helpers, the queues, and a function
    assert sum(b"local.queues" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes) == 1
    local.process.send_signal(number)
    code = local.process.wait(30)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    while any(alive(pid) for pid in processes):
        pass


def test_a_taken_port_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refuse({"PORT": str(taken.getsockname()[1])})
    assert "is taken" in line
    assert "PORT" in line


@pytest.mark.parametrize("port", ["http", "-1", "65536", "3.5"])
def test_a_port_that_is_none_is_said(port):
    assert "PORT must be a number" in refuse({"PORT": port})


def test_a_log_level_that_is_none_is_said():
    assert "LOG_LEVEL must be one of" in refuse({"LOG_LEVEL": "loud"})


def test_a_switch_that_is_neither_on_nor_off_is_said():
    assert "HEALTH_SWEEPS must be one of on, once, off" in refuse({"HEALTH_SWEEPS": "sometimes"})


def test_what_checks_the_servers_is_said_and_can_be_switched_off(start):
    local = start(HEALTH_SWEEPS="off")
    local.wait_until_ready()
    assert local.stop() == 0
    (line,) = [line for line in local.output if line.startswith("  Health ")]
    assert "HEALTH_SWEEPS=on" in line


def test_queues_that_do_not_answer_are_said(new_database):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    line = refuse({"DATABASE_URL": new_database(migrated=False), "AWS_ENDPOINT_URL": url})
    assert line.startswith(f"The queues can't be made at {url}: ")
    assert "unset AWS_ENDPOINT_URL" in line


def test_a_queue_service_of_the_user_is_used_and_left_running(start, queue_service):
    local = start(
        AWS_ENDPOINT_URL=queue_service, HEALTH_SWEEPS="off", LOCAL_QUEUES_KEY=CREDENTIALS["AWS_ACCESS_KEY_ID"]
    )
    local.wait_until_ready()
    assert all(
        b"local.queues" not in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(local.process.pid)
    )
    assert local.stop() == 0
    names = [url.rpartition("/")[2] for url in connect(queue_service).list_queues()["QueueUrls"]]
    assert {queue.name for queue in load(ROOT / "template.yaml", {"DatabaseUrl": "x"}).queues.values()} <= set(names)


def test_a_database_that_does_not_answer_is_said_without_its_password():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    line = refuse({"DATABASE_URL": f"postgresql://me:{PASSWORD}-canary@127.0.0.1:{port}/registry"})
    assert "DATABASE_URL" in line
    assert "canary" not in line


def test_a_database_without_the_right_to_create_is_said(new_database, postgres):
    url = new_database(migrated=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    line = refuse({"DATABASE_URL": make_conninfo(url, user="guest", password="guest")})
    assert "CREATE" in line


def test_a_database_that_cannot_be_brought_up_to_date_is_said_with_what_to_do(new_database):
    url = new_database(migrated=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA metrics")
    line = refuse({"DATABASE_URL": url})
    assert 'schema "metrics" already exists' in line
    assert "Use another database" in line


def test_a_server_is_checked_called_down_and_brought_back(start):
    """Registered, active; stopped, error with a reason; started again, active: what the registry is for."""
    local = start(HEALTH_SWEEPS="off", CRON_SECRET="again")
    send = over_http(local.wait_until_ready())
    basic = ("authorization", BASIC)

    def swept(id_: int, verdict: str) -> dict[str, Any]:
        """The server's detail after a sweep that found this."""
        deadline = time.monotonic() + 40
        detail: dict[str, Any] = {}
        while time.monotonic() < deadline:
            send("POST", "/api/jobs/health-check", [("x-cron-secret", "again")], b"")
            detail = send("GET", f"{SERVERS}/{id_}", [basic], b"").json()
            if (detail["last_check"] or {}).get("verdict") == verdict:
                return detail
            time.sleep(0.2)
        raise AssertionError(f"no check found {verdict}: {detail}")

    answering = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    port = answering.server_port
    body = json.dumps(registration("lively", endpoint_url=f"http://127.0.0.1:{port}/mcp")).encode()
    headers = [basic, ("content-type", "application/json")]
    created = send("POST", "/api/registry/register", headers, body).json()
    with answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        assert swept(created["id"], "healthy")["status"] == "active"
        answering.shutdown()
    detail = swept(created["id"], "refused")
    assert detail["status"] == "error"
    assert detail["last_check"]["error_message"] == "Nothing listens there: the connection was refused"
    with ThreadingHTTPServer(("127.0.0.1", port), Answering) as again:
        threading.Thread(target=again.serve_forever, daemon=True).start()
        assert swept(created["id"], "healthy")["status"] == "active"
        again.shutdown()
    history = send("GET", f"{SERVERS}/{created['id']}/health", [basic], b"").json()
    assert [(change["from"], change["to"]) for change in history["transitions"]] == [
        ("error", "active"),
        ("active", "error"),
    ]

    def told() -> list[str]:
        return [line[10:] for line in local.output if "  HEALTH " in line]

    deadline = time.monotonic() + 40
    while len(told()) < 2 and time.monotonic() < deadline:  # it is written first, and then told
        time.sleep(0.01)
    assert told() == [
        "HEALTH  lively  active -> error  Nothing listens there: the connection was refused",
        "HEALTH  lively  error -> active  The server answered the check",
    ]


def test_a_server_has_its_verdict_at_once_and_is_back_at_once_when_it_announces_itself(start):
    """Registered before it listens: down. Announced when it does: up. And no sweep was asked for, nor does one come."""
    send = over_http(start(HEALTH_SWEEPS="once").wait_until_ready())
    basic, json_type = ("authorization", BASIC), ("content-type", "application/json")

    def checked(id_: int, verdict: str, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The server's detail when somebody has found this."""
        deadline = time.monotonic() + 60
        detail: dict[str, Any] = {}
        while time.monotonic() < deadline:
            meanwhile()
            detail = send("GET", f"{SERVERS}/{id_}", [basic], b"").json()
            # What it says of itself is written after what was found.
            if detail["verdict"] == verdict and (detail["observed"] or verdict != "healthy"):
                return detail
            time.sleep(0.05)
        raise AssertionError(f"no {verdict}: {detail}")

    def last_sweep() -> Any:
        return send("GET", "/api/metrics/health", [basic], b"").json()["last_sweep"]

    before = last_sweep()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    body = canonical(registration("prompt", endpoint_url=f"http://127.0.0.1:{port}/mcp"), plain=False)
    lease = ("x-registration-lease", "600")
    created = send("PUT", "/api/registry/register", [basic, json_type, lease], body).json()
    assert checked(created["id"], "refused")["status"] == "error"
    with ThreadingHTTPServer(("127.0.0.1", port), Answering) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        digest = ("x-registration-digest", hashlib.sha256(body).hexdigest())

        def announce() -> None:
            assert send("PUT", "/api/registry/register", [basic, lease, digest], b"").status == 204

        # Not only once: who was looked at within two seconds is not looked at again.
        detail = checked(created["id"], "healthy", announce)
        answering.shutdown()
    assert (detail["status"], detail["observed"]["tools_count"]) == ("active", 1)
    assert last_sweep() == before


class Answering(BaseHTTPRequestHandler):
    """A server that has one tool, as one of 2025-11-25 without sessions."""

    def do_POST(self):
        try:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        except ValueError:
            self.answer(400, {"id": None, "error": {"code": -32700, "message": "Parse error"}})
            return
        results = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "lively", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "live", "inputSchema": {"type": "object"}}]},
        }
        if "id" not in asked:
            self.answer(202)
        elif asked["method"] in results:
            self.answer(200, {"id": asked["id"], "result": results[asked["method"]]})
        else:
            self.answer(200, {"id": asked["id"], "error": {"code": -32601, "message": "Method not found"}})

    def answer(self, status: int, said: dict[str, Any] | None = None) -> None:
        body = json.dumps({"jsonrpc": "2.0", **said}).encode() if said else b""
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass


def test_head_sends_its_headers_and_nothing_more(stack_url):
    """On the wire, where the next answer has to follow at once: a client reads no body of HEAD, and so skips none."""
    parts = urlsplit(stack_url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), timeout=30) as connection:
        ask = f"%s /health HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: %s\r\n\r\n"
        connection.sendall((ask % ("HEAD", "keep-alive") + ask % ("GET", "close")).encode())
        head, get, body = connection.makefile("rb").read().split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert get.startswith(b"HTTP/1.1 200 ")
    assert body == b'{"status":"ok"}'


def test_what_is_not_http_is_refused_in_the_shape_of_all_errors(stack_url):
    parts = urlsplit(stack_url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), timeout=30) as connection:
        connection.sendall(b"this is not HTTP\r\n\r\n")
        answer = connection.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-length: %d\r\n" % len(body) in head
    assert body == b'{"error":"The request is not valid HTTP","code":"VALIDATION_ERROR"}'


def test_a_data_folder_in_use_is_said(start, data_dir):
    local = start()
    local.wait_until_ready()
    assert "another run uses" in refuse({"DATABASE_URL": "", "DATA_DIR": str(data_dir)}).lower()


def test_the_terminal_shows_one_line_a_request_and_no_credential(start):
    local = start(LOG_LEVEL="DEBUG")
    send = over_http(local.wait_until_ready())
    send("GET", f"{SERVERS}?search=canary-query", [("authorization", "Basic Y2FuYXJ5OmNhbmFyeQ==")], b"")
    send("GET", "/health", [], b"")
    assert local.stop() == 0
    lines = [line for line in local.output if f" {SERVERS}  " in line or " /health  " in line]
    assert [line.split()[3] for line in lines] == ["401", "200"]
    assert lines[0].endswith(" ms  login refused: wrong credentials")
    text = "\n".join(local.output)
    assert "Unauthorized" not in text
    assert "stackTrace" not in text
    assert "canary" not in text.lower()
    assert "Y2FuYXJ5" not in text
    assert USERNAME in text  # the hint which credentials to use, and nothing else
