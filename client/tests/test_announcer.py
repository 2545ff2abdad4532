"""What the thread does with a registry that behaves, and with one that does not."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from client.tests.conftest import Asked, Registry, Script, Scripted, answers, in_turn, written
from client.tests.test_introspect import Asked as StrangersAsked
from client.tests.test_introspect import respond, stranger
from client.tests.test_trimming import older_faults_of
from mcp_registry_client import _announcer, _settings, _telling, _transport
from mcp_registry_client._announcer import Pace, Registration
from mcp_registry_client._canonical import digest
from mcp_registry_client._document import Draft, Unusable
from mcp_registry_client._presence import Included, Missing, NotServing, Toolless
from mcp_registry_client._trimming import LeftOut
from tests.conftest import PASSWORD, USERNAME, registration

Start = Callable[[Script], Scripted]
QUICK = Pace(first=0.01, longest=0.02, window=5, again=60, deadline=2)
REQUIRED = answers(428, {"error": "send it", "code": "REGISTRATION_REQUIRED"})
CREATED = answers(201, {"id": 1, "result": "created"})
KNOWN = answers(204)
AS_USER = f"Registered {{}} in the MCP registry ({{}}), as the user {USERNAME}"


class Fixed:
    """A source whose registration is what the test says."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.current = document
        self.asked = 0
        self.failures: list[Exception] = []

    def draft(self) -> Draft:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return Draft(self.current)


def announce(url: str, source: Any = None, pace: Pace = QUICK) -> Registration:
    settings = _settings.Settings(url, USERNAME, PASSWORD)
    handle = Registration(source or Fixed(registration("weather")), settings, pace)
    handle.start()
    return handle


def until(handle: Registration, state: str, seconds: float = 10) -> None:
    with handle._changed:
        assert handle._changed.wait_for(lambda: handle.state == state, seconds), (handle.state, handle.error)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_digest_goes_first_and_alone(scripted: Start):
    registry = scripted(KNOWN)
    assert announce(registry.url).wait(10)
    (asked,) = registry.asked
    assert (asked.method, asked.path, asked.body) == ("PUT", "/api/registry/register", b"")
    assert asked.headers["x-registration-digest"] == digest(registration("weather"))
    assert len(str(asked.headers)) < 500


def test_each_announcement_asks_for_a_lease_that_outlives_the_next_one(scripted: Start):
    registry = scripted(in_turn(REQUIRED, CREATED))
    assert announce(registry.url).wait(10)
    assert [asked.headers["x-registration-lease"] for asked in registry.asked] == ["600", "600"]
    assert Pace().again * (1 + Pace().spread) < 600


def test_a_name_that_is_held_after_it_was_in_conflict_is_told_and_so_is_that_it_is_free(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "mcp_registry_client")
    conflict = answers(409, {"error": "It is another's", "code": "CONFLICTING_SERVER"})
    held = answers(409, {"error": "It is held", "code": "HELD_NAME"}, Retry_After="3600")
    registry = scripted(in_turn(conflict, conflict, held, held, conflict, KNOWN))
    assert announce(registry.url, pace=QUICK._replace(again=0.01)).wait(10)
    assert ["another's" in line or "is held" in line for line in warnings(caplog)] == [True, True]
    assert caplog.records[-1].getMessage().endswith("What was wrong before is mended.")


def test_the_registration_follows_where_the_digest_is_not_known(scripted: Start, caplog: pytest.LogCaptureFixture):
    registry = scripted(in_turn(REQUIRED, CREATED))
    caplog.set_level("INFO")
    handle = announce(registry.url)
    assert handle.wait(10) and handle.state == "registered" and handle.error is None
    assert b'"name":"weather"' in registry.asked[1].body
    assert registry.asked[1].headers["content-type"] == "application/json"
    until(handle, "registered")
    assert [record.getMessage() for record in caplog.records] == [AS_USER.format("weather", "created")]


REFUSED = [
    (400, {"error": "Validation failed", "details": [{"path": "version", "message": "Too long"}]}, "version: Too long"),
    (400, {"error": "Validation failed", "details": [{"path": "name", "message": "It is reserved"}]}, "by name='...'"),
    (401, {"error": "Unauthorized"}, "MCP_REGISTRY_USERNAME"),
    (403, {"message": "Forbidden"}, "ask who runs the registry"),
    (409, {"error": "Server with this name already exists, spelled Weather"}, "spelled Weather"),
    (
        409,
        {"error": "This name belongs to http://h.example/mcp", "code": "CONFLICTING_SERVER"},
        "belongs to http://h.example/mcp. Register this server under another name, by name='...'",
    ),
    (
        409,
        {"error": "Held until noon", "code": "HELD_NAME"},
        "Held until noon. It is announced again when that is over",
    ),
    (413, {"error": "Too large"}, "Shorten"),
    (415, {"error": "Send JSON"}, "Send JSON"),
    (422, b"<html>", "Correct what it names"),
]


