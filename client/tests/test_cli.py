"""The command `mcp-registry` against the running local stack, real servers, and strangers on loopback."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import hypothesis
import pytest
from hypothesis import strategies as st
from mcp_registry.catalogue import names

from client.tests.test_introspect import Asked, current, hang, older, respond, result, stranger, tool
from mcp_registry_client import (
    _api,
    _document,
    _ending,
    _options,
    _settings,
    _terminal,
    _tools,
    _views,
    cli,
    introspect,
)
from mcp_registry_client._terminal import Cell, Column
from tests.conftest import CRON_SECRET, PASSWORD, USERNAME, Api, over_http, registration
from tests.real.fixtures import TOKEN

SOURCES = Path(cli.__file__).parent.parent
COMMAND = [sys.executable, "-m", "mcp_registry_client.cli"]
# What a terminal would obey: clear the screen, write to the clipboard, change colours, and write from right to left.
HOSTILE = "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b31m\x7f\u202eevil\u2066\u200b\r\n"
SEQUENCE = re.compile(r"\x1b\[[0-9;]*m")
ESCAPED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def api(stack_url) -> Api:
    return Api(over_http(stack_url), in_process=False)


@pytest.fixture
def environment(stack_url) -> dict[str, str]:
    """What a command is started with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MCP_", "COLUMNS", "NO_COLOR"))}
    return kept | {
        "MCP_REGISTRY_URL": stack_url,
        "MCP_REGISTRY_USERNAME": USERNAME,
        "MCP_REGISTRY_PASSWORD": PASSWORD,
        "PYTHONPATH": str(SOURCES),
        "TERM": "xterm",
    }


@pytest.fixture
def run(environment, monkeypatch, capsys):
    """Runs a command in this process, as often as a test likes: what it prints, and its exit code."""
    for name in ("MCP_REGISTRY_URL", "MCP_REGISTRY_USERNAME", "MCP_REGISTRY_PASSWORD"):
        monkeypatch.setenv(name, environment[name])

    def command(*arguments: str) -> Done:
        code = cli.main(arguments)
        return Done(int(code), *capsys.readouterr())

    return command


