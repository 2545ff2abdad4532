"""Credentials in Secrets Manager, with moto in the place of AWS."""

import json
import socket
import time
from base64 import b64encode

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto import mock_aws

from mcp_registry import auth, secret


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
