"""What `sam validate` cannot see in the template."""

from __future__ import annotations

import json

import pytest

from local import template
from mcp_registry.http import STATUSES
from tests.conftest import ROOT

PARAMETERS = {"DatabaseUrl": "postgresql://x", "RegistryUsername": "admin", "RegistryPassword": "password"}

# "Gateway response types for API Gateway", but for DEFAULT_4XX and DEFAULT_5XX, which stand in for all of them.
TYPES = {
    "ACCESS_DENIED", "API_CONFIGURATION_ERROR", "AUTHORIZER_CONFIGURATION_ERROR", "AUTHORIZER_FAILURE",
    "BAD_REQUEST_BODY", "BAD_REQUEST_PARAMETERS", "EXPIRED_TOKEN", "INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT",
    "INVALID_API_KEY", "INVALID_SIGNATURE", "MISSING_AUTHENTICATION_TOKEN", "QUOTA_EXCEEDED", "REQUEST_TOO_LARGE",
    "RESOURCE_NOT_FOUND", "THROTTLED", "UNAUTHORIZED", "UNSUPPORTED_MEDIA_TYPE", "WAF_FILTERED",
}  # fmt: skip


@pytest.fixture(scope="module")
def stack():
    return template.load(ROOT / "template.yaml", PARAMETERS)


def test_every_error_of_the_gateway_has_the_shape_of_ours(stack):
    responses = stack.api.gateway_responses
    assert set(responses) == TYPES | {"DEFAULT_4XX", "DEFAULT_5XX"}
    for kind, response in responses.items():
        body = json.loads(response.template)
        assert set(body) == {"error", "code"}, kind
        if body["code"] in STATUSES and response.status is not None:
            assert response.status == STATUSES[body["code"]], kind
        if response.status in (429, 503):
            assert "Retry-After" in response.headers, kind


def test_every_route_but_health_asks_for_credentials(stack):
    assert {route.path for route in stack.api.routes if not route.authorized} == {"/health"}


def test_every_path_refuses_the_methods_that_it_does_not_have(stack):
    by_path: dict[str, dict[str, template.Route]] = {}
    for route in stack.api.routes:
        by_path.setdefault(route.path, {})[route.method] = route
    for path, methods in by_path.items():
        refusal = methods.pop("ANY").integration
        assert isinstance(refusal, template.Mock)
        assert refusal.status == 405
        assert refusal.headers["Allow"] == ", ".join(sorted(methods)), path
        assert json.loads(refusal.body)["code"] == "METHOD_NOT_ALLOWED"


def test_what_a_mock_says_is_text_both_ways():
    """JSON is a binary media type of this API: without CONVERT_TO_TEXT API Gateway takes an answer for base64."""
    text = (ROOT / "template.yaml").read_text()
    assert text.count("type: mock") == 4
    assert text.count("contentHandling: CONVERT_TO_TEXT") == 8
    assert text.count("passthroughBehavior: never") == 4


def test_only_the_authorizer_knows_the_credentials_and_it_knows_no_database(stack):
    for name, function in stack.functions.items():
        knows = {variable for variable in function.environment if variable.startswith("REGISTRY_")}
        assert bool(knows) == (name == "AuthorizerFunction"), name
        assert ("DATABASE_URL" in function.environment) == (name != "AuthorizerFunction"), name


def test_a_function_ends_before_the_gateway_gives_up_and_after_its_own_deadline(stack):
    for name, function in stack.functions.items():
        assert function.timeout < 29, name
        assert function.timeout > 5 or name == "AuthorizerFunction", name


def test_without_a_password_the_credentials_are_a_secret_that_the_authorizer_may_read():
    stack = template.load(ROOT / "template.yaml", {"DatabaseUrl": "postgresql://x"})
    environment = stack.functions["AuthorizerFunction"].environment
    assert environment["REGISTRY_PASSWORD"] == ""
    assert "secret" in environment["REGISTRY_SECRET_ARN"]
