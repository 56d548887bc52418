"""When to try again: waits that grow, and that differ from everybody else's.

With full jitter each wait is anything from nothing to the current bound, which
doubles: after a restart of the server a thousand devices don't come back in the
same instant, again and again.
"""

from __future__ import annotations

from typing import Final

BASE: Final = 0.5
"""Seconds that the first wait may last."""
CAP: Final = 30.0
"""Seconds that any wait may last."""


def delay(attempt: int, chance: float, *, base: float = BASE, cap: float = CAP) -> float:
    """How long to wait before the next attempt.

    Args:
        attempt: Failures in a row so far, from 1.
        chance: Random, 0 to 1.
        base: Seconds that the first wait may last.
        cap: Seconds that any wait may last.
    """
    return min(base * 2.0 ** min(attempt - 1, 32), cap) * chance
