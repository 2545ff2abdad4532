"""Load, and what answers it wrongly, in one table: `python -m tests.load [--scale N] [load] [announcer]`."""

from __future__ import annotations

import sys

from tests import proof
from tests.load import announcer, load

PROOFS = {"load": load.prove, "announcer": announcer.prove}

if __name__ == "__main__":
    sys.exit(proof.run("tests.load", __doc__, PROOFS))
