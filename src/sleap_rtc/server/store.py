"""What the server keeps: devices, rooms, uses of invites, membership lists, who did what.

::

    <data dir>/            mode 0700
    ├── server.sqlite3     the tables of schema/
    ├── storage/           rooms' files, where the server keeps them itself
    └── lock               held while a server runs on it

Set-up codes are kept as hashes. A method that changes something writes its line
of the audit log in the same transaction. Every method may block on the disk.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import math
import secrets
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.auth.certificates import Member
from sleap_rtc.auth.membership import Membership, adopt, check_member, open_membership
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import Damaged, InvalidConfig, NotFound, NotPermitted, NotTrusted
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.protocol.signaling import KeptMember
from sleap_rtc.protocol.signed import SignedMembership
from sleap_rtc.storage.sqlite import Database, network_file_system

FILE: Final = "server.sqlite3"
CODE_LIFETIME: Final = timedelta(hours=24)
"""How long a set-up code can be used."""

MAX_ROOMS_MADE: Final = 200
"""Rooms that one device may make known."""
MAX_KEPT: Final = 16 * 1024
"""Characters of the longest chain that is kept for renewal; real ones have about 3,000."""

_ALPHABET: Final = "ABCDEFGHJKMNPQRSTVWXYZ23456789"
_CODE_LETTERS: Final = 16  # 78 bits


class Account(msgspec.Struct, frozen=True):
    """A device that may sign in.

    Attributes:
        device: Its id.
        may_create_rooms: It has shown a set-up code.
    """

    device: DeviceId
    may_create_rooms: bool


class Due(msgspec.Struct, frozen=True):
    """Whose certificates are to be renewed; times are seconds since 1970 UTC.

    Attributes:
        ends_after: They end after this.
        ends_before: They end before this.
        seen_after: The member was there after this.
    """

    ends_after: float
    ends_before: float
    seen_after: float


class AuditEntry(msgspec.Struct, frozen=True):
    """One line of the audit log: when (UTC), who, what, in which room, and the rest."""

    at: datetime
    device: str | None
    action: str
    room: str | None
    details: dict[str, str]


def prepare_data_dir(path: Path) -> None:
    """Make the data folder, for this user alone.

    Raises:
        InvalidConfig: It is on a network file system, where SQLite's locks don't hold.
        PathNotPermitted: This user may not write there.
    """
    kind = network_file_system(path)
    if kind is not None:
        raise InvalidConfig(
            where=str(path),
            why=f"it is on a network file system ({kind}), where the database would be damaged",
            hint="Choose a folder on a local disk with --data-dir.",
        )
    with disk_errors(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)


class Store:
    """The server's tables.

    Args:
        data_dir: A folder that :func:`prepare_data_dir` has seen.

    Raises:
        Damaged: The file is no database, or a damaged one.
        NewerFormat: A later version wrote it.
        Busy: Another process keeps it locked.
    """

    def __init__(self, data_dir: Path) -> None:
        schema = importlib.resources.files("sleap_rtc.server") / "schema"
        path = data_dir / FILE
        try:
            self._database = Database(path, schema, name="The server's database")
        except sqlite3.DatabaseError as error:
            hint = "Put back a copy of it, or move it away to begin anew."
            raise Damaged(what=str(path), why=str(error), hint=hint) from error

    @property
    def database(self) -> Database:
        """The file, for other tables in it."""
        return self._database

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def check(self) -> None:
        """Read something, to see that it can be read.

        Raises:
            sqlite3.Error: It can't.
        """
        with self._database.read() as reader:
            reader.execute("SELECT 1 FROM rooms LIMIT 1").fetchone()

    # ── devices and set-up codes ─────────────────────────────────────────────

    def new_code(self, *, now: datetime) -> str:
        """Make a set-up code, which registers one device within a day.

        Returns:
            The code, which is nowhere else: four groups of four letters and digits.
        """
        letters = "".join(secrets.choice(_ALPHABET) for _ in range(_CODE_LETTERS))
        with self._database.write() as writer:
            writer.execute("DELETE FROM setup_codes WHERE expires <= ?", (_seconds(now),))
            writer.execute(
                "INSERT INTO setup_codes VALUES (?, ?, ?)",
                (_hash(letters), _seconds(now), _seconds(now + CODE_LIFETIME)),
            )
            _audit(writer, now, None, "made a set-up code")
        return "-".join(letters[at : at + 4] for at in range(0, _CODE_LETTERS, 4))

    def first_code(self, *, now: datetime) -> str | None:
        """A new set-up code, unless a device has used one before. Earlier ones become void."""
        with self._database.write() as writer:
            if writer.execute("SELECT 1 FROM devices WHERE may_create_rooms LIMIT 1").fetchone():
                return None
            writer.execute("DELETE FROM setup_codes")
        return self.new_code(now=now)

    def account(self, device: DeviceId) -> Account | None:
        """The device's account, if it has one."""
        with self._database.read() as reader:
            row = reader.execute(
                "SELECT may_create_rooms FROM devices WHERE device = ?", (device,)
            ).fetchone()
        return None if row is None else Account(device=device, may_create_rooms=bool(row[0]))

    def register_by_code(
        self, device: DeviceId, *, code: str, name: str, program: str, now: datetime
    ) -> Account:
        """Register a device, which may then create rooms. The code is used up.

        Repeating it for a device that is registered so already is no mistake and uses nothing.

        Raises:
            NotPermitted: The code is wrong, used, or too old.
        """
        with self._database.write() as writer:
            found = writer.execute(
                "SELECT may_create_rooms FROM devices WHERE device = ?", (device,)
            ).fetchone()
            if found is None or not found[0]:
                removed = writer.execute(
                    "DELETE FROM setup_codes WHERE hash = ? AND expires > ?",
                    (_hash(code), _seconds(now)),
                )
                if removed.rowcount != 1:
                    raise NotPermitted(
                        message="The set-up code is wrong, was used, or is older than a day.",
                        hint="Make a new one where the server runs: sleap-rtc server-code",
                    )
                _put_device(writer, device, name, program, now, may_create_rooms=True)
                _audit(writer, now, device, "registered by a set-up code", name=name)
        return Account(device=device, may_create_rooms=True)

    def saw(self, device: DeviceId, *, name: str, program: str, now: datetime) -> None:
        """Note that a device has signed in, and what it calls itself."""
        with self._database.write() as writer:
            writer.execute(
                "UPDATE devices SET name = ?, program = ?, seen = ? WHERE device = ?",
                (name, program, _seconds(now), device),
            )

    # ── rooms ────────────────────────────────────────────────────────────────

    def create_room(self, member: Member, *, name: str, now: datetime) -> None:
        """Make a room known; once more is no mistake.

        Args:
            member: The owner, as its chain proves.
            name: What people call the room.
            now: UTC.

        Raises:
            NotPermitted: The device has made as many as it may.
        """
        with self._database.write() as writer:
            (others,) = writer.execute(
                "SELECT count(*) FROM rooms WHERE creator = ? AND room != ?",
                (member.device, member.room),
            ).fetchone()
            if others >= MAX_ROOMS_MADE:
                raise NotPermitted(
                    message=f"This device has made {MAX_ROOMS_MADE} rooms on this server already."
                )
            made = writer.execute(
                "INSERT INTO rooms VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (member.room, name, member.device, _seconds(now)),
            )
            if made.rowcount:
                _audit(writer, now, member.device, "created the room", room=member.room, name=name)

    def admit(
        self, member: Member, chain: Sequence[str], *, program: str, now: datetime
    ) -> Membership:
        """Let a device into a room: count the use of its invite, and give it an account.

        The same device by the same invite counts once, however often it comes.

        Args:
            member: The device, as its chain proves.
            chain: The links of that chain as JSON texts.
            program: Name and version of its program.
            now: UTC.

        Returns:
            The room's newest list, which may say something else of the device.

        Raises:
            NotFound: The server doesn't know the room.
            NotTrusted: The invite was used by as many other devices as it lets in.
        """
        with self._database.write() as writer:
            if not writer.execute("SELECT 1 FROM rooms WHERE room = ?", (member.room,)).fetchone():
                raise _unknown_room(member.room)
            membership = _membership(writer, member.room)
            if member.invite is not None and member.device not in membership.revoked:
                _use_invite(writer, member, now)
            known = writer.execute(
                "SELECT 1 FROM devices WHERE device = ?", (member.device,)
            ).fetchone()
            if member.device in membership.revoked:
                return membership
            if not known:
                _put_device(
                    writer, member.device, member.name, program, now, may_create_rooms=False
                )
            _saw_member(writer, member, chain, now)
        return membership

    # ── members' certificates ────────────────────────────────────────────────

    def keep_chain(
        self, member: Member, chain: Sequence[str], *, by: DeviceId, now: datetime
    ) -> None:
        """Keep a member's certificates, if they last longer than those that are kept.

        Args:
            member: The member, as the chain proves.
            chain: Its links as JSON texts.
            by: The device that brings them.
            now: UTC.

        Raises:
            NotFound: The server doesn't know the room, or the device never was in it.
            NotTrusted: The newest list says that it is no member.
        """
        with self._database.write() as writer:
            if not writer.execute("SELECT 1 FROM rooms WHERE room = ?", (member.room,)).fetchone():
                raise _unknown_room(member.room)
            check_member(member, _membership(writer, member.room))
            changed = writer.execute(
                "UPDATE members SET chain = ?, expires = ? "
                "WHERE room = ? AND device = ? AND expires < ?",
                (
                    _json(chain),
                    _seconds(member.expires),
                    member.room,
                    member.device,
                    _seconds(member.expires),
                ),
            )
            if changed.rowcount:
                _audit(
                    writer,
                    now,
                    by,
                    "renewed certificates",
                    room=member.room,
                    member=member.device,
                    until=member.expires.isoformat(),
                )

    def chain(self, room: RoomId, device: DeviceId) -> tuple[str, ...] | None:
        """The newest certificates of a member; None where there are none."""
        with self._database.read() as reader:
            row = reader.execute(
                "SELECT chain FROM members WHERE room = ? AND device = ?", (room, device)
            ).fetchone()
        return None if row is None else tuple(msgspec.json.decode(row[0]))

    def members(
        self, room: RoomId, *, after: DeviceId | None, due: Due | None, limit: int
    ) -> list[KeptMember]:
        """Certificates of members, and when each was there last; by device.

        Args:
            room: The room.
            after: Only those behind this device.
            due: Only those who are to be renewed.
            limit: At most so many.
        """
        narrow = due or Due(ends_after=0, ends_before=math.inf, seen_after=0)
        with self._database.read() as reader:
            rows = reader.execute(
                "SELECT device, chain, seen FROM members WHERE room = ? AND device > ? "
                "AND expires > ? AND expires < ? AND seen > ? ORDER BY device LIMIT ?",
                (
                    room,
                    after or "",
                    narrow.ends_after,
                    narrow.ends_before,
                    narrow.seen_after,
                    limit,
                ),
            ).fetchall()
        return [
            KeptMember(
                device=device,
                chain=tuple(msgspec.json.decode(chain)),
                seen=datetime.fromtimestamp(seen, UTC),
            )
            for device, chain, seen in rows
        ]

    def room_name(self, room: RoomId) -> str:
        """What people call the room.

        Raises:
            NotFound: The server doesn't know the room.
        """
        with self._database.read() as reader:
            row = reader.execute("SELECT name FROM rooms WHERE room = ?", (room,)).fetchone()
        if row is None:
            raise _unknown_room(room)
        return str(row[0])

    def membership(self, room: RoomId) -> Membership:
        """The room's newest list; number 0 when there is none."""
        with self._database.read() as reader:
            return _membership(reader, room)

    def membership_text(self, room: RoomId) -> str | None:
        """The room's newest list as its owner signed it; None when there is none.

        Raises:
            NotFound: The server doesn't know the room.
        """
        with self._database.read() as reader:
            if not reader.execute("SELECT 1 FROM rooms WHERE room = ?", (room,)).fetchone():
                raise _unknown_room(room)
            row = reader.execute(
                "SELECT signed FROM memberships WHERE room = ?", (room,)
            ).fetchone()
        return None if row is None else str(row[0])

    def put_membership(
        self, room: RoomId, offered: SignedMembership, *, device: DeviceId, now: datetime
    ) -> Membership:
        """Keep a room's list, if it is the newer one.

        Args:
            room: The room.
            offered: As it came.
            device: Who brought it; who signed it is what counts.
            now: UTC.

        Returns:
            The list that is kept now.

        Raises:
            NotFound: The server doesn't know the room.
            NotTrusted: No owner signed it, or its number is lower than that of the list kept.
        """
        with self._database.write() as writer:
            if not writer.execute("SELECT 1 FROM rooms WHERE room = ?", (room,)).fetchone():
                raise _unknown_room(room)
            current = _membership(writer, room)
            newest = adopt(current, offered, room=room, now=now)
            if newest.number > current.number:
                writer.execute(
                    "INSERT INTO memberships VALUES (?, ?, ?) ON CONFLICT (room) "
                    "DO UPDATE SET number = excluded.number, signed = excluded.signed",
                    (room, newest.number, encode(offered).decode("utf-8")),
                )
                writer.executemany(
                    "DELETE FROM members WHERE room = ? AND device = ?",
                    [(room, key) for key in newest.revoked],
                )
                _audit(
                    writer,
                    now,
                    device,
                    "changed the members",
                    room=room,
                    number=str(newest.number),
                    signer=offered.signed.signer,
                )
        return newest

    # ── the audit log ────────────────────────────────────────────────────────

    def audit_log(self, *, room: RoomId | None = None, limit: int = 1_000) -> list[AuditEntry]:
        """The newest lines of the audit log, newest first.

        Args:
            room: Only this room's.
            limit: At most so many.
        """
        with self._database.read() as reader:
            rows = reader.execute(
                "SELECT at, device, action, room, details FROM audit "
                "WHERE ?1 IS NULL OR room = ?1 ORDER BY id DESC LIMIT ?2",
                (room, limit),
            ).fetchall()
        return [
            AuditEntry(
                at=datetime.fromtimestamp(at, UTC),
                device=device,
                action=action,
                room=of,
                details=msgspec.json.decode(details),
            )
            for at, device, action, of, details in rows
        ]


