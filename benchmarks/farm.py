"""A farm of HTTP servers, each with a known truth, and the names they go by: what a probe engine is measured on.

Every server has an address of its own in 127.0.0.0/8; a few ports answer for all of them, bound to the loopback device,
so that nothing else can reach them and 10,000 servers need no 10,000 descriptors. What a server does and how long it
takes stands in its path. The farm runs in processes of its own (`python -m benchmarks.farm servers` and `names`): its
CPU is nobody else's. Where the system allows it (user namespaces, no root), it lives in a network and a file system
view of its own. Only there can `getaddrinfo` be pointed at our names: it reads /etc/resolv.conf and asks port 53.

Either process ends when its standard input does, so nothing stays behind however the benchmark ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, NamedTuple, cast

ROOT = Path(__file__).parent.parent
READY_WITHIN = 20.0
LOOPBACK = b"lo"

# ---------------------------------------------------------------------------------------------------- who is there

# Per mille of the servers, and whether one is up. 92 % are, in the forms that real MCP servers answer in.
KINDS: dict[str, tuple[int, bool]] = {
    "json": (600, True),  # 200, a JSON-RPC result
    "events": (140, True),  # 200, the result as a server-sent event, chunked
    "chunked": (80, True),  # 200, the result in chunks
    "older": (80, True),  # 400, a JSON-RPC error: every server from before server/discover
    "gated": (20, True),  # 401
    "refused": (30, False),  # nobody listens
    "silent": (15, False),  # takes the connection and the request, never answers
    "unaccepted": (15, False),  # its queue is full: the connection is never made
    "page": (5, False),  # 200, a web page
    "endless": (5, False),  # 200, JSON that never ends and is no JSON-RPC, as fast as it is read
    "drip": (4, False),  # 200, an octet every half second: each read succeeds, the answer never comes
    "garbage": (3, False),  # no HTTP
    "half": (3, False),  # 200, hangs up in the middle of a result
}
# Of those that answer: 60 % within 1 to 20 ms, 30 % within 20 to 200 ms, 10 % within 200 ms to 1 s.
DELAYS = ((60, 1, 20), (30, 20, 200), (10, 200, 1_000))
SEED = 20261122
CHANGING = 0.03
FIRST_ADDRESS = int(ipaddress.IPv4Address("127.1.0.1"))

ZONE = "farm.test"
# A name in here is never answered, as one whose name servers are gone.
DEAD_ZONE = "gone.test"

# A handshake is with one of these addresses: the certificate names each, as an owner's would name its one.
TLS_ADDRESSES = 32
OWN_AUTHORITY = "authority.pem"


class Server(NamedTuple):
    """One server of the farm, and the truth about it.

    `before`: the kind that it was of in the sweep before, where it has changed since.
    """

    number: int
    address: str
    name: str
    port: int
    path: str
    up: bool
    before: str | None = None

    @property
    def kind(self) -> str:
        """What it does."""
        return self.path.split("/")[1]


class Ports(NamedTuple):
    """Where the farm listens, at every address."""

    plain: int
    # With a certificate of the farm's authority, and with one of an authority that nobody trusts.
    tls: int
    untrusted: int
    # Nobody listens here.
    refused: int
    # Its queue is full.
    unaccepted: int


def mixed(ports: Ports, count: int, dead: int = 0) -> list[Server]:
    """The farm of `count` servers, the same at each call; `dead` of those that are up have a name never to be found."""
    chance = random.Random(SEED)
    kinds = [kind for kind, (share, _) in KINDS.items() for _ in range(round(share * count / 1000))]
    kinds = (kinds + ["json"] * count)[:count]
    chance.shuffle(kinds)
    gone = set(chance.sample([number for number, kind in enumerate(kinds) if KINDS[kind][1]], dead))
    servers: list[Server] = []
    for number, kind in enumerate(kinds):
        _, low, high = chance.choices(DELAYS, [share for share, _, _ in DELAYS])[0]
        port = {"refused": ports.refused, "unaccepted": ports.unaccepted}.get(kind, ports.plain)
        name = f"s{number}.{DEAD_ZONE if number in gone else ZONE}"
        path = f"/{kind}/{chance.randint(low, high)}"
        servers.append(Server(number, _address(number), name, port, path, KINDS[kind][1] and number not in gone))
    return servers


def changing(ports: Ports, count: int) -> list[Server]:
    """The same farm, in which 3 % have changed their mind since the last sweep, a third of them each way.

    Some answer in another form and are up, some are gone, and some are back.
    """
    servers = mixed(ports, count)
    able = [server for server in servers if server.kind == "json"][: round(CHANGING * count)]
    for place, server in enumerate(able):
        path = server.path.replace("json", "mcp")
        match place % 3:
            case 0:
                changed = server._replace(path=path, before="json")
            case 1:
                changed = server._replace(port=ports.refused, up=False, before="json")
            case _:
                changed = server._replace(path=path, before="refused")
        servers[server.number] = changed
    return servers


def encrypted(ports: Ports, count: int) -> list[Server]:
    """Servers that answer over TLS within 1 to 20 ms; one in 50 has a certificate that nobody should believe."""
    return [
        Server(number, address, address, ports.tls if up else ports.untrusted, f"/json/{1 + number % 20}", up)
        for number in range(count)
        for address, up in ((_address(number % TLS_ADDRESSES), number % 50 != 49),)
    ]


def _address(number: int) -> str:
    return str(ipaddress.IPv4Address(FIRST_ADDRESS + number))


# ------------------------------------------------------------------------------------------------------ the answers

_RESULT = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {
            "supportedVersions": ["2026-07-28", "2025-11-25"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "farm", "version": "1.0.0"},
            "instructions": "One of many. " * 20,
        },
    }
).encode()
_ERROR = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "Missing session ID"}}).encode()
_PAGE = b"<!doctype html><title>It works</title>" + b"<p>Nothing to see.</p>" * 40
_EVENT = b"event: message\ndata: " + _RESULT + b"\n\n"


def _answer(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nserver: farm\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunks(kind: str, *chunks: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nserver: farm\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


# The handshake that makes each of those that are up an MCP server, by the method in a request.
_MCP = {
    b'"initialize"': {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "farm", "version": "2.0.0"},
    },
    b'"tools/list"': {"tools": [{"name": f"tool-{number}", "inputSchema": {"type": "object"}} for number in range(20)]},
}
ANSWERS = {
    "json": _answer("200 OK", "application/json", _RESULT),
    "events": _chunks("text/event-stream", _EVENT, b""),
    "chunked": _chunks("application/json", _RESULT[:100], _RESULT[100:], b""),
    "older": _answer("400 Bad Request", "application/json", _ERROR),
    "gated": _answer("401 Unauthorized", "application/json", b'{"error":"invalid_token"}'),
    "page": _answer("200 OK", "text/html", _PAGE),
    "garbage": b"\x16\x03\x01\x02\x00" * 40,
    "half": _answer("200 OK", "application/json", _RESULT)[:-200],
    "endless": _chunks("application/json", b'{"log":"'),
    "drip": _answer("200 OK", "application/json", _RESULT)[: -len(_RESULT)],
}
# A plain service would be healthy by its /health; none of these is one.
_NOT_FOUND = _answer("404 Not Found", "text/plain", b"Not Found")
_MORE = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
_DRIP_SECONDS = 0.5


# Those with whom a client can begin: all that are up but `gated`, and `mcp` of `changing`.
_SPEAKING = frozenset({b"json", b"events", b"chunked", b"older", b"mcp"})


def _of_mcp(kind: bytes, request: bytes) -> bytes | None:
    """What is answered to a step of the handshake; None where it is none."""
    if b'"notifications/initialized"' in request:
        return _answer("202 Accepted", "text/plain", b"")
    for method, result in _MCP.items():
        if method in request:
            found = re.search(rb'"id":(\d+)', request)
            body = json.dumps({"jsonrpc": "2.0", "id": int(found[1]) if found else 0, "result": result}).encode()
            if kind == b"events":
                return _chunks("text/event-stream", b"event: message\ndata: " + body + b"\n\n", b"")
            return _answer("200 OK", "application/json", body)
    # Who has changed its mind answers anything else in another way than before.
    return _answer("404 Not Found", "application/json", _ERROR) if kind == b"mcp" else None


class _Connection(asyncio.Protocol):
    """Answers requests as their paths say, after the time that they say."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None
        self._flows = True
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        self._received += data
        get = self._received.startswith(b"GET ")
        # A probe's body is a JSON object or says that it is none, and no line of a head ends so: no need to count.
        if not self._received.endswith(b"\r\n\r\n" if get else (b"}", b"no JSON")):
            return
        head = self._received
        self._received = b""
        kind, _, milliseconds = head.split(b" ", 2)[1][1:].partition(b"/")
        milliseconds = milliseconds.partition(b"/")[0]
        hang_up = b"onnection: close" in head
        if get or not milliseconds.isdigit():
            self._timer = self._loop.call_later(0.001, self._send, _NOT_FOUND, hang_up)
        elif kind in _SPEAKING and (answer := _of_mcp(kind, head)) is not None:
            self._timer = self._loop.call_later(int(milliseconds) / 1000, self._send, answer, hang_up)
        elif kind != b"silent":
            self._timer = self._loop.call_later(int(milliseconds) / 1000, self._reply, kind.decode(), hang_up)

    def _reply(self, kind: str, hang_up: bool) -> None:
        self._send(ANSWERS[kind], hang_up=(hang_up and kind not in ("endless", "drip")) or kind in ("half", "garbage"))
        if kind == "endless":
            self._go_on()
        elif kind == "drip":
            self._drip()

    def _send(self, answer: bytes, hang_up: bool) -> None:
        assert self._transport is not None
        self._transport.write(answer)
        if hang_up:
            self._transport.close()

    def _go_on(self) -> None:
        assert self._transport is not None
        if self._timer:
            self._timer.cancel()
        if self._flows and not self._transport.is_closing():
            self._transport.write(_MORE)
            self._timer = self._loop.call_later(0, self._go_on)

    def _drip(self) -> None:
        self._send(b"{", hang_up=False)
        self._timer = self._loop.call_later(_DRIP_SECONDS, self._drip)

    def pause_writing(self) -> None:
        self._flows = False

    def resume_writing(self) -> None:
        self._flows = True
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        if self._timer:
            self._timer.cancel()
        self._flows = False


