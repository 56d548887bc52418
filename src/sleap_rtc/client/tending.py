"""What a device does by itself for the rooms that it is online in: the newest list, everywhere.

A membership list comes from the server, when the room is entered and when there
is news, and from any peer in a handshake. Whoever carries it, it is checked in
the same way, kept, and then takes effect on open connections. A list that the
server lacks is given to it, and so to everybody else in the room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from loguru import logger

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.membership import Membership, adopt, check_member, open_membership
from sleap_rtc.auth.store import DeviceStore
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import NotPermitted, NotTrusted, SleapRtcError
from sleap_rtc.net.signaling import SignalingClient
from sleap_rtc.protocol.signed import SignedMembership


class Tending:
    """Looks after rooms.

    Args:
        store: The device's store.
        signaling: The signed-in connection to the server.
        clock: The present time, UTC.
    """

    def __init__(
        self, store: DeviceStore, signaling: SignalingClient, *, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._signaling = signaling
        self._clock = clock

    async def newest_list(self, room: RoomId) -> Membership | None:
        """Compare lists with the server, and give it this device's where that is the newer one.

        Returns:
            The server's list, where that is the newer one; it is kept already.
        """
        held = await asyncio.to_thread(self._store.membership, room)
        told = await self._signaling.get_membership(room)
        theirs = await self.take_list(room, told) if told is not None else None
        if theirs is None and held.signed is not None and told != encode(held.signed).decode():
            await self.pass_on(held)
        return theirs

    async def take_list(self, room: RoomId, signed: str) -> Membership | None:
        """Take a list that the server tells of, if it is newer than the one that is kept.

        Raises:
            NotTrusted: No owner signed it, or it contradicts the list that is kept.
            DataError: It is no list.
        """
        return await asyncio.to_thread(self._take_list, room, signed)

    def _take_list(self, room: RoomId, signed: str) -> Membership | None:
        offered = decode(SignedMembership, signed.encode("utf-8"), what="the membership list")
        held = self._store.membership(room)
        if open_membership(offered, room=room).number < held.number:
            return None
        newer = adopt(held, offered, room=room, now=self._clock())
        if newer.number == held.number:
            return None
        self._store.save_membership(newer)
        return newer

    async def pass_on(self, membership: Membership) -> None:
        """Give the server a list that it may not have."""
        assert membership.signed is not None  # noqa: S101 - number 0 is never passed on
        signed = encode(membership.signed).decode("utf-8")
        try:
            await self._signaling.put_membership(membership.room, signed)
        except SleapRtcError as error:
            logger.debug("membership list {} not passed on: {}", membership.number, error)

    def own_place(self, membership: Membership) -> SleapRtcError | None:
        """Why this device isn't in the room any more, by this list; None while it is."""
        try:
            entry = self._store.room(membership.room)
            own = verify_chain(entry.chain, room=entry.room, now=self._clock(), who="This device")
        except SleapRtcError:
            return None  # another matter, and said where it is met
        try:
            check_member(own, membership)
        except NotTrusted as error:
            return NotPermitted(
                message=f"This device was removed from room {entry.name}.", hint=error.message
            )
        return None
