"""What the client says, in the log of a host that may have set up none."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import logging

LOGGER = "mcp_registry_client"


def log(level: Literal["debug", "info", "notice", "warning"], message: str, *arguments: object) -> None:
    """One line to the host's log.

    A `notice` is information that somebody waits for: that it worked, or why it will not. Most frameworks set up no
    log but their own, and Lambda's runtime hides what is less than a warning: where nobody would see it, it goes to
    stderr, as Python itself does with warnings. Whoever wants less of it says so of this logger, and is heeded.
    """
    import logging

    logger = logging.getLogger(LOGGER)
    if level == "notice" and not _is_shown(logger):
        on_stderr(message % arguments)
    else:
        getattr(logger, "info" if level == "notice" else level)(message, *arguments)


_warned: set[str] = set()


def warn_once(text: str) -> None:
    """One warning to the host's log, however often it is found in this process."""
    if text not in _warned:
        _warned.add(text)
        log("warning", "%s", text)


def on_stderr(text: str) -> None:
    """One line to stderr, unless this logger is silenced. Where it is closed, nothing is lost."""
    import logging

    stream = sys.stderr
    # Not by print, which takes stdout where there is no stderr: on stdio that is the protocol's.
    if stream is not None and not _is_silenced(logging.getLogger(LOGGER)):
        with suppress(Exception):
            stream.write(f"{text}\n")
            stream.flush()


def _is_shown(logger: logging.Logger) -> bool:
    """Whether something takes what is no more than information."""
    import logging

    if not logger.isEnabledFor(logging.INFO):
        return False
    at: logging.Logger | None = logger
    while at is not None:
        if any(one.level <= logging.INFO and not isinstance(one, logging.NullHandler) for one in at.handlers):
            return True
        at = at.parent if at.propagate else None
    return False


def _is_silenced(logger: logging.Logger) -> bool:
    """Whether somebody has said of this very logger, or of all, that such lines are not wanted."""
    import logging

    return (
        logger.disabled
        or logger.level > logging.INFO
        or not logger.propagate
        or bool(logger.handlers)
        or logger.manager.disable >= logging.INFO
    )
