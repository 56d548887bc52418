"""Keeping certificates fresh: this device's own, and, on an owner's device, those of the members.

::

    own, with the room's key        made anew, half-way to its end or after it
    own, without                    fetched from the server, where an owner has put it
    of members, as an owner         a grant for each that is due; the server keeps it for them

Nothing is taken on the server's word: a chain proves its device, or is refused,
whoever brings it, and who was removed by a membership list isn't renewed. A
member whose certificates have ended not long ago is renewed too: nobody removed
it, and it is the owner who was away.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.auth.certificates import Member, verify_chain
from sleap_rtc.auth.issue import grant, make_room, needs_renewal
from sleap_rtc.auth.membership import check_member
from sleap_rtc.auth.signed import chain_from_texts
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.errors import DataError, InvalidName, NotTrusted
from sleap_rtc.protocol.signed import Chain

_LOOK_BACK: Final = tuple(timedelta(days=days) for days in (0, 10, 20, 30))
"""When a chain must have been good for its device to be renewed: each lasts longer than a step."""
_WORTH: Final = timedelta(days=1)
"""A renewal that lasts only so much longer isn't made: the owner's own certificate ends soon."""


def renewed(store: DeviceStore, entry: RoomEntry, *, now: datetime) -> RoomEntry:
    """The room with a fresh certificate, where this device has the room's key and needs one."""
    key = store.room_key(entry.room)
    if key is None:
        return entry
    name = entry.name
    try:
        member = verify_chain(entry.chain, room=entry.room, now=now, who="This device")
    except NotTrusted:
        pass  # it ended while the device was away: the room's key makes a new one all the same
    else:
        if not needs_renewal(member.expires, now):
            return entry
        name = member.name
    chain = make_room(key, store.device_key().device, name=name, now=now)
    fresh = msgspec.structs.replace(entry, role="owner", chain=chain)
    store.save_room(fresh)
    return fresh


def is_due(entry: RoomEntry, *, now: datetime) -> bool:
    """Whether this device's own certificates want to be renewed, or have ended."""
    try:
        member = verify_chain(entry.chain, room=entry.room, now=now, who="This device")
    except NotTrusted:
        return True
    return needs_renewal(member.expires, now)


def adopted(
    store: DeviceStore, entry: RoomEntry, offered: Iterable[str], *, now: datetime
) -> RoomEntry:
    """The room with the certificates that the server has for this device, if they last longer.

    Args:
        store: This device's.
        entry: The room.
        offered: The chain as JSON texts, as the server told it.
        now: UTC.

    Raises:
        NotTrusted: The chain is no good, or is another device's.
        DataError: It is no chain.
    """
    chain = chain_from_texts(tuple(offered))
    member = verify_chain(chain, room=entry.room, now=now, who="What the server offers")
    if member.device != store.device_key().device:
        raise NotTrusted(who="What the server offers", why="it is another device's")
    try:
        held = verify_chain(entry.chain, room=entry.room, now=now, who="This device").expires
    except NotTrusted:
        held = now
    if member.expires <= held:
        return entry
    fresh = msgspec.structs.replace(entry, role=member.role, chain=chain)
    store.save_room(fresh)
    return fresh


def renewals(
    store: DeviceStore, entry: RoomEntry, due: Iterable[Iterable[str]], *, now: datetime
) -> list[Chain]:
    """New certificates for members that are due, made by this device, which is an owner.

    Args:
        store: This device's.
        entry: The room, with this device's own certificates.
        due: Chains of members as JSON texts, as the server told them.
        now: UTC.

    Returns:
        A chain for each that can be renewed; none where this device is no owner.
    """
    key, membership = store.device_key(), store.membership(entry.room)
    try:
        own = check_member(
            verify_chain(entry.chain, room=entry.room, now=now, who="This device"), membership
        )
    except NotTrusted:
        return []
    if own.role != "owner":
        return []
    made: list[Chain] = []
    for texts in due:
        try:
            member = check_member(
                standing(chain_from_texts(tuple(texts)), room=entry.room, now=now), membership
            )
            chain = _renew(store, entry, member, now) if member.device != key.device else None
        except (NotTrusted, DataError, InvalidName) as error:
            logger.debug("not renewed: {}", error)
            continue
        if chain is not None:
            made.append(chain)
    return made


def standing(chain: Chain, *, room: RoomId, now: datetime) -> Member:
    """Whom a chain proves, or did not long ago.

    Raises:
        NotTrusted: Nobody, for a month.
        DataError: It is no chain.
    """
    for back in _LOOK_BACK:
        try:
            return verify_chain(chain, room=room, now=now - back, who="A member")
        except NotTrusted as error:
            refused = error
    raise refused


def _renew(store: DeviceStore, entry: RoomEntry, member: Member, now: datetime) -> Chain | None:
    if not needs_renewal(member.expires, now):
        return None
    if member.role == "owner":
        room_key = store.room_key(entry.room)
        if room_key is None:
            return None  # only the room's key makes owners
        return make_room(room_key, member.device, name=member.name, now=now)
    chain = grant(
        store.device_key(),
        entry.chain,
        room=entry.room,
        device=member.device,
        name=member.name,
        role=member.role,
        now=now,
    )
    lasts = verify_chain(chain, room=entry.room, now=now, who="The renewed member").expires
    return chain if lasts - member.expires > _WORTH else None
