"""Health as a client sees it: histories, metrics, and the job that starts a sweep."""

from __future__ import annotations

import time

import pytest

from tests.conftest import CRON_SECRET

SERVERS = "/api/registry/servers"
METRICS = "/api/metrics/health"
JOB = "/api/jobs/health-check"


def start(api, secret: str | None):
    headers = {} if secret is None else {"x-cron-secret": secret}
    return api("POST", JOB, headers=headers, auth=None)


@pytest.mark.parametrize("period", [None, "24h", "7d", "30d"])
def test_a_new_server_has_a_history_without_checks(api, period):
    created = api.register()
    answer = api("GET", f"{SERVERS}/{created['id']}/health" + (f"?period={period}" if period else ""))
    told = answer.json()
    assert answer.status == 200
    assert (told["server_id"], told["name"], told["status"]) == (created["id"], created["name"], "active")
    assert told["period"] == (period or "24h")
    assert (told["checks"], told["uptime_percent"], told["last_check"]) == (0, None, None)
    assert {point["checks"] for point in told["series"]} == {0}


def test_an_operators_change_is_in_the_history(api):
    created = api.register()
    for status in ("inactive", "active"):
        assert api("PATCH", f"{SERVERS}/{created['id']}", {"status": status}).status == 200
    told = api("GET", f"{SERVERS}/{created['id']}/health").json()["transitions"]
    assert [(change["from"], change["to"]) for change in told] == [("inactive", "active"), ("active", "inactive")]


@pytest.mark.parametrize("query", ["period=1y", "period=", "period=24h&period=7d", "periode=7d", "period=24H"])
def test_a_period_is_one_of_three(api, query):
    answer = api("GET", f"{SERVERS}/{api.register()['id']}/health?{query}")
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json()["details"]


@pytest.mark.parametrize(("id_", "status"), [("0", 400), ("abc", 400), ("9223372036854775807", 404)])
def test_the_history_of_no_server_is_an_error(api, id_, status):
    assert api("GET", f"{SERVERS}/{id_}/health").status == status


def test_the_metrics_count_the_servers_by_status(api):
    before = api("GET", METRICS).json()["servers"]
    created = api.register()
    api("PATCH", f"{SERVERS}/{created['id']}", {"status": "inactive"})
    after = api("GET", METRICS).json()["servers"]
    assert after["inactive"] == before["inactive"] + 1
    assert after["total"] == before["total"] + 1
    assert sum(after[status] for status in ("active", "inactive", "error")) == after["total"]


def test_the_metrics_have_no_parameters(api):
    answer = api("GET", f"{METRICS}?period=7d")
    assert (answer.status, answer.json()["details"][0]["path"]) == (400, "period")


@pytest.mark.parametrize("path", [f"{SERVERS}/1/health", METRICS])
def test_what_is_known_of_health_is_for_who_has_credentials(api, path):
    assert api("GET", path, auth=None).status == 401


@pytest.mark.parametrize("secret", [None, "", "wrong", CRON_SECRET + " x", CRON_SECRET.upper(), "None", "\u00e9"])
def test_a_sweep_is_for_who_knows_the_cron_secret(api, secret):
    answer = start(api, secret)
    assert (answer.status, answer.json()["code"]) == (401, "UNAUTHORIZED")


def test_basic_credentials_start_no_sweep(api):
    assert api("POST", JOB).status == 401


def test_a_sweep_is_started_at_once_and_told(api, request):
    if request.config.getoption("--api-url"):
        pytest.skip("the cron secret of a deployment is not known here")
    api.register()
    answer = start(api, CRON_SECRET)
    told = answer.json()
    assert answer.status == 202
    assert set(told) == {"slot", "result", "servers", "shards"}
    assert told["result"] in ("started", "duplicate")
    # Asked again in the same breath it is the same sweep.
    assert start(api, CRON_SECRET).json()["result"] == "duplicate"
    # And later it is one of its own.
    while told["result"] == "duplicate":
        time.sleep(0.2)
        told = start(api, CRON_SECRET).json()
    assert told["servers"] >= 1
    assert told["shards"] >= 1


@pytest.mark.parametrize(
    ("method", "path", "allow"), [("POST", f"{SERVERS}/1/health", "GET"), ("PUT", METRICS, "GET"), ("GET", JOB, "POST")]
)
def test_another_method_is_refused(api, method, path, allow):
    answer = api(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
