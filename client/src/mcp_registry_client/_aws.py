"""Who this process is on AWS, in a token that STS has signed: GetWebIdentityToken of the AWS STS API Reference.

The credentials are taken from where AWS puts them ("Standardized credential providers" in the AWS SDKs and Tools
Reference Guide): the environment (Lambda), the container's address (ECS, EKS), the instance's (EC2), and where they
are in none of these, from botocore, if it is installed. The request is our own. To import botocore and have it make a
client takes half a second of a whole core, which a function that starts has not; and many runtimes have one that does
not know this call yet.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from mcp_registry_client import _transport
from mcp_registry_client._json import mapping, parsed, text

# The shortest that STS signs is a minute, the longest an hour.
DURATION_SECONDS: Final = 300
# Verifying it takes the registry a third of what ES384 does, which STS offers besides.
ALGORITHM: Final = "RS256"
VERSION: Final = "2011-06-15"
LAMBDA_OR_CONTAINER: Final = (
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
# What the virtual machine says of who made it ("Detect whether a host is an EC2 instance" in the EC2 User Guide).
VENDOR: Final = Path("/sys/devices/virtual/dmi/id/board_vendor")
EC2_VENDOR: Final = "Amazon EC2"
INSTANCE: Final = "http://169.254.169.254/latest"
CONTAINER: Final = "http://169.254.170.2"
# Those addresses answer at once or not at all.
METADATA_SECONDS: Final = 1.0
TOKEN: Final = re.compile(r"<WebIdentityToken>\s*([A-Za-z0-9_.-]+)\s*</WebIdentityToken>")
CODE: Final = re.compile(r"<Code>\s*([A-Za-z0-9.]{1,100})\s*</Code>")
# What to do about what STS says, where that can be said.
ADVICE: Final = {
    "AccessDenied": "its role may not call sts:GetWebIdentityToken",
    "OutboundWebIdentityFederationDisabledException": "the account has outbound identity federation switched off",
    "OutboundWebIdentityFederationDisabled": "the account has outbound identity federation switched off",
    "ExpiredToken": "its credentials are over",
}


class NotSigned(Exception):
    """There is no token, for a reason that the message tells."""


class Signed(NamedTuple):
    """A token, whom it is about (an ARN), and when it ends (time.monotonic)."""

    token: str
    subject: str
    ends: float

    def __repr__(self) -> str:
        """Without the token."""
        return f"Signed({self.subject!r})"


class Credentials(NamedTuple):
    """Those of a role: a key, its secret, and the token of the session, empty where there is none."""

    key_id: str
    secret: str
    session: str

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Credentials({self.key_id!r})"


def is_here(environment: Mapping[str, str]) -> bool:
    """Whether this is a function, a container or a machine of AWS, which may have a role. Asks nobody."""
    if any(environment.get(name) for name in LAMBDA_OR_CONTAINER):
        return True
    with suppress(OSError, ValueError):
        return VENDOR.read_text("ascii").strip() == EC2_VENDOR
    return False


def signed_identity(audience: str, environment: Mapping[str, str], seconds: float) -> Signed:
    """Have STS sign who this is, for whoever is named as the audience. Raises NotSigned."""
    deadline = _transport.Deadline(seconds)
    try:
        credentials = _credentials(environment, deadline)
        region = _region(environment, deadline)
        body = urlencode(
            {
                "Action": "GetWebIdentityToken",
                "Version": VERSION,
                "Audience.member.1": audience,
                "SigningAlgorithm": ALGORITHM,
                "DurationSeconds": str(DURATION_SECONDS),
            },
            quote_via=quote,
        ).encode()
        url = _endpoint(environment, region)
        asked = time.monotonic()
        headers = signature_headers(credentials, region, url, body, time.time())
        answer = _transport.request("POST", url, headers=headers, body=body, deadline_seconds=deadline.left())
    except _transport.Failed as failed:
        raise NotSigned(f"STS cannot be asked: {failed}") from None
    said = answer.body.decode("utf-8", "replace")
    token = TOKEN.search(said)
    if answer.status != 200 or token is None:
        code = CODE.search(said)
        reason = code[1] if code else f"HTTP {answer.status}"
        raise NotSigned(f"{ADVICE[reason]} ({reason})" if reason in ADVICE else f"STS answers {reason}")
    return Signed(token[1], _subject(token[1]), asked + DURATION_SECONDS)


def signature_headers(credentials: Credentials, region: str, url: str, body: bytes, moment: float) -> dict[str, str]:
    """The headers of a POST of a form to a service's root, signed as of this moment (seconds since 1970).

    "Create a signed AWS API request" in the IAM User Guide, version 4; the tests compare it with botocore's.
    """
    import hashlib
    import hmac

    target = _transport.Target.of(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))
    scope = f"{stamp[:8]}/{region}/sts/aws4_request"
    named = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "host": target.authority,
        "x-amz-date": stamp,
    }
    if credentials.session:
        named["x-amz-security-token"] = credentials.session
    lines = "".join(f"{name}:{value}\n" for name, value in named.items())
    names = ";".join(named)
    request = f"POST\n{target.path}\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    signed = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in (stamp[:8], region, "sts", "aws4_request", signed):
        key = hmac.digest(key, part.encode(), "sha256")
    given = f"Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {
        **{name: value for name, value in named.items() if name != "host"},
        "Authorization": f"AWS4-HMAC-SHA256 {given}",
    }


def _endpoint(environment: Mapping[str, str], region: str) -> str:
    """STS of this region: there is no such call at its global address. The variables are those of AWS's own SDKs."""
    given = environment.get("AWS_ENDPOINT_URL_STS") or environment.get("AWS_ENDPOINT_URL")
    if given:
        return given.rstrip("/") + "/"
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://sts.{region}.{suffix}/"


