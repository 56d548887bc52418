"""Content over a link's block connection: asking for it, and serving it.

Both halves work on one connection side by side. What is asked for and not yet
answered is bounded on both sides (see ``protocol/frames.py``), and so is memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from loguru import logger

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, PackageRef
from sleap_rtc.errors import (
    LinkLost,
    NotFound,
    ProtocolError,
    SleapRtcError,
    UsageError,
    from_wire,
)
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content
from sleap_rtc.protocol import direct, frames
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transports.base import BlockSource, Place
from sleap_rtc.transports.connection import Connection
from sleap_rtc.transports.throttle import Throttle


class Served(Protocol):
    """A package whose content can be given away."""

    @property
    def listing(self) -> bytes:
        """The canonical listing."""
        ...

    def read(self, file: int, block: int) -> bytes:
        """One block, checked against the listing. Blocking; called in a thread.

        Raises:
            SourceChanged: The file isn't what the listing says any more.
            NotFound: There is no such file or block.
        """
        ...


class FastSource(BlockSource, Protocol):
    """A faster way to a peer."""

    async def several(self, package: PackageId, blocks: Sequence[Place], size: int) -> Content:
        """The content of blocks that have ``size`` bytes together, one after the other.

        Raises:
            SleapRtcError: As :meth:`BlockSource.block`.
        """
        ...


class Faster(Protocol):
    """What may have a faster way to the same peer."""

    @property
    def kind(self) -> Kind:
        """What that way is."""
        ...

    async def source(self, size: int) -> FastSource | None:
        """The way to fetch ``size`` bytes more; None for the block connection itself."""
        ...


Shelf = Callable[[PackageId], Served | None]
"""What this peer may fetch on this connection; None for everything else."""


_TURN_S: Final = 0.003
"""Seconds of sending after which others get a turn: an answer on the control connection, say."""

MAX_UNASKED: Final = 3
"""Pieces that were never asked for, after which a peer isn't used any more."""

_DATA: Final = 3
_END: Final = 4
"""Kinds of ``protocol/frames.py``: pieces are too many to make an object of each."""

STALLED_S: Final = 120.0
_STEP: Final = 64 * 1024
"""A peer that sends less than a step of what it was asked for in so many seconds is given up. It
may look alive: one that only answers pings would keep a transfer from ending, others' too."""


