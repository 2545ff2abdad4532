"""Generated requests against the running stack, of three generators that are all held to docs/openapi.yaml.

Walks: the state machine of tests/api/test_stateful.py registers, replaces, changes, deletes, lists and reads in any
order, and knows what each answer has to be. On one kind of walk it writes what checks found as well; on the other it
starts sweeps. The document: Schemathesis makes requests that fit it and requests that do not, with the checks of
tests/contract/test_fuzz.py. Odd requests: everything that neither of them makes, broken JSON and encodings, headers,
queries, ids, cursors and credentials, to every route by every method.

Each has a list of the answers that it has to reach: a run that reaches fewer proves less than it says. Nothing is
shrunk; a finding is printed as it came, and the run goes on. FUZZ_SEED=N in the environment repeats the run with the
seed N, which every run prints.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import sys
import threading
import traceback
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote_from_bytes

import hypothesis
import requests
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from jsonschema import Draft202012Validator
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Err

from mcp_registry.catalogue import cursor
from mcp_registry.edge.intake import MAX_BODY
from tests.api.test_stateful import JSON, TEXT, Catalogue
from tests.api.transport import Answer, Headers, Transport, over_http
from tests.conftest import BASIC, CRON_SECRET, REGISTER, SERVERS, Api, registration
from tests.contract import document
from tests.contract import test_fuzz as contract
from tests.faults import stage
from tests.proof import FAR, Line, at_most, interrupted

CONTRACT = "/openapi.yaml"

SEED = 20261122
SEED_VARIABLE = "FUZZ_SEED"
# Times scale. Of the document few in the bounded run: tests/contract has a run of its own, of the same generator.
CASES = 5  # of each operation and mode
ROUNDS = 2  # of walks of each kind: a finding ends its round
WALKS = 8
STEPS = 30
ODD = 3  # of each route and method
BROKEN = 5  # of each way to break a body, for each route that takes one
SHOWN = 5
# Any input is answered as fast; on a slow machine that is no fault of the API, so that only long runs judge it.
SECONDS = 1.0
UNHURRIED = hypothesis.settings(
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
    phases=[hypothesis.Phase.generate],
)


def prove(scale: int) -> list[Line]:
    """Times scale, up to FAR, each of the three; longer runs differ each time."""
    scale = min(scale, FAR)
    drawn = SEED if scale == 1 else random.SystemRandom().randrange(2**32)
    seed = int(os.environ.get(SEED_VARIABLE) or drawn)
    print(f"requests: {SEED_VARIABLE}={seed} repeats this run", file=sys.stderr)
    with stage.postgres(durable=False) as server, stage.stack(server.url, **stage.QUIET) as local:
        # First the walks: their sweeps ask every server that is there, and these register none but on this machine.
        walks = walked(local.url, server.url, ROUNDS * scale, seed)
        of_document = of_the_document(local.url, server.url, CASES * scale, seed)
        with contract.server_with_checks(local.url, server.url):
            odd = oddly(local.url, scale, seed)
        defects = [line for line in local.output if "unexpected exception" in line or "Traceback" in line]
    for line in defects[:SHOWN]:
        print(f"defect: {line[:500]}", file=sys.stderr)
    lines = [
        *walks.lines("routes in any order", BY_WALKS),
        *of_document.lines("requests of the document", BY_DOCUMENT),
        *odd.lines("odd requests", BY_ODD | REFUSED),
        at_most("exceptions that no function expected", 0, len(defects)),
    ]
    if scale > 1:
        slowest = max(walks.slowest, odd.slowest)
        lines.append(at_most("any request: slowest answer", SECONDS, slowest, "s"))
    return lines


# ------------------------------------------------------------------ what was reached


def _answers(text: str) -> frozenset[str]:
    """One for each of the answers behind a colon, as `told` writes them."""
    rows = (line.partition(": ") for line in text.strip().splitlines())
    return frozenset(f"{route.strip()} {answer.strip()}" for route, _, all_ in rows for answer in all_.split(","))


BY_WALKS = _answers("""
    POST /api/registry/register: 201, 409
    PUT /api/registry/register: 200 unchanged, 200 updated, 201, 204, 409, 428
    GET /api/registry/servers: 200, 200 by cursor of search, 200 by cursor of status+search
    GET /api/registry/servers: 200 by cursor of type+search, 400 of the cursor
    GET /api/registry/servers/{id}: 200 active, 200 inactive, 200 error, 404
    PATCH /api/registry/servers/{id}: 200 active, 200 inactive, 200 error, 404
    DELETE /api/registry/servers/{id}: 204, 404
    GET /api/registry/servers/{id}/health: 200 with checks, 200 without, 404
    GET /api/metrics/health: 200 with checks
    POST /api/jobs/health-check: 202, 401
    GET /health: 200
