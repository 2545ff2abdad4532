"""What `make lint` says is said here too: what takes half a minute runs beside other tests."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT


def test_style_types_and_template_are_in_order():
    venv = os.path.relpath(sys.prefix, ROOT)
    # Whoever started make for the tests has its own settings, and has installed what is needed.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    command = ["make", "lint", f"VENV={venv}", f"--old-file={venv}/dev.stamp"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
