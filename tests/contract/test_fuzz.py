"""Whatever is asked, the running stack answers as docs/openapi.yaml says: generated requests, valid and not."""

# pyright: reportUntypedFunctionDecorator=false
# (schemathesis does not say what its decorators return)

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import httpx
import hypothesis
import pytest
import rfc8785
import schemathesis
from schemathesis import Case, CheckContext, Response
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.api.test_stateful import DOWN, UP, Checks
from tests.contract.document import DOCUMENT, closed

CREDENTIALS = ("admin", "password")
JOB = "/api/jobs/health-check"
# What asks for no credentials at all.
OPEN = ["/", "/openapi.yaml", "/health"]

api = schemathesis.openapi.from_dict(
    closed(),
    config=schemathesis.Config.from_dict(
        {
            # A slow machine is no fault of the API.
            "suppress-health-check": ["all"],
            "generation": {
                # The same requests in every run, so that a failure is a change of ours.
                "deterministic": True,
                "database": "none",
                # Of each operation, besides the examples and the edges of every limit in the document.
                "max-examples": 25,
                # Credentials are the business of one test below.
                "with-security-parameters": False,
                # NUL is refused in any string, which the document says in words.
                "allow-x00": False,
            },
            # 428 is no refusal of a digest but its answer, as 304 is of a tag; 404 and 409 depend on what is stored.
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "304", "404", "409", "428"]}},
        }
    ),
)

# Kinds of faults that break a rule which the document can only state in words: what a host name is, which names are
# reserved, which addresses are closed, that two tools have different names, how deep a schema is.
IN_WORDS = {"value", "blocked", "repeated", "depth"}