""")
BY_DOCUMENT = _answers("""
    POST /api/registry/register: 201, 400
    PUT /api/registry/register: 400
    GET /api/registry/servers: 200, 400
    GET /api/registry/servers/{id}: 200 error, 400, 404
    PATCH /api/registry/servers/{id}: 200 inactive, 400
    DELETE /api/registry/servers/{id}: 400, 404
    GET /api/registry/servers/{id}/health: 200 with checks, 400, 404
    GET /api/registry/servers/{id}/tools: 400, 404
    GET /api/registry/servers/{id}/changes: 200, 400, 404
    POST /api/registry/servers/{id}/observations: 400, 404
    GET /api/registry/changes: 200, 400
    GET /api/registry/servers/{id}/approvals: 200, 400, 404
    POST /api/registry/servers/{id}/approvals: 400, 404
    PUT /api/registry/servers/{id}/policy: 400, 404
    GET /api/metrics/health: 200 with checks
    GET /health: 200
    GET /: 200
    GET /openapi.yaml: 200
""")
BY_ODD = _answers("""
    POST /api/registry/register: 400, 401, 413, 415
    PUT /api/registry/register: 400, 401, 413, 415, 428
    ANY /api/registry/register: 401, 405
    GET /api/registry/servers: 200, 400, 400 of the cursor, 401
    GET /api/registry/servers: 200 by cursor of status+type+search
    ANY /api/registry/servers: 401, 405
    GET /api/registry/servers/{id}: 400, 401, 404
    PATCH /api/registry/servers/{id}: 400, 401, 404, 413, 415
    DELETE /api/registry/servers/{id}: 400, 401, 404
    ANY /api/registry/servers/{id}: 401, 405
    GET /api/registry/servers/{id}/health: 400, 401, 404
    ANY /api/registry/servers/{id}/health: 401, 405
    GET /api/registry/servers/{id}/tools: 400, 401, 404
    ANY /api/registry/servers/{id}/tools: 401, 405
    GET /api/registry/servers/{id}/changes: 400, 401, 404
    ANY /api/registry/servers/{id}/changes: 401, 405
    POST /api/registry/servers/{id}/observations: 400, 401, 404
    ANY /api/registry/servers/{id}/observations: 401, 405
    GET /api/registry/changes: 200, 400, 401
    ANY /api/registry/changes: 401, 405
    GET /api/registry/servers/{id}/approvals: 400, 401, 404
    POST /api/registry/servers/{id}/approvals: 400, 401
    ANY /api/registry/servers/{id}/approvals: 401, 405
    PUT /api/registry/servers/{id}/policy: 400, 401
    ANY /api/registry/servers/{id}/policy: 401, 405
    GET /api/metrics/health: 200 with checks, 400, 401
    ANY /api/metrics/health: 401, 405
    POST /api/jobs/health-check: 401
    ANY /api/jobs/health-check: 405
    GET /health: 200
    ANY /health: 405
    GET /: 200
    ANY /: 405
    GET /openapi.yaml: 200
    ANY /openapi.yaml: 405
    ANY elsewhere: 404
""")


def route_of(target: str) -> str:
    """The path of the document that a request's target is answered by."""
    segments = target.partition("?")[0].split("/")
    if len(segments) > 2 and segments[-1] == "" and segments[-2] != "":
        segments.pop()  # as the gateway does
    for path in document.DOCUMENT["paths"]:
        parts = path.split("/")
        if len(parts) == len(segments) and all(
            part == segment or (part == "{id}" and segment) for part, segment in zip(parts, segments, strict=True)
        ):
            return path
    return "elsewhere"


def operation_of(method: str, target: str) -> tuple[str, str]:
    """The method and the path of the operation that answers; the method ANY where the document has none."""
    route = route_of(target)
    return (method if (method, route) in OPERATIONS else "ANY"), route


