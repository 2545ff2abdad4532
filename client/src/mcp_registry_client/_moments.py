"""When something was or will be, as a registry writes it and as a person reads it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Final

UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def moment(value: Any) -> datetime | None:
    """A moment that a registry gives; None where it is none."""
    try:
        # Python 3.10 knows offsets, and not the letter.
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def passed(value: Any) -> float:
    """The seconds since a moment, which are negative before it; 0 where it is none."""
    found = moment(value)
    return (_now() - found).total_seconds() if found else 0.0


def length(seconds: float) -> str:
    """A length of time in its largest unit: 3 min."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"


def ago(value: Any) -> str | None:
    """How long ago a moment was; None where it is none. A clock that is behind the registry's makes it now."""
    if moment(value) is None:
        return None
    seconds = passed(value)
    return f"{length(seconds)} ago" if seconds >= 1 else "now"


def left(value: Any) -> str | None:
    """How long it is until a moment; None where it is over, or none."""
    seconds = -passed(value)
    return length(seconds) if seconds > 0 else None


def exact(seconds: int) -> str:
    """A length of time in the largest unit that it is a multiple of: 90 min."""
    return next(f"{seconds // size} {unit}" for size, unit in UNITS if seconds % size == 0)


def written(at: datetime) -> str:
    """A moment as a registry reads it."""
    return at.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def _now() -> datetime:
    return datetime.now(timezone.utc)
