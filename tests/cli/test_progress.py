"""Nobody waits silently for more than a second, and nobody is told of less."""

from __future__ import annotations

import pytest

from sleap_rtc.cli.progress import Progress


@pytest.fixture
def told(make_output, clock):
    """What was said, and the progress that says it."""
    out = make_output(clock=clock)
    return out.stderr, lambda form=None: Progress(out, "saving", form, clock=clock)


def test_what_takes_less_than_a_second_is_not_told(told, clock):
    stderr, make = told
    progress = make()
    for done in range(10):
        progress(done, 10)
        clock.now += 0.09
    progress(10, 10)
    assert stderr.getvalue() == ""


def test_how_far_it_is_and_how_long_it_may_take(told, clock):
    stderr, make = told
    progress = make(lambda number: f"{number:,} models")
    progress(0, 4_000)
    clock.now += 2
    progress(1_000, 4_000)
    assert stderr.getvalue() == "saving: 1,000 models of 4,000 models, 6.0 s left\n"


def test_steps_that_say_nothing_to_people_are_a_share(told, clock):
    stderr, make = told
    progress = make()
    progress(0, 3)
    clock.now += 2
    progress(0, 3)
    clock.now += 1
    progress(1, 3)
    assert stderr.getvalue() == "saving: 0 %\nsaving: 33 %, 6.0 s left\n"


def test_it_may_begin_again(told, clock):
    stderr, make = told
    progress = make()
    progress(0, 2)
    clock.now += 5
    progress(2, 2)
    progress(0, 2)
    clock.now += 0.5
    progress(1, 2)
    progress(2, 2)
    progress(3, 3)
    assert stderr.getvalue() == ""
