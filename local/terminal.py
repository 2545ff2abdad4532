"""What the terminal shows of a running registry: a line for each request and for each server that changes.

What the functions log stands beside it. Of what a client sent the path is shown, the name that it registers, if it can
be one, and what the sentence of a refusal repeats; no query, no header and nothing else of a body, which may hold what
is secret.
"""

import contextlib
import re
import sys
import time
from collections.abc import Collection

import msgspec

from local.gateway import HttpRequest, HttpResponse

REGISTER = "/api/registry/register"
# Of refused registrations; a larger body is none, and is not read for its name.
MAX_REGISTRATION = 1024 * 1024
# What msgspec raises for what is no JSON: besides its own error those of text that is not UTF-8 and of deep nesting.
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
# What of a body can do nothing to a terminal, and hardly is a secret: a name as the registry takes it, and where in a
# registration a fault is, as long as that is a field of ours.
_NAME = re.compile(r"[A-Za-z0-9._/-]{1,100}")
_PLACE = re.compile(r"[a-z0-9_.]{1,60}")


class Terminal:
    """The terminal of one run. Requests and servers go to standard output, what functions log to standard error."""

    def __init__(self, hidden: Collection[str] = ()) -> None:
        """`hidden` are the levels of a log's lines that are not shown."""
        self._hidden = hidden

    def request(self, request: HttpRequest, response: HttpResponse, seconds: float) -> None:
        """A request that was answered; a refused login and a registration with what came of it."""
        line = f"{request.method:<7} {_printable(request.path)[:200]}  {response.status}  {seconds * 1000:.0f} ms"
        said = outcome(request, response)
        _say_now(f"{line}  {said}" if said else line)

    def hear(self, line: str) -> None:
        """A line that a function printed."""
        try:
            told = msgspec.json.decode(line, type=_Line)
        except UNREADABLE:  # nobody's log: what Python itself says, or a function that prints
            told = _Line()
        if told.message == "status changed":
            _say_now(_printable(f"{'HEALTH':<7} {told.server}  {told.before} -> {told.to}  {told.reason}"))
        elif told.level not in self._hidden:
            with contextlib.suppress(BrokenPipeError):
                sys.stderr.write(f"{line}\n")


def say(text: str) -> None:
    """Print it at once. Whoever read our output may have gone (`make run | head`); the registry goes on."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)


def outcome(request: HttpRequest, response: HttpResponse) -> str:
    """What came of a login that was refused, or of a registration; empty for every other request."""
    if any(name.lower() == "www-authenticate" for name, _ in response.headers):
        given = request.header("authorization")
        return f"login refused: {'wrong credentials' if given else 'no credentials'}"
    if response.status == 421:  # for a name that is not ours
        return f"refused: {_answer(response).error}"
    if request.method in ("POST", "PUT") and request.path.rstrip("/") == REGISTER:
        return _of_registration(request, response)
    if response.status == 401:  # by a secret of the route's own
        return f"refused: {_answer(response).error}"
    return ""


class _Line(msgspec.Struct, rename={"before": "from"}):
    """What is read of a line of a log: ours (`observability`), or of AWS's runtime client."""

    level: object = ""
    message: object = ""
    server: object = ""
    before: object = ""
    to: object = ""
    reason: object = ""


class _Fault(msgspec.Struct):
    path: str
    message: str


class _Answer(msgspec.Struct):
    name: str = ""
    result: str = "created"  # POST does not say it
    error: str = ""
    details: list[_Fault] = []


class _Named(msgspec.Struct):
    name: str


def _of_registration(request: HttpRequest, response: HttpResponse) -> str:
    if response.status == 204:
        return "unchanged"
    answer = _answer(response)
    if response.status < 400:
        return f"{answer.name} {answer.result}"
    if response.status == 428:
        return "the registration itself was asked for"
    said = f"{'refused' if response.status < 500 else 'failed'}: {answer.error}"
    if answer.details:
        first, more = answer.details[0], len(answer.details) - 1
        place = f"{first.path}: " if _PLACE.fullmatch(first.path) else ""
        said += f" ({place}{first.message}{f', and {more} more' if more else ''})"
    name = _name(request.body)
    return f"{name} {said}" if name else said


def _answer(response: HttpResponse) -> _Answer:
    try:
        return msgspec.json.decode(response.body, type=_Answer)
    except UNREADABLE:
        return _Answer()


def _name(body: bytes) -> str:
    """The name in a registration that was refused; empty where it has none, or what can be none."""
    try:
        name = msgspec.json.decode(body, type=_Named).name if len(body) <= MAX_REGISTRATION else ""
    except UNREADABLE:
        return ""
    return name if _NAME.fullmatch(name) else ""


def _printable(text: str) -> str:
    """What a terminal only shows: of anything else the escaped form."""
    return text if text.isprintable() else ascii(text)


def _say_now(text: str) -> None:
    say(f"{time.strftime('%H:%M:%S')}  {text}")
