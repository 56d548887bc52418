"""The index's rows: how a model becomes one, and how a query finds it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import UsageError
from sleap_rtc.library import remembering
from sleap_rtc.library.entries import (
    NOT_OURS,
    Page,
    Position,
    Query,
    SortedBy,
    cursor_of,
    position_of,
)
from sleap_rtc.library.search.parser import parse
from sleap_rtc.library.search.sql import LOCATION, Filter, compile_search

Known = Literal["type", "tag", "place"]

MAX_WORDS: Final = 8_000
"""Characters of a configuration, or of notes, that are searched."""

MAX_RANKED: Final = 250
"""Models with the words of a search that are weighed against each other, word by word; of more,
where the words are decides, and then the newest come first."""

_FIELDS: Final = (
    "alias name",
    "alias name type tags family",
    "alias name type tags notes family config",
)
"""Columns by how much a word in them says, each with those before."""

_KEY: Final[dict[str, str]] = {
    "name": "name",
    "type": "type",
    "loss": "loss",
    "size": "size",
    "rank": "fit",
}
_PLAIN: Final = (str, int, float)
_CROWD: Final = 1_024
_LATEST: Final = 2**63 // _CROWD - 2_000_000
_KNOWN: Final[dict[Known, tuple[str, str]]] = {
    "type": ("model", "type"),
    "tag": ("tag", "tag"),
    "place": ("place", "key"),
}


TEXTS: Final = "alias, name, type, tags, notes, family, config"
"""Columns of the full text."""

_INSERT_MODEL: Final = "INSERT INTO model VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


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


def put(db: sqlite3.Connection, found: Sequence[Found]) -> None:
    """Take in models, in place of what the index had for their directories."""
    for one in found:
        remove(db, one.directory)
    # Full text takes in rows much quicker in their order.
    add(db, sorted(found, key=made))


def add(db: sqlite3.Connection, found: Iterable[Found], *, texts: str = "words") -> None:
    """Take in models of whose directories the index knows nothing.

    Args:
        db: The index.
        found: The models.
        texts: The table that takes their words: the full text, or what it is filled from later.
    """
    shown, tags, places, words = [], [], [], []
    for one in found:
        record = one.record
        if record is None:
            db.execute("INSERT INTO unreadable VALUES (?, ?)", (one.directory, one.stamp))
            continue
        if record.deleted_at is not None:
            given = (one.directory, one.stamp, _microseconds(record.deleted_at))
            db.execute("INSERT INTO tombstone VALUES (?, ?, ?)", given)
            continue
        n = _free(db, _microseconds(record.created_at))
        db.execute(_INSERT_MODEL, (n, one.directory, one.stamp, *_columns(record)))
        shown.append((n, one.alias, remembering.encode(record)))
        tags += [(n, tag.casefold()) for tag in record.tags]
        places += [(n, at.kind, at.name, at.name.casefold()) for at in record.locations]
        words.append((n, *_words(record, one.alias)))
    db.executemany("INSERT INTO shown VALUES (?, ?, ?)", shown)
    db.executemany("INSERT OR IGNORE INTO tag VALUES (?, ?)", tags)
    db.executemany("INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?)", places)
    db.executemany(
        f"INSERT INTO {texts} (rowid, {TEXTS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - own constants
        words,
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


def page(db: sqlite3.Connection, query: Query, shown: remembering.Shown) -> Page:
    """One page of a list.

    Args:
        db: The index.
        query: Which models.
        shown: The index's.

    Raises:
        UsageError: A bad cursor.
        InvalidSearch: Its text can't be read.
    """
    sort, parts = _parts(db, query)
    rows: list[tuple[int, int | float | str]] = []
    for part in parts:
        rows += db.execute(
            f"SELECT {part.row}, {part.key} {part.source} ORDER BY {part.order} LIMIT ?",
            (*part.given, query.limit + 1 - len(rows)),
        )
        if len(rows) > query.limit:
            break
    listed = rows[: query.limit]
    entries = tuple(shown.of(db, [row for row, _ in listed]))
    if len(rows) == len(listed):
        return Page(entries=entries, cursor=None)
    row, key = listed[-1]
    last = Position(sort=sort, reverse=query.reverse, key=key, row=row)
    return Page(entries=entries, cursor=cursor_of(last))


def count(db: sqlite3.Connection, query: Query) -> int:
    """How many models a list has from its cursor on.

    Raises:
        UsageError: A bad cursor.
        InvalidSearch: Its text can't be read.
    """
    if query.cursor is None:  # then their order is nothing to them
        query = replace(query, sort="date")
    _, parts = _parts(db, query)
    counted = (db.execute(f"SELECT count(*) {part.source}", part.given) for part in parts)
    return sum(int(number) for ((number,),) in counted)


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


class _Part(msgspec.Struct, frozen=True):
    """A part of a list: what it selects from, with its parameters, and what it sorts by."""

    source: str
    given: list[Any]
    row: str
    key: str
    order: str


def _parts(db: sqlite3.Connection, query: Query) -> tuple[SortedBy, list[_Part]]:
    """The parts of a list from its cursor on, and what they are sorted by."""
    filters = compile_search(parse(query.text))
    position = position_of(query)
    sort = _sort(db, query, filters.match, position)
    if sort != "field":
        return sort, [_part(query, filters, sort, position)]
    numbers = range(len(_FIELDS))[::-1] if query.reverse else range(len(_FIELDS))
    if position is not None:
        if position.key not in numbers:
            raise UsageError(message=NOT_OURS)
        numbers = numbers[numbers.index(int(position.key)) :]
    return sort, [
        _part(
            query,
            replace(filters, match=_within(number, filters.match)),
            "date",
            position if position is not None and number == position.key else None,
            key=str(number),
        )
        for number in numbers
    ]


def _sort(db: sqlite3.Connection, query: Query, match: str, position: Position | None) -> SortedBy:
    """What a list is sorted by: the words of few models are weighed, of many their fields count."""
    if query.sort != "rank":
        return query.sort
    if position is not None:
        if not match and position.sort != "date":
            raise UsageError(message=NOT_OURS)
        return position.sort
    if not match:
        return "date"
    (hits,) = db.execute(
        "SELECT count(*) FROM (SELECT rowid FROM words WHERE words MATCH ? LIMIT ?)",
        (match, MAX_RANKED + 1),
    ).fetchone()
    return "field" if hits > MAX_RANKED else "rank"


def _within(number: int, match: str) -> str:
    """What has the words in the columns up to these, and not in those up to the ones before."""
    *before, these = (f"{{{columns}}} : ({match})" for columns in _FIELDS[: number + 1])
    return f"({these}) NOT ({before[-1]})" if before else these


def _part(
    query: Query, filters: Filter, sort: SortedBy, position: Position | None, *, key: str = ""
) -> _Part:
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
    up, down = ("ASC", "DESC") if not query.reverse else ("DESC", "ASC")
    by = row if sort == "date" else _KEY[sort]
    order = f"{row} {down}" if sort == "date" else f"{by} {up}, {row} {down}"
    if position is not None and sort == "date":
        clauses.append(f"{row} {back} ?")
        given.append(position.row)
    elif position is not None:
        clauses.append(f"({by} {forth} ? OR ({by} = ? AND {row} {back} ?))")
        given += [position.key, position.key, position.row]
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    return _Part(source + where, given, row, key or by, order)


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


def made(found: Found) -> tuple[float, str]:
    """The order of rows: by when a model was made, and of one moment by its directory."""
    since = found.record.created_at.timestamp() if found.record is not None else 0.0
    return since, found.directory


def _columns(record: ModelRecord) -> tuple[object, ...]:
    """A model's row, from its id on."""
    kinds = {place.kind for place in record.locations}
    return (
        record.id,
        record.status,
        record.source,
        bool(record.files) and record.status != "missing",
        "worker" in kinds,
        "room" in kinds,
        record.parent,
        record.metrics.epochs,
        _microseconds(record.created_at),
        record.name.casefold(),
        record.model_type,
        _loss(record),
        -record.size,
    )


def _words(record: ModelRecord, alias: str | None) -> tuple[str, ...]:
    """What is searched for words, in the order of :data:`TEXTS`."""
    return (
        alias or "",
        record.name,
        record.model_type,
        " ".join(record.tags),
        record.notes[:MAX_WORDS],
        family(record),
        _config(record)[:MAX_WORDS],
    )


def _microseconds(moment: datetime) -> int:
    """A time, in microseconds since 1970."""
    return round(moment.timestamp() * 1e6)


def _config(record: ModelRecord) -> str:
    """What is known of how a model was made, as words."""
    training = record.training
    told = (training.engine, training.dataset_name, training.device, training.worker)
    settings = training.hyperparameters.items()
    chosen = [f"{name} {value}" for name, value in settings if isinstance(value, _PLAIN)]
    return " ".join([*filter(None, told), *record.skeleton, *chosen])


def _loss(record: ModelRecord) -> float:
    metrics = record.metrics
    loss = metrics.final_val_loss if metrics.best_val_loss is None else metrics.best_val_loss
    return math.inf if loss is None or math.isnan(loss) else loss
