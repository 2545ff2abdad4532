"""Basic credentials and the cron secret: which are valid, and whether a header holds them.

Imports nothing but built-in modules, since the authorizer stands before every request's cold start: `hmac` and
`base64` would cost 7 and 12 ms (measured 2026-11-22, Python 3.13), so their C halves are used directly.
"""

from __future__ import annotations

import os
from _operator import _compare_digest as compare_digest  # what hmac.compare_digest is
from binascii import a2b_base64, b2a_base64

# A header of more than this is no credential. API Gateway itself stops at 10,240 bytes of headers.
MAX_HEADER_LENGTH = 8_192


class NotConfigured(Exception):
    """No credential is configured, so that none can be right."""


def credentials() -> list[tuple[bytes, bytes]]:
    """The (user name, password) pairs that are valid now, as UTF-8.

    From the secret that REGISTRY_SECRET_ARN names, else from REGISTRY_USERNAME and REGISTRY_PASSWORD. While a
    rotation is under way the secret holds two pairs. Raises NotConfigured where there is none.
    """
    arn = os.environ.get("REGISTRY_SECRET_ARN")
    if arn:
        from mcp_registry.aws import secret  # boto3, 275 ms: only where there is a secret to read

        held = secret.read(arn)
        pairs = [
            (held.get("username", ""), held.get("password", "")),
            (held.get("previous_username", ""), held.get("previous_password", "")),
        ]
    else:
        pairs = [(os.environ.get("REGISTRY_USERNAME", ""), os.environ.get("REGISTRY_PASSWORD", ""))]
    valid = [(username.encode(), password.encode()) for username, password in pairs if username and password]
    if not valid:
        raise NotConfigured
    return valid


def parse(header: str) -> tuple[bytes, bytes] | None:
    """Split an Authorization header into user name and password, or return None where it is not of RFC 7617's form.

    The scheme's case does not matter; the password is everything after the first colon. Base64 is taken strictly:
    an alphabet, a padding or trailing bits that an encoder would not write are refused, so that every credential has
    one spelling.
    """
    scheme, space, token = header.partition(" ")
    if len(header) > MAX_HEADER_LENGTH or scheme.lower() != "basic" or not space:
        return None
    try:
        decoded = a2b_base64(token)
        decoded.decode("utf-8")
    except ValueError:
        return None
    if b2a_base64(decoded, newline=False) != token.encode():
        return None
    username, colon, password = decoded.partition(b":")
    return (username, password) if colon else None


def permits(header: str) -> bool:
    """Whether the header holds valid credentials. Takes the same time wherever the first difference is.

    Raises NotConfigured where no credentials are configured.
    """
    valid = credentials()
    given = parse(header)
    if given is None:
        return False
    permitted = False
    for username, password in valid:
        # No short circuit: how long this takes must not tell which half, or which pair, was right.
        permitted |= compare_digest(given[0], username) & compare_digest(given[1], password)
    return permitted


def trusts(issuer: str) -> bool:
    """Whether administrators may trust this issuer: TRUSTED_ISSUERS says which, and where it names none, they do."""
    named = os.environ.get("TRUSTED_ISSUERS", "").replace(",", " ").split()
    return not named or issuer in named


def permits_job(secret: str) -> bool:
    """Whether this is the cron secret (CRON_SECRET), compared in constant time.

    Raises NotConfigured where there is none: nothing may be right then, not even an empty header.
    """
    configured = os.environ.get("CRON_SECRET", "")
    if not configured:
        raise NotConfigured
    # As bytes: text beyond ASCII cannot be compared in constant time.
    return compare_digest(secret.encode("utf-8", "surrogatepass"), configured.encode("utf-8", "surrogatepass"))
