"""Who calls, as far as the database knows it, and for how long the authorizer goes on with what it was told."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from local.gateway import Gateway, HttpRequest, HttpResponse
from mcp_registry.access import admission, identity, limits, tokens
from mcp_registry.aws import db, invoke
from tests.api.test_callers import INSERT
from tests.conftest import BASIC, PATIENCE, SERVERS, InProcess

ISSUER = "https://issuer.example.com"


def keep(connection: psycopg.Connection[Any], **changes: Any) -> tokens.Token:
    """A token that the database knows."""
    token = tokens.make()
    row = {"id": token.id, "digest": tokens.digest(token.text), "role": "publisher", "seconds": 3600, "revoked": False}
    connection.execute(INSERT, row | changes)
    return token


def question(token: tokens.Token, **changes: str) -> dict[str, Any]:
    return {"token": {"id": token.id, "digest": tokens.digest(token.text).hex()} | changes}


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """A busy machine may take longer than a second to note something."""
    monkeypatch.setattr(identity, "NOTE_SECONDS", PATIENCE)


def bearer(text: str, scheme: str = "Bearer") -> str:
    return f"{scheme} {text}"


# ------------------------------------------------------------------ what the database knows


def test_a_token_is_known_by_its_id_and_its_digest(database):
    token, other = keep(database._connection), keep(database._connection, role="admin")
    caller = {"name": f"token:{token.id}", "role": "publisher", "team": "default"}
    assert identity.answer(database, question(token)) == {"caller": caller}
    assert identity.answer(database, question(token, digest=question(other)["token"]["digest"])) == {"caller": None}
    assert identity.answer(database, question(tokens.make())) == {"caller": None}


@pytest.mark.parametrize("change", [{"seconds": 0}, {"seconds": -1}, {"revoked": True}])
def test_a_token_that_is_over_is_nobodys(database, change):
    assert identity.answer(database, question(keep(database._connection, **change))) == {"caller": None}


USED = "SELECT last_used_at = now(), last_used_at < now() FROM registry.tokens WHERE id = %s"


@pytest.mark.parametrize(("minutes", "noted"), [(None, True), (5.1, True), (4.9, False)])
def test_the_use_of_a_token_is_noted_once_in_five_minutes(database, minutes, noted):
    connection = database._connection
    token = keep(connection)
    if minutes is not None:
        connection.execute(
            "UPDATE registry.tokens SET last_used_at = now() - make_interval(secs => %s) WHERE id = %s",
            [minutes * 60, token.id],
        )
    assert identity.answer(database, question(token))["caller"] is not None
    assert connection.execute(USED, [token.id]).fetchone() == (noted, not noted)


def test_a_token_is_known_where_nothing_can_be_written(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        token = keep(connection)
    database = db.Database(database_url)
    # As a connection to what was the primary before a fail-over.
    database.begin(PATIENCE).read("SELECT set_config('default_transaction_read_only', 'on', false)")
    assert identity.answer(database, question(token))["caller"] is not None
    database.close()


def test_nobody_waits_for_who_has_the_row_of_a_token(database_url):
    with psycopg.connect(database_url, autocommit=True) as other:
        token = keep(other)
        database = db.Database(database_url, "role", "registry_porter")
        with other.transaction():
            other.execute("UPDATE registry.tokens SET revoked_at = now() WHERE id = %s", [token.id])
            # Not revoked before that is committed, and no lock is waited for, which would end after two seconds.
            assert identity.answer(database.begin(PATIENCE), question(token))["caller"] is not None
            assert database.write(identity.NOTE, {"token": token.id}) is None
        assert other.execute(USED, [token.id]).fetchone() == (None, None)
        assert identity.answer(database.begin(PATIENCE), question(token)) == {"caller": None}
        database.close()


def test_who_may_not_come_in_has_used_nothing(database):
    connection = database._connection
    token = keep(connection, revoked=True)
    identity.answer(database, question(token))
    assert connection.execute(USED, [token.id]).fetchone() == (None, None)


def test_an_issuers_rules_are_all_of_this_issuer_and_no_others(database):
    connection = database._connection
    for id_, issuer in (("b", ISSUER), ("a", ISSUER), ("c", f"{ISSUER}/"), ("d", ISSUER.upper())):
        connection.execute(
            "INSERT INTO registry.issuers (id, issuer, audience, claims, team, role)"
            " VALUES (%s, %s, 'me', '{\"sub\": \"x\"}', 'default', 'reader')",
            [id_, issuer],
        )
    rule = {"audience": "me", "claims": {"sub": "x"}, "role": "reader", "team": "default"}
    assert identity.answer(database, {"issuer": ISSUER}) == {"rules": [{"id": "a", **rule}, {"id": "b", **rule}]}


@pytest.mark.parametrize("issuer", ["", "https://other.example", "a\0b", "\ud800", "x" * 501, "a\nb"])
def test_of_an_issuer_that_nobody_trusts_there_are_no_rules(database, issuer):
    assert identity.answer(database, {"issuer": issuer}) == {"rules": []}


@pytest.mark.parametrize(
    "asked",
    [
        *(None, {}, [], "x", {"issuer": 1}, {"token": {}}, {"token": {"id": 1, "digest": "0" * 64}}),
        *({"token": {"id": "a", "digest": digest}} for digest in ("", "0" * 63, "0" * 65, "g" * 64, "\u0660" * 64)),
        *({"token": {"id": id_, "digest": "0" * 64}} for id_ in ("", "a\0", "\ud800", "a b", "\xe4")),
    ],
)
def test_what_is_no_question_is_refused_without_the_database(asked):
    with pytest.raises(ValueError, match="not a question"):
        identity.answer(db.Database("postgresql://nowhere.invalid/x"), asked)


# ------------------------------------------------------------------ through the gateway, by a clock that is played


class Played:
    """The stack in process behind one gateway that remembers, at a time of the test's own."""

    def __init__(self, in_process: InProcess) -> None:
        self.now = 1_000_000.0
        self.asked = 0
        self._in_process = in_process
        self._gateway = Gateway(in_process.stack.api, self._invoke, clock=lambda: self.now)

    async def _invoke(self, function: str, event: dict[str, Any], /) -> object:
        return await self._in_process.invoke(function, event)

    def ask(self, authorization: str, address: str = "192.0.2.1") -> HttpResponse:
        headers = (("authorization", authorization),)
        request = HttpRequest("GET", SERVERS, headers=headers, source_ip=address)
        return asyncio.run(self._gateway.handle(request))

    def status(self, authorization: str, address: str = "192.0.2.1") -> int:
        return self.ask(authorization, address).status


