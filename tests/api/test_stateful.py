"""Whatever order requests come in, the catalogue answers like a dictionary would."""

from __future__ import annotations

import os
import re
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mcp_registry.aws.db import Database
from mcp_registry.catalogue.canonical import digest, survey
from mcp_registry.health import results
from mcp_registry.health.messages import Finding, Findings, Verdict
from tests.api.transport import Answer
from tests.conftest import PATIENCE, REGISTER, SERVERS, Api

METRICS = "/api/metrics/health"
JOB = "/api/jobs/health-check"
PERIODS = ["", "?period=24h", "?period=7d", "?period=30d"]
UP: list[Verdict] = ["healthy", "gated"]
DOWN: list[Verdict] = ["refused", "http_error"]

FORGET = """
WITH forgotten AS (
    DELETE FROM metrics.sweep_shards
     WHERE slot = ANY (%(slots)s::timestamptz[])
    RETURNING slot
)
SELECT count(*)
  FROM forgotten
"""


def readings(name: str) -> tuple[str, ...]:
    """What a reader takes a name for, in three ways: without case, by the shapes of its letters, and as figures.

    For names without a slash. Written apart from the product's (registry.name_key), letter by letter.
    """
    taken = []
    digits, shapes = "0123456789", name.replace("I", "l").lower()
    for text, numerals in ((name.lower(), digits), (shapes, digits), (shapes, digits + "lo")):
        parts = [part for part in re.split(r"[._-]+", text) if part]
        read = parts[0]
        for part in parts[1:]:
            read += ("-" if read[-1] in numerals and part[0] in numerals else "") + part
        taken.append(read.replace("0", "o").replace("1", "l"))
    return tuple(taken)


def are_one(name: str, other: str) -> bool:
    return any(one == two for one, two in zip(readings(name), readings(other), strict=True))


KINDS = ["official", "community", "mock"]
# What every walk begins with: the first four, two of which are of one kind, and the last perhaps.
SEEDS = ["a", "b", "o", "x-y", "il"]
# Few, and alike, so that names meet: those in a row are one name.
ALIKE = ["a", "A", "b", "B", "o", "0", "O", "x-y", "xy", "X_y", "il", "Il", "ll", "1L", "1.10", "11.0", "z"]
WORDS = st.sampled_from(ALIKE) | st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)
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
        "server_type": st.sampled_from(KINDS),
        "tools": TOOLS,
    },
    optional={
        "description": TEXT,
        "version": TEXT,
        "metadata": st.fixed_dictionaries({}, optional={"author": TEXT, "tags": st.lists(TEXT, max_size=3)}),
    },
)


@dataclass
class Server:
    """What should be known of one server."""

    sent: dict[str, Any]
    status: str = "active"
    # What the checks found, the last one last, and the statuses that it came to.
    checks: list[Verdict] = field(default_factory=list[Verdict])
    # What is told of it: the last of them, unless it was out of service since.
    verdict: Verdict | None = None
    became: list[str] = field(default_factory=list[str])

    def becomes(self, status: str) -> None:
        """Another status than it has is a transition."""
        if status != self.status:
            self.status = status
            self.became.append(status)


class Checks:
    """Findings in a stack's database, as its probes would send them: no server has to be there for that."""

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url)
        self._slots: list[datetime] = []

    def write(self, id_: int, verdict: Verdict) -> None:
        """What one check of a server found just now."""
        up = verdict in UP
        now = datetime.now(UTC)
        self._slots.append(now)
        finding = Finding(id_, verdict, 200 if up else None, 12, None if up else f"It is {verdict}", 0)
        results.write(self._database.begin(PATIENCE), Findings(now, 0, [finding]), now)

    def forget(self) -> None:
        """Remove what does not go with the servers: the metrics of all are read by other tests."""
        self._database.begin(PATIENCE).write(FORGET, {"slots": self._slots})
        self._database.close()


