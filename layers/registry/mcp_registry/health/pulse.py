"""The pulse: which cheap question tells of a server that it is as it was when it was introduced.

Pure: what was asked and answered comes in, what is learnt of it goes out. Nothing here says that a server is up or
down. Whatever is not as before is in doubt, and who is in doubt is introduced again (`dial.introduction`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

from mcp_registry.dial.introduction import META, MODERN, OFFERED, PULSE_ID

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
# A shape that is longer than this is kept as its beginning and a digest of the whole.
MAX_SHAPE: Final = 120
SHAPE_BEGINNING: Final = 80
# Answers up to this length are remembered with their shape: nearly all come again, byte by byte, in the next sweep.
REMEMBERED: Final = 2_048
MEDIA_TYPE: Final = re.compile(r"[!#-\[\]-~]{0,100}")
EVENTS: Final = "text/event-stream"
# A result of JSON-RPC: nobody who answers anything to anybody can make one up.
RESULT: Final = '"jsonrpc":str,"result":{'
# What lies below an endpoint that is a plain HTTP service.
HEALTH: Final = "health"


class Question(NamedTuple):
    """One request: its method, the headers that are its own, and its body. `declared`: it goes to the health URL."""

    name: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    declared: bool = False

    @property
    def is_health(self) -> bool:
        """Whether it asks a page for its health, which has to say that it is good."""
        return self.declared or self is PLAIN


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
    # JSON that asks for nothing, in a version that has no sessions: who knows it looks no session up (a third of the
    # time that one of both eras takes for `server/discover`, 2026-11-30), and no handler dies of it as some do of no
    # JSON.
    _post("no request", b"{}", Mcp_Session_Id=UNKNOWN_SESSION, MCP_Protocol_Version=MODERN),
    _post("no JSON", b"no JSON"),
    _post(
        "unknown session",
        {"jsonrpc": "2.0", "id": PULSE_ID, "method": "ping"},
        Mcp_Session_Id=UNKNOWN_SESSION,
        MCP_Protocol_Version=OFFERED,
    ),
    # What a client asks for a stream of its own, and cannot read: who has none refuses, and starts nothing for it.
    Question(
        "no stream",
        "GET",
        {"Accept": "application/json", "Mcp-Session-Id": UNKNOWN_SESSION, "MCP-Protocol-Version": OFFERED},
        b"",
    ),
    _post(
        "server/discover",
        {"jsonrpc": "2.0", "id": PULSE_ID, "method": "server/discover", "params": {"_meta": META}},
        MCP_Protocol_Version=MODERN,
        Mcp_Method="server/discover",
    ),
    _post("ping", {"jsonrpc": "2.0", "id": PULSE_ID, "method": "ping"}, MCP_Protocol_Version=OFFERED),
)


HEALTH_URL: Final = QUESTIONS[0]
# Of a plain HTTP service, to which nobody can be introduced: GET {endpoint}/health.
PLAIN: Final = Question("plain health", "GET", {"Accept": "*/*"}, b"")
BY_NAME: Final = {question.name: question for question in (*QUESTIONS, PLAIN)}
# What is asked in order to be refused. Who answers it all the same has worked for it: a bridge has started a process.
REFUSED: Final = frozenset({"no JSON", "no request", "unknown session", "no stream"})
# What only somebody understands who speaks this era. Who does not is never asked: a bridge may die of it.
OF_AN_ERA: Final = {"no stream": "legacy", "server/discover": "modern", "ping": "legacy"}


def questions(*, declared: bool, era: str | None, gated: bool = False) -> tuple[Question, ...]:
    """What may be asked of a server that was introduced, from the cheapest on.

    `declared`: it has a health URL. `era`: the way of the introduction. `gated`: it wants credentials, so that what it
    understands cannot be known.
    """
    return tuple(
        question
        for question in QUESTIONS
        if (declared or not question.declared)
        and (question.name not in OF_AN_ERA or (not gated and OF_AN_ERA[question.name] == era))
    )


def signature(status: int, media_type: str, body: bytes) -> Signature:
    """The signature of an answer. The media type is without parameters and in lower case."""
    if not MEDIA_TYPE.fullmatch(media_type):
        media_type = ""
    shape = _remembered if len(body) <= REMEMBERED else _shape_of
    return Signature(status, media_type, shape(body, events=media_type == EVENTS))


def write(pulse: Pulse) -> str:
    """The pulse as it is kept: a JSON array of at most 500 characters."""
    return json.dumps([pulse.question, *pulse.signature, pulse.patience], separators=(",", ":"))


@lru_cache(maxsize=8_192)
def read(text: str) -> Pulse | None:
    """The pulse that was kept; None where it is none of this release."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match value:
        case [str(question), int(status), str(media_type), str(shape), int(patience) | float(patience)]:
            return Pulse(question, Signature(status, media_type, shape), patience) if question in BY_NAME else None
        case _:
            return None


