"""The fast shell: WebRTC by reactor-webrtc (Google's libwebrtc), extra ``peer``.

Parameters and traps are measured ones:

* callbacks run on the library's network thread and only hand over to the event
  loop; nothing of the library is called from them;
* at most :data:`~sleap_rtc.transports.connection.HIGH_WATER` bytes are queued, and sending
  goes on when a quarter of that is left;
* an observer's callbacks must be set before its connection is made;
* every connection is closed before the interpreter ends, and what was asked of the library has
  been answered, or a late callback aborts the process: what is cancelled goes on in its threads;
* what is on its way is bounded (``pacing.py``): who fills a line's queue until it runs over loses
  a row of packets, and SCTP then sends one packet for each round trip until it has sent them again;
* SCTP as it comes begins anew with few packets after each loss, which leaves a long line mostly
  unused. Larger bursts (``with_dc_chunking``) don't help there: with and without them one
  connection carries the same. Near peers whose sockets have little room lose them;
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
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from loguru import logger

from sleap_rtc.errors import NetworkError, NotFound, ProtocolError, UsageError
from sleap_rtc.net.address import is_here
from sleap_rtc.protocol.handshake import Purpose
from sleap_rtc.protocol.peering import Candidate, Offer
from sleap_rtc.protocol.signaling import IceServer
from sleap_rtc.transports.connection import Arrived, Packets, Tap
from sleap_rtc.transports.datagrams import make_room
from sleap_rtc.transports.pacing import Look, Pace, Replacing
from sleap_rtc.transports.peer import GONE_WITHIN_S, Kind, Peer, until_ended

LONG: Final = 32 * 1024
"""Bytes from which a binary message is taken for one of a row, which a shorter one ends."""
TOGETHER: Final = 32
"""Messages of a row that the event loop takes at once at most: 2 MiB."""
RESTART_AFTER_S: Final = 1.0
"""Seconds of a broken network path after which the offerer looks for another, and between tries."""
WATCH_S: Final = 1.0
"""Seconds between two looks whether this machine still has its addresses."""
FIRST_WINDOW: Final = 48
"""Packets that may be under way before the first acknowledgement."""
LEAST_WINDOW: Final = 24
"""The same after a loss: a random one on a long line costs no second then. It is half of what a
relay's socket holds (coturn has room for 56 packets): with 48, nine of ten were lost there while it
was busy, and nothing made the sender slower."""
CHUNK: Final = 1_172
"""Bytes of content in a full packet, by which those that are on their way are counted."""
TELL_TIMES: Final = 3
"""How often an address is signaled at most, while the server can't be reached."""
COUNT_WITHIN_S: Final = 1.0
"""Seconds that the library is given for its last count."""
LAST_CALLS_S: Final = 0.5
"""Seconds that the end of the program leaves the library for what it was asked last."""

T = TypeVar("T")


@functools.cache
def library() -> Any:
    """The package ``reactor_webrtc``.

    Raises:
        UsageError: It isn't installed, or can't be loaded on this system.
    """
    try:
        import reactor_webrtc  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            message=f"The WebRTC library reactor-webrtc can't be loaded ({error}).",
            hint="pip install 'sleap-rtc[peer]'",
        ) from None
    return reactor_webrtc


@functools.cache
def factory() -> Any:
    """What makes the library's connections, with our settings.

    The library allows one in a process: near peers and far ones have the same.

    Raises:
        UsageError: As :func:`library`.
    """
    builder = library().PeerConnectionFactoryBuilder()
    builder.with_synthetic_adm()
    builder.with_metadata(False)
    builder.with_dc_callbacks_on_network_thread(True)
    builder.with_sctp_tuning(initial_cwnd_mtus=FIRST_WINDOW, min_cwnd_mtus=LEAST_WINDOW)
    return builder.build()


_replacing: Final = Replacing()
_open: Final[weakref.WeakSet[WebRtc]] = weakref.WeakSet()
_calls: Final[set[asyncio.Future[Any]]] = set()


@atexit.register
def _close_all() -> None:
    for connection in list(_open):
        connection.abandon("the program ends")
    if _calls:
        # Their event loop has ended, so nothing tells when the library's threads have.
        time.sleep(LAST_CALLS_S)


async def _answered(call: Awaitable[T]) -> T:
    """What the library answers; if nobody waits for it any more, :func:`ended` does."""
    answer = asyncio.ensure_future(call)
    _calls.add(answer)
    answer.add_done_callback(_calls.discard)
    until_ended(answer)
    return await asyncio.shield(answer)


