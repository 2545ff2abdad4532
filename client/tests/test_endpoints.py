"""What the command says of a server with several addresses: what is up, what is down, and what happened."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from client.tests.test_cli import ESCAPED, HOSTILE, Done, error
from client.tests.test_introspect import Answer, Asked, Stranger, current, respond, stranger
from mcp_registry_client import _moments, _views, cli
from mcp_registry_client._terminal import Screen, width

Run = Callable[..., Done]
ONE, TWO = "http://10.0.0.1:8000/mcp", "http://10.0.0.2:8000/mcp"


@pytest.fixture
def run(monkeypatch, capsys) -> Run:
    """Runs a command against a registry that a test plays."""
    for name in ("MCP_REGISTRY_URL", "MCP_REGISTRY_USERNAME", "MCP_REGISTRY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)

    def command(registry: Stranger, *arguments: str) -> Done:
        code = cli.main([*arguments, "--registry", registry.url.removesuffix("/mcp")])
        return Done(int(code), *capsys.readouterr())

    return command


NOW = datetime(2026, 11, 30, 18, 30, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _at_that_moment(monkeypatch) -> None:
    monkeypatch.setattr(_moments, "_now", lambda: NOW)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def endpoint(url: str, status: str = "active", verdict: str = "healthy", **more: Any) -> dict[str, Any]:
    """An endpoint as a detail has it, whose lease has six minutes left."""
    last = {
        "verdict": verdict,
        "status_code": None,
        "response_time_ms": 4,
        "error_message": None if status == "active" else "Nothing listens there: the connection was refused",
        "checked_at": ago(3),
        "since": ago(200),
        "times": 7,
    }
    return {
        "url": url,
        "status": status,
        "verdict": verdict,
        "declared": False,
        "announced_at": ago(240),
        "lease_until": ago(-370),
        "retired_at": None,
        "conflict_at": None,
        "last_check": None if status == "unknown" else last,
        "evidence": [],
    } | more


def detail(*endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A server as a registry has it."""
    first = endpoints[0]
    fields = {"name": "new", "display_name": "new", "status": first["status"], "server_type": "community"}
    now = {"verdict": first["verdict"], "frozen": False, "checked_at": ago(3), "last_check": first["last_check"]}
    return {"id": 7, **fields, "endpoint_url": first["url"], **now, "endpoints": list(endpoints), "tools": []} | more


def having(stored: dict[str, Any], health: dict[str, Any] | None = None) -> Answer:
    """A registry that has one server."""

    def answer(asked: Asked) -> Iterable[bytes]:
        if asked.method == "PUT":
            return respond(200, {"id": 7, "name": stored["name"], "status": "active", "result": "updated"})
        if asked.method == "DELETE":
            return respond(204, b"")
        return respond(200, health or {}) if "/health" in asked.path else respond(200, stored)

    return answer


# ------------------------------------------------------------------ register


@pytest.mark.parametrize(
    ("others", "seen"),
    [
        ([endpoint(ONE)], "(up, checked 3 s ago): "),
        ([endpoint(ONE, "unknown", "unknown")], "(not checked yet): "),
        ([endpoint(ONE), endpoint(TWO, "unknown", "unknown")], "(up, checked 3 s ago), and at 1 more: "),
    ],
)
def test_a_name_whose_server_answers_at_another_address_is_only_given_to_who_says_so(run, others, seen):
    with stranger(current()) as server, stranger(having(detail(*others))) as registry:
        sentence = error(run(registry, "register", "--url", server.url), 1)
        assert f"new is registered at {ONE} {seen}" in " ".join(sentence.split())
        assert "--name" in sentence and "--replace" in sentence and "PUT" not in registry.methods()
        done = run(registry, "register", "--url", server.url, "--replace")
        assert done.code == 0 and all(one["url"] in done.err for one in others)
        assert "x-registration-lease" not in registry.asked[-1].headers


def test_the_other_addresses_of_a_server_are_only_removed_where_somebody_says_so(run):
    with stranger(current()) as server, stranger(having(detail(endpoint(server.url), endpoint(ONE)))) as registry:
        sentence = " ".join(error(run(registry, "register", "--url", server.url), 1).split())
        assert f"new is also registered at {ONE} (up, checked 3 s ago): leave it this one address by " in sentence
        assert "PUT" not in registry.methods()
        done = run(registry, "register", "--url", server.url, "--replace")
        assert done.code == 0 and ONE in done.err


