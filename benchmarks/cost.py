"""What the registry costs a month in AWS, from list prices and measured figures: `python -m benchmarks.cost`.

Prints Markdown: the table of docs/cost.md, what it is made of, what would be cheaper, and every price with its page and
date. `--measure` measures again, with a Postgres of its own, what the database figures below are (a minute). Everything
else needs the standard library only.

us-east-1, on demand, without a free tier. A month has 730.5 hours; a GB of traffic, storage and logs has 10^9 bytes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HOURS = 730.5
DAYS = HOURS / 24
SECONDS = HOURS * 3600
SCALES = (100, 1_000, 10_000, 100_000)
GB, MILLION = 1e9, 1e6


class Price(NamedTuple):
    """A list price of us-east-1: dollars, of what, on which page of AWS, and when it was seen there or elsewhere."""

    usd: float
    unit: str
    page: str
    as_of: str


# The pages, by the titles that the table gives them.
PAGES = {
    "AWS Lambda Pricing": "https://aws.amazon.com/lambda/pricing/",
    "Amazon API Gateway Pricing": "https://aws.amazon.com/api-gateway/pricing/",
    "Amazon RDS for PostgreSQL Pricing": "https://aws.amazon.com/rds/postgresql/pricing/",
    "Amazon Aurora Pricing": "https://aws.amazon.com/rds/aurora/pricing/",
    "Amazon RDS Proxy Pricing": "https://aws.amazon.com/rds/proxy/pricing/",
    "Amazon SQS Pricing": "https://aws.amazon.com/sqs/pricing/",
    "AWS PrivateLink Pricing": "https://aws.amazon.com/privatelink/pricing/",
    "Amazon EC2 On-Demand Pricing": "https://aws.amazon.com/ec2/pricing/on-demand/",
    "Amazon CloudWatch Pricing": "https://aws.amazon.com/cloudwatch/pricing/",
    "Amazon EventBridge Pricing": "https://aws.amazon.com/eventbridge/pricing/",
    "AWS Secrets Manager Pricing": "https://aws.amazon.com/secrets-manager/pricing/",
    "AWS X-Ray Pricing": "https://aws.amazon.com/xray/pricing/",
    "AWS Fargate Pricing": "https://aws.amazon.com/fargate/pricing/",
    "Amazon VPC Pricing": "https://aws.amazon.com/vpc/pricing/",
}
# AWS's pages cannot be read from where this was written (2026-11-22): "quoted" is what others quoted from them in that
# month, "memory" is what the author knew of them in that month and has seen nowhere since.
PRICES = {
    "Lambda requests": Price(0.20, "million", "AWS Lambda Pricing", "2026-05, quoted"),
    "Lambda x86_64": Price(0.0000166667, "GB-second", "AWS Lambda Pricing", "2026-05, quoted"),
    "Lambda arm64": Price(0.0000133334, "GB-second", "AWS Lambda Pricing", "2026-05, quoted"),
    "SnapStart kept": Price(0.0000015046, "GB-second of a version", "AWS Lambda Pricing", "2025-05, memory"),
    "SnapStart start": Price(0.0001397998, "GB restored", "AWS Lambda Pricing", "2025-05, memory"),
    "REST API": Price(3.50, "million, the first 333", "Amazon API Gateway Pricing", "2025-12, quoted"),
    "REST API beyond": Price(2.80, "million, the next 667", "Amazon API Gateway Pricing", "2025-05, memory"),
    "gp3 storage": Price(0.115, "GB-month", "Amazon RDS for PostgreSQL Pricing", "2026-06, quoted"),
    "backup": Price(0.095, "GB-month beyond the storage", "Amazon RDS for PostgreSQL Pricing", "2026-06, quoted"),
    "Aurora Serverless v2": Price(0.12, "capacity unit and hour", "Amazon Aurora Pricing", "2026-06, quoted"),
    "Aurora storage": Price(0.10, "GB-month", "Amazon Aurora Pricing", "2026-05, quoted"),
    "RDS Proxy": Price(0.015, "vCPU-hour, at least 2", "Amazon RDS Proxy Pricing", "2025-05, memory"),
    "SQS standard": Price(0.40, "million", "Amazon SQS Pricing", "2026-06, quoted"),
    "SQS FIFO": Price(0.50, "million", "Amazon SQS Pricing", "2026-06, quoted"),
    "endpoint": Price(0.01, "hour and zone", "AWS PrivateLink Pricing", "2026-05, quoted"),
    "endpoint traffic": Price(0.01, "GB", "AWS PrivateLink Pricing", "2026-05, quoted"),
    "traffic out": Price(0.09, "GB, the first 10 TB", "Amazon EC2 On-Demand Pricing", "2025-12, quoted"),
    "traffic out beyond": Price(0.085, "GB, the next 40 TB", "Amazon EC2 On-Demand Pricing", "2025-05, memory"),
    "traffic between zones": Price(0.01, "GB, on each side", "Amazon EC2 On-Demand Pricing", "2025-05, memory"),
    "logs": Price(0.50, "GB taken in", "Amazon CloudWatch Pricing", "2026-06, quoted"),
    "logs kept": Price(0.03, "GB-month, compressed", "Amazon CloudWatch Pricing", "2025-05, memory"),
    "custom metric": Price(0.30, "month", "Amazon CloudWatch Pricing", "2026-02, quoted"),
    "alarm": Price(0.10, "month", "Amazon CloudWatch Pricing", "2025-05, memory"),
    "dashboard": Price(3.00, "month", "Amazon CloudWatch Pricing", "2026-06, quoted"),
    "schedule": Price(1.00, "million; a rule's may be free", "Amazon EventBridge Pricing", "2026-03, quoted"),
    "event": Price(1.00, "million of 64 KB", "Amazon EventBridge Pricing", "2025-05, memory"),
    "secret": Price(0.40, "month", "AWS Secrets Manager Pricing", "2025-05, memory"),
    "secret read": Price(5.00, "million", "AWS Secrets Manager Pricing", "2025-05, memory"),
    "X-Ray": Price(5.00, "million traces", "AWS X-Ray Pricing", "2025-05, memory"),
    "Fargate CPU": Price(0.04048, "vCPU-hour", "AWS Fargate Pricing", "2025-05, memory"),
    "Fargate memory": Price(0.004445, "GB-hour", "AWS Fargate Pricing", "2025-05, memory"),
    "public IPv4": Price(0.005, "hour", "Amazon VPC Pricing", "2025-05, memory"),
}


class DatabaseClass(NamedTuple):
    """A class of RDS: the template's Size for it, its memory, its vCPUs, how much of each is its own, its price."""

    name: str
    size: str | None
    memory_gb: int
    cpus: int
    share: float
    price: Price


