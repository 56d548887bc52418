"""Models as an index's rows hold them, and those that were shown last, which are remembered.

Reading records back is most of what a page costs. Two things make it less:

- The form of hashes isn't checked once more. What a row holds was read from a
  record, with all checks, by this very version (an index is no other's), and lies
  in a folder of this user's own. What decides something is read from the record
  itself, and whoever gets a list from elsewhere checks what it gets.
- Who looks at a library looks at the same models most of the time. An index has a
  new state, a random number, whenever one of its rows is written; as long as it
  has the same, what was read of its rows holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.library.entries import Entry

MOST: Final = 1_000
"""Models of a generation, of which two are remembered; a record has some 10 kB."""
LARGEST: Final = 64 * 1024
"""Bytes of a row whose record is remembered: a record may have 16 MiB, and what others wrote is no
measure of our memory."""

_RECORDS: Final = msgspec.msgpack.Decoder(ModelRecord[str])
_IN_JSON: Final = msgspec.json.Decoder(ModelRecord[str])
_JSON: Final = b"{"
"""How a row in JSON begins, and none in MessagePack that holds a record."""
_WANTED: Final = (
    "SELECT n, alias, record FROM json_each(?) CROSS JOIN shown ON n = value"  # one text for any
)


def encode(record: ModelRecord) -> bytes:
    """A record as a row holds it."""
    # As the struct is, with what it doesn't know in a field of its own: nobody but this version
    # reads it. In MessagePack, since it is read in four fifths of the time that JSON takes.
    try:
        return msgspec.msgpack.encode(record)
    except OverflowError:  # a setting of more than 64 bits
        return msgspec.json.encode(record)


class Shown:
    """The models of one index, for any number of threads."""

    def __init__(self, models: Path) -> None:
        """Remember none yet.

        Args:
            models: The library.
        """
        self._models = str(models)
        self._memory = _Memory(state=0)

    def of(self, db: sqlite3.Connection, rows: Sequence[int]) -> list[Entry]:
        """The models of some rows, in their order.

        Args:
            db: The index, in the transaction in which the rows were found.
            rows: Their numbers.

        Raises:
            msgspec.DecodeError: A row holds something else.
            sqlite3.DatabaseError: A row is gone, or the index has no state.
        """
        memory = self._current(db)
        found = memory.of(rows)
        unknown = [row for row in rows if row not in found]
        if unknown:
            kept = {}
            for row, alias, data in db.execute(_WANTED, (msgspec.json.encode(unknown).decode(),)):
                record = _decoded(data)
                folder = f"{self._models}/{record.directory}"
                found[row] = entry = Entry(record=record, alias=alias, folder=folder)
                if len(data) <= LARGEST:
                    kept[row] = entry
            memory.keep(kept)
        if len(found) < len(set(rows)):
            raise sqlite3.DatabaseError("a model in the index has no record there")
        return [found[row] for row in rows]

    def _current(self, db: sqlite3.Connection) -> _Memory:
        """What is remembered of the rows as they are now."""
        row = db.execute("SELECT number FROM state").fetchone()
        if row is None:
            raise sqlite3.DatabaseError("the index has no state")
        memory = self._memory
        if memory.state != row[0]:
            # A thread that looks at an older state does so too: it happens hardly ever.
            self._memory = memory = _Memory(state=row[0])
        return memory


def _decoded(data: object) -> ModelRecord:
    if not isinstance(data, bytes):
        raise sqlite3.DatabaseError(f"a record in the index is a {type(data).__name__}")
    return (_IN_JSON if data.startswith(_JSON) else _RECORDS).decode(data)


class _Memory:
    """Two generations of models, which were read while an index was in one state."""

    def __init__(self, *, state: int) -> None:
        self.state = state
        self._recent: dict[int, Entry] = {}
        self._older: dict[int, Entry] = {}

    def of(self, rows: Sequence[int]) -> dict[int, Entry]:
        """Those of some rows that are remembered."""
        recent, older = self._recent, self._older
        found = {}
        for row in rows:
            entry = recent.get(row) or older.get(row)
            if entry is not None:
                found[row] = entry
        self.keep(found)
        return found

    def keep(self, found: dict[int, Entry]) -> None:
        """Remember some."""
        recent = self._recent
        recent.update(found)
        if len(recent) > MOST:
            self._recent, self._older = {}, recent
