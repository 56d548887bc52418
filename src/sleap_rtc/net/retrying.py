"""Whether a request is sent once more, and when: pure, the clock and the dice are handed in."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime
from typing import Final

import msgspec

from sleap_rtc.net.backoff import delay

AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which a request may fare better when it is sent again."""
HOST_FAILED: Final = frozenset({500, 502, 503, 504})
"""Statuses that count against the host; 429 is its own good reason."""
NOT_DONE: Final = frozenset({425, 429, 503})
"""Statuses of a host that says it has done nothing yet, so that sending again does no harm."""
REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Methods that do no more when they are done twice."""

_SECONDS: Final = re.compile(r"[0-9]{1,9}")


class Retry(msgspec.Struct, frozen=True):
    """How often, and how patiently.

    Attributes:
        attempts: Times that it is sent, at most.
        base: Seconds that the first wait may last; each may last twice as long as the one before.
        cap: Seconds that any wait may last, and the longest ``Retry-After`` that is waited for.
    """

    attempts: int = 4
    base: float = 1.0
    cap: float = 60.0


def pause(
    retry: Retry, attempt: int, *, retry_after: float | None = None, chance: float
) -> float | None:
    """Seconds until the next attempt; None when there is to be none.

    Args:
        retry: How often and how patiently.
        attempt: Attempts so far, from 1.
        retry_after: Seconds that the host asked for.
        chance: Random, 0 to 1.
    """
    if attempt >= retry.attempts:
        return None
    jitter = delay(attempt, chance, base=retry.base, cap=retry.cap)
    if retry_after is None:
        return jitter
    if retry_after > retry.cap:
        return None
    # Whoever was told the same time shall not all come back in the same instant.
    return min(retry_after + delay(1, chance, base=retry.base), retry.cap)


def parse_retry_after(text: str, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for; None where it can't be read.

    Args:
        text: Seconds, or a date as HTTP writes it.
        now: UTC.
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text[:100])
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)