GONE = f"It has this one address now, and no longer {ONE}"


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([endpoint(ONE, "error", "refused")], f"{GONE}; one that announces itself is back at its next announcement."),
        ([endpoint(ONE, "error", "refused", lease_until=ago(5))], f"{GONE}."),
        ([endpoint(ONE, retired_at=ago(9))], ""),
        ([endpoint("HERE"), endpoint(ONE, "error", "refused", lease_until=None)], f"{GONE}."),
        ([endpoint("HERE", "error", "timeout")], ""),
    ],
)
def test_a_server_that_is_down_or_the_same_is_registered_and_the_addresses_that_it_loses_are_named(run, others, said):
    with stranger(current()) as server:
        here = server.url.replace("http://127", "HTTP://127")  # the same address
        stored = detail(*(one | {"url": one["url"].replace("HERE", here)} for one in others))
        with stranger(having(stored)) as registry:
            done = run(registry, "register", "--url", server.url)
    assert done.code == 0
    notes = [line for line in " ".join(done.err.split()).split("mcp-registry: ") if "address" in line]
    assert [line.strip() for line in notes] == ([said] if said else [])


def test_a_registry_of_before_has_one_address_for_each_server(run):
    stored = detail(endpoint(ONE))
    del stored["endpoints"], stored["verdict"], stored["frozen"]
    with stranger(current()) as server, stranger(having(stored)) as registry:
        assert ONE in error(run(registry, "register", "--url", server.url), 1)
        stored["status"] = "error"
        assert run(registry, "register", "--url", server.url).code == 0
        assert run(registry, "show", "new").code == 0
        assert "holds no names" in error(run(registry, "deregister", "new", "--yes", "--for", "1h"), 1)
        assert "DELETE" not in registry.methods()


# ------------------------------------------------------------------ deregister


def test_a_server_that_announces_itself_is_said_to_come_back_and_how_to_keep_it_out(run):
    ended = endpoint("http://10.0.0.3:8000/mcp", "error", "refused")
    stored = detail(endpoint(ONE), endpoint(TWO, lease_until=ago(5)), ended)
    with stranger(having(stored)) as registry:
        done = run(registry, "deregister", "new", "--yes")
        assert done.out == "removed new (id 7)\n"
        said = " ".join(done.err.split())
        assert f"new announces itself from {ONE} (last 4 min ago)" in said and "--for 1h" in said
        done = run(registry, "deregister", "new", "--yes", "--for", "90m")
        assert (done.out, done.err) == ("removed new (id 7): nobody can register the name for 90 min\n", "")
        document = run(registry, "deregister", "new", "--yes", "--for", "2d", "--json").document
        assert document["held_seconds"] == 172_800 and document["announced_from"] == [ONE]
        paths = [asked.path.partition("7")[2] for asked in registry.asked if asked.method == "DELETE"]
        assert paths == ["", "?hold=5400", "?hold=172800"]


def test_of_a_server_that_has_ended_nobody_says_that_it_will_be_back(run):
    ended = endpoint(ONE, "error", "refused")
    with stranger(having(detail(ended))) as registry:
        assert run(registry, "deregister", "new", "--yes").err == ""
    with stranger(having(detail(endpoint(ONE, "unknown", "unknown"), ended | {"url": TWO}))) as registry:
        assert f"from {ONE} (last" in " ".join(run(registry, "deregister", "new", "--yes").err.split())


@pytest.mark.parametrize("given", ["", "1", "59", "0m", "8d", "169h", "1h30m", "-1h", "1 h", "1H", "9" * 30 + "m"])
def test_a_time_that_is_none_holds_nothing(run, given):
    with stranger(having(detail(endpoint(ONE)))) as registry:
        assert "from 1m to 7d" in error(run(registry, "deregister", "new", "--yes", f"--for={given}"), 2)
        assert registry.asked == []


def test_a_held_name_is_refused_with_what_to_do(run):
    refusal = {"error": "This name is held until noon", "code": "HELD_NAME"}

    def answer(asked: Asked) -> Iterable[bytes]:
        return (
            respond(409, refusal) if asked.method == "PUT" else respond(404, {"error": "", "code": "SERVER_NOT_FOUND"})
        )

    with stranger(current()) as server, stranger(answer) as registry:
        assert "until noon: choose another name" in error(run(registry, "register", "--url", server.url), 1)


