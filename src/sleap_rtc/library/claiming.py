"""How a model gets its directory: the first free id is its own, and one rename decides."""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.ids import ModelId, with_suffix
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import AlreadyExists, DataError, UnknownModel
from sleap_rtc.files.durable import (
    TEMPORARY,
    disk_errors,
    make_directory,
    place_directory,
    sync_directory,
)
from sleap_rtc.library import chain, layout, records
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.finder import Finder
from sleap_rtc.library.marks import changing

STAMP: Final = "%Y%m%dT%H%M%SZ"
"""How the names of folders in the trash begin."""
TRASHED: Final = re.compile(r"([0-9]{8}T[0-9]{6}Z)-(?:[0-9a-f]{8}-)?(.+)")
"""The name of a folder in the trash: when it went there, and what it was called."""

_MAX_SUFFIX: Final = 9_999
_LOOK_EVERY_S: Final = 10.0
"""Seconds for which the newest name in the trash is remembered: it may hold 100,000."""

Fate = Literal["added", "renamed", "known", "deleted"]
"""What becomes of a model that is taken in: it is new here, also under another id, because its own
is another model's; it is here already; it was deleted here and stays so."""

Same = Callable[[ModelRecord, ModelRecord], bool]
"""Whether the model that is there, first, is the one that comes."""


class Prepared(msgspec.Struct, frozen=True):
    """A model whose directory has its record already, and is on the disk.

    Attributes:
        given: The record as it was given.
        made: As it will be read.
    """

    given: ModelRecord
    made: ModelRecord


