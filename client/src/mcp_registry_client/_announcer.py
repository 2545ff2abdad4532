"""The thread that tells the registry of a server, and never troubles the server with it."""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import time
import weakref
from typing import Any, Literal, NamedTuple, Protocol

from mcp_registry_client import _settings, _transport
from mcp_registry_client._document import Unusable
from mcp_registry_client._presence import Included, NotServing, Unlisted

State = Literal["off", "waiting", "announcing", "registered", "failed", "refused"]

# What repeating does not change.
REFUSALS = frozenset({400, 401, 403, 409, 413, 415, 422})
# A registry that has much to do: no reason to worry anybody, unless it stays that way.
BUSY = frozenset({429, 503})
MAX_REASON = 600
HINT_SECONDS = 60.0
# Between two looks for the server, at first and at last.
SHORTEST_LOOK, LONGEST_LOOK = 0.05, 60.0
# Nobody means a day; what is longer than a C long can hold is no pause at all.
MAX_RETRY_AFTER = 3600.0


class Source(Protocol):
    """Where a registration comes from."""

    def document(self) -> dict[str, Any]:
        """The registration as it is now. May take its time.

        Raises NotServing where there is none yet, Unusable where there will be none, Included where it is part of
        another one, and what else went wrong.
        """
        ...


class Pace(NamedTuple):
    """How often, and how long: seconds."""

    first: float = 0.5  # the longest first pause between two attempts; it doubles each time
    longest: float = 15.0
    window: float = 60.0  # for which attempts go on
    again: float = 300.0  # between two announcements, and after a window that brought nothing
    spread: float = 0.2  # so much of that more or less, lest servers that started together stay together
    deadline: float = 10.0  # for one request
    once: bool = False  # where nothing changes after the first announcement that arrived