OPERATIONS = {(method, path) for path, method, _ in document.operations()}


def told(method: str, target: str, status: int, body: bytes) -> str:
    """The kind of an answer: which operation, which status, and what else tells it from others of these."""
    operation, route = operation_of(method, target)
    words = [operation, route, str(status)]
    if status in (200, 400) and method != "HEAD" and route != CONTRACT:
        words += _further(operation, route, target, json.loads(body))
    return " ".join(words)


def _further(method: str, route: str, target: str, got: Any) -> list[str]:
    if "error" in got and "code" in got:
        faults = got.get("details", ()) if route == SERVERS else ()
        return ["of the cursor"] if any(fault["path"] == "cursor" for fault in faults) else []
    match method, route:
        case "PUT", _:
            return [got["result"]]
        case "GET", "/api/registry/servers":
            issued = parse_qs(target.partition("?")[2]).get("cursor")
            if not issued:
                return []
            filters = [name for name, value in cursor.decode(issued[0])[1]._asdict().items() if value]
            return ["by cursor of " + "+".join(filters)] if filters else ["by cursor"]
        case _, "/api/registry/servers/{id}":
            return [got["status"]]
        case "GET", "/api/registry/servers/{id}/health":
            return ["with checks" if got["checks"] else "without"]
        case "GET", "/api/metrics/health":
            return ["with checks" if got["last_24h"]["checks"] else "without"]
        case _:
            return []


class Tally:
    """What was sent and what came of it."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.reached: Counter[str] = Counter()
        self.violations: list[str] = []
        self.slowest = 0.0
        self._counting = threading.Lock()

    def note(self, method: str, target: str, status: int, body: bytes, seconds: float = 0.0) -> None:
        try:
            kind = told(method, target, status, body)
        except (ValueError, KeyError, TypeError) as error:
            kind = f"{method} {route_of(target)} {status} unreadable: {error}"
        with self._counting:
            self.statuses[status] += 1
            self.reached[kind] += 1
            self.slowest = max(self.slowest, seconds)

    def fails(self, what: str, error: Exception) -> None:
        """Keep a finding, with the steps that led to it: Hypothesis notes them at the error."""
        sentences = "; ".join(f"{type(each).__name__}: {each}"[:500] for each in _leaves(error))
        self.violations.append(f"{what}: {sentences}\n" + "".join(traceback.format_exception(error, limit=-3)))

    def lines(self, what: str, wanted: frozenset[str]) -> list[Line]:
        """What was reached of what has to be, and what was wrong."""
        for violation in self.violations[:SHOWN]:
            print(f"{what}: {violation[:5_000]}", file=sys.stderr)
        missing = sorted(wanted - self.reached.keys())
        for kind in missing:
            print(f"{what}: not reached: {kind}", file=sys.stderr)
        sent = self.statuses.total()
        print(f"{what}: {sent} requests, {dict(sorted(self.statuses.items()))}", file=sys.stderr)
        figure = f"{len(wanted) - len(missing)} in {sent} requests"
        errors = sum(number for status, number in self.statuses.items() if status >= 500)
        return [
            Line(f"{what}: kinds of answers reached", f">= {len(wanted)}", figure, not missing),
            at_most(f"{what}: answers of 5xx", 0, errors),
            at_most(f"{what}: violations of the contract", 0, len(self.violations)),
        ]


def _leaves(error: BaseException) -> Iterable[BaseException]:
    """The errors in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _counted(transport: Transport, tally: Tally) -> Transport:
    def send(method: str, path: str, headers: Headers, body: bytes) -> Answer:
        answer = transport(method, path, headers, body)
        tally.note(method, path, answer.status, answer.body, answer.seconds)
        return answer

    return send


# ------------------------------------------------------------------ in any order


