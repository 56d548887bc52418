"""Filling a new index, which nobody else uses yet, several times quicker than row by row.

===================  ==========================================================
step                 why so
===================  ==========================================================
models are read      several at once, as many as the drive is good for, and some
                     batches ahead of their rows
rows, in any order   without the secondary indexes, which are made by sorting
                     afterwards, at once
words, in order      full text writes all that it has whenever a row comes that
                     is older than the last, and merges what it wrote again and
                     again; in order, in large pieces, it merges once
===================  ==========================================================
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from sleap_rtc.library import rows
from sleap_rtc.library.rows import TEXTS, Found
from sleap_rtc.library.telling import Told

Load = Callable[[str], Found | None]
"""Reads the model in a directory, None if it holds none; from several threads."""

_BATCH: Final = 200
"""Models that one thread reads in one go."""
_AHEAD: Final = 2
"""Batches that each thread may be ahead."""
_PIECE: Final = 10_000
"""Models of which the words are written together: some 20 MB of memory."""
_HELD: Final = 64 * 1024 * 1024
"""Bytes of words that are held in memory at most; a piece has less, unless models say much."""

_INDEXES: Final = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
_USUAL: Final = {"hashsize": 1024 * 1024, "automerge": 4, "crisismerge": 16}
"""How full text is set otherwise, which is how it sets itself."""
_FILLING: Final = {"hashsize": _HELD, "automerge": 0, "crisismerge": 1_999}


def fill(
    db: sqlite3.Connection, names: Sequence[str], load: Load, *, readers: int, told: Told
) -> None:
    """Take every model of a library into an empty index.

    Args:
        db: The index, within a transaction.
        names: The directories.
        load: Reads one.
        readers: How many are read at once.
        told: Told how far it is; a model is two steps.
    """
    steps = 2 * len(names)
    indexes = db.execute(_INDEXES).fetchall()
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    db.execute(f"CREATE TEMP TABLE text (n INTEGER PRIMARY KEY, {TEXTS})")
    read = 0
    for found in _read(names, load, readers):
        told(read, steps)
        rows.add(db, found, texts="temp.text")
        read = min(read + _BATCH, len(names))
    for _, sql in indexes:
        db.execute(sql)
    for written in _write_words(db):
        told(len(names) + written, steps)
    db.execute("DROP TABLE temp.text")
    told(steps, steps)


def _read(names: Sequence[str], load: Load, readers: int) -> Iterator[list[Found]]:
    """Batches of models, each in order; those that hold none are left out."""

    def batch(some: Sequence[str]) -> list[Found]:
        return sorted((found for found in map(load, some) if found is not None), key=rows.made)

    ahead: deque[Future[list[Found]]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="library read") as pool:
        for first in range(0, len(names), _BATCH):
            ahead.append(pool.submit(batch, names[first : first + _BATCH]))
            if len(ahead) > readers * _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _write_words(db: sqlite3.Connection) -> Iterator[int]:
    """Write the full text; how many models' is done, after each piece."""
    _set(db, _FILLING)
    numbers = [n for (n,) in db.execute("SELECT n FROM temp.text ORDER BY n")]
    for first in range(0, len(numbers), _PIECE):
        piece = numbers[first : first + _PIECE]
        db.execute(
            f"INSERT INTO words (rowid, {TEXTS}) SELECT n, {TEXTS} FROM temp.text "  # noqa: S608 - own constants
            "WHERE n BETWEEN ? AND ? ORDER BY n",
            (piece[0], piece[-1]),
        )
        yield first + len(piece)
    if len(numbers) > _PIECE:
        db.execute("INSERT INTO words (words) VALUES ('optimize')")
    _set(db, _USUAL)


def _set(db: sqlite3.Connection, settings: dict[str, int]) -> None:
    for name, value in settings.items():
        db.execute("INSERT INTO words (words, rank) VALUES (?, ?)", (name, value))
