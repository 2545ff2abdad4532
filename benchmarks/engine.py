"""What a probe costs and whether its verdict is true: our engine, against a floor and what else could have been taken.

Every candidate probes the same farm (`benchmarks/farm.py`), in turns, each time in a fresh process: 10,000 servers,
1,000 at once, 5 s for each, all told. The floor is the least that Python can do: sockets, epoll, one state machine, no
look-up, no guard. It and the candidates judge by one short function; ours judges as the product does: who is up is
asked the pulse that was learnt, and who is down is introduced again, for as long as a sweep allows.

Five tables: the farm by its addresses; those of it that are up, where all that is asked is a pulse; the same farm where
3 % of it have changed their mind since; by its names, of which a hundred are never answered; and over TLS, where a
probe is one full handshake. CPU is what the kernel counts for the client's process, user and system, of all threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from benchmarks import farm as farms
from benchmarks.farm import Farm, Ports, Server

if TYPE_CHECKING:
    from benchmarks.report import Result

SERVERS = 10_000
AT_ONCE = 1_000
ROUNDS = 2
TLS_ROUNDS = 3
# Of a hundred names one is never answered.
DEAD_SHARE = 100
TLS_SERVERS = 600
TLS_AT_ONCE = 100
QUICK_SERVERS = 2_500
QUICK_TLS_SERVERS = 200

SECONDS = 5.0
# What a sweep may take before it is broken off: many times what the slowest candidate needs.
SWEEP_SECONDS = 120.0
# What a shard has of a slot, and the spread of a full one (`health.shard`).
OUR_SECONDS = 22.0
OUR_SPREAD = 8.0
CPU_BAR = 3.0
MAX_BODY = 0x10000

Verdicts = list[bool | None]
Found = TypeVar("Found")


class Job(NamedTuple):
    """What a client process is to do."""

    candidate: str
    ports: tuple[int, ...]
    size: int
    at_once: int
    bundle: str
    tls: bool = False
    # By names, of which so many are dead; the names' server, or 0 where /etc/resolv.conf says it.
    by_name: bool = False
    dead: int = 0
    names_port: int = 0
    # Of the farm 3 % have changed their mind since they were last checked.
    changing: bool = False
    # Without those that are down.
    up_only: bool = False

    def servers(self) -> list[Server]:
        """The servers to probe."""
        ports = Ports(*self.ports)
        if self.changing:
            return farms.changing(ports, self.size)
        servers = farms.encrypted(ports, self.size) if self.tls else farms.mixed(ports, self.size, self.dead)
        return [server for server in servers if server.up or not self.up_only]

    def host(self, server: Server) -> str:
        """What the server goes by."""
        return server.name if self.by_name else server.address

    def url(self, server: Server) -> str:
        """The server's endpoint."""
        return f"{'https' if self.tls else 'http'}://{self.host(server)}:{server.port}{server.path}"


class Outcome(NamedTuple):
    """What one sweep of one candidate came to."""

    cpu: float
    wall: float
    false_down: int
    false_up: int
    unchecked: int
    peak_mb: float
    grown_mb: float
    probes: int
    up: int

    @property
    def cpu_us(self) -> float:
        """CPU of one probe, in microseconds."""
        return self.cpu / self.probes * 1e6

    @property
    def right(self) -> int:
        """How many verdicts are true."""
        return self.probes - self.false_down - self.false_up - self.unchecked


# ------------------------------------------------------------------------------------------ what all candidates send

_BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "mcp-registry", "version": "1.0.0"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        },
    }
).encode()
_HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "server/discover",
    "User-Agent": "mcp-registry/1.0",
}
_HEAD = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
_REQUEST = (
    f"POST %b HTTP/1.1\r\nHost: %b:%d\r\n{_HEAD}Content-Length: {len(_BODY)}\r\nConnection: close\r\n\r\n"
).encode() + _BODY


def _request(job: Job, server: Server) -> bytes:
    return _REQUEST % (server.path.encode(), job.host(server).encode(), server.port)


