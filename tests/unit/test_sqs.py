"""One message to SQS: signed as boto3 signs it, taken by a real queue, and never in the way of who waits."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Generator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local import queues as local_queues
from local import template
from mcp_registry.aws import signature, sqs
from mcp_registry.health import announcing, messages

_numbers = itertools.count(1)
REGION = {"AWS_REGION": "eu-west-1"}
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    """An execution environment that has sent nothing yet."""
    monkeypatch.setattr(sqs, "_kept", None)
    monkeypatch.delenv("AWS_ENDPOINT_URL_SQS", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in {"AWS_REGION": template.REGION, **local_queues.CREDENTIALS}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("session", ["", "IQoJb3JpZ2luX2VjE+/=="])
def test_a_message_is_signed_as_boto3_signs_it(session):
    given = {**REGION, **KEYS, "AWS_SESSION_TOKEN": session}
    content = '{"QueueUrl":"https://sqs.eu-west-1.amazonaws.com/123456789012/q","MessageBody":"é"}'.encode()
    fields = {"Content-Type": sqs.MEDIA_TYPE, "X-Amz-Target": sqs.TARGET}
    theirs = AWSRequest("POST", "https://sqs.eu-west-1.amazonaws.com/", fields, content)
    keys = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], session or None)
    SigV4Auth(keys, "sqs", "eu-west-1").add_auth(theirs)
    # It takes no moment: ours is signed as of theirs.
    moment = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = sqs.headers("sqs.eu-west-1.amazonaws.com", content, given, moment)
    assert ours["authorization"] == theirs.headers["Authorization"]
    assert ours.get("x-amz-security-token") == theirs.headers["X-Amz-Security-Token"]


@pytest.fixture(scope="module")
def client(queue_service):
    return local_queues.connect(queue_service)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL"])
def test_a_message_arrives_where_boto3_would_send_it(client, queue_service, monkeypatch, variable):
    url = client.create_queue(QueueName=f"visits-{next(_numbers)}")["QueueUrl"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, queue_service)
    for text in ("first é", "second"):
        assert sqs.send(url, text)
    found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert {message["Body"] for message in found} == {"first é", "second"}


@pytest.mark.usefixtures("patient")
def test_who_is_announced_is_in_the_queue_of_introductions(client, queue_service, monkeypatch):
    url = client.create_queue(QueueName=f"visits-{next(_numbers)}")["QueueUrl"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", queue_service)
    monkeypatch.setenv("INTRODUCE_QUEUE_URL", url)
    # By the database's clock, whatever ours says.
    asked_at = datetime(2026, 11, 30, tzinfo=UTC)
    announcing.at_once((asked_at, 1, 2, "https://example.com/mcp", None, "legacy", "refused"))
    (message,) = client.receive_message(QueueUrl=url)["Messages"]
    visits = messages.visits(message["Body"])
    assert visits.endpoints == [messages.Visit(1, 2, "https://example.com/mcp", None, "legacy", "refused")]
    assert visits.asked_at == asked_at


@pytest.mark.parametrize("queue", [None, ""])
def test_who_is_announced_where_no_queue_is_named_is_not_told_of(queue, monkeypatch, caplog):
    monkeypatch.delenv("INTRODUCE_QUEUE_URL", raising=False)
    if queue is not None:
        monkeypatch.setenv("INTRODUCE_QUEUE_URL", queue)
    announcing.at_once((datetime.now(UTC), 1, 2, "https://example.com/mcp", None, None, None))
    assert told(caplog) == []


class Queue(BaseHTTPRequestHandler):
    """Takes every message, on connections that stay open; `answers` are told in turn, then 200."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[Any]] = set()
    bodies: ClassVar[list[dict[str, str]]] = []
    statuses: ClassVar[list[int]] = []
    fields: ClassVar[dict[str, str]] = {}
    closes = False

    def do_POST(self) -> None:
        self.connections.add(self.client_address)
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        for name, value in ({"content-length": "2"} | self.fields).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")
        # Without saying so, as whoever has waited long enough.
        self.close_connection = type(self).closes

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Generator[str]:
    Queue.connections, Queue.bodies, Queue.statuses, Queue.fields, Queue.closes = set(), [], [], {}, False
    with ThreadingHTTPServer(("127.0.0.1", 0), Queue) as server:
        server.daemon_threads = True
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"{'https' if context else 'http'}://localhost:{server.server_port}/1/queue"
        server.shutdown()
        thread.join()


@pytest.fixture
def patient(monkeypatch) -> None:
    """A deadline that a busy machine keeps, for what is not about it."""
    monkeypatch.setattr(sqs, "DEADLINE", 30.0)


