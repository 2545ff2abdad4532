"""What a person is shown: the list, a server, a check, a registration. All that came from afar is made harmless."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from mcp_registry_client import _endpoints, _health, _moments, _terminal
from mcp_registry_client._fault import Failed
from mcp_registry_client._health import Sight
from mcp_registry_client._json import mapping, mappings, strings, text
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
# So many of the last changes, and of a stranger's answer so many characters.
MAX_CHANGES: Final = 12
MAX_EXCERPT: Final = 160
UP: Final = _health.UP
# Why a status is not what the last check would make of it.
FROZEN: Final = "the registry suspects its own network"
# What to do about a verdict.
ADVICE: Final = {
    "blocked": "serve it at another port",
    "limited": "it is there; have it let the registry ask more often",
    "mcp_error": "mend what the server answers to a client",
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
        Column("VERDICT", rank=7),
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
                _verdict(server),
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


def _verdict(server: Mapping[str, Any]) -> Cell:
    """What the last check of a server said, and whether its status is held; nothing where a registry does not say."""
    verdict = plain(server.get("verdict"))
    if server.get("frozen") is True:
        return Cell(f"{verdict} (held)", "yellow")
    return Cell(verdict, "dim" if verdict == "unknown" else None if verdict in UP else "red")


def show_server(
    screen: Screen, detail: Mapping[str, Any], health: Mapping[str, Any], contact: str | None = None
) -> None:
    """What is stored of a server, what its checks found at each of its addresses, what happened, and its tools."""
    name, title, status = (plain(detail.get(field)) for field in ("name", "display_name", "status"))
    held = f" ({FROZEN}, and leaves it so)" if detail.get("frozen") is True else ""
    screen.write(f"{screen.paint(name, 'bold')}  {toned(screen, status)}{held}")
    if title and title != name:
        screen.paragraph(title)
    screen.write()
    metadata = mapping(detail.get("metadata"))
    tags = metadata.get("tags")
    registered, updated = detail.get("created_at"), detail.get("updated_at")
    show_fields(
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
        ("Registered", _moment(registered)),
        # An older registry calls every check a change.
        ("Changed", _moment(updated) if "checked_at" in detail and updated != registered else None),
        ("Announced", _moments.ago(detail.get("announced_at"))),
        ("Owner", _owner(detail, contact)),
        ("Id", detail.get("id")),
        *_observed(mapping(detail.get("observed"))),
        ("Review", _review(mapping(detail.get("review")))),
    )
    screen.write()
    screen.write(screen.paint("Health", "bold"))
    show_fields(screen, *_health_lines(detail, health))
    _show_gate(screen, mapping(detail.get("auth")))
    if "endpoints" in detail:
        _show_endpoints(screen, detail)
    _show_changes(screen, _endpoints.story(detail, mappings(health.get("changes"))))
    show_tools(screen, mappings(detail.get("tools")))


def _owner(detail: Mapping[str, Any], contact: str | None) -> str | None:
    """Whose it is, and whom to ask; nothing where a registry does not say."""
    owner = plain(detail.get("owner"))
    return f"{owner}, ask {plain(contact)}" if owner and contact else owner or None


def _review(review: Mapping[str, Any]) -> str | None:
    """That something of a server waits for a curator, or was rejected: why tools may be missing from what is shown."""
    state = plain(review.get("state"))
    return f"{state.replace('_', ' ')}: mcp-registry approvals" if state not in ("", "approved") else None


def _observed(observed: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the registry found when it introduced itself to the server as a client does."""
    if not observed:
        return
    versions = ", ".join(plain(version) for version in strings(observed.get("protocol_versions")))
    transport = " over SSE" if observed.get("era") == "sse" else ""
    seen = _moments.ago(observed.get("at"))
    # Of one that has let nobody in there is a state, and nothing else.
    yield "Speaks", f"MCP {versions}{transport}{f', seen {seen}' if seen else ''}" if versions or seen else None
    info = mapping(observed.get("server_info"))
    yield "Calls itself", f"{plain(info.get('name'))} {plain(info.get('version'))}".strip()
    counts = (
        ("tool", observed.get("tools_count")),
        ("prompt", observed.get("prompts_count")),
        ("resource", observed.get("resources_count")),
        ("template", observed.get("templates_count")),
    )
    yield "Offers", ", ".join(counted(number, word) for word, number in counts if isinstance(number, int) and number)
    if observed.get("state") not in (None, "observed"):
        reason = plain(observed.get("reason"))
        yield "Observed", f"{plain(observed['state'])}{f': {reason}' if reason else ''}"
    if observed.get("agreement") == "differs":
        yield "Declared", "its tools are not those that it declares: mcp-registry show --observed"
    for what, why in mapping(observed.get("incomplete")).items():
        yield "Not whole", f"{plain(what)}: {plain(why)}"