def walked(url: str, database_url: str, rounds: int, seed: int) -> Tally:
    """So many rounds of walks of either kind over all routes, against a dictionary that knows each answer.

    Where sweeps are started they find nothing at the endpoints, so that a status may be another than the dictionary
    has; where they are not, the dictionary knows what checks found, because it wrote that itself.
    """
    tally = Tally()
    for number in range(rounds):
        for swept in (False, True):
            if interrupted.is_set():
                return tally
            api = Api(_counted(over_http(url), tally), in_process=False, database_url=database_url, shared=swept)
            machine = hypothesis.seed(seed + number)(type("Machine", (Catalogue,), {"api": api, "sweeps": swept}))
            try:
                run_state_machine_as_test(
                    machine, settings=hypothesis.settings(UNHURRIED, max_examples=WALKS, stateful_step_count=STEPS)
                )
            except Exception as error:  # whatever it is, it is a finding, and the next round begins
                tally.fails(f"seed {seed + number}, {'swept' if swept else 'checked'}", error)
            finally:
                api.remove_what_was_made()
    return tally


# ------------------------------------------------------------------ of the document


def of_the_document(url: str, database_url: str, cases: int, seed: int) -> Tally:
    """So many requests of each operation that fit the document, and so many that do not."""
    tally = Tally()
    with requests.Session() as session, contract.server_with_checks(url, database_url) as checked:
        for found in contract.api.exclude(path=contract.JOB).get_all_operations():
            assert not isinstance(found, Err)
            operation = found.ok()
            for mode in GenerationMode:
                if mode.is_negative and operation.path in contract.OPEN:
                    continue  # nothing that these take can be wrong
                if interrupted.is_set():
                    return tally

                @hypothesis.seed(seed)
                @hypothesis.settings(UNHURRIED, max_examples=cases)
                @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
                def ask(case: Case) -> None:
                    _ask(case, url, session, checked, tally)

                try:
                    ask()
                except Unsatisfiable:
                    continue  # where the document leaves nothing to be wrong
    return tally


def _ask(case: Case, url: str, session: requests.Session, checked: int, tally: Tally) -> None:
    contract.prepare(case, checked)
    credentials = None if case.operation.path in contract.OPEN else contract.CREDENTIALS
    try:
        response = case.call(base_url=url, session=session, auth=credentials)
        tally.note(case.method, str(response.request.path_url), response.status_code, response.content)
        # A body with too many tools may be larger than any may be: 413 comes first, and is a refusal too (2026-11-22).
        too_large = response.status_code == 413
        checks = [each for each in contract.CHECKS if not (too_large and each is contract.invalid_requests_are_refused)]
        case.validate_response(response, checks=checks, transport_kwargs={"auth": credentials})
    except Exception as error:  # whatever it is, it is a finding, and the next request is sent
        tally.fails(f"{case.method} {case.formatted_path}", error)


# ------------------------------------------------------------------ odd ones


class Odd(NamedTuple):
    """A request as it goes over the wire; `what` is odd about it."""

    method: str
    target: str
    headers: Headers
    body: bytes
    what: str


PLACE = b'"@@"'  # where a registration takes any JSON
VALID = {
    REGISTER: json.dumps(
        registration("odd.server", description="é \U0001f600", metadata={"author": "a", "tags": ["t", ""]})
        | {"tools": [{"name": "t", "input_schema": {"type": "object", "any": "@@"}, "annotations": {"b": True}}]},
        ensure_ascii=False,
    ).encode(),
    f"{SERVERS}/{{id}}": b'{"status": "@@"}',
}
TAKES_A_BODY = [("POST", REGISTER), ("PUT", REGISTER), ("PATCH", f"{SERVERS}/{{id}}")]
A_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')

