"""The commands about what servers offer, against the running registry: what changed, what differs, what is approved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from client.tests.conftest import BASIC
from client.tests.programs import free_port
from client.tests.test_cli import COMMAND, SOURCES, Done, Terminal, error
from client.tests.test_introspect import older, respond, result, stranger
from mcp_registry_client import _api, _identity, _ledger, _settings, cli
from tests.api.transport import connect, exchange
from tests.conftest import CRON_SECRET, PASSWORD, USERNAME, Api, Local, over_http
from tests.offers import offer


@pytest.fixture
def api(stack_url: str) -> Api:
    return Api(over_http(stack_url), in_process=False)


@pytest.fixture
def environment(stack_url: str) -> dict[str, str]:
    """What a command is started with."""
    given = {"URL": stack_url, "USERNAME": USERNAME, "PASSWORD": PASSWORD}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    return kept | {f"MCP_REGISTRY_{name}": value for name, value in given.items()} | {"PYTHONPATH": str(SOURCES)}


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process."""
    for name, value in environment.items():
        if name.startswith("MCP_"):
            monkeypatch.setenv(name, value)

    def command(*arguments: str) -> Done:
        code = int(cli.main(arguments))
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return command


@pytest.fixture(scope="module")
def looking(new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that looks at a server when it registers, and when it is asked to."""
    local = Local(
        {
            "HEALTH_SWEEPS": "once",
            "PORT": "0",
            "DATABASE_URL": new_database(migrated=False),
            "DATA_DIR": str(tmp_path_factory.mktemp("looking")),
            "REGISTRY_USERNAME": USERNAME,
            "REGISTRY_PASSWORD": PASSWORD,
        }
    )
    try:
        yield local.wait_until_ready()
    finally:
        assert local.stop() == 0


@pytest.fixture
def name(api: Api) -> str:
    """A server that went out of service and back: which are two changes."""
    made = api.register()
    for status in ("inactive", "active"):
        flip(api, made["id"], status)
    return made["name"]


def flip(api: Api, number: int, status: str) -> None:
    assert api("PATCH", f"/api/registry/servers/{number}", {"status": status}).status == 200


def lines(text: str) -> list[Any]:
    """The documents on stdout, of which each is one line."""
    return [json.loads(line) for line in text.splitlines()]


# ------------------------------------------------------------------ changes


def test_what_became_of_a_server_is_told_in_order_also_when_it_has_gone(run, api, name):
    told = lines(run("changes", "--server", name, "--kind", "status", "--json").out)
    assert [change["after"]["status"] for change in told] == ["inactive", "active"]
    first, second = (change["sequence"] for change in told)
    since = lines(run("changes", "--server", name, "--kind", "status", "--json", "--since", str(first)).out)
    assert [change["sequence"] for change in since] == [second]
    assert run("deregister", name, "--yes").code == 0
    done = run("changes", "--server", name, "--since", "1h")
    assert done.code == 0 and not done.err
    assert "active -> inactive" in done.out and "removed from the registry" in done.out
    assert done.out.splitlines()[0].split() == ["NO.", "WHEN", "(UTC)", "GRADE", "SERVER", "WHAT"]


def test_of_a_server_that_nobody_knows_there_is_no_change(run):
    assert "No server has the name" in error(run("changes", "--server", "nobody-at-all"), 3)
    assert lines(run("changes", "--owner", "nobody", "--json").out) == []
    assert "--since 30d" in run("changes", "--owner", "nobody").err
    assert "the number of a change" in error(run("changes", "--since", "yesterday"), 2)


def test_a_time_is_found_among_more_changes_than_a_page_has(run, api, stack_database_url):
    made = api.register()
    # Four thousand changes, one a minute, of which the last is of just now.
    past = """INSERT INTO registry.changes (server_id, name, owner, kind, occurred_at)
              SELECT %s, %s, 'default', 'unstable', now() - (4000 - n) * interval '1 minute'
                FROM generate_series(1, 4000) AS n"""
    with psycopg.connect(stack_database_url, autocommit=True) as connection:
        connection.execute(past, (made["id"], made["name"]))
    asked = ("changes", "--server", made["name"], "--kind", "unstable", "--json")
    assert len(lines(run(*asked, "--since", "30m").out)) in (29, 30)
    assert len(lines(run(*asked, "--since", "1500m").out)) in (1499, 1500)
    assert len(lines(run(*asked, "--since", "0").out)) == 4000


class Relay:
    """What stands between the command and the registry, and fails when it is told to."""

    def __init__(self, url: str) -> None:
        # What becomes of the requests to come: a status, None where the connection is just closed.
        self.troubles: list[int | None] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if relay.troubles:
                    trouble = relay.troubles.pop(0)
                    if trouble is not None:
                        self.answer(trouble, b'{"error": "Not now", "code": "UNAVAILABLE"}')
                    return
                connection = connect(urlsplit(url))
                found = exchange(connection, "", "GET", self.path, [("authorization", BASIC)], b"")
                connection.close()
                self.answer(found.status, found.body)

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("retry-after", "7")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def relay(stack_url: str) -> Iterator[Relay]:
    started = Relay(stack_url)
    yield started
    started.close()


def test_who_follows_misses_nothing_and_hears_nothing_twice_whatever_fails_between(
    api,
    relay,
    stack_url,
    monkeypatch,
    capsys,
):
    made = api.register()
    identities = _identity.Identities(_settings.Settings(relay.url, username=USERNAME, password=PASSWORD))
    registry = _api.Registry(relay.url, identities, 30)
    acts: list[Callable[[], None]] = []
    waits: list[float] = []
    expected = 0

    def act(status: str, *troubles: int | None) -> Callable[[], None]:
        def happen() -> None:
            nonlocal expected
            flip(api, made["id"], status)
            expected += 1
            relay.troubles += troubles

        return happen

    acts += [act("inactive"), act("active", 503, None), lambda: None, lambda: None, act("inactive", 429), lambda: None]

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if not acts:
            raise KeyboardInterrupt
        acts.pop(0)()

    monkeypatch.setattr(_ledger, "_sleep", sleep)
    found: list[dict[str, Any]] = []
    followed = _ledger._pages(registry, {"server": made["name"], "kind": "status"}, 0, None, follow=True)
    with pytest.raises(KeyboardInterrupt):
        found.extend(change for page in followed for change in page)
    numbers = [change["sequence"] for change in found]
    assert [change["after"]["status"] for change in found] == ["inactive", "active", "inactive"]
    assert numbers == sorted(set(numbers)) and expected == 3
    # It waits longer where nothing comes, as long as it is told to where it is refused, and half a minute at most.
    assert waits[0] > _ledger.FIRST_WAIT and 7 in waits and max(waits) <= _ledger.LONGEST_WAIT
    assert capsys.readouterr().err.count("It is asked again until it answers") == 2


def test_who_is_not_let_in_follows_nothing(api, relay, monkeypatch):
    monkeypatch.setattr(_ledger, "_sleep", lambda _: relay.troubles.append(401))
    registry = _api.Registry(relay.url, _identity.Identities(_settings.Settings(relay.url)), 30)
    with pytest.raises(_ledger.Stopped, match="credentials"):
        list(_ledger._pages(registry, {}, 10**9, None, follow=True))
    relay.troubles.append(503)
    with pytest.raises(_ledger.Stopped, match="try again in 7 seconds"):
        list(_ledger._pages(registry, {}, 0, None, follow=True))


@contextmanager
def following(environment: dict[str, str], *arguments: str) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, "changes", "--follow", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_who_follows_is_told_at_once_and_ends_it_by_ctrl_c(environment, api, name):
    with following(environment, "--server", name, "--kind", "status", "--json") as process:
        assert process.stdout is not None and process.stderr is not None
        told = [json.loads(process.stdout.readline()) for _ in range(2)]
        flip(api, told[0]["server_id"], "inactive")
        told.append(json.loads(process.stdout.readline()))
        assert [change["after"]["status"] for change in told] == ["inactive", "active", "inactive"]
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stdout.read(), process.stderr.read()) == (0, "", "")


# ------------------------------------------------------------------ what is offered


CONVERT = {"name": "convert", "description": "Converts any amount.", "inputSchema": {"type": "object"}}
TAKES = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
POISONED = CONVERT | {"description": "Converts an\u200b amount.", "inputSchema": TAKES}


@pytest.fixture
def changed(api, stack_database_url) -> str:
    """A server that declares a tool, was seen to offer it, and was seen to offer another one of its name later."""
    made = api.register()
    with psycopg.connect(stack_database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM registry.ledger WHERE server_id = %s", (made["id"],))
        connection.execute("DELETE FROM registry.snapshots WHERE server_id = %s", (made["id"],))
        others = {"prompts": [], "resources": [], "templates": []}
        offer(connection, made["id"], {"tools": [CONVERT], **others}, "declared", "2026-11-01T00:00:00Z")
        offer(connection, made["id"], {"tools": [CONVERT], **others}, "observed", "2026-11-02T00:00:00Z")
        about = {"instructions": "Ask.", "server_info": {"name": "x"}, "capabilities": {"tools": {}}}
        later = "2026-11-30T12:00:00.5Z"
        offer(connection, made["id"], {"tools": [POISONED], **others}, "observed", later, about=about)
    return made["name"]


def test_what_differs_since_a_time_is_shown_word_by_word(run, changed):
    for since in ("2026-11-02", "2026-11-30T12:00:00Z", "2026-11-30T14:00:00+02:00"):
        done = run("diff", changed, "--since", since)
        assert done.code == 0 and not done.err
        assert "Converts [-any-]{+an\\u200b+} amount." in done.out and "\u200b" not in done.out
        assert "    amount     number  yes       added\n" in done.out
    declared = run("diff", changed, "--declared").out
    assert "Converts [-any-]{+an\\u200b+} amount." in declared
    # A registration declares tools only: what else there is is no difference to it.
    assert [line for line in declared.splitlines() if line[:2] in ("+ ", "- ", "~ ")] == ["~ tool convert"]
    # What was there before there was anything.
    assert "+ tool convert\n" in run("diff", changed, "--since", "2026-10-01").out
    done = run("diff", changed)
    assert done.code == 0 and "Nothing differs" in done.err
    document = run("diff", changed, "--since", "2026-11-02", "--json").document
    assert ("tool", "convert") in [(one["kind"], one["subject"]) for one in document["differences"]]
    assert document["before"]["first_seen"].startswith("2026-11-02") and document["after"]["source"] == "observed"


def test_the_number_of_a_change_means_what_was_there_before_it(run, changed, stack_database_url):
    insert = """INSERT INTO registry.changes (server_id, name, owner, source, kind, subject, grade, before, after)
                SELECT id, name, owner, 'observed', 'tool', 'convert', 'breaking', '{}', '{}'
                  FROM registry.mcp_servers WHERE name = %s RETURNING id"""
    with psycopg.connect(stack_database_url, autocommit=True) as connection:
        row = connection.execute(insert, (changed,)).fetchone()
    assert row is not None
    assert "[-any-]" in run("diff", changed, "--since", str(row[0])).out
    assert "No change has the number" in error(run("diff", changed, "--since", "999999999"), 2)


def test_what_was_observed_is_shown_with_what_it_declares_otherwise(run, changed, api):
    done = run("show", changed, "--observed")
    assert done.code == 0 and "since 2026-11-30 12:00:00 UTC" in done.out
    assert "  ~ convert  Converts an\\u200b amount.\n" in done.out and "~ is declared otherwise" in done.out
    document = run("show", changed, "--observed", "--json").document
    assert document["observed"]["tools"] == [POISONED] and document["differences"][0]["before"] == CONVERT


def test_an_offer_of_many_pages_is_read_whole(run, api, stack_database_url):
    made = api.register()
    tools = [CONVERT | {"name": f"t{n}", "description": f"{n} " * 4_000} for n in range(400)]
    with psycopg.connect(stack_database_url, autocommit=True) as connection:
        offer(connection, made["id"], {"tools": tools, "prompts": [{"name": "p"}], "resources": [], "templates": []})
    observed = run("show", made["name"], "--observed", "--json").document["observed"]
    assert observed["tools"] == tools and observed["prompts"] == [{"name": "p"}]


def test_a_server_that_nobody_has_looked_at_is_said_to_be_that(run, api, monkeypatch):
    name = api.register()["name"]
    done = run("show", name, "--observed")
    assert done.code == 0 and "Tools (0)" in done.out
    done = run("diff", name)
    assert done.code == 0 and f"mcp-registry observe {name} --wait" in " ".join(done.err.split())
    assert run("observe", name).out.startswith(f"asked {name}: ")
    monkeypatch.setattr(_ledger, "LOOK_SECONDS", 0)
    assert f"No look at {name} has come" in error(run("observe", name, "--wait"), 4)


def test_who_waits_for_a_look_at_a_server_that_is_down_is_told_so(run, api, monkeypatch):
    name = api.register(endpoint_url=f"http://127.0.0.1:{free_port()}/mcp")["name"]
    waited: list[float] = []

    def sweep(seconds: float) -> None:
        waited.append(seconds)
        headers = {"x-cron-secret": CRON_SECRET}
        assert api("POST", "/api/jobs/health-check", headers=headers, auth=None).status in (200, 202)

    monkeypatch.setattr(_ledger, "_sleep", sweep)
    done = run("observe", name, "--wait")
    assert waited and done.code == 4 and done.out.startswith(f"{name}  down (refused): ")
    assert run("disable", name).code == 0
    assert "mcp-registry enable NAME" in error(run("observe", name), 1)


# ------------------------------------------------------------------ what a curator decides


def test_nobody_is_asked_where_nobody_can_answer(run):
    for decision in ("approve", "reject"):
        assert "give the digest, or add --yes" in error(run(decision, "weather"), 2)
    assert "a digest is expected" in error(run("approve", "weather", "xyz"), 2)
    assert "No registry" not in error(run("approve", "nobody-at-all", "--yes"), 3)


def test_a_tool_that_changes_is_seen_graded_shown_and_handed_out_when_a_curator_says_so(
    run, environment, looking, monkeypatch
):
    monkeypatch.setenv("MCP_REGISTRY_URL", looking)
    at_terminal = environment | {"MCP_REGISTRY_URL": looking, "TERM": "xterm", "NO_COLOR": "1"}
    tools: list[dict[str, Any]] = [CONVERT]

    def told(kind: str) -> list[dict[str, Any]]:
        return lines(run("changes", "--server", "rates", "--kind", kind, "--json").out)

    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "x", "version": "1"},
    }
    answering = older(
        initialize=lambda asked: respond(200, result(asked, hello), "application/json", "Mcp-Session-Id: s-1"),
        tools_list=lambda asked: respond(200, result(asked, {"tools": tools})),
    )
    with stranger(answering) as server:
        assert run("register", "--url", server.url, "--name", "rates").code == 0
        assert run("observe", "rates", "--wait").code == 0
        until(lambda: run("approvals", "rates", "--json").document["current"]["source"] == "observed")
        assert "its tools are those that it declares" in run("show", "rates", "--observed").out
        # Of what nobody has approved of nothing is handed out.
        assert "awaiting" in run("policy", "rates", "manual").out
        assert "awaiting: mcp-registry approvals\n" in run("show", "rates").out
        assert "+ tool convert" in run("diff", "rates").out
        approved = run("approve", "rates", "--yes", "--reason", "Read by us")
        assert approved.code == 0 and approved.out.startswith("approved rates (digest ")
        assert "Nothing differs" in run("diff", "rates").err

        tools[:] = [POISONED]
        seen = run("observe", "rates", "--wait")
        assert seen.code == 0, seen
        (change,) = until(lambda: told("tool"))
        assert (change["subject"], change["grade"]) == ("convert", "alarming")
        assert "tool convert: " in run("changes", "--server", "rates").out
        assert "  review needed" in run("approvals", "rates").out
        poison = "Converts [-any-]{+an\\u200b+} amount."
        assert poison in run("diff", "rates").out

        # Who is asked has seen what it is about.
        terminal = Terminal(at_terminal, "approve", "rates", columns=100)
        terminal.wait_for("[y/N]")
        assert poison in terminal.text and "What differs from what is handed out (1)" in terminal.text
        terminal.type("n\n")
        assert terminal.end().code == 1
        rejected = run("reject", "rates", "--yes", "--reason", "An invisible character")
        assert rejected.code == 0
        shown = " ".join(run("approvals", "rates").out.split())
        assert "rates rejected" in shown and "An invisible character" in shown and "approved" in shown
        assert "[-any-]" in run("diff", "rates").out
        # A decision is about a digest, which the beginning of it names.
        digest = run("approvals", "rates", "--json").document["current"]["digest"]
        assert run("approve", "rates", digest[:12]).code == 0
        assert "Nothing differs" in run("diff", "rates").err
        assert error(run("approve", "rates", "0" * 64), 3) and error(run("approve", "rates", "0" * 12), 2)
        assert "auto (set for this server)" in run("policy", "rates", "auto").out
        assert "mcp-registry policy NAME manual" in error(run("reject", "rates", "--yes"), 1)
        assert "(the registry's)" in run("policy", "rates", "default").out


def until(found: Callable[[], Any]) -> Any:
    """What is found, once there is something."""
    deadline = time.monotonic() + 60
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process writes it: there is nothing to wait on
    return value
