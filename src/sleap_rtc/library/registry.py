"""The registry: every model of a client or a worker, and the names that people gave them.

Files are the truth (`layout` draws them), and every process reads them:

=================  ====================================  ==========================
question           read from                             decided by
=================  ====================================  ==========================
get, resolve       the model's and the alias's chain     ·
list, search       the index, which may lag              ·
register, place    ·                                     the rename of a directory
update, mark_…     the record's highest revision         the link of the next one
set_alias          the alias's highest revision          the link of the next one
=================  ====================================  ==========================
"""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain import aliases as alias_rules
from sleap_rtc.domain.ids import PackageId, with_suffix
from sleap_rtc.domain.models import Interruption, Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.errors import (
    AlreadyExists,
    DataError,
    FilesMissing,
    NotFound,
    UnknownModel,
    UsageError,
)
from sleap_rtc.files.durable import TEMPORARY, disk_errors, place_directory, sync_directory
from sleap_rtc.library import chain, changes, layout, placing, records
from sleap_rtc.library.aliases import Alias, AliasChange
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Group, Page, Query
from sleap_rtc.library.finder import Finder
from sleap_rtc.library.index import Index
from sleap_rtc.library.marks import changing

TOMBSTONE_DAYS: Final = 30
"""Days that a deleted model's record and files are kept."""

_MAX_SUFFIX: Final = 9_999
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_TRASHED: Final = re.compile(r"([0-9]{8}T[0-9]{6}Z)-.+")
_ABANDONED_S: Final = 86_400.0

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _timed(method: _Method) -> _Method:
    """Log how long an operation took (REG-11)."""

    @functools.wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            milliseconds = round((time.perf_counter() - started) * 1_000, 3)
            logger.bind(operation=method.__name__, ms=milliseconds).debug("library operation")

    return cast("_Method", timed)


