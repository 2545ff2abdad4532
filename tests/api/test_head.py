"""HEAD is answered as GET is, whoever answers: the same status and headers, and no body (RFC 9110)."""

from __future__ import annotations

import pytest

from tests.conftest import REGISTER, SERVERS

NOBODY = f"{SERVERS}/9223372036854775807"
WRONG = "Basic YWRtaW46d3Jvbmc="
# Path, where {id} is a server that is there; whether with credentials, or with which; the status of both.
ASKED = [
    ("/", None, 200),
    ("/openapi.yaml", None, 200),
    ("/health", None, 200),
    (SERVERS, True, 200),
    (f"{SERVERS}?search=nobody-{'x' * 20}", True, 200),
    (f"{SERVERS}/{{id}}", True, 200),
    (f"{SERVERS}/{{id}}/health", True, 200),
    ("/api/metrics/health", True, 200),
    (f"{SERVERS}?limit=0", True, 400),
    (f"{SERVERS}/{{id}}/health?period=1y", True, 400),
    (f"{SERVERS}/0", True, 400),
    (SERVERS, None, 401),
    (f"{SERVERS}/{{id}}", WRONG, 401),
    ("/api/metrics/health", WRONG, 401),
    (NOBODY, True, 404),
    ("/nothing", True, 404),
    (REGISTER, True, 405),
    ("/api/jobs/health-check", None, 405),
]
# What each answer has of its own, or a deployment's gateway adds.
SAME = ("content-type", "cache-control", "x-content-type-options", "www-authenticate", "allow", "etag")


@pytest.mark.parametrize(("path", "auth", "status"), ASKED)
def test_head_has_the_status_and_the_headers_of_get_and_no_body(api, path, auth, status):
    path = path.format(id=api.register()["id"])
    get, head = (api(method, path, auth=auth) for method in ("GET", "HEAD"))
    assert (get.status, head.status) == (status, status)
    assert {name: head.headers.get(name) for name in SAME} == {name: get.headers.get(name) for name in SAME}
    assert get.body
    assert head.body == b""
    if not api.shared:  # API Gateway may compute one by itself
        assert "content-length" not in head.headers
