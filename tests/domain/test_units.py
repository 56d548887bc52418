from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.units import format_bytes, format_duration, format_rate


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 KB"),
        (1_000, "1.0 KB"),
        (1_550, "1.6 KB"),
        (9_949, "9.9 KB"),
        (9_950, "10 KB"),
        (999_499, "999 KB"),
        (999_500, "1.0 MB"),
        (1024 * 1024, "1.0 MB"),
        (12_400_000_000, "12 GB"),
        (5 * 10**21, "5000 EB"),
        (-1_500, "-1.5 KB"),
    ],
)
def test_sizes_have_at_most_three_digits(size: float, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(0, 10**20))
def test_a_size_reads_as_what_it_is(size: int) -> None:
    number, unit = format_bytes(size).split()
    value = float(number) * 1_000 ** ["B", "KB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert abs(value - size) <= 0.06 * size
    assert len(number.replace(".", "")) <= 3


def test_a_rate_is_a_size_a_second() -> None:
    assert format_rate(1_200_000) == "1.2 MB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3_599.7, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (86_400 * 2 + 3_600 * 4, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