RDS = "Amazon RDS for PostgreSQL Pricing"
# The smallest first: those of the template, and two that a larger registry would add. A burstable class earns credits
# for a share of its vCPUs; beyond that RDS charges for them.
CLASSES = (
    DatabaseClass("db.t4g.micro", "trial", 1, 2, 0.10, Price(0.016, "hour", RDS, "2026, quoted")),
    DatabaseClass("db.t4g.small", "small", 2, 2, 0.20, Price(0.032, "hour", RDS, "2025-05, memory")),
    DatabaseClass("db.t4g.medium", "medium", 4, 2, 0.20, Price(0.065, "hour", RDS, "2026, quoted")),
    DatabaseClass("db.m7g.large", "large", 8, 2, 1.0, Price(0.168, "hour", RDS, "2025-05, memory; +-5 %")),
    DatabaseClass("db.r7g.xlarge", None, 32, 4, 1.0, Price(0.478, "hour", RDS, "2025-05, memory; +-5 %")),
    DatabaseClass("db.r7g.2xlarge", None, 64, 8, 1.0, Price(0.956, "hour", RDS, "2025-05, memory; +-5 %")),
)
# What the system and RDS itself take of an instance's memory; of the rest a quarter is shared_buffers.
SYSTEM_GB = 0.4
# What checking tokens takes besides, at most; on a burstable class it is to be spared at the buffers ("IAM database
# authentication", limitations). The smallest class has no room for it, and is never chosen here.
LOGIN_GB = 1.0

