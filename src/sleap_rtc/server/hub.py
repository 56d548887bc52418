"""All connections of one server, who is online, and what they ask for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from loguru import logger

from sleap_rtc.auth.certificates import Member
from sleap_rtc.auth.membership import Membership
from sleap_rtc.config import Ice
from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.domain.places import Presence
from sleap_rtc.errors import NotPermitted, SleapRtcError, UsageError
from sleap_rtc.net.limits import SourceLimits
from sleap_rtc.protocol.signaling import (
    CreateRoom,
    Done,
    EnterRoom,
    FromServer,
    GetChain,
    GetMembers,
    GetMembership,
    IceServer,
    Joined,
    JoinRoom,
    LeaveRoom,
    MembershipNews,
    MembershipTold,
    PutChain,
    PutMembership,
    Refused,
    Relay,
    Request,
    UpdateWorker,
    from_server,
)
from sleap_rtc.server.addresses import Addresses, ice_servers
from sleap_rtc.server.limits import (
    CODE_BURST,
    CODE_RATE,
    DEVICES,
    MAX_CONNECTIONS,
    MESSAGE_BURST,
    MESSAGE_RATE,
    Pending,
)
from sleap_rtc.server.metrics import ServerMetrics
from sleap_rtc.server.requests import Desk
from sleap_rtc.server.rooms import Rooms, Tell, Visitor


class Outlet(Protocol):
    """Where messages for a connection go."""

    def post(self, text: str, *, asked: bool = False) -> None:
        """Send an encoded message, in order and without waiting.

        Args:
            text: The message.
            asked: Whether it answers what this connection asked, however long that is.
        """


class Hub:
    """Joins connections, presence and what is kept.

    Args:
        desk: Checks requests and keeps what comes of them.
        addresses: The server's own.
        metrics: What is counted.
        stun_port: UDP port of the STUN responder, 0 for none.
        ice: STUN and TURN servers that were configured.
        stopping: Whether the server is about to end.
    """

    def __init__(
        self,
        desk: Desk,
        addresses: Addresses,
        metrics: ServerMetrics,
        *,
        stun_port: int,
        ice: Iterable[Ice],
        stopping: Callable[[], bool],
    ) -> None:
        self.desk, self.addresses, self.metrics = desk, addresses, metrics
        self.pending = Pending()
        self.messages = SourceLimits(rate=MESSAGE_RATE, burst=MESSAGE_BURST, capacity=DEVICES)
        self.codes = SourceLimits(rate=CODE_RATE, burst=CODE_BURST)
        self._connections: Counter[DeviceId] = Counter()
        self.rooms = Rooms()
        self.stopping = stopping
        self._lists_changed = 0
        self._stun_port, self._ice = stun_port, tuple(ice)
        self._outlets: dict[str, Outlet] = {}
        metrics.watch_rooms(self.rooms.counts)
        metrics.signed_in.set_function(lambda: len(self._outlets))

    def ice_servers(self, dialled: str) -> tuple[IceServer, ...]:
        """What a device that dialled this address is told."""
        return ice_servers(self.addresses, dialled, stun_port=self._stun_port, configured=self._ice)

    def arrive(self, visitor: Visitor, outlet: Outlet) -> None:
        """A device has signed in.

        Raises:
            NotPermitted: It is signed in too often.
        """
        if self._connections[visitor.device] >= MAX_CONNECTIONS:
            raise NotPermitted(
                message=f"This device has {MAX_CONNECTIONS} connections to the server already.",
                hint="End some of the sleap-rtc commands that run there.",
            )
        self._connections[visitor.device] += 1
        self._outlets[visitor.connection] = outlet

    def depart(self, connection: str, device: DeviceId | None) -> None:
        """A connection is gone: the others in its rooms are told, unless all are going.

        Args:
            connection: Its id.
            device: Whose it was; None when it never signed in.
        """
        if self._outlets.pop(connection, None) is not None and device is not None:
            self._connections[device] -= 1
            if not self._connections[device]:
                del self._connections[device]
        tells = self.rooms.depart(connection)
        if not self.stopping():
            self.tell(tells)

    def tell(self, tells: Iterable[Tell], *, asked_by: str = "") -> None:
        """Send messages to whom they are for; who has gone meanwhile is passed over.

        Args:
            tells: The messages.
            asked_by: The connection whose question those for it answer.

        Raises:
            ValueError: A message is too large.
        """
        for tell in tells:
            text = from_server.encode(tell.message).decode("utf-8")
            for connection in tell.to:
                outlet = self._outlets.get(connection)
                if outlet is not None:
                    outlet.post(text, asked=connection == asked_by)

    async def perform(self, visitor: Visitor, request: Request) -> FromServer | None:
        """Do what a device asks.

        Returns:
            The answer; None where it was sent already, in order with what follows it.
        """
        kind = str(type(request).__struct_config__.tag)
        try:
            answer = await self._perform(visitor, request)
        except SleapRtcError as error:
            logger.debug("refused {}: {}", kind, error.message)
            self.metrics.requests.labels(kind=kind, outcome=error.code).inc()
            return Refused.because(error, request.id)
        except Exception:  # noqa: BLE001 - one request's failure must not end the connection
            logger.exception("failed at {}", kind)
            self.metrics.requests.labels(kind=kind, outcome="error").inc()
            failed = SleapRtcError(message="The server failed at this; its log says more.")
            return Refused.because(failed, request.id)
        self.metrics.requests.labels(kind=kind, outcome="ok").inc()
        return answer

    async def _perform(self, visitor: Visitor, request: Request) -> FromServer | None:
        me, device, rooms = visitor.connection, visitor.device, self.rooms
        match request:
            case CreateRoom():
                await asyncio.to_thread(self.desk.create_room, device, request)
                logger.info("created room {}", request.room)
            case JoinRoom():
                await asyncio.to_thread(self.desk.join_room, device, request)
                logger.info("joined room {}", request.room)
                name = await asyncio.to_thread(self.desk.room_name, request.room)
                return Joined(id=request.id, name=name)
            case EnterRoom():
                member = await self._entering(device, request)
                presence = _presence(visitor, request)
                tells = rooms.enter(visitor, presence, member=member, request=request.id)
                self.tell(tells, asked_by=me)
                logger.info("entered room {} as {} {}", request.room, request.kind, request.name)
                return None
            case LeaveRoom():
                self.tell(rooms.leave(me, request.room))
            case UpdateWorker():
                self.tell(rooms.update(me, request.room, request.worker))
            case Relay():
                self._relay(me, request)
            case PutMembership():
                newer = await asyncio.to_thread(self.desk.put_membership, device, request)
                if newer is not None:
                    self._take_list(me, request, newer)
            case GetMembership():
                rooms.presence(me, request.room)
                signed = await asyncio.to_thread(self.desk.membership, request.room)
                return MembershipTold(id=request.id, signed=signed)
            case GetMembers():
                asker = rooms.member(me, request.room)
                return await asyncio.to_thread(self.desk.members, asker, request)
            case PutChain():
                rooms.presence(me, request.room)
                await asyncio.to_thread(self.desk.keep_chain, device, request)
            case GetChain():
                return await asyncio.to_thread(self.desk.chain, device, request)
        return Done(id=request.id)

    def _take_list(self, me: str, request: PutMembership, newer: Membership) -> None:
        self._lists_changed += 1
        logger.info("membership list {} of room {}", newer.number, request.room)
        news = MembershipNews(room=request.room, signed=request.signed)
        # First to all, so that those who are put out learn why; whoever brought it has it.
        self.tell(self.rooms.announce(request.room, news, but=me))
        self.tell(self.rooms.evict(newer))

    async def _entering(self, device: DeviceId, request: EnterRoom) -> Member:
        """Who enters, by a list that no newer one has replaced meanwhile."""
        while True:
            seen = self._lists_changed
            member = await asyncio.to_thread(self.desk.check_entry, device, request)
            if seen == self._lists_changed:
                return member

    def _relay(self, me: str, request: Relay) -> None:
        tell = self.rooms.relay(me, request.room, request.to, request.payload)
        try:
            self.tell((tell,))
        except ValueError:
            raise UsageError(message="This is too large to be passed on in one message.") from None
        self.metrics.relayed_bytes.inc(len(request.payload))


def _presence(visitor: Visitor, request: EnterRoom) -> Presence:
    return Presence(
        device=visitor.device,
        connection=visitor.connection,
        room=request.room,
        name=request.name,
        kind=request.kind,
        worker=request.worker if request.kind == "worker" else None,
    )
