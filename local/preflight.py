"""Say in seconds what would fail after a quarter of an hour: `python -m local.preflight --config-env NAME`.

Asks AWS about the account and the region that an environment of samconfig.toml is deployed to. Every call reads, and
changes nothing. A line for each thing: `fails:` where CloudFormation would give up, `give:` what to answer for a
parameter that has no default, `note:` what is good to know, or could not be asked. Takes the options of `sam deploy`
that decide where and what (--region, --profile, --stack-name, --parameter-overrides, which replace those of the
environment) and passes over its others, so that one ARGS serves both.

The exit code is 0 where nothing would fail, 1 where something would, 2 where AWS could not be asked at all.

With --rollback it only prints the option that `sam deploy` needs. The first deployment of a stack keeps what it has
made where it fails, and the next goes on from there: CloudFormation could not take the database away, which is
protected, and would leave a stack that can only be deleted. Every other deployment rolls back.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from samtranslator.yaml_helper import yaml_parse

from local import samconfig
from local.certificates import FOLDER, ROOT

Json = dict[str, Any]

# Of an account's concurrency Lambda keeps so much for functions that reserve none ("Lambda quotas").
UNRESERVED = 100
# "VPCs per Region" in Service Quotas.
VPC_QUOTA = "L-F678F1CE"
# Lambda takes no subnet there; an account's us-east-1a to -f are in an order of its own.
ZONES_WITHOUT_LAMBDA = {"use1-az3"}
# A subnet gives an address to the functions, to the prober, to the database and its successor, and up to two to a
# proxy; a little more is wanted while one replaces another.
ADDRESSES = 8
# What accounts on the Free Plan met (2026-08): a day of backups, and of the classes in `Sizes` this one.
FREE_PLAN_BACKUP_DAYS, FREE_PLAN_SIZE = 1, "trial"

# What CloudFormation says of the value of a NoEcho parameter, and the resource that tells whether DatabaseUrl is empty
# all the same: it is there with the condition CreatesDatabase, in a stack that has come half way too.
MASKED, OF_OWN_DATABASE = "****", "DatabaseSecurityGroup"

# The first deployment has not succeeded yet. REVIEW_IN_PROGRESS: a change set was made and never executed.
FIRST = {None, "REVIEW_IN_PROGRESS", "CREATE_FAILED"}
# Refused by CloudFormation without --disable-rollback ("Stack failure options").
HALF_WAY = {"CREATE_FAILED", "UPDATE_FAILED"}
STUCK = {
    "ROLLBACK_COMPLETE": "delete it first (docs/operations.md, Delete)",
    "ROLLBACK_FAILED": "delete it first (docs/operations.md, Delete)",
    "DELETE_FAILED": "delete it first (docs/operations.md, Delete)",
    "UPDATE_ROLLBACK_FAILED": "go on with the rollback first: aws cloudformation continue-update-rollback",
}

_PATIENCE = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})


class CannotAskError(Exception):
    """AWS can't be asked at all; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that would fail, a parameter to give, or a note, in one line."""

    fails: bool
    text: str
    gives: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is to be deployed, and what: the parameters as CloudFormation would have them."""

    session: boto3.Session
    region: str
    account: str
    stack: str
    status: str | None  # of the stack; None where there is none yet
    template: Json
    values: Mapping[str, str]
    living: Mapping[str, str]  # what the stack has now, of the parameters that CloudFormation tells

    def client(self, service: str, region: str | None = None) -> Any:
        """A client that gives up after seconds."""
        return self.session.client(service, region_name=region, config=_PATIENCE)  # pyright: ignore[reportCallIssue, reportArgumentType]

    @property
    def creates_database(self) -> bool:
        """As the condition of the template."""
        return self.values["DatabaseUrl"] == ""

    @property
    def creates_vpc(self) -> bool:
        """As the condition of the template."""
        return self.creates_database and self.values["VpcId"] == ""

    @property
    def is_aurora(self) -> bool:
        """As the condition of the template."""
        return self.values["DatabaseEngine"] == "aurora-postgresql"


Check = Callable[[Place], Iterator[Finding]]


def find(place: Place) -> list[Finding]:
    """Everything that is found. What AWS refuses to tell is a note."""
    found = list(_parameters(place))
    if found:
        return found  # the others rely on them
    for subject, check in CHECKS.items():
        try:
            found += check(place)
        except (ClientError, BotoCoreError) as error:
            found.append(Finding(False, f"{subject} could not be asked for: {_one_line(error)}"))
    return found


def locate(environment: samconfig.Environment) -> Place:
    """Where an environment is deployed. Raises CannotAskError where there are no credentials, no region, no answer."""
    template = read_template()
    try:
        session = boto3.Session(profile_name=environment.profile, region_name=environment.region)
        account = session.client("sts", config=_PATIENCE).get_caller_identity()["Account"]
        stack = environment.stack or "mcp-registry"
        found = _stack(session, stack)
        living = _living(session, stack, found, template["Parameters"])
    except NoCredentialsError:
        raise CannotAskError("there are no credentials of AWS: set AWS_PROFILE, or log in by `aws sso login`") from None
    except NoRegionError:
        raise CannotAskError(
            "no region is given: set AWS_DEFAULT_REGION (AWS_REGION is not read), or --region"
        ) from None
    except (ClientError, BotoCoreError) as error:
        raise CannotAskError(f"AWS does not let us ask: {_one_line(error)}") from error
    # In a stack that exists a parameter that is not given keeps its value. One without a default has none before that.
    declared: Json = template["Parameters"]
    values = {name: str(parameter["Default"]) for name, parameter in declared.items() if "Default" in parameter}
    return Place(
        session=session,
        region=session.region_name or "",
        account=account,
        stack=stack,
        status=found.get("StackStatus"),
        template=template,
        values={**values, **living, **environment.parameters},
        living=living,
    )


@cache
def read_template() -> Json:
    """template.yaml with its intrinsics in their long forms; nobody changes it."""
    return yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))


def rollback(place: Place) -> str:
    """The option of `sam deploy` that says what becomes of a deployment that fails."""
    return "--disable-rollback" if place.status in FIRST | HALF_WAY else "--no-disable-rollback"


# ------------------------------------------------------------------ what is checked


def _parameters(place: Place) -> Iterator[Finding]:
    declared: Json = place.template["Parameters"]
    for name, value in place.values.items():
        if name not in declared:
            yield Finding(True, f"parameter {name}: the template has none of this name")
        elif reason := _refused(declared[name], value):
            # No value is printed: it may be a secret.
            yield Finding(True, f"parameter {name}: {reason}")


def _refused(parameter: Json, value: str) -> str | None:
    allowed = [str(choice) for choice in parameter.get("AllowedValues", [])]
    if allowed and value not in allowed:
        return f"is to be one of {', '.join(allowed)}"
    if (pattern := parameter.get("AllowedPattern")) and not re.fullmatch(pattern, value):
        return f"does not have the form {pattern}"
    if parameter["Type"] == "Number":
        if not re.fullmatch(r"-?\d+(\.\d+)?", value):
            return "is to be a number"
        least, most = parameter.get("MinValue", float("-inf")), parameter.get("MaxValue", float("inf"))
        if not least <= float(value) <= most:
            return f"is to be from {least} to {most}"
    return None


def _state(place: Place) -> Iterator[Finding]:
    status = place.status or ""
    if status in STUCK:
        yield Finding(True, f"stack {place.stack}: is {status}; {STUCK[status]}")
    elif status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        yield Finding(True, f"stack {place.stack}: is {status}; wait until that is over")
    elif status in HALF_WAY:
        yield Finding(
            False, f"stack {place.stack}: is {status}; go on from there by make deploy, or sam deploy {rollback(place)}"
        )


def _region(place: Place) -> Iterator[Finding]:
    if place.creates_database and not (FOLDER / f"{place.region}.pem").exists():
        yield Finding(
            True,
            f"region {place.region}: the functions know no certificates of RDS there (docs/operations.md, Regions)",
        )


def _concurrency(place: Place) -> Iterator[Finding]:
    limit = place.client("lambda").get_account_settings()["AccountLimit"]
    most, free = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    wanted = reserved(place.template, place.values["Size"], publishes=bool(place.values["EventBus"]))
    if place.values["ReserveConcurrency"] != "true":
        if most < wanted:
            yield Finding(
                False, f"Lambda: all functions of the account together may run {most} at once: enough to try it"
            )
    # A stack that exists has its share already, so that only what the account has at all can be judged.
    elif (free if place.status in FIRST else most) - UNRESERVED < wanted:
        yield Finding(
            True,
            f"Lambda: {free} of the account's concurrency ({most}) are free, the stack reserves {wanted} of it, and "
            f"{UNRESERVED} have to stay: ReserveConcurrency=false, or ask AWS for the usual 1,000 in Service Quotas",
        )


def reserved(template: Json, size: str, *, publishes: bool) -> int:
    """How much of the account's concurrency all functions reserve together at a Size, with an EventBus or without."""
    total = 0
    for resource in template["Resources"].values():
        if resource.get("Condition") == "Publishes" and not publishes:
            continue
        given = resource.get("Properties", {}).get("ReservedConcurrentExecutions")
        if given is not None:
            share = given["Fn::If"][1]
            if isinstance(share, dict):
                share = template["Mappings"]["Sizes"][size][share["Fn::FindInMap"][2]]
            total += int(share)
    return total


