"""Install what a list names, in a virtual environment that is made where there is none.

    python -m local.install .venv requirements/run.txt 400 "what the registry runs with"

400 are the MB that it takes. A terminal sees how far it is, and CI (where `CI` is set) nothing but a failure: that ends
it with one line about what is wrong, the last lines of pip, and exit code 1. What was interrupted goes on with the next
run. The standard library only, as nothing else is there yet.
"""

import contextlib
import errno
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

LAST_LINES = 6
# Where so many packages are missing, uv brings them, if the list has it: the 158 of the tests take 36 s of a
# processor's time instead of 72. Both with compiling, which uv does on all cores (2026-11-30).
MANY = 20

# What pip says, and what is at fault then. The first that fits is told.
CAUSES = (
    (r"No space left|Disk quota exceeded", "the disk is full: make room"),
    (r"DO NOT MATCH THE HASHES", "a package is not the one that was pinned: try `pip cache purge`, or another index"),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "the certificate of the package index is not trusted: set PIP_CERT"),
    (
        r"connection broken|Max retries|timed out|ProxyError",
        "the package index cannot be reached: look at the network, HTTPS_PROXY and PIP_INDEX_URL",
    ),
    (
        r"No matching distribution|Failed (?:to build|building)",
        "a package is not there for this Python and this system",
    ),
    (r"Permission denied|Read-only file system", "a folder cannot be written to: give it to the user who runs this"),
)


class InstallError(Exception):
    """The installation cannot be made; the message is what the user reads."""


def main(arguments: Sequence[str]) -> int:
    """Install; returns the exit code."""
    venv, requirements, room, what = Path(arguments[0]), Path(arguments[1]), int(arguments[2]), arguments[3]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _had_alone(venv.absolute(), room) as folder:
            Environment(folder, Progress(f"Installing {what}, {room} MB")).install(requirements)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: the next run goes on from here.", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _had_alone(folder: Path, room: int) -> Generator[Path]:
    """Make the folder of an environment, and keep others from it: two pips at once would spoil what is in it."""
    if not importlib.util.find_spec("ensurepip"):
        raise InstallError(
            "This Python cannot make virtual environments: install its venv package (Debian: python3-venv)"
        )
    try:
        if not folder.exists():
            free = shutil.disk_usage(folder.parent).free // 1_000_000
            if free < room:
                raise InstallError(f"{folder} needs {room} MB, and {free} MB are free: make room")
            folder.mkdir()
        opened = os.open(folder, os.O_RDONLY)
        try:
            _lock(opened)
            yield folder
        finally:
            os.close(opened)
    except OSError as error:
        mend = f"give {folder.parent} to the user who runs this, or use another clone"
        if error.errno == errno.ENOSPC:
            mend = "make room"
        raise InstallError(f"{error.filename or folder} cannot be used ({error.strerror}): {mend}") from error


