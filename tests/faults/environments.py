"""Functions in an environment that is not as it should be: nobody reads the log, there is no disk, the clock is wrong.

Each function runs in a process of its own, with AWS's runtime client, and is given the files of events/. What it
answers is what it answers in peace, and every time that it leaves in the database is the database's.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from local import queues, template
from local.gateway import FunctionError
from local.queues import QueueService
from local.runtime import Runtime
from tests.conftest import load_stack, migrate
from tests.faults import stage
from tests.faults.delivery import register
from tests.integration.test_events import AUTHORIZER, BACKGROUND, EXPECTED, MIGRATION, QUESTIONS, read
from tests.proof import Line

# Run at the start of each process, before anything of ours is imported ("site: Site-specific configuration hook").
# Files cannot be written by a limit of their size, which holds for root as well as for anybody.
NO_LOG = """
import os
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
os.dup2(writer, 2)
# As in the cloud, AWS's client writes what it has to say itself elsewhere: it does not outlive an error of ours else.
os.environ["_LAMBDA_TELEMETRY_LOG_FD"] = str(os.open(os.devnull, os.O_WRONLY))
"""
NO_DISK = """
import os, resource
null = os.open(os.devnull, os.O_WRONLY)
for output in (1, 2):
    if os.path.isfile(f"/dev/fd/{output}"):  # where the log is a file, this is not about it
        os.dup2(null, output)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
os.environ["TMPDIR"] = os.environ["HOME"] = "/nowhere"
"""
CLOCK = """
import datetime, time_machine
time_machine.travel({moment}, tick=True).start()
"""
SKEWED = "datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes={minutes})"
# After the last second that 32 bits hold.
LATE = "datetime.datetime(2038, 1, 19, 3, 14, 8, tzinfo=datetime.timezone.utc)"

FAST = CLOCK.format(moment=SKEWED.format(minutes=60))
ENVIRONMENTS: Mapping[str, str] = {
    "nobody reads the log, its pipe is closed": NO_LOG,
    "no file can be written, no temporary folder": NO_DISK,
    "the clock is 5 minutes slow": CLOCK.format(moment=SKEWED.format(minutes=-5)),
    "the clock is an hour fast": FAST,
    "the clock is in 2038": CLOCK.format(moment=LATE),
}
# What the bounded run has time for.
ALL_AT_ONCE = {"no log, no disk, and the clock is an hour fast": NO_DISK + NO_LOG + FAST}
# What a migration of a newer release may do while the functions of this one still run: they are changed after it.
EXPANDED = """
SELECT format('ALTER TABLE %I.%I ADD COLUMN of_a_newer_release text DEFAULT ''x''', n.nspname, c.relname)
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('registry', 'metrics')
   AND c.relkind IN ('r', 'p')
   AND NOT c.relispartition
"""
# Each event finds a catalogue with one server, whose id is 1, one team, and no sweep that it would be too early after.
EMPTY = """
TRUNCATE registry.mcp_servers, registry.tools, registry.held_names RESTART IDENTITY CASCADE;
UPDATE registry.server_counts SET servers = 0;
TRUNCATE metrics.sweeps;
TRUNCATE registry.tokens, registry.issuers;
DELETE FROM registry.teams WHERE name <> 'default';
SELECT metrics.add_days('2026-11-22', '2026-11-22');  -- the day of the events
"""
# Times that were left behind, and those of them that are not of the last minute of the database's clock. What a check
# has seen is of the moment that its event names, which is past.
TIMES = """
SELECT count(*) FILTER (WHERE at NOT BETWEEN now() - interval '1 minute' AND now()), count(*)
  FROM (SELECT unnest(ARRAY[created_at, updated_at, moved_at]) FROM registry.mcp_servers
        UNION ALL
        SELECT occurred_at FROM metrics.status_transitions WHERE verdict IS NULL
        UNION ALL
        SELECT unnest(ARRAY[created_at, updated_at]) FROM registry.teams WHERE name <> 'default'
        UNION ALL
        SELECT created_at FROM registry.tokens
        UNION ALL
        SELECT unnest(ARRAY[claimed_at, listed_at, dispatched_at]) FROM metrics.sweeps WHERE dispatched_at IS NOT NULL
       ) AS times (at)
