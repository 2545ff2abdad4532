"""The real servers, started once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.fixtures import SERVERS, RealServer, running


@pytest.fixture(scope="session")
def real() -> Iterator[dict[str, RealServer]]:
    """Every real server, by its name."""
    with running(*SERVERS) as servers:
        yield servers
