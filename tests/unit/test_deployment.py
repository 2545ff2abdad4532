"""What would be made in an account, for every choice that the parameters leave: what a security review would ask."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cfnlint
import pytest

from local import template
from local.certificates import FOLDER
from mcp_registry.aws import observability
from tests.cloudformation import Stack
from tests.conftest import ROOT, load_module

OWN = {"DatabaseUrl": "postgresql://u@db.example.com/r"}
NETWORK = {"VpcId": "vpc-1", "SubnetIds": "subnet-1,subnet-2"}
CHOICES: dict[str, dict[str, str]] = {
    "as it comes": {},
    "trial": {"Size": "trial", "ReserveConcurrency": "false"},
    "large": {"Size": "large", "MultiAz": "true"},
    "aurora": {"DatabaseEngine": "aurora-postgresql"},
    "aurora, two zones": {"DatabaseEngine": "aurora-postgresql", "MultiAz": "true"},
    "aurora, proxy": {"DatabaseEngine": "aurora-postgresql", "DatabaseProxy": "true"},
    "proxy": {"DatabaseProxy": "true"},
    "from a snapshot": {"DatabaseSnapshot": "rds:one"},
    "a network of yours": NETWORK,
    "a database of yours": OWN,
    "both of yours": {**OWN, **NETWORK},
    "prober inside": {"ProberInVpc": "true"},
    "prober inside of yours": {**NETWORK, "ProberInVpc": "true"},
    "prober inside, both of yours": {**OWN, **NETWORK, "ProberInVpc": "true"},
    "everything": {"Tracing": "true", "AlarmEmail": "ops@example.com", "DatabaseProxy": "true", "ProberInVpc": "true"},
    "nothing": {"AccessLogs": "false", "ReserveConcurrency": "false", "RegistryPassword": "x", "CronSecret": "y"},
    "snapshots": {"SnapStart": "true"},
    "an event bus": {"EventBus": "changes"},
    "an event bus, a network of yours": {**NETWORK, "EventBus": "changes"},
    "another role": {"ApiGatewayRole": "existing", "Architecture": "arm64"},
}
# These actions know no resource ("Service Authorization Reference"), or Lambda checks them before there is one.
WITHOUT_RESOURCE = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"} | {
    f"ec2:{action}"
    for action in (
        *("CreateNetworkInterface", "DeleteNetworkInterface", "DescribeNetworkInterfaces", "DescribeSubnets"),
        *("AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"),
    )
}
LAMBDA = "AWS::Lambda::Function"
WRITERS = ("RegisterFunction", "UpdateFunction", "DeleteFunction", "TransferFunction")
# Those of them that have somebody introduced at once.
ANNOUNCING = ("RegisterFunction", "UpdateFunction")
READERS = ("ListFunction", "DetailFunction", "HealthFunction", "HistoryFunction", "MetricsFunction")
# What speaks to strangers.
DIALLING = ("HealthSweepFunction", "IntroduceFunction")


@pytest.fixture(scope="module")
def stacks() -> dict[str, Stack]:
    return {name: Stack(**parameters) for name, parameters in CHOICES.items()}


@pytest.fixture(params=CHOICES)
def stack(request: pytest.FixtureRequest, stacks: dict[str, Stack]) -> Stack:
    return stacks[request.param]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def using_database(stack: Stack) -> dict[str, Any]:
    return {
        name: properties
        for name, properties in stack.of_type(LAMBDA).items()
        if "DATABASE_URL" in properties["Environment"]["Variables"]
    }


# ------------------------------------------------------------------ the whole


def test_whatever_a_resource_names_is_made_too(stack: Stack):
    given = set(stack.resources) | set(stack._values)
    assert [(who, whom) for who, whom in stack.references() if whom not in given] == []


def test_every_parameter_decides_something_and_is_asked_for_in_a_group():
    text = (ROOT / "template.yaml").read_text()
    interface, _, rest = text.partition("\nParameters:\n")
    for name in Stack().declared:
        assert re.search(rf"!Ref {name}\b|\$\{{{name}\}}", rest), f"{name} decides nothing"
        assert re.search(rf"[\[ ]{name}[,\]]", interface), f"{name} is in no group"


def test_operations_md_says_what_each_resource_is_for():
    template = (ROOT / "template.yaml").read_text()
    page = (ROOT / "docs" / "operations.md").read_text()
    functions = re.findall(r"^  (\w+)Function:\n    Type: AWS::", template, re.MULTILINE)
    for name in re.findall(r"^  (\w+):\n    Type: AWS::", template, re.MULTILINE):
        # The roles of functions are explained together.
        if name.removesuffix("Role") not in functions:
            assert re.search(rf"`{name}`", page), f"operations.md does not say what {name} is for"


def test_every_condition_decides_something():
    text = (ROOT / "template.yaml").read_text()
    for name in Stack()._conditions:
        assert len(re.findall(rf"\b{name}\b", text)) > 1, name


def test_two_stacks_of_one_account_share_nothing_that_has_a_name(stack: Stack):
    kinds = ("Function", "Queue", "Topic", "LogGroup", "DBProxy", "Dashboard", "Role", "DBInstance", "Secret")
    for name, resource in stack.resources.items():
        if resource["Type"] == "AWS::Lambda::Alias":
            continue  # its name is the function's own
        for key in {"Name", *(f"{kind}Name" for kind in kinds)} & set(resource.get("Properties", {})):
            given = resource["Properties"][key]
            assert given.startswith(("registry", "${")), f"{name} has a name without the stack's: {given}"


# ------------------------------------------------------------------ who may do what


def test_every_function_has_a_role_of_its_own_and_no_managed_policy(stack: Stack):
    roles = [stack.role_of(name) for name in stack.of_type(LAMBDA)]
    assert len(set(roles)) == len(roles)
    for role in roles:
        assert "ManagedPolicyArns" not in stack.resources[role]["Properties"]


def test_nothing_is_allowed_on_everything_but_what_knows_no_resource(stack: Stack):
    for name in stack.of_type("AWS::IAM::Role"):
        for statement in stack.statements(name):
            if statement["Effect"] == "Deny":
                continue
            actions, resources = set(listed(statement["Action"])), listed(statement["Resource"])
            assert not any("*" in action for action in actions), name
            # What is made under a prefix of the stack's own has no other name before.
            resources = [one.removesuffix(":secret:registry/probe-headers/*") for one in resources]
            if any("*" in resource for resource in resources):
                assert resources == ["*"] and actions <= WITHOUT_RESOURCE, (name, statement)


def test_each_function_may_do_what_it_is_there_for_and_nothing_else(stack: Stack):
    """Besides its log and, where it is in a network, its interface."""
    wanted = {
        "AuthorizerFunction": {
            ("secretsmanager:GetSecretValue", "CredentialsSecret"),
            ("lambda:InvokeFunction", "IdentifyFunction"),
        },
        "IdentifyFunction": {("rds-db:connect", "porter")},
        "FrontFunction": set(),
        **{name: {("rds-db:connect", "writer")} for name in WRITERS},
        **{name: {("rds-db:connect", "writer"), ("sqs:SendMessage", "IntroduceQueue")} for name in ANNOUNCING},
        **{name: {("rds-db:connect", "reader")} for name in READERS},
        "AccessFunction": {("rds-db:connect", "keeper")},
        "LedgerFunction": {("rds-db:connect", "clerk"), ("sqs:SendMessage", "IntroduceQueue")},
        "HealthCheckFunction": {
            ("rds-db:connect", "sweeper"),
            *(("sqs:SendMessage", queue) for queue in ("ProbeQueue", "TickQueue", "IntroduceQueue")),
            *reads("TickQueue"),
        },
        "StartSweepFunction": {("rds-db:connect", "sweeper"), ("sqs:SendMessage", "ProbeQueue")},
        "HealthSweepFunction": {("sqs:SendMessage", "ResultQueue"), *reads("ProbeQueue")},
        "HealthWriteFunction": {("rds-db:connect", "sweeper"), *reads("ResultQueue")},
        "IntroduceFunction": {
            ("sqs:SendMessage", "IntroducedQueue"),
            ("secretsmanager:GetSecretValue", "probe headers"),
            *reads("IntroduceQueue"),
        },
        "ProbeHeadersFunction": {
            ("secretsmanager:CreateSecret", "probe headers"),
            ("secretsmanager:DeleteSecret", "probe headers"),
            ("lambda:InvokeFunction", "MarkFunction"),
            ("sqs:SendMessage", "EventDeadLetterQueue"),
        },
        "MarkFunction": {("rds-db:connect", "clerk")},
        "RememberFunction": {("rds-db:connect", "sweeper"), *reads("IntroducedQueue")},
        "MaintainFunction": {("rds-db:connect", "sweeper"), ("sqs:SendMessage", "EventDeadLetterQueue")},
        "MigrateFunction": {("rds-db:connect", "owner")},
    }
    if stack.holds("Publishes"):
        wanted["PublishFunction"] = {("rds-db:connect", "clerk"), ("events:PutEvents", "changes")}
    assert set(wanted) == set(stack.of_type(LAMBDA))
    for function, expected in wanted.items():
        if not stack.holds("CreatesDatabase"):
            expected = {pair for pair in expected if pair[0] != "rds-db:connect"}
        if not stack.holds("CredentialsInSecret"):
            expected = {pair for pair in expected if pair[1] != "CredentialsSecret"}
        found = {
            (action, target(resource))
            for statement in stack.statements(stack.role_of(function))
            if statement["Effect"] == "Allow" and listed(statement["Resource"]) != ["*"]
            for action in listed(statement["Action"])
            if not action.startswith("logs:")
            for resource in listed(statement["Resource"])
        }
        assert found == expected, function


def test_while_there_is_a_proxy_a_function_may_log_in_with_and_without_it(stack: Stack):
    """Roles change before functions do: those of before the proxy go on."""
    wanted = {*(["Proxy"] if stack.holds("UsesProxy") else []), "Cluster" if stack.holds("IsAurora") else "Database"}
    for name in [*WRITERS, *READERS, "HealthCheckFunction"] if stack.holds("CreatesDatabase") else []:
        (statement,) = (s for s in stack.statements(stack.role_of(name)) if s["Action"] == "rds-db:connect")
        asked = [resource.partition(":dbuser:")[2] for resource in listed(statement["Resource"])]
        assert {re.sub(r"^part 6 of ", "", one).removeprefix("${").partition(".")[0] for one in asked} == wanted, name


def reads(queue: str) -> list[tuple[str, str]]:
    return [(f"sqs:{action}", queue) for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")]


def target(resource: str) -> str:
    """The logical id, the database's role, the event bus or the secrets that an ARN is of."""
    if found := re.search(r":dbuser:.*/registry_(\w+)$|:event-bus/(\w+)$", resource):
        return found[1] or found[2]
    if resource.endswith("/probe-headers/*"):
        return "probe headers"
    return resource.removeprefix("${").partition(".")[0].removesuffix("}")


