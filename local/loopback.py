"""Ports that only this machine reaches. The standard library only: they are tried before anything is installed."""

import socket

HOST = "127.0.0.1"


def bind(port: int) -> socket.socket:
    """Take a port of 127.0.0.1 (0: any free one) and listen. Raises OSError where it is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        # Listening is what makes a port taken: with SO_REUSEADDR two programs may bind it.
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    return sock
