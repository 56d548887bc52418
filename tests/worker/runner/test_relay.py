"""From engine events to job events."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.places import Load
from sleap_rtc.engines.base import Began, CheckpointWritten, EpochDone, Said, Stepped
from sleap_rtc.jobs.events import EpochEnded, Logged, Progress, StageStarted
from sleap_rtc.worker.runner.relay import BURST, PROGRESS_S, ActiveClock, LineBudget, Relay

STARTED = StageStarted(stage=1, stages=2, name="run", epochs=10)


def relay() -> Relay:
    return Relay(STARTED, now=0.0)


def test_what_was_announced_is_not_told_again() -> None:
    assert relay().take(Began(epochs=10), now=1.0) == []
    (again,) = relay().take(Began(epochs=10, first_epoch=4), now=1.0)
    assert again == StageStarted(stage=1, stages=2, name="run", epochs=10, first_epoch=4)


def test_a_step_that_is_held_back_is_told_by_the_clock() -> None:
    made = relay()
    assert len(made.take(Stepped(done=1, epoch=0, total=9), now=1.0)) == 1
    assert made.take(Stepped(done=2, epoch=0, total=9), now=1.1) == []
    assert made.take(Stepped(done=3, epoch=0, total=9), now=1.2) == []
    assert made.tick(now=1.24) == []
    (told,) = made.tick(now=1.25)
    assert isinstance(told, Progress)
    assert told.done == 3
    assert made.tick(now=9.0) == []


def test_steps_of_an_epoch_that_is_over_are_history() -> None:
    made = relay()
    made.take(Stepped(done=1, epoch=0), now=1.0)
    made.take(Stepped(done=2, epoch=0), now=1.1)
    (ended,) = made.take(EpochDone(epoch=0, train_loss=0.5, val_loss=float("nan")), now=1.2)
    assert ended == EpochEnded(
        stage=1, epoch=0, train_loss=0.5, val_loss=None, duration_s=1.2, eta_s=pytest.approx(10.8)
    )
    assert made.tick(now=5.0) == []
    assert made.finish(now=5.0) == []


def test_the_last_frame_is_told() -> None:
    made = relay()
    made.take(Stepped(done=1, total=9, rate=3.0), now=1.0)
    made.take(Stepped(done=9, total=9, rate=3.0), now=1.1)
    (told,) = made.finish(now=1.1)
    assert (told.done, told.eta_s) == (9, 0.0)  # type: ignore[union-attr]


def test_numbers_that_are_none_are_left_out() -> None:
    (told,) = relay().take(Stepped(done=1, epoch=0, loss=float("inf"), rate=float("nan")), now=1.0)
    assert (told.loss, told.rate) == (None, None)  # type: ignore[union-attr]
    assert relay().take(CheckpointWritten(epochs=1), now=1.0) == []


def test_how_busy_the_machine_is_goes_with_progress() -> None:
    made = relay()
    (before,) = made.take(Stepped(done=1, epoch=0), now=1.0)
    made.load = Load(cpu=40.0, gpu=87.0, gpu_memory=5)
    (after,) = made.take(Stepped(done=2, epoch=0), now=2.0)
    assert (before.load, after.load) == (None, made.load)  # type: ignore[union-attr]


def test_lines_are_limited_and_the_rest_is_counted() -> None:
    budget = LineBudget(now=0.0)
    told = [body for n in range(BURST + 50) for body in budget.take(f"line {n}", now=0.0)]
    assert len(told) == BURST
    assert budget.take("later", now=1.0) == [
        Logged(line="… 50 lines left out"),
        Logged(line="later"),
    ]
    assert budget.take("x" * 5000, now=2.0) == [Logged(line="x" * 4000)]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.3),
            st.one_of(
                st.builds(Stepped, done=st.integers(0, 9), epoch=st.integers(0, 3)),
                st.builds(EpochDone, epoch=st.integers(0, 3)),
                st.builds(Said, line=st.text(max_size=5)),
            ),
        ),
        max_size=60,
    )
)
def test_at_most_four_a_second_and_every_epoch(happened: list[tuple[float, Any]]) -> None:
    made, now, told, epochs = relay(), 0.0, [], 0
    for passed, event in happened:
        now += passed
        for body in [*made.tick(now=now), *made.take(event, now=now)]:
            if isinstance(body, Progress):
                told.append(now)
            epochs += isinstance(body, EpochEnded)
    assert all(b - a >= PROGRESS_S - 1e-9 for a, b in itertools.pairwise(told))
    assert epochs == sum(isinstance(event, EpochDone) for _, event in happened)


def test_pauses_do_not_count() -> None:
    clock = ActiveClock(now=10.0)
    assert clock.read(now=12.0) == 2.0
    clock.pause(now=12.0)
    clock.pause(now=14.0)
    assert clock.read(now=20.0) == 2.0
    clock.resume(now=20.0)
    clock.resume(now=25.0)
    assert clock.read(now=21.0) == 3.0
