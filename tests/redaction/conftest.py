"""One test comes after all others: it reads what the stack that they shared has printed."""

from __future__ import annotations

import pytest

LAST = "test_the_stack_that_the_tests_shared_has_printed_no_secret"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pytest hands over the items of the whole run, whatever folder this stands in."""
    items.sort(key=lambda item: item.name == LAST)  # which keeps the order of all others
