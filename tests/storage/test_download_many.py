"""Fetching many small objects: whole and checked, or not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.errors import Busy, Cancelled, Damaged, NotFound, StorageUnreachable
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.storage import download_many
from sleap_rtc.storage.download_many import WantedFile, download_contents
from sleap_rtc.storage.objects import MAX_WHOLE, SignedRequest
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.store_endpoint import StoreEndpoint

QUICK = Patience(attempts=4, base=0.001, cap=0.01)
SIZES = [0, 1, 20_000, (1 << 20) + 5, *range(2, 22)]


class Place:
    """Objects in a store, and where they are to be."""

    def __init__(self, endpoint: StoreEndpoint, root: Path) -> None:
        self.endpoint, self.root = endpoint, root
        self.asked: list[int] = []
        (root / "there").mkdir()
        self.datas = [os.urandom(size) for size in SIZES]
        self.wanted = []
        for number, data in enumerate(self.datas):
            endpoint.store.create(f"k/{number}", data)
            path = root / f"source-{number}"
            path.write_bytes(data)
            entry, hashes = hash_file(path, as_path=path.name)
            known: dict[str, Any] = {"target": root / "there" / str(number), "size": len(data)}
            known |= {"entry": entry} if number % 2 else {"blake3": hashes.blake3}
            self.wanted.append(WantedFile(key=f"k/{number}", **known))

    def links(self, keys: Sequence[str]) -> list[SignedRequest]:
        self.asked.append(len(keys))
        return self.endpoint.store.download_requests(keys)

    def fetch(self, **more: Any) -> None:
        given = {"partial": self.root / "partial", "patience": QUICK, **more}
        download_contents(self.links, given.pop("wanted", self.wanted), **given)

    def check(self) -> None:
        found = [(self.root / "there" / str(n)).read_bytes() for n in range(len(SIZES))]
        assert found == self.datas
        assert not (self.root / "partial").exists()


@pytest.fixture
def place(endpoint: StoreEndpoint, tmp_path: Path) -> Iterator[Place]:
    return Place(endpoint, tmp_path)


def test_all_of_them_by_one_question(place: Place) -> None:
    arrived: list[int] = []
    place.fetch(arrived=arrived.append)
    place.check()
    assert place.asked == [len(SIZES)]
    assert sorted(arrived) == list(range(len(SIZES)))
    assert len(place.endpoint.requests) == len(SIZES) - 1  # nothing is fetched of the empty one


def test_several_batches_and_what_was_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_many, "BATCH", 5)
    monkeypatch.setattr(download_many, "BATCH_BYTES", 1 << 20)
    (place.root / "there" / "7").write_bytes(b"old")
    place.fetch(in_flight=3)
    place.check()
    assert sum(place.asked) == len(SIZES)
    assert len(place.asked) >= 5


def test_none_at_all(place: Place) -> None:
    place.fetch(wanted=[])
    assert place.asked == []


@pytest.mark.parametrize("fault", ["500", "503", "cut", "403"])
def test_what_fails_now_and_then_is_fetched_again(place: Place, fault: str) -> None:
    place.endpoint.fault = lambda _method, number: fault if number in (1, 6, 7) else None
    place.fetch()
    place.check()


def test_bytes_that_are_wrong_are_fetched_again(place: Place) -> None:
    place.endpoint.fault = lambda _method, number: "flip" if number in (2, 9) else None
    place.fetch()
    place.check()


def test_what_stays_wrong_is_damaged(place: Place) -> None:
    place.endpoint.store.delete("k/5")
    place.endpoint.store.create("k/5", os.urandom(SIZES[5]))
    with pytest.raises(Damaged, match="k/5"):
        place.fetch()
    assert not (place.root / "there" / "5").exists()
    place.endpoint.store.delete("k/5")
    with pytest.raises(NotFound):
        place.fetch()
    place.endpoint.store.create("k/5", place.datas[5])
    place.fetch()
    place.check()


def test_a_store_that_is_away(place: Place) -> None:
    place.endpoint.fault = lambda _method, number: "503" if number > 3 else None
    with pytest.raises(StorageUnreachable):
        place.fetch()


def test_who_paces_or_is_told_may_end_it(place: Place) -> None:
    def end(_: int) -> None:
        raise Cancelled(what="It")

    for way in ("pace", "arrived"):
        with pytest.raises(Cancelled):
            place.fetch(**{way: end})
    place.fetch(connections=(shared := Connections()))
    place.check()
    shared.close()


def test_one_at_a_time_in_one_place(place: Place) -> None:
    with Claim(place.root / "partial", what="It"), pytest.raises(Busy):
        place.fetch()


def test_what_can_t_be_checked_or_is_too_large(place: Place) -> None:
    target = place.root / "there" / "x"
    with pytest.raises(ValueError, match="hash"):
        place.fetch(wanted=[WantedFile(key="k", target=target, size=1)])
    large = WantedFile(key="k", target=target, size=MAX_WHOLE + 1, blake3=blake3().hexdigest())
    with pytest.raises(Damaged):
        place.fetch(wanted=[large])


def test_where_the_file_system_can_t_be_synced_each_file_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Semaphore(0)
    monkeypatch.setattr(download_many, "sync_file_system", lambda _fd: False)
    monkeypatch.setattr(download_many, "sync_file", lambda _fd: synced.release())
    place.fetch()
    for _ in SIZES:
        assert synced.acquire(blocking=False)