class _Wanted:
    """An answer that is arriving."""

    __slots__ = ("_content", "done", "ended", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.ended = False
        self.done: asyncio.Future[Content] = asyncio.get_running_loop().create_future()
        # Whoever waited may have been cancelled when the connection ends.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._content: memoryview | bytearray | None = None

    def take(self, piece: memoryview) -> None:
        """Copy a piece: it has memory of its own, a small one far more than what is in it."""
        if self._content is None:
            # A listing may be long: it takes memory as it comes, whatever was said of its length.
            self._content = buffers.take(self.limit) if self.limit <= BLOCK else bytearray()
        end = self.size + len(piece)
        self._content[self.size : end] = piece
        self.size = end

    def end(self) -> None:
        """That was all of it."""
        content = b"" if self._content is None else memoryview(self._content)[: self.size]
        self.done.set_result(content)


class BlockClient:
    """Fetches content from the peer: a ``BlockSource``.

    Args:
        connection: An authenticated block connection.
        name: Names the peer in errors and progress.
        faster: A faster way, used while there is one; what it fails to bring comes over this
            connection.
        several: Whether the peer knows of questions for several blocks.

    Attributes:
        name: The peer's.
        at_once: Blocks that one question may name.
        leaving: Whether it is to be asked for nothing more, before it is closed.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        name: str,
        faster: Faster | None = None,
        several: bool = False,
    ) -> None:
        self.name = name
        self.at_once = frames.MAX_SEVERAL if several else 1
        self.leaving = False
        self._connection = connection
        self._faster = faster
        self._numbers = itertools.count(1)
        self._highest = 0
        self._unasked = 0
        self._wanted: dict[int, _Wanted] = {}
        self._window = asyncio.Semaphore(frames.MAX_OUTSTANDING)
        self._lost: LinkLost | None = None
        self._moved_at = time.monotonic()
        self._arrived = 0
        self._looking: asyncio.TimerHandle | None = None

    async def listing(self, ref: PackageRef) -> bytes:
        """The listing of a package, as long as its reference says.

        Raises:
            LinkLost: The connection ended.
            SleapRtcError: The peer refused.
        """
        found = await self._fetch(lambda n: frames.GetListing(n, ref.id), limit=ref.listing)
        return bytes(found)

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        """One block of ``size`` bytes; its content is for the caller to check.

        Raises:
            LinkLost: The connection ended.
            SleapRtcError: The peer refused.
        """
        return (await self.bring(package, file, block, size))[0]

    async def bring(
        self, package: PackageId, file: int, block: int, size: int
    ) -> tuple[Content, Kind]:
        """The same, and the way by which it came.

        Raises:
            SleapRtcError: As :meth:`block`.
        """
        source, kind = await self._other(size)
        if source is not None:
            with contextlib.suppress(LinkLost):
                return await source.block(package, file, block, size), kind
        content = await self._fetch(lambda n: frames.GetBlock(n, package, file, block), limit=size)
        return content, "webrtc"

    async def several(
        self, package: PackageId, blocks: Sequence[Place], sizes: Sequence[int]
    ) -> tuple[Content, Kind]:
        """Several blocks of these sizes, one after the other, and their way.

        Raises:
            SleapRtcError: As :meth:`block`.
        """
        size = sum(sizes)
        source, kind = await self._other(size)
        if source is not None:
            with contextlib.suppress(LinkLost):
                return await source.several(package, blocks, size), kind
        places = tuple(blocks)
        content = await self._fetch(lambda n: frames.GetSeveral(n, package, places), limit=size)
        return content, "webrtc"

    async def _other(self, size: int) -> tuple[FastSource | None, Kind]:
        """A way past this connection, if there is one, and what it is."""
        if self._faster is None:
            return None, "webrtc"
        return await self._faster.source(size), self._faster.kind

    async def _fetch(self, ask: Callable[[int], frames.Asked], *, limit: int) -> Content:
        async with self._window:
            # Before the number is taken: who waits for room is overtaken by who comes when there is
            # some, and numbers must arrive in order.
            await self._connection.room()
            if self._lost is not None:
                raise self._lost
            number = self._highest = next(self._numbers)
            if not self._wanted:
                self._moved_at = time.monotonic()
            wanted = self._wanted[number] = _Wanted(limit)
            if self._looking is None:
                self._look()
            try:
                await self._connection.send_binary(frames.encode(ask(number)))
                return await wanted.done
            except asyncio.CancelledError:
                with contextlib.suppress(LinkLost):
                    await self._connection.send_binary(frames.encode(frames.Withdraw(number)))
                raise
            finally:
                self._wanted.pop(number, None)

    async def idle(self) -> None:
        """Wait until nothing that was asked for over this connection is still to come."""
        while self._wanted:
            await asyncio.wait([wanted.done for wanted in self._wanted.values()])
            await asyncio.sleep(0)  # whoever waited for it takes it

    def _look(self) -> None:
        """Give the peer up if it sends next to nothing; look again when that may be."""
        self._looking = None
        if not self._wanted:
            return
        left = self._moved_at + STALLED_S - time.monotonic()
        if left > 0:
            self._looking = asyncio.get_running_loop().call_later(left, self._look)
            return
        why = f"it sends next to nothing of what it was asked for, for {STALLED_S:g} s"
        for wanted in self._wanted.values():
            if not wanted.done.done():
                wanted.done.set_exception(LinkLost(peer=self.name, why=why))

    def _moves(self, size: int) -> None:
        self._arrived += size
        if self._arrived >= _STEP:
            self._moved_at, self._arrived = time.monotonic(), 0

    def take(self, raw: bytes) -> bool:
        """Take a piece of an answer, if it is the next one; from the connection's own thread.

        Returns:
            False for everything else, which is for :meth:`handle`.
        """
        head = direct.DATA_HEAD
        if not head.size <= len(raw) <= MAX_MESSAGE:
            return False
        kind, number, offset = head.unpack_from(raw)
        wanted = self._wanted.get(number)
        if wanted is None or kind != _DATA:
            if wanted is not None and kind == _END:
                # Nothing is written behind the end, which the event loop has yet to see: what is
                # there then may be others' memory.
                wanted.ended = True
            return False
        size = len(raw) - head.size
        if offset != wanted.size or offset + size > wanted.limit:
            return False
        if wanted.ended or wanted.done.done():
            return False
        wanted.take(memoryview(raw)[head.size :])
        self._moves(size)
        return True

    def handle(self, frame: frames.Data | frames.End | frames.Refuse) -> None:
        """Take a piece of an answer.

        Raises:
            ProtocolError: A piece out of place, more than was asked for, or again and again
                something that never was.
        """
        wanted = self._wanted.get(frame.request)
        if wanted is None or wanted.done.done():
            # What was withdrawn still arrives; what was never asked for is somebody's mischief.
            self._unasked += frame.request > self._highest
            if self._unasked >= MAX_UNASKED:
                raise ProtocolError(peer=self.name, why="content that was never asked for")
            return
        match frame:
            case frames.Data():
                if frame.offset != wanted.size:
                    raise ProtocolError(peer=self.name, why="a piece of a block out of order")
                if frame.offset + len(frame.content) > wanted.limit:
                    raise ProtocolError(peer=self.name, why="a block longer than was asked for")
                wanted.take(frame.content)
                self._moves(len(frame.content))
            case frames.End():
                if frame.length != wanted.size:
                    raise ProtocolError(peer=self.name, why="a block shorter than it says")
                self._moves(_STEP)
                wanted.end()
            case frames.Refuse():
                self._moves(_STEP)
                error = from_wire(frame.code, {}, message=frame.message, hint="")
                wanted.done.set_exception(error)

    def end(self, error: LinkLost) -> None:
        """The connection is gone; whoever waits is told."""
        self._lost = error
        if self._looking is not None:
            self._looking.cancel()
        for wanted in self._wanted.values():
            if not wanted.done.done():
                wanted.done.set_exception(error)


def answer(shelf: Shelf, asked: frames.Asked, *, peer: str) -> bytes | frames.Refuse:
    """What is asked for, or why it isn't given. Blocking.

    Args:
        shelf: What the peer may fetch.
        asked: The request.
        peer: Names the peer in the log.
    """
    try:
        served = shelf(asked.package)
        if served is None:
            # The same words whether it exists or not: what is here is not for strangers to probe.
            raise NotFound(message=f"Package {asked.package[:12]}… is not offered to you.")
        match asked:
            case frames.GetListing():
                return served.listing
            case frames.GetBlock():
                return served.read(asked.file, asked.block)
            case frames.GetSeveral():
                return _joined(served, asked.blocks)
    except SleapRtcError as error:
        logger.bind(code=error.code).warning("not served to {}: {}", peer, error)
        return frames.Refuse(asked.request, error.code, error.message)


def _joined(served: Served, places: Sequence[Place]) -> bytes:
    """Several blocks, one after the other.

    Raises:
        UsageError: They have more than 1 MiB together: that many have to be asked for one by one.
    """
    parts: list[bytes] = []
    size = 0
    for file, block in places:
        parts.append(served.read(file, block))
        size += len(parts[-1])
        if size > BLOCK:
            raise UsageError(message="More than 1 MiB is asked for in one question.")
    return b"".join(parts)


class BlockServer:
    """Serves content to the peer, one answer after the other, in the order of the requests.

    Args:
        connection: An authenticated block connection.
        shelf: What this peer may fetch.
        peer: Names the peer in errors.
        throttle: The bandwidth limit, shared with all that this process moves.
    """

    def __init__(
        self, connection: Connection, *, shelf: Shelf, peer: str, throttle: Throttle | None = None
    ) -> None:
        self._connection = connection
        self._throttle = throttle
        self._shelf = shelf
        self._peer = peer
        self._asked: dict[int, frames.Asked] = {}
        self._queue: asyncio.Queue[int] = asyncio.Queue()
        self._highest = 0
        self._turn = asyncio.Lock()

    def handle(self, frame: frames.Asked | frames.Withdraw) -> None:
        """Take a request.

        Raises:
            ProtocolError: A number used before, or more requests than the credit allows.
        """
        if isinstance(frame, frames.Withdraw):
            self._asked.pop(frame.request, None)
            return
        if frame.request <= self._highest:
            raise ProtocolError(peer=self._peer, why="a request number used twice")
        # One place more than the credit: a withdrawal may still be on its way.
        if self._queue.qsize() > 2 * frames.MAX_OUTSTANDING:
            raise ProtocolError(peer=self._peer, why="more requests than the credit allows")
        self._highest = frame.request
        self._asked[frame.request] = frame
        self._queue.put_nowait(frame.request)

    async def run(self) -> None:
        """Answer until cancelled or the connection is lost.

        Raises:
            LinkLost: The connection ended.
        """
        ahead = asyncio.create_task(self._next())
        try:
            while True:
                number, content = await ahead
                # The next answer is read while this one is sent: the line never waits for the disk.
                ahead = asyncio.create_task(self._next())
                async with self._turn:
                    if isinstance(content, bytes):
                        await self._send(number, content)
                    else:
                        await self._connection.send_binary(frames.encode(content))
                self._asked.pop(number, None)
        finally:
            ahead.cancel()

    async def finish(self) -> None:
        """Begin no answer any more; returns once the one that is being sent is whole."""
        await self._turn.acquire()

    async def _next(self) -> tuple[int, bytes | frames.Refuse]:
        """The answer to the next request that wasn't withdrawn."""
        number = await self._queue.get()
        while (asked := self._asked.get(number)) is None:
            number = await self._queue.get()
        return number, await asyncio.to_thread(answer, self._shelf, asked, peer=self._peer)

    async def _send(self, number: int, content: bytes) -> None:
        view = memoryview(content)
        turn = time.monotonic()
        # Pieces of one length: a short one at the end would wake the receiver for nothing.
        pieces = max(1, -(-len(view) // frames.MAX_CHUNK))
        step = max(1, -(-len(view) // pieces))
        for offset in range(0, len(view), step):
            piece = view[offset : offset + step]
            if self._throttle is not None:
                await self._throttle.take(len(piece))
            if number not in self._asked:
                return
            await self._connection.send_binary(frames.data_frame(number, piece, offset))
            if time.monotonic() - turn > _TURN_S:
                await asyncio.sleep(0)
                turn = time.monotonic()
        await self._connection.send_binary(frames.encode(frames.End(number, len(view))))
