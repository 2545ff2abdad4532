"""An environment of samconfig.toml: what `sam deploy --config-env NAME` would deploy, and where."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMCONFIG = Path(__file__).resolve().parent.parent / "samconfig.toml"


class SamconfigError(Exception):
    """samconfig.toml has not what was asked for; the message is the line that the user reads."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The stack's name, the region and the profile of AWS's configuration where they are written, and parameters."""

    name: str
    stack: str | None
    region: str | None
    profile: str | None
    parameters: Mapping[str, str]


def read(name: str, path: Path = SAMCONFIG) -> Environment:
    """One environment. Raises SamconfigError where there is none of that name."""
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    if name not in config:
        names = ", ".join(sorted(config.keys() - {"version"}))
        raise SamconfigError(f"samconfig.toml has no environment {name}; it has {names}")
    given: dict[str, Any] = {}
    for command in ("global", "deploy"):
        given |= config[name].get(command, {}).get("parameters", {})
    overrides: str | list[str] = given.get("parameter_overrides", [])
    return Environment(
        name=name,
        stack=given.get("stack_name"),
        region=given.get("region"),
        profile=given.get("profile"),
        # A list as we write it, one string as `sam deploy --guided` does.
        parameters=pairs(shlex.split(overrides) if isinstance(overrides, str) else overrides),
    )


def pairs(words: list[str]) -> dict[str, str]:
    """Parameters by name, of words NAME=VALUE. Raises SamconfigError where one is none."""
    if wrong := [word for word in words if "=" not in word]:
        raise SamconfigError(f"a parameter is given as NAME=VALUE, not as {wrong[0]}")
    return dict(word.split("=", 1) for word in words)
