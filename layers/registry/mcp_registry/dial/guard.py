"""The guard against server-side request forgery: which addresses may be registered, and which may be dialled.

One policy for both. A registration is judged once, by its URL and by what its name means that day; each dial judges
the addresses that it is about to connect to, because a name may mean something else by then.

The table of networks is ours. `ipaddress.is_global` changes from one Python to the next and lets things through:
3.11 takes 6to4 (2002::/16) for global, 3.13.0 does so with 3fff::/20, and each takes multicast for it (2026-11-22).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache, lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from mcp_registry.dial import urls

if TYPE_CHECKING:
    from threading import Thread

OPEN = "GUARD_OPEN_CIDRS"
CLOSED = "GUARD_CLOSED_CIDRS"

# How long a registration waits for its name, and how many look-ups may be on their way at once. A resolver that hangs
# keeps its thread for its own patience, 20 s and more; a registration that finds these threads busy waits for none.
SECONDS = 1.0
MAX_LOOK_UPS = 4

# ------------------------------------------------------------------ networks

HIDDEN = "an IPv4 address hidden in IPv6"
LINK_LOCAL = "a link-local address, where cloud metadata lives"
LOOPBACK = "the loopback"
METADATA = "a cloud's metadata service"
MULTICAST = "a multicast address"
PRIVATE = "a private address"
RESERVED = "a reserved address"
UNSPECIFIED = "the unspecified address, which is this very machine"
DOCUMENTATION = "a documentation address"
BENCHMARK = "an address of network benchmarks"
PROTOCOL = "an address that the IETF keeps for its protocols"
ANYCAST = "an address that many networks share for one service"
OUTSIDE = "an address outside the public IPv6 internet"
ZONED = "one with a zone, which means something on one machine only"
BY_OPERATOR = "an address that the operator of this registry has closed"

# Kinds that no setting opens. Metadata and link-local addresses hand out the credentials of who asks, and Lambda's own
# services live among the latter. The rest reach this very machine or everybody, or leave it to somebody else's
# translator which IPv4 address is meant.
NEVER = frozenset({HIDDEN, LINK_LOCAL, METADATA, MULTICAST, RESERVED, UNSPECIFIED})

# The first network that holds an address decides, so that exceptions stand before the network around them. IANA:
# iana-ipv4-special-registry, iana-ipv6-special-registry (RFC 6890, RFC 8190; as of 2025-10-09), multicast and reserved
# space of ipv4-address-space and ipv6-address-space. What the first two call globally reachable is closed too: only
# protocols live there.
NETWORKS = (
    # Addresses outside link-local at which a cloud answers its own machines.
    ("100.100.100.200/32", METADATA),  # Alibaba
    ("168.63.129.16/32", METADATA),  # Azure
    ("192.0.0.192/32", METADATA),  # Oracle
    ("fd00:ec2::/32", METADATA),  # AWS: metadata, DNS, time, credentials of EKS
    ("fd00:42::42/128", METADATA),  # Scaleway
    ("fd00:100::100:200/128", METADATA),  # Alibaba
    ("fd00:a9fe:a9fe::1/128", METADATA),  # Akamai
    ("fd00:c1::a9fe:a9fe/128", METADATA),  # Oracle
    ("fd20:ce::254/128", METADATA),  # Google
    # IPv4
    ("0.0.0.0/8", UNSPECIFIED),  # RFC 791
    ("10.0.0.0/8", PRIVATE),  # RFC 1918
    ("100.64.0.0/10", PRIVATE),  # RFC 6598, behind a carrier's NAT; AWS and Tailscale number private hosts from it
    ("127.0.0.0/8", LOOPBACK),  # RFC 1122
    ("169.254.0.0/16", LINK_LOCAL),  # RFC 3927
    ("172.16.0.0/12", PRIVATE),  # RFC 1918
    ("192.0.0.0/24", PROTOCOL),  # RFC 6890
    ("192.0.2.0/24", DOCUMENTATION),  # RFC 5737
    ("192.31.196.0/24", ANYCAST),  # RFC 7535, AS112
    ("192.52.193.0/24", ANYCAST),  # RFC 7450, AMT
    ("192.88.99.0/24", ANYCAST),  # RFC 7526, relays of 6to4
    ("192.168.0.0/16", PRIVATE),  # RFC 1918
    ("192.175.48.0/24", ANYCAST),  # RFC 7534, AS112
    ("198.18.0.0/15", BENCHMARK),  # RFC 2544
    ("198.51.100.0/24", DOCUMENTATION),  # RFC 5737
    ("203.0.113.0/24", DOCUMENTATION),  # RFC 5737
    ("224.0.0.0/4", MULTICAST),  # RFC 5771
    ("240.0.0.0/4", RESERVED),  # RFC 1112, and the broadcast address (RFC 919)
    # IPv6. What holds an IPv4 address is closed whole: which one, and who unwraps it, cannot be known here. A network
    # that translates by a prefix of its own choice (RFC 6052, section 2.2) names it in GUARD_CLOSED_CIDRS.
    ("::/128", UNSPECIFIED),  # RFC 4291
    ("::1/128", LOOPBACK),  # RFC 4291
    ("::/96", HIDDEN),  # RFC 4291, IPv4-compatible
    ("::ffff:0:0/96", HIDDEN),  # RFC 4291, IPv4-mapped
    ("::ffff:0:0:0/96", HIDDEN),  # RFC 7915, IPv4-translated
    ("64:ff9b::/96", HIDDEN),  # RFC 6052, NAT64
    ("64:ff9b:1::/48", HIDDEN),  # RFC 8215, NAT64 of a network's own
    ("2001::/32", HIDDEN),  # RFC 4380, Teredo
    ("2001::/23", PROTOCOL),  # RFC 2928: benchmarks, ORCHID, AMT, AS112, drones
    ("2001:db8::/32", DOCUMENTATION),  # RFC 3849
    ("2002::/16", HIDDEN),  # RFC 3056, 6to4
    ("2620:4f:8000::/48", ANYCAST),  # RFC 7534, AS112
    ("3fff::/20", DOCUMENTATION),  # RFC 9637
    ("fc00::/7", PRIVATE),  # RFC 4193
    ("fe80::/10", LINK_LOCAL),  # RFC 4291
    ("fec0::/10", PRIVATE),  # RFC 3879, site-local
    ("ff00::/8", MULTICAST),  # RFC 4291
)
# The only IPv6 that is routed (RFC 4291, section 2.4). Whatever IANA sets aside outside it is closed without a row.
GLOBAL_UNICAST = "2000::/3"


class Network:
    """A network as numbers: comparing them takes half the time of `address in network`.

    Written out, because a NamedTuple here took 0.9 of the millisecond that the import then was (2026-11-22).
    """

    __slots__ = ("first", "kind", "last", "version")

    def __init__(self, cidr: str, kind: str = "") -> None:
        """`cidr` as the table and the settings have it; raises ValueError where it is no network."""
        network = (IPv6Network if ":" in cidr else IPv4Network)(cidr)
        self.version: int = network.version
        self.first = int(network.network_address)
        self.last = int(network.broadcast_address)
        self.kind = kind

    def holds(self, version: int, value: int) -> bool:
        """Whether the address is in the network."""
        return self.version == version and self.first <= value <= self.last

    def surrounds(self, other: Network) -> bool:
        """Whether the whole of the other network is in this one."""
        return self.holds(other.version, other.first) and other.last <= self.last


@cache
def _networks() -> tuple[tuple[Network, ...], Network]:
    """The table, and global unicast. Made at first use: a cold start that judges no address does not pay for it."""
    return tuple(Network(cidr, kind) for cidr, kind in NETWORKS), Network(GLOBAL_UNICAST)


@cache
def _bounds(version: int) -> tuple[tuple[int, int, str], ...]:
    """The table's rows of this version of IP: first and last address, and kind."""
    return tuple((row.first, row.last, row.kind) for row in _networks()[0] if row.version == version)


