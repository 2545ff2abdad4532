"""The oracle: what the table of shapes calls right is what stock MCP clients find.

What the introduction finds of them is in tests/integration/test_introduction.py, by the same table; of real servers
both are compared in test_probe_real.py. `make prove` asks all clients about all shapes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests import shapes
from tests.hostile import Farm
from tests.real.stock import NODE, ask, node, python
from tests.shapes import KINDS, SHAPES

# A client waits fifteen seconds for what never comes. Everything else is asked in `make test` as well; of the SDKs, all
# of which are up, every twelfth.
SLOW = {"accepted", "wrong-id", "discover-hangs"}
ASKED = [name for name, shape in SHAPES.items() if shape.stock]
SAMPLE = [name for name in ASKED if name not in SLOW and (name not in KINDS or [*KINDS].index(name) % 12 == 0)]


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """The server of all shapes."""
    with shapes.serving() as farm:
        yield farm


def disagreements(farm: Farm, names: list[str], commands: list[list[str]]) -> dict[str, tuple[str, str]]:
    """Where the table and the clients do not agree: both, by shape."""
    found = ask(commands, [shapes.url(farm, name) for name in names])
    wanted = [SHAPES[name].verdict for name in names]
    return {name: (one, other) for name, one, other in zip(names, wanted, found, strict=True) if one != other}


def test_stock_clients_find_of_the_shapes_what_the_table_says(farm):
    plain = [name for name in SAMPLE if SHAPES[name].path == "/mcp"]
    assert disagreements(farm, plain, [python("mcp 1"), python("mcp 2")]) == {}
    over_sse = [name for name in SAMPLE if SHAPES[name].path == "/sse"]
    assert disagreements(farm, over_sse, [python("mcp 1 over sse")]) == {}


@pytest.mark.skipif("PROVE" not in os.environ, reason="a minute and more: make prove asks all clients about all shapes")
def test_all_stock_clients_find_of_all_shapes_what_the_table_says(farm):
    clients = [python("mcp 1"), python("mcp 2"), python("fastmcp 4")]
    if shutil.which("node") and shutil.which("npm"):
        clients += [node(name) for name in NODE]
    assert disagreements(farm, ASKED, clients) == {}
