"""One room's trust, as a link needs it: what to bring to a handshake, what to keep from it."""

from __future__ import annotations

from collections.abc import Callable
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
        name: What this device is called there now; empty without a name.
        on_newer: Called with each newer membership list, once it is kept; from any thread.
    """

    def __init__(
        self,
        store: DeviceStore,
        room: RoomId,
        *,
        name: str = "",
        on_newer: Callable[[Membership], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._room = room
        self._name = name
        self._on_newer = on_newer

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
        expected_worker: str | None = None,
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
            name=self._name,
            expected_worker=expected_worker,
            known_worker=self._known(expected_worker),
        )

    def save_membership(self, membership: Membership) -> None:
        """Keep a newer list.

        Raises:
            NotTrusted: Another process has just kept a different list with this number.
        """
        self._store.save_membership(membership)
        self._on_newer(membership)

    def save_invite(self, invite: DeviceId, device: DeviceId) -> None:
        """Remember who joined by a single-use invite.

        Raises:
            NotTrusted: Another device was seen with it.
        """
        self._store.remember_invite(self._room, invite, device)

    def save_worker(self, name: str, device: DeviceId, *, instead_of: DeviceId | None) -> None:
        """Remember which device is the worker of this name.

        Raises:
            WorkerChanged: Another process has just met another one, under this name.
        """
        self._store.remember_worker(self._room, name, device, instead_of=instead_of)

    def _known(self, worker: str | None) -> DeviceId | None:
        return None if worker is None else self._store.known_worker(self._room, worker)
