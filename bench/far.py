"""One of the two processes of `bench.loss`: an end that knows no way but the one that is measured.

``python -m bench.far '{"role": …, "way": …, "fd": …, …}'`` prints one JSON document when it has
done its part. The ways:

==========  ===============================================================================
``near``    as the two are: on one machine
``line``    over the long line of `sleap_rtc.testing.distance`
``turn``    from a network of its own that the parent puts a router before, which lets it
            reach nothing but a TURN server
``relays``  the same, and each is told the other's relayed address alone: where neither can
            send to the other's relay itself, everything passes the server twice
==========  ===============================================================================

With ``bare`` the binding's own loop (`bench.bare`) runs the same way, in place of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from loguru import logger

from bench import bare
from bench.ours import NAME, End, answer
from bench.wire import Usage, Wire
from sleap_rtc.auth.handshake import Authenticated
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.packages import PackageRef, ref
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.packing import pack
from sleap_rtc.protocol.link import ListJobs
from sleap_rtc.protocol.peering import Candidate, Peering, peering
from sleap_rtc.protocol.signaling import IceServer
from sleap_rtc.testing import distance
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.direct import meeting
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.peer import Peer
from sleap_rtc.transports.serving import ServedPackage

_PIECE: Final = 1 << 26
WITHIN_S: Final = 120.0
"""Seconds that one transfer may take without a source."""
_NEWNET: Final = 0x40000000

Told = Callable[[Peering], Peering | None]


def _everything(message: Peering) -> Peering | None:
    return message


def _relays_alone(message: Peering) -> Peering | None:
    if isinstance(message, Candidate) and " typ relay" not in message.candidate:
        return None
    return message


_TOLD: Final[dict[str, Told]] = {
    "near": _everything,
    "line": distance.over_line,
    "turn": _everything,
    "relays": _relays_alone,
}


class _FarEnd(End):
    """An end that is told of no way but the one that is measured."""

    def __init__(self, wire: Wire, side: str, options: dict[str, Any]) -> None:
        self.sources = Sources()
        self._told = _TOLD[options["way"]]
        self._ice = tuple(msgspec.convert(each, IceServer) for each in options.get("ice", ()))
        super().__init__(wire, side, options)

    @property
    def ice_servers(self) -> tuple[IceServer, ...]:
        return self._ice

    async def relay(self, room: RoomId, to: str, payload: str) -> None:
        told = self._told(peering.decode(payload, peer="this side"))
        if told is not None:
            await super().relay(room, to, peering.encode(told).decode())

    async def _accept(self, connection: Peer, proven: Authenticated) -> None:
        channel = Channel(connection, proven, handler=answer, ways=self.switchboard.ways)
        if proven.purpose == "control":
            return await channel.run()
        self.sources.add(channel.blocks)
        try:
            await channel.run()
        finally:
            self.sources.remove(channel.blocks)


async def _send(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Offer one file after the other, each over a link of its own."""
    end = _FarEnd(wire, "client", options)
    path = Path(options["into"]) / "sent.bin"
    connections: list[int] = []
    failures: list[str] = []
    sent, cpu = 0, Usage()
    for number in range(options["count"]):
        _fill(path, options["size"], random.Random(number))
        served = _Counted(await asyncio.to_thread(pack, {"file.bin": path}))
        link = Link(end.switchboard, room=end.room, locate=lambda: end.presence, name=NAME)
        with contextlib.closing(served):
            connections.append(await _offer(wire, link, served, failures))
        sent += served.bytes
    await end.close()
    return {"sent": sent, "connections": connections, "failures": failures, **cpu.stop()}


def _fill(path: Path, size: int, chance: random.Random) -> None:
    """Make a file by chance, in pieces: one number of more than 256 MiB is refused."""
    with path.open("wb") as file:
        for at in range(0, size, _PIECE):
            file.write(chance.randbytes(min(_PIECE, size - at)))


async def _offer(wire: Wire, link: Link, served: _Counted, failures: list[str]) -> int:
    """Offer a package until it is there; the most connections that carried it at a time."""
    most = 0
    async with link:
        link.offer(served.package, served)
        try:
            await link.request(ListJobs(), within_s=WITHIN_S)
        except SleapRtcError as error:
            failures.append(f"{type(error).__name__}: {error}")
            wire.send("package")
            return most
        wire.send("package", served.ref)
        done = asyncio.create_task(wire.expect("done"))
        while not done.done():
            await asyncio.wait([done], timeout=0.25)
            most = max(most, link.block_connections)
        await done
    return most


class _Counted(ServedPackage):
    """A package that counts what is read of it."""

    def __init__(self, packed: Any) -> None:
        super().__init__(packed)
        self.package = packed.package.id
        self.ref = msgspec.to_builtins(ref(packed.package))
        self.bytes = 0

    def read(self, file: int, block: int) -> bytes:
        data = super().read(file, block)
        self.bytes += len(data)
        return data


async def _receive(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Fetch every file that is offered; one that doesn't come is told, and the next is fetched."""
    end = _FarEnd(wire, "worker", options)
    seconds: list[float] = []
    failures: list[str] = []
    cpu = Usage()
    for number in range(options["count"]):
        told = await wire.expect("package")
        if told is None:
            continue  # there was no link
        wanted = msgspec.convert(told, PackageRef)
        begun = time.perf_counter()
        try:
            staged = await fetch(
                wanted,
                sources=end.sources,
                destination=f"bench-{number}",
                incoming=Path(options["into"]) / "incoming",
                patience=WITHIN_S,
            )
            staged.discard()
            seconds.append(time.perf_counter() - begun)
        except SleapRtcError as error:
            failures.append(f"{type(error).__name__}: {error}")
        wire.send("done")
    await end.close()
    return {"seconds": seconds, "failures": failures, **cpu.stop()}


async def _play(options: dict[str, Any]) -> dict[str, Any]:
    wire = await Wire.open(options["fd"])
    sends = options["role"] == "sender"
    if options.get("bare"):
        part = bare.transfer_sender if sends else bare.transfer_receiver
        return await part(wire, {**options, "files": False, "told": _TOLD[options["way"]]})
    if options["way"] == "line":
        # Direct connections go over the line as well: this is where either side says it is.
        meeting.own_hosts = lambda: [distance.FAR]
    return await (_send if sends else _receive)(wire, options)


def _main(options: dict[str, Any]) -> None:
    logger.remove()
    logger.add(sys.stderr, level=os.environ.get("SLEAP_RTC_LOG_LEVEL", "error").upper())
    if options["way"] in ("turn", "relays"):
        if ctypes.CDLL(None, use_errno=True).unshare(_NEWNET) != 0:
            raise OSError(os.strerror(ctypes.get_errno()))
        print("network", flush=True)
        sys.stdin.readline()
    print(json.dumps(asyncio.run(_play(options))))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