def test_what_runs_in_a_function_may_not_touch_its_network(stack: Stack):
    for name, properties in stack.of_type(LAMBDA).items():
        denied = [s for s in stack.statements(stack.role_of(name)) if s["Effect"] == "Deny"]
        assert bool(denied) == ("VpcConfig" in properties), name
        for statement in denied:
            assert statement["Action"] == "ec2:*" and "lambda:SourceFunctionArn" in json.dumps(statement["Condition"])


# ------------------------------------------------------------------ the prober


@pytest.mark.parametrize("name", DIALLING)
def test_who_dials_holds_no_permission_on_data_and_no_way_to_it(stack: Stack, name: str):
    """But for the headers that were given for servers, which an introduction reads."""
    properties = stack.resources[name]["Properties"]
    variables = properties["Environment"]["Variables"]
    assert not [name for name in variables if name.startswith(("DATABASE", "REGISTRY", "CRON"))]
    statements = stack.statements(stack.role_of(name))
    assert "rds-db" not in json.dumps(statements)
    secrets = [one for one in statements if "secretsmanager" in json.dumps(one)]
    assert [one["Action"] for one in secrets] == ["secretsmanager:GetSecretValue"] * (name == "IntroduceFunction")
    assert all(one["Resource"].endswith(":secret:registry/probe-headers/*") for one in secrets)
    groups = properties.get("VpcConfig", {}).get("SecurityGroupIds", [])
    assert groups == (["${ProberSecurityGroup}"] if stack.holds("ProbesInVpc") else [])
    for rule in stack.of_type("AWS::EC2::SecurityGroupIngress").values():
        assert rule["SourceSecurityGroupId"] != "${ProberSecurityGroup}"