async def _serve(bundle: Path) -> None:
    """Listen, say where on standard output, and answer until standard input ends."""
    loop = asyncio.get_running_loop()
    trusted, untrusted = _certificates(bundle)
    ports: list[int] = []
    for context in (None, trusted, untrusted):
        listener = _listener(backlog=4096)
        await loop.create_server(lambda: _Connection(loop), sock=listener, ssl=context)
        ports.append(listener.getsockname()[1])
    # Bound and not listening: refused, and nobody else gets the port.
    refused = _listener(backlog=None)
    full = _listener(backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    for client in waiting:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", full.getsockname()[1]))
    ports += [refused.getsockname()[1], full.getsockname()[1]]
    print(json.dumps(ports), flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()
    for held in (refused, full, *waiting):
        held.close()


def _listener(backlog: int | None) -> socket.socket:
    """A socket for every address of the loopback device and of no other, on a free port."""
    listener = socket.socket()
    # Allowed without root since Linux 5.7, for a socket that is bound to no device yet.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LOOPBACK)
    listener.bind(("0.0.0.0", 0))
    if backlog is not None:
        listener.listen(backlog)
    listener.setblocking(False)
    return listener


def _certificates(bundle: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of the trusted and the untrusted servers. Adds the farm's authority to the bundle that clients load."""
    import trustme

    contexts: list[ssl.SSLContext] = []
    addresses = [_address(number) for number in range(TLS_ADDRESSES)]
    for trusted in (True, False):
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without tickets no session is resumed: each handshake is a full one, whatever a client keeps.
        context.num_tickets = 0
        authority.issue_cert(*addresses).configure_cert(context)
        if trusted:
            with bundle.open("ab") as file:
                file.write(authority.cert_pem.bytes())
            bundle.with_name(OWN_AUTHORITY).write_bytes(authority.cert_pem.bytes())
        contexts.append(context)
    return contexts[0], contexts[1]


# -------------------------------------------------------------------------------------------------------- the names

_A = 1


def _serve_names(port: int) -> None:
    """Answer look-ups over UDP until standard input ends. The dead zone is asked in vain."""
    served = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # A sweep asks for a thousand names at once; what doesn't fit is lost, and a lost question costs two seconds.
    served.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    served.bind(("127.0.0.1", port))
    served.setblocking(False)
    print(served.getsockname()[1], flush=True)
    dead = b"".join(bytes([len(label)]) + label for label in DEAD_ZONE.encode().split(b"."))
    while sys.stdin not in (ready := select.select([served, sys.stdin], [], [])[0]):
        while ready:
            try:
                question, client = served.recvfrom(512)
            except BlockingIOError:
                break
            end = question.index(b"\0", 12)
            name = question[12:end]
            if name.endswith(dead):
                continue
            kind = int.from_bytes(question[end + 1 : end + 3], "big")
            found = kind == _A
            answer = question[:2] + struct.pack(">HHHHH", 0x8180, 1, found, 0, 0) + question[12 : end + 5]
            if found:
                number = int(name[2 : 1 + name[0]])
                address = (FIRST_ADDRESS + number).to_bytes(4, "big")
                answer += struct.pack(">HHHIH", 0xC00C, _A, 1, 60, 4) + address
            served.sendto(answer, client)


# -------------------------------------------------------------------------------------------------------- the farm


class Farm(NamedTuple):
    """A running farm: where it is, and how a client gets to it."""

    ports: Ports
    names_port: int
    # Certificates: the authorities of the public web, as many as a client loads anywhere, and the farm's.
    bundle: Path
    # What a client's command starts with, to be where the farm is; nothing where that is here.
    enter: tuple[str, ...]

    @property
    def own_namespace(self) -> bool:
        """Whether /etc/resolv.conf names the farm's own name server, for whoever enters."""
        return bool(self.enter)


@contextmanager
def farm(*, own_namespace: bool | None = None) -> Generator[Farm]:
    """Start the farm, stop it at the end. `own_namespace`: as given, by default where the system allows it."""
    apart = namespaces() if own_namespace is None else own_namespace
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="registry-farm-")))
        bundle = folder / "authorities.pem"
        shutil.copyfile(_public_authorities(), bundle)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="ascii")
        (folder / "nsswitch.conf").write_text("hosts: files dns\n", encoding="ascii")
        command = _NAMESPACES if apart else ()
        where = "apart" if apart else "here"
        servers = stack.enter_context(_process([*command, *_MODULE, "servers", where, str(folder)]))
        ports = Ports(*json.loads(_line(servers)))
        enter = ("nsenter", f"--target={servers.pid}", *_NAMESPACE_FLAGS, "--preserve-credentials") if apart else ()
        names = stack.enter_context(_process([*enter, *_MODULE, "names", "53" if apart else "0"]))
        yield Farm(ports, int(_line(names)), bundle, enter)


