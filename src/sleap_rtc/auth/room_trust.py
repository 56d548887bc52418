"""One room's trust, as a link needs it: what to bring to a handshake, what to keep from it."""

from __future__ import annotations

from datetime import datetime

from sleap_rtc.auth.handshake import Setup
from sleap_rtc.auth.membership import Membership
from sleap_rtc.auth.store import DeviceStore
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.protocol.handshake import Purpose, Side
from sleap_rtc.protocol.link import FEATURES, LINK_VERSIONS


class RoomTrust:
    """A room in a device's store.

    Everything is read anew for each handshake: another process of this device may have renewed
    the chain or met a newer list meanwhile.

    Args:
        store: The device's store.
        room: One of its rooms.
    """

    def __init__(self, store: DeviceStore, room: RoomId) -> None:
        self._store = store
        self._room = room

    def setup(
        self,
        *,
        side: Side,
        session: str,
        purpose: Purpose,
        nonce: bytes,
        own_fingerprint: bytes,
        peer_fingerprint: bytes,
        now: datetime,
        expected: DeviceId | None,
    ) -> Setup:
        """What to bring to a handshake; see :class:`~sleap_rtc.auth.handshake.Setup`.

        Raises:
            UnknownRoom: The device has left the room.
            NotPermitted: The device's key can't be used.
            DataError: A file of the store is damaged; it is named.
        """
        return Setup(
            key=self._store.device_key(),
            chain=self._store.room(self._room).chain,
            side=side,
            room=self._room,
            membership=self._store.membership(self._room),
            session=session,
            purpose=purpose,
            versions=LINK_VERSIONS,
            features=FEATURES,
            nonce=nonce,
            own_fingerprint=own_fingerprint,
            peer_fingerprint=peer_fingerprint,
            now=now,
            seen_invites=self._store.seen_invites(self._room),
            expected=expected,
        )

    def save_membership(self, membership: Membership) -> None:
        """Keep a newer list.

        Raises:
            NotTrusted: Another process has just kept a different list with this number.
        """
        self._store.save_membership(membership)

    def save_invite(self, invite: DeviceId, device: DeviceId) -> None:
        """Remember who joined by a single-use invite.

        Raises:
            NotTrusted: Another device was seen with it.
        """
        self._store.remember_invite(self._room, invite, device)
