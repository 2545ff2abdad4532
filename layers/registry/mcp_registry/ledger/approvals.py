"""Which offer of a server is handed out."""

from __future__ import annotations

import os
from typing import Any, LiteralString

from mcp_registry.aws.db import Database
from mcp_registry.caller import Caller

# The snapshot of a server that is handed out, by its row `l` of the ledger.
SERVED: LiteralString = """CASE COALESCE(l.policy, %(policy)s::registry.policy)
                                WHEN 'auto' THEN COALESCE(l.observed_id, l.declared_id)
                                WHEN 'compatible' THEN l.compatible_id ELSE l.approved_id END"""


def policy() -> str:
    """The policy of a server that has none of its own (APPROVAL_POLICY)."""
    return os.environ.get("APPROVAL_POLICY") or "auto"


def show(database: Database, caller: Caller, server: int | str) -> dict[str, Any]:
    """Not here yet."""
    raise NotImplementedError


def decide(database: Database, caller: Caller, server: int | str, decision: Any) -> dict[str, Any]:
    """Not here yet."""
    raise NotImplementedError


def set_policy(database: Database, caller: Caller, server: int | str, wanted: Any) -> dict[str, Any]:
    """Not here yet."""
    raise NotImplementedError


def parse_decision(value: Any) -> Any:
    """Not here yet."""
    raise NotImplementedError


def parse_policy(value: Any) -> Any:
    """Not here yet."""
    raise NotImplementedError
