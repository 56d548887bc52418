"""Contents in one piece that devices have links for, in the server's database.

A lot of them is one transaction, whatever its size.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import msgspec

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import TooManyRequests
from sleap_rtc.server.usage import Quota, Usage, check_quota, used_by
from sleap_rtc.storage.service import Area
from sleap_rtc.storage.sqlite import Database

MAX_EXPECTED: Final = 20_000
"""Contents that one device may have links for, in a room, without having said what became of them.
"""
_COLUMNS: Final = "key, device, room, area, size, asked"


class ExpectedRow(msgspec.Struct, frozen=True):
    """A content that somebody has a link for.

    Attributes:
        key: Of the object that it will be.
        device: Who has the link.
        room: Whose the object will be.
        area: Where in it.
        size: Bytes.
        asked: When the link was given, in seconds since 1970 UTC.
    """

    key: str
    device: DeviceId
    room: RoomId
    area: Area
    size: int
    asked: float


class Known(msgspec.Struct, frozen=True):
    """What the database has of some keys.

    Attributes:
        stored: Those whose objects were stored through this server.
        condemned: Those whose objects are being removed.
        expected: Those that somebody has a link for.
        mine: Those that the device in question has a link for.
        unsure: Those to which an upload in parts is being completed.
    """

    stored: frozenset[str]
    condemned: frozenset[str]
    expected: frozenset[str]
    mine: frozenset[str]
    unsure: frozenset[str]


class ContentTable:
    """What is expected, and what came of it. Every method may block on the disk.

    Args:
        database: The server's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, keys: Collection[str], device: DeviceId) -> Known:
        """What there is of some keys, all at one moment.

        Args:
            keys: The keys.
            device: The device in question.
        """
        with self._database.read() as reader:
            stored = _select(reader, "SELECT key, stored > 0 FROM objects WHERE", keys)
            expected = _select(reader, "SELECT key, device FROM expected WHERE", keys)
            unsure = _select(
                reader, "SELECT key, 1 FROM uploads WHERE state = 'completing' AND", keys
            )
        return Known(
            stored=frozenset(key for key, there in stored if there),
            condemned=frozenset(key for key, there in stored if not there),
            expected=frozenset(key for key, _ in expected),
            mine=frozenset(key for key, who in expected if who == device),
            unsure=frozenset(key for key, _ in unsure),
        )

    def expect(self, rows: Sequence[ExpectedRow], *, quota: Quota) -> None:
        """Note that links are given; those that were are given anew.

        Who was given several for one content may use any: the one for the most bytes counts.

        Args:
            rows: Of one device and one room.
            quota: What the room may have, what is expected included.

        Raises:
            QuotaExceeded: It would have more; none is noted.
            TooManyRequests: The device has too many links without a word of what became of them.
        """
        if not rows:
            return
        device, room = rows[0].device, rows[0].room
        with self._database.write() as writer:
            before = used_by(writer, room)
            writer.executemany(
                f"INSERT INTO expected ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) "  # noqa: S608 - constants
                "ON CONFLICT (key, device) DO UPDATE "
                "SET size = max(size, excluded.size), asked = excluded.asked",
                [msgspec.structs.astuple(row) for row in rows],
            )
            (count,) = writer.execute(
                "SELECT count(*) FROM expected WHERE room = ? AND device = ?", (room, device)
            ).fetchone()
            if count > MAX_EXPECTED:
                hint = f"It has links for {count} contents of the room; those end within a day."
                raise TooManyRequests(who="This device", hint=hint)
            after = used_by(writer, room)
            more = Usage(size=after.size - before.size, files=after.files - before.files)
            check_quota(room, quota, used=before, more=more)

    def stay(self, keys: Collection[str], *, now: datetime) -> frozenset[str]:
        """Count objects' days anew: somebody is told that they are there.

        Returns:
            Those that are known; one that is being removed isn't any more.
        """
        if not keys:
            return frozenset()
        with self._database.write() as writer:
            writer.executemany(
                "UPDATE objects SET stored = ? WHERE key = ? AND stored > 0",
                [(now.timestamp(), key) for key in keys],
            )
            found = _select(writer, "SELECT key, stored > 0 FROM objects WHERE", keys)
        return frozenset(key for key, there in found if there)

    def stored(self, rows: Sequence[ExpectedRow], *, now: datetime) -> None:
        """Note that contents are there, whose senders need no link any more.

        One that was given for more bytes than came may yet be used: it counts on.
        """
        if not rows:
            return
        with self._database.write() as writer:
            # First, or each would for a moment be one in whose place something is on its way.
            writer.executemany(
                "DELETE FROM expected WHERE key = ? AND device = ? AND size <= ?",
                [(row.key, row.device, row.size) for row in rows],
            )
            writer.executemany(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET size = excluded.size, device = excluded.device, stored = excluded.stored",
                [
                    (row.key, row.room, row.area, row.size, row.device, now.timestamp())
                    for row in rows
                ],
            )

    def drop(self, rows: Sequence[ExpectedRow]) -> None:
        """Expect contents no more, unless they were asked for anew."""
        with self._database.write() as writer:
            writer.executemany(
                "DELETE FROM expected WHERE key = ? AND device = ? AND asked = ?",
                [(row.key, row.device, row.asked) for row in rows],
            )

    def is_condemned(self, key: str) -> bool:
        """Whether an object is being removed."""
        with self._database.read() as reader:
            found = reader.execute(
                "SELECT stored > 0 FROM objects WHERE key = ?", (key,)
            ).fetchone()
        return found is not None and not found[0]

    def forget(self, key: str) -> None:
        """Forget an object, which isn't there any more."""
        with self._database.write() as writer:
            writer.execute("DELETE FROM objects WHERE key = ?", (key,))

    def asked_before(self, moment: datetime, *, limit: int = 500) -> list[ExpectedRow]:
        """What was asked for until then, and never confirmed; the oldest first."""
        with self._database.read() as reader:
            rows = reader.execute(
                f"SELECT {_COLUMNS} FROM expected WHERE asked <= ? "  # noqa: S608 - constants
                "ORDER BY asked LIMIT ?",
                (moment.timestamp(), limit),
            ).fetchall()
        return [ExpectedRow(*row) for row in rows]


def _select(
    connection: sqlite3.Connection, what: str, keys: Collection[str]
) -> list[tuple[str, object]]:
    """Rows of some keys; SQLite takes a few hundred of them at once."""
    marks = ", ".join("?" * len(keys))
    return connection.execute(f"{what} key IN ({marks})", tuple(keys)).fetchall()
