"""Real packages in an old and a new release: what each offers, and how the change between them is graded.

    python -m tests.real.pairs [NAME...]     # make tests/corpus/grades.json anew, or the rows of some packages in it

Each release is installed into a folder of its own outside of the repository, which goes with the run; started over
stdio; and asked by the stock client. What is kept is no text of theirs: `reduced` says what of a text is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.real import environments
from tests.real.environments import HERE, ROOT

# What is deployed finds the layer on its path; here we put it there.
sys.path.insert(0, str(ROOT / "layers" / "registry"))

from mcp_registry.catalogue import fingerprint
from mcp_registry.ledger import grades

FIXTURE: Final = ROOT / "tests" / "corpus" / "grades.json"
# What is no text of somebody's: names, and values that programs read.
NAMES: Final = frozenset({"name", "uri", "uriTemplate", "$ref", "$schema", "type", "format", "version", "mimeType"})
WORD: Final = re.compile(r"[\w./:-]{1,32}")
TITLE: Final = re.compile(r"\w+( \w+){0,5}", re.ASCII)


class Pair(NamedTuple):
    """A package of PyPI or npm in two releases. In its command HOME stands for a folder: an empty git repository."""

    source: str
    package: str
    old: str
    new: str
    command: tuple[str, ...]
    settings: Mapping[str, str] = {}
    formerly: str | None = None  # what the command of the old release is called


PAIRS: Final = (
    Pair("pypi", "mcp-server-fetch", "0.6.2", "2026.10.24", ("mcp-server-fetch",)),
    Pair("pypi", "mcp-server-fetch", "2026.8.18", "2026.10.24", ("mcp-server-fetch",)),
    Pair("pypi", "mcp-server-git", "2026.8.18", "2026.10.19", ("mcp-server-git",)),
    Pair("pypi", "mcp-server-time", "2026.8.18", "2026.10.19", ("mcp-server-time", "--local-timezone", "UTC")),
    Pair("pypi", "duckduckgo-mcp-server", "0.6.0", "0.7.0", ("duckduckgo-mcp-server",)),
    Pair("pypi", "wikipedia-mcp", "1.6.0", "1.7.0", ("wikipedia-mcp",)),
    Pair("npm", "@modelcontextprotocol/server-filesystem", "2026.1.14", "2026.7.10", ("mcp-server-filesystem", "HOME")),
    Pair("npm", "@modelcontextprotocol/server-memory", "2025.11.25", "2026.8.31", ("mcp-server-memory",)),
    Pair("pypi", "mcp-server-git", "0.6.2", "2026.10.19", ("mcp-server-git",)),
    Pair("pypi", "mcp-server-time", "0.6.2", "2026.10.19", ("mcp-server-time", "--local-timezone", "UTC")),
    Pair(
        "pypi",
        "awslabs.aws-documentation-mcp-server",
        "1.0.0",
        "1.2.3",
        ("awslabs.aws-documentation-mcp-server",),
    ),
    Pair("pypi", "duckduckgo-mcp-server", "0.1.1", "0.7.0", ("duckduckgo-mcp-server",)),
    Pair("pypi", "wikipedia-mcp", "1.5.5", "2.0.1", ("wikipedia-mcp",)),
    Pair("npm", "@modelcontextprotocol/server-filesystem", "2025.7.29", "2026.7.10", ("mcp-server-filesystem", "HOME")),
    Pair("npm", "@modelcontextprotocol/server-memory", "2025.4.25", "2026.8.31", ("mcp-server-memory",)),
    Pair(
        "npm",
        "@modelcontextprotocol/server-sequential-thinking",
        "0.6.2",
        "2026.8.31",
        ("mcp-server-sequential-thinking",),
    ),
    Pair("npm", "@modelcontextprotocol/server-everything", "2025.8.18", "2026.1.26", ("mcp-server-everything",)),
    Pair("npm", "@playwright/mcp", "0.0.35", "0.0.73", ("playwright-mcp",), formerly="mcp-server-playwright"),
    Pair(
        "npm",
        "@notionhq/notion-mcp-server",
        "1.8.0",
        "2.5.2",
        ("notion-mcp-server",),
        {"NOTION_TOKEN": "demo"},
    ),
    Pair("npm", "@upstash/context7-mcp", "1.0.0", "4.1.1", ("context7-mcp",)),
    Pair("npm", "tavily-mcp", "0.1.4", "0.2.22", ("tavily-mcp",), {"TAVILY_API_KEY": "demo"}),
    Pair(
        "npm",
        "@brave/brave-search-mcp-server",
        "2.0.63",
        "2.1.4",
        ("brave-search-mcp-server", "--transport", "stdio"),
        {"BRAVE_API_KEY": "demo"},
    ),
    Pair("npm", "chrome-devtools-mcp", "0.10.1", "1.11.0", ("chrome-devtools-mcp",)),
    Pair("npm", "mcp-server-kubernetes", "2.9.6", "4.1.7", ("mcp-server-kubernetes",)),
)


def install(pair: Pair, release: str, folder: Path) -> Path:
    """Install a release into a folder; the folder of its commands. The newest of what it needs comes with it."""
    if pair.source == "npm":
        folder.mkdir()
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        environments.run("npm", "install", "--prefix", str(folder), *options, f"{pair.package}@{release}")
        return folder / "node_modules" / ".bin"
    uv = str(Path(sysconfig.get_path("scripts")) / "uv")
    python = str(folder / "bin" / "python")
    environments.run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
    # The old release was written for the SDK of its time, and seldom says that it needs one older than 2.
    needed = [f"{pair.package}=={release}", *(["mcp<2"] if release == pair.old else [])]
    environments.run(uv, "pip", "install", "--quiet", "--python", python, *needed)
    return folder / "bin"


def observe(pair: Pair, release: str) -> dict[str, Any]:
    """What a release offers. Raises RuntimeError where it cannot be installed, or does not answer."""
    with TemporaryDirectory(prefix="pair-") as name:
        folder = Path(name)
        programs = install(pair, release, folder / "installed")
        home = folder / "home"
        home.mkdir()
        environments.run("git", "init", "--quiet", str(home))
        environment = {
            **pair.settings,
            "HOME": str(home),
            "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)]),
        }
        program, *arguments = pair.command
        if release == pair.old and pair.formerly:
            program = pair.formerly
        command = [
            str(environments.programs("older") / "python"),
            str(HERE / "clients" / "offer.py"),
            str(programs / program),
            *(argument.replace("HOME", str(home)) for argument in arguments),
        ]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{pair.package} {release}\n{done.stderr}")
        return json.loads(done.stdout)


def reduced(value: Any, key: str = "") -> Any:
    """A JSON value without its texts: of each stay a digest, the hosts that it names, and what is not to be seen.

    So the rules find the same in it. `key`: the field that the value is of. Titles of a few words stay: whether one is
    notation depends on its letters.
    """
    if isinstance(value, dict):
        return {name: reduced(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [reduced(item, key) for item in value]
    if not isinstance(value, str) or value == "" or key in NAMES:
        return value
    if (TITLE if key == "title" else WORD).fullmatch(value) and key != "description":
        return value
    hosts = "".join(f" https://{host}" for host in sorted(grades.hosts_of([value])))
    unseen = "".join(sorted(grades.unseen([value]).elements()))
    return hashlib.sha256(value.encode()).hexdigest()[:12] + hosts + unseen


def row(pair: Pair, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a pair: the digests of its tools, the grades of its changes, and both offers without texts."""
    changes = grades.compare(grades.Offer(**before), grades.Offer(**after))
    digests = [
        {tool["name"]: [one.hex()[:16] for one in fingerprint.fingerprint(tool)] for tool in offer["tools"]}
        for offer in (before, after)
    ]
    return {
        **{name: getattr(pair, name) for name in ("source", "package", "old", "new")},
        "digests": digests,
        "grades": [[change.kind, change.subject, change.grade] for change in changes],
        "offers": [reduced(before), reduced(after)],
    }


def main() -> int:
    """Observe the pairs and write the fixture; exit code 1 where one of them could not be observed."""
    rows = {tuple(kept[name] for name in ("package", "old", "new")): kept for kept in json.loads(FIXTURE.read_text())}
    failed = 0
    for pair in PAIRS:
        if sys.argv[1:] and pair.package not in sys.argv[1:]:
            continue
        try:
            kept = row(pair, observe(pair, pair.old), observe(pair, pair.new))
        except RuntimeError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        rows[pair.package, pair.old, pair.new] = kept
        print(pair.package, pair.old, pair.new, len(kept["grades"]), flush=True)
    write(list(rows.values()))
    return 1 if failed else 0


def write(rows: list[dict[str, Any]]) -> None:
    """Write the fixture, a pair a line."""
    lines = (json.dumps(one, separators=(",", ":"), ensure_ascii=True) for one in rows)
    FIXTURE.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    sys.exit(main())
