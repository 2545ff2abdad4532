"""Stock MCP clients, each a process of its own, asked side by side: what do they find of a server?

The clients are those of the SDK for Python, 1.x and 2.x, fastmcp, and the TypeScript SDK, 1.x and 2.x. A server is up
where one of them lists its tools, gated where one is asked for credentials, and down otherwise.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.real import environments
from tests.real.fixtures import ENVIRONMENT

CLIENTS = Path(__file__).parent / "clients"
# By name: the era whose environment has it, and what `stock.py` calls it.
PYTHON = {
    "mcp 1": ("older", "mcp"),
    "mcp 2": ("current", "mcp"),
    "mcp 1 over sse": ("older", "mcp-sse"),
    "fastmcp 4": ("current", "fastmcp"),
}
# By name: the line of the SDK.
NODE = {"typescript 1": "1", "typescript 2": "2"}
RANK = {"down": 0, "gated": 1, "up": 2}


def python(name: str) -> list[str]:
    """The command of a client for Python."""
    era, kind = PYTHON[name]
    return [str(environments.programs(era) / "python"), str(CLIENTS / "stock.py"), kind]


def node(name: str) -> list[str]:
    """The command of a client for TypeScript."""
    folder = environments.programs("node")
    mode = ["auto"] if NODE[name] == "2" else []
    return [str(folder / "node"), str(CLIENTS / "stock.mjs"), str(folder.parent), NODE[name], *mode]


def ask(commands: list[list[str]], urls: list[str]) -> list[str]:
    """What the clients find of each address, side by side: the best of it."""
    lines = "".join(json.dumps(url) + "\n" for url in urls)
    running = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=ENVIRONMENT,
        )
        for command in commands
    ]
    found: dict[str, str] = {}
    try:
        # Nobody answers before all has been asked, and no answer is longer than a pipe holds without us.
        for client in running:
            assert client.stdin is not None
            client.stdin.write(lines)
            client.stdin.close()
        for client in running:
            assert client.stdout is not None
            answers = [json.loads(line) for line in client.stdout]
            assert client.wait() == 0 and {answer["url"] for answer in answers} == set(urls), client.args
            for answer in answers:
                outcome = answer["outcome"]
                found[answer["url"]] = max(outcome, found.get(answer["url"], "down"), key=RANK.__getitem__)
    finally:
        for client in running:
            client.kill()
            client.wait()
    return [found[url] for url in urls]
