"""What a person is shown: the list, a server, a check, a registration. All that came from afar is made harmless."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final, cast

from mcp_registry_client import _health, _terminal
from mcp_registry_client._fault import Failed
from mcp_registry_client._health import Sight
from mcp_registry_client._json import mapping, mappings
from mcp_registry_client._terminal import Cell, Column, Screen, Style, clean
from mcp_registry_client.introspect import Introspection

TONES: Final[dict[str, Style]] = {
    "active": "green",
    "created": "green",
    "error": "red",
    "inactive": "dim",
    "unchanged": "dim",
    "updated": "yellow",
}
# What a person reads of a description. The rest is in --json.
MAX_PROSE: Final = 1200
# What to do about a verdict.
ADVICE: Final = {
    "blocked": "serve it at another port",
    "dns": "check the host name in the URL",
    "http_error": "look into the server's log",
    "not_mcp": "check the path, which is often /mcp, or name a health page by --health-url",
    "refused": "start the server, or check host and port, and http or https",
    "timeout": "look whether the server is overloaded or hangs",
    "tls": "mend the certificate, or try http://; a private CA is named by SSL_CERT_FILE",
}


def show_list(screen: Screen, servers: Sequence[Mapping[str, Any]]) -> None:
    """A row for each server."""
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
        name, title, status = (plain(server.get(field)) for field in ("name", "display_name", "status"))
        rows.append(
            [
                Cell(plain(server.get("id")), "dim"),
                Cell(name, "bold"),
                Cell(status, TONES.get(status)),
                Cell(plain(server.get("server_type"))),
                Cell(plain(server.get("version")) or "-"),
                Cell(plain(server.get("tools_count"))),
                Cell(ago(server.get("last_health_check"))),
                Cell(title if title != name else ""),
            ]
        )
    if not any(row[-1].text for row in rows):
        columns.pop()
    screen.table(columns, rows)


def show_server(screen: Screen, detail: Mapping[str, Any], health: Mapping[str, Any]) -> None:
    """What is stored of a server, what its checks found, and its tools."""
    name, title, status = (plain(detail.get(field)) for field in ("name", "display_name", "status"))
    screen.write(f"{screen.paint(name, 'bold')}  {toned(screen, status)}")
    if title and title != name:
        screen.paragraph(title)
    screen.write()
    metadata = mapping(detail.get("metadata"))
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
        ("Tags", ", ".join(plain(tag) for tag in cast("list[Any]", tags)) if isinstance(tags, list) else None),
        ("Registered", _moment(detail.get("created_at"))),
        ("Id", detail.get("id")),
    )
    screen.write()
    screen.write(screen.paint("Health", "bold"))
    _fields(screen, *_health_lines(detail, health))
    _show_tools(screen, mappings(detail.get("tools")))


def show_registration(screen: Screen, registration: Mapping[str, Any], found: Introspection) -> None:
    """What would be sent of a server."""
    screen.write(screen.paint("This would be registered:", "bold"))
    screen.write()
    metadata = mapping(registration.get("metadata"))
    _fields(
        screen,
        ("Name", registration["name"]),
        ("Display name", registration["display_name"]),
        ("Description", registration.get("description")),
        ("Type", registration["server_type"]),
        ("Endpoint", registration["endpoint_url"]),
        ("Health URL", registration.get("health_url")),
        ("Version", registration.get("version")),
        ("Author", metadata.get("author")),
        ("Repository", metadata.get("repository_url")),
        ("Documentation", metadata.get("documentation_url")),
        ("Tags", ", ".join(metadata.get("tags", ()))),
        ("Speaks", f"MCP {found.protocol_version}"),
    )
    _show_tools(screen, registration["tools"])


def show_check(
    screen: Screen, url: str, status: str, sight: Sight, found: Introspection | None, fault: Failed | None
) -> None:
    """What a check of a server sees, and what the server says of itself."""
    screen.write(f"{screen.paint(clean(url), 'bold')}  {toned(screen, status)}")
    screen.write()
    code, reason = _explained(sight._asdict())
    lines: list[tuple[str, Any]] = [
        ("A check sees", f"{sight.verdict}{code} in {sight.response_time_ms} ms{reason}"),
        ("What to do", ADVICE.get(sight.verdict)),
    ]
    if sight.address is not None and not _health.is_public(sight.address):
        lines.append(("Address", f"{sight.address}: a registry elsewhere does not dial this"))
    if fault is not None:
        lines.append(("Its tools", fault.message))
    if found is not None:
        lines.append(("Server", f"{found.name or 'without a name'} {found.version or ''}"))
        lines.append(("Speaks", f"MCP {found.protocol_version}"))
        lines += [("No tool", f"{one.name}: {one.rule}") for one in found.tools_left_out]
    _fields(screen, *lines)
    if found is not None:
        _show_tools(screen, found.tools)


def _health_lines(detail: Mapping[str, Any], health: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the checks found, most urgent first."""
    status = detail.get("status")
    last = mapping(health.get("last_check") or detail.get("last_check"))
    if status == "inactive":
        yield "Status", "inactive: taken out of the checks by an operator"
    if last:
        code, reason = _explained(last)
        took = f" in {_milliseconds(last.get('response_time_ms'))}" if last.get("response_time_ms") is not None else ""
        yield "Last check", f"{plain(last.get('verdict'))}{code}{took}, {ago(last.get('checked_at'))}{reason}"
    else:
        yield "Last check", "none yet: the registry checks every half minute"
    changes = mappings(health.get("transitions"))
    if changes and changes[0].get("to") == status:
        reason = plain(changes[0].get("reason"))
        why = "" if reason == plain(last.get("error_message")) else f": {reason}"
        yield "Since", _moment(changes[0].get("at")) + why
    if health.get("checks"):
        checks, uptime = plain(health.get("checks")), plain(health.get("uptime_percent")).removesuffix(".0")
        yield "24 hours", f"{uptime} % up in {counted(checks, 'check')}"
    if health.get("p50_ms") is not None:
        median, high = _milliseconds(health.get("p50_ms")), _milliseconds(health.get("p95_ms"))
        yield "Answers in", f"{median} (median), {high} (95 of 100)"


