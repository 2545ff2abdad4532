"""The ledger as a client sees it: the feed, what a server offers, and a look now."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from mcp_registry.access import tokens
from tests.conftest import SERVERS, Api, nowhere_else
from tests.offers import offer

CHANGES = "/api/registry/changes"
TOOL = {"name": "convert", "inputSchema": {"type": "object"}, "_meta": {"a": "\u200b"}}


@pytest.fixture
def connection(api: Api, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """The database of the stack."""
    nowhere_else(request.config)
    assert api.database_url is not None
    with psycopg.connect(api.database_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def reader(connection: psycopg.Connection) -> str:
    """The header of a token with the role that may read."""
    token = tokens.make()
    connection.execute(
        "INSERT INTO registry.tokens (id, digest, name, team, role, created_by, expires_at)"
        " VALUES (%s, %s, 'of a test', 'default', 'reader', 'a test', now() + interval '1 hour')",
        [token.id, tokens.digest(token.text)],
    )
    return f"Bearer {token.text}"


def kinds(api: Api, path: str) -> list[str]:
    answer = api("GET", path)
    assert answer.status == 200, answer.body
    return [change["kind"] for change in answer.json()["changes"]]


def test_who_follows_the_feed_is_told_of_a_server_that_is_taken_out_and_goes(api):
    begun = api("GET", f"{CHANGES}?limit=1000").json()
    while begun["next_after"] is not None:
        begun = api("GET", f"{CHANGES}?limit=1000&after={begun['next_after']}").json()
    server = api.register()
    assert api("PATCH", f"{SERVERS}/{server['id']}", {"status": "inactive"}).status == 200
    assert "status" in kinds(api, f"{SERVERS}/{server['id']}/changes")
    assert "status" in kinds(api, f"{SERVERS}/{server['name']}/changes?after={begun['last']}")
    assert api("DELETE", f"{SERVERS}/{server['id']}").status == 204
    assert kinds(api, f"{CHANGES}?after={begun['last']}&kind=removed&server={server['name']}") == ["removed"]
    assert kinds(api, f"{SERVERS}/{server['id']}/changes")[-1] == "removed"
    gone = api("GET", f"{SERVERS}/{server['name']}/changes")
    assert (gone.status, gone.json()["code"]) == (404, "SERVER_NOT_FOUND")


def test_what_a_server_offers_is_told_by_id_and_by_name(api, connection):
    server = api.register()
    offer(connection, server["id"], {"tools": [TOOL], "prompts": [], "resources": None})
    for reference in (server["id"], server["name"]):
        told = api("GET", f"{SERVERS}/{reference}/tools?source=observed").json()
        assert (told["tools"], told["prompts"], told["resources"]) == ([TOOL], [], None)
        assert (told["server"], told["server_id"]) == (server["name"], server["id"])
    assert api("HEAD", f"{SERVERS}/{server['id']}/tools").status == 200
    observed = api("GET", f"{SERVERS}/{server['id']}").json()["observed"]
    assert (observed["state"], observed["snapshot"]) == ("observed", told["digest"])


def test_what_there_is_not_is_404_and_what_there_cannot_be_is_400(api):
    server = api.register()
    nothing = api("GET", f"{SERVERS}/{server['id']}/tools?source=observed&as_of=2001-01-01T00:00:00Z")
    assert (nothing.status, nothing.json()["code"]) == (404, "SNAPSHOT_NOT_FOUND")
    for path in ("tools", "changes"):
        assert api("GET", f"{SERVERS}/9223372036854775807/{path}").json()["code"] == "SERVER_NOT_FOUND"
        assert api("GET", f"{SERVERS}/0/{path}").status == 400
        refused = api("GET", f"{SERVERS}/{server['id']}/{path}?sinse=1")
        assert (refused.status, refused.json()["details"][0]["path"]) == (400, "sinse")
    assert api("GET", f"{CHANGES}?limit=0").status == 400
    assert api("GET", f"{CHANGES}?grade=text&grade=text").status == 400


def test_a_look_is_asked_for_and_not_of_what_is_out_of_service(api):
    server = api.register()
    look = f"{SERVERS}/{server['id']}/observations"
    answer = api("POST", look)
    assert (answer.status, answer.json()["server"]) == (202, server["name"])
    assert api("POST", f"{look}?wait=1").status == 400
    assert api("POST", f"{SERVERS}/9223372036854775807/observations").status == 404
    assert api("PATCH", f"{SERVERS}/{server['id']}", {"status": "inactive"}).status == 200
    refused = api("POST", look)
    assert (refused.status, refused.json()["code"]) == (409, "INACTIVE_SERVER")


def test_who_may_read_reads_and_may_not_send_somebody(api, connection, reader):
    server = api.register()
    offer(connection, server["id"], {"tools": [TOOL]})
    for path in (f"{SERVERS}/{server['id']}/tools", f"{SERVERS}/{server['id']}/changes", CHANGES):
        assert api("GET", path, auth=reader).status == 200
    assert api("POST", f"{SERVERS}/{server['id']}/observations", auth=reader).status == 403