# ------------------------------------------------------------------ ports

# Ports on which something else than an MCP server answers, or takes a request for commands. No setting opens them: who
# opens a private network does not mean its databases. Ports from 7000 to 8999 and the round ones (3000, 4000, 5000,
# 9000) are where MCP servers live, whoever else does. None is above 32767, where systems hand out ports by chance.
PORTS = frozenset(
    {
        # Fetch standard of the WHATWG, "port blocking": what no browser asks either.
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
        *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179),
        *(389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636),
        *(989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061),
        *(6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
        *(2000, 2773, 4317, 4318, 9001),  # Lambda: X-Ray, parameters and secrets, telemetry, the runtime API
        *(2375, 2376, 2377, 2379, 2380, 6443, 10248, 10249, 10250, 10255, 10256, 10257, 10259),  # Docker, etcd, kube
        *(445, 873, 3389, 5900, 5985, 5986),  # files and desktops: SMB, rsync, RDP, VNC, WinRM
        *(1433, 1521, 3306, 5432, 5439, 5984, 6379, 6380, 9042, 9200, 9300, 11211),  # databases and caches
        *(27017, 27018, 27019),  # MongoDB
        *(2181, 4222, 4369, 5671, 5672, 9092, 25672),  # queues, and what coordinates them
    }
)
IMPLIED = {"http": 80, "https": 443}

