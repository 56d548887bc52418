"""What devices ask for: signing in, and each request of a session.

The functions here are what blocks (they read and write the store, and check
signatures), so the shell calls :func:`check_sign_in` and :func:`admit` in a
thread; presence is changed on the loop, where nothing runs in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from sleap_rtc.auth.certificates import LIFETIME, Member, verify_chain
from sleap_rtc.auth.keys import verify
from sleap_rtc.auth.membership import Membership, check_member
from sleap_rtc.auth.signed import chain_from_texts
from sleap_rtc.domain.ids import DeviceId, RoomId, room_id_of
from sleap_rtc.domain.places import MAY_WORK, DeviceKind, check_name
from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import NotPermitted, NotSignedIn, NotTrusted
from sleap_rtc.protocol.signaling import (
    SIGN_IN_CONTEXT,
    ChainTold,
    CreateRoom,
    EnterRoom,
    GetChain,
    GetMembers,
    JoinRoom,
    KeptMember,
    MembersTold,
    PutChain,
    PutMembership,
    SignIn,
    sign_in_payload,
)
from sleap_rtc.protocol.signed import SignedMembership
from sleap_rtc.server.store import Account, Due, Store

Clock = Callable[[], datetime]

GRACE: Final = timedelta(days=30)
"""Certificates that ended not longer ago can still be renewed."""
STILL_THERE: Final = timedelta(days=90)
"""Members who were not there for longer are not renewed."""
MAX_TOLD: Final = 32
MAX_TOLD_BYTES: Final = 40 * 1024
"""Members in one answer, and bytes of their chains; the rest is asked for."""


class SignInResult(Account, frozen=True):
    """A device that has proven itself.

    Attributes:
        dialled: The address of the server that it dialled.
    """

    dialled: str


class Desk:
    """Checks what devices ask for, and keeps what comes of it.

    Args:
        store: The server's.
        now: The clock, UTC.
    """

    def __init__(self, store: Store, now: Clock) -> None:
        self._store, self._now = store, now

    def check_sign_in(
        self, sign_in: SignIn, nonce: str, *, addresses: Sequence[str], host: str
    ) -> SignInResult:
        """Check who signs in, and register the device if it may.

        Args:
            sign_in: As it came.
            nonce: This connection's challenge.
            addresses: Every ``host:port`` that this server answers to, on this connection.
            host: What the device's request named as its host; only for the error.

        Raises:
            NotTrusted: The signature is wrong, or over another server's address.
            NotSignedIn: The device has no account, and brought nothing to get one.
            NotPermitted: The set-up code is no good.
        """
        check_name("device", sign_in.name)
        dialled = self._check_signature(sign_in, nonce, addresses=addresses, host=host)
        account = self._account(sign_in, dialled)
        self._store.saw(sign_in.device, name=sign_in.name, program=sign_in.program, now=self._now())
        return SignInResult(
            device=account.device, may_create_rooms=account.may_create_rooms, dialled=dialled
        )

    def _check_signature(
        self, sign_in: SignIn, nonce: str, *, addresses: Sequence[str], host: str
    ) -> str:
        wrong = NotTrusted(who="This device", why="there is no address to check")
        for address in addresses:
            payload = sign_in_payload(nonce=nonce, server=address, device=sign_in.device)
            try:
                verify(
                    sign_in.device,
                    SIGN_IN_CONTEXT,
                    payload,
                    bytes.fromhex(sign_in.signature),
                    who="This device",
                    why="its signature is wrong",
                )
            except NotTrusted as error:
                wrong = error
            else:
                return address
        if host not in addresses:
            raise NotTrusted(
                who="This device",
                why=f"it dialled {host or 'an unnamed host'}, and this server answers to "
                f"{', '.join(addresses)}",
                hint="Use one of these addresses, or start the server with --public-url "
                "and the address that devices use.",
            )
        raise wrong

    def _account(self, sign_in: SignIn, dialled: str) -> Account:
        device = sign_in.device
        if sign_in.setup_code is not None:
            return self._store.register_by_code(
                device,
                code=sign_in.setup_code,
                name=sign_in.name,
                program=sign_in.program,
                now=self._now(),
            )
        if sign_in.invite is not None:
            chain = chain_from_texts(sign_in.invite)
            room = room_id_of(bytes.fromhex(chain[0].signer))
            self.admit(device, room, sign_in.invite, program=sign_in.program)
        account = self._store.account(device)
        if account is None:
            raise NotSignedIn(server=dialled)
        return account

    def admit(
        self, device: DeviceId, room: RoomId, chain: Sequence[str], *, program: str = ""
    ) -> Member:
        """Check that a device is a member of a room, counting its invite's use.

        Raises:
            NotTrusted: Its chain doesn't say so, its invite is used up, or it was removed.
            NotFound: The server doesn't know the room.
        """
        member, membership = self._admit(device, room, chain, program=program)
        return check_member(member, membership)

    def create_room(self, device: DeviceId, request: CreateRoom) -> None:
        """Make a room known.

        Raises:
            NotPermitted: The device never showed a set-up code, or is no owner of the room.
            NotTrusted: The chain is no good.
            InvalidName: The name isn't one.
        """
        check_name("room", request.name)
        account = self._store.account(device)
        if account is None or not account.may_create_rooms:
            raise NotPermitted(
                message="This device may not create rooms on this server.",
                hint="Sign in once with a set-up code: sleap-rtc login SERVER",
            )
        member = self._verified(device, request.room, request.chain)
        if member.role != "owner":
            raise NotPermitted(message="Only an owner of a room can make it known to a server.")
        self._store.create_room(member, name=request.name, now=self._now())

    def join_room(self, device: DeviceId, request: JoinRoom) -> None:
        """Use an invite.

        Raises:
            NotTrusted: The chain is no good, or the invite is used up.
            NotFound: The server doesn't know the room.
        """
        self.admit(device, request.room, request.chain)

    def room_name(self, room: RoomId) -> str:
        """What a room is called.

        Raises:
            NotFound: The server doesn't know the room.
        """
        return self._store.room_name(room)

    def check_entry(self, device: DeviceId, request: EnterRoom) -> Member:
        """Check that a device may be online in a room as what it says.

        Returns:
            Whom its chain proves, before any list is asked.

        Raises:
            NotTrusted: It is no member.
            NotPermitted: Its role doesn't let it work there.
            NotFound: The server doesn't know the room.
            InvalidName: The name isn't one.
        """
        check_name(request.kind, request.name)
        member, membership = self._admit(device, request.room, request.chain)
        check_kind(check_member(member, membership), request.kind)
        return member

    def put_membership(self, device: DeviceId, request: PutMembership) -> Membership | None:
        """Keep a membership list.

        Returns:
            The list, if it is a newer one than was kept.

        Raises:
            NotTrusted: No owner signed it, or a newer one is kept.
            DataError: It is no membership list.
            NotFound: The server doesn't know the room.
        """
        offered = decode(
            SignedMembership, request.signed.encode("utf-8"), what="the membership list"
        )
        kept = self._store.put_membership(request.room, offered, device=device, now=self._now())
        return kept if kept.signed is offered else None

    def membership(self, room: RoomId) -> str | None:
        """The newest list that is kept, None where there is none yet."""
        return self._store.membership_text(room)

    def members(self, asker: Member, request: GetMembers) -> MembersTold:
        """The members of a room, for one of its owners.

        Raises:
            NotPermitted: The asker is no owner.
        """
        now = self._now()
        if check_member(asker, self._store.membership(request.room)).role != "owner":
            raise NotPermitted(message="Only owners of a room are told its members.")
        due = Due(
            ends_after=(now - GRACE).timestamp(),
            ends_before=(now + LIFETIME / 2).timestamp(),
            seen_after=(now - STILL_THERE).timestamp(),
        )
        found = self._store.members(
            request.room, after=request.after, due=due if request.due else None, limit=MAX_TOLD + 1
        )
        told: list[KeptMember] = []
        size = 0
        for kept in found[:MAX_TOLD]:
            size += len(encode(kept))
            if told and size > MAX_TOLD_BYTES:
                break
            told.append(kept)
        return MembersTold(id=request.id, members=tuple(told), more=len(told) < len(found))

    def keep_chain(self, device: DeviceId, request: PutChain) -> None:
        """Keep a member's renewed certificates.

        Raises:
            NotTrusted: The chain is no good, or proves nobody who is a member.
            NotFound: The server doesn't know the room.
        """
        now = self._now()
        chain = chain_from_texts(request.chain)
        member = verify_chain(chain, room=request.room, now=now, who="The member")
        self._store.keep_chain(member, request.chain, by=device, now=now)

    def chain(self, device: DeviceId, request: GetChain) -> ChainTold:
        """A device's own newest certificates."""
        return ChainTold(id=request.id, chain=self._store.chain(request.room, device))

    def member_of(self, device: DeviceId, room: RoomId) -> Member:
        """A device as a member of a room, by the newest certificates that the server has of it.

        Raises:
            NotFound: The server doesn't know the room.
            NotTrusted: It never was in the room, its certificates have ended, or it was removed.
        """
        self._store.room_name(room)
        chain = self._store.chain(room, device)
        if chain is None:
            raise NotTrusted(
                who="This device",
                why=f"it has not been in room {room} at this server yet",
                hint="sleap-rtc room list shows this device's rooms.",
            )
        return check_member(self._verified(device, room, chain), self._store.membership(room))

    def _admit(
        self, device: DeviceId, room: RoomId, chain: Sequence[str], *, program: str = ""
    ) -> tuple[Member, Membership]:
        member = self._verified(device, room, chain)
        membership = self._store.admit(member, chain, program=program, now=self._now())
        return member, membership

    def _verified(self, device: DeviceId, room: RoomId, chain: Sequence[str]) -> Member:
        member = verify_chain(
            chain_from_texts(chain), room=room, now=self._now(), who="This device"
        )
        if member.device != device:
            raise NotTrusted(who="This device", why="its chain belongs to another device")
        return member


def check_kind(member: Member, kind: DeviceKind) -> None:
    """Check that a member may be in its room as what it says.

    Raises:
        NotPermitted: Its role doesn't let it work there.
    """
    if kind == "worker" and member.role not in MAY_WORK:
        raise NotPermitted(
            message=f"A {member.role} of a room can't be a worker in it.",
            hint="Ask an owner of the room for an invite with the role worker.",
        )
