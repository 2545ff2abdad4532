"""How real servers answer the request of a check, on the wire: what the rules for a verdict stand on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.real.fixtures import SERVERS, TOKEN, RealServer, descendants

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1.0.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
# A connection for each request, as a check has one.
CLIENT = httpx.Client(trust_env=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0))
HEADERS = {"Accept": "application/json, text/event-stream", "Accept-Encoding": "identity"}
CURRENT = {"MCP-Protocol-Version": "2026-07-28"}
UNKNOWN = {"Mcp-Session-Id": "unknown"}
COUNTING = [name for name, server in SERVERS.items() if server.counts_sessions]
GATED = [name for name, server in SERVERS.items() if server.token]
STREAMABLE = [name for name, server in SERVERS.items() if server.path == "/mcp"]
TOOLS = {
    "inventory": {"count", "take"},
    "library": {"find", "title"},
    "time": {"convert_time", "get_current_time"},
    "tickets": {"open_ticket", "read_ticket"},
    "rates": {"convert"},
    "weather": {"forecast"},
}


def send(server: RealServer, method: str, headers: dict[str, str], **message: Any) -> httpx.Response:
    return CLIENT.post(server.url, headers=HEADERS | headers, json={"jsonrpc": "2.0", "method": method, **message})


def discover(server: RealServer, headers: dict[str, str] | None = None) -> httpx.Response:
    """What a check sends."""
    method = "server/discover"
    return send(server, method, CURRENT | {"Mcp-Method": method} | (headers or {}), id=1, params={"_meta": META})


def message(response: httpx.Response) -> dict[str, Any]:
    """The JSON-RPC message of an answer, which may come as the one event of a stream."""
    if response.headers["content-type"].startswith("text/event-stream"):
        (data,) = (line.removeprefix("data:") for line in response.text.splitlines() if line.startswith("data:"))
        return json.loads(data)
    return response.json()


def tools(server: RealServer) -> set[str]:
    """The names of a server's tools, asked for as a client of its era does."""
    bearer = {"Authorization": f"Bearer {server.server.token}"} if server.server.token else {}
    if server.server.era == "current":
        headers = bearer | CURRENT | {"Mcp-Method": "tools/list"}
        answer = send(server, "tools/list", headers, id=1, params={"_meta": META})
    else:
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        opened = send(server, "initialize", bearer, id=1, params=client)
        headers = bearer | {"MCP-Protocol-Version": message(opened)["result"]["protocolVersion"]}
        if "mcp-session-id" in opened.headers:
            headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        assert send(server, "notifications/initialized", headers).status_code == 202
        answer = send(server, "tools/list", headers, id=2)
        if "Mcp-Session-Id" in headers:
            CLIENT.delete(server.url, headers=headers)
    return {tool["name"] for tool in message(answer)["result"]["tools"]}


@pytest.mark.parametrize("name", STREAMABLE)
def test_a_server_offers_its_tools_to_a_client_of_its_era(real, name):
    assert tools(real[name]) in TOOLS.values()


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_answers_with_the_stated_status(real, name):
    assert (discover(real[name]).status_code, discover(real[name], UNKNOWN).status_code) == SERVERS[name].statuses


@pytest.mark.parametrize("name", [name for name in STREAMABLE if SERVERS[name].era == "current" and name not in GATED])
def test_a_server_of_the_current_specification_says_what_it_supports(real, name):
    for answer in discover(real[name]), discover(real[name], UNKNOWN):
        assert "2026-07-28" in answer.json()["result"]["supportedVersions"]


@pytest.mark.parametrize("name", [name for name in STREAMABLE if SERVERS[name].era != "current" and name not in GATED])
def test_an_older_server_answers_with_an_error_of_json_rpc(real, name):
    answer = discover(real[name]).json()
    assert answer["jsonrpc"] == "2.0"
    assert {"code", "message"} <= answer["error"].keys()


@pytest.mark.parametrize("name", [name for name in STREAMABLE if SERVERS[name].era == "older" and name not in GATED])
def test_an_older_server_refuses_an_unknown_session_with_an_error_of_json_rpc(real, name):
    assert {"code", "message"} <= discover(real[name], UNKNOWN).json()["error"].keys()


@pytest.mark.parametrize("name", ["early-sdk", "early-fastmcp"])
def test_an_early_server_refuses_an_unknown_session_in_plain_text(real, name):
    answer = discover(real[name], UNKNOWN)
    assert "content-type" not in answer.headers
    assert answer.text == "Bad Request: No valid session ID provided"


def test_an_early_server_keeps_a_session_for_every_request_that_names_none(real):
    """Releases 1.8 to 1.29 of the SDK do (2026-11-22), 32 KB each: 90 MB a day for a check every half minute."""
    server: RealServer = real["early-sdk"]
    before = server.sessions()
    discover(server)
    assert server.sessions() == before + 1


@pytest.mark.parametrize("name", COUNTING)
def test_a_server_keeps_no_session_for_a_request_that_names_an_unknown_one(real, name):
    server: RealServer = real[name]
    before = server.sessions()
    discover(server, UNKNOWN)
    assert server.sessions() == before


@pytest.mark.parametrize("name", GATED)
def test_a_gated_server_answers_who_has_the_token(real, name):
    assert "www-authenticate" in discover(real[name]).headers
    assert "jsonrpc" in discover(real[name], {"Authorization": f"Bearer {TOKEN}"}).json()


@pytest.mark.parametrize("name", STREAMABLE)
def test_no_server_has_the_health_route_below_its_endpoint(real, name):
    assert CLIENT.get(f"{real[name].url}/health").status_code >= 400


@pytest.mark.parametrize("name", ["older-bridge", "current-bridge"])
def test_a_stopped_bridge_takes_the_server_behind_it_along(real, name):
    bridge: RealServer = real[name]
    tools(bridge)
    (pid, *behind) = bridge.processes()
    assert behind
    assert set(behind) == set(descendants(pid))
    bridge.stop()
    while any(alive(process) for process in behind):
        pass
    bridge.start()


def alive(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
