"""Ranges and conditions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.server.ranges import (
    Changed,
    NotModified,
    Piece,
    Unsatisfiable,
    Wanted,
    Whole,
    wanted,
)


def ask(ranges: str = "", *, match: str = "", none: str = "", size: int = 100) -> Wanted:
    return wanted(size=size, etag="abc", if_match=match, if_none_match=none, ranges=ranges)


@pytest.mark.parametrize(
    ("ranges", "found"),
    [
        ("", Whole()),
        ("bytes=0-", Piece(start=0, end=100)),
        ("bytes=10-19", Piece(start=10, end=20)),
        ("Bytes = 10 - 19", Piece(start=10, end=20)),
        ("bytes=99-99", Piece(start=99, end=100)),
        ("bytes=90-1000", Piece(start=90, end=100)),
        ("bytes=-10", Piece(start=90, end=100)),
        ("bytes=-1000", Piece(start=0, end=100)),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=100-", Unsatisfiable()),
        ("bytes=9999999999999999999-", Unsatisfiable()),
        ("bytes=20-10", Whole()),
        ("bytes=-", Whole()),
        ("bytes=0-1,5-6", Whole()),
        ("rows=0-1", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=" + "9" * 50 + "-", Whole()),
    ],
)
def test_ranges(ranges: str, found: Wanted) -> None:
    assert ask(ranges) == found


def test_nothing_of_nothing() -> None:
    assert ask("bytes=0-", size=0) == Unsatisfiable()
    assert ask("bytes=-5", size=0) == Unsatisfiable()
    assert ask(size=0) == Whole()


@pytest.mark.parametrize("tag", ['"abc"', "abc", '"x", "abc"', "*", 'W/"abc"'])
def test_the_right_mark(tag: str) -> None:
    assert ask("bytes=0-0", match=tag) == Piece(start=0, end=1)
    assert ask("bytes=0-0", none=tag) == NotModified()


@pytest.mark.parametrize("tag", ['"abd"', '""', '"x", "y"', "ab"])
def test_another_mark(tag: str) -> None:
    assert ask("bytes=0-0", match=tag) == Changed()
    assert ask("bytes=0-0", none=tag) == Piece(start=0, end=1)


@given(st.integers(0, 2**62), st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_asked(size: int, ranges: str, match: str, none: str) -> None:
    for each in (ranges, f"bytes={ranges}"):
        found = ask(each, match=match, none=none, size=size)
        if isinstance(found, Piece):
            assert 0 <= found.start < found.end <= size
