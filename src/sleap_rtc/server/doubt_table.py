"""Objects that somebody found damaged, in the server's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from sleap_rtc.domain.ids import RoomId
from sleap_rtc.storage.objects import StoredObject
from sleap_rtc.storage.sqlite import Database

Verdict = Literal["open", "good", "damaged"]
_COLUMNS: Final = "key, room, size, etag, modified, verdict, at"


class Doubt(msgspec.Struct, frozen=True):
    """One version of an object, and what is known of it.

    Attributes:
        key: Of the object.
        room: Whose it is.
        size: Bytes.
        etag: The store's mark of this version.
        modified: When it came to be, in whole seconds since 1970 by the store's clock; 0 where it
            doesn't tell.
        verdict: ``open`` until its content was compared with its name.
        at: When it was reported, or compared, in seconds since 1970 UTC.
    """

    key: str
    room: RoomId
    size: int
    etag: str
    modified: int
    verdict: Verdict
    at: float

    @classmethod
    def of(cls, found: StoredObject, room: RoomId, *, now: datetime) -> Doubt:
        """A new one.

        Args:
            found: The object.
            room: Whose it is.
            now: The time.
        """
        return cls(
            key=found.key,
            room=room,
            size=found.size,
            etag=found.etag,
            modified=_second(found),
            verdict="open",
            at=now.timestamp(),
        )

    @property
    def object(self) -> StoredObject:
        """What it is about."""
        return StoredObject(key=self.key, size=self.size, etag=self.etag)

    def is_about(self, found: StoredObject) -> bool:
        """Whether an object is the version that it is about.

        An ETag may be made of what the bytes should be: the same content, sent anew, has it again.
        """
        return self._version == (found.key, found.size, found.etag, _second(found))

    def is_same(self, other: Doubt) -> bool:
        """Whether both are about the same version."""
        return self._version == other._version

    @property
    def _version(self) -> tuple[str, int, str, int]:
        return self.key, self.size, self.etag, self.modified


class DoubtTable:
    """What the server knows of doubts. Every method may block on the disk.

    Args:
        database: The server's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> Doubt | None:
        """What is known of the object of a key, in whichever version."""
        with self._database.read() as reader:
            found = _select(reader, "key = ?", key)
        return found[0] if found else None

    def put(self, doubt: Doubt) -> None:
        """Keep a doubt, in the place of any other about the same key."""
        marks = ", ".join("?" * len(msgspec.structs.fields(Doubt)))
        with self._database.write() as writer:
            writer.execute(
                f"INSERT OR REPLACE INTO doubts ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 - constants
                msgspec.structs.astuple(doubt),
            )

    def drop(self, doubt: Doubt) -> None:
        """Forget a doubt, unless another one has taken its place."""
        with self._database.write() as writer:
            writer.execute(
                "DELETE FROM doubts WHERE key = ? AND etag = ? AND modified = ?",
                (doubt.key, doubt.etag, doubt.modified),
            )

    def having(
        self, verdict: Verdict, *, before: datetime | None = None, limit: int = 500
    ) -> list[Doubt]:
        """Those with a verdict, the oldest first.

        Args:
            verdict: Which.
            before: Only those that were reported, or compared, until then.
            limit: So many at most.
        """
        until = None if before is None else before.timestamp()
        with self._database.read() as reader:
            return _select(
                reader,
                "verdict = ?1 AND (?2 IS NULL OR at <= ?2) ORDER BY at LIMIT ?3",
                *(verdict, until, limit),
            )


def _select(connection: sqlite3.Connection, condition: str, *values: object) -> list[Doubt]:
    rows: Sequence[tuple[object, ...]] = connection.execute(
        f"SELECT {_COLUMNS} FROM doubts WHERE {condition}",  # noqa: S608 - constants
        values,
    ).fetchall()
    return [Doubt(*row) for row in rows]  # type: ignore[arg-type]


def _second(found: StoredObject) -> int:
    # A list of objects tells the time more finely than a question about one.
    return 0 if found.modified is None else int(found.modified.timestamp())
