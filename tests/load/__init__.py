"""Load at a bounded rate, with sweeps running, and what it leaves behind, proved: `python -m tests.load`."""

import sys
from pathlib import Path

# What is deployed finds the layer on its path, and a server the client; pytest puts them there by pyproject.toml, and
# here we do.
_ROOT = Path(__file__).parent.parent.parent
for _folder in (_ROOT / "layers" / "registry", _ROOT / "client" / "src"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
