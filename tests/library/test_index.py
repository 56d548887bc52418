import errno
import fcntl
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.models import Metrics, ModelRecord
from sleap_rtc.errors import Busy, OutOfSpace
from sleap_rtc.library import index as index_module
from sleap_rtc.library import marks, records
from sleap_rtc.library.bulk import TOGETHER, Bulk
from sleap_rtc.library.claiming import Prepared
from sleap_rtc.library.entries import Query
from sleap_rtc.library.merging import Report
from sleap_rtc.library.registry import Registry

RecordOf = Callable[..., ModelRecord]
OpenOne = Callable[..., Registry]


def listed(registry: Registry) -> list[str]:
    return [entry.record.name for entry in registry.list(Query(sort="name")).entries]


def database(tmp_path: Path, index_dir: str = "index") -> Path:
    (folder,) = (tmp_path / index_dir).iterdir()
    return folder / (folder / "current").read_text()


def looked_long_ago(tmp_path: Path, *, tree_s: float = 1e9, marks_s: float = 1e9) -> None:
    """Let an index believe that it looked so many seconds ago."""
    with sqlite3.connect(database(tmp_path)) as db:
        for what, age in (("tree", tree_s), ("marks", marks_s)):
            db.execute("UPDATE looked SET at = ? WHERE what = ?", (time.time() - age, what))
    db.close()


@pytest.mark.parametrize("others_index", ["index", "other-host"])
def test_changes_by_others_are_seen_at_once(
    open_registry: OpenOne, record_of: RecordOf, others_index: str
) -> None:
    mine, theirs = open_registry(), open_registry(others_index)
    assert listed(mine) == []
    model = theirs.register(record_of("a")).id
    assert listed(mine) == ["a"]
    theirs.update(model, lambda old: replace(old, notes="hello"))
    assert [e.record.notes for e in mine.list(Query(text="hello")).entries] == ["hello"]
    theirs.set_alias("fly", model)
    assert mine.list().entries[0].alias == "fly"
    theirs.remove_alias("fly")
    assert mine.list().entries[0].alias is None
    theirs.delete(model)
    assert listed(mine) == []


def test_a_change_is_seen_even_if_it_was_read_before_it_was_made(
    open_registry: OpenOne, record_of: RecordOf
) -> None:
    mine, theirs = open_registry("mine"), open_registry("theirs")
    model = theirs.register(record_of("a")).id

    def change(old: ModelRecord) -> ModelRecord:
        assert mine.list().entries[0].record.notes == ""  # the mark is there, the change is not
        return replace(old, notes="b")

    theirs.update(model, change)
    assert mine.list().entries[0].record.notes == "b"


def test_a_mark_of_a_writer_that_died_is_read_every_time(
    registry: Registry, record_of: RecordOf, models: Path
) -> None:
    entry = registry.register(record_of("a"))
    mark = models / ".changes" / f"{'0' * 16}~{entry.directory.name}"
    mark.touch()
    for notes in ("b", "c"):
        path = entry.directory / ".record" / f"{len(notes) + ord(notes):08d}.json"
        data = (entry.directory / ".record" / "00000001.json").read_text()
        path.write_text(data.replace('"notes":""', f'"notes":"{notes}"'))
        assert registry.list().entries[0].record.notes == notes


def test_taken_in_marks_are_forgotten_when_they_are_gone(
    registry: Registry, record_of: RecordOf, models: Path, tmp_path: Path
) -> None:
    registry.register(record_of("a"))
    assert listed(registry) == ["a"]
    for path in (models / ".changes").iterdir():
        path.unlink()
    registry.register(record_of("b"))
    assert listed(registry) == ["a", "b"]
    db = sqlite3.connect(database(tmp_path))
    assert db.execute("SELECT count(*) FROM mark").fetchone() == (1,)
    db.close()


def test_nothing_new_costs_no_write(
    registry: Registry, record_of: RecordOf, models: Path, tmp_path: Path
) -> None:
    registry.register(record_of("a"))
    past = time.time() - 10
    listed(registry)
    os.utime(models / ".changes", (past, past))
    listed(registry)
    db = sqlite3.connect(database(tmp_path), isolation_level=None)
    db.execute("BEGIN IMMEDIATE")  # a writer would have to wait for this one
    assert listed(registry) == ["a"]
    db.execute("ROLLBACK")
    db.close()


