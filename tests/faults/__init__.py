"""What the registry promises of bad days, proved: `python -m tests.faults`. Each module has `prove(scale)`.

`scale` says how far to go: 1 is what `make test` runs, 50 what the project's goals ask for, 100 kills of each
kind and 100 crowds.
"""

import sys
from pathlib import Path

# Within this a request is answered, whatever the database does; and a first success comes after Postgres accepts.
ANSWER_SECONDS = 5.0
SUCCESS_SECONDS = 1.0
# What a machine that has other work may add to a promise in the bounded run. The long run is held to the promise.
TOLERANCE_SECONDS = 1.0

# What is deployed finds the layer on its path; pytest puts it there by pyproject.toml, and here we do.
_LAYER = str(Path(__file__).parent.parent.parent / "layers" / "registry")
if _LAYER not in sys.path:
    sys.path.insert(0, _LAYER)


def within(seconds: float, scale: int) -> float:
    """The bar for a promise of so many seconds, in a run of this scale."""
    return seconds + TOLERANCE_SECONDS if scale == 1 else seconds
