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
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from sleap_rtc.domain.ids import is_id_prefix, is_model_id, is_uuid7
from sleap_rtc.errors import InvalidName

MAX_LENGTH: Final = 64
MAX_KEY: Final = 200
RESERVED: Final = frozenset({"all", "latest", "none", "null"})

_TELLING: Final = 3
"""Characters from which a part of a name tells what is meant."""
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


def near(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Names like a mistyped or half-remembered one: those that hold it, then the nearest first."""
    meant, by_key = key(name), {key(other): other for other in known}
    holding = sorted(other for other in by_key if len(meant) >= _TELLING and meant in other)
    holding.sort(key=lambda other: (not other.startswith(meant), len(other)))
    alike = get_close_matches(meant, by_key, n=most, cutoff=0.6)
    return [by_key[hit] for hit in dict.fromkeys((*holding, *alike))][:most]