# ---------------------------------------------------------------- what was measured
# `python -m benchmarks.cost --measure`, 2026-11-30, beside other work on the machine, Postgres 18.6: 1,000 servers go
# through a day of 2,880 sweeps, written by `results.write` in their order, 2 % of them hanging, a checkpoint every five
# minutes as RDS has it.
CHECK_BYTES = 140  # of a check: 69 in its table, 71 in its indexes
WAL_BYTES = 234  # of a check; 891 with the whole pages after checkpoints, which the same run leaves out if not durable
PAGE_BYTES = 6_600  # of whole pages, for a server and checkpoint: most of its page of the index
CHECKPOINT_SECONDS = 300
HOUR_BYTES = 322  # of a server's hour, with 27 buckets
# Of a server with 5 tools: what a sweep reads and writes of it (server, endpoint with pulse, last check), and all of
# it, with what an introduction has kept.
SWEPT_BYTES = 5_100
CATALOGUE_BYTES = 8_600
# Of the ledger, reckoned by the columns of its tables: a server of 10 tools, each a document of 2 KB with its digests
# and its place in the index, and two snapshots; and a day of it, with a release a week (a guess) that changes three
# tools: a snapshot, three documents and three changes.
LEDGER_BYTES = 24_000
LEDGER_DAY_BYTES = 1_300
# Of a server, in a message (2026-11-30): with its pulse, with what it says of itself. 60 bytes of a visit (reckoned)
# are for the digest of what was offered last. Who offers the same says that alone: what comes back is less as a rule.
MESSAGE_BYTES = {"shard": 218, "findings": 57, "visits": 138, "introductions": 740}
WRITE_CPU = 16e-6  # seconds of Postgres for a check
FOLD_SECONDS = 0.3e-3  # of a server's hour; 3 s for 10,000 (health.maintenance), over twice what 1,000 take here
# benchmarks/README.md, 2026-11-22
WRITE_SECONDS = 15e-6  # of a check, whole
REQUEST_CPU = 0.37e-3  # seconds of Postgres for a list or a registration
PROBE_CPU = 0.93e-3  # seconds for a check over TLS
# The lines of `observability`, as its functions print them (2026-11-22). What Lambda adds to an invocation (start and
# report, as JSON) and the access log of the API are guesses by the examples of the documentation. CloudWatch counts 26
# bytes for each line besides.
LINE = 26
LOG_BYTES = {
    "request": 248 + LINE,
    "sweep": 173 + LINE,
    "shard": 197 + LINE,
    "written": 190 + LINE,
    "visits": 185 + LINE,
    "introduced": 150 + LINE,
}
INVOCATION_LOG_BYTES = 550 + 2 * LINE
ACCESS_LOG_BYTES = 350 + LINE
REFUSAL_LOG_BYTES = 600 + LINE  # the authorizer's "Unauthorized" with its stack, likewise a guess
LOG_COMPRESSION = 0.15
# One request of a check has 130 to 530 bytes (`asking.FORMS`). TLS 1.3 (hello, finished, records, the end) and the
# headers of a dozen packets are estimated; nothing that is received is charged.
PROBE_BYTES = 350 + 700 + 450
# Of an introduction with what is learnt after it, 50 over TLS to shapes of the tests (2026-11-30): requests, each on a
# connection of its own, and seconds of CPU.
INTRODUCTION_REQUESTS = 14
INTRODUCTION_CPU = 23e-3
INTRODUCTION_SECONDS = 1.5  # until the slowest of a message is done, a guess; who is down is not asked each hour
REMEMBER_SECONDS = 1e-3  # of an introduction, whole, a guess

# ---------------------------------------------------------------- what the code and the template say
SWEEPS = SECONDS / 30
SHARD = 1_000  # mcp_registry.health.sweeps.MAX_SHARD
VISITS = 50  # mcp_registry.health.invitations.MAX_VISITS
SPREAD, MAX_SPREAD = 0.008, 8.0  # mcp_registry.health.shard
HANGS = 20.0  # mcp_registry.health.shard.SWEEP_SECONDS less the grace of mcp_registry.dial.introduction
SWEEPERS = 110  # MaximumConcurrency of HealthSweepFunction
MAINTENANCE_SECONDS = 900  # Timeout of MaintainFunction
MAX_STORAGE_GB = 1_000  # MaxAllocatedStorage of Database
CHUNK = 64 * 1024  # what SQS counts as one request
EVENTS_PER_DAY = 0.5  # of a server, that an event bus is told of: a guess
METRICS = 3  # sweep_unfinished, sweep_suspect, sweep_untimely; one dimension with one value
# "Configuring scaling behavior for SQS event source mappings" (Lambda Developer Guide): five batches at a time, and no
# fewer where a maximum concurrency is set, as here. Each asks for 20 s ("Setting-up long polling in Amazon SQS"). For
# FIFO queues the guide gives no number: taken for the same.
POLLERS, POLL_SECONDS = 5, 20
REQUESTS_PER_SECOND = 100
# Of the routes that ask for no credentials: a second, all together, and those of them that a function answers.
OPEN_RATE, OPEN_FUNCTION_RATE = 36, 15
AUTHORIZER_MEMORY_GB = 1.0
SNAPSHOTS = 5  # functions that read, with one version each
COLD = 0.01  # of the requests
AUTHORIZER_SECONDS = 30  # ReauthorizeEvery: calls with one header make one call of the authorizer in that time
HANGING = 0.02


class Options(NamedTuple):
    """What may be chosen: traffic, settings of the stack, and what could be built in another way."""

    requests: float = 10.0  # lists and details, for each server and day
    registrations: float = 20.0  # for each server and day; nearly all are digests that are answered 204
    raw_days: int = 7
    multi_az: bool = False
    rollup_days: int = 400
    ledger_days: int = 400
    alarms: int = 39  # metrics that alarms look at
    zones: int = 2  # in which the endpoint is
    memory_gb: float = 0.5
    sweep_memory_gb: float = 0.5
    introduce_memory_gb: float = 1.0
    introduce_minutes: int = 60
    arm64: bool = False
    sweeps: float = SWEEPS
    container: bool = False


class Month(NamedTuple):
    """A month of so many servers: its lines in dollars, in their order, and what they follow from."""

    lines: dict[str, float]
    database: DatabaseClass
    checks_per_day: float
    storage_gb: float
    wal_gb_per_day: float
    writes: float
    shard_seconds: float
    api_requests: float
    invocations: float
    gb_seconds: float
    sqs_requests: float
    log_gb: float
    egress_gb: float

    @property
    def total(self) -> float:
        """The sum of the lines, which are whole cents."""
        return round(sum(self.lines.values()), 2)


