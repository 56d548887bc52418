"""The portable shell: WebRTC by aiortc, in Python alone, extra ``peer-portable``.

For machines that the fast library has no build for, such as cluster nodes with
an old C library. It is about nine times slower, and differs in what shows:

* all candidates are found before the first is signaled, which takes up to five
  seconds where a STUN server doesn't answer;
* it can't look for another network path: a peer that asks for one is told so,
  and a silent connection ends, so that the link is built anew;
* of several STUN or TURN servers it uses the first of each that it understands;
* it has no threads, and closing takes a few turns of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from loguru import logger

from sleap_rtc.errors import ProtocolError, UsageError
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.handshake import Purpose
from sleap_rtc.protocol.peering import Candidate
from sleap_rtc.protocol.signaling import IceServer
from sleap_rtc.transports.connection import Arrived
from sleap_rtc.transports.peer import GONE_WITHIN_S, Kind, Peer

MOST_QUEUED: Final = 1024 * 1024
"""Bytes queued above which a sender of content waits; at this speed more would only wait."""
TICK_S: Final = 1.0
UNSETTLED_AFTER: Final = 4
"""Seconds without a sign of life after which the path counts as broken; both sides of a link
ping every second. They are counted in ticks: a pause of this process is no silence of the peer."""
LOST_AFTER: Final = 10
"""The same, until the connection ends."""
DRAIN_S: Final = 1.0
"""Seconds that closing waits for what is queued to arrive, asking every :data:`DRAIN_STEP_S`."""
DRAIN_STEP_S: Final = 0.01


@functools.cache
def library() -> Any:
    """The package ``aiortc``.

    Raises:
        UsageError: It isn't installed, or can't be loaded on this system.
    """
    try:
        import aiortc  # noqa: PLC0415
        import aiortc.exceptions  # noqa: PLC0415
        import aiortc.sdp  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            message=f"The WebRTC library aiortc can't be loaded ({error}).",
            hint="pip install 'sleap-rtc[peer-portable]'",
        ) from None
    return aiortc


class PortableWebRtc(Peer):
    """A connection made by aiortc; its arguments are those of :class:`Peer`."""

    most_queued: ClassVar[int] = MOST_QUEUED
    renews: ClassVar[bool] = False

    def __init__(self, **given: Any) -> None:
        self._gathering: asyncio.Future[None] | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._silence = 0
        self._heard: tuple[int | None, int, int] | None = None
        super().__init__(**given)

    # ── what a shell does ────────────────────────────────────────────────────

    def _make(self, ice_servers: Iterable[IceServer]) -> Any:
        rtc = library()
        # Without a list of servers it would ask a public one.
        servers = list(_understood(ice_servers))
        connection = rtc.RTCPeerConnection(rtc.RTCConfiguration(iceServers=servers))
        connection.on("connectionstatechange", self._state_changed)
        connection.on("datachannel", self._offered)
        return connection

    def _open_channel(self, purpose: Purpose) -> None:
        self._take_channel(self._live().createDataChannel(purpose))

    async def _create(self, kind: Kind) -> str:
        connection = self._live()
        if kind == "offer":
            description = await connection.createOffer()
        else:
            description = await connection.createAnswer()
        return _with_one_fingerprint(description.sdp)

    async def _set_local(self, kind: Kind, sdp: str) -> None:
        connection = self._live()
        description = library().RTCSessionDescription(sdp=sdp, type=kind)
        # Finished in any case, and waited for before the end: it opens sockets.
        self._gathering = asyncio.ensure_future(connection.setLocalDescription(description))
        self._gathering.add_done_callback(lambda f: f.cancelled() or f.exception())
        try:
            await asyncio.shield(self._gathering)
        except library().exceptions.InvalidStateError as error:
            self._live()
            raise ProtocolError(peer=self._peer, why=f"an odd order: {error}") from None
        if self.closed:
            return
        transport = connection.sctp.transport.transport
        for candidate in transport.iceGatherer.getLocalCandidates():
            text = f"candidate:{library().sdp.candidate_to_sdp(candidate)}"
            message = Candidate(
                attempt=self.attempt, candidate=text, mid=connection.sctp.mid, line=0
            )
            self._spawn(self._signal(message))

    async def _set_remote(self, kind: Kind, sdp: str) -> None:
        connection = self._live()
        rtc = library()
        sdp, candidates = _without_candidates(sdp)
        try:
            _check(rtc.sdp.SessionDescription.parse(sdp))
            description = rtc.RTCSessionDescription(sdp=sdp, type=kind)
            await connection.setRemoteDescription(description)
        except Exception as error:  # noqa: BLE001 - it is read by assertions and conversions
            self._live()
            raise ProtocolError(peer=self._peer, why=f"a bad description: {error!r}") from None
        for candidate in candidates:
            await self._add(Candidate(attempt=self.attempt, candidate=candidate))

    async def _add_remote(self, message: Candidate) -> None:
        text = message.candidate.removeprefix("candidate:")
        if not text:
            return
        connection = self._live()
        try:
            candidate = library().sdp.candidate_from_sdp(text)
            # Names aren't looked up: nothing is asked of anybody else because a peer says so.
            ipaddress.ip_address(candidate.ip)
        except AssertionError:
            raise ValueError("too short") from None
        if candidate.component != 1 or not 0 < candidate.port < 65_536:
            raise ValueError("an odd component or port")
        candidate.sdpMid, candidate.sdpMLineIndex = connection.sctp.mid, 0
        await connection.addIceCandidate(candidate)

    def _put(self, data: bytes, *, binary: bool) -> None:
        try:
            self._channel.send(data if binary else data.decode())
        except library().exceptions.InvalidStateError:
            raise RuntimeError("it is not open") from None

    def _buffered(self) -> int:
        return int(self._channel.bufferedAmount)

    def _mark(self, low: int) -> None:
        self._channel.bufferedAmountLowThreshold = low

    async def _drain(self) -> None:
        self._why = self._why or "closed"
        channel, transport = self._channel, self._connection.sctp
        end = self._loop.time() + DRAIN_S
        # The library tells the stream's end before it has sent everything, and a peer that lacks
        # some then is told again after a second only.
        while channel.bufferedAmount or transport._outbound_queue or transport._sent_queue:
            if self.closed or self._loop.time() >= end:
                return
            await asyncio.sleep(DRAIN_STEP_S)
        channel.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), GONE_WITHIN_S)

    def _shut(self, connection: Any, channel: Any) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        if not self._loop.is_closed():
            self._finish(self._hang_up(connection))

    async def _hang_up(self, connection: Any) -> None:
        if self._gathering is not None:
            await asyncio.wait([self._gathering])
        await connection.close()

    # ── from the library ─────────────────────────────────────────────────────

    def _state_changed(self) -> None:
        if self.closed:
            return
        state = self._connection.connectionState
        logger.debug("connection {} to {}: {}", self.attempt[-8:], self._peer, state)
        if state in ("failed", "closed"):
            self.abandon("the network path is gone")

    def _offered(self, channel: Any) -> None:
        if self.closed:
            return
        if self._channel is not None:
            self.abandon("it opened a second channel")
            return
        self._take_channel(channel)
        self._channel_opened()

    def _take_channel(self, channel: Any) -> None:
        self._took(channel, channel.label)
        channel.bufferedAmountLowThreshold = self._high // 4
        channel.on("bufferedamountlow", self._drained)
        channel.on("open", self._channel_opened)
        channel.on("close", self._channel_closed)
        channel.on("message", self._took_message)

    def _channel_opened(self) -> None:
        super()._channel_opened()
        if not self.closed and self._ticking is None:
            self._ticking = self._loop.call_later(TICK_S, self._tick)

    def _took_message(self, message: bytes | str) -> None:
        if self.closed:
            return
        binary = isinstance(message, bytes)
        data = message if isinstance(message, bytes) else message.encode()
        if len(data) > MAX_MESSAGE:
            self.abandon(f"a message of {len(data)} bytes")
            return
        self._arrived(Arrived(data, binary))
        self._had_arrived()
        self._lives()

    def _lives(self) -> None:
        if self._silence >= UNSETTLED_AFTER:
            self._unsettled(False)
        self._silence = 0

    def _tick(self) -> None:
        if self.closed:
            return
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        sctp = self._connection.sctp
        # A long message takes its time on a slow line: what has come of it, or was taken, is heard.
        # So is what comes behind a packet that was lost, and waits for that.
        behind = len(sctp._sack_misordered)
        heard = (sctp._last_received_tsn, behind, sctp._last_sacked_tsn)
        if heard != self._heard:
            self._heard = heard
            self._lives()
        self._silence += 1
        if self._silence == UNSETTLED_AFTER:
            self._unsettled(True)
        if self._silence >= LOST_AFTER:
            self.abandon(f"nothing came from it for {LOST_AFTER * TICK_S:g} s")
        # What the peer may send goes down to 0 while a message is incomplete. The library doesn't
        # hold it to that: one that never completes its message would fill the memory.
        elif sctp._advertised_rwnd < -MAX_MESSAGE:
            self.abandon("it sends more than it may")


def _understood(servers: Iterable[IceServer]) -> Iterable[Any]:
    """Those that the library can read; one that it can't would end everything."""
    rtc = library()
    from aiortc.rtcicetransport import parse_stun_turn_uri  # noqa: PLC0415 - behind the extra

    for server in servers:
        for url in server.urls:
            try:
                parse_stun_turn_uri(url)
            except ValueError:
                logger.debug("{} is not understood by the portable library", url)
                continue
            yield rtc.RTCIceServer(
                urls=[url], username=server.username, credential=server.credential
            )


def _with_one_fingerprint(sdp: str) -> str:
    """Without those by other hashes, which say the same of the same certificate."""
    lines = sdp.splitlines(keepends=True)
    other = ("a=fingerprint:sha-384 ", "a=fingerprint:sha-512 ")
    return "".join(line for line in lines if not line.startswith(other))


def _without_candidates(sdp: str) -> tuple[str, list[str]]:
    """The description alone, and its candidates, which are few enough or left out later."""
    kept, candidates = [], []
    for line in sdp.splitlines():
        if line.startswith("a=candidate:"):
            candidates.append(line.removeprefix("a="))
        # The last one is never waited for: others may be learned from what arrives.
        elif not line.startswith("a=end-of-candidates"):
            kept.append(line)
    return "\r\n".join(kept) + "\r\n", candidates


def _check(description: Any) -> None:
    """A description of one data channel's transport: media would start decoders.

    Raises:
        ValueError: It is another.
    """
    if [media.kind for media in description.media] != ["application"]:
        raise ValueError("not of data alone")
    port = description.media[0].sctp_port
    if not isinstance(port, int) or not 0 < port < 65_536:
        raise ValueError("without a port")
