"""The hill climb over the number of connections."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.transports import widening
from sleap_rtc.transports.widening import MOST, STEPS, WINDOW_S, Widening, is_crowded, is_far

MB = 1e6


def run(control, speed, *, windows, far=True):
    """How many there are after each window, where so many have this speed and open at once."""
    return [
        control.window(speed(control.wanted), far=far, ready=control.wanted) for _ in range(windows)
    ]


def test_a_line_that_gives_each_connection_its_share_gets_all_within_ten_seconds():
    found = run(Widening(), lambda n: n * 0.5 * MB, windows=int(10 / WINDOW_S))
    assert found[-1] == MOST
    assert found == sorted(found)
    assert tuple(sorted(set(found))) == STEPS


def test_what_is_clearly_worth_it_takes_two_windows_each():
    found = run(Widening(), lambda n: n * MB, windows=6)
    assert found == [1, 4, 4, 8, 8, 16]


def test_one_quick_window_is_not_clear():
    rates = iter([1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0])
    assert run(Widening(), lambda _: next(rates) * MB, windows=7) == [1, *[4] * 5, 1]


def test_connections_are_not_judged_before_they_are_open_and_have_found_their_speed():
    """Each needs some windows to open, and begins slowly."""
    control, born = Widening(), [0]
    found = []
    for now in range(60):
        speed = sum(min(1.0, max(0, now - at - 2) / 3) for at in born) * MB
        ready = sum(now - at > 2 for at in born)
        wanted = control.window(speed, far=True, ready=ready)
        born += [now] * (wanted - len(born))
        del born[wanted:]
        found.append(wanted)
    assert found == sorted(found)
    assert found[-1] == MOST


def test_losses_that_make_the_speed_uneven_are_seen_through():
    chance = random.Random(1)
    reached = 0
    for _ in range(100):
        control = Widening()
        found = run(control, lambda n: n * MB * chance.uniform(0.6, 1.4), windows=60)
        reached += found[-1] == MOST
    assert reached >= 95


def test_where_more_are_no_faster_one_is_left_and_it_is_tried_ever_less():
    found = run(Widening(), lambda _: 40 * MB, windows=2000)
    assert set(found) == set(STEPS[:2])
    tries = [at for at, n in enumerate(found) if n > 1 and found[at - 1] == 1]
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 4 * gaps[0]
    assert len(found) - found.count(1) < 80


@pytest.mark.parametrize(("best", "tried"), list(itertools.pairwise(STEPS)))
def test_it_stays_where_the_line_is_full(best, tried):
    found = run(Widening(), lambda n: min(n, best) * MB, windows=120)
    assert max(found) == tried
    assert found.count(best) > 60


def test_near_peers_keep_one():
    assert set(run(Widening(), lambda n: n * MB, windows=50, far=False)) == {1}


def test_a_short_pause_changes_nothing_and_a_long_one_all():
    control = Widening()
    run(control, lambda n: n * MB, windows=30)
    assert set(run(control, lambda _: 0.0, windows=10)) == {MOST}
    assert run(control, lambda _: 0.0, windows=10)[-1] == 1


def test_connections_that_never_open_are_given_up():
    control = Widening()
    found = [control.window(MB, far=True, ready=1) for _ in range(100)]
    assert set(found) == set(STEPS[:2])
    first = found.index(STEPS[1])
    assert 1 in found[first : first + widening._OPEN_WITHIN + 1]


def test_lost_connections_are_not_dialled_again_at_once():
    control = Widening()
    run(control, lambda n: n * MB, windows=30)
    control.lost()
    assert set(run(control, lambda n: n * MB, windows=10)) == {STEPS[-2]}
    for _ in range(9):
        control.lost()
    assert control.wanted == 1


@given(
    st.lists(
        st.tuples(st.floats(0, 1e9), st.booleans(), st.booleans(), st.integers(0, MOST)),
        min_size=1,
        max_size=300,
    )
)
def test_whatever_happens_the_number_is_possible_and_moves_by_a_step(steps):
    control = Widening()
    before = control.wanted
    for rate, far, lost, ready in steps:
        if lost:
            control.lost()
        wanted = control.window(rate, far=far, ready=ready)
        assert wanted == control.wanted
        assert STEPS.index(wanted) <= STEPS.index(before) + 1
        before = wanted


def test_no_step_is_taken_while_packets_wait_before_the_line():
    control = Widening()
    for _ in range(20):
        assert control.window(MB, far=True, ready=1, crowded=True) == 1
    assert control.window(MB, far=True, ready=1) == 4


@pytest.mark.parametrize(
    ("rate", "ready"),
    [(1.05 * MB, 4), (4 * MB, 3)],
    ids=["hardly faster", "not all are there, so it is another's doing"],
)
def test_a_step_after_which_packets_wait_is_taken_back_and_tried_again_later(rate, ready):
    control = Widening()
    run(control, lambda _: MB, windows=2)
    assert control.wanted == 4
    assert control.window(rate, far=True, ready=ready, crowded=True) == 1
    assert [control.window(MB, far=True, ready=1) for _ in range(widening._SHORT_HOLD)] == [
        *[1] * (widening._SHORT_HOLD - 1),
        4,
    ]


def test_a_step_that_fills_the_line_is_kept_if_it_brings_more():
    control = Widening()
    run(control, lambda _: MB, windows=2)
    assert control.window(1.2 * MB, far=True, ready=4, crowded=True) == 4
    for _ in range(30):
        assert control.window(1.2 * MB, far=True, ready=4, crowded=True) == 4


@pytest.mark.parametrize(
    ("quickest_s", "recent_s", "far", "crowded"),
    [
        (None, None, False, False),
        (None, 0.5, False, False),
        (0.001, None, False, False),
        (0.04, 0.041, True, False),
        (0.04, 0.05, True, False),  # as over Wi-Fi
        (0.04, 0.053, True, True),
        (0.01, 0.017, True, True),
        (0.001, 0.003, False, False),
        (0.001, 0.006, False, True),
    ],
)
def test_what_round_trips_tell(quickest_s, recent_s, far, crowded):
    assert is_far(quickest_s) is far
    assert is_crowded(quickest_s, recent_s) is crowded


@given(st.lists(st.floats(widening._LEAST, 1e9), max_size=100))
def test_it_grows_only_on_long_lines(rates):
    control = Widening()
    assert {control.window(rate, far=False, ready=1) for rate in rates} <= {1}
