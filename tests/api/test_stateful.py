"""Whatever order requests come in, the catalogue answers like a dictionary would."""

from __future__ import annotations

import os
import string
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from mcp_registry.canonical import digest, survey
from mcp_registry.names import canonical
from tests.conftest import Api

REGISTER = "/api/registry/register"
SERVERS = "/api/registry/servers"
METRICS = "/api/metrics/health"
JOB = "/api/jobs/health-check"
PERIODS = [None, "24h", "7d", "30d"]

WORDS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"name": TEXT, "input_schema": st.dictionaries(TEXT, JSON, max_size=3)},
        optional={"description": TEXT, "title": TEXT, "annotations": st.dictionaries(TEXT, JSON, max_size=2)},
    ),
    max_size=4,
    unique_by=lambda tool: str(tool["name"]),
)
CONTENT = st.fixed_dictionaries(
    {
        "display_name": TEXT,
        "server_type": st.sampled_from(["official", "community", "mock"]),
        "tools": TOOLS,
    },
    optional={
        "description": TEXT,
        "version": TEXT,
        "metadata": st.fixed_dictionaries({}, optional={"author": TEXT, "tags": st.lists(TEXT, max_size=3)}),
    },
)


class Catalogue(RuleBasedStateMachine):
    """Registers, replaces, changes, deletes, lists and reads; `servers` is what should be there."""

    api: Api
    # Whether sweeps are started too. They call servers down, so that the API has to be one that others use.
    sweeps = False
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.prefix = self.api.new_name("state")
        self.servers: dict[int, dict[str, Any]] = {}

    def by_name(self, name: str) -> int | None:
        return next((i for i, s in self.servers.items() if canonical(s["name"]) == canonical(name)), None)

    @rule(target=ids, word=WORDS, content=CONTENT)
    def register(self, word, content):
        sent = {"name": f"{self.prefix}.{word}", "endpoint_url": f"{self.api.endpoint}/mcp", **content}
        existing = self.by_name(sent["name"])
        answer = self.api("POST", REGISTER, sent)
        if existing is not None:
            assert answer.status == 409
            return multiple()
        assert answer.status == 201, answer.body
        id_ = answer.json()["id"]
        assert id_ > max(self.servers, default=0)
        self.servers[id_] = sent | {"status": "active"}
        return id_

    @rule(target=ids, word=WORDS, content=CONTENT)
    def put(self, word, content):
        sent = {"name": f"{self.prefix}.{word}", "endpoint_url": f"{self.api.endpoint}/mcp", **content}
        existing = self.by_name(sent["name"])
        answer = self.api("PUT", REGISTER, sent)
        if existing is None:
            assert (answer.status, answer.json()["result"]) == (201, "created"), answer.body
            self.servers[answer.json()["id"]] = sent | {"status": "active"}
            return answer.json()["id"]
        if self.servers[existing]["name"] != sent["name"]:
            assert answer.status == 409
            return multiple()
        assert answer.status == 200, answer.body
        assert answer.json()["id"] == existing
        self.servers[existing] = sent | {"status": self.servers[existing]["status"]}
        return multiple()

    @rule(id_=ids)
    def put_the_same_again(self, id_):
        if id_ in self.servers:
            sent = {key: value for key, value in self.servers[id_].items() if key != "status"}
            answer = self.api("PUT", REGISTER, sent)
            assert (answer.status, answer.json()["result"]) == (200, "unchanged")

    @rule(id_=ids)
    def put_the_digest_only(self, id_):
        if id_ in self.servers:
            sent = {key: value for key, value in self.servers[id_].items() if key != "status"}
            assert self.by_digest(sent) == 204
            assert self.by_digest(sent | {"description": f"of {self.prefix}, which nobody has"}) == 428

    def by_digest(self, sent) -> int:
        text = digest(sent, plain=survey(sent).plain).hex()
        return self.api("PUT", REGISTER, headers={"X-Registration-Digest": text}).status

    @rule(id_=ids, status=st.sampled_from(["active", "inactive"]))
    def patch(self, id_, status):
        answer = self.api("PATCH", f"{SERVERS}/{id_}", {"status": status})
        if id_ in self.servers:
            assert answer.status == 200
            # One in error stays in error until a check finds it up.
            assert answer.json()["status"] in self.api.may_be(status)
            self.servers[id_]["status"] = status
        else:
            assert answer.status == 404

    @rule(id_=consumes(ids))
    def delete(self, id_):
        expected = 204 if self.servers.pop(id_, None) else 404
        assert self.api("DELETE", f"{SERVERS}/{id_}").status == expected

    @rule(id_=ids)
    def detail(self, id_):
        answer = self.api("GET", f"{SERVERS}/{id_}")
        if id_ not in self.servers:
            assert answer.status == 404
            return
        got, sent = answer.json(), self.servers[id_]
        for key in ("name", "display_name", "server_type", "endpoint_url", "description", "version"):
            assert got[key] == sent.get(key)
        assert got["status"] in self.api.may_be(sent["status"])
        metadata = sent.get("metadata")
        empty = {"author": None, "repository_url": None, "documentation_url": None, "tags": None}
        assert got["metadata"] == (None if metadata is None else empty | metadata)
        assert [tool["name"] for tool in got["tools"]] == [tool["name"] for tool in sent["tools"]]
        for got_tool, sent_tool in zip(got["tools"], sent["tools"], strict=True):
            for key in ("title", "description", "input_schema", "annotations"):
                assert repr(got_tool[key]) == repr(sent_tool.get(key))

    @rule(id_=ids, period=st.sampled_from(PERIODS))
    def history(self, id_, period):
        answer = self.api("GET", f"{SERVERS}/{id_}/health" + (f"?period={period}" if period else ""))
        if id_ not in self.servers:
            assert answer.status == 404
            return
        told = answer.json()
        assert (told["server_id"], told["name"]) == (id_, self.servers[id_]["name"])
        assert (told["status"] in self.api.may_be(self.servers[id_]["status"])) and told["period"] == (period or "24h")

    @rule()
    def metrics(self):
        counted = self.api("GET", METRICS).json()["servers"]
        assert sum(counted[status] for status in ("active", "inactive", "error")) == counted["total"]
        assert counted["total"] >= len(self.servers)

    @rule()
    def start_a_sweep(self):
        assert self.api("POST", JOB, headers={"x-cron-secret": self.prefix}, auth=None).status == 401
        if self.sweeps:
            answer = self.api("POST", JOB, headers={"x-cron-secret": str(self.api.cron_secret)}, auth=None)
            # Another one may be less than 5 s ago.
            assert answer.status == 202 and answer.json()["result"] in ("started", "duplicate"), answer.body

    @rule()
    def is_well(self):
        assert self.api("GET", "/health", auth=None).json() == {"status": "ok"}

    @rule(
        limit=st.integers(1, 4),
        status=st.none() | st.sampled_from(["active", "inactive", "error"]),
        kind=st.none() | st.sampled_from(["official", "community", "mock"]),
        word=WORDS | st.just(""),
    )
    def walk(self, limit, status, kind, word):
        if self.api.shared and status != "inactive":
            status = None  # a sweep may call one down between two pages
        search = f"{self.prefix}.{word}"
        wanted = [
            id_
            for id_, server in sorted(self.servers.items())
            if (status is None or server["status"] == status)
            and (kind is None or server["server_type"] == kind)
            and search.lower() in server["name"].lower()
        ]
        query = f"limit={limit}&search={search}" + (f"&status={status}" if status else "")
        query += f"&type={kind}" if kind else ""
        seen: list[int] = []
        while True:
            page = self.api("GET", f"{SERVERS}?{query}").json()
            assert page["total"] == len(wanted)
            seen += [server["id"] for server in page["servers"]]
            if page["next_cursor"] is None:
                break
            assert len(page["servers"]) == limit
            query = f"limit={limit}&cursor={page['next_cursor']}"
        assert seen == wanted

    @invariant()
    def what_is_there_is_counted(self):
        found = self.api("GET", f"{SERVERS}?search={self.prefix}&limit=1000").json()
        counted = {server["id"]: server["tools_count"] for server in found["servers"]}
        assert counted == {id_: len(server["tools"]) for id_, server in self.servers.items()}

    def teardown(self):
        for id_ in self.servers:
            self.api("DELETE", f"{SERVERS}/{id_}")


def test_the_catalogue_answers_like_a_dictionary(api):
    machine = type("Machine", (Catalogue,), {"api": api})
    run_state_machine_as_test(
        machine,
        settings=settings(
            # Each example is some hundred requests, of which a stack that others use gets few.
            max_examples=int(os.environ.get("STATEFUL_EXAMPLES", "3" if api.shared else "25")),
            stateful_step_count=25,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
