"""Documents that many processes change without a lock: chains of immutable revisions.

::

    00000004.json   ─┐
    00000005.json    │  the last 5 stay
    00000006.json   ─┘  the highest one that can be read is the document

Whoever changes the document reads the highest revision, computes the next, and
makes the file of the next number. Making it fails if another process made it
first; then the change is computed again, on that one's result. So nobody's
change is lost, on NFS neither, and a kill leaves the old document or the new.

A revision that can't be read (a bad disk) is skipped and logged. One of a later
format is not skipped: what it says is newer than anything that could be read
instead, so the whole document is refused and left as it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec
from loguru import logger

from sleap_rtc.domain import values
from sleap_rtc.domain.values import Document
from sleap_rtc.errors import Busy, Damaged, DataError, NewerFormat
from sleap_rtc.files.durable import TEMPORARY, write_new
from sleap_rtc.library.layout import listing

KEPT: Final = 5
ATTEMPTS: Final = 1_000
"""Times that a change is computed again before its chain is called busy."""

_ABANDONED_S: Final = 3_600.0
_USUAL: Final = 32 * 1024
"""Bytes that hold nearly every document."""
_NAME: Final = re.compile(r"([0-9]{8})\.json")

D = TypeVar("D", bound=Document)


class Revision(msgspec.Struct, Generic[D], frozen=True):
    """A document as it was read.

    Attributes:
        number: Number of the revision it was read from.
        top: Highest number there is; more than ``number`` when later ones are damaged.
        value: The document.
        others: Names of other files in the folder.
    """

    number: int
    top: int
    value: D
    others: tuple[str, ...] = ()


def file_name(number: int) -> str:
    """Name of the file of a revision."""
    return f"{number:08d}.json"


def top(folder: Path) -> int:
    """The highest number in a folder, 0 if there is none."""
    return max(_numbers(listing(folder)), default=0)


def read(
    folder: Path | str, kind: type[D], *, fault: Callable[[D], str] = lambda _: ""
) -> Revision[D] | None:
    """The document in a folder, None if there is none.

    Args:
        folder: Holds the chain.
        kind: The document's class.
        fault: Says why a document can't be the right one, empty if it can.

    Raises:
        Damaged: No revision can be read.
        NewerFormat: The newest revision was written by a later sleap-rtc.
    """
    for _ in range(ATTEMPTS):
        names = listing(folder)
        numbers = sorted(_numbers(names), reverse=True)
        if not numbers:
            return None
        try:
            number, value = _highest(folder, numbers, kind, fault)
        except OSError as error:  # pruned by a writer after we looked: look again
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            continue
        others: tuple[str, ...] = ()
        if len(numbers) < len(names):
            others = tuple(sorted(name for name in names if _NAME.fullmatch(name) is None))
        return Revision(number=number, top=numbers[0], value=value, others=others)
    raise busy(folder)


def earlier(folder: Path, kind: type[D]) -> Iterator[D]:
    """Every revision of a document that is kept and can be read, the newest first."""
    for number in sorted(_numbers(listing(folder)), reverse=True):
        path = folder / file_name(number)
        with contextlib.suppress(DataError, OSError):  # damaged, or pruned just now
            yield values.decode(kind, path.read_bytes(), what=str(path))


def append(folder: Path, after: int, data: bytes) -> bool:
    """Make the revision after the top one that its change was computed from.

    Args:
        folder: Holds the chain; it exists.
        after: The top number that was read, 0 when there was none.
        data: The encoded document.

    Returns:
        False when another process was quicker; the change must be computed again. (Very rarely
        also when it wasn't, so a change sets values and doesn't count up.)

    Raises:
        OutOfSpace: The disk is full; the old document stands.
    """
    number = after + 1
    if not write_new(folder / file_name(number), data):
        return False
    names = listing(folder)
    numbers = sorted(_numbers(names))
    if numbers[-1] >= number + KEPT:
        # A writer that slept since it read can make a number that was made and pruned long ago.
        # Pruning needs KEPT later ones: without these ours is new, with them nobody can say.
        return False
    for old in numbers:
        if old <= number - KEPT:
            (folder / file_name(old)).unlink(missing_ok=True)
    for name in names:
        if name.startswith(TEMPORARY):
            _remove_abandoned(folder / name)
    return True


def busy(folder: Path | str) -> Busy:
    """The error for a chain that never stands still."""
    return Busy(what=str(folder), by=", which changes it all the time")


def _remove_abandoned(temporary: Path) -> None:
    """Remove what a killed writer left; a living one needs its file for milliseconds."""
    with contextlib.suppress(OSError):
        if time.time() - temporary.stat().st_mtime > _ABANDONED_S:
            temporary.unlink()


def _content(path: str) -> bytes:
    """What is in a file, or more than any document may have of it."""
    # By the system's own calls: half the time of Python's files, and get() is one of these.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, _USUAL)
        while len(data) <= values.MAX_DOCUMENT and (piece := os.read(fd, max(_USUAL, len(data)))):
            data += piece
        return data
    finally:
        os.close(fd)


def _numbers(names: list[str]) -> list[int]:
    return [int(match[1]) for match in map(_NAME.fullmatch, names) if match]


def _highest(
    folder: Path | str, numbers: list[int], kind: type[D], fault: Callable[[D], str]
) -> tuple[int, D]:
    first = ""
    for number in numbers:
        path = f"{folder}/{file_name(number)}"  # paths as text: a library has many
        try:
            value = values.decode(kind, _content(path), what=path)
            why = fault(value)
        except NewerFormat:
            raise
        except DataError as error:
            why = error.details.get("why", str(error))
        else:
            if not why:
                return number, value
        first = first or why
        logger.bind(path=path, why=why).warning("a damaged revision is skipped")
    raise Damaged(what=str(folder), why=first)
