"""Being online: signed in at a server, present in rooms, ready to link.

Clients and workers use the same: a client dials, a worker is dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Final, Self

from loguru import logger

import sleap_rtc
from sleap_rtc.auth.membership import Membership
from sleap_rtc.auth.room_trust import RoomTrust
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.tending import TEND_EVERY_S, Tending
from sleap_rtc.config import Settings
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.places import DeviceKind, Presence, WorkerInfo
from sleap_rtc.errors import NotSignedIn, Offline, SleapRtcError, UnknownWorker
from sleap_rtc.net.address import parse_server
from sleap_rtc.net.events import (
    Connected,
    Disconnected,
    RoomEntered,
    RoomLost,
)
from sleap_rtc.net.signaling import SignalingClient
from sleap_rtc.protocol.signaling import Absent, IceServer, MembershipNews, Present, Relayed
from sleap_rtc.transports.channel import Trust
from sleap_rtc.transports.direct.shortcut import Ways
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.switchboard import Accept, Switchboard

RENEW_WITHIN_S: Final = 5.0
"""Seconds that a short command waits at its end for certificates that are being renewed."""


class Online:
    """This device at one server. Use it as an asynchronous context manager.

    Args:
        settings: Where the home is, and which ICE servers to use.
        server: The server's address.
        setup_code: Registers the device there, the first time.
        invite: A join chain as JSON texts, which registers the device for one room.
        accept: Takes connections that peers ask for; None takes none.
        patient: Whether to wait for a server that can't be reached.
        on_lost: Called with the room and the error when this device is no longer in a room.
        on_list: Called with a newer membership list, once it is kept and has taken effect.
        clock: The present time, UTC.
    """

    def __init__(
        self,
        settings: Settings,
        server: str,
        *,
        setup_code: str | None = None,
        invite: Sequence[str] | None = None,
        accept: Accept | None = None,
        patient: bool = False,
        on_lost: Callable[[RoomLost], None] = lambda _: None,
        on_list: Callable[[Membership], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.store = DeviceStore(settings.home)
        key = self.store.device_key()
        self.signaling = SignalingClient(
            parse_server(server, insecure=settings.insecure),
            device=key.device,
            sign=key.sign,
            name=settings.name,
            program=f"sleap-rtc {sleap_rtc.__version__}",
            setup_code=setup_code,
            invite=invite,
        )
        self.switchboard = Switchboard(
            self,
            trust=self._trust,
            accept=accept,
            library=settings.webrtc_library,
            ways=Ways(settings.transport),
        )
        self._tending = Tending(self.store, self.signaling, clock=clock)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._renewing: set[asyncio.Task[object]] = set()
        self._keeper: asyncio.Task[object] | None = None
        self._own_ice = tuple(
            IceServer(urls=ice.urls, username=ice.username, credential=ice.credential)
            for ice in settings.ice_servers
        )
        self._server_ice: tuple[IceServer, ...] = ()
        self._patient = patient
        self._offline = settings.offline
        self._on_lost = on_lost
        self._on_list = on_list
        self._present: dict[RoomId, dict[str, Presence]] = {}
        self._entered: dict[RoomId, str] = {}
        self._links: set[Link] = set()
        self._changed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Sign in.

        Raises:
            Offline: Nobody is to be asked.
            ServerUnreachable: Unless patient.
            NotSignedIn: The server doesn't know this device.
        """
        if self._offline:
            raise Offline(url=self.signaling.server.url)
        self._reader = asyncio.create_task(self._read())
        try:
            connected = await self.signaling.start(patient=self._patient)
        except NotSignedIn:
            await self._end()
            raise NotSignedIn(server=self.signaling.server.url) from None
        except BaseException:
            await self._end()
            raise
        self._server_ice = connected.ice_servers
        return self

    async def __aexit__(self, *_: object) -> None:
        """Say goodbye, once certificates that were being renewed are."""
        await self._end()

    async def _end(self) -> None:
        if self._renewing:
            await asyncio.wait(self._renewing, timeout=RENEW_WITHIN_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.switchboard.close()
        await self.signaling.close()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    # ── rooms ────────────────────────────────────────────────────────────────

    async def enter(
        self, entry: RoomEntry, *, name: str, kind: DeviceKind, worker: WorkerInfo | None = None
    ) -> None:
        """Be online in a room, from now on, also after the server was away.

        Raises:
            NotPermitted: The server doesn't take this device for a member.
            Conflict: A living worker of the room has this name.
        """
        fresh = await self._tending.fresh(entry)
        self._entered[entry.room] = name
        there = await self.signaling.enter_room(
            entry.room, chain=chain_to_texts(fresh.chain), name=name, kind=kind, worker=worker
        )
        # The answer may come before the event that says the same.
        self._present.setdefault(entry.room, {p.connection: p for p in there})
        self._renewing.add(self._spawn(self._tending.renew(entry.room)))
        if self._keeper is None:
            self._keeper = self._spawn(self._keep_fresh())

    def workers(self, room: RoomId) -> list[Presence]:
        """The workers that are online in a room, by name."""
        found = [p for p in self._present.get(room, {}).values() if p.kind == "worker"]
        return sorted(found, key=lambda presence: presence.name)

    def worker(self, room: RoomId, name: str, *, device: str | None = None) -> Presence | None:
        """The worker of this name, and of this device if one is given, if it is online."""
        for presence in self.workers(room):
            if presence.name == name and device in (None, presence.device):
                return presence
        return None

    async def find_worker(self, entry: RoomEntry, name: str, *, within_s: float = 2.0) -> Presence:
        """The worker of this name; one that is just coming back is waited for.

        Raises:
            UnknownWorker: It is not online.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    found = self.worker(entry.room, name)
                    if found is not None:
                        return found
                    self._changed.clear()
                    await self._changed.wait()
        others = ", ".join(p.name for p in self.workers(entry.room))
        hint = f"Online are: {others}."
        if not others:
            hint = f"No worker is online. On its machine: sleap-rtc worker --room {entry.name}"
        raise UnknownWorker(name=name, room=entry.name, hint=hint)

    def watch(self, link: Link) -> None:
        """Tell the link whenever somebody comes online: its peer may be back."""
        self._links.add(link)

    def unwatch(self, link: Link) -> None:
        """Tell it no more."""
        self._links.discard(link)

    # ── being a Relay ────────────────────────────────────────────────────────

    async def relay(self, room: RoomId, to: str, payload: str) -> None:
        """Pass ``payload`` on to connection ``to``."""
        await self.signaling.relay(room, to, payload)

    @property
    def ice_servers(self) -> Sequence[IceServer]:
        """Those of the settings, and those that the server tells."""
        return (*self._own_ice, *self._server_ice)

    def _trust(self, room: RoomId) -> Trust | None:
        # A room that this process isn't online in has no say here, whatever the server relays.
        if room not in self._entered or all(e.room != room for e in self.store.rooms()):
            return None
        name = self._entered[room]
        return RoomTrust(self.store, room, name=name, on_newer=self._met_newer)

    # ── lists ────────────────────────────────────────────────────────────────

    def _met_newer(self, membership: Membership) -> None:
        """A peer had a newer list; called in whichever thread keeps it."""
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._pass_on, membership)

    def _pass_on(self, membership: Membership) -> None:
        self._apply(membership)
        self._spawn(self._tending.pass_on(membership))

    def _apply(self, membership: Membership) -> None:
        """Let a newer list, which is kept already, take effect."""
        self.switchboard.apply(membership)
        error = self._tending.own_place(membership)
        if error is not None and membership.room in self._entered:
            # Only a list that an owner signed ends links: the server's word alone does not.
            self.switchboard.leave(membership.room, error)
            self._lose(RoomLost(room=membership.room, error=error))
        self._on_list(membership)

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            for room in tuple(self._entered):
                try:
                    await self._tending.renew(room)
                except SleapRtcError as error:
                    logger.bind(code=error.code).warning("certificates aren't renewed: {}", error)

    async def newest_list(self, room: RoomId) -> None:
        """Have the newest membership list that the server has, and give it this device's."""
        newer = await self._tending.newest_list(room)
        if newer is not None:
            self._apply(newer)

    async def _take_news(self, news: MembershipNews) -> None:
        newer = await self._tending.take_list(news.room, news.signed)
        if newer is not None:
            self._apply(newer)

    def _lose(self, lost: RoomLost) -> None:
        self._present.pop(lost.room, None)
        if self._entered.pop(lost.room, None) is not None:
            self._on_lost(lost)

    def _spawn(self, work: Coroutine[None, None, object]) -> asyncio.Task[object]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        self._renewing.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, SleapRtcError):
            logger.bind(code=error.code).warning("{}", error)
        else:
            logger.opt(exception=error).error("looking after a room failed")

    # ── what happens ─────────────────────────────────────────────────────────

    async def _read(self) -> None:
        async for event in self.signaling.events():
            match event:
                case Connected():
                    self._server_ice = event.ice_servers
                case Disconnected():
                    logger.debug("the server is away: {}", event.error)
                case RoomEntered():
                    self._present[event.room] = {p.connection: p for p in event.present}
                    self._announce()
                    self._spawn(self.newest_list(event.room))
                case RoomLost():
                    self._lose(event)
                case MembershipNews():
                    if event.room in self._entered:
                        self._spawn(self._take_news(event))
                case Present():
                    room = self._present.setdefault(event.presence.room, {})
                    room[event.presence.connection] = event.presence
                    self._announce()
                case Absent():
                    self._present.get(event.room, {}).pop(event.connection, None)
                case Relayed():
                    self.switchboard.handle(event)

    def _announce(self) -> None:
        self._changed.set()
        for link in self._links:
            link.look_again()
