"""The Python API's part for this machine: its rooms, who is in them, and links to workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client import members as members_
from sleap_rtc.client import rooms as rooms_
from sleap_rtc.client.following import ONCE_S
from sleap_rtc.client.lastknown import LastKnown
from sleap_rtc.client.members import RoomMember
from sleap_rtc.client.online import Online
from sleap_rtc.client.submitted import SubmittedJobs
from sleap_rtc.client.transfers import Transfers
from sleap_rtc.config import Settings, load
from sleap_rtc.domain.places import Presence, Role
from sleap_rtc.errors import NotFound, UsageError
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library.migration import open_registry
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import ReplyBody, RequestBody
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.throttle import Throttle


class RoomsApi:
    """A person's machine and its rooms; see :class:`~sleap_rtc.client.api.AsyncClient`."""

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

    async def __aenter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the library."""
        self.library.close()

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

    async def _ask(
        self, worker: str, *bodies: RequestBody, room: str | None, device: str | None = None
    ) -> list[ReplyBody]:
        async with self.link(worker, self.room(room), device=device) as link:
            return [await link.request(body, within_s=ONCE_S) for body in bodies]
