"""What was found of planted secrets, in one table: `python -m tests.redaction [--scale N]`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.proof import table
from tests.redaction import canaries

PROOFS = {"redaction": canaries.prove}


def main() -> int:
    """Run the proof; exit code 1 where a line is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.redaction", description=__doc__)
    parser.add_argument("--scale", type=int, default=1, metavar="N", help="how often the requests are sent")
    arguments = parser.parse_args()
    started = time.monotonic()
    lines = canaries.prove(max(arguments.scale, 1))
    print(f"redaction: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(table(lines))
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
