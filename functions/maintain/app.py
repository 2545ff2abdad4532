"""Every day: make the partitions of the coming days, fold past days, drop what is too old."""

from __future__ import annotations

import os
from typing import Any

from mcp_registry.aws.db import database
from mcp_registry.edge.background import job
from mcp_registry.health import maintenance


@job
def lambda_handler(event: Any) -> object:
    raw_days, rollup_days = int(os.environ["RAW_RETENTION_DAYS"]), int(os.environ["ROLLUP_RETENTION_DAYS"])
    return maintenance.run(database, raw_days, rollup_days)._asdict()
