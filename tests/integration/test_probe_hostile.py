"""Hostile answers to a probe: each is ended by the deadline, read to 64 KiB at most, and described in words of ours."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections import Counter
from typing import Any

import pytest

from mcp_registry.dial import exchange
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.introduction import MAX_BRIEF_BYTES
from mcp_registry.health.probe import ATTEMPTS, TOO_BUSY, Result, Target, sweep
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
# Of the sweep: an introduction has the 5 s that a time-out needs, and its health what is left after that.
SECONDS = 9.0

# The same servers where an MCP endpoint was registered, without a health URL. None of them is one: that they say 2xx
# to everything made many of them healthy once, by GET {endpoint}/health.
AS_ENDPOINT: dict[str, tuple[str, int | None]] = {
    "ok": ("not_mcp", 200),
    "no-content": ("not_mcp", 204),
    "early-hints": ("not_mcp", 200),
    "silent": ("timeout", None),
    "slow-header": ("timeout", None),
    "slow-status": ("timeout", None),
    "slow-body": ("timeout", None),
    "slow-json": ("timeout", None),
    "slow-chunked": ("timeout", None),
    "quiet-events": ("timeout", None),
    "keepalive-hang": ("not_mcp", 200),
    "gzip-bomb": ("not_mcp", 200),
    "json-bomb": ("not_mcp", 404),
    "huge-header": ("not_mcp", None),
    "endless-headers": ("not_mcp", None),
    "endless-interim": ("not_mcp", None),
    "endless-body": ("not_mcp", 200),
    "endless-json": ("not_mcp", 404),
    "endless-chunks": ("not_mcp", 404),
    "endless-events": ("mcp_error", 200),
    "many-headers": ("not_mcp", 200),
    "cookie-bomb": ("not_mcp", 200),
    "redirect-imds": ("not_mcp", 302),
    "redirect-runtime": ("not_mcp", 307),
    "redirect-loop": ("not_mcp", 308),
    "http09": ("not_mcp", None),
    "garbage": ("not_mcp", None),
    "status-neg": ("not_mcp", None),
    "status-999": ("http_error", 999),
    "status-four": ("not_mcp", None),
    "smtp-banner": ("not_mcp", None),
    "ssh-banner": ("not_mcp", None),
    "redis": ("not_mcp", None),
    "close": ("refused", None),
    "reset": ("refused", None),
    "reset-mid-header": ("refused", None),
    "switching": ("not_mcp", 101),
    "s401": ("gated", 401),
    "s429": ("limited", 429),
    "two-lengths": ("not_mcp", 200),
    "length-and-chunked": ("not_mcp", 200),
    "bad-chunk": ("not_mcp", 200),
    "short-body": ("not_mcp", 200),
    "non-ascii-header": ("not_mcp", 200),
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
        # How often all were asked, and how long that took.
        self.sweeps = 0
        self.seconds = 0.0
        self.canary_connections = 0
        # By whether a health URL was declared, and mode.
        self.connections: Counter[tuple[bool, str]] = Counter()
        self.sent: Counter[tuple[bool, str]] = Counter()
        # The most that one answer was read to, and what the loop complained of.
        self.most_read = 0
        self.complaints: list[str] = []


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    outcome = Outcome()
    patch = pytest.MonkeyPatch()
    read: Counter[exchange.Answer] = Counter()
    log = logging.getLogger("asyncio")
    handler = logging.Handler()
    handler.emit = lambda record: outcome.complaints.append(record.getMessage())
    feed = exchange.Answer.feed

    def counting(answer: exchange.Answer, data: bytes) -> None:
        read[answer] += len(data)
        feed(answer, data)

    with socket.create_server(("127.0.0.1", 0)) as canary, patch.context() as patched:
        threading.Thread(target=accept_all, args=(canary, outcome), daemon=True).start()
        hostile = Hostile(canary.getsockname()[1])
        with Farm(hostile) as declared, Farm(hostile) as endpoint:
            patched.setattr(exchange.Answer, "feed", counting)
            log.addHandler(handler)
            # Down already, never introduced: each is looked at once, and if it is no MCP server asked for its health.
            known = {"era": None, "verdict": "timeout"}
            targets = [Target(n, n, declared.url, f"/{mode}", **known) for n, mode in enumerate(MODES)]
            targets += [
                Target(n, n, f"{endpoint.url}/{mode}", **known) for n, mode in enumerate(MODES, start=len(MODES))
            ]
            started = time.monotonic()
            judged: dict[int, Result] = {}
            # Where this machine is too busy to judge one, that is said, and it is asked again.
            while left := [target for target in targets if target.server_id not in judged]:
                for result in sweep(left, seconds=SECONDS, policy=OPEN):
                    if result.error != TOO_BUSY:
                        judged[result.server_id] = result
                outcome.sweeps += 1
            results = [judged[place] for place in range(len(targets))]
            outcome.seconds = time.monotonic() - started
        log.removeHandler(handler)
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
    assert 1 <= outcome.connections[True, case["mode"]] <= ATTEMPTS * outcome.sweeps
    assert outcome.sent[True, case["mode"]] <= case["max_read_bytes"] + IN_KERNELS


@pytest.mark.parametrize("mode", MODES)
def test_a_hostile_endpoint_gets_a_verdict(mode, outcome):
    result = outcome.endpoint[mode]
    assert (result.verdict, result.status_code) == AS_ENDPOINT[mode], result
    # Three ways to begin, each with up to five redirects, the health below the endpoint and a path that cannot exist.
    assert outcome.connections[False, mode] <= (3 * 6 + 2) * ATTEMPTS * outcome.sweeps
    # The window opens with what is read.
    assert outcome.sent[False, mode] <= MAX_BRIEF_BYTES + 4 * IN_KERNELS


@pytest.mark.parametrize("mode", MODES)
def test_the_sentence_is_ours_and_no_answer_outlasts_the_deadline(mode, outcome):
    for result in (outcome.declared[mode], outcome.endpoint[mode]):
        assert (result.response_time_ms is None) == (result.verdict is None)
        assert 0 <= (result.response_time_ms or 0) <= (SECONDS + MARGIN_SECONDS) * 1000
        if result.verdict in ("healthy", "gated"):
            assert result.error is None
        else:
            assert result.error is not None
            assert CANARY not in result.error
            assert re.fullmatch(r"[A-Za-z][A-Za-z0-9 '():,]+", result.error), result
        for evidence in result.evidence:
            assert len(evidence.excerpt) <= 500 and evidence.excerpt.isprintable(), evidence


def test_everything_together_takes_no_longer_than_the_sweep(outcome):
    assert outcome.seconds < (SECONDS + MARGIN_SECONDS) * outcome.sweeps


def test_no_answer_is_read_beyond_what_a_check_reads_and_the_loop_complains_of_none(outcome):
    assert outcome.most_read <= MAX_BRIEF_BYTES
    assert outcome.complaints == []


def test_no_redirect_leads_to_another_server(outcome):
    assert outcome.canary_connections == 0
