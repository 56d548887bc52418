"""The hill climb over the number of connections."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.transports import widening
from sleap_rtc.transports.widening import MOST, Widening

MB = 1e6


def run(control, speed, *, windows, far=True):
    """How many there are after each window, where so many have this speed."""
    return [control.window(speed(control.wanted), far=far) for _ in range(windows)]


def test_a_line_that_gives_each_connection_its_share_gets_all():
    found = run(Widening(), lambda n: n * 0.5 * MB, windows=20)
    assert found[-1] == MOST
    assert found == sorted(found)


def test_where_more_are_no_faster_one_is_left_and_it_is_tried_ever_less():
    found = run(Widening(), lambda _: 40 * MB, windows=1000)
    assert set(found) == {1, 2}
    tries = [at for at, n in enumerate(found) if n == 2 and found[at - 1] == 1]
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 4 * gaps[0]
    assert found.count(2) < 50


@pytest.mark.parametrize("best", [1, 2, 4])
def test_it_stays_where_the_line_is_full(best):
    found = run(Widening(), lambda n: min(n, best) * MB, windows=60)
    assert max(found) == 2 * best
    assert found.count(best) > 40


def test_near_peers_keep_one():
    assert set(run(Widening(), lambda n: n * MB, windows=50, far=False)) == {1}


def test_a_short_pause_changes_nothing_and_a_long_one_all():
    control = Widening()
    run(control, lambda n: n * MB, windows=30)
    assert set(run(control, lambda _: 0.0, windows=5)) == {MOST}
    assert run(control, lambda _: 0.0, windows=5)[-1] == 1


def test_lost_connections_are_not_dialled_again_at_once():
    control = Widening()
    run(control, lambda n: n * MB, windows=30)
    control.lost()
    assert set(run(control, lambda n: n * MB, windows=10)) == {MOST // 2}
    for _ in range(9):
        control.lost()
    assert control.wanted == 1


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.booleans(), st.booleans()), min_size=1, max_size=300)
)
def test_whatever_happens_the_number_is_possible_and_moves_by_doubling(steps):
    control = Widening()
    before = control.wanted
    for rate, far, lost in steps:
        if lost:
            control.lost()
        wanted = control.window(rate, far=far)
        assert wanted == control.wanted
        assert 1 <= wanted <= MOST
        assert wanted <= 2 * before
        assert wanted & (wanted - 1) == 0
        before = wanted


@given(st.lists(st.floats(widening._LEAST, 1e9), max_size=100))
def test_it_grows_only_on_long_lines(rates):
    control = Widening()
    assert {control.window(rate, far=False) for rate in rates} <= {1}