def _membership(connection: sqlite3.Connection, room: RoomId) -> Membership:
    row = connection.execute("SELECT signed FROM memberships WHERE room = ?", (room,)).fetchone()
    if row is None:
        return Membership(room=room)
    signed = decode(SignedMembership, row[0].encode("utf-8"), what="the membership list")
    return open_membership(signed, room=room)


def _use_invite(writer: sqlite3.Connection, member: Member, now: datetime) -> None:
    key = (member.room, member.invite)
    users = {
        row[0]
        for row in writer.execute(
            "SELECT device FROM invite_uses WHERE room = ? AND invite = ?", key
        )
    }
    if member.device in users:
        return
    if len(users) >= member.uses:
        devices = "another device" if member.uses == 1 else f"{member.uses} other devices"
        raise NotTrusted(
            who="The invite",
            why=f"it was used up by {devices}",
            hint="Ask an owner of the room for a new invite.",
        )
    writer.execute(
        "INSERT INTO invite_uses VALUES (?, ?, ?, ?)", (*key, member.device, _seconds(now))
    )
    _audit(
        writer,
        now,
        member.device,
        "joined by an invite",
        room=member.room,
        invite=str(member.invite),
        role=member.role,
        name=member.name,
    )


def _saw_member(
    writer: sqlite3.Connection, member: Member, chain: Sequence[str], now: datetime
) -> None:
    if sum(map(len, chain)) > MAX_KEPT:
        return  # what no real chain needs would keep its owner from renewing others
    # What an owner has renewed, and the member hasn't fetched yet, lasts longer and stays.
    writer.execute(
        "INSERT INTO members VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (room, device) DO UPDATE SET "
        "seen = ?5, expires = max(expires, ?4), chain = iif(expires < ?4, ?3, chain)",
        (member.room, member.device, _json(chain), _seconds(member.expires), _seconds(now)),
    )


