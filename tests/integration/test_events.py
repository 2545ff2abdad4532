"""The files of events/: what `sam local invoke` is given, given to the handlers."""

from __future__ import annotations

import asyncio
import json

import pytest

from mcp_registry.access import admission
from mcp_registry.aws import db
from mcp_registry.catalogue import servers
from mcp_registry.catalogue.registration import parse
from tests.conftest import ADMIN, ROOT, registration
from tests.offers import offer

EVENTS = ROOT / "events"

# File, function, status. What an event says of server 1 is true in the test: it is registered.
EXPECTED = [
    ("register-post", "RegisterFunction", 201),
    ("register-put", "RegisterFunction", 201),
    ("register-digest", "RegisterFunction", 428),
    ("register-announce", "RegisterFunction", 201),
    ("register-announce-digest", "RegisterFunction", 428),
    ("register-invalid", "RegisterFunction", 400),
    ("list-first-page", "ListFunction", 200),
    ("list-search", "ListFunction", 200),
    ("list-verdict", "ListFunction", 200),
    ("list-invalid", "ListFunction", 400),
    ("detail", "DetailFunction", 200),
    ("detail-invalid", "DetailFunction", 400),
    ("update", "UpdateFunction", 200),
    ("update-invalid", "UpdateFunction", 400),
    ("transfer", "TransferFunction", 200),
    ("transfer-invalid", "TransferFunction", 400),
    ("approvals", "LedgerFunction", 200),
    ("approve-nothing", "LedgerFunction", 404),
    ("approve-forbidden", "LedgerFunction", 403),
    ("policy", "LedgerFunction", 200),
    ("policy-invalid", "LedgerFunction", 400),
    ("probe-headers-give", "ProbeHeadersFunction", 204),
    ("probe-headers-invalid", "ProbeHeadersFunction", 400),
    ("probe-headers-withdraw", "ProbeHeadersFunction", 204),
    ("delete", "DeleteFunction", 204),
    ("delete-hold", "DeleteFunction", 204),
    ("delete-invalid", "DeleteFunction", 400),
    ("health", "HealthFunction", 200),
    ("health-head", "HealthFunction", 200),
    ("pointer", "FrontFunction", 200),
    ("contract", "FrontFunction", 200),
    ("contract-known", "FrontFunction", 304),
    ("history", "HistoryFunction", 200),
    ("history-invalid", "HistoryFunction", 400),
    ("metrics", "MetricsFunction", 200),
    ("start-sweep", "StartSweepFunction", 202),
    ("start-sweep-invalid", "StartSweepFunction", 401),
    ("whoami", "AccessFunction", 200),
    ("teams", "AccessFunction", 200),
    ("team", "AccessFunction", 200),
    ("team-set", "AccessFunction", 201),
    ("team-invalid", "AccessFunction", 400),
    ("team-remove", "AccessFunction", 404),
    ("team-in-use", "AccessFunction", 409),
    ("tokens", "AccessFunction", 200),
    ("token-make", "AccessFunction", 201),
    ("token-invalid", "AccessFunction", 400),
    ("token", "AccessFunction", 404),
    ("token-revoke", "AccessFunction", 404),
    ("issuers", "AccessFunction", 200),
    ("issuer", "AccessFunction", 404),
    ("issuer-set", "AccessFunction", 201),
    ("issuer-invalid", "AccessFunction", 400),
    ("issuer-remove", "AccessFunction", 404),
    ("audit", "AccessFunction", 200),
    ("audit-invalid", "AccessFunction", 400),
    ("access-forbidden", "AccessFunction", 403),
    ("changes", "LedgerFunction", 200),
    ("changes-invalid", "LedgerFunction", 400),
    ("server-changes", "LedgerFunction", 200),
    ("server-tools", "LedgerFunction", 200),
    ("server-tools-invalid", "LedgerFunction", 400),
    ("server-tools-nothing", "LedgerFunction", 404),
    ("observe", "LedgerFunction", 202),
    ("observe-forbidden", "LedgerFunction", 403),
]
# File, function, what it makes of it. The events of a schedule and of the queues are of a moment that is past, but for
# the one that names none.
BACKGROUND = [
    ("health-check-now", "HealthCheckFunction", ["started"]),
    ("health-check-late", "HealthCheckFunction", ["late", "late"]),
    ("health-check-tick", "HealthCheckFunction", []),
    ("health-sweep", "HealthSweepFunction", []),
    ("health-write", "HealthWriteFunction", []),
    ("introduce", "IntroduceFunction", []),
    ("remember", "RememberFunction", []),
    ("maintain", "MaintainFunction", None),
]
AUTHORIZER = ["authorizer-allow", "authorizer-refuse"]
# What the authorizer asks, and what it is told where the database knows of nobody.
QUESTIONS = {"identify-token": {"caller": None}, "identify-issuer": {"rules": []}}
# What the function that keeps headers for servers asks, and is told where there are none.
MARKS = {"mark-over": {"over": []}}
# What its schedule sends.
CLEAR = "probe-headers-clear"
# What CloudFormation sends on a deployment. Its answer goes to an address that takes everything and leads nowhere.
MIGRATION = "migrate"


