"""The sockets on which this process listens, and what answers on them.

Which port a server gets is said in many places (an argument of `run`, a command line, a variable), and last of all by
the operating system. So it is not guessed: the descriptors of the process are looked through.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import Any, NamedTuple, cast

from mcp_registry_client import _transport
from mcp_registry_client._answer import Room

# Linux and macOS list a process's own descriptors here. Elsewhere the ports that are usual are tried.
DESCRIPTORS = "/dev/fd"
USUAL_PORTS = (8000, 8080, 3000)
MAX_ANSWER = 64 * 1024  # all bytes of an answer: in our own process anything may listen
FAMILIES = {socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", socket.AF_INET)}  # Windows has no third
# Where a socket is bound to every address, it is reached by this one.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


class Address(NamedTuple):
    """Where a socket of this process listens."""

    family: int
    address: Any  # as `socket.connect` takes it

    @property
    def port(self) -> int | None:
        """The port; None for a socket in the file system."""
        return self.address[1] if isinstance(self.address, tuple) else None

    @property
    def authority(self) -> str:
        """The address as it stands in a URL and in the Host header."""
        if not isinstance(self.address, tuple):
            return "localhost"
        host, port = self.address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connect(self, deadline: _transport.Deadline, *, tls: bool) -> socket.socket:
        """A connection to ourselves; under TLS whatever the certificate says, for it is made for another name."""
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.left())
            sock.connect(self.address)
            return _transport.secured(sock, "localhost", deadline, verified=False) if tls else sock
        except BaseException:
            sock.close()
            raise


def addresses(hint: int | None = None) -> list[Address]:
    """Where this process listens. `hint` is a port to try where the system does not say."""
    try:
        descriptors = os.listdir(DESCRIPTORS)  # noqa: PTH208 - pathlib takes 10 ms to import, for strings
    except OSError:
        ports = dict.fromkeys(port for port in (hint, *USUAL_PORTS) if port)
        return [Address(socket.AF_INET, ("127.0.0.1", port)) for port in ports]
    found: dict[str, Address] = {}
    for name in descriptors:
        if (address := _listener(int(name))) is not None:
            found[repr(address)] = address
    return list(found.values())


def _listener(descriptor: int) -> Address | None:
    """The address of a listening stream socket; None for everything else, and for what was closed meanwhile."""
    with suppress(OSError):
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        blocking = os.get_blocking(descriptor)
        sock = socket.socket(fileno=descriptor)
        try:
            if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            bound, family = sock.getsockname(), sock.family
            if family not in FAMILIES:  # between virtual machines, say: nothing that HTTP clients call
                return None
        finally:
            sock.detach()  # it is somebody else's: it must not be closed with this object
            if os.get_blocking(descriptor) != blocking:  # where the host has set a default timeout
                os.set_blocking(descriptor, blocking)
        if isinstance(bound, tuple):
            host, *rest = cast("tuple[Any, ...]", bound)
            return Address(family, (LOOPBACK.get(host, host), *rest))
        # The helpers of multiprocessing listen too, and fail at what is not theirs.
        return Address(family, bound) if bound and b"/pymp-" not in os.fsencode(bound) else None
    return None


class Heard(NamedTuple):
    """What answered on one of our sockets."""

    response: _transport.Response
    tls: bool


class Shut(_transport.Failed):
    """TLS was agreed on, and then nothing was answered: so does whoever wants a certificate of its clients."""


def ask(
    address: Address,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes = b"",
    *,
    seconds: float,
    tls: bool = False,
) -> Heard:
    """Ask one of our own sockets: under TLS where `tls` says so, otherwise in plain text.

    Under TLS too where plain text is answered by TLS, or by nothing, as most servers of TLS do. Raises Failed.
    """
    for secure in (True,) if tls else (False, True):
        deadline = _transport.Deadline(seconds)
        agreed: list[bool] = []

        def connect(
            secure: bool = secure, deadline: _transport.Deadline = deadline, agreed: list[bool] = agreed
        ) -> socket.socket:
            sock = address.connect(deadline, tls=secure)
            agreed.append(secure)
            return sock

        try:
            response = _transport.exchange(connect, method, path, headers, body, deadline, Room(MAX_ANSWER))
            return Heard(response, secure)
        except _transport.Failed as failure:
            if agreed == [True] and failure.kind in ("closed", "tls"):
                raise Shut(failure.kind, str(failure)) from None
            if secure or failure.kind not in ("closed", "tls"):
                raise
    raise AssertionError  # the last turn returns or raises
