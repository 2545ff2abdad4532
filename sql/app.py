"""The migrations, as a custom resource of CloudFormation: run by a deployment, before the functions change.

What CloudFormation asks and wants to be told: AWS CloudFormation User Guide, "Custom resource request types" and
"response objects". A resource that is never answered for holds the deployment up until its ServiceTimeout, so every
way out of here is an answer.
"""

from __future__ import annotations

# The standard library only. What a layer holds is imported where a failure of it is answered: a layer for another
# processor, or a broken one, would otherwise hold the deployment up for a quarter of an hour.
import contextlib
import json
import os
import time
from datetime import UTC, datetime
from typing import Any
from urllib.request import Request, urlopen

# A database that was made a moment ago may not let anybody in yet.
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = 3.0
# CloudFormation refuses an answer of more than 4 KiB.
MAX_REASON = 1000
ANSWER_TRIES = 3


class NoDatabase(Exception):
    """The database cannot be asked; the message does not quote its address, which may hold a password."""


def lambda_handler(event: dict[str, Any], context: Any) -> None:
    """Migrate the database of DATABASE_URL and tell CloudFormation how that ended."""
    try:
        status, reason = "SUCCESS", _outcome(event["RequestType"])
    except Exception as error:  # noqa: BLE001 - whatever it is, the deployment has to hear of it
        status, reason = "FAILED", f"{type(error).__name__}: {error}"
    # One line, in the log too: it says why a deployment has failed. Whether or not anybody takes the log.
    with contextlib.suppress(OSError):
        # Level and time as Lambda reads them: it takes a line without both for INFO.
        told = {"level": "INFO" if status == "SUCCESS" else "ERROR", "timestamp": datetime.now(UTC).isoformat()}
        print(json.dumps({**told, "message": "migration", "status": status, "reason": reason}))
    _answer(event, status, reason[:MAX_REASON])


def _outcome(request_type: str) -> str:
    if request_type == "Delete":
        return "the database stays as it is"
    import migrate

    try:
        applied = _migrated()
    except migrate.DatabaseIsNewer as error:
        # A deployment that failed later goes back to this code. It runs on the newer schema: migrations only expand.
        if request_type == "Update":
            return f"nothing to do, {error}"
        raise
    return ", ".join(f"applied {name}" for name in applied) or "up to date"


def _migrated() -> list[str]:
    import migrate
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from mcp_registry.aws.db import conninfo

    by_token = os.environ.get("DATABASE_ACCESS") == "iam"
    try:
        conninfo_to_dict(os.environ["DATABASE_URL"])
    except psycopg.ProgrammingError:
        # libpq quotes what it cannot read.
        raise NoDatabase(
            "DATABASE_URL is no connection string: write special characters of a password as %XX"
        ) from None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return migrate.migrate(conninfo(os.environ), by_token=by_token)
        except psycopg.OperationalError as error:
            # With a state it was the database that answered. Otherwise the host may be a part of a password that is
            # not escaped, and is quoted only where there is none.
            if error.sqlstate is not None:
                raise
            if time.monotonic() > deadline:
                raise NoDatabase(
                    f"the database does not answer: {error if by_token else 'is DATABASE_URL right, and reachable?'}"
                ) from None
            time.sleep(PAUSE_SECONDS)


def _answer(event: dict[str, Any], status: str, reason: str) -> None:
    body = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    # The same for all of them: a new one would have CloudFormation delete the old one.
    body |= {"Status": status, "Reason": reason, "PhysicalResourceId": "migrations"}
    # The address is signed for a request without a content type.
    request = Request(event["ResponseURL"], json.dumps(body).encode(), {"Content-Type": ""}, method="PUT")  # noqa: S310
    for attempt in range(1, ANSWER_TRIES + 1):
        try:
            with urlopen(request, timeout=30):  # noqa: S310 - CloudFormation's own address
                return
        except OSError:
            if attempt == ANSWER_TRIES:
                raise
            time.sleep(PAUSE_SECONDS)
