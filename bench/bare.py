"""The binding's own loop, without any of our code: what WebRTC costs at the least.

One channel, 64 KiB messages, never more than 8 MB queued, with the product's own
settings of the library, SCTP's windows among them, and its room in sockets. With
``files`` the sender reads and hashes the file in blocks of 1 MiB and the receiver
hashes each block, writes it, and syncs at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reactor_webrtc as rtc
from blake3 import blake3

from bench.wire import Usage, Wire
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.protocol.peering import Candidate
from sleap_rtc.transports.connection import HIGH_WATER
from sleap_rtc.transports.datagrams import make_room
from sleap_rtc.transports.webrtc import factory

MESSAGE = 64 * 1024


class _Pair:
    """One end of a connection, joined over the wire.

    Args:
        wire: To the other end.
        options: ``ice`` has ICE servers, and ``told`` changes what the other end is told.
    """

    def __init__(self, wire: Wire, options: dict[str, Any]) -> None:
        self._wire, self._loop = wire, asyncio.get_running_loop()
        self._told = options.get("told", lambda candidate: candidate)
        self.channel: Any = None
        self.arrived: asyncio.Future[Any] = self._loop.create_future()
        observer = rtc.PeerConnectionObserver()
        observer.on_ice_candidate = lambda c: self.soon(self._found, c)
        observer.on_data_channel = self._take
        self.on_message: Any = None
        servers = [
            rtc.IceServer(urls=s["urls"], username=s["username"], password=s["credential"])
            for s in options.get("ice", ())
        ]
        self.connection: Any = factory().create_peer_connection(
            rtc.RtcConfiguration(ice_servers=servers, frame_metadata=False, dc_chunking=False),
            observer,
        )

    def soon(self, call: Any, *arguments: Any) -> None:
        """Call in the event loop, from the library's threads."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _found(self, candidate: Any) -> None:
        make_room()
        found = self._told(
            Candidate(
                attempt="bare",
                candidate=candidate.candidate,
                mid=candidate.sdp_mid,
                line=candidate.sdp_mline_index,
            )
        )
        if found is not None:
            self._wire.send("candidate", [found.candidate, found.mid, found.line])

    def _take(self, channel: Any) -> None:
        channel.on_message(self.on_message)
        self.soon(self.arrived.set_result, channel)

    async def candidates(self) -> None:
        """Take the other side's."""
        while True:
            line = await self._wire.expect("candidate")
            await self.connection.add_ice_candidate(rtc.IceCandidate(*line))

    def close(self) -> None:
        """End it, before the interpreter does."""
        self.channel.close()
        self.channel = self.connection = None


def _pieces(options: dict[str, Any]) -> Iterator[bytes]:
    """What is sent, message by message."""
    if not options["files"]:
        piece = os.urandom(MESSAGE)
        for _ in range(options["size"] // MESSAGE):
            yield piece
        return
    with Path(options["file"]).open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            blake3(block).digest()
            for at in range(0, len(block), MESSAGE):
                yield block[at : at + MESSAGE]


async def transfer_sender(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Send everything as fast as the channel takes it."""
    pair = _Pair(wire, options)
    pair.channel = channel = pair.connection.create_data_channel("blocks")
    opened, room = asyncio.Event(), asyncio.Event()
    channel.on_open(lambda: pair.soon(opened.set))
    channel.set_buffered_amount_low_threshold(HIGH_WATER // 4)
    channel.on_buffered_amount_low(lambda: pair.soon(room.set))
    offer = await pair.connection.create_offer()
    wire.send("offer", offer.sdp)
    await pair.connection.set_local_description(offer)
    answer = rtc.SessionDescription("answer", await wire.expect("answer"))
    await pair.connection.set_remote_description(answer)
    candidates = asyncio.create_task(pair.candidates())
    await opened.wait()
    await wire.expect("go")
    usage = Usage()
    queued = 0  # at most; asking is as dear as sending
    for piece in _pieces(options):
        while queued >= HIGH_WATER:
            room.clear()
            queued = channel.buffered_amount()
            if queued >= HIGH_WATER:
                await room.wait()
        channel.send(piece, True)
        queued += len(piece)
    await wire.expect("done")
    used = usage.stop()
    candidates.cancel()
    pair.close()
    return used


async def transfer_receiver(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Receive everything."""
    loop, finished = asyncio.get_running_loop(), asyncio.Event()
    sink = _Writer(options) if options["files"] else _Counter(options["size"])
    sink.finished = lambda: loop.call_soon_threadsafe(finished.set)
    pair = _Pair(wire, options)
    pair.on_message = sink.take
    offer = rtc.SessionDescription("offer", await wire.expect("offer"))
    await pair.connection.set_remote_description(offer)
    answer = await pair.connection.create_answer()
    wire.send("answer", answer.sdp)
    await pair.connection.set_local_description(answer)
    candidates = asyncio.create_task(pair.candidates())
    pair.channel = await pair.arrived
    wire.send("go")
    usage = Usage()
    await finished.wait()
    used = usage.stop()
    wire.send("done")
    candidates.cancel()
    sink.close()
    pair.close()
    return used


class _Counter:
    """Counts what arrives and drops it."""

    def __init__(self, size: int) -> None:
        self._left = size // MESSAGE * MESSAGE
        self.finished: Any = None

    def take(self, data: bytes, _binary: bool) -> None:
        """Called on the network thread."""
        self._left -= len(data)
        if not self._left:
            self.finished()

    def close(self) -> None:
        """Nothing is left."""


class _Writer:
    """Hashes what arrives, block by block, and writes it, in a thread of its own."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._path = Path(options["into"]) / "bare.bin"
        self._size: int = options["size"]
        self._queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()
        self.finished: Any = None

    def take(self, data: bytes, _binary: bool) -> None:
        """Called on the network thread."""
        self._queue.put(data)

    def _write(self) -> None:
        left, block = self._size, bytearray()
        with self._path.open("wb", buffering=0) as file:
            while left:
                data = self._queue.get()
                left -= len(data)
                block += data
                if len(block) >= BLOCK or not left:
                    blake3(block).digest()
                    file.write(block)
                    block = bytearray()
            os.fsync(file.fileno())
        self.finished()

    def close(self) -> None:
        """Remove the file."""
        self._thread.join()
        self._path.unlink()
