"""Every minute: tell an event bus what changed since the last time, of what somebody should know at once."""

from __future__ import annotations

import os
from typing import Any

from mcp_registry.aws.db import database
from mcp_registry.edge.background import job
from mcp_registry.ledger import publishing


@job
def lambda_handler(event: Any) -> object:
    published = publishing.run(database(), os.environ["EVENT_BUS"], os.environ["REGISTRY_URL"])
    return {"published": published}