def _class(place: Place) -> Iterator[Finding]:
    if not place.creates_database:
        return
    engine, name = place.values["DatabaseEngine"], "db.serverless"
    if not place.is_aurora:
        name = place.template["Mappings"]["Sizes"][place.values["Size"]]["Class"]
    found = place.client("rds").describe_orderable_db_instance_options(
        Engine=engine, DBInstanceClass=name, Vpc=True, MaxRecords=20
    )
    if not found["OrderableDBInstanceOptions"]:
        yield Finding(True, f"RDS: {place.region} offers no {name} for {engine}: choose another Size or DatabaseEngine")


def _plan(place: Place) -> Iterator[Finding]:
    if place.session.get_partition_for_region(place.region) != "aws":
        return
    try:
        # It answers in this region only, for all.
        plan = place.client("freetier", "us-east-1").get_account_plan_state()["accountPlanType"]
    except ClientError as error:
        if _code(error) != "ResourceNotFoundException":
            raise
        return  # an account from before there were plans
    if plan != "FREE" or not place.creates_database:
        return
    said = "account on the Free Plan:"
    if int(place.values["BackupDays"]) > FREE_PLAN_BACKUP_DAYS:
        yield Finding(True, f"{said} backups are kept for a day at most: BackupDays={FREE_PLAN_BACKUP_DAYS}")
    if place.values["Size"] != FREE_PLAN_SIZE or place.is_aurora:
        yield Finding(
            True,
            f"{said} the class is db.t4g.micro: Size={FREE_PLAN_SIZE} DatabaseEngine=postgres, or upgrade the plan",
        )


