"""What `sam validate` cannot see in the template."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from samtranslator.yaml_helper import yaml_parse

from local import template
from mcp_registry.edge.http import STATUSES
from mcp_registry.health import sweeps
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


def error(text: str) -> dict[str, str]:
    """An error of the template, which has the fields and the spelling of those that functions answer."""
    body = json.loads(text)
    assert list(body) == ["error", "code"]
    assert text == json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return body


def test_every_error_of_the_gateway_has_the_shape_of_ours(stack):
    responses = stack.api.gateway_responses
    assert set(responses) == TYPES | {"DEFAULT_4XX", "DEFAULT_5XX"}
    for kind, response in responses.items():
        body = error(response.template)
        if body["code"] in STATUSES and response.status is not None:
            assert response.status == STATUSES[body["code"]], kind
        if response.status in (429, 503):
            assert "Retry-After" in response.headers, kind


def test_every_route_asks_for_credentials_but_the_front_health_and_the_one_with_a_secret_of_its_own(stack):
    open_routes = {route.path for route in stack.api.routes if not route.authorized}
    assert open_routes == {"/", "/openapi.yaml", "/health", "/api/jobs/health-check"}


def by_path(stack: template.Stack) -> dict[str, dict[str, template.Route]]:
    """The routes by path and method."""
    found: dict[str, dict[str, template.Route]] = {}
    for route in stack.api.routes:
        found.setdefault(route.path, {})[route.method] = route
    return found


def test_head_is_wherever_get_is_and_asks_the_same_function_for_the_same_credentials(stack):
    for methods in by_path(stack).values():
        get = methods.get("GET")
        assert methods.get("HEAD") == (get and replace(get, method="HEAD"))


def test_every_path_refuses_the_methods_that_it_does_not_have(stack):
    for path, methods in by_path(stack).items():
        refusal = methods.pop("ANY").integration
        assert isinstance(refusal, template.Mock)
        assert refusal.status == 405
        assert refusal.headers["Allow"] == ", ".join(sorted(methods)), path
        assert error(refusal.body)["code"] == "METHOD_NOT_ALLOWED"


def test_what_a_mock_says_is_text_both_ways():
    """JSON is a binary media type of this API: without CONVERT_TO_TEXT API Gateway takes an answer for base64."""
    api = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]["RegistryApi"]["Properties"]
    for path, methods in api["DefinitionBody"]["paths"].items():
        mock = methods["x-amazon-apigateway-any-method"]["x-amazon-apigateway-integration"]
        assert (mock["type"], mock["passthroughBehavior"]) == ("mock", "never"), path
        assert mock["contentHandling"] == mock["responses"]["default"]["contentHandling"] == "CONVERT_TO_TEXT", path


def test_only_the_authorizer_knows_the_credentials_and_it_knows_no_database(stack):
    for name, function in stack.functions.items():
        knows = {variable for variable in function.environment if variable.startswith("REGISTRY_")}
        assert bool(knows) == (name == "AuthorizerFunction"), name
    without = {name for name, function in stack.functions.items() if "DATABASE_URL" not in function.environment}
    # Two dial what strangers registered: what they could reach, those might. One keeps the headers that others read.
    dialling = {"HealthSweepFunction", "IntroduceFunction"}
    assert without == {"AuthorizerFunction", "FrontFunction", "ProbeHeadersFunction"} | dialling


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("HealthSweepFunction", {"RESULT_QUEUE_URL", "CHECKS_PER_HOST"}),
        ("IntroduceFunction", {"INTRODUCED_QUEUE_URL", "PROBE_HEADERS"}),
    ],
)
def test_a_function_that_dials_is_given_two_queues_and_a_policy_and_nothing_else(stack, name, settings):
    environment = stack.functions[name].environment
    common = {name for name in stack.functions["HealthFunction"].environment if not name.startswith("DATABASE_")}
    assert set(environment) - common == settings | {"GUARD_OPEN_CIDRS", "GUARD_CLOSED_CIDRS"}


def test_the_addresses_that_may_be_registered_are_those_that_may_be_dialled():
    parameters = {**PARAMETERS, "OpenCidrs": "10.0.0.0/8", "ClosedCidrs": "10.1.0.0/16"}
    functions = template.load(ROOT / "template.yaml", parameters).functions
    for name in ("RegisterFunction", "HealthSweepFunction", "IntroduceFunction"):
        assert functions[name].environment["GUARD_OPEN_CIDRS"] == "10.0.0.0/8"
        assert functions[name].environment["GUARD_CLOSED_CIDRS"] == "10.1.0.0/16"


def test_a_function_ends_before_the_gateway_gives_up_and_after_its_own_deadline(stack):
    routed = {
        route.integration.function for route in stack.api.routes if isinstance(route.integration, template.Invoke)
    }
    for name in routed:
        function = stack.functions[name]
        assert function.timeout < 29, name
        assert function.timeout > 5, name


def test_what_a_function_takes_from_a_queue_stays_invisible_for_as_long_as_it_may_run(stack):
    for source in stack.sources:
        visibility = stack.queues[source.queue].attributes["VisibilityTimeout"]
        assert float(visibility) >= stack.functions[source.function].timeout, source
        assert source.reports_failures, source


def test_every_queue_that_a_function_reads_has_a_dead_letter_queue_or_forgets_what_is_late(stack):
    for source in stack.sources:
        queue = stack.queues[source.queue]
        assert (queue.dead_letters is None) == (float(queue.attributes["MessageRetentionPeriod"]) <= 120), source


def test_a_shard_that_comes_again_has_missed_its_half_minute(stack):
    """`mcp_registry.health.shard` relies on it: it probes no shard that it is given a second time."""
    assert float(stack.queues["ProbeQueue"].attributes["VisibilityTimeout"]) >= 30


def test_the_second_sweep_of_a_minute_is_half_a_minute_late(stack):
    assert float(stack.queues["TickQueue"].attributes["DelaySeconds"]) == sweeps.HALF_MINUTE.total_seconds()


def test_without_a_password_the_credentials_are_a_secret_that_the_authorizer_may_read():
    stack = template.load(ROOT / "template.yaml", {"DatabaseUrl": "postgresql://x"})
    environment = stack.functions["AuthorizerFunction"].environment
    assert environment["REGISTRY_PASSWORD"] == ""
    assert "secret" in environment["REGISTRY_SECRET_ARN"]