# ------------------------------------------------------------------ the network


def test_nothing_can_be_reached_from_outside(stack: Stack):
    for kind in ("AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::EIP"):
        assert not stack.of_type(kind)
    for subnet in stack.of_type("AWS::EC2::Subnet").values():
        assert not subnet.get("MapPublicIpOnLaunch")
    groups = stack.of_type("AWS::EC2::SecurityGroup")
    inward = [rule for group in groups.values() for rule in group.get("SecurityGroupIngress", [])]
    inward += stack.of_type("AWS::EC2::SecurityGroupIngress").values()
    for rule in inward:
        assert "/0" not in json.dumps(rule), rule
    for instance in stack.of_type("AWS::RDS::DBInstance").values():
        assert instance["PubliclyAccessible"] is False


def test_the_database_lets_in_the_functions_and_its_proxy_and_nobody_else(stack: Stack):
    sources = {rule["SourceSecurityGroupId"] for rule in stack.of_type("AWS::EC2::SecurityGroupIngress").values()}
    wanted: set[str] = set()
    if stack.holds("CreatesDatabase"):
        wanted.add("${FunctionSecurityGroup}")
    if stack.holds("UsesProxy"):
        wanted.add("${DatabaseSecurityGroup}")
    assert sources == wanted


def test_the_endpoints_serve_those_who_send_and_the_migration(stack: Stack):
    endpoints = stack.of_type("AWS::EC2::VPCEndpoint")
    assert bool(endpoints) == stack.holds("CreatesVpc")
    for properties in endpoints.values():
        (statement,) = properties["PolicyDocument"]["Statement"]
        actions = ("sqs:SendMessage", "s3:PutObject", "secretsmanager:GetSecretValue", "events:PutEvents")
        assert statement["Action"] in actions and statement["Resource"] != "*"


def test_who_introduces_has_a_way_to_the_headers_wherever_it_is(stack: Stack):
    """In the network that the stack makes by an endpoint, which is there for nobody else."""
    inside = stack.holds("ProbesInVpc") and stack.holds("CreatesVpc")
    endpoint = stack.of_type("AWS::EC2::VPCEndpoint").get("SecretsEndpoint")
    assert (endpoint is not None) == inside
    if endpoint is not None:
        (statement,) = endpoint["PolicyDocument"]["Statement"]
        assert statement["Principal"] == {"AWS": "${IntroduceRole.Arn}"}


def test_nobody_may_both_write_headers_and_read_them_or_reach_the_database_too(stack: Stack):
    may = {
        name: {action for one in stack.statements(stack.role_of(name)) for action in listed(one["Action"])}
        for name in stack.of_type(LAMBDA)
        if "/probe-headers/" in json.dumps(stack.statements(stack.role_of(name)))
    }
    assert set(may) == {"IntroduceFunction", "ProbeHeadersFunction"}
    for actions in may.values():
        assert not {"secretsmanager:GetSecretValue", "secretsmanager:CreateSecret"} <= actions
        assert "rds-db:connect" not in actions


def test_a_function_is_in_the_network_where_it_needs_the_database(stack: Stack):
    for name, properties in stack.of_type(LAMBDA).items():
        inside = "VpcConfig" in properties
        if name in DIALLING:
            assert inside == stack.holds("ProbesInVpc")
        else:
            assert inside == (stack.holds("InVpc") and name in using_database(stack)), name
        if inside:
            assert len(properties["VpcConfig"]["SubnetIds"]) >= 2


# ------------------------------------------------------------------ the database


def databases(stack: Stack) -> list[dict[str, Any]]:
    """What holds data: the cluster, or the instance that is none of a cluster."""
    instances = [one for one in stack.of_type("AWS::RDS::DBInstance").items() if "DBClusterIdentifier" not in one[1]]
    return [stack.resources[name] for name, _ in [*instances, *stack.of_type("AWS::RDS::DBCluster").items()]]


def test_the_database_is_encrypted_kept_and_restorable(stack: Stack):
    found = databases(stack)
    assert len(found) == int(stack.holds("CreatesDatabase"))
    for resource in found:
        properties = resource["Properties"]
        assert properties["StorageEncrypted"] is True and properties["DeletionProtection"] == "true"
        assert int(properties["BackupRetentionPeriod"]) >= 7
        assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Snapshot"


def test_no_password_of_the_database_exists_and_nothing_but_tls_gets_in(stack: Stack):
    for resource in databases(stack):
        properties = resource["Properties"]
        assert properties["EnableIAMDatabaseAuthentication"] is True
        assert not [name for name in properties if "Password" in name]
        if not stack.holds("FromSnapshot"):
            assert properties["MasterUserAuthenticationType"] == "iam-db-auth"
            assert properties["MasterUsername"] == "registry_owner"
    for kind in ("AWS::RDS::DBParameterGroup", "AWS::RDS::DBClusterParameterGroup"):
        for group in stack.of_type(kind).values():
            assert group["Parameters"]["rds.force_ssl"] == "1"
            assert group["Family"] in ("postgres18", "aurora-postgresql18")
            # What was registered stays out of the database's log.
            assert group["Parameters"]["log_parameter_max_length"] == "0"
    for properties in using_database(stack).values():
        variables = properties["Environment"]["Variables"]
        if stack.holds("CreatesDatabase"):
            assert variables["DATABASE_ACCESS"] in ("iam", "proxy")
            address = variables["DATABASE_URL"].removeprefix("${").removesuffix(".Value}")
            value = stack.resources[address]["Properties"]["Value"]
            assert "sslmode=verify-full" in value
            assert "sslrootcert=/opt/python/mcp_registry/certificates/eu-west-1.pem" in value
        else:
            assert variables["DATABASE_URL"] == OWN["DatabaseUrl"]


