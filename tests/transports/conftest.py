"""Two devices of one room in one process, joined by real WebRTC and a relay in memory.

The relay stands for the server, which the server's own tests run for real; here
it is where a test reads, changes and loses signaling messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.auth import certificates, issue
from sleap_rtc.auth.handshake import Setup
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.membership import Membership
from sleap_rtc.config import WebRtcLibrary
from sleap_rtc.domain.ids import DeviceId, RoomId, room_id_of
from sleap_rtc.domain.places import Presence, Role
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.packing import pack
from sleap_rtc.protocol.handshake import Purpose
from sleap_rtc.protocol.link import FEATURES, LINK_VERSIONS
from sleap_rtc.protocol.peering import Offer, Peering, peering
from sleap_rtc.protocol.signaling import IceServer, Relayed
from sleap_rtc.testing import netns
from sleap_rtc.transports.channel import Channel, Handler, no_requests
from sleap_rtc.transports.peer import Peer, ended
from sleap_rtc.transports.shells import shell
from sleap_rtc.transports.switchboard import Switchboard

from .linking import Pair
from .places import MakePlace, Place


class MemoryTrust:
    """A room's trust, kept in memory."""

    def __init__(self, key: SigningKey, chain: certificates.Chain, room: RoomId) -> None:
        self.key, self.chain, self.room = key, chain, room
        self.membership = Membership(room=room)
        self.seen: dict[DeviceId, DeviceId] = {}
        self.name = ""
        self.features = FEATURES
        self.workers: dict[str, DeviceId] = {}

    def setup(self, **given: object) -> Setup:
        return Setup(
            key=self.key,
            chain=self.chain,
            room=self.room,
            membership=self.membership,
            versions=LINK_VERSIONS,
            features=self.features,
            seen_invites=self.seen,
            name=self.name,
            known_worker=self.workers.get(given["expected_worker"]),
            **given,
        )

    def save_membership(self, membership: Membership) -> None:
        self.membership = membership

    def save_invite(self, invite: DeviceId, device: DeviceId) -> None:
        self.seen[invite] = device

    def save_worker(self, name: str, device: DeviceId, *, instead_of: DeviceId | None) -> None:
        assert self.workers.get(name) in (None, device, instead_of)
        self.workers[name] = device


class Device:
    """One end: its trust, its switchboard and the channels that came in."""

    def __init__(self, rig: Rig, name: str, trust: MemoryTrust, *, accepts: bool) -> None:
        self.rig, self.name, self.trust = rig, name, trust
        trust.name = trust.name or name
        self.ice_servers: tuple[IceServer, ...] = ()
        self.handler: Handler = no_requests
        self.shelf: Callable[..., object] = lambda _: None
        self.channels: list[Channel] = []
        self.arrivals: asyncio.Queue[Channel] = asyncio.Queue()
        self.ended: dict[Channel, asyncio.Event] = {}
        self.switchboard = Switchboard(
            self,
            trust=lambda room: trust if room == trust.room else None,
            accept=self._accept if accepts else None,
            library=rig.shells[1 if accepts else 0],
        )

    @property
    def presence(self) -> Presence:
        return Presence(
            device=self.trust.key.device,
            connection=self.name,
            room=self.trust.room,
            name=self.name,
            kind="worker",
        )

    async def relay(self, room: RoomId, to: str, payload: str) -> None:
        await self.rig.carry(self, room, to, payload)

    async def _accept(self, connection: object, proven: object) -> None:
        channel = Channel(
            connection,
            proven,
            handler=self.handler,
            shelf=self.shelf,
            ways=self.switchboard.ways,
        )
        self.channels.append(channel)
        self.ended[channel] = asyncio.Event()
        self.arrivals.put_nowait(channel)
        try:
            await channel.run()
        finally:
            self.ended[channel].set()


