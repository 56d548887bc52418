"""Buckets, with a clock that the test holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.net.limits import SourceLimits, TokenBucket


def test_a_burst_and_then_the_rate() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=0)
    assert [bucket.take(1, 0) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
    assert bucket.take(1, 1.5) == 0
    assert bucket.take(3, 100) == 0  # never more than a burst is saved up
    assert bucket.take(1, 100) == 0.5


def test_try_take_gives_no_credit() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=0)
    assert [bucket.try_take(1, now) for now in (0, 0.5, 0.9, 1.0)] == [True, False, False, True]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 10)), max_size=50))
def test_waiting_as_told_keeps_the_rate(messages: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(rate=2, burst=4, now=0)
    now = total = 0.0
    for pause, cost in messages:
        now += pause
        now += bucket.take(cost, now)
        total += cost
    assert total <= 4 + 2 * now + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=10)
    assert bucket.take(1, 10) == 0
    assert bucket.take(1, 5) == 1.0


def test_each_source_has_its_own_bucket_and_the_oldest_is_forgotten() -> None:
    limits = SourceLimits(rate=1, burst=2, capacity=2)
    assert [limits.allow("a", 0) for _ in range(3)] == [True, True, False]
    assert limits.allow("b", 0)
    assert not limits.allow("a", 0)
    assert limits.allow("c", 0)  # b was seen longest ago
    assert not limits.allow("a", 0)
    assert limits.allow("b", 0)


def test_what_was_taken_for_nothing_is_put_back() -> None:
    limits = SourceLimits(rate=1e-6, burst=2)
    bucket = limits.bucket("a", 0)
    assert bucket.try_take(1, 0)
    bucket.give_back(1)
    bucket.give_back(1)  # never more than the burst
    assert [limits.allow("a", 0) for _ in range(3)] == [True, True, False]
