"""Which models a job on a worker means: by id and by content, here and there.

::

    a name ──► in this library? ── yes, with its files ──► meant by its content; the worker uses
                 │                                          its own, or fetches what it lacks here
                 │  yes, without its files ──┐
                 └── no ─────────────────────┴──► the worker is asked by id or name: it must have it

A name never silently means two models: what the worker calls by the same name,
if that is another one, is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from sleap_rtc.client.composing import Located, one_engine
from sleap_rtc.client.tracking import is_whole, resolve_names
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import ref
from sleap_rtc.engines.registry import running
from sleap_rtc.errors import FilesMissing, UnknownModel, UsageError
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import Packed
from sleap_rtc.jobs.spec import ModelRef
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import FindModel, ModelTold
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.serving import serve_model

ONCE_S: Final = 60.0
"""Seconds for a question: the worker may just be coming back."""


def offered_here(entry: Entry, cache: HashCache | None = None) -> Located:
    """A model of this library, offered to whichever worker lacks it.

    Raises:
        FilesMissing: Its files are not here.
        SourceChanged: They aren't what its record says.
    """
    served = serve_model(entry.record, entry.directory, cache=cache)
    served.close()
    return _located(entry.record, entry.label, served.packed)


async def locate(
    names: Sequence[str], *, registry: Registry, link: Link, cache: HashCache | None = None
) -> tuple[Located, ...]:
    """The models that were named, for a job on one worker.

    Args:
        names: Ids, prefixes, aliases, the alias of a pair; of this library or of the worker's.
        registry: This machine's library.
        link: To the worker.
        cache: Hashes of unchanged files.

    Raises:
        UnknownModel: A model is neither here nor there.
        FilesMissing: Its record is here, and its files are neither here nor there.
        AmbiguousName: A prefix fits several.
        SourceChanged: Its files aren't what its record says.
        UsageError: No model is named, or models of different engines.
    """
    if not names:
        raise UsageError(message="Tracking needs a model.", hint="Add --model NAME.")
    worker = _Worker(link)
    found: list[Located] = []
    for name in names:
        try:
            entries = resolve_names(registry, (name,))
        except UnknownModel:
            found.append(await _there(name, worker))
            continue
        for entry in entries:
            located = await _here(entry, worker, cache)
            if len(entries) == 1 and name != entry.id:
                other = await _other(name, located, worker)
                located = msgspec.structs.replace(located, other=other)
            found.append(located)
    one_engine(model.engine for model in found)
    return tuple(found)


class _Worker:
    """The worker that is asked."""

    def __init__(self, link: Link) -> None:
        self.name = link.name
        self._link = link

    async def ask(self, name: str) -> ModelTold | None:
        """What it has under an id or name, None if nothing."""
        try:
            answer = await self._link.request(FindModel(name=name), within_s=ONCE_S)
        except UnknownModel:
            return None
        assert isinstance(answer, ModelTold)  # noqa: S101 - the protocol's table says so
        return answer


async def _there(name: str, worker: _Worker) -> Located:
    """A model that only the worker can have."""
    told = await worker.ask(name)
    if told is None:
        hint = f"{worker.name} hasn't got it either; sleap-rtc list-models shows what there is."
        raise UnknownModel(name=name, hint=hint)
    if told.package is None:
        raise FilesMissing(name=name, files=f"all of them, on {worker.name} too")
    located = _located(told.record, told.alias or told.record.id, None)
    return msgspec.structs.replace(located, there=True)


async def _here(entry: Entry, worker: _Worker, cache: HashCache | None) -> Located:
    """A model that this library knows."""
    told = await worker.ask(entry.id)
    theirs = None if told is None or told.package is None else told.package.id
    if not is_whole(entry):
        known = entry.record.package
        if told is None or theirs is None or known not in (None, theirs):
            hint = f"{worker.name} hasn't got them either: train it again, or name another one."
            raise FilesMissing(name=entry.label, files="all of them, here", hint=hint)
        located = _located(told.record, entry.label, None)
    elif theirs == entry.record.package:
        located = _located(entry.record, entry.label, None)
    else:
        return await asyncio.to_thread(offered_here, entry, cache)
    return msgspec.structs.replace(located, there=True)


async def _other(name: str, located: Located, worker: _Worker) -> ModelRecord | None:
    """The model that the worker calls by this name, if it has other content."""
    try:
        told = await worker.ask(name)
    except UsageError:  # a pair is called so
        return None
    return None if told is None or told.record.package == located.ref.package else told.record


def _located(record: ModelRecord, label: str, packed: Packed | None) -> Located:
    if record.package is None:
        raise FilesMissing(name=label, files="all of them, they were never complete")
    offered = None if packed is None else ref(packed.package)
    return Located(
        ref=ModelRef(id=record.id, package=record.package, offered=offered),
        label=label,
        model_type=record.model_type,
        engine=running(record.training.engine),
        packed=packed,
    )
