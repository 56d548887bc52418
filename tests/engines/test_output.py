from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.engines.output import MAX_LINE, Lines, clean


def _all(*parts: bytes) -> list[str]:
    lines = Lines()
    return [line for part in parts for line in lines.feed(part)] + list(lines.end())


def test_lines_are_cut_wherever_the_bytes_are() -> None:
    assert _all(b"one\ntw", b"o\r\nthr", b"ee") == ["one", "two", "three"]
    assert _all("é".encode()[:1], "é".encode()[1:] + b"\n") == ["é"]
    assert _all(b"a\r", b"\nb") == ["a", "b"]


def test_a_progress_bar_is_a_line_each_time_it_is_drawn() -> None:
    assert _all(b"\r 10%\r 20%\r\n") == [" 10%", " 20%"]


def test_escape_sequences_are_left_out() -> None:
    assert clean("\x1b[1;31mError\x1b[0m: \x1b]8;;x\x07link\x1b]8;;\x07\x00!") == "Error: link!"


def test_of_a_line_without_end_the_beginning_is_kept() -> None:
    (line,) = _all(*[b"x" * 100_000] * 20)
    assert len(line) == MAX_LINE
    assert line.endswith("…")


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_give_clean_lines(parts: list[bytes]) -> None:
    for line in _all(*parts):
        assert line
        assert len(line) <= MAX_LINE
        assert not any(ord(c) < 32 and c != "\t" for c in line)


@given(st.binary(max_size=80), st.integers(0, 80))
def test_where_it_is_cut_makes_no_difference(data: bytes, cut: int) -> None:
    assert _all(data[:cut], data[cut:]) == _all(data)
