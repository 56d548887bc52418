"""Aliases to propose instead of one that is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Final

from sleap_rtc.domain import aliases as rules
from sleap_rtc.domain.ids import ModelId

_VERSION: Final = re.compile(r"(.+?)-v([0-9]{1,4})")
_MAX_VERSION: Final = 9_999


def suggestions(
    name: str, *, taken: Callable[[str], bool], today: date, model: ModelId | None
) -> tuple[str, ...]:
    """Free aliases near one that is taken: a version, the month, the beginning of the id.

    Args:
        name: A valid alias, ``fly`` or ``fly-v2``.
        taken: Whether an alias is in use; it is asked with valid ones.
        today: For the month.
        model: The model that it would name, None for a pair.

    Returns:
        ``fly-v3``, ``fly-2026-03`` and ``fly-3f2a``, as far as they are valid and free.
    """
    match = _VERSION.fullmatch(name)
    base, version = (match[1], int(match[2])) if match else (name, 1)
    found = []
    for number in range(version + 1, _MAX_VERSION):
        wanted = _joined(base, f"v{number}")
        if wanted is None:
            break
        if not taken(wanted):
            found.append(wanted)
            break
    for end in (f"{today:%Y-%m}", model[:4] if model else ""):
        wanted = _joined(base, end) if end else None
        if wanted is not None and not taken(wanted):
            found.append(wanted)
    return tuple(found)


def _joined(base: str, end: str) -> str | None:
    """Both in one, the first cut where they are too long together; None if that is no alias."""
    while base:
        wanted = f"{base}-{end}"
        if len(wanted) <= rules.MAX_LENGTH and len(rules.key(wanted).encode()) <= rules.MAX_KEY:
            return None if rules.fault(wanted) else wanted
        base = base[:-1].rstrip("-._")
    return None
