"""Marks of changes, by which the indexes of other processes and hosts notice them.

::

    .changes/4c1d2e3f4a5b6c7d~centroid_3f2a9c01   a change is being made
    .changes/4c1d2e3f4a5b6c7d-centroid_3f2a9c01   it was made (or given up)
    .changes/4c1d2e3f4a5b6c7d-all                 many were made: look through all models
    .changes/4c1d2e3f4a5b6c7d~all                 … are being made; locked as long as that goes on

A writer leaves the mark before its change and renames it afterwards: an index
that reads the model in between reads it again for the new name. A writer that
dies leaves the first form, which is read again each time until it is pruned.
That of many changes is locked by its writer: who finds it free knows that the
writer died. Marks are kept for an hour; an index that slept longer looks at the whole tree.
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

from sleap_rtc.files.durable import TEMPORARY, disk_errors
from sleap_rtc.files.locking import try_lock
from sleap_rtc.library.layout import CHANGES, listing

KEPT_S: Final = 3_600.0
"""Seconds that a mark is kept."""

ALL: Final = "all"
"""In place of a directory's name: any may have changed, or be new. While that goes on, whoever
reads such a mark need do nothing: it is about more than anybody waits for; unless
its writer died: see :func:`is_over`."""

_NAME: Final = re.compile(r"[0-9a-f]{16}([-~])(all|[a-z][a-z0-9_]*_[0-9a-f]{8}(?:-[0-9]{1,4})?)")


class Mark(msgspec.Struct, frozen=True):
    """A mark that was found.

    Attributes:
        name: Its file name, which is never used twice.
        directory: Name of the model's directory, or :data:`ALL`.
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
        directories: Names of the models' directories; :data:`ALL` for a great many.

    Raises:
        OutOfSpace: There is no room for a mark; the change isn't begun.
        PathNotPermitted: The library can't be written to.
    """
    folder = f"{models}/{CHANGES}"  # as text: each change makes a mark
    made: list[tuple[str, str]] = []
    locked: list[int] = []
    try:
        with disk_errors(models / CHANGES / "mark"):
            for directory in directories:
                unique = secrets.token_hex(8)
                begun, done = f"{folder}/{unique}~{directory}", f"{folder}/{unique}-{directory}"
                if directory == ALL:
                    locked.append(_make_locked(begun))
                else:
                    os.close(_make(begun))
                made.append((begun, done))
                if unique.startswith("00"):  # one in 256 writers looks for old marks
                    prune(models)
        yield
    finally:
        for begun, done in made:
            _finish(begun, done)
        for fd in locked:
            os.close(fd)


def _make(path: str) -> int:
    """A new file, open."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666)


def _make_locked(path: str) -> int:
    """A new file that was locked before it had its name; it stays so until it is closed."""
    unnamed = f"{os.path.dirname(path)}/{TEMPORARY}{secrets.token_hex(8)}"  # noqa: PTH120 - text
    fd = _make(unnamed)
    try:
        with contextlib.suppress(OSError):  # without a lock nobody knows, and waits for a look
            try_lock(fd)
        os.rename(unnamed, path)  # noqa: PTH104 - text
    except BaseException:
        os.close(fd)
        raise
    return fd


def _finish(begun: str, done: str) -> None:
    with contextlib.suppress(OSError):
        try:
            if begun.endswith(f"~{ALL}"):
                os.utime(begun)  # it is kept for an hour from now
            os.rename(begun, done)  # noqa: PTH104 - text
        except FileNotFoundError:  # it took more than an hour, and the mark was pruned
            os.close(_make(done))


def is_over(models: Path, mark: Mark) -> bool:
    """Whether a change was made or given up; of many changes also whether their writer died.

    Where the file system has no locks, nobody is taken for dead. Where they don't reach other
    hosts, a writer of another host may be; it is heard of once more when it has done.
    """
    if mark.done or mark.directory != ALL:
        return mark.done
    try:
        fd = os.open(models / CHANGES / mark.name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # it was done just now, and has its other name
        return False
    try:
        return try_lock(fd, shared=True) == "had"
    except OSError:
        return False
    finally:
        os.close(fd)


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
        # A path as text: each question to an index asks for it.
        return os.stat(f"{models}/{CHANGES}").st_mtime_ns  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return 0


def prune(models: Path) -> None:
    """Remove marks that are older than an hour."""
    oldest = time.time() - KEPT_S  # file times are wall-clock times
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(models / CHANGES) as found,
    ):
        for mark in found:
            with contextlib.suppress(OSError):
                if mark.stat(follow_symlinks=False).st_mtime < oldest:
                    os.unlink(mark.path)  # noqa: PTH108 - there may be thousands
