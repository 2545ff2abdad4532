"""Events to EventBridge: an owner of boto3, with `secret` and `queues`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mcp_registry.errors import Unavailable

# Of one request, and bytes of all its events together ("PutEvents", EventBridge API Reference; "Calculating event entry
# size").
MOST: Final = 10
MAX_BYTES: Final = 256 * 1024
# Three tries of at most two seconds each, as for SQS.
PATIENCE = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 3, "mode": "standard"})

_client: Any = None


class Event(NamedTuple):
    """One event: when that was (RFC 3339), of what kind, and the JSON that says more."""

    time: str
    kind: str
    detail: str


def put(bus: str, source: str, events: Sequence[Event]) -> list[bool]:
    """Put at most `MOST` events on a bus, and say of each whether the bus has taken it.

    Raises Unavailable where EventBridge does not answer, or refuses them all.
    """
    global _client
    if _client is None:
        _client = boto3.client("events", config=PATIENCE)
    try:
        answer = _client.put_events(
            Entries=[
                {
                    "EventBusName": bus,
                    "Source": source,
                    "Time": event.time,
                    "DetailType": event.kind,
                    "Detail": event.detail,
                }
                for event in events
            ]
        )
    except (BotoCoreError, ClientError) as error:
        raise Unavailable(f"EventBridge {type(error).__name__}") from error
    # In the order of the request; what was not taken has an error and no id.
    return ["EventId" in entry for entry in answer["Entries"]]
