"""The Python API's part for jobs: composed, submitted, followed, commanded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client.api_rooms import RoomsApi
from sleap_rtc.client.choosing import choose
from sleap_rtc.client.composing import Composed, Located, compose_tracking, compose_training
from sleap_rtc.client.following import Follower
from sleap_rtc.client.locating import offered_here
from sleap_rtc.client.online import Online
from sleap_rtc.client.submitted import SubmittedJob, meant
from sleap_rtc.client.tracking import Resolved
from sleap_rtc.client.unzipping import ENDING, TrainingPackage, unpack
from sleap_rtc.client.watching import Watcher
from sleap_rtc.domain.ids import JobId, is_uuid7
from sleap_rtc.domain.places import Presence
from sleap_rtc.engines.registry import DEFAULT
from sleap_rtc.jobs.events import Command, JobState
from sleap_rtc.protocol.link import (
    CommandJob,
    FollowJob,
    JobsTold,
    JobSummary,
    JobTold,
    ListJobs,
    ReplyBody,
    RequestBody,
    RetryJob,
)

Hashing = Callable[[int, int], None]
Paths = Sequence[str | Path]

NEVER: Final = 2**53
"""The number of an event that no job comes to."""


class _JobAt(msgspec.Struct, frozen=True, kw_only=True):
    """A job and where it is: the device is known of this machine's own jobs."""

    job: JobId
    worker: str
    room: str | None
    device: str | None = None


