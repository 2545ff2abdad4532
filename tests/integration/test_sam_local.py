"""`sam local` without its containers: the SAM CLI's own classes on the template, with the handlers in process.

What needs Docker is in tests/sam_local.py (`make test-sam-local`), and uses the same expectations.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psycopg
import pytest
from botocore.config import Config

from local import sam
from local.gateway import FunctionError
from local.template import Invoke
from mcp_registry.access import admission
from mcp_registry.aws import db, queues
from mcp_registry.health import shard
from tests import sam_local
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def provider():
    """What `sam local start-api` finds in the template."""
    from samcli.lib.providers.api_provider import ApiProvider
    from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("SAM_CLI_TELEMETRY", "0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SAM's own, of its own modules
            stacks, _ = SamLocalStackProvider.get_stacks(str(ROOT / "template.yaml"))
            found = ApiProvider(stacks)
        yield found


class Runner:
    """Takes the place of the containers: a function is its handler, and an error is what the runtime makes of it."""

    def __init__(self, in_process) -> None:
        self._in_process = in_process

    def is_debugging(self) -> bool:
        return False

    def invoke(self, function: str, event: str, stdout, **others: Any) -> None:
        stdout.write_str(json.dumps(self.answer(function, json.loads(event))))

    def answer(self, function: str, event: Any) -> Any:
        try:
            return asyncio.run(self._in_process.invoke(function, event))
        except FunctionError as error:
            # FunctionError of the tests' gateway is "Type: message"
            return {"errorMessage": error.message, "errorType": error.error_type, "stackTrace": []}


@pytest.fixture
def runner(in_process, new_database, monkeypatch):
    """The handlers with a database of their own, and no queue: nobody listens on port 1."""
    url = new_database()
    database = db.Database(url)
    monkeypatch.setattr(db, "_database", database)
    nowhere = boto3.client(
        "sqs",
        region_name="us-east-1",
        endpoint_url="http://127.0.0.1:1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(connect_timeout=1, retries={"total_max_attempts": 1}),
    )
    monkeypatch.setattr(queues, "_client", nowhere)
    # Nor does one function reach another.
    monkeypatch.setattr(in_process, "_invocations", object())
    monkeypatch.setattr(in_process, "_invocations_url", "http://127.0.0.1:1")
    admission.forget()  # as a new sandbox, which has seen no wrong credentials
    monkeypatch.setattr(shard, "_probed", shard.deque(maxlen=1_000))  # as a new sandbox, which has seen no shard
    yield Runner(in_process), url
    database.close()


@pytest.fixture
def send(provider, runner):
    """The service of `sam local start-api`, asked without a socket."""
    from samcli.local.apigw.local_apigw_service import LocalApigwService

    service: Any = LocalApigwService(provider.api, runner[0], None, 3000, "127.0.0.1")
    service.create()
    client = service._app.test_client()

    def ask(method: str, path: str, headers, body: bytes) -> tuple[int, bytes]:
        answer = client.open(path, method=method, headers=dict(headers), data=body or None)
        return answer.status_code, answer.get_data()

    return ask


# ------------------------------------------------------------------ routes and events


def test_sam_local_finds_every_route_with_its_function_and_its_authorizer(provider, in_process):
    found = {
        (
            method,
            route.path,
            route.function_name,
            route.authorizer_object.lambda_name if route.authorizer_object else None,
        )
        for route in provider.api.routes
        for method in route.methods
    }
    assert found == {
        (route.method, route.path, route.integration.function, "AuthorizerFunction" if route.authorized else None)
        for route in in_process.stack.api.routes
        if isinstance(route.integration, Invoke)
    }


def test_json_reaches_the_functions_as_it_does_on_aws(provider):
    assert provider.api.binary_media_types == ["application/json"]


def test_every_route_is_asked(in_process):
    asked = {(ask.method, ask.path, not ask.open) for ask in sam_local.ROUTES}
    functions = [route for route in in_process.stack.api.routes if isinstance(route.integration, Invoke)]
    assert asked == {(route.method, route.path, route.authorized) for route in functions}


def test_the_service_of_sam_local_answers_every_route_as_expected(send, caplog):
    caplog.set_level(logging.CRITICAL)  # a refused request is logged with a traceback
    assert list(sam_local.routes(send)) == []


def test_every_event_is_answered_as_expected(runner):
    handlers, url = runner
    assert (
        list(sam_local.events(lambda function, path: handlers.answer(function, json.loads(path.read_text())), url))
        == []
    )


def test_what_is_not_as_expected_is_said():
    faults = list(sam_local.routes(lambda method, path, headers, body: (500, b'{"id": 1}')))
    guarded = [ask.path for ask in sam_local.ROUTES if not ask.open]
    assert len(faults) == len(sam_local.ROUTES) + len(guarded) + sam_local.MOST_REFUSED + 2


# ------------------------------------------------------------------ how it is started


@pytest.mark.parametrize("command", [["local.sam"], ["local.sam", "start-api"], ["tests.sam_local"]])
def test_without_docker_it_is_one_line(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "PYTHONPATH": "layers/registry"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "sam local needs Docker, which is not installed: make run needs none\n"


def test_docker_that_does_not_run_is_said(tmp_path, monkeypatch):
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sam.SamError, match="does not run: start it"):
        sam.require_docker()


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://u:p@127.0.0.1:5433/d", "postgresql://u:p@host.docker.internal:5433/d"),
        (
            "postgresql://u:p%40@localhost/d?sslmode=require",
            "postgresql://u:p%40@host.docker.internal/d?sslmode=require",
        ),
        ("postgresql://[::1]:5433/d", "postgresql://host.docker.internal:5433/d"),
        ("postgresql://u@db.example:5432/d", "postgresql://u@db.example:5432/d"),
    ],
)
def test_containers_reach_this_machine_by_its_name(url, seen):
    assert sam.as_containers_see(url) == seen


def test_nothing_of_the_users_account_or_shell_reaches_a_container(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "mine")
    monkeypatch.setenv("DATABASE_URL", "postgresql://mine")
    (tmp_path / "template.yaml").touch()
    monkeypatch.setattr(sam, "BUILD", tmp_path)
    values = sam.variables("postgresql://u:secret@127.0.0.1/d", "admin", "password")
    with sam.command(["start-api"], values) as (words, environment):
        assert not {name for name in environment if name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "DATABASE_URL")}
        assert not [word for word in words if "secret" in word]
        path = Path(words[words.index("--env-vars") + 1])
        assert path.stat().st_mode & 0o077 == 0
        assert (
            json.loads(path.read_text())["Parameters"]["DATABASE_URL"] == "postgresql://u:secret@host.docker.internal/d"
        )
    assert not path.exists()


def test_every_variable_of_a_function_that_names_what_sam_local_lacks_is_given(in_process):
    declared = {name for function in in_process.stack.functions.values() for name in function.environment}
    assert set(sam.variables("postgresql://x", "admin", "password")) <= declared


def test_the_database_listens_beyond_loopback_and_admits_our_own_networks_only(tmp_path):
    with sam.database(None, tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("0.0.0.0",)
        rules = connection.execute("SELECT address, auth_method FROM pg_hba_file_rules").fetchall()
        assert rules == [("127.0.0.1", "scram-sha-256"), ("samenet", "scram-sha-256")]
        assert connection.execute("SELECT count(*) FROM registry.mcp_servers").fetchone() == (0,)
    assert urlsplit(url).hostname == "127.0.0.1"


def test_a_database_that_is_not_there_is_one_line(tmp_path):
    with (
        pytest.raises(sam.SamError, match="can't be brought up to date"),
        sam.database("postgresql://127.0.0.1:1/x", tmp_path),
    ):
        pass
