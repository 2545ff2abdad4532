"""The token by which a function logs in to RDS: its own IAM identity, signed, instead of a password.

What stands here is the signature of AWS (version 4, in the query string) for the one request that RDS wants signed:
"IAM database authentication" in the Amazon RDS User Guide, "Create a signed AWS API request" in the IAM User Guide.
boto3 signs the same, and takes 200 ms of CPU to import where psycopg takes 120 (2026-11-22); a test compares the two.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit

# RDS asks for the token when a connection is made, and for no longer than this.
VALID_SECONDS = 900
SERVICE = "rds-db"
NO_BODY = hashlib.sha256(b"").hexdigest()
# It is asked on this machine, once for each connection to the database.
CREDENTIALS_SECONDS = 1.0


class Credentials(NamedTuple):
    """The function's own identity; `session` is empty where it is not one for a time."""

    key_id: str
    secret: str
    session: str


def credentials(given: Mapping[str, str]) -> Credentials:
    """The credentials of an environment: the variables' own, or those of the address that they name.

    Lambda names an address to what it starts from a snapshot, which may be older than any credentials are valid
    ("Container credential provider" in the AWS SDKs and Tools Reference Guide). Raises KeyError where there are none,
    OSError where the address does not answer.
    """
    address = given.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if "AWS_ACCESS_KEY_ID" in given or address is None:
        return Credentials(
            given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"], given.get("AWS_SESSION_TOKEN", "")
        )
    from http.client import HTTPConnection  # 30 ms, which a snapshot has already (db.settle_snapshots)

    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=CREDENTIALS_SECONDS)
    try:
        authorization = {"Authorization": given["AWS_CONTAINER_AUTHORIZATION_TOKEN"]}
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=authorization)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"credentials were answered {answer.status}")
    found = json.loads(text)
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])


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
    given); `moment` is now unless given. Nothing but the credentials is asked for. Raises what `credentials` raises.
    """
    given = os.environ if environment is None else environment
    now = (moment or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    day, region = now[:8], given["AWS_REGION"]
    scope = f"{day}/{region}/{SERVICE}/aws4_request"
    identity = credentials(given)
    query = {
        "Action": "connect",
        "DBUser": user,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{identity.key_id}/{scope}",
        "X-Amz-Date": now,
        "X-Amz-Expires": str(VALID_SECONDS),
        "X-Amz-SignedHeaders": "host",
    }
    if identity.session:
        query["X-Amz-Security-Token"] = identity.session
    asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
    request = f"GET\n/\n{asked}\nhost:{host}:{port}\n\nhost\n{NO_BODY}"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{identity.secret}".encode()
    for part in (day, region, SERVICE, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{host}:{port}/?{asked}&X-Amz-Signature={key.hex()}"
