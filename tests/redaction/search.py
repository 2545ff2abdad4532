"""What may stand in no log line and no answer, and how it is looked for.

Planted secrets are looked for everywhere. For all other things a log line has to be like one of those that we write,
field by field, where it is JSON, and must not hold SQL, words of the driver, an exception's own text or a stack where
it is not. Stacks are known that AWS's runtime client writes for an exception that leaves a handler: `JobFailed`, by
which Lambda is told to repeat a job, and those by which the authorizer says that it has no answer. They have our own
lines of code and nothing of a request. `log_defect` writes where a
defect came through: files, lines and names, no text.
"""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote

# SQL, a DSN in either form, what libpq and Postgres say of errors, the text of an exception, stacks, and credentials.
_SQL = r"\b(?:SELECT|INSERT INTO|UPDATE registry|DELETE FROM)\b"
_DRIVER = (
    r"postgres(?:ql)?://|\b(?:host|dbname|password)=|\b(?:DETAIL|FATAL|SQLSTATE):|connection to server"
    r"|psycopg\.\w*Error|\w(?:Error|Exception|Failure|Violation)\("
)
_STACK = r'Traceback|stackTrace|File \\*"'
# Of whoever, right or wrong. `Basic realm=` is what an answer to a request without any says.
_CREDENTIALS = r"\b(?:Basic|Bearer) (?!realm=)[\w+/=.-]{6,}|(?i:authorizationToken|\bauthorization\b.?: )"
FORBIDDEN = re.compile(f"{_SQL}|{_DRIVER}|{_STACK}|{_CREDENTIALS}")
# An answer does not even tell in what it is written. One that succeeds may hold what somebody registered, and there are
# tools whose descriptions speak of SELECT.
FORBIDDEN_IN_SUCCESSES = re.compile(rf"{_DRIVER}|{_STACK}|psycopg|functions/\w+/app\.py")
FORBIDDEN_IN_REFUSALS = re.compile(rf"{_SQL}|{_DRIVER}|{_STACK}|psycopg|\.py\b")

_NAME = r"[A-Za-z0-9._/-]{1,100}"
# A sentence of ours, whatever it repeats; some begin with the method of MCP that they are about.
_METHOD = r"initialize|server/discover|(?:tools|prompts|resources|resources/templates)/list"
_SENTENCE = rf"(?!.*(?:{_SQL}|{_DRIVER}|{_STACK}))(?:[A-Z]|(?:{_METHOD}) )[^\x00-\x1f\x7f-\x9f]{{1,400}}"
# The access log of the local run. The path is the client's own, so that such a line is searched for secrets only.
OF_A_REQUEST = re.compile(
    r"\d\d:\d\d:\d\d  [A-Z]+ +\S{1,200}  \d{3}  \d+ ms(?:  (?:"
    r"login refused: (?:no|wrong) credentials|unchanged|the registration itself was asked for"
    rf"|{_NAME} (?:created|updated|unchanged)|(?:{_NAME} )?(?:refused|failed): {_SENTENCE}))?"
)
# What the local run says of a server that goes down or comes back.
OF_A_SERVER = re.compile(rf"\d\d:\d\d:\d\d  HEALTH  {_NAME}  (?:active -> error|error -> active)  {_SENTENCE}")
# What the local run tells the person whose settings are wrong: libpq's first line, without the password.
OF_THE_START = re.compile(
    r"The database \S+ can't be used: .*|The database can't be brought up to date: .*"
    r"|DATABASE_URL is not a connection string; it should look like postgresql://user:password@host:5432/database\."
)
# What AWS's runtime client says where the local run was killed, in its own lines only.
OF_ITS_END = re.compile(
    r'Traceback \(most recent call last\):|  File "(?:<frozen runpy>|/[^"]+/awslambdaric/\w+\.py)", line \d+, in \S+'
)
# Two who write at the same time: the end of the one's line comes after the other's.
_BETWEEN = re.compile(r"(?:(?<=\d ms)|(?<=\}))(?=\{\"level\"|\{\"timestamp\"|\d\d:\d\d:\d\d  )")

# ------------------------------------------------------------------ lines of functions, field by field