def month(servers: int, options: Options) -> Month:
    """What so many servers cost in a month."""
    sweeps = options.sweeps
    shards = math.ceil(servers / SHARD)
    checks = servers * sweeps
    api_requests = servers * (options.requests + options.registrations) * DAYS
    lines: dict[str, float] = {}

    # The database. Before the oldest day is dropped, at 03:15, there are a day and a bit more than those kept.
    day_bytes = checks / DAYS * CHECK_BYTES
    used = servers * (CATALOGUE_BYTES + options.rollup_days * 24 * HOUR_BYTES) + (options.raw_days + 1.15) * day_bytes
    used += servers * (LEDGER_BYTES + options.ledger_days * LEDGER_DAY_BYTES)
    # A quarter more, and what the log of Postgres itself needs; 20 GB is the least that RDS has.
    storage = max(20, math.ceil(used * 1.25 / GB) + 4)
    wal = checks / DAYS * WAL_BYTES + servers * 86_400 / CHECKPOINT_SECONDS * PAGE_BYTES
    # Seven days of backups: the whole once, then what is new each day, and the log of all of them. RDS may well count
    # less, as it compresses; its documentation does not say.
    backup = (used + 6 * day_bytes + 7 * wal) / GB
    # Each check touches one page of the index, its server's last, and what is swept of the server: that is to fit into
    # shared_buffers, with a quarter to spare.
    hot = servers * (8192 + SWEPT_BYTES)
    folding = servers * 24 * FOLD_SECONDS  # seconds a day
    cpu = checks * WRITE_CPU / SECONDS + api_requests * REQUEST_CPU / SECONDS + folding / 86_400
    database = next(
        (each for each in CLASSES if _buffers(each) >= 1.25 * hot and each.cpus * each.share >= 2 * cpu),
        CLASSES[-1],
    )
    copies = 2 if options.multi_az else 1
    lines["database: instance"] = HOURS * database.price.usd * copies
    lines["database: storage"] = storage * _usd("gp3 storage") * copies
    lines["database: backup beyond the storage"] = max(backup - storage, 0) * _usd("backup")

    # Lambda. A shard's dials are spread; one server that hangs is waited for to the end, so that it is not wronged.
    size = servers / shards
    prompt = min(size * SPREAD, MAX_SPREAD) + 0.5
    shard_seconds = prompt + (HANGS - prompt) * (1 - (1 - HANGING) ** size)
    gb_second = _usd("Lambda arm64" if options.arm64 else "Lambda x86_64")
    # What is due in half a minute is one message, or as many as it takes.
    introductions = servers * SECONDS / 60 / options.introduce_minutes
    due = introductions / sweeps
    visits = sweeps * max(due / VISITS, 1 - math.exp(-due))
    together = introductions / visits
    # Of a whole core, which 1.77 GB have.
    learning = INTRODUCTION_SECONDS + together * INTRODUCTION_CPU * 1.77 / options.introduce_memory_gb
    authorized = min(api_requests, SECONDS / AUTHORIZER_SECONDS)
    functions = {  # invocations, seconds of each, GB
        "api": (api_requests, 0.04, options.memory_gb),  # one of a hundred starts cold, which takes 1 s
        "authorizer": (authorized, 0.1, AUTHORIZER_MEMORY_GB),
        # As if everybody had a token: it is then asked as often.
        "identify": (authorized, 0.02, options.memory_gb),
        "dispatch": (sweeps, 0.1 + 0.02 * shards, options.memory_gb),
        "sweep": (sweeps * shards, shard_seconds, options.sweep_memory_gb),
        # 512 MB are three tenths of a core, so that Python's half takes three times as long.
        "write": (sweeps * shards, 0.05 + size * WRITE_SECONDS * 2, options.memory_gb),
        "introduce": (visits, learning, options.introduce_memory_gb),
        "remember": (visits, 0.05 + together * REMEMBER_SECONDS, options.memory_gb),
        "maintain": (DAYS, 1 + folding, options.memory_gb),
    }
    costs = {
        name: calls * (_usd("Lambda requests") / MILLION + seconds * memory * gb_second)
        for name, (calls, seconds, memory) in functions.items()
    }
    if options.container:
        costs["sweep"] = _container(servers, sweeps)
    lines["Lambda: probing"] = costs.pop("sweep")
    lines["Lambda: introductions"] = costs.pop("introduce") + costs.pop("remember")
    lines["Lambda: everything else"] = sum(costs.values())
    first = min(api_requests, 333 * MILLION)
    lines["API Gateway"] = (first * _usd("REST API") + (api_requests - first) * _usd("REST API beyond")) / MILLION

    # SQS: send, receive, delete; the payload is counted by 64 KiB in the first two.
    sizes = {"shard": size, "findings": size, "visits": together, "introductions": together}
    chunks = {name: math.ceil(sizes[name] * each / CHUNK) for name, each in MESSAGE_BYTES.items()}
    ticks = sweeps / 2
    idle = SECONDS / POLL_SECONDS
    fifo = sweeps * shards * (2 * chunks["shard"] + 1) + idle * max(POLLERS, shards)
    standard = sweeps * shards * (2 * chunks["findings"] + 1) + 3 * ticks + 4 * idle * POLLERS
    standard += visits * (2 * (chunks["visits"] + chunks["introductions"]) + 2)
    lines["SQS"] = (fifo * _usd("SQS FIFO") + standard * _usd("SQS standard")) / MILLION
    # The dispatcher sends from inside of the VPC, and who registers: hardly ever, beside it.
    endpoint_gb = (checks * MESSAGE_BYTES["shard"] + introductions * MESSAGE_BYTES["visits"]) / GB
    lines["SQS endpoint in the VPC"] = options.zones * HOURS * _usd("endpoint") + (
        endpoint_gb * _usd("endpoint traffic") if options.zones else 0
    )

    # Traffic. Half of what the functions and a database in one zone say to each other crosses zones, and is charged on
    # either side; a request of the API is taken for 4 KB of it.
    egress = (checks + introductions * INTRODUCTION_REQUESTS) * PROBE_BYTES / GB
    within = (checks * (MESSAGE_BYTES["shard"] + MESSAGE_BYTES["findings"]) + api_requests * 4_000) / GB
    first = min(egress, 10_000)
    lines["traffic of the checks"] = first * _usd("traffic out") + (egress - first) * _usd("traffic out beyond")
    lines["traffic between zones"] = within / 2 * 2 * _usd("traffic between zones")

    # CloudWatch
    invocations = sum(calls for calls, _, _ in functions.values())
    log_gb = (
        invocations * INVOCATION_LOG_BYTES
        + api_requests * (LOG_BYTES["request"] + ACCESS_LOG_BYTES)
        + sweeps * LOG_BYTES["sweep"]
        + sweeps * shards * (LOG_BYTES["shard"] + LOG_BYTES["written"])
        + visits * (LOG_BYTES["visits"] + LOG_BYTES["introduced"])
    ) / GB
    lines["logs, kept for a month"] = log_gb * (_usd("logs") + LOG_COMPRESSION * _usd("logs kept"))
    lines["alarms, dashboard, metrics"] = (
        options.alarms * _usd("alarm") + _usd("dashboard") + METRICS * _usd("custom metric")
    )
    lines["secret, schedules"] = (
        _usd("secret") + (authorized * _usd("secret read") + (ticks + DAYS) * _usd("schedule")) / MILLION
    )
    return Month(
        lines={name: round(usd, 2) for name, usd in lines.items()},
        database=database,
        checks_per_day=checks / DAYS,
        storage_gb=storage,
        wal_gb_per_day=wal / GB,
        # A second: of the index each server's page once a checkpoint, of the table and the log as many as are filled.
        writes=servers / CHECKPOINT_SECONDS + (day_bytes / 2 + wal) / 86_400 / 8192,
        shard_seconds=shard_seconds,
        api_requests=api_requests,
        invocations=invocations,
        gb_seconds=sum(calls * seconds * memory for calls, seconds, memory in functions.values()),
        sqs_requests=fifo + standard,
        log_gb=log_gb,
        egress_gb=egress,
    )


