"""What is promised about reliability, measured: one line each. `make prove` prints them all in one table.

A proof is a function that takes how far to go and returns its lines. `make test` runs the same functions, only not as
far, and asserts that every line is met.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

Proof = Callable[[int], "list[Line]"]


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


def run(program: str, description: str | None, proofs: Mapping[str, Proof], scale: int = 1) -> int:
    """The command of some proofs: `python -m PROGRAM [--scale N] [name...]` runs them and prints their table.

    `scale` is how far to go where nobody says it. Exit code 1 where a line is not met.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(proofs))
    parser.add_argument(
        "--scale", type=int, default=scale, metavar="N", help="how far to go: 1 as in make test, 50 the whole way"
    )
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(proofs)
    if unknown := set(names) - set(proofs):
        parser.error(f"there is no proof {', '.join(sorted(unknown))}; there are {', '.join(proofs)}")
    # Whoever ends a run from outside sends this one: what was started and mounted is ended then as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lines: list[Line] = []
    for name in names:
        started = time.monotonic()
        lines += proofs[name](max(arguments.scale, 1))
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(table(lines))
    return 0 if all(line.met for line in lines) else 1
