"""Pushing a model of this library to a worker (PUSH-1).

::

    files checked ─► weighed there ── same ───► noted where it is, nothing moves
                        │ other ──► decided: skip · overwrite · keep both
                        ▼
                     offered ─► the worker fetches what it lacks ─► it is in its library
                                  └── cut: the same call goes on ◄──┘ noted where it is

With ``--transport s3`` it is not offered but stored in the room's storage, from which
the worker fetches it. When that fails, it is offered all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from loguru import logger
from msgspec.structs import replace

from sleap_rtc.client.bringing import OnProgress, seen_at
from sleap_rtc.client.counting import CountedServed
from sleap_rtc.client.moving import (
    Came,
    Clash,
    Decide,
    Moved,
    Mover,
    Planned,
    decided,
    say_not_planned,
    say_other_ways,
)
from sleap_rtc.client.storing_models import store_model
from sleap_rtc.client.supplying import contents_of, in_storage
from sleap_rtc.client.tracking import is_whole
from sleap_rtc.client.transfers import IfExistsWish
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import (
    Cancelled,
    Conflict,
    Damaged,
    FilesMissing,
    NetworkError,
    NotFound,
    ProtocolError,
    SleapRtcError,
    SourceChanged,
    StorageOff,
    StorageRefused,
    UnknownModel,
    from_wire,
)
from sleap_rtc.files.nearby import marked
from sleap_rtc.files.packing import Packed
from sleap_rtc.library.entries import Entry
from sleap_rtc.protocol.library import MAX_PATH_TOLD
from sleap_rtc.protocol.link import Accepted, ReplyBody
from sleap_rtc.protocol.moving import (
    MAX_FLAGGED,
    CallModels,
    IfExists,
    ModelPushed,
    ModelsNamed,
    ModelWeighed,
    NameModels,
    Near,
    PushModel,
    WeighModel,
    sendable,
)
from sleap_rtc.transfer.choice import Plan
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.serving import serve_model

AliasState = Literal["free", "ours", "taken"]

_STORAGE_FAILS: Final = (NetworkError, NotFound, Damaged, StorageOff, StorageRefused)


async def push_model(
    mover: Mover,
    entry: Entry,
    *,
    decide: Decide,
    wish: IfExistsWish = "ask",
    on_progress: OnProgress = lambda _: None,
) -> Moved:
    """Push one model. Cut, the same call goes on where it was.

    Args:
        mover: To the worker.
        entry: The model.
        decide: Asked when another model has its id there.
        wish: What was said of that in advance; remembered with the transfer.
        on_progress: Told how far it is, as the worker sees it.

    Raises:
        FilesMissing: Its files aren't all here.
        Damaged: They aren't what its record says.
        SourceChanged: They change while they are read.
        Conflict: It is being trained; or the other model there is needed.
        Busy: Another process of this machine pushes it.
        NotPermitted: This device may not push, or not overwrite.
        NotTrusted: A file could run something, and the worker's owner didn't allow it.
        OutOfSpace: The worker has no room.
        NetworkError: The worker is away.
    """
    record = entry.record
    if record.status == "training":
        raise Conflict(message=f"Model {entry.label} is still being trained.")
    if not is_whole(entry):
        hint = f"sleap-rtc repair-model {entry.id} looks for them."
        raise FilesMissing(name=entry.label, files="some of them", hint=hint)
    served = await asyncio.to_thread(serve_model, record, entry.directory, cache=mover.cache)
    with contextlib.closing(served):
        package = ref(served.packed.package)
        flagged = tuple(f.blake3 for f in record.files if f.safety == "flagged")[:MAX_FLAGGED]
        sent = sendable(record)
        weighed = await mover.ask(WeighModel(record=sent, package=package, flagged=flagged))
        if not isinstance(weighed, ModelWeighed):
            raise ProtocolError(peer=mover.worker, why="another answer than the one asked for")
        wanted = mover.transfer("push", record, entry.label, package)
        done = _without_moving(mover, entry, weighed, decide)
        if isinstance(done, Moved):
            if done.how == "known":
                mover.transfers.fulfilled(wanted, done.result)
            return done
        wanted = replace(wanted, if_exists=done if done != "refuse" else wish)
        with mover.transfers.begin(wanted) as going:

            def progress(now: Progress) -> None:
                if now.phase in ("storing", "receiving", "copying"):
                    going.done = now.done
                on_progress(now)

            counted = CountedServed(served)
            began = time.monotonic()
            body = PushModel(record=sent, package=package, if_exists=done)
            plan = await _plan(mover, entry)
            logger.bind(model=record.id, size=package.size).info("how it goes:\n{}", plan.explain())
            say_not_planned(mover, plan)
            pushed, stored = None, 0
            if plan.ways[0].kind == "s3":
                through = replace(body, stored=contents_of(record.files))
                pushed, stored = await _by_storage(mover, through, served.packed, progress)
            if pushed is None:
                with mover.offering(package.id, counted), _near(mover, entry, weighed) as near:
                    body = replace(body, near=near)
                    pushed = await mover.ask_long(body, package.id, progress)
            if not isinstance(pushed, ModelPushed):
                raise ProtocolError(peer=mover.worker, why="another answer than the one asked for")
            going.finish(pushed.model)
    _note(mover, entry, pushed.path)
    came = tuple(Came(way=c.way, source=c.source, size=c.size) for c in pushed.came)
    say_other_ways(mover, came)
    return Moved(
        direction="push",
        model=entry.id,
        label=entry.label,
        model_type=record.model_type,
        how=pushed.how,
        result=pushed.model,
        path=pushed.path,
        size=package.size,
        sent=counted.sent + stored,
        again=counted.again if counted.sent else None,
        came=came,
        seconds=time.monotonic() - began,
        safety=pushed.safety,
        trash=pushed.trash,
    )


async def _by_storage(
    mover: Mover, body: PushModel, packed: Packed, on_progress: OnProgress
) -> tuple[ReplyBody | None, int]:
    """Push through storage: the worker's answer, None if that fails; and how much was stored."""
    stored, asked = 0, False
    try:
        stored = await store_model(mover, packed, on_progress)
        asked = True
        return await mover.ask_long(body, body.package.id, on_progress), stored
    except (SourceChanged, Cancelled):
        raise
    except SleapRtcError as error:
        # What the worker says of the model itself, it would say again.
        if asked and not isinstance(error, _STORAGE_FAILS):
            raise
        mover.say(f"Storage fails, so {mover.worker} fetches it from here: {error.message}")
        return None, stored