_TIME = r"[0-9T:.+Z-]{10,35}"
_ID = r"[\w-]{0,36}"  # of a request, a message, or a test
_ASKED = r"(?:SQS|EventBridge|Secrets Manager|[A-Z][a-z]+Function)"
_FIELDS = {
    "level": r"DEBUG|INFO|WARNING|ERROR",
    # The second is of the authorizer, for whoever set up an issuer.
    "message": rf"[a-z][a-z :]{{1,60}}|A token of an issuer is refused: {_SENTENCE}",
    "logger": r"mcp_registry\.access\.admission",
    "timestamp": _TIME,
    "service": r"\w{1,20}",
    "correlation_id": _ID,
    "method": r"[A-Z]{3,7}",
    "resource": r"/[a-z/{}.-]*",
    "code": r"[A-Z_]+",
    # An SQLSTATE, or a class: of a driver, or after who was asked; of a message that was not sent also a status.
    "cause": rf"[0-9A-Z]{{5}}|(?:{_ASKED} )?[A-Z][A-Za-z]{{1,60}}|HTTP \d{{3}}|late",
    "queue": r"[\w.-]{0,80}",
    "exception_class": r"[\w.]{1,100}",
    "exception_frames": r"/[^:]+\.py:\d+ [\w<>]+",
    "reason": (
        r"not a (?:Tick|Shard|Findings|Visits|Introductions)|the offer of server \d+ is refused: [a-z A-Z,]{1,99}"
        rf"|{_SENTENCE}"
    ),
    "server": _NAME,
    "from": r"active|error",
    "to": r"active|error",
    "slot": _TIME,
    "asked_at": _TIME,
    "outcome": r"[a-z]{1,20}",
    # Of servers without a verdict: sentences of ours as names, numbers as values.
    "unchecked": r"[A-Z][A-Za-z' ,]{1,80}",
    "errorType": r"JobFailed|Unauthorized|Unanswered|IssuerAway",
    "errorMessage": (
        r"|Unauthorized|Unhandled|HTTP \d{3}|[A-Z][A-Za-z]{1,60}"
        r"|The keys of https?://[^\s\"]{1,500} cannot be had: [^\x00-\x1f\x7f-\x9f\"]{1,200}"
    ),
    "requestId": _ID,
    "stackTrace": (
        r'  File "/[^"]+/(?:functions/\w+/app|mcp_registry/edge/background)\.py", line \d+, in lambda_handler\n    '
        r"(?:raise JobFailed|return _?\w+\(event, context\)[ \w()]*(?:, context\))?)\n"
        # A line of the code by which the authorizer has no answer.
        r'|  File "/[^"]+/(?:functions/authorizer/app|mcp_registry/(?:access|aws)/\w+)\.py", line \d+, in \w+\n    '
        r"[\w .,()=:\[\]{}*|+\"-]{1,120}\n"
    ),
}
_SHAPES = {name: re.compile(shape) for name, shape in _FIELDS.items()}
_NUMBERS = {
    *("status", "duration_ms", "servers", "sweeps", "shard", "checked", "recovered", "failed"),
    *("introduced", "endpoints", "found", "learnt"),
    *("added", "folded", "dropped", "deleted"),
    *("observed", "declared", "snapshots", "changes", "documents", "through"),
}
_METRICS = {"_aws", "sweep_untimely", "sweep_unfinished", "sweep_suspect"}


def is_known(line: str) -> bool:
    """Whether a line is JSON such as `mcp_registry.aws.observability` and AWS's runtime client write, in each field."""
    if not line.startswith("{"):
        return False
    try:
        fields: Any = json.loads(line)
    except ValueError:
        return False
    return isinstance(fields, dict) and all(
        _fits(name, value) for name, value in cast("Mapping[str, object]", fields).items()
    )


def _fits(name: str, value: object) -> bool:
    if name in _NUMBERS:
        return isinstance(value, int | float)
    if name in _METRICS:  # of CloudWatch's format: names that stand in the code, and numbers
        return re.fullmatch(r'[\w\s":{}\[\],.-]{1,400}', json.dumps(value)) is not None
    shape = _SHAPES.get(name)
    texts = cast("Iterable[object]", value) if isinstance(value, list | dict) else (value,)
    return shape is not None and all(isinstance(text, str) and shape.fullmatch(text) is not None for text in texts)


def strange(lines: Iterable[str], *others: re.Pattern[str]) -> list[str]:
    """The lines that are neither known nor like one of the others."""
    pieces = (piece for line in lines for piece in _BETWEEN.split(line))
    return [each for each in pieces if each and not is_known(each) and not any(it.fullmatch(each) for it in others)]


def forbidden(lines: Iterable[str]) -> list[str]:
    """The lines of a local run's output that hold what no log may."""
    others = strange(lines, OF_A_REQUEST, OF_A_SERVER, OF_THE_START, OF_ITS_END)
    return [line for line in others if line[0] == "{" or FORBIDDEN.search(line)]


def told(status: int, headers: Mapping[str, str], body: bytes, credentials: str) -> str:
    """What of an answer no client is told, with what stands around it; empty where there is nothing such."""
    text = "\n".join((*headers.values(), body.decode("utf-8", "replace")))
    match = (FORBIDDEN_IN_SUCCESSES if status < 400 else FORBIDDEN_IN_REFUSALS).search(text)
    if match is not None:
        return text[max(match.start() - 80, 0) : match.end() + 80]
    return "the credentials" if credentials in text else ""


# ------------------------------------------------------------------ planted secrets


class Canaries:
    """The planted texts, with what each is."""

    def __init__(self) -> None:
        self.planted: list[tuple[str, str]] = []

    def plant(self, what: str, value: str | None = None) -> str:
        """A new one; or a given one, as far as it is unlike anything else."""
        canary = value or f"canary{secrets.token_hex(8)}"
        self.planted.append((what, canary))
        return canary

    def found(self, text: bytes, but: Collection[str] = ()) -> list[str]:
        """Which of them stand in a text, in any of their forms; but those whose name begins with one of these."""
        found: list[str] = []
        for what, value in self.planted:
            place = next((text.find(form) for form in _forms(value) if form in text), None)
            if place is not None and not what.startswith(tuple(but)):
                around = text[max(place - 80, 0) : place + 60].decode(errors="replace").replace("\n", " ")
                found.append(f"{what}: ...{around}...")
        return found


def _forms(value: str) -> set[bytes]:
    """A text as it stands, escaped, and in base64 wherever in a longer text it begins."""
    raw = value.encode()
    forms = {raw, quote(value, safe="").encode(), raw.hex().encode()}
    for shift in range(3):
        # What of the encoding depends on this text alone, whatever stands before and after it.
        forms.add(b64encode(b"\0" * shift + raw)[(shift * 4 + 2) // 3 : (shift + len(raw)) * 4 // 3 - 1])
    return {form for form in forms if len(form) >= 8}


def basic(username: str, password: str) -> str:
    """The header of the credentials."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()
