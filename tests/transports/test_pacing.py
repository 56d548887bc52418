"""The bound on what a connection has on its way, on made lines."""

from __future__ import annotations

import math
from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.transports import pacing
from sleap_rtc.transports.pacing import (
    CLIMB,
    CRAWL,
    CRAWL_S,
    FIRST,
    IN_VAIN,
    LATER_S,
    NEAR_S,
    WORTH,
    Look,
    Pace,
    Replacing,
)

STEP_S = 0.002
PACKET = 1_200


class MadeLine:
    """A line with a rate and a queue; what finds the queue full is lost, and sent again.

    As with SCTP more is sent as something arrives: two packets for each that did.
    """

    def __init__(self, *, rate, round_trip_s, queue=math.inf):
        self.rate, self.round_trip_s, self.queue = rate, round_trip_s, queue
        self.window = 48.0 * PACKET
        self.now = 0.0
        self.queued = self.arrived = self.on_line = self.lost = 0.0
        self.packets = self.again = 0
        self._under_way: deque[tuple[float, float]] = deque()

    @property
    def waiting(self):
        return self.queued + self.on_line

    def step(self, limit, *, wants=math.inf):
        """One moment of a sender that always has something, up to the limit."""
        self.now += STEP_S
        more = max(0.0, min(limit, self.window, wants) - self.waiting)
        self.packets += round(more / PACKET)
        self.queued += more
        over = max(0.0, self.queued - self.queue)
        self.queued -= over
        self.lost += over
        self.again += round(over / PACKET)
        passed = min(self.queued, self.rate * STEP_S)
        self.queued -= passed
        self.on_line += passed
        self._under_way.append((self.now + self.round_trip_s, passed))
        while self._under_way and self._under_way[0][0] <= self.now:
            size = self._under_way.popleft()[1]
            self.on_line -= size
            self.arrived += size
            self.window += size

    def look(self):
        return Look(
            at=self.now,
            arrived=int(self.arrived),
            waiting=int(self.waiting),
            round_trip_s=self.round_trip_s + self.queued / self.rate,
            window=10 * CRAWL,
            packets=self.packets,
            again=self.again,
        )


