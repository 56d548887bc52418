"""An owner's own certificate stays fresh."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.issue import make_room
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.renewal import renewed
from sleap_rtc.domain.ids import room_id_of


def owned(tmp_path, *, days_ago: int, keep_key: bool = True) -> tuple[DeviceStore, RoomEntry]:
    store = DeviceStore(tmp_path)
    key = SigningKey.generate()
    made = datetime.now(UTC) - timedelta(days=days_ago)
    chain = make_room(key, store.device_key().device, name="ada", now=made)
    room = room_id_of(key.public)
    entry = RoomEntry(room=room, name="lab", server="https://lab.org", role="owner", chain=chain)
    if keep_key:
        store.save_room_key(key)
    store.save_room(entry)
    return store, entry


def expiry(entry: RoomEntry) -> datetime:
    now = datetime.now(UTC)
    return verify_chain(entry.chain, room=entry.room, now=now, who="This device").expires


def test_a_young_certificate_stays(tmp_path):
    store, entry = owned(tmp_path, days_ago=3)
    assert renewed(store, entry) == entry


def test_an_old_one_and_one_that_ended_are_made_anew(tmp_path):
    for days in (20, 90):
        store, entry = owned(tmp_path / str(days), days_ago=days)
        fresh = renewed(store, entry)
        assert expiry(fresh) > datetime.now(UTC) + timedelta(days=29)
        assert store.room("lab") == fresh


def test_without_the_rooms_key_nothing_can_be_done(tmp_path):
    store, entry = owned(tmp_path, days_ago=20, keep_key=False)
    assert renewed(store, entry) == entry
