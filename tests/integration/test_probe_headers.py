"""Headers that are given for gated servers: who may give them, what is kept where, and what fails in between."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from local import template
from local.gateway import FunctionError
from local.queues import CREDENTIALS
from local.runtime import Invocations
from mcp_registry.aws import db, invoke, secret
from mcp_registry.caller import Caller
from mcp_registry.catalogue import servers
from mcp_registry.catalogue.registration import parse
from mcp_registry.health import headers, invitations, marks
from mcp_registry.health.headers import Given
from tests.conftest import ADMIN, PATIENCE, ROOT, load_module, load_stack
from tests.conftest import registration as document

ROUTE = "/api/registry/servers/{id}/probe-headers"
SECRET = "Bearer canary-1c8b33f0a94e"
SENT = {"headers": {"Authorization": SECRET, "X-Tenant": "payments"}}
PAYMENTS = Caller("token:payments", "publisher", "payments")
SEARCH = Caller("token:search", "publisher", "search")
URL = "http://localhost:8080/mcp"


class Registry:
    """The two functions as the template wires them, with moto's Secrets Manager and a database that forgets."""

    def __init__(self, database: db.Database) -> None:
        self.database = database
        self.app = load_module(ROOT / "functions" / "probe_headers" / "app.py", "app_probe_headers")
        self.secrets = boto3.client("secretsmanager")
        self.questions: list[dict[str, Any]] = []
        self.fails_at = ""
        self._ids: list[int] = []
        # What others wrote down before stays.
        ((self._entries_before,),) = self.rows("SELECT COALESCE(max(id), 0) FROM registry.audit")
        self._mark: Callable[..., object] = load_module(ROOT / "functions/mark/app.py", "app_mark").lambda_handler

    async def ask(self, _: str, question: dict[str, Any]) -> object:
        """Answer a question as MarkFunction; it fails at those of one kind."""
        self.questions.append(question)
        if self.fails_at and self.fails_at in question:
            raise FunctionError("OSError", "of a test")
        return await asyncio.to_thread(self._mark, question, None)

    def __call__(
        self, method: str, body: object = None, *, server: str | int = "one", caller: Caller = ADMIN
    ) -> tuple[int, Any]:
        """The status and the value of an answer."""
        told = {"principalId": caller.name, "role": caller.role, "team": caller.team}
        event = {
            "httpMethod": method,
            "resource": ROUTE,
            "headers": {"content-type": "application/json"} if body is not None else {},
            "pathParameters": {"id": str(server)},
            "requestContext": {"requestId": "1", "authorizer": told, "identity": {"sourceIp": "192.0.2.1"}},
            "body": b64encode(json.dumps(body).encode()).decode() if body is not None else None,
            "isBase64Encoded": body is not None,
        }
        answer = self.app.lambda_handler(event, None)
        return answer["statusCode"], json.loads(answer["body"]) if answer["body"] else None

    def clear(self) -> object:
        """What the schedule has done."""
        return self.app.lambda_handler({"source": "aws.events"}, None)

    def register(self, name: str, caller: Caller = ADMIN, **fields: Any) -> int:
        id_ = servers.register(self.database, caller, parse(document(name, endpoint_url=URL, **fields)))["id"]
        self._ids.append(id_)
        return id_

    def kept(self) -> dict[str, Any]:
        """What the secrets of these servers hold, by their names."""
        pages = self.secrets.get_paginator("list_secrets").paginate()
        names = [one.get("Name", "") for page in pages for one in page["SecretList"]]
        mine = [name for name in names if name.startswith(tuple(headers.name(id_, "") for id_ in self._ids))]
        return {name: json.loads(self.secrets.get_secret_value(SecretId=name)["SecretString"]) for name in mine}

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        connection = self.database._connection
        assert connection is not None
        return connection.execute(statement.encode()).fetchall()

    def audited(self) -> list[tuple[Any, ...]]:
        """Who wrote down what about headers."""
        return self.rows(
            "SELECT actor, target, before, after FROM registry.audit"
            f" WHERE action = 'server.probe_headers' AND id > {self._entries_before} ORDER BY id"
        )

    def due(self) -> dict[int, str | None]:
        """Which servers are to be introduced now, and with which secret."""
        due = invitations.claim(self.database, 1000, 60)
        return {visit.server_id: visit.headers for visit in due.endpoints}

    def visits(self) -> dict[int, str | None]:
        """With which secret each server is introduced when it is due."""
        self.rows("UPDATE registry.endpoints SET introduce_at = now() RETURNING 1")
        return self.due()


