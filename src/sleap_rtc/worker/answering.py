"""What a worker answers its peers, and who may ask what.

================================  ==========================================
request                           who may
================================  ==========================================
describe, list, follow, find      every member of the room
questions about the library       every member of the room
want files of a model or job      every member of the room
submit, offer files               owners and members
weigh, push and call models       owners and members
weigh the data of a job           owners and members
command, retry                    the job's submitter, and owners
================================  ==========================================
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.domain.ids import JobId, PackageId
from sleap_rtc.domain.packages import PackageRef, ref
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import (
    LinkLost,
    NotFound,
    NotPermitted,
    SleapRtcError,
    UsageError,
)
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.datasets import check
from sleap_rtc.jobs.events import JobEvent, ModelChanged
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.datasets import DataWeighed, WeighData
from sleap_rtc.protocol.library import (
    AskModel,
    CheckModels,
    ListModels,
    PartTold,
    WantPart,
    WatchLibrary,
    fit_record,
)
from sleap_rtc.protocol.link import (
    Accepted,
    CommandJob,
    Describe,
    Description,
    FindModel,
    FollowJob,
    JobHappened,
    JobsTold,
    JobSummary,
    JobTold,
    ListJobs,
    ModelTold,
    OfferFiles,
    ReplyBody,
    RequestBody,
    RetryJob,
    SubmitJob,
    UnfollowJob,
    WantFiles,
)
from sleap_rtc.protocol.moving import CallModels, FilesNear, NameModels, PushModel, WeighModel
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.serving import ServedPackage, serve_model
from sleap_rtc.transports.throttle import Throttle
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.library_answers import LibraryAnswers, find
from sleap_rtc.worker.manager import JobManager
from sleap_rtc.worker.near_models import NearModels
from sleap_rtc.worker.open_packages import OpenPackages
from sleap_rtc.worker.peers import Asker, Peers, asker_of
from sleap_rtc.worker.pushes import Pushes
from sleap_rtc.worker.turns import Turns

MAY_SUBMIT: Final = frozenset({"owner", "member"})
MAX_EVENT: Final = MAX_MESSAGE - 1024
"""Bytes of an event that fits into one message, with room for what is around it."""


class Answers:
    """Answers requests.

    Args:
        describe: Says what this worker has now.
        registry: Its library.
        cache: Hashes of unchanged files.
        max_files: Files that come with a job, in one package.
        keep_free: Bytes of the disk that models leave free.
        worker: The worker's name.
        approvals: What a person of this machine said yes to.
        throttle: Limits what is sent of content.
        storage: The room's area of models' files.
    """

    def __init__(
        self,
        *,
        describe: Callable[[], WorkerInfo],
        registry: Registry,
        cache: HashCache,
        max_files: int,
        keep_free: int,
        worker: str,
        approvals: Approvals,
        throttle: Throttle | None = None,
        storage: RoomStorage | None = None,
    ) -> None:
        self._describe = describe
        self._max_files = max_files
        self._registry = registry
        self._cache = cache
        self._follows: dict[tuple[str, JobId], asyncio.Task[None]] = {}
        self._turns = Turns()
        self._library = LibraryAnswers(registry, cache=cache)
        self.peers = Peers(
            self,
            on_gone=self._gone,
            on_source=lambda: self.jobs.look_again(),  # noqa: PLW0108 - they come later
            throttle=throttle,
        )
        self._open = OpenPackages(self.peers.is_granted)
        self._near = NearModels(registry)
        self.weigh: Callable[[WeighData], DataWeighed]
        self._pushes = Pushes(
            registry,
            peers=self.peers,
            worker=worker,
            approvals=approvals,
            needed=lambda: self.jobs.needed(),  # noqa: PLW0108 - they come later
            max_files=max_files,
            keep_free=keep_free,
            cache=cache,
            throttle=throttle,
            storage=storage,
        )
        self.jobs: JobManager

    @property
    def arriving(self) -> set[PackageId]:
        """The packages of models that are being pushed here."""
        return self._pushes.at_work

    async def __call__(self, channel: Channel, body: RequestBody, request: str) -> ReplyBody:
        """Answer one request; see the module's table."""
        asker = asker_of(channel.proven)
        if isinstance(body, PushModel):  # lasts for long, and has bounds of its own
            return await self._move(channel, asker, body)
        async with self._turns.of(asker.device):
            return await self._answer(channel, asker, body, request)

    async def _answer(
        self, channel: Channel, asker: Asker, body: RequestBody, request: str
    ) -> ReplyBody:
        match body:
            case Describe():
                return Description(worker=await asyncio.to_thread(self._describe))
            case SubmitJob():
                return await self._submit(asker, body)
            case ListJobs():
                jobs = await asyncio.to_thread(
                    self.jobs.list, limit=body.limit, device=asker.device
                )
                return JobsTold(jobs=_fitting(jobs))
            case FollowJob():
                return await self._follow(channel, asker, body)
            case UnfollowJob():
                self._unfollow(asker.session, body.job)
                return Accepted()
            case CommandJob() | RetryJob():
                return await self._command(asker, body, request)
            case FindModel():
                return await asyncio.to_thread(self._find, body.name)
            case WeighData():
                self._check_may_submit(asker)
                return await asyncio.to_thread(self.weigh, body)
            case OfferFiles() | WantFiles():
                return await self._exchange(asker, body)
            case ListModels() | AskModel() | CheckModels():
                return await asyncio.to_thread(self._library.answer, body)
            case WantPart() | WatchLibrary():
                return await self._serve_library(channel, asker, body)
            case NameModels() | WeighModel() | CallModels() | PushModel():
                return await self._move(channel, asker, body)

    async def _submit(self, asker: Asker, body: SubmitJob) -> JobTold:
        self._check_may_submit(asker)
        spec = body.spec
        if spec.inputs.files == 0:
            raise UsageError(message="The job's package is empty.")
        for package, datasets in spec.parts:
            check(datasets, package)
            self._check_package(package)
        if any(m.offered is not None and m.offered.id != m.package for m in _models(spec)):
            raise UsageError(message="A model is offered as another package than it has.")
        if any(m.offered is None and m.datasets for m in _models(spec)):
            raise UsageError(message="The files of a model are named that isn't offered.")
        for package in spec.offered:
            self.peers.offered(asker, package.id)
        summary = await self.jobs.submit(spec, asker)
        return JobTold(job=summary, spec=spec)

    def _check_package(self, package: PackageRef) -> None:
        """See that a package's listing, which is held in memory and looked through, is bounded."""
        if package.files > self._max_files:
            raise UsageError(
                message=f"The job comes with a package of {package.files:,} files; this worker "
                f"takes {self._max_files:,}.",
                hint="Its owner can set worker_max_files.",
            )
        if not package.is_possible:
            raise UsageError(message="The job's package is said to have an impossible listing.")

    def _check_may_submit(self, asker: Asker) -> None:
        if asker.role not in MAY_SUBMIT:
            raise NotPermitted(
                message=f"{asker.name} is a {asker.role} of the room; owners and members run jobs."
            )

    async def _command(self, asker: Asker, body: CommandJob | RetryJob, request: str) -> Accepted:
        if isinstance(body, CommandJob):
            await self.jobs.command(body.job, request, body.command, asker)
        else:
            await self.jobs.retry(body.job, asker)
        return Accepted()

    # ── following ────────────────────────────────────────────────────────────

    async def _follow(self, channel: Channel, asker: Asker, body: FollowJob) -> JobTold:
        job = self.jobs.get(body.job)
        summary = await asyncio.to_thread(self.jobs.summary, job, asker.device)
        told = JobTold(job=summary, spec=job.read_spec())
        self._unfollow(asker.session, body.job)
        task = asyncio.create_task(self._tell(channel, body.job, body.since))
        self._follows[asker.session, body.job] = task
        return told

    async def _tell(self, channel: Channel, job: JobId, since: int) -> None:
        try:
            async for event in self.jobs.follow(job, since):
                await channel.tell(JobHappened(job=job, event=_sendable(event)))
        except LinkLost:
            pass  # the peer follows again when it is back
        except SleapRtcError as error:
            logger.bind(code=error.code).warning("job {} can't be followed: {}", job, error)
        except ValueError as error:
            # An event that no message can hold: the follower is better cut off than left waiting.
            logger.error("job {} can't be followed: {}", job, error)
            await channel.close("an event of the job is too large to be sent")

    def _unfollow(self, session: str, job: JobId) -> None:
        task = self._follows.pop((session, job), None)
        if task is not None:
            task.cancel()

    def _gone(self, session: str) -> None:
        self._open.tidy()
        self._library.unwatch(session)
        for follower, job in [key for key in self._follows if key[0] == session]:
            self._unfollow(follower, job)

    # ── models and files ─────────────────────────────────────────────────────

    async def _exchange(self, asker: Asker, body: OfferFiles | WantFiles) -> Accepted | FilesNear:
        package = body.package.id
        if isinstance(body, OfferFiles):
            self._check_may_submit(asker)
            self.peers.offered(asker, package)
        else:
            served = await self._open.get(package, lambda: self._make(body))
            self.peers.grant(asker, package, served)
            return await self._near.tell(asker, body) or Accepted()
        return Accepted()

    def _find(self, name: str) -> ModelTold:
        found = find(self._registry, name)
        record = found.record
        package = None
        if record.package is not None and record.files:
            package = ref(serve_model(record, found.directory, cache=self._cache).packed.package)
        # Whoever fetches one of very many files makes the list from the package.
        if len(encode(record)) > MAX_EVENT:
            record, _ = fit_record(record, MAX_EVENT)
        return ModelTold(record=record, alias=found.alias or "", package=package)

    async def _serve_library(
        self, channel: Channel, asker: Asker, body: WantPart | WatchLibrary
    ) -> ReplyBody:
        if isinstance(body, WatchLibrary):
            self._library.watch(asker.session, channel)
            return Accepted()
        part = self._open.keep(await asyncio.to_thread(self._library.part, body))
        self.peers.grant(asker, part.packed.package.id, part)
        return PartTold(package=ref(part.packed.package))

    async def _move(
        self,
        channel: Channel,
        asker: Asker,
        body: NameModels | WeighModel | CallModels | PushModel,
    ) -> ReplyBody:
        match body:
            case NameModels():
                return await asyncio.to_thread(self._pushes.named, body)
            case WeighModel():
                return await self._pushes.weigh(asker, body)
            case CallModels():
                return await asyncio.to_thread(self._pushes.call, asker, body)
            case PushModel():
                return await self._pushes.push(channel, asker, body)

    def _make(self, body: WantFiles) -> ServedPackage:
        if body.model is not None:
            entry = self._registry.get(body.model)
            return serve_model(entry.record, entry.directory, cache=self._cache)
        if body.job is not None:
            job = self.jobs.get(body.job)
            self._check_output(job, body.package)
            files = _files_below(job.predictions)
            return ServedPackage(pack(files, root=job.predictions, cache=self._cache))
        raise UsageError(message="Say which model's or job's files are wanted.")

    def _check_output(self, job: JobDirectory, package: PackageRef) -> None:
        outputs = self.jobs.view(job).outputs
        if all(output.package.id != package.id for output in outputs):
            raise NotFound(message=f"Job {job.root.name} has put out no such package.")


