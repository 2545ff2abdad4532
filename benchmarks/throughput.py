"""How many requests a second the local run answers, with authorizer and database, against the baseline under uvicorn.

Eight keep-alive connections of one client process, in turns against either server; both hold the same servers, each in
a database of its own on the same Postgres. Both write their line for each request, to a file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from benchmarks.catalogue import database, execute
from benchmarks.report import Result, alternate, figure, medians, table
from benchmarks.requests import AUTHORIZATION, PASSWORD, ROOT, USERNAME

Found = TypeVar("Found")

CONNECTIONS = 8
SERVERS = 1_000
SECONDS = 1.5
ROUNDS = 5
# More than any server takes in a round; the client stops at the end of the time.
REGISTRATIONS = 2_000
BAR = 1.0
READY_WITHIN = 60.0


class Job:
    """Gives each round of registrations names that nobody has taken yet."""

    def __init__(self, port: int) -> None:
        """For the server on this port."""
        self._port = port
        self._first = 1

    def measure(self, kind: str, seconds: float = SECONDS, count: int = SERVERS) -> float:
        """Let a client process send requests of a kind; give the answers per second."""
        job: dict[str, Any] = {
            "kind": kind,
            "port": self._port,
            "authorization": AUTHORIZATION,
            "connections": CONNECTIONS,
            "seconds": seconds,
            "count": count,
            "first": self._first,
        }
        if kind == "register":
            self._first += count
        client = subprocess.run(
            [sys.executable, "-m", "benchmarks.client"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
        )
        if client.returncode:
            raise RuntimeError(client.stderr[-2_000:])
        answer = json.loads(client.stdout)
        return answer["answered"] / answer["seconds"]


def run(server_url: str) -> list[Result]:
    """Measure list, detail and register on both servers and print what they answered."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="registry-bench-")))
        jobs = {
            "ours": Job(stack.enter_context(local_run(database(server_url, "throughput_ours"), folder))),
            "baseline": Job(stack.enter_context(_baseline(server_url, folder))),
        }
        for name, job in jobs.items():
            job.measure("register", 60.0, SERVERS)
            execute(f"{server_url.rpartition('/')[0]}/throughput_{name}", "VACUUM ANALYZE")
        rows = [("requests/s", "ours", "of them least", "baseline", "of them least", "ratio")]
        results: list[Result] = []
        for kind, what in (("list", "list of 100"), ("detail", "detail"), ("register", "register")):
            count = REGISTRATIONS if kind == "register" else SERVERS
            for job in jobs.values():
                job.measure(kind, 0.5, count)
            measured = alternate({name: _subject(job, kind, count) for name, job in jobs.items()}, ROUNDS)
            middle = medians(measured)
            result = Result(f"requests/s: {what}", middle["ours"], middle["baseline"], "/s", BAR, more_is_better=True)
            least = {name: figure(min(figures)) for name, figures in measured.items()}
            rows.append(
                (
                    what,
                    figure(result.ours),
                    least["ours"],
                    figure(result.baseline),
                    least["baseline"],
                    f"{result.ratio:.2f}",
                )
            )
            results.append(result)
    print(table(rows))
    return results


def _subject(job: Job, kind: str, count: int) -> Callable[[], float]:
    return lambda: job.measure(kind, count=count)


# ------------------------------------------------------------------ the servers


@contextmanager
def local_run(url: str, folder: Path, **settings: str) -> Generator[int]:
    """The local run, on a database of its own, starting no sweeps by itself; gives its port."""
    environment = {"DATABASE_URL": url, "PORT": "0", "HEALTH_SWEEPS": "off", **settings}
    with _process("ours", [sys.executable, "-m", "local"], environment, folder) as log:
        ready = _until(
            lambda: re.search(r"MCP Registry ready on http://127\.0\.0\.1:(\d+)", log.read_text("utf-8")), log
        )
        yield int(ready[1])


@contextmanager
def _baseline(server_url: str, folder: Path) -> Generator[int]:
    """The baseline under uvicorn with one worker, on a database of its own; gives its port."""
    url = database(server_url, "throughput_baseline")
    execute(url, (ROOT / "benchmarks" / "baseline.sql").read_text(encoding="utf-8"))  # pyright: ignore[reportArgumentType]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.baseline:app", "--host", "127.0.0.1", "--port", str(port)]
    with _process("baseline", command, {"DATABASE_URL": url}, folder) as log:

        def answers() -> bool:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                return response.status == 200
            return False

        _until(answers, log)
        yield port


@contextmanager
def _process(name: str, command: Sequence[str], environment: dict[str, str], folder: Path) -> Generator[Path]:
    """A server for the time of a measurement; gives the file that it writes to."""
    log = folder / f"{name}.log"
    given = {**os.environ, "REGISTRY_USERNAME": USERNAME, "REGISTRY_PASSWORD": PASSWORD, **environment}
    given.pop("POOL_SIZE", None)
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(condition: Callable[[], Found | None], log: Path) -> Found:
    """Wait until a condition gives something. Raises RuntimeError with the log where it never does."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise RuntimeError(f"not ready: {log.read_text('utf-8')[-2_000:]}")
