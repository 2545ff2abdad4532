"""The command `mcp-registry`: register a running server, list, show and check servers, and remove one.

What a command has to say goes to stdout, in words for people or by `--json` as one document; everything on the way goes
to stderr. A command that fails says in one sentence what to do next, and its exit code says of which kind that is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from enum import IntEnum
from typing import Any, Final, NoReturn, TextIO, cast
from urllib.parse import quote, urlencode

from mcp_registry_client import _canonical, _settings, _terminal, _transport, introspect
from mcp_registry_client._terminal import Cell, Column, Screen, Style, clean, waiting
from mcp_registry_client.introspect import Introspection, Sight


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    UNAUTHORISED = 5
    INTERRUPTED = 130
    UNREAD = 141


ENDINGS: Final = {
    Exit.OK: "done; for check: the registry would call the server active",
    Exit.FAILED: "refused or failed; for check: the registry would call it error",
    Exit.USAGE: "the command line is not right; nothing was sent",
    Exit.NOT_FOUND: "the registry has no such server",
    Exit.UNREACHABLE: "the registry or the server cannot be reached or cannot answer",
    Exit.UNAUTHORISED: "the credentials are missing, or refused",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
    Exit.UNREAD: "whoever read the output stopped reading",
}
EPILOG: Final = "\n".join(
    (
        "environment:",
        "  MCP_REGISTRY_URL       where the registry is; --registry goes before it",
        "  MCP_REGISTRY_USERNAME  who asks; --username goes before it",
        "  MCP_REGISTRY_PASSWORD  the password; --password-stdin goes before it",
        "  NO_COLOR               set to anything: no colours",
        "",
        "exit codes:",
        *(f"  {code:<4} {meaning}" for code, meaning in ENDINGS.items()),
        "",
        "With --json, stdout is one JSON document, also where a command fails:",
        '  {"error": "<sentence>", "code": "<WORD>", "exit_code": <number>}',
    )
)

TYPES: Final = ("official", "community", "mock")
STATUSES: Final = ("active", "inactive", "error")
TONES: Final[dict[str, Style]] = {
    "active": "green",
    "created": "green",
    "error": "red",
    "inactive": "dim",
    "unchanged": "dim",
    "updated": "yellow",
}
UNREACHED: Final = frozenset(("dns", "refused", "timeout", "tls"))
UP: Final = frozenset(("healthy", "gated"))

# The limits of the registry that a server's own words may exceed. What people give by hand is left to it to refuse.
MAX_NAME: Final = 100
# What fastmcp calls a server or a proxy that was given no name: there would be a new one in the list after each start.
CHANCE_NAME: Final = re.compile(r"FastMCP[A-Za-z]*-[0-9a-f]{4}")
MAX_DISPLAY_NAME: Final = 200
MAX_VERSION: Final = 255
MAX_PAGE: Final = 1000
# How many names are looked through for one that is spelled another way, or nearly so.
MAX_SEARCHED: Final = 20_000
SUGGESTIONS: Final = 5
# What a person reads of a description. The rest is in --json.
MAX_PROSE: Final = 1200
# Names in which case, separators and look-alikes do not count: the registry's own rule.
FOLD: Final = str.maketrans({"0": "o", "1": "l", "i": "l", ".": None, "_": None, "-": None})


class Stopped(Exception):
    """A command cannot go on: how it ends, a word for programs, a sentence for people, and what is wrong in detail."""

    def __init__(self, ending: Exit, code: str, sentence: str, details: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(sentence)
        self.ending = ending
        self.code = code
        self.sentence = sentence
        self.details = details


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return the code that the process ends with."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    _open_streams()
    # Whatever the encoding of a terminal lacks is written as an escape: a listing must not fail by one name in it.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        ending = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _abandon(sys.stdout)
        return Exit.UNREAD
    except OSError as error:
        # What the network does wrong has another name by now. This is a disk that is full.
        _abandon(sys.stdout)
        _complain(f"The output cannot be written: {error.strerror}")
        return Exit.FAILED
    return ending


def _open_streams() -> None:
    """Give each stream that whoever started us has closed (`>&-`) somewhere to go: Python has None for it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it stays open


