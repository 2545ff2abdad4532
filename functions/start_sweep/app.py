"""POST /api/jobs/health-check -- start a sweep now, for who knows the cron secret."""

from __future__ import annotations

from http import HTTPStatus

from mcp_registry.access import auth
from mcp_registry.aws.db import database
from mcp_registry.edge.http import Request, Response, endpoint
from mcp_registry.errors import NotConfigured, WrongCronSecret
from mcp_registry.health import sweeps


@endpoint
def lambda_handler(request: Request) -> Response:
    try:
        permitted = auth.permits_job(request.headers.get("x-cron-secret", ""))
    except auth.NotConfigured:
        raise NotConfigured from None
    if not permitted:
        raise WrongCronSecret
    slot = sweeps.now(database())
    return Response(sweeps.start(database(), slot).report(), HTTPStatus.ACCEPTED)
