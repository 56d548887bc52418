"""The worker: present in a room, linked to whoever calls, working on jobs.

::

    <worker dir>/
      devices/ rooms/          the worker's own key and its place in rooms
      models/                  its library
      jobs/                    one directory per job
      datasets/                inputs by content
      incoming/                inputs that are arriving
      worker.lock              held by the one daemon that works here

The daemon may end at any time: jobs are run by processes of their own, which it
finds again when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from loguru import logger

import sleap_rtc
from sleap_rtc.auth.membership import Membership
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.approvals import Approvals
from sleap_rtc.client.online import Online
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.rooms import find_room, invite, join
from sleap_rtc.config import Settings
from sleap_rtc.domain.ids import DeviceId, PackageId
from sleap_rtc.domain.places import WorkerInfo, check_name
from sleap_rtc.engines import registry as engines
from sleap_rtc.engines.threads import default_threads
from sleap_rtc.errors import NotFound, SleapRtcError, UnknownRoom
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.jobs.lifecycle import JobView
from sleap_rtc.library import layout
from sleap_rtc.library.migration import open_registry
from sleap_rtc.library.registry import Registry
from sleap_rtc.net.events import RoomLost
from sleap_rtc.storage.cache import FileCache
from sleap_rtc.transports.throttle import Throttle
from sleap_rtc.worker import hardware
from sleap_rtc.worker.answering import MAY_SUBMIT, Answers
from sleap_rtc.worker.dataset_source import Places
from sleap_rtc.worker.job_directory import JobDirectory, JobStore
from sleap_rtc.worker.load import LoadMeter
from sleap_rtc.worker.manager import JobManager
from sleap_rtc.worker.preparing import Preparer
from sleap_rtc.worker.runner.recovery import recover
from sleap_rtc.worker.shared import SharedFolders
from sleap_rtc.worker.sweeping import Sweeper
from sleap_rtc.worker.waiting import Waiting

REPORT_EVERY_S: Final = 60.0
"""Seconds between reports of what this worker has, besides those at each change."""

SWEEP_EVERY_S: Final = 1_800.0
"""Seconds between looks at what can be removed."""


class WorkerReady(msgspec.Struct, frozen=True):
    """The worker is online.

    Attributes:
        name: Its name.
        device: Its key.
        room: The room.
        info: What it has.
    """

    name: str
    device: str
    room: RoomEntry
    info: WorkerInfo


async def run_worker(
    settings: Settings, *, room: str | None, name: str, on_ready: Callable[[WorkerReady], None]
) -> None:
    """Be a worker until SIGTERM or SIGINT; runners go on.

    Args:
        settings: This machine's; ``worker_dir`` is where everything of the worker is kept.
        room: The room's name or id, or an invite link to join by first.
        name: The worker's name in the room.
        on_ready: Called when it is online for the first time.

    Raises:
        Busy: Another worker uses the directory.
        Conflict: A living worker of the room has this name.
        UnknownRoom: Neither the worker nor this machine's user is in that room.
        NotPermitted: The server or the room doesn't take it.
    """
    check_name("worker", name)
    root = settings.worker_dir
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    own = msgspec.structs.replace(settings, home=root, name=name)
    with Claim(root, what=f"The worker directory {root}"):
        own, entry = await _place_in_room(settings, own, room)
        with open_registry(root / "models")[0] as registry:
            approvals = Approvals(settings.home / "trusted")
            await _Worker(own, entry, name, registry, approvals).run(on_ready)


class _Worker:
    def __init__(
        self,
        settings: Settings,
        room: RoomEntry,
        name: str,
        registry: Registry,
        approvals: Approvals,
    ) -> None:
        root = settings.worker_dir
        self._settings, self._room, self._name, self._registry = settings, room, name, registry
        self._root = root
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._lost: SleapRtcError | None = None
        self._membership = DeviceStore(settings.home).membership(room.room)
        self._hardware = hardware.look(root)
        self._load = LoadMeter()
        cache, throttle = HashCache(root / "hashes"), Throttle.of(settings.limit_rate)
        answers = Answers(
            describe=self._describe,
            registry=registry,
            cache=cache,
            max_files=settings.working.max_files,
            keep_free=settings.working.keep_free,
            worker=name,
            approvals=approvals,
            throttle=throttle,
            storage=RoomStorage(settings, room, "rooms"),
        )
        self._kept = FileCache(settings.cache_dir, limit=settings.cache_size)
        places = Places(
            storage=RoomStorage(settings, room),
            folders=SharedFolders(settings.working.shared),
            cache=self._kept,
            cache_size=settings.cache_size,
            hashes=cache,
        )
        preparer = Preparer(
            root=root,
            registry=registry,
            peers=answers.peers,
            engines=engines.available,
            approvals=approvals,
            worker=name,
            device_name=hardware.device_name(self._hardware),
            threads=default_threads(),
            patience=settings.working.patience,
            keep_free=settings.working.keep_free,
            cache=cache,
            throttle=throttle,
            places=places,
        )
        answers.weigh = preparer.weigh
        store = JobStore(root / "jobs")
        self._jobs = JobManager(
            store,
            prepare=preparer,
            recover=self._recover,
            clock=_now,
            waiting=Waiting(
                most=settings.working.max_waiting, most_each=settings.working.max_waiting_each
            ),
            is_member=self._is_member,
            on_change=self._changed.set,
        )
        self._sweeper = Sweeper(
            root=root,
            store=store,
            registry=registry,
            view=self._jobs.view,
            keep_inputs=settings.working.keep_inputs,
            keep_partial=settings.working.keep_partial,
            keep_jobs=settings.working.keep_jobs,
            keep_jobs_size=settings.working.keep_jobs_size,
        )
        answers.jobs = self._jobs
        self._answers = answers

    async def run(self, on_ready: Callable[[WorkerReady], None]) -> None:
        """Work until told to stop, which may be before the server was ever reached."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        stop = asyncio.create_task(self._stop.wait())
        serving = asyncio.create_task(self._serve(on_ready))
        sweeping = asyncio.create_task(self._sweep())
        jobs = asyncio.create_task(self._jobs.run())
        try:
            await asyncio.wait((stop, serving, jobs), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stop, serving, sweeping, jobs):
                task.cancel()
                await asyncio.wait([task])
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        for task in (serving, sweeping, jobs):
            if not task.cancelled():
                task.result()
        if self._lost is not None:
            raise self._lost

    async def _serve(self, on_ready: Callable[[WorkerReady], None]) -> None:
        """Be online until it is cancelled."""
        online = Online(
            self._settings,
            self._room.server,
            accept=self._answers.peers.accept,
            patient=True,
            on_lost=self._room_lost,
            on_list=self._new_list,
        )
        self._answers.peers.ways = online.switchboard.ways
        async with online:
            info = await asyncio.to_thread(self._describe)
            await online.enter(self._room, name=self._name, kind="worker", worker=info)
            device = online.store.device_key().device
            on_ready(WorkerReady(name=self._name, device=device, room=self._room, info=info))
            await self._report(online)

    def _room_lost(self, event: RoomLost) -> None:
        self._lost = event.error
        self._stop.set()

    def _new_list(self, membership: Membership) -> None:
        if membership.room == self._room.room:
            self._membership = membership
            self._jobs.dismiss()

    def _is_member(self, device: DeviceId) -> bool:
        """Whether a device that submitted a job may still do so, as far as the list says."""
        role = self._membership.roles.get(device, "member")
        return device not in self._membership.revoked and role in MAY_SUBMIT

    async def _sweep(self) -> None:
        """Now and then, when there is nothing better to do."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            if not self._jobs.idle:
                continue
            try:
                await self._sweeper.sweep(self._needed)
                await asyncio.to_thread(self._kept.clean)
            except (SleapRtcError, OSError) as error:
                logger.warning("not swept: {}", error)

    def _needed(self) -> set[PackageId]:
        return self._jobs.needed() | self._answers.arriving

    async def _report(self, online: Online) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_EVERY_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                info = await asyncio.to_thread(self._describe)
                await online.signaling.update_worker(self._room.room, info)
            except (SleapRtcError, OSError) as error:
                logger.debug("not reported: {}", error)

    def _describe(self) -> WorkerInfo:
        free = hardware.disk_free(self._root)
        return WorkerInfo(
            hardware=msgspec.structs.replace(self._hardware, disk_free=free),
            engines=engines.available(),
            version=sleap_rtc.__version__,
            jobs=self._jobs.active,
            models=sum(1 for _ in layout.names(self._registry.models_dir)),
            load=self._load(),
        )

    async def _recover(self, job: JobDirectory) -> JobView:
        return await recover(job, clock=_now)


async def _place_in_room(
    machine: Settings, own: Settings, room: str | None
) -> tuple[Settings, RoomEntry]:
    """The worker's place in the room; made first where that needs nobody's help.

    A worker has a key of its own, so that its machine's user can be a client of it. Where the
    machine itself joined the room by an invite for a worker, its key is the worker's.
    """
    if room is not None and "#" in room:
        return own, await join(own, room)
    try:
        return own, find_room(DeviceStore(own.home), room)
    except NotFound:
        entry = find_room(DeviceStore(machine.home), room)
    if entry.role == "worker":
        return msgspec.structs.replace(own, home=machine.home), entry
    if entry.role == "owner":
        link = invite(machine, entry.room, role="worker", hours=0.5)
        return own, await join(own, link, name=entry.name)
    raise UnknownRoom(
        name=entry.name,
        hint="Ask an owner for `sleap-rtc room invite --role worker`, and give the link as --room.",
    )


def _now() -> datetime:
    return datetime.now(UTC)
