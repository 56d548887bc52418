"""Comparing this machine's library with a worker's, and noting where models are.

====================================  ===========================================
a model that                          becomes here
====================================  ===========================================
both have                             seen there, now, at this path
both know, and it went on there       as it is there, unless its files are here
only the worker has                   a record without files, unless deleted here
was there, and is not any more        no longer said to be there
====================================  ===========================================

Nothing is moved, nothing changes on the worker, and what a person wrote here
stays. Two records are of one model when their content is the same, or they were
made at one time under one name of one recipe: ids may differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.client.asking import RemoteModel, WorkerLibrary
from sleap_rtc.client.bringing import follow_model, note_model
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import Location, ModelRecord
from sleap_rtc.errors import DataError, NetworkError, NotFound, UnknownModel
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Query
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import MAX_NAME_TOLD, ListedModel, ListModels

SEEN_EVERY: Final = timedelta(hours=1)
"""A model that was seen less than this ago isn't noted again, when nothing else is new."""

Kind = Literal["updated", "added", "missing", "deleted", "refused"]

_Birth = tuple[datetime, str, str, str | None]


class Step(msgspec.Struct, frozen=True):
    """What became of one model.

    Attributes:
        kind: ``updated``: where or how it is there is new; ``added``: it is known here now;
            ``missing``: it is no longer there; ``deleted``: it is there, and was deleted here;
            ``refused``: its record can't be taken in.
        model: Its id here; there, where it has none here.
        label: What it is called here, or there.
        model_type: The head.
        why: What there is to say.
    """

    kind: Kind
    model: ModelId
    label: str
    model_type: str
    why: str = ""


class Synced(msgspec.Struct, frozen=True):
    """What comparing with one worker did.

    Attributes:
        worker: Its name.
        steps: What is new.
        same: Number of models of which nothing is new.
        more: Models of the worker that were not looked at, there being too many.
    """

    worker: str
    steps: tuple[Step, ...]
    same: int
    more: int


class _Known:
    """The models of this library, by what they are recognised by."""

    def __init__(self, registry: Registry) -> None:
        self.entries = list(_all(registry, Query(limit=MAX_LIMIT)))
        self._by_package: dict[str, Entry] = {}
        self._by_birth: dict[_Birth, Entry] = {}
        for entry in reversed(self.entries):
            record = entry.record
            if record.package is not None:
                self._by_package[record.package] = entry
            self._by_birth[_birth(record)] = entry

    def born_as(self, model: ListedModel) -> Entry | None:
        """The record of a model that was made at the same time, by the same recipe."""
        found = self._by_birth.get(_birth(model))
        if found is None or found.record.package in (None, model.package):
            return found
        # The same recipe and time, and other content: another model, unless it goes on there.
        return found if model.package is None else None

    def same_as(self, model: ListedModel) -> Entry | None:
        """The record of the same model, whatever its id."""
        found = self.born_as(model)
        if found is None and model.package is not None:
            found = self._by_package.get(model.package)
        return found


