"""PUT and DELETE /api/registry/servers/{id}/probe-headers."""

from __future__ import annotations

from tests.conftest import SERVERS

GIVEN = {"headers": {"Authorization": "Bearer of-the-servers-own"}}


def test_headers_are_given_once_more_and_withdrawn_by_id_and_by_name_and_never_told(api):
    created = api("POST", "/api/registry/register", api.registration()).json()
    place = f"{SERVERS}/{created['id']}/probe-headers"
    for answer in (api("PUT", place, GIVEN), api("PUT", f"{SERVERS}/{created['name']}/probe-headers", GIVEN)):
        assert (answer.status, answer.body) == (204, b"")
    told = (
        api("GET", f"{SERVERS}/{created['id']}").body
        + api("GET", f"/api/registry/audit?target=server:{created['name']}").body
    )
    assert b"of-the-servers-own" not in told and b'"Authorization"' in told
    assert api("DELETE", place).status == api("DELETE", place).status == 204
    assert api("GET", place).headers["allow"] == "DELETE, PUT"


def test_what_cannot_be_given_is_refused_and_so_is_a_server_that_is_not_there(api):
    created = api("POST", "/api/registry/register", api.registration()).json()
    place = f"{SERVERS}/{created['id']}/probe-headers"
    refused = api("PUT", place, {"headers": {"Host": "x"}})
    assert (refused.status, refused.json()["details"][0]["path"]) == (400, "headers.Host")
    assert api("PUT", place, b"{").status == 400
    assert api("PUT", f"{SERVERS}/0/probe-headers", GIVEN).status == 400
    assert api("PUT", f"{SERVERS}/{2**60}/probe-headers", GIVEN).json()["code"] == "SERVER_NOT_FOUND"
    assert api("DELETE", f"{SERVERS}/{api.new_name('x')}/probe-headers").status == 404
