"""What is promised about reliability, measured: one line each. `make prove` prints them all in one table.

A proof is a function that takes how far to go and returns its lines. `make test` runs the same functions, only not as
far, and asserts that every line is met.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Line(NamedTuple):
    """One promise: what was done, what may come of it at most, and what did."""

    what: str
    bar: str
    figure: str
    met: bool


def at_most(what: str, bar: float, figure: float, unit: str = "") -> Line:
    """A line whose figure may reach the bar and not exceed it."""
    space = " " if unit else ""
    return Line(what, f"<= {bar:g}{space}{unit}", f"{figure:.3g}{space}{unit}", figure <= bar)


def table(lines: Iterable[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [("what", "bar", "figure", "met?")]
    rows += [(line.what, line.bar, line.figure, "yes" if line.met else "NO") for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    head, *rest = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(
        [f"| {head} |", "|" + "|".join("-" * (width + 2) for width in widths) + "|", *(f"| {r} |" for r in rest)]
    )
