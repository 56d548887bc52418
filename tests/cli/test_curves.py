"""Curves fit where they are drawn, and go where the losses go."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sleap_rtc.cli.curves import Curve, draw, draw_together, letter
from sleap_rtc.cli.text import width_of

POINTS = st.dictionaries(
    st.integers(0, 10_000), st.floats(allow_nan=False, allow_infinity=False), max_size=40
).map(lambda found: Curve(sorted(found.items())))


def text(lines):
    return ["".join(cell.text for cell in line) for line in lines]


@example([Curve([(0, -1.7e308), (9, 1.7e308)])], 80, 8)
@example([Curve([(0, 5e-324), (9, 1.7e308)])], 80, 8)
@given(st.lists(POINTS, max_size=4), st.integers(0, 200), st.integers(2, 20))
def test_any_losses_fit_their_picture(curves, width, height):
    for lines in (
        draw(curves, width=width, height=height),
        draw_together(curves, width=width, height=height),
    ):
        if any(len(curve.points) > 1 for curve in curves):
            assert len(lines) == height + 2
            assert max(map(width_of, text(lines))) <= max(width, 24)
        else:
            assert lines == []


def falling(*, factor: float = 1.0) -> Curve:
    return Curve([(epoch, factor * math.exp(-epoch / 5)) for epoch in range(30)])


def test_a_falling_curve_falls():
    lines = text(draw([falling()], width=60, height=6))
    assert lines[0].startswith("       1 │⠉")
    assert "⠉" not in lines[0][30:]
    assert lines[5].endswith("⣄")
    assert lines[5].startswith("0.003028 │")
    assert lines[-1].split() == ["1", "epoch", "30"]


def test_a_dotted_curve_has_gaps():
    whole = text(draw([Curve([(0, 1.0), (9, 1.0)])], width=40, height=2))
    dotted = text(draw([Curve([(0, 1.0), (9, 1.0)], dotted=True)], width=40, height=2))
    assert "⣀⣀⣀" in whole[1]
    assert "⣀⣀⣀" not in dotted[1]
    assert dotted[1].count("⡀") > 5


def test_several_curves_have_letters_and_colours():
    lines = draw_together([falling(), Curve([]), falling(factor=2)], width=60, height=8)
    drawn = "".join(text(lines)[:8])
    assert "A" in drawn
    assert "B" not in drawn
    assert "C" in drawn
    styles = {cell.style for cell in lines[3] if "A" in cell.text}
    assert styles == {"good"}


def test_losses_that_are_not_all_positive_are_drawn_as_they_are():
    lines = text(draw([Curve([(0, -1.0), (10, 1.0)])], width=40, height=3))
    assert lines[0].strip().startswith("1 │")
    assert lines[2].strip().startswith("-1 │")


@pytest.mark.parametrize(("number", "told"), [(0, "A"), (25, "Z")])
def test_letters(number, told):
    assert letter(number) == told
