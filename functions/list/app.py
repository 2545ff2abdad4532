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
    return Response(f'{{"servers":{page.servers},"total":{page.total},"next_cursor":{json.dumps(page.next_cursor)}}}')