@pytest.mark.usefixtures("patient")
def test_a_connection_is_kept_for_the_next_message():
    with serving() as url:
        assert all(sqs.send(url, text) for text in ("a", "b", "c"))
    assert (len(Queue.connections), [body["MessageBody"] for body in Queue.bodies]) == (1, ["a", "b", "c"])


@pytest.mark.usefixtures("patient")
def test_a_connection_that_the_other_end_has_closed_costs_no_message():
    with serving() as url:
        Queue.closes = True
        assert all(sqs.send(url, text) for text in ("a", "b", "c"))
    assert {body["MessageBody"] for body in Queue.bodies} == {"a", "b", "c"}
    assert len(Queue.connections) >= 3


@pytest.mark.usefixtures("patient")
def test_a_connection_that_was_kept_too_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr(sqs, "KEPT_SECONDS", 0.0)
    with serving() as url:
        assert all(sqs.send(url, text) for text in ("a", "b"))
    assert len(Queue.connections) == 2


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "fields",
    [{"Connection": "close"}, {"transfer-encoding": "chunked"}, {"content-length": "1"}, {"content-length": "x"}],
)
def test_a_connection_whose_answer_may_not_be_over_is_not_used_again(fields):
    with serving() as url:
        Queue.fields = fields
        assert all(sqs.send(url, text) for text in ("a", "b"))
    assert len(Queue.connections) == 2


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"220 mail\r\n\r\n", b"x" * (sqs.MAX_ANSWER + 1)])
def test_what_is_no_answer_is_no_success(answer, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            with contextlib.suppress(ConnectionError), server.accept()[0] as connection:
                connection.recv(1)
                connection.sendall(answer)
                if len(answer) <= sqs.MAX_ANSWER:
                    connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert not sqs.send(f"http://127.0.0.1:{server.getsockname()[1]}/1/queue", "x")
        thread.join()
    assert [cause for _, cause in told(caplog)] == ["ConnectionError"]


def test_credentials_that_do_not_come_are_left_behind_on_a_connection_that_was_kept(monkeypatch, caplog):
    monkeypatch.setattr(signature, "CREDENTIALS_SECONDS", 30.0)
    with serving() as url, socket.create_server(("127.0.0.1", 0)) as silent:
        with monkeypatch.context() as patient:
            patient.setattr(sqs, "DEADLINE", 30.0)
            assert sqs.send(url, "a")
        for name in local_queues.CREDENTIALS:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "x")
        assert not sqs.send(url, "b")
    assert [cause for _, cause in told(caplog)] == ["late"]


def told(caplog) -> list[tuple[str, str]]:
    """The queue and the cause of each line."""
    return [(line.queue, line.cause) for line in caplog.records]


@pytest.mark.usefixtures("patient")
def test_a_refusal_is_one_line_in_the_log_and_no_error(caplog):
    with serving() as url:
        Queue.statuses[:] = [403]
        assert not sqs.send(url, "secret words")
        assert told(caplog) == [("queue", "HTTP 403")]
        assert sqs.send(url, "next")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("url", ["", "nowhere", "http://127.0.0.1:1/1/queue", "https://no-such-host.invalid/1/queue"])
def test_whatever_goes_wrong_is_one_line_in_the_log_and_no_error(url, caplog):
    assert not sqs.send(url, "x")
    assert len(told(caplog)) == 1


@pytest.mark.usefixtures("patient")
def test_without_credentials_nothing_is_sent_and_nothing_raised(monkeypatch, caplog):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with serving() as url:
        assert not sqs.send(url, "x")
        assert Queue.bodies == []
    assert [cause for _, cause in told(caplog)] == ["KeyError"]


def test_whoever_does_not_answer_is_left_behind(caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not sqs.send(f"http://127.0.0.1:{silent.getsockname()[1]}/1/queue", "x")
    assert [cause for _, cause in told(caplog)] in (["late"], ["TimeoutError"])


@pytest.mark.usefixtures("patient")
def test_a_certificate_that_nobody_vouches_for_is_sent_nothing(tmp_path, monkeypatch, caplog):
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with serving(context) as url:
        assert not sqs.send(url, "x")
        assert Queue.bodies == []
        assert [cause for _, cause in told(caplog)] == ["SSLCertVerificationError"]
        trusting = ssl.create_default_context(cafile=str(tmp_path / "crt"))
        monkeypatch.setattr(sqs, "_context", trusting)
        assert sqs.send(url, "x") and sqs.send(url, "y")
        assert len(Queue.connections) == 1
