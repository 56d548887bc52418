"""Getting a job ready for its runner: inputs fetched, models found, the plan written.

Inputs are kept by content under ``datasets/<package id>``: a second job with the
same labels and configurations moves nothing. One with other configurations, or
with a model of this library among its inputs, moves only what no file here has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import check_path
from sleap_rtc.domain.values import encode_pretty
from sleap_rtc.errors import (
    AlreadyExists,
    Damaged,
    DataError,
    EngineMissing,
    FilesMissing,
    InvalidLabels,
    NotTrusted,
    SleapRtcError,
)
from sleap_rtc.files.durable import place_directory, write_replacing
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.partial import claim_partial
from sleap_rtc.jobs.events import Transferring
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec
from sleap_rtc.library.inspection.scanning import loadable, scan
from sleap_rtc.library.registry import Registry
from sleap_rtc.media.labels import check_videos, inspect_labels
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.throttle import Throttle
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.peers import Peers
from sleap_rtc.worker.runner.logfile import LogWriter
from sleap_rtc.worker.runner.plan import RunnerPlan

PROGRESS_EVERY_S: Final = 0.5


class Preparer:
    """Prepares the jobs of one worker.

    Args:
        root: The worker's directory.
        registry: Its library.
        peers: Its links, from which inputs come.
        engines: Name → version of the engines that are installed, looked up anew each time.
        worker: The worker's name.
        device_name: What training runs on, for the record.
        threads: Processor threads for an engine.
        cache: Hashes of unchanged files.
        throttle: Limits what is fetched.
    """

    def __init__(
        self,
        *,
        root: Path,
        registry: Registry,
        peers: Peers,
        engines: Callable[[], dict[str, str]],
        worker: str,
        device_name: str,
        threads: int,
        cache: HashCache | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        self._datasets = root / "datasets"
        self._incoming = root / "incoming"
        self._registry = registry
        self._peers = peers
        self._engines = engines
        self._worker = worker
        self._device_name = device_name
        self._threads = threads
        self._cache = cache
        self._throttle = throttle

    async def __call__(
        self, job: JobDirectory, spec: JobSpec, log: LogWriter, tell: Callable[[], None]
    ) -> None:
        """Prepare one job.

        Raises:
            EngineMissing: The engine isn't installed here.
            FilesMissing: A model is not here.
            OutOfSpace: No room for the inputs.
            SleapRtcError: The inputs can't be had.
        """
        if spec.engine not in await asyncio.to_thread(self._engines):
            raise EngineMissing(engine=spec.engine, where=f"worker {self._worker}")
        inputs = await self._inputs(spec, log, tell)
        if isinstance(spec.work, TrainSpec):
            for name in (spec.work.labels, spec.work.val_labels):
                if name is not None:
                    await check_labels(inputs, name)
        models: tuple[str, ...] = ()
        if isinstance(spec.work, TrackSpec):
            found = [await asyncio.to_thread(self._model, ref) for ref in spec.work.models]
            models = tuple(str(directory) for directory in found)
        plan = RunnerPlan(
            engine=spec.engine,
            inputs=str(inputs),
            library=str(self._registry.models_dir),
            models=models,
            worker=self._worker,
            device_name=self._device_name,
            threads=self._threads,
        )
        await asyncio.to_thread(write_replacing, job.plan, encode_pretty(plan))

    async def _inputs(self, spec: JobSpec, log: LogWriter, tell: Callable[[], None]) -> Path:
        place = self._datasets / spec.inputs.id
        if place.is_dir():
            return place
        self._datasets.mkdir(parents=True, exist_ok=True)
        last, told = 0.0, -1

        def on_progress(progress: Progress) -> None:
            nonlocal last, told
            now = time.monotonic()
            # A log doesn't grow while nothing comes, which may be for days.
            if progress.phase == "verifying" or progress.done == told:
                return
            if now - last < PROGRESS_EVERY_S and progress.done < progress.total:
                return
            last, told = now, progress.done
            log.append(
                Transferring(
                    what="inputs",
                    done=progress.done,
                    total=progress.total,
                    rate=progress.rate,
                    eta_s=progress.eta_s,
                )
            )
            tell()

        try:
            with self._peers.sources(spec.inputs.id) as sources:
                staged = await fetch(
                    spec.inputs,
                    sources=sources,
                    destination=str(place),
                    incoming=self._incoming,
                    held=(self._datasets, self._registry.models_dir),
                    cache=self._cache,
                    on_progress=on_progress,
                    throttle=self._throttle,
                )
        except asyncio.CancelledError:
            if log.view.pending == "cancel":
                self._discard(spec.inputs.id, place)
            raise
        except DataError:
            self._discard(spec.inputs.id, place)
            raise
        with staged:
            try:
                await asyncio.to_thread(place_directory, staged.path, place)
            except AlreadyExists:
                staged.discard()  # another job with the same inputs was quicker
        return place

    def _discard(self, package: PackageId, place: Path) -> None:
        """Remove what has arrived of inputs that nobody will ask for again."""
        try:
            claim_partial(self._incoming, package, str(place)).remove()
        except (SleapRtcError, OSError) as error:
            logger.warning("what has arrived of {}… is not removed: {}", package[:12], error)

    def _model(self, ref: ModelRef) -> Path:
        entry = self._registry.get(ref.id)
        if entry.record.package != ref.package:
            raise Damaged(
                what=f"Model {ref.id} of worker {self._worker}",
                why="its files are not those that were asked for",
            )
        missing = [f.path for f in entry.record.files if not (entry.directory / f.path).is_file()]
        if missing or not entry.record.files:
            raise FilesMissing(name=ref.id, files=", ".join(missing) or "all of them")
        if entry.record.source != "worker-training":
            for path in loadable(file.path for file in entry.record.files):
                verdict = scan(entry.directory / path)
                if not verdict.clean:
                    who = f"{path} of model {ref.id}, which was not trained here,"
                    raise NotTrusted(who=who, why=verdict.sentence)
        return entry.directory


async def check_labels(inputs: Path, name: str) -> None:
    """See that a label file from elsewhere is one, and leads to no other file of this machine.

    Args:
        inputs: The folder with the job's inputs.
        name: The label file's path in it.

    Raises:
        InvalidLabels: It can't be used; the sentence names it as it is called at home.
    """
    path = inputs / check_path(name)
    try:
        check_videos(await inspect_labels(path), path)
    except FilesMissing:
        raise InvalidLabels(path=name, why="it is not in the job's package") from None
    except InvalidLabels as error:
        raise InvalidLabels(path=path.name, why=error.details["why"]) from None
