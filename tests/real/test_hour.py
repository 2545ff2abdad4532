"""Whether the hour of the fleet would notice: what counts as a false verdict, and what is no verdict at all."""

from __future__ import annotations

import threading

import pytest

from tests.real.hour import Book, Sight, lines

UP = Sight("active", "healthy", "now")
GATED = Sight("active", "gated", "now")
DOWN = Sight("error", "refused", "now")


@pytest.fixture
def book() -> Book:
    return Book({"one": "healthy", "two": "gated"}, {"one": True, "two": True})


def test_a_fleet_that_is_shown_as_it_is_has_no_false_verdict(book):
    book.look({"one": UP, "two": GATED})
    assert (book.false, book.looks) == ([], 1)


@pytest.mark.parametrize("sights", [{"one": DOWN, "two": GATED}, {"one": GATED, "two": GATED}, {"two": GATED}])
def test_a_server_that_works_and_is_shown_otherwise_or_not_at_all_is_one_false_verdict_however_long(book, sights):
    book.look(sights)
    book.look(sights)
    assert len(book.false) == 1 and "one, which works" in book.false[0]
    book.look({"one": UP})
    book.look(sights | {"one": DOWN})
    assert len(book.false) == 2


def looking(book: Book, *rounds: dict[str, Sight]) -> None:
    """What the list shows from now on, from another thread."""

    def look() -> None:
        for sights in rounds:
            book.look(sights)

    threading.Timer(0.05, look).start()


def test_what_happens_to_a_server_is_timed_and_not_judged_until_it_is_seen(book):
    book.look({"one": UP, "two": GATED})
    assert book.happens("one", "is stopped", lambda: looking(book, {"one": UP}, {"one": DOWN}), up=False)
    assert book.false == [] and book.due["one"] is False and len(book.took["is stopped"]) == 1
    book.look({"one": UP})
    assert "one, which does not work" in book.false[0]


def test_what_was_never_seen_is_a_false_verdict_and_the_lines_say_so(book, monkeypatch):
    monkeypatch.setattr("tests.real.hour.PATIENCE_SECONDS", 0.05)
    book.look({"one": UP, "two": GATED})
    assert not book.happens("one", "is frozen", lambda: None, up=False)
    told, *rest = lines(book, 37, 60)
    assert not told.met and "one: that it is frozen was not seen" in told.figure
    assert not any(line.met for line in rest)
