"""The command `mcp-registry`: register a running server, list, show and check servers, and remove one.

What a command has to say goes to stdout, in words for people or by `--json` as one document; everything on the way goes
to stderr. A command that fails says in one sentence what to do next, and its exit code says of which kind that is.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, TextIO

from mcp_registry_client import (
    _access,
    _document,
    _endpoints,
    _ledger,
    _moments,
    _options,
    _terminal,
    _tools,
    _urls,
    _views,
    introspect,
)
from mcp_registry_client._document import About
from mcp_registry_client._ending import UNREACHED, Ended, Exit, Stopped, misused, unasked
from mcp_registry_client._fault import Failed
from mcp_registry_client._health import SECONDS as CHECK_SECONDS
from mcp_registry_client._health import UP, Sight
from mcp_registry_client._json import Fault, mapping, mappings, text
from mcp_registry_client._terminal import Screen, clean, note, waiting
from mcp_registry_client._tools import Facts
from mcp_registry_client._trimming import Trimming
from mcp_registry_client._views import ago, counted, plain, toned
from mcp_registry_client.introspect import Introspection

# What a registration may have and lose, and the option that gives it.
OPTIONAL: Final = {
    "author": "--author",
    "repository_url": "--repository-url",
    "documentation_url": "--documentation-url",
    "tags": "--tag",
    "description": "--description",
    "health_url": "--health-url",
    "version": "--version",
}
SIGNALS: Final = {
    "SIGTERM": (Exit.TERMINATED, "Ended by SIGTERM: run it again"),
    "SIGHUP": (Exit.HUNG_UP, "Ended because the terminal was closed (SIGHUP): run it again"),
}


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
        with _ended_by_signals():
            ending = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Ended as ended:
        return ended.ending
    except BrokenPipeError:
        _abandon(sys.stdout)
        return Exit.UNREAD
    except OSError as error:
        # What the network does wrong has another name by now. This is a disk that is full.
        _abandon(sys.stdout)
        _complain(f"The output cannot be written: {error.strerror}")
        return Exit.FAILED
    return ending


def _run(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    screen = Screen(sys.stdout)
    try:
        options = _options.parse(arguments, COMMANDS)
        as_json = options.json
        command: _options.Command = options.run
        return command(options, screen)
    except SystemExit as ended:
        # What --help ends with.
        return int(ended.code or 0)
    except _options.Told as told:
        if as_json:
            screen.document(told.document)
        else:
            screen.write(told.line)
        return Exit.OK
    except Stopped as stopped:
        if as_json:
            screen.document(_error(stopped.ending, stopped.code, stopped.sentence, stopped.details))
        _complain(stopped.sentence, stopped.details)
        return stopped.ending
    except (KeyboardInterrupt, Ended) as ended:
        # A person knows who ended it. Who reads documents waits for one.
        ending = ended.ending if isinstance(ended, Ended) else Exit.INTERRUPTED
        sentence = ended.sentence if isinstance(ended, Ended) else "Interrupted by Ctrl-C: run it again"
        if as_json:
            screen.document(_error(ending, ending.name, sentence))
        return ending


def _error(ending: Exit, code: str, sentence: str, details: Sequence[Fault] = ()) -> dict[str, Any]:
    """What a program reads of a command that failed."""
    document: dict[str, Any] = {"error": sentence, "code": code, "exit_code": ending}
    if details:
        document["details"] = [{"path": fault.path, "message": fault.message} for fault in details]
    return document


def _complain(sentence: str, details: Sequence[Fault] = ()) -> None:
    """Say on stderr what is wrong. Where nobody reads that, the exit code has said it."""
    with suppress(OSError):
        screen = Screen(sys.stderr)
        screen.paragraph(clean(f"mcp-registry: {sentence}"), hanging="  ")
        for path, message, _ in details:
            screen.paragraph(clean(f"{path}: {message}" if path else message), "  ", "    ")
        sys.stderr.flush()


def _open_streams() -> None:
    """Give each stream that whoever started us has closed (`>&-`) somewhere to go: Python has None for it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it stays open


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """Let signals that end the process raise Ended meanwhile, so that a session of MCP is deleted on the way out."""

    def end(number: int, _: object) -> NoReturn:
        raise Ended(*SIGNALS[signal.Signals(number).name])

    before: dict[int, Any] = {}
    for name in SIGNALS:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # Whoever ignores one, as nohup does, goes on to.
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            with suppress(ValueError):  # another thread than the first gets no signals
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _abandon(stream: TextIO) -> None:
    """Have Python end without a word on what it could not write."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# ------------------------------------------------------------------ register


def _register(options: argparse.Namespace, screen: Screen) -> int:
    # What is wrong with the command line is said before anybody is asked.
    if fault := _url_fault(options):
        raise misused(fault)
    if fault := _urls.port_fault(options.url):
        raise misused(f"{fault}, so that no registry dials it: serve the server at another one")
    registry = None if options.dry_run else _options.registry(options)
    headers = _options.headers(options)
    try:
        with waiting(f"Asking {options.url}"):
            found = introspect.introspect(options.url, headers=headers, deadline_seconds=options.timeout)
    except Failed as failed:
        raise unasked(failed) from None
    trimming = _trimmed(options, found)
    registration = trimming.document
    if registry is None:
        if options.json:
            screen.document(registration)
        else:
            _views.show_registration(screen, registration, found)
        _note_missing(trimming, registration["name"])
        return Exit.OK
    with waiting("Reading the server of that name"):
        former = registry.registered(registration["name"])
    removed = _endpoints.others(former, options.url) if former else []
    rivals = _endpoints.living(removed)
    if former and rivals and not options.replace:
        raise _elsewhere(registration["name"], rivals, is_here=_endpoints.has(former, options.url))
    with waiting("Sending the registration"):
        answer = registry.put(trimming)
    registration = trimming.document
    result, name, status = (plain(answer.get(field)) for field in ("result", "name", "status"))
    if options.json:
        left_out = [one._asdict() for one in trimming.left_out]
        dropped = [one._asdict() for one in trimming.dropped]
        screen.document({**answer, "tools_left_out": left_out, "fields_left_out": dropped})
    else:
        tools = counted(len(registration["tools"]), "tool")
        details = f" (id {plain(answer.get('id'))}): {tools}, {status}"
        screen.write(f"{toned(screen, result)} {screen.paint(name, 'bold')}{details}")
    _note_missing(trimming, name)
    if former is not None and (lost := _lost(former, registration, options)):
        given_by = ", ".join(OPTIONAL.get(field, "--type") for field in lost)
        note(f"The former registration had what this one has not: {', '.join(lost)}. Give it again by {given_by}.")
    if removed:
        back = "; one that announces itself is back at its next announcement" if _endpoints.leased(removed) else ""
        note(f"It has this one address now, and no longer {_addresses(removed)}{back}.")
    if status == "inactive":
        note(f"An operator has taken it out of service (mcp-registry enable {name} puts it back).")
    return Exit.OK


def _elsewhere(name: str, others: Sequence[Mapping[str, Any]], *, is_here: bool) -> Stopped:
    """The end of a registration whose name belongs to a server that is there, at another address.

    `is_here`: it has the address that is given as well.
    """
    first = others[0]
    state = "up" if first.get("status") == "active" else "not checked yet"
    checked = ago(mapping(first.get("last_check")).get("checked_at"))
    seen = f"{state}, checked {checked}" if first.get("status") == "active" else state
    more = f", and at {len(others) - 1} more" if len(others) > 1 else ""
    sentence = f"{name} is {'also ' if is_here else ''}registered at {plain(first.get('url'))} ({seen}){more}"
    advice = "give this server another name by --name, or put it in that one's place by --replace"
    if is_here:
        advice = "leave it this one address by --replace"
    return Stopped(Exit.FAILED, "OTHER_ADDRESS", f"{sentence}: {advice}")


def _addresses(endpoints: Sequence[Mapping[str, Any]]) -> str:
    """The addresses of endpoints, in a sentence."""
    return ", ".join(plain(endpoint.get("url")) for endpoint in endpoints)


def _trimmed(options: argparse.Namespace, found: Introspection) -> Trimming:
    """What is sent of a server. Raises Stopped where it cannot be."""
    try:
        return Trimming(_registration(options, found), left_out=found.tools_left_out)
    except (TypeError, ValueError):
        sentence = "What an option says of the server holds half a surrogate pair, which is no text"
        raise Stopped(Exit.FAILED, "INVALID", f"{sentence}: give it in the encoding of the terminal") from None


def _note_missing(trimming: Trimming, name: str) -> None:
    """Say what is not registered of a server."""
    for sentence in trimming.told(name):
        note(f"{sentence}.")


def _url_fault(options: argparse.Namespace) -> str | None:
    """Why the health URL that is given cannot be one, with what to do."""
    if not options.health_url:
        return None
    fault = _urls.health_fault(options.health_url, options.url)
    return f"{fault}: look at --health-url" if fault else None


def _registration(options: argparse.Namespace, found: Introspection) -> dict[str, Any]:
    """What is sent of a server, in the order in which a person reads it. Raises Stopped where it has no name."""
    own_name = found.name
    if own_name and _tools.UNNAMED.fullmatch(own_name):
        own_name = None
    if not options.name and not own_name:
        sentence = "The server gives no name that can be registered"
        if found.name and own_name is None:
            sentence = f"The server's name {found.name} is what its framework calls a server without one"
        raise Stopped(Exit.FAILED, "NO_NAME", f"{sentence}: choose one by --name")
    facts = Facts(
        name=own_name,
        title=found.title,
        description=found.description or found.instructions,
        version=found.version,
        website_url=found.website_url,
    )
    about: About = {
        "name": options.name,
        "display_name": options.display_name,
        "description": options.description,
        "server_type": options.type or "community",
        "health_url": options.health_url,
        "version": options.version,
        "author": options.author,
        "repository_url": options.repository_url,
        "documentation_url": options.documentation_url,
        "tags": options.tag or None,
    }
    return _document.document(about, facts, options.url, found.tools, lambda sentence: note(f"{sentence}."))


def _lost(former: Mapping[str, Any], registration: Mapping[str, Any], options: argparse.Namespace) -> list[str]:
    """The fields that a former registration had and this one has not, and its type where nobody wanted another."""
    before = {**former, **mapping(former.get("metadata"))}
    after = {**registration, **mapping(registration.get("metadata"))}
    lost = [field for field in OPTIONAL if before.get(field) and not after.get(field)]
    was = plain(former.get("server_type"))
    return lost + ([f"type {was}"] if was != registration["server_type"] and not options.type else [])


# ------------------------------------------------------------------ list


def _list(options: argparse.Namespace, screen: Screen) -> int:
    registry = _options.registry(options)
    filters = {name: getattr(options, name) for name in ("status", "verdict", "type", "tag", "owner", "search")}
    wanted = None if options.all else options.limit
    with waiting("Reading the list"):
        found = registry.servers({k: v for k, v in filters.items() if v}, wanted)
    if options.json:
        screen.document(found._asdict())
    elif found.servers:
        _views.show_list(screen, found.servers)
        if any(server.get("frozen") is True for server in found.servers):
            note(f"held: {_views.FROZEN}, and leaves the status as it was.")
        if found.next_cursor is not None:
            total = f"at least {found.total:,}" if found.total_is == "at_least" else f"{found.total:,}"
            note(f"These are {len(found.servers):,} of {total}: --all lists every one.")
    elif any(filters.values()):
        note("No server matches: leave a filter out to see more.")
    else:
        note("No server is registered yet: mcp-registry register --url https://host/mcp adds one.")
    return Exit.OK


# ------------------------------------------------------------------ show


def _show(options: argparse.Namespace, screen: Screen) -> int:
    registry = _options.registry(options)
    with waiting("Reading the server"):
        detail = registry.find(options.server)
        if options.observed:
            return _ledger.show_observed(registry, detail, options, screen)
        health = registry.health(detail["id"])
    if options.json:
        screen.document({"server": detail, "health": health})
    else:
        _views.show_server(screen, detail, health, _access.contact_of(registry, detail))
    return Exit.OK


# ------------------------------------------------------------------ check


def _check(options: argparse.Namespace, screen: Screen) -> int:
    if fault := _url_fault(options):
        raise misused(fault)
    headers = _options.headers(options)
    with waiting(f"Asking {options.url}"):
        seconds = min(options.timeout, CHECK_SECONDS)
        sight = introspect.check(options.url, health_url=options.health_url, deadline_seconds=seconds)
        found, unread = _asked_too(options, headers, sight)
    status = "active" if sight.verdict in UP else "error"
    # Whether its tools can be read says nothing about whether it is up: the registry would call it active all the same.
    ending = Exit.OK if sight.verdict in UP else Exit.UNREACHABLE if sight.verdict in UNREACHED else Exit.FAILED
    if options.json:
        screen.document(
            {
                "url": options.url,
                "status": status,
                "health": _seen(sight),
                "server": _said(found) if found else None,
                "fault": {"kind": unread.kind, "message": unread.message} if unread else None,
                "exit_code": ending,
            }
        )
    else:
        _views.show_check(screen, options.url, status, sight, found, unread)
    return ending


def _seen(sight: Sight) -> dict[str, Any]:
    """What a check has seen, as a document."""
    auth = sight.auth._asdict() if sight.auth else None
    return {**sight._asdict(), "auth": auth, "evidence": [one._asdict() for one in sight.evidence]}


def _said(found: Introspection) -> dict[str, Any]:
    """What a server says of itself, as a document."""
    return {**found._asdict(), "tools_left_out": [one._asdict() for one in found.tools_left_out]}


def _asked_too(
    options: argparse.Namespace, headers: Mapping[str, str], sight: Sight
) -> tuple[Introspection | None, Failed | None]:
    """What a server that is there says of itself, or why it cannot be asked."""
    if sight.verdict in UNREACHED or sight.verdict in ("blocked", "limited"):
        return None, None
    try:
        return introspect.introspect(options.url, headers=headers, deadline_seconds=options.timeout), None
    except Failed as failed:
        return None, failed


# ------------------------------------------------------------------ disable, enable


def _disable(options: argparse.Namespace, screen: Screen) -> int:
    return _set_status(options, screen, "inactive")


def _enable(options: argparse.Namespace, screen: Screen) -> int:
    return _set_status(options, screen, "active")


def _set_status(options: argparse.Namespace, screen: Screen, wanted: str) -> int:
    registry = _options.registry(options)
    with waiting("Changing the server"):
        answer = registry.set_status(registry.find(options.server)["id"], wanted)
    if options.json:
        screen.document(answer)
        return Exit.OK
    status, name = plain(answer["status"]), plain(answer["name"])
    screen.write(f"{toned(screen, status)} {screen.paint(name, 'bold')} (id {plain(answer['id'])})")
    if wanted == "inactive":
        note(f"It is not checked any more, and stays so when it registers itself again (mcp-registry enable {name}).")
    elif status == "error":
        note(f"It is checked, and the last check found it down (mcp-registry show {name}).")
    return Exit.OK


# ------------------------------------------------------------------ deregister


def _deregister(options: argparse.Namespace, screen: Screen) -> int:
    if not options.yes and not _terminal.can_ask():
        raise misused("Nobody can be asked here whether to remove the server: add --yes")
    registry = _options.registry(options)
    with waiting("Reading the server"):
        detail = registry.find(options.server)
    number, name = detail["id"], plain(detail["name"])
    if options.hold and "endpoints" not in detail:
        sentence = "This registry is of an older release, which holds no names: leave --for out"
        raise Stopped(Exit.FAILED, "NOT_SUPPORTED", sentence)
    # A lease runs on for minutes after its process has ended.
    announcing = _endpoints.living(_endpoints.leased(_endpoints.kept(detail)))
    if announcing and not options.hold:
        heard = ago(max(str(endpoint.get("announced_at")) for endpoint in announcing))
        back = "will be back within minutes; deregister it with --for 1h to hold the name for so long"
        note(f"{name} announces itself from {_addresses(announcing)} (last {heard}) and {back}.")
    tools = counted(len(mappings(detail.get("tools"))), "tool")
    if not options.yes and not _terminal.agreed(
        f"Remove {name} (id {number}) with {tools} and all that its checks found?"
    ):
        raise Stopped(Exit.FAILED, "DECLINED", "Nothing was removed: answer y, or give --yes")
    with waiting("Removing the server"):
        registry.remove(number, options.hold)
    if options.json:
        screen.document(
            {
                "id": number,
                "name": detail["name"],
                "result": "removed",
                "held_seconds": options.hold,
                "announced_from": [text(endpoint.get("url")) for endpoint in announcing],
            }
        )
    else:
        held = f": nobody can register the name for {_moments.exact(options.hold)}" if options.hold else ""
        screen.write(f"removed {screen.paint(name, 'bold')} (id {number}){held}")
    return Exit.OK


COMMANDS: Final[dict[str, _options.Command]] = {
    "register": _register,
    "list": _list,
    "show": _show,
    "check": _check,
    "disable": _disable,
    "enable": _enable,
    "deregister": _deregister,
    "login": _access.login,
    "logout": _access.logout,
    "whoami": _access.whoami,
    "tokens": _access.tokens,
    "teams": _access.teams,
    "issuers": _access.issuers,
    "transfer": _access.transfer,
    "audit": _access.audit,
    "changes": _ledger.changes,
    "diff": _ledger.diff,
    "approvals": _ledger.approvals,
    "approve": _ledger.approve,
    "reject": _ledger.reject,
    "policy": _ledger.policy,
    "observe": _ledger.observe,
    "probe-headers": _ledger.probe_headers,
}

if __name__ == "__main__":
    sys.exit(main())
