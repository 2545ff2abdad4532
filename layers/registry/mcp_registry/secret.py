"""Secrets Manager: the owner of boto3."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

# An execution environment reads its secret again after this long, so that a rotation reaches it.
MAX_AGE_SECONDS = 60.0

_client: SecretsManagerClient | None = None
_cache: dict[str, tuple[float, dict[str, str]]] = {}


def read(arn: str) -> dict[str, str]:
    """The key-value pairs of a secret, at most a minute old.

    Where Secrets Manager cannot be reached, the last value that was read goes on being served. Raises botocore's
    error where there is none yet.
    """
    global _client
    now = time.monotonic()
    cached = _cache.get(arn)
    if cached is not None and now - cached[0] < MAX_AGE_SECONDS:
        return cached[1]
    if _client is None:
        _client = boto3.client("secretsmanager")
    try:
        pairs = json.loads(_client.get_secret_value(SecretId=arn)["SecretString"])
    except Exception:
        if cached is None:
            raise
        pairs = cached[1]
    _cache[arn] = (now, pairs)
    return pairs
