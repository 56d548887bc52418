"""Getting a job ready for its runner: inputs fetched, models found, the plan written.

What is fetched is kept by content under ``datasets/<package id>``: a second job with
the same labels and configurations moves nothing. One with other configurations, or
with a model of this library among its inputs, moves only what no file here has.

Inputs, and models that come along, are fetched from where the job says that they are,
storage or a disk that both sides see (``gathering.py``); where that fails, from whoever
offers them.

A model to track with is found by its content::

    in the library, under its id or one made from it ──► used where it is
    in datasets/, from an earlier job                ──► used where it is
    offered with the job                             ──► fetched into datasets/

It runs if nothing in it is out of the ordinary, or if a person of this machine said
yes to it (``client/approvals.py``); so does what a training goes on from.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.domain.ids import PackageId, with_suffix
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.domain.values import encode_pretty
from sleap_rtc.errors import (
    AlreadyExists,
    Busy,
    DataError,
    EngineMissing,
    LinkLost,
    NotFound,
    OutOfSpace,
    SleapRtcError,
    UnknownModel,
)
from sleap_rtc.files.durable import place_directory, write_replacing
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.partial import claim_partial, folder_of
from sleap_rtc.files.space import free_space
from sleap_rtc.files.staged import Staged
from sleap_rtc.jobs.datasets import Dataset, SharedFile, waits_for_nobody
from sleap_rtc.jobs.events import Logged, Transferring
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.datasets import DataWeighed, WeighData
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.serving import serve_model
from sleap_rtc.transports.throttle import Throttle
from sleap_rtc.worker.dataset_source import Places
from sleap_rtc.worker.gathering import Gathering, OnProgress
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.labels import check_labels
from sleap_rtc.worker.manager import Prepared
from sleap_rtc.worker.peers import Peers
from sleap_rtc.worker.runner.logfile import LogWriter
from sleap_rtc.worker.runner.plan import RunnerPlan

DATASETS: Final = "datasets"
"""Folder, in a worker's directory, of what was fetched, by content."""
INCOMING: Final = "incoming"
"""Folder of what is arriving."""
PROGRESS_EVERY_S: Final = 0.5
STORAGE_PATIENCE: Final = 10
"""Times the patience with peers: storage that can't be reached ends a job, a peer that is away
doesn't."""
_SAY_YES: Final = "The owner of worker {worker} can allow it there: sleap-rtc trust-model {blake3}"