class Catalogue(RuleBasedStateMachine):
    """Registers, replaces, changes, deletes, lists and reads; `servers` is what should be there."""

    api: Api
    # Whether sweeps are started too. They call servers down, so that the API has to be one that others use.
    sweeps = False
    ids = Bundle("ids")
    gone = Bundle("gone")

    def __init__(self) -> None:
        super().__init__()
        self.prefix = self.api.new_name("state")
        self.servers: dict[int, Server] = {}
        self.deleted: dict[int, Server] = {}
        self.others: list[int] = []
        # Where the database is known, and nobody else writes what checks found.
        url = None if self.api.shared else self.api.database_url
        self.probes = Checks(url) if url else None

    def asked(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """The answer to a request, which has to have this status."""
        answer = self.api(method, path, body, **more)
        assert answer.status == status, (method, path, answer.status, answer.body[:500])
        return answer

    def named(self, word: str, content: dict[str, Any]) -> dict[str, Any]:
        return {"name": f"{self.prefix}.{word}", "endpoint_url": f"{self.api.endpoint}/mcp", **content}

    def by_name(self, name: str) -> int | None:
        # Of two that a name is taken for, the one that has it.
        alike = [i for i, s in self.servers.items() if are_one(s.sent["name"], name)]
        return min(alike, key=lambda i: (self.servers[i].sent["name"] != name, i), default=None)

    def created(self, sent: dict[str, Any], answer: Answer) -> int:
        """The id of a new server, which nobody ever had."""
        told = answer.json()
        assert told["id"] > max([*self.servers, *self.deleted, *self.others], default=0)
        assert (told["name"], told["status"]) == (sent["name"], "active")
        self.servers[told["id"]] = Server(sent)
        return told["id"]

    def taken(self, answer: Answer, sent: dict[str, Any]) -> None:
        """The refusal of a name says whose it is."""
        existing = self.by_name(sent["name"])
        assert existing is not None
        assert answer.json()["details"][0]["message"] == f"Taken for the server {self.servers[existing].sent['name']}"

    def posted(self, sent: dict[str, Any]) -> Any:
        """What comes into `ids` of a POST."""
        if self.by_name(sent["name"]) is not None:
            self.taken(self.asked(409, "POST", REGISTER, sent), sent)
            return multiple()
        return self.created(sent, self.asked(201, "POST", REGISTER, sent))

    def replaced(self, sent: dict[str, Any]) -> Any:
        """What comes into `ids` of a PUT."""
        existing = self.by_name(sent["name"])
        if existing is None:
            answer = self.asked(201, "PUT", REGISTER, sent)
            assert answer.json()["result"] == "created"
            return self.created(sent, answer)
        if self.servers[existing].sent["name"] != sent["name"]:
            self.taken(self.asked(409, "PUT", REGISTER, sent), sent)
            return multiple()
        assert self.asked(200, "PUT", REGISTER, sent).json()["id"] == existing
        self.servers[existing].sent = sent
        return multiple()

    @initialize(target=ids, contents=st.lists(CONTENT, min_size=4, max_size=len(SEEDS)))
    def some_are_there(self, contents):
        # Of another name, so that a list shows it where it forgets what was searched for.
        other = self.api.registration(self.api.new_name("other"))
        self.others.append(self.asked(201, "POST", REGISTER, other).json()["id"])
        ids = [
            self.posted(self.named(word, content | {"server_type": KINDS[number % len(KINDS)]}))
            for number, (word, content) in enumerate(zip(SEEDS, contents, strict=False))
        ]
        for id_, verdict in zip(ids, (DOWN[0], UP[0]), strict=False):
            self.checked(id_, verdict)
        self.changed(ids[0], "active")
        for filters in ({"status": "active"}, {"kind": KINDS[0]}):
            self.pages(1, again="changed", **filters)
        return multiple(*ids)

    @rule(target=ids, word=WORDS, content=CONTENT)
    def register(self, word, content):
        return self.posted(self.named(word, content))

    @rule(target=ids, word=WORDS, content=CONTENT)
    def put(self, word, content):
        return self.replaced(self.named(word, content))

    @rule(id_=ids, content=CONTENT)
    def put_other_content(self, id_, content):
        self.replaced(self.servers[id_].sent | content)

    @rule(id_=ids)
    def put_the_same_again(self, id_):
        assert self.asked(200, "PUT", REGISTER, self.servers[id_].sent).json()["result"] == "unchanged"

    @rule(id_=ids)
    def put_the_digest_only(self, id_):
        sent = self.servers[id_].sent
        self.by_digest(204, sent)
        self.by_digest(428, sent | {"description": f"of {self.prefix}, which nobody has"})

    def by_digest(self, status: int, sent: dict[str, Any]) -> None:
        text = digest(sent, plain=survey(sent).plain).hex()
        self.asked(status, "PUT", REGISTER, headers={"X-Registration-Digest": text})

    @rule(id_=ids, status=st.sampled_from(["active", "inactive"]))
    def patch(self, id_, status):
        self.changed(id_, status)

    def changed(self, id_: int, status: str) -> None:
        server = self.servers[id_]
        told = self.asked(200, "PATCH", f"{SERVERS}/{id_}", {"status": status}).json()
        if (server.status, status) == ("inactive", "active"):
            server.verdict = None
        # One in error stays in error until a check finds it up.
        server.becomes("error" if (server.status, status) == ("error", "active") else status)
        assert told["status"] in self.api.may_be(server.status)
        self.detail(id_)

    @precondition(lambda self: self.probes is not None)
    @rule(id_=ids, verdict=st.sampled_from([*DOWN, *UP]))
    def check(self, id_, verdict):
        self.checked(id_, verdict)

    def checked(self, id_: int, verdict: Verdict) -> None:
        if self.probes is None:
            return
        self.probes.write(id_, verdict)
        server = self.servers[id_]
        if server.status != "inactive":
            server.checks.append(verdict)
            server.verdict = verdict
            server.becomes("active" if verdict in UP else "error")
        self.detail(id_)

    @rule(target=gone, id_=consumes(ids))
    def delete(self, id_):
        self.asked(204, "DELETE", f"{SERVERS}/{id_}")
        self.deleted[id_] = self.servers.pop(id_)
        return id_

    @rule(id_=gone, status=st.sampled_from(["active", "inactive"]), period=st.sampled_from(PERIODS))
    def a_deleted_one_is_nowhere(self, id_, status, period):
        self.asked(404, "GET", f"{SERVERS}/{id_}")
        self.asked(404, "GET", f"{SERVERS}/{id_}/health{period}")
        self.asked(404, "PATCH", f"{SERVERS}/{id_}", {"status": status})
        self.asked(404, "DELETE", f"{SERVERS}/{id_}")
        sent = self.deleted[id_].sent
        if self.by_name(sent["name"]) is None:
            self.by_digest(428, sent)

    @rule(target=ids, id_=gone)
    def a_deleted_one_comes_back_as_another(self, id_):
        return self.replaced(self.deleted[id_].sent)

    @rule(id_=ids)
    def detail(self, id_):
        got, server = self.asked(200, "GET", f"{SERVERS}/{id_}").json(), self.servers[id_]
        sent = server.sent
        for key in ("name", "display_name", "server_type", "endpoint_url", "description", "version"):
            assert got[key] == sent.get(key)
        assert got["status"] in self.api.may_be(server.status)
        self.last_check_is_right(server, got)
        metadata = sent.get("metadata")
        empty = {"author": None, "repository_url": None, "documentation_url": None, "tags": None}
        assert got["metadata"] == (None if metadata is None else empty | metadata)
        assert [tool["name"] for tool in got["tools"]] == [tool["name"] for tool in sent["tools"]]
        for got_tool, sent_tool in zip(got["tools"], sent["tools"], strict=True):
            for key in ("title", "description", "input_schema", "annotations"):
                assert repr(got_tool[key]) == repr(sent_tool.get(key))

    def last_check_is_right(self, server: Server, told: dict[str, Any]) -> None:
        if not self.api.shared:
            assert (told["last_check"] or {}).get("verdict") == server.verdict

    @rule(id_=ids, period=st.sampled_from(PERIODS))
    def history(self, id_, period):
        told, server = self.asked(200, "GET", f"{SERVERS}/{id_}/health{period}").json(), self.servers[id_]
        assert (told["server_id"], told["name"]) == (id_, server.sent["name"])
        assert told["period"] == (period.partition("=")[2] or "24h")
        assert told["status"] in self.api.may_be(server.status)
        if self.api.shared:
            return  # what the checks found, only the sweeps know
        self.last_check_is_right(server, told)
        checks, up = len(server.checks), sum(verdict in UP for verdict in server.checks)
        assert (told["checks"], told["up"]) == (checks, up)
        assert told["uptime_percent"] == (up * 100_000 // checks / 1000 if checks else None)
        assert [sum(point[key] for point in told["series"]) for key in ("checks", "up")] == [checks, up]
        assert [change["to"] for change in told["transitions"]] == server.became[::-1]

    @rule()
    def metrics(self):
        told = self.asked(200, "GET", METRICS).json()
        counted = told["servers"]
        assert sum(counted[status] for status in ("active", "inactive", "error")) == counted["total"]
        assert counted["total"] >= len(self.servers)
        day = told["last_24h"]
        assert day["checks"] >= day["up"]
        if not self.api.shared:
            assert day["checks"] >= sum(len(server.checks) for server in self.servers.values())

    @rule()
    def start_a_sweep(self):
        self.asked(401, "POST", JOB, headers={"x-cron-secret": self.prefix}, auth=None)
        if self.sweeps:
            answer = self.asked(202, "POST", JOB, headers={"x-cron-secret": str(self.api.cron_secret)}, auth=None)
            # Another one may be less than 5 s ago.
            assert answer.json()["result"] in ("started", "duplicate"), answer.body

    @rule()
    def is_well(self):
        assert self.asked(200, "GET", "/health", auth=None).json() == {"status": "ok"}

    @rule(
        limit=st.integers(1, 2),
        status=st.sampled_from(["active", None, "inactive", "error"]),
        kind=st.none() | st.sampled_from(KINDS),
        word=st.just("") | st.sampled_from(ALIKE),
        again=st.sampled_from(["left out", "repeated", "changed"]),
    )
    def walk(self, limit, status, kind, word, again):
        self.pages(limit, status, kind, word, again)

    def pages(
        self, limit: int, status: str | None = None, kind: str | None = None, word: str = "", again: str = "left out"
    ) -> None:
        """From page to page by the cursor, which brings the filters along; they may be repeated, but not changed."""
        if self.api.shared and status != "inactive":
            status = None  # a sweep may call one down between two pages
        search = f"{self.prefix}.{word}"
        wanted = [
            id_
            for id_, server in sorted(self.servers.items())
            if (status is None or server.status == status)
            and (kind is None or server.sent["server_type"] == kind)
            and search.lower() in server.sent["name"].lower()
        ]
        filters = f"&status={status}" if status else ""
        filters += f"&type={kind}" if kind else ""
        filters += f"&search={search}"
        query = f"limit={limit}{filters}"
        seen: list[int] = []
        while True:
            page = self.asked(200, "GET", f"{SERVERS}?{query}").json()
            assert (page["total"], page["total_is"]) == (len(wanted), "exact")
            seen += [server["id"] for server in page["servers"]]
            if page["next_cursor"] is None:
                break
            assert len(page["servers"]) == limit
            query = f"limit={limit}&cursor={page['next_cursor']}"
            if again == "repeated":
                query += filters
            elif again == "changed":
                self.asked(400, "GET", f"{SERVERS}?{query}{filters}x")
        assert seen == wanted

    @invariant()
    def what_is_there_is_listed(self):
        found = self.asked(200, "GET", f"{SERVERS}?search={self.prefix}&limit=1000").json()
        listed = {server["id"]: server["tools_count"] for server in found["servers"]}
        assert listed == {id_: len(server.sent["tools"]) for id_, server in self.servers.items()}
        for told in found["servers"]:
            assert told["status"] in self.api.may_be(self.servers[told["id"]].status)

    def teardown(self):
        for id_ in [*self.servers, *self.others]:
            self.api("DELETE", f"{SERVERS}/{id_}")
        if self.probes is not None:
            self.probes.forget()


def test_the_catalogue_answers_like_a_dictionary(api):
    machine = type("Machine", (Catalogue,), {"api": api})
    run_state_machine_as_test(
        machine,
        settings=settings(
            # Each example is some hundred requests, of which a stack that others use gets few.
            max_examples=int(os.environ.get("STATEFUL_EXAMPLES", "3" if api.shared else "15")),
            stateful_step_count=25,
            deadline=None,
            derandomize=bool(os.environ.get("CI")),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
