"""What travels by queue: what is refused as it comes in, because no function of ours wrote it."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime

import pytest

from mcp_registry.dial import guard, introduction, reach
from mcp_registry.errors import Malformed
from mcp_registry.health import asking, messages, probe

SLOT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def findings(error: str | None) -> str:
    return messages.encode(messages.Findings(SLOT, 0, [messages.Finding(1, "refused", None, 1, error, 0)]))


@pytest.mark.parametrize(
    "error",
    [
        "hacked: \x1b]0;title\x07 call +1-555",
        "two\nlines",
        "one line\n",
        "a\x00b",
        "a\x7fb",
        "a\x9bb",
        "turned \u202earound",
        "invisible\u200b",
        "x" * 301,
    ],
)
def test_a_finding_that_no_prober_of_ours_wrote_is_refused(error):
    with pytest.raises(Malformed):
        messages.findings(findings(error))


INTRODUCED = {"finding": [1, "healthy", 200, 1, None, 0, 3]}


def introductions(**learnt: object) -> str:
    return json.dumps({"asked_at": SLOT.isoformat(), "introduced": [INTRODUCED | learnt]})


@pytest.mark.parametrize(
    "learnt",
    [
        {"pulse": "p" * 501},
        {"pulse": "a\0b"},
        {"pulse": "é"},
        {"era": "nobody's"},
        {"auth": {"realm": "turned \u202earound"}},
        {"auth": {"scopes": ["x"] * 101}},
        {"auth": {"status": "401"}},
        {"introduction": {"server_info": {"name": "invisible\u200b"}}},
        {"introduction": {"capabilities": {"a\0": 1}}},
        {"introduction": {"server_info": {"a": [[[[1]]]]}}},
        {"introduction": {"server_info": {"a": "x" * 201}}},
        {"introduction": {"tools_count": -1}},
        {"introduction": {"digest": {"raw": "evil", "prompt": "", "contract": ""}}},
    ],
)
def test_what_no_introduction_of_ours_has_learnt_is_refused(learnt):
    with pytest.raises(Malformed):
        messages.introductions(introductions(**learnt))


def test_what_is_not_known_of_what_was_learnt_is_dropped():
    said = {"tools_count": 3, "at": "1999-01-01T00:00:00Z", "tools": [{"name": "evil"}]}
    (one,) = messages.introductions(introductions(introduction=said)).introduced
    assert one.introduction == {"tools_count": 3}


def test_ten_pieces_of_evidence_are_taken_and_no_more():
    piece = messages.Evidence("POST initialize", 503, "text/html", "no", 1)
    found = messages.Finding(1, "refused", None, 1, None, 0, evidence=[piece] * 10)
    assert len(messages.findings(messages.encode(messages.Findings(SLOT, 0, [found]))).findings[0].evidence) == 10
    with pytest.raises(Malformed):
        messages.findings(messages.encode(messages.Findings(SLOT, 0, [found._replace(evidence=[piece] * 11)])))


def test_of_a_strangers_words_exactly_those_are_taken_that_can_be_shown():
    """But for characters that Unicode has not assigned, of which each version has others."""
    every = [char for char in map(chr, range(0x110000)) if unicodedata.category(char) != "Cn"]
    shown = [char for char in every if introduction.shown(char) == char]
    assert re.findall(f"[^{messages.UNSEEN}]", "".join(every)) == shown


def test_every_sentence_of_a_check_is_taken():
    policy = guard.Policy.of({})
    addresses = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "224.0.0.1", "::1", "::ffff:1.2.3.4", "fe80::1%eth0", "x")
    sentences = {
        *(
            value.error
            for module in (asking, probe, reach)
            for value in vars(module).values()
            if isinstance(value, (reach.Finding, probe.Found))
        ),
        *reach.FAULTS.values(),
        *reach.CERTIFICATE_FAULTS.values(),
        *(f"The address is {kind}" for _, kind in guard.NETWORKS),
        *map(policy.address_fault, addresses),
        *map(policy.url_fault, ("http://x.internal/", "http://metadata/", "http://a.example:22/")),
        None,
    }
    assert len(sentences) > 30
    for sentence in sentences:
        assert messages.findings(findings(sentence)).findings[0].error == sentence


def test_the_writer_knows_a_host_that_cannot_be_reached_by_the_words_of_the_prober():
    assert reach.UNREACHABLE.error == messages.UNREACHABLE


def test_texts_are_an_array_of_postgres():
    assert messages.texts(['a "b" \\ {c}', None, "null", ""]) == r'{"a \"b\" \\ {c}",null,"null",""}'
