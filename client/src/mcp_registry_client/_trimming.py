"""A registration, cut down to what the registry takes: one part of it must not keep the rest out.

Which tools it takes, and which of their fields, is for the registry to say: its refusal names each of the others by its
place in the list, and the rules stay where they belong. Known here is only what no answer tells: what cannot be sent as
JSON at all, and how long the whole may be.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sized
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


class Learnt:
    """What a registry did not take, so that it is not sent again with the next list of the tools."""

    def __init__(self) -> None:
        # The rules that were broken by tools, and by fields of tools, by what these tools are.
        self.tools: dict[str, str] = {}
        self.fields: dict[str, dict[str, str]] = {}
        # The fields that it knows of no tool. An older registry knows only those that have rules.
        self.unknown: set[str] = set()


class Trimming:
    """What is sent of a registration, and what is left out.

    `body`: what is sent, in its canonical form; `document`: the same as a value. `left_out` are tools; `dropped` are
    fields of tools that are sent. `unknown` are the fields that this registry knows of no tool, which nobody misses
    who reads it.

    Where the whole is longer than 1 MiB, what has no rule of its own is left out until it fits, as pictures are, and
    then schemas: the largest first, and of equal ones that of an output before that of an input, and that of the last
    tool first. Descriptions stay, for they are what a tool is chosen by; a schema of an input becomes
    {"type": "object"}. Where descriptions alone are too long, the last tools are left out.
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
        sent = self.document["tools"]
        for fault in faults:
            if match := PLACE.fullmatch(fault.path):
                place, path = int(match[1]), match[2]
                field = _field(sent[place], path) if place < len(sent) and path is not None else None
                if field is not None and (field not in KNOWN or fault.type == "unknown"):
                    fields.append((place, field, fault))
                else:
                    tools.setdefault(place, f"{path}: {fault.message}" if path else fault.message)
            elif fault.path == "tools" and (limit := TOO_MANY.search(fault.message)):
                tools |= dict.fromkeys(range(int(limit[1]), len(sent)), fault.message)
            else:
                return False
        self._rounds += 1
        known = {place: rule for place, rule in tools.items() if place < len(sent)}
        if not (known or fields) or self._rounds > MAX_ROUNDS:
            return False
        self._learnt.tools.update({self._keys[place]: rule for place, rule in known.items()})
        for place, field, fault in fields:
            if fault.type == "unknown":
                self._learnt.unknown.add(field)
            else:
                self._learnt.fields.setdefault(self._keys[place], {})[field] = fault.message
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
        sentences: list[str] = []
        if self.left_out:
            listed = _listed(f"{one.name[:MAX_NAME]} ({one.rule})" for one in self.left_out)
            sentences.append(f"{name} is registered without {_counted(self.left_out, 'tools')}: {listed}")
        if self.dropped:
            listed = _listed(f"{one.field[:MAX_NAME]} of {one.name[:MAX_NAME]} ({one.rule})" for one in self.dropped)
            without = _counted(self.dropped, "tools' fields")
            sentences.append(f"{name} is registered without {without}: {listed}")
        return sentences

    # -------------------------------------------------------------- what fits

    @property
    def _too_long(self) -> str:
        room = "1 MiB" if self._most == MAX_BODY else f"{self._most >> 10} KiB"
        return f"the whole registration may have {room}"

    def _fit(self) -> None:
        self.left_out = list(self._left_out)
        tools: list[Any] = []
        dropped: list[tuple[int, str, str]] = []  # the place in what is sent, the field, and the rule
        self._keys: list[str] = []  # of those that are sent, each by what it was given as
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
                    dropped += [(len(tools), field, its_rule) for field, its_rule in broken.items()]
                    missing = self._learnt.unknown.union(broken)
                    tools.append({name: value for name, value in tool.items() if name not in missing})
                    self._keys.append(key)
                    continue
            self.left_out.append(LeftOut(name_of(given, place), rule))
        self._write(tools)
        if (excess := len(self.body) - self._most) > 0:
            dropped += [(place, field, self._too_long) for place, field in self._shorten(tools, excess)]
            del self._keys[len(tools) :]
            self._write(tools)
        self.dropped = [
            Dropped(name_of(tools[place], place), field, rule)
            for place, field, rule in sorted(dropped)
            if place < len(tools)
        ]

    def _write(self, tools: list[Any]) -> None:
        self.document: dict[str, Any] = {**self._whole, "tools": tools}
        self.body = canonical(self.document)

    def _shorten(self, tools: list[Any], excess: int) -> list[tuple[int, str]]:
        """Make the tools shorter by so many bytes; the fields that are left out, each with the place of its tool."""
        sizes = [
            (field not in KNOWN, len(canonical(value)), field != "input_schema", place, field)
            for place, tool in enumerate(tools)
            for field, value in tool.items()
            if field not in KNOWN or (field in SCHEMAS and isinstance(value, dict))
        ]
        dropped: list[tuple[int, str]] = []
        for _, size, optional, place, field in sorted(sizes, reverse=True):
            saved = size + len(canonical(field)) + len(",:") if optional else size - len(canonical(ANY))
            if excess <= 0 or saved <= 0:
                break
            rest = {name: value for name, value in tools[place].items() if name != field}
            tools[place] = rest if optional else {**rest, field: ANY}
            dropped.append((place, field))
            excess -= saved
        while excess > 0 and tools:
            tool = tools.pop()
            excess -= len(canonical(tool))
            self.left_out.append(LeftOut(name_of(tool, len(tools)), self._too_long))
        return dropped


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