# ------------------------------------------------------------------ list


def test_a_list_is_narrowed_by_a_verdict_and_says_of_whom_the_status_is_held(run):
    rows = [
        {"id": 1, "name": "a", "status": "active", "verdict": "timeout", "frozen": True},
        {"id": 2, "name": "b", "status": "active", "verdict": "unknown", "frozen": False},
    ]
    with stranger(lambda _: respond(200, {"servers": rows, "total": 2, "next_cursor": None})) as registry:
        done = run(registry, "list", "--verdict", "unknown")
        assert registry.asked[0].path == "/api/registry/servers?limit=100&verdict=unknown"
        assert [re.split("  +", line.strip())[1:4] for line in done.out.splitlines()] == [
            ["NAME", "STATUS", "VERDICT"],
            ["a", "active", "timeout (held)"],
            ["b", "active", "unknown"],
        ]
        assert "the registry suspects its own network" in done.err
        error(run(registry, "list", "--verdict", "nice"), 2)


# ------------------------------------------------------------------ show


def change(
    seconds: float, url: str, what: str, former: str | None = None, verdict: str | None = None, reason: str = ""
):
    return {"at": ago(seconds), "url": url, "change": what, "from": former, "verdict": verdict, "reason": reason}


REFUSED = "Nothing listens there: the connection was refused"
ANSWERED = "The server answered the check"
# Two replicas, of which the second ends, and then the first.
STORY = [
    change(10, ONE, "verdict", "healthy", "refused", REFUSED),
    change(200, TWO, "verdict", "healthy", "refused", REFUSED),
    change(300, TWO, "verdict", None, "healthy"),
    change(301, TWO, "added", reason="It announced itself"),
    change(400, ONE, "verdict", None, "healthy"),
    change(401, ONE, "added", reason="It announced itself"),
]


def test_who_started_two_replicas_and_stopped_them_reads_what_happened(run):
    asked = {"asked": "initialize", "status": 502, "media_type": "text/html", "excerpt": "<h1>Bad", "took_ms": 12}
    first = endpoint(
        ONE, "error", "refused", last_check=endpoint(ONE, "error", "refused")["last_check"] | {"since": ago(10)}
    )
    stored = detail(first, endpoint(TWO, "error", "refused", evidence=[asked]), status="error")
    with stranger(having(stored, {"changes": STORY})) as registry:
        lines = run(registry, "show", "new").out.splitlines()
    assert lines[0] == "new  error"
    assert f"  Last check  refused in 4 ms, 3 s ago, 7 times in a row: {REFUSED}" in lines
    assert [re.split("  +", line.strip()) for line in lines[lines.index("Endpoints (2)") + 1 :][:3]] == [
        ["ADDRESS", "STATE", "CHECK", "LEASE"],
        [ONE, "down for 10 s", "refused, 3 s ago", "6 min left"],
        [TWO, "down for 3 min", "refused, 3 s ago", "6 min left"],
    ]
    assert f"  {TWO} was asked and answered:" in lines
    assert "    initialize  HTTP 502, text/html, after 12 ms: <h1>Bad" in lines
    begin = lines.index("What happened within 24 hours (UTC)") + 1
    assert lines[begin : begin + 6] == [
        f"  2026-11-30 18:29:50  {ONE} went down (refused): {REFUSED}",
        f"  2026-11-30 18:26:40  {TWO} went down (refused): {REFUSED}",
        f"  2026-11-30 18:25:00  {TWO} is up: healthy",
        f"  2026-11-30 18:24:59  {TWO} was added: It announced itself",
        f"  2026-11-30 18:23:20  {ONE} is up: healthy",
        f"  2026-11-30 18:23:19  {ONE} was added: It announced itself",
    ]


