"""Pulling a model from a worker into this library (PULL-1).

::

    named there ─► weighed here ── same ───► noted where else it is, nothing moves
                      │ other ──► decided: skip · overwrite · keep both
                      ▼
                   fetched, what is lacking ─► looked into ─► in the library, by one step
                      └── cut: the same call goes on       └── something dangerous: only with a yes

Content comes from every worker that was named and has it, and from storage, as
``supplying.py`` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.client.bringing import (
    PATIENCE_S,
    OnProgress,
    at_home,
    files_of,
    seen_at,
    to_the_end,
)
from sleap_rtc.client.doubting import report_later, reporting
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
from sleap_rtc.client.supplying import Supply, contents_of, in_storage, storage_source
from sleap_rtc.client.transfers import IfExistsWish, Transfer
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelFile, ModelRecord, Trust, safety_of
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import (
    Conflict,
    DataError,
    FeatureMissing,
    FilesMissing,
    NotFound,
    NotTrusted,
    ProtocolError,
    SleapRtcError,
    UnknownModel,
    from_wire,
)
from sleap_rtc.files.nearby import is_near, new_challenge
from sleap_rtc.files.partial import claim_partial, folder_of
from sleap_rtc.files.staged import Staged
from sleap_rtc.library.arriving import Arrived, arrive, check_replaceable, weigh
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.inspection.listed import looked_into
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import MAX_FILES
from sleap_rtc.protocol.link import FindModel, ModelTold, WantFiles
from sleap_rtc.protocol.moving import FilesNear, IfExists, ModelsNamed, NameModels
from sleap_rtc.transfer.choice import Plan
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch

HASHING_S: Final = 600.0
"""Seconds for an answer before which the worker reads all of a model."""
_ANEW: Final = "push-model with --transport s3, where the model is whole, stores it anew."


class Named(msgspec.Struct, frozen=True):
    """What a name means on a worker.

    Attributes:
        models: One id, or those of a pair in the order in which they run.
        alias: The alias there; empty for none.
    """

    models: tuple[ModelId, ...]
    alias: str


async def named_there(mover: Mover, name: str) -> Named:
    """The models that a worker knows by a name: an id, a prefix, an alias, the alias of a pair.

    Raises:
        UnknownModel: It knows none.
        AmbiguousName: A prefix fits several.
    """
    try:
        try:
            named = await mover.ask(NameModels(name=name))
        except FeatureMissing:  # an older worker knows single models
            told = await _find(mover, name)
            return Named(models=(told.record.id,), alias=told.alias)
    except UnknownModel as error:
        # Its sentence is the worker's, whose "here" is there.
        message = f"There is no model {name!r} on {mover.worker}."
        hint = f"sleap-rtc worker list-models --worker {mover.worker} shows what there is."
        raise from_wire(error.code, error.details, message=message, hint=hint) from None
    if not isinstance(named, ModelsNamed):
        raise ProtocolError(peer=mover.worker, why="another answer than the one asked for")
    return Named(models=named.models, alias=named.alias)


async def pull_model(
    mover: Mover,
    model: ModelId,
    *,
    decide: Decide,
    wish: IfExistsWish = "ask",
    trust: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> Moved:
    """Pull one model. Cut, the same call goes on where it was.

    Args:
        mover: To the worker.
        model: Its id there.
        decide: Asked when another model has its id here.
        wish: What was said of that in advance; remembered with the transfer.
        trust: Take it although a file could run something; that is recorded.
        on_progress: Told how far it is.

    Raises:
        UnknownModel: The worker hasn't got it.
        FilesMissing: The worker has no files of it.
        Conflict: It is being trained; or the other model here is needed.
        Busy: Another process of this machine pulls it.
        NotTrusted: A file could run something.
        OutOfSpace: There is no room for it.
        NetworkError: The worker is away.
    """
    record, package, label = await _told(mover, model)
    path = await _path_there(mover, model)
    wanted = mover.transfer("pull", record, label, package)
    done = await asyncio.to_thread(_without_moving, mover, record, label, path, decide)
    if isinstance(done, Moved):
        if done.how == "known":
            mover.transfers.fulfilled(wanted, done.result)
        return done
    registry = mover.registry
    wanted = replace(wanted, if_exists=done if done != "refuse" else wish, trust=trust)
    near = await _want(mover, package, record.id)
    plan = await _plan(mover, record, package, near)
    logger.bind(model=record.id, size=package.size).info("how it comes:\n{}", plan.explain())
    say_not_planned(mover, plan)
    with mover.transfers.begin(wanted) as going:

        def progress(now: Progress) -> None:
            if now.phase in ("receiving", "copying"):
                going.done = now.done
            on_progress(now)

        began = time.monotonic()
        mover.link.want_blocks()
        links = [mover.library.sources]
        for other in mover.beside:
            links += await _also(other, record, package)
        kinds = [way.kind for way in plan.ways]
        stored = None
        if mover.ways.storage is not None and "s3" in kinds[: kinds.index("webrtc")]:
            stored = storage_source(mover.ways.storage, package, contents_of(record.files))
        supply = Supply(links, stored, size=package.size, alone=kinds[0] == "s3", say=mover.say)
        async with reporting(mover.ways.storage, supply, anew=_ANEW):
            with supply.sources() as sources:
                staged = await fetch(
                    package,
                    sources=sources,
                    destination=_destination(registry, wanted),
                    incoming=registry.incoming,
                    held=(registry.models_dir,),
                    near=None if kinds[0] == "s3" else near,
                    on_near=lambda size: supply.counted.add_near(mover.worker, size),
                    cache=mover.cache,
                    on_progress=progress,
                    throttle=mover.throttle,
                    patience=PATIENCE_S,
                )
        with staged:
            arrived = await to_the_end(
                _take_in, mover, record, path, staged, trust=trust, if_exists=done
            )
        going.finish(arrived.entry.id)
    await report_later(mover.ways.storage, supply)
    entry = arrived.entry
    came = tuple(
        Came(way=way, source=source, size=size)
        for (way, source), size in sorted(supply.counted.came.items())
    )
    say_other_ways(mover, came)
    return Moved(
        direction="pull",
        model=record.id,
        label=label,
        model_type=record.model_type,
        how=arrived.how,
        result=entry.id,
        path=str(entry.directory),
        size=package.size,
        sent=supply.counted.received,
        again=supply.counted.again,
        came=came,
        seconds=time.monotonic() - began,
        safety=safety_of(entry.record).tier,
        trash="" if arrived.trash is None else str(arrived.trash),
    )


async def plan_pull(mover: Mover, model: ModelId) -> Planned:
    """By which ways a model would come; nothing moves.

    Raises:
        SleapRtcError: As :func:`pull_model`, before anything moves.
    """
    record, package, label = await _told(mover, model)
    near = await _want(mover, package, record.id)
    plan = await _plan(mover, record, package, near)
    return Planned(model=record.id, label=label, size=package.size, plan=plan)


async def _plan(mover: Mover, record: ModelRecord, package: PackageRef, near: Path | None) -> Plan:
    stored, why = await in_storage(mover.ways, package.size, record.files)
    size = package.size
    return mover.ways.plan(size, stored=stored, why=why, near=None if near is None else True)


async def _want(mover: Mover, package: PackageRef, model: ModelId) -> Path | None:
    """Be let fetch a model's files from a worker.

    Returns:
        Where they are, if they can be read there.
    """
    challenge = new_challenge() if mover.ways.takes_near else ""
    wanted = WantFiles(package=package, model=model, challenge=challenge)
    answer = await mover.ask(wanted, within_s=HASHING_S)
    ends = mover.ends(holds=False)
    if challenge and ends is not None and isinstance(answer, FilesNear):
        near = answer.near
        if await asyncio.to_thread(is_near, near.mark, near.folder, challenge, ends):
            return Path(near.folder)
    return None


async def _also(mover: Mover, record: ModelRecord, package: PackageRef) -> list[Sources]:
    """The sources of another worker, if it has the same content under the same id."""
    try:
        told = await _find(mover, record.id)
        if told.package != package:
            mover.say(f"{mover.worker} has other content under the id {record.id}: not used.")
            return []
        await _want(mover, package, record.id)
        mover.link.want_blocks()
    except SleapRtcError as error:
        mover.say(f"{mover.worker} gives nothing of {record.id}: {error.message}")
        return []
    return [mover.library.sources]


async def _told(mover: Mover, model: ModelId) -> tuple[ModelRecord, PackageRef, str]:
    """What a worker tells of a model that can be pulled: record, package and name.

    Raises:
        SleapRtcError: As :func:`pull_model`.
    """
    told = await _find(mover, model)
    record, package = told.record, told.package
    label = told.alias or record.id
    if record.status == "training":
        raise Conflict(message=f"Model {label} is still being trained on {mover.worker}.")
    if package is None:
        raise FilesMissing(name=label, files=f"all of them, on {mover.worker} too")
    if record.package != package.id:
        raise DataError(what=f"Model {record.id}", why="its record is of other files")
    if not 1 <= package.files <= MAX_FILES or not package.is_possible:
        raise DataError(what=f"Model {record.id}", why=f"it can't have {package.files:,} files")
    return record, package, label


def _without_moving(
    mover: Mover, record: ModelRecord, label: str, path: str, decide: Decide
) -> Moved | IfExists:
    """What became of it, if nothing has to move; else how it is taken in."""
    found = weigh(mover.registry, record)
    here = found.entry
    if here is None:
        return "refuse"
    if found.verdict == "bare":
        if here.record.status == "training":
            message = f"Model {here.label} is noted here as being trained: its files will come."
            raise Conflict(message=message, hint="sleap-rtc sync asks how it stands.")
        return "refuse"
    if found.verdict == "other":
        choice = decided(
            decide,
            Clash(
                label=label,
                where="this machine",
                model=here.id,
                other=here.label,
                created_at=f"{here.record.created_at:%Y-%m-%d %H:%M} UTC",
                size=here.record.size,
                locked=_locked(here, record),
            ),
        )
        if choice == "overwrite":
            check_replaceable(here, record.model_type)
        if choice != "skip":
            return choice
    else:
        with contextlib.suppress(UnknownModel):
            mover.registry.update(here.id, lambda old: seen_at(old, mover.worker, path))
    return Moved(
        direction="pull",
        model=record.id,
        label=label,
        model_type=record.model_type,
        how="skipped" if found.verdict == "other" else "known",
        result=here.id,
        path=str(here.directory),
        size=here.record.size,
        safety=safety_of(here.record).tier,
    )


def _locked(here: Entry, record: ModelRecord) -> str:
    try:
        check_replaceable(here, record.model_type)
    except Conflict as error:
        return error.message
    return ""


def _take_in(
    mover: Mover,
    record: ModelRecord,
    path: str,
    staged: Staged,
    *,
    trust: bool,
    if_exists: IfExists,
) -> Arrived:
    """Look into what arrived, and take it in; in a thread."""
    files = looked_into(files_of(staged), staged.path)
    yes = _trusted(record, files, trust=trust)
    fresh = at_home(
        replace(record, files=files, package=staged.package.id, trust=yes, same_recipe_as=None),
        mover.worker,
        files=True,
        path=path,
    )
    return arrive(mover.registry, fresh, staged.path, if_exists=if_exists)


def _trusted(record: ModelRecord, files: Sequence[ModelFile], *, trust: bool) -> Trust | None:
    """The person's yes to files that could run something, None where there are none.

    Raises:
        NotTrusted: Nobody said yes.
    """
    flagged = [file for file in files if file.safety == "flagged"]
    if not flagged:
        return None
    worst = flagged[0]
    if not trust:
        raise NotTrusted(
            who=f"{worst.path} of model {record.id}",
            why=worst.found,
            hint="If you know where it comes from, add --trust: nothing is fetched again.",
        )
    return Trust(
        at=datetime.now(UTC),
        files=tuple(file.path for file in flagged),
        why="; ".join(f"{file.path}: {file.found}" for file in flagged)[:1_000],
    )


def arrived_of(registry: Registry, transfer: Transfer) -> Path | None:
    """Where what has arrived of a pull is, None if nothing has."""
    folder = folder_of(registry.incoming, transfer.package, _destination(registry, transfer))
    return folder if folder.is_dir() else None


def drop_arrived(registry: Registry, transfer: Transfer) -> None:
    """Remove what has arrived of a pull that is given up, if anything has.

    Raises:
        Busy: Somebody is at it.
    """
    if arrived_of(registry, transfer) is not None:
        destination = _destination(registry, transfer)
        claim_partial(registry.incoming, transfer.package, destination).remove()


def _destination(registry: Registry, transfer: Transfer) -> str:
    return f"{registry.models_dir}/{transfer.model_type}_{transfer.model}"


async def _find(mover: Mover, name: str) -> ModelTold:
    told = await mover.ask(FindModel(name=name), within_s=HASHING_S)
    if not isinstance(told, ModelTold):
        raise ProtocolError(peer=mover.worker, why="another answer than the one asked for")
    return told


async def _path_there(mover: Mover, model: ModelId) -> str:
    """The model's directory there; empty where the worker doesn't tell."""
    with contextlib.suppress(FeatureMissing, NotFound, DataError):
        return (await mover.library.info(model)).path
    return ""