def _gateway(place: Place) -> Iterator[Finding]:
    if place.values["AccessLogs"] != "true":
        return
    role = place.client("apigateway").get_account().get("cloudwatchRoleArn")
    given = place.values.get("ApiGatewayRole")
    if given is None:
        answer, why = ("existing", f"is {role}") if role else ("create", "does not exist")
        text = f"ApiGatewayRole={answer}, because the account's role for API Gateway's logs here {why}"
        yield Finding(False, text, gives=True)
    if given == "existing" and not role:
        yield Finding(
            True,
            "API Gateway: the account has no role to write logs by here: ApiGatewayRole=create, or AccessLogs=false",
        )
    if given == "create" and role and place.status in FIRST:
        yield Finding(
            False,
            f"API Gateway: the stack replaces {role}, by which every API of the account writes logs here: "
            "ApiGatewayRole=existing leaves it",
        )


def _network(place: Place) -> Iterator[Finding]:
    vpc, ec2 = place.values["VpcId"], place.client("ec2")
    if not vpc:
        return
    if _existing("InvalidVpcID", ec2.describe_vpcs, VpcIds=[vpc]) is None:
        yield Finding(True, f"network: {place.region} has no {vpc}")
        return
    zones: set[str] = set()
    for name in place.values["SubnetIds"].split(","):
        found = _existing("InvalidSubnetID", ec2.describe_subnets, SubnetIds=[name])
        if found is None:
            yield Finding(True, f"network: {place.region} has no {name or 'subnet: SubnetIds is empty'}")
            continue
        (subnet,) = found["Subnets"]
        zones.add(subnet["AvailabilityZoneId"])
        if subnet["VpcId"] != vpc:
            yield Finding(True, f"network: {name} is in {subnet['VpcId']}, not in {vpc}")
        if subnet["AvailabilityZoneId"] in ZONES_WITHOUT_LAMBDA:
            yield Finding(True, f"network: {name} is in {subnet['AvailabilityZone']}, where Lambda takes no subnet")
        if subnet["AvailableIpAddressCount"] < ADDRESSES:
            yield Finding(
                False, f"network: {name} has {subnet['AvailableIpAddressCount']} addresses left; {ADDRESSES} are wanted"
            )
    if len(zones) == 1:
        yield Finding(True, "network: the subnets are in one availability zone; RDS asks for two")


