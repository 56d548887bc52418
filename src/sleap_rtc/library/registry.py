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
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from sleap_rtc.domain import aliases as alias_rules
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import DataError, FilesMissing, NotFound, UnknownModel, UsageError
from sleap_rtc.library import changes, deleting, layout, placing, records
from sleap_rtc.library.aliases import Alias, AliasChange
from sleap_rtc.library.claiming import Claims, same_files, same_job
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Group, Page, Query
from sleap_rtc.library.finder import Finder
from sleap_rtc.library.index import Index
from sleap_rtc.library.lifecycle import LifeCycle
from sleap_rtc.library.marks import changing
from sleap_rtc.library.timing import timed
from sleap_rtc.observe.latency import Latencies


class Registry(LifeCycle):
    """The models in one directory. Threads, processes and hosts may share it.

    Attributes:
        models_dir: The directory.
        latencies: How long each operation took, in this process.
        claims: Places what other parts of the library put together.
    """

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
        self.latencies = Latencies()
        self._finder = Finder(models_dir, clock=clock)
        self.claims = Claims(models_dir, self._finder, clock)
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
        return self.claims.incoming

    # Making models

    @timed
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
            shutil.rmtree(assembled, ignore_errors=True)

    @timed
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

    @timed
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

    @timed
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

    @timed
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
        deleting.delete(self._finder, entry, trash=trash, now=self._clock())
        return trash

    @timed
    def sweep(self) -> int:
        """Remove what was deleted more than 30 days ago; to be called when idle.

        Returns:
            Number of models and trash folders that were removed.
        """
        oldest = deleting.due(self._clock())
        tombstones = self._index.tombstones(round(oldest.timestamp() * 1e6))
        return deleting.sweep(self.models_dir, tombstones, oldest)

    # Aliases

    @timed
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

    @timed
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
