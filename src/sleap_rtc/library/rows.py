"""The index's rows: how a model becomes one, and how a query finds it."""

from __future__ import annotations

import math
import re
import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc.domain import values
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.library.entries import Entry, Page, Position, Query, Sort, cursor_of, position_of

_COLUMN: Final[dict[Sort, str]] = {
    "date": "age",
    "name": "name",
    "type": "type",
    "loss": "loss",
    "size": "size",
}
_WHERE: Final = {
    "any": "1",
    "local": "here",
    "worker": "EXISTS (SELECT 1 FROM place p WHERE p.n = model.n AND p.kind = 'worker')",
    "room": "EXISTS (SELECT 1 FROM place p WHERE p.n = model.n AND p.kind = 'room')",
    "both": "here AND EXISTS (SELECT 1 FROM place p WHERE p.n = model.n)",
}
# What the full-text tokeniser takes for parts of a word.
_WORD: Final = re.compile(r"[^\W_]+")


class Found(msgspec.Struct, frozen=True):
    """A model's directory as it was read for the index.

    Attributes:
        directory: Its name.
        stamp: Time of the last change of its record, nanoseconds since 1970.
        record: The record; None when it can't be read.
        alias: Its alias.
    """

    directory: str
    stamp: int
    record: ModelRecord | None
    alias: str | None


def put(db: sqlite3.Connection, found: Found) -> None:
    """Take in a model, in place of what the index had for its directory."""
    remove(db, found.directory)
    record = found.record
    if record is None:
        db.execute("INSERT INTO unreadable VALUES (?, ?)", (found.directory, found.stamp))
        return
    if record.deleted_at is not None:
        deleted = round(record.deleted_at.timestamp() * 1e6)
        db.execute(
            "INSERT INTO tombstone VALUES (?, ?, ?)", (found.directory, found.stamp, deleted)
        )
        return
    row = db.execute(
        "INSERT INTO model (directory, stamp, alias, status, source, here, record, age, name, type,"
        " loss, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            found.directory,
            found.stamp,
            found.alias,
            record.status,
            record.source,
            bool(record.files) and record.status != "missing",
            values.encode(record),
            -round(record.created_at.timestamp() * 1e6),
            record.name.casefold(),
            record.model_type,
            _loss(record),
            -record.size,
        ),
    )
    n = row.lastrowid
    db.executemany("INSERT OR IGNORE INTO tag VALUES (?, ?)", [(n, tag) for tag in record.tags])
    db.executemany(
        "INSERT OR IGNORE INTO place VALUES (?, ?, ?)",
        [(n, place.kind, place.name) for place in record.locations],
    )
    db.execute(
        "INSERT INTO words (rowid, alias, name, type, tags, notes) VALUES (?, ?, ?, ?, ?, ?)",
        (
            n,
            found.alias or "",
            record.name,
            record.model_type,
            " ".join(record.tags),
            record.notes,
        ),
    )


def remove(db: sqlite3.Connection, directory: str) -> None:
    """Forget a directory."""
    db.execute(
        "DELETE FROM words WHERE rowid = (SELECT n FROM model WHERE directory = ?)", (directory,)
    )
    for table in ("model", "tombstone", "unreadable"):
        db.execute(f"DELETE FROM {table} WHERE directory = ?", (directory,))  # noqa: S608 - constant


def stamps(db: sqlite3.Connection) -> dict[str, int]:
    """Directory → stamp of everything that the index knows."""
    return dict(
        db.execute(
            "SELECT directory, stamp FROM model UNION ALL SELECT directory, stamp FROM tombstone "
            "UNION ALL SELECT directory, stamp FROM unreadable"
        )
    )


def page(db: sqlite3.Connection, models: Path, query: Query) -> Page:
    """One page of a list.

    Raises:
        UsageError: A bad cursor.
    """
    position = position_of(query)
    column = _COLUMN[query.sort]
    filters, given = _filters(query)
    direction, beyond = ("DESC", "<") if query.reverse else ("ASC", ">")
    if position is not None:
        filters.append(f"({column}, age, directory) {beyond} (?, ?, ?)")
        given += [position.key, position.age, position.directory]
    rows = db.execute(
        f"SELECT directory, alias, record, {column}, age FROM model "  # noqa: S608 - own constants
        f"WHERE {' AND '.join(filters) or '1'} "
        f"ORDER BY {column} {direction}, age {direction}, directory {direction} LIMIT ?",
        (*given, query.limit + 1),
    ).fetchall()
    shown = rows[: query.limit]
    entries = tuple(
        Entry(
            record=values.decode(ModelRecord, record, what=f"index of {directory}"),
            alias=alias,
            directory=models / directory,
        )
        for directory, alias, record, _, _ in shown
    )
    if len(rows) == len(shown):
        return Page(entries=entries, cursor=None)
    directory, _, _, key, age = shown[-1]
    last = Position(sort=query.sort, reverse=query.reverse, key=key, age=age, directory=directory)
    return Page(entries=entries, cursor=cursor_of(last))


def _filters(query: Query) -> tuple[list[str], list[Any]]:
    filters: list[str] = []
    given: list[Any] = []
    for column, wanted in (
        ("status", query.statuses),
        ("type", query.types),
        ("source", query.sources),
    ):
        if wanted:
            filters.append(f"{column} IN ({', '.join('?' * len(wanted))})")
            given += wanted
    for tag in query.tags:
        filters.append("n IN (SELECT n FROM tag WHERE tag = ?)")
        given.append(tag)
    if query.where != "any":
        filters.append(_WHERE[query.where])
    if query.at is not None:
        filters.append("n IN (SELECT n FROM place WHERE name = ?)")
        given.append(query.at)
    if query.text.strip():
        words = _WORD.findall(query.text)
        if words:
            filters.append("n IN (SELECT rowid FROM words WHERE words MATCH ?)")
            given.append(" ".join(f'"{word}"' for word in words) + "*")
        else:
            filters.append("0")
    return filters, given


def _loss(record: ModelRecord) -> float:
    metrics = record.metrics
    loss = metrics.final_val_loss if metrics.best_val_loss is None else metrics.best_val_loss
    return math.inf if loss is None or math.isnan(loss) else loss
