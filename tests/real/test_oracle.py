"""The oracle: what the table of shapes calls right is what stock MCP clients find, and so is an introduction.

What the introduction finds of the shapes is in tests/integration/test_introduction.py, by the same table; of real
servers both are compared here. `make prove` asks all clients about all shapes and about the whole fleet.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from mcp_registry.dial import introduction
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import Introduction
from tests import shapes
from tests.hostile import Farm
from tests.real import environments
from tests.real.conftest import ASKED as SERVERS
from tests.real.fixtures import ENVIRONMENT, FLEET, STRANGERS, RealServer
from tests.real.stock import CLIENTS, NODE, ask, node, python
from tests.shapes import KINDS, SHAPES

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
PROVE = "PROVE" in os.environ

# A client waits fifteen seconds for what never comes. Everything else is asked in `make test` as well; of the SDKs, all
# of which are up, every twelfth.
SLOW = {"accepted", "wrong-id", "discover-hangs"}
ASKED = [name for name, shape in SHAPES.items() if shape.stock]
# What the clients for TypeScript take and those for Python do not; these alone are asked about the sample.
BY_TYPESCRIPT = {"kind-logging-list", "kind-modern-tasks-true"}
UNASKED = SLOW | BY_TYPESCRIPT
SAMPLE = [name for name in ASKED if name not in UNASKED and (name not in KINDS or [*KINDS].index(name) % 12 == 0)]


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """The server of all shapes."""
    with shapes.serving() as farm:
        yield farm


def disagreements(farm: Farm, names: list[str], commands: list[list[str]]) -> dict[str, tuple[str, str]]:
    """Where the table and the clients do not agree: both, by shape."""
    found = ask(commands, [shapes.url(farm, name) for name in names])
    wanted = [SHAPES[name].verdict for name in names]
    return {name: (one, other) for name, one, other in zip(names, wanted, found, strict=True) if one != other}


def test_stock_clients_find_of_the_shapes_what_the_table_says(farm):
    plain = [name for name in SAMPLE if SHAPES[name].path == "/mcp"]
    assert disagreements(farm, plain, [python("mcp 1"), python("mcp 2")]) == {}
    over_sse = [name for name in SAMPLE if SHAPES[name].path == "/sse"]
    assert disagreements(farm, over_sse, [python("mcp 1 over sse")]) == {}


def everyone() -> list[list[str]]:
    """The commands of all clients that this machine can run."""
    scripts = [] if environments.missing("node") else [node(name) for name in NODE]
    return [python("mcp 1"), python("mcp 2"), python("fastmcp 4"), *scripts]


@pytest.mark.skipif(not PROVE, reason="a minute and more: make prove asks all clients about all shapes")
def test_all_stock_clients_find_of_all_shapes_what_the_table_says(farm):
    assert disagreements(farm, ASKED, everyone()) == {}


# ------------------------------------------------------------------ real servers


@pytest.fixture(scope="module")
def seen(fleet) -> dict[str, Introduction]:
    """What an introduction finds of each. What times out is tried again: a bridge may still be starting another."""

    async def introduced(names: list[str]) -> list[Introduction]:
        return await asyncio.gather(*(introduction.introduce(fleet[name].url, policy=OPEN) for name in names))

    found: dict[str, Introduction] = {}
    for _ in range(3):
        late = [name for name in fleet if name not in found or found[name].cause == "timeout"]
        found |= zip(late, asyncio.run(introduced(late)), strict=True)
    return found


def asked(servers: list[RealServer], commands: list[list[str]]) -> dict[str, str]:
    """What the clients find of each server, by its name.

    Those whose clients share a process are asked by one client after the other: a modern client's first question ends
    that process (rmcp up to 1.7 over stdio), and with it what the others have begun.
    """
    found = {}
    shared = [server for server in servers if server.server.shares_process]
    apart = [server for server in servers if server not in shared]
    for group, ways in ((apart, [commands]), (shared, [[command] for command in commands])):
        for way in ways if group else ():
            for server, verdict in zip(group, ask(way, [server.url for server in group]), strict=True):
                if found.get(server.name, "down") == "down":
                    found[server.name] = verdict
    return found


def test_stock_clients_find_of_real_servers_what_an_introduction_finds(fleet, seen):
    plain = [server for server in fleet.values() if server.server.path != "/sse"]
    over_sse = [server for server in fleet.values() if server.server.path == "/sse"]
    commands = everyone() if PROVE else [python("mcp 1"), python("mcp 2")]
    found = asked(plain, commands)
    found |= asked(over_sse, [python("mcp 1 over sse"), *(everyone()[2:] if PROVE else ())])
    assert {name: one.verdict for name, one in seen.items()} == found


def test_what_is_observed_of_real_servers_is_what_the_stock_client_lists_field_by_field(fleet, seen):
    """Of those that the client reaches by itself; names, texts, schemas, annotations, `_meta`, icons and all."""
    servers = [one for one in fleet.values() if one.server.path != "/sse" and seen[one.name].verdict == "up"]
    assert servers
    client = subprocess.run(
        [python("mcp 1")[0], str(CLIENTS / "listing.py")],
        input="".join(json.dumps(server.url) + "\n" for server in servers),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = {told["url"]: told["tools"] for told in map(json.loads, client.stdout.splitlines())}
    assert answers.keys() == {server.url for server in servers}
    different: dict[str, tuple[object, object]] = {}
    for server in servers:
        # As it goes to the ledger and comes out of it.
        kept = json.loads(json.dumps(seen[server.name].tools))
        one, other = ({tool["name"]: tool for tool in tools or ()} for tools in (kept, answers[server.url]))
        different |= {
            f"{server.name} {n}": (one.get(n), other.get(n)) for n in one | other if one.get(n) != other.get(n)
        }
    assert different == {}, client.stderr


@pytest.mark.parametrize("name", SERVERS)
def test_a_real_server_says_who_it_is_and_what_it_offers(seen, name):
    found, server = seen[name], FLEET[name]
    if server.token:
        assert found.verdict == "gated" and found.gate is not None and found.gate.status == 401
        assert name in STRANGERS or found.gate.schemes == ("Bearer",), found.gate
        return
    assert found.verdict == "up", found
    assert found.era == ("sse" if server.path == "/sse" else "legacy") and found.server_info["name"]
    assert found.tools and all(isinstance(tool["inputSchema"], dict) for tool in found.tools) and not found.incomplete


def test_the_fleet_is_thirty_servers_of_four_languages_and_of_every_kind():
    kinds = {name.partition("-")[0] for name in FLEET}
    assert len(FLEET) >= 30 and {"early", "older", "current", "go", "csharp", "rust", "typescript", "bridge"} <= kinds
    assert any(server.token for server in STRANGERS.values())
    assert {server.path for server in FLEET.values()} >= {"/mcp", "/sse", "/"}