@contextlib.contextmanager
def _near(mover: Mover, entry: Entry, weighed: ModelWeighed) -> Iterator[Near | None]:
    """Where the worker may read the files, if it is on this machine; else it doesn't look."""
    folder, ends = str(entry.directory), mover.ends(holds=True)
    wanted = weighed.challenge and mover.ways.takes_near
    if not wanted or ends is None or len(folder) > MAX_PATH_TOLD:
        yield None
        return
    with contextlib.ExitStack() as stack:
        near = None
        with contextlib.suppress(OSError):
            mark = stack.enter_context(marked(weighed.challenge, ends))
            near = Near(mark=str(mark), folder=folder)
        yield near


async def plan_push(mover: Mover, entry: Entry) -> Planned:
    """By which ways a model would go; nothing moves."""
    return Planned(
        model=entry.id,
        label=entry.label,
        size=entry.record.size,
        plan=await _plan(mover, entry),
    )


async def _plan(mover: Mover, entry: Entry) -> Plan:
    record = entry.record
    stored, why = await in_storage(mover.ways, record.size, record.files)
    return mover.ways.plan(record.size, stored=stored, why=why, sends=True)


def _without_moving(
    mover: Mover, entry: Entry, weighed: ModelWeighed, decide: Decide
) -> Moved | IfExists:
    """What became of it, if nothing has to move; else how it is pushed."""
    if weighed.verdict in ("new", "bare") or weighed.model is None:
        return "refuse"
    how: Literal["known", "skipped"] = "known"
    if weighed.verdict == "other":
        choice = decided(
            decide,
            Clash(
                label=entry.label,
                where=mover.worker,
                model=weighed.model,
                other=weighed.label,
                created_at=weighed.created_at,
                size=weighed.size,
                locked=weighed.locked,
            ),
        )
        if choice == "overwrite" and weighed.locked:
            raise from_wire(weighed.code, {}, message=weighed.locked, hint="Keep both, or skip it.")
        if choice != "skip":
            return choice
        how = "skipped"
    else:
        _note(mover, entry, weighed.path)
    return Moved(
        direction="push",
        model=entry.id,
        label=entry.label,
        model_type=entry.record.model_type,
        how=how,
        result=weighed.model,
        path=weighed.path,
        size=entry.record.size,
    )


def _note(mover: Mover, entry: Entry, path: str) -> None:
    """Note that the worker has the model; one that was deleted here meanwhile needs no note."""
    with contextlib.suppress(UnknownModel):
        mover.registry.update(entry.id, lambda old: seen_at(old, mover.worker, path))


# ── names there ──────────────────────────────────────────────────────────────


async def alias_there(mover: Mover, alias: str, packages: Sequence[str | None]) -> AliasState:
    """Whether the worker has an alias already, and for models with other content than these."""
    try:
        named = await mover.ask(NameModels(name=alias))
    except UnknownModel:
        return "free"
    if not isinstance(named, ModelsNamed):
        raise ProtocolError(peer=mover.worker, why="another answer than the one asked for")
    there = [(await mover.library.info(model)).record.package for model in named.models]
    return "ours" if there == list(packages) else "taken"


async def call_there(mover: Mover, alias: str, models: Sequence[ModelId]) -> None:
    """Give models of the worker an alias that is free there.

    Raises:
        AliasTaken: It isn't.
        Conflict: The model is called something else there already.
    """
    answer = await mover.ask(CallModels(alias=alias, models=tuple(models)))
    if not isinstance(answer, Accepted):
        raise ProtocolError(peer=mover.worker, why="another answer than the one asked for")
