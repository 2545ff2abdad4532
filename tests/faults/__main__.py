"""What is promised of bad days, proved and printed as one table: `python -m tests.faults [--scale N] [name...]`."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tests.faults import WHOLE, crashes, crowd, delivery, stalls
from tests.proof import Line, table

PROOFS = {"crashes": crashes.prove, "stalls": stalls.prove, "crowd": crowd.prove, "delivery": delivery.prove}


def main() -> int:
    """Run the named proofs, or all; exit code 1 where a line is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(PROOFS))
    parser.add_argument(
        "--scale", type=int, default=1, metavar="N", help=f"how far to go: 1 as in make test, {WHOLE} the whole way"
    )
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(PROOFS)
    if unknown := set(names) - set(PROOFS):
        parser.error(f"there is no proof {', '.join(sorted(unknown))}; there are {', '.join(PROOFS)}")
    # Whoever ends a run from outside sends this one: what was started and mounted is ended then as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lines: list[Line] = []
    for name in names:
        started = time.monotonic()
        lines += PROOFS[name](max(arguments.scale, 1))
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(table(lines))
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
