"""The token by which a function logs in to RDS: its own IAM identity, signed, instead of a password.

It is the signature of the one request that RDS wants signed, in the query string: "IAM database authentication" in the
Amazon RDS User Guide. boto3 makes the same, and takes 200 ms of CPU to import where psycopg takes 120 (2026-11-22); a
test compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from mcp_registry.aws import signature

# RDS asks for the token when a connection is made, and for no longer than this.
VALID_SECONDS = 900
SERVICE = "rds-db"


def sign(
    host: str,
    port: int,
    user: str,
    *,
    environment: Mapping[str, str] | None = None,
    moment: datetime | None = None,
) -> str:
    """The password with which `user` connects to the database at `host` and `port`, within the next 15 minutes.

    `environment` holds the credentials of the function and its region, as Lambda gives them (the process's own unless
    given); `moment` is now unless given. Nothing but the credentials is asked for. Raises what
    `signature.credentials` raises.
    """
    given = os.environ if environment is None else environment
    now = (moment or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = signature.Scope(now, given["AWS_REGION"], SERVICE)
    identity = signature.credentials(given)
    query = {
        "Action": "connect",
        "DBUser": user,
        "X-Amz-Algorithm": signature.ALGORITHM,
        "X-Amz-Credential": f"{identity.key_id}/{scope}",
        "X-Amz-Date": now,
        "X-Amz-Expires": str(VALID_SECONDS),
        "X-Amz-SignedHeaders": "host",
    }
    if identity.session:
        query["X-Amz-Security-Token"] = identity.session
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    request = f"GET\n/\n{asked}\nhost:{host}:{port}\n\nhost\n{signature.digest(b'')}"
    return f"{host}:{port}/?{asked}&X-Amz-Signature={signature.signed(identity.secret, scope, request)}"