def valid_requests_are_accepted(ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """A request that fits the document is refused only for a rule that the document has in words."""
    if response.status_code == 400:
        details = response.json().get("details", [])
        if details and {fault["type"] for fault in details} <= IN_WORDS:
            return True
        if case.operation.label == "PUT /api/registry/register" and not response.request.body:
            return True  # neither a body nor a digest: either may be left out, and no schema can say "not both"
    return positive_data_acceptance(ctx, response, case)


def invalid_requests_are_refused(ctx: CheckContext, response: Response, case: Case) -> bool | None:
    """A request that does not fit the document is refused; only a digest beside a body is never read."""
    if case.operation.label == "PUT /api/registry/register" and response.request.body and case.meta is not None:
        wrong = {place for place, part in case.meta.components.items() if part.mode.is_negative}
        if wrong == {ParameterLocation.HEADER}:
            return True
    return negative_data_rejection(ctx, response, case)


CONFORMS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CHECKS = [
    *CONFORMS,
    valid_requests_are_accepted,
    invalid_requests_are_refused,
    unsupported_method,
    allow_header_conformance,
]


@pytest.fixture(scope="module", autouse=True)
def leaves_nothing_behind(stack_url: str) -> Iterator[None]:
    """Other tests share the stack: what these registered, made and trusted is removed again."""
    with httpx.Client(base_url=stack_url, auth=CREDENTIALS, timeout=30) as client:
        before, access_before = set(ids(client)), set(access(client))
        yield
        for id_ in set(ids(client)) - before:
            client.delete(f"/api/registry/servers/{id_}").raise_for_status()
        for place in [place for place in access(client) if place not in access_before]:
            client.delete(place).raise_for_status()


def access(client: httpx.Client) -> Iterator[str]:
    """The path of every trusted issuer, token and team, in the order in which they can be removed."""
    for issuer in client.get("/api/registry/issuers").raise_for_status().json()["issuers"]:
        yield f"/api/registry/issuers/{issuer['id']}"
    for token in client.get("/api/registry/tokens", params={"limit": 1000}).raise_for_status().json()["tokens"]:
        if token["revoked_at"] is None:
            yield f"/api/registry/tokens/{token['id']}"
    for team in client.get("/api/registry/teams").raise_for_status().json()["teams"]:
        yield f"/api/registry/teams/{team['name']}"


def ids(client: httpx.Client) -> Iterator[int]:
    """The id of every server."""
    query: dict[str, Any] | None = {"limit": 1000}
    while query:
        page = client.get("/api/registry/servers", params=query).raise_for_status().json()
        yield from (server["id"] for server in page["servers"])
        query = {"limit": 1000, "cursor": page["next_cursor"]} if page["next_cursor"] else None


@contextmanager
def server_with_checks(url: str, database_url: str) -> Generator[int]:
    """The id of a server of which checks are known, good ones and others."""
    body = {"name": "contract/checked", "display_name": "Checked", "server_type": "mock"}
    checks = Checks(database_url)
    with httpx.Client(base_url=url, auth=CREDENTIALS, timeout=30) as client:
        answer = client.post("/api/registry/register", json=body | {"endpoint_url": "http://127.0.0.1:8080"})
        id_ = answer.raise_for_status().json()["id"]
        try:
            for verdict in (*UP, *DOWN):
                checks.write(id_, verdict)
            yield id_
        finally:
            client.delete(f"/api/registry/servers/{id_}").raise_for_status()
            checks.forget()


@pytest.fixture(scope="module")
def checked(stack_url: str, stack_database_url: str) -> Iterator[int]:
    with server_with_checks(stack_url, stack_database_url) as id_:
        yield id_


def prepare(case: Case, checked: int) -> None:
    """Give a valid request what no generator can guess: a server that is there, and no cursor but of the registry."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    # The registry alone issues cursors: a generated one ends in a refusal and hides the other parameters.
    case.query.pop("cursor", None)
    # Odd ids, as that of the example, and odd names become the one that is there; the others are of nobody. It is not
    # to be deleted.
    wanted = str(case.path_parameters.get("id", ""))
    if case.method in ("GET", "PATCH") and wanted and ord(wanted[-1]) % 2:
        case.path_parameters["id"] = checked
    elif case.method == "DELETE" and wanted == str(checked):
        case.path_parameters["id"] = 2**62


@api.exclude(path=JOB).parametrize()  # no generated secret is right
def test_every_answer_is_one_of_the_document(case: Case, stack_url: str, checked: int):
    prepare(case, checked)
    case.call_and_validate(base_url=stack_url, auth=CREDENTIALS, checks=CHECKS)


@api.include(operation_id="replaceServer").parametrize()
def test_a_digest_without_a_body_is_answered_as_documented(case: Case, stack_url: str):
    if case.method != "PUT":
        return  # other methods on this path are the affair of the test above
    case.body = NOT_SET
    case.media_type = None
    response = case.call_and_validate(base_url=stack_url, auth=CREDENTIALS, checks=CONFORMS)
    assert response.status_code in (204, 400, 428)


def test_the_example_of_a_digest_is_that_of_the_example_of_a_registration():
    operation = DOCUMENT["paths"]["/api/registry/register"]["put"]
    registration = operation["requestBody"]["content"]["application/json"]["example"]
    (digest,) = (each for each in operation["parameters"] if each["name"] == "X-Registration-Digest")
    assert digest["example"] == sha256(rfc8785.dumps(registration)).hexdigest()


@api.exclude(path=[*OPEN, JOB]).parametrize()
@hypothesis.settings(max_examples=5)
def test_nothing_but_the_front_and_the_health_of_the_registry_is_answered_without_credentials(
    case: Case, stack_url: str
):
    response = case.call_and_validate(base_url=stack_url, checks=CONFORMS)
    assert response.status_code == 401


@api.include(path=JOB).parametrize()
@hypothesis.settings(max_examples=20)
def test_the_job_is_for_who_knows_the_cron_secret(case: Case, stack_url: str):
    response = case.call_and_validate(base_url=stack_url, checks=CONFORMS)
    assert response.status_code == (401 if case.method == "POST" else 405)


@api.include(path=OPEN).parametrize()
@hypothesis.settings(max_examples=5)
def test_the_front_and_the_health_of_the_registry_are_answered_without_credentials(case: Case, stack_url: str):
    case.call_and_validate(base_url=stack_url, checks=CHECKS)


def test_every_link_leads_from_an_answer_to_another(stack_url: str):
    """Not generated: what a registration answers hangs on those before it, which Hypothesis takes for flakiness."""
    register, servers, server = "/api/registry/register", "/api/registry/servers", "/api/registry/servers/{id}"
    body = {"display_name": "Linked", "server_type": "mock", "endpoint_url": "http://127.0.0.1:8080"}
    with httpx.Client(base_url=stack_url, auth=CREDENTIALS, timeout=30) as client:
        first = client.post(register, json=body | {"name": "contract/linked-1"})
        path = {"id": first.json()["id"]}
        sources = {
            (register, "post", "201"): first,
            (register, "put", "201"): client.put(register, json=body | {"name": "contract/linked-2"}),
            (register, "put", "200"): client.put(register, json=body | {"name": "contract/linked-1"}),
            (servers, "get", "200"): client.get(servers, params={"search": "contract/linked", "limit": 1}),
            (server, "get", "200"): client.get(server.format(**path)),
            (server, "patch", "200"): client.patch(server.format(**path), json={"status": "inactive"}),
        }
        for (source, method, status), answer in sources.items():
            assert str(answer.status_code) == status
            for link in DOCUMENT["paths"][source][method]["responses"][status]["links"].values():
                values = {name: linked(text, answer.json(), path) for name, text in link["parameters"].items()}
                if link["operationId"] == "deleteServer":
                    assert values == {"id": answer.json()["id"]}  # it would end the walk
                elif link["operationId"] == "changeServer":
                    assert client.patch(server.format(**values), json={"status": "active"}).is_success
                elif link["operationId"] == "getServer":
                    assert client.get(server.format(**values)).json()["id"] == values["id"]
                else:
                    (following,) = client.get(servers, params=values | {"limit": 1}).json()["servers"]
                    assert following["name"] == "contract/linked-2"


def linked(expression: str, body: Any, path: dict[str, int]) -> Any:
    """The value of one of OpenAPI's runtime expressions, of the two kinds that the document uses."""
    if expression.startswith("$request.path."):
        return path[expression.removeprefix("$request.path.")]
    for key in expression.removeprefix("$response.body#/").split("/"):
        body = body[int(key) if isinstance(body, list) else key]
    return body