class Rig:
    """The room with both devices: those that dial, and those that accept, with these libraries."""

    def __init__(self, shells: tuple[WebRtcLibrary, WebRtcLibrary]) -> None:
        self.shells = shells
        self.room_key = SigningKey.generate()
        self.room = room_id_of(self.room_key.public)
        self.devices: dict[str, Device] = {}
        self.change: Callable[[Peering], Peering | None] = lambda message: message
        self.network = None

    def trust(self, name: str) -> MemoryTrust:
        key = SigningKey.generate()
        chain = issue.make_room(self.room_key, key.device, name=name, now=datetime.now(UTC))
        return MemoryTrust(key, chain, self.room)

    def granted(self, name: str, role: Role) -> MemoryTrust:
        """Somebody whom an owner let in."""
        now = datetime.now(UTC)
        owner, key = SigningKey.generate(), SigningKey.generate()
        chain = issue.grant(
            owner,
            issue.make_room(self.room_key, owner.device, name="owner", now=now),
            room=self.room,
            device=key.device,
            name=name,
            role=role,
            now=now,
        )
        return MemoryTrust(key, chain, self.room)

    def stranger(self, name: str) -> MemoryTrust:
        """Somebody who claims to be in the room, with another room's certificate."""
        key = SigningKey.generate()
        own = SigningKey.generate()
        chain = issue.make_room(own, key.device, name=name, now=datetime.now(UTC))
        return MemoryTrust(key, chain, self.room)

    def add(self, name: str, *, trust: MemoryTrust | None = None, accepts: bool = False) -> Device:
        device = Device(self, name, trust or self.trust(name), accepts=accepts)
        self.devices[name] = device
        return device

    async def carry(self, sender: Device, room: RoomId, to: str, payload: str) -> None:
        message: Peering | None = self.change(peering.decode(payload, peer="test"))
        if message is not None and self.network is not None:
            message = await self.network.rewrite(message)
        if message is None:
            return
        relayed = Relayed(
            room=room,
            sender=sender.name,
            device=sender.trust.key.device,
            payload=peering.encode(message).decode(),
        )
        self.devices[to].switchboard.handle(relayed)

    async def close(self) -> None:
        for device in self.devices.values():
            for channel in device.channels:
                await channel.close("the test is over")
            await device.switchboard.close()
        if self.network is not None:
            self.network.close()


@pytest.fixture
def address() -> str:
    """The namespace's address; WebRTC skips loopback."""
    found = netns.inside()
    if found is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    return found


@pytest.fixture
def shells(request: pytest.FixtureRequest) -> tuple[WebRtcLibrary, WebRtcLibrary]:
    """The libraries of both sides; what is tested over all of them is parametrized with it."""
    return getattr(request, "param", ("fast", "fast"))


class Ends:
    """Two bare connections, the offerer's and the answerer's, and the wire between them."""

    def __init__(self, shells: tuple[WebRtcLibrary, WebRtcLibrary]) -> None:
        self.attempt = str(uuid.uuid4())
        self.said: list[Peering] = []
        self.change: Callable[[Peering], Peering | None] = lambda message: message
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors: list[Exception] = []
        self.offerer = self._make(shells[0], "answerer")
        self.answerer = self._make(shells[1], "offerer")

    def _make(self, library: WebRtcLibrary, peer: str) -> Peer:
        async def signal(message: Peering) -> None:
            self.said.append(message)
            changed = self.change(message)
            if changed is not None:
                task = asyncio.create_task(self._pass_on(getattr(self, peer), changed))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        return shell(library)(attempt=self.attempt, peer=peer, signal=signal)

    async def _pass_on(self, to: Peer, message: Peering) -> None:
        try:
            await to.handle(message)
        except SleapRtcError as error:
            self.errors.append(error)
            to.abandon(str(error))

    def spoil_offers(self, spoil: Callable[[str], str]) -> None:
        """Have another description arrive than the offerer's."""

        def change(message: Peering) -> Peering:
            if isinstance(message, Offer):
                return msgspec.structs.replace(message, sdp=spoil(message.sdp))
            return message

        self.change = change

    async def open(self, purpose: Purpose = "blocks") -> None:
        await self.offerer.offer(session=str(uuid.uuid4()), purpose=purpose)
        await asyncio.gather(self.offerer.opened(within_s=60), self.answerer.opened(within_s=60))

    async def close(self) -> None:
        self.offerer.abandon("the test is over")
        self.answerer.abandon("the test is over")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await ended()


@pytest.fixture
async def ends(address: str, shells: tuple[WebRtcLibrary, WebRtcLibrary]) -> AsyncIterator[Ends]:
    made = Ends(shells)
    try:
        yield made
    finally:
        async with asyncio.timeout(60):
            await made.close()


@pytest.fixture
async def rig(address: str, shells: tuple[WebRtcLibrary, WebRtcLibrary]) -> AsyncIterator[Rig]:
    made = Rig(shells)
    try:
        yield made
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await made.close()


@pytest.fixture
def make_place(tmp_path: Path) -> MakePlace:
    def make(sizes: dict[str, int], *, root: Path = tmp_path) -> Place:
        source = tmp_path / "source"
        for name, size in sizes.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random.Random(name).randbytes(size))
        return Place(root, pack({name: source / name for name in sizes}, root=source))

    return make


@pytest.fixture
def pair(rig: Rig) -> Pair:
    """A client's link to a worker, both ready."""
    return Pair(rig)
