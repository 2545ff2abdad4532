"""Credentials in Secrets Manager, with moto in the place of AWS."""

import json
import logging
import socket
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError
from moto import mock_aws

from local import credentials
from mcp_registry.access import auth
from mcp_registry.aws import secret
from tests.conftest import ROOT, load_module


@pytest.fixture(autouse=True)
def account(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(secret, "_client", None)
    monkeypatch.setattr(secret, "_cache", {})


@pytest.fixture
def aws():
    with mock_aws():
        yield


@pytest.fixture
def silent(monkeypatch):
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield


@pytest.fixture
def arn(aws, monkeypatch):
    value = json.dumps({"username": "admin", "password": "first"})
    created = boto3.client("secretsmanager").create_secret(Name="credentials", SecretString=value)
    monkeypatch.setenv("REGISTRY_SECRET_ARN", created["ARN"])
    return created["ARN"]


def put(arn: str, **pairs: str) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=json.dumps(pairs))


def permits(password: str) -> bool:
    return auth.permits("Basic " + b64encode(f"admin:{password}".encode()).decode())


def test_the_credentials_come_from_the_secret(arn):
    assert permits("first")
    assert not permits("second")


def test_while_a_rotation_is_under_way_both_credentials_are_valid(arn, monkeypatch):
    put(arn, username="admin", password="second", previous_username="admin", previous_password="first")
    assert permits("first")
    assert permits("second")
    monkeypatch.setattr(secret, "_cache", {})
    put(arn, username="admin", password="second")
    assert permits("second")
    assert not permits("first")


@pytest.mark.parametrize("half", ["username", "password"])
def test_half_a_pair_in_the_secret_is_no_credential(arn, half):
    pair = {"username": "admin", "password": "first"}
    put(arn, **pair, **{f"previous_{half}": "previous"})
    assert auth.credentials() == [(b"admin", b"first")]
    secret._cache.clear()
    put(arn, **{half: pair[half]})
    with pytest.raises(auth.NotConfigured):
        auth.credentials()


def test_a_secret_is_read_once_a_minute(arn, monkeypatch):
    assert permits("first")
    put(arn, username="admin", password="second")
    assert permits("first")
    monkeypatch.setattr(secret, "MAX_AGE_SECONDS", 0.0)
    assert permits("second")


def test_a_secret_that_was_deleted_lets_nobody_in_any_more(arn, monkeypatch):
    assert permits("first")
    boto3.client("secretsmanager").delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
    monkeypatch.setattr(secret, "MAX_AGE_SECONDS", 0.0)
    with pytest.raises(ClientError):
        permits("first")


@pytest.mark.usefixtures("silent")
def test_when_secrets_manager_is_silent_the_last_secret_stays_valid(monkeypatch):
    monkeypatch.setenv("REGISTRY_SECRET_ARN", "arn")
    monkeypatch.setattr(secret, "_cache", {"arn": (float("-inf"), {"username": "admin", "password": "first"})})
    assert permits("first")
    assert not permits("second")


@pytest.mark.usefixtures("silent")
def test_a_silent_secrets_manager_is_given_up_before_the_authorizer_is(monkeypatch):
    monkeypatch.setenv("REGISTRY_SECRET_ARN", "arn")
    with pytest.raises(BotoCoreError):
        permits("first")  # which loads boto3: on a busy machine that alone takes long
    started = time.monotonic()
    with pytest.raises(BotoCoreError):
        permits("first")
    assert time.monotonic() - started < 10  # the authorizer's timeout; it takes one second


