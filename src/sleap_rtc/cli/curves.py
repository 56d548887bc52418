"""Curves of losses, drawn with characters; pure functions.

One model's, in dots of a quarter of a character (the training loss dotted)::

    0.21 │⡇
         │⢣⡀
         │ ⠑⢄⣀
    0.01 │    ⠉⠒⠤⠤⣀⣀
         └──────────
          1        50

Several models' share a picture, each with a letter of its own, which needs no
colours. Losses are drawn by their logarithm where all are positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from sleap_rtc.cli.text import Cell, loss, pad

MIN_WIDTH: Final = 24
STYLES: Final = ("good", "warning", "bad", "name")
_MOST: Final = 1e300
"""Losses are drawn up to here, so that differences of them are numbers."""
_BRAILLE: Final = 0x2800
# Dots of a braille character, by row and column.
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


class Curve(NamedTuple):
    """A curve to draw.

    Attributes:
        points: Epoch, counted from 0, and loss; in the order of epochs, all finite.
        dotted: Whether it is drawn with gaps.
    """

    points: Sequence[tuple[int, float]]
    dotted: bool = False


class _Scale(NamedTuple):
    first: int
    last: int
    low: float
    high: float
    logarithmic: bool

    def share(self, value: float) -> float:
        """How high a loss is: 0 at the bottom, 1 at the top."""
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return (value - low) / (high - low) if high > low else 0.0


def draw(curves: Sequence[Curve], *, width: int, height: int) -> list[list[Cell]]:
    """A model's curves, as lines of cells.

    Args:
        curves: One or more; those with fewer than 2 points are left out.
        width: Columns of the whole picture; at least 24 are used.
        height: Lines of the curve itself.

    Returns:
        The lines; none where there is nothing to draw.
    """
    shown = [curve for curve in curves if len(curve.points) > 1]
    if not shown:
        return []
    scale = _scale(shown)
    labels = _labels(scale)
    columns = max(width, MIN_WIDTH) - len(labels[0]) - 2
    rows = [[0] * columns for _ in range(height)]
    for curve in shown:
        above = None
        for x, value in enumerate(_sampled(curve.points, scale, 2 * columns)):
            if value is None or (curve.dotted and x % 3):
                above = None
                continue
            y = round((1 - scale.share(value)) * (4 * height - 1))
            start = y if above is None else above
            for each in range(min(start, y), max(start, y) + 1):
                rows[each // 4][x // 2] |= _DOTS[each % 4][x % 2]
            above = y
    lines = ["".join(chr(_BRAILLE + dots) if dots else " " for dots in row) for row in rows]
    return _framed(lines, labels, scale, columns, lambda text: [Cell(text)])


def draw_together(curves: Sequence[Curve], *, width: int, height: int) -> list[list[Cell]]:
    """Several models' curves in one picture, the first drawn with ``A``.

    Where two meet, the one that comes first is seen.

    Args:
        curves: Up to 26; those with fewer than 2 points keep their letter and are left out.
        width: Columns of the whole picture; at least 24 are used.
        height: Lines of the curves themselves.
    """
    shown = [curve for curve in curves if len(curve.points) > 1]
    if not shown:
        return []
    scale = _scale(shown)
    labels = _labels(scale)
    columns = max(width, MIN_WIDTH) - len(labels[0]) - 2
    rows = [[" "] * columns for _ in range(height)]
    for number, curve in reversed(list(enumerate(curves))):
        if len(curve.points) < 2:
            continue
        for x, value in enumerate(_sampled(curve.points, scale, columns)):
            if value is not None:
                rows[round((1 - scale.share(value)) * (height - 1))][x] = letter(number)
    return _framed(["".join(row) for row in rows], labels, scale, columns, _lettered)


def letter(number: int) -> str:
    """What a model is drawn with, from ``A``."""
    return chr(ord("A") + number % 26)


def style(number: int) -> str:
    """A curve's colour."""
    return STYLES[number % len(STYLES)]


def _lettered(line: str) -> list[Cell]:
    """A line with each letter in its colour."""
    cells: list[Cell] = []
    for char in line:
        painted = "" if char == " " else style(ord(char) - ord("A"))
        if cells and cells[-1].style == painted:
            cells[-1] = Cell(cells[-1].text + char, painted)
        else:
            cells.append(Cell(char, painted))
    return cells


def _scale(curves: Sequence[Curve]) -> _Scale:
    epochs = [epoch for curve in curves for epoch, _ in curve.points]
    values = [value for curve in curves for _, value in curve.points]
    low, high = max(min(values), -_MOST), min(max(values), _MOST)
    return _Scale(min(epochs), max(epochs), low, high, low > 0)


def _labels(scale: _Scale) -> tuple[str, str]:
    high, low = loss(scale.high), loss(scale.low)
    width = max(len(high), len(low))
    return pad(high, width, right=True), pad(low, width, right=True)


def _sampled(
    points: Sequence[tuple[int, float]], scale: _Scale, columns: int
) -> list[float | None]:
    """The loss in each column: the mean of its epochs, or between those beside it."""
    span = max(scale.last - scale.first, 1)
    places = [
        ((epoch - scale.first) * (columns - 1) / span, min(max(value, scale.low), scale.high))
        for epoch, value in points
    ]
    bins: dict[int, list[float]] = {}
    for place, value in places:
        bins.setdefault(round(place), []).append(value)
    found: list[float | None] = [None] * columns
    known = sorted((column, sum(values) / len(values)) for column, values in bins.items())
    for (left, first), (right, second) in pairwise(known):
        for column in range(left, right):
            share = (column - left) / (right - left)
            found[column] = first + (second - first) * share
    found[known[-1][0]] = known[-1][1]
    return found


def _framed(
    lines: Sequence[str],
    labels: tuple[str, str],
    scale: _Scale,
    columns: int,
    cells: Callable[[str], list[Cell]],
) -> list[list[Cell]]:
    """The lines with both axes; epochs are counted from 1, as people do."""
    wide = len(labels[0])
    framed = []
    for number, line in enumerate(lines):
        label = labels[0] if number == 0 else labels[1] if number == len(lines) - 1 else " " * wide
        framed.append([Cell(f"{label} │", "dim"), *cells(line)])
    framed.append([Cell(" " * wide + " └" + "─" * columns, "dim")])
    first, last = str(scale.first + 1), str(scale.last + 1)
    room = max(columns - len(first) - len(last), 0)
    between = "epoch".center(room) if room > len("epoch") + 1 else " " * room
    framed.append([Cell(" " * (wide + 2) + first + between + last, "dim")])
    return framed
