"""The index's rows: how a model becomes one, and how a query finds it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.library.entries import Entry, Page, Position, Query, Sort, cursor_of, position_of
from sleap_rtc.library.search.parser import parse
from sleap_rtc.library.search.sql import LOCATION, compile_search

Known = Literal["type", "tag", "place"]

MAX_WORDS: Final = 8_000
"""Characters of a configuration, or of notes, that are searched."""

MAX_RANKED: Final = 10_000
"""Models with the words of a search that are ranked; of more, the newest come first."""

_KEY: Final[dict[str, str]] = {
    "name": "name",
    "type": "type",
    "loss": "loss",
    "size": "size",
    "rank": "fit",
}
_RECORDS: Final = msgspec.json.Decoder(ModelRecord)
_CROWD: Final = 1_024
_LATEST: Final = 2**63 // _CROWD - 2_000_000
_KNOWN: Final[dict[Known, tuple[str, str]]] = {
    "type": ("model", "type"),
    "tag": ("tag", "tag"),
    "place": ("place", "key"),
}


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


def when(found: Found) -> float:
    """What rows are ordered by: when the model was made, seconds since 1970."""
    return found.record.created_at.timestamp() if found.record is not None else 0.0


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
    made = round(record.created_at.timestamp() * 1e6)
    kinds = {place.kind for place in record.locations}
    n = _free(db, made)
    db.execute(
        "INSERT INTO model VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            n,
            found.directory,
            found.stamp,
            record.id,
            record.status,
            record.source,
            bool(record.files) and record.status != "missing",
            "worker" in kinds,
            "room" in kinds,
            record.parent,
            record.metrics.epochs,
            made,
            record.name.casefold(),
            record.model_type,
            _loss(record),
            -record.size,
        ),
    )
    # As the struct is, with what it doesn't know in a field of its own: reading it back takes half
    # the time, and nobody but this version reads it.
    db.execute("INSERT INTO shown VALUES (?, ?, ?)", (n, found.alias, msgspec.json.encode(record)))
    db.executemany(
        "INSERT OR IGNORE INTO tag VALUES (?, ?)", [(n, tag.casefold()) for tag in record.tags]
    )
    db.executemany(
        "INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?)",
        [(n, place.kind, place.name, place.name.casefold()) for place in record.locations],
    )
    db.execute(
        "INSERT INTO words (rowid, alias, name, type, tags, notes, family, config)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            n,
            found.alias or "",
            record.name,
            record.model_type,
            " ".join(record.tags),
            record.notes[:MAX_WORDS],
            family(record),
            " ".join(_config(record))[:MAX_WORDS],
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
        InvalidSearch: Its text can't be read.
    """
    chosen = _choose(db, query)
    # Records are fetched for the page alone: a sort would carry each of them along.
    rows = db.execute(
        f"SELECT n, k, directory, alias, record FROM (SELECT {chosen.row} AS n, {chosen.key} AS k "  # noqa: S608 - own constants
        f"{chosen.source} ORDER BY {chosen.order} LIMIT ?) JOIN model USING (n) "
        f"JOIN shown USING (n) ORDER BY {chosen.order_again}",
        (*chosen.given, query.limit + 1),
    ).fetchall()
    listed = rows[: query.limit]
    entries = tuple(
        Entry(
            record=_RECORDS.decode(record),
            alias=alias,
            directory=models / directory,
        )
        for _, _, directory, alias, record in listed
    )
    if len(rows) == len(listed):
        return Page(entries=entries, cursor=None)
    row, key = listed[-1][:2]
    last = Position(sort=chosen.sort, reverse=query.reverse, key=key, row=row)
    return Page(entries=entries, cursor=cursor_of(last))


def count(db: sqlite3.Connection, query: Query) -> int:
    """How many models a list has from its cursor on.

    Raises:
        UsageError: A bad cursor.
        InvalidSearch: Its text can't be read.
    """
    chosen = _choose(db, query)
    (number,) = db.execute(f"SELECT count(*) {chosen.source}", chosen.given).fetchone()
    return int(number)


def in_use(db: sqlite3.Connection, field: Known, beginning: str, most: int) -> list[str]:
    """Values of a field that some model has, in order; from its index, one step for each."""
    table, column = _KNOWN[field]
    found: list[str] = []
    given = beginning.casefold()
    compared = ">="
    while len(found) < most:
        row = db.execute(
            f"SELECT {column} FROM {table} WHERE {column} {compared} ? ORDER BY {column} LIMIT 1",  # noqa: S608 - own constants
            (given,),
        ).fetchone()
        if row is None or not row[0].startswith(beginning.casefold()):
            break
        found.append(row[0])
        given, compared = row[0], ">"
    return found


