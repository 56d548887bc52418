"""What a worker answers about its library (the feature ``library`` of the link).

Every member of the room may ask. What is told of the disk is where each model's
directory is; whether other paths exist is nobody's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.models import SOURCES, STATUSES, Location, ModelFile
from sleap_rtc.domain.values import Value, encode
from sleap_rtc.errors import LinkLost, NoLibrary, UnknownModel, UsageError
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library.checking import looks_like
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Query, Sort, Where
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.watching import LibraryWatch
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.library import (
    MAX_COUNT,
    MAX_FILES_TOLD,
    MAX_NAME_TOLD,
    MAX_PAGE,
    MAX_PATH_TOLD,
    MAX_PLACES,
    AskModel,
    CheckModels,
    FileTold,
    LibraryChanged,
    ListedModel,
    ListModels,
    ModelInfoTold,
    ModelsChecked,
    ModelsTold,
    WantPart,
    fit_record,
)
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.serving import ServedPackage, serve_part

LOOK_EVERY_S: Final = 1.0
"""Seconds between looks for changes, while somebody wants to be told."""
ROOM: Final = MAX_MESSAGE - 8 * 1024
"""Bytes of what a page lists or a record says, with room for the rest of the message."""
RECORD_ROOM: Final = ROOM // 2
FILES_ROOM: Final = ROOM - RECORD_ROOM
"""A record and its files share a message."""

V = TypeVar("V", bound=Value)


class LibraryAnswers:
    """Answers questions about a library, and tells of its changes.

    Args:
        registry: The library.
        cache: Hashes of unchanged files.
    """

    def __init__(self, registry: Registry, *, cache: HashCache) -> None:
        self._registry = registry
        self._cache = cache
        self._watchers: dict[str, Channel] = {}
        self._watching: asyncio.Task[None] | None = None

    def answer(
        self, body: ListModels | AskModel | CheckModels
    ) -> ModelsTold | ModelInfoTold | ModelsChecked:
        """Answer a question; it reads the disk."""
        match body:
            case ListModels():
                return self.list(body)
            case AskModel():
                return self.info(body)
            case CheckModels():
                return self.check(body)

    def list(self, body: ListModels) -> ModelsTold:
        """A page of models.

        Raises:
            UsageError: A filter, sort or cursor that this version doesn't know.
            NoLibrary: The library can't be read.
        """
        query = _query(body)
        with library_errors():
            while True:
                page = self._registry.list(query)
                listed = tuple(map(listed_model, page.entries))
                fitting = _fitting(listed, ROOM)
                if fitting == len(listed):
                    break
                # The cursor of a shorter page: one model always fits, its fields are bounded.
                query = replace(query, limit=fitting)
            more = self._count(query, page.cursor) if body.count else None
        return ModelsTold(models=listed, cursor=page.cursor, more=more)

    def info(self, body: AskModel) -> ModelInfoTold:
        """Everything about one model.

        Raises:
            UnknownModel: There is none of that name.
            UsageError: The name is a pair's.
            NoLibrary: The library can't be read.
        """
        with library_errors():
            entry = find(self._registry, body.name)
            slim, cut = fit_record(entry.record, RECORD_ROOM)
            files = entry.record.files
            wanted = files[body.first : body.first + MAX_FILES_TOLD]
            fitting = _fitting(
                (FileTold(file=file, state="missing") for file in wanted), FILES_ROOM
            )
            told = tuple(_told(entry.directory, file) for file in wanted[:fitting])
        return ModelInfoTold(
            record=slim,
            alias=entry.alias or "",
            path=_path(entry.directory),
            cut=cut,
            size=min(entry.record.size, MAX_COUNT),
            files=len(files),
            first=min(body.first, len(files)),
            told=told,
        )

    def check(self, body: CheckModels) -> ModelsChecked:
        """Which of some names there are.

        Raises:
            NoLibrary: The library can't be read.
        """
        with library_errors():
            return ModelsChecked(exist=tuple(map(self._registry.exists, body.names)))

    def part(self, body: WantPart) -> ServedPackage:
        """Some of a model's files, to be served.

        Raises:
            UnknownModel: There is no such model.
            FilesMissing: None of these files is there.
            NoLibrary: The library can't be read.
        """
        with library_errors():
            entry = self._registry.get(body.model)
        return serve_part(entry.record, entry.directory, set(body.hashes), cache=self._cache)

    # ── telling of changes ───────────────────────────────────────────────────

    def watch(self, session: str, channel: Channel) -> None:
        """Tell a peer of every change from now on; said again it is the same.

        Raises:
            NoLibrary: The library can't be read.
        """
        if self._watching is None:
            with library_errors():
                watch = LibraryWatch(self._registry.models_dir)
            self._watching = asyncio.create_task(self._keep_looking(watch))
        self._watchers[session] = channel

    def unwatch(self, session: str) -> None:
        """Tell it no more."""
        self._watchers.pop(session, None)
        if not self._watchers and self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _keep_looking(self, watch: LibraryWatch) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                changed = await asyncio.to_thread(watch.look)
            except OSError as error:
                logger.warning("the library can't be looked at for changes: {}", error)
                continue
            if not changed:
                continue
            named = () if changed.any or len(changed.models) > MAX_PAGE else changed.models
            for channel in tuple(self._watchers.values()):
                with contextlib.suppress(LinkLost):
                    await channel.tell(LibraryChanged(models=named))

    def _count(self, query: Query, cursor: str | None) -> int:
        more = 0
        while cursor is not None:
            page = self._registry.list(replace(query, cursor=cursor, limit=MAX_LIMIT))
            more += len(page.entries)
            cursor = page.cursor
        return more


def find(registry: Registry, name: str) -> Entry:
    """The model that a peer means.

    Raises:
        UnknownModel: There is none.
        UsageError: The name is a pair's.
    """
    found = registry.resolve(name)
    if isinstance(found, Path):  # what is on this disk beside models is nobody's business
        raise UnknownModel(name=name)
    if not isinstance(found, Entry):
        members = ", ".join(f"{found.alias}:{entry.record.model_type}" for entry in found.entries)
        raise UsageError(
            message=f"{name!r} is not one model.",
            hint=f"Name the members of a pair one by one: {members}.",
        )
    return found


def listed_model(entry: Entry) -> ListedModel:
    """A model as lists show it: whatever its record says, this fits a message."""
    record = entry.record
    metrics = record.metrics
    return ListedModel(
        id=record.id,
        alias=(entry.alias or "")[:MAX_NAME_TOLD],
        name=record.name[:MAX_NAME_TOLD],
        model_type=record.model_type,
        status=record.status,
        source=record.source,
        created_at=record.created_at,
        completed_at=record.completed_at,
        full_hash=record.full_hash,
        package=record.package,
        size=min(record.size, MAX_COUNT),
        files=len(record.files),
        best_val_loss=metrics.best_val_loss,
        final_val_loss=metrics.final_val_loss,
        epochs=metrics.epochs,
        tags=record.tags,
        locations=_places(record.locations),
        path=_path(entry.directory),
    )


def _places(locations: Iterable[Location]) -> tuple[Location, ...]:
    newest = sorted(locations, key=lambda at: at.last_seen, reverse=True)[:MAX_PLACES]
    return tuple(
        Location(kind=at.kind, name=at.name[:MAX_NAME_TOLD], last_seen=at.last_seen)
        for at in newest
    )


def _path(directory: Path) -> str:
    path = str(directory)
    return path if len(path) <= MAX_PATH_TOLD else ""


def _told(directory: Path, file: ModelFile) -> FileTold:
    state = looks_like(directory, file)
    # Where a link leads to on this disk is nobody's business.
    return FileTold(file=replace(file, link=None), state="there" if state == "ok" else state)


def _query(body: ListModels) -> Query:
    """The library's query for a peer's.

    Raises:
        UsageError: A word that this version doesn't know.
    """
    for words, known, what in (
        (body.statuses, STATUSES, "status"),
        (body.sources, SOURCES, "source"),
        ((body.where,), get_args(Where), "place"),
        ((body.sort,), get_args(Sort), "sort"),
    ):
        for word in words:
            if word not in known:
                raise UsageError(
                    message=f"The worker knows no {what} {word!r}.",
                    hint=f"It knows {', '.join(known)}.",
                )
    given: dict[str, Any] = {
        name: getattr(body, name)
        for name in (
            *("statuses", "types", "sources", "tags", "where", "at", "text"),
            *("sort", "reverse", "limit", "cursor"),
        )
    }
    return Query(**given)


def _fitting(values: Iterable[V], room: int) -> int:
    """How many of the first values fit into so many bytes."""
    taken = number = 0
    for value in values:
        taken += len(encode(value)) + 1
        if taken > room:
            break
        number += 1
    return number


@contextlib.contextmanager
def library_errors() -> Iterator[None]:
    """A library that can't be read is said to be so; the log has the rest."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        logger.opt(exception=error).warning("the library can't be read")
        why = (
            os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "its index"
        )
        raise NoLibrary(why=why.lower()) from None
