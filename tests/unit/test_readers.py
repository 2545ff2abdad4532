"""Who reads from strangers: each such place stands in the table of docs/security.md, with the counter that stops it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
# What is deployed, what others run in their servers, and what runs on the machine of a developer.
FOLDERS = ("layers/registry", "functions", "sql", "local", "client/src")

# What takes bytes from a socket, a pipe, a stream or a service, by the name of the method; and what a loop calls with
# bytes that came.
CALLS = frozenset(
    {
        *("recv", "recv_into", "recvfrom", "recvmsg", "read", "read1", "readinto", "readline", "readlines"),
        *("readexactly", "readuntil", "iter_content", "iter_chunks", "iter_lines", "iter_bytes", "aread"),
        *("getresponse", "urlopen", "receive", "communicate", "getaddrinfo", "get_secret_value", "receive_message"),
        "read_body",
    }
)
CALLED = frozenset({"data_received", "buffer_updated", "datagram_received", "pipe_data_received"})

# What is no stranger's, by the file and what is read there.
OURS = {
    ("layers/registry/mcp_registry/access/auth.py", "credentials"): "our secret",
    ("layers/registry/mcp_registry/access/identity.py", "answer"): "our database",
    ("layers/registry/mcp_registry/aws/invoke.py", "_asked"): "the answer of a function of ours",
    ("layers/registry/mcp_registry/aws/secret.py", "*"): "our secret",
    ("layers/registry/mcp_registry/aws/signature.py", "credentials"): "Lambda's own answer, from inside of the sandbox",
    ("layers/registry/mcp_registry/aws/sqs.py", "_answer"): "SQS's own answer, of which the status alone is looked at",
    ("functions/access/app.py", ""): "our database, and a body by read_json, which is in the table",
    ("functions/ledger/app.py", ""): "our database, and a body by read_json, which is in the table",
    ("layers/registry/mcp_registry/access/audit.py", "*"): "our database",
    ("layers/registry/mcp_registry/access/credentials.py", "*"): "our database",
    ("layers/registry/mcp_registry/access/teams.py", "*"): "our database",
    ("layers/registry/mcp_registry/access/trust.py", "*"): "our database",
    ("layers/registry/mcp_registry/catalogue/offers.py", "*"): "our database",
    ("layers/registry/mcp_registry/catalogue/servers.py", "*"): "our database",
    ("layers/registry/mcp_registry/health/history.py", "*"): "our database",
    ("layers/registry/mcp_registry/health/sweeps.py", "*"): "our database",
    ("layers/registry/mcp_registry/health/marks.py", "*"): "our database",
    ("layers/registry/mcp_registry/health/results.py", "*"): "our database",
    ("layers/registry/mcp_registry/ledger/approvals.py", "*"): "our database",
    ("layers/registry/mcp_registry/ledger/feed.py", "*"): "our database",
    ("layers/registry/mcp_registry/ledger/publishing.py", "*"): "our database",
    ("layers/registry/mcp_registry/ledger/reading.py", "*"): "our database",
    ("layers/registry/mcp_registry/ledger/recording.py", "*"): "our database",
    (
        "layers/registry/mcp_registry/health/probe.py",
        "_Engine._find",
    ): "the pulse that an introduction of ours has learnt",
    ("layers/registry/mcp_registry/health/probe.py", "_group"): "the pulse that an introduction of ours has learnt",
    ("layers/registry/mcp_registry/health/learning.py", "learn"): "the pulse that an introduction of ours has learnt",
    ("functions/health/app.py", "lambda_handler"): "our database",
    ("sql/app.py", "*"): "CloudFormation's answer, of which the status alone is looked at",
    ("local/account.py", "*"): "a process that the run has started",
    ("local/artefacts.py", "*"): "files of our own build",
    ("local/credentials.py", "*"): "our secret",
    ("local/folder.py", "*"): "the lock in our own folder",
    ("local/install.py", "*"): "a process that the run has started",
    ("local/preflight.py", "*"): "samconfig.toml; what AWS answers is read by botocore",
    ("local/runtime.py", "_Output.data_received"): "what our own functions print",
    ("local/runtime.py", "_Process._left"): "the end of our own function's connection",
    ("local/sources.py", "*"): "the run's own queues",
    ("client/src/mcp_registry_client/_difference.py", "*"): "a schema that was read already",
    ("client/src/mcp_registry_client/_terminal.py", "*"): "who sits before the command",
    ("client/src/mcp_registry_client/_options.py", "*"): "who sits before the command",
    ("client/src/mcp_registry_client/_logins.py", "*"): "the own file of who sits before the command",
    ("client/src/mcp_registry_client/_transport.py", "_look_up"): "the resolver of the system, which bounds it",
    ("client/src/mcp_registry_client/_presence.py", "*"): "the tools of the server that the library is in",
    ("client/src/mcp_registry_client/aws_lambda.py", "*"): "the tools of the server that the library is in",
}


class Row(NamedTuple):
    """A row of the table: a file and what reads there, and the constant that bounds it, with its value."""

    file: str
    reader: str
    bound_file: str
    bound: str
    value: str


def table() -> list[Row]:
    section = PAGE.partition("## Who reads from strangers")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ") and "`" in line]
    found: list[Row] = []
    for cells in rows:
        assert len(cells) == 4, cells
        place = re.fullmatch(r"`([\w/.-]+)`: `([\w.]+)`", cells[1].strip())
        bound = re.fullmatch(r"`([\w/.-]+)`: `(\w+)` = ([\d,.]+)(?: [^|]*)?", cells[3].strip(" |"))
        assert place and bound, cells
        found.append(Row(place[1], place[2], bound[1], bound[2], bound[3]))
    return found


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), file)


def named(node: ast.AST, within: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every function and class below a node, by its whole name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{within}.{child.name}" if within else child.name
            yield name, child
            yield from named(child, name)
        else:
            yield from named(child, within)


def readers(file: Path) -> Iterator[str]:
    """Who reads anything in a file: the innermost function that does, by its whole name."""

    def walk(node: ast.AST, within: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            name = within
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{within}.{child.name}" if within else child.name
                if child.name in CALLED:
                    yield name
            if isinstance(child, ast.Call):
                called = child.func
                known = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                if known in CALLS:
                    yield within
            yield from walk(child, name)

    return walk(tree(str(file)), "")


ROWS = table()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.file}:{row.reader}")
def test_a_reader_of_the_table_is_there_and_has_the_bound_that_is_said(row: Row):
    assert row.reader in dict(named(tree(row.file))), f"{row.file} has no {row.reader}"
    constants = {
        target.id: node.value
        for node in tree(row.bound_file).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    value = eval(compile(ast.Expression(constants[row.bound]), row.bound_file, "eval"), {})
    assert value == float(row.value.replace(",", ""))
    # The bound is used, and not only written down.
    assert len(re.findall(rf"\b{row.bound}\b", (ROOT / row.bound_file).read_text())) > 1 or row.bound_file != row.file


def test_whoever_reads_anything_is_in_the_table_or_reads_what_is_ours():
    known = {(row.file, row.reader) for row in ROWS}
    found = {
        (path.relative_to(ROOT).as_posix(), reader)
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for reader in readers(path)
    }
    strange = {
        (file, reader) for file, reader in found - known if (file, reader) not in OURS and (file, "*") not in OURS
    }
    assert sorted(strange) == []


def test_what_is_said_to_be_ours_is_read_somewhere():
    read = {
        (path.relative_to(ROOT).as_posix(), reader)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for reader in readers(path)
    }
    assert [
        key for key in OURS if key not in read and not (key[1] == "*" and key[0] in {file for file, _ in read})
    ] == []


def test_nobody_but_the_authorizer_reads_the_credentials_of_a_request():
    asking = {
        path.relative_to(ROOT).as_posix()
        for folder in ("layers/registry", "functions")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(tree(str(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.lower() in ("authorization", "authorizationtoken")
    }
    # The other one sends a header of its own, to AWS.
    assert asking == {"functions/authorizer/app.py", "layers/registry/mcp_registry/aws/signature.py"}


@pytest.mark.parametrize(
    "source",
    [
        "def f(s):\n    return s.recv(65536)\n",
        "async def f(r):\n    return await r.read(-1)\n",
        "class f:\n    def data_received(self, data): ...\n",
        "def f():\n    return urlopen('http://x')\n",
        "async def f(receive):\n    await receive()\n",
    ],
)
def test_a_new_reader_is_found(tmp_path, source):
    (tmp_path / "new.py").write_text(source)
    assert [name.partition(".")[0] for name in readers(tmp_path / "new.py")] == ["f"]