def _existing(code: str, describe: Callable[..., Any], **which: object) -> Json | None:
    """What AWS says of something; None where it knows no such thing, which errors say that begin with `code`."""
    try:
        return describe(**which)
    except ClientError as error:
        if not _code(error).startswith(code):
            raise
        return None


def _zones(place: Place) -> Iterator[Finding]:
    if not place.creates_vpc or place.status not in FIRST:
        return
    kind = {"Name": "zone-type", "Values": ["availability-zone"]}
    found = place.client("ec2").describe_availability_zones(Filters=[kind])["AvailabilityZones"]
    for zone in sorted(found, key=lambda zone: zone["ZoneName"])[:2]:  # those that the template takes
        if zone["ZoneId"] in ZONES_WITHOUT_LAMBDA:
            yield Finding(
                True,
                f"network: Lambda takes no subnet in {zone['ZoneName']}, one of the first two: bring a VpcId of yours",
            )


def _networks(place: Place) -> Iterator[Finding]:
    if not place.creates_vpc or place.status not in FIRST:
        return
    made = sum(len(page["Vpcs"]) for page in place.client("ec2").get_paginator("describe_vpcs").paginate())
    quota = place.client("service-quotas").get_service_quota(ServiceCode="vpc", QuotaCode=VPC_QUOTA)["Quota"]["Value"]
    if made >= quota:
        yield Finding(
            True,
            f"network: {place.region} has {made} of {quota:.0f} VPCs: bring one (VpcId), or ask AWS for more",
        )


def _snapshot(place: Place) -> Iterator[Finding]:
    name = place.values["DatabaseSnapshot"]
    if not name or not place.creates_database:
        return
    # Made from it long ago, perhaps; the parameter has to stay, the snapshot need not.
    decisive = ("DatabaseSnapshot", "DatabaseEngine", "DatabaseUrl")
    same = all(place.living.get(parameter) == place.values[parameter] for parameter in decisive)
    if same and place.status not in FIRST | HALF_WAY:
        return
    rds = place.client("rds")
    try:
        if place.is_aurora:
            (found,) = rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)["DBClusterSnapshots"]
        else:
            (found,) = rds.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"]
    except ClientError as error:
        if "NotFound" not in _code(error):
            raise
        yield Finding(
            True, f"snapshot: {place.region} has none that is called {name}, of {place.values['DatabaseEngine']}"
        )
        return
    if found["Status"] != "available":
        yield Finding(True, f"snapshot: {name} is {found['Status']}; wait until it is available")
    version, wanted = found["EngineVersion"].partition(".")[0], place.values["DatabaseVersion"]
    if version != wanted:
        yield Finding(
            True, f"snapshot: {name} is of PostgreSQL {version}: DatabaseVersion={version}, and {wanted} afterwards"
        )


