"""What travels by queue: what is refused as it comes in, because no function of ours wrote it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mcp_registry.dial import guard, reach
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
