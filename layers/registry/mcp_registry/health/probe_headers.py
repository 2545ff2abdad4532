"""Giving and withdrawing the headers by which a server that asks for credentials is looked at.

Has no way to the database: what stands there is asked of another function (`health.marks`, at MARK_URL), before a
secret is made and after it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast
from uuid import uuid4

from mcp_registry import errors
from mcp_registry.aws import invoke
from mcp_registry.caller import Caller
from mcp_registry.dial import urls
from mcp_registry.errors import Fault, RegistryError, Unavailable, ValidationFailed
from mcp_registry.health import headers
from mcp_registry.health.headers import Given

MAX_HEADERS: Final = 10
MAX_NAME: Final = 100
MAX_VALUE: Final = 4_096
# A token of RFC 9110 (section 5.6.2).
NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What is visible, and blanks within: what a server trims is not the same for two of them.
VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
# What frames a request or says what is in it, which is ours to say; and where it comes from, which would be a lie.
OURS: Final = re.compile(
    r"(?:accept|content|mcp|proxy|sec|x-forwarded)-.*|accept|connection|cookie2|expect|forwarded|host|http2-settings"
    r"|keep-alive|last-event-id|range|te|trailer|transfer-encoding|upgrade|user-agent|via|x-real-ip",
    re.IGNORECASE,
)


def parse(value: Any) -> dict[str, str]:
    """Check a JSON value and return the headers in it, by their names.

    Raises ValidationFailed with every fault, of which none tells a value.
    """
    if not isinstance(value, dict):
        raise ValidationFailed("Probe headers are a JSON object")
    sent = cast("dict[str, Any]", value)
    faults = [Fault(name, "There is no such field", "unknown") for name in sent if name != "headers"]
    given: Any = sent.get("headers")
    named: dict[str, Any] = {}
    if given is None:
        faults.append(Fault("headers", "This field is required", "missing"))
    elif not isinstance(given, dict):
        faults.append(Fault("headers", "Expected an object", "type"))
    else:
        named = cast("dict[str, Any]", given)
        if not 1 <= len(named) <= MAX_HEADERS:
            faults.append(Fault("headers", f"Must have from 1 to {MAX_HEADERS} fields", "length"))
        if len({name.lower() for name in named}) < len(named):
            faults.append(Fault("headers", "A header stands there twice, in upper case and in lower case", "repeated"))
        faults += [fault for name, text in named.items() for fault in _faults(name, text)]
    if faults:
        raise ValidationFailed(faults=faults)
    return named


def _faults(name: str, text: Any) -> list[Fault]:
    # What is no name may be the value, by somebody's mistake.
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        return [Fault("headers", f"The name of a header is a token of at most {MAX_NAME} characters", "value")]
    path = f"headers.{name}"
    if OURS.fullmatch(name):
        return [Fault(path, "The registry sends this header itself, or nobody may", "value")]
    if not isinstance(text, str):
        return [Fault(path, "Expected a string", "type")]
    if not text or len(text) > MAX_VALUE:
        return [Fault(path, f"Must have from 1 to {MAX_VALUE:,} characters", "length")]
    if not VALUE.fullmatch(text):
        return [Fault(path, "Must be visible ASCII characters, with blanks between them only", "value")]
    return []


def give(caller: Caller, server: int | str, given: Mapping[str, str]) -> None:
    """Keep headers for a server, in the place of those that there are; it is introduced by them from now on.

    They are for the origin that the server has at this moment. Raises ServerNotFound, Forbidden, and Unavailable, after
    which those that there were are still the ones in use: repeating it puts it right.
    """
    who = caller._asdict()
    id_ = str(uuid4())
    began = _ask({"begin": {"server": server, "secret": id_, "names": list(given)}, "caller": who})
    url = began["endpoint_url"]
    origin = urls.origin(url)
    headers.write(began["id"], id_, Given(origin, given))
    _ask({"give": {"id": began["id"], "secret": id_, "endpoint_url": url, "origin": origin}, "caller": who})
    # They are given. What took their place of is deleted by the schedule else.
    with suppress(Unavailable):
        clear(began["id"])


def withdraw(caller: Caller, server: int | str) -> None:
    """End the headers of a server, and delete them. That there are none is well.

    Raises ServerNotFound, Forbidden, and Unavailable: they are out of use then, or repeating it puts it right.
    """
    clear(_ask({"end": {"server": server}, "caller": caller._asdict()})["id"])


def clear(server_id: int | None = None) -> int:
    """Delete the secrets that are over, of one server or of all, a hundred at most; how many. Raises Unavailable."""
    over = _ask({"over": server_id})["over"]
    for of, id_ in over:
        headers.remove(of, id_)
        _ask({"forget": id_})
    return len(over)


def _ask(question: Mapping[str, Any]) -> dict[str, Any]:
    """What the function with the database answers. Raises what it refuses with, and Unavailable."""
    try:
        answer = invoke.ask(os.environ["MARK_URL"], question)
    except invoke.Unanswered as error:
        raise Unavailable(f"MarkFunction {error}") from None
    if "refused" in answer:
        raise _refusal(answer["refused"])(answer["message"], [Fault(*fault) for fault in answer["faults"]])
    return answer


def _refusal(code: str) -> type[RegistryError]:
    """The error of a code."""
    found = {kind.code: kind for kind in (errors.ServerNotFound, errors.Forbidden)}
    return found.get(code, RegistryError)
