"""What a person is shown of the ledger: changes, what waits for an approval, and what differs between two offers.

All of it came from strangers, and whoever reads it decides by it. So what differs is shown whole, and in it every
character that cannot be seen is written out (`_terminal.exact`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from mcp_registry_client import _difference, _moments, _views
from mcp_registry_client._difference import Difference, Parameter, Words
from mcp_registry_client._json import mapping, mappings, strings, text
from mcp_registry_client._terminal import Cell, Column, Piece, Screen, Style, exact
from mcp_registry_client._views import counted, plain

# From the grade that matters least.
GRADES: Final[dict[str, Style | None]] = {
    "notation": "dim",
    "text": None,
    "compatible": "green",
    "breaking": "yellow",
    "alarming": "red",
}
STATES: Final[dict[str, Style]] = {
    "approved": "green",
    "observed": "green",
    "gated": "yellow",
    "degraded": "yellow",
    "review_needed": "yellow",
    "awaiting": "yellow",
    "rejected": "red",
    "unstable": "red",
}
# What the states of a review mean, to whoever reads them for the first time.
MEANINGS: Final = {
    "approved": "what it offers is handed out",
    "review_needed": "what it offers now waits for a curator, and what was approved before is handed out",
    "awaiting": "nothing of it was approved yet, and no tool is handed out",
    "rejected": "a curator has rejected what it offers now, and what was approved before, if anything, is handed out",
}
AGREEMENTS: Final = {
    "equal": "its tools are those that it declares",
    "differs": "its tools are not those that it declares",
    "unobserved": "nobody has seen its tools yet",
}
KINDS: Final = {
    "template": "resource template",
    "server_info": "server info",
    "protocol_versions": "protocol versions",
}
SIGNS: Final[dict[str, Style]] = {"-": "red", "+": "green", "~": "yellow"}
# So much of a text is shown before and after what differs in it; so many digits tell one digest from another.
CONTEXT: Final = 60
DIGITS: Final = 12
# What a parameter's facts take of a table. Longer ones are told below it, word by word.
SHORT: Final = 60
SPACES: Final = re.compile(r"[ \t\r\n]+")


# ------------------------------------------------------------------ changes


def show_changes(
    screen: Screen, changes: Sequence[Mapping[str, Any]], former: Sequence[int] | None = None
) -> list[int]:
    """A row for each change; how wide the table is. `former`: the widths of the table that these rows go on."""
    # Rows that come later have their columns at the same place.
    columns = [
        Column("NO.", right=True, rank=1, wide=6),
        Column("WHEN (UTC)", wide=len("2026-12-01 00:00:00")),
        Column("GRADE", wide=len("compatible")),
        Column("SERVER", least=10, middle=True, wide=10),
        Column("WHAT", least=26, wraps=True, wide=26),
    ]
    return screen.table(columns, [_change_row(change) for change in changes], former=former)


def _change_row(change: Mapping[str, Any]) -> list[Cell]:
    at = _moments.moment(change.get("at"))
    when = f"{at:%Y-%m-%d %H:%M:%S}" if at else plain(change.get("at"))
    return [
        Cell(plain(change.get("sequence")), "dim"),
        Cell(when, "dim"),
        graded(change),
        Cell(exact(text(change.get("server"))), "bold"),
        Cell(told(change)),
    ]


def graded(change: Mapping[str, Any]) -> Cell:
    """The grade of a change in its colour."""
    grade = plain(change.get("grade"))
    return Cell(grade or "-", GRADES.get(grade) if grade else "dim")


def told(change: Mapping[str, Any]) -> str:
    """What a change is, in words: tool convert: the parameter amount is required now."""
    kind, before, after = plain(change.get("kind")), change.get("before"), change.get("after")
    reasons = [plain(reason) for reason in strings(change.get("reasons"))]
    why = "; ".join(_lowered(reason) for reason in reasons)
    if kind == "registered":
        return "registered"
    if kind == "removed":
        return "removed from the registry"
    if kind == "status":
        was, now = (plain(mapping(side).get("status")) for side in (before, after))
        return f"{was or 'new'} -> {now}{f': {why}' if why else ''}"
    if kind == "review":
        state = plain(mapping(after).get("state"))
        return f"review: {MEANINGS.get(state, state)}"
    if kind == "unstable":
        return f"unstable: {why or 'it offers something else at each look'}"
    words = KINDS.get(kind, kind)
    if change.get("withheld") is True:
        return f"{words}: what it is waits for an approval, and is told to curators and to the team that owns it"
    subject = change.get("subject")
    name = f"{words} {exact(subject)}" if isinstance(subject, str) else words
    if before is None and after is not None:
        what = "" if why else "added"
    elif after is None and before is not None:
        what = "" if why else "removed"
    else:
        changed = _difference.fields(mapping(before), mapping(after))
        what = "" if why else f"{', '.join(map(plain, changed))} changed" if changed else "changed"
    return f"{name}: {'; '.join(part for part in (what, why) if part)}"


def _lowered(sentence: str) -> str:
    """A sentence that goes on after a colon. A name or an abbreviation at its beginning stays as it is."""
    sentence = sentence.rstrip(".")
    is_word = len(sentence) > 1 and sentence[0].isupper() and (sentence[1].islower() or sentence[1] == " ")
    return sentence[0].lower() + sentence[1:] if is_word else sentence


# ------------------------------------------------------------------ approvals


def show_approvals(screen: Screen, name: str, approvals: Mapping[str, Any]) -> None:
    """Under which policy a server is, what it offers and what is handed out, what waits, and who decided what."""
    state = plain(approvals.get("state"))
    screen.write(f"{screen.paint(exact(name), 'bold')}  {toned(screen, state)}")
    screen.write()
    _views.show_fields(
        screen,
        ("Review", MEANINGS.get(state)),
        ("Policy", policy(approvals)),
        ("Offers", snapshot(approvals.get("current")) or "nothing that is known"),
        ("Hands out", snapshot(approvals.get("approved")) or "nothing"),
    )
    if waiting := mappings(approvals.get("changes")):
        screen.write()
        screen.write(screen.paint(f"What differs from what is handed out ({len(waiting)})", "bold"))
        columns = [Column("GRADE"), Column("WHAT", least=28, wraps=True)]
        screen.table(columns, [[graded(change), Cell(told(change))] for change in waiting], "  ")
    if approvals.get("withheld") is True:
        screen.write()
        screen.paragraph("What waits is told to curators and to the team that owns the server.", "  ")
    if decisions := mappings(approvals.get("decisions")):
        screen.write()
        screen.write(screen.paint(f"Decisions ({len(decisions)})", "bold"))
        columns = [
            Column("WHEN"),
            Column("WHO", least=12, middle=True),
            Column("DECIDED"),
            Column("DIGEST"),
            Column("REASON", least=12, wraps=True),
        ]
        screen.table(columns, [_decision_row(one) for one in decisions], "  ")


def _decision_row(decision: Mapping[str, Any]) -> list[Cell]:
    word = plain(decision.get("decision"))
    return [
        Cell(_moments.ago(decision.get("at")) or ""),
        Cell(plain(decision.get("by"))),
        Cell({"approve": "approved", "reject": "rejected"}.get(word, word), "green" if word == "approve" else "red"),
        Cell(short(decision.get("digest")), "dim"),
        Cell(plain(decision.get("reason"))),
    ]


def policy(answer: Mapping[str, Any]) -> str:
    """Which policy holds, and who says so."""
    whose = "set for this server" if answer.get("policy_is_own") is True else "the registry's"
    return f"{plain(answer.get('policy'))} ({whose})"


def snapshot(value: Any) -> str:
    """An offer in a few words: the digest that is approved, how many tools it has, who said so and since when.

    Empty where there is none.
    """
    given = mapping(value)
    if not given:
        return ""
    tools = given.get("tools")
    number = len(mappings(tools)) if isinstance(tools, list) else given.get("tools_count")
    many = f", {counted(number, 'tool')}" if isinstance(number, int) else ""
    return f"{short(given.get('prompt') or given.get('digest'))}{many}, {plain(given.get('source'))}{_since(given)}"


def _since(snapshot: Mapping[str, Any]) -> str:
    at = _moments.moment(snapshot.get("first_seen"))
    return f" since {at:%Y-%m-%d %H:%M:%S} UTC ({_moments.ago(snapshot['first_seen'])})" if at else ""


def short(digest: Any) -> str:
    """As much of a digest as a person compares."""
    return plain(digest)[:DIGITS]


def toned(screen: Screen, state: str) -> str:
    """A state in its colour."""
    return screen.paint(state.replace("_", " "), STATES.get(state))


# ------------------------------------------------------------------ what was observed


def show_observed(
    screen: Screen, detail: Mapping[str, Any], offer: Mapping[str, Any] | None, differences: Sequence[Difference]
) -> None:
    """What a server was seen to offer, since when, and where that is not what it declares.

    `offer`: None where nothing was seen. `differences`: from what is declared to what was observed.
    """
    observed = mapping(detail.get("observed"))
    state = plain(observed.get("state")) or ("observed" if offer else "unobserved")
    screen.write(f"{screen.paint(plain(detail.get('name')), 'bold')}  {toned(screen, state)}")
    screen.write()
    agreement = plain(observed.get("agreement"))
    offer = offer or {}
    info = mapping(offer.get("server_info") or observed.get("server_info"))
    versions = strings(offer.get("protocol_versions") or observed.get("protocol_versions"))
    last = offer.get("last_seen") or observed.get("at")
    _views.show_fields(
        screen,
        ("Why", observed.get("reason")),
        ("Declared", AGREEMENTS.get(agreement, agreement)),
        ("Unchanged", _since(offer).strip()),
        ("Last seen", _moments.ago(last)),
        ("Calls itself", f"{plain(info.get('name'))} {plain(info.get('version'))}".strip()),
        ("Speaks", f"MCP {', '.join(map(plain, versions))}" if versions else None),
        ("Digest", short(offer.get("prompt"))),
    )
    tools = {one.subject: one for one in differences if one.kind == "tool"}
    marks = {name: "+" if one.before is None else "-" if one.after is None else "~" for name, one in tools.items()}
    gone = [{**one.before, "name": name} for name, one in tools.items() if one.after is None]
    _views.show_tools(screen, [*mappings(offer.get("tools")), *gone], marks)
    if marks:
        screen.write()
        screen.paragraph("+ is not declared, - is declared and not there, ~ is declared otherwise", "  ")
    for kind, what in (("prompts", "Prompts"), ("resources", "Resources"), ("templates", "Resource templates")):
        names = [exact(text(one.get(_difference.LISTS[kind][1]))) for one in mappings(offer.get(kind))]
        if names:
            screen.write()
            screen.write(screen.paint(f"{what} ({len(names)})", "bold"))
            for name in names:
                screen.write(f"  {name}")


# ------------------------------------------------------------------ what differs


def show_differences(screen: Screen, differences: Sequence[Difference]) -> None:
    """What differs between two offers: words of texts, parameters, and all else field by field."""
    for place, one in enumerate(differences):
        if place:
            screen.write()
        sign = "+" if one.before is None else "-" if one.after is None else "~"
        kind = KINDS.get(one.kind, one.kind)
        name = f"{kind} {screen.paint(exact(one.subject), 'bold')}" if one.subject is not None else kind
        screen.write(f"{screen.paint(sign, SIGNS[sign])} {name}")
        if one.subject is None:
            _show_value(screen, "", one.before, one.after)
        elif sign != "-":
            _show_item(screen, mapping(one.before), mapping(one.after))


def _show_item(screen: Screen, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """The fields of a tool or the like in which it differs. One that is new differs in all that it has."""
    for field in _difference.fields(before, after):
        if field in _difference.SCHEMAS:
            _show_schema(screen, field, before.get(field), after.get(field))
        elif field not in ("name", "uri", "uriTemplate"):
            _show_value(screen, field, before.get(field), after.get(field))


def _show_value(screen: Screen, name: str, before: Any, after: Any) -> None:
    """A value that differs: an object key by key, and what is in these as text."""
    was, now = mapping(before), mapping(after)
    if (was or now) and all(isinstance(value, dict) or value is None for value in (before, after)):
        for key in _difference.fields(was, now):
            _show_text(screen, f"{name}.{key}" if name else key, was.get(key), now.get(key))
    else:
        _show_text(screen, name, before, after)


def _show_text(screen: Screen, name: str, before: Any, after: Any) -> None:
    was, now = (
        value if isinstance(value, str) else "" if value is None else _written(value) for value in (before, after)
    )
    label = f"{exact(name)}: " if name else ""
    screen.flow([Piece(label, "dim"), *_pieces(screen, _difference.words(was, now))], "    ", "      ")


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _pieces(screen: Screen, words: Sequence[Words]) -> Iterator[Piece]:
    """A text with what differs in it marked, by colours or by signs, and of the rest what stands around that."""
    is_new = all(stretch.sign == "+" for stretch in words)
    for place, stretch in enumerate(words):
        if stretch.sign == "=":
            is_first, is_last = place == 0, place == len(words) - 1
            yield Piece(_shortened(SPACES.sub(" ", stretch.text), is_first=is_first, is_last=is_last))
        elif is_new:
            yield Piece(exact(SPACES.sub(" ", stretch.text)))
        else:
            # White space alone is a difference that nobody would see.
            shown = stretch.text.replace(" ", "\\x20") if stretch.text.isspace() else stretch.text
            shown = exact(shown)
            yield (
                Piece(shown, SIGNS[stretch.sign])
                if screen.colours
                else Piece(f"[-{shown}-]" if stretch.sign == "-" else f"{{+{shown}+}}")
            )


def _shortened(same: str, *, is_first: bool, is_last: bool) -> str:
    """What is the same on both sides, without what is far from where they differ."""
    begin = "" if is_first else same[:CONTEXT]
    end = "" if is_last else same[-CONTEXT:]
    if len(same) <= len(begin) + len(end) + CONTEXT // 2:
        return exact(same)
    begin = begin.rpartition(" ")[0] or begin
    end = end.partition(" ")[2] or end
    return f"{exact(begin)} \u2026 {exact(end)}"


def _show_schema(screen: Screen, field: str, before: Any, after: Any) -> None:
    """The parameters that differ between two schemas, as a table, and below it the texts in which they do."""
    was, now = ({} if schema is None else _difference.parameters(schema) for schema in (before, after))
    names = [name for name in [*now, *(name for name in was if name not in now)] if was.get(name) != now.get(name)]
    if before is None and not now[""].facts and not now[""].description:
        names.remove("")
    title = "PARAMETER" if field == "inputSchema" else "RESULT" if field == "outputSchema" else field
    if not names and before is not None:
        screen.paragraph(f"{field}: it is written otherwise, and says the same (--json has both)", "    ", "      ")
        return
    columns = [Column(title), Column("TYPE"), Column("REQUIRED"), Column("WHAT", least=20, wraps=True)]
    rows: list[list[Cell]] = []
    below: list[tuple[str, str, str]] = []
    for name in names:
        rows.append(_parameter_row(name, was.get(name), now.get(name)))
        below += _long(name, was.get(name), now.get(name))
    same = sum(name != "" and was.get(name) == one for name, one in now.items())
    if rows:
        screen.table(columns, rows, "    ")
    if same:
        screen.write(screen.paint(f"    and {same} as before", "dim"))
    for name, old, new in below:
        _show_text(screen, name, old, new)


def _parameter_row(name: str, was: Parameter | None, now: Parameter | None) -> list[Cell]:
    one = now or was or Parameter("", False, "", {})
    style: Style | None = "green" if was is None else "red" if now is None else None
    is_whole = name == ""
    return [
        Cell("(whole)" if is_whole else exact(name), "bold"),
        Cell(exact(one.type)),
        Cell("" if is_whole else "yes" if one.required else "no"),
        Cell("; ".join(_parameter_words(was, now)), style),
    ]


def _parameter_words(was: Parameter | None, now: Parameter | None) -> Iterator[str]:
    """What became of a parameter, in a few words each."""
    if was is None or now is None:
        yield "removed" if now is None else "added"
        yield from (
            f"{exact(key)} {exact(fact)}" for key, fact in (now.facts if now else {}).items() if _is_short(fact)
        )
        return
    if was.type != now.type:
        yield f"was {exact(was.type)}"
    if was.required != now.required:
        yield "is required now" if now.required else "is not required any more"
    if was.description != now.description:
        yield "description (below)"
    for key in {**now.facts, **was.facts}:
        old, new = was.facts.get(key), now.facts.get(key)
        if old == new:
            continue
        if not _is_short(f"{old}{new}"):
            yield f"{exact(key)} (below)"
        elif old is None:
            yield f"{exact(key)} {exact(new or '')} is new"
        else:
            yield f"{exact(key)} {exact(old)} is gone" if new is None else f"{exact(key)} {exact(old)} -> {exact(new)}"


def _long(name: str, was: Parameter | None, now: Parameter | None) -> Iterable[tuple[str, str, str]]:
    """The texts of a parameter that are told below the table: what they are, as they were and as they are."""
    if now is None:
        return
    old_text = was.description if was else ""
    if old_text != now.description:
        yield name or "description", old_text, now.description
    old_facts = was.facts if was else {}
    for key in {**now.facts, **old_facts}:
        old, new = old_facts.get(key, ""), now.facts.get(key, "")
        if old != new and not _is_short(f"{old}{new}"):
            yield f"{name} {key}".strip(), old, new


def _is_short(fact: str) -> bool:
    return len(fact) <= SHORT
