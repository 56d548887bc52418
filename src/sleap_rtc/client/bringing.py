"""Bringing things home: a model or predictions from a worker to this machine.

What arrives is assembled beside the library and appears in it by one step; a
transfer that was cut goes on where it was, because partial data is found again
by the package's id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from sleap_rtc.domain.ids import JobId
from sleap_rtc.domain.models import Location, ModelFile, ModelRecord
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import AlreadyExists, DataError
from sleap_rtc.files.durable import disk_errors, place_directory
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.files.staged import Staged
from sleap_rtc.library.claiming import Fate
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.inspection.listed import looked_into
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import WantFiles
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.throttle import Throttle

P = ParamSpec("P")
T = TypeVar("T")
OnProgress = Callable[[Progress], None]

PATIENCE_S: Final = 600.0
"""Seconds without the worker after which a fetch gives up; what has arrived is kept."""


def expect_model(registry: Registry, record: ModelRecord, *, worker: str) -> Entry:
    """Note a model that is being trained on a worker; twice is once.

    Args:
        registry: This machine's library.
        record: The record as the worker has it.
        worker: The worker's name.
    """
    return registry.register(at_home(record, worker, files=False))


def note_model(
    registry: Registry, record: ModelRecord, *, worker: str, path: str
) -> tuple[Entry | None, Fate]:
    """Note a model that a worker has; one that was deleted here stays so.

    Args:
        registry: This machine's library.
        record: The record as the worker has it.
        worker: The worker's name.
        path: The model's directory there.

    Returns:
        What it is here now, None if it stays deleted; and what became of it.
    """
    return registry.take_in(at_home(record, worker, files=False, path=path))


def follow_model(registry: Registry, name: str, record: ModelRecord, *, worker: str) -> Entry:
    """Take in what became of a model whose files are not here."""
    return registry.update(name, lambda old: _merged(old, record, worker))


async def bring_model(
    link: Link,
    sources: Sources,
    registry: Registry,
    record: ModelRecord,
    package: PackageRef,
    *,
    name: str | None,
    on_progress: OnProgress | None = None,
    throttle: Throttle | None = None,
    cache: HashCache | None = None,
) -> Entry:
    """Fetch a model's files and put them into the library.

    Args:
        link: The link to the worker.
        sources: The link's block connections.
        registry: This machine's library.
        record: The record as the worker has it, complete.
        package: The model's files.
        name: The model's id here, if it was noted before.
        on_progress: Told how far it is.
        throttle: Limits what is fetched.
        cache: Hashes of unchanged files.

    Raises:
        DataError: The files aren't those that the record lists.
        SleapRtcError: They can't be fetched.
    """
    if record.package != package.id:
        raise DataError(what=f"Model {record.id}", why="its record is of other files")
    await link.request(WantFiles(package=package, model=record.id))
    link.want_blocks()
    staged = await fetch(
        package,
        sources=sources,
        destination=f"{registry.models_dir}/{record.directory}",
        incoming=registry.incoming,
        held=(registry.models_dir,),
        cache=cache,
        on_progress=on_progress,
        throttle=throttle,
        patience=PATIENCE_S,
    )
    with staged:
        if not record.files:  # too many for one message: the package says the same
            files = await asyncio.to_thread(files_of, staged)
            record = msgspec.structs.replace(record, files=files)
        listed = {file.path: file.size for file in record.files}
        if {entry.path: entry.size for entry in staged.package.files} != listed:
            raise DataError(what=f"Model {record.id}", why="its record lists other files")
        files = await asyncio.to_thread(looked_into, record.files, staged.path)
        record = msgspec.structs.replace(record, files=files, trust=None)
        fresh = at_home(record, link.name, files=True)
        if name is not None:
            return await asyncio.to_thread(registry.adopt_files, name, staged.path, fresh)
        return await asyncio.to_thread(registry.place, staged.path, fresh)


async def bring_output(
    link: Link,
    sources: Sources,
    package: PackageRef,
    *,
    job: JobId,
    incoming: Path,
    target: Path,
    on_progress: OnProgress | None = None,
    throttle: Throttle | None = None,
) -> Path:
    """Fetch what a job has put out into a new directory.

    Args:
        link: The link to the worker.
        sources: The link's block connections.
        package: What to fetch.
        job: The job.
        incoming: Where partial data is kept, on the target's file system.
        target: The directory to make.
        on_progress: Told how far it is.
        throttle: Limits what is fetched.

    Returns:
        The directory.
    """
    if await asyncio.to_thread(target.is_dir):
        return target
    await link.request(WantFiles(package=package, job=job))
    link.want_blocks()
    staged = await fetch(
        package,
        sources=sources,
        destination=str(target),
        incoming=incoming,
        on_progress=on_progress,
        throttle=throttle,
        patience=PATIENCE_S,
    )
    with staged:
        try:
            await asyncio.to_thread(_place, staged.path, target)
        except AlreadyExists:
            staged.discard()
    return target


def files_of(staged: Staged) -> tuple[ModelFile, ...]:
    """The files of a package that has arrived, as a record lists them; they are read."""
    found = []
    for entry in staged.package.files:
        _, hashes = hash_file(staged.path / entry.path, as_path=entry.path)
        found.append(ModelFile(path=entry.path, size=entry.size, blake3=hashes.blake3))
    return tuple(found)


def _place(staged: Path, target: Path) -> None:
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    place_directory(staged, target)


async def to_the_end(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a thread; cancelled, it waits for the thread all the same, which can't be ended.

    So nobody else finds a folder free that the thread still works in.
    """
    working = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(working)
    finally:
        await asyncio.wait([working])


def elsewhere(locations: Iterable[Location], worker: str) -> tuple[Location, ...]:
    """Where else a model is, but for one worker."""
    return tuple(at for at in locations if (at.kind, at.name) != ("worker", worker))


def seen_at(record: ModelRecord, worker: str, path: str) -> ModelRecord:
    """The record with a note that a worker has the model now, in a directory there."""
    here = Location(kind="worker", name=worker, last_seen=datetime.now(UTC), path=path)
    return msgspec.structs.replace(record, locations=(*elsewhere(record.locations, worker), here))


def at_home(record: ModelRecord, worker: str, *, files: bool, path: str = "") -> ModelRecord:
    """The worker's record as this machine keeps it."""
    changes: dict[str, object] = {
        "source": "worker-pull",
        "brought_by": None,
        "deleted_at": None,
    }
    if files:
        changes["downloaded_at"] = datetime.now(UTC)
    else:
        changes |= {"files": (), "package": None, "checkpoint": None, "config": None}
    return msgspec.structs.replace(seen_at(record, worker, path), **changes)


def _merged(old: ModelRecord, told: ModelRecord, worker: str) -> ModelRecord:
    """What changed on the worker, without what only this machine knows."""
    fresh = at_home(told, worker, files=False)
    keep: tuple[str, ...] = (
        "id",
        "notes",
        "tags",
        "downloaded_at",
        "same_recipe_as",
        "unknown",
        "source",
    )
    if old.files:
        keep += ("files", "package", "checkpoint", "config")
    return msgspec.structs.replace(fresh, **{name: getattr(old, name) for name in keep})
