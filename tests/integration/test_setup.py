"""`make` where nothing is installed yet: what is tried before that, what an installation says, how it goes on.

Packages come from an index that the tests serve: pip, the environments and HTTP are real, and nobody else is asked.
"""

import hashlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from local import folder
from local.install import MANY
from tests.conftest import ROOT
from tests.places import mounts

# Python without what is installed in it. It writes down what it is asked for.
BARE_PYTHON = """
echo "$@" >> '{asked}'
exec '{python}' -S "$@"
"""
WHAT = "Installing what the tests make up"


def environment(**settings: str) -> dict[str, str]:
    """Our environment without the settings of whoever runs the tests."""
    theirs = ("CI", "PORT", "DATA", "LOG_LEVEL", "HEALTH_SWEEPS", "REGISTRY_", "MAKE", "PIP_", "PG", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)} | settings


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What of a clone `make run` needs until something is installed."""
    clone = tmp_path / "a clone"
    clone.mkdir()
    shutil.copy(ROOT / "Makefile", clone)
    for name in ("local", "requirements"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "python").write_text(BARE_PYTHON.format(asked=tmp_path / "asked", python=sys.executable))
    return clone


def make(
    clone: Path, target: str, settings: Mapping[str, str], before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, "make", f"PYTHON=sh {clone.parent / 'python'}", target],
        cwd=clone,
        env={**environment(), "PORT": "0", **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(clone: Path, settings: Mapping[str, str], before: Sequence[str] = ()) -> str:
    """The line of a `make run` that ends before anything is installed; make adds its own, as it does with any error."""
    run = make(clone, "run", settings, before)
    assert run.returncode != 0
    assert run.stdout == ""
    assert not (clone / ".venv").exists()
    assert "local.install" not in (clone.parent / "asked").read_text()
    line, of_make = run.stderr.splitlines()
    assert of_make.startswith("make: ***")
    return line


# ------------------------------------------------------------------ before anything is installed


def test_a_taken_port_is_said(clone: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert refused(clone, {"PORT": port}).startswith(
            f"Port {port} is taken: stop the program that listens there, or"
        )


@pytest.mark.parametrize(
    ("setting", "value"), [("PORT", "http"), ("LOG_LEVEL", "loud"), ("HEALTH_SWEEPS", "sometimes")]
)
def test_a_setting_that_is_none_is_said(clone: Path, setting: str, value: str) -> None:
    assert refused(clone, {setting: value}).startswith(f"{setting} must be ")


@pytest.mark.parametrize("url", ["postgresql://me:canary@{}/db", "host=127.0.0.1 port={} password=canary dbname=db"])
def test_a_database_that_nobody_listens_for_is_said_without_its_password(clone: Path, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    line = refused(clone, {"DATABASE_URL": url.format(f"127.0.0.1:{port}" if "//" in url else port)})
    assert line.startswith(f"The database 127.0.0.1:{port} can't be used: Connection refused. ")
    assert "canary" not in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql//canary",
        "postgresql://u:canary@127.0.0.1:port/x",
        "postgresql://u:s/canary@h:1/x",
        "sqlite:///canary=1",
    ],
)
def test_what_is_no_connection_string_is_said_without_what_it_is(clone: Path, url: str) -> None:
    line = refused(clone, {"DATABASE_URL": url})
    assert line.startswith("DATABASE_URL is not a connection string; ")
    assert "canary" not in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://{}/db",
        "postgresql://nobody.invalid,{}/db",
        "postgresql:///db?host=/nowhere",
        "host='{}'",
        "service=mine",
        "dbname=db",
    ],
)
def test_a_database_that_may_be_there_is_left_to_the_start(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = url.format(f"127.0.0.1:{listening.getsockname()[1]}")
        settings = {"DATABASE_URL": url, "PORT": "0"}
        run = subprocess.run(
            [sys.executable, "-m", "local.checks"],
            cwd=ROOT,
            env=environment() | settings,
            capture_output=True,
            check=False,
        )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_a_data_folder_that_another_run_uses_is_said_with_the_process(clone: Path) -> None:
    (clone / ".data").mkdir()
    lock = folder.lock(clone / ".data" / "postgres")
    try:
        line = refused(clone, {})
        assert line.startswith(f"another run uses {clone.resolve()}/.data/postgres (process {os.getpid()}): stop that ")
    finally:
        os.close(lock)


def test_a_data_folder_that_cannot_be_made_is_said(clone: Path) -> None:
    (clone / "file").touch()
    line = refused(clone, {"DATA_DIR": "file/data"})
    assert line.startswith(f"Postgres cannot use {clone.resolve()}/file/data/postgres ([Errno 20] Not a directory: ")
    assert "choose another folder (DATA_DIR), or set DATABASE_URL" in line


@mounts
def test_a_full_disk_for_the_data_is_said(clone: Path) -> None:
    (clone / "small").mkdir()
    mount = 'mount -t tmpfs -o size=1m tmpfs small && exec "$@"'
    line = refused(clone, {"DATA_DIR": "small"}, ("unshare", "-m", "sh", "-c", mount, "sh"))
    assert f"Postgres cannot use {clone.resolve()}/small/postgres ([Errno 28] 1 MB are free): make room, choose" in line


def test_a_python_that_is_too_old_is_said(clone: Path) -> None:
    old = clone.parent / "python"
    old.write_text(f"echo \"$@\" >> '{clone.parent}/asked'\nexit 1\n")
    assert refused(clone, {}).startswith("The registry needs Python 3.11 or newer: make PYTHON=/path/to/python3.13 run")


@pytest.mark.parametrize("module", ["checks", "install"])
def test_what_comes_before_an_installation_imports_the_standard_library_only(module: str) -> None:
    script = f"import sys, local.{module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    bare = subprocess.run(
        [sys.executable, "-c", script.replace(f", local.{module}", "")], capture_output=True, text=True
    )
    assert set(run.stdout.split()) - set(bare.stdout.split()) <= set(sys.stdlib_module_names) | {"local"}


# ------------------------------------------------------------------ an installation


class Index(ThreadingHTTPServer):
    """A package index. Each package is one module, which says that it is whole."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.root = Path(self._folder.name)
        self.asked = threading.Event()
        self.answering = threading.Event()
        self.answering.set()
        super().__init__(("127.0.0.1", 0), Answer)

    def hold(self) -> None:
        """Answer nothing, until `answering` is set."""
        self.answering.clear()
        self.asked.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, contents: bytes = b"", script: str = "") -> str:
        """A new package, perhaps with a command of its name; returns its line in a list of requirements."""
        module = name.replace("-", "_")
        wheel = self.root / name / f"{module}-1.0-py3-none-any.whl"
        wheel.parent.mkdir()
        about = f"{module}-1.0.dist-info"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(f"{module}.py", "WHOLE = True\n")
            file.writestr("contents", contents)
            if script:
                about_script = zipfile.ZipInfo(f"{module}-1.0.data/scripts/{name}")
                about_script.external_attr = 0o100755 << 16  # pip lets run what may be run here
                file.writestr(about_script, script)
            file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(
                f"{about}/RECORD", f"{module}.py,,\ncontents,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n"
            )
        return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"

    def server_close(self) -> None:
        super().server_close()
        self._folder.cleanup()


