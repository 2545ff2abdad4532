"""At once: has somebody introduced to who has just been registered, or has come back."""

from __future__ import annotations

from datetime import datetime


def at_once(visit: tuple[datetime, int, int, str, str | None, str | None, str | None]) -> None:
    """Ask for the introduction of an endpoint: when it was read and the fields of `messages.Visit`. Never raises."""