class Preparer:
    """Prepares the jobs of one worker.

    Args:
        root: The worker's directory.
        registry: Its library.
        peers: Its links, from which inputs come.
        engines: Name → version of the engines that are installed, looked up anew each time.
        approvals: What a person of this machine said yes to.
        worker: The worker's name.
        device_name: What training runs on, for the record.
        threads: Processor threads for an engine.
        patience: Seconds to wait for a source of inputs.
        keep_free: Bytes of the disk that inputs leave free.
        cache: Hashes of unchanged files.
        throttle: Limits what is fetched.
        places: Where files of jobs may be besides with peers.
    """

    def __init__(
        self,
        *,
        root: Path,
        registry: Registry,
        peers: Peers,
        engines: Callable[[], dict[str, str]],
        approvals: Approvals,
        worker: str,
        device_name: str,
        threads: int,
        patience: float,
        keep_free: int,
        cache: HashCache | None = None,
        throttle: Throttle | None = None,
        places: Places,
    ) -> None:
        self._gathering = Gathering(places, peers, patience=patience * STORAGE_PATIENCE)
        self._places = places
        self._gone: set[PackageId] = set()
        self._root = root
        self._datasets = root / DATASETS
        self._incoming = root / INCOMING
        self._registry = registry
        self._peers = peers
        self._engines = engines
        self._approvals = approvals
        self._worker = worker
        self._device_name = device_name
        self._threads = threads
        self._patience = patience
        self._keep_free = keep_free
        self._cache = cache
        self._throttle = throttle

    async def __call__(
        self, job: JobDirectory, spec: JobSpec, log: LogWriter, tell: Callable[[], None]
    ) -> Prepared:
        """Prepare one job.

        Returns:
            ``absent`` when nobody offers what it lacks; what has arrived is kept.

        Raises:
            EngineMissing: The engine isn't installed here.
            UnknownModel: A model is neither here nor offered.
            NotTrusted: A model isn't run here without its owner's yes.
            OutOfSpace: No room for the inputs.
            SleapRtcError: The inputs can't be had.
        """
        if spec.engine not in await asyncio.to_thread(self._engines):
            raise EngineMissing(engine=spec.engine, where=f"worker {self._worker}")
        try:
            inputs = self._here(spec.inputs.id)
            if inputs is None:
                inputs = await self._brought(spec.inputs, spec.datasets, log, tell)
            labels: dict[str, str] = {}
            if isinstance(spec.work, TrainSpec):
                for name in (spec.work.labels, spec.work.val_labels):
                    if name is not None:
                        labels[name] = str(await check_labels(inputs, name))
                for stage in spec.work.stages:
                    if stage.resume is not None:
                        await asyncio.to_thread(self._check_resumed, stage.resume)
            wanted = spec.work.models if isinstance(spec.work, TrackSpec) else ()
            models = [await self._model(model, log, tell) for model in wanted]
        except LinkLost as error:
            logger.info("job {}: {}", spec.id, error)
            return "absent"
        plan = RunnerPlan(
            engine=spec.engine,
            inputs=str(inputs),
            library=str(self._registry.models_dir),
            labels=labels,
            models=tuple(map(str, models)),
            worker=self._worker,
            device_name=self._device_name,
            threads=self._threads,
        )
        await asyncio.to_thread(write_replacing, job.plan, encode_pretty(plan))
        return "ready"

    def at_hand(self, spec: JobSpec) -> bool:
        """Whether every package that comes with a job is here, stored, or offered by somebody."""
        return all(
            self._place(package.id).is_dir()
            or self._peers.has_source(package.id)
            # It can be had while nobody offers it.
            or (waits_for_nobody(datasets) and package.id not in self._gone)
            for package, datasets in spec.parts
        )

    def weigh(self, asked: WeighData) -> DataWeighed:
        """What is here of a job's data, and what is seen. Blocks."""
        place = self._place(asked.package.id)
        files = asked.datasets
        here = sum(each.size_bytes for each in files if self._places.has(each))
        seen = (each for each in files if isinstance(each, SharedFile))
        return DataWeighed(
            here=asked.package.size if place.is_dir() else min(here, asked.package.size),
            seen=tuple(each.name for each in seen if self._places.folders.sees(each)),
            storage=self._places.storage.can,
        )

    def check_room(self, spec: JobSpec) -> None:
        """See that there is room for what a job brings, and some to spare.

        Raises:
            OutOfSpace: There isn't.
        """
        self._check_room(spec.offered)

    def _check_room(self, packages: Iterable[PackageRef]) -> None:
        need = self._keep_free + sum(map(self._missing, packages))
        free = free_space(self._root)
        if free < need:
            where = f"{self._root} of worker {self._worker}"
            hint = "Make room there, or ask its owner to: it keeps worker_keep_free bytes to spare."
            raise OutOfSpace(
                path=where, free=format_bytes(free), need=format_bytes(need), hint=hint
            )

    def forget(self, packages: Iterable[PackageRef]) -> None:
        """Remove what has arrived of packages that nobody will ask for again."""
        for each in packages:
            self._discard(each.id)

    def _place(self, package: PackageId) -> Path:
        return self._datasets / package

    def _missing(self, package: PackageRef) -> int:
        """Bytes of the disk that a package will still take."""
        place = self._place(package.id)
        # Of what is arriving, the room is reserved before the first byte.
        if place.is_dir() or folder_of(self._incoming, package.id, str(place)).is_dir():
            return 0
        return package.size

    def _here(self, package: PackageId) -> Path | None:
        """Where a package is, None if it isn't here."""
        place = self._place(package)
        try:
            os.utime(place)  # when it was used last: see sweeping.py
        except FileNotFoundError:
            return None
        return place

    async def _brought(
        self,
        package: PackageRef,
        datasets: Sequence[Dataset],
        log: LogWriter,
        tell: Callable[[], None],
    ) -> Path:
        """Fetch what comes with a job from where it says it is, else from whoever offers it.

        Raises:
            LinkLost: Nobody offers what isn't stored.
            OutOfSpace: There is no room for it.
            SleapRtcError: It can't be had.
        """
        if not self._gathering.helps(datasets):
            place = await self._offered(package, log, tell)
        else:
            try:
                place = await self._gathered(package, datasets, log, tell)
            except (LinkLost, OutOfSpace, Busy):
                raise
            except SleapRtcError as error:
                offered = self._peers.has_source(package.id)
                if not offered and not isinstance(error, NotFound):
                    if isinstance(error, DataError):
                        self._discard(package.id)
                    raise
                self._note(f"{error.message} The data has to come over the link.", log, tell)
                if not offered:  # nothing is kept for ever: the job waits for who submitted it
                    self._gone.add(package.id)
                    raise LinkLost(peer="the job's files", why=error.message) from None
                place = await self._offered(package, log, tell)
        await self._gathering.keep(place, datasets)
        return place

    async def _gathered(
        self,
        package: PackageRef,
        datasets: Sequence[Dataset],
        log: LogWriter,
        tell: Callable[[], None],
    ) -> Path:
        """Fetch a package from storage, and from disks that are shared."""

        async def bring(sources: Sources, patience: float, on_progress: OnProgress) -> Staged:
            return await self._staged(package, sources, on_progress, patience)

        # What storage gave, and was right, stays for whoever has the rest.
        with self._placing(package, discarding=False) as place:
            staged = await self._gathering.bring(
                package,
                datasets,
                bring,
                on_progress=_Teller(log, tell, _main_way(datasets)),
                say=lambda why: self._note(why, log, tell),
            )
            await _put(staged, place)
        return place

    async def _offered(self, package: PackageRef, log: LogWriter, tell: Callable[[], None]) -> Path:
        """Fetch a package from whoever offers it, to where it then is.

        Raises:
            LinkLost: Nobody offers it.
            OutOfSpace: There is no room for it.
        """
        with self._placing(package) as place, self._peers.sources(package.id) as sources:
            staged = await self._staged(package, sources, _Teller(log, tell), self._patience)
            await _put(staged, place)
        self._gone.discard(package.id)
        return place

    async def _staged(
        self, package: PackageRef, sources: Sources, on_progress: OnProgress, patience: float
    ) -> Staged:
        return await fetch(
            package,
            sources=sources,
            destination=str(self._place(package.id)),
            incoming=self._incoming,
            held=(self._datasets, self._registry.models_dir),
            cache=self._cache,
            on_progress=on_progress,
            throttle=self._throttle,
            patience=patience,
        )

    @contextlib.contextmanager
    def _placing(self, package: PackageRef, *, discarding: bool = True) -> Iterator[Path]:
        """Where a package goes.

        Args:
            package: The package.
            discarding: Whether what has arrived is removed, if it turns out to be damaged.

        Raises:
            OutOfSpace: There is no room for it.
        """
        self._check_room((package,))
        self._datasets.mkdir(parents=True, exist_ok=True)
        try:
            yield self._place(package.id)
        except DataError:
            if discarding:
                self._discard(package.id)
            raise

    def _discard(self, package: PackageId) -> None:
        place = str(self._place(package))
        if not folder_of(self._incoming, package, place).is_dir():
            return
        try:
            claim_partial(self._incoming, package, place).remove()
        except (SleapRtcError, OSError) as error:
            logger.warning("what has arrived of {}… is not removed: {}", package[:12], error)

    # ── models ───────────────────────────────────────────────────────────────

    async def _model(self, ref: ModelRef, log: LogWriter, tell: Callable[[], None]) -> Path:
        """Where a model is, by its content."""
        entry = await asyncio.to_thread(self._in_library, ref)
        if entry is not None:
            await asyncio.to_thread(self._check_entry, entry)
            self._say(f"Model {entry.id}, content {ref.package[:12]}: in the library", log, tell)
            return entry.directory
        place = self._here(ref.package)
        if place is None:
            if ref.offered is None:
                why = f"Worker {self._worker} has no model with the content {ref.package[:12]}."
                raise UnknownModel(name=ref.id, hint=why)
            place = await self._brought(ref.offered, ref.datasets, log, tell)
        await asyncio.to_thread(self._check_fetched, ref, place)
        self._say(f"Model {ref.id}, content {ref.package[:12]}: came with a job", log, tell)
        return place

    def _in_library(self, ref: ModelRef) -> Entry | None:
        """The model of the library with this content, whole; None if there is none.

        Models that were made alike have one id, but for its suffix.
        """
        alike = (with_suffix(ref.id, number) for number in itertools.count(1))
        for model_id in itertools.chain((ref.id,), alike):
            try:
                entry = self._registry.get(model_id)
                if entry.record.package == ref.package:
                    serve_model(entry.record, entry.directory, cache=self._cache).close()
                    return entry
            except UnknownModel:
                if model_id != ref.id:
                    return None
            except (NotFound, DataError) as error:
                logger.warning("model {} can't be used: {}", model_id, error)
        return None

    def _check_entry(self, entry: Entry) -> None:
        self._approve(entry.id, entry.directory, [file.path for file in entry.record.files])

    def _check_resumed(self, model: str) -> None:
        """Look into what a training would go on from: the trainer unpickles it."""
        try:
            entry = self._registry.get(model)
        except (NotFound, DataError):
            return  # whoever begins the training says so
        self._check_entry(entry)

    def _check_fetched(self, ref: ModelRef, place: Path) -> None:
        files = [f.relative_to(place).as_posix() for f in place.rglob("*") if f.is_file()]
        self._approve(ref.id, place, files)

    def _approve(self, model: str, directory: Path, files: list[str]) -> None:
        hint = _SAY_YES.replace("{worker}", self._worker)
        self._approvals.check_files(model, directory, files, hint=hint)

    def _say(self, line: str, log: LogWriter, tell: Callable[[], None]) -> None:
        """Tell which model is meant: its name could be another one's elsewhere."""
        self._note(f"{line} of {self._worker}.", log, tell)

    def _note(self, line: str, log: LogWriter, tell: Callable[[], None]) -> None:
        """Tell the job's followers something in a sentence."""
        logger.info("{}", line)
        log.append(Logged(line=line))
        tell()