class Bursty(MadeLine):
    """One that is heard of in bursts: every other round nothing, and then of both."""

    _told = 0.0

    def look(self):
        seen = super().look()
        if (self.now // self.round_trip_s) % 2:
            self._told = seen.arrived
        held_back = seen.arrived - int(self._told)
        return msgspec.structs.replace(
            seen, arrived=int(self._told), waiting=seen.waiting + held_back
        )


def run(pace, line, *, seconds, wants=math.inf):
    """Send for so long; the most that was allowed to be on its way in the last half."""
    pace.look(line.look())  # the handshakes had the line for themselves
    end, most, next_look = line.now + seconds, 0.0, line.now
    half = line.now + seconds / 2
    while line.now < end:
        line.step(pace.limit, wants=wants)
        if line.now >= next_look:
            pace.look(line.look())
            next_look = line.now + pace.every_s
        if line.now > half:
            most = max(most, pace.limit)
    return most


@pytest.mark.parametrize("rate", [1e6, 12.5e6, 50e6])
@pytest.mark.parametrize("round_trip_s", [0.005, 0.04, 0.2])
def test_a_line_is_filled_within_three_seconds_and_not_overfilled(rate, round_trip_s):
    pace, line = Pace(), MadeLine(rate=rate, round_trip_s=round_trip_s)
    run(pace, line, seconds=3.0 + 10 * round_trip_s)
    before = line.arrived
    most = run(pace, line, seconds=2.0)
    assert line.arrived - before >= 0.95 * rate * 2.0
    held = rate * round_trip_s
    assert most <= 2.5 * held + rate * 0.03 + FIRST


@pytest.mark.parametrize("rate", [1e6, 12.5e6, 50e6])
def test_what_comes_in_bursts_is_not_taken_for_a_line_of_twice_the_rate(rate):
    pace, line = Pace(), Bursty(rate=rate, round_trip_s=0.04)
    most = run(pace, line, seconds=4.0)
    assert most <= FIRST + 1.5 * rate * (CLIMB * line.round_trip_s + LATER_S)


def test_a_queue_that_ran_over_is_not_filled_again_soon():
    line = MadeLine(rate=12.5e6, round_trip_s=0.04, queue=200_000)
    pace = Pace()
    run(pace, line, seconds=2.0)
    assert line.lost > 0
    before, arrived = line.lost, line.arrived
    run(pace, line, seconds=20.0)
    assert line.lost - before < 0.01 * (line.arrived - arrived)
    assert line.arrived - arrived > 0.85 * 20.0 * line.rate


def test_single_losses_change_nothing():
    pace, line = Pace(), MadeLine(rate=20e6, round_trip_s=0.04)
    run(pace, line, seconds=2.0)
    limit = pace.limit
    for _ in range(50):
        line.again += 2
        run(pace, line, seconds=0.05)
    assert pace.limit >= 0.9 * limit


def test_a_line_that_became_better_is_noticed_after_an_overflow():
    line = MadeLine(rate=5e6, round_trip_s=0.04, queue=50_000)
    pace = Pace()
    run(pace, line, seconds=5.0)
    line.rate, line.queue = 10e6, math.inf
    run(pace, line, seconds=200.0)
    before = line.arrived
    run(pace, line, seconds=1.0)
    assert line.arrived - before >= 9e6


def test_the_longer_more_does_no_harm_the_sooner_more_is_tried():
    line = MadeLine(rate=5e6, round_trip_s=0.04, queue=50_000)
    pace = Pace()
    run(pace, line, seconds=5.0)  # it runs over a few times, and then hardly more is tried
    line.rate, line.queue = 20e6, math.inf
    run(pace, line, seconds=220.0)
    before = line.arrived
    run(pace, line, seconds=1.0)
    assert line.arrived - before >= 18e6


def test_who_had_little_to_send_for_a_while_is_not_slow_afterwards():
    pace, line = Pace(), MadeLine(rate=20e6, round_trip_s=0.04)
    run(pace, line, seconds=2.0)
    run(pace, line, seconds=5.0, wants=10_000)
    run(pace, line, seconds=2.0)
    before = line.arrived
    run(pace, line, seconds=1.0)
    assert line.arrived - before >= 19e6


def test_on_a_near_line_nothing_is_bounded():
    pace = Pace()
    pace.look(MadeLine(rate=50e6, round_trip_s=NEAR_S / 2).look())
    assert pace.limit == math.inf


def test_a_line_too_short_for_the_librarys_clock_is_a_near_one():
    pace, line = Pace(), MadeLine(rate=50e6, round_trip_s=0.0005)
    look = fields(line.look()) | {"round_trip_s": 0.0, "waiting": 1_172}
    pace.look(Look(**look))
    assert pace.limit == FIRST
    pace.look(Look(**(look | {"at": 0.3, "arrived": 300_000})))
    assert pace.limit == math.inf


def crawling(*, every_s, arrives, windows=(1_191,), round_trip_s=0.04, seconds=2.0):
    """Whether looks at a connection whose window is small find that it crawls."""
    pace, line = Pace(), MadeLine(rate=1e6, round_trip_s=round_trip_s)
    line.step(FIRST)
    look = fields(line.look())
    for number in range(round(seconds / every_s)):
        window = windows[number % len(windows)]
        more = {"at": number * every_s, "window": window, "arrived": number * arrives}
        pace.look(Look(**(look | more)))
        if pace.crawls:
            return True
    return False


def test_a_window_of_a_packet_for_long_is_a_crawl():
    assert crawling(every_s=0.04, arrives=1_172)


def test_on_a_long_line_one_loss_takes_longer_to_bear_and_is_no_crawl():
    assert not crawling(every_s=0.15, arrives=1_172, round_trip_s=0.6, seconds=2.0)
    assert crawling(every_s=0.15, arrives=1_172, round_trip_s=0.6, seconds=8.0)


def test_where_each_connection_crawls_before_it_brought_anything_whole_one_goes_on():
    replacing = Replacing()
    for _ in range(IN_VAIN):
        replacing.brought("ann", WORTH - 1)
        assert replacing.may("ann")
    assert not replacing.may("ann")
    assert not replacing.may("ann")
    assert replacing.may("bob")
    replacing.brought("ann", WORTH)
    assert replacing.may("ann")


def test_no_more_than_so_many_peers_are_remembered():
    replacing = Replacing()
    for number in range(5_000):
        assert replacing.may(str(number))
    assert len(replacing._in_vain) < 2_000


def test_a_window_that_grows_again_is_none():
    assert not crawling(every_s=0.2, arrives=1_172, windows=(1_191, 20_000))


def test_a_line_on_which_nothing_arrives_is_silent_and_does_not_crawl():
    assert not crawling(every_s=0.04, arrives=0)


@pytest.mark.parametrize("silence_s", [0.1 * n for n in range(1, 15)])
def test_a_line_that_was_cut_for_a_while_does_not_crawl_when_it_is_back(silence_s):
    pace, line = Pace(), MadeLine(rate=1e6, round_trip_s=0.04)
    line.step(FIRST)
    look, end = fields(line.look()), silence_s + 0.08
    for number in range(200):
        at = number * 0.02
        back = max(0.0, at - silence_s)
        more = {"at": at, "window": 1_191 if at < end else 20_000}
        pace.look(Look(**(look | more | {"arrived": int(back * 50_000)})))
        assert not pace.crawls


def test_nothing_on_its_way_is_none():
    pace, line = Pace(), MadeLine(rate=1e6, round_trip_s=0.04)
    for at in range(10):
        pace.look(Look(**(fields(line.look()) | {"at": float(at), "window": 1_191})))
    assert not pace.crawls


counts = st.integers(0, 10**12)


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 10.0),
            counts,
            counts,
            st.floats(0.0, 5.0),
            st.integers(0, 10**9),
            st.integers(0, 10**6),
            st.integers(0, 10**6),
        ),
        max_size=50,
    )
)
def test_whatever_the_library_counts_something_may_be_sent_and_looked_at(looks):
    pace, now, totals = Pace(), 0.0, [0, 0, 0]
    for passed, arrived, waiting, round_trip_s, window, packets, again in looks:
        now += passed
        totals = [old + new for old, new in zip(totals, (arrived, packets, again), strict=True)]
        pace.look(Look(now, totals[0], waiting, round_trip_s, window, totals[1], totals[2]))
        assert pace.limit >= FIRST / 2
        assert 0.0 < pace.every_s <= CRAWL_S / 2


def fields(look):
    return {name: getattr(look, name) for name in Look.__struct_fields__}


def test_looks_are_closer_together_than_round_trips():
    pace, line = Pace(), MadeLine(rate=1e6, round_trip_s=0.1)
    assert pace.every_s == CRAWL_S / 2
    pace.look(line.look())
    assert pace.every_s == pytest.approx(0.05)
    assert pace.every_s >= pacing.ROUND_S / 2
