"""URLs in a registration: is this a URL at all, and one that every parser reads the same way?

Strict on purpose. An endpoint is dialled later by a program, and a spelling on which two parsers disagree is how a
request is sent somewhere else than the check believed. Which *addresses* may be dialled is not decided here.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

MAX_LENGTH = 2_048

# scheme "://" authority path-and-rest, as RFC 3986 has it, over printable ASCII.
URL = re.compile(r"(?i:(https?))://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
PRINTABLE = re.compile(r"[!-~]*")
# What a URL may hold (RFC 3986): no quotation mark, none of <>\^`{|}.
ALLOWED = re.compile(r"[!#-;=?-\[\]_a-z~]*")
BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
UNSAFE = "The URL holds a character or an escape that URLs do not have"
AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
# Underscores are no host name characters (RFC 1123), but DNS carries them and real hosts have them.
LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
MAX_HOST_LENGTH = 253
# A last label that begins like a number makes getaddrinfo and browsers read the whole host as an IPv4 address.
NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
OCTET = re.compile(r"0|[1-9][0-9]{0,2}")
DOT_SEGMENT = re.compile(r"/(?:\.|%2[eE]){1,2}(?=/|$)")
# git@host:path, the form in which `git remote -v` prints a repository.
SCP = re.compile(r"[A-Za-z0-9._-]+@([A-Za-z0-9.-]+):(?!//)[!-~]+")


def endpoint_fault(url: str) -> str | None:
    """Why a URL cannot be the address of a server, in one sentence; None where it can."""
    fault, match = _link(url)
    if match is None:
        return fault
    _, _, path, query, fragment = match.groups()
    if query is not None or fragment is not None:
        return "An endpoint has no query and no fragment: health checks append to its path"
    if DOT_SEGMENT.search(path):
        return "The path may not hold '.' or '..' segments"
    return None


def health_fault(url: str, endpoint: str) -> str | None:
    """Why a URL cannot be the health URL of a server whose endpoint is valid; None where it can.

    Absolute with the endpoint's host, on whatever port, or a path on its origin that starts with one slash.
    """
    if url.startswith("/") and not url.startswith("//"):
        url = origin(endpoint) + url
    elif fault := link_fault(url):
        return f"{fault} (or give a path that starts with '/')"
    elif _host(url) != _host(endpoint):
        return "The health URL must have the host of endpoint_url; its port may be another one"
    if fault := link_fault(url):
        return fault
    match = URL.fullmatch(url)
    assert match is not None
    if match[5] is not None:
        return "The health URL has no fragment"
    return "The path may not hold '.' or '..' segments" if DOT_SEGMENT.search(match[3]) else None


def repository_fault(url: str) -> str | None:
    """Why a text cannot be the address of a repository (a web address, or git@host:path); None where it can."""
    if scp := SCP.fullmatch(url):
        return _host_fault(scp[1])
    return link_fault(url)


def link_fault(url: str) -> str | None:
    """Why a URL cannot be a link to the web, in one sentence; None where it can."""
    return _link(url)[0]


def _link(url: str) -> tuple[str, None] | tuple[None, re.Match[str]]:
    """What `link_fault` says, or the parts of the URL."""
    if not ALLOWED.fullmatch(url):
        if PRINTABLE.fullmatch(url):
            return UNSAFE, None
        return (
            "A URL has printable ASCII characters only: percent-encode others, and write host names in punycode",
            None,
        )
    if "%" in url and BROKEN_ESCAPE.search(url):
        return UNSAFE, None
    match = URL.fullmatch(url)
    if match is None:
        return "The URL must start with http:// or https://", None
    if "@" in match[2]:
        return "The URL may not hold a user name or a password", None
    authority = AUTHORITY.fullmatch(match[2])
    if authority is None:
        return "The host or the port is not valid", None
    host, port = authority.groups()
    if port is not None and not 0 < int(port) < 65_536:
        return "The port must be a number from 1 to 65535", None
    fault = _host_fault(host)
    return (None, match) if fault is None else (fault, None)


def _host(url: str) -> str:
    match = URL.fullmatch(url)
    authority = match and AUTHORITY.fullmatch(match[2])
    assert authority is not None
    return authority[1].lower().removesuffix(".")


def origin(url: str) -> str:
    """Scheme, host and port of a valid URL, in lower case, without the port that the scheme implies."""
    match = URL.fullmatch(url)
    assert match is not None
    scheme, authority = match[1].lower(), match[2].lower()
    implied = ":80" if scheme == "http" else ":443"
    return f"{scheme}://{authority.removesuffix(implied)}"


def _host_fault(host: str) -> str | None:
    if host.startswith("["):
        return _ipv6_fault(host[1:-1])
    if len(host) > MAX_HOST_LENGTH or not NAME.fullmatch(host):
        return "The host is not a valid name"
    labels = host.removesuffix(".").split(".")
    if NUMBER.fullmatch(labels[-1]):
        octets = len(labels) == 4 and all(OCTET.fullmatch(label) and int(label) < 256 for label in labels)
        if not octets or host.endswith("."):
            return "An IPv4 address is written as four decimal numbers: 192.0.2.1"
    return None


def _ipv6_fault(text: str) -> str | None:
    try:
        # A zone (%eth0) means something on one machine only.
        valid = "%" not in text and IPv6Address(text)
    except AddressValueError:
        valid = False
    return None if valid else "The IPv6 address in brackets is not valid"