def _shape_of(body: bytes, *, events: bool) -> str:
    """The shape of an answer's body; empty where it is not JSON. Of a long one its beginning and a digest."""
    if events:
        body = b"\n".join(line[5:] for line in body.splitlines() if line.startswith(b"data:"))
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    shape = _shape(value, 0)
    if len(shape) <= MAX_SHAPE:
        return shape
    digest = hashlib.blake2b(shape.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{shape[:SHAPE_BEGINNING]}#{digest}"


_remembered = lru_cache(maxsize=8_192)(_shape_of)


def _shape(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        if depth == MAX_DEPTH:
            return "{}"
        found = cast("dict[str, Any]", value)
        return f"{{{','.join(f'{json.dumps(key)}:{_shape(found[key], depth + 1)}' for key in sorted(found))}}}"
    # How many there are of something, and which, is a value.
    return "[]" if isinstance(value, list) else "null" if value is None else type(cast("object", value)).__name__


def learnt(
    samples: Mapping[str, Sequence[Sample]], nonsense: Mapping[str, Signature | None], gate: int | None = None
) -> Pulse | None:
    """The cheapest question that tells of a server, from what was answered to each twice; None where none does.

    `nonsense`: what was answered to the same question at a path beside that cannot exist; None where nothing was. What
    is answered there tells of nobody, but for a result of JSON-RPC: some servers answer at every path. `gate`: the
    status by which the server asks for credentials; that it still does is all that can be told of it.
    """
    for question in BY_NAME.values():
        asked = samples.get(question.name, ())
        first = asked[0].signature if len(asked) > 1 else None
        if first is None or not _tells(question, first, gate):
            continue
        alike = first == nonsense.get(question.name) and not (first.status < 300 and RESULT in first.shape)
        if alike and (gate is None or question.is_health):
            continue
        if all(one.signature == first and not one.opened and one.seconds <= QUICK_SECONDS for one in asked):
            return Pulse(question.name, first, patience([one.seconds for one in asked]))
    return None


def _tells(question: Question, answer: Signature, gate: int | None) -> bool:
    """Whether an answer can tell of a server that works.

    A 5xx is also what is answered for one that does not, a 429 is about the caller, and a health URL is to say 2xx. Who
    takes anything without a word, as a bridge does by 202, has asked nobody behind it.
    """
    if question.is_health:
        return 200 <= answer.status < 300
    if gate is not None:
        return answer.status == gate
    if answer.status < 300 and ((question.name in REFUSED and RESULT in answer.shape) or answer.shape[:1] != "{"):
        return False
    return answer.status < 500 and answer.status not in (402, 429) and not 300 <= answer.status < 400


def patience(seconds: Sequence[float]) -> float:
    """How long a server is waited for that usually takes as long as these."""
    usual = sorted(seconds)[max(len(seconds) * 95 // 100 - 1, len(seconds) // 2)] if seconds else 0.0
    return min(max(usual * PATIENCE, MIN_SECONDS), MAX_SECONDS)
