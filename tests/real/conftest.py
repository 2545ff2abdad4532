"""The real servers, started once for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.real.fixtures import FLEET, SAMPLE, SERVERS, RealServer, available, running

# Whom `make test` asks, and whom `make prove` does.
ASKED = available(FLEET if "PROVE" in os.environ else SAMPLE)


@pytest.fixture(scope="session")
def fleet(real) -> Iterator[dict[str, RealServer]]:
    """The servers of `real` and the strangers, by name: all of them in `make prove`, else a sample."""
    with running(*(name for name in ASKED if name not in SERVERS)) as strangers:
        yield {**real, **strangers}