@pytest.fixture
def registry(
    database: db.Database, database_url: str, queue_service: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registry]:
    environment = load_stack(database_url).functions["ProbeHeadersFunction"].environment
    endpoints = {"AWS_ENDPOINT_URL": queue_service, "AWS_DEFAULT_REGION": template.REGION}
    for name, value in ({**environment, **endpoints, **CREDENTIALS}).items():
        monkeypatch.setenv(name, value)
    # What others keep for a server of the same number is no concern of these.
    monkeypatch.setenv("PROBE_HEADERS", f"{uuid4()}/probe-headers/")
    monkeypatch.setattr(secret, "_client", None)
    monkeypatch.setattr(headers, "_kept", {})
    monkeypatch.setattr(db, "_database", database)
    monkeypatch.setattr(invoke, "ANSWER_SECONDS", PATIENCE)
    # No database that others use is asked by what is tested here.
    database._connection.execute("DELETE FROM registry.mcp_servers")  # pyright: ignore[reportOptionalMemberAccess]
    for team in ("payments", "search"):
        database.write("INSERT INTO registry.teams (name) VALUES (%(team)s) RETURNING name", {"team": team})
    found = Registry(database)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    api = Invocations(found.ask, ["MarkFunction"], lambda *_: True)
    url = asyncio.run_coroutine_threadsafe(api.open(), loop).result(PATIENCE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
    yield found
    loop.call_soon_threadsafe(api.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


# ------------------------------------------------------------------ giving and withdrawing


def test_headers_are_in_a_secret_of_their_own_with_the_origin_that_they_are_for_and_their_names_in_the_audit(registry):
    id_ = registry.register("one")
    registry.visits()
    assert registry.due() == {}
    assert registry("PUT", SENT) == (204, None)
    ((name, held),) = registry.kept().items()
    assert held == {"origin": "http://localhost:8080", "headers": SENT["headers"]}
    assert name.startswith(headers.name(id_, ""))
    told = {"headers": ["Authorization", "X-Tenant"], "origin": "http://localhost:8080"}
    assert registry.audited() == [("admin", "server:one", None, told)]
    # And the server is introduced by them at once.
    assert registry.due() == {id_: name.rpartition("/")[2]}
    assert headers.read(id_, name.rpartition("/")[2]) == Given("http://localhost:8080", SENT["headers"])


def test_their_values_are_told_to_nobody_but_secrets_manager(registry, caplog):
    registry.register("one")
    registry("PUT", SENT)
    registry("DELETE")
    written = json.dumps(
        [registry.questions, registry.audited(), registry.rows("SELECT * FROM registry.probe_headers")]
    )
    logged = json.dumps([vars(record) for record in caplog.records], default=repr)
    assert "canary" not in written + logged
    assert "Authorization" in written and "probe-headers" in logged


def test_other_headers_take_the_place_of_those_that_there_are_and_withdrawn_they_are_gone(registry):
    id_ = registry.register("one")
    registry("PUT", SENT)
    (first,) = registry.kept()
    assert registry("PUT", {"headers": {"X-Key": "another"}})[0] == 204
    (second,) = registry.kept()
    assert first != second and registry.visits() == {id_: second.rpartition("/")[2]}
    assert registry("DELETE", server=id_) == (204, None)
    assert (registry.kept(), registry.rows("SELECT * FROM registry.probe_headers")) == ({}, [])
    assert registry.visits() == {id_: None}
    # That there are none is well, and nothing to write down.
    assert registry("DELETE") == (204, None)
    assert [
        (before and before["headers"], after and after["headers"]) for _, _, before, after in registry.audited()
    ] == [
        (None, ["Authorization", "X-Tenant"]),
        (["Authorization", "X-Tenant"], ["X-Key"]),
        (["X-Key"], None),
    ]


def test_only_the_team_that_owns_a_server_and_administrators_may(registry):
    registry.register("one", PAYMENTS)
    assert registry("PUT", SENT, caller=SEARCH)[1]["code"] == "FORBIDDEN"
    assert registry("DELETE", caller=SEARCH)[0] == 403
    assert registry("PUT", SENT, caller=PAYMENTS._replace(role="reader"))[0] == 403
    assert registry("PUT", SENT, server="nobody")[1]["code"] == "SERVER_NOT_FOUND"
    assert registry("PUT", SENT, server=2**62)[0] == registry("DELETE", server=2**62)[0] == 404
    assert (registry.kept(), registry.audited()) == ({}, [])
    assert registry("PUT", SENT, caller=PAYMENTS)[0] == registry("PUT", SENT)[0] == 204


def test_what_a_team_gave_is_of_no_use_to_the_next_one_nor_to_the_same_when_the_server_comes_back(registry):
    id_ = registry.register("one", PAYMENTS)
    registry("PUT", SENT, caller=PAYMENTS)
    servers.transfer(registry.database, ADMIN, id_, "search")
    assert registry.visits() == {id_: None}
    servers.transfer(registry.database, ADMIN, id_, "payments")
    assert registry.visits() == {id_: None}
    assert len(registry.kept()) == 1
    assert registry.clear() == {"deleted": 1}
    assert registry.kept() == {}


def test_the_headers_of_a_server_that_has_gone_are_deleted_by_the_schedule(registry):
    id_ = registry.register("one")
    registry("PUT", SENT)
    registry.register("two")
    registry("PUT", SENT, server="two")
    servers.delete(registry.database, ADMIN, id_)
    assert len(registry.kept()) == 2
    assert registry.clear() == {"deleted": 1}
    (left,) = registry.kept()
    assert f"/{id_}/" not in left
    # Another server of the name is another server.
    again = registry.register("one")
    assert registry.visits()[again] is None


# ------------------------------------------------------------------ what fails in between


@pytest.mark.parametrize("question", ["begin", "give"])
def test_where_the_database_does_not_answer_it_is_503_and_what_was_given_before_goes_on(registry, question):
    id_ = registry.register("one")
    registry("PUT", SENT)
    (before,) = registry.kept()
    registry.fails_at = question
    assert registry("PUT", {"headers": {"X-Key": "another"}})[1]["code"] == "UNAVAILABLE"
    assert registry.visits() == {id_: before.rpartition("/")[2]}
    registry.fails_at = ""
    assert registry("PUT", {"headers": {"X-Key": "another"}})[0] == 204
    assert {"X-Key": "another"} in [held["headers"] for held in registry.kept().values()]


def test_a_secret_that_nobody_came_to_mark_is_deleted_by_the_schedule_an_hour_later(registry):
    registry.register("one")
    registry.fails_at = "give"
    assert registry("PUT", SENT)[0] == 503
    assert registry.clear() == {"deleted": 0} and len(registry.kept()) == 1
    registry.rows("UPDATE registry.probe_headers SET begun_at = begun_at - interval '1 hour 1 second' RETURNING 1")
    assert registry.clear() == {"deleted": 1} and registry.kept() == {}


class Closed:
    """Secrets Manager, which cannot be reached."""

    def create_secret(self, **_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://secretsmanager.invalid")

    delete_secret = create_secret


def test_where_secrets_manager_does_not_answer_nothing_is_marked_and_what_is_withdrawn_is_out_of_use(
    registry, monkeypatch
):
    id_ = registry.register("one")
    with monkeypatch.context() as patch:
        patch.setattr(secret, "_client", Closed())
        assert registry("PUT", SENT)[0] == 503
    assert (registry.visits(), registry.audited()) == ({id_: None}, [])
    registry("PUT", SENT)
    with monkeypatch.context() as patch:
        patch.setattr(secret, "_client", Closed())
        assert registry("DELETE")[0] == 503
    assert registry.visits() == {id_: None} and len(registry.kept()) == 1
    assert registry("DELETE")[0] == 204 and registry.kept() == {}
    assert len(registry.audited()) == 2


def test_headers_are_not_marked_for_an_address_to_which_they_were_not_given(registry):
    id_ = registry.register("one")
    question = {"server": "one", "secret": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "names": ["X-Key"]}
    who = ADMIN._asdict()
    marks.answer(registry.database, {"begin": question, "caller": who})
    given = {"id": id_, "secret": question["secret"], "origin": "http://localhost:9"}
    with pytest.raises(db.Unavailable):
        marks.answer(registry.database, {"give": {**given, "endpoint_url": "http://localhost:9/"}, "caller": who})
    assert registry.audited() == []
    for _ in range(2):  # a question may be asked twice
        assert marks.answer(registry.database, {"give": {**given, "endpoint_url": URL}, "caller": who}) == {}
    assert len(registry.audited()) == 1


def test_no_other_question_is_answered(registry):
    for question in ({}, {"over": "x"}, {"begin": {}}, None, {"forget": 1}):
        with pytest.raises(ValueError, match="not a question"):
            marks.answer(registry.database, question)
