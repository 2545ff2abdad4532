"""URLs as the registry takes them, by the rules of its `urls` and `guard`: a fault is said before anything is sent.

Strict on purpose: an endpoint is dialled later by another program, and a spelling that two parsers read in two ways
would be registered as one server and checked as another. A test holds both sides to one table of URLs.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import Final

MAX_LENGTH: Final = 2_048

# scheme "://" authority path-and-rest, as RFC 3986 has it, over printable ASCII.
URL: Final = re.compile(r"(?i:(https?))://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
PRINTABLE: Final = re.compile(r"[!-~]*")
# RFC 3986 lists what a URL may hold; these are the printable characters that it may not.
UNSAFE: Final = re.compile(r'["<>\\^`{|}]')
BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
MAX_HOST_LENGTH: Final = 253
# A last label that begins like a number makes getaddrinfo read the whole host as an IPv4 address.
NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
OCTET: Final = re.compile(r"0|[1-9][0-9]{0,2}")
DOT_SEGMENT: Final = re.compile(r"/(?:\.|%2[eE]){1,2}(?=/|$)")

# Ports that no registry dials, whatever its settings: something else than MCP over HTTP answers there.
PORTS: Final = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
        *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179),
        *(389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636),
        *(989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061),
        *(6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
        *(2000, 2773, 4317, 4318, 9001),
        *(2375, 2376, 2377, 2379, 2380, 6443, 10248, 10249, 10250, 10255, 10256, 10257, 10259),
        *(445, 873, 3389, 5900, 5985, 5986),
        *(1433, 1521, 3306, 5432, 5439, 5984, 6379, 6380, 9042, 9200, 9300, 11211),
        *(27017, 27018, 27019),
        *(2181, 4222, 4369, 5671, 5672, 9092, 25672),
    )
)
IMPLIED: Final = {"http": 80, "https": 443}


def endpoint_fault(url: str) -> str | None:
    """Why a URL cannot be the address of a server, in one sentence; None where it can."""
    if fault := link_fault(url):
        return fault
    path, query, fragment = _matched(url).groups()[2:]
    if query is not None or fragment is not None:
        return "An endpoint has no query and no fragment: health checks append to its path"
    return "The path may not hold '.' or '..' segments" if DOT_SEGMENT.search(path) else None


def health_fault(url: str, endpoint: str) -> str | None:
    """Why a URL cannot be the health URL of a server whose endpoint is valid; None where it can.

    Absolute with the endpoint's host, on whatever port, or a path on its origin that starts with one slash.
    """
    if url.startswith("/") and not url.startswith("//"):
        url = origin(endpoint) + url
    elif fault := link_fault(url):
        return f"{fault} (or give a path that starts with '/')"
    elif host(url) != host(endpoint):
        return "The health URL must have the host of the server's own URL; its port may be another one"
    if fault := link_fault(url):
        return fault
    match = _matched(url)
    if match[5] is not None:
        return "The health URL has no fragment"
    return "The path may not hold '.' or '..' segments" if DOT_SEGMENT.search(match[3]) else None


def link_fault(url: str) -> str | None:
    """Why a URL cannot be a link to the web, in one sentence; None where it can."""
    if len(url) > MAX_LENGTH:
        return f"A URL has at most {MAX_LENGTH} characters"
    if not PRINTABLE.fullmatch(url):
        return "A URL has printable ASCII characters only: percent-encode others, and write host names in punycode"
    if UNSAFE.search(url) or BROKEN_ESCAPE.search(url):
        return "The URL holds a character or an escape that URLs do not have"
    match = URL.fullmatch(url)
    if match is None:
        return "The URL must start with http:// or https://"
    if "@" in match[2]:
        return "The URL may not hold a user name or a password"
    authority = AUTHORITY.fullmatch(match[2])
    if authority is None:
        return "The host or the port is not valid"
    name, number = authority.groups()
    if number is not None and not 0 < int(number) < 65_536:
        return "The port must be a number from 1 to 65535"
    return _host_fault(name)


def port_fault(url: str) -> str | None:
    """Why the registry never dials the port of a valid URL, in one sentence; None where it may."""
    number = port(url)
    return f"Port {number} belongs to another protocol than MCP over HTTP" if number in PORTS else None


def origin(url: str) -> str:
    """Scheme, host and port of a valid URL, in lower case, without the port that the scheme implies."""
    match = _matched(url)
    scheme = match[1].lower()
    return f"{scheme}://{match[2].lower().removesuffix(f':{IMPLIED[scheme]}')}"


def host(url: str) -> str:
    """The host of a valid URL, in lower case, without brackets and without the dot at the end."""
    return _authority(url)[1].strip("[]").removesuffix(".").lower()


def port(url: str) -> int:
    """The port of a valid URL, the one of its scheme where it names none."""
    return int(_authority(url)[2] or IMPLIED[_matched(url)[1].lower()])


def path(url: str) -> str:
    """The path of a valid URL, with its query."""
    match = _matched(url)
    return (match[3] or "/") + (match[4] or "")


def is_secure(url: str) -> bool:
    """Whether a valid URL is one of https."""
    return _matched(url)[1].lower() == "https"


def is_loopback(name: str) -> bool:
    """Whether a host means this very machine (RFC 6761, section 6.3, and the addresses themselves)."""
    if name.rpartition(".")[2] == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_overheard(url: str) -> bool:
    """Whether what is sent to a URL can be read on the way; not where it is none."""
    return link_fault(url) is None and not is_secure(url) and not is_loopback(host(url))


def _matched(url: str) -> re.Match[str]:
    match = URL.fullmatch(url)
    assert match is not None
    return match


def _authority(url: str) -> re.Match[str]:
    authority = AUTHORITY.fullmatch(_matched(url)[2])
    assert authority is not None
    return authority


def _host_fault(name: str) -> str | None:
    if name.startswith("["):
        return _ipv6_fault(name[1:-1])
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_HOST_LENGTH or not all(LABEL.fullmatch(label) for label in labels):
        return "The host is not a valid name"
    if NUMBER.fullmatch(labels[-1]):
        octets = len(labels) == 4 and all(OCTET.fullmatch(label) and int(label) < 256 for label in labels)
        if not octets or name.endswith("."):
            return "An IPv4 address is written as four decimal numbers: 192.0.2.1"
    return None


def _ipv6_fault(text: str) -> str | None:
    try:
        # A zone (%eth0) means something on one machine only.
        valid = "%" not in text and IPv6Address(text)
    except AddressValueError:
        valid = False
    return None if valid else "The IPv6 address in brackets is not valid"
