"""What the journal of partial data says: which blocks are here, and which are surely on the disk.

One record each (:mod:`sleap_rtc.files.journal`)::

    w 17        block 17 was handed to the operating system
    x 17        block 17 turned out damaged, and is missing again
    s 40        what the first 40 of the w and x records tell is on the disk

A later record about a block counts in place of an earlier one. What no version of this
program would write says nothing, or no more than it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def here(numbers: Iterable[int]) -> list[bytes]:
    """The records of blocks that were written."""
    return [b"w %d" % number for number in numbers]


def gone(numbers: Iterable[int]) -> list[bytes]:
    """The records of blocks that are missing again."""
    return [b"x %d" % number for number in numbers]


def synced(entries: int) -> bytes:
    """The record that the first so many records about blocks hold for the disk as well."""
    return b"s %d" % entries


@dataclass(frozen=True, slots=True)
class Told:
    """What a journal says.

    Attributes:
        entries: Records about blocks; the next to be synced count from there.
        synced: Blocks that are on the disk.
        unsynced: Blocks that were written, and may have been lost since.
    """

    entries: int
    synced: list[int]
    unsynced: list[int]


def read(records: Iterable[bytes], count: int) -> Told:
    """Read a journal.

    Args:
        records: Its records, from the first.
        count: Blocks that there are.
    """
    entries = safe = 0
    written: dict[int, int] = {}
    for record in records:
        kind, _, text = record.partition(b" ")
        value = int(text) if text.isdigit() and len(text) < 20 else -1
        if kind == b"s":
            safe = max(safe, value)
            continue
        entries += 1
        if not 0 <= value < count:
            continue
        if kind == b"w":
            written[value] = entries
        else:
            written.pop(value, None)
    return Told(
        entries=entries,
        synced=[number for number, entry in written.items() if entry <= safe],
        unsynced=[number for number, entry in written.items() if entry > safe],
    )
