"""What rooms have, as the database counts it by itself, is what their rows say."""

from __future__ import annotations

import contextlib
import importlib.resources
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.auth.certificates import Member
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import QuotaExceeded
from sleap_rtc.server.store import FILE, Store
from sleap_rtc.server.usage import Quota, Usage, check_quota, growth, used_by
from sleap_rtc.storage.sqlite import Database
from sleap_rtc.testing.made_room import MadeRoom

ROOM = MadeRoom(3).room
NOW = datetime(2026, 3, 1, tzinfo=UTC)
_OBJECT = (
    "INSERT INTO objects VALUES (?1, ?2, 'rooms', ?3, 'd', 1.0) "
    "ON CONFLICT (key) DO UPDATE SET size = excluded.size"
)
_UPLOAD = (
    "INSERT OR IGNORE INTO uploads VALUES (?1, ?2, 'rooms', '', 'd', ?1, '', ?3, 1, 'open', 1.0, "
    "'sha256')"
)
_EXPECTED = (
    "INSERT INTO expected VALUES (?1, 'd', ?2, 'rooms', ?3, 1.0) "
    "ON CONFLICT (key, device) DO UPDATE SET size = max(size, excluded.size)"
)
_STEPS = {
    "object": _OBJECT,
    "upload": _UPLOAD,
    "other upload": _UPLOAD.replace("VALUES (?1", "VALUES (?1 || '2'"),
    "expect": _EXPECTED,
    "other expects": _EXPECTED.replace("'d'", "'e'"),
    "complete": "UPDATE uploads SET state = 'completing' WHERE id = ?1 AND ?2 != '' AND ?3 >= 0",
    "done": "UPDATE uploads SET state = 'done' WHERE id = ?1 AND ?2 != '' AND ?3 >= 0",
    "open": "UPDATE uploads SET state = 'open' WHERE id = ?1 AND ?2 != '' AND ?3 >= 0",
    "no object": "DELETE FROM objects WHERE key = ?1 AND ?2 != '' AND ?3 >= 0",
    "no upload": "DELETE FROM uploads WHERE key = ?1 AND ?2 != '' AND ?3 >= 0",
    "not expected": "DELETE FROM expected WHERE key = ?1 AND ?2 != '' AND ?3 >= 0",
}
_THERE = "SELECT key, size FROM objects"
_COMING = (
    "SELECT key, size FROM uploads WHERE state != 'done' UNION ALL SELECT key, size FROM expected"
)


def counted(connection: sqlite3.Connection) -> Usage:
    """The truth, from all rows: an object in whose place something is on its way counts in it."""
    there = dict(connection.execute(_THERE).fetchall())
    coming: dict[str, list[int]] = {key: [] for key in there}
    for key, size in connection.execute(_COMING).fetchall():
        coming.setdefault(key, []).append(size)
    size = files = 0
    for key, sizes in coming.items():
        rest = sorted(sizes)
        largest = rest.pop() if rest else 0
        size += max(largest, there.get(key, 0)) + sum(rest)
        files += 1 + len(rest)
    return Usage(size=size, files=files)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    store = Store(tmp_path_factory.mktemp("server"))
    device = DeviceId("a" * 64)
    code = store.new_code(now=NOW)
    store.register_by_code(device, code=code, name="a", program="", now=NOW)
    ends = NOW + timedelta(days=30)
    owner = Member(device=device, room=ROOM, name="x", role="owner", expires=ends)
    store.create_room(owner, name="lab", now=NOW)
    yield store.database
    store.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(_STEPS)), st.sampled_from("ab"), st.integers(0, 9)),
        max_size=20,
    )
)
def test_it_counts_what_there_is(database: Database, steps: list[tuple[str, str, int]]) -> None:
    for name, key, size in steps:
        with database.write() as writer:
            writer.execute(_STEPS[name], (key, ROOM, size))
    with database.read() as reader:
        used = used_by(reader, ROOM)
        assert used == counted(reader)
        assert used_by(reader, RoomId("0" * 32)) == Usage()


def test_what_was_on_its_way_before_an_upgrade(tmp_path: Path) -> None:
    made = Path(str(importlib.resources.files("sleap_rtc.server") / "schema"))
    (tmp_path / "old").mkdir()
    for script in sorted(made.iterdir())[:7]:
        shutil.copy(script, tmp_path / "old")
    before = Database(tmp_path / FILE, tmp_path / "old")
    with contextlib.closing(before), before.write() as writer:
        writer.execute("INSERT INTO devices VALUES ('d', 'x', '', 1, 1.0, 1.0)")
        writer.execute("INSERT INTO rooms VALUES (?, 'lab', 'd', 1.0)", (ROOM,))
        for step, key, size in (("object", "a", 5), ("upload", "a", 7), ("expect", "b", 1)):
            writer.execute(_STEPS[step], (key, ROOM, size))
        assert used_by(writer, ROOM) == Usage(size=13, files=3)
    with contextlib.closing(Store(tmp_path)) as new, new.database.read() as reader:
        assert used_by(reader, ROOM) == counted(reader) == Usage(size=8, files=2)


class _Undone(Exception):
    """What was tried isn't kept."""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(_STEPS)), st.integers(0, 9)), max_size=8),
    st.integers(0, 12),
)
def test_what_would_come_besides(
    database: Database, steps: list[tuple[str, int]], size: int
) -> None:
    with contextlib.suppress(_Undone), database.write() as writer:
        for name, other in steps:
            writer.execute(_STEPS[name], ("a", ROOM, other))
        before, more = used_by(writer, ROOM), growth(writer, "a", size)
        writer.execute(_UPLOAD.replace("VALUES (?1", "VALUES (?1 || '3'"), ("a", ROOM, size))
        after = used_by(writer, ROOM)
        assert more == Usage(size=after.size - before.size, files=after.files - before.files)
        raise _Undone


@pytest.mark.parametrize(
    ("quota", "more", "why"),
    [
        (Quota(), Usage(size=1 << 60, files=1 << 60), ""),
        (Quota(size=10, files=3), Usage(size=5, files=1), ""),
        (Quota(size=10), Usage(size=6, files=9), "may keep 10 B on the server and has 5 B; 1 B"),
        (Quota(files=3), Usage(size=99, files=3), "may keep 3 files on the server and has 2; 2"),
        (Quota(size=4, files=1), Usage(), ""),
        (Quota(size=4, files=1), Usage(files=1), "may keep 1 files on the server and has 2; 2"),
        (Quota(size=4, files=1), Usage(size=1), "may keep 4 B on the server and has 5 B; 2 B"),
    ],
)
def test_a_room_has_no_more_than_it_may(quota: Quota, more: Usage, why: str) -> None:
    used = Usage(size=5, files=2)
    if not why:
        check_quota(ROOM, quota, used=used, more=more)
        return
    with pytest.raises(QuotaExceeded, match=why):
        check_quota(ROOM, quota, used=used, more=more)
