"""One question to another function: signed as boto3 signs it, and an answer or none."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from mcp_registry.aws import invoke

HOST = "lambda.eu-west-1.amazonaws.com"
PATH = "/2015-03-31/functions/stack-IdentifyFunction-1A2b/invocations"
URL = f"https://{HOST}{PATH}"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_REGION": "eu-west-1",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    """An execution environment that has asked nothing yet."""
    monkeypatch.setattr(invoke, "_kept", None)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("session", ["", "IQoJb3JpZ2luX2VjE+/=="])
def test_a_question_is_signed_as_boto3_signs_it(session):
    content = '{"issuer":"é"}'.encode()
    theirs = AWSRequest("POST", URL, {"Content-Type": invoke.MEDIA_TYPE}, content)
    keys = Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], session or None)
    SigV4Auth(keys, "lambda", "eu-west-1").add_auth(theirs)
    # It takes no moment: ours is signed as of theirs.
    moment = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = invoke.headers(HOST, PATH, content, {**KEYS, "AWS_SESSION_TOKEN": session}, moment)
    assert ours["authorization"] == theirs.headers["Authorization"]
    assert ours.get("x-amz-security-token") == theirs.headers["X-Amz-Security-Token"]


class Lambda(BaseHTTPRequestHandler):
    """Answers with what it was asked, on connections that stay open; `statuses` are told in turn, then 200."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[Any]] = set()
    asked: ClassVar[list[str]] = []
    statuses: ClassVar[list[int]] = []
    failure = ""
    closes = False
    text = ""

    def do_POST(self) -> None:
        cls = type(self)
        self.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(self.path)
        content = cls.text.encode() or json.dumps({"asked": json.loads(body)}).encode()
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.send_header("content-length", str(len(content)))
        if cls.failure:
            self.send_header("X-Amz-Function-Error", cls.failure)
        self.end_headers()
        self.wfile.write(content)
        # Without saying so, as whoever has waited long enough.
        self.close_connection = cls.closes

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        pass


@pytest.fixture
def service(monkeypatch) -> Generator[type[Lambda]]:
    Lambda.connections, Lambda.asked, Lambda.statuses = set(), [], []
    Lambda.failure, Lambda.closes, Lambda.text = "", False, ""
    with ThreadingHTTPServer(("127.0.0.1", 0), Lambda) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", f"http://127.0.0.1:{server.server_port}")
        yield Lambda
        server.shutdown()
        thread.join()


def test_questions_are_answered_on_one_connection(service):
    for number in range(3):
        assert invoke.ask(URL, {"number": number}) == {"asked": {"number": number}}
    assert (len(service.connections), set(service.asked)) == (1, {PATH})


def test_a_connection_whose_end_came_unseen_is_replaced(service):
    service.closes = True
    for number in range(3):
        assert invoke.ask(URL, {"number": number}) == {"asked": {"number": number}}
    assert len(service.connections) == 3


def test_a_connection_that_waited_long_is_not_used_again(service, monkeypatch):
    invoke.ask(URL, {})
    monkeypatch.setattr(invoke, "KEPT_SECONDS", 0.0)
    invoke.ask(URL, {})
    assert len(service.connections) == 2


def test_who_is_throttled_comes_again(service, monkeypatch):
    monkeypatch.setattr(invoke, "PAUSE_SECONDS", 0.0)
    service.statuses[:] = [429, 429]
    assert invoke.ask(URL, {}) == {"asked": {}}
    assert len(service.asked) == 3


def test_who_is_throttled_for_long_gives_up(service, monkeypatch):
    monkeypatch.setattr(invoke, "THROTTLED_SECONDS", 0.0)
    service.statuses[:] = [429]
    with pytest.raises(invoke.Unanswered, match=r"^HTTP 429$"):
        invoke.ask(URL, {})


@pytest.mark.parametrize(
    ("status", "failure", "text", "told"),
    [
        (403, "", "", "HTTP 403"),
        (500, "", "", "HTTP 500"),
        (200, "Unhandled", '{"errorMessage": "secret"}', "Unhandled"),
        (200, "", "secret", "JSONDecodeError"),
        (200, "", "[" * 100_000, "RecursionError"),
    ],
)
def test_what_is_no_answer_is_told_without_its_words(service, status, failure, text, told):
    service.statuses[:], service.failure, service.text = [status], failure, text
    with pytest.raises(invoke.Unanswered) as caught:
        invoke.ask(URL, {})
    assert str(caught.value) == told
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_REGION"])
def test_without_an_identity_nothing_is_asked(service, monkeypatch, missing):
    monkeypatch.delenv(missing)
    with contextlib.suppress(KeyError):
        monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(invoke.Unanswered, match=r"^KeyError$"):
        invoke.ask(URL, {})
    assert service.asked == []


def test_where_nobody_listens_there_is_no_answer(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:1")
    with pytest.raises(invoke.Unanswered, match=r"^ConnectionRefusedError$"):
        invoke.ask(URL, {})
