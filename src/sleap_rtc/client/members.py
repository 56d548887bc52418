"""Who is in a room that this device owns, and putting somebody out.

The server keeps the members' certificates, and each is checked here: whom it
makes up is not shown. Removing is a new membership list. It also closes an
invite by which the removed person could come back with another key, and names
those who would go with it, so that they stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from sleap_rtc.auth.certificates import Member, verify_chain
from sleap_rtc.auth.membership import (
    ListedMember,
    Membership,
    check_member,
    listed,
    open_membership,
    sign_membership,
)
from sleap_rtc.auth.signed import chain_from_texts
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.online import Online
from sleap_rtc.client.renewal import standing
from sleap_rtc.config import Settings
from sleap_rtc.domain.ids import DeviceId, fingerprint
from sleap_rtc.domain.places import Role
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import AmbiguousName, DataError, NotFound, NotPermitted, NotTrusted
from sleap_rtc.protocol.signaling import KeptMember

MIN_PREFIX: Final = 8
"""Digits of a device's key that name it."""


def _now() -> datetime:
    return datetime.now(UTC)


class RoomMember(msgspec.Struct, frozen=True):
    """A member of a room, as its certificates and the membership list say.

    Attributes:
        device: Its key.
        name: What it is called in the room: its own word.
        role: What it may do now.
        expires: When its certificates end, unless they are renewed; in the past if they have.
        seen: When it last entered the room, by the server's word.
        me: Whether it is this device.
        member: All that its certificates prove.
    """

    device: DeviceId
    name: str
    role: Role
    expires: datetime
    seen: datetime
    me: bool
    member: Member


async def members(
    settings: Settings, entry: RoomEntry, *, clock: Callable[[], datetime] = _now
) -> list[RoomMember]:
    """Everybody who is in a room, by name. Who was removed isn't.

    Raises:
        NotPermitted: This device is no owner of the room.
        NetworkError: The server can't be asked.
    """
    async with Online(settings, entry.server, clock=clock) as online:
        await online.enter(entry, name=settings.name, kind="client")
        return await _members(online, entry, clock())


async def remove(
    settings: Settings,
    entry: RoomEntry,
    name: str,
    *,
    clock: Callable[[], datetime] = _now,
) -> RoomMember:
    """Put a device out of a room; open connections to it end.

    Args:
        settings: This device's.
        entry: The room.
        name: The device's name in the room, or at least 8 digits of its key.
        clock: The present time, UTC.

    Returns:
        Who was removed.

    Raises:
        NotFound: There is no such member.
        AmbiguousName: Several are called so.
        NotPermitted: This device is no owner of the room, or would remove itself.
        NetworkError: The server can't be told.
    """
    store = DeviceStore(settings.home)
    async with Online(settings, entry.server, clock=clock) as online:
        await online.enter(entry, name=settings.name, kind="client")
        await online.newest_list(entry.room)
        everybody = await _members(online, entry, clock())
        found = _meant(name, everybody)
        if found.me:
            raise NotPermitted(message="This device can't remove itself; another owner can.")
        current = await asyncio.to_thread(store.membership, entry.room)
        stay, revoked = _without(found, everybody, current)
        signed = sign_membership(
            store.device_key(),
            store.room(entry.room).chain,
            current,
            members=stay,
            revoked=revoked,
            now=clock(),
        )
        newer = open_membership(signed, room=entry.room)
        await asyncio.to_thread(store.save_membership, newer)
        await online.signaling.put_membership(entry.room, encode(signed).decode("utf-8"))
    return found


def _without(
    found: RoomMember, everybody: list[RoomMember], current: Membership
) -> tuple[list[ListedMember], set[DeviceId]]:
    """The next list's members and revoked keys."""
    gone = {found.device}
    if found.member.invite is not None and found.member.uses > 1:
        gone.add(found.member.invite)  # whoever has the link could come back by it
    revoked = set(current.revoked) | gone
    stay = {each.device: each for each in listed(current) if each.device not in revoked}
    for one in everybody:
        if one.device not in revoked and revoked.intersection(one.member.through):
            stay.setdefault(
                one.device, ListedMember(device=one.device, name=one.name, role=one.role)
            )
    return list(stay.values()), revoked


async def _members(online: Online, entry: RoomEntry, now: datetime) -> list[RoomMember]:
    membership = await asyncio.to_thread(online.store.membership, entry.room)
    own = check_member(
        verify_chain(
            online.store.room(entry.room).chain, room=entry.room, now=now, who="This device"
        ),
        membership,
    )
    if own.role != "owner":
        raise NotPermitted(message=f"Only owners see and remove members; this is a {own.role}.")
    found: list[RoomMember] = []
    after: DeviceId | None = None
    while True:
        told = await online.signaling.get_members(entry.room, after=after)
        found += [m for kept in told.members if (m := _read(kept, entry, membership, own, now))]
        last = told.members[-1].device if told.members else None
        if not told.more or last is None or (after is not None and last <= after):
            return sorted(found, key=lambda each: (each.name.casefold(), each.device))
        after = last


def _read(
    kept: KeptMember, entry: RoomEntry, membership: Membership, own: Member, now: datetime
) -> RoomMember | None:
    try:
        member = standing(chain_from_texts(kept.chain), room=entry.room, now=now)
        role = check_member(member, membership).role
    except (NotTrusted, DataError):
        return None
    return RoomMember(
        device=member.device,
        name=member.name,
        role=role,
        expires=member.expires,
        seen=kept.seen,
        me=member.device == own.device,
        member=member,
    )


def _meant(name: str, everybody: list[RoomMember]) -> RoomMember:
    wanted = name.casefold()
    plain = wanted.replace(" ", "")
    found = [each for each in everybody if each.name.casefold() == wanted]
    if not found and len(plain) >= MIN_PREFIX:
        found = [each for each in everybody if each.device.startswith(plain)]
    if not found:
        raise NotFound(
            message=f"No member of the room is called {name!r}.",
            hint="sleap-rtc room members shows who there is.",
        )
    if len(found) > 1:
        keys = "; ".join(fingerprint(each.device) for each in found)
        raise AmbiguousName(name=name, candidates=keys, hint="Give the key, or its first digits.")
    return found[0]
