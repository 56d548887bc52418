"""What a device does by itself for its rooms: the newest list everywhere, and fresh certificates.

A membership list comes from the server, when the room is entered and when there
is news, and from any peer in a handshake. Whoever carries it, it is checked in
the same way, kept, and then takes effect on open connections. A list that the
server lacks is given to it, and so to everybody else in the room.

Certificates are renewed half-way to their end (``client/renewal.py``): one's own
before a room is entered and from time to time, and, on an owner's device, those
of the members, which the server keeps for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from loguru import logger

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.membership import Membership, adopt, check_member, open_membership
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.renewal import adopted, is_due, renewals, renewed
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import NotPermitted, NotTrusted, SleapRtcError
from sleap_rtc.net.signaling import SignalingClient
from sleap_rtc.protocol.signed import SignedMembership

TEND_EVERY_S: Final = 6 * 3600.0
"""Seconds between looks at the certificates of rooms that one is online in for long."""


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

    # ── certificates ─────────────────────────────────────────────────────────

    async def fresh(self, entry: RoomEntry) -> RoomEntry:
        """A room, with certificates that are good for long, where they can be had."""
        entry = await asyncio.to_thread(renewed, self._store, entry, now=self._clock())
        if not is_due(entry, now=self._clock()):
            return entry
        try:
            told = await self._signaling.get_chain(entry.room)
            if told is not None:
                return await asyncio.to_thread(adopted, self._store, entry, told, now=self._clock())
        except SleapRtcError as error:
            logger.bind(code=error.code).warning("certificates aren't renewed: {}", error)
        return entry

    async def renew(self, room: RoomId) -> int:
        """Renew what is due in a room that this device is online in.

        Returns:
            For how many members.
        """
        entry = self._store.room(room)
        fresh = await self.fresh(entry)
        if fresh != entry:
            self._signaling.replace_chain(room, chain_to_texts(fresh.chain))
        if fresh.role != "owner":
            return 0
        # Those that were made with the room's key, by this process or another, and its own.
        await self._signaling.put_chain(room, chain=chain_to_texts(fresh.chain))
        return await self._renew_members(fresh)

    async def _renew_members(self, entry: RoomEntry) -> int:
        number, after = 0, None
        while True:
            told = await self._signaling.get_members(entry.room, after=after, due=True)
            due = [kept.chain for kept in told.members]
            made = await asyncio.to_thread(renewals, self._store, entry, due, now=self._clock())
            for chain in made:
                await self._signaling.put_chain(entry.room, chain=chain_to_texts(chain))
            number += len(made)
            last = told.members[-1].device if told.members else None
            if not told.more or last is None or (after is not None and last <= after):
                break
            after = last
        if number:
            logger.info("certificates of {} members of room {} renewed", number, entry.name)
        return number

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