def test_who_has_not_been_checked_yet_is_told_when_that_will_be(run):
    with stranger(having(detail(endpoint(ONE, "unknown", "unknown")))) as registry:
        out = run(registry, "show", "new").out
    assert "  Last check  none yet: the first comes within seconds, and then one every half minute\n" in out
    assert re.search(rf"  {ONE} +not checked +never +6 min left\n", out)


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        (change(1, ONE, "verdict", "refused", "healthy", ANSWERED), "came back, and is healthy"),
        (change(1, ONE, "verdict", "healthy", "gated", ANSWERED), "mcp is now gated"),
        (
            change(1, ONE, "verdict", "refused", "gated", ANSWERED) | {"evidence": [{"status": None}, {"status": 401}]},
            "came back, and is gated (HTTP 401: it wants credentials)",
        ),
        (
            change(1, ONE, "verdict", None, "gated", ANSWERED) | {"evidence": [{"status": 402}]},
            "is up: gated (HTTP 402: it wants to be paid)",
        ),
        (
            change(1, ONE, "verdict", None, "gated", ANSWERED) | {"evidence": [{"status": 302}]},
            "is up: gated (HTTP 302: it has a login page)",
        ),
        (change(1, ONE, "verdict", "healthy", "limited", "429"), "is now limited: 429"),
        (change(1, ONE, "verdict", "refused", "timeout", "Late"), "is still down, now (timeout): Late"),
        (change(1, ONE, "verdict", None, "dns", "No name"), "is down (dns): No name"),
        (change(1, ONE, "retired", reason="No lease"), "was retired, and is not checked any more: No lease"),
        (change(1, ONE, "removed", reason="By hand"), "was removed: By hand"),
        (change(1, ONE, "conflict", reason="It offers another"), "is another server: It offers another"),
        (change(1, ONE, "of tomorrow", reason="?"), "of tomorrow: ?"),
    ],
)
def test_a_change_is_told_in_words(happened, words):
    assert f"{happened['url']} {_views._happened(happened)}".endswith(words)


@pytest.mark.parametrize(("more", "told"), [(412, " (and 412 more changes before it)"), (0, ""), (None, ""), ("9", "")])
def test_of_an_endpoint_that_changes_all_the_time_it_is_told_how_often(run, more, told):
    changes = [change(8, ONE, "verdict", "healthy", "refused", REFUSED) | {"more": more}]
    with stranger(having(detail(endpoint(ONE)), {"changes": changes})) as registry:
        said = " ".join(run(registry, "show", "new").out.split())
    assert f"{ONE} went down (refused): {REFUSED}{told} " in said + " "


@pytest.mark.parametrize(("registered", "is_told"), [(ago(86_000), True), (ago(86_500), False), (None, False)])
def test_what_happened_begins_with_the_registration_and_within_a_second_one_is_added_before_it_is_up(
    run, registered, is_told
):
    # The clock of who looked is behind that of who was told.
    changes = [
        change(8, TWO, "verdict", None, "healthy", ANSWERED),
        change(9.2, TWO, "added", reason="It announced itself"),
        change(9.8, TWO, "verdict", "healthy", "refused", REFUSED),
        change(9.9, TWO, "verdict", None, "healthy", ANSWERED),
        change(20, ONE, "verdict", None, "healthy", ANSWERED),
    ]
    stored = detail(endpoint(ONE), endpoint(TWO), created_at=registered)
    with stranger(having(stored, {"changes": changes})) as registry:
        lines = run(registry, "show", "new").out.splitlines()
    begin = lines.index("What happened within 24 hours (UTC)") + 1
    told = [line[23:] for line in lines[begin : lines.index("", begin)]]
    assert told == [
        f"{TWO} is up: healthy",
        f"{TWO} went down (refused): {REFUSED}",
        f"{TWO} is up: healthy",
        f"{TWO} was added: It announced itself",
        f"{ONE} is up: healthy",
        *(["The server was registered"] if is_told else []),
    ]


@pytest.mark.parametrize(
    ("one", "state", "lease"),
    [
        (endpoint(ONE), "up for 3 min", "6 min left"),
        (endpoint(ONE, lease_until=None, declared=True), "up for 3 min", "by hand"),
        (endpoint(ONE, lease_until=ago(70)), "up for 3 min", "over 1 min ago"),
        (endpoint(ONE, "unknown", "unknown"), "not checked", "6 min left"),
        (endpoint(ONE, "error", "refused", retired_at=ago(130)), "retired 2 min ago", ""),
        (endpoint(ONE, conflict_at=ago(5)), "another server", "6 min left"),
    ],
)
def test_the_state_and_the_lease_of_an_endpoint_are_told_in_words(one, state, lease):
    assert (_views._state(one).text, _views._lease(one)) == (state, lease)


