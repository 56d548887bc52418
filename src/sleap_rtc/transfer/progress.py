"""How far a transfer is, how fast, and how long it will take."""

from __future__ import annotations

import math
from typing import Final

import msgspec

RATE_SECONDS: Final = 5.0
"""The rate is an average in which the last 5 seconds weigh about two thirds."""

_SHORTEST: Final = 1e-4
"""Seconds; a rate over less would only tell how coarse the clock is."""


class OfFile(msgspec.Struct, frozen=True):
    """How far one file of a transfer is.

    Attributes:
        path: Its relative path in the package.
        done: Bytes that are here.
        size: Bytes of all of it.
    """

    path: str
    done: int
    size: int


class Progress(msgspec.Struct, frozen=True):
    """How far a transfer is.

    Attributes:
        phase: ``receiving``, ``waiting`` for a source, ``verifying`` or ``done``.
        done: Bytes that are here, those of an earlier attempt included; while verifying, bytes
            that were checked.
        total: Bytes of all.
        rate: Bytes per second, of this phase.
        eta_s: Seconds until this phase ends, None while that can't be told.
        file: The file that something came of last, None while nothing has.
    """

    phase: str
    done: int
    total: int
    rate: float = 0.0
    eta_s: float | None = None
    file: OfFile | None = None

    @property
    def percent(self) -> float:
        """0 to 100; an empty transfer is at 100."""
        return 100.0 * self.done / self.total if self.total else 100.0


class Meter:
    """Measures the rate of one phase, from what is done at which time.

    Args:
        phase: Its name.
        done: Bytes that were here before it began, which no rate counts.
        total: Bytes of all.
        now: Seconds, of any clock that doesn't go back.
    """

    def __init__(self, phase: str, *, done: int, total: int, now: float) -> None:
        self._phase = phase
        self._total = total
        self._done = done
        self._then = now
        self._rate = 0.0
        self._weight = 0.0

    def update(
        self, done: int, now: float, *, phase: str | None = None, file: OfFile | None = None
    ) -> Progress:
        """Take a new measurement.

        Args:
            done: Bytes that are here now; fewer than before count as none.
            now: Seconds, of the same clock.
            phase: Another name for the time being, for example ``waiting``.
            file: The file that something came of last.
        """
        elapsed = now - self._then
        if elapsed >= _SHORTEST:
            keep = math.exp(-elapsed / RATE_SECONDS)
            current = max(0, done - self._done) / elapsed
            self._rate = keep * self._rate + (1 - keep) * current
            # The average begins at 0; dividing by the weight it has gathered takes that out.
            self._weight = keep * self._weight + (1 - keep)
            self._then, self._done = now, done
        rate = self._rate / self._weight if self._weight else 0.0
        left = self._total - done
        return Progress(
            phase=phase or self._phase,
            done=done,
            total=self._total,
            rate=rate,
            eta_s=0.0 if left <= 0 else left / rate if rate >= 1 else None,
            file=file,
        )
