"""Names to addresses, without a thread for each: the owner of aiodns.

getaddrinfo in a pool of threads lets a handful of dead names starve all others: 53-79 % of healthy servers were called
down by it. c-ares has every question under way at once, so a dead name costs those who asked for it, and no others.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Protocol

import aiodns

from mcp_registry.dial.guard import Policy

# A question is asked again after about one second and three; the deadline of the check ends the third wait.
TRIES = 3
TRY_SECONDS = 1.0
HOSTS = Path("/etc/hosts")
# ares.h: refused by our resolver, no connection to it, no descriptor or memory to ask it with, not set up. A name whose
# own servers fail or keep silent (SERVFAIL, a timeout) is another matter: nobody finds that one.
UNREACHED = frozenset({6, 11, 14, 15, 21})
# One channel of c-ares in a hundred does not know its servers and asks 127.0.0.1 (1.34.9, 2026-11-22): so another is
# made before a resolver is taken for unreachable.
RESOLVERS = 3
# ARES_AI_NOSORT: sorting opens a socket for each address, to learn from where it would be reached.
UNSORTED = 1 << 7


class Resolver(Protocol):
    """What finds the addresses of a name."""

    async def resolve(self, host: str) -> list[str]:
        """Find the addresses of a name, of both families; none where it has none or nobody answers."""
        ...


class ResolverUnreachable(Exception):
    """Our own resolver is not there, which says nothing about any name."""


class System:
    """The resolver that the system is set up for: /etc/hosts, then the servers of /etc/resolv.conf.

    The file is read here. c-ares 1.34.9 can do it too, but up to 15 of 1,000 channels found nothing in it (2026-11-22),
    and each server with such a name would have been called down for a sweep.
    """

    def __init__(self, *servers: str) -> None:
        """`servers`: others than those of the system, as 192.0.2.1:53."""
        self._servers = servers
        self._hosts: dict[str, list[str]] | None = None
        # The first is asked; where it cannot reach anybody, the next.
        self._resolvers: list[aiodns.DNSResolver] = []

    async def resolve(self, host: str) -> list[str]:
        """Find the addresses of a name, of both families; none where it has none or nobody answers."""
        if self._hosts is None:
            self._hosts = _hosts()
        if host in self._hosts:
            return self._hosts[host]
        for made in range(1, RESOLVERS + 1):
            if len(self._resolvers) < made:
                self._resolvers.append(aiodns.DNSResolver(self._servers, timeout=TRY_SECONDS, tries=TRIES, lookups="b"))
            try:
                found = await self._resolvers[made - 1].getaddrinfo(host, type=socket.SOCK_STREAM, flags=UNSORTED)
                break
            except ValueError:  # a name that is none, to c-ares
                return []
            except aiodns.error.DNSError as error:
                if not error.args or error.args[0] not in UNREACHED:
                    return []
        else:
            raise ResolverUnreachable
        return [address.decode() if isinstance(address := node.addr[0], bytes) else address for node in found.nodes]

    async def close(self) -> None:
        """End what is under way."""
        for resolver in self._resolvers:
            await resolver.close()


def _hosts() -> dict[str, list[str]]:
    """The names of /etc/hosts with their addresses; none where there is no such file."""
    names: dict[str, list[str]] = {}
    try:
        text = HOSTS.read_text(encoding="latin-1")
    except OSError:
        return names
    for line in text.splitlines():
        address, *hosts = line.partition("#")[0].split() or [""]
        for host in hosts:
            names.setdefault(host.lower().removesuffix("."), []).append(address)
    return names


class Found:
    """The addresses of a name, and why they may not be dialled; or that nobody could be asked for it."""

    __slots__ = ("addresses", "asked", "fault")

    def __init__(self, addresses: list[str], fault: str | None = None, *, asked: bool = True) -> None:
        self.addresses = addresses
        self.fault = fault
        self.asked = asked


class Names:
    """The look-ups of one sweep: a name is asked for once and its answer judged once, however many servers share it."""

    def __init__(self, resolver: Resolver, policy: Policy) -> None:
        self._resolver = resolver
        self._policy = policy
        self._found: dict[str, Found] = {}
        self._asking: dict[str, asyncio.Task[Found]] = {}

    def known(self, host: str) -> Found | None:
        """What is known of a name already."""
        return self._found.get(host)

    async def find(self, host: str) -> Found:
        """What there is to know of a name. Whoever is cancelled meanwhile does not end the look-up for others."""
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = asyncio.get_running_loop().create_task(self._ask(host))
        return await asyncio.shield(task)

    def forget(self, host: str) -> None:
        """Ask again for a name that was not found when somebody next wants it."""
        found = self._found.get(host)
        if found is not None and not found.addresses:
            del self._found[host]

    async def close(self) -> None:
        """End what is under way."""
        asking = [*self._asking.values()]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, host: str) -> Found:
        try:
            try:
                addresses = [*dict.fromkeys(await self._resolver.resolve(host))]
            except ResolverUnreachable:
                return Found([], asked=False)
            faults = (self._policy.address_fault(address) for address in addresses)
            # One closed address is enough: who has several gives each of them to somebody.
            found = self._found[host] = Found(addresses, next(filter(None, faults), None))
            return found
        finally:
            del self._asking[host]