def test_how_one_gets_into_a_gated_server_and_why_a_status_is_held_is_said(run):
    auth = {
        "status": 401,
        "schemes": ["Bearer"],
        "realm": "tools",
        "resource_metadata": "https://h.example/meta",
        "issuer": "https://login.example",
        "scopes": ["read", "write"],
        "header": None,
        "location": None,
    }
    stored = detail(endpoint(ONE, verdict="gated"), auth=auth, frozen=True)
    with stranger(having(stored)) as registry:
        out = run(registry, "show", "new").out
        assert out.startswith("new  active (the registry suspects its own network, and leaves it so)\n")
        assert re.search("Status +held: the registry suspects its own network", out)
        for field, value in {
            "Credentials": r"Bearer \(realm tools\)",
            "Token from": "https://login.example",
            "Scopes": "read, write",
            "Explained at": "https://h.example/meta",
        }.items():
            assert re.search(f"  {field} +{value}\n", out)
        assert "in a row" not in out
        stored["auth"] = {"status": 401, "schemes": [], "header": "X-API-Key", "scopes": []}
        assert re.search("  Header +X-API-Key\n", run(registry, "show", "new").out)
        stored["auth"] = {"status": 403, "schemes": [], "scopes": []}
        assert "it does not say which" in run(registry, "show", "new").out


def test_what_was_observed_of_a_server_is_shown(run):
    observed = {
        "at": ago(300),
        "era": "sse",
        "protocol_versions": ["2024-11-05"],
        "server_info": {"name": "w", "version": "1.2"},
        "tools_count": 1,
        "prompts_count": 2,
        "resources_count": 0,
        "incomplete": {"prompts": "Page 2: late"},
    }
    with stranger(having(detail(endpoint(ONE), observed=observed))) as registry:
        out = run(registry, "show", "new").out
    for line in ("MCP 2024-11-05 over SSE, seen 5 min ago", "w 1.2", "1 tool, 2 prompts", "prompts: Page 2: late"):
        assert f"  {line}\n" in out


def test_nothing_that_a_server_was_found_to_say_reaches_the_terminal_raw(run):
    asked = {"asked": HOSTILE, "status": 200, "media_type": HOSTILE, "excerpt": HOSTILE, "took_ms": HOSTILE}
    auth = dict.fromkeys(("realm", "resource_metadata", "issuer", "header", "location"), HOSTILE)
    observed = {"protocol_versions": [HOSTILE], "server_info": {"name": HOSTILE}, "incomplete": {HOSTILE: HOSTILE}}
    one = endpoint(HOSTILE, "error", HOSTILE, evidence=[asked], lease_until=HOSTILE, retired_at=None)
    stored = detail(
        one, auth=auth | {"schemes": [HOSTILE], "scopes": [HOSTILE]}, observed=observed, announced_at=HOSTILE
    )
    changes = [dict.fromkeys(("at", "url", "change", "from", "verdict", "reason"), HOSTILE), {"at": []}, 7]
    with stranger(having(stored, {"changes": changes})) as registry:
        done = run(registry, "show", "new")
    assert done.code == 0 and "evil" in done.out and not ESCAPED.search(done.out + done.err)


@pytest.mark.parametrize("strange", [7, "x", [], {}, None, [7, {"url": 7, "last_check": 7, "evidence": 7}]])
def test_what_no_registry_says_of_endpoints_ends_no_command(run, strange):
    stored = detail(endpoint(ONE)) | dict.fromkeys(("endpoints", "auth", "observed", "announced_at"), strange)
    with stranger(having(stored, {"changes": strange})) as registry:
        assert run(registry, "show", "new").code == 0


def test_a_server_with_many_words_fits_a_terminal_of_80_columns(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    long_url = f"https://mcp-{'n' * 40}.example/path/{'p' * 30}/mcp"
    stored = detail(endpoint(long_url, "error", "http_error"), endpoint(ONE))
    screen = Terminal()
    _views.show_server(Screen(screen), stored, {"changes": [change(9, ONE, "verdict", "healthy", "refused", REFUSED)]})
    _views.show_list(Screen(screen), [stored | {"frozen": True, "name": "n" * 90, "display_name": "d" * 90}])
    # A word is never broken, and an address is one.
    assert all(width(line) <= 80 for line in screen.getvalue().splitlines() if long_url not in line)