@pytest.mark.parametrize(("status", "body", "said"), REFUSED)
def test_a_refusal_is_one_line_that_says_what_to_do_and_is_tried_again_slowly(
    status: int, body: Any, said: str, scripted: Start, caplog: pytest.LogCaptureFixture
):
    registry = scripted(answers(status, body))
    handle = Registration(Fixed(registration("weather")), _settings.Settings(registry.url, USERNAME, PASSWORD))
    pauses = [handle._round() for _ in range(8)]
    # Five minutes, and not all at the same moment: a thousand servers are refused together.
    assert all(pause is not None and 240 <= pause <= 360 for pause in pauses) and len(set(pauses)) == 8
    assert len(registry.asked) == 8
    assert handle.state == "failed" and said in str(handle.error)
    (line,) = warnings(caplog)
    assert said in line and "\n" not in line and PASSWORD not in line.split()
    # It may well be there, from an earlier start or another process.
    assert "not in the registry" not in line


def test_credentials_that_are_taken_again_are_said_once_to_be(scripted: Start, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", "mcp_registry_client")
    refused = answers(401, {"error": "Unauthorized"})
    registry = scripted(in_turn(refused, refused, refused, KNOWN))
    handle = announce(registry.url, pace=QUICK._replace(again=0.02))
    assert handle.wait(10) and handle.error is None
    registry.wait_for(7)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert len(said) == 2 and said[1].endswith("(unchanged), as the user admin. What was wrong before is mended.")


def test_a_refusal_that_follows_another_trouble_is_said_too(scripted: Start, caplog: pytest.LogCaptureFixture):
    refused, taken = answers(401, {"error": "Unauthorized"}), answers(409, {"error": "Taken"})
    registry = scripted(in_turn(answers(404), refused, refused, taken, refused, answers(404), KNOWN))
    assert announce(registry.url, pace=QUICK._replace(again=0.01)).wait(10)
    assert ["404" in line or "401" in line or "409" in line for line in warnings(caplog)] == [True] * 3


def test_a_server_that_is_registered_stays_so_while_it_is_refused_and_nothing_else_is_said(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    registry = scripted(KNOWN)
    handle = announce(registry.url, pace=QUICK._replace(again=0.02))
    assert handle.wait(10)
    registry.script = answers(401, {"error": "Unauthorized"})
    with handle._changed:
        assert handle._changed.wait_for(lambda: handle.error is not None, 10)
        assert handle.state == "registered" and "401" in str(handle.error)
        registry.script = KNOWN
        assert handle._changed.wait_for(lambda: handle.error is None, 10)
        assert handle.state == "registered"
    (line,) = warnings(caplog)
    assert "what the registry has of it stays" in line and "not in the registry" not in line
    assert caplog.records[-1].getMessage().endswith("What was wrong before is mended.")


@pytest.mark.parametrize("trouble", [answers(503), answers(500, b"oops"), answers(429, {"message": "Too Many"})])
def test_a_registry_in_trouble_is_asked_again(trouble: Script, scripted: Start):
    registry = scripted(in_turn(trouble, trouble, REQUIRED, trouble, KNOWN))
    assert announce(registry.url).wait(10)
    assert len(registry.asked) == 5


def test_a_registry_that_says_when_is_not_asked_sooner(scripted: Start):
    moments: list[float] = []

    def note(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        moments.append(time.monotonic())
        (answers(503, None, Retry_After="1") if len(moments) == 1 else KNOWN)(handler, asked)

    assert announce(scripted(note).url).wait(10)
    assert moments[1] - moments[0] >= 1


def test_a_registry_that_is_down_is_one_line_until_it_is_back(scripted: Start, caplog: pytest.LogCaptureFixture):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        handle = announce(
            f"http://127.0.0.1:{unused.getsockname()[1]}", pace=QUICK._replace(window=0.05, again=0.05, spread=0)
        )
        until(handle, "failed")
        until(handle, "announcing")
        until(handle, "failed")
        assert "Nothing listens there" in str(handle.error)
        assert len(warnings(caplog)) == 1
        # The same handle, and a registry that has come back.
        back = scripted(KNOWN)
        handle._settings = handle._settings._replace(registry_url=back.url)
        assert handle.wait(10) and handle.error is None


def hang(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    time.sleep(30)


def drop(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "script", [hang, drop, answers(200, b"<html>welcome"), answers(200, {}), answers(404), answers(302)]
)
def test_a_registry_that_answers_nothing_useful_fails_with_one_line(
    script: Script, scripted: Start, caplog: pytest.LogCaptureFixture
):
    handle = announce(scripted(script).url, pace=QUICK._replace(window=0.2, deadline=0.2))
    until(handle, "failed")
    assert handle.error and len(warnings(caplog)) == 1


DEEP = b"[" * 30_000  # within what is read, and deeper than Python goes


@pytest.mark.parametrize("body", [DEEP, b'{"error":' + DEEP, b'{"a":' * 10_000, b'{"result":' + b"9" * 5_000 + b"}"])
def test_an_answer_that_no_parser_takes_is_as_good_as_its_status(
    body: bytes, scripted: Start, caplog: pytest.LogCaptureFixture
):
    registry = scripted(in_turn(answers(503, body), answers(428, body), answers(503, body), KNOWN))
    assert announce(registry.url).wait(20) and warnings(caplog) == []
    for status in (200, 400, 401):
        handle = announce(scripted(answers(status, body)).url)
        until(handle, "failed")
        assert f"answers {status}. " in str(handle.error)


def test_what_a_refusal_says_beside_sentences_is_not_told(scripted: Start):
    """A value that is as deep as can be read may be deeper than can be written."""
    deep = json.loads("[" * 500 + "]" * 500)
    details = [{"path": deep, "message": {"a": deep}}, {"path": "name", "message": "Taken", "type": 7}, deep]
    handle = announce(scripted(answers(400, {"error": deep, "details": details})).url)
    until(handle, "failed")
    assert "answers 400 (: ; name: Taken; : ). Register the server under another name" in str(handle.error)


def test_what_fails_by_itself_is_said_once_and_tried_again(
    scripted: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: Any) -> Any:
        raise MemoryError("a parser of which nobody knows")

    monkeypatch.setattr(Registration, "_judged", fail)
    registry = scripted(in_turn(answers(503), answers(503), KNOWN))
    handle = announce(registry.url, pace=QUICK._replace(again=0.01))
    assert handle.wait(20) and len(registry.asked) == 3
    (line,) = warnings(caplog)
    assert "tried again: the client failed by itself (MemoryError: a parser of which nobody knows)" in line


def test_of_an_answer_64_kib_are_read_and_it_is_not_asked_for_again_soon(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    def pour(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                handler.wfile.write(b"8000\r\n" + bytes(0x8000) + b"\r\n")

    registry = scripted(pour)
    handle = announce(registry.url)
    until(handle, "failed")
    assert "The answer is longer than 65536 bytes" in str(handle.error)
    assert len(registry.asked) == 1 and len(warnings(caplog)) == 1


def test_an_error_with_a_long_page_is_as_good_as_its_status(scripted: Start, caplog: pytest.LogCaptureFixture):
    page = b"<html>" + bytes(1_000_000)
    registry = scripted(in_turn(answers(503, page, Retry_After="0"), answers(428, page), answers(503, page), KNOWN))
    assert announce(registry.url).wait(20) and warnings(caplog) == []
    handle = announce(scripted(answers(401, page)).url)
    until(handle, "failed")
    assert "MCP_REGISTRY_USERNAME" in str(handle.error)


def test_of_all_that_a_registry_says_about_the_tools_that_it_has_2_mib_are_read():
    page = {"servers": [{"id": 1, "name": "x" * 100_000}], "total": 10**9}
    numbers = iter(range(1_000_000))

    # Pages that lead on and on, to whoever looks for a name that the registry does not know by itself.
    def answer(asked: StrangersAsked) -> Any:
        if "?" not in asked.path:
            return respond(404, {"error": "No", "code": "NOT_FOUND"})
        return respond(200, {**page, "next_cursor": f"c{next(numbers)}"})

    with stranger(answer) as registry:
        source = Fixed({})
        source.failures = toolless("weather", 1, lasts=True)
        handle = announce(registry.url.removesuffix("/mcp"), source)
        until(handle, "failed")
        assert "answers are longer than 2 MiB in all" in str(handle.error)
        assert len(registry.asked) <= 23


@pytest.mark.parametrize(
    ("url", "user", "told"),
    [
        ("http://registry.example", "admin", True),
        ("http://registry.example", None, False),
        ("https://registry.example", "admin", False),
        ("http://localhost", "admin", False),
    ],
)
def test_that_the_password_can_be_read_on_the_way_is_said_once_in_a_process(
    url: str, user: str | None, told: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_telling, "_warned", set())

    def refuse(*arguments: Any) -> Any:
        raise ConnectionRefusedError

    monkeypatch.setattr(_transport, "connected", refuse)
    for _ in range(2):
        settings = _settings.Settings(url, user, user and PASSWORD)
        handle = Registration(Fixed(registration("weather")), settings, QUICK._replace(window=0, again=0.01))
        handle.start()
        until(handle, "failed")
        until(handle, "announcing")
        until(handle, "failed")
        handle.stop()
    said = [line for line in warnings(caplog) if "over plain http" in line]
    assert len(said) == told
    assert all("registry.example" in line and "MCP_REGISTRY_URL" in line for line in said)


def test_a_changed_registration_is_announced_when_asked_for(scripted: Start):
    registry = scripted(in_turn(KNOWN, REQUIRED, answers(200, {"result": "updated"})))
    source = Fixed(registration("weather"))
    handle = announce(registry.url, source)
    assert handle.wait(10)
    source.current = registration("weather", description="New")
    handle.refresh()
    assert b'"description":"New"' in registry.wait_for(3)[2].body


def test_it_is_announced_again_after_a_while(scripted: Start):
    registry = scripted(KNOWN)
    announce(registry.url, pace=QUICK._replace(again=0.02))
    registry.wait_for(4)


def test_once_is_once_where_nothing_changes(scripted: Start):
    registry = scripted(KNOWN)
    handle = announce(registry.url, pace=QUICK._replace(again=0.01, once=True))
    assert handle.wait(10) and handle._thread is not None
    handle._thread.join(10)
    assert not handle._thread.is_alive() and len(registry.asked) == 1


def test_nothing_is_sent_before_the_server_answers(scripted: Start):
    registry = scripted(KNOWN)
    source = Fixed(registration("weather"))
    source.failures = [NotServing() for _ in range(5)]
    assert announce(registry.url, source).wait(10)
    assert source.asked == 6 and len(registry.asked) == 1


def test_a_server_that_cannot_be_registered_says_why(scripted: Start, caplog: pytest.LogCaptureFixture):
    registry = scripted(KNOWN)
    source = Fixed({})
    source.failures = [Unusable("The server has no name")]
    handle = announce(registry.url, source)
    assert not handle.wait(10) and handle.state == "refused"
    assert registry.asked == [] and len(warnings(caplog)) == 1


def toolless(name: str, number: int = 1, **more: Any) -> list[Exception]:
    """So many times: the tools of this server cannot be listed."""
    lasts = more.pop("lasts", False)
    document = registration(name, tools=[], **more)
    return [Toolless(document, "RuntimeError: no request", lasts=lasts) for _ in range(number)]


def test_tools_that_cannot_be_listed_now_are_tried_again_soon_and_never_announced_as_none(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    registry = scripted(KNOWN)
    source = Fixed(registration("weather"))
    source.failures = toolless("weather", 3)
    # Before the five minutes that the next announcement is away; and one failure is nothing to talk about.
    assert announce(registry.url, source, QUICK).wait(10)
    assert len(registry.asked) == 1 and warnings(caplog) == []
    assert registry.asked[0].headers["x-registration-digest"] == digest(registration("weather"))


IMPATIENT = QUICK._replace(patience=0.02, window=0.05)


def test_a_server_whose_tools_cannot_be_listed_is_registered_with_none_and_one_line_says_so(
    registry: Registry, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    name = registry.new_name("toolless")
    source = Fixed({})
    source.failures = toolless(name, 10_000)
    handle = announce(registry.url, source, IMPATIENT._replace(again=0.02))
    assert handle.wait(20) and handle.state == "registered" and "no request" in str(handle.error)
    asked = source.asked
    assert asked > 1
    (row,) = registry.named(name)
    assert row["tools"] == [] and row["endpoint_url"]
    while source.asked < asked + 5:
        threading.Event().wait(0.01)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and said[0] == AS_USER.format(name, "created")
    assert (
        said[1] == f"The tools of {name} cannot be listed, and it is registered without any: RuntimeError: no request"
    )


@pytest.mark.parametrize("what", ["the tools", "a tool"])
def test_what_is_missing_is_told_once_in_whichever_words_it_comes(
    what: str, scripted: Start, caplog: pytest.LogCaptureFixture
):
    class Varying(Fixed):
        def draft(self) -> Draft:
            self.asked += 1
            new = f"<Session object at 0x{self.asked}>"
            if what == "the tools" and self.asked > 1:
                raise Toolless(self.current, f"RuntimeError: {new}", lasts=True)
            return Draft(self.current, [LeftOut("bad", f"It is not JSON ({new})")] * (what == "a tool"))

    source = Varying(registration("weather", tools=[]))
    assert announce(scripted(KNOWN).url, source, QUICK._replace(again=0.02)).wait(10)
    while source.asked < 5:
        threading.Event().wait(0.01)
    assert len(warnings(caplog)) == 1


def test_what_another_try_would_not_bring_is_not_waited_for(registry: Registry):
    name = registry.new_name("gated")
    source = Fixed({})
    source.failures = toolless(name, 1, lasts=True)
    assert announce(registry.url, source, QUICK._replace(patience=60, window=60)).wait(20)
    assert source.asked == 1 and registry.named(name)[0]["tools"] == []


TOOLS = [
    {
        "name": "convert",
        "title": "Convert",
        "description": "From one currency to another.",
        "input_schema": {
            "type": "object",
            "properties": {"amount": {"type": "number", "minimum": 0.0, "default": None}},
        },
        "output_schema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
        "category": "money",
    },
    {"name": "add", "input_schema": {}},
]


def test_a_server_that_starts_while_its_tools_cannot_be_listed_keeps_those_that_the_registry_has(
    registry: Registry, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    name = registry.new_name("restarted")
    assert announce(registry.url, Fixed(registration(name, tools=TOOLS))).wait(20)
    (before,) = registry.named(name)
    for version, result in ((None, "unchanged"), ("2.0", "updated")):
        source = Fixed({})
        source.failures = toolless(name, 10_000, **({"version": version} if version else {}))
        caplog.clear()
        handle = announce(registry.url, source, IMPATIENT)
        assert handle.wait(20)
        handle.stop()
        said = [record.getMessage() for record in caplog.records]
        assert said[0] == AS_USER.format(name, result)
        assert "registered with 2 that are known of it" in said[1] and len(said) == 2
        (row,) = registry.named(name)
        assert row["version"] == version
        kept = [{key: tool[key] for key in tool if key not in ("id", "created_at")} for tool in row["tools"]]
        assert kept == [{key: tool[key] for key in tool if key not in ("id", "created_at")} for tool in before["tools"]]


def test_tools_that_were_listed_before_stay_while_they_cannot_be(scripted: Start, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    registry = scripted(KNOWN)
    source = Fixed(registration("weather"))
    handle = announce(registry.url, source, IMPATIENT._replace(again=0.02))
    assert handle.wait(10)
    source.failures = toolless("weather", 20)
    with handle._changed:
        assert handle._changed.wait_for(lambda: handle.error is not None, 10)
        assert handle._changed.wait_for(lambda: handle.error is None and not source.failures, 10)
    assert handle.state == "registered"
    # Never with fewer than it has.
    assert {asked.headers["x-registration-digest"] for asked in registry.asked} == {digest(registration("weather"))}
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" ")[0] for line in said] == ["Registered", "The", "Registered"]
    assert "registered with 1 that are known of it" in said[1] and said[2].endswith("What was wrong before is mended.")


def test_a_registry_that_does_not_say_which_tools_it_has_is_told_of_none(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    registry = scripted(KNOWN)  # it answers 404 to every GET
    source = Fixed({})
    source.failures = toolless("weather", 1, lasts=True)
    handle = announce(registry.url, source)
    until(handle, "failed")
    assert registry.asked == [] and "cannot be asked for the tools that it has" in str(handle.error)
    assert len(warnings(caplog)) == 1


def test_an_endpoint_that_does_not_answer_is_one_line_and_waits_for_the_next_time(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    registry = scripted(KNOWN)
    source = Fixed(registration("weather"))
    source.failures = [Missing("nothing answers at http://127.0.0.1:1/mcp") for _ in range(50)]
    handle = announce(registry.url, source, QUICK._replace(window=0.05))
    until(handle, "failed")
    assert source.asked > 1 and registry.asked == []
    (line,) = warnings(caplog)
    assert line.endswith("nothing answers at http://127.0.0.1:1/mcp")


# ------------------------------------------------------------------ what the registry does not take


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is sent to registries, the digests alone not counted."""
    sent: list[bytes] = []
    request = _transport.request

    def noting(*arguments: Any, **options: Any) -> _transport.Response:
        if options.get("body"):
            sent.append(options["body"])
        return request(*arguments, **options)

    monkeypatch.setattr(_transport, "request", noting)
    return sent


def test_tools_that_the_registry_does_not_take_are_left_out_and_named_in_one_line(
    registry: Registry, caplog: pytest.LogCaptureFixture, bodies: list[bytes]
):
    caplog.set_level("INFO")
    name = registry.new_name("one-bad")
    bad = [
        {"name": "n" * 129, "input_schema": {}},
        {"name": "wordy", "description": "w" * 70_000, "input_schema": {}},
        {"name": "not-a-number", "input_schema": {"default": float("nan")}},
    ]
    source = Fixed(registration(name, tools=[*TOOLS, *bad]))
    handle = announce(registry.url, source)
    assert handle.wait(20) and handle.error is None
    assert [tool["name"] for tool in registry.named(name)[0]["tools"]] == ["convert", "add"]
    assert [(one.name, one.rule.partition(":")[0]) for one in handle.tools_left_out] == [
        ("n" * 129, "name"),
        ("wordy", "description"),
        ("not-a-number", "It is not JSON (NaN and infinities are not JSON)"),
    ]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and said[0] == AS_USER.format(name, "created")
    assert said[1].startswith(f"{name} is registered without 3 of its tools: {'n' * 129} (name: Must have at most 128")
    # Two kinds of faults are found one after the other. What was refused once is not sent again by this process.
    assert 2 <= len(bodies) <= 3
    handle.refresh()
    while source.asked < 2 or handle._due:
        threading.Event().wait(0.01)
    source.current = registration(name, tools=[*TOOLS[:1], *bad])
    handle.refresh()
    # The registry has it before the process that sent it has read the answer and said so.
    while len(caplog.records) < 3:
        threading.Event().wait(0.01)
    assert len(registry.named(name)[0]["tools"]) == 1
    assert len(bodies) <= 4 and len(caplog.records) == 3


def test_more_faults_than_one_answer_names_are_left_out_all_the_same(registry: Registry):
    name = registry.new_name("many-bad")
    bad = [{"name": f"{number}{'n' * 128}", "input_schema": {}} for number in range(250)]
    handle = announce(registry.url, Fixed(registration(name, tools=[*bad, *TOOLS])))
    assert handle.wait(20) and len(handle.tools_left_out) == 250
    assert [tool["name"] for tool in registry.named(name)[0]["tools"]] == ["convert", "add"]


def test_a_registry_of_an_older_release_gets_the_tools_without_the_fields_that_it_does_not_know(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    """And it is asked by the digest of what it gets."""
    caplog.set_level("DEBUG", "mcp_registry_client")
    known: set[str] = set()

    def older(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        if not asked.body:
            answer = KNOWN if asked.headers["x-registration-digest"] in known else REQUIRED
        elif faults := [fault._asdict() for fault in older_faults_of(asked.body)]:
            answer = answers(400, {"error": "Validation failed", "code": "VALIDATION_ERROR", "details": faults})
        else:
            known.add(digest(json.loads(asked.body)))
            answer = CREATED
        answer(handler, asked)

    registry = scripted(older)
    more = {"_meta": {"a": 1}, "icons": []}
    source = Fixed(registration("weather", tools=[{**tool, **more} for tool in TOOLS]))
    handle = announce(registry.url, source)
    assert handle.wait(10) and handle.error is None and handle.tools_left_out == []
    bodies = [json.loads(asked.body) for asked in registry.asked if asked.body]
    assert [body["tools"] for body in bodies] == [source.current["tools"], TOOLS]
    assert {record.levelname for record in caplog.records} == {"DEBUG", "INFO"}
    # What it does not know is not sent to it again.
    handle.refresh()
    registry.wait_for(len(registry.asked) + 1)
    assert registry.asked[-1].headers["x-registration-digest"] in known


def test_a_fault_outside_of_the_tools_is_a_refusal_and_no_tool_is_left_out_for_it(
    registry: Registry, caplog: pytest.LogCaptureFixture, bodies: list[bytes]
):
    name = registry.new_name("otherwise")
    document = registration(name, tools=[{"name": "n" * 129, "input_schema": {}}], author="nobody")
    handle = announce(registry.url, Fixed(document))
    until(handle, "failed")
    assert "author: There is no such field" in str(handle.error) and len(bodies) == 1
    assert registry.named(name) == [] and handle.tools_left_out == [] and len(warnings(caplog)) == 1


def test_a_registration_that_is_too_long_is_registered_with_every_description(
    registry: Registry, caplog: pytest.LogCaptureFixture
):
    name = registry.new_name("long")
    tools = [
        {"name": f"t{size}", "description": "What it does.", "input_schema": {"title": "x" * size}}
        for size in (200_000, 240_000, 220_000, 230_000, 210_000)
    ]
    handle = announce(registry.url, Fixed(registration(name, tools=tools)))
    assert handle.wait(20) and handle.tools_left_out == []
    stored = registry.named(name)[0]["tools"]
    assert [tool["description"] for tool in stored] == ["What it does."] * 5
    assert [tool["name"] for tool in stored if tool["input_schema"] == {"type": "object"}] == ["t240000"]
    (line,) = warnings(caplog)
    assert line.endswith("fields: input_schema of t240000 (the whole registration may have 1 MiB)")


def test_what_something_on_the_way_does_not_let_through_is_sent_shorter(scripted: Start):
    def narrow(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        if len(asked.body) > 300_000:
            answers(413, b"<html>Request Entity Too Large")(handler, asked)
        else:
            (CREATED if asked.body else REQUIRED)(handler, asked)

    registry = scripted(narrow)
    tools = [{"name": f"t{place}", "input_schema": {"title": "x" * 90_000}} for place in range(10)]
    assert announce(registry.url, Fixed(registration("weather", tools=tools))).wait(10)
    assert 50_000 < len(registry.asked[-1].body) <= 300_000


def test_what_could_not_even_be_put_into_a_registration_is_told(scripted: Start, caplog: pytest.LogCaptureFixture):
    class Short(Fixed):
        def draft(self) -> Draft:
            return Draft(self.current, [LeftOut("number 2", "It has no name, which MCP requires")])

    handle = announce(scripted(KNOWN).url, Short(registration("weather")))
    assert handle.wait(10) and [one.name for one in handle.tools_left_out] == ["number 2"]
    (line,) = warnings(caplog)
    assert "number 2 (It has no name, which MCP requires)" in line


# ------------------------------------------------------------------ where there is none to be registered


def test_a_part_of_another_server_is_said_once_and_worries_nobody(scripted: Start, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    source = Fixed({})
    source.failures = [Included("it is a part of library")]
    handle = announce(scripted(KNOWN).url, source)
    assert not handle.wait(10) and handle.state == "refused"
    (record,) = caplog.records
    assert record.levelname == "INFO" and "part of library" in record.getMessage()


def test_a_server_that_nobody_finds_is_told_what_to_do_after_a_while(
    scripted: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_announcer, "HINT_SECONDS", 0.0)
    source = Fixed(registration("weather"))
    source.failures = [NotServing(), NotServing("wrap it"), NotServing("wrap it")]
    assert announce(scripted(KNOWN).url, source).wait(10)
    (line,) = warnings(caplog)
    assert line.endswith("wrap it")


def test_a_server_on_stdio_is_told_nothing_of_routes(
    scripted: Start,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(_announcer, "HINT_SECONDS", 0.0)
    source = Fixed(registration("weather"))
    source.failures = [NotServing("wrap it", over_stdio=True), NotServing("wrap it")]
    assert announce(scripted(KNOWN).url, source).wait(10)
    assert warnings(caplog) == [] and capsys.readouterr().err.count("the server runs on stdio") == 1


def test_the_looking_for_a_server_slows_down_to_a_minute():
    handle = Registration(Fixed({}), _settings.Settings("http://127.0.0.1:9"))
    source = handle._source
    assert isinstance(source, Fixed)
    source.failures = [NotServing() for _ in range(2)]
    handle._started = time.monotonic()
    assert handle._round() == 0.05
    handle._started -= 3600
    assert handle._round() == 60


def test_what_others_say_cannot_forge_a_line_of_the_log(scripted: Start, caplog: pytest.LogCaptureFixture):
    said = "no\nWARNING root: all is lost\x1b[2J"
    until(announce(scripted(answers(400, {"error": said})).url), "failed")
    (line,) = warnings(caplog)
    assert "no WARNING root: all is lost?[2J" in line and line.isprintable()


@pytest.mark.parametrize("given", ["9" * 400, "99999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_registry_that_wants_to_be_left_alone_for_ever_is_asked_within_the_hour(given: str):
    answer = _transport.Response(503, {"retry-after": given}, b"")
    assert _announcer._retry_after(answer) == 3600


def test_what_is_as_it_was_is_not_told_every_five_minutes(scripted: Start, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", "mcp_registry_client")
    registry = scripted(in_turn(KNOWN, KNOWN, REQUIRED, answers(200, {"result": "updated"}), KNOWN))
    announce(registry.url, pace=QUICK._replace(again=0.02))
    registry.wait_for(6)
    levels = [record.levelname for record in caplog.records if "Registered" in record.getMessage()]
    assert levels[:3] == ["INFO", "DEBUG", "INFO"] and levels[3:4] in ([], ["DEBUG"])


def test_credentials_in_the_registrys_address_are_used_and_never_shown(
    scripted: Start, caplog: pytest.LogCaptureFixture
):
    registry = scripted(in_turn(answers(503), answers(503), answers(404)))
    url = registry.url.replace("://", "://admin:s3%40cret@")
    settings = _settings.from_environment({"MCP_REGISTRY_URL": url})
    assert settings.registry_url == registry.url and settings.credentials == ("admin", "s3@cret")
    handle = Registration(Fixed(registration("weather")), settings, QUICK)
    handle.start()
    until(handle, "failed")
    assert registry.asked[0].headers["authorization"] == "Basic YWRtaW46czNAY3JldA=="
    assert "s3" not in str(handle.error) + repr(settings) + "".join(warnings(caplog)) and warnings(caplog)


@pytest.mark.parametrize(
    "url",
    ["http://u:s3cret@h:port", "u:s3cret@h", "http://u:s3/cr#et@h", "ftp://u:s3cret@h", "http://h/s3@127.0.0.1:1"],
)
def test_an_address_that_is_none_does_not_give_its_password_away(url: str, caplog: pytest.LogCaptureFixture):
    settings = _settings.from_environment({"MCP_REGISTRY_URL": url})
    handle = Registration(Fixed(registration("weather")), settings, QUICK._replace(window=0))
    handle.start()
    with handle._changed:
        assert handle._changed.wait_for(lambda: handle.error is not None, 20)
    assert "s3" not in f"{settings!r}{handle.error}{''.join(warnings(caplog))}"


def test_variables_go_before_the_credentials_of_the_address():
    given = {"MCP_REGISTRY_URL": "https://a:b@h/", "MCP_REGISTRY_USERNAME": "c", "MCP_REGISTRY_PASSWORD": "d"}
    settings = _settings.from_environment(given)
    assert settings.registry_url == "https://h" and settings.credentials == ("c", "d")


def test_a_program_that_is_started_with_work_before_it_gets_no_thread_of_ours(scripted: Start):
    handle = announce(scripted(KNOWN).url)
    assert handle.wait(10)

    def count() -> None:
        os.write(1, str(threading.active_count()).encode())

    done = subprocess.run(["/bin/true"], preexec_fn=count, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"1"


def test_what_is_not_json_is_refused_here(scripted: Start):
    handle = announce(scripted(KNOWN).url, Fixed(registration("weather", description=float("nan"))))
    assert not handle.wait(10) and "not JSON" in str(handle.error)


def test_without_a_registry_nothing_happens():
    handle = Registration(Fixed({}), _settings.from_environment({}))
    handle.start()
    assert handle.state == "off" and not handle.wait(10) and handle._thread is None


def test_a_url_that_is_none_is_said_at_once(caplog: pytest.LogCaptureFixture):
    handle = announce("registry.example")
    assert not handle.wait(10) and "MCP_REGISTRY_URL" in str(handle.error) and len(warnings(caplog)) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_announces_itself(scripted: Start):
    registry = scripted(KNOWN)
    handle = announce(registry.url)
    assert handle.wait(10)
    child = os.fork()
    if child == 0:
        # Whatever happens here, the child must not run the rest of the tests.
        try:
            os._exit(0 if handle.wait(10) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(registry.wait_for(2)) == 2


def test_a_thousand_that_start_at_once_are_one_row_and_no_error(
    registry: Registry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level("INFO")
    name = registry.new_name("herd")
    sent: Counter[threading.Thread] = Counter()
    request = _transport.request

    def counted(*arguments: Any, **options: Any) -> _transport.Response:
        sent[threading.current_thread()] += bool(options["body"])
        return request(*arguments, **options)

    monkeypatch.setattr(_transport, "request", counted)
    results = herd(registry.url, name, caplog)
    assert results.count("created") == 1 and results.count("unchanged") == 999
    # Each is a thread.
    assert len(sent) == 1_000 and max(sent.values()) == 1
    (row,) = registry.named(name)
    sent.clear()
    assert herd(registry.url, name, caplog) == ["unchanged"] * 1_000
    assert len(sent) == 1_000 and sent.total() == 0
    assert list(map(written, registry.named(name))) == [written(row)]


def herd(registry_url: str, name: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """A thousand servers that start at once, all alike; how each of them was registered."""
    caplog.clear()
    source = Fixed(registration(name))
    handles = [
        Registration(source, _settings.Settings(registry_url, USERNAME, PASSWORD), Pace(deadline=30, once=True))
        for _ in range(1_000)
    ]
    threading.stack_size(256 * 1024)
    try:
        for handle in handles:
            handle.start()
    finally:
        threading.stack_size(0)
    assert all(handle.wait(60) for handle in handles)
    assert warnings(caplog) == []
    return [record.getMessage().rpartition("(")[2].partition(")")[0] for record in caplog.records]
