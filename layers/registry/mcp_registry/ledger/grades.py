"""What changed between two looks at a server, and how much that matters to who uses it.

Rules, and no judgement: the same two offers have the same changes in any process. What a change is graded by, and why,
is in docs/decisions/0013-ledger.md. Nothing here calls a server malicious.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, cast

from mcp_registry.catalogue import canonical, fingerprint
from mcp_registry.catalogue.folding import UNSEEN
from mcp_registry.ledger import schemas
from mcp_registry.ledger.schemas import Finding, called

GRADES: Final = ("notation", "text", "compatible", "breaking", "alarming")

# What nobody sees; what turns the direction of reading is among it. And controls, but for the line's end and the tab,
# the separators of lines and paragraphs, and the blank of Braille.
ESCAPES: Final = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
DIRECTIONS: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
ALARMING: Final = re.compile(f"[{UNSEEN}{ESCAPES}\u2028\u2029\u2800\ufff9-\ufffb]")
# How emoji are written: a variation selector behind a symbol, and a joiner between two.
EMOJI: Final = "\u00a9\u00ae\u203c\u2049\u2100-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
HARMLESS: Final = re.compile(f"(?<=[{EMOJI}#*0-9])\ufe0f|(?<=[{EMOJI}\ufe0f])\u200d(?=[{EMOJI}])")
HOST: Final = re.compile(r"""(?:[a-z][a-z0-9+.-]{0,30}://|\bwww\.)([^\s/?#"'<>()\\`|]+)""", re.IGNORECASE)

# What is shown of a change: so much of a text, and so much JSON of a field in all.
MAX_TEXT: Final = 2_000
MAX_FIELD: Final = 50_000
MAX_REASONS: Final = 20
# A text without a blank that is no longer than this is a name.
MAX_NAME: Final = 64
# Beyond so many, what came and went of a list of resources is one change.
MAX_RESOURCES: Final = 10


class Change(NamedTuple):
    """One change. `before` is None for what is new, and `after` for what is gone."""

    kind: str  # tool, prompt, resource, template, instructions, server_info, protocol_versions, capabilities
    subject: str | None  # a tool's or prompt's name, a resource's or template's URI; None for what there is one of
    grade: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    reasons: tuple[str, ...]  # our own sentences, in ASCII


class Offer(NamedTuple):
    """All that a server offers, as received. None for a list that was not whole: it is compared with nothing."""

    tools: Sequence[dict[str, Any]] | None
    prompts: Sequence[dict[str, Any]] | None
    resources: Sequence[dict[str, Any]] | None
    templates: Sequence[dict[str, Any]] | None
    instructions: str | None
    server_info: Mapping[str, Any]
    protocol_versions: Sequence[str]
    capabilities: Mapping[str, Any]


def worst(grades: Iterable[str]) -> str | None:
    """The worst of some grades; None where there are none."""
    return max(grades, key=GRADES.index, default=None)


def compare(before: Offer, after: Offer, elsewhere: Callable[[str], bool] = lambda _: False) -> list[Change]:
    """What changed from one offer to the next, in the order of the parts and of the names.

    `elsewhere`: whether another server has, or had, a tool of this name. It is asked about each tool that is new.
    Raises ValueError where an offer holds what is no JSON. Whoever reads messages bounds their depth (64 levels):
    what is much deeper is too deep for the interpreter's stack.
    """
    known = _Known(before)
    changes: list[Change] = []
    for part, kind, judge in (
        ("tools", "tool", _tool),
        ("prompts", "prompt", _prompt),
        ("resources", "resource", _resource),
        ("templates", "template", _template),
    ):
        old, new = getattr(before, part), getattr(after, part)
        if old is None or new is None:
            continue
        found = [
            (subject, one, other, judge(one, other, known, elsewhere))
            for subject, one, other in _pairs(old, new, fingerprint.KEYS[part])
        ]
        if part == "resources":
            found, crowd = _crowded(found)
            changes += crowd
        changes += [_change(kind, *one) for one in found]
    changes += _instructions(before.instructions, after.instructions, known)
    changes += _server_info(before.server_info, after.server_info)
    changes += _protocol_versions(before.protocol_versions, after.protocol_versions)
    changes += _capabilities(before.capabilities, after.capabilities)
    return changes


# An item as it was and as it is, and one of the two None where it came or went.
Item = dict[str, Any] | None
Judged = tuple[str, Item, Item, list[Finding]]


class _Known:
    """What the offer before says already."""

    def __init__(self, before: Offer) -> None:
        self._before = before

    @cached_property
    def hosts(self) -> set[str]:
        """The hosts that its texts name."""
        before = self._before
        found = [before.tools, before.prompts, before.resources, before.templates]
        words = [text for items in found for item in items or () for text in _texts(_read(item))]
        return hosts_of([*words, before.instructions or ""])

    @cached_property
    def names(self) -> dict[str, set[str]]:
        """The names of its tools and of its prompts."""
        lists = {"tool": self._before.tools, "prompt": self._before.prompts}
        return {kind: _named(items or (), "name").keys() - {""} for kind, items in lists.items()}

    def second(self, kind: str, item: dict[str, Any]) -> list[Finding]:
        """What it means that an item is new whose name another one has: a client that goes by names takes either."""
        is_second = isinstance(name := item.get("name"), str) and name in self.names[kind]
        return [Finding("breaking", "There was another one of this name already")] if is_second else []


def _pairs(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], key: str) -> Iterator[tuple[str, Item, Item]]:
    """What differs between two lists, by name. Of several of one name those that are alike are no difference."""
    were, are = _named(old, key), _named(new, key)
    for name in sorted(were.keys() | are.keys()):
        one, other = were.get(name, {}), are.get(name, {})
        gone = [item for digest, item in sorted(one.items()) if digest not in other]
        come = [item for digest, item in sorted(other.items()) if digest not in one]
        for place in range(max(len(gone), len(come))):
            yield name, gone[place] if place < len(gone) else None, come[place] if place < len(come) else None