class _Tries:
    """How often something has failed since it went well, and how much of a window is left."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.number = 0
        self._spent = 0.0

    def pause(self, took: float, at_least: float = 0.0) -> float | None:
        """Note one more that took so many seconds; those until the next, or None where the window is over."""
        pause = max(at_least, _random() * min(self._pace.longest, self._pace.first * 2 ** min(self.number, 16)))
        self._spent += took + pause
        self.number += 1
        return pause if self._spent <= self._pace.window else None


class _Verdict(NamedTuple):
    """How an attempt ended."""

    kind: Literal["done", "again", "pointless", "refused"]
    text: str
    retry_after: float = 0.0
    busy: bool = False
    same: bool = False  # nothing was written


class Registration:
    """A server's registration, under way in a thread of its own.

    `state`: `off` (no registry is set, or it was stopped), `waiting` (for the server to answer), `announcing`,
    `registered`, `failed` (not for now: it is tried again) or `refused` (for good: `error` and the log say what to do).
    """

    def __init__(self, source: Source, settings: _settings.Settings, pace: Pace | None = None) -> None:
        self._source = source
        self._settings = settings
        self._pace = pace or Pace()
        self._state: State = "off"
        self._error: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._due = False
        self._stopped = False
        self._complained = False
        self._told = False
        self._listing = _Tries(self._pace)
        self._started = time.monotonic()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> State:
        """How far it has come."""
        return self._state

    @property
    def error(self) -> str | None:
        """What went wrong last, as a sentence; None while nothing has."""
        return self._error

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the server is registered, or will not be; whether it is."""
        with self._changed:
            self._changed.wait_for(lambda: self._state in ("registered", "refused", "off"), seconds)
            return self._state == "registered"

    def refresh(self) -> None:
        """Announce the server as it is now, without waiting for the next time. Returns at once."""
        with self._changed:
            self._due = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Announce the server no more. What is in the registry stays there: other processes may be the same server."""
        self._stopped = True
        self._set("off", self._error)

    # -------------------------------------------------------------- for the modules of this package

    def settle(self, seconds: float) -> None:
        """Wait until the announcement under way has come to something, good or bad; so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._state in ("registered", "refused", "failed", "off"), seconds)

    def start(self) -> None:
        """Start the thread, where a registry is set."""
        if self._settings.registry_url is None:
            return
        _track(self)
        self._set("waiting")
        self._thread = threading.Thread(target=self._run, name="mcp-registry-announcer", daemon=True)
        self._thread.start()

    def refuse(self, reason: str) -> None:
        """Give up for good, and say why in one line."""
        reason = _line(reason)
        _log("warning", "The MCP server is not in the registry, and runs on without it: %s", reason)
        self._set("refused", reason)

    def after_fork(self) -> None:
        """Begin anew in a child: it has no threads, and locks that were held are held for ever."""
        running = self._thread is not None and self._state not in ("refused", "off")
        self._begin()
        if running:
            self.start()

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while not self._is_over():
                pause = self._round()
                if pause is None:
                    return
                self._rest(pause)
        except Exception as error:  # noqa: BLE001 - a mistake of ours is no traceback in somebody else's log
            self.refuse(f"the client failed by itself ({type(error).__name__}: {error})")

    def _round(self) -> float | None:
        """Announce the server once, if it serves; the seconds until the next time, or None where there is none."""
        began = time.monotonic()
        try:
            document = self._source.document()
        except NotServing as absent:
            elapsed = time.monotonic() - self._started
            if absent.hint and elapsed > HINT_SECONDS and self._state == "waiting":
                self._complain(absent.hint)
            # Often at first, when a server is about to start, and seldom in a process that never serves.
            return math.inf if absent.told else min(LONGEST_LOOK, max(SHORTEST_LOOK, elapsed / 10))
        except Unusable as reason:
            self.refuse(str(reason))
            return None
        except Included as reason:
            _log("info", "The MCP server is not in the registry by itself: %s", _line(str(reason)))
            self._set("refused", _line(str(reason)))
            return None
        except Exception as error:  # noqa: BLE001 - what a server's own code raises may be anything
            # An upstream that is down for a moment is no reason to stay away for five minutes.
            if isinstance(error, Unlisted):
                return self._failed(f"it cannot be asked for its tools ({error})", time.monotonic() - began)
            reason = f"its tools cannot be listed ({type(error).__name__}: {error})"
            return self._failed(reason, time.monotonic() - began)
        self._listing = _Tries(self._pace)
        return self._announce(document)

    def _failed(self, reason: str, took: float) -> float:
        """The tools could not be listed; the seconds until they are tried again."""
        if self._stopped:
            return 0.0
        pause = self._listing.pause(took)
        if pause is None or self._listing.number > 1:
            self._complain(reason)
        self._set("announcing" if pause is not None else "failed", _line(reason))
        if pause is None:
            self._listing = _Tries(self._pace)
            return self._apart()
        return pause

    def _announce(self, document: dict[str, Any]) -> float | None:
        """Send the registration until it has arrived; the seconds until the next time, or None."""
        from mcp_registry_client._canonical import canonical

        try:
            body = canonical(document)
        except (TypeError, ValueError) as error:
            self.refuse(f"its registration is not JSON ({error})")
            return None
        name = document["name"]
        if self._stopped:
            return None
        if self._state != "registered":
            self._set("announcing", self._error)
        tries = _Tries(self._pace)
        while not self._is_over():
            began = time.monotonic()
            verdict = self._attempt(body, name)
            if self._stopped:
                return None
            elapsed = time.monotonic() - began
            if verdict.kind == "done":
                # Every five minutes of every worker is too much for a log that people read.
                _log("debug" if self._told and verdict.same else "info", "%s", verdict.text)
                self._told, self._complained = True, False
                self._set("registered")
                return None if self._pace.once else self._apart()
            if verdict.kind == "refused":
                self.refuse(verdict.text)
                return None
            # A sandbox was frozen in the middle of it (two requests have two deadlines): that says nothing.
            if elapsed > 2 * self._pace.deadline + 1:
                continue
            pause = tries.pause(elapsed, verdict.retry_after)
            if verdict.kind == "pointless":
                pause = None
            # One failure is nothing to talk about: a sandbox that was frozen has lost its connection, for one.
            if pause is None or (tries.number > 1 and not verdict.busy):
                self._complain(verdict.text)
            self._set("failed" if pause is None else "announcing", _line(verdict.text))
            if pause is None:
                return max(verdict.retry_after, self._apart())
            self._sleep(pause)
        return None

    def _attempt(self, body: bytes, name: str) -> _Verdict:
        """The digest, and where the registry does not know it, the registration."""
        import hashlib

        url = f"{self._settings.registry_url}/api/registry/register"
        digest = hashlib.sha256(body).hexdigest()
        try:
            answer = self._put(url, b"", {"X-Registration-Digest": digest})
            if answer.status == 204:
                return _Verdict("done", f"Registered {name} in the MCP registry (unchanged)", same=True)
            if answer.status == 428:
                answer = self._put(url, body, {"Content-Type": "application/json"})
            return self._judged(answer, name)
        except _transport.Failed as failure:
            if failure.kind == "url":
                return _Verdict("refused", f"{failure}; set {_settings.REGISTRY_URL} right")
            kind = "pointless" if failure.kind in ("garbage", "too_large") else "again"
            hint = f"; is {_settings.REGISTRY_URL} the address of a registry?" if kind == "pointless" else ""
            return _Verdict(kind, f"the registry at {self._settings.registry_url} cannot be asked ({failure}){hint}")

    def _put(self, url: str, body: bytes, headers: dict[str, str]) -> _transport.Response:
        credentials = self._settings.credentials
        deadline = self._pace.deadline
        return _transport.request(
            "PUT", url, headers=headers, body=body, deadline_seconds=deadline, credentials=credentials
        )

    def _judged(self, answer: _transport.Response, name: str) -> _Verdict:
        """What an answer means, and what to do about it."""
        status, registry = answer.status, self._settings.registry_url
        if status in (200, 201):
            result = _field(answer.json(), "result")
            if result in ("created", "updated", "unchanged"):
                text = f"Registered {name} in the MCP registry ({result})"
                return _Verdict("done", text, same=result == "unchanged")
        said = _said(answer)
        refusal = f"the registry at {registry} answers {status}{said}"
        if status in REFUSALS:
            return _Verdict("refused", f"{refusal}. {_advice(status, name)}")
        if status == 429 or status >= 500:
            return _Verdict("again", refusal, _retry_after(answer), busy=status in BUSY)
        return _Verdict(
            "pointless", f"{refusal}. Set {_settings.REGISTRY_URL} to the address of a registry, without /api"
        )

    def _is_over(self) -> bool:
        return self._stopped or _exiting.is_set()

    # -------------------------------------------------------------- pauses

    def _apart(self) -> float:
        """The time between two announcements."""
        return self._pace.again * (1 + self._pace.spread * (2 * _random() - 1))

    def _rest(self, seconds: float) -> None:
        """Do nothing for a while, or until somebody asks for an announcement."""
        with self._changed:
            self._changed.wait_for(lambda: self._due or self._stopped, None if seconds == math.inf else seconds)
            self._due = False

    def _sleep(self, seconds: float) -> None:
        """Do nothing for a while, whoever asks: a registry in trouble is not asked sooner."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    # -------------------------------------------------------------- telling

    def _set(self, state: State, error: str | None = None) -> None:
        with self._changed:
            self._state, self._error = state, error
            self._changed.notify_all()

    def _complain(self, reason: str) -> None:
        """Say once what is wrong; and not again before it was right."""
        if not self._complained:
            self._complained = True
            _log("warning", "The MCP server is not announced, and runs on; it is tried again: %s", _line(reason))


def _line(text: str) -> str:
    """What others say, as part of one line of a log: an answer with line ends could forge other lines."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _advice(status: int, name: str) -> str:
    """What to do about a refusal."""
    if status == 401:
        return f"Set {_settings.USERNAME} and {_settings.PASSWORD} to credentials of the registry, and start again"
    if status == 403:
        return "These credentials, or a firewall on the way, do not let it pass: ask who runs the registry"
    if status == 409:
        return f"Register under the spelling that is there, or under another name than {name}"
    if status == 413:
        return "Shorten the descriptions and schemas of its tools, or split the server, and start again"
    return "Correct what it names, and start again"


