"""The folder of an embedded Postgres before there is a server: who uses it, whose it is, whether there is room.

The standard library only: `check` is asked before anything is installed.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from local.account import Account, user_name

ROOM = 100_000_000  # bytes; a new server takes 40 MB, and its journal grows by 16 MB at a time


class PostgresError(Exception):
    """Postgres cannot be used; the message is one sentence that says what is wrong and what to do."""


def beside(data: Path, kind: str) -> Path:
    """Return where what belongs to this data stands, its lock for example."""
    return data.with_name(f"{data.name}.{kind}")


def check(data: Path) -> None:
    """Try what can be tried without a server, and change nothing; PostgresError where it cannot work here."""
    data = data.resolve()
    try:
        there = next(folder for folder in data.parents if folder.exists())
        check_owner(data)
        if not data.exists():
            _try_to_write(there)
            free = shutil.disk_usage(there).free
            if free < ROOM:
                raise PostgresError(explain(data, OSError(errno.ENOSPC, f"{free // 1_000_000} MB are free")))
        next(accounts_that_enter(data, there))
        with suppress(FileNotFoundError):
            file = os.open(beside(data, "lock"), os.O_RDONLY | os.O_NOFOLLOW)
            _lock(data, file, fcntl.LOCK_SH)
            os.close(file)
    except OSError as error:
        raise PostgresError(explain(data, error)) from error


def _try_to_write(folder: Path) -> None:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error  # which file it was to be says nothing


def check_owner(data: Path) -> None:
    """Raise PostgresError where an ordinary user meets the data of another one."""
    ours = os.geteuid()
    if ours == 0 or not data.exists():
        return
    owner = data.stat().st_uid
    if owner != ours:
        raise PostgresError(
            f"{data} belongs to {user_name(owner)} and you are {user_name(ours)}: "
            "run this as its owner or as root, choose another folder (DATA_DIR), or set DATABASE_URL"
        )


def accounts_that_enter(data: Path, folder: Path) -> Iterator[Account]:
    """Give the accounts that can go to the folder that the data is in, or will be; PostgresError if none can."""
    able = False
    for account in Account.candidates(data):
        if account.enters(folder):
            able = True
            yield account
    if not able:
        nobody = next(Account.candidates(data)).name
        raise PostgresError(
            f"Postgres does not work for root, and {nobody} cannot get to {folder}: choose a folder that everybody can "
            "enter (DATA_DIR), run this as an ordinary user, or set DATABASE_URL"
        )


def lock(data: Path) -> int:
    """Lock the data for this process, and return the descriptor; PostgresError where another run has it.

    The kernel lets go of it when the process dies.
    """
    # Where others may write to the folder, a link in its place would have us write to any file of ours.
    file = os.open(beside(data, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    _lock(data, file, fcntl.LOCK_EX)
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    return file


def _lock(data: Path, file: int, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 20).decode() or "unknown"
        os.close(file)
        raise PostgresError(f"another run uses {data} (process {holder}): stop that one, or set DATABASE_URL") from None


def explain(data: Path, error: Exception) -> str:
    """Return the sentence about an error of the operating system or of the database, with what to do."""
    reason = " ".join(str(error).split())
    mend = "mend that"
    if isinstance(error, PermissionError):
        # Root without its usual rights, as in a container that has dropped them.
        mend = "run this as an ordinary user" if os.geteuid() == 0 else "give the folder to the user who runs this"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        mend = "make room"
    return f"Postgres cannot use {data} ({reason}): {mend}, choose another folder (DATA_DIR), or set DATABASE_URL"