def _region(environment: Mapping[str, str], deadline: _transport.Deadline) -> str:
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not region:
        region = _of_instance("meta-data/placement/region", deadline)
    if not region or not re.fullmatch(r"[a-z0-9-]{1,40}", region):
        raise NotSigned("nobody says in which region this is: set AWS_REGION")
    return region


def _credentials(environment: Mapping[str, str], deadline: _transport.Deadline) -> Credentials:
    """The credentials of this process, from wherever they are."""
    if environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"):
        return Credentials(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            environment.get("AWS_SESSION_TOKEN", ""),
        )
    relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    address = f"{CONTAINER}{relative}" if relative else environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if address:
        return _held(_asked("GET", address, _container_headers(environment), deadline))
    if not environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        role = _of_instance("meta-data/iam/security-credentials/", deadline).partition("\n")[0].strip()
        if role:
            return _held(_of_instance(f"meta-data/iam/security-credentials/{quote(role)}", deadline))
    return _of_botocore()


def _container_headers(environment: Mapping[str, str]) -> dict[str, str]:
    token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if file := environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        try:
            token = Path(file).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            raise NotSigned(f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read ({type(error).__name__})") from None
    return {"Authorization": token} if token else {}


def _of_instance(path: str, deadline: _transport.Deadline) -> str:
    """What the instance's own address says (IMDSv2); empty where there is none."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _asked("PUT", f"{INSTANCE}/api/token", lifetime, deadline)
    if not token:
        return ""
    return _asked("GET", f"{INSTANCE}/{path}", {"X-aws-ec2-metadata-token": token}, deadline)


def _asked(method: str, url: str, headers: Mapping[str, str], deadline: _transport.Deadline) -> str:
    """What an address of this machine answers; empty where it does not."""
    seconds = min(METADATA_SECONDS, deadline.left())
    try:
        answer = _transport.request(method, url, headers=headers, deadline_seconds=seconds)
    except _transport.Failed:
        return ""
    return answer.body.decode("utf-8", "replace") if answer.status == 200 else ""


def _held(said: str) -> Credentials:
    """The credentials in what such an address answers."""
    found = mapping(parsed(said.encode()))
    key_id, secret = text(found.get("AccessKeyId")), text(found.get("SecretAccessKey"))
    if not (key_id and secret):
        raise NotSigned("the address that its credentials are at gives none")
    return Credentials(key_id, secret, text(found.get("Token")))


def _of_botocore() -> Credentials:
    """Credentials that are kept in another way, as by a profile or by EKS's roles for service accounts."""
    try:
        from botocore.session import Session
    except ImportError:
        raise NotSigned("it has no credentials of AWS that are found without botocore") from None
    try:
        found: Any = Session().get_credentials()
        frozen: Any = found and found.get_frozen_credentials()
    except Exception as error:  # noqa: BLE001 - what botocore raises has no common class
        raise NotSigned(f"botocore finds no credentials ({type(error).__name__})") from None
    if not frozen:
        raise NotSigned("it has no credentials of AWS")
    return Credentials(str(frozen.access_key), str(frozen.secret_key), str(frozen.token or ""))


def _subject(token: str) -> str:
    """Whom a token is about, for a line in a log. Nobody relies on it: the signature is for the registry to verify."""
    from base64 import urlsafe_b64decode

    payload = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        said = mapping(parsed(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except ValueError:
        said = {}
    subject = text(said.get("sub"))
    return subject if subject.isprintable() and 0 < len(subject) <= 300 else "of this process"