"""


def _expected(outcomes: list[str] | None) -> str:
    """What test_events.py says of an event that nobody waits for, as `_told` tells it."""
    if outcomes is None:
        return "maintained"
    return ", ".join(outcomes) if outcomes else json.dumps({"batchItemFailures": []})


# What another function writes, which is not there.
ALONE = {"server-tools": 404}
# File, function, and what comes of it where nothing is wrong.
EVENTS = [
    *((file, function, str(ALONE.get(file, status))) for file, function, status in EXPECTED),
    *((file, function, _expected(outcomes)) for file, function, outcomes in BACKGROUND),
    *zip(AUTHORIZER, ["AuthorizerFunction"] * 2, ["Allow", "Deny"], strict=True),
    *((file, "IdentifyFunction", json.dumps(answer)) for file, answer in QUESTIONS.items()),
    (MIGRATION, "MigrateFunction", "null"),
]


def prove(scale: int) -> list[Line]:
    """Every environment once; in the bounded run all that is wrong at once. Nothing is left to chance in them."""
    service = QueueService()
    try:
        cloud = {**queues.CREDENTIALS, "AWS_ENDPOINT_URL": service.start()}
        with stage.postgres(durable=False) as server, psycopg.connect(server.url, autocommit=True) as admin:
            migrate.migrate(server.url)
            stack = load_stack(server.url)
            queues.create(queues.connect(cloud["AWS_ENDPOINT_URL"]), stack.queues)
            scene = Scene(server.url, admin, stack, cloud)
            environments = ALL_AT_ONCE if scale == 1 else ENVIRONMENTS
            lines = [scene.line(what, code) for what, code in environments.items()]
            for (statement,) in admin.execute(EXPANDED).fetchall():
                admin.execute(statement)
            return [*lines, scene.line("the tables have columns of a newer release", "")]
    finally:
        service.stop()


class Scene:
    """The functions, and the database that they find."""

    def __init__(self, url: str, admin: psycopg.Connection[Any], stack: template.Stack, cloud: Mapping[str, str]):
        self._url, self._admin, self._stack, self._cloud = url, admin, stack, cloud
        self._layers = sorted({str(layer) for function in stack.functions.values() for layer in function.layers})

    def line(self, what: str, code: str) -> Line:
        """Give every function its events, in processes that begin with this code."""
        with tempfile.TemporaryDirectory(prefix="registry-faults-") as folder:
            Path(folder, "sitecustomize.py").write_text(code)
            environment = {**self._cloud, "PYTHONPATH": os.pathsep.join([folder, *self._layers])}
            other, strange, times = asyncio.run(self._play(environment))
        return Line(
            f"{what}: events that end otherwise; stored times that are not the database's",
            "0; 0",
            f"{len(other)} of {len(EVENTS)}; {strange} of {times}" + (f": {'; '.join(other[:3])}" if other else ""),
            not other and not strange and times > len(EVENTS),
        )

    async def _play(self, environment: Mapping[str, str]) -> tuple[list[str], int, int]:
        other: list[str] = []
        strange = times = 0
        async with Runtime(self._stack.functions, environment) as runtime:
            for file, function, expected in EVENTS:
                self._admin.execute(EMPTY)
                register(self._url, "first")
                try:
                    told = _told(await runtime.invoke(function, read(file)))
                except FunctionError as error:
                    told = str(error)
                if told != expected:
                    other.append(f"{file}: {told}")
                odd, left = self._admin.execute(TIMES).fetchone() or (0, 0)
                strange, times = strange + odd, times + left
        return other, strange, times


def _told(answer: Any) -> str:
    """What is the same whatever the moment: not the counts of a maintenance, nor which sweeps there were."""
    match answer:
        case {"statusCode": status}:
            return str(status)
        case {"policyDocument": {"Statement": [{"Effect": effect}]}}:
            return effect
        case {"added": _}:
            return "maintained"
        case [*sweeps]:
            return ", ".join(sweep["result"] for sweep in sweeps)
        case _:
            return json.dumps(answer)
