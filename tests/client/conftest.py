"""A server in the test's loop, a room at it, and machines with homes of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sleap_rtc.auth.membership import ListedMember, Membership, open_membership, sign_membership
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client import rooms
from sleap_rtc.client.online import Online
from sleap_rtc.config import Settings, load
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.protocol.link import Describe, Description
from sleap_rtc.server import app
from sleap_rtc.testing.server import running_server, server_settings
from sleap_rtc.transports.channel import Channel


class Machine:
    """A device with a home of its own."""

    def __init__(self, home: Path, name: str) -> None:
        self.settings: Settings = load({"home": home, "name": name, "insecure": True})
        self.store = DeviceStore(home)
        self.channels: asyncio.Queue[Channel] = asyncio.Queue()
        self.lost: asyncio.Queue[Exception] = asyncio.Queue()
        self.applied: asyncio.Queue[Membership] = asyncio.Queue()
        self.ended = asyncio.Event()

    @property
    def entry(self) -> RoomEntry:
        (entry,) = self.store.rooms()
        return entry

    @property
    def device(self) -> str:
        return self.store.device_key().device

    @contextlib.asynccontextmanager
    async def online(
        self,
        *,
        worker: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> AsyncIterator[Online]:
        async with Online(
            self.settings,
            self.entry.server,
            accept=self._accept,
            on_lost=lambda lost: self.lost.put_nowait(lost.error),
            clock=clock,
        ) as online:
            self._watch_lists(online)
            await online.enter(
                self.entry,
                name=worker or self.settings.name,
                kind="client" if worker is None else "worker",
                worker=None if worker is None else WorkerInfo(),
            )
            yield online

    def _watch_lists(self, online: Online) -> None:
        apply = online.switchboard.apply

        def watched(membership: Membership) -> None:
            apply(membership)
            self.applied.put_nowait(membership)

        online.switchboard.apply = watched

    async def learns(self, newer: Membership) -> None:
        """Wait until a list has taken effect here; it is kept then."""
        async with asyncio.timeout(60):
            assert await self.applied.get() == newer
        assert self.store.membership(newer.room) == newer

    async def _accept(self, connection, proven) -> None:
        async def describe(_channel, body, _request):
            assert isinstance(body, Describe)
            return Description(worker=WorkerInfo())

        channel = Channel(connection, proven, handler=describe)
        self.channels.put_nowait(channel)
        await channel.run()
        self.ended.set()


class Lab:
    """A server, a room, its owner, and whoever was invited."""

    def __init__(self, root: Path, url: str, code: str) -> None:
        self.root, self.url, self.code = root, url, code
        self.owner = Machine(root / "owner", "laptop")

    async def begin(self) -> None:
        await rooms.login(self.owner.settings, self.url, code=self.code)
        await rooms.create_room(self.owner.settings, "lab", server=self.url)

    def machine(self, folder: str, *, name: str | None = None) -> Machine:
        return Machine(self.root / folder, name or folder)

    async def joined(self, name: str, role: str = "member") -> Machine:
        machine = self.machine(name)
        link = rooms.invite(self.owner.settings, "lab", role=role)
        await rooms.join(machine.settings, link)
        return machine

    def write_list(self, *, revoked=(), roles=None, keep=False) -> Membership:
        """The owner's next list; kept by nobody unless by the owner itself."""
        room = self.owner.entry.room
        signed = sign_membership(
            self.owner.store.device_key(),
            self.owner.entry.chain,
            self.owner.store.membership(room),
            members=[
                ListedMember(device=machine.device, name="listed", role=role)
                for machine, role in (roles or {}).items()
            ],
            revoked=[machine.device for machine in revoked],
            now=datetime.now(UTC),
        )
        made = open_membership(signed, room=room)
        if keep:
            self.owner.store.save_membership(made)
        return made


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running_server(server_settings(tmp_path / "data")) as server:
        made = Lab(tmp_path, server.address.url, server.info.setup_code)
        await made.begin()
        yield made


class Calendar:
    """The clock of everybody, turned by the test."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def day(self, number: int) -> None:
        self._ahead = timedelta(days=number)


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Calendar:
    made = Calendar()
    monkeypatch.setattr(app, "_now", made)
    return made


@pytest.fixture
async def month(tmp_path: Path, calendar: Calendar) -> AsyncIterator[Lab]:
    """A lab whose server goes by the calendar."""
    async with running_server(server_settings(tmp_path / "data")) as server:
        made = Lab(tmp_path, server.address.url, server.info.setup_code)
        await made.begin()
        yield made
