"""How often something may happen: in all, and for each of many. Time is handed in."""

from __future__ import annotations

from collections import OrderedDict


class TokenBucket:
    """So many at once, and so many per second in the long run.

    Args:
        rate: Tokens that come back per second.
        burst: Tokens it holds at most, and at first.
        now: Seconds on any clock that never goes back.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._tokens, self._at = rate, burst, burst, now

    def take(self, cost: float, now: float) -> float:
        """Take tokens, on credit if need be.

        Returns:
            Seconds to wait until the credit is paid back; 0 when there were enough.
        """
        self._refill(now)
        self._tokens -= cost
        return max(-self._tokens / self._rate, 0.0)

    def try_take(self, cost: float, now: float) -> bool:
        """Take tokens if there are enough."""
        self._refill(now)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def give_back(self, cost: float) -> None:
        """Put tokens back that were taken for nothing."""
        self._tokens = min(self._tokens + cost, self._burst)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._tokens + max(now - self._at, 0.0) * self._rate, self._burst)
        self._at = now


class SourceLimits:
    """One bucket for each source, an address or a device, for those that were seen last.

    Args:
        rate: Tokens per second of one source.
        burst: Tokens of one source at once.
        capacity: Sources that are remembered.
    """

    def __init__(self, *, rate: float, burst: float, capacity: int = 4_096) -> None:
        self._rate, self._burst, self._capacity = rate, burst, capacity
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def allow(self, source: str, now: float) -> bool:
        """Whether one more from this source is within its limit."""
        return self.bucket(source, now).try_take(1, now)

    def bucket(self, source: str, now: float) -> TokenBucket:
        """A source's bucket; a full one where the source wasn't seen lately."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = TokenBucket(rate=self._rate, burst=self._burst, now=now)
            self._buckets[source] = bucket
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket
