"""What every route has in common: credentials, unknown routes, methods, sizes, headers, /health."""

from __future__ import annotations

import json

import pytest

REGISTER = "/api/registry/register"
SERVERS = "/api/registry/servers"
# A server that is not there: were the door open, a DELETE of the first one would take a real one out of a catalogue.
NOBODY = f"{SERVERS}/9223372036854775807"
ROUTES = [
    ("POST", REGISTER),
    ("PUT", REGISTER),
    ("GET", SERVERS),
    ("GET", NOBODY),
    ("PATCH", NOBODY),
    ("DELETE", NOBODY),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("auth", [None, "Basic YWRtaW46d3Jvbmc=", "Bearer x"])
def test_without_valid_credentials_every_route_answers_401(api, method, path, auth):
    answer = api(method, path, auth=auth)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="MCP Registry", Bearer realm="MCP Registry"'
    assert answer.json()["code"] == "UNAUTHORIZED"


def test_health_needs_no_credentials(api):
    answer = api("GET", "/health", auth=None)
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "path", ["/api", "/api/registry", "/api/registry/servers/1/x", "/nothing", "/API/REGISTRY/SERVERS"]
)
def test_an_unknown_route_is_404(api, path):
    answer = api("GET", path)
    assert (answer.status, answer.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", REGISTER, "POST, PUT"),
        ("POST", SERVERS, "GET, HEAD"),
        ("PUT", NOBODY, "DELETE, GET, HEAD, PATCH"),
        ("OPTIONS", SERVERS, "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
def test_another_method_on_a_route_is_405_and_says_which_there_are(api, method, path, allow):
    answer = api(method, path)
    assert (answer.status, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize(
    "path", [SERVERS, NOBODY + "/health", "/", "/openapi.yaml", "/health", "/api/jobs/health-check"]
)
@pytest.mark.parametrize(
    "media_type",
    [
        *("application/json", "application/octet-stream", "application/x-www-form-urlencoded", "application/xml"),
        *("multipart/form-data; boundary=x", "text/html", "text/plain; charset=utf-8", "text/xml"),
    ],
)
def test_another_method_is_405_whatever_the_body_is_of(api, path, media_type):
    answer = api("PUT", path, b"name=x", headers={"content-type": media_type})
    assert (answer.status, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"]


def test_another_method_with_a_body_of_a_type_that_nobody_sends_is_415(api):
    answer = api("PUT", SERVERS, b"name=x", headers={"content-type": "image/png"})
    assert (answer.status, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 7 * 1024 * 1024, 11 * 1024 * 1024])
def test_a_body_over_one_mebibyte_is_413_whoever_refuses_it(api, size):
    answer = api("POST", REGISTER, b" " * size)
    assert (answer.status, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_a_body_that_is_not_json_by_its_type_is_415(api):
    answer = api("POST", REGISTER, b"name=x", headers={"content-type": "application/x-www-form-urlencoded"})
    assert (answer.status, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_a_browser_sends_of_a_page_of_another_site_registers_nothing(api, method):
    registration = api.registration()
    login, body = ("authorization", api.basic), json.dumps(registration).encode()
    # fetch(url, {mode: "no-cors", credentials: "include", body: new Blob([json])}) asks no preflight and sends no type.
    unasked = api.send(method, REGISTER, [login], body)
    assert (unasked.status, unasked.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    asked = [login, ("content-type", "application/json"), ("sec-fetch-site", "cross-site")]
    assert api.send(method, REGISTER, asked, body).status == 400
    assert api("GET", f"{SERVERS}/{registration['name']}").status == 404


def test_answers_are_json_that_no_cache_keeps(api):
    for answer in (api("GET", SERVERS), api("GET", f"{SERVERS}/0"), api("POST", REGISTER, api.registration("a b"))):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
