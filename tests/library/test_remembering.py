import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.domain import values
from sleap_rtc.domain.models import Metrics, ModelFile, ModelRecord, Training
from sleap_rtc.library import remembering
from sleap_rtc.library.remembering import LARGEST, Shown, encode

RecordOf = Callable[..., ModelRecord]
Put = Callable[[int, bytes], None]


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema = files("sleap_rtc.library") / "migrations" / "0001_index.sql"
    connection.executescript(schema.read_text("utf-8"))
    yield connection
    connection.close()


@pytest.fixture
def put(db: sqlite3.Connection) -> Put:
    def write(n: int, record: bytes) -> None:
        db.execute("DELETE FROM shown WHERE n = ?", (n,))
        db.execute("INSERT INTO shown VALUES (?, ?, ?)", (n, f"alias-{n}", record))

    return write


@pytest.fixture
def shown() -> Shown:
    return Shown(Path("models"))


def test_a_model_is_read_as_it_was_written(
    db: sqlite3.Connection, put: Put, record_of: RecordOf, shown: Shown
) -> None:
    record = record_of("a", metrics=Metrics(unknown={"colour": "red"}), unknown={"later": [1]})
    put(1, encode(record))
    (entry,) = shown.of(db, [1])
    assert (entry.record, entry.alias) == (record, "alias-1")
    assert entry.directory == Path("models") / record.directory


def test_what_only_json_can_hold_is_read_as_it_was_written(
    db: sqlite3.Connection, put: Put, record_of: RecordOf, shown: Shown
) -> None:
    settings = {"seed": 2**70, "none": None, "deep": [{"unknown": -(2**63)}], "far": 1e300}
    record = record_of("a", training=Training(hyperparameters=settings), unknown={"x": 2**80})
    put(1, encode(record))
    assert [entry.record for entry in shown.of(db, [1])] == [record]


def test_a_row_holds_what_the_record_holds(
    db: sqlite3.Connection, put: Put, record_of: RecordOf, shown: Shown
) -> None:
    made = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=-7)))
    listed = (ModelFile(path="a.ckpt", size=2**50, blake3="0" * 64, unknown={"new": 1}),)
    record = record_of("ä", created_at=made, files=listed, notes="\U0001f41d\n", tags=("b", "ü"))
    put(1, encode(record))
    found = shown.of(db, [1])[0].record
    assert found == record
    assert (type(found), type(found.files[0])) == (ModelRecord, ModelFile)
    assert values.encode(found.files[0]) == values.encode(record.files[0])


def test_they_come_in_the_order_of_the_rows(
    db: sqlite3.Connection, put: Put, record_of: RecordOf, shown: Shown
) -> None:
    numbers = [2**62, -(2**62), 5, 0]
    for n in numbers:
        put(n, encode(record_of(str(n))))
    assert shown.of(db, [5]) != []
    assert [entry.record.name for entry in shown.of(db, numbers)] == [str(n) for n in numbers]
    assert shown.of(db, []) == []


def test_what_was_read_is_not_read_again_until_a_row_is_written(
    db: sqlite3.Connection, put: Put, record_of: RecordOf, shown: Shown
) -> None:
    put(1, encode(record_of("a")))
    put(2, encode(record_of("b")))
    (first,) = shown.of(db, [1])
    assert shown.of(db, [2, 1])[1] is first
    put(1, encode(record_of("a", notes="changed")))
    assert [entry.record.notes for entry in shown.of(db, [1, 2])] == ["changed", ""]
    db.execute("UPDATE shown SET alias = 'other' WHERE n = 1")
    assert shown.of(db, [1])[0].alias == "other"
    db.execute("DELETE FROM shown WHERE n = 2")
    with pytest.raises(sqlite3.DatabaseError):
        shown.of(db, [1, 2])


def test_whoever_looks_at_an_older_state_sees_that(
    tmp_path: Path, record_of: RecordOf, shown: Shown
) -> None:
    path = tmp_path / "index"
    schema = files("sleap_rtc.library") / "migrations" / "0001_index.sql"
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.executescript(f"PRAGMA journal_mode = WAL; {schema.read_text('utf-8')}")
        writer.execute("INSERT INTO shown VALUES (1, NULL, ?)", (encode(record_of("old")),))
        with sqlite3.connect(path, isolation_level=None) as reader:
            reader.execute("BEGIN")
            assert shown.of(reader, [1])[0].record.name == "old"
            writer.execute("UPDATE shown SET record = ?", (encode(record_of("new")),))
            for _ in range(2):
                assert shown.of(writer, [1])[0].record.name == "new"
                assert shown.of(reader, [1])[0].record.name == "old"
        reader.close()
    writer.close()


@pytest.mark.parametrize("data", [b"", b"\x80", b'{"id": 5}', b"{", b"\xff", b"[]"])
def test_what_is_no_record_is_noticed(
    db: sqlite3.Connection, put: Put, shown: Shown, data: bytes
) -> None:
    put(1, data)
    with pytest.raises(msgspec.DecodeError):
        shown.of(db, [1])


def test_no_more_than_two_generations_are_remembered(
    db: sqlite3.Connection,
    put: Put,
    record_of: RecordOf,
    shown: Shown,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembering, "MOST", 3)
    for n in range(20):
        put(n, encode(record_of(str(n))))
    (first,) = shown.of(db, [0])
    for n in range(1, 20):
        assert shown.of(db, [n, 0])[1] is first  # what is asked for again and again stays
        memory = shown._memory
        assert len(memory._recent) + len(memory._older) <= 2 * (3 + 1)
    assert [entry.record.name for entry in shown.of(db, range(10))] == list(map(str, range(10)))


def test_what_is_large_is_read_each_time(
    db: sqlite3.Connection, put: Put, record_of: RecordOf, shown: Shown
) -> None:
    put(1, encode(record_of("a", unknown={"later": "x" * LARGEST})))
    first = shown.of(db, [1])
    assert first[0].record.unknown == {"later": "x" * LARGEST}
    assert shown._memory._recent == {}
    assert shown.of(db, [1]) == first
