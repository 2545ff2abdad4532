"""A registration, cut down to what the registry takes: one part of it must not keep the rest out.

Which tools it takes, and which of their fields, is for the registry to say: its refusal names each of the others by its
place in the list, and the rules stay where they belong. Known here is only what no answer tells: what cannot be sent as
JSON at all, and how long the whole may be.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sized
from typing import Any, Final, NamedTuple, cast

from mcp_registry_client._canonical import canonical
from mcp_registry_client._json import Fault, depth
from mcp_registry_client._tools import KNOWN

MAX_BODY: Final = 1 << 20
# What stands between may take less than the registry does; where it does not take this, its reason is another one.
MIN_BODY: Final = 64 << 10
# More than a schema may have, and less than ends the recursion of whoever reads it: such a text would be refused whole.
MAX_DEPTH: Final = 200
# An answer of the registry names a hundred faults, and a server has 2,000 tools at most.
MAX_ROUNDS: Final = 25
# A schema that is left out: a tool has to have one of its input.
ANY: Final[Mapping[str, Any]] = {"type": "object"}
SCHEMAS: Final = ("input_schema", "output_schema", "annotations")
PLACE: Final = re.compile(r"tools\.([0-9]{1,9})(?:\.(.*))?", re.DOTALL)
TOO_MANY: Final = re.compile(r"at most ([0-9]{1,9}) items")
# Of what is left out so much is told in a line: of how many, and of each name.
MAX_TOLD, MAX_NAME = 5, 200


class LeftOut(NamedTuple):
    """A tool that is not registered: its name, and the rule that it breaks."""

    name: str
    rule: str


class Dropped(NamedTuple):
    """A field that is not registered of a tool that is: the tool's name, the field, and the rule that it breaks."""

    name: str
    field: str
    rule: str


class Limit(NamedTuple):
    """How many tools a registry takes, and the rule in its words."""

    number: int
    rule: str


class Learnt:
    """What a registry did not take, so that it is not sent again with the next list of the tools."""

    def __init__(self) -> None:
        # No mark of any tool: which are too many changes with the list.
        self.limit: Limit | None = None
        # The rules that were broken by tools, and by fields of tools, by what these tools are.
        self.tools: dict[str, str] = {}
        self.fields: dict[str, dict[str, str]] = {}
        # The fields that it knows of no tool. An older registry knows only those that have rules.
        self.unknown: set[str] = set()


class _Sent:
    """A tool that is sent: its place in what was given, what it was given as, and what is missing of it, with why."""

    def __init__(self, place: int, key: str, tool: dict[str, Any], dropped: Mapping[str, str]) -> None:
        self.place = place
        self.key = key
        self.tool = tool
        self.dropped = dict(dropped)


