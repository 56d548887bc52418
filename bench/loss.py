"""Files over bad networks: how many of 100 transfers end well, and how fast long lines are.

::

    python -m bench.loss                 100 transfers, 1 % loss, disconnects at random
    python -m bench.loss --speed         long lines: ours, and what the line itself carries
    python -m bench.loss --turn          through coturn, between peers with no other way

Two processes, as in `bench.transfer`: the sender offers a file, the receiver fetches, checks and
writes it. Between them is the long line of `sleap_rtc.testing.distance`, or for ``--turn`` a router
before each (`sleap_rtc.testing.nat`). Signaling goes over a pipe, which is always there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from loguru import logger

from bench.ours import NAME, End, answer
from bench.pairs import ROOT, enter_namespace
from bench.wire import MB, Usage, Wire
from sleap_rtc.auth.handshake import Authenticated
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.packages import PackageRef, ref
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.packing import pack
from sleap_rtc.protocol.link import ListJobs
from sleap_rtc.protocol.peering import Candidate, peering
from sleap_rtc.protocol.signaling import IceServer
from sleap_rtc.testing import distance, netns
from sleap_rtc.testing.distance import FAR, NEAR, Line, long_line
from sleap_rtc.testing.nat import Router
from sleap_rtc.testing.turn import TurnServer
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.peer import Peer
from sleap_rtc.transports.serving import ServedPackage

WITHIN_S: Final = 120.0
"""Seconds that one transfer may take without a source."""
DELAY_S: Final = 0.02
LINES: Final = {
    "40 ms": Line(delay_s=DELAY_S),
    "40 ms, 0.5 % loss": Line(delay_s=DELAY_S, loss=0.005),
    "40 ms, 50 MB/s": Line(delay_s=DELAY_S, rate=50e6),
    "40 ms, 12.5 MB/s, 0.01 % loss": Line(delay_s=DELAY_S, rate=12.5e6, loss=0.0001),
}
"""Loss is each way, and so is the delay."""
BAD: Final = Line(delay_s=0.005, loss=0.01)
"""What the 100 transfers go over."""
PACKET: Final = 1_200
_NEWNET: Final = 0x40000000


# ── one of the two processes ─────────────────────────────────────────────────


class _FarEnd(End):
    """An end that is told of no way but the one that is measured."""

    def __init__(self, wire: Wire, side: str, options: dict[str, Any]) -> None:
        self.sources = Sources()
        self._way = options["way"]
        self._ice = tuple(msgspec.convert(each, IceServer) for each in options.get("ice", ()))
        super().__init__(wire, side, options)

    @property
    def ice_servers(self) -> tuple[IceServer, ...]:
        return self._ice

    async def relay(self, room: RoomId, to: str, payload: str) -> None:
        message = peering.decode(payload, peer="this side")
        told = distance.over_line(message) if self._way == "line" else message
        if self._way == "turn" and isinstance(message, Candidate):
            told = message if " typ relay" in message.candidate else None
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
        path.write_bytes(random.Random(number).randbytes(options["size"]))
        served = _Counted(await asyncio.to_thread(pack, {"file.bin": path}))
        link = Link(end.switchboard, room=end.room, locate=lambda: end.presence, name=NAME)
        with contextlib.closing(served):
            connections.append(await _offer(wire, link, served, failures))
        sent += served.bytes
    await end.close()
    return {"sent": sent, "connections": connections, "failures": failures, **cpu.stop()}


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
    return await (_send if options["role"] == "sender" else _receive)(wire, options)


def _part(options: dict[str, Any]) -> None:
    logger.remove()
    logger.add(sys.stderr, level=os.environ.get("SLEAP_RTC_LOG_LEVEL", "error").upper())
    if options["way"] == "turn":
        if ctypes.CDLL(None, use_errno=True).unshare(_NEWNET) != 0:
            raise OSError(os.strerror(ctypes.get_errno()))
        print("network", flush=True)
        sys.stdin.readline()
    print(json.dumps(asyncio.run(_play(options))))


# ── both, and what is between them ───────────────────────────────────────────


def transfers(
    folder: Path, *, way: str, size: int, count: int, routers: tuple[Router, ...] = (), **more: Any
) -> dict[str, Any]:
    """Move files one after the other, and tell what both sides took.

    Args:
        folder: For the files.
        way: ``line`` or ``turn``.
        size: Bytes of each.
        count: How many.
        routers: One for each side, for ``turn``.
        more: For both processes.

    Raises:
        RuntimeError: One of them failed; it has said why on standard error.
    """
    ends = socket.socketpair()
    processes = {}
    for role, end in zip(("sender", "receiver"), ends, strict=True):
        into = folder / role
        into.mkdir(exist_ok=True)
        options = {"role": role, "fd": end.fileno(), "into": str(into), "way": way}
        options |= {"size": size, "count": count, **more}
        processes[role] = subprocess.Popen(
            [sys.executable, "-m", "bench.loss", "--part", json.dumps(options)],
            cwd=ROOT,
            pass_fds=[end.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        end.close()
    try:
        for process, router in zip(processes.values(), routers, strict=False):
            assert process.stdout is not None
            process.stdout.readline()
            router.plug_in(process.pid)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = {}
        for role, process in processes.items():
            said[role] = process.communicate(timeout=20 * WITHIN_S)[0]
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    for role, process in processes.items():
        if process.returncode:
            raise RuntimeError(f"the {role} ended with {process.returncode}")
    return {role: json.loads(text) for role, text in said.items()}


@contextlib.contextmanager
def _disconnects(seed: int, counted: list[float]) -> Iterator[None]:
    """Cut the line at random, for up to ten seconds; how long each time is noted."""
    stop, chance = threading.Event(), random.Random(seed)

    def run() -> None:
        while not stop.wait(chance.uniform(1.0, 15.0)):
            away = chance.choice((0.3, 2.0, 6.0, 10.0)) * chance.random()
            distance.cut()
            stop.wait(away)
            distance.mend()
            counted.append(away)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def many(folder: Path, *, size: int, count: int, seed: int) -> dict[str, Any]:
    """Many transfers over a bad line; how many ended well, and how much was sent twice."""
    cuts: list[float] = []
    with long_line(BAD), _disconnects(seed, cuts):
        told = transfers(folder, way="line", size=size, count=count)
    seconds = told["receiver"]["seconds"]
    return {
        "transfers": count,
        "ended_well": len(seconds),
        "failures": told["sender"]["failures"] + told["receiver"]["failures"],
        "disconnects": len(cuts),
        "disconnected_s": sum(cuts),
        "median_s": statistics.median(seconds or [0.0]),
        "longest_s": max(seconds, default=0.0),
        "sent_twice": told["sender"]["sent"] / (size * count) - 1,
    }


def speeds(
    folder: Path, *, size: int, lines: dict[str, Line], say: Callable[[str], None]
) -> dict[str, Any]:
    """How fast a file goes over each line, and what the line carries of bare TCP and UDP."""
    found = {}
    for name, line in lines.items():
        with long_line(line):
            bare = {
                "udp": _bare_udp(2.0),
                "tcp, cubic": _bare_tcp(4.0, "cubic"),
                "tcp, bbr": _bare_tcp(4.0, "bbr"),
            }
            told = transfers(folder, way="line", size=size, count=1)
        found[name] = {"ours": _mb_per_s(size, told), **bare, **_cpu(size, told)}
        found[name]["connections"] = told["sender"]["connections"][0]
        say(f"{name}: {found[name]}")
    return found


def relayed(
    folder: Path, *, size: int, transport: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """How fast a file goes through a TURN server between two peers that reach nothing else."""
    address = netns.inside() or netns.ADDRESS
    with (
        TurnServer(folder / "turn", address) as turn,
        Router(1, passes="servers") as one,
        Router(2, passes="servers") as other,
    ):
        ice = [turn.ice("tcp" if transport == "tcp" else "udp")]
        told = transfers(folder, way="turn", size=size, count=1, routers=(one, other), ice=ice)
    found = {"ours": _mb_per_s(size, told), **_cpu(size, told)}
    say(f"TURN over {transport}: {found}")
    return found


def _mb_per_s(size: int, told: dict[str, Any]) -> float:
    return size / MB / told["receiver"]["seconds"][0]


def _cpu(size: int, told: dict[str, Any]) -> dict[str, float]:
    return {f"{role}_cpu_s_per_gb": told[role]["cpu_s"] / size * 1000 * MB for role in told}


def _bare_tcp(seconds: float, congestion: str) -> float:
    """MB/s of a bare TCP connection over the line; 0 where this kernel can't."""
    with socket.create_server((NEAR, 0)) as listening, socket.socket() as sender:
        try:
            name = congestion.encode()
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
        except OSError:
            return 0.0
        sender.connect((FAR, listening.getsockname()[1]))
        receiver, _ = listening.accept()
        with receiver:
            return _flow(sender, receiver, 262_144, seconds)


