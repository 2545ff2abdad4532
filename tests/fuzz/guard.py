"""The guard against the resolver itself: no spelling of a closed address gets past the one and is read by the other.

A URL is made of an address in one of the ways in which some program somewhere writes one. What the guard passes is
read as programs read hosts, and given to getaddrinfo and inet_aton: no answer of theirs may be a closed address. What
is closed is asked of three: of the guard's own table; of lists that stand here, written from the RFCs and registries
that they name and not from that table; and of this Python's `ipaddress`, which knows nothing of either.

Needs the standard library only, so that every Python of the machine can run it:
`python -m tests.fuzz.guard SEED COUNT`. A run beyond scale 1 draws its seed and prints it; FUZZ_SEED sets one.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from mcp_registry.dial import guard, urls
from mcp_registry.dial.guard import GLOBAL_UNICAST, NETWORKS, OPEN, Policy
from tests.proof import FAR, Line, at_most, not_tried

ROOT = Path(__file__).parent.parent.parent
SEED = 20261122  # of scale 1, so that `make test` does the same each time
SEED_VARIABLE = "FUZZ_SEED"
SPELLINGS = 15_000  # times scale; 2.5 s on one of 2 busy cores (2026-11-23)
SHOWN = 3
# Where the promise holds: 3.13 is Lambda's, 3.11 the oldest that is taken.
PYTHONS = ("3.11", "3.12", "3.13")

# What an operator may open.
OPENED = {
    "default": (),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "fd00::/8"),
    # Under these, only what may never be open is closed.
    "all of IPv4": ("0.0.0.0/0",),
    "all of IPv6": ("::/0",),
}


@cache
def policies() -> dict[str, tuple[Policy, tuple[str, ...]]]:
    """Each with what it opens. Made when it is asked for: a guard that takes none of them is a line, not a crash."""
    return {name: (Policy.of({OPEN: ",".join(opened)}), opened) for name, opened in OPENED.items()}


# ------------------------------------------------------------------ what is closed, by others than the guard

# Where a cloud answers its own machines, as its own documentation has it. An operator opens none of them.
METADATA = (
    "169.254.169.254",  # nearly all: AWS, Azure, Google, Oracle, DigitalOcean, Hetzner, OpenStack
    *("169.254.169.253", "169.254.169.123", "169.254.170.2", "169.254.170.23"),  # AWS: DNS, time, ECS, EKS
    *("fd00:ec2::254", "fd00:ec2::253", "fd00:ec2::123", "fd00:ec2::23"),  # AWS, the same by IPv6
    "168.63.129.16",  # Azure, "What is IP address 168.63.129.16?"
    "192.0.0.192",  # Oracle, the metadata of its classic machines
    "fd00:c1::a9fe:a9fe",  # Oracle, "Instance metadata" by IPv6
    *("100.100.100.200", "fd00:100::100:200"),  # Alibaba, "Instance metadata"
    "fd20:ce::254",  # Google, "Query VM metadata" of machines that have IPv6 only
    *("169.254.42.42", "fd00:42::42"),  # Scaleway, "Instance metadata"
    "fd00:a9fe:a9fe::1",  # Akamai (Linode), "Metadata service"
)
# Nor what is one machine's, one link's or everybody's.
NEVER = (
    *("0.0.0.0/8", "::/128"),  # RFC 1122, section 3.2.1.3 (this host); RFC 4291, section 2.5.2 (unspecified)
    *("169.254.0.0/16", "fe80::/10"),  # RFC 3927; RFC 4291, section 2.5.6 (link-local)
    *("224.0.0.0/4", "ff00::/8"),  # RFC 5771; RFC 4291, section 2.7 (multicast)
    "240.0.0.0/4",  # RFC 1112, section 4 (reserved), with RFC 919's broadcast address
)
# What else IANA sets aside: iana-ipv4-special-registry and iana-ipv6-special-registry, both as of 2025-10-09. Whole,
# though a few rows are globally reachable: anycast services of protocols live there, and no servers.
SPECIAL = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
    *("100.64.0.0/10", "127.0.0.0/8"),  # RFC 6598; RFC 1122, section 3.2.1.3
    *("192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32"),  # RFC 6890, 7335, 7600, ...
    *("192.0.0.170/32", "192.0.0.171/32"),  # RFC 8880
    *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # RFC 5737, documentation
    *("192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24"),  # RFC 7535, 7450, 7526, 7534
    "198.18.0.0/15",  # RFC 2544
    "::1/128",  # RFC 4291, section 2.5.3
    *("100::/64", "100:0:0:1::/64"),  # RFC 6666, 9780
    *("2001::/23", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128"),  # RFC 2928, 7723, 8155, 9665
    *("2001:2::/48", "2001:3::/32", "2001:4:112::/48"),  # RFC 5180, 7450, 7535
    *("2001:10::/28", "2001:20::/28", "2001:30::/28"),  # RFC 4843, 7343, 9374
    *("2001:db8::/32", "3fff::/20"),  # RFC 3849, 9637, documentation
    *("2620:4f:8000::/48", "5f00::/16"),  # RFC 7534, 9602
    *("fc00::/7", "fec0::/10"),  # RFC 4193, 3879
)
# RFC 4291, section 2.4, and iana-ipv6-unicast-address-assignments: what else is unicast is given to nobody.
UNICAST = "2000::/3"
# How an IPv6 address begins that holds an IPv4 one, in hexadecimal digits.
HIDING = (
    *("0" * 24, "0" * 20 + "ffff"),  # ::a.b.c.d and ::ffff:a.b.c.d: RFC 4291, section 2.5.5
    "0" * 16 + "ffff0000",  # ::ffff:0:a.b.c.d: RFC 2765, section 2.1
    *("0064ff9b" + "0" * 16, "0064ff9b0001"),  # NAT64: RFC 6052, section 2.1; RFC 8215
    *("20010000", "2002"),  # Teredo: RFC 4380, section 2.6; 6to4: RFC 3056, section 2
)


@lru_cache(maxsize=4_096)  # each of five policies asks
def never_open(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one that no operator may open."""
    return str(address) in METADATA or _is_in(address, NEVER) or _holds_ipv4(address)


