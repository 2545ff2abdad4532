"""Structured logs: the owner of Powertools.

One JSON line a request. What stands in it is chosen here, field by field: never a header, a body, a query string, a
credential or a driver's message.
"""

from __future__ import annotations

import traceback

from aws_lambda_powertools.logging import Logger

logger = Logger()


def log_request(
    request_id: str, method: str, resource: str, status: int, milliseconds: float, code: str | None
) -> None:
    """Log one answered request; `code` is the error's code, None for a success."""
    logger.set_correlation_id(request_id)
    logger.info(
        "request", method=method, resource=resource, status=status, duration_ms=round(milliseconds, 1), code=code
    )


def log_unavailable(request_id: str, cause: str) -> None:
    """Log that the database could not be used; `cause` is an SQLSTATE or an exception's class."""
    logger.set_correlation_id(request_id)
    logger.warning("database unavailable", cause=cause)


def log_defect(request_id: str, error: BaseException) -> None:
    """Log an exception that nobody expected: its class and where it came from.

    Not its message and not the values in its frames, which may hold what a client sent or where the database is.
    """
    logger.set_correlation_id(request_id)
    frames = traceback.extract_tb(error.__traceback__)
    logger.error(
        "unexpected exception",
        exception_class=f"{type(error).__module__}.{type(error).__qualname__}",
        exception_frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    )
