"""Certificates, and the chain that leads from a room's key to a device.

::

    room key ──owner──► owner's device ──invite──► one-time key ──join──► device
       │                       └───────────────grant────────────────────► device
       └──invite──► one-time key ──join──► device (also one that becomes an owner)

========  ==================  =============  ==============================  ========
link      signed by           names          says                            at most
========  ==================  =============  ==============================  ========
owner     room key            a device       it is an owner                  30 days
invite    room key, an owner  one-time key   role, number of uses            30 days
join      the one-time key    a device       I have the secret of the link   30 days
grant     an owner            a device       role; renews without an invite  30 days
========  ==================  =============  ==============================  ========

Every link names the room, so that one that was signed for a room can't be used
in another of the same owner, and has a signature context of its own, so that
none can stand for another. The role ``owner`` comes from the room's key alone.
Dates are checked with an allowance of 5 minutes. A chain is good until the
first of its links ends; only the invite may have ended since, provided that the
join is dated within it.

What the lists of a room say on top of that (removed devices, changed roles) is
``auth/membership.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from sleap_rtc.auth.signed import open_signed
from sleap_rtc.domain.ids import DeviceId, RoomId, room_id_of
from sleap_rtc.domain.models import Utc
from sleap_rtc.domain.places import Role
from sleap_rtc.domain.values import Document
from sleap_rtc.errors import NotTrusted
from sleap_rtc.protocol.signed import MAX_CHAIN, Chain, KeyId, RoomName, Signed

LIFETIME: Final = timedelta(days=30)
"""How long a device is a member without being renewed; no certificate may say more."""
INVITE_LIFETIME: Final = timedelta(hours=24)
"""How long an invite can be used, unless whoever makes it says otherwise."""
SKEW: Final = timedelta(minutes=5)
"""How far two clocks may differ."""
MAX_USES: Final = 1_000
"""Devices that one invite can let in."""

DeviceName = Annotated[str, Meta(pattern=r"\A\w[\w.-]{0,63}\Z")]


class Certificate(Document, frozen=True):
    """What all links have in common.

    Attributes:
        room: The room it counts in.
        issued: When it was signed, by the signer's clock, UTC.
        expires: When it ends.
    """

    CONTEXT: ClassVar[str]

    room: RoomName
    issued: Utc
    expires: Utc


class OwnerCertificate(Certificate, frozen=True):
    """Room key → owner's device.

    Attributes:
        device: The owner's device.
        name: What the device is called in the room.
    """

    CONTEXT = "certificate/owner"

    device: KeyId
    name: DeviceName


class InviteCertificate(Certificate, frozen=True):
    """Owner → one-time key, whose secret half is in the invite link.

    Attributes:
        invite: The one-time key.
        role: What a device that joins by it may do.
        uses: How many devices may join by it.
    """

    CONTEXT = "certificate/invite"

    invite: KeyId
    role: Role
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)] = 1


class JoinCertificate(Certificate, frozen=True):
    """One-time key → device: made by the device itself, which had the link.

    Attributes:
        device: The device.
        name: What the device is called in the room.
    """

    CONTEXT = "certificate/join"

    device: KeyId
    name: DeviceName


class Grant(Certificate, frozen=True):
    """Owner → device: a renewal, which needs no invite any more.

    Attributes:
        device: The device.
        name: What the device is called in the room.
        role: What it may do; never ``owner``.
    """

    CONTEXT = "certificate/grant"

    device: KeyId
    name: DeviceName
    role: Role


class Member(msgspec.Struct, frozen=True):
    """Whom a chain proves.

    Attributes:
        room: The room.
        device: The device's public key.
        name: What it is called in the room.
        role: What it may do, as the chain says; a membership list may say otherwise.
        expires: When the first link of the chain ends, UTC.
        owner: The device that vouches for it; None when that is the room's key itself.
        invite: The one-time key that it joined by; None for an owner and after a grant.
        uses: How many devices that invite lets in; 0 without one.
        single_uses: (invite, device that joined by it) for each single-use invite of the chain.
        through: Every key of the chain between the room's and the device's own.
    """

    room: RoomId
    device: DeviceId
    name: str
    role: Role
    expires: datetime
    owner: DeviceId | None = None
    invite: DeviceId | None = None
    uses: int = 0
    single_uses: tuple[tuple[DeviceId, DeviceId], ...] = ()
    through: tuple[DeviceId, ...] = ()


class OpenInvite(msgspec.Struct, frozen=True):
    """What a chain that ends in an invite proves.

    Attributes:
        invite: The one-time key.
        role: What a device that joins by it may do.
        uses: How many devices may.
        expires: When it can't be used any more, UTC.
    """

    invite: DeviceId
    role: Role
    uses: int
    expires: datetime


_NEVER: Final = datetime.max.replace(tzinfo=UTC)

_Stage = Literal["room", "owner", "invite", "device"]

_FOLLOWS: Final[dict[_Stage, tuple[type[Certificate], ...]]] = {
    "room": (OwnerCertificate, InviteCertificate),
    "owner": (InviteCertificate, Grant),
    "invite": (JoinCertificate,),
    "device": (),
}
"""The one table of which certificate the holder of a chain's last key may have signed."""

