"""Real servers of real frameworks, each in an environment of its own, with one added line."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from client.tests.conftest import Registry, written
from client.tests.programs import ERAS, Program, free_port, kept, running, settings, shown, wire_tools

TOKEN = "8c2f6a"


class Case(NamedTuple):
    """A server that registers itself."""

    era: str
    program: str
    path: str = "/mcp"
    token: str | None = None


CASES = {
    "sdk-1.22": Case("early", "sdk.py"),
    "sdk-1.30": Case("older", "sdk.py"),
    "sdk-2": Case("current", "sdk.py"),
    "lowlevel-1.22": Case("early", "lowlevel.py", "/mcp/"),
    "lowlevel-1.30": Case("older", "lowlevel.py", "/mcp/"),
    "lowlevel-2": Case("current", "lowlevel.py"),
    "fastmcp-2": Case("early", "library.py"),
    "fastmcp-3": Case("older", "library.py"),
    "fastmcp-4": Case("current", "library.py", "/books/mcp"),
    "fastmcp-4-gated": Case("current", "library.py", token=TOKEN),
}
# What people write new servers with is tested every time, the rest by `make test-client-matrix`.
KEYS = [key if case.era == "current" else pytest.param(key, marks=pytest.mark.matrix) for key, case in CASES.items()]


class Started(NamedTuple):
    """A case that runs."""

    case: Case
    name: str
    port: int
    program: Program

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.case.path}"


def command(case: Case, name: str, port: int, *more: str) -> tuple[str, ...]:
    options = ["--name", name]
    if case.token:
        options += ["--token", case.token]
    if case.program == "library.py":
        options += ["--path", case.path]
    return ("python", case.program, str(port), *options, *more)


@pytest.fixture(scope="module")
def started(registry: Registry, request: pytest.FixtureRequest) -> Any:
    """All cases of this run at once: they start side by side."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    wanted = {str(test.callspec.params["key"]) for test in tests if {"started", "key"} <= {*test.fixturenames}}
    with ExitStack() as stack:
        found: dict[str, Started] = {}
        for key in sorted(wanted):
            case = CASES[key]
            name, port = f"case-{key}", free_port()
            program = stack.enter_context(
                running(case.era, *command(case, name, port), environment=settings(registry.url))
            )
            found[key] = Started(case, name, port, program)
        yield found


@pytest.mark.parametrize("key", KEYS)
def test_a_server_with_one_added_line_is_in_the_registry_with_all_its_tools(
    key: str, started: dict[str, Started], registry: Registry
):
    one = started[key]
    one.program.wait_for_line(r"Registered .* \(created\)")
    (row,) = registry.named(one.name)
    assert row["endpoint_url"] == one.url
    assert shown(row) == kept(wire_tools(one.url, one.case.token)) and len(row["tools"]) >= 2
    assert not one.program.complaints() and "Nothing is registered" not in one.program.output


@pytest.mark.parametrize("key", KEYS)
def test_the_path_of_the_endpoint_has_a_health_route(key: str, started: dict[str, Started]):
    one = started[key]
    if one.case.program == "lowlevel.py" or one.case.path != "/mcp":
        pytest.skip("a low-level server takes no routes, and which path run() is given nobody knows before")
    one.program.wait_for_line(r"Registered .* \(created\)")
    with urlopen(f"{one.url}/health", timeout=30) as answer:
        assert answer.read() == b'{"status":"ok"}'


def test_the_next_sweep_finds_them_all_active(started: dict[str, Started], registry: Registry):
    for one in started.values():
        one.program.wait_for_line(r"Registered .* \(created\)")
    registry.sweep()
    deadline = time.monotonic() + 60
    while True:
        rows = [registry.named(one.name)[0] for one in started.values()]
        if all(row["last_check"] for row in rows):
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)  # another process writes it: there is nothing to wait on
    assert {row["status"] for row in rows} == {"active"}
    verdicts = {row["name"]: row["last_check"]["verdict"] for row in rows}
    assert verdicts == {one.name: "gated" if one.case.token else "healthy" for one in started.values()}


@pytest.mark.parametrize("key", KEYS)
def test_a_restart_writes_nothing_and_a_changed_tool_is_an_update(key: str, registry: Registry):
    case, name, port = CASES[key], f"again-{key}", free_port()
    # What the SDK logs is broken into lines as wide as this.
    environment = settings(registry.url, COLUMNS="200")
    # An author who has set up no log sees that it worked, too; and once, whatever the framework sets up.
    with running(case.era, *command(case, name, port, "--silent"), environment=environment) as first:
        first.wait_for_line(r"Registered .* \(created\)")
        first.stop()
        assert len([line for line in first.lines if "Registered" in line]) == 1, first.output
    (before,) = registry.named(name)
    with running(case.era, *command(case, name, port), environment=environment) as again:
        again.wait_for_line(r"Registered .* \(unchanged\)")
    assert list(map(written, registry.named(name))) == [written(before)]
    with running(case.era, *command(case, name, port, "--changed"), environment=environment) as changed:
        changed.wait_for_line(r"Registered .* \(updated\)")
        (after,) = registry.named(name)
        assert shown(after) == kept(wire_tools(f"http://127.0.0.1:{port}{case.path}", case.token))
    different = [new["name"] for old, new in zip(shown(before), shown(after), strict=True) if old != new]
    assert len(different) == 1 and after["id"] == before["id"] and after["created_at"] == before["created_at"]


@pytest.mark.parametrize("era", ERAS)
def test_tools_that_only_a_request_can_list_are_registered_as_anybody_sees_them(era: str, registry: Registry):
    name, port = f"tenant-{era}", free_port()
    command = ("python", "tenant.py", str(port), "--name", name)
    with running(era, *command, environment=settings(registry.url)) as program:
        program.wait_for_line(r"Registered .* \(created\)")
        (row,) = registry.named(name)
        assert shown(row) == kept(wire_tools(f"http://127.0.0.1:{port}/mcp")) and len(row["tools"]) == 1


@pytest.mark.matrix
def test_a_server_that_tells_nobody_its_tools_keeps_those_that_the_registry_has(registry: Registry):
    name, port = registry.new_name("deaf"), free_port()
    command = ("python", "tenant.py", str(port), "--name", name)
    with running("current", *command, environment=settings(registry.url)) as program:
        program.wait_for_line(r"Registered .* \(created\)")
    (before,) = registry.named(name)
    with running("current", *command, "--deaf", environment=settings(registry.url)) as program:
        line = program.wait_for_line("The tools of .* cannot be listed")
        assert "with 1 that are known of it" in line and "over HTTP" in line and not program.complaints()
    assert list(map(written, registry.named(name))) == [written(before)] and len(before["tools"]) == 1