def _named(items: Sequence[dict[str, Any]], key: str) -> dict[str, dict[bytes, dict[str, Any]]]:
    named: dict[str, dict[bytes, dict[str, Any]]] = {}
    for item in items:
        name = item.get(key)
        named.setdefault(name if isinstance(name, str) else "", {})[fingerprint.digest(item)] = item
    return named


def _change(kind: str, subject: str | None, before: Item, after: Item, findings: list[Finding]) -> Change:
    """The change that findings come to. Where there are none, only the notation is another one."""
    # The worst first: those are told where there are many.
    ordered = sorted(dict.fromkeys(findings), key=lambda finding: -GRADES.index(finding.grade))
    reasons = [finding.reason for finding in ordered[:MAX_REASONS]]
    if more := len(ordered) - MAX_REASONS:
        reasons += [f"There are {more} more changes"] if more > 0 else []
    grade = worst(finding.grade for finding in ordered) or "notation"
    if before is None or after is None:
        return Change(kind, subject, grade, before and _told(before), after and _told(after), tuple(reasons))
    were, are = _differing(kind, before, after)
    return Change(kind, subject, grade, were, are, tuple(reasons) or ("Only the notation has changed",))


def _told(item: dict[str, Any]) -> dict[str, Any]:
    """What is told of an item that came or went."""
    return {key: _bounded(item[key]) for key in ("title", "description") if key in item}


