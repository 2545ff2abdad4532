"""What can go wrong, in the words of the registry.

An error knows its code and its message, which is the first line of its docstring; it knows no HTTP. `http.STATUSES`
gives each code its status.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

# A body of 1 MiB can have 100,000 faults, and telling all of them would exceed the 6 MB that Lambda lets out. Nobody
# mends more than these before trying again.
MAX_FAULTS = 100
# A path holds the client's own keys, which have no limit.
MAX_PATH = 200


class Fault(NamedTuple):
    """One thing that is wrong with the input: where (`tools.0.name`), what, and of which kind."""

    path: str
    message: str
    type: str


class RegistryError(Exception):
    """Internal server error

    `faults` are the first hundred of what is wrong with the input; `retry_after`: in how many seconds the same may
    succeed, where that is known.
    """

    code = "INTERNAL_ERROR"
    retry_after: int | None = None

    def __init__(self, message: str | None = None, faults: Iterable[Fault] = ()) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.faults = tuple(fault._replace(path=fault.path[:MAX_PATH]) for fault in islice(faults, MAX_FAULTS))


class ValidationFailed(RegistryError):
    """Validation failed"""

    code = "VALIDATION_ERROR"


class PayloadTooLarge(RegistryError):
    """The request body is larger than 1 MiB"""

    code = "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(RegistryError):
    """Send JSON with Content-Type: application/json"""

    code = "UNSUPPORTED_MEDIA_TYPE"


class DuplicateServer(RegistryError):
    """Server with this name already exists"""

    code = "DUPLICATE_SERVER"


class ConflictingServer(RegistryError):
    """Another server of this name answers, and offers something else"""

    code = "CONFLICTING_SERVER"


class HeldName(RegistryError):
    """An operator has removed the server of this name and holds the name"""

    code = "HELD_NAME"

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"An operator has removed the server of this name and holds the name for {seconds} seconds more"
        )
        self.retry_after = seconds


class QuotaExceeded(RegistryError):
    """The registry holds as much as it may"""

    code = "QUOTA_EXCEEDED"


class Forbidden(RegistryError):
    """This credential may not do that"""

    code = "FORBIDDEN"


class ServerNotFound(RegistryError):
    """Server not found"""

    code = "SERVER_NOT_FOUND"


class SnapshotNotFound(RegistryError):
    """The server offered nothing like this"""

    code = "SNAPSHOT_NOT_FOUND"


class NotUnderReview(RegistryError):
    """Whatever the server offers is handed out at once: put it under a policy first"""

    code = "NOT_UNDER_REVIEW"


class TeamNotFound(RegistryError):
    """Team not found"""

    code = "TEAM_NOT_FOUND"


class TokenNotFound(RegistryError):
    """Token not found"""

    code = "TOKEN_NOT_FOUND"


class IssuerNotFound(RegistryError):
    """Trusted issuer not found"""

    code = "ISSUER_NOT_FOUND"


class InactiveServer(RegistryError):
    """The server is out of service: nobody asks it anything until an operator puts it back"""

    code = "INACTIVE_SERVER"


class TeamInUse(RegistryError):
    """The team still owns something"""

    code = "TEAM_IN_USE"


class DuplicatePrefix(RegistryError):
    """Another team has a prefix that reads like this one"""

    code = "DUPLICATE_PREFIX"


class RegistrationRequired(RegistryError):
    """No registration has this digest: send the registration itself"""

    code = "REGISTRATION_REQUIRED"


class WrongCronSecret(RegistryError):
    """The header x-cron-secret does not hold the secret that starts a sweep"""

    code = "UNAUTHORIZED"


class NotConfigured(RegistryError):
    """Server configuration error"""


class Unavailable(RegistryError):
    """The registry's database is not available right now: try again in a moment

    `cause` names what happened for the log (an SQLSTATE or an exception's class), never a driver's text: that may
    hold host names and values.
    """

    code = "UNAVAILABLE"
    # Postgres restarts in about a second; so does a client's patience.
    retry_after = 1

    def __init__(self, cause: str) -> None:
        super().__init__()
        self.cause = cause


class Malformed(Exception):
    """A message of our own queues does not have the form that our functions give it. Nobody is answered with it."""
