"""The product's own ends: a link with its switchboard, trust, control and block connections.

The sender is the client, which offers a package; the receiver is the worker,
which fetches it to its disk. Only the server between them is missing: signaling
goes over the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import threading
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench.wire import Usage, Wire
from sleap_rtc.auth.handshake import Authenticated, Setup
from sleap_rtc.auth.membership import Membership
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.packages import PackageRef, ref
from sleap_rtc.domain.places import Presence
from sleap_rtc.files.packing import Packed, pack
from sleap_rtc.protocol.handshake import HANDSHAKE_SECONDS
from sleap_rtc.protocol.link import FEATURES, LINK_VERSIONS, JobsTold, ListJobs, RequestBody
from sleap_rtc.protocol.signaling import IceServer, Relayed
from sleap_rtc.testing.made_room import MadeRoom
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.direct.shortcut import Ways
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.peer import Peer
from sleap_rtc.transports.serving import ServedPackage
from sleap_rtc.transports.switchboard import Switchboard

DESTINATION = "bench"
"""Names where the worker's files go, so that a transfer that was cut goes on."""
_WORKER = 3
NAME = "gpu-1"
"""The worker's."""


class End:
    """One device: its trust, kept in memory, and its switchboard over the wire."""

    def __init__(self, wire: Wire, side: str, options: dict[str, Any]) -> None:
        made = MadeRoom(now=datetime.now(UTC))
        worker = made.key(_WORKER)
        self.wire, self.room, self.membership = wire, made.room, made.no_list()
        self.name = NAME if side == "worker" else ""
        if side == "client":
            self.key, self.chain, self._peer = made.owner, made.owner_chain, worker.device
        else:
            self.key, self.chain = worker, made.joined(worker)
            self._peer = made.owner.device
        self.blocks: asyncio.Queue[Channel] = asyncio.Queue()
        accept = self._accept if side == "worker" else None
        ways = Ways(options.get("transport", "webrtc"))
        self.switchboard = Switchboard(self, trust=lambda _: self, accept=accept, ways=ways)
        self._relaying = asyncio.create_task(self._relayed())

    # ── the way to the peer ──────────────────────────────────────────────────

    @property
    def ice_servers(self) -> Sequence[IceServer]:
        """None: both ends are on one machine."""
        return ()

    async def relay(self, room: RoomId, to: str, payload: str) -> None:
        """Send what a server would relay over the pipe."""
        self.wire.send("signal", payload)

    async def _relayed(self) -> None:
        while True:
            payload = await self.wire.expect("signal")
            self.switchboard.handle(
                Relayed(room=self.room, sender="peer", device=self._peer, payload=payload)
            )

    @property
    def presence(self) -> Presence:
        """Where the peer is."""
        return Presence(
            device=self._peer, connection="peer", room=self.room, name=NAME, kind="worker"
        )

    # ── trust ────────────────────────────────────────────────────────────────

    def setup(self, **given: Any) -> Setup:
        """What the handshake stands on."""
        return Setup(
            key=self.key,
            chain=self.chain,
            room=self.room,
            membership=self.membership,
            versions=LINK_VERSIONS,
            features=FEATURES,
            name=self.name,
            **given,
        )

    def save_membership(self, membership: Membership) -> None:
        """Keep a newer list."""
        self.membership = membership

    def save_invite(self, invite: DeviceId, device: DeviceId) -> None:
        """Nobody joins while it is measured."""

    def save_worker(self, name: str, device: DeviceId, *, instead_of: DeviceId | None) -> None:
        """There is one worker."""

    # ── connections that come in ─────────────────────────────────────────────

    async def _accept(self, connection: Peer, proven: Authenticated) -> None:
        channel = Channel(connection, proven, handler=answer, ways=self.switchboard.ways)
        if proven.purpose == "blocks":
            self.blocks.put_nowait(channel)
        await channel.run()

    async def close(self) -> None:
        """End it."""
        self._relaying.cancel()
        await asyncio.gather(self._relaying, return_exceptions=True)
        await self.switchboard.close()