_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def _judge(received: bytes, *, ended: bool) -> bool | None:
    """Whether what a server has sent says that it is up; None where more has to come."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not received.startswith(b"HTTP/1.") or len(body) > MAX_BODY:
        return None if not (received or ended) else False
    if not found:
        return False if ended else None
    if length := _LENGTH.search(head):
        complete = len(body) >= int(length[1])
    elif b"chunked" in head:
        complete = body.endswith(b"0\r\n\r\n")
    else:
        complete = ended
    if not complete:
        return False if ended else None
    return _is_up(int(head[9:12]), body)


def _is_up(status: int, body: bytes | bytearray) -> bool:
    return status in (401, 403) or b'"jsonrpc"' in body


# --------------------------------------------------------------------------------------------------------- the floor


class _Exchange:
    """One connection of the floor."""

    __slots__ = ("client", "place", "received", "request")

    def __init__(self, client: socket.socket, place: int, request: bytes) -> None:
        self.client = client
        self.place = place
        self.request = request
        self.received = b""


def _floor(servers: Sequence[Server], job: Job) -> Verdicts:
    verdicts: Verdicts = [None] * len(servers)
    waiting = iter(enumerate(servers))
    under_way: dict[int, _Exchange] = {}
    deadlines: deque[tuple[float, _Exchange]] = deque()
    poll = select.epoll()
    while True:
        while len(under_way) < job.at_once and (next_ := next(waiting, None)):
            place, server = next_
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((server.address, server.port))
            exchange = _Exchange(client, place, _request(job, server))
            poll.register(client, select.EPOLLOUT)
            under_way[client.fileno()] = exchange
            deadlines.append((time.monotonic() + SECONDS, exchange))
        if not under_way:
            poll.close()
            return verdicts
        for descriptor, _ in poll.poll(max(deadlines[0][0] - time.monotonic(), 0)):
            exchange = under_way[descriptor]
            verdict = _advance(exchange, poll)
            if verdict is not None:
                verdicts[exchange.place] = verdict
                exchange.client.close()
                del under_way[descriptor]
        now = time.monotonic()
        while deadlines and (verdicts[deadlines[0][1].place] is not None or deadlines[0][0] <= now):
            exchange = deadlines.popleft()[1]
            if verdicts[exchange.place] is None:
                verdicts[exchange.place] = False
                del under_way[exchange.client.fileno()]
                exchange.client.close()


def _advance(exchange: _Exchange, poll: select.epoll) -> bool | None:
    """Do what the connection is ready for: send, once it is made, then read."""
    try:
        if exchange.request:
            exchange.client.send(exchange.request)
            exchange.request = b""
            poll.modify(exchange.client, select.EPOLLIN)
            return None
        data = exchange.client.recv(MAX_BODY)
    except OSError:
        return False
    exchange.received = exchange.received + data if exchange.received else data
    return _judge(exchange.received, ended=not data)


# --------------------------------------------------------------------------------------- protocols of asyncio, uvloop


class _Protocol(asyncio.Protocol):
    """Sends one request and gives the verdict to a future."""

    def __init__(self, request: bytes, verdict: asyncio.Future[bool]) -> None:
        self._request = request
        self._verdict = verdict
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._end(_judge(self._received, ended=False))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._end(_judge(self._received, ended=True))

    def _end(self, verdict: bool | None) -> None:
        if verdict is not None and not self._verdict.done():
            self._verdict.set_result(verdict)


Context = Callable[[], ssl.SSLContext] | None
LookUp = Callable[[str], Awaitable[str]] | None


async def _protocols(servers: Sequence[Server], job: Job, context: Context, look_up: LookUp = None) -> Verdicts:
    loop = asyncio.get_running_loop()

    async def probe(server: Server) -> bool:
        verdict: asyncio.Future[bool] = loop.create_future()
        host = job.host(server)
        transport, _ = await loop.create_connection(
            lambda: _Protocol(_request(job, server), verdict),
            await look_up(host) if look_up else host,
            server.port,
            ssl=context() if context else None,
        )
        try:
            return await verdict
        finally:
            transport.abort()

    return await _sweep(servers, job.at_once, probe)


async def _sweep(servers: Sequence[Server], at_once: int, probe: Callable[[Server], Awaitable[bool]]) -> Verdicts:
    """Probe the servers with so many workers, each server within its time."""
    verdicts: Verdicts = [None] * len(servers)
    waiting = iter(enumerate(servers))

    async def work() -> None:
        for place, server in waiting:
            try:
                async with asyncio.timeout(SECONDS):
                    verdicts[place] = await probe(server)
            except Exception:  # noqa: BLE001 -- whatever a library raises is its word for "down"
                verdicts[place] = False

    await asyncio.gather(*(work() for _ in range(at_once)))
    return verdicts


def _shared(job: Job) -> Context:
    """One context for all probes."""
    if not job.tls:
        return None
    context = ssl.create_default_context(cafile=job.bundle)
    return lambda: context


# Neither loop is closed: a thread that waits for a dead name would hold its end up by ten seconds.


def _on_asyncio(sweep: Awaitable[Found]) -> Found:
    return asyncio.new_event_loop().run_until_complete(sweep)


def _on_uvloop(sweep: Awaitable[Found]) -> Found:
    import uvloop

    return uvloop.new_event_loop().run_until_complete(sweep)


def _asyncio(servers: Sequence[Server], job: Job) -> Verdicts:
    return _on_asyncio(_protocols(servers, job, _shared(job)))


def _uvloop(servers: Sequence[Server], job: Job) -> Verdicts:
    return _on_uvloop(_protocols(servers, job, _shared(job)))


def _uvloop_new_context(servers: Sequence[Server], job: Job) -> Verdicts:
    return _on_uvloop(_protocols(servers, job, lambda: ssl.create_default_context(cafile=job.bundle)))


class _Names:
    """The farm's names, by c-ares."""

    def __init__(self, port: int) -> None:
        """`port` of the names' server; 0 where /etc/resolv.conf says where it is."""
        import aiodns

        given: dict[str, Any] = {"nameservers": ["127.0.0.1"], "udp_port": port, "tcp_port": port} if port else {}
        self._resolver = aiodns.DNSResolver(**given)

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a name; none where it has none or nobody answers."""
        import aiodns

        try:
            found = await self._resolver.getaddrinfo(host, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError:
            return []
        return [cast("bytes", node.addr[0]).decode() for node in found.nodes]


def _aiodns(servers: Sequence[Server], job: Job) -> Verdicts:
    async def sweep() -> Verdicts:
        names = _Names(job.names_port)

        async def look_up(host: str) -> str:
            return (await names.resolve(host))[0]

        return await _protocols(servers, job, None, look_up)

    return _on_uvloop(sweep())


def _simulated(servers: Sequence[Server], job: Job) -> Verdicts:
    """Without a namespace: a look-up that holds its thread of asyncio's pool for 5 s where the name is dead."""
    addresses = {server.name: server.address for server in servers}

    def getaddrinfo(host: str, port: int, *given: Any, **named: Any) -> list[Any]:
        if host.endswith(farms.DEAD_ZONE):
            time.sleep(SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "simulated")
        return original(addresses.get(host, host), port, *given, **named)

    original, socket.getaddrinfo = socket.getaddrinfo, getaddrinfo
    return _asyncio(servers, job)


