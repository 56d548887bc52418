"""Bringing single files of a model from a worker that has the same, by their content."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.client.bringing import PATIENCE_S, OnProgress
from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelFile
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import FilesMissing, UnknownModel
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.files.staged import Staged
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.repair import Fault, copy_in
from sleap_rtc.protocol.library import MAX_PART, ListModels
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.throttle import Throttle


async def fetch_missing(
    library: WorkerLibrary,
    registry: Registry,
    entry: Entry,
    faults: Sequence[Fault],
    *,
    on_progress: OnProgress | None = None,
    throttle: Throttle | None = None,
) -> tuple[str, ...]:
    """Fetch a model's faulty files from a worker, and put them back.

    Only these files travel. What has arrived is compared with the record before it is placed, and
    a transfer that was cut is taken up by the same call.

    Args:
        library: The worker's.
        registry: This machine's.
        entry: The model.
        faults: Its faulty files.
        on_progress: Told how far it is.
        throttle: Limits what is fetched.

    Returns:
        The paths that are mended; the worker may not have all of them.

    Raises:
        UnknownModel: The worker has no model with any of these files.
        SleapRtcError: They can't be fetched.
    """
    wanted = {fault.file.blake3 for fault in faults}
    at = await find_there(library, entry, wanted)
    mended: list[str] = []
    hashes = sorted(wanted)
    for start in range(0, len(hashes), MAX_PART):
        some = tuple(hashes[start : start + MAX_PART])
        try:
            package = await library.part(at, some)
        except FilesMissing as error:
            logger.bind(model=at, worker=library.name).info("not there: {}", error)
            continue
        staged = await fetch(
            package,
            sources=library.sources,
            destination=f"{entry.directory} mended",
            incoming=registry.incoming,
            on_progress=on_progress,
            throttle=throttle,
            patience=PATIENCE_S,
        )
        with staged:
            files = [fault.file for fault in faults if fault.file.blake3 in some]
            mended += await asyncio.to_thread(_put_back, registry, entry, staged, files)
            staged.discard()
    return tuple(mended)


async def find_there(library: WorkerLibrary, entry: Entry, wanted: set[str]) -> ModelId:
    """The worker's model that has some of these files: of the same id, or of the same content.

    Raises:
        UnknownModel: It has none.
    """
    with contextlib.suppress(UnknownModel):
        there = await library.info(entry.id)
        if any(each.file.blake3 in wanted for each in there.files if each.state == "there"):
            return there.record.id
    if entry.record.package is not None:
        for model in (await library.models(ListModels(types=(entry.record.model_type,)))).models:
            if model.package == entry.record.package:
                return model.id
    raise UnknownModel(
        name=entry.label, hint=f"{library.name} has no model with the files that are wanted."
    )


def _put_back(
    registry: Registry, entry: Entry, staged: Staged, files: Sequence[ModelFile]
) -> list[str]:
    """Place what has arrived; the worker calls its files as it likes, their content says which."""
    came: dict[str, Path] = {}
    for each in staged.package.files:
        _, hashes = hash_file(staged.path / each.path, as_path=each.path)
        came[hashes.blake3] = staged.path / each.path
    here = {check_path(file.path): came[file.blake3] for file in files if file.blake3 in came}
    if here:
        copy_in(registry, registry.get(entry.id), here)
    return list(here)
