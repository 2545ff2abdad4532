"""Two teams with tokens of their own and one role of AWS share a registry: whose a server is, and who did what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from client.tests.conftest import Registry
from client.tests.test_announcer import QUICK, Fixed
from mcp_registry_client import _settings, cli
from mcp_registry_client._announcer import Registration
from tests import issuer
from tests.conftest import PASSWORD, USERNAME, registration

Command = Callable[..., Any]


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Runs a command as the holder of a token, or as the administrator."""
    monkeypatch.setenv("MCP_REGISTRY_URL", registry.url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MCP_REGISTRY_USERNAME", USERNAME)
    monkeypatch.setenv("MCP_REGISTRY_PASSWORD", PASSWORD)

    def command(*arguments: str, token: str | None = None) -> Done:
        with monkeypatch.context() as patch:
            if token is not None:
                patch.setenv("MCP_REGISTRY_TOKEN", token)
            code = int(cli.main(arguments))
            out, err = capsys.readouterr()
            return Done(code, out, err)

    return command


@pytest.fixture(scope="module")
def aws() -> Iterator[issuer.Server]:
    with issuer.Server() as played:
        yield played


class Outcome(NamedTuple):
    """What an announcement came to."""

    state: str
    error: str | None


def announced(registry: Registry, name: str, *, port: int = 8080, **settings: Any) -> Outcome:
    """A server of this name that announces itself by the library, once that has come to something."""
    document = registration(name) | {"endpoint_url": f"http://127.0.0.1:{port}/mcp"}
    handle = Registration(Fixed(document), _settings.Settings(registry.url, **settings), QUICK)
    handle.start()
    handle.settle(20)
    outcome = Outcome(handle.state, handle.error)
    handle.stop()
    return outcome


@pytest.fixture
def teams(run: Command, registry: Registry) -> tuple[str, str, str, str]:
    """Two teams of the test with a prefix each, and a token of each."""
    numbers = registry.new_name("t").removeprefix("t-")
    payments, search = f"payments{numbers}", f"search{numbers}"
    tokens: list[str] = []
    for team in (payments, search):
        assert run("teams", "set", team, "--contact", f"{team}@example.com", "--prefix", f"{team}-").code == 0
        tokens.append(run("tokens", "make", "ci", "--team", team).out.strip())
    return payments, search, tokens[0], tokens[1]


def test_teams_and_a_role_share_a_registry_and_the_audit_tells_the_story(
    run: Command,
    registry: Registry,
    teams: tuple[str, str, str, str],
    aws: issuer.Server,
    monkeypatch: pytest.MonkeyPatch,
):
    payments, search, of_payments, of_search = teams
    role = aws.role(f"{search}-index")
    pinned = ("--claim", f"sub=arn:aws:iam::*:role/{search}-*")
    told = ("--issuer", aws.aws.url, "--audience", registry.url, "--team", search)
    assert run("issuers", "set", f"{search}-roles", *told, *pinned).code == 0
    started = run("audit", "--all", "--json").document["entries"][-1]["sequence"]

    # Each registers by the real client: a token, another team's token, and a role that has no secret of ours.
    refunds, index, docs = f"{payments}-refunds", f"{search}-index", f"{search}-docs"
    assert announced(registry, refunds, token=of_payments).state == "registered"
    assert announced(registry, index, token=of_search).state == "registered"
    with monkeypatch.context() as patch:
        for name, value in {**role.environment, "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_STS": aws.url}.items():
            patch.setenv(name, value)
        patch.setenv("AWS_LAMBDA_FUNCTION_NAME", "docs")
        handle = announced(registry, docs)
    assert handle.state == "registered", handle.error
    owners = {name: row["owner"] for name in (refunds, index, docs) for row in registry.named(name)}
    assert owners == {refunds: payments, index: search, docs: search}

    # Whatever one tries on the other's server is refused, with whom to ask, and changes nothing.
    before = registry.named(refunds)
    elsewhere = announced(registry, refunds, port=8081, token=of_search)
    ask = f"ask {payments}@example.com"
    assert elsewhere.state == "failed" and ask in (elsewhere.error or ""), elsewhere.error
    assert ask in (announced(registry, f"{payments}-new", token=of_search).error or "")
    for tried in (
        ("disable", refunds),
        ("deregister", refunds, "--yes"),
        ("deregister", refunds, "--yes", "--for", "1h"),
        ("transfer", refunds, search),
    ):
        done = run(*tried, token=of_search)
        assert done.code == 5 and ask in " ".join(done.err.split()), (tried, done)
    assert run("teams", "set", payments, "--no-prefixes", token=of_search).code == 5
    assert run("tokens", "make", "more", "--team", payments, token=of_search).code == 5
    assert run("audit", token=of_search).code == 5
    after = registry.named(refunds)
    assert [row["endpoint_url"] for row in after] == [row["endpoint_url"] for row in before]
    assert [row["updated_at"] for row in after] == [row["updated_at"] for row in before]

    # The owner may do all of it.
    assert run("transfer", index, payments, token=of_search).code == 0
    assert run("disable", index, token=of_search).code == 5
    assert run("disable", index, token=of_payments).code == 0
    assert run("list", "--owner", payments, "--json").document["total"] == 2
    shown = " ".join(run("show", index).out.split())
    assert f"Owner {payments}, {ask}" in shown
    assert run("deregister", refunds, "--yes", token=of_payments).code == 0

    # The audit tells it in order: who, what, to what.
    entries = run("audit", "--all", "--json", "--after", str(started)).document["entries"]
    ids = {of_payments.split("_")[1]: "payments", of_search.split("_")[1]: "search"}
    story = [
        (next((name for id_, name in ids.items() if entry["actor"] == f"token:{id_}"), entry["actor"]), *told_of(entry))
        for entry in entries
        if re.search(rf"{payments}|{search}", entry["target"])
    ]
    assert story == [
        ("payments", "server.registered", f"server:{refunds}"),
        ("search", "server.registered", f"server:{index}"),
        (f"oidc:{search}-roles:{role.arn}", "server.registered", f"server:{docs}"),
        ("search", "server.transferred", f"server:{index}"),
        ("payments", "server.status", f"server:{index}"),
        ("payments", "server.removed", f"server:{refunds}"),
    ]
    assert [entry["sequence"] for entry in entries] == sorted(entry["sequence"] for entry in entries)
    whole = json.dumps(entries)
    assert of_payments not in whole and of_search not in whole
    (moved,) = [entry for entry in entries if entry["action"] == "server.transferred"]
    assert (moved["before"], moved["after"]) == ({"owner": search}, {"owner": payments})


def test_the_audit_says_nothing_of_what_was_never_there(
    run: Command, registry: Registry, teams: tuple[str, str, str, str]
):
    """Least of all that it is there no more."""
    payments, _, of_payments, _ = teams
    name = f"{payments}-refunds"
    assert announced(registry, name, token=of_payments).state == "registered"
    assert run("teams", "set", f"{payments}-without").code == 0
    assert run("deregister", name, "--yes", token=of_payments).code == 0
    lines = [" ".join(line.split()) for line in run("audit", "--all").out.splitlines()]
    (without,) = [line for line in lines if f"team:{payments}-without" in line]
    assert "contact" not in without and "prefixes" not in without
    (registered,) = [line for line in lines if f"server.registered server:{name} " in line]
    assert f"owner: {payments};" in registered and "health_url" not in registered
    (removed,) = [line for line in lines if f"server.removed server:{name} " in line]
    assert f"owner: no more {payments};" in removed and "health_url" not in removed


def told_of(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["action"], entry["target"]


def test_who_logs_in_need_not_say_who_they_are_again_and_a_revoked_token_lets_nobody_in(
    run: Command, registry: Registry, teams: tuple[str, str, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    payments, _, token, _ = teams
    for name in ("MCP_REGISTRY_USERNAME", "MCP_REGISTRY_PASSWORD", "MCP_REGISTRY_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("sys.stdin", (tmp_path / "token").open("w+"))
    (tmp_path / "token").write_text(f"{token}\n")
    done = run("login", "--registry", registry.url)
    assert done.code == 0 and f"(publisher, team {payments}" in done.out and token not in done.out + done.err
    # No registry is named any more: it is the one that was logged in to.
    assert run("whoami", "--json").document["name"] == f"token:{token.split('_')[1]}"
    assert run("list", "--json").code == 0
    assert run("logout").code == 0
    assert run("whoami").code == 2
    (tmp_path / "token").write_text("mcpr_no_such_token\n")
    monkeypatch.setattr("sys.stdin", (tmp_path / "token").open())
    refused = run("login", "--registry", registry.url)
    assert refused.code == 5 and run("whoami", "--registry", registry.url).code == 5