@pytest.mark.usefixtures("aws")
def test_a_secret_that_was_never_read_is_an_error_and_lets_nobody_in(monkeypatch):
    monkeypatch.setenv("REGISTRY_SECRET_ARN", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:none")
    with pytest.raises(ClientError):
        permits("first")


# ------------------------------------------------------------------ when it is read, and what a failure means


class SecretsManager:
    """One that answers what it is told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.answer: dict[str, str] | Exception = {"username": "admin"}
        self.asked: list[str] = []

    def get_secret_value(self, **arguments: str) -> dict[str, str]:
        (arn,) = arguments.values()
        assert arguments == {"SecretId": arn}
        self.asked.append(arn)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"SecretString": json.dumps(self.answer)}


@pytest.fixture
def manager(monkeypatch):
    manager = SecretsManager()
    monkeypatch.setattr(secret, "_client", manager)
    return manager


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""
    return lambda seconds: monkeypatch.setattr(secret.time, "monotonic", lambda: float(seconds))


def refusal(status: int | None, code: str | None = "AccessDeniedException") -> ClientError:
    told: Any = {} if status is None else {"ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(told | ({} if code is None else {"Error": {"Code": code}}), "GetSecretValue")


SILENCE = [
    EndpointConnectionError(endpoint_url="https://nowhere"),
    refusal(500),
    refusal(503),
    refusal(None),
    refusal(400, "ThrottlingException"),
    refusal(429, "RequestThrottling"),
]
REFUSALS = [refusal(400), refusal(403), refusal(499), refusal(400, "ResourceNotFoundException"), refusal(400, None)]


def test_a_secret_is_served_for_a_minute_and_then_read_again(manager, at):
    at(100)
    assert secret.read("arn") == {"username": "admin"}
    manager.answer = {"username": "other"}
    at(159.9)
    assert secret.read("arn") == {"username": "admin"}
    at(160)
    assert secret.read("arn") == {"username": "other"}
    at(219.9)
    secret.read("arn")
    assert manager.asked == ["arn", "arn"]


def test_each_secret_is_remembered_by_its_own_name(manager, at):
    at(0)
    secret.read("one")
    manager.answer = {"username": "other"}
    assert secret.read("two") == {"username": "other"}
    assert secret.read("one") == {"username": "admin"}
    assert manager.asked == ["one", "two"]


@pytest.mark.parametrize("error", SILENCE, ids=str)
def test_silence_and_throttling_leave_the_last_secret_for_another_minute(manager, at, error):
    at(0)
    secret.read("arn")
    manager.answer = error
    for seconds in (60, 119):
        at(seconds)
        assert secret.read("arn") == {"username": "admin"}
    assert len(manager.asked) == 2
    at(120)
    manager.answer = {"username": "other"}
    assert secret.read("arn") == {"username": "other"}


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_a_refusal_closes_a_secret_that_was_read_before(manager, at, error):
    at(0)
    secret.read("arn")
    manager.answer = error
    for _ in range(2):
        at(60)
        with pytest.raises(ClientError):
            secret.read("arn")


@pytest.mark.parametrize("error", [*SILENCE, *REFUSALS], ids=str)
def test_without_a_last_secret_every_failure_is_an_error(manager, at, error):
    at(0)
    manager.answer = error
    with pytest.raises(type(error)):
        secret.read("arn")


def test_one_client_with_little_patience_is_made(arn):
    secret.read(arn)
    client = secret._client
    secret._cache.clear()
    secret.read(arn)
    assert client is not None and client is secret._client
    config: Any = client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (1, 1)
    assert config.retries["total_max_attempts"] == 1
    assert client.meta.service_model.service_name == "secretsmanager"


def test_the_authorizer_makes_its_client_before_the_first_request_and_asks_for_nothing_yet(arn):
    load_module(ROOT / "functions" / "authorizer" / "app.py", "authorizer_app")
    assert secret._client is not None and secret._cache == {}


def test_a_new_execution_environment_has_neither_a_client_nor_a_secret_and_reads_one(arn):
    fresh = load_module(Path(secret.__file__), "fresh_secret")
    assert fresh.read(arn) == {"username": "admin", "password": "first"}


def test_no_library_logs_what_it_reads_at_the_level_that_lambda_sets_for_all(arn, caplog):
    """Lambda sets it before it imports a function."""
    caplog.set_level(logging.DEBUG)
    package = Path(secret.__file__).parent
    load_module(package / "__init__.py", "fresh_aws")
    fresh = load_module(package / "secret.py", "fresh_secret")
    assert fresh.read(arn)["password"] == "first"
    assert caplog.records == []


# ------------------------------------------------------------------ changing them (local/credentials.py)


def held(arn: str) -> dict[str, str]:
    return json.loads(boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])


def test_nobody_is_refused_while_the_password_changes(arn, monkeypatch, capsys):
    monkeypatch.setattr(secret, "MAX_AGE_SECONDS", 0.0)
    assert credentials.main(["begin", arn]) == 0
    new = held(arn)["password"]
    assert new != "first" and len(new) == 32
    assert permits("first") and permits(new)
    assert credentials.main(["finish", arn]) == 0
    assert permits(new) and not permits("first")
    assert set(held(arn)) == {"username", "password"}
    output = capsys.readouterr()
    assert new not in output.out + output.err and "first" not in output.out + output.err


def test_a_second_rotation_waits_for_the_first(arn, capsys):
    assert credentials.main(["begin", arn]) == 0
    before = held(arn)
    assert credentials.main(["begin", arn]) == 1
    assert held(arn) == before and "finish it" in capsys.readouterr().err


def test_there_is_nothing_to_finish_before_there_is_a_beginning(arn, capsys):
    assert credentials.main(["finish", arn]) == 1
    assert "begin one" in capsys.readouterr().err


def test_a_secret_that_is_another_or_missing_is_said_to_be(arn, capsys):
    put(arn, key="value")
    assert credentials.main(["begin", arn]) == 1
    assert credentials.main(["begin", "nowhere"]) == 1
    assert "CredentialsSecret" in capsys.readouterr().err


def test_the_command_knows_how_long_others_remember():
    assert credentials.CACHED_SECONDS == secret.MAX_AGE_SECONDS
    assert f"ReauthorizeEvery: {credentials.REMEMBERED_SECONDS}\n" in (ROOT / "template.yaml").read_text()
