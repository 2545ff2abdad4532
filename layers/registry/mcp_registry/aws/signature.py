"""A request to AWS, signed by the function's own identity (version 4): who that is, and the signature.

"Create a signed AWS API request" in the IAM User Guide. boto3 signs the same, and takes 200 ms of CPU to import
(2026-11-22); the tests compare the two.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
# It is asked on this machine, once for each request that is signed.
CREDENTIALS_SECONDS = 1.0


class Credentials(NamedTuple):
    """The function's own identity; `session` is empty where it is not one for a time."""

    key_id: str
    secret: str
    session: str


class Scope(NamedTuple):
    """What a signature is good for: a moment (as 20261130T180000Z), a region and a service."""

    moment: str
    region: str
    service: str

    def __str__(self) -> str:
        """As it stands in a request."""
        return f"{self.moment[:8]}/{self.region}/{self.service}/aws4_request"


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


def headers(
    service: str, path: str, fields: Mapping[str, str], content: bytes, given: Mapping[str, str], moment: datetime
) -> dict[str, str]:
    """The headers of a POST of this content to a path without query, signed as of this moment.

    `fields`: those of the request itself, in lower case, with `host` among them. `given`: an environment with
    credentials and a region, as Lambda gives them. Raises what `credentials` raises, and KeyError where there is no
    region.
    """
    identity = credentials(given)
    region = given["AWS_REGION"] if "AWS_REGION" in given else given["AWS_DEFAULT_REGION"]
    scope = Scope(moment.strftime("%Y%m%dT%H%M%SZ"), region, service)
    named = {**fields, "x-amz-date": scope.moment}
    if identity.session:
        named["x-amz-security-token"] = identity.session
    named = dict(sorted(named.items()))
    lines = "".join(f"{name}:{value}\n" for name, value in named.items())
    names = ";".join(named)
    hexed = signed(identity.secret, scope, f"POST\n{path}\n\n{lines}\n{names}\n{digest(content)}")
    given_by = f"Credential={identity.key_id}/{scope}, SignedHeaders={names}, Signature={hexed}"
    return {**named, "authorization": f"{ALGORITHM} {given_by}"}


def digest(body: bytes) -> str:
    """A body as it stands in a request that is signed."""
    return hashlib.sha256(body).hexdigest()


def signed(secret: str, scope: Scope, request: str) -> str:
    """The signature of a request in canonical form."""
    text = f"{ALGORITHM}\n{scope.moment}\n{scope}\n{digest(request.encode())}"
    key = f"AWS4{secret}".encode()
    for part in (scope.moment[:8], scope.region, scope.service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()