def _buffers(of: DatabaseClass) -> float:
    """How many bytes a class can keep of the tables."""
    burstable = of.share < 1
    return (of.memory_gb - SYSTEM_GB - (LOGIN_GB if burstable else 0)) * GB / 4


def _container(servers: int, sweeps: float) -> float:
    """A container on Fargate that is busy for half of the time, with 2 GB for each vCPU and a public address."""
    busy = servers * sweeps * PROBE_CPU / SECONDS
    cpus = next((cpus for cpus in (0.25, 0.5, 1, 2, 4, 8) if cpus >= 2 * busy), math.ceil(busy / 8) * 16)
    return HOURS * (cpus * (_usd("Fargate CPU") + 2 * _usd("Fargate memory")) + _usd("public IPv4"))


def always_free(of: Month, options: Options) -> float:
    """What the allowances that never expire take off, where nothing else in the account uses them."""
    gb_second = _usd("Lambda arm64" if options.arm64 else "Lambda x86_64")
    free = (
        min(of.invocations, MILLION) / MILLION * _usd("Lambda requests"),
        min(of.gb_seconds, 400_000) * gb_second,
        min(of.sqs_requests, MILLION) / MILLION * _usd("SQS standard"),
        min(of.egress_gb, 100) * _usd("traffic out"),
        min(of.log_gb, 5) * _usd("logs"),
        min(options.alarms, 10) * _usd("alarm") + _usd("dashboard") + METRICS * _usd("custom metric"),
    )
    return sum(free)


