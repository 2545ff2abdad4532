"""Secrets Manager: the owner of boto3."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

# An execution environment reads its secret again after this long, so that a rotation reaches it.
MAX_AGE_SECONDS = 60.0
# One try of at most two seconds: botocore's own minute of patience is longer than the authorizer may live.
PATIENCE = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})

_client: SecretsManagerClient | None = None
_cache: dict[str, tuple[float, dict[str, str]]] = {}


def connect() -> SecretsManagerClient:
    """The client, which is made once. Nothing is asked over the network yet."""
    global _client
    if _client is None:
        _client = boto3.client("secretsmanager", config=PATIENCE)
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
