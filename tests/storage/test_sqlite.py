import contextlib
import errno
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from loguru import logger

from sleap_rtc.errors import Busy, NewerFormat, OutOfSpace
from sleap_rtc.storage import sqlite
from sleap_rtc.storage.sqlite import Database


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_first.sql").write_text("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT);")
    (folder / "README.md").write_text("not SQL")
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db.sqlite"


@pytest.fixture
def db(path: Path, schema: Path) -> Any:
    database = Database(path, schema, wait_s=0.2)
    yield database
    database.close()


def rows(db: Database) -> list[int]:
    with db.read() as reader:
        return [n for (n,) in reader.execute("SELECT n FROM t ORDER BY n")]


def insert(db: Database, n: int) -> None:
    with db.write() as writer:
        writer.execute("INSERT INTO t (n, s) VALUES (?, 'x')", (n,))


def test_what_is_written_is_read(db: Database) -> None:
    insert(db, 1)
    assert rows(db) == [1]


def test_a_transaction_that_raises_leaves_nothing(db: Database) -> None:
    def half() -> None:
        with db.write() as writer:
            writer.execute("INSERT INTO t VALUES (1, 'x')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert rows(db) == []
    insert(db, 2)
    assert rows(db) == [2]


def test_readers_cannot_write(db: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"), db.read() as reader:
        reader.execute("INSERT INTO t VALUES (1, 'x')")


def test_a_reader_sees_one_state(db: Database) -> None:
    insert(db, 1)
    with db.read() as reader:
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
        insert(db, 2)
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert rows(db) == [1, 2]


def test_threads_take_turns(db: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: insert(db, n), range(50)))
    assert rows(db) == list(range(50))


def test_a_file_held_by_another_is_busy(db: Database, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy, match=r"for more than 0\.2 s"):
        insert(db, 1)
    other.execute("ROLLBACK")
    other.close()
    insert(db, 1)


def test_a_full_disk_is_said(db: Database) -> None:
    with db.write() as writer:
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutOfSpace), db.write() as writer:
        writer.execute("INSERT INTO t VALUES (1, ?)", ("x" * 1_000_000,))
    assert rows(db) == []


def test_where_it_has_a_name_its_path_is_in_the_log_alone(path: Path, schema: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    named = Database(path, schema, name="The server's database", wait_s=0.1)
    with contextlib.closing(named), contextlib.closing(Database(path, schema)) as other:
        with named.write() as writer:
            pages = writer.execute("PRAGMA page_count").fetchone()[0]
            writer.execute(f"PRAGMA max_page_count = {pages}")
        full = pytest.raises(OutOfSpace, match="The server's database has")
        with full as no_room, named.write() as writer:
            writer.execute("INSERT INTO t VALUES (1, ?)", ("x" * 1_000_000,))
        held = pytest.raises(Busy, match="The server's database is in use")
        with other.write(), held as busy, named.write():
            pass
    logger.remove(sink)
    for caught in (no_room, busy):
        assert str(path.parent) not in caught.value.message
    assert [line.startswith(f"{path}: ") for line in lines] == [True, True]


def test_other_mistakes_are_passed_on(db: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"), db.read() as reader:
        reader.execute("SELECT * FROM absent")


def test_a_reader_at_work_outlives_the_close(path: Path, schema: Path) -> None:
    db = Database(path, schema)
    with db.read() as reader:
        db.close()
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        insert(db, 1)


# Filling


def test_a_file_is_filled_and_used_as_any_other(db: Database, path: Path) -> None:
    assert rows(db) == []  # a reader is open, and its log
    with db.fill() as writer:
        writer.executemany("INSERT INTO t VALUES (?, 'x')", [(n,) for n in range(1_000)])
        assert not path.with_name("db.sqlite-wal").exists()
    assert rows(db) == list(range(1_000))
    with db.write() as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)
        assert writer.execute("PRAGMA cache_size").fetchone() == (-2000,)
    insert(db, 1_000)
    other = sqlite3.connect(path)
    assert other.execute("SELECT count(*) FROM t").fetchone() == (1_001,)
    other.close()


def test_a_full_disk_is_said_while_a_file_is_filled(db: Database) -> None:
    with db.write() as writer:
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutOfSpace), db.fill() as writer:
        writer.execute("INSERT INTO t VALUES (1, ?)", ("x" * 1_000_000,))


