"""How a command ends: its exit codes, and what is said where it cannot go on."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from mcp_registry_client._fault import Failed
from mcp_registry_client._json import Fault


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    UNAUTHORISED = 5
    HUNG_UP = 129
    INTERRUPTED = 130
    UNREAD = 141
    TERMINATED = 143


MEANINGS: Final = {
    Exit.OK: "done; for check: the registry would call the server active",
    Exit.FAILED: "refused or failed; for check: the registry would call it error",
    Exit.USAGE: "the command line is not right; nothing was sent",
    Exit.NOT_FOUND: "the registry has no such server",
    Exit.UNREACHABLE: "the registry or the server cannot be reached or cannot answer",
    Exit.UNAUTHORISED: "the credentials are missing, or refused",
    Exit.HUNG_UP: "the terminal was closed (SIGHUP)",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
    Exit.UNREAD: "whoever read the output stopped reading",
    Exit.TERMINATED: "ended from outside (SIGTERM)",
}

# Verdicts and faults of a server that gave no answer at all.
UNREACHED: Final = frozenset(("closed", "dns", "refused", "timeout", "tls"))


class Stopped(Exception):
    """A command cannot go on: how it ends, a word for programs, a sentence for people, and what is wrong in detail.

    `wait_seconds`: after how long the registry may be asked again, where it says so.
    """

    def __init__(
        self, ending: Exit, code: str, sentence: str, details: Sequence[Fault] = (), wait_seconds: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.wait_seconds = wait_seconds
        self.ending = ending
        self.code = code
        self.sentence = sentence
        self.details = details


class Ended(BaseException):
    """A signal ends the process. Beyond Exception, as KeyboardInterrupt is: what was opened is closed on the way."""

    def __init__(self, ending: Exit, sentence: str) -> None:
        super().__init__(sentence)
        self.ending = ending
        self.sentence = sentence


def misused(sentence: str) -> Stopped:
    """The end of a command that cannot be meant so: nothing was sent."""
    return Stopped(Exit.USAGE, "USAGE", sentence)


def unasked(failed: Failed) -> Stopped:
    """The end of a command whose server could not be asked."""
    ending = Exit.UNREACHABLE if failed.kind in UNREACHED else Exit.FAILED
    ending = {"url": Exit.USAGE, "credentials": Exit.UNAUTHORISED}.get(failed.kind, ending)
    return Stopped(ending, failed.kind.upper(), failed.message)
