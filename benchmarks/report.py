"""Results: how they are timed, judged and printed."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psycopg


class Result(NamedTuple):
    """One line of the summary: two figures, their ratio, and what the ratio may be."""

    what: str
    ours: float
    baseline: float
    unit: str
    bar: float
    # Requests/s must reach the bar, times and sizes must stay below it.
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Ours over the baseline."""
        return self.ours / self.baseline

    @property
    def met(self) -> bool:
        """Whether the bar is met."""
        return self.ratio >= self.bar if self.more_is_better else self.ratio <= self.bar


def alternate(subjects: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let each subject measure itself `rounds` times, in turns, so that a busy moment of the machine hits all.

    The order is reversed each round: whoever runs after somebody expensive is not always the same.
    """
    measured: dict[str, list[float]] = {name: [] for name in subjects}
    for round_ in range(rounds):
        names = list(subjects)[:: 1 if round_ % 2 == 0 else -1]
        for name in names:
            measured[name].append(subjects[name]())
    return measured


def wall_ms(work: Callable[[], object]) -> Callable[[], float]:
    """A subject that measures the wall time of `work` in milliseconds."""

    def measure() -> float:
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) * 1000

    return measure


def medians(measured: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each subject's figures."""
    return {name: statistics.median(figures) for name, figures in measured.items()}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first row is the head. Columns of figures are right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            text.ljust(width) if not i else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join(("-" * (width + 1) + (":" if i else "-")) for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def summary(results: Sequence[Result]) -> str:
    """The one table that says what meets its bar."""
    head = ("what", "ours", "baseline", "ratio", "bar", "met?")
    return table(
        [
            head,
            *(
                (
                    result.what,
                    f"{figure(result.ours)} {result.unit}",
                    f"{figure(result.baseline)} {result.unit}",
                    f"{result.ratio:.2f}",
                    f"{'>=' if result.more_is_better else '<='} {result.bar:.2f}",
                    "yes" if result.met else "NO",
                )
                for result in results
            ),
        ]
    )


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def machine(server_url: str | None = None) -> str:
    """One line about where this was measured."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    parts = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z",
        f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}",
        platform.system(),
        f"Python {platform.python_version()}",
    ]
    if server_url:
        with psycopg.Connection.connect(server_url) as connection:
            version = connection.info.server_version
        parts.append(f"Postgres {version // 10000}.{version % 10000}")
    return " · ".join(parts)


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
