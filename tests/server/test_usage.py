"""What rooms have, as the database counts it by itself, is what their rows say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.auth.certificates import Member
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import QuotaExceeded
from sleap_rtc.server.store import Store
from sleap_rtc.server.usage import Quota, Usage, check_quota, used_by
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
    "expect": _EXPECTED,
    "complete": "UPDATE uploads SET state = 'completing' WHERE id = ?1 AND ?2 != '' AND ?3 >= 0",
    "done": "UPDATE uploads SET state = 'done' WHERE id = ?1 AND ?2 != '' AND ?3 >= 0",
    "open": "UPDATE uploads SET state = 'open' WHERE id = ?1 AND ?2 != '' AND ?3 >= 0",
    "no object": "DELETE FROM objects WHERE key = ?1 AND ?2 != '' AND ?3 >= 0",
    "no upload": "DELETE FROM uploads WHERE id = ?1 AND ?2 != '' AND ?3 >= 0",
    "not expected": "DELETE FROM expected WHERE key = ?1 AND ?2 != '' AND ?3 >= 0",
}
_TRUTH = (
    "SELECT coalesce(sum(size), 0), count(*) FROM (SELECT room, size FROM objects "
    "UNION ALL SELECT room, size FROM uploads WHERE state != 'done' "
    "UNION ALL SELECT room, size FROM expected) WHERE room = ?"
)


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
        assert used_by(reader, ROOM) == Usage(*reader.execute(_TRUTH, (ROOM,)).fetchone())
        assert used_by(reader, RoomId("0" * 32)) == Usage()


@pytest.mark.parametrize(
    ("quota", "more", "why"),
    [
        (Quota(), Usage(size=1 << 60, files=1 << 60), ""),
        (Quota(size=10, files=3), Usage(size=5, files=1), ""),
        (Quota(size=10), Usage(size=6, files=9), "may keep 10 B on the server and has 5 B; 1 B"),
        (Quota(files=3), Usage(size=99, files=3), "may keep 3 files on the server and has 2; 2"),
    ],
)
def test_a_room_has_no_more_than_it_may(quota: Quota, more: Usage, why: str) -> None:
    used = Usage(size=5, files=2)
    if not why:
        check_quota(ROOM, quota, used=used, more=more)
        return
    with pytest.raises(QuotaExceeded, match=why):
        check_quota(ROOM, quota, used=used, more=more)
