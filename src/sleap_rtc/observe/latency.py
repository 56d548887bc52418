"""How long operations take: counted in a process, shown as a Prometheus histogram, or summed up.

Counting is a few additions and needs nothing installed, so it is always on:
what asks (a metrics page, ``--benchmark``) may come later, or never.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

import msgspec

BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 60.0),
)
"""Upper ends of the buckets, seconds; a last one takes what is longer."""


class Latency(msgspec.Struct, frozen=True):
    """What is known of one operation's durations.

    Attributes:
        buckets: Calls per bucket of :data:`BOUNDS_S`, and of what was longer; not cumulative.
        failed: Calls that raised an error; they are among the others.
        total_s: Seconds of all calls together.
        longest_s: Seconds of the longest.
    """

    buckets: tuple[int, ...]
    failed: int
    total_s: float
    longest_s: float

    @property
    def count(self) -> int:
        """Number of calls."""
        return sum(self.buckets)

    def quantile(self, share: float) -> float:
        """Seconds that a share of the calls stayed within: the upper end of a bucket.

        Args:
            share: From above 0 to 1.
        """
        wanted, seen = share * self.count, 0
        for bound, calls in zip(BOUNDS_S, self.buckets, strict=False):
            seen += calls
            if seen >= wanted:
                return min(bound, self.longest_s)
        return self.longest_s


class Latencies:
    """The durations of a family of operations; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, list[int]] = {}
        self._failed: dict[str, int] = {}
        self._total: dict[str, float] = {}
        self._longest: dict[str, float] = {}

    def add(self, operation: str, seconds: float, *, failed: bool = False) -> None:
        """Count a call.

        Args:
            operation: One of a few names; never made from data.
            seconds: How long it took.
            failed: Whether it raised an error.
        """
        bucket = bisect_left(BOUNDS_S, seconds)
        with self._lock:
            if operation not in self._buckets:
                self._buckets[operation] = [0] * (len(BOUNDS_S) + 1)
                self._failed[operation] = 0
                self._total[operation] = self._longest[operation] = 0.0
            self._buckets[operation][bucket] += 1
            self._failed[operation] += failed
            self._total[operation] += seconds
            self._longest[operation] = max(self._longest[operation], seconds)

    def all(self) -> Mapping[str, Latency]:
        """What was counted so far, by operation."""
        with self._lock:
            return {
                operation: Latency(
                    buckets=tuple(buckets),
                    failed=self._failed[operation],
                    total_s=self._total[operation],
                    longest_s=self._longest[operation],
                )
                for operation, buckets in sorted(self._buckets.items())
            }