# Schemas


def test_a_later_step_keeps_the_rows_and_a_copy(path: Path, schema: Path) -> None:
    db = Database(path, schema)
    insert(db, 1)
    db.close()
    (schema / "0002_more.sql").write_text(
        "ALTER TABLE t ADD COLUMN later TEXT DEFAULT 'y';\n"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN\n  UPDATE t SET s = 'z'; SELECT 1;\nEND;\n"
        "-- nothing more\n"
    )
    db = Database(path, schema)
    with db.read() as reader:
        assert reader.execute("SELECT n, later FROM t").fetchall() == [(1, "y")]
    insert(db, 2)
    with db.read() as reader:
        assert reader.execute("SELECT s FROM t").fetchall() == [("z",), ("z",)]
    db.close()
    copy = sqlite3.connect(path.with_name("db.sqlite.before-2"))
    assert copy.execute("SELECT * FROM t").fetchall() == [(1, "x")]
    copy.close()
    Database(path, schema).close()


def test_half_a_copy_is_none(path: Path, schema: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(path, schema)
    insert(db, 1)
    db.close()
    (schema / "0002_more.sql").write_text("CREATE TABLE u (n);")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    with monkeypatch.context() as at_once:
        at_once.setattr("sleap_rtc.storage.sqlite.sync_file", full)
        with pytest.raises(OSError, match="full"):
            Database(path, schema)
    assert [each.name for each in path.parent.glob("db.sqlite.*") if "before" in each.name] == []
    Database(path, schema).close()
    copy = sqlite3.connect(path.with_name("db.sqlite.before-2"))
    assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]
    copy.close()


def test_a_step_that_fails_is_undone(path: Path, schema: Path) -> None:
    Database(path, schema).close()
    (schema / "0002_bad.sql").write_text("CREATE TABLE u (n);\nCREATE TABLE t (n);\n")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        Database(path, schema)
    plain = sqlite3.connect(path)
    assert plain.execute("PRAGMA user_version").fetchone() == (1,)
    assert plain.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
    plain.close()


def test_a_later_schema_is_refused(path: Path, schema: Path) -> None:
    (schema / "0002_more.sql").write_text("CREATE TABLE u (n);")
    Database(path, schema).close()
    (schema / "0002_more.sql").unlink()
    with pytest.raises(NewerFormat, match="has format 2"):
        Database(path, schema)


@pytest.mark.parametrize("extra", ["0003_gap.sql", "0001_twice.sql"])
def test_steps_are_numbered_without_gaps(path: Path, schema: Path, extra: str) -> None:
    (schema / extra).write_text("CREATE TABLE u (n);")
    with pytest.raises(ValueError, match="numbered 0001"):
        Database(path, schema)
    empty = schema / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="numbered 0001"):
        Database(path, empty)


def test_who_waits_in_vain_for_another_is_told(path: Path, schema: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            Database(path, schema, wait_s=0.05)
        other.execute("ROLLBACK")
    Database(path, schema, wait_s=0.05).close()


def test_the_log_is_moved_into_the_file_beside_readers(path: Path, schema: Path) -> None:
    database = Database(path, schema, log_pages=100_000)
    before = path.stat().st_size
    with database.write() as writer:
        writer.executemany("INSERT INTO t (s) VALUES (?)", [("x" * 1_000,)] * 2_000)
    assert path.stat().st_size == before
    with database.read() as reader:
        (count,) = reader.execute("SELECT count(*) FROM t").fetchone()
        database.checkpoint()
        assert path.stat().st_size > 2_000_000
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (count,)
    database.close()
    with pytest.raises(sqlite3.ProgrammingError, match="is closed"):
        database.checkpoint()


def test_what_is_closed_is_not_opened_again(path: Path, schema: Path) -> None:
    database = Database(path, schema)
    database.close()
    path.unlink()
    with pytest.raises(sqlite3.ProgrammingError, match="is closed"), database.read():
        pass
    assert not path.exists()


def test_many_may_open_a_new_file_at_once(path: Path, schema: Path) -> None:
    barrier = threading.Barrier(6)

    def open_one(n: int) -> None:
        barrier.wait()
        db = Database(path, schema)
        insert(db, n)
        db.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(open_one, range(6)))
    db = Database(path, schema)
    assert rows(db) == list(range(6))
    db.close()


