"""The README, done as it says."""

from __future__ import annotations

import re
import shlex
import subprocess

from mcp_registry.edge.http import STATUSES
from tests.conftest import ROOT, Local

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_every_curl_line_does_what_it_is_there_for(new_database, tmp_path):
    """In the order of the page, against a registry that nothing was registered in."""
    curls = [block for block in BLOCKS if block.startswith("curl")]
    local = Local({"PORT": "0", "DATABASE_URL": new_database(migrated=False), "DATA_DIR": str(tmp_path)})
    try:
        url = local.wait_until_ready()
        statuses = []
        for curl in curls:
            command = shlex.split(curl.replace("http://127.0.0.1:3000", url).replace("\\\n", " "))
            command += ["--silent", "--output", str(tmp_path / "answer"), "--write-out", "%{http_code}"]
            statuses.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    finally:
        assert local.stop() == 0
    # register, digest, search, read twice, take out, history, metrics, sweep, changes twice, policy, approvals, remove,
    # health
    assert statuses == [201, 428, 200, 200, 200, 200, 200, 200, 202, 200, 200, 200, 200, 204, 200, 201, 201, 200, 200]


def test_the_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_the_settings_are_those_of_the_local_run():
    source = (ROOT / "local" / "settings.py").read_text()
    read = set(re.findall(r'given\.get\("([A-Z_]+)"', source)) - {"AWS_ENDPOINT_URL"}
    table = README.partition("## Settings")[2].partition("## ")[0]
    names = " ".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `"))
    assert set(re.findall(r"`([A-Z_]+)`", names)) == read


def test_every_code_of_ours_is_explained_but_for_defects():
    table = README.partition("| code |")[2].partition("## ")[0]
    assert set(STATUSES) - {"INTERNAL_ERROR"} <= set(re.findall(r"`([A-Z_]+)`", table))
