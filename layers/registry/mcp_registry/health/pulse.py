"""The pulse: which cheap question tells of a server that it is as it was when it was introduced.

Pure: what was asked and answered comes in, what is learnt of it goes out. Nothing here says that a server is up or
down. Whatever is not as before is in doubt, and who is in doubt is introduced again (`dial.introduction`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from mcp_registry.dial.introduction import META, MODERN, OFFERED

# A session that nobody has. It is a UUID, because php-sdk up to 0.5 dies of any other form.
UNKNOWN_SESSION: Final = "8f14e45f-ceea-4e7a-9c4b-0d6e5b1f7a2c"
# A path that cannot exist: what is answered there is answered to anything, and tells of no server.
NONSENSE: Final = "b5c1-no-such-path-9e7d"

# What came later than this is not quick, and no pulse.
QUICK_SECONDS: Final = 2.0
# A server may take so many times as long as it usually does, within these bounds.
PATIENCE: Final = 3.0
MIN_SECONDS: Final = 5.0
MAX_SECONDS: Final = 20.0
# Beyond this the shape of an answer is that of a stack of calls, which is another one each time.
MAX_DEPTH: Final = 3
EVENTS: Final = "text/event-stream"


class Question(NamedTuple):
    """One request: its method, the headers that are its own, and its body. `declared`: it goes to the health URL."""

    name: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    declared: bool = False


class Signature(NamedTuple):
    """An answer without its values: status, media type, and of JSON which names and kinds it has."""

    status: int
    media_type: str
    shape: str


class Sample(NamedTuple):
    """What came back to a question once. `signature` is None where nothing did; `opened`: it named a session."""

    signature: Signature | None
    seconds: float
    opened: bool = False


class Pulse(NamedTuple):
    """What is asked from now on, what has to be answered, and for how long it is waited for."""

    question: str
    signature: Signature
    patience: float


def _post(name: str, message: Mapping[str, Any] | bytes, **headers: str) -> Question:
    body = message if isinstance(message, bytes) else json.dumps(message, separators=(",", ":")).encode()
    shared = {"Content-Type": "application/json", "Accept": f"application/json, {EVENTS}"}
    return Question(name, "POST", {**shared, **{key.replace("_", "-"): value for key, value in headers.items()}}, body)


# From the cheapest on: a bridge starts a process for a question that it understands.
QUESTIONS: Final = (
    Question("health_url", "GET", {"Accept": "*/*"}, b"", declared=True),
    _post("no JSON", b"no JSON"),
    _post(
        "unknown session",
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        Mcp_Session_Id=UNKNOWN_SESSION,
        MCP_Protocol_Version=OFFERED,
    ),
    _post(
        "server/discover",
        {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}},
        MCP_Protocol_Version=MODERN,
        Mcp_Method="server/discover",
    ),
    _post("ping", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, MCP_Protocol_Version=OFFERED),
)


def questions(*, declared: bool) -> tuple[Question, ...]:
    """What may be asked of a server that was introduced, from the cheapest on. `declared`: it has a health URL."""
    return tuple(question for question in QUESTIONS if declared or not question.declared)


def signature(status: int, media_type: str, body: bytes) -> Signature:
    """The signature of an answer. The media type is without parameters and in lower case."""
    if media_type == EVENTS:
        body = b"\n".join(line[5:] for line in body.splitlines() if line.startswith(b"data:"))
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return Signature(status, media_type, "")
    return Signature(status, media_type, _shape(value, 0))


def _shape(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        if depth == MAX_DEPTH:
            return "{}"
        found = cast("dict[str, Any]", value)
        return f"{{{','.join(f'{json.dumps(key)}:{_shape(found[key], depth + 1)}' for key in sorted(found))}}}"
    # How many there are of something, and which, is a value.
    return "[]" if isinstance(value, list) else "null" if value is None else type(cast("object", value)).__name__


def learnt(samples: Mapping[str, Sequence[Sample]], nonsense: Mapping[str, Signature | None]) -> Pulse | None:
    """The cheapest question that tells of a server, from what was answered to each twice; None where none does.

    `nonsense`: what was answered to the same question at a path beside that cannot exist; None where nothing was.
    """
    for question in QUESTIONS:
        asked = samples.get(question.name, ())
        first = asked[0].signature if len(asked) > 1 else None
        if first is None or not _tells(question, first) or first == nonsense.get(question.name):
            continue
        if all(one.signature == first and not one.opened and one.seconds <= QUICK_SECONDS for one in asked):
            return Pulse(question.name, first, patience([one.seconds for one in asked]))
    return None


def _tells(question: Question, answer: Signature) -> bool:
    """Whether an answer can tell of a server that works.

    A 5xx is also what is answered for one that does not, a 429 is about the caller, and a health URL is to say 2xx. Who
    takes anything without a word, as a bridge does by 202, has asked nobody behind it.
    """
    if question.declared:
        return 200 <= answer.status < 300
    if answer.status < 300 and not answer.shape.startswith("{"):
        return False
    return answer.status < 500 and answer.status not in (402, 429) and not 300 <= answer.status < 400


def patience(seconds: Sequence[float]) -> float:
    """How long a server is waited for that usually takes as long as these."""
    usual = sorted(seconds)[max(len(seconds) * 95 // 100 - 1, len(seconds) // 2)] if seconds else 0.0
    return min(max(usual * PATIENCE, MIN_SECONDS), MAX_SECONDS)


def is_as_before(pulse: Pulse, sample: Sample) -> bool:
    """Whether an answer says that nothing has changed. If not, it says nothing more than that."""
    return sample.signature == pulse.signature and not sample.opened and sample.seconds <= pulse.patience