def test_noise_is_no_database(path: Path, schema: Path) -> None:
    path.write_bytes(b"noise" * 1_000)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        Database(path, schema)


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_that_was_committed(path: Path, schema: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sleap_rtc.storage.sqlite import Database\n"
        "db = Database(Path(sys.argv[1]), Path(sys.argv[2])); n = 0\n"
        "while True:\n"
        "    with db.write() as w:\n"
        "        n = w.execute('INSERT INTO t (s) VALUES (?)', ('y',)).lastrowid\n"
        "    print(n, flush=True)\n"
    )
    last = 0
    for turn in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(schema)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(20 + 7 * turn):
            last = int(writer.stdout.readline())
        writer.kill()
        said = writer.stdout.read().split()  # whole lines only count as said
        writer.wait()
        writer.stdout.close()
        last = max([last, *map(int, said[:-1])])
        db = Database(path, schema)
        assert rows(db)[:last] == list(range(1, last + 1))
        db.close()


# Where it may be


MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:50 / /home rw - nfs4 server:/home rw
41 40 0:51 / /home/me/local\\040disk rw,relatime master:2 - xfs /dev/vdb rw
42 22 0:52 / /mnt/over rw - ext4 /dev/vdc rw
43 22 0:53 / /mnt/over rw - lustre mgs:/scratch rw
not a mount
"""


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("/tmp/x", "ext4"),
        ("/home/me", "nfs4"),
        ("/homeless", "ext4"),
        ("/home/me/local disk/x", "xfs"),
        ("/mnt/over/x", "lustre"),
    ],
)
def test_the_innermost_mount_decides(where: str, kind: str) -> None:
    assert sqlite._kind_of(Path(where), MOUNTS) == kind


def test_network_file_systems_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: MOUNTS)
    assert sqlite.network_file_system(Path("/home/me/not there yet")) == "nfs4"
    assert sqlite.network_file_system(Path("/home/me/local disk")) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert sqlite.network_file_system(Path("/home/me")) is None


def test_without_a_list_of_mounts_everything_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert sqlite.network_file_system(Path("/home")) is None


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache on a network file system, and temporary space on a local one."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sqlite, "VAR_TMP", tmp_path / "var")
    (tmp_path / "var").mkdir()
    return tmp_path


def test_the_users_cache_is_preferred(caches: Path) -> None:
    folder = sqlite.local_folder("index")
    assert folder == caches / "cache" / "index"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_cache_on_the_network_is_passed_over(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kind(path: Path) -> str | None:
        return "nfs4" if "cache" in path.name else None

    monkeypatch.setattr(sqlite, "network_file_system", kind)
    assert sqlite.local_folder("index") == caches / "var" / f"sleap-rtc-{os.getuid()}" / "index"


def test_a_strangers_folder_in_temporary_space_is_passed_over(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (caches / "cache").write_text("a file")
    (caches / "elsewhere").mkdir()
    (caches / "var" / f"sleap-rtc-{os.getuid()}").symlink_to(caches / "elsewhere")
    assert sqlite.local_folder("index") == caches / f"sleap-rtc-{os.getuid()}" / "index"


def test_when_nothing_is_local_it_is_a_folder_for_this_process_alone(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "network_file_system", lambda _: "lustre")
    one, two = sqlite.local_folder("index"), sqlite.local_folder("index")
    assert one != two
    assert one.is_relative_to(caches)
