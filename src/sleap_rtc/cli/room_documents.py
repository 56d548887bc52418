"""What ``--json`` prints of ``login`` and ``room``; see ``documents.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sleap_rtc.cli.documents import Shown
from sleap_rtc.domain.places import Role


class LoginDocument(Shown, frozen=True):
    """``login``: where this device is signed in, under which key, and what it may."""

    server: str
    device: str
    may_create_rooms: bool


class RoomShown(Shown, frozen=True):
    """A room that this device is in.

    Attributes:
        room: Its id.
        name: What this device calls it.
        server: Its server's address.
        role: This device's role.
        expires_at: When this device's certificate ends; null once it has. An owner renews its own.
    """

    room: str
    name: str
    server: str
    role: Role
    expires_at: datetime | None


class RoomDocument(Shown, frozen=True):
    """``room join``."""

    room: RoomShown


class RoomCreatedDocument(Shown, frozen=True):
    """``room create``: the recovery code is a secret, and is shown this once."""

    room: RoomShown
    recovery_code: str


class RoomsDocument(Shown, frozen=True):
    """``room list``."""

    rooms: tuple[RoomShown, ...]


class InviteDocument(Shown, frozen=True):
    """``room invite``: whoever has the link can join, as often as ``uses`` and until it ends."""

    link: str
    room: str
    role: Role
    uses: int
    expires_at: datetime


class MemberShown(Shown, frozen=True):
    """A member of a room.

    Attributes:
        name: What it is called in the room.
        role: What it may do.
        device: Its key.
        expires_at: When its certificates end; an owner's device renews them before.
        seen_at: When it last entered the room.
        this_device: Whether it is this one.
    """

    name: str
    role: Role
    device: str
    expires_at: datetime
    seen_at: datetime
    this_device: bool


class MembersDocument(Shown, frozen=True):
    """``room members``."""

    room: str
    members: tuple[MemberShown, ...]


class MemberRemovedDocument(Shown, frozen=True):
    """``room remove``: who is no member any more."""

    room: str
    removed: MemberShown


ROOMS: Final[dict[str, type[Shown]]] = {
    "login": LoginDocument,
    "room-create": RoomCreatedDocument,
    "room-invite": InviteDocument,
    "room-join": RoomDocument,
    "room-list": RoomsDocument,
    "room-members": MembersDocument,
    "room-remove": MemberRemovedDocument,
}
"""Name of the schema's file → the document."""
