"""The front door: where it points to, and the contract that it serves."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from mcp_registry.edge import front
from mcp_registry.edge.http import Request
from tests.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8")


def request(whole_path: str, **headers: str) -> Request:
    return Request(
        {
            "httpMethod": "GET",
            "resource": "/",
            "headers": {name.replace("_", "-"): value for name, value in headers.items()},
            "requestContext": {"requestId": "1", "path": whole_path},
        }
    )


@pytest.mark.parametrize(
    ("whole_path", "root"),
    [("/", ""), ("/v1/", "/v1"), ("/v1", "/v1"), ("/tools/registry/", "/tools/registry")],
)
def test_it_points_to_paths_of_the_host_that_was_asked(whole_path: str, root: str):
    told = front.pointer(request(whole_path)).body
    for path in ("/openapi.yaml", "/health", "/api/registry/servers"):
        assert f'"{root}{path}"' in told


def test_the_contract_is_the_document_of_the_repository():
    answer = front.contract(request("/openapi.yaml"))
    assert (answer.status, answer.body) == (HTTPStatus.OK, DOCUMENT)
    assert answer.headers["Content-Type"] == "application/yaml"


@pytest.mark.parametrize("known", ["{tag}", "W/{tag}", '"other", {tag}', "*", '"a",W/{tag} ,"b"'])
def test_who_has_the_contract_is_not_sent_it_again(known: str):
    tag = front.contract(request("/openapi.yaml")).headers["ETag"]
    answer = front.contract(request("/openapi.yaml", If_None_Match=known.format(tag=tag)))
    assert (answer.status, answer.body, answer.headers["ETag"]) == (HTTPStatus.NOT_MODIFIED, "", tag)


@pytest.mark.parametrize("known", ["", '"other"', "x", "{tag}-", 'w/"a"'])
def test_who_has_another_contract_is_sent_this_one(known: str):
    tag = front.contract(request("/openapi.yaml")).headers["ETag"]
    assert front.contract(request("/openapi.yaml", If_None_Match=known.format(tag=tag))).status == HTTPStatus.OK
