"""How much content a connection may have on its way: what fills the line, and a little more.

What is sent beyond the line's own content (its rate times its round trip) arrives no
sooner: it waits in some router, and what finds no room there is lost. WebRTC's SCTP
bears single losses. After a whole row of them it is left with one packet for each
round trip until all of the row is sent again, which takes a megabyte most of a
minute; and its first seconds lose such a row on every line that has an end to its
speed. So what is on its way is bounded before that::

    may be on its way   |■■■■■■■■■■■■■■■■■■■■■■■■|■■■■■■■■■■■■|■■■■|
                          rate by round trip       more of it   some messages

The rate is the best of the last rounds, each taken together with the one before it: what a
line or a busy machine holds back for one round comes with the next one's, and would look
like a line of twice the rate. The bound grows with it as long as the line takes more: to
twice what it holds while that helps, and to half as much again then. What is lost all the
same shows how much the line and its queue hold: from then on no more than its content is
sent, and only bit by bit more again.

The idea is BBR's (draft-ietf-ccwg-bbr): to look at what arrives, not at what is lost.

Pure: its user tells the time and what the library counts.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Final

import msgspec

NEAR_S: Final = 0.002
"""Seconds of a round trip below which nothing is bounded: the line holds less than a message."""
FIRST: Final = 256 * 1024
"""Bytes on their way before anything is known of the line, and what there may always be."""
CLIMB: Final = 2.2
MORE: Final = 1.6
"""Times the line's content, while more of it makes it faster and once it doesn't any more."""
FASTER: Final = 1.2
"""Times the best rate before from which it does."""
LATER_S: Final = 0.01
"""Seconds that this machine may take until it sends on."""
ROUND_S: Final = 0.02
"""Seconds of a round at least, over which a rate is measured; a round trip is one otherwise."""
ROUNDS: Final = 8
"""Of so many the best rate counts: who had nothing to send for a while isn't slow."""
LOST: Final = 0.02
"""The part of a round's packets, sent again, from which a queue has run over: fewer are chance."""
LEAST_LOST: Final = 8
"""Packets that it must be at least."""
RISE: Final = 1.1
RISE_S: Final = 2.0
MOST_RISE_S: Final = 60.0
"""How much more is tried after a queue has run over, after how many seconds, twice as many each
time, and at most; half as many again once more of it did no harm twice in a row."""
CRAWL: Final = 2_400
"""Bytes of SCTP's window, two packets, from which it crawls."""
CRAWL_S: Final = 0.5
CRAWL_TRIPS: Final = 6
"""Seconds of that, and round trips, after which it isn't one packet's loss: that is over in a few
round trips."""
WORTH: Final = 2 * 1024 * 1024
IN_VAIN: Final = 16
"""So many connections to a peer are replaced that have not brought so many bytes, one after the
other: of what was begun only whole blocks are kept, and where each one soon crawls none would ever
be whole."""
_MOST_PEERS: Final = 1_000


class Look(msgspec.Struct, frozen=True):
    """What the library counts at one moment.

    Attributes:
        at: Seconds of a clock.
        arrived: Bytes that the peer has acknowledged, of all that was ever sent.
        waiting: Bytes that it has not: queued, or on their way.
        round_trip_s: Of the line, smoothed, in whole milliseconds; 0 also when it isn't known.
        window: Bytes that SCTP has on their way at most.
        packets: Packets that were sent.
        again: Those of them that carried something a second time.
    """

    at: float
    arrived: int
    waiting: int
    round_trip_s: float
    window: int
    packets: int
    again: int


class Pace:
    """One connection's bound.

    Attributes:
        limit: Bytes that may be queued or on their way.
        crawls: Whether SCTP sends a packet for each round trip, and will for long.
    """

    def __init__(self) -> None:
        self.limit: float = FIRST
        self.crawls = False
        self._base = math.inf
        self._rates: deque[float] = deque(maxlen=ROUNDS)
        self._round: Look | None = None
        self._earlier: Look | None = None
        self._ceiling = math.inf
        self._rise_at = math.inf
        self._rise_s = RISE_S
        self._rises = 0
        self._deaf_until = 0.0
        self._small_since: Look | None = None

    @property
    def every_s(self) -> float:
        """Seconds until the next look is worth its while."""
        if self._base < NEAR_S:
            return CRAWL_S / 2
        return min(max(self._base, ROUND_S) / 2, CRAWL_S / 2)

    def look(self, now: Look) -> None:
        """Take what the library counts."""
        # It is told in whole milliseconds: where something has arrived, 0 is less than one.
        if now.round_trip_s or now.arrived:
            self._base = min(self._base, now.round_trip_s)
        self._see_crawl(now)
        if self._base < NEAR_S:
            self.limit = math.inf
            return
        begun = self._round
        if begun is None or not now.waiting:
            self._round, self._earlier = now, None
            return
        passed = now.at - begun.at
        if math.isinf(self._base) or passed < max(self._base, ROUND_S):
            return
        self._round = now
        earlier, self._earlier = self._earlier or begun, begun
        rate = (now.arrived - earlier.arrived) / (now.at - earlier.at)
        more = CLIMB if rate >= FASTER * max(self._rates, default=0.0) else MORE
        self._rates.append(rate)
        self._bear_losses(now, begun)
        free = (more * self._base + LATER_S) * max(self._rates)
        self.limit = min(self._ceiling, max(FIRST, FIRST / 2 + free))

    def pause(self) -> None:
        """Nothing is on its way: what lies between this and the next look is no rate."""
        self._round = self._earlier = None

    def _bear_losses(self, now: Look, begun: Look) -> None:
        again, packets = now.again - begun.again, now.packets - begun.packets
        if now.at < self._deaf_until:
            return  # it is still the same row that is sent again
        if again >= LEAST_LOST and again > LOST * packets:
            self._ceiling = max(FIRST, self._base * max(self._rates) + FIRST / 2)
            self._rise_at = now.at + self._rise_s
            self._rise_s = min(2 * self._rise_s, MOST_RISE_S)
            self._rises = 0
            self._deaf_until = now.at + max(1.0, 10 * self._base)
        elif now.at >= self._rise_at:
            self._ceiling *= RISE
            self._rises += 1
            if self._rises > 1:
                self._rise_s = max(RISE_S, self._rise_s / 2)
            self._rise_at = now.at + self._rise_s

    def _see_crawl(self, now: Look) -> None:
        if not now.waiting or now.window > CRAWL:
            self._small_since = None
        elif self._small_since is None or now.arrived <= self._small_since.arrived:
            # Where nothing arrives at all the line is silent: others look after that, and once it
            # isn't any more the window grows from one packet, too.
            self._small_since = now
        elif now.at - self._small_since.at >= self._crawl_s:
            self.crawls = True

    @property
    def _crawl_s(self) -> float:
        return CRAWL_S if math.isinf(self._base) else max(CRAWL_S, CRAWL_TRIPS * self._base)


class Replacing:
    """Whether connections that crawl are replaced, of all that a process has."""

    def __init__(self) -> None:
        self._in_vain: Counter[str] = Counter()

    def brought(self, peer: str, size: int) -> None:
        """A connection to a peer has brought so many bytes by now."""
        if size >= WORTH:
            self._in_vain.pop(peer, None)

    def may(self, peer: str) -> bool:
        """Whether one that crawls is replaced; it is ended then, and counts."""
        if self._in_vain[peer] >= IN_VAIN:
            return False
        if len(self._in_vain) > _MOST_PEERS:
            self._in_vain.clear()
        self._in_vain[peer] += 1
        return True
