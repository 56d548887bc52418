"""Text for terminals, as pure functions: cleaned, measured, cut, laid out, drawn.

What peers and files say is shown only through :func:`clean`: a job's name could
otherwise move the cursor or turn the line around.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

_TICKS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = 2
# They reorder what stands around them, or show nothing at all.
_HIDDEN: Final = frozenset(
    "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)


class Column(NamedTuple):
    """A table's column.

    Attributes:
        title: Its heading.
        right: Whether values stand at the right, as numbers do.
        whole: Whether values are never cut.
        least: Columns that it keeps at least, if it has so many.
        last: Whether it gives way only when all others are as narrow as they can be: a name.
        spare: Whether it may be left out where there is no room for all: the last one first.
    """

    title: str
    right: bool = False
    whole: bool = False
    least: int = 8
    last: bool = False
    spare: bool = False


class Cell(NamedTuple):
    """A value with a style of ``output.STYLES``."""

    text: str
    style: str = ""


def clean(text: str) -> str:
    """The text in one line, without what could steer a terminal."""
    return "".join(
        " " if c in "\t\n\r\x0b\x0c\u2028\u2029\x85" else "?" if _steers(c) else c for c in text
    )


def _steers(char: str) -> bool:
    return char in _HIDDEN or unicodedata.category(char) in ("Cc", "Cs")


def width_of(text: str) -> int:
    """Columns that a text takes: two for each wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns, an ellipsis in place of its middle."""
    if width_of(text) <= width:
        return text
    if width < 2:
        return "…"[:width]
    left = (width - 1 + 1) // 2
    head = _fitting(text, left)
    tail = _fitting(text[::-1], width - 1 - left)[::-1]
    return f"{head}…{tail}"


def _fitting(text: str, width: int) -> str:
    taken = 0
    for number, char in enumerate(text):
        taken += _columns(char)
        if taken > width:
            return text[:number]
    return text


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled with blanks to ``width`` columns."""
    blanks = " " * max(0, width - width_of(text))
    return blanks + text if right else text + blanks


def lay_out(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int
) -> list[list[Cell]]:
    """The cells, headings first, cut and padded so that each line fits ``width`` columns.

    Spare columns are left out first, then the widest give way. A column whose values must stay
    whole isn't cut: with many of those a line may be longer all the same.
    """
    heads = [Cell(column.title, "heading") for column in columns]
    lines = [heads, *([Cell(clean(cell.text), cell.style) for cell in row] for row in rows)]
    natural = [max(width_of(line[n].text) for line in lines) for n in range(len(columns))]
    left = _kept(natural, columns, width)
    columns = [columns[n] for n in left]
    lines = [[line[n] for n in left] for line in lines]
    widths = _fit([natural[n] for n in left], columns, width - _GAP * (len(columns) - 1))
    return [
        [
            Cell(pad(cut(cell.text, wide), wide, right=column.right), cell.style)
            for cell, wide, column in zip(line, widths, columns, strict=True)
        ]
        for line in lines
    ]


def _kept(natural: Sequence[int], columns: Sequence[Column], width: int) -> list[int]:
    """The numbers of the columns that are shown."""
    left = list(range(len(columns)))
    for number in [n for n in reversed(left) if columns[n].spare]:
        if sum(natural[n] for n in left) + _GAP * (len(left) - 1) <= width:
            break
        left.remove(number)
    return left


def _fit(natural: list[int], columns: Sequence[Column], room: int) -> list[int]:
    widths = list(natural)
    least = [
        wide if column.whole else min(wide, max(column.least, width_of(column.title)))
        for wide, column in zip(natural, columns, strict=True)
    ]
    while sum(widths) > room:
        able = [n for n in range(len(widths)) if widths[n] > least[n]]
        if not able:
            break
        able = [n for n in able if not columns[n].last] or able
        widest = max(able, key=lambda n: widths[n])
        widths[widest] -= 1
    return widths


def joined(cells: Sequence[Cell], paint: Callable[[str, str], str]) -> str:
    """A laid out line; ``paint`` gives a text its style."""
    shown = [*cells[:-1], *(Cell(cell.text.rstrip(), cell.style) for cell in cells[-1:])]
    return (" " * _GAP).join(paint(cell.text, cell.style) for cell in shown).rstrip()


def bar(fraction: float, width: int) -> str:
    """How far something is: ``━━━━╌╌╌╌``."""
    done = round(min(max(fraction, 0.0), 1.0) * width)
    return "━" * done + "╌" * (width - done)


def sparkline(values: Sequence[float | None], width: int) -> str:
    """A curve in one line, at most ``width`` columns; the newest value is at the right.

    Values are drawn by their logarithm where all are positive, as losses are: the interesting part
    of a curve of losses is its end.
    """
    found = [value for value in values if value is not None and math.isfinite(value)]
    if len(found) < 2 or width < 2:
        return ""
    if min(found) > 0:
        found = [math.log(value) for value in found]
    if len(found) > width:
        size = len(found) / width
        parts = (
            found[int(n * size) : max(int((n + 1) * size), int(n * size) + 1)] for n in range(width)
        )
        found = [math.fsum(value / len(part) for value in part) for part in parts]
    # By the largest first: the difference of two numbers may be too large for one.
    largest = max(map(abs, found)) or 1.0
    found = [value / largest for value in found]
    low, high = min(found), max(found)
    span = (high - low) or 1.0
    return "".join(_TICKS[round((value - low) / span * (len(_TICKS) - 1))] for value in found)


def point_at(text: str, start: int, length: int, width: int) -> tuple[str, str]:
    """A line of text, cleaned, and one below it that points at a part.

    Args:
        text: What the part is of.
        start: Where it begins, from 0; the end of the text at most.
        length: How many characters it has, 1 or more.
        width: Columns to use; of a longer text what is around the part is shown.
    """
    before, part = clean(text[:start]), clean(text[start : start + length])
    after = clean(text[start + length :])
    marks = "^" * max(min(width_of(part), width // 2), 1)
    # The part itself stays, then what is before it, then what comes after.
    room = max(width - len(marks), 0)
    if width_of(before) > room:
        before = "…" + _fitting(before[::-1], max(room * 2 // 3, 1) - 1)[::-1]
    line = before + part + after
    if width_of(line) > width:
        line = _fitting(line, width - 1) + "…"
    return line, " " * width_of(before) + marks


def busy(cpu: float, gpu: float | None) -> str:
    """How busy a machine is, in percent: ``GPU 87 %, CPU 40 %``."""
    parts = [] if gpu is None else [f"GPU {gpu:.0f} %"]
    return ", ".join([*parts, f"CPU {cpu:.0f} %"])


def loss(value: float | None) -> str:
    """A loss in few digits, ``-`` for none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def count(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
