"""What is promised of bad days, proved and printed as one table: `python -m tests.faults [--scale N] [name...]`."""

from __future__ import annotations

import sys

from tests import proof
from tests.faults import crashes, crowd, delivery, environments, migrations, stalls

PROOFS = {
    "crashes": crashes.prove,
    "stalls": stalls.prove,
    "crowd": crowd.prove,
    "delivery": delivery.prove,
    "environments": environments.prove,
    "migrations": migrations.prove,
}

if __name__ == "__main__":
    sys.exit(proof.run("tests.faults", __doc__, PROOFS))
