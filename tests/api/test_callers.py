"""Who is let in: the administrator, and who holds a token that is valid."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from mcp_registry.access import tokens
from tests.conftest import SERVERS, Api, nowhere_else

REFUSAL = {
    "error": "Valid credentials are required: send an Authorization header with the Basic or the Bearer scheme",
    "code": "UNAUTHORIZED",
}
INSERT = """
INSERT INTO registry.tokens (id, digest, name, team, role, created_by, expires_at, revoked_at)
VALUES (%(id)s, %(digest)s, 'of a test', 'default', %(role)s, 'a test',
        now() + make_interval(secs => %(seconds)s), CASE WHEN %(revoked)s THEN now() END)
"""


@pytest.fixture
def held(api: Api, request: pytest.FixtureRequest) -> Callable[..., tokens.Token]:
    """Makes a token that the registry's database knows."""
    nowhere_else(request.config)

    def make(role: str = "reader", seconds: float = 3600, *, revoked: bool = False) -> tokens.Token:
        token = tokens.make()
        assert api.database_url is not None
        with psycopg.connect(api.database_url, autocommit=True) as connection:
            row: dict[str, Any] = {"id": token.id, "digest": tokens.digest(token.text), "role": role}
            connection.execute(INSERT, row | {"seconds": seconds, "revoked": revoked})
        return token

    return make


def bearer(token: str) -> str:
    return f"Bearer {token}"


def basic(token: str) -> str:
    return "Basic " + b64encode(f"whoever:{token}".encode()).decode()


SENT = pytest.mark.parametrize("sent", [bearer, basic], ids=["bearer", "basic"])


@SENT
@pytest.mark.parametrize(("role", "status"), [("reader", 403), ("publisher", 201), ("curator", 201), ("admin", 201)])
def test_a_token_lets_its_holder_do_what_its_role_may(api, held, sent, role, status):
    token = held(role)
    assert api("GET", SERVERS, auth=sent(token.text)).status == 200
    answer = api("POST", "/api/registry/register", api.registration(), auth=sent(token.text))
    assert answer.status == status, answer.body
    if status == 403:
        assert answer.json() == {
            "error": f"This takes the role publisher, and token:{token.id} has the role reader",
            "code": "FORBIDDEN",
        }


@SENT
@pytest.mark.parametrize("change", [{"seconds": -1}, {"revoked": True}], ids=["expired", "revoked"])
def test_a_token_that_is_over_is_refused_as_wrong_credentials_are(api, held, sent, change):
    answer = api("GET", SERVERS, auth=sent(held(**change).text))
    assert (answer.status, answer.json()) == (401, REFUSAL)
    assert answer.headers["www-authenticate"] == 'Basic realm="MCP Registry", Bearer realm="MCP Registry"'


@SENT
@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: tokens.make().text,  # nobody has it
        lambda token: token.text[:-1] + ("x" if token.text[-1] != "x" else "y"),
        lambda token: token.text[:-1],
        lambda token: token.text.swapcase(),
        lambda token: tokens.PREFIX + "_" + token.id,
        lambda token: of_the_same_id(token),
    ],
    ids=["unknown", "checksum", "cut", "case", "id", "secret"],
)
def test_what_is_no_token_of_ours_is_refused(api, held, sent, spoil):
    answer = api("GET", SERVERS, auth=sent(spoil(held())))
    assert (answer.status, answer.json()) == (401, REFUSAL)


def of_the_same_id(token: tokens.Token) -> str:
    """A token that is well formed and has the id of this one, and another secret."""
    unchecked = f"{tokens.PREFIX}_{token.id}_{tokens.make().text.split('_')[2]}"
    return f"{unchecked}_{tokens._checksum(unchecked)}"


@SENT
@pytest.mark.parametrize("text", ["a.b.c", "eyJhbGciOiJub25lIn0.e30.", "..", "a.b", "x" * 9_000])
def test_what_nobody_has_signed_is_refused(api, sent, text):
    if len(sent(text)) < 9_000:
        answer = api("GET", SERVERS, auth=sent(text))
        assert (answer.status, answer.json()) == (401, REFUSAL)


def test_two_credentials_in_one_request_are_none(api, held):
    if not api.in_process:
        pytest.skip("no client of the standard library sends a header twice")
    token = held()
    given = [("authorization", bearer(token.text)), ("authorization", api.basic)]
    assert api.send("GET", SERVERS, given, b"").status == 401
