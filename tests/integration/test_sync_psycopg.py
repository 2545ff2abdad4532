"""psycopg without asyncio: connects, queries, fails as usual, and leaves asyncio to whoever wants it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.conftest import ROOT

SCRIPT = """
import json, sys
from mcp_registry.sync_psycopg import psycopg

assert "asyncio" not in sys.modules
url = sys.argv[1]
with psycopg.connect(url, autocommit=True) as connection:
    one = connection.execute("SELECT %s::int + 1", [41]).fetchone()
    try:
        connection.execute("SELECT 1 / 0")
    except psycopg.errors.DivisionByZero as error:
        state = error.sqlstate
    with connection.transaction(), connection.pipeline():
        two = connection.execute("SELECT current_database() IS NOT NULL").fetchone()
try:
    psycopg.connect(url.replace("registry:", "nobody:"), connect_timeout=2)
except psycopg.OperationalError as error:
    refused = type(error).__name__

import asyncio

async def ten():
    return 10

print(json.dumps([one, state, two, refused, asyncio.run(ten())]))
"""


def test_a_process_that_never_needs_asyncio_never_loads_it(database_url):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "layers" / "registry")}
    command = [sys.executable, "-c", SCRIPT, database_url]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [[42], "22012", [True], "OperationalError", 10]
