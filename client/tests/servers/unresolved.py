"""Another program of this folder, where the resolver hangs for every name that has to be asked for."""
# pyright: basic

from __future__ import annotations

import runpy
import socket
import sys
import threading

real = socket.getaddrinfo


def hang(host, *arguments, **options):
    """Take for ever, but for this machine and for addresses."""
    if host == "registry.example" and not options.get("flags"):
        threading.Event().wait()
    return real(host, *arguments, **options)


socket.getaddrinfo = hang
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
