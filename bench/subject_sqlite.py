"""A registry as one would first write it: tables in one SQLite file, synced at each commit.

No more than the same answers need: nothing is checked, no history is kept, and
it must not be on a network drive. It is what the machine and SQLite allow.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import made
from bench.subject import Operation

_SCHEMA: Final = """
CREATE TABLE model (n INTEGER PRIMARY KEY, id TEXT UNIQUE, created INTEGER, status TEXT, type TEXT,
    record TEXT);
CREATE INDEX model_by_created ON model (created);
CREATE INDEX model_by_type ON model (type, status, created);
CREATE TABLE tag (tag TEXT, n INTEGER, PRIMARY KEY (tag, n)) WITHOUT ROWID;
CREATE TABLE alias (name TEXT PRIMARY KEY, id TEXT) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (name, tags, notes,
    tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3');
"""
_PAGE: Final = f"ORDER BY created DESC LIMIT {made.PAGE}"


class Subject:
    """One file below a folder."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "registry.sqlite", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        self._count = 0

    def grow(self, to: int) -> dict[str, float]:
        """Insert models, all in one transaction."""
        started = time.monotonic()
        self._insert((f"m{n:08x}", made.model(n)) for n in range(self._count, to))
        self._count = to
        return {"build": time.monotonic() - started}

    def operations(self) -> dict[str, Operation]:
        """What can be measured."""
        everything = f"SELECT record FROM model {_PAGE}"
        filtered = (
            "SELECT record FROM model WHERE type = ? AND status = ? "
            f"AND n IN (SELECT n FROM tag WHERE tag = ?) {_PAGE}"
        )
        hits = "SELECT record FROM words JOIN model ON n = words.rowid WHERE words MATCH ?"
        best = f"{hits} ORDER BY rank LIMIT {made.PAGE}"
        newest = f"{hits} {_PAGE}"
        by_id = "SELECT record FROM model WHERE id = ?"
        by_alias = "SELECT record FROM model WHERE id = (SELECT id FROM alias WHERE name = ?)"
        wanted = (made.FILTER["type"], made.FILTER["status"], made.FILTER["tag"])
        return {
            "register": self._register,
            "get": lambda n: partial(self._page, by_id, f"m{n * 7919 % self._count:08x}"),
            "get by alias": lambda n: partial(self._page, by_alias, made.alias(self._named(n))),
            "set alias": self._set_alias,
            "list a page": lambda _: partial(self._page, everything),
            "list filtered": lambda _: partial(self._page, filtered, *wanted),
            "list after a change": self._list_after_a_change,
            "search a word": lambda _: partial(self._page, best, f'"{made.WORD}"*'),
            "search another word": lambda n: partial(self._finds, best, f'"{made.word(n)}"*'),
            "search a name": lambda n: partial(
                self._page, best, f'"run{n * 7919 % self._count:06d}"*'
            ),
            "search a prefix, newest": lambda _: partial(self._page, newest, f'"{made.PREFIX}"*'),
            "search a prefix, best": lambda _: partial(self._page, best, f'"{made.PREFIX}"*'),
        }

    def _named(self, number: int) -> int:
        """The number of a model that has an alias."""
        return number * 7919 % (self._count // made.ALIASED) * made.ALIASED

    def _insert(self, models: Iterable[tuple[str, dict[str, Any]]]) -> int:
        self._db.execute("BEGIN IMMEDIATE")
        for name, known in models:
            record = json.dumps(known, default=str)
            given = (name, known["created"].timestamp(), known["status"], known["type"], record)
            row = self._db.execute(
                "INSERT INTO model (id, created, status, type, record) VALUES (?, ?, ?, ?, ?)",
                given,
            ).lastrowid
            self._db.executemany(
                "INSERT INTO tag VALUES (?, ?)", [(tag, row) for tag in known["tags"]]
            )
            self._db.execute(
                "INSERT INTO words (rowid, name, tags, notes) VALUES (?, ?, ?, ?)",
                (row, known["name"], " ".join(known["tags"]), known["notes"]),
            )
            if known["alias"] is not None:
                self._db.execute("INSERT INTO alias VALUES (?, ?)", (known["alias"], name))
        self._db.execute("COMMIT")
        return 1

    def _page(self, question: str, *given: object) -> int:
        return len([json.loads(record) for (record,) in self._db.execute(question, given)])

    def _finds(self, question: str, given: str) -> int:
        return self._page(question, given) > 0

    def _register(self, number: int) -> Callable[[], int]:
        return partial(self._insert, [(f"n{number:08x}", made.another(number))])

    def _set_alias(self, number: int) -> Callable[[], int]:
        given = f"new-{number}", f"m{self._named(number) + 1:08x}"
        setting = "INSERT OR REPLACE INTO alias VALUES (?, ?)"
        return lambda: self._db.execute(setting, given).rowcount

    def _list_after_a_change(self, number: int) -> Callable[[], int]:
        register = self._register(number)
        return lambda: register() and self._page(f"SELECT record FROM model {_PAGE}")
