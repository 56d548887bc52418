"""Uploads and stored objects in the server's database."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import QuotaExceeded, TooManyRequests
from sleap_rtc.storage.objects import Upload
from sleap_rtc.storage.service import Area
from sleap_rtc.storage.sqlite import Database

MAX_OPEN: Final = 1_000
"""Uploads that one device may have open in a room."""
LOT: Final = 500
"""Uploads, or objects, that are looked at together when what is over is removed."""

State = Literal["open", "completing", "done"]
_COLUMNS: Final = "id, room, area, blake3, device, key, store_id, size, part_size, state, touched"


class UploadRow(msgspec.Struct, frozen=True):
    """An upload.

    Attributes:
        id: What the API calls it.
        room: Whose the object will be.
        area: Where in it.
        blake3: Of the content.
        device: Who began it.
        key: Of the object.
        store_id: The store's own name for the upload.
        size: Bytes of the whole.
        part_size: Bytes of every part but the last.
        state: ``open``, ``completing`` or ``done``.
        touched: When something was last asked for it, in seconds since 1970 UTC.
    """

    id: str
    room: RoomId
    area: Area
    blake3: str
    device: DeviceId
    key: str
    store_id: str
    size: int
    part_size: int
    state: State
    touched: float

    @property
    def upload(self) -> Upload:
        """As the store knows it."""
        return Upload(key=self.key, id=self.store_id, size=self.size, part_size=self.part_size)


class UploadTable:
    """What the server knows of uploads and objects. Every method may block on the disk.

    Args:
        database: The server's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: UploadRow, *, quota: int) -> None:
        """Keep a new upload.

        Args:
            row: The upload.
            quota: Bytes that the room may have, what is being uploaded included; 0 for any.

        Raises:
            QuotaExceeded: It would have more.
            TooManyRequests: The device has too many uploads open there.
        """
        with self._database.write() as writer:
            _check_room(writer, row, quota)
            writer.execute(
                f"INSERT INTO uploads ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
                msgspec.structs.astuple(row),
            )

    def check(self, row: UploadRow, *, quota: int) -> None:
        """Check that an upload could be kept, before the store is asked to begin it.

        Raises:
            QuotaExceeded: The room would have more than its quota.
            TooManyRequests: The device has too many uploads open there.
        """
        with self._database.read() as reader:
            _check_room(reader, row, quota)

    def get(self, upload: str) -> UploadRow | None:
        """An upload by its id."""
        return self._one("id = ?", upload)

    def open_of(self, key: str, device: DeviceId) -> UploadRow | None:
        """The upload to a key that a device has begun, not completed, and left alone longest."""
        return self._one("key = ? AND device = ? AND state = 'open' ORDER BY touched", key, device)

    def completing(self, key: str | None = None) -> list[UploadRow]:
        """Uploads of which it isn't known whether they were completed.

        Args:
            key: Only those to this key.
        """
        with self._database.read() as reader:
            rows = reader.execute(
                f"SELECT {_COLUMNS} FROM uploads WHERE state = 'completing' "  # noqa: S608 - constants
                "AND (?1 IS NULL OR key = ?1)",
                (key,),
            ).fetchall()
        return [UploadRow(*row) for row in rows]

    def set_state(self, upload: str, state: State, *, now: datetime) -> None:
        """Note how far an upload has come."""
        with self._database.write() as writer:
            writer.execute(
                "UPDATE uploads SET state = ?, touched = ? WHERE id = ?",
                (state, now.timestamp(), upload),
            )

    def done(self, row: UploadRow, *, now: datetime) -> None:
        """Note that an upload was completed, and its object stored."""
        with self._database.write() as writer:
            writer.execute(
                "UPDATE uploads SET state = 'done', touched = ? WHERE id = ?",
                (now.timestamp(), row.id),
            )
            writer.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET size = excluded.size, device = excluded.device, stored = excluded.stored",
                (row.key, row.room, row.area, row.size, row.device, now.timestamp()),
            )

    def stored(self, key: str) -> datetime | None:
        """When an object was stored, or was last said to be there; None of an unknown one."""
        with self._database.read() as reader:
            row = reader.execute("SELECT stored FROM objects WHERE key = ?", (key,)).fetchone()
        return None if row is None else datetime.fromtimestamp(row[0], UTC)

    def stay(self, key: str, *, now: datetime) -> bool:
        """Count an object's days anew: somebody is told that it is there.

        Returns:
            Whether it is known; one that is being removed isn't any more.
        """
        with self._database.write() as writer:
            changed = writer.execute(
                "UPDATE objects SET stored = ? WHERE key = ? AND stored > 0",
                (now.timestamp(), key),
            )
        return changed.rowcount > 0

    def condemn(self, key: str, moment: datetime) -> bool:
        """Note that an object is being removed, if it is still an old one; it stays noted so.

        Returns:
            Whether it is to be removed; one that somebody has a link for isn't.
        """
        with self._database.write() as writer:
            changed = writer.execute(
                "UPDATE objects SET stored = 0 WHERE key = ? AND stored <= ? "
                "AND NOT EXISTS (SELECT 1 FROM expected WHERE expected.key = objects.key)",
                (key, moment.timestamp()),
            )
        return changed.rowcount > 0

    def remove(self, upload: str) -> None:
        """Forget an upload."""
        with self._database.write() as writer:
            writer.execute("DELETE FROM uploads WHERE id = ?", (upload,))

    def remove_object(self, key: str) -> None:
        """Forget an object, which isn't there any more."""
        with self._database.write() as writer:
            writer.execute("DELETE FROM objects WHERE key = ?", (key,))

    def untouched_since(self, moment: datetime, *, limit: int = LOT) -> list[UploadRow]:
        """Uploads for which nothing was asked since then, the oldest first."""
        with self._database.read() as reader:
            rows = reader.execute(
                f"SELECT {_COLUMNS} FROM uploads WHERE touched <= ? "  # noqa: S608 - constants
                "ORDER BY touched LIMIT ?",
                (moment.timestamp(), limit),
            ).fetchall()
        return [UploadRow(*row) for row in rows]

    def stored_before(self, area: Area, moment: datetime, *, limit: int = LOT) -> list[str]:
        """Keys of an area's objects that were stored before then, the oldest first.

        Those that somebody has a link for aren't among them, or they could keep the others from
        being looked at.
        """
        with self._database.read() as reader:
            rows = reader.execute(
                "SELECT key FROM objects WHERE area = ? AND stored <= ? "
                "AND NOT EXISTS (SELECT 1 FROM expected WHERE expected.key = objects.key) "
                "ORDER BY stored LIMIT ?",
                (area, moment.timestamp(), limit),
            ).fetchall()
        return [row[0] for row in rows]

    def used(self, room: RoomId) -> int:
        """Bytes that a room has, what is being uploaded included."""
        with self._database.read() as reader:
            return used_by(reader, room)

    def _one(self, condition: str, *values: str) -> UploadRow | None:
        with self._database.read() as reader:
            row = reader.execute(
                f"SELECT {_COLUMNS} FROM uploads WHERE {condition} LIMIT 1",  # noqa: S608 - constants
                values,
            ).fetchone()
        return None if row is None else UploadRow(*row)


