"""A limit on bytes per second, shared by everything that moves bytes."""

from __future__ import annotations

from typing import Final

BURST_SECONDS: Final = 0.25


class TokenBucket:
    """Says how long to wait before bytes may move.

    It lends: bytes are taken at once, and whoever takes more than there is waits until the debt is
    paid. So blocks larger than the burst pass, and several takers share the rate in turn.

    Args:
        rate: Bytes per second, more than 0.
        now: Seconds, of any clock that doesn't go back.
        burst: Bytes that may move at once after a pause; a quarter of a second's by default.
    """

    def __init__(self, rate: float, *, now: float, burst: float | None = None) -> None:
        if rate <= 0:
            raise ValueError("the rate must be more than 0")
        self.rate = rate
        self._burst = rate * BURST_SECONDS if burst is None else burst
        self._tokens = self._burst
        self._then = now

    def take(self, size: int, now: float) -> float:
        """Take bytes.

        Args:
            size: How many.
            now: Seconds, of the same clock.

        Returns:
            Seconds to wait before moving them, 0 or more.
        """
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._then) * self.rate)
        self._then = max(self._then, now)
        self._tokens -= size
        return max(0.0, -self._tokens / self.rate)

    def give_back(self, size: int) -> None:
        """Return bytes that were taken and didn't move."""
        self._tokens = min(self._burst, self._tokens + size)