def savings(options: Options) -> dict[str, Options]:
    """What could be chosen or built differently, one thing at a time."""
    return {
        "arm64 in place of x86_64": options._replace(arm64=True),
        "256 MB for the function that probes": options._replace(sweep_memory_gb=0.25),
        "`RawRetentionDays=2`": options._replace(raw_days=2),
        "`RollupRetentionDays=90`": options._replace(rollup_days=90),
        "`LedgerRetentionDays=90`": options._replace(ledger_days=90),
        "the endpoint in one zone": options._replace(zones=1),
        "no endpoint: IPv6 and an egress-only gateway, free": options._replace(zones=0),
        "`IntroduceMinutes=1440`: introduced each day, not each hour": options._replace(introduce_minutes=1_440),
        "a sweep each minute": options._replace(sweeps=options.sweeps / 2),
        "a container that probes, in place of functions": options._replace(container=True),
    }


def extras(servers: int, options: Options) -> dict[str, float]:
    """What may be added, by what it adds."""
    of = month(servers, options)
    # Aurora grows in halves of a capacity unit, which has 2 GB; the sweeps never let it pause. It is taken for as much
    # memory as the instance has, and its charge for each access to the storage (0.20 a million) is left out.
    units = max(of.database.memory_gb / 2, 0.5)
    copies = 2 if options.multi_az else 1
    used = of.storage_gb / 1.25
    aurora = HOURS * units * _usd("Aurora Serverless v2") * copies + used * _usd("Aurora storage")
    rds = of.lines["database: instance"] + of.lines["database: storage"]
    # X-Ray takes the first request of each second and 5 % of the others.
    traced = min(of.invocations, SECONDS)
    kept = SNAPSHOTS * options.memory_gb * SECONDS * _usd("SnapStart kept")
    starts = servers * options.requests * DAYS * COLD * options.memory_gb * _usd("SnapStart start")
    # A run each minute, an alarm, the events, and an endpoint in the VPC, which is most of it.
    gb_second = _usd("Lambda arm64" if options.arm64 else "Lambda x86_64")
    told = SECONDS / 60 * (_usd("Lambda requests") / MILLION + 0.05 * options.memory_gb * gb_second) + _usd("alarm")
    told += servers * EVENTS_PER_DAY * DAYS * _usd("event") / MILLION + options.zones * HOURS * _usd("endpoint")
    return {
        "a standby in a second zone (Multi-AZ)": month(servers, options._replace(multi_az=True)).total - of.total,
        "RDS Proxy": HOURS * max(of.database.cpus, 2) * _usd("RDS Proxy"),
        "Aurora Serverless v2 in place of RDS, with as much memory": aurora - rds,
        "SnapStart for the functions that read": kept + starts,
        "`EventBus`: a bus is told of changes": told,
        "X-Ray, first of each second and 5 %": (traced + 0.05 * (of.invocations - traced)) / MILLION * _usd("X-Ray"),
    }


def floods(options: Options) -> dict[str, float]:
    """What somebody without credentials can make a month cost at most, who asks all the time as fast as he is answered.

    API Gateway charges for what it sends on or answers in a mock, and neither for requests that it throttles nor for
    those that fail authorization. Each of the latter runs the authorizer.
    """
    gb_second = _usd("Lambda arm64" if options.arm64 else "Lambda x86_64")
    calls, open_calls, answered = (SECONDS * rate for rate in (REQUESTS_PER_SECOND, OPEN_RATE, OPEN_FUNCTION_RATE))
    log_gb = (open_calls * ACCESS_LOG_BYTES + answered * (LOG_BYTES["request"] + INVOCATION_LOG_BYTES)) / GB
    routes = (
        open_calls / MILLION * _usd("REST API")
        + answered * (_usd("Lambda requests") / MILLION + 0.01 * options.memory_gb * gb_second)
        + log_gb * _usd("logs")
    )
    log_gb = calls * (ACCESS_LOG_BYTES + INVOCATION_LOG_BYTES + REFUSAL_LOG_BYTES) / GB
    guesses = calls * (_usd("Lambda requests") / MILLION + 0.005 * AUTHORIZER_MEMORY_GB * gb_second) + log_gb * _usd(
        "logs"
    )
    return {
        f"the open routes, refused methods among them, at their limits ({OPEN_RATE} a second)": routes,
        f"wrong credentials, at `RequestsPerSecond` ({REQUESTS_PER_SECOND} a second)": guesses,
    }


def limits(servers: int, options: Options) -> list[str]:
    """What does not hold any longer with so many servers; nothing where all does."""
    faults: list[str] = []
    shards = math.ceil(servers / SHARD)
    if shards > SWEEPERS:
        faults.append(f"{shards} shards at once, {SWEEPERS} allowed (`MaximumConcurrency` of `HealthSweepFunction`)")
    folding = servers * 24 * FOLD_SECONDS
    if folding > MAINTENANCE_SECONDS:
        faults.append(f"folding takes {folding:,.0f} s a day, a function has {MAINTENANCE_SECONDS}: that takes two")
    of = month(servers, options)
    if of.database.size is None:
        faults.append(f"the database takes a {of.database.name} or more, and `Size` has none (see `Sizes`)")
    if of.storage_gb > MAX_STORAGE_GB:
        faults.append(f"{of.storage_gb:,.0f} GB of storage, {MAX_STORAGE_GB:,} allowed (`MaxAllocatedStorage`)")
    return faults


