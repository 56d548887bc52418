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
import math
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain import aliases as alias_rules
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import (
    DataError,
    FilesMissing,
    NotFound,
    SleapRtcError,
    UnknownModel,
    UsageError,
)
from sleap_rtc.files.durable import written_whole
from sleap_rtc.library import changes, deleting, layout, manifest, placing, records
from sleap_rtc.library.aliases import Alias, AliasChange
from sleap_rtc.library.christening import Wanted, christen
from sleap_rtc.library.claiming import Claims, Fate, same_files, same_job
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Group, Page, Query
from sleap_rtc.library.finder import Finder, Unreadable
from sleap_rtc.library.index import Index, Recovered
from sleap_rtc.library.lifecycle import LifeCycle
from sleap_rtc.library.marks import changing
from sleap_rtc.library.rows import Known
from sleap_rtc.library.telling import Told, counted, unseen
from sleap_rtc.library.timing import timed, timed_change
from sleap_rtc.observe.latency import Latencies

_QUICK: Final = 200
"""Models up to which a manifest is written whenever a process that changed something ends."""
_OLD_S: Final = 86_400.0
_PAIR: Final = 2


class Registry(LifeCycle):
    """The models in one directory. Threads, processes and hosts may share it.

    Attributes:
        models_dir: The directory.
        latencies: How long each operation took, in this process.
        changed: Whether this process changed something since the manifest was last written.
        claims: Places what other parts of the library put together.
    """

    def __init__(
        self,
        models_dir: Path,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        index_dir: Path | None = None,
        told: Told = unseen,
    ) -> None:
        """Make the view; the directory is made by the first change.

        Args:
            models_dir: The library.
            clock: The time now, UTC.
            index_dir: Where indexes are kept, on a local disk; by default the user's cache.
            told: Told how far it is whenever somebody waits for more than an answer: for an index
                that is made, or a large library's manifest.
        """
        self.models_dir = models_dir
        self._clock = clock
        self.latencies = Latencies()
        self.changed = False
        self._finder = Finder(models_dir, clock=clock)
        self.claims = Claims(models_dir, self._finder, clock)
        self._told = told
        self._index = Index(models_dir, load=self._finder.load, folder=index_dir, told=told)

    def close(self) -> None:
        """Write the manifest if something changed and that is quick; close the index."""
        if self.changed:
            self._write_manifest_at_the_end()
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
    def recovered(self) -> Recovered | None:
        """What was built anew in place of a damaged index, if one was met."""
        return self._index.recovered

    @property
    def incoming(self) -> Path:
        """The folder in which models are put together before they are placed; it is made."""
        return self.claims.incoming

    # Making models

    @timed_change
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
        assembled = self.claims.new_folder()
        try:
            return self.claims.claim(record, assembled, same=same_job)
        finally:
            if os.path.lexists(assembled):  # as a rule it has its place now
                shutil.rmtree(assembled, ignore_errors=True)

    @timed_change
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
        return self.claims.claim(record, assembled, same=same_files)

    @timed_change
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

    @timed_change
    def take_in(
        self,
        record: ModelRecord,
        assembled: Path | None = None,
        *,
        links: bool = False,
        revive: bool = False,
    ) -> tuple[Entry | None, Fate]:
        """Take in a model that another library knew: its record, with its files or without.

        Args:
            record: As it was there.
            assembled: A directory with its files, as for :meth:`place`; None if there are none.
                Where some lack, the record's status is ``missing`` or ``failed``.
            links: Whether files may be links; only to what was verified on this machine.
            revive: Whether a model that was deleted here comes back.

        Returns:
            What it is here now, None if it stays deleted; and what became of it. A model that is
            here already stays as it is.

        Raises:
            DataError: The record breaks its rules.
            FilesMissing: A listed file isn't in the directory.
            OutOfSpace: The disk is full; nothing was taken in.
        """
        if assembled is not None:
            listed = record.files
            if record.status in ("missing", "failed"):  # what lacks can be mended
                if all(map(layout.is_own, layout.listing(assembled))):  # as of most such models
                    listed = ()
                listed = tuple(f for f in listed if os.path.lexists(assembled / check_path(f.path)))
            placing.check_files(assembled, replace(record, files=listed), links=links)
            return self.claims.take_in(record, assembled, revive=revive)
        folder = self.claims.new_folder()
        try:
            return self.claims.take_in(record, folder, revive=revive)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @timed_change
    def settle(
        self, record: ModelRecord, *, links: bool = False, revive: bool = False
    ) -> Entry | None:
        """Make the record of a model whose directory, with its files, is in the library already.

        Args:
            record: Lists the files, which were verified.
            links: Whether files may be links; only for imports from this machine.
            revive: Whether a model comes back that was deleted while its files stayed.

        Returns:
            None if its directory isn't here, or has a record.

        Raises:
            DataError: The record breaks its rules.
            FilesMissing: A listed file isn't there.
        """
        placing.check_files(self.models_dir / record.directory, record, links=links)
        return self.claims.settle(record, revive=revive)

    # Finding models

    def walk(self) -> Iterator[Entry | Unreadable]:
        """Every model, by its files and in no order, those that can't be read among them.

        For what looks at everything, and takes its time; :meth:`list` is quick.
        """
        return self._finder.walk()

    def suggest(self, alias: str, model: ModelId | None = None) -> tuple[str, ...]:
        """Free aliases near one that is taken; see :func:`sleap_rtc.library.naming.suggestions`."""
        return self._finder.aliases.suggest(alias, model)

    @timed
    def get(self, name: str) -> Entry:
        """The model with an id or alias; a pair's members are ``fly:centroid`` and so on.

        Raises:
            UnknownModel: There is none.
            AmbiguousName: The alias names a pair.
            Damaged: Its record can't be read.
            NewerFormat: A later sleap-rtc wrote its record.
        """
        return self._finder.get(name)

    @timed
    def exists(self, name: str) -> bool:
        """Whether an id or alias names something here, even if its record can't be read."""
        return self._finder.exists(name)

    def known(self, model: ModelId, model_type: str) -> ModelRecord | None:
        """What is known of an id, of a deleted model too; None if it's nothing that can be read."""
        return self.claims.holder(model, model_type)

    @timed
    def resolve(self, text: str) -> Entry | Group | Path:
        """What a person means: an id, an alias, 4 or more characters of an id, or a path.

        Returns:
            A model; the models of a pair's alias; or the path of something that no library knows.

        Raises:
            UnknownModel: Nothing fits; similar aliases are suggested.
            AmbiguousName: A prefix fits several models, which are named.
        """
        return self._finder.resolve(text)

    @timed
    def list(self, query: Query | None = None) -> Page:
        """One page of models, from the index: a change by another process may show a little later.

        Raises:
            UsageError: The limit is not 1 to 1,000, or the cursor is wrong.
        """
        wanted = query or Query()
        if not 1 <= wanted.limit <= MAX_LIMIT:
            raise UsageError(message=f"a page has 1 to {MAX_LIMIT} models, not {wanted.limit}")
        return self._index.page(wanted)

    @timed
    def count(self, query: Query) -> int:
        """How many models a list has from its cursor on, without its limit.

        Raises:
            UsageError: The cursor or the text is wrong.
        """
        return self._index.count(query)

    @timed
    def in_use(self, field: Known, beginning: str = "", *, most: int = 1_000) -> Sequence[str]:
        """What the models have in a field, in order; from the index.

        Args:
            field: Which one.
            beginning: What it begins with, whatever its case.
            most: How many at most.
        """
        return self._index.in_use(field, beginning, most=most)

    @timed
    def get_interrupted(self) -> tuple[Entry, ...]:
        """Every model whose training can go on, newest first, as their records say now."""
        found: list[Entry] = []
        for listed in self._listed(Query(statuses=("interrupted",), limit=MAX_LIMIT)):
            with contextlib.suppress(NotFound, DataError):
                entry = self._finder.read(listed.directory)
                if entry.record.status == "interrupted":
                    found.append(entry)
        return tuple(found)

    @timed
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

    @timed_change
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

    @timed_change
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
        trash = self.claims.trash(entry.directory.name) if files else None
        deleting.delete(self._finder, entry, trash=trash, now=self.claims.now())
        return trash

    @timed
    def sweep(self) -> int:
        """Remove what was deleted more than 30 days ago; to be called when idle.

        A delete that a crash cut short is finished: its files go to the trash.

        Returns:
            Number of models and trash folders that were removed.
        """
        oldest = deleting.due(self._clock())
        now_us = round(self._clock().timestamp() * 1e6)
        deleted = self._index.tombstones(now_us + 1)
        for name in deleted:
            deleting.finish(self.models_dir / name, self.claims.trash(name))
        return deleting.sweep(self.claims, self.models_dir, deleted, oldest)

    def tombstones(self) -> Sequence[str]:
        """Directories of models that were deleted less than 30 days ago, in no order."""
        return self._index.tombstones(2**62)

    def former_aliases(self, record: ModelRecord, folder: Path) -> Sequence[Alias]:
        """What a deleted model was called, by itself and in a pair.

        Args:
            record: With the time of its deletion.
            folder: Where its record is: its directory, or one in the trash.
        """
        names = layout.listing(folder / layout.RECORD)
        hints = [n.removeprefix(records.HINT) for n in names if n.startswith(records.HINT)]
        return tuple(self._finder.aliases.former(record.id, hints, record.deleted_at))

    @timed
    def write_manifest(self) -> None:
        """Write ``manifest.json`` beside the models (REG-8); to be called when idle.

        Another registry's manifest there, which is still to be migrated, is left alone.

        Raises:
            OutOfSpace: The disk is full; the old one stands.
            PathNotPermitted: The library can't be written to.
        """
        path = self.models_dir / manifest.NAME
        if path.exists() and not manifest.is_ours(path):
            return
        as_of = self._clock()
        self.changed = False
        with written_whole(path) as file:
            models = counted(
                self._listed(Query(limit=MAX_LIMIT)), self._index.count(Query()), self._told
            )
            manifest.write(file, manifest.once(models), self.list_aliases(), as_of=as_of)

    # Aliases

    @timed_change
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

    @timed_change
    def set_first_aliases(
        self, wanted: Sequence[tuple[str, tuple[ModelId, ...]]]
    ) -> frozenset[str]:
        """Give many models names, all at once, as far as these are plain.

        Args:
            wanted: Valid aliases, each with the ids of its models.

        Returns:
            Those that were given. The others are for :meth:`set_alias`: the name was used before,
            or a model has one, or isn't there; or they are too few.

        Raises:
            OutOfSpace: The disk is full; what was given before stays.
        """
        given: list[Wanted] = []
        for name, ids in wanted:
            if self._finder.aliases.was_used(name):
                continue
            with contextlib.suppress(NotFound, DataError):
                entries = tuple(self._finder.get(model) for model in ids)
                if len({entry.record.model_type for entry in entries}) == len(ids) <= _PAIR:
                    given.append(Wanted(name, entries))
        return christen(self.models_dir, given, now=self._clock())

    @timed_change
    def remove_alias(self, alias: str) -> Alias:
        """Remove an alias; its models stay.

        Raises:
            NotFound: There is no such alias.
        """
        return self._finder.aliases.remove(alias)

    @timed
    def get_alias(self, alias: str) -> Alias | None:
        """What an alias names, None if there is no such alias."""
        return self._finder.aliases.lookup(alias)

    def read_aliases(self) -> Iterator[tuple[str, Alias | DataError]]:
        """Every alias by its casefolded name, in no order; or why it can't be read."""
        return self._finder.aliases.each()

    @timed
    def list_aliases(self) -> tuple[Alias, ...]:
        """Every alias, by name."""
        return self._finder.aliases.all()

    # Inside

    def _update(self, directory: Path, change: records.Change) -> Entry:
        def unless_deleted(old: ModelRecord) -> ModelRecord:
            if old.deleted_at is not None:
                raise UnknownModel(name=old.id, hint="It was deleted.")
            return change(old)

        with changing(self.models_dir, [directory.name]):
            revision = records.update(directory, unless_deleted)
        return self._finder.entry(revision, directory)

    def _listed(self, query: Query) -> Iterator[Entry]:
        while True:
            page = self._index.page(query)
            yield from page.entries
            if page.cursor is None:
                return
            query = replace(query, cursor=page.cursor)

    def _write_manifest_at_the_end(self) -> None:
        path = self.models_dir / manifest.NAME
        try:
            large = self._index.page(Query(limit=_QUICK)).cursor is not None
            age = time.time() - path.stat().st_mtime if path.exists() else math.inf
            if not large or age > _OLD_S:
                self.write_manifest()
        except (SleapRtcError, OSError, sqlite3.Error) as error:
            logger.bind(path=str(path), why=str(error)).warning("the manifest was not written")
