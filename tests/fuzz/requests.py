"""Generated requests against the running stack: what the document allows and forbids, and every route in any order.

Two generators. Schemathesis makes requests of docs/openapi.yaml, with the checks of tests/contract/test_fuzz.py, of
which `make test` has a run of its own: these are others. The state machine of tests/api/test_stateful.py registers,
replaces, changes, deletes, lists and reads, and starts sweeps meanwhile. Nothing is shrunk: a finding is printed as it
came, and the run goes on.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Set

import hypothesis
import requests
from hypothesis import HealthCheck
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Err

from tests.api.test_stateful import Catalogue
from tests.api.transport import Answer, Headers, Transport, over_http
from tests.conftest import CRON_SECRET, Api
from tests.contract import test_fuzz as contract
from tests.faults import stage
from tests.proof import Line, at_most

SEED = 20261122
# Times scale. Few in the bounded run: tests/contract and tests/api have theirs, of the same generators.
CASES = 5  # of each operation and mode
WALKS = 5
STEPS = 25
SHOWN = 5
# A slow machine is no fault of the API.
UNHURRIED = (
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
)


class Tally:
    """What was sent and what came of it."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.violations: list[str] = []
        self._counting = threading.Lock()

    def note(self, status: int) -> None:
        with self._counting:
            self.statuses[status] += 1

    @property
    def sent(self) -> int:
        return self.statuses.total()

    @property
    def errors(self) -> int:
        """Answers of 5xx."""
        return sum(number for status, number in self.statuses.items() if status >= 500)

    def lines(self, what: str, at_least: int) -> list[Line]:
        for told in self.violations[:SHOWN]:
            print(f"{what}: {told}", file=sys.stderr)
        told = ", ".join(f"{number} x {status}" for status, number in sorted(self.statuses.items()))
        return [
            Line(f"{what}: requests sent", f">= {at_least}", f"{self.sent} ({told})", self.sent >= at_least),
            at_most(f"{what}: answers of 5xx", 0, self.errors),
            at_most(f"{what}: violations of the contract", 0, len(self.violations)),
        ]


def prove(scale: int) -> list[Line]:
    """`CASES` times scale of each operation, `WALKS` times scale through the routes; longer runs differ each time."""
    seed = SEED if scale == 1 else random.SystemRandom().randrange(2**32)
    print(f"requests: seed {seed}", file=sys.stderr)
    with stage.postgres(durable=False) as server, stage.stack(server.url, **stage.QUIET) as local:
        from_document = of_the_document(local.url, CASES * scale, seed)
        in_any_order = walked(local.url, WALKS * scale, seed, {False, True} if scale > 1 else {True})
        defects = [line for line in local.output if "unexpected exception" in line or "Traceback" in line]
    for line in defects[:SHOWN]:
        print(f"defect: {line[:500]}", file=sys.stderr)
    return [
        *from_document.lines("requests of the document", 60 * scale),
        *in_any_order.lines("routes in any order", 100 * scale),
        at_most("exceptions that no function expected", 0, len(defects)),
    ]


# ------------------------------------------------------------------ of the document


def of_the_document(url: str, cases: int, seed: int) -> Tally:
    """So many requests of each operation that fit the document, and so many that do not."""
    tally = Tally()
    session = requests.Session()
    for found in contract.api.exclude(path=contract.JOB).get_all_operations():
        assert not isinstance(found, Err)
        operation = found.ok()
        for mode in GenerationMode:
            if mode.is_negative and operation.path == "/health":
                continue  # it takes nothing, so that nothing can be wrong with it

            @hypothesis.seed(seed)
            @hypothesis.settings(
                max_examples=cases,
                deadline=None,
                database=None,
                suppress_health_check=UNHURRIED,
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case) -> None:
                _ask(case, url, session, tally)

            try:
                ask()
            except Unsatisfiable:
                continue  # where the document leaves nothing to be wrong
    session.close()
    return tally


def _ask(case: Case, url: str, session: requests.Session, tally: Tally) -> None:
    if case.meta is not None and case.meta.generation.mode.is_positive:
        case.query.pop("cursor", None)  # the registry alone issues cursors
    credentials = None if case.operation.path == "/health" else contract.CREDENTIALS
    response = case.call(base_url=url, session=session, auth=credentials)
    tally.note(response.status_code)
    # A body with too many tools may be larger than any may be: 413 comes first, and is a refusal too (2026-11-22).
    too_large = response.status_code == 413
    checks = [each for each in contract.CHECKS if not (too_large and each is contract.invalid_requests_are_refused)]
    try:
        case.validate_response(response, checks=checks, transport_kwargs={"auth": credentials})
    except (FailureGroup, AssertionError) as failure:
        faults = failure.exceptions if isinstance(failure, FailureGroup) else [failure]
        sentences = "; ".join(f"{getattr(each, 'title', '')}: {each}" for each in faults)
        tally.violations.append(f"{case.method} {case.formatted_path}: {response.status_code}: {sentences}"[:1_000])


# ------------------------------------------------------------------ in any order


def walked(url: str, walks: int, seed: int, kinds: Set[bool]) -> Tally:
    """So many walks of each kind over all routes, against a dictionary that knows what each has to answer.

    True is the kind in which sweeps are started on the way: they find nothing at the endpoints, so that a status may be
    another one than the dictionary has.
    """
    tally = Tally()
    for swept in sorted(kinds):
        api = Api(_counted(over_http(url), tally), in_process=False, shared=swept, cron_secret=CRON_SECRET)
        machine = type("Machine", (Catalogue,), {"api": api, "sweeps": swept})
        try:
            run_state_machine_as_test(
                machine,
                settings=hypothesis.settings(
                    max_examples=walks,
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    derandomize=seed == SEED,
                    suppress_health_check=UNHURRIED,
                    phases=[hypothesis.Phase.generate],
                ),
            )
        except AssertionError as error:
            tally.violations.append(f"{'swept' if swept else 'not swept'}: {error}"[:1_000])
        finally:
            api.remove_what_was_made()
    return tally


def _counted(transport: Transport, tally: Tally) -> Transport:
    def send(method: str, path: str, headers: Headers, body: bytes) -> Answer:
        answer = transport(method, path, headers, body)
        tally.note(answer.status)
        return answer

    return send