def _explained(check: Mapping[str, Any]) -> tuple[str, str]:
    """What stands behind the verdict of a check: the status of HTTP, and the reason in words.

    Without a status where it would be taken for a fault: a server that is well may answer 404 to what a check asks.
    """
    status, verdict = check.get("status_code"), check.get("verdict")
    code = f" (HTTP {plain(status)})" if status is not None else ""
    if verdict == "healthy" and not (isinstance(status, int) and 200 <= status < 300):
        return "", ": it answers as an MCP server does"
    if verdict == "gated":
        return code, ": it is there, and wants credentials"
    return code, f": {plain(check['error_message'])}" if check.get("error_message") else ""


def _show_tools(screen: Screen, tools: Sequence[Mapping[str, Any]]) -> None:
    screen.write()
    screen.write(screen.paint(f"Tools ({len(tools)})", "bold"))
    names = [plain(tool.get("name")) for tool in tools]
    # A column for the names, no wider than a third of the line: the longest of them must not starve the rest.
    room = (screen.width or 96) // 3
    column = min(max(map(_terminal.width, names), default=0), room)
    for tool, full_name in zip(tools, names, strict=True):
        # The first sentence or line is what a tool is for; the rest tells a model how to call it.
        words = plain(tool.get("description") or tool.get("title") or "", first_line=True)
        name = _terminal.cut(full_name, room, middle=True) if screen.width else full_name
        space = " " * max(column - _terminal.width(name), 0)
        line = words if screen.width is None else _terminal.cut(words, max(screen.width - column - 4, 8))
        screen.write(f"  {screen.paint(name, 'bold')}{space}  {line}".rstrip())


# ------------------------------------------------------------------ words


def plain(value: Any, *, first_line: bool = False) -> str:
    """Anything that came from afar, as harmless text in one line."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    if first_line:
        text = next((line for line in text.splitlines() if line.strip()), "")
    return clean(" ".join(text.split()))


def counted(number: int | str, word: str) -> str:
    """A number of things."""
    return f"{number} {word}" if str(number) == "1" else f"{number} {word}s"


def toned(screen: Screen, word: str) -> str:
    """A status or a result in its colour."""
    tone = TONES.get(word)
    return screen.paint(word, tone) if tone else word


def ago(value: Any) -> str:
    """How long ago something was. A clock that is behind the registry's makes it now."""
    if value is None:
        return "never"
    moment = _time(value)
    if moment is None:
        return plain(value)
    seconds = max((datetime.now(timezone.utc) - moment).total_seconds(), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "now"


def _fields(screen: Screen, *fields: tuple[str, Any]) -> None:
    """Names and values in two columns, without those that say nothing."""
    known = [(name, plain(value)) for name, value in fields if value not in (None, "")]
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


def _moment(value: Any) -> str:
    moment = _time(value)
    return plain(value) if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC, {ago(value)}"


def _milliseconds(value: Any) -> str:
    if isinstance(value, int) and value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{plain(value)} ms"