def _show_gate(screen: Screen, auth: Mapping[str, Any]) -> None:
    """How one gets into a server that wants credentials, as far as it says."""
    if not auth:
        return
    screen.write()
    screen.write(screen.paint("How to get in", "bold"))
    show_fields(screen, *_gate_lines(auth))


def _gate_lines(auth: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if auth.get("status") == 402:
        yield "It asks for", "payment (HTTP 402)"
    schemes = " or ".join(plain(scheme) for scheme in strings(auth.get("schemes")))
    realm = f" (realm {plain(auth['realm'])})" if auth.get("realm") else ""
    header = plain(auth.get("header"))
    if schemes or realm:
        yield "Credentials", f"{schemes or 'of a scheme that it does not name'}{realm}"
    elif not header and auth.get("status") in (401, 403) and not auth.get("location"):
        yield "Credentials", "it does not say which: ask whoever runs it"
    yield "Header", header
    yield "Token from", auth.get("issuer")
    yield "Scopes", ", ".join(plain(scope) for scope in strings(auth.get("scopes")))
    yield "Explained at", auth.get("resource_metadata")
    yield "Login page", auth.get("location")


def _show_endpoints(screen: Screen, detail: Mapping[str, Any]) -> None:
    """A row for each address, and what those have answered that are down."""
    endpoints = _endpoints.listed(detail)
    screen.write()
    screen.write(screen.paint(f"Endpoints ({len(_endpoints.kept(detail))})", "bold"))
    columns = [
        Column("  ADDRESS", least=20, middle=True),
        Column("STATE"),
        Column("CHECK", rank=1),
        Column("LEASE", rank=2),
    ]
    rows = [
        [Cell(f"  {plain(one.get('url'))}"), _state(one), Cell(_found(one)), Cell(_lease(one))] for one in endpoints
    ]
    screen.table(columns, rows)
    for one in endpoints:
        if not one.get("retired_at"):
            _show_evidence(screen, mappings(one.get("evidence")), f"{plain(one.get('url'))} was asked and answered")


def _show_evidence(screen: Screen, evidence: Sequence[Mapping[str, Any]], title: str) -> None:
    """What was asked and what came back, a line for each."""
    if evidence:
        screen.write()
        screen.paragraph(f"{title}:", "  ")
        show_fields(screen, *map(_answer, evidence), indent="    ")


def _state(endpoint: Mapping[str, Any]) -> Cell:
    """Whether an endpoint is up, and since when."""
    last = mapping(endpoint.get("last_check"))
    since = _moments.length(max(_moments.passed(last.get("since")), 0)) if _moments.moment(last.get("since")) else ""
    lasting = f" for {since}" if since else ""
    if endpoint.get("retired_at"):
        return Cell(f"retired {_moments.ago(endpoint['retired_at']) or ''}".rstrip(), "dim")
    if endpoint.get("conflict_at"):
        return Cell("another server", "yellow")
    status = plain(endpoint.get("status"))
    if status == "active":
        return Cell(f"up{lasting}", "green")
    return Cell(f"down{lasting}", "red") if status == "error" else Cell("not checked", "dim")


def _found(endpoint: Mapping[str, Any]) -> str:
    """What the last check of an endpoint said, and when that was."""
    last = mapping(endpoint.get("last_check"))
    if endpoint.get("retired_at"):
        return ""
    return f"{plain(last.get('verdict'))}, {ago(last.get('checked_at'))}" if last else "never"


def _lease(endpoint: Mapping[str, Any]) -> str:
    """Until when an endpoint has announced itself."""
    if endpoint.get("retired_at") or not endpoint.get("lease_until"):
        return "by hand" if endpoint.get("declared") is True and not endpoint.get("retired_at") else ""
    left = _moments.left(endpoint["lease_until"])
    return f"{left} left" if left else f"over {_moments.ago(endpoint['lease_until'])}"


def _answer(evidence: Mapping[str, Any]) -> tuple[str, str]:
    """What was asked, and what came of it."""
    status, took = evidence.get("status"), _milliseconds(evidence.get("took_ms"))
    media = plain(evidence.get("media_type"))
    answered = f"HTTP {plain(status)}{f', {media}' if media else ''}" if status is not None else "no answer"
    excerpt = plain(evidence.get("excerpt"))
    return plain(
        evidence.get("asked")
    ), f"{answered}, after {took}{f': {_terminal.cut(excerpt, MAX_EXCERPT)}' if excerpt else ''}"


def _show_changes(screen: Screen, changes: Sequence[Mapping[str, Any]]) -> None:
    """What became of the endpoints, newest first."""
    if not changes:
        return
    screen.write()
    screen.write(screen.paint("What happened within 24 hours (UTC)", "bold"))
    for change in changes[:MAX_CHANGES]:
        at = _moments.moment(change.get("at"))
        when = f"{at:%Y-%m-%d %H:%M:%S}" if at else plain(change.get("at"))
        words = f"{plain(change.get('url'))} {_happened(change)}".strip()
        # An endpoint that changes all the time: the registry counts what it does not keep.
        if isinstance(more := change.get("more"), int) and more > 0:
            words += f" (and {counted(more, 'more change')} before it)"
        screen.paragraph(words, f"  {when}  ", " " * (len(when) + 4))
    if len(changes) > MAX_CHANGES:
        screen.write(f"  and {len(changes) - MAX_CHANGES} more before: --json has them")


def _happened(change: Mapping[str, Any]) -> str:
    """What became of an endpoint, in the words that follow its address."""
    kind, verdict, former = (plain(change.get(field)) for field in ("change", "verdict", "from"))
    reason = plain(change.get("reason"))
    because = f": {reason}" if reason else ""
    if kind != "verdict":
        words = {
            "registered": "The server was registered",
            "added": "was added",
            "removed": "was removed",
            "retired": "was retired, and is not checked any more",
            "conflict": "is another server",
        }
        return f"{words.get(kind, kind)}{because}"
    was_up, is_known = former in UP, former not in ("", "unknown")
    if verdict in UP:
        words = "is now" if was_up else "came back, and is" if is_known else "is up:"
        # Of the two that are as they should be the registry gives no reason, but says that they have answered.
        how = {"healthy": "", "gated": _gated(mappings(change.get("evidence")))}.get(verdict, because)
        return f"{words} {verdict}{how}"
    words = "went down" if was_up else "is still down, now" if is_known else "is down"
    return f"{words} ({verdict}){because}"


def _gated(evidence: Sequence[Mapping[str, Any]]) -> str:
    """What somebody answered who wants something of its callers; nothing where that is not known."""
    statuses = [one["status"] for one in evidence if isinstance(one.get("status"), int)]
    if not statuses:
        return ""
    status = statuses[-1]
    wish = "wants to be paid" if status == 402 else "has a login page" if status < 400 else "wants credentials"
    return f" (HTTP {status}: it {wish})"


def show_registration(screen: Screen, registration: Mapping[str, Any], found: Introspection) -> None:
    """What would be sent of a server."""
    screen.write(screen.paint("This would be registered:", "bold"))
    screen.write()
    metadata = mapping(registration.get("metadata"))
    show_fields(
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
    show_tools(screen, registration["tools"])


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
    # Of who wants to be paid, or sends people to a login page, the check has said more.
    if fault is not None and (sight.verdict != "gated" or fault.kind == "credentials"):
        lines.append(("Its tools", fault.message))
    if found is not None:
        lines.append(("Server", f"{found.name or 'without a name'} {found.version or ''}"))
        lines.append(("Speaks", f"MCP {found.protocol_version}"))
        lines += [("No tool", f"{one.name}: {one.rule}") for one in found.tools_left_out]
    show_fields(screen, *lines)
    _show_gate(screen, sight.auth._asdict() if sight.auth else {})
    if sight.verdict not in UP:
        _show_evidence(screen, [one._asdict() for one in sight.evidence], "It was asked and answered")
    if found is not None:
        show_tools(screen, found.tools)


def _health_lines(detail: Mapping[str, Any], health: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the checks found, most urgent first."""
    status = detail.get("status")
    last = mapping(health.get("last_check") or detail.get("last_check"))
    if status == "inactive":
        yield "Status", "inactive: taken out of the checks by an operator"
    if detail.get("frozen") is True:
        yield "Status", f"held: {FROZEN}, and calls no server down before it knows"
    if last:
        code, reason = _explained(last)
        took = f" in {_milliseconds(last.get('response_time_ms'))}" if last.get("response_time_ms") is not None else ""
        times = last.get("times")
        is_down = last.get("verdict") not in UP
        often = f", {times} times in a row" if is_down and isinstance(times, int) and times > 1 else ""
        yield "Last check", f"{plain(last.get('verdict'))}{code}{took}, {ago(last.get('checked_at'))}{often}{reason}"
    elif status != "inactive":
        yield "Last check", "none yet: the first comes within seconds, and then one every half minute"
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


def show_tools(
    screen: Screen, tools: Sequence[Mapping[str, Any]], marks: Mapping[str | None, str] | None = None
) -> None:
    """A line for each tool. `marks`: a sign before the tools of these names."""
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
        taken = column + (6 if marks else 4)
        line = words if screen.width is None else _terminal.cut(words, max(screen.width - taken, 8))
        mark = f"{marks.get(text(tool.get('name')), ' ')} " if marks else ""
        screen.write(f"  {mark}{screen.paint(name, 'bold')}{space}  {line}".rstrip())


# ------------------------------------------------------------------ words


def plain(value: Any, *, first_line: bool = False) -> str:
    """Anything that came from afar, as harmless text in one line."""
    if value is None:
        return ""
    words = value if isinstance(value, str) else json.dumps(value)
    if first_line:
        words = next((line for line in words.splitlines() if line.strip()), "")
    return clean(" ".join(words.split()))


def counted(number: int | str, word: str) -> str:
    """A number of things."""
    return f"{number} {word}" if str(number) == "1" else f"{number} {word}s"


def toned(screen: Screen, word: str) -> str:
    """A status or a result in its colour."""
    return screen.paint(word, TONES.get(word))


def ago(value: Any) -> str:
    """How long ago a check was."""
    return "never" if value is None else _moments.ago(value) or plain(value)


def show_fields(screen: Screen, *fields: tuple[str, Any], indent: str = "  ") -> None:
    """Names and values in two columns, without those that say nothing."""
    known = [(name, plain(value)) for name, value in fields if value not in (None, "")]
    column = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        shown = value if screen.width is None else _terminal.cut(value, MAX_PROSE)
        first = f"{indent}{name:<{column}}  "
        screen.paragraph(shown, first, " " * len(first))


def _moment(value: Any) -> str:
    moment = _moments.moment(value)
    return plain(value) if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC, {_moments.ago(value)}"


def _milliseconds(value: Any) -> str:
    if isinstance(value, int) and value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{plain(value)} ms"
