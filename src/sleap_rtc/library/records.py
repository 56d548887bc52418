"""The record of a model: a chain of immutable revisions.

::

    .record/00000004.json   ─┐
    .record/00000005.json    │  the last 5 stay
    .record/00000006.json   ─┘  the highest one that can be read is the record

A change reads the highest revision, computes the next record, and makes the
file of the next number. Making it fails if another process made it first; then
the change is computed again, on that one's result. So nobody's change is lost,
without any lock, and a kill leaves either the old record or the new one.

A revision that can't be read (a bad disk) is skipped and logged. One of a later
format is not skipped: its content is newer than what we could read, so the
model is refused as a whole and left as it is.
"""

from __future__ import annotations

import contextlib
import errno
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.domain import values
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import Busy, Damaged, DataError, NewerFormat, UnknownModel, UnsafePath
from sleap_rtc.files.durable import TEMPORARY, disk_errors, sync_directory, sync_file, write_new
from sleap_rtc.library.layout import COPY, RECORD, is_own, listing

KEPT: Final = 5
HINT: Final = "alias-"
"""How the names of alias hints begin, which lie beside the revisions."""

_ATTEMPTS: Final = 1_000
_NAME: Final = re.compile(r"([0-9]{8})\.json")

Change = Callable[[ModelRecord], ModelRecord]
"""A pure function; it may be called more than once, so it sets values and never counts up."""


class Revision(msgspec.Struct, frozen=True):
    """A record as it was read.

    Attributes:
        number: Number of the revision it was read from.
        top: Highest number there is; more than ``number`` when later ones are damaged.
        record: The record.
        hints: Keys of aliases that may name the model.
    """

    number: int
    top: int
    record: ModelRecord
    hints: tuple[str, ...] = ()


def create(directory: Path, record: ModelRecord) -> None:
    """Put the first revision into a directory that isn't yet visible to others.

    Args:
        directory: Where the model is being put together; a record in it is replaced.
        record: The record; its paths are checked.

    Raises:
        DataError: The record breaks its own rules.
        UnsafePath: A path in it is refused.
        OutOfSpace: The disk is full.
    """
    folder = directory / RECORD
    record = _in_order(record)
    data = _encode(record, what=f"record of {record.directory}")
    with disk_errors(folder, need=len(data)):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        _copy_for_people(directory, record)
        # Nobody sees this file before its directory is placed: it needs no temporary name.
        with (folder / _file(1)).open("xb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        sync_directory(folder)
        sync_directory(directory)


def read(directory: Path) -> Revision:
    """The record of the model in a directory.

    Raises:
        UnknownModel: There is no model.
        Damaged: No revision can be read.
        NewerFormat: The newest revision was written by a later sleap-rtc.
    """
    for _ in range(_ATTEMPTS):
        numbers, hints = _listing(directory)
        try:
            return _highest(directory, numbers, hints)
        except OSError as error:  # pruned by a writer after we looked: look again
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
    raise Busy(what=str(directory), by=", which changes its record all the time")


def update(directory: Path, change: Change) -> Revision:
    """Change a record; redone on the newer record when another process changes it meanwhile.

    Args:
        directory: The model's directory.
        change: Called with the record as it is; returns it as it shall be.

    Returns:
        The revision that holds the change; the one that was there if it changes nothing.

    Raises:
        UnknownModel: There is no model.
        DataError: The new record breaks its rules; nothing was written.
        Damaged: No revision can be read.
        NewerFormat: The newest revision was written by a later sleap-rtc.
        OutOfSpace: The disk is full; the old record stands.
    """
    for _ in range(_ATTEMPTS):
        base = read(directory)
        record = _in_order(change(base.record))
        if record == base.record:
            return base
        _check_same_model(base.record, record)
        data = _encode(record, what=f"record of {record.directory}")
        number = base.top + 1
        try:
            made = write_new(directory / RECORD / _file(number), data)
        except FileNotFoundError:
            raise UnknownModel(name=directory.name) from None
        if made and _follows(directory, base.top):
            _prune(directory, number)
            _copy_for_people(directory, record)
            return Revision(number=number, top=number, record=record, hints=base.hints)
    raise Busy(what=str(directory), by=", which changes its record all the time")


def _follows(directory: Path, base: int) -> bool:
    """Whether the revision just made really follows the one it was computed from.

    A writer that slept since it read could make a number that others made and pruned long ago.
    The lowest numbers are pruned first, so while the base is there its successor never was.
    When the base has gone the change is simply made again, on top.
    """
    return (directory / RECORD / _file(base)).exists()


def _prune(directory: Path, newest: int) -> None:
    numbers, _ = _listing(directory)
    for number in sorted(numbers):
        if number <= newest - KEPT:
            (directory / RECORD / _file(number)).unlink(missing_ok=True)


def _listing(directory: Path) -> tuple[list[int], tuple[str, ...]]:
    found = listing(directory / RECORD)
    matches = [_NAME.fullmatch(name) for name in found]
    numbers = sorted((int(match[1]) for match in matches if match), reverse=True)
    if not numbers:
        raise UnknownModel(name=directory.name)
    hints = tuple(sorted(name.removeprefix(HINT) for name in found if name.startswith(HINT)))
    return numbers, hints


def _highest(directory: Path, numbers: list[int], hints: tuple[str, ...]) -> Revision:
    why = ""
    for number in numbers:
        path = directory / RECORD / _file(number)
        try:
            record = values.decode(ModelRecord, path.read_bytes(), what=str(path))
            if record.directory != directory.name:
                raise Damaged(what=str(path), why=f"it is the record of {record.directory}")
        except NewerFormat:
            raise
        except DataError as error:
            why = why or str(error)
            logger.bind(path=str(path), why=str(error)).warning(
                "a damaged revision of a model's record is skipped"
            )
            continue
        return Revision(number=number, top=numbers[0], record=record, hints=hints)
    raise Damaged(what=f"the record of {directory.name}", why=why)


def _in_order(record: ModelRecord) -> ModelRecord:
    return msgspec.structs.replace(record, tags=tuple(sorted(set(record.tags))))


def _encode(record: ModelRecord, *, what: str) -> bytes:
    """The record's bytes, after making sure that they can be read again."""
    data = values.encode(record)
    values.decode(ModelRecord, data, what=what)
    resume = record.interruption.checkpoint if record.interruption else None
    for path in (record.checkpoint, record.config, resume, *(file.path for file in record.files)):
        if path is not None and is_own(check_path(path)):
            raise UnsafePath(path=path, why="the library keeps its own data there")
    return data


def _check_same_model(before: ModelRecord, after: ModelRecord) -> None:
    if (before.id, before.model_type) != (after.id, after.model_type):
        raise DataError(
            what=f"record of {before.directory}", why="a model's id and type never change"
        )


def _copy_for_people(directory: Path, record: ModelRecord) -> None:
    """Write ``model.json``: a convenience, so neither synced nor worth failing for."""
    temporary = directory / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        temporary.write_bytes(values.encode_pretty(record))
        temporary.replace(directory / COPY)
    except OSError as error:
        logger.bind(path=str(directory / COPY), why=str(error)).debug("model.json was not written")
        with contextlib.suppress(OSError):
            temporary.unlink()


def _file(number: int) -> str:
    return f"{number:08d}.json"
