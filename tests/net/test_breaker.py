"""The circuit breaker, as a table and through whole histories."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.net.breaker import (
    OPEN_S,
    THRESHOLD,
    TRANSITIONS,
    Asked,
    Breakers,
    Closed,
    Event,
    Failed,
    Go,
    HalfOpen,
    Open,
    State,
    Succeeded,
    Wait,
    step,
)


def test_the_table_has_every_pair() -> None:
    assert set(TRANSITIONS) == set(itertools.product(get_args(State), get_args(Event)))


def test_three_failures_in_a_row_open_it() -> None:
    state: State = Closed()
    for event in (Failed(now=0), Failed(now=1), Succeeded(now=2), Failed(now=3), Failed(now=4)):
        state, _ = step(state, event)
    assert state == Closed(failures=2)
    state, _ = step(state, Failed(now=5))
    assert state == Open(until=5 + OPEN_S)


def test_one_tries_when_the_time_is_over() -> None:
    state: State = Open(until=60)
    assert step(state, Asked(now=59))[1] == Wait(seconds=1)
    state, verdict = step(state, Asked(now=60))
    assert (state, verdict) == (HalfOpen(until=120), Go())
    assert step(state, Asked(now=61))[1] == Wait(seconds=59)
    assert step(state, Asked(now=120))[1] == Go()  # nothing was heard of the first one
    assert step(state, Succeeded(now=62))[0] == Closed()
    assert step(state, Failed(now=62))[0] == Open(until=122)


def test_late_answers_do_not_change_an_open_one() -> None:
    for event in (Succeeded(now=1), Failed(now=1)):
        assert step(Open(until=60), event)[0] == Open(until=60)


EVENTS = st.lists(
    st.tuples(st.sampled_from([Asked, Succeeded, Failed]), st.floats(0, 100)), max_size=60
)


@given(EVENTS)
def test_whatever_happens(history: list[tuple[type[Event], float]]) -> None:
    state: State = Closed()
    now = 0.0
    in_a_row = 0
    for kind, later in history:
        now += later
        before = state
        state, verdict = step(state, kind(now=now))
        in_a_row = 0 if kind is Succeeded else in_a_row + (kind is Failed)
        if isinstance(state, Open):
            assert not isinstance(before, Closed) or in_a_row >= THRESHOLD
            assert state.until <= now + OPEN_S
        if isinstance(state, Closed):
            assert state.failures < THRESHOLD
            assert verdict == Go()
        if isinstance(verdict, Wait):
            assert 0 < verdict.seconds <= OPEN_S
            assert kind is Asked
    # It never stays shut: after the longest wait somebody may try.
    assert step(state, Asked(now=now + OPEN_S))[1] == Go()


def test_each_host_has_its_own_and_old_ones_are_forgotten() -> None:
    breakers = Breakers(capacity=2)
    for _ in range(THRESHOLD):
        breakers.tell("a", Failed(now=0))
    assert isinstance(breakers.tell("a", Asked(now=1)), Wait)
    assert breakers.is_open("a", 1)
    assert not breakers.is_open("a", 61)
    assert not breakers.is_open("b", 1)
    assert breakers.tell("b", Asked(now=1)) == Go()
    assert breakers.tell("c", Asked(now=1)) == Go()
    assert breakers.tell("a", Asked(now=1)) == Go()


@pytest.mark.parametrize("state", [Closed(), Open(until=1), HalfOpen(until=1)])
def test_states_are_values(state: State) -> None:
    assert hash(state) == hash(
        type(state)(**{f: getattr(state, f) for f in state.__struct_fields__})
    )
