"""When the local run's rules are due, by a clock that the tests hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any

import pytest

from local.gateway import FunctionError
from local.schedule import GLANCE, Schedules, next_due, scheduled_event
from local.template import Cron, Rate, Schedule, schedule_expression

START = datetime(2026, 11, 22, 13, 59, 30, 500_000, tzinfo=UTC)
MINUTE = Rate(timedelta(minutes=1))
NIGHT = schedule_expression("cron(15 3 * * ? *)", "Night")

Invoke = Callable[[str, Any], Awaitable[object]]


def rule(expression: Rate | Cron = MINUTE, **fields: Any) -> Schedule:
    given: dict[str, Any] = {
        "rule": "Rule",
        "function": "Subject",
        "enabled": True,
        "event": None,
        "retries": 2,
    } | fields
    return Schedule(expression=expression, **given)


class Clock:
    """A clock on the wall that stands still until everybody sleeps, and then goes on to who wakes up first.

    It can be turned: once it shows `turn[0]`, it shows `turn[1]`. Sleepers do not notice.
    """

    def __init__(self) -> None:
        self.time = START
        self.turn: tuple[datetime, datetime] | None = None
        self.slept: list[float] = []
        self._passed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        sleeper = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._passed + seconds, len(self.slept), sleeper))
        await sleeper

    async def run(self) -> None:
        while True:
            for _ in range(10):  # whatever is awake goes to sleep
                await asyncio.sleep(0)
            if self._sleepers:
                passed, _, sleeper = heappop(self._sleepers)
                self.time += timedelta(seconds=passed - self._passed)
                self._passed = passed
                if self.turn and self.time >= self.turn[0]:
                    self.time, self.turn = self.turn[1], None
                if not sleeper.done():
                    sleeper.set_result(None)


class Play:
    """Plays rules until so many invocations were made, each of which `invoke` answers."""

    def __init__(self, *schedules: Schedule) -> None:
        self.schedules = schedules
        self.clock = Clock()
        self.invocations: list[tuple[timedelta, str, Any]] = []

    async def invoke(self, function: str, event: Any) -> object:
        return None

    def until(self, number: int) -> list[timedelta]:
        """How long after the start each invocation came."""
        enough = asyncio.Event()

        async def invoke(function: str, event: Any) -> object:
            self.invocations.append((self.clock.time - START, function, event))
            if len(self.invocations) >= number:
                enough.set()
            return await self.invoke(function, event)

        async def play() -> None:
            async with Schedules(self.schedules, invoke, self.clock.now, self.clock.sleep):
                running = asyncio.create_task(self.clock.run())
                await asyncio.wait_for(enough.wait(), 10)
                running.cancel()

        asyncio.run(play())
        return [after for after, _, _ in self.invocations]


def seconds(*numbers: float) -> list[timedelta]:
    return [timedelta(seconds=number) for number in numbers]


def test_a_rate_is_due_at_the_start_and_then_again_and_again():
    assert Play(rule()).until(4) == seconds(0, 60, 120, 180)


def test_a_daily_rule_is_due_at_the_start_and_then_at_its_hour():
    played = Play(rule(NIGHT))
    played.until(3)
    assert [START + after for after, _, _ in played.invocations] == [
        START,
        datetime(2026, 11, 23, 3, 15, tzinfo=UTC),
        datetime(2026, 11, 24, 3, 15, tzinfo=UTC),
    ]


def test_every_rule_has_its_own_time():
    played = Play(rule(), rule(Rate(timedelta(minutes=2)), function="Other"))
    played.until(6)
    assert [function for _, function, _ in played.invocations].count("Other") == 2


def test_a_rule_that_is_disabled_is_not_played():
    played = Play(rule(enabled=False, function="Off"), rule())
    played.until(3)
    assert {function for _, function, _ in played.invocations} == {"Subject"}


def test_the_event_is_the_one_of_eventbridge():
    played = Play(rule())
    played.until(2)
    first, second = (event for _, _, event in played.invocations)
    assert first == {
        "version": "0",
        "id": first["id"],
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": "2026-11-22T13:59:30Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/Rule"],
        "detail": {},
    }
    assert second["time"] == "2026-11-22T14:00:30Z"
    assert second["id"] != first["id"]


def test_the_time_of_an_event_is_told_in_utc():
    elsewhere = START.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    assert scheduled_event(rule(), elsewhere)["time"] == "2026-11-22T13:59:30Z"


def test_a_rule_with_an_input_sends_that():
    played = Play(rule(event={"deep": True}))
    played.until(1)
    assert played.invocations[0][2] == {"deep": True}


def test_an_invocation_that_fails_is_repeated_with_the_same_event_and_reported_in_one_line(
    capsys: pytest.CaptureFixture[str],
):
    played = Play(rule(retries=2))

    async def fail(function: str, event: Any) -> object:
        raise FunctionError("ValueError", "no\nsuch thing")

    played.invoke = fail
    after = played.until(4)
    assert after[:3] == seconds(0, 2, 4) and after[3] == timedelta(minutes=1)
    assert len({event["id"] for _, _, event in played.invocations[:3]}) == 1
    assert capsys.readouterr().err == "Subject failed when Rule was due: ValueError: no such thing\n"


def test_an_invocation_that_is_repeated_with_success_is_not_reported(capsys: pytest.CaptureFixture[str]):
    played = Play(rule(retries=1))

    async def fail_once(function: str, event: Any) -> object:
        if len(played.invocations) == 1:
            raise FunctionError("ValueError", "no such thing")
        return None

    played.invoke = fail_once
    assert played.until(3) == seconds(0, 2, 60)
    assert capsys.readouterr().err == ""


def test_a_function_that_still_works_does_not_hold_up_the_next_invocation():
    played = Play(rule())

    async def never_return(function: str, event: Any) -> object:
        return await asyncio.Future()

    played.invoke = never_return
    assert played.until(3) == seconds(0, 60, 120)


def test_a_machine_that_slept_plays_what_it_missed_once_and_keeps_the_beat():
    played = Play(rule())
    played.clock.turn = (START + timedelta(seconds=70), START + timedelta(hours=8, seconds=20))
    assert played.until(5) == seconds(0, 60, 8 * 3600 + 20, 8 * 3600 + 60, 8 * 3600 + 120)


def test_a_clock_that_is_set_back_does_not_stop_a_rule():
    played = Play(rule())
    played.clock.turn = (START + timedelta(seconds=30), START - timedelta(hours=1))
    assert played.until(3) == seconds(0, -3600 + 60, -3600 + 120)


def test_the_clock_on_the_wall_is_looked_at_often():
    played = Play(rule())
    played.until(2)
    assert max(played.clock.slept) == GLANCE.total_seconds()


@pytest.mark.parametrize(
    ("text", "moments"),
    [
        ("cron(0 14 * * ? *)", ["2026-11-22T14:00", "2026-11-23T14:00"]),
        ("cron(0/20 * * * ? *)", ["2026-11-22T14:00", "2026-11-22T14:20", "2026-11-22T14:40", "2026-11-22T15:00"]),
        ("cron(59 13 * * ? *)", ["2026-11-23T13:59"]),  # this minute has begun
        ("cron(0 9 ? * MON-FRI *)", ["2026-11-23T09:00", "2026-11-24T09:00"]),  # the 22nd is a Sunday
        ("cron(0 15 ? * 1 *)", ["2026-11-22T15:00", "2026-11-29T15:00"]),
        ("cron(30 8,20 1 * ? *)", ["2026-12-01T08:30", "2026-12-01T20:30", "2027-01-01T08:30"]),
        ("cron(0 0 31 * ? *)", ["2026-12-31T00:00", "2027-01-31T00:00", "2027-03-31T00:00"]),
        ("cron(0 0 29 2 ? *)", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("cron(0 0 1 1 ? 2027-2028)", ["2027-01-01T00:00", "2028-01-01T00:00", None]),
        ("cron(0 0 30 2 ? *)", [None]),
    ],
)
def test_cron_is_due_at_each_moment_that_fits(text: str, moments: list[str | None]):
    expression = schedule_expression(text, "Rule")
    due = START
    for moment in moments:
        following = next_due(expression, due, due)
        assert following == (moment and datetime.fromisoformat(moment).replace(tzinfo=UTC))
        due = following or due


def test_a_rule_that_is_never_due_again_ends():
    played = Play(rule(schedule_expression("cron(0 0 1 1 ? 2020)", "Rule"), function="Past"), rule())
    played.until(4)
    assert [function for _, function, _ in played.invocations].count("Past") == 1
