"""Marks of changes, by which the indexes of other processes and hosts notice them.

::

    .changes/4c1d2e3f4a5b6c7d~centroid_3f2a9c01   a change is being made
    .changes/4c1d2e3f4a5b6c7d-centroid_3f2a9c01   it was made (or given up)

A writer leaves the mark before its change and renames it afterwards: an index
that reads the model in between reads it again for the new name. A writer that
dies leaves the first form, which is read again each time until it is pruned.
Marks are kept for an hour; an index that slept longer looks at the whole tree.
Nothing but an index's freshness rests on them, so they are not synced.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.files.durable import disk_errors
from sleap_rtc.library.layout import CHANGES, listing

KEPT_S: Final = 3_600.0
"""Seconds that a mark is kept."""

_NAME: Final = re.compile(r"[0-9a-f]{16}([-~])([a-z][a-z0-9_]*_[0-9a-f]{8}(?:-[0-9]{1,4})?)")


class Mark(msgspec.Struct, frozen=True):
    """A mark that was found.

    Attributes:
        name: Its file name, which is never used twice.
        directory: Name of the model's directory.
        done: Whether the change is over.
    """

    name: str
    directory: str
    done: bool


@contextlib.contextmanager
def changing(models: Path, directories: Iterable[str]) -> Iterator[None]:
    """Mark models as changing, for as long as the block runs, and as changed afterwards.

    Args:
        models: The library.
        directories: Names of the models' directories.

    Raises:
        OutOfSpace: There is no room for a mark; the change isn't begun.
        PathNotPermitted: The library can't be written to.
    """
    folder = models / CHANGES
    made: list[tuple[Path, Path]] = []
    with disk_errors(folder / "mark"):
        folder.mkdir(parents=True, exist_ok=True)
        for directory in directories:
            unique = secrets.token_hex(8)
            path = folder / f"{unique}~{directory}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            made.append((path, folder / f"{unique}-{directory}"))
            if unique.startswith("00"):  # one in 256 writers looks for old marks
                prune(models)
    try:
        yield
    finally:
        for path, done in made:
            with contextlib.suppress(OSError):
                path.rename(done)


def names(models: Path) -> set[str]:
    """The names of all marks there are."""
    return set(listing(models / CHANGES))


def parse(name: str) -> Mark | None:
    """What a mark says, None for a name that is none."""
    match = _NAME.fullmatch(name)
    return match and Mark(name=name, directory=match[2], done=match[1] == "-")


def stamp(models: Path) -> int:
    """Time of the last mark in nanoseconds since 1970, 0 when there never was one."""
    try:
        return (models / CHANGES).stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def prune(models: Path) -> None:
    """Remove marks that are older than an hour."""
    oldest = time.time() - KEPT_S  # file times are wall-clock times
    for name in names(models):
        path = models / CHANGES / name
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
