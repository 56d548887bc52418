"""Probing stores: good ones pass and keep nothing of it, unsafe ones are refused with why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.errors import UnsafeStorage
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.probe import Findings, probe
from sleap_rtc.testing.seaweed import SeaweedServer
from sleap_rtc.testing.store_endpoint import StoreEndpoint

GOOD = Findings(pins_content=True, pins_ranges=True)


def test_a_folder_is_safe(endpoint: StoreEndpoint) -> None:
    assert probe(endpoint.store) == GOOD
    assert list(endpoint.store.keys("")) == []
    assert list(endpoint.store._uploads.iterdir()) == []


@pytest.mark.slow
def test_a_real_s3_server_is_safe(seaweed: SeaweedServer) -> None:
    store = seaweed.make_bucket("probe")
    assert probe(store, racers=6) == GOOD
    assert list(store.keys("")) == []


class Unsafe(FolderStore):
    """Overwrites, though it is told not to, as ``how`` has it."""

    def __init__(self, root: Path, how: str) -> None:
        super().__init__(root, base_url="http://127.0.0.1:1")
        self._how = how

    def create(self, key: str, data: bytes) -> bool:
        if self._how == "none":
            super().create(key, data)
            return False
        if self._how == "quietly":
            done = super().create(key, data)
            if not done:
                (self._objects / key).write_bytes(data)
            return done
        if self._how == "late" and data != b"late":
            return super().create(key, data)
        self.delete(key)
        super().create(key, data)
        return True


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("always", "writers were told that they made the same object"),
        ("none", "none of 4 writers"),
        ("quietly", "overwrit"),
        ("late", "although it is told not to"),
    ],
)
def test_a_store_that_loses_changes_is_refused(tmp_path: Path, how: str, why: str) -> None:
    store = Unsafe(tmp_path / "store", how)
    with pytest.raises(UnsafeStorage, match=why) as caught:
        probe(store, racers=4)
    assert str(tmp_path / "store") in caught.value.message
    assert list(store.keys("")) == []


def test_what_does_no_harm_is_told(endpoint: StoreEndpoint, monkeypatch: Any) -> None:
    endpoint.fault = lambda method, _count: "lie" if method == "PUT" else "500"
    assert probe(endpoint.store, racers=2) == Findings(pins_content=False, pins_ranges=False)
