"""What is started once for all tests of a process, those of the client among them: conftest.py at the top loads it.

A fixture that one conftest.py imports from another is there once for each of the two.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import psycopg
import pytest

from local.postgres import Postgres
from local.queues import QueueService
from tests.conftest import CRON_SECRET, PASSWORD, USERNAME, Local, migrate, nowhere_else
from tests.real.fixtures import SERVERS, RealServer, running


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a Postgres server, without the name of a database."""
    nowhere_else(request.config)
    if given := request.config.getoption("--postgres", None):
        yield str(given).rstrip("/")
        return
    with Postgres(tmp_path_factory.mktemp("postgres") / "data", durable=False) as url:
        yield url.rpartition("/")[0]


@pytest.fixture(scope="session")
def new_database(postgres: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Makes a database and returns its URL: empty, or with the schema."""
    made: list[str] = []
    # Of this process: a server that somebody gave us may have those of another.
    prefix = f"test_{os.getpid()}"

    def create(*, migrated: bool = True) -> str:
        name = f"{prefix}_{len(made)}"
        made.append(name)
        with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        url = f"{postgres}/{name}"
        if migrated:
            migrate.migrate(url)
        return url

    yield create
    if request.config.getoption("--postgres", None):
        with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
            for name in made:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def queue_service(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an SQS of the tests' own. All of them share its queues, so that each needs names of its own."""
    nowhere_else(request.config)
    service = QueueService()
    yield service.start()
    service.stop()


@pytest.fixture(scope="session")
def stack_database_url(new_database: Callable[..., str]) -> str:
    """The database of the running local stack."""
    return new_database(migrated=False)


@pytest.fixture(scope="session")
def stack_url(stack_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running local stack, started as a user starts it, but that it checks no server by itself."""
    environment = {
        "CRON_SECRET": CRON_SECRET,
        "HEALTH_SWEEPS": "off",
        "PORT": "0",
        "DATABASE_URL": stack_database_url,
        "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "REGISTRY_USERNAME": USERNAME,
        "REGISTRY_PASSWORD": PASSWORD,
    }
    local = Local(environment)
    try:
        yield local.wait_until_ready()
    finally:
        assert local.stop() == 0


@pytest.fixture(scope="session")
def real() -> Iterator[dict[str, RealServer]]:
    """The real servers on frameworks for Python, by name."""
    with running(*SERVERS) as servers:
        yield servers
