"""The command line: what may be given, how it is explained, and what the environment says where nothing is given."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NoReturn

from mcp_registry_client import _logins, _settings, _terminal, _urls, introspect
from mcp_registry_client._api import Registry
from mcp_registry_client._ending import MEANINGS, misused
from mcp_registry_client._identity import Identities
from mcp_registry_client._terminal import Screen, note

Command = Callable[[argparse.Namespace, Screen], int]

TYPES: Final = ("official", "community", "mock")
STATUSES: Final = ("active", "inactive", "error")
VERDICTS: Final = (
    *("healthy", "gated", "limited", "unknown"),
    *("refused", "timeout", "dns", "tls", "http_error", "mcp_error", "not_mcp", "blocked"),
)
# Each may do what those before it may.
ROLES: Final = ("reader", "publisher", "curator", "admin")
# From the one that matters least.
GRADES: Final = ("notation", "text", "compatible", "breaking", "alarming")
POLICIES: Final = ("auto", "compatible", "manual", "default")
# For how long a name is held: what the letters mean in seconds, and between which bounds.
UNITS: Final = {"m": 60, "h": 3_600, "d": 86_400}
SHORTEST_HOLD, LONGEST_HOLD = 60, 7 * 86_400
EPILOG: Final = "\n".join(
    (
        "environment:",
        "  MCP_REGISTRY_URL       where the registry is; --registry goes before it",
        "  MCP_REGISTRY_TOKEN     who asks: a token of the registry",
        "  MCP_REGISTRY_USERNAME  else a user; --username goes before both",
        "  MCP_REGISTRY_PASSWORD  the password; --password-stdin goes before it",
        "  NO_COLOR               set to anything: no colours",
        "",
        "exit codes:",
        *(f"  {code:<4} {meaning}" for code, meaning in MEANINGS.items()),
        "",
        "With --json, stdout is one JSON document (changes: one a line), also where a command fails:",
        '  {"error": "<sentence>", "code": "<WORD>", "exit_code": <number>}',
    )
)
# What begins a line that is a command, and may be broken only as a shell allows.
PROMPT: Final = "  mcp-registry "


class Told(Exception):
    """All that was asked for is known without a command: a document for programs, and a line for people."""

    def __init__(self, document: Mapping[str, Any], line: str) -> None:
        super().__init__(line)
        self.document = document
        self.line = line


def parse(arguments: Sequence[str], commands: Mapping[str, Command]) -> argparse.Namespace:
    """The options of a command line, with the command that is meant as `run`.

    Raises Stopped where it is not right, Told for --version, and SystemExit for --help, which is then printed.
    """
    return _parser(commands).parse_args(arguments)


def registry(options: argparse.Namespace) -> Registry:
    """The registry that options and environment name, and who asks it. Raises Stopped where either cannot be used.

    Options go before variables, and these before what `mcp-registry login` has kept.
    """
    url = place(options)
    login = _given(options, _settings.at(url))
    if login == _logins.Login():
        login = _logins.of(url) or login
    return registry_of(options, url, login)


def place(options: argparse.Namespace) -> str:
    """Where the registry is, that is meant: without a slash at its end. Raises Stopped where nobody says."""
    given = _settings.base_of(options.registry) if options.registry else _settings.from_environment().registry_url
    url = given or _logins.current()
    if not url:
        raise misused("No registry is given: set MCP_REGISTRY_URL, or add --registry https://host")
    fault = _urls.link_fault(url) or ("it has a query" if "?" in url or "#" in url else None)
    if fault:
        raise misused(f"The registry's URL cannot be used ({fault}): look at MCP_REGISTRY_URL or --registry")
    return url


def registry_of(options: argparse.Namespace, url: str, login: _logins.Login) -> Registry:
    """A registry as whoever is logged in so, and where that is nobody, as the role that this process has on AWS."""
    settings = _settings.Settings(registry_url=url, **login._asdict(), audience=_settings.at(url).audience)
    identities = Identities(settings)
    if identities and _urls.is_overheard(url):
        note(f"Credentials of the registry go to {_urls.host(url)} over plain http, where others can read them.")
    return Registry(url, identities, options.timeout)


def login(options: argparse.Namespace) -> tuple[str, _logins.Login]:
    """The registry to log in to, and as whom: a user with a password, or a token from stdin. Raises Stopped."""
    url = place(options)
    if options.username or options.password_stdin:
        password = _read_secret("Password")
        return url, _checked(options.username or _settings.at(url).username, password)
    token = _read_secret("Token")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise misused("This is no token: mcp-registry tokens make gives one")
    return url, _logins.Login(token=token)


def headers(options: argparse.Namespace) -> dict[str, str]:
    """The headers that --header gives for the server at --url."""
    found = headers_given(options.header)
    if found and _urls.is_overheard(options.url):
        host = _urls.host(options.url)
        note(f"What --header gives goes to {host} over plain http, where others can read it.")
    return found


def headers_given(given: Sequence[str]) -> dict[str, str]:
    """Headers, by hand or in a file, which no list of processes shows. Raises Stopped where one cannot be sent."""
    found: dict[str, str] = {}
    for text in given:
        lines = _lines_of(text[1:]) if text.startswith("@") else [text]
        for line in lines:
            name, colon, value = (part.strip() for part in line.partition(":"))
            fault = introspect.header_fault(name, value) if colon else "A header is written as 'Name: value'"
            if fault is None and any(name.lower() == other.lower() for other in found):
                fault = f"The header {name} is given twice, and one of them would be sent"
            if fault:
                raise misused(f"{fault}: look at --header")
            found[name] = value
    return found


def _given(options: argparse.Namespace, settings: _settings.Settings) -> _logins.Login:
    """Who asks, as options and environment say: what stands in options goes before a token of the environment."""
    token = None if options.username or options.password_stdin else settings.token
    if token is not None:
        return _logins.Login(token=token)
    username: str | None = options.username or settings.username
    password = _read_secret("Password") if options.password_stdin else settings.password
    if username is None and password is None:
        return _logins.Login()
    return _checked(username, password)


def _checked(username: str | None, password: str | None) -> _logins.Login:
    if username is None:
        raise misused("The password lacks a user: set MCP_REGISTRY_USERNAME, or give --username")
    if password is None:
        raise misused(f"The user {username} lacks a password: set MCP_REGISTRY_PASSWORD, or give --password-stdin")
    if ":" in username:
        raise misused("A user name has no colon, because it would end there: look at --username")
    try:
        (username + password).encode()
    except UnicodeEncodeError:
        raise misused("The user name or the password is not UTF-8: check how it is given") from None
    return _logins.Login(username=username, password=password)


def _read_secret(what: str) -> str:
    """The first line of stdin; at a terminal it is asked for, and not shown."""
    try:
        if sys.stdin.isatty():
            import getpass

            password = getpass.getpass(f"{what}: ", sys.stderr)
        else:
            # Some programs on Windows begin whatever they write with a byte order mark.
            password = sys.stdin.readline().rstrip("\r\n").lstrip("\ufeff")
    except EOFError:
        password = ""
        sys.stderr.write("\n")
    except ValueError:
        raise misused(f"The {what.lower()} on stdin is not text: send it in UTF-8") from None
    if not password:
        raise misused(f"There is no {what.lower()} on stdin: send it as the first line")
    return password


def _lines_of(path: str) -> list[str]:
    try:
        # pathlib takes 10 ms to import. The byte order mark that editors on Windows write is no part of a header.
        with open(path, encoding="utf-8-sig") as file:  # noqa: PTH123
            return [line for line in file.read().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise misused(f"The file {path} of --header cannot be read ({why}): check its path") from None


# ------------------------------------------------------------------ what may be given


def _parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    parser = _Parser(prog="mcp-registry", epilog=EPILOG)
    parser.description = "Register MCP servers in a private registry, and see what is in it."
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    _add_common(parser, first=True)
    group = parser.add_subparsers(metavar="COMMAND", required=True)
    explain = {
        "register": _explain_register,
        "list": _explain_list,
        "show": _explain_show,
        "check": _explain_check,
        "disable": _explain_disable,
        "enable": _explain_enable,
        "deregister": _explain_deregister,
        "login": _explain_login,
        "logout": _explain_logout,
        "whoami": _explain_whoami,
        "tokens": _explain_tokens,
        "teams": _explain_teams,
        "issuers": _explain_issuers,
        "transfer": _explain_transfer,
        "audit": _explain_audit,
        "changes": _explain_changes,
        "diff": _explain_diff,
        "approvals": _explain_approvals,
        "approve": _explain_approve,
        "reject": _explain_reject,
        "policy": _explain_policy,
        "observe": _explain_observe,
        "probe-headers": _explain_probe_headers,
    }
    for name, run in commands.items():
        explain[name](group, run)
    return parser


def _explain_register(commands: Any, run: Command) -> None:
    command = _add(commands, "register", run, "register a running server, or bring its registration up to date")
    command.description = (
        "Asks a running MCP server for its name, version and tools, and makes the registry agree with it. May be"
        " repeated at will: what has not changed is not written. The registration is replaced as a whole: what an"
        " earlier one had and this one has not is gone, and is named after 'updated'. A tool that the registry does not"
        " take is left out and named, with the rule that it breaks; so are the largest schemas beyond 1 MiB. The server"
        " has this one address then. Where another one answers under its name, that needs --replace."
    )
    command.epilog = _examples(
        "mcp-registry register --url https://host/mcp --dry-run",
        "mcp-registry register --url https://host/mcp --header @token.txt --tag geo",
    )
    _add_url(command)
    version = "its version (default: what the server says, which may be the version of its framework)"
    command.add_argument("--name", metavar="NAME", help="name in the registry (default: what the server calls itself)")
    command.add_argument("--display-name", metavar="TEXT", help="name for people (default: the server's title)")
    command.add_argument("--description", metavar="TEXT", help="what it is for (default: what the server says)")
    command.add_argument("--version", metavar="TEXT", help=version)
    command.add_argument("--type", choices=TYPES, help="who stands behind it (default: community)")
    command.add_argument("--author", metavar="TEXT", help="who made it")
    command.add_argument("--repository-url", metavar="URL", help="where its source is")
    command.add_argument("--documentation-url", metavar="URL", help="where to read about it")
    command.add_argument(
        "--tag", metavar="TAG", action="append", default=[], help="word to find it by; may be repeated"
    )
    command.add_argument("--replace", action="store_true", help="also where the server has other addresses")
    command.add_argument("--dry-run", action="store_true", help="only show what would be sent; asks no registry")
    _add_common(command)


def _explain_list(commands: Any, run: Command) -> None:
    command = _add(commands, "list", run, "list servers, oldest registration first")
    command.epilog = _examples(
        "mcp-registry list --status error", "mcp-registry list --all --json | jq '.servers[].name'"
    )
    command.add_argument("--status", choices=STATUSES, help="only servers of this status")
    command.add_argument(
        "--verdict",
        choices=VERDICTS,
        metavar="WORD",
        help=f"only servers of which a check said this: {', '.join(VERDICTS)}",
    )
    command.add_argument("--type", choices=TYPES, help="only servers of this type")
    command.add_argument("--tag", metavar="TAG", help="only servers that have this tag, in any case")
    command.add_argument("--owner", metavar="TEAM", help="only servers of this team")
    command.add_argument("--search", metavar="TEXT", help="only servers whose name or display name contains this")
    how_many = command.add_mutually_exclusive_group()
    how_many.add_argument("--limit", type=_positive, default=100, metavar="N", help="at most so many (default: 100)")
    how_many.add_argument("--all", action="store_true", help="every one")
    _add_common(command)


def _explain_show(commands: Any, run: Command) -> None:
    command = _add(commands, "show", run, "show one server: its addresses, what happened to them, its tools")
    command.description = (
        "Shows what is stored of a server and what its checks found: each of its addresses (up, down or not checked"
        " yet, since when, and until when it has announced itself), what happened within 24 hours, what a server that"
        " is down has answered, and how one gets into a server that wants credentials."
    )
    _add_server(command)
    command.add_argument("--observed", action="store_true", help="what the registry saw it offer, and since when")
    _add_common(command)


def _explain_check(commands: Any, run: Command) -> None:
    command = _add(commands, "check", run, "see a server as the registry's health check would, from here")
    command.description = (
        "Sends a server the request of a health check, without credentials, and says what the registry would make of"
        " the answer; that alone decides the exit code. Then asks an active server for its tools, and says why where"
        " that cannot be done. Needs no registry. The registry may see it differently where it is in another network,"
        " or may not dial the address."
    )
    command.epilog = _examples("mcp-registry check --url http://127.0.0.1:8080/mcp")
    _add_url(command)
    _add_common(command, registry=False)


def _explain_disable(commands: Any, run: Command) -> None:
    command = _add(commands, "disable", run, "take a server out of service: it stays listed, and is not checked")
    _add_server(command)
    _add_common(command)


def _explain_enable(commands: Any, run: Command) -> None:
    command = _add(commands, "enable", run, "put a server back that was taken out of service")
    _add_server(command)
    _add_common(command)


def _explain_deregister(commands: Any, run: Command) -> None:
    command = _add(commands, "deregister", run, "remove a server with its tools and all that its checks found")
    command.description = (
        "Removes a server with its tools and all that its checks found. One that announces itself is back at its next"
        " announcement, within five minutes or so, unless its name is held by --for."
    )
    command.epilog = _examples("mcp-registry deregister weather --for 1h")
    _add_server(command)
    hold = "hold the name: nobody can register it for so long, as 30m, 1h or 2d (7d at most)"
    command.add_argument("--for", dest="hold", metavar="TIME", type=_hold, help=hold)
    command.add_argument("--yes", action="store_true", help="do not ask first")
    _add_common(command)


def _explain_login(commands: Any, run: Command) -> None:
    command = _add(commands, "login", run, "keep what lets you in to a registry, for the commands that follow")
    command.description = (
        "Asks for a token, or with --username for a password, has the registry say who that is, and keeps it in a file"
        " that nobody but you can read. What a variable or an option says goes before it."
    )
    command.epilog = _examples(
        "mcp-registry login --registry https://host", "mcp-registry login --username admin < password.txt"
    )
    _add_common(command)


def _explain_logout(commands: Any, run: Command) -> None:
    _add_common(_add(commands, "logout", run, "forget what login has kept"))


def _explain_whoami(commands: Any, run: Command) -> None:
    _add_common(_add(commands, "whoami", run, "say who the registry takes you for, in which role and team"))


def _explain_tokens(commands: Any, run: Command) -> None:
    command = _add(commands, "tokens", run, "list, make or revoke tokens")
    actions = _actions(command)
    listed = _add(actions, "list", run, "list all, or those of a team")
    listed.add_argument("--team", metavar="TEAM", help="only those of this team")
    made = _add(actions, "make", run, "make one, and print it this once")
    made.epilog = _examples("mcp-registry tokens make ci --team payments --days 30")
    made.add_argument("name", metavar="NAME", help="what or who it is for")
    _add_member(made)
    days = "after how many days it ends (default: 90; 366 at most)"
    made.add_argument("--days", metavar="N", type=_positive, default=90, help=days)
    revoked = _add(actions, "revoke", run, "revoke one: nobody gets in by it any more")
    revoked.add_argument("id", metavar="ID", type=_word, help="its id, which is the second part of the token")
    for parser in (listed, made, revoked):
        _add_common(parser)


def _explain_teams(commands: Any, run: Command) -> None:
    command = _add(commands, "teams", run, "list, show, set or remove teams")
    actions = _actions(command)
    listed = _add(actions, "list", run, "list all, with what they own")
    shown = _add(actions, "show", run, "show one: whom to ask, its prefixes, its members")
    made = _add(actions, "set", run, "make one, or change its contact and its prefixes")
    made.description = (
        "Makes a team, or changes one. New servers whose name begins with a prefix belong to the team that has it, and"
        " nobody else can register them. What is not given stays as it is."
    )
    made.epilog = _examples("mcp-registry teams set payments --contact payments@example.com --prefix payments/")
    removed = _add(actions, "remove", run, "remove one that owns nothing any more")
    for parser in (shown, made, removed):
        parser.add_argument("team", metavar="TEAM", type=_word, help="its name")
    made.add_argument("--contact", metavar="TEXT", help="whom to ask, told to whoever is refused; '' for nobody")
    prefixes = made.add_mutually_exclusive_group()
    prefixes.add_argument(
        "--prefix",
        metavar="TEXT",
        action="append",
        default=[],
        help="as payments/ or payments-; may be repeated, and replaces those that it had",
    )
    prefixes.add_argument("--no-prefixes", action="store_true", help="it has none any more")
    for parser in (listed, shown, made, removed):
        _add_common(parser)


def _explain_issuers(commands: Any, run: Command) -> None:
    command = _add(commands, "issuers", run, "list, set or remove which workloads get in without a secret")
    actions = _actions(command)
    listed = _add(actions, "list", run, "list all")
    made = _add(actions, "set", run, "let in whoever has a token of this issuer that says this")
    made.description = (
        "Lets workloads in that somebody else signs for by OpenID Connect: AWS roles, GitHub Actions, GitLab CI, Entra,"
        " Okta. All that is given has to stand in their token; a star in a claim stands for any characters but / and :."
    )
    made.epilog = _examples(
        "mcp-registry issuers set payments-roles --issuer https://ID.tokens.sts.global.api.aws"
        " --audience https://registry.example.com/v1 --claim sub=arn:aws:iam::123456789012:role/payments-*"
        " --team payments"
    )
    removed = _add(actions, "remove", run, "let them in no more")
    for parser in (made, removed):
        parser.add_argument("id", metavar="ID", type=_word, help="a name for it, of your choice")
    made.add_argument("--issuer", metavar="URL", required=True, help="who signs, exactly as in the claim iss")
    made.add_argument("--audience", metavar="TEXT", required=True, help="for whom, exactly as in the claim aud")
    made.add_argument(
        "--claim",
        metavar="NAME=VALUE",
        type=_claim,
        action="append",
        required=True,
        help="what else has to stand in the token; may be repeated",
    )
    _add_member(made)
    for parser in (listed, made, removed):
        _add_common(parser)


def _explain_transfer(commands: Any, run: Command) -> None:
    command = _add(commands, "transfer", run, "give a server to another team")
    _add_server(command)
    command.add_argument("team", metavar="TEAM", type=_word, help="whose it is from then on")
    _add_common(command)


def _explain_audit(commands: Any, run: Command) -> None:
    command = _add(commands, "audit", run, "show who did what, in the order in which it was done")
    command.epilog = _examples("mcp-registry audit --target server:payments/refunds", "mcp-registry audit --all --json")
    command.add_argument("--actor", metavar="WHO", help="only what this one did, as whoami says it: token:ID, admin")
    command.add_argument("--target", metavar="WHAT", help="only what was done to this: server:NAME, team:NAME")
    command.add_argument("--action", metavar="WORD", help="only this, as server.updated")
    command.add_argument("--after", metavar="NO", type=_number, default=0, help="only what follows this number")
    how_many = command.add_mutually_exclusive_group()
    how_many.add_argument("--limit", type=_positive, default=100, metavar="N", help="at most so many (default: 100)")
    how_many.add_argument("--all", action="store_true", help="everything")
    _add_common(command)


def _explain_changes(commands: Any, run: Command) -> None:
    command = _add(commands, "changes", run, "show what changed in what servers offer, and what became of them")
    command.description = (
        "Shows what changed, oldest first: tools that came, went or are others now, each with its grade, and servers"
        " that came, went, went down or wait for a curator. With --follow it goes on until Ctrl-C, also where the"
        " registry is away for a while. With --json each change is one line."
    )
    command.epilog = _examples(
        "mcp-registry changes --grade breaking --since 7d", "mcp-registry changes --follow --json"
    )
    command.add_argument("--follow", action="store_true", help="go on with what changes from now on, until Ctrl-C")
    graded = f"only changes of this grade, or a worse one: {', '.join(GRADES)}"
    command.add_argument("--grade", choices=GRADES, metavar="WORD", help=graded)
    command.add_argument("--kind", metavar="WORD", type=_word, help="only of this kind: tool, prompt, status, removed")
    command.add_argument("--server", metavar="NAME|ID", type=_server, help="only those of this server")
    command.add_argument("--owner", metavar="TEAM", type=_word, help="only those of servers of this team")
    since = "from when on: 30m, 12h, 7d, a time, or what follows this number (default: 1d; 0 for all)"
    command.add_argument("--since", metavar="TIME|NO", type=_since, default="1d", help=since)
    _add_common(command)


def _explain_diff(commands: Any, run: Command) -> None:
    command = _add(commands, "diff", run, "show what differs in what a server offers: words, parameters")
    command.description = (
        "Shows what differs between what a server offers now and what is handed out of it, or what was there at a time:"
        " each word of a text, each parameter. Characters that cannot be seen are written as escapes."
    )
    command.epilog = _examples("mcp-registry diff weather --since 7d", "mcp-registry diff weather --since 2026-12-01")
    _add_server(command)
    against = command.add_mutually_exclusive_group()
    since = "against what was there: 12h or 7d ago, at a time, or before the change of this number"
    against.add_argument("--since", metavar="TIME|NO", type=_since, help=since)
    against.add_argument("--declared", action="store_true", help="against what it declares itself")
    _add_common(command)


def _explain_approvals(commands: Any, run: Command) -> None:
    command = _add(commands, "approvals", run, "show what of a server waits for a curator, and who decided what")
    _add_server(command)
    _add_common(command)


def _explain_approve(commands: Any, run: Command) -> None:
    command = _add(commands, "approve", run, "let what a server offers be handed out, as it is now")
    command.description = (
        "Approves of what a server offers, bound to its digest: what it offers later waits anew. Without a digest it"
        " shows what differs from what is handed out, and asks. The digest of an older offer hands that one out again,"
        " and rejects what is there now."
    )
    command.epilog = _examples(
        "mcp-registry approve weather", "mcp-registry approve weather 1a2b3c4d5e6f --reason OK-17"
    )
    _add_decision(command, "approve of")


def _explain_reject(commands: Any, run: Command) -> None:
    command = _add(commands, "reject", run, "keep what a server offers now from being handed out")
    command.description = (
        "Rejects what a server offers, bound to its digest: it is handed out no more, and in its place is what was"
        " approved before. Without a digest it shows what differs from that, and asks."
    )
    _add_decision(command, "reject")


def _add_decision(command: argparse.ArgumentParser, verb: str) -> None:
    _add_server(command)
    digest = "which offer is meant, as approvals shows it: all 64 digits, or 8 and more of one that is shown"
    command.add_argument("digest", metavar="DIGEST", nargs="?", type=_digest, help=digest)
    command.add_argument("--reason", metavar="TEXT", help="why, for those who read it later")
    command.add_argument("--yes", action="store_true", help=f"do not ask: {verb} whatever is there now")
    _add_common(command)


def _explain_policy(commands: Any, run: Command) -> None:
    command = _add(commands, "policy", run, "show or set which changes of a server wait for a curator")
    command.description = (
        "auto: nothing waits. compatible: what breaks something, or is alarming, waits. manual: every change waits."
        " default: as the registry is set. Without a word it shows which one holds."
    )
    _add_server(command)
    command.add_argument("policy", choices=POLICIES, nargs="?", help="which one holds from now on")
    _add_common(command)


def _explain_observe(commands: Any, run: Command) -> None:
    command = _add(commands, "observe", run, "have the registry look now at what a server offers")
    _add_server(command)
    command.add_argument("--wait", action="store_true", help="until it has looked, and say what it saw")
    _add_common(command)


def _explain_probe_headers(commands: Any, run: Command) -> None:
    command = _add(commands, "probe-headers", run, "set or remove the headers that let the registry see a server")
    command.description = (
        "A server that wants credentials shows its tools to nobody without them. The headers that are set here go to"
        " this server alone, and are never shown again."
    )
    actions = _actions(command)
    made = _add(actions, "set", run, "give the registry headers for a server, in place of those that it has")
    made.epilog = _examples("mcp-registry probe-headers set weather --header @token.txt")
    removed = _add(actions, "remove", run, "take the headers of a server back")
    for parser in (made, removed):
        _add_server(parser)
    made.add_argument(
        "--header",
        metavar="K:V",
        action="append",
        required=True,
        help="header, such as 'Authorization: Bearer ...'; @FILE reads one a line; may be repeated",
    )
    for parser in (made, removed):
        _add_common(parser)


def _actions(command: argparse.ArgumentParser) -> Any:
    """What may be done of a command that has several."""
    _add_common(command)
    return command.add_subparsers(metavar="ACTION", required=True, dest="action")


def _add_member(command: argparse.ArgumentParser) -> None:
    command.add_argument("--team", metavar="TEAM", type=_word, required=True, help="for which team")
    command.add_argument("--role", choices=ROLES, default="publisher", help="what they may do (default: publisher)")


def _add(commands: Any, name: str, run: Command, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(run=run)
    return parser


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, metavar="URL", type=_endpoint, help="where the server answers MCP")
    parser.add_argument(
        "--header",
        metavar="K:V",
        action="append",
        default=[],
        help="header for the server, such as 'Authorization: Bearer ...'; @FILE reads one a line; may be repeated",
    )
    parser.add_argument("--health-url", metavar="URL", help="what a health check reads instead: a path, or a URL")


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("server", metavar="NAME|ID", type=_server, help="its name, or its id")


def _add_common(parser: argparse.ArgumentParser, *, first: bool = False, registry: bool = True) -> None:
    """Options that may stand before and after the command. There, only what is given counts."""

    def default(value: object) -> Any:
        return value if first else argparse.SUPPRESS

    group = parser.add_argument_group("everywhere")
    group.add_argument("--json", action="store_true", default=default(False), help="print one JSON document")
    if registry:
        where = "where the registry is, with or without /api"
        group.add_argument("--registry", metavar="URL", default=default(None), help=where)
        group.add_argument("--username", metavar="NAME", default=default(None), help="who asks the registry")
        stdin = "read the password from stdin; at a terminal, ask for it"
        group.add_argument("--password-stdin", action="store_true", default=default(False), help=stdin)
        group.add_argument("--password", action=_NoPassword, nargs="?", default=default(None), help=argparse.SUPPRESS)
    timeout = "how long a server, and each answer of the registry, may take (default: 30)"
    group.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=default(30.0), help=timeout)


def _examples(*lines: str) -> str:
    return "\n".join(("examples:", *(f"  {line}" for line in lines)))


def _endpoint(text: str) -> str:
    if fault := _urls.endpoint_fault(text):
        raise argparse.ArgumentTypeError(fault)
    return text


def _server(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a name or an id is expected, and mcp-registry list shows them")
    return text


def _word(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a name is expected")
    return text


def _claim(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise argparse.ArgumentTypeError("NAME=VALUE is expected, such as sub=arn:aws:iam::123456789012:role/x")
    return name, value


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError("a number is expected")
    return int(text)


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise argparse.ArgumentTypeError("a number from 1 is expected")
    return int(text)


def _since(text: str) -> int | datetime:
    """A number of the feed, or a time: so long ago, or as it is written, in UTC where it says no offset."""
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    try:
        if found := re.fullmatch(r"([0-9]{1,6})([mhd])", text):
            return datetime.now(timezone.utc) - timedelta(seconds=int(found[1]) * UNITS[found[2]])
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "a time is expected, as 12h, 7d, 2026-12-01 or 2026-12-01T08:00:00Z, or the number of a change"
        ) from None


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{8,64}", text.lower()):
        raise argparse.ArgumentTypeError("a digest is expected: 64 hexadecimal digits, or the first 8 and more of them")
    return text.lower()


def _hold(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not SHORTEST_HOLD <= seconds <= LONGEST_HOLD:
        raise argparse.ArgumentTypeError("a time from 1m to 7d is expected, such as 30m, 1h or 2d")
    return seconds


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError("a number of seconds up to 3600 is expected")
    return seconds


# ------------------------------------------------------------------ argparse, in our words


class _Help(argparse.HelpFormatter):
    """Prose of at most 80 columns, which are easier to read than more, above lines that stay as they are."""

    def __init__(self, prog: str, **options: Any) -> None:
        self._room = min(Screen(sys.stdout).width or 80, 80)
        super().__init__(prog, **{**options, "width": self._room, "max_help_position": 28})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(self._fitted(line) for line in text.splitlines())

    def _fitted(self, line: str) -> str:
        """A line as it is, where it fits; a longer one is broken, a command so that it can still be copied."""
        if len(line) <= self._room:
            return line
        is_command = line.startswith(PROMPT)
        # What is explained goes on below its explanation, not below its name.
        explained = re.match(r" +\S+ {2,}", line)
        begin = " " * (len(line) - len(line.lstrip()))
        if explained and len(explained[0]) < self._room // 2:
            begin = explained[0]
        rest = " " * (4 if is_command else len(begin))
        room = self._room - 2 * is_command
        lines = _terminal.wrapped(line[len(begin) :], room, len(begin), len(rest))
        return (" \\\n" if is_command else "\n").join([begin + lines[0], *(rest + line for line in lines[1:])])


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are like all others: one sentence, and JSON where that is asked for."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation that is clear today means two things once there is another option.
        super().__init__(**options, formatter_class=_Help, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Complain."""
        raise misused(f"{message[:1].upper()}{message[1:]}: {self.prog} --help says more")


class _NoPassword(argparse.Action):
    """`--password`, which people try. What stands on a command line is read by everybody on the machine."""

    def __call__(self, *_: object) -> None:
        """Refuse it, without repeating it."""
        raise misused(
            "A password on the command line can be read by others: use --password-stdin or MCP_REGISTRY_PASSWORD"
        )


class _Version(argparse.Action):
    """`--version`. What is installed is looked up only where it is asked for, as that takes longer than a command."""

    def __call__(self, *_: object) -> None:
        """Say it and end."""
        from importlib import metadata

        try:
            version = metadata.version("mcp-registry-client")
        except metadata.PackageNotFoundError:
            version = "that is not installed"
        raise Told({"version": version}, f"mcp-registry {version}")
