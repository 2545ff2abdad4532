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
# What is seen as little, though it is a letter, a symbol or a mark: fillers, a blank of Braille, and the selectors of a
# character's form (Unicode, DerivedCoreProperties.txt, Default_Ignorable_Code_Point).
BLANKS: Final = frozenset((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)))
SELECTORS: Final = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
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


def exact(text: str) -> str:
    """One line of text in which nothing is hidden: all that has no look of its own is written as Python writes it.

    Of white space that is all but the space itself; and of what `clean` leaves as it is, what joins and fills.
    """
    if text.isascii() and text.isprintable():
        return text
    parts: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        is_hidden = category in UNSEEN or category == "Cn" or (category == "Zs" and character != " ")
        if is_hidden or marks > MAX_MARKS or _is_blank(character):
            parts.append(character.encode("unicode_escape").decode())
        else:
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


def document(value: Any, *, one_line: bool = False) -> str:
    """A JSON document in ASCII: no terminal takes anything in it for more than text, and every encoding has it."""
    # JSON escapes every control character but this one. It can only stand in a string.
    return json.dumps(value, indent=None if one_line else 2).replace("\x7f", "\\u007f") + "\n"


class Column(NamedTuple):
    """A column of a table. One with a `least` width may be cut down to it; the first to be left out has `rank` 1.

    One that `wraps` goes on in the next line instead of being cut, and has to be the last. `wide`: how wide it is at
    least, whatever stands in it.
    """

    title: str
    right: bool = False
    least: int | None = None
    middle: bool = False
    rank: int | None = None
    wraps: bool = False
    wide: int = 0


class Cell(NamedTuple):
    """A clean text in a table, and how it is shown."""

    text: str
    style: Style | None = None


class Piece(NamedTuple):
    """A part of a clean text, and how it is shown."""

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
        # A command that goes on writes its documents in one line each: who reads them needs to know where one ends.
        self.one_line = False

    def write(self, text: str = "") -> None:
        """Write a line. What strangers wrote in it has to be clean."""
        self._stream.write(text + "\n")

    def document(self, value: Any) -> None:
        """Write a JSON document."""
        self._stream.write(document(value, one_line=self.one_line))

    def flush(self) -> None:
        """Have what was written be read now. Raises OSError."""
        self._stream.flush()

    def paint(self, text: str, style: Style | None) -> str:
        """The text in a style, where there are colours."""
        if not self.colours or style is None or not text:
            return text
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m"

    def paragraph(self, text: str, indent: str = "", hanging: str | None = None) -> None:
        """Write a clean text, broken into lines between words."""
        rest = indent if hanging is None else hanging
        if self.width is None:
            self.write(indent + text)
            return
        columns = max(self.width, width(rest) + 20)
        for place, line in enumerate(wrapped(text, columns, width(indent), width(rest))):
            self.write((rest if place else indent) + line)

    def flow(self, pieces: Sequence[Piece], indent: str = "", hanging: str | None = None) -> None:
        """Write a text of several styles as a paragraph."""
        text = "".join(piece.text for piece in pieces)
        rest = indent if hanging is None else hanging
        lines = [text]
        if self.width is not None:
            columns = max(self.width, width(rest) + 20)
            lines = wrapped(text, columns, width(indent), width(rest))
        # Only white space is lost where lines are broken: the other characters are those of the text, in its order.
        styles: Iterator[Style | None] = (
            piece.style for piece in pieces for character in piece.text if not character.isspace()
        )
        for place, line in enumerate(lines):
            self.write((rest if place else indent) + self._painted(line, styles))

    def _painted(self, line: str, styles: Iterator[Style | None]) -> str:
        """A line whose characters have these styles. A space has one where it stands between two that have."""
        runs: list[tuple[str, Style | None]] = []
        for character in line:
            former = runs[-1][1] if runs else None
            style = former if character.isspace() else next(styles)
            if runs and former == style:
                runs[-1] = (runs[-1][0] + character, style)
            else:
                runs.append((character, style))
        shown = ""
        for text, style in runs:
            words = text.rstrip()
            shown += self.paint(words, style) + text[len(words) :]
        return shown

    def table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Cell]],
        indent: str = "",
        former: Sequence[int] | None = None,
    ) -> list[int]:
        """Write a table; how wide its texts are. On a terminal it is as wide as that at most.

        What is too wide is cut, and then columns are left out. `former`: the widths of the table that this one goes on,
        whose head it has.
        """
        shown = list(range(len(columns)))
        widest = [
            max([column.wide, width(column.title), *(width(row[place].text) for row in rows)])
            for place, column in enumerate(columns)
        ]
        if former is not None:
            widest = [max(pair) for pair in zip(widest, former, strict=True)]
        needed = list(widest)
        if self.width is not None:
            room = max(self.width - width(indent), 20)
            shown = _kept(columns, widest, room)
            _shrink(columns, widest, shown, room)
        head = [Cell(column.title, "bold") for column in columns]
        for row in rows if former is not None else [head, *rows]:
            for line in _broken(columns, widest, row):
                self.write((indent + self._row(columns, widest, shown, line)).rstrip())
        return needed

    def _row(self, columns: Sequence[Column], widest: list[int], shown: list[int], row: Sequence[Cell]) -> str:
        cells: list[str] = []
        for place in shown:
            text = cut(row[place].text, widest[place], middle=columns[place].middle)
            space = " " * (widest[place] - width(text))
            style = row[place].style
            painted = self.paint(text, style)
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


def can_ask() -> bool:
    """Whether there is a person who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str) -> bool:
    """Whether the person at the terminal says yes. The end of the input and bytes that are no text say no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = ""
    with suppress(UnicodeDecodeError):
        answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes")


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


def _is_blank(character: str) -> bool:
    code = ord(character)
    return code in BLANKS or any(code in selectors for selectors in SELECTORS)


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


def _broken(columns: Sequence[Column], widest: list[int], row: Sequence[Cell]) -> Iterator[Sequence[Cell]]:
    """A row, as several of them where its last column is to go on."""
    last = row[-1]
    if not columns[-1].wraps or width(last.text) <= widest[-1]:
        yield row
        return
    first = True
    for line in wrapped(last.text, widest[-1]):
        while line:
            # A word that is wider than the column is broken all the same: nothing is left out of what goes on.
            text = _fitting(line, widest[-1]) or line[0]
            line = line[len(text) :]
            yield [*(row[:-1] if first else (Cell("") for _ in row[:-1])), last._replace(text=text)]
            first = False


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