async def sync_worker(
    library: WorkerLibrary,
    registry: Registry,
    *,
    now: datetime,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Synced:
    """Compare the library with a worker's, and note what is where.

    Args:
        library: The worker's.
        registry: This machine's.
        now: The time, UTC.
        on_progress: Called with the models that are done, and all of them.

    Raises:
        SleapRtcError: The worker can't be asked, or this library can't be written to.
    """
    told = await library.models(ListModels())
    known = await asyncio.to_thread(_Known, registry)
    steps: list[Step] = []
    met: set[ModelId] = set()
    # Of several with one content, that which the record here is of comes first.
    models = sorted(told.models, key=lambda model: known.born_as(model) is None)
    for number, model in enumerate(models):
        on_progress(number, len(models))
        entry = known.same_as(model)
        if entry is None:
            step = await _add(library, registry, model)
        elif entry.id in met:
            step = None
        else:
            met.add(entry.id)
            step = await _update(library, registry, entry, model, now)
        if step is not None:
            steps.append(step)
    same = len(models) - len(steps)
    if not told.more:  # else a model that wasn't named may be there all the same
        steps += await asyncio.to_thread(_gone, library.name, registry, known.entries, met)
    on_progress(len(models), len(models))
    return Synced(worker=library.name, steps=tuple(steps), same=same, more=told.more)


def known_workers(registry: Registry) -> dict[str, datetime]:
    """Workers that are said to have a model → when one was last seen there."""
    found: dict[str, datetime] = {}
    for entry in _all(registry, Query(where="worker", limit=MAX_LIMIT)):
        for at in entry.record.locations:
            if at.kind == "worker":
                found[at.name] = max(at.last_seen, found.get(at.name, at.last_seen))
    return found


async def _add(library: WorkerLibrary, registry: Registry, model: ListedModel) -> Step | None:
    def step(kind: Kind, at: ModelId = model.id, why: str = "") -> Step:
        label = model.alias or at
        return Step(kind=kind, model=at, label=label, model_type=model.model_type, why=why)

    try:
        remote = await library.info(model.id)
        entry, fate = await asyncio.to_thread(
            note_model, registry, remote.record, worker=library.name, path=remote.path
        )
    except UnknownModel:
        return None  # it went away meanwhile
    except NetworkError:
        raise
    except (DataError, NotFound) as error:
        logger.bind(model=model.id, worker=library.name).warning("not taken in: {}", error)
        return step("refused", why=error.message)
    if entry is None:
        return step("deleted", why="it was deleted here, and stays so")
    if fate == "known":
        return None
    why = f"as {entry.id}: its id is another model's here" if fate == "renamed" else ""
    return step("added", entry.id, why)


async def _update(
    library: WorkerLibrary, registry: Registry, entry: Entry, model: ListedModel, now: datetime
) -> Step | None:
    news = _news(entry.record, model)
    try:
        if news:
            remote = await library.info(model.id)
            entry = await asyncio.to_thread(_follow, registry, entry, remote, library.name)
        moved = await asyncio.to_thread(_seen, registry, entry, model, library.name, now)
    except UnknownModel:
        return None  # it went away meanwhile, here or there
    why = f"it is {model.status} there" if news else "seen there" if moved else ""
    if not why:
        return None
    return Step(
        kind="updated",
        model=entry.id,
        label=entry.label,
        model_type=entry.record.model_type,
        why=why,
    )


def _news(record: ModelRecord, model: ListedModel) -> bool:
    """Whether a model whose files aren't here went on where it is."""
    if record.files:
        return False
    metrics = record.metrics
    return (record.status, metrics.best_val_loss, metrics.epochs) != (
        *(model.status, model.best_val_loss, model.epochs),
    )


def _follow(registry: Registry, entry: Entry, remote: RemoteModel, worker: str) -> Entry:
    if remote.cut:  # what is here says more
        return registry.update(entry.id, lambda old: replace(old, status=remote.record.status))
    return follow_model(registry, entry.id, replace(remote.record, files=()), worker=worker)


def _seen(registry: Registry, entry: Entry, model: ListedModel, worker: str, now: datetime) -> bool:
    """Note where a model was seen; whether it wasn't known to be there, at that path."""
    here = Location(kind="worker", name=worker, last_seen=now, path=model.path)
    before = [at for at in entry.record.locations if (at.kind, at.name) == ("worker", worker)]
    known = bool(before) and before[0].path == model.path
    if known and timedelta() <= now - before[0].last_seen < SEEN_EVERY:
        return False
    registry.update(entry.id, lambda old: replace(old, locations=_with(old, here)))
    return not known


def _with(record: ModelRecord, here: Location) -> tuple[Location, ...]:
    return (*_without(record, here.name), here)


def _without(record: ModelRecord, worker: str) -> tuple[Location, ...]:
    return tuple(at for at in record.locations if (at.kind, at.name) != ("worker", worker))


def _gone(worker: str, registry: Registry, entries: list[Entry], met: set[ModelId]) -> list[Step]:
    """Strike the worker from the models that it has no more."""

    def change(old: ModelRecord) -> ModelRecord:
        left = replace(old, locations=_without(old, worker))
        nowhere = not left.files and not left.locations
        return replace(left, status="missing") if nowhere else left

    steps = []
    for entry in entries:
        there = any((at.kind, at.name) == ("worker", worker) for at in entry.record.locations)
        if not there or entry.id in met:
            continue
        try:
            left = registry.update(entry.id, change).record
        except UnknownModel:
            continue  # it was deleted meanwhile
        steps.append(
            Step(
                kind="missing",
                model=entry.id,
                label=entry.label,
                model_type=left.model_type,
                why="" if left.files or left.locations else "its files are nowhere now",
            )
        )
    return steps


def _all(registry: Registry, query: Query) -> Iterator[Entry]:
    while True:
        page = registry.list(query)
        yield from page.entries
        if page.cursor is None:
            return
        query = replace(query, cursor=page.cursor)


def _birth(model: ModelRecord | ListedModel) -> _Birth:
    return model.created_at, model.model_type, model.name[:MAX_NAME_TOLD], model.full_hash