C = TypeVar("C", bound=Certificate)


class _Walk(msgspec.Struct):
    """Where a walk along a chain stands: whose key comes next, and what it may do."""

    room: RoomId
    who: str
    key: DeviceId
    expires: datetime
    stage: _Stage = "room"
    role: Role = "owner"
    name: str = ""
    owner: DeviceId | None = None
    invite: InviteCertificate | None = None
    single_uses: tuple[tuple[DeviceId, DeviceId], ...] = ()
    passed: tuple[DeviceId, ...] = ()

    def open(self, link: Signed, kind: type[C]) -> C:
        """The certificate in a link, signed by whoever must have signed it, for this room."""
        what = f"its {kind.CONTEXT.rpartition('/')[2]} certificate"
        if link.signer != self.key:
            raise NotTrusted(who=self.who, why=f"{what} was signed by somebody else")
        found = open_signed(link, kind, kind.CONTEXT, who=self.who, what=what)
        if found.room != self.room:
            raise NotTrusted(who=self.who, why=f"{what} belongs to another room")
        if not timedelta(0) < found.expires - found.issued <= LIFETIME:
            raise NotTrusted(who=self.who, why=f"{what} claims to last longer than is allowed")
        return found

    def refuse(self, why: str) -> NotTrusted:
        return NotTrusted(who=self.who, why=why)


def verify_chain(chain: Chain, *, room: RoomId, now: datetime, who: str = "The device") -> Member:
    """Check a chain that ends in a device.

    Args:
        chain: As it came; its first link carries the room's public key.
        room: The room it must belong to.
        now: UTC.
        who: Names the one that isn't trusted when it fails.

    Returns:
        Whom it proves. That the device has the key is proven elsewhere: by a handshake or sign-in.

    Raises:
        NotTrusted: Any link is missing, wrong, of another kind, of another room, or out of date.
        DataError: A signer signed something that is no certificate.
        NewerFormat: A certificate of a later version.
    """
    walk = _follow(chain, room=room, now=now, who=who)
    if walk.stage not in ("owner", "device"):
        raise walk.refuse("its chain ends in an invite that it hasn't joined by")
    invite = walk.invite
    return Member(
        room=room,
        device=walk.key,
        name=walk.name,
        role=walk.role,
        expires=walk.expires,
        owner=walk.owner,
        invite=invite.invite if invite else None,
        uses=invite.uses if invite else 0,
        single_uses=walk.single_uses,
        through=walk.passed,
    )


