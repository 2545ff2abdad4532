"""What `make preflight` says, with moto in the place of AWS, and a server of ours for what moto does not know."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from moto import mock_aws
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID

from local import preflight
from tests.cloudformation import Stack
from tests.conftest import ROOT

REGION = "eu-west-1"
FREE = ("--parameter-overrides", "Size=trial", "BackupDays=1", "ReserveConcurrency=false")
NETWORK = "http://rds.amazonaws.com/doc/2014-10-31/"
ROLE = "arn:aws:iam::123456789012:role/logs"


class Remembering(boto3.Session):
    """A session that makes each client once: it takes 50 to 100 ms, and the tests ask for some hundreds."""

    @cache  # noqa: B019
    def client(self, service: str, region_name: str | None = None, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().client(service, region_name=region_name, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]


@cache
def session(profile_name: str | None, region_name: str | None) -> Remembering:
    return Remembering(profile_name=profile_name, region_name=region_name)


def remembered(profile_name: str | None = None, region_name: str | None = None) -> Remembering:
    return session(profile_name, region_name or os.environ.get("AWS_DEFAULT_REGION"))


@dataclass
class Account:
    """What moto does not know of an account: concurrency and what is free of it, the plan, the classes on offer."""

    limit: int = 1000
    unreserved: int = 1000
    plan: str = "PAID"
    classes: set[str] = field(default_factory=lambda: {"db.t4g.micro", "db.t4g.small", "db.t4g.medium"})


class Answers(BaseHTTPRequestHandler):
    """AWS's answers, in the forms of its API references."""

    account: Account

    def do_GET(self) -> None:
        """lambda:GetAccountSettings"""
        assert self.path == "/2016-08-19/account-settings"
        limit = {
            "ConcurrentExecutions": self.account.limit,
            "UnreservedConcurrentExecutions": self.account.unreserved,
        }
        self._answer(200, json.dumps({"AccountLimit": limit, "AccountUsage": {}}))

    def do_POST(self) -> None:
        """freetier:GetAccountPlanState, rds:DescribeOrderableDBInstanceOptions; of snapshots there are none"""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers.get("X-Amz-Target") == "AWSFreeTierService.GetAccountPlanState":
            if self.account.plan.endswith("Exception"):
                self._answer(400, json.dumps({"__type": self.account.plan, "message": "no"}))
            else:
                self._answer(200, json.dumps({"accountId": "1", "accountPlanType": self.account.plan}))
            return
        asked = urllib.parse.parse_qs(body)
        if asked["Action"][0].endswith("Snapshots"):
            fault = "<Code>DBSnapshotNotFound</Code><Message>no</Message>"
            self._answer(404, f'<ErrorResponse xmlns="{NETWORK}"><Error>{fault}</Error></ErrorResponse>')
            return
        assert asked["Action"] == ["DescribeOrderableDBInstanceOptions"]
        (name,) = asked["DBInstanceClass"]
        option = f"<OrderableDBInstanceOption><DBInstanceClass>{name}</DBInstanceClass></OrderableDBInstanceOption>"
        self._answer(
            200,
            f'<DescribeOrderableDBInstanceOptionsResponse xmlns="{NETWORK}"><DescribeOrderableDBInstanceOptionsResult>'
            f"<OrderableDBInstanceOptions>{option if name in self.account.classes else ''}</OrderableDBInstanceOptions>"
            "</DescribeOrderableDBInstanceOptionsResult></DescribeOrderableDBInstanceOptionsResponse>",
        )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def account(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for service in ("LAMBDA", "FREETIER", "RDS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", f"http://127.0.0.1:{server.server_port}")
    # moto makes the machine images of AWS anew for each region and test, which took half of the time.
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.setattr(boto3, "Session", remembered)
    Answers.account = Account()
    with mock_aws():
        give_role(ROLE)
        yield Answers.account


@pytest.fixture
def run(account: Account, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command; gives its exit code and the lines that it found."""

    def run(*arguments: str) -> tuple[int, list[str]]:
        code = preflight.main(arguments)
        lines = capsys.readouterr().out.splitlines()
        return code, [line for line in lines if line.startswith(("fails:", "note:"))]

    return run


def client(service: str, region: str = REGION) -> Any:
    """A client of the account, to make what the command is to find."""
    return remembered(None, REGION).client(service, region)


def give_role(role: str) -> None:
    """Give the account the role by which API Gateway writes logs in the region."""
    change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": role}
    client("apigateway").update_account(patchOperations=[change])


def living(stack: str, status: str, **parameters: str) -> None:
    """Let there be a stack in a state, with a database of its own unless a DatabaseUrl is given."""
    parameters = {"DatabaseUrl": "", **parameters}
    declared = {name: {"Type": "String"} for name in parameters}
    resources = {"Topic": {"Type": "AWS::SNS::Topic"}}
    if not parameters["DatabaseUrl"]:
        resources[preflight.OF_OWN_DATABASE] = {"Type": "AWS::SNS::Topic"}
    template = {"Parameters": declared, "Resources": resources}
    client("cloudformation").create_stack(
        StackName=stack,
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )
    (found,) = get_backend("cloudformation")[DEFAULT_ACCOUNT_ID][REGION].stacks.values()
    found.status = status
    # As CloudFormation tells them; moto compares values with names, and so hides none.
    for name in parameters:
        if preflight.read_template()["Parameters"].get(name, {}).get("NoEcho"):
            found.resource_map.resolved_parameters[name] = preflight.MASKED


# ------------------------------------------------------------------ what stands in the way of asking


def test_without_credentials_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert preflight.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == "there are no credentials of AWS: set AWS_PROFILE, or log in by `aws sso login`\n"


def test_without_a_region_there_is_one_clear_line(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_REGION", REGION)
    assert preflight.main([]) == 2
    err = capsys.readouterr().err
    assert err == "no region is given: set AWS_DEFAULT_REGION (AWS_REGION is not read), or --region\n"
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert preflight.main([]) == 0, "what it says to set is enough"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config-env", "production"], "samconfig.toml has no environment production; it has default, dev, prod"),
        (["--parameter-overrides", "Size"], "a parameter is given as NAME=VALUE, not as Size"),
        (["--profile", "nobody"], "AWS does not let us ask: The config profile (nobody) could not be found"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    account: Account, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
):
    assert preflight.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count("\n") == 1


# ------------------------------------------------------------------ what would fail


@pytest.mark.parametrize("environment", ["default", "dev", "staging", "prod"])
def test_an_account_that_has_room_is_told_that_nothing_would_fail(run: Any, environment: str):
    assert run("--config-env", environment) == (0, [])


def test_it_only_reads(run: Any, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    call = vars(botocore.client.BaseClient)["_make_api_call"]

    def spied(self: Any, operation: str, arguments: Any) -> Any:
        asked.append(operation)
        return call(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", spied)
    run("--parameter-overrides", "VpcId=vpc-1", "SubnetIds=subnet-1,subnet-2", "DatabaseSnapshot=one")
    run()
    assert len(set(asked)) >= 10
    assert [name for name in asked if not name.startswith(("Get", "Describe"))] == []


# Of an account's concurrency: the hundred that has to stay, and what the stack reserves.
ENOUGH = 100 + preflight.reserved(preflight.read_template(), "small", publishes=False)


@pytest.mark.parametrize(
    ("limit", "unreserved", "would_fail"),
    [(1000, 1000, False), (1000, ENOUGH, False), (1000, ENOUGH - 1, True), (10, 10, True)],
)
def test_too_little_concurrency_is_said_with_what_to_do(
    run: Any, account: Account, limit: int, unreserved: int, would_fail: bool
):
    account.limit, account.unreserved = limit, unreserved
    code, lines = run()
    assert code == int(would_fail) == len(lines)
    if would_fail:
        assert lines[0].startswith("fails: Lambda:") and "ReserveConcurrency=false" in lines[0]


def test_a_stack_that_exists_has_its_share_already(run: Any, account: Account):
    living("mcp-registry", "CREATE_COMPLETE")
    account.unreserved = 110
    assert run() == (0, [])


@pytest.mark.parametrize("size", ["trial", "small", "medium", "large"])
@pytest.mark.parametrize("bus", ["", "tools"])
def test_what_is_counted_as_reserved_is_what_the_template_reserves(size: str, bus: str):
    stack = Stack(Size=size, EventBus=bus)
    shares = [p.get("ReservedConcurrentExecutions", 0) for p in stack.of_type("AWS::Lambda::Function").values()]
    counted = preflight.reserved(preflight.read_template(), size, publishes=bool(bus))
    assert counted == sum(map(int, shares)) > 0


def test_a_region_without_certificates_is_said(run: Any):
    code, lines = run("--region", "ca-west-1")
    assert code == 1 and any(line.startswith("fails: region ca-west-1:") for line in lines)
    code, lines = run("--region", "ca-west-1", "--parameter-overrides", "DatabaseUrl=postgresql://u@h/d")
    assert (code, lines) == (0, []), "a database of yours brings its own"


def test_a_class_that_is_not_offered_is_said(run: Any, account: Account):
    code, (line,) = run("--parameter-overrides", "Size=large")
    assert code == 1 and "eu-west-1 offers no db.m7g.large for postgres" in line
    account.classes = {"db.serverless"}
    assert run("--parameter-overrides", "Size=large", "DatabaseEngine=aurora-postgresql") == (0, [])


def test_an_account_on_the_free_plan_is_told_what_to_set(run: Any, account: Account):
    account.plan, account.limit, account.unreserved = "FREE", 10, 10
    code, lines = run()
    assert code == 1 and all(line.startswith("fails:") for line in lines)
    told = " ".join(lines)
    assert len(lines) == 3 and all(setting in told for setting in FREE[1:])
    code, lines = run(*FREE)
    assert code == 0 and lines == [
        "note: Lambda: all functions of the account together may run 10 at once: enough to try it"
    ]


def test_an_account_older_than_the_plans_has_none(run: Any, account: Account):
    account.plan = "ResourceNotFoundException"
    assert run() == (0, [])


def test_what_may_not_be_asked_is_a_note(run: Any, account: Account):
    account.plan = "AccessDeniedException"
    code, (line,) = run()
    assert code == 0 and line.startswith("note: the plan of the account could not be asked for:")


def test_the_role_of_api_gateway_is_looked_at(run: Any):
    elsewhere = ("--region", "eu-central-1")
    code, (line,) = run(*elsewhere, "--parameter-overrides", "ApiGatewayRole=existing")
    assert code == 1 and "ApiGatewayRole=create" in line
    assert run("--parameter-overrides", "ApiGatewayRole=existing") == (0, [])
    code, (line,) = run("--parameter-overrides", "ApiGatewayRole=create")
    assert code == 0 and line.startswith("note:") and ROLE in line
    assert run("--parameter-overrides", "ApiGatewayRole=create", "AccessLogs=false") == (0, [])


@pytest.mark.parametrize(("region", "answer"), [(REGION, "existing"), ("eu-central-1", "create")])
def test_what_to_answer_about_the_role_is_said(
    account: Account, capsys: pytest.CaptureFixture[str], region: str, answer: str
):
    assert preflight.main(["--region", region]) == 0
    assert f"give: ApiGatewayRole={answer}, because" in capsys.readouterr().out


def test_the_network_that_is_given_has_to_exist_and_to_fit(run: Any):
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    other = ec2.create_vpc(CidrBlock="10.8.0.0/24")["Vpc"]["VpcId"]

    def subnet(vpc: str, place: str, block: str) -> str:
        made = ec2.create_subnet(VpcId=vpc, AvailabilityZone=f"{REGION}{place}", CidrBlock=block)
        return made["Subnet"]["SubnetId"]

    first, second, tight, elsewhere = (
        subnet(vpc, "a", "10.9.0.0/27"),
        subnet(vpc, "b", "10.9.0.32/27"),
        subnet(vpc, "b", "10.9.0.64/29"),
        subnet(other, "b", "10.8.0.0/27"),
    )

    def said(vpc: str, *subnets: str) -> tuple[int, list[str]]:
        return run("--parameter-overrides", f"VpcId={vpc}", f"SubnetIds={','.join(subnets)}")

    assert said(vpc, first, second) == (0, [])
    assert said("vpc-0123", first, second) == (1, ["fails: network: eu-west-1 has no vpc-0123"])
    assert said(vpc, first, second, "subnet-0123") == (1, ["fails: network: eu-west-1 has no subnet-0123"])
    assert said(vpc, first, elsewhere) == (1, [f"fails: network: {elsewhere} is in {other}, not in {vpc}"])
    assert said(vpc, first, tight) == (0, [f"note: network: {tight} has 3 addresses left; 8 are wanted"])
    assert said(vpc, first, first) == (
        1,
        ["fails: network: the subnets are in one availability zone; RDS asks for two"],
    )


def test_a_zone_that_lambda_does_without_is_said(run: Any):
    ec2 = client("ec2", "us-east-1")
    zones = {zone["ZoneId"]: zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, AvailabilityZone=zones[zone], CidrBlock=f"10.9.0.{start}/27")["Subnet"]["SubnetId"]
        for zone, start in (("use1-az3", 0), ("use1-az1", 32))
    ]
    overrides = ("--parameter-overrides", f"VpcId={vpc}", f"SubnetIds={','.join(subnets)}")
    code, (line,) = run("--region", "us-east-1", *overrides)
    assert code == 1 and subnets[0] in line and "Lambda takes no subnet" in line


def test_a_region_that_is_full_of_vpcs_is_said(run: Any):
    ec2 = client("ec2")
    while len(ec2.describe_vpcs()["Vpcs"]) < 5:
        ec2.create_vpc(CidrBlock="10.9.0.0/24")
    code, (line,) = run()
    assert code == 1 and line.startswith("fails: network: eu-west-1 has 5 of 5 VPCs")
    living("mcp-registry", "CREATE_COMPLETE")
    assert run() == (0, []), "a stack that exists has its own"


@pytest.fixture
def motos_rds(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """RDS as moto plays it, which has snapshots and offers no class. No client of another is remembered."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_RDS")
    session.cache_clear()
    yield
    session.cache_clear()


def test_a_snapshot_has_to_exist_and_to_be_of_the_version(run: Any, motos_rds: None):
    rds = client("rds")
    rds.create_db_instance(
        DBInstanceIdentifier="old", Engine="postgres", EngineVersion="17.4", DBInstanceClass="db.t4g.small"
    )
    rds.create_db_snapshot(DBInstanceIdentifier="old", DBSnapshotIdentifier="one")

    def said(**parameters: str) -> list[str]:
        _, lines = run("--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items()))
        return [line for line in lines if "snapshot:" in line]

    assert said(DatabaseSnapshot="one", DatabaseVersion="17") == []
    (line,) = said(DatabaseSnapshot="one")
    assert line.startswith("fails: snapshot: one is of PostgreSQL 17: DatabaseVersion=17")
    (line,) = said(DatabaseSnapshot="two")
    assert line.startswith("fails: snapshot: eu-west-1 has none that is called two")


def test_a_snapshot_that_the_database_was_made_from_may_be_gone(run: Any):
    living("mcp-registry", "UPDATE_COMPLETE", DatabaseSnapshot="gone", DatabaseEngine="postgres")
    assert not [line for line in run()[1] if "snapshot:" in line]
    for change in ("DatabaseSnapshot=other", "DatabaseEngine=aurora-postgresql"):
        assert [line for line in run("--parameter-overrides", change)[1] if line.startswith("fails: snapshot:")]


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "CREATE_FAILED"])
@pytest.mark.parametrize(("url", "judged"), [("", True), ("postgresql://u:secret@h/d", False)])
def test_whether_a_stack_has_a_database_of_its_own_is_known_although_its_url_is_hidden(
    run: Any, account: Account, status: str, url: str, judged: bool
):
    living("mcp-registry", status, DatabaseUrl=url)
    account.classes = set()
    assert any("RDS: eu-west-1 offers no" in line for line in run()[1]) is judged


