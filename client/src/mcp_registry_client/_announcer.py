"""The thread that tells the registry of a server, and never troubles the server with it.

It goes on for as long as the process lives, slowly where it was refused: a password is rotated, another server gives a
name free, a registry is upgraded, and none of that may need a restart of every server.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from mcp_registry_client import _identity, _settings, _telling, _tools, _transport
from mcp_registry_client._document import Draft, Unusable
from mcp_registry_client._presence import Included, Missing, NotServing, Toolless

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mcp_registry_client._trimming import Learnt, LeftOut, Trimming

State = Literal["off", "waiting", "announcing", "registered", "failed", "refused"]

# What is not mended by repeating it soon, and may be in five minutes.
REFUSALS = frozenset({400, 401, 403, 409, 413, 415, 422})
# What to do about the refusals that are not about a spelling. The registry says itself what is wrong, and whom to ask.
CONFLICTS = {
    "CONFLICTING_SERVER": "Register this server under another name, by name='...', unless it is the same one",
    "HELD_NAME": "It is announced again when that is over",
    "FORBIDDEN": "Use credentials of the team that owns it, or register this server under a name of your own team's",
}
# How long the registry keeps an endpoint that is not announced again and does not answer: seconds, twice the time
# between two announcements. A registry of an older release does not read it.
LEASE = {"X-Registration-Lease": "600"}
# A registry that has much to do: no reason to worry anybody, unless it stays that way.
BUSY = frozenset({429, 503})
# Of what a registry says so much is told: characters, and faults.
MAX_REASON, MAX_NAMED = 600, 3
# For all that it answers when it is asked for the tools that it has: a registration has 1 MiB.
MAX_RECALLED = 2 << 20
HINT_SECONDS = 60.0
# Between two looks for the server, at first and at last.
SHORTEST_LOOK, LONGEST_LOOK = 0.05, 60.0
# What is said where the server turns out to have no address.
OVER_STDIO = (
    "Nothing is registered in the MCP registry: the server runs on stdio, where it has no address that others could "
    "call. Run it over HTTP to have it registered."
)
# Added to what is said of an announcement that arrived after one that did not.
MENDED = ". What was wrong before is mended."
NAME_IT = "Register the server under another name, by name='...'"
# Nobody means a day; what is longer than a C long can hold is no pause at all.
MAX_RETRY_AFTER = 3600.0


class Source(Protocol):
    """Where a registration comes from."""

    def draft(self) -> Draft:
        """The registration as it is now. May take its time.

        Raises NotServing where there is none yet, Unusable where there will be none, Included where it is part of
        another one, Toolless where only its tools are missing, and what else went wrong.
        """
        ...


class Pace(NamedTuple):
    """How often, and how long: seconds."""

    first: float = 0.5  # the longest first pause between two attempts; it doubles each time
    longest: float = 15.0
    window: float = 60.0  # for which attempts go on
    patience: float = 15.0  # for which a server is not announced without tools that it may soon have
    again: float = 300.0  # between two announcements, and after a window that brought nothing
    spread: float = 0.2  # so much of that more or less, lest servers that started together stay together
    deadline: float = 10.0  # for one request
    once: bool = False  # where nothing changes after the first announcement that arrived


class _Tries:
    """How often something has failed since it went well, and how much of a window is left."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.number = 0
        self.spent = 0.0

    def pause(self, took: float, at_least: float = 0.0) -> float | None:
        """Note one more that took so many seconds; those until the next, or None where the window is over."""
        pause = max(at_least, _random() * min(self._pace.longest, self._pace.first * 2 ** min(self.number, 16)))
        self.spent += took + pause
        self.number += 1
        return pause if self.spent <= self._pace.window else None


class _Verdict(NamedTuple):
    """How an attempt ended."""

    kind: Literal["done", "trimmed", "again", "later", "refused"]
    text: str
    retry_after: float = 0.0
    busy: bool = False
    same: bool = False  # nothing was written
    refusal: str = ""  # what was refused, told once: its status, or its code where that says more


