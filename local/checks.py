"""What stands in the way of a start: `python -m local.checks` says it in one line before anything is installed.

The standard library only. What it cannot know (whether a password is right, for example) is tried by the start itself.
"""

import errno
import os
import re
import socket
import sys
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from local import folder, loopback
from local.settings import Settings, StartError

PATIENCE = 5  # seconds for a database to take a connection


def main() -> int:
    """Try the settings of the environment; returns the exit code, 1 after a line that says what is wrong."""
    try:
        settings = Settings.of(os.environ)
        take_port(settings.port).close()
        if settings.database_url:
            reach(settings.database_url, os.environ)
        else:
            folder.check(settings.data_dir / "postgres")
    except (StartError, folder.PostgresError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def take_port(port: int) -> socket.socket:
    """Listen on the port of the registry; StartError where it cannot be had."""
    try:
        return loopback.bind(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} is taken: stop the program that listens there, or choose another (PORT=0: any free one)."
            ) from error
        raise StartError(f"Port {port} can't be used: {error.strerror}. Choose another one with PORT.") from error


def reach(url: str, environment: Mapping[str, str]) -> None:
    """Connect to where a database is said to listen, and say nothing; StartError where nobody does."""
    if place := _host_and_port(url, environment):
        host, port = place
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except (OSError, UnicodeError) as error:  # a name that is none
            raise unusable(f"{host}:{port}", getattr(error, "strerror", None) or str(error)) from error


def unusable(database: str, reason: str) -> StartError:
    """The error of a database that does not answer, or not as it should."""
    return StartError(
        f"The database {database} can't be used: {reason}. "
        "Put that right, or unset DATABASE_URL and the registry brings a Postgres of its own."
    )


def no_connection_string() -> StartError:
    """The error of a DATABASE_URL that is none. It quotes nothing, for that may be the password."""
    return StartError(
        "DATABASE_URL is not a connection string; it should look like postgresql://user:password@host:5432/database."
    )


def _host_and_port(url: str, environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Where a database listens, if that is plain to see; None for several hosts, sockets and files that libpq reads."""
    if url.startswith(("postgresql://", "postgres://")):
        try:
            parts = urlsplit(url)
            given = {"host": parts.hostname or "", "port": str(parts.port or "")} | dict(parse_qsl(parts.query))
        except ValueError:
            raise no_connection_string() from None
    elif re.match(r"\s*\w+\s*=", url):
        given = dict(re.findall(r"(\w+)\s*=\s*(\S+)", url))
    else:
        raise no_connection_string()
    host = given.get("hostaddr") or given.get("host", "")
    port = given.get("port") or environment.get("PGPORT") or "5432"
    # What is quoted or escaped may be a password with anything in it.
    unclear = set(url) & set("'\\") or "service" in given or "PGSERVICE" in environment
    if unclear or not re.fullmatch(r"[\w.:-]+", host) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        return None
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
