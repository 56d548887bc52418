"""Uploads and stored objects in the server's database."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import TooManyRequests
from sleap_rtc.server.usage import Quota, Usage, check_quota, growth, used_by
from sleap_rtc.storage.objects import Checksum, Upload
from sleap_rtc.storage.service import Area
from sleap_rtc.storage.sqlite import Database

MAX_OPEN: Final = 1_000
"""Uploads that one device may have open in a room."""
LOT: Final = 500
"""Uploads, or objects, that are looked at together when what is over is removed."""

State = Literal["open", "completing", "done"]
_COLUMNS: Final = (
    "id, room, area, blake3, device, key, store_id, size, part_size, state, touched, checksum"
)


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
        checksum: By what its parts are named.
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
    checksum: Checksum

    @property
    def upload(self) -> Upload:
        """As the store knows it."""
        return Upload(
            key=self.key,
            id=self.store_id,
            size=self.size,
            part_size=self.part_size,
            checksum=self.checksum,
        )


class UploadTable:
    """What the server knows of uploads and objects. Every method may block on the disk.

    Args:
        database: The server's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: UploadRow, *, quota: Quota) -> None:
        """Keep a new upload.

        Args:
            row: The upload.
            quota: What the room may have, what is being uploaded included.

        Raises:
            QuotaExceeded: It would have more.
            TooManyRequests: The device has too many uploads open there.
        """
        with self._database.write() as writer:
            _check_room(writer, row, quota)
            writer.execute(
                f"INSERT INTO uploads ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
                msgspec.structs.astuple(row),
            )

    def check(self, row: UploadRow, *, quota: Quota) -> None:
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

    def touch(self, upload: str, *, now: datetime, only: State | None = None) -> bool:
        """Note that an upload goes on, however far it has come meanwhile.

        Args:
            upload: Its id.
            now: The time.
            only: The state that it must be in.

        Returns:
            Whether it was there, in that state.
        """
        with self._database.write() as writer:
            touched = writer.execute(
                "UPDATE uploads SET touched = ?1 WHERE id = ?2 AND (?3 IS NULL OR state = ?3)",
                (now.timestamp(), upload, only),
            )
        return touched.rowcount > 0

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

    def remove(self, upload: str, *, only: State | None = None) -> bool:
        """Forget an upload.

        Args:
            upload: Its id.
            only: The state that it must be in.

        Returns:
            Whether it was there, in that state.
        """
        with self._database.write() as writer:
            gone = writer.execute(
                "DELETE FROM uploads WHERE id = ?1 AND (?2 IS NULL OR state = ?2)", (upload, only)
            )
        return gone.rowcount > 0

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

    def used(self, room: RoomId) -> Usage:
        """What a room has, what is being uploaded included."""
        with self._database.read() as reader:
            return used_by(reader, room)

    def _one(self, condition: str, *values: str) -> UploadRow | None:
        with self._database.read() as reader:
            row = reader.execute(
                f"SELECT {_COLUMNS} FROM uploads WHERE {condition} LIMIT 1",  # noqa: S608 - constants
                values,
            ).fetchone()
        return None if row is None else UploadRow(*row)


def _check_room(connection: sqlite3.Connection, row: UploadRow, quota: Quota) -> None:
    (count,) = connection.execute(
        "SELECT count(*) FROM uploads WHERE room = ? AND state != 'done' AND device = ?",
        (row.room, row.device),
    ).fetchone()
    if count >= MAX_OPEN:
        raise TooManyRequests(
            who="This device",
            hint=f"It has {count} uploads open in the room; complete them or give them up.",
        )
    more = growth(connection, row.key, row.size)
    check_quota(row.room, quota, used=used_by(connection, row.room), more=more)
