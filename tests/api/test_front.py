"""The front door as a client sees it: a pointer and the contract, both without credentials."""

from __future__ import annotations

import pytest
import yaml

from tests.conftest import ROOT, SERVERS


def test_the_root_says_what_this_is_and_points_to_the_rest(api):
    answer = api("GET", "/", auth=None)
    assert answer.status == 200
    told = answer.json()
    assert told["name"] == "MCP Registry"
    # Behind a stage its segment stands before each, as it does in the base URL that the tests were given.
    for name, path, status in (
        ("openapi", "/openapi.yaml", 200),
        ("health", "/health", 200),
        ("servers", SERVERS, 401),
    ):
        assert told[name].endswith(path)
        assert api("GET", path, auth=None).status == status


def test_the_contract_is_served_as_yaml(api):
    answer = api("GET", "/openapi.yaml", auth=None)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/yaml")
    assert yaml.safe_load(answer.body)["info"]["title"] == "MCP Registry"
    if not api.shared:  # which may be of another version
        assert answer.body == (ROOT / "docs" / "openapi.yaml").read_bytes()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_contract_is_not_sent_again_to_who_has_it(api, method):
    tag = api("GET", "/openapi.yaml", auth=None).headers["etag"]
    answer = api(method, "/openapi.yaml", headers={"if-none-match": tag}, auth=None)
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
    assert api(method, "/openapi.yaml", headers={"if-none-match": '"another"'}, auth=None).status == 200


@pytest.mark.parametrize("path", ["/", "/openapi.yaml"])
def test_the_front_is_read_only(api, path):
    answer = api("POST", path, auth=None)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