# By what could not be asked for where AWS refuses.
CHECKS: dict[str, Check] = {
    "the state of the stack": _state,
    "the region": _region,
    "Lambda's concurrency": _concurrency,
    "the classes of RDS": _class,
    "the plan of the account": _plan,
    "API Gateway's role": _gateway,
    "your network": _network,
    "the availability zones": _zones,
    "the quota of VPCs": _networks,
    "the snapshot": _snapshot,
}

# ------------------------------------------------------------------ the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is found; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m local.preflight", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--config-env", default="default", help="the environment of samconfig.toml")
    parser.add_argument("--stack-name")
    parser.add_argument("--region")
    parser.add_argument("--profile")
    parser.add_argument("--parameter-overrides", nargs="+", metavar="NAME=VALUE", help="instead of the environment's")
    parser.add_argument("--rollback", action="store_true", help="only print the option that sam deploy needs")
    options, others = parser.parse_known_args(arguments)
    try:
        place = locate(_environment(options))
    except (samconfig.SamconfigError, CannotAskError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.rollback:
        # sam takes one of these.
        chosen = {"--disable-rollback", "--no-disable-rollback", "--on-failure"}.intersection(
            word.partition("=")[0] for word in others
        )
        print("" if chosen else rollback(place))
        return 0
    print(f"{place.stack} in {place.region} of account {place.account}: {place.status or 'does not exist yet'}")
    found = sorted(find(place), key=lambda finding: not finding.fails)
    for finding in found:
        print(f"{'fails' if finding.fails else 'give' if finding.gives else 'note'}: {finding.text}")
    failing = sum(finding.fails for finding in found)
    print(f"{failing or 'Nothing'} of what was asked would fail.")
    return int(failing > 0)


def _environment(options: argparse.Namespace) -> samconfig.Environment:
    written = samconfig.read(options.config_env)
    given: list[str] | None = options.parameter_overrides
    return samconfig.Environment(
        name=written.name,
        stack=options.stack_name or written.stack,
        region=options.region or written.region,
        profile=options.profile or written.profile,
        parameters=written.parameters if given is None else samconfig.pairs(given),
    )


def _stack(session: boto3.Session, name: str) -> Json:
    """The stack as it is; empty where there is none."""
    try:
        return dict(session.client("cloudformation", config=_PATIENCE).describe_stacks(StackName=name)["Stacks"][0])
    except ClientError as error:
        # "Stack with id ... does not exist", which has no code of its own.
        if _code(error) != "ValidationError":
            raise
        return {}


def _living(session: boto3.Session, name: str, stack: Json, declared: Json) -> dict[str, str]:
    """The parameters that a stack has, of those that the template has; of the secret ones only DatabaseUrl."""
    told = {each["ParameterKey"]: each["ParameterValue"] for each in stack.get("Parameters", [])}
    living = {key: value for key, value in told.items() if key in declared and not declared[key].get("NoEcho")}
    if "DatabaseUrl" in told:
        describe = session.client("cloudformation", config=_PATIENCE).describe_stack_resource
        own = _existing("ValidationError", describe, StackName=name, LogicalResourceId=OF_OWN_DATABASE)
        living["DatabaseUrl"] = MASKED if own is None else ""
    return living


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


if __name__ == "__main__":
    sys.exit(main())
