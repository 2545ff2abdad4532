"""One file comes after all others: it reads what they have printed."""

from __future__ import annotations

import pytest

LAST = "test_whole_run.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pytest hands over the items of the whole run, whatever folder this stands in."""
    items.sort(key=lambda item: item.path.name == LAST)  # which keeps the order of all others
