"""Twenty seconds of load; `python -m tests.load --scale N` goes on for longer. And whether the proof would notice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.transport import Answer
from tests.conftest import nowhere_else
from tests.load import announcer, load
from tests.proof import table

NAME = "load-0-0"
NEW = (201, {"id": 7, "name": NAME})
UPDATED = (200, {"id": 7, "name": NAME, "result": "updated"})


def test_under_load_nothing_is_lost_refused_left_unchecked_or_leaked(request: pytest.FixtureRequest):
    nowhere_else(request.config)
    lines = load.prove(1)
    assert all(line.met or not line.tried for line in lines), "\n" + table(lines)


def test_whatever_answers_announcing_costs_next_to_nothing_and_does_not_end():
    lines = announcer.prove(1)
    assert all(line.met or not line.tried for line in lines), "\n" + table(lines)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[load.Client, load.Book]]:
    """A client that gets these answers, one after the other, and its book."""

    def make(*answers: tuple[int, Any]) -> tuple[load.Client, load.Book]:
        left: Iterator[tuple[int, Any]] = iter(answers)

        def exchange(*_: object) -> Answer:
            status, body = next(left)
            return Answer(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode(), 0.001)

        monkeypatch.setattr(load, "exchange", exchange)
        book = load.Book()
        return load.Client("http://127.0.0.1:1", book), book

    return make


def test_a_server_that_starts_is_new_then_known_then_changed(client):
    one, book = client((428, {}), NEW, (204, b""), (428, {}), UPDATED)
    for revision in (1, 1, 2):
        one.start(NAME, revision, "http://127.0.0.1:1")
    assert (book.failures, book.ids) == ([], [7])
    assert book.sent == book.acknowledged == {NAME: 2}


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([(204, b"")], id="unseen-and-known"),
        pytest.param([(428, {}), (409, {})], id="refused"),
        pytest.param([(428, {}), UPDATED], id="new-and-updated"),
        pytest.param([(428, {}), (201, {"id": 7, "name": "load-0-1"})], id="of-another-name"),
        pytest.param([(428, {}), NEW, (428, {})], id="acknowledged-and-unknown"),
        pytest.param([(428, {}), NEW, (204, b""), (204, b"")], id="changed-and-known"),
        pytest.param([(428, {}), NEW, (204, b""), (428, {}), (409, {})], id="change-refused"),
        pytest.param([(428, {}), NEW, (204, b""), (428, {}), NEW], id="changed-and-new"),
        pytest.param([(428, {}), NEW, (204, b""), (428, {}), (200, {**UPDATED[1], "result": "unchanged"})], id="idle"),
    ],
)
def test_a_registration_that_is_not_answered_as_is_due_is_a_failure(client, answers):
    one, book = client(*answers)
    for revision in (1, 1, 2):
        if not book.failures:
            one.start(NAME, revision, "http://127.0.0.1:1")
    assert len(book.failures) == 1
    assert f": {answers[-1][0]} w" in book.failures[0].kind


@pytest.mark.parametrize(
    ("read", "status", "body"),
    [
        (load.detail(8), 404, {"error": "No such server"}),
        (load.detail(8), 200, {"id": 7}),
        (load.detail(8), 200, b"<html>"),
        (load.detail(8), 204, b""),
        (load.history(8), 200, {"server_id": 7}),
        (load.LIST, 200, {"servers": []}),
        (load.LIST, 200, []),
        (load.search("load-1-"), 200, {"servers": [{"name": "load-2-1"}] * 20}),
        (load.FILTER, 200, {"servers": [{"status": "error", "server_type": "mock"}]}),
        (load.METRICS, 200, {"servers": {"total": 0}}),
    ],
)
def test_a_read_that_is_not_answered_as_is_due_is_a_failure(client, read, status, body):
    one, book = client((status, body))
    one.read(read)
    assert len(book.failures) == 1
    assert book.failures[0].kind.startswith(f"GET {read.what}: {status} w")
    assert book.failures[0].told.startswith(f"{read.path}: ")


STORED = {NAME: ("2.0.0", 3, 3, 3)}


@pytest.mark.parametrize(
    ("stored", "met"),
    [
        (STORED, True),
        ({}, False),
        ({NAME: ("1.0.0", 2, 2, 2)}, False),
        ({NAME: ("2.0.0", 3, 2, 2)}, False),
        ({NAME: ("2.0.0", 3, 3, 1)}, False),
        ({**STORED, "load-9-9": ("1.0.0", 2, 2, 2)}, False),
    ],
)
def test_every_name_is_stored_as_it_was_sent_last_and_no_other_is(stored, met):
    book = load.Book(notes=[load.Note("register", 0, 0.001, well=True)] * 60, sent={NAME: 2})
    assert load.registrations(book, stored, 20).met == met


def test_a_run_that_registers_next_to_nothing_proves_nothing():
    book = load.Book(notes=[load.Note("register", 0, 0.001, well=True)] * 59, sent={NAME: 2})
    assert not load.registrations(book, STORED, 20).met


@pytest.mark.parametrize(("leak", "met"), [(0.0, True), (0.2, True), (1.0, False)])
def test_a_leak_of_a_kb_for_each_request_is_seen(leak, met):
    """Of 10 requests/s to two processes for 300 s, of which one gets nine in ten."""
    samples: load.Samples = {
        ("ListFunction", pid): [(second, 30 + leak * share * 10 * second / 1024) for second in range(300)]
        for pid, share in ((1, 0.9), (2, 0.1))
    }
    notes = [load.Note("list", number / 10, 0.001, well=True) for number in range(3000)]
    span = load.Span.of(0, 300)
    served = span.requests(notes)
    assert served == {"ListFunction": 1000}
    *_, line = load.memory(span.growth(samples), served)
    assert line.met == met, line


def test_what_one_process_takes_on_at_once_is_no_leak():
    samples: load.Samples = {("ListFunction", 1): [(second, 30 + (second > 210)) for second in range(300)]}
    growth = load.Span.of(0, 300).growth(samples)
    assert growth[0].grown == 1
    *_, line = load.memory(growth, load.Counter({"ListFunction": 1000}))
    assert line.met, line


def test_what_served_few_requests_is_not_judged_by_them():
    growth = [load.Growth(1.0, 30.0, "ListFunction", 0.5)]
    *_, line = load.memory(growth, load.Counter({"ListFunction": load.LEAST_REQUESTS - 1}))
    assert (line.met, line.bar) == (True, "not judged in the bounded run")
