"""What a worker removes when it is idle, so that its disk doesn't fill over the years.

::

    datasets/<package>      nobody needs it, and no job has used it for keep_inputs days
    incoming/<package>-…    nobody needs it, and nothing came for keep_partial days
    models/.incoming/…      the same, of models that were pushed here
    jobs/<job>/stages       what attempts left of a job that ended keep_partial days ago: its
                            models and checkpoints are in the library
    jobs/.…                 jobs that never became whole
    models/                 what was deleted, as the registry says; its manifest is written

A job needs its data until it is completed, failed or cancelled: one that is
interrupted may go on at any time, so nothing of it is touched.

Looking and removing take their time in a thread. In between, on the event loop,
what nobody has begun to need meanwhile is renamed, so that a job finds its data
either whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import JobId, PackageId
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.durable import TEMPORARY
from sleap_rtc.jobs.lifecycle import ENDED, JobView
from sleap_rtc.library import layout
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.job_directory import JobDirectory, JobStore
from sleap_rtc.worker.preparing import DATASETS, INCOMING

DAY_S: Final = 86_400.0
"""Seconds of a day; also the age of what was being made when something was killed."""

_PACKAGE: Final = re.compile(r"[0-9a-f]{64}")


class Leftover(msgspec.Struct, frozen=True):
    """Something that can go.

    Attributes:
        path: Where it is.
        package: What it is of, if it is of one.
    """

    path: Path
    package: PackageId | None = None


class Sweeper:
    """Sweeps one worker's directory.

    Args:
        root: The directory.
        store: Its jobs.
        registry: Its library.
        view: Gives a job as it stands.
        keep_inputs: Days that data is kept which nobody needs.
        keep_partial: Days that unfinished things are kept which nobody needs.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        *,
        root: Path,
        store: JobStore,
        registry: Registry,
        view: Callable[[JobDirectory], JobView],
        keep_inputs: float,
        keep_partial: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._datasets = root / DATASETS
        self._incoming = root / INCOMING
        self._pushed = registry.models_dir / layout.INCOMING
        self._store = store
        self._registry = registry
        self._view = view
        self._keep_inputs_s = keep_inputs * DAY_S
        self._keep_partial_s = keep_partial * DAY_S
        self._clock = clock
        self._ended: dict[JobId, float] = {}

    async def sweep(self, needed: Callable[[], Collection[PackageId]]) -> int:
        """Sweep once.

        Args:
            needed: The packages of jobs that wait or are at work now; asked on the event loop.

        Returns:
            How many things were removed.
        """
        found = await asyncio.to_thread(lambda: list(self.look()))
        aside = self.set_aside(found, needed())
        await asyncio.to_thread(_remove, aside)
        deleted = await asyncio.to_thread(self._registry.sweep)
        if self._registry.models_dir.is_dir():  # made with the first model
            await asyncio.to_thread(self._registry.write_manifest)
        if aside or deleted:
            logger.info("swept: {} leftovers, {} deleted models", len(aside), deleted)
        return len(aside) + deleted

    def look(self) -> Iterator[Leftover]:
        """What can go, as far as the disk says."""
        needed: set[PackageId] = set()
        for job_id in self._store.ids():
            job = JobDirectory(root=self._store.root / job_id)
            try:
                ended_at = self._ended_at(job)
                if ended_at is None:
                    needed |= job.read_spec().needed
                elif self._age(ended_at) > self._keep_partial_s and job.stages.is_dir():
                    yield Leftover(job.stages)
            except SleapRtcError as error:
                # It can't run; and what it had is for a person to look at.
                logger.warning("job {} can't be read: {}", job_id, error)
        for path in _entries(self._store.root):
            if path.name.startswith(TEMPORARY) and self._age(_changed(path)) > DAY_S:
                yield Leftover(path)
        for folder, keep_s in (
            (self._datasets, self._keep_inputs_s),
            (self._incoming, self._keep_partial_s),
            (self._pushed, self._keep_partial_s),
        ):
            for path in _entries(folder):
                package = path.name[:64]
                if path.name.startswith(TEMPORARY):
                    if folder != self._pushed:  # there the registry sweeps
                        yield Leftover(path)  # set aside by a sweep that was killed
                elif _PACKAGE.fullmatch(package) is None or package in needed:
                    continue
                elif self._age(_changed(path)) > keep_s:
                    yield Leftover(path, package=PackageId(package))

    def set_aside(self, found: Collection[Leftover], needed: Collection[PackageId]) -> list[Path]:
        """Take away by a rename what nobody needs now; to be called on the event loop."""
        aside = []
        for leftover in found:
            if leftover.package is not None and leftover.package in needed:
                continue
            target = leftover.path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
            with contextlib.suppress(FileNotFoundError):
                leftover.path.rename(target)
                aside.append(target)
        return aside

    def _ended_at(self, job: JobDirectory) -> float | None:
        """When a job ended for good, None if it may still go on."""
        job_id = JobId(job.root.name)
        if job_id not in self._ended:
            view = self._view(job)
            if view.state not in ENDED or view.changed_at is None:
                return None
            self._ended[job_id] = view.changed_at.timestamp()
        return self._ended[job_id]

    def _age(self, at: float) -> float:
        return self._clock() - at


def _changed(path: Path) -> float:
    """When something last happened in a folder, as far as its own files say."""
    newest = 0.0
    for each in (path, *_entries(path)):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, each.stat(follow_symlinks=False).st_mtime)
    return newest


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(paths: list[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