# ------------------------------------------------------------------ names

# Last labels that mean something inside one network only, if anything. `.example` is not one of them: what stands in
# documentation is copied into a first registration, and leads nowhere.
INTERNAL = frozenset(
    {
        *("alt", "arpa", "invalid", "local", "onion", "test"),  # RFC 9476, 8375 (home.arpa), 6761, 6762, 7686, 6761
        *("corp", "home", "internal", "intranet", "lan", "mail", "private"),  # RFC 6762 appendix G; ICANN keeps them so
        *("consul", "docker", "localdomain", "localnet", "svc", "workgroup"),  # habits, delegated to nobody
    }
)
# Names by which a machine reaches services of its own platform. No setting opens them: a look-up from here may find
# nothing where one from inside finds credentials.
PLATFORM = frozenset(
    {
        *("metadata", "metadata.goog", "metadata.tencentyun.com", "instance-data", "rancher-metadata"),
        *("sandbox", "sandbox.localdomain"),  # Lambda's services, to those inside
    }
)
PLATFORM_LABELS = frozenset({"metadata", "instance-data"})  # of metadata.google.internal, instance-data.ec2.internal

# RFC 6761, section 6.3: these names are the loopback, and no resolver is asked.
LOCALHOST = ("127.0.0.1", "::1")


def host(url: str) -> str:
    """The host of a valid URL, in lower case, without brackets and without the dot at the end."""
    return _authority(url)[0]


def port(url: str) -> int:
    """The port of a valid URL, the one of its scheme where it names none."""
    return _authority(url)[1]


def literal(url: str) -> str | None:
    """The host of a valid URL where it is an address, without brackets; None where it is a name."""
    name = host(url)
    return name if _is_literal(name) else None


def known(url: str) -> tuple[str, ...]:
    """The addresses of a valid URL's host that no resolver has to be asked for; none where one has to."""
    return _known(host(url))


@lru_cache(maxsize=256)  # each of its readers asks for the same one
def _authority(url: str) -> tuple[str, int]:
    match = urls.URL.fullmatch(url)
    assert match is not None
    authority = urls.AUTHORITY.fullmatch(match[2])
    assert authority is not None
    name, number = authority.groups()
    return name.strip("[]").removesuffix(".").lower(), int(number or IMPLIED[match[1].lower()])


def _is_literal(name: str) -> bool:
    # Of names that look like numbers, `urls` lets IPv4 addresses pass only.
    return ":" in name or urls.NUMBER.fullmatch(_last(name)) is not None


def _known(name: str) -> tuple[str, ...]:
    if _is_literal(name):
        return (name,)
    return LOCALHOST if _last(name) == "localhost" else ()


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_platform(name: str) -> bool:
    first, _, rest = name.partition(".")
    return name in PLATFORM or (first in PLATFORM_LABELS and _last(rest) == "internal")


def _is_internal(name: str) -> bool:
    return "." not in name or _last(name) in INTERNAL


# ------------------------------------------------------------------ the policy


