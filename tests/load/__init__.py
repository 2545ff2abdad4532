"""Load at a bounded rate, with sweeps running, and what it leaves behind, proved: `python -m tests.load`."""

import sys
from pathlib import Path

# What is deployed finds the layer on its path; pytest puts it there by pyproject.toml, and here we do.
_LAYER = str(Path(__file__).parent.parent.parent / "layers" / "registry")
if _LAYER not in sys.path:
    sys.path.insert(0, _LAYER)