# --------------------------------------------------------------------------------------------------- HTTP libraries


def _aiohttp(servers: Sequence[Server], job: Job) -> Verdicts:
    import aiohttp

    async def sweep() -> Verdicts:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=SECONDS)

        async def probe(server: Server) -> bool:
            async with session.post(job.url(server), data=_BODY, headers=_HEADERS, allow_redirects=False) as answer:
                body = b""
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > MAX_BODY:
                        return False
                return _is_up(answer.status, body)

        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return await _sweep(servers, job.at_once, probe)

    return _on_asyncio(sweep())


def _httpx(servers: Sequence[Server], job: Job) -> Verdicts:
    """One client as it comes: a pool of 100 connections, for which the rest waits."""
    return _by_httpx(servers, job)


def _httpx_unlimited(servers: Sequence[Server], job: Job) -> Verdicts:
    """The kindest of five settings that were tried (2026-11-22)."""
    return _by_httpx(servers, job, max_connections=None, max_keepalive_connections=0)


def _by_httpx(servers: Sequence[Server], job: Job, **limits: int | None) -> Verdicts:
    import httpx

    given: dict[str, Any] = {"limits": httpx.Limits(**limits)} if limits else {}

    async def sweep() -> Verdicts:
        async def probe(server: Server) -> bool:
            async with client.stream("POST", job.url(server), content=_BODY, headers=_HEADERS) as answer:
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_BODY:
                        return False
                return _is_up(answer.status_code, body)

        async with httpx.AsyncClient(timeout=SECONDS, trust_env=False, **given) as client:
            return await _sweep(servers, job.at_once, probe)

    return _on_asyncio(sweep())


