"""Who a person is to which registry, in a file of their own: what `mcp-registry login` writes and commands read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from mcp_registry_client._json import mapping, parsed, text

# One entry a registry: {"registries": {"https://host": {"token": ...}}, "current": "https://host"}.
FILE: Final = ("mcp-registry", "logins.json")
MAX_BYTES: Final = 1 << 20


class Login(NamedTuple):
    """A token, or a user and a password."""

    token: str | None = None
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Login(username={self.username!r})"


def place(environment: Mapping[str, str] | None = None) -> str:
    """Where the file is: in $XDG_CONFIG_HOME, in ~/.config, or for Windows in %APPDATA%."""
    given = os.environ if environment is None else environment
    folder = given.get("XDG_CONFIG_HOME") or (given.get("APPDATA") if os.name == "nt" else "")
    return os.path.join(folder or os.path.expanduser("~/.config"), *FILE)  # noqa: PTH111, PTH118 - pathlib takes 10 ms


def current() -> str | None:
    """The registry that was logged in to last; None where there is none."""
    return text(_read().get("current")) or None


def of(url: str) -> Login | None:
    """What is kept for a registry; None where nothing is."""
    found = mapping(mapping(_read().get("registries")).get(url))
    login = Login(*(text(found.get(field)) or None for field in Login._fields))
    return login if login.token or (login.username and login.password) else None


def keep(url: str, login: Login) -> str:
    """Keep what lets in to a registry, which is the current one from then on; the file. Raises OSError."""
    held = _read()
    registries = mapping(held.get("registries"))
    registries[url] = {field: value for field, value in login._asdict().items() if value}
    return _write({"registries": registries, "current": url})


def forget(url: str) -> bool:
    """Forget what is kept for a registry; whether there was anything. Raises OSError."""
    held = _read()
    registries = mapping(held.get("registries"))
    if registries.pop(url, None) is None:
        return False
    now = text(held.get("current"))
    _write({"registries": registries, "current": now if now in registries else next(iter(registries), "")})
    return True


def _read() -> dict[str, Any]:
    """What the file holds. Where there is none, or nobody can read it, nothing."""
    with suppress(OSError), open(place(), "rb") as file:  # noqa: PTH123 - likewise
        held = file.read(MAX_BYTES + 1)
        return mapping(parsed(held)) if len(held) <= MAX_BYTES else {}
    return {}


def _write(held: Mapping[str, Any]) -> str:
    """Replace the file as a whole: nobody else can read it at any moment, and nobody reads half of it."""
    import tempfile
    from pathlib import Path

    file = Path(place())
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes it for its owner alone (0600).
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".logins-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(held, stream, indent=1)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return str(file)
