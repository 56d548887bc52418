"""How many connections carry a link's content: more of them, while that makes it faster.

Each connection waits for the other side's word on what arrived, and slows down
with every loss. On a long or lossy line one alone leaves most of it unused;
where peers are near, one is best. So they are doubled as long as the speed
grows by a tenth, and the last doubling is taken back when it doesn't::

    1 ──► 2 ──► 4 ──► 8      faster each time
                4 ◄── 8      no faster: back, and not tried again for a while
    1 ◄────────── n          nothing moves any more, or connections were lost

Pure: its user measures, waits and connects.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 1.0
"""Seconds over which a speed is measured."""
MOST: Final = 8
"""Connections at most: a worker has room for those of several people."""
GROWTH: Final = 1.1
FAR_S: Final = 0.008
"""Seconds of a round trip from which a line is long."""
_SETTLE: Final = 4
"""Windows that new connections get to come up and find their speed."""
_MEAN: Final = 2
"""Windows over whose mean it is judged: losses make single ones uneven."""
_HOLD: Final = 20
_LONGEST_HOLD: Final = 160
"""Windows until it is tried again, doubled each time that it was in vain."""
_LEAST: Final = 100_000.0
"""Bytes per second below which nothing counts as moving."""
_QUIET: Final = 10
"""Windows without movement after which one connection is enough."""


class Widening:
    """The hill climb. :attr:`wanted` is how many connections there should be."""

    def __init__(self) -> None:
        self.wanted = 1
        self._rates: deque[float] = deque(maxlen=_MEAN)
        self._before: tuple[int, float] | None = None
        self._settling = 0
        self._hold = 0
        self._next_hold = _HOLD
        self._quiet = 0

    def window(self, rate: float, *, far: bool) -> int:
        """Take the speed of one window.

        Args:
            rate: Bytes per second, of all connections together.
            far: Whether the line is long.

        Returns:
            How many connections there should be, 1 to :data:`MOST`.
        """
        if rate < _LEAST:
            self._quiet += 1
            if self._quiet >= _QUIET:
                self._start_anew()
            return self.wanted
        self._quiet = 0
        self._rates.append(rate)
        rate = sum(self._rates) / len(self._rates)
        if self._settling:
            self._settling -= 1
        elif self._before is not None:
            self._judge(rate)
        elif self._hold:
            self._hold -= 1
        if not (self._settling or self._hold or self._before) and far and self.wanted < MOST:
            self._before = self.wanted, rate
            self.wanted = min(MOST, 2 * self.wanted)
            self._settling = _SETTLE
        return self.wanted

    def lost(self) -> None:
        """A connection that was wanted didn't come about, or has ended."""
        self.wanted = max(1, self.wanted // 2)
        self._before, self._settling = None, 0
        self._wait()

    def _judge(self, rate: float) -> None:
        assert self._before is not None  # noqa: S101
        (fewer, slower), self._before = self._before, None
        if rate < GROWTH * slower:
            self.wanted = fewer
            self._wait()
        else:
            self._next_hold = _HOLD

    def _wait(self) -> None:
        self._hold, self._next_hold = self._next_hold, min(2 * self._next_hold, _LONGEST_HOLD)

    def _start_anew(self) -> None:
        self.wanted, self._before, self._settling = 1, None, 0
