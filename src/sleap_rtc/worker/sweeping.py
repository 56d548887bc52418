"""What a worker removes when it is idle, so that its disk doesn't fill over the years.

::

    datasets/<package>      nobody needs it, and no job has used it for keep_inputs days
    incoming/<package>-…    nobody needs it, and nothing came for keep_partial days
    models/.incoming/…      the same, of models that were pushed here
    jobs/<job>/stages       what attempts left of a job that ended keep_partial days ago: its
                            models and checkpoints are in the library
    jobs/<job>              of a job that ended keep_jobs days ago; and of those that ended
                            keep_partial days ago the oldest, while all take more than
                            keep_jobs_size
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
        keep_jobs: Days that a job is remembered which has ended.
        keep_jobs_size: Bytes that such jobs may take, besides those of the last keep_partial days.
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
        keep_jobs: float,
        keep_jobs_size: int,
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
        self._keep_jobs_s = keep_jobs * DAY_S
        self._keep_jobs_size = keep_jobs_size
        self._clock = clock
        self._ended: dict[tuple[JobId, int], float] = {}
        self._sizes: dict[tuple[JobId, int], int] = {}

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
        over: list[tuple[float, JobDirectory]] = []
        for job_id in self._store.ids():
            job = JobDirectory(root=self._store.root / job_id)
            try:
                ended_at = self._ended_at(job)
                if ended_at is None:
                    needed |= job.read_spec().needed
                elif self._age(ended_at) > self._keep_partial_s:
                    over.append((ended_at, job))
            except SleapRtcError as error:
                # It can't run; and what it had is for a person to look at.
                logger.warning("job {} can't be read: {}", job_id, error)
        yield from self._of_ended(over)
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

    def _of_ended(self, over: Collection[tuple[float, JobDirectory]]) -> Iterator[Leftover]:
        """What can go of jobs that have ended long enough ago, each with the time of its end."""
        room = self._keep_jobs_size
        for ended_at, job in sorted(over, key=lambda each: each[0], reverse=True):
            if self._age(ended_at) <= self._keep_jobs_s:
                if job.stages.is_dir():
                    yield Leftover(job.stages)
                    continue  # what is left then is counted the next time
                known = _known_by(job)
                if known not in self._sizes:
                    self._sizes[known] = _size(job.root)
                room -= self._sizes[known]
                if room >= 0:
                    continue
            yield Leftover(job.root)

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
        known = _known_by(job)
        if known not in self._ended:
            view = self._view(job)
            if view.state not in ENDED or view.changed_at is None:
                return None
            self._ended[known] = view.changed_at.timestamp()
        return self._ended[known]

    def _age(self, at: float) -> float:
        return self._clock() - at


def _known_by(job: JobDirectory) -> tuple[JobId, int]:
    """A job's id, and when it was made: one that was removed may be submitted once more."""
    made = 0
    with contextlib.suppress(OSError):
        made = job.spec.stat().st_mtime_ns
    return JobId(job.root.name), made


def _size(folder: Path) -> int:
    """Bytes of what is in a folder, however deep."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat(follow_symlinks=False).st_size
    return total


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
