"""An author sees that it worked, whatever log has been set up or has not; once, and not where he wants none of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from client.tests.programs import SOURCE

LINE = "Registered weather in the MCP registry"
SAY = """
import logging, logging.config, sys
from mcp_registry_client import _telling
{}
_telling.log("notice", "Registered %s in the MCP registry", "weather")
"""
SEEN = {
    "nothing": "",
    "a log": "logging.basicConfig(level='INFO', format='%(message)s')",
    "a log of warnings, as Lambda's": "logging.basicConfig()",
    "a log whose handler takes warnings only": (
        "logging.basicConfig(level='INFO'); logging.getLogger().handlers[0].setLevel('WARNING')"
    ),
    "a log of its own for a framework": (
        "other = logging.getLogger('fastmcp'); other.addHandler(logging.StreamHandler()); other.setLevel('INFO')"
    ),
    "no handler for the others": "logging.getLogger().addHandler(logging.NullHandler())",
    "a log for the client": (
        "own = logging.getLogger('mcp_registry_client'); own.addHandler(logging.StreamHandler()); own.setLevel('INFO')"
    ),
}
SILENT = {
    "its level": "logging.getLogger('mcp_registry_client').setLevel('WARNING')",
    "no handler for it": "logging.getLogger('mcp_registry_client').addHandler(logging.NullHandler())",
    "not passed on": "logging.getLogger('mcp_registry_client').propagate = False",
    "disabled": "logging.getLogger('mcp_registry_client').disabled = True",
    "all disabled": "logging.disable(logging.INFO)",
    "no stderr": "sys.stderr = None",
    "a stderr that is closed": "sys.stderr.close()",
}


def said(setup: str) -> str:
    command = [sys.executable, "-S", "-c", SAY.format(setup)]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


@pytest.mark.parametrize("setup", SEEN)
def test_that_it_worked_is_one_line_on_stderr_whatever_is_set_up(setup: str):
    assert said(SEEN[setup]).splitlines() == [LINE]


@pytest.mark.parametrize("setup", SILENT)
def test_who_wants_none_of_it_sees_none_of_it(setup: str):
    assert said(SILENT[setup]) == ""


def test_what_nobody_waits_for_stays_in_the_log():
    assert said("_telling.log('info', 'changed'); _telling.log('debug', 'unchanged')") == f"{LINE}\n"
    assert said("_telling.log('warning', 'wrong')").splitlines() == ["wrong", LINE]
