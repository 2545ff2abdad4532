"""One spelling of JSON, whoever answers: no blank outside of a string, no character escaped that need not be."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import REGISTER, SERVERS, Answer, Api

METRICS = "/api/metrics/health"
JOB = "/api/jobs/health-check"
NOBODY = f"{SERVERS}/9223372036854775807"

# What is asked, of a catalogue that holds a server of this id, and with which status it is answered.
Asked = tuple[Callable[[Api, int], Answer], int]
ASKED: dict[str, Asked] = {
    # by functions
    "created": (lambda api, id_: api("POST", REGISTER, api.registration()), 201),
    "put": (lambda api, id_: api("PUT", REGISTER, api.registration()), 201),
    "list": (lambda api, id_: api("GET", f"{SERVERS}?limit=2"), 200),
    "no servers": (lambda api, id_: api("GET", f"{SERVERS}?search={api.prefix}-nobody"), 200),
    "detail": (lambda api, id_: api("GET", f"{SERVERS}/{id_}"), 200),
    "changed": (lambda api, id_: api("PATCH", f"{SERVERS}/{id_}", {"status": "inactive"}), 200),
    "a day": (lambda api, id_: api("GET", f"{SERVERS}/{id_}/health"), 200),
    "a week": (lambda api, id_: api("GET", f"{SERVERS}/{id_}/health?period=7d"), 200),
    "a month": (lambda api, id_: api("GET", f"{SERVERS}/{id_}/health?period=30d"), 200),
    "metrics": (lambda api, id_: api("GET", METRICS), 200),
    "pointer": (lambda api, id_: api("GET", "/", auth=None), 200),
    "health": (lambda api, id_: api("GET", "/health", auth=None), 200),
    "a sweep": (lambda api, id_: api("POST", JOB, headers={"x-cron-secret": str(api.cron_secret)}, auth=None), 202),
    "faults": (lambda api, id_: api("POST", REGISTER, {"tools": [{"a": 1}], "unknown": "é"}), 400),
    "no JSON": (lambda api, id_: api("POST", REGISTER, b'{"a": NaN}'), 400),
    "no id": (lambda api, id_: api("GET", f"{SERVERS}/0"), 400),
    "no cron secret": (lambda api, id_: api("POST", JOB, auth=None), 401),
    "nobody": (lambda api, id_: api("GET", NOBODY), 404),
    "taken": (lambda api, id_: api("POST", REGISTER, api.registration(api.made[id_])), 409),
    "too large": (lambda api, id_: api("POST", REGISTER, b" " * (1024 * 1024 + 1)), 413),
    "a form": (lambda api, id_: api("POST", REGISTER, b"a=b", headers={"content-type": "text/plain"}), 415),
    "digest": (lambda api, id_: api("PUT", REGISTER, headers={"x-registration-digest": "0" * 64}), 428),
    # by the gateway
    "no credentials": (lambda api, id_: api("GET", SERVERS, auth=None), 401),
    "no route": (lambda api, id_: api("GET", "/nothing"), 404),
    "no such method": (lambda api, id_: api("DELETE", SERVERS), 405),
    "no such method, open": (lambda api, id_: api("DELETE", "/health", auth=None), 405),
    "far too large": (lambda api, id_: api("POST", REGISTER, b" " * (11 * 1024 * 1024)), 413),
}


@pytest.fixture
def server(api: Api) -> int:
    """The id of a server with something in every field, and with two changes of status; it is not alone."""
    api.register()
    created = api.register(
        display_name='Wetter – "heute"\t\\ \x7f',
        description="é😀\u2028\n",
        health_url="/health",
        version="1.0.0",
        metadata={"author": "Ann", "tags": ["a b", "c"]},
        tools=[{"name": name, "title": "T", "input_schema": {"type": "object"}} for name in ("one", "two")],
    )
    for status in ("inactive", "active"):
        assert api("PATCH", f"{SERVERS}/{created['id']}", {"status": status}).status == 200
    return created["id"]


@pytest.mark.parametrize("what", ASKED)
def test_every_answer_is_spelled_as_if_it_was_written_at_once(what: str, api: Api, server: int):
    if what == "a sweep" and api.cron_secret is None:
        pytest.skip("the cron secret of this stack is not known: --cron-secret")
    ask, status = ASKED[what]
    answer = ask(api, server)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    text = answer.body.decode()
    assert text == json.dumps(answer.json(), separators=(",", ":"), ensure_ascii=False)