class _Multi:
    """libcurl's multi interface on an epoll of our own; handles are used again, connections are not."""

    def __init__(self, servers: Sequence[Server], job: Job) -> None:
        self._curl: Any = __import__("pycurl")
        self._job = job
        self._verdicts: Verdicts = [None] * len(servers)
        self._waiting = iter(enumerate(servers))
        self._poll = select.epoll()
        self._watched: set[int] = set()
        self._due: float | None = None
        self._under_way = 0
        self._multi = self._curl.CurlMulti()
        self._multi.setopt(self._curl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(self._curl.M_TIMERFUNCTION, self._wake)
        for _ in range(min(job.at_once, len(servers))):
            self._start(self._handle())

    def sweep(self) -> Verdicts:
        """Drive the transfers until none is left."""
        curl = self._curl
        while self._under_way:
            pause = None if self._due is None else max(self._due - time.monotonic(), 0)
            for descriptor, event in self._poll.poll(pause):
                ready = (curl.CSELECT_IN if event & select.EPOLLIN else 0) | (
                    curl.CSELECT_OUT if event & select.EPOLLOUT else 0
                )
                self._multi.socket_action(descriptor, ready or curl.CSELECT_ERR)
            if self._due is not None and self._due <= time.monotonic():
                self._due = None
                self._multi.socket_action(curl.SOCKET_TIMEOUT, 0)
            self._collect()
        return self._verdicts

    def _collect(self) -> None:
        more = 1
        while more:
            more, succeeded, failed = self._multi.info_read()
            for handle in succeeded:
                self._end(handle, _is_up(handle.getinfo(self._curl.RESPONSE_CODE), handle.body))
            for handle, _, _ in failed:
                self._end(handle, up=False)

    def _end(self, handle: Any, up: bool) -> None:
        self._verdicts[handle.place] = up
        self._multi.remove_handle(handle)
        self._under_way -= 1
        self._start(handle)

    def _start(self, handle: Any) -> None:
        if next_ := next(self._waiting, None):
            handle.place, server = next_
            handle.body.clear()
            handle.setopt(self._curl.URL, self._job.url(server))
            self._multi.add_handle(handle)
            self._under_way += 1

    def _handle(self) -> Any:
        curl = self._curl
        handle = curl.Curl()
        handle.body = bytearray()

        def write(data: bytes) -> int:
            handle.body.extend(data)
            return len(data) if len(handle.body) <= MAX_BODY else 0

        options = {
            curl.POSTFIELDS: _BODY,
            curl.HTTPHEADER: [*(f"{name}: {value}" for name, value in _HEADERS.items()), "Connection: close"],
            curl.WRITEFUNCTION: write,
            curl.TIMEOUT_MS: int(SECONDS * 1000),
            curl.NOSIGNAL: 1,
            curl.FORBID_REUSE: 1,
            curl.PROXY: "",
            curl.CAINFO: self._job.bundle,
        }
        for option, value in options.items():
            handle.setopt(option, value)
        return handle

    def _watch(self, what: int, descriptor: int, _multi: object, _data: object) -> None:
        if what == self._curl.POLL_REMOVE:
            self._watched.discard(descriptor)
            self._poll.unregister(descriptor)
            return
        mask = (select.EPOLLIN if what & self._curl.POLL_IN else 0) | (
            select.EPOLLOUT if what & self._curl.POLL_OUT else 0
        )
        if descriptor in self._watched:
            self._poll.modify(descriptor, mask)
        else:
            self._watched.add(descriptor)
            self._poll.register(descriptor, mask)

    def _wake(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def _pycurl(servers: Sequence[Server], job: Job) -> Verdicts:
    return _Multi(servers, job).sweep()


# -------------------------------------------------------------------------------------------------------------- ours


# What a check of a server of the farm has learnt of it, by its kind: the verdict, and the era of an introduction.
_DOWN = {
    "refused": "refused",
    "silent": "timeout",
    "unaccepted": "timeout",
    "drip": "timeout",
    "endless": "not_mcp",
    "page": "not_mcp",
    "garbage": "not_mcp",
    "half": "not_mcp",
}
ERA = "legacy"


def _ours(servers: Sequence[Server], job: Job) -> Verdicts:
    from mcp_registry.dial.guard import OPEN, Policy
    from mcp_registry.health import probe

    policy = Policy.of({OPEN: "127.0.0.0/8,::1/128"})
    pulses = _pulses()
    targets: list[probe.Target] = []
    for server in servers:
        kind = server.before or server.kind
        # What is down by its name or its certificate is so since long; who has changed is known as it was.
        by_itself = "dns" if server.name.endswith(farms.DEAD_ZONE) else "tls" if job.tls and not server.up else None
        verdict = by_itself or _DOWN.get(kind) or ("gated" if kind == "gated" else "healthy")
        targets.append(
            probe.Target(server.number, server.number + 1, job.url(server), None, pulses.get(kind), ERA, verdict)
        )
    sweep: dict[str, Any] = {
        "seconds": OUR_SECONDS,
        "spread": OUR_SPREAD if job.changing else 0.0,
        "policy": policy,
        "at_once": job.at_once,
        # Of ten shards in one process.
        "introductions": 10 * probe.INTRODUCTIONS,
    }
    if job.names_port:

        async def check() -> list[probe.Result]:
            return await probe.check_all(targets, **sweep, resolver=_Names(job.names_port))

        found = _on_uvloop(check())
    else:
        found = probe.sweep(targets, **sweep)
    verdicts = {result.server_id: result.verdict for result in found}
    return [
        None if (verdict := verdicts.get(server.number)) is None else verdict in ("healthy", "gated")
        for server in servers
    ]


def _pulses() -> dict[str, str]:
    """The pulse of each kind of servers that are up, as it would be learnt of them."""
    from mcp_registry.health import pulse

    written: dict[str, str] = {}
    for kind, (_, up) in farms.KINDS.items():
        head, _, body = farms.ANSWERS.get(kind, b"").partition(b"\r\n\r\n")
        if not up:
            continue
        media = next(line for line in head.split(b"\r\n") if line.startswith(b"content-type: "))[14:].decode()
        if b"chunked" in head:
            body = b"".join(body.split(b"\r\n")[1::2])
        signature = pulse.signature(int(head[9:12]), media, body)
        written[kind] = pulse.write(pulse.Pulse("no JSON", signature, pulse.MIN_SECONDS))
    return written


# ------------------------------------------------------------------------------------------------ the client process

CANDIDATES: dict[str, Callable[[Sequence[Server], Job], Verdicts]] = {
    "floor": _floor,
    "ours": _ours,
    "uvloop": _uvloop,
    "uvloop, new context": _uvloop_new_context,
    "asyncio": _asyncio,
    "pycurl": _pycurl,
    "aiohttp": _aiohttp,
    "httpx": _httpx,
    "httpx, unlimited": _httpx_unlimited,
    "aiodns": _aiodns,
    "simulated": _simulated,
}
WARM_UP = 100


def main() -> None:
    """Do the job on standard input: sweep the farm once and print the outcome."""
    job = Job(**json.load(sys.stdin))
    farms.raise_descriptor_limit(job.at_once + 200)
    servers = job.servers()
    sweep = CANDIDATES[job.candidate]
    # Imports and what Python learns of its own code belong to a process, and a prober's process lives for many sweeps.
    quick = [server for server in servers if server.up and re.fullmatch(r"/json/\d", server.path)]
    sweep(quick[:WARM_UP], job)
    before = _memory_mb("VmRSS")
    cpu, wall = time.process_time(), time.monotonic()
    verdicts = sweep(servers, job)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = _memory_mb("VmHWM")
    judged = list(zip(servers, verdicts, strict=True))
    outcome = Outcome(
        cpu=cpu,
        wall=wall,
        false_down=sum(server.up and verdict is False for server, verdict in judged),
        false_up=sum(not server.up and verdict is True for server, verdict in judged),
        unchecked=sum(verdict is None for verdict in verdicts),
        peak_mb=peak,
        grown_mb=peak - before,
        probes=len(servers),
        up=sum(server.up for server in servers),
    )
    print(json.dumps(outcome), flush=True)


def _memory_mb(what: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


# -------------------------------------------------------------------------------------------------- the measurement

# The floor and ours three times a round: their ratio has a bar, and a busy machine must not decide it.
LIBRARIES = ("floor", "ours", "uvloop", "asyncio", "floor", "ours", "pycurl", "floor", "ours", "aiohttp")
CURL = "curl, all in C"
OF_TLS = (CURL, "ours", "uvloop", "asyncio", "pycurl")
# What takes minutes at full size runs once, on a smaller farm, of which as many are probed at once.
FEWER = 2_500
FEWEST = 1_000

ENGINES = {
    "floor": "floor: sockets, epoll",
    "uvloop": "asyncio.Protocol on uvloop",
    "asyncio": "asyncio.Protocol on asyncio",
    "pycurl": "pycurl, multi interface",
    "httpx": "httpx as it comes",
    "httpx, unlimited": "httpx, pool without limits",
    "uvloop, new context": "the same on uvloop, new context each",
}
LOOK_UPS = {
    "aiodns": "aiodns (c-ares), uvloop",
    "asyncio": "getaddrinfo, asyncio's threads",
    "uvloop": "getaddrinfo, uvloop's threads",
    "simulated": "getaddrinfo simulated, asyncio's threads",
}
TRUTH = ("up called down", "down called up", "not checked")


def run(*, quick: bool = False) -> list[Result]:
    """Measure all candidates; print what their probes cost and how many of their verdicts are false."""
    # Not above: a client process imports this module, and its memory is measured.
    from benchmarks.report import Result

    with farms.farm() as farm:
        bench = _Bench(farm, quick=quick)
        by_address = bench.by_address()
        pulses = bench.pulses()
        changing = bench.changing()
        by_name = bench.by_name()
        bench.over_tls()
    ours, floor = (_median(pulses[name], "cpu_us") for name in ("ours", "floor"))
    return [
        Result("pulse: CPU, against the floor", ours, floor, "us", CPU_BAR),
        _truth_result("probe: true verdicts", by_address["ours"]),
        _truth_result("probe: true verdicts, 3 % changing", changing),
        Result("probe: a sweep in which 3 % change", max(of.wall for of in changing), OUR_SECONDS, "s", 1.0),
        _truth_result("probe: true verdicts, with dead names", by_name["ours"]),
    ]


class _Bench:
    """The measurements on one farm."""

    def __init__(self, farm: Farm, *, quick: bool) -> None:
        self._farm = farm
        self._quick = quick
        self._size = QUICK_SERVERS if quick else SERVERS
        self._rounds = 1 if quick else ROUNDS

    def by_address(self) -> dict[str, list[Outcome]]:
        """Every candidate on the mixed farm, no name involved."""
        names = dict.fromkeys(LIBRARIES) if self._quick else LIBRARIES
        outcomes = self._turns([self._job(name) for name in names], self._rounds)
        outcomes |= self._turns([self._job("httpx, unlimited", size=FEWER)], 1)
        if not self._quick:
            outcomes |= self._turns([self._job("httpx", size=FEWEST)], 1)
        floor = _median(outcomes["floor"], "cpu_us")
        rows = [("by address", "servers", "runs", "us of CPU", "of the floor", "s", *TRUTH, "MB", "of it the sweep")]
        rows += [
            (
                ENGINES.get(name, name),
                f"{of[0].probes:,}",
                str(len(of)),
                f"{_median(of, 'cpu_us'):.0f}",
                f"{_median(of, 'cpu_us') / floor:.2f}",
                f"{_median(of, 'wall'):.1f}",
                *_truth(of),
                f"{_median(of, 'peak_mb'):.0f}",
                f"{_median(of, 'grown_mb'):.0f}",
            )
            for name, of in outcomes.items()
        ]
        _print(rows)
        return outcomes

    def pulses(self) -> dict[str, list[Outcome]]:
        """The floor and ours on the servers that are up: what a pulse costs by itself."""
        jobs = [self._job(name)._replace(up_only=True) for name in ("floor", "ours")]
        outcomes = self._turns(jobs, self._rounds + 1)
        floor = _median(outcomes["floor"], "cpu_us")
        rows = [("who is up", "servers", "runs", "us of CPU", "of the floor", "s", *TRUTH)]
        rows += [
            (
                ENGINES.get(name, name),
                f"{of[0].probes:,}",
                str(len(of)),
                f"{_median(of, 'cpu_us'):.0f}",
                f"{_median(of, 'cpu_us') / floor:.2f}",
                f"{_median(of, 'wall'):.1f}",
                *_truth(of),
            )
            for name, of in outcomes.items()
        ]
        _print(rows)
        return outcomes

    def changing(self) -> list[Outcome]:
        """Ours, spread as in a shard, where 3 % of the servers are not as they were."""
        job = self._job("ours")._replace(changing=True)
        outcomes = self._turns([job], self._rounds)[job.candidate]
        head = ("3 % change their mind", "servers", "runs", "us of CPU", "s", *TRUTH)
        cpu, wall = _median(outcomes, "cpu_us"), max(outcome.wall for outcome in outcomes)
        servers, runs = f"{outcomes[0].probes:,}", str(len(outcomes))
        _print([head, ("ours", servers, runs, f"{cpu:.0f}", f"{wall:.1f}", *_truth(outcomes))])
        return outcomes

    def by_name(self) -> dict[str, list[Outcome]]:
        """Ours and the ways to look a name up, where one name of a hundred is dead."""
        outcomes = self._turns([self._job("ours", by_name=True)], self._rounds)
        outcomes |= self._turns([self._job("aiodns", by_name=True)], 1)
        pools = ("asyncio", "uvloop") if self._farm.own_namespace else ("simulated",)
        jobs = [self._job(name, by_name=True, size=FEWEST if self._quick else FEWER) for name in pools]
        # Their threads wait for the dead, and nobody works: they can wait side by side.
        with ThreadPoolExecutor() as threads:
            outcomes |= {name: [outcome] for name, outcome in zip(pools, threads.map(self._client, jobs), strict=True)}
        rows = [("by name", "servers", "names dead", "runs", "us of CPU", "s", *TRUTH, "of those up")]
        rows += [
            (
                LOOK_UPS.get(name, name),
                f"{of[0].probes:,}",
                f"{of[0].probes // DEAD_SHARE}",
                str(len(of)),
                f"{_median(of, 'cpu_us'):.0f}",
                f"{_median(of, 'wall'):.1f}",
                *_truth(of),
                f"{max(outcome.false_down / outcome.up for outcome in of):.0%}",
            )
            for name, of in outcomes.items()
        ]
        _print(rows)
        return outcomes

    def over_tls(self) -> None:
        """What a probe costs that is one full handshake."""
        size = QUICK_TLS_SERVERS if self._quick else TLS_SERVERS
        names = [name for name in OF_TLS if name != CURL or shutil.which("curl")]
        jobs = [self._job(name, tls=True, size=size, at_once=TLS_AT_ONCE) for name in names]
        outcomes = self._turns(jobs, TLS_ROUNDS)
        new = self._job("uvloop, new context", tls=True, size=TLS_AT_ONCE, at_once=TLS_AT_ONCE)
        outcomes |= self._turns([new], 1)
        base = _median(outcomes[CURL if CURL in outcomes else "pycurl"], "cpu_us")
        rows = [("over TLS", "servers", "runs", "us of CPU", "of the first", "s", *TRUTH)]
        rows += [
            (
                ENGINES.get(name, name),
                f"{of[0].probes:,}",
                str(len(of)),
                f"{_median(of, 'cpu_us'):.0f}",
                f"{_median(of, 'cpu_us') / base:.2f}",
                f"{_median(of, 'wall'):.2f}",
                *_truth(of),
            )
            for name, of in outcomes.items()
        ]
        _print(rows)

    def _job(
        self, candidate: str, *, size: int = 0, at_once: int = AT_ONCE, by_name: bool = False, tls: bool = False
    ) -> Job:
        size = size or self._size
        dead = size // DEAD_SHARE if by_name else 0
        names_port = 0 if self._farm.own_namespace else self._farm.names_port
        bundle = str(self._farm.bundle)
        return Job(candidate, self._farm.ports, size, at_once, bundle, tls, by_name, dead, names_port)

    def _turns(self, jobs: Sequence[Job], rounds: int) -> dict[str, list[Outcome]]:
        """Each job in a fresh process, in turns, the order reversed every other round."""
        outcomes: dict[str, list[Outcome]] = {job.candidate: [] for job in jobs}
        for round_ in range(rounds):
            for job in jobs[:: 1 if round_ % 2 == 0 else -1]:
                outcomes[job.candidate].append(self._curl(job) if job.candidate == CURL else self._client(job))
        return outcomes

    def _client(self, job: Job) -> Outcome:
        client = subprocess.run(
            [*self._farm.enter, sys.executable, "-m", "benchmarks.engine"],
            input=json.dumps(job._asdict()),
            # Ours knows the authorities of the machine that it runs on: here these.
            env={**farms.environment(), "SSL_CERT_FILE": job.bundle},
            capture_output=True,
            text=True,
            check=False,
            timeout=SWEEP_SECONDS * 2,
        )
        if client.returncode:
            raise RuntimeError(f"{job.candidate}: {client.stderr[-2_000:]}")
        return Outcome(*json.loads(client.stdout))

    def _curl(self, job: Job) -> Outcome:
        """The same requests by the curl program: libcurl's multi interface without Python. Judged by status."""
        servers = job.servers()
        config = Path(job.bundle).with_name("curl.conf")
        config.write_text("".join(f'url = "{job.url(server)}"\noutput = "/dev/null"\n' for server in servers))
        options = {
            "--config": str(config),
            # The farm's authority by itself: this program would read the whole list again for each connection, 17 ms.
            "--cacert": str(Path(job.bundle).with_name(farms.OWN_AUTHORITY)),
            "--data-binary": _BODY.decode(),
            "--max-time": str(SECONDS),
            "--parallel-max": str(job.at_once),
            "--write-out": "%{http_code}\\n",
        }
        headers = [f"{name}: {value}" for name, value in {**_HEADERS, "Connection": "close"}.items()]
        arguments = [text for option in options.items() for text in option]
        arguments += [text for header in headers for text in ("--header", header)]
        command = [*self._farm.enter, "curl", "--disable", "--silent", "--no-progress-meter", "--parallel", *arguments]
        started = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as client:
            assert client.stdout is not None
            answers = client.stdout.read().split().count("200")
            _, status, used = os.wait4(client.pid, 0)
            client.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        up = sum(server.up for server in servers)
        false_down, false_up = max(up - answers, 0), max(answers - up, 0)
        return Outcome(used.ru_utime + used.ru_stime, wall, false_down, false_up, 0, 0, 0, len(servers), up)


def _median(outcomes: Sequence[Outcome], what: str) -> float:
    return statistics.median(getattr(outcome, what) for outcome in outcomes)


def _truth(outcomes: Sequence[Outcome]) -> tuple[str, str, str]:
    """The worst of all runs: a verdict is not true in the median."""
    return (
        f"{max(outcome.false_down for outcome in outcomes):,}",
        f"{max(outcome.false_up for outcome in outcomes):,}",
        f"{max(outcome.unchecked for outcome in outcomes):,}",
    )


def _truth_result(what: str, outcomes: Sequence[Outcome]) -> Result:
    from benchmarks.report import Result

    right = min(outcome.right for outcome in outcomes)
    return Result(what, right, outcomes[0].probes, "", 1.0, more_is_better=True)


def _print(rows: Sequence[Sequence[str]]) -> None:
    from benchmarks.report import table

    print(f"{table(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
    # Without waiting for threads that still look up what nobody will ever find.
    os._exit(0)