class Answer(SimpleHTTPRequestHandler):
    def __init__(self, request: Any, address: Any, server: Index) -> None:
        super().__init__(request, address, server, directory=str(server.root))

    def do_GET(self) -> None:
        assert isinstance(self.server, Index)
        self.server.asked.set()
        self.server.answering.wait()
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    with Index() as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        yield index
        index.shutdown()


@pytest.fixture(scope="module")
def venv(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip in it, as the first installation has made it."""
    venv = tmp_path_factory.mktemp("a clone") / ".venv"
    run = install(venv, index, "")
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{WHAT}, 1 MB ...\n"
    assert run.stderr == ""
    assert not (venv / "tmp").exists()
    return venv


def command(venv: Path, requirements: str) -> list[str]:
    listed = venv.parent / "requirements.txt"
    listed.write_text(requirements)
    return [sys.executable, "-m", "local.install", str(venv), str(listed), "1", WHAT.removeprefix("Installing ")]


def from_index(index: Index, **settings: str) -> dict[str, str]:
    return environment(PIP_INDEX_URL=index.url, PIP_CONFIG_FILE=os.devnull, PIP_RETRIES="0") | settings


def install(venv: Path, index: Index, requirements: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(venv, requirements),
        cwd=ROOT,
        env=from_index(index, **settings),
        capture_output=True,
        text=True,
        check=False,
    )


def has(venv: Path, module: str) -> bool:
    script = f"import {module}; assert {module}.WHOLE"
    return subprocess.run([venv / "bin" / "python", "-c", script], capture_output=True, check=False).returncode == 0


def test_what_is_listed_is_there_after_an_installation_and_twice_is_as_good(venv: Path, index: Index) -> None:
    requirements = index.add("twice")
    for _ in range(2):
        run = install(venv, index, requirements)
        assert (run.returncode, run.stdout, run.stderr) == (0, f"{WHAT}, 1 MB ...\n", "")
        assert has(venv, "twice")


def test_ci_is_told_nothing(venv: Path, index: Index) -> None:
    run = install(venv, index, index.add("quiet"), CI="true")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert has(venv, "quiet")


def test_a_terminal_is_told_how_far_it_is_in_one_line(venv: Path, index: Index) -> None:
    requirements = index.add("shown").replace(" --hash", " ; python_version >= '3.11' --hash")
    requirements += "shown==0.1 ; python_version < '3.11' --hash=sha256:00\n"
    requirements += "for-windows==1.0 ; sys_platform == 'win32' --hash=sha256:00\n"
    ours, theirs = pty.openpty()
    index.hold()
    with subprocess.Popen(command(venv, requirements), cwd=ROOT, env=from_index(index), stdout=theirs) as run:
        os.close(theirs)
        shown = b""
        while b"0 of 1 packages, 1 s" not in shown:  # while the index lets it wait
            shown += os.read(ours, 10_000)
        index.answering.set()
        while b"\n" not in shown:
            shown += os.read(ours, 10_000)
        os.close(ours)
    assert run.returncode == 0
    lines = shown.decode().split("\r")
    assert all(re.fullmatch(rf"{WHAT}, 1 MB: ([01] of 1 packages, )?\d+ s *", line) for line in lines if line.strip())
    assert shown.count(b"\n") == 1


def test_what_an_interrupt_has_left_half_done_is_done_by_the_next_run(venv: Path, index: Index) -> None:
    requirements = index.add("before") + index.add("half-done") + index.add("after")
    assert install(venv, index, requirements).returncode == 0
    # As pip leaves it: the files are copied one by one, and the list of them is written last.
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "half_done.py").write_text("WH")
    (site / "half_done-1.0.dist-info" / "RECORD").unlink()
    for path in (site / "after.py", *(site / "after-1.0.dist-info").iterdir()):
        path.unlink()
    (site / "after-1.0.dist-info").rmdir()
    assert install(venv, index, requirements).returncode == 0
    assert all(has(venv, module) for module in ("before", "half_done", "after"))


@pytest.fixture(scope="module")
def many(index: Index) -> tuple[str, ...]:
    """Lines of so many packages that uv brings them, of which the first is uv itself: ours, on another way.

    It does as it is told by a file beside its environment, if there is one.
    """
    ours = Path(sys.executable).with_name("uv")
    told = 'told="$(dirname "$0")/../../told"\nif test -e "$told"; then . "$told"; fi\n'
    uv = index.add("uv", script=f'#!/bin/sh\n{told}exec "{ours}" "$@"\n')
    return uv, *(index.add(f"many-{number}") for number in range(MANY))


@pytest.fixture
def copied(venv: Path, tmp_path: Path) -> Path:
    """An environment of this test alone. To make one takes seconds."""
    return shutil.copytree(venv, tmp_path / ".venv", symlinks=True)


def test_many_packages_are_brought_by_the_uv_that_is_listed(
    copied: Path, index: Index, many: tuple[str, ...], tmp_path: Path
) -> None:
    venv = copied
    (tmp_path / "told").write_text('echo "$@" >> "$told.asked"')
    for _ in range(2):
        run = install(venv, index, "".join(many), UV_CACHE_DIR=str(tmp_path / "cache"))
        assert (run.returncode, run.stdout, run.stderr) == (0, f"{WHAT}, 1 MB ...\n", "")
    (asked,) = (tmp_path / "told.asked").read_text().splitlines()
    assert asked.startswith("pip install ") and "--require-hashes" in asked
    (package,) = venv.glob("lib/python*/site-packages/many_7-1.0.dist-info")
    assert (package / "INSTALLER").read_text() == "uv"
    assert has(venv, "many_7")


@pytest.mark.parametrize("end", ["exit 2", "kill -KILL $PPID; exit 2"], ids=["it fails", "all is killed"])
def test_what_uv_has_left_half_done_is_made_anew(
    copied: Path, index: Index, many: tuple[str, ...], tmp_path: Path, end: str
) -> None:
    venv = copied
    # As uv leaves it where it is killed: a list of files, and not all of them.
    half = 'package="$(echo "$(dirname "$0")"/../lib/python*/site-packages)/many_7-1.0.dist-info"\n'
    half += 'mkdir "$package"; touch "$package/RECORD"; mv "$told" "$told.done"\n'
    (tmp_path / "told").write_text(half + end)
    first = install(venv, index, "".join(many), UV_CACHE_DIR=str(tmp_path / "cache"))
    assert first.returncode == (0 if end == "exit 2" else -signal.SIGKILL), first.stderr
    assert has(venv, "many_7") == (end == "exit 2")
    assert install(venv, index, "".join(many), UV_CACHE_DIR=str(tmp_path / "cache")).returncode == 0
    assert has(venv, "many_7")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_with_a_line_and_leaves_no_pip(venv: Path, index: Index, number: signal.Signals) -> None:
    requirements = index.add(f"interrupted-{number}")
    index.hold()
    with subprocess.Popen(
        command(venv, requirements), cwd=ROOT, env=from_index(index), stderr=subprocess.PIPE, text=True
    ) as run:
        assert index.asked.wait(60)
        (pip,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.send_signal(number)
        assert run.stderr is not None
        assert run.stderr.read() == "Interrupted: the next run goes on from here.\n"
    assert run.returncode == 130
    assert not Path("/proc", pip).exists()
    index.answering.set()
    assert install(venv, index, requirements).returncode == 0
    assert has(venv, f"interrupted_{number}")


def test_an_environment_whose_python_is_gone_is_made_anew(index: Index, tmp_path: Path) -> None:
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").symlink_to("/nowhere/python3.10")
    assert install(tmp_path / ".venv", index, index.add("renewed")).returncode == 0
    assert has(tmp_path / ".venv", "renewed")


def test_two_installations_at_once_wait_for_each_other(venv: Path, index: Index) -> None:
    requirements = index.add("shared")
    index.hold()
    environment_ = from_index(index)
    with subprocess.Popen(command(venv, requirements), cwd=ROOT, env=environment_) as first:
        assert index.asked.wait(60)
        with subprocess.Popen(
            command(venv, requirements), cwd=ROOT, env=environment_, stdout=subprocess.PIPE, text=True
        ) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "Waiting for another installation here ...\n"
            index.answering.set()
    assert (first.returncode, second.returncode) == (0, 0)


def failure(run: subprocess.CompletedProcess[str]) -> list[str]:
    """What a failed installation says: its reason, then the last lines of pip."""
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    return run.stderr.splitlines()


def test_an_index_that_cannot_be_reached_is_said_with_the_last_lines_of_pip(venv: Path, index: Index) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    first, *lines = failure(install(venv, index, index.add("far"), PIP_INDEX_URL=url, PIP_RETRIES="1"))
    assert first.startswith("The installation failed: the package index cannot be reached: look at the network, ")
    assert lines[-1] == "  ERROR: No matching distribution found for far==1.0"
    assert len(lines) <= 6


def test_a_package_that_is_not_the_pinned_one_is_refused_and_said(venv: Path, index: Index) -> None:
    requirements = re.sub("sha256:.*", "sha256:" + "0" * 64, index.add("altered"))
    first, *lines = failure(install(venv, index, requirements))
    assert first.startswith("The installation failed: a package is not the one that was pinned")
    assert any("Expected sha256 000" in line for line in lines)
    assert not has(venv, "altered")


def test_a_package_that_there_is_not_is_said(venv: Path, index: Index) -> None:
    first, *lines = failure(install(venv, index, f"missing==1.0 --hash=sha256:{'0' * 64}\n"))
    assert first == "The installation failed: a package is not there for this Python and this system."
    assert "missing==1.0" in lines[-1]


@mounts
def test_a_disk_that_is_too_small_for_it_is_said_before_anything_is_made(index: Index, tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=512k tmpfs "{tmp_path}" && exec "$@"'
    venv = tmp_path / ".venv"
    arguments = [sys.executable, "-m", "local.install", str(venv), "requirements/run.txt", "400", "it"]
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (line,) = failure(run)
    assert line == f"{venv} needs 400 MB, and 0 MB are free: make room"


@mounts
def test_a_full_folder_for_temporary_files_does_not_matter(venv: Path, index: Index, tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=64k tmpfs "{tmp_path}" && exec "$@"'
    requirements = index.add("large", os.urandom(500_000))
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *command(venv, requirements)],
        cwd=ROOT,
        env=from_index(index, TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@mounts
def test_a_clone_that_cannot_be_written_to_is_said(clone: Path) -> None:
    mount = 'mount --bind . /mnt && mount -o remount,bind,ro /mnt && cd /mnt && exec "$@"'
    settings = {"DATA_DIR": str(clone.parent / "data")}
    run = make(clone, "run", settings, ("unshare", "-m", "sh", "-c", mount, "sh"))
    line, of_make = run.stderr.splitlines()
    assert line == (
        "/mnt/.venv cannot be used (Read-only file system): give /mnt to the user who runs this, or use another clone"
    )
    assert of_make.startswith("make: ***")


def test_make_installs_what_is_listed_once(clone: Path, index: Index) -> None:
    (clone / "requirements" / "run.txt").write_text(index.add("by-make"))
    settings = {"PIP_INDEX_URL": index.url, "PIP_CONFIG_FILE": os.devnull}
    # What it runs with is not what the index has: the start says so.
    first = make(clone, "run", settings)
    assert first.stdout == "Installing what the registry runs with, 400 MB ...\n"
    assert re.match(r"The package \w+ is not installed\.", first.stderr)
    assert has(clone / ".venv", "by_make")
    assert make(clone, "run", settings).stdout == ""


def test_the_help_fits_a_terminal() -> None:
    lines = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) > 10
    assert [line for line in lines if len(line) > 80] == []
