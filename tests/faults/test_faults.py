"""The bounded run of each proof: every line of it is met."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from mcp_registry.aws import db
from tests.conftest import nowhere_else
from tests.faults import ANSWER_SECONDS, crashes, crowd, delivery, environments, migrations, stalls
from tests.proof import Line, interrupted, table


@pytest.fixture(scope="module")
def stalled(request: pytest.FixtureRequest) -> Iterator[Future[list[Line]]]:
    """The proof that mostly waits, which it can do beside the others."""
    nowhere_else(request.config)
    with ThreadPoolExecutor(1) as pool:
        proof = pool.submit(stalls.prove, 1)
        yield proof
        if not proof.done():  # Ctrl-C, or nobody of this run wants to know
            interrupted.set()
            proof.exception()
            interrupted.clear()


def check(lines: list[Line]) -> None:
    assert all(line.met or not line.tried for line in lines), "\n" + table(lines)


@pytest.mark.usefixtures("stalled")
def test_what_was_acknowledged_outlives_every_crash():
    check(crashes.prove(1))


@pytest.mark.usefixtures("stalled")
def test_many_at_one_name_end_in_one_row():
    check(crowd.prove(1))


@pytest.mark.usefixtures("stalled")
def test_what_is_delivered_twice_late_or_out_of_order_is_done_once():
    check(delivery.prove(1))


@pytest.mark.usefixtures("stalled")
def test_neither_a_log_nor_a_disk_nor_the_right_time_nor_the_tables_of_its_release_is_needed():
    check(environments.prove(1))


@pytest.mark.usefixtures("stalled")
def test_migrations_are_whole_whoever_runs_or_kills_them_and_nobody_waits_long_for_them():
    check(migrations.prove(1))


def test_whatever_the_database_does_an_answer_comes_in_time(stalled):
    check(stalled.result())


def test_every_fault_could_be_tried_on_this_machine(stalled):
    if reasons := [f"{line.what}: {line.figure}" for line in stalled.result() if not line.tried]:
        pytest.skip("; ".join(reasons))


def test_the_deadline_of_a_request_leaves_time_for_its_answer():
    """The bounded run has a tolerance, which hides a hundredth of a second; the long one has none."""
    assert db.REQUEST_SECONDS < ANSWER_SECONDS
