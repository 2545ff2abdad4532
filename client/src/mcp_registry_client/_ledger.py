"""The commands about what servers really offer: what changed, what differs, what is approved of, and looking again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from mcp_registry_client import _difference, _moments, _offers, _options, _terminal
from mcp_registry_client._api import Registry
from mcp_registry_client._ending import Exit, Stopped, misused
from mcp_registry_client._health import UP
from mcp_registry_client._json import mapping, mappings, text
from mcp_registry_client._offers import exact, short
from mcp_registry_client._terminal import Screen, note, waiting
from mcp_registry_client._views import counted, plain

ROOT: Final = "/api/registry"
MAX_PAGE: Final = 1_000
# How many seconds are waited for more changes: so few at first, more each time that none came, and so many at last.
FIRST_WAIT, LONGEST_WAIT, GROWTH = 2.0, 30.0, 1.5
# A look takes 20 s at most, and where it is not clear, there are two. It is waited for in steps of so many seconds.
LOOK_SECONDS, LOOK_STEP, LOOK_PAUSE = 60.0, 0.5, 2.1
# So many digits of a digest are enough to mean one of a few.
LEAST_DIGITS: Final = 8
WHOLE_DIGEST: Final = 64
# How often an offer is read again that changes while it is being read.
TRIES: Final = 3


# ------------------------------------------------------------------ changes


def changes(options: argparse.Namespace, screen: Screen) -> int:
    """What changed, in order; with --follow also what changes from now on, until Ctrl-C."""
    registry = _options.registry(options)
    screen.one_line = options.json
    query = {name: getattr(options, name) for name in ("grade", "kind", "owner") if getattr(options, name)}
    unknown: Stopped | None = None
    with waiting("Reading the changes"):
        if options.server:
            try:
                query["server"] = registry.find(options.server)["name"]
            except Stopped as stopped:
                if stopped.ending != Exit.NOT_FOUND:
                    raise
                # A server that has gone has its changes still, by the name that it had.
                query["server"], unknown = options.server, stopped
        after, since = _begin(registry, options.since)
    widths: list[int] | None = None
    is_any = False
    try:
        for found in _pages(registry, query, after, since, follow=options.follow):
            is_any = is_any or bool(found)
            if options.json:
                for change in found:
                    screen.document(change)
            elif found:
                widths = _offers.show_changes(screen, found, widths)
            screen.flush()
    except KeyboardInterrupt:
        if options.follow:
            return Exit.OK
        raise
    if not is_any and unknown is not None:
        raise unknown
    if not is_any and not options.json:
        note("Nothing has changed that fits: --since 30d looks further back.")
    return Exit.OK


def _pages(
    registry: Registry, query: Mapping[str, str], after: int, since: datetime | None, *, follow: bool
) -> Iterator[list[dict[str, Any]]]:
    """The changes that follow a number, page by page; where it is followed, without an end.

    Each page is asked for by the number that the one before it gave: so none is missed and none comes twice, whatever
    fails between them. `since`: those at the beginning that are older are left out.
    """
    wait, is_first, is_told = FIRST_WAIT, True, False
    while True:
        registry.renew()
        try:
            page = registry.ask("GET", f"{ROOT}/changes?{urlencode({**query, 'after': after, 'limit': MAX_PAGE})}")
        except Stopped as stopped:
            # That it is not there at all is said at once. What is away for a while will be back.
            if not follow or is_first or stopped.ending != Exit.UNREACHABLE:
                raise
            if not is_told:
                note(f"{stopped.sentence}. It is asked again until it answers.")
            is_told = True
            _sleep(max(wait, stopped.wait_seconds or 0))
            wait = min(wait * GROWTH, LONGEST_WAIT)
            continue
        is_first = is_told = False
        found, following, last = mappings(page.get("changes")), page.get("next_after"), page.get("last")
        if not isinstance(page.get("changes"), list) or not isinstance(last, int):
            raise registry.strange()
        fresh = [change for change in found if since is None or not _is_before(change, since)]
        yield fresh
        since = None if fresh else since
        # A page that leads back would be read for ever.
        if isinstance(following, int) and following > after:
            after = following
            continue
        if not follow:
            return
        after = max(after, last)
        wait = FIRST_WAIT if found else min(wait * GROWTH, LONGEST_WAIT)
        _sleep(wait)


def _begin(registry: Registry, since: int | datetime | None) -> tuple[int, datetime | None]:
    """The number after which to begin, and the time before which changes are left out, where there is one.

    The feed is read from a number on, and its times rise with the numbers: so the place of a time in it is found by
    looking at single changes, further and further away, and then between the last two.
    """
    if not isinstance(since, datetime):
        return since or 0, None

    def older(after: int) -> int | None:
        """The number of the change that follows, where that is too old; None where it is not, or there is none."""
        page = registry.ask("GET", f"{ROOT}/changes?{urlencode({'after': after, 'limit': 1})}")
        for change in mappings(page.get("changes")):
            number = change.get("sequence")
            if isinstance(number, int) and number > after and _is_before(change, since):
                return number
        return None

    low = older(0)
    if low is None:
        return 0, since
    step = MAX_PAGE
    while (found := older(low + step)) is not None:
        low, step = found, step * 4
    high = low + step
    # What is left of it is one page.
    while high - low > MAX_PAGE:
        middle = (low + high) // 2
        if (found := older(middle)) is None:
            high = middle
        else:
            low = found
    return low, since


def _is_before(change: Mapping[str, Any], since: datetime) -> bool:
    at = _moments.moment(change.get("at"))
    return at is not None and at < since


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


# ------------------------------------------------------------------ what is offered


def show_observed(registry: Registry, detail: dict[str, Any], options: argparse.Namespace, screen: Screen) -> int:
    """What a server was seen to offer, and where it declares something else."""
    number = detail["id"]
    offer = _offer(registry, number, "observed")
    declared = _offer(registry, number, "declared") if offer else None
    differences = _difference.between(_tools_of(declared), _tools_of(offer)) if declared and offer else []
    if options.json:
        screen.document({"server": detail, "observed": offer, "differences": [one._asdict() for one in differences]})
    else:
        _offers.show_observed(screen, detail, offer, differences)
    return Exit.OK


def diff(options: argparse.Namespace, screen: Screen) -> int:
    """What differs between what a server offers now, and what is handed out of it, or what was there at a time."""
    registry = _options.registry(options)
    with waiting("Reading what is offered"):
        detail = registry.find(options.server)
        after = _current(registry, detail["id"])
        if options.declared:
            before, which = _offer(registry, detail["id"], "declared"), "what it declares"
        elif options.since is not None:
            before, which = _before(registry, detail["id"], options.since), "what was there before"
        else:
            before, which = _offer(registry, detail["id"], None), "what is handed out"
    if options.declared and before and after:
        # All else that a server offers is new to each declaration, and is no difference to it.
        differences = _difference.between(_tools_of(before), _tools_of(after))
    else:
        differences = _difference.between(before or _empty(after), after or _empty(before))
    if options.json:
        screen.document(
            {
                "server": detail["name"],
                "before": _identity(before),
                "after": _identity(after),
                "differences": [one._asdict() for one in differences],
            }
        )
        return Exit.OK
    name = exact(detail["name"])
    if before is None and after is None:
        note(f"Nothing is known yet of what {name} offers: mcp-registry observe {name} --wait asks it.")
        return Exit.OK
    screen.write(f"{screen.paint('---', 'red')} {which}: {_offers.snapshot(before) or 'nothing'}")
    screen.write(f"{screen.paint('+++', 'green')} what it offers: {_offers.snapshot(after) or 'nothing'}")
    for side in (before, after):
        if left_out := mapping(side).get("left_out"):
            note(
                f"{counted(left_out, 'thing')} of what {plain(mapping(side).get('source'))} has is too long to be told."
            )
    if differences:
        screen.write()
        _offers.show_differences(screen, differences)
    else:
        is_all = options.since is None and not options.declared
        note("Nothing differs." + (" What has changed in a week: --since 7d." if is_all else ""))
    return Exit.OK


def _tools_of(offer: dict[str, Any]) -> dict[str, Any]:
    """The part of an offer that a registration can declare as well."""
    return {"tools": offer.get("tools")}


def _current(registry: Registry, number: int, as_of: datetime | None = None) -> dict[str, Any] | None:
    """What a server offers, now or at a time: as it was observed, and as it declares where nobody has looked."""
    return _offer(registry, number, "observed", as_of) or _offer(registry, number, "declared", as_of)


def _before(registry: Registry, number: int, since: int | datetime) -> dict[str, Any] | None:
    """What a server offered at a time, or before the change that has this number."""
    if isinstance(since, datetime):
        return _current(registry, number, since)
    page = registry.ask("GET", f"{ROOT}/changes?{urlencode({'after': max(since - 1, 0), 'limit': 1})}")
    change = next(iter(mappings(page.get("changes"))), {})
    at = _moments.moment(change.get("at"))
    if at is None or change.get("sequence") != since:
        raise misused(f"No change has the number {since}: mcp-registry changes shows them")
    source = text(change.get("source"))
    if change.get("server_id") != number or not source:
        return _current(registry, number, at)
    offer = _offer(registry, number, source, at)
    begun = _moments.moment(mapping(offer).get("first_seen"))
    # The change came with this offer: what was there before it ended a moment earlier.
    return _offer(registry, number, source, begun - timedelta(microseconds=1)) if begun else None


def _offer(registry: Registry, number: int, source: str | None, as_of: datetime | None = None) -> dict[str, Any] | None:
    """What a server offers by this source, or what is handed out of it; None where there was none at that time.

    Read page by page, and begun anew where another one has come meanwhile. Raises Stopped where that goes on.
    """
    query = {"source": source, "as_of": as_of and _moments.written(as_of)}
    given = {name: value for name, value in query.items() if value}
    path = f"{ROOT}/servers/{number}/tools"
    try:
        for _ in range(TRIES):
            offer = page = registry.ask("GET", f"{path}?{urlencode(given)}" if given else path)
            after = 0
            while isinstance(following := page.get("next_after"), int) and following > after:
                after = following
                page = registry.ask("GET", f"{path}?{urlencode({**given, 'after': after})}")
                if page.get("digest") != offer.get("digest"):
                    break
                for field in _difference.LISTS:
                    if isinstance(offer.get(field), list):
                        offer[field] += mappings(page.get(field))
                offer["left_out"] = (offer.get("left_out") or 0) + (page.get("left_out") or 0)
            else:
                return {name: value for name, value in offer.items() if name != "next_after"}
    except Stopped as stopped:
        if stopped.code == "SNAPSHOT_NOT_FOUND":
            return None
        raise
    raise _changing()


def _changing() -> Stopped:
    sentence = "What the server offers changes while it is being read: try again in a moment"
    return Stopped(Exit.FAILED, "CHANGING", sentence)


def _empty(like: Mapping[str, Any] | None) -> dict[str, Any]:
    """An offer of nothing, which knows of the same lists."""
    return {field: [] for field in _difference.LISTS if isinstance(mapping(like).get(field), list)}


def _identity(offer: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Which offer this is, without what it offers."""
    return (
        None
        if offer is None
        else {name: offer.get(name) for name in ("source", "digest", "prompt", "first_seen", "last_seen")}
    )


