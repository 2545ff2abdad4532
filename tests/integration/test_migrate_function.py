"""The migrations as CloudFormation runs them: asked by an event, answered at an address of its own."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import psycopg
import pytest

from tests.conftest import ROOT, load_module, migrate


class CloudFormation:
    """Where the answers go."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.refusals = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if service.refusals:
                    service.refusals -= 1
                    self.send_error(503)
                    return
                service.answers.append(json.loads(body))
                service.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/signed?X-Amz-Signature=1"

    def event(self, kind: str) -> dict[str, Any]:
        return {
            "RequestType": kind,
            "ResponseURL": self.url,
            "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/registry/1",
            "RequestId": "unique",
            "LogicalResourceId": "Migration",
            "ResourceProperties": {"ServiceToken": "arn", "Code": "1"},
        }


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    service = CloudFormation()
    thread = threading.Thread(target=service.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def invoke(cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch):
    app = load_module(ROOT / "sql" / "app.py", "app_migrate")
    monkeypatch.setattr(app, "PATIENCE_SECONDS", 0.0)

    def call(kind: str, url: str) -> dict[str, Any]:
        monkeypatch.setenv("DATABASE_URL", url)
        app.lambda_handler(cloudformation.event(kind), None)
        return cloudformation.answers[-1]

    return call


def test_a_deployment_brings_the_database_to_the_newest_schema(invoke, new_database, cloudformation):
    url = new_database(migrated=False)
    answer = invoke("Create", url)
    assert answer["Status"] == "SUCCESS" and "applied 0001_catalogue" in answer["Reason"]
    assert answer["PhysicalResourceId"] == "migrations" and answer["RequestId"] == "unique"
    # What CloudFormation signed was a request without one.
    assert cloudformation.headers[-1]["content-type"] == ""
    assert invoke("Update", url)["Reason"] == "up to date"


def test_a_migration_that_fails_fails_the_deployment_and_says_why(invoke, new_database, capsys):
    url = new_database()
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE registry.migrations SET checksum = 'other' WHERE version = 1")
    answer = invoke("Update", url)
    assert answer["Status"] == "FAILED" and "0001_catalogue was changed" in answer["Reason"]
    told = json.loads(capsys.readouterr().out)
    # Level and time, without which Lambda takes a line for INFO and may leave it out.
    assert told["level"] == "ERROR" and told["reason"] == answer["Reason"] and datetime.fromisoformat(told["timestamp"])


def test_a_deployment_that_goes_back_leaves_a_newer_schema_alone(invoke, new_database):
    url = new_database()
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO registry.migrations (version, name, checksum) VALUES (9999, 'later', 'x')")
    answer = invoke("Update", url)
    assert answer["Status"] == "SUCCESS" and "newer than this code" in answer["Reason"]
    # A new stack on a database from the future is another matter.
    assert invoke("Create", url)["Status"] == "FAILED"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody:s3cret@127.0.0.1:1/none",
        "postgresql://nobody:s3cret%zz@127.0.0.1:1/none",
        "postgresql://nobody:pa/s3cret@127.0.0.1:1/none",
        "postgresql://nobody:pa@s3cret@127.0.0.1:1/none",
        "host=127.0.0.1 password=s3cret' port=1",
    ],
)
def test_a_database_that_is_not_there_fails_the_deployment_and_no_part_of_a_password_is_told(invoke, url, capsys):
    answer = invoke("Create", url)
    assert answer["Status"] == "FAILED" and "DATABASE_URL" in answer["Reason"]
    assert "s3cret" not in answer["Reason"] + "".join(capsys.readouterr())


def test_an_answer_is_given_again_where_it_was_not_taken(invoke, new_database, cloudformation, monkeypatch):
    app = sys.modules["app_migrate"]
    monkeypatch.setattr(app, "PAUSE_SECONDS", 0.0)
    cloudformation.refusals = 2
    assert invoke("Update", new_database())["Status"] == "SUCCESS"
    assert len(cloudformation.answers) == 1


@pytest.mark.parametrize(("access", "by_token"), [("iam", True), ("url", False), ("role", False)])
def test_the_roles_log_in_by_token_where_the_stack_does(invoke, monkeypatch, access: str, by_token: bool):
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DATABASE_ROLE"):
        monkeypatch.setenv(name, "registry_owner")
    monkeypatch.setenv("DATABASE_ACCESS", access)
    asked: list[bool] = []

    def migrated(_: str, *, by_token: bool) -> list[str]:
        asked.append(by_token)
        return []

    monkeypatch.setattr(migrate, "migrate", migrated)
    assert invoke("Update", "postgresql://h/d")["Status"] == "SUCCESS"
    assert asked == [by_token]


@pytest.mark.parametrize("module", ["migrate", "psycopg", "mcp_registry.aws.db"])
def test_a_layer_that_cannot_be_loaded_fails_the_deployment_at_once(cloudformation, monkeypatch, module: str):
    monkeypatch.setitem(sys.modules, module, None)
    app = load_module(ROOT / "sql" / "app.py", "app_migrate")
    app.lambda_handler(cloudformation.event("Create"), None)
    answer = cloudformation.answers[-1]
    assert answer["Status"] == "FAILED" and answer["Reason"].startswith("ModuleNotFoundError") and module in str(answer)
    # The stack can be deleted all the same.
    app.lambda_handler(cloudformation.event("Delete"), None)
    assert cloudformation.answers[-1]["Status"] == "SUCCESS"


def test_deleting_the_stack_leaves_the_database_alone(invoke, new_database):
    url = new_database()
    assert invoke("Delete", url)["Status"] == "SUCCESS"
    assert migrate.migrate(url) == []


def test_an_answer_is_never_longer_than_cloudformation_takes(invoke, new_database, monkeypatch, cloudformation):
    def fail(*_: object) -> None:
        raise RuntimeError("x" * 10_000)

    url = new_database()
    monkeypatch.setattr(migrate, "migrate", fail)
    assert len(json.dumps(invoke("Update", url))) < 4096
