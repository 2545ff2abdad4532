"""Credentials in Secrets Manager, with moto in the place of AWS."""

import json
import socket
import time
from base64 import b64encode

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto import mock_aws

from local import credentials
from mcp_registry import auth, secret
from tests.conftest import ROOT


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
    started = time.monotonic()
    with pytest.raises(BotoCoreError):
        permits("first")
    assert time.monotonic() - started < 5  # the authorizer's timeout; it takes one second


@pytest.mark.usefixtures("aws")
def test_a_secret_that_was_never_read_is_an_error_and_lets_nobody_in(monkeypatch):
    monkeypatch.setenv("REGISTRY_SECRET_ARN", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:none")
    with pytest.raises(ClientError):
        permits("first")


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
