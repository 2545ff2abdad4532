"""What a person sees: text of strangers made harmless, cut to the terminal's width, in columns, and with colours.

A registry stores what servers say of themselves. An escape sequence in a description could rewrite the screen or the
clipboard of whoever lists it, and a bidirectional override could make one name read as another.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import unicodedata
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, NamedTuple, TextIO

# Controls, formats (the bidirectional ones among them), surrogates, private use, and the two separators of lines.
UNSEEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
# Formats that join letters and emoji. They move nothing.
JOINERS: Final = frozenset("\u200c\u200d")
SPACES: Final = frozenset("\t\n\v\f\r\x85\u2028\u2029")
# Marks that stack on one letter, none of which takes a column: more than this is no writing.
MAX_MARKS: Final = 4

STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
Style = Literal["bold", "dim", "red", "green", "yellow"]
# After how many seconds a person wonders whether anything is happening.
PATIENCE: Final = 1.0
GAP: Final = "  "


def clean(text: str) -> str:
    """One line of text in which every character is what it seems: others are written as Python writes them."""
    if text.isascii() and text.isprintable():
        return text
    parts: list[str] = []
    marks = 0
    for character in text:
        if character in SPACES:
            parts.append(" ")
            continue
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if category in UNSEEN and character not in JOINERS:
            parts.append(character.encode("unicode_escape").decode())
        elif marks <= MAX_MARKS:
            parts.append(character)
    return "".join(parts)


def width(text: str) -> int:
    """How many columns a clean text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def cut(text: str, room: int, *, middle: bool = False) -> str:
    """A clean text in no more columns than there are, its end or its middle left out."""
    if width(text) <= room:
        return text
    if room < 2:
        return _fitting(text, room)
    tail = room // 2 if middle else 0
    end = _fitting(text[::-1], tail)[::-1] if tail else ""
    return _fitting(text, room - 1 - tail) + "\u2026" + end


def wrapped(text: str, columns: int, first: int = 0, rest: int = 0) -> list[str]:
    """A clean text in lines of so many columns, the first `first` of which are taken, and `rest` in all others.

    Broken between words, and where a script has no spaces between its wide characters. A word is never broken: an
    address in two pieces cannot be copied.
    """
    lines = [""]
    used = first
    for gap, word in _words(text):
        needed = width(gap) + width(word)
        if used + needed > columns and lines[-1]:
            lines.append("")
            used = rest
        if lines[-1]:
            lines[-1] += gap
            used += width(gap)
        lines[-1] += word
        used += width(word)
    return lines


def document(value: Any) -> str:
    """A JSON document in ASCII: no terminal takes anything in it for more than text, and every encoding has it."""
    # JSON escapes every control character but this one. It can only stand in a string.
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f") + "\n"


class Column(NamedTuple):
    """A column of a table. One with a `least` width may be cut down to it; the first to be left out has `rank` 1."""

    title: str
    right: bool = False
    least: int | None = None
    middle: bool = False
    rank: int | None = None


class Cell(NamedTuple):
    """A clean text in a table, and how it is shown."""

    text: str
    style: Style | None = None


