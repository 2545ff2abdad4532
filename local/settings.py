"""What a user may set, by the environment. The standard library only: it is read before anything is installed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
HOST_NAME = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:]+\]")
# When servers are asked: every half minute, or once, when they register or come back, or never.
SWEEPS = ("on", "once", "off")
DEFAULT_PASSWORD = "password"  # noqa: S105 - for a registry that nobody else can reach


class StartError(Exception):
    """The registry cannot start; the message is the line that the user reads."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may set, by the environment."""

    port: int
    database_url: str | None
    username: str
    password: str
    data_dir: Path
    log_level: str
    endpoint_url: str | None
    health_sweeps: str
    cron_secret: str
    hosts: tuple[str, ...]
    checks_per_host: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Settings":
        """The settings of an environment. A variable that is set but empty counts as not set."""
        given = {name: value for name, value in environment.items() if value}
        port = given.get("PORT", "3000")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise StartError(f"PORT must be a number from 0 to 65535, not {port!r}.")
        username = given.get("REGISTRY_USERNAME", "admin")
        if ":" in username:
            raise StartError("REGISTRY_USERNAME must not hold a colon: in Basic credentials the password begins there.")
        log_level = given.get("LOG_LEVEL", "WARNING").upper()
        if log_level not in LOG_LEVELS:
            raise StartError(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {log_level!r}.")
        health_sweeps = given.get("HEALTH_SWEEPS", "on").lower()
        if health_sweeps not in SWEEPS:
            raise StartError(f"HEALTH_SWEEPS must be one of {', '.join(SWEEPS)}, not {health_sweeps!r}.")
        hosts = tuple(filter(None, (host.strip().lower() for host in given.get("REGISTRY_HOSTS", "").split(","))))
        for host in hosts:
            if not HOST_NAME.fullmatch(host):
                raise StartError(f"REGISTRY_HOSTS must be host names with commas between, without ports, not {host!r}.")
        checks_per_host = given.get("CHECKS_PER_HOST", "200")
        if not (checks_per_host.isascii() and checks_per_host.isdigit() and 1 <= int(checks_per_host) <= 100_000):
            raise StartError(f"CHECKS_PER_HOST must be a number from 1 to 100000, not {checks_per_host!r}.")
        return cls(
            port=int(port),
            database_url=given.get("DATABASE_URL"),
            username=username,
            password=given.get("REGISTRY_PASSWORD", DEFAULT_PASSWORD),
            data_dir=Path(given.get("DATA_DIR", ".data")),
            log_level=log_level,
            endpoint_url=given.get("AWS_ENDPOINT_URL"),
            health_sweeps=health_sweeps,
            cron_secret=given.get("CRON_SECRET", "cron"),
            hosts=hosts,
            checks_per_host=int(checks_per_host),
        )