async def _put(staged: Staged, place: Path) -> None:
    """Give a package that has arrived its place."""
    with staged:
        try:
            await asyncio.to_thread(place_directory, staged.path, place)
        except AlreadyExists:
            staged.discard()  # another job with the same inputs was quicker


def _main_way(datasets: Sequence[Dataset]) -> str:
    """The type of the files that make up most of a job's inputs."""
    sizes: Counter[str] = Counter()
    for each in datasets:
        sizes[str(type(each).__struct_config__.tag)] += each.size_bytes
    return sizes.most_common(1)[0][0]


class _Teller:
    """Tells a job's followers how far a fetch is."""

    def __init__(self, log: LogWriter, tell: Callable[[], None], way: str = "webrtc") -> None:
        self._log = log
        self._tell = tell
        self._way = way
        self._last, self._done = 0.0, -1

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        # A log doesn't grow while nothing comes, which may be for days.
        if progress.phase == "verifying" or progress.done == self._done:
            return
        if now - self._last < PROGRESS_EVERY_S and progress.done < progress.total:
            return
        self._last, self._done = now, progress.done
        self._log.append(
            Transferring(
                what="inputs",
                done=progress.done,
                total=progress.total,
                rate=progress.rate,
                eta_s=progress.eta_s,
                way=self._way,
            )
        )
        self._tell()
