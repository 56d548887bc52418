"""What a room has in storage, and what it may have: bytes, and files however small."""

from __future__ import annotations

import sqlite3

import msgspec

from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import QuotaExceeded


class Usage(msgspec.Struct, frozen=True):
    """What a room has, what is on its way to it included.

    What takes the place of something that is there counts once, as the larger of both.

    Attributes:
        size: Bytes.
        files: Objects, uploads, and contents that somebody has links for.
    """

    size: int = 0
    files: int = 0


class Quota(msgspec.Struct, frozen=True):
    """What a room may have.

    Attributes:
        size: Bytes; 0 for any number.
        files: How many; 0 for any number.
    """

    size: int = 0
    files: int = 0


def check_quota(room: RoomId, quota: Quota, *, used: Usage, more: Usage) -> None:
    """See that a room gets no more than it may have; what adds nothing is never too much.

    Args:
        room: The room.
        quota: What it may have, what is on its way included.
        used: What it has.
        more: What it is to have besides.

    Raises:
        QuotaExceeded: It would have more.
    """
    over = used.size + more.size - quota.size
    if quota.size and more.size > 0 and over > 0:
        raise QuotaExceeded(
            room=room,
            limit=format_bytes(quota.size),
            used=format_bytes(used.size),
            need=format_bytes(over),
        )
    over = used.files + more.files - quota.files
    if quota.files and more.files > 0 and over > 0:
        raise QuotaExceeded(
            room=room, limit=f"{quota.files} files", used=f"{used.files}", need=f"{over}"
        )


def used_by(connection: sqlite3.Connection, room: RoomId) -> Usage:
    """What a room has.

    Args:
        connection: Within a transaction.
        room: The room.
    """
    found = connection.execute("SELECT size, files FROM usage WHERE room = ?", (room,)).fetchone()
    return Usage() if found is None else Usage(size=found[0], files=found[1])


def growth(connection: sqlite3.Connection, key: str, size: int) -> Usage:
    """What a room would have more if something else were on its way to one of its keys.

    Args:
        connection: Within a transaction.
        key: Where it goes to.
        size: Bytes of it.
    """
    found = connection.execute(
        "SELECT size, (SELECT max(size) FROM coming WHERE key = ?1) FROM objects WHERE key = ?1",
        (key,),
    ).fetchone()
    if found is None:
        return Usage(size=size, files=1)
    there, coming = found
    if coming is None:
        return Usage(size=size - min(there, size))
    return Usage(size=size - min(there, max(size, coming)) + min(there, coming), files=1)
