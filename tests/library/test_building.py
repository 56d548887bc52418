"""A new index has the same rows as one that took its models in one by one."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import Location, ModelRecord
from sleap_rtc.library import building, rows
from sleap_rtc.library.entries import Query
from sleap_rtc.library.index import _schema
from sleap_rtc.library.remembering import Shown
from sleap_rtc.library.rows import Found
from sleap_rtc.library.telling import unseen
from sleap_rtc.storage.sqlite import Database

RecordOf = Callable[..., ModelRecord]

TABLES = ("model", "shown", "tag", "place", "tombstone", "unreadable", "words")


@pytest.fixture
def known(record_of: RecordOf) -> dict[str, Found]:
    """Models of a library by directory, among them a deleted and an unreadable one; not by date."""
    now = record_of().created_at
    found: dict[str, Found] = {}
    for number in range(23):
        record = record_of(
            f"fly {number * 7 % 23}",
            created_at=now + timedelta(days=number * 7 % 23 // 2),  # pairs are of one moment
            tags=("even",) if number % 2 == 0 else (),
            locations=(Location(kind="worker", name="GPU", last_seen=now),) if number == 3 else (),
            deleted_at=now if number == 4 else None,
        )
        alias = f"the-{number}" if number % 5 == 0 else None
        found[record.directory] = Found(
            directory=record.directory, stamp=number, record=record, alias=alias
        )
    found["centroid_00000000"] = Found(
        directory="centroid_00000000", stamp=1, record=None, alias=None
    )
    return found


@contextmanager
def database(path: Path) -> Iterator[Database]:
    db = Database(path, _schema(), synchronous="NORMAL")
    yield db
    db.close()


def content(db: Database) -> dict[str, list[tuple[object, ...]]]:
    with db.read() as reader:
        return {name: sorted(reader.execute(f"SELECT * FROM {name}"), key=repr) for name in TABLES}


def indexes(db: Database) -> list[tuple[str, str]]:
    with db.read() as reader:
        return sorted(reader.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))


@pytest.mark.parametrize("sizes", [(200, 10_000, 2), (3, 4, 1), (1, 1, 4)])
def test_it_has_what_it_would_have_had_one_by_one(
    known: dict[str, Found],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, int, int],
) -> None:
    batch, piece, readers = sizes
    monkeypatch.setattr(building, "_BATCH", batch)
    monkeypatch.setattr(building, "_PIECE", piece)
    found_so = sorted(known.values(), key=rows.made)
    names = [*(found.directory for found in found_so), "centroid_ffffffff"]
    told: list[tuple[int, int]] = []
    with database(tmp_path / "filled") as filled, database(tmp_path / "one by one") as other:
        before = indexes(filled)
        with filled.fill() as writer:
            building.fill(
                writer, names, known.get, readers=readers, told=lambda *far: told.append(far)
            )
        with other.write() as writer:
            for found in found_so:
                rows.put(writer, [found])
        assert content(filled) == content(other)
        assert len(content(filled)["model"]) == 22
        assert indexes(filled) == before
        with filled.read() as reader:
            page = rows.page(reader, Query(text="fly the", sort="rank"), Shown(tmp_path))
        assert len(page.entries) == 5
        # It goes on as any other.
        with filled.write() as writer:
            last = next(iter(known.values()))
            assert last.record is not None
            rows.put(writer, [replace(last, record=replace(last.record, notes="later"))])
            writer.execute("INSERT INTO words (words) VALUES ('integrity-check')")
            settings = dict(writer.execute("SELECT k, v FROM words_config"))
        assert settings["automerge"] == building._USUAL["automerge"]
        with filled.read() as reader:
            assert len(rows.page(reader, Query(text="later"), Shown(tmp_path)).entries) == 1
    assert told[0] == (0, 50)
    assert told[-1] == (50, 50)
    assert told == sorted(told)


def test_an_empty_library_is_filled_too(tmp_path: Path) -> None:
    with database(tmp_path / "empty") as db:
        with db.fill() as writer:
            building.fill(writer, [], lambda _: None, readers=1, told=unseen)
        assert not any(content(db).values())


def test_models_are_read_a_little_ahead_in_other_threads(
    known: dict[str, Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_BATCH", 1)
    readers: set[str] = set()
    taken = 0
    ahead = 0

    def load(name: str) -> Found | None:
        nonlocal ahead
        readers.add(threading.current_thread().name)
        ahead = max(ahead, len(loaded) - taken)
        loaded.append(name)
        return known[name]

    def count(done: int, _of: int) -> None:
        nonlocal taken
        taken = done

    loaded: list[str] = []
    with database(tmp_path / "db") as db, db.fill() as writer:
        building.fill(writer, list(known), load, readers=2, told=count)
    assert len(loaded) == len(known)
    assert threading.current_thread().name not in readers
    assert ahead <= 2 * building._AHEAD + 3


def test_what_stops_a_reader_stops_it_all(known: dict[str, Found], tmp_path: Path) -> None:
    def load(_name: str) -> Found | None:
        raise PermissionError(13, "not yours")

    with (
        database(tmp_path / "db") as db,
        pytest.raises(PermissionError),
        db.fill() as writer,
    ):
        building.fill(writer, list(known), load, readers=2, told=unseen)


def test_full_text_is_in_one_piece_afterwards(
    known: dict[str, Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_PIECE", 2)
    with database(tmp_path / "db") as db:
        with db.fill() as writer:
            building.fill(writer, list(known), known.get, readers=1, told=unseen)
        with db.read() as reader:
            (segments,) = reader.execute("SELECT count(DISTINCT segid) FROM words_idx").fetchone()
        assert segments == 1


def test_a_damaged_schema_is_passed_on(tmp_path: Path) -> None:
    with database(tmp_path / "db") as db:
        with db.write() as writer:
            writer.execute("DROP TABLE words")
        with pytest.raises(sqlite3.OperationalError), db.fill() as writer:
            building.fill(writer, [], lambda _: None, readers=1, told=unseen)
