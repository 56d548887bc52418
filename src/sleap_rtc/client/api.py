"""The Python API: what the command line does, for programs and notebooks.

Asynchronously::

    async with AsyncClient() as client:
        job = client.compose_training("flies.pkg.slp", ["centroid.yaml"])
        async with client.submit(job, worker="gpu-1", alias="flies") as training:
            async for update in training.updates():
                print(update)

Without ``async``, and in one call: ``client/synchronous.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
from loguru import logger

from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client import members as members_
from sleap_rtc.client import rooms as rooms_
from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.asking import WorkerLibrary, open_library
from sleap_rtc.client.choosing import choose
from sleap_rtc.client.composing import Composed, Located, compose_tracking, compose_training
from sleap_rtc.client.following import ONCE_S, Follower
from sleap_rtc.client.lastknown import LastKnown
from sleap_rtc.client.locating import locate, offered_here
from sleap_rtc.client.members import RoomMember
from sleap_rtc.client.moving import Mover, open_mover
from sleap_rtc.client.online import Online
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.shipping import Shipped, Wish, pull_models, push_models
from sleap_rtc.client.submitted import SubmittedJob, SubmittedJobs, meant
from sleap_rtc.client.supplying import Ways
from sleap_rtc.client.tracking import Resolved, resolve_models, track_here
from sleap_rtc.client.transfers import IfExistsWish, Transfers
from sleap_rtc.client.unzipping import ENDING, TrainingPackage, unpack
from sleap_rtc.client.watching import Watcher
from sleap_rtc.config import Settings, load
from sleap_rtc.domain.ids import JobId, is_uuid7
from sleap_rtc.domain.places import Presence, Role
from sleap_rtc.engines.base import EngineEvent
from sleap_rtc.engines.registry import DEFAULT
from sleap_rtc.errors import NotFound, UsageError
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.jobs.events import Command, JobState
from sleap_rtc.library.migration import open_registry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import (
    CommandJob,
    FindModel,
    FollowJob,
    JobsTold,
    JobSummary,
    JobTold,
    ListJobs,
    ModelTold,
    ReplyBody,
    RequestBody,
    RetryJob,
)
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.throttle import Throttle

T = TypeVar("T")
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


class AsyncClient:
    """A person's machine: its rooms, its jobs, its library. An asynchronous context manager.

    Args:
        settings: By default those of the environment and the home's file.
        library: The home's library, where it is open already; it is closed with this.

    Attributes:
        taken_over: What became of models in the public sleap-rtc's registry, if it was found now.
        known: What this machine was told last, for when nobody can be asked.
    """

    def __init__(
        self, settings: Settings | None = None, *, library: Registry | None = None
    ) -> None:
        self.settings = settings or load()
        home = self.settings.home
        self.library, self.taken_over = (
            open_registry(home / "models") if library is None else (library, ())
        )
        self.submitted = SubmittedJobs(home / "jobs")
        self.transfers = Transfers(home / "transfers")
        self.devices = DeviceStore(home)
        self.cache = HashCache(home / "hashes")
        self.known = LastKnown(home / "known")
        self.throttle = Throttle.of(self.settings.limit_rate)
        self._incoming = home / "incoming"

    async def __aenter__(self) -> AsyncClient:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the library."""
        self.library.close()

    # ── servers and rooms ────────────────────────────────────────────────────

    async def login(self, server: str, *, code: str | None = None) -> rooms_.SignedIn:
        """Sign in at a server; see :func:`sleap_rtc.client.rooms.login`."""
        return await rooms_.login(self.settings, server, code=code)

    async def create_room(self, name: str, *, server: str | None = None) -> rooms_.CreatedRoom:
        """Make a room; see :func:`sleap_rtc.client.rooms.create_room`."""
        return await rooms_.create_room(self.settings, name, server=self._server(server))

    def invite(
        self, room: str | None, *, role: Role = "member", uses: int = 1, hours: float = 24.0
    ) -> str:
        """An invite link; see :func:`sleap_rtc.client.rooms.invite`."""
        entry = self.room(room)
        return rooms_.invite(self.settings, entry.room, role=role, uses=uses, hours=hours)

    async def join(self, link: str, *, name: str | None = None) -> RoomEntry:
        """Join a room; see :func:`sleap_rtc.client.rooms.join`."""
        return await rooms_.join(self.settings, link, name=name)

    def rooms(self) -> list[RoomEntry]:
        """The rooms that this device is in, by name."""
        return self.devices.rooms()

    def room(self, name: str | None = None) -> RoomEntry:
        """One room by name or id; without a name the only one.

        Raises:
            UnknownRoom: There is none.
            UsageError: There are several.
        """
        return rooms_.find_room(self.devices, name)

    @asynccontextmanager
    async def online(self, room: RoomEntry) -> AsyncIterator[Online]:
        """Be present in a room.

        Raises:
            Offline: Nobody is to be asked; :attr:`known` has what was told last.
            ServerUnreachable: Its server can't be reached.
            NotPermitted: The server doesn't take this device for a member.
        """
        async with Online(self.settings, room.server) as online:
            await online.enter(room, name=self.settings.name, kind="client")
            self.known.keep_workers(room, online.workers(room.room))
            yield online

    async def workers(self, room: str | None = None) -> list[Presence]:
        """The workers that are online in a room, by name."""
        entry = self.room(room)
        async with self.online(entry) as online:
            return online.workers(entry.room)

    async def accept_worker(self, name: str, *, room: str | None = None) -> rooms_.AcceptedWorker:
        """Take a worker that was set up anew; see :func:`sleap_rtc.client.rooms.accept_worker`."""
        return await rooms_.accept_worker(self.settings, self.room(room), name)

    async def members(self, room: str | None = None) -> list[RoomMember]:
        """Everybody in a room of this device; see :func:`sleap_rtc.client.members.members`."""
        return await members_.members(self.settings, self.room(room))

    async def remove_member(self, name: str, *, room: str | None = None) -> RoomMember:
        """Put a device out of a room; see :func:`sleap_rtc.client.members.remove`."""
        return await members_.remove(self.settings, self.room(room), name)

    # ── jobs ─────────────────────────────────────────────────────────────────

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

    @asynccontextmanager
    async def link(
        self, worker: str, room: RoomEntry, *, device: str | None = None
    ) -> AsyncIterator[Link]:
        """A link to a worker, for questions.

        Args:
            worker: Its name.
            room: Its room.
            device: Its key, where that is known.

        Raises:
            UnknownWorker: It isn't online.
            NotFound: It is another device than that.
        """
        async with self.online(room) as online:
            presence = await online.find_worker(room, worker)
            if device is not None and presence.device != device:
                raise NotFound(message=f"The worker {worker} is another device than before.")
            link = Link(online.switchboard, room=room.room, locate=lambda: presence, name=worker)
            async with link:
                yield link

    async def jobs_of(self, worker: str, *, room: str | None = None) -> Sequence[JobSummary]:
        """The newest jobs of a worker, everybody's."""
        (answer,) = await self._ask(worker, ListJobs(), room=room)
        assert isinstance(answer, JobsTold)  # noqa: S101 - the protocol's table says so
        return answer.jobs

    async def find_model(self, name: str, worker: str, *, room: str | None = None) -> ModelTold:
        """What a worker knows of a model.

        Raises:
            UnknownModel: It hasn't got it.
        """
        (answer,) = await self._ask(worker, FindModel(name=name), room=room)
        assert isinstance(answer, ModelTold)  # noqa: S101 - the protocol's table says so
        return answer

    @asynccontextmanager
    async def library_of(
        self, worker: str | None, *, room: str | None = None
    ) -> AsyncIterator[WorkerLibrary]:
        """The library of a worker, to be asked; see ``client/asking.py``.

        Args:
            worker: Its name; by default the only one that is online.
            room: The room; by default the only one.

        Raises:
            UnknownWorker: It isn't online.
            UsageError: Several are online, and none is named.
            PeerUnreachable: It can't be reached.
        """
        entry = self.room(room)
        async with (
            self.online(entry) as online,
            open_library(online, entry, worker) as library,
        ):
            yield library

    # ── models ───────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def mover(
        self,
        worker: str | None,
        *,
        room: str | None = None,
        beside: Sequence[str] = (),
        say: Callable[[str], None] = logger.warning,
    ) -> AsyncIterator[Mover]:
        """A connection over which models move; see ``client/moving.py``.

        Args:
            worker: The worker's name; by default the only one that is online.
            room: The room; by default the only one.
            beside: More workers from which a pull fetches, as far as they have the same content.
            say: Told, in a sentence, when one way takes the place of another.

        Raises:
            UnknownWorker: It isn't online.
            PeerUnreachable: It can't be reached.
        """
        entry = self.room(room)
        storage = RoomStorage(self.settings, entry, "rooms")
        async with (
            self.online(entry) as online,
            open_mover(
                online,
                entry,
                worker,
                registry=self.library,
                cache=self.cache,
                transfers=self.transfers,
                throttle=self.throttle,
                ways=Ways.of(self.settings, storage),
                beside=beside,
                say=say,
            ) as mover,
        ):
            with closing(storage):
                yield mover

    async def push_models(
        self,
        names: Sequence[str],
        worker: str | None = None,
        *,
        room: str | None = None,
        if_exists: IfExistsWish = "ask",
        alias: str | None = None,
    ) -> Shipped:
        """Push models of this library to a worker; see ``client/shipping.py``.

        Args:
            names: Ids, prefixes or aliases; the alias of a pair names both.
            worker: The worker's name; by default the only one that is online.
            room: The room; by default the only one.
            if_exists: What becomes of another model with the id of one of them: ``skip``,
                ``overwrite`` (it goes to the trash), ``keep-both``; else that one fails.
            alias: What they are called there, if that is free.
        """
        wish = Wish(names=tuple(names), if_exists=if_exists, alias=alias)
        async with self.mover(worker, room=room) as mover:
            return await push_models(mover, wish)

    async def pull_models(
        self,
        names: Sequence[str],
        worker: str | None = None,
        *,
        room: str | None = None,
        beside: Sequence[str] = (),
        if_exists: IfExistsWish = "ask",
        alias: str | None = None,
        trust: bool = False,
    ) -> Shipped:
        """Pull models of a worker into this library; see ``client/shipping.py``.

        Args:
            names: Ids, prefixes or aliases, as they are there.
            worker: The worker's name; by default the only one that is online.
            room: The room; by default the only one.
            beside: More workers from which to fetch what they have of it.
            if_exists: As for :meth:`push_models`.
            alias: What they are called here, if that is free.
            trust: Take files that could run something when they are loaded; that is recorded.
        """
        wish = Wish(names=tuple(names), if_exists=if_exists, alias=alias, trust=trust)
        async with self.mover(worker, room=room, beside=beside) as mover:
            return await pull_models(mover, wish)

    async def locate_models(
        self, names: Sequence[str], worker: str, *, room: str | None = None
    ) -> tuple[Located, ...]:
        """Models for a job on a worker, by what both sides have; see ``client/locating.py``.

        Raises:
            UnknownModel: One is neither here nor there.
            FilesMissing: The files of one are neither here nor there.
        """
        async with self.link(worker, self.room(room)) as link:
            return await locate(names, registry=self.library, link=link, cache=self.cache)

    def resolve_models(self, names: Sequence[str]) -> Resolved:
        """The models of this library that were named, with their files; for tracking."""
        return resolve_models(self.library, names)

    def track(
        self,
        models: Resolved,
        video: str | Path,
        output: str | Path,
        *,
        frames: tuple[int, int] | None = None,
        tracking: bool = False,
        overwrite: bool = False,
        trust: bool = False,
    ) -> AsyncIterator[EngineEvent]:
        """Run models over one video on this machine; see ``client/tracking.py``."""
        return track_here(
            models,
            Path(video),
            Path(output),
            approvals=Approvals(self.settings.home / "trusted"),
            frames=frames,
            tracking=tracking,
            overwrite=overwrite,
            trust=trust,
        )

    # ── inside ───────────────────────────────────────────────────────────────

    def _server(self, server: str | None) -> str:
        found = server or self.settings.server
        if found is None:
            servers = {entry.server for entry in self.rooms()}
            if len(servers) != 1:
                raise UsageError(
                    message="Which server?",
                    hint="Sign in first: sleap-rtc login SERVER. Or add --server.",
                )
            found = servers.pop()
        return found

    async def _ask_about(self, job: _JobAt, *bodies: RequestBody) -> list[ReplyBody]:
        return await self._ask(job.worker, *bodies, room=job.room, device=job.device)

    async def _ask(
        self, worker: str, *bodies: RequestBody, room: str | None, device: str | None = None
    ) -> list[ReplyBody]:
        async with self.link(worker, self.room(room), device=device) as link:
            return [await link.request(body, within_s=ONCE_S) for body in bodies]
