"""What a process pays for announcing itself, whatever answers in the place of its registry.

A process of its own announces a server again and again, without pauses. It is answered in every wrong way in turn:
without end, with what no parser takes, with what Python's own parser of HTTP took for more than it is, and once in a
round as a registry does. What the process needs is told by itself: its CPU, which is next to nothing but the
announcer's, and its anonymous memory, now and at most.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mcp_registry_client import _announcer, _settings
from mcp_registry_client._document import Draft

from tests.conftest import ROOT, registration
from tests.hostile import CHUNKED, FLOODS, HEAD
from tests.proof import Line, at_most, interrupted

ROUNDS = 4  # times scale ...
MOST_ROUNDS = 100  # ... up to this
# An answer of 64 KiB took 2 to 17 ms, the most where it is of chunks of a byte (2026-11-30).
CPU_SECONDS = 0.05
# What the process may take on after the first half of its rounds, and have more at any moment than before all of them.
# Forty rounds cost 0 and 1.2 MB (2026-11-30).
GROWTH_MB, PEAK_MB = 2.0, 12.0

KNOWN = b"HTTP/1.1 204 No Content\r\n\r\n"
DEEP = b"[" * 60_000
WIDE = b'{"error":[' + b"[]," * 20_000 + b"[]]}"
ANSWERS: dict[str, tuple[bytes, bytes]] = {
    **FLOODS,
    "a size below 0": (CHUNKED + b"-1\r\n", bytes(0x10000)),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
    "deep JSON": (HEAD.replace(b"200", b"503") + b"Content-Length: 60000\r\n\r\n" + DEEP, b""),
    "wide JSON": (HEAD.replace(b"200", b"400") + b"Content-Length: %d\r\n\r\n" % len(WIDE) + WIDE, b""),
    "no HTTP": (bytes(0x10000), b""),
    "nothing": (b"", b""),
    "what is due": (KNOWN, b""),
}


class Told(NamedTuple):
    """What the process says of itself: seconds of CPU, MB of memory and at most, and how far its announcing is."""

    cpu: float
    memory: float
    peak: float
    state: str


class Registry:
    """What answers in the place of a registry, with one answer after the other."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answered = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # it is closed
            for first, more in itertools.cycle(ANSWERS.values()):
                connection, _ = self._listener.accept()
                with suppress(OSError), connection:
                    connection.settimeout(30)
                    connection.recv(0x10000)
                    connection.sendall(first)
                    while more:
                        connection.sendall(more)
                with self._changed:
                    self._answered += 1
                    self._changed.notify_all()

    def wait_for(self, rounds: int, seconds: float) -> bool:
        """Whether so many rounds have been answered within these seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: interrupted.is_set() or self._answered >= rounds * len(ANSWERS), seconds
            )

    def close(self) -> None:
        """Answer nobody any more."""
        self._listener.close()


def prove(scale: int) -> list[Line]:
    """`ROUNDS` times scale of every answer, to one process."""
    rounds = min(ROUNDS * scale, MOST_ROUNDS)
    patience = 30.0 + rounds * 5
    registry = Registry()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client" / "src")])}
    command = [sys.executable, "-m", "tests.load.announcer", registry.url]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=nowhere, text=True
    ) as process:
        try:
            came = registry.wait_for(1, patience)  # the modules that an answer needs are loaded
            first = _told(process)
            came = came and registry.wait_for(max(rounds // 2, 2), patience)
            middle = _told(process)
            came = came and registry.wait_for(rounds, patience)
            last = _told(process)
        finally:
            process.kill()
            registry.close()
    number = (rounds - 1) * len(ANSWERS)
    told = f"{'all' if came else 'not all'} were asked for; {last.state}"
    met = came and last.state == "registered"
    kept = "announcer: memory kept of the second half of the answers"
    return [
        Line(f"announcer: {rounds} times {len(ANSWERS)} answers do not end it", "all; registered", told, met),
        at_most("announcer: CPU of an answer", CPU_SECONDS, (last.cpu - first.cpu) / number, "s"),
        at_most(kept, GROWTH_MB, last.memory - middle.memory, "MB"),
        at_most("announcer: memory at any moment, more than before", PEAK_MB, last.peak - first.memory, "MB"),
    ]


def _told(process: subprocess.Popen[str]) -> Told:
    """What the process says of itself now."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return Told(*json.loads(process.stdout.readline()))


# ------------------------------------------------------------------ the process


class _Source:
    def draft(self) -> Draft:
        return Draft(registration("announced"))


def _announce(url: str) -> None:
    """Announce a server, and say what that takes whenever a line comes."""
    pace = _announcer.Pace(first=0.0, longest=0.0, window=0.0, again=0.0, deadline=30.0)
    handle = _announcer.Registration(_Source(), _settings.Settings(url, "user", "password"), pace)
    handle.start()
    for _ in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        lines = Path("/proc/self/status").read_text().splitlines()
        fields = (line.partition(":") for line in lines)
        sizes = {name: int(size.split()[0]) / 1024 for name, _, size in fields if size.endswith("kB")}
        # The most that it had of all its memory (that of getrusage may be the parent's), less what stands in files.
        peak = sizes["VmHWM"] - sizes["RssFile"] - sizes["RssShmem"]
        print(json.dumps(Told(used.ru_utime + used.ru_stime, sizes["RssAnon"], peak, handle.state)), flush=True)


if __name__ == "__main__":
    _announce(sys.argv[1])
