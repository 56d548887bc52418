"""Models that were never trained: the same ones for each registry that is measured.

The number of a model decides everything about it, so three programs need to be
told only how many there are. Nothing but Python's own is used here, since the
peers' environments run it too.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

ANIMALS: Final = (
    *("ant", "bee", "fly", "frog", "gerbil", "locust", "mouse", "rat", "worm", "zebrafish"),
)
TYPES: Final = ("centroid", "centered_instance", "bottomup", "centroid", "centered_instance")
STATUSES: Final = (*("completed",) * 9, "interrupted")
TAGS: Final = tuple(f"cohort-{n}" for n in range(20))
ALIASED: Final = 10
"""Every so manieth model has an alias."""

WORD: Final = "rig42"
"""A word of one model in 100."""
PREFIX: Final = "gerb"
"""How a word of one model in 10 begins."""
FILTER: Final = {"status": "completed", "type": "centroid", "tag": "cohort-7"}
"""What holds for about one model in 28."""
PAGE: Final = 100

_BEGINNING: Final = datetime(2021, 1, 1, tzinfo=UTC)
_SYLLABLES: Final = ("ba", "du", "fe", "gi", "ko", "la", "mi", "no", "pu", "re", "sa", "to")


def model(number: int) -> dict[str, Any]:
    """What is known of a model: name, type, status, tags, notes, numbers and so on."""
    chance = random.Random(number)
    words = ("".join(chance.choice(_SYLLABLES) for _ in range(3)) for _ in range(12))
    created = _BEGINNING + timedelta(minutes=25 * number, seconds=chance.randrange(1_000))
    return {
        "name": f"{chance.choice(ANIMALS)} rig{chance.randrange(100):02d} run{number:06d}",
        "type": chance.choice(TYPES),
        "status": chance.choice(STATUSES),
        "tags": sorted({chance.choice(TAGS), chance.choice(TAGS)}),
        "notes": " ".join(words),
        "created": created,
        "loss": chance.lognormvariate(-6, 1),
        "epochs": chance.randrange(5, 200),
        "duration_s": chance.uniform(600, 40_000),
        "alias": alias(number) if number % ALIASED == 0 else None,
    }


def another(number: int) -> dict[str, Any]:
    """A model that is registered while it is measured: no filter and no search finds it."""
    now = datetime.now(UTC)
    return model(number) | {
        "name": f"spider cage{number:07d}",
        "type": "single_instance",
        "status": "training",
        "tags": [],
        "created": now,
        "alias": None,
    }


def word(number: int) -> str:
    """A word of one model in 100, another one each time; :data:`WORD` is one of them."""
    return f"rig{number * 7 % 100:02d}"


def alias(number: int) -> str:
    """The alias of a model that has one."""
    return f"best-{number:06d}"
