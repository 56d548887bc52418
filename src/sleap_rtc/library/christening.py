"""Giving hundreds of models their first names: the disk is waited for twice for all of them.

::

    hint, and the alias's file   ──►  their file system  ──►  each gets its name  ──►  synced
    under a name of nothing           is synced once          by a link, as ever       once more

So an alias that can be seen is whole, also after a power cut, and the link decides who is first.
Only plain ones are given so: a name that nobody ever used, for models that never had one. The
others are for :meth:`~sleap_rtc.library.aliases.Aliases.set`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain import aliases as rules
from sleap_rtc.domain import values
from sleap_rtc.files.durable import TEMPORARY, disk_errors, give_name
from sleap_rtc.files.space import sync_file_system
from sleap_rtc.library import chain, marks
from sleap_rtc.library.aliases import Alias
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.layout import ALIASES, RECORD, listing
from sleap_rtc.library.records import HINT

TOGETHER: Final = 8
"""Names from which on all of the file system is synced, and not what each needs."""


class Wanted(msgspec.Struct, frozen=True):
    """A name that is to be given.

    Attributes:
        name: A valid alias.
        entries: The model, or the two of a pair, in order.
    """

    name: str
    entries: tuple[Entry, ...]


class _Ready(msgspec.Struct, frozen=True):
    name: str
    folder: Path
    unnamed: Path
    records: tuple[str, ...]


def christen(models: Path, wanted: Sequence[Wanted], *, now: datetime) -> frozenset[str]:
    """Give models their first names, as far as these are plain.

    Args:
        models: The library.
        wanted: The names; of those for one model the first may be given.
        now: The time, UTC.

    Returns:
        Those that were given; nothing was done about the others.

    Raises:
        OutOfSpace: The disk is full; what was given before stays.
        PathNotPermitted: The library can't be written to.
    """
    folder = models / ALIASES
    with disk_errors(folder), contextlib.ExitStack() as undone:
        folder.mkdir(parents=True, exist_ok=True)
        # Before anything is written: of a write that failed only those are told for sure who had
        # the file system open then.
        disk = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undone.callback(os.close, disk)
        # And once in vain: where that can't be had, nothing is begun.
        if len(wanted) < TOGETHER or not sync_file_system(disk):
            return frozenset()
        ready: list[_Ready] = []
        for each in wanted:
            prepared = _prepare(folder, each, now)
            if prepared is not None:
                undone.callback(prepared.unnamed.unlink, missing_ok=True)
                ready.append(prepared)
        sync_file_system(disk)
        with marks.changing(models, [marks.ALL]):
            given = frozenset(one.name for one in ready if _give(one))
        sync_file_system(disk)
    return given


def _prepare(aliases: Path, wanted: Wanted, now: datetime) -> _Ready | None:
    """Make all that a name needs but the name; None if it isn't plain."""
    records = tuple(f"{entry.folder}/{RECORD}" for entry in wanted.entries)
    if any(name.startswith(HINT) for record in records for name in listing(record)):
        return None
    key = rules.key(wanted.name)
    folder = aliases / key
    try:
        folder.mkdir()
    except FileExistsError:
        return None
    ids = tuple(entry.id for entry in wanted.entries)
    data = values.encode(Alias(name=wanted.name, models=ids, sequence=1, changed_at=now))
    unnamed = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        for record in records:
            Path(record, f"{HINT}{key}").touch()
    except FileNotFoundError:  # the model went away just now
        return None
    unnamed.write_bytes(data)
    return _Ready(wanted.name, folder, unnamed, records)


def _give(ready: _Ready) -> bool:
    """Give a name that is prepared; False if another process gave it just now."""
    if not give_name(ready.unnamed, ready.folder / chain.file_name(1)):
        return False
    # An index may have read the model since the hint was made: a time that no folder had yet lets
    # it read the model again.
    at = time.time_ns()
    for record in ready.records:
        with contextlib.suppress(FileNotFoundError):
            os.utime(record, ns=(at, at))
    return True
