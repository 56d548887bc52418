"""WebRTC by reactor-webrtc (Google's libwebrtc): extra ``peer``.

Parameters and traps are measured ones:

* callbacks run on the library's network thread and only hand over to the event
  loop; nothing of the library is called from them;
* at most :data:`~sleap_rtc.transports.connection.HIGH_WATER` bytes are queued, and sending
  goes on when a quarter of that is left;
* an observer's callbacks must be set before its connection is made;
* every connection is closed before the interpreter ends, or a late callback
  aborts the process;
* the library has no call for an ICE restart: a new offer with other ICE
  credentials is one (RFC 8445, section 9), and the same channel goes on.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from loguru import logger

from sleap_rtc.errors import (
    LinkLost,
    NotFound,
    PeerUnreachable,
    ProtocolError,
    SleapRtcError,
    UsageError,
)
from sleap_rtc.protocol.handshake import Purpose
from sleap_rtc.protocol.peering import (
    MAX_CANDIDATES,
    Answer,
    Candidate,
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
)

LONG: Final = 32 * 1024
"""Bytes from which a binary message is taken for one of a row, which a shorter one ends."""
TOGETHER: Final = 32
"""Messages of a row that the event loop takes at once at most: 2 MiB."""
MAX_BEHIND: Final = 4 * 1024 * 1024
"""Bytes of text that may be queued above what is room for: a peer that doesn't read the answers to
its questions is cut off then, for nothing else would stop it from asking."""
RESTART_AFTER_S: Final = 2.0
"""Seconds of a broken network path after which the offerer looks for another."""

Signal = Callable[[Peering], Awaitable[None]]


@functools.cache
def _library() -> Any:
    try:
        import reactor_webrtc  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            message="WebRTC is not installed.", hint="pip install 'sleap-rtc[peer]'"
        ) from None
    return reactor_webrtc


@functools.cache
def _factory() -> Any:
    builder = _library().PeerConnectionFactoryBuilder()
    builder.with_synthetic_adm()
    builder.with_metadata(False)
    builder.with_dc_callbacks_on_network_thread(True)
    return builder.build()


_open: Final[weakref.WeakSet[WebRtc]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for connection in list(_open):
        connection.abandon("the program ends")


class WebRtc:
    """One WebRTC connection with one data channel, from the first offer to the end.

    Args:
        attempt: The id that both sides call it by.
        peer: Names the peer in errors and logs.
        signal: Sends a message to the peer through the server.
        ice_servers: STUN and TURN servers; none are built in.
    """

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
        self._handed: deque[Arrived] = deque()
        self._woken = threading.Event()
        self._inbox: deque[Arrived] = deque()
        self._unread = 0
        self._wake: asyncio.Event = asyncio.Event()
        self._room: asyncio.Event = asyncio.Event()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._opened.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._why = ""
        self._final: SleapRtcError | None = None
        self._high = HIGH_WATER
        # An upper bound, since asking is a call across threads as dear as sending: what was
        # queued when the library was last asked, and what was sent after that.
        self._queued = 0
        self._unsettled: Callable[[bool], None] = lambda _: None
        self._restart: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._connection: Any = self._make(ice_servers)
        _open.add(self)

    # ── making ───────────────────────────────────────────────────────────────

    def _make(self, ice_servers: Iterable[IceServer]) -> Any:
        rtc = _library()
        observer = rtc.PeerConnectionObserver()
        observer.on_ice_candidate = self._from_thread(self._found)
        observer.on_connection_state_change = self._from_thread(self._state_changed)
        observer.on_data_channel = self._take_channel
        servers = [
            rtc.IceServer(urls=list(s.urls), username=s.username, password=s.credential)
            for s in ice_servers
        ]
        configuration = rtc.RtcConfiguration(ice_servers=servers, frame_metadata=False)
        return _factory().create_peer_connection(configuration, observer)

    async def offer(self, *, session: str, purpose: Purpose) -> None:
        """Begin as the offerer."""
        self._take_channel(self._connection.create_data_channel(purpose))
        description = await self._connection.create_offer()
        self._local = fingerprint_of(description.sdp, peer="this device")
        self._offer = Offer(
            attempt=self.attempt, session=session, purpose=purpose, sdp=description.sdp
        )
        # Candidates may be found before the next line returns; the offer must be sent first.
        await self._signal(self._offer)
        await self._connection.set_local_description(description)

    async def handle(self, message: Peering) -> None:
        """Take a message of the peer about this attempt.

        Raises:
            ProtocolError: A description that can't be, or another certificate than before.
        """
        async with self._one_at_a_time:
            if self.closed:
                return
            match message:
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
        description = await self._connection.create_answer()
        local = fingerprint_of(description.sdp, peer="this device")
        if self._local not in (None, local):
            raise ProtocolError(peer="this device", why="its certificate changed")
        self._local = local
        await self._signal(Answer(attempt=self.attempt, sdp=description.sdp))
        await self._connection.set_local_description(description)

    async def _apply(self, kind: str, sdp: str) -> None:
        remote = fingerprint_of(sdp, peer=self._peer)
        if self._remote not in (None, remote):
            raise ProtocolError(peer=self._peer, why="its certificate changed")
        description = _library().SessionDescription(kind, sdp)
        # Noted first: the connection may be open before the next line returns.
        self._remote = remote
        try:
            await self._connection.set_remote_description(description)
        except (RuntimeError, ValueError) as error:
            raise ProtocolError(peer=self._peer, why=f"a bad description: {error}") from None
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
        candidate = _library().IceCandidate(message.candidate, message.mid, message.line)
        try:
            await self._connection.add_ice_candidate(candidate)
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
        self._unread -= len(arrived.data)
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
            self._queued = self._channel.buffered_amount()
            if self._queued >= self._high:
                await self._room.wait()

    def _send(self, data: bytes, *, binary: bool) -> None:
        if self.closed or self._channel is None:
            raise self._lost()
        if not binary and self._queued > self._high + MAX_BEHIND:
            self._queued = self._channel.buffered_amount()
            if self._queued > self._high + MAX_BEHIND:
                self.abandon("it doesn't read what it asked for")
                raise self._lost()
        try:
            self._channel.send(data, binary)
            self._queued += len(data)
        except RuntimeError as error:
            self.abandon(str(error))
            raise self._lost() from None

    def when_unsettled(self, callback: Callable[[bool], None]) -> None:
        """Be told when the network path breaks and when it works again."""
        self._unsettled = callback

    async def close(self) -> None:
        """Close it, after what is queued has had a moment to leave."""
        channel = self._channel
        if not self.closed and channel is not None and self._opened.done():
            with contextlib.suppress(RuntimeError):
                await channel.drain(timeout=1.0)
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
        channel, self._channel, self._connection = self._channel, None, None
        _open.discard(self)
        if self._restart is not None:
            self._restart.cancel()
        if channel is not None:
            with contextlib.suppress(RuntimeError):
                channel.close()
        if not self._loop.is_closed():
            if not self._opened.done():
                self._opened.set_exception(self._lost())
            self._wake.set()
            self._room.set()

    def _lost(self) -> LinkLost:
        return LinkLost(peer=self._peer, why=self._why or "it is not open")

    # ── from the library's threads ───────────────────────────────────────────

    def _from_thread(self, call: Callable[..., None]) -> Callable[..., None]:
        """A callback for the library that runs ``call`` in the event loop."""
        reference = weakref.WeakMethod(call)
        loop = self._loop

        def run(*arguments: object) -> None:
            method = reference()
            if method is not None:
                method(*arguments)

        def hand_over(*arguments: object) -> None:
            # The loop may be closed already: nobody is left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(run, *arguments)

        return hand_over

    def _take_channel(self, channel: Any) -> None:
        if self._channel is not None:
            return
        self._channel = channel
        if channel.label() == "control":
            self._high = CONTROL_HIGH_WATER
        channel.set_buffered_amount_low_threshold(self._high // 4)
        channel.on_buffered_amount_low(self._from_thread(self._drained))
        channel.on_open(self._from_thread(self._channel_opened))
        channel.on_close(self._from_thread(self._channel_closed))
        channel.on_message(self._in_rows())
        if str(channel.state()).endswith("Open"):
            self._loop.call_soon_threadsafe(self._channel_opened)

    def _in_rows(self) -> Callable[[bytes, bool], None]:
        """A callback for the library that wakes the event loop once for a row of messages.

        Waking it costs more than taking a message does. Content comes in rows of long messages
        that end with a short one; all others are handed over at once.
        """
        handed = self._handed
        woken = self._woken
        wake = self._from_thread(self._take_handed)

        def hand_over(data: bytes, binary: bool) -> None:
            handed.append(Arrived(data, binary))
            row = binary and len(data) >= LONG and len(handed) < TOGETHER
            if not row and not woken.is_set():
                woken.set()
                wake()

        return hand_over

    def _take_handed(self) -> None:
        # Cleared first: what comes from here on wakes the loop again.
        self._woken.clear()
        while self._handed:
            arrived = self._handed.popleft()
            self._unread += len(arrived.data)
            self._inbox.append(arrived)
        if self._unread > MAX_UNREAD:
            self.abandon("it sends faster than it may")
        self._wake.set()

    def _drained(self) -> None:
        self._room.set()

    def _channel_opened(self) -> None:
        if not self.closed and not self._opened.done():
            self._opened.set_result(None)

    def _channel_closed(self) -> None:
        self._take_handed()
        self.abandon("the other side closed it")

    def _found(self, candidate: Any) -> None:
        if self.closed:
            return
        message = Candidate(
            attempt=self.attempt,
            candidate=candidate.candidate,
            mid=candidate.sdp_mid,
            line=candidate.sdp_mline_index,
        )
        self._spawn(self._signal(message))

    def _state_changed(self, state: Any) -> None:
        name = str(state).rpartition(".")[2]
        logger.debug("connection {} to {}: {}", self.attempt[-8:], self._peer, name)
        if name == "Connected":
            self._settle()
        elif name == "Disconnected":
            self._unsettled(True)
            if self._offer is not None and self._restart is None:
                self._restart = self._loop.call_later(RESTART_AFTER_S, self._look_again)
        elif name in ("Failed", "Closed"):
            self.abandon("the network path is gone")

    def _settle(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        self._unsettled(False)

    def _look_again(self) -> None:
        self._restart = None
        if not self.closed:
            self._spawn(self._restart_ice())

    async def _restart_ice(self) -> None:
        assert self._offer is not None  # noqa: S101
        logger.info("looking for another network path to {}", self._peer)
        self._candidates = 0
        description = await self._connection.create_offer()
        description = description.with_ice_credentials(secrets.token_hex(4), secrets.token_hex(16))
        offer = Offer(
            attempt=self.attempt,
            session=self._offer.session,
            purpose=self._offer.purpose,
            sdp=description.sdp,
            restart=True,
        )
        try:
            await self._signal(offer)
        except NotFound:
            # The network is silent, and whoever was there has signed off or signed in anew.
            self.abandon("it is not online any more")
            return
        await self._connection.set_local_description(description)

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