class Trimming:
    """What is sent of a registration, and what is left out.

    `body`: what is sent, in its canonical form; `document`: the same as a value. `left_out` are tools; `dropped` are
    fields of tools that are sent. `unknown` are the fields that this registry knows of no tool, which nobody misses
    who reads it.

    Where the whole is longer than 1 MiB, what has no rule of its own is left out until it fits, as pictures are, and
    then schemas: the largest first, and of equal ones that of an output before that of an input, and that of the last
    tool first. What is too long by itself goes before all. Descriptions stay, for they are what a tool is chosen by; a
    schema of an input becomes {"type": "object"}. Where that is not enough, tools are left out first, those that are
    the longest without all this; the others lose no more than has to be.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        learnt: Learnt | None = None,
        left_out: Iterable[LeftOut] = (),
    ) -> None:
        """`learnt`: what the registry is known not to take. What it says of this one is added.

        `left_out`: tools that are not even in the document. Raises TypeError or ValueError where the registration is no
        JSON, whatever its tools.
        """
        self._whole = document
        self._learnt = learnt or Learnt()
        self._left_out = list(left_out)
        self._most = MAX_BODY
        self._rounds = 0
        self._fit()

    @property
    def unknown(self) -> list[str]:
        """The fields of tools that are not sent because the registry knows no such field."""
        return sorted(self._learnt.unknown)

    def learn(self, faults: Iterable[Fault]) -> bool:
        """Leave out what a refusal names of the tools: fields that may be missing, else tools.

        False where other things are at fault, or nothing was found to be left out.
        """
        tools: dict[int, str] = {}
        fields: list[tuple[int, str, Fault]] = []
        limit: Limit | None = None
        sent = self.document["tools"]
        for fault in faults:
            if match := PLACE.fullmatch(fault.path):
                place, path = int(match[1]), match[2]
                field = _field(sent[place], path) if place < len(sent) and path is not None else None
                if field is not None and (field not in KNOWN or fault.type == "unknown"):
                    fields.append((place, field, fault))
                else:
                    tools.setdefault(place, f"{path}: {fault.message}" if path else fault.message)
            elif fault.path == "tools" and (match := TOO_MANY.search(fault.message)):
                limit = Limit(int(match[1]), fault.message)
            else:
                return False
        self._rounds += 1
        known = {place: rule for place, rule in tools.items() if place < len(sent)}
        if self._rounds > MAX_ROUNDS:
            return False
        if not (known or fields):
            if limit is None or limit.number >= len(sent):
                return False
            # Only now: without those that break another rule, there may not be too many.
            self._learnt.limit = limit
        self._learnt.tools.update({self._sent[place].key: rule for place, rule in known.items()})
        for place, field, fault in fields:
            if fault.type == "unknown":
                self._learnt.unknown.add(field)
            else:
                self._learnt.fields.setdefault(self._sent[place].key, {})[field] = fault.message
        self._fit()
        return True

    def shorten(self) -> bool:
        """Make it half as long, where something takes less than 1 MiB. False where that is not to be had."""
        before = len(self.body)
        if before <= MIN_BODY:
            return False
        self._most = before // 2
        self._fit()
        return len(self.body) < before

    def told(self, name: str) -> list[str]:
        """What is missing of the server of this name in the registry, in a sentence each; none where nothing is."""
        return list(self.missing(name).values())

    def missing(self, name: str) -> dict[Hashable, str]:
        """The same sentences, each by what it says is missing: of the rules, one may be in other words each time."""
        sentences: dict[Hashable, str] = {}
        if self.left_out:
            listed = _listed(f"{one.name[:MAX_NAME]} ({one.rule})" for one in self.left_out)
            sentence = f"{name} is registered without {_counted(self.left_out, 'tools')}: {listed}"
            sentences["tools", tuple(one.name for one in self.left_out)] = sentence
        if self.dropped:
            listed = _listed(f"{one.field[:MAX_NAME]} of {one.name[:MAX_NAME]} ({one.rule})" for one in self.dropped)
            without = _counted(self.dropped, "tools' fields")
            sentence = f"{name} is registered without {without}: {listed}"
            sentences["fields", tuple((one.name, one.field) for one in self.dropped)] = sentence
        return sentences

    # -------------------------------------------------------------- what fits

    @property
    def _too_long(self) -> str:
        room = "1 MiB" if self._most == MAX_BODY else f"{self._most >> 10} KiB"
        return f"the whole registration may have {room}"

    def _fit(self) -> None:
        left_out: list[tuple[int, str]] = []  # the place in what was given, and the rule
        self._sent: list[_Sent] = []
        seen: Counter[str] = Counter()
        for place, given in enumerate(self._whole["tools"]):
            tool, rule = sendable(given)
            if rule is None:
                digest = hashlib.sha256(canonical(tool)).hexdigest()
                seen[digest] += 1
                key = f"{digest} {seen[digest]}"  # of two that are alike, only one may be wrong
                rule = self._learnt.tools.get(key)
                if rule is None:
                    broken = self._learnt.fields.get(key, {})
                    missing = self._learnt.unknown.union(broken)
                    rest = {name: value for name, value in tool.items() if name not in missing}
                    self._sent.append(_Sent(place, key, rest, broken))
                    continue
            left_out.append((place, rule))
        if limit := self._learnt.limit:
            left_out += [(one.place, limit.rule) for one in self._sent[limit.number :]]
            del self._sent[limit.number :]
        self._write()
        if len(self.body) > self._most:
            left_out += [(place, self._too_long) for place in self._shorten()]
            self._write()
        given_tools = self._whole["tools"]
        named = (LeftOut(name_of(given_tools[place], place), rule) for place, rule in sorted(left_out))
        self.left_out = [*self._left_out, *named]
        self.dropped = [
            Dropped(name_of(one.tool, one.place), field, rule)
            for one in self._sent
            for field, rule in sorted(one.dropped.items())
        ]

    def _write(self) -> None:
        self.document: dict[str, Any] = {**self._whole, "tools": [one.tool for one in self._sent]}
        self.body = canonical(self.document)

    def _shorten(self) -> list[int]:
        """Leave out what is too long of the tools, and tools; the places of these in what was given."""
        room = self._most - len(canonical({**self._whole, "tools": []})) + 1  # the last tool needs no comma
        sizes = [len(canonical(one.tool)) + len(",") for one in self._sent]
        saved = [_saved(one.tool) for one in self._sent]
        least = [size - sum(fields.values()) for size, fields in zip(sizes, saved, strict=True)]
        # Tools first: where fields were left out for one that cannot stay, all would have lost theirs for nothing.
        excess = sum(least) - room
        gone: set[int] = set()
        for size, place in sorted(zip(least, range(len(least)), strict=True), reverse=True):
            if excess <= 0:
                break
            gone.add(place)
            excess -= size
        kept = [place for place in range(len(least)) if place not in gone]
        excess = sum(sizes[place] for place in kept) - room
        longest = sorted(
            (
                (size > room, field not in KNOWN, size, field != "input_schema", place, field)
                for place in kept
                for field, size in saved[place].items()
            ),
            reverse=True,
        )
        for *_, size, optional, place, field in longest:
            if excess <= 0:
                break
            one = self._sent[place]
            rest = {name: value for name, value in one.tool.items() if name != field}
            one.tool = rest if optional else {**rest, field: ANY}
            one.dropped[field] = self._too_long
            excess -= size
        left_out = [self._sent[place].place for place in gone]
        self._sent = [self._sent[place] for place in kept]
        return left_out


def _saved(tool: Mapping[str, Any]) -> dict[str, int]:
    """The fields that a tool may lose where the whole is too long, and the bytes that each of them saves."""
    saved: dict[str, int] = {}
    for field, value in tool.items():
        size = len(canonical(value))
        if field == "input_schema" and isinstance(value, dict):
            saved[field] = size - len(canonical(ANY))
        elif field not in KNOWN or (field in SCHEMAS and isinstance(value, dict)):
            saved[field] = size + len(canonical(field)) + len(",:")
    return {field: size for field, size in saved.items() if size > 0}


def sendable(tool: Any) -> tuple[Any, str | None]:
    """A tool without those fields that are no JSON where no rule asks for them, and why the rest cannot be sent."""
    rule = _unsendable(tool)
    if rule is None or not isinstance(tool, dict):
        return tool, rule
    fields = cast("dict[Any, Any]", tool).items()
    tool = {name: value for name, value in fields if name in KNOWN or _unsendable({name: value}) is None}
    return tool, _unsendable(tool)


def _field(tool: Mapping[str, Any], path: str) -> str | None:
    """Which of a tool's fields a path within the tool leads to; None where it leads to none."""
    return max((name for name in tool if path == name or path.startswith(f"{name}.")), key=len, default=None)


def _unsendable(tool: Any) -> str | None:
    """Why a tool cannot be sent as JSON, in one sentence; None where it can."""
    try:
        canonical(tool)  # first, for it finds what contains itself
    except RecursionError:
        return f"It is nested more than {MAX_DEPTH} levels deep"
    except UnicodeEncodeError:
        return "It holds half a surrogate pair, which is no text"
    except (TypeError, ValueError) as error:
        return f"It is not JSON ({error})"
    return f"It is nested more than {MAX_DEPTH} levels deep" if depth(tool) > MAX_DEPTH else None


def name_of(tool: Any, place: int) -> str:
    """What a tool is called; its number where it has no name."""
    name = tool.get("name") if isinstance(tool, Mapping) else None
    return name if isinstance(name, str) and name else f"number {place + 1}"


def _counted(found: Sized, what: str) -> str:
    return f"{'one' if len(found) == 1 else len(found)} of its {what}"


def _listed(words: Iterable[str]) -> str:
    every = list(words)
    more = f"; and {len(every) - MAX_TOLD} more" if len(every) > MAX_TOLD else ""
    return "; ".join(every[:MAX_TOLD]) + more
