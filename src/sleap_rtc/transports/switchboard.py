"""Makes authenticated channels out of signaling messages: the one place that dials and answers.

A device has one switchboard. It is fed what the server relays to it, keeps the
connections from their first message to their end, and so is also where a newer
membership list takes effect on those that are open: whoever is no member any
more is told so and cut off, and whoever has another role now connects anew.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final, Protocol

import msgspec
from loguru import logger

from sleap_rtc.auth.handshake import Authenticated
from sleap_rtc.auth.membership import Membership, check_member
from sleap_rtc.config import WebRtcLibrary
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import LinkLost, NotPermitted, NotTrusted, ProtocolError, SleapRtcError
from sleap_rtc.net.limits import SourceLimits
from sleap_rtc.protocol.handshake import MAX_REFUSAL, Purpose, Refusal, handshake_codec
from sleap_rtc.protocol.link import Bye, frames
from sleap_rtc.protocol.peering import Decline, Offer, Peering, peering
from sleap_rtc.protocol.signaling import IceServer, Relayed
from sleap_rtc.transports.channel import Trust, authenticate
from sleap_rtc.transports.direct.shortcut import Ways
from sleap_rtc.transports.peer import Peer, ended
from sleap_rtc.transports.shells import shell

OPEN_WITHIN_S: Final = 30.0
"""Seconds until a connection must be open; relayed ones over TCP take a few."""
MAX_ATTEMPTS: Final = 256
MAX_ATTEMPTS_OF_ONE: Final = 64
"""Connections under way or open, in all and of one device, however it is signed in: a machine
may follow a dozen jobs at a time, and have several connections for the content of some. More are
declined."""
STARTS_AT_ONCE: Final = 64
STARTS_PER_S: Final = 4.0
"""Connections that one device may begin, at once and in the long run: a link over a line that
breaks off again and again begins seventeen each time."""


class Relay(Protocol):
    """The way to the peers: the signed-in connection to the server."""

    async def relay(self, room: RoomId, to: str, payload: str) -> None:
        """Pass ``payload`` on to connection ``to``.

        Raises:
            NetworkError: The server is away.
            NotFound: The peer is.
        """
        ...

    @property
    def ice_servers(self) -> Sequence[IceServer]:
        """STUN and TURN servers to use."""
        ...


Accept = Callable[[Peer, Authenticated], Awaitable[None]]
"""Takes a connection that a peer asked for, after its handshake; returns when it has ended."""


class _Attempt(msgspec.Struct):
    """A connection, from its first message to its end."""

    room: RoomId
    peer: str
    device: DeviceId
    connection: Peer
    proven: Authenticated | None = None

    def speaks(self, relayed: Relayed, message: Peering) -> bool:
        """Whether a message is its peer's.

        A peer that comes to another network signs in anew, and goes on with what it has open.
        """
        if relayed.sender == self.peer:
            return True
        return relayed.device == self.device and not isinstance(message, Decline)


class Switchboard:
    """Dials peers and answers their calls.

    Args:
        relay: The way to the peers.
        trust: Gives the room's trust, or None for a room that this device isn't in.
        accept: Takes connections that peers ask for; None declines them all.
        library: Which library makes connections.
        ways: What this process does for direct connections; by default it makes none.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        trust: Callable[[RoomId], Trust | None],
        accept: Accept | None = None,
        library: WebRtcLibrary = "auto",
        ways: Ways | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ways = ways
        self._relay = relay
        self._trust = trust
        self._accept = accept
        self._library: WebRtcLibrary = library
        self._clock = clock
        self._attempts: dict[str, _Attempt] = {}
        self._starts = SourceLimits(rate=STARTS_PER_S, burst=STARTS_AT_ONCE)
        self._lists: dict[RoomId, Membership] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def dial(
        self,
        *,
        room: RoomId,
        to: str,
        device: DeviceId,
        name: str,
        session: str,
        purpose: Purpose,
        worker: str | None = None,
    ) -> tuple[Peer, Authenticated]:
        """Connect to a peer and prove both sides.

        Args:
            room: The room that both are in.
            to: The server's id of the peer's connection.
            device: The device that must be there.
            name: Names the peer in errors.
            session: The link's id.
            purpose: What the connection is for.
            worker: The worker's name that the peer must go by, and keep; None accepts any.

        Raises:
            PeerUnreachable: No connection came about.
            WorkerChanged: Another device had the worker's name before.
            NotPermitted: One side doesn't trust the other.
            NetworkError: The server or the connection was lost.
        """
        trust = self._trust(room)
        if trust is None:
            raise NotPermitted(message="This device is not in that room.")
        id_ = str(uuid.uuid4())
        attempt = self._make(id_, room=room, to=to, device=device, name=name)
        connection = attempt.connection
        try:
            await connection.offer(session=session, purpose=purpose)
            await connection.opened(within_s=OPEN_WITHIN_S)
            proven = await authenticate(
                connection,
                trust,
                side="offerer",
                session=session,
                purpose=purpose,
                expected=device,
                expected_worker=worker,
            )
            self._admit(attempt, proven)
        except BaseException:
            connection.abandon("not connected")
            self._attempts.pop(id_, None)
            raise
        return connection, proven

    def handle(self, relayed: Relayed) -> None:
        """Take what the server passed on. Never raises: whatever a stranger says is only logged."""
        who = f"device {relayed.device[:12]}"
        try:
            message = peering.decode(relayed.payload, peer=who)
        except ProtocolError as error:
            logger.warning("{}", error)
            return
        known = self._attempts.get(message.attempt)
        if known is not None and known.speaks(relayed, message):
            known.peer = relayed.sender
            if not known.connection.closed:
                self._spawn(self._pass_on(known.connection, message))
        elif isinstance(message, Offer) and not message.restart and known is None:
            self._answer(relayed, message)

    def apply(self, membership: Membership) -> None:
        """Let a membership list take effect on the connections of its room, if it is the newest.

        The shell has kept it before, so that those which come later are judged by it too.
        """
        held = self._lists.get(membership.room)
        if held is not None and membership.number <= held.number:
            return
        self._lists[membership.room] = membership
        for attempt in list(self._attempts.values()):
            if attempt.room == membership.room and attempt.proven is not None:
                self._judge(attempt, attempt.proven, membership)

    def leave(self, room: RoomId, why: SleapRtcError) -> None:
        """End every connection of a room: this device isn't in it any more."""
        for attempt in list(self._attempts.values()):
            if attempt.room == room:
                self._spawn(attempt.connection.end(why, frames.encode(Bye(reason=why.message))))

    async def close(self) -> None:
        """End every attempt and connection."""
        for attempt in list(self._attempts.values()):
            attempt.connection.abandon("this side ends")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await ended()

    # ── who may stay ─────────────────────────────────────────────────────────

    def _admit(self, attempt: _Attempt, proven: Authenticated) -> None:
        """Count a proven connection among those that a newer list ends.

        Raises:
            NotTrusted: A list that came during the handshake removes the peer.
        """
        newest = self._lists.get(attempt.room)
        if newest is not None and newest.number > proven.membership.number:
            check_member(proven.peer, newest)
        attempt.proven = proven

    def _judge(self, attempt: _Attempt, proven: Authenticated, membership: Membership) -> None:
        if attempt.connection.closed:
            return
        peer = proven.peer
        try:
            role = check_member(peer, membership).role
        except NotTrusted as error:
            logger.bind(code=error.code).warning("a connection ends: {}", error)
            refusal = Refusal(code=error.code, why=error.message[:MAX_REFUSAL])
            self._spawn(attempt.connection.end(error, handshake_codec.encode(refusal)))
            return
        if role != peer.role:
            why = f"{peer.name} is a {role} of the room now, no longer a {peer.role}"
            logger.info("a connection is made anew: {}", why)
            lost = LinkLost(peer=peer.name, why=why)
            self._spawn(attempt.connection.end(lost, frames.encode(Bye(reason=why))))

    # ── attempts ─────────────────────────────────────────────────────────────

    def _make(self, id_: str, *, room: RoomId, to: str, device: DeviceId, name: str) -> _Attempt:
        self._forget_closed()

        async def signal(message: Peering) -> None:
            await self._relay.relay(room, attempt.peer, peering.encode(message).decode())

        connection = shell(self._library)(
            attempt=id_, peer=name, signal=signal, ice_servers=self._relay.ice_servers
        )
        attempt = _Attempt(room=room, peer=to, device=device, connection=connection)
        self._attempts[id_] = attempt
        return attempt

    def _forget_closed(self) -> None:
        for id_, attempt in list(self._attempts.items()):
            if attempt.connection.closed:
                del self._attempts[id_]

    def _answer(self, relayed: Relayed, offer: Offer) -> None:
        self._forget_closed()
        trust = self._trust(relayed.room)
        if self._accept is None or trust is None:
            self._spawn(self._decline(relayed, offer, "not_permitted", "it takes no connections"))
        elif self._too_many(relayed.device):
            self._spawn(self._decline(relayed, offer, "busy", "too many connections at a time"))
        else:
            attempt = self._make(
                offer.attempt,
                room=relayed.room,
                to=relayed.sender,
                device=relayed.device,
                name=f"device {relayed.device[:12]}",
            )
            self._spawn(self._take(attempt, offer, trust, self._accept))

    def _too_many(self, device: DeviceId) -> bool:
        of_one = sum(attempt.device == device for attempt in self._attempts.values())
        if len(self._attempts) >= MAX_ATTEMPTS or of_one >= MAX_ATTEMPTS_OF_ONE:
            return True
        return not self._starts.allow(device, self._clock())

    async def _take(self, attempt: _Attempt, offer: Offer, trust: Trust, accept: Accept) -> None:
        connection, device = attempt.connection, attempt.device
        try:
            await connection.handle(offer)
            await connection.opened(within_s=OPEN_WITHIN_S)
            proven = await authenticate(
                connection,
                trust,
                side="answerer",
                session=offer.session,
                purpose=offer.purpose,
                expected=device,
            )
            self._admit(attempt, proven)
            await accept(connection, proven)
        except SleapRtcError as error:
            logger.bind(code=error.code).warning(
                "a connection from device {} was refused: {}", device[:12], error
            )
            connection.abandon(error.message)
        except Exception:  # noqa: BLE001 - one that is left open would count as under way for ever
            logger.exception("a connection from device {} failed", device[:12])
            connection.abandon("this side failed; its log says why")

    async def _decline(self, relayed: Relayed, offer: Offer, code: str, why: str) -> None:
        message = peering.encode(Decline(attempt=offer.attempt, code=code, message=why))
        try:
            await self._relay.relay(relayed.room, relayed.sender, message.decode())
        except SleapRtcError as error:
            logger.debug("not declined: {}", error)

    async def _pass_on(self, connection: Peer, message: Peering) -> None:
        try:
            await connection.handle(message)
        except SleapRtcError as error:
            logger.warning("{}", error)
            connection.abandon(error.message)
        except Exception:  # noqa: BLE001 - whatever a peer says must only end its own connection
            logger.exception("a message about connection {} failed", message.attempt[-8:])
            connection.abandon("this side failed; its log says why")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