def _said(answer: _transport.Response) -> str:
    """What the registry says for itself, with the first faults that it names."""
    try:
        body = answer.json()
    except _transport.Failed:
        return ""
    said = f": {error}" if (error := _field(body, "error")) else ""
    details = _field(body, "details")
    if isinstance(details, list):
        faults = [f"{_field(fault, 'path')}: {_field(fault, 'message')}" for fault in details[:3]]
        said += f" ({'; '.join(faults)}{'; ...' if len(details) > 3 else ''})"
    return said[:MAX_REASON]


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _retry_after(answer: _transport.Response) -> float:
    """The seconds for which the registry wants to be left alone."""
    given = answer.headers.get("retry-after", "")
    if given.isdecimal():
        return min(float(given), MAX_RETRY_AFTER)
    from email.utils import parsedate_to_datetime

    try:
        return min(max(0.0, parsedate_to_datetime(given).timestamp() - time.time()), MAX_RETRY_AFTER)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _random() -> float:
    """A number between 0 and 1 from the system: two processes that were forked or thawed alike must not act alike."""
    return int.from_bytes(os.urandom(6), "big") / 2**48


def _log(level: str, message: str, *arguments: object) -> None:
    """One line to the host's log; none while the process ends."""
    if not _exiting.is_set():
        import logging

        getattr(logging.getLogger("mcp_registry_client"), level)(message, *arguments)


# ------------------------------------------------------------------ the process

_registrations: weakref.WeakSet[Registration] = weakref.WeakSet()
_exiting = threading.Event()
_tracking = False


def _track(registration: Registration) -> None:
    """Have the registration begin anew after a fork, and keep still when the process ends."""
    global _tracking
    _registrations.add(registration)
    if not _tracking:
        _tracking = True
        atexit.register(_exiting.set)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    if sys._getframe(1).f_code.co_name == "_execute_child":
        return  # subprocess, with preexec_fn: a thread more would only delay the program that this is about to become
    for registration in list(_registrations):
        registration.after_fork()
