"""What it costs to know who is calling, warm: CPU of verifying a token of a trusted issuer, against a millisecond.

The issuer is a real one on the loopback (tests/issuer.py), and its keys are there before. What loading the verifier
costs a cold start is in `cold_start`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from benchmarks.report import Result, alternate, figure, medians, table
from mcp_registry.access import issuers
from mcp_registry.dial import guard
from tests.issuer import Key, Server

BAR_MS = 1.0
ROUNDS, TOKENS = 11, 100
AUDIENCE = "https://registry.example"
RULE = issuers.Rule("bench", AUDIENCE, {"sub": "arn:aws:iam::123456789012:role/mcp-*"}, "publisher", "tools")


def run() -> list[Result]:
    """Measure a verification by each algorithm, and one that is remembered, and print what they took."""
    opened = os.environ.get(guard.OPEN)
    os.environ[guard.OPEN] = "127.0.0.0/8"
    try:
        with Server() as server:
            subjects = {name: _subject(server, name) for name in issuers.ALGORITHMS}
            subjects["one that is remembered"] = _remembered(server)
            measured = medians(alternate(subjects, ROUNDS))
    finally:
        del os.environ[guard.OPEN]
        if opened is not None:
            os.environ[guard.OPEN] = opened
    print(table([("a token of an issuer", "CPU ms"), *((name, figure(ms)) for name, ms in measured.items())]))
    return [Result(f"a token of an issuer, {name}", ms, BAR_MS, "ms", 1.0) for name, ms in measured.items()]


def _subject(server: Server, algorithm: str) -> Callable[[], float]:
    """A subject that verifies tokens that it has not seen; CPU of one in milliseconds."""
    issuer = server.issuer(algorithm, Key.of(algorithm))
    now = time.time()
    claims = {"aud": AUDIENCE, "sub": "arn:aws:iam::123456789012:role/mcp-tools", "exp": now + 600}
    verifier = issuers.Verifier()
    numbers = iter(range(10_000))

    def measure() -> float:
        tokens = [issuer.sign({**claims, "jti": next(numbers)}) for _ in range(TOKENS)]
        began = time.process_time()
        for token in tokens:
            verifier.verify(token, lambda _: [RULE], now)
        return (time.process_time() - began) * 1_000 / TOKENS

    verifier.verify(issuer.sign(claims), lambda _: [RULE], now)  # which fetches the keys
    return measure


def _remembered(server: Server) -> Callable[[], float]:
    issuer = server.issuer("remembered", Key.of("RS256"))
    now = time.time()
    token = issuer.sign({"aud": AUDIENCE, "sub": "arn:aws:iam::123456789012:role/mcp-tools", "exp": now + 600})
    verifier = issuers.Verifier()

    def measure() -> float:
        began = time.process_time()
        for _ in range(TOKENS):
            verifier.verify(token, lambda _: [RULE], now)
        return (time.process_time() - began) * 1_000 / TOKENS

    measure()
    return measure