def test_what_tells_of_a_database_of_its_own_is_there_where_the_template_makes_one():
    assert preflight.read_template()["Resources"][preflight.OF_OWN_DATABASE]["Condition"] == "CreatesDatabase"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Siez=small", "parameter Siez: the template has none of this name"),
        ("Size=tiny", "parameter Size: is to be one of trial, small, medium, large"),
        ("BackupDays=0", "parameter BackupDays: is to be from 1 to 35"),
        ("BackupDays=many", "parameter BackupDays: is to be a number"),
        ("VpcId=mine", "parameter VpcId: does not have the form (vpc-[0-9a-f]+)?"),
    ],
)
def test_a_parameter_that_the_template_would_refuse_is_said(run: Any, given: str, said: str):
    assert run("--parameter-overrides", given) == (1, [f"fails: {said}"])


# ------------------------------------------------------------------ the state of the stack, and its rollback

STATES = {
    None: ("--disable-rollback", 0, 0),
    "REVIEW_IN_PROGRESS": ("--disable-rollback", 0, 0),
    "CREATE_FAILED": ("--disable-rollback", 0, 1),
    "UPDATE_FAILED": ("--disable-rollback", 0, 1),
    "CREATE_COMPLETE": ("--no-disable-rollback", 0, 0),
    "UPDATE_COMPLETE": ("--no-disable-rollback", 0, 0),
    "UPDATE_ROLLBACK_COMPLETE": ("--no-disable-rollback", 0, 0),
    "UPDATE_IN_PROGRESS": ("--no-disable-rollback", 1, 1),
    "ROLLBACK_FAILED": ("--no-disable-rollback", 1, 1),
    "UPDATE_ROLLBACK_FAILED": ("--no-disable-rollback", 1, 1),
}