ESCAPES = [rb"\ud800", rb"\uDFFF", rb"\ud83d", rb"\ude00\ud83d", rb"\ud800\u0041"]
RAW = [b"\xff", b"\x00", b"\n", b"\x1f", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\\x", b"\\u12", b"\\"]
NUMBERS = [b"1e400", b"-1e400", b"NaN", b"-Infinity", b"9" * 5_000, b"01", b"+1", b"1.", b".5", b"0x10", b"1e", b"-"]
DEEP = st.sampled_from([1_000, 65, 100_000, 300_000])


def _in_a_string(valid: bytes, pieces: list[bytes]) -> st.SearchStrategy[bytes]:
    """A piece at the beginning of one of the strings, a key or a value."""
    starts = [match.start() + 1 for match in A_STRING.finditer(valid)]
    return st.builds(
        lambda at, piece: valid[:at] + piece + valid[at:], st.sampled_from(starts), st.sampled_from(pieces)
    )


def _twice(valid: bytes) -> st.SearchStrategy[bytes]:
    """A key that stands twice in one object, with whatever value."""
    starts = [match.start() + 1 for match in re.finditer(rb'\{(?=")', valid)]

    def build(at: int, value: bytes) -> bytes:
        key = A_STRING.match(valid, at)
        assert key is not None
        return valid[:at] + key[0] + b": " + value + b", " + valid[at:]

    return st.builds(build, st.sampled_from(starts), st.sampled_from([b"null", b'"x"', b"{}"]))


def _flipped(valid: bytes) -> st.SearchStrategy[bytes]:
    def build(changes: list[tuple[int, int]]) -> bytes:
        changed = bytearray(valid)
        for at, byte in changes:
            changed[at] = byte
        return bytes(changed)

    return st.builds(
        build, st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    )


def _nested(opened: bytes, closed: bytes, valid: bytes) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda depth, whole, ends: (b"@@" if whole else valid).replace(
            b"@@" if whole else PLACE, opened * depth + b"1" + closed * (depth if ends else 0)
        ),
        DEEP,
        st.booleans(),
        st.booleans(),
    )


