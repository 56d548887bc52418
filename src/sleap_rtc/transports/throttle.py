"""The bandwidth limit that all transfers of a process share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from sleap_rtc.transfer.rate import TokenBucket


class Throttle:
    """Lets bytes pass at a limited rate, whatever they are and whichever way they go.

    One object serves all transports of a process, from any number of event loops, one after the
    other.

    Args:
        rate: Bytes per second, more than 0.
        clock: Seconds, monotonic.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._bucket = TokenBucket(rate, now=clock())

    @classmethod
    def of(cls, rate: int | None) -> Throttle | None:
        """The throttle of the setting ``limit_rate``; None when nothing is limited."""
        return None if rate is None else cls(rate)

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes may move; cancelled while waiting, they count as not moved."""
        delay = self._bucket.take(size, self._clock())
        if not delay:
            return
        try:
            await self._sleep(delay)
        except asyncio.CancelledError:
            self._bucket.give_back(size)
            raise
