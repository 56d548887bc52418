"""Signing in, and making, sharing and joining rooms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from sleap_rtc.auth.invites import create_invite, encode_link, parse_link, recovery_code
from sleap_rtc.auth.issue import make_room
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.online import Online
from sleap_rtc.client.renewal import renewed
from sleap_rtc.config import Settings
from sleap_rtc.domain.ids import DeviceId, room_id_of
from sleap_rtc.domain.places import Role, check_name
from sleap_rtc.errors import AlreadyExists, NotFound, NotPermitted, UsageError


class SignedIn(msgspec.Struct, frozen=True):
    """What a server says to a device that signs in.

    Attributes:
        server: Its address.
        device: This device.
        may_create_rooms: Whether it may; a device that came by an invite may not.
    """

    server: str
    device: str
    may_create_rooms: bool


class CreatedRoom(msgspec.Struct, frozen=True):
    """A new room. Its ``repr`` doesn't show the recovery code.

    Attributes:
        entry: The room.
        recovery: The room's secret, to be kept on paper: it makes any device an owner again.
    """

    entry: RoomEntry
    recovery: str

    def __repr__(self) -> str:
        return f"CreatedRoom(entry={self.entry!r})"


async def login(settings: Settings, server: str, *, code: str | None = None) -> SignedIn:
    """Sign in at a server, and register this device there with a set-up code.

    Raises:
        ServerUnreachable: No server there.
        NotSignedIn: The server doesn't know this device, and no code was given.
        NotPermitted: The code is wrong, used or too old.
    """
    async with Online(settings, server, setup_code=code) as online:
        connected = online.signaling.connected
        return SignedIn(
            server=online.signaling.server.url,
            device=online.store.device_key().device,
            may_create_rooms=connected is not None and connected.may_create_rooms,
        )


async def create_room(settings: Settings, name: str, *, server: str) -> CreatedRoom:
    """Make a room; this device becomes its owner.

    The room's key and this device's place in it are kept before the server hears of it.

    Raises:
        InvalidName: The name isn't one.
        AlreadyExists: This device is in a room of that name.
        NotPermitted: The server doesn't let this device make rooms.
    """
    check_name("room", name)
    store = DeviceStore(settings.home)
    if any(entry.name == name for entry in store.rooms()):
        hint = "Choose another name; sleap-rtc room list shows your rooms."
        raise AlreadyExists(what=f"A room {name!r} of this device", hint=hint)
    async with Online(settings, server) as online:
        connected = online.signaling.connected
        if connected is not None and not connected.may_create_rooms:
            raise NotPermitted(
                message="The server lets this device join rooms, not make them.",
                hint="sleap-rtc login SERVER --code CODE, with a set-up code from its admin.",
            )
        key = SigningKey.generate()
        room = room_id_of(key.public)
        device = store.device_key().device
        chain = make_room(key, device, name=settings.name, now=datetime.now(UTC))
        entry = RoomEntry(
            room=room, name=name, server=online.signaling.server.url, role="owner", chain=chain
        )
        store.save_room_key(key)
        store.save_room(entry)
        await online.signaling.create_room(room, name=name, chain=chain_to_texts(chain))
    return CreatedRoom(entry=entry, recovery=recovery_code(key))


def invite(settings: Settings, room: str, *, role: Role, uses: int = 1, hours: float = 24.0) -> str:
    """An invite link for a room that this device owns. Whoever has it can join.

    Raises:
        UnknownRoom: This device is in no such room.
        NotPermitted: It isn't an owner there.
        UsageError: The numbers are out of range.
    """
    store = DeviceStore(settings.home)
    entry = renewed(store, find_room(store, room), now=datetime.now(UTC))
    if entry.role != "owner":
        raise NotPermitted(message=f"Only owners invite; this device is a {entry.role}.")
    try:
        made = create_invite(
            store.device_key(),
            entry.chain,
            server=entry.server,
            room=entry.room,
            role=role,
            now=datetime.now(UTC),
            secret=SigningKey.generate(),
            uses=uses,
            lasts=timedelta(hours=hours),
        )
    except ValueError as error:
        raise UsageError(message=f"Such an invite can't be made: {error}.") from None
    return encode_link(made)


async def join(settings: Settings, link: str, *, name: str | None = None) -> RoomEntry:
    """Join a room by an invite link.

    Args:
        settings: This device's.
        link: The link.
        name: What the room is called on this device; by default as its owner called it.

    Raises:
        InvalidCode: The link isn't whole.
        NotTrusted: It has ended.
        NotPermitted: It was used before.
    """
    store = DeviceStore(settings.home)
    now = datetime.now(UTC)
    invite_, open_ = parse_link(link, now=now)
    chain = invite_.join(store.device_key().device, name=settings.name, now=now)
    texts = chain_to_texts(chain)
    async with Online(settings, invite_.server, invite=texts) as online:
        given = await online.signaling.join_room(invite_.room, chain=texts)
        entry = RoomEntry(
            room=invite_.room,
            name=name or given,
            server=online.signaling.server.url,
            role=open_.role,
            chain=chain,
        )
        store.save_room(entry)
    return entry


class AcceptedWorker(msgspec.Struct, frozen=True):
    """A worker's name, and the device that has it from now on.

    Attributes:
        name: The name.
        room: The room's name.
        device: The device that is online under this name.
        before: The device that was met under it before; None where there was none.
    """

    name: str
    room: str
    device: DeviceId
    before: DeviceId | None


async def accept_worker(settings: Settings, entry: RoomEntry, name: str) -> AcceptedWorker:
    """Take the device that is online under a worker's name for that worker from now on.

    What is taken is what the server says. Whoever answers has to prove that it is this device,
    and that it goes by this name, whenever a link is made.

    Raises:
        UnknownWorker: It isn't online.
    """
    async with Online(settings, entry.server) as online:
        await online.enter(entry, name=settings.name, kind="client")
        device = (await online.find_worker(entry, name)).device
    store = DeviceStore(settings.home)
    before = store.known_worker(entry.room, name)
    store.remember_worker(entry.room, name, device, instead_of=before)
    return AcceptedWorker(name=name, room=entry.name, device=device, before=before)


def find_room(store: DeviceStore, name: str | None) -> RoomEntry:
    """The room of this name or id; without a name the only one that there is.

    Raises:
        UnknownRoom: There is none of this name.
        NotFound: No room was named, and this device is in none.
        UsageError: There are several, and none was named.
    """
    if name is not None:
        return store.room(name)
    rooms = store.rooms()
    if not rooms:
        raise NotFound(
            message="This device is in no room.",
            hint="sleap-rtc room join LINK; or sleap-rtc login SERVER and room create NAME.",
        )
    if len(rooms) > 1:
        names = ", ".join(entry.name for entry in rooms)
        raise UsageError(message=f"Which room? This device is in {names}.", hint="Add --room NAME.")
    return rooms[0]