class JobsApi(RoomsApi):
    """A person's jobs; see :class:`~sleap_rtc.client.api.AsyncClient`."""

    def jobs(self) -> list[SubmittedJob]:
        """The jobs that this machine submitted, the newest first, as they were last seen."""
        return self.submitted.all()

    def compose_training(
        self,
        labels: str | Path,
        configs: Paths = (),
        *,
        engine: str = DEFAULT,
        room: str | None = None,
        val_labels: str | Path | None = None,
        run_name: str | None = None,
        progress: Hashing | None = None,
    ) -> Composed:
        """Check and hash what a training needs; see ``client/composing.py``.

        Args:
            labels: A ``.pkg.slp``, a ``.slp`` with its videos beside it, or a ``.zip`` with labels
                and perhaps configurations, as SLEAP exports it (``client/unzipping.py``).
            configs: One configuration per model, instead of those in a zip.
            engine: The trainer.
            room: The room; by default the only one.
            val_labels: Labels to validate on.
            run_name: Names the runs.
            progress: Told of bytes read and bytes in all.

        Raises:
            InvalidLabels: The labels can't be used.
            InvalidConfig: A configuration can't be used.
            UsageError: There is no configuration, or two for one kind of model.
        """
        entry = self.room(room)
        given = TrainingPackage(
            labels=Path(labels).absolute(),
            configs=tuple(Path(path).absolute() for path in configs),
            val_labels=None if val_labels is None else Path(val_labels).absolute(),
        )
        if given.labels.suffix == ENDING:
            found = unpack(given.labels, self.settings.home / "unpacked", progress=progress)
            given = TrainingPackage(
                labels=found.labels,
                configs=given.configs or found.configs,
                val_labels=given.val_labels or found.val_labels,
            )
        return compose_training(
            given.labels,
            given.configs,
            engine=engine,
            room=entry.room,
            val_labels=given.val_labels,
            run_name=run_name,
            cache=self.cache,
            progress=progress,
        )

    def compose_tracking(
        self,
        videos: Paths,
        models: Resolved | Sequence[Located],
        *,
        room: str | None = None,
        frames: tuple[int, int] | None = None,
        tracking: bool = False,
        progress: Hashing | None = None,
    ) -> Composed:
        """Hash what a remote tracking needs; see ``client/composing.py``.

        Args:
            videos: The videos.
            models: What :meth:`locate_models` found for a worker; or models of this library, which
                any worker that lacks them can fetch from here.
            room: The room; by default the only one.
            frames: First and last frame, both included.
            tracking: Whether identities are linked over time.
            progress: Told of bytes hashed and bytes in all.
        """
        if isinstance(models, Resolved):
            models = [offered_here(entry, self.cache) for entry in models.entries]
        return compose_tracking(
            [Path(path).absolute() for path in videos],
            models,
            room=self.room(room).room,
            frames=frames,
            tracking=tracking,
            cache=self.cache,
            progress=progress,
        )

    @asynccontextmanager
    async def submit(
        self,
        composed: Composed,
        *,
        worker: str | None = None,
        alias: str | None = None,
        download: bool = True,
        output: str | Path | None = None,
        targets: Mapping[str, str | Path] = MappingProxyType({}),
    ) -> AsyncIterator[Follower]:
        """Send a job to a worker and follow it.

        The job is kept on this machine before it is sent, so that it can be attached to later,
        whatever happens in between.

        Args:
            composed: The job.
            worker: The worker's name; by default the least busy one that has the engine.
            alias: What the models are called at home.
            download: Whether models come home by themselves.
            output: The directory to make for predictions.
            targets: Video's path in the package → where its predictions are to be in the end;
                :func:`sleap_rtc.client.tracking.deliver` puts them there.

        Raises:
            NotFound: It isn't online, or no worker is.
            EngineMissing: It hasn't got the engine.
        """
        room = self.devices.room(composed.spec.room)
        async with self.online(room) as online:
            chosen = await choose(online, room, worker, composed.spec.engine)
            job = SubmittedJob(
                spec=composed.spec,
                room=room.room,
                worker=chosen.name,
                device=chosen.device,
                submitted_at=datetime.now(UTC),
                files={name: str(path) for name, path in composed.files.items()},
                offered=composed.offered,
                download=download,
                alias=alias,
                output=None if output is None else str(Path(output).absolute()),
                targets={name: str(Path(path).absolute()) for name, path in targets.items()},
            )
            self.submitted.add(job)
            async with self._follower(online, room, job) as follower:
                yield follower

    @asynccontextmanager
    async def attach(self, job: str, *, download: bool | None = None) -> AsyncIterator[Follower]:
        """Follow a job that this machine submitted before, and bring home what it has.

        Args:
            job: Its id, or the id's last digits.
            download: Whether models come home; by default as it was submitted.

        Raises:
            UnknownJob: This machine submitted no such job.
        """
        kept = self.submitted.get(job)
        if download is not None and download != kept.download:
            wanted = download
            kept = self.submitted.update(
                kept.id, lambda old: msgspec.structs.replace(old, download=wanted)
            )
        room = self.devices.room(kept.room)
        async with (
            self.online(room) as online,
            self._follower(online, room, kept) as follower,
        ):
            yield follower

    def _follower(self, online: Online, room: RoomEntry, job: SubmittedJob) -> Follower:
        return Follower(
            online,
            room=room,
            job=job,
            jobs=self.submitted,
            registry=self.library,
            incoming=self._incoming,
            cache=self.cache,
            throttle=self.throttle,
        )

    @asynccontextmanager
    async def watch(
        self, job: str, *, worker: str | None = None, room: str | None = None
    ) -> AsyncIterator[Watcher]:
        """Read a job's events without taking part in it; see ``client/watching.py``.

        Args:
            job: Its id, or the id's last digits.
            worker: The worker that has it; needed for jobs that this machine didn't submit.
            room: The worker's room.

        Raises:
            UnknownJob: There is no such job.
        """
        at = await self._find_job(job, worker, room)
        entry = self.room(at.room)
        async with self.online(entry) as online:
            await online.find_worker(entry, at.worker)
            watcher = Watcher(
                online,
                room=entry.room,
                job=at.job,
                worker=at.worker,
                locate=lambda: online.worker(entry.room, at.worker, device=at.device),
            )
            async with watcher:
                yield watcher

    async def command(
        self, job: str, command: Command, *, worker: str | None = None, room: str | None = None
    ) -> JobState:
        """Command a job: one that this machine submitted, or, as an owner, any of a worker's.

        Returns:
            The state that the job was in before: in the state that is asked for, nothing happens.

        Raises:
            UnknownJob: There is no such job.
            NotPermitted: It is somebody else's, and this device is no owner.
            IllegalTransition: It makes no sense in the job's state.
        """
        at = await self._find_job(job, worker, room)
        # From an event on that never comes: only the job itself is of interest.
        look = FollowJob(job=at.job, since=NEVER)
        told, _ = await self._ask_about(at, look, CommandJob(job=at.job, command=command))
        assert isinstance(told, JobTold)  # noqa: S101 - the protocol's table says so
        return told.job.state

    async def retry(self, job: str, *, worker: str | None = None, room: str | None = None) -> None:
        """Let an interrupted job go on from its checkpoint, on the same worker.

        Raises:
            UnknownJob: There is no such job.
            NotPermitted: It is somebody else's, and this device is no owner.
            IllegalTransition: It isn't interrupted.
        """
        at = await self._find_job(job, worker, room)
        await self._ask_about(at, RetryJob(job=at.job))

    async def find_job(self, name: str, *, worker: str, room: str | None = None) -> JobId:
        """The id of a worker's job that a person means, by the id's last digits.

        Raises:
            UnknownJob: It has none that fits.
            AmbiguousName: Several fit.
        """
        if is_uuid7(name):
            return JobId(name)
        return meant(name, [job.id for job in await self.jobs_of(worker, room=room)])

    async def _find_job(self, name: str, worker: str | None, room: str | None) -> _JobAt:
        if worker is None:
            kept = self.submitted.get(name)
            return _JobAt(job=kept.id, worker=kept.worker, room=kept.room, device=kept.device)
        job = await self.find_job(name, worker=worker, room=room)
        return _JobAt(job=job, worker=worker, room=room)

    async def choose_worker(
        self, engine: str, *, worker: str | None = None, room: str | None = None
    ) -> Presence:
        """The worker that :meth:`submit` would take.

        Args:
            engine: The trainer that it must have.
            worker: Its name; by default the least busy one that has the engine.
            room: The room; by default the only one.

        Raises:
            NotFound: It isn't online, or no worker is.
            EngineMissing: It hasn't got the engine.
        """
        entry = self.room(room)
        async with self.online(entry) as online:
            return await choose(online, entry, worker, engine)

    async def jobs_of(self, worker: str, *, room: str | None = None) -> Sequence[JobSummary]:
        """The newest jobs of a worker, everybody's."""
        (answer,) = await self._ask(worker, ListJobs(), room=room)
        assert isinstance(answer, JobsTold)  # noqa: S101 - the protocol's table says so
        return answer.jobs

    # ── inside ───────────────────────────────────────────────────────────────

    async def _ask_about(self, job: _JobAt, *bodies: RequestBody) -> list[ReplyBody]:
        return await self._ask(job.worker, *bodies, room=job.room, device=job.device)
