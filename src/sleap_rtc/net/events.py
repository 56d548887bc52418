"""What a signaling client tells: how its connection fares, and what the server passes on."""

from __future__ import annotations

import msgspec

from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.places import Presence
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.protocol.signaling import Absent, IceServer, MembershipNews, Present, Relayed


class Connected(msgspec.Struct, frozen=True):
    """The device is signed in.

    Attributes:
        connection: The server's id of this connection; a new one each time.
        ice_servers: What the server tells to use.
        may_create_rooms: Whether the device once showed a set-up code.
    """

    connection: str
    ice_servers: tuple[IceServer, ...]
    may_create_rooms: bool


class Disconnected(msgspec.Struct, frozen=True):
    """The connection was lost; the device tries to come back by itself."""

    error: SleapRtcError


class RoomEntered(msgspec.Struct, frozen=True):
    """The device is online in a room, for the first time or again; so are these others."""

    room: RoomId
    present: tuple[Presence, ...]


class RoomLost(msgspec.Struct, frozen=True):
    """The device is no longer online in a room, and doesn't try to be."""

    room: RoomId
    error: SleapRtcError


Event = (
    Connected | Disconnected | RoomEntered | RoomLost | Present | Absent | Relayed | MembershipNews
)
