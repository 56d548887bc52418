from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.transfer.progress import Meter, Progress


def test_a_steady_rate_is_told_from_the_first_measurement() -> None:
    meter = Meter("receiving", done=500, total=10_500, now=100.0)
    for step in range(1, 20):
        told = meter.update(500 + step * 250, 100.0 + step * 0.25)
        assert told.rate == pytest.approx(1_000)
        assert told.eta_s == pytest.approx((10_000 - step * 250) / 1_000)
        assert told.phase == "receiving"


def test_what_was_there_before_is_progress_but_no_rate() -> None:
    told = Meter("receiving", done=900, total=1_000, now=0.0).update(900, 1.0)
    assert (told.done, told.percent, told.rate, told.eta_s) == (900, 90.0, 0.0, None)


def test_a_pause_brings_the_rate_down_and_it_recovers() -> None:
    meter = Meter("receiving", done=0, total=10**6, now=0.0)
    meter.update(1_000, 1.0)
    paused = meter.update(1_000, 11.0, phase="waiting")
    assert paused.phase == "waiting"
    assert paused.rate < 200
    assert meter.update(31_000, 41.0).rate == pytest.approx(1_000, rel=0.05)


def test_the_same_time_twice_counts_later() -> None:
    meter = Meter("receiving", done=0, total=100, now=5.0)
    assert meter.update(10, 5.0).rate == 0.0
    assert meter.update(20, 6.0).rate == pytest.approx(20)


def test_the_end() -> None:
    told = Meter("receiving", done=0, total=10, now=0.0).update(10, 2.0)
    assert (told.percent, told.eta_s) == (100.0, 0.0)
    assert Progress(phase="done", done=0, total=0).percent == 100.0


@given(st.lists(st.tuples(st.integers(-50, 100), st.floats(0, 100)), max_size=20))
def test_figures_stay_sane(steps: list[tuple[int, float]]) -> None:
    meter = Meter("receiving", done=0, total=1_000, now=0.0)
    done, now = 0, 0.0
    for more, elapsed in steps:
        done, now = max(0, done + more), now + elapsed
        told = meter.update(done, now)
        assert told.rate >= 0
        assert told.eta_s is None or told.eta_s >= 0
