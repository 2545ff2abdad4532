"""Which headers may be given, what a server must not repeat of them, and how many are remembered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_registry.aws import secret
from mcp_registry.errors import ValidationFailed
from mcp_registry.health import headers, probe_headers
from mcp_registry.health.headers import Given

TOKEN = "Bearer canary-5bd1e995-token"
GIVEN = Given("https://mcp.example.com", {"Authorization": TOKEN, "X-Tenant": "acme"})


def faults(value: object) -> dict[str, str]:
    with pytest.raises(ValidationFailed) as caught:
        probe_headers.parse(value)
    assert "canary" not in json.dumps([str(caught.value), *caught.value.faults])
    return {fault.path: fault.type for fault in caught.value.faults}


@pytest.mark.parametrize(
    "given",
    [
        {"Authorization": TOKEN},
        {"X-API-Key": "x"},
        {"Cookie": "a=b; c=d"},
        {"x-" + "n" * 98: "v" * 4096},
        {f"X-Key-{number}": "~!" for number in range(10)},
    ],
    ids=lambda given: next(iter(given))[:20],
)
def test_what_lets_somebody_in_is_taken_as_it_is(given: dict[str, str]):
    assert probe_headers.parse({"headers": given}) == given


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Host",
            "Content-Type",
            "content-length",
            "MCP-Session-Id",
            "Mcp-Protocol-Version",
            "Accept",
            "Accept-Encoding",
        ),
        *("Connection", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Authorization", "Expect"),
        *("User-Agent", "Last-Event-ID", "Forwarded", "X-Forwarded-For", "Via"),
    ],
)
def test_what_frames_a_request_or_says_what_is_in_it_is_not_theirs_to_give(name: str):
    assert faults({"headers": {name: "canary"}}) == {f"headers.{name}": "value"}


@pytest.mark.parametrize(
    "value", ["canary\r\nX: y", "canary\0", " canary", "canary ", "canaryé", "canary\t", "canary\x7f"]
)
def test_a_value_cannot_break_out_of_its_line(value: str):
    assert faults({"headers": {"X-Key": value}}) == {"headers.X-Key": "value"}


@pytest.mark.parametrize("name", ["", "X Key", "X:Key", "X-Key\r\nHost", "Xé", "x" * 101, "Bearer canary"])
def test_what_is_no_name_is_not_told_again_for_it_may_be_the_value(name: str):
    assert faults({"headers": {name: "x"}}) == {"headers": "value"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({}, {"headers": "missing"}),
        ({"headers": None}, {"headers": "missing"}),
        ({"headers": ["canary"]}, {"headers": "type"}),
        ({"headers": {}}, {"headers": "length"}),
        ({"headers": {f"X-{number}": "x" for number in range(11)}}, {"headers": "length"}),
        ({"headers": {"X-Key": "x", "x-key": "y"}}, {"headers": "repeated"}),
        ({"headers": {"X-Key": None}}, {"headers.X-Key": "type"}),
        ({"headers": {"X-Key": 1}}, {"headers.X-Key": "type"}),
        ({"headers": {"X-Key": ""}}, {"headers.X-Key": "length"}),
        ({"headers": {"X-Key": "c" * 4097}}, {"headers.X-Key": "length"}),
        ({"headers": {"X-Key": "x"}, "more": 1}, {"more": "unknown"}),
        (["canary"], {}),
        ("canary", {}),
        (None, {}),
    ],
)
def test_every_fault_is_told_by_its_place(value: object, wanted: dict[str, str]):
    assert faults(value) == wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://mcp.example.com/mcp", True),
        ("HTTPS://MCP.example.com:443/other", True),
        ("http://mcp.example.com/mcp", False),
        ("https://mcp.example.com:8443/mcp", False),
        ("https://mcp.example.com.evil.example/mcp", False),
        ("https://evil.example/https://mcp.example.com/", False),
    ],
)
def test_headers_are_for_one_scheme_host_and_port(url: str, wanted: bool):
    assert GIVEN.are_for(url) is wanted


@pytest.mark.parametrize(
    "told",
    [
        TOKEN,
        "your token is canary-5bd1e995-token",
        ["canary-5bd1e995-token"],
        {"deep": [{"deeper": ("x", {"Say " + TOKEN: 1})}]},
        "compressed (canary-5bd1e995-tok)",
    ],
    ids=repr,
)
def test_what_a_server_repeats_is_found_wherever_it_stands(told: Any):
    assert GIVEN.stand_in(told)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Basic Y29ubmllOmNhbmFyeS01YmQxZTk5NQ==", "You are connie, with canary-5bd1e995"),
        ("basic Y29ubmllOmNhbmFyeS01YmQxZTk5NQ", "connie:canary-5bd1e995"),
        ("lang=en; session=canary-5bd1e995; x=1", "The session canary-5bd1e995 is open"),
        ('Digest username="connie", response="canary-5bd1e995"', "canary-5bd1e995"),
    ],
)
def test_a_part_of_a_header_that_is_a_secret_by_itself_is_found(value: str, told: str):
    given = Given("https://mcp.example.com", {"Authorization": value})
    assert given.stand_in(told)
    assert not given.stand_in("The username connie, her response and her session, in en")


@pytest.mark.parametrize("told", ["", "Tools of acme", "Bearer", {"canary": [1, None, True, 1.5]}], ids=repr)
def test_what_is_no_secret_is_not_taken_for_one(told: Any):
    assert not GIVEN.stand_in(told)


def test_a_text_that_is_nested_as_deeply_as_may_be_is_looked_through():
    value: Any = TOKEN
    for _ in range(100_000):
        value = [value]
    assert GIVEN.stand_in(value)


def test_a_secret_is_read_once_and_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def fetch(name: str) -> dict[str, Any]:
        asked.append(name)
        return {"origin": "https://mcp.example.com", "headers": {"X-Key": name}}

    monkeypatch.setenv("PROBE_HEADERS", "stack/probe-headers/")
    monkeypatch.setattr(secret, "fetch", fetch)
    monkeypatch.setattr(headers, "_kept", {})
    monkeypatch.setattr(headers, "MAX_KEPT", 2)
    for number in (1, 1, 2, 3, 3, 1):
        assert headers.read(number, str(number)).headers == {"X-Key": f"stack/probe-headers/{number}/{number}"}
    assert [name.rpartition("/")[2] for name in asked] == ["1", "2", "3", "1"]
    assert len(headers._kept) == 2
