"""A registration, cut down to what the registry takes: one part of it must not keep the rest out.

Which tools it takes is for the registry to say: its refusal names each of the others by its place in the list, and the
rules stay where they belong. Known here is only what no answer tells: what cannot be sent as JSON at all, and how long
the whole may be.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sized
from typing import Any, Final, NamedTuple

from mcp_registry_client._canonical import canonical
from mcp_registry_client._json import depth

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
    """A schema that is not registered: the name of its tool, and which of the tool's fields it is."""

    name: str
    field: str


class Trimming:
    """What is sent of a registration, and what is left out.

    `body`: what is sent, in its canonical form; `document`: the same as a value. `left_out` are tools; `dropped` are
    schemas of tools that are sent.

    Where the whole is longer than 1 MiB, schemas are left out until it fits: the largest first, and of equal ones that
    of an output before that of an input, and that of the last tool first. Descriptions stay, for they are what a tool
    is chosen by; a schema of an input becomes {"type": "object"}. Where descriptions alone are too long, the last
    tools are left out.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        refused: MutableMapping[str, str] | None = None,
        left_out: Iterable[LeftOut] = (),
    ) -> None:
        """`refused`: the rules that were broken by tools, by what these are. What is learnt is added.

        `left_out`: tools that are not even in the document. Raises TypeError or ValueError where the registration is no
        JSON, whatever its tools.
        """
        self._whole = document
        self._refused = {} if refused is None else refused
        self._left_out = list(left_out)
        self._most = MAX_BODY
        self._rounds = 0
        self._fit()

    def learn(self, faults: Iterable[tuple[str, str]]) -> bool:
        """Leave out the tools that a refusal names, as pairs of path and message. False where they are not at fault."""
        found: dict[int, str] = {}
        for path, message in faults:
            if match := PLACE.fullmatch(path):
                rule = f"{match[2]}: {message}" if match[2] else message
                found.setdefault(int(match[1]), rule)
            elif path == "tools" and (limit := TOO_MANY.search(message)):
                found |= dict.fromkeys(range(int(limit[1]), len(self._keys)), message)
            else:
                return False
        self._rounds += 1
        known = {place: rule for place, rule in found.items() if place < len(self._keys)}
        if not known or self._rounds > MAX_ROUNDS:
            return False
        self._refused.update({self._keys[place]: rule for place, rule in known.items()})
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
            listed = _listed(f"{one.field} of {one.name[:MAX_NAME]}" for one in self.dropped)
            without = f"without {_counted(self.dropped, 'schemas')}, the largest"
            sentences.append(f"{name} is registered {without}, for the whole may have {self._room}: {listed}")
        return sentences

    # -------------------------------------------------------------- what fits

    @property
    def _room(self) -> str:
        return "1 MiB" if self._most == MAX_BODY else f"{self._most >> 10} KiB"

    def _fit(self) -> None:
        self.left_out = list(self._left_out)
        self.dropped: list[Dropped] = []
        tools: list[Any] = []
        self._keys: list[str] = []  # of those that are sent, each by what it was given as
        seen: Counter[str] = Counter()
        for place, tool in enumerate(self._whole["tools"]):
            rule = unsendable(tool)
            if rule is None:
                digest = hashlib.sha256(canonical(tool)).hexdigest()
                seen[digest] += 1
                key = f"{digest} {seen[digest]}"  # of two that are alike, only one may be wrong
                rule = self._refused.get(key)
                if rule is None:
                    tools.append(tool)
                    self._keys.append(key)
                    continue
            self.left_out.append(LeftOut(name_of(tool, place), rule))
        self._write(tools)
        if len(self.body) > self._most:
            self._write(self._shortened(tools, len(self.body) - self._most))

    def _write(self, tools: list[Any]) -> None:
        self.document: dict[str, Any] = {**self._whole, "tools": tools}
        self.body = canonical(self.document)

    def _shortened(self, tools: list[Any], excess: int) -> list[Any]:
        """The tools, shorter by so many bytes."""
        sizes = [
            (len(canonical(tool[field])), field != "input_schema", place, field)
            for place, tool in enumerate(tools)
            for field in SCHEMAS
            if isinstance(tool.get(field), dict)
        ]
        dropped: list[tuple[int, str]] = []
        for size, optional, place, field in sorted(sizes, reverse=True):
            saved = size + len(f',"{field}":') if optional else size - len(canonical(ANY))
            if excess <= 0 or saved <= 0:
                break
            rest = {name: value for name, value in tools[place].items() if name != field}
            tools[place] = rest if optional else {**rest, field: ANY}
            dropped.append((place, field))
            excess -= saved
        while excess > 0 and tools:
            tool = tools.pop()
            excess -= len(canonical(tool))
            rule = f"the whole registration may have {self._room}"
            self.left_out.append(LeftOut(name_of(tool, len(tools)), rule))
        del self._keys[len(tools) :]
        self.dropped = [
            Dropped(name_of(tools[place], place), field) for place, field in sorted(dropped) if place < len(tools)
        ]
        return tools


def unsendable(tool: Any) -> str | None:
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
