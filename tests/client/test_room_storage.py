from __future__ import annotations

import pytest

from sleap_rtc.client import room_storage
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.errors import UsageError


async def test_it_is_opened_once_and_again_after_it_was_closed(lab):
    storage = RoomStorage(lab.owner.settings, lab.owner.entry)
    store = storage.open()
    assert storage.open() is store
    assert store.key("a" * 64) == f"uploads/{lab.owner.entry.room}/{'a' * 64}"
    storage.close()
    assert storage.open() is not store
    storage.close()
    storage.close()


async def test_without_the_extra_it_says_what_to_install(lab, monkeypatch):
    monkeypatch.setattr(room_storage, "_NEEDED", "a_package_that_nobody_has")
    storage = RoomStorage(lab.owner.settings, lab.owner.entry)
    assert not storage.can
    with pytest.raises(UsageError) as caught:
        storage.open()
    assert "sleap-rtc[http]" in caught.value.hint_text
