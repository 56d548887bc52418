from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.cli import text
from sleap_rtc.cli.text import Cell, Column

TEXT = st.text(max_size=60)


@given(TEXT)
def test_clean_text_steers_nothing(raw: str) -> None:
    found = text.clean(raw)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in found)
    assert "\u202e" not in found


def test_clean_leaves_other_scripts_alone() -> None:
    assert text.clean("Müße 日本 \tx\x1b[31m\n\u202eevil") == "Müße 日本  x?[31m ?evil"


@given(TEXT.map(text.clean), st.integers(0, 80))
def test_cut_fits_and_leaves_short_text_alone(raw: str, width: int) -> None:
    found = text.cut(raw, width)
    assert text.width_of(found) <= width
    if text.width_of(raw) <= width:
        assert found == raw


def test_cut_keeps_both_ends() -> None:
    assert text.cut("centered_instance", 9) == "cent…ance"
    assert text.cut("日本語テキスト", 7) == "日…ト"
    assert text.cut("abc", 1) == "…"
    assert text.cut("abc", 0) == ""


def test_width_counts_columns() -> None:
    assert text.width_of("abc") == 3
    assert text.width_of("日本") == 4
    assert text.width_of("e\u0301") == 1


@given(
    st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=6),
    st.integers(40, 200),
)
def test_tables_fit_their_width(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = [Column("one"), Column("two", right=True), Column("three")]
    lines = text.lay_out(columns, [[Cell(each) for each in row] for row in rows], width)
    assert len(lines) == len(rows) + 1
    widths = {text.width_of("  ".join(cell.text for cell in line)) for line in lines}
    assert len(widths) == 1
    assert widths.pop() <= width


def test_the_widest_column_gives_way_and_whole_ones_never_do() -> None:
    columns = [Column("name", least=10), Column("id", whole=True), Column("where")]
    row = [Cell("a" * 40), Cell("0123456789" * 2), Cell("b" * 12)]
    cells = text.lay_out(columns, [row], 50)[1]
    assert cells[1].text == "0123456789" * 2
    assert "…" in cells[0].text
    assert cells[2].text.strip() == "b" * 12


def test_numbers_stand_at_the_right_and_lines_have_no_blanks_at_their_end() -> None:
    columns = [Column("n", right=True), Column("x")]
    head, line = text.lay_out(columns, [[Cell("7"), Cell("")]], 80)
    assert line[0].text == "7"
    painted = text.joined(head, lambda word, style: f"<{style}>{word}")
    assert painted == "<heading>n  <heading>x"
    assert text.joined(line, lambda word, _: word) == "7"


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "╌╌╌╌"), (0.5, "━━╌╌"), (1, "━━━━"), (7, "━━━━"), (-1, "╌╌╌╌")]
)
def test_bars(share: float, shown: str) -> None:
    assert text.bar(share, 4) == shown


def test_sparklines_fall_with_the_losses() -> None:
    assert text.sparkline([1.0, 0.1, 0.01], 10) == "█▅▁"
    assert text.sparkline([3.0, None, float("nan"), 1.0], 10) == "█▁"
    assert text.sparkline([-1.0, 0.0], 10) == "▁█"
    assert text.sparkline([2.0, 2.0], 10) == "▁▁"
    assert text.sparkline([1.0], 10) == ""


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none()), st.integers(0, 20))
def test_sparklines_fit(values: list[float | None], width: int) -> None:
    assert len(text.sparkline(values, width)) <= width


def test_small_words() -> None:
    assert text.loss(None) == text.loss(float("inf")) == "-"
    assert text.loss(0.00123456) == "0.001235"
    assert text.count(1, "file") == "1 file"
    assert text.count(2, "file") == "2 files"
    assert text.count(1_000, "entry", "entries") == "1,000 entries"


def test_a_column_that_is_last_gives_way_when_the_others_have() -> None:
    columns = [Column("a", least=4, last=True), Column("b", least=3)]
    row = [Cell("1234567890"), Cell("abcdefghij")]
    wide = [[cell.text for cell in line] for line in text.lay_out(columns, [row], 16)]
    assert wide[1] == ["1234567890", "ab…j"]
    narrow = [[cell.text for cell in line] for line in text.lay_out(columns, [row], 11)]
    assert narrow[1] == ["123…90", "a…j"]


@pytest.mark.parametrize(
    ("typed", "start", "length", "width", "lines"),
    [
        ("fly typ:x", 4, 3, 40, ("fly typ:x", "    ^^^")),
        ("", 0, 1, 40, ("", "^")),
        ("fly", 3, 1, 40, ("fly", "   ^")),
        ("日本 x", 3, 1, 40, ("日本 x", "     ^")),
        ("日本", 0, 2, 40, ("日本", "^^^^")),
        ("a\tb", 2, 1, 40, ("a b", "  ^")),
        ("a" * 50 + "!" + "b" * 50, 50, 1, 20, ("…aaaaaaaaaaa!bbbbbb…", " " * 12 + "^")),
    ],
)
def test_a_part_is_pointed_at(typed, start, length, width, lines) -> None:
    assert text.point_at(typed, start, length, width) == lines


@given(TEXT, st.integers(0, 70), st.integers(1, 70), st.integers(8, 80))
def test_what_points_fits_the_width(typed: str, start: int, length: int, width: int) -> None:
    first, marks = text.point_at(typed, min(start, len(typed)), length, width)
    assert text.width_of(first) <= width
    assert text.width_of(marks) <= width + 1
    assert set(marks.strip()) == {"^"}


def test_spare_columns_are_left_out_where_there_is_no_room_the_last_one_first():
    columns = [text.Column("name"), text.Column("a", spare=True), text.Column("b", spare=True)]
    rows = [[text.Cell("x" * 10), text.Cell("first"), text.Cell("second")]]

    def shown(width):
        return [cell.text.strip() for cell in text.lay_out(columns, rows, width)[1]]

    assert shown(25) == ["x" * 10, "first", "second"]
    assert shown(24) == ["x" * 10, "first"]
    assert shown(16) == ["x" * 10]
    assert len(shown(9)[0]) == 9