def refused(region: str, **parameters: str) -> list[str]:
    return Stack({"AWS::Region": region}, **parameters).refusals()


def test_no_choice_is_refused_by_a_rule(stack: Stack):
    assert stack.refusals() == []


def test_a_region_whose_certificates_the_layer_has_not_is_refused_before_anything_is_made():
    stack = Stack()
    found = json.dumps(stack._rules["CertificatesOfRegion"])
    assert set(re.findall(r"[a-z]+-[a-z]+-\d", found)) == {path.stem for path in FOLDER.glob("*.pem")}
    (said,) = refused("ca-west-1")
    assert "certificates" in said and "docs/operations.md" in said
    assert refused("ca-west-1", **OWN) == [], "a database of yours brings its own"


def offered() -> dict[str, set[str]]:
    """The classes of RDS for PostgreSQL that AWS's price lists have for a region, by region."""
    file = Path(cfnlint.__file__).parent / "data/schemas/extensions/aws_rds_dbinstance/dbinstanceclass_enum.json"
    found: dict[str, set[str]] = {}
    for region, table in json.loads(file.read_text()).items():
        for case in table["allOf"]:
            if case["if"]["properties"]["Engine"]["const"] == "postgres":
                found.setdefault(region, set()).update(case["then"]["properties"]["DBInstanceClass"]["enum"])
    return found


def test_a_class_that_a_region_does_not_offer_is_refused_there_and_nowhere_else():
    classes = {size: row["Class"] for size, row in Stack()._mappings["Sizes"].items()}
    tables = offered()
    lacking = {
        (path.stem, size)
        for path in FOLDER.glob("*.pem")
        for size, name in classes.items()
        if name not in tables[path.stem]
    }
    assert lacking == {("af-south-1", "large"), ("ap-east-1", "large"), ("eu-south-1", "large")}
    for region, size in lacking:
        (said,) = refused(region, Size=size)
        assert classes[size] in said
        assert refused(region, Size=size, DatabaseEngine="aurora-postgresql") == refused(region, Size="medium") == []
    assert refused("eu-west-1", Size="large") == []


def test_a_database_has_the_memory_that_logging_in_by_tokens_takes():
    """AWS asks for 300 to 1,000 MiB besides, and on a burstable class to take them from the buffers."""
    for size in ("small", "medium", "large"):
        (database,) = Stack(Size=size).of_type("AWS::RDS::DBInstance").values()
        assert not database["DBInstanceClass"].endswith(("micro", "nano"))
    (group,) = Stack(Size="trial").of_type("AWS::RDS::DBParameterGroup").values()
    assert int(group["Parameters"]["shared_buffers"]) * 8 // 1024 == 64
    for size, units in (("trial", 0.5), ("small", 1)):
        (cluster,) = Stack(Size=size, DatabaseEngine="aurora-postgresql").of_type("AWS::RDS::DBCluster").values()
        scaling = cluster["ServerlessV2ScalingConfiguration"]
        assert scaling["MinCapacity"] == units <= scaling["MaxCapacity"]


def test_migrations_go_to_the_database_itself_and_before_everything_that_uses_it(stack: Stack):
    variables = stack.resources["MigrateFunction"]["Properties"]["Environment"]["Variables"]
    if stack.holds("CreatesDatabase"):
        assert variables["DATABASE_URL"] == "${DatabaseOwnAddress.Value}" and variables["DATABASE_ACCESS"] == "iam"
    for name in using_database(stack):
        depends = listed(stack.resources[name].get("DependsOn", []))
        assert ("Migration" in depends) == (name != "MigrateFunction"), name
    migration = stack.resources["Migration"]["Properties"]
    # Made before, and deleted after: its way to the database, and to where it answers.
    assert set(migration["After"]) == {
        "${MigrateOnce}",
        *(["${DatabaseFromFunctions}"] if stack.holds("CreatesDatabase") else []),
        *(["${Writer}"] if stack.holds("CreatesAurora") else []),
        *(["${ProxyTargets}"] if stack.holds("UsesProxy") else []),
        *(["${S3Endpoint}", "${FirstSubnetRoutes}", "${SecondSubnetRoutes}"] if stack.holds("CreatesVpc") else []),
    }
    # A version for each state of the code: a change is what CloudFormation acts upon.
    assert stack.resources[migration["Code"].removeprefix("${").removesuffix("}")]["Type"] == "AWS::Lambda::Version"
    timeout = stack.resources["MigrateFunction"]["Properties"]["Timeout"]
    assert timeout < int(migration["ServiceTimeout"]), "an answer comes before CloudFormation gives up"


def test_another_database_is_migrated_anew_and_its_address_is_told_to_nobody():
    def asked(**parameters: str) -> dict[str, Any]:
        return Stack(**parameters).resources["Migration"]["Properties"]

    assert asked(**OWN)["Database"] != asked(**OWN, MigrationRun="2")["Database"]
    assert asked()["Database"] == "${DatabaseOwnAddress.Value}"
    # A property of a custom resource is no place for a secret.
    assert "example.com" not in json.dumps(asked(**OWN))


def migrating(stack: Stack, before: Stack) -> dict[str, str]:
    """The environment of what a deployment calls to migrate, on a stack that was deployed as another before."""
    token = stack.resources["Migration"]["Properties"]["ServiceToken"]
    name = token.removeprefix("${").removesuffix("}").removesuffix(".Arn")
    if stack.resources[name]["Type"] == "AWS::Lambda::Alias":
        version = stack.resources[name]["Properties"]["FunctionVersion"]
        name = version.removeprefix("${").removesuffix(".Version}")
    if stack.resources[name]["Type"] == "AWS::Lambda::Version":
        # It keeps what the function had when the version was published.
        published = before if name in before.resources else stack
        name = published.resources[name]["Properties"]["FunctionName"].removeprefix("${").removesuffix("}")
        return published.resources[name]["Properties"]["Environment"]["Variables"]
    return stack.resources[name]["Properties"]["Environment"]["Variables"]


