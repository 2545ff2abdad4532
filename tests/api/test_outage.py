"""Postgres goes away under the running stack, and comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from local.postgres import Postgres
from tests.conftest import PASSWORD, USERNAME, Answer, Api, Local, nowhere_else, over_http

REGISTER = "/api/registry/register"
SERVERS = "/api/registry/servers"


@pytest.fixture(scope="module")
def server(tmp_path_factory, request) -> Iterator[Postgres]:
    nowhere_else(request.config)
    # Without fsync, because a killed server is no power cut: nothing may be lost all the same.
    server = Postgres(tmp_path_factory.mktemp("outage") / "data", durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stack(server, tmp_path_factory) -> Iterator[Api]:
    environment = {
        "PORT": "0",
        "DATABASE_URL": server.url,
        "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "REGISTRY_USERNAME": USERNAME,
        "REGISTRY_PASSWORD": PASSWORD,
    }
    local = Local(environment)
    try:
        yield Api(over_http(local.wait_until_ready()), in_process=False)
    finally:
        assert local.stop() == 0


def check_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["code"] == "UNAVAILABLE"


def test_while_postgres_is_down_every_route_says_503_and_recovers_without_a_restart(stack, server):
    created = stack.register()
    server.kill()
    check_unavailable(stack("GET", SERVERS))
    check_unavailable(stack("GET", f"{SERVERS}/{created['id']}"))
    check_unavailable(stack("POST", REGISTER, stack.registration()))
    check_unavailable(stack("PUT", REGISTER, stack.registration()))
    check_unavailable(stack("PATCH", f"{SERVERS}/{created['id']}", {"status": "inactive"}))
    check_unavailable(stack("DELETE", f"{SERVERS}/{created['id']}"))
    check_unavailable(stack("GET", "/health", auth=None))
    assert stack("GET", SERVERS, auth=None).status == 401
    server.start()
    assert stack("GET", f"{SERVERS}/{created['id']}").status == 200
    assert stack("POST", REGISTER, stack.registration()).status == 201
    assert stack("GET", "/health", auth=None).status == 200


def test_killed_under_writers_postgres_loses_no_acknowledged_registration(stack, server):
    """Eight writers, Postgres killed and started in between: what was said to be registered is, and whole."""
    acknowledged: list[dict] = []
    other: set[int] = set()
    stop = threading.Event()

    def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"writer-{writer}-{number}"
            body = stack.registration(name, metadata={"author": name}, tools=[{"name": name, "input_schema": {}}] * 1)
            answer = stack("POST", REGISTER, body)
            if answer.status == 201:
                acknowledged.append(answer.json())
            else:
                other.add(answer.status)
                check_unavailable(answer)

    def await_writers(reached: int) -> None:
        """Until so many are acknowledged, or a writer has failed."""
        deadline = time.monotonic() + 60
        while len(acknowledged) < reached and not any(writer.done() for writer in writers):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, writer) for writer in range(8)]
        try:
            for _ in range(3):
                reached = len(acknowledged) + 20
                await_writers(reached)
                server.kill()
                server.start()
            reached = len(acknowledged) + 20
            await_writers(reached)
        finally:
            stop.set()
        for writer in writers:
            writer.result()
    assert other <= {503}
    for created in acknowledged:
        detail = stack("GET", f"{SERVERS}/{created['id']}")
        assert detail.status == 200, created
        assert detail.json()["metadata"]["author"] == created["name"]
        assert [tool["name"] for tool in detail.json()["tools"]] == [created["name"]]
