"""Workloads without a secret: who holds a token of an issuer that an administrator trusts."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from mcp_registry.access import issuers
from tests import issuer as played
from tests.conftest import SERVERS, Api, nowhere_else, registration
from tests.issuer import Issuer, Key, Server

AUDIENCE = "https://registry.example"
INSERT = """
INSERT INTO registry.issuers (id, issuer, audience, claims, team, role)
VALUES (%(id)s, %(issuer)s, %(audience)s, %(claims)s, 'default', %(role)s)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as started:
        yield started


@pytest.fixture
def trusted(api: Api, server: Server, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes the registry trust an issuer; the id of the rule."""
    nowhere_else(request.config)

    def trust(issuer: Issuer, role: str = "reader", **claims: str) -> str:
        id_ = f"rule-{time.monotonic_ns()}"
        row: dict[str, Any] = {"id": id_, "issuer": issuer.url, "audience": AUDIENCE, "role": role}
        assert api.database_url is not None
        with psycopg.connect(api.database_url, autocommit=True) as connection:
            connection.execute(INSERT, row | {"claims": Jsonb(claims)})
        return id_

    return trust


def asked(api: Api, method: str, path: str, body: Any = None, *, token: str, basic: bool = False) -> Any:
    """An answer; on a busy machine the keys may not come within two seconds, and are asked for again soon."""
    auth = "Basic " + b64encode(f"aws:{token}".encode()).decode() if basic else f"Bearer {token}"
    answer = api(method, path, body, auth=auth)
    for _ in range(20):
        if answer.status != 500:
            break
        time.sleep(issuers.SOON_SECONDS / 2)
        answer = api(method, path, body, auth=auth)
    return answer


def new(server: Server) -> Issuer:
    return server.issuer(f"issuer-{time.monotonic_ns()}", Key.of("RS256"))


@pytest.mark.parametrize("form", ["bearer", "basic"])
def test_a_role_of_aws_registers_as_what_its_rule_says(api, server, trusted, form):
    issuer, role = new(server), f"arn:aws:iam::{played.ACCOUNT}:role/mcp-refunds"
    trusted(issuer, "publisher", sub=f"arn:aws:iam::{played.ACCOUNT}:role/mcp-*")
    token = issuer.sign(played.aws_claims(role, [AUDIENCE]))
    basic = form == "basic"
    assert asked(api, "GET", SERVERS, token=token, basic=basic).status == 200
    answer = asked(api, "POST", "/api/registry/register", api.registration(), token=token, basic=basic)
    assert answer.status == 201, answer.body
    other = issuer.sign(played.aws_claims(role.replace("mcp-", "other-"), [AUDIENCE]))
    assert asked(api, "GET", SERVERS, token=other).status == 401


def test_a_job_of_github_that_may_read_may_not_register(api, server, trusted):
    issuer = new(server)
    id_ = trusted(issuer, "reader", repository="octo-org/octo-repo")
    claims = played.github_claims("octo-org/octo-repo", AUDIENCE)
    token = issuer.sign(claims)
    assert asked(api, "GET", SERVERS, token=token).status == 200
    answer = asked(api, "POST", "/api/registry/register", registration("github-may-not"), token=token)
    assert (answer.status, answer.json()["code"]) == (403, "FORBIDDEN")
    assert f"oidc:{id_}:{claims['sub']} has the role reader" in answer.json()["error"]


def test_a_token_of_nobody_whom_the_registry_trusts_is_refused(api, server, trusted):
    issuer, other = new(server), new(server)
    trusted(issuer, repository="octo-org/octo-repo")
    claims = played.github_claims("octo-org/octo-repo", AUDIENCE)
    tokens = [
        other.sign(claims),
        issuer.sign({**claims, "repository": "mallory/octo-repo"}),
        issuer.sign({**claims, "aud": "https://other.example"}),
        issuer.sign({**claims, "exp": time.time() - 61}),
        issuer.sign(claims, Key.of("RS256", 66)),
        issuer.sign(claims, alg="none", sign=lambda _: b"x"),
    ]
    for token in tokens:
        answer = asked(api, "GET", SERVERS, token=token)
        assert (answer.status, answer.json()["code"]) == (401, "UNAUTHORIZED")
    assert other.asked == []


def test_while_an_issuer_is_away_nobody_is_called_wrong_and_the_administrator_goes_on(api, server, trusted):
    issuer = new(server)
    trusted(issuer, repository="octo-org/octo-repo")
    issuer.is_away = True
    auth = f"Bearer {issuer.sign(played.github_claims('octo-org/octo-repo', AUDIENCE))}"
    answer = api("GET", SERVERS, auth=auth)
    assert (answer.status, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert api("GET", SERVERS).status == 200
