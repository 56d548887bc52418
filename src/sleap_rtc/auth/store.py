"""What a device keeps: its key, its rooms, the lists it has seen.

::

    <home>/
      devices/<host>/                     0700; a home may be shared by several hosts
        device.key                        0600  Ed25519, PKCS#8 PEM
        rooms/<room id>/
          room.json                       name, server, chain
          membership/00000007.json        the highest number counts
          invites/<one-time key>          the device that joined by that single-use invite
          workers/<hash of the name>.json the device that was met as the worker of that name
      rooms/<room id>.key                 0600  the room's key, only where its owner is

A chain is for one device's key and so belongs to a host. Everything is written
whole or not at all. What several processes may decide at once (the key, a
membership number, who used an invite) is decided by making a file that must not
exist yet, so no lock is needed and nothing goes back.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
from pathlib import Path
from typing import Annotated, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from msgspec import Meta

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.membership import Membership, compare, open_membership
from sleap_rtc.domain.ids import (
    DeviceId,
    RoomId,
    device_id,
    fingerprint,
    room_id,
    room_id_of,
)
from sleap_rtc.domain.places import Name, Role
from sleap_rtc.domain.values import Document, decode, encode, encode_pretty
from sleap_rtc.errors import (
    Damaged,
    DataError,
    InvalidName,
    NotPermitted,
    NotTrusted,
    UnknownRoom,
    WorkerChanged,
)
from sleap_rtc.files.durable import TEMPORARY, disk_errors, write_new, write_replacing
from sleap_rtc.protocol.signed import Chain, KeyId, RoomName, SignedMembership

_SECRET: Final = 0o600
_PRIVATE: Final = 0o700
_OTHERS: Final = 0o077
_MAX_KEY_FILE: Final = 4_096
_NUMBERED: Final = re.compile(r"[0-9]{8,16}\.json")


class RoomEntry(Document, frozen=True):
    """A room that this device belongs to.

    Attributes:
        room: Its id.
        name: Its name.
        server: The server's origin, ``https://host[:port]``.
        role: This device's role, as its chain said when it was saved: for showing.
        chain: Proves this device's place in it.
    """

    room: RoomName
    name: Name
    server: Annotated[str, Meta(max_length=300)]
    role: Role
    chain: Chain


class KnownWorker(Document, frozen=True):
    """A worker that this device has met: the name is its own from then on.

    Attributes:
        name: As it was typed; upper and lower case don't differ.
        device: Its key.
    """

    name: Name
    device: KeyId


class DeviceStore:
    """The files of one device.

    Args:
        home: sleap-rtc's directory, made when something is first kept in it.
        host: Names this machine among those that share the home; None asks the system.
    """

    def __init__(self, home: Path, *, host: str | None = None) -> None:
        self._home = home
        self._device = home / "devices" / host_directory(platform.node() if host is None else host)
        self._rooms = self._device / "rooms"
        self._room_keys = home / "rooms"

    # ── keys ─────────────────────────────────────────────────────────────────

    def device_key(self) -> SigningKey:
        """This device's key, made the first time.

        Raises:
            NotPermitted: Others may read the file, or this user may not.
            Damaged: It isn't a key.
            OutOfSpace: There is no room to make one.
            PathNotPermitted: This user may not write there.
        """
        path = self._device / "device.key"
        try:
            return _read_key(path)
        except FileNotFoundError:
            self._make_private(self._device)
            # Of several processes that start at once one makes it, and all read that one.
            write_new(path, _pem(SigningKey.generate()), mode=_SECRET)
            return _read_key(path)

    def room_key(self, room: RoomId) -> SigningKey | None:
        """The room's own key, or None where this isn't its owner's machine.

        Raises:
            NotPermitted: Others may read the file, or this user may not.
            Damaged: It isn't this room's key.
        """
        path = self._room_keys / f"{room_id(room)}.key"
        try:
            key = _read_key(path)
        except FileNotFoundError:
            return None
        if room_id_of(key.public) != room:
            raise Damaged(what=str(path), why="it is the key of another room")
        return key

    def save_room_key(self, key: SigningKey) -> None:
        """Keep the key of a room that was created, or recovered, here. Twice is once."""
        self._make_private(self._room_keys)
        write_new(self._room_keys / f"{room_id_of(key.public)}.key", _pem(key), mode=_SECRET)

    # ── rooms ────────────────────────────────────────────────────────────────

    def rooms(self) -> list[RoomEntry]:
        """Every room that this device belongs to, by name.

        Raises:
            DataError: A room's file is damaged; it is named.
        """
        if not self._rooms.is_dir():
            return []
        found = [
            self._read_room(path)
            for path in self._rooms.iterdir()
            if not path.name.startswith(TEMPORARY) and (path / "room.json").is_file()
        ]
        return sorted(found, key=lambda entry: (entry.name, entry.room))

    def room(self, name: str) -> RoomEntry:
        """A room by its id or its name.

        Raises:
            UnknownRoom: There is none of this name.
            InvalidName: The name fits several; their ids are named.
        """
        rooms = self.rooms()
        by_id = [entry for entry in rooms if entry.room == name]
        found = by_id or [entry for entry in rooms if entry.name == name]
        if not found:
            raise UnknownRoom(name=name)
        if len(found) > 1:
            ids = ", ".join(entry.room for entry in found)
            raise InvalidName(kind="room name", name=name, why=f"it fits several rooms: {ids}")
        return found[0]

    def save_room(self, entry: RoomEntry) -> None:
        """Keep a room, in place of what was known of it."""
        directory = self._rooms / room_id(entry.room)
        self._make_private(directory)
        write_replacing(directory / "room.json", encode_pretty(entry), mode=_SECRET)

    def forget_room(self, room: RoomId) -> None:
        """Leave a room. What was learnt about its members stays, should the device come back."""
        (self._rooms / room_id(room) / "room.json").unlink(missing_ok=True)

    def _read_room(self, directory: Path) -> RoomEntry:
        path = directory / "room.json"
        entry = decode(RoomEntry, path.read_bytes(), what=str(path))
        if entry.room != directory.name:
            raise Damaged(what=str(path), why="it describes another room")
        return entry

    # ── membership lists ─────────────────────────────────────────────────────

    def membership(self, room: RoomId) -> Membership:
        """The newest list that this device has seen; number 0 before the first.

        Raises:
            Damaged: The file is not what was saved. It is never passed over for an older one.
        """
        while True:
            path = max(self._lists(room), default=(0, None))[1]
            if path is None:
                return Membership(room=room)
            try:
                return self._read_list(path, room)
            except FileNotFoundError:
                continue  # another process has just put a newer one in its place

    def save_membership(self, membership: Membership) -> None:
        """Keep a list that was adopted; an older one than is known changes nothing.

        Raises:
            NotTrusted: Another process has just kept a different list with this number.
        """
        if membership.signed is None:
            return
        directory = self._rooms / room_id(membership.room) / "membership"
        self._make_private(directory)
        path = directory / f"{membership.number:08d}.json"
        held = self.membership(membership.room)
        if held.number < membership.number and not write_new(
            path, encode(membership.signed), mode=_SECRET
        ):
            held = self.membership(membership.room)
        compare(held, membership.number, membership.digest)
        for number, older in self._lists(membership.room):
            if number < membership.number:
                older.unlink(missing_ok=True)

    def _read_list(self, path: Path, room: RoomId) -> Membership:
        data = path.read_bytes()
        try:
            return open_membership(decode(SignedMembership, data, what=str(path)), room=room)
        except (DataError, NotTrusted) as error:
            raise Damaged(
                what=str(path),
                why=error.message,
                hint="Remove it: the list comes again from the server or the next device you meet.",
            ) from None

    def _lists(self, room: RoomId) -> list[tuple[int, Path]]:
        directory = self._rooms / room_id(room) / "membership"
        if not directory.is_dir():
            return []
        return [
            (int(path.stem), path)
            for path in directory.iterdir()
            if _NUMBERED.fullmatch(path.name) is not None
        ]

    # ── single-use invites ───────────────────────────────────────────────────

    def seen_invites(self, room: RoomId) -> dict[DeviceId, DeviceId]:
        """Single-use invites seen in this room, each with the device that joined by it."""
        directory = self._rooms / room_id(room) / "invites"
        if not directory.is_dir():
            return {}
        return {
            device_id(path.name): self._joined(path)
            for path in directory.iterdir()
            if not path.name.startswith(TEMPORARY)
        }

    def remember_invite(self, room: RoomId, invite: DeviceId, device: DeviceId) -> None:
        """Remember who joined by a single-use invite.

        Raises:
            NotTrusted: Another device was seen with it.
        """
        directory = self._rooms / room_id(room) / "invites"
        self._make_private(directory)
        path = directory / device_id(invite)
        if write_new(path, device.encode("ascii"), mode=_SECRET):
            return
        if self._joined(path) != device:
            raise NotTrusted(
                who=f"Device {device[:12]}",
                why="the invite it came by is for one device, and another one has used it",
                hint="Ask an owner of the room for a new invite.",
            )

    # ── workers that were met ────────────────────────────────────────────────

    def known_worker(self, room: RoomId, name: str) -> DeviceId | None:
        """The device that was met as the worker of this name; None before the first time.

        Raises:
            DataError: The file is damaged; it is named.
        """
        path = self._worker(room, name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        return decode(KnownWorker, data, what=str(path)).device

    def remember_worker(
        self, room: RoomId, name: str, device: DeviceId, *, instead_of: DeviceId | None = None
    ) -> None:
        """Remember which device is the worker of this name.

        Args:
            room: The room.
            name: The worker's name.
            device: The device.
            instead_of: The device that may lose the name by this.

        Raises:
            WorkerChanged: Another device was met under this name.
        """
        path = self._worker(room, name)
        self._make_private(path.parent)
        data = encode_pretty(KnownWorker(name=name, device=device))
        if write_new(path, data, mode=_SECRET):
            return
        held = self.known_worker(room, name)
        if held == device:
            return
        if held is not None and held != instead_of:
            raise WorkerChanged(name=name, before=fingerprint(held), now=fingerprint(device))
        write_replacing(path, data, mode=_SECRET)

    def _worker(self, room: RoomId, name: str) -> Path:
        # A name of 64 letters may have more bytes than a file's name holds.
        digest = hashlib.sha256(name.casefold().encode("utf-8")).hexdigest()[:32]
        return self._rooms / room_id(room) / "workers" / f"{digest}.json"

    def _make_private(self, directory: Path) -> None:
        """Make a directory in the home, and those between, for this user alone."""
        with disk_errors(directory):
            self._home.mkdir(parents=True, exist_ok=True)
            between = [p for p in directory.parents if p.is_relative_to(self._home)]
            for missing in (*reversed(between[:-1]), directory):
                missing.mkdir(mode=_PRIVATE, exist_ok=True)

    @staticmethod
    def _joined(path: Path) -> DeviceId:
        try:
            return device_id(path.read_text("ascii"))
        except (InvalidName, UnicodeDecodeError):
            raise Damaged(what=str(path), why="it doesn't name a device") from None


def host_directory(node: str) -> str:
    """The directory's name for a host: the first label of its name, in safe characters."""
    label = re.sub(r"[^a-z0-9-]", "-", node.partition(".")[0].lower())[:64].strip("-")
    return label or "localhost"


def _pem(key: SigningKey) -> bytes:
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_key(path: Path) -> SigningKey:
    try:
        file = path.open("rb")
    except PermissionError:
        raise NotPermitted(
            message=f"The key {path} cannot be read by this user.",
            hint=f"See whose it is: ls -l {path}",
        ) from None
    with file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS:
            raise NotPermitted(
                message=f"The key {path} can be read or changed by other users of this machine "
                f"(mode {mode:04o}), so it is not used.",
                hint=f"If nobody else can have read it: chmod 600 {path}",
            )
        data = file.read(_MAX_KEY_FILE)
    try:
        private = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise Damaged(
            what=str(path),
            why="it is not an Ed25519 key",
            hint="Bring it back from a backup. Without it this device needs a new invite.",
        )
    return SigningKey(private)