@pytest.mark.parametrize("status", STATES)
def test_a_deployment_rolls_back_unless_it_is_the_first_or_goes_on_from_one_that_failed(
    run: Any, capsys: pytest.CaptureFixture[str], status: str | None
):
    if status:
        living("mcp-registry", status)
    option, code, lines = STATES[status]
    assert preflight.main(["--rollback"]) == 0
    assert capsys.readouterr().out == f"{option}\n"
    found = run()
    assert found[0] == code and len(found[1]) == lines


@pytest.mark.parametrize("chosen", ["--disable-rollback", "--no-disable-rollback", "--on-failure=DELETE"])
def test_whoever_chooses_what_becomes_of_a_failure_is_not_contradicted(
    account: Account, capsys: pytest.CaptureFixture[str], chosen: str
):
    assert preflight.main(["--rollback", "--guided", chosen]) == 0
    assert capsys.readouterr().out == "\n"


def test_a_stack_that_exists_keeps_the_parameters_that_are_not_given(run: Any, account: Account):
    living("mcp-registry", "CREATE_COMPLETE", Size="large", OfAnOlderVersion="x")
    code, (line,) = run()
    assert code == 1 and "db.m7g.large" in line
    assert run("--parameter-overrides", "Size=small") == (0, [])


# ------------------------------------------------------------------ make deploy, and the run book

