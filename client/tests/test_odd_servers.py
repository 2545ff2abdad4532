"""Servers that answer whatever chance says: a check finds of each, word for word, what an introduction finds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

from mcp_registry.dial import introduction
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import Introduction

from client.tests.test_introspect import Asked, respond, stranger
from mcp_registry_client import introspect
from mcp_registry_client.introspect import Failed

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
NUMBER = 400
RIGHT: dict[str, dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "s", "version": "1"},
    },
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
    "tools/list": {"tools": [{"name": "a", "inputSchema": {}}]},
}
VALUES: list[Any] = [
    *(None, 1, "x", [], {}, {"name": "a"}, [1], ["2026-07-28"], "2024-11-05", {"tools": {}}, {"tools": 1}),
    *([{"name": "a", "inputSchema": {}}], [{"name": "a"}]),
]
STATUSES = [*[200] * 6, *(201, 202, 204, 301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 406, 418, 429, 500, 502)]
KINDS = [
    *["application/json"] * 3,
    *("text/event-stream", "Text/Event-Stream;x", "application/json; charset=utf-8", "text/plain", "text/html", "x/y"),
]
CHALLENGES = ["Bearer", 'Basic realm="a b"', 'Bearer realm="x", scope="a b"', 'Digest realm="x", Bearer error="y"']
PLACES = ["/%d/other", "https://login.example/auth", "other", "", "//x", "http://127.0.0.1:1/"]
WORDS = ["", "x", "Unauthorized: Session not found", "session id", "{}", "null", '{"error":"no"}', "<html>"]
NO_HTTP = [b"", b"SSH-2.0-x\r\n", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03", b"HTTP/2 200 x\r\n\r\n"]
STREAMS = [
    "data: %s\n\n",
    "event: message\ndata: %s\n\n",
    "data: %s",
    "event: x\ndata: %s\n\n",
    "data:\n\ndata: %s\n\n",
]


def answer(asked: Asked) -> Iterable[bytes]:
    """The same to the same question at the same path."""
    place = asked.path.split("/")[1]
    if not place.isdigit() or (asked.method == "GET" and not asked.path.endswith(("/mcp", "/other"))):
        return respond(404, "", "text/plain")
    chance = Random(f"{place} {asked.what} {asked.path}")
    right = RIGHT.get(asked.what)
    # Half of them are mostly well.
    if right and Random(place).random() < 0.5 and chance.random() < 0.75:
        return respond(200, said(asked, right))
    if chance.random() < 0.08:
        return [chance.choice(NO_HTTP)]
    status, kind = chance.choice(STATUSES), chance.choice(KINDS)
    body = spoken(chance, asked, right) if right else chance.choice(WORDS)
    if "vent-stream" in kind:
        body = chance.choice(STREAMS) % body
    headers = [f"Location: {chance.choice(PLACES).replace('%d', place)}"] if 300 <= status < 400 else []
    headers += [f"WWW-Authenticate: {chance.choice(CHALLENGES)}"] if chance.random() < 0.15 else []
    headers += [f"Mcp-Session-Id: {chance.choice(['one', 'two', 'bad id'])}"] if chance.random() < 0.3 else []
    headers += [f"Content-Encoding: {chance.choice(['gzip', 'br'])}"] if chance.random() < 0.05 else []
    return respond(status, body, kind, *headers)


def said(asked: Asked, value: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": asked.message["id"], "result": value}


def spoken(chance: Random, asked: Asked, right: dict[str, Any]) -> str:
    """A message that has something wrong with it, or nothing, or a text that is none."""
    value = dict(right)
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        value[chance.choice(list(right))] = chance.choice(VALUES)
        if chance.random() < 0.3:
            value.pop(chance.choice(list(right)), None)
    message = said(asked, value)
    kind = chance.random()
    if kind < 0.15:
        error = chance.choice([{"code": -32601, "message": "no"}, {"code": -32603}, {}, "x", {"code": "a"}])
        message = {"jsonrpc": "2.0", "id": chance.choice([None, message["id"], 99]), "error": error}
    elif kind < 0.2:
        message["id"] = chance.choice([99, str(message["id"]), None])
    elif kind < 0.23:
        del message["jsonrpc"]
    text = json.dumps([message] if chance.random() < 0.05 else message)
    return chance.choice([*WORDS, text[:-3], "\ufeff" + text]) if chance.random() < 0.1 else text


async def introduced(urls: list[str]) -> list[Introduction]:
    """What introductions find, a few at a time."""
    places = asyncio.Semaphore(16)

    async def one(url: str) -> Introduction:
        async with places:
            return await introduction.introduce(url, policy=OPEN)

    return await asyncio.gather(*map(one, urls))


def asked_by_name(url: str) -> Failed | None:
    """Ask a server what it is; why it could not be."""
    try:
        introspect.introspect(url, deadline_seconds=10)
    except Failed as failed:
        return failed
    return None


def test_a_check_finds_of_any_server_word_for_word_what_an_introduction_finds():
    with stranger(answer) as server, ThreadPoolExecutor(16) as threads:
        urls = [server.url.replace("/mcp", f"/{number}/mcp") for number in range(NUMBER)]
        theirs = asyncio.run(introduced(urls))
        ours = list(threads.map(introspect.check, urls))
        failures = list(threads.map(asked_by_name, urls))
    found = [
        ({"up": "healthy", "down": one.cause}.get(one.verdict or "", one.verdict), one.status_code, one.reason)
        for one in theirs
    ]
    for url, right, sight, failed in zip(urls, found, ours, failures, strict=True):
        reason = None if right[0] == "gated" else right[2]
        assert (sight.verdict, sight.status_code, sight.error_message) == (*right[:2], reason), url
        # The command takes more than a stock client does, and says in a sentence what it does not.
        assert failed is None or (sight.verdict != "healthy" and failed.message and "\n" not in failed.message), url
    assert {verdict for verdict, *_ in found} == {
        *("healthy", "gated", "limited", "refused", "not_mcp", "mcp_error", "http_error"),
    }
