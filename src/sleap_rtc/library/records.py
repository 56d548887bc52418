"""The record of a model: a chain of revisions in its directory, and a copy for people."""

from __future__ import annotations

import contextlib
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
from sleap_rtc.errors import Damaged, DataError, UnknownModel, UnsafePath
from sleap_rtc.files.durable import TEMPORARY, disk_errors, sync_directory, sync_file
from sleap_rtc.library import chain
from sleap_rtc.library.layout import COPY, RECORD, is_own

HINT: Final = "alias-"
"""How the names of alias hints begin, which lie beside the revisions."""

Change = Callable[[ModelRecord], ModelRecord]
"""A pure function; it may be called more than once, so it sets values and never counts up."""


class Revision(msgspec.Struct, frozen=True):
    """A record as it was read.

    Attributes:
        number: Number of the revision it was read from.
        record: The record.
        hints: Keys of aliases that may name the model.
    """

    number: int
    record: ModelRecord
    hints: tuple[str, ...] = ()


def create(directory: Path, record: ModelRecord, *, sync: bool = True) -> ModelRecord:
    """Put the first revision into a directory that isn't yet visible to others.

    Args:
        directory: Where the model is being put together; a record in it is replaced.
        record: The record; its paths are checked.
        sync: Whether it is on the disk when this returns; else that is for the caller to see to.

    Returns:
        The record as it will be read.

    Raises:
        DataError: The record breaks its own rules.
        UnsafePath: A path in it is refused.
        OutOfSpace: The disk is full.
    """
    folder = directory / RECORD
    data, record = _encode(_in_order(record))
    with disk_errors(folder, need=len(data)):
        try:
            folder.mkdir()
        except FileExistsError:
            shutil.rmtree(folder)
            folder.mkdir()
        # Nobody sees these files before their directory is placed: they need no temporary names.
        try:
            with (directory / COPY).open("xb") as copy:
                copy.write(values.pretty(data))
        except OSError:  # there is one, for instance
            _copy_for_people(directory, data)
        with (folder / chain.file_name(1)).open("xb") as file:
            file.write(data)
            if sync:
                file.flush()
                sync_file(file.fileno())
        if sync:
            sync_directory(folder)
            sync_directory(directory)
    return record


def look(directory: Path | str) -> chain.Revision[ModelRecord] | None:
    """The record as its chain has it, with the number of the newest revision; None without one.

    Raises:
        Damaged: No revision can be read.
        NewerFormat: The newest revision was written by a later sleap-rtc.
    """

    def fault(record: ModelRecord) -> str:
        known = record.directory == _name_of(directory)
        return "" if known else f"it is the record of {record.directory}"

    try:
        # A path as text: most of what reading a record costs beside the system's part is paths.
        return chain.read(f"{directory}/{RECORD}", ModelRecord, fault=fault)
    except Damaged as error:
        model = _name_of(directory).rpartition("_")[2]
        error.hint_text = f"sleap-rtc repair-model {model} brings back what can be read of it."
        raise


def read(directory: Path | str) -> Revision:
    """The record of the model in a directory.

    Raises:
        UnknownModel: There is no model.
        Damaged: No revision can be read.
        NewerFormat: The newest revision was written by a later sleap-rtc.
    """
    return _revision(_read(directory))


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
    for _ in range(chain.ATTEMPTS):
        found = _read(directory)
        base = _revision(found)
        record = _in_order(change(base.record))
        if record == base.record:
            return base
        _check_same_model(base.record, record)
        data, record = _encode(record)
        try:
            made = chain.append(directory / RECORD, found.top, data)
        except FileNotFoundError:
            raise UnknownModel(name=directory.name) from None
        if made:
            _copy_for_people(directory, data)
            return Revision(number=found.top + 1, record=record, hints=base.hints)
    raise chain.busy(directory)


def _read(directory: Path | str) -> chain.Revision[ModelRecord]:
    found = look(directory)
    if found is None:
        raise UnknownModel(name=_name_of(directory))
    return found


def _name_of(directory: Path | str) -> str:
    return str(directory).rpartition("/")[2]


def _revision(found: chain.Revision[ModelRecord]) -> Revision:
    hints = tuple(name.removeprefix(HINT) for name in found.others if name.startswith(HINT))
    return Revision(number=found.number, record=found.value, hints=hints)


def _in_order(record: ModelRecord) -> ModelRecord:
    return msgspec.structs.replace(record, tags=tuple(sorted(set(record.tags))))


def _encode(record: ModelRecord) -> tuple[bytes, ModelRecord]:
    """The record's bytes, and what is read from them: so they can be read again."""
    data = values.encode(record)
    record = values.decode(ModelRecord, data, what=f"record of {record.directory}")
    resume = record.interruption.checkpoint if record.interruption else None
    for path in (record.checkpoint, record.config, resume, *(file.path for file in record.files)):
        if path is not None and is_own(check_path(path)):
            raise UnsafePath(path=path, why="the library keeps its own data there")
    return data, record


def _check_same_model(before: ModelRecord, after: ModelRecord) -> None:
    if (before.id, before.model_type) != (after.id, after.model_type):
        raise DataError(
            what=f"record of {before.directory}", why="a model's id and type never change"
        )


def _copy_for_people(directory: Path, data: bytes) -> None:
    """Write ``model.json``: a convenience, so neither synced nor worth failing for."""
    temporary = directory / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        temporary.write_bytes(values.pretty(data))
        temporary.replace(directory / COPY)
    except OSError as error:
        logger.bind(path=str(directory / COPY), why=str(error)).debug("model.json was not written")
        with contextlib.suppress(OSError):
            temporary.unlink()
