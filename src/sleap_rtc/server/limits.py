"""How much of the server one device, or one address, may take. Time is handed in."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from sleap_rtc.errors import NotPermitted

SIGN_IN_DEADLINE: Final = 10.0
"""Seconds a connection has to sign in."""
MAX_PENDING: Final = 1_000
"""Connections that have not signed in yet, in all."""
MAX_PENDING_PER_ADDRESS: Final = 100
"""The same for one address; a lab behind one NAT reconnects all at once after a restart."""
MESSAGE_RATE: Final = 50.0
"""Messages per second that one connection may go on sending."""
MESSAGE_BURST: Final = 300.0
"""Messages it may send at once: the candidates of several links."""
MESSAGE_UNIT: Final = 4_096
"""A message counts once more for each of these bytes that it has."""
MAX_OUTBOX: Final = 1024 * 1024
"""Bytes that wait for a device that doesn't read, before its connection is ended."""


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

    def _refill(self, now: float) -> None:
        self._tokens = min(self._tokens + max(now - self._at, 0.0) * self._rate, self._burst)
        self._at = now


def message_cost(size: int) -> float:
    """What a message of so many bytes counts."""
    return 1 + size / MESSAGE_UNIT


class SourceLimits:
    """One bucket for each address, for the addresses that were seen last.

    Args:
        rate: Tokens per second of one address.
        burst: Tokens of one address at once.
        capacity: Addresses that are remembered.
    """

    def __init__(self, *, rate: float, burst: float, capacity: int = 4_096) -> None:
        self._rate, self._burst, self._capacity = rate, burst, capacity
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def allow(self, source: str, now: float) -> bool:
        """Whether one more from this address is within its limit."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = TokenBucket(rate=self._rate, burst=self._burst, now=now)
            self._buckets[source] = bucket
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.try_take(1, now)


class Pending:
    """Connections that have not signed in yet.

    Args:
        total: Allowed in all.
        per_address: Allowed of one address.
    """

    def __init__(
        self, *, total: int = MAX_PENDING, per_address: int = MAX_PENDING_PER_ADDRESS
    ) -> None:
        self._total, self._per_address = total, per_address
        self._of: Counter[str] = Counter()

    def begin(self, address: str) -> None:
        """Count one more.

        Raises:
            NotPermitted: There are too many.
        """
        if self._of.total() >= self._total or self._of[address] >= self._per_address:
            raise NotPermitted(
                message="Too many connections to the server are waiting to sign in.",
                hint="Try again in some seconds.",
            )
        self._of[address] += 1

    def end(self, address: str) -> None:
        """Count one less: it signed in, or went."""
        self._of[address] -= 1
        if self._of[address] <= 0:
            del self._of[address]