def read(name: str):
    return json.loads((EVENTS / f"{name}.json").read_text())


def test_every_event_file_is_used_and_every_function_has_one(in_process):
    files = {path.stem for path in EVENTS.iterdir()}
    assert files == {name for name, _, _ in [*EXPECTED, *BACKGROUND]} | {
        *AUTHORIZER,
        *QUESTIONS,
        *MARKS,
        CLEAR,
        MIGRATION,
    }
    functions = {function for _, function, _ in [*EXPECTED, *BACKGROUND]}
    assert functions | {"AuthorizerFunction", "IdentifyFunction", "MarkFunction", "MigrateFunction"} == set(
        in_process.stack.functions
    )


@pytest.fixture(autouse=True)
def nobody_was_wrong():
    """An authorizer that has seen nobody yet: what others got wrong from the address of the events is counted."""
    admission.forget()


@pytest.fixture
def server_1(database, monkeypatch):
    """A catalogue whose one server has the id 1, for as long as the test takes."""
    connection = database._connection
    connection.execute("DELETE FROM registry.mcp_servers")
    connection.execute("ALTER TABLE registry.mcp_servers ALTER COLUMN id RESTART WITH 1")
    connection.execute("SELECT metrics.add_days('2026-11-22', '2026-11-22')")  # the day of the events
    servers.register(database, ADMIN, parse(registration("first")))
    assert offer(connection, 1, {"tools": []}, "declared")
    monkeypatch.setattr(db, "_database", database)


@pytest.mark.usefixtures("server_1")
@pytest.mark.parametrize(("name", "function", "status"), EXPECTED)
def test_an_event_is_answered(name, function, status, in_process):
    answer = asyncio.run(in_process.invoke(function, read(name)))
    assert answer["statusCode"] == status


@pytest.mark.usefixtures("server_1")
@pytest.mark.parametrize(("name", "function", "outcomes"), BACKGROUND)
def test_an_event_that_nobody_waits_for_is_dealt_with(name, function, outcomes, in_process):
    answer = asyncio.run(in_process.invoke(function, read(name)))
    if outcomes is None:
        assert set(answer) == {"added", "folded", "dropped", "deleted"}
    elif "batchItemFailures" in answer:
        assert answer == {"batchItemFailures": outcomes}
    else:
        assert [sweep["result"] for sweep in answer] == outcomes


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_of_the_authorizers_is_answered(name, in_process):
    assert asyncio.run(in_process.invoke("IdentifyFunction", read(name))) == QUESTIONS[name]


@pytest.mark.usefixtures("server_1")
@pytest.mark.parametrize("name", MARKS)
def test_a_question_about_headers_is_answered(name, in_process):
    assert asyncio.run(in_process.invoke("MarkFunction", read(name))) == MARKS[name]


@pytest.mark.usefixtures("server_1")
def test_headers_that_nobody_needs_are_deleted_each_day(in_process):
    assert asyncio.run(in_process.invoke("ProbeHeadersFunction", read(CLEAR))) == {"deleted": 0}


def test_a_deployment_finds_the_database_migrated(in_process, capsys):
    assert asyncio.run(in_process.invoke("MigrateFunction", read(MIGRATION))) is None
    told = json.loads(capsys.readouterr().out)
    assert (told["message"], told["status"], told["reason"]) == ("migration", "SUCCESS", "up to date")


@pytest.mark.usefixtures("server_1")
@pytest.mark.parametrize(
    ("registered", "digest"),
    [("register-post", "register-digest"), ("register-announce", "register-announce-digest")],
)
def test_the_digest_event_is_the_digest_of_the_registration_event(in_process, registered, digest):
    asyncio.run(in_process.invoke("RegisterFunction", read(registered)))
    assert asyncio.run(in_process.invoke("RegisterFunction", read(digest)))["statusCode"] == 204


def test_the_authorizer_lets_valid_credentials_through_to_the_whole_stage(in_process):
    answer = asyncio.run(in_process.invoke("AuthorizerFunction", read("authorizer-allow")))
    (statement,) = answer["policyDocument"]["Statement"]
    stage = read("authorizer-allow")["methodArn"].removesuffix("/GET/api/registry/servers")
    assert (statement["Effect"], statement["Resource"]) == ("Allow", f"{stage}/*")


def test_the_authorizer_denies_other_credentials_the_whole_stage(in_process):
    answer = asyncio.run(in_process.invoke("AuthorizerFunction", read("authorizer-refuse")))
    (statement,) = answer["policyDocument"]["Statement"]
    stage = read("authorizer-refuse")["methodArn"].removesuffix("/GET/api/registry/servers")
    assert (statement["Effect"], statement["Resource"]) == ("Deny", f"{stage}/*")