# ------------------------------------------------------------------ approvals


def approvals(options: argparse.Namespace, screen: Screen) -> int:
    """What waits for a curator, and who decided what."""
    registry = _options.registry(options)
    with waiting("Reading the approvals"):
        detail = registry.find(options.server)
        answer = _approvals(registry, detail["id"])
    if options.json:
        screen.document({"server": detail["name"], **answer})
        return Exit.OK
    name = exact(detail["name"])
    _offers.show_approvals(screen, name, answer)
    if answer.get("state") in ("review_needed", "awaiting"):
        note(f"mcp-registry diff {name} shows it word by word; mcp-registry approve {name} asks, and approves of it.")
    return Exit.OK


def approve(options: argparse.Namespace, screen: Screen) -> int:
    """Let what a server offers be handed out."""
    return _decide(options, screen, "approve", "approved")


def reject(options: argparse.Namespace, screen: Screen) -> int:
    """Keep what a server offers from being handed out."""
    return _decide(options, screen, "reject", "rejected")


def _decide(options: argparse.Namespace, screen: Screen, decision: str, done: str) -> int:
    asks = options.digest is None and not options.yes
    if asks and (options.json or not _terminal.can_ask()):
        raise misused(
            f"Nobody can be asked here what to {decision}: give the digest, or add --yes for what is there now"
        )
    registry = _options.registry(options)
    with waiting("Reading the approvals"):
        detail = registry.find(options.server)
        answer = _approvals(registry, detail["id"])
    name = exact(detail["name"])
    if asks:
        digest = _shown(registry, screen, detail, answer)
        screen.write()
        screen.flush()
        if not _terminal.agreed(f"{decision.capitalize()} what {name} offers now ({short(digest)})?"):
            raise Stopped(Exit.FAILED, "DECLINED", f"Nothing was {done}: answer y, or give the digest")
    elif options.digest is None:
        digest = _digest(detail, answer)
    else:
        digest = _meant(options.digest, answer)
    wanted = {"digest": digest, "decision": decision, "reason": options.reason}
    with waiting("Sending the decision"):
        told_back = registry.ask("POST", f"{ROOT}/servers/{detail['id']}/approvals", wanted)
    if options.json:
        screen.document({"server": detail["name"], **told_back})
    else:
        screen.write(f"{done} {screen.paint(name, 'bold')} (digest {short(digest)})")
    return Exit.OK


