"""POST and PUT /api/registry/register."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import rfc8785

from tests.conftest import Api

REGISTER = "/api/registry/register"
SERVERS = "/api/registry/servers"
EMPTY_DIGEST = {"x-registration-digest": "00" * 32}


def tool(name: str, **fields):
    return {"name": name, "description": "d", "input_schema": {"type": "object"}} | fields


def test_a_new_server_is_active_and_has_an_id(api):
    name = api.new_name()
    answer = api("POST", REGISTER, api.registration(name))
    assert answer.status == 201
    created = answer.json()
    assert created["id"] > 0
    assert (created["name"], created["status"]) == (name, "active")
    assert created["created_at"].endswith("Z")
    assert set(created) == {"id", "name", "status", "created_at"}


def test_a_name_can_be_registered_only_once(api):
    created = api.register()
    again = api("POST", REGISTER, api.registration(created["name"], version="2"))
    assert (again.status, again.json()) == (
        409,
        {
            "error": "Server with this name already exists",
            "code": "DUPLICATE_SERVER",
            "details": [{"path": "name", "message": f"Taken for the server {created['name']}", "type": "taken"}],
        },
    )
    assert api("GET", f"{SERVERS}/{created['id']}").json()["version"] is None


def test_put_creates_then_leaves_alone_then_updates(api):
    sent = api.registration(api.new_name(), metadata={"author": "Ann"}, tools=[tool("keep"), tool("drop")])
    created = api("PUT", REGISTER, sent)
    assert (created.status, created.json()["result"]) == (201, "created")
    before = api("GET", f"{SERVERS}/{created.json()['id']}").json()

    same = api("PUT", REGISTER, sent)
    assert same.status == 200
    assert api.unswept(same.json()) == api.unswept(created.json() | {"result": "unchanged"})
    assert api.unswept(api("GET", f"{SERVERS}/{created.json()['id']}").json()) == api.unswept(before)

    changed = sent | {"version": "2", "tools": [tool("new"), tool("keep", title="Kept")]}
    del changed["metadata"]
    updated = api("PUT", REGISTER, changed)
    assert updated.status == 200
    assert api.unswept(updated.json()) == api.unswept(created.json() | {"result": "updated"})
    after = api("GET", f"{SERVERS}/{created.json()['id']}").json()
    assert after["version"] == "2"
    assert after["metadata"] is None
    assert after["created_at"] == before["created_at"]
    assert after["updated_at"] > before["updated_at"]
    assert [(t["name"], t["title"]) for t in after["tools"]] == [("new", None), ("keep", "Kept")]
    kept = {t["name"]: t["id"] for t in before["tools"]}["keep"]
    assert {t["name"]: t["id"] for t in after["tools"]}["keep"] == kept
    listed = api("GET", f"{SERVERS}?search={sent['name']}").json()["servers"]
    assert [server["tools_count"] for server in listed] == [2]


def test_put_of_the_same_content_in_another_spelling_writes_nothing(api):
    sent = api.registration(api.new_name(), tools=[tool("a"), tool("b")])
    created = api("PUT", REGISTER, sent).json()
    before = api("GET", f"{SERVERS}/{created['id']}").json()
    other = sent | {
        "description": None,
        "tools": [{"name": n, "description": "d", "inputSchema": {"type": "object"}} for n in ("b", "a")],
    }
    assert api("PUT", REGISTER, other).json()["result"] == "unchanged"
    assert api.unswept(api("GET", f"{SERVERS}/{created['id']}").json()) == api.unswept(before)


def test_put_under_a_look_alike_name_is_refused(api):
    name = api.new_name("weather")
    api("PUT", REGISTER, api.registration(name))
    answer = api("PUT", REGISTER, api.registration(name.upper()))
    assert (answer.status, answer.json()["code"]) == (409, "DUPLICATE_SERVER")
    assert name in answer.json()["error"]


def test_put_leaves_an_operators_inactive_alone(api):
    sent = api.registration(api.new_name())
    created = api("PUT", REGISTER, sent).json()
    assert api("PATCH", f"{SERVERS}/{created['id']}", {"status": "inactive"}).status == 200
    assert api("PUT", REGISTER, sent).json()["status"] == "inactive"
    assert api("PUT", REGISTER, sent | {"version": "2"}).json()["status"] == "inactive"


def test_a_digest_alone_is_enough_where_the_registration_is_known(api):
    sent = api.registration(api.new_name(), metadata={"tags": ["é", "😀"]}, description=None)
    digest = {"x-registration-digest": hashlib.sha256(rfc8785.dumps(sent)).hexdigest()}
    unknown = api("PUT", REGISTER, headers=digest)
    assert (unknown.status, unknown.json()["code"]) == (428, "REGISTRATION_REQUIRED")
    assert api("PUT", REGISTER, sent, headers=digest).status == 201
    known = api("PUT", REGISTER, headers=digest)
    assert (known.status, known.body) == (204, b"")
    assert api("PUT", REGISTER, sent | {"version": "2"}).json()["result"] == "updated"
    assert api("PUT", REGISTER, headers=digest).status == 428


def test_a_digest_that_is_none_is_refused(api):
    answer = api("PUT", REGISTER, headers={"x-registration-digest": "abc"})
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")


def test_post_knows_no_digest(api):
    assert api("POST", REGISTER, headers=EMPTY_DIGEST).status == 400


def test_replicas_announce_their_endpoints_side_by_side_and_each_by_its_digest(api):
    sent = api.registration(api.new_name())
    other = sent | {"endpoint_url": f"{api.endpoint}/other"}
    lease = {"x-registration-lease": "600"}
    answers = [api("PUT", REGISTER, each, headers=lease) for each in (sent, other, sent, other)]
    assert [answer.json()["result"] for answer in answers] == ["created", "updated", "unchanged", "unchanged"]
    for each in (sent, other):
        digest = {"x-registration-digest": hashlib.sha256(rfc8785.dumps(each)).hexdigest()}
        assert api("PUT", REGISTER, headers=lease | digest).status == 204
        # That of a registration by hand, which would leave one of them.
        assert api("PUT", REGISTER, headers=digest).status == 428
    assert api("PUT", REGISTER, other).json()["result"] == "updated"
    assert api("GET", f"{SERVERS}/{answers[0].json()['id']}").json()["endpoint_url"] == other["endpoint_url"]
    assert api("PUT", REGISTER, other).json()["result"] == "unchanged"


@pytest.mark.parametrize("lease", ["", "59", "3601", "-600", "1e3", "600s"])
def test_a_lease_that_is_none_is_refused(api, lease):
    headers = {"x-registration-lease": lease}
    for answer in (
        api("PUT", REGISTER, api.registration(), headers=headers),
        api("PUT", REGISTER, headers=headers | EMPTY_DIGEST),
    ):
        assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")
        assert "from 60 to 3600" in answer.json()["error"]


def test_every_fault_is_named_with_its_path(api):
    answer = api("POST", REGISTER, {"name": "a b", "tools": [{"name": "t"}], "colour": "red"})
    assert answer.status == 400
    error = answer.json()
    assert error["code"] == "VALIDATION_ERROR"
    found = {detail["path"] for detail in error["details"]}
    assert found == {"colour", "display_name", "server_type", "endpoint_url", "tools.0.input_schema"}
    assert all(set(detail) == {"path", "message", "type"} for detail in error["details"])


def test_a_body_full_of_faults_is_refused_in_a_body_of_bearable_size(api):
    answer = api("POST", REGISTER, {f"field-{n}": 1 for n in range(50_000)})
    assert answer.status == 400
    assert len(answer.json()["details"]) == 100
    assert len(answer.body) < 50_000


def crowd(api: Api, size: int) -> int:
    """So many at once, or a tenth of it where others want to be served as well."""
    if api.in_process:
        pytest.skip("one execution environment serves one request at a time: on a stack only")
    return size // 10 if api.shared else size


def send_all(api: Api, bodies, method: str):
    with ThreadPoolExecutor(crowd(api, 50)) as pool:
        return list(pool.map(lambda body: api(method, REGISTER, body), bodies))


def test_200_concurrent_registrations_of_one_name_end_in_one_server(api):
    size = crowd(api, 200)
    sent = api.registration(api.new_name(), tools=[tool(f"t{i}") for i in range(5)])
    answers = send_all(api, [sent] * size, "POST")
    assert sorted(answer.status for answer in answers) == [201] + [409] * (size - 1)
    listed = api("GET", f"{SERVERS}?search={sent['name']}").json()
    assert listed["total"] == 1
    assert len(api("GET", f"{SERVERS}/{listed['servers'][0]['id']}").json()["tools"]) == 5


def test_200_concurrent_equal_puts_end_in_one_server_and_no_error(api):
    size = crowd(api, 200)
    sent = api.registration(api.new_name())
    answers = send_all(api, [sent] * size, "PUT")
    results = [answer.json()["result"] for answer in answers]
    assert {answer.status for answer in answers} == {200, 201}
    assert (results.count("created"), results.count("unchanged")) == (1, size - 1)


def test_concurrent_different_puts_end_as_one_of_them_and_not_as_a_mixture(api):
    size = crowd(api, 100)
    name = api.new_name()
    bodies = [
        api.registration(
            name, version=str(n), metadata={"author": str(n)}, tools=[tool(f"t{n}-{i}") for i in range(n % 7)]
        )
        for n in range(size)
    ]
    answers = send_all(api, bodies, "PUT")
    assert {answer.status for answer in answers} <= {200, 201}
    detail = api("GET", f"{SERVERS}/{answers[0].json()['id']}").json()
    winner = bodies[int(detail["version"])]
    assert detail["metadata"]["author"] == winner["version"]
    assert [t["name"] for t in detail["tools"]] == [t["name"] for t in winner["tools"]]
    listed = api("GET", f"{SERVERS}?search={name}").json()["servers"]
    assert listed[0]["tools_count"] == len(winner["tools"])


def test_200_servers_register_at_once(api):
    size = crowd(api, 200)
    answers = send_all(api, [api.registration(api.new_name("crowd")) for _ in range(size)], "POST")
    assert [answer.status for answer in answers] == [201] * size
