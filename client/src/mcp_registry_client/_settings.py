"""What the environment says: where the registry is, who registers, and where clients reach the server."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

REGISTRY_URL = "MCP_REGISTRY_URL"
USERNAME = "MCP_REGISTRY_USERNAME"
PASSWORD = "MCP_REGISTRY_PASSWORD"  # noqa: S105 - the name of the variable
TOKEN = "MCP_REGISTRY_TOKEN"  # noqa: S105 - likewise
AUDIENCE = "MCP_REGISTRY_AUDIENCE"
ENDPOINT_URL = "MCP_ENDPOINT_URL"


# The routes of a registry, which people give for its address.
ROUTES = re.compile(r"(?<=[^/])/api(?:/registry(?:/servers|/register)?)?$")
# What is said instead of such a URL.
AMBIGUOUS = "an address with an @ behind its first slash (write that as %40)"


class Settings(NamedTuple):
    """Where the registry is, and what is said to it. What is not set, or empty, is None."""

    registry_url: str | None = None  # without a slash at its end
    username: str | None = None
    password: str | None = None
    endpoint_url: str | None = None
    token: str | None = None
    # Whom a token of AWS is for; the registry's URL where it is None.
    audience: str | None = None

    @property
    def credentials(self) -> tuple[str, str] | None:
        """Name and password, where either is set."""
        if self.username is None and self.password is None:
            return None
        return self.username or "", self.password or ""

    def __repr__(self) -> str:
        """Without password and token: what reports errors writes down the variables of every frame."""
        return f"Settings(registry_url={self.registry_url!r}, endpoint_url={self.endpoint_url!r})"


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a process; of this one where none is given.

    Credentials in the registry's URL are taken out of it, for it stands in logs. Those in variables go before them.
    """
    given = os.environ if environment is None else environment

    def value(name: str) -> str | None:
        return given.get(name, "").strip() or None

    url, username, password = _parted(value(REGISTRY_URL) or "")
    return Settings(
        registry_url=base_of(url) or None,
        username=value(USERNAME) or username,
        # White space may belong to a password.
        password=given.get(PASSWORD) or password,
        endpoint_url=value(ENDPOINT_URL),
        token=value(TOKEN),
        audience=value(AUDIENCE),
    )


def at(url: str, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings for a registry that is named otherwise.

    Where it is another than the environment's, it is given neither the credentials in that one's URL nor a token of AWS
    that is good there. Variables of their own (user, password, token) are whoever's that is asked.
    """
    given = os.environ if environment is None else environment
    own = from_environment(given)
    if own.registry_url in (None, url):
        return own._replace(registry_url=url)
    return from_environment({**given, REGISTRY_URL: url, AUDIENCE: ""})


def base_of(url: str) -> str:
    """The address of a registry, whether that is given or the address of its API: 'http://host' for 'http://host/api/'."""
    return ROUTES.sub("", url.rstrip("/"))


def _parted(url: str) -> tuple[str, str | None, str | None]:
    """A URL without credentials, and the credentials.

    Where an @ follows the first slash, nobody knows whether it belongs to the path or to a password that is not quoted:
    then the URL is none, and is not repeated.
    """
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    end = next((place for place, character in enumerate(rest) if character in "/?#"), len(rest))
    if "@" in rest[end:]:
        return AMBIGUOUS, None, None
    credentials, at, host = rest[:end].rpartition("@")
    if not at:
        return url, None, None
    from urllib.parse import unquote

    username, _, password = credentials.partition(":")
    return scheme + separator + host + rest[end:], unquote(username) or None, unquote(password) or None
