"""A store without what is damaged in another one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.server.sound_store import SoundStore
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import MIN_PART, Content, ObjectStore, StoredObject


class Doubts:
    """Takes objects by these keys for damaged."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def is_damaged(self, found: StoredObject) -> bool:
        return found.key in self.keys

    def was_damaged(self, key: str) -> bool:
        return key in self.keys


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    found = FolderStore(tmp_path, base_url="")
    for key in ("good", "bad"):
        assert found.create(key, b"it")
    return found


def content(key: str, data: bytes) -> Content:
    return Content(key=key, size=len(data), sha256=hashlib.sha256(data).digest())


def test_what_is_damaged_is_looked_for_in_vain(folder: FolderStore) -> None:
    doubts: Any = Doubts("bad")
    store: ObjectStore = SoundStore(folder, doubts)
    assert store.name == folder.name
    assert store.head("bad") is None
    assert store.head("good") == folder.head("good")
    assert [found and found.key for found in store.heads(["bad", "good", "none"])] == [
        None,
        "good",
        None,
    ]
    both = [content("bad", b"it"), content("good", b"it")]
    assert [found and found.key for found in store.confirm(both)] == [None, "good"]
    # As it is it can be read and listed.
    assert sorted(found.key for found in store.keys("")) == ["bad", "good"]
    assert store.read("bad", limit=9) == b"it"
    assert len(store.download_requests(["bad"])) == 1
    assert store.download_request("bad").method == "GET"


def test_what_is_sent_takes_its_place(folder: FolderStore) -> None:
    doubts: Any = Doubts("bad")
    store = SoundStore(folder, doubts)
    requests = store.offer([content("bad", b"other"), content("good", b"other")])
    replacing = []
    for request in requests:
        assert request is not None
        ticket = folder.ticket(request.url.removeprefix("/"), method="PUT")
        replacing.append(ticket.replacing)
    assert replacing == [True, False]


def test_everything_else_is_the_other_stores(folder: FolderStore) -> None:
    doubts: Any = Doubts()
    store = SoundStore(folder, doubts)
    upload = store.begin("new", size=3, part_size=MIN_PART)
    assert store.parts(upload) == []
    assert list(store.part_requests(upload, [])) == []
    store.abort(upload)
    assert store.create("small", b"x")
    store.delete("small")
    assert store.head("small") is None