_MODULE = (sys.executable, "-m", "benchmarks.farm")
_NAMESPACE_FLAGS = ("--user", "--mount", "--net")
_NAMESPACES = ("unshare", *_NAMESPACE_FLAGS, "--map-root-user")


def namespaces() -> bool:
    """Whether this user may make namespaces, which some systems forbid."""
    tools = all(shutil.which(tool) for tool in ("unshare", "nsenter", "mount"))
    return tools and subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


def environment() -> dict[str, str]:
    """What a process of ours finds its modules by: entering a namespace changes the folder it starts in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers" / "registry")])}


def raise_descriptor_limit(needed: int) -> None:
    """Allow this process as many descriptors as it may have. Raises RuntimeError where they are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RuntimeError(f"{needed} descriptors are needed, and `ulimit -Hn` allows {hard}")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _public_authorities() -> str:
    import certifi

    return certifi.where()


@contextmanager
def _process(command: Sequence[str]) -> Generator[subprocess.Popen[str]]:
    """A process that ends when its standard input is closed."""
    process = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        cast("IO[str]", process.stdin).close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        cast("IO[str]", process.stdout).close()


def _line(process: subprocess.Popen[str]) -> str:
    """The first line that a process prints. Raises RuntimeError where there is none."""
    output = cast("IO[str]", process.stdout)
    if not select.select([output], [], [], READY_WITHIN)[0] or not (line := output.readline()):
        raise RuntimeError(f"not ready: {process.args}")
    return line


def _settle(folder: Path) -> None:
    """Make a fresh namespace habitable: its loopback device is down, and it still sees the system's resolv.conf."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        get_flags, set_flags, up = 0x8913, 0x8914, 1
        flags = struct.unpack("16sh", fcntl.ioctl(control, get_flags, struct.pack("16sh", LOOPBACK, 0)))[1]
        fcntl.ioctl(control, set_flags, struct.pack("16sh", LOOPBACK, flags | up))
    for name in ("resolv.conf", "nsswitch.conf"):
        subprocess.run(["mount", "--bind", str(folder / name), f"/etc/{name}"], check=True)


def main(arguments: Sequence[str]) -> None:
    """Be the farm's servers, or its name server."""
    what, *rest = arguments
    if what == "names":
        _serve_names(int(rest[0]))
        return
    where, folder = rest
    if where == "apart":
        _settle(Path(folder))
    raise_descriptor_limit(4096)
    uvloop: Any = __import__("uvloop")
    uvloop.run(_serve(Path(folder) / "authorities.pem"))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches the benchmark, which closes our standard input
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
