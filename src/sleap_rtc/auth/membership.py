"""The membership list: what a room's owners say of its devices, numbered and signed.

A chain proves that somebody let a device in; the list says what holds now::

    device revoked                                      →  refused
    device listed                                       →  a member, with the role in the list
    neither, and a key that vouches for it is revoked,
    or an owner who vouches is listed as something less →  refused
    neither                                             →  a member, with the role in its chain

``owner`` is only for those whose chain says so too: it comes from the room's
key. A device that owners have listed stays when the invite it came by, or the
owner who let it in, is revoked.

Lists are numbered from 1. A device keeps the highest number it has seen and
never goes back; two lists with one number and different content mean that
owners wrote at the same time, or that somebody plays tricks: both are refused
after the first, and a person is told. Lists don't expire: what was revoked
stays revoked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from sleap_rtc.auth.certificates import SKEW, DeviceName, Member, verify_chain
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import open_signed, seal
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.models import Utc
from sleap_rtc.domain.places import Role
from sleap_rtc.domain.values import Document, Value, decode
from sleap_rtc.errors import NotTrusted
from sleap_rtc.protocol.signed import (
    MAX_PAYLOAD,
    NO_DIGEST,
    Chain,
    KeyId,
    RoomName,
    SignedMembership,
)

_WHAT: Final = "the membership list"


class ListedMember(Value, frozen=True):
    """One device in the list: its key, its name in the room, its role."""

    device: KeyId
    name: DeviceName
    role: Role


class MembershipList(Document, frozen=True):
    """What an owner signs.

    Attributes:
        room: The room.
        number: From 1; each list has a higher one than the list it replaces.
        issued: When it was signed, UTC.
        members: Devices and their roles. It needn't name everybody: a chain is enough.
        revoked: Keys that count no more, of devices and of invites.
    """

    CONTEXT: ClassVar[str] = "membership"

    room: RoomName
    number: Annotated[int, Meta(ge=1, lt=2**53)]
    issued: Utc
    members: Annotated[tuple[ListedMember, ...], Meta(max_length=1_000)] = ()
    revoked: Annotated[tuple[KeyId, ...], Meta(max_length=1_000)] = ()


class Membership(msgspec.Struct, frozen=True):
    """A list whose signature was checked, ready to be asked.

    Attributes:
        room: The room.
        number: 0 where there is no list yet.
        digest: SHA-256 of the signed bytes; zeros where there is no list yet.
        roles: Role by device, of those that the list names.
        revoked: Keys that count no more.
        signed: The list as it was signed, to pass it on; None where there is none yet.
    """

    room: RoomId
    number: int = 0
    digest: bytes = NO_DIGEST
    roles: dict[DeviceId, Role] = {}
    revoked: frozenset[DeviceId] = frozenset()
    signed: SignedMembership | None = None


def sign_membership(
    owner: SigningKey,
    chain: Chain,
    current: Membership,
    *,
    members: Iterable[ListedMember],
    revoked: Iterable[DeviceId],
    now: datetime,
) -> SignedMembership:
    """The next list.

    Args:
        owner: The device that signs; an owner.
        chain: Its own chain.
        current: The list that is replaced.
        members: Everybody whom the new list names.
        revoked: Every key that counts no more.
        now: UTC.

    Raises:
        NotTrusted: The signer is no owner (any more), or revokes itself.
        DataError: The list is too large to travel: about 250 devices and keys fit.
    """
    document = MembershipList(
        room=current.room,
        number=current.number + 1,
        issued=now.replace(microsecond=0),
        members=tuple(sorted(members, key=lambda member: member.device)),
        revoked=tuple(sorted(set(revoked))),
    )
    made = SignedMembership(
        signed=seal(owner, MembershipList.CONTEXT, document, what=_WHAT), chain=chain
    )
    adopt(current, made, room=current.room, now=now)
    return made


def open_membership(offered: SignedMembership, *, room: RoomId) -> Membership:
    """Check a list by itself: signed by someone who was an owner when it says it was signed.

    Raises:
        NotTrusted: It isn't, or it is another room's, or it contradicts itself.
        DataError: An owner signed something that is no membership list.
        NewerFormat: A later version's list.
    """
    return _open(offered, room)[0]


def listed(membership: Membership) -> tuple[ListedMember, ...]:
    """Everybody whom a list names, whose signature was checked before; nobody without a list."""
    if membership.signed is None:
        return ()
    payload = membership.signed.signed.payload
    return decode(MembershipList, payload, what=_WHAT, limit=MAX_PAYLOAD).members


def adopt(
    current: Membership, offered: SignedMembership, *, room: RoomId, now: datetime
) -> Membership:
    """Take over a list that somebody offers, if it is the newer one.

    Args:
        current: What this device holds; number 0 before the first list.
        offered: As it came, from anybody: what counts is who signed it.
        room: The room, the current list's too.
        now: UTC.

    Returns:
        The newer of both. The caller saves it before acting on it.

    Raises:
        NotTrusted: A lower number, the same number with other content, or not an owner's word.
        DataError: An owner signed something that is no membership list.
        NewerFormat: A later version's list.
    """
    membership, issued, signer = _open(offered, room)
    who = _name(membership)
    if membership.number < current.number:
        raise NotTrusted(
            who=who, why=f"list {current.number} is known here, and lists never go back"
        )
    compare(current, membership.number, membership.digest)
    if membership.number == current.number:
        return current
    if issued - now > SKEW:
        raise NotTrusted(
            who=who,
            why=f"it is dated {issued:%Y-%m-%d %H:%M} UTC, which is still to come",
            hint="Compare the clocks of both machines.",
        )
    if check_member(signer, current).role != "owner":
        raise NotTrusted(who=who, why="whoever signed it is no owner any more")
    return membership


def _open(offered: SignedMembership, room: RoomId) -> tuple[Membership, datetime, Member]:
    """The list, when it was signed, and by whom."""
    found = open_signed(
        offered.signed, MembershipList, MembershipList.CONTEXT, who=_WHAT.capitalize(), what=_WHAT
    )
    revoked = frozenset(found.revoked)
    membership = Membership(
        room=found.room,
        number=found.number,
        digest=hashlib.sha256(offered.signed.payload).digest(),
        roles={member.device: member.role for member in found.members},
        revoked=revoked,
        signed=offered,
    )
    who = _name(membership)
    if found.room != room:
        raise NotTrusted(who=who, why=f"room {room} was expected")
    signer = verify_chain(offered.chain, room=room, now=found.issued, who=f"The signer of {who}")
    if signer.device != offered.signed.signer or signer.role != "owner":
        raise NotTrusted(who=who, why="it wasn't signed by an owner")
    if len(membership.roles) != len(found.members) or revoked.intersection(membership.roles):
        raise NotTrusted(who=who, why="it names a device twice")
    if check_member(signer, membership).role != "owner":
        raise NotTrusted(who=who, why="it removes the owner who signed it")
    return membership, found.issued, signer


def _name(membership: Membership) -> str:
    return f"Membership list {membership.number} of room {membership.room}"


def compare(current: Membership, number: int, digest: bytes) -> None:
    """Report two different lists with one number.

    Raises:
        NotTrusted: The number is the current list's and the content isn't.
    """
    if number == current.number and digest != current.digest:
        raise NotTrusted(
            who=_name(current),
            why="there are two different lists with this number",
            hint="Two owners may have changed the room at the same moment: one of them makes "
            "the change again, which gives it the next number. If none did, somebody tampers.",
        )


def check_member(member: Member, membership: Membership) -> Member:
    """What a list makes of a device whose chain was verified.

    Args:
        member: From :func:`~sleap_rtc.auth.certificates.verify_chain`.
        membership: The newest list that this device holds.

    Returns:
        The member, with the role that holds now.

    Raises:
        NotTrusted: The device was removed, or nobody who counts vouches for it.
    """
    who = f"{member.name} ({member.device[:12]})"
    if member.device in membership.revoked:
        raise NotTrusted(who=who, why=f"it was removed from room {membership.room}")
    listed = membership.roles.get(member.device)
    if listed is not None:
        role = member.role if listed == "owner" else listed
        return msgspec.structs.replace(member, role=role)
    for key in member.through:
        if key in membership.revoked or membership.roles.get(key, "owner") != "owner":
            raise NotTrusted(
                who=who,
                why="the invite it came by, or the owner who let it in, counts no more",
                hint="Ask an owner of the room for a new invite.",
            )
    return member
