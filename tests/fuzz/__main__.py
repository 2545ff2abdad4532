"""Generated input, and what comes of it, in one table: `python -m tests.fuzz [--scale N] [name...]`."""

from __future__ import annotations

import sys

from tests import proof
from tests.fuzz import coverage, guard, requests

PROOFS = {"guard": guard.prove, "coverage": coverage.prove, "requests": requests.prove}

if __name__ == "__main__":
    sys.exit(proof.run("tests.fuzz", __doc__, PROOFS))