def spawn(environment: dict[str, str], *arguments: str, given: str = "") -> Done:
    """Run the real command."""
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, input=given, capture_output=True, text=True, timeout=60
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Terminal:
    """The real command at a terminal."""

    def __init__(self, environment: dict[str, str], *arguments: str, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            [*COMMAND, *arguments], env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.text = ""

    def wait_for(self, words: str) -> None:
        """Read until something is on the screen."""
        while words not in self.text:
            self.text += os.read(self._master, 0x10000).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def send(self, data: bytes) -> None:
        os.write(self._master, data)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> Done:
        """Read to the end."""
        while True:
            try:
                data = os.read(self._master, 0x10000)
            except OSError:  # Linux says by it that the other end is closed
                break
            if not data:
                break
            self.text += data.decode(errors="replace")
        os.close(self._master)
        return Done(self._process.wait(30), self.text.replace("\r\n", "\n"), "")


def error(done: Done, code: int) -> str:
    """The sentence of a command that failed, which is the same for people and programs."""
    assert done.code == code, done
    assert done.err.startswith("mcp-registry: ") and "Traceback" not in done.err
    return done.err


# ------------------------------------------------------------------ register


def test_a_running_server_is_registered_once_and_then_unchanged(run, api, real):
    name = api.new_name("weather")
    arguments = ("register", "--url", real["example"].url, "--name", name, "--tag", "geo", "--tag", "sky")
    first, second = run(*arguments), run(*arguments)
    assert (first.code, second.code) == (0, 0) and not first.err + second.err
    assert first.out.startswith(f"created {name} (id ") and second.out.startswith(f"unchanged {name} (id ")
    assert run(*arguments, "--type", "official").out.startswith(f"updated {name} (id ")
    detail = run("show", name, "--json").document["server"]
    assert detail["metadata"]["tags"] == ["geo", "sky"]
    assert [tool["name"] for tool in detail["tools"]] == ["forecast"]
    assert (detail["server_type"], detail["version"]) == ("official", "4.1.2")


def test_what_registers_is_what_the_dry_run_shows(run, api, real):
    name = api.new_name("dry")
    arguments = ("register", "--url", real["older-lambda"].url, "--name", name, "--health-url", "/health", "--json")
    document = run(*arguments, "--dry-run").document
    assert api("GET", f"/api/registry/servers?search={name}").json()["total"] == 0
    assert document["name"] == name and document["health_url"] == "/health"
    answer = api("PUT", "/api/registry/register", document)
    assert answer.status == 201
    assert run(*arguments).document["result"] == "unchanged"


def test_a_dry_run_needs_no_registry(environment, real):
    done = spawn(environment | {"MCP_REGISTRY_URL": ""}, "register", "--url", real["example"].url, "--dry-run")
    assert done.code == 0 and not done.err
    assert re.search(r"Name +weather\n", done.out) and "forecast  The forecast for a place." in done.out


def test_a_gated_server_is_registered_with_the_header_that_it_wants(run, api, real, tmp_path):
    arguments = ("register", "--url", real["older-gated"].url, "--name", api.new_name("gated"))
    assert "--header 'Authorization: Bearer ...'" in error(run(*arguments), 5)
    assert run(*arguments, "--header", f"Authorization: Bearer {TOKEN}").out.startswith("created")
    (tmp_path / "headers").write_text(f"Authorization: Bearer {TOKEN}\n\nX-Other: 1\n")
    assert run(*arguments, "--header", f"@{tmp_path / 'headers'}").out.startswith("unchanged")
    assert "cannot be read" in error(run(*arguments, "--header", f"@{tmp_path / 'none'}"), 2)


def test_a_server_over_sse_is_registered_with_its_tools(run, api, real):
    name = api.new_name("sse")
    assert run("register", "--url", real["older-sse"].url, "--name", name).out.startswith(f"created {name} (id ")
    assert run("show", name, "--json").document["server"]["tools"]


def test_a_server_that_cannot_be_asked_is_not_registered(run, api, real):
    assert "does not speak MCP" in error(run("register", "--url", f"{real['example'].root}/none"), 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        assert "Nothing listens" in error(run("register", "--url", url), 4)


def test_a_server_whose_framework_named_it_needs_a_name(run, api, real):
    sentence = error(run("register", "--url", real["current-bridge"].url), 1)
    assert "is what its framework calls a server without one" in sentence and "--name" in sentence
    # What frameworks call everyone would be one server in the registry, each of them in turn.
    for given in ("FastMCP", "mcp-server"):
        with stranger(older(initialize=introduced(name=given, version="1"))) as server:
            assert "--name" in error(run("register", "--url", server.url), 1)
    name = api.new_name("bridge")
    done = run("register", "--url", real["current-bridge"].url, "--name", name, "--dry-run", "--json")
    assert (done.document["name"], done.document["display_name"]) == (name, name)


def test_a_registration_that_is_refused_names_each_fault(run, real):
    done = run("register", "--url", real["example"].url, "--name", "api", "--documentation-url", "ftp://x")
    assert "mend what is named below, the name by --name" in error(done, 1)
    assert "\n  name: This name is reserved" in done.err and "\n  metadata.documentation_url: " in done.err
    document = run("register", "--url", real["example"].url, "--name", "api", "--json").document
    assert (document["code"], document["exit_code"], document["details"][0]["path"]) == ("VALIDATION_ERROR", 1, "name")


def test_a_name_in_another_spelling_is_refused_with_the_stored_one(run, api, real):
    name = api.register()["name"]
    sentence = error(run("register", "--url", real["example"].url, "--name", name.upper()), 1)
    assert name in sentence and "--name" in sentence


def introduced(**info: Any) -> Any:
    """An answer to `initialize` that says this of the server."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info}
    return lambda asked: respond(200, result(asked, hello), "application/json", "Mcp-Session-Id: s-1")


@pytest.mark.parametrize("given", ["acme/weather", "Café rates", "@scope/a/b", "weather", "天气", "w" * 250])
def test_the_command_calls_a_server_what_the_library_calls_it(run, given):
    with stranger(older(initialize=introduced(name=given, version="1"))) as server:
        sent = run("register", "--url", server.url, "--dry-run", "--json").document
    facts = _tools.facts(SimpleNamespace(name=given, version="1"))
    assert sent == _document.document({}, facts, server.url, sent["tools"])


def test_everything_that_the_library_may_say_of_a_server_the_command_may_say(run, api, real):
    name = api.new_name("about")
    about = {
        "author": "Ann",
        "repository_url": "https://h.example/src",
        "documentation_url": "https://h.example/docs",
        "description": "What it is for",
        "version": "7.0",
    }
    options = [text for field, value in about.items() for text in (f"--{field.replace('_', '-')}", value)]
    arguments = ("register", "--url", real["example"].url, "--name", name)
    assert run(*arguments, *options, "--tag", "geo", "--type", "official").out.startswith("created")
    detail = run("show", name, "--json").document["server"]
    said = {**detail, **detail["metadata"]}
    assert {field: said[field] for field in about} == about and said["tags"] == ["geo"]
    # What an earlier registration had and this one has not is named, once it is gone.
    done = run(*arguments)
    assert done.out.startswith("updated") and done.err.startswith("The former registration had what this one has not: ")
    for lost in (
        "author",
        "repository_url",
        "documentation_url",
        "tags",
        "type official",
        "--author",
        "--tag",
        "--type",
    ):
        assert lost in done.err
    assert "version" not in done.err  # the server says one itself
    assert not run(*arguments).err


@pytest.mark.parametrize(
    "arguments",
    [
        ("register", "--url", "http://127.0.0.1/mcp?a=1"),
        ("register", "--url", "http://127.0.0.1/mcp#a"),
        ("register", "--url", "http://127.0.0.1/a/../mcp"),
        ("register", "--url", "http://127.0.0.1:9001/mcp"),
        ("register", "--url", "http://127.0.0.1/app", "--health-url", "app2/health"),
        ("check", "--url", "http://127.0.0.1/app", "--health-url", "app2/health"),
    ],
)
def test_a_url_that_the_registry_would_refuse_is_refused_before_the_server_is_asked(run, monkeypatch, arguments):
    monkeypatch.setattr(socket, "socket", None)  # nobody dials
    error(run(*arguments), 2)


def test_a_server_that_an_operator_took_out_stays_out_and_it_is_said_how_it_comes_back(run, api, real):
    name = api.new_name("out")
    arguments = ("register", "--url", real["example"].url, "--name", name)
    run(*arguments)
    number = run("show", name, "--json").document["server"]["id"]
    assert api("PATCH", f"/api/registry/servers/{number}", {"status": "inactive"}).status == 200
    assert f"(mcp-registry enable {name} puts it back)" in run(*arguments).err


def test_tools_that_the_registry_does_not_take_are_left_out_and_named(run, api):
    listed = [tool("good"), {"name": "none"}, tool("n" * 129), tool("wordy", description="w" * 70_000)]
    with stranger(current(tools_list=lambda asked: respond(200, result(asked, {"tools": listed})))) as server:
        arguments = ("register", "--url", server.url, "--name", api.new_name("one-bad"))
        done = run(*arguments)
        assert (done.code, done.out.partition(": ")[2]) == (0, "1 tool, active\n")
        assert "is registered without 3 of its tools: none (It has no inputSchema, which MCP requires); nnn" in done.err
        answer = run(*arguments, "--json").document
        assert answer["result"] == "unchanged" and answer["fields_left_out"] == []
        assert answer["tools_left_out"] == [
            {"name": "none", "rule": "It has no inputSchema, which MCP requires"},
            {"name": "n" * 129, "rule": "name: Must have at most 128 characters"},
            {"name": "wordy", "rule": "description: Longer than 65536 bytes of UTF-8"},
        ]
        # Without a registry nobody knows its rules.
        dry = run(*arguments, "--dry-run", "--json")
        assert len(dry.document["tools"]) == 3 and "without one of its tools: none" in dry.err
        out = run("check", "--url", server.url).out
        assert re.search(r"No tool +none: It has no inputSchema", out) and "Tools (3)" in out
        document = run("check", "--url", server.url, "--json").document
        assert document["server"]["tools_left_out"] == answer["tools_left_out"][:1]


def test_of_a_registration_that_is_too_long_every_description_is_registered(run, api):
    listed = [
        tool(f"t{place}", description=f"Tool {place}.", inputSchema={"title": "x" * (90_000 + place)})
        for place in range(12)
    ]
    with stranger(current(tools_list=lambda asked: respond(200, result(asked, {"tools": listed})))) as server:
        name = api.new_name("long")
        done = run("register", "--url", server.url, "--name", name, "--json")
    assert done.document["tools_left_out"] == []
    rule = "the whole registration may have 1 MiB"
    assert done.document["fields_left_out"] == [{"name": "t11", "field": "input_schema", "rule": rule}]
    assert f"without one of its tools' fields: input_schema of t11 ({rule})" in done.err
    stored = run("show", name, "--json").document["server"]["tools"]
    assert [tool["description"] for tool in stored] == [f"Tool {place}." for place in range(12)]
    assert [tool["name"] for tool in stored if tool["input_schema"] == {"type": "object"}] == ["t11"]


def test_a_name_without_a_letter_of_ascii_becomes_a_stable_one_and_is_shown_as_it_is(run):
    with stranger(older(initialize=introduced(name="天气服务", version="1"))) as server:
        document = run("register", "--url", server.url, "--dry-run", "--json").document
    assert re.fullmatch("mcp-[0-9a-f]{8}", document["name"]) and document["display_name"] == "天气服务"


# ------------------------------------------------------------------ list


def test_every_filter_is_asked_for_and_the_next_page_brings_them_along(run, monkeypatch):
    monkeypatch.setattr(_api, "MAX_PAGE", 1)
    pages = iter([{"servers": [{"id": 1, "name": "a"}], "total": 2, "next_cursor": "c"}])
    last = {"servers": [{"id": 2, "name": "b"}], "total": 2, "next_cursor": None}
    with stranger(lambda _: respond(200, next(pages, last))) as registry:
        root = registry.url.removesuffix("/mcp")
        filters = ("--tag", "Geo & more", "--status", "error", "--type", "mock", "--search", "w")
        assert len(run("list", "--all", *filters, "--registry", root).out.splitlines()) == 3
    first, second = (asked.path for asked in registry.asked)
    assert first == "/api/registry/servers?limit=1&status=error&type=mock&tag=Geo%20%26%20more&search=w"
    assert second == "/api/registry/servers?limit=1&cursor=c"


def leading_on(*, name: str = "a", **more: Any) -> Any:
    """A registry whose pages of one server lead on and on."""
    numbers = count(1)

    def answer(asked: Asked) -> Iterable[bytes]:
        cursor = f"c{next(numbers)}"
        return respond(200, {"servers": [{"id": 1, "name": name}], "next_cursor": cursor, **more})

    return answer


@pytest.mark.parametrize(
    ("pages", "sentence", "most"),
    [
        # A page more than there are servers: some may be new.
        (leading_on(total=1), "is not an MCP registry", 3),
        (leading_on(total=10**9), "is not an MCP registry", 5),
        (leading_on(total=1, total_is="at_least"), "is not an MCP registry", 5),
        (leading_on(total=10**9, name="x" * 4_000_000), "longer than 32 MiB in all", 9),
        (leading_on(total=1, servers=[{"id": 1, "name": "a"}] * 2), "is not an MCP registry", 1),
        (leading_on(total=1, name="x" * 4_200_000), "is not an MCP registry", 1),
    ],
)
@pytest.mark.parametrize("command", [("list", "--all"), ("show", "a-b"), ("deregister", "a-b", "--yes")])
def test_a_list_that_does_not_end_is_given_up(run, monkeypatch, pages, sentence, most, command):
    monkeypatch.setattr(_api, "MAX_PAGE", 1)
    monkeypatch.setattr(_api, "MAX_PAGES", 5 if most == 5 else 1_000)
    listed = 0

    def answer(asked: Asked) -> Iterable[bytes]:
        nonlocal listed
        if "?" not in asked.path:
            return respond(404, {"error": "No server has this id", "code": "SERVER_NOT_FOUND"})
        listed += 1
        return pages(asked)

    with stranger(answer) as registry:
        assert sentence in error(run(*command, "--registry", registry.url.removesuffix("/mcp")), 1)
    assert listed == most


def test_a_list_has_a_row_for_each_server_that_matches(run, api):
    word = api.new_name("row")
    for number in range(3):
        api.register(name=f"{word}-{number}x", display_name="Same" if number else f"{word}-0x", server_type="mock")
    # They are checked as soon as they are registered, and nothing answers there: sooner or later that is told of them.
    head, *rows = run("list", "--search", word, "--type", "mock").out.splitlines()
    assert re.sub(" VERDICT ", " ", head).split() == [
        *("ID", "NAME", "STATUS", "TYPE", "VERSION", "TOOLS", "CHECKED", "DISPLAY", "NAME"),
    ]
    for number, row in enumerate(rows):
        title = "  Same" if number else ""
        assert re.fullmatch(rf" *\d+  {word}-{number}x +(active|error) .* mock +- +1 +(never|now|.* ago) *{title}", row)
    assert len(rows) == 3
    assert run("list", "--search", word, "--status", "inactive") == (
        0,
        "",
        "No server matches: leave a filter out to see more.\n",
    )


def test_a_list_is_narrowed_by_a_tag_in_whichever_case_it_is_written(run, api, real):
    word, tag = api.new_name("tagged"), api.new_name("Tag")
    for name, tags in ((f"{word}-a", ("--tag", tag, "--tag", "geo")), (f"{word}-b", ("--tag", f"{tag}-more"))):
        assert run("register", "--url", real["example"].url, "--name", name, *tags).code == 0
    api.register(name=f"{word}-c")
    for given in (tag, tag.lower()):
        document = run("list", "--tag", given, "--json").document
        assert ([server["name"] for server in document["servers"]], document["total"]) == ([f"{word}-a"], 1)
    # With other filters, all of them have to match.
    assert [row.split()[1] for row in run("list", "--tag", tag, "--type", "community").out.splitlines()[1:]] == [
        f"{word}-a"
    ]
    assert "No server matches" in run("list", "--tag", tag, "--status", "inactive").err
    assert "No server matches" in run("list", "--tag", word).err


def test_a_limit_is_kept_and_says_how_many_there_are(run, api, monkeypatch):
    word = api.new_name("limit")
    for number in range(5):
        api.register(name=f"{word}-{number}x")
    done = run("list", "--search", word, "--limit", "2")
    assert len(done.out.splitlines()) == 3 and done.err == "These are 2 of 5: --all lists every one.\n"
    # Pages of two, as a thousand servers would be too slow to make.
    monkeypatch.setattr(_api, "MAX_PAGE", 2)
    assert len(run("list", "--search", word, "--all").out.splitlines()) == 6
    document = run("list", "--search", word, "--limit", "3", "--json").document
    assert (len(document["servers"]), document["total"], bool(document["next_cursor"])) == (3, 5, True)
    assert document["total_is"] == "exact"
    everything = run("list", "--search", word, "--all", "--json").document
    assert [server["name"] for server in everything["servers"]] == [f"{word}-{number}x" for number in range(5)]
    assert everything["next_cursor"] is None


@pytest.mark.parametrize(("total_is", "words"), [("at_least", "at least 1,000"), ("exact", "1,000"), (None, "1,000")])
def test_a_total_that_is_not_counted_to_its_end_is_said_to_be_at_least_so_many(run, total_is, words):
    """An older registry does not say which it is, and counts all."""
    page = {"servers": [{"id": 1, "name": "a"}], "total": 1000, "next_cursor": "c"}
    with stranger(lambda _: respond(200, page | ({"total_is": total_is} if total_is else {}))) as registry:
        root = registry.url.removesuffix("/mcp")
        done = run("list", "--search", "a", "--limit", "1", "--registry", root)
        assert done.err == f"These are 1 of {words}: --all lists every one.\n"
        document = run("list", "--search", "a", "--limit", "1", "--json", "--registry", root).document
    assert document == page | {"total_is": total_is or "exact"}


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_table_fits_the_terminal(environment, api, columns):
    word = api.new_name("wide")
    long_name = f"io.example.{'n' * 50}/{word}"
    api.register(name=long_name, display_name="漢字の名前" * 20, version="1.0.0-beta.with.a.long.tail+of.metadata")
    api.register(name=f"short-{word}")
    done = Terminal(environment, "list", "--search", word, columns=columns).end()
    lines = [SEQUENCE.sub("", line) for line in done.out.splitlines()]
    assert len(lines) == 3 and done.code == 0
    assert all(_terminal.width(line) <= columns for line in lines), lines
    # What tells names apart is at their end.
    assert all(word[-3:] in line for line in lines[1:])
    assert long_name in lines[1] or columns < 200


def test_a_pipe_gets_everything_and_no_colours(environment, api):
    long_name = "n" * 90 + api.new_name("pipe")[-9:]
    api.register(name=long_name, display_name="d" * 200)
    done = spawn(environment, "list", "--search", long_name)
    assert long_name in done.out and "d" * 200 in done.out and "\x1b" not in done.out


@pytest.mark.parametrize(
    ("settings", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_there_are_colours_where_they_are_wanted(environment, api, settings, coloured):
    name = api.register()["name"]
    done = Terminal(environment | settings, "show", name).end()
    # Nothing answers there, which a check may have found by now.
    assert bool(re.search("\x1b\\[3(2mactive|1merror)\x1b\\[0m", done.out)) == coloured
    assert ("\x1b" in done.out) == coloured


# ------------------------------------------------------------------ show


def test_a_server_is_shown_with_its_tools_and_its_health(run, api, real, stack_url):
    name = api.new_name("healthy")
    assert run("register", "--url", real["example"].url, "--name", name).code == 0
    down = api.new_name("down")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        api.register(name=down, endpoint_url=url, version="7", description="Line one\nline two")
        for server in (name, down):
            have_checked(api, server)
    up = run("show", name).out
    assert up.startswith(f"{name}  active\n")
    # By the handshake, or by a question that the server refuses as it always does.
    seen = r"healthy( \(HTTP 200\) in \d+ ms, (now|\d+ s ago)| in .*: it answers as an MCP server does)\n"
    assert re.search(rf"Last check +{seen}", up)
    assert re.search(r"24 hours +100 % up in \d checks?\n", up)
    assert re.search(r"Answers in +\d+ ms \(median\), \d+ ms \(95 of 100\)\n", up)
    assert up.endswith("Tools (1)\n  forecast  The forecast for a place.\n")
    out = run("show", down).out
    assert out.startswith(f"{down}  error\n") and re.search(r"Description +Line one line two\n", out)
    assert re.search(r"Last check +refused in \d+ ms, .*: Nothing listens there: the connection was refused\n", out)
    assert re.search(r"Since +\d{4}-\d\d-\d\d \d\d:\d\d UTC, (now|\d+ s ago)\n", out)
    document = run("show", down, "--json").document
    assert document["server"]["name"] == document["health"]["name"] == down
    assert document["health"]["last_check"]["verdict"] == "refused"


def have_checked(api: Api, name: str) -> None:
    """Have sweeps run until one has checked a server. One that follows another within five seconds is the same."""
    deadline = time.monotonic() + 60
    while not api("GET", f"/api/registry/servers/{name}/health").json()["checks"]:
        assert time.monotonic() < deadline, f"{name} was not checked"
        assert api("POST", "/api/jobs/health-check", headers={"x-cron-secret": CRON_SECRET}, auth=None).status == 202
        threading.Event().wait(0.1)


def test_a_server_is_found_by_its_id_and_by_every_spelling_of_its_name(run, api):
    name = api.new_name("Hello.World")
    number = str(api.register(name=name)["id"])
    for given in (number, name, name.lower(), name.upper(), name.replace(".", "_"), name.replace("o", "0")):
        assert run("show", given, "--json").document["server"]["id"] == int(number)


def test_a_name_that_is_not_there_is_answered_with_those_that_are_like_it(run, api):
    name = api.new_name("forecasting")
    api.register(name=name)
    assert f"is it {name}" in error(run("show", name[:-1]), 3)
    assert name in error(run("show", name.replace("ca", "ac")), 3)
    assert "mcp-registry list" in error(run("show", "zzzzzzzzzzzz"), 3)
    assert "mcp-registry list" in error(run("show", "9223372036854775807"), 3)
    assert run("show", "zzzzzzzzzzzz", "--json").document["code"] == "SERVER_NOT_FOUND"


def test_nothing_that_a_server_says_reaches_the_terminal_raw(run, environment, api):
    name = api.new_name("evil")
    tools = [{"name": f"t{HOSTILE}"[:128], "description": HOSTILE, "input_schema": {"type": "object"}}]
    metadata = {"author": HOSTILE, "tags": [HOSTILE]}
    api.register(name=name, display_name=HOSTILE, description=HOSTILE, version=HOSTILE, metadata=metadata, tools=tools)
    for arguments in (("show", name), ("list", "--search", name), ("show", name[:-1]), ("show", name, "--json")):
        done = run(*arguments)
        assert "evil" in done.out + done.err
        assert not ESCAPED.search(done.out + done.err)
    shown = SEQUENCE.sub("", Terminal(environment, "show", name).end().out)
    assert "\\x1b[2J" in shown and "\\u202e" in shown and not ESCAPED.search(shown)
    assert run("show", name, "--json").document["server"]["description"] == HOSTILE


def test_nothing_that_is_said_while_registering_reaches_the_terminal_raw(run):
    def page(asked: Asked) -> Iterable[bytes]:
        return respond(200, result(asked, {"tools": [tool(HOSTILE, description=HOSTILE)]}))

    with stranger(current(tools_list=page)) as server:
        done = run("register", "--url", server.url, "--dry-run", "--display-name", HOSTILE)
        assert done.code == 0 and "\\x1b" in done.out and not ESCAPED.search(done.out)
    refusal = {"jsonrpc": "2.0", "id": 2, "error": {"code": 1, "message": HOSTILE}}
    with stranger(current(tools_list=lambda _: respond(200, refusal))) as server:
        assert not ESCAPED.search(error(run("register", "--url", server.url), 1))


# ------------------------------------------------------------------ check


def test_a_check_says_what_the_registry_would_make_of_a_server(run, real):
    done = run("check", "--url", real["example"].url)
    assert done.code == 0 and done.out.startswith(f"{real['example'].url}  active\n")
    assert re.search(r"A check sees +healthy \(HTTP 200\) in \d+ ms\n", done.out) and "Tools (1)" in done.out
    document = run("check", "--url", real["early-sdk"].url, "--json").document
    assert (document["status"], document["health"]["verdict"], document["health"]["status_code"]) == (
        "active",
        "healthy",
        200,
    )
    assert document["server"]["protocol_version"] == "2025-06-18" and len(document["server"]["tools"]) == 2


def test_the_exit_code_of_a_check_tells(run, real):
    gated = real["older-gated"].url
    assert run("check", "--url", gated).code == 0
    assert run("check", "--url", gated, "--header", f"Authorization: Bearer {TOKEN}").code == 0
    # The verdict alone decides: the registry would call it active, whoever may read its tools.
    wrong = run("check", "--url", gated, "--header", "Authorization: Bearer wrong", "--json")
    assert (wrong.code, wrong.document["exit_code"], wrong.document["status"]) == (0, 0, "active")
    assert wrong.document["fault"]["kind"] == "credentials" and wrong.document["server"] is None
    # Up is who can list its tools.
    with stranger(current(tools_list=lambda _: respond(500, "oops"))) as server:
        done = run("check", "--url", server.url)
        assert done.code == 1 and re.search(r"Its tools +The server answered tools/list with 500", done.out)
        assert re.search(r"A check sees +http_error \(HTTP 500\) in \d+ ms: tools/list was answered 500\n", done.out)
        assert re.search(r"    tools/list +HTTP 500, application/json, after \d+ ms: oops\n", done.out)
        assert error(run("register", "--url", server.url), 1)
        # Its owner says where its health is, and that decides.
        assert run("check", "--url", server.url, "--health-url", "/health").code == 1
    assert run("check", "--url", real["older-sse"].url).code == 0
    assert run("check", "--url", real["older-sse"].url, "--health-url", "/health").code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        done = run("check", "--url", url)
        assert done.code == 4 and re.search(r"What to do +start the server", done.out)
        assert run("check", "--url", url, "--json").document["health"]["verdict"] == "refused"
    assert run("check", "--url", "nonsense").code == 2


def test_a_check_says_where_the_registry_would_not_dial(run, real):
    out = run("check", "--url", real["example"].url).out
    assert re.search(r"Address +127\.0\.0\.1: a registry elsewhere does not dial this\n", out)
    blocked = run("check", "--url", "http://127.0.0.1:9001/mcp", "--json")
    assert (blocked.code, blocked.document["health"]["verdict"]) == (1, "blocked")


def test_a_check_is_taken_for_one_of_the_registry():
    with stranger(current()) as server:
        introspect.check(server.url)
        assert {asked.headers["user-agent"] for asked in server.asked} == {"mcp-registry/1.0"}


def test_a_check_says_how_one_gets_into_a_gated_server(run):
    metadata = {"authorization_servers": ["https://login.example"], "scopes_supported": ["read", "write"]}

    def answer(asked: Asked) -> Iterable[bytes]:
        if asked.path == "/.well-known/oauth-protected-resource":
            return respond(200, metadata)
        return respond(404 if asked.path != "/mcp" else 401, "", "text/plain", 'WWW-Authenticate: Bearer realm="x"')

    with stranger(answer) as server:
        done = run("check", "--url", server.url)
        document = run("check", "--url", server.url, "--json").document["health"]
        where = server.url.replace("/mcp", "/.well-known/oauth-protected-resource")
    assert done.code == 0 and re.search(r"A check sees +gated \(HTTP 401\) in \d+ ms: it is there", done.out)
    assert re.search(r"Credentials +Bearer \(realm x\)\n  Token from +https://login.example\n", done.out)
    assert re.search(r"Scopes +read, write\n", done.out) and "was asked" not in done.out
    assert document["auth"] == {
        "status": 401,
        "schemes": ["Bearer"],
        "realm": "x",
        "resource_metadata": where,
        "issuer": "https://login.example",
        "scopes": ["read", "write"],
        "header": None,
        "location": None,
    }
    assert [one["status"] for one in document["evidence"]] == [401, 401]


def test_what_a_server_that_is_well_answers_is_not_shown_as_a_fault(run):
    last = {"verdict": "healthy", "status_code": 404, "response_time_ms": 5, "error_message": None, "checked_at": None}
    nothing = {"servers": [], "total": 0, "next_cursor": None}
    detail = {**nothing, "id": 1, "name": "x", "status": "active", "last_check": last}
    with stranger(lambda _: respond(200, detail)) as registry:
        out = run("show", "1", "--registry", registry.url.removesuffix("/mcp")).out
        assert re.search(r"Last check +healthy in 5 ms, never: it answers as an MCP server does\n", out)
    last |= {"verdict": "gated", "status_code": 401}
    with stranger(lambda _: respond(200, detail)) as registry:
        out = run("show", "1", "--registry", registry.url.removesuffix("/mcp")).out
        assert re.search(r"Last check +gated \(HTTP 401\) in 5 ms, never: it is there, and wants credentials\n", out)


# ------------------------------------------------------------------ disable, enable


def test_a_server_is_taken_out_of_service_and_put_back_by_its_name_or_its_id(run, api):
    for given in ("name", "id"):
        server = api.register(name=api.new_name("switched"))
        name, number = server["name"], server["id"]
        done = run("disable", str(server[given]))
        assert (done.code, done.out) == (0, f"inactive {name} (id {number})\n")
        assert f"(mcp-registry enable {name})" in done.err
        assert run("show", name, "--json").document["server"]["status"] == "inactive"
        assert run("disable", name).code == 0  # as often as one likes
        assert run("enable", str(server[given])) == (0, f"active {name} (id {number})\n", "")
        document = run("enable", name, "--json").document
        assert (document["id"], document["name"], document["status"]) == (number, name, "active")
    assert "No server has the name" in error(run("disable", "zzzzzzzzzzzz"), 3)
    assert "No server has the name" in error(run("enable", "zzzzzzzzzzzz"), 3)


def test_a_server_that_is_down_is_not_said_to_be_well_because_it_is_enabled(run):
    detail = {"id": 1, "name": "x", "servers": [], "total": 0, "next_cursor": None}
    answers = {"GET": detail, "PATCH": {"id": 1, "name": "x", "status": "error"}}
    with stranger(lambda asked: respond(200, answers[asked.method])) as registry:
        root = registry.url.removesuffix("/mcp")
        done = run("enable", "1", "--registry", root)
        assert (done.code, done.out) == (0, "error x (id 1)\n") and "mcp-registry show x" in done.err
        assert [asked.body for asked in registry.asked if asked.method == "PATCH"] == [b'{"status": "active"}']
        answers["PATCH"] = {"id": 1, "name": "x"}
        assert "is not an MCP registry" in error(run("disable", "1", "--registry", root), 1)


# ------------------------------------------------------------------ deregister


def test_a_server_is_removed_by_who_says_yes(run, api):
    for given in ("name", "id"):
        server = api.register(name=api.new_name("gone"))
        done = run("deregister", str(server[given]), "--yes")
        assert (done.code, done.out) == (0, f"removed {server['name']} (id {server['id']})\n")
        assert error(run("deregister", str(server["name"]), "--yes"), 3)
    server = api.register()
    document = run("deregister", server["name"], "--yes", "--json").document
    assert document == {
        "id": server["id"],
        "name": server["name"],
        "result": "removed",
        "held_seconds": None,
        "announced_from": [],
    }


def test_nobody_is_asked_where_nobody_can_answer(environment, api):
    server = api.register()
    assert "--yes" in error(spawn(environment, "deregister", server["name"], given="y\n"), 2)
    assert api("GET", f"/api/registry/servers/{server['id']}").status == 200


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 1), ("no\n", 1), ("\x04", 1)])
def test_a_person_is_asked_before_a_server_is_removed(environment, api, answer, code):
    server = api.register(name=api.new_name("asked"))
    terminal = Terminal(environment, "deregister", server["name"])
    terminal.wait_for("[y/N]")
    assert f"Remove {server['name']} (id {server['id']}) with 1 tool" in terminal.text
    terminal.type(answer)
    assert terminal.end().code == code
    assert api("GET", f"/api/registry/servers/{server['id']}").status == (200 if code else 404)


def test_the_end_of_the_input_puts_the_complaint_on_a_line_of_its_own(environment, api):
    terminal = Terminal(environment, "deregister", api.register()["name"])
    terminal.wait_for("[y/N]")
    terminal.send(b"\x04")
    assert re.search(r"\[y/N\] (\^D\x08\x08)?\nmcp-registry: Nothing was removed", terminal.end().out)


def test_an_answer_that_is_no_text_is_a_no(environment, api):
    server = api.register()
    terminal = Terminal(environment | {"PYTHONIOENCODING": "utf-8:strict"}, "deregister", server["name"])
    terminal.wait_for("[y/N]")
    terminal.send(b"\xff\xfey\n")
    done = terminal.end()
    assert done.code == 1 and "Traceback" not in done.out
    assert api("GET", f"/api/registry/servers/{server['id']}").status == 200


def test_digits_are_an_id_and_no_name(run, api, real):
    server = api.register(name=api.new_name("numbered"))
    number = str(server["id"])
    assert run("show", number, "--json").document["server"]["name"] == server["name"]
    refused = run("register", "--url", real["example"].url, "--name", number)
    assert "the name by --name" in error(refused, 1) and "name: A name is not all digits" in refused.err
    assert run("deregister", number, "--yes").out == f"removed {server['name']} (id {number})\n"
    for none in (number, "0", "007", "9223372036854775808", "9" * 40):
        assert error(run("show", none), 3)
    assert "a name or an id" in error(run("show", ""), 2)


NOT_FOUND = {"error": "Server not found", "code": "SERVER_NOT_FOUND"}


def test_a_name_of_digits_from_before_that_was_refused_is_told_from_an_id(run):
    """However many names contain it: a search of one page would end before it."""
    first, wanted = {"id": 2, "name": "rates"}, {"id": 1019, "name": "2"}
    pages = {None: [{"id": place, "name": f"x2-{place}"} for place in range(10, 1010)], "c": [wanted]}

    def answer(asked: Asked) -> Iterable[bytes]:
        path, _, query = asked.path.partition("?")
        if query:
            cursor = "c" if "cursor=c" in query else None
            following = "c" if cursor is None else None
            return respond(200, {"servers": pages[cursor], "total": 1001, "next_cursor": following})
        return respond(200, first if path.endswith("/2") else wanted)

    with stranger(answer) as registry:
        # Whichever is meant: nobody guesses.
        sentence = error(run("--registry", registry.url.removesuffix("/mcp"), "deregister", "2", "--yes"), 2)
        assert "rates" in sentence and "1019" in sentence
        assert "DELETE" not in registry.methods()
    # Nobody has the id: only the name is left.
    with stranger(lambda asked: respond(404, NOT_FOUND) if asked.path.endswith("/2") else answer(asked)) as registry:
        shown = run("--registry", registry.url.removesuffix("/mcp"), "show", "2", "--json").document
        assert shown["server"] == wanted


def without_names(status: int, code: str, *servers: dict[str, Any]) -> Any:
    """What a registry answers that takes no name where an id belongs, but this refusal; and whom it has."""

    def answer(asked: Asked) -> Iterable[bytes]:
        path = asked.path.partition("?")[0]
        reference = path.removeprefix("/api/registry/servers").removesuffix("/health").strip("/")
        if not reference:
            return respond(200, {"servers": list(servers), "total": len(servers), "next_cursor": None})
        if not reference.isdigit():
            return respond(status, {"error": "It cannot be read", "code": code})
        return respond(200, next(one for one in servers if str(one["id"]) == reference))

    return answer


@pytest.mark.parametrize(("status", "code"), [(400, "VALIDATION_ERROR"), (404, "ROUTE_NOT_FOUND")])
def test_a_registry_that_takes_no_name_for_an_id_is_searched(run, status, code):
    """An older one; or one behind what takes the slash of a name for that of a path."""
    servers = [{"id": 7, "name": "ann/weather"}, {"id": 8, "name": "ann/weather-two"}]
    with stranger(without_names(status, code, *servers)) as registry:
        root = registry.url.removesuffix("/mcp")
        for given in ("ann/weather", "Ann/Weather"):
            assert run("show", given, "--json", "--registry", root).document["server"] == servers[0]
        assert "is it ann/weather" in error(run("show", "ann/weathr", "--registry", root), 3)


def test_a_server_is_asked_for_by_its_name_and_no_other_is_read(run):
    with stranger(lambda _: respond(200, {"id": 7, "name": "ann/weather"})) as registry:
        assert run("show", "ann/weather", "--registry", registry.url.removesuffix("/mcp")).code == 0
    paths = [asked.path for asked in registry.asked]
    assert paths == ["/api/registry/servers/ann%2Fweather", "/api/registry/servers/7/health?period=24h"]


def test_a_spelling_of_two_names_is_taken_for_neither(run, api):
    """A capital I is an i to who reads, and an l to who looks."""
    word = api.new_name("x")
    one, other = (api.register(name=f"{word}-{end}")["name"] for end in ("heilo", "hello"))
    sentence = error(run("deregister", f"{word}-heIlo", "--yes"), 2)
    assert one in sentence and other in sentence
    assert run("show", one).code == run("show", other).code == 0


LETTERS = st.text("aBlLiIoO01/._-", min_size=1, max_size=12)


@hypothesis.given(LETTERS, LETTERS)
@hypothesis.example("shard-1-11", "shard-11-1")
@hypothesis.example("co-op/x", "coop/x")
@hypothesis.example("heIlo", "hello")
@hypothesis.example("vl.lo", "v1.10")
@hypothesis.example("v1.10", "v11.0")
def test_names_are_one_where_the_registry_calls_them_one(one, other):
    assert _api._keys(one) == tuple(names.keys(one))
    same = any(a == b for a, b in zip(names.keys(one), names.keys(other), strict=True))
    assert bool(_api._same([{"name": one}], other)) == same


def test_an_answer_that_says_nothing_is_no_success(run):
    detail = {"id": 1, "name": "x"}

    def answering(**given: Any) -> Any:
        answers: dict[str, Any] = {"GET": detail, "PUT": detail | {"result": "created"}, "DELETE": None, **given}

        def answer(asked: Asked) -> Iterable[bytes]:
            if asked.method == "GET" and "?" in asked.path:
                return respond(200, {"servers": [], "total": 0, "next_cursor": None})
            body = answers[asked.method]
            return respond(204, b"") if body is None else respond(200, body)

        return answer

    with stranger(current()) as real, stranger(answering()) as registry:
        root = registry.url.removesuffix("/mcp")
        assert run("register", "--url", real.url, "--registry", root).code == 0
        assert run("deregister", "1", "--yes", "--registry", root).code == 0
        for method, body in (("PUT", {}), ("PUT", detail), ("DELETE", {}), ("GET", {})):
            with stranger(answering(**{method: body})) as other:
                command = ("register", "--url", real.url) if method == "PUT" else ("deregister", "1", "--yes")
                done = run(*command, "--registry", other.url)
                assert "is not an MCP registry" in error(done, 1) and not done.out


def test_a_registry_that_has_moved_is_said_to_have(run):
    def moved(asked: Asked) -> Iterable[bytes]:
        return respond(301, "", "text/html", f"Location: https://registry.example{asked.path}")

    with stranger(moved) as server:
        sentence = error(run("list", "--registry", server.url.removesuffix("/mcp")), 1)
    assert "leads on to https://registry.example (301): give that address" in sentence


def test_an_answer_that_is_nested_too_deeply_is_none_of_a_registry(run):
    deep = '{"id":1,"name":"x","tools":' + "[" * 900 + "]" * 900 + "}"
    with stranger(lambda _: respond(200, deep)) as server:
        assert error(run("show", "1", "--json", "--registry", server.url), 1)


def test_an_approximate_name_removes_nothing(run, api):
    name = api.new_name("precious")
    api.register(name=name)
    assert f"is it {name}" in error(run("deregister", name[:-1], "--yes"), 3)
    assert run("show", name).code == 0


# ------------------------------------------------------------------ the registry and its credentials


def test_credentials_that_are_missing_or_wrong_end_with_5(environment):
    wrong = spawn(environment | {"MCP_REGISTRY_PASSWORD": "wrong"}, "list")
    assert "refuses the credentials" in error(wrong, 5) and "wrong" not in wrong.err
    none = spawn(environment | {"MCP_REGISTRY_USERNAME": "", "MCP_REGISTRY_PASSWORD": ""}, "list", "--json")
    assert none.code == 5 and none.document["code"] == "UNAUTHORIZED" and "wants credentials" in none.document["error"]


def test_a_password_comes_from_stdin_and_goes_before_the_environment(environment):
    arguments = ("list", "--username", USERNAME, "--password-stdin")
    assert spawn(environment | {"MCP_REGISTRY_PASSWORD": "wrong"}, *arguments, given=f"{PASSWORD}\n").code == 0
    assert spawn(environment, *arguments, given="wrong\n").code == 5
    assert spawn(environment, *arguments, given="").code == 2
    terminal = Terminal(environment, *arguments)
    terminal.wait_for("Password: ")
    terminal.type(f"{PASSWORD}\n")
    done = terminal.end()
    assert done.code == 0 and PASSWORD not in done.out


@pytest.mark.parametrize("typed", [b"\x04", b"\xff\xfe\n"])
def test_a_password_that_is_none_ends_without_a_traceback(environment, typed):
    terminal = Terminal(environment, "list", "--username", USERNAME, "--password-stdin")
    terminal.wait_for("Password: ")
    terminal.send(typed)
    done = terminal.end()
    assert done.code == 2 and "Traceback" not in done.out and "\nmcp-registry: " in done.out


def test_a_byte_order_mark_is_no_part_of_a_password_or_a_header(environment, run, real, tmp_path):
    arguments = ("list", "--username", USERNAME, "--password-stdin")
    assert spawn(environment, *arguments, given=f"\ufeff{PASSWORD}\n").code == 0
    (tmp_path / "headers").write_text(f"Authorization: Bearer {TOKEN}\n", encoding="utf-8-sig")
    url = real["older-gated"].url
    assert run("register", "--url", url, "--dry-run", "--header", f"@{tmp_path / 'headers'}").code == 0


def test_a_header_is_given_once(run):
    arguments = ("--header", "Authorization: a", "--header", "authorization: b")
    assert "given twice" in error(run("check", "--url", "http://127.0.0.1/mcp", *arguments), 2)


@pytest.mark.parametrize(
    ("url", "overheard"),
    [
        ("http://registry.example", True),
        ("https://registry.example", False),
        ("http://127.0.0.1", False),
        ("http://[::1]", False),
        ("http://localhost", False),
        ("http://10.0.0.1", True),
    ],
)
def test_credentials_over_plain_http_to_another_host_are_noted(monkeypatch, capsys, url, overheard):
    monkeypatch.setenv("MCP_REGISTRY_USERNAME", "u")
    monkeypatch.setenv("MCP_REGISTRY_PASSWORD", "p")
    options = SimpleNamespace(registry=url, username=None, password_stdin=False, timeout=1.0, header=["X: k"], url=url)
    for told in (_options.registry, _options.headers):
        told(cast("Any", options))
        assert ("over plain http" in capsys.readouterr().err) == overheard
    # Where nothing is sent that somebody might overhear, nothing is said.
    monkeypatch.setenv("MCP_REGISTRY_USERNAME", "")
    monkeypatch.setenv("MCP_REGISTRY_PASSWORD", "")
    options.header = []
    assert _options.registry(cast("Any", options)) and _options.headers(cast("Any", options)) == {}
    assert not capsys.readouterr().err


@pytest.mark.parametrize("option", [("--password", "hunter2"), ("--password=hunter2",)])
def test_a_password_on_the_command_line_is_refused_and_not_repeated(run, option):
    done = run("list", *option)
    assert "--password-stdin" in error(done, 2) and "hunter2" not in done.err
    assert "hunter2" not in run("list", "--json", *option).out


def test_what_is_missing_is_said_before_anything_is_sent(run, real, monkeypatch):
    monkeypatch.setenv("MCP_REGISTRY_PASSWORD", "")
    assert "lacks a password" in error(run("list"), 2)
    monkeypatch.setenv("MCP_REGISTRY_USERNAME", "")
    monkeypatch.setenv("MCP_REGISTRY_PASSWORD", "x")
    assert "lacks a user" in error(run("list"), 2)
    monkeypatch.setenv("MCP_REGISTRY_URL", "")
    assert "MCP_REGISTRY_URL" in error(run("list"), 2)
    assert "password" in error(run("list", "--registry", "https://u:p@host"), 2)
    assert "http://" in error(run("list", "--registry", "host:3000"), 2)


@pytest.mark.parametrize("path", ["/", "/api", "/api/", "/api/registry", "/api/registry/", "/api/registry/servers"])
def test_the_address_of_the_api_is_as_good_as_that_of_the_registry(run, stack_url, monkeypatch, path):
    assert run("list", "--json", "--registry", stack_url + path).code == 0
    monkeypatch.setenv("MCP_REGISTRY_URL", stack_url + path)
    assert run("list", "--json").code == 0
    assert _settings.from_environment({"MCP_REGISTRY_URL": f"https://h/prod{path}"}).registry_url == "https://h/prod"


@pytest.mark.parametrize("url", ["http://api", "https://h/apis", "https://h/v/api/v0", "https://h/capi"])
def test_another_address_is_left_as_it_is(url):
    assert _settings.base_of(url) == url


def test_options_stand_before_and_after_the_command(run, stack_url, monkeypatch):
    monkeypatch.setenv("MCP_REGISTRY_URL", "http://127.0.0.1:1")
    assert run("--json", "--registry", stack_url, "list").document["servers"] is not None
    assert run("list", "--json", "--registry", f"{stack_url}/").document["servers"] is not None
    assert run("--registry", "http://127.0.0.1:1", "list", "--registry", stack_url).code == 0


def test_a_registry_that_is_not_there_ends_with_4(run):
    assert "start it" in error(run("list", "--registry", "http://127.0.0.1:1"), 4)
    with stranger(hang(b"")) as server:
        assert "--timeout" in error(run("list", "--registry", server.url, "--timeout", "0.3"), 4)
    unavailable = {"error": "The database is away: try again in a moment", "code": "UNAVAILABLE"}
    with stranger(lambda _: respond(503, unavailable, "application/json", "Retry-After: 7")) as server:
        assert "The database is away: try again in 7 seconds" in error(run("list", "--registry", server.url), 4)
    with stranger(lambda _: respond(502, "Bad Gateway", "text/plain")) as server:
        assert "not available" in error(run("list", "--registry", server.url), 4)


STRANGE: dict[str, Any] = {
    "a web page": lambda _: respond(200, "<html>", "text/html"),
    "garbage": lambda _: [b"\x00" * 100],
    "a list": lambda _: respond(200, "[]"),
    "another object": lambda _: respond(200, {"servers": "x", "total": 1}),
    "no number": lambda _: respond(200, '{"servers": [], "total": NaN}'),
    "nesting": lambda _: respond(200, "[" * 100_000),
    "a page that leads to itself": lambda _: respond(200, {"servers": [{}], "total": 9, "next_cursor": "c"}),
    "an error of another shape": lambda _: respond(403, {"message": "Forbidden"}),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_not_a_registry_is_named_as_such(run, case):
    with stranger(STRANGE[case]) as server:
        assert "is not an MCP registry" in error(run("list", "--all", "--registry", server.url), 1)


def test_a_registry_that_says_other_types_than_it_should_breaks_nothing(run):
    row = {
        "id": [1],
        "name": None,
        "display_name": {"a": 1},
        "status": 7,
        "last_health_check": "yesterday",
        "version": [],
    }
    strange = {
        "servers": [row, 7, None],
        "total": 3,
        "next_cursor": None,
        "name": 1,
        "tools": 7,
        "metadata": [],
        "series": 1,
    }
    with stranger(lambda _: respond(200, strange | {"last_check": 3, "transitions": [1], "checks": "x"})) as server:
        assert run("list", "--registry", server.url).code == 0
        assert "not an MCP registry" in error(run("show", "1", "--registry", server.url), 1)
    strange |= {"id": 1, "name": "x", "last_check": 3, "transitions": [1], "checks": "x"}
    with stranger(lambda _: respond(200, strange)) as server:
        assert run("show", "y", "--registry", server.url).code == 3
    strange["servers"] = []
    with stranger(lambda _: respond(200, strange)) as server:
        assert run("show", "1", "--registry", server.url).code == 0


# ------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing",),
        ("list", "--limit", "0"),
        ("list", "--limit", "1", "--all"),
        ("list", "--status", "gone"),
        ("list", "--timeout", "nan"),
        ("list", "--timeout", "-1"),
        ("show",),
        ("register",),
        ("register", "--url", "ftp://x"),
        ("register", "--url", "http://127.0.0.1:1", "--header", "nonsense"),
        ("register", "--url", "http://127.0.0.1:1", "--header", "Host: x"),
        ("list", "--reg", "http://127.0.0.1:1"),
    ],
)
def test_a_command_line_that_is_not_right_ends_with_2_and_one_sentence(run, arguments):
    done = run(*arguments)
    assert len(error(done, 2).splitlines()) == 1 and not done.out
    document = run(*arguments, "--json").document
    assert (document["code"], document["exit_code"]) == ("USAGE", 2)


@pytest.mark.parametrize("command", [(), *((name,) for name in cli.COMMANDS)])
def test_every_command_has_help_that_fits_80_columns(run, command):
    done = run(*command, "--help")
    assert done.code == 0 and "--json" in done.out and not done.err
    assert all(len(line) <= 80 for line in done.out.splitlines() if not line.startswith("  mcp-registry"))
    assert "--password " not in done.out


@pytest.mark.parametrize("command", [(), ("register",), ("list",), ("check",)])
def test_help_fits_a_narrow_terminal(environment, command):
    done = Terminal(environment, *command, "--help", columns=40).end()
    assert done.code == 0
    # Of the usage argparse keeps together what belongs together, and an option and what it takes are one word.
    _, _, explained = done.out.partition("\n\n")
    assert [line for line in explained.splitlines() if len(line) > 40 and len(line.split()) > 2] == []
    if command == ("register",):
        assert "  mcp-registry register --url \\\n    https://host/mcp --dry-run\n" in done.out


def test_the_module_is_the_command(environment):
    command = [sys.executable, "-m", "mcp_registry_client", "list", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "servers" in json.loads(done.stdout)


def test_the_help_states_every_exit_code(run):
    out = run("--help").out
    assert all(re.search(rf"^  {int(code)} +\w", out, re.MULTILINE) for code in _ending.Exit)
    assert run("--version").out.startswith("mcp-registry ")
    assert list(run("--json", "--version").document) == list(run("--version", "--json").document) == ["version"]


# ------------------------------------------------------------------ the process


def test_a_reader_that_stops_reading_is_no_error(environment, api):
    api.register()
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (("list",), ("list", "--json"), ("--help",), ("show", "none", "--json")):
        command = [*COMMAND, *arguments]
        done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
        # The help is printed by argparse, which keeps to itself that nobody read it.
        assert done.returncode == 141 or arguments == ("--help",)
        assert not done.stderr or arguments[0] == "show"
    os.close(writer)


def test_streams_that_are_closed_are_not_missed(environment):
    for closed in ("<&-", ">&-", "2>&-"):
        done = subprocess.run(["bash", "-c", f'"$@" {closed}', "bash", *COMMAND, "list"], env=environment, timeout=60)
        assert done.returncode == 0


def test_a_full_disk_is_said_so(environment):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "list", "--json"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        1,
        "mcp-registry: The output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_that_lacks_a_character_loses_no_server(environment, api, encoding):
    name = api.new_name("kanji")
    api.register(name=name, display_name="漢字")
    done = spawn(environment | {"PYTHONIOENCODING": encoding}, "list", "--search", name)
    assert done.code == 0 and "\\u6f22\\u5b57" in done.out


def test_ctrl_c_ends_with_130_without_a_traceback_and_leaves_no_session(environment):
    with stranger(older(tools_list=hang(b""))) as server:
        command = [*COMMAND, "register", "--url", server.url]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            server.wait_for("tools/list")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (130, "", "")
        assert server.methods()[-1] == "DELETE"


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "INTERRUPTED"), (signal.SIGTERM, 143, "TERMINATED"), (signal.SIGHUP, 129, "HUNG_UP")],
)
def test_whatever_signal_ends_a_command_it_leaves_no_session_and_one_document(environment, number, code, word):
    with stranger(older(tools_list=hang(b""))) as server:
        command = [*COMMAND, "register", "--json", "--url", server.url]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            server.wait_for("tools/list")
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (code, "")
        assert (json.loads(out)["code"], json.loads(out)["exit_code"]) == (word, code)
        assert server.methods()[-1] == "DELETE"


def test_a_signal_that_is_ignored_goes_on_being_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with cli._ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])


def test_a_person_who_waits_is_told_what_for(environment):
    with stranger(hang(b"")) as server:
        terminal = Terminal(environment, "list", "--registry", server.url)
        terminal.wait_for("Reading the list ... 1 s")
        terminal.interrupt()
        done = terminal.end()
    assert done.code == 130 and "Traceback" not in done.out
    # The line is gone again.
    assert done.out.endswith("\r")


def test_a_log_is_told_of_no_progress(environment):
    def slow(asked: Asked) -> Iterator[bytes]:
        threading.Event().wait(_terminal.PATIENCE * 1.3)
        yield from respond(200, {"servers": [], "total": 0, "next_cursor": None})

    with stranger(slow) as server:
        done = spawn(environment, "list", "--registry", server.url, "--json")
    assert (done.code, done.err) == (0, "")


# ------------------------------------------------------------------ text


def test_clean_text_is_as_it_was():
    for text in ("weather", "Grüße", "漢字", "👩\u200d💻", "नमस्ते", "مرحبا"):
        assert _terminal.clean(text) == text


def test_text_that_would_move_the_cursor_is_written_out():
    assert _terminal.clean("a\x1b[2Jb\u202ec\ud800\te\u2028f") == "a\\x1b[2Jb\\u202ec\\ud800 e f"
    assert _terminal.clean("e" + "\u0301" * 50) == "e" + "\u0301" * 4


def test_text_is_cut_by_columns_and_not_by_characters():
    assert _terminal.cut("漢字漢字", 5) == "漢字…"
    assert _terminal.cut("abcdefgh", 5, middle=True) == "ab…gh"
    assert _terminal.cut("abc", 3) == "abc"
    for room in range(1, 12):
        assert _terminal.width(_terminal.cut("漢a字b漢c字", room, middle=bool(room % 2))) <= room


def test_a_text_is_broken_by_columns_and_a_word_never():
    chinese = "天气预报" * 60
    lines = _terminal.wrapped(chinese, 80, 10, 10)
    assert "".join(lines) == chinese and len(lines) == 7
    assert all(_terminal.width(line) <= 70 for line in lines)
    url = "https://host.example/" + "path/" * 30
    assert _terminal.wrapped(f"see {url} there", 40) == ["see", url, "there"]
    assert _terminal.wrapped("one two three", 9, 2, 4) == ["one two", "three"]
    assert _terminal.wrapped("", 9) == [""]


def test_progress_is_as_wide_as_the_terminal_that_shows_it(environment):
    with stranger(hang(b"")) as server:
        # stdout is a pipe, which has no width.
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        command = [*COMMAND, "check", "--url", f"{server.url}/{'long-' * 40}"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=slave) as process:
            os.close(slave)
            told = b""
            while b" ... 1 s" not in told:
                told += os.read(master, 0x10000)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        os.close(master)
    assert _terminal.width(told.decode().strip("\r").split("\r")[0]) <= 60


def test_a_column_of_numbers_is_set_to_the_right(capsys):
    _terminal.Screen(sys.stdout).table(
        [Column("N", right=True), Column("X")], [[Cell("1"), Cell("a")], [Cell("10"), Cell("")]]
    )
    # Nothing trails a row whose last cell is empty.
    assert capsys.readouterr().out == " N  X\n 1  a\n10\n"


def test_a_time_is_told_as_its_distance():
    assert _views.ago(None) == "never"
    assert _views.ago("2999-01-01T00:00:00.000000Z") == "now"
    assert _views.ago("2020-01-01T00:00:00.000000Z").endswith(" d ago")
    assert _views.ago("soon") == "soon"


def test_a_small_registration_is_all_that_is_needed(run, api):
    """The shape that the API's own tests send is what a listing has to cope with."""
    name = api.new_name("small")
    assert api("PUT", "/api/registry/register", registration(name, tools=[])).status == 201
    assert run("show", name).out.endswith("Tools (0)\n")