def _bare_udp(seconds: float) -> float:
    """MB/s of bare datagrams that arrive, of as many as are sent."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        receiver.bind((NEAR, 0))
        sender.connect((FAR, receiver.getsockname()[1]))
        return _flow(sender, receiver, PACKET, seconds)


def _flow(sender: socket.socket, receiver: socket.socket, size: int, seconds: float) -> float:
    """Bytes per second that arrive, in millions, after the first second."""
    child = os.fork()
    if not child:  # a process of its own: one interpreter would be busy with both ends
        data = bytes(size)
        while True:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sender.send(data)
    receiver.settimeout(0.5)
    try:
        counted, end = 0, time.perf_counter() + 1.0 + seconds
        while (now := time.perf_counter()) < end:
            with contextlib.suppress(TimeoutError):
                arrived = len(receiver.recv(262_144))
                counted += arrived if now > end - seconds else 0
        return counted / seconds / MB
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def main() -> None:
    """Measure, and print what was found as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.loss", description=__doc__)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--speed", action="store_true", help="speeds over long lines instead")
    parser.add_argument("--turn", action="store_true", help="speeds through TURN instead")
    parser.add_argument("--line", choices=LINES, help="this line alone")
    parser.add_argument("--count", type=int, default=100, help="how many transfers")
    parser.add_argument("--size", type=int, help="MB of each file")
    parser.add_argument("--seed", type=int, default=1, help="chooses the moments of disconnects")
    given = parser.parse_args()
    if given.part is not None:
        _part(json.loads(given.part))
        return
    enter_namespace("bench.loss")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if given.speed:
            lines = LINES if given.line is None else {given.line: LINES[given.line]}
            found = speeds(folder, size=(given.size or 200) * MB, lines=lines, say=say)
        elif given.turn:
            size = (given.size or 200) * MB
            found = {
                way: relayed(folder, size=size, transport=way, say=say) for way in ("udp", "tcp")
            }
        else:
            size = (given.size or 8) * MB
            found = many(folder, size=size, count=given.count, seed=given.seed)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
