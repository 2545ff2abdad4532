"""`sam local` with a database: `python -m local.sam start-api` and `python -m local.sam invoke Function --event file`.

The functions run in containers, to which this machine is host.docker.internal. The database is the one of DATABASE_URL;
without that it is a Postgres of our own, kept in .data/sam-local (DATA_DIR instead of .data), which listens beyond
loopback while this runs: its password is random, and only the networks that this machine is itself in are admitted.

`sam local` starts what `make build` made. It knows no queue and no schedule, no gateway response and no method that a
mock answers; `make run` plays all of that and needs no Docker.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from local import queues
from local.artefacts import BUILD, DEFAULT_ARCHITECTURE, architecture
from local.postgres import HOST, Postgres, PostgresError
from local.template import REGION

ROOT = Path(__file__).resolve().parent.parent
SAM = Path(sys.executable).with_name("sam")
HOST_OF_CONTAINERS = "host.docker.internal"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# As in the local run: addresses on this machine may be registered.
LOOPBACK_CIDRS = "127.0.0.0/8,::1/128"

# samenet is every network that one of our interfaces is in: Docker's bridge is one. On a Mac and on Windows containers
# come in by loopback.
ADMITTED = "host all all 127.0.0.1/32 scram-sha-256\nhost all all samenet scram-sha-256\n"


class SamError(Exception):
    """`sam local` can't run; the message is the line that the user reads."""


class ReachablePostgres(Postgres):
    """A Postgres of our own that containers of this machine reach as well."""

    def _postgres(self, binaries: Path, port: int) -> list[str]:
        rules = self._beside("hba")
        rules.write_text(ADMITTED, encoding="ascii")
        return [*super()._postgres(binaries, port), "-c", "listen_addresses=0.0.0.0", "-c", f"hba_file={rules}"]


def require_docker() -> None:
    """Raises SamError where `sam local` would find no container runtime."""
    docker = shutil.which("docker")
    if docker is None:
        raise SamError("sam local needs Docker, which is not installed: make run needs none")
    if subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:
        raise SamError("sam local needs Docker, which is installed and does not run: start it, or use make run")


def as_containers_see(url: str) -> str:
    """A database URL with the name that this machine has in a container, where it names loopback."""
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return url
    user, at, _ = parts.netloc.rpartition("@")
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{user}{at}{HOST_OF_CONTAINERS}{port}"))


def variables(database_url: str, username: str, password: str) -> dict[str, str]:
    """What the functions get by their environment, whatever the template's parameters are.

    `sam local` gives a function those of them that the template declares for it.
    """
    return {
        "CRON_SECRET": "cron",
        "DATABASE_ACCESS": "url",
        "DATABASE_URL": as_containers_see(database_url),
        "GUARD_OPEN_CIDRS": LOOPBACK_CIDRS,
        "REGISTRY_PASSWORD": password,
        "REGISTRY_SECRET_ARN": "",
        "REGISTRY_USERNAME": username,
    }


@contextlib.contextmanager
def database(url: str | None, folder: Path) -> Generator[str]:
    """The URL, as this machine sees it, of a migrated database: at `url`, or a Postgres of our own in `folder`."""
    with contextlib.ExitStack() as stack:
        if url is None:
            try:
                url = stack.enter_context(ReachablePostgres(folder / "postgres"))
            except PostgresError as error:
                raise SamError(str(error)) from error
        command = [sys.executable, str(ROOT / "sql" / "migrate.py"), url]
        migration = subprocess.run(command, capture_output=True, text=True, check=False)
        if migration.returncode != 0:
            last = (migration.stderr.strip() or migration.stdout.strip()).splitlines()[-1:]
            raise SamError(f"the database can't be brought up to date: {''.join(last)}")
        yield url


@contextlib.contextmanager
def command(arguments: Sequence[str], values: Mapping[str, str]) -> Generator[tuple[list[str], dict[str, str]]]:
    """The command line and environment of `sam local` with these variables for the functions.

    The variables are in a file that only its owner reads: on the command line everybody would.
    """
    if not (BUILD / "template.yaml").is_file():
        raise SamError("there is no build: run make build")
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump({"Parameters": dict(values)}, file)
        file.flush()
        options = ["--template", str(BUILD / "template.yaml"), "--env-vars", file.name]
        # Docker Desktop knows the name by itself; on Linux Docker has to be told (20.10 or newer).
        options += ["--add-host", f"{HOST_OF_CONTAINERS}:host-gateway"]
        options += ["--parameter-overrides", f"Architecture={_built_for()}"]
        yield [str(SAM), "local", *arguments, *options], environment(values)


def _built_for() -> str:
    """The processor of the layers, which has to be that of the containers."""
    modules = (BUILD / "DependenciesLayer").rglob("*.so")
    return next(filter(None, map(architecture, modules)), DEFAULT_ARCHITECTURE)


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """Our environment for `sam local`, which hands what it finds in it to the functions.

    So without what they shall get from us, and with credentials that nobody knows: nothing of the user's own account
    reaches a container.
    """
    ours = {name: value for name, value in os.environ.items() if name not in values and not name.startswith("AWS_")}
    return ours | queues.CREDENTIALS | {"AWS_DEFAULT_REGION": REGION, "SAM_CLI_TELEMETRY": "0"}


def main(arguments: list[str]) -> int:
    """Run `sam local` with these arguments until it ends; returns its exit code, or 1 with a line that says why.

    Without arguments it only sees whether that is possible.
    """
    given = {name: value for name, value in os.environ.items() if value}
    username, password = given.get("REGISTRY_USERNAME", "admin"), given.get("REGISTRY_PASSWORD", "password")
    folder = Path(given.get("DATA_DIR", ROOT / ".data"), "sam-local")
    try:
        require_docker()
        if not arguments:
            return 0
        with (
            database(given.get("DATABASE_URL"), folder) as url,
            command(arguments, variables(url, username, password)) as (words, env),
        ):
            kept = None if "DATABASE_URL" in given else folder
            print(_explain(url, kept, username=username, password=password), flush=True)
            # Ctrl-C reaches sam as well, which stops its containers; we wait for it. To ignore the signal would not
            # do: sam would inherit that.
            signal.signal(signal.SIGINT, _go_on)
            return subprocess.run(words, cwd=ROOT, env=env, check=False).returncode
    except SamError as error:
        print(error, file=sys.stderr)
        return 1


def _go_on(number: int, frame: object) -> None:
    pass


def _explain(url: str, folder: Path | None, *, username: str, password: str) -> str:
    parts = urlsplit(url)
    kept = f", kept in {folder}; DATABASE_URL names another one" if folder else " (DATABASE_URL)"
    return f"""
  Database     {parts.hostname or HOST}:{parts.port or 5432}{parts.path}{kept}
               Containers reach this machine as {HOST_OF_CONTAINERS}. A Postgres of yours has to listen there
               (listen_addresses) and to admit them (pg_hba.conf); the one of make run listens on loopback only.
  Credentials  {username} / {password}
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
