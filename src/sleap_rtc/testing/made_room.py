"""A room with an owner, made of fixed keys at a fixed time, for tests of whatever trusts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from sleap_rtc.auth import issue
from sleap_rtc.auth.handshake import Setup
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.membership import ListedMember, Membership, open_membership, sign_membership
from sleap_rtc.domain.ids import DeviceId, RoomId, room_id_of
from sleap_rtc.domain.places import Role
from sleap_rtc.protocol.handshake import Side
from sleap_rtc.protocol.signed import Chain

NOON: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OFFERER_FINGERPRINT: Final = bytes([0xAA]) * 32
ANSWERER_FINGERPRINT: Final = bytes([0xBB]) * 32

_ONCE: Final = 100


class MadeRoom:
    """One room and its keys. Never for real use: the keys are known.

    Args:
        seed: 0 to 255; another one is another room with other people.
        now: When everything in it is made.

    Attributes:
        now: As given.
        room_key: The room's key.
        owner: The owner's device.
    """

    def __init__(self, seed: int = 0, *, now: datetime = NOON) -> None:
        self.now = now
        self._seed = seed
        self.room_key = self.key(1)
        self.owner = self.key(2)

    def key(self, number: int) -> SigningKey:
        """A key of this room's people, always the same for a number from 0 to 255."""
        return SigningKey.from_seed(bytes([self._seed, number]) * 16)

    @property
    def room(self) -> RoomId:
        """The room's id."""
        return room_id_of(self.room_key.public)

    @property
    def owner_chain(self) -> Chain:
        """The owner's own chain."""
        return issue.make_room(self.room_key, self.owner.device, name="laptop", now=self.now)

    def invited(self, once: int = _ONCE, *, role: Role = "worker", uses: int = 1) -> Chain:
        """A chain that ends in an invite; its one-time key is ``key(once)``."""
        return issue.invite(
            self.owner,
            self.owner_chain,
            room=self.room,
            invite_key=self.key(once).device,
            role=role,
            now=self.now,
            uses=uses,
        )

    def joined(
        self,
        device: SigningKey,
        once: int = _ONCE,
        *,
        role: Role = "worker",
        uses: int = 1,
        name: str = "gpu-1",
    ) -> Chain:
        """The chain of a device that joined by the invite ``key(once)``."""
        return issue.join(
            self.key(once),
            self.invited(once, role=role, uses=uses),
            device=device.device,
            name=name,
            now=self.now,
        )

    def no_list(self) -> Membership:
        """What a device holds before the first membership list."""
        return Membership(room=self.room)

    def next_list(
        self,
        current: Membership | None = None,
        *,
        members: Mapping[DeviceId, Role] | None = None,
        revoked: tuple[DeviceId, ...] = (),
    ) -> Membership:
        """The list after ``current``, signed by the owner."""
        signed = sign_membership(
            self.owner,
            self.owner_chain,
            current or self.no_list(),
            members=[
                ListedMember(device=device, name="listed", role=role)
                for device, role in (members or {}).items()
            ],
            revoked=revoked,
            now=self.now,
        )
        return open_membership(signed, room=self.room)

    def setup(self, key: SigningKey, chain: Chain, side: Side, /, **changes: Any) -> Setup:
        """What one side brings to a handshake; both sides' setups fit each other."""
        own, peer = OFFERER_FINGERPRINT, ANSWERER_FINGERPRINT
        if side == "answerer":
            own, peer = peer, own
        setup = Setup(
            key=key,
            chain=chain,
            side=side,
            room=self.room,
            membership=self.no_list(),
            session="session-1",
            purpose="control",
            versions=(1,),
            features=(),
            nonce=secrets.token_bytes(32),
            own_fingerprint=own,
            peer_fingerprint=peer,
            now=self.now,
        )
        return msgspec.structs.replace(setup, **changes)