@pytest.mark.parametrize("before", ["as it comes", "a database of yours"])
def test_a_migration_has_the_settings_of_its_deployment_whatever_was_deployed_before(
    stack: Stack, stacks: dict[str, Stack], before: str
):
    variables = migrating(stack, stacks[before])
    own = stack.holds("CreatesDatabase")
    assert variables["DATABASE_URL"] == ("${DatabaseOwnAddress.Value}" if own else OWN["DatabaseUrl"])
    assert variables["DATABASE_ACCESS"] == ("iam" if own else "url")


def test_another_database_url_is_the_one_that_is_migrated():
    other = {"DatabaseUrl": "postgresql://u@other.example.com/r", "MigrationRun": "2"}
    assert migrating(Stack(**other), before=Stack(**OWN))["DATABASE_URL"] == other["DatabaseUrl"]


def test_a_migration_is_run_once_for_each_time_that_it_is_asked_for(stack: Stack):
    (config,) = (
        config
        for config in stack.of_type("AWS::Lambda::EventInvokeConfig").values()
        if config["FunctionName"] == "${MigrateFunction}"
    )
    assert (config["Qualifier"], config["MaximumRetryAttempts"]) == ("$LATEST", 0)


def test_no_version_is_left_behind_in_a_network_that_is_to_go(stack: Stack):
    """Lambda keeps the network interface of each version that is published."""
    for name, resource in stack.resources.items():
        if resource["Type"] == "AWS::Lambda::Version":
            assert resource["DeletionPolicy"] == "Delete", name


def test_the_version_of_the_migrations_moves_to_another_network_with_the_database():
    described = [
        [
            version["Description"]
            for version in made.of_type("AWS::Lambda::Version").values()
            if version["FunctionName"] == "${MigrateFunction}"
        ]
        for made in (Stack(), Stack(**OWN))
    ]
    assert len(described[0]) == len(described[1]) == 1 and described[0] != described[1]


def test_who_reads_a_queue_is_changed_before_whoever_writes_to_it(stack: Stack):
    """A function of the release before refuses a message with a field that is new."""
    references = set(stack.references())
    readers = {
        mapping["EventSourceArn"].removeprefix("${").partition(".")[0]: target(mapping["FunctionName"])
        for mapping in stack.of_type("AWS::Lambda::EventSourceMapping").values()
    }
    writing = [
        (name, queue)
        for name, function in stack.of_type(LAMBDA).items()
        for variable, given in function.get("Environment", {}).get("Variables", {}).items()
        if variable.endswith("_QUEUE_URL") and (queue := target(given)) != "TickQueue"  # which is its writer's own
    ]
    assert {queue for _, queue in writing} == set(readers) - {"TickQueue"}
    assert [(name, queue) for name, queue in writing if (name, readers[queue]) not in references] == []


def test_who_may_send_to_a_queue_has_a_way_there(stack: Stack):
    """In the network that the stack makes there is no way but the endpoint, and it lets through who is named."""
    endpoint = stack.of_type("AWS::EC2::VPCEndpoint").get("SqsEndpoint")
    if endpoint is None:
        return
    (statement,) = endpoint["PolicyDocument"]["Statement"]
    sending = {
        (stack.role_of(name), target(resource))
        for name in stack.of_type(LAMBDA)
        for allowed in stack.statements(stack.role_of(name))
        if allowed["Action"] == "sqs:SendMessage"
        for resource in listed(allowed["Resource"])
        if target(resource) != "EventDeadLetterQueue"  # Lambda itself puts it there
    }
    assert {target(role) for role in statement["Principal"]["AWS"]} == {role for role, _ in sending}
    assert {target(queue) for queue in statement["Resource"]} == {queue for _, queue in sending}


def test_who_tells_an_event_bus_is_there_where_one_is_named_and_has_a_way_there(stack: Stack):
    named = stack.holds("Publishes")
    assert ("PublishFunction" in stack.resources) == ("PublishErrorsAlarm" in stack.resources) == named
    endpoint = stack.of_type("AWS::EC2::VPCEndpoint").get("EventsEndpoint")
    assert (endpoint is not None) == (named and stack.holds("CreatesVpc"))
    if endpoint is not None:
        (statement,) = endpoint["PolicyDocument"]["Statement"]
        (allowed,) = (s for s in stack.statements("PublishRole") if s["Action"] == "events:PutEvents")
        assert statement["Principal"] == {"AWS": "${PublishRole.Arn}"} and endpoint["PrivateDnsEnabled"] is True
        assert statement["Resource"] == allowed["Resource"]


def test_a_proxy_has_a_way_to_the_database_before_it_looks_for_it(stack: Stack):
    for resource in stack.resources.values():
        if resource["Type"] == "AWS::RDS::DBProxyTargetGroup":
            assert set(resource["DependsOn"]) == {"DatabaseFromProxy", "DatabaseToProxy"}
            assert (resource["Metadata"]["After"] == "${Writer}") == stack.holds("IsAurora")


def test_a_stage_logs_only_after_the_account_may(stack: Stack):
    if stack.holds("CreatesApiGatewayRole"):
        assert stack.resources["AccessLog"]["Metadata"]["After"] == "${ApiGatewayAccount}"


