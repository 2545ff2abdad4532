"""Load at a bounded rate, in one table: `python -m tests.load [--scale N]`, for N times 20 s, at most four minutes."""

from __future__ import annotations

import sys

from tests import proof
from tests.load import load

PROOFS = {"load": load.prove}

if __name__ == "__main__":
    sys.exit(proof.run("tests.load", __doc__, PROOFS))
