"""What the registry costs: the command, and the table in docs/cost.md that it printed."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from benchmarks import cost
from mcp_registry.dial import introduction
from mcp_registry.health import invitations, shard, sweeps

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- cost: begin -->\n", "<!-- cost: end -->\n"
EVERY = {"as it comes": cost.Options(), **cost.savings(cost.Options())}


def printed(*options: str) -> str:
    command = [sys.executable, "-m", "benchmarks.cost", *options]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_documentation_holds_what_the_command_prints() -> None:
    text = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    # `python -m benchmarks.cost`, between the markers.
    assert text.partition(BEGIN)[2].partition(END)[0] == printed()


def test_the_command_needs_nothing_but_the_standard_library() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "cost.py"), "--servers", "5"]
    assert "| **total** |" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_options_change_what_is_printed() -> None:
    default = printed("--servers", "10000")
    for options in (["--requests", "500"], ["--registrations", "0"], ["--raw-days", "30"], ["--multi-az"]):
        assert printed("--servers", "10000", *options) != default


@pytest.mark.parametrize("servers", cost.SCALES)
def test_the_total_is_the_sum_of_the_lines_as_printed(servers: int) -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", cost.report([servers], cost.Options()), re.MULTILINE)
    first = [name for name, _ in rows].index("**total**")
    cents = [round(float(usd.replace(",", "")) * 100) for _, usd in rows[2:first]]
    assert len(cents) == len(cost.month(servers, cost.Options()).lines)
    assert sum(cents) == round(float(rows[first][1].strip("*").replace(",", "")) * 100)


@pytest.mark.parametrize("name", EVERY)
def test_more_servers_never_cost_less(name: str) -> None:
    scales = sorted({*range(1, 3_000, 37), 999, 1_000, 1_001, *range(3_000, 130_000, 999)})
    months = [cost.month(servers, EVERY[name]) for servers in scales]
    totals = [of.total for of in months]
    assert totals == sorted(totals)
    assert all(usd >= 0 for of in months for usd in of.lines.values())


@pytest.mark.parametrize("servers", cost.SCALES)
def test_what_is_said_to_save_costs_no_more_and_a_second_zone_costs_more(servers: int) -> None:
    total = cost.month(servers, cost.Options()).total
    for name, options in cost.savings(cost.Options()).items():
        # A container is dearer than a function for few servers, and the table says so.
        assert cost.month(servers, options).total <= total or "container" in name
    assert cost.month(servers, cost.Options(multi_az=True)).total > total
    assert 0 < cost.always_free(cost.month(servers, cost.Options()), cost.Options()) < total


def test_every_price_has_a_page_and_a_date() -> None:
    prices = [*cost.PRICES.values(), *(each.price for each in cost.CLASSES)]
    for price in prices:
        assert price.usd > 0
        assert cost.PAGES[price.page].startswith("https://aws.amazon.com/")
        seen = re.match(r"(20\d\d)(?:-(0[1-9]|1[0-2]))?, (quoted|memory)", price.as_of)
        assert seen is not None
        assert date(int(seen[1]), int(seen[2] or 1), 1) <= date(2026, 11, 22)
    assert {price.page for price in prices} == set(cost.PAGES)


def test_every_price_is_used() -> None:
    source = (ROOT / "benchmarks" / "cost.py").read_text(encoding="utf-8")
    for name in cost.PRICES:
        assert source.count(f'"{name}"') > 1, name


def test_the_constants_are_those_of_the_code() -> None:
    assert cost.SHARD == sweeps.MAX_SHARD
    assert (cost.SPREAD, cost.MAX_SPREAD) == (shard.SPREAD_SECONDS_EACH, shard.MAX_SPREAD_SECONDS)
    assert cost.HANGS == shard.SWEEP_SECONDS - introduction.GRACE_SECONDS
    assert cost.VISITS == invitations.MAX_VISITS
    assert sweeps.HALF_MINUTE.total_seconds() * cost.SWEEPS == cost.SECONDS


def test_the_constants_are_those_of_the_template() -> None:
    template = (ROOT / "template.yaml").read_text(encoding="utf-8")

    def of(resource: str, pattern: str) -> str:
        found = re.search(rf"^  {resource}:\n((?:(?:    .*|)\n)+)", template, re.MULTILINE)
        assert found is not None, resource
        value = re.search(pattern, found[1])
        assert value is not None, (resource, pattern)
        return value[1]

    options = cost.Options()
    assert re.findall(r"^    (\w+): {Class: ([\w.]+),", template, re.MULTILINE) == [
        (each.size, each.name) for each in cost.CLASSES if each.size
    ]
    # Two of them reckon with four metrics and with five, and are paid for each. One is there with an EventBus only.
    assert template.count("Type: AWS::CloudWatch::Alarm\n") + 3 + 4 - 1 == options.alarms
    assert int(of("Function", r"MemorySize: (\d+)")) == options.memory_gb * 1024 == options.sweep_memory_gb * 1024
    assert int(of("AuthorizerFunction", r"MemorySize: (\d+)")) == cost.AUTHORIZER_MEMORY_GB * 1024
    assert template.count("      SnapStart: ") == cost.SNAPSHOTS
    assert int(of("IntroduceFunction", r"MemorySize: (\d+)")) == options.introduce_memory_gb * 1024
    assert int(of("IntroduceMinutes", r"Default: (\d+)")) == options.introduce_minutes
    assert "MemorySize" not in template.partition("\n  HealthSweepFunction:\n")[2].partition("\n\n")[0]
    assert int(of("HealthSweepFunction", r"MaximumConcurrency: (\d+)")) == cost.SWEEPERS
    assert int(of("MaintainFunction", r"Timeout: (\d+)")) == cost.MAINTENANCE_SECONDS
    assert int(of("Database", r"MaxAllocatedStorage: (\d+)")) == cost.MAX_STORAGE_GB
    assert int(of("RawRetentionDays", r"Default: (\d+)")) == options.raw_days
    assert int(of("RollupRetentionDays", r"Default: (\d+)")) == options.rollup_days
    assert int(of("LedgerRetentionDays", r"Default: (\d+)")) == options.ledger_days
    assert len(of("SqsEndpoint", r"SubnetIds: \[(.*)\]").split(",")) == options.zones
    assert int(of("RegistryApi", r"ReauthorizeEvery: (\d+)")) == cost.AUTHORIZER_SECONDS


def test_a_flood_is_reckoned_with_the_throttles_of_the_template() -> None:
    template = (ROOT / "template.yaml").read_text(encoding="utf-8")
    own = re.findall(r"ResourcePath: (\S+), HttpMethod: (\w+), ThrottlingRateLimit: (\d+)", template)
    assert sum(int(rate) for _, _, rate in own) == cost.OPEN_RATE
    answered = {("/~1api~1jobs~1health-check", "POST")} | {
        (path, method) for path in ("/", "/~1health", "/~1openapi.yaml") for method in ("GET", "HEAD")
    }
    assert sum(int(rate) for path, method, rate in own if (path, method) in answered) == cost.OPEN_FUNCTION_RATE
    default = re.search(r"  RequestsPerSecond:\n    Type: Number\n    Default: (\d+)", template)
    assert default is not None and int(default[1]) == cost.REQUESTS_PER_SECOND
    assert all(usd > 0 for usd in cost.floods(cost.Options()).values())


def test_what_the_stack_does_not_do_is_said() -> None:
    assert cost.limits(100_000, cost.Options()) == []
    assert not any("MaximumConcurrency" in text for text in cost.limits(cost.SWEEPERS * cost.SHARD, cost.Options()))
    assert any("MaximumConcurrency" in text for text in cost.limits(cost.SWEEPERS * cost.SHARD + 1, cost.Options()))