def family(record: ModelRecord) -> str:
    """A model's backbone, empty when nothing tells it."""
    known = record.training.hyperparameters.get("backbone")
    if isinstance(known, str):
        return known
    try:
        backbone = json.loads(record.canonical or "{}").get("backbone")
    except (ValueError, AttributeError):
        return ""
    return ", ".join(backbone) if isinstance(backbone, dict) else ""


class _Chosen(msgspec.Struct, frozen=True):
    """What a query selects from, with its parameters, and what it sorts by."""

    source: str
    given: list[Any]
    sort: Sort
    row: str
    key: str
    order: str
    order_again: str


def _choose(db: sqlite3.Connection, query: Query) -> _Chosen:
    search = parse(query.text)
    filters = compile_search(search)
    position = position_of(query)
    sort = query.sort
    if sort == "rank":
        sort = position.sort if position is not None else _by_rank(db, filters.match)
    more, values_ = _given(query)
    clauses, given = [*filters.clauses, *more], [*filters.given, *values_]
    source, row = "FROM model", "n"
    if filters.match:
        given.insert(0, filters.match)
        if sort in ("date", "rank"):
            # Full-text rows come in the order of their numbers, one by one: a page needs its own.
            source = "FROM (SELECT rowid AS hit, rank AS fit FROM words WHERE words MATCH ?)"
            source += " CROSS JOIN model ON n = hit" if clauses else ""
            row = "hit"
        else:
            clauses.insert(0, "n IN (SELECT rowid FROM words WHERE words MATCH ?)")
    # The newest come first, also among equals.
    forth, back = (">", "<") if not query.reverse else ("<", ">")
    key = row if sort == "date" else _KEY[sort]
    up, down = ("ASC", "DESC") if not query.reverse else ("DESC", "ASC")
    order, again = f"{key} {up}, {row} {down}", f"k {up}, n {down}"
    if sort == "date":
        order, again = f"{row} {down}", f"n {down}"
    if position is not None and sort == "date":
        clauses.append(f"{row} {back} ?")
        given.append(position.row)
    elif position is not None:
        clauses.append(f"({key} {forth} ? OR ({key} = ? AND {row} {back} ?))")
        given += [position.key, position.key, position.row]
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    return _Chosen(source + where, given, sort, row, key, order, again)


def _by_rank(db: sqlite3.Connection, match: str) -> Sort:
    """Whether few enough models have the words to rank them; among many, rank says little."""
    if not match:
        return "date"
    (hits,) = db.execute(
        "SELECT count(*) FROM (SELECT rowid FROM words WHERE words MATCH ? LIMIT ?)",
        (match, MAX_RANKED + 1),
    ).fetchone()
    return "date" if hits > MAX_RANKED else "rank"


def _given(query: Query) -> tuple[list[str], list[Any]]:
    """The filters that aren't in the text."""
    clauses: list[str] = []
    given: list[Any] = []
    for column, wanted in (
        ("status", query.statuses),
        ("type", tuple(kind.casefold() for kind in query.types)),
        ("source", query.sources),
    ):
        if wanted:
            clauses.append(f"{column} IN ({', '.join('?' * len(wanted))})")
            given += wanted
    for tag in query.tags:
        clauses.append("n IN (SELECT n FROM tag WHERE tag = ?)")
        given.append(tag.casefold())
    if query.where != "any":
        clauses.append(LOCATION[query.where])
    if query.at is not None:
        clauses.append("n IN (SELECT n FROM place WHERE key = ?)")
        given.append(query.at.casefold())
    return clauses, given


def _free(db: sqlite3.Connection, made: int) -> int:
    """A number for a row, so that rows are in the order in which models were made.

    It leaves room for 1,024 models of each microsecond; a crowd of one moment, as an import makes
    that knows only the day, goes into the second after it.
    """
    n = max(min(made, _LATEST), -_LATEST) * _CROWD
    while True:
        (last,) = db.execute(
            "SELECT max(n) FROM model WHERE n BETWEEN ? AND ? "
            "AND EXISTS (SELECT 1 FROM model WHERE n = ?)",
            (n, n + 1_000_000 * _CROWD, n),
        ).fetchone()
        if last is None:
            return n
        n = int(last) + 1


def _config(record: ModelRecord) -> Iterator[str]:
    """What is known of how a model was made, as words."""
    training = record.training
    for text in (training.engine, training.dataset_name, training.device, training.worker):
        if text:
            yield text
    yield from record.skeleton
    for name, value in training.hyperparameters.items():
        if isinstance(value, (str, int, float)):
            yield f"{name} {value}"


def _loss(record: ModelRecord) -> float:
    metrics = record.metrics
    loss = metrics.final_val_loss if metrics.best_val_loss is None else metrics.best_val_loss
    return math.inf if loss is None or math.isnan(loss) else loss
