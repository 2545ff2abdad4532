"""What was found of planted secrets, in one table: `python -m tests.redaction [--scale N]`."""

from __future__ import annotations

import sys

from tests import proof
from tests.redaction import canaries

PROOFS = {"redaction": canaries.prove}

if __name__ == "__main__":
    sys.exit(proof.run("tests.redaction", __doc__, PROOFS))
