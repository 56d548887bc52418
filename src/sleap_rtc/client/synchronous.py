"""The Python API without ``async``: for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TypeVar

from sleap_rtc.auth.store import RoomEntry
from sleap_rtc.client import rooms as rooms_
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.client.api_jobs import Hashing, Paths
from sleap_rtc.client.asking import RemoteModel, RemoteModels, WorkerLibrary
from sleap_rtc.client.composing import Composed, Located
from sleap_rtc.client.following import Follower, Update
from sleap_rtc.client.lastknown import LastKnown
from sleap_rtc.client.members import RoomMember
from sleap_rtc.client.outcome import failure
from sleap_rtc.client.portal import Portal
from sleap_rtc.client.routing import Routed, plan_for, send_first
from sleap_rtc.client.shipping import Shipped
from sleap_rtc.client.submitted import SubmittedJob
from sleap_rtc.client.tracking import Resolved, deliver, output_path
from sleap_rtc.client.transfers import IfExistsWish
from sleap_rtc.client.watching import Watcher
from sleap_rtc.config import Settings
from sleap_rtc.domain.ids import JobId
from sleap_rtc.domain.places import Presence, Role
from sleap_rtc.engines.base import EngineEvent
from sleap_rtc.engines.registry import DEFAULT
from sleap_rtc.errors import AlreadyExists
from sleap_rtc.jobs.events import Command, JobEvent, JobState
from sleap_rtc.jobs.lifecycle import JobView
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.library import ListModels
from sleap_rtc.protocol.link import JobSummary, JobTold, ModelTold

T = TypeVar("T")


def _ignore(_: object) -> None:
    """Do nothing with what happens."""


class Following:
    """A job that is followed, within ``with client.submit(…)`` or ``client.attach(…)``."""

    def __init__(self, portal: Portal, follower: Follower) -> None:
        self._portal = portal
        self._follower = follower

    @property
    def job(self) -> SubmittedJob:
        """The job as this machine keeps it."""
        return self._follower.job

    @property
    def view(self) -> JobView:
        """How the job stands."""
        return self._follower.view

    def updates(self) -> Iterator[Update]:
        """What happens, until the job is settled and everything is home.

        Raises:
            SleapRtcError: It can't be followed, or something can't be brought home.
        """
        return self._portal.iterate(self._follower.updates())

    def command(self, command: Command) -> None:
        """Command the job; returns when the worker has noted it.

        Raises:
            IllegalTransition: It makes no sense in the job's state.
        """
        self._portal.call(self._follower.command(command))


class Watching:
    """A job whose events are read, within ``with client.watch(…)``."""

    def __init__(self, portal: Portal, watcher: Watcher) -> None:
        self._portal = portal
        self._watcher = watcher

    @property
    def told(self) -> JobTold:
        """What the worker said of the job."""
        return self._watcher.told

    def past(self) -> list[JobEvent]:
        """The events that there were when the worker was asked."""
        return self._portal.call(self._watcher.past())

    def events(self) -> Iterator[JobEvent]:
        """Every event, and those to come, for as long as it is iterated."""
        return self._portal.iterate(self._watcher.events())


class Asking:
    """A worker's library, within ``with client.library_of(…)``."""

    def __init__(self, portal: Portal, library: WorkerLibrary) -> None:
        self._portal = portal
        self._library = library

    def models(self, query: ListModels | None = None, *, limit: int | None = None) -> RemoteModels:
        """Its models; see :class:`sleap_rtc.client.asking.WorkerLibrary`."""
        return self._portal.call(self._library.models(query or ListModels(), limit=limit))

    def info(self, name: str) -> RemoteModel:
        """Everything about one model.

        Raises:
            UnknownModel: It hasn't got it.
        """
        return self._portal.call(self._library.info(name))

    def exists(self, *names: str) -> tuple[bool, ...]:
        """Which of these ids and aliases name a model of it."""
        return self._portal.call(self._library.exists(*names))