async def answer(_channel: Channel, _body: RequestBody, _id: str) -> JobsTold:
    """What either end says to a small request."""
    return JobsTold(jobs=())


class _Counted(ServedPackage):
    """A package that counts what is read of it to be sent, for whoever looks while it lives.

    Args:
        packed: The package.
        count: A file of 8 bytes for the count, which outlives this process; None for nobody.
    """

    def __init__(self, packed: Packed, count: str | None) -> None:
        super().__init__(packed)
        self._lock, self._count = threading.Lock(), None
        if count is not None:
            with Path(count).open("r+b") as file:
                self._count = mmap.mmap(file.fileno(), 8)

    def read(self, file: int, block: int) -> bytes:
        """One block."""
        data = super().read(file, block)
        if self._count is not None:
            with self._lock:
                so_far = int.from_bytes(self._count[:], "little")
                self._count[:] = (so_far + len(data)).to_bytes(8, "little")
        return data


@contextlib.asynccontextmanager
async def _offering(wire: Wire, options: dict[str, Any]) -> AsyncIterator[Link]:
    """A link to the receiver that offers the file; the receiver is told what to fetch."""
    end = End(wire, "client", options)
    packed = await asyncio.to_thread(pack, _files(Path(options["file"])))
    served = _Counted(packed, options.get("count"))
    link = Link(end.switchboard, room=end.room, locate=lambda: end.presence, name=NAME)
    try:
        async with link:
            link.offer(packed.package.id, served)
            await link.request(ListJobs(), within_s=HANDSHAKE_SECONDS)
            wire.send("package", msgspec.to_builtins(ref(packed.package)))
            yield link
    finally:
        await end.close()
        served.close()


def _files(path: Path) -> dict[str, Path]:
    """A file, or those in a folder, by their names in the package."""
    return {each.name: each for each in (path.iterdir() if path.is_dir() else [path])}


async def transfer_sender(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Offer the file, and serve it until the receiver has it."""
    async with _offering(wire, options):
        wire.send("fetch")
        await wire.expect("go")
        usage = Usage()
        await wire.expect("done")
        used = usage.stop()
        wire.send("bye")
    return used


async def transfer_receiver(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Fetch the file when told: received, hashed, written, read back, synced."""
    end = End(wire, "worker", options)
    wanted = msgspec.convert(await wire.expect("package"), PackageRef)
    channel = await end.blocks.get()
    await wire.expect("fetch")
    wire.send("go")
    usage = Usage()
    # As in the product: on one machine files are read where they are.
    file = Path(options["file"])
    near = file if file.is_dir() else file.parent
    staged = await fetch(
        wanted,
        sources=Sources(channel.blocks),
        destination=DESTINATION,
        incoming=Path(options["into"]),
        near=near if options.get("transport") == "local" else None,
    )
    used = usage.stop()
    wire.send("done")
    if options.get("keep"):
        staged.path.rename(options["keep"])
    staged.discard()
    await wire.expect("bye")
    await end.close()
    return used


async def control_sender(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Ask a small thing again and again: first alone, then while the file is fetched."""
    async with _offering(wire, options) as link:
        idle = [await _ask(link, options["every_s"]) for _ in range(options["idle"])]
        wire.send("fetch")
        await wire.expect("go")
        fetching = asyncio.create_task(wire.expect("done"))
        busy: list[float] = []
        while not fetching.done():
            busy.append(await _ask(link, options["every_s"]))
        wire.send("bye")
    return {"idle_s": idle, "saturated_s": busy}


async def _ask(link: Link, pause: float) -> float:
    start = time.perf_counter()
    await link.request(ListJobs())
    took = time.perf_counter() - start
    await asyncio.sleep(pause)
    return took


async def control_receiver(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Answer; and fetch the file when told."""
    return await transfer_receiver(wire, options)