def test_a_long_log_is_moved_into_the_database_in_the_background(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_TIDY_AFTER", 2)
    moved: list[str] = []
    done = threading.Event()
    real = index_module.Database.checkpoint

    def checkpoint(db: index_module.Database) -> None:
        moved.append(threading.current_thread().name)
        real(db)
        done.set()

    monkeypatch.setattr(index_module.Database, "checkpoint", checkpoint)
    registry, other = open_registry(), open_registry("other")
    for name in ("a", "b", "c"):
        other.register(record_of(name))
    assert listed(registry) == ["a", "b", "c"]  # a new database is let alone while it is filled
    assert moved == []
    other.register(record_of("d"))
    assert listed(registry) == ["a", "b", "c", "d"]
    assert moved == []
    size = database(tmp_path).stat().st_size
    other.register(record_of("e", notes=" ".join(map(str, range(180)))))
    assert listed(registry) == ["a", "b", "c", "d", "e"]
    assert done.wait(60)
    assert moved == ["library log"]
    assert database(tmp_path).stat().st_size >= size
    registry.close()
    assert listed(registry) == ["a", "b", "c", "d", "e"]


# Looking through the tree


@pytest.mark.parametrize("small", [0, 100])
def test_after_a_great_many_changes_all_is_looked_through(
    open_registry: OpenOne,
    record_of: RecordOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: int,
) -> None:
    monkeypatch.setattr(index_module, "_SMALL", small)
    mine, theirs = open_registry(), open_registry("theirs")
    theirs.register(record_of("a"))
    assert listed(mine) == ["a"]
    before = database(tmp_path).name
    with marks.changing(mine.models_dir, [marks.ALL]):
        for name in ("b", "c"):
            folder, record = theirs.claims.new_folder(), record_of(name)
            made = Prepared(given=record, made=records.create(folder, record))
            with theirs.claims.together({folder: made}):
                theirs.claims.take_in(record, folder, revive=False)
        assert listed(mine) == ["a"]
    if small:
        assert listed(mine) == ["a", "b", "c"]
        assert database(tmp_path).name == before
        return
    mine.list()  # in the background, where a new index is built sooner than this one is mended
    mine.close()
    assert listed(mine) == ["a", "b", "c"]
    assert database(tmp_path).name != before
    assert mine.recovered is None


@pytest.mark.parametrize("small", [0, 100])
def test_after_a_great_many_changes_whose_writer_died_all_is_looked_through(
    open_registry: OpenOne,
    record_of: RecordOf,
    monkeypatch: pytest.MonkeyPatch,
    small: int,
) -> None:
    monkeypatch.setattr(index_module, "_SMALL", small)
    mine, theirs = open_registry(), open_registry("theirs")
    theirs.register(record_of("a"))
    assert listed(mine) == ["a"]
    died = mine.models_dir / ".changes" / f"{'0' * 16}~{marks.ALL}"
    with marks.changing(mine.models_dir, [marks.ALL]):
        folder, record = theirs.claims.new_folder(), record_of("b")
        made = Prepared(given=record, made=records.create(folder, record))
        with theirs.claims.together({folder: made}):
            theirs.claims.take_in(record, folder, revive=False)
        assert listed(mine) == ["a"]
        left = next(n for n in marks.names(mine.models_dir) if n.endswith(f"~{marks.ALL}"))
        (mine.models_dir / ".changes" / left).rename(died)
        died.with_name("copy").touch()
        died.with_name("copy").replace(died)  # it has no lock, as after a kill
        mine.list()
        mine.close()  # a large library is looked through while it is answered
        assert listed(mine) == ["a", "b"]
        before = mine._index._looking
        assert listed(mine) == ["a", "b"]
        assert mine._index._looking is before  # and once only


def test_who_is_killed_while_it_looks_leaves_that_to_the_next_one(
    open_registry: OpenOne, record_of: RecordOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = open_registry()
    mine.register(record_of("a"))
    assert listed(mine) == ["a"]
    folder, record = mine.claims.new_folder(), record_of("b")
    made = Prepared(given=record, made=records.create(folder, record))
    with (
        marks.changing(mine.models_dir, [marks.ALL]),
        mine.claims.together({folder: made}),
    ):
        mine.claims.take_in(record, folder, revive=False)
    with monkeypatch.context() as patch:
        patch.setattr(mine._index, "_look", lambda *_: None)
        assert listed(mine) == ["a"]
    assert listed(open_registry()) == ["a", "b"]


def test_an_index_that_most_marks_are_new_to_is_built_anew(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_SMALL", 1)
    mine, theirs = open_registry(), open_registry("theirs")
    theirs.register(record_of("a"))
    assert listed(mine) == ["a"]
    before = database(tmp_path).name
    for name in ("b", "c"):
        theirs.register(record_of(name))
    assert listed(mine) == ["a", "b", "c"]
    assert database(tmp_path).name != before
    theirs.register(record_of("d"))
    assert listed(mine) == ["a", "b", "c", "d"]
    assert mine.recovered is None


def break_in(registry: Registry, name: str) -> None:
    """Remove a model behind the registry's back."""
    (entry,) = registry.list(Query(text=name)).entries
    shutil.rmtree(entry.directory)


def test_what_changed_without_marks_is_found_by_looking(
    registry: Registry, record_of: RecordOf, models: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        registry.register(record_of(name))
    break_in(registry, "a")
    copied = tmp_path / "copied"
    other = Registry(copied, index_dir=tmp_path / "index2").register(record_of("c"))
    shutil.copytree(other.directory, models / other.directory.name)
    assert listed(registry) == ["a", "b"]
    looked_long_ago(tmp_path, marks_s=0)
    assert listed(registry) == ["b", "c"]


def test_an_index_that_slept_for_long_looks_before_it_answers(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(index_module, "_SMALL", 0)
    registry = open_registry()
    for name in ("a", "b"):
        registry.register(record_of(name))
    break_in(registry, "a")
    looked_long_ago(tmp_path)
    assert listed(registry) == ["b"]


def test_a_large_library_is_looked_through_in_the_background(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(index_module, "_SMALL", 0)
    registry = open_registry()
    for name in ("a", "b"):
        registry.register(record_of(name))
    break_in(registry, "a")
    looked_long_ago(tmp_path, marks_s=30)
    answer, names = threading.Event(), index_module.layout.names

    def slow(models: Path) -> Any:
        answer.wait(60)
        return names(models)

    monkeypatch.setattr(index_module.layout, "names", slow)
    assert listed(registry) == ["a", "b"]  # answered while the look waits
    answer.set()
    registry.close()
    monkeypatch.undo()
    assert listed(open_registry()) == ["b"]


def test_what_comes_during_a_look_in_the_background_is_looked_for_as_well(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(index_module, "_SMALL", 0)
    registry, other = open_registry(), open_registry("other")
    registry.register(record_of("a"))
    assert listed(registry) == ["a"]
    looked_long_ago(tmp_path, marks_s=30)
    begun, go_on, names = threading.Event(), threading.Event(), index_module.layout.names

    def slow(models: Path, **more: Any) -> Any:
        found = list(names(models, **more))
        if threading.current_thread().name == "library look":
            begun.set()
            go_on.wait(60)
        return found

    monkeypatch.setattr(index_module.layout, "names", slow)
    assert listed(registry) == ["a"]
    assert begun.wait(60)
    with Bulk(other, Report("elsewhere"), revive=False) as bulk:
        for number in range(TOGETHER):
            bulk.add(record_of(f"m{number}", status="missing"))
    assert listed(registry) == ["a"]  # the look is past them, and still under way
    go_on.set()
    registry.close()
    assert len(listed(registry)) == 1 + TOGETHER


@pytest.mark.parametrize("fault", [PermissionError(13, "not yours"), Busy(what="it", by="")])
def test_a_look_in_the_background_that_fails_harms_nobody(
    registry: Registry, record_of: RecordOf, tmp_path: Path, monkeypatch: Any, fault: Exception
) -> None:
    registry.register(record_of("a"))
    listed(registry)
    looked_long_ago(tmp_path, marks_s=30)
    monkeypatch.setattr(index_module, "_SMALL", 0)

    def fail(models: Path) -> Any:
        raise fault

    monkeypatch.setattr(index_module.layout, "names", fail)
    assert listed(registry) == ["a"]
    registry.close()


def test_a_model_that_cannot_be_read_is_left_out_until_it_can(
    registry: Registry, record_of: RecordOf, tmp_path: Path
) -> None:
    entry = registry.register(record_of("a"))
    path = entry.directory / ".record" / "00000001.json"
    data = path.read_bytes()
    path.write_bytes(b"?")
    assert listed(registry) == []
    path.unlink()
    path.write_bytes(data)
    looked_long_ago(tmp_path, marks_s=0)
    assert listed(registry) == ["a"]


# Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def scribble(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 1_000)


def scribble_inside(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4_096:] = b"\x5a" * (len(data) - 4_096)
    path.write_bytes(data)


def from_the_future(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


def drop_a_table(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TABLE words")
    db.commit()
    db.close()


def point_elsewhere(path: Path) -> None:
    (path.parent / "current").write_text("../../etc/passwd")


def point_nowhere(path: Path) -> None:
    (path.parent / "current").write_text("0000000000000000.sqlite")


def point_to_noise(path: Path) -> None:
    (path.parent / "current").write_bytes(b"\xff\xfe\0")


def spoil_a_row(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE shown SET record = '{\"id\": 5}'")
    db.close()


def lose_rows(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM shown")
    db.close()


def lose_the_state(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM state")
    db.close()


DAMAGE = [
    lose_rows,
    lose_the_state,
    Path.unlink,
    truncate,
    scribble,
    scribble_inside,
    from_the_future,
    drop_a_table,
    point_elsewhere,
    point_nowhere,
    point_to_noise,
    lambda path: shutil.rmtree(path.parent),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_built_anew_by_whoever_opens_it(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    first = open_registry()
    for name in ("a", "b"):
        first.register(record_of(name))
    assert listed(first) == ["a", "b"]
    first.close()
    damage(database(tmp_path))
    assert listed(open_registry()) == ["a", "b"]
    assert database(tmp_path).is_file()


@pytest.mark.parametrize("damage", [drop_a_table, point_nowhere, spoil_a_row])
def test_a_damaged_index_is_built_anew_while_it_is_open(
    registry: Registry, record_of: RecordOf, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    registry.register(record_of("a"))
    assert listed(registry) == ["a"]
    before = database(tmp_path)
    damage(before)
    assert [e.record.name for e in registry.list(Query(text="a")).entries] == ["a"]
    assert database(tmp_path).name != before.name
    assert not before.exists()


def test_a_list_keeps_what_a_later_version_wrote(registry: Registry, record_of: RecordOf) -> None:
    record = record_of("a", metrics=Metrics(unknown={"colour": "red"}), unknown={"later": [1]})
    entry = registry.register(record)
    assert entry.record.unknown == {"later": [1]}
    assert registry.list().entries == (entry,)


def test_a_deleted_index_folder_is_made_again_while_it_is_open(
    registry: Registry, record_of: RecordOf, tmp_path: Path
) -> None:
    registry.register(record_of("a"))
    assert listed(registry) == ["a"]
    shutil.rmtree(tmp_path / "index")
    assert listed(registry) == ["a"]


def test_a_rebuilt_index_is_noticed_by_others(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path
) -> None:
    one, two = open_registry(), open_registry()
    one.register(record_of("a"))
    assert listed(one) == listed(two) == ["a"]
    drop_a_table(database(tmp_path))
    two.list(Query(text="a"))
    one.register(record_of("b"))
    assert listed(one) == listed(two) == ["a", "b"]
    folder = database(tmp_path).parent
    assert len(list(folder.glob("*.sqlite"))) == 1


def test_many_who_find_it_damaged_build_it_once(
    open_registry: OpenOne, record_of: RecordOf, tmp_path: Path
) -> None:
    first = open_registry()
    first.register(record_of("a"))
    listed(first)
    first.close()
    scribble(database(tmp_path))
    registries = [open_registry() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(listed, registries))
    assert answers == [["a"]] * 6
    assert len(list(database(tmp_path).parent.glob("*.sqlite"))) == 1


def test_every_library_has_an_index_of_its_own(
    tmp_path: Path, record_of: RecordOf, models: Path
) -> None:
    (tmp_path / "link").symlink_to(models)
    one = Registry(models, index_dir=tmp_path / "index")
    same = Registry(tmp_path / "link", index_dir=tmp_path / "index")
    other = Registry(tmp_path / "others", index_dir=tmp_path / "index")
    one.register(record_of("a"))
    assert (listed(one), listed(same), listed(other)) == (["a"], ["a"], [])
    assert len(list((tmp_path / "index").iterdir())) == 2
    for registry in (one, same, other):
        registry.close()


def test_a_full_disk_is_said_and_the_old_index_stands(
    registry: Registry, record_of: RecordOf, tmp_path: Path, monkeypatch: Any
) -> None:
    registry.register(record_of("a"))
    assert listed(registry) == ["a"]

    def full(*_: Any) -> Any:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    registry.register(record_of("b"))
    monkeypatch.setattr(index_module.rows, "put", full)
    with pytest.raises(OutOfSpace):
        registry.list()
    monkeypatch.undo()
    assert listed(registry) == ["a", "b"]


def test_an_index_held_for_too_long_is_busy_not_damaged(
    models: Path, record_of: RecordOf, tmp_path: Path, monkeypatch: Any
) -> None:
    open_database = index_module.Database
    monkeypatch.setattr(
        index_module, "Database", lambda *args, **more: open_database(*args, wait_s=0.05, **more)
    )
    with Registry(models, index_dir=tmp_path / "index") as registry:
        registry.register(record_of("a"))
        assert listed(registry) == ["a"]
        registry.register(record_of("b"))
        db = sqlite3.connect(database(tmp_path), isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy):
            registry.list()
        db.execute("ROLLBACK")
        db.close()
        assert listed(registry) == ["a", "b"]


# Building


def test_it_is_told_how_far_a_new_index_is(
    models: Path, tmp_path: Path, record_of: RecordOf
) -> None:
    with Registry(models, index_dir=tmp_path / "index") as registry:
        for n in range(3):
            registry.register(record_of(str(n)))
    told: list[tuple[int, int]] = []
    other = tmp_path / "other"
    with Registry(models, index_dir=other, told=lambda *far: told.append(far)) as registry:
        assert len(listed(registry)) == 3
        assert told[:2] == [(1, 1), (0, 6)]
        assert told[-1] == (6, 6)
        told.clear()
        assert len(listed(registry)) == 3
        assert told == []


def test_whoever_waits_for_another_process_is_told_so(
    models: Path, tmp_path: Path, record_of: RecordOf
) -> None:
    with Registry(models, index_dir=tmp_path / "index") as registry:
        registry.register(record_of("a"))
        listed(registry)
    path = database(tmp_path)
    path.unlink()
    held = os.open(path.with_name("lock"), os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    told: list[tuple[int, int]] = []

    def tell(done: int, of: int) -> None:
        told.append((done, of))
        if len(told) == 2:
            fcntl.flock(held, fcntl.LOCK_UN)

    with Registry(models, index_dir=tmp_path / "index", told=tell) as registry:
        assert listed(registry) == ["a"]
    os.close(held)
    assert told[:3] == [(0, 1), (0, 1), (1, 1)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EIO, "bad disk")])
def test_an_index_that_was_not_finished_is_removed(
    models: Path, tmp_path: Path, record_of: RecordOf, error: Any
) -> None:
    with Registry(models, index_dir=tmp_path / "index") as registry:
        registry.register(record_of("a"))

    def stop(done: int, of: int) -> None:
        if (done, of) == (0, 2):
            raise error

    other = tmp_path / "other"
    with (
        Registry(models, index_dir=other, told=stop) as registry,
        pytest.raises((KeyboardInterrupt, OSError)),
    ):
        registry.list()
    assert [path.name for path in other.rglob("*") if path.is_file()] == ["lock"]
    with Registry(models, index_dir=other) as registry:
        assert listed(registry) == ["a"]


def test_threads_share_an_index(registry: Registry, record_of: RecordOf) -> None:
    def work(number: int) -> int:
        registry.register(record_of(f"m{number:02d}"))
        return len(registry.list(Query(text=f"m{number:02d}")).entries)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(24))) == [1] * 24
    assert len(listed(registry)) == 24


def test_marks_outlive_the_looks(registry: Registry) -> None:
    assert index_module.LOOK_EVERY_S * 2 < marks.KEPT_S
    assert registry.list().entries == ()


def test_an_index_of_a_library_that_was_removed_tells_nothing_of_the_next_one(
    open_registry: OpenOne, record_of: RecordOf
) -> None:
    former = open_registry()
    former.register(record_of("a"))
    assert listed(former) == ["a"]
    former.close()
    shutil.rmtree(former.models_dir)
    registry = open_registry()
    registry.register(record_of("b"))
    assert listed(registry) == ["b"]
