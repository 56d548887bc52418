from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.transfer.rate import TokenBucket


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    bucket = TokenBucket(1_000, now=0.0)
    assert bucket.take(250, 0.0) == 0.0
    assert bucket.take(1_000, 0.0) == 1.0
    assert bucket.take(1_000, 0.0) == 2.0
    assert bucket.take(0, 2.0) == 0.0
    assert bucket.take(250, 100.0) == 0.0
    assert bucket.take(1, 100.0) == pytest.approx(0.001)


def test_given_back_it_can_be_taken_again() -> None:
    bucket = TokenBucket(100, now=0.0, burst=10)
    bucket.take(110, 0.0)
    bucket.give_back(110)
    assert bucket.take(10, 0.0) == 0.0
    bucket.give_back(1_000)
    assert bucket.take(20, 0.0) == pytest.approx(0.1)


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    bucket = TokenBucket(100, now=10.0, burst=0)
    assert bucket.take(100, 5.0) == 1.0
    assert bucket.take(0, 10.0) == 1.0


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_is_more_than_nothing(rate: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        TokenBucket(rate, now=0.0)


@given(
    st.floats(1, 1e9),
    st.lists(st.tuples(st.integers(0, 10**7), st.floats(0, 10)), min_size=1, max_size=30),
)
def test_no_schedule_beats_the_rate(rate: float, takes: list[tuple[int, float]]) -> None:
    bucket = TokenBucket(rate, now=0.0)
    now, moved = 0.0, 0
    for size, pause in takes:
        now += pause
        moved += size
        done_at = now + bucket.take(size, now)
        assert moved <= rate * (done_at + 0.25) * (1 + 1e-9) + 1e-3