def report(scales: Sequence[int], options: Options) -> str:
    """Everything as Markdown."""
    months = [month(servers, options) for servers in scales]
    head = ["US dollars a month", *(f"{servers:,} servers" for servers in scales)]
    rows = [head]
    rows += [[name, *(f"{of.lines[name]:,.2f}" for of in months)] for name in months[0].lines]
    rows.append(["**total**", *(f"**{of.total:,.2f}**" for of in months)])
    if not options.multi_az:
        multi_az = options._replace(multi_az=True)
        rows.append(["total with Multi-AZ", *(f"{month(servers, multi_az).total:,.2f}" for servers in scales)])
    rows.append(["free for ever, of the total", *(f"-{always_free(of, options):,.2f}" for of in months)])
    made_of = [
        ["made of", *head[1:]],
        ["checks a day", *(f"{of.checks_per_day:,.0f}" for of in months)],
        ["requests of the API a month", *(f"{of.api_requests:,.0f}" for of in months)],
        ["class of the database (`Size`)", *(f"{of.database.name} ({of.database.size})" for of in months)],
        [f"storage, {options.raw_days} days of checks, GB", *(f"{of.storage_gb:,.0f}" for of in months)],
        ["log of Postgres (WAL), GB a day", *(f"{of.wal_gb_per_day:,.1f}" for of in months)],
        ["pages written a second; gp3 has 3,000", *(f"{of.writes:,.0f}" for of in months)],
        ["a shard is probed in, s", *(f"{of.shard_seconds:.1f}" for of in months)],
        ["introductions a day", *(f"{servers * 1_440 / options.introduce_minutes:,.0f}" for servers in scales)],
        ["traffic of the checks and introductions, GB a month", *(f"{of.egress_gb:,.0f}" for of in months)],
    ]
    cheaper = [["what it saves", *head[1:]]]
    for name, other in savings(options).items():
        saved = [of.total - month(servers, other).total for servers, of in zip(scales, months, strict=True)]
        cheaper.append([name, *(f"{usd:,.2f}" for usd in saved)])
    more = [["what it adds", *head[1:]]]
    added = [extras(servers, options) for servers in scales]
    more += [[name, *(f"{each[name]:,.2f}" for each in added)] for name in added[0]]
    flood = [["a month of a flood without credentials, at most", "US dollars"]]
    flood += [[name, f"{usd:,.0f}"] for name, usd in floods(options).items()]
    prices = [["price, us-east-1", "US dollars", "for a", "page", "as of"]]
    named = {**PRICES, **{each.name: each.price for each in CLASSES}}
    prices += [
        [
            name,
            f"{price.usd:.10f}".rstrip("0").rstrip("."),
            price.unit,
            f"[{price.page}]({PAGES[price.page]})",
            price.as_of,
        ]
        for name, price in named.items()
    ]
    faults = [f"- {servers:,} servers: {fault}." for servers in scales for fault in limits(servers, options)]
    setting = (
        f"{options.requests:g} requests and {options.registrations:g} registrations for each server and day; "
        f"checks kept for {options.raw_days} days; database in {'two zones' if options.multi_az else 'one zone'}."
    )
    parts = [setting, _table(rows), _table(made_of), _table(cheaper), _table(more), _table(flood)]
    if faults:
        parts.append("What the stack does not do as it comes:\n\n" + "\n".join(faults))
    return "\n\n".join([*parts, _table(prices)])