def _lock(folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say("Waiting for another installation here ...\n")
        fcntl.flock(folder, fcntl.LOCK_EX)


def _say(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # whoever read it has gone; the installation goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """How far it is: a line of a terminal that is written anew, elsewhere one at the beginning, nothing in CI."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._live = sys.stdout.isatty() and not os.environ.get("CI")
        self._shown = ""
        if not self._live and not os.environ.get("CI"):
            _say(f"{what} ...\n")

    def show(self, how_far: str) -> None:
        """Say it; what stands on the line already is overwritten."""
        if self._live:
            text = f"{self._what}: {how_far}{time.monotonic() - self._began:.0f} s"
            text = text[: shutil.get_terminal_size().columns - 1]
            _say("\r" + text.ljust(len(self._shown)))
            self._shown = text

    def end(self) -> None:
        """Leave the line as it is."""
        if self._shown:
            _say("\n")
            self._shown = ""


class Environment:
    """A virtual environment, which may be half made, or not at all."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        """Take a folder that is there."""
        self._folder = folder
        self._python = folder / "bin" / "python"
        self._progress = progress
        # On the disk that is written to anyway: the one for temporary files may be full.
        self._temporary = folder / "tmp"
        self._begun = folder / "begun-by-uv"

    def install(self, requirements: Path) -> None:
        """Install what a list names and is not there yet; InstallError where that fails."""
        text = requirements.read_text("utf-8")
        listed = _listed(text)
        packages = len({pin.partition("==")[0] for pin in listed})  # one may be pinned anew for a newer Python

        def how_far() -> str:
            return f"{len(listed & self._installed())} of {packages} packages, "

        try:
            # Whatever is there is of no use, as a link to a Python that is gone.
            if not self._python.exists() or self._begun.exists():
                self._make()
            self._temporary.mkdir(exist_ok=True)
            self._bring_pip()
            uv = re.search(r"^uv==(?:.*\\\n)*.*", text, re.MULTILINE)
            if uv and len(listed - self._installed()) >= MANY:
                self._bring_by_uv(uv[0], requirements, how_far)
            self._run(self._pip(requirements), how_far)
        finally:
            self._progress.end()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _make(self) -> None:
        self._run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(self._folder)])
        self._temporary.mkdir(exist_ok=True)

    def _pip(self, requirements: Path) -> list[str]:
        command = [str(self._python), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
        # The list is complete (`make lock`), so --no-deps resolves nothing; every file is checked against its hash.
        command += ["--no-deps", "--require-hashes", "-r", str(requirements)]
        # Compiling took 26 of 40 s, on 2 cores, 2026-11-30. The first start compiles what is imported, if it may.
        return command + ([] if sys.dont_write_bytecode else ["--no-compile"])

    def _bring_by_uv(self, pinned: str, requirements: Path, how_far: Callable[[], str]) -> None:
        """Install what is missing by uv, of which the list says `pinned`; where that fails, there is nothing.

        What is wrong is then found, and said, by pip.
        """
        command = [str(self._python), "-m", "pip", "config", "list"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        indexes = set(re.findall(r"^\S+\.index-url='(.*)'$", said, re.MULTILINE))
        if len(indexes) > 1 or ".no-index=" in said:
            return  # which of them is asked, pip knows
        own = self._temporary / "uv.txt"
        own.write_text(pinned, "utf-8")
        self._run(self._pip(own), how_far)
        command = [str(self._python.with_name("uv")), "pip", "install", "--quiet", "--python", str(self._python)]
        command += ["--no-deps", "--require-hashes", "-r", str(requirements)]
        command += ["--compile-bytecode"] if sys.dont_write_bytecode else []
        # What uv has begun looks as if it were whole: this is there until it has ended.
        self._begun.touch()
        try:
            self._run(command, how_far, {"UV_DEFAULT_INDEX": indexes.pop()} if indexes else {})
        except (InstallError, OSError):
            self._make()
            self._bring_pip()
        self._begun.unlink(missing_ok=True)

    def _bring_pip(self) -> None:
        for package in self._packages():
            # pip writes its list of files last, and takes a package for installed that has none.
            if not (package / "RECORD").exists():
                shutil.rmtree(package)
        if subprocess.run([self._python, "-c", "import pip"], capture_output=True, check=False).returncode != 0:
            self._run([str(self._python), "-m", "ensurepip", "--default-pip"])

    def _packages(self) -> list[Path]:
        return list(self._folder.glob("lib/python*/site-packages/*.dist-info"))

    def _installed(self) -> set[str]:
        """What is installed as a whole, as `_listed` gives it."""
        whole = [package.stem.rpartition("-") for package in self._packages() if (package / "RECORD").exists()]
        return {_pinned(name, version) for name, _, version in whole}

    def _run(
        self, command: list[str], how_far: Callable[[], str] = str, settings: Mapping[str, str] | None = None
    ) -> None:
        """Run a step to its end; InstallError with what it said where it fails."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(self._temporary), **(settings or {})},
        )
        try:
            output = None
            while output is None:
                self._progress.show(how_far())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    output = process.communicate(timeout=0.5)[0]
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        self._progress.show(how_far())
        if process.returncode != 0:
            self._progress.end()
            cause = next((cause for said, cause in CAUSES if re.search(said, output)), "pip says why")
            lines = [line for line in output.splitlines() if line.strip()][-LAST_LINES:]
            raise InstallError("\n  ".join([f"The installation failed: {cause}.", *lines]))


def _listed(text: str) -> set[str]:
    """What a list of requirements pins, but for what is for Windows alone."""
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)(.*)", text, re.MULTILINE)
    return {_pinned(name, version) for name, version, marker in lines if "win32" not in marker or "!=" in marker}


def _pinned(name: str, version: str) -> str:
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
