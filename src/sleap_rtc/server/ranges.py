"""What of an object is asked for: ``Range``, ``If-Match``, ``If-None-Match``. Pure.

As S3 does it: one range of bytes at a time; what can't be read as one is
ignored, and the whole is given; one that begins behind the end is refused.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_RANGE: Final = re.compile(r"bytes\s*=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})", re.IGNORECASE)
_MAX_TAGS: Final = 100


class Whole(msgspec.Struct, frozen=True):
    """All of it."""


class Piece(msgspec.Struct, frozen=True):
    """Bytes from ``start`` to ``end``, the latter not included."""

    start: int
    end: int


class Unsatisfiable(msgspec.Struct, frozen=True):
    """Nothing of it is in the range."""


class NotModified(msgspec.Struct, frozen=True):
    """The asker has it."""


class Changed(msgspec.Struct, frozen=True):
    """It isn't what the asker has in mind."""


Wanted = Whole | Piece | Unsatisfiable | NotModified | Changed


def wanted(*, size: int, etag: str, if_match: str, if_none_match: str, ranges: str) -> Wanted:
    """What to answer with.

    Args:
        size: Bytes of the object.
        etag: Its mark, without quotes.
        if_match: The header; empty where it isn't given. So are the others.
        if_none_match: The header.
        ranges: The header ``Range``.
    """
    if if_match and not _names(if_match, etag):
        return Changed()
    if if_none_match and _names(if_none_match, etag):
        return NotModified()
    return _range(ranges, size)


def _names(header: str, etag: str) -> bool:
    """Whether a list of marks has this one; unquoted ones are taken too, as some stores do."""
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",", _MAX_TAGS)]
    return "*" in tags or etag in tags


def _range(header: str, size: int) -> Wanted:
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return Whole()
    if not found[1]:  # the last so many
        count = min(int(found[2]), size)
        return Piece(start=size - count, end=size) if count else Unsatisfiable()
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return Whole()
    if start >= size:
        return Unsatisfiable()
    return Piece(start=start, end=min(int(found[2]) + 1, size) if found[2] else size)