def _check_room(connection: sqlite3.Connection, row: UploadRow, quota: int) -> None:
    (count,) = connection.execute(
        "SELECT count(*) FROM uploads WHERE room = ? AND state != 'done' AND device = ?",
        (row.room, row.device),
    ).fetchone()
    if count >= MAX_OPEN:
        raise TooManyRequests(
            who="This device",
            hint=f"It has {count} uploads open in the room; complete them or give them up.",
        )
    check_quota(row.room, quota, used=used_by(connection, row.room), more=row.size)


def check_quota(room: RoomId, quota: int, *, used: int, more: int) -> None:
    """See that a room has no more than it may.

    Args:
        room: The room.
        quota: Bytes that it may have, what is on its way included; 0 for any.
        used: Bytes that it has.
        more: Bytes that it is to have besides.

    Raises:
        QuotaExceeded: It would have more.
    """
    if quota and used + more > quota:
        raise QuotaExceeded(
            room=room,
            limit=format_bytes(quota),
            used=format_bytes(used),
            need=format_bytes(used + more - quota),
        )


def used_by(connection: sqlite3.Connection, room: RoomId) -> int:
    """Bytes that a room has, what is on its way included.

    Args:
        connection: Within a transaction.
        room: The room.
    """
    (used,) = connection.execute(
        "SELECT coalesce((SELECT sum(size) FROM objects WHERE room = ?1), 0) + "
        "coalesce((SELECT sum(size) FROM uploads WHERE room = ?1 AND state != 'done'), 0) + "
        "coalesce((SELECT sum(size) FROM expected WHERE room = ?1), 0)",
        (room,),
    ).fetchone()
    return int(used)