# In the place of Python and of sam: what is called with what is written down, and answered as the test says.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$*" in
  *--architecture-of*) echo x86_64 ;;
  *local.preflight*--rollback*) echo --disable-rollback; exit ${OPTION:-0} ;;
  *local.preflight*) exit ${FOUND:-0} ;;
esac
"""


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Run a target with the stand-ins; gives the exit code and what was called of preflight and sam."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python", "sam"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    (tmp_path / "dev.stamp").touch()
    log = tmp_path / "log"

    def make(target: str, arguments: str, **answers: int) -> tuple[int, list[str]]:
        log.write_text("")
        environment = {"PATH": os.environ["PATH"], "LOG": str(log), **{key: str(code) for key, code in answers.items()}}
        command = ["make", target, f"VENV={tmp_path}", "ENV=prod", f"ARGS={arguments}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        called = log.read_text().splitlines()
        return done.returncode, [line for line in called if line.startswith("sam") or "local.preflight" in line]

    return make


ASKED = "python -m local.preflight --config-env prod"
OPTION = "python -m local.preflight --rollback --config-env prod"


def test_make_deploy_asks_what_would_fail_then_builds_then_deploys_with_the_option(make: Any):
    code, (asked, build, option, deploy) = make("deploy", "--stack-name x")
    assert code == 0
    assert asked == f"{ASKED} --stack-name x" and option == f"{OPTION} --stack-name x"
    assert build.startswith("sam build ") and "--stack-name" not in build
    assert deploy == "sam deploy --config-env prod --disable-rollback --stack-name x"


@pytest.mark.parametrize("found", [1, 2])
def test_make_deploy_stops_before_it_builds_what_would_fail(make: Any, found: int):
    code, called = make("deploy", "", FOUND=found)
    assert code != 0 and [line.rstrip() for line in called] == [ASKED]


def test_make_deploy_guided_goes_on_for_sam_asks_what_to_deploy(make: Any):
    code, called = make("deploy", "--guided", FOUND=1)
    assert code == 0 and called[-1].startswith("sam deploy ")
    assert make("deploy", "--guided", FOUND=2)[0] != 0


def test_make_deploy_does_not_deploy_where_the_option_is_not_known(make: Any):
    code, called = make("deploy", "", OPTION=2)
    assert code != 0 and not [line for line in called if line.startswith("sam deploy")]


def test_make_preflight_fails_where_something_would(make: Any):
    assert make("preflight", "--region r") == (0, [f"{ASKED} --region r"])
    assert make("preflight", "", FOUND=1)[0] != 0


def test_the_run_book_names_the_stack_each_time_and_gives_the_first_what_has_no_default():
    commands = re.findall(r"`make (?:preflight|deploy)\b([^`]*)`", (ROOT / "docs" / "first-account.md").read_text())
    declared = preflight.read_template()["Parameters"]
    required = {name for name, parameter in declared.items() if "Default" not in parameter}
    deployed: set[str] = set()
    for command in commands:
        (given,) = re.findall(r'^ ARGS="(.*)"$', command)
        assert "--stack-name $S" in given, command
        words = shlex.split(given)
        stack, names = words[words.index("--stack-name") + 1], {w.partition("=")[0] for w in words if "=" in w}
        assert names <= set(declared), command
        if "--parameter-overrides" in words:
            assert stack in deployed or required <= names, command
            deployed.add(stack)
    assert len(deployed) == 2


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_every_deployment_of_the_default_environment_that_is_written_down_gives_what_has_no_default(page: str):
    given = re.findall(r'make deploy ARGS=("[^"]*"|[^\s`]+)', (ROOT / page).read_text())
    assert given and all("ApiGatewayRole=" in arguments for arguments in given)
