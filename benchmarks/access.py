"""What it costs to know who calls: the authorizer's CPU for each kind of credential, against what it took before.

The baseline is the authorizer of the release before, for Basic credentials, kept here: it parsed the header, compared,
and made a policy. By a token the authorizer is measured with an answer that is fresh, as it has for 25 s, and with one
that it has to ask for: then the question is signed and sent to a server in this process, whose own time is in it, as
is that of `IdentifyFunction`'s statement, on a warm connection.
"""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from benchmarks.catalogue import database, migrate
from benchmarks.report import Result, alternate, figure, medians, table
from benchmarks.requests import _handler

ROUNDS = 15
CALLS = {"before": 2_000, "Basic": 2_000, "a token, warm": 2_000, "a token, asked for": 100}
# Of CPU, that a call by a token may take more than one by Basic credentials, in milliseconds.
BAR_MS = 1.0
USERNAME, PASSWORD = "admin", "password"
ARN = "arn:aws:execute-api:eu-west-1:123456789012:abcdef/v1/GET/api/registry/servers"
BASIC = "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
INSERT = """
INSERT INTO registry.tokens (id, digest, name, team, role, created_by, expires_at)
VALUES (%s, %s, 'of a benchmark', 'default', 'reader', 'a benchmark', now() + interval '1 day')
"""


def run(server_url: str) -> list[Result]:
    """Measure; one line for each kind of credential."""
    url = database(server_url, "access")
    migrate(url)
    os.environ.update(
        AWS_ACCESS_KEY_ID="AKIAEXAMPLE",
        AWS_REGION="eu-west-1",
        AWS_SECRET_ACCESS_KEY="secret",
        DATABASE_URL=url,
        IDENTIFY_URL="https://lambda.invalid/2015-03-31/functions/Identify/invocations",
        POWERTOOLS_LOG_LEVEL="CRITICAL",
        POWERTOOLS_SERVICE_NAME="mcp-registry",
        REGISTRY_USERNAME=USERNAME,
        REGISTRY_PASSWORD=PASSWORD,
    )
    from mcp_registry.access import admission, tokens

    token = tokens.make()
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        connection.execute(INSERT, [token.id, tokens.digest(token.text)])
    authorizer = _handler("authorizer")
    basic, bearer = _event(BASIC), _event(f"Bearer {token.text}")
    with _identify():

        def anew() -> object:
            admission._answers.clear()
            return authorizer(bearer, None)

        subjects: dict[str, Callable[[], object]] = {
            "before": lambda: _before(BASIC),
            "Basic": lambda: authorizer(basic, None),
            "a token, warm": lambda: authorizer(bearer, None),
            "a token, asked for": anew,
        }
        for subject in subjects.values():
            answer: Any = subject()
            assert answer["policyDocument"]["Statement"][0]["Effect"] == "Allow"
        measured = alternate({name: _cpu_ms(work, CALLS[name]) for name, work in subjects.items()}, ROUNDS)
    typical = medians(measured)
    rows = [(name, figure(ms * 1000), figure(max(measured[name]) * 1000)) for name, ms in typical.items()]
    print(table([("CPU of the authorizer for a call, in us", "median", "most"), *rows]))
    bar = typical["Basic"] + BAR_MS
    return [
        Result("authorizer: Basic, against the release before", typical["Basic"], typical["before"], "ms", 2.0),
        Result("authorizer: a token, warm, against Basic and 1 ms", typical["a token, warm"], bar, "ms", 1.0),
        Result("authorizer: a token, asked for, against 25 ms", typical["a token, asked for"], 25.0, "ms", 1.0),
    ]


def _event(authorization: str) -> dict[str, Any]:
    return {
        "methodArn": ARN,
        "multiValueHeaders": {"Host": ["x"], "User-Agent": ["x"], "Authorization": [authorization]},
        "requestContext": {"identity": {"sourceIp": "192.0.2.1"}},
    }


def _before(header: str) -> dict[str, object]:
    """The authorizer of the release before (2026-11-30)."""
    from mcp_registry.access import auth

    who = auth.parse(header) if auth.permits(header) else None
    stage = "/".join(ARN.split("/")[:2])
    effect = "Deny" if who is None else "Allow"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": f"{stage}/*"}
    name = "nobody" if who is None else who[0].decode()
    return {"principalId": name, "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}


def _cpu_ms(work: Callable[[], object], calls: int) -> Callable[[], float]:
    """A subject that measures the CPU of this process for a call, in milliseconds."""

    def measure() -> float:
        started = time.process_time()
        for _ in range(calls):
            work()
        return (time.process_time() - started) * 1000 / calls

    return measure


@contextmanager
def _identify() -> Generator[None]:
    """Lambda's API for the one function that the authorizer asks."""
    handler = _handler("identify")

    class Lambda(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            content = json.dumps(handler(event, None)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Lambda) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        os.environ["AWS_ENDPOINT_URL_LAMBDA"] = f"http://127.0.0.1:{server.server_port}"
        yield
        server.shutdown()
        thread.join()
