"""What is promised about reliability, measured: one line each. `make prove` prints them all in one table.

A proof is a function that takes how far to go and returns its lines. `make test` runs the same functions, only not as
far, and asserts that every line is met.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

Proof = Callable[[int], "list[Line]"]

# How far the project's goals go: a hundred kills of each kind, a hundred crowds.
WHOLE = 50
# How far what has no such number goes, so that all together are half an hour.
FAR = 10
# Set when somebody wants the run to end. Who works for long looks at it, and waits by its `wait`.
interrupted = threading.Event()


class Line(NamedTuple):
    """One promise: what was done, what may come of it at most, and what did."""

    what: str
    bar: str
    figure: str
    met: bool
    # Whether it could be measured on this machine. What could not is not met either.
    tried: bool = True


def at_most(what: str, bar: float, figure: float, unit: str = "") -> Line:
    """A line whose figure may reach the bar and not exceed it."""
    space = " " if unit else ""
    return Line(what, f"<= {bar:g}{space}{unit}", f"{figure:.3g}{space}{unit}", figure <= bar)


def not_tried(what: str, bar: str, reason: str) -> Line:
    """A line that this machine or this user cannot measure, and why."""
    return Line(what, bar, f"not tried here: {reason}", met=False, tried=False)


def some(wrong: Iterable[object], most: int = 3) -> str:
    """The first few things that are wrong, as the end of a figure; nothing where there are none."""
    told = [str(each)[:100] for each in wrong]
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return f": {'; '.join(told[:most])}{more}" if told else ""


def table(lines: Iterable[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [("what", "bar", "figure", "met?")]
    rows += [(line.what, line.bar, line.figure, _verdict(line)) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    head, *rest = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(
        [f"| {head} |", "|" + "|".join("-" * (width + 2) for width in widths) + "|", *(f"| {r} |" for r in rest)]
    )


def _verdict(line: Line) -> str:
    if not line.tried:
        return "not tried"
    return "yes" if line.met else "NO"


def run(program: str, description: str | None, proofs: Mapping[str, Proof], scale: int = 1) -> int:
    """The command of some proofs: `python -m PROGRAM [--scale N] [name...]` runs them and prints their table.

    `scale` is how far to go where nobody says it. Exit code 0 where every line is met, 1 where one is not or could not
    be tried, 130 where the run was interrupted; the table is printed in each case.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(proofs))
    parser.add_argument(
        "--scale", type=int, default=scale, metavar="N", help=f"how far to go: 1 as in make test, {WHOLE} the whole way"
    )
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(proofs)
    if unknown := set(names) - set(proofs):
        parser.error(f"there is no proof {', '.join(sorted(unknown))}; there are {', '.join(proofs)}")
    # Whoever ends a run from outside sends one of these: what was started and mounted is ended then as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    lines: list[Line] = []
    try:
        for name in names:
            lines += _measured(name, proofs[name], max(arguments.scale, 1))
    except KeyboardInterrupt:
        print("interrupted: the table holds what was measured before", file=sys.stderr)
    print(table(lines))
    if interrupted.is_set():
        return 130
    return 0 if all(line.met for line in lines) else 1


def _interrupt(number: int, frame: object) -> None:
    interrupted.set()
    raise KeyboardInterrupt


def _measured(name: str, proof: Proof, scale: int) -> list[Line]:
    """The lines of one proof. One that fails itself has a line too, and takes no other along."""
    started = time.monotonic()
    try:
        lines = proof(scale)
    except Exception as error:
        traceback.print_exc()
        told = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        lines = [Line(f"{name}: the proof comes to its end", "yes", told, met=False)]
    unmet = sum(not line.met for line in lines)
    told = f"{name}: {len(lines)} lines, {unmet or 'none'} not met, {time.monotonic() - started:.0f} s"
    print(told, file=sys.stderr, flush=True)
    return lines
