"""Whom Postgres runs as, and what that account can get to. The standard library only: this is asked before a set-up.

File modes tell too little in the presence of ACLs, security modules and user namespaces, so everything is tried.
"""

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# What the account may be given beyond nothing, the least first: options of setpriv. A clone may lie where nobody else
# can go, as in the home of root. The first capability is enough to pass and to read; containers often lack it and have
# the second. Postgres asks access(2) about its own binaries, and that forgets the capabilities of whoever is not root,
# but not under this securebit (capabilities(7)). To set it takes a right of its own, which may be missing.
RIGHTS = tuple(
    (*securebits, f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}")
    for securebits in (("--securebits=+no_setuid_fixup",), ())
    for capability in ("dac_read_search", "dac_override")
)

GIVEN = ("DYLD_LIBRARY_PATH", "HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")


@dataclass(frozen=True)
class Account:
    """Whom Postgres runs as: ourselves, or somebody without rights when we are root, for whom it refuses to work."""

    uid: int
    gid: int
    is_another: bool = False
    setpriv: tuple[str, ...] = ()

    @classmethod
    def candidates(cls, data: Path) -> Iterator[Self]:
        """Give the accounts that may run a server on this folder, those with the fewest rights first."""
        if os.geteuid() != 0:
            yield cls(os.geteuid(), os.getegid())
            return
        uid, gid = _owner_of(data)
        yield cls(uid, gid, is_another=True)
        become = ("setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups")
        for rights in RIGHTS:
            yield cls(uid, gid, is_another=True, setpriv=(*become, *rights))

    @property
    def name(self) -> str:
        """The name of the account."""
        return user_name(self.uid)

    def enters(self, folder: Path) -> bool:
        """Return whether it can go to this folder; ourselves are not asked, as we have just made what is in it."""
        return not self.is_another or self.refusal("/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)) is None

    def refusal(self, *command: str) -> str | None:
        """Run a short command; return the last line of what it complains about, None where it succeeds."""
        try:
            process = self.start(command, subprocess.DEVNULL, subprocess.DEVNULL, subprocess.PIPE)
            with process:
                assert process.stderr is not None
                complaint = process.stderr.read().decode("utf-8", "replace").strip()
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)  # no such program, or we may not become somebody else
        return (complaint.splitlines() or [f"exit code {process.returncode}"])[-1] if process.returncode else None

    def start(
        self, command: tuple[str, ...], stdin: int, stdout: int, stderr: int, *, prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a command as this account, out of reach of the terminal's Ctrl-C.

        `prefix` is a command that starts it in turn, and has our rights where the account is made by setpriv.
        """
        changes = self.is_another and not self.setpriv
        return subprocess.Popen(
            (*prefix, *self.setpriv, *command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            cwd="/",  # ours may be closed to the account
            env=environment(),
            start_new_session=True,
            user=self.uid if changes else None,
            group=self.gid if changes else None,
            extra_groups=[] if changes else None,
        )

    def own(self, path: Path) -> None:
        """Give a file or folder to this account."""
        if self.is_another:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _owner_of(data: Path) -> tuple[int, int]:
    """Return uid and gid for a server that root starts: nobody's, or those of the user whose data this is already.

    So a run with sudo does not lock out the user who made the data before it.
    """
    if data.exists() and data.stat().st_uid != 0:
        return data.stat().st_uid, data.stat().st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return nobody.pw_uid, nobody.pw_gid


def environment() -> dict[str, str]:
    """Return what of our environment a child is given: what programs and their libraries are found by, and no more.

    The child may be another user's, and whoever is that user can read what it was given. So this is a list of what is
    needed and not of what is secret; nor is there a PGPORT in it or a locale that is not installed, which break initdb.
    """
    ours = {name: os.environ[name] for name in GIVEN if name in os.environ}
    return ours | {"LC_ALL": "C", "TZ": "UTC"}
