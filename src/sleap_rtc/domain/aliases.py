"""Aliases: the names that people give to models (ALI-1, ALI-2).

An alias is 1 to 64 letters, digits, ``.``, ``_`` and ``-``, starts with neither
``-`` nor ``.``, doesn't look like an id, and is none of the reserved words. Two
aliases that differ only by case, or by how Unicode composes their letters, are
one: they are compared casefolded and composed (NFC). That form is also a file's
name, so it has at most 200 bytes of UTF-8; every usual script stays below.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from heapq import nsmallest
from itertools import islice
from typing import Final

from sleap_rtc.domain.ids import is_id_prefix, is_model_id, is_uuid7
from sleap_rtc.errors import InvalidName

MAX_LENGTH: Final = 64
MAX_KEY: Final = 200
RESERVED: Final = frozenset({"all", "latest", "none", "null"})

_TELLING: Final = 3
"""Characters from which a part of a name tells what is meant."""
_COMPARED: Final = 64
"""Keys that are compared with a text letter by letter: a tenth of a millisecond each."""
_COMMON: Final = 2_000
"""Keys that may share some characters without these telling nothing."""
_SHORT: Final = 6
"""Characters of a name of which hardly three in a row outlive a mistake."""
_ALLOWED: Final = re.compile(r"[\w.-]+")
_HEX_ONLY: Final = re.compile(r"[0-9a-f]{64}")


def check(name: str) -> str:
    """Return the alias if it is valid.

    Raises:
        InvalidName: With the one reason why it isn't.
    """
    why = fault(name)
    if why:
        raise InvalidName(
            kind="alias",
            name=name[:80],
            why=why,
            hint="An alias has 1 to 64 letters, digits, '.', '_' or '-', as in fly-centroid-v2.",
        )
    return name


def fault(name: str) -> str:
    """Why a name is not a valid alias, as the end of a sentence; empty if it is one."""
    if not name:
        return "it is empty"
    if len(name) > MAX_LENGTH:
        return f"it has {len(name)} characters, and {MAX_LENGTH} are allowed"
    if _ALLOWED.fullmatch(name) is None:
        bad = next(c for c in name if _ALLOWED.fullmatch(c) is None)
        return f"it contains {bad!r}"
    if name[0] in "-.":
        return f"it starts with {name[0]!r}"
    if name.casefold() in RESERVED:
        return "the word is reserved"
    if len(key(name).encode("utf-8")) > MAX_KEY:
        return f"it has more than {MAX_KEY} bytes"
    lower = name.lower()
    if is_model_id(lower) or is_id_prefix(lower) or is_uuid7(lower) or _HEX_ONLY.fullmatch(lower):
        return "it looks like an id"
    return ""


def key(name: str) -> str:
    """What two aliases are compared by: the casefolded name, composed; a safe file name."""
    # Casefolding can take letters apart again, so composing comes last.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def near(name: str, keys: Collection[str], *, most: int = 3) -> list[str]:
    """Names like a mistyped or half-remembered one: those that hold it, then the nearest first.

    Args:
        name: What was written.
        keys: What names are compared by, see :func:`key`; without ``/``. Of 100,000 those that
            can't be near are passed over in some 30 ms.
        most: How many at most.

    Returns:
        Some of the keys.
    """
    meant = key(name)[:MAX_KEY]
    if "/" in meant:  # a path, after which no model is called
        return []
    holding = [other for other in keys if meant in other] if len(meant) >= _TELLING else []
    found = nsmallest(
        most, holding, key=lambda other: (not other.startswith(meant), len(other), other)
    )
    if len(found) < most:
        found += get_close_matches(meant, _alike(meant, keys), n=most, cutoff=0.6)
    return list(dict.fromkeys(found))[:most]


def _alike(meant: str, keys: Collection[str]) -> Collection[str]:
    """The keys that share most with a text, two or three characters at a time, ends included.

    What more than a few thousand keys have tells them from nothing, and isn't counted.
    """
    if len(keys) <= _COMPARED:
        return keys
    text = f"/{'/'.join(keys)}/"
    ends = f"/{meant}/"
    shared: Counter[str] = Counter()
    width = 2 if len(meant) <= _SHORT else 3
    for part in dict.fromkeys(ends[at : at + width] for at in range(len(ends) - width + 1)):
        having = list(islice(_having(part, text), _COMMON + 1))
        if len(having) <= _COMMON:
            shared.update(set(having))
    size = len(meant)
    return nsmallest(
        _COMPARED, shared, key=lambda other: (-shared[other], abs(len(other) - size), other)
    )


def _having(part: str, text: str) -> Iterator[str]:
    """The keys in a text in which a part is, be it at an end; one that has it twice comes twice."""
    at = text.find(part)
    while at >= 0:
        middle = at + 1
        yield text[text.rfind("/", 0, middle) + 1 : text.find("/", middle)]
        at = text.find(part, middle)