class Screen:
    """Where the output of a command goes: a terminal, which has a width and may have colours, or a pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal = stream.isatty()
        # Who reads a pipe wants all of it.
        self.width = max(_columns_of(stream), 20) if self.is_terminal else None
        self.colours = self.is_terminal and not os.environ.get("NO_COLOR") and _knows_colours()

    def write(self, text: str = "") -> None:
        """Write a line. What strangers wrote in it has to be clean."""
        self._stream.write(text + "\n")

    def document(self, value: Any) -> None:
        """Write a JSON document."""
        self._stream.write(document(value))

    def paint(self, text: str, *styles: Style) -> str:
        """The text in a style, where there are colours."""
        if not self.colours or not styles or not text:
            return text
        return f"\x1b[{';'.join(STYLES[style] for style in styles)}m{text}\x1b[0m"

    def paragraph(self, text: str, indent: str = "", hanging: str | None = None) -> None:
        """Write a clean text, broken into lines between words."""
        rest = indent if hanging is None else hanging
        if self.width is None:
            self.write(indent + text)
            return
        columns = max(self.width, width(rest) + 20)
        for place, line in enumerate(wrapped(text, columns, width(indent), width(rest))):
            self.write((rest if place else indent) + line)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        """Write a table. On a terminal it is as wide as that at most: texts are cut, then columns left out."""
        shown = list(range(len(columns)))
        widest = [
            max([width(column.title), *(width(row[place].text) for row in rows)])
            for place, column in enumerate(columns)
        ]
        if self.width is not None:
            shown = _kept(columns, widest, self.width)
            _shrink(columns, widest, shown, self.width)
        self.write(self._row(columns, widest, shown, [Cell(column.title, "bold") for column in columns]))
        for row in rows:
            self.write(self._row(columns, widest, shown, row))

    def _row(self, columns: Sequence[Column], widest: list[int], shown: list[int], row: Sequence[Cell]) -> str:
        cells: list[str] = []
        for place in shown:
            text = cut(row[place].text, widest[place], middle=columns[place].middle)
            space = " " * (widest[place] - width(text))
            style = row[place].style
            painted = self.paint(text, style) if style else text
            # Nothing trails the last column.
            last = place == shown[-1]
            cells.append(space + painted if columns[place].right else painted + ("" if last else space))
        # ... and nothing stands where it is empty.
        return GAP.join(cells).rstrip()


def note(text: str) -> None:
    """Say something on the way, on stderr. Where nobody reads that, nothing is lost."""
    with suppress(OSError):
        Screen(sys.stderr).paragraph(clean(text))


@contextmanager
def waiting(what: str) -> Generator[None]:
    """Tell a person at a terminal what is being waited for, once it has taken a second, and for how long."""
    stream = sys.stderr
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(stream, clean(what), over), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(stream: TextIO, what: str, over: threading.Event) -> None:
    seconds = 0
    longest = 0
    while not over.wait(PATIENCE):
        seconds += 1
        room = _columns_of(stream) - 1
        line = cut(what, room - 10) + f" ... {seconds} s"
        longest = max(longest, width(line))
        stream.write("\r" + line)
        stream.flush()
    if longest:
        stream.write("\r" + " " * longest + "\r")
        stream.flush()


def _columns_of(stream: TextIO) -> int:
    """How wide the terminal is that a stream leads to: stdout may be a pipe where stderr is none."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _words(text: str) -> Iterator[tuple[str, str]]:
    """What may not be broken in a text, each with the space before it. Wide characters may stand alone."""
    for place, word in enumerate(text.split()):
        gap = " " if place else ""
        start = 0
        for end in range(1, len(word)):
            if _columns(word[end]) and 2 in (_columns(word[end - 1]), _columns(word[end])):
                yield gap, word[start:end]
                gap, start = "", end
        yield gap, word[start:]


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(text: str, room: int) -> str:
    """As much of a text's beginning as there are columns for."""
    for place, character in enumerate(text):
        room -= _columns(character)
        if room < 0:
            return text[:place]
    return text


def _total(widths: list[int], shown: list[int]) -> int:
    return sum(widths[place] for place in shown) + len(GAP) * (len(shown) - 1)


def _kept(columns: Sequence[Column], widest: list[int], room: int) -> list[int]:
    """The columns that there is room for, cut as far as they may be."""
    narrowest = [
        widest[place] if column.least is None else min(widest[place], max(column.least, width(column.title)))
        for place, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    optional = sorted((column.rank, place) for place, column in enumerate(columns) if column.rank is not None)
    for _, place in optional:
        if _total(narrowest, shown) <= room:
            break
        shown.remove(place)
    return shown


def _shrink(columns: Sequence[Column], widest: list[int], shown: list[int], room: int) -> None:
    """Narrow columns until the row fits: first those that would be left out first, and as a last resort all of them."""
    flexible = [place for place in shown if columns[place].least is not None]
    flexible.sort(key=lambda place: columns[place].rank or len(columns))
    for limited in (True, False):
        for place in flexible:
            least = max(columns[place].least or 0, width(columns[place].title)) if limited else 1
            over = _total(widest, shown) - room
            widest[place] -= max(min(over, widest[place] - least), 0)


def _knows_colours() -> bool:
    # The console of older releases of Windows prints the sequences as they are.
    return os.environ.get("TERM") != "dumb" and (os.name != "nt" or "WT_SESSION" in os.environ)
