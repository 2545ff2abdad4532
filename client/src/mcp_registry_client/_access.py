"""The commands about who may do what: login, whoami, tokens, teams, issuers, transfer and audit."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from mcp_registry_client import _logins, _moments, _options
from mcp_registry_client._api import Registry
from mcp_registry_client._ending import Exit, Stopped
from mcp_registry_client._json import mapping, mappings, strings
from mcp_registry_client._terminal import Cell, Column, Screen, clean, note, waiting
from mcp_registry_client._views import plain

ROOT: Final = "/api/registry"
# Of the audit, those of one page.
MAX_PAGE: Final = 1_000


# ------------------------------------------------------------------ login, logout, whoami


def login(options: argparse.Namespace, screen: Screen) -> int:
    """Keep what lets in to a registry, once that has said who it is."""
    url, given = _options.login(options)
    registry = _options.registry_of(options, url, given)
    with waiting("Asking the registry"):
        caller = _whoami(registry)
    try:
        file = _logins.keep(url, given)
    except OSError as error:
        where = _logins.place()
        raise Stopped(Exit.FAILED, "NOT_KEPT", f"{where} cannot be written ({error.strerror}): mend that") from None
    if options.json:
        screen.document({**caller, "registry": url})
    else:
        screen.write(f"Logged in to {clean(url)} as {_told(screen, caller)}")
        note(f"It is kept in {file}, which nobody but you can read; mcp-registry logout removes it.")
    return Exit.OK


def logout(options: argparse.Namespace, screen: Screen) -> int:
    """Forget what is kept for a registry."""
    url = _options.place(options)
    try:
        was_kept = _logins.forget(url)
    except OSError as error:
        where = _logins.place()
        raise Stopped(Exit.FAILED, "NOT_KEPT", f"{where} cannot be written ({error.strerror}): mend that") from None
    if options.json:
        screen.document({"registry": url, "was_kept": was_kept})
    else:
        screen.write(f"Logged out of {clean(url)}" if was_kept else f"Nothing was kept for {clean(url)}")
    return Exit.OK


def whoami(options: argparse.Namespace, screen: Screen) -> int:
    """Say who the registry takes us for."""
    with waiting("Asking the registry"):
        caller = _whoami(_options.registry(options))
    if options.json:
        screen.document(caller)
    else:
        screen.write(_told(screen, caller))
    return Exit.OK


def _whoami(registry: Registry) -> dict[str, Any]:
    return registry.ask("GET", f"{ROOT}/whoami")


def _told(screen: Screen, caller: Mapping[str, Any]) -> str:
    until = _moments.left(caller.get("expires_at"))
    ends = f", for {until} more" if until else ""
    role, team = plain(caller.get("role")), plain(caller.get("team"))
    return f"{screen.paint(plain(caller.get('name')), 'bold')} ({role}, team {team}{ends})"


# ------------------------------------------------------------------ tokens


def tokens(options: argparse.Namespace, screen: Screen) -> int:
    """List, make or revoke tokens."""
    registry = _options.registry(options)
    if options.action == "make":
        wanted = {
            "name": options.name,
            "team": options.team,
            "role": options.role,
            "expires_in_days": options.days,
        }
        with waiting("Making the token"):
            made = registry.ask("POST", f"{ROOT}/tokens", wanted)
        if options.json:
            screen.document(made)
        else:
            # Alone on stdout, so that a shell can put it where it belongs.
            screen.write(plain(made.get("token")))
            ends = _moments.left(made.get("expires_at"))
            note(f"{_of_token(made)}, for {ends}. It is shown this once: the registry keeps its digest.")
        return Exit.OK
    if options.action == "revoke":
        with waiting("Revoking the token"):
            registry.ask("DELETE", f"{ROOT}/tokens/{quote(options.id, safe='')}")
        if options.json:
            screen.document({"id": options.id, "revoked": True})
        else:
            screen.write(f"revoked {screen.paint(clean(options.id), 'bold')}")
            note("It may be taken for up to a minute more.")
        return Exit.OK
    query = {"team": options.team} if options.team else {}
    with waiting("Reading the tokens"):
        found = _pages(registry, f"{ROOT}/tokens", "tokens", query)
    if options.json:
        screen.document({"tokens": found})
    elif found:
        columns = [
            Column("ID"),
            Column("NAME", least=12),
            Column("TEAM", least=8),
            Column("ROLE"),
            Column("ENDS"),
            Column("LAST USED", rank=2),
            Column("MADE BY", least=8, rank=1),
        ]
        screen.table(columns, [_token_row(token) for token in found])
    else:
        note("There is no token yet: mcp-registry tokens make NAME --team TEAM makes one.")
    return Exit.OK


def _of_token(token: Mapping[str, Any]) -> str:
    return f"The token {plain(token.get('id'))} is a {plain(token.get('role'))} of the team {plain(token.get('team'))}"


def _token_row(token: Mapping[str, Any]) -> list[Cell]:
    left = _moments.left(token.get("expires_at"))
    ends = Cell("revoked", "red") if token.get("revoked_at") else Cell(f"in {left}") if left else Cell("over", "red")
    return [
        Cell(plain(token.get("id")), "dim"),
        Cell(plain(token.get("name")), "bold"),
        Cell(plain(token.get("team"))),
        Cell(plain(token.get("role"))),
        ends,
        Cell(_moments.ago(token.get("last_used_at")) or "never"),
        Cell(plain(token.get("created_by"))),
    ]


# ------------------------------------------------------------------ teams


def teams(options: argparse.Namespace, screen: Screen) -> int:
    """List, show, set or remove teams."""
    registry = _options.registry(options)
    if options.action == "list":
        with waiting("Reading the teams"):
            found = mappings(registry.ask("GET", f"{ROOT}/teams").get("teams"))
        if options.json:
            screen.document({"teams": found})
        else:
            columns = [
                Column("TEAM", least=8),
                Column("SERVERS", right=True),
                Column("PREFIXES", least=12, rank=1),
                Column("CONTACT", least=12, rank=2),
            ]
            screen.table(columns, [_team_row(team) for team in found])
        return Exit.OK
    path = f"{ROOT}/teams/{quote(options.team, safe='')}"
    if options.action == "remove":
        with waiting("Removing the team"):
            registry.ask("DELETE", path)
        if options.json:
            screen.document({"name": options.team, "removed": True})
        else:
            screen.write(f"removed {screen.paint(clean(options.team), 'bold')}")
        return Exit.OK
    if options.action == "set":
        with waiting("Reading the team"):
            before = _there(registry, path) or {}
        wanted = {
            "contact": before.get("contact") if options.contact is None else options.contact or None,
            "prefixes": [] if options.no_prefixes else options.prefix or strings(before.get("prefixes")),
        }
        with waiting("Setting the team"):
            team = registry.ask("PUT", path, wanted)
    else:
        with waiting("Reading the team"):
            team = registry.ask("GET", path)
    if options.json:
        screen.document(team)
        return Exit.OK
    screen.write(screen.paint(plain(team.get("name")), "bold"))
    servers = team.get("servers")
    for name, value in (
        ("Contact", plain(team.get("contact")) or "-"),
        ("Prefixes", ", ".join(map(plain, strings(team.get("prefixes")))) or "-"),
        ("Servers", plain(servers) if isinstance(servers, int) else ""),
    ):
        if value:
            screen.paragraph(f"{name:<9} {value}", "  ", " " * 12)
    members = mappings(team.get("members"))
    if members:
        screen.write()
        columns = [Column("MEMBER"), Column("ROLE"), Column("WHAT", least=12)]
        screen.table(columns, [_member_row(one) for one in members])
    return Exit.OK


def _team_row(team: Mapping[str, Any]) -> list[Cell]:
    return [
        Cell(plain(team.get("name")), "bold"),
        Cell(plain(team.get("servers"))),
        Cell(", ".join(map(plain, strings(team.get("prefixes"))))),
        Cell(plain(team.get("contact"))),
    ]


def _member_row(member: Mapping[str, Any]) -> list[Cell]:
    kind = plain(member.get("kind"))
    return [
        Cell(f"{kind} {plain(member.get('id'))}", "dim"),
        Cell(plain(member.get("role"))),
        Cell(plain(member.get("name") or member.get("issuer"))),
    ]


# ------------------------------------------------------------------ issuers


def issuers(options: argparse.Namespace, screen: Screen) -> int:
    """List, set or remove what says which workloads of others are let in."""
    registry = _options.registry(options)
    if options.action == "list":
        with waiting("Reading the issuers"):
            found = mappings(registry.ask("GET", f"{ROOT}/issuers").get("issuers"))
        if options.json:
            screen.document({"issuers": found})
        elif found:
            columns = [
                Column("ID", least=8),
                Column("TEAM", least=8),
                Column("ROLE"),
                Column("CLAIMS", least=16),
                Column("AUDIENCE", least=12, rank=1),
                Column("ISSUER", least=16, middle=True, rank=2),
            ]
            screen.table(columns, [_issuer_row(one) for one in found])
        else:
            note("No issuer is trusted yet: mcp-registry issuers set --help says how to let workloads in.")
        return Exit.OK
    path = f"{ROOT}/issuers/{quote(options.id, safe='')}"
    if options.action == "remove":
        with waiting("Removing the issuer"):
            registry.ask("DELETE", path)
        if options.json:
            screen.document({"id": options.id, "removed": True})
        else:
            screen.write(f"removed {screen.paint(clean(options.id), 'bold')}")
        return Exit.OK
    wanted = {
        "issuer": options.issuer,
        "audience": options.audience,
        "claims": dict(options.claim),
        "team": options.team,
        "role": options.role,
    }
    with waiting("Setting the issuer"):
        one = registry.ask("PUT", path, wanted)
    if options.json:
        screen.document(one)
    else:
        name = screen.paint(plain(one.get("id")), "bold")
        screen.write(f"{name}: {_claims(one)} is a {plain(one.get('role'))} of the team {plain(one.get('team'))}")
    return Exit.OK


def _issuer_row(one: Mapping[str, Any]) -> list[Cell]:
    return [
        Cell(plain(one.get("id")), "bold"),
        Cell(plain(one.get("team"))),
        Cell(plain(one.get("role"))),
        Cell(_claims(one)),
        Cell(plain(one.get("audience"))),
        Cell(plain(one.get("issuer"))),
    ]


def _claims(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(name)}={plain(value)}" for name, value in mapping(one.get("claims")).items())


# ------------------------------------------------------------------ transfer, audit


def transfer(options: argparse.Namespace, screen: Screen) -> int:
    """Give a server to another team."""
    registry = _options.registry(options)
    with waiting("Giving the server away"):
        number = registry.find(options.server)["id"]
        answer = registry.ask("POST", f"{ROOT}/servers/{number}/transfer", {"team": options.team})
    if options.json:
        screen.document(answer)
    else:
        name = screen.paint(plain(answer.get("name")), "bold")
        screen.write(f"{name} (id {plain(answer.get('id'))}) belongs to the team {plain(answer.get('owner'))} now")
    return Exit.OK


def audit(options: argparse.Namespace, screen: Screen) -> int:
    """Who did what, in order."""
    registry = _options.registry(options)
    filters = {name: getattr(options, name) for name in ("actor", "target", "action")}
    query = {name: value for name, value in filters.items() if value}
    after = options.after
    wanted = None if options.all else options.limit
    entries: list[dict[str, Any]] = []
    with waiting("Reading the audit"):
        while True:
            limit = MAX_PAGE if wanted is None else min(MAX_PAGE, wanted - len(entries))
            page = registry.ask("GET", f"{ROOT}/audit?{urlencode({**query, 'after': after, 'limit': limit})}")
            found = mappings(page.get("entries"))
            entries += found
            following = page.get("next_after")
            # A page that leads back would be read for ever.
            if not isinstance(following, int) or not found or following <= after:
                following = None
                break
            after = following
            if wanted is not None and len(entries) >= wanted:
                break
    if options.json:
        screen.document({"entries": entries, "next_after": following})
    elif entries:
        columns = [
            Column("NO.", right=True, rank=2),
            Column("WHEN"),
            Column("WHO", least=12, middle=True),
            Column("DID", least=12),
            Column("TO", least=12, middle=True),
            Column("CHANGED", least=12, rank=3),
            Column("FROM", rank=1),
        ]
        screen.table(columns, [_entry_row(entry) for entry in entries])
        if following is not None:
            note(f"There is more: --after {following} goes on, --all shows everything.")
    else:
        note("Nothing was done that fits.")
    return Exit.OK


def _entry_row(entry: Mapping[str, Any]) -> list[Cell]:
    before, after = mapping(entry.get("before")), mapping(entry.get("after"))
    changes = {name: _change(before.get(name), after.get(name)) for name in {**before, **after}}
    return [
        Cell(plain(entry.get("sequence")), "dim"),
        Cell(_moments.ago(entry.get("at")) or ""),
        Cell(plain(entry.get("actor"))),
        Cell(plain(entry.get("action")), "bold"),
        Cell(plain(entry.get("target"))),
        Cell("; ".join(f"{plain(name)}: {change}" for name, change in changes.items() if change)),
        Cell(plain(entry.get("address"))),
    ]


def _change(before: Any, after: Any) -> str:
    """What became of a field, in words; empty where there was nothing in it and is nothing."""
    was, now = (", ".join(map(plain, value)) if isinstance(value, list) else plain(value) for value in (before, after))
    return f"{was} -> {now}" if was and now else now or (was and f"no more {was}")


# ------------------------------------------------------------------ what several ask


def contact_of(registry: Registry, detail: Mapping[str, Any]) -> str | None:
    """Whom to ask about a server; None where nobody says, or the registry is of a release without teams."""
    owner = detail.get("owner")
    if not isinstance(owner, str) or not owner:
        return None
    team = _there(registry, f"{ROOT}/teams/{quote(owner, safe='')}")
    return plain(team.get("contact")) or None if team else None


def _pages(registry: Registry, path: str, field: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """All that a list has, page by page."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        given = {**query, "limit": "1000", **({"after": after} if after else {})}
        page = registry.ask("GET", f"{path}?{urlencode(given)}")
        rows = mappings(page.get(field))
        found += rows
        following = page.get("next_after")
        if not isinstance(following, str) or not rows or following == after:
            return found
        after = following


def _there(registry: Registry, path: str) -> dict[str, Any] | None:
    """What is at a path; None where nothing is."""
    try:
        return registry.ask("GET", path)
    except Stopped as stopped:
        if stopped.ending == Exit.NOT_FOUND:
            return None
        raise
