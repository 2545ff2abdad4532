"""The environments of the real servers, made on first use, kept in `.venv-real/`.

Of Python there is one for each era of the protocol, because the SDKs of both are one distribution, `mcp`, and one for
servers in other languages that the package index ships as binaries. What is of npm has one for servers and clients in
JavaScript and small binaries, and one for what is large, which `make prove` alone asks for.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDER = ROOT / ".venv-real"
ERAS = ("early", "older", "current", "binaries")
NPM = ("node", "large")


def programs(era: str) -> Path:
    """The folder of an environment's commands. The environment is made where it is missing or out of date."""
    if era in NPM:
        return make(FOLDER / era, HERE / era / "package-lock.json")
    return make(FOLDER / f"{era}-{version()}", HERE / f"requirements-{era}.txt")


def missing(era: str) -> str | None:
    """Why this machine cannot have an environment; None where it can."""
    if era in NPM and not (shutil.which("node") and shutil.which("npm")):
        return "Node.js and npm are not installed"
    if era in ("binaries", "large") and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "the binaries are those for Linux on x86-64"
    return None


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
                (install_npm if requirements.suffix == ".json" else install)(environment, requirements)
                stamp.write_text(wanted)
    return environment / "bin"


def is_complete(stamp: Path, wanted: str) -> bool:
    """Whether the environment was made to its end from this list, and its interpreter is still installed."""
    try:
        made = stamp.read_text() == wanted
        return made and any((stamp.parent / "bin" / name).exists() for name in ("python", "node"))
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


def install_npm(environment: Path, lock: Path) -> None:
    """Install what the lock file says by npm, and gather the commands of it in one folder."""
    environment.mkdir(parents=True)
    for name in (lock.name, "package.json"):
        shutil.copy(lock.with_name(name), environment)
    # No script of a package is run: what these servers need is in them.
    run("npm", "ci", "--prefix", str(environment), "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    modules, folder = environment / "node_modules", environment / "bin"
    listed = json.loads(lock.read_text())["packages"][""]
    # A binary is often shipped for the package that starts it, and named by none as a command.
    own = [modules / name / "bin" for kind in ("dependencies", "optionalDependencies") for name in listed.get(kind, ())]
    folder.mkdir()
    for command in [path for place in (*own, modules / ".bin") if place.is_dir() for path in place.iterdir()]:
        (folder / command.name).unlink(missing_ok=True)
        (folder / command.name).symlink_to(command)
    (folder / "node").unlink(missing_ok=True)
    (folder / "node").symlink_to(shutil.which("node") or "node")


def run(*command: str) -> None:
    """Run a command; what it says is in the error where it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