class Policy:
    """Which addresses are open: the table, with what the operator opens and closes."""

    def __init__(self, opened: tuple[Network, ...] = (), closed: tuple[Network, ...] = ()) -> None:
        """`opened` are networks of the table that may be dialled; `closed` are more that may not, and win."""
        self._opened = opened
        self._closed = closed

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Policy:
        """The policy that the settings name. Raises ValueError where one of them is not right."""
        return _policy(environment.get(OPEN, ""), environment.get(CLOSED, ""))

    def url_fault(self, url: str) -> str | None:
        """Why a valid endpoint may not be registered or dialled, as far as that needs no look-up; None where it may.

        localhost passes where one of its two addresses is open: `address_fault` says which.
        """
        name, number = _authority(url)
        if number in PORTS:
            return f"Port {number} belongs to another protocol than MCP over HTTP"
        if addresses := _known(name):
            faults = [self._fault("The host is", address) for address in addresses]
            return faults[0] if all(faults) else None
        if _is_platform(name):
            return f"The host is {METADATA}, or a service of the machine itself"
        if not self._opened and _is_internal(name):
            return (
                f"Such a name exists inside one network only; the operator of this registry can open that with {OPEN}"
            )
        return None

    def address_fault(self, address: str) -> str | None:
        """Why an address may not be dialled, in one sentence; None where it may.

        `address` is text as a resolver gives it. One with a zone (fe80::1%eth0) is never open.
        """
        return self._fault("The address is", address)

    def _fault(self, subject: str, address: str) -> str | None:
        text, zoned, _ = address.partition("%")
        try:
            parsed = IPv6Address(text) if ":" in text else IPv4Address(text)
        except AddressValueError:
            return "What stands for the address is not one"
        kind = self._kind(parsed.version, int(parsed)) or (zoned and ZONED)
        if not kind:
            return None
        openable = kind not in NEVER and kind != BY_OPERATOR and not zoned
        return f"{subject} {kind}" + (f"; the operator of this registry can open it with {OPEN}" if openable else "")

    def _kind(self, version: int, value: int) -> str | None:
        """What closes an address; None where nothing does."""
        kind = next((kind for first, last, kind in _bounds(version) if first <= value <= last), None)
        if version == 6:
            if kind is None and not _networks()[1].holds(version, value):
                kind = OUTSIDE
            # ISATAP (RFC 5214): any prefix, then 0000:5efe or 0200:5efe, then an IPv4 address.
            if kind not in NEVER and value >> 32 & 0xFDFF_FFFF == 0x0000_5EFE:
                kind = HIDDEN
        if kind in NEVER:
            return kind
        if any(network.holds(version, value) for network in self._closed):
            return BY_OPERATOR
        if kind and any(network.holds(version, value) for network in self._opened):
            return None
        return kind


def policy() -> Policy:
    """The policy of this process. Kept for as long as the settings are the same, which in Lambda is for good."""
    return Policy.of(os.environ)


@cache
def _policy(opened: str, closed: str) -> Policy:
    opened_networks = _parse(OPEN, opened)
    for text, network in opened_networks.items():
        first = next((row for row in _networks()[0] if row.surrounds(network)), None)
        if first and first.kind in NEVER:
            raise ValueError(f"{OPEN}: {text} can never be opened, because it is {first.kind}")
    return Policy(tuple(opened_networks.values()), tuple(_parse(CLOSED, closed).values()))


def _parse(setting: str, value: str) -> dict[str, Network]:
    """The networks of a setting, by their text. A bare address is none: forgetting /8 would go unnoticed."""
    found: dict[str, Network] = {}
    for text in filter(None, (part.strip() for part in value.split(","))):
        _, _, length = text.partition("/")
        try:
            if "%" in text or not (length.isascii() and length.isdigit()):
                raise ValueError(text)
            found[text] = Network(text)
        except ValueError:
            raise ValueError(f"{setting}: {text!r} is not a network such as 10.0.0.0/8 or fd00::/8") from None
    return found


# ------------------------------------------------------------------ the look-up of a registration

_look_ups: list[Thread] = []


def look_up_fault(url: str, policy: Policy) -> str | None:
    """Why the name of an endpoint that `url_fault` passed may not be registered, in one sentence; None where it may.

    The name is looked up once, and one closed address among its answers is enough: a client tries them in turn. A
    name without an answer in time passes, because a server may be registered before its name exists; nothing is
    dialled that has no address, and each dial checks again. The sentence does not tell the address: who may register
    a name would else read the internal DNS by it.
    """
    name, number = _authority(url)
    if _known(name):
        return None
    faults = (policy._fault("The name leads to", address) for address in _look_up(name, number))
    return next(filter(None, faults), None)


def _look_up(name: str, number: int) -> list[str]:
    """The addresses of a name, by the system's resolver; none where there is no answer in time.

    getaddrinfo knows no deadline, so it runs in a thread that nobody waits for any longer than that.
    """
    # Here, because the prober loads this module too and brings its own resolver.
    import socket
    from threading import Thread

    found: list[str] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(name, number, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: what Python's IDNA makes of a name
            return
        found.extend(sorted({str(answer[4][0]) for answer in answers}))

    # An execution environment answers one request at a time, so nobody else counts between these lines.
    _look_ups[:] = [thread for thread in _look_ups if thread.is_alive()]
    if len(_look_ups) >= MAX_LOOK_UPS:
        return []
    thread = Thread(target=ask, name="look-up", daemon=True)
    _look_ups.append(thread)
    thread.start()
    thread.join(SECONDS)
    return [] if thread.is_alive() else found
