"""Waits between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.net.backoff import BASE, CAP, delay


def test_bounds_double_up_to_a_cap() -> None:
    assert [delay(n, 1.0) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_full_jitter(attempt: int, chance: float) -> None:
    assert 0 <= delay(attempt, chance) <= CAP
    assert delay(attempt, 0.0) == 0
    assert delay(1, chance) <= BASE
