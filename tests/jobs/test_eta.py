"""How long it will still take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.jobs.eta import begin, epoch_ended, frames_remaining, remaining, stepped


def test_nothing_is_said_without_knowing_anything() -> None:
    pace = begin(epochs=3, first_epoch=0, now=0.0)
    assert remaining(pace, now=10.0) is None
    assert remaining(begin(epochs=None, first_epoch=0, now=0.0), now=1.0) is None


def test_the_first_epoch_is_judged_by_its_steps_without_start_up() -> None:
    pace = begin(epochs=2, first_epoch=0, now=0.0)
    pace = stepped(pace, epoch=0, done=1, total=10, now=30.0)  # 30 s of imports
    assert remaining(pace, now=30.0) is None
    pace = stepped(pace, epoch=0, done=6, total=10, now=35.0)
    assert remaining(pace, now=35.0) == pytest.approx(4.0 + 10.0)


def test_whole_epochs_count_validation_too() -> None:
    pace = begin(epochs=4, first_epoch=0, now=0.0)
    pace, took = epoch_ended(pace, epoch=0, now=20.0)
    assert took == 20.0
    assert remaining(pace, now=20.0) == pytest.approx(60.0)
    pace = stepped(pace, epoch=1, done=5, total=10, now=25.0)
    assert remaining(pace, now=25.0) == pytest.approx(50.0)
    for epoch, now in ((1, 40.0), (2, 60.0), (3, 80.0)):
        pace, _ = epoch_ended(pace, epoch=epoch, now=now)
    assert remaining(pace, now=80.0) == 0.0


def test_newer_epochs_count_more() -> None:
    pace, _ = epoch_ended(begin(epochs=3, first_epoch=0, now=0.0), epoch=0, now=10.0)
    pace, took = epoch_ended(pace, epoch=1, now=40.0)
    assert took == 30.0
    assert remaining(pace, now=40.0) == pytest.approx(16.0)


def test_after_a_resume_the_epochs_done_before_are_not_counted() -> None:
    pace = begin(epochs=10, first_epoch=8, now=100.0)
    pace, _ = epoch_ended(pace, epoch=8, now=107.0)
    assert remaining(pace, now=107.0) == pytest.approx(7.0)


def test_an_epoch_that_begins_unannounced_starts_anew() -> None:
    pace = stepped(begin(epochs=5, first_epoch=0, now=0.0), epoch=3, done=1, total=2, now=9.0)
    assert (pace.epoch, pace.epoch_started) == (3, 9.0)
    assert stepped(pace, epoch=3, done=2, total=None, now=10.0) == pace


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 50), st.floats(0, 1e6), st.booleans()),
        max_size=40,
    )
)
def test_it_is_never_negative_or_not_a_number(steps: list[tuple[int, int, float, bool]]) -> None:
    pace, now = begin(epochs=20, first_epoch=0, now=0.0), 0.0
    for epoch, done, passed, ended in steps:
        now += passed
        if ended:
            pace, took = epoch_ended(pace, epoch=epoch, now=now)
            assert took >= 0
        else:
            pace = stepped(pace, epoch=epoch, done=done, total=40, now=now)
        left = remaining(pace, now=now)
        assert left is None or 0 <= left < float("inf")


def test_frames() -> None:
    assert frames_remaining(done=40, total=100, rate=20.0) == 3.0
    assert frames_remaining(done=101, total=100, rate=20.0) == 0.0
    for total, rate in ((None, 1.0), (10, None), (10, 0.0), (10, float("nan"))):
        assert frames_remaining(done=1, total=total, rate=rate) is None