@pytest.fixture
def played(in_process, monkeypatch) -> Iterator[Played]:
    admission.forget()
    stack = Played(in_process)
    monkeypatch.setattr(admission, "time", SimpleNamespace(time=lambda: stack.now))
    asked = invoke.ask

    def counted(*given: Any) -> Any:
        stack.asked += 1
        return asked(*given)

    monkeypatch.setattr(invoke, "ask", counted)
    yield stack
    admission.forget()


@pytest.fixture
def make(database_url) -> Iterator[Callable[..., tokens.Token]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield lambda **changes: keep(connection, **changes)


def revoke(database_url: str, token: tokens.Token) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE registry.tokens SET revoked_at = now() WHERE id = %s", [token.id])


def test_a_revoked_token_ends_within_a_minute(played, make, database_url):
    """At worst: the authorizer was told just before, and asked by the gateway just before it would ask again."""
    token = make()
    assert played.status(bearer(token.text)) == 200
    revoke(database_url, token)
    # Another spelling of the scheme is another header, for which the gateway has remembered nothing.
    played.now += 24.9
    assert played.status(bearer(token.text, "bearer")) == 200
    played.now += 29.9
    assert played.status(bearer(token.text, "bearer")) == 200
    played.now += 0.2  # 55 s
    assert played.status(bearer(token.text, "bearer")) == 401
    assert played.status(bearer(token.text)) == 401


def test_the_database_is_asked_once_in_a_while_however_many_calls_there_are(played, make):
    token = make()
    for _ in range(20):
        assert played.status(bearer(token.text)) == 200
        played.now += 2.0
    # At 0 s and 30 s, when the gateway asks again.
    assert played.asked == 2


def test_a_clock_that_was_set_back_makes_no_answer_last_longer(played, make, database_url):
    token = make()
    assert played.status(bearer(token.text)) == 200
    revoke(database_url, token)
    played.now -= 120.0
    assert played.status(bearer(token.text, "bearer")) == 401


def test_what_the_authorizer_was_told_is_bounded(played, make, monkeypatch):
    monkeypatch.setattr(admission, "MAX_ANSWERS", 2)
    for _ in range(4):
        played.status(bearer(make().text))
    assert len(admission._answers) == 2


def test_with_the_database_away_the_administrator_goes_on_and_a_token_is_an_error_that_is_not_remembered(
    played, make, monkeypatch, database_url
):
    known, token = make(), make()
    assert played.status(bearer(known.text)) == 200
    gone = db.Database("postgresql://127.0.0.1:1/x?connect_timeout=2")
    with monkeypatch.context() as away:
        away.setattr(db, "_database", gone)
        answer = played.ask(bearer(token.text))
        assert (answer.status, answer.body) == (500, b'{"error":"Server configuration error","code":"INTERNAL_ERROR"}')
        # Admitted; the list itself has no database.
        assert played.status(BASIC) == 503
        assert played.status(bearer(known.text)) == 503
    assert played.status(bearer(token.text)) == 200


def test_a_token_that_has_no_checksum_of_its_own_asks_nobody(played):
    text = tokens.make().text
    assert played.status(bearer(text[:-1] + ("a" if text[-1] != "a" else "b"))) == 401
    assert played.asked == 0


# ------------------------------------------------------------------ wrong credentials


def guess(number: int) -> str:
    return "Basic " + b64encode(f"admin:wrong {number}".encode()).decode()


def test_who_guesses_is_not_listened_to_and_locks_nobody_out(played, make):
    token = make()
    assert played.status(BASIC) == 200
    assert [played.status(guess(number), "198.51.100.7") for number in range(25)] == [401] * 25
    assert len(limits._wrong[b"198.51.100.7"]) == limits.WRONG_A_MINUTE
    played.now += 31.0  # the gateway asks again for all
    # The owner of the name, from there and from elsewhere.
    assert played.status(BASIC, "198.51.100.7") == 200
    assert played.status(BASIC) == 200
    # And who has a token, which nobody guesses, though this environment has not seen it yet.
    assert played.status(bearer(token.text), "198.51.100.7") == 200
    assert played.status(bearer(token.text)) == 200
    assert played.status(bearer(make().text), "198.51.100.7") == 200


def test_a_refusal_of_what_was_not_looked_at_says_what_all_refusals_say(played):
    answers = [played.ask(guess(number)) for number in range(22)]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    told = {tuple(pair for pair in answer.headers if pair[0] != "x-amzn-RequestId") for answer in answers}
    assert len(told) == 1
