"""Real servers where their endpoint, their start or their end is not the usual one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import mangum
import pytest

from client.tests.conftest import Registry, Script, Scripted, answers
from client.tests.programs import ERAS, SERVERS, SOURCE, Program, free_port, kept, running, settings, shown, wire_tools
from client.tests.test_lambda import MANGUM
from mcp_registry_client.aws_lambda import RUNTIME

Start = Callable[[Script], Scripted]
PLACES = {"root_path": "/mcp", "mount": "/analytics/", "main": "/mcp", "sse": "/events"}


@pytest.mark.parametrize("era", ERAS)
def test_an_endpoint_is_registered_where_it_really_is(era: str, scripted: Start):
    required, created = answers(428), answers(201, {"result": "created"})
    registry = scripted(lambda handler, asked: (created if asked.body else required)(handler, asked))
    with ExitStack() as stack:
        started: dict[str, tuple[int, Program]] = {}
        for place in PLACES:
            port = free_port()
            command = ("python", "placed.py", place, str(port))
            started[place] = port, stack.enter_context(running(era, *command, environment=settings(registry.url)))
        for place, (port, program) in started.items():
            program.wait_for_line(r"Registered .* \(created\)")
            bodies = [json.loads(asked.body) for asked in registry.asked if asked.body]
            (sent,) = [body for body in bodies if body["name"] == f"placed-{place}"]
            assert sent["endpoint_url"] == f"http://127.0.0.1:{port}{PLACES[place]}"
            assert [tool["name"] for tool in sent["tools"]] == ["count"] and not program.complaints()
            if place == "sse":
                with urlopen(sent["endpoint_url"], timeout=30) as answer:
                    assert answer.headers["content-type"].startswith("text/event-stream")
            else:
                assert [tool["name"] for tool in wire_tools(sent["endpoint_url"])] == ["count"]


def test_a_server_that_is_told_to_stop_does_so_while_its_tools_hang(scripted: Start):
    port = free_port()
    environment = settings(scripted(answers(204)).url, MCP_ENDPOINT_URL="https://mcp.example.com/mcp")
    with running("current", "python", "hanging.py", str(port), environment=environment) as program:
        program.wait_for_line("asked for the tools")
        program.process.send_signal(signal.SIGTERM)
        program.wait_for_line("Finished server process", 8)
        # By its own doing, before the ten seconds are over in which the tools might come.
        assert program.process.wait(8) in (0, -signal.SIGTERM) and not program.complaints()


def test_a_real_server_behind_mangum_is_registered_by_its_first_request(registry: Registry, tmp_path: Path):
    # The environment of the framework has no mangum; it is one folder of plain Python.
    shutil.copytree(Path(mangum.__file__).parent, tmp_path / "mangum")
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    body: dict[str, Any] = {
        "body": json.dumps(message),
        "isBase64Encoded": False,
        "headers": {**headers, "host": "evil.example"},
    }
    expected = {
        "REST API": "https://abc.execute-api.eu-west-1.amazonaws.com/prod/mcp",
        "HTTP API": "https://mcp.example.com/prod/mcp",
        "function URL": "https://xyz.lambda-url.eu-west-1.on.aws/mcp",
    }
    with ExitStack() as stack:
        started: dict[str, tuple[str, Program]] = {}
        for kind in MANGUM:
            name = registry.new_name("mangum")
            environment = settings(
                registry.url,
                NAME=name,
                PYTHONPATH=os.pathsep.join((str(SOURCE), str(tmp_path))),
                BASE_PATH="/prod" if kind == "HTTP API" else "/",
                **{RUNTIME: "127.0.0.1:9"},
            )
            command = ("python", "runtime.py", str(SERVERS / "function.py"))
            started[kind] = name, stack.enter_context(running("current", *command, environment=environment))
        for kind, (name, program) in started.items():
            program.wait_for_line(r'"ready"')
            event: dict[str, Any] = {**MANGUM[kind], **body}
            if "multiValueHeaders" in event:
                event["multiValueHeaders"] = {key: [value] for key, value in body["headers"].items()}
            assert program.process.stdin is not None
            program.process.stdin.write(json.dumps(event) + "\n")
            program.process.stdin.flush()
            answer = json.loads(program.wait_for_line(r'^\{"answer"'))["answer"]
            assert answer["statusCode"] == 200, answer
            (row,) = registry.wait_for(name)
            assert row["endpoint_url"] == expected[kind]
            assert shown(row) == kept(json.loads(answer["body"])["result"]["tools"]) and len(row["tools"]) == 1