class Claims:
    """Places models in one library."""

    def __init__(self, models: Path, finder: Finder, clock: Callable[[], datetime]) -> None:
        self._models = models
        self._trash = models / layout.TRASH
        self._finder = finder
        self._clock = clock
        self._newest = ""
        self._look_at = -math.inf
        self._together: Mapping[Path, Prepared] | None = None

    @property
    def incoming(self) -> Path:
        """The folder in which models are put together; it is made."""
        folder = self._models / layout.INCOMING
        make_directory(folder)
        return folder

    def new_folder(self) -> Path:
        """A new folder in which a model can be put together; what is left there is swept away."""
        folder = self.incoming / f"{TEMPORARY}{secrets.token_hex(8)}"
        with disk_errors(folder):
            folder.mkdir()
        return folder

    def trash(self, name: str) -> Path:
        """Where in the trash something would go; nothing is made.

        What goes there is never dated before what is there already, so that a clock that was set
        back doesn't let it be swept away early, once it goes right again.
        """
        stamp = self.now().astimezone(UTC).strftime(STAMP)
        return self._trash / f"{stamp}-{secrets.token_hex(4)}-{name}"

    def now(self) -> datetime:
        """The time, as what goes away is dated: never before what is in the trash already."""
        if time.monotonic() > self._look_at:
            there = map(TRASHED.fullmatch, layout.listing(self._trash))
            self._newest = max((found[1] for found in there if found), default="")
            self._look_at = time.monotonic() + _LOOK_EVERY_S
        now = self._clock()
        self._newest = max(now.astimezone(UTC).strftime(STAMP), self._newest)
        try:
            newest = datetime.strptime(self._newest, STAMP).replace(tzinfo=UTC)
        except ValueError:  # digits that are no time
            return now
        return max(now, newest)

    def holder(self, model: ModelId, model_type: str) -> ModelRecord | None:
        """The record of the model that has an id, deleted or not; None if none can be read."""
        there = self._finder.occupied(model, model_type)
        return None if there is None else _record_in(there)

    def claim(
        self, record: ModelRecord, assembled: Path, *, same: Same, revive: bool = True
    ) -> Entry:
        """Place a directory under the first free id.

        Args:
            record: The model's, with the id that it would like.
            assembled: Its directory, on the library's file system.
            same: A model for which it holds, and which has the id, is the answer.
            revive: Whether such a model that was deleted makes way.

        Raises:
            UnknownModel: It was deleted, and isn't to come back.
            DataError: The record breaks its rules.
            OutOfSpace: The disk is full; nothing was placed.
        """
        number = int(record.id.partition("-")[2] or 1)
        while number <= _MAX_SUFFIX:
            wanted = replace(record, id=with_suffix(record.id, number))
            there = self._finder.occupied(wanted.id, wanted.model_type)
            if there is None:
                entry = self._appear(assembled, wanted)
                if entry is not None:
                    return entry
                continue  # another process was quicker: look at what it made
            holder = _record_in(there)
            if holder is None:
                # Somebody who brings the same back may have moved it away, or back, just now.
                if not os.path.lexists(there):
                    continue
                holder = _record_in(there)
            if holder is not None and same(holder, record):
                if holder.deleted_at is None:
                    return self._finder.read(there)
                if not revive:
                    raise UnknownModel(name=wanted.id, hint="It was deleted.")
                with changing(self._models, [there.name]):
                    self._retire(there)
                continue
            if holder is not None and holder.full_hash == record.full_hash is not None:
                record = replace(record, same_recipe_as=record.same_recipe_as or holder.id)
            logger.bind(
                id=wanted.id,
                taken_by=there.name,
                full_hash=record.full_hash,
                their_full_hash=holder and holder.full_hash,
            ).warning("a model id is taken; the next suffix is tried")
            number += 1
        raise AlreadyExists(what=f"every id from {record.id} to {wanted.id}")

    def take_in(
        self, record: ModelRecord, assembled: Path, *, revive: bool
    ) -> tuple[Entry | None, Fate]:
        """Take in a model that another library knew, by :func:`same_model`.

        Returns:
            What it is here now, None if it stays deleted; and what became of it.
        """
        try:
            entry = self.claim(record, assembled, same=same_model, revive=revive)
        except UnknownModel:
            return None, "deleted"
        if assembled.exists():
            return entry, "known"
        return entry, "added" if entry.id == record.id else "renamed"

    def settle(self, record: ModelRecord, *, revive: bool) -> Entry | None:
        """Make the record of a model whose directory, with its files, is in the library already.

        Args:
            record: The model's.
            revive: Whether one that was deleted, and whose files stayed, comes back.

        Returns:
            None if there is no such directory, or it has a record.
        """
        target = self._models / record.directory
        kept = target / layout.RECORD
        if target.is_symlink() or not target.is_dir():
            return None
        if os.path.lexists(kept):
            there = _record_in(target) if revive else None
            if there is None or there.deleted_at is None or there.status == "missing":
                return None  # of the last kind somebody may still be moving the files away
            with changing(self._models, [target.name]):
                records.update(target, lambda old: record if old.deleted_at is not None else old)
            return self._finder.read(target)
        folder = self.new_folder()
        try:
            records.create(folder, record)
            with changing(self._models, [target.name]), disk_errors(kept):
                place_directory(folder / layout.RECORD, kept)
                with contextlib.suppress(OSError):
                    (folder / layout.COPY).replace(target / layout.COPY)
        except AlreadyExists:  # another process was quicker
            return None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._finder.learn(record.model_type)
        return self._finder.read(target)

    def drop_record(self, directory: Path, *, before: datetime) -> bool:
        """Remove the record of a model that was deleted before a time; files beside it stay.

        It is moved out of the way by one rename and looked at there: if the model came back a
        moment before, its record is put back.

        Returns:
            False when there is none so old.
        """
        trash = self.trash(directory.name)
        make_directory(trash)
        moved = trash / layout.RECORD
        gone: chain.Revision[ModelRecord] | None = None
        with disk_errors(moved), contextlib.suppress(FileNotFoundError):
            (directory / layout.RECORD).rename(moved)
        with contextlib.suppress(DataError):
            gone = chain.read(moved, ModelRecord)
        deleted = None if gone is None else gone.value.deleted_at
        old = deleted is not None and deleted < before
        if not old and moved.is_dir():
            with contextlib.suppress(AlreadyExists):  # what is there is newer still
                place_directory(moved, directory / layout.RECORD)
        if old or not moved.is_dir():
            shutil.rmtree(trash)
        with contextlib.suppress(OSError):  # files that were kept stay
            directory.rmdir()
        return old

    @contextlib.contextmanager
    def together(self, prepared: Mapping[Path, Prepared]) -> Iterator[None]:
        """Within the block these appear without a mark; where they are is synced once, at its end.

        Args:
            prepared: Their directories, which have their record already.
        """
        self._together = prepared
        try:
            yield
        finally:
            self._together = None
            sync_directory(self._models)  # those before one that failed are there

    def _appear(self, assembled: Path, record: ModelRecord) -> Entry | None:
        """Let a model appear under its id; None if something else appeared there first."""
        target = self._models / record.directory
        ready = None if self._together is None else self._together.get(assembled)
        one_by_one = ready is None
        if ready is not None and ready.given == record:
            record = ready.made
        else:
            record = records.create(assembled, record)
        with changing(self._models, [target.name] if one_by_one else []):
            try:
                place_directory(assembled, target, sync=one_by_one)
            except AlreadyExists:
                return None
        self._finder.learn(record.model_type)
        return Entry(record=record, alias=None, folder=str(target))

    def _retire(self, directory: Path) -> None:
        """Move a deleted model out of the way of one that comes back.

        Files that a person kept when it was deleted are never swept away: they stay in the
        library's folder, under a name that is no model's.
        """
        trash = self.trash(directory.name)
        if _was_kept(directory):
            trash = self._models / f"{directory.name}-kept-{secrets.token_hex(4)}"
            logger.bind(model=directory.name, path=str(trash)).warning(
                "files of a deleted model make way for the model that comes back"
            )
        make_directory(trash.parent)
        with disk_errors(trash):
            try:
                directory.rename(trash)
            except FileNotFoundError:  # another process did the same
                return
            moved = chain.read(trash / layout.RECORD, ModelRecord)
            if moved is not None and moved.value.deleted_at is None:
                # Another process did the same, and its model has come back already.
                with contextlib.suppress(AlreadyExists):
                    place_directory(trash, directory)
            sync_directory(trash.parent)
            sync_directory(self._models)