class Registry:
    """The models in one directory. Threads, processes and hosts may share it."""

    def __init__(
        self,
        models_dir: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        index_dir: Path | None = None,
    ) -> None:
        """Make the view; the directory is made by the first change.

        Args:
            models_dir: The library.
            clock: The time now, UTC.
            index_dir: Where indexes are kept, on a local disk; by default the user's cache.
        """
        self.models_dir = models_dir
        self._clock = clock
        self._finder = Finder(models_dir, clock=clock)
        self._index = Index(models_dir, load=self._finder.load, folder=index_dir)

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def incoming(self) -> Path:
        """The folder in which models are put together before they are placed; it is made."""
        folder = self.models_dir / layout.INCOMING
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # Making models

    @_timed
    def register(self, record: ModelRecord) -> Entry:
        """Make a model whose files will come later: one that is to be trained.

        If its id is taken it gets the next suffix, ``-2`` and so on; a model with the same recipe
        is noted in ``same_recipe_as``. Registering the same job's model again changes nothing.

        Args:
            record: With the id that its recipe gives it.

        Returns:
            The model, with the id that it got.

        Raises:
            DataError: The record breaks its rules.
            OutOfSpace: The disk is full; nothing was made.
        """
        assembled = self._incoming()
        try:
            return self._claim(record, assembled, same=_same_job)
        finally:
            shutil.rmtree(assembled, ignore_errors=True)

    @_timed
    def place(self, assembled: Path, record: ModelRecord, *, links: bool = False) -> Entry:
        """Take in a model that came as a whole: it appears by one rename.

        Args:
            assembled: A directory with its files, synced, on the library's file system; a folder
                below ``.incoming``, for instance. It is gone afterwards, unless the model was
                there already.
            record: Lists the files. Its id is kept unless another model has it.
            links: Whether files may be links; only for imports from this machine.

        Returns:
            The model; the one that was there if it has the same id and the same files.

        Raises:
            FilesMissing: A listed file isn't in the directory.
            Damaged: A file's size differs from the list.
            UnsafePath: A path is refused, or a link where none may be.
            OutOfSpace: The disk is full; nothing was placed.
        """
        placing.check_files(assembled, record, links=links)
        for file in assembled.iterdir():
            if layout.is_own(file.name):  # never a model's own, and never taken from a stranger
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        return self._claim(record, assembled, same=_same_files)

    @_timed
    def adopt_files(
        self, name: str, staged: Path, record: ModelRecord, *, links: bool = False
    ) -> Entry:
        """Give a model its files, when its record came first; then one revision lists them.

        What the library knows better is kept: when and how the model came here, its notes, its
        tags (joined with the record's) and where else it is.

        Args:
            name: Id or alias.
            staged: A directory with the files, synced, on the library's file system. Those that
                are listed are moved out of it. After a crash, call this again with the same one.
            record: The model as it is now, with its files; its id need not be the local one.
            links: Whether files may be links; only for imports from this machine.

        Raises:
            FilesMissing: A listed file is neither in the directory nor adopted already.
            Damaged: A file's size differs from the list.
            UnsafePath: A path is refused, or a link where none may be.
            IllegalTransition: The model's status can't become the record's.
        """
        entry = self._finder.get(name)
        now = self._clock()
        changes.arrived(entry.record, record, now)  # what is refused is refused before files move
        with changing(self.models_dir, [entry.directory.name]):
            placing.withdraw(entry.directory, record)
            placing.move_in(staged, entry.directory, record, links=links)
            revision = records.update(
                entry.directory, lambda old: changes.arrived(old, record, now)
            )
        return self._finder.entry(revision, entry.directory)

    # Finding models

    @_timed
    def get(self, name: str) -> Entry:
        """The model with an id or alias; a pair's members are ``fly:centroid`` and so on.

        Raises:
            UnknownModel: There is none.
            AmbiguousName: The alias names a pair.
            Damaged: Its record can't be read.
            NewerFormat: A later sleap-rtc wrote its record.
        """
        return self._finder.get(name)

    @_timed
    def exists(self, name: str) -> bool:
        """Whether an id or alias names something here, even if its record can't be read."""
        return self._finder.exists(name)

    @_timed
    def resolve(self, text: str) -> Entry | Group | Path:
        """What a person means: an id, an alias, 4 or more characters of an id, or a path.

        Returns:
            A model; the models of a pair's alias; or the path of something that no library knows.

        Raises:
            UnknownModel: Nothing fits; similar aliases are suggested.
            AmbiguousName: A prefix fits several models, which are named.
        """
        return self._finder.resolve(text)

    @_timed
    def list(self, query: Query | None = None) -> Page:
        """One page of models, from the index: a change by another process may show a little later.

        Raises:
            UsageError: The limit is not 1 to 1,000, or the cursor is wrong.
        """
        wanted = query or Query()
        if not 1 <= wanted.limit <= MAX_LIMIT:
            raise UsageError(message=f"a page has 1 to {MAX_LIMIT} models, not {wanted.limit}")
        return self._index.page(wanted)

    @_timed
    def get_interrupted(self) -> tuple[Entry, ...]:
        """Every model whose training can go on, newest first, as their records say now."""
        found: list[Entry] = []
        query = Query(statuses=("interrupted",), limit=MAX_LIMIT)
        while True:
            page = self._index.page(query)
            for listed in page.entries:
                with contextlib.suppress(NotFound, DataError):
                    entry = self._finder.read(listed.directory)
                    if entry.record.status == "interrupted":
                        found.append(entry)
            if page.cursor is None:
                return tuple(found)
            query = replace(query, cursor=page.cursor)

    @_timed
    def checkpoint_path(self, name: str) -> Path:
        """Where a model's checkpoint is.

        Raises:
            UnknownModel: There is no such model.
            FilesMissing: It has no checkpoint, or the file is gone or another one.
        """
        entry = self._finder.get(name)
        record = entry.record
        listed = next((file for file in record.files if file.path == record.checkpoint), None)
        if listed is None:
            raise FilesMissing(name=entry.label, files="its checkpoint, which is not here yet")
        try:
            there = placing.check_file(entry.directory, listed, links=True)
        except DataError as error:
            raise FilesMissing(name=entry.label, files=str(error)) from error
        if not there:
            raise FilesMissing(name=entry.label, files=listed.link or listed.path)
        return entry.directory / listed.path

    # Changing models

    @_timed
    def update(self, name: str, change: records.Change) -> Entry:
        """Change a model's record; nobody else's change is lost.

        Args:
            name: Id or alias.
            change: A pure function from the record as it is to the record as it shall be. It may
                be called more than once.

        Raises:
            UnknownModel: There is no such model.
            DataError: The new record breaks its rules; nothing was written.
            OutOfSpace: The disk is full; the old record stands.
        """
        return self._update(self._finder.get(name).directory, change)

    @_timed
    def mark_training(self, name: str) -> Entry:
        """Training began, or goes on after an interruption, which becomes part of its lineage.

        Raises:
            IllegalTransition: It is completed or imported.
        """
        return self._update(self._finder.get(name).directory, changes.trained)

    @_timed
    def mark_completed(
        self,
        name: str,
        metrics: Metrics,
        *,
        files: Iterable[ModelFile] | None = None,
        checkpoint: str | None = None,
        config: str | None = None,
        package: PackageId | None = None,
        training: Training | None = None,
    ) -> Entry:
        """Training ended well.

        Args:
            name: Id or alias.
            metrics: How well the model does.
            files: Every file of the model, which are in its directory and synced; None leaves the
                list as it is. So do the next ones.
            checkpoint: Relative path of the checkpoint to use.
            config: Relative path of the training configuration.
            package: Id of the package of the files.
            training: How it came to be.

        Raises:
            FilesMissing: A listed file isn't there.
            IllegalTransition: It failed or was imported.
        """
        entry = self._finder.get(name)
        now = self._clock()
        listed = None if files is None else tuple(files)
        if listed is not None:
            placing.check_files(entry.directory, replace(entry.record, files=listed), links=False)
        optional = {
            "files": listed,
            "checkpoint": checkpoint,
            "config": config,
            "package": package,
            "training": training,
        }
        given = {field: value for field, value in optional.items() if value is not None}
        return self._update(
            entry.directory, lambda old: changes.completed(old, metrics, now, given)
        )

    @_timed
    def mark_interrupted(
        self, name: str, checkpoint: str | None, epoch: int, *, reason: str = ""
    ) -> Entry:
        """Training stopped early, and can go on.

        Args:
            name: Id or alias.
            checkpoint: Relative path of the checkpoint to go on from, None if there is none yet.
            epoch: Whole epochs that are in it.
            reason: One sentence.

        Raises:
            IllegalTransition: It is completed, failed or imported.
        """
        interruption = Interruption(epoch=epoch, checkpoint=checkpoint, reason=reason)

        return self._update(
            self._finder.get(name).directory, lambda old: changes.interrupted(old, interruption)
        )

    @_timed
    def mark_failed(self, name: str, reason: str) -> Entry:
        """Training can't go on.

        Args:
            name: Id or alias.
            reason: Why, with the last lines of the trainer's log; the last 8,000 characters stay.

        Raises:
            IllegalTransition: It is completed or imported.
        """
        return self._update(
            self._finder.get(name).directory, lambda old: changes.failed(old, reason)
        )

    @_timed
    def delete(self, name: str, *, files: bool = True) -> Path | None:
        """Delete a model: its record is kept for 30 days, its aliases are removed.

        Args:
            name: Id or alias.
            files: Whether its files go to the trash, for 30 days; else they stay where they are,
                and no registry knows them any more.

        Returns:
            Where in the trash the files are, None if they stay.

        Raises:
            UnknownModel: There is no such model.
        """
        entry = self._finder.get(name)
        now = self._clock()
        trash = self._trash(entry.directory.name) if files else None
        with changing(self.models_dir, [entry.directory.name]):
            revision = records.update(entry.directory, lambda old: replace(old, deleted_at=now))
            removed = self._finder.aliases.remove_from(revision.record, revision.hints)
            if trash is not None:
                placing.move_out(entry.directory, trash, keep=lambda name: name == layout.RECORD)
        logger.bind(model=entry.id, aliases=[alias.name for alias in removed]).info(
            "a model was deleted"
        )
        return trash

    @_timed
    def sweep(self) -> int:
        """Remove what was deleted more than 30 days ago; to be called when idle.

        Returns:
            Number of models and trash folders that were removed.
        """
        oldest = self._clock() - timedelta(days=TOMBSTONE_DAYS)
        removed = 0
        for name in self._index.tombstones(round(oldest.timestamp() * 1e6)):
            directory = self.models_dir / name
            with contextlib.suppress(UnknownModel, DataError), changing(self.models_dir, [name]):
                deleted = records.read(directory).record.deleted_at
                if deleted is not None and deleted < oldest:
                    shutil.rmtree(directory / layout.RECORD)
                    with contextlib.suppress(OSError):  # files that were kept stay
                        directory.rmdir()
                    removed += 1
        for folder in _entries(self.models_dir / layout.TRASH):
            match = _TRASHED.fullmatch(folder.name)
            if match is not None and match[1] < oldest.strftime(_STAMP):
                shutil.rmtree(folder)
                removed += 1
        for folder in _entries(self.models_dir / layout.INCOMING):
            age = time.time() - folder.stat().st_mtime
            if folder.name.startswith(TEMPORARY) and age > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)
        return removed

    # Aliases

    @_timed
    def set_alias(self, alias: str, *names: str, force: bool = False) -> AliasChange:
        """Name a model, or the two of a top-down pair in the order in which they run.

        Args:
            alias: The alias; a model's former own alias is removed.
            names: Ids or aliases of one or two models.
            force: Take it away from the model that has it.

        Raises:
            InvalidName: Not a valid alias.
            AliasTaken: Another model has it, or one that differs only by case is there.
            UnknownModel: There is no such model.
        """
        alias_rules.check(alias)
        models = tuple(self._finder.get(name).record for name in names)
        return self._finder.aliases.set(alias, models, force=force)

    @_timed
    def remove_alias(self, alias: str) -> Alias:
        """Remove an alias; its models stay.

        Raises:
            NotFound: There is no such alias.
        """
        return self._finder.aliases.remove(alias)

    @_timed
    def get_alias(self, alias: str) -> Alias | None:
        """What an alias names, None if there is no such alias."""
        return self._finder.aliases.lookup(alias)

    @_timed
    def list_aliases(self) -> tuple[Alias, ...]:
        """Every alias, by name."""
        return self._finder.aliases.all()

    # Inside

    def _claim(
        self,
        record: ModelRecord,
        assembled: Path,
        *,
        same: Callable[[ModelRecord, ModelRecord], bool],
    ) -> Entry:
        """Place a directory under the first free id; the rename decides who has it."""
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
            if holder is not None and same(holder, record):
                if holder.deleted_at is None:
                    return self._finder.read(there)
                with changing(self.models_dir, [there.name]):
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

    def _appear(self, assembled: Path, record: ModelRecord) -> Entry | None:
        """Let a model appear under its id; None if something else appeared there first."""
        target = self.models_dir / record.directory
        records.create(assembled, record)
        with changing(self.models_dir, [target.name]):
            try:
                place_directory(assembled, target)
            except AlreadyExists:
                return None
        self._finder.learn(record.model_type)
        return self._finder.read(target)

    def _retire(self, directory: Path) -> None:
        """Move a deleted model out of the way of one that comes back."""
        trash = self._trash(directory.name)
        with disk_errors(trash):
            trash.parent.mkdir(parents=True, exist_ok=True)
            try:
                directory.rename(trash)
            except FileNotFoundError:  # another process did the same
                return
            moved = chain.read(trash / layout.RECORD, ModelRecord)
            if moved is not None and moved.value.deleted_at is None:
                # Another process did the same, and its model has come back already.
                with contextlib.suppress(AlreadyExists):
                    place_directory(trash, directory)
            sync_directory(self.models_dir)

    def _update(self, directory: Path, change: records.Change) -> Entry:
        def unless_deleted(old: ModelRecord) -> ModelRecord:
            if old.deleted_at is not None:
                raise UnknownModel(name=old.id, hint="It was deleted.")
            return change(old)

        with changing(self.models_dir, [directory.name]):
            revision = records.update(directory, unless_deleted)
        return self._finder.entry(revision, directory)

    def _incoming(self) -> Path:
        folder = self.incoming / f"{TEMPORARY}{secrets.token_hex(8)}"
        with disk_errors(folder):
            folder.mkdir()
        return folder

    def _trash(self, name: str) -> Path:
        stamp = self._clock().astimezone(UTC).strftime(_STAMP)
        return self.models_dir / layout.TRASH / f"{stamp}-{secrets.token_hex(4)}-{name}"


def _same_job(there: ModelRecord, record: ModelRecord) -> bool:
    job = record.training.job
    return (
        there.deleted_at is None
        and job is not None
        and (there.full_hash, there.training.job) == (record.full_hash, job)
    )


def _same_files(there: ModelRecord, record: ModelRecord) -> bool:
    def content(of: ModelRecord) -> set[tuple[str, int, str]]:
        return {(file.path, file.size, file.blake3) for file in of.files}

    return bool(record.files) and content(there) == content(record)


def _record_in(directory: Path) -> ModelRecord | None:
    """The record in a directory, None if it holds none that can be read."""
    with contextlib.suppress(UnknownModel, DataError):
        return records.read(directory).record
    return None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
