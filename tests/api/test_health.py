"""Health as a client sees it: histories, metrics, and the job that starts a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.api.transport import Secret

SERVERS = "/api/registry/servers"
METRICS = "/api/metrics/health"
JOB = "/api/jobs/health-check"


def start(api, secret: str | None):
    headers = {} if secret is None else {"x-cron-secret": secret}
    return api("POST", JOB, headers=headers, auth=None)


def cron_secret(api) -> str:
    if api.cron_secret is None:
        pytest.skip("the cron secret of this stack is not known: --cron-secret")
    return api.cron_secret


@pytest.mark.parametrize("period", [None, "24h", "7d", "30d"])
def test_a_new_server_has_a_history_without_checks(api, period):
    created = api.register()
    answer = api("GET", f"{SERVERS}/{created['id']}/health" + (f"?period={period}" if period else ""))
    told = answer.json()
    assert answer.status == 200
    assert (told["server_id"], told["name"]) == (created["id"], created["name"])
    assert told["status"] in api.may_be("active")
    assert told["period"] == (period or "24h")
    assert {point["checks"] for point in told["series"]} >= {0}
    if not api.shared:  # or a sweep may have been there by now
        assert (told["checks"], told["uptime_percent"], told["last_check"]) == (0, None, None)
        assert {point["checks"] for point in told["series"]} == {0}


def test_an_operators_change_is_in_the_history(api):
    created = api.register()
    for status in ("inactive", "active"):
        assert api("PATCH", f"{SERVERS}/{created['id']}", {"status": status}).status == 200
    told = api("GET", f"{SERVERS}/{created['id']}/health").json()["transitions"]
    # What a sweep adds is that it fell to error, before or after.
    operators = [(change["from"], change["to"]) for change in told if change["to"] != "error"]
    assert [to for _, to in operators] == ["active", "inactive"]
    assert operators[0][0] == "inactive"
    assert operators[1][0] in api.may_be("active")


@pytest.mark.parametrize("query", ["period=1y", "period=", "period=24h&period=7d", "periode=7d", "period=24H"])
def test_a_period_is_one_of_three(api, query):
    answer = api("GET", f"{SERVERS}/{api.register()['id']}/health?{query}")
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json()["details"]


@pytest.mark.parametrize(
    ("id_", "status"), [("0", 400), ("007", 400), ("no-such-server", 404), ("9223372036854775807", 404)]
)
def test_the_history_of_no_server_is_an_error(api, id_, status):
    assert api("GET", f"{SERVERS}/{id_}/health").status == status


def test_the_metrics_count_the_servers_by_status(api):
    before = api("GET", METRICS).json()["servers"]
    created = api.register()
    api("PATCH", f"{SERVERS}/{created['id']}", {"status": "inactive"})
    after = api("GET", METRICS).json()["servers"]
    assert sum(after[status] for status in ("active", "inactive", "error")) == after["total"]
    assert after["inactive"] >= 1
    if not api.shared:  # or others come and go between the two
        assert after["inactive"] == before["inactive"] + 1
        assert after["total"] == before["total"] + 1


def test_the_metrics_have_no_parameters(api):
    answer = api("GET", f"{METRICS}?period=7d")
    assert (answer.status, answer.json()["details"][0]["path"]) == (400, "period")


@pytest.mark.parametrize("path", [f"{SERVERS}/1/health", METRICS])
def test_what_is_known_of_health_is_for_who_has_credentials(api, path):
    assert api("GET", path, auth=None).status == 401


@pytest.mark.parametrize("secret", [None, "", "wrong", "None", "\u00e9"])
def test_a_sweep_is_for_who_knows_the_cron_secret(api, secret):
    answer = start(api, secret)
    assert (answer.status, answer.json()["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda secret: secret + " x", id="longer"),
        pytest.param(lambda secret: secret[:-1], id="shorter"),
        pytest.param(lambda secret: secret.swapcase(), id="in-another-case"),
    ],
)
def test_a_secret_that_is_nearly_right_starts_no_sweep(api, changed: Callable[[str], str]):
    secret = cron_secret(api)
    if changed(secret) == secret:
        pytest.skip("the cron secret of this stack has no letters")
    assert start(api, Secret(changed(secret))).status == 401


def test_basic_credentials_start_no_sweep(api):
    assert api("POST", JOB).status == 401


def test_a_sweep_is_started_at_once_and_told(api):
    secret = cron_secret(api)
    api.register()
    answer = start(api, secret)
    told = answer.json()
    assert answer.status == 202
    assert set(told) == {"slot", "result", "message", "servers", "shards"}
    assert told["result"] in ("started", "duplicate")
    # Asked again in the same breath it is the same sweep, which is said in words as well.
    again = start(api, secret).json()
    assert again["result"] == "duplicate"
    assert again["message"] == "A sweep of this moment was started already: its checks are under way"
    # And later it is one of its own.
    while told["result"] == "duplicate":
        time.sleep(1 if api.shared else 0.2)
        told = start(api, secret).json()
    assert told["servers"] >= 1
    assert told["shards"] >= 1


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("POST", f"{SERVERS}/1/health", "GET, HEAD"), ("PUT", METRICS, "GET, HEAD"), ("GET", JOB, "POST")],
)
def test_another_method_is_refused(api, method, path, allow):
    answer = api(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
