"""The environments of the real servers: one for each era of the protocol, made on first use, kept in `.venv-real/`.

The SDKs of the two protocols are one distribution, `mcp`, so that no environment can hold both.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venv-real"
ERAS = ("early", "older", "current")


def programs(era: str) -> Path:
    """The folder of an era's python and commands. The environment is made where it is missing or out of date."""
    return make(FOLDER / f"{era}-{version()}", Path(__file__).with_name(f"requirements-{era}.txt"))


def version() -> str:
    """The interpreter's, as a part of a path: runs with 3.11 and 3.13 share a tree, but no environment."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def make(environment: Path, requirements: Path) -> Path:
    """An environment that holds what the list says and nothing else; its folder of programs."""
    wanted = f"{sys.version}\n{hashlib.sha256(requirements.read_bytes()).hexdigest()}\n"
    stamp = environment / "complete"
    if not is_complete(stamp, wanted):
        environment.parent.mkdir(exist_ok=True)
        # Whoever adds everything to a commit does not mean a hundred megabytes of environments.
        (environment.parent / ".gitignore").write_text("*\n")
        with environment.with_name(f"{environment.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another run may have made it while this one waited.
            if not is_complete(stamp, wanted):
                shutil.rmtree(environment, ignore_errors=True)
                install(environment, requirements)
                stamp.write_text(wanted)
    return environment / "bin"


def is_complete(stamp: Path, wanted: str) -> bool:
    """Whether the environment was made to its end from this list, and its interpreter is still installed."""
    try:
        return stamp.read_text() == wanted and (stamp.parent / "bin" / "python").exists()
    except OSError:
        return False


def install(environment: Path, requirements: Path) -> None:
    """Make the environment by uv, or by pip where there is none. The list is complete: nothing is resolved."""
    python = str(environment / "bin" / "python")
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    if uv.exists():
        run(str(uv), "venv", "--quiet", "--python", sys.executable, str(environment))
        # Compiled here, in one go: servers that start together would each compile the same files.
        options = ("--quiet", "--require-hashes", "--compile-bytecode", "--python", python)
        run(str(uv), "pip", "sync", *options, str(requirements))
    else:
        run(sys.executable, "-m", "venv", str(environment))
        options = ("-qq", "--disable-pip-version-check", "--no-deps", "--require-hashes")
        run(python, "-m", "pip", "install", *options, "-r", str(requirements))


def run(*command: str) -> None:
    """Run a command; what it says is in the error where it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
