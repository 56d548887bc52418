"""Sizes, rates and durations, as people read them."""

from __future__ import annotations

import math
from typing import Final

_STEPS: Final = ("B", "KB", "MB", "GB", "TB", "PB", "EB")


def format_bytes(size: float) -> str:
    """A size in decimal units with at most three digits: ``999 B``, ``1.5 GB``, ``340 MB``.

    Args:
        size: Bytes; a negative size keeps its sign.
    """
    sign, value = ("-", -size) if size < 0 else ("", size)
    if round(value) < 1_000:
        return f"{sign}{round(value)} B"
    exponent = min(int(math.log10(value)) // 3, len(_STEPS) - 1)
    # 999,999 would round up to 1000 KB: it is 1 MB then.
    if value / 1_000**exponent >= 999.5 and exponent < len(_STEPS) - 1:
        exponent += 1
    scaled = max(value / 1_000**exponent, 1.0)
    digits = 1 if scaled < 9.95 else 0
    return f"{sign}{scaled:.{digits}f} {_STEPS[exponent]}"


def format_rate(bytes_per_second: float) -> str:
    """A rate: ``12 MB/s``."""
    return f"{format_bytes(bytes_per_second)}/s"


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 d 4 h``.

    Args:
        seconds: 0 or more.
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
