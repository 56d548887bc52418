"""What every WebRTC connection does the same way, whichever library makes it.

A shell below it (``webrtc.py``, ``portable.py``) turns a library's calls and
callbacks into the few that are listed at the end of :class:`Peer`. Here are the
rules: whose description counts, which certificate, how many candidates, how
much may be queued or lie unread, and what happens at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ClassVar, Final, Literal

from loguru import logger

from sleap_rtc.errors import (
    LinkLost,
    PeerUnreachable,
    ProtocolError,
    SleapRtcError,
)
from sleap_rtc.protocol.handshake import Purpose
from sleap_rtc.protocol.peering import (
    MAX_CANDIDATES,
    Answer,
    Candidate,
    Decline,
    Offer,
    Peering,
    fingerprint_of,
)
from sleap_rtc.protocol.signaling import IceServer
from sleap_rtc.transports.connection import (
    CONTROL_HIGH_WATER,
    HIGH_WATER,
    MAX_UNREAD,
    Arrived,
    Packets,
)

MAX_BEHIND: Final = 4 * 1024 * 1024
"""Bytes of text that may be queued above what is room for: a peer that doesn't read the answers to
its questions is cut off then, for nothing else would stop it from asking."""
MESSAGE_COST: Final = 128
"""Bytes that an unread message is counted for beside its content: empty ones take room too."""

LEAST_QUEUED: Final = 512 * 1024
"""Bytes of content that may be queued on the slowest connection, and on one whose speed isn't known
yet: what lies in its queue no other connection can bring sooner."""
QUEUED_S: Final = 0.5
"""Seconds of sending that may be queued, within that and what the library is given at most."""
EMPTIED_STEP_S: Final = 0.05
"""Seconds between two looks whether everything has left."""
GONE_WITHIN_S: Final = 1.0
"""Seconds that closing waits for the peer to have taken everything, once it has left."""
END_WITHIN_S: Final = 2.0
"""Seconds that :func:`ended` waits at most."""

Kind = Literal["offer", "answer"]
Signal = Callable[[Peering], Awaitable[None]]


_ending: Final[set[asyncio.Future[Any]]] = set()


def until_ended(work: asyncio.Future[Any]) -> None:
    """Have :func:`ended` wait for ``work``, whatever comes of it."""
    _ending.add(work)
    work.add_done_callback(_ending.discard)
    work.add_done_callback(lambda done: done.cancelled() or done.exception())


async def ended() -> None:
    """Wait until connections that were closed in this event loop hold nothing of it any more."""
    loop = asyncio.get_running_loop()
    left = [work for work in _ending if work.get_loop() is loop]
    if left:
        await asyncio.wait(left, timeout=END_WITHIN_S)


_content: Final[weakref.WeakSet[Peer]] = weakref.WeakSet()
"""Connections of this process that carry content."""


class Peer(ABC):
    """One WebRTC connection with one data channel, from the first offer to the end.

    Used from one event loop.

    Args:
        attempt: The id that both sides call it by.
        peer: Names the peer in errors and logs.
        signal: Sends a message to the peer through the server.
        ice_servers: STUN and TURN servers; none are built in.

    Raises:
        UsageError: The library isn't installed.
    """

    most_queued: ClassVar[int] = HIGH_WATER
    """Bytes queued in the library above which a sender of content waits."""
    renews: ClassVar[bool] = True
    """Whether the library can look for another network path in mid-connection."""

    def __init__(
        self, *, attempt: str, peer: str, signal: Signal, ice_servers: Iterable[IceServer] = ()
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.attempt = attempt
        self._peer = peer
        self._signal = signal
        self._offer: Offer | None = None
        self._local: bytes | None = None
        self._remote: bytes | None = None
        self._early: list[Candidate] = []
        self._candidates = 0
        self._channel: Any = None
        self._inbox: deque[Arrived] = deque()
        self._unread = 0
        self._moved = 0
        self._wake: asyncio.Event = asyncio.Event()
        self._room: asyncio.Event = asyncio.Event()
        self._gone: asyncio.Event = asyncio.Event()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._opened.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._why = ""
        self._final: SleapRtcError | None = None
        self._most = self.most_queued
        self._high = min(self._most, LEAST_QUEUED)
        # An upper bound, since asking is a call across threads as dear as sending: what was
        # queued when the library was last asked, and what was sent after that.
        self._queued = 0
        self._unsettled: Callable[[bool], None] = lambda _: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._connection: Any = self._make(ice_servers)

    # ── making ───────────────────────────────────────────────────────────────

    async def offer(self, *, session: str, purpose: Purpose) -> None:
        """Begin as the offerer.

        Raises:
            NetworkError: The server is away, or the connection was ended meanwhile.
            NotFound: The peer is not there.
        """
        # An answer may come before the last line returns; it is taken after that.
        async with self._one_at_a_time:
            self._open_channel(purpose)
            sdp = await self._create("offer")
            self._local = fingerprint_of(sdp, peer="this device")
            self._offer = Offer(attempt=self.attempt, session=session, purpose=purpose, sdp=sdp)
            # Candidates may be found before the next line returns; the offer must be sent first.
            await self._signal(self._offer)
            await self._set_local("offer", sdp)

    async def handle(self, message: Peering) -> None:
        """Take a message of the peer about this attempt.

        Raises:
            ProtocolError: A description that can't be, or another certificate than before.
            LinkLost: The connection was ended meanwhile.
        """
        async with self._one_at_a_time:
            if self.closed:
                return
            match message:
                case Offer() if self._remote is not None and not self.renews:
                    why = "this side can't look for another network path"
                    self.abandon(why)
                    await self._signal(
                        Decline(attempt=self.attempt, code="no_restart", message=why)
                    )
                case Offer():
                    await self._answer(message)
                case Answer():
                    await self._apply("answer", message.sdp)
                case Candidate():
                    await self._add(message)
                case _:
                    self.abandon(f"declined: {message.message or message.code}")

    async def _answer(self, offer: Offer) -> None:
        await self._apply("offer", offer.sdp)
        sdp = await self._create("answer")
        local = fingerprint_of(sdp, peer="this device")
        if self._local not in (None, local):
            raise ProtocolError(peer="this device", why="its certificate changed")
        self._local = local
        await self._signal(Answer(attempt=self.attempt, sdp=sdp))
        await self._set_local("answer", sdp)

    async def _apply(self, kind: Kind, sdp: str) -> None:
        remote = fingerprint_of(sdp, peer=self._peer)
        if self._remote not in (None, remote):
            raise ProtocolError(peer=self._peer, why="its certificate changed")
        # Noted first: the connection may be open before the next line returns.
        self._remote = remote
        self._candidates = 0
        await self._set_remote(kind, sdp)
        early, self._early = self._early, []
        for candidate in early:
            await self._add(candidate)

    async def _add(self, message: Candidate) -> None:
        if self._remote is None:
            if len(self._early) < MAX_CANDIDATES:
                self._early.append(message)
            return
        self._candidates += 1
        if self._candidates > MAX_CANDIDATES:
            return
        try:
            await self._add_remote(message)
        except (RuntimeError, ValueError) as error:
            logger.debug("{} sent an unusable candidate: {}", self._peer, error)

    async def opened(self, *, within_s: float) -> None:
        """Wait until messages can be sent.

        Raises:
            PeerUnreachable: Not within ``within_s`` seconds, or it was declined.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._opened), within_s)
        except TimeoutError:
            why = f"no connection within {within_s:g} s"
            self.abandon(why)
            raise PeerUnreachable(peer=self._peer, why=why) from None
        except LinkLost:
            raise PeerUnreachable(peer=self._peer, why=self._why) from None

    # ── being a Connection ───────────────────────────────────────────────────

    @property
    def local_fingerprint(self) -> bytes:
        """SHA-256 of our certificate."""
        return self._local or b""

    @property
    def remote_fingerprint(self) -> bytes:
        """SHA-256 of the peer's certificate."""
        return self._remote or b""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._connection is None

    @property
    def moved(self) -> int:
        """Bytes of content that have left or arrived; an upper bound of it."""
        return self._moved - (0 if self._channel is None else self._buffered())

    async def packets(self) -> Packets | None:
        """What it has sent; None here: only the fast library tells."""
        return None

    async def receive(self) -> Arrived:
        """The next message; those that came before the end are still given.

        Raises:
            LinkLost: The connection is closed.
            SleapRtcError: It was ended here, for this reason.
        """
        while self._final is not None or not self._inbox:
            if self._final is not None:
                raise self._final
            if self.closed:
                raise self._lost()
            self._wake.clear()
            await self._wake.wait()
        arrived = self._inbox.popleft()
        self._unread -= len(arrived.data) + MESSAGE_COST
        return arrived

    def send_text(self, data: bytes) -> None:
        """Queue a text message."""
        self._send(data, binary=False)

    async def send_binary(self, data: bytes) -> None:
        """Queue a binary message, once there is room."""
        await self.room()
        self._send(data, binary=True)

    async def room(self) -> None:
        """Wait until less is queued than may be."""
        while self._channel is not None and self._queued >= self._high:
            self._room.clear()
            # Asking after clearing: the signal may come in between.
            self._queued = self._buffered()
            if self._queued >= self._high:
                begun, left = self._loop.time(), self._moved - self._queued
                await self._room.wait()
                if self._channel is not None:
                    self._queued = self._buffered()
                    left = self._moved - self._queued - left
                    self._fit(left / max(self._loop.time() - begun, 1e-3))

    def _fit(self, rate: float) -> None:
        """Queue what leaves within a moment at this rate, in bytes per second."""
        high = min(self._most, max(LEAST_QUEUED, int(rate * QUEUED_S)))
        # Each change is a call across threads.
        if high != self._high and (high == self._most or not 0.75 < high / self._high < 1.25):
            self._high = high
            self._mark(high // 4)

    async def emptied(self) -> None:
        """Wait until nothing is queued any more."""
        while self._channel is not None and self._buffered():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(EMPTIED_STEP_S)

    def _send(self, data: bytes, *, binary: bool) -> None:
        if self.closed or self._channel is None:
            raise self._lost()
        if not binary and self._queued > self._most + MAX_BEHIND:
            self._queued = self._buffered()
            if self._queued > self._most + MAX_BEHIND:
                self.abandon("it doesn't read what it asked for")
                raise self._lost()
        try:
            self._put(data, binary=binary)
            self._queued += len(data)
            self._moved += len(data)
        except (RuntimeError, ValueError) as error:
            self.abandon(str(error).rstrip("."))
            raise self._lost() from None

    def when_unsettled(self, callback: Callable[[bool], None]) -> None:
        """Be told when the network path breaks and when it works again."""
        self._unsettled = callback

    async def close(self) -> None:
        """Close it, after what is queued has had a moment to leave."""
        if not self.closed and self._channel is not None and self._opened.done():
            await self._drain()
        self.abandon("closed")

    async def end(self, why: SleapRtcError, last: bytes) -> None:
        """End it for a reason of this side's: whoever reads here gets it, and nothing more.

        Args:
            why: The reason.
            last: A text message for the peer, before the end.
        """
        if self.closed or self._final is not None:
            return
        self._final = why
        self._why = why.message
        self._wake.set()
        with contextlib.suppress(LinkLost):
            self._send(last, binary=False)
        await self.close()

    def abandon(self, why: str) -> None:
        """Close it at once."""
        if self.closed:
            return
        self._why = self._why or why
        _content.discard(self)
        channel, self._channel = self._channel, None
        connection, self._connection = self._connection, None
        self._shut(connection, channel)
        if not self._loop.is_closed():
            if not self._opened.done():
                self._opened.set_exception(self._lost())
            self._wake.set()
            self._room.set()
            self._gone.set()

    def _lost(self) -> LinkLost:
        return LinkLost(peer=self._peer, why=self._why or "it is not open")

    def _live(self) -> Any:
        """The library's connection.

        Raises:
            LinkLost: It was ended while something else was waited for.
        """
        if self._connection is None:
            raise self._lost()
        return self._connection

    # ── what a shell tells of ────────────────────────────────────────────────

    def _took(self, channel: Any, label: str) -> None:
        """This is the connection's one data channel."""
        self._channel = channel
        if label == "control":
            self._most = self._high = CONTROL_HIGH_WATER
            return
        if _content:
            # Of several each has a part of the line, and needs less to fill it.
            self._most = self.most_queued // 4
            self._high = min(self._most, LEAST_QUEUED)
        _content.add(self)

    def _arrived(self, message: Arrived) -> None:
        """A message; :meth:`_had_arrived` follows the last one of those that came together."""
        self._unread += len(message.data) + MESSAGE_COST
        self._moved += len(message.data)
        self._inbox.append(message)

    def _had_arrived(self) -> None:
        if self._unread > MAX_UNREAD:
            self.abandon("it sends faster than it may")
        self._wake.set()

    def _drained(self) -> None:
        """Little enough is queued again."""
        self._room.set()

    def _channel_opened(self) -> None:
        if not self.closed and not self._opened.done():
            self._opened.set_result(None)

    def _channel_closed(self) -> None:
        self.abandon("the other side closed it")

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except SleapRtcError as error:
                logger.debug("signal to {} not sent: {}", self._peer, error)
            except RuntimeError as error:
                logger.debug("{}: {}", self._peer, error)

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Let ``work`` end what the library holds; :func:`ended` waits for it."""
        until_ended(self._loop.create_task(work))

    # ── what a shell does ────────────────────────────────────────────────────

    @abstractmethod
    def _make(self, ice_servers: Iterable[IceServer]) -> Any:
        """The library's connection, with callbacks that call the methods above."""

    @abstractmethod
    def _open_channel(self, purpose: Purpose) -> None:
        """Make the data channel, as the offerer."""

    @abstractmethod
    async def _create(self, kind: Kind) -> str:
        """A description of this side with one SHA-256 fingerprint and perhaps no candidates."""

    @abstractmethod
    async def _set_local(self, kind: Kind, sdp: str) -> None:
        """Apply it, and signal the candidates that aren't in it."""

    @abstractmethod
    async def _set_remote(self, kind: Kind, sdp: str) -> None:
        """Apply the peer's description, whose fingerprint has been checked.

        Raises:
            ProtocolError: The library can't.
        """

    @abstractmethod
    async def _add_remote(self, message: Candidate) -> None:
        """Try an address of the peer's.

        Raises:
            RuntimeError: The library can't.
            ValueError: It is none.
        """

    @abstractmethod
    def _put(self, data: bytes, *, binary: bool) -> None:
        """Queue a message.

        Raises:
            RuntimeError: The library can't.
            ValueError: The peer's limits don't allow it.
        """

    @abstractmethod
    def _buffered(self) -> int:
        """Bytes that are queued."""

    @abstractmethod
    def _mark(self, low: int) -> None:
        """Have :meth:`_drained` called once no more bytes than this are queued."""

    @abstractmethod
    async def _drain(self) -> None:
        """Wait a second or so for what is queued to leave and arrive; ``_gone`` is the end."""

    @abstractmethod
    def _shut(self, connection: Any, channel: Any) -> None:
        """Let go of both at once; nothing may be called back for long after this."""
