"""Making the links of a chain: a room, an invite, a joined device, a grant.

Whatever is made here is checked by the rules that the other side will check it
by (``auth/certificates.py``) before it is handed out.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sleap_rtc.auth.certificates import (
    INVITE_LIFETIME,
    LIFETIME,
    MAX_USES,
    Certificate,
    Grant,
    InviteCertificate,
    JoinCertificate,
    OwnerCertificate,
    verify_chain,
    verify_invite,
)
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import seal
from sleap_rtc.domain.ids import DeviceId, RoomId, room_id_of
from sleap_rtc.domain.places import Role, check_name
from sleap_rtc.protocol.signed import Chain, Signed


def make_room(room_key: SigningKey, device: DeviceId, *, name: str, now: datetime) -> Chain:
    """The chain of an owner's device, from the room's key; also renews it.

    Args:
        room_key: The room's key; the room's id is the hash of its public half.
        device: The device that becomes an owner, or stays one.
        name: What it is called in the room.
        now: UTC.

    Raises:
        InvalidName: The name isn't one.
    """
    certificate = OwnerCertificate(
        room=room_id_of(room_key.public),
        issued=_whole_second(now),
        expires=_whole_second(now) + LIFETIME,
        device=device,
        name=check_name("device", name),
    )
    return (_seal(room_key, certificate),)


def invite(
    signer: SigningKey,
    chain: Chain,
    *,
    room: RoomId,
    invite_key: DeviceId,
    role: Role,
    now: datetime,
    uses: int = 1,
    lasts: timedelta = INVITE_LIFETIME,
) -> Chain:
    """The chain that ends in an invite.

    Args:
        signer: The owner's device, or the room's key.
        chain: The signer's own; empty for the room's key.
        room: The room.
        invite_key: Public half of the one-time key.
        role: ``owner`` only if the room's key signs.
        now: UTC.
        uses: 1 to 1,000.
        lasts: More than nothing, at most 30 days.

    Raises:
        NotTrusted: The signer may not make this invite.
        ValueError: ``uses`` or ``lasts`` is out of range.
    """
    if not 1 <= uses <= MAX_USES or not timedelta(0) < lasts <= LIFETIME:
        raise ValueError("an invite has 1 to 1,000 uses and lasts at most 30 days")
    certificate = InviteCertificate(
        room=room,
        issued=_whole_second(now),
        expires=_whole_second(now) + lasts,
        invite=invite_key,
        role=role,
        uses=uses,
    )
    made = (*chain, _seal(signer, certificate))
    verify_invite(made, room=room, now=now, who="This invite")
    return made


def join(
    invite_secret: SigningKey, chain: Chain, *, device: DeviceId, name: str, now: datetime
) -> Chain:
    """The chain of a device that joins by an invite.

    Args:
        invite_secret: The one-time key, from the link.
        chain: The chain that ends in the invite.
        device: The joining device.
        name: What it is called in the room.
        now: UTC.

    Raises:
        NotTrusted: The invite isn't this key's, or has ended.
        InvalidName: The name isn't one.
    """
    room = room_id_of(bytes.fromhex(chain[0].signer))
    certificate = JoinCertificate(
        room=room,
        issued=_whole_second(now),
        expires=_whole_second(now) + LIFETIME,
        device=device,
        name=check_name("device", name),
    )
    made = (*chain, _seal(invite_secret, certificate))
    verify_chain(made, room=room, now=now, who="This device")
    return made


def grant(
    owner: SigningKey,
    chain: Chain,
    *,
    room: RoomId,
    device: DeviceId,
    name: str,
    role: Role,
    now: datetime,
) -> Chain:
    """The chain of a device that an owner renews, or lets in without an invite.

    Args:
        owner: The owner's device.
        chain: The owner's own.
        room: The room.
        device: The device.
        name: What it is called in the room.
        role: Not ``owner``: that comes from the room's key.
        now: UTC.

    Raises:
        NotTrusted: The signer is no owner, or the role is ``owner``.
        InvalidName: The name isn't one.
    """
    certificate = Grant(
        room=room,
        issued=_whole_second(now),
        expires=_whole_second(now) + LIFETIME,
        device=device,
        name=check_name("device", name),
        role=role,
    )
    made = (*chain, _seal(owner, certificate))
    verify_chain(made, room=room, now=now, who="This grant")
    return made


def needs_renewal(expires: datetime, now: datetime) -> bool:
    """Whether more than half of a certificate's 30 days are over."""
    return expires - now < LIFETIME / 2


def _seal(key: SigningKey, certificate: Certificate) -> Signed:
    what = f"the {certificate.CONTEXT.rpartition('/')[2]} certificate"
    return seal(key, certificate.CONTEXT, certificate, what=what)


def _whole_second(now: datetime) -> datetime:
    return now.replace(microsecond=0)