def same_job(there: ModelRecord, record: ModelRecord) -> bool:
    """Whether both are the model of one job, which registers it again after a crash."""
    job = record.training.job
    return (
        there.deleted_at is None
        and job is not None
        and (there.full_hash, there.training.job) == (record.full_hash, job)
    )


def same_files(there: ModelRecord, record: ModelRecord) -> bool:
    """Whether both list the same files with the same content."""

    def content(of: ModelRecord) -> set[tuple[str, int, str]]:
        return {(file.path, file.size, file.blake3) for file in of.files}

    return bool(record.files) and content(there) == content(record)


def same_model(there: ModelRecord, record: ModelRecord) -> bool:
    """Whether two libraries speak of one model: it has the same files, or was made at one time."""

    def birth(of: ModelRecord) -> tuple[object, ...]:
        return of.created_at, of.model_type, of.name, of.full_hash

    return same_files(there, record) or birth(there) == birth(record)


def _was_kept(directory: Path) -> bool:
    """Whether a deleted model's own files lie in its directory since a person wanted them to."""
    record = _record_in(directory)
    if record is None or record.status == "missing":  # then they were to go
        return False
    with contextlib.suppress(OSError):
        for folder, _, names in os.walk(directory):
            below = Path(folder)
            own = below == directory / layout.RECORD
            for name in names:
                copy = below == directory and name == layout.COPY
                if not (own or copy or (below / name).is_symlink()):
                    return True
    return False


def _record_in(directory: Path) -> ModelRecord | None:
    """The record in a directory, None if it holds none that can be read."""
    with contextlib.suppress(UnknownModel, DataError):
        return records.read(directory).record
    return None
