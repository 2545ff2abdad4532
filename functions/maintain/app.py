"""Every day: make the partitions of what is coming, fold past days, drop what is too old."""

from __future__ import annotations

import os
from typing import Any

from mcp_registry.aws.db import database
from mcp_registry.edge.background import job
from mcp_registry.health import maintenance
from mcp_registry.ledger import keeping


@job
def lambda_handler(event: Any) -> object:
    days = (int(os.environ[f"{kept}_RETENTION_DAYS"]) for kept in ("RAW", "ROLLUP", "AUDIT"))
    done = maintenance.run(database, *days)._asdict()
    forgotten = keeping.run(database, int(os.environ["LEDGER_RETENTION_DAYS"]))
    return {**done, "deleted": done["deleted"] + sum(forgotten)}
