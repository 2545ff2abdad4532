"""Secrets that are planted everywhere, and looked for wherever they must not be: `python -m tests.redaction`."""

import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent
# What is deployed finds the layer on its path; pytest puts it there by pyproject.toml, and here we do.
for _folder in (_ROOT / "layers" / "registry", _ROOT / "client" / "src"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