def _approvals(registry: Registry, number: int) -> dict[str, Any]:
    return registry.ask("GET", f"{ROOT}/servers/{number}/approvals")


def _digest(detail: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """The digest of what a server offers now. Raises Stopped where nothing is known of it."""
    digest = text(mapping(answer.get("current")).get("digest"))
    if not digest:
        name = exact(text(detail.get("name")))
        sentence = f"Nothing is known yet of what {name} offers: mcp-registry observe {name} --wait asks it"
        raise Stopped(Exit.FAILED, "UNOBSERVED", sentence)
    return digest


def _shown(registry: Registry, screen: Screen, detail: Mapping[str, Any], answer: dict[str, Any]) -> str:
    """Show what is to be decided about, word by word; its digest. Raises Stopped where it changes all the time."""
    number = detail["id"]
    for _ in range(TRIES):
        digest = _digest(detail, answer)
        with waiting("Reading what is offered"):
            after = _current(registry, number)
            before = _offer(registry, number, None)
        if after is not None and after.get("prompt") == digest:
            _offers.show_approvals(screen, text(detail.get("name")), answer)
            differences = _difference.between(before or _empty(after), after)
            if differences:
                screen.write()
                _offers.show_differences(screen, differences)
            return digest
        answer = _approvals(registry, number)
    raise _changing()


def _meant(given: str, answer: Mapping[str, Any]) -> str:
    """The whole digest that begins so. Raises Stopped where none does that is known, or more than one."""
    if len(given) == WHOLE_DIGEST:
        return given
    rows = [mapping(answer.get("current")), mapping(answer.get("approved")), *mappings(answer.get("decisions"))]
    known = {text(row.get("digest")) for row in rows}
    found = sorted(digest for digest in known if digest.startswith(given))
    if len(found) != 1:
        which = "More than one digest begins" if found else "No digest that is known begins"
        raise misused(f"{which} with {given}: give all {WHOLE_DIGEST} digits")
    return found[0]


def policy(options: argparse.Namespace, screen: Screen) -> int:
    """Show or set which changes of a server are handed out before a curator has approved of them."""
    registry = _options.registry(options)
    with waiting("Setting the policy" if options.policy else "Reading the policy"):
        detail = registry.find(options.server)
        if options.policy:
            wanted = None if options.policy == "default" else options.policy
            registry.ask("PUT", f"{ROOT}/servers/{detail['id']}/policy", {"policy": wanted})
        answer = _approvals(registry, detail["id"])
    state = plain(answer.get("state"))
    if options.json:
        fields = ("policy", "policy_is_own", "state")
        screen.document({"server": detail["name"], **{field: answer.get(field) for field in fields}})
    else:
        name = screen.paint(exact(detail["name"]), "bold")
        meaning = _offers.MEANINGS.get(state, state)
        screen.write(f"{name}  {_offers.policy(answer)}, {_offers.toned(screen, state)}: {meaning}")
    return Exit.OK


# ------------------------------------------------------------------ observe, probe-headers


def observe(options: argparse.Namespace, screen: Screen) -> int:
    """Have the registry look at a server now."""
    registry = _options.registry(options)
    with waiting("Asking for a look"):
        detail = registry.find(options.server)
        path = f"{ROOT}/servers/{detail['id']}/observations"
        answer = registry.ask("POST", path)
        # The registry looks once in two seconds, and tells of the last look where that was the one. It may be over, and
        # say nothing of now.
        known = mapping(detail.get("observed")).get("at")
        if options.wait and not _is_later(answer.get("asked_at"), known):
            _sleep(LOOK_PAUSE)
            answer = registry.ask("POST", path)
    name = screen.paint(exact(detail["name"]), "bold")
    if not options.wait:
        if options.json:
            screen.document(answer)
        else:
            screen.write(f"asked {name}: mcp-registry show --observed has what it says, within seconds")
        return Exit.OK
    with waiting("Waiting for the look"):
        seen = _seen(registry, detail, answer)
    observed, last = mapping(seen.get("observed")), mapping(seen.get("last_check"))
    is_up = last.get("verdict") in UP
    if options.json:
        screen.document({**answer, "observed": observed or None, "last_check": last or None})
    elif not is_up:
        why = plain(last.get("error_message"))
        screen.write(f"{name}  down ({plain(last.get('verdict'))}){f': {why}' if why else ''}")
    else:
        state, reason = plain(observed.get("state")) or "observed", plain(observed.get("reason"))
        number = observed.get("tools_count")
        tools = f", {counted(number, 'tool')}" if isinstance(number, int) else ""
        agreement = _offers.AGREEMENTS.get(plain(observed.get("agreement")))
        agrees = f", {agreement}" if agreement and state == "observed" else ""
        screen.write(f"{name}  {_offers.toned(screen, state)}{tools}{f': {reason}' if reason else agrees}")
        if state == "gated" and not reason:
            note(f"It shows its tools to who brings credentials: mcp-registry probe-headers set {name} gives it some.")
    return Exit.OK if is_up else Exit.UNREACHABLE


def _seen(registry: Registry, detail: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """The server, once it has been looked at since it was asked for. Raises Stopped where no look comes."""
    number, asked = detail["id"], answer.get("asked_at")
    deadline = time.monotonic() + LOOK_SECONDS
    while time.monotonic() < deadline:
        registry.renew()
        found = registry.detail(number)
        last = mapping(found.get("last_check"))
        # Of a server that is down or gated a look says no more than a check.
        is_checked = _is_later(last.get("checked_at"), asked) and last.get("verdict") != "healthy"
        before = mapping(detail.get("observed")).get("at")
        is_seen = _is_later(mapping(found.get("observed")).get("at"), before)
        _sleep(LOOK_STEP)
        if is_checked or is_seen:
            # That it was seen is written a moment before what was seen.
            return registry.detail(number)
    name = exact(text(detail.get("name")))
    sentence = f"No look at {name} has come within {LOOK_SECONDS:.0f} s: mcp-registry show {name} has what is known"
    raise Stopped(Exit.UNREACHABLE, "NOT_SEEN", sentence)


def _is_later(moment: Any, before: Any) -> bool:
    at, than = _moments.moment(moment), _moments.moment(before)
    return at is not None and (than is None or at > than)


def probe_headers(options: argparse.Namespace, screen: Screen) -> int:
    """Give the registry headers for a server that wants some, or take them back."""
    given = _options.headers_given(options.header) if options.action == "set" else {}
    registry = _options.registry(options)
    with waiting("Changing the headers"):
        detail = registry.find(options.server)
        path = f"{ROOT}/servers/{detail['id']}/probe-headers"
        if options.action == "set":
            registry.ask("PUT", path, {"headers": given})
        else:
            registry.ask("DELETE", path)
    if options.json:
        screen.document({"server": detail["name"], "headers": sorted(given)})
        return Exit.OK
    name = screen.paint(exact(detail["name"]), "bold")
    if options.action == "set":
        screen.write(f"set {', '.join(map(plain, sorted(given)))} for {name}")
        note("The registry sends them to this server alone when it looks at what it offers, and shows them to nobody.")
    else:
        screen.write(f"removed the headers for {name}")
    return Exit.OK