def verify_invite(
    chain: Chain, *, room: RoomId, now: datetime, who: str = "The invite"
) -> OpenInvite:
    """Check a chain that ends in an invite, one that can be used now.

    Raises:
        NotTrusted: Any link is missing, wrong, of another kind, of another room, or out of date.
        DataError: A signer signed something that is no certificate.
        NewerFormat: A certificate of a later version.
    """
    walk = _follow(chain, room=room, now=now, who=who)
    if walk.stage != "invite" or walk.invite is None:
        raise walk.refuse("its chain doesn't end in an invite")
    _check_date(walk.invite, at=now, who=who, what="it")
    return OpenInvite(
        invite=walk.invite.invite,
        role=walk.invite.role,
        uses=walk.invite.uses,
        expires=walk.invite.expires,
    )


def _follow(chain: Chain, *, room: RoomId, now: datetime, who: str) -> _Walk:
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise NotTrusted(who=who, why=f"its chain has {len(chain)} links")
    root = chain[0].signer
    if room_id_of(bytes.fromhex(root)) != room:
        raise NotTrusted(who=who, why=f"its chain doesn't begin with the key of room {room}")
    walk = _Walk(room=room, who=who, key=root, expires=_NEVER)
    for link in chain:
        allowed = _FOLLOWS[walk.stage]
        kind = next((k for k in allowed if link.context == k.CONTEXT), None)
        if kind is None:
            raise walk.refuse(f"a link of the kind {link.context} has no place in its chain")
        certificate = walk.open(link, kind)
        match certificate:
            case InviteCertificate():
                _take_invite(walk, certificate)
            case JoinCertificate():
                _take_join(walk, certificate, now)
            case OwnerCertificate() | Grant():
                _take_device(walk, certificate, now)
    return walk


def _take_invite(walk: _Walk, found: InviteCertificate) -> None:
    if found.role == "owner" and walk.stage != "room":
        raise walk.refuse("only the room's own key can invite an owner")
    walk.owner = None if walk.stage == "room" else walk.key
    walk.invite, walk.role = found, found.role
    _step(walk, found.invite, "invite")


def _take_join(walk: _Walk, found: JoinCertificate, now: datetime) -> None:
    assert walk.invite is not None  # noqa: S101 - the stage says so
    _check_date(walk.invite, at=found.issued, who=walk.who, what="its invite")
    _check_date(found, at=now, who=walk.who, what="its join certificate")
    walk.expires, walk.name = min(walk.expires, found.expires), found.name
    if walk.invite.uses == 1:
        walk.single_uses = (*walk.single_uses, (walk.invite.invite, found.device))
    _step(walk, found.device, "owner" if walk.role == "owner" else "device")


def _take_device(walk: _Walk, found: OwnerCertificate | Grant, now: datetime) -> None:
    if isinstance(found, Grant):
        if found.role == "owner":
            raise walk.refuse("only the room's own key can make an owner")
        walk.role, walk.owner, walk.invite = found.role, walk.key, None
    what = "its grant" if isinstance(found, Grant) else "its owner certificate"
    _check_date(found, at=now, who=walk.who, what=what)
    walk.expires, walk.name = min(walk.expires, found.expires), found.name
    _step(walk, found.device, "device" if isinstance(found, Grant) else "owner")


def _step(walk: _Walk, key: DeviceId, stage: _Stage) -> None:
    if walk.stage != "room":
        walk.passed = (*walk.passed, walk.key)
    walk.key, walk.stage = key, stage


def _check_date(certificate: Certificate, *, at: datetime, who: str, what: str) -> None:
    # Differences, not sums: a date near the end of the calendar must not overflow.
    if certificate.issued - at > SKEW:
        raise NotTrusted(
            who=who,
            why=f"{what} is dated {certificate.issued:%Y-%m-%d %H:%M} UTC, which is still to come",
            hint="Compare the clocks of both machines.",
        )
    if at - certificate.expires > SKEW:
        raise NotTrusted(
            who=who,
            why=f"{what} ended on {certificate.expires:%Y-%m-%d %H:%M} UTC",
            hint="Ask an owner of the room for a new invite.",
        )
