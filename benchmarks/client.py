"""A lean HTTP client with a fixed number of keep-alive connections: `python -m benchmarks.client`, a JSON job on stdin.

In a process of its own, so that its work is nobody else's. Prints how many requests were answered in how many seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Any, cast

from benchmarks.catalogue import registration


class Connection(asyncio.Protocol):
    """Sends one request after the other, each when the answer to the one before is complete."""

    def __init__(self, requests: Iterator[bytes], ends: float, expected: int, done: asyncio.Future[int]) -> None:
        """Send what `requests` gives until the moment `ends`; every answer must have the status `expected`."""
        self._requests, self._ends, self._expected, self._done = requests, ends, b" %d " % expected, done
        self._buffer = bytearray()
        self._needed = 0
        self._answered = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by class
        self._next()

    def data_received(self, data: bytes) -> None:
        """Go on where the answer is complete."""
        self._buffer += data
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            if self._expected not in head[:16]:
                self._fail(bytes(self._buffer[:500]))
                return
            self._needed = end + 4 + int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._buffer) >= self._needed:
            self._buffer.clear()
            self._needed = 0
            self._answered += 1
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """No server may hang up on us."""
        if not self._done.done():
            self._fail(b"connection lost")

    def _next(self) -> None:
        request = next(self._requests, None) if time.perf_counter() < self._ends else None
        assert self._transport is not None
        if request is None:
            self._done.set_result(self._answered)
            self._transport.close()
        else:
            self._transport.write(request)

    def _fail(self, what: bytes) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(f"unexpected answer: {what!r}"))


def requests_of(job: dict[str, Any]) -> Iterator[bytes]:
    """The bytes of the job's requests, made before the clock runs."""
    head = (
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {authorization}\r\n"
        "Accept: application/json\r\nUser-Agent: benchmarks\r\n"
    )
    job = {"method": "GET", **job}
    if job["kind"] == "register":
        requests: list[bytes] = []
        for number in range(job["first"], job["first"] + job["count"]):
            body = json.dumps(registration(number), separators=(",", ":")).encode()
            start = head.format_map({**job, "method": "POST", "path": "/api/registry/register"})
            start += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            requests.append(start.encode() + body)
        return iter(requests)
    if job["kind"] == "detail":
        paths = [f"/api/registry/servers/{id_}" for id_ in range(1, job["count"] + 1)]
    else:
        paths = ["/api/registry/servers?limit=100"]
    return cycle([(head + "\r\n").format_map({**job, "path": path}).encode() for path in paths])


async def run(job: dict[str, Any]) -> tuple[int, float]:
    """Do a job; give the number of answers and the seconds that they took together."""
    requests = requests_of(job)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    ends = started + job["seconds"]
    done = [loop.create_future() for _ in range(job["connections"])]
    expected = 201 if job["kind"] == "register" else 200
    for future in done:
        await loop.create_connection(lambda f=future: Connection(requests, ends, expected, f), "127.0.0.1", job["port"])
    answered = sum(await asyncio.gather(*done))
    return answered, time.perf_counter() - started


def main() -> None:
    """Do the job on stdin."""
    import uvloop

    answered, seconds = uvloop.run(run(json.load(sys.stdin)))
    print(json.dumps({"answered": answered, "seconds": seconds}))


if __name__ == "__main__":
    main()
