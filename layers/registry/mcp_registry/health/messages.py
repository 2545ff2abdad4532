"""What travels by queue: endpoints to be checked or introduced, and what was found of them. An owner of msgspec.

The queues are written by our own functions only. What does not have this form is refused all the same, because a
message may be older than the code that reads it, and because those functions talk to strangers: whoever gets hold of
one of them is to make it say no more than a verdict, in words that cannot be taken for ours.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple, TypedDict, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

from mcp_registry.errors import Malformed

# Who is up is introduced every so many minutes, unless the setting of this name says otherwise.
INTRODUCE_MINUTES: Final = 60

Id = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Moment = Annotated[datetime, Meta(tz=True)]
Verdict = Literal[
    "healthy", "gated", "limited", "not_mcp", "mcp_error", "http_error", "timeout", "refused", "dns", "tls", "blocked"
]
Milliseconds = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# Every sentence of a check is ours, short and ASCII. What is not was not written by a prober of ours, and would be told
# to people and agents as the registry's own words: it is refused as it comes in.
MAX_SENTENCE = 300
Sentence = Annotated[str, Meta(max_length=MAX_SENTENCE, pattern=r"^[ -~]*\Z")]

# Of the findings `refused` the one that a fault of ours can look like: there is no route to the host. By any other the
# host has been heard.
UNREACHABLE: Final = "The host cannot be reached"


# What cannot be seen, or turns around what stands beside it: control and format characters, spaces but the one, private
# use, and letters without ink. A prober writes each as an escape (`dial.introduction.shown`).
UNSEEN: Final = (
    r"\x00-\x1f\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5\u180e"
    r"\u2000-\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u2800\u3000\u3164\ud800-\uf8ff\ufe00-\ufe0f\ufeff\uffa0"
    r"\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    r"\U000e0020-\U000e007f\U000e0100-\U000e01ef\U000f0000-\U0010ffff"
)
# The words of a stranger, as they may be shown: of an answer, and what it calls itself and the like.
Seen = Annotated[str, Meta(max_length=500, pattern=rf"^[^{UNSEEN}]*\Z")]
MAX_WORD: Final = 200
Word = Annotated[str, Meta(max_length=MAX_WORD, pattern=rf"^[^{UNSEEN}]*\Z")]
_SHOWN: Final = re.compile(rf"[^{UNSEEN}]*\Z")
# How deep the values go that a server says of itself (`visits`).
MAX_DEPTH: Final = 4
# What `pulse.write` makes.
Pulse = Annotated[str, Meta(max_length=500, pattern=r"^[ -~]*\Z")]
Era = Literal["modern", "legacy", "sse"]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Seconds = Annotated[int, Meta(ge=0, le=300)]
# JSON, compressed by zlib, in base64.
Packed = Annotated[str, Meta(max_length=250 * 1024, pattern=r"^[A-Za-z0-9+/]*={0,2}\Z")]
# What may come of unpacking one: an introduction reads 4 MiB, and JSON may write a character in six bytes.
MAX_UNPACKED: Final = 32 << 20


class Server(NamedTuple):
    """A server to be checked, as the release before sends it, which knows no endpoints."""

    id: Id
    endpoint_url: str
    health_url: str | None


class Endpoint(NamedTuple):
    """An endpoint to be checked: what is known of it that decides how.

    `pulse`: what is asked, and what has to be answered (`pulse.read`); None where nothing cheap tells, or it was never
    introduced. `era`: the way of the last introduction that succeeded. `verdict`: of the last check; None: unknown.
    """

    server_id: Id
    id: Id
    url: str
    health_url: str | None
    pulse: str | None
    era: str | None
    verdict: Verdict | None


class Evidence(NamedTuple):
    """What was asked, and what was answered; `status` and `media_type` are None where nothing was."""

    asked: Annotated[str, Meta(max_length=100, pattern=r"^[ -~]*\Z")]
    status: Annotated[int, Meta(ge=0, le=999)] | None
    media_type: Seen | None
    excerpt: Seen
    took_ms: Milliseconds


class Finding(NamedTuple):
    """What one check found. `age_ms` is how long before the message was sent it had its verdict.

    `endpoint_id`: None where the release before sent it: the endpoint that its server has. `retry_after`: of `limited`,
    in how many seconds to ask again. `in_doubt`: it is not as it was when it was introduced, and has to be introduced
    again. `evidence`: where the verdict is another one than before.
    """

    server_id: Id
    verdict: Verdict
    status_code: Annotated[int, Meta(ge=0, le=999)] | None
    response_time_ms: Milliseconds
    error: Sentence | None
    age_ms: Milliseconds
    endpoint_id: Id | None = None
    retry_after: Seconds | None = None
    in_doubt: bool = False
    evidence: Annotated[Sequence[Evidence], Meta(max_length=10)] = ()


class Visit(NamedTuple):
    """An endpoint to be introduced to. `era`: the way of the last introduction that succeeded.

    `pulse`: what was learnt of it before; None where nothing was, or it has just been registered. `seen`: the digest of
    what it offered when it was last asked (`fingerprint.whole`); None where all of it is wanted. `has_headers`: an
    operator has given headers for it, which the introduction may read.
    """

    server_id: Id
    id: Id
    url: str
    health_url: str | None
    era: str | None
    verdict: Verdict | None
    pulse: str | None = None
    seen: Hex | None = None
    has_headers: bool = False


class Tick(Struct, forbid_unknown_fields=True):
    """A sweep is due."""

    slot: Moment


class Shard(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Endpoints of one sweep that one function checks, in one of so many `shards`.

    All endpoints of a server are in one shard. The `first` of them were left out of the sweep before. `servers`: what
    the release before sends in their place.
    """

    slot: Moment
    shard: Annotated[int, Meta(ge=0)]
    servers: list[Server] = []
    first: Annotated[int, Meta(ge=0)] = 0
    shards: Annotated[int, Meta(ge=1)] = 1
    endpoints: list[Endpoint] = []


