"""Messages to SQS: an owner of boto3, with `secret` and `events`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mcp_registry.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# SendMessage takes a mebibyte since August 2025 ("Amazon SQS message quotas"), a quarter of it before; and what stands
# in for SQS may be older.
MAX_BODY = 250 * 1024
# Three tries of at most two seconds each: botocore's own patience is a minute for each.
PATIENCE = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 3, "mode": "standard"})

_client: SQSClient | None = None


def send(url: str, body: str, *, group: str | None = None) -> None:
    """Send a message of at most `MAX_BODY` bytes to the queue of this URL.

    `group` is for a FIFO queue: the message's group, and what it is deduplicated by within it for five minutes. Raises
    Unavailable where SQS does not take the message.
    """
    global _client
    if _client is None:
        _client = boto3.client("sqs", config=PATIENCE)
    try:
        if group is None:
            _client.send_message(QueueUrl=url, MessageBody=body)
        else:
            _client.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=group)
    except (BotoCoreError, ClientError) as error:
        raise Unavailable(f"SQS {type(error).__name__}") from error
