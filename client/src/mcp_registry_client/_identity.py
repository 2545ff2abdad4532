"""Who the client is to the registry: the first of a token, its role on AWS, and a user with a password that is taken.

A role has no secret of the registry's: STS signs who it is, for this registry alone and for five minutes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

from mcp_registry_client import _settings

Kind = Literal["token", "role", "password"]

# A token of STS that is good for less is replaced before it is used.
LEAST_SECONDS = 60.0
# One that is older may have ended while this process was frozen: it is got anew before its role is passed over.
FRESH_SECONDS = 30.0
# As mcp_registry_client sends it: mcpr_<id>_<secret>_<checksum>. The id is no secret.
TOKEN_PARTS = 4


class Identity(NamedTuple):
    """What is sent as Authorization, how people are told who that is, and when it ends (time.monotonic)."""

    kind: Kind
    authorization: str
    told: str
    ends: float = math.inf

    def __repr__(self) -> str:
        """Without what is sent: what reports errors writes down the variables of every frame."""
        return f"Identity({self.told!r})"


class NoIdentity(Exception):
    """Nobody has said who we are, for a reason that the message tells."""


class Identities:
    """The identities that there are, in the order in which they are tried.

    For one thread at a time. Whoever the registry does not take is passed over until nobody is left; then it begins
    anew, for what was refused may be taken by then.
    """

    def __init__(self, settings: _settings.Settings, environment: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environment = os.environ if environment is None else environment
        self._kinds: list[Kind] = []
        if settings.token is not None:
            self._kinds.append("token")
        else:
            if settings.registry_url is not None and _is_on_aws(self._environment, settings):
                self._kinds.append("role")
            if settings.credentials is not None:
                self._kinds.append("password")
        self._at = 0
        self._role: Identity | None = None
        self._signed_at = 0.0
        # Why those before the one in use were passed over, for a line in the log.
        self.passed_over: list[str] = []

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._kinds)

    def now(self, seconds: float) -> Identity | None:
        """Who to be now; None where nobody is set. To find out takes so many seconds at most.

        Raises NoIdentity where the role is all there is, and STS says nothing for it.
        """
        while self._at < len(self._kinds):
            kind = self._kinds[self._at]
            if kind == "token":
                return _of_token(self._settings.token or "")
            if kind == "password":
                return _of_password(*(self._settings.credentials or ("", "")))
            try:
                return self._of_role(seconds)
            except NoIdentity as reason:
                if self._at + 1 == len(self._kinds):
                    raise
                self._pass_over(f"AWS signs no token for this role ({reason})")
        return None

    def refuse(self, identity: Identity) -> bool:
        """The registry does not take this identity (401): whether there is another to try."""
        if identity.kind == "role":
            self._role = None
            if time.monotonic() - self._signed_at > FRESH_SECONDS:
                return True
        if self._at + 1 < len(self._kinds):
            self._pass_over(f"the registry does not take {identity.told}")
            return True
        self._at, self.passed_over = 0, []
        return False

    def _pass_over(self, reason: str) -> None:
        self._at += 1
        self.passed_over.append(reason)

    def _of_role(self, seconds: float) -> Identity:
        if self._role is None or self._role.ends - time.monotonic() < LEAST_SECONDS:
            from mcp_registry_client import _aws

            audience = self._settings.audience or self._settings.registry_url or ""
            try:
                signed = _aws.signed_identity(audience, self._environment, seconds)
            except _aws.NotSigned as reason:
                raise NoIdentity(str(reason)) from None
            self._signed_at = time.monotonic()
            self._role = Identity("role", f"Bearer {signed.token}", f"the role {signed.subject}", signed.ends)
        return self._role


def basic(username: str, password: str) -> str:
    """The Authorization of a user and a password (RFC 7617)."""
    from base64 import b64encode

    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def _of_token(token: str) -> Identity:
    parts = token.split("_")
    is_ours = len(parts) == TOKEN_PARTS and parts[0] == "mcpr"
    return Identity("token", f"Bearer {token}", f"the token {parts[1]}" if is_ours else "a token")


def _of_password(username: str, password: str) -> Identity:
    return Identity("password", basic(username, password), f"the user {username}")


def _is_on_aws(environment: Mapping[str, str], settings: _settings.Settings) -> bool:
    """Whether this process has a role on AWS, or somebody has said so by naming an audience for its tokens."""
    if settings.audience is not None:
        return True
    from mcp_registry_client import _aws

    return _aws.is_here(environment)
