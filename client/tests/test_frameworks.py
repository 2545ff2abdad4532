"""Real servers of real frameworks, each in an environment of its own, with one added line."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from client.tests.conftest import Registry
from client.tests.programs import Program, free_port, kept, running, settings, wire_tools

TOKEN = "8c2f6a"


class Case(NamedTuple):
    """A server that registers itself."""

    era: str
    program: str
    path: str = "/mcp"
    token: str | None = None
    changes: bool = True


CASES = {
    "sdk-1.22": Case("early", "sdk.py"),
    "sdk-1.30": Case("older", "sdk.py"),
    "sdk-2": Case("current", "sdk.py"),
    "lowlevel-1.22": Case("early", "lowlevel.py", "/mcp/", changes=False),
    "lowlevel-1.30": Case("older", "lowlevel.py", "/mcp/", changes=False),
    "lowlevel-2": Case("current", "lowlevel.py", changes=False),
    "fastmcp-2": Case("early", "library.py"),
    "fastmcp-3": Case("older", "library.py"),
    "fastmcp-4": Case("current", "library.py", "/books/mcp"),
    "fastmcp-4-gated": Case("current", "library.py", token=TOKEN, changes=False),
}


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
def started(registry: Registry) -> Any:
    """All cases at once: they start side by side."""
    with ExitStack() as stack:
        found: dict[str, Started] = {}
        for key, case in CASES.items():
            name, port = f"case-{key}", free_port()
            program = stack.enter_context(
                running(case.era, *command(case, name, port), environment=settings(registry.url))
            )
            found[key] = Started(case, name, port, program)
        yield found


@pytest.mark.parametrize("key", CASES)
def test_a_server_with_one_added_line_is_in_the_registry_with_all_its_tools(
    key: str, started: dict[str, Started], registry: Registry
):
    one = started[key]
    one.program.wait_for_line(r"Registered .* \(created\)")
    (row,) = registry.named(one.name)
    assert row["endpoint_url"] == one.url
    shown = [{name: tool[name] for name in kept([{}])[0]} for tool in row["tools"]]
    assert shown == kept(wire_tools(one.url, one.case.token))
    assert len(shown) >= 2
    assert not one.program.complaints()


@pytest.mark.parametrize(
    "key", [key for key, case in CASES.items() if case.program != "lowlevel.py" and case.path == "/mcp"]
)
def test_the_path_of_the_endpoint_has_a_health_route(key: str, started: dict[str, Started]):
    one = started[key]
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
    assert verdicts.pop("case-fastmcp-4-gated") == "gated" and set(verdicts.values()) == {"healthy"}


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if case.changes])
def test_a_restart_writes_nothing_and_a_changed_tool_is_an_update(
    key: str, started: dict[str, Started], registry: Registry
):
    one = started[key]
    one.program.wait_for_line(r"Registered .* \(created\)")
    (before,) = registry.named(one.name)
    one.program.stop()
    environment = settings(registry.url)
    with running(one.case.era, *command(one.case, one.name, one.port), environment=environment) as again:
        again.wait_for_line(r"Registered .* \(unchanged\)")
    assert registry.named(one.name) == [before]
    with running(one.case.era, *command(one.case, one.name, one.port, "--changed"), environment=environment) as changed:
        changed.wait_for_line(r"Registered .* \(updated\)")
        (after,) = registry.named(one.name)
        assert [tool["name"] for tool in after["tools"]] == [tool["name"] for tool in wire_tools(one.url)]
    assert len(after["tools"]) == len(before["tools"]) + 1
    assert after["id"] == before["id"] and after["created_at"] == before["created_at"]
    assert {t["name"]: t["id"] for t in before["tools"]}.items() <= {t["name"]: t["id"] for t in after["tools"]}.items()
