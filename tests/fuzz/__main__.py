"""Generated input, and what comes of it, in one table: `python -m tests.fuzz [--scale N] [name...]`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz import coverage, guard, requests
from tests.proof import Line, table

PROOFS = {"guard": guard.prove, "coverage": coverage.prove, "requests": requests.prove}


def main() -> int:
    """Run the named proofs, or all; exit code 1 where a line is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(PROOFS))
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="how far to go: 1 as in make test")
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(PROOFS)
    if unknown := set(names) - set(PROOFS):
        parser.error(f"there is no proof {', '.join(sorted(unknown))}; there are {', '.join(PROOFS)}")
    lines: list[Line] = []
    for name in names:
        started = time.monotonic()
        lines += PROOFS[name](max(arguments.scale, 1))
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(table(lines))
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
