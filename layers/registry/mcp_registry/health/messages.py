"""What travels by queue: a shard of servers to be probed, and what was found of them. An owner of msgspec.

The queues are written by our own functions only. What does not have this form is refused all the same, because a
message may be older than the code that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from mcp_registry.errors import Malformed

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Moment = Annotated[datetime, Meta(tz=True)]
Verdict = Literal["healthy", "gated", "not_mcp", "http_error", "timeout", "refused", "dns", "tls", "blocked"]
Milliseconds = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# Every sentence of a check is ours, short and ASCII. What is not was not written by a prober of ours, and would be told
# to people and agents as the registry's own words: it is refused as it comes in.
MAX_SENTENCE = 300
Sentence = Annotated[str, Meta(max_length=MAX_SENTENCE, pattern=r"^[ -~]*\Z")]

# Of the findings `refused` the one that a fault of ours can look like: there is no route to the host. By any other the
# host has been heard.
UNREACHABLE: Final = "The host cannot be reached"


class Server(NamedTuple):
    """A server to be probed."""

    id: Id
    endpoint_url: str
    health_url: str | None


class Finding(NamedTuple):
    """What one probe found. `age_ms` is how long before the message was sent it had its verdict."""

    server_id: Id
    verdict: Verdict
    status_code: Annotated[int, Meta(ge=0, le=999)] | None
    response_time_ms: Milliseconds
    error: Sentence | None
    age_ms: Milliseconds


class Tick(Struct, forbid_unknown_fields=True):
    """A sweep is due."""

    slot: Moment


class Shard(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Servers of one sweep that one function probes, in one of so many `shards`.

    The `first` of them were left out of the sweep before.
    """

    slot: Moment
    shard: Annotated[int, Meta(ge=0)]
    servers: list[Server]
    first: Annotated[int, Meta(ge=0)] = 0
    shards: Annotated[int, Meta(ge=1)] = 1


class Findings(Struct, forbid_unknown_fields=True):
    """What came of a shard. Servers that could not be checked fairly are not in it."""

    slot: Moment
    shard: Annotated[int, Meta(ge=0)]
    findings: list[Finding]


Message = Tick | Shard | Findings
Kind = TypeVar("Kind", Tick, Shard, Findings)


def encode(message: Message) -> str:
    """The message as JSON."""
    return msgspec.json.encode(message).decode()


def array(numbers: Sequence[int | None]) -> str:
    """Numbers as an array of Postgres ("Array Input and Output Syntax"), in a twentieth of the time of str and join."""
    return f"{{{msgspec.json.encode(numbers).decode()[1:-1]}}}"


def tick(body: str) -> Tick:
    """Read a Tick. Raises Malformed."""
    return _decode(body, Tick)


def shard(body: str) -> Shard:
    """Read a Shard. Raises Malformed."""
    return _decode(body, Shard)


def findings(body: str) -> Findings:
    """Read Findings. Raises Malformed."""
    return _decode(body, Findings)


def _decode(body: str, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not a {kind.__name__}") from error