class Findings(Struct, forbid_unknown_fields=True):
    """What came of a shard. Endpoints that could not be checked fairly are not in it."""

    slot: Moment
    shard: Annotated[int, Meta(ge=0)]
    findings: list[Finding]


class Visits(Struct, forbid_unknown_fields=True):
    """Endpoints that one function introduces the registry to. `asked_at`: when they were read from the database."""

    asked_at: Moment
    endpoints: list[Visit]


class Digest(TypedDict):
    """The digests of a list of tools."""

    raw: Hex
    prompt: Hex
    contract: Hex


class Observed(TypedDict, total=False):
    """What a server that is up says of itself, and how much there is of it. What is not named here is dropped."""

    protocol_versions: Annotated[list[Word], Meta(max_length=100)]
    server_info: dict[str, Any]
    capabilities: dict[str, Any]
    tools_count: Count
    prompts_count: Count
    resources_count: Count
    templates_count: Count
    incomplete: Annotated[dict[Word, Seen], Meta(max_length=10)]
    digest: Digest | None


class Auth(TypedDict, total=False):
    """How one gets in, of a server that is gated (`dial.introduction.Gate`)."""

    status: Annotated[int, Meta(ge=0, le=999)]
    schemes: Annotated[Sequence[Word], Meta(max_length=100)]
    realm: Word | None
    resource_metadata: Word | None
    issuer: Word | None
    scopes: Annotated[Sequence[Word], Meta(max_length=100)]
    header: Word | None
    location: Word | None


class Introduced(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What one introduction found, and what was learnt of the endpoint.

    `pulse` and `era`: None where none tells, or none worked. `seen`: the digest of what it offers
    (`fingerprint.whole`); None where that is not known, and where it is up `trouble` says why. `offer`: all of it,
    packed (`pack`), where it is another one than the visit knew. `wavers`: it was yet another one at a second look
    right after the first. `ttl_ms`: how long the server itself says that its list will do.
    """

    finding: Finding
    pulse: Pulse | None = None
    era: Era | None = None
    introduction: Observed | None = None
    auth: Auth | None = None
    seen: Hex | None = None
    offer: Packed | None = None
    trouble: Sentence | None = None
    wavers: bool = False
    ttl_ms: Milliseconds | None = None


class Introductions(Struct, forbid_unknown_fields=True):
    """What came of visits. Endpoints about which nothing was found out, by a fault of ours, are not in it."""

    asked_at: Moment
    introduced: list[Introduced]


Message = Tick | Shard | Findings | Visits | Introductions
Kind = TypeVar("Kind", Tick, Shard, Findings, Visits, Introductions)


def introduce_minutes() -> int:
    """How many minutes lie between two introductions of an endpoint."""
    return int(os.environ.get("INTRODUCE_MINUTES", INTRODUCE_MINUTES))


def encode(message: Message) -> str:
    """The message as JSON."""
    return msgspec.json.encode(message).decode()


def pack(value: object) -> str:
    """A JSON value as it travels in a message. Raises ValueError where it holds NaN or half a character."""
    return b64encode(zlib.compress(json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii"))).decode()


def unpack(packed: str) -> Any:
    """The JSON value that was packed. Raises Malformed where there is none, or it is longer than MAX_UNPACKED."""
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(b64decode(packed, validate=True), MAX_UNPACKED)
        if not reader.eof:
            raise ValueError
        return json.loads(text)
    except (ValueError, RecursionError, zlib.error) as error:
        raise Malformed("not an offer") from error


def array(numbers: Sequence[int | None]) -> str:
    """Numbers as an array of Postgres ("Array Input and Output Syntax"), in a twentieth of the time of str and join."""
    return f"{{{msgspec.json.encode(numbers).decode()[1:-1]}}}"


def texts(texts: Sequence[str | None]) -> str:
    """Texts as an array of Postgres. A NUL is none that Postgres takes."""
    return f"{{{','.join('null' if text is None else _quoted(text) for text in texts)}}}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def tick(body: str) -> Tick:
    """Read a Tick. Raises Malformed."""
    return _decode(body, Tick)


def shard(body: str) -> Shard:
    """Read a Shard. Raises Malformed."""
    return _decode(body, Shard)


def findings(body: str) -> Findings:
    """Read Findings. Raises Malformed."""
    return _decode(body, Findings)


def visits(body: str) -> Visits:
    """Read Visits. Raises Malformed."""
    return _decode(body, Visits)


def introductions(body: str) -> Introductions:
    """Read Introductions. Raises Malformed."""
    found = _decode(body, Introductions)
    for one in found.introduced:
        for name in ("server_info", "capabilities"):
            if one.introduction and not _is_shown(one.introduction.get(name), MAX_DEPTH):
                raise Malformed("not a Introductions")
    return found


def _is_shown(value: object, depth: int) -> bool:
    """Whether all words of a stranger's value are as they may be shown, and none of it is deeper than this.

    A check of our own, because msgspec 0.22.0 frees twice what it made of a type that nests unions with bounds.
    """
    if isinstance(value, str):
        return len(value) <= MAX_WORD and _SHOWN.match(value) is not None
    if isinstance(value, dict):
        named = cast("dict[str, object]", value)
        return depth > 0 and all(_is_shown(key, 0) and _is_shown(one, depth - 1) for key, one in named.items())
    if isinstance(value, list):
        return depth > 0 and all(_is_shown(one, depth - 1) for one in cast("list[object]", value))
    return True


def _decode(body: str, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not a {kind.__name__}") from error