@lru_cache(maxsize=4_096)
def is_closed(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is none of the public internet's, by IANA or by what this Python knows."""
    if not address.is_global or address.is_multicast or address.is_unspecified or address.is_reserved:
        return True
    return _is_in(address, SPECIAL) or (address.version == 6 and not _is_in(address, (UNICAST,)))


def _holds_ipv4(address: IPv4Address | IPv6Address) -> bool:
    """Whether an IPv4 address is hidden in another one, by the bits that the RFCs draw."""
    if address.version == 4:
        return False
    # `::` and `::1` only look like the first of the forms.
    if address.packed.hex().startswith(HIDING) and int(address) > 1:
        return True
    return address.packed[8:12] in (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # RFC 5214, section 6.1 (ISATAP)


def _is_in(address: IPv4Address | IPv6Address, cidrs: tuple[str, ...]) -> bool:
    return any(address in network for network in map(_network, cidrs) if network.version == address.version)


@cache
def _network(cidr: str) -> Any:
    return ip_network(cidr)


def oracle(address: str, opened: tuple[str, ...] = ()) -> bool:
    """Whether an address is closed, where the operator has opened some networks. A zone is never open."""
    parsed = ip_address(address.partition("%")[0])
    if "%" in address or never_open(parsed):
        return True
    return not _is_in(parsed, opened) and is_closed(parsed)


# ------------------------------------------------------------------ what is spelled

# Addresses that everybody attacks, and one of each form in which an IPv4 address hides; the edges of all networks are
# spelled besides.
FAMOUS = (
    *("127.0.0.1", "10.0.0.1", "0.0.0.0", "255.255.255.255", "192.168.0.1", "1.1.1.1", "8.8.8.8"),
    *("::1", "::", "fe80::1", "fec0::1", "4000::1", "2606:4700::1111"),
    *("::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe"),
    *("2001:0:7f00:1::1", "2002:7f00:1::", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a9fe:a9fe"),
)
EMBEDDED = (
    *("::ffff:{}", "::{}", "::ffff:0:{}", "64:ff9b::{}", "64:ff9b:1::{}", "2606:4700::5efe:{}", "fe80::5efe:{}"),
    *("0:0:0:0:0:ffff:{}", "0000::ffff:{}", "::FFFF:{}", "2606:4700::200:5efe:{}"),
)
DIGITS = (
    "０１２３４５６７８９",  # full width
    "٠١٢٣٤٥٦٧٨٩",  # Arabic-Indic
    "०१२३४५६७८९",  # Devanagari
    "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗",  # mathematical
    "⓪①②③④⑤⑥⑦⑧⑨",  # circled
    "⁰¹²³⁴⁵⁶⁷⁸⁹",  # superscript
)
DOTS = ("。", "．", "｡", "․", "‧")  # look-alikes of the full stop; the first three are dots to IDNA
ZONES = ("%lo", "%25lo", "%1", "%251", "%", "%25", "%eth0", "%0")
FRAMES = (
    *("{}", "{}", "{}", "{}", "{}", "{}.", "{}..", ".{}", "[{}]", "[{}].", "[{}", "{}]", "%5B{}%5D", "[v1.{}]"),
    *("{}%00.example.com", "{}%2f.example.com", "{}%2e", "{}%20", "{}.example.com", "0.{}", "0x.{}", "{}.0", "{}.0x"),
    *("example.com@{}", "{}@example.com", "user:{}@{}", "{},example.com", "{};example.com", "{}&example.com"),
    *("example.com\\@{}", "{}\\.example.com", "example.com#@{}", "{}#@example.com", "example.com%40{}", "-{}", "{}-"),
    *(" {}", "{} ", "\t{}", "{}\r\n", "\u00ad{}", "{}\u200b", "{}_", "_{}", "+{}", "{}e0", "{}u", "{}L", "0b{}"),
)
PLAIN_SCHEMES = ("http://", "https://")
PLAIN_ENDS = ("", "/", ":8080/mcp", "./mcp", ".:443/")
SCHEMES = ("http://", "http://", "http://", "https://", "HTTP://", "http:/", "http:", "//", "http:\\\\", "hTTps://")
ENDS = ("", "/", ":80", ":8080/mcp", ":0080/", ":+80/", ":80:80/", ":", "/mcp", ":65536/", ":٨٠/", "?", "#", "\\", "//")


class Found(NamedTuple):
    """What came of a run on one Python."""

    version: str
    spellings: int
    closed: int  # of them, how many the resolver reads as a closed address
    passed: int  # of them, how many the guard passed
    bypasses: list[str]


def prove(scale: int) -> list[Line]:
    """On the running Python; in longer runs on each of `PYTHONS` that this machine has."""
    count = SPELLINGS * min(scale, FAR)
    if scale == 1:
        return _judged(run(_seed(SEED), count))
    seed = _seed(random.SystemRandom().getrandbits(32))
    print(f"guard: {SEED_VARIABLE}={seed} tries these spellings again", file=sys.stderr, flush=True)
    here = ".".join(platform.python_version_tuple()[:2])
    lines = _judged(run(seed, count))
    pythons = dict(others())
    for version in PYTHONS:
        if version == here:
            continue
        what = f"Python {version}: closed addresses passed by the guard"
        if version not in pythons:
            lines.append(not_tried(what, "<= 0", f"this machine has no Python {version}"))
            continue
        try:
            lines += _judged(_elsewhere(pythons[version], seed, count))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            lines.append(Line(what, "<= 0", f"ended by {str(error).strip().rpartition(chr(10))[2][:50]}", met=False))
    return lines


def _seed(otherwise: int) -> int:
    return int(os.environ.get(SEED_VARIABLE) or otherwise)


def _judged(found: Found) -> list[Line]:
    for told in found.bypasses[:SHOWN]:
        print(f"bypass on {found.version}: {told}", file=sys.stderr)
    # A generator whose spellings nobody understands would prove nothing, nor would a guard that passes none.
    closed, passed = found.spellings // 20, found.spellings // 50
    return [
        at_most(
            f"Python {found.version}: closed addresses passed by the guard in {found.spellings} spellings",
            0,
            len(found.bypasses),
        ),
        Line(
            f"Python {found.version}: spellings that mean something",
            f">= {closed} led to closed ones, >= {passed} passed",
            f"{found.closed}, {found.passed}",
            found.closed >= closed and found.passed >= passed,
        ),
    ]


def run(seed: int, count: int) -> Found:
    """So many spellings on this Python."""
    closed = passed = 0
    bypasses: list[str] = []
    for text, url in spellings(random.Random(seed), count):
        closed += any(oracle(read) for host in {text, *hosts(url)} for read in resolved(host))
        for name, (policy, opened) in policies().items():
            if (told := bypass(url, policy, opened)) is not None:
                bypasses.append(f"{name}: {url!r} is read as {told}")
            if (told := misread(text, policy, opened)) is not None:
                bypasses.append(f"{name}: the address {text!r} is read as {told}")
        passed += passes(url, policies()["default"][0])
    return Found(platform.python_version(), count, closed, passed, bypasses)


# ------------------------------------------------------------------ the property


def passes(url: str, policy: Policy) -> bool:
    """Whether a URL may be registered, as far as that needs no look-up."""
    return urls.endpoint_fault(url) is None and policy.url_fault(url) is None


def bypass(url: str, policy: Policy, opened: tuple[str, ...] = ()) -> str | None:
    """What closed address somebody reads in a URL that passes; None where nobody does, or where it does not pass."""
    if not passes(url, policy):
        return None
    for host in hosts(url):
        if host.removesuffix(".").lower().rpartition(".")[2] == "localhost":
            continue  # passes where one of its two addresses is open; the dial judges each
        for address in resolved(host):
            if policy.address_fault(address) is not None or oracle(address, opened):
                return f"{address} (by the host {host!r})"
    return None


def misread(text: str, policy: Policy, opened: tuple[str, ...] = ()) -> str | None:
    """What somebody else reads in a text that may be dialled: a closed address, another one, or none at all."""
    if policy.address_fault(text) is not None:
        return None
    try:
        meant = ip_address(text)
    except ValueError:
        return "no address, by this Python"
    if oracle(text, opened):
        return f"{meant}, which is closed"
    read = resolved(text)
    closed = [address for address in read if policy.address_fault(address) is not None or oracle(address, opened)]
    if closed or {ip_address(address) for address in read} != {meant}:
        return ", ".join(closed or sorted(read) or ["nothing"])
    return None


def hosts(url: str) -> set[str]:
    """What readers of URLs take for the host: the guard, urllib, and who decodes what is escaped in it."""
    found: set[str] = set()
    with suppress(ValueError):
        found.add(urlsplit(url).hostname or "")
    if urls.endpoint_fault(url) is None:
        found.add(guard.host(url))
    # Everything between the slashes, after the last @, before the port: what a careless program takes.
    authority = url.partition("//")[2].partition("/")[0].rpartition("@")[2]
    found |= {authority, authority.rpartition(":")[0], *(unquote(host) for host in set(found))}
    return found - {""}


@lru_cache(maxsize=64)  # each policy asks for the same few
def resolved(host: str) -> frozenset[str]:
    """The addresses that the system makes of a text without asking anybody; none where it is a name or nothing."""
    found: set[str] = set()
    for text in {host, host.removesuffix(".")}:
        # UnicodeError is what Python's IDNA makes of some, ValueError what it makes of NUL.
        with suppress(OSError, UnicodeError, ValueError):
            answers = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            found |= {str(answer[4][0]) for answer in answers}
        with suppress(OSError, UnicodeError, ValueError):
            found.add(socket.inet_ntoa(socket.inet_aton(text)))
    return frozenset(found)


# ------------------------------------------------------------------ how it is spelled


@cache
def _edges() -> tuple[IPv4Address | IPv6Address, ...]:
    found = [ip_address(text) for text in (*FAMOUS, *METADATA)]
    # Those of the guard too: a row with which it closes more than it must has edges of its own.
    for cidr in dict.fromkeys((*NEVER, *SPECIAL, UNICAST, *(cidr for cidr, _ in NETWORKS), GLOBAL_UNICAST)):
        network = ip_network(cidr)
        kind = type(network[0])
        numbers = (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1)
        found += [kind(number) for number in numbers if 0 <= number < 2**network.max_prefixlen]
    return tuple(dict.fromkeys(found))


def spellings(chance: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """So many (text, URL): at first each edge in plain dress, which is never left to chance, then what chance makes."""
    plain = [(text, f"http://[{text}]/" if ":" in text else f"http://{text}/") for text in map(str, _edges())]
    yield from plain[:count]
    yield from (spelled(chance, some_address(chance)) for _ in range(count - len(plain)))


def some_address(chance: random.Random) -> IPv4Address | IPv6Address:
    """An address at an edge of the table, or any."""
    if chance.random() < 0.7:
        return chance.choice(_edges())
    return IPv4Address(chance.getrandbits(32)) if chance.random() < 0.7 else IPv6Address(chance.getrandbits(128))


def spelled(chance: random.Random, address: IPv4Address | IPv6Address) -> tuple[str, str]:
    """(text, URL) that spell an address in one of many ways; many of them no program understands."""
    text = _ipv4(chance, address) if isinstance(address, IPv4Address) else _ipv6(chance, address)
    # Most in plain dress: what is odd twice is refused for the first oddity.
    if chance.random() < 0.4:
        return text, f"{chance.choice(PLAIN_SCHEMES)}{f'[{text}]' if ':' in text else text}{chance.choice(PLAIN_ENDS)}"
    match chance.randrange(8):
        case 0:
            digits = chance.choice(DIGITS)
            share = chance.choice((0.3, 1.0))
            text = "".join(
                digits[int(each)] if each in "0123456789" and chance.random() < share else each for each in text
            )
        case 1:
            text = text.replace(".", chance.choice(DOTS), chance.choice((1, -1)))
        case 2:
            place = chance.randrange(len(text))
            text = f"{text[:place]}%{ord(text[place]) & 255:02x}{text[place + 1 :]}"
        case 3:
            text += chance.choice(ZONES)
        case _:
            pass
    frame = chance.choice(FRAMES)
    bracketed = ":" in text and "[" not in frame and chance.random() < 0.8
    text = frame.replace("{}", f"[{text}]" if bracketed else text)
    return text, chance.choice(SCHEMES) + text + chance.choice(ENDS)


def _ipv4(chance: random.Random, address: IPv4Address) -> str:
    if chance.random() < 0.25:
        return chance.choice(EMBEDDED).format(address)
    if chance.random() < 0.3:
        return str(address)
    parts = chance.choice((1, 1, 2, 3, 4, 4))
    packed = address.packed
    # As inet_aton reads it: the last part takes the bytes that are left.
    numbers = [*packed[: parts - 1], int.from_bytes(packed[parts - 1 :])]
    spelled = [_number(chance, number) for number in numbers]
    if chance.random() < 0.1:  # beyond a byte or a word, which some programs cut off
        spelled[-1] = str(numbers[-1] + chance.choice((2**8, 2**16, 2**32, 2**64)))
    return ".".join(spelled)


def _number(chance: random.Random, number: int) -> str:
    match chance.randrange(9):
        case 0:
            return f"0x{number:x}"
        case 1:
            return f"0X{number:X}"
        case 2:
            return f"0{number:o}"
        case 3:
            return "0" * chance.randrange(1, 12) + f"{number:o}"
        case 4:
            return f"0x{'0' * chance.randrange(12)}{number:x}"
        case 5:
            return f"{number:03}"
        case _:
            return str(number)


def _ipv6(chance: random.Random, address: IPv6Address) -> str:
    # Not by `exploded`, in which 3.13 writes a mapped address with dots.
    groups = [f"{int(address) >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)]
    match chance.randrange(6):
        case 0:
            return ":".join(f"{group:0>4}" for group in groups)
        case 1:
            return str(address).upper()
        case 2:  # the last 32 bits as four decimal numbers
            return ":".join([*groups[:6], str(IPv4Address(int(address) & 0xFFFF_FFFF))])
        case 3:  # the first zeros left out, not the most of them
            return ":".join(groups).replace(":0:", "::", 1)
        case _:
            return str(address)


# ------------------------------------------------------------------ other Pythons


def others() -> Iterator[tuple[str, str]]:
    """(version, path) of each of `PYTHONS` that this machine has and that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in PYTHONS:
        candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
        # A shim of pyenv may start nothing, so each is tried.
        for candidate in filter(None, candidates):
            tried = subprocess.run(
                [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
            if tried.stdout.strip() == version:
                yield version, str(candidate)
                break


def _elsewhere(python: str, seed: int, count: int) -> Found:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT / "layers" / "registry")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-m", "tests.fuzz.guard", str(seed), str(count)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    return Found(*json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