def _models(spec: JobSpec) -> tuple[ModelRef, ...]:
    return spec.work.models if isinstance(spec.work, TrackSpec) else ()


def _files_below(root: Path) -> dict[str, Path]:
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _fitting(jobs: list[JobSummary]) -> tuple[JobSummary, ...]:
    """As many of the newest jobs as one message can hold: names are others' words."""
    ends = itertools.accumulate(len(encode(job)) + 1 for job in jobs)
    return tuple(job for job, end in zip(jobs, ends, strict=True) if end <= MAX_EVENT)


def _sendable(event: JobEvent) -> JobEvent:
    """The event, with a record that one message can hold.

    A model of very many files is told without their list: whoever fetches it makes the list from
    the package, which is its content all the same. One with a very long configuration is told
    without that: its files have it. All other events are bounded where they are made.
    """
    body = event.body
    if not isinstance(body, ModelChanged):
        return event
    record = body.record
    bare = msgspec.structs.replace(record.training, hyperparameters={})
    for left_out in ({"files": (), "canonical": None}, {"training": bare}):
        if len(encode(event)) <= MAX_EVENT:
            break
        record = msgspec.structs.replace(record, **left_out)
        event = msgspec.structs.replace(event, body=msgspec.structs.replace(body, record=record))
    return event
