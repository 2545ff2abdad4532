"""Ports that only this machine reaches. The standard library only: they are tried before anything is installed.

Whoever has an account on the machine can connect to them, and so can each program that they run and each page that
their browser shows. What answers there for one caller alone has to know that caller (`belongs_to`).
"""

import errno
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
# Where the parts of a run reach each other: an address that nothing else listens on, so that the guard can close it to
# the prober, which may ask the rest of the loopback. On Linux all of 127.0.0.0/8 is this machine; elsewhere it is HOST.
INNER = "127.77.67.80"
# Of Linux (proc_pid_net(5)): each with its two ends and the inode of its socket.
CONNECTIONS = Path("/proc/self/net/tcp")

Address = tuple[str, int]


def bind(port: int, host: str = HOST) -> socket.socket:
    """Take a port of an address of the loopback (0: any free one) and listen. Raises OSError where it is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        # Listening is what makes a port taken: with SO_REUSEADDR two programs may bind it.
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock


def bind_inner() -> socket.socket:
    """Take a free port for the run's own parts, and listen."""
    try:
        return bind(0, INNER)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return bind(0)


def belongs_to(pid: int, caller: Address, ours: Address) -> bool:
    """Whether the end `caller` of a connection to `ours` is open in this process; False where that cannot be told."""
    if CONNECTIONS.exists():
        return _socket_of(caller, ours) in _sockets_of(pid)
    return _listed(pid, caller, ours)


def _socket_of(caller: Address, ours: Address) -> str:
    """A connection's end as its process has it; what no process has where there is none."""
    ends = [_as_the_kernel_writes(caller), _as_the_kernel_writes(ours)]
    for line in CONNECTIONS.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return f"socket:[{fields[9]}]"
    return ""


def _as_the_kernel_writes(address: Address) -> str:
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"


def _sockets_of(pid: int) -> set[str]:
    found: set[str] = set()
    with suppress(OSError):  # it has ended, or is not ours
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.add(str(descriptor.readlink()))
    return found


def _listed(pid: int, caller: Address, ours: Address) -> bool:
    """The same by lsof, which macOS has: `n127.0.0.1:50000->127.0.0.1:40000` is a line of what it says."""
    command = ["lsof", "-nP", "-a", "-p", str(pid), f"-iTCP@{ours[0]}:{ours[1]}", "-Fn"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    name = f"n{caller[0]}:{caller[1]}->{ours[0]}:{ours[1]}"
    return re.search(f"^{re.escape(name)}$", said, re.MULTILINE) is not None
