"""Generated input, and what comes of it, proved: `python -m tests.fuzz`. Each module has `prove(scale)`."""

import sys
from pathlib import Path

# What is deployed finds the layer on its path; pytest puts it there by pyproject.toml, and here we do.
_LAYER = str(Path(__file__).parent.parent.parent / "layers" / "registry")
if _LAYER not in sys.path:
    sys.path.insert(0, _LAYER)
