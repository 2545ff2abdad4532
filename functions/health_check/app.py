"""Every half minute: start the sweep that is due, and have those introduced whose time has come.

The schedule asks for the first of a minute, a delayed message for the second.
"""

from __future__ import annotations

from typing import Any

from mcp_registry.aws.db import database
from mcp_registry.edge.background import Record, aside, batch, job
from mcp_registry.health import invitations, messages, sweeps


@job
def _minute(event: Any) -> object:
    started = [started.report() for started in sweeps.minute(database(), event)]
    aside(lambda: sweeps.retire(database()))
    aside(lambda: invitations.dispatch(database()))
    return started


@batch
def _half_minute(message: Record) -> None:
    sweeps.start(database(), messages.tick(message.body).slot)
    aside(lambda: invitations.dispatch(database()))


def lambda_handler(event: Any, context: Any) -> object:
    is_batch = isinstance(event, dict) and "Records" in event
    return _half_minute(event, context) if is_batch else _minute(event, context)