class WebRtc(Peer):
    """A connection made by reactor-webrtc; its arguments are those of :class:`Peer`."""

    def __init__(self, **given: Any) -> None:
        self._handed: deque[Arrived] = deque()
        self._woken = threading.Event()
        self._taps: list[Tap] = []
        self._restart: asyncio.TimerHandle | None = None
        self._hosts: set[str] = set()
        self._pace: Pace | None = None
        self._sent = 0
        self._acknowledged = 0
        self._packets: Packets | None = None
        self._sending = asyncio.Event()
        self._paced = asyncio.Event()
        self._watching: asyncio.TimerHandle | None = None
        super().__init__(**given)
        _open.add(self)

    def tap(self, take: Tap) -> None:
        """Offer every binary message to ``take`` first, on the library's network thread."""
        self._taps.append(take)

    # ── what a shell does ────────────────────────────────────────────────────

    def _make(self, ice_servers: Iterable[IceServer]) -> Any:
        rtc = library()
        observer = rtc.PeerConnectionObserver()
        observer.on_ice_candidate = self._from_thread(self._found)
        observer.on_connection_state_change = self._from_thread(self._state_changed)
        observer.on_data_channel = self._take_channel
        servers = [
            rtc.IceServer(urls=list(s.urls), username=s.username, password=s.credential)
            for s in ice_servers
        ]
        configuration = rtc.RtcConfiguration(
            ice_servers=servers,
            # Another address of this machine, when it moves to another network, is found by itself.
            continual_gathering_policy="continually",
            frame_metadata=False,
            dc_chunking=False,
        )
        return factory().create_peer_connection(configuration, observer)

    def _open_channel(self, purpose: Purpose) -> None:
        self._take_channel(self._live().create_data_channel(purpose))

    async def _create(self, kind: Kind) -> str:
        # Nothing but this object may hold the library's connection while it waits: a traceback
        # that is kept would close it when the interpreter is half gone.
        if kind == "offer":
            description = await _answered(self._live().create_offer())
        else:
            description = await _answered(self._live().create_answer())
        return str(description.sdp)

    async def _set_local(self, kind: Kind, sdp: str) -> None:
        description = library().SessionDescription(kind, sdp)
        await _answered(self._live().set_local_description(description))

    async def _set_remote(self, kind: Kind, sdp: str) -> None:
        description = library().SessionDescription(kind, sdp)
        try:
            await _answered(self._live().set_remote_description(description))
        except (RuntimeError, ValueError) as error:
            raise ProtocolError(peer=self._peer, why=f"a bad description: {error}") from None

    async def _add_remote(self, message: Candidate) -> None:
        candidate = library().IceCandidate(message.candidate, message.mid, message.line)
        await _answered(self._live().add_ice_candidate(candidate))

    async def room(self) -> None:
        """Wait until less is queued, and less is on its way, than may be."""
        await super().room()
        while (
            (pace := self._pace) is not None
            and not self.closed
            and self._sent - self._acknowledged >= pace.limit
        ):
            self._paced.clear()
            await self._paced.wait()
            await super().room()

    async def packets(self) -> Packets | None:
        """What it has sent, with content; None before the library was asked."""
        if self._pace is not None:
            with contextlib.suppress(RuntimeError, NetworkError, TimeoutError):
                await asyncio.wait_for(self._count(), COUNT_WITHIN_S)
        return self._packets

    async def _count(self) -> Any:
        """What the library counts of SCTP; None if it doesn't."""
        stats = (await _answered(self._live().get_stats())).sctp
        if stats is not None:
            self._packets = Packets(sent=stats.packets_sent, again=stats.packets_retransmitted)
        return stats

    def _put(self, data: bytes, *, binary: bool) -> None:
        self._channel.send(data, binary)
        self._sent += len(data)
        self._sending.set()

    def _buffered(self) -> int:
        return int(self._channel.buffered_amount())

    def _mark(self, low: int) -> None:
        self._channel.set_buffered_amount_low_threshold(low)

    async def _drain(self) -> None:
        # What has left the queue may still be under way: the stream's end comes behind it, and is
        # answered by the peer.
        self._why = self._why or "closed"
        channel = self._channel
        with contextlib.suppress(RuntimeError):
            await channel.drain(timeout=1.0)
            channel.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), GONE_WITHIN_S)

    def _shut(self, connection: Any, channel: Any) -> None:
        _open.discard(self)
        self._taps.clear()
        self._sending.set()
        self._paced.set()
        for timer in (self._restart, self._watching):
            if timer is not None:
                timer.cancel()
        if channel is not None:
            with contextlib.suppress(RuntimeError):
                channel.close()

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
        self._took(channel, channel.label())
        # Before all others: with the first callback what came meanwhile is handed over, and what
        # nobody takes is lost.
        channel.on_message(self._in_rows())
        channel.set_buffered_amount_low_threshold(self._high // 4)
        channel.on_buffered_amount_low(self._from_thread(self._drained))
        channel.on_open(self._from_thread(self._channel_opened))
        channel.on_close(self._from_thread(self._channel_closed))
        if channel.label() == "blocks":
            self._loop.call_soon_threadsafe(self._begin_to_pace)
        if str(channel.state()).endswith("Open"):
            self._loop.call_soon_threadsafe(self._channel_opened)

    def _begin_to_pace(self) -> None:
        if not self.closed:
            self._pace = Pace()
            self._spawn(self._keep_pace())

    def _in_rows(self) -> Callable[[bytes, bool], None]:
        """A callback for the library that wakes the event loop once for a row of messages.

        Waking it costs more than taking a message does. Content comes in rows of long messages
        that end with a short one; all others are handed over at once.
        """
        handed = self._handed
        taps = self._taps
        woken = self._woken
        wake = self._from_thread(self._take_handed)

        def hand_over(data: bytes, binary: bool) -> None:
            if binary:
                for take in taps:
                    if take(data):
                        return
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
            self._arrived(self._handed.popleft())
        self._had_arrived()

    def _channel_closed(self) -> None:
        self._take_handed()
        super()._channel_closed()

    def _found(self, candidate: Any) -> None:
        if self.closed:
            return
        message = Candidate(
            attempt=self.attempt,
            candidate=candidate.candidate,
            mid=candidate.sdp_mid,
            line=candidate.sdp_mline_index,
        )
        make_room()
        words = message.candidate.split(" ")
        if words[7:8] == ["host"]:
            self._hosts.add(words[4])
        self._spawn(self._tell(message))

    async def _tell(self, message: Candidate) -> None:
        """Signal an address; again, if the server was just lost, as when the network changes."""
        for _ in range(TELL_TIMES - 1):
            with contextlib.suppress(NetworkError):
                return await self._signal(message)
            if self.closed:
                return None
        return await self._signal(message)

    def _state_changed(self, state: Any) -> None:
        name = str(state).rpartition(".")[2]
        logger.debug("connection {} to {}: {}", self.attempt[-8:], self._peer, name)
        if name == "Connected":
            make_room()
            if self._pace is not None:
                # After a while without it may be another path: what was known of the line is not
                # of this one.
                self._pace = Pace()
            self._settle()
        elif name == "Disconnected":
            self._unsettled(True)
            if self._offer is not None and self._restart is None:
                self._restart = self._loop.call_later(RESTART_AFTER_S, self._look_again)
        elif name in ("Failed", "Closed"):
            self.abandon("the network path is gone")

    def _watch(self) -> None:
        """Look for another path as soon as this machine has lost an address.

        The library takes six seconds to miss the answers.
        """
        self._watching = self._loop.call_later(WATCH_S, self._watch)
        gone = {address for address in self._hosts if not is_here(address)}
        if gone:
            self._hosts -= gone
            self._look_again()

    async def _keep_pace(self) -> None:
        """Bound what is on its way, by what the library counts, until the connection ends."""
        try:
            await self._look_after()
        finally:
            # Nobody looks any more: whoever waits for that would wait for ever.
            self._pace = None
            self._paced.set()

    async def _look_after(self) -> None:
        while not self.closed:
            await self._sending.wait()
            stats = await self._count()
            pace = self._pace
            if stats is None or self._channel is None or pace is None:
                return
            waiting = self._buffered() + stats.unacked_chunks * CHUNK
            self._acknowledged = max(self._acknowledged, self._sent - waiting)
            pace.look(
                Look(
                    at=self._loop.time(),
                    arrived=self._acknowledged,
                    waiting=waiting,
                    round_trip_s=stats.smoothed_rtt_ms / 1000,
                    window=stats.congestion_window_bytes,
                    packets=stats.packets_sent,
                    again=stats.packets_retransmitted,
                )
            )
            self._paced.set()
            _replacing.brought(self._peer, self._acknowledged)
            if pace.crawls and _replacing.may(self._peer):
                # A new connection in its place is as quick as the line at once.
                self.abandon("it lost so much at once that it crawls")
            if not waiting:
                self._sending.clear()
                pace.pause()
            await asyncio.sleep(pace.every_s)

    def _settle(self) -> None:
        if self._watching is None and self._offer is not None:
            self._watch()
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
        description = await _answered(self._live().create_offer())
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
        except NetworkError as error:
            # The server may be out of reach as well, and comes back first.
            logger.debug("{} can't be asked for another path yet: {}", self._peer, error)
            if self._restart is None and not self.closed:
                self._restart = self._loop.call_later(RESTART_AFTER_S, self._look_again)
            return
        await self._set_local("offer", description.sdp)
