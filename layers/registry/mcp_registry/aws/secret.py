"""Secrets Manager: the owner of boto3."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mcp_registry.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

# An execution environment reads its secret again after this long, so that a rotation reaches it.
MAX_AGE_SECONDS = 60.0
# One try of at most two seconds: botocore's own minute of patience is longer than the authorizer may live.
PATIENCE = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})

# Of who makes and deletes them, which takes longer. A caller waits for it, ten seconds in all.
WRITING = Config(connect_timeout=1, read_timeout=4, retries={"total_max_attempts": 1})

_client: SecretsManagerClient | None = None
_cache: dict[str, tuple[float, dict[str, str]]] = {}


class Gone(Exception):
    """There is no such secret."""


def connect(patience: Config = PATIENCE) -> SecretsManagerClient:
    """The client, which is made once, with the patience of who is first. Nothing is asked over the network yet."""
    global _client
    if _client is None:
        _client = boto3.client("secretsmanager", config=patience)
    return _client


def read(arn: str) -> dict[str, str]:
    """The key-value pairs of a secret, at most a minute old.

    Where Secrets Manager cannot be reached, the last value that was read goes on being served; where it answers that
    the secret is gone or closed to us, nothing is. Raises botocore's error where there is no value to serve.
    """
    now = time.monotonic()
    cached = _cache.get(arn)
    if cached is not None and now - cached[0] < MAX_AGE_SECONDS:
        return cached[1]
    try:
        pairs = json.loads(connect().get_secret_value(SecretId=arn)["SecretString"])
    except (BotoCoreError, ClientError) as error:
        if cached is None or _is_refusal(error):
            raise
        pairs = cached[1]
    _cache[arn] = (now, pairs)
    return pairs


def _is_refusal(error: Exception) -> bool:
    """Whether Secrets Manager answered, and that it will not give the secret: neither silence nor throttling."""
    if not isinstance(error, ClientError):
        return False
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return status < 500 and "Throttling" not in error.response.get("Error", {}).get("Code", "")


def fetch(name: str) -> dict[str, Any]:
    """What a secret holds, asked of Secrets Manager each time. Raises Gone, and Unavailable where it cannot be had."""
    try:
        return json.loads(connect().get_secret_value(SecretId=name)["SecretString"])
    except (BotoCoreError, ClientError) as error:
        # One that is deleted is in the way of being so for a moment, and refused as such.
        if _code(error) in ("ResourceNotFoundException", "InvalidRequestException"):
            raise Gone from None
        raise Unavailable(f"Secrets Manager {_code(error)}") from None


def make(name: str, pairs: Mapping[str, Any], description: str) -> None:
    """Make a secret of this name. Raises Unavailable where Secrets Manager does not make it."""
    try:
        connect(WRITING).create_secret(Name=name, SecretString=json.dumps(pairs), Description=description)
    except (BotoCoreError, ClientError) as error:
        raise Unavailable(f"Secrets Manager {_code(error)}") from None


def remove(name: str) -> None:
    """Delete a secret for good, if it is there. Raises Unavailable where Secrets Manager does not."""
    try:
        connect(WRITING).delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    except (BotoCoreError, ClientError) as error:
        if _code(error) != "ResourceNotFoundException":
            raise Unavailable(f"Secrets Manager {_code(error)}") from None


def _code(error: Exception) -> str:
    """What Secrets Manager calls an error, or the exception's class. Never its message, which may hold the request."""
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
    return code or type(error).__name__
