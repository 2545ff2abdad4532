"""Reaching who was registered: a URL in parts, the addresses that may be dialled, and what keeps an answer from coming.

What is asked there, and what an answer means, is decided by who asks: the check of every half minute
(`health.probe`), and the introduction.
"""

from __future__ import annotations

import errno
import ssl
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urljoin

from mcp_registry.dial import exchange, guard, urls
from mcp_registry.dial.exchange import Answer, Dialler
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.lookup import Names

# What an address that swallows packets may take of that, where there is another one to try.
CONNECT_SECONDS = 2.0

REDIRECTS = frozenset({307, 308})
# How many of them within the origin one question follows: as many as httpx, with which `mcp` for Python asks.
MAX_REDIRECTS = 20


class Finding(NamedTuple):
    """What a check came to: the first fields of a result."""

    verdict: str | None
    status: int | None = None
    error: str | None = None


NO_NAME = Finding("dns", None, "The host name does not resolve")
REFUSED = Finding("refused", None, "Nothing listens there: the connection was refused")
UNREACHABLE = Finding("refused", None, "The host cannot be reached")
CLOSED = Finding("refused", None, "The connection was closed before an answer came")

# Errors that are ours: they say nothing about the server.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EAFNOSUPPORT})
FORBIDDEN = frozenset({errno.EPERM, errno.EACCES})
UNREACHED = frozenset({errno.EHOSTUNREACH, errno.EHOSTDOWN})

OWN_EXHAUSTION = Finding(None, None, "The registry had no free sockets or memory to check with")
OWN_RESOLVER = Finding(None, None, "The registry's own resolver cannot be reached")
OWN_NETWORK = Finding(None, None, "The registry has no route to the server's address")
OWN_FIREWALL = Finding(None, None, "The registry's own network forbids this connection")
# ... after which another address of the same name may do.
TRY_ANOTHER = frozenset({REFUSED, UNREACHABLE, OWN_NETWORK})

# Of an answer that is none, by `Answer.fault`.
FAULTS: dict[str | None, str] = {
    exchange.NOT_HTTP: "What answers there is not HTTP",
    exchange.TOO_LONG: "The headers of the answer are longer than 64 KiB",
}

# OpenSSL's X509_V_ERR_* (x509_vfy.h), in words.
CERTIFICATE_FAULTS = {
    9: "The certificate is not valid yet",
    10: "The certificate has expired",
    18: "The certificate is self-signed",
    19: "The certificate's issuer is not known",
    20: "The certificate's issuer is not known",
    21: "The certificate's issuer is not known",
    23: "The certificate was revoked",
    62: "The certificate is for another host name",
    64: "The certificate is for another address",
}
# What OpenSSL says to bytes that are no TLS record.
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})


class Site:
    """Where a target's request goes: its URL in parts, and what the policy says of it without a look-up."""

    __slots__ = ("authority", "fault", "host", "known", "origin", "path", "port", "tls")

    def __init__(self, url: str, policy: Policy) -> None:
        match = urls.URL.fullmatch(url)
        assert match is not None
        scheme = match[1].lower()
        self.tls = scheme == "https"
        self.path = (match[3] or "/") + (match[4] or "")
        # As the owner wrote it, without the port that the scheme implies.
        self.authority = match[2].removesuffix(":443" if self.tls else ":80")
        self.origin = f"{scheme}://{self.authority}"
        self.host = guard.host(url)
        self.port = guard.port(url)
        self.known = guard.known(url)
        self.fault = policy.url_fault(url)


@lru_cache(maxsize=4_096)
def site(url: str, policy: Policy) -> Site:
    """The site of a URL. The same ones come back every half minute, and a quarter of a check was this."""
    return Site(url, policy)


async def locate(site: Site, names: Names, policy: Policy) -> tuple[str, ...] | Finding:
    """The addresses of a site that are dialled, at most two, or why none may or can be."""
    if site.fault:
        return Finding("blocked", None, site.fault)
    if known := site.known:
        # Of an address by itself the URL's check has said all; of localhost, that one of its addresses is open.
        return _candidates([*known] if len(known) == 1 else [a for a in known if not policy.address_fault(a)])
    found = names.known(site.host) or await names.find(site.host)
    if not found.asked:
        return OWN_RESOLVER
    if found.fault:
        return Finding("blocked", None, found.fault)
    return _candidates(found.addresses) if found.addresses else NO_NAME


async def dial(
    dialler: Dialler, site: Site, addresses: tuple[str, ...], request: bytes, answer: Answer, late: Finding
) -> tuple[Finding | None, str]:
    """Fill in the answer, from the first address that can be reached; what was wrong where none can, and who it was.

    `late` is what is said of an address that takes too long. An answer that is cut off is `Answer.fault`'s to tell.
    """
    tls = exchange.verified() if site.tls else None
    failure: Finding | None = None
    address = ""
    for address in addresses:
        patience = None if address is addresses[-1] else CONNECT_SECONDS
        try:
            await dialler.ask(address, site.port, request, answer, tls, site.host, patience)
        except ssl.SSLError as error:
            return _tls_fault(error), address
        except TimeoutError:  # in connecting: the other address may do
            failure = late
        except OSError as error:
            finding = _connection_fault(error, address, late)
            if finding not in TRY_ANOTHER:
                return finding, address
            failure = finding if failure is None or failure.verdict is None else failure
        else:
            return None, address
    return failure, address


def _connection_fault(error: OSError, address: str, late: Finding) -> Finding:
    """What kept a connection to an address from being made. `late` is what is said of one that took too long."""
    number = error.errno
    if number == errno.ECONNREFUSED:
        return REFUSED
    # Without IPv6 this is what dialling an address of it says; with IPv4 it is a lack of ports of our own.
    if number in NO_ROUTE or (number == errno.EADDRNOTAVAIL and ":" in address):
        return OWN_NETWORK
    if number in EXHAUSTED:
        return OWN_EXHAUSTION
    if number in FORBIDDEN:
        return OWN_FIREWALL
    if number in UNREACHED:
        return UNREACHABLE
    return late if number == errno.ETIMEDOUT else CLOSED


def _candidates(addresses: list[str]) -> tuple[str, ...]:
    """The addresses that are dialled, at most two: of each family one, where there are both.

    IPv4 first: where there is no IPv6, as in most functions, it costs nothing; where there is, it is no worse.
    """
    if len(addresses) == 1:
        return (addresses[0],)
    first = next((address for address in addresses if ":" not in address), None)
    second = next((address for address in addresses if ":" in address), None)
    return tuple(addresses[:2]) if first is None or second is None else (first, second)


def redirected(site: Site, path: str, location: bytes | None) -> str | None:
    """The path to which a redirect leads, where it stays within the origin."""
    try:
        url = urljoin(site.origin + path, (location or b"").decode("ascii"))
    except ValueError:
        return None
    if not location or urls.link_fault(url) or urls.origin(url) != urls.origin(site.origin):
        return None
    match = urls.URL.fullmatch(url)
    assert match is not None
    return (match[3] or "/") + (match[4] or "")


def _tls_fault(error: ssl.SSLError) -> Finding:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Finding("tls", None, CERTIFICATE_FAULTS.get(error.verify_code, "The certificate is not valid"))
    if isinstance(error, ssl.SSLEOFError):
        return CLOSED
    if error.reason in NO_TLS:
        return Finding("tls", None, "What answers there is not TLS")
    if "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return Finding("tls", None, "The server asks for a certificate of its clients")
    return Finding("tls", None, "No secure connection could be agreed on")
