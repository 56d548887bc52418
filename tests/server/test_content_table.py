"""What is expected, in a real database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sleap_rtc.auth.certificates import Member
from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import QuotaExceeded
from sleap_rtc.server.content_table import ContentTable, ExpectedRow
from sleap_rtc.server.store import Store, prepare_data_dir
from sleap_rtc.server.upload_table import UploadTable
from sleap_rtc.server.usage import Quota
from sleap_rtc.testing.made_room import MadeRoom

ROOM = MadeRoom(3).room
ME, OTHER = DeviceId("a" * 64), DeviceId("b" * 64)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    prepare_data_dir(tmp_path / "data")
    made = Store(tmp_path / "data")
    code = made.new_code(now=NOW)
    made.register_by_code(ME, code=code, name="a", program="", now=NOW)
    owner = Member(device=ME, room=ROOM, name="x", role="owner", expires=NOW + 24 * HOUR)
    made.create_room(owner, name="lab", now=NOW)
    yield made
    made.close()


@pytest.fixture
def table(store: Store) -> ContentTable:
    return ContentTable(store.database)


def row(key: str, device: DeviceId = ME, size: int = 10, at: datetime = NOW) -> ExpectedRow:
    return ExpectedRow(
        key=key, device=device, room=ROOM, area="rooms", size=size, asked=at.timestamp()
    )


def test_from_expected_to_stored(table: ContentTable, store: Store) -> None:
    table.expect([row("a"), row("b")], quota=Quota())
    table.expect([row("a", OTHER)], quota=Quota())
    known = table.known(["a", "b", "c"], ME)
    assert (known.expected, known.mine, known.stored) == ({"a", "b"}, {"a", "b"}, frozenset())
    assert table.known(["a", "b"], OTHER).mine == {"a"}
    assert UploadTable(store.database).used(ROOM).size == 30
    table.stored([row("a")], now=NOW)
    known = table.known(["a", "b"], ME)
    assert (known.expected, known.mine, known.stored) == ({"a", "b"}, {"b"}, {"a"})
    assert table.stay(["a", "b"], now=NOW + HOUR) == {"a"}
    assert UploadTable(store.database).stored("a") == NOW + HOUR
    assert table.stay([], now=NOW) == frozenset()
    table.stored([], now=NOW)
    table.expect([], quota=Quota(size=1))


def test_a_quota_that_is_too_small_notes_none(table: ContentTable) -> None:
    with pytest.raises(QuotaExceeded):
        table.expect([row("a"), row("b")], quota=Quota(size=19))
    assert table.known(["a", "b"], ME).expected == frozenset()
    table.expect([row("a"), row("b")], quota=Quota(size=20))
    table.expect([row("a"), row("b")], quota=Quota(size=20))


def test_what_was_asked_for_anew_is_still_expected(table: ContentTable) -> None:
    table.expect([row("a"), row("b")], quota=Quota())
    old = table.asked_before(NOW)
    assert [each.key for each in old] == ["a", "b"]
    table.expect([row("a", at=NOW + HOUR)], quota=Quota())
    table.drop(old)
    assert table.known(["a", "b"], ME).mine == {"a"}
    assert table.asked_before(NOW) == []


def test_condemned_and_forgotten(table: ContentTable, store: Store) -> None:
    uploads = UploadTable(store.database)
    table.stored([row("a"), row("b")], now=NOW)
    table.expect([row("b")], quota=Quota())
    assert uploads.condemn("a", NOW)
    assert not uploads.condemn("b", NOW)  # somebody has a link for it
    assert table.known(["a", "b"], ME).condemned == {"a"}
    assert (table.is_condemned("a"), table.is_condemned("b")) == (True, False)
    assert table.stay(["a", "b"], now=NOW) == {"b"}
    table.forget("a")
    assert not table.is_condemned("a")
