"""Load at a bounded rate, in one table: `python -m tests.load [--scale N]`. N is the minutes, times three."""

from __future__ import annotations

import argparse
import sys
import time

from tests.load import load
from tests.proof import table

PROOFS = {"load": load.prove}


def main() -> int:
    """Run the proof; exit code 1 where a line is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="20 s of load for each; 1 as in make test")
    arguments = parser.parse_args()
    started = time.monotonic()
    lines = load.prove(max(arguments.scale, 1))
    print(f"load: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(table(lines))
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