def test_no_queue_answers_in_plain_text(stack: Stack):
    closed: set[str] = set()
    for policy in stack.of_type("AWS::SQS::QueuePolicy").values():
        denials = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"]
        assert denials[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        closed |= {queue.removeprefix("${").removesuffix("}") for queue in policy["Queues"]}
    assert closed == set(stack.of_type("AWS::SQS::Queue"))


def test_a_secret_that_has_another_password_is_read_anew_by_all_that_use_the_database():
    """CloudFormation resolves {{resolve:secretsmanager:...}} for a resource only where something of it changes."""
    before, after = using_database(Stack(**OWN)), using_database(Stack(**OWN, MigrationRun="2"))
    for name, properties in before.items():
        assert properties["Environment"] != after[name]["Environment"], name


@pytest.mark.parametrize("size", ["trial", "small", "medium", "large"])
def test_all_that_may_run_at_once_leaves_connections_free_even_while_versions_change(size: str):
    stack = Stack(Size=size, EventBus="changes")
    reserved = {name: p.get("ReservedConcurrentExecutions") for name, p in using_database(stack).items()}
    assert None not in reserved.values(), reserved
    wanted = 2 * sum(map(int, reserved.values())) + 10
    (group,) = stack.of_type("AWS::RDS::DBParameterGroup").values()
    assert wanted <= int(group["Parameters"]["max_connections"])
    # Another capacity of Aurora restarts nothing, and this counts from a restart on: it is that of the largest.
    (group,) = (
        Stack(Size=size, DatabaseEngine="aurora-postgresql").of_type("AWS::RDS::DBClusterParameterGroup").values()
    )
    assert wanted <= int(group["Parameters"]["max_connections"]) == 720


def test_what_reads_a_queue_may_run_as_often_as_the_queue_asks(stack: Stack):
    for mapping in stack.of_type("AWS::Lambda::EventSourceMapping").values():
        function = stack.resources[mapping["FunctionName"].removeprefix("${").removesuffix("}")]["Properties"]
        if "ReservedConcurrentExecutions" in function:
            most = mapping["ScalingConfig"]["MaximumConcurrency"]
            assert function["ReservedConcurrentExecutions"] >= most


def test_without_a_share_of_the_accounts_concurrency_no_function_reserves_any():
    for name, properties in Stack(ReserveConcurrency="false").of_type(LAMBDA).items():
        assert "ReservedConcurrentExecutions" not in properties, name


# ------------------------------------------------------------------ what is asynchronous, and what is watched


# What is asked for again within a minute, and is of no use later.
FORGOTTEN = {"TickQueue", "HealthCheckFunctionMinute", "PublishFunctionMinute"}


def alarms_on(stack: Stack, namespace: str, metric: str) -> list[dict[str, Any]]:
    return [
        alarm
        for alarm in stack.of_type("AWS::CloudWatch::Alarm").values()
        if (alarm.get("Namespace"), alarm.get("MetricName")) == (namespace, metric)
    ]


def dimensions(alarms: list[dict[str, Any]]) -> set[str]:
    return {d["Value"].removeprefix("${").removesuffix("}").partition(".")[0] for a in alarms for d in a["Dimensions"]}


def test_whatever_is_asynchronous_has_a_dead_letter_queue_and_an_alarm_on_it(stack: Stack):
    letters = {
        json.dumps(queue["RedrivePolicy"]["deadLetterTargetArn"])
        for queue in stack.of_type("AWS::SQS::Queue").values()
        if "RedrivePolicy" in queue
    }
    for mapping in stack.of_type("AWS::Lambda::EventSourceMapping").values():
        queue = mapping["EventSourceArn"].removeprefix("${").partition(".")[0]
        assert "RedrivePolicy" in stack.resources[queue]["Properties"] or queue in FORGOTTEN, queue
        assert queue in dimensions(alarms_on(stack, "AWS/SQS", "ApproximateAgeOfOldestMessage"))
    for name, rule in stack.of_type("AWS::Events::Rule").items():
        for found in rule["Targets"]:
            function = found["Arn"].removeprefix("${").partition(".")[0]
            assert function in dimensions(alarms_on(stack, "AWS/Lambda", "Errors"))
            if name not in FORGOTTEN:
                letters.add(json.dumps(found["DeadLetterConfig"]["Arn"]))
                letters.add(json.dumps(stack.resources[function]["Properties"]["DeadLetterConfig"]["TargetArn"]))
    queues = {json.loads(one).removeprefix("${").partition(".")[0] for one in letters}
    kinds = ("Probe", "Result", "Introduce", "Introduced", "Event")
    assert queues == {f"{kind}DeadLetterQueue" for kind in kinds}
    assert dimensions(alarms_on(stack, "AWS/SQS", "ApproximateNumberOfMessagesVisible")) == queues


def test_what_is_late_and_of_no_use_any_more_leaves_no_letter_that_would_keep_an_alarm_ringing(stack: Stack):
    """A minute without the database leaves some; a half minute later others do their work."""
    assert int(stack.resources["TickQueue"]["Properties"]["MessageRetentionPeriod"]) <= 120
    assert "RedrivePolicy" not in stack.resources["TickQueue"]["Properties"]
    (found,) = stack.resources["HealthCheckFunctionMinute"]["Properties"]["Targets"]
    assert "DeadLetterConfig" not in found and found["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 60
    assert "DeadLetterConfig" not in stack.resources["HealthCheckFunction"]["Properties"]


def test_a_request_that_is_throttled_is_no_error_of_the_api():
    """It is answered 503, and ThrottledAlarm says when there are many."""
    alarms = Stack().of_type("AWS::CloudWatch::Alarm")
    ((errors, *throttles), (_, *counted)) = (
        [one for one in alarms[name]["Metrics"] if "MetricStat" in one or name == "ThrottledAlarm"]
        for name in ("ApiErrorsAlarm", "ThrottledAlarm")
    )
    assert errors["MetricStat"]["Metric"]["MetricName"] == "5XXError"
    assert throttles == counted and {one["MetricStat"]["Metric"]["MetricName"] for one in counted} == {"Throttles"}
    ids = [one["Id"] for one in counted]
    # Of a function that nobody called there is no figure, and without one there would be no sum.
    expressions = [alarms[name]["Metrics"][0]["Expression"] for name in ("ApiErrorsAlarm", "ThrottledAlarm")]
    assert expressions == [
        "errors" + "".join(f" - FILL({one}, 0)" for one in ids),
        " + ".join(f"FILL({one}, 0)" for one in ids),
    ]


def test_every_alarm_tells_somebody_says_what_to_do_and_watches_what_exists(stack: Stack):
    alarms = stack.of_type("AWS::CloudWatch::Alarm")
    assert alarms
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == ["${AlarmTopic}"], name
        assert re.search(r" - \w.{12,}", alarm["AlarmDescription"]), f"{name} says nothing to do"
        summed = [one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one]
        for dimension in [found for metric in [*summed, alarm] for found in metric.get("Dimensions", [])]:
            if "${" in dimension["Value"]:
                assert dimension["Value"].removeprefix("${").removesuffix("}").partition(".")[0] in stack.resources
    assert bool(stack.of_type("AWS::SNS::Subscription")) == stack.holds("HasAlarmEmail")


@pytest.mark.parametrize("size", ["trial", "small", "medium", "large"])
@pytest.mark.parametrize("engine", ["postgres", "aurora-postgresql"])
def test_the_alarm_on_connections_rings_at_nine_of_ten_whatever_the_engine(engine: str, size: str):
    stack = Stack(DatabaseEngine=engine, Size=size)
    (alarm,) = alarms_on(stack, "AWS/RDS", "DatabaseConnections")
    groups = stack.of_type("AWS::RDS::DBParameterGroup") | stack.of_type("AWS::RDS::DBClusterParameterGroup")
    (group,) = groups.values()
    assert int(alarm["Threshold"]) == int(group["Parameters"]["max_connections"]) * 9 // 10


def test_a_metric_of_ours_is_sent_with_the_stack_as_its_dimension(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "one-stack")
    observability.log_suspect(2)
    sent = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    (metrics,) = sent["_aws"]["CloudWatchMetrics"]
    assert metrics["Namespace"] == "MCPRegistry" and metrics["Dimensions"] == [["service"]]
    assert sent["service"] == "one-stack" and sent["sweep_suspect"] == [2.0]
    # Else Lambda drops it where LogLevel is WARNING or ERROR, and the alarm never rings.
    assert sent["level"] == "ERROR" and datetime.fromisoformat(sent["timestamp"]).utcoffset() == timedelta(0)


def test_every_metric_of_ours_has_an_alarm_under_the_dimension_that_it_is_sent_with(stack: Stack):
    source = (ROOT / "layers/registry/mcp_registry/aws/observability.py").read_text()
    names = set(re.findall(r'_count\("(\w+)"', source))
    assert len(names) == 3
    for name in names:
        (alarm,) = alarms_on(stack, "MCPRegistry", name)
        # Powertools sends the service along, which is the stack.
        assert alarm["Dimensions"] == [{"Name": "service", "Value": "registry"}]
    for properties in stack.of_type(LAMBDA).values():
        assert properties["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == "registry"


def test_the_dashboard_is_json_and_shows_what_exists(stack: Stack):
    (dashboard,) = stack.of_type("AWS::CloudWatch::Dashboard").values()
    board = json.loads(dashboard["DashboardBody"])
    assert len(board["widgets"]) == 9
    for found in re.findall(r"\$\{(\w+)", dashboard["DashboardBody"]):
        assert found in stack.resources, found


@pytest.mark.parametrize(
    ("partition", "console"),
    [
        ("aws", "console.aws.amazon.com"),
        ("aws-cn", "console.amazonaws.cn"),
        ("aws-eusc", "console.amazonaws-eusc.eu"),
        ("aws-us-gov", "console.amazonaws-us-gov.com"),
    ],
)
def test_the_address_of_the_dashboard_is_in_the_console_of_the_partition(partition: str, console: str):
    outputs = Stack({"AWS::Partition": partition}).outputs
    assert outputs["DashboardUrl"]["Value"].startswith(f"https://eu-west-1.{console}/cloudwatch/home?region=eu-west-1#")


# ------------------------------------------------------------------ logs


def test_the_access_log_holds_nothing_that_could_be_a_secret(stack: Stack):
    for stage in stack.of_type("AWS::ApiGateway::Stage").values():
        assert ("AccessLogSetting" in stage) == stack.holds("LogsAccess")
        if "AccessLogSetting" in stage:
            form = stage["AccessLogSetting"]["Format"]
            assert isinstance(json.loads(form), dict)
            assert not re.search(r"header|authorizer\.(?!principalId)|query|body|path\b|Path\}", form), form
        for setting in stage["MethodSettings"]:
            # The gateway's own log of requests would hold the Authorization header.
            assert "DataTraceEnabled" not in setting and setting["ThrottlingRateLimit"]


def test_the_api_takes_no_tls_before_1_2(stack: Stack):
    policies = Stack().declared["TlsPolicy"]["AllowedValues"]
    # "Supported security policies" (API Gateway Developer Guide): first the newest TLS that it takes, then the oldest.
    assert all(re.match(r"SecurityPolicy_TLS13_1_[23]_", policy) for policy in policies)
    (api,) = stack.of_type("AWS::ApiGateway::RestApi").values()
    assert api["SecurityPolicy"] == policies[0] and api["EndpointAccessMode"] == "STRICT"


def test_whatever_asks_for_no_credentials_has_a_throttle_of_its_own():
    (stage,) = Stack().of_type("AWS::ApiGateway::Stage").values()
    (everything, *own) = stage["MethodSettings"]
    assert (everything["ResourcePath"], everything["ThrottlingRateLimit"]) == ("/*", "100")
    rates = {(one["ResourcePath"].replace("~1", "/")[1:] or "/", one["HttpMethod"]): one for one in own}
    methods = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
    api = template.load(ROOT / "template.yaml", OWN).api
    assert set(rates) == {(route.path, each) for route in api.routes if not route.authorized for each in methods}
    for (path, method), one in rates.items():
        most = 5 if path == "/health" and method in ("GET", "HEAD") else 1
        assert one["ThrottlingRateLimit"] == most and most < one["ThrottlingBurstLimit"] <= 10


def test_who_deploys_says_whether_the_accounts_role_is_set():
    """It is every API's of the account: no default may overwrite it."""
    assert "Default" not in Stack().declared["ApiGatewayRole"]


def test_every_log_of_the_stack_ends_some_day(stack: Stack):
    for name, group in stack.of_type("AWS::Logs::LogGroup").items():
        assert int(group["RetentionInDays"]) == 30, name
    for name, properties in stack.of_type(LAMBDA).items():
        group = "ProberLogs" if name in DIALLING else "FunctionLogs"
        assert properties["LoggingConfig"]["LogGroup"] == f"${{{group}}}", name


def test_who_dials_writes_to_no_log_of_others(stack: Stack):
    """It speaks to strangers: what it could be made to write must not pass for what another function says."""
    for name in stack.of_type(LAMBDA):
        groups = {
            target(resource)
            for statement in stack.statements(stack.role_of(name))
            for action in listed(statement["Action"])
            if action.startswith("logs:")
            for resource in listed(statement["Resource"])
        }
        assert groups == {"ProberLogs" if name in DIALLING else "FunctionLogs"}, name


def test_no_alarm_is_silenced_by_a_number_that_a_function_makes_up(stack: Stack):
    """Whoever may write to a log may make any number of it, below zero too: a sum would be none of what it counts."""
    for name, alarm in stack.of_type("AWS::CloudWatch::Alarm").items():
        if alarm.get("Namespace") == "MCPRegistry":
            assert alarm["ComparisonOperator"] == "GreaterThanThreshold", name
            assert alarm["Statistic"] in ("Maximum", "SampleCount"), name


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
@pytest.mark.filterwarnings("error")
def test_log_level_is_the_lowest_that_a_function_logs_in_lambda(level: str, monkeypatch: pytest.MonkeyPatch):
    assert level in Stack().declared["LogLevel"]["AllowedValues"]
    for properties in Stack(LogLevel=level).of_type(LAMBDA).values():
        assert properties["LoggingConfig"]["ApplicationLogLevel"] == level.removesuffix("ING")
    # Both of them, as Lambda hands them over; a logger of that name is set up once.
    monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", level.removesuffix("ING"))
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", level)
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"in-lambda-{level}")
    fresh = load_module(Path(observability.__file__), "fresh_observability")
    assert fresh.logger.log_level == getattr(logging, level)


# What a function that reads has of a deployment, and a deployment that changes it. DatabaseUrl has to stay out of a
# description: MigrationRun is raised with it.
CHANGED_SETTINGS = [
    ("as it comes", {"LogLevel": "DEBUG"}),
    ("as it comes", {"Tracing": "true"}),
    ("as it comes", {"SnapStart": "true"}),
    ("as it comes", {"Architecture": "arm64"}),
    ("as it comes", {"DatabaseProxy": "true"}),
    ("as it comes", {"DatabaseEngine": "aurora-postgresql"}),
    ("as it comes", OWN),
    ("a database of yours", {"DatabaseAccess": "role"}),
    ("a database of yours", {"DatabaseUrl": "postgresql://u@other.example.com/r", "MigrationRun": "2"}),
]


@pytest.mark.parametrize(("before", "change"), CHANGED_SETTINGS)
def test_what_reads_is_published_anew_with_every_setting_that_it_has(
    stacks: dict[str, Stack], before: str, change: dict[str, str]
):
    after = Stack(**{**CHOICES[before], **change})
    for name in READERS:
        ((old, of_old), (new, of_new)) = (version_of(stack, name) for stack in (stacks[before], after))
        # A version is replaced where its description is another. Lambda refuses to publish what has not changed.
        assert (old, of_old["Description"]) != (new, of_new["Description"]), name
        variables = after.resources[name]["Properties"]["Environment"]["Variables"]
        assert variables["SETTINGS"] == of_new["Description"] and "example.com" not in of_new["Description"]
        names_at_their_longest = re.sub(
            r"\$\{\w*Layer\w*\}", "x" * 75, re.sub(r"\$\{\w+\.\w+\}", "x" * 34, of_new["Description"])
        )
        assert len(names_at_their_longest) <= 256


def version_of(stack: Stack, function: str) -> tuple[str, dict[str, Any]]:
    """The version that callers of a function get, by its alias."""
    alias = stack.resources[f"{function}Aliascurrent"]["Properties"]
    name = alias["FunctionVersion"].removeprefix("${").removesuffix(".Version}")
    return name, stack.resources[name]["Properties"]


def test_what_reads_is_started_from_snapshots_where_that_is_chosen_and_nothing_else_is(stack: Stack):
    for name, properties in stack.of_type(LAMBDA).items():
        if name in READERS:
            wanted = "PublishedVersions" if stack.holds("Snapshots") else "None"
            assert properties["SnapStart"] == {"ApplyOn": wanted}
        else:
            assert "SnapStart" not in properties, name
    text = json.dumps(stack.of_type("AWS::ApiGateway::RestApi"))
    called = set(re.findall(r"functions/\$\{(\w+?)(?:\.Arn)?\}/invocations", text))
    assert {f"{name}Aliascurrent" for name in READERS} <= called and not called & set(READERS)


def test_tracing_is_a_choice(stacks: dict[str, Stack]):
    for name, mode in (("as it comes", "PassThrough"), ("everything", "Active")):
        for properties in stacks[name].of_type(LAMBDA).values():
            assert properties["TracingConfig"] == {"Mode": mode}


# ------------------------------------------------------------------ secrets, outputs, settings


def test_the_credentials_are_made_by_secrets_manager_unless_they_are_given(stack: Stack):
    assert bool(stack.of_type("AWS::SecretsManager::Secret")) == stack.holds("CredentialsInSecret")
    assert ("ReadCredentials" in stack.outputs) == stack.holds("CredentialsInSecret")
    assert "ApiUrl" in stack.outputs


def test_what_is_a_secret_is_not_echoed():
    declared = Stack().declared
    for name in ("DatabaseUrl", "RegistryPassword", "CronSecret"):
        assert declared[name]["NoEcho"] is True


def test_each_event_source_says_which_messages_failed(stack: Stack):
    for mapping in stack.of_type("AWS::Lambda::EventSourceMapping").values():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_every_function_is_of_the_architecture_that_the_layers_are_built_for(stacks: dict[str, Stack]):
    for name, wanted in (("as it comes", "x86_64"), ("another role", "arm64")):
        for properties in stacks[name].of_type(LAMBDA).values():
            assert properties["Architectures"] == [wanted]
        for layer in stacks[name].of_type("AWS::Lambda::LayerVersion").values():
            assert layer["CompatibleArchitectures"] == [wanted]