# By a word, how a valid body becomes another. Of each of them one at least has to be refused at each route.
BREAKS: dict[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    "half a surrogate pair": lambda valid: _in_a_string(valid, ESCAPES),
    "an escaped NUL": lambda valid: _in_a_string(valid, [rb"\u0000"]),
    "a raw byte": lambda valid: _in_a_string(valid, RAW),
    "a key twice": _twice,
    "a number": lambda valid: st.sampled_from(NUMBERS).map(lambda number: valid.replace(PLACE, number)),
    "arrays": lambda valid: _nested(b"[", b"]", valid),
    "objects": lambda valid: _nested(b'{"a":', b"}", valid),
    "cut": lambda valid: st.integers(0, len(valid) - 1).map(lambda end: valid[:end]),
    "flipped": _flipped,
    "any bytes": lambda _: st.binary(max_size=300),
    "any JSON": lambda _: JSON.map(lambda value: json.dumps(value).encode()),
    "encoded": lambda valid: st.sampled_from(
        [
            *(valid.decode().encode(name) for name in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig")),
            gzip.compress(valid, mtime=0),
            zlib.compress(valid),
            b64encode(valid),
        ]
    ),
    "too large": lambda valid: st.sampled_from(
        [valid + b" " * MAX_BODY, b"[" * (MAX_BODY + 1), b" " * (MAX_BODY - len(valid)) + valid, b"0" * MAX_BODY]
    ),
    "a media type": lambda valid: st.just(valid),
    "an encoding": lambda valid: st.just(valid),
}
REFUSED = {f"{method} {route} refuses: {what}" for method, route in TAKES_A_BODY for what in BREAKS}

PRINTABLE = st.text(st.characters(min_codepoint=32, exclude_categories=["Cc", "Cs"]), max_size=40)
RAW_TEXT = (st.binary(max_size=30) | TEXT.map(str.encode)).map(lambda data: quote_from_bytes(data, safe=""))
MEDIA_TYPES = st.sampled_from(
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonl", "*/*"]
)
ENCODINGS = st.sampled_from(["gzip", "br", "deflate", "identity, gzip", "x", "\u00fc", "a" * 2_000])
NOBODYS = "999999999"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
IDS = st.sampled_from(
    [
        *(
            "0",
            "-1",
            "01",
            "1.0",
            "1e3",
            "1_000",
            "0x1",
            "null",
            "1%202",
            "1;2",
            "1,2",
            "1/2",
            "1//",
            "..",
            ".",
            "%2e%2e",
        ),
        *("%00", "%ff", "%2F", "%EF%BC%91", "%D9%A1", "9223372036854775808", "9223372036854775807", "9" * 400, NOBODYS),
    ]
)
AFTER = st.sampled_from([1, 0, -1, 2**63 - 1, 2**63, True, 1.5, "1", None, 10**400])
FILTER = st.sampled_from([None, "", "x", "error", "\ud800", "\0", "\ufffd", "a" * 201, 1, [], "%", "_"])
PAYLOADS = (
    st.tuples(AFTER, st.just("active") | FILTER, st.just("mock") | FILTER, st.just("a") | FILTER).map(json.dumps)
    | st.sampled_from(["[1,null,null,null]", "[" * 1_500, "", "{}", "[1,null,null,null]x", "[NaN,null,null,null]"])
    | JSON.map(json.dumps)
).map(str.encode) | st.binary(max_size=40)
CURSORS = (
    PAYLOADS.map(lambda payload: zlib.crc32(payload).to_bytes(4, "big") + payload).map(
        lambda raw: urlsafe_b64encode(raw).rstrip(b"=").decode()
    )
    | RAW_TEXT
    | st.sampled_from(["A" * 2_049, "A", "", "=", "AAAA"])
)
PAIRS = st.tuples(st.sampled_from(["status", "type", "search", "limit", "cursor", "period", "x"]), RAW_TEXT).map(
    "=".join
)
QUERIES = (
    st.sampled_from(
        ["limit=0", "%", "&&&", "=", "limit=1&limit=2", "limit=%D9%A1", "search=%ff", "search=%00", "a;b", "?", "%zz"]
    )
    | st.sampled_from([f"limit={'9' * 400}", f"search={'a' * 2_000}", "status=active%00", "search=%ED%A0%80", "+", ""])
    | st.sampled_from(["hold=0", "hold=60&hold=60", "hold="])
    | st.lists(PAIRS, max_size=3).map("&".join)
    | CURSORS.map("cursor={}".format)
)
CREDENTIALS = st.sampled_from(
    ["Basic", "Basic ", "Basic !", "Basic YWRtaW4=", "Bearer x", f"{BASIC}, {BASIC}", BASIC + "=", "", "x" * 2_000]
) | st.binary(max_size=30).map(lambda pair: "Basic " + b64encode(pair).decode())
HEADERS = st.one_of(
    st.tuples(
        st.just("x-registration-digest"), st.sampled_from(["0" * 64, "F" * 64, "", "0" * 63, "g" * 64]) | PRINTABLE
    ),
    st.tuples(st.just("x-registration-lease"), st.sampled_from(["600", "59", "", "-600", "9" * 400]) | PRINTABLE),
    st.tuples(st.just("content-type"), MEDIA_TYPES | PRINTABLE),
    st.tuples(st.just("content-encoding"), ENCODINGS | PRINTABLE),
    st.tuples(st.just("x-cron-secret"), PRINTABLE),
    st.tuples(st.sampled_from(["accept", "x-http-method-override", "range", "if-match", "cookie"]), PRINTABLE),
)


@st.composite
def anything(draw: st.DrawFn, method: str, route: str) -> Odd:
    """A request to one route by one method, with something odd in each of its parts, or not."""
    target = route.replace("{id}", draw(IDS)) + draw(st.sampled_from(["", "", "", "/", "//", "/x"]))
    if draw(st.booleans()):
        target += "?" + draw(QUERIES)
    headers = draw(st.lists(HEADERS, max_size=2, unique_by=lambda header: header[0]))
    credentials = draw(st.one_of(st.just(BASIC), st.just(BASIC), st.none(), CREDENTIALS))
    if credentials is not None:
        headers.append(("authorization", credentials))
    body = draw(st.just(b"") | st.binary(max_size=50))
    return Odd(method, target, headers, body, "anything")


@st.composite
def broken(draw: st.DrawFn, method: str, route: str, what: str) -> Odd:
    """A request with a body that was valid, or is one where it ought not to be."""
    body = draw(BREAKS[what](VALID[route]))
    headers = [("authorization", BASIC)]
    headers.append(("content-type", draw(MEDIA_TYPES) if what == "a media type" else "application/json"))
    if what == "an encoding":
        headers.append(("content-encoding", draw(ENCODINGS)))
    return Odd(method, route.replace("{id}", NOBODYS), headers, body, what)


@st.composite
def asked_oddly(
    draw: st.DrawFn, method: str, route: str, query: st.SearchStrategy[str] | None = None, *, credentials: bool = False
) -> Odd:
    """A request of which the query alone is odd, or the credentials alone, or the id and the digest."""
    headers = [] if credentials else [("authorization", BASIC)]
    if credentials and (given := draw(st.none() | CREDENTIALS)) is not None:
        headers.append(("authorization", given))
    if method == "PUT" and not credentials:
        headers.append(("x-registration-digest", draw(st.sampled_from(["0" * 64, "x"]))))
    target = route.replace("{id}", draw(st.just(NOBODYS) | IDS)) + ("" if query is None else f"?{draw(query)}")
    body = b""
    if method == "PATCH":
        headers.append(("content-type", "application/json"))
        body = b'{"status": "active"}'
    return Odd(method, target, headers, body, "asked oddly")


def oddly(url: str, scale: int, seed: int) -> Tally:
    """Requests that no client of good will sends: none may be answered by an error of ours, or in no form at all."""
    tally = Tally()
    api = Api(_counted(over_http(url), tally), in_process=False, cron_secret=CRON_SECRET)

    def send(odd: Odd) -> None:
        try:
            answer = api.send(odd.method, odd.target, odd.headers, odd.body)
            if answer.status in (400, 413, 415):
                tally.reached[f"{odd.method} {route_of(odd.target)} refuses: {odd.what}"] += 1
            keeps_to_the_document(odd, answer)
        except Exception as error:  # whatever it is, it is a finding, and the next request is sent
            tally.fails(f"{odd.what}: {_shown(odd)}", error)

    for strategy, number in _strategies():
        if interrupted.is_set():
            break
        every = hypothesis.settings(UNHURRIED, max_examples=number * scale)
        hypothesis.seed(seed)(every(hypothesis.given(strategy)(send)))()
    try:
        # What was stored of all that can be listed and read.
        for server in Api(api.transport, in_process=False, prefix="").left():
            answer = api("GET", f"{SERVERS}/{server['id']}")
            keeps_to_the_document(Odd("GET", f"{SERVERS}/{server['id']}", [], b"", "what was stored"), answer)
            assert answer.status == 200, answer.body[:500]
    except Exception as error:  # as above
        tally.fails("what was stored", error)
    api.remove_what_was_made()
    return tally


def _strategies() -> Iterable[tuple[st.SearchStrategy[Odd], int]]:
    """What to send, and how many of each."""
    routes = [*document.DOCUMENT["paths"], "/api/registry/nothing"]
    for route in routes:
        for method in METHODS:
            yield anything(method, route), ODD
    for method, route in sorted(OPERATIONS):
        method = "OPTIONS" if method == "ANY" else method
        yield asked_oddly(method, route, credentials=True), ODD
        yield asked_oddly(method, route), ODD
        yield asked_oddly(method, route, QUERIES), ODD
    yield asked_oddly("GET", SERVERS, CURSORS.map("cursor={}".format)), 10
    for method, route in TAKES_A_BODY:
        for what in BREAKS:
            yield broken(method, route, what), BROKEN


def _shown(odd: Odd) -> str:
    return f"{odd.method} {odd.target[:200]} {odd.headers!r:.300} {len(odd.body)} bytes {odd.body[:300]!r}"


def keeps_to_the_document(odd: Odd, answer: Answer) -> None:
    """Raises AssertionError where an answer is not one that the document has for that operation."""
    assert answer.status < 500, answer.body[:500]
    method, route = operation_of(odd.method, odd.target)
    if odd.method == "HEAD" or answer.status in (204, 304):
        assert answer.body == b"", answer.body[:500]
        return
    if (method, route, answer.status) == ("GET", CONTRACT, 200):
        assert answer.headers.get("content-type") == "application/yaml", answer.headers
        assert answer.body == (document.ROOT / "docs" / "openapi.yaml").read_bytes()
        return
    assert answer.headers.get("content-type") == "application/json", answer.headers
    value = answer.json()
    for wrong in _validator(method, route, answer.status).iter_errors(value):
        raise AssertionError(f"{answer.status}: {wrong.message[:300]} at {wrong.json_path}: {answer.body[:300]!r}")


@cache
def _validator(method: str, route: str, status: int) -> Draft202012Validator:
    closed = document.closed()
    if route == "elsewhere":
        assert status == 404, status
        schema: dict[str, Any] = {"$ref": "#/components/schemas/Error", "properties": {"code": {"const": "NOT_FOUND"}}}
    else:
        found = [r for p, m, s, r in document.answers() if (p, m, s) == (route, method, status)]
        assert found, f"the document has no {status} of {method} {route}"
        schema = found[0]["content"]["application/json"]["schema"]
    return Draft202012Validator(schema | {"components": closed["components"]})
