"""How often an address may be wrong: after too many wrong credentials passwords from there are not compared any more.

All wrong credentials count, and passwords alone are refused for it: a token can be guessed by nobody, and is looked at
all the same (`admission`). By address and never by name, so that nobody can lock the owner of a name out from
elsewhere; and a password that this execution environment has seen to be right goes on being compared, so that neither
is who shares an address with a guesser. All of it is in memory and bounded: each environment counts for itself.

Imports built-in modules only, for the authorizer (`auth`).
"""

from __future__ import annotations

WRONG_A_MINUTE = 20
MINUTE = 60.0
# For so long a credential is remembered to have been right.
RIGHT_SECONDS = 3600.0
# Of each, the ones that were used last. An address takes 1 KB at most.
MAX_ADDRESSES = 1_000
MAX_RIGHT = 1_000

# When somebody at a network was wrong, the last times; when a credential, by its digest, was right.
_wrong: dict[bytes, list[float]] = {}
_right: dict[bytes, float] = {}


def is_closed(address: str, credential: bytes, now: float) -> bool:
    """Whether too many were wrong here for a password to be compared, unless this credential, by its digest, was right.

    `now`: seconds of any clock.
    """
    times = _wrong.get(_network(address), [])
    if len(times) < WRONG_A_MINUTE or now - times[0] >= MINUTE:
        return False
    seen = _right.get(credential)
    return seen is None or now - seen >= RIGHT_SECONDS


def note_wrong(address: str, now: float) -> None:
    """Count a wrong credential."""
    network = _network(address)
    times = _wrong.pop(network, [])
    _wrong[network] = [*times[1 - WRONG_A_MINUTE :], now]
    if len(_wrong) > MAX_ADDRESSES:
        del _wrong[next(iter(_wrong))]


def note_right(credential: bytes, now: float) -> None:
    """Remember that a credential, by its digest, is right."""
    _right.pop(credential, None)
    _right[credential] = now
    if len(_right) > MAX_RIGHT:
        del _right[next(iter(_right))]


def forget() -> None:
    """Begin anew, as an execution environment that has seen nothing yet."""
    _wrong.clear()
    _right.clear()


def _network(address: str) -> bytes:
    """What counts as one address: of IPv6 the /64, which is what one customer has to choose from."""
    if ":" not in address:
        return address.encode()
    from _socket import AF_INET6, inet_pton  # what socket.inet_pton is

    try:
        packed = inet_pton(AF_INET6, address)
    except (OSError, ValueError):
        return address.encode()
    return packed if packed.startswith(bytes(10) + b"\xff\xff") else packed[:8]  # ::ffff:192.0.2.1 is IPv4
