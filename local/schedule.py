"""EventBridge's clock: rules of the template that invoke a function again and again.

Unlike in AWS, each rule is played once at the start. Whoever starts the registry sees at once what it does by itself,
and a machine that was off at night catches up. A machine that slept plays what it missed once, not once for each time.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from local.gateway import FunctionError, FunctionTimeout, InvokeFunction
from local.sources import Tasks, one_line, report
from local.template import ACCOUNT_ID, REGION, Cron, Rate, Schedule

# A sleeping machine stops the clock that waiting goes by. The clock on the wall is looked at this often, which bounds
# how late the first invocation is when it wakes up.
GLANCE = timedelta(seconds=5)
RETRY = 2.0  # seconds until an invocation that failed is repeated; Lambda waits for one minute, then two
# February 29 comes after eight years at the latest; what has not come by then never does.
_FAR = timedelta(days=8 * 366)

Json = dict[str, Any]


class Schedules:
    """The rules of a stack; as a context manager it plays them until it is left."""

    def __init__(
        self,
        schedules: Iterable[Schedule],
        invoke: InvokeFunction,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`now` is the clock on the wall; `sleep` lets time pass."""
        self._schedules = [schedule for schedule in schedules if schedule.enabled]
        self._invoke = invoke
        self._now = now
        self._sleep = sleep
        self._tasks = Tasks()

    async def __aenter__(self) -> "Schedules":
        for schedule in self._schedules:
            self._tasks.start(self._play(schedule))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.cancel()

    async def _play(self, schedule: Schedule) -> None:
        due = self._now()
        while True:
            # A function that still works does not hold up the next invocation: neither would Lambda.
            self._tasks.start(self._deliver(schedule, self._now()))
            following = next_due(schedule.expression, due, self._now())
            if following is None:
                return
            due = following
            while (left := due - self._now()) > timedelta():
                if isinstance(schedule.expression, Rate) and left > schedule.expression.every:
                    due = self._now() + schedule.expression.every  # the clock was set back
                await self._sleep(min(left, GLANCE).total_seconds())

    async def _deliver(self, schedule: Schedule, when: datetime) -> None:
        event = scheduled_event(schedule, when) if schedule.event is None else schedule.event
        for attempts_left in reversed(range(schedule.retries + 1)):
            try:
                await self._invoke(schedule.function, event)
            except (FunctionError, FunctionTimeout) as error:
                if not attempts_left:
                    report(f"{schedule.function} failed when {schedule.rule} was due: {one_line(error)}")
                    return
                await self._sleep(RETRY)
            else:
                return


def next_due(expression: Rate | Cron, due: datetime, now: datetime) -> datetime | None:
    """When a schedule that was due at `due` is due again: after `now`, whatever it missed. None: never."""
    if isinstance(expression, Cron):
        return _next_match(expression, max(due, now))
    missed = max(now - due, timedelta()) // expression.every
    return due + (missed + 1) * expression.every


def _next_match(cron: Cron, after: datetime) -> datetime | None:
    day = after.replace(hour=0, minute=0, second=0, microsecond=0)
    end = day + _FAR
    while day < end:
        # A week begins with Sunday, which Python counts as its seventh day.
        weekday = day.isoweekday() % 7 + 1
        if day.year in cron.years and day.month in cron.months and day.day in cron.days and weekday in cron.weekdays:
            for hour in sorted(cron.hours):
                for minute in sorted(cron.minutes):
                    moment = day.replace(hour=hour, minute=minute)
                    if moment > after:
                        return moment
        day += timedelta(days=1)
    return None


def scheduled_event(schedule: Schedule, when: datetime) -> Json:
    """What EventBridge sends ("Scheduled Event"), as of `when`."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [schedule.arn],
        "detail": {},
    }
