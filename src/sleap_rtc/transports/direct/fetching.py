"""The fetching end of a direct connection: a ``BlockSource``."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, PackageRef
from sleap_rtc.errors import LinkLost, ProtocolError, SleapRtcError, from_wire
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content
from sleap_rtc.protocol import direct, frames
from sleap_rtc.transports.base import Place
from sleap_rtc.transports.direct.lane import Lane, OnEnd
from sleap_rtc.transports.direct.wire import Wire
from sleap_rtc.transports.mailbox import Mailbox

STALLED_S: Final = 15.0
STEP: Final = 64 * 1024
"""A peer that sends less than a step of what it was asked for in so many seconds is given up here:
there is the link's own connection to go on with."""

HELD: Final = 6
HELD_S: Final = 0.01
"""So many answers that follow each other within this time are handed over together: to wake others
for each costs as much as to hash it."""

_HEAD: Final = direct.LENGTH.size + direct.DATA_HEAD.size
"""Bytes that every frame of the other side has, its length included."""
_DATA: Final = 3

Result = Content | SleapRtcError


class _Wanted:
    """An answer that is arriving."""

    __slots__ = ("done", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.done: asyncio.Future[Content] = asyncio.get_running_loop().create_future()


class FetchLane(Lane):
    """Fetches content over a direct connection.

    Args:
        wire: The proven connection.
        name: Names the peer in errors and progress.
        on_end: Called once with why it ended.
    """

    def __init__(self, wire: Wire, *, name: str, on_end: OnEnd) -> None:
        super().__init__(wire, on_end=on_end)
        self.name = name
        self._numbers = itertools.count(1)
        self._window = asyncio.Semaphore(frames.MAX_OUTSTANDING)
        self._wanted: dict[int, _Wanted] = {}
        self._outgoing: deque[bytes] = deque()
        self._held: list[tuple[_Wanted, Result]] = []
        self._handed_at = 0.0
        self._finished: Mailbox[tuple[_Wanted, Result]] = Mailbox(self._deliver)
        self._lost: SleapRtcError | None = None
        self._arrived = 0
        self._moved_at = 0.0
        self._due = 1
        self._content: memoryview | None = None
        # What is being read: the head of a frame, then its content.
        self._head = bytearray(_HEAD)
        self._into = memoryview(self._head)
        self._at = 0
        self._then: Callable[[], None] = self._headed

    async def listing(self, ref: PackageRef) -> bytes:
        """The listing of a package, as long as its reference says.

        Raises:
            LinkLost: The connection ended.
            ProtocolError: The peer breaks the rules.
            SleapRtcError: The peer refused.
        """
        found = await self._fetch(lambda n: frames.GetListing(n, ref.id), limit=ref.listing)
        return bytes(found)

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        """One block of ``size`` bytes; its content is for the caller to check.

        Raises:
            LinkLost: The connection ended.
            ProtocolError: The peer breaks the rules.
            SleapRtcError: The peer refused.
        """
        return await self._fetch(lambda n: frames.GetBlock(n, package, file, block), limit=size)

    async def several(self, package: PackageId, blocks: Sequence[Place], size: int) -> Content:
        """Blocks of ``size`` bytes together, up to 1 MiB, one after the other.

        Raises:
            LinkLost: The connection ended.
            ProtocolError: The peer breaks the rules.
            SleapRtcError: The peer refused.
        """
        places = tuple(blocks)
        return await self._fetch(lambda n: frames.GetSeveral(n, package, places), limit=size)

    async def _fetch(self, ask: Callable[[int], frames.Asked], *, limit: int) -> Content:
        await self._window.acquire()  # given back when it is answered, wanted or not
        if self._lost is not None:
            self._window.release()
            raise self._lost
        number, wanted = next(self._numbers), _Wanted(limit)
        if not self._wanted:
            self._moved_at, self._arrived = time.monotonic(), 0
        self._wanted[number] = wanted
        self._send(ask(number))
        try:
            return await wanted.done
        except asyncio.CancelledError:
            self._send(frames.Withdraw(number))
            raise

    def _send(self, frame: frames.Asked | frames.Withdraw) -> None:
        data = frames.encode(frame)
        self._outgoing.append(direct.LENGTH.pack(len(data)) + data)
        self._wake()

    def _deliver(self, finished: tuple[_Wanted, Result]) -> None:
        """Hand over what the thread has finished; on the event loop."""
        wanted, result = finished
        self._window.release()
        if isinstance(result, SleapRtcError):
            if not wanted.done.done():
                wanted.done.set_exception(result)
        elif wanted.done.done():  # it isn't waited for any more
            buffers.give_back(result)
        else:
            wanted.done.set_result(result)

    def _ended(self, error: SleapRtcError) -> None:
        self._lost = error
        self._hand_over()
        self._finished.empty()
        for wanted in self._wanted.values():
            self._window.release()
            if not wanted.done.done():
                wanted.done.set_exception(error)
        self._wanted.clear()
        super()._ended(error)

    # ── in the thread ────────────────────────────────────────────────────────

    def _work(self) -> None:
        while not self._closing.is_set():
            self._ask()
            # While answers are under way it waits in the socket: new requests go out with the next
            # bit that arrives, and nobody is asked whether there is something for each of them.
            if self._wanted or self._wait():
                self._receive()

    def _has_work(self) -> bool:
        return bool(self._outgoing) or self._closing.is_set()

    def _ask(self) -> None:
        while self._outgoing:
            out = memoryview(self._outgoing.popleft())
            while out and not self._closing.is_set():
                out = out[self._wire.write(out) :]
                self._look_at_clock()

    def _receive(self) -> None:
        """Read to the end of a part, unless there is something to send or nothing comes."""
        wire, into = self._wire, self._into
        while self._at < len(into):
            count = wire.read_row(into[self._at :])
            self._at += count
            if into.obj is not self._head:  # empty frames are no progress
                self._moves(count)
            self._look_at_clock()
            if not count or self._outgoing:
                break
        if self._at == len(into):
            self._then()

    def _next(self, into: memoryview, then: Callable[[], None]) -> None:
        self._into, self._at, self._then = into, 0, then
        if not into:
            then()

    def _next_frame(self) -> None:
        self._next(memoryview(self._head), self._headed)

    def _headed(self) -> None:
        length = direct.LENGTH.unpack_from(self._head)[0]
        kind, number, offset = direct.DATA_HEAD.unpack_from(self._head, direct.LENGTH.size)
        rest = length - direct.DATA_HEAD.size
        least, most = (1, direct.MAX_DATA) if kind == _DATA else (0, direct.MAX_OTHER)
        if rest < least or length > most:
            raise ProtocolError(peer=self.name, why=f"a direct frame of {length} bytes")
        if kind == _DATA:
            self._next(self._room(number, offset, rest), lambda: self._data(number, rest))
        else:
            tail = bytearray(rest)
            self._next(memoryview(tail), lambda: self._other(tail))

    def _room(self, number: int, offset: int, size: int) -> memoryview:
        """Where a piece of content belongs."""
        wanted = self._expected(number)
        if offset != wanted.size:
            raise ProtocolError(peer=self.name, why="a piece of a block out of order")
        if offset + size > wanted.limit:
            raise ProtocolError(peer=self.name, why="a block longer than was asked for")
        content = self._content
        if content is None:
            # A listing may be long: it takes more memory only when more of it comes.
            content = self._content = buffers.take(min(wanted.limit, BLOCK))
        elif offset + size > len(content):
            grown = memoryview(bytearray(wanted.limit))
            grown[:offset] = content[:offset]
            content = self._content = grown
        return content[offset : offset + size]

    def _data(self, number: int, size: int) -> None:
        self._expected(number).size += size
        self._next_frame()

    def _other(self, tail: bytearray) -> None:
        raw = bytes(self._head[direct.LENGTH.size :]) + bytes(tail)
        frame = frames.decode(raw, peer=self.name)
        if not isinstance(frame, frames.End | frames.Refuse):
            raise ProtocolError(peer=self.name, why="a request over a connection that only answers")
        wanted = self._expected(frame.request)
        result: Result
        if isinstance(frame, frames.Refuse):
            result = from_wire(frame.code, {}, message=frame.message, hint="")
        elif frame.length != wanted.size:
            raise ProtocolError(peer=self.name, why="a block shorter than it says")
        else:
            result = b"" if self._content is None else self._content[: wanted.size]
        self._content = None
        self._moves(STEP)
        self._due += 1
        del self._wanted[frame.request]
        self._held.append((wanted, result))
        soon = time.monotonic() - self._handed_at < HELD_S
        if not (soon and self._wanted and len(self._held) < HELD):
            self._hand_over()
        self._next_frame()

    def _hand_over(self) -> None:
        """Hand over the answers that are complete."""
        for each in self._held:
            self._finished.put(each)
        self._held.clear()
        self._handed_at = time.monotonic()

    def _expected(self, number: int) -> _Wanted:
        wanted = self._wanted.get(number)
        if wanted is None or number != self._due:
            raise ProtocolError(peer=self.name, why="content that was never asked for")
        return wanted

    def _moves(self, size: int) -> None:
        self._arrived += size
        if self._arrived >= STEP:
            self._moved_at, self._arrived = time.monotonic(), 0

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if self._held and now - self._handed_at >= HELD_S:
            self._hand_over()
        if self._wanted and now - self._moved_at > STALLED_S:
            why = f"next to nothing came over the direct connection for {STALLED_S:g} s"
            raise LinkLost(peer=self.name, why=why)