def _put_device(
    writer: sqlite3.Connection,
    device: DeviceId,
    name: str,
    program: str,
    now: datetime,
    *,
    may_create_rooms: bool,
) -> None:
    writer.execute(
        "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET "
        "name = excluded.name, program = excluded.program, seen = excluded.seen, "
        "may_create_rooms = max(may_create_rooms, excluded.may_create_rooms)",
        (device, name, program, may_create_rooms, _seconds(now), _seconds(now)),
    )


def _audit(
    writer: sqlite3.Connection,
    now: datetime,
    device: DeviceId | None,
    action: str,
    *,
    room: RoomId | None = None,
    **details: str,
) -> None:
    writer.execute(
        "INSERT INTO audit (at, device, action, room, details) VALUES (?, ?, ?, ?, ?)",
        (_seconds(now), device, action, room, msgspec.json.encode(details).decode("utf-8")),
    )


def _json(chain: Sequence[str]) -> str:
    return msgspec.json.encode(chain).decode("utf-8")


def _unknown_room(room: RoomId) -> NotFound:
    return NotFound(
        message=f"The server doesn't know room {room}.",
        hint="Whoever owns the room makes it known: sleap-rtc room create",
    )


def _hash(code: str) -> bytes:
    """A code's hash; spaces, hyphens and case don't matter. 78 random bits need no salt."""
    plain = "".join(letter for letter in code.upper() if letter.isalnum())
    return hashlib.sha256(b"sleap-rtc set-up code\0" + plain.encode("utf-8", "replace")).digest()


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
