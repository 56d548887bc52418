"""Makes authenticated channels out of signaling messages: the one place that dials and answers.

A device has one switchboard. It is fed what the server relays to it, keeps the
connection attempts that are under way, and ends with :class:`Channel`s.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from loguru import logger

from sleap_rtc.auth.handshake import Authenticated
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import NotPermitted, ProtocolError, SleapRtcError
from sleap_rtc.protocol.handshake import Purpose
from sleap_rtc.protocol.peering import Decline, Offer, Peering, peering
from sleap_rtc.protocol.signaling import IceServer, Relayed
from sleap_rtc.transports.channel import Trust, authenticate
from sleap_rtc.transports.webrtc import WebRtc

OPEN_WITHIN_S: Final = 30.0
"""Seconds until a connection must be open; relayed ones over TCP take a few."""
MAX_ATTEMPTS: Final = 128
MAX_ATTEMPTS_OF_ONE: Final = 16
"""Attempts under way, in all and from one device: more are declined."""


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


Accept = Callable[[WebRtc, Authenticated], Awaitable[None]]
"""Takes a connection that a peer asked for, after its handshake; returns when it has ended."""


class Switchboard:
    """Dials peers and answers their calls.

    Args:
        relay: The way to the peers.
        trust: Gives the room's trust, or None for a room that this device isn't in.
        accept: Takes connections that peers ask for; None declines them all.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        trust: Callable[[RoomId], Trust | None],
        accept: Accept | None = None,
    ) -> None:
        self._relay = relay
        self._trust = trust
        self._accept = accept
        self._attempts: dict[str, tuple[str, WebRtc]] = {}
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
    ) -> tuple[WebRtc, Authenticated]:
        """Connect to a peer and prove both sides.

        Args:
            room: The room that both are in.
            to: The server's id of the peer's connection.
            device: The device that must be there.
            name: Names the peer in errors.
            session: The link's id.
            purpose: What the connection is for.

        Raises:
            PeerUnreachable: No connection came about.
            NotPermitted: One side doesn't trust the other.
            NetworkError: The server or the connection was lost.
        """
        trust = self._trust(room)
        if trust is None:
            raise NotPermitted(message="This device is not in that room.")
        attempt = str(uuid.uuid4())
        connection = self._make(attempt, room=room, to=to, name=name)
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
            )
        except BaseException:
            connection.abandon("not connected")
            self._attempts.pop(attempt, None)
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
        if known is not None and known[0] == relayed.sender:
            if not known[1].closed:
                self._spawn(self._pass_on(known[1], message))
        elif isinstance(message, Offer) and not message.restart and known is None:
            self._answer(relayed, message)

    async def close(self) -> None:
        """End every attempt and connection."""
        for _, connection in list(self._attempts.values()):
            connection.abandon("this side ends")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make(self, attempt: str, *, room: RoomId, to: str, name: str) -> WebRtc:
        self._forget_closed()

        async def signal(message: Peering) -> None:
            await self._relay.relay(room, to, peering.encode(message).decode())

        connection = WebRtc(
            attempt=attempt, peer=name, signal=signal, ice_servers=self._relay.ice_servers
        )
        self._attempts[attempt] = (to, connection)
        return connection

    def _forget_closed(self) -> None:
        for attempt, (_, connection) in list(self._attempts.items()):
            if connection.closed:
                del self._attempts[attempt]

    def _answer(self, relayed: Relayed, offer: Offer) -> None:
        self._forget_closed()
        trust = self._trust(relayed.room)
        of_one = sum(sender == relayed.sender for sender, _ in self._attempts.values())
        if self._accept is None or trust is None:
            self._spawn(self._decline(relayed, offer, "not_permitted", "it takes no connections"))
        elif len(self._attempts) >= MAX_ATTEMPTS or of_one >= MAX_ATTEMPTS_OF_ONE:
            self._spawn(self._decline(relayed, offer, "busy", "too many connections at a time"))
        else:
            name = f"device {relayed.device[:12]}"
            connection = self._make(offer.attempt, room=relayed.room, to=relayed.sender, name=name)
            self._spawn(self._take(connection, offer, trust, relayed.device, self._accept))

    async def _take(
        self, connection: WebRtc, offer: Offer, trust: Trust, device: DeviceId, accept: Accept
    ) -> None:
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

    async def _pass_on(self, connection: WebRtc, message: Peering) -> None:
        try:
            await connection.handle(message)
        except SleapRtcError as error:
            logger.warning("{}", error)
            connection.abandon(error.message)
        except Exception:  # noqa: BLE001 - whatever a peer says must only end its own connection
            logger.exception("a message about connection {} failed", message.attempt[-8:])
            connection.abandon("this side failed; its log says why")

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