def _differing(kind: str, before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of an item that differ, but for schemas that differ in their notation only."""
    same = _same_schemas(before, after) if kind == "tool" else set[str]()
    fields = [
        key
        for key in sorted(before.keys() | after.keys())
        if key not in same
        and (key not in before or key not in after or fingerprint.digest(before[key]) != fingerprint.digest(after[key]))
    ]
    were, are = ({key: _bounded(item[key]) for key in fields if key in item} for item in (before, after))
    return were, are


def _same_schemas(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    one, other = fingerprint.prompt(before), fingerprint.prompt(after)
    return {
        key for key in fingerprint.SCHEMAS if fingerprint.digest(one.get(key)) == fingerprint.digest(other.get(key))
    }


def _bounded(value: Any) -> Any:
    """A value as a page can show it: long texts are cut, and what is long as a whole is said to be."""
    plain = canonical.survey(value).plain
    if (size := len(canonical.canonical(value, plain=plain))) > MAX_FIELD:
        return f"(left out: {size:,} bytes of JSON)"
    return _cut(value)


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]} (cut here, of {len(value):,} characters)"
    if isinstance(value, list):
        return [_cut(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in cast("dict[str, Any]", value).items()}
    return value


# Texts: what a model reads, as it is.


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, names of fields included."""
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from cast("dict[str, Any]", item)
            level += cast("dict[str, Any]", item).values()
        elif isinstance(item, list):
            level += cast("list[Any]", item)


def _read(item: Mapping[str, Any]) -> dict[str, Any]:
    """What a model reads of an item of any list. The address of a resource is for programs."""
    if fingerprint.SCHEMAS & item.keys():
        return fingerprint.prompt(item)
    return {key: item[key] for key in ("name", "title", "description", "arguments", "annotations") if key in item}


def _texts(read: Mapping[str, Any]) -> list[str]:
    """All strings of what is read, as they are. Icons are for programs."""
    return [text for key, value in read.items() if key != "icons" for text in (key, *_strings(value))]


def speaks(before: Offer, after: Offer) -> bool:
    """Whether a model reads words in one offer that the other one did not have, wherever they stand.

    Words are what has a blank in it, or is longer than a name.
    """

    def words(offer: Offer) -> set[str]:
        read = [_read(item) for item in (*(offer.tools or ()), *(offer.prompts or ()))]
        texts = [text for item in read for text in _texts(item)] + [offer.instructions or ""]
        return {text for text in texts if len(text) > MAX_NAME or len(text.split()) > 1}

    return not words(after) <= words(before)


def hosts_of(texts: Iterable[str]) -> set[str]:
    """The hosts of the URLs in some texts, without a user or a port."""
    found = (authority for text in texts for authority in HOST.findall(text))
    hosts = {authority.rpartition("@")[2].partition(":")[0].strip(".,;*!]}").casefold() for authority in found}
    return hosts - {""}


def unseen(texts: Iterable[str]) -> Counter[str]:
    """How often each alarming character stands in some texts."""
    suspects = (text for text in texts if not text.isascii() or not text.isprintable())
    return Counter(found for text in suspects for found in ALARMING.findall(HARMLESS.sub("", text)))


def _seen(before: Sequence[str], after: Sequence[str], known: _Known, new_url: str) -> list[Finding]:
    """What to look at in texts that have changed; `new_url` is the grade of a host that nothing named before."""
    findings: list[Finding] = []
    for character in sorted(unseen(after) - unseen(before)):
        kind = (
            "a bidirectional"
            if re.match(f"[{DIRECTIONS}]", character)
            else "an escape or control"
            if re.match(f"[{ESCAPES}]", character)
            else "an invisible"
        )
        findings.append(Finding("alarming", f"There is {kind} character now, U+{ord(character):04X}"))
    hosts = hosts_of(after) - hosts_of(before)
    named = sorted(hosts - known.hosts) if hosts else []
    return findings + [Finding(new_url, f"It names a host that was not named before: {called(host)}") for host in named]


# The lists.


def _tool(before: Item, after: Item, known: _Known, elsewhere: Callable[[str], bool]) -> list[Finding]:
    if after is None:
        return [Finding("breaking", "The tool is gone")]
    if before is None:
        findings = [Finding("compatible", "The tool is new"), *_seen([], _texts(_read(after)), known, "compatible")]
        findings += known.second("tool", after)
        if isinstance(name := after.get("name"), str) and elsewhere(name):
            findings.append(Finding("alarming", "Another server has had a tool of this name"))
        return findings
    one, other = fingerprint.prompt(before), fingerprint.prompt(after)
    if fingerprint.digest(one) == fingerprint.digest(other):
        return []
    findings = [*_words(one, other), *_hints(one.get("annotations"), other.get("annotations"))]
    findings += schemas.compare(one.get("inputSchema"), other.get("inputSchema"), schemas.INPUT)
    findings += schemas.compare(one.get("outputSchema"), other.get("outputSchema"), schemas.OUTPUT)
    findings += _seen(_texts(one), _texts(other), known, "alarming")
    # The digests are the measure: what no rule names is graded by them, and in doubt as worse.
    told = fingerprint.contract(one), fingerprint.contract(other)
    if fingerprint.digest(told[0]) == fingerprint.digest(told[1]):
        return findings or [Finding("text", "The words of a schema have changed")]
    if GRADES.index(worst(finding.grade for finding in findings) or "notation") < GRADES.index("compatible"):
        findings.append(Finding("breaking", "It has changed in a way that no rule knows"))
    return findings


def _words(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Finding]:
    """The texts of an item that changed."""
    return [
        Finding("text", f"The {'icons have' if field == 'icons' else f'{field} has'} changed")
        for field in ("title", "description", "icons")
        if fingerprint.digest(before.get(field)) != fingerprint.digest(after.get(field))
    ]


def _hints(before: Any, after: Any) -> list[Finding]:
    """What a tool says of itself for a client to gate on. A hint that is no boolean says nothing."""
    were: dict[str, Any] = cast("dict[str, Any]", before) if isinstance(before, dict) else {}
    are: dict[str, Any] = cast("dict[str, Any]", after) if isinstance(after, dict) else {}
    findings: list[Finding] = []

    def lost(hint: str, value: bool) -> bool:
        return were.get(hint) is value and are.get(hint) is not value

    if lost("readOnlyHint", True):
        findings.append(Finding("alarming", "It is not read-only any more"))
    if lost("destructiveHint", False):
        findings.append(Finding("alarming", "It may destroy something now"))
    elif are.get("destructiveHint") is True and were.get("destructiveHint") is not True:
        # Absent means true already: most of those who come to say it are honest authors.
        words = "It says that it may destroy something, and did not say so before"
        findings.append(Finding("compatible", words))
    if lost("openWorldHint", False):
        findings.append(Finding("alarming", "It may reach beyond its own system now"))
    if lost("idempotentHint", True):
        findings.append(Finding("breaking", "It must not be repeated any more"))
    named = {"readOnlyHint", "destructiveHint", "openWorldHint", "idempotentHint"}
    others = [{key: value for key, value in hints.items() if key not in named | {"title"}} for hints in (were, are)]
    changed = {hint for hint in named if fingerprint.digest(were.get(hint)) != fingerprint.digest(are.get(hint))}
    if fingerprint.digest(others[0]) != fingerprint.digest(others[1]) or (changed and not findings):
        findings.append(Finding("compatible", "Its annotations have changed"))
    if fingerprint.digest(were.get("title")) != fingerprint.digest(are.get("title")):
        findings.append(Finding("text", "The title of its annotations has changed"))
    return findings


def _prompt(before: Item, after: Item, known: _Known, elsewhere: Callable[[str], bool]) -> list[Finding]:
    del elsewhere
    if after is None:
        return [Finding("breaking", "The prompt is gone")]
    if before is None:
        seen = _seen([], _texts(_read(after)), known, "compatible")
        return [Finding("compatible", "The prompt is new"), *seen, *known.second("prompt", after)]
    findings = _words(_bare(before), _bare(after))
    were, are = _arguments(before), _arguments(after)
    for name in sorted(were.keys() | are.keys()):
        argument = f"The argument {called(name)}"
        if name not in are:
            findings.append(Finding("breaking", f"{argument} is gone"))
        elif are[name].get("required") is True and were.get(name, {}).get("required") is not True:
            new = "new and required" if name not in were else "required now"
            findings.append(Finding("breaking", f"{argument} is {new}"))
        elif name not in were:
            findings.append(Finding("compatible", f"{argument} is new"))
        elif were[name].get("required") is True and are[name].get("required") is not True:
            findings.append(Finding("compatible", f"{argument} is optional now"))
        if name in were and name in are and _words(_bare(were[name]), _bare(are[name])):
            findings.append(Finding("text", f"The words of the argument {called(name)} have changed"))
    return findings + _seen(_texts(_read(before)), _texts(_read(after)), known, "alarming")


def _bare(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item without what SDKs write or leave out."""
    return {key: value for key, value in item.items() if key != "_meta" and value is not None and value != ""}


def _arguments(prompt: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    listed = prompt.get("arguments")
    found = [one for one in cast("list[Any]", listed) if isinstance(one, dict)] if isinstance(listed, list) else []
    return {str(one.get("name")): one for one in cast("list[dict[str, Any]]", found)}


def _resource(before: Item, after: Item, known: _Known, elsewhere: Callable[[str], bool]) -> list[Finding]:
    del elsewhere
    if after is None:
        return [Finding("compatible", "The resource is gone")]
    if before is None:
        return [Finding("compatible", "The resource is new"), *_seen([], _texts(_read(after)), known, "compatible")]
    return _described(before, after, known)


def _template(before: Item, after: Item, known: _Known, elsewhere: Callable[[str], bool]) -> list[Finding]:
    del elsewhere
    if after is None:
        return [Finding("breaking", "The template is gone")]
    if before is None:
        return [Finding("compatible", "The template is new"), *_seen([], _texts(_read(after)), known, "compatible")]
    return _described(before, after, known)


def _described(before: dict[str, Any], after: dict[str, Any], known: _Known) -> list[Finding]:
    one, other = _bare(before), _bare(after)
    findings = _words(one, other)
    for field in ("name", "mimeType", "annotations"):
        if fingerprint.digest(one.get(field)) != fingerprint.digest(other.get(field)):
            findings.append(
                Finding(
                    "text", f"Its {field} has changed" if field != "annotations" else "Its annotations have changed"
                )
            )
    return findings + _seen(_texts(_read(before)), _texts(_read(after)), known, "alarming")


def _crowded(found: list[Judged]) -> tuple[list[Judged], list[Change]]:
    """Resources that changed, and instead of many that came or went one change that counts them."""
    moved = [one for one in found if one[1] is None or one[2] is None]
    if len(moved) <= MAX_RESOURCES:
        return found, []
    sides: list[dict[str, Any] | None] = []
    for place in (1, 2):
        names = [one[0] for one in moved if one[place] is not None]
        sides.append({"count": len(names), "names": names[:MAX_RESOURCES]} if names else None)
    gone, come = sides
    counts = [f"{side['count']} resources are {word}" for side, word in ((gone, "gone"), (come, "new")) if side]
    ordinary = {"The resource is new", "The resource is gone"}
    findings = [finding for one in moved for finding in one[3] if finding.reason not in ordinary]
    findings = [Finding("compatible", " and ".join(counts))]
    findings += [finding for one in moved for finding in one[3] if finding.reason not in ordinary]
    summary = _change("resource", None, {}, {}, findings)._replace(
        before=gone and _cut(gone), after=come and _cut(come)
    )
    return [one for one in found if one[1] is not None and one[2] is not None], [summary]


# What a server has one of.


def _instructions(before: str | None, after: str | None, known: _Known) -> list[Change]:
    if before == after:
        return []
    findings = [Finding("text", "The instructions have changed")] if (before or "") != (after or "") else []
    findings += _seen([before or ""], [after or ""], known, "alarming")
    one, other = (None if text is None else {"instructions": text} for text in (before, after))
    change = _change("instructions", None, one or {}, other or {}, findings)
    return [change._replace(before=one and change.before, after=other and change.after)]


def _server_info(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    if fingerprint.digest(dict(before)) == fingerprint.digest(dict(after)):
        return []
    one, other = _bare(before), _bare(after)
    findings = _words(one, other)
    for field, words in (
        ("name", "The server has another name"),
        ("websiteUrl", "The address of its page has changed"),
    ):
        if fingerprint.digest(one.get(field)) != fingerprint.digest(other.get(field)):
            findings.append(Finding("text", words))
    texts = [
        [text for field in ("name", "title", "description") for text in _strings(side.get(field))]
        for side in (one, other)
    ]
    for character in sorted(unseen(texts[1]) - unseen(texts[0])):
        findings.append(Finding("alarming", f"There is an unseen character now, U+{ord(character):04X}"))
    change = _change("server_info", None, dict(before), dict(after), findings)
    return [change if findings else change._replace(reasons=("Its version is another one",))]


def _protocol_versions(before: Sequence[str], after: Sequence[str]) -> list[Change]:
    """Of the older versions a server is seen to speak the one that was agreed on: another one is not the loss of it."""
    if sorted(before) == sorted(after):
        return []
    back = bool(before) and (not after or max(after) < max(before))
    new = "It speaks other versions of the protocol"
    finding = Finding("breaking", "It has gone back to an older protocol") if back else Finding("compatible", new)
    one, other = ({"protocol_versions": sorted(versions)} for versions in (before, after))
    return [_change("protocol_versions", None, one, other, [finding])]


def _capabilities(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    if fingerprint.digest(dict(before)) == fingerprint.digest(dict(after)):
        return []
    findings: list[Finding] = []
    one, other = _granted(before), _granted(after)
    for name in sorted(one - other):
        # Who lists again is told nothing wrong; what is experimental is nobody's to rely on.
        loose = name.endswith(".listChanged") or name.startswith("experimental")
        findings.append(Finding("compatible" if loose else "breaking", f"The capability {called(name)} is gone"))
    findings += [Finding("compatible", f"The capability {called(name)} is new") for name in sorted(other - one)]
    return [_change("capabilities", None, dict(before), dict(after), findings)]


def _granted(capabilities: Mapping[str, Any]) -> set[str]:
    """What a server says that it can do, and how."""
    granted: set[str] = set()
    for name, value in capabilities.items():
        if value is None or value is False:
            continue
        granted.add(name)
        if isinstance(value, dict):
            details = cast("dict[str, Any]", value)
            granted |= {
                f"{name}.{detail}" for detail, said in details.items() if said is not None and said is not False
            }
    return granted
