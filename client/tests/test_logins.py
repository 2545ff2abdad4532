"""What `mcp-registry login` keeps, and who can read it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from mcp_registry_client import _logins
from mcp_registry_client._logins import Login

URL, OTHER = "https://registry.example/v1", "http://127.0.0.1:3000"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "mcp-registry"


def test_what_is_kept_is_for_its_owner_alone_and_each_registry_has_its_own(folder: Path):
    assert _logins.of(URL) is None and _logins.current() is None
    _logins.keep(URL, Login(token="mcpr_a_b_c"))
    _logins.keep(OTHER, Login(username="admin", password="pass:wörd"))
    file = folder / "logins.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert _logins.of(URL) == Login(token="mcpr_a_b_c")
    assert _logins.of(OTHER) == Login(username="admin", password="pass:wörd")
    assert _logins.current() == OTHER
    assert [path.name for path in folder.iterdir()] == ["logins.json"]
    assert "pass" not in repr(_logins.of(OTHER))


def test_what_is_forgotten_is_gone_and_another_registry_is_the_current_one(folder: Path):
    _logins.keep(URL, Login(token="one"))
    _logins.keep(OTHER, Login(token="two"))
    assert _logins.forget(OTHER) and not _logins.forget(OTHER)
    assert _logins.of(OTHER) is None and _logins.current() == URL
    assert _logins.forget(URL) and _logins.current() is None
    assert "one" not in (folder / "logins.json").read_text()


@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"registries": 1, "current": []}',
        b'{"registries": {"https://registry.example/v1": {"token": 7}}}',
        b'{"registries": {"https://registry.example/v1": {"username": "half"}}}',
        b'{"current": ' + b"[" * 100_000,
        b" " * (_logins.MAX_BYTES + 1),
    ],
)
def test_a_file_that_somebody_else_has_written_keeps_nobody_from_logging_in(folder: Path, held: bytes):
    folder.mkdir(parents=True)
    (folder / "logins.json").write_bytes(held)
    assert _logins.of(URL) is None and _logins.current() is None
    _logins.keep(URL, Login(token="one"))
    assert _logins.of(URL) == Login(token="one")


def test_a_file_that_cannot_be_replaced_stays_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch):
    _logins.keep(URL, Login(token="one"))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", fail)
    with pytest.raises(OSError, match="No space"):
        _logins.keep(URL, Login(token="two"))
    assert _logins.of(URL) == Login(token="one")
    assert [path.name for path in folder.iterdir()] == ["logins.json"]


def test_it_is_where_configuration_is(tmp_path: Path):
    assert _logins.place({"XDG_CONFIG_HOME": str(tmp_path)}) == str(tmp_path / "mcp-registry" / "logins.json")
    assert _logins.place({}) == os.path.expanduser("~/.config/mcp-registry/logins.json")  # noqa: PTH111 - as it is read
