"""Twenty seconds of load; `python -m tests.load --scale N` goes on for longer."""

from __future__ import annotations

import pytest

from tests.conftest import nowhere_else
from tests.load import load
from tests.proof import table


def test_under_load_nothing_is_lost_refused_left_unchecked_or_leaked(request: pytest.FixtureRequest):
    nowhere_else(request.config)
    lines = load.prove(1)
    assert all(line.met for line in lines), "\n" + table(lines)
