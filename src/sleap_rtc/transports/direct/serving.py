"""The serving end of a direct connection: answers in the order of the requests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import TimeoutError as NotYet
from typing import Final

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Cancelled, LinkLost, ProtocolError
from sleap_rtc.protocol import direct, frames
from sleap_rtc.transports.blocks import Shelf, answer
from sleap_rtc.transports.direct.lane import LOOK_MS, Lane, OnEnd
from sleap_rtc.transports.direct.wire import Wire
from sleap_rtc.transports.throttle import Throttle

UNREAD_S: Final = 60.0
"""Seconds after which a peer that takes nothing of what it asked for is given up."""
_RECORD: Final = 16 * 1024
"""Bytes that TLS takes at a time; each record costs both sides a call."""
_SLOW_PIECE: Final = frames.MAX_CHUNK
"""Bytes of a piece where the rate is limited, so that it is kept over short times too."""

_DATA: Final = 3


class ServeLane(Lane):
    """Serves content over a direct connection.

    Args:
        wire: The proven connection.
        shelf: What this peer may fetch.
        throttle: The bandwidth limit, shared with all that this process moves.
        on_end: Called once with why it ended.
    """

    def __init__(
        self, wire: Wire, *, shelf: Shelf, throttle: Throttle | None, on_end: OnEnd
    ) -> None:
        super().__init__(wire, on_end=on_end)
        self._shelf = shelf
        self._throttle = throttle
        self._asked: dict[int, frames.Asked] = {}
        self._highest = 0
        self._buffer = bytearray(4096)
        self._unread = bytearray()
        self._queue: deque[int] = deque()
        self._sending: tuple[int, bytes, int] | None = None

    # ── in the thread ────────────────────────────────────────────────────────

    def _work(self) -> None:
        while not self._closing.is_set():
            busy = self._sending is not None or self._queue
            if not busy:
                self._wire.push()
            if self._wait(most_ms=0 if busy else LOOK_MS):
                self._receive()
                continue  # first everything that is asked for: it may be too much
            if self._sending is None and self._queue:
                self._begin(self._queue.popleft())
            if self._sending is not None:
                self._send_frame(*self._sending)

    def _has_work(self) -> bool:
        return self._closing.is_set()

    def _receive(self) -> None:
        """Take the requests that have arrived."""
        count = self._wire.read(memoryview(self._buffer))
        self._unread += self._buffer[:count]
        at, head = 0, direct.LENGTH.size
        while len(self._unread) - at >= head:
            length = direct.LENGTH.unpack_from(self._unread, at)[0]
            if length > frames.MAX_REQUEST:
                raise ProtocolError(peer=self._wire.peer, why=f"a request of {length} bytes")
            if len(self._unread) - at < head + length:
                break
            self._take(bytes(self._unread[at + head : at + head + length]))
            at += head + length
        del self._unread[:at]

    def _take(self, raw: bytes) -> None:
        frame = frames.decode(raw, peer=self._wire.peer)
        match frame:
            case frames.Withdraw():
                self._asked.pop(frame.request, None)
            case frames.GetListing() | frames.GetBlock() | frames.GetSeveral():
                if frame.request <= self._highest:
                    raise ProtocolError(peer=self._wire.peer, why="a request number used twice")
                # One place more than the credit: a withdrawal may still be on its way.
                if len(self._queue) > 2 * frames.MAX_OUTSTANDING:
                    why = "more requests than the credit allows"
                    raise ProtocolError(peer=self._wire.peer, why=why)
                self._highest = frame.request
                self._asked[frame.request] = frame
                self._queue.append(frame.request)
            case _:
                raise ProtocolError(peer=self._wire.peer, why="content that was never asked for")

    def _begin(self, number: int) -> None:
        """Read an answer.

        In this thread: to take it over from another one costs as much as to hash it, and what was
        just read is in the cache. Meanwhile the system sends what it has taken of the one before.
        """
        asked = self._asked.get(number)
        if asked is None:
            self._refuse(_withdrawn(number))
            return
        content = answer(self._shelf, asked, peer=self._wire.peer)
        if isinstance(content, bytes):
            self._sending = number, content, 0
        else:
            self._refuse(content)

    def _send_frame(self, number: int, content: bytes, offset: int) -> None:
        """Send the next frame of an answer."""
        if number not in self._asked:
            self._refuse(_withdrawn(number))
            self._sending = None
            return
        if offset < len(content):
            most = BLOCK if self._throttle is None else _SLOW_PIECE
            piece = memoryview(content)[offset : offset + most]
            if self._throttle is not None and not self._may_send(self._throttle, len(piece)):
                return
            length = direct.LENGTH.pack(direct.DATA_HEAD.size + len(piece))
            head = length + direct.DATA_HEAD.pack(_DATA, number, offset)
            offset += len(piece)
            if self._throttle is None:
                self._wire.gather()
            if offset < len(content):
                self._sending = number, content, offset
                self._send_content(head, piece, b"")
                return
            tail = _framed(frames.encode(frames.End(number, len(content))))
            self._send_content(head, piece, tail)
        else:  # an empty one
            self._send(memoryview(_framed(frames.encode(frames.End(number, 0)))))
        self._sending = None
        del self._asked[number]

    def _send_content(self, head: bytes, piece: memoryview, tail: bytes) -> None:
        """Send a piece with what belongs before and behind it, in as few records as there can be.

        A short one costs nearly as much as a full one, and may wake the peer for nothing.
        """
        first = _RECORD - len(head)
        if len(piece) + len(tail) <= first:
            self._send(memoryview(b"".join((head, piece, tail))))
            return
        last = len(piece) - max(len(piece) - first, 0) % _RECORD
        self._send(memoryview(head + piece[:first]))
        self._send(piece[first:last])
        self._send(memoryview(bytes(piece[last:]) + tail))

    def _refuse(self, refusal: frames.Refuse) -> None:
        self._asked.pop(refusal.request, None)
        self._send(memoryview(_framed(frames.encode(refusal))))

    def _send(self, data: memoryview) -> None:
        taken_at = time.monotonic()
        while data and not self._closing.is_set():
            count = self._wire.write_row(data)
            data = data[count:]
            if count:
                taken_at = time.monotonic()
            elif time.monotonic() - taken_at > UNREAD_S:
                why = f"it took nothing of what it asked for, for {UNREAD_S:g} s"
                raise LinkLost(peer=self._wire.peer, why=why)

    def _may_send(self, throttle: Throttle, size: int) -> bool:
        """Wait for the limit's leave; False when this ends meanwhile."""
        taking = asyncio.run_coroutine_threadsafe(throttle.take(size), self._loop)
        while not self._closing.is_set():
            try:
                taking.result(timeout=0.25)
            except NotYet:
                continue
            return True
        taking.cancel()
        return False


def _withdrawn(number: int) -> frames.Refuse:
    """Ends a request that isn't wanted any more: the other side counts on an end of each."""
    return frames.Refuse(number, Cancelled.code, "withdrawn")


def _framed(frame: bytes) -> bytes:
    return direct.LENGTH.pack(len(frame)) + frame
