"""GET /api/registry/servers -- one page of the catalogue."""

from __future__ import annotations

import json

from mcp_registry.aws.db import database
from mcp_registry.catalogue import listing, servers
from mcp_registry.edge.http import Request, Response, endpoint


@endpoint
def lambda_handler(request: Request) -> Response:
    page = servers.list_page(database(), *listing.parse(request.query))
    # The servers are JSON already; Postgres rendered them.
    told = {"total": page.total, "total_is": "exact" if page.exact else "at_least", "next_cursor": page.next_cursor}
    return Response(f'{{"servers":{page.servers},{json.dumps(told, separators=(",", ":"))[1:]}')