def _run(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        options = _parser().parse_args(arguments)
        as_json = options.json
        command: Callable[[argparse.Namespace, Screen], int] = options.run
        return command(options, Screen(sys.stdout))
    except SystemExit as ended:
        # What --help and --version end with.
        return int(ended.code or 0)
    except Stopped as stopped:
        if as_json:
            document: dict[str, Any] = {"error": stopped.sentence, "code": stopped.code, "exit_code": stopped.ending}
            if stopped.details:
                document["details"] = [{"path": path, "message": message} for path, message in stopped.details]
            sys.stdout.write(_terminal.document(document))
        _complain(stopped.sentence, stopped.details)
        return stopped.ending


def _complain(sentence: str, details: Sequence[tuple[str, str]] = ()) -> None:
    """Say on stderr what is wrong. Where nobody reads that, the exit code has said it."""
    with suppress(OSError):
        screen = Screen(sys.stderr)
        screen.paragraph(clean(f"mcp-registry: {sentence}"), hanging="  ")
        for path, message in details:
            screen.paragraph(clean(f"{path}: {message}" if path else message), "  ", "    ")
        sys.stderr.flush()


def _note(text: str) -> None:
    """Say something on the way, on stderr."""
    with suppress(OSError):
        Screen(sys.stderr).paragraph(clean(text))


def _abandon(stream: TextIO) -> None:
    """Have Python end without a word on what it could not write."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# ------------------------------------------------------------------ register


def _register(options: argparse.Namespace, screen: Screen) -> int:
    headers = _headers(options.header)
    # What is wrong with the settings is said before anybody is asked.
    registry = None if options.dry_run else _Registry(options)
    found = _introspected(options.url, headers, options.timeout)
    registration = _registration(options, found)
    if options.dry_run:
        if options.json:
            screen.write(_terminal.document(registration).rstrip())
        else:
            _show_registration(screen, registration, found)
        return Exit.OK
    assert registry is not None
    with waiting("Sending the registration"):
        answer = registry.ask("PUT", "/api/registry/register", body=_body(registration))
    if options.json:
        screen.write(_terminal.document(answer).rstrip())
        return Exit.OK
    result, name = _plain(answer.get("result")), _plain(answer.get("name"))
    tools = _counted(len(found.tools), "tool")
    status = _plain(answer.get("status"))
    details = f" (id {_plain(answer.get('id'))}): {tools}, {status}"
    screen.write(f"{_toned(screen, result)} {screen.paint(name, 'bold')}{details}")
    if status == "inactive":
        _note("The server is out of service, and registering it does not change that: PATCH its status to active.")
    return Exit.OK


def _introspected(url: str, headers: dict[str, str], seconds: float) -> Introspection:
    try:
        with waiting(f"Asking {url}"):
            return introspect.introspect(url, headers=headers, deadline_seconds=seconds)
    except introspect.Failed as failed:
        raise Stopped(_ending(failed.kind), failed.kind.upper(), failed.message) from None


def _ending(kind: introspect.Kind) -> Exit:
    if kind == "url":
        return Exit.USAGE
    if kind == "credentials":
        return Exit.UNAUTHORISED
    return Exit.UNREACHABLE if kind in UNREACHED else Exit.FAILED


def _registration(options: argparse.Namespace, found: Introspection) -> dict[str, Any]:
    """What is sent of a server, in the order in which a person reads it."""
    name: str = options.name or _legal_name(found.name or "")
    if not name:
        sentence = "The server gives no name that can be registered: choose one by --name"
        raise Stopped(Exit.FAILED, "NO_NAME", sentence)
    if not options.name and CHANCE_NAME.fullmatch(name):
        sentence = f"The server's name {name} is another after every start: choose one by --name"
        raise Stopped(Exit.FAILED, "NO_NAME", sentence)
    fields: dict[str, Any] = {
        "name": name,
        "display_name": options.display_name or (found.title or options.name or found.name or name)[:MAX_DISPLAY_NAME],
        "description": found.description or found.instructions,
        "server_type": options.type,
        "endpoint_url": options.url,
        "health_url": options.health_url,
        "version": (found.version or "")[:MAX_VERSION] or None,
        "metadata": {"tags": options.tag} if options.tag else None,
        "tools": found.tools,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _legal_name(name: str) -> str:
    """The nearest name that the registry takes: ASCII letters, digits, '.', '_', '-' and at most one '/'."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    namespace, slash, rest = re.sub(r"[^A-Za-z0-9._/-]+", "-", ascii_name).strip("-._/").partition("/")
    return (namespace.rstrip("-._") + slash + rest.replace("/", "-").lstrip("-._"))[:MAX_NAME].rstrip("-._/")


def _body(registration: dict[str, Any]) -> bytes:
    try:
        return _canonical.canonical(registration)
    except (ValueError, RecursionError):
        sentence = "The server's tools hold what cannot be sent as JSON (a lone surrogate, or endless nesting)"
        raise Stopped(Exit.FAILED, "INVALID", f"{sentence}: mend them") from None


def _show_registration(screen: Screen, registration: dict[str, Any], found: Introspection) -> None:
    screen.write(screen.paint("This would be registered:", "bold"))
    screen.write()
    _fields(
        screen,
        ("Name", registration["name"]),
        ("Display name", registration["display_name"]),
        ("Description", registration.get("description")),
        ("Type", registration["server_type"]),
        ("Endpoint", registration["endpoint_url"]),
        ("Health URL", registration.get("health_url")),
        ("Version", registration.get("version")),
        ("Tags", ", ".join(registration.get("metadata", {}).get("tags", ()))),
        ("Speaks", f"MCP {found.protocol_version}"),
    )
    _show_tools(screen, registration["tools"])


# ------------------------------------------------------------------ list


def _list(options: argparse.Namespace, screen: Screen) -> int:
    registry = _Registry(options)
    filters = {"status": options.status, "type": options.type, "search": options.search}
    wanted = None if options.all else options.limit
    with waiting("Reading the list"):
        servers, total, cursor = registry.servers({k: v for k, v in filters.items() if v}, wanted)
    if options.json:
        screen.write(_terminal.document({"servers": servers, "total": total, "next_cursor": cursor}).rstrip())
        return Exit.OK
    if not servers:
        if any(filters.values()):
            _note("No server matches: leave a filter out to see more.")
        else:
            _note("No server is registered yet: mcp-registry register --url https://host/mcp adds one.")
        return Exit.OK
    _show_list(screen, servers)
    if cursor is not None:
        _note(f"These are {len(servers)} of {total}: --all lists every one.")
    return Exit.OK


def _show_list(screen: Screen, servers: Sequence[dict[str, Any]]) -> None:
    columns = [
        Column("ID", right=True, rank=5),
        Column("NAME", least=24, middle=True),
        Column("STATUS"),
        Column("TYPE", rank=2),
        Column("VERSION", least=8, rank=3),
        Column("TOOLS", right=True, rank=4),
        Column("CHECKED", rank=6),
        Column("DISPLAY NAME", least=12, rank=1),
    ]
    rows: list[list[Cell]] = []
    for server in servers:
        name, title, status = (_plain(server.get(field)) for field in ("name", "display_name", "status"))
        rows.append(
            [
                Cell(_plain(server.get("id")), "dim"),
                Cell(name, "bold"),
                Cell(status, TONES.get(status)),
                Cell(_plain(server.get("server_type"))),
                Cell(_plain(server.get("version")) or "-"),
                Cell(_plain(server.get("tools_count"))),
                Cell(_ago(server.get("last_health_check"))),
                Cell(title if title != name else ""),
            ]
        )
    if not any(row[-1].text for row in rows):
        columns.pop()
    screen.table(columns, rows)


# ------------------------------------------------------------------ show


def _show(options: argparse.Namespace, screen: Screen) -> int:
    registry = _Registry(options)
    with waiting("Reading the server"):
        number = registry.find(options.server)
        detail = registry.ask("GET", f"/api/registry/servers/{number}")
        health = registry.ask("GET", f"/api/registry/servers/{number}/health?period=24h")
    if options.json:
        screen.write(_terminal.document({"server": detail, "health": health}).rstrip())
        return Exit.OK
    name, title, status = (_plain(detail.get(field)) for field in ("name", "display_name", "status"))
    screen.write(f"{screen.paint(name, 'bold')}  {_toned(screen, status)}")
    if title and title != name:
        screen.paragraph(title)
    screen.write()
    metadata = _mapping(detail.get("metadata"))
    tags = metadata.get("tags")
    _fields(
        screen,
        ("Description", detail.get("description")),
        ("Endpoint", detail.get("endpoint_url")),
        ("Health URL", detail.get("health_url")),
        ("Type", detail.get("server_type")),
        ("Version", detail.get("version")),
        ("Author", metadata.get("author")),
        ("Repository", metadata.get("repository_url")),
        ("Documentation", metadata.get("documentation_url")),
        ("Tags", ", ".join(_plain(tag) for tag in cast("list[Any]", tags)) if isinstance(tags, list) else None),
        ("Registered", _moment(detail.get("created_at"))),
        ("Id", detail.get("id")),
    )
    screen.write()
    screen.write(screen.paint("Health", "bold"))
    _fields(screen, *_health_lines(detail, health))
    _show_tools(screen, _mappings(detail.get("tools")))
    return Exit.OK


def _health_lines(detail: dict[str, Any], health: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the checks found, most urgent first."""
    status = detail.get("status")
    last = _mapping(health.get("last_check") or detail.get("last_check"))
    if status == "inactive":
        yield "Status", "inactive: taken out of the checks by an operator"
    if last:
        code = f" (HTTP {_plain(last['status_code'])})" if last.get("status_code") is not None else ""
        took = f" in {_milliseconds(last.get('response_time_ms'))}" if last.get("response_time_ms") is not None else ""
        reason = f": {_plain(last['error_message'])}" if last.get("error_message") else ""
        yield "Last check", f"{_plain(last.get('verdict'))}{code}{took}, {_ago(last.get('checked_at'))}{reason}"
    else:
        yield "Last check", "none yet: the registry checks every half minute"
    changes = _mappings(health.get("transitions"))
    if changes and changes[0].get("to") == status:
        reason = _plain(changes[0].get("reason"))
        why = "" if reason == _plain(last.get("error_message")) else f": {reason}"
        yield "Since", _moment(changes[0].get("at")) + why
    if health.get("checks"):
        checks, uptime = _plain(health.get("checks")), _plain(health.get("uptime_percent")).removesuffix(".0")
        yield "24 hours", f"{uptime} % up in {_counted(checks, 'check')}"
    if health.get("p50_ms") is not None:
        median, high = _milliseconds(health.get("p50_ms")), _milliseconds(health.get("p95_ms"))
        yield "Answers in", f"{median} (median), {high} (95 of 100)"


def _show_tools(screen: Screen, tools: Sequence[dict[str, Any]]) -> None:
    screen.write()
    screen.write(screen.paint(f"Tools ({len(tools)})", "bold"))
    names = [_plain(tool.get("name")) for tool in tools]
    # A column for the names, no wider than a third of the line: the longest of them must not starve the rest.
    room = (screen.width or 96) // 3
    column = min(max(map(_terminal.width, names), default=0), room)
    for tool, full_name in zip(tools, names, strict=True):
        # The first sentence or line is what a tool is for; the rest tells a model how to call it.
        words = _plain(tool.get("description") or tool.get("title") or "", first_line=True)
        name = _terminal.cut(full_name, room, middle=True) if screen.width else full_name
        space = " " * max(column - _terminal.width(name), 0)
        line = words if screen.width is None else _terminal.cut(words, max(screen.width - column - 4, 8))
        screen.write(f"  {screen.paint(name, 'bold')}{space}  {line}".rstrip())


# ------------------------------------------------------------------ check


def _check(options: argparse.Namespace, screen: Screen) -> int:
    headers = _headers(options.header)
    found: Introspection | None = None
    fault: introspect.Failed | None = None
    try:
        with waiting(f"Asking {options.url}"):
            seconds = min(options.timeout, introspect.CHECK_SECONDS)
            sight = introspect.check(options.url, health_url=options.health_url, deadline_seconds=seconds)
            if sight.verdict not in UNREACHED:
                try:
                    found = introspect.introspect(options.url, headers=headers, deadline_seconds=options.timeout)
                except introspect.Failed as failed:
                    fault = failed
    except introspect.Failed as failed:
        raise Stopped(_ending(failed.kind), failed.kind.upper(), failed.message) from None
    ending = _verdict_ending(sight, fault, headers)
    if options.json:
        document: dict[str, Any] = {
            "url": options.url,
            "status": "active" if sight.verdict in UP else "error",
            "health": sight._asdict(),
            "server": found._asdict() if found else None,
            "fault": {"kind": fault.kind, "message": fault.message} if fault else None,
            "exit_code": ending,
        }
        screen.write(_terminal.document(document).rstrip())
        return ending
    _show_check(screen, options.url, sight, found, fault)
    return ending


def _verdict_ending(sight: Sight, fault: introspect.Failed | None, headers: dict[str, str]) -> Exit:
    if sight.verdict not in UP:
        return Exit.UNREACHABLE if sight.verdict in UNREACHED else Exit.FAILED
    if fault is None:
        return Exit.OK
    if fault.kind == "credentials":
        # Who gave none wanted to know whether the server is there.
        return Exit.UNAUTHORISED if headers else Exit.OK
    # A plain service with a health page is well; it only cannot be asked for tools.
    return Exit.OK if fault.kind in ("not_mcp", "sse") else Exit.FAILED


def _show_check(
    screen: Screen, url: str, sight: Sight, found: Introspection | None, fault: introspect.Failed | None
) -> None:
    status = "active" if sight.verdict in UP else "error"
    screen.write(f"{screen.paint(clean(url), 'bold')}  {_toned(screen, status)}")
    screen.write()
    code = f" (HTTP {sight.status_code})" if sight.status_code is not None else ""
    reason = f": {sight.error_message}" if sight.error_message else ""
    if sight.verdict == "gated":
        reason = ": it is there, and wants credentials"
    lines: list[tuple[str, Any]] = [
        ("A check sees", f"{sight.verdict}{code} in {sight.response_time_ms} ms{reason}"),
    ]
    if fault is not None:
        lines.append(("Its tools", fault.message))
    if found is not None:
        lines.append(("Server", f"{found.name or 'without a name'} {found.version or ''}"))
        lines.append(("Speaks", f"MCP {found.protocol_version}"))
    _fields(screen, *lines)
    if found is not None:
        _show_tools(screen, found.tools)


# ------------------------------------------------------------------ deregister


def _deregister(options: argparse.Namespace, screen: Screen) -> int:
    asks = not options.yes
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Stopped(Exit.USAGE, "USAGE", "Nobody can be asked here whether to remove the server: add --yes")
    registry = _Registry(options)
    with waiting("Reading the server"):
        number = registry.find(options.server)
        detail = registry.ask("GET", f"/api/registry/servers/{number}")
    name = _plain(detail.get("name"))
    if asks:
        tools = _counted(len(_mappings(detail.get("tools"))), "tool")
        sys.stderr.write(f"Remove {name} (id {number}) with {tools} and all that its checks found? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Stopped(Exit.FAILED, "DECLINED", "Nothing was removed: answer y, or give --yes")
    with waiting("Removing the server"):
        registry.ask("DELETE", f"/api/registry/servers/{number}")
    if options.json:
        screen.write(_terminal.document({"id": number, "name": detail.get("name"), "result": "removed"}).rstrip())
    else:
        screen.write(f"removed {screen.paint(name, 'bold')} (id {number})")
    return Exit.OK


# ------------------------------------------------------------------ the registry


class _Registry:
    """The registry's API, as the options and the environment say where it is and who asks."""

    def __init__(self, options: argparse.Namespace) -> None:
        settings = _settings.from_environment()
        url: str = (options.registry or settings.registry_url or "").rstrip("/")
        if not url:
            sentence = "No registry is given: set MCP_REGISTRY_URL, or add --registry https://host"
            raise Stopped(Exit.USAGE, "USAGE", sentence)
        fault = introspect.url_fault(url)
        if fault or "?" in url or "#" in url:
            sentence = f"The registry's URL cannot be used ({fault or 'it has a query'}): look at MCP_REGISTRY_URL"
            raise Stopped(Exit.USAGE, "USAGE", f"{sentence} or --registry")
        self._url = url
        self._seconds: float = options.timeout
        self._credentials = _credentials(options, settings)

    def ask(self, method: str, path: str, *, body: bytes = b"") -> dict[str, Any]:
        """Send a request; the object that is answered, which is empty where there is nothing to say."""
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            response = _transport.request(
                method,
                self._url + path,
                headers=headers,
                body=body,
                deadline_seconds=self._seconds,
                credentials=self._credentials,
            )
        except _transport.Failed as failed:
            raise self._unreached(failed) from None
        try:
            # What Python takes for JSON beyond JSON (NaN) would stand in --json as it came.
            value = json.loads(response.body, parse_constant=_refuse_constant) if response.body else {}
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._strange(response.status)
        answer = cast("dict[str, Any]", value)
        if 200 <= response.status < 300:
            return answer
        raise self._refusal(response, answer)

    def servers(self, filters: dict[str, str], wanted: int | None) -> tuple[list[dict[str, Any]], int, str | None]:
        """Servers that pass the filters, their total, and where the next page begins; all where none is `wanted`."""
        servers: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            left = MAX_PAGE if wanted is None else wanted - len(servers)
            # The cursor brings its filters along.
            query = {"limit": str(min(left, MAX_PAGE)), **({"cursor": cursor} if cursor else filters)}
            page = self.ask("GET", f"/api/registry/servers?{urlencode(query, quote_via=quote, errors='replace')}")
            total, following = page.get("total"), page.get("next_cursor")
            if not isinstance(page.get("servers"), list) or not isinstance(total, int):
                raise self._strange(200)
            found = _mappings(page["servers"])
            servers += found
            following = following if isinstance(following, str) else None
            if following is None or (wanted is not None and len(servers) >= wanted):
                return servers, total, following
            # Else a page that leads back to itself would be read for ever.
            if not found or following == cursor:
                raise self._strange(200)
            cursor = following

    def find(self, given: str) -> int:
        """The id of the server that is meant: by that, or by its name in any spelling that the registry calls equal."""
        if re.fullmatch(r"[0-9]{1,19}", given):
            return int(given)
        similar, _, _ = (
            self.servers({"search": given[:MAX_DISPLAY_NAME]}, MAX_PAGE) if given.isprintable() else ([], 0, "")
        )
        wanted = _canonical_name(given)
        for server in similar:
            if _canonical_name(str(server.get("name"))) == wanted:
                return self._id(server)
        # A search finds parts of names as they are spelled. Another spelling of the same is found by looking at all.
        servers, _, _ = self.servers({}, MAX_SEARCHED)
        for server in servers:
            if _canonical_name(str(server.get("name"))) == wanted:
                return self._id(server)
        import difflib

        names = [str(server.get("name")) for server in servers]
        near = [str(server.get("name")) for server in similar] + difflib.get_close_matches(given, names, SUGGESTIONS)
        suggestions = list(dict.fromkeys(near))[:SUGGESTIONS]
        otherwise = "mcp-registry list shows the names of all"
        advice = f"is it {' or '.join(suggestions)}?" if suggestions else otherwise
        raise Stopped(Exit.NOT_FOUND, "SERVER_NOT_FOUND", f"No server has the name {given}: {advice}")

    def _id(self, server: dict[str, Any]) -> int:
        number = server.get("id")
        if not isinstance(number, int):
            raise self._strange(200)
        return number

    def _unreached(self, failed: _transport.Failed) -> Stopped:
        kind, why = failed.kind, str(failed).rstrip(".")
        if kind == "url":
            return Stopped(Exit.USAGE, "USAGE", f"{why}: look at MCP_REGISTRY_URL or --registry")
        if kind in ("garbage", "too_large"):
            return self._strange(None)
        advice = {
            "lookup": "check its host name",
            "refused": "start it, or check its port",
            "tls": "mend its certificate, or name the file of a private CA in SSL_CERT_FILE",
            "timeout": "try again, or give it longer by --timeout",
        }.get(kind, "check its address")
        sentence = f"The registry at {self._url} cannot be reached ({why}): {advice}"
        return Stopped(Exit.UNREACHABLE, "CANNOT_REACH", sentence)

    def _strange(self, status: int | None) -> Stopped:
        answered = "" if status is None else f" (HTTP {status})"
        sentence = f"What answers at {self._url} is not an MCP registry{answered}: check MCP_REGISTRY_URL or --registry"
        if status in (502, 504):
            return Stopped(Exit.UNREACHABLE, "UNAVAILABLE", f"The registry is not available{answered}: try again later")
        return Stopped(Exit.FAILED, "NOT_A_REGISTRY", sentence)

    def _refusal(self, response: _transport.Response, answer: dict[str, Any]) -> Stopped:
        """What the registry says no by, and what to do about it."""
        status, code, sentence = response.status, answer.get("code"), answer.get("error")
        if not isinstance(code, str) or not isinstance(sentence, str):
            return self._strange(status)
        sentence = sentence.rstrip(".")
        details = [
            (_plain(fault.get("path")), _plain(fault.get("message"))) for fault in _mappings(answer.get("details"))
        ]
        if status == 401:
            given = "The registry refuses the credentials" if self._credentials else "The registry wants credentials"
            advice = "set MCP_REGISTRY_USERNAME and MCP_REGISTRY_PASSWORD, or give --username and --password-stdin"
            return Stopped(Exit.UNAUTHORISED, code, f"{given}: {advice}")
        if status == 403:
            return Stopped(Exit.UNAUTHORISED, code, f"{sentence}: ask whoever runs the registry")
        if code == "SERVER_NOT_FOUND":
            return Stopped(Exit.NOT_FOUND, code, f"{sentence}: mcp-registry list shows the ids of all")
        if status in (429, 503):
            wait = response.headers.get("retry-after", "")
            moment = f"in {_counted(wait, 'second')}" if re.fullmatch(r"[0-9]{1,6}", wait) else "in a moment"
            sentence = sentence.partition(": try again")[0]
            return Stopped(Exit.UNREACHABLE, code, f"{sentence}: try again {moment}")
        advice = {
            404: "is the registry's URL complete?",
            409: "choose another name by --name, or that spelling",
            413: "the registry takes 1 MiB",
            500: "look into the registry's log",
        }.get(status, "mend what is named below" if details else "")
        return Stopped(Exit.FAILED, code, f"{sentence}: {advice}" if advice else sentence, details)


def _credentials(options: argparse.Namespace, settings: _settings.Settings) -> tuple[str, str] | None:
    username: str | None = options.username or settings.username
    password = _read_password() if options.password_stdin else settings.password
    if username is None and password is None:
        return None
    if username is None:
        raise Stopped(Exit.USAGE, "USAGE", "The password lacks a user: set MCP_REGISTRY_USERNAME, or give --username")
    if password is None:
        sentence = f"The user {username} lacks a password: set MCP_REGISTRY_PASSWORD, or give --password-stdin"
        raise Stopped(Exit.USAGE, "USAGE", sentence)
    if ":" in username:
        raise Stopped(Exit.USAGE, "USAGE", "A user name has no colon: it would end there")
    try:
        (username + password).encode()
    except UnicodeEncodeError:
        raise Stopped(
            Exit.USAGE, "USAGE", "The user name or the password is not UTF-8: check how it is given"
        ) from None
    return username, password


def _read_password() -> str:
    """The first line of stdin; at a terminal it is asked for, and not shown."""
    if sys.stdin.isatty():
        import getpass

        password = getpass.getpass("Password: ", sys.stderr)
    else:
        try:
            password = sys.stdin.readline().rstrip("\r\n")
        except ValueError:
            raise Stopped(Exit.USAGE, "USAGE", "The password on stdin is not text: send it in UTF-8") from None
    if not password:
        raise Stopped(Exit.USAGE, "USAGE", "There is no password on stdin: send it as the first line")
    return password


def _canonical_name(name: str) -> str:
    return name.lower().translate(FOLD)


def _refuse_constant(literal: str) -> None:
    raise ValueError(literal)


# ------------------------------------------------------------------ words


def _plain(value: Any, *, first_line: bool = False) -> str:
    """Anything that came from afar, as harmless text in one line."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    if first_line:
        text = next((line for line in text.splitlines() if line.strip()), "")
    return clean(" ".join(text.split()))


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [_mapping(item) for item in cast("list[Any]", value)] if isinstance(value, list) else []


def _counted(number: int | str, word: str) -> str:
    return f"{number} {word}" if str(number) == "1" else f"{number} {word}s"


def _toned(screen: Screen, word: str) -> str:
    tone = TONES.get(word)
    return screen.paint(word, tone) if tone else word


def _fields(screen: Screen, *fields: tuple[str, Any]) -> None:
    """Names and values in two columns, without those that say nothing."""
    known = [(name, _plain(value)) for name, value in fields if value not in (None, "")]
    column = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        shown = value if screen.width is None else _terminal.cut(value, MAX_PROSE)
        indent = f"  {name:<{column}}  "
        screen.paragraph(shown, indent, " " * len(indent))


def _time(value: Any) -> datetime | None:
    try:
        # Python 3.10 knows offsets, and not the letter.
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _ago(value: Any) -> str:
    """How long ago something was. A clock that is behind the registry's makes it now."""
    if value is None:
        return "never"
    moment = _time(value)
    if moment is None:
        return _plain(value)
    seconds = max((datetime.now(timezone.utc) - moment).total_seconds(), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "now"


def _moment(value: Any) -> str:
    moment = _time(value)
    return _plain(value) if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC, {_ago(value)}"


def _milliseconds(value: Any) -> str:
    if isinstance(value, int) and value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{_plain(value)} ms"


# ------------------------------------------------------------------ the command line


class _Help(argparse.HelpFormatter):
    """Prose of at most 80 columns, which are easier to read than more, above lines that stay as they are."""

    def __init__(self, prog: str, **options: Any) -> None:
        columns = min(Screen(sys.stdout).width or 80, 80)
        super().__init__(prog, **{**options, "width": columns, "max_help_position": 28})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are like all others: one sentence, and JSON where that is asked for."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation that is clear today means two things once there is another option.
        super().__init__(**options, formatter_class=_Help, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Complain."""
        raise Stopped(Exit.USAGE, "USAGE", f"{message[:1].upper()}{message[1:]}: {self.prog} --help says more")


class _NoPassword(argparse.Action):
    """`--password`, which people try. What stands on a command line is read by everybody on the machine."""

    def __call__(self, *_: object) -> None:
        """Refuse it, without repeating it."""
        sentence = "A password on the command line can be read by others: use --password-stdin or MCP_REGISTRY_PASSWORD"
        raise Stopped(Exit.USAGE, "USAGE", sentence)


class _Version(argparse.Action):
    """`--version`. What is installed is looked up only where it is asked for, as that takes longer than a command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and end."""
        from importlib import metadata

        try:
            version = metadata.version("mcp-registry-client")
        except metadata.PackageNotFoundError:
            version = "that is not installed"
        sys.stdout.write(f"mcp-registry {version}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mcp-registry", epilog=EPILOG)
    parser.description = "Register MCP servers in a private registry, and see what is in it."
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    _add_common(parser, first=True)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = _add(commands, "register", _register, "register a running server, or bring its registration up to date")
    command.description = (
        "Asks a running MCP server for its name, version and tools, and makes the registry agree with it. May be"
        " repeated at will: what has not changed is not written."
    )
    command.epilog = _examples(
        "mcp-registry register --url https://host/mcp --dry-run",
        "mcp-registry register --url https://host/mcp --header @token.txt --tag geo",
    )
    _add_url(command)
    command.add_argument("--name", metavar="NAME", help="name in the registry (default: what the server calls itself)")
    command.add_argument("--display-name", metavar="TEXT", help="name for people (default: the server's title)")
    command.add_argument("--type", choices=TYPES, default="community", help="who stands behind it (default: community)")
    command.add_argument(
        "--tag", metavar="TAG", action="append", default=[], help="word to find it by; may be repeated"
    )
    command.add_argument("--dry-run", action="store_true", help="only show what would be sent; asks no registry")
    _add_common(command)

    command = _add(commands, "list", _list, "list servers, oldest registration first")
    command.epilog = _examples(
        "mcp-registry list --status error", "mcp-registry list --all --json | jq '.servers[].name'"
    )
    command.add_argument("--status", choices=STATUSES, help="only servers of this status")
    command.add_argument("--type", choices=TYPES, help="only servers of this type")
    command.add_argument("--search", metavar="TEXT", help="only servers whose name or display name contains this")
    how_many = command.add_mutually_exclusive_group()
    how_many.add_argument("--limit", type=_positive, default=100, metavar="N", help="at most so many (default: 100)")
    how_many.add_argument("--all", action="store_true", help="every one")
    _add_common(command)

    command = _add(commands, "show", _show, "show one server: its address, its health over 24 hours, its tools")
    _add_server(command)
    _add_common(command)

    command = _add(commands, "check", _check, "see a server as the registry's health check would, from here")
    command.description = (
        "Sends a server the request of a health check, without credentials, and says what the registry would make of"
        " the answer; then asks for its tools. Needs no registry. The registry may see it differently where it is in"
        " another network, or may not dial the address."
    )
    command.epilog = _examples("mcp-registry check --url http://127.0.0.1:8080/mcp")
    _add_url(command)
    _add_common(command, registry=False)

    command = _add(commands, "deregister", _deregister, "remove a server with its tools and all that its checks found")
    _add_server(command)
    command.add_argument("--yes", action="store_true", help="do not ask first")
    _add_common(command)
    return parser


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace, Screen], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(run=run)
    return parser


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, metavar="URL", type=_server_url, help="where the server answers MCP")
    parser.add_argument(
        "--header",
        metavar="K:V",
        action="append",
        default=[],
        help="header for the server, such as 'Authorization: Bearer ...'; @FILE reads one a line; may be repeated",
    )
    parser.add_argument("--health-url", metavar="URL", help="what a health check reads instead: a path, or a URL")


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("server", metavar="NAME|ID", help="its name, or its id; a number is an id")


def _add_common(parser: argparse.ArgumentParser, *, first: bool = False, registry: bool = True) -> None:
    """Options that may stand before and after the command. There, only what is given counts."""

    def default(value: object) -> Any:
        return value if first else argparse.SUPPRESS

    group = parser.add_argument_group("everywhere")
    group.add_argument("--json", action="store_true", default=default(False), help="print one JSON document")
    if registry:
        group.add_argument("--registry", metavar="URL", default=default(None), help="where the registry is")
        group.add_argument("--username", metavar="NAME", default=default(None), help="who asks the registry")
        stdin = "read the password from stdin; at a terminal, ask for it"
        group.add_argument("--password-stdin", action="store_true", default=default(False), help=stdin)
        group.add_argument("--password", action=_NoPassword, nargs="?", default=default(None), help=argparse.SUPPRESS)
    timeout = "how long a server, and each answer of the registry, may take (default: 30)"
    group.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=default(30.0), help=timeout)


def _examples(*lines: str) -> str:
    return "\n".join(("examples:", *(f"  {line}" for line in lines)))


def _server_url(text: str) -> str:
    if fault := introspect.url_fault(text):
        raise argparse.ArgumentTypeError(fault)
    return text


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise argparse.ArgumentTypeError("a number from 1 is expected")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("a number of seconds up to 3600 is expected")
    return seconds


def _headers(given: Sequence[str]) -> dict[str, str]:
    """The headers that --header gives, by hand or in a file, which no list of processes shows."""
    headers: dict[str, str] = {}
    for text in given:
        lines = _lines_of(text[1:]) if text.startswith("@") else [text]
        for line in lines:
            name, colon, value = (part.strip() for part in line.partition(":"))
            fault = introspect.header_fault(name, value) if colon else "A header is written as 'Name: value'"
            if fault:
                raise Stopped(Exit.USAGE, "USAGE", f"{fault}: look at --header")
            headers[name] = value
    return headers


def _lines_of(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes 10 ms to import, and this is one line
            return [line for line in file.read().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Stopped(Exit.USAGE, "USAGE", f"The file {path} of --header cannot be read: {why}") from None


if __name__ == "__main__":
    sys.exit(main())
