"""Where a clone may lie: file systems that a test mounts for itself, and folders in which nothing runs."""

import os
import subprocess
from pathlib import Path

import pytest

_MOUNT = ("/bin/sh", "-c", "unshare -m mount -t tmpfs tmpfs /mnt")
mounts = pytest.mark.skipif(
    subprocess.run(_MOUNT, capture_output=True, check=False).returncode != 0, reason="nobody may mount here"
)


def require_programs_to_run_in(folder: Path) -> None:
    """Skip the test where a folder is mounted with noexec, as the one for temporary files may be."""
    if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        pytest.skip(f"no program runs in {folder}: set TMPDIR to another folder")