def _usd(name: str) -> float:
    return PRICES[name].usd


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, figures to the right. (That of benchmarks.report has psycopg with it.)"""
    plain = [text.strip("-*").replace(",", "").replace(".", "") for text in rows[1]]
    rule = ["---:" if column and text.isdigit() else "---" for column, text in enumerate(plain)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def measure() -> None:
    """Print the figures of the database anew."""
    import random
    from datetime import UTC, datetime, timedelta
    from tempfile import TemporaryDirectory

    sys.path.insert(0, str(Path(__file__).parent.parent / "layers" / "registry"))
    from benchmarks.catalogue import filled
    from local.postgres import Postgres
    from mcp_registry.aws.db import Database
    from mcp_registry.health import maintenance, messages, results
    from mcp_registry.health.messages import Endpoint, Finding, Findings, Shard

    servers, sweeps = 1_000, 2_880
    draw = random.Random(7)
    # Response times of a server are spread by a factor of 1.35 about its own.
    factors = [draw.lognormvariate(0, 0.3) for _ in range(10_007)]

    def finding(id_: int, sweep: int) -> Finding:
        if (id_ * 7_919 + sweep // 40) % 50 == 0:
            return Finding(id_, "timeout", None, 5_000, "No answer within 5 seconds", 500, ids[id_])
        milliseconds = (40 + id_ % 200) * factors[(id_ * 31 + sweep * 17) % len(factors)]
        return Finding(id_, "healthy", 200, round(milliseconds), None, 500, ids[id_])

    def findings(slot: datetime, sweep: int) -> Findings:
        return Findings(slot, 0, [finding(id_, sweep) for id_ in range(1, servers + 1)])

    # Durable, because a Postgres that is not writes no whole pages; but nothing waits for the disk.
    with TemporaryDirectory(prefix="registry-cost-") as folder, Postgres(Path(folder) / "data") as url:
        database = Database(filled(url, "cost", servers))
        database.begin(60).read("SELECT metrics.add_days(current_date - 1, current_date)")
        connection = database._connection
        assert connection is not None
        connection.deadline = float("inf")
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET autovacuum = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("UPDATE registry.mcp_servers SET status = 'active'")
        connection.execute("UPDATE registry.endpoints SET moved_at = now() - interval '2 days'")
        connection.execute("VACUUM ANALYZE")

        def one(query: str) -> float:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return float(row[0])

        def cpu() -> float:
            return time.clock_gettime((~connection.info.backend_pid << 3) | 2)

        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        table = f"metrics.server_health_metrics_{day:%Y%m%d}"
        listed = connection.execute("SELECT server_id, id, url FROM registry.endpoints").fetchall()
        ids = {server: id_ for server, id_, _ in listed}
        known = (
            '["no JSON",400,"application/json","{\\"error\\":{\\"code\\":int},\\"id\\":null,\\"jsonrpc\\":str}",5.0]'
        )
        of_shard = [Endpoint(server, id_, url_, None, known, "legacy", "healthy") for server, id_, url_ in listed]
        shard = messages.encode(Shard(day, 0, endpoints=of_shard))
        found = messages.encode(findings(day, 7))
        position = "SELECT pg_current_wal_lsn() - '0/0'"
        log, before, seconds = one(position), cpu(), list[float]()
        for sweep in range(sweeps):
            slot = day + timedelta(seconds=30 * sweep)
            started = time.perf_counter()
            results.write(database.begin(60), findings(slot, sweep), slot + timedelta(seconds=6))
            seconds.append(time.perf_counter() - started)
            connection.deadline = float("inf")
            if sweep % 10 == 9:
                connection.execute("CHECKPOINT")
                connection.execute("VACUUM registry.endpoint_health")  # autovacuum would look once a minute
        checks = servers * sweeps
        spent, log = cpu() - before, one(position) - log
        print(f"CPU of Postgres: {spent / checks * 1e6:.1f} us a check")
        print(f"a write of {servers:,} takes {statistics.median(seconds) * 1000:.1f} ms")
        print(f"WAL: {log / checks:.0f} bytes a check")
        rows, indexes = (one(f"SELECT pg_{kind}_size('{table}')") / checks for kind in ("table", "indexes"))
        print(f"a check: {rows:.0f} bytes and {indexes:.0f} of indexes")
        before = cpu()
        for hour in range(24):
            database.begin(600).write(maintenance.FOLD_HOUR, {"hour": f"{day:%Y-%m-%d} {hour:02}:00:00Z"})
        connection.deadline = float("inf")
        spent, hours = cpu() - before, servers * 24
        print(f"folding: {spent / hours * 1000:.2f} ms for a server's hour")
        size = one("SELECT pg_total_relation_size('metrics.server_health_hours')")
        buckets = one("SELECT avg(cardinality(buckets)) FROM metrics.server_health_hours")
        print(f"a server's hour: {size / hours:.0f} bytes, {buckets:.0f} buckets")
        size = one(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c"
            " WHERE c.relnamespace = 'registry'::regnamespace AND c.relkind = 'r'"
        )
        print(f"a server with its last check: {size / servers:.0f} bytes")
        print(f"of a server in a message: {len(shard) / servers:.1f} of the shard, {len(found) / servers:.1f} found")
        database.close()


def main() -> None:
    """Print the report, or measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description="What a month costs in AWS.")
    parser.add_argument("--servers", type=int, nargs="+", default=SCALES, help="numbers of servers, one column each")
    parser.add_argument("--requests", type=float, default=Options().requests, help="lists, details: a server and day")
    parser.add_argument("--registrations", type=float, default=Options().registrations, help="for each server and day")
    parser.add_argument("--raw-days", type=int, default=Options().raw_days, help="RawRetentionDays")
    parser.add_argument("--multi-az", action="store_true", help="a standby of the database in a second zone")
    parser.add_argument("--measure", action="store_true", help="measure the figures of the database, in a minute")
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
        return
    if min(arguments.servers) < 1 or arguments.raw_days < 2 or min(arguments.requests, arguments.registrations) < 0:
        parser.error("there is at least one server, checks are kept for two days or more, and nothing is negative")
    options = Options(
        requests=arguments.requests,
        registrations=arguments.registrations,
        raw_days=arguments.raw_days,
        multi_az=arguments.multi_az,
    )
    print(report(arguments.servers, options))


if __name__ == "__main__":
    main()
