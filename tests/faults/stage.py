"""What a proof plays on: a Postgres of its own and a local stack, started as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from local.postgres import Postgres, PostgresError
from tests.conftest import PASSWORD, USERNAME, Local

# A stack that checks nobody, and whose log stays short.
QUIET = {"HEALTH_SWEEPS": "off", "LOG_LEVEL": "ERROR"}


@contextmanager
def postgres(*, durable: bool = True) -> Generator[Postgres]:
    """A server on a new folder, which is removed with it."""
    with tempfile.TemporaryDirectory(prefix="registry-faults-") as folder:
        # Where root runs this, the server is somebody else, who has to get there.
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "data", durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def stack(database_url: str, **settings: str) -> Generator[Local]:
    """`python -m local` on a free port, with these settings. Raises AssertionError where it does not end in order."""
    with tempfile.TemporaryDirectory(prefix="registry-faults-") as folder:
        environment = {
            "PORT": "0",
            "DATABASE_URL": database_url,
            "DATA_DIR": folder,
            "REGISTRY_USERNAME": USERNAME,
            "REGISTRY_PASSWORD": PASSWORD,
            **settings,
        }
        local = Local(environment)
        try:
            local.wait_until_ready()
            yield local
        finally:
            code = local.stop()
        assert code == 0, "\n".join(local.output[-20:])


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition. Raises AssertionError where it does not come to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def accepts(url: str) -> bool:
    """Whether Postgres takes a connection and answers on it."""
    try:
        with psycopg.connect(url, connect_timeout=2, autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def runs(server: Postgres) -> bool:
    """Whether there is a postmaster."""
    try:
        return server.pid > 0
    except PostgresError:
        return False


def functions(local: Local) -> list[int]:
    """The ids of the processes that handle requests: children of the local run with AWS's runtime client."""
    return [pid for pid, parent, command in _processes() if parent == local.process.pid and "awslambdaric" in command]


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Signal processes, of which some may have ended."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


class NoMount(Exception):
    """This machine, or this user, does not allow to mount a file system."""


@contextmanager
def small_disk(folder: Path, megabytes: int, owner: Path) -> Generator[Path]:
    """A file system in memory of so many MB, mounted on a new folder that belongs to the owner of another path.

    Raises NoMount where there can be none.
    """
    folder.mkdir()
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    except OSError as error:
        folder.rmdir()
        raise NoMount(str(error)) from None
    try:
        status = owner.stat()
        os.chown(folder, status.st_uid, status.st_gid)
        folder.chmod(0o700)
        yield folder
    finally:
        run("umount", "-l", str(folder))
        folder.rmdir()


def enlarge(folder: Path, megabytes: int) -> None:
    """Give a small disk another size."""
    run("mount", "-o", f"remount,size={megabytes}m", str(folder))


def run(*command: str) -> None:
    """Run a command of the system. Raises OSError with what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(" ".join(done.stderr.split()) or f"{command[0]} fails")


def _processes() -> Generator[tuple[int, int, str]]:
    """Id, parent and command of every process."""
    if sys.platform != "linux":
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            pid, parent, command = line.split(maxsplit=2)
            yield int(pid), int(parent), command
        return
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            # The name in the second field may hold anything; the parent is the second one after it.
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        yield int(path.name), parent, command
