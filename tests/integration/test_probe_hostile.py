"""Hostile answers to a probe: each is ended by the deadline, read to 64 KiB at most, and described in words of ours."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter
from typing import Any

import pytest

from mcp_registry.dial import exchange
from mcp_registry.dial.guard import Policy
from mcp_registry.health.probe import DEADLINE, Result, Target, sweep
from tests.conftest import ROOT
from tests.hostile import CANARY, Farm, Hostile

SAMPLE = ROOT / "tests" / "corpus"
WHOLE = ROOT.parent / "shared" / "corpus"
CORPUS = WHOLE if (WHOLE / "probe_responses.json").is_file() else SAMPLE
CASES: list[dict[str, Any]] = json.loads((CORPUS / "probe_responses.json").read_text())

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8"})
# What lies in kernels between a server and a probe that has stopped reading: a send buffer here, and a receive window
# there, which Linux opens to 64 KiB at first and then with what is read.
IN_KERNELS = 0x40000
# A machine may be busy; one that is off by more than this has no deadline.
MARGIN_SECONDS = 1.5

# The same servers where an MCP endpoint was registered, without a health URL. Most of those that are healthy here are
# so by what they say to GET {endpoint}/health: a web page with 200 for everything.
AS_ENDPOINT: dict[str, tuple[str, int | None]] = {
    "ok": ("healthy", 200),
    "no-content": ("healthy", 204),
    "early-hints": ("healthy", 200),
    "silent": ("timeout", None),
    "slow-header": ("timeout", None),
    "slow-status": ("timeout", None),
    "slow-body": ("healthy", 200),
    "slow-json": ("timeout", None),
    "slow-chunked": ("healthy", 200),
    "quiet-events": ("timeout", None),
    "keepalive-hang": ("healthy", 200),
    "gzip-bomb": ("healthy", 200),
    "json-bomb": ("not_mcp", 404),
    "huge-header": ("not_mcp", None),
    "endless-headers": ("not_mcp", None),
    "endless-interim": ("not_mcp", None),
    "endless-body": ("healthy", 200),
    "endless-json": ("not_mcp", 404),
    "endless-chunks": ("not_mcp", 404),
    "endless-events": ("healthy", 200),
    "many-headers": ("healthy", 200),
    "cookie-bomb": ("healthy", 200),
    "redirect-imds": ("not_mcp", 302),
    "redirect-runtime": ("not_mcp", 307),
    "redirect-loop": ("not_mcp", 308),
    "http09": ("not_mcp", None),
    "garbage": ("not_mcp", None),
    "status-neg": ("not_mcp", None),
    "status-999": ("not_mcp", 999),
    "status-four": ("not_mcp", None),
    "smtp-banner": ("not_mcp", None),
    "ssh-banner": ("not_mcp", None),
    "redis": ("not_mcp", None),
    "close": ("refused", None),
    "reset": ("refused", None),
    "reset-mid-header": ("refused", None),
    "switching": ("not_mcp", 101),
    "s401": ("gated", 401),
    "s429": ("http_error", 429),
    "two-lengths": ("healthy", 200),
    "length-and-chunked": ("healthy", 200),
    "bad-chunk": ("healthy", 200),
    "short-body": ("healthy", 200),
    "non-ascii-header": ("healthy", 200),
    "evil-reason": ("http_error", 503),
    "evil-error": ("not_mcp", 400),
    "broken-deflate": ("not_mcp", 404),
}
MODES = sorted(Hostile.modes())


class Outcome:
    """One sweep over all modes, each once with a health URL and once as an endpoint, and what the servers saw of it."""

    def __init__(self) -> None:
        self.declared: dict[str, Result] = {}
        self.endpoint: dict[str, Result] = {}
        self.seconds = 0.0
        self.canary_connections = 0
        # By whether a health URL was declared, and mode.
        self.connections: Counter[tuple[bool, str]] = Counter()
        self.sent: Counter[tuple[bool, str]] = Counter()
        # The most that one answer was read to.
        self.most_read = 0


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    outcome = Outcome()
    patch = pytest.MonkeyPatch()
    read: Counter[exchange.Answer] = Counter()
    feed = exchange.Answer.feed

    def counting(answer: exchange.Answer, data: bytes) -> None:
        read[answer] += len(data)
        feed(answer, data)

    with socket.create_server(("127.0.0.1", 0)) as canary, patch.context() as patched:
        threading.Thread(target=accept_all, args=(canary, outcome), daemon=True).start()
        hostile = Hostile(canary.getsockname()[1])
        with Farm(hostile) as declared, Farm(hostile) as endpoint:
            patched.setattr(exchange.Answer, "feed", counting)
            targets = [Target(n, declared.url, f"/{mode}") for n, mode in enumerate(MODES)]
            targets += [Target(n + len(MODES), f"{endpoint.url}/{mode}", None) for n, mode in enumerate(MODES)]
            started = time.monotonic()
            results = sorted(sweep(targets, seconds=20, policy=OPEN), key=lambda result: result.id)
            outcome.seconds = time.monotonic() - started
        # The farms are closed: every visit is counted.
        canary.shutdown(socket.SHUT_RDWR)
    outcome.declared = dict(zip(MODES, results[: len(MODES)], strict=True))
    outcome.endpoint = dict(zip(MODES, results[len(MODES) :], strict=True))
    outcome.most_read = max(read.values())
    for is_declared, farm in ((True, declared), (False, endpoint)):
        for visit in farm.visits:
            outcome.connections[is_declared, visit.mode] += 1
            outcome.sent[is_declared, visit.mode] = max(outcome.sent[is_declared, visit.mode], visit.sent)
    return outcome


def accept_all(canary: socket.socket, outcome: Outcome) -> None:
    try:
        while True:
            canary.accept()[0].close()
            outcome.canary_connections += 1
    except OSError:
        return


def test_the_corpus_asks_for_no_mode_that_is_not_played():
    assert {case["mode"] for case in CASES} <= set(MODES)
    assert set(AS_ENDPOINT) == set(MODES)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case['id']}-{case['mode']}") for case in CASES])
def test_a_declared_health_url_is_judged_by_its_status(case, outcome):
    result = outcome.declared[case["mode"]]
    found = "healthy" if result.verdict == "healthy" else "error"
    assert result.verdict is not None, result
    assert found in (case["expect"], case.get("also_ok")), (case["why"], result)
    if found == case["expect"] and case["status_code"] is not None:
        assert (result.status_code or 0) == case["status_code"], (case["why"], result)
    assert outcome.connections[True, case["mode"]] == 1
    assert outcome.sent[True, case["mode"]] <= case["max_read_bytes"] + IN_KERNELS


@pytest.mark.parametrize("mode", MODES)
def test_a_hostile_endpoint_gets_a_verdict(mode, outcome):
    result = outcome.endpoint[mode]
    assert (result.verdict, result.status_code) == AS_ENDPOINT[mode], result
    # A request, a redirect within the origin, and the health below the endpoint.
    assert outcome.connections[False, mode] <= (3 if mode == "redirect-loop" else 2)
    assert outcome.sent[False, mode] <= exchange.LIMIT + IN_KERNELS


@pytest.mark.parametrize("mode", MODES)
def test_the_sentence_is_ours_and_no_answer_outlasts_the_deadline(mode, outcome):
    for result in (outcome.declared[mode], outcome.endpoint[mode]):
        assert result.response_time_ms is not None
        assert 0 <= result.response_time_ms <= (DEADLINE + MARGIN_SECONDS) * 1000
        if result.verdict in ("healthy", "gated"):
            assert result.error is None
        else:
            assert result.error is not None
            assert CANARY not in result.error
            assert re.fullmatch(r"[A-Z][A-Za-z0-9 ':,]+", result.error), result


def test_everything_together_takes_one_deadline(outcome):
    assert outcome.seconds < DEADLINE + MARGIN_SECONDS


def test_no_answer_is_read_beyond_64_kib(outcome):
    assert outcome.most_read <= exchange.LIMIT


def test_no_redirect_leads_to_another_server(outcome):
    assert outcome.canary_connections == 0
