"""What a test of the API registers is gone when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Api


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test and not after the last, so that few of them are ever in a catalogue that others read."""
    api: Api | None = request.getfixturevalue("api") if "api" in request.fixturenames else None
    yield
    if api is not None:
        api.remove_what_was_made()