class Client:
    """A person's machine: its rooms, its jobs, its library. Each call returns when it is done.

    Made by a program or in a notebook; it opens nothing before that is needed. In a room with a
    worker:

    >>> from sleap_rtc import Client
    >>> client = Client()
    >>> [worker.name for worker in client.workers()]
    ['gpu-1']

    Training brings the model home, under a name:

    >>> (model,) = client.train("flies.pkg.slp", ["centroid.yaml"], engine="tiny", alias="flies")
    >>> model.alias, model.record.status
    ('flies', 'completed')

    What it can do is a call away, here or on the worker:

    >>> client.track("flies", "video.mp4").name
    'video.mp4.predictions.slp'
    >>> client.track("flies", "video.mp4", "remote.slp", worker="gpu-1").name
    'remote.slp'

    Models are pushed to workers and pulled from them; what is there already doesn't move:

    >>> [moved.how for moved in client.push_models(["flies"], "gpu-1").moved]
    ['known']
    >>> [moved.how for moved in client.pull_models([model.id], "gpu-1").moved]
    ['known']

    Jobs outlive the program that submitted them:

    >>> job = client.jobs()[-1]
    >>> job.spec.name, job.state
    ('flies.pkg.slp', 'completed')
    >>> with client.watch(job.id) as watching:
    ...     print(watching.past()[0].body.state)
    queued

    Whoever wants to see what happens, or to let go, follows a job as a context manager:

    >>> composed = client.compose_training("flies.pkg.slp", ["centroid.yaml"], engine="tiny")
    >>> with client.submit(composed, worker="gpu-1", download=False) as following:
    ...     for update in following.updates():
    ...         pass
    >>> following.view.state
    'completed'
    >>> with client.attach(following.job.id, download=True) as following:
    ...     home = [update for update in following.updates()][-1]
    >>> home.what, home.path.is_dir()
    ('model', True)

    Args:
        settings: By default those of the environment and the home's file.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._client = AsyncClient(settings)
        self._portal = Portal()

    def __enter__(self) -> Client:
        """Nothing is opened before it is needed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what was opened."""
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        self._portal.close()
        self._client.library.close()

    @property
    def settings(self) -> Settings:
        """The settings that hold."""
        return self._client.settings

    @property
    def known(self) -> LastKnown:
        """What this machine was told last, for when nobody can be asked."""
        return self._client.known

    @property
    def library(self) -> Registry:
        """This machine's models."""
        return self._client.library

    # ── servers and rooms ────────────────────────────────────────────────────

    def login(self, server: str, *, code: str | None = None) -> rooms_.SignedIn:
        """Sign in at a server; see :func:`sleap_rtc.client.rooms.login`."""
        return self._portal.call(self._client.login(server, code=code))

    def create_room(self, name: str, *, server: str | None = None) -> rooms_.CreatedRoom:
        """Make a room; see :func:`sleap_rtc.client.rooms.create_room`."""
        return self._portal.call(self._client.create_room(name, server=server))

    def invite(
        self, room: str | None = None, *, role: Role = "member", uses: int = 1, hours: float = 24.0
    ) -> str:
        """An invite link; see :func:`sleap_rtc.client.rooms.invite`."""
        return self._client.invite(room, role=role, uses=uses, hours=hours)

    def join(self, link: str, *, name: str | None = None) -> RoomEntry:
        """Join a room; see :func:`sleap_rtc.client.rooms.join`."""
        return self._portal.call(self._client.join(link, name=name))

    def rooms(self) -> list[RoomEntry]:
        """The rooms that this device is in, by name."""
        return self._client.rooms()

    def room(self, name: str | None = None) -> RoomEntry:
        """One room by name or id; without a name the only one."""
        return self._client.room(name)

    def workers(self, room: str | None = None) -> list[Presence]:
        """The workers that are online in a room, by name."""
        return self._portal.call(self._client.workers(room))

    def accept_worker(self, name: str, *, room: str | None = None) -> rooms_.AcceptedWorker:
        """Take a worker's new device for it; see :meth:`AsyncClient.accept_worker`."""
        return self._portal.call(self._client.accept_worker(name, room=room))

    def members(self, room: str | None = None) -> list[RoomMember]:
        """Everybody in a room of this device; see :meth:`AsyncClient.members`."""
        return self._portal.call(self._client.members(room))

    def remove_member(self, name: str, *, room: str | None = None) -> RoomMember:
        """Put a device out of a room; see :meth:`AsyncClient.remove_member`."""
        return self._portal.call(self._client.remove_member(name, room=room))

    def choose_worker(
        self, engine: str, *, worker: str | None = None, room: str | None = None
    ) -> Presence:
        """The worker that :meth:`submit` would take; see :meth:`AsyncClient.choose_worker`."""
        return self._portal.call(self._client.choose_worker(engine, worker=worker, room=room))

    # ── training and tracking ────────────────────────────────────────────────

    def train(
        self,
        labels: str | Path,
        configs: Paths = (),
        *,
        worker: str | None = None,
        room: str | None = None,
        engine: str = DEFAULT,
        val_labels: str | Path | None = None,
        run_name: str | None = None,
        alias: str | None = None,
        on_update: Callable[[Update], None] = _ignore,
    ) -> tuple[Entry, ...]:
        """Train on a worker and bring the models home.

        Args:
            labels: The label file, or a ``.zip`` as SLEAP exports it.
            configs: One configuration per model, instead of those in a zip.
            worker: The worker's name; by default the least busy one.
            room: The room; by default the only one.
            engine: The trainer.
            val_labels: Labels to validate on.
            run_name: Names the runs.
            alias: What the models are called at home.
            on_update: Called with everything that happens.

        Returns:
            The models, in the order of the configurations.

        Raises:
            TrainingFailed: The engine failed; the sentence has its last words.
            Cancelled: Somebody cancelled the job.
            SleapRtcError: It can't be done, or was interrupted; the sentence says why.
        """
        composed = self.compose_training(
            labels, configs, engine=engine, room=room, val_labels=val_labels, run_name=run_name
        )
        chosen = self.choose_worker(engine, worker=worker, room=room)
        composed = self.send_first(composed, chosen.name).composed
        with self.submit(composed, worker=chosen.name, alias=alias) as following:
            _follow(following, on_update)
        models = following.job.models
        return tuple(self.library.get(models[key]) for key in sorted(models, key=int))

    def track(
        self,
        models: str | Sequence[str] | Resolved,
        video: str | Path,
        output: str | Path | None = None,
        *,
        worker: str | None = None,
        room: str | None = None,
        frames: tuple[int, int] | None = None,
        tracking: bool = False,
        overwrite: bool = False,
        trust: bool = False,
        on_event: Callable[[EngineEvent | Update], None] = _ignore,
    ) -> Path:
        """Run models over a video, on this machine or on a worker.

        Args:
            models: Ids or aliases of models of this library.
            video: The video.
            output: Where the predictions go; by default beside the video.
            worker: The worker that does it; by default this machine.
            room: The worker's room; by default the only one.
            frames: First and last frame, both included.
            tracking: Whether identities are linked over time.
            overwrite: Whether predictions that are there are replaced.
            trust: Whether a checkpoint from elsewhere may run here though something is odd in it.
            on_event: Called with everything that happens.

        Returns:
            The file of predictions.

        Raises:
            AlreadyExists: There are predictions already.
            SleapRtcError: It can't be done; the sentence says why.
        """
        if not isinstance(models, Resolved):
            models = self.resolve_models([models] if isinstance(models, str) else models)
        given = None if output is None else Path(output)
        target = output_path(Path(video), given, many=False).absolute()
        if worker is None:
            found = self._client.track(
                models,
                video,
                target,
                frames=frames,
                tracking=tracking,
                overwrite=overwrite,
                trust=trust,
            )
            for event in self._portal.iterate(found):
                on_event(event)
            return target
        if target.exists() and not overwrite:
            raise AlreadyExists(what=str(target))
        composed = self.compose_tracking(
            [video], models, room=room, frames=frames, tracking=tracking
        )
        arrives = self.settings.home / "predictions" / composed.spec.id
        targets = dict.fromkeys(composed.files, target)
        composed = self.send_first(composed, worker).composed
        with self.submit(composed, worker=worker, output=arrives, targets=targets) as following:
            _follow(following, on_event)
        deliver(following.job, overwrite=overwrite)
        return target

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
        """Check and hash what a training needs; see :meth:`AsyncClient.compose_training`."""
        return self._client.compose_training(
            labels,
            configs,
            engine=engine,
            room=room,
            val_labels=val_labels,
            run_name=run_name,
            progress=progress,
        )

    def compose_tracking(
        self,
        videos: Paths,
        models: Resolved,
        *,
        room: str | None = None,
        frames: tuple[int, int] | None = None,
        tracking: bool = False,
        progress: Hashing | None = None,
    ) -> Composed:
        """Hash what a remote tracking needs; see :meth:`AsyncClient.compose_tracking`."""
        return self._client.compose_tracking(
            videos, models, room=room, frames=frames, tracking=tracking, progress=progress
        )

    def send_first(self, composed: Composed, worker: str, *, leaves: bool = False) -> Routed:
        """Have a job's data where its worker gets it, before the job is submitted.

        Much of it is stored, the rest goes over the link; the settings ``transport`` and
        ``large_file_threshold`` say which. See ``client/routing.py``.

        Args:
            composed: The job.
            worker: The worker's name.
            leaves: Whether this program lets go as soon as the job is submitted.

        Raises:
            UnknownWorker: It isn't online.
            SleapRtcError: The data can't be stored, and the user asked for just that.
        """
        planned = self._portal.call(plan_for(self._client, composed, worker, leaves=leaves))
        return send_first(self._client, planned, composed)

    def push_models(
        self,
        names: Sequence[str],
        worker: str | None = None,
        *,
        room: str | None = None,
        if_exists: IfExistsWish = "ask",
        alias: str | None = None,
    ) -> Shipped:
        """Push models of this library to a worker; see :meth:`AsyncClient.push_models`."""
        return self._portal.call(
            self._client.push_models(names, worker, room=room, if_exists=if_exists, alias=alias)
        )

    def pull_models(
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
        """Pull models of a worker into this library; see :meth:`AsyncClient.pull_models`."""
        return self._portal.call(
            self._client.pull_models(
                names,
                worker,
                room=room,
                beside=beside,
                if_exists=if_exists,
                alias=alias,
                trust=trust,
            )
        )

    def resolve_models(self, names: Sequence[str]) -> Resolved:
        """The models of this library that were named, with their files; for tracking."""
        return self._client.resolve_models(names)

    def locate_models(
        self, names: Sequence[str], worker: str, *, room: str | None = None
    ) -> tuple[Located, ...]:
        """Models for a job on a worker; see :meth:`AsyncClient.locate_models`."""
        return self._portal.call(self._client.locate_models(names, worker, room=room))

    # ── jobs ─────────────────────────────────────────────────────────────────

    def jobs(self) -> list[SubmittedJob]:
        """The jobs that this machine submitted, the newest first, as they were last seen."""
        return self._client.jobs()

    @contextmanager
    def submit(
        self,
        composed: Composed,
        *,
        worker: str | None = None,
        alias: str | None = None,
        download: bool = True,
        output: str | Path | None = None,
        targets: Mapping[str, str | Path] = MappingProxyType({}),
    ) -> Iterator[Following]:
        """Send a job to a worker and follow it; see :meth:`AsyncClient.submit`."""
        opening = self._client.submit(
            composed,
            worker=worker,
            alias=alias,
            download=download,
            output=output,
            targets=targets,
        )
        with self._portal.hold(opening) as follower:
            yield Following(self._portal, follower)

    @contextmanager
    def attach(self, job: str, *, download: bool | None = None) -> Iterator[Following]:
        """Follow a job again, and bring home what it has; see :meth:`AsyncClient.attach`."""
        with self._portal.hold(self._client.attach(job, download=download)) as follower:
            yield Following(self._portal, follower)

    @contextmanager
    def watch(
        self, job: str, *, worker: str | None = None, room: str | None = None
    ) -> Iterator[Watching]:
        """Read a job's events without taking part in it; see :meth:`AsyncClient.watch`."""
        with self._portal.hold(self._client.watch(job, worker=worker, room=room)) as watcher:
            yield Watching(self._portal, watcher)

    def command(
        self, job: str, command: Command, *, worker: str | None = None, room: str | None = None
    ) -> JobState:
        """Command a job; see :meth:`AsyncClient.command`."""
        return self._portal.call(self._client.command(job, command, worker=worker, room=room))

    def retry(self, job: str, *, worker: str | None = None, room: str | None = None) -> None:
        """Let an interrupted job go on from its checkpoint; see :meth:`AsyncClient.retry`."""
        self._portal.call(self._client.retry(job, worker=worker, room=room))

    def find_job(self, name: str, *, worker: str, room: str | None = None) -> JobId:
        """The id of a worker's job by its last digits; see :meth:`AsyncClient.find_job`."""
        return self._portal.call(self._client.find_job(name, worker=worker, room=room))

    def jobs_of(self, worker: str, *, room: str | None = None) -> Sequence[JobSummary]:
        """The newest jobs of a worker, everybody's."""
        return self._portal.call(self._client.jobs_of(worker, room=room))

    # ── a worker's models ────────────────────────────────────────────────────

    def find_model(self, name: str, worker: str, *, room: str | None = None) -> ModelTold:
        """What a worker knows of a model.

        Raises:
            UnknownModel: It hasn't got it.
        """
        return self._portal.call(self._client.find_model(name, worker, room=room))

    @contextmanager
    def library_of(self, worker: str | None = None, *, room: str | None = None) -> Iterator[Asking]:
        """The library of a worker, to be asked; see :meth:`AsyncClient.library_of`."""
        with self._portal.hold(self._client.library_of(worker, room=room)) as library:
            yield Asking(self._portal, library)


def _follow(following: Following, told: Callable[[Update], None]) -> None:
    """Follow a job to its end.

    Raises:
        SleapRtcError: It isn't completed.
    """
    for update in following.updates():
        told(update)
    error = failure(following.job, following.view)
    if error is not None:
        raise error
