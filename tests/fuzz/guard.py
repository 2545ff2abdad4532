"""The guard against the resolver itself: no spelling of a closed address gets past the one and is read by the other.

A URL is made of an address in one of the ways in which some program somewhere writes one. What the guard passes is
read as programs read hosts, and given to getaddrinfo and inet_aton: no answer of theirs may be a closed address. What
is closed is asked of two: of the guard's own table, and of this Python's `ipaddress`, which knows nothing of it.

Needs the standard library only, so that every Python of the machine can run it:
`python -m tests.fuzz.guard SEED COUNT`.
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
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from mcp_registry import guard, urls
from mcp_registry.guard import GLOBAL_UNICAST, NETWORKS, OPEN, Policy
from tests.proof import Line, at_most

ROOT = Path(__file__).parent.parent.parent
SEED = 20261122
SPELLINGS = 15_000  # times scale; 1.5 s on one of 2 busy cores (2026-11-22)
PER_POLICY_SHOWN = 3
# Where the promise holds: 3.13 is Lambda's, 3.11 the oldest that is taken.
PYTHONS = ("3.11", "3.12", "3.13")

# What an operator may open, with whether an address is among that.
POLICIES = {
    "default": (Policy.of({}), ()),
    "loopback": (Policy.of({OPEN: "127.0.0.0/8,::1/128"}), ("127.0.0.0/8", "::1/128")),
    "private": (Policy.of({OPEN: "10.0.0.0/8,fd00::/8"}), ("10.0.0.0/8", "fd00::/8")),
}

# ------------------------------------------------------------------ what is spelled

# The edges of every network of the table, and addresses that everybody attacks.
FAMOUS = (
    *("127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "255.255.255.255", "192.168.0.1", "100.100.100.200"),
    *(
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ),
    *("1.1.1.1", "8.8.8.8", "2606:4700::1111"),
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
    count = SPELLINGS * scale
    found = [run(SEED + scale, count)]
    if scale > 1:
        here = platform.python_version_tuple()[:2]
        found += [_elsewhere(python, SEED + scale, count) for version, python in others() if version != ".".join(here)]
    lines: list[Line] = []
    for each in found:
        what = f"Python {each.version}: closed addresses that the guard passed, of {each.spellings} spellings"
        lines.append(at_most(what, 0, len(each.bypasses)))
        # A generator whose spellings nobody understands would prove nothing, nor would a guard that passes none.
        well = each.closed >= each.spellings // 20 and each.passed >= each.spellings // 50
        bar = f">= {each.spellings // 20} led to closed ones, >= {each.spellings // 50} passed"
        lines.append(
            Line(f"Python {each.version}: spellings that mean something", bar, f"{each.closed}, {each.passed}", well)
        )
        for told in each.bypasses[:PER_POLICY_SHOWN]:
            print(f"bypass on {each.version}: {told}", file=sys.stderr)
    if scale > 1 and len(found) < len(PYTHONS):
        missing = sorted({*PYTHONS} - {each.version.rpartition(".")[0] for each in found})
        print(f"guard: not run on Python {', '.join(missing)}, which this machine does not have", file=sys.stderr)
    return lines


def run(seed: int, count: int) -> Found:
    """So many spellings on this Python."""
    chance = random.Random(seed)
    closed = passed = 0
    bypasses: list[str] = []
    for _ in range(count):
        address = some_address(chance)
        text, url = spelled(chance, address)
        closed += any(oracle(read) for host in {text, *hosts(url)} for read in resolved(host))
        for name, (policy, opened) in POLICIES.items():
            if (told := bypass(url, policy, opened)) is not None:
                bypasses.append(f"{name}: {url!r} is read as {told}")
            if (told := misread(text, policy, opened)) is not None:
                bypasses.append(f"{name}: the address {text!r} is read as {told}")
        passed += passes(url, POLICIES["default"][0])
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
    """What closed address the resolver reads in a text that may be dialled; None where it reads none."""
    if policy.address_fault(text) is not None:
        return None
    read = resolved(text)
    closed = [address for address in read if policy.address_fault(address) is not None or oracle(address, opened)]
    if closed or {ip_address(address) for address in read} != {ip_address(text)}:
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


def resolved(host: str) -> set[str]:
    """The addresses that the system makes of a text without asking anybody; none where it is a name or nothing."""
    found: set[str] = set()
    for text in {host, host.removesuffix(".")}:
        # UnicodeError is what Python's IDNA makes of some, ValueError what it makes of NUL.
        with suppress(OSError, UnicodeError, ValueError):
            answers = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            found |= {str(answer[4][0]) for answer in answers}
        with suppress(OSError, UnicodeError, ValueError):
            found.add(socket.inet_ntoa(socket.inet_aton(text)))
    return found


def oracle(address: str, opened: tuple[str, ...] = ()) -> bool:
    """Whether an address is closed by what this Python knows of it, wherever it is hidden in another one."""
    parsed = ip_address(address.partition("%")[0])
    if any(parsed.version == network.version and parsed in network for network in map(_network, opened)):
        return False
    if isinstance(parsed, IPv6Address):
        number = int(parsed)
        inner = [parsed.ipv4_mapped, parsed.sixtofour, *(parsed.teredo or ())]
        if number >> 32 in (0, 0xFFFF_0000, 0x64_FF9B << 64) and number > 1:
            inner.append(IPv4Address(number & 0xFFFF_FFFF))
        if any(each is not None and _is_closed(each) for each in inner):
            return True
    return _is_closed(parsed)


def _is_closed(address: IPv4Address | IPv6Address) -> bool:
    return not address.is_global or address.is_multicast or address.is_unspecified


@cache
def _network(cidr: str) -> Any:
    return ip_network(cidr)


# ------------------------------------------------------------------ how it is spelled


@cache
def _edges() -> tuple[IPv4Address | IPv6Address, ...]:
    found = [ip_address(text) for text in FAMOUS]
    for cidr in [*(cidr for cidr, _ in NETWORKS), GLOBAL_UNICAST]:
        network = ip_network(cidr)
        kind = type(network[0])
        numbers = (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1)
        found += [kind(number) for number in numbers if 0 <= number < 2**network.max_prefixlen]
    return tuple(found)


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
