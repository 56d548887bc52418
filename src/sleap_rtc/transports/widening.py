"""How many connections carry a link's content: more of them, while that makes it faster.

Each connection waits for the other side's word on what arrived, and slows down
with every loss. On a long or lossy line one alone leaves most of it unused;
where peers are near, one is best. So they are multiplied as long as the speed
grows by a tenth, and the last step is taken back when it doesn't::

    1 ──► 4 ──► 8 ──► 16     faster each time
                8 ◄── 16     no faster: back, and not tried again for a while
    1 ◄────────── n          nothing moves any more, or connections were lost

A step is judged once its connections are open and have had a moment to find
their speed, by the mean of a few windows: losses make single ones uneven. One
that is clearly worth it is seen after two windows, and the next follows at once.
None is taken on a line whose answers come later than they could: packets wait
before it, so it is full, and more connections would lose each other's. A step
that fills it is kept if that made it faster, and else taken back at once.

Pure: its user measures, waits and connects.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 0.5
"""Seconds over which a speed is measured."""
STEPS: Final = (1, 4, 8, 16)
"""So many connections there may be. A worker has room for those of several people."""
MOST: Final = STEPS[-1]
GROWTH: Final = 1.1
CLEAR: Final = 1.5
"""Times the speed before a step from which it is clearly worth it."""
FAR_S: Final = 0.008
"""Seconds of a round trip from which a line is long."""
CROWDED: Final = 1.2
JITTER_S: Final = 0.004
"""Times the quickest round trip, and seconds above that, from which packets wait before a line.
Over Wi-Fi answers come some milliseconds sooner or later as it is; a line that is full has ten more
(``pacing.LATER_S``)."""
_OPEN_WITHIN: Final = 30
"""Windows that new connections get to come up."""
_SETTLE: Final = 2
"""Windows that they get to find their speed, once they are open."""
_MEAN: Final = 3
"""Windows over whose mean it is judged."""
_FEW: Final = 2
"""Windows that are enough to see that, and for what a step is compared with."""
_HOLD: Final = 20
_LONGEST_HOLD: Final = 320
"""Windows until it is tried again, doubled each time that it was in vain."""
_SHORT_HOLD: Final = 6
"""The same where the line was full meanwhile: when it isn't any more, a loss has made room."""
_LEAST: Final = 100_000.0
"""Bytes per second below which nothing counts as moving."""
_QUIET: Final = 20
"""Windows without movement after which one connection is enough."""


def is_far(quickest_s: float | None) -> bool:
    """Whether a line is long, by its quickest round trip. One of which nothing is known isn't."""
    return quickest_s is not None and quickest_s >= FAR_S


def is_crowded(quickest_s: float | None, recent_s: float | None) -> bool:
    """Whether packets wait before a line, by its quickest and its recent round trips."""
    if quickest_s is None or recent_s is None:
        return False
    return recent_s >= CROWDED * quickest_s + JITTER_S


class Widening:
    """The hill climb. :attr:`wanted` is how many connections there should be."""

    def __init__(self) -> None:
        self._step = 0
        self._rates: deque[float] = deque(maxlen=_MEAN)
        self._slower: float | None = None
        self._fastest = 0.0
        self._opening = 0
        self._settling = 0
        self._hold = 0
        self._next_hold = _HOLD
        self._quiet = 0

    @property
    def wanted(self) -> int:
        """How many connections there should be."""
        return STEPS[self._step]

    def window(self, rate: float, *, far: bool, ready: int, crowded: bool = False) -> int:
        """Take the speed of one window.

        Args:
            rate: Bytes per second, of all connections together.
            far: Whether the line is long.
            ready: How many connections are open.
            crowded: Whether packets wait before the line: it is full then, and more connections
                would lose each other's.

        Returns:
            How many connections there should be, one of :data:`STEPS`.
        """
        if rate < _LEAST:
            self._quiet += 1
            if self._quiet >= _QUIET:
                self._start_anew()
            return self.wanted
        self._quiet = 0
        self._rates.append(rate)
        if self._slower is not None and crowded:
            self._fill(rate, ready)
        elif self._slower is not None and not self._proven(self._slower, ready):
            return self.wanted
        if self._hold:
            self._hold -= 1
        elif far and not crowded and self._step + 1 < len(STEPS) and len(self._rates) >= _FEW:
            self._slower, self._fastest = self._mean(), max(self._rates)
            self._rates.clear()
            self._step += 1
            self._opening, self._settling = _OPEN_WITHIN, _SETTLE + _MEAN
        return self.wanted

    def lost(self) -> None:
        """A connection that was wanted didn't come about, or has ended."""
        self._back()

    def _fill(self, rate: float, ready: int) -> None:
        """A step that fills the line is worth it if there is more in that than there ever was."""
        if ready >= self.wanted and rate >= GROWTH * self._fastest:
            self._slower, self._next_hold = None, _HOLD
            return
        # It says nothing of the number: the line was full already, or others fill it now.
        self._step -= 1
        self._slower, self._hold = None, _SHORT_HOLD

    def _proven(self, slower: float, ready: int) -> bool:
        """Take one more window of a step; whether it is known now that it is worth it."""
        if ready < self.wanted:
            self._rates.clear()
            self._opening -= 1
            if not self._opening:
                self._back()
            return False
        self._settling -= 1
        few = list(self._rates)[-_FEW:]
        clearly = len(few) == _FEW and min(few) >= CLEAR * slower
        if self._settling and not clearly:
            return False
        if self._mean() < GROWTH * slower:
            self._back()
            return False
        # Straight on: what was measured now is what the next step is compared with.
        self._slower, self._next_hold = None, _HOLD
        return True

    def _back(self) -> None:
        self._step = max(0, self._step - 1)
        self._slower = None
        self._hold, self._next_hold = self._next_hold, min(2 * self._next_hold, _LONGEST_HOLD)

    def _start_anew(self) -> None:
        self._step, self._slower = 0, None
        self._rates.clear()

    def _mean(self) -> float:
        return sum(self._rates) / len(self._rates)