class Registration:
    """A server's registration, under way in a thread of its own.

    `state` is one of these; where something is wrong, `error` and the log say what to do:

    - `off`: no registry is set, or it was stopped.
    - `waiting`: for the server to answer over HTTP.
    - `announcing`: it is being sent, or will be sent again within seconds.
    - `registered`: the registry has taken it. So it stays, whatever becomes of later announcements, for what the
      registry has of it stays too.
    - `failed`: the registry cannot be asked, or refuses (credentials, a name that is taken, a registration that is not
      valid). It is tried again every five minutes, for as long as the process lives.
    - `refused`: for good, because only another start can change it: an address that is none, a server without a name,
      one that is a part of another registered server.
    """

    def __init__(self, source: Source, settings: _settings.Settings, pace: Pace | None = None) -> None:
        self._source = source
        self._settings = settings
        self._identities = _identity.Identities(settings)
        self._identity: _identity.Identity | None = None
        self._pace = pace or Pace()
        self._state: State = "off"
        self._error: str | None = None
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._due = False
        self._stopped = False
        self._complaints: set[str] = set()
        self._told = False
        self._told_stdio = False
        self._told_missing: frozenset[Hashable] = frozenset()
        self._listing = _Tries(self._pace)
        # Those that were listed last; None where none were.
        self._tools: list[Any] | None = None
        self._is_toolless = False
        # What the registry did not take of tools: a list that was refused once need not be again.
        self._learnt: Learnt | None = None
        self._left_out: list[LeftOut] = []
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

    @property
    def tools_left_out(self) -> list[LeftOut]:
        """The tools that the registry does not take, each with its `name` and the `rule` that it breaks."""
        return list(self._left_out)

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

    def go_on_waiting(self, reason: str) -> None:
        """Say once what keeps the server from being announced now, where that may be otherwise in a moment."""
        if not self._is_over():
            self._complain(reason)
            self._trouble(self._state, reason)

    def refuse(self, reason: str) -> None:
        """Give up for good, and say why in one line."""
        reason = _line(reason)
        self._log("warning", "The MCP server is not announced to the registry, and runs on: %s", reason)
        self._set("refused", reason)

    def after_fork(self) -> None:
        """Begin anew in a child: it has no threads, and locks that were held are held for ever."""
        running = self._thread is not None and self._state not in ("refused", "off")
        self._begin()
        if running:
            self.start()

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._is_over():
            try:
                pause = self._round()
            except Exception as error:  # noqa: BLE001 - a mistake of ours is no traceback in somebody else's log
                # And no end: what a stranger answered may have brought it about, and may be different the next time.
                reason = f"the client failed by itself ({type(error).__name__}: {error})"
                self._complain(reason)
                self._trouble("failed", reason)
                pause = self._apart()
            if pause is None:
                return
            self._rest(pause)

    def _round(self) -> float | None:
        """Announce the server once, if it serves; the seconds until the next time, or None where there is none."""
        began = time.monotonic()
        try:
            draft = self._source.draft()
        except NotServing as absent:
            elapsed = time.monotonic() - self._started
            if absent.over_stdio and not self._told_stdio:
                self._told_stdio = True
                # Never to the log: where a host writes it to stdout, that is the protocol's.
                _telling.on_stderr(OVER_STDIO)
            # What else listens in a process that serves over stdio need not be known as this server.
            if absent.hint and not self._told_stdio and elapsed > HINT_SECONDS and self._state == "waiting":
                self._complain(absent.hint)
            # Often at first, when a server is about to start, and seldom in a process that never serves.
            return math.inf if absent.told else min(LONGEST_LOOK, max(SHORTEST_LOOK, elapsed / 10))
        except Unusable as reason:
            self.refuse(str(reason))
            return None
        except Included as reason:
            self._log("notice", "The MCP server is not announced by itself: %s", _line(str(reason)))
            self._set("refused", _line(str(reason)))
            return None
        except Toolless as absent:
            return self._without_tools(absent, time.monotonic() - began)
        except Missing as reason:
            return self._failed(str(reason), time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - what a server's own code raises may be anything
            reason = f"what it is cannot be told ({type(error).__name__}: {error})"
            return self._failed(reason, time.monotonic() - began)
        self._listing = _Tries(self._pace)
        self._tools = draft.document["tools"]
        return self._announce(draft)

    def _failed(self, reason: str, took: float) -> float:
        """The server could not be asked; the seconds until it is again."""
        if self._stopped:
            return 0.0
        pause = self._listing.pause(took)
        if pause is None or self._listing.number > 1:
            self._complain(reason)
        self._trouble("announcing" if pause is not None else "failed", reason)
        if pause is None:
            self._listing = _Tries(self._pace)
            return self._apart()
        return pause

    def _without_tools(self, absent: Toolless, took: float) -> float | None:
        """Announce a server whose tools cannot be listed; the seconds until they are tried again, or None.

        Not at once, for what stands behind a server may be down for a moment; and never so that it loses tools: it is
        announced with those that it had last, or that the registry has of it. Only where there are none, without.
        """
        if self._stopped:
            return None
        pause = None if absent.lasts else self._listing.pause(took)
        if pause is not None and (self._is_toolless or self._listing.spent <= self._pace.patience):
            self._trouble("announcing", absent.reason)
            return pause
        # Not begun anew before it went well: one look in five minutes is enough then.
        apart = self._announce(Draft(absent.document), absent)
        return apart if apart is None or pause is None else min(pause, apart)

    def _announce(self, draft: Draft, absent: Toolless | None = None) -> float | None:
        """Send the registration until it has arrived; the seconds until the next time, or None.

        `absent`: that its tools cannot be listed, and why.
        """
        from mcp_registry_client._trimming import Learnt, Trimming

        self._learnt = self._learnt or Learnt()
        name = draft.document["name"]
        if self._stopped:
            return None
        if self._state != "registered":
            self._set("announcing", self._error)
        self._warn_of_listeners()
        tries = _Tries(self._pace)
        tools = self._tools
        trimming: Trimming | None = None
        while not self._is_over():
            began = time.monotonic()
            if tools is None:
                tools = self._recalled(name)
            if isinstance(tools, _Verdict):
                verdict, tools = tools, None
            else:
                try:
                    trimming = trimming or Trimming({**draft.document, "tools": tools}, self._learnt, draft.left_out)
                except (TypeError, ValueError, RecursionError) as error:
                    self.refuse(f"its registration is not JSON ({error})")
                    return None
                began = time.monotonic()
                verdict = self._attempt(trimming, name)
            if self._stopped:
                return None
            elapsed = time.monotonic() - began
            if verdict.kind == "trimmed":
                continue
            if verdict.kind == "done":
                assert trimming is not None
                self._arrived(verdict, name, trimming, absent)
                return None if self._pace.once and absent is None else self._apart()
            if verdict.kind == "refused":
                self.refuse(verdict.text)
                return None
            # A sandbox was frozen in the middle of it (two requests have two deadlines): that says nothing.
            if elapsed > 2 * self._pace.deadline + 1:
                continue
            pause = tries.pause(elapsed, verdict.retry_after)
            if verdict.kind == "later":
                pause = None
            # One failure is nothing to talk about: a sandbox that was frozen has lost its connection, for one.
            if pause is None or (tries.number > 1 and not verdict.busy):
                self._complain(verdict.text, verdict.refusal)
            self._trouble("failed" if pause is None else "announcing", verdict.text)
            if pause is None:
                return max(verdict.retry_after, self._apart())
            self._sleep(pause)
        return None

    def _arrived(self, verdict: _Verdict, name: str, trimming: Trimming, absent: Toolless | None) -> None:
        """Note that the registry has the server, and say so: once, and again where something was or is wrong."""
        mended = bool(self._complaints) or (self._is_toolless and absent is None)
        text = f"{verdict.text}{MENDED if mended else ''}"
        # Every five minutes of every worker is too much for a log that people read.
        quiet = "debug" if verdict.same else "info"
        self._log("notice" if mended or not self._told else quiet, "%s", text)
        if unknown := trimming.unknown:
            self._log(
                "debug", "The registry knows no %s of a tool: it is of an older release", _line(", ".join(unknown))
            )
        missing = trimming.missing(name)
        error: str | None = None
        if absent is not None:
            number = len(trimming.document["tools"])
            kept = f"with {number} that are known of it" if number else "without any"
            error = _line(f"The tools of {name} cannot be listed, and it is registered {kept}: {absent.reason}")
            missing["listing", number] = error
        for what, sentence in missing.items():
            # Not the sentences: what a server's code raises may hold an address, a time or an id.
            if what not in self._told_missing:
                self._log("warning", "%s", _line(sentence))
        self._told = True
        self._complaints.clear()
        self._told_missing, self._is_toolless = frozenset(missing), absent is not None
        self._left_out = trimming.left_out
        self._set("registered", error)

    def _recalled(self, name: str) -> list[Any] | _Verdict:
        """The tools that the registry has of the server; how that failed where it did.

        Asked for each time: another process may be the same server, and have listed them meanwhile.
        """
        from mcp_registry_client._api import Registry
        from mcp_registry_client._ending import Exit, Stopped
        from mcp_registry_client._json import mappings

        url, deadline = self._settings.registry_url or "", self._pace.deadline
        try:
            found = Registry(url, self._identities, deadline, MAX_RECALLED).registered(name) or {}
        except Stopped as stopped:
            kind = "again" if stopped.ending == Exit.UNREACHABLE else "later"
            reason = str(stopped).partition(": ")[0]  # what follows is advice for whoever gives commands
            refusal = "401" if stopped.ending == Exit.UNAUTHORISED else ""
            text = f"the registry at {url} cannot be asked for the tools that it has ({reason})"
            return _Verdict(kind, text, refusal=refusal)
        return [_tools.sent(tool) for tool in mappings(found.get("tools"))]

    def _attempt(self, trimming: Trimming, name: str) -> _Verdict:
        """The digest, and where the registry does not know it, the registration."""
        import hashlib

        from mcp_registry_client._json import faults, parsed

        url = f"{self._settings.registry_url}/api/registry/register"
        digest = hashlib.sha256(trimming.body).hexdigest()
        try:
            answer = self._put(url, b"", {"X-Registration-Digest": digest})
            if answer.status == 204:
                return _Verdict("done", self._registered(name, "unchanged"), same=True)
            is_sent = answer.status == 428
            if is_sent:
                answer = self._put(url, trimming.body, {"Content-Type": "application/json"})
            said = parsed(answer.body)
            if is_sent and (
                (answer.status == 400 and trimming.learn(faults(said))) or (answer.status == 413 and trimming.shorten())
            ):
                return _Verdict("trimmed", "")
            return self._judged(answer, said, name)
        except _transport.Failed as failure:
            if failure.kind == "url":
                return _Verdict("refused", f"{failure}; set {_settings.REGISTRY_URL} right")
            kind = "later" if failure.kind in ("garbage", "too_large") else "again"
            hint = f"; is {_settings.REGISTRY_URL} the address of a registry?" if kind == "later" else ""
            return _Verdict(kind, f"the registry at {self._settings.registry_url} cannot be asked ({failure}){hint}")
        except _identity.NoIdentity as reason:
            return _Verdict("again", f"AWS signs no token for its role: {reason}")

    def _registered(self, name: str, result: str) -> str:
        """That it worked, and as whom: also why somebody else was passed over who comes before."""
        if self._identity is None:
            return f"Registered {name} in the MCP registry ({result})"
        passed_over = "".join(f"; {reason}" for reason in self._identities.passed_over)
        return _line(f"Registered {name} in the MCP registry ({result}), as {self._identity.told}{passed_over}")

    def _put(self, url: str, body: bytes, headers: dict[str, str]) -> _transport.Response:
        """Send it as the first identity that the registry takes. Raises Failed, and NoIdentity where there is none."""
        deadline = self._pace.deadline
        while True:
            identity = self._identity = self._identities.now(deadline)
            authorization = None if identity is None else identity.authorization
            answer = _transport.request(
                "PUT", url, headers=headers | LEASE, body=body, deadline_seconds=deadline, authorization=authorization
            )
            if answer.status != 401 or identity is None or not self._identities.refuse(identity):
                return answer

    def _judged(self, answer: _transport.Response, said: Any, name: str) -> _Verdict:
        """What an answer means, and what to do about it. `said` is its body as JSON, None where it is none."""
        from mcp_registry_client._json import faults, mapping, text

        status, registry = answer.status, self._settings.registry_url
        if status in (200, 201):
            result = mapping(said).get("result")
            if result in ("created", "updated", "unchanged"):
                return _Verdict("done", self._registered(name, result), same=result == "unchanged")
        refusal = f"the registry at {registry} answers {status}{_told(said)}"
        if status in REFUSALS:
            code = text(mapping(said).get("code"))
            code = code if code in CONFLICTS else ""
            is_named = any(fault.path == "name" for fault in faults(said))
            advice = CONFLICTS[code] if code else NAME_IT if is_named else _advice(status, name)
            return _Verdict("later", f"{refusal}. {advice}", refusal=code or str(status))
        if status == 429 or status >= 500:
            return _Verdict("again", refusal, _retry_after(answer), busy=status in BUSY)
        return _Verdict("later", f"{refusal}. Set {_settings.REGISTRY_URL} to the address of a registry")

    def _warn_of_listeners(self) -> None:
        """Say once in a process that the password is about to go where others can read it."""
        from mcp_registry_client import _urls

        url = self._settings.registry_url or ""
        if self._identities and _urls.is_overheard(url) and not _exiting.is_set():
            host = _urls.host(url)
            _telling.warn_once(
                f"The credentials of the MCP registry go to {host} over plain http, where others can read them and "
                f"answer in its place: give {_settings.REGISTRY_URL} as https://..."
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

    def _trouble(self, state: State, reason: str) -> None:
        """Note what is wrong. A server that the registry has taken stays registered."""
        self._set("registered" if self._state == "registered" else state, _line(reason))

    def _complain(self, reason: str, refusal: str = "") -> None:
        """Say once what is wrong; and not again before it was right.

        A refusal is something else than whatever was wrong before, and once more where it is another one.
        """
        if refusal not in self._complaints:
            self._complaints.add(refusal)
            still = " again: what the registry has of it stays, and it" if self._state == "registered" else ", and"
            message = f"The MCP server is not announced{still} runs on; it is tried again: %s"
            self._log("warning", message, _line(reason))

    def _log(self, level: Literal["debug", "info", "notice", "warning"], message: str, *arguments: object) -> None:
        """One line to the host's log; none while the process ends."""
        if not _exiting.is_set():
            _telling.log(level, message, *arguments)


def _line(text: str) -> str:
    """What others say, as part of one line of a log: an answer with line ends could forge other lines."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _advice(status: int, name: str) -> str:
    """What to do about a refusal."""
    if status == 401:
        by_password = f"{_settings.USERNAME} and {_settings.PASSWORD}"
        return f"Start the server with {_settings.TOKEN}, or {by_password}, that the registry takes"
    if status == 403:
        return "These credentials, or a firewall on the way, do not let it pass: ask who runs the registry"
    if status == 409:
        return f"Register under the spelling that is there, or under another name than {name}, by name='...'"
    if status == 413:
        return "Shorten what the server says of itself, or have more let through on the way: the registry takes 1 MiB"
    return "Correct what it names"


def _told(said: Any) -> str:
    """What the registry says for itself, with the first faults that it names."""
    from mcp_registry_client._json import faults, mapping, text

    error = text(mapping(said).get("error"))
    named = [f"{fault.path}: {fault.message}" for fault in faults(said)]
    more = "; ..." if len(named) > MAX_NAMED else ""
    details = f" ({'; '.join(named[:MAX_NAMED])}{more})" if named else ""
    return f"{f': {error}' if error else ''}{details}"[:MAX_REASON]


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
